//! People who open pages for a while, with access tokens of five seconds: at two replicas behind a round-robin front and a store
//! that may fail in the middle, at a provider that may go away, and with cookies alone at one proxy. Nobody notices.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use http::StatusCode;
use vestibule_test_support::real::RealProvider;
use vestibule_test_support::stores::{Postgres, Redis};
use vestibule_test_support::{Browser, Front, Relay, Stage, free_port, json};

use crate::session_streams::Stream;

/// Requests of one page at once.
pub(super) const AT_ONCE: usize = 8;
pub(super) const PROXY: &str =
    "[identity]\nname_claim = \"preferred_username\"\n[upstream]\naccess_token = \"bearer\"\n";
/// Between two pages of one person.
pub(super) const PAUSE: Duration = Duration::from_millis(150);

/// People, each with a browser of their own (`TESTS_PEOPLE`).
pub(super) fn people() -> usize {
    number("TESTS_PEOPLE").and_then(|people| people.try_into().ok()).unwrap_or(6)
}

/// How long they open pages (`TESTS_SECONDS`).
pub(super) fn span() -> Duration {
    Duration::from_secs(number("TESTS_SECONDS").unwrap_or(16))
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

/// Access tokens of five seconds. `TESTS_PROVIDER` (`keycloak`, `oidc-provider`) has every story with that one.
async fn provider(usual: fn() -> RealProvider) -> RealProvider {
    let chosen = std::env::var("TESTS_PROVIDER").unwrap_or_default();
    let provider = match chosen.as_str() {
        "keycloak" => keycloak(),
        "oidc-provider" => rotating(),
        _ => usual(),
    };
    short_lived(provider).await
}

/// Where the sessions of a story lie.
enum Lie {
    /// In a store of two replicas.
    In(String),
    /// In the cookies of two replicas that share what they renew.
    Shared(String),
    /// In the cookies, of one proxy.
    InCookies,
}

/// One or two, and their front.
struct Replicas {
    one: Stage,
    _other: Option<Stage>,
    front: Front,
}

impl Replicas {
    async fn start(provider: &RealProvider, lie: &Lie) -> Self {
        let port = free_port();
        let session = match lie {
            Lie::In(store) => format!("[session]\nstore = \"{store}\""),
            Lie::Shared(store) => format!("[session]\nshare = \"{store}\""),
            Lie::InCookies => String::new(),
        };
        let toml = format!("{}{PROXY}{session}", provider.toml());
        let one = Stage::builder().public_port(port).toml(&toml).start();
        let other = (!matches!(lie, Lie::InCookies)).then(|| one.replica());
        let addresses = [Some(&one), other.as_ref()].into_iter().flatten().map(Stage::address).collect();
        let front = Front::start(port, addresses).await;
        Self { one, _other: other, front }
    }

    fn browser(&self) -> Browser {
        let browser = self.one.browser();
        browser.connect(&self.one.origin(), self.front.address());
        browser
    }

    /// So many people who are signed in.
    async fn signed_in(&self, provider: &RealProvider) -> Vec<Browser> {
        let mut all = Vec::new();
        for _ in 0..people() {
            let browser = self.browser();
            let page = provider.sign_in_without_browser_as(&browser, &self.one.url("/"), "ada").await;
            assert_eq!(page.echoed("x-forwarded-user").as_deref(), Some("ada"), "{} {}", page.url, page.text());
            all.push(browser);
        }
        all
    }

    /// One page of a person: many requests at once, each by a connection of its own, so that the front spreads them. The
    /// access tokens that the application saw.
    async fn page(&self, browser: &Browser) -> Vec<Option<String>> {
        let url = self.one.url("/");
        let tabs: Vec<_> = (0..AT_ONCE).map(|_| browser.tab()).collect();
        let replies = join_all(tabs.iter().map(|tab| tab.fetch(&url))).await;
        let seen = |reply: vestibule_test_support::Reply| {
            assert_eq!(reply.status, StatusCode::OK, "{}", reply.text());
            reply.echoed("authorization")
        };
        replies.into_iter().map(seen).collect()
    }
}

/// Everybody opens one page after the other while `trouble` goes on.
async fn nobody_notices(provider: RealProvider, lie: Lie, trouble: impl Future<Output = ()>) {
    let replicas = Arc::new(Replicas::start(&provider, &lie).await);
    let all = replicas.signed_in(&provider).await;
    let all =
        all.into_iter().map(|browser| tokio::spawn(open_pages(Arc::clone(&replicas), browser))).collect::<Vec<_>>();
    trouble.await;
    // Renewed a second before its end at the earliest: every four seconds; a few more for what began before.
    let most = span().as_secs() as usize / 4 + 2;
    let least = span().as_secs() as usize / 5;
    let (mut requests, mut tokens) = (0, 0);
    for person in all {
        let (asked, seen) = person.await.expect("a page failed");
        assert!((least..=most).contains(&seen), "{seen} access tokens of one person in {:?}", span());
        requests += asked;
        tokens += seen;
    }
    tracing::info!(people = people(), span = ?span(), requests, tokens, "nobody noticed");
}

/// How many requests, and how many access tokens the application saw of this person.
async fn open_pages(replicas: Arc<Replicas>, browser: Browser) -> (usize, usize) {
    let begun = Instant::now();
    let mut tokens: Vec<String> = Vec::new();
    let mut asked = 0;
    while begun.elapsed() < span() {
        for token in replicas.page(&browser).await {
            let token = token.expect("the access token");
            if !tokens.contains(&token) {
                tokens.push(token);
            }
            asked += 1;
        }
        tokio::time::sleep(PAUSE).await;
    }
    (asked, tokens.len())
}

fn keycloak() -> RealProvider {
    RealProvider::keycloak()
}

pub(super) fn rotating() -> RealProvider {
    RealProvider::oidc_provider().client("vestibule-refresh")
}

/// With access tokens of five seconds; those of oidc-provider's clients are.
async fn short_lived(provider: RealProvider) -> RealProvider {
    if !provider.is_keycloak() {
        return provider;
    }
    provider.registered(&json!({ "attributes": { "access.token.lifespan": "5" } })).await
}

pub(super) async fn after(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

#[tokio::test]
async fn one_proxy_renews_each_session_of_keycloak_in_its_cookie_once() {
    nobody_notices(short_lived(keycloak()).await, Lie::InCookies, async {}).await;
}

#[tokio::test]
async fn one_proxy_renews_each_session_of_oidc_provider_in_its_cookie_once() {
    nobody_notices(rotating(), Lie::InCookies, async {}).await;
}

#[tokio::test]
async fn two_replicas_and_redis_renew_each_session_of_keycloak_once() {
    let redis = Redis::start(&[]);
    nobody_notices(provider(keycloak).await, Lie::In(format!("redis://{}", redis.address())), async {}).await;
}

#[tokio::test]
async fn two_replicas_with_cookies_alone_renew_each_session_once() {
    let redis = Redis::start(&[]);
    nobody_notices(provider(rotating).await, Lie::Shared(format!("redis://{}", redis.address())), async {}).await;
}

#[tokio::test]
async fn with_cookies_alone_redis_may_be_killed_and_no_refresh_token_is_sent_twice() {
    let mut redis = Redis::start(&["--appendonly", "yes", "--appendfsync", "always"]);
    let store = format!("redis://{}", redis.address());
    nobody_notices(provider(rotating).await, Lie::Shared(store), async {
        after(5).await;
        redis.kill();
        after(2).await;
        redis.begin();
    })
    .await;
}

#[tokio::test]
async fn redis_is_killed_and_comes_back_and_no_refresh_token_is_sent_twice() {
    let mut redis = Redis::start(&["--appendonly", "yes", "--appendfsync", "always"]);
    let store = format!("redis://{}", redis.address());
    nobody_notices(provider(rotating).await, Lie::In(store), async {
        after(5).await;
        redis.kill();
        after(2).await;
        redis.begin();
    })
    .await;
}

#[tokio::test]
async fn sentinels_choose_another_master_and_nobody_notices() {
    let (mut servers, sentinels) = Redis::sentinels();
    let addresses: Vec<_> = sentinels.iter().map(|sentinel| sentinel.address().to_string()).collect();
    let store = format!("redis+sentinel://{}/main", addresses.join(","));
    nobody_notices(provider(rotating).await, Lie::In(store), async {
        after(5).await;
        servers[0].kill();
    })
    .await;
}

#[tokio::test]
async fn two_replicas_and_postgresql_renew_each_session_once() {
    let mut postgres = Postgres::start();
    let store = postgres.location();
    nobody_notices(provider(rotating).await, Lie::In(store), async {
        after(5).await;
        postgres.kill();
        after(1).await;
        postgres.begin();
    })
    .await;
}

#[tokio::test]
async fn a_cluster_keeps_sessions_too() {
    let nodes = Redis::cluster();
    let addresses: Vec<_> = nodes.iter().map(|node| node.address().to_string()).collect();
    let store = format!("redis+cluster://{}", addresses.join(","));
    nobody_notices(provider(rotating).await, Lie::In(store), async {}).await;
}

/// What a person went through whose provider went away.
#[derive(Debug, Default)]
struct Meanwhile {
    requests: usize,
    /// Those that went on without an access token, since the last one had expired.
    without_token: usize,
    /// How often the browser had to go by the provider afterwards, which asked nothing.
    by_provider: usize,
}

/// The provider is away for 20 seconds, or a third of the time. Every request is answered as that of somebody who is signed
/// in; who has no access token afterwards goes by the provider once, where a refresh token was under way when it went.
async fn the_provider_goes_away(provider: fn() -> RealProvider, lie: Lie) {
    let provider = provider();
    let wire = Arc::new(Relay::to(provider.address()));
    let provider = short_lived(provider).await.behind(wire.address());
    let replicas = Arc::new(Replicas::start(&provider, &lie).await);
    let all = replicas.signed_in(&provider).await;
    let begun = Instant::now();
    let all = all.into_iter().map(|browser| tokio::spawn(go_on(Arc::clone(&replicas), browser))).collect::<Vec<_>>();
    let away = (span() / 3).min(Duration::from_secs(20));
    after(4).await;
    wire.cut();
    tokio::time::sleep(away).await;
    wire.mend();
    let mut whole = Meanwhile::default();
    for person in all {
        let Meanwhile { requests, without_token, by_provider } = person.await.expect("a page failed");
        assert!(by_provider <= 1, "{by_provider} times by the provider for one outage");
        whole.requests += requests;
        whole.without_token += without_token;
        whole.by_provider += by_provider;
    }
    tracing::info!(people = people(), ?away, took = ?begun.elapsed(), ?whole, "the provider was away");
    assert!(whole.without_token > 0, "it was not away for long enough: {whole:?}");
    assert!(whole.by_provider <= people() / 2, "{whole:?}");
}

/// Pages until the time is over, and then until there is an access token again.
async fn go_on(replicas: Arc<Replicas>, browser: Browser) -> Meanwhile {
    // A renewal that failed is tried again after half a minute at the latest.
    const LATEST: Duration = Duration::from_secs(35);
    let begun = Instant::now();
    let mut person = Meanwhile::default();
    loop {
        let tokens = replicas.page(&browser).await;
        let missing = tokens.iter().filter(|token| token.is_none()).count();
        person.requests += tokens.len();
        person.without_token += missing;
        if begun.elapsed() >= span() && missing == 0 {
            return person;
        }
        if begun.elapsed() >= span() + LATEST {
            let page = browser.follow(&replicas.one.url("/"), 10).await;
            assert_eq!(page.status, StatusCode::OK, "the provider asks nothing: {} {}", page.url, page.text());
            assert!(page.echoed("authorization").is_some(), "{}", page.text());
            person.by_provider += usize::from(page.visited.iter().any(|visited| visited.origin() != page.url.origin()));
            return person;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

#[tokio::test]
async fn keycloak_is_away_for_a_while_and_everybody_goes_on() {
    let redis = Redis::start(&[]);
    the_provider_goes_away(keycloak, Lie::In(format!("redis://{}", redis.address()))).await;
}

#[tokio::test]
async fn oidc_provider_is_away_for_a_while_and_everybody_goes_on() {
    let redis = Redis::start(&[]);
    the_provider_goes_away(rotating, Lie::In(format!("redis://{}", redis.address()))).await;
}

#[tokio::test]
async fn oidc_provider_is_away_for_a_while_and_everybody_with_a_cookie_goes_on() {
    the_provider_goes_away(rotating, Lie::InCookies).await;
}

#[tokio::test]
async fn keycloak_ends_a_session_at_both_replicas_with_every_copy_and_every_stream() {
    let redis = Redis::start(&[]);
    let (port, told) = (free_port(), free_port());
    let attributes = json!({ "attributes": {
        "backchannel.logout.url": format!("http://127.0.0.1:{told}/auth/backchannel-logout"),
        "backchannel.logout.session.required": "true",
    }});
    let provider = RealProvider::keycloak().registered(&attributes).await;
    let person = provider.new_person().await;
    let toml = format!("{}{PROXY}[session]\nstore = \"redis://{}\"", provider.toml(), redis.address());
    let one = Stage::builder().port(told).public_port(port).toml(&toml).start();
    let other = one.replica();
    let browser = one.browser();
    let page = provider.sign_in_without_browser_as(&browser, &one.url("/"), &person).await;
    assert_eq!(page.echoed("x-forwarded-user").as_deref(), Some(&*person), "{} {}", page.url, page.text());
    let copy = browser.stolen_copy();
    copy.connect(&other.origin(), other.address());
    let (mut sockets, mut events) = (Vec::new(), Vec::new());
    for (stage, browser) in [(&one, &browser), (&other, &copy)] {
        sockets.push(Stream::web_socket(stage, browser).await);
        events.push(Stream::events(stage, browser, "/sse").await);
    }
    let begun = Instant::now();
    provider.end_all_sessions_of(&person).await;
    for (stage, browser) in [(&one, &browser), (&other, &copy)] {
        loop {
            let reply = browser.fetch(&stage.url("/")).await;
            if reply.status == StatusCode::UNAUTHORIZED {
                break;
            }
            assert!(begun.elapsed() < Duration::from_secs(5), "the session lives on");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    let ended = begun.elapsed();
    // Each within a second of that.
    for stream in &mut sockets {
        stream.assert_told().await;
    }
    for stream in &mut events {
        stream.assert_cut().await;
    }
    tracing::info!(?ended, streams = ?begun.elapsed(), "asked, told, and ended at both");
}
