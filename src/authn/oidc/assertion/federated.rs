//! The token of a service account as our client assertion (RFC 7523 §2.2; Kubernetes' projected volume), which the platform
//! replaces in its file long before it expires.

use std::path::PathBuf;

use serde_json::Value;

use crate::authn::oidc::jose::{base64url, json_object};
use crate::files::bounded;
use crate::secret::SecretString;

/// Why there is no token. None of it says what the file holds.
#[derive(Debug, thiserror::Error)]
pub enum FederatedTokenError {
    /// It cannot be read.
    #[error("the token file {} cannot be read", .0.display())]
    Unreadable(PathBuf, #[source] std::io::Error),
    /// Something else than one signed JWT.
    #[error("the token file {} holds no signed JWT", .0.display())]
    NoToken(PathBuf),
}

/// A file with a token.
#[derive(Debug, Clone)]
pub struct FederatedToken {
    path: PathBuf,
}

impl FederatedToken {
    /// Names the file; it is read at each use.
    pub fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// The token as it stands in the file now. Its signature is for the provider to check. Blocks.
    pub fn read(&self) -> Result<SecretString, FederatedTokenError> {
        let unreadable = |error| FederatedTokenError::Unreadable(self.path.clone(), error);
        let bytes = bounded(&self.path, LARGEST).map_err(unreadable)?;
        let token = str::from_utf8(&bytes).ok().map(str::trim).filter(|token| is_signed_jwt(token));
        let token = token.ok_or_else(|| FederatedTokenError::NoToken(self.path.clone()))?;
        Ok(SecretString::new(token.to_owned()))
    }
}

/// Three parts, with JSON objects in the first two, and an algorithm that is one.
fn is_signed_jwt(token: &str) -> bool {
    let parts: Vec<_> = token.split('.').collect();
    let [header, claims, signature] = parts[..] else { return false };
    let object = |part: &str| json_object(&base64url(part).ok()?).ok();
    let (Some(header), Some(_)) = (object(header), object(claims)) else { return false };
    let signed = header.get("alg").and_then(Value::as_str).is_some_and(|alg| !alg.eq_ignore_ascii_case("none"));
    signed && base64url(signature).is_ok_and(|signature| !signature.is_empty())
}

/// In bytes. Tokens of service accounts have one or two KiB.
const LARGEST: u64 = 16 * 1024;
