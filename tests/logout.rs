//! Signing out ends the session here and at the provider, and nobody else can do it for you.

use std::time::Duration;

use http::{Method, StatusCode};
use vestibule_test_support::{Browser, Endpoint, Reply, Request, Stage, json, tempfile};

async fn assert_signed_in(stage: &Stage, browser: &Browser) {
    assert_eq!(browser.get(&stage.url("/")).await.status, StatusCode::OK);
}

async fn assert_signed_out(stage: &Stage, browser: &Browser) {
    stage.upstream.forget();
    let reply = browser.fetch(&stage.url("/")).await;
    assert_eq!(reply.status, StatusCode::UNAUTHORIZED, "{}", reply.text());
    stage.upstream.assert_untouched();
}

fn query(reply: &Reply, name: &str) -> Option<String> {
    reply.location().query_pairs().find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
}

#[tokio::test]
async fn signing_out_ends_the_session_here_and_at_the_provider() {
    let stage = Stage::with("[provider]\npost_logout_redirect_uri = \"http://localhost:{port}/auth/signed-out\"");
    let browser = stage.signed_in_browser().await;
    let copy = browser.stolen_copy();
    let reply = browser.get(&stage.url("/auth/logout")).await;
    assert_eq!(reply.status, StatusCode::SEE_OTHER);
    assert!(reply.location().as_str().starts_with(&stage.provider.issuer()), "{}", reply.location());
    assert_eq!(query(&reply, "id_token_hint"), stage.provider.id_tokens().pop());
    assert_eq!(query(&reply, "client_id").as_deref(), Some(stage.provider.client_id()));
    assert_eq!(query(&reply, "post_logout_redirect_uri"), Some(stage.url("/auth/signed-out")));
    assert_eq!(reply.header("cache-control"), Some("private, no-store"));
    assert_eq!(reply.header("clear-site-data"), None);
    let end = browser.follow_reply(reply, 5).await;
    assert_eq!((end.status, end.url.path()), (StatusCode::OK, "/auth/signed-out"));
    assert_eq!(stage.provider.count(Endpoint::EndSession), 1);
    assert!(browser.cookie(&stage.origin(), "vestibule").is_none());
    assert_signed_out(&stage, &browser).await;
    assert_signed_out(&stage, &copy).await;
}

#[tokio::test]
async fn a_restart_forgets_no_sign_out() {
    let folder = tempfile::tempdir().unwrap();
    let stage = Stage::with(&format!("state_dir = \"{}/state\"", folder.path().display()));
    let (ada, other) = (stage.signed_in_browser().await, stage.signed_in_browser().await);
    let copy = ada.stolen_copy();
    ada.get(&stage.url("/auth/logout")).await;
    // What was told by the provider too.
    stage.provider.set_user(json!({ "sub": "bob", "preferred_username": "bob", "sid": "s1" }));
    let bob = stage.signed_in_browser().await;
    let told = stage.provider.logout_token(&json!({ "sid": "s1" }));
    let tell = Request::new(Method::POST, &stage.url("/auth/backchannel-logout")).form(&[("logout_token", &told)]);
    assert_eq!(stage.browser().send(tell).await.status, StatusCode::OK);
    let stage = stage.restart().restart();
    assert_signed_out(&stage, &copy).await;
    assert_signed_out(&stage, &bob).await;
    assert_eq!(other.get(&stage.url("/")).await.status, StatusCode::OK, "everybody else goes on");
}

#[tokio::test]
async fn a_logout_request_says_what_the_operator_adds() {
    let stage = Stage::with("[provider]\nlogout_params = { ui_locales = \"en de\", logout_hint = \"x\" }");
    let reply = stage.signed_in_browser().await.get(&stage.url("/auth/logout")).await;
    assert_eq!(query(&reply, "ui_locales").as_deref(), Some("en de"));
    assert_eq!(query(&reply, "logout_hint").as_deref(), Some("x"));
}

