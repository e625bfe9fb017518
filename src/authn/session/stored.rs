//! Sessions that lie in a store. The cookie carries a ticket: the id of the session, which names its record, and the key that
//! opens it, sealed like all our cookies. So the store alone opens nothing, and neither does the cookie.
//!
//! What was read is at hand for five seconds: a signed-in request asks the store once in that time, and whatever ends a session
//! is told to every replica (see [`super::ended`]). While the store is away, sessions that were seen here go on for
//! `session.store_grace`; whoever was not seen is told to come again, and never sent to sign in.
//!
//! A record changes only under a lease, so that of all replicas one renews it (see [`crate::store`]).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use serde::{Deserialize, Serialize};
use tokio::runtime;
use tokio::time::{Instant, sleep, timeout};
use tracing::{info, warn};

use super::SessionId;
use super::kept::FORMS;
use super::marks::NameDigest;
use super::record::{self, Contents, Record};
use super::seal::{OpenError, RecordSealer, Sealer};
use super::successors::Outcome;
use crate::authn::oidc::Party;
use crate::clock::{SharedClock, UnixTime};
use crate::random::random;
use crate::store::{Bid, Filter, Handle, Kept, Lease, Leased, Owner, Put, Store, StoreError, Version};
use crate::telemetry::chain;

/// For how long what was read of a session is as good as the store.
const FRESH: Duration = Duration::from_secs(5);
/// The most memory for sessions at hand, in bytes.
const AT_HAND: u64 = 64 << 20;
/// What a session at hand takes beside its packed form, in bytes.
const OVERHEAD: usize = 1024;
/// How long one renewal of a session keeps all others away: longer than a provider's answer may take.
pub(super) const LEASE: Duration = Duration::from_secs(30);
/// How often a replica looks whether another has finished.
pub(super) const POLL: Duration = Duration::from_millis(50);
/// Between two attempts to write down what cannot be had again.
pub(super) const AGAIN: Duration = Duration::from_millis(500);
/// How long a renewal waits for a store that is away before it is put off: a restart, a fail-over.
pub(super) const OUTAGE: Duration = Duration::from_secs(10);
/// How often a store that is away is asked for sessions that can go on without it.
const PROBE: Duration = Duration::from_secs(1);
/// How long who ends a session waits for the store to let go of it.
const PATIENCE: Duration = Duration::from_secs(1);
/// What the value of a cookie with a ticket begins with; no sealed text has it.
const MARK: u8 = b'.';

/// What the cookie carries.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Ticket {
    id: SessionId,
    key: [u8; 32],
}

impl std::fmt::Debug for Ticket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Ticket [secret]")
    }
}

impl Ticket {
    pub(super) fn new() -> Self {
        Self { id: SessionId(random()), key: random() }
    }

    pub(super) fn id(&self) -> SessionId {
        self.id
    }

    fn sealer(&self, version: Version) -> RecordSealer {
        // An older form does not open in a newer one's place.
        RecordSealer::new(&self.key, &[b"stored session", &self.id.0, &version.number().to_be_bytes()])
    }

    /// What a store holds under its id: the packed bytes, and what they say; `None`: no session, or another one.
    fn open(&self, version: Version, bytes: Vec<u8>) -> Option<(Bytes, (Record, Contents))> {
        let packed = Bytes::from(self.sealer(version).open(bytes).ok()?);
        let session = record::unpack(packed.clone())?;
        (session.0.marks.id == self.id).then_some((packed, session))
    }
}

/// The session that `bytes` of a store are in its first version, for whoever shows a ticket of this plain text; `None`: they are
/// none, or another one. A door for `tests/fuzz` and for samples of what older releases wrote.
pub fn open(ticket: &[u8], bytes: Vec<u8>) -> Option<(Record, Contents)> {
    let ticket: Ticket = postcard::from_bytes(ticket).ok()?;
    ticket.open(Version::FIRST, bytes).map(|(_, session)| session)
}

/// What a store would be given at first for a packed session under a ticket of this plain text.
pub fn seal(ticket: &[u8], packed: &[u8]) -> Option<Vec<u8>> {
    let ticket: Ticket = postcard::from_bytes(ticket).ok()?;
    Some(ticket.sealer(Version::FIRST).seal(packed))
}

