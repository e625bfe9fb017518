//! Real stores: processes of their own below folders of their own, gone when dropped.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::stage::free_port;

/// How long a start may take on a machine that is busy.
const START_DEADLINE: Duration = Duration::from_secs(60);
/// PostgreSQL does not run as root.
const NOBODY: u32 = 65534;

/// A server of Redis or Valkey, which keeps what it has when it is killed.
#[derive(Debug)]
pub struct Redis {
    program: String,
    arguments: Vec<String>,
    port: u16,
    folder: TempDir,
    process: Option<Child>,
}

impl Redis {
    /// Debian's Redis, with further arguments.
    pub fn start(arguments: &[&str]) -> Self {
        Self::of("redis-server", arguments)
    }

    /// The Valkey that `tests/run` installed (`TESTS_VALKEY`).
    ///
    /// # Panics
    /// Without it.
    pub fn valkey() -> Self {
        Self::of(&std::env::var("TESTS_VALKEY").expect("tests/run says where Valkey is"), &[])
    }

    /// Three that share the keys.
    ///
    /// # Panics
    /// When they do not become a cluster.
    pub fn cluster() -> Vec<Self> {
        Self::cluster_of(0)
    }

    /// The same, each with so many replicas, which come after all three.
    ///
    /// # Panics
    /// When they do not become a cluster.
    pub fn cluster_of(replicas: usize) -> Vec<Self> {
        let nodes: Vec<_> = (0..3 * (1 + replicas))
            .map(|_| {
                // The usual port of the bus is 10,000 above, which may be none.
                let bus = free_port().to_string();
                let cluster = ["--cluster-enabled", "yes", "--cluster-node-timeout", "2000", "--cluster-port", &bus];
                Self::start(&cluster)
            })
            .collect();
        let addresses: Vec<_> = nodes.iter().map(|node| node.address().to_string()).collect();
        let made = cli(
            &nodes[0],
            &[
                &["--cluster", "create"],
                &*addresses.iter().map(String::as_str).collect::<Vec<_>>(),
                &["--cluster-replicas", &replicas.to_string(), "--cluster-yes"],
            ]
            .concat(),
        );
        let end = Instant::now() + START_DEADLINE;
        let is_ready = |node: &Self| {
            let is_replica = cli(node, &["info", "replication"]);
            let follows = !is_replica.contains("role:slave") || is_replica.contains("master_link_status:up");
            follows && cli(node, &["cluster", "info"]).contains("cluster_state:ok")
        };
        while !nodes.iter().all(is_ready) {
            assert!(Instant::now() < end, "no cluster: {made}");
            std::thread::sleep(Duration::from_millis(50));
        }
        nodes
    }

    /// A master called `main`, a replica of it, and three Sentinels that watch them.
    ///
    /// # Panics
    /// When they do not find one another.
    pub fn sentinels() -> (Vec<Self>, Vec<Self>) {
        let master = Self::start(&[]);
        let replica = Self::start(&["--replicaof", "127.0.0.1", &master.port.to_string()]);
        let sentinels: Vec<_> = (0..3).map(|_| Self::sentinel(master.port)).collect();
        let end = Instant::now() + START_DEADLINE;
        while !(cli(&replica, &["info", "replication"]).contains("master_link_status:up")
            && sentinels.iter().all(|sentinel| {
                cli(sentinel, &["sentinel", "master", "main"]).contains("num-slaves\n1\nnum-other-sentinels\n2")
            }))
        {
            assert!(Instant::now() < end, "they do not find one another");
            std::thread::sleep(Duration::from_millis(50));
        }
        (vec![master, replica], sentinels)
    }

    fn sentinel(master: u16) -> Self {
        let folder = tempfile::tempdir().expect("a folder for Sentinel");
        let port = free_port();
        let text = format!(
            "port {port}\nbind 127.0.0.1\ndir {}\nsentinel monitor main 127.0.0.1 {master} 2\n\
             sentinel down-after-milliseconds main 1000\nsentinel failover-timeout main 5000\n",
            folder.path().display()
        );
        let file = folder.path().join("sentinel.conf");
        std::fs::write(&file, text).expect("sentinel.conf");
        let log = std::fs::File::create(folder.path().join("log")).expect("a log");
        let process = Command::new("redis-server")
            .arg(&file)
            .arg("--sentinel")
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(Stdio::null())
            .spawn()
            .expect("Redis is installed");
        let sentinel =
            Self { program: "redis-server".to_owned(), arguments: Vec::new(), port, folder, process: Some(process) };
        wait_for(sentinel.address(), String::new);
        sentinel
    }

