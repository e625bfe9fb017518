//! HTTP/1.1 to one instance (RFC 9112): one connection, one request at a time, driven by whoever waits for the answer.
//!
//! hyper's client is not used here, because its connections are tasks of their own: each request and each piece of an answer
//! would wake another task, which is a third of all that a small request costs.

mod chunks;
mod head;
mod io;
#[cfg(test)]
mod tests;
mod upload;

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http::Response;
use http_body::{Frame, SizeHint};
use tokio::sync::oneshot;
use tokio_util::io::poll_read_buf;

use super::body::RequestBody;
use super::head::Head;
use super::socket::Socket;
use crate::message::body::{BodyError, PIECE};
use chunks::Decoded;
use head::Framing;
pub(super) use io::{Io, Upgraded};
use upload::Upload;

/// The most fields of a head or of trailers.
const HEADERS: usize = 100;
/// What is read at a time at first, in bytes; up to a [`PIECE`].
const FIRST_READ: usize = 8 * 1024;

/// Why an answer is not there, or not whole.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("the connection to the upstream broke")]
    Io(#[from] std::io::Error),
    #[error("the connection was closed before the answer's head")]
    Closed,
    #[error("the connection was closed in the middle of the answer")]
    BrokenOff,
    #[error("the answer's head is not HTTP/1.1")]
    Head(#[from] httparse::Error),
    #[error("the answer's head is too large")]
    TooLarge,
    #[error("{0}")]
    Nonsense(&'static str),
    #[error("the request's body failed")]
    RequestBody(#[source] BodyError),
}

impl Error {
    /// Whether what came is not HTTP/1.1, or can be read in two ways.
    pub(super) fn is_nonsense(&self) -> bool {
        matches!(self, Self::Head(_) | Self::TooLarge | Self::Nonsense(_))
    }
}

/// One connection.
#[derive(Debug)]
pub(super) struct Connection {
    io: Io,
    socket: Arc<Socket>,
    upload: Upload,
    progress: Progress,
    /// What was read and belongs to nobody yet.
    received: BytesMut,
    /// How much of it holds no end of a head.
    searched: usize,
    /// What is read at a time, in bytes.
    room: usize,
    /// What is still to come of the answer's body.
    framing: Framing,
    keeps_alive: bool,
}

/// How far the request is.
#[derive(Debug)]
enum Progress {
    Written,
    /// Written by whoever waits for the answer's head.
    Here,
    /// Written by a task beside the answer, which came first; dropped, it ends.
    Beside(oneshot::Receiver<Result<(), Error>>),
}

impl Connection {
    /// HTTP/1.1 over `io`, whose socket is `socket`.
    pub(super) fn new(io: Io, socket: Arc<Socket>) -> Self {
        Self {
            io,
            socket,
            upload: Upload::default(),
            progress: Progress::Written,
            received: BytesMut::new(),
            searched: 0,
            room: FIRST_READ,
            framing: Framing::Length(0),
            keeps_alive: true,
        }
    }

    /// Whether any byte of the answer came.
    pub(super) fn heard(&self) -> bool {
        self.socket.heard()
    }

    /// Whether an idle connection is still good for a request; `surely`, if that request can't be sent twice.
    pub(super) fn is_quiet(&mut self, surely: bool) -> bool {
        self.io.is_quiet() && (!surely || self.socket.is_quiet())
    }

    /// Whether the present exchange is over and left nothing behind.
    pub(super) fn is_reusable(&self) -> bool {
        let is_over = self.is_answered() && matches!(self.progress, Progress::Written);
        is_over && self.keeps_alive && self.received.is_empty() && self.socket.is_writable()
    }

    /// Whether the answer is over and the request is not, and may be.
    pub(super) fn goes_on(&self) -> bool {
        self.is_answered() && self.keeps_alive && !matches!(self.progress, Progress::Written)
    }

    /// The exchange is over; whatever was large is let go.
    pub(super) fn rest(&mut self) {
        self.upload.rest();
        if self.room > FIRST_READ {
            self.room = FIRST_READ;
            self.received = BytesMut::new();
        }
    }

    /// Sends a request and gives the head of its answer, whose fields take the place of the request's in `head`.
    pub(super) fn send(
        &mut self,
        head: &mut Head,
        body: RequestBody,
    ) -> impl Future<Output = Result<Response<()>, Error>> {
        self.socket.begin();
        self.upload.begin(head, body);
        self.progress = Progress::Here;
        let mut is_begun = false;
        poll_fn(move |cx| {
            // Reading comes first, so that a body without end can't keep an answer waiting; but nothing is an answer before
            // anything was asked.
            if is_begun && let Poll::Ready(answer) = self.poll_head(cx, head) {
                return Poll::Ready(answer);
            }
            if let Poll::Ready(Err(error)) = self.poll_written(cx) {
                return Poll::Ready(Err(error));
            }
            if std::mem::replace(&mut is_begun, true) { Poll::Pending } else { self.poll_head(cx, head) }
        })
    }

    fn poll_head(&mut self, cx: &mut Context<'_>, head: &mut Head) -> Poll<Result<Response<()>, Error>> {
        loop {
            if ready!(self.poll_receive(cx))? == 0 {
                return Poll::Ready(Err(Error::Closed));
            }
            let Some(answer) = head::read(&mut self.received, &mut self.searched, head)? else {
                continue;
            };
            self.framing = answer.framing;
            self.keeps_alive = answer.keeps_alive;
            if let Framing::Length(length) = self.framing {
                let length = usize::try_from(length).unwrap_or(usize::MAX);
                self.room = length.clamp(FIRST_READ, PIECE);
            }
            if matches!(self.progress, Progress::Here) {
                // The rest of the request must not wait for a reader of the answer.
                let (told, outcome) = oneshot::channel();
                tokio::spawn(std::mem::take(&mut self.upload).run(self.io.clone(), told));
                self.progress = Progress::Beside(outcome);
            }
            return Poll::Ready(Ok(Response::from_parts(answer.head, ())));
        }
    }

    /// Reads once: how many bytes, none at the end.
    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, Error>> {
        self.received.reserve(self.room);
        let free = self.received.capacity() - self.received.len();
        let count = ready!(poll_read_buf(Pin::new(&mut self.io), cx, &mut self.received))?;
        if count == free {
            self.room = (self.room * 2).min(PIECE);
        }
        Poll::Ready(Ok(count))
    }

    /// Whether all of the answer was handed on.
    pub(super) fn is_answered(&self) -> bool {
        matches!(self.framing, Framing::Length(0))
    }

    /// The answer's body, if all of it came with its head and the request is written.
    pub(super) fn take_whole_body(&mut self) -> Option<Bytes> {
        let (Framing::Length(length), Progress::Written) = (&self.framing, &self.progress) else { return None };
        let length = usize::try_from(*length).ok().filter(|length| *length <= self.received.len())?;
        self.framing = Framing::Length(0);
        Some(self.received.split_to(length).freeze())
    }

    /// The next piece of the answer's body (RFC 9112 §6.3).
    pub(super) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.poll_piece(cx).map(|piece| piece.map_err(Into::into).transpose())
    }

    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Frame<Bytes>>, Error>> {
        if let Poll::Ready(Err(error)) = self.poll_written(cx) {
            return Poll::Ready(Err(error));
        }
        loop {
            match &mut self.framing {
                Framing::Length(0) => return Poll::Ready(Ok(None)),
                Framing::Length(left) if !self.received.is_empty() => {
                    let length = usize::try_from(*left).unwrap_or(usize::MAX).min(self.received.len());
                    *left -= length as u64;
                    return Poll::Ready(Ok(Some(Frame::data(self.received.split_to(length).freeze()))));
                }
                Framing::UntilClose if !self.received.is_empty() => {
                    return Poll::Ready(Ok(Some(Frame::data(self.received.split().freeze()))));
                }
                Framing::Chunked(chunks) => {
                    let decoded = chunks.decode(&mut self.received)?;
                    if matches!(decoded, Decoded::Trailers(_) | Decoded::End) {
                        self.framing = Framing::Length(0);
                    }
                    match decoded {
                        Decoded::Data(data) => return Poll::Ready(Ok(Some(Frame::data(data)))),
                        Decoded::Trailers(trailers) => return Poll::Ready(Ok(Some(Frame::trailers(trailers)))),
                        Decoded::End => return Poll::Ready(Ok(None)),
                        Decoded::More => {}
                    }
                }
                Framing::Length(_) | Framing::UntilClose => {}
            }
            if ready!(self.poll_receive(cx))? > 0 {
                continue;
            }
            if !matches!(self.framing, Framing::UntilClose) {
                return Poll::Ready(Err(Error::BrokenOff));
            }
            self.framing = Framing::Length(0);
        }
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        match self.framing {
            Framing::Length(left) => SizeHint::with_exact(left),
            _ => SizeHint::default(),
        }
    }

    /// Waits until the request is written, with the answer read to its end: whether the connection can be used again. Ends
    /// early where the upstream says more or nothing any more.
    pub(super) async fn finish(&mut self) -> bool {
        let written = poll_fn(|cx| match self.poll_written(cx) {
            Poll::Pending => self.poll_receive(cx).map(|_| false),
            Poll::Ready(written) => Poll::Ready(written.is_ok()),
        });
        written.await && self.is_reusable()
    }

    fn poll_written(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let written = match &mut self.progress {
            Progress::Written => return Poll::Ready(Ok(())),
            Progress::Here => ready!(self.upload.poll(cx, &mut self.io)),
            // Without a word it was stopped with the runtime.
            Progress::Beside(outcome) => ready!(Pin::new(outcome).poll(cx)).unwrap_or(Err(Error::BrokenOff)),
        };
        self.progress = Progress::Written;
        Poll::Ready(written)
    }

    /// After a 101: the connection, and what came behind the answer. `None` while the request is still being written.
    pub(super) fn into_upgraded(self) -> Option<Upgraded> {
        matches!(self.progress, Progress::Written).then(|| Upgraded::new(self.io, self.received))
    }
}
