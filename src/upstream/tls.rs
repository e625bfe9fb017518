//! TLS towards an upstream: whose certificates are believed, who we say we are, and both read again when their files change.

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use rustls::{AlertDescription, CertificateError, ClientConfig, RootCertStore};
use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::socket::SocketIo;
use super::{Protocol, UpstreamError};

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

/// How one upstream is spoken to in TLS. Shared by all workers; locked only while a connection is made.
#[derive(Debug)]
pub struct Tls {
    settings: TlsSettings,
    loaded: Mutex<Loaded>,
}

#[derive(Debug)]
struct Loaded {
    config: ClientConfig,
    versions: Vec<FileVersion>,
}

/// What changes when a file is replaced.
type FileVersion = Option<(SystemTime, u64)>;

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// [`TlsFileError`].
    pub fn load(settings: TlsSettings) -> Result<Self, TlsFileError> {
        let loaded = Mutex::new(Loaded { versions: versions(&settings), config: load(&settings)? });
        Ok(Self { settings, loaded })
    }

    /// Shakes hands; tells whether HTTP/2 was agreed on (RFC 7301).
    pub(super) async fn connect(
        &self,
        socket: SocketIo,
        protocol: Protocol,
    ) -> Result<(TlsStream<SocketIo>, bool), UpstreamError> {
        let mut config = self.config();
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

    /// As the files are now; as they were, where they cannot be used.
    fn config(&self) -> ClientConfig {
        // A panic below leaves what was loaded before.
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        let versions = versions(&self.settings);
        if versions != loaded.versions {
            match load(&self.settings) {
                Ok(config) => loaded.config = config,
                Err(error) => tracing::warn!(
                    error = crate::telemetry::chain(&error),
                    "changed certificate files of an upstream cannot be used, so the old ones stay in use"
                ),
            }
            // Told once for each change.
            loaded.versions = versions;
        }
        loaded.config.clone()
    }
}

fn versions(settings: &TlsSettings) -> Vec<FileVersion> {
    let pair = settings.client_certificate.iter().flat_map(|(certificate, key)| [certificate, key]);
    let version = |path: &PathBuf| {
        let metadata = std::fs::metadata(path).ok()?;
        Some((metadata.modified().ok()?, metadata.len()))
    };
    settings.ca_file.iter().chain(pair).map(version).collect()
}

fn load(settings: &TlsSettings) -> Result<ClientConfig, TlsFileError> {
    let mut roots = RootCertStore::empty();
    match &settings.ca_file {
        Some(path) => {
            for certificate in certificates(path)? {
                roots.add(certificate).map_err(|error| unusable(path, error))?;
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
    let Some((certificate, key)) = &settings.client_certificate else { return Ok(builder.with_no_client_auth()) };
    let chain = certificates(certificate)?;
    let der = PrivateKeyDer::from_pem_file(key).map_err(|error| match error {
        pem::Error::Io(error) => unusable(key, error),
        // The parser's own words could show what it read.
        _ => unusable(key, "it holds no unencrypted private key in PEM"),
    })?;
    builder.with_client_auth_cert(chain, der).map_err(|source| TlsFileError::Pair {
        certificate: certificate.clone(),
        key: key.clone(),
        source,
    })
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsFileError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path).and_then(|certificates| certificates.collect());
    let found = found.map_err(|error| unusable(path, error))?;
    if found.is_empty() {
        return Err(unusable(path, "it holds no PEM certificate"));
    }
    Ok(found)
}

fn unusable(path: &Path, reason: impl ToString) -> TlsFileError {
    TlsFileError::File { path: path.to_owned(), reason: reason.to_string() }
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
