//! An application that tells what reached it.
//!
//! Every answer is JSON about the request itself, unless the path asks for a behaviour:
//!
//! | path | behaviour |
//! |---|---|
//! | `/sse?events=N&every_ms=M&type=T` | an event stream, or what `type` calls it; without `events` it never ends |
//! | `/ws` | WebSocket echo; what is not an upgrade gets 426 |
//! | `/slow?ms=N` | answers after N milliseconds |
//! | `/big?bytes=N` | N bytes with a `Content-Length` |
//! | `/die-mid-body` | promises 1,000 bytes, sends 10 and cuts the connection |
//! | `/close-after` | answers, then closes the connection without having announced it |
//! | `/set-cookie?name=N&value=V` | sets a cookie |
//! | `/respond?status=N&header=Name:value` | any status, any headers (`header` may repeat) |
//! | `/until?name=N&value=V&header=Name:value` | 401 with these headers until the request's header N is V |
//! | `/trailers` | a chunked body with a trailer `X-Checksum` |

use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_lc_rs::digest;
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt, stream};
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;
use url::form_urlencoded;

use crate::listener::{Answer, BodyError, Listener, Wire};

/// The most of a body that is kept as text.
const TEXT_LIMIT: usize = 64 * 1024;

/// One request as it reached the upstream.
#[derive(Debug, Clone)]
pub struct Received {
    /// The method.
    pub method: Method,
    /// The request target, character for character.
    pub target: String,
    /// Header fields in order, names in lower case.
    pub headers: Vec<(String, String)>,
    /// How many body bytes came.
    pub body_length: u64,
    /// SHA-256 of the body in hexadecimal.
    pub body_sha256: String,
    /// The body's beginning, lossily decoded.
    pub body_text: String,
    /// Trailer fields.
    pub trailers: Vec<(String, String)>,
    /// Whether the body has come to its end.
    pub complete: bool,
    wire: Wire,
}

impl Received {
    /// The values of a header, in order.
    pub fn header(&self, name: &str) -> Vec<&str> {
        self.headers
            .iter()
            .filter(|(field, _)| field.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
            .collect()
    }

    /// The path of the target, without the query.
    pub fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }

    /// All that came in on this request's connection so far (at most 256 KiB), byte for byte: names in their own case.
    pub fn wire(&self) -> Vec<u8> {
        self.wire.received.lock().unwrap().clone()
    }

    /// What the answer to this request says.
    pub fn json(&self) -> Value {
        json!({
            "method": self.method.as_str(),
            "target": self.target,
            "headers": self.headers,
            "body": { "length": self.body_length, "sha256": self.body_sha256, "text": self.body_text },
            "trailers": self.trailers,
        })
    }
}

/// The application; gone when dropped.
#[derive(Debug)]
pub struct EchoUpstream {
    listener: Listener,
    log: Log,
}

type Entry = Arc<Mutex<Received>>;
type Log = Arc<Mutex<Vec<Entry>>>;

impl EchoUpstream {
    /// Serves on a free port of 127.0.0.1.
    pub fn start() -> Self {
        let upstream = Self { listener: Listener::reserve(), log: Log::default() };
        upstream.bring_back();
        upstream
    }

    /// Where it listens, as `http://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("http://{}", self.listener.address())
    }

    /// Every request so far.
    pub fn requests(&self) -> Vec<Received> {
        self.log.lock().unwrap().iter().map(|entry| entry.lock().unwrap().clone()).collect()
    }

    /// The newest request.
    ///
    /// # Panics
    /// When there was none.
    #[track_caller]
    pub fn last(&self) -> Received {
        self.requests().pop().expect("a request at the upstream")
    }

    /// How many requests came so far.
    pub fn count(&self) -> usize {
        self.log.lock().unwrap().len()
    }

    /// Forgets the requests so far.
    pub fn forget(&self) {
        self.log.lock().unwrap().clear();
    }

    /// Nothing reached the upstream.
    ///
    /// # Panics
    /// When something did.
    #[track_caller]
    pub fn assert_untouched(&self) {
        let targets: Vec<String> =
            self.requests().iter().map(|request| format!("{} {}", request.method, request.target)).collect();
        assert!(targets.is_empty(), "the upstream was reached: {targets:?}");
    }

    /// Refuses connections from now on, and cuts those that are open.
    pub fn take_down(&self) {
        self.listener.refuse();
    }

    /// Serves again on the same port.
    pub fn bring_back(&self) {
        let log = self.log.clone();
        self.listener.serve(move |request, wire| answer(request, wire, log.clone()));
    }
}

