//! A sign-in lasts as long as the seal says, belongs to one application, and is nobody else's.

use std::time::Duration;

use http::{Method, StatusCode};
use serde_json::json;
use vestibule_test_support::{Browser, FakeProvider, Request, Stage, StoredCookie};

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3_600);

fn altered(cookie: &StoredCookie, value: String) -> StoredCookie {
    StoredCookie { value, ..cookie.clone() }
}

#[tokio::test]
async fn over_plain_http_on_loopback_cookies_are_http_only_and_lax_but_not_secure() {
    let stage = Stage::start();
    let browser = stage.signed_in_browser().await;
    let session = browser.cookie(&stage.origin(), "vestibule").expect("a session cookie");
    assert!(session.http_only && !session.secure && session.same_site == "lax" && session.path == "/");
    assert!(session.host_only);
    assert!(stage.warnings().iter().any(|warning| warning.contains("redirect_uri")), "{:?}", stage.warnings());
}

#[tokio::test]
async fn behind_https_cookies_are_secure_and_bound_to_the_host() {
    let stage = Stage::with("[provider]\nredirect_uri = \"https://app.example.com/auth/callback\"");
    let browser = stage.browser();
    browser.connect("https://app.example.com", stage.address());
    stage.wait_for_provider().await;
    let reply = browser.follow("https://app.example.com/", 10).await;
    assert_eq!(reply.status, StatusCode::OK, "{}", reply.text());
    let session = browser.cookie("https://app.example.com/", "__Host-vestibule").expect("a session cookie");
    assert!(session.secure && session.http_only && session.host_only && session.path == "/");
    assert_eq!(browser.rejected_cookies(), Vec::<String>::new());
    assert!(browser.all_cookies().iter().all(|cookie| cookie.name.starts_with("__Host-")));
}

#[tokio::test]
async fn the_lifetime_is_enforced_from_inside_the_seal() {
    // The provider's keys, which are too old after as long a time, have no say in it.
    let stage = Stage::with("[session]\nidle = \"24h\"\n[provider]\nstale_keys = \"48h\"");
    let browser = stage.signed_in_browser().await;
    let copy = browser.stolen_copy();
    stage.clock.advance(24 * HOUR - MINUTE);
    assert_eq!(copy.get(&stage.url("/")).await.status, StatusCode::OK);
    stage.clock.advance(MINUTE);
    // A copy that forgets the cookies' own end.
    for cookie in browser.stolen_copy().all_cookies() {
        copy.plant(StoredCookie { expires: None, ..cookie });
    }
    stage.assert_signed_out(&copy).await;
}

#[tokio::test]
async fn a_session_in_use_outlives_the_idle_time_and_one_that_is_not_does_not() {
    let stage = Stage::start();
    let browser = stage.signed_in_browser().await;
    for _ in 0..6 {
        stage.clock.advance(50 * MINUTE);
        assert_eq!(browser.get(&stage.url("/")).await.status, StatusCode::OK);
    }
    stage.clock.advance(HOUR);
    stage.assert_signed_out(&browser).await;
}

#[tokio::test]
async fn the_idle_cookie_is_renewed_at_most_every_tenth_of_the_idle_time_and_is_small() {
    let stage = Stage::with("[session]\nrenew = false");
    let browser = stage.signed_in_browser().await;
    stage.clock.advance(5 * MINUTE);
    let early = browser.get(&stage.url("/respond?header=cache-control:public")).await;
    assert_eq!(early.set_cookies(), Vec::<String>::new());
    assert_eq!(early.header("cache-control"), Some("public"));
    stage.clock.advance(MINUTE);
    let due = browser.get(&stage.url("/respond?header=cache-control:public")).await;
    let [cookie] = &due.set_cookies()[..] else { panic!("{:?}", due.set_cookies()) };
    assert!(cookie.starts_with("vestibule.idle=") && cookie.len() < 250, "{cookie}");
    assert_eq!(due.header("cache-control"), Some("private, no-store"));
    assert_eq!(browser.get(&stage.url("/")).await.set_cookies(), Vec::<String>::new());
}

#[tokio::test]
async fn a_renewed_session_survives_a_failing_upstream() {
    let stage = Stage::with("[session]\nrenew = false");
    let browser = stage.signed_in_browser().await;
    stage.clock.advance(30 * MINUTE);
    stage.upstream.take_down();
    let reply = browser.get(&stage.url("/")).await;
    assert_eq!(reply.status, StatusCode::BAD_GATEWAY);
    assert_eq!(reply.set_cookies().len(), 1);
    stage.upstream.bring_back();
    stage.clock.advance(45 * MINUTE);
    assert_eq!(browser.get(&stage.url("/")).await.status, StatusCode::OK);
}

#[tokio::test]
async fn without_its_idle_cookie_or_with_another_sessions_a_session_is_over() {
    let stage = Stage::start();
    let (ada, grace) = (stage.signed_in_browser().await, stage.signed_in_browser().await);
    let other = grace.cookie(&stage.origin(), "vestibule.idle").unwrap();
    let own = ada.cookie(&stage.origin(), "vestibule.idle").unwrap();
    ada.plant(altered(&own, other.value));
    stage.assert_signed_out(&ada).await;
    ada.forget(|cookie| cookie.name == "vestibule.idle");
    stage.assert_signed_out(&ada).await;
}

