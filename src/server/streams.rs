//! The streams of one connection of HTTP/2: how many there are, whether they move, and the connection's clock that goes by
//! it.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use hyper::rt::Executor;
use pin_project_lite::pin_project;
use tokio::task_local;
use tokio::time::{Instant, Sleep, sleep_until};

use super::clock::{Activity, Expired, Patience};
use super::connection::Wait;
use super::io::ClientIo;
use crate::message::Body;
use crate::message::body::BodyError;

/// How long a client without a request may take to go when we stop.
const FAREWELL: Duration = Duration::from_secs(1);

/// Written by the tasks of streams and by the connection's IO, read by its clock. On a worker all run on one thread.
#[derive(Debug, Default)]
pub(super) struct Streams {
    /// Requests without the end of their answer, and tunnels.
    open: AtomicU32,
    /// Answers of which the client does not take what there is.
    waiting: AtomicU32,
    /// All requests so far.
    taken: AtomicU32,
    /// Changes with every step forward.
    steps: AtomicU32,
    in_head: AtomicBool,
    flooded: AtomicBool,
    io: Mutex<Option<ClientIo>>,
}

impl Streams {
    /// What the meter has read.
    pub(super) fn note(&self, in_head: bool, flooded: bool) {
        self.in_head.store(in_head, Ordering::Relaxed);
        self.flooded.store(flooded, Ordering::Relaxed);
    }

    /// One more request came.
    pub(super) fn count(&self) {
        self.taken.fetch_add(1, Ordering::Relaxed);
    }

    /// How many requests came.
    pub(super) fn taken(&self) -> u32 {
        self.taken.load(Ordering::Relaxed)
    }

    pub(super) fn is_flooded(&self) -> bool {
        self.flooded.load(Ordering::Relaxed)
    }

    /// What is left of the connection once hyper is done with it.
    pub(super) fn give_back(&self, io: ClientIo) {
        *self.io.lock().unwrap_or_else(PoisonError::into_inner) = Some(io);
    }

    pub(super) fn take_back(&self) -> Option<ClientIo> {
        self.io.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn step(&self) {
        self.steps.fetch_add(1, Ordering::Relaxed);
    }
}

/// Runs what hyper makes of each stream: a request with its answer, and a tunnel's way to the client. So their number is
/// that of the streams. One that the client does not read is dropped, and with it whatever its answer came from.
#[derive(Clone)]
pub(super) struct Runner(Arc<Terms>);

struct Terms {
    streams: Arc<Streams>,
    unread: Duration,
    tell_unread: Box<dyn Fn() + Send + Sync>,
}

impl Runner {
    pub(super) fn new(
        streams: &Arc<Streams>,
        unread: Duration,
        tell_unread: impl Fn() + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(Terms { streams: Arc::clone(streams), unread, tell_unread: Box::new(tell_unread) }))
    }
}

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Runner {
    fn execute(&self, stream: F) {
        let (reader, open) = (Arc::<Reader>::default(), Opened::new(&self.0.streams));
        let stream = READER.scope(Arc::clone(&reader), stream);
        tokio::spawn(Running { stream, reader, terms: Arc::clone(&self.0), seen: None, timer: None, _open: open });
    }
}

/// Whether one stream's client takes what there is; written by its answer, read by whoever runs it, both on one task.
#[derive(Debug, Default)]
struct Reader {
    is_waited_for: AtomicBool,
    /// Changes with every step forward.
    steps: AtomicU32,
}

task_local! {
    /// Of the stream that runs.
    static READER: Arc<Reader>;
}

pin_project! {
    struct Running<F> {
        #[pin]
        stream: F,
        reader: Arc<Reader>,
        terms: Arc<Terms>,
        // Up to which step, and since when, the client is waited for.
        seen: Option<(u32, Instant)>,
        timer: Option<Pin<Box<Sleep>>>,
        _open: Opened,
    }
}

impl<F: Future<Output = ()>> Future for Running<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.project();
        if this.stream.poll(cx).is_ready() {
            return Poll::Ready(());
        }
        if !this.reader.is_waited_for.load(Ordering::Relaxed) {
            *this.seen = None;
            return Poll::Pending;
        }
        let step = this.reader.steps.load(Ordering::Relaxed);
        let since = match *this.seen {
            Some((seen, since)) if seen == step => since,
            _ => Instant::now(),
        };
        *this.seen = Some((step, since));
        let end = since + this.terms.unread;
        // Set once, and anew when it rings too early.
        let timer = this.timer.get_or_insert_with(|| Box::pin(sleep_until(end)));
        while timer.as_mut().poll(cx).is_ready() {
            if Instant::now() >= end {
                (this.terms.tell_unread)();
                return Poll::Ready(());
            }
            timer.as_mut().reset(end);
        }
        Poll::Pending
    }
}

struct Opened(Arc<Streams>);

impl Opened {
    fn new(streams: &Arc<Streams>) -> Self {
        streams.open.fetch_add(1, Ordering::Relaxed);
        streams.step();
        Self(Arc::clone(streams))
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
        self.0.step();
    }
}

/// An answer's body, which tells whether the client takes it: hyper asks for more when the last frame has found room.
pub(super) struct Answer {
    body: Body,
    streams: Arc<Streams>,
    reader: Option<Arc<Reader>>,
    is_waiting: bool,
}

