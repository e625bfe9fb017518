//! The stream of a client's connection, with what its clock must know and its place under the cap.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::clients::Place;
use super::clock::Activity;
use super::stream::Stream;

/// Lives as long as its socket, also when a tunnel has taken it over; so does its place under the cap.
#[derive(Debug)]
pub(super) struct ClientIo {
    stream: Stream,
    activity: Arc<Activity>,
    ended: bool,
    beginning: Beginning,
    _place: Place,
}

/// RFC 9113 §3.4: how a connection of HTTP/2 begins, and no request of HTTP/1.1.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What is known of a connection's first bytes.
#[derive(Debug)]
enum Beginning {
    /// They have been passed on, or are not looked at.
    Past,
    /// These came, and all of the preface could still follow.
    Awaited(Vec<u8>),
    /// The preface came: whoever reads now is not the one to read it.
    Http2(Bytes),
    /// To be read before anything else.
    Kept(Bytes),
}

impl ClientIo {
    /// With `is_open`, the first bytes are looked at: where they are the preface of HTTP/2 nothing is read, `activity` says
    /// so, and [`Self::rewound`] gives them to whoever reads next.
    pub(super) fn new(stream: Stream, activity: Arc<Activity>, place: Place, is_open: bool) -> Self {
        let beginning = if is_open { Beginning::Awaited(Vec::new()) } else { Beginning::Past };
        Self { stream, activity, ended: false, beginning, _place: place }
    }

    /// What its clock goes by.
    pub(super) fn activity(&self) -> &Arc<Activity> {
        &self.activity
    }

    /// Begins anew with the first bytes.
    pub(super) fn rewound(mut self) -> Self {
        if let Beginning::Http2(bytes) = self.beginning {
            self.beginning = Beginning::Kept(bytes);
        }
        self
    }

    /// Has `bytes`, which were read already, read again before what follows them.
    pub(super) fn keep(&mut self, bytes: Bytes) {
        self.beginning = Beginning::Kept(bytes);
    }

    /// Reads while the beginning is not past. Of a request of HTTP/1.1 that comes in one piece nothing is copied.
    #[cold]
    fn poll_beginning(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            match &mut self.beginning {
                Beginning::Past => return self.poll_stream(cx, buf),
                Beginning::Http2(_) => return Poll::Pending,
                Beginning::Kept(bytes) => {
                    let count = bytes.len().min(buf.remaining());
                    buf.put_slice(&bytes[..count]);
                    bytes.advance(count);
                    if bytes.is_empty() {
                        self.beginning = Beginning::Past;
                    }
                    // What had come before the last answer ended begins a head all the same, and that head must end.
                    self.activity.heard();
                    return Poll::Ready(Ok(()));
                }
                Beginning::Awaited(seen) => {
                    let mut seen = std::mem::take(seen);
                    let before = buf.filled().len();
                    let read = self.poll_stream(cx, buf);
                    let fresh = &buf.filled()[before..];
                    if seen.is_empty() && !is_preface(fresh) {
                        self.beginning = if read.is_ready() { Beginning::Past } else { Beginning::Awaited(seen) };
                        return read;
                    }
                    seen.extend_from_slice(fresh);
                    let is_over = fresh.is_empty();
                    buf.set_filled(before);
                    if read.is_pending() {
                        self.beginning = Beginning::Awaited(seen);
                        return read;
                    }
                    ready!(read)?;
                    self.beginning = if !is_preface(&seen) || is_over {
                        Beginning::Kept(seen.into())
                    } else if seen.len() < PREFACE.len() {
                        Beginning::Awaited(seen)
                    } else {
                        self.activity.speaks_http2();
                        Beginning::Http2(seen.into())
                    };
                }
            }
        }
    }

    fn poll_stream(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if read.is_ready() {
            if buf.filled().len() > before {
                self.activity.heard();
            } else {
                self.ended = true;
            }
        }
        read
    }

    /// Whether the client has said its last byte.
    pub(super) fn has_ended(&self) -> bool {
        self.ended
    }

    /// Writes hints, which go before the answer that they were said with. While that is waited for, hyper has given us all that it
    /// has, unless the kernel would not take it: then the last answer is not over, and no place for a hint.
    fn poll_hints(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { stream, activity, .. } = self;
        if !activity.hints.is_any() {
            return Poll::Ready(Ok(()));
        }
        let written =
            activity.hints.poll_write(activity.unwritten().0, |bytes| Pin::new(&mut *stream).poll_write(cx, bytes));
        if written.is_pending() { self.note(written) } else { written }
    }

    fn note<T>(&self, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        self.activity.written(written.is_ready());
        written
    }
}

