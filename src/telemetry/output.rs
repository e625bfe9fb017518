//! This process's one log output: chosen once, read everywhere.

use std::io::{self, Write};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use tracing_subscriber::fmt::MakeWriter;

use super::LogFormat;
use super::sink::{Lines, Sink};

static OUTPUT: OnceLock<Output> = OnceLock::new();

/// Whether access lines are wanted. Beside `OUTPUT`, so that a request whose line nobody wants costs one relaxed load.
static ACCESS_LOG: AtomicBool = AtomicBool::new(false);

/// How and where lines are written.
#[derive(Debug)]
pub(super) struct Output {
    pub(super) sink: Sink,
    pub(super) format: LogFormat,
    /// Colours.
    pub(super) ansi: bool,
}

/// Starts the output and returns it; `None` where there is one already, or no thread can be started.
pub(super) fn start(
    out: Box<dyn Write + Send>,
    format: LogFormat,
    ansi: bool,
    access_log: bool,
) -> Option<&'static Output> {
    if OUTPUT.get().is_some() {
        return None;
    }
    let on_drop = match format {
        LogFormat::Text => push_dropped_text,
        LogFormat::Json => push_dropped_json,
    };
    OUTPUT.set(Output { sink: Sink::start(out, on_drop).ok()?, format, ansi }).ok()?;
    ACCESS_LOG.store(access_log, Ordering::Relaxed);
    OUTPUT.get()
}

/// The output, if access lines are wanted.
pub(super) fn for_access() -> Option<&'static Output> {
    if !ACCESS_LOG.load(Ordering::Relaxed) {
        return None;
    }
    OUTPUT.get()
}

/// The output, if there is one.
pub(super) fn current() -> Option<&'static Output> {
    OUTPUT.get()
}

fn push_dropped_text(lines: &mut Lines, dropped: u64) {
    lines.push_time(SystemTime::now());
    let line = format!("  WARN vestibule::telemetry: log lines were lost, their reader is too slow count={dropped}\n");
    lines.text.extend_from_slice(line.as_bytes());
}

fn push_dropped_json(lines: &mut Lines, dropped: u64) {
    lines.text.extend_from_slice(b"{\"timestamp\":\"");
    lines.push_time(SystemTime::now());
    let line = format!(
        "\",\"level\":\"WARN\",\"target\":\"vestibule::telemetry\",\
         \"message\":\"log lines were lost, their reader is too slow\",\"count\":{dropped}}}\n"
    );
    lines.text.extend_from_slice(line.as_bytes());
}

/// Hands the lines of the subscriber to the sink: it writes each event at once, as one whole line.
#[derive(Debug, Clone, Copy)]
pub(super) struct EventWriter(pub(super) &'static Output);

impl Write for EventWriter {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.sink.append(|lines| lines.text.extend_from_slice(line));
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for EventWriter {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        *self
    }
}
