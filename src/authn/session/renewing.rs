//! Renewing a session: when, and what stays the same. The id, the beginning and the end of a session stay; tokens, claims and
//! roles are taken anew.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::marks::{Marks, NameDigest};
use super::record::{self, Anew, Contents, Due, PackError, Record, Sources, StoredTokens};
use super::shared::{Elsewhere, SharedRenewals};
use super::stored::{self, Place, StoredSessions, Ticket};
use super::successors::{GRACE, NextStep, Outcome, Successor, Underway};
use super::{CreateError, Renewal, Sessions};
use crate::authn::oidc::Party;
use crate::authn::oidc::id_token::VerifiedClaims;
use crate::authn::oidc::refresh::Refreshed;
use crate::authn::proof::Proof;
use crate::clock::UnixTime;
use crate::random::random;
use crate::store::{Lease, Step};

/// How long before its end an access token is renewed, at most.
const LONGEST_LEAD: Duration = Duration::from_secs(300);
/// For claims that are a little fresher nobody waits for a provider that is slow.
const PATIENCE: Duration = Duration::from_millis(300);
/// How long a renewal is waited for, from its beginning: some providers take ten seconds, and beyond that somebody who waits for a
/// page has gone.
const LONGEST_WAIT: Duration = Duration::from_secs(11);
/// A provider whose tokens live shorter is not asked more often.
const SHORTEST_LIFE: Duration = Duration::from_secs(2);

/// `session.renew` and `session.renew_every`, checked.
#[derive(Debug, Clone, Copy)]
pub struct When {
    /// Use refresh tokens before access tokens expire. Default true.
    pub refresh: bool,
    /// Take claims and roles from the provider anew at least this often: by the refresh token, or where there is none by
    /// an authorization request with `prompt=none`. Default: whenever the access token is renewed.
    pub every: Option<Duration>,
}

impl Default for When {
    fn default() -> Self {
        Self { refresh: true, every: None }
    }
}

impl When {
    /// For tokens that came just now. Somewhat before the end, at random, so that sessions which began together are not
    /// renewed together.
    pub(super) fn due(&self, now: UnixTime, tokens: &StoredTokens<'_>, anew: Option<Anew>) -> Option<Due> {
        let life = tokens.access_expires_in.filter(|_| self.refresh && tokens.refresh.is_some());
        let claims = anew.filter(|anew| !anew.by_browser).map(|anew| anew.at.since(now));
        let span = [life, claims].into_iter().flatten().min()?.max(SHORTEST_LIFE);
        let lead = (span / 5).clamp(Duration::from_secs(1), LONGEST_LEAD).as_secs();
        let stale_at = now.after(span);
        Some(Due { at: UnixTime(stale_at.0 - lead - at_most(lead / 2)), stale_at })
    }

    /// For claims that came just now.
    pub(super) fn anew(&self, now: UnixTime) -> Option<Anew> {
        self.every.map(|every| Anew { at: now.after(every), by_browser: false })
    }

    /// For claims that are as old as they were `before` a renewal.
    fn overdue(&self, before: Option<Anew>, now: UnixTime) -> Option<Anew> {
        // Where the bound is new, nobody knows how old they are.
        self.every.map(|_| Anew { at: before.map_or(now, |anew| anew.at), by_browser: true })
    }
}

/// A random number.
fn at_most(most: u64) -> u64 {
    u64::from_le_bytes(random()) % (most + 1)
}

/// A session that an authorization request with `prompt=none` is to renew. Travels in `state`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Renewing {
    pub(super) party: Party,
    pub(super) marks: Marks,
    pub(super) issued_at: UnixTime,
    pub(super) expires_at: UnixTime,
    pub(super) generation: u32,
    /// Where it lies, if not in the cookie: that may not come along with the provider's answer.
    pub(super) ticket: Option<Ticket>,
}

impl Renewing {
    /// Whether the session lies in the store, and not with the browser.
    pub fn is_of_the_store(&self) -> bool {
        self.ticket.is_some()
    }

    pub(in crate::authn) fn of(session: &DueSession) -> Self {
        let Record { party, marks, issued_at, expires_at, generation, .. } = session.record;
        Self {
            party,
            marks,
            issued_at,
            expires_at,
            generation,
            ticket: session.place.as_ref().map(|place| place.ticket),
        }
    }

    /// Where it is renewed.
    pub fn party(&self) -> Party {
        self.party
    }
}

/// A session that is due, and what it holds.
#[derive(Debug, Clone)]
pub struct DueSession {
    /// The fixed part.
    pub record: Record,
    /// The rest.
    pub contents: Contents,
    /// Where it lies, if not in the cookie.
    pub(super) place: Option<Place>,
}

