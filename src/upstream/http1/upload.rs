//! A request on its way out (RFC 9112 §6, §7.1): its head and its body, in as few writes as they come.

use std::future::poll_fn;
use std::io::{self, IoSlice, Write as _};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use http::header::{
    AUTHORIZATION, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HOST, MAX_FORWARDS,
    SET_COOKIE, TE, TRAILER, TRANSFER_ENCODING,
};
use http::{HeaderMap, HeaderName};
use http_body::{Body as _, Frame};
use tokio::io::AsyncWrite;
use tokio::sync::oneshot;

use super::Error;
use super::head::{self, Length};
use super::io::Io;
use crate::upstream::body::RequestBody;
use crate::upstream::head::Head;

/// The most that an idle connection keeps for its next request's head, in bytes.
const KEPT: usize = 16 * 1024;

/// What is to be written. Empty between two requests.
#[derive(Debug, Default)]
pub(super) struct Upload {
    /// The head, or what goes before `data`; written up to `written`.
    before: Vec<u8>,
    written: usize,
    data: Bytes,
    after: &'static [u8],
    /// Dropped with its last byte.
    body: Option<Box<Sending>>,
}

#[derive(Debug)]
struct Sending {
    body: RequestBody,
    /// Bytes still to come; `None` for chunks.
    left: Option<u64>,
    /// What `Trailer` announces.
    trailers: Vec<HeaderName>,
}

impl Upload {
    /// Begins with a request.
    pub(super) fn begin(&mut self, head: &Head, body: RequestBody) {
        let length = match body.size_hint().exact() {
            _ if body.is_end_stream() => Length::None,
            Some(length) => Length::Known(length),
            None => Length::Chunked,
        };
        self.before.clear();
        self.written = 0;
        head::write(&mut self.before, head, length);
        let left = match length {
            Length::None | Length::Known(0) => return,
            Length::Known(length) => Some(length),
            Length::Chunked => None,
        };
        let trailers = if left.is_none() { announced(&head.parts.headers) } else { Vec::new() };
        self.body = Some(Box::new(Sending { body, left, trailers }));
    }

    /// Lets go of a buffer that an unusual head has made large.
    pub(super) fn rest(&mut self) {
        if self.before.capacity() > KEPT {
            self.before = Vec::new();
        }
    }

    /// Writes on. Ready once all of it is written; pending where the connection or the body has to be waited for.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, io: &mut Io) -> Poll<Result<(), Error>> {
        loop {
            // What is there of the body goes out with the head.
            let is_filled = self.poll_fill(cx)?;
            ready!(self.poll_write(cx, io))?;
            if self.body.is_none() {
                return Poll::Ready(Ok(()));
            }
            ready!(is_filled);
        }
    }

    /// Runs beside the answer, until all is written or nobody waits for that any more.
    pub(super) async fn run(mut self, mut io: Io, mut told: oneshot::Sender<Result<(), Error>>) {
        let outcome = poll_fn(|cx| match told.poll_closed(cx) {
            Poll::Ready(()) => Poll::Ready(None),
            Poll::Pending => self.poll(cx, &mut io).map(Some),
        });
        if let Some(outcome) = outcome.await {
            drop((self, io));
            // Whoever waited may have gone in this moment.
            let _ = told.send(outcome);
        }
    }

    /// Takes the next piece of the body, unless one waits to be written.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        loop {
            let Some(sending) = &mut self.body else { return Poll::Ready(Ok(())) };
            if !self.data.is_empty() {
                return Poll::Ready(Ok(()));
            }
            let frame = ready!(Pin::new(&mut sending.body).poll_frame(cx)).transpose().map_err(Error::RequestBody)?;
            match frame.map(Frame::into_data) {
                Some(Ok(data)) if data.is_empty() => {}
                Some(Ok(data)) => self.put_data(data)?,
                Some(Err(frame)) => self.put_end(frame.into_trailers().ok())?,
                None => self.put_end(None)?,
            }
        }
    }

    fn put_data(&mut self, data: Bytes) -> Result<(), Error> {
        let Some(sending) = &mut self.body else { return Ok(()) };
        let is_over = match &mut sending.left {
            Some(left) => {
                let length = data.len() as u64;
                *left = left.checked_sub(length).ok_or_else(|| Error::RequestBody("it is too long".into()))?;
                *left == 0
            }
            None => {
                // Nothing that grows can fail to be written to.
                let _ = write!(self.before, "{:x}\r\n", data.len());
                let is_over = sending.body.is_end_stream();
                self.after = if is_over { b"\r\n0\r\n\r\n" } else { b"\r\n" };
                is_over
            }
        };
        self.data = data;
        if is_over {
            self.body = None;
        }
        Ok(())
    }

    fn put_end(&mut self, trailers: Option<HeaderMap>) -> Result<(), Error> {
        let Some(sending) = self.body.take() else { return Ok(()) };
        if sending.left.is_some() {
            return Err(Error::RequestBody("it is too short".into()));
        }
        self.before.extend_from_slice(b"0\r\n");
        if let Some(mut trailers) = trailers {
            let is_unannounced =
                |name: &&HeaderName| !sending.trailers.contains(name) || NOT_IN_TRAILERS.contains(name);
            let unannounced: Vec<_> = trailers.keys().filter(is_unannounced).cloned().collect();
            for name in unannounced {
                trailers.remove(name);
            }
            head::write_fields(&mut self.before, &trailers);
        }
        self.before.extend_from_slice(b"\r\n");
        Ok(())
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, io: &mut Io) -> Poll<Result<(), Error>> {
        let before = self.before.len();
        if before == 0 && self.data.is_empty() {
            return Poll::Ready(Ok(()));
        }
        loop {
            let first = &self.before[self.written..];
            let left = first.len() + self.data.len() + self.after.len();
            if left == 0 {
                break;
            }
            let count = if first.len() == left {
                ready!(Pin::new(&mut *io).poll_write(cx, first))?
            } else {
                let slices = [first, &self.data, self.after].map(IoSlice::new);
                ready!(Pin::new(&mut *io).poll_write_vectored(cx, &slices))?
            };
            if count == 0 {
                return Poll::Ready(Err(io::Error::from(io::ErrorKind::WriteZero).into()));
            }
            self.advance(count);
        }
        ready!(Pin::new(&mut *io).poll_flush(cx))?;
        self.before.clear();
        self.written = 0;
        self.data = Bytes::new();
        Poll::Ready(Ok(()))
    }

    fn advance(&mut self, count: usize) {
        let first = count.min(self.before.len() - self.written);
        self.written += first;
        let second = (count - first).min(self.data.len());
        self.data.advance(second);
        self.after = &self.after[count - first - second..];
    }
}

/// What RFC 9110 §6.5.1 keeps out of trailers.
const NOT_IN_TRAILERS: [HeaderName; 12] = [
    AUTHORIZATION,
    CACHE_CONTROL,
    CONTENT_ENCODING,
    CONTENT_LENGTH,
    CONTENT_RANGE,
    CONTENT_TYPE,
    HOST,
    MAX_FORWARDS,
    SET_COOKIE,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
];

/// The names in `Trailer`; nothing else is sent as one.
fn announced(headers: &HeaderMap) -> Vec<HeaderName> {
    let lines = headers.get_all(TRAILER).iter();
    let names = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b','));
    names.filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok()).collect()
}
