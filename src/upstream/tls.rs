//! TLS towards an upstream: whose certificates are believed, who we say we are, and both read again when their files change.

use std::error::Error;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::{AlertDescription, CertificateError, ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use zeroize::Zeroizing;

use super::socket::SocketIo;
use super::{Protocol, UpstreamError};
use crate::files::{Digest, LARGEST, Settled, bounded, digest};
use crate::pem::{self, Lack};

const HTTP1: &[u8] = b"http/1.1";
const H2: &[u8] = b"h2";

/// `[upstream.tls]`, as it is configured.
#[derive(Debug, Clone)]
pub struct TlsSettings {
    /// The only roots that are believed, in PEM; `None`: the system's.
    pub ca_file: Option<PathBuf>,
    /// What the certificate must be for, sent as SNI (RFC 6066 §3) where it is a name.
    pub server_name: ServerName<'static>,
    /// The certificate chain and the key, in PEM, that we show where we are asked for one.
    pub client_certificate: Option<(PathBuf, PathBuf)>,
    /// How often the files are looked at. Default 5 s.
    pub reload_interval: Duration,
}

impl TlsSettings {
    /// How often the files are looked at unless it is said otherwise.
    pub const RELOAD_INTERVAL: Duration = Duration::from_secs(5);

    /// Whether there is a file that could change.
    fn has_files(&self) -> bool {
        self.ca_file.is_some() || self.client_certificate.is_some()
    }
}

/// Why the files cannot be used.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "each message says it")]
pub enum TlsFileError {
    #[error("{} cannot be used: {reason}", path.display())]
    File { path: PathBuf, reason: String },
    #[error("no TLS roots were found on this system")]
    NoRoots,
    #[error("{} does not fit the key in {}: {source}", certificate.display(), key.display())]
    Pair { certificate: PathBuf, key: PathBuf, source: rustls::Error },
}

/// How one upstream is spoken to in TLS. Shared by all workers.
#[derive(Debug)]
pub struct Tls {
    settings: TlsSettings,
    config: ArcSwap<ClientConfig>,
    settled: Mutex<Settled>,
}

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// [`TlsFileError`].
    pub fn load(settings: TlsSettings) -> Result<Self, TlsFileError> {
        let files = Files::read(&settings);
        let config = ArcSwap::from_pointee(load(&files)?);
        Ok(Self { config, settled: Mutex::new(Settled::new(files.digest())), settings })
    }

    /// Takes in files that change, for as long as the process lives; needs a runtime with blocking threads.
    pub(super) async fn watch(self: Arc<Self>) {
        while self.settings.has_files() {
            tokio::time::sleep(self.settings.reload_interval).await;
            let tls = Arc::clone(&self);
            // A panic in there ends the watch; what is in use stays.
            if tokio::task::spawn_blocking(move || tls.look()).await.is_err() {
                return;
            }
        }
    }

    fn look(&self) {
        let files = Files::read(&self.settings);
        let digest = files.digest();
        let mut settled = self.settled.lock().unwrap_or_else(PoisonError::into_inner);
        if settled.still(digest) {
            return;
        }
        match load(&files) {
            Ok(config) => {
                self.config.store(Arc::new(config));
                settled.took(digest);
            }
            Err(error) if settled.failed(digest) => tracing::warn!(
                error = crate::telemetry::chain(&error),
                "changed certificate files of an upstream cannot be used, so the old ones stay in use"
            ),
            Err(_) => {}
        }
    }

    /// Shakes hands; tells whether HTTP/2 was agreed on (RFC 7301).
    pub(super) async fn connect(
        &self,
        socket: SocketIo,
        protocol: Protocol,
    ) -> Result<(TlsStream<SocketIo>, bool), UpstreamError> {
        let mut config = ClientConfig::clone(&self.config.load());
        config.alpn_protocols = match protocol {
            Protocol::Http1 => vec![HTTP1.to_vec()],
            Protocol::H2 => vec![H2.to_vec()],
            Protocol::Auto => vec![H2.to_vec(), HTTP1.to_vec()],
        };
        let connector = TlsConnector::from(Arc::new(config));
        let stream = connector.connect(self.settings.server_name.clone(), socket).await.map_err(classify)?;
        let is_h2 = stream.get_ref().1.alpn_protocol() == Some(H2);
        if protocol == Protocol::H2 && !is_h2 {
            return Err(UpstreamError::Tls("it did not agree to HTTP/2; set protocol = \"http1\"".into()));
        }
        Ok((stream, is_h2))
    }
}

/// What the files hold, or why they cannot be read.
struct Files {
    ca: Option<Contents>,
    pair: Option<(Contents, Contents)>,
}

struct Contents {
    path: PathBuf,
    bytes: Result<Zeroizing<Vec<u8>>, String>,
}

impl Files {
    /// Blocks.
    fn read(settings: &TlsSettings) -> Self {
        let read = |path: &PathBuf| Contents {
            path: path.clone(),
            bytes: bounded(path, LARGEST).map_err(|error| error.to_string()),
        };
        let pair = settings.client_certificate.as_ref().map(|(certificate, key)| (read(certificate), read(key)));
        Self { ca: settings.ca_file.as_ref().map(read), pair }
    }

