//! ID token verification, to the letter of OpenID Connect Core §3.1.3.7 and §3.1.3.8 (`at_hash`).

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use super::jose::{Algorithm, JoseError, Jws, Trust};
use crate::clock::UnixTime;

/// What one sign-in expects of its ID token.
#[derive(Debug, Clone, Copy)]
pub struct Expected<'a> {
    /// The nonce of the authorization request.
    pub nonce: &'a str,
    /// The access token that came along, for `at_hash`.
    pub access_token: Option<&'a str>,
    /// The authorization code that came along in the front channel; `c_hash` must be there then (Core §3.3.2.11).
    pub code: Option<&'a str>,
}

/// The claims of a token whose signature and registered claims hold. Cannot be made outside of verification.
#[derive(Debug, Clone)]
pub struct VerifiedClaims {
    pub(in crate::authn) subject: String,
    pub(in crate::authn) claims: Map<String, Value>,
}

impl VerifiedClaims {
    /// `sub`: 1 to 255 ASCII characters (Core §2).
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// All claims.
    pub fn claims(&self) -> &Map<String, Value> {
        &self.claims
    }
}

/// Why an ID token is refused; one variant per fact, each with a constant reason code.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdTokenError {
    /// Whatever cannot be read: not three base64url parts, no JSON, a name that stands twice, more than 64 KiB.
    #[error("the ID token is malformed")]
    Malformed,
    /// `none`, an unknown algorithm, or one that is not allowed for this client.
    #[error("the ID token's algorithm is not allowed")]
    Algorithm,
    /// A `crit` header (RFC 7515 §4.1.11).
    #[error("the ID token has critical extensions")]
    Critical,
    /// No key of the provider fits, after at most one refetch.
    #[error("the ID token's key is unknown")]
    UnknownKey,
    /// The signature does not verify.
    #[error("the ID token's signature is wrong")]
    Signature,
    /// `iss` is missing or another.
    #[error("the ID token's issuer is wrong")]
    Issuer,
    /// We are not in `aud`, or an audience in it is not trusted.
    #[error("the ID token's audience is wrong")]
    Audience,
    /// `azp` is not us.
    #[error("the ID token's authorized party is wrong")]
    AuthorizedParty,
    /// `exp` is missing or past.
    #[error("the ID token has expired")]
    Expired,
    /// `iat` is missing or in the future, or `nbf` is in the future.
    #[error("the ID token is not valid yet")]
    NotYetValid,
    /// `nonce` is missing or another.
    #[error("the ID token's nonce is wrong")]
    Nonce,
    /// `at_hash` does not fit the access token.
    #[error("the ID token's access token hash is wrong")]
    AccessTokenHash,
    /// `c_hash` is missing or does not fit the code that came along.
    #[error("the ID token's code hash is missing or wrong")]
    CodeHash,
    /// The ID tokens of one sign-in, or of a session and its renewal, are about two people (Core §3.3.3.6, §12.2).
    #[error("two ID tokens that belong together name different subjects")]
    OtherSubject,
    /// `sub` is missing, empty or too long.
    #[error("the ID token has no usable subject")]
    Subject,
    /// A registered claim has the wrong JSON type or range.
    #[error("the ID token's claim {0} has the wrong type")]
    ClaimType(&'static str),
}

impl IdTokenError {
    /// The constant reason code for the log, such as `id_token_nonce`.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Malformed => "id_token_malformed",
            Self::Algorithm => "id_token_algorithm",
            Self::Critical => "id_token_critical",
            Self::UnknownKey => "id_token_unknown_key",
            Self::Signature => "id_token_signature",
            Self::Issuer => "id_token_issuer",
            Self::Audience => "id_token_audience",
            Self::AuthorizedParty => "id_token_authorized_party",
            Self::Expired => "id_token_expired",
            Self::NotYetValid => "id_token_not_yet_valid",
            Self::Nonce => "id_token_nonce",
            Self::AccessTokenHash => "id_token_access_token_hash",
            Self::CodeHash => "id_token_code_hash",
            Self::OtherSubject => "id_token_other_subject",
            Self::Subject => "id_token_subject",
            Self::ClaimType(_) => "id_token_claim_type",
        }
    }
}

impl From<JoseError> for IdTokenError {
    fn from(error: JoseError) -> Self {
        match error {
            JoseError::Malformed => Self::Malformed,
            JoseError::Algorithm => Self::Algorithm,
            JoseError::Critical => Self::Critical,
            JoseError::UnknownKey => Self::UnknownKey,
            JoseError::Signature => Self::Signature,
        }
    }
}

/// Whom tokens must come from and be meant for; the same for every sign-in at one provider.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules<'a> {
    /// The provider's issuer.
    pub(super) issuer: &'a str,
    /// Our client id.
    pub(super) client_id: &'a str,
    /// Audiences that may stand beside us.
    pub(super) trusted_audiences: &'a [String],
}

