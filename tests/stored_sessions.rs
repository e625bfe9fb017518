//! Sessions in a store: small cookies, any replica, one renewal of each, and gone everywhere when they end.

use std::path::Path;
use std::time::Duration;

use futures_util::future::join_all;
use http::StatusCode;
use serde_json::json;
use vestibule::store::{Bid, Filter, Leased, Location, Put, Store};
use vestibule_test_support::{Browser, Reply, Stage, StoredCookie, TestClock, TokenFault, runtime, until};

const SECOND: Duration = Duration::from_secs(1);
/// The fake provider's access tokens live five minutes.
const LIFE: Duration = Duration::from_secs(300);
/// What was read of a session is good for five seconds.
const FRESH: Duration = Duration::from_secs(6);

/// A file for sessions, and a stage that keeps them there.
struct Stored {
    folder: tempfile::TempDir,
    stage: Stage,
}

impl Stored {
    fn with(toml: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let stage = Stage::with(&format!("{}\n{toml}", in_file(&folder)));
        Self { folder, stage }
    }

    fn file(&self) -> Vec<u8> {
        let files = ["sessions.db", "sessions.db-wal"].map(|name| std::fs::read(self.folder.path().join(name)));
        files.into_iter().flatten().flatten().collect()
    }
}

fn in_file(folder: &tempfile::TempDir) -> String {
    format!("[session]\nstore = \"sqlite:{}/sessions.db\"", folder.path().display())
}

fn session_of(stage: &Stage, browser: &Browser) -> StoredCookie {
    browser.cookie(&stage.origin(), "vestibule").expect("a session")
}

async fn fetch(stage: &Stage, browser: &Browser) -> Reply {
    browser.fetch(&stage.url("/")).await
}

/// The same browser at another replica.
fn at(replica: &Stage, browser: &Browser) -> Browser {
    let copy = browser.stolen_copy();
    copy.connect(&replica.origin(), replica.address());
    copy
}

#[tokio::test]
async fn every_replica_knows_a_session_by_a_small_cookie() {
    let Stored { stage, folder: _folder } = Stored::with("");
    let browser = stage.signed_in_browser().await;
    let cookie = session_of(&stage, &browser);
    assert!(cookie.value.len() < 256, "{} bytes", cookie.value.len());
    assert!(browser.cookie(&stage.origin(), "vestibule.1").is_none());
    let replica = stage.replica();
    for (stage, browser) in [(&stage, browser.stolen_copy()), (&replica, at(&replica, &browser))] {
        for _ in 0..3 {
            assert_eq!(browser.get(&stage.url("/")).await.status, StatusCode::OK);
            assert_eq!(stage.upstream.last().header("x-forwarded-preferred-username"), ["ada"]);
        }
    }
}

#[tokio::test]
async fn a_session_that_no_cookie_holds_is_kept() {
    let stored = Stored::with("");
    let stage = &stored.stage;
    let long: Vec<_> =
        (0..800_u64).map(|number| format!("/department/{number:05}/{:016x}", number * 0x9e37_79b9)).collect();
    stage.provider.set_claim("departments", json!(long));
    let browser = stage.browser();
    assert_eq!(stage.sign_in(&browser, "/").await.status, StatusCode::OK);
    assert!(session_of(stage, &browser).value.len() < 256);
    assert!(stored.file().len() > 16_000, "what four cookies hold");
    let replica = stage.replica();
    assert_eq!(at(&replica, &browser).get(&stage.url("/")).await.status, StatusCode::OK);
}

#[tokio::test]
async fn the_store_alone_tells_nothing() {
    let stored = Stored::with("");
    let browser = stored.stage.signed_in_browser().await;
    let file = stored.file();
    assert!(file.len() > 1_000);
    let cookie = session_of(&stored.stage, &browser).value;
    let tokens = stored.stage.provider.issued_tokens();
    let secrets = tokens.iter().map(String::as_str).chain([
        "ada@example.com",
        "248289761001",
        "refresh",
        cookie.as_str(),
        &cookie[1..],
    ]);
    for secret in secrets {
        let found = file.windows(secret.len()).any(|window| window.eq_ignore_ascii_case(secret.as_bytes()));
        assert!(!found, "{secret} stands in the store");
    }
}

