//! `vestibule demo`: a development provider, a sample application and Vestibule between them, all in one process and on
//! loopback only. Nothing else imports this module.

#![allow(clippy::print_stdout, reason = "the demo talks to the person who started it")]

mod application;
mod html;
mod listener;
mod provider;

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use std::{fmt, io};

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use self::application::Application;
use self::provider::{Client, PEOPLE, Provider};
use crate::app::{self, Running, StartError};
use crate::clock::{SharedClock, SystemClock};
use crate::config::{self, ConfigProblem, Settings, Sources};
use crate::server::drain;
use crate::telemetry;

/// What can be chosen.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Where Vestibule listens; loopback only. Port 0 takes a free one.
    pub listen: SocketAddr,
}

impl Default for Options {
    fn default() -> Self {
        Self { listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)) }
    }
}

/// Why the demo did not start, or how it broke.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// Anybody on the network could sign in without a password.
    #[error(
        "the demo listens on loopback only, and {0} is not: its provider signs everybody in without a password; choose \
         127.0.0.1:{port} or [::1]:{port}", port = .0.port()
    )]
    NotLoopback(SocketAddr),
    /// A listener, a thread or a signal handler failed.
    #[error("the demo cannot listen")]
    Listen(#[from] io::Error),
    /// No key and no secret without randomness.
    #[error("the system gives no randomness")]
    Randomness,
    /// The demo's own configuration is refused; a mistake of ours.
    #[error("the demo's configuration is refused: {}", list(.0))]
    Configuration(Vec<ConfigProblem>),
    /// Vestibule itself did not start.
    #[error("Vestibule did not start")]
    Start(#[from] StartError),
}

/// Starts everything, says what to try, and serves until Ctrl-C or SIGTERM.
///
/// # Errors
/// [`DemoError`].
pub fn run(options: Options) -> Result<(), DemoError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (mut interrupt, mut terminate) = runtime
        .block_on(async { Ok::<_, io::Error>((signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)) })?;
    let demo = Demo::start(options, Arc::new(SystemClock))?;
    println!("{demo}");
    runtime.block_on(async {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    });
    println!("Stopping.");
    demo.stop();
    Ok(())
}

/// The running demo. Its `Display` says what to try.
#[derive(Debug)]
pub struct Demo {
    vestibule: Running,
    listen: SocketAddr,
    origin: String,
    issuer: String,
    stop: CancellationToken,
    threads: Vec<JoinHandle<()>>,
}

impl Demo {
    /// Starts the provider, the application and Vestibule.
    ///
    /// # Errors
    /// [`DemoError`].
    pub fn start(options: Options, clock: SharedClock) -> Result<Self, DemoError> {
        let listen = options.listen;
        if !listen.ip().is_loopback() {
            return Err(DemoError::NotLoopback(listen));
        }
        // The redirect URI must be known before Vestibule starts, so a free port is chosen here, and held until the others have
        // theirs.
        let chosen = (listen.port() == 0).then(|| TcpListener::bind(listen)).transpose()?;
        let listen = chosen.as_ref().map_or(Ok(listen), TcpListener::local_addr)?;
        let origin = origin(listen);
        let (provider_listener, provider_address) = listener::bind()?;
        let (application_listener, application_address) = listener::bind()?;
        drop(chosen);
        let issuer = format!("http://{provider_address}");
        let client = client(&origin)?;
        let settings = settings(&configuration(listen, &issuer, &client, application_address)?)?;
        telemetry::install(&settings.telemetry);

        let provider = Provider::new(issuer.clone(), client, Arc::clone(&clock)).map_err(|_| DemoError::Randomness)?;
        let application = Application { origin: origin.clone(), switch_url: format!("{issuer}/switch") };
        let stop = CancellationToken::new();
        // Whatever fails from here on, the threads end with the token.
        let guard = stop.clone().drop_guard();
        let threads = vec![
            listener::serve("demo-provider", provider_listener, stop.clone(), provider)?,
            listener::serve("demo-application", application_listener, stop.clone(), application)?,
        ];
        let vestibule = app::start(settings, clock)?;
        let stop = guard.disarm();
        Ok(Self { vestibule, listen, origin, issuer, stop, threads })
    }

    /// Where Vestibule listens.
    pub fn address(&self) -> SocketAddr {
        self.listen
    }

    /// The provider's issuer URL.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// Stops Vestibule, then what it stands between.
    pub fn stop(self) {
        self.vestibule.stop();
        self.vestibule.wait();
        self.stop.cancel();
        for thread in self.threads {
            // A thread that panicked has said so.
            let _ = thread.join();
        }
    }
}