impl From<SessionId> for Handle {
    fn from(id: SessionId) -> Self {
        Self::new(id.0)
    }
}

/// Where a session lies, and in which of its versions it was read.
#[derive(Debug, Clone)]
pub(in crate::authn) struct Place {
    pub(super) ticket: Ticket,
    version: Version,
}

/// A session as it was read.
#[derive(Debug)]
pub(super) struct Stored {
    pub(super) record: Record,
    pub(super) contents: Contents,
    /// As it lies there, opened.
    packed: Bytes,
    version: Version,
    read_at: UnixTime,
}

impl Stored {
    pub(super) fn place(&self, ticket: Ticket) -> Place {
        Place { ticket, version: self.version }
    }
}

/// The store gives no answer, and the session was not seen here lately.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the session store is away")]
pub struct Away;

/// A session could not be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unwritten {
    /// The store is away.
    Away,
    /// There is no such session any more.
    Gone,
}

/// All of them.
pub(in crate::authn) struct StoredSessions {
    store: Store,
    tickets: Sealer<Ticket>,
    at_hand: Cache<SessionId, Arc<Stored>>,
    grace: Duration,
    control: runtime::Handle,
    clock: SharedClock,
    begun: Instant,
    /// Milliseconds after that, when it is asked again; 0: it answers.
    away_until: AtomicU64,
}

impl std::fmt::Debug for StoredSessions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoredSessions").field("store", &self.store).finish_non_exhaustive()
    }
}

impl StoredSessions {
    pub(super) fn new(
        store: Store,
        tickets: Sealer<Ticket>,
        grace: Duration,
        control: runtime::Handle,
        clock: SharedClock,
    ) -> Self {
        let weight = |_: &SessionId, stored: &Arc<Stored>| {
            u32::try_from(stored.packed.len().saturating_add(OVERHEAD)).unwrap_or(u32::MAX)
        };
        // Least recently used: what was just read has to be there.
        let at_hand = Cache::builder().max_capacity(AT_HAND).weigher(weight).eviction_policy(EvictionPolicy::lru());
        let at_hand = at_hand.time_to_live(grace.max(FRESH)).build();
        Self { store, tickets, at_hand, grace, control, clock, begun: Instant::now(), away_until: AtomicU64::new(0) }
    }

    /// Whether the value of a session cookie is a ticket.
    pub(super) fn is_ticket(value: &[u8]) -> bool {
        value.first() == Some(&MARK)
    }

    pub(super) fn ticket(&self, value: &[u8]) -> Result<Ticket, OpenError> {
        let sealed = value.strip_prefix(&[MARK]).ok_or(OpenError::Malformed)?;
        self.tickets.open(sealed).map(|(ticket, _)| ticket)
    }

    /// The value of the session cookie.
    pub(super) fn cookie(&self, ticket: &Ticket) -> String {
        format!("{}{}", char::from(MARK), self.tickets.seal(ticket))
    }

    /// The session, where no question is needed.
    pub(super) fn at_hand(&self, ticket: &Ticket, now: UnixTime) -> Option<Arc<Stored>> {
        self.at_hand.get(&ticket.id).filter(|stored| is_within(stored, now, FRESH))
    }

    /// The session as the store has it; `None`: it is not there (any more).
    pub(super) async fn read(&self, ticket: &Ticket) -> Result<Option<Arc<Stored>>, Away> {
        if !self.takes_turn()
            && let Some(seen) = self.seen(ticket, self.clock.now())
        {
            return Ok(Some(seen));
        }
        match self.ask(ticket).await {
            Err(Away) => self.seen(ticket, self.clock.now()).map(Some).ok_or(Away),
            answer => answer,
        }
    }

    /// The same, from the store and nowhere else.
    pub(super) async fn ask(&self, ticket: &Ticket) -> Result<Option<Arc<Stored>>, Away> {
        match self.store.get(ticket.id.into()).await {
            Ok(kept) => {
                self.answered();
                let stored = kept.and_then(|kept| Self::open(ticket, kept, self.clock.now()));
                if stored.is_none() {
                    self.at_hand.invalidate(&ticket.id);
                }
                Ok(stored.map(|stored| self.take_in(ticket, stored)))
            }
            Err(error) => {
                self.failed(&error);
                Err(Away)
            }
        }
    }