#[tokio::test]
async fn of_two_replicas_and_many_tabs_one_renews() {
    let stored = Stored::with("[upstream]\naccess_token = \"bearer\"");
    let stage = &stored.stage;
    let replica = stage.replica();
    let browser = stage.signed_in_browser().await;
    let before = session_of(stage, &browser).value;
    let mut seen = Vec::new();
    for round in 1..=5 {
        stage.clock.advance(2 * LIFE);
        stage.provider.slow_down(vestibule_test_support::Endpoint::Token, Duration::from_millis(100));
        let tabs: Vec<_> = (0..10).flat_map(|_| [browser.stolen_copy(), at(&replica, &browser)]).collect();
        let replies = join_all(tabs.iter().map(|tab| fetch(stage, tab))).await;
        for reply in &replies {
            assert_eq!(reply.status, StatusCode::OK, "{}", reply.text());
            assert!(!reply.set_cookies().iter().any(|cookie| cookie.starts_with("vestibule=")), "the ticket stays");
        }
        assert_eq!((stage.provider.refreshes(), stage.provider.reuse_alarms()), (round, 0));
        let token = stage.upstream.last().header("authorization").join(",");
        assert!(!token.is_empty() && !seen.contains(&token), "{token}");
        seen.push(token);
        // The idle time is the browser's own.
        assert_eq!(browser.get(&stage.url("/")).await.status, StatusCode::OK);
    }
    assert_eq!(session_of(stage, &browser).value, before);
}

#[tokio::test]
async fn a_renewal_that_takes_the_provider_three_seconds_is_waited_for_at_both_replicas_and_asked_for_once() {
    let stored = Stored::with("[upstream]\naccess_token = \"bearer\"");
    let stage = &stored.stage;
    let replica = stage.replica();
    let browser = stage.signed_in_browser().await;
    stage.clock.advance(2 * LIFE);
    stage.provider.slow_down(vestibule_test_support::Endpoint::Token, 3 * SECOND);
    let tabs = [browser.stolen_copy(), at(&replica, &browser), browser.stolen_copy(), at(&replica, &browser)];
    for reply in join_all(tabs.iter().map(|tab| fetch(stage, tab))).await {
        assert_eq!(reply.status, StatusCode::OK, "{}", reply.text());
        assert!(reply.echoed("authorization").is_some(), "{}", reply.text());
    }
    assert_eq!((stage.provider.refreshes(), stage.provider.reuse_alarms()), (1, 0));
}

#[tokio::test]
async fn a_refresh_token_whose_answer_was_lost_is_sent_again_by_no_replica() {
    let stored = Stored::with("");
    let stage = &stored.stage;
    let replica = stage.replica();
    let browser = stage.signed_in_browser().await;
    stage.clock.advance(2 * LIFE);
    stage.provider.faults(|faults| faults.token = Some(TokenFault::Html));
    assert_eq!(fetch(stage, &browser).await.status, StatusCode::OK);
    until("the token was sent", async || stage.provider.token_calls().len() == 2).await;
    stage.provider.heal();
    for _ in 0..3 {
        stage.clock.advance(FRESH);
        for browser in [browser.stolen_copy(), at(&replica, &browser)] {
            // A script goes on with what there is; only a navigation can go by the provider.
            assert_eq!(fetch(stage, &browser).await.status, StatusCode::OK);
        }
    }
    assert_eq!((stage.provider.token_calls().len(), stage.provider.reuse_alarms()), (2, 0));
}