#[tokio::test]
async fn one_cookie_never_stands_for_another() {
    let stage = Stage::start();
    let browser = stage.signed_in_browser().await;
    let session = browser.cookie(&stage.origin(), "vestibule").unwrap();
    let idle = browser.cookie(&stage.origin(), "vestibule.idle").unwrap();
    for (cookie, value) in [(&session, idle.value.clone()), (&idle, session.value.clone())] {
        let copy = browser.stolen_copy();
        copy.plant(altered(cookie, value));
        stage.assert_signed_out(&copy).await;
    }
}

#[tokio::test]
async fn cookie_garbage_is_a_new_sign_in_and_nothing_worse() {
    let stage = Stage::start();
    let browser = stage.signed_in_browser().await;
    let session = browser.cookie(&stage.origin(), "vestibule").unwrap();
    let mut flipped = session.value.clone().into_bytes();
    flipped[100] ^= 1;
    let huge = "A".repeat(3_000);
    let garbage =
        ["", "x", "99~x", "4~A", "~", "AQ", &huge, &session.value[..200], std::str::from_utf8(&flipped).unwrap()];
    for value in garbage {
        let copy = browser.stolen_copy();
        copy.plant(altered(&session, value.to_owned()));
        stage.assert_signed_out(&copy).await;
    }
    let reply = stage.sign_in(&browser, "/after").await;
    assert_eq!((reply.status, reply.json()["target"].clone()), (StatusCode::OK, json!("/after")));
}

#[tokio::test]
async fn a_cookie_of_ours_that_comes_twice_is_a_challenge_and_never_first_or_last_wins() {
    let stage = Stage::start();
    let browser = stage.signed_in_browser().await;
    for name in ["vestibule", "vestibule.idle"] {
        let value = browser.cookie(&stage.origin(), name).unwrap().value;
        for twin in [format!("{name}={value}"), format!("{name}=x")] {
            stage.upstream.forget();
            let request = Request::navigation(Method::GET, &stage.url("/")).header("cookie", &twin);
            let reply = browser.stolen_copy().send(request).await;
            assert!(stage.asks_to_sign_in(&reply), "{twin}: {}", reply.status);
            stage.upstream.assert_untouched();
        }
    }
}

#[tokio::test]
async fn the_application_never_sees_our_cookies_and_cannot_set_them() {
    let stage = Stage::start();
    let browser = stage.signed_in_browser().await;
    let request = Request::navigation(Method::GET, &stage.url("/")).header("cookie", "theme=dark; vestibulum=1");
    let reply = browser.send(request).await;
    assert_eq!(reply.echoed("cookie").as_deref(), Some("theme=dark; vestibulum=1"));
    let alone = browser.get(&stage.url("/")).await;
    assert_eq!(alone.echoed("cookie"), None);
    for name in ["vestibule", "vestibule.idle", "vestibule.login", "vestibule.anything"] {
        let reply = browser.get(&stage.url(&format!("/set-cookie?name={name}&value=evil"))).await;
        assert_eq!((reply.status, reply.set_cookies()), (StatusCode::OK, vec![]), "{name}");
    }
    let reply = browser.get(&stage.url("/set-cookie?name=theme&value=light")).await;
    assert_eq!(reply.set_cookies(), ["theme=light; Path=/"]);
}

#[tokio::test]
async fn every_sign_in_makes_a_new_session() {
    let stage = Stage::start();
    let browser = stage.signed_in_browser().await;
    let first = browser.stolen_copy();
    let before = browser.cookie(&stage.origin(), "vestibule").unwrap().value;
    let reply = browser.follow(&stage.url("/auth/login?rd=/again"), 10).await;
    assert_eq!(reply.json()["target"], "/again");
    assert_ne!(browser.cookie(&stage.origin(), "vestibule").unwrap().value, before);
    // The idle cookie of one does not keep the other alive.
    first.plant(browser.cookie(&stage.origin(), "vestibule.idle").unwrap());
    stage.assert_signed_out(&first).await;
}

#[tokio::test]
async fn two_applications_that_share_a_secret_do_not_share_sessions() {
    let stage = Stage::start();
    let browser = stage.signed_in_browser().await;
    let clock = stage.clock.clone();
    let other = Stage::builder()
        .clock(clock.clone())
        .provider(std::sync::Arc::new(FakeProvider::start(clock)))
        .public_port(stage.address().port())
        .start();
    other.wait_for_provider().await;
    browser.connect(&stage.origin(), other.address());
    let reply = browser.get(&stage.url("/")).await;
    assert!(other.asks_to_sign_in(&reply), "{}", reply.status);
    other.upstream.assert_untouched();
}