async fn answer(mut request: Request<Incoming>, wire: Wire, log: Log) -> Answer {
    let entry = record_head(&request, &wire, &log);
    let query: Vec<(String, String)> =
        form_urlencoded::parse(request.uri().query().unwrap_or_default().as_bytes()).into_owned().collect();
    let asked = |name: &str| query.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
    let number = |name: &str| asked(name).and_then(|value| value.parse::<u64>().ok());
    match request.uri().path() {
        "/ws" => return web_socket(&mut request),
        "/sse" => {
            let mut answer = events(number("events"), Duration::from_millis(number("every_ms").unwrap_or(50)));
            if let Some(kind) = asked("type") {
                answer.headers_mut().insert(header::CONTENT_TYPE, kind.parse().expect("a content type"));
            }
            return answer;
        }
        "/slow" => tokio::time::sleep(Duration::from_millis(number("ms").unwrap_or(1000))).await,
        _ => {}
    }
    let path = request.uri().path().to_owned();
    let received = record_body(request.into_body(), entry).await;
    match path.as_str() {
        "/big" => big(number("bytes").unwrap_or(1 << 20)),
        "/die-mid-body" => die_mid_body(),
        "/trailers" => trailers(),
        "/set-cookie" => {
            let cookie = format!(
                "{}={}; Path=/",
                asked("name").unwrap_or_else(|| "upstream".to_owned()),
                asked("value").unwrap_or_else(|| "1".to_owned())
            );
            let mut answer = echo(&received);
            answer.headers_mut().insert(header::SET_COOKIE, cookie.parse().expect("a cookie"));
            answer
        }
        "/respond" => respond(&received, &query),
        "/until" if received.header(&asked("name").unwrap_or_default()) != [asked("value").unwrap_or_default()] => {
            let mut answer = respond(&received, &query);
            *answer.status_mut() = StatusCode::UNAUTHORIZED;
            answer
        }
        "/close-after" => {
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(20)).await;
                wire.cut.notify_one();
            });
            echo(&received)
        }
        _ => echo(&received),
    }
}

/// Writes the request down before its body is read, so that a refusal which came too late is seen.
fn record_head(request: &Request<Incoming>, wire: &Wire, log: &Log) -> Entry {
    let entry = Arc::new(Mutex::new(Received {
        method: request.method().clone(),
        target: request.uri().to_string(),
        headers: pairs(request.headers()),
        body_length: 0,
        body_sha256: String::new(),
        body_text: String::new(),
        trailers: Vec::new(),
        complete: false,
        wire: wire.clone(),
    }));
    log.lock().unwrap().push(entry.clone());
    entry
}

async fn record_body(mut body: Incoming, entry: Entry) -> Received {
    let mut hash = digest::Context::new(&digest::SHA256);
    let mut text = Vec::new();
    let mut length = 0;
    let mut trailers = Vec::new();
    let mut complete = true;
    while let Some(frame) = body.frame().await {
        match frame.map(Frame::into_data) {
            Ok(Ok(data)) => {
                hash.update(&data);
                length += data.len() as u64;
                text.extend_from_slice(&data[..data.len().min(TEXT_LIMIT.saturating_sub(text.len()))]);
            }
            Ok(Err(frame)) => trailers = frame.into_trailers().map(|fields| pairs(&fields)).unwrap_or_default(),
            Err(_) => {
                complete = false;
                break;
            }
        }
    }
    let hash: String = hash.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    let mut slot = entry.lock().unwrap();
    slot.body_length = length;
    slot.body_sha256 = hash;
    slot.body_text = String::from_utf8_lossy(&text).into_owned();
    slot.trailers = trailers;
    slot.complete = complete;
    slot.clone()
}