impl fmt::Display for Demo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let origin = &self.origin;
        writeln!(f, "\nVestibule demo: open {origin}\n")?;
        writeln!(f, "It listens on {} (loopback only) and is for trying out: its provider,", self.address())?;
        writeln!(f, "{}, asks for no password and forgets everything at the end.\n", self.issuer)?;
        writeln!(f, "Sign in as")?;
        for person in &PEOPLE {
            writeln!(f, "  {:6} {}", person.login, person.about)?;
        }
        writeln!(f, "\nWhat to try next")?;
        writeln!(f, "  {origin}/public        the public page, without a sign-in")?;
        writeln!(f, "  {origin}/admin         needs the role admin: try it as grace, then as ada")?;
        writeln!(f, "  {origin}/editor        needs the role editor or admin")?;
        writeln!(f, "  {origin}/auth/userinfo what a front end may know about the person")?;
        writeln!(f, "  {origin}/auth/logout   signs out, at the provider too\n")?;
        writeln!(f, "  curl -i {origin}/      a program gets 401 and problem JSON, no redirect")?;
        writeln!(f, "  curl -s {origin}/public -H 'X-Forwarded-User: ada' -H 'X_Forwarded_Roles: admin'")?;
        writeln!(f, "                         nobody else can write identity headers\n")?;
        write!(f, "Stop with Ctrl-C.")
    }
}

/// As a browser calls it. Cookies know no ports, so the provider (127.0.0.1) and we should have different names.
fn origin(listen: SocketAddr) -> String {
    match listen.ip() {
        IpAddr::V4(ip) if ip != Ipv4Addr::LOCALHOST => format!("http://{listen}"),
        _ => format!("http://localhost:{}", listen.port()),
    }
}

fn client(origin: &str) -> Result<Client, DemoError> {
    Ok(Client {
        id: "vestibule-demo".to_owned(),
        secret: provider::random_text().map_err(|_| DemoError::Randomness)?,
        origin: origin.to_owned(),
        redirect_uri: format!("{origin}/auth/callback"),
        post_logout_redirect_uri: format!("{origin}/auth/signed-out"),
        login_url: format!("{origin}/auth/login"),
    })
}

/// The configuration as an operator would write it. Nothing in it needs escaping: addresses, URLs of ours, base64url.
fn configuration(
    listen: SocketAddr,
    issuer: &str,
    client: &Client,
    application: SocketAddr,
) -> Result<String, DemoError> {
    let session_secret = provider::random_text().map_err(|_| DemoError::Randomness)?;
    let Client { id, secret, redirect_uri, post_logout_redirect_uri, .. } = client;
    Ok(format!(
        r#"listen = "{listen}"
admin_listen = "off"

[provider]
issuer = "{issuer}"
client_id = "{id}"
client_secret = "{secret}"
redirect_uri = "{redirect_uri}"
post_logout_redirect_uri = "{post_logout_redirect_uri}"
scopes = ["openid", "email", "profile"]

[session]
secret = "{session_secret}"

[identity]
name_claim = "preferred_username"
roles_claims = ["groups"]
[identity.role_mapping]
"/admins" = ["admin"]
"/editors" = ["editor"]
[identity.individual_roles]
"ada" = ["auditor"]

[upstream]
url = "http://{application}"

[[routes]]
path = "/public"
access = "public"

[[routes]]
path = "/admin"
require = {{ roles = ["admin"] }}

[[routes]]
path = "/editor"
require = {{ roles = ["editor", "admin"] }}
"#
    ))
}

fn settings(configuration: &str) -> Result<Settings, DemoError> {
    // Its warnings go unsaid: the one there is warns of plain http, which stays on loopback here.
    let mut settings = config::load(&Sources::toml(configuration)).map_err(DemoError::Configuration)?.settings;
    // Nobody routes traffic away from a demo, and its event streams would not end by themselves: Ctrl-C is to end it at once.
    settings.server.drain = drain::Settings { grace: Duration::ZERO, timeout: Duration::from_millis(250) };
    Ok(settings)
}

fn list(problems: &[ConfigProblem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_others_can_reach_is_refused() {
        for address in ["0.0.0.0:8080", "192.0.2.1:8080", "[::]:8080", "[2001:db8::1]:8080"] {
            let options = Options { listen: address.parse().unwrap() };
            let error = Demo::start(options, Arc::new(SystemClock)).unwrap_err();
            assert!(matches!(error, DemoError::NotLoopback(_)), "{address}: {error}");
            assert!(error.to_string().contains("127.0.0.1:8080"), "{error}");
        }
    }

    #[test]
    fn the_browser_goes_to_localhost_wherever_that_is_the_same() {
        for (listen, expected) in [
            ("127.0.0.1:8080", "http://localhost:8080"),
            ("[::1]:9000", "http://localhost:9000"),
            ("127.0.0.2:8080", "http://127.0.0.2:8080"),
        ] {
            assert_eq!(origin(listen.parse().unwrap()), expected);
        }
    }

    #[test]
    fn the_configuration_holds_what_the_pages_promise() {
        let listen = "127.0.0.1:8080".parse().unwrap();
        let text = configuration(listen, "http://127.0.0.1:4000", &client(&origin(listen)).unwrap(), listen).unwrap();
        let table: toml::Table = text.parse().unwrap();
        assert_eq!(table["provider"]["redirect_uri"].as_str(), Some("http://localhost:8080/auth/callback"));
        assert_eq!(table["session"]["secret"].as_str().map(str::len), Some(43));
        let mapping = table["identity"]["role_mapping"].as_table().unwrap();
        for group in PEOPLE.iter().flat_map(|person| person.groups) {
            assert!(mapping.contains_key(*group), "{group}");
        }
    }
}
