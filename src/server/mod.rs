//! Accept loops: one current-thread runtime and one SO_REUSEPORT listener per worker; knows no gateway.

mod clock;
mod connection;
pub mod drain;
mod http1;
mod http2;
mod io;
mod meter;
mod stream;
mod streams;
mod worker;

#[cfg(test)]
mod tests;

use std::future::Future;
use std::net::{SocketAddr, TcpListener};
use std::num::NonZeroUsize;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use socket2::{Domain, Protocol, Socket, Type};

pub use drain::Drain;

use crate::message::{Body, Connection};

/// The listener, checked.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where to listen.
    pub listen: SocketAddr,
    /// Threads; default: the cores this process may use.
    pub workers: NonZeroUsize,
    /// Time for a request's head, from its first byte. Default 15 s.
    pub header_timeout: Duration,
    /// How long an idle connection is kept. Default 75 s.
    pub idle_timeout: Duration,
    /// The largest request head, in bytes. Default 32 KiB.
    pub max_header_bytes: usize,
    /// The most header fields. Default 100.
    pub max_headers: usize,
    /// Requests at the same time on one connection of HTTP/2. Default 128.
    pub h2_max_streams: u32,
    /// Connections at the same time, all workers. Default 10,000.
    pub max_connections: usize,
    /// How a stop goes.
    pub drain: drain::Settings,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([0, 0, 0, 0], 8080)),
            workers: std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
            header_timeout: Duration::from_secs(15),
            idle_timeout: Duration::from_secs(75),
            max_header_bytes: 32 * 1024,
            max_headers: 100,
            h2_max_streams: 128,
            max_connections: 10_000,
            drain: drain::Settings::default(),
        }
    }
}

/// Answers requests. Cloned per connection; must not block.
pub trait Handler: Clone + Send + Sync + 'static {
    /// One request, one answer.
    fn handle(
        &self,
        request: Request<Incoming>,
        connection: &Connection,
    ) -> impl Future<Output = Response<Body>> + Send;

    /// A request that hyper answered by itself, with `status` and no body of ours, because its head was broken, too large or
    /// never finished. `reason` is a constant code. Already logged; here to be counted.
    fn refused(&self, reason: &'static str, status: u16) {
        let _ = (reason, status);
    }
}

/// A bound listener, not yet accepting.
#[derive(Debug)]
pub struct Bound {
    settings: Settings,
    address: SocketAddr,
    listeners: Vec<TcpListener>,
}

/// Why the listener could not be bound.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}")]
pub struct BindError {
    /// The address.
    pub address: SocketAddr,
    /// What the system said.
    #[source]
    pub source: std::io::Error,
}

/// Connections that the kernel holds ready per worker; it may hold fewer (`net.core.somaxconn`).
const BACKLOG: i32 = 4096;
/// How long a silent peer is believed to be there, for tunnels, which have no other clock.
const KEEPALIVE: Duration = Duration::from_secs(120);

/// Binds exclusively once, so that "address in use" is told, then once more per worker with SO_REUSEPORT.
///
/// # Errors
/// [`BindError`].
pub fn bind(settings: Settings) -> Result<Bound, BindError> {
    let failed = |source| BindError { address: settings.listen, source };
    let (address, listeners) = open_listeners(settings.listen, settings.workers).map_err(failed)?;
    Ok(Bound { address, listeners, settings })
}

fn open_listeners(wanted: SocketAddr, workers: NonZeroUsize) -> std::io::Result<(SocketAddr, Vec<TcpListener>)> {
    let first = socket(wanted)?;
    first.bind(&wanted.into())?;
    // The address is ours alone from here on, its port known; only now may our own workers join.
    let address = first.local_addr()?.as_socket().unwrap_or(wanted);
    first.set_reuse_port(true)?;
    let mut sockets = vec![first];
    for _ in 1..workers.get() {
        let next = socket(address)?;
        next.set_reuse_port(true)?;
        next.bind(&address.into())?;
        sockets.push(next);
    }
    for socket in &sockets {
        socket.listen(BACKLOG)?;
    }
    Ok((address, sockets.into_iter().map(TcpListener::from).collect()))
}

fn socket(address: SocketAddr) -> std::io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // So that a restart need not wait for the old connections' last two minutes.
    socket.set_reuse_address(true)?;
    // Accepted sockets inherit it.
    socket.set_tcp_keepalive(&socket2::TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE / 4))?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

impl Bound {
    /// The address with its real port.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Runs one thread per worker, each with a handler made by `make_handler(worker)` on that worker's runtime; returns when
    /// the drain has ended and every worker is gone, within its bounds. A worker that cannot start or panics begins the drain:
    /// readiness and whoever supervises us see an end, and nobody a proxy that is quietly slower than it was told to be.
    pub fn serve<H, F>(self, make_handler: F, drain: Drain)
    where
        H: Handler,
        F: Fn(usize) -> H + Send + Sync + 'static,
    {
        let Self { settings, listeners, .. } = self;
        std::thread::scope(|scope| {
            let (settings, make_handler, drain) = (&settings, &make_handler, &drain);
            let mut workers = Vec::new();
            for (index, listener) in listeners.into_iter().enumerate() {
                let thread = std::thread::Builder::new().name(format!("worker-{index}"));
                let work = move || {
                    // Also in a panic; at the end of a drain it changes nothing.
                    let _over = drain.draining.clone().drop_guard();
                    worker::run(index, listener, settings, make_handler, drain)
                };
                match thread.spawn_scoped(scope, work) {
                    Ok(worker) => workers.push((index, worker)),
                    Err(error) => {
                        tracing::error!(worker = index, %error, "a worker's thread could not be started");
                        drain.draining.cancel();
                    }
                }
            }
            for (index, worker) in workers {
                match worker.join() {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => tracing::error!(worker = index, %error, "a worker could not start"),
                    // The others finish what they have; the panic's own words are on standard error already.
                    Err(_) => tracing::error!(worker = index, "a worker panicked"),
                }
            }
        });
    }
}
