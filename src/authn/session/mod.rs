//! The session: our record of a sign-in, sealed into cookies, or in a store that the cookie has the key to.
//!
//! Two cookies: the session itself or its ticket, written at sign-in and when it is renewed, and a small one with the time of the last
//! request, renewed at most every tenth of the idle time, so that few answers of the upstream carry kilobytes of ours.

mod absence;
pub mod administered;
mod attach;
#[cfg(test)]
mod claim_tests;
pub mod cookie;
mod creating;
pub mod ended;
pub mod kept;
pub mod marks;
mod over;
pub mod record;
mod remembered;
pub mod renewing;
pub mod seal;
mod shared;
pub mod stored;
pub mod successors;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::OptionFuture;
use http::HeaderValue;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub use self::absence::{CreateError, NoSession};
use self::attach::{Attachment, Newer};
pub use self::attach::{Renewal, set_cookies};
use self::cookie::{CookieJar, JoinError};
pub use self::creating::SignedIn;
use self::ended::{EndedSessions, Told, Written};
use self::marks::{Marks, NameDigest};
use self::record::{Contents, Record};
use self::remembered::{Remembered, Slot};
use self::renewing::{DueSession, When};
use self::seal::{KeyRing, OpenError, Purpose, Sealer};
use self::shared::SharedRenewals;
use self::stored::{Away, Place, Stored, StoredSessions, Ticket};
use self::successors::Successors;
use super::identity::{Evidence, Identity, IdentityHeaders};
use super::lifetime::Lifetimes;
use super::oidc::Party;
use super::oidc::tenants::Tenants;
use super::roles::{MapError, Mapped, Mapper, Whose};
use crate::clock::{SharedClock, UnixTime};
use crate::errands::Errands;
use crate::message::{Inbound, Origin, OwnCookies};
use crate::secret::SecretString;
use crate::store::{Location, Store};

/// A session that claims to begin later than this is refused.
const FUTURE_LEEWAY: Duration = Duration::from_secs(60);

/// Random, 16 bytes; new at each sign-in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SessionId(pub(in crate::authn) [u8; 16]);

/// The `[session]` and `[cookie]` sections, checked.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The first seals, all open. Never empty; each at least 32 bytes and not weak.
    pub secrets: Vec<SecretString>,
    /// Absolute lifetime. Default 24 h.
    pub lifetime: Duration,
    /// Idle timeout. Default 1 h.
    pub idle: Duration,
    /// Cookies without `Max-Age`, which end with the browser.
    pub browser_session: bool,
    /// When sessions are renewed.
    pub renewal: When,
    /// Names and attributes of our cookies.
    pub cookie: cookie::Settings,
    /// Where sessions lie, if not in their cookies.
    pub store: Option<Location>,
    /// By what replicas share which sessions have ended and which were renewed, where those are in cookies.
    pub share: Option<Location>,
    /// How long sessions that were seen go on while the store is away. Default 1 min.
    pub store_grace: Duration,
    /// How long cookies stay in the browser after their session, so that its posts can be kept; 0 where they are not.
    pub outlives: Duration,
    /// Posts that are kept over a sign-in, if any.
    pub keep_posts: Option<kept::Settings>,
    /// `state_dir`: where ended sessions are written down. `None`: a restart forgets them.
    pub state_dir: Option<PathBuf>,
}

impl Settings {
    /// How long what has ended is remembered: until the last cookie of it is gone.
    pub fn remembered_for(&self) -> Duration {
        self.lifetime + self.outlives
    }
}

/// The time of the last request, bound to its session.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct LastSeen {
    session: SessionId,
    at: UnixTime,
}

/// What a provider calls what has ended.
#[derive(Debug, Clone, Copy)]
pub struct ToldOf<'a> {
    /// The provider, and who we are there.
    pub party: Party,
    /// The issuer that gives the names; one tenant's, where there are several.
    pub issuer: &'a str,
    /// The session.
    pub sid: Option<&'a str>,
    /// The person.
    pub sub: Option<&'a str>,
    /// Ends no session that began after this moment.
    pub begun_by: UnixTime,
}