    /// What can go on without the store, for a while.
    fn seen(&self, ticket: &Ticket, now: UnixTime) -> Option<Arc<Stored>> {
        self.at_hand.get(&ticket.id).filter(|stored| is_within(stored, now, self.grace))
    }

    fn open(ticket: &Ticket, Kept { bytes, version }: Kept, now: UnixTime) -> Option<Stored> {
        let opened = ticket.open(version, bytes);
        if opened.is_none() {
            warn!(reason = "session_record_unreadable", "what the session store holds is no session of ours");
        }
        opened.map(|(packed, (record, contents))| Stored { record, contents, packed, version, read_at: now })
    }

    /// Puts it where requests find it, unless something newer is there. What the store has lost is written there again.
    fn take_in(&self, ticket: &Ticket, stored: Stored) -> Arc<Stored> {
        let stored = Arc::new(stored);
        let newer = |old: &Arc<Stored>| old.version > stored.version;
        let entry = self.at_hand.entry(ticket.id).and_upsert_with(|old| match old.map(moka::Entry::into_value) {
            Some(old) if newer(&old) => old,
            _ => Arc::clone(&stored),
        });
        let kept = entry.into_value();
        if newer(&kept) {
            let (store, at_hand) = (self.store.clone(), self.at_hand.clone());
            self.control.spawn(write_again(store, at_hand, *ticket, stored.version, Arc::clone(&kept)));
        }
        kept
    }

    /// Writes a new one, made for the id of `ticket`.
    pub(super) async fn create(&self, ticket: &Ticket, record: &Record, packed: Vec<u8>) -> Result<(), Unwritten> {
        let sealed = ticket.sealer(Version::FIRST).seal(&packed);
        let life = record.expires_at.since(self.clock.now());
        match self.store.create(ticket.id.into(), owner_of(record), sealed, life).await {
            Ok(Put::Kept(version)) => {
                self.answered();
                self.remember(ticket, packed, version);
                Ok(())
            }
            // Nobody else has this id.
            Ok(Put::Refused) => Err(Unwritten::Gone),
            Err(error) => {
                self.failed(&error);
                Err(Unwritten::Away)
            }
        }
    }

    /// The right to renew a session, with the refresh token of the version that was read; or how its renewal ended without
    /// us. `is_busy` is told that another replica has it; `without_token` is the session once that token may be spent.
    pub(super) async fn claim(
        &self,
        place: &Place,
        is_busy: impl Fn(),
        without_token: impl Fn() -> Option<Vec<u8>>,
    ) -> Result<Lease, Outcome> {
        // One for all attempts: a lease whose answer was lost is still ours, and its token was not sent.
        let (begun, bid) = (Instant::now(), Bid::new());
        loop {
            match self.store.try_lease(place.ticket.id.into(), place.version, bid, LEASE).await {
                Ok(Leased::Granted(lease)) => return Ok(lease),
                Ok(Leased::Abandoned(lease)) => {
                    info!("a replica fell silent while it renewed a session; its refresh token is not sent again");
                    self.write_spent(place, lease, without_token()).await;
                    return Err(Outcome::Lost);
                }
                Ok(Leased::Busy(left)) if begun.elapsed() < LEASE * 2 => {
                    is_busy();
                    sleep(left.min(POLL)).await;
                }
                Ok(Leased::Busy(_)) => return Err(Outcome::Unused),
                Ok(Leased::Newer) => match self.ask(&place.ticket).await {
                    Ok(Some(_)) => return Err(Outcome::Elsewhere),
                    Ok(None) => return Err(Outcome::Lost),
                    Err(Away) if begun.elapsed() < OUTAGE => sleep(AGAIN).await,
                    Err(Away) => return Err(Outcome::Unused),
                },
                Ok(Leased::Gone) => {
                    self.at_hand.invalidate(&place.ticket.id);
                    return Err(Outcome::Lost);
                }
                Err(error) => {
                    self.failed(&error);
                    if begun.elapsed() >= OUTAGE {
                        // It may be ours all the same.
                        self.give_back_late(Lease::asked_for(place.ticket.id.into(), place.version, bid, LEASE));
                        return Err(Outcome::Unused);
                    }
                    sleep(AGAIN).await;
                }
            }
        }
    }

    /// Nothing was sent: whoever comes next may.
    pub(super) async fn give_back(&self, lease: Lease) {
        if let Err(error) = self.store.release(lease).await {
            self.failed(&error);
            self.give_back_late(lease);
        }
    }

