//! Whoever comes over http or to an alias is sent to where the application lives, and nowhere else.

use vestibule_test_support::{Stage, raw_request};

const PUBLIC: &str = "[[routes]]\npath = \"/*\"\naccess = \"public\"\n";

/// Everything is public; the redirect URI is https, and loopback is a proxy whose word is believed.
fn stage(top: &str, more: &str) -> Stage {
    Stage::with(&format!(
        "trusted_proxies = [\"127.0.0.0/8\"]\n{top}\n[provider]\n\
         redirect_uri = \"https://app.example.com/auth/callback\"\n{PUBLIC}{more}"
    ))
}

async fn answer(stage: &Stage, line: &str, host: &str, more: &str) -> String {
    let request = format!("{line} HTTP/1.1\r\nHost: {host}\r\n{more}Connection: close\r\n\r\n");
    String::from_utf8_lossy(&raw_request(stage.address(), request.as_bytes()).await).into_owned()
}

fn field<'a>(answer: &'a str, name: &str) -> Option<&'a str> {
    let head = answer.split("\r\n\r\n").next()?;
    head.lines().find_map(|line| {
        let (field, value) = line.split_once(": ")?;
        field.eq_ignore_ascii_case(name).then_some(value)
    })
}

const SECURE: &str = "X-Forwarded-Proto: https\r\n";

#[tokio::test]
async fn http_is_sent_to_https_with_path_and_query_as_they_were() {
    let stage = stage("https_redirect = true", "");
    for (host, path, location) in [
        ("app.example.com", "/a%2Fb;c//d?e=%41&f", "https://app.example.com/a%2Fb;c//d?e=%41&f"),
        ("APP.example.com.:80", "/", "https://app.example.com/"),
        ("evil.example", "/x", "https://app.example.com/x"),
        ("app.example.com", "//evil.example/x", "https://app.example.com//evil.example/x"),
        ("app.example.com", "/@evil.example", "https://app.example.com/@evil.example"),
        ("app.example.com", "/auth/login", "https://app.example.com/auth/login"),
        ("app.example.com", "http://app.example.com?x", "https://app.example.com/?x"),
    ] {
        for method in ["GET", "POST", "HEAD"] {
            let answer = answer(&stage, &format!("{method} {path}"), host, "").await;
            assert!(answer.starts_with("HTTP/1.1 308"), "{method} {path}: {answer}");
            assert_eq!(field(&answer, "location"), Some(location), "{path}");
            assert_eq!(field(&answer, "cache-control"), Some("no-store"));
            assert!(field(&answer, "set-cookie").is_none());
        }
    }
    let refused = answer(&stage, "GET /../x", "app.example.com", "").await;
    assert!(refused.starts_with("HTTP/1.1 400"), "{refused}");
    stage.upstream.assert_untouched();
    let secure = answer(&stage, "GET /x", "app.example.com", SECURE).await;
    assert!(secure.starts_with("HTTP/1.1 200"), "{secure}");
}

#[tokio::test]
async fn a_stranger_does_not_say_that_it_came_over_https() {
    let stage = Stage::with(&format!(
        "https_redirect = true\ntrusted_proxies = [\"10.0.0.0/8\"]\n[provider]\n\
         redirect_uri = \"https://app.example.com/auth/callback\"\n{PUBLIC}"
    ));
    let answer = answer(&stage, "GET /x", "app.example.com", SECURE).await;
    assert!(answer.starts_with("HTTP/1.1 308"), "{answer}");
    stage.upstream.assert_untouched();
}

#[tokio::test]
async fn a_certificate_authoritys_question_is_answered_over_http() {
    let stage = stage("https_redirect = true\ncanonical_host = \"app.example.com\"", "");
    for host in ["app.example.com", "www.example.com"] {
        let answer = answer(&stage, "GET /.well-known/acme-challenge/token", host, "").await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
}

#[tokio::test]
async fn an_alias_is_sent_to_the_canonical_host_and_a_host_with_routes_stays() {
    let stage = stage(
        "hosts = [\"app.example.com\", \"www.example.com\", \"files.example.com\"]\ncanonical_host = \"app.example.com\"",
        "[[routes]]\nhost = \"files.example.com\"\naccess = \"public\"\n",
    );
    let moved = answer(&stage, "GET /x?y", "www.example.com", SECURE).await;
    assert!(moved.starts_with("HTTP/1.1 308"), "{moved}");
    assert_eq!(field(&moved, "location"), Some("https://app.example.com/x?y"));
    let body = answer(&stage, "POST /x", "www.example.com", "Content-Length: 5\r\n").await;
    assert!(body.starts_with("HTTP/1.1 308") && field(&body, "connection") == Some("close"), "{body}");
    let unlisted = answer(&stage, "GET /x", "evil.example", SECURE).await;
    assert!(unlisted.starts_with("HTTP/1.1 421") && field(&unlisted, "location").is_none(), "{unlisted}");
    stage.upstream.assert_untouched();
    for host in ["app.example.com", "files.example.com"] {
        let there = answer(&stage, "GET /x", host, "").await;
        assert!(there.starts_with("HTTP/1.1 200"), "{there}");
    }
}

#[tokio::test]
async fn hsts_is_on_every_https_answer_and_on_no_other() {
    const OURS: &str = "max-age=63072000; includeSubDomains; preload";
    let theirs = "/respond?header=Strict-Transport-Security:max-age%3D1";
    let stage = stage("hsts = { max_age = \"63072000s\", include_subdomains = true, preload = true }", "");
    for (path, status) in
        [(theirs, "200"), ("/x", "200"), ("/auth/nothing", "404"), ("/..", "400"), ("/auth/login", "302")]
    {
        let secure = answer(&stage, &format!("GET {path}"), "app.example.com", SECURE).await;
        assert_eq!(secure.get(9..12), Some(status), "{path}");
        let expected = if status == "400" { None } else { Some(OURS) };
        assert_eq!(field(&secure, "strict-transport-security"), expected, "{path}");
        let plain = answer(&stage, &format!("GET {path}"), "app.example.com", "").await;
        assert_eq!(field(&plain, "strict-transport-security"), None, "{path}");
    }
    let without = self::stage("", "");
    let answer = answer(&without, &format!("GET {theirs}"), "app.example.com", SECURE).await;
    assert_eq!(field(&answer, "strict-transport-security"), Some("max-age=1"), "the application's own stays");
}