/// Opens, makes and ends sessions.
#[derive(Debug)]
pub struct Sessions {
    settings: Settings,
    jar: CookieJar,
    sealer: Sealer<()>,
    idle_sealer: Sealer<LastSeen>,
    providers: Vec<Signatory>,
    mapper: Mapper,
    ended: Arc<EndedSessions>,
    successors: Arc<Successors>,
    stored: Option<StoredSessions>,
    /// Of sessions in cookies.
    shared: Option<Arc<SharedRenewals>>,
    errands: Errands,
    clock: SharedClock,
    keeps_access_token: bool,
}

/// A session as it was opened: the newest form of it that is known here.
#[derive(Debug)]
struct Opened {
    record: Record,
    contents: Contents,
    /// The index of its provider.
    provider: usize,
    /// The form that the request showed.
    shown: (SessionId, u32),
    /// Where it lies, if not in the cookie.
    place: Option<Place>,
}

/// Why a session is not open yet.
#[derive(Debug)]
enum Closed {
    /// There is none.
    Absent(NoSession),
    /// The store has to be asked.
    InStore(Ticket),
    /// What other replicas have ended is not known yet.
    Starting,
}

impl<E: Into<NoSession>> From<E> for Closed {
    fn from(absence: E) -> Self {
        Self::Absent(absence.into())
    }
}

/// A provider, as far as sessions know it.
#[derive(Debug, Clone)]
pub struct Signatory {
    /// Its `provider_id`.
    pub id: String,
    /// Issuer and client id.
    pub party: Party,
    /// Who gives the names; where there are tenants, each its own.
    pub issuer: String,
    /// Its tenants, where it has an issuer for each.
    pub tenants: Option<Tenants>,
}

impl Signatory {
    /// In whose words `claims` give a name.
    pub fn whose<'a>(&'a self, claims: &'a Map<String, Value>) -> Whose<'a> {
        let issuer = || claims.get("iss").and_then(Value::as_str).unwrap_or_default();
        let tenant = self.tenants.as_ref().map(|tenants| tenants.tenant_of(issuer()).unwrap_or_default());
        Whose { provider: &self.id, tenant }
    }
}

/// What sessions are bound to beside the secrets.
#[derive(Debug)]
pub struct Binding<'a> {
    /// The keys.
    pub ring: &'a KeyRing,
    /// Our public origin.
    pub origin: &'a Origin,
    /// Whether cookies are `Secure` (an https redirect URI).
    pub secure: bool,
    /// The providers, in the order of the configuration.
    pub providers: Vec<Signatory>,
    /// Whether an upstream is given the access token.
    pub passes_access_token: bool,
    /// Which sessions have ended.
    pub ended: Arc<EndedSessions>,
    /// Where sessions lie, if not in their cookies.
    pub store: Option<Store>,
    /// By which replicas share the renewals of sessions that lie in cookies; the same store, if there is that one.
    pub shared: Option<Store>,
    /// Where the store is asked, and sessions are renewed and end.
    pub errands: Errands,
}

impl Sessions {
    /// Puts the parts together.
    pub fn new(settings: Settings, mapper: Mapper, binding: Binding<'_>, clock: SharedClock) -> Self {
        let jar = CookieJar::new(&settings.cookie, binding.secure);
        let errands = binding.errands;
        let control = errands.control();
        let stored = binding.store.map(|store| {
            let tickets = binding.ring.sealer(Purpose::Ticket, jar.session_name(), binding.origin);
            StoredSessions::new(store, tickets, settings.store_grace, control.clone(), Arc::clone(&clock))
        });
        let shared = binding.shared.map(|store| {
            let sealer = binding.ring.sealer(Purpose::Renewed, jar.session_name(), binding.origin);
            SharedRenewals::new(store, sealer, control.clone())
        });
        Self {
            errands,
            stored,
            shared,
            sealer: binding.ring.sealer(Purpose::Session, jar.session_name(), binding.origin),
            idle_sealer: binding.ring.sealer(Purpose::Idle, jar.idle_name(), binding.origin),
            providers: binding.providers,
            ended: binding.ended,
            successors: Arc::new(Successors::new(jar.clone())),
            keeps_access_token: binding.passes_access_token,
            settings,
            jar,
            mapper,
            clock,
        }
    }

