use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Version};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Incoming;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::head::Ours;
use super::upgrade::Upgrade;
use super::*;

/// An upstream that says what `script` says, one call per connection; counts connections.
pub(super) struct Fake {
    pub(super) upstreams: Upstreams,
    connections: Arc<AtomicUsize>,
}

pub(super) async fn fake<S, F>(change: impl FnOnce(&mut UpstreamSettings), script: S) -> Fake
where
    S: Fn(TcpStream, usize) -> F + Send + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let place = Place::Host { host: "127.0.0.1".to_owned(), port: listener.local_addr().unwrap().port() };
    let mut settings = UpstreamSettings { places: vec![place], ..UpstreamSettings::default() };
    change(&mut settings);
    let connections = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&connections);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            stream.set_nodelay(true).unwrap();
            tokio::spawn(script(stream, count.fetch_add(1, Ordering::SeqCst)));
        }
    });
    let trust = message::Settings { cookie_bases: vec!["__Host-vestibule".to_owned()], ..message::Settings::default() };
    let fleet = Fleet::start(&[settings], &tokio::runtime::Handle::current());
    let lifetimes = Lifetimes::for_test();
    let tunnels = Tunnels { running: TaskTracker::new(), closing: CancellationToken::new() };
    let upstreams = Upstreams::new(&fleet, Arc::new(trust), lifetimes, WorkerMetrics::default(), tunnels);
    Fake { upstreams, connections }
}

impl Upstreams {
    async fn send(
        &self,
        upstream: &Upstream,
        (request, ours): (Request<Body>, Ours),
        upgrade: Option<Upgrade>,
        admitted: Admitted,
    ) -> Result<Response<Body>, UpstreamError> {
        let request = (request, ours, None);
        let mut flight = Flight::new(&upstream.settings, &self.trust, request, upgrade.map(Box::new), admitted)?;
        self.fly(upstream, &mut flight).await
    }
}

impl Fake {
    pub(super) async fn send(&self, request: Request<Body>) -> Result<Response<Body>, UpstreamError> {
        let upstream = self.upstreams.upstream(0).unwrap();
        tokio::time::timeout(
            Duration::from_secs(10),
            self.upstreams.send(upstream, (request, Ours::default()), None, Admitted::default()),
        )
        .await
        .unwrap()
    }

    pub(super) async fn text(&self, request: Request<Body>) -> String {
        let body = self.send(request).await.unwrap().into_body().collect().await.unwrap();
        String::from_utf8(body.to_bytes().to_vec()).unwrap()
    }

    pub(super) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    pub(super) fn well(&self) -> usize {
        self.upstreams.upstreams[0].instances.well_count()
    }

    pub(super) fn idle(&self) -> usize {
        self.upstreams.upstreams[0].instances.idle_count()
    }
}

pub(super) fn request(method: Method, body: Body) -> Request<Body> {
    Request::builder().method(method).uri("/x").header("host", "app").body(body).unwrap()
}

pub(super) fn get() -> Request<Body> {
    request(Method::GET, Body::Empty)
}

/// Reads a head, and a body as its framing says; `None` at the end of the connection.
pub(super) async fn read_request(stream: &mut TcpStream) -> Option<String> {
    let mut bytes = Vec::new();
    let mut byte = [0];
    let done = |bytes: &[u8]| {
        let text = String::from_utf8_lossy(bytes).to_ascii_lowercase();
        let Some(head) = text.find("\r\n\r\n") else { return false };
        if text.contains("transfer-encoding: chunked") {
            return text.find("\r\n0\r\n").is_some_and(|at| at >= head) && text.ends_with("\r\n\r\n");
        }
        let length = text.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok()).unwrap_or(0);
        bytes.len() >= head + 4 + length
    };
    while !done(&bytes) {
        if stream.read(&mut byte).await.ok()? == 0 {
            return None;
        }
        bytes.push(byte[0]);
    }
    Some(String::from_utf8(bytes).unwrap())
}

pub(super) async fn say(stream: &mut TcpStream, text: &str) {
    let _ = stream.write_all(text.as_bytes()).await;
}

pub(super) const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

