//! The proxy is invisible to the application's protocols.

use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use http::{Method, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use vestibule_test_support::{Browser, Request, Stage, raw_request};

const PUBLIC: &str = "[[routes]]\npath = \"/*\"\naccess = \"public\"";

fn cookie_line(stage: &Stage, browser: &Browser) -> String {
    let cookies = browser.cookies(&stage.origin());
    cookies.iter().map(|cookie| format!("{}={}", cookie.name, cookie.value)).collect::<Vec<_>>().join("; ")
}

#[tokio::test]
async fn bodies_arrive_whole_both_ways() {
    let stage = Stage::with(PUBLIC);
    let browser = stage.browser();
    let body: Vec<u8> = (0..5_000_000_u32).map(|n| (n % 251) as u8).collect();
    let reply = browser.send(Request::new(Method::POST, &stage.url("/up")).body(body)).await;
    assert_eq!(reply.json()["body"]["length"], 5_000_000);
    let reply = browser.fetch(&stage.url("/big?bytes=5000000")).await;
    assert_eq!((reply.body.len(), reply.header("content-length")), (5_000_000, Some("5000000")));
    let reply = browser.send(Request::new(Method::HEAD, &stage.url("/big?bytes=5000000"))).await;
    assert_eq!((reply.body.len(), reply.header("content-length")), (0, Some("5000000")));
}

#[tokio::test]
async fn a_get_carries_no_framing_and_a_chunked_body_stays_chunked() {
    let stage = Stage::with(PUBLIC);
    stage.browser().fetch(&stage.url("/x")).await;
    let seen = stage.upstream.last();
    assert!(
        seen.header("transfer-encoding").is_empty() && seen.header("content-length").is_empty(),
        "{:?}",
        seen.headers
    );
    let request = format!(
        "POST /x HTTP/1.1\r\nHost: {}\r\nTransfer-Encoding: chunked\r\nTE: trailers\r\nTrailer: X-Sum, X-Forwarded-User, Cookie\r\nConnection: close, X-Gone\r\nX-Gone: 1\r\nKeep-Alive: 5\r\n\r\n\
         3\r\nabc\r\n0\r\nX-Sum: 9\r\nX-Forwarded-User: admin\r\nCookie: a=b\r\n\r\n",
        stage.host()
    );
    let answer = raw_request(stage.address(), request.as_bytes()).await;
    assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
    let seen = stage.upstream.last();
    assert_eq!(seen.body_text, "abc");
    assert_eq!(seen.trailers, [("x-sum".to_owned(), "9".to_owned())]);
    assert_eq!(seen.header("te"), ["trailers"]);
    assert!(seen.header("x-gone").is_empty() && seen.header("keep-alive").is_empty(), "{:?}", seen.headers);
}

#[tokio::test]
async fn each_request_of_a_connection_is_told_of_by_its_own_host_and_client() {
    let stage = Stage::with(&format!("trusted_proxies = [\"127.0.0.1\"]\n{PUBLIC}"));
    let wanted = [
        ("a.example", "192.0.2.1"),
        ("a.example", "192.0.2.1"),
        ("b.example:8", "192.0.2.1"),
        ("b.example:8", "192.0.2.2"),
    ];
    let requests =
        wanted.map(|(host, client)| format!("GET /x HTTP/1.1\r\nHost: {host}\r\nX-Forwarded-For: {client}\r\n\r\n"));
    raw_request(stage.address(), requests.concat().as_bytes()).await;
    let seen = stage.upstream.requests();
    assert_eq!(seen.len(), wanted.len());
    for (seen, (host, client)) in seen.iter().zip(wanted) {
        assert_eq!((seen.header("host"), seen.header("x-forwarded-host")), (vec![host], vec![host]));
        assert_eq!(
            (seen.header("x-real-ip"), seen.header("x-forwarded-for")),
            (vec![client], vec![&*format!("{client}, 127.0.0.1")])
        );
        let host = if host.contains(':') { format!("\"{host}\"") } else { host.to_owned() };
        assert_eq!(seen.header("forwarded"), [format!("for={client}, for=127.0.0.1;host={host};proto=http")]);
    }
}

#[tokio::test]
async fn response_trailers_pass() {
    let stage = Stage::with(PUBLIC);
    let request =
        format!("GET /trailers HTTP/1.1\r\nHost: {}\r\nTE: trailers\r\nConnection: close\r\n\r\n", stage.host());
    let answer = String::from_utf8_lossy(&raw_request(stage.address(), request.as_bytes()).await).to_ascii_lowercase();
    assert!(answer.contains("\r\n0\r\nx-checksum: "), "{answer}");
}

#[tokio::test]
async fn a_connection_header_cannot_take_away_what_we_add() {
    let stage = Stage::start();
    let browser = stage.signed_in_browser().await;
    for names in ["X-Forwarded-User", "x-forwarded-user, x-real-ip, X-Forwarded-For", "Host, Cookie, Content-Type"] {
        let request = Request::new(Method::POST, &stage.url("/x"))
            .header("connection", names)
            .header("cookie", "a=b")
            .header("content-type", "text/plain")
            .body("x");
        let reply = browser.send(request).await;
        for name in ["x-forwarded-user", "x-real-ip", "x-forwarded-for", "host", "cookie", "content-type"] {
            assert!(reply.echoed(name).is_some(), "{names}: {name} is gone: {}", reply.text());
        }
    }
}

#[tokio::test]
async fn server_sent_events_arrive_as_they_are_sent() {
    let stage = Stage::start();
    let browser = stage.signed_in_browser().await;
    let mut stream = TcpStream::connect(stage.address()).await.unwrap();
    let head = format!(
        "GET /sse?every_ms=100 HTTP/1.1\r\nHost: {}\r\nAccept: text/event-stream\r\nCookie: {}\r\n\r\n",
        stage.host(),
        cookie_line(&stage, &browser)
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut seen = Vec::new();
    let mut buffer = [0; 4096];
    while seen.windows(5).filter(|window| window == b"data:").count() < 3 {
        let read =
            tokio::time::timeout(Duration::from_secs(5), stream.read(&mut buffer)).await.expect("events").unwrap();
        assert!(read > 0, "{}", String::from_utf8_lossy(&seen));
        seen.extend_from_slice(&buffer[..read]);
    }
}

#[tokio::test]
async fn a_client_that_goes_away_ends_the_upstreams_work() {
    let stage = Stage::with(PUBLIC);
    let mut stream = TcpStream::connect(stage.address()).await.unwrap();
    let head = format!("GET /sse?every_ms=20 HTTP/1.1\r\nHost: {}\r\n\r\n", stage.host());
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut buffer = [0; 1024];
    stream.read_exact(&mut buffer[..100]).await.unwrap();
    drop(stream);
    // The upstream's next connection is a new one only if the old one was given up; what shows it is that the pool is empty:
    // a body that still ran would keep this worker's connection busy for ever, and the stage could not stop in its bound.
    let started = Instant::now();
    let mut stage = stage;
    stage.stop();
    assert!(started.elapsed() < Duration::from_secs(2));
}

#[tokio::test]
async fn an_upstream_that_dies_in_mid_body_ends_the_clients_body_as_an_error() {
    let stage = Stage::with(PUBLIC);
    let request = format!("GET /die-mid-body HTTP/1.1\r\nHost: {}\r\n\r\n", stage.host());
    let answer = String::from_utf8_lossy(&raw_request(stage.address(), request.as_bytes()).await).into_owned();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.to_ascii_lowercase().contains("content-length: 1000") && body.len() < 1_000, "{answer}");
}

#[tokio::test]
async fn an_upstream_that_is_away_or_slow_is_502_or_504_with_a_request_id() {
    let stage = Stage::with("[upstream]\nresponse_timeout = \"300ms\"\n[[routes]]\npath = \"/*\"\naccess = \"public\"");
    let browser = stage.browser();
    let slow = browser.get(&stage.url("/slow?ms=5000")).await;
    assert_eq!(slow.status, StatusCode::GATEWAY_TIMEOUT);
    assert_eq!(slow.header("content-type"), Some("text/html; charset=utf-8"));
    assert_eq!(slow.links(), [(stage.url("/slow?ms=5000"), "Try again".to_owned())]);
    // A link can't repeat what was sent, so it leads to the front page.
    let sent = browser.submit(&stage.origin(), &stage.url("/slow?ms=5000"), &[("a", "b")]).await;
    assert_eq!((sent.status, sent.links()), (slow.status, vec![(stage.url("/"), "Try again".to_owned())]));
    stage.upstream.take_down();
    let away = browser.fetch(&stage.url("/")).await;
    assert_eq!(away.status, StatusCode::BAD_GATEWAY);
    let id = away.json()["request_id"].as_str().unwrap().to_owned();
    assert!(id.len() >= 16, "{id}");
    stage.upstream.bring_back();
    assert_eq!(browser.fetch(&stage.url("/")).await.status, StatusCode::OK);
}

#[tokio::test]
async fn an_upstream_that_closes_kept_connections_unannounced_costs_no_request() {
    let stage = Stage::with(PUBLIC);
    let browser = stage.browser();
    for method in [Method::GET, Method::POST] {
        for _ in 0..1_000 {
            let request = Request::new(method.clone(), &stage.url("/close-after")).body(if method == Method::POST {
                "x"
            } else {
                ""
            });
            let reply = browser.send(request).await;
            assert_eq!(reply.status, StatusCode::OK, "{method}");
        }
    }
}

#[tokio::test]
async fn web_sockets_pass_both_ways_with_identity_and_without_our_cookies() {
    let stage = Stage::start();
    let browser = stage.signed_in_browser().await;
    let mut request = format!("ws://127.0.0.1:{}/ws", stage.address().port()).into_client_request().unwrap();
    request.headers_mut().insert("host", stage.host().parse().unwrap());
    request.headers_mut().insert("cookie", cookie_line(&stage, &browser).parse().unwrap());
    request.headers_mut().insert("x-forwarded-user", "admin".parse().unwrap());
    let (mut socket, answer) = tokio_tungstenite::connect_async(request).await.unwrap();
    assert_eq!(answer.status(), StatusCode::SWITCHING_PROTOCOLS);
    for text in ["hello".to_owned(), "x".repeat(100_000)] {
        socket.send(Message::text(text.clone())).await.unwrap();
        assert_eq!(socket.next().await.unwrap().unwrap(), Message::text(text));
    }
    let seen = stage.upstream.last();
    assert_eq!(seen.header("x-forwarded-user"), ["248289761001"]);
    assert!(seen.header("cookie").is_empty(), "{:?}", seen.headers);
    socket.close(None).await.unwrap();
}

#[tokio::test]
async fn other_upgrades_pass_only_where_a_route_names_them_and_h2c_never() {
    let stage = Stage::with(PUBLIC);
    for protocol in ["h2c", "foo", "TLS/1.0", "h2c, websocket"] {
        let request = format!(
            "GET /x HTTP/1.1\r\nHost: {}\r\nConnection: upgrade, HTTP2-Settings, close\r\nUpgrade: {protocol}\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n",
            stage.host()
        );
        let answer = raw_request(stage.address(), request.as_bytes()).await;
        assert!(answer.starts_with(b"HTTP/1.1 200"), "{protocol}: {}", String::from_utf8_lossy(&answer));
        let seen = stage.upstream.last();
        assert!(seen.header("upgrade").is_empty() && seen.header("http2-settings").is_empty(), "{:?}", seen.headers);
    }
}

#[tokio::test]
async fn guarded_answers_stay_out_of_shared_caches() {
    let stage = Stage::start();
    let browser = stage.signed_in_browser().await;
    let reply = browser.get(&stage.url("/")).await;
    assert_eq!(reply.header("cache-control"), Some("private"));
    let reply = browser.get(&stage.url("/respond?header=cache-control:max-age=60")).await;
    assert_eq!(reply.header("cache-control"), Some("max-age=60"));
}