    /// The names and attributes of our cookies.
    pub fn jar(&self) -> &CookieJar {
        &self.jar
    }

    /// Whether the store of sessions answers; `None`: they lie in their cookies.
    pub fn store_is_up(&self) -> Option<bool> {
        self.stored.as_ref().map(StoredSessions::is_up)
    }

    /// The mapper, for what the front end may see.
    pub fn mapper(&self) -> &Mapper {
        &self.mapper
    }

    /// Whether a request comes with a session of ours, be it good or not.
    pub fn is_shown(&self, cookies: &OwnCookies) -> bool {
        !matches!(self.jar.join(cookies), Ok(None))
    }

    /// Who this request's session stands for, and what has to be renewed on its answer. `None`: only
    /// [`Sessions::authenticate`] can tell, since the store has to be asked.
    pub fn authenticate_at_hand(
        &self,
        inbound: &Inbound,
        now: UnixTime,
    ) -> Option<Result<(Identity, Renewal), NoSession>> {
        let mut remembered = Remembered::of(inbound.recall(), self.sealer.epoch());
        let identified = match self.open_at_hand(inbound.cookies(), &mut remembered.session, now) {
            Ok(opened) => self.identify(opened, inbound, &mut remembered.seen, now),
            Err(Closed::Absent(absence)) => Err(absence),
            Err(Closed::InStore(_) | Closed::Starting) => return None,
        };
        if identified.is_ok() {
            inbound.recall().put(remembered);
        }
        Some(identified)
    }

    /// The same, asking the store where that is needed.
    ///
    /// # Errors
    /// [`NoSession`].
    pub async fn authenticate(&self, inbound: &Inbound) -> Result<(Identity, Renewal), NoSession> {
        let opened = self.open(inbound.cookies()).await?;
        self.identify(opened, inbound, &mut Slot::default(), self.clock.now())
    }

    fn identify(
        &self,
        opened: Opened,
        inbound: &Inbound,
        remembered: &mut Slot<LastSeen>,
        now: UnixTime,
    ) -> Result<(Identity, Renewal), NoSession> {
        let Opened { record, contents, provider, shown, place } = opened;
        let seen = self.last_seen(inbound.cookies(), &record, remembered, now)?;
        let contents = self.current(&record, contents)?;
        let renewal = self.renewal(&record, seen, now);
        let renewal = match record.is_due(now) || shown.1 != record.generation {
            false => renewal,
            true => {
                let due = DueSession { record: record.clone(), contents: contents.clone(), place };
                self.renewal_of_due(renewal, due, (shown, inbound.cookies()), now)
            }
        };
        let access_token = self.keeps_access_token.then(|| record.live_access_token(&contents, now)).flatten();
        let identity = Identity {
            name: contents.name(),
            roles: contents.roles(),
            groups: contents.groups(),
            headers: IdentityHeaders::new(self.mapper.header_names(), contents.headers()),
            authenticated_at: record.issued_at,
            // By today's setting too, as above: what is admitted now must end with it.
            expires_at: record.expires_at.min(record.issued_at.after(self.settings.lifetime)),
            proof: record.proof,
            access_token,
            provider,
            evidence: Evidence::Session { marks: record.marks, party: record.party },
        };
        Ok((identity, renewal))
    }

