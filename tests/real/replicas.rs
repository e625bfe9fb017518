//! Two processes of the program, one of which is killed, or stands still for a while: the other goes on.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use http::StatusCode;
use vestibule_test_support::real::RealProvider;
use vestibule_test_support::stores::Redis;
use vestibule_test_support::{Browser, Front, Launch, Program, Site, free_port, until};

use super::sessions::{AT_ONCE, PAUSE, PROXY, after, people, rotating, span};

const PROGRAM: &str = env!("CARGO_BIN_EXE_vestibule");

/// Two processes with one configuration.
struct Processes {
    port: u16,
    programs: Vec<(Site, Option<Program>)>,
    config: String,
}

impl Processes {
    /// `session` says where sessions lie.
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

    fn url(&self) -> String {
        format!("http://localhost:{}/", self.port)
    }

    /// Somebody who is signed in, by way of `at`.
    async fn signed_in(&self, provider: &RealProvider, at: SocketAddr) -> Browser {
        let (browser, url) = (self.programs[0].0.browser(), self.url());
        browser.connect(&url, at);
        let page = provider.sign_in_without_browser_as(&browser, &url, "ada").await;
        assert_eq!(page.echoed("x-forwarded-user").as_deref(), Some("ada"), "{} {}", page.url, page.text());
        browser
    }

    fn signal(&self, which: usize, name: &str) {
        self.programs[which].1.as_ref().expect("a program that runs").signal(name);
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
            // Not where it was renewed meanwhile.
            tale.by_provider += usize::from(page.visited.iter().any(|visited| visited.origin() != page.url.origin()));
        }
        tokio::time::sleep(PAUSE).await;
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
    let url = processes.url();
    let mut all = Vec::new();
    for _ in 0..people() {
        all.push(processes.signed_in(&provider, front.address()).await);
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
async fn a_replica_that_stands_still_holds_up_nobody_elsewhere_and_hears_what_has_ended_when_it_goes_on() {
    let redis = Redis::start(&[]);
    let provider = rotating();
    let processes = Processes::start(&provider, &format!("store = \"redis://{}\"", redis.address())).await;
    let (still, other) = (processes.addresses()[0], processes.addresses()[1]);
    let url = processes.url();
    let staying = processes.signed_in(&provider, other).await;
    let leaving = processes.signed_in(&provider, other).await;
    let copy = leaving.stolen_copy();
    copy.connect(&url, still);
    assert_eq!(copy.fetch(&url).await.status, StatusCode::OK);
    processes.signal(0, "STOP");
    let stopped = Instant::now();
    // Longer than an access token lives.
    while stopped.elapsed() < Duration::from_secs(7) {
        let asked = Instant::now();
        let reply = staying.fetch(&url).await;
        assert_eq!(reply.status, StatusCode::OK, "{}", reply.text());
        assert!(reply.echoed("authorization").is_some(), "the renewal waits for nobody");
        assert!(asked.elapsed() < Duration::from_secs(2), "{:?}", asked.elapsed());
        tokio::time::sleep(PAUSE).await;
    }
    processes.signed_in(&provider, other).await;
    let begun = Instant::now();
    leaving.get(&format!("{url}auth/logout")).await;
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    assert_eq!(leaving.stolen_copy().fetch(&url).await.status, StatusCode::UNAUTHORIZED);
    processes.signal(0, "CONT");
    let woken = Instant::now();
    until("it has heard", async || copy.fetch(&url).await.status == StatusCode::UNAUTHORIZED).await;
    tracing::info!(after = ?woken.elapsed(), "a replica that stood still has heard what ended");
    assert_eq!(staying.fetch(&url).await.status, StatusCode::OK);
}
