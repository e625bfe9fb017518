//! Which sessions ended before their cookies expire: by their ids, by what the provider calls them, and by whose they are
//! (OpenID Connect Back-Channel Logout §2.7). In memory. Asked on every signed-in request: one load while nothing has
//! ended, then at most a look-up for each of the three kinds that has entries.
//!
//! What is too much is not forgotten: the oldest entries become "every session from before then has ended".

mod table;
#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use self::table::Table;
use super::marks::{Marks, NameDigest, Turn};
use crate::clock::{SharedClock, UnixTime};

/// The most entries of all kinds; about 100 bytes each.
const CAPACITY: usize = 1_000_000;
/// The most entries that nobody had to prove anything for: whoever makes them up fills nothing but this, and pushes out
/// nothing but the oldest of their kind.
const UNPROVEN: usize = 100_000;
/// Subjects remembered beside one `sid`; more of them stand for everyone.
const MAX_SUBJECTS: usize = 4;
/// How far the clocks of replicas may be apart.
const SKEW: Duration = Duration::from_secs(60);

/// Who says that a session of the provider's has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// The provider, by its signature.
    ByProvider,
    /// Whoever knows the `sid`.
    ByAnyone,
}

/// One session, or one person's of one moment.
#[derive(Debug, Clone, Copy)]
struct Entry {
    /// All sessions that it ends began at this turn or before.
    at: Turn,
    /// When the last of them would have expired.
    until: UnixTime,
}

/// One session of the provider's.
#[derive(Debug, Clone)]
struct Named {
    entry: Entry,
    /// Whose it has to be; empty: anyone's.
    subjects: Vec<NameDigest>,
    told: Told,
}

impl Named {
    fn is_of(&self, subject: NameDigest) -> bool {
        self.subjects.is_empty() || self.subjects.contains(&subject)
    }
}

/// The set, and the order of sign-ins and sign-outs.
#[derive(Debug)]
pub struct EndedSessions {
    clock: SharedClock,
    last_turn: AtomicU64,
    /// Every session that began at this turn or before has ended.
    horizon: AtomicU64,
    ids: Table<Entry>,
    names: Table<Named>,
    subjects: Table<Entry>,
    /// Whether anything has ever ended.
    any: AtomicBool,
    /// Held by whoever writes.
    writing: Mutex<Writing>,
    capacity: usize,
    max_unproven: usize,
}

/// What only writers need.
#[derive(Debug)]
struct Writing {
    /// The shard to look through for what has expired.
    shard: usize,
    /// Entries that nobody proved, at most; what has expired since they were counted is among them.
    unproven: usize,
}

impl EndedSessions {
    /// Nothing has ended.
    pub fn new(clock: SharedClock) -> Self {
        Self::with_capacity(clock, CAPACITY, UNPROVEN)
    }

    fn with_capacity(clock: SharedClock, capacity: usize, max_unproven: usize) -> Self {
        Self {
            clock,
            last_turn: AtomicU64::new(0),
            horizon: AtomicU64::new(0),
            ids: Table::new(),
            names: Table::new(),
            subjects: Table::new(),
            any: AtomicBool::new(false),
            writing: Mutex::new(Writing { shard: 0, unproven: 0 }),
            capacity,
            max_unproven,
        }
    }

    /// The next turn: later than every one before.
    pub fn next_turn(&self) -> Turn {
        let now = self.clock.micros();
        let next = |last: u64| Some(now.max(last.saturating_add(1)));
        let last = self.last_turn.fetch_update(Ordering::AcqRel, Ordering::Acquire, next);
        // The closure never says no, so both arms are the turn before.
        let (Ok(last) | Err(last)) = last;
        Turn(now.max(last.saturating_add(1)))
    }

    /// Whether a session has ended.
    pub fn contains(&self, marks: &Marks) -> bool {
        self.any.load(Ordering::Acquire) && self.holds(marks)
    }

    #[cold]
    fn holds(&self, marks: &Marks) -> bool {
        let is_named = |name: &NameDigest| {
            self.names.any(&name.0, |named| marks.begun <= named.entry.at && named.is_of(marks.subject))
        };
        marks.begun.0 <= self.horizon.load(Ordering::Acquire)
            || self.ids.any(&marks.id.0, |_| true)
            || marks.provider_session.as_ref().is_some_and(is_named)
            || self.subjects.any(&marks.subject.0, |entry| marks.begun <= entry.at)
    }

    /// Ends one session of ours.
    pub fn end(&self, marks: &Marks, until: UnixTime) {
        let mut writing = self.writing();
        // Another replica's clock may have been ahead.
        let at = self.next_turn().max(marks.begun);
        let now = self.tidy(&mut writing);
        self.ids.put(marks.id.0, |entry| entry.until > now, |_| Entry { at, until });
        self.any.store(true, Ordering::Release);
    }

