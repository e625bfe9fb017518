//! Sessions in cookies at several replicas: whichever gets the cookie, one of them renews the session, and all of them know.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use http::StatusCode;
use vestibule_test_support::{Browser, Endpoint, Reply, Stage, TokenFault, until};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
/// The fake provider's access tokens live five minutes.
const LIFE: Duration = Duration::from_secs(300);

/// Two replicas, and a file by which they share what they know.
struct Pair {
    folder: tempfile::TempDir,
    stage: Stage,
    other: Stage,
}

impl Pair {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("shared.db").display().to_string();
        let stage =
            Stage::with(&format!("[session]\nshare = \"sqlite:{file}\"\n[upstream]\naccess_token = \"bearer\""));
        let other = stage.replica();
        Self { folder, stage, other }
    }

    /// All that lies in the store.
    fn file(&self) -> Vec<u8> {
        let files = ["shared.db", "shared.db-wal"].map(|name| std::fs::read(self.folder.path().join(name)));
        files.into_iter().flatten().flatten().collect()
    }

    /// The same browser at the other replica.
    fn elsewhere(&self, browser: &Browser) -> Browser {
        let copy = browser.stolen_copy();
        copy.connect(&self.other.origin(), self.other.address());
        copy
    }

    async fn fetch(&self, browser: &Browser) -> Reply {
        browser.fetch(&self.stage.url("/")).await
    }

    fn session_of(&self, browser: &Browser) -> String {
        browser.cookie(&self.stage.origin(), "vestibule").expect("a session").value
    }

    /// What the application was given last.
    fn token(&self) -> String {
        self.stage.upstream.last().header("authorization").join(",")
    }

    /// How many refresh tokens brought something, and how many were sent twice.
    fn sent(&self) -> (usize, usize) {
        (self.stage.provider.refreshes(), self.stage.provider.reuse_alarms())
    }
}

#[tokio::test]
async fn of_two_replicas_and_many_tabs_one_renews_and_every_tab_gets_the_new_session() {
    let pair = Pair::start();
    let browser = pair.stage.signed_in_browser().await;
    let mut seen = Vec::new();
    for round in 1..=4 {
        pair.stage.clock.advance(2 * LIFE);
        pair.stage.provider.slow_down(Endpoint::Token, Duration::from_millis(100));
        let before = pair.session_of(&browser);
        let tabs: Vec<_> = (0..8).flat_map(|_| [browser.stolen_copy(), pair.elsewhere(&browser)]).collect();
        let replies = join_all(tabs.iter().map(|tab| pair.fetch(tab))).await;
        for (reply, tab) in replies.iter().zip(&tabs) {
            assert_eq!(reply.status, StatusCode::OK, "{}", reply.text());
            assert_ne!(pair.session_of(tab), before);
        }
        assert_eq!(pair.sent(), (round, 0));
        assert!(!pair.token().is_empty() && !seen.contains(&pair.token()), "{}", pair.token());
        seen.push(pair.token());
        assert_eq!(browser.get(&pair.stage.url("/")).await.status, StatusCode::OK);
        assert_eq!((pair.sent(), pair.token()), ((round, 0), seen.last().cloned().unwrap()));
    }
}

#[tokio::test]
async fn whoever_comes_to_another_replica_long_after_still_gets_what_no_browser_has_taken() {
    let pair = Pair::start();
    let browser = pair.stage.signed_in_browser().await;
    pair.stage.clock.advance(LIFE - 20 * SECOND);
    // Its own answer may be too early for the new session, so what is asked next is asked with the old one.
    let first = browser.stolen_copy();
    assert_eq!(pair.fetch(&first).await.status, StatusCode::OK);
    until("the renewal", async || pair.sent() == (1, 0)).await;
    let before = pair.token();
    pair.stage.clock.advance(3 * MINUTE);
    for copy in [pair.elsewhere(&browser), browser.stolen_copy()] {
        let reply = pair.fetch(&copy).await;
        assert_eq!(reply.status, StatusCode::OK, "{}", reply.text());
        assert_ne!(pair.token(), before);
        assert_ne!(pair.token(), "");
        assert_ne!(pair.session_of(&copy), pair.session_of(&browser), "it takes the new session along");
    }
    assert_eq!(pair.sent(), (1, 0));
}

#[tokio::test]
async fn one_replica_renews_after_the_other() {
    let pair = Pair::start();
    let browser = pair.stage.signed_in_browser().await;
    let elsewhere = pair.elsewhere(&browser);
    for round in 1..=6 {
        pair.stage.clock.advance(2 * LIFE);
        let browser = if round % 2 == 0 { &browser } else { &elsewhere };
        assert_eq!(pair.fetch(browser).await.status, StatusCode::OK);
        assert_eq!(pair.sent(), (round, 0));
        // A navigation goes to neither provider nor sign-in.
        assert_eq!(browser.get(&pair.stage.url("/")).await.status, StatusCode::OK);
    }
}

