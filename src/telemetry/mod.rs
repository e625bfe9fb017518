//! What the operator sees: the log subscriber, one access line per request, Prometheus metrics.

pub mod access_log;
mod cause;
pub mod metrics;
mod output;
mod sink;
mod text;

use std::io::{self, IsTerminal as _, Write};
use std::str::FromStr;
use std::time::SystemTime;

use tracing::Level;
use tracing::dispatcher::{self, Dispatch};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::{EnvFilter, filter_fn};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::registry;

pub use self::cause::chain;
use self::output::EventWriter;

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// The `[log]` section, checked.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How lines look.
    pub format: LogFormat,
    /// A level or a filter directive (`info`, `vestibule=debug`); see [`check_level`].
    pub level: String,
    /// One line per request.
    pub access_log: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self { format: LogFormat::Text, level: "info".to_owned(), access_log: true }
    }
}

impl FromStr for LogFormat {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(()),
        }
    }
}

/// Installs the subscriber for this process, towards standard output; does nothing where one is installed already.
///
/// Nothing is written by the thread that logs: see [`flush`].
pub fn install(settings: &Settings) {
    let stdout = io::stdout();
    // <https://no-color.org>
    let is_colour_unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let ansi = stdout.is_terminal() && !is_colour_unwanted;
    install_with(settings, Box::new(stdout), ansi);
}

/// As [`install`], but towards `writer` and without colours: for tests that read the log.
pub fn install_with_writer(settings: &Settings, writer: Box<dyn Write + Send>) {
    install_with(settings, writer, false);
}

/// Waits until every line logged so far is written: call it before the process ends. Gives up after two seconds where
/// nobody reads. Does nothing where nothing is installed.
pub fn flush() {
    if let Some(output) = output::current() {
        output.sink.flush();
    }
}

/// Whether `level` is a level or a list of `target=level`.
///
/// # Errors
/// What is wrong, for the operator.
pub fn check_level(level: &str) -> Result<(), String> {
    for directive in level.split(',').map(str::trim).filter(|directive| !directive.is_empty()) {
        // The filter would take a lone misspelt level for the name of a target, and be silent about all others.
        let (target, level) = directive.rsplit_once('=').unwrap_or(("", directive));
        if level.parse::<LevelFilter>().is_err() {
            return Err(format!("{level:?} is not a log level; there are off, error, warn, info, debug and trace"));
        }
        if EnvFilter::builder().parse(directive).is_err() {
            return Err(format!("{target:?} is not a log target; one is written like vestibule=debug"));
        }
    }
    Ok(())
}

/// How many log lines were lost, because their reader was too slow or went away.
pub(crate) fn dropped_lines() -> u64 {
    output::current().map_or(0, |output| output.sink.dropped())
}

fn install_with(settings: &Settings, out: Box<dyn Write + Send>, ansi: bool) {
    let ansi = ansi && settings.format == LogFormat::Text;
    let Some(output) = output::start(out, settings.format, ansi, settings.access_log) else { return };
    // An error means that there is a subscriber already, which stays.
    let _ = dispatcher::set_global_default(subscriber(settings, ansi, EventWriter(output)));
}

fn subscriber<W>(settings: &Settings, ansi: bool, writer: W) -> Dispatch
where
    W: for<'writer> MakeWriter<'writer> + Send + Sync + 'static,
{
    let filter = EnvFilter::builder()
        .with_default_directive(LevelFilter::INFO.into())
        .parse(&settings.level)
        .unwrap_or_else(|_| EnvFilter::new("info"));
    // Whatever the level says: below info some libraries print the header fields and form bodies that pass through them.
    let ours = filter_fn(|event| is_ours(event.target()) || *event.level() <= Level::INFO);
    let layer = tracing_subscriber::fmt::layer().with_timer(Milliseconds).with_ansi(ansi).with_writer(writer);
    let registry = registry().with(filter);
    match settings.format {
        LogFormat::Text => Dispatch::new(registry.with(layer.fmt_fields(text::TextFields).with_filter(ours))),
        LogFormat::Json => Dispatch::new(registry.with(layer.json().flatten_event(true).with_filter(ours))),
    }
}

