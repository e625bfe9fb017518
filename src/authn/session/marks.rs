//! What a session can be ended by: its own id, the provider's name for it (`sid`), or whose it is (`sub`).

use serde::{Deserialize, Serialize};

use super::SessionId;
use crate::authn::oidc::Party;

/// A digest of a name that an issuer gives, bound to the issuer, to who we are there and to the kind of name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct NameDigest(pub(super) [u8; 16]);

impl NameDigest {
    /// Of a `sid` of one issuer.
    pub fn of_session(party: Party, issuer: &str, sid: &str) -> Self {
        Self(party.digest("sid", issuer, sid))
    }

    /// Of a `sub` of one issuer: whoever that is, since a user is both together.
    pub fn of_subject(party: Party, issuer: &str, sub: &str) -> Self {
        Self(party.digest("sub", issuer, sub))
    }

    /// As it is compared.
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

/// A place in the order of sign-ins and sign-outs: microseconds since the epoch as a rule, later wherever two would be the
/// same. Finer than the clock of claims, so that whoever signs out and in again within a second is signed in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Turn(pub(super) u64);

/// Part of every sealed session, so that asking whether it has ended opens nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marks {
    /// New at each sign-in.
    pub id: SessionId,
    /// The ID token's `sid`, where it has one.
    pub provider_session: Option<NameDigest>,
    /// The ID token's `sub`.
    pub subject: NameDigest,
    /// When it began.
    pub begun: Turn,
}

impl Marks {
    /// For tests of what comes after authentication.
    #[cfg(test)]
    pub(crate) fn for_test(id: u8) -> Self {
        let name = |salt| NameDigest([id.wrapping_add(salt); 16]);
        Self { id: SessionId([id; 16]), provider_session: Some(name(1)), subject: name(2), begun: Turn(1_000) }
    }
}
