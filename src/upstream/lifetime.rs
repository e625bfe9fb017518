//! Streams end with their session, and with the client's certificate: whatever still flows when a session expires or is ended, or
//! when the certificate would be refused, is told of it within [`SWEEP`]. A body that passes at once costs nothing here: only one that has to wait, or that does not end, is followed.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures_util::task::AtomicWaker;

use crate::authn::lifetime::{Lifetime, Lifetimes};
use crate::message::ClientCertificate;
use crate::telemetry::metrics::WorkerMetrics;

/// How often a worker looks at the streams it follows; while there is none, nothing runs.
const SWEEP: Duration = Duration::from_millis(250);
/// How long of that is spent on certificates.
const AT_A_TIME: Duration = Duration::from_millis(20);
/// A body of more pieces than this is followed even if none of them had to be waited for.
const PIECES: u8 = 16;

/// The streams of one worker that are followed.
#[derive(Debug)]
pub(super) struct Followed {
    lifetimes: Lifetimes,
    metrics: WorkerMetrics,
    streams: Mutex<Streams>,
}

#[derive(Debug, Default)]
struct Streams {
    open: Vec<Arc<Stream>>,
    swept: bool,
}

/// One stream, as whoever follows it and its own task both see it.
#[derive(Debug)]
struct Stream {
    grounds: Grounds,
    over: AtomicBool,
    task: AtomicWaker,
}

impl Followed {
    pub(super) fn new(lifetimes: Lifetimes, metrics: WorkerMetrics) -> Arc<Self> {
        Arc::new(Self { lifetimes, metrics, streams: Mutex::default() })
    }

    fn follow(self: &Arc<Self>, grounds: Grounds) -> Arc<Stream> {
        let stream = Arc::new(Stream { grounds, over: AtomicBool::new(false), task: AtomicWaker::new() });
        let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        streams.open.push(Arc::clone(&stream));
        if !std::mem::replace(&mut streams.swept, true) {
            tokio::spawn(Arc::clone(self).sweep());
        }
        stream
    }

    async fn sweep(self: Arc<Self>) {
        loop {
            tokio::time::sleep(SWEEP).await;
            let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
            let begun = Instant::now();
            streams.open.retain(|stream| self.goes_on(stream, begun));
            let (left, room) = (streams.open.len(), streams.open.capacity());
            if left < room / 4 {
                streams.open.shrink_to(left * 2);
            }
            if left == 0 {
                streams.swept = false;
                return;
            }
        }
    }

    /// Whether a stream is there and may be; one that may not is told. Certificates are judged for so long at a time as nobody else
    /// on the worker notices: a new list of CAs is one for thousands of them.
    fn goes_on(&self, stream: &Arc<Stream>, begun: Instant) -> bool {
        // Ours is the last: the stream itself is gone.
        if Arc::strong_count(stream) == 1 {
            return false;
        }
        if stream.grounds.certificate.is_some() && begun.elapsed() > AT_A_TIME {
            return true;
        }
        let over = stream.grounds.are_lost(&self.lifetimes).is_some();
        if over {
            stream.over.store(true, Ordering::Release);
            stream.task.wake();
        }
        !over
    }
}

/// What a request was let in for; there is one of them.
#[derive(Debug, Clone)]
struct Grounds {
    lifetime: Option<Lifetime>,
    certificate: Option<Arc<ClientCertificate>>,
}

impl Grounds {
    /// The reason code, once they are.
    fn are_lost(&self, lifetimes: &Lifetimes) -> Option<&'static str> {
        if self.lifetime.is_some_and(|lifetime| lifetimes.is_over(&lifetime)) {
            Some("session_ended")
        } else if self.certificate.as_ref().is_some_and(|certificate| certificate.is_refused()) {
            Some("client_certificate_invalid")
        } else {
            None
        }
    }
}

/// What one request was let in for, and who follows it.
#[derive(Debug, Clone)]
pub(super) struct Term {
    followed: Arc<Followed>,
    grounds: Grounds,
}

impl Term {
    /// `None` where nothing is to end it.
    pub(super) fn of(
        followed: &Arc<Followed>,
        lifetime: Option<Lifetime>,
        certificate: Option<&Arc<ClientCertificate>>,
    ) -> Option<Self> {
        (lifetime.is_some() || certificate.is_some()).then(|| {
            let grounds = Grounds { lifetime, certificate: certificate.cloned() };
            Self { followed: Arc::clone(followed), grounds }
        })
    }

    /// For a request that is on its way, which is let through when the certificate is refused.
    pub(super) fn of_the_session_alone(&self) -> Option<Self> {
        Self::of(&self.followed, self.grounds.lifetime, None)
    }

    /// Whether the session is over, asked now.
    pub(super) fn has_no_session(&self) -> bool {
        self.grounds.lifetime.is_some_and(|lifetime| self.followed.lifetimes.is_over(&lifetime))
    }
}

/// Ties one stream to its session.
#[derive(Debug)]
pub(super) struct Tether {
    term: Term,
    stream: Option<Arc<Stream>>,
    pieces: u8,
}

impl Tether {
    pub(super) fn new(term: Term) -> Self {
        Self { term, stream: None, pieces: 0 }
    }

    /// The stream is cut for it: the operator's line. Gives the reason code.
    pub(super) fn tell(&self) -> &'static str {
        // Nothing that is lost comes back.
        let reason = self.term.grounds.are_lost(&self.term.followed.lifetimes).unwrap_or("session_ended");
        tracing::info!(reason, "a stream was cut, because what its request was let in for is over");
        self.term.followed.metrics.stream_cut(reason);
        reason
    }

    /// The stream has to wait: ready once its session is over, and the task is woken then.
    pub(super) fn poll_over(&mut self, cx: &Context<'_>) -> Poll<()> {
        let stream = self.stream.get_or_insert_with(|| self.term.followed.follow(self.term.grounds.clone()));
        stream.task.register(cx.waker());
        if stream.over.load(Ordering::Acquire) { Poll::Ready(()) } else { Poll::Pending }
    }

    /// A piece is to be passed on: whether its session is over.
    pub(super) fn is_over(&mut self) -> bool {
        match &self.stream {
            Some(stream) => stream.over.load(Ordering::Acquire),
            None => {
                self.pieces += 1;
                if self.pieces == PIECES {
                    self.stream = Some(self.term.followed.follow(self.term.grounds.clone()));
                }
                false
            }
        }
    }
}
