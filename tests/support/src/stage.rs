//! Starts the proxy in this process, in front of an [`EchoUpstream`] and behind a [`FakeProvider`].

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use vestibule::app::Running;
use vestibule::clock::SharedClock;
use vestibule::config::{self, Sources};
use vestibule::upstream::Lookup;

use crate::browser::{Browser, Reply};
use crate::clock::TestClock;
use crate::echo::EchoUpstream;
use crate::provider::FakeProvider;
use crate::watch::Watch;

/// How long a stage may take to stop when it is dropped.
const STOP_DEADLINE: Duration = Duration::from_secs(10);
/// How long a start is tried again while the port is still taken.
const START_DEADLINE: Duration = Duration::from_secs(10);
/// The session secret unless a test says otherwise.
const SESSION_SECRET: &str = "Xq7-mVt2_Kd9zLr4wNc8YbHs1PfJg6Ue3Ra5TiOo0";

/// A running proxy with its surroundings; stopped when dropped.
pub struct Stage {
    /// The provider.
    pub provider: Arc<FakeProvider>,
    /// The application.
    pub upstream: Arc<EchoUpstream>,
    /// The time of proxy, provider and user agents.
    pub clock: TestClock,
    plan: Plan,
    running: Option<Running>,
    address: SocketAddr,
    admin: Option<SocketAddr>,
    warnings: Vec<String>,
}

/// How to start a stage.
#[derive(Debug, Default)]
pub struct StageBuilder {
    toml: String,
    port: Option<u16>,
    public_port: Option<u16>,
    provider: Option<Arc<FakeProvider>>,
    upstream: Option<Arc<EchoUpstream>>,
    clock: Option<TestClock>,
    grace: Duration,
    without_provider: bool,
    lookup: Option<Lookup>,
}

#[derive(Debug, Clone)]
struct Plan {
    toml: String,
    port: Option<u16>,
    public_port: Option<u16>,
    grace: Duration,
    without_provider: bool,
    lookup: Option<Lookup>,
}

impl Stage {
    /// Starts with the defaults.
    pub fn start() -> Self {
        Self::builder().start()
    }

    /// Starts with further TOML: a key that stands in the defaults replaces that default.
    pub fn with(toml: &str) -> Self {
        Self::builder().toml(toml).start()
    }

    /// What to start.
    pub fn builder() -> StageBuilder {
        StageBuilder::default()
    }

    /// The proxy's origin as user agents know it: `http://localhost:PORT`. The provider lives on `127.0.0.1`, which is
    /// another site, as providers are.
    pub fn origin(&self) -> String {
        format!("http://{}", self.host())
    }

    /// Host and port, for a `Host` header written by hand.
    pub fn host(&self) -> String {
        format!("localhost:{}", self.plan.public_port.unwrap_or(self.address.port()))
    }

