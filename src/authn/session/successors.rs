//! What became of sessions whose cookies were to be replaced: one renewal of each at a time, and none with a refresh token
//! that was sent before (RFC 9700 §4.14.2).
//!
//! A browser sends several requests at once, and each still carries the old cookie while the first of them is renewed; so the
//! newer form of a session lies here until an answer has taken it along, and [`GRACE`] longer. That the old refresh token is
//! spent is remembered for as long as its cookie could come. Asked only by requests whose session is due: all others never
//! look here.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use http::HeaderValue;
use tokio::sync::watch;

use super::SessionId;
use super::cookie::CookieJar;
use super::record::{Contents, Record};
use super::shared::SharedRenewals;
use crate::clock::UnixTime;
use crate::message::OwnCookies;

/// How long the newer form is kept after an answer took it along: requests that were under way, and answers that got lost.
pub const GRACE: Duration = Duration::from_secs(60);
/// Pauses after renewals that brought nothing.
const SHORTEST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// Independent parts, each with a lock of its own.
const SHARDS: usize = 64;
/// The most sessions of one shard, about 150 bytes each: a million in all.
const MAX_SLOTS: usize = 16_384;
/// The most newer forms that wait in one shard, some kilobytes each: 32,768 in all.
const MAX_WAITING: usize = 512;
/// How long a request waits while another replica renews its session: that one may be gone, and then it takes until its lease is
/// over to know. Longer than a provider takes that is merely slow (three seconds) or one answer of the store (two).
const ELSEWHERE: Duration = Duration::from_secs(4);
/// How often a shard is looked through for what is over.
const SWEEP: Duration = Duration::from_secs(10);

/// The newer form of a session, ready for the browser.
#[derive(Debug)]
pub struct Successor {
    pub(super) record: Record,
    pub(super) contents: Contents,
    pub(super) sealed: String,
    /// Of its cookies; `None`: they end with the browser.
    pub(super) max_age: Option<Duration>,
    /// When nobody can ask for it any more: the old cookie's idle time is over.
    pub(super) wanted_until: UnixTime,
    /// When an answer first took it along; 0: none has.
    given_at: AtomicU64,
    /// Where other replicas find it.
    shared: Option<Arc<SharedRenewals>>,
}

impl Successor {
    pub(super) fn new(
        (record, contents): (Record, Contents),
        sealed: String,
        max_age: Option<Duration>,
        wanted_until: UnixTime,
    ) -> Self {
        Self { record, contents, sealed, max_age, wanted_until, given_at: AtomicU64::new(0), shared: None }
    }

    /// The same, kept here until then at most, since other replicas have it too.
    pub(super) fn shared_by(self, shared: &Arc<SharedRenewals>, until: UnixTime) -> Self {
        Self { shared: Some(Arc::clone(shared)), wanted_until: self.wanted_until.min(until), ..self }
    }

    fn is_wanted(&self, now: UnixTime) -> bool {
        let given_at = self.given_at.load(Ordering::Relaxed);
        now < self.wanted_until && (given_at == 0 || now.since(UnixTime(given_at)) < GRACE)
    }

    /// An answer takes it along. The first one counts: whoever comes much later with the old cookie is not the browser that
    /// took it.
    fn give_along(&self, now: UnixTime) {
        let first = self.given_at.compare_exchange(0, now.0.max(1), Ordering::Relaxed, Ordering::Relaxed);
        if let (Ok(_), Some(shared)) = (first, &self.shared) {
            shared.shorten(self.record.marks.id, self.record.generation);
        }
    }
}

/// What is known of one session's renewals.
#[derive(Debug)]
struct Slot {
    newest: Option<Arc<Successor>>,
    /// The generation whose refresh token was sent last.
    spent: Option<u32>,
    /// The generation that was renewed last.
    renewed: Option<u32>,
    /// The generation whose newer form other replicas have too: what of it is not here (any more) can be asked for.
    shared: Option<u32>,
    underway: Option<Waiting>,
    /// Not before.
    again_at: UnixTime,
    failures: u32,
    /// When the last cookie of the session has expired.
    until: UnixTime,
}

/// What can be done for a session that is due.
#[derive(Debug)]
pub enum NextStep {
    /// Renew it, and tell.
    Renew(Underway),
    /// Somebody is at it.
    Wait(Waiting),
    /// It was tried a moment ago, and will be again.
    Later,
    /// Its refresh token was sent, and nothing came back.
    Lost,
    /// It was renewed, and the browser has had the newer form for a while.
    Superseded,
}

/// For the end of a renewal that is under way.
#[derive(Debug, Clone)]
pub struct Waiting {
    begun: Instant,
    /// Whether another replica is at it.
    done: watch::Receiver<bool>,
}

impl Waiting {
    /// Waits until it is over, but not beyond `patience` after it began, nor beyond four seconds while another replica is at it.
    pub async fn until_over(mut self, patience: Duration) {
        loop {
            let bound = if *self.done.borrow_and_update() { patience.min(ELSEWHERE) } else { patience };
            let left = bound.saturating_sub(self.begun.elapsed());
            // The end of the sender is the end of it. Whoever waited too long goes on with what there is.
            let Ok(Ok(())) = tokio::time::timeout(left, self.done.changed()).await else { return };
        }
    }
}

