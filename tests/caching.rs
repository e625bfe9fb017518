//! What we say is for whoever asked and for nobody else, and what the application says to a person stays out of shared caches.

use http::{Method, StatusCode};
use serde_json::json;
use vestibule_test_support::{Reply, Request, Stage};

const ROUTES: &str = r#"
[[routes]]
path = "/public/*"
access = "public"
[[routes]]
path = "/maybe/*"
access = "optional"
[[routes]]
path = "/admin/*"
require = { roles = ["admin"] }
"#;

/// What every answer of our own has, whatever it says.
#[track_caller]
fn assert_ours(reply: &Reply, status: StatusCode) {
    let what = &reply.url;
    assert_eq!(reply.status, status, "{what}: {}", reply.text());
    let cache = reply.header("cache-control").unwrap_or_default();
    assert!(cache == "no-store" || cache == "private, no-store", "{what}: {cache}");
    assert_eq!(reply.set_cookies().is_empty(), cache == "no-store", "{what}: {cache} {:?}", reply.set_cookies());
    assert_eq!(
        reply.header("vary"),
        Some("Cookie, Accept, Sec-Fetch-Mode, Sec-Fetch-Dest, X-Requested-With"),
        "{what}"
    );
    assert_eq!(reply.header("referrer-policy"), Some("no-referrer"), "{what}");
    assert_eq!(reply.header("x-content-type-options"), Some("nosniff"), "{what}");
    let csp = reply.header("content-security-policy").unwrap_or_default();
    assert!(csp.contains("frame-ancestors 'none'") && csp.contains("base-uri 'none'"), "{what}: {csp}");
    assert!(!reply.headers.keys().any(|name| name.as_str().starts_with("access-control")), "{what}");
    for name in ["etag", "last-modified", "expires"] {
        assert_eq!(reply.header(name), None, "{what}");
    }
}

#[tokio::test]
async fn every_answer_of_ours_is_uncacheable_and_kept_apart() {
    let stage = Stage::with(ROUTES);
    stage.provider.set_user(json!({"sub": "u1"}));
    let stranger = stage.browser();
    let login = stranger.get(&stage.url("/page")).await;
    assert_ours(&login, StatusCode::FOUND);
    assert_ours(&stranger.get(&stage.url("/auth/login?rd=/page")).await, StatusCode::FOUND);
    assert_ours(&stranger.fetch(&stage.url("/page")).await, StatusCode::UNAUTHORIZED);
    assert_ours(&stranger.submit(&stage.origin(), &stage.url("/page"), &[]).await, StatusCode::UNAUTHORIZED);
    assert_ours(&stranger.fetch(&stage.url("/auth/userinfo")).await, StatusCode::UNAUTHORIZED);
    assert_ours(&stranger.get(&stage.url("/auth/callback?code=x")).await, StatusCode::BAD_REQUEST);
    assert_ours(&stranger.get(&stage.url("/auth/callback?code=x&state=y")).await, StatusCode::FOUND);
    assert_ours(&stranger.get(&stage.url("/auth/nothing")).await, StatusCode::NOT_FOUND);
    assert_ours(&stranger.get(&stage.url("/auth/login?rd=//evil.example")).await, StatusCode::BAD_REQUEST);
    let preflight = Request::new(Method::OPTIONS, &stage.url("/page"))
        .header("origin", "https://elsewhere.example")
        .header("access-control-request-method", "PUT");
    assert_ours(&stranger.send(preflight).await, StatusCode::FORBIDDEN);
    let grpc = Request::new(Method::POST, &stage.url("/x")).header("content-type", "application/grpc").body("x");
    assert_ours(&stranger.send(grpc).await, StatusCode::OK);

    let browser = stage.browser();
    let at_provider = browser.step(&browser.get(&stage.url("/page")).await).await;
    let callback = browser.step(&at_provider).await;
    assert_ours(&callback, StatusCode::SEE_OTHER);
    let repeated = browser.get(callback.url.as_str()).await;
    assert_ours(&repeated, StatusCode::SEE_OTHER);
    assert_ours(&browser.get(&stage.url("/admin/x")).await, StatusCode::FORBIDDEN);
    assert_ours(&browser.fetch(&stage.url("/admin/x")).await, StatusCode::FORBIDDEN);
    assert_ours(&browser.fetch(&stage.url("/auth/userinfo")).await, StatusCode::OK);
    // A form's page names its own origin, or its POST would come from "null" (Fetch §3.2).
    let mut form = browser.click("https://elsewhere.example/", &stage.url("/auth/logout")).await;
    let policy = form.headers.insert("referrer-policy", "no-referrer".parse().unwrap());
    assert_eq!(policy.unwrap(), "same-origin");
    assert_ours(&form, StatusCode::OK);
    stage.upstream.take_down();
    assert_ours(&browser.get(&stage.url("/page")).await, StatusCode::BAD_GATEWAY);
    assert_ours(&browser.get(&stage.url("/public/page")).await, StatusCode::BAD_GATEWAY);
    assert_ours(&browser.get(&stage.url("/auth/logout")).await, StatusCode::SEE_OTHER);
    assert_ours(&browser.get(&stage.url("/auth/signed-out")).await, StatusCode::OK);
}

#[tokio::test]
async fn optional_answers_vary_by_cookie_and_public_ones_are_the_applications_own() {
    let stage = Stage::with(ROUTES);
    let (signed_in, stranger) = (stage.signed_in_browser().await, stage.browser());
    let vary = |reply: &Reply| {
        let lines = reply.headers.get_all("vary").iter().map(|value| value.to_str().unwrap().to_owned());
        lines.collect::<Vec<_>>().join(", ")
    };
    for browser in [&signed_in, &stranger] {
        let plain = browser.get(&stage.url("/maybe/x")).await;
        assert_eq!((plain.header("cache-control"), vary(&plain).as_str()), (Some("private"), "Cookie"));
        let public = browser.get(&stage.url("/public/x")).await;
        assert_eq!((public.header("cache-control"), vary(&public).as_str()), (None, ""));
    }
}

#[tokio::test]
async fn what_the_application_says_about_caching_stays_beside_what_we_add() {
    let stage = Stage::with("[[routes]]\npath = \"/*\"\naccess = \"optional\"");
    let reply = stage
        .browser()
        .fetch(&stage.url("/respond?header=vary:Accept-Language&header=cache-control:public,max-age=60"))
        .await;
    assert_eq!(reply.header("cache-control"), Some("public,max-age=60"));
    let vary: Vec<_> = reply.headers.get_all("vary").iter().collect();
    assert_eq!(vary, ["Accept-Language", "Cookie"]);
}