fn pairs(fields: &HeaderMap) -> Vec<(String, String)> {
    fields
        .iter()
        .map(|(name, value)| (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
        .collect()
}

fn echo(received: &Received) -> Answer {
    let body = serde_json::to_vec_pretty(&received.json()).expect("JSON");
    Response::builder().header(header::CONTENT_TYPE, "application/json").body(full(body)).expect("an answer")
}

fn full(body: impl Into<Bytes>) -> UnsyncBoxBody<Bytes, BodyError> {
    Full::new(body.into()).map_err(|never: Infallible| match never {}).boxed_unsync()
}

fn respond(received: &Received, query: &[(String, String)]) -> Answer {
    let mut answer = echo(received);
    for (key, value) in query {
        match (key.as_str(), value.split_once(':')) {
            ("status", _) => *answer.status_mut() = value.parse().expect("a status"),
            ("header", Some((name, value))) => {
                let name: header::HeaderName = name.parse().expect("a header name");
                answer.headers_mut().append(name, value.trim().parse().expect("a header value"));
            }
            _ => {}
        }
    }
    answer
}

fn events(count: Option<u64>, every: Duration) -> Answer {
    let events = stream::unfold(0u64, move |number| async move {
        if Some(number) == count {
            return None;
        }
        if number > 0 {
            tokio::time::sleep(every).await;
        }
        let event = Bytes::from(format!("id: {number}\ndata: tick {number}\n\n"));
        Some((Ok::<_, BodyError>(Frame::data(event)), number + 1))
    });
    Response::builder()
        .header(header::CONTENT_TYPE, "text/event-stream")
        .header(header::CACHE_CONTROL, "no-cache")
        .body(BodyExt::boxed_unsync(StreamBody::new(events)))
        .expect("an answer")
}

fn big(bytes: u64) -> Answer {
    const PIECE: u64 = 64 * 1024;
    let pieces = stream::unfold(bytes, |left| async move {
        let size = left.min(PIECE);
        (size > 0).then(|| (Ok::<_, BodyError>(Frame::data(Bytes::from(vec![b'x'; size as usize]))), left - size))
    });
    Response::builder()
        .header(header::CONTENT_TYPE, "application/octet-stream")
        .header(header::CONTENT_LENGTH, bytes)
        .body(BodyExt::boxed_unsync(StreamBody::new(pieces)))
        .expect("an answer")
}

fn die_mid_body() -> Answer {
    let pieces = stream::unfold(0, |step| async move {
        match step {
            0 => Some((Ok(Frame::data(Bytes::from_static(b"ten bytes!"))), 1)),
            _ => {
                // Time for the first bytes to leave.
                tokio::time::sleep(Duration::from_millis(30)).await;
                Some((Err::<Frame<Bytes>, BodyError>("cut on purpose".into()), 2))
            }
        }
    });
    Response::builder()
        .header(header::CONTENT_LENGTH, 1000)
        .body(BodyExt::boxed_unsync(StreamBody::new(pieces)))
        .expect("an answer")
}

fn trailers() -> Answer {
    let mut fields = HeaderMap::new();
    fields.insert("x-checksum", "abc".parse().expect("a value"));
    let frames = vec![Ok(Frame::data(Bytes::from_static(b"body"))), Ok::<_, BodyError>(Frame::trailers(fields))];
    Response::builder()
        .header(header::TRAILER, "X-Checksum")
        .body(BodyExt::boxed_unsync(StreamBody::new(stream::iter(frames))))
        .expect("an answer")
}

fn web_socket(request: &mut Request<Incoming>) -> Answer {
    let asks =
        request.headers().get(header::UPGRADE).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"));
    let Some(key) = request.headers().get(header::SEC_WEBSOCKET_KEY).filter(|_| asks) else {
        return Response::builder()
            .status(StatusCode::UPGRADE_REQUIRED)
            .header(header::UPGRADE, "websocket")
            .body(full("a WebSocket lives here"))
            .expect("an answer");
    };
    let accept = derive_accept_key(key.as_bytes());
    let upgrade = hyper::upgrade::on(&mut *request);
    tokio::spawn(async move {
        let Ok(upgraded) = upgrade.await else { return };
        let mut socket = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, None).await;
        while let Some(Ok(message)) = socket.next().await {
            let echoed = match message {
                Message::Text(_) | Message::Binary(_) => socket.send(message).await,
                // tungstenite answers pings and closes while it is being read.
                _ => socket.flush().await,
            };
            if echoed.is_err() {
                return;
            }
        }
    });
    let mut answer = Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header(header::UPGRADE, "websocket")
        .header(header::CONNECTION, "Upgrade")
        .header(header::SEC_WEBSOCKET_ACCEPT, accept);
    if let Some(offered) = request.headers().get(header::SEC_WEBSOCKET_PROTOCOL) {
        let first = offered.to_str().unwrap_or_default().split(',').next().unwrap_or_default().trim();
        answer = answer.header(header::SEC_WEBSOCKET_PROTOCOL, first);
    }
    answer.body(full(Bytes::new())).expect("an answer")
}
