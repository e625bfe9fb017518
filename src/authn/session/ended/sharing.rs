//! What replicas tell one another of ended sessions. Each statement goes onto a topic of the store, where it stays until the
//! last session that it could speak of has expired; every replica reads on from where it stopped, so nobody misses anything
//! by being away. Whoever can write to the store can sign people out by it, and do nothing else.
//!
//! Until a replica has read all of it once, it knows nobody: what has ended is not to be told apart from what has not.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::sync::Weak;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::runtime;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::{Instant, sleep, timeout};
use tracing::{info, warn};

use super::frame;
use super::statement::Statement;
use super::{EndedSessions, SKEW};
use crate::store::{Store, Topic};
use crate::telemetry::chain;

/// How long one question for news waits for some.
const WAIT: Duration = Duration::from_secs(2);
/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(250);
/// Whoever has heard nothing for so long, be it that there was nothing, cannot hear.
const DEAF: Duration = Duration::from_secs(6);
/// How long whoever ended a session waits until all can know.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long a request waits for a replica that has just started.
const STARTING: Duration = Duration::from_secs(5);
/// Statements that wait for a store that is away, at most. Beyond that the whole set is told when it is back.
const ROOM: usize = 100_000;
/// Bytes that are told at once, about.
const MESSAGE: usize = 256 * 1024;
/// What a store may lose when it fails over.
const UNSURE: Duration = Duration::from_secs(120);

/// One replica's part in it.
#[derive(Debug)]
pub(super) struct Sharing {
    queue: mpsc::UnboundedSender<Said>,
    queued: Arc<AtomicUsize>,
    overflowed: Arc<AtomicBool>,
    hearing: Arc<Hearing>,
}

/// When all that was told was heard last.
#[derive(Debug)]
struct Hearing {
    begun: Instant,
    /// Milliseconds after that; 0: never yet.
    at: AtomicU64,
    started: Notify,
}

impl Hearing {
    fn is_started(&self) -> bool {
        self.at.load(Ordering::Acquire) > 0
    }

    fn is_heard(&self, at: Instant) {
        let millis = u64::try_from((at - self.begun).as_millis()).unwrap_or(u64::MAX).max(1);
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
        let hearing = Hearing { begun: Instant::now(), at: AtomicU64::new(0), started: Notify::new() };
        let hearing = Arc::new(hearing);
        let (queued, overflowed) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let again = Arc::new(Notify::new());
        let listener = Listener {
            ended: Arc::downgrade(ended),
            store: store.clone(),
            again: Arc::clone(&again),
            hearing: Arc::clone(&hearing),
        };
        let speaker = Speaker {
            ended: Arc::downgrade(ended),
            store,
            said,
            again,
            queued: Arc::clone(&queued),
            overflowed: Arc::clone(&overflowed),
            keep: lifetime + SKEW,
            recent: VecDeque::new(),
        };
        control.spawn(listener.run());
        control.spawn(speaker.run());
        Self { queue, queued, overflowed, hearing }
    }

    /// Never blocks.
    pub(super) fn tell(&self, statement: Statement) -> Option<oneshot::Receiver<()>> {
        if self.queued.fetch_add(1, Ordering::AcqRel) >= ROOM {
            self.queued.fetch_sub(1, Ordering::AcqRel);
            self.overflowed.store(true, Ordering::Release);
            return None;
        }
        let (told, waiting) = oneshot::channel();
        self.queue.send(Said { statement, told }).ok().map(|()| waiting)
    }

