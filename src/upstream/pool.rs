//! Unused upstream connections, kept per worker; watched for their end while idle. The last one used is the first one taken,
//! so that those that a quiet hour does not need grow old and go.

use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::TryFutureExt as _;
use futures_util::future::Either;
use http::Response;
use http::uri::Scheme;
use http_body::{Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, timeout_at};

use super::address::{self, Address};
use super::body::{Cut, Progress, RequestBody};
use super::deadline::Deadline;
use super::exchange::{Failure, later};
use super::head::Head;
use super::http1::{self, Io, Upgraded};
use super::http2::{Shared, Slot};
use super::instances::Busy;
use super::socket::{Socket, SocketIo};
use super::{Protocol, Tls, UpstreamError, UpstreamSettings};
use crate::message::body::BodyError;

/// A connection that is closed without a word within this time after its last answer makes the upstream
/// [unreliable](Pool::is_unreliable).
const SUDDEN: Duration = Duration::from_secs(1);
/// How long an upstream stays unreliable.
const UNRELIABLE_FOR: Duration = Duration::from_secs(60);

/// The connections to one instance of an upstream, on one worker. The lock is never contended: only this worker takes it.
#[derive(Debug)]
pub(super) struct Pool {
    address: Address,
    protocol: Protocol,
    tls: Option<Arc<Tls>>,
    keep: Duration,
    /// The most time without a byte on a body.
    idle: Duration,
    size: usize,
    ping: (Duration, Duration),
    state: Mutex<State>,
    sweeping: AtomicBool,
    /// Held by whoever makes a connection that others will share.
    turn: tokio::sync::Mutex<()>,
    /// What the instance chose where it had the choice.
    chose_http1: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    /// Oldest first.
    idle: Vec<Idle>,
    /// HTTP/2, idle or not.
    shared: Vec<Arc<Shared>>,
    unreliable_until: Option<Instant>,
    /// Nobody comes here any more.
    retired: bool,
}

#[derive(Debug)]
struct Idle {
    connection: Connection,
    since: Instant,
}

/// What belongs to one connection of HTTP/1.1 through all its requests.
#[derive(Debug)]
struct Connection {
    http: Box<http1::Connection>,
    deadline: Deadline,
    /// How long it may be idle: ours, or less where the upstream announced its own limit.
    keep: Duration,
}

/// The use of a connection, or of one stream of it, for one request. Dropped, it closes the connection or cancels the stream;
/// [`Lease::give_back`] keeps it.
#[derive(Debug)]
pub(super) struct Lease {
    line: Line,
    pool: Arc<Pool>,
    reused: bool,
    once: bool,
    request_body: Option<Arc<Progress>>,
    busy: Option<Busy>,
}

#[derive(Debug)]
enum Line {
    Http1(Connection),
    Http2(Slot),
}

impl Pool {
    pub(super) fn new(settings: &UpstreamSettings, address: Address) -> Arc<Self> {
        Arc::new(Self {
            address,
            protocol: settings.protocol,
            tls: settings.tls.clone(),
            keep: settings.pool_idle,
            idle: settings.idle_timeout,
            size: settings.pool_size,
            ping: settings.h2_ping,
            state: Mutex::default(),
            sweeping: AtomicBool::new(false),
            turn: tokio::sync::Mutex::new(()),
            chose_http1: AtomicBool::new(false),
        })
    }

    /// Whether the upstream has lately closed a connection right after an answer without announcing it. A request that can't
    /// be sent twice then gets a fresh connection, because such an end can cross it on the way.
    pub(super) fn is_unreliable(&self) -> bool {
        let mut state = self.state();
        match state.unreliable_until {
            Some(until) if Instant::now() < until => true,
            Some(_) => {
                state.unreliable_until = None;
                false
            }
            None => false,
        }
    }

    pub(super) fn note_sudden_end(&self) {
        self.state().unreliable_until = Some(Instant::now() + UNRELIABLE_FOR);
    }

