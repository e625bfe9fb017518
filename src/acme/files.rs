//! The folder of one certificate: account, certificate and key, each written whole or not at all, readable by us alone.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use instant_acme::AccountCredentials;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use serde::{Deserialize, Serialize};
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

use super::{AcmeError, pair_file};
use crate::clock::UnixTime;

const ACCOUNT: &str = "account.json";

/// The certificate that is in use now.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Current {
    pub(super) not_before: UnixTime,
    pub(super) not_after: UnixTime,
    names: Vec<String>,
    is_placeholder: bool,
}

impl Current {
    /// Whether it is an authority's, for exactly these names.
    pub(super) fn is_for(&self, domains: &[String]) -> bool {
        !self.is_placeholder
            && self.names.len() == domains.len()
            && domains.iter().all(|domain| self.names.iter().any(|name| name.eq_ignore_ascii_case(domain)))
    }
}

/// An account belongs to one authority.
#[derive(Serialize)]
struct Written<'a> {
    directory: &'a str,
    credentials: &'a AccountCredentials,
}

#[derive(Deserialize)]
struct Read {
    directory: String,
    credentials: AccountCredentials,
}

#[derive(Debug)]
pub(super) struct Files {
    folder: PathBuf,
}

impl Files {
    pub(super) fn open(folder: &Path) -> Result<Self, AcmeError> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
        made.map_err(|source| AcmeError::Files { path: folder.to_owned(), source })?;
        Ok(Self { folder: folder.to_owned() })
    }

    /// A self-signed certificate, where there is none that can be read.
    pub(super) fn put_placeholder(&self, domains: &[String]) -> Result<(), AcmeError> {
        if self.current().is_some() {
            return Ok(());
        }
        let made = rcgen::generate_simple_self_signed(domains)?;
        self.put_pair(&made.cert.pem(), &made.signing_key.serialize_pem())
    }

    pub(super) fn put_pair(&self, chain: &str, key: &str) -> Result<(), AcmeError> {
        self.put(pair_file(&self.folder), format!("{key}{chain}").as_bytes())
    }

    /// `None` where there is none, or none that can be read: then a new one is due.
    pub(super) fn current(&self) -> Option<Current> {
        let der = CertificateDer::from_pem_file(pair_file(&self.folder)).ok()?;
        let (_, certificate) = X509Certificate::from_der(&der).ok()?;
        let time = |seconds: i64| UnixTime(u64::try_from(seconds).unwrap_or_default());
        let names = certificate.subject_alternative_name().ok()??.value.general_names.iter();
        Some(Current {
            not_before: time(certificate.validity().not_before.timestamp()),
            not_after: time(certificate.validity().not_after.timestamp()),
            names: names
                .filter_map(|name| match name {
                    GeneralName::DNSName(name) => Some((*name).to_owned()),
                    _ => None,
                })
                .collect(),
            is_placeholder: certificate.issuer() == certificate.subject(),
        })
    }

    /// The account at `directory`. One that cannot be read is an error, not a reason to make another.
    pub(super) fn account(&self, directory: &str) -> Result<Option<AccountCredentials>, AcmeError> {
        let path = self.folder.join(ACCOUNT);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(AcmeError::Files { path, source }),
        };
        let read: Read = serde_json::from_slice(&text)
            // The parser's own words could show what it read.
            .map_err(|_| AcmeError::Files { path, source: io::ErrorKind::InvalidData.into() })?;
        Ok((read.directory == directory).then_some(read.credentials))
    }

    pub(super) fn put_account(&self, directory: &str, credentials: &AccountCredentials) -> Result<(), AcmeError> {
        let text = serde_json::to_vec(&Written { directory, credentials });
        let text = text.map_err(|error| AcmeError::Files { path: self.folder.join(ACCOUNT), source: error.into() })?;
        self.put(self.folder.join(ACCOUNT), &text)
    }

    fn put(&self, path: PathBuf, bytes: &[u8]) -> Result<(), AcmeError> {
        let next = path.with_extension("new");
        let write = || {
            let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&next)?;
            file.write_all(bytes)?;
            file.sync_all()?;
            fs::rename(&next, &path)
        };
        write().map_err(|source| AcmeError::Files { path, source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn a_placeholder_lets_the_listener_start_and_is_nobodys_certificate() {
        let folder = tempfile::tempdir().unwrap();
        let files = Files::open(&folder.path().join("acme")).unwrap();
        assert_eq!(files.current(), None);
        let domains = names(&["app.example.com"]);
        files.put_placeholder(&domains).unwrap();
        let placeholder = files.current().unwrap();
        assert!(!placeholder.is_for(&domains));
        files.put_placeholder(&domains).unwrap();
        assert_eq!(files.current(), Some(placeholder), "it is made once");
        let mode = fs::metadata(pair_file(&folder.path().join("acme"))).unwrap();
        assert_eq!(std::os::unix::fs::PermissionsExt::mode(&mode.permissions()) & 0o777, 0o600);
    }

    #[test]
    fn an_issued_certificate_is_for_its_names_and_no_others() {
        let folder = tempfile::tempdir().unwrap();
        let files = Files::open(folder.path()).unwrap();
        let ca = rcgen::CertifiedIssuer::self_signed(
            {
                let mut params = rcgen::CertificateParams::default();
                params.distinguished_name.push(rcgen::DnType::CommonName, "CA");
                params
            },
            rcgen::KeyPair::generate().unwrap(),
        )
        .unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        let issued = rcgen::CertificateParams::new(names(&["a.example", "B.example"])).unwrap();
        files.put_pair(&issued.signed_by(&key, &ca).unwrap().pem(), &key.serialize_pem()).unwrap();
        let current = files.current().unwrap();
        assert!(current.is_for(&names(&["b.example", "A.example"])));
        assert!(!current.is_for(&names(&["a.example"])) && !current.is_for(&names(&["a.example", "c.example"])));
    }

    #[test]
    fn garbage_is_never_taken_for_an_account() {
        let folder = tempfile::tempdir().unwrap();
        let files = Files::open(folder.path()).unwrap();
        assert!(matches!(files.account("https://ca/dir"), Ok(None)));
        fs::write(folder.path().join(ACCOUNT), "{").unwrap();
        assert!(matches!(files.account("https://ca/dir"), Err(AcmeError::Files { .. })));
        fs::write(pair_file(folder.path()), "garbage").unwrap();
        assert_eq!(files.current(), None);
    }
}