/// That a session is ours to renew.
#[derive(Debug)]
pub(in crate::authn) enum Claim<'a> {
    /// This replica alone has it.
    Alone,
    /// It lies in the store that replicas share.
    Stored(&'a StoredSessions, &'a Place, Lease),
    /// It lies in its cookie, which may come to any replica.
    Shared(&'a Arc<SharedRenewals>, Step),
}

impl DueSession {
    fn without_refresh_token(&self) -> Option<Vec<u8>> {
        record::without_refresh_token(&self.record, &self.contents)
    }
}

impl Renewal {
    /// The session that it is time to renew.
    pub(in crate::authn) fn due(&self) -> Option<DueSession> {
        self.0.as_ref()?.due.clone()
    }
}

impl Sessions {
    /// What to do about a session that is due.
    pub(in crate::authn) fn turn(&self, session: &DueSession) -> NextStep {
        self.successors.turn(&session.record, self.clock.now())
    }

    /// Whether a request with this session has to wait for its renewal.
    pub(in crate::authn) fn is_stale(&self, session: &DueSession) -> bool {
        session.record.is_stale(self.clock.now())
    }

    /// Whether a store has a newer form of a session than the one that was seen here lately, and from now on it is seen.
    pub(in crate::authn) async fn is_newer_in_store(&self, session: &DueSession) -> bool {
        let Some((stored, place)) = self.place(session) else { return false };
        let found = stored.ask(&place.ticket).await.ok().flatten();
        found.is_some_and(|found| found.record.generation > session.record.generation)
    }

    /// How long a request waits for the renewal of a session that is stale.
    pub(in crate::authn) fn patience(&self, session: &DueSession) -> Duration {
        // Without a token that is good the application would refuse it anyway.
        if self.keeps_access_token && session.record.has_expired_token(self.clock.now()) {
            LONGEST_WAIT
        } else {
            PATIENCE
        }
    }

    /// Whether a session is renewed by its refresh token.
    pub(in crate::authn) fn can_refresh(&self, session: &DueSession) -> bool {
        let is_due = session.record.asks_for_tokens(self.clock.now());
        self.settings.renewal.refresh && session.contents.has_refresh_token() && is_due
    }

    /// Whether the browser may be sent to the provider for a session now; then not again within `pause`.
    pub(in crate::authn) fn take_turn_of_browser(&self, renewing: &Renewing, pause: Duration) -> bool {
        self.successors.take_turn_once_in(renewing.marks.id, pause, (self.clock.now(), renewing.expires_at))
    }

    /// Whether the session is still there, and of whom the claims are about.
    pub fn is_to_renew(&self, renewing: &Renewing, claims: &VerifiedClaims) -> bool {
        self.is_live(renewing)
            && renewing.marks.subject == NameDigest::of_subject(renewing.party, claims.issuer(), claims.subject())
    }

    /// Whether a session has neither ended nor expired.
    pub fn is_live(&self, renewing: &Renewing) -> bool {
        !self.ended.contains(&renewing.marks, renewing.party) && self.clock.now() < renewing.expires_at
    }

    /// Whether a request shows what a session was, long after it was renewed.
    pub(in crate::authn) fn is_superseded(&self, session: &DueSession) -> bool {
        self.successors.is_superseded(&session.record)
    }

    /// Whether a session has ended.
    pub(in crate::authn) fn has_ended(&self, record: &Record) -> bool {
        self.ended.contains(&record.marks, record.party)
    }

    /// Ends a session that the provider does not vouch for any more.
    pub async fn end_renewing(&self, renewing: &Renewing) {
        self.end_marked(&renewing.marks, renewing.expires_at).await;
    }

