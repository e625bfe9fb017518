//! The real program as a child process, as an operator starts it: an environment of its own, two streams of output, an exit
//! code.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::browser::{Browser, Reply};
use crate::clock::TestClock;
use crate::echo::EchoUpstream;
use crate::provider::FakeProvider;
use crate::stage::free_port;

/// How long anything that must happen may take on a machine that is busy with other tests.
const DEADLINE: Duration = Duration::from_secs(60);
/// The session secret of [`Site::variables`].
pub const SESSION_SECRET: &str = "pV3-kWm8_Tz1qLc6xNb9RfYh2SdJg5Ue7Ha4MiOo0";

/// A program that has not been started yet. Its environment is empty.
#[derive(Debug)]
pub struct Launch(Command);

/// A program that runs; killed when dropped.
#[derive(Debug)]
pub struct Program {
    child: Child,
    output: Output,
    readers: Vec<JoinHandle<()>>,
}

/// A program that has ended.
#[derive(Debug)]
pub struct Ended {
    /// The exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// What it printed.
    pub stdout: String,
    /// What it complained about.
    pub stderr: String,
}

#[derive(Debug, Clone, Default)]
struct Output {
    stdout: Arc<Mutex<Vec<u8>>>,
    stderr: Arc<Mutex<Vec<u8>>>,
}

impl Launch {
    /// The program at `path`.
    pub fn of(path: &str) -> Self {
        let mut command = Command::new(path);
        command.env_clear().stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Self(command)
    }

    /// Sets a variable.
    pub fn env(mut self, name: &str, value: impl AsRef<std::ffi::OsStr>) -> Self {
        self.0.env(name, value);
        self
    }

    /// Takes a variable out.
    pub fn without(mut self, name: &str) -> Self {
        self.0.env_remove(name);
        self
    }

    /// Sets several variables.
    pub fn envs<'v>(mut self, variables: impl IntoIterator<Item = (&'v str, String)>) -> Self {
        self.0.envs(variables);
        self
    }

    /// Adds arguments.
    pub fn args<A: AsRef<std::ffi::OsStr>>(mut self, arguments: impl IntoIterator<Item = A>) -> Self {
        self.0.args(arguments);
        self
    }

    /// Runs it to its end.
    ///
    /// # Panics
    /// When that takes longer than a minute.
    pub fn run(self) -> Ended {
        self.start().ended()
    }

    /// Starts it.
    ///
    /// # Panics
    /// When the system does not start it.
    pub fn start(mut self) -> Program {
        let mut child = self.0.spawn().unwrap_or_else(|error| panic!("{:?}: {error}", self.0));
        let output = Output::default();
        let readers = vec![
            read_into(child.stdout.take().expect("a pipe"), &output.stdout),
            read_into(child.stderr.take().expect("a pipe"), &output.stderr),
        ];
        Program { child, output, readers }
    }
}

fn read_into(mut pipe: impl Read + Send + 'static, buffer: &Arc<Mutex<Vec<u8>>>) -> JoinHandle<()> {
    let buffer = Arc::clone(buffer);
    std::thread::spawn(move || {
        let mut part = vec![0; 16 * 1024];
        while let Ok(count) = pipe.read(&mut part) {
            if count == 0 {
                return;
            }
            buffer.lock().unwrap().extend_from_slice(&part[..count]);
        }
    })
}

impl Program {
    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Bytes of memory that it holds now.
    pub fn memory(&self) -> u64 {
        self.status_field("VmRSS")
    }

    /// Bytes of memory that it held at the most, since it began or [`Program::forget_peak_memory`].
    pub fn peak_memory(&self) -> u64 {
        self.status_field("VmHWM")
    }

    /// Begins to look for the peak anew.
    ///
    /// # Panics
    /// When the kernel does not do so.
    pub fn forget_peak_memory(&self) {
        // proc(5): 5 resets the peak.
        std::fs::write(format!("/proc/{}/clear_refs", self.id()), "5").expect("the peak can be reset");
    }

