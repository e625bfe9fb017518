//! Debian's nginx in front of a stage: a process of its own below a folder of its own, gone when dropped.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// How long a start may take.
const START_DEADLINE: Duration = Duration::from_secs(10);

/// A running nginx.
#[derive(Debug)]
pub struct Nginx {
    process: Child,
    address: SocketAddr,
    folder: TempDir,
}

impl Nginx {
    /// Everything as installed, `proxy_pass` and nothing else in its `location`: no header is set, no buffer changed.
    pub fn stock(port: u16, upstream: SocketAddr) -> Self {
        Self::start(port, "", &format!("proxy_pass http://{upstream};"))
    }

    /// A cache in front of everything, which keeps whatever the answers do not forbid, whatever their status.
    pub fn caching(port: u16, upstream: SocketAddr) -> Self {
        let location = format!(
            "proxy_pass http://{upstream};\nproxy_set_header Host $http_host;\nproxy_cache shared;\n\
             proxy_cache_valid any 10m;\nadd_header X-Cache $upstream_cache_status always;"
        );
        Self::start(port, "proxy_cache_path cache keys_zone=shared:1m;", &location)
    }

    /// Listens on `port` of 127.0.0.1; `http` and `location` go into the blocks of these names.
    ///
    /// # Panics
    /// When nginx is not installed or does not start.
    fn start(port: u16, http: &str, location: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder for nginx");
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|what| format!("{what}_temp_path temp_{what};\n"))
            .concat();
        // One process, so that ending it leaves nothing behind.
        let text = format!(
            "daemon off;\nmaster_process off;\npid nginx.pid;\nevents {{}}\nhttp {{\naccess_log off;\n{temporary}{http}\n\
             server {{\nlisten 127.0.0.1:{port};\nlocation / {{\n{location}\n}}\n}}\n}}\n"
        );
        std::fs::write(folder.path().join("nginx.conf"), text).expect("nginx.conf");
        let log = std::fs::File::create(folder.path().join("error.log")).expect("error.log");
        let mut process = Command::new("nginx")
            .args(["-e", "stderr", "-c", "nginx.conf", "-p"])
            .arg(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("nginx is installed");
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let end = Instant::now() + START_DEADLINE;
        while TcpStream::connect(address).is_err() {
            let ended = process.try_wait().expect("the state of nginx");
            let log = read_log(folder.path());
            assert!(ended.is_none() && Instant::now() < end, "nginx does not answer ({ended:?}): {log}");
            std::thread::sleep(Duration::from_millis(20));
        }
        Self { process, address, folder }
    }

    /// The socket that it listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it complained of.
    pub fn error_log(&self) -> String {
        read_log(self.folder.path())
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn read_log(folder: &Path) -> String {
    std::fs::read_to_string(folder.join("error.log")).unwrap_or_default()
}
