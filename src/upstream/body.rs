//! Bodies on their way through: streamed frame by frame with backpressure, each gap bounded, trailers filtered.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use http_body::{Frame, SizeHint};
use tokio::time::Instant;

use super::UpstreamError;
use super::deadline::Deadline;
use super::expectation::Hold;
use super::lifetime::{Term, Tether};
use super::pace::{Pace, Paced};
use super::pool::Lease;
use crate::message::body::BodyError;
use crate::message::{Body, Settings, headers};
use crate::telemetry::metrics::WorkerMetrics;

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// Why a body is cut by us.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Cut {
    /// No byte came for the idle time.
    #[error("nothing more of the body came for idle_timeout")]
    Stalled,
    /// It falls behind its pace.
    #[error("the body came too slowly")]
    TooSlow,
    /// It is larger than it may be.
    #[error("the body is too large")]
    TooLarge,
    /// It may not go on.
    #[error("the session ended while the body was on its way")]
    SessionEnded,
    /// It has taken longer than `total_timeout`.
    #[error("the request took longer than total_timeout")]
    Overdue,
    /// The other side broke it off.
    #[error("the body broke off")]
    Broken,
}

impl Cut {
    /// What a request has failed for whose body ended so.
    fn blame(self) -> UpstreamError {
        match self {
            Self::SessionEnded => UpstreamError::SessionEnded,
            Self::Overdue => UpstreamError::TotalTimeout,
            Self::Stalled => UpstreamError::BodyIdle,
            Self::Broken => UpstreamError::RequestBody,
            Self::TooSlow => UpstreamError::BodyTooSlow,
            Self::TooLarge => UpstreamError::BodyTooLarge,
        }
    }
}

/// What is to blame where there is no answer: a request that we cut has failed for that reason, whatever came of it.
pub(super) fn blame(progress: Option<&Progress>, error: UpstreamError) -> UpstreamError {
    progress.and_then(Progress::cut).map_or(error, Cut::blame)
}

/// How far a request's body has got; written by the body, read by whoever waits for the answer.
#[derive(Debug)]
pub(super) struct Progress {
    start: Instant,
    moved: AtomicU64,
    waits_for_client: AtomicBool,
    over: AtomicBool,
    answered: AtomicBool,
    cut: OnceLock<Cut>,
}

impl Progress {
    fn touch(&self) {
        let elapsed = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.moved.store(elapsed, Ordering::Relaxed);
    }

    fn end(&self) {
        self.touch();
        self.over.store(true, Ordering::Relaxed);
    }

    /// The application answers while it still takes in: from here on the pace is its business.
    pub(super) fn answer_begins(&self) {
        self.answered.store(true, Ordering::Relaxed);
    }

    /// Whether all of it is on its way, or no more is wanted.
    pub(super) fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    /// Why the client broke it off or we cut it, if that was so.
    pub(super) fn cut(&self) -> Option<Cut> {
        self.cut.get().copied()
    }

    /// Until when the answer may take: `response` from the end of the body, `idle` from its last frame; `None` while the
    /// client is waited for, which the body itself bounds.
    pub(super) fn deadline(&self, response: Duration, idle: Duration) -> Option<Instant> {
        let moved = self.start + Duration::from_millis(self.moved.load(Ordering::Relaxed));
        if self.is_over() {
            return Some(moved + response);
        }
        (!self.waits_for_client.load(Ordering::Relaxed)).then(|| moved + idle)
    }
}

/// A request's body towards the upstream.
#[derive(Debug)]
pub(super) struct RequestBody {
    inner: Body,
    watch: Option<Box<Watch>>,
    /// What was taken from it before and is to be sent once more.
    again: Option<Box<Again>>,
}

#[derive(Debug)]
struct Again {
    /// In reverse.
    frames: Vec<Frame<Bytes>>,
    /// Bytes in them.
    length: u64,
    /// Whether they are all there is.
    whole: bool,
}

#[derive(Debug)]
struct Watch {
    progress: Arc<Progress>,
    deadline: Deadline,
    idle: Duration,
    is_http2: bool,
    hold: Option<Hold>,
    /// Since when the client is waited for.
    waits: Option<Instant>,
    paced: Option<Paced>,
    left: Option<u64>,
    tether: Option<Tether>,
    trust: Arc<Settings>,
}

