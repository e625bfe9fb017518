//! What `tests/run` needs to look for secrets in the log of the whole suite: with `TESTS_TRACE=<file>` everything that the
//! proxy logs goes there, at trace level, and every secret that was used into `<file>.secrets`, as kind, tab, value.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, Once, OnceLock};

use vestibule::telemetry::{LogFormat, Settings, install_with_writer};

/// Shorter ones could stand in a log by chance.
const SHORTEST: usize = 12;

/// Sends this process's log to the file; without effect the second time, or where no file is named.
pub(crate) fn begin() {
    static BEGUN: Once = Once::new();
    BEGUN.call_once(|| {
        let Some(path) = path() else { return };
        let settings = Settings { format: LogFormat::Json, level: "trace".to_owned(), access_log: true };
        install_with_writer(&settings, Box::new(open(&path)));
    });
}

/// Notes a secret that the log must not hold.
pub(crate) fn secret(kind: &str, value: &str) {
    static FILE: OnceLock<Option<Mutex<File>>> = OnceLock::new();
    let file = FILE.get_or_init(|| {
        let mut path = path()?.into_os_string();
        path.push(".secrets");
        Some(Mutex::new(open(Path::new(&path))))
    });
    let Some(file) = file else { return };
    if value.len() >= SHORTEST && !value.contains(['\n', '\r']) {
        // One write, so that lines of several processes do not mix.
        file.lock().unwrap().write_all(format!("{kind}\t{value}\n").as_bytes()).expect("the file of secrets");
    }
}

fn path() -> Option<PathBuf> {
    std::env::var_os("TESTS_TRACE").map(PathBuf::from)
}

fn open(path: &Path) -> File {
    let opened = OpenOptions::new().create(true).append(true).open(path);
    opened.unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
