//! A frame in the provider's page ends the session that it names here, and nothing anywhere else (OpenID Connect
//! Front-Channel Logout 1.0).

use http::{Method, StatusCode};
use vestibule_test_support::{Browser, Endpoint, Reply, Request, Stage, json};

fn address(stage: &Stage, parameters: &[(&str, &str)]) -> String {
    let query = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(parameters).finish();
    stage.url(&format!("/auth/frontchannel-logout?{query}"))
}

/// What a browser sends for a frame in a page of another site.
fn framed(url: &str) -> Request {
    Request::new(Method::GET, url)
        .header("accept", "text/html")
        .header("sec-fetch-dest", "iframe")
        .header("sec-fetch-mode", "navigate")
        .header("sec-fetch-site", "cross-site")
}

/// Without cookies, which are Lax.
async fn frame(stage: &Stage, parameters: &[(&str, &str)]) -> Reply {
    stage.browser().send(framed(&address(stage, parameters))).await
}

async fn signed_in(stage: &Stage, sub: &str, sid: &str) -> Browser {
    stage.provider.set_user(json!({ "sub": sub, "preferred_username": sub, "sid": sid }));
    stage.signed_in_browser().await
}

fn assert_page(stage: &Stage, reply: &Reply) {
    assert_eq!(reply.status, StatusCode::OK, "{}", reply.text());
    assert!(reply.header("content-type").unwrap().starts_with("text/html"));
    assert!(reply.header("cache-control").unwrap().contains("no-store"));
    let policy = reply.header("content-security-policy").unwrap();
    assert!(policy.ends_with(&format!("frame-ancestors {}", stage.provider.issuer())), "{policy}");
    assert_eq!(reply.header("x-frame-options"), None);
}

#[tokio::test]
async fn a_frame_ends_the_session_that_it_names_without_its_cookie() {
    let stage = Stage::start();
    let (ada, bob) = (signed_in(&stage, "ada", "s1").await, signed_in(&stage, "bob", "s2").await);
    let issuer = stage.provider.issuer();
    let reply = frame(&stage, &[("iss", &issuer), ("sid", "s1"), ("extra", "1")]).await;
    assert_page(&stage, &reply);
    assert!(reply.set_cookies().is_empty());
    stage.assert_ended(&ada).await;
    stage.assert_signed_in(&bob).await;
    assert_eq!(stage.provider.count(Endpoint::EndSession), 0, "the provider is not told");
    assert_eq!(stage.sign_in(&ada, "/").await.status, StatusCode::OK);
}

#[tokio::test]
async fn where_the_cookie_comes_along_it_is_cleared_if_it_is_the_one() {
    let stage = Stage::start();
    let ada = signed_in(&stage, "ada", "s1").await;
    let issuer = stage.provider.issuer();
    // A provider of the same site: Lax cookies come into its frames.
    let cookies = ada.cookie_line(&stage.origin());
    let framed_with_cookie = |sid: &str| {
        let url = address(&stage, &[("iss", &issuer), ("sid", sid)]);
        framed(&url).header("sec-fetch-site", "same-site").header("cookie", &cookies)
    };
    let other = stage.browser().send(framed_with_cookie("s9")).await;
    assert_page(&stage, &other);
    assert!(other.set_cookies().is_empty());
    stage.assert_signed_in(&ada).await;
    let reply = stage.browser().send(framed_with_cookie("s1")).await;
    assert_page(&stage, &reply);
    let deleted = |name: &str| {
        let begin = format!("{name}=;");
        reply.set_cookies().iter().any(|cookie| cookie.starts_with(&begin) && cookie.contains("Max-Age=0"))
    };
    assert!(deleted("vestibule") && deleted("vestibule.idle"), "{:?}", reply.set_cookies());
    stage.assert_ended(&ada).await;
}

#[tokio::test]
async fn without_a_name_only_the_cookie_in_a_frame_says_which() {
    let stage = Stage::start();
    let ada = signed_in(&stage, "ada", "s1").await;
    assert_page(&stage, &frame(&stage, &[]).await);
    stage.assert_signed_in(&ada).await;
    // A link on another site brings the cookie, and is no frame.
    let link = ada.click("https://evil.example/", &address(&stage, &[])).await;
    assert_page(&stage, &link);
    assert!(link.set_cookies().is_empty());
    stage.assert_signed_in(&ada).await;
    let copy = ada.stolen_copy();
    let cookies = ada.cookie_line(&stage.origin());
    let reply = stage.browser().send(framed(&address(&stage, &[])).header("cookie", &cookies)).await;
    assert_page(&stage, &reply);
    assert!(reply.set_cookies().iter().any(|cookie| cookie.starts_with("vestibule=;")), "{:?}", reply.set_cookies());
    stage.assert_ended(&copy).await;
}

#[tokio::test]
async fn what_names_no_session_of_a_provider_of_ours_ends_nothing() {
    let stage = Stage::start();
    let ada = signed_in(&stage, "ada", "s1").await;
    let issuer = stage.provider.issuer();
    let slash = format!("{issuer}/");
    for parameters in [
        &[("sid", "s1")][..],
        &[("iss", &issuer)],
        &[("iss", &issuer), ("sid", "")],
        &[("iss", "https://other.example.com"), ("sid", "s1")],
        &[("iss", &slash), ("sid", "s1")],
        &[("iss", ""), ("sid", "s1")],
        &[("iss", &issuer), ("sid", "s1"), ("sid", "s1")],
        &[("iss", &issuer), ("iss", &issuer), ("sid", "s1")],
    ] {
        let reply = frame(&stage, parameters).await;
        assert_eq!(reply.status, StatusCode::BAD_REQUEST, "{parameters:?}");
        assert!(reply.header("content-security-policy").unwrap().contains("frame-ancestors 'none'"), "{parameters:?}");
        assert_eq!(reply.header("cache-control"), Some("no-store"));
    }
    let post = Request::new(Method::POST, &address(&stage, &[("iss", &issuer), ("sid", "s1")])).form(&[]);
    assert_eq!(stage.browser().send(post).await.status, StatusCode::METHOD_NOT_ALLOWED);
    stage.assert_signed_in(&ada).await;
    assert_eq!(stage.provider.count(Endpoint::EndSession), 0);
}

#[tokio::test]
async fn a_client_that_makes_up_names_is_held_and_nobody_else_is() {
    let stage = Stage::with("trusted_proxies = [\"127.0.0.1\"]");
    let ada = signed_in(&stage, "ada", "s1").await;
    let issuer = stage.provider.issuer();
    let browser = stage.browser();
    let mut held = None;
    for number in 0..2000 {
        let url = address(&stage, &[("iss", &issuer), ("sid", &format!("made-up-{number}"))]);
        let reply = browser.send(framed(&url).header("x-forwarded-for", "203.0.113.9")).await;
        if reply.status != StatusCode::OK {
            held = Some(reply);
            break;
        }
    }
    let held = held.expect("the flood was held");
    assert_eq!((held.status, &held.json()["code"]), (StatusCode::TOO_MANY_REQUESTS, &"too_many_logouts".into()));
    stage.assert_signed_in(&ada).await;
    let url = address(&stage, &[("iss", &issuer), ("sid", "s1")]);
    assert_page(&stage, &browser.send(framed(&url).header("x-forwarded-for", "198.51.100.7")).await);
    stage.assert_ended(&ada).await;
}