#[tokio::test]
async fn without_an_end_session_endpoint_the_sign_out_is_local() {
    let stage = Stage::builder().start();
    stage.provider.set_metadata("end_session_endpoint", serde_json::Value::Null);
    let stage = stage.restart();
    let browser = stage.signed_in_browser().await;
    let reply = browser.get(&stage.url("/auth/logout")).await;
    assert_eq!((reply.status, reply.location().path()), (StatusCode::SEE_OTHER, "/auth/signed-out"));
    assert_signed_out(&stage, &browser).await;
}

#[tokio::test]
async fn a_return_address_survives_the_way_through_the_provider() {
    let stage = Stage::with("[provider]\npost_logout_redirect_uri = \"http://localhost:{port}/auth/signed-out\"");
    let browser = stage.signed_in_browser().await;
    let reply = browser.get(&stage.url("/auth/logout?rd=/bye%3Fx%3D1")).await;
    let back = browser.step(&browser.step(&reply).await).await;
    assert_eq!(back.location().as_str(), stage.url("/bye?x=1"));
    let forged = browser.get(&stage.url("/auth/signed-out?state=AAAA")).await;
    assert_eq!(forged.status, StatusCode::OK);
}

/// RP-Initiated Logout §2: what went out comes back, and only then is it the end of that sign-out.
#[tokio::test]
async fn the_state_of_a_sign_out_goes_with_it_and_counts_in_the_browser_that_began_it() {
    let stage = Stage::with("[provider]\npost_logout_redirect_uri = \"http://localhost:{port}/auth/signed-out\"");
    let (ada, bob) = (stage.signed_in_browser().await, stage.signed_in_browser().await);
    let plain = ada.get(&stage.url("/auth/logout")).await;
    let state = query(&plain, "state").expect("state also where nobody said where to go");
    assert_eq!(ada.step(&plain).await.location().query_pairs().find(|(name, _)| name == "state").unwrap().1, state);
    let end = ada.follow_reply(plain, 5).await;
    assert_eq!((end.status, end.url.path()), (StatusCode::OK, "/auth/signed-out"));

    let carol = stage.signed_in_browser().await;
    let first = carol.get(&stage.url("/auth/logout?rd=/bye")).await;
    assert_ne!(query(&first, "state"), Some(state));
    let landing = carol.step(&first).await.location();
    // The link in another browser leads nowhere, and says nothing that is not so.
    let page = bob.get(landing.as_str()).await;
    assert_eq!(page.status, StatusCode::OK);
    assert!(page.text().contains("still signed in"), "{}", page.text());
    assert!(!page.text().contains("have been signed out"), "{}", page.text());
    assert_signed_in(&stage, &bob).await;
    let back = carol.get(landing.as_str()).await;
    assert_eq!(back.location().path(), "/bye");
    let again = carol.get(landing.as_str()).await;
    assert_eq!(again.status, StatusCode::OK, "once: {:?}", again.headers);
}

#[tokio::test]
async fn a_logout_request_speaks_the_languages_of_the_sign_in() {
    let stage = Stage::with("[provider]\nui_locales = [\"de\", \"en\"]");
    let reply = stage.signed_in_browser().await.get(&stage.url("/auth/logout")).await;
    assert_eq!(query(&reply, "ui_locales").as_deref(), Some("de en"));
}

#[tokio::test]
async fn a_return_address_elsewhere_is_refused_and_nothing_ends() {
    let stage = Stage::start();
    let browser = stage.signed_in_browser().await;
    for evil in ["https://evil.example/", "//evil.example", "/%5Cevil.example", "javascript:alert(1)", "/auth/login"] {
        let reply = browser.get(&stage.url(&format!("/auth/logout?rd={evil}"))).await;
        assert_eq!(reply.status, StatusCode::BAD_REQUEST, "{evil}");
    }
    assert_signed_in(&stage, &browser).await;
}

