//! The program between a provider and an application of the tests, with sessions in cookies or in a Redis.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::StatusCode;
use vestibule_test_support::stores::Redis;
use vestibule_test_support::{Browser, FakeProvider, Front, Launch, Nginx, Program, Reply, Site, free_port};

/// What is measured, and how long.
pub(crate) struct Kit {
    pub(crate) program: String,
    pub(crate) short: bool,
}

impl Kit {
    /// A span, or what is enough to see that everything works.
    pub(crate) fn span(&self, whole: u64, short: u64) -> Duration {
        Duration::from_secs(if self.short { short } else { whole })
    }
}

/// Where sessions lie: a column each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Store {
    Cookie,
    Redis,
}

impl Store {
    pub(crate) const ALL: [Self; 2] = [Self::Cookie, Self::Redis];
    pub(crate) const COLUMNS: [&'static str; 2] = ["Vestibule, cookie", "Vestibule, Redis"];
}

/// One or two running programs.
pub(crate) struct House {
    pub(crate) site: Site,
    pub(crate) programs: Vec<Program>,
    public_port: u16,
    /// Where browsers connect.
    door: SocketAddr,
    _nginx: Option<Nginx>,
    // Ends last.
    _redis: Option<Redis>,
}

/// The application sees access tokens, so that those that have expired are seen.
pub(crate) const PASSES_TOKENS: &str = "[upstream]\naccess_token = \"bearer\"\n";

impl House {
    /// One process.
    pub(crate) async fn start(kit: &Kit, store: Store, toml: &str) -> Self {
        let site = Site::of(&kit.program);
        let redis = (store == Store::Redis).then(|| Redis::start(&[]));
        let launch = launch(&site, toml, redis.as_ref().map(|redis| ("VESTIBULE_SESSION_STORE", redis)));
        let program = site.start(launch).await;
        Self {
            public_port: site.port,
            door: site.address(),
            programs: vec![program],
            site,
            _nginx: None,
            _redis: redis,
        }
    }

    /// Two processes behind a balancer that takes turns; with sessions in cookies a Redis tells each what has ended and what was renewed.
    pub(crate) async fn replicated(kit: &Kit, store: Store, toml: &str) -> Self {
        let site = Site::of(&kit.program);
        let redis = Redis::start(&[]);
        let public_port = free_port();
        let variable = match store {
            Store::Cookie => "VESTIBULE_SESSION_SHARE",
            Store::Redis => "VESTIBULE_SESSION_STORE",
        };
        let of = |port: u16, admin: u16| {
            launch(&site, toml, Some((variable, &redis)))
                .env("OIDC_REDIRECT_URI", format!("http://localhost:{public_port}/auth/callback"))
                .env("VESTIBULE_LISTEN", format!("127.0.0.1:{port}"))
                .env("VESTIBULE_ADMIN_LISTEN", format!("127.0.0.1:{admin}"))
        };
        let (port, admin) = (free_port(), free_port());
        let programs = vec![site.start(of(site.port, site.admin_port)).await, site.start_alone(of(port, admin))];
        let ready = format!("http://127.0.0.1:{admin}/readyz");
        until("the other replica", async || site.browser().fetch(&ready).await.text().contains("\"available\"")).await;
        let front = Front::start(public_port, vec![site.address(), SocketAddr::from(([127, 0, 0, 1], port))]).await;
        Self { public_port, door: front.address(), programs, site, _nginx: None, _redis: Some(redis) }
    }

    /// One process behind an nginx as Debian installs it.
    pub(crate) async fn behind_nginx(kit: &Kit, store: Store, toml: &str) -> Self {
        let site = Site::of(&kit.program);
        let redis = (store == Store::Redis).then(|| Redis::start(&[]));
        let public_port = free_port();
        let launch = launch(&site, toml, redis.as_ref().map(|redis| ("VESTIBULE_SESSION_STORE", redis)))
            .env("OIDC_REDIRECT_URI", format!("http://localhost:{public_port}/auth/callback"));
        let programs = vec![site.start(launch).await];
        let nginx = Nginx::stock(public_port, site.address());
        Self { public_port, door: nginx.address(), programs, site, _nginx: Some(nginx), _redis: redis }
    }

    pub(crate) fn provider(&self) -> &Arc<FakeProvider> {
        &self.site.provider
    }

    pub(crate) fn origin(&self) -> String {
        format!("http://localhost:{}", self.public_port)
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.origin())
    }

    pub(crate) fn door(&self) -> SocketAddr {
        self.door
    }

    pub(crate) fn browser(&self) -> Browser {
        let browser = self.site.browser();
        browser.connect(&self.origin(), self.door);
        browser
    }

    /// One that meets the first process itself, whatever stands in front.
    pub(crate) fn browser_inside(&self) -> Browser {
        let browser = self.site.browser();
        browser.connect(&self.origin(), self.site.address());
        browser
    }

    pub(crate) async fn sign_in(&self, browser: &Browser) -> Reply {
        browser.follow(&self.url("/"), 10).await
    }

    /// # Panics
    /// When the sign-in does not end in the application.
    pub(crate) async fn signed_in(&self) -> Browser {
        let browser = self.browser();
        let reply = self.sign_in(&browser).await;
        assert_eq!(reply.status, StatusCode::OK, "{} {}", reply.url, reply.text());
        browser
    }
}

/// The program with `toml`, and with a variable that names a Redis.
fn launch(site: &Site, toml: &str, redis: Option<(&str, &Redis)>) -> Launch {
    let launch = site.launch().env("VESTIBULE_CONFIG", site.file("vestibule.toml", toml));
    match redis {
        Some((variable, redis)) => launch.env(variable, format!("redis://{}", redis.address())),
        None => launch,
    }
}

/// Waits for at most half a minute.
pub(crate) async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(30);
    while !is_so().await {
        assert!(Instant::now() < end, "waited for {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
