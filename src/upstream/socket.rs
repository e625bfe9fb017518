//! The socket of an upstream connection, shared between the protocol, which reads and writes it, and the pool, which peeks at it.

use std::io::{self, ErrorKind, IoSlice};
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

/// The kinds of socket; told apart on each call, because a branch costs less than a virtual call.
#[derive(Debug)]
pub(super) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// The same call on whichever it is.
macro_rules! on_each {
    ($stream:expr, $inner:ident => $call:expr) => {
        match $stream {
            Stream::Tcp($inner) => $call,
            Stream::Unix($inner) => $call,
        }
    };
}

impl Stream {
    fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_each!(self, stream => stream.poll_write_ready(cx))
    }

    fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_each!(self, stream => stream.poll_read_ready(cx))
    }

    fn try_io<R>(&self, interest: Interest, io: impl FnOnce() -> io::Result<R>) -> io::Result<R> {
        on_each!(self, stream => stream.try_io(interest, io))
    }

    fn try_read_buf(&self, buf: &mut ReadBuf<'_>) -> io::Result<usize> {
        on_each!(self, stream => stream.try_read_buf(buf))
    }

    fn try_write(&self, buf: &[u8]) -> io::Result<usize> {
        on_each!(self, stream => stream.try_write(buf))
    }

    fn try_write_vectored(&self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        on_each!(self, stream => stream.try_write_vectored(bufs))
    }

    fn socket(&self) -> socket2::SockRef<'_> {
        on_each!(self, stream => socket2::SockRef::from(stream))
    }
}

/// One socket and what is known of it. The flags are touched by one thread at a time; they order nothing.
#[derive(Debug)]
pub(super) struct Socket {
    stream: Stream,
    heard: AtomicBool,
    unwritable: AtomicBool,
}

impl Socket {
    pub(super) fn new(stream: Stream) -> Arc<Self> {
        Arc::new(Self { stream, heard: AtomicBool::new(false), unwritable: AtomicBool::new(false) })
    }

    /// Forgets what was heard: a new request begins.
    pub(super) fn begin(&self) {
        self.heard.store(false, Ordering::Relaxed);
    }

    /// Whether any byte came since [`Socket::begin`].
    pub(super) fn heard(&self) -> bool {
        self.heard.load(Ordering::Relaxed)
    }

    /// Whether nothing was refused that was written.
    pub(super) fn is_writable(&self) -> bool {
        !self.unwritable.load(Ordering::Relaxed)
    }

    /// Whether an idle connection is still good: neither closed nor with bytes that nobody asked for. Asks the kernel,
    /// because the runtime may not have seen the end yet.
    pub(super) fn is_quiet(&self) -> bool {
        // The socket is non-blocking, so an empty queue is `WouldBlock`, and anything else is an end or a surprise.
        let mut byte = [MaybeUninit::uninit()];
        matches!(self.stream.socket().peek(&mut byte), Err(error) if error.kind() == ErrorKind::WouldBlock)
    }
}

/// The protocol's side of a [`Socket`].
#[derive(Debug, Clone)]
pub(super) struct SocketIo(pub(super) Arc<Socket>);

impl SocketIo {
    /// A failed write says nothing about an answer that has come already (a 413 while the body is still being sent), so it
    /// passes as done, and the reading side tells the answer or the end (RFC 9112 §9.5).
    fn write(
        &self,
        cx: &mut Context<'_>,
        len: usize,
        write: impl Fn(&Stream) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        let stream = &self.0.stream;
        loop {
            ready!(stream.poll_write_ready(cx))?;
            let mut written = None;
            let outcome = stream.try_io(Interest::WRITABLE, || {
                let count = write(stream)?;
                written = Some(count);
                // A short write has filled the buffer: the next try waits for the kernel's word.
                if 0 < count && count < len { Err(ErrorKind::WouldBlock.into()) } else { Ok(()) }
            });
            match (written, outcome) {
                (Some(count), _) => return Poll::Ready(Ok(count)),
                (None, Err(error)) if error.kind() == ErrorKind::WouldBlock => {}
                (None, Err(error)) if matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => {
                    self.0.unwritable.store(true, Ordering::Relaxed);
                    return Poll::Ready(Ok(len));
                }
                (None, Err(error)) => return Poll::Ready(Err(error)),
                (None, Ok(())) => return Poll::Ready(Ok(0)),
            }
        }
    }
}

impl AsyncRead for SocketIo {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let stream = &self.0.stream;
        loop {
            ready!(stream.poll_read_ready(cx))?;
            let room = buf.remaining();
            let mut read = None;
            let outcome = stream.try_io(Interest::READABLE, || {
                let count = stream.try_read_buf(buf)?;
                read = Some(count);
                // A short read has emptied the queue: without this, each answer would cost one more read that finds nothing.
                if 0 < count && count < room { Err(ErrorKind::WouldBlock.into()) } else { Ok(()) }
            });
            match (read, outcome) {
                (Some(count), _) => {
                    if count > 0 {
                        self.0.heard.store(true, Ordering::Relaxed);
                    }
                    return Poll::Ready(Ok(()));
                }
                (None, Err(error)) if error.kind() == ErrorKind::WouldBlock => {}
                (None, Err(error)) => return Poll::Ready(Err(error)),
                (None, Ok(())) => return Poll::Ready(Ok(())),
            }
        }
    }
}

impl AsyncWrite for SocketIo {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.write(cx, buf.len(), |stream| stream.try_write(buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.write(cx, bufs.iter().map(|buf| buf.len()).sum(), |stream| stream.try_write_vectored(bufs))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.0.stream.socket().shutdown(std::net::Shutdown::Write) {
            Err(error) if error.kind() != ErrorKind::NotConnected => Poll::Ready(Err(error)),
            _ => Poll::Ready(Ok(())),
        }
    }
}
