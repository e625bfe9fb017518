//! A session from a finished sign-in.

use std::time::Duration;

use http::HeaderValue;
use serde_json::{Map, Value};

use super::marks::{Marks, NameDigest};
use super::record::{self, PackError, Record, StoredTokens};
use super::renewing::Renewing;
use super::{CreateError, SessionId, Sessions};
use crate::authn::oidc::Party;
use crate::authn::oidc::id_token::VerifiedClaims;
use crate::authn::proof::Proof;
use crate::message::OwnCookies;
use crate::random::random;

/// What a finished sign-in brought.
#[derive(Debug)]
pub struct SignedIn<'a> {
    /// Where.
    pub party: Party,
    /// From the verified ID token.
    pub claims: &'a VerifiedClaims,
    /// From the userinfo endpoint.
    pub userinfo: Option<&'a Map<String, Value>>,
    /// The tokens.
    pub tokens: StoredTokens<'a>,
    /// How far that provider's clock may be from ours.
    pub clock_skew: Duration,
    /// The session that this was to renew.
    pub renewing: Option<Renewing>,
}

impl Sessions {
    /// Makes a session of a finished sign-in: a new id, and the `Set-Cookie` values that overwrite every old part.
    ///
    /// # Errors
    /// [`CreateError`].
    pub fn create(&self, signed_in: &SignedIn<'_>, present: &OwnCookies) -> Result<Vec<HeaderValue>, CreateError> {
        let now = self.clock.now();
        let claims = record::merged(signed_in.claims.claims(), signed_in.userinfo);
        let mapped = self.map_at(signed_in.party, &claims)?;
        let (party, issuer) = (signed_in.party, signed_in.claims.issuer());
        let marks = Marks {
            id: SessionId(random()),
            provider_session: signed_in.claims.session().map(|sid| NameDigest::of_session(party, issuer, sid)),
            subject: NameDigest::of_subject(party, issuer, signed_in.claims.subject()),
            begun: self.ended.next_turn(),
        };
        // What is renewed neither lives longer by it nor gets away from what ends it.
        let (marks, issued_at, generation) = match &signed_in.renewing {
            None => (marks, now, 0),
            Some(old) => {
                let provider_session = marks.provider_session.or(old.marks.provider_session);
                (Marks { provider_session, ..old.marks }, old.issued_at, old.generation.saturating_add(1))
            }
        };
        let expires_at = issued_at.after(self.settings.lifetime);
        let expires_at = signed_in.renewing.map_or(expires_at, |old| expires_at.min(old.expires_at));
        let record = Record {
            marks,
            issued_at,
            expires_at,
            party: signed_in.party,
            mapping: self.mapper.fingerprint(),
            access_expires_at: signed_in.tokens.access_expires_at(now),
            proof: Proof::of(signed_in.claims.claims(), now, signed_in.clock_skew),
            generation,
            due: self.settings.renewal.due(now, &signed_in.tokens),
        };
        let packed = record::pack(&record, &mapped, signed_in.userinfo, &signed_in.tokens)?;
        let value = self.sealer.seal_bytes(&packed);
        let mut cookies = self
            .jar
            .store(&value, self.max_age(&record, now), present)
            .ok_or_else(|| PackError::largest_of(&claims, value.len()))?;
        cookies.push(self.idle_cookie(record.marks.id, now));
        // No late answer puts an older session, or an older form of this one, in its place.
        match &signed_in.renewing {
            Some(_) => self.successors.retire(record.marks.id, record.generation, record.expires_at),
            None => {
                if let Some((before, _)) = self.read_for_sign_out(present) {
                    self.successors.retire(before.marks.id, u32::MAX, before.expires_at);
                }
            }
        }
        Ok(cookies)
    }
}