    /// A field of `/proc/PID/status` that is written in kilobytes, in bytes.
    fn status_field(&self, name: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id())).expect("a program that runs");
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).expect("a known field");
        line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number of kilobytes") * 1024
    }

    /// Everything on both streams so far.
    pub fn text(&self) -> String {
        let text = |buffer: &Mutex<Vec<u8>>| String::from_utf8_lossy(&buffer.lock().unwrap()).into_owned();
        text(&self.output.stdout) + &text(&self.output.stderr)
    }

    /// The first line so far that contains all of `words`.
    pub fn line(&self, words: &[&str]) -> Option<String> {
        self.text().lines().find(|line| words.iter().all(|word| line.contains(word))).map(str::to_owned)
    }

    /// Waits for a line that contains all of `words`.
    ///
    /// # Panics
    /// When there is none within a minute, or the program ends without it.
    #[track_caller]
    pub fn wait_for_line(&mut self, words: &[&str]) -> String {
        let end = Instant::now() + DEADLINE;
        loop {
            // First, so that the last words of a program that has just ended are still looked at.
            let is_over = self.status().is_some() || Instant::now() > end;
            if is_over {
                std::thread::sleep(Duration::from_millis(50));
            }
            if let Some(line) = self.line(words) {
                return line;
            }
            assert!(!is_over, "no line with {words:?} in\n{}", self.text());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Whether and how it has ended.
    pub fn status(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child's status")
    }

    /// Sends a signal, such as `TERM`.
    pub fn signal(&self, name: &str) {
        let sent = Command::new("/bin/sh").args(["-c", &format!("kill -s {name} {}", self.id())]).status();
        assert!(sent.expect("a shell").success(), "the signal {name} could not be sent");
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// When that takes longer than a minute.
    pub fn ended(mut self) -> Ended {
        let end = Instant::now() + DEADLINE;
        let status = loop {
            if let Some(status) = self.status() {
                break status;
            }
            assert!(Instant::now() < end, "the program has not ended; it says\n{}", self.text());
            std::thread::sleep(Duration::from_millis(5));
        };
        for reader in self.readers.drain(..) {
            let _ = reader.join();
        }
        let take = |buffer: &Mutex<Vec<u8>>| String::from_utf8_lossy(&buffer.lock().unwrap()).into_owned();
        Ended { code: status.code(), stdout: take(&self.output.stdout), stderr: take(&self.output.stderr) }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What the program stands between, and a folder for its files.
pub struct Site {
    /// The provider.
    pub provider: Arc<FakeProvider>,
    /// The application.
    pub upstream: EchoUpstream,
    /// Where the proxy listens, on 127.0.0.1.
    pub port: u16,
    /// Where health and metrics are, on 127.0.0.1.
    pub admin_port: u16,
    clock: TestClock,
    program: String,
    folder: tempfile::TempDir,
}

impl Site {
    /// For the program at `path`; nothing is started.
    pub fn of(path: &str) -> Self {
        let clock = TestClock::new();
        let provider = Arc::new(FakeProvider::start(clock.clone()));
        Self::with_provider(path, provider, clock)
    }

    /// As [`Site::of`], with a provider that does not answer yet.
    pub fn without_provider(path: &str) -> Self {
        let clock = TestClock::new();
        let provider = Arc::new(FakeProvider::start_down(clock.clone()));
        Self::with_provider(path, provider, clock)
    }

    fn with_provider(path: &str, provider: Arc<FakeProvider>, clock: TestClock) -> Self {
        Self {
            provider,
            upstream: EchoUpstream::start(),
            port: free_port(),
            admin_port: free_port(),
            clock,
            program: path.to_owned(),
            folder: tempfile::tempdir().expect("a folder"),
        }
    }

    /// The variables that are enough to run, each as `NAME`, value; less `OIDC_SCOPES`, which has a default.
    pub fn variables(&self) -> Vec<(&'static str, String)> {
        vec![
            ("OIDC_ISSUER", self.provider.issuer()),
            ("OIDC_CLIENT_ID", self.provider.client_id().to_owned()),
            ("OIDC_CLIENT_SECRET", self.provider.client_secret().to_owned()),
            ("OIDC_REDIRECT_URI", self.url("/auth/callback")),
            ("SESSION_SECRET", SESSION_SECRET.to_owned()),
            ("VESTIBULE_UPSTREAM", self.upstream.url()),
            ("VESTIBULE_LISTEN", format!("127.0.0.1:{}", self.port)),
        ]
    }

    /// The program with [`Site::variables`], an admin listener of its own, one worker, and no wait before a stop.
    pub fn launch(&self) -> Launch {
        self.bare()
            .envs(self.variables())
            .env("VESTIBULE_ADMIN_LISTEN", format!("127.0.0.1:{}", self.admin_port))
            .env("VESTIBULE_WORKERS", "1")
            .env("VESTIBULE__DRAIN__GRACE", "0s")
    }

    /// The program with an empty environment.
    pub fn bare(&self) -> Launch {
        Launch::of(&self.program)
    }

    /// Starts `launch` and waits until it takes requests and knows the provider.
    pub async fn start(&self, launch: Launch) -> Program {
        let program = self.start_alone(launch);
        self.wait_for_readiness("a known provider", |reply| reply.text().contains("\"available\"")).await;
        program
    }

    /// Starts `launch` and waits until it takes requests; the provider may be away.
    pub fn start_alone(&self, launch: Launch) -> Program {
        let mut program = launch.start();
        program.wait_for_line(&["ready to take requests"]);
        program
    }

    /// Polls `/readyz` until `is_right`.
    ///
    /// # Panics
    /// When that takes longer than a minute.
    pub async fn wait_for_readiness(&self, what: &str, is_right: impl Fn(&Reply) -> bool) {
        let end = Instant::now() + DEADLINE;
        loop {
            let reply = self.admin("/readyz").await;
            if is_right(&reply) {
                return;
            }
            assert!(Instant::now() < end, "waited for {what}; readiness says {} {}", reply.status, reply.text());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Asks the admin listener.
    pub async fn admin(&self, path: &str) -> Reply {
        self.browser().fetch(&format!("http://127.0.0.1:{}{path}", self.admin_port)).await
    }

    /// An absolute URL at the proxy.
    pub fn url(&self, path: &str) -> String {
        format!("http://localhost:{}{path}", self.port)
    }

    /// The proxy's socket.
    pub fn address(&self) -> std::net::SocketAddr {
        ([127, 0, 0, 1], self.port).into()
    }

    /// A user agent with an empty jar.
    pub fn browser(&self) -> Browser {
        Browser::new(self.clock.clone())
    }

    /// Writes a file into the site's folder.
    pub fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        path
    }

    /// The site's folder.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }
}
