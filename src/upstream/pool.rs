//! Unused upstream connections, kept per worker; watched for their end while idle. The last one used is the first one taken,
//! so that those that a quiet hour does not need grow old and go.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::time::Instant;

use super::address::{self, Address};
use super::body::{Progress, RequestBody};
use super::deadline::Deadline;
use super::socket::{Socket, SocketIo};
use super::{UpstreamError, UpstreamSettings};

/// A connection that is closed without a word within this time after its last answer makes the upstream
/// [unreliable](Pool::is_unreliable).
const SUDDEN: Duration = Duration::from_secs(1);
/// How long an upstream stays unreliable.
const UNRELIABLE_FOR: Duration = Duration::from_secs(60);
/// The most that hyper gathers of a body before it waits for the reader, in bytes.
const BUFFER: usize = 64 * 1024;

/// The connections to one instance of an upstream, on one worker. The lock is never contended: only this worker takes it.
#[derive(Debug)]
pub(super) struct Pool {
    address: Address,
    keep: Duration,
    size: usize,
    state: Mutex<State>,
    sweeping: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    /// Oldest first.
    idle: Vec<Idle>,
    unreliable_until: Option<Instant>,
}

#[derive(Debug)]
struct Idle {
    connection: Connection,
    since: Instant,
}

/// What belongs to one connection through all its requests.
#[derive(Debug)]
struct Connection {
    sender: SendRequest<RequestBody>,
    socket: Arc<Socket>,
    deadline: Deadline,
    /// How long it may be idle: ours, or less where the upstream announced its own limit.
    keep: Duration,
}

/// The sole use of a connection, for one request. Dropped, it closes the connection; [`Lease::give_back`] keeps it.
#[derive(Debug)]
pub(super) struct Lease {
    connection: Connection,
    pool: Arc<Pool>,
    reused: bool,
    once: bool,
    request_body: Option<Arc<Progress>>,
}

impl Pool {
    pub(super) fn new(settings: &UpstreamSettings, address: Address) -> Arc<Self> {
        Arc::new(Self {
            address,
            keep: settings.pool_idle,
            size: settings.pool_size,
            state: Mutex::default(),
            sweeping: AtomicBool::new(false),
        })
    }

    /// The instance's.
    pub(super) fn address(&self) -> &Address {
        &self.address
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

    /// The connection used last, if it is still good.
    pub(super) fn check_out(self: &Arc<Self>) -> Option<Lease> {
        let mut state = self.state();
        while let Some(idle) = state.idle.pop() {
            let Idle { connection, since } = idle;
            let age = since.elapsed();
            if age < connection.keep && connection.sender.is_ready() && connection.socket.is_quiet() {
                connection.socket.begin();
                return Some(Lease {
                    connection,
                    pool: Arc::clone(self),
                    reused: true,
                    once: false,
                    request_body: None,
                });
            }
            if age < SUDDEN {
                state.unreliable_until = Some(Instant::now() + UNRELIABLE_FOR);
            }
        }
        None
    }

    /// A new connection, by `deadline`.
    pub(super) async fn connect(self: &Arc<Self>, deadline: Instant) -> Result<Lease, UpstreamError> {
        let socket = Socket::new(address::dial(&self.address, deadline).await?);
        let (sender, connection) = http1::Builder::new()
            .max_buf_size(BUFFER)
            .handshake::<_, RequestBody>(TokioIo::new(SocketIo(Arc::clone(&socket))))
            .await
            .map_err(UpstreamError::Closed)?;
        tokio::spawn(async move {
            // Whoever waits for an answer is told the error there; here it can only be that of an idle connection.
            if let Err(error) = connection.with_upgrades().await {
                tracing::debug!(%error, "an upstream connection ended");
            }
        });
        let connection = Connection { sender, socket, deadline: Deadline::default(), keep: self.keep };
        Ok(Lease { connection, pool: Arc::clone(self), reused: false, once: false, request_body: None })
    }

    fn keep(self: &Arc<Self>, connection: Connection) {
        let mut state = self.state();
        if state.idle.len() >= self.size {
            return;
        }
        state.idle.push(Idle { connection, since: Instant::now() });
        drop(state);
        if !self.sweeping.load(Ordering::Relaxed) && !self.sweeping.swap(true, Ordering::Relaxed) {
            tokio::spawn(sweep(Arc::downgrade(self)));
        }
    }

    /// Drops what has ended or grown too old, and tells whether anything is left.
    fn discard_old(&self) -> bool {
        let mut state = self.state();
        state.idle.retain(|idle| idle.since.elapsed() < idle.connection.keep && !idle.connection.sender.is_closed());
        if state.idle.is_empty() {
            state.idle.shrink_to(8);
            self.sweeping.store(false, Ordering::Relaxed);
        }
        !state.idle.is_empty()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic between two statements above leaves a list that is still a list.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    pub(super) fn idle_count(&self) -> usize {
        self.state().idle.len()
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
    pub(super) fn sender(&mut self) -> &mut SendRequest<RequestBody> {
        &mut self.connection.sender
    }

    pub(super) fn deadline(&mut self) -> &mut Deadline {
        &mut self.connection.deadline
    }

    /// Where the connection belongs.
    pub(super) fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }

    /// Whether it has carried a request before.
    pub(super) fn is_reused(&self) -> bool {
        self.reused
    }

    /// Whether any byte of the answer came.
    pub(super) fn heard(&self) -> bool {
        self.connection.socket.heard()
    }

    /// `Keep-Alive: timeout=` of an answer: we stop using the connection before the upstream closes it.
    pub(super) fn limit_idle(&mut self, announced: Duration) {
        let margin = (announced / 2).min(Duration::from_secs(1));
        self.connection.keep = self.connection.keep.min(announced - margin);
    }

    /// Gives it to nobody else: it may be signed in as somebody by now.
    pub(super) fn use_once(&mut self) {
        self.once = true;
    }

    /// Remembers how far the body of the present request has got.
    pub(super) fn watch(&mut self, request_body: Option<Arc<Progress>>) {
        self.request_body = request_body;
    }

    /// Keeps the connection for the next request. Only after the answer was read to its end, and not where it came before
    /// the request's: an upstream that has answered may take the rest of that body for the next request.
    pub(super) fn give_back(self) {
        if self.once || self.request_body.is_some_and(|body| !body.is_over()) {
            return;
        }
        let Self { mut connection, pool, .. } = self;
        connection.deadline.clear();
        if connection.sender.is_ready() {
            pool.keep(connection);
        } else if !connection.sender.is_closed() {
            // The answer is whole, but the end of the request is still being written.
            tokio::spawn(async move {
                if connection.sender.ready().await.is_ok() {
                    pool.keep(connection);
                }
            });
        }
    }
}
