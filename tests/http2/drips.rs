//! Bodies that drip: a stranger's is cut, whether its length was announced or not, and what is meant to be slow goes on.

use std::pin::pin;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::join_all;
use http::request::Builder;
use http::{Request, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::time::timeout;
use vestibule_test_support::h2::{H2Reply, whole};
use vestibule_test_support::script::{application, head, silent};
use vestibule_test_support::{H2Client, Stage, bytes};

use super::{PUBLIC, web_sockets, with_cookies};
use crate::upstreams::application::{Application, Way};

const SOON: Duration = Duration::from_secs(5);
/// Slower than a KiB a second is too slow, after a second.
const QUICK: &str = "[limits]\nmin_body_rate = \"1KiB\"\nbody_grace = \"1s\"";
/// How long a body drips that is not cut.
const LONG: Duration = Duration::from_secs(3);

fn post(stage: &Stage, path: &str) -> Builder {
    Request::post(stage.url(path))
}

/// Sends a byte every 100 ms until an answer comes, or for [`LONG`], and then the end: the answer, and whether it came first.
async fn drip(client: &H2Client, request: Builder) -> (H2Reply, bool) {
    let (response, mut sending) = client.open(request.body(()).unwrap(), false).await.unwrap();
    let mut answer = pin!(whole(response));
    let started = Instant::now();
    while started.elapsed() < LONG {
        // Nobody may want it any more, and then the answer says so.
        let _ = sending.send_data(Bytes::from_static(b"x"), false);
        if let Ok(reply) = timeout(Duration::from_millis(100), answer.as_mut()).await {
            return (reply.unwrap(), true);
        }
    }
    sending.send_data(Bytes::new(), true).unwrap();
    (timeout(SOON, answer).await.expect("an answer").unwrap(), false)
}

#[tokio::test]
async fn a_strangers_body_that_drips_is_cut_and_others_of_its_connection_are_served_meanwhile() {
    let (url, mut ends) = silent().await;
    let stage = Stage::with(&format!(
        "{QUICK}\n[upstream]\nurl = unset\n[upstreams.slow]\nurl = \"{url}\"\n[upstreams.echo]\nurl = \"{{upstream}}\"\n\
         [[routes]]\npath = \"/slow\"\naccess = \"public\"\nupstream = \"slow\"\n\
         [[routes]]\npath = \"/*\"\naccess = \"public\"\nupstream = \"echo\""
    ));
    let client = H2Client::connect(stage.address()).await;
    for announced in [false, true] {
        let request = post(&stage, "/slow");
        let request = if announced { request.header("content-length", "100000") } else { request };
        let (started, url) = (Instant::now(), stage.url("/x"));
        let ((reply, cut), others) = tokio::join!(drip(&client, request), join_all((0..10).map(|_| client.get(&url))));
        assert!(cut && started.elapsed() > Duration::from_millis(900), "{:?}: {}", started.elapsed(), reply.text());
        assert_eq!((reply.status, &reply.json()["code"]), (StatusCode::REQUEST_TIMEOUT, &"body_too_slow".into()));
        assert!(others.into_iter().all(|other| other.unwrap().status == StatusCode::OK));
        let (asked, body) = timeout(SOON, ends.recv()).await.expect("the application is told").unwrap();
        assert_eq!(asked.to_ascii_lowercase().contains("content-length: 100000"), announced, "{asked}");
        assert!(body.len() < 1000 && !body.ends_with(b"0\r\n\r\n"), "{}", String::from_utf8_lossy(&body));
    }
}

#[tokio::test]
async fn a_slow_stream_of_somebody_who_is_signed_in_goes_on() {
    let stage = Stage::with(QUICK);
    let browser = stage.signed_in_browser().await;
    let client = H2Client::connect(stage.address()).await;
    let request = with_cookies(&stage, &browser, post(&stage, "/x")).header("origin", stage.origin());
    let (reply, cut) = drip(&client, request).await;
    assert_eq!((reply.status, cut), (StatusCode::OK, false));
    assert!(stage.upstream.last().complete && stage.upstream.last().body_length >= 10);
}

#[tokio::test]
async fn once_the_application_answers_the_pace_is_its_business() {
    let (ended, mut ends) = mpsc::unbounded_channel();
    let url = application(move |mut stream| {
        let ended = ended.clone();
        async move {
            head(&mut stream).await;
            stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhi").await.unwrap();
            let mut body = Vec::new();
            while !body.ends_with(b"0\r\n\r\n") && stream.read_buf(&mut body).await.is_ok_and(|count| count > 0) {}
            let _ = ended.send(body.ends_with(b"0\r\n\r\n"));
        }
    })
    .await;
    let stage = Stage::with(&format!("{QUICK}\n[upstream]\nurl = \"{url}\"\n{PUBLIC}"));
    let client = H2Client::connect(stage.address()).await;
    let (reply, cut) = drip(&client, post(&stage, "/x")).await;
    assert_eq!((reply.status, reply.text().as_str(), cut), (StatusCode::OK, "hi", false));
    assert_eq!(timeout(SOON, ends.recv()).await.expect("the end of the body"), Some(true));
}

#[tokio::test]
async fn a_strangers_call_of_grpc_may_be_slow_and_nothing_passes_for_one_that_can_be_none() {
    const GRPC: (&str, &str) = ("content-type", "application/grpc+proto");
    const TRAILERS: (&str, &str) = ("te", "trailers");
    // Whether the application speaks HTTP/2, what it is asked, and whether that goes on.
    let rows = [
        (true, [GRPC, TRAILERS], true),
        (true, [("content-type", "application/octet-stream"), TRAILERS], false),
        (false, [GRPC, TRAILERS], false),
        // It is for a connection of its own, and that speaks HTTP/1.1.
        (true, [GRPC, ("authorization", "Negotiate abc")], false),
    ];
    join_all(rows.into_iter().map(|(h2, fields, goes_on)| async move {
        let application = Application::start(Way { unix: false, tls: false, h2 }).await;
        let stage =
            Stage::with(&format!("{QUICK}\n[upstream]\n{}\n{PUBLIC}\npass_authorization = true", application.toml));
        let client = H2Client::connect(stage.address()).await;
        let request =
            fields.iter().fold(post(&stage, "/count"), |request, (name, value)| request.header(*name, *value));
        let (reply, cut) = drip(&client, request).await;
        if goes_on {
            assert_eq!((reply.status, reply.text().as_str(), cut), (StatusCode::OK, "complete", false));
            return;
        }
        assert!(cut, "{fields:?}: {}", reply.text());
        match reply.headers.get("grpc-message") {
            Some(message) => assert_eq!(message, "body_too_slow"),
            None => assert_eq!(reply.json()["code"], "body_too_slow"),
        }
        let end = Instant::now() + SOON;
        while application.over.load(Ordering::SeqCst) == 0 {
            assert!(Instant::now() < end, "{fields:?}: the application is not told");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(application.complete.load(Ordering::SeqCst), 0, "{fields:?}");
    }))
    .await;
}

#[tokio::test]
async fn a_strangers_web_socket_may_be_silent() {
    let stage = Stage::with(&format!("{QUICK}\n{PUBLIC}"));
    let client = H2Client::connect(stage.address()).await;
    let request = web_sockets::connect_to(stage.url("/ws"), "websocket").body(()).unwrap();
    let (mut socket, _) = web_sockets::open(&client, request).await.unwrap();
    tokio::time::sleep(LONG).await;
    socket.send(1, b"still there");
    assert_eq!(socket.receive().await, Some((1, b"still there".to_vec())));
}
