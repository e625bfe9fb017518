//! What we sign ourselves, as compact JWS (RFC 7515 §3.1, §5.1): with a private key of ours, or with the client secret
//! (Core §10.1).

use std::sync::Arc;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use super::client_keys::ClientKey;
use super::jose::Algorithm;
use crate::clock::UnixTime;
use crate::secret::SecretString;

/// Why nothing could be signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum SigningError {
    /// The key is for other algorithms, or there is none.
    #[error("no key of ours signs with an algorithm that is allowed here")]
    NoKey,
    /// RFC 7518 §3.2: at least as many octets as the hash has.
    #[error("the client secret is too short for the algorithm")]
    ShortSecret,
    /// The library failed.
    #[error("the signature could not be made")]
    Failed,
}

/// What makes a signed statement a new one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fresh<'a> {
    /// `iat`.
    pub(super) now: UnixTime,
    /// `jti`, never used before.
    pub(super) jti: &'a str,
}

/// A key with the one algorithm that it is used with.
#[derive(Debug, Clone)]
pub(super) struct Signer {
    with: With,
    algorithm: Algorithm,
    name: &'static str,
}

#[derive(Debug, Clone)]
enum With {
    Key(Arc<ClientKey>),
    Secret(SecretString, hmac::Algorithm),
}

impl Signer {
    /// With a key of ours.
    pub(super) fn key(key: Arc<ClientKey>, algorithm: Algorithm) -> Result<Self, SigningError> {
        if !key.signs(algorithm) {
            return Err(SigningError::NoKey);
        }
        Ok(Self { with: With::Key(key), algorithm, name: algorithm.name() })
    }

    /// With the client secret: HS256, HS384 or HS512.
    pub(super) fn secret(secret: &SecretString, algorithm: Algorithm) -> Result<Self, SigningError> {
        let mac = algorithm.hmac().ok_or(SigningError::NoKey)?;
        if secret.expose_secret().len() < mac.digest_algorithm().output_len() {
            return Err(SigningError::ShortSecret);
        }
        Ok(Self { with: With::Secret(secret.clone(), mac), algorithm, name: algorithm.name() })
    }

    /// Says `Ed25519` instead of `EdDSA` (RFC 9864 §2.2), for those who no longer take the older name.
    pub(super) fn fully_specified(mut self) -> Self {
        if self.algorithm == Algorithm::EdDSA {
            self.name = "Ed25519";
        }
        self
    }

    /// `alg`.
    pub(super) fn name(&self) -> &'static str {
        self.name
    }

    /// The key's name; the client secret has none.
    pub(super) fn kid(&self) -> Option<&str> {
        match &self.with {
            With::Key(key) => Some(key.kid()),
            With::Secret(..) => None,
        }
    }

    /// Signs claims under a header with `alg`, `typ` and, where there is one, `kid`.
    pub(super) fn sign_claims(&self, typ: &str, claims: &Map<String, Value>) -> Result<String, SigningError> {
        let mut header = Map::new();
        header.insert("typ".to_owned(), typ.into());
        if let Some(kid) = self.kid() {
            header.insert("kid".to_owned(), kid.into());
        }
        // A map of strings and values always serializes.
        self.sign(&header, serde_json::to_string(claims).unwrap_or_default().as_bytes())
    }

    /// Signs a payload. `header` is what stands beside `alg`.
    pub(super) fn sign(&self, header: &Map<String, Value>, payload: &[u8]) -> Result<String, SigningError> {
        let mut whole = Map::new();
        whole.insert("alg".to_owned(), self.name.into());
        whole.extend(
            header.iter().filter(|(name, _)| *name != "alg").map(|(name, value)| (name.clone(), value.clone())),
        );
        let header = BASE64_URL_SAFE_NO_PAD.encode(Value::Object(whole).to_string());
        let signed = format!("{header}.{}", BASE64_URL_SAFE_NO_PAD.encode(payload));
        let signature = self.signature(signed.as_bytes())?;
        Ok(format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature)))
    }

    fn signature(&self, signed: &[u8]) -> Result<Vec<u8>, SigningError> {
        match &self.with {
            With::Key(key) => key.signature(self.algorithm, signed).map_err(|_| SigningError::Failed),
            With::Secret(secret, mac) => {
                let key = hmac::Key::new(*mac, secret.expose_secret().as_bytes());
                Ok(hmac::sign(&key, signed).as_ref().to_vec())
            }
        }
    }
}

#[cfg(test)]
mod tests;