/// Verifies an ID token. Pure: keys and time are arguments.
pub(super) fn verify(
    id_token: &str,
    trust: Trust<'_>,
    rules: Rules<'_>,
    expected: Expected<'_>,
    now: UnixTime,
) -> Result<VerifiedClaims, IdTokenError> {
    let token = Jws::parse(id_token)?;
    let algorithm = token.algorithm();
    let claims = token.verify(trust)?;
    rules.judge_issuer(&claims)?;
    rules.judge_audience(&claims)?;
    judge_times(&claims, now)?;
    judge_nonce(&claims, expected.nonce)?;
    if let Some(access_token) = expected.access_token {
        let found = string(&claims, "at_hash")?;
        if found.is_some_and(|found| found != half_hash(algorithm, access_token)) {
            return Err(IdTokenError::AccessTokenHash);
        }
    }
    if let Some(code) = expected.code
        && string(&claims, "c_hash")? != Some(half_hash(algorithm, code).as_str())
    {
        return Err(IdTokenError::CodeHash);
    }
    let subject = subject(&claims)?.to_owned();
    Ok(VerifiedClaims { subject, claims })
}

impl Rules<'_> {
    /// Core §3.1.3.7 item 2: exactly, so no URL normalisation.
    pub(super) fn judge_issuer(&self, claims: &Map<String, Value>) -> Result<(), IdTokenError> {
        if string(claims, "iss")? == Some(self.issuer) { Ok(()) } else { Err(IdTokenError::Issuer) }
    }

    /// Core §3.1.3.7 items 3 to 5.
    pub(super) fn judge_audience(&self, claims: &Map<String, Value>) -> Result<(), IdTokenError> {
        let audiences = match claims.get("aud") {
            None => return Err(IdTokenError::Audience),
            Some(Value::Array(several)) => several.as_slice(),
            Some(one) => std::slice::from_ref(one),
        };
        let mut meant_for_us = false;
        for audience in audiences {
            let audience = audience.as_str().ok_or(IdTokenError::ClaimType("aud"))?;
            meant_for_us |= audience == self.client_id;
            if audience != self.client_id && !self.trusted_audiences.iter().any(|trusted| trusted == audience) {
                return Err(IdTokenError::Audience);
            }
        }
        if !meant_for_us {
            return Err(IdTokenError::Audience);
        }
        // With several audiences `azp` only SHOULD be there; without it, that all the others are trusted has to do.
        match string(claims, "azp")? {
            Some(party) if party != self.client_id => Err(IdTokenError::AuthorizedParty),
            _ => Ok(()),
        }
    }
}

/// Core §3.1.3.7 items 9 and 10, RFC 7519 §4.1.5. An old `iat` does no harm beside `exp` and the nonce.
fn judge_times(claims: &Map<String, Value>, now: UnixTime) -> Result<(), IdTokenError> {
    judge_expiry(claims, now)?;
    let latest = now.0.saturating_add(LEEWAY);
    if numeric_date(claims, "iat")?.is_none_or(|issued| issued > latest) {
        return Err(IdTokenError::NotYetValid);
    }
    if numeric_date(claims, "nbf")?.is_some_and(|begin| begin > latest) {
        return Err(IdTokenError::NotYetValid);
    }
    Ok(())
}

/// `exp` must be there and in the future.
pub(super) fn judge_expiry(claims: &Map<String, Value>, now: UnixTime) -> Result<(), IdTokenError> {
    match numeric_date(claims, "exp")? {
        Some(end) if now.0 < end.saturating_add(LEEWAY) => Ok(()),
        _ => Err(IdTokenError::Expired),
    }
}

/// Core §3.1.3.7 item 11.
fn judge_nonce(claims: &Map<String, Value>, expected: &str) -> Result<(), IdTokenError> {
    let nonce = string(claims, "nonce")?.ok_or(IdTokenError::Nonce)?;
    // An empty expectation would mean that the login transaction was not read.
    if expected.is_empty() {
        return Err(IdTokenError::Nonce);
    }
    verify_slices_are_equal(nonce.as_bytes(), expected.as_bytes()).map_err(|_| IdTokenError::Nonce)
}

/// Core §3.1.3.6 and §3.3.2.11: the left half of the hash of the octets of an access token or code.
fn half_hash(algorithm: Algorithm, text: &str) -> String {
    let hash = digest::digest(algorithm.digest(), text.as_bytes());
    BASE64_URL_SAFE_NO_PAD.encode(&hash.as_ref()[..hash.as_ref().len() / 2])
}

/// Core §2: at most 255 ASCII characters.
pub(super) fn subject(claims: &Map<String, Value>) -> Result<&str, IdTokenError> {
    match string(claims, "sub")? {
        Some(subject) if subject.is_ascii() && (1..=255).contains(&subject.len()) => Ok(subject),
        _ => Err(IdTokenError::Subject),
    }
}

pub(super) fn string<'a>(claims: &'a Map<String, Value>, name: &'static str) -> Result<Option<&'a str>, IdTokenError> {
    match claims.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(IdTokenError::ClaimType(name)),
    }
}

/// RFC 7519 §2: seconds, fractions allowed. Beyond 2^53 a JSON number no longer names one second.
pub(super) fn numeric_date(claims: &Map<String, Value>, name: &'static str) -> Result<Option<u64>, IdTokenError> {
    let Some(value) = claims.get(name) else { return Ok(None) };
    let seconds = value.as_f64().filter(|seconds| (0.0..=MAX_SECONDS).contains(seconds));
    // The cast floors, and the range makes it exact.
    seconds.map(|seconds| Some(seconds as u64)).ok_or(IdTokenError::ClaimType(name))
}

/// How far clocks may be apart, in seconds.
pub(super) const LEEWAY: u64 = 30;

/// 2^53.
const MAX_SECONDS: f64 = 9_007_199_254_740_992.0;

#[cfg(test)]
mod tests;