/// How a renewal ended.
#[derive(Debug)]
pub enum Outcome {
    /// With a newer form.
    Renewed(Box<Successor>),
    /// With a newer form that other replicas have too: here it is kept for [`GRACE`] at most.
    Shared(Box<Successor>),
    /// With a newer form, which lies in the store.
    Elsewhere,
    /// With a newer form that the browser has had for a while.
    Superseded,
    /// The refresh token was not used: it can be sent again.
    Unused,
    /// It may have been used, and nothing came back.
    Lost,
}

/// One renewal. Dropped without an outcome, it counts as lost.
#[derive(Debug)]
pub struct Underway {
    successors: Arc<Successors>,
    id: SessionId,
    generation: u32,
    until: UnixTime,
    now: UnixTime,
    /// The refresh token was sent, by this replica or another: what came of it can be asked for, and nothing else.
    is_spent: bool,
    outcome: Outcome,
    begun: Instant,
    // Dropped last: whoever waits for it finds the outcome.
    done: watch::Sender<bool>,
}

impl Underway {
    /// To wait for it, however it ends.
    pub fn waiting(&self) -> Waiting {
        Waiting { begun: self.begun, done: self.done.subscribe() }
    }

    /// Another replica is at it, or not any more.
    pub(super) fn by_another(&self, is_it: bool) {
        self.done.send_if_modified(|before| std::mem::replace(before, is_it) != is_it);
    }

    /// Whether the refresh token was sent before, and must not be again.
    pub fn is_spent(&self) -> bool {
        self.is_spent
    }

    /// Tells how it ended; `now` is when it did.
    pub fn finish(mut self, outcome: Outcome, now: UnixTime) {
        self.outcome = outcome;
        self.now = now;
    }
}

impl Drop for Underway {
    fn drop(&mut self) {
        let outcome = std::mem::replace(&mut self.outcome, Outcome::Lost);
        self.successors.finish(self, outcome);
    }
}

#[derive(Debug, Default)]
struct Shard {
    slots: HashMap<SessionId, Slot>,
    swept_at: UnixTime,
}

/// Of all sessions; one for all workers.
#[derive(Debug)]
pub struct Successors {
    jar: CookieJar,
    shards: Vec<Mutex<Shard>>,
}

impl Successors {
    /// None yet.
    pub fn new(jar: CookieJar) -> Self {
        Self { jar, shards: (0..SHARDS).map(|_| Mutex::default()).collect() }
    }

    /// The newest form of a session, if there is one here, and it is newer than the one that was shown.
    pub(super) fn newest(&self, (id, generation): (SessionId, u32), now: UnixTime) -> Option<Arc<Successor>> {
        let shard = self.shard(id);
        let newest = shard.slots.get(&id)?.newest.as_ref()?;
        (newest.record.generation > generation && newest.is_wanted(now)).then(|| Arc::clone(newest))
    }

    /// The `Set-Cookie` values of the newest form, for an answer to a request that showed an older one.
    pub(super) fn cookies(
        &self,
        shown: (SessionId, u32),
        present: &OwnCookies,
        now: UnixTime,
    ) -> Option<Vec<HeaderValue>> {
        let newest = self.newest(shown, now)?;
        let cookies = self.jar.store(&newest.sealed, newest.max_age, present)?;
        newest.give_along(now);
        Some(cookies)
    }

    /// What to do about a session that is due.
    pub fn turn(self: &Arc<Self>, record: &Record, now: UnixTime) -> NextStep {
        let mut shard = self.shard(record.marks.id);
        shard.tidy(now);
        let slot = shard.slots.entry(record.marks.id).or_insert_with(|| Slot::new(record.expires_at));
        if let Some(underway) = &slot.underway {
            return NextStep::Wait(underway.clone());
        }
        if slot.renewed.is_some_and(|renewed| renewed >= record.generation) {
            return NextStep::Superseded;
        }
        let is_spent = slot.spent.is_some_and(|spent| spent >= record.generation);
        if is_spent && slot.shared.is_none_or(|shared| shared < record.generation) {
            return NextStep::Lost;
        }
        if now < slot.again_at {
            return NextStep::Later;
        }
        let (done, underway) = watch::channel(false);
        let begun = Instant::now();
        slot.underway = Some(Waiting { begun, done: underway });
        // Before it is sent: whatever becomes of us then, it is not sent twice.
        slot.spent = slot.spent.max(Some(record.generation));
        NextStep::Renew(Underway {
            successors: Arc::clone(self),
            id: record.marks.id,
            generation: record.generation,
            until: record.expires_at,
            now,
            is_spent,
            outcome: Outcome::Lost,
            begun,
            done,
        })
    }

    /// Whether there is, or was, a newer form of a session than this.
    pub fn is_superseded(&self, record: &Record) -> bool {
        let shard = self.shard(record.marks.id);
        let renewed = shard.slots.get(&record.marks.id).and_then(|slot| slot.renewed);
        renewed.is_some_and(|renewed| renewed >= record.generation)
    }

