//! What proves to the authority that a domain is ours, while it looks.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustls::sign::CertifiedKey;
use rustls_pki_types::PrivateKeyDer;

use super::AcmeError;
use crate::server::tls::Proofs;

/// Where an authority looks for a token (RFC 8555 §8.3).
pub(super) const PATH: &str = "/.well-known/acme-challenge/";

/// The challenges that are open now. Clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Challenges {
    /// Token → key authorization.
    tokens: Arc<Mutex<HashMap<String, String>>>,
    proofs: Proofs,
}

/// A challenge that is published; dropped, it is taken back.
#[must_use]
#[derive(Debug)]
pub(super) struct Published {
    challenges: Challenges,
    key: Key,
}

#[derive(Debug)]
enum Key {
    Token(String),
    Certificate(String),
}

impl Challenges {
    /// `proofs` are those of the listener.
    pub(super) fn new(proofs: Proofs) -> Self {
        Self { tokens: Arc::default(), proofs }
    }

    /// The body of the answer to a request for `path` (RFC 8555 §8.3), where it is that of an open challenge.
    pub fn answer(&self, path: &str) -> Option<String> {
        let token = path.strip_prefix(PATH)?;
        self.tokens().get(token).cloned()
    }

    pub(super) fn publish_token(&self, token: &str, key_authorization: &str) -> Published {
        self.tokens().insert(token.to_owned(), key_authorization.to_owned());
        Published { challenges: self.clone(), key: Key::Token(token.to_owned()) }
    }

    /// A self-signed certificate with the digest in its `acmeIdentifier` extension.
    pub(super) fn publish_certificate(&self, domain: &str, digest: &[u8]) -> Result<Published, AcmeError> {
        let key = rcgen::KeyPair::generate()?;
        let mut parameters = rcgen::CertificateParams::new([domain.to_owned()])?;
        parameters.custom_extensions = vec![rcgen::CustomExtension::new_acme_identifier(digest)];
        let certificate = parameters.self_signed(&key)?;
        let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        let key = rustls::crypto::aws_lc_rs::sign::any_supported_type(&key)?;
        self.proofs.insert(domain, CertifiedKey::new(vec![certificate.der().clone()], key));
        Ok(Published { challenges: self.clone(), key: Key::Certificate(domain.to_owned()) })
    }

    fn tokens(&self) -> MutexGuard<'_, HashMap<String, String>> {
        // A panic between two statements leaves a map that is still a map.
        self.tokens.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Published {
    fn drop(&mut self) {
        match &self.key {
            Key::Token(token) => drop(self.challenges.tokens().remove(token)),
            Key::Certificate(domain) => self.challenges.proofs.remove(domain),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_challenge_is_answered_while_it_is_open_and_no_longer() {
        let challenges = Challenges::default();
        let path = format!("{PATH}token-1");
        assert_eq!(challenges.answer(&path), None);
        let published = challenges.publish_token("token-1", "token-1.thumb");
        assert_eq!(challenges.answer(&path).as_deref(), Some("token-1.thumb"));
        for other in ["/token-1", "/.well-known/acme-challenge/", "/.well-known/acme-challenge/token-1/x"] {
            assert_eq!(challenges.answer(other), None, "{other}");
        }
        drop(published);
        assert_eq!(challenges.answer(&path), None);

        let published = challenges.publish_certificate("App.example.com", &[7; 32]).unwrap();
        assert!(challenges.proofs.get("app.EXAMPLE.com").is_some());
        assert!(challenges.proofs.get("example.com").is_none());
        drop(published);
        assert!(challenges.proofs.get("app.example.com").is_none());
    }
}