#[tokio::test]
async fn a_link_on_another_site_only_asks() {
    let stage = Stage::start();
    let browser = stage.signed_in_browser().await;
    let page = browser.click("https://evil.example/", &stage.url("/auth/logout")).await;
    assert_eq!(page.status, StatusCode::OK);
    assert!(page.text().contains("<form") && page.text().contains("method=\"post\""), "{}", page.text());
    let csp = page.header("content-security-policy").unwrap();
    assert!(csp.contains("form-action") && csp.contains(&stage.provider.issuer()), "{csp}");
    assert_signed_in(&stage, &browser).await;
    let bare = browser.send(Request::new(Method::GET, &stage.url("/auth/logout")).header("accept", "text/html")).await;
    assert_eq!(bare.status, StatusCode::OK);
    assert_signed_in(&stage, &browser).await;
    let reply = browser.submit(&stage.url("/auth/logout"), &stage.url("/auth/logout"), &[]).await;
    assert_eq!(reply.status, StatusCode::SEE_OTHER);
    assert_signed_out(&stage, &browser).await;
}

#[tokio::test]
async fn a_form_of_another_site_signs_nobody_out() {
    let stage = Stage::start();
    let browser = stage.signed_in_browser().await;
    let copy = browser.stolen_copy();
    let post = |origin: &str| Request::navigation(Method::POST, &stage.url("/auth/logout")).header("origin", origin);
    let foreign = [
        post("https://evil.example"),
        post("null"),
        post(&stage.origin()).append_header("origin", "https://evil.example"),
        post("x").without_header("origin").header("sec-fetch-site", "cross-site"),
        post("x").without_header("origin").without_header("sec-fetch-site"),
    ];
    for request in foreign {
        let reply = browser.send(request.clone()).await;
        assert_eq!(reply.status, StatusCode::FORBIDDEN, "{request:?}");
    }
    assert_signed_in(&stage, &copy).await;
}

#[tokio::test]
async fn a_late_answer_never_revives_an_ended_session() {
    let stage = Stage::start();
    let browser = stage.signed_in_browser().await;
    stage.clock.advance(Duration::from_secs(600));
    let slow = tokio::spawn({
        let (browser, url) = (browser.tab(), stage.url("/slow?ms=400"));
        async move { browser.get(&url).await }
    });
    while stage.upstream.count() == 0 {
        tokio::task::yield_now().await;
    }
    browser.get(&stage.url("/auth/logout")).await;
    let late = slow.await.unwrap();
    assert_eq!((late.status, late.set_cookies()), (StatusCode::OK, vec![]));
    assert!(browser.cookie(&stage.origin(), "vestibule.idle").is_none());
}

#[tokio::test]
async fn an_id_token_too_big_for_a_url_gives_way_to_the_client_id() {
    let stage = Stage::start();
    stage.provider.set_claim("about", "lorem ipsum dolor sit amet ".repeat(300).into());
    let browser = stage.signed_in_browser().await;
    let reply = browser.get(&stage.url("/auth/logout")).await;
    assert_eq!(query(&reply, "id_token_hint"), None);
    assert_eq!(query(&reply, "client_id").as_deref(), Some(stage.provider.client_id()));
}

#[tokio::test]
async fn a_claim_says_at_the_provider_who_signs_out() {
    let stage = Stage::with("[provider]\nlogout_hint_claim = \"login_hint\"");
    let without = stage.browser().get(&stage.url("/auth/logout")).await;
    assert_eq!(query(&without, "logout_hint"), None, "nobody is signed in");
    stage.provider.set_claim("login_hint", "O.abc/d".into());
    for about in [1, 300] {
        stage.provider.set_claim("about", "lorem ipsum dolor sit amet ".repeat(about).into());
        let reply = stage.signed_in_browser().await.get(&stage.url("/auth/logout")).await;
        assert_eq!(query(&reply, "logout_hint").as_deref(), Some("O.abc/d"));
        assert_eq!(query(&reply, "id_token_hint").is_some(), about == 1);
    }
    stage.provider.set_claim("login_hint", 7.into());
    let reply = stage.signed_in_browser().await.get(&stage.url("/auth/logout")).await;
    assert_eq!(query(&reply, "logout_hint"), None, "a number is no text");
}

