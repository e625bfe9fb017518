//! Stores that are slow, away, and back again, as people notice it who are signed in, who sign in, and who sign out.

use std::time::{Duration, Instant};

use http::StatusCode;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use vestibule_test_support::stores::{Postgres, Redis};
use vestibule_test_support::{Browser, Relay, Stage, json, until};

use crate::session_streams::Stream;

/// What was read of a session is good for five seconds.
const FRESH: Duration = Duration::from_secs(6);
/// A call takes no longer.
const PATIENCE: Duration = Duration::from_secs(2);

/// Two replicas with a store behind a wire.
struct Wired<S> {
    _store: S,
    wire: Relay,
    one: Stage,
    other: Stage,
}

impl Wired<Redis> {
    fn redis() -> Self {
        let store = Redis::start(&[]);
        let wire = Relay::to(store.address());
        let location = format!("redis://{}", wire.address());
        Self::with(store, wire, &location)
    }
}

impl Wired<Postgres> {
    fn postgresql() -> Self {
        let store = Postgres::start();
        let wire = Relay::to(store.address());
        let location = Postgres::location_at(wire.address());
        Self::with(store, wire, &location)
    }
}

impl<S> Wired<S> {
    fn with(store: S, wire: Relay, location: &str) -> Self {
        let one = Stage::with(&format!("[session]\nrenew = false\nstore = \"{location}\""));
        let other = one.replica();
        Self { _store: store, wire, one, other }
    }

    /// The same browser at the other replica.
    fn at_other(&self, browser: &Browser) -> Browser {
        let copy = browser.stolen_copy();
        copy.connect(&self.other.origin(), self.other.address());
        copy
    }

    /// A stranger signs in as far as that goes.
    async fn assert_nobody_signs_in(&self) -> Browser {
        self.one.upstream.forget();
        let stranger = self.one.browser();
        let reply = self.one.sign_in(&stranger, "/").await;
        assert_eq!(reply.status, StatusCode::SERVICE_UNAVAILABLE, "{} {}", reply.url, reply.text());
        assert!(stranger.cookie(&self.one.origin(), "vestibule").is_none(), "half a session");
        self.one.upstream.assert_untouched();
        stranger
    }

    /// At the other replica, which has not seen this session, nobody knows.
    async fn assert_unknown_at_other(&self, browser: &Browser) {
        self.other.upstream.forget();
        let copy = self.at_other(browser);
        for reply in [copy.fetch(&self.other.url("/")).await, copy.get(&self.other.url("/")).await] {
            assert_eq!(reply.status, StatusCode::SERVICE_UNAVAILABLE, "{}", reply.text());
            assert_eq!(reply.header("retry-after"), Some("5"));
        }
        self.other.upstream.assert_untouched();
    }

    /// Signs out at one replica; says what is left of a copy there, and in what time.
    async fn sign_out(&self, browser: &Browser) -> Duration {
        let copy = browser.stolen_copy();
        let begun = Instant::now();
        browser.get(&self.one.url("/auth/logout")).await;
        let took = begun.elapsed();
        self.one.assert_signed_out(&copy).await;
        took
    }

    async fn gets_slow(self) {
        let Self { one, other, wire, .. } = &self;
        let (ada, bob, carol) =
            (one.signed_in_browser().await, one.signed_in_browser().await, one.signed_in_browser().await);
        let copy = self.at_other(&ada);
        other.assert_signed_in(&copy).await;
        wire.slow_down(Duration::from_millis(150));
        one.clock.advance(FRESH);
        // Everything goes on, as slowly as that is.
        one.assert_signed_in(&ada).await;
        other.assert_signed_in(&copy).await;
        other.assert_signed_in(&self.at_other(&bob)).await;
        let stranger = one.signed_in_browser().await;
        one.assert_signed_in(&stranger).await;
        self.sign_out(&ada).await;
        until("the other replica knows", async || copy.fetch(&other.url("/")).await.status == StatusCode::UNAUTHORIZED)
            .await;
        // What takes longer than anybody waits is as good as away.
        wire.slow_down(Duration::from_secs(60));
        one.clock.advance(FRESH);
        let begun = Instant::now();
        one.assert_signed_in(&bob).await;
        assert!(begun.elapsed() < PATIENCE * 2, "{:?}", begun.elapsed());
        self.assert_unknown_at_other(&carol).await;
        self.assert_nobody_signs_in().await;
        assert!(self.sign_out(&carol).await < PATIENCE * 3);
        one.assert_signed_in(&bob).await;
    }

    async fn goes_away_and_comes_back(self) {
        let Self { one, other, wire, .. } = &self;
        let (ada, bob) = (one.signed_in_browser().await, one.signed_in_browser().await);
        let seen = self.at_other(&bob);
        other.assert_signed_in(&seen).await;
        wire.cut();
        one.clock.advance(FRESH);
        for _ in 0..3 {
            one.assert_signed_in(&ada).await;
        }
        self.assert_unknown_at_other(&ada).await;
        let stranger = self.assert_nobody_signs_in().await;
        let readiness = one.browser().fetch(&one.admin_url("/readyz")).await;
        assert_eq!(readiness.status, StatusCode::OK, "those who are signed in are served");
        // It counts here at once, and elsewhere when they can hear of it.
        let copy = bob.stolen_copy();
        assert!(self.sign_out(&bob).await < PATIENCE * 2);
        wire.mend();
        until("the other replica knows", async || seen.fetch(&other.url("/")).await.status == StatusCode::UNAUTHORIZED)
            .await;
        one.assert_signed_out(&copy).await;
        one.assert_signed_in(&ada).await;
        let there = self.at_other(&ada);
        until("the other replica serves", async || there.fetch(&other.url("/")).await.status == StatusCode::OK).await;
        let page = one.sign_in(&stranger, "/").await;
        assert_eq!(page.status, StatusCode::OK, "{} {}", page.url, page.text());
        other.assert_signed_in(&self.at_other(&stranger)).await;
    }
}

