//! Certificates from a real ACME authority: Pebble, which looks at the proxy by http or TLS as the public ones do.

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use vestibule_test_support::tempfile::{self, TempDir};
use vestibule_test_support::tokio_rustls::rustls::pki_types::CertificateDer;
use vestibule_test_support::{Stage, TestCa, TlsClient, Value, free_port, json};

const NAME: &str = "app.example.test";
/// How long an order may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A certificate authority, with a resolver that leads every name to this machine.
struct Authority {
    processes: Vec<Child>,
    folder: TempDir,
    ca: TestCa,
    directory: u16,
    management: u16,
    http: u16,
    tls: u16,
}

impl Authority {
    fn start() -> Self {
        Self::with(json!({}))
    }

    /// With more in its settings.
    fn with(more: Value) -> Self {
        let [directory, management, http, tls, dns, dns_management] = std::array::from_fn(|_| free_port());
        let folder = tempfile::tempdir().expect("a folder");
        let (ca, path) = (TestCa::new(), |name: &str| folder.path().join(name));
        let signed = ca.sign(&["localhost"]);
        let mut settings = json!({ "pebble": {
            "listenAddress": format!("127.0.0.1:{directory}"),
            "managementListenAddress": format!("127.0.0.1:{management}"),
            "certificate": path("tls.crt"),
            "privateKey": path("tls.key"),
            "httpPort": http,
            "tlsPort": tls,
            "retryAfter": { "authz": 1, "order": 1 },
        } });
        for (name, value) in more.as_object().expect("an object") {
            settings["pebble"][name] = value.clone();
        }
        for (name, text) in [
            ("ca.crt", ca.pem()),
            ("tls.crt", signed.certificate),
            ("tls.key", signed.key),
            ("pebble.json", settings.to_string()),
        ] {
            std::fs::write(path(name), text).expect("a file");
        }
        let mut resolver = program("pebble-challtestsrv", &folder);
        resolver.args([
            "-defaultIPv4",
            "127.0.0.1",
            "-defaultIPv6",
            "",
            "-http01",
            "",
            "-https01",
            "",
            "-tlsalpn01",
            "",
        ]);
        resolver.args(["-doh", "", "-dnsserver", &format!("127.0.0.1:{dns}")]);
        resolver.args(["-management", &format!("127.0.0.1:{dns_management}")]);
        let mut pebble = program("pebble", &folder);
        pebble.env("PEBBLE_VA_NOSLEEP", "1").arg("-config").arg(path("pebble.json"));
        pebble.args(["-dnsserver", &format!("127.0.0.1:{dns}")]);
        let processes = [resolver, pebble].map(|mut command| command.spawn().expect("Pebble can be started"));
        let authority = Self { processes: processes.into(), folder, ca, directory, management, http, tls };
        authority.wait();
        authority
    }

    fn wait(&self) {
        let end = Instant::now() + PATIENCE;
        while std::net::TcpStream::connect(("127.0.0.1", self.management)).is_err() {
            assert!(Instant::now() < end, "Pebble does not start: {}", self.log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// A proxy that is to have a certificate of this authority.
    fn stage(&self, challenge: &str) -> Stage {
        self.stage_with(challenge, "")
    }

    fn stage_with(&self, challenge: &str, more: &str) -> Stage {
        let toml = format!(
            "state_dir = {:?}\n[[listeners]]\naddress = \"127.0.0.1:{}\"\ntls = false\n\
             [tls.acme]\ndomains = [\"{NAME}\"]\ncontacts = [\"mailto:ops@example.com\"]\nagree_to_terms = true\n\
             directory = \"https://localhost:{}/dir\"\nca_file = {:?}\nchallenge = \"{challenge}\"\n{more}",
            self.folder.path().join("state"),
            self.http,
            self.directory,
            self.folder.path().join("ca.crt"),
        );
        Stage::builder().toml(&toml).port(self.tls).start()
    }

    /// What the proxy shows once it has a certificate that leads to this authority's root.
    async fn issued(&self, stage: &Stage) -> CertificateDer<'static> {
        let management = SocketAddr::from(([127, 0, 0, 1], self.management));
        let root = TlsClient::trusting(&self.ca).get(management, "localhost", "/roots/0", "").await.expect("the root");
        let root = &root[root.find("-----BEGIN").expect("PEM")..];
        let client = TlsClient::trusting_pem(root);
        let end = Instant::now() + PATIENCE;
        loop {
            match client.connect(stage.address(), NAME).await {
                Ok(stream) => {
                    let shown = stream.get_ref().1.peer_certificates().expect("a certificate");
                    return shown[0].clone().into_owned();
                }
                Err(error) => assert!(Instant::now() < end, "{error}: {}", self.log()),
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("pebble.log")).unwrap_or_default()
    }
}

impl Drop for Authority {
    fn drop(&mut self) {
        for process in &mut self.processes {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

fn program(name: &str, folder: &TempDir) -> Command {
    let home: PathBuf = std::env::var_os("TESTS_PEBBLE")
        .expect("TESTS_PEBBLE is not set: ./tests/run installs it, ./tests/run fast leaves these tests out")
        .into();
    let log = File::create(folder.path().join(Path::new(name).with_extension("log"))).expect("a log");
    let mut command = Command::new(home.join(name));
    command.stdin(Stdio::null()).stdout(log.try_clone().expect("the log")).stderr(log);
    command
}

#[tokio::test]
async fn a_certificate_is_ordered_by_tls_kept_through_a_restart_and_renewed_in_time() {
    let authority = Authority::start();
    let stage = authority.stage("tls-alpn-01");
    let first = authority.issued(&stage).await;
    stage.upstream.assert_untouched();

    let stage = stage.restart();
    assert_eq!(authority.issued(&stage).await, first, "it is not ordered again");

    // Pebble's certificates live for 90 days or five years, by its version: past two thirds of either.
    stage.clock.advance(Duration::from_secs(5 * 365 * 24 * 3600));
    let stage = stage.restart();
    let end = Instant::now() + PATIENCE;
    while authority.issued(&stage).await == first {
        assert!(Instant::now() < end, "it is not renewed: {}", authority.log());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn a_certificate_is_ordered_by_http_and_other_tokens_are_requests_like_any_other() {
    let authority = Authority::start();
    let stage = authority.stage("http-01");
    authority.issued(&stage).await;
    stage.upstream.assert_untouched();
    let url = format!("http://127.0.0.1:{}/.well-known/acme-challenge/unknown", authority.http);
    let reply = stage.browser().fetch(&url).await;
    assert_eq!(reply.status, 401, "{}", reply.text());
    stage.upstream.assert_untouched();
}

#[tokio::test]
async fn an_authority_that_takes_only_those_whom_it_knows_is_shown_its_own_key() {
    const KEY: &str = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W";
    let authority = Authority::with(json!({
        "externalAccountBindingRequired": true,
        "externalAccountMACKeys": { "kid-1": KEY },
    }));
    let file = authority.folder.path().join("eab");
    std::fs::write(&file, format!("{KEY}\n")).unwrap();
    let stage = authority.stage_with("tls-alpn-01", &format!("eab_key_id = \"kid-1\"\neab_hmac_key_file = {file:?}\n"));
    authority.issued(&stage).await;
    stage.upstream.assert_untouched();
}
