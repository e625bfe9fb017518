//! TLS towards clients: rustls with its defaults (TLS 1.2 and 1.3, post-quantum key exchange first, no 0-RTT), certificates
//! chosen by name, client certificates where they are asked for, all of it replaced while running when the files change.

mod choice;
mod client;
mod files;
mod proofs;
mod reload;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use http::HeaderName;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{ServerConfig, version};
use tokio::sync::watch;

use self::choice::Choice;
pub use self::client::CertificateField;
pub(super) use self::client::{Unreadable as UnreadableCertificate, read as read_client_certificate};
use self::files::Files;
pub(super) use self::proofs::PROTOCOL as PROOF_PROTOCOL;
pub use self::proofs::Proofs;
pub(super) use self::reload::Reload;
use super::standing::Judge;

/// What is agreed on by ALPN (RFC 7301), best first.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// The TLS of a listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// At least one. The first answers for names that no other has, and for clients that name none.
    pub certificates: Vec<Pair>,
    /// Who signs client certificates; `None`: none are asked for.
    pub client_ca_file: Option<PathBuf>,
    /// Which certificates of clients are revoked: a list (RFC 5280 §5) of every CA on their way to the root; `None`: none are.
    pub client_crl_file: Option<PathBuf>,
    /// Whether a client must have a certificate, where they are asked for.
    pub client_certificate_required: bool,
    /// Nothing below TLS 1.3.
    pub only_tls13: bool,
    /// What a certificate authority is shown that asks by TLS; `None`: none does.
    pub proofs: Option<Proofs>,
    /// What the upstream gets to know of a client's certificate.
    pub headers: Vec<(HeaderName, CertificateField)>,
}

/// A certificate with its key, both PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    /// The certificate and those that lead to its root.
    pub certificate_file: PathBuf,
    /// Its key.
    pub key_file: PathBuf,
}

/// Why files cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{} {what}", file.display())]
pub struct Problem {
    /// The key within the TLS section: `key_file`, `certificates[0].certificate_file`, `client_ca_file`.
    pub key: String,
    /// The file.
    pub file: PathBuf,
    /// What is wrong with it, after its name.
    pub what: String,
    /// What to do about it.
    pub fix: &'static str,
}

/// What [`check`] found in files that can be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// The key within the TLS section.
    pub key: String,
    /// When it ends, in seconds since the Unix epoch.
    pub expires_at: u64,
}

/// Reads everything and gives the certificates that would be in use.
///
/// # Errors
/// Every [`Problem`] at once.
pub fn check(settings: &Settings) -> Result<Vec<Certificate>, Vec<Problem>> {
    build(settings, &Files::read(settings)).map(|built| built.certificates)
}

/// The TLS of one listener as it is now. Never shared between listeners: a session ticket of one must not open another
/// (CVE-2025-23419).
#[derive(Debug)]
pub(super) struct Tls {
    settings: Arc<Settings>,
    config: ArcSwap<ServerConfig>,
    /// Who judges certificates of clients; `None` where they are not asked for.
    judge: Option<watch::Sender<Judge>>,
    expires_at: AtomicU64,
    /// What `config` was made from.
    first: crate::files::Digest,
}

impl Tls {
    pub(super) fn load(settings: Arc<Settings>) -> Result<Arc<Self>, Vec<Problem>> {
        let files = Files::read(&settings);
        let built = build(&settings, &files)?;
        Ok(Arc::new(Self {
            first: files.digest(),
            expires_at: AtomicU64::new(built.expires_at()),
            config: ArcSwap::from_pointee(built.config),
            judge: built.judge.map(watch::Sender::new),
            settings,
        }))
    }

    pub(super) fn config(&self) -> Arc<ServerConfig> {
        self.config.load_full()
    }

    /// Who judges certificates of clients, now and later.
    pub(super) fn judge(&self) -> Option<watch::Receiver<Judge>> {
        self.judge.as_ref().map(watch::Sender::subscribe)
    }

    pub(super) fn headers(&self) -> &[(HeaderName, CertificateField)] {
        &self.settings.headers
    }

    /// When the first of the certificates in use ends.
    pub(super) fn expires_at(&self) -> u64 {
        self.expires_at.load(Ordering::Relaxed)
    }

