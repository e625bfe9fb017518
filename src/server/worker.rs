//! One worker: a runtime of its own, a listener of its own, and the connections that the kernel gives it.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::task::TaskTracker;

use super::connection::{self, Open, Terms};
use super::stream::{Protocol, Socket, Stream};
use super::{Drain, Handler, Settings};
use crate::message::{Connection, Scheme};

/// What a worker waits after the system had no descriptor for a connection.
const PAUSE: Duration = Duration::from_millis(75);
/// How long a request may be behind its connection when the listener closes.
const FIRST_REQUEST: Duration = Duration::from_millis(50);
/// How long blocking work (name resolution) may hold up the end.
const LAST_WAIT: Duration = Duration::from_millis(250);

/// Runs one worker to its end on this thread.
pub(super) fn run<H: Handler>(
    index: usize,
    listener: std::net::TcpListener,
    settings: &Settings,
    make_handler: &(dyn Fn(usize) -> H + Send + Sync),
    drain: &Drain,
) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let outcome = runtime.block_on(async {
        let worker = Worker {
            listener: TcpListener::from_std(listener)?,
            handler: make_handler(index),
            terms: Arc::new(Terms::new(settings)),
            places: Arc::new(Semaphore::new(
                settings.max_connections.div_ceil(settings.workers.get()).clamp(1, Semaphore::MAX_PERMITS),
            )),
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
    listener: TcpListener,
    handler: H,
    /// This worker's own, so that its connections take no lock that another worker takes.
    terms: Arc<Terms>,
    /// This worker's share of the cap, so that no counter is shared.
    places: Arc<Semaphore>,
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
        let Self { listener, connections, terms, .. } = self;
        drop(listener);
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
            match self.listener.accept().await {
                Ok((stream, peer)) => self.start(stream, peer, place),
                Err(error) => self.refuse(&error).await,
            }
        }
    }

    /// What the kernel has accepted already is served: closing the listener would reset it.
    async fn accept_backlog(&mut self) {
        while let Ok(place) = Arc::clone(&self.places).try_acquire_owned() {
            let accepted: Poll<io::Result<(TcpStream, _)>> =
                poll_fn(|cx| Poll::Ready(self.listener.poll_accept(cx))).await;
            match accepted {
                Poll::Ready(Ok((stream, peer))) => self.start(stream, peer, place),
                Poll::Ready(Err(error)) if is_of_one_connection(&error) => {}
                Poll::Ready(Err(_)) | Poll::Pending => return,
            }
        }
    }

    fn start(&self, stream: TcpStream, peer: SocketAddr, place: OwnedSemaphorePermit) {
        // A socket that can't be tuned still works.
        let _ = stream.set_nodelay(true);
        let open = Open {
            stream: Stream::Plain(Socket::Tcp(stream)),
            connection: Connection::new(peer, Scheme::Http),
            protocol: Protocol::Any,
            place,
        };
        self.connections.spawn(connection::serve(open, self.handler.clone(), Arc::clone(&self.terms)));
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

fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}