#[tokio::test]
async fn what_the_browser_renewed_by_way_of_one_replica_has_its_access_token_at_the_other_at_once() {
    let stored = Stored::with("[upstream]\naccess_token = \"bearer\"");
    let stage = &stored.stage;
    let replica = stage.replica();
    let browser = stage.signed_in_browser().await;
    stage.clock.advance(2 * LIFE);
    stage.provider.faults(|faults| faults.token = Some(TokenFault::Html));
    // Both know then that the refresh token is lost.
    for tab in [browser.stolen_copy(), at(&replica, &browser)] {
        let reply = fetch(stage, &tab).await;
        assert_eq!((reply.status, reply.echoed("authorization")), (StatusCode::OK, None));
    }
    stage.provider.heal();
    let page = browser.follow(&stage.url("/"), 10).await;
    assert!(page.echoed("authorization").is_some(), "{} {}", page.url, page.text());
    let reply = fetch(stage, &at(&replica, &browser)).await;
    assert!(reply.status == StatusCode::OK && reply.echoed("authorization").is_some(), "{}", reply.text());
    assert_eq!(stage.provider.reuse_alarms(), 0);
}

#[tokio::test]
async fn what_one_replica_renewed_is_there_at_another_that_could_not_a_moment_ago() {
    let stored = Stored::with("[upstream]\naccess_token = \"bearer\"");
    let stage = &stored.stage;
    let replica = stage.replica();
    let browser = stage.signed_in_browser().await;
    let elsewhere = at(&replica, &browser);
    stage.clock.advance(2 * LIFE);
    stage.provider.faults(|faults| faults.token = Some(TokenFault::Unavailable));
    let reply = fetch(stage, &elsewhere).await;
    assert_eq!((reply.status, reply.echoed("authorization")), (StatusCode::OK, None), "the provider is in trouble");
    stage.provider.heal();
    assert!(fetch(stage, &browser).await.echoed("authorization").is_some(), "here it was not asked yet");
    let reply = fetch(stage, &elsewhere).await;
    assert!(reply.status == StatusCode::OK && reply.echoed("authorization").is_some(), "{}", reply.text());
    assert_eq!((stage.provider.refreshes(), stage.provider.reuse_alarms()), (1, 0));
}

#[tokio::test]
async fn a_restart_signs_nobody_out() {
    let stored = Stored::with("");
    let browser = stored.stage.signed_in_browser().await;
    let stage = stored.stage.restart();
    assert_eq!(browser.get(&stage.url("/")).await.status, StatusCode::OK);
    assert_eq!(stage.upstream.last().header("x-forwarded-preferred-username"), ["ada"]);
}

#[tokio::test]
async fn who_signs_out_is_signed_out_at_every_replica_with_every_copy_of_the_cookie() {
    let stored = Stored::with("");
    let stage = &stored.stage;
    let replica = stage.replica();
    let browser = stage.signed_in_browser().await;
    let (copy, elsewhere) = (browser.stolen_copy(), at(&replica, &browser));
    for browser in [&copy, &elsewhere] {
        assert_eq!(browser.get(&stage.url("/")).await.status, StatusCode::OK);
    }
    browser.get(&stage.url("/auth/logout")).await;
    stage.assert_signed_out(&copy).await;
    stage.clock.advance(FRESH);
    replica.assert_signed_out(&elsewhere).await;
}

#[tokio::test]
async fn a_new_sign_in_is_a_new_session_and_the_old_one_is_gone() {
    let stored = Stored::with("");
    let stage = &stored.stage;
    let browser = stage.signed_in_browser().await;
    let (old, copy) = (session_of(stage, &browser).value, browser.stolen_copy());
    assert_eq!(browser.follow(&stage.url("/auth/login?rd=/"), 10).await.status, StatusCode::OK);
    assert_ne!(session_of(stage, &browser).value, old);
    // Behind the answer, so there is something to wait for.
    until("the old session is gone", async || {
        stage.clock.advance(FRESH);
        fetch(stage, &copy).await.status == StatusCode::UNAUTHORIZED
    })
    .await;
    assert_eq!(browser.get(&stage.url("/")).await.status, StatusCode::OK);
}