#[tokio::test]
async fn a_replica_that_hangs_in_a_renewal_holds_the_others_up_for_a_few_seconds_once_their_token_has_expired() {
    let pair = Pair::start();
    let browser = pair.stage.signed_in_browser().await;
    let provider = &pair.stage.provider;
    provider.slow_down(Endpoint::Token, 30 * SECOND);
    pair.stage.clock.advance(LIFE - 20 * SECOND);
    // It begins beside this request, and as far as the other can know it dies in the middle.
    assert_eq!(pair.fetch(&browser.stolen_copy()).await.status, StatusCode::OK);
    until("the refresh token is sent", async || provider.count(Endpoint::Token) == 2).await;
    let elsewhere = pair.elsewhere(&browser);
    let fetched = async || {
        pair.stage.upstream.forget();
        let begun = Instant::now();
        let reply = pair.fetch(&elsewhere).await;
        assert_eq!(reply.status, StatusCode::OK, "{}", reply.text());
        (begun.elapsed(), !pair.token().is_empty())
    };
    let (took, has_token) = fetched().await;
    assert!(took < SECOND && has_token, "its token is good: {took:?}");
    pair.stage.clock.advance(MINUTE);
    let (took, has_token) = fetched().await;
    assert!((2 * SECOND..6 * SECOND).contains(&took) && !has_token, "{took:?}");
    let (took, has_token) = fetched().await;
    assert!(took < SECOND && !has_token, "once: {took:?}");
    assert_eq!((provider.count(Endpoint::Token), provider.reuse_alarms()), (2, 0));
}

#[tokio::test]
async fn a_refresh_token_whose_answer_was_lost_is_sent_again_by_no_replica_nor_after_a_restart() {
    let Pair { stage, other, folder: _folder } = Pair::start();
    let browser = stage.signed_in_browser().await;
    stage.clock.advance(2 * LIFE);
    stage.provider.faults(|faults| faults.token = Some(TokenFault::Html));
    assert_eq!(browser.fetch(&stage.url("/")).await.status, StatusCode::OK);
    until("the token was sent", async || stage.provider.token_calls().len() == 2).await;
    stage.provider.heal();
    let stage = stage.restart();
    for replica in [&stage, &other] {
        let copy = browser.stolen_copy();
        copy.connect(&replica.origin(), replica.address());
        for _ in 0..2 {
            assert_eq!(copy.fetch(&stage.url("/")).await.status, StatusCode::OK, "it goes on with what there is");
        }
    }
    assert_eq!((stage.provider.token_calls().len(), stage.provider.reuse_alarms()), (2, 0));
    // The provider still knows the person, so nobody has to type anything.
    let copy = browser.stolen_copy();
    copy.connect(&other.origin(), other.address());
    assert_eq!(copy.follow(&other.url("/"), 10).await.status, StatusCode::OK);
    assert_ne!(stage.upstream.last().header("authorization").join(","), "");
}

#[tokio::test]
async fn a_refresh_token_that_was_not_used_is_sent_by_whichever_replica_comes_next() {
    let pair = Pair::start();
    let browser = pair.stage.signed_in_browser().await;
    pair.stage.clock.advance(2 * LIFE);
    pair.stage.provider.take_down();
    assert_eq!(pair.fetch(&browser).await.status, StatusCode::OK);
    pair.stage.provider.bring_back();
    let elsewhere = pair.elsewhere(&browser);
    until("the other replica renews", async || {
        assert_eq!(pair.fetch(&elsewhere).await.status, StatusCode::OK);
        pair.sent() == (1, 0)
    })
    .await;
}

#[tokio::test]
async fn the_store_alone_tells_nothing_and_what_lies_there_is_no_cookie() {
    let pair = Pair::start();
    let browser = pair.stage.signed_in_browser().await;
    let old = browser.stolen_copy();
    pair.stage.clock.advance(2 * LIFE);
    assert_eq!(pair.fetch(&browser).await.status, StatusCode::OK);
    let file = pair.file();
    assert!(file.len() > 1_000);
    let cookie = pair.session_of(&browser);
    let tokens = pair.stage.provider.issued_tokens();
    let secrets = tokens.iter().map(String::as_str).chain(["ada@example.com", "248289761001", &cookie[..60]]);
    for secret in secrets {
        let found = file.windows(secret.len()).any(|window| window.eq_ignore_ascii_case(secret.as_bytes()));
        assert!(!found, "{secret} stands in the store");
    }
    // The longest text of the store that could be a cookie, in the place of the old one.
    let is_text = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let texts = file.split(|byte| !is_text(byte)).filter(|text| text.len() > 300);
    let mut tried = 0;
    for text in texts {
        let stored = vestibule_test_support::StoredCookie {
            value: String::from_utf8(text.to_vec()).unwrap(),
            ..old.cookie(&pair.stage.origin(), "vestibule").unwrap()
        };
        let thief = old.stolen_copy();
        thief.plant(stored);
        pair.stage.assert_signed_out(&thief).await;
        tried += 1;
    }
    assert!(tried > 0, "the renewed session lies there");
}

#[tokio::test]
async fn a_sign_out_ends_every_form_of_a_session_at_every_replica() {
    let pair = Pair::start();
    let browser = pair.stage.signed_in_browser().await;
    let old = pair.elsewhere(&browser);
    pair.stage.clock.advance(2 * LIFE);
    assert_eq!(pair.fetch(&browser).await.status, StatusCode::OK);
    let new = pair.elsewhere(&browser);
    assert!(browser.get(&pair.stage.url("/auth/logout")).await.status.is_redirection());
    for copy in [old, new] {
        until("the other replica knows", async || pair.fetch(&copy).await.status == StatusCode::UNAUTHORIZED).await;
    }
    assert_eq!(pair.sent(), (1, 0));
}
