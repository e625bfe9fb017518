//! What is too long, too large or too slow is refused before it costs the application anything, or as soon as it shows.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use http::{Method, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use vestibule_test_support::script::{connect, head};
use vestibule_test_support::{
    Browser, CertificateFiles, H2Client, Reply, Request, Stage, TestCa, TlsClient, free_port, raw_request,
};

const PUBLIC: &str = "[[routes]]\npath = \"/*\"\naccess = \"public\"";
/// Slower than a KiB a second is too slow, after a second.
const QUICK: &str = "[limits]\nmin_body_rate = \"1KiB\"\nbody_grace = \"1s\"";

fn assert_code(reply: &Reply, status: StatusCode, code: &str) {
    assert_eq!((reply.status, &reply.json()["code"]), (status, &code.into()), "{}", reply.text());
}

async fn post(stage: &Stage, browser: &Browser, path: &str, bytes: usize) -> Reply {
    browser
        .send(Request::fetch(Method::POST, &stage.url(path)).from_page(&stage.url("/")).body(vec![b'x'; bytes]))
        .await
}

/// A chunked body of `bytes`; everything that comes back.
async fn post_chunked(stage: &Stage, path: &str, bytes: usize) -> String {
    let host = stage.host();
    let head =
        format!("POST {path} HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n");
    let mut request = head.into_bytes();
    for piece in vec![b'x'; bytes].chunks(500) {
        request.extend([format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat());
    }
    request.extend(b"0\r\n\r\n");
    String::from_utf8(raw_request(stage.address(), &request).await).unwrap()
}

#[tokio::test]
async fn an_address_longer_than_the_limit_is_414() {
    let stage = Stage::with(PUBLIC);
    let browser = stage.browser();
    let target = |length: usize| stage.url(&format!("/x?q={}", "a".repeat(length - "/x?q=".len())));
    assert_code(&browser.fetch(&target(8 * 1024 + 1)).await, StatusCode::URI_TOO_LONG, "uri_too_long");
    stage.upstream.assert_untouched();
    assert_eq!(browser.fetch(&target(8 * 1024)).await.status, StatusCode::OK);
    let stage = Stage::with(&format!("[limits]\nmax_uri_bytes = \"16KiB\"\n{PUBLIC}"));
    let target = stage.url(&format!("/x?q={}", "a".repeat(12_000)));
    assert_eq!(stage.browser().fetch(&target).await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_body_that_is_announced_as_too_large_never_reaches_the_application() {
    let stage = Stage::with(
        "[limits]\nmax_body = \"1KiB\"\n[[routes]]\npath = \"/up/*\"\nmax_body = \"3KiB\"\n\
         [[routes]]\npath = \"/any/*\"\nmax_body = \"off\"",
    );
    let browser = stage.signed_in_browser().await;
    for (path, most) in [("/", 1024), ("/up/x", 3072)] {
        assert_code(&post(&stage, &browser, path, most + 1).await, StatusCode::PAYLOAD_TOO_LARGE, "body_too_large");
        stage.upstream.assert_untouched();
        let reply = post(&stage, &browser, path, most).await;
        assert_eq!(reply.json()["body"]["length"], most);
        stage.upstream.forget();
    }
    assert_eq!(post(&stage, &browser, "/any/x", 100_000).await.json()["body"]["length"], 100_000);
}

#[tokio::test]
async fn a_body_that_turns_out_too_large_is_cut_and_told_so() {
    let stage = Stage::with(&format!("[limits]\nmax_body = \"2KiB\"\n{PUBLIC}"));
    let answer = post_chunked(&stage, "/x", 2048).await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("\"length\": 2048"), "{answer}");
    stage.upstream.forget();
    let answer = post_chunked(&stage, "/x", 2049).await;
    assert!(answer.starts_with("HTTP/1.1 413") && answer.contains("\"body_too_large\""), "{answer}");
    // It saw a beginning, and never a whole request.
    assert!(stage.upstream.requests().iter().all(|request| !request.complete));
}

/// Sends a byte every 100 ms behind `head` until an answer comes, for `limit` at most.
async fn drip(stage: &Stage, head: &str, byte: &[u8], limit: Duration) -> (String, Duration) {
    let mut stream = TcpStream::connect(stage.address()).await.unwrap();
    stream.write_all(head.replace("{host}", &stage.host()).as_bytes()).await.unwrap();
    let (started, mut answer) = (Instant::now(), Vec::new());
    while started.elapsed() < limit {
        let _ = stream.write_all(byte).await;
        let mut buffer = vec![0; 4096];
        if let Ok(Ok(count)) = timeout(Duration::from_millis(100), stream.read(&mut buffer)).await {
            answer.extend_from_slice(&buffer[..count]);
            if count == 0 || answer.ends_with(b"}") {
                break;
            }
        }
    }
    (String::from_utf8(answer).unwrap(), started.elapsed())
}

#[tokio::test]
async fn a_body_that_drips_is_cut_and_others_are_served_meanwhile() {
    let stage = Stage::with(&format!("{QUICK}\n{PUBLIC}"));
    let announced = "POST /slow-body HTTP/1.1\r\nHost: {host}\r\nContent-Length: 100000\r\n\r\n";
    let chunked = "POST /slow-body HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\n\r\n";
    let limit = Duration::from_secs(10);
    let (one, other, ()) =
        tokio::join!(drip(&stage, announced, b"x", limit), drip(&stage, chunked, b"1\r\nx\r\n", limit), async {
            for _ in 0..10 {
                assert_eq!(stage.browser().fetch(&stage.url("/x")).await.status, StatusCode::OK);
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        });
    for (answer, took) in [one, other] {
        assert!(answer.starts_with("HTTP/1.1 408") && answer.contains("\"body_too_slow\""), "{answer}");
        assert!(took > Duration::from_millis(900) && took < Duration::from_secs(5), "{took:?}");
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    let seen = stage.upstream.requests();
    assert!(seen.iter().filter(|request| request.path() == "/slow-body").all(|request| !request.complete));
}

#[tokio::test]
async fn a_slow_stream_of_somebody_who_is_signed_in_goes_on() {
    let stage = Stage::with(QUICK);
    let browser = stage.signed_in_browser().await;
    let cookies = browser.cookie_line(&stage.origin());
    let head = format!("POST / HTTP/1.1\r\nHost: {{host}}\r\nCookie: {cookies}\r\nTransfer-Encoding: chunked\r\n\r\n");
    let (answer, _) = drip(&stage, &head, b"1\r\nx\r\n", Duration::from_secs(3)).await;
    assert_eq!(answer, "");
    assert_eq!(stage.upstream.count(), 1);
}

#[tokio::test]
async fn a_body_that_keeps_up_and_one_without_a_rule_are_never_cut() {
    for (limits, piece) in [(QUICK, 200), ("[limits]\nmin_body_rate = \"off\"", 1)] {
        let stage = Stage::with(&format!("{limits}\n{PUBLIC}"));
        let head = "POST / HTTP/1.1\r\nHost: {host}\r\nContent-Length: 100000\r\n\r\n";
        let (answer, _) = drip(&stage, head, &vec![b'x'; piece], Duration::from_secs(3)).await;
        assert_eq!(answer, "", "{limits}");
    }
}

#[tokio::test]
async fn once_the_application_answers_the_pace_is_its_business() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut buffer = [0; 4096];
        let _ = stream.read(&mut buffer).await.unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n").await.unwrap();
        while stream.read(&mut buffer).await.is_ok_and(|count| count > 0) {}
    });
    let stage = Stage::with(&format!("{QUICK}\n[upstream]\nurl = \"{url}\"\n{PUBLIC}"));
    let head = "POST / HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\n\r\n";
    let (answer, took) = drip(&stage, head, b"1\r\nx\r\n", Duration::from_secs(3)).await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("hi\r\n"), "{answer}");
    assert!(took >= Duration::from_secs(3), "{took:?}");
}

