//! Verified claims without a session → an identity.

use http::HeaderValue;
use serde_json::{Map, Value};

use super::identity::{Evidence, Identity, Names};
use super::proof::Proof;
use super::roles::{MapError, Mapper};
use crate::clock::UnixTime;

/// Whom the verified claims of a provider are about, given its index and `provider_id`.
pub(super) fn identity(
    mapper: &Mapper,
    (provider, provider_id): (usize, &str),
    claims: &Map<String, Value>,
    evidence: Evidence,
    expires_at: UnixTime,
    now: UnixTime,
) -> Result<Identity, MapError> {
    let mapped = mapper.map(claims, provider_id)?;
    let authenticated_at = claims.get("auth_time").and_then(Value::as_f64).map(|seconds| UnixTime(seconds as u64));
    let names = mapper.settings().headers.iter().map(|(name, _)| name.clone());
    // Encoded values are visible ASCII; one that were not would be left out, which tells the application less.
    let values = mapped.headers.iter().map(|value| HeaderValue::try_from(value.as_deref()?).ok());
    Ok(Identity {
        name: mapped.name.clone().into(),
        roles: Names::from_terminated(Names::terminated(&mapped.roles).into()),
        groups: Names::from_terminated(Names::terminated(&mapped.groups).into()),
        headers: names.zip(values).collect(),
        // A token may be made anew long after the sign-in, so `iat` says nothing about it.
        authenticated_at: authenticated_at.unwrap_or(UnixTime(0)),
        expires_at,
        access_token: None,
        provider,
        proof: Proof::of(claims, now),
        evidence,
    })
}
