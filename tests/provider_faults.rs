//! A provider that is away, slow or talks nonsense: the process starts, public routes work, sessions go on, people are told.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use http::{Method, StatusCode};
use vestibule_test_support::{
    DiscoveryFault, Endpoint, FakeProvider, IdTokenFault, JwksFault, Reply, Request, Stage, TestClock, TokenFault, json,
};

const PUBLIC: &str = "[[routes]]\npath = \"/public/*\"\naccess = \"public\"\n";

#[tokio::test]
async fn a_provider_that_is_down_at_the_start_is_waited_for() {
    let clock = TestClock::new();
    let provider = Arc::new(FakeProvider::start_down(clock.clone()));
    let stage = stage_of(provider, clock);
    assert_provider_unavailable(&stage, "down").await;
    stage.provider.bring_back();
    stage.wait_for_provider().await;
    assert_signs_in(&stage, "down").await;
}

#[tokio::test]
async fn whoever_comes_first_when_the_provider_is_back_need_not_come_again() {
    let clock = TestClock::new();
    let provider = Arc::new(FakeProvider::start_down(clock.clone()));
    let stage = stage_of(provider, clock);
    // Several tries, so that the next one would be seconds away.
    tokio::time::sleep(Duration::from_millis(3500)).await;
    stage.provider.bring_back();
    assert_signs_in(&stage, "back").await;
}

#[tokio::test]
async fn however_many_ask_for_a_provider_that_fails_it_is_asked_once_a_second() {
    let stage = faulty_stage(|provider| provider.faults(|faults| faults.discovery = Some(DiscoveryFault::ServerError)));
    let end = Instant::now() + Duration::from_secs(4);
    while Instant::now() < end {
        let browser = stage.browser();
        let address = stage.url("/guarded");
        for reply in join_all((0..10).map(|_| browser.get(&address))).await {
            assert_eq!(reply.status, StatusCode::SERVICE_UNAVAILABLE, "{}", reply.text());
        }
    }
    let asked = stage.provider.count(Endpoint::Discovery);
    assert!((3..=7).contains(&asked), "asked {asked} times");
    stage.upstream.assert_untouched();
    stage.provider.heal();
    assert_signs_in(&stage, "back").await;
}

#[tokio::test]
async fn a_discovery_document_that_cannot_be_used_is_as_good_as_none() {
    for fault in [
        DiscoveryFault::OtherIssuer,
        DiscoveryFault::IssuerWithSlash,
        DiscoveryFault::Html,
        DiscoveryFault::FiveMegabytes,
        DiscoveryFault::JsonArray,
        DiscoveryFault::NoTokenEndpoint,
        DiscoveryFault::ServerError,
        DiscoveryFault::NotFound,
    ] {
        let stage = faulty_stage(|provider| provider.faults(|faults| faults.discovery = Some(fault)));
        assert_provider_unavailable(&stage, &format!("{fault:?}")).await;
        stage.provider.heal();
        stage.wait_for_provider().await;
        assert_signs_in(&stage, &format!("{fault:?}")).await;
    }
}

#[tokio::test]
async fn a_key_set_that_cannot_be_used_is_as_good_as_none() {
    for fault in [JwksFault::Html, JwksFault::ServerError, JwksFault::FiveMegabytes] {
        let stage = faulty_stage(|provider| provider.faults(|faults| faults.jwks = Some(fault)));
        assert_provider_unavailable(&stage, &format!("{fault:?}")).await;
        stage.provider.heal();
        stage.wait_for_provider().await;
        assert_signs_in(&stage, &format!("{fault:?}")).await;
    }
}

#[tokio::test]
async fn discovery_that_redirects_is_not_followed() {
    let stage = faulty_stage(|provider| provider.faults(|faults| faults.redirect = vec![Endpoint::Discovery]));
    assert_provider_unavailable(&stage, "redirect").await;
    let followed = stage.provider.requests().iter().any(|request| request.target.ends_with("/redirected"));
    assert!(!followed, "the redirect was followed");
}