impl AsyncRead for ClientIo {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if let Beginning::Past = this.beginning { this.poll_stream(cx, buf) } else { this.poll_beginning(cx, buf) }
    }
}

/// Whether `bytes` are the preface, or as much of it as they can be.
fn is_preface(bytes: &[u8]) -> bool {
    !bytes.is_empty() && PREFACE.iter().zip(bytes).all(|(wanted, byte)| wanted == byte)
}

impl AsyncWrite for ClientIo {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_hints(cx))?;
        let written = Pin::new(&mut this.stream).poll_write(cx, buf);
        this.activity.tells();
        this.note(written)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_hints(cx))?;
        let written = Pin::new(&mut this.stream).poll_write_vectored(cx, bufs);
        this.activity.tells();
        this.note(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_hints(cx))?;
        let flushed = Pin::new(&mut this.stream).poll_flush(cx);
        // TLS takes bytes that the kernel would not: until they are gone, nobody else may have this stream.
        this.note(flushed)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use rcgen::{CertifiedKey, generate_simple_self_signed};
    use rustls::pki_types::PrivateKeyDer;
    use rustls::{ClientConfig, RootCertStore, ServerConfig};
    use tokio::io::AsyncReadExt as _;
    use tokio::net::UnixStream;
    use tokio::sync::Semaphore;
    use tokio_rustls::{TlsAcceptor, TlsConnector};

    use super::super::open::Counter;
    use super::super::stream::Socket;
    use super::*;

    #[tokio::test]
    async fn what_tls_holds_back_counts_as_unwritten_until_the_client_reads() {
        let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["a".to_owned()]).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(cert.der().clone()).unwrap();
        let key = PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
        let server = ServerConfig::builder().with_no_client_auth().with_single_cert(vec![cert.der().clone()], key);
        let client = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (accepted, connected) = tokio::join!(
            TlsAcceptor::from(Arc::new(server.unwrap())).accept(Socket::Unix(ours)),
            TlsConnector::from(Arc::new(client)).connect("a".try_into().unwrap(), theirs)
        );
        let permit = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
        let place = Place::new(permit, Counter::default().count());
        let stream = Stream::Tls(Box::new(accepted.unwrap()));
        let mut io = ClientIo::new(stream, Arc::default(), place, false);

        let is_held_back = poll_fn(|cx| {
            for _ in 0..1_000 {
                let written = Pin::new(&mut io).poll_write(cx, &[0; 1_024]);
                if written.is_pending() || Pin::new(&mut io).poll_flush(cx).is_pending() {
                    return Poll::Ready(written.is_ready());
                }
            }
            Poll::Ready(false)
        });
        assert!(is_held_back.await, "TLS took the bytes and the kernel did not");
        assert!(io.activity().unwritten().0);
        let mut client = connected.unwrap();
        let read =
            tokio::spawn(async move { while client.read(&mut [0; 4_096]).await.is_ok_and(|count| count > 0) {} });
        poll_fn(|cx| Pin::new(&mut io).poll_flush(cx)).await.unwrap();
        assert!(!io.activity().unwritten().0);
        drop(io);
        read.await.unwrap();
    }
}
