//! The claims that every kind of token is judged by (RFC 7519 §4.1, OpenID Connect Core §3.1.3.7): whose it is, for whom, and
//! when.

use serde_json::{Map, Value};

use super::tenants::Tenants;
use crate::clock::UnixTime;

/// Claims that userinfo has no say in: they say who, by whom, for whom and when.
pub(in crate::authn) const ID_TOKEN_ONLY: [&str; 12] =
    ["iss", "aud", "sub", "exp", "iat", "nbf", "acr", "amr", "auth_time", "azp", "nonce", "sid"];

/// What is wrong with a registered claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ClaimError {
    /// `iss` is missing or another.
    Issuer,
    /// We are not in `aud`, or an audience in it is not trusted.
    Audience,
    /// `azp` is not us.
    AuthorizedParty,
    /// `exp` is missing or past.
    Expired,
    /// `iat` is missing or in the future, or `nbf` is in the future.
    NotYetValid,
    /// A claim has the wrong JSON type or range.
    Type(&'static str),
}

/// Whom tokens must come from and be meant for; the same for every token of one provider.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules<'a> {
    /// The provider's issuer.
    pub(super) issuer: &'a str,
    /// In its place: an issuer for each tenant.
    pub(super) tenants: Option<&'a Tenants>,
    /// Our client id.
    pub(super) client_id: &'a str,
    /// Audiences that may stand beside us.
    pub(super) trusted_audiences: &'a [String],
    /// How far clocks may be apart, in seconds.
    pub(super) leeway: u64,
}

impl Rules<'_> {
    /// Core §3.1.3.7 item 2: exactly, so no URL normalisation.
    pub(super) fn judge_issuer(&self, claims: &Map<String, Value>) -> Result<(), ClaimError> {
        let right = string(claims, "iss")?.is_some_and(|issuer| match self.tenants {
            None => issuer == self.issuer,
            Some(tenants) => tenants.fits(issuer, claims),
        });
        if right { Ok(()) } else { Err(ClaimError::Issuer) }
    }

    /// We are among the audiences, whoever else is (Core §5.3.2).
    pub(super) fn judge_inclusion(&self, claims: &Map<String, Value>) -> Result<(), ClaimError> {
        let is_us = |audience: &Value| audience == self.client_id;
        let is_for_us = match claims.get("aud") {
            Some(Value::Array(several)) if several.iter().all(Value::is_string) => several.iter().any(is_us),
            Some(one @ Value::String(_)) => is_us(one),
            None => false,
            Some(_) => return Err(ClaimError::Type("aud")),
        };
        if is_for_us { Ok(()) } else { Err(ClaimError::Audience) }
    }

    /// Core §3.1.3.7 items 3 to 5.
    pub(super) fn judge_audience(&self, claims: &Map<String, Value>) -> Result<(), ClaimError> {
        let audiences = match claims.get("aud") {
            None => return Err(ClaimError::Audience),
            Some(Value::Array(several)) => several.as_slice(),
            Some(one) => std::slice::from_ref(one),
        };
        let mut meant_for_us = false;
        for audience in audiences {
            let audience = audience.as_str().ok_or(ClaimError::Type("aud"))?;
            meant_for_us |= audience == self.client_id;
            if audience != self.client_id && !self.trusted_audiences.iter().any(|trusted| trusted == audience) {
                return Err(ClaimError::Audience);
            }
        }
        if !meant_for_us {
            return Err(ClaimError::Audience);
        }
        // With several audiences `azp` only SHOULD be there; without it, that all the others are trusted has to do.
        match string(claims, "azp")? {
            Some(party) if party != self.client_id => Err(ClaimError::AuthorizedParty),
            _ => Ok(()),
        }
    }
}

/// What is there of `iat` and `nbf` is not in the future; `leeway` in seconds.
pub(super) fn judge_begin(claims: &Map<String, Value>, leeway: u64, now: UnixTime) -> Result<(), ClaimError> {
    let latest = now.0.saturating_add(leeway);
    for name in ["iat", "nbf"] {
        if numeric_date(claims, name)?.is_some_and(|begin| begin > latest) {
            return Err(ClaimError::NotYetValid);
        }
    }
    Ok(())
}

/// Core §3.1.3.7 items 9 and 10, RFC 7519 §4.1.5; `leeway` in seconds. An old `iat` does no harm beside `exp`, unless the
/// settings say so.
pub(super) fn judge_times(claims: &Map<String, Value>, leeway: u64, now: UnixTime) -> Result<(), ClaimError> {
    judge_expiry(claims, leeway, now)?;
    if !claims.contains_key("iat") {
        return Err(ClaimError::NotYetValid);
    }
    judge_begin(claims, leeway, now)
}

/// `exp` must be there and in the future; `leeway` in seconds.
pub(super) fn judge_expiry(claims: &Map<String, Value>, leeway: u64, now: UnixTime) -> Result<(), ClaimError> {
    match numeric_date(claims, "exp")? {
        Some(end) if now.0 < end.saturating_add(leeway) => Ok(()),
        _ => Err(ClaimError::Expired),
    }
}

pub(super) fn string<'a>(claims: &'a Map<String, Value>, name: &'static str) -> Result<Option<&'a str>, ClaimError> {
    match claims.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(ClaimError::Type(name)),
    }
}

/// RFC 7519 §2: seconds, fractions allowed. Beyond 2^53 a JSON number no longer names one second.
pub(super) fn numeric_date(claims: &Map<String, Value>, name: &'static str) -> Result<Option<u64>, ClaimError> {
    let Some(value) = claims.get(name) else { return Ok(None) };
    let seconds = value.as_f64().filter(|seconds| (0.0..=MAX_SECONDS).contains(seconds));
    // The cast floors, and the range makes it exact.
    seconds.map(|seconds| Some(seconds as u64)).ok_or(ClaimError::Type(name))
}

/// 2^53.
const MAX_SECONDS: f64 = 9_007_199_254_740_992.0;
