//! Tokens bound to a key of ours (DPoP, RFC 9449): the proofs that go with each request.

pub(super) mod nonces;

use std::sync::Arc;

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use http::Method;
use serde_json::{Map, Value};
use url::Url;

use super::client_keys::{ClientKey, ClientKeys};
use super::jose::Algorithm;
use super::jws::{Fresh, Signer, SigningError};
use super::thumbprint::thumbprint;

/// The key that our tokens are bound to.
#[derive(Debug)]
pub(super) struct DpopKey {
    signer: Signer,
    /// `typ` and the public `jwk` (§4.2).
    header: Map<String, Value>,
    jkt: String,
}

/// What a proof is bound to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bound<'a> {
    /// `htm`.
    pub(super) method: &'a Method,
    /// `htu`, once query and fragment are gone.
    pub(super) url: &'a Url,
    /// The token where it is used, not where it is asked for.
    pub(super) access_token: Option<&'a str>,
    /// What the server gave last (§8).
    pub(super) nonce: Option<&'a str>,
}

impl DpopKey {
    /// A P-256 key that lives as long as the process.
    pub(super) fn generate() -> Result<Self, SigningError> {
        let key = ClientKey::generate().map_err(|_| SigningError::Failed)?;
        Self::new(Arc::new(key), Algorithm::ES256)
    }

    /// Our keys with each of `algorithms`, the best first, and EdDSA by both of its names (RFC 9864 §2.2): from files, tokens
    /// stay good over a restart and at every replica.
    pub(super) fn all(keys: &ClientKeys, algorithms: &[Algorithm]) -> Result<Vec<Self>, SigningError> {
        let mut all = Vec::new();
        for (key, algorithm) in keys.signers(algorithms) {
            all.push(Self::new(Arc::clone(&key), algorithm)?);
            if algorithm == Algorithm::EdDSA {
                let second = Self::new(key, algorithm)?;
                all.push(Self { signer: second.signer.fully_specified(), ..second });
            }
        }
        if all.is_empty() { Err(SigningError::NoKey) } else { Ok(all) }
    }

    /// Whether its proofs are among what the metadata name (`dpop_signing_alg_values_supported`, §5.1), where they name any.
    pub(super) fn is_among(&self, names: &[String]) -> bool {
        names.is_empty() || names.iter().any(|name| name == self.algorithm())
    }

    /// `alg` of its proofs.
    pub(super) fn algorithm(&self) -> &'static str {
        self.signer.name()
    }

    fn new(key: Arc<ClientKey>, algorithm: Algorithm) -> Result<Self, SigningError> {
        let jwk = key.public_jwk();
        let jkt = thumbprint(&jwk).ok_or(SigningError::Failed)?;
        let header = [("typ", Value::from("dpop+jwt")), ("jwk", Value::Object(jwk))];
        let header = header.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        Ok(Self { signer: Signer::key(key, algorithm)?, header, jkt })
    }

    /// The key's thumbprint: `dpop_jkt` of an authorization request (§10), and what `cnf` of a bound token says (§6.1).
    pub(super) fn jkt(&self) -> &str {
        &self.jkt
    }

    /// The proof for one request (§4.2).
    pub(super) fn proof(&self, request: &Bound<'_>, fresh: Fresh<'_>) -> Result<String, SigningError> {
        let mut claims = Map::new();
        claims.insert("jti".to_owned(), fresh.jti.into());
        claims.insert("htm".to_owned(), request.method.as_str().into());
        claims.insert("htu".to_owned(), target(request.url).into());
        claims.insert("iat".to_owned(), fresh.now.0.into());
        if let Some(access_token) = request.access_token {
            claims.insert("ath".to_owned(), token_hash(access_token).into());
        }
        if let Some(nonce) = request.nonce {
            claims.insert("nonce".to_owned(), nonce.into());
        }
        self.signer.sign(&self.header, Value::Object(claims).to_string().as_bytes())
    }
}

/// `htu`: without query and fragment, nor anything that is not sent to the server.
fn target(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    url.set_fragment(None);
    // They fail only where there is no host, and then there is nothing to take away.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.into()
}

/// `ath`.
fn token_hash(access_token: &str) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, access_token.as_bytes()))
}

#[cfg(test)]
mod tests;
