//! Every way in meets every way to the application: bodies both ways with a checksum, trailers, HEAD, all on one connection.

use std::error::Error;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_lc_rs::digest;
use bytes::Bytes;
use futures_util::{TryStreamExt as _, stream};
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use http_body::{Body as _, Frame};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Incoming;
use hyper::client::conn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;
use vestibule_test_support::script::{piece, pieces};
use vestibule_test_support::{CertificateFiles, Site, Stage, TestCa, TlsClient, free_port, runtime};

use crate::bodies::{COST, MIB, hex};
use crate::upstreams::application::{Application, Body, Io, TRAILERS, WAYS, Way};

const PROGRAM: &str = env!("CARGO_BIN_EXE_vestibule");
const NAME: &str = "localhost";
/// No exchange takes longer than this.
const DEADLINE: Duration = Duration::from_secs(300);

/// Where a proxy listens for each way in.
struct Doors<'d> {
    plain: SocketAddr,
    secure: SocketAddr,
    socket: &'d Path,
    ca: &'d TestCa,
}

impl Doors<'_> {
    /// A client by the way `from`, in front of an application at the end of the way `to`.
    async fn open(&self, from: Way, to: Way) -> Client {
        let io: Box<dyn Io> = match (from.unix, from.tls) {
            (true, _) => Box::new(UnixStream::connect(self.socket).await.unwrap()),
            (false, false) => Box::new(TcpStream::connect(self.plain).await.unwrap()),
            (false, true) => {
                let protocol: &[u8] = if from.h2 { b"h2" } else { b"http/1.1" };
                let client = TlsClient::trusting(self.ca).offering(&[protocol]);
                let stream = client.connect(self.secure, NAME).await.unwrap();
                assert_eq!(stream.get_ref().1.alpn_protocol(), Some(protocol));
                Box::new(stream)
            }
        };
        Client::over(io, from, format!("{from:?} → {to:?}")).await
    }
}

/// A client with one connection.
struct Client {
    sender: Sender,
    scheme: &'static str,
    /// For whoever reads a failure.
    ways: String,
}

enum Sender {
    Http1(conn::http1::SendRequest<Body>),
    Http2(conn::http2::SendRequest<Body>),
}

impl Client {
    async fn over(io: Box<dyn Io>, way: Way, ways: String) -> Self {
        let io = TokioIo::new(io);
        let sender = if way.h2 {
            let (sender, connection) = conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
            runtime().spawn(connection);
            Sender::Http2(sender)
        } else {
            let (sender, connection) = conn::http1::handshake(io).await.unwrap();
            runtime().spawn(connection);
            Sender::Http1(sender)
        };
        Self { sender, scheme: if way.tls { "https" } else { "http" }, ways }
    }

    /// The answer to a request; `target` begins with a slash.
    async fn send(
        &mut self,
        method: Method,
        target: &str,
        fields: &[(header::HeaderName, &str)],
        body: Body,
    ) -> Response<Incoming> {
        let mut request = Request::builder().method(method);
        request = match &self.sender {
            Sender::Http1(_) => request.uri(target).header(header::HOST, NAME),
            Sender::Http2(_) => request.uri(format!("{}://{NAME}{target}", self.scheme)),
        };
        for (name, value) in fields {
            request = request.header(name, *value);
        }
        let request = request.body(body).unwrap();
        let answer = async {
            match &mut self.sender {
                Sender::Http1(sender) => {
                    sender.ready().await?;
                    sender.send_request(request).await
                }
                Sender::Http2(sender) => {
                    sender.ready().await?;
                    sender.send_request(request).await
                }
            }
        };
        match timeout(DEADLINE, answer).await {
            Ok(Ok(answer)) if answer.status() == StatusCode::OK => answer,
            other => panic!("{}: {target}: {other:?}", self.ways),
        }
    }

    /// `total` bytes for the application, with or without their number told beforehand; nothing is gathered.
    async fn upload(&mut self, total: u64, is_told: bool) {
        let sum = Arc::new(Mutex::new(digest::Context::new(&digest::SHA256)));
        let summed = Arc::clone(&sum);
        let body = generated(total).inspect_ok(move |frame| {
            frame.data_ref().inspect(|data| summed.lock().unwrap().update(data));
        });
        let answer = self.post("/sum", total, is_told, BodyExt::boxed_unsync(StreamBody::new(body))).await;
        let told = answer.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(told, hex(&sum.lock().unwrap().clone().finish()), "{}", self.ways);
    }