/// Whether an event comes from this program rather than from a library.
fn is_ours(target: &str) -> bool {
    target.strip_prefix("vestibule").is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// RFC 3339 with milliseconds, as in access lines.
#[derive(Debug)]
struct Milliseconds;

impl FormatTime for Milliseconds {
    fn format_time(&self, out: &mut Writer<'_>) -> std::fmt::Result {
        write!(out, "{}", humantime::format_rfc3339_millis(SystemTime::now()))
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use super::access_log::{Access, record};
    use super::*;

    #[derive(Clone, Default)]
    struct Captured(Arc<Mutex<Vec<u8>>>);

    impl Write for Captured {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn access(id: &str) -> Access<'_> {
        Access {
            id,
            client: Ipv4Addr::LOCALHOST.into(),
            method: "GET",
            host: "localhost",
            path: "/",
            status: 200,
            route: "-",
            reason: "-",
            user: "-",
            duration: Duration::from_micros(15),
        }
    }

    // The one test of this binary that installs: what is installed stays for the whole process.
    #[test]
    fn events_and_access_lines_reach_the_writer_and_hostile_values_stay_in_their_place() {
        record(access("before-install"));
        flush();

        let captured = Captured::default();
        install_with_writer(&Settings::default(), Box::new(captured.clone()));
        install_with_writer(&Settings::default(), Box::new(io::sink()));
        let hostile = "x\n2026-01-01T00:00:00.000Z ERROR forged\u{1b}[2J b=c \"";
        record(access("telemetry-test-access"));
        tracing::info!(shown = %hostile, string = hostile, debug = ?hostile, number = 7, plain = "/a", "told once");
        tracing::warn!(error = &io::Error::other("line\nbreak") as &dyn std::error::Error, "telemetry-test-error");
        tracing::debug!("telemetry-test-debug");
        std::thread::spawn(|| record(access("telemetry-test-thread"))).join().unwrap();
        flush();

        let log = String::from_utf8(captured.0.lock().unwrap().clone()).unwrap();
        let find = |what: &str| log.lines().filter(|line| line.contains(what)).collect::<Vec<_>>();
        assert!(find("before-install").is_empty() && find("telemetry-test-debug").is_empty());
        assert_eq!(find("telemetry-test-thread").len(), 1);
        let [line] = find("telemetry-test-access")[..] else { panic!("one line: {log}") };
        assert!(line.ends_with(
            "Z  INFO vestibule::access: 200 GET localhost / 0.015ms client=127.0.0.1 id=telemetry-test-access"
        ));

        let [line] = find("told once")[..] else { panic!("one line: {log}") };
        let quoted = r#""x\n2026-01-01T00:00:00.000Z ERROR forged\u001b[2J b=c \"""#;
        let debug = quoted.replace(r"\u001b", r"\u{1b}");
        let told = format!("told once shown={quoted} string={quoted} debug={debug} number=7 plain=/a");
        assert!(line.ends_with(&told), "{line}\n{told}");
        assert!(line.contains("Z  INFO vestibule::telemetry::tests: "), "{line}");
        let [line] = find("telemetry-test-error")[..] else { panic!("one line: {log}") };
        assert!(line.ends_with(r#"telemetry-test-error error="line\nbreak""#), "{line}");
        assert!(log.lines().all(|line| line.starts_with("20")), "{log}");
    }

    #[test]
    fn json_events_are_one_flat_object_a_line() {
        let captured = Captured::default();
        let settings = Settings { format: LogFormat::Json, level: "vestibule=debug".to_owned(), access_log: false };
        let writer = captured.clone();
        let dispatch = subscriber(&settings, false, move || writer.clone());
        dispatcher::with_default(&dispatch, || {
            tracing::debug!(host = %"x\n\",\"level\":\"ERROR\u{1b}", count = 2, "told");
        });
        let log = String::from_utf8(captured.0.lock().unwrap().clone()).unwrap();
        assert_eq!((log.matches('\n').count(), log.contains('\u{1b}')), (1, false), "{log}");
        let event: serde_json::Value = serde_json::from_str(&log).unwrap();
        assert_eq!((&event["message"], &event["level"], &event["count"]), (&"told".into(), &"DEBUG".into(), &2.into()));
        assert_eq!(event["target"], "vestibule::telemetry::tests");
        assert_eq!(event["timestamp"].as_str().map(str::len), Some("2000-02-28T23:59:59.007Z".len()));
    }

    #[test]
    fn libraries_are_not_heard_below_info_whatever_the_level_says() {
        let captured = Captured::default();
        let settings = Settings { format: LogFormat::Json, level: "trace,hyper=trace".to_owned(), access_log: false };
        let writer = captured.clone();
        let dispatch = subscriber(&settings, false, move || writer.clone());
        dispatcher::with_default(&dispatch, || {
            tracing::trace!(target: "hyper::proto", "parsed cookie=hunter2");
            tracing::debug!(target: "h2::codec", "header authorization=hunter2");
            tracing::debug!(target: "vestibule_other", "hunter2");
            tracing::info!(target: "hyper::proto", "a library's word");
            tracing::trace!(target: "vestibule::authn", "our own word");
        });
        let log = String::from_utf8(captured.0.lock().unwrap().clone()).unwrap();
        assert!(!log.contains("hunter2"), "{log}");
        assert!(log.contains("a library's word") && log.contains("our own word"), "{log}");
    }

    #[test]
    fn levels_are_checked() {
        for good in ["info", "WARN", "off", "vestibule=debug", "warn,vestibule::authn=trace, hyper=off", ""] {
            assert_eq!(check_level(good), Ok(()), "{good}");
        }
        for bad in ["inof", "vestibule", "vestibule=inof", "info;debug", "[=info"] {
            assert!(check_level(bad).is_err(), "{bad}");
        }
    }
}