/// What bounds a request's body.
#[derive(Debug)]
pub(super) struct Limits {
    /// The most time without a frame.
    pub(super) idle: Duration,
    /// The slowest it may come.
    pub(super) pace: Option<Pace>,
    /// The most bytes.
    pub(super) most: Option<u64>,
    /// The session it belongs to.
    pub(super) term: Option<Term>,
    /// Whether its end must be an end of HTTP/2: hyper passes a body that was reset with CANCEL or NO_ERROR off as complete.
    pub(super) is_http2: bool,
    /// Whether the application is to be heard first.
    pub(super) hold: Option<Hold>,
}

impl RequestBody {
    pub(super) fn empty() -> Self {
        Self { inner: Body::Empty, watch: None, again: None }
    }

    /// A body that ends with a [`Cut`] where it leaves its `limits`, and whose trailers pass `trust`.
    pub(super) fn watched(inner: Body, limits: Limits, trust: &Arc<Settings>) -> (Self, Arc<Progress>) {
        let progress = Arc::new(Progress {
            start: Instant::now(),
            moved: AtomicU64::new(0),
            waits_for_client: AtomicBool::new(false),
            over: AtomicBool::new(false),
            answered: AtomicBool::new(false),
            cut: OnceLock::new(),
        });
        let watch = Watch {
            progress: Arc::clone(&progress),
            deadline: Deadline::default(),
            idle: limits.idle,
            is_http2: limits.is_http2,
            hold: limits.hold,
            waits: None,
            paced: limits.pace.map(Paced::new),
            left: limits.most,
            tether: limits.term.map(Tether::new),
            trust: Arc::clone(trust),
        };
        (Self { inner, watch: Some(Box::new(watch)), again: None }, progress)
    }

    /// The body as it was before `data`, and at its end (`whole`) `trailers`, were taken from it.
    pub(super) fn rewound(self, data: Vec<Bytes>, trailers: Option<HeaderMap>, whole: bool) -> Self {
        let length = data.iter().map(|data| data.len() as u64).sum();
        let frames = data.into_iter().map(Frame::data).chain(trailers.map(Frame::trailers));
        let mut frames: Vec<_> = frames.collect();
        frames.reverse();
        if let Some(watch) = &self.watch {
            watch.progress.touch();
            watch.progress.over.store(whole, Ordering::Relaxed);
        }
        Self { again: Some(Box::new(Again { frames, length, whole })), ..self }
    }
}

impl Watch {
    /// The client is waited for: ready with the reason to wait no longer.
    fn wait(&mut self, cx: &mut Context<'_>) -> Poll<Cut> {
        self.progress.waits_for_client.store(true, Ordering::Relaxed);
        if self.tether.as_mut().is_some_and(|tether| tether.poll_over(cx).is_ready()) {
            return Poll::Ready(Cut::SessionEnded);
        }
        let since = *self.waits.get_or_insert_with(Instant::now);
        let paced = self.paced.as_ref().filter(|_| !self.progress.answered.load(Ordering::Relaxed));
        let (patience, cut) = match paced.map(Paced::left) {
            Some(left) if left < self.idle => (left, Cut::TooSlow),
            _ => (self.idle, Cut::Stalled),
        };
        self.deadline.set(since + patience);
        self.deadline.poll(cx).map(|()| cut)
    }

    /// Something came: whether it may not go on.
    fn pass(&mut self, data: Option<&Bytes>) -> Option<Cut> {
        self.progress.waits_for_client.store(false, Ordering::Relaxed);
        self.progress.touch();
        let waited = self.waits.take().map_or(Duration::ZERO, |since| since.elapsed());
        let length = data.map_or(0, Bytes::len);
        if let Some(paced) = &mut self.paced {
            paced.came(length, waited);
        }
        if let Some(left) = &mut self.left {
            match left.checked_sub(length as u64) {
                Some(less) => *left = less,
                None => return Some(Cut::TooLarge),
            }
        }
        self.tether.as_mut().is_some_and(Tether::is_over).then_some(Cut::SessionEnded)
    }

    fn cut<T>(&self, cut: Cut) -> Poll<Option<Result<T, BodyError>>> {
        // Once cut, nobody asks again.
        let _ = self.progress.cut.set(cut);
        Poll::Ready(Some(Err(cut.into())))
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // A body is dropped when its last byte is handed over, or when nobody wants the rest.
        self.progress.end();
    }
}