#[tokio::test]
async fn connections_are_reused_and_answers_without_a_body_give_theirs_back() {
    let fake = fake(
        |_| {},
        |mut stream, _| async move {
            while let Some(request) = read_request(&mut stream).await {
                match request.split(' ').next() {
                    Some("HEAD") => say(&mut stream, "HTTP/1.1 200 OK\r\ncontent-length: 77\r\n\r\n").await,
                    Some("DELETE") => say(&mut stream, "HTTP/1.1 204 No Content\r\n\r\n").await,
                    Some("PUT") => {
                        say(&mut stream, "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n")
                            .await
                    }
                    _ => say(&mut stream, OK).await,
                }
            }
        },
    )
    .await;
    for _ in 0..3 {
        assert_eq!(fake.text(get()).await, "ok");
        assert_eq!(fake.text(request(Method::POST, Body::full("body"))).await, "ok");
        assert_eq!(fake.text(request(Method::PUT, Body::Empty)).await, "x");
        let head = fake.send(request(Method::HEAD, Body::Empty)).await.unwrap();
        assert_eq!(head.headers()["content-length"], "77");
        assert_eq!(fake.send(request(Method::DELETE, Body::Empty)).await.unwrap().status(), 204);
    }
    assert_eq!((fake.connections(), fake.idle()), (1, 1));
}

#[tokio::test]
async fn an_upstream_that_closes_after_each_answer_without_a_word_fails_nothing() {
    let fake = fake(
        |_| {},
        |mut stream, _| async move {
            if read_request(&mut stream).await.is_some() {
                say(&mut stream, OK).await;
            }
        },
    )
    .await;
    for _ in 0..100 {
        assert_eq!(fake.text(get()).await, "ok");
        assert_eq!(fake.text(request(Method::POST, Body::full("once"))).await, "ok");
    }
}

#[tokio::test]
async fn a_get_on_a_kept_connection_is_sent_again_and_a_post_is_not() {
    let script = |mut stream: TcpStream, _| async move {
        if read_request(&mut stream).await.is_some() {
            say(&mut stream, OK).await;
            // The second request is read, and may have done something.
            let _ = read_request(&mut stream).await;
        }
    };
    let first = fake(|_| {}, script).await;
    first.text(get()).await;
    assert_eq!(first.text(get()).await, "ok");
    assert_eq!(first.connections(), 2);
    let second = fake(|_| {}, script).await;
    second.text(get()).await;
    let failed = second.send(request(Method::POST, Body::full("pay"))).await.unwrap_err();
    assert!(matches!(failed, UpstreamError::Closed(_)), "{failed:?}");
    assert_eq!(second.connections(), 1);
}

#[tokio::test]
async fn a_fresh_connection_that_breaks_is_not_tried_again() {
    let fake = fake(|_| {}, |mut stream, _| async move { drop(read_request(&mut stream).await) }).await;
    assert!(matches!(fake.send(get()).await, Err(UpstreamError::Closed(_))));
    assert_eq!(fake.connections(), 1);
}

#[tokio::test]
async fn bytes_that_nobody_asked_for_end_an_idle_connection() {
    let fake = fake(
        |_| {},
        |mut stream, _| async move {
            while read_request(&mut stream).await.is_some() {
                say(&mut stream, OK).await;
                tokio::time::sleep(Duration::from_millis(20)).await;
                say(&mut stream, "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil").await;
            }
        },
    )
    .await;
    for _ in 0..3 {
        assert_eq!(fake.text(get()).await, "ok");
        tokio::time::sleep(Duration::from_millis(60)).await;
    }
    assert_eq!(fake.connections(), 3);
}

#[tokio::test]
async fn idle_connections_are_closed_after_their_time() {
    let closed = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&closed);
    let fake = fake(
        |settings| settings.pool_idle = Duration::from_millis(100),
        move |mut stream, _| {
            let closed = Arc::clone(&count);
            async move {
                while read_request(&mut stream).await.is_some() {
                    say(&mut stream, OK).await;
                }
                closed.fetch_add(1, Ordering::SeqCst);
            }
        },
    )
    .await;
    fake.text(get()).await;
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert_eq!((fake.idle(), closed.load(Ordering::SeqCst)), (0, 1));
}

#[tokio::test]
async fn a_body_that_breaks_off_is_an_error_and_never_an_end() {
    for answer in [
        "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n8\r\nhalf",
    ] {
        let fake = fake(
            |_| {},
            move |mut stream, _| async move {
                read_request(&mut stream).await;
                say(&mut stream, answer).await;
            },
        )
        .await;
        let response = fake.send(get()).await.unwrap();
        assert!(response.into_body().collect().await.is_err(), "{answer:?}");
        assert_eq!(fake.idle(), 0);
    }
}