    /// Whether it is time to try something with a session that must not be tried all the time; `pause` until the next.
    /// `until` is when the session ends.
    pub fn take_turn_once_in(&self, id: SessionId, pause: Duration, (now, until): (UnixTime, UnixTime)) -> bool {
        let mut shard = self.shard(id);
        shard.tidy(now);
        let slot = shard.slots.entry(id).or_insert_with(|| Slot::new(until));
        let is_time = now >= slot.again_at;
        if is_time {
            slot.again_at = now.after(pause);
        }
        is_time
    }

    /// Whatever waits here for a browser is not for it any more: it has got a session of `generation`, or above all of them, in
    /// another way. `until` is when the session ends.
    pub(super) fn retire(&self, id: SessionId, below: u32, until: UnixTime) {
        let Some(last) = below.checked_sub(1) else { return };
        let mut shard = self.shard(id);
        let slot = shard.slots.entry(id).or_insert_with(|| Slot::new(until));
        slot.renewed = slot.renewed.max(Some(last));
        slot.newest = slot.newest.take().filter(|newest| newest.record.generation >= below);
    }

    fn finish(&self, underway: &Underway, outcome: Outcome) {
        let mut shard = self.shard(underway.id);
        let slot = shard.slots.entry(underway.id).or_insert_with(|| Slot::new(underway.until));
        slot.underway = None;
        match outcome {
            // Another session took its place meanwhile, or the browser renewed it by itself.
            Outcome::Renewed(_) | Outcome::Shared(_)
                if slot.renewed.is_some_and(|renewed| renewed >= underway.generation) => {}
            Outcome::Shared(successor) => {
                slot.succeeded();
                slot.shared = slot.shared.max(Some(underway.generation));
                slot.newest = Some(Arc::new(*successor));
            }
            outcome @ (Outcome::Renewed(_) | Outcome::Elsewhere | Outcome::Superseded) => {
                slot.succeeded();
                slot.renewed = slot.renewed.max(Some(underway.generation));
                if let Outcome::Renewed(successor) = outcome {
                    slot.newest = Some(Arc::new(*successor));
                }
            }
            Outcome::Unused => {
                slot.failures = slot.failures.saturating_add(1);
                let pause =
                    SHORTEST_PAUSE.saturating_mul(1 << slot.failures.min(6).saturating_sub(1)).min(LONGEST_PAUSE);
                slot.again_at = underway.now.after(pause);
                if !underway.is_spent {
                    slot.spent = underway.generation.checked_sub(1);
                }
            }
            Outcome::Lost => {}
        }
    }

    fn shard(&self, id: SessionId) -> MutexGuard<'_, Shard> {
        // The id is random.
        self.shards[usize::from(id.0[0]) % SHARDS].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slot {
    fn new(until: UnixTime) -> Self {
        Self {
            newest: None,
            spent: None,
            renewed: None,
            shared: None,
            underway: None,
            again_at: UnixTime(0),
            failures: 0,
            until,
        }
    }
}

impl Shard {
    /// Forgets what is over, and makes room where there is none.
    fn tidy(&mut self, now: UnixTime) {
        let is_time = now < self.swept_at || now.since(self.swept_at) >= SWEEP;
        if !is_time && self.slots.len() < MAX_SLOTS {
            return;
        }
        self.swept_at = now;
        self.slots.retain(|_, slot| {
            slot.newest = slot.newest.take().filter(|newest| newest.is_wanted(now));
            slot.underway.is_some() || now < slot.until
        });
        self.make_room(MAX_WAITING, |slot| slot.newest.is_some(), |slot| slot.newest = None);
        if self.slots.len() >= MAX_SLOTS {
            // What is forgotten of a spent token is that it was; the provider's own answer ends that session then.
            let mut ends: Vec<_> = self.slots.values().map(|slot| slot.until).collect();
            let (_, earliest, _) = ends.select_nth_unstable(MAX_SLOTS / 8);
            let earliest = *earliest;
            self.slots.retain(|_, slot| slot.underway.is_some() || slot.until > earliest);
        }
    }

    /// Those that wait for a browser longest give way; their people sign in again.
    fn make_room(&mut self, most: usize, is_one: impl Fn(&Slot) -> bool, empty: impl Fn(&mut Slot)) {
        let mut waiting: Vec<_> = self.slots.values().filter(|slot| is_one(slot)).map(Slot::age).collect();
        if waiting.len() <= most {
            return;
        }
        let surplus = waiting.len() - most * 7 / 8;
        let (_, oldest, _) = waiting.select_nth_unstable(surplus);
        let oldest = *oldest;
        self.slots.values_mut().filter(|slot| is_one(slot) && slot.age() <= oldest).for_each(empty);
    }
}

impl Slot {
    fn succeeded(&mut self) {
        self.failures = 0;
        self.again_at = UnixTime(0);
    }

    fn age(&self) -> UnixTime {
        self.newest.as_ref().map_or(UnixTime(0), |newest| newest.wanted_until)
    }
}

#[cfg(test)]
mod tests;
