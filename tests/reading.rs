//! A request has one reading or it is refused: raw bytes on a socket, as no well-behaved client sends them.

use std::time::{Duration, Instant};

use vestibule_test_support::{Stage, raw_request};

const PUBLIC: &str = "[[routes]]\npath = \"/*\"\naccess = \"public\"";

async fn answer(stage: &Stage, request: &str) -> String {
    let request = request.replace("{host}", &stage.host());
    String::from_utf8_lossy(&raw_request(stage.address(), request.as_bytes()).await).into_owned()
}

async fn assert_refused(stage: &Stage, request: &str, status: &str) {
    stage.upstream.forget();
    let answer = answer(stage, request).await;
    assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{request:?}: {answer}");
    stage.upstream.assert_untouched();
}

#[tokio::test]
async fn a_host_that_is_missing_repeated_broken_or_contradicted_is_400() {
    let stage = Stage::with(PUBLIC);
    for request in [
        "GET / HTTP/1.1\r\nConnection: close\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: {host}\r\nHost: {host}\r\nConnection: close\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: {host}\r\nHost: other.example\r\nConnection: close\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: \r\nConnection: close\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: user@{host}\r\nConnection: close\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a/b\r\nConnection: close\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: {host}, other.example\r\nConnection: close\r\n\r\n",
        "GET http://other.example/ HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n",
        "GET ftp://{host}/ HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n",
        "GET http:http://internal/admin HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n",
        "GET * HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n",
    ] {
        assert_refused(&stage, request, "400").await;
    }
}

