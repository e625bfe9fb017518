//! An application at the end of any way: TCP or a unix socket, bare or in TLS, HTTP/1.1 or HTTP/2.

use std::convert::Infallible;
use std::io::Cursor;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use aws_lc_rs::digest;
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt, stream};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ServerConfig;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::Notify;
use tokio_rustls::TlsAcceptor;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;
use url::form_urlencoded;
use vestibule_test_support::script::piece;
use vestibule_test_support::{Stage, TestCa, runtime};

use crate::bodies::{MIB, hex};

pub(super) const PUBLIC: &str = "[[routes]]\npath = \"/*\"\naccess = \"public\"";
/// How much `/down` sends unless it is asked for less or more.
pub(super) const TOTAL: u64 = 64 * MIB;
/// The trailer that `/trailed` looks for and the one that it sends.
pub(crate) const TRAILERS: [HeaderName; 2] = [HeaderName::from_static("x-up"), HeaderName::from_static("x-down")];

pub(crate) type Body = UnsyncBoxBody<Bytes, Box<dyn std::error::Error + Send + Sync>>;

/// A way to an application, or to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Way {
    pub(crate) unix: bool,
    pub(crate) tls: bool,
    pub(crate) h2: bool,
}

pub(crate) const WAYS: [Way; 6] = [
    Way { unix: false, tls: false, h2: false },
    Way { unix: false, tls: false, h2: true },
    Way { unix: false, tls: true, h2: false },
    Way { unix: false, tls: true, h2: true },
    Way { unix: true, tls: false, h2: false },
    Way { unix: true, tls: false, h2: true },
];

/// An application at the end of one way.
pub(crate) struct Application {
    /// The keys of its `[upstream]`.
    pub(crate) toml: String,
    pub(crate) requests: Arc<AtomicUsize>,
    /// Bodies for `/count` that came to their end.
    pub(crate) complete: Arc<AtomicUsize>,
    /// Those that are over, however they ended.
    pub(crate) over: Arc<AtomicUsize>,
    pub(super) connections: Arc<AtomicUsize>,
    /// Cuts every connection.
    pub(super) cut: Arc<Notify>,
    pub(super) folder: TempDir,
}

impl Application {
    pub(crate) async fn start(way: Way) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let [requests, complete, over, connections] = std::array::from_fn(|_| Arc::<AtomicUsize>::default());
        let cut = Arc::<Notify>::default();
        let serve = {
            let (requests, counts) = (Arc::clone(&requests), [&complete, &over].map(Arc::clone));
            let (connections, cut) = (Arc::clone(&connections), Arc::clone(&cut));
            move |io: Box<dyn Io>| {
                connections.fetch_add(1, Ordering::SeqCst);
                serve(io, Arc::clone(&requests), counts.clone(), Arc::clone(&cut))
            }
        };
        let protocol = if way.h2 { "h2" } else { "http1" };
        let toml = if way.unix {
            let path = folder.path().join("app.sock");
            let listener = {
                let _entered = runtime().enter();
                UnixListener::bind(&path).unwrap()
            };
            runtime().spawn(async move {
                while let Ok((stream, _)) = listener.accept().await {
                    tokio::spawn(serve(Box::new(stream)));
                }
            });
            format!("url = \"unix:{}\"", path.display())
        } else {
            let acceptor = way.tls.then(|| TlsAcceptor::from(certify(folder.path())));
            let listener = runtime().spawn(TcpListener::bind("127.0.0.1:0")).await.unwrap().unwrap();
            let address = listener.local_addr().unwrap();
            runtime().spawn(async move {
                while let Ok((stream, _)) = listener.accept().await {
                    stream.set_nodelay(true).unwrap();
                    let (serve, acceptor) = (serve.clone(), acceptor.clone());
                    tokio::spawn(async move {
                        match acceptor {
                            None => serve(Box::new(stream)).await,
                            Some(acceptor) => {
                                if let Ok(stream) = acceptor.accept(stream).await {
                                    serve(Box::new(stream)).await;
                                }
                            }
                        }
                    });
                }
            });
            match way.tls {
                false => format!("url = \"http://{address}\""),
                true => format!(
                    "url = \"https://{address}\"\ntls = {{ ca_file = \"{}\", server_name = \"app.internal\" }}",
                    folder.path().join("ca.pem").display()
                ),
            }
        };
        let toml = format!("{toml}\nprotocol = \"{protocol}\"");
        Self { toml, requests, complete, over, connections, cut, folder }
    }

    /// Where it listens, on a port.
    pub(crate) fn url(&self) -> &str {
        self.toml.split('"').nth(1).unwrap()
    }

    pub(super) fn stage(&self, more: &str) -> Stage {
        Stage::with(&format!("[upstream]\n{}\n{more}\n{PUBLIC}", self.toml))
    }
}

/// A certificate for app.internal, and its issuer's in `folder`.
fn certify(folder: &std::path::Path) -> Arc<ServerConfig> {
    let ca = TestCa::new();
    std::fs::write(folder.join("ca.pem"), ca.pem()).unwrap();
    let signed = ca.sign(&["app.internal"]);
    let mut config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![CertificateDer::from_pem_slice(signed.certificate.as_bytes()).unwrap()],
            PrivateKeyDer::from_pem_slice(signed.key.as_bytes()).unwrap(),
        )
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Arc::new(config)
}

