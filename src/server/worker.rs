//! One worker: a runtime of its own, its own end of every listener, and the connections that the kernel gives it.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::task::TaskTracker;

use super::clients::Place;
use super::connection::{self, Closing, Open, Terms};
use super::entry::{Entry, Passed};
use super::listener::{Acceptor, BoundSocket};
use super::open::Counter;
use super::stream::Socket;
use super::{Drain, Handler, Settings};
use crate::telemetry;

/// What a worker waits after the system had no descriptor for a connection.
const PAUSE: Duration = Duration::from_millis(75);
/// How long a request may be behind its connection when the listener closes.
const FIRST_REQUEST: Duration = Duration::from_millis(50);
/// How long blocking work (name resolution) may hold up the end.
const LAST_WAIT: Duration = Duration::from_millis(250);

/// Runs one worker to its end on this thread.
pub(super) fn run<H: Handler>(
    listeners: Vec<(BoundSocket, Arc<Entry>)>,
    settings: &Settings,
    open: Counter,
    make_handler: &dyn Fn() -> H,
    drain: &Drain,
) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let outcome = runtime.block_on(async {
        let bound = listeners.into_iter().map(|(socket, entry)| Ok((Acceptor::new(socket)?, entry)));
        let listeners = bound.collect::<io::Result<Vec<_>>>()?;
        let worker = Worker {
            listeners,
            next: 0,
            handler: make_handler(),
            terms: Arc::new(Terms::new(settings)),
            places: Arc::new(Semaphore::new(
                settings.max_connections.div_ceil(settings.workers.get()).clamp(1, Semaphore::MAX_PERMITS),
            )),
            open,
            connections: TaskTracker::new(),
            last_complaint: None,
        };
        worker.serve(drain).await;
        Ok(())
    });
    runtime.shutdown_timeout(LAST_WAIT);
    outcome
}

struct Worker<H> {
    listeners: Vec<(Acceptor, Arc<Entry>)>,
    /// Whose turn it is to be asked first.
    next: usize,
    handler: H,
    /// This worker's own, so that its connections take no lock that another worker takes.
    terms: Arc<Terms>,
    /// This worker's share of the cap, so that no counter is shared.
    places: Arc<Semaphore>,
    open: Counter,
    connections: TaskTracker,
    last_complaint: Option<Instant>,
}

impl<H: Handler> Worker<H> {
    async fn serve(mut self, drain: &Drain) {
        tokio::select! {
            biased;
            () = drain.closing.cancelled() => {}
            () = self.accept_all() => {}
        }
        self.accept_backlog().await;
        let Self { listeners, connections, terms, .. } = self;
        drop(listeners);
        // Connections just accepted get to see their first request before they hear of the end.
        tokio::time::sleep(FIRST_REQUEST).await;
        terms.closing.begin();
        connections.close();
        drain.tunnels.close();
        tokio::select! {
            biased;
            () = drain.cut.cancelled() => {}
            () = async { connections.wait().await; drain.tunnels.wait().await } => {}
        }
    }

    async fn accept_all(&mut self) {
        loop {
            // Over the cap nothing is accepted; the backlog holds what comes meanwhile.
            let Ok(place) = Arc::clone(&self.places).acquire_owned().await else { return };
            match poll_fn(|cx| self.poll_accept(cx)).await {
                Ok((socket, peer, entry)) => self.start(socket, peer, entry, place),
                Err(error) => self.refuse(&error).await,
            }
        }
    }

    /// What the kernel has accepted already is served: closing the listener would reset it.
    async fn accept_backlog(&mut self) {
        while let Ok(place) = Arc::clone(&self.places).try_acquire_owned() {
            match poll_fn(|cx| Poll::Ready(self.poll_accept(cx))).await {
                Poll::Ready(Ok((socket, peer, entry))) => self.start(socket, peer, entry, place),
                Poll::Ready(Err(error)) if is_of_one_connection(&error) => {}
                Poll::Ready(Err(_)) | Poll::Pending => return,
            }
        }
    }

    /// From whichever listener has one; in turn, so that a busy one does not keep another's waiting.
    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<(Socket, SocketAddr, Arc<Entry>)>> {
        for _ in 0..self.listeners.len() {
            let (listener, entry) = &self.listeners[self.next];
            self.next = (self.next + 1) % self.listeners.len();
            if let Poll::Ready(accepted) = listener.poll_accept(cx) {
                return Poll::Ready(accepted.map(|(socket, peer)| (socket, peer, Arc::clone(entry))));
            }
        }
        Poll::Pending
    }

    fn start(&self, socket: Socket, peer: SocketAddr, entry: Arc<Entry>, place: OwnedSemaphorePermit) {
        let (handler, terms) = (self.handler.clone(), Arc::clone(&self.terms));
        let mut place = Place::new(place, self.open.count());
        let is_balancer = entry.is_balancer(peer);
        // Before anything is done for it: a handshake is the dearest part of a connection.
        if !is_balancer {
            let Some(known) = place_of(place, peer, &handler, &terms) else { return };
            place = known;
        }
        if entry.is_open() {
            let open = Open { passed: Passed::plain(socket, peer), place };
            self.connections.spawn(connection::serve(open, handler, terms));
            return;
        }
        self.connections.spawn(async move {
            // Boxed, so that a connection gives its room back once it is in.
            if let Some(passed) = Box::pin(enter(&entry, socket, peer, &handler, &terms.closing)).await {
                let peer = passed.connection.peer;
                let place = if is_balancer { place_of(place, peer, &handler, &terms) } else { Some(place) };
                let Some(place) = place else { return };
                connection::serve(Open { passed, place }, handler, terms).await;
            }
        });
    }

    /// A connection that ended before it was accepted is nothing; a lack of descriptors or memory passes, or it doesn't:
    /// either way we go on.
    async fn refuse(&mut self, error: &io::Error) {
        if is_of_one_connection(error) {
            return;
        }
        if self.last_complaint.is_none_or(|last| last.elapsed() >= Duration::from_secs(1)) {
            self.last_complaint = Some(Instant::now());
            tracing::error!(%error, "no connection can be accepted; raise the limit of open files, or lower limits.max_connections");
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// The place of a connection whose client is known now; none where that client has too many.
fn place_of<H: Handler>(place: Place, client: SocketAddr, handler: &H, terms: &Terms) -> Option<Place> {
    let place = place.of_client(terms.clients.as_ref(), client.ip());
    if place.is_none() {
        tracing::info!(client = %client.ip(), reason = "too_many_connections", "connection closed: its client has too many");
        handler.cut("too_many_connections");
    }
    place
}

/// Lets a connection in, or tells why not. At the end of the service nobody waits for a handshake: no request is lost with it.
async fn enter<H: Handler>(
    entry: &Entry,
    socket: Socket,
    mut peer: SocketAddr,
    handler: &H,
    closing: &Closing,
) -> Option<Passed> {
    let turned_away = tokio::select! {
        biased;
        () = closing.begun() => return None,
        passed = entry.pass(socket, &mut peer) => match passed {
            Ok(passed) => return Some(passed),
            Err(turned_away) => turned_away,
        },
    };
    if let Some(reason) = turned_away.code() {
        tracing::info!(
            client = %peer.ip(), reason, error = telemetry::chain(&turned_away),
            "connection closed before its first request"
        );
        handler.cut(reason);
    }
    None
}

fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}