    /// The live session's record, for sign-out and for what the front end may see.
    ///
    /// # Errors
    /// [`NoSession`].
    pub async fn read(&self, cookies: &OwnCookies) -> Result<(Record, Contents), NoSession> {
        let Opened { record, contents, .. } = self.open(cookies).await?;
        self.last_seen(cookies, &record, &mut Slot::default(), self.clock.now())?;
        let contents = self.current(&record, contents)?;
        Ok((record, contents))
    }

    /// The session's record whether it is idle or not, for a sign-out that should still reach the provider.
    pub async fn read_for_sign_out(&self, cookies: &OwnCookies) -> Option<(Record, Contents)> {
        self.open(cookies).await.ok().map(|opened| (opened.record, opened.contents))
    }

    /// Ends the session that a request shows, idle or not, and gives what it was. Waits until that is written down; whoever
    /// goes away meanwhile has signed out all the same.
    pub async fn sign_out(self: &Arc<Self>, cookies: &OwnCookies) -> Option<(Record, Contents)> {
        let (this, cookies) = (Arc::clone(self), cookies.clone());
        self.detached(async move { this.end_shown(&cookies).await }).await.flatten()
    }

    /// What goes on when whoever asked for it goes away meanwhile. `None`: the control runtime stops.
    pub async fn detached<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> Option<T> {
        self.errands.run(work).await.ok()
    }

    /// Where that is done.
    pub(in crate::authn) fn errands(&self) -> &Errands {
        &self.errands
    }

    async fn end_shown(&self, cookies: &OwnCookies) -> Option<(Record, Contents)> {
        let opened = match self.open(cookies).await {
            Err(NoSession::Away(Away)) => {
                // What it was is not to be had; that it has ended is known by its id alone.
                let id = self.shown(cookies)?.id;
                self.end_id(id, self.clock.now().after(self.settings.lifetime)).await;
                return None;
            }
            // Over by itself; what its cookie could still keep a form for is over too.
            Err(NoSession::Expired) => {
                if let Some(record) = self.expired(cookies) {
                    self.end(&record).await;
                }
                return None;
            }
            opened => opened.ok()?,
        };
        self.end(&opened.record).await;
        Some((opened.record, opened.contents))
    }

    /// Ends a session of which only the id is known.
    async fn end_id(&self, id: SessionId, until: UnixTime) {
        self.take_away(id, self.ended.end_id(id, until.after(self.settings.outlives))).await;
    }

    /// Ends a session: its id is remembered until its cookie would expire. Waits until that is written down.
    pub async fn end(&self, record: &Record) {
        self.end_marked(&record.marks, record.expires_at).await;
    }

    async fn end_marked(&self, marks: &Marks, until: UnixTime) {
        self.take_away(marks.id, self.ended.end(marks, until.after(self.settings.outlives))).await;
    }

    /// Waits for both: a replica that has not heard of the end yet asks the store.
    async fn take_away(&self, id: SessionId, written: Written) {
        let deleted = OptionFuture::from(self.stored.as_ref().map(|stored| stored.delete(id)));
        tokio::join!(written.wait(), deleted);
    }

    /// Ends what the provider, or whoever knows the name of the session there, says has ended: the session `sid`, only if it
    /// is `sub`'s where both are given; every session of `sub` where there is no `sid` (OpenID Connect Back-Channel Logout
    /// §2.7). Waits until that is written down.
    pub async fn end_told(&self, ToldOf { party, issuer, sid, sub, begun_by }: ToldOf<'_>, told: Told) {
        let subject = sub.map(|sub| NameDigest::of_subject(party, issuer, sub));
        let written = match (sid, subject) {
            (Some(sid), subject) => {
                let name = NameDigest::of_session(party, issuer, sid);
                self.ended.end_named(name, subject, told, (begun_by, self.settings.remembered_for()))
            }
            (None, Some(subject)) => {
                if let Some(stored) = &self.stored {
                    stored.delete_of(party, subject, begun_by);
                }
                self.ended.end_subject(subject, (begun_by, self.settings.remembered_for()))
            }
            (None, None) => return,
        };
        written.wait().await;
    }

