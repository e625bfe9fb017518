//! A message body: our own bytes, or somebody else's stream passed on frame by frame.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;

/// The most of a body that is taken in and passed on at a time, in bytes. The kernel sends up to 64 KiB with all their headers as one
/// segment, which the network card cuts; of 64 KiB of data a crumb would be left, and cost as much as the rest.
pub const PIECE: usize = 60 * 1024;

/// What a streamed body may fail with; hyper then ends the downstream message as an error, never as a complete one.
pub type BodyError = Box<dyn std::error::Error + Send + Sync>;

/// A body, of a response or of a forwarded request.
#[derive(Debug)]
pub enum Body {
    /// Nothing.
    Empty,
    /// Our own bytes, sent once.
    Full(Option<Bytes>),
    /// What hyper reads from a connection, unwrapped and unboxed.
    Incoming(Incoming),
    /// A stream from an upstream.
    Stream(UnsyncBoxBody<Bytes, BodyError>),
}

impl Body {
    /// A body of our own.
    pub fn full(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        if bytes.is_empty() { Self::Empty } else { Self::Full(Some(bytes)) }
    }

    /// Somebody else's body, passed on with its trailers and its backpressure.
    pub fn stream<B>(body: B) -> Self
    where
        B: http_body::Body<Data = Bytes, Error = BodyError> + Send + 'static,
    {
        Self::Stream(UnsyncBoxBody::new(body))
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut *self {
            Self::Empty => Poll::Ready(None),
            Self::Full(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Incoming(body) => Pin::new(body).poll_frame(cx).map_err(Into::into),
            Self::Stream(body) => Pin::new(body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty | Self::Full(None) => true,
            Self::Full(Some(_)) => false,
            Self::Incoming(body) => body.is_end_stream(),
            Self::Stream(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty | Self::Full(None) => SizeHint::with_exact(0),
            Self::Full(Some(bytes)) => SizeHint::with_exact(bytes.len() as u64),
            Self::Incoming(body) => body.size_hint(),
            Self::Stream(body) => body.size_hint(),
        }
    }
}
