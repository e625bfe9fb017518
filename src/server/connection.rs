//! One client's connection, from its first byte to its last: what both protocols share.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::clients::{Clients, Place};
use super::clock::{Activity, Expired, Patience};
use super::entry::Passed;
use super::io::ClientIo;
use super::stream::Protocol;
use super::{Handler, Settings, http1, http2};
use crate::message::EarlyHints;

/// How long a client may go on sending a body that was refused, so that it gets to read the refusal.
const LINGER: Duration = Duration::from_secs(5);

/// On what terms connections are served; made once for each worker.
#[derive(Debug)]
pub(super) struct Terms {
    pub(super) http1: hyper::server::conn::http1::Builder,
    pub(super) http2: http2::Limits,
    pub(super) patience: Patience,
    pub(super) clients: Option<Arc<Clients>>,
    pub(super) max_requests: u32,
    pub(super) closing: Closing,
}

impl Terms {
    pub(super) fn new(settings: &Settings) -> Self {
        Self {
            http1: http1::builder(settings),
            http2: http2::Limits::new(settings),
            patience: Patience {
                idle: settings.idle_timeout,
                head: settings.header_timeout,
                unread: settings.unread_timeout,
            },
            clients: settings.clients.clone(),
            max_requests: settings.max_requests,
            closing: Closing::default(),
        }
    }
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

    /// Resolves when it has begun.
    pub(super) async fn begun(&self) {
        self.token.cancelled().await;
    }

    pub(super) fn has_begun(&self) -> bool {
        self.begun.load(Ordering::Relaxed)
    }
}

/// A connection whose first request may come.
pub(super) struct Open {
    pub(super) passed: Passed,
    pub(super) place: Place,
}

/// Serves a connection until it ends, or until the end of service has begun and its requests in flight are answered.
pub(super) fn serve<H: Handler>(open: Open, handler: H, terms: Arc<Terms>) -> impl Future<Output = ()> + Send {
    let Open { passed: Passed { stream, connection, protocol, mut standing }, place } = open;
    let hints = if protocol == Protocol::Http2 { EarlyHints::default() } else { connection.hints.clone() };
    let activity = Activity::new(hints);
    let io = ClientIo::new(stream, Arc::new(activity), place, protocol == Protocol::Any);
    async move {
        let io = match protocol {
            Protocol::Http2 => Some(io),
            Protocol::Any | Protocol::Http1 => http1::serve(io, &connection, &handler, &terms, &mut standing).await,
        };
        if let Some(io) = io {
            // Boxed, so that a connection of HTTP/1.1 does not carry its size.
            Box::pin(http2::serve(io, connection, handler, &terms, &mut standing)).await;
        }
    }
}

/// How long a connection that waits may go on doing so.
pub(super) enum Wait {
    /// As long as its handler takes.
    Long,
    /// Until then; what it has run out of, or `None` for another look.
    Until(Instant, Option<Expired>),
    /// Not at all.
    Over(Expired),
}

/// Drives a connection to its end, or until `look`, asked whenever it waits, says that its time is over. Once `closing` has
/// begun, or `is_enough` says so, it is told to take no further requests, and `look` that it was.
pub(super) async fn drive<C: Future + Unpin>(
    http: &mut C,
    take_no_more: impl Fn(Pin<&mut C>),
    closing: &Closing,
    mut is_enough: impl FnMut(&mut Context<'_>) -> bool,
    mut look: impl FnMut(bool) -> Wait,
) -> Result<C::Output, Expired> {
    let mut cancelled = pin!(closing.token.cancelled());
    let (mut watched, mut open) = (false, true);
    let mut timer = pin!(sleep_until(Instant::now()));
    let mut armed: Option<Instant> = None;
    poll_fn(|cx| {
        loop {
            if let Poll::Ready(outcome) = Pin::new(&mut *http).poll(cx) {
                return Poll::Ready(Ok(outcome));
            }
            if !watched {
                // Once, so that this task is woken; from then on a look at the flag is enough, and takes no lock.
                watched = true;
                let _ = cancelled.as_mut().poll(cx);
            }
            if open && (closing.has_begun() || is_enough(cx)) {
                open = false;
                take_no_more(Pin::new(&mut *http));
                continue;
            }
            let (deadline, expired) = match look(!open) {
                Wait::Long => return Poll::Pending,
                Wait::Until(deadline, expired) => (deadline, expired),
                Wait::Over(expired) => return Poll::Ready(Err(expired)),
            };
            // A timer that is set too early is set anew when it rings; only an earlier deadline is worth moving it for.
            if armed.is_none_or(|at| deadline < at) || timer.is_elapsed() {
                if let Some(expired) = expired.filter(|_| armed.is_some() && Instant::now() >= deadline) {
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
}

/// Says why a connection was ended before its client ended it, where that is worth a line.
pub(super) fn tell_expired<H: Handler>(handler: &H, peer: SocketAddr, expired: Expired) {
    match expired {
        Expired::Head => {
            tracing::info!(client = %peer.ip(), reason = "head_timeout", "connection closed: the request's head did not end in time");
            handler.refused("head_timeout", 408);
        }
        Expired::Unread => {
            tracing::info!(client = %peer.ip(), reason = "unread", "connection closed: the client does not read its answer");
            handler.cut("unread");
        }
        Expired::UnreadStream => {
            tracing::info!(client = %peer.ip(), reason = "unread", "stream reset: the client does not read its answer");
            handler.cut("unread");
        }
        Expired::Flood => {
            tracing::info!(client = %peer.ip(), reason = "http2_flood", "connection closed: too many HTTP/2 frames that ask for nothing");
            handler.refused("http2_flood", 429);
        }
        Expired::Idle | Expired::Silent | Expired::NotHttp1 => {}
    }
}

/// RFC 9112 §9.6: a socket closed with bytes unread resets, and the client may lose the answer that it has not read yet. So
/// it is told that nothing more comes, and what it still sends is read and thrown away until it stops, or for a short time.
pub(super) async fn linger(mut io: ClientIo) {
    if io.has_ended() {
        return;
    }
    let rest = async {
        // Whether it hears of it makes no difference any more.
        let _ = io.shutdown().await;
        let mut scrap = vec![0; 8 * 1024];
        while matches!(io.read(&mut scrap).await, Ok(count) if count > 0) {}
    };
    let _ = timeout(LINGER, rest).await;
}