    /// The longest that a session, or what is remembered of its end, lasts.
    pub fn remembered_for(&self) -> Duration {
        self.settings.remembered_for()
    }

    /// For whatever outlives the check that let it in.
    pub fn lifetimes(&self) -> Lifetimes {
        let (ended, clock) = (Arc::clone(&self.ended), Arc::clone(&self.clock));
        Lifetimes { ended, clock, grace: self.settings.store_grace }
    }

    async fn open(&self, cookies: &OwnCookies) -> Result<Opened, NoSession> {
        let mut opened = self.open_at_hand(cookies, &mut Slot::default(), self.clock.now());
        if let Err(Closed::Starting) = opened {
            self.ended.started().await;
            opened = self.open_at_hand(cookies, &mut Slot::default(), self.clock.now());
        }
        match (opened, &self.stored) {
            (Ok(opened), _) => Ok(opened),
            (Err(Closed::InStore(ticket)), Some(stored)) => {
                // Boxed: few requests have to ask.
                let read = Box::pin(stored.read(&ticket)).await?.ok_or(NoSession::Ended)?;
                self.admit_stored(&read, ticket, self.clock.now())
            }
            (Err(Closed::InStore(_) | Closed::Starting), _) => Err(Away.into()),
            (Err(Closed::Absent(absence)), _) => Err(absence),
        }
    }

    fn open_at_hand(
        &self,
        cookies: &OwnCookies,
        remembered: &mut Slot<(Record, Contents)>,
        now: UnixTime,
    ) -> Result<Opened, Closed> {
        let value = self.jar.join(cookies)?.ok_or(NoSession::Absent)?;
        match self.ended.is_current(self.settings.store_grace) {
            Some(true) => {}
            Some(false) => return Err(Away.into()),
            None => return Err(Closed::Starting),
        }
        if StoredSessions::is_ticket(&value) {
            // Without a store it is of another configuration, as one of another version would be.
            let stored = self.stored.as_ref().ok_or(OpenError::Record)?;
            let ticket = stored.ticket(&value)?;
            let Some(read) = stored.at_hand(&ticket, now) else {
                // Known whether the store answers or not.
                let has_ended = self.ended.contains_id(ticket.id());
                return Err(if has_ended { NoSession::Ended.into() } else { Closed::InStore(ticket) });
            };
            return Ok(self.admit_stored(&read, ticket, now)?);
        }
        let (mut record, mut contents) = remembered.open(&value, |value| {
            let (bytes, _) = self.sealer.open_bytes(value)?;
            Ok(record::unpack(bytes).ok_or(OpenError::Record)?)
        })?;
        let provider = self.admit(&record, now)?;
        let shown = (record.marks.id, record.generation);
        if record.is_due(now)
            && let Some(newest) = self.successors.newest(shown, now)
        {
            (record, contents) = (newest.record.clone(), newest.contents.clone());
        }
        self.check_ended(&record)?;
        Ok(Opened { record, contents, provider, shown, place: None })
    }

    fn admit_stored(&self, read: &Stored, ticket: Ticket, now: UnixTime) -> Result<Opened, NoSession> {
        let (record, contents) = (read.record.clone(), read.contents.clone());
        let provider = self.admit(&record, now)?;
        self.check_ended(&record)?;
        let shown = (record.marks.id, record.generation);
        Ok(Opened { record, contents, provider, shown, place: Some(read.place(ticket)) })
    }

    /// The index of its provider.
    fn admit(&self, record: &Record, now: UnixTime) -> Result<usize, NoSession> {
        let provider = self.provider(record.party).ok_or(NoSession::OtherParty)?;
        if record.issued_at > now.after(FUTURE_LEEWAY) {
            return Err(NoSession::Future);
        }
        // The lifetime is also measured by today's setting, so that shortening it takes hold at once.
        if now >= record.expires_at || now.since(record.issued_at) >= self.settings.lifetime {
            return Err(NoSession::Expired);
        }
        Ok(provider)
    }

