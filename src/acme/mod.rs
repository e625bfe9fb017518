//! Certificates from an authority that speaks ACME (RFC 8555): ordered when there is none, renewed when two thirds of its life
//! are over, and written where the listener's TLS reads it, which takes every new one by itself. The settings are always there,
//! all else is the feature `acme`.

#[cfg(feature = "acme")]
mod challenges;
#[cfg(feature = "acme")]
mod files;
#[cfg(feature = "acme")]
mod handler;
#[cfg(feature = "acme")]
mod http;
#[cfg(feature = "acme")]
mod manager;
#[cfg(feature = "acme")]
mod order;

use std::path::{Path, PathBuf};

#[cfg(feature = "acme")]
pub use self::{
    challenges::Challenges,
    handler::WithChallenges,
    manager::{AcmeError, Manager},
};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use zeroize::Zeroizing;

use crate::secret::SecretString;
use crate::server::tls::Proofs;

/// What to order, checked.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The names in the certificate; the first is its subject.
    pub domains: Vec<String>,
    /// Where the authority sends warnings: `mailto:` URLs.
    pub contacts: Vec<String>,
    /// Whom the authority knows already; `None`: it takes anybody.
    pub external_account: Option<ExternalAccount>,
    /// The authority's directory (RFC 8555 §7.1.1).
    pub directory: String,
    /// How a name is proven.
    pub challenge: Challenge,
    /// Extra roots (PEM) for connections to the authority, beside the system's.
    pub ca_file: Option<PathBuf>,
    /// Where a listener shows what proves a name by TLS.
    pub proofs: Proofs,
    /// Where account and certificate are kept.
    pub folder: PathBuf,
}

/// An account that somebody has with the authority by other means, to which ours is bound (RFC 8555 §7.3.4).
#[derive(Debug, Clone)]
pub struct ExternalAccount {
    /// The key's name there.
    pub key_id: String,
    /// The key itself, in base64url without padding.
    pub hmac_key: SecretString,
}

impl ExternalAccount {
    /// The bytes of a key as authorities write it: base64url, some with padding.
    pub(crate) fn decode(hmac_key: &str) -> Option<Zeroizing<Vec<u8>>> {
        let text = hmac_key.trim().trim_end_matches('=');
        BASE64_URL_SAFE_NO_PAD.decode(text).ok().filter(|key| !key.is_empty()).map(Zeroizing::new)
    }
}

/// How the authority looks whether a name is ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Challenge {
    /// By http on port 80 (RFC 8555 §8.3).
    Http01,
    /// By TLS on port 443 (RFC 8737).
    TlsAlpn01,
}

/// The file with key and certificate, which are only ever replaced together.
pub fn pair_file(folder: &Path) -> PathBuf {
    folder.join("certificate.pem")
}
