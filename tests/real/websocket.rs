//! WebSockets by a real client and a real server: the cases of the usual conformance suites, through the proxy.

use vestibule_test_support::Value;

use super::python::{self, Server, cookie_header, stage_with};

const CLIENT: &str = "websocket/client.py";

#[tokio::test]
async fn every_case_of_a_conformance_suite_passes_through() {
    let server = Server::start("websocket/server.py");
    let stage = stage_with(&server, "/socket", "").start();
    let browser = stage.signed_in_browser().await;
    let cookie = cookie_header(&stage, &browser);

    let results = python::run(CLIENT, vec![format!("ws://{}/socket", stage.host()), cookie]).await;
    let cases = results.as_object().expect("cases");
    assert!(cases.len() > 30, "{cases:?}");
    let failed: Vec<_> = cases.iter().filter(|(_, wrong)| !wrong.is_null()).collect();
    assert!(failed.is_empty(), "{failed:#?}");
}

#[tokio::test]
async fn without_a_session_no_socket_opens() {
    let server = Server::start("websocket/server.py");
    let stage = stage_with(&server, "/socket", "").start();
    let results = python::run(CLIENT, vec![format!("ws://{}/socket", stage.host())]).await;
    for (case, wrong) in results.as_object().expect("cases") {
        // One case opens a hundred sockets and reports the first that was refused.
        let refused = matches!(wrong, Value::String(wrong) if wrong == "refused with 401");
        assert!(refused, "{case}: {wrong}");
    }
}