    /// A connection, if there is a good one: with room for one more request, or the one used last. A request that takes it
    /// for itself (an upgrade) or signs it in (RFC 4559 §6) is to be `alone` on it. For one that can be sent twice, the
    /// runtime's word that nothing came is enough; for any other the kernel is asked.
    pub(super) fn check_out(self: &Arc<Self>, alone: bool, replayable: bool) -> Option<Lease> {
        let mut state = self.state();
        if self.protocol_for(alone) != Protocol::Http1
            && let Some(slot) = state.share()
        {
            return Some(self.lease(Line::Http2(slot), true));
        }
        while let Some(idle) = state.idle.pop() {
            let Idle { mut connection, since } = idle;
            let age = since.elapsed();
            if age < connection.keep && connection.http.is_quiet(!replayable) {
                return Some(self.lease(Line::Http1(connection), true));
            }
            if age < SUDDEN {
                state.unreliable_until = Some(Instant::now() + UNRELIABLE_FOR);
            }
        }
        None
    }

    /// A new connection by `deadline`; or room on one that somebody else made meanwhile.
    pub(super) async fn connect(self: &Arc<Self>, alone: bool, deadline: Instant) -> Result<Lease, UpstreamError> {
        let protocol = self.protocol_for(alone);
        if protocol == Protocol::Http1 || self.chose_http1.load(Ordering::Relaxed) {
            return self.open(protocol, deadline).await;
        }
        let _turn = timeout_at(deadline, self.turn.lock()).await.map_err(|_| UpstreamError::ConnectTimeout)?;
        let room = self.state().share();
        match room {
            Some(slot) => Ok(self.lease(Line::Http2(slot), false)),
            None => self.open(protocol, deadline).await,
        }
    }

    fn protocol_for(&self, alone: bool) -> Protocol {
        if alone { Protocol::Http1 } else { self.protocol }
    }

    async fn open(self: &Arc<Self>, protocol: Protocol, deadline: Instant) -> Result<Lease, UpstreamError> {
        let socket = Socket::new(address::dial(&self.address, deadline).await?);
        let io = SocketIo(Arc::clone(&socket));
        let line = match &self.tls {
            None if protocol == Protocol::H2 => self.multiplex(io, socket, Scheme::HTTP).await?,
            None => Line::Http1(self.speak(Io::Plain(io), socket)),
            Some(tls) => {
                let shaken = timeout_at(deadline, tls.connect(io, protocol)).await;
                let (io, is_h2) = shaken.map_err(|_| UpstreamError::ConnectTimeout)??;
                socket.begin();
                if protocol == Protocol::Auto {
                    self.chose_http1.store(!is_h2, Ordering::Relaxed);
                }
                match is_h2 {
                    true => self.multiplex(io, socket, Scheme::HTTPS).await?,
                    false => Line::Http1(self.speak(Io::tls(io), socket)),
                }
            }
        };
        Ok(self.lease(line, false))
    }

    /// HTTP/1.1 on a fresh connection.
    fn speak(&self, io: Io, socket: Arc<Socket>) -> Connection {
        let http = Box::new(http1::Connection::new(io, socket));
        Connection { http, deadline: Deadline::default(), keep: self.keep }
    }