#[tokio::test]
async fn a_rotated_secret_signs_nobody_out_and_a_retired_one_does() {
    const OLD: &str = "kW3v9_Tq-Zr7Lm2Xc5Bn8Jh4Gf6Ds1Ap0YtUeRiOoPQ";
    const NEW: &str = "Hn5c_Vb8-Kx2Jz7Qw4Er9Ty1Ui6Op3As0DfGgHhJkLM";
    let secrets = |list: &[&str]| format!("[session]\nsecret = unset\nsecrets = {list:?}");
    let first = Stage::with(&secrets(&[OLD]));
    let browser = first.signed_in_browser().await;
    let again = |list: &[&str]| {
        Stage::builder()
            .toml(&secrets(list))
            .clock(first.clock.clone())
            .provider(first.provider.clone())
            .upstream(first.upstream.clone())
            .public_port(first.address().port())
            .start()
    };
    let rotated = again(&[NEW, OLD]);
    browser.connect(&first.origin(), rotated.address());
    assert_eq!(browser.get(&first.url("/")).await.status, StatusCode::OK);
    let retired = again(&[NEW]);
    retired.wait_for_provider().await;
    browser.connect(&first.origin(), retired.address());
    first.assert_signed_out(&browser).await;
    let reply = browser.follow(&first.url("/back"), 10).await;
    assert_eq!(reply.json()["target"], "/back");
}

#[tokio::test]
async fn a_browser_session_ends_with_the_browser() {
    let stage = Stage::with("[session]\nbrowser_session = true");
    let browser = stage.signed_in_browser().await;
    assert_eq!(browser.cookie(&stage.origin(), "vestibule").unwrap().expires, None);
    browser.close();
    stage.assert_signed_out(&browser).await;
}

#[tokio::test]
async fn a_large_session_is_split_and_a_smaller_one_deletes_the_stale_parts() {
    let stage = Stage::start();
    stage.provider.pad_tokens(3_000);
    let browser = stage.signed_in_browser().await;
    let parts = |browser: &Browser| {
        let cookies = browser.cookies(&stage.origin());
        let is_part = |name: &str| name == "vestibule" || name.trim_start_matches("vestibule.").parse::<u8>().is_ok();
        cookies.into_iter().filter(|cookie| is_part(&cookie.name)).count()
    };
    assert!(parts(&browser) >= 2, "{:?}", browser.all_cookies());
    assert_eq!(browser.get(&stage.url("/")).await.echoed("cookie"), None);
    let incomplete = browser.stolen_copy();
    incomplete.forget(|cookie| cookie.name == "vestibule.1");
    stage.assert_signed_out(&incomplete).await;
    stage.provider.pad_tokens(0);
    let reply = browser.follow(&stage.url("/auth/login"), 10).await;
    assert_eq!(reply.status, StatusCode::OK);
    assert_eq!(parts(&browser), 1);
}

#[tokio::test]
async fn a_session_that_cannot_fit_names_the_claim_that_is_too_big() {
    let stage = Stage::start();
    let noise = |seed: u64| {
        let mut state = seed | 1;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            char::from(b'a' + u8::try_from(state % 26).unwrap())
        };
        (0..40).map(|_| next()).collect::<String>()
    };
    stage.provider.set_claim("photo", json!((0..1_000).map(noise).collect::<Vec<_>>()));
    let browser = stage.browser();
    stage.wait_for_provider().await;
    let reply = stage.sign_in(&browser, "/").await;
    assert_eq!(reply.status, StatusCode::INTERNAL_SERVER_ERROR);
    assert!(reply.text().contains("photo"), "{}", reply.text());
    assert!(browser.cookie(&stage.origin(), "vestibule").is_none());
    stage.upstream.assert_untouched();
}

#[tokio::test]
async fn a_session_from_the_future_is_refused() {
    let stage = Stage::start();
    stage.clock.advance(Duration::from_secs(120));
    let browser = stage.signed_in_browser().await;
    stage.clock.rewind(Duration::from_secs(55));
    assert_eq!(browser.get(&stage.url("/")).await.status, StatusCode::OK);
    stage.clock.rewind(Duration::from_secs(10));
    stage.assert_signed_out(&browser).await;
}

#[tokio::test]
async fn a_session_the_browser_does_not_keep_ends_on_a_page_and_not_in_a_loop() {
    let stage = Stage::start();
    stage.wait_for_provider().await;
    let browser = stage.browser();
    for _ in 0..3 {
        let reply = browser.follow(&stage.url("/"), 10).await;
        assert_eq!(reply.status, StatusCode::OK);
        browser.forget(|cookie| cookie.name == "vestibule");
    }
    stage.upstream.forget();
    let reply = browser.follow(&stage.url("/"), 10).await;
    assert_eq!(reply.status, StatusCode::BAD_REQUEST);
    assert!(reply.text().contains("cookie") || reply.text().contains("Cookie"), "{}", reply.text());
    stage.upstream.assert_untouched();
    stage.clock.advance(MINUTE);
    assert_eq!(browser.follow(&stage.url("/"), 10).await.status, StatusCode::OK);
}
