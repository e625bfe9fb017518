//! From whoever ends a session to the thread that writes it down. Nobody who ends one holds a worker for a disk: what is said
//! is put in here, and whoever said it waits, as a task and for a moment at most, until the system has it.

use std::fmt::Display;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::timeout;

use super::frame;
use super::sharing;
use super::statement::Statement;

/// Bytes that wait to be written, at most; some ten thousand statements.
pub(super) const ROOM: usize = 1 << 20;
/// How long anybody waits for the system.
pub(super) const PATIENCE: Duration = Duration::from_secs(1);

/// What is said and not written yet.
#[derive(Debug)]
pub(super) struct Spool {
    path: PathBuf,
    state: Mutex<State>,
    news: Condvar,
    /// Statements whose speakers went on before they were written.
    unwritten: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    said: Said,
    /// What was taken is not written yet.
    working: bool,
    /// Something was not written in time: nobody waits for what comes after it.
    behind: bool,
    closed: bool,
}

/// Some of it, in the order in which it was said.
#[derive(Debug, Default)]
pub(super) struct Said {
    pub(super) records: Vec<u8>,
    /// Whoever waits for it.
    pub(super) waiting: Vec<oneshot::Sender<()>>,
    /// There was more than there is room for: only the set has all of it.
    pub(super) overflowed: bool,
}

impl Said {
    fn is_news(&self) -> bool {
        !self.records.is_empty() || self.overflowed
    }
}

impl Spool {
    /// Of the file at `path`.
    pub(super) fn new(path: PathBuf) -> Arc<Self> {
        Arc::new(Self { path, state: Mutex::default(), news: Condvar::new(), unwritten: AtomicU64::new(0) })
    }

    /// Never blocks for longer than others copy a record.
    pub(super) fn say(self: &Arc<Self>, statement: &Statement) -> Written {
        let (told, written) = oneshot::channel();
        let mut state = self.lock();
        if state.said.records.len() < ROOM {
            frame::write(&mut state.said.records, statement);
            state.said.waiting.push(told);
        } else {
            state.said.overflowed = true;
        }
        drop(state);
        self.news.notify_one();
        Written { spooled: Some((Arc::clone(self), written)), told: None }
    }

    /// What was said since, as soon as there is something; `None`: nobody will say anything any more. Blocks.
    pub(super) fn take(&self) -> Option<Said> {
        let waited = self.news.wait_while(self.lock(), |state| !state.said.is_news() && !state.closed);
        let mut state = waited.unwrap_or_else(PoisonError::into_inner);
        state.working = state.said.is_news();
        state.working.then(|| std::mem::take(&mut state.said))
    }

    /// What was said since, be it nothing; waits a while for it. Blocks.
    pub(super) fn take_within(&self, span: Duration) -> Said {
        let waited = self.news.wait_timeout_while(self.lock(), span, |state| !state.said.is_news());
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut state.said)
    }

    /// Nobody says anything any more.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.news.notify_one();
    }

    /// Writing does not work.
    pub(super) fn fell_behind(&self, error: &dyn Display) {
        self.falls_behind(&mut self.lock(), error);
    }

    /// Everything that was taken is written.
    pub(super) fn caught_up(&self) {
        let mut state = self.lock();
        state.working = false;
        if std::mem::take(&mut state.behind) {
            tracing::info!("ended sessions are written down again");
        }
    }

    /// Somebody waited in vain.
    fn missed(&self) {
        self.unwritten.fetch_add(1, Ordering::Relaxed);
        let mut state = self.lock();
        // Not where it was written at the last moment: nobody would say that it works again.
        if state.working || state.said.is_news() {
            self.falls_behind(&mut state, &"it takes too long");
        }
    }

    /// Says so to the log, once.
    fn falls_behind(&self, state: &mut State, error: &dyn Display) {
        if !std::mem::replace(&mut state.behind, true) {
            let path = self.path.display();
            tracing::error!(reason = "ended_unwritten", %path, %error, "ended sessions cannot be written down; a restart would forget them");
        }
    }

    fn is_behind(&self) -> bool {
        self.lock().behind
    }

    /// See [`EndedSessions::unwritten`](super::EndedSessions::unwritten).
    pub(super) fn unwritten(&self) -> u64 {
        self.unwritten.load(Ordering::Relaxed)
    }

    #[cfg(test)]
    pub(super) fn is_full(&self) -> bool {
        self.lock().said.records.len() >= ROOM
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The promise that what was said outlives this process, and reaches the others.
#[derive(Debug)]
#[must_use = "whoever ends a session waits for this before answering"]
pub struct Written {
    spooled: Option<(Arc<Spool>, oneshot::Receiver<()>)>,
    told: Option<oneshot::Receiver<()>>,
}

impl Written {
    /// Of what is written nowhere.
    pub(super) fn nowhere() -> Self {
        Self { spooled: None, told: None }
    }

    /// The same, once other replicas can know of it too.
    pub(super) fn and_told(self, told: Option<oneshot::Receiver<()>>) -> Self {
        Self { told, ..self }
    }

    /// Waits until the system has it and other replicas can know, for a second at most and not at all while others have waited
    /// in vain: it counts all the same, and is counted as unwritten.
    pub async fn wait(self) {
        let Self { spooled, told } = self;
        tokio::join!(written(spooled), sharing::wait(told));
    }
}

async fn written(spooled: Option<(Arc<Spool>, oneshot::Receiver<()>)>) {
    let Some((spool, written)) = spooled else { return };
    let patience = if spool.is_behind() { Duration::ZERO } else { PATIENCE };
    if !matches!(timeout(patience, written).await, Ok(Ok(()))) {
        spool.missed();
    }
}