#[tokio::test]
async fn sessions_of_the_time_before_the_store_go_on_and_those_of_the_store_do_not_outlast_it() {
    let folder = tempfile::tempdir().unwrap();
    let stage = Stage::start();
    let browser = stage.signed_in_browser().await;
    let switch = |stage: Stage, toml: &str| {
        let builder = Stage::builder().toml(toml).port(stage.address().port());
        let builder = builder.provider(stage.provider.clone()).upstream(stage.upstream.clone());
        let clock = stage.clock.clone();
        drop(stage);
        builder.clock(clock).start()
    };
    let stage = switch(stage, &in_file(&folder));
    assert_eq!(browser.get(&stage.url("/")).await.status, StatusCode::OK);
    let other = stage.signed_in_browser().await;
    let stage = switch(stage, "");
    assert_eq!(browser.get(&stage.url("/")).await.status, StatusCode::OK);
    stage.assert_signed_out(&other).await;
    assert_eq!(stage.sign_in(&other, "/").await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_ticket_that_was_altered_or_is_no_ticket_opens_nothing() {
    let stored = Stored::with("");
    let stage = &stored.stage;
    let browser = stage.signed_in_browser().await;
    let cookie = session_of(stage, &browser);
    let (head, tail) = cookie.value.split_at(cookie.value.len() / 2);
    let flipped = format!("{head}{}{}", if tail.starts_with('A') { 'B' } else { 'A' }, &tail[1..]);
    for value in [flipped, cookie.value[1..].to_owned(), format!(".{}", cookie.value), ".".to_owned(), "..".to_owned()]
    {
        let copy = browser.stolen_copy();
        copy.plant(StoredCookie { value, ..cookie.clone() });
        stage.assert_signed_out(&copy).await;
    }
    stage.clock.advance(SECOND);
    assert_eq!(browser.get(&stage.url("/")).await.status, StatusCode::OK);
}

#[tokio::test]
async fn an_older_form_of_a_session_opens_in_no_later_ones_place() {
    let stored = Stored::with("");
    let stage = &stored.stage;
    let browser = stage.signed_in_browser().await;
    let location = format!("sqlite:{}/sessions.db", stored.folder.path().display());
    let location = Location::parse(&location, Path::new("/")).expect("a location");
    // Whoever writes to the store.
    let store = Store::new(&location, runtime().handle().clone()).expect("a store");
    let handle = store.list(Filter::All, None).await.unwrap().records[0].handle;
    let first = store.get(handle).await.unwrap().unwrap();
    stage.clock.advance(2 * LIFE);
    assert_eq!(fetch(stage, &browser).await.status, StatusCode::OK);
    until("the renewed form", async || store.get(handle).await.unwrap().unwrap().version > first.version).await;
    let second = store.get(handle).await.unwrap().unwrap();
    let leased = store.try_lease(handle, second.version, Bid::new(), LIFE).await.unwrap();
    let Leased::Granted(lease) = leased else { panic!("{leased:?}") };
    assert!(matches!(store.replace(lease, first.bytes).await.unwrap(), Put::Kept(_)));
    stage.clock.advance(FRESH);
    stage.assert_signed_out(&browser).await;
}

#[tokio::test]
async fn a_session_of_a_replica_whose_clock_is_ahead_ends_with_what_is_told_to_one_whose_is_behind() {
    let folder = tempfile::tempdir().unwrap();
    let toml = format!("[session]\nshare = \"sqlite:{}/ended.db\"", folder.path().display());
    let ahead = Stage::with(&toml);
    let clock = TestClock::new();
    clock.rewind(20 * SECOND);
    let builder = Stage::builder().toml(&toml).public_port(ahead.address().port()).clock(clock);
    let behind = builder.provider(ahead.provider.clone()).upstream(ahead.upstream.clone()).start();
    ahead.provider.set_user(json!({ "sub": "ada", "preferred_username": "ada", "sid": "s1" }));
    let browser = ahead.signed_in_browser().await;
    let frame = format!("/auth/frontchannel-logout?iss={}&sid=s1", ahead.provider.issuer());
    assert_eq!(behind.browser().get(&behind.url(&frame)).await.status, StatusCode::OK);
    let elsewhere = at(&behind, &browser);
    behind.assert_signed_out(&elsewhere).await;
    until("the other knows", async || fetch(&ahead, &browser).await.status == StatusCode::UNAUTHORIZED).await;
    // Whoever comes back is signed in, by the same name too.
    tokio::time::sleep(SECOND / 2).await;
    let again = ahead.signed_in_browser().await;
    assert_eq!(fetch(&ahead, &again).await.status, StatusCode::OK);
    assert_eq!(fetch(&behind, &at(&behind, &again)).await.status, StatusCode::OK);
}

#[tokio::test]
async fn replicas_with_cookie_sessions_tell_one_another_what_has_ended() {
    let folder = tempfile::tempdir().unwrap();
    let stage = Stage::with(&format!("[session]\nshare = \"sqlite:{}/ended.db\"", folder.path().display()));
    let replica = stage.replica();
    let browser = stage.signed_in_browser().await;
    assert!(session_of(&stage, &browser).value.len() > 300, "it is in the cookie");
    let (copy, elsewhere) = (browser.stolen_copy(), at(&replica, &browser));
    for browser in [&copy, &elsewhere] {
        assert_eq!(browser.get(&stage.url("/")).await.status, StatusCode::OK);
    }
    browser.get(&stage.url("/auth/logout")).await;
    stage.assert_signed_out(&copy).await;
    until("the other replica knows", async || fetch(&replica, &elsewhere).await.status == StatusCode::UNAUTHORIZED)
        .await;
    // One that starts later knows it from the beginning.
    let late = stage.replica();
    late.assert_signed_out(&at(&late, &copy)).await;
}

#[tokio::test]
async fn a_store_that_was_never_there_is_503_and_no_sign_in() {
    let folder = tempfile::tempdir().unwrap();
    let stage = Stage::start();
    let browser = stage.signed_in_browser().await;
    let builder =
        Stage::builder().toml(&format!("[session]\nstore = \"sqlite:{}/missing/s.db\"", folder.path().display()));
    let builder = builder.provider(stage.provider.clone()).upstream(stage.upstream.clone()).clock(stage.clock.clone());
    let port = stage.address().port();
    drop(stage);
    let stage = builder.port(port).start();
    stage.upstream.forget();
    // Public pages are served, other replicas have the same store: it is no reason to send anybody elsewhere.
    let ready = browser.fetch(&stage.admin_url("/readyz")).await;
    assert_eq!((ready.status, ready.json()["status"].clone()), (StatusCode::OK, json!("ready")));
    // A session of the time before, which may have ended elsewhere since: nobody can tell.
    for reply in [browser.get(&stage.url("/")).await, fetch(&stage, &browser).await] {
        assert_eq!(reply.status, StatusCode::SERVICE_UNAVAILABLE, "{}", reply.text());
        assert_eq!(reply.header("retry-after"), Some("5"));
    }
    let userinfo = browser.fetch(&stage.url("/auth/userinfo")).await;
    assert_eq!(
        (userinfo.status, userinfo.json()["code"].clone()),
        (StatusCode::SERVICE_UNAVAILABLE, json!("session_store_away"))
    );
    stage.upstream.assert_untouched();
    // A stranger signs in as far as that goes.
    let stranger = stage.browser();
    let reply = stage.sign_in(&stranger, "/").await;
    assert_eq!(reply.status, StatusCode::SERVICE_UNAVAILABLE, "{}", reply.text());
    assert!(reply.set_cookies().iter().all(|cookie| !cookie.starts_with("vestibule=")), "{:?}", reply.set_cookies());
    stage.upstream.assert_untouched();
}
