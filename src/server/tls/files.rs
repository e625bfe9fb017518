//! The files of a TLS section, read all at once, so that what is judged is what is used.

use std::path::{Path, PathBuf};

use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls::server::VerifierBuilderError;
use rustls::sign::CertifiedKey;
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use x509_parser::prelude::{FromDer, X509Certificate};
use zeroize::Zeroizing;

use super::client::dns_names;
use super::{Certificate, Problem, Settings};
use crate::files::{Digest, LARGEST, bounded, digest};
use crate::pem::{self, Lack};

/// What the files hold, or why they can't be read.
pub(super) struct Files {
    pairs: Vec<(Contents, Contents)>,
    client_ca: Option<Contents>,
    client_crl: Option<Contents>,
}

struct Contents {
    key: String,
    path: PathBuf,
    bytes: Result<Zeroizing<Vec<u8>>, String>,
}

impl Files {
    /// Blocks.
    pub(super) fn read(settings: &Settings) -> Self {
        let pairs = settings.certificates.iter().enumerate().map(|(index, pair)| {
            let prefix = index.checked_sub(1).map_or(String::new(), |further| format!("certificates[{further}]."));
            let certificate = Contents::read(format!("{prefix}certificate_file"), &pair.certificate_file);
            (certificate, Contents::read(format!("{prefix}key_file"), &pair.key_file))
        });
        let of_clients =
            |key: &str, path: &Option<PathBuf>| path.as_ref().map(|path| Contents::read(key.to_owned(), path));
        Self {
            pairs: pairs.collect(),
            client_ca: of_clients("client_ca_file", &settings.client_ca_file),
            client_crl: of_clients("client_crl_file", &settings.client_crl_file),
        }
    }

    pub(super) fn digest(&self) -> Digest {
        let contents = self.pairs.iter().flat_map(|(certificate, key)| [certificate, key]);
        let contents = contents.chain(&self.client_ca).chain(&self.client_crl);
        digest(contents.map(|contents| match &contents.bytes {
            Ok(bytes) => Ok(bytes.as_slice()),
            Err(why) => Err(why.as_str()),
        }))
    }

    /// The certificate, the names in it, and both together for rustls.
    pub(super) fn pair(
        &self,
        index: usize,
        provider: &CryptoProvider,
    ) -> Result<(Certificate, Vec<String>, CertifiedKey), Vec<Problem>> {
        let (certificate, key) = &self.pairs[index];
        let (chain, private) = match (certificate.chain(), key.private_key()) {
            (Ok(chain), Ok(private)) => (chain, private),
            (chain, private) => return Err(chain.err().into_iter().chain(private.err()).collect()),
        };
        let no_certificate = |error: &dyn std::fmt::Display| {
            let what = format!("holds a certificate that cannot be read: {error}");
            vec![certificate.problem(what, "name a PEM file as your CA gave it")]
        };
        let (expires_at, names) = {
            let (_, leaf) = X509Certificate::from_der(&chain[0]).map_err(|error| no_certificate(&error))?;
            let names = dns_names(&leaf).map_err(|error| no_certificate(&error))?;
            (u64::try_from(leaf.validity().not_after.timestamp()).unwrap_or_default(), names)
        };
        let certified = CertifiedKey::from_der(chain, private, provider).map_err(|error| {
            let fix =
                "certificate and key must be made for each other; the server's own certificate comes first in its file";
            vec![match error {
                rustls::Error::InconsistentKeys(_) => {
                    key.problem(format!("is not the key of {}", certificate.path.display()), fix)
                }
                error => key.problem(format!("cannot be used: {error}"), "use an RSA, ECDSA or Ed25519 key"),
            }]
        })?;
        Ok((Certificate { key: certificate.key.clone(), expires_at }, names, certified))
    }

    /// The roots that client certificates lead to.
    pub(super) fn client_roots(&self) -> Result<RootCertStore, Problem> {
        let mut roots = RootCertStore::empty();
        // Asked only where one is configured.
        let Some(file) = &self.client_ca else { return Ok(roots) };
        for certificate in file.chain()? {
            roots.add(certificate).map_err(|error| {
                file.problem(
                    format!("holds a certificate that cannot be a root: {error}"),
                    "name the CA's own certificate",
                )
            })?;
        }
        Ok(roots)
    }

    /// The client certificates that are none any more.
    pub(super) fn client_revocations(&self) -> Result<Vec<CertificateRevocationListDer<'static>>, Problem> {
        self.client_crl.as_ref().map_or(Ok(Vec::new()), Contents::revocation_lists)
    }

    /// What of the files about clients cannot be used.
    pub(super) fn unusable_for_clients(&self, error: &VerifierBuilderError) -> Problem {
        let file = match error {
            VerifierBuilderError::InvalidCrl(_) => &self.client_crl,
            _ => &self.client_ca,
        };
        let what = format!("cannot be used: {error}");
        match file {
            Some(file) => file.problem(what, "name a PEM file as the CA of your clients gave it"),
            // Only what was read can be at fault.
            None => Problem { key: "client_ca_file".to_owned(), file: PathBuf::new(), what, fix: "name the CA" },
        }
    }
}

impl Contents {
    fn read(key: String, path: &Path) -> Self {
        Self { key, path: path.to_owned(), bytes: bounded(path, LARGEST).map_err(|error| error.to_string()) }
    }

    fn problem(&self, what: impl Into<String>, fix: &'static str) -> Problem {
        Problem { key: self.key.clone(), file: self.path.clone(), what: what.into(), fix }
    }

    fn bytes(&self) -> Result<&[u8], Problem> {
        let unreadable = |why: &String| {
            self.problem(format!("cannot be read: {why}"), "name a file that exists and that this process may read")
        };
        self.bytes.as_ref().map(|bytes| bytes.as_slice()).map_err(unreadable)
    }

    fn chain(&self) -> Result<Vec<CertificateDer<'static>>, Problem> {
        pem::certificates(self.bytes()?).map_err(|lack| self.lacks(lack))
    }

    fn revocation_lists(&self) -> Result<Vec<CertificateRevocationListDer<'static>>, Problem> {
        pem::revocation_lists(self.bytes()?).map_err(|lack| self.lacks(lack))
    }

    fn private_key(&self) -> Result<PrivateKeyDer<'static>, Problem> {
        pem::private_key(self.bytes()?).map_err(|lack| self.lacks(lack))
    }

    fn lacks(&self, lack: Lack) -> Problem {
        match lack {
            Lack::Pem => self.problem("is not PEM", "name a PEM file, not DER or PKCS #12"),
            Lack::Certificate => {
                self.problem("holds no certificate", "name a PEM file with -----BEGIN CERTIFICATE-----")
            }
            Lack::RevocationList => self.problem(
                "holds no list of revoked certificates",
                "name a PEM file with -----BEGIN X509 CRL-----, as openssl ca -gencrl writes it",
            ),
            Lack::Key => {
                self.problem("holds no private key", "name a PEM file with an unencrypted -----BEGIN PRIVATE KEY-----")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_file_holds_is_not_shown() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tls.crt");
        for text in ["-----BEGIN whisper\n", "-----BEGIN CERTIFICATE-----\nwhisper", "-----BEGIN A-----\nwhisper"] {
            std::fs::write(&path, text).unwrap();
            let contents = Contents::read("certificate_file".to_owned(), &path);
            for problem in [contents.chain().unwrap_err(), contents.private_key().unwrap_err()] {
                assert!(!format!("{problem:?} {problem}").contains("whisper"), "{problem}");
            }
        }
    }
}