    fn give_back_late(&self, lease: Lease) {
        let store = self.store.clone();
        self.control.spawn(async move { give_back_late(|| store.release(lease), || lease.lasts(AGAIN)).await });
    }

    /// The refresh token may be spent: nobody sends it again.
    pub(super) async fn write_spent(&self, place: &Place, lease: Lease, without_token: Option<Vec<u8>>) {
        if let Some(packed) = without_token {
            // Unwritten, the lease runs out, and the next holder is told.
            let _ = self.replace(place, lease, packed).await;
        }
    }

    /// The next version of a session. What it is made of cannot be had twice, so this tries for as long as the lease lasts.
    pub(super) async fn replace(&self, place: &Place, lease: Lease, packed: Vec<u8>) -> Result<(), Unwritten> {
        let sealed = place.ticket.sealer(lease.next_version()).seal(&packed);
        loop {
            match self.store.replace(lease, sealed.clone()).await {
                Ok(Put::Kept(version)) => {
                    self.answered();
                    self.remember(&place.ticket, packed, version);
                    return Ok(());
                }
                Ok(Put::Refused) => {
                    self.at_hand.invalidate(&place.ticket.id);
                    return Err(Unwritten::Gone);
                }
                Err(error) => self.failed(&error),
            }
            if !lease.lasts(AGAIN * 2) {
                return Err(Unwritten::Away);
            }
            sleep(AGAIN).await;
        }
    }

    /// Writes a session that the person's own browser renewed, whichever version it is in now.
    pub(super) async fn overwrite(&self, ticket: &Ticket, packed: Vec<u8>) -> Result<(), Unwritten> {
        let (begun, bid) = (Instant::now(), Bid::new());
        loop {
            let stored = self.ask(ticket).await.map_err(|Away| Unwritten::Away)?.ok_or(Unwritten::Gone)?;
            let place = stored.place(*ticket);
            match self.store.try_lease(ticket.id.into(), place.version, bid, LEASE).await {
                // What somebody else may have spent is replaced here.
                Ok(Leased::Granted(lease) | Leased::Abandoned(lease)) => {
                    return self.replace(&place, lease, packed).await;
                }
                Ok(Leased::Gone) => return Err(Unwritten::Gone),
                Ok(Leased::Busy(_) | Leased::Newer) if begun.elapsed() < LEASE => sleep(POLL).await,
                Ok(Leased::Busy(_) | Leased::Newer) => return Err(Unwritten::Away),
                Err(error) => {
                    self.failed(&error);
                    self.give_back_late(Lease::asked_for(ticket.id.into(), place.version, bid, LEASE));
                    return Err(Unwritten::Away);
                }
            }
        }
    }

    fn remember(&self, ticket: &Ticket, packed: Vec<u8>, version: Version) {
        // What was just packed can be read.
        if let Some(stored) = Stored::read(packed.into(), version, self.clock.now()) {
            let _ = self.take_in(ticket, stored);
        }
    }

    /// Takes a session away; here at once. What is returned resolves when the store has done it too, or after a second; dropped, it
    /// is done all the same.
    pub(super) fn delete(&self, id: SessionId) -> impl Future<Output = ()> + use<> {
        self.at_hand.invalidate(&id);
        let (store, patience) = (self.store.clone(), if self.is_up() { PATIENCE } else { Duration::ZERO });
        let deleting = self.control.spawn(async move {
            // That it has ended is told to everybody all the same.
            if let Err(error) = store.delete(id.into()).await {
                warn!(error = chain(&error), "an ended session stays in the store until it expires");
            }
        });
        async move { _ = timeout(patience, deleting).await }
    }

    /// Takes every session of somebody away that was there at `by`, and is now.
    pub(super) fn delete_of(&self, party: Party, subject: NameDigest, by: UnixTime) {
        let owner = Owner { party: *party.as_bytes(), subject: *subject.as_bytes() };
        let until = by.0.saturating_add(1).saturating_mul(1000).min(self.clock.micros() / 1000);
        let store = self.store.clone();
        self.control.spawn(async move {
            if let Err(error) = delete_all(&store, Filter::Owner(owner), until).await {
                warn!(error = chain(&error), "ended sessions stay in the store until they expire");
            }
        });
    }

