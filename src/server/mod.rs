//! Accept loops: one current-thread runtime per worker, with its own end of every listener; TLS; knows no gateway.

mod clients;
mod clock;
mod connection;
pub mod drain;
mod entry;
mod http1;
mod http2;
mod io;
mod listener;
mod meter;
mod open;
mod proxy_protocol;
mod rest;
mod standing;
mod stream;
mod streams;
pub mod tls;
mod worker;

#[cfg(test)]
mod tests;

use std::future::Future;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, Request, Response, header};
use hyper::body::Incoming;

pub use clients::Clients;
pub use drain::Drain;
pub use listener::{Address, DEFAULT_MODE, Listener};

use self::entry::Entry;
use self::listener::BoundSocket;
use self::open::AllOpen;
use self::tls::{Reload, Tls};

use crate::message::{Body, Connection};

/// The listeners and their workers, checked.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where to listen; at least one.
    pub listeners: Vec<Listener>,
    /// How often certificate files are looked at. Default 5 s.
    pub reload_interval: Duration,
    /// Threads; default: the cores this process may use.
    pub workers: NonZeroUsize,
    /// Time for a request's head, from its first byte. Default 15 s.
    pub header_timeout: Duration,
    /// How long an idle connection is kept. Default 75 s.
    pub idle_timeout: Duration,
    /// How long a client may read nothing of an answer. Default 5 min.
    pub unread_timeout: Duration,
    /// The largest request head, in bytes. Default 32 KiB.
    pub max_header_bytes: usize,
    /// The most header fields. Default 100.
    pub max_headers: usize,
    /// Requests at the same time on one connection of HTTP/2. Default 128.
    pub h2_max_streams: u32,
    /// After how long without a byte a client of HTTP/2 is asked whether it is there, and how long it may take to say so.
    /// Default 30 s and 20 s.
    pub h2_ping: (Duration, Duration),
    /// Connections at the same time, all workers. Default 10,000.
    pub max_connections: usize,
    /// Connections of one client address at the same time; `None`: any number.
    pub clients: Option<Arc<Clients>>,
    /// Requests of one connection. Default 10,000.
    pub max_requests: u32,
    /// How a stop goes.
    pub drain: drain::Settings,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            listeners: vec![Listener::plain(Address::Tcp(SocketAddr::from(([0, 0, 0, 0], 8080))))],
            reload_interval: Duration::from_secs(5),
            workers: std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
            header_timeout: Duration::from_secs(15),
            idle_timeout: Duration::from_secs(75),
            unread_timeout: Duration::from_secs(300),
            max_header_bytes: 32 * 1024,
            max_headers: 100,
            h2_max_streams: 128,
            h2_ping: (Duration::from_secs(30), Duration::from_secs(20)),
            max_connections: 10_000,
            clients: None,
            max_requests: 10_000,
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

    /// A connection was closed for `reason`, a constant code, before its first request or whatever became of its requests. Already logged; here to be
    /// counted.
    fn cut(&self, reason: &'static str) {
        let _ = reason;
    }
}

/// Says that the connection ends with this answer (RFC 9112 §9.6).
fn close_after<B>(response: &mut Response<B>) {
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
}

/// Bound listeners, not yet accepting.
#[derive(Debug)]
pub struct Bound {
    settings: Settings,
    addresses: Vec<Address>,
    entries: Vec<Arc<Entry>>,
    /// For each worker, its end of each listener.
    sockets: Vec<Vec<BoundSocket>>,
    open: AllOpen,
}

/// Why a listener cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Its address.
    #[error("cannot listen on {address}")]
    Address {
        /// The address.
        address: Address,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// Its certificates.
    #[error("cannot speak TLS on {address}: {problem}")]
    Tls {
        /// The address.
        address: Address,
        /// The first problem; `config` tells all of them.
        #[source]
        problem: tls::Problem,
    },
}

/// Reads every certificate, then binds every listener for every worker.
///
/// # Errors
/// [`BindError`].
pub fn bind(settings: Settings) -> Result<Bound, BindError> {
    let mut entries = Vec::new();
    for listener in &settings.listeners {
        let tls = listener.tls.clone().map(Tls::load).transpose().map_err(|mut problems| {
            // There is at least one, or it were no error.
            BindError::Tls { address: listener.address.clone(), problem: problems.swap_remove(0) }
        })?;
        let proxy_protocol_from = listener.proxy_protocol_from.clone();
        entries.push(Arc::new(Entry { proxy_protocol_from, tls, time_limit: settings.header_timeout }));
    }
    let mut addresses = Vec::new();
    let mut sockets: Vec<Vec<_>> = std::iter::repeat_with(Vec::new).take(settings.workers.get()).collect();
    for listener in &settings.listeners {
        let failed = |source| BindError::Address { address: listener.address.clone(), source };
        let (address, ends) = listener::bind(listener, settings.workers).map_err(failed)?;
        addresses.push(address);
        sockets.iter_mut().zip(ends).for_each(|(worker, end)| worker.push(end));
    }
    Ok(Bound { settings, addresses, entries, sockets, open: AllOpen::default() })
}

impl Bound {
    /// Where it listens, with real ports, in the order of the settings.
    pub fn addresses(&self) -> &[Address] {
        &self.addresses
    }

    /// Takes in certificates that change, for as long as it is polled; needs a runtime with blocking threads.
    pub fn reload(&self) -> impl Future<Output = ()> + Send + 'static {
        Reload::new(self.tls().cloned(), self.settings.reload_interval).run()
    }

    /// Tells when the first of all certificates in use ends, in seconds since the Unix epoch; `None` without TLS.
    pub fn certificate_expiry(&self) -> Option<impl Fn() -> u64 + Send + Sync + 'static> {
        let all: Vec<_> = self.tls().cloned().collect();
        let first = move || all.iter().map(|tls| tls.expires_at()).min().unwrap_or_default();
        self.tls().next().is_some().then_some(first)
    }

    /// Tells how many connections of clients are open, tunnels included.
    pub fn open_connections(&self) -> impl Fn() -> u64 + Send + Sync + 'static {
        let open = self.open.clone();
        move || open.sum()
    }

    fn tls(&self) -> impl Iterator<Item = &Arc<Tls>> {
        self.entries.iter().filter_map(|entry| entry.tls.as_ref())
    }

    /// Runs one thread per worker, each with a handler made by `make_handler(worker)` on that worker's runtime; returns when
    /// the drain has ended and every worker is gone, within its bounds. A worker that cannot start or panics begins the drain:
    /// readiness and whoever supervises us see an end, and nobody a proxy that is quietly slower than it was told to be.
    pub fn serve<H, F>(self, make_handler: F, drain: Drain)
    where
        H: Handler,
        F: Fn(usize) -> H + Send + Sync + 'static,
    {
        let Self { settings, sockets, entries, open, .. } = self;
        std::thread::scope(|scope| {
            let (settings, make_handler, drain, open) = (&settings, &make_handler, &drain, &open);
            let mut workers = Vec::new();
            for (index, sockets) in sockets.into_iter().enumerate() {
                let thread = std::thread::Builder::new().name(format!("worker-{index}"));
                let listeners = sockets.into_iter().zip(entries.iter().cloned()).collect();
                let work = move || {
                    // Also in a panic; at the end of a drain it changes nothing.
                    let _over = drain.draining.clone().drop_guard();
                    worker::run(listeners, settings, open.worker(), &|| make_handler(index), drain)
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