#[tokio::test]
async fn a_slow_provider_holds_nobody_up() {
    let stage = faulty_stage(|provider| provider.slow_down(Endpoint::Discovery, Duration::from_secs(60)));
    let started = Instant::now();
    assert_provider_unavailable(&stage, "slow").await;
    assert!(started.elapsed() < Duration::from_secs(3), "took {:?}", started.elapsed());
}

#[tokio::test]
async fn sessions_outlive_their_provider() {
    let stage = Stage::start();
    let browser = stage.signed_in_browser().await;
    stage.provider.take_down();
    stage.clock.advance(Duration::from_secs(30 * 60));
    let page = browser.get(&stage.url("/still-here")).await;
    assert_eq!(page.status, StatusCode::OK, "{}", page.text());
}

#[tokio::test]
async fn a_token_endpoint_that_fails_signs_nobody_in_and_everybody_later() {
    for fault in [
        TokenFault::InvalidGrant,
        TokenFault::InvalidClient,
        TokenFault::ServerError,
        TokenFault::Html,
        TokenFault::UnknownTokenType,
        TokenFault::FiveMegabytes,
    ] {
        let stage = Stage::start();
        stage.provider.faults(|faults| faults.token = Some(fault));
        let browser = stage.browser();
        let page = browser.follow(&stage.url("/asked"), 12).await;
        assert_failed_page(&stage, &page, &format!("{fault:?}"));
        assert!(stage.provider.count(Endpoint::Authorize) <= 3, "{fault:?}");
        assert!(!page.text().contains("said by the fake provider"), "{fault:?}: the provider's words are shown");
        stage.provider.heal();
        assert_eq!(stage.sign_in(&browser, "/asked").await.status, StatusCode::OK, "{fault:?}");
    }
}

#[tokio::test]
async fn a_token_endpoint_that_redirects_gets_the_client_secret_once() {
    let stage = Stage::start();
    stage.provider.faults(|faults| faults.redirect = vec![Endpoint::Token]);
    let page = stage.browser().follow(&stage.url("/asked"), 12).await;
    assert_failed_page(&stage, &page, "redirect");
    let followed = stage.provider.requests().iter().any(|request| request.target.ends_with("/redirected"));
    assert!(!followed, "the redirect was followed");
}

#[tokio::test]
async fn a_token_endpoint_that_takes_its_time_is_waited_for() {
    // Ten seconds happen in the wild.
    assert!(vestibule::provider_http::Settings::default().timeout >= Duration::from_secs(12));
    let stage = Stage::with("[provider]\ntimeout = \"3s\"");
    stage.provider.slow_down(Endpoint::Token, Duration::from_secs(2));
    let page = stage.sign_in(&stage.browser(), "/asked").await;
    assert_eq!(page.status, StatusCode::OK, "{}", page.text());
}