    /// An absolute URL below the origin.
    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.origin())
    }

    /// The socket that the proxy listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The socket of health, readiness and metrics.
    ///
    /// # Panics
    /// When the test has switched it off.
    pub fn admin_address(&self) -> SocketAddr {
        self.admin.expect("an admin listener")
    }

    /// An absolute URL on the admin listener.
    pub fn admin_url(&self, path: &str) -> String {
        format!("http://{}{path}", self.admin_address())
    }

    /// What loading the configuration warned of.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// A user agent with an empty jar, for which this stage answers at its origin. A refused sign-in of it of which something
    /// comes fails the test.
    pub fn browser(&self) -> Browser {
        let browser = Browser::new(self.clock.clone()).watched(self.watch());
        browser.connect(&self.origin(), self.address);
        browser
    }

    fn watch(&self) -> Watch {
        Watch::new(self.provider.clone(), self.upstream.clone())
    }

    /// Navigates to `path` and follows every redirect; at the fake provider that is a whole sign-in.
    pub async fn sign_in(&self, browser: &Browser, path: &str) -> Reply {
        browser.follow(&self.url(path), 10).await
    }

    /// A user agent that is signed in and an upstream that has forgotten it.
    ///
    /// # Panics
    /// When the sign-in does not end in the application.
    pub async fn signed_in_browser(&self) -> Browser {
        let browser = self.browser();
        let reply = self.sign_in(&browser, "/").await;
        assert_eq!(reply.status, 200, "the sign-in ended at {}: {}", reply.url, reply.text());
        self.upstream.forget();
        browser
    }

    /// Waits until the proxy knows the provider: an authorization request needs its metadata.
    ///
    /// # Panics
    /// When that takes longer than 20 s.
    pub async fn wait_for_provider(&self) {
        self.wait_for_readiness("the provider's metadata", |reply| {
            reply.status == 200 && reply.json()["provider"] != "unavailable"
        })
        .await;
    }

    /// Polls `/readyz` until `is_right`.
    ///
    /// # Panics
    /// When that takes longer than 20 s.
    pub async fn wait_for_readiness(&self, what: &str, is_right: impl Fn(&Reply) -> bool) {
        let browser = Browser::new(self.clock.clone());
        let end = Instant::now() + Duration::from_secs(20);
        loop {
            let reply = browser.fetch(&self.admin_url("/readyz")).await;
            if is_right(&reply) {
                return;
            }
            assert!(Instant::now() < end, "waited for {what}; readiness says {} {}", reply.status, reply.text());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Another proxy behind the same origin: same secret, same provider, same application, a port of its own. Choose who
    /// answers with [`Browser::connect`].
    pub fn replica(&self) -> Self {
        let port = self.plan.public_port.unwrap_or(self.address.port());
        let plan = Plan { port: None, public_port: Some(port), ..self.plan.clone() };
        Self::launch(plan, self.provider.clone(), self.upstream.clone(), self.clock.clone())
    }

    /// Stops this proxy and starts another on the same port with the same configuration.
    pub fn restart(mut self) -> Self {
        self.stop();
        let plan = Plan { port: Some(self.address.port()), ..self.plan.clone() };
        Self::launch(plan, self.provider.clone(), self.upstream.clone(), self.clock.clone())
    }

    /// Stops the proxy, within a bound. Doing it twice does nothing.
    pub fn stop(&mut self) {
        let Some(running) = self.running.take() else { return };
        running.stop();
        // `wait` has no deadline of its own here: a proxy that does not stop must fail a test, not hang it.
        let (ended, end) = mpsc::channel();
        std::thread::spawn(move || {
            running.wait();
            let _ = ended.send(());
        });
        let stopped = end.recv_timeout(STOP_DEADLINE).is_ok();
        assert!(stopped || std::thread::panicking(), "the proxy did not stop within {STOP_DEADLINE:?}");
    }

    /// Begins the stop without waiting for its end.
    pub fn begin_stop(&self) {
        self.running.as_ref().expect("a running proxy").stop();
    }

    fn launch(plan: Plan, provider: Arc<FakeProvider>, upstream: Arc<EchoUpstream>, clock: TestClock) -> Self {
        let end = Instant::now() + START_DEADLINE;
        loop {
            let port = plan.port.unwrap_or_else(free_port);
            let text = toml_text(&plan, port, &provider, &upstream);
            let loaded = config::load(&Sources::toml(&text))
                .unwrap_or_else(|problems| panic!("the configuration has problems: {problems:#?}\n{text}"));
            let mut settings = loaded.settings;
            settings.server.drain.grace = plan.grace;
            settings.server.drain.timeout = Duration::from_secs(2);
            settings.server.reload_interval = Duration::from_millis(100);
            if let Some(lookup) = &plan.lookup {
                settings.upstreams.iter_mut().for_each(|upstream| upstream.lookup = lookup.clone());
            }
            let shared: SharedClock = Arc::new(clock.clone());
            crate::trace::begin();
            crate::trace::secret("session secret", SESSION_SECRET);
            match vestibule::app::start(settings, shared) {
                Ok(running) => {
                    let stage = Self {
                        address: running.address().expect("a listener on a port"),
                        admin: running.admin_address(),
                        warnings: loaded.warnings.iter().map(|warning| format!("{warning:?}")).collect(),
                        running: Some(running),
                        provider,
                        upstream,
                        clock,
                        plan,
                    };
                    if let Some(admin) = stage.admin.filter(|_| !stage.plan.without_provider) {
                        wait_until_ready(admin);
                    }
                    return stage;
                }
                // Somebody took the port between our look and the start, or the proxy before us is not quite gone.
                Err(error) if is_address_in_use(&error) && Instant::now() < end => {
                    std::thread::sleep(Duration::from_millis(50));
                }
                Err(error) => panic!("the proxy did not start: {error:?}\n{text}"),
            }
        }
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.stop();
        // A second panic would hide the first.
        if !std::thread::panicking() {
            self.watch().judge_all();
        }
    }
}

impl StageBuilder {
    /// Further TOML: keys that stand in the defaults replace them, everything else is added.
    pub fn toml(mut self, toml: &str) -> Self {
        self.toml.push_str(toml);
        self.toml.push('\n');
        self
    }

    /// Listens on this port instead of a free one.
    pub fn port(mut self, port: u16) -> Self {
        self.port = Some(port);
        self
    }

    /// The port in the redirect URI, where that is not the one listened on.
    pub fn public_port(mut self, port: u16) -> Self {
        self.public_port = Some(port);
        self
    }

    /// Uses a provider that exists already.
    pub fn provider(mut self, provider: Arc<FakeProvider>) -> Self {
        self.provider = Some(provider);
        self
    }

    /// Uses an upstream that exists already.
    pub fn upstream(mut self, upstream: Arc<EchoUpstream>) -> Self {
        self.upstream = Some(upstream);
        self
    }

    /// Uses a clock that exists already.
    pub fn clock(mut self, clock: TestClock) -> Self {
        self.clock = Some(clock);
        self
    }

    /// Starts without waiting for the proxy to know its provider: for providers that are away or at fault.
    pub fn without_provider(mut self) -> Self {
        self.without_provider = true;
        self
    }

    /// What the upstreams' names stand for.
    pub fn lookup(mut self, lookup: Lookup) -> Self {
        self.lookup = Some(lookup);
        self
    }

    /// How long new connections are served after a stop has begun; none by default.
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// Starts everything that was not given, the proxy last.
    pub fn start(self) -> Stage {
        let clock = self.clock.unwrap_or_default();
        let provider = self.provider.unwrap_or_else(|| Arc::new(FakeProvider::start(clock.clone())));
        let upstream = self.upstream.unwrap_or_else(|| Arc::new(EchoUpstream::start()));
        let plan = Plan {
            toml: self.toml,
            port: self.port,
            public_port: self.public_port,
            grace: self.grace,
            without_provider: self.without_provider,
            lookup: self.lookup,
        };
        Stage::launch(plan, provider, upstream, clock)
    }
}

/// Blocks until readiness is 200 and names no provider as unavailable: tests that sign in at once must not race against
/// discovery.
fn wait_until_ready(admin: SocketAddr) {
    let end = Instant::now() + START_DEADLINE;
    loop {
        let answer = readiness(admin).unwrap_or_else(|error| format!("{error}"));
        if answer.starts_with("HTTP/1.1 200") && !answer.contains("unavailable") {
            return;
        }
        assert!(Instant::now() < end, "the proxy does not know its provider after {START_DEADLINE:?}: {answer}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn readiness(admin: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(admin)?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    write!(stream, "GET /readyz HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// A port of 127.0.0.1 that nobody listens on, from below the range that the system takes outgoing ports from; no port is
/// given twice in one process.
pub fn free_port() -> u16 {
    const FIRST: u16 = 10_240;
    const COUNT: u16 = 20_000;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Test processes that run side by side start at different places.
    let start = u16::try_from(std::process::id().wrapping_mul(7919) % u32::from(COUNT)).expect("a small number");
    for _ in 0..COUNT {
        let step = NEXT.fetch_add(1, Ordering::Relaxed) % COUNT;
        let port = FIRST + (start + step) % COUNT;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
    panic!("no free port");
}

fn is_address_in_use(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        let io = error.downcast_ref::<std::io::Error>();
        if io.is_some_and(|io| io.kind() == std::io::ErrorKind::AddrInUse) {
            return true;
        }
        cause = error.source();
    }
    false
}

fn toml_text(plan: &Plan, port: u16, provider: &FakeProvider, upstream: &EchoUpstream) -> String {
    let public_port = plan.public_port.unwrap_or(port);
    let defaults = format!(
        r#"listen = "127.0.0.1:{port}"
admin_listen = "127.0.0.1:0"
workers = 1
[provider]
issuer = "{issuer}"
client_id = "{client_id}"
client_secret = "{client_secret}"
redirect_uri = "http://localhost:{public_port}/auth/callback"
[session]
secret = "{SESSION_SECRET}"
[upstream]
url = "{upstream}"
"#,
        issuer = provider.issuer(),
        client_id = provider.client_id(),
        client_secret = provider.client_secret(),
        upstream = upstream.url(),
    );
    // A test's TOML can name the ports of its stage.
    let own = plan.toml.replace("{port}", &public_port.to_string()).replace("{upstream}", &upstream.url());
    merge(&defaults, &own)
}

/// One section of a TOML text: its header line (empty for the top) and its lines.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Section {
    header: String,
    lines: Vec<String>,
}

/// `own` over `defaults`, section by section and key by key. A default that `own` sets to `unset` is left out.
fn merge(defaults: &str, own: &str) -> String {
    let mut merged = sections(defaults);
    for section in sections(own) {
        let known = merged.iter_mut().find(|known| known.header == section.header && !known.header.starts_with("[["));
        match known {
            Some(known) => {
                known.lines.retain(|line| {
                    let name = key(line);
                    name.is_none() || !section.lines.iter().any(|own| key(own) == name)
                });
                known.lines.extend(section.lines);
            }
            None => merged.push(section),
        }
    }
    let mut text = String::new();
    for section in merged {
        let (unset, lines): (Vec<_>, Vec<_>) =
            section.lines.iter().partition(|line| line.trim_end().ends_with("= unset"));
        // A section of which nothing is left goes too.
        if !section.header.is_empty() && (!lines.is_empty() || unset.is_empty()) {
            let _ = writeln!(text, "{}", section.header);
        }
        for line in lines {
            let _ = writeln!(text, "{line}");
        }
    }
    text
}

fn sections(toml: &str) -> Vec<Section> {
    let mut sections = vec![Section { header: String::new(), lines: Vec::new() }];
    for line in toml.lines() {
        let line = line.trim();
        let is_header =
            line.starts_with('[') && line.split('#').next().is_some_and(|line| line.trim_end().ends_with(']'));
        if is_header && key(line).is_none() {
            sections.push(Section { header: line.to_owned(), lines: Vec::new() });
        } else if !line.is_empty() {
            sections.last_mut().expect("the top section").lines.push(line.to_owned());
        }
    }
    sections
}

/// The key of a `key = value` line.
fn key(line: &str) -> Option<&str> {
    let (key, _) = line.split_once('=')?;
    let key = key.trim();
    let bare = !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || "_-.\"/*".contains(c));
    bare.then_some(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_keys_replace_defaults_and_the_rest_is_added() {
        let merged = merge(
            "listen = \"a\"\n[session]\nsecret = \"x\"\nidle = \"1h\"\n[upstream]\nurl = \"u\"\n",
            "workers = 2\n[session]\nsecret = \"y\"\n[[routes]]\npath = \"/a\"\n[[routes]]\npath = \"/b\"\n[upstream]\nurl = unset\n",
        );
        assert_eq!(
            merged,
            "listen = \"a\"\nworkers = 2\n[session]\nidle = \"1h\"\nsecret = \"y\"\n\
             [[routes]]\npath = \"/a\"\n[[routes]]\npath = \"/b\"\n"
        );
    }

    #[test]
    fn free_ports_are_all_different() {
        let ports: std::collections::BTreeSet<u16> = (0..50).map(|_| free_port()).collect();
        assert_eq!(ports.len(), 50);
    }
}
