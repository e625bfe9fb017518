//! A connection that speaks HTTP/1.1, or says with its first bytes that it speaks HTTP/2.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::FutureExt as _;
use http::header::EXPECT;
use http::{Request, Response, StatusCode};
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;

use super::clock::{Activity, Clock, Expired};
use super::connection::{Terms, drive, linger, tell_expired};
use super::io::ClientIo;
use super::rest::{Rested, rest};
use super::standing::Standing;
use super::{Handler, Settings};
use crate::message::body::{BodyError, PIECE};
use crate::message::{Body, Connection};

/// hyper's own number of header fields, which costs it no allocation.
const DEFAULT_MAX_HEADERS: usize = 100;

/// hyper as we want it.
pub(super) fn builder(settings: &Settings) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        // A client that goes away cancels its request.
        .half_close(false)
        // Clocks are ours: see `Clock`.
        .header_read_timeout(None)
        .max_header_size(settings.max_header_bytes)
        .max_buf_size(PIECE.max(settings.max_header_bytes));
    if settings.max_headers != DEFAULT_MAX_HEADERS {
        builder.max_headers(settings.max_headers);
    }
    builder
}

/// What all requests of a connection share.
struct Shared<'c, H> {
    handler: &'c H,
    connection: &'c Connection,
    /// How many more requests are taken.
    left: AtomicU32,
}

impl<H> Shared<'_, H> {
    /// Counts a request; whether it is the last. They come one after another, so nothing is ordered.
    fn is_last(&self) -> bool {
        let left = self.left.load(Ordering::Relaxed).saturating_sub(1);
        self.left.store(left, Ordering::Relaxed);
        left == 0
    }
}

/// Serves a connection to its end; gives it back where its first bytes are those of HTTP/2 (RFC 9113 §3.3, prior knowledge).
/// Between two requests that are far apart it [rests](super::rest), and holds a tenth of the memory.
pub(super) async fn serve<H: Handler>(
    mut io: ClientIo,
    connection: &Connection,
    handler: &H,
    terms: &Terms,
    standing: &mut Standing,
) -> Option<ClientIo> {
    let shared = Shared { handler, connection, left: terms.max_requests.into() };
    let mut clock = Clock::new(terms.patience);
    loop {
        // Boxed, so that a connection at rest gives its room back.
        io = match Box::pin(talk(io, &shared, &mut clock, terms, standing)).await {
            Talked::Silent(io) => io,
            Talked::Heard(heard) => {
                io = heard;
                continue;
            }
            Talked::Http2(io) => return Some(io),
            Talked::Over => return None,
        };
        // Who rests has no request that this could serve.
        connection.recall.forget();
        io = match rest(io, &mut clock, terms, standing).await {
            Rested::Awake(io) => io,
            Rested::Http2(io) => return Some(io),
            Rested::Over => return None,
            Rested::Expired(expired) => {
                tell_expired(handler, connection.peer, expired);
                return None;
            }
        };
    }
}

/// How a connection has stopped to be served.
enum Talked {
    /// Nothing was heard since the last answer.
    Silent(ClientIo),
    /// The same, but something was.
    Heard(ClientIo),
    /// It speaks HTTP/2.
    Http2(ClientIo),
    /// It is gone.
    Over,
}

/// Serves a connection until it ends or its client is silent.
async fn talk<H: Handler>(
    io: ClientIo,
    shared: &Shared<'_, H>,
    clock: &mut Clock,
    terms: &Terms,
    standing: &mut Standing,
) -> Talked {
    let Shared { handler, connection, .. } = shared;
    let activity = &Arc::clone(io.activity());
    let service = service_fn(|request| answer(shared, activity, request));
    let mut http = terms.http1.serve_connection(TokioIo::new(io), service).with_upgrades();
    let is_enough = |cx: &mut Context<'_>| standing.is_lost(cx);
    let look = |_| clock.wait(activity);
    let ended = drive(&mut http, |http| http.graceful_shutdown(), &terms.closing, is_enough, look).await;
    let refused = match ended {
        Ok(outcome) => outcome.err().is_some_and(|error| report(*handler, connection.peer, &error)),
        Err(Expired::NotHttp1) => {
            return http.into_parts().map_or(Talked::Over, |parts| Talked::Http2(parts.io.into_inner()));
        }
        Err(Expired::Silent) => return http.into_parts().map_or(Talked::Over, fall_silent),
        Err(expired) => {
            tell_expired(*handler, connection.peer, expired);
            return Talked::Over;
        }
    };
    if (refused || activity.had_body())
        && let Some(parts) = http.into_parts()
    {
        Box::pin(linger(parts.io.into_inner())).await;
    }
    Talked::Over
}

/// Nothing was heard since the last answer, so hyper has read nothing either; were it otherwise, it would be next.
fn fall_silent<S>(parts: http1::Parts<TokioIo<ClientIo>, S>) -> Talked {
    let mut io = parts.io.into_inner();
    if parts.read_buf.is_empty() {
        return Talked::Silent(io);
    }
    io.keep(parts.read_buf);
    Talked::Heard(io)
}

/// One request and its answer. No `async fn`, which would keep room for what it was called with beside its handler's.
fn answer<H: Handler>(
    shared: &Shared<'_, H>,
    activity: &Arc<Activity>,
    request: Request<Incoming>,
) -> impl Future<Output = Result<Response<Answer>, Infallible>> {
    let has_body = !request.body().is_end_stream();
    activity.begin(has_body);
    if has_body && request.headers().contains_key(EXPECT) {
        activity.expects();
    }
    shared.handler.handle(request, shared.connection).map(move |mut response| {
        if (shared.is_last() || activity.is_in_doubt()) && response.status() != StatusCode::SWITCHING_PROTOCOLS {
            super::close_after(&mut response);
        }
        Ok(response.map(|body| Answer { body, activity: Arc::clone(activity) }))
    })
}

/// A body that tells when hyper has it all.
struct Answer {
    body: Body,
    activity: Arc<Activity>,
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.activity.end();
    }
}

impl http_body::Body for Answer {
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

/// hyper answers a broken head by itself; this is the only trace of it. Tells whether it did.
fn report<H: Handler>(handler: &H, peer: SocketAddr, error: &hyper::Error) -> bool {
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
