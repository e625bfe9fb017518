//! A session from a finished sign-in.

use std::time::Duration;

use http::HeaderValue;
use serde_json::{Map, Value};

use super::marks::{Marks, NameDigest};
use super::record::{self, PackError, Record, StoredTokens};
use super::renewing::Renewing;
use super::stored::{StoredSessions, Ticket};
use super::{CreateError, SessionId, Sessions};
use crate::authn::oidc::Party;
use crate::authn::oidc::id_token::VerifiedClaims;
use crate::authn::proof::Proof;
use crate::clock::UnixTime;
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
    /// When they came: their lives have begun.
    pub tokens_at: UnixTime,
    /// How far that provider's clock may be from ours.
    pub clock_skew: Duration,
    /// The session that this was to renew.
    pub renewing: Option<Renewing>,
    /// The session that the browser showed when this began.
    pub replaces: Option<SessionId>,
}

impl Sessions {
    /// Makes a session of a finished sign-in: a new id, and the `Set-Cookie` values that overwrite every old part.
    ///
    /// # Errors
    /// [`CreateError`].
    pub async fn create(
        &self,
        signed_in: &SignedIn<'_>,
        present: &OwnCookies,
    ) -> Result<Vec<HeaderValue>, CreateError> {
        // Only then the order of sign-ins and sign-outs is known here.
        self.ended.started().await;
        let now = self.clock.now();
        let claims = record::merged(signed_in.claims.claims(), signed_in.userinfo);
        let mapped = self.map_at(signed_in.party, &claims)?;
        let (party, issuer) = (signed_in.party, signed_in.claims.issuer());
        // What is meant for a page of our own site only does not come with the provider's answer.
        let lifetime = self.settings.lifetime;
        let absent = signed_in.replaces.map(|id| Shown { id, expires_at: now.after(lifetime), ticket: None });
        let before = self.shown(present).or(absent);
        let marks = Marks {
            id: SessionId(random()),
            provider_session: signed_in.claims.session().map(|sid| NameDigest::of_session(party, issuer, sid)),
            subject: NameDigest::of_subject(party, issuer, signed_in.claims.subject()),
            begun: self.ended.beginning(),
        };
        // What is renewed neither lives longer by it nor gets away from what ends it.
        let (marks, issued_at, generation) = match &signed_in.renewing {
            None => (marks, now, 0),
            Some(old) => {
                let provider_session = marks.provider_session.or(old.marks.provider_session);
                (Marks { provider_session, ..old.marks }, old.issued_at, old.generation.saturating_add(1))
            }
        };
        if let Some(name) = marks.provider_session {
            self.ended.began(name);
        }
        let expires_at = issued_at.after(self.settings.lifetime);
        let expires_at = signed_in.renewing.map_or(expires_at, |old| expires_at.min(old.expires_at));
        let anew = self.settings.renewal.anew(now);
        let record = Record {
            marks,
            issued_at,
            expires_at,
            party: signed_in.party,
            mapping: self.mapper.fingerprint(),
            access_expires_at: signed_in.tokens.access_expires_at(signed_in.tokens_at),
            proof: Proof::of(signed_in.claims.claims(), now, signed_in.clock_skew),
            generation,
            due: self.settings.renewal.due(signed_in.tokens_at, &signed_in.tokens, anew),
            anew,
        };
        let pack = |record: &Record| record::pack(record, &mapped, signed_in.userinfo, &signed_in.tokens);
        let (value, id) = match &self.stored {
            None => (self.sealer.seal_bytes(&pack(&record)?), record.marks.id),
            Some(stored) => {
                // The browser's own session, where that is renewed; anything else becomes one of the store's.
                let own = signed_in.renewing.and_then(|old| old.ticket);
                let own = own.or_else(|| before.as_ref()?.ticket);
                let ticket = match own.filter(|ticket| generation > 0 && ticket.id() == record.marks.id) {
                    Some(ticket) => {
                        stored.overwrite(&ticket, pack(&record)?).await?;
                        ticket
                    }
                    None => {
                        let ticket = Ticket::new();
                        let marks = Marks { id: ticket.id(), ..record.marks };
                        let record = Record { marks, ..record.clone() };
                        stored.create(&ticket, &record, pack(&record)?).await?;
                        ticket
                    }
                };
                (stored.cookie(&ticket), ticket.id())
            }
        };
        let mut cookies = self
            .jar
            .store(&value, self.max_age(&record, now), present)
            .ok_or_else(|| PackError::largest_of(&claims, value.len()))?;
        cookies.push(self.idle_cookie(id, now));
        if id != record.marks.id && generation > 0 {
            // It goes on under another id, unless it ended while that was written.
            if self.has_ended(&record) {
                self.end_id(id, record.expires_at).await;
                return Err(CreateError::Ended);
            }
            self.end(&record).await;
        }
        // No late answer puts an older session, or an older form of this one, in its place.
        match (&signed_in.renewing, before) {
            (Some(_), _) => self.successors.retire(id, record.generation, record.expires_at),
            (None, Some(before)) => self.replaced(&before),
            (None, None) => {}
        }
        Ok(cookies)
    }

    /// The id of that.
    pub fn shown_id(&self, present: &OwnCookies) -> Option<SessionId> {
        self.shown(present).map(|shown| shown.id)
    }

    /// What a browser shows of a session that is about to be replaced, whether it is good for anything or not.
    pub(super) fn shown(&self, present: &OwnCookies) -> Option<Shown> {
        let value = self.jar.join(present).ok().flatten()?;
        if StoredSessions::is_ticket(&value) {
            let ticket = self.stored.as_ref()?.ticket(&value).ok()?;
            return Some(Shown { id: ticket.id(), expires_at: UnixTime(0), ticket: Some(ticket) });
        }
        let (bytes, _) = self.sealer.open_bytes(&value).ok()?;
        let (record, _) = record::unpack(bytes)?;
        Some(Shown { id: record.marks.id, expires_at: record.expires_at, ticket: None })
    }

    fn replaced(&self, before: &Shown) {
        // Of one that was not shown to us it is not known where it lies.
        if let Some(stored) = &self.stored {
            drop(stored.delete(before.id));
        }
        if before.ticket.is_none() {
            self.successors.retire(before.id, u32::MAX, before.expires_at);
        }
    }
}

/// A session as a browser shows it.
pub(super) struct Shown {
    pub(super) id: SessionId,
    expires_at: UnixTime,
    ticket: Option<Ticket>,
}
