//! A session is renewed once, ahead of time, whoever asks; and whatever the provider does, nobody is signed out at random.

use std::time::Duration;

use http::StatusCode;
use serde_json::{Value, json};
use vestibule_test_support::{
    AuthorizeFault, Browser, Endpoint, IdTokenFault, Reply, Stage, TokenFault, UserinfoFault, until,
};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
/// The fake provider's access tokens live five minutes.
const LIFE: Duration = Duration::from_secs(300);
const PASSES_TOKENS: &str = "[upstream]\naccess_token = \"bearer\"";
/// Renewal by the browser.
const SILENT: &str = "[identity]\nname_claim = \"preferred_username\"\n[session]\nrenew_every = \"10m\"";

/// A script's request: no navigation.
async fn fetch(stage: &Stage, browser: &Browser) -> Reply {
    browser.fetch(&stage.url("/")).await
}

/// Sends requests until the browser has another session cookie than `before`.
async fn until_renewed(stage: &Stage, browser: &Browser, before: &str) {
    let wait = async {
        while session_of(stage, browser) == before {
            assert_eq!(fetch(stage, browser).await.status, StatusCode::OK);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), wait).await.expect("the session is never renewed");
}

fn session_of(stage: &Stage, browser: &Browser) -> String {
    browser.cookie(&stage.origin(), "vestibule").expect("a session").value
}

/// What the application was given last.
fn seen(stage: &Stage, name: &str) -> String {
    stage.upstream.last().header(name).join(",")
}

fn token_seen(stage: &Stage) -> String {
    seen(stage, "authorization")
}

#[tokio::test]
async fn an_access_token_is_renewed_ahead_of_its_end_and_the_browser_gets_the_new_session() {
    let stage = Stage::with(PASSES_TOKENS);
    let browser = stage.signed_in_browser().await;
    assert_eq!(browser.get(&stage.url("/")).await.status, StatusCode::OK);
    let first = token_seen(&stage);
    stage.clock.advance(LIFE / 2);
    assert_eq!(browser.get(&stage.url("/")).await.set_cookies(), Vec::<String>::new());
    assert_eq!(stage.provider.refreshes(), 0, "not before it is time");
    let before = session_of(&stage, &browser);
    // Between the latest moment of renewal and the token's end.
    stage.clock.advance(LIFE / 2 - 20 * SECOND);
    assert_eq!(browser.get(&stage.url("/")).await.status, StatusCode::OK);
    assert_eq!(token_seen(&stage), first, "the request that began the renewal does not wait for it");
    // Its own answer may take the new session along already.
    until_renewed(&stage, &browser, &before).await;
    assert_eq!(fetch(&stage, &browser).await.status, StatusCode::OK);
    let second = token_seen(&stage);
    assert_ne!(second, first);
    assert!(stage.provider.issued_tokens().iter().any(|token| second == format!("Bearer {token}")), "{second}");
    assert_eq!(
        browser.get(&stage.url("/")).await.set_cookies(),
        Vec::<String>::new(),
        "the browser has the new cookie"
    );
    assert_eq!(token_seen(&stage), second);
    assert_eq!((stage.provider.refreshes(), stage.provider.reuse_alarms()), (1, 0));
}

#[tokio::test]
async fn after_its_end_requests_wait_for_the_new_access_token() {
    let stage = Stage::with(PASSES_TOKENS);
    let browser = stage.signed_in_browser().await;
    assert_eq!(browser.get(&stage.url("/")).await.status, StatusCode::OK);
    let first = token_seen(&stage);
    stage.clock.advance(2 * LIFE);
    stage.provider.slow_down(Endpoint::Token, Duration::from_millis(200));
    let reply = browser.get(&stage.url("/")).await;
    assert_eq!(reply.status, StatusCode::OK);
    let second = token_seen(&stage);
    assert!(!second.is_empty() && second != first, "{second:?}");
    assert!(reply.set_cookies().iter().any(|cookie| cookie.starts_with("vestibule=")), "{:?}", reply.set_cookies());
    assert_eq!(reply.header("cache-control"), Some("private, no-store"));
}