    /// What `redis-cli` says to a command.
    pub fn cli(&self, arguments: &[&str]) -> String {
        cli(self, arguments)
    }

    /// The program of this name.
    ///
    /// # Panics
    /// When it does not start.
    pub fn of(program: &str, arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a folder for Redis");
        let arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        let mut redis = Self { program: program.to_owned(), arguments, port: free_port(), folder, process: None };
        redis.begin();
        redis
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))
    }

    /// Ends it without a word.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    /// Starts it again, at the same port, with what it had.
    ///
    /// # Panics
    /// When it does not start.
    pub fn begin(&mut self) {
        let log = std::fs::File::create(self.folder.path().join("log")).expect("a log");
        let process = Command::new(&self.program)
            .args(["--port", &self.port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "yes"])
            .args(["--appendfsync", "always", "--dir"])
            .arg(self.folder.path())
            .args(self.arguments.iter().map(|argument| argument.replace("{port}", &self.port.to_string())))
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", self.program));
        self.process = Some(process);
        wait_for(self.address(), || std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default());
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A server of PostgreSQL with the role and database `vestibule`.
#[derive(Debug)]
pub struct Postgres {
    programs: PathBuf,
    port: u16,
    folder: TempDir,
    process: Option<Child>,
}

impl Postgres {
    /// Debian's.
    ///
    /// # Panics
    /// When it is not installed or does not start.
    pub fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder for PostgreSQL");
        let mut postgres = Self { programs: programs(), port: free_port(), folder, process: None };
        if is_root() {
            chown(postgres.folder.path(), Some(NOBODY), Some(NOBODY)).expect("a folder of nobody's");
        }
        let made = postgres
            .command("initdb")
            .args(["--auth=trust", "--no-sync", "--username=vestibule", "--encoding=UTF8", "--locale=C", "-D"])
            .arg(postgres.data())
            .output()
            .expect("initdb");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        postgres.begin();
        postgres
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))
    }

    /// What a configuration says of it.
    pub fn location(&self) -> String {
        Self::location_at(self.address())
    }

    /// The same, where a wire leads there.
    pub fn location_at(address: SocketAddr) -> String {
        format!("postgres://vestibule@{address}/postgres")
    }

    /// Ends it without a word.
    pub fn kill(&mut self) {
        let Some(mut process) = self.process.take() else { return };
        // Of the first process alone, the others would go on for a while.
        let _ = self.command("pg_ctl").args(["stop", "-m", "immediate", "-w", "-D"]).arg(self.data()).output();
        let _ = process.kill();
        let _ = process.wait();
    }

    /// Starts it again, at the same port.
    ///
    /// # Panics
    /// When it does not start.
    pub fn begin(&mut self) {
        let log = self.folder.path().join("log");
        let file = std::fs::File::create(&log).expect("a log");
        let mut command = self.command("postgres");
        command.arg("-D").arg(self.data()).args(["-p", &self.port.to_string()]);
        for setting in ["listen_addresses=127.0.0.1", "unix_socket_directories=", "max_connections=60"] {
            command.args(["-c", setting]);
        }
        self.process = Some(command.stderr(file).stdout(Stdio::null()).spawn().expect("PostgreSQL"));
        wait_for(self.address(), || std::fs::read_to_string(&log).unwrap_or_default());
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.programs.join(program));
        command.stdin(Stdio::null()).current_dir(self.folder.path());
        if is_root() {
            command.uid(NOBODY).gid(NOBODY);
        }
        command
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.kill();
    }
}

fn cli(server: &Redis, arguments: &[&str]) -> String {
    let port = server.port.to_string();
    let output = Command::new("redis-cli").args(["-p", &port]).args(arguments).output().expect("redis-cli");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
}

/// Debian keeps them where no PATH looks.
fn programs() -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql").expect("PostgreSQL is installed");
    let mut folders: Vec<_> = versions.map(|version| version.expect("a folder").path().join("bin")).collect();
    folders.retain(|folder| Path::new(folder).join("initdb").exists());
    folders.sort();
    folders.pop().expect("PostgreSQL is installed")
}

fn wait_for(address: SocketAddr, log: impl Fn() -> String) {
    let end = Instant::now() + START_DEADLINE;
    while TcpStream::connect(address).is_err() {
        assert!(Instant::now() < end, "{address} does not answer: {}", log());
        std::thread::sleep(Duration::from_millis(20));
    }
}
