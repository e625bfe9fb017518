//! gRPC by a real client and a real server: every kind of call, and what a call meets that may not pass.

use vestibule_test_support::{Value, json};

use super::python::{self, Server, cookie_header, stage_with};

const CLIENT: &str = "grpc/client.py";
const H2: &str = "protocol = \"h2\"";

#[tokio::test]
async fn every_kind_of_call_passes_in_both_directions() {
    let server = Server::start("grpc/server.py");
    let stage = stage_with(&server, "/tests.Echo/*", H2).start();
    stage.provider.set_user(json!({ "sub": "ada" }));
    let browser = stage.signed_in_browser().await;
    let cookie = cookie_header(&stage, &browser);

    let results = python::run(CLIENT, vec![stage.host(), cookie]).await;
    let answered = |answer: Value| json!({ "code": "OK", "answer": answer, "user": "ada" });
    assert_eq!(results["unary"], answered(json!("HELLO")), "{results:#}");
    assert_eq!(results["down"], answered(json!(1000)), "{results:#}");
    assert_eq!(results["up"], answered(json!("499500")), "{results:#}");
    assert_eq!(
        results["both"],
        answered(json!(100)),
        "each answer came before the next question was sent: {results:#}"
    );
    assert_eq!(results["large"], answered(json!(3_000_000)), "{results:#}");
    // What the application says is the application's: status and message arrive as they were.
    assert_eq!(results["failing"], json!({ "code": "FAILED_PRECONDITION", "message": "as asked" }), "{results:#}");
    assert_eq!(results["unknown"]["code"], "UNIMPLEMENTED", "{results:#}");
}

#[tokio::test]
async fn a_call_without_a_session_is_unauthenticated() {
    let server = Server::start("grpc/server.py");
    let stage = stage_with(&server, "/tests.Echo/*", H2).start();
    let results = python::run(CLIENT, vec![stage.host()]).await;
    assert_eq!(results["unary"]["code"], "UNAUTHENTICATED", "{results:#}");
}

#[tokio::test]
async fn a_call_without_the_role_is_permission_denied() {
    let server = Server::start("grpc/server.py");
    let stage = stage_with(&server, "/tests.Echo/*", &format!("{H2}\n[[routes]]\npath = \"/tests.Echo/Unary\"\nupstream = \"python\"\nrequire = {{ roles = [\"operator\"] }}")).start();
    let browser = stage.signed_in_browser().await;
    let cookie = cookie_header(&stage, &browser);
    let results = python::run(CLIENT, vec![stage.host(), cookie]).await;
    assert_eq!(results["unary"]["code"], "PERMISSION_DENIED", "{results:#}");
}

#[tokio::test]
async fn an_upstream_that_is_away_makes_a_call_unavailable() {
    let server = Server::start("grpc/server.py");
    let stage = stage_with(&server, "/tests.Echo/*", H2).start();
    let browser = stage.signed_in_browser().await;
    let cookie = cookie_header(&stage, &browser);
    drop(server);
    let results = python::run(CLIENT, vec![stage.host(), cookie]).await;
    assert_eq!(results["unary"]["code"], "UNAVAILABLE", "{results:#}");
}