#[tokio::test]
async fn every_wait_is_bounded() {
    let quick = |settings: &mut UpstreamSettings| {
        settings.response_timeout = Duration::from_millis(100);
        settings.idle_timeout = Duration::from_millis(150);
    };
    let silent = |mut stream: TcpStream, _| async move {
        read_request(&mut stream).await;
        tokio::time::sleep(Duration::from_secs(5)).await;
    };
    let unanswered = fake(quick, silent).await;
    assert!(matches!(unanswered.send(get()).await, Err(UpstreamError::ResponseTimeout)));
    let posted = unanswered.send(request(Method::POST, Body::full("body"))).await;
    assert!(matches!(posted, Err(UpstreamError::ResponseTimeout)));

    let stalled = fake(quick, |mut stream: TcpStream, _| async move {
        read_request(&mut stream).await;
        say(&mut stream, "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf").await;
        tokio::time::sleep(Duration::from_secs(5)).await;
    })
    .await;
    let body = stalled.send(get()).await.unwrap().into_body().collect().await;
    assert_eq!(body.unwrap_err().downcast_ref(), Some(&body::Cut::Stalled));

    let waiting = fake(quick, silent).await;
    let never = Body::stream(StreamBody::new(futures_util::stream::pending::<Result<Frame<Bytes>, _>>()));
    let failed = waiting.send(request(Method::POST, never)).await.unwrap_err();
    assert!(matches!(failed, UpstreamError::BodyIdle), "{failed:?}");
    assert_eq!((failed.status(), failed.code()), (StatusCode::REQUEST_TIMEOUT, "body_idle"));

    let full = fake(quick, |stream: TcpStream, _| async move {
        tokio::time::sleep(Duration::from_secs(5)).await;
        drop(stream);
    })
    .await;
    let endless = futures_util::stream::repeat_with(|| Ok(Frame::data(Bytes::from(vec![b'x'; 16 * 1024]))));
    let failed = full.send(request(Method::POST, Body::stream(StreamBody::new(endless)))).await.unwrap_err();
    assert!(matches!(failed, UpstreamError::IdleTimeout), "{failed:?}");
    assert_eq!((failed.status(), failed.code()), (StatusCode::GATEWAY_TIMEOUT, "upstream_idle"));

    let steady = fake(quick, |mut stream: TcpStream, _| async move {
        read_request(&mut stream).await;
        say(&mut stream, OK).await;
    })
    .await;
    let slow = futures_util::stream::unfold(0, |sent| async move {
        tokio::time::sleep(Duration::from_millis(60)).await;
        (sent < 6).then(|| (Ok(Frame::data(Bytes::from_static(b"x"))), sent + 1))
    });
    let answer = steady.send(request(Method::POST, Body::stream(StreamBody::new(Box::pin(slow))))).await;
    assert!(answer.is_ok(), "a body that moves may take longer than any one wait: {answer:?}");
}

#[tokio::test]
async fn the_total_time_limit_ends_a_wait_and_an_answer_that_goes_on() {
    let limited = |settings: &mut UpstreamSettings| settings.total_timeout = Some(Duration::from_millis(200));
    let silent = fake(limited, |mut stream: TcpStream, _| async move {
        read_request(&mut stream).await;
        tokio::time::sleep(Duration::from_secs(5)).await;
    })
    .await;
    let failed = silent.send(get()).await.unwrap_err();
    assert!(matches!(failed, UpstreamError::TotalTimeout), "{failed:?}");
    assert_eq!((failed.status(), failed.code()), (StatusCode::GATEWAY_TIMEOUT, "upstream_total_timeout"));

    for pause in [10, 5000] {
        let endless = fake(limited, move |mut stream: TcpStream, _| async move {
            read_request(&mut stream).await;
            say(&mut stream, "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await;
            loop {
                if stream.write_all(b"1\r\nx\r\n").await.is_err() {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(pause)).await;
            }
        })
        .await;
        let body = endless.send(get()).await.unwrap().into_body();
        let outcome = tokio::time::timeout(Duration::from_secs(2), body.collect()).await.expect("an end");
        assert!(matches!(outcome.unwrap_err().downcast_ref(), Some(body::Cut::Overdue)), "{pause}");
    }
}

#[tokio::test]
async fn an_answer_that_comes_before_the_body_is_sent_arrives() {
    let fake = fake(
        |_| {},
        |mut stream, _| async move {
            let mut some = [0; 2000];
            let _ = stream.read(&mut some).await;
            say(&mut stream, "HTTP/1.1 413 Content Too Large\r\ncontent-length: 3\r\n\r\nbig").await;
        },
    )
    .await;
    for _ in 0..20 {
        let endless = futures_util::stream::repeat_with(|| Ok(Frame::data(Bytes::from(vec![b'x'; 16 * 1024]))));
        let response = fake.send(request(Method::POST, Body::stream(StreamBody::new(endless)))).await.unwrap();
        assert_eq!(response.status(), 413);
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "big");
    }
    assert_eq!(fake.idle(), 0);
}

