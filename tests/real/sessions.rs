//! Two replicas behind a round-robin front, access tokens of five seconds, and stores that fail in the middle: nobody notices.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use http::StatusCode;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use vestibule_test_support::real::RealProvider;
use vestibule_test_support::stores::{Postgres, Redis};
use vestibule_test_support::{Browser, Launch, Program, Site, Stage, free_port, json, until};

use crate::session_streams::Stream;

const PROGRAM: &str = env!("CARGO_BIN_EXE_vestibule");

/// Requests of one page at once.
const AT_ONCE: usize = 8;
const PROXY: &str = "[identity]\nname_claim = \"preferred_username\"\n[upstream]\naccess_token = \"bearer\"\n";

/// People, each with a browser of their own (`TESTS_PEOPLE`).
fn people() -> usize {
    std::env::var("TESTS_PEOPLE").ok().and_then(|people| people.parse().ok()).unwrap_or(6)
}

/// How long they open pages (`TESTS_SECONDS`).
fn span() -> Duration {
    Duration::from_secs(std::env::var("TESTS_SECONDS").ok().and_then(|span| span.parse().ok()).unwrap_or(16))
}

/// Each connection to the next replica.
struct Front(SocketAddr);

impl Front {
    async fn start(port: u16, replicas: Vec<SocketAddr>) -> Self {
        let listener = TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, port)).await.expect("the port of the front");
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let next = AtomicUsize::new(0);
            while let Ok((mut client, _)) = listener.accept().await {
                let turn = next.fetch_add(1, Ordering::Relaxed);
                let [replica, other] = [turn, turn + 1].map(|turn| replicas[turn % replicas.len()]);
                tokio::spawn(async move {
                    let mut server = match TcpStream::connect(replica).await {
                        Ok(server) => server,
                        // Somebody else, where nobody listens.
                        Err(_) => match TcpStream::connect(other).await {
                            Ok(server) => server,
                            Err(_) => return,
                        },
                    };
                    // Either side may break off.
                    let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
                });
            }
        });
        Self(address)
    }
}

/// Two replicas and their front.
struct Replicas {
    one: Stage,
    _other: Stage,
    front: Front,
}

impl Replicas {
    /// `session` says where sessions lie.
    async fn start(provider: &RealProvider, session: &str) -> Self {
        let port = free_port();
        let toml = format!("{}{PROXY}[session]\n{session}", provider.toml());
        let one = Stage::builder().public_port(port).toml(&toml).start();
        let other = one.replica();
        let front = Front::start(port, vec![one.address(), other.address()]).await;
        Self { one, _other: other, front }
    }

    fn browser(&self) -> Browser {
        let browser = self.one.browser();
        browser.connect(&self.one.origin(), self.front.0);
        browser
    }
}

/// Everybody opens one page after the other while `trouble` goes on.
async fn nobody_notices(provider: RealProvider, session: &str, trouble: impl Future<Output = ()>) {
    let replicas = Arc::new(Replicas::start(&provider, session).await);
    let mut all = Vec::new();
    for _ in 0..people() {
        let browser = replicas.browser();
        let page = provider.sign_in_without_browser_as(&browser, &replicas.one.url("/"), "ada").await;
        assert_eq!(page.echoed("x-forwarded-user").as_deref(), Some("ada"), "{} {}", page.url, page.text());
        all.push(browser);
    }
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
        let url = replicas.one.url("/");
        // A connection for each, so that the front spreads them.
        let tabs: Vec<_> = (0..AT_ONCE).map(|_| browser.tab()).collect();
        for reply in join_all(tabs.iter().map(|tab| tab.fetch(&url))).await {
            assert_eq!(reply.status, StatusCode::OK, "{}", reply.text());
            let token = reply.echoed("authorization").expect("the access token");
            if !tokens.contains(&token) {
                tokens.push(token);
            }
            asked += 1;
        }
        tokio::time::sleep(Duration::from_millis(150)).await;
    }
    (asked, tokens.len())
}

fn rotating() -> RealProvider {
    RealProvider::oidc_provider().client("vestibule-refresh")
}

