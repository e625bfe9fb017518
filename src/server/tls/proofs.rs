//! Certificates that prove to an authority, which asks by TLS, that a name is ours (RFC 8737).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustls::server::ClientHello;
use rustls::sign::CertifiedKey;

/// What an authority agrees on by ALPN (RFC 8737 §6.2); nobody else does.
pub(in crate::server) const PROTOCOL: &[u8] = b"acme-tls/1";

/// The proofs that are open now, by name in lower case. Clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Proofs(Arc<Mutex<HashMap<String, Arc<CertifiedKey>>>>);

impl Proofs {
    /// Shows `key` to authorities that ask for `domain`.
    pub fn insert(&self, domain: &str, key: CertifiedKey) {
        self.open().insert(domain.to_ascii_lowercase(), Arc::new(key));
    }

    /// No longer.
    pub fn remove(&self, domain: &str) {
        self.open().remove(&domain.to_ascii_lowercase());
    }

    /// The proof for `domain`, where it is asked for now.
    pub fn get(&self, domain: &str) -> Option<Arc<CertifiedKey>> {
        self.open().get(&domain.to_ascii_lowercase()).cloned()
    }

    /// `None`: not an authority's question, and any certificate will do. RFC 8737 §3: it offers this protocol alone.
    pub(super) fn answer(&self, client: &ClientHello<'_>) -> Option<Option<Arc<CertifiedKey>>> {
        let mut offered = client.alpn()?;
        let asks = offered.next() == Some(PROTOCOL) && offered.next().is_none();
        asks.then(|| self.get(client.server_name()?))
    }

    fn open(&self) -> MutexGuard<'_, HashMap<String, Arc<CertifiedKey>>> {
        // A panic between two statements leaves a map that is still a map.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PartialEq for Proofs {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Proofs {}