#[tokio::test]
async fn however_many_requests_and_tabs_come_at_once_there_is_one_renewal() {
    let stage = Stage::with(PASSES_TOKENS);
    let browser = stage.signed_in_browser().await;
    for round in 1..=5 {
        stage.clock.advance(2 * LIFE);
        stage.provider.slow_down(Endpoint::Token, Duration::from_millis(50));
        // The same old cookie in all of them.
        let tabs: Vec<_> = (0..20).map(|_| browser.stolen_copy()).collect();
        let replies = futures_util::future::join_all(tabs.iter().map(|tab| fetch(&stage, tab))).await;
        for reply in &replies {
            assert_eq!(reply.status, StatusCode::OK, "{}", reply.text());
        }
        assert_eq!((stage.provider.refreshes(), stage.provider.reuse_alarms()), (round, 0));
        // An answer that got lost: the browser asks again with the old cookie, and gets the new one.
        assert_eq!(browser.get(&stage.url("/")).await.status, StatusCode::OK);
        assert_eq!(stage.provider.refreshes(), round);
    }
}

#[tokio::test]
async fn a_refresh_token_that_is_kept_is_sent_once_for_each_renewal_too() {
    let stage = Stage::with(PASSES_TOKENS);
    stage.provider.keep_refresh_tokens();
    let browser = stage.signed_in_browser().await;
    for round in 1..=3 {
        stage.clock.advance(2 * LIFE);
        stage.provider.slow_down(Endpoint::Token, Duration::from_millis(50));
        let tabs: Vec<_> = (0..8).map(|_| browser.tab()).collect();
        for reply in futures_util::future::join_all(tabs.iter().map(|tab| fetch(&stage, tab))).await {
            assert_eq!(reply.status, StatusCode::OK, "{}", reply.text());
        }
        assert_eq!(stage.provider.token_calls().len(), 1 + round);
    }
}

#[tokio::test]
async fn claims_roles_and_headers_are_taken_anew_from_each_renewal() {
    let stage = Stage::with("[[routes]]\npath = \"/admin/*\"\nrequire = { roles = [\"/admins\"] }");
    let browser = stage.signed_in_browser().await;
    assert_eq!(browser.get(&stage.url("/admin/")).await.status, StatusCode::OK);
    stage.provider.set_claim("groups", json!(["/staff"]));
    stage.provider.set_claim("name", json!("Countess"));
    stage.clock.advance(2 * LIFE);
    stage.upstream.forget();
    assert_eq!(browser.get(&stage.url("/admin/")).await.status, StatusCode::FORBIDDEN);
    stage.upstream.assert_untouched();
    let userinfo = browser.fetch(&stage.url("/auth/userinfo")).await.json();
    assert_eq!(userinfo["groups"], json!(["/staff"]), "{userinfo}");
}

#[tokio::test]
async fn a_provider_that_is_away_or_in_trouble_ends_no_session() {
    let stage = Stage::with(PASSES_TOKENS);
    let browser = stage.signed_in_browser().await;
    stage.clock.advance(2 * LIFE);
    for (asked, fault) in [(2, TokenFault::ServerError), (3, TokenFault::Unavailable)] {
        stage.clock.advance(MINUTE);
        stage.provider.faults(|faults| faults.token = Some(fault));
        for _ in 0..3 {
            assert_eq!(fetch(&stage, &browser).await.status, StatusCode::OK);
            assert_eq!(token_seen(&stage), "", "what has expired is not passed on");
        }
        assert_eq!(stage.provider.token_calls().len(), asked, "not with every request");
    }
    stage.provider.heal();
    stage.provider.take_down();
    stage.clock.advance(MINUTE);
    assert_eq!(browser.get(&stage.url("/")).await.status, StatusCode::OK);
    stage.provider.bring_back();
    stage.clock.advance(MINUTE);
    assert_eq!(browser.get(&stage.url("/")).await.status, StatusCode::OK);
    assert_ne!(token_seen(&stage), "");
    assert_eq!((stage.provider.refreshes(), stage.provider.reuse_alarms()), (1, 0));
}

#[tokio::test]
async fn a_grant_that_is_over_ends_the_session_and_its_copies() {
    let stage = Stage::start();
    let browser = stage.signed_in_browser().await;
    let copy = browser.stolen_copy();
    stage.provider.end_all_sign_ins();
    stage.clock.advance(2 * LIFE);
    stage.upstream.forget();
    let reply = fetch(&stage, &browser).await;
    assert_eq!((reply.status, reply.json()["code"].as_str()), (StatusCode::UNAUTHORIZED, Some("session_ended")));
    assert!(stage.asks_to_sign_in(&copy.get(&stage.url("/")).await));
    stage.upstream.assert_untouched();
    assert_eq!(stage.provider.token_calls().len(), 2, "asked once");
}