async fn after(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

#[tokio::test]
async fn two_replicas_and_redis_renew_each_session_of_keycloak_once() {
    let lifespan = json!({ "attributes": { "access.token.lifespan": "5" } });
    let provider = RealProvider::keycloak().registered(&lifespan).await;
    let redis = Redis::start(&[]);
    nobody_notices(provider, &format!("store = \"redis://{}\"", redis.address()), async {}).await;
}

#[tokio::test]
async fn two_replicas_with_cookies_alone_renew_each_session_once() {
    let redis = Redis::start(&[]);
    nobody_notices(rotating(), &format!("share = \"redis://{}\"", redis.address()), async {}).await;
}

#[tokio::test]
async fn with_cookies_alone_redis_may_be_killed_and_no_refresh_token_is_sent_twice() {
    let mut redis = Redis::start(&["--appendonly", "yes", "--appendfsync", "always"]);
    let store = format!("share = \"redis://{}\"", redis.address());
    nobody_notices(rotating(), &store, async {
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
    let store = format!("store = \"redis://{}\"", redis.address());
    nobody_notices(rotating(), &store, async {
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
    let store = format!("store = \"redis+sentinel://{}/main\"", addresses.join(","));
    nobody_notices(rotating(), &store, async {
        after(5).await;
        servers[0].kill();
    })
    .await;
}

#[tokio::test]
async fn two_replicas_and_postgresql_renew_each_session_once() {
    let mut postgres = Postgres::start();
    let store = format!("store = \"{}\"", postgres.location());
    nobody_notices(rotating(), &store, async {
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
    let store = format!("store = \"redis+cluster://{}\"", addresses.join(","));
    nobody_notices(rotating(), &store, async {}).await;
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

/// Two processes with one configuration.
struct Processes {
    port: u16,
    programs: Vec<(Site, Option<Program>)>,
    config: String,
}

impl Processes {
    async fn start(provider: &RealProvider, session: &str) -> Self {
        let port = free_port();
        let text = provider.toml().replace("{port}", &port.to_string());
        let config =
            format!("{text}redirect_uri = \"http://localhost:{port}/auth/callback\"\n{PROXY}[session]\n{session}\n");
        let mut processes = Self { port, programs: Vec::new(), config };
        for _ in 0..2 {
            processes.programs.push((Site::of(PROGRAM), None));
            processes.begin(processes.programs.len() - 1).await;
        }
        processes
    }

    async fn begin(&mut self, which: usize) {
        let (site, program) = &mut self.programs[which];
        let launch = Launch::of(PROGRAM)
            .args([std::path::Path::new("--config"), &site.file("vestibule.toml", &self.config)])
            .env("SESSION_SECRET", "Kq3-wZn7_Yc2tBv8xLs5RdGh9PjFm1Ua6We4QiTo")
            .env("VESTIBULE_UPSTREAM", site.upstream.url())
            .env("VESTIBULE_LISTEN", site.address().to_string())
            .env("VESTIBULE_ADMIN_LISTEN", format!("127.0.0.1:{}", site.admin_port))
            .env("VESTIBULE_WORKERS", "1");
        *program = Some(site.start(launch).await);
    }

    fn addresses(&self) -> Vec<SocketAddr> {
        self.programs.iter().map(|(site, _)| site.address()).collect()
    }
}

/// What one person went through.
#[derive(Debug, Default)]
struct Tale {
    requests: usize,
    /// Connections that broke with the process behind them; each request was sent again.
    broken: usize,
    /// How often the browser had to go by the provider, which asked nothing.
    by_provider: usize,
}

async fn open_pages_whatever_breaks(url: String, browser: Browser) -> Tale {
    let begun = Instant::now();
    let mut tale = Tale::default();
    while begun.elapsed() < span() {
        let mut needs_navigation = false;
        let asked = (0..AT_ONCE).map(|_| {
            let (tab, url) = (browser.tab(), url.clone());
            // A connection that breaks off fails its task.
            async move {
                let again = (tab.clone(), url.clone());
                match tokio::spawn(async move { tab.fetch(&url).await }).await {
                    Ok(reply) => (reply, 0),
                    Err(_) => (again.0.fetch(&again.1).await, 1),
                }
            }
        });
        for (reply, broken) in join_all(asked).await {
            tale.requests += 1;
            tale.broken += broken;
            assert!(matches!(reply.status, StatusCode::OK | StatusCode::UNAUTHORIZED), "{}", reply.text());
            needs_navigation |= reply.status != StatusCode::OK || reply.echoed("authorization").is_none();
        }
        if needs_navigation {
            let page = browser.follow(&url, 10).await;
            assert_eq!(page.status, StatusCode::OK, "the provider asks nothing: {} {}", page.url, page.text());
            assert!(page.echoed("authorization").is_some(), "{}", page.text());
            tale.by_provider += 1;
        }
        tokio::time::sleep(Duration::from_millis(150)).await;
    }
    tale
}

#[tokio::test]
async fn a_replica_is_killed_and_only_renewals_under_way_go_by_the_provider() {
    let redis = Redis::start(&[]);
    a_replica_is_killed(&format!("store = \"redis://{}\"", redis.address())).await;
}

#[tokio::test]
async fn with_cookies_alone_a_killed_replica_costs_only_renewals_under_way() {
    let redis = Redis::start(&[]);
    a_replica_is_killed(&format!("share = \"redis://{}\"", redis.address())).await;
}

async fn a_replica_is_killed(session: &str) {
    let provider = rotating();
    let mut processes = Processes::start(&provider, session).await;
    let front = Front::start(processes.port, processes.addresses()).await;
    let url = format!("http://localhost:{}/", processes.port);
    let mut all = Vec::new();
    for _ in 0..people() {
        let browser = processes.programs[0].0.browser();
        browser.connect(&url, front.0);
        let page = provider.sign_in_without_browser_as(&browser, &url, "ada").await;
        assert_eq!(page.echoed("x-forwarded-user").as_deref(), Some("ada"), "{} {}", page.url, page.text());
        all.push(browser);
    }
    let all = all.into_iter().map(|browser| tokio::spawn(open_pages_whatever_breaks(url.clone(), browser)));
    let all = all.collect::<Vec<_>>();
    after(5).await;
    // SIGKILL, without a goodbye.
    drop(processes.programs[0].1.take());
    after(2).await;
    processes.begin(0).await;
    let mut whole = Tale::default();
    for person in all {
        let Tale { requests, broken, by_provider } = person.await.expect("a page failed");
        assert!(by_provider <= 1, "{by_provider} times by the provider for one kill");
        whole.requests += requests;
        whole.broken += broken;
        whole.by_provider += by_provider;
    }
    tracing::info!(people = people(), ?whole, "a replica was killed");
    assert!(whole.by_provider < people(), "{whole:?}");
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
