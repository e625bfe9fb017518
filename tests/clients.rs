//! Signed out, every kind of client gets what a front-end developer wants: a person's navigation starts a sign-in, everything
//! else gets 401 with the sign-in address, no redirect and no cookie.

use http::{Method, StatusCode};
use vestibule_test_support::{Endpoint, Request, Stage, raw_request};

const HTML: &str = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";

/// What each kind of client sends, beside the method and the address.
fn programs(url: &str) -> Vec<(&'static str, Request)> {
    let get = || Request::new(Method::GET, url);
    let fetch = |method| Request::fetch(method, url);
    vec![
        ("fetch", fetch(Method::GET)),
        ("fetch that wants JSON", fetch(Method::GET).header("accept", "application/json")),
        ("fetch that posts JSON", fetch(Method::POST).header("content-type", "application/json").body("{}")),
        ("fetch that deletes", fetch(Method::DELETE)),
        ("fetch that puts", fetch(Method::PUT).body("x")),
        ("XMLHttpRequest with its header", get().header("x-requested-with", "XMLHttpRequest").header("accept", HTML)),
        ("JSON with a quality", get().header("accept", "application/json;q=0.9, text/html;q=0.5")),
        ("a vendor's JSON", get().header("accept", "application/vnd.api+json")),
        ("event stream", get().header("accept", "text/event-stream")),
        (
            "script",
            get().header("sec-fetch-mode", "no-cors").header("sec-fetch-dest", "script").header("accept", "*/*"),
        ),
        (
            "image",
            get().header("sec-fetch-mode", "no-cors").header("sec-fetch-dest", "image").header("accept", "image/*"),
        ),
        ("style sheet", get().header("accept", "text/css,*/*;q=0.1")),
        (
            "iframe",
            get().header("sec-fetch-mode", "navigate").header("sec-fetch-dest", "iframe").header("accept", HTML),
        ),
        ("prefetch", Request::navigation(Method::GET, url).header("sec-purpose", "prefetch").header("accept", HTML)),
        ("curl", get().header("accept", "*/*").header("user-agent", "curl/8.0")),
        ("no Accept at all", get()),
        ("garbage bearer token", get().header("authorization", "Bearer garbage").header("accept", "*/*")),
        ("basic credentials", get().header("authorization", "Basic YTpi").header("accept", "application/json")),
        (
            "WebSocket",
            get()
                .header("connection", "upgrade")
                .header("upgrade", "websocket")
                .header("sec-websocket-version", "13")
                .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ),
        ("HEAD", Request::new(Method::HEAD, url).header("accept", HTML)),
    ]
}

#[tokio::test]
async fn programs_get_401_with_the_sign_in_address_and_start_no_sign_in() {
    let stage = Stage::start();
    stage.wait_for_provider().await;
    let browser = stage.browser();
    let sign_in_url = stage.url("/auth/login");
    for (kind, request) in programs(&stage.url("/api?q=1")) {
        let reply = browser.send(request).await;
        assert_eq!(reply.status, StatusCode::UNAUTHORIZED, "{kind}");
        assert_eq!(reply.header("location"), None, "{kind}");
        assert_eq!(reply.set_cookies(), Vec::<String>::new(), "{kind}");
        assert_eq!(reply.header("cache-control"), Some("no-store"), "{kind}");
        let vary = reply.header("vary").unwrap_or_default();
        assert!(vary.contains("Cookie") && vary.contains("Sec-Fetch-Mode"), "{kind}: {vary}");
        if kind == "HEAD" {
            continue;
        }
        assert_eq!(reply.header("content-type"), Some("application/problem+json"), "{kind}");
        let challenge = reply.header("www-authenticate").unwrap();
        assert_eq!(challenge, format!("Vestibule sign_in_url=\"{sign_in_url}\""), "{kind}");
        let problem = reply.json();
        assert_eq!(problem["sign_in_url"], sign_in_url, "{kind}");
        assert_eq!(problem["status"], 401, "{kind}");
        assert!(problem["request_id"].as_str().is_some_and(|id| id.len() >= 16), "{kind}");
    }
    assert_eq!(stage.provider.count(Endpoint::Authorize), 0);
    stage.upstream.assert_untouched();
}

