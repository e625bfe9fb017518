//! The file of one registration (RFC 7591 §3.2.1), with what it can be changed by (RFC 7592 §3): written whole or not at all,
//! readable by us alone, locked while it may change.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use aws_lc_rs::digest::{self, SHA256};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::RegistrationError;
use crate::authn::oidc::settings::{Credentials, Settings};
use crate::clock::UnixTime;
use crate::files::{self, Digest};
use crate::secret::SecretString;

/// What a provider has registered us as.
#[derive(Debug, Clone)]
pub(in crate::authn::oidc) struct Kept {
    pub(in crate::authn::oidc) credentials: Credentials,
    /// When the secret ends; `None`: never.
    pub(super) expires_at: Option<UnixTime>,
    pub(super) registered_at: UnixTime,
    /// The registration access token (RFC 7592 §3).
    pub(super) token: Option<SecretString>,
    /// Where the registration can be changed, as the provider wrote it.
    pub(super) client_uri: Option<String>,
    /// What the provider answered, without the secrets and what is about the registration itself.
    pub(super) registered: Map<String, Value>,
    /// What was asked for.
    pub(super) metadata: Map<String, Value>,
}

/// The same as it lies in the file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    issuer: String,
    provider: String,
    client_id: String,
    client_secret: Option<String>,
    client_secret_expires_at: Option<u64>,
    registered_at: u64,
    registration_access_token: Option<String>,
    registration_client_uri: Option<String>,
    #[serde(default)]
    registered: Map<String, Value>,
    metadata: Map<String, Value>,
}

#[derive(Debug)]
pub(super) struct StateFile {
    path: PathBuf,
    issuer: String,
    provider: String,
}

impl StateFile {
    /// Of one provider at one issuer: another issuer has another file, so nothing of the first is lost.
    pub(super) fn new(state_dir: &Path, provider: &str, issuer: &str) -> Self {
        let hash = digest::digest(&SHA256, issuer.as_bytes());
        let name = format!("client-{provider}-{}.json", BASE64_URL_SAFE_NO_PAD.encode(&hash.as_ref()[..12]));
        Self { path: state_dir.join(name), issuer: issuer.to_owned(), provider: provider.to_owned() }
    }

    /// Until it is dropped, or its process ends.
    pub(super) async fn lock(&self) -> Result<File, RegistrationError> {
        let path = self.path.with_extension("lock");
        let folder = self.path.parent().unwrap_or(Path::new("."));
        let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
        made.map_err(|source| RegistrationError::File { path: folder.to_owned(), source })?;
        let opened = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
        let file = opened.map_err(|source| RegistrationError::File { path: path.clone(), source })?;
        for _ in 0..600 {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(std::fs::TryLockError::WouldBlock) => tokio::time::sleep(Duration::from_millis(100)).await,
                Err(std::fs::TryLockError::Error(source)) => return Err(RegistrationError::File { path, source }),
            }
        }
        Err(RegistrationError::Locked(path))
    }

    /// `None` where there is none. What cannot be read is an error, not a reason to register once more.
    pub(super) fn read(&self, settings: &Settings) -> Result<Option<Kept>, RegistrationError> {
        let bytes = match files::bounded(&self.path, files::LARGEST) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(RegistrationError::File { path: self.path.clone(), source }),
        };
        let garbage = || RegistrationError::Garbage(self.path.clone());
        // The parser's own words could show what it read.
        let written: Written = serde_json::from_slice(&bytes).map_err(|_| garbage())?;
        if written.issuer != settings.issuer || written.provider != settings.id || written.client_id.is_empty() {
            return Err(garbage());
        }
        Ok(Some(Kept {
            credentials: Credentials {
                client_id: written.client_id,
                client_secret: written.client_secret.map(SecretString::new),
            },
            expires_at: written.client_secret_expires_at.map(UnixTime),
            registered_at: UnixTime(written.registered_at),
            token: written.registration_access_token.map(SecretString::new),
            client_uri: written.registration_client_uri,
            registered: written.registered,
            metadata: written.metadata,
        }))
    }

    pub(super) fn digest(&self) -> Digest {
        let contents = files::bounded(&self.path, files::LARGEST).map_err(|error| error.to_string());
        files::digest([contents.as_ref().map(|bytes| bytes.as_slice()).map_err(String::as_str)])
    }

    /// Whether a registration could be written.
    pub(super) fn probe(&self) -> Result<(), RegistrationError> {
        self.open_next().map(drop).map_err(|source| RegistrationError::File { path: self.path.clone(), source })
    }

    pub(super) fn write(&self, kept: &Kept) -> Result<(), RegistrationError> {
        let written = Written {
            issuer: self.issuer.clone(),
            provider: self.provider.clone(),
            client_id: kept.credentials.client_id.clone(),
            client_secret: kept.credentials.client_secret.as_ref().map(|secret| secret.expose_secret().to_owned()),
            client_secret_expires_at: kept.expires_at.map(|time| time.0),
            registered_at: kept.registered_at.0,
            registration_access_token: kept.token.as_ref().map(|token| token.expose_secret().to_owned()),
            registration_client_uri: kept.client_uri.clone(),
            registered: kept.registered.clone(),
            metadata: kept.metadata.clone(),
        };
        let write = || {
            let text = zeroize::Zeroizing::new(serde_json::to_vec_pretty(&written)?);
            let mut file = self.open_next()?;
            file.write_all(&text)?;
            file.sync_all()?;
            std::fs::rename(self.next(), &self.path)?;
            // The name too, or a power cut could take it back.
            File::open(self.path.parent().unwrap_or(Path::new(".")))?.sync_all()
        };
        write().map_err(|source| RegistrationError::File { path: self.path.clone(), source })
    }

    fn next(&self) -> PathBuf {
        self.path.with_extension("new")
    }

    fn open_next(&self) -> io::Result<File> {
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(self.next())
    }
}

/// An initial access token, from a file with nothing else in it.
pub(super) fn read_token(path: &Path) -> Result<SecretString, RegistrationError> {
    let told = |source| RegistrationError::File { path: path.to_owned(), source };
    let bytes = files::bounded(path, 64 * 1024).map_err(told)?;
    let text = std::str::from_utf8(&bytes).map(str::trim).unwrap_or_default();
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(told(io::Error::new(io::ErrorKind::InvalidData, "it holds no token")));
    }
    Ok(SecretString::new(text.to_owned()))
}