    /// Takes a session for one renewal by its refresh token; one that is spent is never taken.
    ///
    /// # Errors
    /// How the renewal ended without that.
    pub(in crate::authn) async fn claim<'a>(
        &'a self,
        session: &'a DueSession,
        underway: &Underway,
    ) -> Result<Claim<'a>, Outcome> {
        let claimed = self.claim_in_turn(session, underway).await;
        // Whoever waits, waits for us from now on.
        underway.by_another(false);
        claimed
    }

    async fn claim_in_turn<'a>(&'a self, session: &'a DueSession, underway: &Underway) -> Result<Claim<'a>, Outcome> {
        let is_busy = || underway.by_another(true);
        if let Some((stored, place)) = self.place(session) {
            let lease = stored.claim(place, is_busy, || session.without_refresh_token()).await?;
            return Ok(Claim::Stored(stored, place, lease));
        }
        let Some(shared) = &self.shared else { return Ok(Claim::Alone) };
        let now = self.clock.now();
        match shared.claim(&session.record, now, underway.is_spent(), is_busy).await {
            Ok(step) => Ok(Claim::Shared(shared, step)),
            Err(Elsewhere::Renewed(packed, left)) => {
                // What another replica could give to a browser is not too large.
                let successor = self.successor(packed, now.after(left)).map_err(|_| Outcome::Unused)?;
                Err(Outcome::Shared(Box::new(successor.shared_by(shared, now.after(GRACE)))))
            }
            Err(Elsewhere::Superseded) => Err(Outcome::Superseded),
            Err(Elsewhere::Lost) => Err(Outcome::Lost),
            Err(Elsewhere::Unused) => Err(Outcome::Unused),
        }
    }

    /// The next form of a session in its cookie, wanted until then.
    ///
    /// # Errors
    /// How long its cookie would be, where no browser would keep that.
    fn successor(&self, packed: Vec<u8>, wanted_until: UnixTime) -> Result<Successor, usize> {
        let sealed = self.sealer.seal_bytes(&packed);
        // What was just packed is read back as it will be from the cookie.
        let opened = record::unpack(packed).filter(|_| self.jar.holds(&sealed)).ok_or(sealed.len())?;
        let max_age = self.max_age(&opened.0, self.clock.now());
        Ok(Successor::new(opened, sealed, max_age, wanted_until))
    }

    /// How long the provider may take: while the claim lasts, what it brings can be written.
    pub(in crate::authn) fn limit(&self, claim: &Claim<'_>) -> Duration {
        match claim {
            Claim::Stored(..) | Claim::Shared(..) => stored::LEASE - stored::LEASE / 6,
            // It has bounds of its own.
            Claim::Alone => Duration::from_secs(3600),
        }
    }

    /// The refresh token was not sent.
    pub(in crate::authn) async fn unclaim(&self, claim: Claim<'_>) {
        match claim {
            Claim::Stored(stored, _, lease) => stored.give_back(lease).await,
            Claim::Shared(shared, step) => shared.give_back(step).await,
            Claim::Alone => {}
        }
    }

    /// The refresh token may be spent, and brought nothing.
    pub(in crate::authn) async fn lose(&self, session: &DueSession, claim: Claim<'_>) {
        match claim {
            Claim::Stored(stored, place, lease) => {
                stored.write_spent(place, lease, session.without_refresh_token()).await;
            }
            Claim::Shared(shared, step) => shared.lose(step, &session.record, self.clock.now()).await,
            Claim::Alone => {}
        }
    }

    fn place<'a>(&'a self, session: &'a DueSession) -> Option<(&'a StoredSessions, &'a Place)> {
        self.stored.as_ref().zip(session.place.as_ref())
    }

    /// The next form of a session, from what its refresh token brought.
    ///
    /// # Errors
    /// [`CreateError`].
    pub(in crate::authn) async fn succeed(
        &self,
        session: &DueSession,
        refreshed: &Refreshed,
        claim: Claim<'_>,
    ) -> Result<Outcome, CreateError> {
        // Userinfo may have taken its time since then.
        let now = refreshed.came_at;
        let DueSession { record: old, contents, .. } = session;
        let party = old.party;
        let Sources { claims: old_claims, userinfo: old_userinfo } = contents.sources().unwrap_or_default();
        let claims = refreshed.claims.as_ref().map_or(&old_claims, |verified| verified.claims());
        let is_anew = refreshed.userinfo.is_some() || (refreshed.claims.is_some() && old_userinfo.is_none());
        let anew = if is_anew { self.settings.renewal.anew(now) } else { self.settings.renewal.overdue(old.anew, now) };
        let userinfo = refreshed.userinfo.as_ref().or(old_userinfo.as_ref());
        let merged = record::merged(claims, userinfo);
        let mapped = self.map_at(party, &merged)?;
        let before = contents.tokens();
        let kept = |token: Option<&crate::secret::SecretString>| token.map(|token| token.expose_secret().to_owned());
        let id = refreshed.id_token.as_ref().or(before.as_ref().and_then(|tokens| tokens.id.as_ref()));
        let refresh = refreshed.refresh_token.as_ref().or(before.as_ref().and_then(|tokens| tokens.refresh.as_ref()));
        let (id, refresh) = (kept(id).unwrap_or_default(), kept(refresh));
        let tokens = StoredTokens {
            id: &id,
            access: refreshed.access_token.expose_secret(),
            refresh: refresh.as_deref(),
            access_expires_in: refreshed.expires_in,
        };
        let sid = refreshed.claims.as_ref().and_then(|verified| verified.session());
        let issuer = claims.get("iss").and_then(Value::as_str).unwrap_or_default();
        let provider_session = sid.map(|sid| NameDigest::of_session(party, issuer, sid)).or(old.marks.provider_session);
        let record = Record {
            marks: Marks { provider_session, ..old.marks },
            issued_at: old.issued_at,
            expires_at: old.expires_at,
            party,
            mapping: self.mapper.fingerprint(),
            access_expires_at: tokens.access_expires_at(now),
            // Core §12.2: a renewed ID token may leave out what the first one said.
            proof: old.proof.or_newer(Proof::of(claims, now, refreshed.clock_skew)),
            generation: old.generation.saturating_add(1),
            due: self.settings.renewal.due(now, &tokens, anew),
            anew,
        };
        let packed = record::pack(&record, &mapped, userinfo, &tokens)?;
        if let Claim::Stored(stored, place, lease) = claim {
            stored.replace(place, lease, packed).await?;
            return Ok(Outcome::Elsewhere);
        }
        let idle = self.settings.idle;
        let successor = self.successor(packed.clone(), now.after(idle));
        let successor = successor.map_err(|length| PackError::largest_of(&merged, length))?;
        match claim {
            Claim::Shared(shared, step) if shared.publish(step, &packed, (old, idle), now).await => {
                Ok(Outcome::Shared(Box::new(successor.shared_by(shared, now.after(GRACE)))))
            }
            _ => Ok(Outcome::Renewed(Box::new(successor))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixTime = UnixTime(1_000);

    fn due(when: When, life: Option<u64>, has_refresh_token: bool) -> Option<(u64, u64)> {
        let tokens = StoredTokens {
            id: "i",
            access: "a",
            refresh: has_refresh_token.then_some("r"),
            access_expires_in: life.map(Duration::from_secs),
        };
        when.due(NOW, &tokens, when.anew(NOW)).map(|due| (due.at.0 - NOW.0, due.stale_at.0 - NOW.0))
    }

    #[test]
    fn sessions_are_due_somewhat_before_their_tokens_end_and_at_the_latest_when_the_settings_say() {
        let every = |seconds| When { every: Some(Duration::from_secs(seconds)), ..When::default() };
        for (when, life, has_refresh_token, earliest, latest, stale) in [
            (When::default(), Some(5), true, 4, 4, 5),
            (When::default(), Some(300), true, 210, 240, 300),
            (When::default(), Some(86_400), true, 85_950, 86_100, 86_400),
            // Not with every request, whatever the provider says.
            (When::default(), Some(0), true, 1, 1, 2),
            (every(60), Some(300), true, 42, 48, 60),
            (every(600), Some(300), true, 210, 240, 300),
            (every(60), None, false, 42, 48, 60),
            (every(60), Some(30), false, 42, 48, 60),
            (When { refresh: false, ..every(60) }, Some(30), true, 42, 48, 60),
        ] {
            for _ in 0..50 {
                let (at, stale_at) = due(when, life, has_refresh_token).expect("it is due once");
                assert!((earliest..=latest).contains(&at), "{when:?} {life:?}: {at}");
                assert_eq!(stale_at, stale, "{when:?} {life:?}");
            }
        }
        for (when, life, has_refresh_token) in [
            (When::default(), Some(300), false),
            (When::default(), None, true),
            (When { refresh: false, every: None }, Some(300), true),
        ] {
            assert_eq!(due(when, life, has_refresh_token), None, "{when:?} {life:?}");
        }
    }

    #[test]
    fn a_renewal_that_brings_no_claims_puts_off_none_that_are_due() {
        let when = When { every: Some(Duration::from_secs(600)), ..When::default() };
        let at = when.anew(NOW).expect("there is a bound").at;
        let later = NOW.after(Duration::from_secs(500));
        let kept = when.overdue(when.anew(NOW), later);
        assert_eq!(kept, Some(Anew { at, by_browser: true }));
        assert_eq!(when.overdue(kept, later), kept, "nor does the next one");
        assert_eq!(when.overdue(None, later), Some(Anew { at: later, by_browser: true }));
        assert_eq!(When::default().overdue(when.anew(NOW), later), None, "without a bound nothing is overdue");
        // The refresh token is for access tokens alone then.
        let tokens = StoredTokens {
            id: "i",
            access: "a",
            refresh: Some("r"),
            access_expires_in: Some(Duration::from_secs(900)),
        };
        assert_eq!(when.due(later, &tokens, kept).map(|due| due.stale_at), Some(later.after(Duration::from_secs(900))));
        assert_eq!(when.due(later, &StoredTokens { access_expires_in: None, ..tokens }, kept), None);
    }
}