const GET: &str = "GET /x HTTP/1.1\r\nHost: {host}\r\n\r\n";

/// A connection with one answer behind it, so that it is known to be served.
async fn served(stage: &Stage) -> TcpStream {
    let mut stream = TcpStream::connect(stage.address()).await.unwrap();
    assert!(ask(stage, &mut stream).await.starts_with("HTTP/1.1 200"));
    stream
}

/// One answer, with a body that ends as JSON does.
async fn ask(stage: &Stage, stream: &mut TcpStream) -> String {
    stream.write_all(GET.replace("{host}", &stage.host()).as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\n}") {
        answer.push(timeout(Duration::from_secs(10), stream.read_u8()).await.unwrap().unwrap());
    }
    String::from_utf8(answer).unwrap().to_ascii_lowercase().replacen("http", "HTTP", 1)
}

#[tokio::test]
async fn a_connection_ends_after_so_many_requests_and_says_so() {
    let stage = Stage::with(&format!("[limits]\nmax_requests_per_connection = 3\n{PUBLIC}"));
    let mut stream = served(&stage).await;
    assert!(!ask(&stage, &mut stream).await.contains("connection: close"));
    assert!(ask(&stage, &mut stream).await.contains("connection: close"));
    assert_eq!(stream.read(&mut [0; 16]).await.unwrap_or(0), 0);
    assert_eq!(stage.upstream.count(), 3);
}

