//! Which sessions ended before their cookies expire: by their ids, by what the provider calls them, by whose they are
//! (OpenID Connect Back-Channel Logout §2.7), and by the provider they are of. In memory, and in a file where there is a folder for it. Asked on every
//! signed-in request: one load while nothing has ended, then at most a look-up for each of the four kinds that has entries.
//!
//! What is too much is not forgotten: the oldest entries become "every session from before then has ended".

mod frame;
mod journal;
mod keeper;
mod sharing;
mod spool;
mod statement;
mod table;
#[cfg(test)]
mod tests;
mod timeline;

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use serde::{Deserialize, Serialize};
use tokio::runtime;

use self::journal::Journal;
pub use self::journal::JournalError;
use self::keeper::Keeper;
use self::sharing::Sharing;
pub use self::spool::Written;
use self::statement::{Entry, Named, Statement};
use self::table::{Key, Table};
use self::timeline::Timeline;
use super::SessionId;
use super::marks::{Marks, NameDigest, Turn};
use crate::authn::oidc::Party;
use crate::clock::{SharedClock, UnixTime};
use crate::store::Store;

/// The most entries of all kinds; about 100 bytes each.
const CAPACITY: usize = 1_000_000;
/// The most entries that nobody had to prove anything for: whoever makes them up fills nothing but this, and pushes out
/// nothing but the oldest of their kind.
const UNPROVEN: usize = 100_000;
/// The most names of the provider's sessions that are remembered to have begun here; the oldest are forgotten first. About 100
/// bytes each.
const BEGUN: u64 = 100_000;
/// Subjects remembered beside one `sid`; more of them stand for everyone.
const MAX_SUBJECTS: usize = 4;
/// How far the clocks of replicas may be apart.
pub(super) const SKEW: Duration = Duration::from_secs(60);

/// Who says that a session of the provider's has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Told {
    /// The provider, by its signature, or whoever knows the name of a session that is no invention.
    ByProvider,
    /// Whoever knows the `sid`, which may be made up.
    ByAnyone,
}

/// The set, and the order of sign-ins and sign-outs.
#[derive(Debug)]
pub struct EndedSessions {
    clock: SharedClock,
    timeline: Timeline,
    last_turn: AtomicU64,
    /// Every session that began at this turn or before has ended.
    horizon: AtomicU64,
    ids: Table<Entry>,
    names: Table<Named>,
    subjects: Table<Entry>,
    parties: Table<Entry>,
    /// Whether anything has ever ended.
    any: AtomicBool,
    /// Names that sign-ins brought, so nobody made them up: whoever says that one of these has ended is not taken for one of
    /// those who fill the room of what nobody proved, and what they said is not pushed out with that.
    begun: Cache<Key, ()>,
    /// Held by whoever writes.
    writing: Mutex<Writing>,
    /// With other replicas.
    sharing: OnceLock<Sharing>,
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
    /// Where all of it is written down.
    journal: Option<Journal>,
}

impl EndedSessions {
    /// Nothing has ended.
    pub fn new(clock: SharedClock) -> Self {
        Self::with_capacity(clock, CAPACITY, UNPROVEN)
    }

    /// What has ended before, and whatever will, kept in `folder`. Where part of that cannot be read any more, every session
    /// that began before this moment has ended. Blocks.
    ///
    /// # Errors
    /// [`JournalError`].
    pub fn kept_in(folder: &Path, clock: SharedClock) -> Result<Arc<Self>, JournalError> {
        let ended = Self::new(clock);
        let found = journal::find(folder)?;
        let is_damaged = found.contents.iter().any(|content| content.damaged);
        ended.load(found.contents.iter().flat_map(|content| &content.statements));
        let mut writing = ended.writing();
        if is_damaged {
            ended.end_before(ended.next_turn());
            let folder = folder.display();
            tracing::error!(reason = "ended_damaged", %folder, "part of the ended sessions cannot be read: everybody signs in again");
        }
        ended.tidy(&mut writing);
        // What was forgotten to make room may be among it: counted, so that it is bounded here too.
        writing.unproven = ended.make_room_for_unproven(ended.clock.now());
        let kept = found.open(&ended.snapshot())?;
        drop(writing);
        ended.written_by(kept).map_err(|source| JournalError::File { path: folder.to_owned(), source })
    }