#[tokio::test]
async fn a_redis_that_is_slow_is_waited_for_and_one_that_is_too_slow_is_as_good_as_away() {
    Wired::redis().gets_slow().await;
}

#[tokio::test]
async fn a_postgresql_that_is_slow_is_waited_for_and_one_that_is_too_slow_is_as_good_as_away() {
    Wired::postgresql().gets_slow().await;
}

#[tokio::test]
async fn while_redis_is_away_who_was_seen_goes_on_and_everything_does_when_it_is_back() {
    Wired::redis().goes_away_and_comes_back().await;
}

#[tokio::test]
async fn while_postgresql_is_away_who_was_seen_goes_on_and_everything_does_when_it_is_back() {
    Wired::postgresql().goes_away_and_comes_back().await;
}

#[tokio::test]
async fn while_redis_is_away_those_who_were_seen_go_on_for_the_grace_and_nobody_is_sent_to_sign_in() {
    let mut redis = Redis::start(&[]);
    let grace = Duration::from_secs(8);
    let toml = format!("[session]\nrenew = false\nstore_grace = \"8s\"\nstore = \"redis://{}\"", redis.address());
    let stage = Stage::with(&toml);
    let other = stage.replica();
    let browser = stage.signed_in_browser().await;
    let copy = browser.stolen_copy();
    copy.connect(&other.origin(), other.address());
    let mut socket = Stream::web_socket(&stage, &browser).await;
    redis.kill();
    let killed = Instant::now();
    let reply = copy.get(&other.url("/")).await;
    assert_eq!(reply.status, StatusCode::SERVICE_UNAVAILABLE, "never seen there: {}", reply.text());
    assert_eq!(reply.header("retry-after"), Some("5"));
    assert_eq!(browser.get(&stage.url("/")).await.status, StatusCode::OK, "seen here");
    let away = async || browser.fetch(&stage.url("/")).await.status == StatusCode::SERVICE_UNAVAILABLE;
    while killed.elapsed() < grace / 2 {
        assert!(!away().await, "it goes on for the grace");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    stage.clock.advance(grace);
    until("the grace is over", away).await;
    // What was heard is measured by another clock than what was seen.
    while killed.elapsed() < grace {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
    socket.assert_told().await;
    redis.begin();
    until("it is back", async || browser.fetch(&stage.url("/")).await.status == StatusCode::OK).await;
    until("at the other too", async || copy.fetch(&other.url("/")).await.status == StatusCode::OK).await;
}

#[tokio::test]
async fn a_frame_that_was_gone_before_a_slow_store_answered_has_ended_the_session_all_the_same() {
    let redis = Redis::start(&[]);
    let stage = Stage::with(&format!("[session]\nstore = \"redis://{}\"", redis.address()));
    stage.provider.set_user(json!({ "sub": "ada", "preferred_username": "ada", "sid": "s1" }));
    let browser = stage.signed_in_browser().await;
    // One that has never seen the session, so that it has to ask.
    let other = stage.replica();
    let frame = format!("/auth/frontchannel-logout?iss={}&sid=s1", stage.provider.issuer());
    let request = format!(
        "GET {frame} HTTP/1.1\r\nHost: {}\r\nCookie: {}\r\nSec-Fetch-Dest: iframe\r\n\r\n",
        stage.host(),
        browser.cookie_line(&stage.origin())
    );
    redis.cli(&["client", "pause", "1200"]);
    let mut client = TcpStream::connect(other.address()).await.unwrap();
    client.write_all(request.as_bytes()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    drop(client);
    let copy = browser.stolen_copy();
    copy.connect(&other.origin(), other.address());
    for (stage, browser) in [(&other, &copy), (&stage, &browser)] {
        until("it has ended", async || browser.fetch(&stage.url("/")).await.status == StatusCode::UNAUTHORIZED).await;
    }
}

#[tokio::test]
async fn a_store_that_came_back_with_less_is_told_again_what_has_ended() {
    let mut redis = Redis::start(&[]);
    let stage = Stage::with(&format!("[session]\nshare = \"redis://{}\"", redis.address()));
    let browser = stage.signed_in_browser().await;
    let copy = browser.stolen_copy();
    browser.get(&stage.url("/auth/logout")).await;
    assert_eq!(copy.fetch(&stage.url("/")).await.status, StatusCode::UNAUTHORIZED);
    redis.cli(&["flushall"]);
    redis.kill();
    redis.begin();
    // By who knows it still, so that one who starts later knows it too.
    until("it is told again", async || !redis.cli(&["exists", "vestibule:told:ended"]).contains('0')).await;
    let late = stage.replica();
    copy.connect(&late.origin(), late.address());
    assert_eq!(copy.fetch(&late.url("/")).await.status, StatusCode::UNAUTHORIZED);
}