#[tokio::test]
async fn a_refresh_token_whose_answer_was_lost_is_not_sent_again_and_the_browser_gets_another() {
    let stage = Stage::with(PASSES_TOKENS);
    let browser = stage.signed_in_browser().await;
    stage.clock.advance(LIFE - 20 * SECOND);
    stage.provider.faults(|faults| faults.token = Some(TokenFault::Html));
    assert_eq!(fetch(&stage, &browser).await.status, StatusCode::OK);
    until("the renewal", async || stage.provider.token_calls().len() == 2).await;
    assert_ne!(token_seen(&stage), "", "good until its end");
    stage.clock.advance(MINUTE);
    assert_eq!(fetch(&stage, &browser).await.status, StatusCode::OK, "nobody is signed out by it");
    assert_eq!((token_seen(&stage).as_str(), stage.provider.token_calls().len()), ("", 2));
    stage.provider.heal();
    // The provider still knows the person, so nobody has to type anything.
    let reply = browser.get(&stage.url("/")).await;
    assert!(
        reply.location().query_pairs().any(|pair| pair == ("prompt".into(), "none".into())),
        "{}",
        reply.location()
    );
    assert_eq!(browser.follow_reply(reply, 10).await.status, StatusCode::OK);
    assert_ne!(token_seen(&stage), "");
    stage.clock.advance(2 * LIFE);
    assert_eq!(fetch(&stage, &browser).await.status, StatusCode::OK);
    assert_eq!((stage.provider.refreshes(), stage.provider.reuse_alarms()), (1, 0));
}

#[tokio::test]
async fn an_old_copy_of_a_cookie_that_was_renewed_dies_with_its_access_token() {
    let stage = Stage::start();
    let browser = stage.signed_in_browser().await;
    let copy = browser.stolen_copy();
    let before = session_of(&stage, &browser);
    stage.clock.advance(LIFE - 20 * SECOND);
    until_renewed(&stage, &browser, &before).await;
    stage.clock.advance(2 * MINUTE);
    stage.upstream.forget();
    let reply = fetch(&stage, &copy).await;
    assert_eq!((reply.status, reply.json()["code"].as_str()), (StatusCode::UNAUTHORIZED, Some("session_not_renewed")));
    stage.upstream.assert_untouched();
    assert_eq!(fetch(&stage, &browser).await.status, StatusCode::OK);
    assert_eq!(stage.provider.reuse_alarms(), 0);
}

#[tokio::test]
async fn a_provider_that_hangs_holds_nobody_up_for_fresher_claims() {
    let stage = Stage::with("[provider]\ntimeout = \"1s\"");
    let browser = stage.signed_in_browser().await;
    stage.provider.slow_down(Endpoint::Token, Duration::from_secs(60));
    stage.clock.advance(2 * LIFE);
    for _ in 0..3 {
        assert_eq!(fetch(&stage, &browser).await.status, StatusCode::OK);
    }
    until("the request that hangs", async || {
        stage.provider.token_calls().len() + stage.provider.count(Endpoint::Token) >= 2
    })
    .await;
    stage.provider.heal();
    assert_eq!(fetch(&stage, &browser).await.status, StatusCode::OK);
    assert_eq!(stage.provider.reuse_alarms(), 0);
}

#[tokio::test]
async fn a_provider_that_hangs_keeps_nobody_waiting_for_an_access_token_beyond_a_bound() {
    let stage = Stage::with(PASSES_TOKENS);
    let browser = stage.signed_in_browser().await;
    stage.provider.slow_down(Endpoint::Token, Duration::from_secs(60));
    stage.clock.advance(2 * LIFE);
    let begun = std::time::Instant::now();
    assert_eq!(fetch(&stage, &browser).await.status, StatusCode::OK);
    assert_eq!(token_seen(&stage), "", "what has expired is not passed on");
    assert!(begun.elapsed() < 14 * SECOND, "{:?}", begun.elapsed());
    // The same renewal, which was waited for long enough.
    let begun = std::time::Instant::now();
    assert_eq!(fetch(&stage, &browser).await.status, StatusCode::OK);
    assert!(begun.elapsed() < 3 * SECOND, "{:?}", begun.elapsed());
    assert_eq!(stage.provider.reuse_alarms(), 0);
}