    fn check_ended(&self, record: &Record) -> Result<(), NoSession> {
        if self.has_ended(record) { Err(NoSession::Ended) } else { Ok(()) }
    }

    fn provider(&self, party: Party) -> Option<usize> {
        self.providers.iter().position(|provider| provider.party == party)
    }

    /// What the session's claims say by today's settings.
    ///
    /// # Errors
    /// [`MapError`].
    pub fn map(&self, record: &Record, claims: &Map<String, Value>) -> Result<Mapped, MapError> {
        self.map_at(record.party, claims)
    }

    fn map_at(&self, party: Party, claims: &Map<String, Value>) -> Result<Mapped, MapError> {
        let whose = self.provider(party).map(|index| self.providers[index].whose(claims));
        self.mapper.map(claims, whose.unwrap_or_default())
    }

    fn last_seen(
        &self,
        cookies: &OwnCookies,
        record: &Record,
        remembered: &mut Slot<LastSeen>,
        now: UnixTime,
    ) -> Result<UnixTime, NoSession> {
        let text = cookies.get(self.jar.idle_name()).map_err(JoinError::from)?.ok_or(NoSession::Idle)?;
        let seen = remembered.open(text, |text| Ok(self.idle_sealer.open(text)?.0))?;
        let in_time = seen.at <= now.after(FUTURE_LEEWAY) && now.since(seen.at) < self.settings.idle;
        if seen.session != record.marks.id || !in_time {
            return Err(NoSession::Idle);
        }
        Ok(seen.at)
    }

    /// The contents as today's `[identity]` settings map them.
    fn current(&self, record: &Record, contents: Contents) -> Result<Contents, NoSession> {
        if record.mapping == self.mapper.fingerprint() {
            return Ok(contents);
        }
        let claims = contents.claims().ok_or(NoSession::Unmappable)?;
        let mapped = self.map(record, &claims).map_err(|_| NoSession::Unmappable)?;
        Ok(contents.remapped(&mapped))
    }

    fn renewal(&self, record: &Record, seen: UnixTime, now: UnixTime) -> Renewal {
        let due = now.since(seen) >= self.settings.idle / 10 && now < record.expires_at;
        Renewal(due.then(|| {
            Box::new(Attachment { idle: Some(self.idle_cookie(record.marks.id, now)), ..self.attachment(record) })
        }))
    }

    fn attachment(&self, record: &Record) -> Attachment {
        let (marks, party) = (record.marks, record.party);
        Attachment { idle: None, session: None, due: None, marks, party, ended: Arc::clone(&self.ended) }
    }

    /// The same, with the session's own newer form, be it there now or when the answer goes.
    #[cold]
    fn renewal_of_due(
        &self,
        renewal: Renewal,
        due: DueSession,
        (shown, present): ((SessionId, u32), &OwnCookies),
        now: UnixTime,
    ) -> Renewal {
        let mut attachment = renewal.0.unwrap_or_else(|| Box::new(self.attachment(&due.record)));
        // A ticket stays as it is.
        attachment.session = due.place.is_none().then(|| Newer {
            successors: Arc::clone(&self.successors),
            shown,
            present: present.clone(),
            clock: Arc::clone(&self.clock),
        });
        attachment.due = due.record.is_due(now).then_some(due);
        Renewal(Some(attachment))
    }

    fn idle_cookie(&self, session: SessionId, now: UnixTime) -> HeaderValue {
        let max_age = (!self.settings.browser_session).then_some(self.settings.lifetime);
        self.jar.idle().set(&self.idle_sealer.seal(&LastSeen { session, at: now }), max_age)
    }

    fn max_age(&self, record: &Record, now: UnixTime) -> Option<Duration> {
        (!self.settings.browser_session).then(|| record.expires_at.since(now) + self.settings.outlives)
    }
}