#[tokio::test]
async fn framing_is_ours_and_trailers_pass_both_ways() {
    let seen = Arc::new(std::sync::Mutex::new(Vec::new()));
    let log = Arc::clone(&seen);
    let fake = fake(|_| {}, move |mut stream, _| {
        let log = Arc::clone(&log);
        async move {
            while let Some(request) = read_request(&mut stream).await {
                log.lock().unwrap().push(request);
                say(&mut stream, "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n").await;
                say(
                    &mut stream,
                    "HTTP/1.1 200 Fine\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\
                     set-cookie: __Host-vestibule=x\r\n\r\n1\r\nx\r\n0\r\nx-sum: 1\r\nset-cookie: __Host-vestibule=y\r\n\r\n",
                )
                .await;
            }
        }
    })
    .await;
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", HeaderValue::from_static("2"));
    trailers.insert("authorization", HeaderValue::from_static("Bearer stolen"));
    let frames = [Ok::<_, Infallible>(Frame::data(Bytes::from_static(b"abc"))), Ok(Frame::trailers(trailers))];
    let body = StreamBody::new(futures_util::stream::iter(frames)).map_err(Into::into);
    let mut with_trailers = request(Method::GET, Body::stream(body));
    for (name, value) in [("trailer", "x-sum, authorization"), ("content-length", "99")] {
        with_trailers.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    let response = fake.send(with_trailers).await.unwrap();
    assert!(!response.headers().contains_key("content-length") && !response.headers().contains_key("set-cookie"));
    let answer = response.into_body().collect().await.unwrap();
    let trailers = answer.trailers().unwrap();
    assert_eq!((trailers.len(), trailers["x-sum"].as_bytes()), (1, b"1".as_slice()));

    fake.text(get()).await;
    fake.text(request(Method::POST, Body::Empty)).await;
    let seen = seen.lock().unwrap();
    assert!(seen[0].contains("transfer-encoding: chunked") && !seen[0].contains("content-length"), "{}", seen[0]);
    assert!(seen[0].ends_with("3\r\nabc\r\n0\r\nx-sum: 2\r\n\r\n"), "{}", seen[0]);
    assert!(!seen[1].contains("transfer-encoding") && !seen[1].contains("content-length"), "{}", seen[1]);
    assert!(seen[2].contains("content-length: 0"), "{}", seen[2]);
}

#[tokio::test]
async fn what_is_not_http_or_was_not_asked_for_is_invalid() {
    for answer in [
        "SSH-2.0-x\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nabcd",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nx: 1\r\n 2\r\ncontent-length: 0\r\n\r\n",
    ] {
        let fake = fake(
            |_| {},
            move |mut stream, _| async move {
                read_request(&mut stream).await;
                say(&mut stream, answer).await;
            },
        )
        .await;
        let outcome = fake.send(get()).await;
        assert!(matches!(outcome, Err(UpstreamError::Invalid)), "{answer:?}: {outcome:?}");
        assert_eq!(outcome.unwrap_err().status(), 502);
    }
}

#[tokio::test]
async fn a_port_without_a_listener_is_told_apart_from_one_that_does_not_answer() {
    let fake =
        fake(|settings| settings.places = vec![Place::Host { host: "127.0.0.1".to_owned(), port: 1 }], |_, _| async {})
            .await;
    assert!(matches!(fake.send(get()).await, Err(UpstreamError::Connect(_))));
    let named = fake_by_name().await;
    assert_eq!(named.text(get()).await, "ok");
}

async fn fake_by_name() -> Fake {
    fake(
        |settings| {
            if let Place::Host { host, .. } = &mut settings.places[0] {
                "localhost".clone_into(host);
            }
        },
        |mut stream, _| async move {
            read_request(&mut stream).await;
            say(&mut stream, OK).await;
        },
    )
    .await
}

#[tokio::test]
async fn a_client_that_goes_away_ends_the_upstreams_request() {
    let ended = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&ended);
    let fake = fake(
        |_| {},
        move |mut stream, index| {
            let ended = Arc::clone(&count);
            async move {
                read_request(&mut stream).await;
                if index == 0 {
                    say(&mut stream, "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf").await;
                }
                if matches!(stream.read(&mut [0]).await, Ok(0)) {
                    ended.fetch_add(1, Ordering::SeqCst);
                }
            }
        },
    )
    .await;
    drop(fake.send(get()).await.unwrap());
    let unanswered = tokio::time::timeout(Duration::from_millis(100), fake.send(get())).await;
    assert!(unanswered.is_err());
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(ended.load(Ordering::SeqCst), 2);
}

