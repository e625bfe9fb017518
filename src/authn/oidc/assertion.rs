//! Who we are, said by a signed assertion in place of a secret (RFC 7523 §2.2 and §3, OpenID Connect Core §9):
//! `private_key_jwt`, `client_secret_jwt`, and the token of a service account that the platform signs for us.

mod federated;

use serde_json::Map;

pub use self::federated::{FederatedToken, FederatedTokenError};
use super::client_keys::ClientKeys;
use super::jose::Algorithm;
use super::jws::{Fresh, Signer, SigningError};
use crate::secret::SecretString;

/// `client_assertion_type` of every kind.
pub(super) const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// How long an assertion may be used, in seconds. It is sent at once.
const LIFETIME: u64 = 60;

/// The assertion for one request. `audience` is one string: the issuer, or for older servers the token endpoint.
pub(super) fn assertion(
    signer: &Signer,
    client_id: &str,
    audience: &str,
    fresh: Fresh<'_>,
) -> Result<String, SigningError> {
    // No `nbf`: it would only refuse us where the server's clock is behind ours.
    let claims: Map<_, _> = [
        ("iss", client_id.into()),
        ("sub", client_id.into()),
        ("aud", audience.into()),
        ("jti", fresh.jti.into()),
        ("iat", fresh.now.0.into()),
        ("exp", fresh.now.0.saturating_add(LIFETIME).into()),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value))
    .collect();
    signer.sign_claims("JWT", &claims)
}

/// The signer for `private_key_jwt`: the first of our keys that signs with what is both offered
/// (`token_endpoint_auth_signing_alg_values_supported`; `None`: the metadata does not say) and allowed.
pub(super) fn key_signer(
    keys: &ClientKeys,
    offered: Option<&[Algorithm]>,
    allowed: &[Algorithm],
) -> Result<Signer, SigningError> {
    let mut wanted = both(&PREFERRED, offered, allowed);
    if offered.is_none() {
        // Discovery §3 and RFC 8414 §2: "Servers SHOULD support RS256", and they say nothing of the rest here.
        wanted.sort_by_key(|algorithm| *algorithm != Algorithm::RS256);
    }
    let (key, algorithm) = keys.signer(&wanted).ok_or(SigningError::NoKey)?;
    Signer::key(key, algorithm)
}

/// The signer for `client_secret_jwt`: the first HMAC that is offered, allowed, and no stronger than the secret is long.
pub(super) fn secret_signer(
    secret: &SecretString,
    offered: Option<&[Algorithm]>,
    allowed: &[Algorithm],
) -> Result<Signer, SigningError> {
    let mut failure = SigningError::NoKey;
    for algorithm in both(&Algorithm::SYMMETRIC, offered, allowed) {
        match Signer::secret(secret, algorithm) {
            Ok(signer) => return Ok(signer),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

/// What is `allowed`, the best first.
pub(super) fn preferred(allowed: &[Algorithm]) -> Vec<Algorithm> {
    both(&PREFERRED, None, allowed)
}

fn both(known: &[Algorithm], offered: Option<&[Algorithm]>, allowed: &[Algorithm]) -> Vec<Algorithm> {
    let fits = |algorithm: &Algorithm| {
        offered.is_none_or(|offered| offered.contains(algorithm)) && allowed.contains(algorithm)
    };
    known.iter().copied().filter(fits).collect()
}

/// What a key that can do several does first: PSS before PKCS #1 v1.5, which FAPI 2.0 §5.4.1 leaves out.
const PREFERRED: [Algorithm; 11] = [
    Algorithm::PS256,
    Algorithm::ES256,
    Algorithm::EdDSA,
    Algorithm::PS384,
    Algorithm::PS512,
    Algorithm::ES384,
    Algorithm::ES512,
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::ES256K,
];

#[cfg(test)]
mod tests;
