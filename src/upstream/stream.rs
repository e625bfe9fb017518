//! One HTTP/2 stream: its request's body on the way out, and its answer's body on the way in.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream};
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, Response};
use http_body::{Body as _, Frame, SizeHint};
use tokio::sync::oneshot;

use super::body::RequestBody;
use crate::message::body::BodyError;

/// The most of a body that is kept to be sent again, in bytes. It holds what was sent anyway, without a copy.
const KEPT: usize = 64 * 1024;

/// An answer's body. It ends well only where the upstream said that it ended: every reset is an error.
#[derive(Debug)]
pub(super) struct Answer {
    stream: RecvStream,
    /// Bytes still to come, where the head told.
    left: Option<u64>,
}

impl Answer {
    /// The answer's head and its body, if it has one.
    pub(super) fn of(response: Response<RecvStream>) -> (Response<()>, Option<Self>) {
        let length = response.headers().get(CONTENT_LENGTH);
        let left = length.and_then(|length| length.to_str().ok()?.parse().ok());
        let (head, stream) = response.into_parts();
        (Response::from_parts(head, ()), (!stream.is_end_stream()).then_some(Self { stream, left }))
    }

    /// The next piece of it.
    pub(super) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Self { stream, left } = self;
        if let Some(data) = ready!(stream.poll_data(cx)) {
            let data = data?;
            // The next window is granted once the client has been given this.
            stream.flow_control().release_capacity(data.len())?;
            // h2 has compared the two already (RFC 9113 §8.1.1).
            *left = left.map(|left| left.saturating_sub(data.len() as u64));
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        match ready!(stream.poll_trailers(cx))? {
            Some(trailers) => Poll::Ready(Some(Ok(Frame::trailers(trailers)))),
            None => Poll::Ready(None),
        }
    }

    /// Whether nothing is left of it.
    pub(super) fn is_over(&self) -> bool {
        self.stream.is_end_stream()
    }

    /// How much is left of it.
    pub(super) fn size_hint(&self) -> SizeHint {
        self.left.map(SizeHint::with_exact).unwrap_or_default()
    }
}

/// Sends a request's body. Ready once it is sent, refused or not wanted any more.
#[derive(Debug)]
pub(super) struct Upload {
    body: Option<RequestBody>,
    stream: SendStream<Bytes>,
    cancelled: oneshot::Receiver<()>,
    give_back: Option<oneshot::Sender<RequestBody>>,
    /// What was taken from the body; `None` once that is too much to keep.
    kept: Option<Vec<Bytes>>,
    kept_length: usize,
    /// What there was no window for yet.
    waiting: Bytes,
    end: Option<End>,
    sent: bool,
}

#[derive(Debug)]
enum End {
    Data,
    Trailers(HeaderMap),
}

impl Upload {
    /// The body comes back by `give_back` if the request was not processed; the end of `cancelled` ends the stream.
    pub(super) fn new(
        body: RequestBody,
        stream: SendStream<Bytes>,
        cancelled: oneshot::Receiver<()>,
        give_back: oneshot::Sender<RequestBody>,
    ) -> Self {
        Self {
            body: Some(body),
            stream,
            cancelled,
            give_back: Some(give_back),
            kept: Some(Vec::new()),
            kept_length: 0,
            waiting: Bytes::new(),
            end: None,
            sent: false,
        }
    }

    /// The stream is reset, and whoever waits for the answer learns why.
    fn reset(&mut self) {
        let whole = self.end.is_some();
        let trailers = match self.end.take() {
            Some(End::Trailers(trailers)) => Some(trailers),
            _ => None,
        };
        let back = self.body.take().zip(self.kept.take()).map(|(body, kept)| body.rewound(kept, trailers, whole));
        // Nobody waits any more where the answer came or the client went.
        let _ = back.zip(self.give_back.take()).map(|(body, give_back)| give_back.send(body));
    }

    /// Whether the body may still be asked for once more: until the answer comes.
    fn may_be_wanted(&mut self, cx: &mut Context<'_>) -> bool {
        let wanted = |back: &mut oneshot::Sender<_>| back.poll_closed(cx).is_pending();
        self.kept.is_some() && self.give_back.as_mut().is_some_and(wanted)
    }

    fn keep(&mut self, data: &Bytes) {
        self.kept_length += data.len();
        if self.kept_length > KEPT {
            self.kept = None;
        }
        if let Some(kept) = &mut self.kept {
            kept.push(data.clone());
        }
    }

    /// Sends what waits, as far as there is a window for it.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), h2::Error>> {
        while !self.waiting.is_empty() {
            // Not more than what is in hand: a window reserved by one stream is none for the others.
            self.stream.reserve_capacity(self.waiting.len());
            let room = match self.stream.capacity() {
                0 => match ready!(self.stream.poll_capacity(cx)) {
                    Some(room) => room?,
                    None => return Poll::Ready(Err(Reason::CANCEL.into())),
                },
                room => room,
            };
            let piece = self.waiting.split_to(room.min(self.waiting.len()));
            if !piece.is_empty() {
                self.stream.send_data(piece, false)?;
            }
        }
        Poll::Ready(Ok(()))
    }

    fn finish(&mut self) -> Result<(), h2::Error> {
        match &self.end {
            Some(End::Trailers(trailers)) => self.stream.send_trailers(trailers.clone()),
            _ => self.stream.send_data(Bytes::new(), true),
        }
    }

    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), h2::Error>> {
        loop {
            ready!(self.poll_send(cx))?;
            if self.end.is_some() {
                return Poll::Ready(self.finish());
            }
            let Some(body) = &mut self.body else { return Poll::Ready(Ok(())) };
            match ready!(Pin::new(body).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => {
                        self.keep(&data);
                        self.waiting = data;
                    }
                    Err(frame) => self.end = frame.into_trailers().ok().map(End::Trailers),
                },
                Some(Err(_)) => {
                    // The client's fault, which the body remembers.
                    self.stream.send_reset(Reason::CANCEL);
                    self.kept = None;
                    return Poll::Ready(Ok(()));
                }
                None => self.end = Some(End::Data),
            }
        }
    }
}

impl Future for Upload {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        if Pin::new(&mut this.cancelled).poll(cx).is_ready() {
            this.stream.send_reset(Reason::CANCEL);
            return Poll::Ready(());
        }
        if this.stream.poll_reset(cx).is_ready() {
            this.reset();
            return Poll::Ready(());
        }
        if !this.sent {
            match ready!(this.poll_body(cx)) {
                Ok(()) => this.sent = true,
                Err(_) => {
                    this.reset();
                    return Poll::Ready(());
                }
            }
        }
        if this.may_be_wanted(cx) { Poll::Pending } else { Poll::Ready(()) }
    }
}
