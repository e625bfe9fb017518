//! What has begun at the provider is brought to its end, whoever goes away meanwhile: a token that can be spent once is not spent for
//! nothing, neither by a stop nor by a browser that is closed.

use std::path::Path;
use std::time::{Duration, Instant};

use http::StatusCode;
use serde_json::json;
use vestibule::store::{Filter, Location, Store};
use vestibule_test_support::{Browser, Endpoint, Reply, Stage, runtime, until};

/// The fake provider's access tokens live five minutes.
const LIFE: Duration = Duration::from_secs(300);
/// After the latest moment of a renewal, and before the token's end.
const DUE: Duration = Duration::from_secs(280);
const SLOW: Duration = Duration::from_millis(800);

/// Sessions in a file, and the file.
fn stored(session: &str, more: &str) -> (Stage, Store, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let place = format!("sqlite:{}/sessions.db", folder.path().display());
    let stage = Stage::with(&format!("[session]\nstore = \"{place}\"\n{session}{more}"));
    let location = Location::parse(&place, Path::new("/")).expect("a location");
    (stage, Store::new(&location, runtime().handle().clone()).expect("a store"), folder)
}

async fn fetch(stage: &Stage, browser: &Browser) -> Reply {
    browser.fetch(&stage.url("/")).await
}

/// Stops the proxy and starts another, at a provider that is as fast as before.
async fn restart(stage: Stage) -> Stage {
    let stage = stage.restart();
    stage.provider.heal();
    stage.wait_for_provider().await;
    stage
}

/// Opens an address, and goes away while what that begins is at the token endpoint.
async fn leave_while_redeeming(stage: &Stage, browser: &Browser, url: String) {
    let calls = stage.provider.count(Endpoint::Token);
    stage.provider.slow_down(Endpoint::Token, SLOW);
    let tab = browser.tab();
    let opening = tokio::spawn(async move { tab.get(&url).await });
    until("the code to be sent", async || stage.provider.count(Endpoint::Token) > calls).await;
    opening.abort();
    assert!(opening.await.is_err(), "it has gone away");
}

/// The callback that a page of the proxy leads to, at a provider that asks for nothing.
async fn callback(stage: &Stage, browser: &Browser) -> String {
    let asked = browser.get(&stage.url("/")).await;
    assert!(stage.asks_to_sign_in(&asked), "{}", asked.text());
    browser.get(asked.location().as_str()).await.location().into()
}

#[tokio::test]
async fn a_renewal_that_is_under_way_at_a_stop_is_finished_and_its_session_goes_on() {
    let (stage, _, _folder) = stored("", "[upstream]\naccess_token = \"bearer\"");
    let browser = stage.signed_in_browser().await;
    stage.clock.advance(DUE);
    stage.provider.slow_down(Endpoint::Token, SLOW);
    assert_eq!(fetch(&stage, &browser).await.status, StatusCode::OK, "nobody waits for it");
    until("the refresh token to be sent", async || stage.provider.count(Endpoint::Token) == 2).await;
    let stage = restart(stage).await;
    assert_eq!(stage.provider.refreshes(), 1);
    stage.clock.advance(2 * LIFE);
    let reply = fetch(&stage, &browser).await;
    assert!(reply.status == StatusCode::OK && reply.echoed("authorization").is_some(), "{}", reply.text());
    assert_eq!((stage.provider.refreshes(), stage.provider.reuse_alarms()), (2, 0));
}

#[tokio::test]
async fn a_renewal_that_hangs_holds_no_stop_past_its_bound() {
    let (mut stage, _, _folder) = stored("", "");
    let browser = stage.signed_in_browser().await;
    stage.clock.advance(DUE);
    stage.provider.slow_down(Endpoint::Token, 30 * SLOW);
    assert_eq!(fetch(&stage, &browser).await.status, StatusCode::OK);
    until("the refresh token to be sent", async || stage.provider.count(Endpoint::Token) == 2).await;
    let started = Instant::now();
    stage.stop();
    // The stage's drain: two seconds.
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
}

#[tokio::test]
async fn a_session_is_renewed_by_way_of_a_browser_that_goes_away_at_the_end_of_it() {
    for stops in [false, true] {
        let silent = "renew_every = \"10m\"\n[identity]\nname_claim = \"preferred_username\"\n";
        let (stage, _, _folder) = stored(silent, "");
        stage.provider.give_no_refresh_tokens();
        let browser = stage.signed_in_browser().await;
        stage.provider.set_claim("preferred_username", json!("countess"));
        stage.clock.advance(Duration::from_secs(600));
        let url = callback(&stage, &browser).await;
        leave_while_redeeming(&stage, &browser, url).await;
        let stage = if stops { restart(stage).await } else { stage };
        let is_renewed = async || {
            // What was read of a session is good for five seconds.
            stage.clock.advance(Duration::from_secs(6));
            assert_eq!(fetch(&stage, &browser).await.status, StatusCode::OK);
            stage.upstream.last().header("x-forwarded-user") == ["countess"]
        };
        until("the session to be renewed", is_renewed).await;
        assert_eq!(stage.provider.count(Endpoint::Token), 2, "it was not asked for again");
    }
}

#[tokio::test]
async fn who_goes_away_during_a_sign_in_leaves_no_session_and_is_signed_in_by_the_next_try() {
    let (stage, store, _folder) = stored("", "");
    let browser = stage.browser();
    let url = callback(&stage, &browser).await;
    leave_while_redeeming(&stage, &browser, url.clone()).await;
    let sessions = async || store.list(Filter::All, None).await.unwrap().records.len();
    // A stop waits for whatever there is to wait for.
    let stage = restart(stage).await;
    assert_eq!(stage.provider.token_calls().iter().filter(|call| call.accepted).count(), 1, "the code is spent");
    assert_eq!(sessions().await, 0, "nobody would have it");
    stage.upstream.assert_untouched();
    let landed = browser.follow(&url, 10).await;
    assert_eq!((landed.status, sessions().await), (StatusCode::OK, 1), "{}", landed.text());
}