    /// Starts the thread that writes it down.
    fn written_by(self, (journal, keeper): (Journal, Keeper)) -> io::Result<Arc<Self>> {
        self.writing().journal = Some(journal);
        let ended = Arc::new(self);
        let kept = Arc::downgrade(&ended);
        std::thread::Builder::new().name("ended".to_owned()).spawn(move || keeper.run(&kept))?;
        Ok(ended)
    }

    /// Of an empty set.
    fn load<'a>(&self, statements: impl Iterator<Item = &'a Statement>) {
        let now = self.clock.now();
        let (mut ids, mut subjects, mut names, mut parties) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for statement in statements.filter(|statement| statement.counts(now)) {
            self.last_turn.fetch_max(statement.turn().0, Ordering::AcqRel);
            match statement {
                Statement::Id(key, entry) => ids.push((*key, *entry)),
                Statement::Subject(key, entry) => subjects.push((*key, *entry)),
                Statement::Name(key, named) => names.push((*key, named.clone())),
                Statement::Horizon(turn) => self.end_before(*turn),
                Statement::Party(key, entry) => parties.push((*key, *entry)),
            }
        }
        self.ids.fill(ids, Entry::and);
        self.subjects.fill(subjects, Entry::and);
        self.parties.fill(parties, Entry::and);
        self.names.fill(names, |old, new| old.and(&new));
        if self.len() > 0 {
            self.any.store(true, Ordering::Release);
        }
    }

    /// All of it as a file has it.
    fn snapshot(&self) -> Vec<u8> {
        let mut bytes = frame::HEADER.to_vec();
        self.for_each(|statement| frame::write(&mut bytes, statement));
        bytes
    }

    /// All of it, a statement at a time.
    fn for_each(&self, mut see: impl FnMut(&Statement)) {
        let horizon = self.horizon.load(Ordering::Acquire);
        if horizon > 0 {
            see(&Statement::Horizon(Turn(horizon)));
        }
        self.ids.for_each(|key, entry| see(&Statement::Id(*key, *entry)));
        self.subjects.for_each(|key, entry| see(&Statement::Subject(*key, *entry)));
        self.names.for_each(|key, named| see(&Statement::Name(*key, named.clone())));
        self.parties.for_each(|key, entry| see(&Statement::Party(*key, *entry)));
    }

    /// What a process keeps of the bytes of a file, in the form of one, and whether any of them was damaged. A door for
    /// `tests/fuzz` and for samples of what older releases wrote.
    pub fn kept_of(bytes: &[u8], clock: SharedClock) -> (Vec<u8>, bool) {
        let (ended, content) = (Self::new(clock), frame::read(bytes));
        ended.load(content.statements.iter());
        (ended.snapshot(), content.damaged)
    }

    /// The same without what has expired. Whatever is taken off the journal before is in it.
    fn tidy_snapshot(&self) -> Vec<u8> {
        let writing = self.writing();
        let now = self.clock.now();
        self.drop_entries(None, |entry| entry.until > now);
        drop(writing);
        self.snapshot()
    }

    fn with_capacity(clock: SharedClock, capacity: usize, max_unproven: usize) -> Self {
        Self {
            timeline: Timeline::new(Arc::clone(&clock)),
            clock,
            last_turn: AtomicU64::new(0),
            horizon: AtomicU64::new(0),
            ids: Table::new(),
            names: Table::new(),
            subjects: Table::new(),
            parties: Table::new(),
            any: AtomicBool::new(false),
            begun: Cache::builder().max_capacity(BEGUN).eviction_policy(EvictionPolicy::lru()).build(),
            writing: Mutex::new(Writing { shard: 0, unproven: 0, journal: None }),
            sharing: OnceLock::new(),
            capacity,
            max_unproven,
        }
    }

    /// When a session begins that begins now: the earliest moment that this can be, for any replica.
    pub fn beginning(&self) -> Turn {
        self.timeline.now().map_or_else(|| self.next_turn(), |(earliest, _)| Turn(earliest))
    }

    /// When sessions end that end now: the latest moment that this can be, for any replica.
    fn ending(&self) -> Turn {
        self.timeline.now().map_or_else(|| self.next_turn(), |(_, latest)| Turn(latest))
    }

    /// The next turn here: later than every one before.
    fn next_turn(&self) -> Turn {
        let now = self.clock.micros();
        let next = |last: u64| Some(now.max(last.saturating_add(1)));
        let last = self.last_turn.fetch_update(Ordering::AcqRel, Ordering::Acquire, next);
        // The closure never says no, so both arms are the turn before.
        let (Ok(last) | Err(last)) = last;
        Turn(now.max(last.saturating_add(1)))
    }

    /// Whether a session of `party` has ended.
    pub fn contains(&self, marks: &Marks, party: Party) -> bool {
        self.any.load(Ordering::Acquire) && self.holds(marks, party)
    }

    /// Whether the session with this id has ended, as far as that is known by the id alone.
    pub fn contains_id(&self, id: SessionId) -> bool {
        self.ids.any(&id.0, |_| true)
    }

    #[cold]
    fn holds(&self, marks: &Marks, party: Party) -> bool {
        let is_named = |name: &NameDigest| {
            self.names.any(&name.0, |named| marks.begun <= named.entry.at && named.is_of(marks.subject))
        };
        marks.begun.0 <= self.horizon.load(Ordering::Acquire)
            || self.ids.any(&marks.id.0, |_| true)
            || marks.provider_session.as_ref().is_some_and(is_named)
            || self.subjects.any(&marks.subject.0, |entry| marks.begun <= entry.at)
            || self.parties.any(party.as_bytes(), |entry| marks.begun <= entry.at)
    }

    /// A sign-in here brought this name.
    pub fn began(&self, name: NameDigest) {
        self.begun.insert(name.0, ());
    }

    /// Ends one session of ours.
    pub fn end(&self, marks: &Marks, until: UnixTime) -> Written {
        let mut writing = self.writing();
        // Another replica's clock may have been ahead.
        let at = self.ending().max(marks.begun);
        self.tidy(&mut writing);
        self.state(&writing, Statement::Id(marks.id.0, Entry { at, until }))
    }

    /// Ends one session of ours of which only the id is known.
    pub fn end_id(&self, id: SessionId, until: UnixTime) -> Written {
        let mut writing = self.writing();
        let at = self.ending();
        self.tidy(&mut writing);
        self.state(&writing, Statement::Id(id.0, Entry { at, until }))
    }

    /// Ends every session of a subject that began by then and before this moment; `lifetime` is the longest that one has.
    pub fn end_subject(&self, subject: NameDigest, (begun_by, lifetime): (UnixTime, Duration)) -> Written {
        let mut writing = self.writing();
        let now = self.tidy(&mut writing);
        let entry = self.entry(now, begun_by, lifetime);
        self.state(&writing, Statement::Subject(subject.0, entry))
    }

    /// Ends every session of a provider and client that began before this moment; `lifetime` is the longest that one has.
    pub fn end_party(&self, party: Party, lifetime: Duration) -> Written {
        let mut writing = self.writing();
        let now = self.tidy(&mut writing);
        let entry = self.entry(now, now, lifetime);
        self.state(&writing, Statement::Party(*party.as_bytes(), entry))
    }

    /// Ends every session that began before this moment.
    pub fn end_all(&self) -> Written {
        let mut writing = self.writing();
        self.tidy(&mut writing);
        let turn = self.ending();
        self.state(&writing, Statement::Horizon(turn))
    }

    /// Ends a session by the provider's name for it, if it began by then and before this moment; only if it is `subject`'s,
    /// where one is given. `lifetime` is the longest that it has.
    pub fn end_named(
        &self,
        name: NameDigest,
        subject: Option<NameDigest>,
        told: Told,
        (begun_by, lifetime): (UnixTime, Duration),
    ) -> Written {
        let mut writing = self.writing();
        let now = self.tidy(&mut writing);
        let told = self.believed(&name.0, told);
        if told == Told::ByAnyone {
            self.count_unproven(&mut writing, name.0, now);
        }
        let named = Named { entry: self.entry(now, begun_by, lifetime), subjects: subject.into_iter().collect(), told };
        self.state(&writing, Statement::Name(name.0, named))
    }

    /// What counts of the word that a session with this name has ended.
    fn believed(&self, name: &Key, told: Told) -> Told {
        if self.begun.contains_key(name) { Told::ByProvider } else { told }
    }

    /// Tells other replicas what is ended here, and hears of what they end; once. `lifetime` is the longest that a session has.
    pub fn share(self: &Arc<Self>, store: Store, lifetime: Duration, control: &runtime::Handle) {
        self.timeline.share();
        self.sharing.get_or_init(|| Sharing::start(self, store, lifetime, control));
    }

    /// Whether what other replicas ended is known here, but for what they ended within `grace`; `None`: not yet, see
    /// [`EndedSessions::started`].
    pub fn is_current(&self, grace: Duration) -> Option<bool> {
        self.sharing.get().map_or(Some(true), |sharing| sharing.is_current(grace))
    }

    /// Waits until what other replicas ended before was heard, for some seconds at most.
    pub async fn started(&self) {
        if let Some(sharing) = self.sharing.get() {
            sharing.started().await;
        }
    }

    /// The latest moment that another replica can speak of. By the store's clock, or by ours where that is ahead: the store's may
    /// have been set back since, and what began before that is still to end. Whoever has both wrong signs people in once more.
    fn latest_heard(&self) -> Turn {
        let own = self.clock.micros();
        let latest = self.timeline.now().map_or(own, |(_, latest)| latest.max(own));
        Turn(latest.saturating_add(SKEW.as_micros() as u64))
    }

    /// What another replica says. A clock that is ahead of ours does not end sessions that begin here later.
    fn hear(&self, statement: Statement) {
        let mut writing = self.writing();
        let now = self.tidy(&mut writing);
        let mut statement = statement.no_later_than(self.latest_heard());
        let mut is_news = false;
        if let Statement::Name(name, named) = &mut statement {
            let told = self.believed(name, named.told);
            is_news = told != named.told;
            named.told = told;
        }
        if !statement.counts(now) || self.says(&statement) {
            return;
        }
        if is_news {
            // Proven here, which others cannot know.
            self.tell(statement.clone());
        }
        self.last_turn.fetch_max(statement.turn().0, Ordering::AcqRel);
        if let Statement::Name(name, Named { told: Told::ByAnyone, .. }) = &statement {
            self.count_unproven(&mut writing, *name, now);
        }
        // Nobody here waits for it.
        drop(self.take(&writing, statement));
    }

    /// Whether the set says as much already.
    fn says(&self, statement: &Statement) -> bool {
        match statement {
            Statement::Id(id, entry) => self.ids.any(id, |old| old.and(*entry) == *old),
            Statement::Subject(subject, entry) => self.subjects.any(subject, |old| old.and(*entry) == *old),
            Statement::Name(name, named) => self.names.any(name, |old| old.clone().and(named) == *old),
            Statement::Horizon(turn) => turn.0 <= self.horizon.load(Ordering::Acquire),
            Statement::Party(party, entry) => self.parties.any(party, |old| old.and(*entry) == *old),
        }
    }

    /// Takes it into the set, has it written down, and tells other replicas.
    fn state(&self, writing: &Writing, statement: Statement) -> Written {
        let told = self.sharing.get().and_then(|sharing| sharing.tell(statement.clone()));
        self.take(writing, statement).and_told(told)
    }

    /// Tells other replicas what they may not know of the time before.
    fn tell(&self, statement: Statement) {
        if let Some(sharing) = self.sharing.get() {
            // Nobody waits for it.
            drop(sharing.tell(statement));
        }
    }

    /// Takes it into the set, and then has it written down: so whatever is written down is in the set.
    fn take(&self, writing: &Writing, statement: Statement) -> Written {
        let now = self.clock.now();
        let is_live = |entry: &Entry| entry.until > now;
        match statement.clone() {
            Statement::Id(id, entry) => self.ids.put(id, is_live, |old| old.map_or(entry, |old| old.and(entry))),
            Statement::Subject(subject, entry) => {
                self.subjects.put(subject, is_live, |old| old.map_or(entry, |old| old.and(entry)));
            }
            Statement::Name(name, named) => {
                let change = |old: Option<Named>| match old {
                    Some(old) => old.and(&named),
                    None => named,
                };
                self.names.put(name, |named| is_live(&named.entry), change);
            }
            Statement::Horizon(turn) => self.end_before(turn),
            Statement::Party(party, entry) => {
                self.parties.put(party, is_live, |old| old.map_or(entry, |old| old.and(entry)));
            }
        }
        self.any.store(true, Ordering::Release);
        writing.journal.as_ref().map_or_else(Written::nowhere, |journal| journal.say(&statement))
    }

    fn count_unproven(&self, writing: &mut Writing, name: Key, now: UnixTime) {
        if !self.names.any(&name, |_| true) {
            if writing.unproven >= self.max_unproven {
                writing.unproven = self.make_room_for_unproven(now);
            }
            writing.unproven += 1;
        }
    }

    /// How many were ended whose writing down nobody could wait for: a restart may have forgotten them.
    pub fn unwritten(&self) -> u64 {
        self.writing().journal.as_ref().map_or(0, Journal::unwritten)
    }

    fn end_before(&self, turn: Turn) {
        self.horizon.fetch_max(turn.0, Ordering::AcqRel);
        self.any.store(true, Ordering::Release);
    }

    /// What is told at once ends whatever began before this moment, by the order of turns: whoever signs out and in again
    /// within a second is signed in. What comes late ends nothing that began after `begun_by`, which is later than when it was
    /// said by as much as clocks may be apart: rather one more sign-in of those who came back in these seconds than a session
    /// that goes on although it has ended.
    fn entry(&self, now: UnixTime, begun_by: UnixTime, lifetime: Duration) -> Entry {
        let at = self.ending();
        let at = if begun_by < now { at.min(Turn(begun_by.0.saturating_mul(1_000_000))) } else { at };
        // A session that another replica began may look newer than this moment.
        Entry { at, until: now.after(lifetime).after(SKEW) }
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
            self.collapse(writing);
        }
        now
    }

    /// The oldest eighth becomes one moment. People who signed in before it sign in again: what was ended stays ended.
    fn collapse(&self, writing: &Writing) {
        let mut turns = Vec::with_capacity(self.len());
        self.ids.for_each(|_, entry| turns.push(entry.at));
        self.names.for_each(|_, named| turns.push(named.entry.at));
        self.subjects.for_each(|_, entry| turns.push(entry.at));
        self.parties.for_each(|_, entry| turns.push(entry.at));
        let place = turns.len() / 8;
        let (_, oldest, _) = turns.select_nth_unstable(place);
        let oldest = *oldest;
        // A session that another replica began just before then may look newer.
        let skew = u64::try_from(SKEW.as_micros()).unwrap_or(u64::MAX);
        let horizon = oldest.0.saturating_add(skew).min(self.ending().0).max(oldest.0);
        // Whoever ends a session now waits for what is said after it.
        drop(self.state(writing, Statement::Horizon(Turn(horizon))));
        self.drop_entries(None, |entry| entry.at > oldest);
        tracing::warn!("more sessions were ended than can be remembered; those from before the oldest have ended too");
    }

    fn drop_entries(&self, at: Option<usize>, keep: impl Fn(&Entry) -> bool) {
        self.ids.retain(at, &keep);
        self.names.retain(at, |named| keep(&named.entry));
        self.subjects.retain(at, &keep);
        self.parties.retain(at, &keep);
    }

    /// Forgets what has expired of what nobody proved, and where that is not enough the oldest eighth of it: the news counts,
    /// and a refusal would leave open what has just ended. Looks at all of them, for an eighth of them at a time. Tells how
    /// many are left.
    fn make_room_for_unproven(&self, now: UnixTime) -> usize {
        let mut turns = Vec::new();
        let is_unproven = |named: &Named| named.told == Told::ByAnyone && named.entry.until > now;
        self.names.for_each(|_, named| turns.extend(is_unproven(named).then_some(named.entry.at)));
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
        self.ids.len() + self.names.len() + self.subjects.len() + self.parties.len()
    }
}
