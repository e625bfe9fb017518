//! What replicas tell one another of ended sessions. Each statement goes onto a topic of the store, where it stays until the
//! last session that it could speak of has expired; every replica reads on from where it stopped, so nobody misses anything
//! by being away. After an outage it reads all of it anew and tells whatever it knows and the store does not (any more): a
//! store may come back with less than it had. Whoever can write to the store can sign people out by it, or take back that
//! others did.
//!
//! Until a replica has read all of it once, it knows nobody: what has ended is not to be told apart from what has not.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::runtime;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::{Instant, sleep, timeout};
use tracing::{info, warn};

use super::frame;
use super::statement::{Named, Statement};
use super::{EndedSessions, SKEW, Told};
use crate::clock::SharedClock;
use crate::store::{Position, Store, StoreError, Topic};
use crate::telemetry::chain;

/// How long one question for news waits for some.
const WAIT: Duration = Duration::from_secs(2);
/// How often the store is asked for the time.
const LOOK: Duration = Duration::from_secs(2);
/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(250);
/// Whoever has heard nothing for so long, be it that there was nothing, cannot hear.
const DEAF: Duration = Duration::from_secs(6);
/// How long whoever ended a session waits until all can know.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long a request waits for a replica that has just started.
const STARTING: Duration = Duration::from_secs(5);
/// Statements that wait for a store that is away, at most. What does not fit is told when it is back.
const ROOM: usize = 100_000;
/// Bytes that are told at once, about.
const MESSAGE: usize = 256 * 1024;
/// Statements that nobody proved are told so often in [`WINDOW`], at most: whoever makes them up fills no store with them.
const UNPROVEN: u32 = 1_000;
const WINDOW: Duration = Duration::from_secs(600);
/// As many messages at once are more than what was told a moment ago.
const BACKLOG: usize = 100;

/// One replica's part in it.
#[derive(Debug)]
pub(super) struct Sharing {
    queue: mpsc::UnboundedSender<Said>,
    queued: Arc<AtomicUsize>,
    hearing: Arc<Hearing>,
    /// Of statements that nobody proved: since when they are counted, and how many there were.
    unproven: Mutex<(Instant, u32)>,
}

/// When all that was told was heard last, by the clock's uptime: whoever slept for long has heard nothing for as long.
#[derive(Debug)]
struct Hearing {
    clock: SharedClock,
    begun: Duration,
    /// Milliseconds after that; 0: never yet.
    at: AtomicU64,
    started: Notify,
}

impl Hearing {
    fn is_started(&self) -> bool {
        self.at.load(Ordering::Acquire) > 0
    }

    fn is_heard(&self, at: Duration) {
        let millis = u64::try_from(at.saturating_sub(self.begun).as_millis()).unwrap_or(u64::MAX).max(1);
        self.at.store(millis, Ordering::Release);
        self.started.notify_waiters();
    }
}

#[derive(Debug)]
struct Said {
    statement: Statement,
    told: oneshot::Sender<()>,
}

impl Sharing {
    /// Hears of what others end, and tells what is ended here; for as long as `ended` lives. `lifetime` is the longest that
    /// a session has.
    pub(super) fn start(
        ended: &Arc<EndedSessions>,
        store: Store,
        lifetime: Duration,
        control: &runtime::Handle,
    ) -> Self {
        let (queue, said) = mpsc::unbounded_channel();
        let clock = Arc::clone(&ended.clock);
        let hearing = Hearing { begun: clock.uptime(), clock, at: AtomicU64::new(0), started: Notify::new() };
        let hearing = Arc::new(hearing);
        let queued = Arc::new(AtomicUsize::new(0));
        let listener = Listener { ended: Arc::downgrade(ended), store: store.clone(), hearing: Arc::clone(&hearing) };
        let speaker = Speaker { store, said, queued: Arc::clone(&queued), keep: lifetime + SKEW };
        control.spawn(listener.run());
        control.spawn(speaker.run());
        Self { queue, queued, hearing, unproven: Mutex::new((Instant::now(), 0)) }
    }

    /// Never blocks.
    pub(super) fn tell(&self, statement: Statement) -> Option<oneshot::Receiver<()>> {
        if !self.may_be_told(&statement) {
            return None;
        }
        // Full, the store has been away for long: all of it is told when it is back.
        if self.queued.fetch_add(1, Ordering::AcqRel) >= ROOM {
            self.queued.fetch_sub(1, Ordering::AcqRel);
            return None;
        }
        let (told, waiting) = oneshot::channel();
        self.queue.send(Said { statement, told }).ok().map(|()| waiting)
    }

    fn may_be_told(&self, statement: &Statement) -> bool {
        if !matches!(statement, Statement::Name(_, Named { told: Told::ByAnyone, .. })) {
            return true;
        }
        let mut unproven = self.unproven.lock().unwrap_or_else(PoisonError::into_inner);
        if unproven.0.elapsed() >= WINDOW {
            *unproven = (Instant::now(), 0);
        }
        unproven.1 = unproven.1.saturating_add(1);
        unproven.1 <= UNPROVEN
    }

    /// Whether what others ended is known here, but for what was ended within `grace`; `None`: not yet.
    pub(super) fn is_current(&self, grace: Duration) -> Option<bool> {
        let at = Some(self.hearing.at.load(Ordering::Acquire)).filter(|at| *at > 0)?;
        let up = self.hearing.clock.uptime().saturating_sub(self.hearing.begun);
        let age = up.saturating_sub(Duration::from_millis(at));
        Some(age < grace.max(DEAF))
    }