    /// Ends every session of a subject that began before this moment; `lifetime` is the longest that one has.
    pub fn end_subject(&self, subject: NameDigest, lifetime: Duration) {
        let mut writing = self.writing();
        let now = self.tidy(&mut writing);
        let entry = self.entry(now, lifetime);
        self.subjects.put(subject.0, |entry| entry.until > now, |_| entry);
        self.any.store(true, Ordering::Release);
    }

    /// Ends a session by the provider's name for it; only if it is `subject`'s, where one is given.
    pub fn end_named(&self, name: NameDigest, subject: Option<NameDigest>, told: Told, lifetime: Duration) {
        let mut writing = self.writing();
        let now = self.tidy(&mut writing);
        if told == Told::ByAnyone && !self.names.any(&name.0, |_| true) {
            if writing.unproven >= self.max_unproven {
                writing.unproven = self.make_room_for_unproven(now);
            }
            writing.unproven += 1;
        }
        let entry = self.entry(now, lifetime);
        let change = |old: Option<Named>| match old {
            None => Named { entry, subjects: subject.into_iter().collect(), told },
            Some(old) => {
                let told = if old.told == told { told } else { Told::ByProvider };
                let mut subjects = old.subjects;
                match subject {
                    Some(subject) if !subjects.is_empty() && subjects.len() < MAX_SUBJECTS => {
                        if !subjects.contains(&subject) {
                            subjects.push(subject);
                        }
                    }
                    _ => subjects.clear(),
                }
                Named { entry, subjects, told }
            }
        };
        self.names.put(name.0, |named| named.entry.until > now, change);
        self.any.store(true, Ordering::Release);
    }

    /// A session that another replica began may look newer than this moment.
    fn entry(&self, now: UnixTime, lifetime: Duration) -> Entry {
        Entry { at: self.next_turn(), until: now.after(lifetime).after(SKEW) }
    }

    /// Forgets what has expired in one shard of each table, and makes room where there is none.
    fn tidy(&self, writing: &mut Writing) -> UnixTime {
        let now = self.clock.now();
        writing.shard = writing.shard.wrapping_add(1);
        self.drop_entries(Some(writing.shard), |entry| entry.until > now);
        if self.len() >= self.capacity {
            self.drop_entries(None, |entry| entry.until > now);
        }
        if self.len() >= self.capacity {
            self.collapse();
        }
        now
    }

    /// The oldest eighth becomes one moment. People who signed in before it sign in again: what was ended stays ended.
    fn collapse(&self) {
        let mut turns = Vec::with_capacity(self.len());
        self.ids.for_each(|entry| turns.push(entry.at));
        self.names.for_each(|named| turns.push(named.entry.at));
        self.subjects.for_each(|entry| turns.push(entry.at));
        let place = turns.len() / 8;
        let (_, oldest, _) = turns.select_nth_unstable(place);
        let oldest = *oldest;
        // A session that another replica began just before then may look newer.
        let skew = u64::try_from(SKEW.as_micros()).unwrap_or(u64::MAX);
        let horizon = oldest.0.saturating_add(skew).min(self.next_turn().0).max(oldest.0);
        self.horizon.fetch_max(horizon, Ordering::AcqRel);
        self.any.store(true, Ordering::Release);
        self.drop_entries(None, |entry| entry.at > oldest);
        tracing::warn!("more sessions were ended than can be remembered; those from before the oldest have ended too");
    }

    fn drop_entries(&self, at: Option<usize>, keep: impl Fn(&Entry) -> bool) {
        self.ids.retain(at, &keep);
        self.names.retain(at, |named| keep(&named.entry));
        self.subjects.retain(at, &keep);
    }

    /// Forgets what has expired of what nobody proved, and where that is not enough the oldest eighth of it: the news counts,
    /// and a refusal would leave open what has just ended. Looks at all of them, for an eighth of them at a time. Tells how
    /// many are left.
    fn make_room_for_unproven(&self, now: UnixTime) -> usize {
        let mut turns = Vec::new();
        let is_unproven = |named: &Named| named.told == Told::ByAnyone && named.entry.until > now;
        self.names.for_each(|named| turns.extend(is_unproven(named).then_some(named.entry.at)));
        if turns.len() < self.max_unproven {
            return turns.len();
        }
        let place = turns.len() / 8;
        let (older, oldest, _) = turns.select_nth_unstable(place);
        let (dropped, oldest) = (older.len() + 1, *oldest);
        self.names.retain(None, |named| !(is_unproven(named) && named.entry.at <= oldest));
        tracing::warn!("more sessions were ended in frames than can be remembered; the oldest of them are forgotten");
        turns.len() - dropped
    }

    fn writing(&self) -> MutexGuard<'_, Writing> {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn len(&self) -> usize {
        self.ids.len() + self.names.len() + self.subjects.len()
    }
}