#[tokio::test]
async fn a_renewed_id_token_of_somebody_else_ends_the_session_before_its_access_token_is_used() {
    for (name, value) in [
        ("sub", json!("somebody-else")),
        ("iss", json!("https://other.example.com")),
        ("azp", Value::Null),
        ("auth_time", json!(1)),
        ("nonce", json!("bm90LXRoZS1ub25jZQ")),
        ("aud", json!("another-client")),
        ("exp", json!(1)),
    ] {
        let stage = Stage::with(PASSES_TOKENS);
        let browser = stage.signed_in_browser().await;
        let asked = stage.provider.count(Endpoint::Userinfo);
        stage.provider.falsify(name, value);
        stage.clock.advance(2 * LIFE);
        stage.upstream.forget();
        let reply = fetch(&stage, &browser).await;
        assert_eq!(reply.status, StatusCode::UNAUTHORIZED, "{name}: {}", reply.text());
        stage.upstream.assert_untouched();
        assert_eq!(stage.provider.count(Endpoint::Userinfo), asked, "{name}");
    }
}

#[tokio::test]
async fn a_renewed_session_ends_when_the_first_would_have_and_stays_signed_out() {
    let stage = Stage::with("[session]\nlifetime = \"30m\"\nidle = \"30m\"");
    let browser = stage.signed_in_browser().await;
    let before = browser.stolen_copy();
    for _ in 0..2 {
        stage.clock.advance(2 * LIFE);
        assert_eq!(browser.get(&stage.url("/")).await.status, StatusCode::OK);
    }
    assert_eq!(stage.provider.refreshes(), 2);
    let after = browser.stolen_copy();
    assert!(browser.get(&stage.url("/auth/logout")).await.status.is_redirection());
    for copy in [before, after] {
        stage.upstream.forget();
        assert!(stage.asks_to_sign_in(&copy.get(&stage.url("/")).await));
        stage.upstream.assert_untouched();
    }
    let browser = stage.signed_in_browser().await;
    for _ in 0..2 {
        stage.clock.advance(2 * LIFE);
        assert_eq!(browser.get(&stage.url("/")).await.status, StatusCode::OK);
    }
    stage.clock.advance(2 * LIFE);
    assert!(stage.asks_to_sign_in(&browser.get(&stage.url("/")).await));
}

#[tokio::test]
async fn a_sign_out_revokes_the_newest_refresh_token_whatever_cookie_asks_for_it() {
    let stage = Stage::start();
    let browser = stage.signed_in_browser().await;
    let old = browser.stolen_copy();
    stage.clock.advance(2 * LIFE);
    assert_eq!(browser.get(&stage.url("/")).await.status, StatusCode::OK);
    let newest = stage.provider.issued_tokens().last().cloned().unwrap();
    assert!(old.get(&stage.url("/auth/logout")).await.status.is_redirection());
    until("the revocation", async || stage.provider.revoked_tokens().contains(&newest)).await;
    assert!(stage.asks_to_sign_in(&browser.get(&stage.url("/")).await));
}

/// Until a request for a slow answer is at the application.
async fn until_slow(stage: &Stage) {
    let is_there = async || stage.upstream.requests().iter().any(|request| request.target.contains("slow"));
    until("the slow request", is_there).await;
}

#[tokio::test]
async fn a_late_answer_brings_no_session_back() {
    let stage = Stage::start();
    let browser = stage.signed_in_browser().await;
    let tab = browser.stolen_copy();
    stage.clock.advance(2 * LIFE);
    let url = stage.url("/slow?ms=500");
    let slow = tab.get(&url);
    let (slow, _) = tokio::join!(slow, async {
        until_slow(&stage).await;
        browser.get(&stage.url("/auth/logout")).await
    });
    assert_eq!(slow.set_cookies(), Vec::<String>::new());
}

#[tokio::test]
async fn switched_off_nothing_is_renewed() {
    let stage = Stage::with("[session]\nrenew = false\n[upstream]\naccess_token = \"bearer\"");
    let browser = stage.signed_in_browser().await;
    stage.clock.advance(2 * LIFE);
    assert_eq!(browser.get(&stage.url("/")).await.status, StatusCode::OK);
    assert_eq!((token_seen(&stage).as_str(), stage.provider.refreshes()), ("", 0));
}