    /// Waits until all that was told has been heard once; for some seconds at most.
    pub(super) async fn started(&self) {
        let started = self.hearing.started.notified();
        if !self.hearing.is_started() {
            // Whoever asks looks again.
            let _ = timeout(STARTING, started).await;
        }
    }
}

/// Waits until everybody can know; for a second at most.
pub(super) async fn wait(told: Option<oneshot::Receiver<()>>) {
    if let Some(told) = told {
        // It is told as soon as that can be, whoever waits.
        let _ = timeout(PATIENCE, told).await;
    }
}

struct Listener {
    ended: Weak<EndedSessions>,
    store: Store,
    hearing: Arc<Hearing>,
}

impl Listener {
    async fn run(self) {
        let mut round = Round::default();
        let mut is_away = false;
        let mut looked: Option<Duration> = None;
        loop {
            let now = self.hearing.clock.uptime();
            // Before anything is heard: whoever begins a session here is told from those before.
            if looked.is_none_or(|looked| now.saturating_sub(looked) >= LOOK) {
                looked = Some(now);
                // Where it does not answer, what is known is counted on.
                _ = self.look_at_clock().await;
            }
            let begun = self.hearing.clock.uptime();
            match self.read(&round).await {
                Ok((said, is_current, position)) => {
                    let Some(ended) = self.ended.upgrade() else { return };
                    round.take(said, position, &ended);
                    if round.is_complete && is_current {
                        self.hearing.is_heard(begun);
                    }
                    if round.is_complete && std::mem::take(&mut is_away) {
                        info!("what other replicas end is heard again");
                    }
                }
                Err(error) => {
                    if self.ended.strong_count() == 0 {
                        return;
                    }
                    round = Round::default();
                    if !std::mem::replace(&mut is_away, true) {
                        warn!(reason = "ended_unheard", error = chain(&error), "what other replicas end is not heard");
                    }
                    sleep(PAUSE).await;
                }
            }
        }
    }
}

impl Listener {
    /// What was said since, whether that is all, and where to go on.
    async fn read(&self, round: &Round) -> Result<(Vec<Statement>, bool, Position), StoreError> {
        let wait = if round.is_complete { WAIT } else { Duration::from_millis(1) };
        let news = self.store.read(Topic::Ended, round.position.clone(), wait).await?;
        let is_current = news.messages.len() < BACKLOG;
        let said: Vec<_> = news.messages.iter().flat_map(|message| statements(message)).collect();
        // Either their clock is ahead, or ours stood still: a machine that slept would cut short what others ended meanwhile.
        let latest = self.ended.upgrade().map(|ended| ended.latest_heard());
        if latest.is_some_and(|latest| said.iter().any(|statement| statement.turn() > latest)) {
            self.look_at_clock().await?;
        }
        Ok((said, is_current, news.position))
    }

    async fn look_at_clock(&self) -> Result<(), StoreError> {
        let asked = self.hearing.clock.uptime();
        let time = self.store.time().await?;
        if let Some(ended) = self.ended.upgrade() {
            ended.timeline.heard(time, asked, self.hearing.clock.uptime());
        }
        Ok(())
    }
}

fn statements(message: &[u8]) -> Vec<Statement> {
    let content = frame::read(message);
    if content.damaged {
        warn!(reason = "ended_unreadable", "a replica of another version told what cannot be read");
    }
    content.statements
}

/// One reading of all that was told, and then of what follows. It begins with the first answer: a store that is away is asked
/// again and again, and what is known here may be a hundred thousand statements.
#[derive(Default)]
struct Round {
    position: Option<Position>,
    /// What was known here at its beginning, and has not been heard in it.
    untold: HashSet<Vec<u8>>,
    is_complete: bool,
}

impl Round {
    fn take(&mut self, said: Vec<Statement>, position: Position, ended: &EndedSessions) {
        if self.position.is_none() {
            ended.for_each(|statement| _ = self.untold.insert(statement.encode()));
        }
        // Nothing new, though what there is may be no message of ours.
        let is_end = said.is_empty() && self.position.as_ref() == Some(&position);
        for statement in said {
            self.untold.remove(&statement.encode());
            ended.hear(statement);
        }
        self.position = Some(position);
        if is_end && !self.is_complete {
            self.is_complete = true;
            for statement in self.untold.drain().filter_map(|bytes| Statement::decode(&bytes)) {
                ended.tell(statement);
            }
        }
    }
}

struct Speaker {
    store: Store,
    said: mpsc::UnboundedReceiver<Said>,
    queued: Arc<AtomicUsize>,
    keep: Duration,
}

impl Speaker {
    async fn run(mut self) {
        while let Some(first) = self.said.recv().await {
            self.tell(first).await;
        }
    }

    /// Tells it, and what else there is, however long that takes.
    async fn tell(&mut self, first: Said) {
        let mut message = frame::HEADER.to_vec();
        let mut waiting = Vec::new();
        let mut next = Some(first);
        while let Some(Said { statement, told }) = next {
            frame::write(&mut message, &statement);
            waiting.push(told);
            next = if message.len() < MESSAGE { self.said.try_recv().ok() } else { None };
        }
        self.publish(&message).await;
        self.queued.fetch_sub(waiting.len(), Ordering::AcqRel);
        for told in waiting {
            // Whoever has gone does not need to know.
            let _ = told.send(());
        }
    }

    async fn publish(&self, message: &[u8]) {
        let mut was_away = false;
        while let Err(error) = self.store.publish(Topic::Ended, message.to_vec(), self.keep).await {
            if !std::mem::replace(&mut was_away, true) {
                warn!(reason = "ended_untold", error = chain(&error), "other replicas are not told what has ended");
            }
            sleep(PAUSE).await;
        }
        if was_away {
            info!("other replicas are told again what has ended");
        }
    }
}