#[tokio::test]
async fn a_connection_of_http_2_ends_after_so_many_requests_and_loses_none() {
    let stage = Stage::with(&format!("[limits]\nmax_requests_per_connection = 3\n{PUBLIC}"));
    let client = H2Client::connect(stage.address()).await;
    let url = stage.url("/x");
    for _ in 0..2 {
        assert_eq!(client.get(&url).await.unwrap().status, StatusCode::OK);
    }
    // Those that are on their way when the third comes are answered too. What the client had not sent when it heard that this is
    // the end is not on its way: it reached nobody.
    let answers = join_all((0..5).map(|_| client.get(&url))).await;
    let served = answers.iter().flatten().filter(|answer| answer.status == StatusCode::OK).count();
    assert!(served >= 1, "{answers:?}");
    assert!(answers.iter().flatten().all(|answer| answer.status == StatusCode::OK), "{answers:?}");
    client.end(Duration::from_secs(5)).await.expect("a goodbye without an error");
    assert_eq!(stage.upstream.count(), 2 + served, "what was passed on was answered");
}

#[tokio::test]
async fn one_client_has_only_so_many_connections_at_the_same_time() {
    let limit = format!("[limits]\nmax_connections_per_client = 2\n{PUBLIC}");
    let stage = Stage::with(&limit);
    let (first, _second) = (served(&stage).await, served(&stage).await);
    stage.upstream.forget();
    let request = GET.replace("{host}", &stage.host());
    assert_eq!(raw_request(stage.address(), request.as_bytes()).await, b"");
    stage.upstream.assert_untouched();
    let metrics = stage.browser().fetch(&stage.admin_url("/metrics")).await.text();
    assert!(metrics.contains("vestibule_refusals_total{reason=\"too_many_connections\"} 1"), "{metrics}");
    drop(first);
    // The proxy has to see that the first is gone.
    let end = Instant::now() + Duration::from_secs(5);
    while raw_request(stage.address(), request.as_bytes()).await.is_empty() {
        assert!(Instant::now() < end, "its place never came back");
    }
    let stage = Stage::with(&format!("trusted_proxies = [\"127.0.0.1\"]\n{limit}"));
    let many = [served(&stage).await, served(&stage).await, served(&stage).await];
    assert_eq!(many.len(), 3);
}

#[tokio::test]
async fn a_handshake_is_made_only_for_a_client_that_has_a_place() {
    let ca = TestCa::new();
    let files = CertificateFiles::new(&ca.sign(&["localhost"]));
    let port = free_port();
    let stage = Stage::with(&format!(
        "[limits]\nmax_connections_per_client = 2\n{PUBLIC}\n[[listeners]]\naddress = \"127.0.0.1:{port}\"\n[listeners.tls]\n{}",
        files.keys()
    ));
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    // They say nothing, so the handshakes of these two have yet to begin.
    let silent = [TcpStream::connect(address).await.unwrap(), TcpStream::connect(address).await.unwrap()];
    let tls = TlsClient::trusting(&ca);
    assert!(tls.connect(address, "localhost").await.is_err(), "the third is closed before its handshake");
    let metrics = || async { stage.browser().fetch(&stage.admin_url("/metrics")).await.text() };
    let told = metrics().await;
    assert!(told.contains("vestibule_refusals_total{reason=\"too_many_connections\"} 1"), "{told}");
    drop(silent);
    let end = Instant::now() + Duration::from_secs(5);
    while tls.connect(address, "localhost").await.is_err() {
        assert!(Instant::now() < end, "its place never came back");
    }
    stage.upstream.assert_untouched();
}

#[tokio::test]
async fn behind_a_balancer_it_is_the_client_that_has_so_many_connections() {
    let port = free_port();
    let stage = Stage::with(&format!(
        "[limits]\nmax_connections_per_client = 1\n{PUBLIC}\n[[listeners]]\naddress = \"127.0.0.1:{port}\"\n\
         proxy_protocol_from = [\"127.0.0.1\"]\n"
    ));
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let request = |client: &str| {
        let header = format!("PROXY TCP4 {client} 10.0.0.1 4660 443\r\n");
        format!("{header}{}", GET.replace("{host}", &stage.host()))
    };
    let mut held = Vec::new();
    for client in ["198.51.100.7", "198.51.100.8"] {
        let mut stream = connect(address, &request(client)).await;
        assert!(head(&mut stream).await.starts_with("HTTP/1.1 200"));
        held.push(stream);
    }
    stage.upstream.forget();
    assert_eq!(raw_request(address, request("198.51.100.7").as_bytes()).await, b"");
    stage.upstream.assert_untouched();
}
