//! Arguments → settings → run. The only code that prints or picks an exit code: 64 usage, 78 configuration, 1 runtime.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "this is where the program speaks to its operator")]

mod asking;
mod rotation;
mod sessions;

use std::error::Error;
use std::ffi::OsString;
use std::io::Write as _;
#[cfg(feature = "demo")]
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use http::Method;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{info, warn};
use vestibule::authn::session::cookie;
use vestibule::clock::SystemClock;
use vestibule::config::{self, ConfigProblem, Loaded, Settings, Sources};
use vestibule::route::Access;
use vestibule::server::Listener;
use vestibule::{app, telemetry};

use self::asking::{ask, http_uri, reachable};

/// sysexits.h: the command was used wrongly.
const USAGE: u8 = 64;
/// sysexits.h: something is wrong with the configuration.
const CONFIGURATION: u8 = 78;
const RUNTIME: u8 = 1;

/// An authenticating reverse proxy: signs people in with OpenID Connect and forwards each request with identity and role
/// headers the application can trust. Without a command it runs the proxy.
#[derive(Debug, Parser)]
#[command(name = "vestibule", version, max_term_width = 100)]
struct Cli {
    #[command(flatten)]
    options: Options,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Default, Args)]
struct Options {
    /// The configuration file [default: $VESTIBULE_CONFIG, else /etc/vestibule/vestibule.toml if it exists]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where requests are taken, such as 127.0.0.1:8080
    #[arg(long, global = true, value_name = "ADDRESS")]
    listen: Option<String>,
    /// Sets any key of the configuration file, such as log.format=json; repeatable
    #[arg(long, global = true, value_name = "KEY=VALUE", value_parser = key_and_value)]
    set: Vec<(String, String)>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Says every problem of the configuration at once
    Check,
    /// Prints the JSON Schema of the configuration file
    Schema,
    /// Prints a new secret for SESSION_SECRET
    GenerateSecret,
    /// Adds a new secret to a file of them, or retires old ones
    RotateSecret(rotation::Command),
    /// Asks a running proxy whether it is ready; for images without a shell
    Healthcheck {
        /// What to ask [default: /readyz on the configured admin listener]
        #[arg(long, value_name = "URL")]
        url: Option<String>,
    },
    /// Lists and ends sessions of a running proxy
    Sessions(sessions::Command),
    /// Runs the proxy with a development provider and a sample application
    #[cfg(feature = "demo")]
    Demo,
    /// Prints the table of environment variables
    #[command(hide = true)]
    Environment,
}

pub(crate) fn main() -> ExitCode {
    run(std::env::args_os())
}

fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are asked for; everything else is wrong use. Nothing is left to do where printing fails.
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(USAGE) } else { ExitCode::SUCCESS };
        }
    };
    match cli.command {
        None => serve(&cli.options),
        Some(Command::Check) => check(&cli.options),
        Some(Command::Schema) => print(&format!("{:#}\n", config::schema())),
        Some(Command::GenerateSecret) => generate_secret(),
        Some(Command::RotateSecret(command)) => rotation::run(&command),
        Some(Command::Healthcheck { url }) => healthcheck(url, &cli.options),
        Some(Command::Sessions(command)) => sessions::run(&command, &cli.options),
        #[cfg(feature = "demo")]
        Some(Command::Demo) => demo(&cli.options),
        Some(Command::Environment) => print(&config::environment_markdown()),
    }
}

fn key_and_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.trim().is_empty() => Ok((key.trim().to_owned(), value.to_owned())),
        _ => Err("write KEY=VALUE, such as log.format=json".to_owned()),
    }
}

impl Options {
    fn sources(&self) -> Result<Sources, ConfigProblem> {
        let listen = self.listen.iter().map(|listen| ("listen".to_owned(), listen.clone()));
        let flags = self.set.iter().cloned().chain(listen).collect();
        Sources::from_process(self.config.as_deref(), flags)
    }

    fn load(&self) -> Result<Loaded, Vec<ConfigProblem>> {
        config::load(&self.sources().map_err(|problem| vec![problem])?)
    }
}

