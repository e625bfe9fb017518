//! Clients and servers written in Python, run in the environment that `tests/run` has made.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use vestibule_test_support::{Browser, Stage, StageBuilder, Value};

/// A server of ours, on a port of 127.0.0.1; gone when dropped.
pub(super) struct Server {
    process: Child,
    port: u16,
}

impl Server {
    /// `script` lies beside this file; its first line of output is its port.
    pub(super) fn start(script: &str) -> Self {
        let mut process = python(script)
            // It ends with its stdin.
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("Python can be started");
        let mut line = String::new();
        BufReader::new(process.stdout.take().expect("a pipe")).read_line(&mut line).expect("its port");
        let port = line.trim().parse().unwrap_or_else(|_| panic!("{script} says {line:?} instead of a port"));
        Self { process, port }
    }

    /// Host and port.
    pub(super) fn authority(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Runs `script` to its end; its output is JSON.
pub(super) async fn run(script: &'static str, arguments: Vec<String>) -> Value {
    let output = tokio::task::spawn_blocking(move || {
        python(script).args(arguments).stdin(Stdio::null()).output().expect("Python can be started")
    })
    .await
    .expect("the script's thread");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{script} failed: {errors}");
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{script}: {error}; {errors}"))
}

/// A stage whose routes below `path` lead to `server`.
pub(super) fn stage_with(server: &Server, path: &str, upstream: &str) -> StageBuilder {
    let url = server.authority();
    Stage::builder().toml(&format!(
        "[upstreams.python]\nurl = \"http://{url}\"\n{upstream}\n[[routes]]\npath = \"{path}\"\nupstream = \"python\"\n"
    ))
}

/// The `Cookie` header of whoever is signed in.
pub(super) fn cookie_header(stage: &Stage, browser: &Browser) -> String {
    let cookies = browser.cookies(&stage.url("/"));
    cookies.iter().map(|cookie| format!("{}={}", cookie.name, cookie.value)).collect::<Vec<_>>().join("; ")
}

fn python(script: &str) -> Command {
    let interpreter: PathBuf = std::env::var_os("TESTS_PYTHON")
        .expect("TESTS_PYTHON is not set: ./tests/run makes the environment, ./tests/run fast leaves these tests out")
        .into();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/real");
    let mut command = Command::new(interpreter);
    command.arg(folder.join(script));
    command
}
