//! What streams over HTTP/2 ends with its session, in its protocol's own words, and the connection goes on.

use std::time::Duration;

use http::{Request, StatusCode};
use tokio::time::timeout;
use vestibule_test_support::{H2Client, Stage};

use super::web_sockets::{connect_to, open};
use super::with_cookies;

const SOON: Duration = Duration::from_secs(2);

#[tokio::test]
async fn a_tunnel_is_told_that_its_session_has_ended_and_the_others_of_its_connection_go_on() {
    let stage = Stage::start();
    let (ada, bob) = (stage.signed_in_browser().await, stage.signed_in_browser().await);
    let client = H2Client::connect(stage.address()).await;
    let request = |browser| with_cookies(&stage, browser, connect_to(stage.url("/ws"), "websocket")).body(()).unwrap();
    let (mut hers, _) = open(&client, request(&ada)).await.unwrap();
    let (mut his, _) = open(&client, request(&bob)).await.unwrap();
    hers.send(1, b"hi");
    assert_eq!(hers.receive().await, Some((1, b"hi".to_vec())));
    assert_eq!(ada.tab().get(&stage.url("/auth/logout")).await.status, StatusCode::SEE_OTHER);
    let told = timeout(SOON, hers.receive()).await.expect("a goodbye in time");
    assert_eq!(told, Some((8, b"\x03\xf0session ended".to_vec())));
    hers.send(8, &1008_u16.to_be_bytes());
    assert_eq!(timeout(SOON, hers.receive()).await.expect("an end in time"), None);
    his.send(1, b"still here");
    assert_eq!(his.receive().await, Some((1, b"still here".to_vec())));
}

#[tokio::test]
async fn a_call_of_grpc_ends_with_its_session_as_unauthenticated_in_trailers() {
    let stage = Stage::start();
    let browser = stage.signed_in_browser().await;
    let client = H2Client::connect(stage.address()).await;
    let call = Request::post(stage.url("/sse?type=application/grpc"))
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    let call = with_cookies(&stage, &browser, call).body(()).unwrap();
    let (response, _sending) = client.open(call, false).await.unwrap();
    let mut body = response.await.unwrap().into_body();
    let first = body.data().await.unwrap().unwrap();
    assert!(first.starts_with(b"id: 0"), "{first:?}");
    assert_eq!(browser.tab().get(&stage.url("/auth/logout")).await.status, StatusCode::SEE_OTHER);
    let rest = async {
        while let Some(data) = body.data().await {
            body.flow_control().release_capacity(data.unwrap().len()).unwrap();
        }
        body.trailers().await.unwrap().expect("trailers")
    };
    let trailers = timeout(SOON, rest).await.expect("an end in time");
    assert_eq!(
        (&trailers["grpc-status"], &trailers["grpc-message"]),
        (&"16".parse().unwrap(), &"session_ended".parse().unwrap())
    );
    assert_eq!(client.get(&stage.url("/x")).await.unwrap().status, StatusCode::UNAUTHORIZED, "the connection goes on");
}
