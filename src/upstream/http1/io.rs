//! The bytes of one connection, plain or in TLS (RFC 8446), for whoever reads and for whoever writes.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::unconstrained;
use tokio_rustls::client::TlsStream;

use crate::upstream::socket::SocketIo;

/// A connection's bytes. A clone is the same connection: one reads, the other writes. The lock is never contended: both are
/// on one worker.
#[derive(Debug, Clone)]
pub(in crate::upstream) enum Io {
    Plain(SocketIo),
    Tls(Arc<Mutex<TlsStream<SocketIo>>>),
}

/// The same call on whichever it is.
macro_rules! on_each {
    ($io:expr, $inner:ident => $call:expr) => {
        match $io.get_mut() {
            Io::Plain($inner) => {
                let $inner = Pin::new($inner);
                $call
            }
            Io::Tls(shared) => {
                let mut guard = lock(shared);
                let $inner = Pin::new(&mut *guard);
                $call
            }
        }
    };
}

impl Io {
    pub(in crate::upstream) fn tls(stream: TlsStream<SocketIo>) -> Self {
        Self::Tls(Arc::new(Mutex::new(stream)))
    }

    /// Whether an idle connection is still good: neither ended nor with bytes that nobody asked for. Asks the kernel only
    /// where the runtime has heard of something.
    pub(super) fn is_quiet(&mut self) -> bool {
        let mut byte = [0];
        // In TLS what arrived may be a ticket or a new key (RFC 8446 §4.6), which this takes in and which says nothing. A task
        // that has used its turn up would be told to wait instead.
        let read = poll_fn(|cx| Pin::new(&mut *self).poll_read(cx, &mut ReadBuf::new(&mut byte)));
        pin!(unconstrained(read)).poll(&mut Context::from_waker(Waker::noop())).is_pending()
    }
}

/// A panic between two calls leaves a stream that fails by itself.
fn lock(stream: &Mutex<TlsStream<SocketIo>>) -> MutexGuard<'_, TlsStream<SocketIo>> {
    stream.lock().unwrap_or_else(PoisonError::into_inner)
}

impl AsyncRead for Io {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        on_each!(self, io => io.poll_read(cx, buf))
    }
}

impl AsyncWrite for Io {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        on_each!(self, io => io.poll_write(cx, buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        on_each!(self, io => io.poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(io) => io.is_write_vectored(),
            Self::Tls(io) => lock(io).is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_each!(self, io => io.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_each!(self, io => io.poll_shutdown(cx))
    }
}

/// A connection after its 101 (RFC 9110 §7.8): what came behind that answer's head is read first.
#[derive(Debug)]
pub(in crate::upstream) struct Upgraded {
    io: Io,
    received: BytesMut,
}

impl Upgraded {
    pub(super) fn new(io: Io, received: BytesMut) -> Self {
        // A tunnel may be idle for hours, and then holds no buffer.
        let received = if received.is_empty() { BytesMut::new() } else { received };
        Self { io, received }
    }
}

impl AsyncRead for Upgraded {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.received.is_empty() {
            return Pin::new(&mut self.io).poll_read(cx, buf);
        }
        let count = self.received.len().min(buf.remaining());
        buf.put_slice(&self.received[..count]);
        self.received.advance(count);
        if self.received.is_empty() {
            self.received = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Upgraded {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