    /// HTTP/2 on a fresh connection, which the next requests find in the pool.
    async fn multiplex<I>(self: &Arc<Self>, io: I, socket: Arc<Socket>, scheme: Scheme) -> Result<Line, UpstreamError>
    where
        I: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let started = Shared::start(io, socket, scheme, self.ping).await;
        let shared = started.map_err(|error| UpstreamError::Closed(error.into()))?;
        let slot = shared.take();
        let mut state = self.state();
        if !state.retired {
            state.shared.push(shared);
        }
        drop(state);
        self.begin_sweeping();
        Ok(Line::Http2(slot))
    }

    fn lease(self: &Arc<Self>, line: Line, reused: bool) -> Lease {
        Lease { line, pool: Arc::clone(self), reused, once: false, request_body: None, busy: None }
    }

    fn keep(self: &Arc<Self>, mut connection: Connection) {
        connection.http.rest();
        let mut state = self.state();
        if state.retired || state.idle.len() >= self.size {
            return;
        }
        state.idle.push(Idle { connection, since: Instant::now() });
        drop(state);
        self.begin_sweeping();
    }

    fn begin_sweeping(self: &Arc<Self>) {
        if !self.sweeping.load(Ordering::Relaxed) && !self.sweeping.swap(true, Ordering::Relaxed) {
            tokio::spawn(sweep(Arc::downgrade(self)));
        }
    }

    /// Closes what is idle, and what is in use once that ends: the instance is gone.
    pub(super) fn retire(&self) {
        let mut state = self.state();
        state.retired = true;
        state.idle.clear();
        // Those in use are kept by their streams.
        state.shared.clear();
    }

    /// Drops what has ended or grown too old, and tells whether anything is left.
    fn discard_old(&self) -> bool {
        let mut state = self.state();
        state.idle.retain_mut(|Idle { connection, since }| {
            since.elapsed() < connection.keep && connection.http.is_quiet(false)
        });
        let unused = |shared: &Arc<Shared>| shared.idle_since().is_some_and(|since| since.elapsed() >= self.keep);
        state.shared.retain(|shared| shared.is_open() && !unused(shared));
        let is_empty = state.idle.is_empty() && state.shared.is_empty();
        if is_empty {
            state.idle.shrink_to(8);
            self.sweeping.store(false, Ordering::Relaxed);
        }
        !is_empty
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic between two statements above leaves a list that is still a list.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    pub(super) fn idle_count(&self) -> usize {
        self.state().idle.len()
    }

    #[cfg(test)]
    pub(super) fn forget_idle(&self) {
        self.state().idle.clear();
    }
}

impl State {
    /// A stream on a connection that has room for one.
    fn share(&mut self) -> Option<Slot> {
        if let Some(slot) = self.shared.iter().find_map(Shared::try_take) {
            return Some(slot);
        }
        self.shared.retain(|shared| shared.is_open());
        None
    }
}

/// Closes connections that nobody took; runs only while there are any.
async fn sweep(pool: Weak<Pool>) {
    loop {
        let Some(pause) = pool.upgrade().map(|pool| pool.keep.div_f32(8.0).max(Duration::from_millis(20))) else {
            return;
        };
        tokio::time::sleep(pause.min(Duration::from_secs(5))).await;
        if !pool.upgrade().is_some_and(|pool| pool.discard_old()) {
            return;
        }
    }
}

impl Lease {
    /// Sends a request and gives the answer's head. `head` may be used once more where that fails, and never where it does
    /// not.
    pub(super) fn send(
        &mut self,
        head: &mut Head,
        body: RequestBody,
    ) -> impl Future<Output = Result<Response<()>, Failure>> {
        match &mut self.line {
            Line::Http1(connection) => {
                Either::Left(connection.http.send(head, body).map_err(|error| Failure::Broken(error.into())))
            }
            // Boxed, so that the common case does not carry its size.
            Line::Http2(slot) => Either::Right(Box::pin(slot.send(head, body))),
        }
    }