pub(crate) trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// Either protocol, told by the first bytes.
async fn serve(io: Box<dyn Io>, requests: Arc<AtomicUsize>, counts: [Arc<AtomicUsize>; 2], cut: Arc<Notify>) {
    let service = service_fn(move |request| {
        requests.fetch_add(1, Ordering::SeqCst);
        let counts = counts.clone();
        async move { Ok::<_, Infallible>(answer(request, counts).await) }
    });
    let (mut read, write) = tokio::io::split(io);
    let mut first = [0; 3];
    if read.read_exact(&mut first).await.is_err() {
        return;
    }
    let io = TokioIo::new(tokio::io::join(Cursor::new(first).chain(read), write));
    let serving = async {
        if first == *b"PRI" {
            let _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new()).serve_connection(io, service).await;
        } else {
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(io, service).with_upgrades().await;
        }
    };
    tokio::select! {
        () = serving => {}
        () = cut.notified() => {}
    }
}

/// Counts when it is dropped.
struct Over(Arc<AtomicUsize>);

impl Drop for Over {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

async fn answer(mut request: Request<Incoming>, [complete, over]: [Arc<AtomicUsize>; 2]) -> Response<Body> {
    let whole = |text: String| Full::new(Bytes::from(text)).map_err(|never| match never {}).boxed_unsync();
    match request.uri().path() {
        "/sum" => {
            let mut sum = digest::Context::new(&digest::SHA256);
            while let Some(Ok(frame)) = request.body_mut().frame().await {
                frame.data_ref().inspect(|data| sum.update(data));
            }
            Response::new(whole(hex(&sum.finish())))
        }
        "/count" => {
            let _over = Over(over);
            loop {
                match request.body_mut().frame().await {
                    Some(Ok(_)) => {}
                    Some(Err(_)) => break Response::new(whole("broken off".to_owned())),
                    None => {
                        complete.fetch_add(1, Ordering::SeqCst);
                        break Response::new(whole("complete".to_owned()));
                    }
                }
            }
        }
        "/echo" => Response::new(request.into_body().map_err(Into::into).boxed_unsync()),
        "/trailed" => {
            let collected = request.into_body().collect().await.expect("a whole body");
            let [up, down] = TRAILERS;
            let told = collected.trailers().and_then(|trailers| trailers.get(&up)).cloned();
            let trailers = HeaderMap::from_iter([(down.clone(), told.unwrap_or(HeaderValue::from_static("none")))]);
            let body = stream::iter([Ok(Frame::data(collected.to_bytes())), Ok(Frame::trailers(trailers))]);
            let mut answer = Response::new(BodyExt::boxed_unsync(StreamBody::new(body)));
            answer.headers_mut().insert(header::TRAILER, down.into());
            answer
        }
        "/down" => {
            let asked = form_urlencoded::parse(request.uri().query().unwrap_or_default().as_bytes());
            let total =
                asked.into_iter().find(|(name, _)| name == "bytes").map_or(TOTAL, |(_, count)| count.parse().unwrap());
            if request.method() == Method::HEAD {
                let mut answer = Response::new(whole(String::new()));
                answer.headers_mut().insert(header::CONTENT_LENGTH, total.into());
                return answer;
            }
            let piece = Bytes::from(piece());
            let frames = stream::unfold((piece, total), |(piece, left)| async move {
                let length = left.min(piece.len() as u64);
                let frame = Ok(Frame::data(piece.slice(..length as usize)));
                (length > 0).then(|| (frame, (piece, left - length)))
            });
            Response::new(BodyExt::boxed_unsync(StreamBody::new(frames)))
        }
        // A part of something that is kept compressed; what it was asked for stands in `x-asked`.
        "/part" => {
            let asked = [header::RANGE, header::IF_RANGE, header::ACCEPT_ENCODING];
            let asked =
                asked.map(|name| request.headers().get(name).map_or("", |value| value.to_str().unwrap()).to_owned());
            Response::builder()
                .status(StatusCode::PARTIAL_CONTENT)
                .header("x-asked", asked.join("|"))
                .header(header::CONTENT_RANGE, "bytes 100-65099/65521")
                .header(header::CONTENT_ENCODING, "gzip")
                .header(header::ETAG, "\"v1\"")
                .header(header::ACCEPT_RANGES, "bytes")
                .body(Full::new(Bytes::from(piece()).slice(100..65_100)).map_err(|never| match never {}).boxed_unsync())
                .unwrap()
        }
        "/never" => std::future::pending().await,
        "/begin" => {
            let first = stream::once(async { Ok(Frame::data(Bytes::from_static(b"ten bytes!"))) });
            Response::new(BodyExt::boxed_unsync(StreamBody::new(first.chain(stream::pending()))))
        }
        "/ws" => {
            let accept = derive_accept_key(request.headers()[header::SEC_WEBSOCKET_KEY].as_bytes());
            let upgrade = hyper::upgrade::on(&mut request);
            tokio::spawn(async move {
                let upgraded = TokioIo::new(upgrade.await.unwrap());
                let mut socket = WebSocketStream::from_raw_socket(upgraded, Role::Server, None).await;
                while let Some(Ok(message)) = socket.next().await {
                    if !message.is_text() || socket.send(message).await.is_err() {
                        break;
                    }
                }
            });
            Response::builder()
                .status(StatusCode::SWITCHING_PROTOCOLS)
                .header(header::CONNECTION, "upgrade")
                .header(header::UPGRADE, "websocket")
                .header(header::SEC_WEBSOCKET_ACCEPT, accept)
                .body(whole(String::new()))
                .unwrap()
        }
        _ => {
            let authority = request.uri().authority().map(ToString::to_string);
            let host = request.headers().get(header::HOST).map(|host| host.to_str().unwrap().to_owned());
            let host = authority.or(host).unwrap_or_default();
            Response::new(whole(format!("{:?} {host}", request.version())))
        }
    }
}