    /// Connections that are open keep what they began with, unless their client's certificate is none any more.
    fn replace(&self, built: Built) {
        self.expires_at.store(built.expires_at(), Ordering::Relaxed);
        self.config.store(Arc::new(built.config));
        // New handshakes come first: whoever is sent away is judged anew by the same.
        if let (Some(known), Some(judge)) = (&self.judge, built.judge) {
            known.send_replace(judge);
        }
    }
}

struct Built {
    config: ServerConfig,
    judge: Option<Judge>,
    certificates: Vec<Certificate>,
}

impl Built {
    fn expires_at(&self) -> u64 {
        self.certificates.iter().map(|certificate| certificate.expires_at).min().unwrap_or_default()
    }
}

fn build(settings: &Settings, files: &Files) -> Result<Built, Vec<Problem>> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut problems = Vec::new();
    let (mut choice, mut certificates) = (Choice::new(settings.proofs.clone()), Vec::new());
    for index in 0..settings.certificates.len() {
        match files.pair(index, &provider) {
            Ok((certificate, names, key)) => {
                certificates.push(certificate);
                choice.add(key, names);
            }
            Err(mut found) => problems.append(&mut found),
        }
    }
    let judge = settings.client_ca_file.is_some().then(|| judge(settings, files, &provider)).transpose();
    let judge = judge.unwrap_or_else(|problem| {
        problems.push(problem);
        None
    });
    if !problems.is_empty() {
        return Err(problems);
    }
    let config = config(settings, provider, judge.clone(), choice).map_err(|what| {
        let file = settings.certificates.first().map(|pair| pair.certificate_file.clone()).unwrap_or_default();
        let key = "certificate_file".to_owned();
        vec![Problem { key, file, what: format!("cannot be used: {what}"), fix: "name a PEM file as your CA gave it" }]
    })?;
    Ok(Built { config, judge, certificates })
}

fn judge(settings: &Settings, files: &Files, provider: &Arc<CryptoProvider>) -> Result<Judge, Problem> {
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(files.client_roots()?), Arc::clone(provider));
    let verifier = if settings.client_certificate_required { verifier } else { verifier.allow_unauthenticated() };
    let verifier = match &settings.client_crl_file {
        None => verifier,
        // A certificate about which no list says anything, or none that still holds, is refused.
        Some(_) => verifier.with_crls(files.client_revocations()?).enforce_revocation_expiration(),
    };
    let judge = verifier.build().map_err(|error| files.unusable_for_clients(&error))?;
    Ok(judge)
}

fn config(
    settings: &Settings,
    provider: Arc<CryptoProvider>,
    judge: Option<Judge>,
    choice: Choice,
) -> Result<ServerConfig, String> {
    let versions: &[_] = if settings.only_tls13 { &[&version::TLS13] } else { &[&version::TLS13, &version::TLS12] };
    let builder = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .map_err(|error| error.to_string())?;
    let asks_clients = judge.is_some();
    let builder = match judge {
        None => builder.with_no_client_auth(),
        Some(judge) => builder.with_client_cert_verifier(judge),
    };
    let mut config = builder.with_cert_resolver(Arc::new(choice));
    config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
    if settings.proofs.is_some() {
        config.alpn_protocols.push(PROOF_PROTOCOL.to_vec());
    }
    if asks_clients {
        // A resumed session would not show its certificate again, whatever became of it or of its CA.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
    } else {
        config.ticketer = aws_lc_rs::Ticketer::new().map_err(|error| error.to_string())?;
    }
    Ok(config)
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};
    use rustls::RootCertStore;

    use super::*;

    #[test]
    fn nothing_is_taken_before_a_handshake_is_over_and_no_shown_certificate_is_remembered() {
        let settings = Settings {
            certificates: Vec::new(),
            client_ca_file: None,
            client_crl_file: None,
            client_certificate_required: true,
            only_tls13: false,
            proofs: None,
            headers: Vec::new(),
        };
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let mut roots = RootCertStore::empty();
        roots.add(params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone()).unwrap();
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
        let judge: Judge = verifier.build().unwrap();
        for (judge, tickets) in [(None, true), (Some(judge), false)] {
            let config = config(&settings, Arc::clone(&provider), judge, Choice::new(None)).unwrap();
            // RFC 8446 §8: what comes with the first flight could be sent again by anybody.
            assert_eq!(config.max_early_data_size, 0);
            let may_remember =
                (config.ticketer.enabled(), config.send_tls13_tickets > 0, config.session_storage.can_cache());
            assert_eq!(may_remember, (tickets, tickets, tickets));
        }
    }
}