    async fn post(&mut self, target: &str, total: u64, is_told: bool, body: Body) -> Response<Incoming> {
        let length = total.to_string();
        let fields: &[_] = if is_told { &[(header::CONTENT_LENGTH, length.as_str())] } else { &[] };
        self.send(Method::POST, target, fields, body).await
    }

    /// `total` bytes for the application, which come back while they are still being sent. Each is compared with what was
    /// sent at its place, which leaves less to chance than a checksum and costs less.
    async fn there_and_back(&mut self, total: u64, is_told: bool) {
        let body = BodyExt::boxed_unsync(StreamBody::new(generated(total)));
        let answer = self.post("/echo", total, is_told, body).await;
        let length = answer.headers().get(header::CONTENT_LENGTH).map(|length| length.to_str().unwrap().to_owned());
        assert_eq!(length, is_told.then(|| total.to_string()), "{}", self.ways);
        let (piece, mut place) = (piece(), 0);
        let came = read(answer.into_body(), |mut data| {
            while !data.is_empty() {
                let expected = &piece[place..];
                let count = data.len().min(expected.len());
                assert!(data[..count] == expected[..count], "{}: not what was sent", self.ways);
                (data, place) = (&data[count..], (place + count) % piece.len());
            }
        });
        assert_eq!(came.await, total, "{}", self.ways);
    }

    /// `total` bytes from the application.
    async fn download(&mut self, total: u64) {
        let answer = self.send(Method::GET, &format!("/down?bytes={total}"), &[], empty()).await;
        let mut sum = digest::Context::new(&digest::SHA256);
        pieces(&piece(), total).for_each(|piece| sum.update(piece));
        assert_eq!(received(answer.into_body()).await, (total, hex(&sum.finish())), "{}", self.ways);
    }

    /// Everything that can be sent and received.
    async fn exchange(&mut self, total: u64) {
        self.upload(total, true).await;
        self.upload(total, false).await;
        self.download(total).await;
        self.trailers().await;
        self.head().await;
    }

    /// A request with a trailer, and an answer with another that tells what came of the first.
    async fn trailers(&mut self) {
        let [up, down] = TRAILERS;
        let trailers = HeaderMap::from_iter([(up.clone(), "told at the end".parse().unwrap())]);
        let frames = stream::iter([Ok(Frame::data(Bytes::from_static(b"body"))), Ok(Frame::trailers(trailers))]);
        let body = BodyExt::boxed_unsync(StreamBody::new(frames));
        let fields = [(header::TRAILER, up.as_str()), (header::TE, "trailers")];
        let answer = self.send(Method::POST, "/trailed", &fields, body).await;
        let collected = timeout(DEADLINE, answer.into_body().collect()).await.expect("a body in time").unwrap();
        assert_eq!(collected.trailers().expect("trailers")[&down], "told at the end", "{}", self.ways);
        assert_eq!(collected.to_bytes(), "body");
    }

    /// RFC 9110 §9.3.2: the fields of the answer to GET and nothing behind them.
    async fn head(&mut self) {
        let answer = self.send(Method::HEAD, "/down?bytes=123456", &[], empty()).await;
        assert_eq!(answer.headers()[header::CONTENT_LENGTH], "123456", "{}", self.ways);
        let body = timeout(DEADLINE, answer.into_body().collect()).await.expect("an end in time").unwrap();
        assert_eq!(body.to_bytes().len(), 0);
    }
}

fn empty() -> Body {
    http_body_util::Empty::new().map_err(|never| match never {}).boxed_unsync()
}

/// `total` bytes.
fn generated(total: u64) -> impl stream::Stream<Item = Result<Frame<Bytes>, Box<dyn Error + Send + Sync>>> {
    let piece = Bytes::from(piece());
    stream::unfold(total, move |left| {
        let data = piece.slice(..usize::try_from(left.min(piece.len() as u64)).unwrap());
        let rest = left - data.len() as u64;
        async move { (left > 0).then_some((Ok(Frame::data(data)), rest)) }
    })
}

/// Length and SHA-256 of a body.
async fn received(body: Incoming) -> (u64, String) {
    let mut sum = digest::Context::new(&digest::SHA256);
    let total = read(body, |data| sum.update(data)).await;
    (total, hex(&sum.finish()))
}

