//! A stop loses no request, tells the balancer first, and ends within its bound whatever is open.

use std::time::{Duration, Instant};

use futures_util::StreamExt;
use http::StatusCode;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use vestibule_test_support::Stage;

const PUBLIC: &str = "[[routes]]\npath = \"/*\"\naccess = \"public\"";

#[tokio::test]
async fn readiness_says_no_while_new_connections_are_still_served_and_requests_in_flight_complete() {
    let stage = Stage::builder().toml(PUBLIC).grace(Duration::from_millis(700)).start();
    stage.wait_for_provider().await;
    let browser = stage.browser();
    let slow: Vec<_> = (0..50)
        .map(|_| {
            tokio::spawn({
                let (browser, url) = (browser.tab(), stage.url("/slow?ms=1500"));
                async move { browser.fetch(&url).await.status }
            })
        })
        .collect();
    while stage.upstream.count() < 50 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    stage.begin_stop();
    stage.wait_for_readiness("the drain to be told", |reply| reply.status == 503).await;
    let reply = browser.fetch(&stage.admin_url("/readyz")).await;
    assert_eq!((reply.status, reply.json()["status"].clone()), (StatusCode::SERVICE_UNAVAILABLE, json!("draining")));
    for _ in 0..10 {
        assert_eq!(browser.fetch(&stage.url("/new")).await.status, StatusCode::OK);
    }
    assert_eq!(browser.fetch(&stage.admin_url("/healthz")).await.status, StatusCode::OK);
    for request in slow {
        assert_eq!(request.await.unwrap(), StatusCode::OK);
    }
}

#[tokio::test]
async fn an_endless_event_stream_holds_no_stop_past_its_bound() {
    let mut stage = Stage::with(PUBLIC);
    let mut stream = TcpStream::connect(stage.address()).await.unwrap();
    let head = format!("GET /sse?every_ms=50 HTTP/1.1\r\nHost: {}\r\n\r\n", stage.host());
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.read_exact(&mut [0; 50]).await.unwrap();
    let started = Instant::now();
    stage.stop();
    // The stage's drain: no grace, two seconds for what is in flight.
    let took = started.elapsed();
    assert!(took >= Duration::from_millis(1_900) && took < Duration::from_secs(5), "{took:?}");
}

#[test]
fn by_default_a_stop_ends_before_an_orchestrator_loses_its_patience() {
    // Kubernetes kills after 30 s; two more are for the WebSockets' goodbye.
    let settings = vestibule::server::drain::Settings::default();
    assert!(settings.grace >= Duration::from_secs(1), "the balancer has to hear of it");
    assert!(settings.grace + settings.timeout <= Duration::from_secs(27), "{settings:?}");
}

#[tokio::test]
async fn an_idle_proxy_stops_at_once() {
    let mut stage = Stage::with(PUBLIC);
    stage.browser().fetch(&stage.url("/")).await;
    let started = Instant::now();
    stage.stop();
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
}

#[tokio::test]
async fn web_sockets_are_told_that_we_go_away() {
    let mut stage = Stage::with(PUBLIC);
    let (mut socket, _) =
        tokio_tungstenite::connect_async(format!("ws://127.0.0.1:{}/ws", stage.address().port())).await.unwrap();
    let stop = std::thread::spawn(move || stage.stop());
    let goodbye =
        tokio::time::timeout(Duration::from_secs(5), socket.next()).await.expect("a goodbye").unwrap().unwrap();
    let Message::Close(Some(frame)) = goodbye else { panic!("{goodbye:?}") };
    assert_eq!(u16::from(frame.code), 1001);
    stop.join().unwrap();
}