    /// Where the store is asked.
    pub(super) fn control(&self) -> &runtime::Handle {
        &self.control
    }

    /// The store itself, for what is done to many sessions at once.
    pub(super) fn store(&self) -> &Store {
        &self.store
    }

    /// Whether the store answers, as far as is known.
    pub(super) fn is_up(&self) -> bool {
        self.away_until.load(Ordering::Relaxed) == 0
    }

    /// Whether the store is to be asked now: while it is away, by one request a second.
    fn takes_turn(&self) -> bool {
        let until = self.away_until.load(Ordering::Relaxed);
        let now = self.millis();
        let next = now + u64::try_from(PROBE.as_millis()).unwrap_or(u64::MAX);
        let taken = || self.away_until.compare_exchange(until, next, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        until == 0 || (now >= until && taken())
    }

    fn millis(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX / 2)
    }

    fn answered(&self) {
        if !self.is_up() && self.away_until.swap(0, Ordering::Relaxed) > 0 {
            info!("the session store is back");
        }
    }

    fn failed(&self, error: &StoreError) {
        let next = self.millis() + u64::try_from(PROBE.as_millis()).unwrap_or(u64::MAX / 2);
        if self.away_until.swap(next, Ordering::Relaxed) == 0 {
            warn!(reason = "session_store_away", error = chain(error), "the session store is away");
        }
    }
}

impl Stored {
    fn read(packed: Bytes, version: Version, read_at: UnixTime) -> Option<Self> {
        let (record, contents) = record::unpack(packed.clone())?;
        Some(Self { record, contents, packed, version, read_at })
    }
}

fn is_within(stored: &Stored, now: UnixTime, span: Duration) -> bool {
    // A clock that went back makes nothing younger.
    now >= stored.read_at && now.since(stored.read_at) < span
}

/// The store answered an older version than one that it had acknowledged: it lost that in a fail-over.
async fn write_again(
    store: Store,
    at_hand: Cache<SessionId, Arc<Stored>>,
    ticket: Ticket,
    lost: Version,
    newer: Arc<Stored>,
) {
    // Never given back: the refresh token of the older version is spent.
    let leased = store.try_lease(ticket.id.into(), lost, Bid::new(), LEASE).await;
    // Newer after all, as a rule: it was read a moment before it was written.
    let Ok(Leased::Granted(lease) | Leased::Abandoned(lease)) = leased else { return };
    let sealed = ticket.sealer(lease.next_version()).seal(&newer.packed);
    if let Ok(Put::Kept(version)) = store.replace(lease, sealed).await {
        info!("the session store had lost the newest form of a session, which was written again");
        let Stored { record, contents, packed, read_at, .. } = &*newer;
        let (record, contents, packed) = (record.clone(), contents.clone(), packed.clone());
        at_hand.insert(ticket.id, Arc::new(Stored { record, contents, packed, version, read_at: *read_at }));
    }
}

/// Gives back what nothing was sent under, for as long as it may be ours: else it counts as taken, and then as lost, and a
/// refresh token that is good is never used. That it is not ours may be no last word: the question by which it was taken may
/// still be on its way.
pub(super) async fn give_back_late<F>(release: impl Fn() -> F, lasts: impl Fn() -> bool)
where
    F: Future<Output = Result<bool, StoreError>>,
{
    let mut pause = AGAIN;
    while lasts() {
        sleep(pause).await;
        pause = match release().await {
            Ok(true) => return,
            Ok(false) => pause * 2,
            Err(_) => AGAIN,
        };
    }
}

/// By what a store can list it.
fn owner_of(record: &Record) -> Owner {
    Owner { party: *record.party.as_bytes(), subject: *record.marks.subject.as_bytes() }
}

/// Takes away what was created by `until`, in milliseconds since the Unix epoch. Tells how many that were.
pub(super) async fn delete_all(store: &Store, filter: Filter, until: u64) -> Result<u64, StoreError> {
    let (mut from, mut deleted) = (None, 0);
    loop {
        let swept = store.sweep(filter, until, from).await?;
        deleted += swept.owners.iter().filter(|owner| owner.party != FORMS).count() as u64;
        from = swept.next;
        if from.is_none() {
            return Ok(deleted);
        }
    }
}

#[cfg(test)]
pub(super) mod tests;
