//! A CA of this test run, what it signs, and a TLS client that trusts it.

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType, IsCa, KeyIdMethod,
    KeyPair, RevokedCertParams, date_time_ymd,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore, SupportedProtocolVersion, version};

/// No exchange takes longer than this.
const DEADLINE: Duration = Duration::from_secs(20);

/// A certificate authority.
pub struct TestCa {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// A certificate and its key, PEM.
#[derive(Debug, Clone)]
pub struct Signed {
    /// The certificate.
    pub certificate: String,
    /// Its key.
    pub key: String,
}

impl TestCa {
    /// A new one.
    pub fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "Test CA");
        let key = KeyPair::generate().expect("a key");
        Self { issuer: CertifiedIssuer::self_signed(params, key).expect("a CA") }
    }

    /// The CA's own certificate, PEM.
    pub fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// A certificate for these DNS names.
    pub fn sign(&self, names: &[&str]) -> Signed {
        self.sign_with(names, |_| ())
    }

    /// A certificate for these DNS names, changed by the test.
    pub fn sign_with(&self, names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> Signed {
        let names: Vec<_> = names.iter().map(|&name| name.to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("DNS names");
        change(&mut params);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a signature");
        Signed { certificate: certificate.pem(), key: key.serialize_pem() }
    }

    /// The list of those of its certificates that are revoked, by their serial numbers, good until the end of that year; PEM.
    pub fn revocations(&self, serials: &[u64], good_until: i32) -> String {
        let revoked = |&serial: &u64| RevokedCertParams {
            serial_number: serial.into(),
            revocation_time: date_time_ymd(2020, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2020, 1, 1),
            next_update: date_time_ymd(good_until, 12, 31),
            crl_number: 1_u64.into(),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        list.signed_by(&self.issuer).expect("a signature").pem().expect("PEM")
    }
}

impl Default for TestCa {
    fn default() -> Self {
        Self::new()
    }
}

/// A folder with files as Kubernetes mounts a secret: names that lead through `..data` to a folder with the day's content.
pub struct CertificateFiles {
    folder: tempfile::TempDir,
    generation: u32,
}

impl CertificateFiles {
    /// `tls.crt` and `tls.key`.
    pub fn new(signed: &Signed) -> Self {
        let mut files = Self { folder: tempfile::tempdir().expect("a folder"), generation: 0 };
        for name in ["tls.crt", "tls.key"] {
            symlink(Path::new("..data").join(name), files.path(name)).expect("a symlink");
        }
        files.swap(&[("tls.crt", &signed.certificate), ("tls.key", &signed.key)]);
        files
    }

    /// One of the files.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Another file beside them.
    pub fn add(&self, name: &str, text: &str) -> PathBuf {
        write(&self.path(name), text);
        self.path(name)
    }

    /// Puts a new generation in place at once, by renaming a symlink.
    pub fn swap(&mut self, contents: &[(&str, &str)]) {
        self.generation += 1;
        let name = format!("..{}", self.generation);
        std::fs::create_dir(self.path(&name)).expect("a folder");
        for (file, text) in contents {
            write(&self.path(&name).join(file), text);
        }
        let link = self.path("..data_tmp");
        symlink(&name, &link).expect("a symlink");
        std::fs::rename(link, self.path("..data")).expect("the swap");
    }

    /// A TOML `[tls]` section that names them.
    pub fn toml(&self) -> String {
        format!("[tls]\n{}", self.keys())
    }

    /// The two keys of a TLS section.
    pub fn keys(&self) -> String {
        format!("certificate_file = {:?}\nkey_file = {:?}\n", self.path("tls.crt"), self.path("tls.key"))
    }
}

fn write(path: &Path, text: &str) {
    std::fs::write(path, text).expect("a file");
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).expect("its mode");
}

/// A TLS client.
#[derive(Clone)]
pub struct TlsClient {
    config: Arc<ClientConfig>,
}

impl TlsClient {
    /// Trusts `ca`, speaks TLS 1.2 and 1.3.
    pub fn trusting(ca: &TestCa) -> Self {
        Self::trusting_pem(&ca.pem())
    }

    /// Trusts the CA of this certificate.
    pub fn trusting_pem(root: &str) -> Self {
        Self::build(root, &[&version::TLS13, &version::TLS12], None)
    }

    /// Trusts `ca` and speaks one version only.
    pub fn speaking(ca: &TestCa, version: &'static SupportedProtocolVersion) -> Self {
        Self::build(&ca.pem(), &[version], None)
    }

    /// Trusts `ca` and shows a certificate where it is asked for one.
    pub fn showing(ca: &TestCa, signed: &Signed) -> Self {
        Self::build(&ca.pem(), &[&version::TLS13, &version::TLS12], Some(signed))
    }

    /// This client with other ALPN protocols.
    pub fn offering(&self, protocols: &[&[u8]]) -> Self {
        let mut config = (*self.config).clone();
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        Self { config: Arc::new(config) }
    }

    /// This client, which sends before the handshake is over (RFC 8446 §2.3) wherever it may.
    pub fn eager(&self) -> Self {
        let mut config = (*self.config).clone();
        config.enable_early_data = true;
        Self { config: Arc::new(config) }
    }

    /// How much an [eager](Self::eager) one may send before its next handshake with `name` is over, in bytes; `None`: nothing.
    pub fn early(&self, name: &str) -> Option<usize> {
        let name = ServerName::try_from(name.to_owned()).expect("a name");
        let mut next = ClientConnection::new(Arc::clone(&self.config), name).expect("a connection");
        next.early_data().map(|early| early.bytes_left())
    }

    fn build(root: &str, versions: &[&'static SupportedProtocolVersion], signed: Option<&Signed>) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(root.as_bytes()).expect("PEM")).expect("a root");
        let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(versions)
            .expect("versions")
            .with_root_certificates(roots);
        let config = match signed {
            None => builder.with_no_client_auth(),
            Some(Signed { certificate, key }) => {
                let chain = CertificateDer::pem_slice_iter(certificate.as_bytes()).collect::<Result<Vec<_>, _>>();
                let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("a key");
                builder.with_client_auth_cert(chain.expect("PEM"), key).expect("a client certificate")
            }
        };
        Self { config: Arc::new(config) }
    }

    /// A connection to `address`, asking for `name`.
    pub async fn connect(&self, address: SocketAddr, name: &str) -> io::Result<TlsStream<TcpStream>> {
        self.wrap(TcpStream::connect(address).await?, name).await
    }

    /// TLS over a stream that is there already.
    pub async fn wrap<S: AsyncRead + AsyncWrite + Unpin>(&self, stream: S, name: &str) -> io::Result<TlsStream<S>> {
        let name = ServerName::try_from(name.to_owned()).expect("a name");
        let connect = TlsConnector::from(Arc::clone(&self.config)).connect(name, stream);
        tokio::time::timeout(DEADLINE, connect).await.expect("a handshake in time")
    }

    /// One GET on a connection of its own; everything that comes back. A server that refuses a client certificate says so
    /// after the handshake, so the error may come only here.
    pub async fn get(&self, address: SocketAddr, name: &str, path: &str, headers: &str) -> io::Result<String> {
        let mut stream = self.connect(address, name).await?;
        get(&mut stream, name, path, headers).await
    }
}

/// One GET on `stream`, its last.
pub async fn get<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    host: &str,
    path: &str,
    headers: &str,
) -> io::Result<String> {
    let request = format!("GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n{headers}\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    tokio::time::timeout(DEADLINE, stream.read_to_end(&mut answer)).await.expect("an answer in time")?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}