#[tokio::test]
async fn an_absolute_form_target_that_agrees_is_forwarded_in_origin_form() {
    let stage = Stage::with(PUBLIC);
    let answer =
        answer(&stage, "GET http://{host}/a%2Fb?c=d HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(stage.upstream.last().target, "/a%2Fb?c=d");
    assert_eq!(stage.upstream.last().header("host"), [stage.host()]);
}

#[tokio::test]
async fn a_transfer_coding_other_than_chunked_is_501() {
    let stage = Stage::with(PUBLIC);
    // RFC 9112 §6.3: where chunked is not the last, nobody can tell where the body ends, and hyper says 400 before us.
    for (coding, expected) in [
        ("gzip, chunked", "501"),
        ("chunked, chunked", "501"),
        ("identity", "400"),
        ("xchunked", "400"),
        ("gzip", "400"),
    ] {
        let request = format!(
            "POST / HTTP/1.1\r\nHost: {{host}}\r\nTransfer-Encoding: {coding}\r\nConnection: close\r\n\r\n0\r\n\r\n"
        );
        stage.upstream.forget();
        let answer = answer(&stage, &request).await;
        let status = answer.get(9..12).unwrap_or_default();
        assert_eq!(status, expected, "{coding}: {answer}");
        stage.upstream.assert_untouched();
    }
    let both = "POST / HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\nConnection: close\r\n\r\n0\r\n\r\n";
    stage.upstream.forget();
    assert!(!answer(&stage, both).await.starts_with("HTTP/1.1 2"));
    stage.upstream.assert_untouched();
}

#[tokio::test]
async fn of_contradicting_framing_exactly_one_reading_is_forwarded() {
    let stage = Stage::with(PUBLIC);
    // RFC 9112 §6.3: Transfer-Encoding overrides; the length must not be forwarded, and nothing may be left for a second
    // request.
    let request = "POST /one HTTP/1.1\r\nHost: {host}\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n\
                   5\r\nhello\r\n0\r\n\r\nGET /two HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n";
    let answer = answer(&stage, request).await;
    let seen = stage.upstream.requests();
    let targets: Vec<_> = seen.iter().map(|request| request.target.as_str()).collect();
    assert!(
        answer.starts_with("HTTP/1.1 400") && seen.is_empty() || targets.iter().all(|t| ["/one", "/two"].contains(t))
    );
    if let Some(one) = seen.first() {
        assert_eq!((one.target.as_str(), one.body_text.as_str()), ("/one", "hello"));
        assert_eq!(one.header("content-length").len() + one.header("transfer-encoding").len(), 1);
    }
}

#[tokio::test]
async fn two_different_lengths_are_refused() {
    let stage = Stage::with(PUBLIC);
    for lengths in
        ["Content-Length: 1\r\nContent-Length: 2", "Content-Length: 1, 2", "Content-Length: +1", "Content-Length: 0x1"]
    {
        let request = format!("POST / HTTP/1.1\r\nHost: {{host}}\r\n{lengths}\r\nConnection: close\r\n\r\nab");
        assert_refused(&stage, &request, "400").await;
    }
}

#[tokio::test]
async fn bare_line_feeds_and_a_fragment_have_one_reading() {
    let stage = Stage::with(PUBLIC);
    let request = "GET /a HTTP/1.1\nHost: {host}\nX-One: 1\nConnection: close\n\n";
    let tidy = answer(&stage, request).await;
    assert!(tidy.starts_with("HTTP/1.1 200") || tidy.starts_with("HTTP/1.1 400"), "{tidy}");
    if tidy.starts_with("HTTP/1.1 200") {
        let wire = stage.upstream.last().wire();
        let text = String::from_utf8_lossy(&wire);
        assert_eq!(text.matches('\n').count(), text.matches("\r\n").count(), "{text:?}");
    }
    stage.upstream.forget();
    let request = "GET /public#/admin HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n";
    let cut = answer(&stage, request).await;
    if cut.starts_with("HTTP/1.1 200") {
        assert_eq!(stage.upstream.last().target, "/public");
    } else {
        assert!(cut.starts_with("HTTP/1.1 400"), "{cut}");
        stage.upstream.assert_untouched();
    }
}

#[tokio::test]
async fn an_upgrade_with_a_body_is_400() {
    let stage = Stage::with(PUBLIC);
    let head = "GET /ws HTTP/1.1\r\nHost: {host}\r\nConnection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    assert_refused(&stage, &format!("{head}Content-Length: 1\r\n\r\nx"), "400").await;
    assert_refused(&stage, &format!("{head}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), "400").await;
}

#[tokio::test]
async fn oversized_heads_are_refused_and_the_proxy_goes_on() {
    let stage = Stage::with(PUBLIC);
    let large =
        format!("GET / HTTP/1.1\r\nHost: {{host}}\r\nX-Large: {}\r\nConnection: close\r\n\r\n", "a".repeat(200_000));
    assert_refused(&stage, &large, "431").await;
    let many: String = (0..500).map(|n| format!("X-{n}: 1\r\n")).collect();
    assert_refused(&stage, &format!("GET / HTTP/1.1\r\nHost: {{host}}\r\n{many}Connection: close\r\n\r\n"), "431")
        .await;
    let long = format!("GET /{} HTTP/1.1\r\nHost: {{host}}\r\nConnection: close\r\n\r\n", "a".repeat(70_000));
    let refused = answer(&stage, &long).await;
    assert!(refused.starts_with("HTTP/1.1 4"), "{refused}");
    for garbage in ["\u{0}\u{1}\u{2}\r\n\r\n", "GET\r\n\r\n", "\u{16}\u{3}\u{1}", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"] {
        let _ = answer(&stage, garbage).await;
    }
    let fine = answer(&stage, "GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").await;
    assert!(fine.starts_with("HTTP/1.1 200"), "{fine}");
}

#[tokio::test]
async fn heads_that_are_refused_before_they_are_read_are_counted() {
    let stage = Stage::with(&format!("[limits]\nheader_timeout = \"200ms\"\n{PUBLIC}"));
    let large = format!("GET / HTTP/1.1\r\nHost: {{host}}\r\nX-Large: {}\r\n\r\n", "a".repeat(200_000));
    assert_refused(&stage, &large, "431").await;
    assert_refused(&stage, "GET / HTTP/1.1\r\nHost : {host}\r\n\r\n", "400").await;
    assert_eq!(answer(&stage, "GET / HTTP/1.1\r\nHost: ").await, "", "cut without a word");
    // They are counted where the connection ends, which is after the client has its answer.
    let end = Instant::now() + Duration::from_secs(10);
    for reason in ["head_too_large", "malformed_head", "head_timeout"] {
        let line = format!("vestibule_refusals_total{{reason=\"{reason}\"}} 1");
        loop {
            let metrics = stage.browser().fetch(&stage.admin_url("/metrics")).await.text();
            if metrics.contains(&line) {
                break;
            }
            assert!(Instant::now() < end, "no {line}: {metrics}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

#[tokio::test]
async fn a_trusted_chain_is_read_from_the_right_and_a_strangers_scheme_is_not_believed() {
    let chain = "GET / HTTP/1.1\r\nHost: {host}\r\nForwarded: for=198.51.100.1, for=203.0.113.7;proto=https, for=10.0.0.1\r\nConnection: close\r\n\r\n";
    let trusting = Stage::with(&format!("trusted_proxies = [\"127.0.0.0/8\", \"10.0.0.0/8\"]\n{PUBLIC}"));
    answer(&trusting, chain).await;
    let seen = trusting.upstream.last();
    assert_eq!(seen.header("x-real-ip"), ["203.0.113.7"], "what stands further left was said by a stranger");
    assert_eq!(seen.header("forwarded").len(), 1);
    // A peer that is not in the list, however near.
    let other = Stage::with(&format!("trusted_proxies = [\"10.0.0.0/8\"]\n{PUBLIC}"));
    answer(&other, chain).await;
    assert_eq!(other.upstream.last().header("x-real-ip"), ["127.0.0.1"]);
    let scheme = "GET / HTTP/1.1\r\nHost: {host}\r\nX-Forwarded-Proto: https\r\nConnection: close\r\n\r\n";
    for (stage, proto) in [(&trusting, "https"), (&other, "http")] {
        answer(stage, scheme).await;
        assert_eq!(stage.upstream.last().header("x-forwarded-proto"), [proto]);
    }
    for nonsense in ["ftp", "HTTPS, http", "https\tx", ""] {
        answer(&trusting, &scheme.replace("https", nonsense)).await;
        let seen = trusting.upstream.last();
        let proto = seen.header("x-forwarded-proto");
        assert!(proto == ["http"] || proto == ["https"], "{nonsense:?}: {proto:?}");
    }
}

#[tokio::test]
async fn forwarding_headers_come_from_trusted_proxies_or_from_us() {
    let spoof = "GET / HTTP/1.1\r\nHost: {host}\r\nX-Forwarded-For: 203.0.113.7, 10.0.0.1\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: evil.example\r\nX-Forwarded-Prefix: /x\r\nX-Real-IP: 203.0.113.7\r\nForwarded: for=203.0.113.7\r\nConnection: close\r\n\r\n";
    let stage = Stage::with(PUBLIC);
    answer(&stage, spoof).await;
    let seen = stage.upstream.last();
    assert_eq!(seen.header("x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(seen.header("x-forwarded-proto"), ["http"]);
    assert_eq!(seen.header("x-forwarded-host"), [stage.host()]);
    assert_eq!(seen.header("x-real-ip"), ["127.0.0.1"]);
    assert_eq!(seen.header("x-forwarded-prefix"), [""; 0]);
    let [forwarded] = &seen.header("forwarded")[..] else { panic!("{:?}", seen.headers) };
    assert!(forwarded.contains("for=127.0.0.1") && forwarded.contains("proto=http"), "{forwarded}");

    let trusting = Stage::with(&format!("trusted_proxies = [\"127.0.0.0/8\", \"10.0.0.0/8\"]\n{PUBLIC}"));
    answer(&trusting, spoof).await;
    let seen = trusting.upstream.last();
    assert_eq!(seen.header("x-real-ip"), ["203.0.113.7"]);
    assert_eq!(seen.header("x-forwarded-proto"), ["https"]);
    assert_eq!(seen.header("x-forwarded-for").len(), 1);
}