    /// The next piece of the answer's body.
    pub(super) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut self.line {
            Line::Http1(connection) => connection.http.poll_frame(cx),
            Line::Http2(slot) => slot.poll_frame(cx),
        }
    }

    /// Whether nothing is left of the answer's body.
    pub(super) fn is_answered(&self) -> bool {
        match &self.line {
            Line::Http1(connection) => connection.http.is_answered(),
            Line::Http2(slot) => slot.is_answered(),
        }
    }

    /// How much is left of the answer's body.
    pub(super) fn size_hint(&self) -> SizeHint {
        match &self.line {
            Line::Http1(connection) => connection.http.size_hint(),
            Line::Http2(slot) => slot.size_hint(),
        }
    }

    /// The answer's body, if it is here already.
    pub(super) fn take_whole_body(&mut self) -> Option<Bytes> {
        match &mut self.line {
            Line::Http1(connection) => connection.http.take_whole_body(),
            Line::Http2(_) => None,
        }
    }

    /// After a 101: the connection. `None` where it can't be had.
    pub(super) fn into_upgraded(self) -> Option<Upgraded> {
        match self.line {
            Line::Http1(connection) => connection.http.into_upgraded(),
            Line::Http2(_) => None,
        }
    }

    pub(super) fn deadline(&mut self) -> &mut Deadline {
        match &mut self.line {
            Line::Http1(connection) => &mut connection.deadline,
            Line::Http2(slot) => &mut slot.deadline,
        }
    }

    /// Whether it has carried a request before.
    pub(super) fn is_reused(&self) -> bool {
        self.reused
    }

    /// Whether any byte of the answer came.
    pub(super) fn heard(&self) -> bool {
        match &self.line {
            Line::Http1(connection) => connection.http.heard(),
            // Whatever came, it was nobody's answer, or the head would be here.
            Line::Http2(_) => false,
        }
    }

    /// `Keep-Alive: timeout=` of an answer: we stop using the connection before the upstream closes it.
    pub(super) fn limit_idle(&mut self, announced: Duration) {
        if let Line::Http1(connection) = &mut self.line {
            let margin = (announced / 2).min(Duration::from_secs(1));
            connection.keep = connection.keep.min(announced - margin);
        }
    }

    /// Gives it to nobody else: it may be signed in as somebody by now.
    pub(super) fn use_once(&mut self) {
        self.once = true;
    }

    /// Counts as the instance's load for as long as it is used.
    pub(super) fn count(&mut self, busy: Option<Busy>) {
        self.busy = busy;
    }

    /// What [`Lease::count`] was given, for a tunnel that outlives the lease.
    pub(super) fn busy(&mut self) -> Option<Busy> {
        self.busy.take()
    }

    /// Remembers how far the body of the present request has got.
    pub(super) fn watch(&mut self, request_body: Option<Arc<Progress>>) {
        self.request_body = request_body;
    }

    /// Why the body of the present request was cut, if it was.
    pub(super) fn request_cut(&self) -> Option<Cut> {
        self.request_body.as_deref().and_then(Progress::cut)
    }

    /// Keeps the connection for the next request. Only after the answer was read to its end, and not where it came before
    /// the request's: an upstream that has answered may take the rest of that body for the next request.
    pub(super) fn give_back(self) {
        let Self { line: Line::Http1(mut connection), pool, once, request_body, .. } = self else { return };
        let keeps = !once && request_body.as_ref().is_none_or(|body| body.is_over());
        connection.deadline.clear();
        if connection.http.is_reusable() {
            if keeps {
                pool.keep(connection);
            }
        } else if connection.http.goes_on() {
            // The answer is whole, but the request is still being written.
            tokio::spawn(async move {
                if finish(&mut connection.http, request_body.as_deref(), pool.idle).await && keeps {
                    pool.keep(connection);
                }
            });
        }
    }
}

/// [`http1::Connection::finish`] for as long as the request's body moves: no longer than `idle` without a byte.
async fn finish(http: &mut http1::Connection, body: Option<&Progress>, idle: Duration) -> bool {
    let mut finished = pin!(http.finish());
    let mut end = Instant::now() + idle;
    loop {
        match timeout_at(end, finished.as_mut()).await {
            Ok(is_reusable) => return is_reusable,
            Err(_) => match later(body, idle, idle) {
                Some(next) => end = next,
                None => return false,
            },
        }
    }
}
