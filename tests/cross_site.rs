//! What a foreign page asks for with somebody's session is not passed on: SameSite=Lax does not stop sibling domains.

use http::{Method, StatusCode};
use vestibule_test_support::{Browser, Request, Stage};

async fn status(stage: &Stage, browser: &Browser, request: Request) -> StatusCode {
    stage.upstream.forget();
    let status = browser.send(request).await.status;
    if status == StatusCode::FORBIDDEN {
        stage.upstream.assert_untouched();
    }
    status
}

fn upgrade(url: &str) -> Request {
    Request::new(Method::GET, url)
        .header("connection", "upgrade")
        .header("upgrade", "websocket")
        .header("sec-websocket-version", "13")
        .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
}

#[tokio::test]
async fn an_unsafe_request_with_a_foreign_or_null_origin_is_refused() {
    let stage = Stage::start();
    let browser = stage.signed_in_browser().await;
    let sibling = format!("http://evil.localhost:{}", stage.address().port());
    for method in [Method::POST, Method::PUT, Method::PATCH, Method::DELETE] {
        for origin in ["https://evil.example", "null", &sibling, "http://localhost", "http://localhost:1"] {
            let request = Request::new(method.clone(), &stage.url("/x")).header("origin", origin);
            assert_eq!(status(&stage, &browser, request).await, StatusCode::FORBIDDEN, "{method} {origin}");
        }
        let own = Request::new(method.clone(), &stage.url("/x")).header("origin", &stage.origin());
        assert_eq!(status(&stage, &browser, own).await, StatusCode::OK, "{method}");
        let none = Request::new(method.clone(), &stage.url("/x"));
        assert_eq!(status(&stage, &browser, none).await, StatusCode::OK, "{method}: no page at all");
        for site in ["cross-site", "same-site"] {
            let request = Request::new(method.clone(), &stage.url("/x")).header("sec-fetch-site", site);
            assert_eq!(status(&stage, &browser, request).await, StatusCode::FORBIDDEN, "{method} {site}");
        }
    }
    let two = Request::new(Method::POST, &stage.url("/x"))
        .header("origin", &stage.origin())
        .append_header("origin", "https://evil.example");
    assert_eq!(status(&stage, &browser, two).await, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn a_cross_site_navigation_works() {
    let stage = Stage::start();
    let browser = stage.signed_in_browser().await;
    let reply = browser.click("https://elsewhere.example/", &stage.url("/page")).await;
    assert_eq!(reply.status, StatusCode::OK);
    assert_eq!(reply.echoed("x-forwarded-user").as_deref(), Some("248289761001"));
}

#[tokio::test]
async fn a_web_socket_of_a_foreign_page_is_refused() {
    let stage = Stage::start();
    let browser = stage.signed_in_browser().await;
    for origin in ["https://evil.example", "null"] {
        let request = upgrade(&stage.url("/ws")).header("origin", origin);
        assert_eq!(status(&stage, &browser, request).await, StatusCode::FORBIDDEN, "{origin}");
    }
}

#[tokio::test]
async fn a_listed_origin_may_and_only_on_its_route() {
    let stage = Stage::with("[[routes]]\npath = \"/api/*\"\nallowed_origins = [\"https://partner.example\"]");
    let browser = stage.signed_in_browser().await;
    let post = |path: &str| Request::new(Method::POST, &stage.url(path)).header("origin", "https://partner.example");
    assert_eq!(status(&stage, &browser, post("/api/x")).await, StatusCode::OK);
    assert_eq!(status(&stage, &browser, post("/x")).await, StatusCode::FORBIDDEN);
}