    /// Whether what others ended is known here, but for what was ended within `grace`; `None`: not yet.
    pub(super) fn is_current(&self, grace: Duration) -> Option<bool> {
        let at = Some(self.hearing.at.load(Ordering::Acquire)).filter(|at| *at > 0)?;
        let age = self.hearing.begun.elapsed().saturating_sub(Duration::from_millis(at));
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
    again: Arc<Notify>,
    hearing: Arc<Hearing>,
}

impl Listener {
    async fn run(self) {
        let mut position = None;
        let mut is_away = false;
        // What is known here of the time before, and is not told yet.
        let mut before = self.ended.upgrade().map_or_else(HashSet::new, |ended| {
            frame::read(&ended.snapshot()).statements.iter().map(Statement::encode).collect()
        });
        loop {
            let started = self.hearing.is_started();
            let wait = if started { WAIT } else { Duration::from_millis(1) };
            let begun = Instant::now();
            match self.store.read(Topic::Ended, position.clone(), wait).await {
                Ok(news) => {
                    let Some(ended) = self.ended.upgrade() else { return };
                    let is_all = news.messages.is_empty();
                    for message in &news.messages {
                        let content = frame::read(message);
                        if content.damaged {
                            warn!(reason = "ended_unreadable", "a replica of another version told what cannot be read");
                        }
                        for statement in content.statements {
                            before.remove(&statement.encode());
                            ended.hear(statement);
                        }
                    }
                    position = Some(news.position);
                    if started || is_all {
                        self.hearing.is_heard(begun);
                    }
                    if is_all && !started {
                        for statement in before.drain().filter_map(|bytes| Statement::decode(&bytes)) {
                            ended.tell(statement);
                        }
                    }
                    if std::mem::take(&mut is_away) {
                        info!("what other replicas end is heard again");
                        self.again.notify_one();
                    }
                }
                Err(error) => {
                    if self.ended.strong_count() == 0 {
                        return;
                    }
                    if !std::mem::replace(&mut is_away, true) {
                        warn!(reason = "ended_unheard", error = chain(&error), "what other replicas end is not heard");
                    }
                    sleep(PAUSE).await;
                }
            }
        }
    }
}

struct Speaker {
    ended: Weak<EndedSessions>,
    store: Store,
    said: mpsc::UnboundedReceiver<Said>,
    again: Arc<Notify>,
    queued: Arc<AtomicUsize>,
    overflowed: Arc<AtomicBool>,
    keep: Duration,
    /// What a fail-over could take back.
    recent: VecDeque<(Instant, Vec<u8>)>,
}

impl Speaker {
    async fn run(mut self) {
        loop {
            tokio::select! {
                first = self.said.recv() => {
                    let Some(first) = first else { return };
                    if self.tell(first).await {
                        self.tell_again().await;
                    }
                }
                () = self.again.notified() => self.tell_again().await,
            }
        }
    }

    /// Tells it, and what else there is, however long that takes. Says whether the store was away meanwhile.
    async fn tell(&mut self, first: Said) -> bool {
        let mut message = frame::HEADER.to_vec();
        let mut waiting = Vec::new();
        let mut next = Some(first);
        while let Some(Said { statement, told }) = next {
            frame::write(&mut message, &statement);
            waiting.push(told);
            next = if message.len() < MESSAGE { self.said.try_recv().ok() } else { None };
        }
        let was_away = self.publish(&message).await;
        self.queued.fetch_sub(waiting.len(), Ordering::AcqRel);
        for told in waiting {
            // Whoever has gone does not need to know.
            let _ = told.send(());
        }
        self.recent.push_back((Instant::now(), message));
        self.recent.retain(|(at, _)| at.elapsed() < UNSURE);
        was_away
    }

    /// A store that was away may have lost what it had acknowledged a moment before.
    async fn tell_again(&mut self) {
        self.recent.retain(|(at, _)| at.elapsed() < UNSURE);
        for (_, message) in self.recent.clone() {
            self.publish(&message).await;
        }
        if self.overflowed.swap(false, Ordering::AcqRel)
            && let Some(snapshot) = self.ended.upgrade().map(|ended| ended.snapshot())
        {
            let mut message = frame::HEADER.to_vec();
            for statement in frame::read(&snapshot).statements {
                frame::write(&mut message, &statement);
                if message.len() >= MESSAGE {
                    self.publish(&message).await;
                    message.truncate(frame::HEADER.len());
                }
            }
            self.publish(&message).await;
        }
    }

    async fn publish(&self, message: &[u8]) -> bool {
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
        was_away
    }
}