#[tokio::test]
async fn navigations_start_a_sign_in() {
    let stage = Stage::start();
    stage.wait_for_provider().await;
    let url = stage.url("/page?x=1");
    let navigations = [
        ("browser", Request::navigation(Method::GET, &url)),
        ("older browser", Request::new(Method::GET, &url).header("accept", HTML)),
        ("link from elsewhere", Request::navigation(Method::GET, &url).from_page("https://elsewhere.example/")),
    ];
    for (kind, request) in navigations {
        let reply = stage.browser().send(request).await;
        assert_eq!(reply.status, StatusCode::FOUND, "{kind}");
        assert!(reply.location().as_str().starts_with(&stage.provider.issuer()), "{kind}");
        let [cookie] = &reply.set_cookies()[..] else { panic!("{kind}: {:?}", reply.set_cookies()) };
        assert!(cookie.starts_with("vestibule.login=") && cookie.len() < 150, "{kind}: {cookie}");
        assert_eq!(reply.header("cache-control"), Some("private, no-store"), "{kind}");
        assert_eq!(reply.header("referrer-policy"), Some("no-referrer"), "{kind}");
        assert_eq!(reply.header("x-content-type-options"), Some("nosniff"), "{kind}");
        let csp = reply.header("content-security-policy").unwrap_or_default();
        assert!(csp.contains("frame-ancestors 'none'") && csp.contains("base-uri 'none'"), "{kind}: {csp}");
    }
    stage.upstream.assert_untouched();
}

#[tokio::test]
async fn a_form_sent_without_a_session_is_told_that_it_was_not_passed_on() {
    let stage = Stage::start();
    stage.wait_for_provider().await;
    let browser = stage.browser();
    let reply = browser.submit(&stage.url("/form"), &stage.url("/form"), &[("a", "b")]).await;
    assert_eq!(reply.status, StatusCode::UNAUTHORIZED);
    let page = reply.text().replace("&#x2f;", "/");
    assert!(page.contains("not passed on") && page.contains(&stage.url("/auth/login")), "{page}");
    assert_eq!(reply.set_cookies(), Vec::<String>::new());
    stage.upstream.assert_untouched();
}

#[tokio::test]
async fn a_preflight_is_refused_without_cors_headers_unless_the_route_lets_it_through() {
    let stage = Stage::with("[[routes]]\npath = \"/open/*\"\npreflight = \"forward\"");
    let preflight = |path: &str| {
        Request::new(Method::OPTIONS, &stage.url(path))
            .header("origin", "https://elsewhere.example")
            .header("access-control-request-method", "PUT")
    };
    let browser = stage.browser();
    let reply = browser.send(preflight("/api")).await;
    assert_eq!(reply.status, StatusCode::FORBIDDEN);
    assert!(!reply.headers.keys().any(|name| name.as_str().starts_with("access-control")), "{:?}", reply.headers);
    stage.upstream.assert_untouched();
    let reply = browser.send(preflight("/open/api").header("x-forwarded-user", "admin")).await;
    assert_eq!((reply.status, reply.echoed("x-forwarded-user")), (StatusCode::OK, None));
}

#[tokio::test]
async fn grpc_gets_a_trailers_only_status() {
    let stage = Stage::start();
    let request = Request::new(Method::POST, &stage.url("/pkg.Service/Call"))
        .header("content-type", "application/grpc+proto")
        .header("te", "trailers")
        .body(vec![0, 0, 0, 0, 0]);
    let reply = stage.browser().send(request).await;
    assert_eq!((reply.status, reply.header("grpc-status")), (StatusCode::OK, Some("16")));
    assert_eq!(reply.header("content-type"), Some("application/grpc"));
    assert!(reply.body.is_empty());
    stage.upstream.assert_untouched();
}

#[tokio::test]
async fn a_refusal_with_an_unread_body_closes_the_connection() {
    let stage = Stage::start();
    let head = format!("POST /api HTTP/1.1\r\nHost: {}\r\nContent-Length: 1000000\r\n\r\n", stage.host());
    let answer = raw_request(stage.address(), head.as_bytes()).await;
    let answer = String::from_utf8_lossy(&answer).to_ascii_lowercase();
    assert!(answer.starts_with("http/1.1 401"), "{answer}");
    assert!(answer.contains("connection: close"), "{answer}");
    stage.upstream.assert_untouched();
}