/// Prints an answer. Who stops reading (`vestibule schema | head`) has seen enough, which is no reason to panic.
fn print(answer: &str) -> ExitCode {
    let mut out = std::io::stdout().lock();
    match out.write_all(answer.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

fn plural(count: usize, word: &str) -> String {
    format!("{count} {word}{}", if count == 1 { "" } else { "s" })
}

/// The proxy, until it is told to stop.
fn serve(options: &Options) -> ExitCode {
    let Loaded { settings, warnings } = match options.load() {
        Ok(loaded) => loaded,
        Err(problems) => return refuse(&problems),
    };
    telemetry::install(&settings.telemetry);
    for warning in &warnings {
        warn!(key = %warning.key, place = %warning.place, fix = %warning.fix, "configuration: {}", warning.what);
    }
    let outcome = start_and_wait(settings);
    telemetry::flush();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(error.as_ref()),
    }
}

fn start_and_wait(settings: Settings) -> Result<(), Box<dyn Error>> {
    // Before anything listens, so that no signal is missed.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut signals = runtime.block_on(async { Signals::new() })?;
    let running = app::start(settings, Arc::new(SystemClock))?;
    let listen = running.addresses().iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
    info!(listen, admin = ?running.admin_address(), "ready to take requests");
    let signal = runtime.block_on(async {
        tokio::select! {
            name = signals.next() => Some(name),
            () = running.ended() => None,
        }
    });
    let Some(name) = signal else {
        running.wait();
        return Err("no worker is left to answer requests; the log says why".into());
    };
    info!(signal = name, "stopping: requests in flight are finished, a second signal ends them at once");
    running.stop();
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        let name = runtime.block_on(signals.next());
        warn!(signal = name, "stopped at once by a second signal");
        telemetry::flush();
        std::process::exit(RUNTIME.into());
    })?;
    running.wait();
    info!("stopped");
    Ok(())
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// Prints every problem and says that nothing was started.
fn refuse(problems: &[ConfigProblem]) -> ExitCode {
    print_problems(problems);
    eprintln!("vestibule: {}", count(problems));
    ExitCode::from(CONFIGURATION)
}

fn print_problems(problems: &[ConfigProblem]) {
    for problem in problems {
        eprintln!("{problem}");
    }
}

fn count(problems: &[ConfigProblem]) -> String {
    let warnings = problems.iter().filter(|problem| problem.is_warning()).count();
    format!("{}, {}", plural(problems.len() - warnings, "error"), plural(warnings, "warning"))
}

fn check(options: &Options) -> ExitCode {
    match options.load() {
        Ok(Loaded { settings, warnings }) => {
            print_problems(&warnings);
            print(&format!("configuration is fine ({})\n{}", count(&warnings), summary(&settings)))
        }
        Err(problems) => refuse(&problems),
    }
}

/// Its name, and what is not as it is by itself.
fn told_of_cookie(settings: &Settings) -> String {
    let cookie::Settings { domain, path, same_site, framed_by, .. } = &settings.session.cookie;
    let mut told = settings.message.cookie_bases.first().cloned().unwrap_or_default();
    if let Some(domain) = domain {
        told += &format!(" for {domain} and all below");
    }
    if path != "/" {
        told += &format!(" below {path}");
    }
    match same_site {
        cookie::SameSite::Lax => {}
        cookie::SameSite::Strict => told += ", SameSite=Strict",
        cookie::SameSite::Partitioned => {
            let origins: Vec<_> = framed_by.iter().map(ToString::to_string).collect();
            told += &format!(", Partitioned, in frames of {}", origins.join(", "));
        }
    }
    told
}

/// What this configuration does, in a few lines without secrets.
fn summary(settings: &Settings) -> String {
    let admin = settings.admin.listen.map_or("off".to_owned(), |address| address.to_string());
    let mut lines = vec![
        format!(
            "listen      {} ({}), admin {admin}",
            settings.server.listeners.iter().map(told).collect::<Vec<_>>().join(", "),
            plural(settings.server.workers.get(), "worker")
        ),
        format!(
            "session     lifetime {}, idle {}, {}, cookie {}",
            humantime::format_duration(settings.session.lifetime),
            humantime::format_duration(settings.session.idle),
            plural(settings.session.secrets.len(), "secret"),
            told_of_cookie(settings),
        ),
    ];
    let mut proofs = Vec::new();
    for (index, provider) in settings.providers.iter().enumerate() {
        let id = if settings.providers.len() > 1 { format!("{}: ", provider.id) } else { String::new() };
        let client = match &provider.registration {
            None => format!("as client {:?}", provider.credentials.client_id),
            Some(_) => "as a client that registers itself".to_owned(),
        };
        let told = format!("provider    {id}{} {client}", provider.issuer);
        lines.insert(1 + 2 * index, told);
        lines.insert(2 + 2 * index, format!("callback    {}", provider.redirect_uri));
        proofs.push(format!("client      {id}{}", provider.proof()));
    }
    lines.extend(proofs);
    for upstream in &settings.upstreams {
        let places: Vec<_> = upstream.places.iter().map(|place| place.url(upstream.tls.is_some())).collect();
        lines.push(format!("upstream    {}: {}", upstream.name, places.join(", ")));
    }
    for route in &settings.routes.routes {
        let access = match route.access {
            Access::Public => "public",
            Access::Optional => "optional",
            Access::Required => "required",
        };
        let to = settings.upstreams.get(route.upstream).map_or("", |upstream| upstream.name.as_str());
        lines.push(format!("route       {}: {access}, to {to}", route.name));
    }
    lines.push("all else    required".to_owned());
    lines.iter().map(|line| format!("  {line}\n")).collect()
}

