//! A small server of HTTP/1.1, or a wire to another one, that can go away and come back on the same port.

use std::convert::Infallible;
use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Notify;
use tokio::task::{AbortHandle, JoinSet};

use crate::runtime;

/// What a body may fail with on purpose.
pub(crate) type BodyError = Box<dyn std::error::Error + Send + Sync>;
/// An answer of a test server.
pub(crate) type Answer = Response<UnsyncBoxBody<Bytes, BodyError>>;

/// The connection that a request came by.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wire {
    /// Notified to cut the connection without a word.
    pub(crate) cut: Arc<Notify>,
    /// The first bytes that came in on it, as they were.
    pub(crate) received: Arc<Mutex<Vec<u8>>>,
}

/// The most that is kept of a connection's incoming bytes.
const WIRE_LIMIT: usize = 256 * 1024;

/// A bound port: serving, or refusing connections without giving the port away.
#[derive(Debug)]
pub(crate) struct Listener {
    address: SocketAddr,
    state: Mutex<State>,
    accepted: Arc<AtomicUsize>,
}

#[derive(Debug)]
enum State {
    Serving(AbortHandle),
    /// Bound but not listening: connections are refused, and nobody else gets the port.
    Refusing(#[expect(dead_code, reason = "held for the port")] TcpSocket),
    Between,
}

impl Listener {
    /// A port on 127.0.0.1 that refuses connections until [`Listener::serve`].
    pub(crate) fn reserve() -> Self {
        let socket = bound_socket(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).expect("a free port");
        let address = socket.local_addr().expect("a bound address");
        Self { address, state: Mutex::new(State::Refusing(socket)), accepted: Arc::default() }
    }

    /// How many connections were accepted so far.
    pub(crate) fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers requests with `handler`; connections of an earlier handler are cut.
    pub(crate) fn serve<H, F>(&self, handler: H)
    where
        H: Fn(Request<Incoming>, Wire) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Answer> + Send + 'static,
    {
        let accepted = Arc::clone(&self.accepted);
        self.begin(|listener| {
            accept(listener, move |stream| {
                accepted.fetch_add(1, Ordering::SeqCst);
                connection(stream, handler.clone())
            })
        });
    }

    /// Does with each connection what `each` says; those of before are cut.
    pub(crate) fn hand_over<F>(&self, each: impl Fn(TcpStream) -> F + Send + 'static)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.begin(|listener| accept(listener, each));
    }

    fn begin<F>(&self, accepting: impl FnOnce(TcpListener) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let mut state = self.state.lock().unwrap();
        self.cut(&mut state);
        let socket = self.rebind();
        let _guard = runtime().enter();
        let listener = socket.listen(1024).expect("a listening socket");
        *state = State::Serving(runtime().spawn(accepting(listener)).abort_handle());
    }

    /// Cuts every connection and refuses new ones.
    pub(crate) fn refuse(&self) {
        let mut state = self.state.lock().unwrap();
        self.cut(&mut state);
        *state = State::Refusing(self.rebind());
    }

    fn cut(&self, state: &mut State) {
        if let State::Serving(task) = std::mem::replace(state, State::Between) {
            task.abort();
        }
    }

    /// The aborted task gives its port back as soon as the runtime has dropped it.
    fn rebind(&self) -> TcpSocket {
        for _ in 0..500 {
            match bound_socket(self.address) {
                Ok(socket) => return socket,
                Err(_) => std::thread::sleep(Duration::from_millis(10)),
            }
        }
        panic!("{} is taken by somebody else", self.address);
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Ok(mut state) = self.state.lock() {
            self.cut(&mut state);
        }
    }
}

fn bound_socket(address: SocketAddr) -> std::io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}

async fn accept<F>(listener: TcpListener, each: impl Fn(TcpStream) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    // Dropped with this task, and all connections with it.
    let mut connections = JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let _ = stream.set_nodelay(true);
        connections.spawn(each(stream));
        while connections.try_join_next().is_some() {}
    }
}

async fn connection<H, F>(stream: TcpStream, handler: H)
where
    H: Fn(Request<Incoming>, Wire) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Answer> + Send + 'static,
{
    let wire = Wire::default();
    let io = TokioIo::new(Recorded { stream, received: wire.received.clone() });
    let service = service_fn({
        let wire = wire.clone();
        move |request| {
            let answer = handler(request, wire.clone());
            async move { Ok::<_, Infallible>(answer.await) }
        }
    });
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder.half_close(false).max_buf_size(512 * 1024);
    let serving = builder.serve_connection(io, service).with_upgrades();
    tokio::select! {
        _ = serving => {}
        () = wire.cut.notified() => {}
    }
}

/// Keeps a copy of what comes in.
struct Recorded {
    stream: TcpStream,
    received: Arc<Mutex<Vec<u8>>>,
}

impl AsyncRead for Recorded {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        let mut received = self.received.lock().unwrap();
        let room = WIRE_LIMIT.saturating_sub(received.len());
        let fresh = &buf.filled()[before..];
        received.extend_from_slice(&fresh[..fresh.len().min(room)]);
        polled
    }
}

impl AsyncWrite for Recorded {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