#[tokio::test]
async fn claims_are_taken_anew_as_often_as_the_settings_say_though_access_tokens_live_longer() {
    let stage = Stage::with(SILENT);
    stage.provider.set_token_life(Some(86_400));
    let browser = stage.signed_in_browser().await;
    stage.provider.set_claim("preferred_username", json!("countess"));
    stage.clock.advance(10 * MINUTE);
    assert_eq!(browser.get(&stage.url("/")).await.status, StatusCode::OK);
    assert_eq!(stage.provider.refreshes(), 1);
    assert_eq!(seen(&stage, "x-forwarded-user"), "countess");
}

#[tokio::test]
async fn without_an_id_token_userinfo_about_somebody_else_ends_the_session() {
    let stage = Stage::with(PASSES_TOKENS);
    let browser = stage.signed_in_browser().await;
    stage.provider.faults(|faults| {
        faults.id_token = Some(IdTokenFault::Missing);
        faults.userinfo = Some(UserinfoFault::OtherSubject);
    });
    stage.clock.advance(2 * LIFE);
    stage.upstream.forget();
    let reply = fetch(&stage, &browser).await;
    assert_eq!((reply.status, reply.json()["code"].as_str()), (StatusCode::UNAUTHORIZED, Some("session_ended")));
    stage.upstream.assert_untouched();
}

#[tokio::test]
async fn a_late_answer_to_an_older_session_takes_no_newer_ones_place() {
    let stage = Stage::with(PASSES_TOKENS);
    let browser = stage.signed_in_browser().await;
    let tab = browser.stolen_copy();
    stage.clock.advance(2 * LIFE);
    let url = stage.url("/slow?ms=700");
    let slow = tab.get(&url);
    let (slow, _) = tokio::join!(slow, async {
        until_slow(&stage).await;
        // The same browser signs in anew meanwhile, as for a step-up.
        assert_eq!(browser.follow(&stage.url("/auth/login?rd=/"), 10).await.status, StatusCode::OK);
    });
    let brings_one = |cookie: &String| cookie.starts_with("vestibule=");
    assert!(!slow.set_cookies().iter().any(brings_one), "{:?}", slow.set_cookies());
}

// ── by the browser, where there is no refresh token ─────────────────────────────────────────────────────────────────────

async fn without_refresh_token() -> (Stage, Browser) {
    let stage = Stage::with(SILENT);
    stage.provider.give_no_refresh_tokens();
    let browser = stage.signed_in_browser().await;
    (stage, browser)
}

/// What a navigation ends in that is sent to the provider and back.
async fn after_silence(stage: &Stage, browser: &Browser) -> Reply {
    let asked = browser.get(&stage.url("/")).await;
    let callback = browser.get(asked.location().as_str()).await;
    browser.get(callback.location().as_str()).await
}

#[tokio::test]
async fn without_a_refresh_token_the_next_navigation_renews_by_way_of_the_provider() {
    let (stage, browser) = without_refresh_token().await;
    let before = browser.cookie(&stage.origin(), "vestibule").unwrap();
    stage.provider.set_claim("preferred_username", json!("countess"));
    stage.clock.advance(10 * MINUTE);
    // Programs and sub-requests go on as they are.
    assert_eq!(fetch(&stage, &browser).await.status, StatusCode::OK);
    let reply = browser.get(&stage.url("/deep?x=1")).await;
    assert!(stage.asks_to_sign_in(&reply), "{}", reply.status);
    let asked: Vec<_> =
        reply.location().query_pairs().filter(|(name, _)| name == "prompt").map(|(_, v)| v.into_owned()).collect();
    assert_eq!(asked, ["none"]);
    let reply = browser.follow(reply.location().as_str(), 10).await;
    assert_eq!((reply.status, reply.url.as_str()), (StatusCode::OK, stage.url("/deep?x=1").as_str()));
    assert_eq!(seen(&stage, "x-forwarded-user"), "countess");
    assert_ne!(browser.cookie(&stage.origin(), "vestibule").unwrap().value, before.value);
    assert_eq!(browser.get(&stage.url("/")).await.status, StatusCode::OK, "and not again");
}