impl http_body::Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        if let Some(again) = &mut this.again {
            if let Some(frame) = again.frames.pop() {
                again.length -= frame.data_ref().map_or(0, |data| data.len() as u64);
                return Poll::Ready(Some(Ok(frame)));
            }
            if again.whole {
                return Poll::Ready(None);
            }
        }
        let Some(watch) = &mut this.watch else { return Pin::new(&mut this.inner).poll_frame(cx) };
        if let Some(hold) = &mut watch.hold {
            // It is not the application that lets us wait: that is bounded already.
            watch.progress.waits_for_client.store(true, Ordering::Relaxed);
            ready!(hold.poll(cx));
            watch.hold = None;
        }
        let Poll::Ready(frame) = Pin::new(&mut this.inner).poll_frame(cx) else {
            let cut = ready!(watch.wait(cx));
            return watch.cut(cut);
        };
        if let Some(cut) = watch.pass(frame.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref())) {
            return watch.cut(cut);
        }
        if frame.is_none() && watch.is_http2 && !this.inner.is_end_stream() {
            return watch.cut(Cut::Broken);
        }
        match &frame {
            None => watch.progress.end(),
            Some(Err(_)) => drop(watch.progress.cut.set(Cut::Broken)),
            Some(Ok(_)) => {}
        }
        Poll::Ready(frame.map(|frame| {
            frame.map(|frame| filter_trailers(frame, |trailers| watch.trust.identity_names.strip_trailers(trailers)))
        }))
    }

    fn is_end_stream(&self) -> bool {
        match &self.again {
            None => self.inner.is_end_stream(),
            Some(again) => again.frames.is_empty() && (again.whole || self.inner.is_end_stream()),
        }
    }

    fn size_hint(&self) -> SizeHint {
        let Some(again) = &self.again else { return self.inner.size_hint() };
        match self.inner.size_hint().exact() {
            _ if again.whole => SizeHint::with_exact(again.length),
            Some(rest) => SizeHint::with_exact(again.length + rest),
            None => SizeHint::default(),
        }
    }
}

/// An answer's body towards the client. It holds the connection: read to the end, the connection goes back to the pool;
/// dropped before that, it is closed, so that the upstream learns of it.
#[derive(Debug)]
pub(super) struct ResponseBody {
    lease: Option<Lease>,
    /// Whether it was given to its end.
    is_whole: bool,
    idle: Duration,
    total: Option<Instant>,
    tether: Option<Tether>,
    farewell: Farewell,
    metrics: WorkerMetrics,
}

/// How an answer's body says that what its request was let in for is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Farewell {
    /// By ending as an error: a connection that closes before the last chunk, a stream that is reset.
    Break,
    /// By gRPC's status in the trailers.
    GrpcStatus,
}

impl ResponseBody {
    /// A body that ends with [`Cut::Stalled`] after `idle` without a frame, and with [`Cut::Overdue`] at `total`.
    pub(super) fn new(mut lease: Lease, idle: Duration, total: Option<Instant>, metrics: WorkerMetrics) -> Self {
        lease.deadline().clear();
        Self { lease: Some(lease), is_whole: false, idle, total, tether: None, farewell: Farewell::Break, metrics }
    }

    /// Ends with its session.
    pub(super) fn until(self, term: Option<Term>, farewell: Farewell) -> Self {
        Self { tether: term.map(Tether::new), farewell, ..self }
    }

    fn end_with_session(&mut self) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.lease = None;
        let reason = self.tether.as_ref().map_or("session_ended", Tether::tell);
        Poll::Ready(Some(match self.farewell {
            Farewell::Break => Err(Cut::SessionEnded.into()),
            Farewell::GrpcStatus => {
                let (code, words) = (HeaderValue::from_static("16"), HeaderValue::from_static(reason));
                Ok(Frame::trailers(HeaderMap::from_iter([(GRPC_STATUS, code), (GRPC_MESSAGE, words)])))
            }
        }))
    }

    fn is_overdue(&self) -> bool {
        self.total.is_some_and(|total| Instant::now() >= total)
    }

    fn end(&mut self) {
        self.is_whole = true;
        self.lease.take().into_iter().for_each(Lease::give_back);
    }

    /// Closes the connection, or cancels the stream.
    fn break_off(&mut self, error: BodyError) -> BodyError {
        // It can't go on where its request was cut, and that is what went wrong then.
        let of_the_request = self.lease.take().and_then(|lease| lease.request_cut());
        self.metrics.stream_cut(match of_the_request {
            Some(cut) => tell_cut(cut, &error),
            None => tell_broken(&error),
        });
        error
    }
}

