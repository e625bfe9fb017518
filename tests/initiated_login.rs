//! A third party may start a sign-in and choose where it ends within the application, and nothing else (OpenID Connect Core
//! §4).

use http::{Method, StatusCode};
use url::form_urlencoded::Serializer;
use vestibule_test_support::{Endpoint, Reply, Request, Stage};

const PORTAL: &str = "http://portal.example/apps";

fn with_query(stage: &Stage, pairs: &[(&str, &str)]) -> String {
    format!("{}?{}", stage.url("/auth/login"), Serializer::new(String::new()).extend_pairs(pairs).finish())
}

fn assert_refused(stage: &Stage, reply: &Reply, why: &str) {
    assert_eq!(reply.status, StatusCode::BAD_REQUEST, "{why}: {}", reply.text());
    assert!(reply.set_cookies().is_empty(), "{why}");
    assert_eq!(stage.provider.count(Endpoint::Authorize), 0, "{why}");
    stage.upstream.assert_untouched();
}

#[tokio::test]
async fn a_portal_starts_a_sign_in_that_ends_on_the_page_it_names() {
    let stage = Stage::start();
    let (issuer, target) = (stage.provider.issuer(), stage.url("/there?x=1"));
    let pairs = [("iss", issuer.as_str()), ("target_link_uri", &target), ("login_hint", "ada@example.com")];
    let browser = stage.browser();
    let reply = browser.click(PORTAL, &with_query(&stage, &pairs)).await;
    let page = browser.follow_reply(reply, 10).await;
    assert_eq!(page.json()["target"], "/there?x=1", "{}", page.text());
    let by_form = stage.browser();
    let reply = by_form.submit(PORTAL, &stage.url("/auth/login"), &pairs).await;
    assert_eq!(reply.status, StatusCode::SEE_OTHER, "{}", reply.text());
    assert!(reply.set_cookies().is_empty(), "the cookie of another tab's sign-in would be lost");
    let page = by_form.follow_reply(reply, 10).await;
    assert_eq!(page.json()["target"], "/there?x=1", "{}", page.text());
    for request in stage.provider.requests_of(Endpoint::Authorize) {
        assert_eq!(request.query_value("login_hint").as_deref(), Some("ada@example.com"));
    }
}

#[tokio::test]
async fn without_a_target_it_ends_on_the_front_page() {
    let stage = Stage::start();
    let browser = stage.browser();
    let reply = browser.click(PORTAL, &with_query(&stage, &[("iss", &stage.provider.issuer())])).await;
    assert_eq!(browser.follow_reply(reply, 10).await.json()["target"], "/");
}

#[tokio::test]
async fn nobody_is_sent_to_another_site_or_to_another_provider() {
    let stage = Stage::start();
    let issuer = stage.provider.issuer();
    let with_slash = format!("{issuer}/");
    let own = stage.origin();
    let evil = own.replace("localhost", "evil.example\\.localhost");
    let targets = [
        "https://evil.example/".to_owned(),
        "//evil.example/".to_owned(),
        "/\\evil.example/".to_owned(),
        "/\t/evil.example/".to_owned(),
        "javascript:alert(1)".to_owned(),
        format!("{own}@evil.example/"),
        format!("{own}/auth/logout"),
        format!("{own}/x#y"),
        evil,
    ];
    for target in &targets {
        let pairs = [("iss", issuer.as_str()), ("target_link_uri", target)];
        let by_link = stage.browser().click(PORTAL, &with_query(&stage, &pairs)).await;
        assert_refused(&stage, &by_link, target);
        let by_form = stage.browser().submit(PORTAL, &stage.url("/auth/login"), &pairs).await;
        assert_refused(&stage, &by_form, target);
    }
    let long = "x".repeat(255);
    for pairs in [
        &[("iss", "https://other.example.com")][..],
        &[("iss", &with_slash)],
        &[("iss", "")],
        &[("target_link_uri", "/there")],
        &[("iss", &issuer), ("iss", &issuer)],
        &[("iss", &issuer), ("target_link_uri", "/a"), ("target_link_uri", "/b")],
        &[("iss", &issuer), ("login_hint", "a"), ("login_hint", "b")],
        &[("iss", &issuer), ("login_hint", "a\nb")],
        &[("iss", &issuer), ("login_hint", &long)],
        &[("iss", &issuer), ("rd", "/there")],
        &[("iss", &issuer), ("provider", "default")],
        &[("iss", &issuer), ("email", "ada@example.com")],
    ] {
        let by_link = stage.browser().click(PORTAL, &with_query(&stage, pairs)).await;
        assert_refused(&stage, &by_link, &format!("{pairs:?}"));
        let by_form = stage.browser().submit(PORTAL, &stage.url("/auth/login"), pairs).await;
        assert_refused(&stage, &by_form, &format!("{pairs:?}"));
    }
}

