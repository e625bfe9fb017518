//! The certificate that we show to the provider (RFC 8705 §2 and §3), read again when its files change.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::client::ResolvesClientCert;
use rustls::sign::CertifiedKey;
use rustls::{SignatureScheme, crypto};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::files::{LARGEST, Settled, bounded, digest};

/// Why the files cannot be used, as the rest of a sentence. Never a word of what they hold.
type Problem = Box<dyn Error + Send + Sync>;

/// A certificate chain and its key, from files.
#[derive(Debug)]
pub(super) struct ClientCertificate {
    chain: PathBuf,
    key: PathBuf,
    current: ArcSwap<CertifiedKey>,
    settled: Mutex<Settled>,
}

impl ClientCertificate {
    /// Reads the files for the first time, where a problem is an error. Blocks.
    pub(super) fn open(chain: PathBuf, key: PathBuf) -> Result<Self, Problem> {
        let digest = digest_of(&chain, &key);
        let current = ArcSwap::from_pointee(read(&chain, &key)?);
        Ok(Self { chain, key, current, settled: Mutex::new(Settled::new(digest)) })
    }

    /// Looks at the files every so often; never ends.
    pub(super) async fn watch(self: Arc<Self>, every: Duration) {
        loop {
            tokio::time::sleep(every).await;
            let this = Arc::clone(&self);
            // A panic in there ends the watch; the certificate in use stays.
            let Ok(()) = tokio::task::spawn_blocking(move || this.look()).await else { return };
        }
    }

    fn look(&self) {
        let mut settled = self.settled.lock().unwrap_or_else(PoisonError::into_inner);
        let digest = digest_of(&self.chain, &self.key);
        if settled.still(digest) {
            return;
        }
        match read(&self.chain, &self.key) {
            Ok(fresh) => {
                tracing::info!(file = %self.chain.display(), "the client certificate was reloaded");
                self.current.store(Arc::new(fresh));
                settled.took(digest);
            }
            Err(error) if settled.failed(digest) => {
                let file = self.chain.display();
                tracing::error!(%file, %error, "the client certificate was not reloaded, the one in use stays");
            }
            Err(_) => {}
        }
    }
}

impl ResolvesClientCert for ClientCertificate {
    fn resolve(&self, _authorities: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.current.load_full())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// Whether the files can be used, for whoever asks before anything is built.
///
/// # Errors
/// What is wrong, as the rest of a sentence.
pub fn check(chain: &Path, key: Option<&Path>) -> Result<(), Box<dyn Error + Send + Sync>> {
    match key {
        Some(key) => read(chain, key).map(drop),
        None => leaf(chain).map(drop),
    }
}

/// Our own certificate in DER: the first of the chain. Blocks.
pub(super) fn leaf(chain: &Path) -> Result<Vec<u8>, Problem> {
    let chain = certificates(chain)?;
    Ok(chain.first().map(|certificate| certificate.to_vec()).unwrap_or_default())
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Problem> {
    let bytes = bounded(path, LARGEST)?;
    let found: Vec<_> = CertificateDer::pem_slice_iter(&bytes).collect::<Result<_, _>>()?;
    if found.is_empty() { Err("it holds no PEM certificate".into()) } else { Ok(found) }
}

fn read(chain: &Path, key: &Path) -> Result<CertifiedKey, Problem> {
    let certificates = certificates(chain)?;
    let bytes = bounded(key, LARGEST)?;
    // The parser's own words could show what it read.
    let key = PrivateKeyDer::from_pem_slice(&bytes).map_err(|_| "its key file holds no unencrypted key in PEM")?;
    Ok(CertifiedKey::from_der(certificates, key, &crypto::aws_lc_rs::default_provider())?)
}

fn digest_of(chain: &Path, key: &Path) -> crate::files::Digest {
    let contents = [chain, key].map(|path| bounded(path, LARGEST).map_err(|error| error.to_string()));
    digest(contents.iter().map(|contents| match contents {
        Ok(bytes) => Ok(bytes.as_slice()),
        Err(why) => Err(why.as_str()),
    }))
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    fn write(folder: &Path, name: &str) -> Vec<u8> {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec![name.to_owned()]).unwrap().self_signed(&key).unwrap();
        std::fs::write(folder.join("crt"), certificate.pem()).unwrap();
        std::fs::write(folder.join("key"), key.serialize_pem()).unwrap();
        certificate.der().to_vec()
    }

    fn shown(certificate: &ClientCertificate) -> Vec<u8> {
        certificate.resolve(&[], &[]).unwrap().cert[0].to_vec()
    }

    #[test]
    fn a_sound_change_is_taken_in_and_any_other_leaves_the_certificate_alone() {
        let folder = tempfile::tempdir().unwrap();
        let first = write(folder.path(), "one.example");
        let (chain, key) = (folder.path().join("crt"), folder.path().join("key"));
        let certificate = ClientCertificate::open(chain.clone(), key.clone()).unwrap();
        assert_eq!(shown(&certificate), first);
        assert_eq!(leaf(&chain).unwrap(), first);
        let second = write(folder.path(), "two.example");
        let (whole, its_key) = (std::fs::read(&chain).unwrap(), std::fs::read(&key).unwrap());
        // Half of a change, and worse.
        std::fs::write(&key, KeyPair::generate().unwrap().serialize_pem()).unwrap();
        for broken in [whole.as_slice(), b"", b"-----BEGIN CERTIFICATE-----"] {
            std::fs::write(&chain, broken).unwrap();
            for _ in 0..3 {
                certificate.look();
                assert_eq!(shown(&certificate), first);
            }
            assert!(check(&chain, Some(&key)).is_err());
        }
        std::fs::write(&chain, &whole).unwrap();
        std::fs::write(&key, its_key).unwrap();
        certificate.look();
        assert_eq!(shown(&certificate), second);
    }

    #[test]
    fn problems_name_no_secret() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), "one.example");
        let (chain, key) = (folder.path().join("crt"), folder.path().join("key"));
        std::fs::write(&key, "-----BEGIN PRIVATE KEY-----\nhunter2\n-----END PRIVATE KEY-----").unwrap();
        let told = check(&chain, Some(&key)).unwrap_err().to_string();
        assert!(!told.contains("hunter2") && told.contains("key"), "{told}");
    }
}