/// What has been revoked once `count` tokens were, or after a second.
async fn revoked(stage: &Stage, count: usize) -> Vec<String> {
    for _ in 0..100 {
        if stage.provider.revoked_tokens().len() >= count {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    stage.provider.revoked_tokens()
}

#[tokio::test]
async fn a_sign_out_revokes_the_sessions_tokens_the_refresh_token_first() {
    for method in ["client_secret_basic", "client_secret_post"] {
        let stage = Stage::start();
        stage.provider.set_metadata("token_endpoint_auth_methods_supported", json!([method]));
        let stage = stage.restart();
        let (ada, bob) = (stage.signed_in_browser().await, stage.signed_in_browser().await);
        let [access, refresh, ..] = &stage.provider.issued_tokens()[..] else { panic!("tokens of both") };
        assert_eq!(ada.get(&stage.url("/auth/logout")).await.status, StatusCode::SEE_OTHER);
        assert_eq!(revoked(&stage, 2).await, [refresh.clone(), access.clone()], "{method}");
        let hints = stage.provider.requests_of(Endpoint::Revocation).into_iter().flat_map(|request| request.form());
        let hints: Vec<_> = hints.filter(|(name, _)| name == "token_type_hint").map(|(_, hint)| hint).collect();
        assert_eq!(hints, ["refresh_token", "access_token"]);
        assert_signed_in(&stage, &bob).await;
        // Nobody is signed in any more.
        ada.get(&stage.url("/auth/logout")).await;
        assert_eq!(revoked(&stage, 3).await.len(), 2);
    }
}

#[tokio::test]
async fn a_sign_out_waits_for_no_revocation_and_fails_with_none() {
    let stage = Stage::start();
    let (ada, bob) = (stage.signed_in_browser().await, stage.signed_in_browser().await);
    stage.provider.slow_down(Endpoint::Revocation, Duration::from_secs(5));
    let begun = std::time::Instant::now();
    assert_eq!(ada.get(&stage.url("/auth/logout")).await.status, StatusCode::SEE_OTHER);
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    stage.provider.take_down();
    assert_eq!(bob.get(&stage.url("/auth/logout")).await.status, StatusCode::SEE_OTHER);
    assert_signed_out(&stage, &ada).await;
    assert_signed_out(&stage, &bob).await;
}

#[tokio::test]
async fn a_revocation_endpoint_that_hangs_keeps_nobody_from_signing_in() {
    let stage = Stage::with("[provider]\nmax_token_calls = 4\ntoken_queue_timeout = \"1s\"");
    let mut people = Vec::new();
    for _ in 0..6 {
        people.push(stage.signed_in_browser().await);
    }
    stage.provider.slow_down(Endpoint::Revocation, Duration::from_secs(5));
    for person in &people {
        assert_eq!(person.get(&stage.url("/auth/logout")).await.status, StatusCode::SEE_OTHER);
    }
    while stage.provider.count(Endpoint::Revocation) == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    for person in &people {
        assert_eq!(stage.sign_in(person, "/").await.status, StatusCode::OK);
    }
    assert_eq!(stage.provider.count(Endpoint::Revocation), 1);
}

#[tokio::test]
async fn revocation_can_be_switched_off_and_is_not_for_what_the_provider_ended() {
    let off = Stage::with("[provider]\nrevoke_at_sign_out = false");
    off.signed_in_browser().await.get(&off.url("/auth/logout")).await;
    let stage = Stage::start();
    stage.provider.set_claim("sid", json!("s1"));
    let ada = stage.signed_in_browser().await;
    let token = stage.provider.logout_token(&json!({ "sid": "s1" }));
    let told = Request::new(Method::POST, &stage.url("/auth/backchannel-logout")).form(&[("logout_token", &token)]);
    assert_eq!(stage.browser().send(told).await.status, StatusCode::OK);
    ada.get(&stage.url("/auth/logout")).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(off.provider.count(Endpoint::Revocation) + stage.provider.count(Endpoint::Revocation), 0);
}