#[tokio::test]
async fn what_else_a_third_party_writes_gets_nowhere() {
    let stage = Stage::start();
    let more = [
        ("iss", stage.provider.issuer()),
        ("scope", "openid admin".to_owned()),
        ("scopes", "admin".to_owned()),
        ("auth_request_params", "prompt=none".to_owned()),
        ("prompt", "none".to_owned()),
        ("acr_values", "0".to_owned()),
        ("max_age", "0".to_owned()),
        ("redirect_uri", "https://evil.example/".to_owned()),
        ("state", "evil".to_owned()),
        ("nonce", "evil".to_owned()),
        ("claims", "{}".to_owned()),
        ("request", "a.b.c".to_owned()),
    ];
    let pairs: Vec<_> = more.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let browser = stage.browser();
    let reply = browser.click(PORTAL, &with_query(&stage, &pairs)).await;
    let told = reply.location();
    let browser = stage.browser();
    let plain = browser.click(PORTAL, &with_query(&stage, &pairs[..1])).await.location();
    let names = |url: &url::Url| url.query_pairs().map(|(name, _)| name.into_owned()).collect::<Vec<_>>();
    assert_eq!(names(&told), names(&plain));
    for (name, value) in told.query_pairs().filter(|(name, _)| *name != "state" && *name != "nonce") {
        let same = plain.query_pairs().any(|(other, plain)| other == name && plain == value);
        assert!(same || name == "code_challenge", "{name}={value}");
    }
    assert!(!told.as_str().contains("evil"), "{told}");
}

#[tokio::test]
async fn a_form_that_is_none_is_refused() {
    let stage = Stage::start();
    let browser = stage.browser();
    let post = || Request::navigation(Method::POST, &stage.url("/auth/login")).from_page(PORTAL);
    assert_refused(&stage, &browser.send(post()).await, "no form at all");
    assert_refused(&stage, &browser.send(post().form(&[("rd", "/there")])).await, "no third party's");
    let json = post().header("content-type", "application/json").body("{}");
    assert_refused(&stage, &browser.send(json).await, "JSON");
    let bytes = post().header("content-type", "application/x-www-form-urlencoded").body(&b"iss=\xff"[..]);
    assert_refused(&stage, &browser.send(bytes).await, "no text");
    let large = "x".repeat(200_000);
    let reply = browser.send(post().form(&[("iss", &large)])).await;
    assert_eq!(reply.status, StatusCode::PAYLOAD_TOO_LARGE);
}

/// Core §4: no other page signs anybody in unseen.
#[tokio::test]
async fn nothing_begins_in_a_frame_or_behind_an_image() {
    let stage = Stage::start();
    stage.wait_for_provider().await;
    let url = stage.url(&format!("/auth/login?iss={}", stage.provider.issuer()));
    for destination in ["iframe", "frame", "image", "empty", "object"] {
        for method in [Method::GET, Method::POST] {
            let request = Request::navigation(method.clone(), &url).header("sec-fetch-dest", destination);
            let request = request.header("sec-fetch-site", "cross-site");
            let reply = stage.browser().send(request).await;
            assert_eq!(reply.status, StatusCode::FORBIDDEN, "{method} {destination}: {}", reply.text());
            assert!(reply.set_cookies().is_empty() && reply.header("location").is_none());
        }
    }
    assert_eq!(stage.provider.count(Endpoint::Authorize), 0);
}