impl Answer {
    pub(super) fn new(body: Body, streams: &Arc<Streams>) -> Self {
        // There is one wherever a `Runner` runs it.
        let reader = READER.try_with(Arc::clone).ok();
        Self { body, streams: Arc::clone(streams), reader, is_waiting: false }
    }

    fn set_waiting(&mut self, waiting: bool) {
        match (std::mem::replace(&mut self.is_waiting, waiting), waiting) {
            (false, true) => drop(self.streams.waiting.fetch_add(1, Ordering::Relaxed)),
            (true, false) => drop(self.streams.waiting.fetch_sub(1, Ordering::Relaxed)),
            _ => {}
        }
        self.streams.step();
        if let Some(reader) = &self.reader {
            reader.is_waited_for.store(waiting, Ordering::Relaxed);
            reader.steps.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.set_waiting(false);
    }
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        let frame = Pin::new(&mut this.body).poll_frame(cx);
        this.set_waiting(matches!(frame, Poll::Ready(Some(Ok(_)))));
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The connection's clock: idle without streams, a head that begins must end, and what a client asked for it must read.
#[derive(Debug)]
pub(super) struct Clock {
    patience: Patience,
    seen: (bool, u32, u32),
    since: Instant,
    head_since: Option<Instant>,
}

impl Clock {
    pub(super) fn new(patience: Patience) -> Self {
        Self { patience, seen: (false, 0, 0), since: Instant::now(), head_since: None }
    }

    /// How long the connection may go on waiting as it does now.
    pub(super) fn look(&mut self, activity: &Activity, streams: &Streams, is_ending: bool) -> Wait {
        if streams.is_flooded() {
            return Wait::Over(Expired::Flood);
        }
        let (unwritten, writes) = activity.unwritten();
        let unread = unwritten || streams.waiting.load(Ordering::Relaxed) > 0;
        let seen = (unread, writes, streams.steps.load(Ordering::Relaxed));
        if seen != self.seen {
            self.seen = seen;
            self.since = Instant::now();
        }
        let Patience { idle, head, unread: until_read } = self.patience;
        let (limit, expired) = if unread {
            (until_read, Some(Expired::Unread))
        } else if streams.open.load(Ordering::Relaxed) > 0 {
            // The last stream's end need not wake us.
            (idle, None)
        } else {
            (if is_ending { idle.min(FAREWELL) } else { idle }, Some(Expired::Idle))
        };
        let wait = if expired.is_some() { self.since + limit } else { Instant::now() + limit };
        if !streams.in_head.load(Ordering::Relaxed) {
            self.head_since = None;
            return Wait::Until(wait, expired);
        }
        let head = *self.head_since.get_or_insert_with(Instant::now) + head;
        if head < wait { Wait::Until(head, Some(Expired::Head)) } else { Wait::Until(wait, expired) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDLE: Duration = Duration::from_secs(75);
    const HEAD: Duration = Duration::from_secs(15);
    const UNREAD: Duration = Duration::from_secs(300);

    struct Fixture {
        clock: Clock,
        activity: Activity,
        streams: Arc<Streams>,
    }

    impl Fixture {
        fn look(&mut self, closing: bool) -> (Duration, Option<Expired>) {
            match self.clock.look(&self.activity, &self.streams, closing) {
                Wait::Until(deadline, expired) => {
                    (deadline.saturating_duration_since(Instant::now() - Duration::from_millis(100)), expired)
                }
                Wait::Over(expired) => (Duration::ZERO, Some(expired)),
                Wait::Long => (Duration::MAX, None),
            }
        }
    }

    #[test]
    fn each_kind_of_waiting_has_its_own_limit() {
        let mut fixture = Fixture {
            clock: Clock::new(Patience { idle: IDLE, head: HEAD, unread: UNREAD }),
            activity: Activity::default(),
            streams: Arc::default(),
        };
        let near = |(wait, expired): (Duration, Option<Expired>), limit: Duration, wanted: Option<Expired>| {
            assert_eq!(expired, wanted);
            assert!(
                wait > limit - Duration::from_secs(1) && wait < limit + Duration::from_secs(1),
                "{wait:?} {limit:?}"
            );
        };
        near(fixture.look(false), IDLE, Some(Expired::Idle));
        near(fixture.look(true), FAREWELL, Some(Expired::Idle));
        let opened = Opened::new(&fixture.streams);
        near(fixture.look(true), IDLE, None);
        fixture.streams.note(true, false);
        near(fixture.look(false), HEAD, Some(Expired::Head));
        fixture.streams.note(false, false);
        let mut answer = Answer::new(Body::full("x"), &fixture.streams);
        let mut cx = Context::from_waker(std::task::Waker::noop());
        assert!(matches!(http_body::Body::poll_frame(Pin::new(&mut answer), &mut cx), Poll::Ready(Some(Ok(_)))));
        near(fixture.look(false), UNREAD, Some(Expired::Unread));
        assert!(matches!(http_body::Body::poll_frame(Pin::new(&mut answer), &mut cx), Poll::Ready(None)));
        near(fixture.look(false), IDLE, None);
        drop((opened, answer));
        near(fixture.look(false), IDLE, Some(Expired::Idle));
        fixture.activity.written(false);
        near(fixture.look(false), UNREAD, Some(Expired::Unread));
        fixture.streams.note(false, true);
        assert_eq!(fixture.look(false), (Duration::ZERO, Some(Expired::Flood)));
    }
}