/// A server of ours before `fake`, for upgrades; answers 599 where forwarding failed.
async fn before(fake: Fake) -> (std::net::SocketAddr, TaskTracker, CancellationToken) {
    let mut fake = fake;
    let (tunnels, closing) = (TaskTracker::new(), CancellationToken::new());
    (fake.upstreams.tunnels, fake.upstreams.closing) = (tunnels.clone(), closing.clone());
    let fake = Arc::new(fake);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let fake = Arc::clone(&fake);
            let service = hyper::service::service_fn(move |mut request: Request<Incoming>| {
                let fake = Arc::clone(&fake);
                async move {
                    let client = hyper::upgrade::on(&mut request);
                    let upgrade = Upgrade::new(HeaderValue::from_static("websocket"), request.headers(), client, false);
                    let upstream = fake.upstreams.upstream(0).unwrap();
                    let answer = fake
                        .upstreams
                        .send(
                            upstream,
                            (request.map(Body::Incoming), Ours::default()),
                            Some(upgrade),
                            Admitted::default(),
                        )
                        .await;
                    let failed = |_| Response::builder().status(599).body(Body::Empty).unwrap();
                    let mut answer = answer.unwrap_or_else(failed);
                    fake.upstreams.open_tunnel(&mut answer);
                    Ok::<_, Infallible>(answer)
                }
            });
            let io = hyper_util::rt::TokioIo::new(stream);
            tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(io, service).with_upgrades());
        }
    });
    (address, tunnels, closing)
}

const UPGRADE: &str = "GET /ws HTTP/1.1\r\nhost: app\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
                       sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// Agrees to the upgrade and sends the first frame in the same segment; then sends back what comes.
async fn websocket(mut stream: TcpStream, accept: &str) {
    let asked = read_request(&mut stream).await.unwrap_or_default();
    assert!(asked.contains("upgrade: websocket") && asked.contains("connection: upgrade"), "{asked}");
    let head = format!(
        "HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-accept: {accept}\r\nset-cookie: __Host-vestibule=x\r\n\r\n"
    );
    let _ = stream.write_all(&[head.as_bytes(), &[0x82, 2, b'h', b'i']].concat()).await;
    let (mut read, mut write) = stream.split();
    let _ = tokio::io::copy(&mut read, &mut write).await;
}

async fn read_head(stream: &mut TcpStream) -> String {
    let (mut bytes, mut byte) = (Vec::new(), [0]);
    while !bytes.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).await.unwrap();
        bytes.push(byte[0]);
    }
    String::from_utf8(bytes).unwrap()
}

