//! A connection that speaks HTTP/2 (RFC 9113), by ALPN or by prior knowledge.

use std::convert::Infallible;
use std::error::Error as _;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::header::{CONNECTION, CONTENT_LENGTH, SEC_WEBSOCKET_ACCEPT, UPGRADE};
use http::{Method, Request, Response, StatusCode};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};

use super::clock::Expired;
use super::connection::{Terms, drive, linger, tell_expired};
use super::io::ClientIo;
use super::meter::Metered;
use super::standing::Standing;
use super::streams::{Answer, Clock, Runner, Streams};
use super::{Handler, Settings};
use crate::message::{Body, Connection, cookies};

/// What a client may send of one body before the upstream has taken it, in bytes: 25 MB/s at a round trip of 10 ms.
const STREAM_WINDOW: u32 = 256 * 1024;
/// And of all bodies of a connection: what one connection can make us hold.
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// The most of an answer that is gathered while the client does not take it, in bytes.
const SEND_BUFFER: usize = 64 * 1024;
/// Requests that may be taken back before they were looked at (CVE-2023-44487).
const UNSEEN_RESETS: usize = 64;
/// Streams of a connection that may be at fault before it is ended.
const FAULTS: usize = 256;

/// What one connection may ask for.
#[derive(Debug)]
pub(super) struct Limits {
    max_streams: u32,
    max_header_bytes: u32,
    max_headers: usize,
    ping: (Duration, Duration),
}

impl Limits {
    pub(super) fn new(settings: &Settings) -> Self {
        Self {
            max_streams: settings.h2_max_streams,
            max_header_bytes: u32::try_from(settings.max_header_bytes).unwrap_or(u32::MAX),
            max_headers: settings.max_headers,
            ping: settings.h2_ping,
        }
    }

    /// hyper as we want it.
    fn builder(&self, runner: Runner) -> http2::Builder<Runner> {
        let mut builder = http2::Builder::new(runner);
        builder
            .timer(TokioTimer::new())
            .max_concurrent_streams(self.max_streams)
            .max_header_list_size(self.max_header_bytes)
            .max_pending_accept_reset_streams(UNSEEN_RESETS)
            .max_local_error_reset_streams(FAULTS)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_send_buf_size(SEND_BUFFER)
            .keep_alive_interval(self.ping.0)
            .keep_alive_timeout(self.ping.1)
            // RFC 8441.
            .enable_connect_protocol();
        builder
    }
}

/// What all requests of a connection share.
struct Shared<H> {
    handler: H,
    connection: Connection,
    max_headers: usize,
    streams: Arc<Streams>,
}

/// Serves a connection to its end.
pub(super) async fn serve<H: Handler>(
    io: ClientIo,
    connection: Connection,
    handler: H,
    terms: &Terms,
    standing: &mut Standing,
) {
    let (peer, closing) = (connection.peer, &terms.closing);
    let activity = Arc::clone(io.activity());
    let streams = Arc::new(Streams::default());
    let shared = Arc::new(Shared {
        handler: handler.clone(),
        connection,
        max_headers: terms.http2.max_headers,
        streams: Arc::clone(&streams),
    });
    let service = service_fn(move |request| {
        shared.streams.count();
        answer(Arc::clone(&shared), request)
    });
    let io = TokioIo::new(Metered::new(io.rewound(), Arc::clone(&streams)));
    let tell_unread = {
        let handler = handler.clone();
        move || tell_expired(&handler, peer, Expired::UnreadStream)
    };
    let runner = Runner::new(&streams, terms.patience.unread, tell_unread);
    let mut http = terms.http2.builder(runner).serve_connection(io, service);
    let mut clock = Clock::new(terms.patience);
    // RFC 9113 §6.8: GOAWAY lets what is on its way arrive and tells the client where to stop.
    let is_enough = |cx: &mut Context<'_>| streams.taken() >= terms.max_requests.max(1) || standing.is_lost(cx);
    let look = |is_ending| clock.look(&activity, &streams, is_ending);
    let ended = drive(&mut http, |http| http.graceful_shutdown(), closing, is_enough, look).await;

    // A client that has not said its own goodbye yet would write into a reset, and take ours for a broken connection.
    let lingers = match ended {
        Ok(outcome) => outcome.map_or_else(|error| report(&handler, peer, &error), |()| true),
        Err(expired) => {
            // As much of a goodbye as the socket takes at once.
            poll_fn(|cx| {
                Pin::new(&mut http).graceful_shutdown();
                let _ = Pin::new(&mut http).poll(cx);
                Poll::Ready(())
            })
            .await;
            tell_expired(&handler, peer, expired);
            expired == Expired::Flood
        }
    };
    drop(http);
    if let Some(io) = streams.take_back().filter(|_| lingers) {
        linger(io).await;
    }
}

async fn answer<H: Handler>(
    shared: Arc<Shared<H>>,
    mut request: Request<Incoming>,
) -> Result<Response<Answer>, Infallible> {
    let Shared { handler, connection, max_headers, streams } = &*shared;
    cookies::join_crumbs(request.headers_mut());
    let is_head = request.method() == Method::HEAD;
    let response = if request.headers().len() > *max_headers {
        tracing::info!(client = %connection.peer.ip(), reason = "head_too_large", "request refused before it was read");
        handler.refused("head_too_large", 431);
        let mut response = Response::new(Body::Empty);
        *response.status_mut() = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
        response
    } else {
        handler.handle(request, connection).await
    };
    let mut response = as_http2(response);
    if is_head {
        without_content(&mut response);
    }
    Ok(response.map(|body| Answer::new(body, streams)))
}

/// RFC 9110 §9.3.2: an answer to HEAD has the fields of one to GET and no content. For HTTP/1.1 hyper leaves ours out; here
/// it would send it, and the client would reset the stream (RFC 9113 §8.1.1).
fn without_content(response: &mut Response<Body>) {
    if let Body::Full(_) = response.body() {
        if let Some(length) = response.body().size_hint().exact() {
            response.headers_mut().entry(CONTENT_LENGTH).or_insert_with(|| length.into());
        }
        *response.body_mut() = Body::Empty;
    }
}

/// RFC 8441 §4: what HTTP/1.1 says with 101 and fields of the connection, HTTP/2 says with 200.
fn as_http2(mut response: Response<Body>) -> Response<Body> {
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        *response.status_mut() = StatusCode::OK;
        for name in [CONNECTION, UPGRADE, SEC_WEBSOCKET_ACCEPT] {
            response.headers_mut().remove(name);
        }
    }
    response
}

/// What is at fault with a connection is answered with GOAWAY by h2 itself; this is the only trace of it. Tells whether it
/// was.
fn report<H: Handler>(handler: &H, peer: SocketAddr, error: &hyper::Error) -> bool {
    let fault = error.source().and_then(|source| source.downcast_ref::<h2::Error>());
    let Some(fault) = fault.filter(|fault| fault.is_library() && fault.is_go_away()) else {
        // The client went away.
        tracing::debug!(client = %peer.ip(), %error, "a connection broke");
        return false;
    };
    let (reason, status) = match fault.reason() {
        Some(h2::Reason::ENHANCE_YOUR_CALM) => ("http2_flood", 429),
        _ => ("http2_malformed", 400),
    };
    tracing::info!(client = %peer.ip(), reason, error = %fault, "connection closed: its frames are not to be served");
    handler.refused(reason, status);
    true
}