    fn digest(&self) -> Digest {
        let pair = self.pair.iter().flat_map(|(certificate, key)| [certificate, key]);
        digest(self.ca.iter().chain(pair).map(|contents| match &contents.bytes {
            Ok(bytes) => Ok(bytes.as_slice()),
            Err(why) => Err(why.as_str()),
        }))
    }
}

impl Contents {
    fn bytes(&self) -> Result<&[u8], TlsFileError> {
        self.bytes.as_ref().map(|bytes| bytes.as_slice()).map_err(|why| self.unusable(why))
    }

    fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, TlsFileError> {
        pem::certificates(self.bytes()?).map_err(|lack| self.lacks(lack))
    }

    fn private_key(&self) -> Result<PrivateKeyDer<'static>, TlsFileError> {
        pem::private_key(self.bytes()?).map_err(|lack| self.lacks(lack))
    }

    fn lacks(&self, lack: Lack) -> TlsFileError {
        self.unusable(match lack {
            Lack::Pem => "it is not PEM",
            Lack::Certificate => "it holds no PEM certificate",
            Lack::RevocationList => "it holds no list of revoked certificates in PEM",
            Lack::Key => "it holds no unencrypted private key in PEM",
        })
    }

    fn unusable(&self, reason: impl ToString) -> TlsFileError {
        TlsFileError::File { path: self.path.clone(), reason: reason.to_string() }
    }
}

fn load(files: &Files) -> Result<ClientConfig, TlsFileError> {
    let mut roots = RootCertStore::empty();
    match &files.ca {
        Some(file) => {
            for certificate in file.certificates()? {
                roots.add(certificate).map_err(|error| file.unusable(error))?;
            }
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if roots.is_empty() {
                return Err(TlsFileError::NoRoots);
            }
        }
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        // Fails only for a provider without suites for TLS 1.2 and 1.3; this one's set is fixed when we are built.
        .expect("aws-lc-rs has suites for the default protocol versions")
        .with_root_certificates(roots);
    let Some((certificate, key)) = &files.pair else { return Ok(builder.with_no_client_auth()) };
    let (chain, der) = (certificate.certificates()?, key.private_key()?);
    builder.with_client_auth_cert(chain, der).map_err(|source| TlsFileError::Pair {
        certificate: certificate.path.clone(),
        key: key.path.clone(),
        source,
    })
}

/// What a failed handshake means.
fn classify(error: io::Error) -> UpstreamError {
    match rustls_error(&error) {
        Some(rustls::Error::InvalidCertificate(_)) => UpstreamError::Certificate(error),
        Some(_) => UpstreamError::Tls(error.into()),
        None if error.kind() == io::ErrorKind::TimedOut => UpstreamError::ConnectTimeout,
        None => UpstreamError::Tls(error.into()),
    }
}

/// Whether the upstream refused us as a TLS client. In TLS 1.3 it says so only after the handshake (RFC 8446 §4.4.2.4), in
/// place of an answer.
pub(super) fn is_refusal(error: &io::Error) -> bool {
    // h2 keeps no more than the text of an error.
    let is_alert = |refusal: &AlertDescription| alert_text(error) == rustls::Error::AlertReceived(*refusal).to_string();
    REFUSALS.iter().any(is_alert)
}

/// What is said of a client's certificate, or of there being none.
const REFUSALS: [AlertDescription; 8] = [
    AlertDescription::CertificateRequired,
    AlertDescription::BadCertificate,
    AlertDescription::UnsupportedCertificate,
    AlertDescription::CertificateUnknown,
    AlertDescription::CertificateExpired,
    AlertDescription::UnknownCA,
    AlertDescription::AccessDenied,
    AlertDescription::HandshakeFailure,
];

fn alert_text(error: &io::Error) -> String {
    error.get_ref().map(ToString::to_string).unwrap_or_default()
}

/// What an operator can do about `error`.
pub(super) fn remedy(error: &(dyn Error + 'static)) -> &'static str {
    let Some(error) = io_cause(error) else { return "set protocol = \"http1\"" };
    match rustls_error(error) {
        Some(rustls::Error::InvalidCertificate(error)) => match error {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                "renew the upstream's certificate, or set this machine's clock"
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => "set this machine's clock",
            // A bad signature comes from another issuer of the same name.
            CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                "name the file of its issuer in tls.ca_file"
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                "write the name that the certificate is for into tls.server_name"
            }
            CertificateError::Revoked => "replace the upstream's certificate",
            _ => "have the upstream's certificate issued anew",
        },
        Some(rustls::Error::AlertReceived(AlertDescription::NoApplicationProtocol)) => "set protocol = \"http1\"",
        _ if is_refusal(error) => {
            "give it a certificate that it accepts: tls.client_certificate_file and tls.client_key_file"
        }
        _ => "see that it speaks TLS 1.2 or 1.3 at this port",
    }
}

fn io_cause<'e>(error: &'e (dyn Error + 'static)) -> Option<&'e io::Error> {
    let found = error.downcast_ref::<io::Error>();
    match found.or_else(|| error.downcast_ref::<h2::Error>()?.get_io()) {
        Some(found) => Some(found),
        None => io_cause(error.source()?),
    }
}

fn rustls_error(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}
