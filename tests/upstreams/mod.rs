//! Each way to an application that there is: TCP or a unix socket, bare or in TLS, HTTP/1.1 or HTTP/2.

pub(crate) mod application;

use std::sync::atomic::Ordering;
use std::time::Duration;

use aws_lc_rs::digest;
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http::{HeaderMap, HeaderValue, Request, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use vestibule_test_support::script::{connect, piece, pieces};
use vestibule_test_support::{H2Client, Stage};

use self::application::{Application, PUBLIC, TOTAL, WAYS, Way};
use crate::bodies::hex;

#[tokio::test]
async fn every_way_leads_to_the_application_with_the_clients_host() {
    for way in WAYS {
        let application = Application::start(way).await;
        let stage = application.stage("");
        let browser = stage.browser();
        let version = if way.h2 { "HTTP/2.0" } else { "HTTP/1.1" };
        for _ in 0..5 {
            let reply = browser.fetch(&stage.url("/")).await;
            assert_eq!(reply.text(), format!("{version} {}", stage.host()), "{way:?}");
        }
        assert_eq!(application.requests.load(Ordering::SeqCst), 5);
    }
}

#[tokio::test]
async fn large_bodies_pass_unchanged_on_every_way() {
    let piece = piece();
    let mut sum = digest::Context::new(&digest::SHA256);
    pieces(&piece, TOTAL).for_each(|piece| sum.update(piece));
    let sum = hex(&sum.finish());
    for way in WAYS {
        let application = Application::start(way).await;
        let stage = application.stage("");
        let request =
            format!("POST /sum HTTP/1.1\r\nHost: {{host}}\r\nConnection: close\r\nContent-Length: {TOTAL}\r\n\r\n");
        let mut stream = connect(stage.address(), &request).await;
        for piece in pieces(&piece, TOTAL) {
            stream.write_all(piece).await.unwrap();
        }
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200") && answer.contains(&sum), "{way:?}: {answer}");

        let reply = stage.browser().fetch(&stage.url("/down")).await;
        let seen = hex(&digest::digest(&digest::SHA256, &reply.body));
        assert_eq!((reply.body.len() as u64, &seen), (TOTAL, &sum), "{way:?}");
    }
}

#[tokio::test]
async fn an_application_that_dies_in_mid_body_ends_the_answer_as_an_error_on_every_way() {
    for way in WAYS {
        let application = Application::start(way).await;
        let stage = application.stage("");
        let mut stream = connect(stage.address(), "GET /begin HTTP/1.1\r\nHost: {host}\r\n\r\n").await;
        let mut seen = Vec::new();
        while !seen.ends_with(b"ten bytes!\r\n") {
            assert!(stream.read_buf(&mut seen).await.unwrap() > 0, "{way:?}");
        }
        application.cut.notify_waiters();
        // The end of the connection or a reset, and never the end of the body.
        let _ = timeout(Duration::from_secs(5), stream.read_to_end(&mut seen)).await.expect("an end");
        let seen = String::from_utf8(seen).unwrap();
        assert!(seen.contains("transfer-encoding: chunked") && !seen.contains("\r\n0\r\n"), "{way:?}: {seen}");
    }
}

#[tokio::test]
async fn a_part_of_something_compressed_passes_as_it_was_asked_for_and_answered() {
    const ASKED: [(&str, &str); 3] =
        [("range", "bytes=100-65099, 7-8"), ("if-range", "\"v1\""), ("accept-encoding", "gzip;q=0.5, br")];
    for way in WAYS {
        let application = Application::start(way).await;
        let stage = application.stage("");
        let ask = |request: http::request::Builder| {
            ASKED.iter().fold(request, |request, (name, value)| request.header(*name, *value))
        };
        let by_http2 = H2Client::connect(stage.address()).await;
        let request = ask(Request::get(stage.url("/part"))).body(()).unwrap();
        let reply = by_http2.send(request, Bytes::new()).await.unwrap();
        let mut answers = vec![(reply.status, reply.headers, reply.body.to_vec())];

        let mut request = vestibule_test_support::Request::new(http::Method::GET, &stage.url("/part"));
        for (name, value) in ASKED {
            request = request.header(name, value);
        }
        let reply = stage.browser().send(request).await;
        answers.push((reply.status, reply.headers.clone(), reply.body.to_vec()));
        for (status, headers, body) in answers {
            assert_eq!(status, StatusCode::PARTIAL_CONTENT, "{way:?}");
            for (name, value) in [
                ("x-asked", "bytes=100-65099, 7-8|\"v1\"|gzip;q=0.5, br"),
                ("content-range", "bytes 100-65099/65521"),
                ("content-encoding", "gzip"),
                ("etag", "\"v1\""),
                ("accept-ranges", "bytes"),
                ("content-length", "65000"),
            ] {
                assert_eq!(headers.get_all(name).iter().collect::<Vec<_>>(), [value], "{way:?} {name}");
            }
            assert!(body == piece()[100..65_100], "{way:?}");
        }
    }
}

#[tokio::test]
async fn web_sockets_pass_on_every_way() {
    for way in WAYS {
        let application = Application::start(way).await;
        let stage = application.stage("");
        let mut request = format!("ws://127.0.0.1:{}/ws", stage.address().port()).into_client_request().unwrap();
        request.headers_mut().insert("host", stage.host().parse().unwrap());
        let (mut socket, _) = tokio_tungstenite::connect_async(request).await.unwrap();
        for text in ["hello".to_owned(), "x".repeat(100_000)] {
            socket.send(Message::text(text.clone())).await.unwrap();
            assert_eq!(socket.next().await.unwrap().unwrap(), Message::text(text), "{way:?}");
        }
        socket.close(None).await.unwrap();
    }
}

#[tokio::test]
async fn a_hundred_requests_at_once_share_few_connections() {
    let application = Application::start(Way { unix: false, tls: true, h2: true }).await;
    let stage = application.stage("");
    let browser = stage.browser();
    let urls = vec![stage.url("/"); 100];
    let replies = futures_util::future::join_all(urls.iter().map(|url| browser.fetch(url))).await;
    assert!(replies.iter().all(|reply| reply.status == StatusCode::OK));
    // One for each worker, of whom there may be as many as cores.
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    let connections = application.connections.load(Ordering::SeqCst);
    assert!(connections <= workers.max(2) && application.requests.load(Ordering::SeqCst) == 100, "{connections}");
}

#[tokio::test]
async fn an_application_whose_certificate_is_not_good_is_told_apart_and_never_asked() {
    let application = Application::start(Way { unix: false, tls: true, h2: false }).await;
    let other = Application::start(Way { unix: false, tls: true, h2: false }).await;
    for (from, to) in [
        ("app.internal", "other.internal".to_owned()),
        (application.folder.path().to_str().unwrap(), other.folder.path().to_str().unwrap().to_owned()),
    ] {
        let stage = Stage::with(&format!("[upstream]\n{}\n{PUBLIC}", application.toml.replace(from, &to)));
        let reply = stage.browser().fetch(&stage.url("/")).await;
        assert_eq!(reply.status, StatusCode::BAD_GATEWAY, "{}", reply.text());
        assert_eq!(application.requests.load(Ordering::SeqCst), 0);
    }
}

#[tokio::test]
async fn a_request_that_takes_longer_than_its_total_limit_is_a_gateway_timeout_on_every_way() {
    for way in WAYS {
        let application = Application::start(way).await;
        let stage = application.stage("total_timeout = \"300ms\"");
        let browser = stage.browser();
        assert_eq!(browser.fetch(&stage.url("/")).await.status, StatusCode::OK, "{way:?}");
        let mut stream = connect(stage.address(), "GET /begin HTTP/1.1\r\nHost: {host}\r\n\r\n").await;
        let mut seen = Vec::new();
        let _ = timeout(Duration::from_secs(5), stream.read_to_end(&mut seen)).await.expect("an end");
        let seen = String::from_utf8(seen).unwrap();
        assert!(seen.contains("ten bytes!") && !seen.contains("\r\n0\r\n"), "{way:?}: {seen}");
        // A body that never ends, and no answer before it does.
        let request = "POST /sum HTTP/1.1\r\nHost: {host}\r\nContent-Length: 10\r\n\r\nfive!";
        let mut stream = connect(stage.address(), request).await;
        let mut seen = vec![0; 12];
        timeout(Duration::from_secs(5), stream.read_exact(&mut seen)).await.expect("an answer").unwrap();
        assert_eq!(seen, b"HTTP/1.1 504", "{way:?}");
    }
}

#[tokio::test]
async fn a_call_of_grpc_flows_both_ways_at_once_with_trailers_both_ways() {
    for way in WAYS {
        let application = Application::start(way).await;
        let stage = application.stage("");
        let client = H2Client::connect(stage.address()).await;
        let call = Request::post(stage.url("/echo")).header("te", "trailers").header("trailer", "grpc-status");
        let (answer, mut sending) = client.open(call.body(()).unwrap(), false).await.unwrap();
        // The head comes before any byte of the body.
        let mut answer = timeout(Duration::from_secs(10), answer).await.expect("a head").unwrap().into_body();
        for message in ["one", "two", "three"] {
            sending.send_data(Bytes::from_static(message.as_bytes()), false).unwrap();
            let back = timeout(Duration::from_secs(10), answer.data()).await.expect("a message").unwrap().unwrap();
            assert_eq!(back, message, "{way:?}");
        }
        sending
            .send_trailers(HeaderMap::from_iter([("grpc-status".parse().unwrap(), HeaderValue::from_static("0"))]))
            .unwrap();
        // An end may come as an empty frame of its own.
        while let Some(rest) = answer.data().await {
            assert_eq!(rest.unwrap(), "", "{way:?}");
        }
        if way.h2 {
            // HTTP/1.1 passes those that a head names, and this one's answer names none.
            assert_eq!(answer.trailers().await.unwrap().unwrap()["grpc-status"], "0", "{way:?}");
        }
    }
}

#[tokio::test]
async fn an_upload_that_the_client_resets_never_looks_complete() {
    for way in WAYS {
        let application = Application::start(way).await;
        let stage = application.stage("");
        for reason in [h2::Reason::CANCEL, h2::Reason::NO_ERROR, h2::Reason::INTERNAL_ERROR] {
            let client = H2Client::connect(stage.address()).await;
            let request = Request::post(stage.url("/count")).body(()).unwrap();
            let (_answer, mut sending) = client.open(request, false).await.unwrap();
            sending.send_data(Bytes::from_static(b"half of it"), false).unwrap();
            let before = application.requests.load(Ordering::SeqCst);
            timeout(Duration::from_secs(10), async {
                while application.requests.load(Ordering::SeqCst) == before && before == 0 {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            })
            .await
            .expect("the request at the application");
            tokio::time::sleep(Duration::from_millis(50)).await;
            sending.send_reset(reason);
            tokio::time::sleep(Duration::from_millis(100)).await;
            assert_eq!(application.complete.load(Ordering::SeqCst), 0, "{way:?} {reason:?}");
        }
    }
}