#[tokio::test]
async fn a_provider_that_never_answers_holds_no_signed_in_request_up() {
    let stage = Stage::with("[provider]\nrefresh_interval = \"1s\"");
    let browser = stage.signed_in_browser().await;
    for endpoint in [Endpoint::Discovery, Endpoint::Jwks, Endpoint::Token, Endpoint::Userinfo] {
        stage.provider.slow_down(endpoint, Duration::from_secs(60));
    }
    let asked = stage.provider.count(Endpoint::Discovery);
    let end = Instant::now() + Duration::from_secs(10);
    while stage.provider.count(Endpoint::Discovery) == asked {
        assert!(Instant::now() < end, "the provider is never asked again");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // Somebody else's sign-in hangs meanwhile.
    let other = stage.browser();
    let at_provider = other.step(&other.get(&stage.url("/")).await).await;
    let hanging = tokio::spawn(async move { other.step(&at_provider).await });
    stage.clock.advance(Duration::from_secs(30 * 60));
    for _ in 0..20 {
        let started = Instant::now();
        assert_eq!(browser.get(&stage.url("/")).await.status, StatusCode::OK);
        assert!(started.elapsed() < Duration::from_millis(500), "{:?}", started.elapsed());
    }
    hanging.abort();
}

#[tokio::test]
async fn keys_that_rotate_while_the_key_set_is_away_fail_clearly_and_work_once_it_is_back() {
    let stage = Stage::start();
    let old = stage.signed_in_browser().await;
    stage.provider.rotate_keys();
    stage.provider.faults(|faults| faults.jwks = Some(JwksFault::ServerError));
    let browser = stage.browser();
    let page = stage.sign_in(&browser, "/asked").await;
    assert_failed_page(&stage, &page, "no keys");
    assert_eq!(old.get(&stage.url("/")).await.status, StatusCode::OK, "a session needs no keys");
    stage.provider.heal();
    let page = stage.sign_in(&browser, "/asked").await;
    assert_eq!(page.status, StatusCode::OK, "{}", page.text());
}

/// Those who come while the keys are fetched share the next fetch.
#[tokio::test]
async fn fifty_sign_ins_with_unknown_keys_at_once_cause_a_few_fetches() {
    let stage = Stage::start();
    stage.provider.faults(|faults| faults.id_token = Some(IdTokenFault::UnknownKeyId));
    stage.provider.slow_down(Endpoint::Jwks, Duration::from_secs(1));
    let before = stage.provider.count(Endpoint::Jwks);
    join_all((0..50).map(|_| {
        let (stage, browser) = (&stage, stage.browser());
        async move { assert_failed_page(stage, &stage.sign_in(&browser, "/").await, "an unknown key") }
    }))
    .await;
    let fetches = stage.provider.count(Endpoint::Jwks) - before;
    // One for each second that they take to come, and one more.
    assert!((1..=10).contains(&fetches), "{fetches}");
}

#[tokio::test]
async fn token_calls_over_the_cap_wait_for_a_bounded_time_and_are_told_when_to_come_back() {
    let stage = Stage::with("[provider]\nmax_token_calls = 1\ntoken_queue_timeout = \"300ms\"");
    stage.provider.slow_down(Endpoint::Token, Duration::from_secs(2));
    let callbacks = join_all((0..3).map(|_| {
        let (stage, browser) = (&stage, stage.browser());
        async move {
            let at_provider = browser.step(&browser.get(&stage.url("/")).await).await;
            browser.step(&at_provider).await
        }
    }))
    .await;
    let (arrived, refused): (Vec<_>, Vec<_>) =
        callbacks.iter().partition(|reply| reply.status == StatusCode::SEE_OTHER);
    assert_eq!((arrived.len(), refused.len()), (1, 2), "{callbacks:#?}");
    for reply in refused {
        assert_eq!(reply.status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(reply.header("retry-after").is_some_and(|seconds| seconds.parse::<u32>().is_ok()), "{reply:#?}");
    }
}

#[tokio::test]
async fn a_slow_token_endpoint_ends_in_time_on_a_page() {
    let stage = Stage::with("[provider]\ntimeout = \"1s\"");
    stage.provider.slow_down(Endpoint::Token, Duration::from_secs(60));
    let started = Instant::now();
    let page = stage.browser().follow(&stage.url("/asked"), 12).await;
    assert_failed_page(&stage, &page, "slow");
    assert!(started.elapsed() < Duration::from_secs(10), "took {:?}", started.elapsed());
}

#[tokio::test]
async fn a_provider_that_goes_down_before_the_callback_costs_one_more_try() {
    let stage = Stage::start();
    let browser = stage.browser();
    let challenge = browser.get(&stage.url("/asked")).await;
    let at_provider = browser.step(&challenge).await;
    stage.provider.take_down();
    let page = browser.step(&at_provider).await;
    assert_failed_page(&stage, &page, "down at the callback");
    stage.provider.bring_back();
    let page = stage.sign_in(&browser, "/asked").await;
    assert_eq!(page.status, StatusCode::OK, "{}", page.text());
}

#[tokio::test]
async fn what_ends_a_session_needs_no_provider_that_answers() {
    let stage = Stage::start();
    let named = |sub: &str| stage.provider.set_user(json!({ "sub": sub, "sid": format!("{sub}-1") }));
    let mut people = Vec::new();
    for sub in ["ada", "bob", "carol", "dora", "eve"] {
        named(sub);
        people.push(stage.signed_in_browser().await);
    }
    let told = |sub: &str| stage.provider.logout_token(&json!({ "sub": sub }));
    let tell = async |token: &str| {
        let request = Request::new(Method::POST, &stage.url("/auth/backchannel-logout"));
        let reply = stage.browser().send(request.form(&[("logout_token", token)])).await;
        assert_eq!(reply.status, StatusCode::OK, "{}", reply.text());
    };
    let begun = Instant::now();
    for endpoint in [Endpoint::Discovery, Endpoint::Jwks, Endpoint::Token, Endpoint::Revocation] {
        stage.provider.slow_down(endpoint, Duration::from_secs(60));
    }
    tell(&told("ada")).await;
    assert!(people[1].get(&stage.url("/auth/logout")).await.status.is_redirection());
    // It told somebody a moment before it went.
    let last = told("carol");
    stage.provider.take_down();
    tell(&last).await;
    assert!(people[3].get(&stage.url("/auth/logout")).await.status.is_redirection());
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    stage.provider.bring_back();
    stage.provider.heal();
    for gone in &people[..4] {
        stage.assert_signed_out(gone).await;
    }
    stage.assert_signed_in(&people[4]).await;
}

fn faulty_stage(spoil: impl FnOnce(&FakeProvider)) -> Stage {
    let clock = TestClock::new();
    let provider = Arc::new(FakeProvider::start(clock.clone()));
    spoil(&provider);
    stage_of(provider, clock)
}

fn stage_of(provider: Arc<FakeProvider>, clock: TestClock) -> Stage {
    Stage::builder().clock(clock).provider(provider).toml(PUBLIC).without_provider().start()
}

/// Ready but without a provider: public routes are served, guarded ones say what is wrong and start nothing.
async fn assert_provider_unavailable(stage: &Stage, why: &str) {
    let browser = stage.browser();
    // The first try must have been made, or the fault would not have been met yet.
    stage.wait_for_readiness("a ready proxy", |reply| reply.status == 200).await;
    tokio::time::sleep(Duration::from_millis(150)).await;
    let ready = browser.fetch(&stage.admin_url("/readyz")).await;
    assert_eq!((ready.status, &ready.json()["provider"]), (StatusCode::OK, &"unavailable".into()), "{why}");
    let public = browser.get(&stage.url("/public/page")).await;
    assert_eq!(public.status, StatusCode::OK, "{why}");
    stage.upstream.forget();
    let guarded = browser.get(&stage.url("/guarded?a=1&b=%2F")).await;
    assert_eq!(guarded.status, StatusCode::SERVICE_UNAVAILABLE, "{why}: {}", guarded.text());
    assert_eq!(guarded.links(), [(stage.url("/guarded?a=1&b=%2F"), "Try again".to_owned())], "{why}");
    assert!(guarded.header("content-type").is_some_and(|value| value.starts_with("text/html")), "{why}");
    let script = browser.fetch(&stage.url("/guarded")).await;
    assert!(matches!(script.status, StatusCode::UNAUTHORIZED | StatusCode::SERVICE_UNAVAILABLE), "{why}");
    stage.upstream.assert_untouched();
    assert_eq!(stage.provider.count(Endpoint::Authorize), 0, "{why}");
}

async fn assert_signs_in(stage: &Stage, why: &str) {
    let page = stage.sign_in(&stage.browser(), "/guarded").await;
    assert_eq!(page.status, StatusCode::OK, "{why}: {}", page.text());
}

#[track_caller]
fn assert_failed_page(stage: &Stage, page: &Reply, why: &str) {
    assert!(page.status.is_client_error() || page.status.is_server_error(), "{why}: {}", page.status);
    assert_eq!(page.url.origin().ascii_serialization(), stage.origin(), "{why}");
    assert!(page.header("content-type").is_some_and(|value| value.starts_with("text/html")), "{why}");
    stage.upstream.assert_untouched();
}