/// Length of a body that is let go as it comes, once `each` of its parts was looked at.
async fn read(body: Incoming, mut each: impl FnMut(&[u8])) -> u64 {
    let mut total = 0;
    let mut body = pin!(body);
    let reading = async {
        while let Some(frame) = poll_fn(|cx| body.as_mut().poll_frame(cx)).await {
            if let Ok(data) = frame.expect("a whole body").into_data() {
                each(&data);
                total += data.len() as u64;
            }
        }
    };
    timeout(DEADLINE, reading).await.expect("a body in time");
    total
}

#[tokio::test]
async fn every_protocol_of_a_client_meets_every_protocol_of_an_application() {
    let ca = TestCa::new();
    let files = CertificateFiles::new(&ca.sign(&[NAME]));
    let folder = tempfile::tempdir().unwrap();
    for to in WAYS {
        let application = Application::start(to).await;
        let (port, socket) = (free_port(), folder.path().join("in.sock"));
        let stage = Stage::with(&format!(
            "[upstream]\n{}\n[[routes]]\npath = \"/*\"\naccess = \"public\"\n\
             [[listeners]]\naddress = \"unix:{}\"\n\
             [[listeners]]\naddress = \"127.0.0.1:{port}\"\n[listeners.tls]\n{}",
            application.toml,
            socket.display(),
            files.keys()
        ));
        let secure = ([127, 0, 0, 1], port).into();
        let doors = Doors { plain: stage.address(), secure, socket: &socket, ca: &ca };
        for from in WAYS {
            let mut client = doors.open(from, to).await;
            // On one connection: what one leaves behind would be met by the next.
            client.exchange(3 * MIB + 7).await;
            client.exchange(1).await;
        }
    }
}

/// What `exchange` does with so many bytes passes through the program itself, which may not grow by more than [`COST`].
async fn in_flat_memory(total: u64, from: Way, to: Way, exchange: impl AsyncFn(&mut Client, u64)) {
    let ca = TestCa::new();
    let files = CertificateFiles::new(&ca.sign(&[NAME]));
    let folder = tempfile::tempdir().unwrap();
    let application = Application::start(to).await;
    let site = Site::of(PROGRAM);
    let (port, socket) = (free_port(), folder.path().join("in.sock"));
    let toml = format!(
        "[upstreams.app]\n{}\n[[routes]]\npath = \"/*\"\naccess = \"public\"\nupstream = \"app\"\n\
         [[listeners]]\naddress = \"unix:{}\"\n\
         [[listeners]]\naddress = \"127.0.0.1:{port}\"\n[listeners.tls]\n{}",
        application.toml,
        socket.display(),
        files.keys()
    );
    let program = site.start(site.launch().env("VESTIBULE_CONFIG", site.file("pairs.toml", &toml))).await;
    let secure = ([127, 0, 0, 1], port).into();
    let doors = Doors { plain: site.address(), secure, socket: &socket, ca: &ca };
    let mut client = doors.open(from, to).await;
    // Everything that is only needed once is there after a small one.
    exchange(&mut client, MIB).await;
    program.forget_peak_memory();
    let before = program.peak_memory();
    exchange(&mut client, total).await;
    let growth = program.peak_memory().saturating_sub(before);
    assert!(growth < COST, "{}: {} KiB more for {} MiB", client.ways, growth / 1024, total / MIB);
}

#[tokio::test]
async fn fifty_mebibytes_pass_both_ways_in_flat_memory_whatever_is_spoken() {
    let (http1, h2c) = (Way { unix: false, tls: false, h2: false }, Way { unix: false, tls: false, h2: true });
    let secure = Way { unix: false, tls: true, h2: true };
    // Those that are not HTTP/1.1 on both ends.
    for (from, to) in [(secure, http1), (http1, h2c), (h2c, h2c), (secure, secure)] {
        let exchange = async |client: &mut Client, total| {
            client.upload(total, true).await;
            client.upload(total, false).await;
            client.download(total).await;
        };
        in_flat_memory(50 * MIB, from, to, exchange).await;
    }
}

/// `total` bytes there and back by every pair of ways that there is, each through a program of its own. Whether their number
/// is told changes with every change of the transport, so that either happens to each of the ways and between each two
/// protocols.
pub(crate) async fn pass_by_every_pair_in_flat_memory(total: u64) {
    for (number, from) in WAYS.into_iter().enumerate() {
        for (other, to) in WAYS.into_iter().enumerate() {
            // Each transport has two places in the list.
            let is_told = (number / 2 + other / 2) % 2 == 0;
            let exchange = async |client: &mut Client, total| client.there_and_back(total, is_told).await;
            in_flat_memory(total, from, to, exchange).await;
        }
    }
}
