//! One client's connection, from its first byte to its last.

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncReadExt;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::clock::{Activity, Clock, Expired};
use super::io::ClientIo;
use super::stream::{Protocol, Stream};
use super::{Handler, Settings};
use crate::message::body::BodyError;
use crate::message::{Body, Connection};

/// The most that hyper gathers of a body before it waits for the other side, in bytes.
const BUFFER: usize = 64 * 1024;
/// hyper's own number of header fields, which costs it no allocation.
const DEFAULT_MAX_HEADERS: usize = 100;
/// How long a client may go on sending a body that was refused, so that it gets to read the refusal.
const LINGER: Duration = Duration::from_secs(5);

/// hyper as we want it.
pub(super) fn builder(settings: &Settings) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        // A client that goes away cancels its request.
        .half_close(false)
        // Clocks are ours: see `Clock`.
        .header_read_timeout(None)
        .max_header_size(settings.max_header_bytes)
        .max_buf_size(BUFFER.max(settings.max_header_bytes));
    if settings.max_headers != DEFAULT_MAX_HEADERS {
        builder.max_headers(settings.max_headers);
    }
    builder
}

/// What all requests of a connection share.
struct Shared<H> {
    handler: H,
    connection: Connection,
    activity: Arc<Activity>,
}

/// The end of a worker's service, as its connections see it.
#[derive(Debug, Default)]
pub(super) struct Closing {
    token: CancellationToken,
    begun: AtomicBool,
}

impl Closing {
    pub(super) fn begin(&self) {
        self.begun.store(true, Ordering::Relaxed);
        self.token.cancel();
    }

    fn has_begun(&self) -> bool {
        self.begun.load(Ordering::Relaxed)
    }
}

/// A connection whose first request may come.
pub(super) struct Open {
    pub(super) stream: Stream,
    pub(super) connection: Connection,
    #[expect(dead_code, reason = "HTTP/2 reads it")]
    pub(super) protocol: Protocol,
    pub(super) place: OwnedSemaphorePermit,
}

/// Serves a connection until it ends, or until `closing` has begun and the request in flight is answered.
pub(super) async fn serve<H: Handler>(
    open: Open,
    handler: H,
    builder: Arc<http1::Builder>,
    mut clock: Clock,
    closing: Arc<Closing>,
) {
    let Open { stream, connection, protocol: _, place } = open;
    let peer = connection.peer;
    let activity = Arc::new(Activity::default());
    let io = ClientIo::new(stream, Arc::clone(&activity), place);
    let shared = Arc::new(Shared { handler: handler.clone(), connection, activity: Arc::clone(&activity) });
    let service = service_fn(move |request| answer(Arc::clone(&shared), request));
    let mut http = builder.serve_connection(TokioIo::new(io), service).with_upgrades();

    let ended = {
        let mut cancelled = pin!(closing.token.cancelled());
        let (mut watched, mut open) = (false, true);
        let mut timer = pin!(sleep_until(Instant::now()));
        let mut armed: Option<Instant> = None;
        poll_fn(|cx| {
            loop {
                if let Poll::Ready(outcome) = Pin::new(&mut http).poll(cx) {
                    return Poll::Ready(Ok(outcome));
                }
                if !watched {
                    // Once, so that this task is woken; from then on a look at the flag is enough, and takes no lock.
                    watched = true;
                    let _ = cancelled.as_mut().poll(cx);
                }
                if open && closing.has_begun() {
                    open = false;
                    Pin::new(&mut http).graceful_shutdown();
                    continue;
                }
                let Some((deadline, expired)) = clock.look(&activity) else { return Poll::Pending };
                // A timer that is set too early is set anew when it rings; only an earlier deadline is worth moving it for.
                if armed.is_none_or(|at| deadline < at) || timer.is_elapsed() {
                    if armed.is_some() && Instant::now() >= deadline {
                        return Poll::Ready(Err(expired));
                    }
                    timer.as_mut().reset(deadline);
                    armed = Some(deadline);
                    if timer.as_mut().poll(cx).is_ready() {
                        continue;
                    }
                }
                return Poll::Pending;
            }
        })
        .await
    };

    match ended {
        Ok(outcome) => {
            let refused = outcome.err().is_some_and(|error| report(&handler, peer, &error));
            if (refused || activity.had_body())
                && let Some(parts) = http.into_parts()
            {
                linger(parts.io.into_inner()).await;
            }
        }
        Err(Expired::Head) => {
            tracing::info!(client = %peer.ip(), reason = "head_timeout", "connection closed: the request's head did not end in time");
            handler.refused("head_timeout", 408);
        }
        Err(Expired::Unread) => {
            tracing::info!(client = %peer.ip(), reason = "unread", "connection closed: the client does not read its answer");
        }
        Err(Expired::Idle) => {}
    }
}

async fn answer<H: Handler>(
    shared: Arc<Shared<H>>,
    request: Request<Incoming>,
) -> Result<Response<Answer<H>>, Infallible> {
    shared.activity.begin(!request.body().is_end_stream());
    let response = shared.handler.handle(request, &shared.connection).await;
    Ok(response.map(|body| Answer { body, shared }))
}

/// A body that tells when hyper has it all.
struct Answer<H> {
    body: Body,
    shared: Arc<Shared<H>>,
}

impl<H> Drop for Answer<H> {
    fn drop(&mut self) {
        self.shared.activity.end();
    }
}

impl<H> http_body::Body for Answer<H> {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        Pin::new(&mut self.get_mut().body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// RFC 9112 §9.6: a socket closed with bytes unread resets, and the client may lose the answer that it has not read yet. So
/// what it still sends is read and thrown away until it stops, or for a short time.
async fn linger(mut io: ClientIo) {
    if io.has_ended() {
        return;
    }
    let mut scrap = vec![0; 8 * 1024];
    let _ = timeout(LINGER, async { while matches!(io.read(&mut scrap).await, Ok(count) if count > 0) {} }).await;
}

/// hyper answers a broken head by itself; this is the only trace of it. Tells whether it did.
fn report<H: Handler>(handler: &H, peer: std::net::SocketAddr, error: &hyper::Error) -> bool {
    let (reason, status) = if error.is_parse_too_large() {
        ("head_too_large", 431)
    } else if error.is_parse() {
        ("malformed_head", 400)
    } else {
        // The client went away, or an upstream's body broke off, which is told where it happens.
        tracing::debug!(client = %peer.ip(), %error, "a connection broke");
        return false;
    };
    tracing::info!(client = %peer.ip(), reason, %error, "request refused before it was read");
    handler.refused(reason, status);
    true
}