#[tokio::test]
async fn whoever_is_not_signed_in_at_the_provider_any_more_is_not_signed_in_here() {
    let (stage, browser) = without_refresh_token().await;
    let copy = browser.stolen_copy();
    stage.provider.end_all_sign_ins();
    stage.clock.advance(10 * MINUTE);
    stage.upstream.forget();
    let reply = after_silence(&stage, &browser).await;
    assert!(stage.asks_to_sign_in(&reply), "{}", reply.text());
    assert!(reply.location().query_pairs().all(|(name, _)| name != "prompt"), "now the person is asked");
    assert!(stage.asks_to_sign_in(&copy.get(&stage.url("/")).await), "the copied cookie is dead");
    stage.upstream.assert_untouched();
    assert_eq!(browser.follow(reply.location().as_str(), 10).await.status, StatusCode::OK);
}

#[tokio::test]
async fn another_person_at_the_provider_never_takes_over_the_session() {
    let (stage, browser) = without_refresh_token().await;
    stage.provider.set_user(json!({"sub": "grace", "preferred_username": "grace"}));
    stage.clock.advance(10 * MINUTE);
    let asked = stage.provider.count(Endpoint::Userinfo);
    stage.upstream.forget();
    let reply = after_silence(&stage, &browser).await;
    assert!(stage.asks_to_sign_in(&reply), "{}", reply.text());
    assert_eq!(stage.provider.count(Endpoint::Userinfo), asked, "that access token is used for nothing");
    stage.upstream.assert_untouched();
    // A sign-in of her own, under her own name.
    assert_eq!(browser.follow(reply.location().as_str(), 10).await.status, StatusCode::OK);
    assert_eq!(seen(&stage, "x-forwarded-user"), "grace");
}

