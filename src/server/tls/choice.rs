//! Which certificate a client gets: one that has the name it asked for and a key it can verify, else the first.

use std::sync::Arc;

use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::Proofs;

#[derive(Debug)]
pub(super) struct Choice {
    certificates: Vec<(Arc<CertifiedKey>, Vec<String>)>,
    proofs: Option<Proofs>,
}

impl Choice {
    pub(super) fn new(proofs: Option<Proofs>) -> Self {
        Self { certificates: Vec::new(), proofs }
    }

    /// `names` are those in the certificate, lower case.
    pub(super) fn add(&mut self, key: CertifiedKey, names: Vec<String>) {
        self.certificates.push((Arc::new(key), names));
    }
}

impl ResolvesServerCert for Choice {
    fn resolve(&self, client: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        if let Some(proof) = self.proofs.as_ref().and_then(|proofs| proofs.answer(&client)) {
            return proof;
        }
        let wanted = client.server_name().map(|name| name.trim_end_matches('.').to_ascii_lowercase());
        let fits = |names: &[String], pick: fn(&str, &str) -> bool| {
            wanted.as_deref().is_some_and(|wanted| names.iter().any(|name| pick(name, wanted)))
        };
        let can_verify = |key: &CertifiedKey| key.key.choose_scheme(client.signature_schemes()).is_some();
        let find = |pick: fn(&str, &str) -> bool| {
            self.certificates
                .iter()
                .find(|(key, names)| fits(names, pick) && can_verify(key))
                .map(|(key, _)| Arc::clone(key))
        };
        // A name that no certificate has gets the default: what its client makes of it is its own matter.
        let exact = find(|name, wanted| name == wanted);
        exact.or_else(|| find(is_below)).or_else(|| self.certificates.first().map(|(key, _)| Arc::clone(key)))
    }
}

/// RFC 6125 §6.4.3: `*` stands for exactly one label.
fn is_below(pattern: &str, name: &str) -> bool {
    let (Some(parent), Some((label, rest))) = (pattern.strip_prefix("*."), name.split_once('.')) else { return false };
    !label.is_empty() && parent == rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_one_label() {
        assert!(is_below("*.example.com", "a.example.com"));
        for (pattern, name) in [
            ("*.example.com", "example.com"),
            ("*.example.com", "a.b.example.com"),
            ("*.example.com", ".example.com"),
            ("a.example.com", "a.example.com"),
        ] {
            assert!(!is_below(pattern, name), "{pattern} {name}");
        }
    }
}
