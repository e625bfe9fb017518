//! Each way to an application that there is: TCP or a unix socket, bare or in TLS, HTTP/1.1 or HTTP/2.

use std::convert::Infallible;
use std::io::Cursor;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use aws_lc_rs::digest;
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt, stream};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::Notify;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;
use vestibule_test_support::script::{connect, piece, pieces};
use vestibule_test_support::{H2Client, Stage, runtime};

use crate::bodies::{MIB, hex};

const PUBLIC: &str = "[[routes]]\npath = \"/*\"\naccess = \"public\"";
const TOTAL: u64 = 64 * MIB;

type Body = UnsyncBoxBody<Bytes, Box<dyn std::error::Error + Send + Sync>>;

/// A way to an application.
#[derive(Debug, Clone, Copy)]
struct Way {
    unix: bool,
    tls: bool,
    h2: bool,
}

const WAYS: [Way; 6] = [
    Way { unix: false, tls: false, h2: false },
    Way { unix: false, tls: false, h2: true },
    Way { unix: false, tls: true, h2: false },
    Way { unix: false, tls: true, h2: true },
    Way { unix: true, tls: false, h2: false },
    Way { unix: true, tls: false, h2: true },
];

/// An application at the end of one way.
struct Application {
    toml: String,
    requests: Arc<AtomicUsize>,
    /// Bodies for `/count` that came to their end.
    complete: Arc<AtomicUsize>,
    connections: Arc<AtomicUsize>,
    /// Cuts every connection.
    cut: Arc<Notify>,
    folder: PathBuf,
}

impl Drop for Application {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

impl Application {
    async fn start(way: Way) -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::SeqCst);
        let folder = std::env::temp_dir().join(format!("vestibule-ways-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let [requests, complete, connections] = std::array::from_fn(|_| Arc::<AtomicUsize>::default());
        let cut = Arc::<Notify>::default();
        let serve = {
            let (requests, complete) = (Arc::clone(&requests), Arc::clone(&complete));
            let (connections, cut) = (Arc::clone(&connections), Arc::clone(&cut));
            move |io: Box<dyn Io>| {
                connections.fetch_add(1, Ordering::SeqCst);
                serve(io, Arc::clone(&requests), Arc::clone(&complete), Arc::clone(&cut))
            }
        };
        let protocol = if way.h2 { "h2" } else { "http1" };
        let toml = if way.unix {
            let path = folder.join("app.sock");
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
            let acceptor = way.tls.then(|| TlsAcceptor::from(certify(&folder)));
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
                    folder.join("ca.pem").display()
                ),
            }
        };
        let toml = format!("{toml}\nprotocol = \"{protocol}\"");
        Self { toml, requests, complete, connections, cut, folder }
    }

    fn stage(&self, more: &str) -> Stage {
        Stage::with(&format!("[upstream]\n{}\n{more}\n{PUBLIC}", self.toml))
    }
}

/// A certificate for app.internal, and its issuer's in `folder`.
fn certify(folder: &std::path::Path) -> Arc<ServerConfig> {
    let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    std::fs::write(folder.join("ca.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
    let issuer = Issuer::new(params, key);
    let key = KeyPair::generate().unwrap();
    let certificate =
        CertificateParams::new(vec!["app.internal".to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
    let mut config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone()],
            PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())),
        )
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Arc::new(config)
}

trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// Either protocol, told by the first bytes.
async fn serve(io: Box<dyn Io>, requests: Arc<AtomicUsize>, complete: Arc<AtomicUsize>, cut: Arc<Notify>) {
    let service = service_fn(move |request| {
        requests.fetch_add(1, Ordering::SeqCst);
        let complete = Arc::clone(&complete);
        async move { Ok::<_, Infallible>(answer(request, complete).await) }
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

async fn answer(mut request: Request<Incoming>, complete: Arc<AtomicUsize>) -> Response<Body> {
    let whole = |text: String| Full::new(Bytes::from(text)).map_err(|never| match never {}).boxed_unsync();
    match request.uri().path() {
        "/sum" => {
            let mut sum = digest::Context::new(&digest::SHA256);
            while let Some(Ok(frame)) = request.body_mut().frame().await {
                frame.data_ref().inspect(|data| sum.update(data));
            }
            Response::new(whole(hex(&sum.finish())))
        }
        "/count" => loop {
            match request.body_mut().frame().await {
                Some(Ok(_)) => {}
                Some(Err(_)) => break Response::new(whole("broken off".to_owned())),
                None => {
                    complete.fetch_add(1, Ordering::SeqCst);
                    break Response::new(whole("complete".to_owned()));
                }
            }
        },
        "/echo" => Response::new(request.into_body().map_err(Into::into).boxed_unsync()),
        "/down" => {
            let piece = Bytes::from(piece());
            let frames = stream::unfold((piece, TOTAL), |(piece, left)| async move {
                let length = left.min(piece.len() as u64);
                let frame = Ok(Frame::data(piece.slice(..length as usize)));
                (length > 0).then(|| (frame, (piece, left - length)))
            });
            Response::new(BodyExt::boxed_unsync(StreamBody::new(frames)))
        }
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

#[tokio::test]
async fn every_way_leads_to_the_application_with_the_clients_host() {
    for way in WAYS {
        let application = Application::start(way).await;
        let stage = application.stage("");
        let browser = stage.browser();
        let version = if way.h2 { "HTTP/2.0" } else { "HTTP/1.1" };
        for _ in 0..5 {
            let reply = browser.fetch(&stage.url("/")).await;
            assert_eq!(reply.text(), format!("{version} {}", stage.host()), "{way:?}");
        }
        assert_eq!(application.requests.load(Ordering::SeqCst), 5);
    }
}

#[tokio::test]
async fn large_bodies_pass_unchanged_on_every_way() {
    let piece = piece();
    let mut sum = digest::Context::new(&digest::SHA256);
    pieces(&piece, TOTAL).for_each(|piece| sum.update(piece));
    let sum = hex(&sum.finish());
    for way in WAYS {
        let application = Application::start(way).await;
        let stage = application.stage("");
        let request =
            format!("POST /sum HTTP/1.1\r\nHost: {{host}}\r\nConnection: close\r\nContent-Length: {TOTAL}\r\n\r\n");
        let mut stream = connect(stage.address(), &request).await;
        for piece in pieces(&piece, TOTAL) {
            stream.write_all(piece).await.unwrap();
        }
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200") && answer.contains(&sum), "{way:?}: {answer}");

        let reply = stage.browser().fetch(&stage.url("/down")).await;
        let seen = hex(&digest::digest(&digest::SHA256, &reply.body));
        assert_eq!((reply.body.len() as u64, &seen), (TOTAL, &sum), "{way:?}");
    }
}

#[tokio::test]
async fn an_application_that_dies_in_mid_body_ends_the_answer_as_an_error_on_every_way() {
    for way in WAYS {
        let application = Application::start(way).await;
        let stage = application.stage("");
        let mut stream = connect(stage.address(), "GET /begin HTTP/1.1\r\nHost: {host}\r\n\r\n").await;
        let mut seen = Vec::new();
        while !seen.ends_with(b"ten bytes!\r\n") {
            assert!(stream.read_buf(&mut seen).await.unwrap() > 0, "{way:?}");
        }
        application.cut.notify_waiters();
        // The end of the connection or a reset, and never the end of the body.
        let _ = timeout(Duration::from_secs(5), stream.read_to_end(&mut seen)).await.expect("an end");
        let seen = String::from_utf8(seen).unwrap();
        assert!(seen.contains("transfer-encoding: chunked") && !seen.contains("\r\n0\r\n"), "{way:?}: {seen}");
    }
}

#[tokio::test]
async fn web_sockets_pass_on_every_way() {
    for way in WAYS {
        let application = Application::start(way).await;
        let stage = application.stage("");
        let mut request = format!("ws://127.0.0.1:{}/ws", stage.address().port()).into_client_request().unwrap();
        request.headers_mut().insert("host", stage.host().parse().unwrap());
        let (mut socket, _) = tokio_tungstenite::connect_async(request).await.unwrap();
        for text in ["hello".to_owned(), "x".repeat(100_000)] {
            socket.send(Message::text(text.clone())).await.unwrap();
            assert_eq!(socket.next().await.unwrap().unwrap(), Message::text(text), "{way:?}");
        }
        socket.close(None).await.unwrap();
    }
}

#[tokio::test]
async fn a_hundred_requests_at_once_share_few_connections() {
    let application = Application::start(Way { unix: false, tls: true, h2: true }).await;
    let stage = application.stage("");
    let browser = stage.browser();
    let urls = vec![stage.url("/"); 100];
    let replies = futures_util::future::join_all(urls.iter().map(|url| browser.fetch(url))).await;
    assert!(replies.iter().all(|reply| reply.status == StatusCode::OK));
    // One for each worker, of whom there may be as many as cores.
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    let connections = application.connections.load(Ordering::SeqCst);
    assert!(connections <= workers.max(2) && application.requests.load(Ordering::SeqCst) == 100, "{connections}");
}

#[tokio::test]
async fn an_application_whose_certificate_is_not_good_is_told_apart_and_never_asked() {
    let application = Application::start(Way { unix: false, tls: true, h2: false }).await;
    let other = Application::start(Way { unix: false, tls: true, h2: false }).await;
    for (from, to) in [
        ("app.internal", "other.internal".to_owned()),
        (application.folder.to_str().unwrap(), other.folder.to_str().unwrap().to_owned()),
    ] {
        let stage = Stage::with(&format!("[upstream]\n{}\n{PUBLIC}", application.toml.replace(from, &to)));
        let reply = stage.browser().fetch(&stage.url("/")).await;
        assert_eq!(reply.status, StatusCode::BAD_GATEWAY, "{}", reply.text());
        assert_eq!(application.requests.load(Ordering::SeqCst), 0);
    }
}

#[tokio::test]
async fn a_request_that_takes_longer_than_its_total_limit_is_a_gateway_timeout_on_every_way() {
    for way in WAYS {
        let application = Application::start(way).await;
        let stage = application.stage("total_timeout = \"300ms\"");
        let browser = stage.browser();
        assert_eq!(browser.fetch(&stage.url("/")).await.status, StatusCode::OK, "{way:?}");
        let mut stream = connect(stage.address(), "GET /begin HTTP/1.1\r\nHost: {host}\r\n\r\n").await;
        let mut seen = Vec::new();
        let _ = timeout(Duration::from_secs(5), stream.read_to_end(&mut seen)).await.expect("an end");
        let seen = String::from_utf8(seen).unwrap();
        assert!(seen.contains("ten bytes!") && !seen.contains("\r\n0\r\n"), "{way:?}: {seen}");
        // A body that never ends, and no answer before it does.
        let request = "POST /sum HTTP/1.1\r\nHost: {host}\r\nContent-Length: 10\r\n\r\nfive!";
        let mut stream = connect(stage.address(), request).await;
        let mut seen = vec![0; 12];
        timeout(Duration::from_secs(5), stream.read_exact(&mut seen)).await.expect("an answer").unwrap();
        assert_eq!(seen, b"HTTP/1.1 504", "{way:?}");
    }
}

#[tokio::test]
async fn a_call_of_grpc_flows_both_ways_at_once_with_trailers_both_ways() {
    for way in WAYS {
        let application = Application::start(way).await;
        let stage = application.stage("");
        let client = H2Client::connect(stage.address()).await;
        let call = Request::post(stage.url("/echo")).header("te", "trailers").header("trailer", "grpc-status");
        let (answer, mut sending) = client.open(call.body(()).unwrap(), false).await.unwrap();
        // The head comes before any byte of the body.
        let mut answer = timeout(Duration::from_secs(10), answer).await.expect("a head").unwrap().into_body();
        for message in ["one", "two", "three"] {
            sending.send_data(Bytes::from_static(message.as_bytes()), false).unwrap();
            let back = timeout(Duration::from_secs(10), answer.data()).await.expect("a message").unwrap().unwrap();
            assert_eq!(back, message, "{way:?}");
        }
        sending
            .send_trailers(HeaderMap::from_iter([("grpc-status".parse().unwrap(), HeaderValue::from_static("0"))]))
            .unwrap();
        // An end may come as an empty frame of its own.
        while let Some(rest) = answer.data().await {
            assert_eq!(rest.unwrap(), "", "{way:?}");
        }
        if way.h2 {
            // HTTP/1.1 passes those that a head names, and this one's answer names none.
            assert_eq!(answer.trailers().await.unwrap().unwrap()["grpc-status"], "0", "{way:?}");
        }
    }
}

#[tokio::test]
async fn an_upload_that_the_client_resets_never_looks_complete() {
    for way in WAYS {
        let application = Application::start(way).await;
        let stage = application.stage("");
        for reason in [h2::Reason::CANCEL, h2::Reason::NO_ERROR, h2::Reason::INTERNAL_ERROR] {
            let client = H2Client::connect(stage.address()).await;
            let request = Request::post(stage.url("/count")).body(()).unwrap();
            let (_answer, mut sending) = client.open(request, false).await.unwrap();
            sending.send_data(Bytes::from_static(b"half of it"), false).unwrap();
            let before = application.requests.load(Ordering::SeqCst);
            timeout(Duration::from_secs(10), async {
                while application.requests.load(Ordering::SeqCst) == before && before == 0 {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            })
            .await
            .expect("the request at the application");
            tokio::time::sleep(Duration::from_millis(50)).await;
            sending.send_reset(reason);
            tokio::time::sleep(Duration::from_millis(100)).await;
            assert_eq!(application.complete.load(Ordering::SeqCst), 0, "{way:?} {reason:?}");
        }
    }
}
