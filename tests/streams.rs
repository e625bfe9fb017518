//! Events, interim answers, upgrades and waits, against an application that is written here byte by byte.

use std::sync::Arc;
use std::time::Duration;

use http::{Method, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use vestibule::upstream::UpstreamSettings;
use vestibule_test_support::script::{agreeing, application, connect, head};
use vestibule_test_support::{H2Client, Request, Stage, raw_request};

/// How long anything that happens at once may take on a busy machine.
const SOON: Duration = Duration::from_secs(5);
const PUBLIC: &str = "[[routes]]\npath = \"/*\"\naccess = \"public\"";

/// A stage whose application is `url`, open to everybody.
fn in_front_of(url: &str) -> Stage {
    Stage::with(&format!("[upstream]\nurl = \"{url}\"\n{PUBLIC}"))
}

/// An application that answers with `beginning` and then writes each piece that comes out of the channel, as soon as it does.
async fn piecemeal(beginning: String) -> (String, mpsc::Sender<Vec<u8>>) {
    let (send, pieces) = mpsc::channel::<Vec<u8>>(1);
    let pieces = Arc::new(Mutex::new(pieces));
    let url = application(move |mut stream| {
        let (beginning, pieces) = (beginning.clone(), Arc::clone(&pieces));
        async move {
            head(&mut stream).await;
            stream.write_all(beginning.as_bytes()).await.unwrap();
            let mut pieces = pieces.lock().await;
            while let Some(piece) = pieces.recv().await {
                stream.write_all(&piece).await.unwrap();
            }
        }
    })
    .await;
    (url, send)
}

// In lock-step: what is held back until more comes is held back for ever, so no clock is needed to see it.
#[tokio::test]
async fn each_event_arrives_before_the_next_is_sent() {
    for (kind, event) in [("text/event-stream", "data: tick\n\n"), ("application/x-ndjson", "{\"tick\":true}\n")] {
        for framing in ["Transfer-Encoding: chunked", "Connection: close", "Content-Length: 100000"] {
            let beginning = format!("HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\n{framing}\r\n\r\n");
            let (url, events) = piecemeal(beginning).await;
            let stage = in_front_of(&url);
            let mut stream = connect(stage.address(), "GET / HTTP/1.1\r\nHost: {host}\r\n\r\n").await;
            // The head does not wait for the first event either.
            let head = timeout(SOON, head(&mut stream)).await.expect("the head");
            assert!(head.starts_with("HTTP/1.1 200"), "{kind} {framing}: {head}");
            let framed = |framed: bool| match framed {
                true => format!("{:x}\r\n{event}\r\n", event.len()),
                false => event.to_owned(),
            };
            let sent = framed(framing.ends_with("chunked"));
            let expected = framed(head.to_ascii_lowercase().contains("transfer-encoding: chunked"));
            for round in 0..200 {
                events.send(sent.clone().into_bytes()).await.unwrap();
                let mut arrived = vec![0; expected.len()];
                let arrival = timeout(SOON, stream.read_exact(&mut arrived)).await;
                arrival.unwrap_or_else(|_| panic!("{kind} {framing}: event {round} is held back")).unwrap();
                // RFC 9112 §7.1: a chunk's size is hexadecimal in either case.
                let arrived = String::from_utf8(arrived).unwrap().to_lowercase();
                assert_eq!(arrived, expected, "{kind} {framing} {round}");
            }
        }
    }
}

#[tokio::test]
async fn each_frame_of_a_web_socket_arrives_before_the_next_is_sent() {
    let (url, frames) = piecemeal(switching(&derive_accept_key(b"dGhlIHNhbXBsZSBub25jZQ=="))).await;
    let stage = in_front_of(&url);
    let mut stream = connect(stage.address(), &format!("GET /ws HTTP/1.1\r\nHost: {{host}}\r\n{UPGRADE}\r\n")).await;
    assert!(head(&mut stream).await.starts_with("HTTP/1.1 101"));
    // A whole message, and one in two frames (RFC 6455 §5.2), the first of which does not wait for the second.
    let kinds: [&[u8]; 3] = [b"\x81\x04tick", b"\x01\x02ti", b"\x80\x02ck"];
    for frame in kinds.into_iter().cycle().take(300) {
        frames.send(frame.to_vec()).await.unwrap();
        let mut arrived = vec![0; frame.len()];
        timeout(SOON, stream.read_exact(&mut arrived)).await.expect("each frame arrives by itself").unwrap();
        assert_eq!(arrived, frame);
    }
}

#[tokio::test]
async fn an_answer_may_take_as_long_as_the_limit_says_and_a_minute_by_default() {
    let defaults = UpstreamSettings::default();
    assert!(defaults.response_timeout >= Duration::from_secs(60) && defaults.idle_timeout >= Duration::from_secs(60));
    // The same at a sixtieth: 35 s of 60.
    let stage = Stage::with(&format!("[upstream]\nresponse_timeout = \"1s\"\n{PUBLIC}"));
    assert_eq!(stage.browser().fetch(&stage.url("/slow?ms=583")).await.status, StatusCode::OK);
    // An answer that has begun has no such limit.
    let reply = stage.browser().fetch(&stage.url("/sse?events=4&every_ms=500")).await;
    assert_eq!((reply.status, reply.text().matches("tick").count()), (StatusCode::OK, 4));
}

/// As Grafana's live queries and many a dashboard do it: the answer waits for news, and a page that is closed waits no more.
#[tokio::test]
async fn a_poll_that_waits_for_seconds_is_answered_and_one_whose_client_leaves_is_cancelled() {
    const NEWS: Duration = Duration::from_secs(5);
    let (asked, mut questions) = mpsc::unbounded_channel();
    let (left, mut leaves) = mpsc::unbounded_channel();
    let url = application(move |mut stream| {
        let (asked, left) = (asked.clone(), left.clone());
        async move {
            while head(&mut stream).await.ends_with("\r\n\r\n") {
                asked.send(()).unwrap();
                tokio::select! {
                    () = tokio::time::sleep(NEWS) => {}
                    // Nothing may come before the answer but the end.
                    _ = stream.read_u8() => return left.send(()).unwrap(),
                }
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nnews").await.unwrap();
            }
        }
    })
    .await;
    let stage = Stage::with(&format!("[upstream]\nurl = \"{url}\""));
    let browser = stage.browser();
    assert_eq!(stage.sign_in(&browser, "/api/live?since=0").await.text(), "news");
    questions.recv().await.unwrap();
    // The next poll, on a connection of its own that is closed in the middle of it.
    let poll = format!(
        "GET /api/live?since=1 HTTP/1.1\r\nHost: {{host}}\r\nCookie: {}\r\n\r\n",
        browser.cookie_line(&stage.origin())
    );
    let stream = connect(stage.address(), &poll).await;
    timeout(SOON, questions.recv()).await.expect("the poll arrives").unwrap();
    drop(stream);
    timeout(Duration::from_secs(1), leaves.recv()).await.expect("the application is told").unwrap();
    // The one after that is answered as if nothing had been.
    assert_eq!(browser.fetch(&stage.url("/api/live?since=2")).await.text(), "news");
    assert!(leaves.try_recv().is_err());
}

#[tokio::test]
async fn hints_come_before_the_answer_and_no_other_informational_answer_comes() {
    let (url, pieces) = piecemeal(String::new()).await;
    let stage = in_front_of(&url);
    let mut client = connect(stage.address(), "GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").await;
    let informational = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Processing\r\nLink: </b.css>\r\n\r\n\
        HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\nSet-Cookie: a=1\r\nX-Forwarded-User: eve\r\n\
        Connection: close\r\nContent-Length: 3\r\n\r\nHTTP/1.1 103 Early Hints\r\nServer: x\r\n\r\n";
    pieces.send(informational.into()).await.unwrap();
    // The application goes on only after the hint has arrived.
    let hint = timeout(SOON, head(&mut client)).await.expect("the hint");
    assert_eq!(hint, "HTTP/1.1 103 Early Hints\r\nlink: </a.css>; rel=preload\r\n\r\n");
    pieces.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".into()).await.unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("\r\n\r\nok"), "{answer}");
    assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{answer}");
}

/// An application whose every answer is `body`, with a hint before it.
async fn hinting(body: String) -> String {
    application(move |mut stream| {
        let body = body.clone();
        async move {
            while !head(&mut stream).await.is_empty() {
                let hint = "HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n";
                let answer = format!("{hint}HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
                if stream.write_all(answer.as_bytes()).await.is_err() {
                    return;
                }
            }
        }
    })
    .await
}

#[tokio::test]
async fn hints_are_not_for_clients_of_http_1_0_or_2() {
    let stage = in_front_of(&hinting("ok".to_owned()).await);
    let request = format!("GET / HTTP/1.0\r\nHost: {}\r\n\r\n", stage.host());
    let answer = String::from_utf8(raw_request(stage.address(), request.as_bytes()).await).unwrap();
    assert!(answer.starts_with("HTTP/1.0 200") && !answer.contains("103"), "{answer}");
    let answer = H2Client::connect(stage.address()).await.get(&stage.url("/")).await.unwrap();
    assert_eq!((answer.status, answer.text()), (StatusCode::OK, "ok".to_owned()));
}

#[tokio::test]
async fn a_field_that_is_taken_out_of_answers_is_no_hint_either() {
    let url = hinting("ok".to_owned()).await;
    let edited = "response_headers = { remove = [\"link\"] }";
    let stage = Stage::with(&format!("[upstream]\nurl = \"{url}\"\n{PUBLIC}\n{edited}"));
    let request = format!("GET / HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", stage.host());
    let answer = String::from_utf8(raw_request(stage.address(), request.as_bytes()).await).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

// hyper may take the next request while the kernel does not take the end of the last answer.
#[tokio::test]
async fn a_hint_never_stands_in_the_midst_of_the_answer_before_it() {
    const LARGE: usize = 8 << 20;
    let stage = in_front_of(&hinting("x".repeat(LARGE)).await);
    let request = "GET / HTTP/1.1\r\nHost: {host}\r\n\r\n";
    let mut client = connect(stage.address(), &request.repeat(8)).await;
    for number in 0..8 {
        let mut first = head(&mut client).await;
        if first.starts_with("HTTP/1.1 103") {
            assert_eq!(first, "HTTP/1.1 103 Early Hints\r\nlink: </a.css>; rel=preload\r\n\r\n");
            first = head(&mut client).await;
        }
        assert!(first.starts_with("HTTP/1.1 200"), "{number}: {first}");
        let mut body = vec![0; LARGE];
        timeout(SOON * 4, client.read_exact(&mut body)).await.expect("the whole answer").unwrap();
        assert!(body.iter().all(|byte| *byte == b'x'), "{number}");
    }
}

#[tokio::test]
async fn a_client_that_waits_for_100_gets_it_only_when_its_body_is_wanted() {
    const ROUTES: &str = "[[routes]]\npath = \"/public/*\"\naccess = \"public\"";
    let stage = Stage::with(ROUTES);
    let ask = |path: &str| {
        format!(
            "POST {path} HTTP/1.1\r\nHost: {{host}}\r\nContent-Length: 5\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n"
        )
    };
    let mut stream = connect(stage.address(), &ask("/public/x")).await;
    assert_eq!(head(&mut stream).await, "HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"hello").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(stage.upstream.last().body_text, "hello");

    stage.upstream.forget();
    // Whether what follows is the body or a request, nobody can tell.
    for after in ["", "hello", "GET /public/x HTTP/1.1\r\nHost: {host}\r\n\r\n"] {
        let request = [ask("/x").replace("Connection: close\r\n", "").as_str(), after].concat();
        let refused = raw_request(stage.address(), request.replace("{host}", &stage.host()).as_bytes()).await;
        let refused = String::from_utf8(refused).unwrap();
        assert!(refused.starts_with("HTTP/1.1 401") && refused.contains("connection: close\r\n"), "{refused}");
        assert_eq!(refused.matches("HTTP/1.1").count(), 1, "{refused}");
    }
    stage.upstream.assert_untouched();
    stage.upstream.take_down();
    let away = raw_request(stage.address(), ask("/public/x").replace("{host}", &stage.host()).as_bytes()).await;
    assert!(away.starts_with(b"HTTP/1.1 502"), "{}", String::from_utf8_lossy(&away));
}

const EXPECTING: &str = "POST /upload HTTP/1.1\r\nHost: {host}\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n";

// A hint goes first, so that a 100 of ours would be seen before it.
#[tokio::test]
async fn a_100_is_the_applications_own_and_the_body_waits_for_it() {
    let url = application(|mut stream| async move {
        while let asked = head(&mut stream).await
            && !asked.is_empty()
        {
            assert!(asked.to_ascii_lowercase().contains("\r\nexpect: 100-continue\r\n"), "{asked}");
            let interim = "HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n";
            stream.write_all(interim.as_bytes()).await.unwrap();
            let mut body = [0; 5];
            stream.read_exact(&mut body).await.unwrap();
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n").await.unwrap();
            stream.write_all(&body).await.unwrap();
        }
    })
    .await;
    let stage = in_front_of(&url);
    let mut client = connect(stage.address(), "").await;
    // On one connection each way: the application's is used again.
    for _ in 0..3 {
        client.write_all(EXPECTING.replace("{host}", &stage.host()).as_bytes()).await.unwrap();
        let hint = timeout(SOON, head(&mut client)).await.expect("the hint");
        assert!(hint.starts_with("HTTP/1.1 103"), "{hint}");
        let go_on = timeout(SOON, head(&mut client)).await.expect("the 100");
        assert_eq!(go_on, "HTTP/1.1 100 Continue\r\n\r\n");
        client.write_all(b"hello").await.unwrap();
        let answer = timeout(SOON, head(&mut client)).await.expect("the answer");
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        let mut body = [0; 5];
        client.read_exact(&mut body).await.unwrap();
        assert_eq!(&body, b"hello");
    }
}

// Where one of the two took what follows for a body and the other for a request, a stranger's request would be answered as
// somebody else's.
#[tokio::test]
async fn an_application_that_answers_without_a_100_gets_no_body_and_no_other_request_there() {
    for (status, pause) in [("413 Content Too Large", 0), ("200 OK", 0), ("200 OK", 1_500)] {
        let (heard, mut hears) = mpsc::unbounded_channel();
        let url = application(move |mut stream| {
            let heard = heard.clone();
            async move {
                head(&mut stream).await;
                let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 2\r\n\r\nn");
                stream.write_all(answer.as_bytes()).await.unwrap();
                let mut rest = Vec::new();
                // Longer than one that is silent would be waited for.
                let _ = timeout(Duration::from_millis(pause), stream.read_to_end(&mut rest)).await;
                stream.write_all(b"o").await.unwrap();
                let _ = stream.read_to_end(&mut rest).await;
                heard.send(rest).unwrap();
            }
        })
        .await;
        let stage = in_front_of(&url);
        let smuggled = "GET /admin HTTP/1.1\r\nHost: {host}\r\n\r\n";
        // One client waits, the other has sent what may be its body or its next request.
        for after in ["", smuggled] {
            let mut client = connect(stage.address(), &[EXPECTING, after].concat()).await;
            let mut answer = String::new();
            let _ = timeout(SOON, client.read_to_string(&mut answer)).await.expect("the connection is closed");
            assert!(answer.starts_with(&format!("HTTP/1.1 {status}")) && answer.ends_with("no"), "{answer}");
            assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{answer}");
            assert!(answer.contains("connection: close\r\n"), "{answer}");
            let rest = timeout(SOON, hears.recv()).await.expect("the application's is, too").unwrap();
            assert_eq!(String::from_utf8_lossy(&rest), "", "{status}");
        }
    }
}

#[tokio::test]
async fn an_application_that_knows_no_expectations_is_waited_for_a_second_or_not_told_of_them() {
    let (sent, mut bodies) = mpsc::unbounded_channel();
    let url = application(move |mut stream| {
        let sent = sent.clone();
        async move {
            let asked = head(&mut stream).await.to_ascii_lowercase();
            let mut body = [0; 5];
            stream.read_exact(&mut body).await.unwrap();
            sent.send((asked.contains("\r\nexpect: "), body)).unwrap();
            stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
            let mut rest = Vec::new();
            let _ = stream.read_to_end(&mut rest).await;
        }
    })
    .await;
    // What the application owes in the meantime is no answer yet, whatever its idle time is.
    let waits = "idle_timeout = \"400ms\"";
    for (settings, is_told) in [(waits, true), ("request_headers = { remove = [\"Expect\"] }", false)] {
        let stage = Stage::with(&format!("[upstream]\nurl = \"{url}\"\n{settings}\n{PUBLIC}"));
        let mut client = connect(stage.address(), EXPECTING).await;
        let go_on = timeout(SOON, head(&mut client)).await.expect("the 100");
        assert_eq!(go_on, "HTTP/1.1 100 Continue\r\n\r\n");
        client.write_all(b"hello").await.unwrap();
        let answer = timeout(SOON, head(&mut client)).await.expect("the answer");
        assert!(answer.starts_with("HTTP/1.1 204"), "{answer}");
        assert_eq!(bodies.recv().await.unwrap(), (is_told, *b"hello"));
    }
}

#[tokio::test]
async fn an_expectation_that_no_100_can_meet_is_not_passed_on() {
    let stage = Stage::with(PUBLIC);
    let host = stage.host();
    for (line, fields) in [
        ("GET / HTTP/1.1", "Expect: 100-continue\r\n\r\n"),
        ("POST / HTTP/1.0", "Expect: 100-continue\r\nContent-Length: 5\r\n\r\nhello"),
        ("POST / HTTP/1.1", "Expect: 100-continue\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\nhello"),
        ("POST / HTTP/1.1", "Expect: y 100-continue\r\nContent-Length: 5\r\n\r\nhello"),
    ] {
        stage.upstream.forget();
        let request = format!("{line}\r\nHost: {host}\r\nConnection: close\r\n{fields}");
        let answer = String::from_utf8(raw_request(stage.address(), request.as_bytes()).await).unwrap();
        assert!(answer.contains(" 200 OK\r\n"), "{line} {fields}: {answer}");
        let seen = stage.upstream.last();
        assert_eq!(seen.header("expect"), [""; 0], "{line} {fields}");
        assert_eq!(seen.body_text, if fields.ends_with("hello") { "hello" } else { "" });
    }
}

const UPGRADE: &str = "Connection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                       Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

fn switching(accept: &str) -> String {
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
    )
}

#[tokio::test]
async fn a_101_that_does_not_fit_the_request_is_502_and_opens_no_tunnel() {
    let (ended, mut ends) = mpsc::unbounded_channel();
    let url = application(move |mut stream| {
        let ended = ended.clone();
        async move {
            head(&mut stream).await;
            stream.write_all(switching("d3Jvbmcgb24gcHVycG9zZSE=").as_bytes()).await.unwrap();
            let mut smuggled = Vec::new();
            let _ = stream.read_to_end(&mut smuggled).await;
            ended.send(smuggled).unwrap();
        }
    })
    .await;
    let stage = in_front_of(&url);
    let request = format!("GET /ws HTTP/1.1\r\nHost: {}\r\n{UPGRADE}\r\nGET /admin HTTP/1.1\r\n\r\n", stage.host());
    let answer = String::from_utf8(raw_request(stage.address(), request.as_bytes()).await).unwrap();
    assert!(answer.starts_with("HTTP/1.1 502"), "{answer}");
    let smuggled = timeout(Duration::from_secs(2), ends.recv()).await.expect("the connection is closed").unwrap();
    assert_eq!(smuggled, b"", "nothing passed the tunnel that never was");
    // A 101 that nobody asked for is no answer either.
    let plain = format!("GET /plain HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", stage.host());
    let answer = String::from_utf8(raw_request(stage.address(), plain.as_bytes()).await).unwrap();
    assert!(answer.starts_with("HTTP/1.1 502"), "{answer}");
}

#[tokio::test]
async fn an_upgrade_that_its_route_names_is_a_tunnel_of_any_bytes() {
    let (url, mut questions) = agreeing().await;
    let stage = Stage::with(&format!("[upstream]\nurl = \"{url}\"\n{PUBLIC}\nupgrades = [\"SPDY/3.1\"]"));
    let asks = "GET /exec?x HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\r\n";
    let mut stream = connect(stage.address(), asks).await;
    let agreed = head(&mut stream).await.to_ascii_lowercase();
    assert!(agreed.starts_with("http/1.1 101 "), "{agreed}");
    for field in ["\r\nconnection: upgrade\r\n", "\r\nupgrade: spdy/3.1\r\n"] {
        assert!(agreed.contains(field), "{agreed}");
    }
    let asked = questions.recv().await.unwrap();
    assert!(asked.starts_with("GET /exec?x HTTP/1.1\r\n"), "{asked}");
    for field in ["\r\nconnection: upgrade\r\n", "\r\nupgrade: spdy/3.1\r\n"] {
        assert!(asked.contains(field), "{asked}");
    }
    let mut welcome = [0; 7];
    timeout(SOON, stream.read_exact(&mut welcome)).await.expect("what came with the 101").unwrap();
    assert_eq!(&welcome, b"welcome");
    // Bytes of any kind, among them what would be a request, or a frame of a WebSocket that goes away.
    let all: Vec<u8> = (0..=255).collect();
    for said in [&b"get /admin http/1.1\r\n\r\n"[..], b"\x88\x82\0\0\0\0\x03\xe8", &all, &[b'x'; 100_000]] {
        let mut heard = vec![0; said.len()];
        let (mut reading, mut writing) = stream.split();
        let both = async { tokio::try_join!(writing.write_all(said), reading.read_exact(&mut heard)) };
        timeout(SOON, both).await.expect("all of it comes back").unwrap();
        assert_eq!(heard, said.to_ascii_uppercase());
    }
    // A half-close is one for the application too, and then it closes.
    stream.shutdown().await.unwrap();
    assert_eq!(timeout(SOON, stream.read(&mut [0; 1])).await.expect("the end").unwrap(), 0);
}

#[tokio::test]
async fn h2c_is_never_passed_on_beside_an_upgrade_that_its_route_names_either() {
    let (url, mut questions) = agreeing().await;
    let stage = Stage::with(&format!("[upstream]\nurl = \"{url}\"\n{PUBLIC}\nupgrades = [\"spdy/3.1\"]"));
    for fields in [
        "Upgrade: h2c",
        "Upgrade: h2c, spdy/3.1",
        "Upgrade: spdy/3.1, h2c",
        "Upgrade: spdy/3.1\r\nUpgrade: h2c",
        "Upgrade: H2C\r\nUpgrade: spdy/3.1",
        "Upgrade: websocket, h2c",
    ] {
        let options = "Connection: upgrade, http2-settings, close\r\nHTTP2-Settings: AAMAAABkAAQAAP__";
        let request = format!("GET / HTTP/1.1\r\nHost: {}\r\n{options}\r\n{fields}\r\n\r\n", stage.host());
        let answer = String::from_utf8(raw_request(stage.address(), request.as_bytes()).await).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("plain"), "{fields:?}: {answer}");
        let asked = questions.recv().await.unwrap();
        assert!(!asked.contains("upgrade") && !asked.contains("h2c") && !asked.contains("settings"), "{asked}");
    }
}

#[tokio::test]
async fn an_application_that_speaks_http_2_alone_gets_no_web_socket_and_its_client_502() {
    let url = application(|stream| async move {
        let Ok(mut serving) = h2::server::handshake(stream).await else { return };
        while let Some(Ok((_, mut respond))) = serving.accept().await {
            respond.send_response(http::Response::new(()), true).unwrap();
        }
    })
    .await;
    let stage = Stage::with(&format!("[upstream]\nurl = \"{url}\"\nprotocol = \"h2\"\n{PUBLIC}"));
    for _ in 0..3 {
        let request = format!("GET /ws HTTP/1.1\r\nHost: {}\r\n{UPGRADE}\r\n", stage.host());
        let answer = String::from_utf8(raw_request(stage.address(), request.as_bytes()).await).unwrap();
        assert!(answer.starts_with("HTTP/1.1 502 ") && answer.contains("\"upstream_invalid\""), "{answer}");
        assert_eq!(stage.browser().fetch(&stage.url("/")).await.status, StatusCode::OK, "it is well otherwise");
    }
}

#[tokio::test]
async fn a_session_that_ends_before_the_101_gets_no_tunnel() {
    let (asked, mut questions) = mpsc::unbounded_channel();
    let (ended, mut ends) = mpsc::unbounded_channel();
    let url = application(move |mut stream| {
        let (asked, ended) = (asked.clone(), ended.clone());
        async move {
            head(&mut stream).await;
            let (go, gate) = oneshot::channel::<()>();
            asked.send(go).unwrap();
            gate.await.unwrap();
            stream.write_all(switching(&derive_accept_key(b"dGhlIHNhbXBsZSBub25jZQ==")).as_bytes()).await.unwrap();
            let mut rest = Vec::new();
            let _ = stream.read_to_end(&mut rest).await;
            ended.send(rest).unwrap();
        }
    })
    .await;
    let stage = Stage::with(&format!(
        "[upstream]\nurl = unset\n[upstreams.main]\nurl = \"{{upstream}}\"\n[upstreams.tunnels]\nurl = \"{url}\"\n\
         [[routes]]\npath = \"/*\"\nupstream = \"main\"\n[[routes]]\npath = \"/tunnels/*\"\nupstream = \"tunnels\""
    ));
    let browser = stage.signed_in_browser().await;
    let copy = browser.stolen_copy();
    let cookies = copy.cookies(&stage.origin());
    let cookies = cookies.iter().map(|cookie| format!("{}={}", cookie.name, cookie.value)).collect::<Vec<_>>();
    let request =
        format!("GET /tunnels/x HTTP/1.1\r\nHost: {{host}}\r\nCookie: {}\r\n{UPGRADE}\r\n", cookies.join("; "));

    let mut open = connect(stage.address(), &request).await;
    questions.recv().await.unwrap().send(()).unwrap();
    assert!(head(&mut open).await.starts_with("HTTP/1.1 101"), "with a live session it opens");

    let mut late = connect(stage.address(), &request).await;
    let go = questions.recv().await.unwrap();
    assert_eq!(browser.send(Request::navigation(Method::GET, &stage.url("/auth/logout"))).await.status, 303);
    go.send(()).unwrap();
    let answer = head(&mut late).await;
    assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
    let _ = late.write_all(b"\x81\x80\0\0\0\0").await;
    let mut rests = Vec::new();
    for _ in 0..2 {
        rests.push(timeout(Duration::from_secs(2), ends.recv()).await.expect("the connection is closed").unwrap());
    }
    // The one that had opened is told that the session has ended; into the late one not a byte came.
    rests.sort();
    assert_eq!((rests[0].as_slice(), rests[1][..2].as_ref()), (&b""[..], &[0x88, 0x8f][..]), "{rests:?}");
}
