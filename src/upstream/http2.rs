//! HTTP/2 to one instance (RFC 9113): a few connections, each shared by many streams.
//!
//! hyper's client is not used here, because it passes an answer that was reset in mid-body with CANCEL or NO_ERROR off as
//! complete, and because a request that was refused unprocessed is to be sent again with its body.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use h2::client::{Connection, SendRequest};
use h2::{Ping, PingPong, Reason};
use http::header::{CONNECTION, EXPECT, HOST, TRANSFER_ENCODING};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Request, Response, Uri, Version};
use http_body::{Body as _, Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::body::RequestBody;
use super::deadline::Deadline;
use super::exchange::Failure;
use super::head::Head;
use super::socket::Socket;
use super::stream::{Answer, Upload};
use crate::message::body::BodyError;

/// The most streams on one connection, however many the peer would take.
const STREAMS: usize = 100;
/// What one slow reader may leave lying here of an answer, in bytes.
const STREAM_WINDOW: u32 = 256 * 1024;
/// Of all streams together, so that no slow reader takes the window of another.
const CONNECTION_WINDOW: u32 = STREAM_WINDOW * STREAMS as u32;
/// The most of one request's body that waits to be written, in bytes.
pub(super) const SEND_BUFFER: usize = 128 * 1024;
/// The most of an answer's head, in bytes.
const HEAD: u32 = 64 * 1024;
/// How many times as long a silent connection is left alone where streams only wait: servers of gRPC take a ping within 5 min
/// for an attack.
const PATIENCE: u32 = 31;
/// How long the goodbye of a connection that is let go may take.
const GOODBYE: Duration = Duration::from_secs(1);

/// One connection.
#[derive(Debug)]
pub(super) struct Shared {
    sender: SendRequest<Bytes>,
    scheme: Scheme,
    vitals: Arc<Vitals>,
    /// When a stream last began or ended. Never contended: only this worker takes it.
    used: Mutex<Instant>,
    _over: DropGuard,
}

/// What tells whether a silent connection is dead. Touched by one thread at a time; it orders nothing.
#[derive(Debug, Default)]
struct Vitals {
    streams: AtomicUsize,
    /// Whether a stream began since the last look.
    begun: AtomicBool,
}

/// What [`watch`] goes by.
struct Watched {
    socket: Arc<Socket>,
    vitals: Arc<Vitals>,
    ping: (Duration, Duration),
}

/// The right to one stream; dropped, what is left of the stream is cancelled.
#[derive(Debug)]
pub(super) struct Slot {
    shared: Arc<Shared>,
    pub(super) deadline: Deadline,
    /// Dropped, it cancels the upload.
    upload: Option<oneshot::Sender<()>>,
    /// The body of the answer, once its head is here; `None` if it has none.
    answer: Option<Answer>,
}

impl Shared {
    /// A connection over `io`, whose socket is `socket`. Where nothing was heard on it for the first time of `ping`, though a
    /// stream began, it is asked whether it is still there; without an answer within the other it is given up.
    pub(super) async fn start<I>(
        io: I,
        socket: Arc<Socket>,
        scheme: Scheme,
        ping: (Duration, Duration),
    ) -> Result<Arc<Self>, h2::Error>
    where
        I: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (sender, connection) = h2::client::Builder::new()
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_send_buffer_size(SEND_BUFFER)
            .max_header_list_size(HEAD)
            .initial_max_send_streams(STREAMS)
            .enable_push(false)
            .handshake::<_, Bytes>(io)
            .await?;
        let (over, vitals) = (CancellationToken::new(), Arc::new(Vitals::default()));
        let watched = Watched { socket, vitals: Arc::clone(&vitals), ping };
        tokio::spawn(drive(connection, watched, over.clone()));
        let used = Mutex::new(Instant::now());
        Ok(Arc::new(Self { sender, scheme, vitals, used, _over: over.drop_guard() }))
    }

    /// A stream, if the connection is good and the peer takes one more.
    pub(super) fn try_take(self: &Arc<Self>) -> Option<Slot> {
        let room = self.sender.current_max_send_streams().min(STREAMS);
        (self.vitals.streams.load(Ordering::Relaxed) < room && self.is_open()).then(|| self.take())
    }

    /// A stream; it waits for its turn where the peer takes no more.
    pub(super) fn take(self: &Arc<Self>) -> Slot {
        self.touch();
        self.vitals.streams.fetch_add(1, Ordering::Relaxed);
        self.vitals.begun.store(true, Ordering::Relaxed);
        Slot { shared: Arc::clone(self), deadline: Deadline::default(), upload: None, answer: None }
    }

    /// Whether new streams may begin: neither end has said goodbye.
    pub(super) fn is_open(&self) -> bool {
        // A sender that waits for no stream of its own is never pending.
        let mut cx = Context::from_waker(Waker::noop());
        matches!(self.sender.clone().poll_ready(&mut cx), Poll::Ready(Ok(())))
    }

    /// Since when no stream uses it.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        (self.vitals.streams.load(Ordering::Relaxed) == 0)
            .then(|| *self.used.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn touch(&self) {
        *self.used.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.shared.touch();
        self.shared.vitals.streams.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Slot {
    /// Sends the request and gives the answer's head. The request's body goes its own way beside the answer.
    pub(super) async fn send(&mut self, head: &mut Head, body: RequestBody) -> Result<Response<()>, Failure> {
        // Here a body that nobody wants harms no other request, and many a server says no 100.
        if let Some(expectation) = head.expectation.take() {
            expectation.meet();
            head.parts.headers.remove(EXPECT);
        }
        let (mut sender, scheme) = (self.shared.sender.clone(), self.shared.scheme.clone());
        let (guard, cancelled) = oneshot::channel();
        self.upload = Some(guard);
        if let Err(error) = poll_fn(|cx| sender.poll_ready(cx)).await {
            return Err(Failure::Unsent(Box::new(body), error.into()));
        }
        let is_over = body.is_end_stream();
        let sent = sender.send_request(translate(head, body.size_hint().exact(), scheme), is_over);
        let (mut answer, upload) = sent.map_err(|error| Failure::Broken(error.into()))?;
        let rest = if is_over {
            None
        } else {
            let (give_back, rest) = oneshot::channel();
            tokio::spawn(Upload::new(body, upload, cancelled, give_back));
            Some(rest)
        };
        let answered = poll_fn(|cx| {
            while let Poll::Ready(Some(Ok(interim))) = answer.poll_informational(cx) {
                if let Some(hints) = &head.hints {
                    hints.say(
                        interim.status(),
                        interim.headers().iter().map(|(name, value)| (name.as_str(), value.as_bytes())),
                    );
                }
            }
            Pin::new(&mut answer).poll(cx)
        });
        let error = match answered.await {
            Ok(answer) => {
                let (head, body) = Answer::of(answer);
                self.answer = body;
                return Ok(head);
            }
            Err(error) if !is_unprocessed(&error) => return Err(Failure::Broken(error.into())),
            Err(error) => error,
        };
        // What was not processed may go out once more, if its body is still all there.
        let body = match rest {
            None => Some(RequestBody::empty()),
            Some(rest) => rest.await.ok(),
        };
        Err(match body {
            Some(body) => Failure::Unsent(Box::new(body), error.into()),
            None => Failure::Broken(error.into()),
        })
    }

    /// The next piece of the answer's body.
    pub(super) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.answer.as_mut().map_or(Poll::Ready(None), |answer| answer.poll_frame(cx))
    }

    /// Whether nothing is left of the answer's body.
    pub(super) fn is_answered(&self) -> bool {
        self.answer.as_ref().is_none_or(Answer::is_over)
    }

    /// How much is left of the answer's body.
    pub(super) fn size_hint(&self) -> SizeHint {
        self.answer.as_ref().map_or(SizeHint::with_exact(0), Answer::size_hint)
    }
}

/// RFC 9113 §8.7: a refused stream, or one above the last that a GOAWAY names; h2 gives the remote GOAWAY only to those.
pub(super) fn is_unprocessed(error: &h2::Error) -> bool {
    error.is_remote() && (error.is_go_away() || error.reason() == Some(Reason::REFUSED_STREAM))
}

/// The head as HTTP/2 writes it (RFC 9113 §8.3.1): `Host` becomes `:authority`, and nothing speaks of a connection.
fn translate(Head { parts: head, ours, .. }: &Head, length: Option<u64>, scheme: Scheme) -> Request<()> {
    let mut request = Request::new(());
    *request.version_mut() = Version::HTTP_2;
    request.method_mut().clone_from(&head.method);
    let mut headers = head.headers.clone();
    ours.settle(&mut headers);
    headers.remove(CONNECTION);
    headers.remove(TRANSFER_ENCODING);
    if let Some(length) = length.filter(|length| *length > 0) {
        headers.insert(http::header::CONTENT_LENGTH, length.into());
    }
    let host = headers.remove(HOST);
    let mut target = head.uri.clone().into_parts();
    target.scheme = Some(scheme);
    target.authority = host.as_ref().and_then(|host| Authority::try_from(host.as_bytes()).ok());
    target.path_and_query.get_or_insert(PathAndQuery::from_static("/"));
    match Uri::from_parts(target) {
        Ok(uri) => *request.uri_mut() = uri,
        Err(_) => {
            // A `Host` that is no authority: h2 takes a bare path for a request that came from HTTP/1.1, with its `Host`.
            *request.version_mut() = Version::HTTP_11;
            request.uri_mut().clone_from(&head.uri);
            host.map(|host| headers.insert(HOST, host));
        }
    }
    *request.headers_mut() = headers;
    request
}

/// Runs the connection until it ends, is needed no more, or does not answer when it is asked.
async fn drive<I>(mut connection: Connection<I, Bytes>, watched: Watched, over: CancellationToken)
where
    I: AsyncRead + AsyncWrite + Unpin,
{
    let pings = connection.ping_pong();
    let outcome = tokio::select! {
        outcome = &mut connection => outcome,
        () = watch(pings, &watched) => {
            tracing::debug!("an upstream's HTTP/2 connection does not answer any more");
            return;
        }
        () = over.cancelled() => {
            // Nobody holds it, so its next turn says goodbye.
            timeout(GOODBYE, connection).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = outcome {
        tracing::debug!(%error, "an upstream's HTTP/2 connection ended");
    }
}

/// Ends once a ping stays without an answer.
async fn watch(pings: Option<PingPong>, Watched { socket, vitals, ping: (silent, pong_within) }: &Watched) {
    // There is one for whoever asks first.
    let Some(mut pings) = pings else { return std::future::pending().await };
    let mut silences = 0;
    loop {
        sleep(*silent).await;
        if socket.heard() {
            socket.begin();
            vitals.begun.store(false, Ordering::Relaxed);
            silences = 0;
            continue;
        }
        silences += 1;
        let is_needed = vitals.streams.load(Ordering::Relaxed) > 0;
        let has_begun = vitals.begun.swap(false, Ordering::Relaxed);
        if !is_needed || !(has_begun || silences % PATIENCE == 0) {
            continue;
        }
        match timeout(*pong_within, pings.ping(Ping::opaque())).await {
            Ok(Ok(_)) => {}
            // The connection's own end says more.
            Ok(Err(_)) => std::future::pending().await,
            Err(_) => return,
        }
    }
}