impl http_body::Body for ResponseBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        if this.lease.is_some() && this.is_overdue() {
            return Poll::Ready(Some(Err(this.break_off(Cut::Overdue.into()))));
        }
        let Some(lease) = &mut this.lease else { return Poll::Ready(None) };
        let Poll::Ready(frame) = lease.poll_frame(cx) else {
            if !lease.deadline().is_set() {
                let stalled = Instant::now() + this.idle;
                lease.deadline().set(this.total.map_or(stalled, |total| total.min(stalled)));
            }
            if this.tether.as_mut().is_some_and(|tether| tether.poll_over(cx).is_ready()) {
                return this.end_with_session();
            }
            ready!(lease.deadline().poll(cx));
            let error = if this.is_overdue() { Cut::Overdue } else { Cut::Stalled };
            return Poll::Ready(Some(Err(this.break_off(error.into()))));
        };
        if this.tether.as_mut().is_some_and(Tether::is_over) {
            return this.end_with_session();
        }
        lease.deadline().clear();
        match frame {
            Some(Ok(frame)) => {
                // hyper does not ask again after the last byte of a known length.
                if frame.is_trailers() || lease.is_answered() {
                    this.end();
                }
                Poll::Ready(Some(Ok(filter_trailers(frame, strip_response_trailers))))
            }
            Some(Err(error)) => Poll::Ready(Some(Err(this.break_off(error)))),
            None => {
                this.end();
                Poll::Ready(None)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.is_whole || self.lease.as_ref().is_some_and(Lease::is_answered)
    }

    fn size_hint(&self) -> SizeHint {
        match &self.lease {
            Some(lease) => lease.size_hint(),
            None if self.is_whole => SizeHint::with_exact(0),
            None => SizeHint::default(),
        }
    }
}

/// The answer's head is out, so the client only sees its connection end: this line is what the operator has, and the reason
/// code in it.
fn tell_broken(error: &BodyError) -> &'static str {
    let cause = crate::telemetry::chain(&**error);
    match error.downcast_ref() {
        Some(Cut::Overdue) => {
            tracing::warn!(
                reason = "upstream_total_timeout",
                error = cause,
                "an answer of the upstream was cut off because it took longer than total_timeout"
            );
            "upstream_total_timeout"
        }
        Some(Cut::Stalled) => {
            tracing::warn!(
                reason = "upstream_idle",
                error = cause,
                "an answer of the upstream was cut off because nothing more of it came for idle_timeout"
            );
            "upstream_idle"
        }
        _ => {
            tracing::warn!(
                reason = "upstream_broke_off",
                error = cause,
                "an answer of the upstream broke off before its end; look into the application's own log"
            );
            "upstream_broke_off"
        }
    }
}

/// As [`tell_broken`], where the request's body was to blame: whoever asked can cause that at will.
fn tell_cut(cut: Cut, error: &BodyError) -> &'static str {
    let cause = crate::telemetry::chain(&**error);
    let reason = cut.blame().code();
    tracing::info!(reason, error = cause, "an answer was cut off because of its request's body");
    reason
}

fn filter_trailers(frame: Frame<Bytes>, filter: impl FnOnce(&mut HeaderMap)) -> Frame<Bytes> {
    match frame.into_trailers() {
        Ok(mut trailers) => {
            filter(&mut trailers);
            Frame::trailers(trailers)
        }
        Err(frame) => frame,
    }
}

/// RFC 9110 §6.5.1: no framing, no routing, no authentication; and no cookie, which could be one of ours.
fn strip_response_trailers(trailers: &mut HeaderMap) {
    headers::strip_hop_by_hop(trailers);
    for name in [
        header::CONTENT_LENGTH,
        header::CONTENT_ENCODING,
        header::CONTENT_TYPE,
        header::CONTENT_RANGE,
        header::TRAILER,
        header::HOST,
        header::SET_COOKIE,
        header::LOCATION,
        header::CACHE_CONTROL,
        header::WWW_AUTHENTICATE,
    ] {
        trailers.remove(name);
    }
}