#[tokio::test]
async fn a_websocket_opens_carries_frames_and_is_told_goodbye() {
    let fake = fake(|_| {}, |stream, _| websocket(stream, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")).await;
    let (address, tunnels, closing) = before(fake).await;
    let mut client = TcpStream::connect(address).await.unwrap();
    say(&mut client, UPGRADE).await;
    let head = read_head(&mut client).await;
    assert!(head.starts_with("HTTP/1.1 101") && head.contains("upgrade: websocket"), "{head}");
    assert!(!head.contains("set-cookie"), "{head}");
    let mut greeting = [0; 4];
    client.read_exact(&mut greeting).await.unwrap();
    assert_eq!(greeting, [0x82, 2, b'h', b'i']);
    let large = vec![7; 300_000];
    let mut back = vec![0; large.len() + 14];
    let frame = [&[0x82, 0xff, 0, 0, 0, 0, 0, 4, 0x93, 0xe0, 0, 0, 0, 0], large.as_slice()].concat();
    let (mut read, mut write) = client.split();
    let (sent, received) = tokio::join!(write.write_all(&frame), read.read_exact(&mut back));
    sent.and(received.map(drop)).unwrap();
    assert_eq!(back, frame);
    assert_eq!(tunnels.len(), 1);
    closing.cancel();
    let mut goodbye = [0; 4];
    client.read_exact(&mut goodbye).await.unwrap();
    assert_eq!(goodbye, [0x88, 2, 0x03, 0xe9]);
    say(&mut client, "\u{8}").await;
    drop(client);
    tunnels.close();
    tokio::time::timeout(Duration::from_secs(3), tunnels.wait()).await.unwrap();
}

#[tokio::test]
async fn a_101_with_a_wrong_accept_value_opens_nothing() {
    let fake = fake(|_| {}, |stream, _| websocket(stream, "AAAAAAAAAAAAAAAAAAAAAAAAAAA=")).await;
    let (address, tunnels, _) = before(fake).await;
    let mut client = TcpStream::connect(address).await.unwrap();
    say(&mut client, UPGRADE).await;
    assert!(read_head(&mut client).await.starts_with("HTTP/1.1 599"));
    assert_eq!(tunnels.len(), 0);
}

#[tokio::test]
async fn an_upgrade_that_the_upstream_declines_is_a_plain_answer() {
    let fake = fake(
        |_| {},
        |mut stream, _| async move {
            read_request(&mut stream).await;
            say(&mut stream, "HTTP/1.1 426 Upgrade Required\r\ncontent-length: 0\r\nupgrade: websocket\r\n\r\n").await;
        },
    )
    .await;
    let (address, tunnels, _) = before(fake).await;
    let mut client = TcpStream::connect(address).await.unwrap();
    say(&mut client, UPGRADE).await;
    assert!(read_head(&mut client).await.starts_with("HTTP/1.1 426"));
    assert_eq!(tunnels.len(), 0);
}

fn ended_long_ago() -> crate::authn::lifetime::Lifetime {
    crate::authn::lifetime::Lifetime::for_test(crate::clock::UnixTime(1))
}

#[tokio::test]
async fn a_stream_whose_session_is_over_breaks_off_or_ends_with_a_status_of_grpc() {
    for (kind, version, status) in [
        ("application/grpc+proto", Version::HTTP_2, Some("16")),
        ("application/grpc", Version::HTTP_11, None),
        ("text/event-stream", Version::HTTP_2, None),
    ] {
        let fake = fake(
            |_| {},
            move |mut stream: TcpStream, _| async move {
                read_request(&mut stream).await;
                let head = format!("HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ntransfer-encoding: chunked\r\n\r\n");
                say(&mut stream, &(head + "2\r\nhi\r\n")).await;
                tokio::time::sleep(Duration::from_secs(5)).await;
            },
        )
        .await;
        let mut request = get();
        *request.version_mut() = version;
        let term = Term::of(&fake.upstreams.followed, Some(ended_long_ago()), None);
        let upstream = fake.upstreams.upstream(0).unwrap();
        let answer = fake
            .upstreams
            .send(upstream, (request, Ours::default()), None, Admitted { term, ..Admitted::default() })
            .await
            .unwrap();
        let body = tokio::time::timeout(Duration::from_secs(2), answer.into_body().collect()).await.unwrap();
        match (status, body) {
            (Some(status), Ok(body)) => {
                assert_eq!(body.trailers().unwrap()["grpc-status"], status);
                assert_eq!(body.to_bytes(), "hi");
            }
            (None, Err(error)) => assert!(error.is::<body::Cut>(), "{error}"),
            (_, outcome) => panic!("{kind}: {outcome:?}"),
        }
        assert_eq!(fake.idle(), 0, "the connection ends with it");
    }
}
