//! Verified claims without a session → an identity.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use serde_json::{Map, Value};

use super::identity::{Evidence, Identity, IdentityHeaders, Names};
use super::proof::Proof;
use super::roles::{MapError, Mapper};
use super::session::Signatory;
use super::session::marks::NameDigest;
use crate::clock::UnixTime;

/// Who verified the claims.
pub(super) struct Whose<'a> {
    pub(super) signatory: &'a Signatory,
    /// The provider's index.
    pub(super) index: usize,
    /// Whom the claims are of that do not name their issuer, as userinfo and introspection need not: the provider that was
    /// asked.
    pub(super) issuer: &'a str,
    /// How far its clock may be from ours.
    pub(super) skew: Duration,
}

/// Whom the verified claims of a provider are about, until `expires_at`; `evidence` is given issuer and subject.
pub(super) fn identity(
    mapper: &Mapper,
    whose: Whose<'_>,
    claims: &Map<String, Value>,
    evidence: impl FnOnce(Arc<str>, NameDigest) -> Evidence,
    (now, expires_at): (UnixTime, UnixTime),
) -> Result<Identity, MapError> {
    let Whose { signatory, index, issuer, skew } = whose;
    let mapped = mapper.map(claims, signatory.whose(claims))?;
    let text = |name: &str| claims.get(name).and_then(Value::as_str);
    let issuer = text("iss").unwrap_or(issuer);
    let subject = NameDigest::of_subject(signatory.party, issuer, text("sub").unwrap_or_default());
    let authenticated_at = claims.get("auth_time").and_then(Value::as_f64).map(|seconds| UnixTime(seconds as u64));
    // Encoded values are visible ASCII; one that were not would be left out, which tells the application less.
    let values = mapped.headers.iter().map(|value| HeaderValue::try_from(value.as_deref()?).ok());
    Ok(Identity {
        name: mapped.name.clone().into(),
        roles: Names::from_terminated(Names::terminated(&mapped.roles).into()),
        groups: Names::from_terminated(Names::terminated(&mapped.groups).into()),
        headers: IdentityHeaders::new(mapper.header_names(), values.collect()),
        // A token may be made anew long after the sign-in, so `iat` says nothing about it.
        authenticated_at: authenticated_at.filter(|at| *at <= now.after(skew)).unwrap_or(UnixTime(0)).min(now),
        expires_at,
        access_token: None,
        provider: index,
        proof: Proof::of(claims, now, skew),
        evidence: evidence(issuer.into(), subject),
    })
}