#[tokio::test]
async fn a_provider_that_does_not_renew_sends_nobody_round_in_a_circle() {
    let (stage, browser) = without_refresh_token().await;
    stage.clock.advance(10 * MINUTE);
    for fault in [AuthorizeFault::TemporarilyUnavailable, AuthorizeFault::ServerError] {
        stage.provider.faults(|faults| faults.authorize = Some(fault));
        let reply = browser.follow(&stage.url("/"), 10).await;
        assert_eq!((reply.status, reply.url.as_str()), (StatusCode::OK, stage.url("/").as_str()), "{fault:?}");
        assert_eq!(browser.get(&stage.url("/")).await.status, StatusCode::OK, "not with every navigation");
        stage.clock.advance(2 * MINUTE);
    }
    stage.provider.heal();
    stage.provider.take_down();
    stage.clock.advance(20 * MINUTE);
    stage.provider.bring_back();
    assert_eq!(browser.follow(&stage.url("/"), 10).await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_session_that_was_ended_while_its_browser_was_at_the_provider_is_not_renewed() {
    let (stage, browser) = without_refresh_token().await;
    let other_tab = browser.stolen_copy();
    stage.clock.advance(10 * MINUTE);
    let reply = browser.get(&stage.url("/")).await;
    let callback = browser.get(reply.location().as_str()).await;
    assert!(other_tab.get(&stage.url("/auth/logout")).await.status.is_redirection());
    let reply = browser.get(callback.location().as_str()).await;
    assert!(stage.asks_to_sign_in(&reply), "a sign-in of its own: {}", reply.text());
    assert!(reply.set_cookies().iter().all(|cookie| !cookie.starts_with("vestibule=")), "{:?}", reply.set_cookies());
}

#[tokio::test]
async fn what_a_page_demands_besides_ends_no_session_that_is_only_due() {
    let toml = format!("{SILENT}\n[[routes]]\npath = \"/strict\"\nrequire = {{ acr = [\"gold\"], max_age = \"1h\" }}");
    let stage = Stage::with(&toml);
    stage.provider.give_no_refresh_tokens();
    stage.provider.offer_acr(&["gold"]);
    let browser = stage.browser();
    assert_eq!(browser.follow(&stage.url("/strict"), 10).await.status, StatusCode::OK);
    stage.clock.advance(10 * MINUTE);
    let reply = browser.get(&stage.url("/strict")).await;
    let asked: Vec<_> = reply.location().query_pairs().map(|(name, _)| name.into_owned()).collect();
    assert!(asked.contains(&"prompt".to_owned()), "{asked:?}");
    assert!(!asked.contains(&"acr_values".to_owned()) && !asked.contains(&"max_age".to_owned()), "{asked:?}");
}

#[tokio::test]
async fn a_renewal_that_cannot_begin_or_end_keeps_nobody_from_a_page() {
    let stage = Stage::with(&format!("{SILENT}\n[provider]\npushed_authorization_requests = true\ntimeout = \"1s\""));
    stage.provider.give_no_refresh_tokens();
    let browser = stage.signed_in_browser().await;
    stage.clock.advance(10 * MINUTE);
    stage.provider.slow_down(Endpoint::Push, MINUTE);
    assert_eq!(browser.follow(&stage.url("/"), 3).await.status, StatusCode::OK, "no request could be pushed");
    stage.provider.heal();
    stage.clock.advance(2 * MINUTE);
    stage.provider.faults(|faults| faults.id_token = Some(IdTokenFault::WrongAudience));
    assert_eq!(browser.follow(&stage.url("/"), 10).await.status, StatusCode::OK, "what came back does not hold");
    stage.provider.heal();
    stage.clock.advance(2 * MINUTE);
    let before = browser.cookie(&stage.origin(), "vestibule").unwrap();
    assert_eq!(browser.follow(&stage.url("/"), 10).await.status, StatusCode::OK);
    assert_ne!(browser.cookie(&stage.origin(), "vestibule").unwrap().value, before.value, "renewed in the end");
}

/// Core §12.2: a refresh token may bring no ID token; then userinfo says who somebody is today, or the next ID token does.
#[tokio::test]
async fn a_refresh_token_that_brings_no_claims_makes_none_newer_and_the_next_navigation_does() {
    let silent = format!("{SILENT}\n{PASSES_TOKENS}");
    let no_userinfo = format!("{silent}\n[provider]\nuserinfo = false");
    for (toml, broken_userinfo) in [(no_userinfo.as_str(), None), (silent.as_str(), Some(UserinfoFault::ServerError))] {
        let stage = Stage::with(toml);
        let browser = stage.signed_in_browser().await;
        stage.provider.faults(|faults| {
            faults.id_token = Some(IdTokenFault::Missing);
            faults.userinfo = broken_userinfo;
        });
        stage.provider.set_claim("preferred_username", json!("countess"));
        // The access token lives half as long as claims may.
        stage.clock.advance(LIFE);
        assert_eq!(browser.get(&stage.url("/")).await.status, StatusCode::OK);
        assert_eq!((stage.provider.refreshes(), seen(&stage, "x-forwarded-user")), (1, "ada".to_owned()));
        stage.clock.advance(LIFE);
        // Its access token is renewed for a program all the same.
        assert_eq!(fetch(&stage, &browser).await.status, StatusCode::OK);
        assert_eq!((stage.provider.refreshes(), seen(&stage, "x-forwarded-user")), (2, "ada".to_owned()));
        stage.provider.heal();
        let asked = stage.provider.count(Endpoint::Authorize);
        let page = browser.follow(&stage.url("/deep"), 10).await;
        assert_eq!((page.status, page.url.path()), (StatusCode::OK, "/deep"));
        assert_eq!(seen(&stage, "x-forwarded-user"), "countess");
        let requests = stage.provider.requests_of(Endpoint::Authorize);
        assert_eq!(requests.len(), asked + 1);
        assert_eq!(requests.last().and_then(|request| request.query_value("prompt")).as_deref(), Some("none"));
        // And from there on as ever: the refresh token first, which brings claims again.
        stage.provider.set_claim("preferred_username", json!("grace"));
        stage.clock.advance(2 * LIFE);
        assert_eq!(browser.get(&stage.url("/")).await.status, StatusCode::OK);
        assert_eq!((stage.provider.refreshes(), seen(&stage, "x-forwarded-user")), (3, "grace".to_owned()));
    }
}

/// Userinfo alone is as good as an ID token.
#[tokio::test]
async fn a_refresh_token_that_brings_userinfo_and_no_id_token_makes_claims_newer() {
    let stage = Stage::with(&format!("{SILENT}\n{PASSES_TOKENS}"));
    let browser = stage.signed_in_browser().await;
    stage.provider.faults(|faults| faults.id_token = Some(IdTokenFault::Missing));
    stage.provider.set_claim("preferred_username", json!("countess"));
    stage.clock.advance(2 * LIFE);
    assert_eq!(browser.get(&stage.url("/")).await.status, StatusCode::OK);
    assert_eq!((stage.provider.refreshes(), seen(&stage, "x-forwarded-user")), (1, "countess".to_owned()));
    stage.clock.advance(LIFE);
    assert_eq!(browser.get(&stage.url("/")).await.status, StatusCode::OK, "and nobody is sent anywhere");
    assert_eq!(stage.provider.count(Endpoint::Authorize), 1);
}