/// A listener, and what is spoken there.
fn told(listener: &Listener) -> String {
    let tls = match &listener.tls {
        Some(tls) if tls.client_ca_file.is_some() && tls.client_certificate_required => {
            " with TLS and client certificates"
        }
        Some(tls) if tls.client_ca_file.is_some() => " with TLS and optional client certificates",
        Some(_) => " with TLS",
        None => "",
    };
    let proxy = if listener.proxy_protocol_from.is_empty() { "" } else { " behind the PROXY protocol" };
    format!("{}{tls}{proxy}", listener.address)
}

fn generate_secret() -> ExitCode {
    match config::generate_secret() {
        Ok(secret) => print(&format!("{secret}\n")),
        Err(_) => {
            eprintln!("vestibule: the system gives no random bytes");
            ExitCode::from(RUNTIME)
        }
    }
}

fn healthcheck(url: Option<String>, options: &Options) -> ExitCode {
    let target = match url {
        Some(url) => url,
        None => match options.load() {
            Ok(Loaded { settings, .. }) => match settings.admin.listen {
                Some(address) => format!("http://{}/readyz", reachable(address)),
                None => {
                    eprintln!("vestibule: admin_listen is off, so there is nothing to ask; name a --url");
                    return ExitCode::from(RUNTIME);
                }
            },
            Err(problems) => return refuse(&problems),
        },
    };
    let Some(uri) = http_uri(&target) else {
        eprintln!("vestibule: --url takes an http URL, such as http://127.0.0.1:9090/readyz");
        return ExitCode::from(USAGE);
    };
    match ask(Method::GET, &uri, None, Duration::from_secs(5)).map(|(status, _)| status) {
        Ok(status) if status.is_success() => ExitCode::SUCCESS,
        Ok(status) => {
            eprintln!("vestibule: {uri} answered {status}");
            ExitCode::from(RUNTIME)
        }
        Err(error) => fail(error.as_ref()),
    }
}

#[cfg(feature = "demo")]
fn demo(options: &Options) -> ExitCode {
    if options.config.is_some() || !options.set.is_empty() {
        eprintln!("vestibule: the demo has a configuration of its own: leave out --config and --set");
        return ExitCode::from(USAGE);
    }
    let listen = options.listen.as_deref().unwrap_or("127.0.0.1:8080");
    let Some(listen) = listen.parse::<SocketAddr>().ok().filter(|address| address.ip().is_loopback()) else {
        eprintln!("vestibule: the demo listens on loopback only: --listen 127.0.0.1:8080");
        return ExitCode::from(USAGE);
    };
    match vestibule::demo::run(vestibule::demo::Options { listen }) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

/// Prints an error with everything that caused it.
fn fail(error: &(dyn Error + 'static)) -> ExitCode {
    eprintln!("vestibule: {}", telemetry::chain(error));
    ExitCode::from(RUNTIME)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn flags_stand_before_or_after_the_command() {
        for arguments in
            [["vestibule", "--set", "log.format=json", "check"], ["vestibule", "check", "--set", "log.format=json"]]
        {
            let cli = Cli::try_parse_from(arguments).unwrap();
            assert!(matches!(cli.command, Some(Command::Check)));
            assert_eq!(cli.options.set, [("log.format".to_owned(), "json".to_owned())]);
        }
        assert!(Cli::try_parse_from(["vestibule", "--set", "log.format"]).is_err());
        assert!(Cli::try_parse_from(["vestibule", "serve"]).is_err());
    }
}
