//! WebSockets by extended CONNECT (RFC 8441).

use std::time::Duration;

use bytes::Bytes;
use h2::ext::Protocol;
use h2::{RecvStream, SendStream};
use http::{Method, Request, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use vestibule_test_support::h2::{H2Reply, whole};
use vestibule_test_support::script::{agreeing, application, head};
use vestibule_test_support::{Browser, H2Client, Stage, bytes};

use super::{PUBLIC, with_cookies};

const SOON: Duration = Duration::from_secs(5);

fn connect(stage: &Stage, path: &str, protocol: &'static str) -> http::request::Builder {
    connect_to(stage.url(path), protocol)
}

pub(super) fn connect_to(url: String, protocol: &'static str) -> http::request::Builder {
    Request::builder()
        .method(Method::CONNECT)
        .uri(url)
        .extension(Protocol::from_static(protocol))
        .header("sec-websocket-version", "13")
}

/// A WebSocket that the proxy has agreed to, frame by frame.
pub(super) struct Socket {
    sending: SendStream<Bytes>,
    body: RecvStream,
    read: Vec<u8>,
}

impl Socket {
    /// Sends a masked frame.
    pub(super) fn send(&mut self, opcode: u8, payload: &[u8]) {
        let mut frame = vec![0x80 | opcode, 0x80 | u8::try_from(payload.len()).unwrap(), 1, 2, 3, 4];
        frame.extend(payload.iter().zip([1, 2, 3, 4].into_iter().cycle()).map(|(byte, mask)| byte ^ mask));
        self.sending.send_data(frame.into(), false).unwrap();
    }

    /// The next frame; `None` at the end.
    pub(super) async fn receive(&mut self) -> Option<(u8, Vec<u8>)> {
        loop {
            if let [first, length, ..] = *self.read.as_slice()
                && self.read.len() >= 2 + usize::from(length)
            {
                let frame: Vec<u8> = self.read.drain(..2 + usize::from(length)).collect();
                return Some((first & 0xf, frame[2..].to_vec()));
            }
            let data = timeout(SOON, self.body.data()).await.expect("a frame in time")?.ok()?;
            self.body.flow_control().release_capacity(data.len()).unwrap();
            self.read.extend_from_slice(&data);
        }
    }
}

pub(super) async fn open(client: &H2Client, request: Request<()>) -> Result<(Socket, http::HeaderMap), H2Reply> {
    let (response, sending) = client.open(request, false).await.unwrap();
    let response = timeout(SOON, response).await.expect("an answer in time").unwrap();
    if response.status() != StatusCode::OK {
        let (head, mut body) = response.into_parts();
        let mut bytes = Vec::new();
        while let Some(Ok(data)) = body.data().await {
            bytes.extend_from_slice(&data);
        }
        let (status, headers) = (head.status, head.headers);
        return Err(H2Reply { status, headers, body: bytes.into(), trailers: None, head_only: false });
    }
    let (head, body) = response.into_parts();
    Ok((Socket { sending, body, read: Vec::new() }, head.headers))
}

async fn refusal(client: &H2Client, request: Request<()>) -> (u16, String) {
    let Err(reply) = open(client, request).await else { panic!("a tunnel was opened") };
    (reply.status.as_u16(), reply.json()["code"].as_str().unwrap().to_owned())
}

async fn signed_in() -> (Stage, Browser, H2Client) {
    let stage = Stage::start();
    let browser = stage.signed_in_browser().await;
    let client = H2Client::connect(stage.address()).await;
    (stage, browser, client)
}

#[tokio::test]
async fn a_web_socket_with_a_session_is_one_to_the_application_too() {
    let (stage, browser, client) = signed_in().await;
    let request = connect(&stage, "/ws?room=1", "websocket")
        .header("origin", stage.origin())
        .header("sec-websocket-protocol", "chat")
        .header("sec-websocket-key", "bm90IG91cnM=");
    let request = with_cookies(&stage, &browser, request).body(()).unwrap();
    let (mut socket, headers) = open(&client, request).await.unwrap();
    assert_eq!(headers["sec-websocket-protocol"], "chat");
    for field in ["connection", "upgrade", "sec-websocket-accept", "content-length", "transfer-encoding"] {
        assert!(!headers.contains_key(field), "{field}");
    }
    let asked = stage.upstream.last();
    assert_eq!((asked.method.as_str(), asked.target.as_str()), ("GET", "/ws?room=1"));
    assert_eq!((asked.header("upgrade"), asked.header("connection")), (vec!["websocket"], vec!["upgrade"]));
    assert_eq!(
        (asked.header("sec-websocket-version"), asked.header("x-forwarded-user")),
        (vec!["13"], vec!["248289761001"])
    );
    assert!(asked.header("sec-websocket-key") != ["bm90IG91cnM="] && asked.header("sec-websocket-key").len() == 1);

    for number in 0..50 {
        let text = format!("message {number}");
        socket.send(1, text.as_bytes());
        assert_eq!(socket.receive().await, Some((1, text.into_bytes())));
    }
    // Beside other requests of the connection.
    let page = with_cookies(&stage, &browser, Request::get(stage.url("/page"))).body(()).unwrap();
    assert_eq!(client.send(page, "").await.unwrap().status, StatusCode::OK);
    socket.send(8, &1000_u16.to_be_bytes());
    assert_eq!(socket.receive().await, Some((8, 1000_u16.to_be_bytes().to_vec())));
    assert_eq!(socket.receive().await, None);
}

#[tokio::test]
async fn without_a_session_or_from_a_foreign_page_there_is_no_web_socket() {
    let (stage, browser, client) = signed_in().await;
    let request = connect(&stage, "/ws", "websocket").body(()).unwrap();
    assert_eq!(refusal(&client, request).await, (401, "no_session".to_owned()));
    for origin in ["https://evil.example", "null"] {
        let request = with_cookies(&stage, &browser, connect(&stage, "/ws", "websocket").header("origin", origin));
        assert_eq!(refusal(&client, request.body(()).unwrap()).await, (403, "foreign_origin".to_owned()), "{origin}");
    }
    let request = with_cookies(&stage, &browser, connect(&stage, "/a/../ws", "websocket")).body(()).unwrap();
    assert_eq!(refusal(&client, request).await, (400, "path_dot_segment".to_owned()));
    let request = with_cookies(&stage, &browser, connect(&stage, "/auth/userinfo", "websocket")).body(()).unwrap();
    assert_eq!(refusal(&client, request).await, (405, "method_not_allowed".to_owned()));
    stage.upstream.assert_untouched();
}

#[tokio::test]
async fn other_protocols_need_a_route_that_names_them() {
    let stage = Stage::with(PUBLIC);
    let client = H2Client::connect(stage.address()).await;
    for protocol in ["connect-udp", "h2c", "tcp"] {
        let request = connect(&stage, "/ws", protocol).body(()).unwrap();
        assert_eq!(refusal(&client, request).await, (501, "tunnel_refused".to_owned()), "{protocol}");
    }
    let request = connect(&stage, "/ws", "web, socket").body(()).unwrap();
    assert_eq!(refusal(&client, request).await, (400, "upgrade_invalid".to_owned()));
    stage.upstream.assert_untouched();
}

#[tokio::test]
async fn a_protocol_that_its_route_names_is_a_tunnel_of_any_bytes() {
    let (url, mut questions) = agreeing().await;
    let stage = Stage::with(&format!("[upstream]\nurl = \"{url}\"\n{PUBLIC}\nupgrades = [\"spdy/3.1\"]"));
    let client = H2Client::connect(stage.address()).await;
    let ask = |protocol| {
        let request = Request::builder().method(Method::CONNECT).uri(stage.url("/exec?x"));
        request.extension(Protocol::from_static(protocol)).body(()).unwrap()
    };
    for other in ["tcp", "h2c", "spdy/3"] {
        assert_eq!(refusal(&client, ask(other)).await, (501, "tunnel_refused".to_owned()), "{other}");
    }
    let (response, mut sending) = client.open(ask("spdy/3.1"), false).await.unwrap();
    let (agreed, mut body) = timeout(SOON, response).await.expect("an answer in time").unwrap().into_parts();
    assert_eq!(agreed.status, StatusCode::OK);
    assert!(!agreed.headers.contains_key("upgrade") && !agreed.headers.contains_key("connection"), "{agreed:?}");
    // Nothing of the refused ones came before.
    let asked = questions.recv().await.unwrap();
    assert!(asked.starts_with("GET /exec?x HTTP/1.1\r\n"), "{asked}");
    assert!(asked.contains("\r\nconnection: upgrade\r\n") && asked.contains("\r\nupgrade: spdy/3.1\r\n"), "{asked}");
    assert!(!asked.contains("sec-websocket"), "{asked}");
    let mut hear = async |length: usize| {
        let mut heard = Vec::new();
        while heard.len() < length {
            let data = timeout(SOON, body.data()).await.expect("bytes in time").expect("more bytes").unwrap();
            body.flow_control().release_capacity(data.len()).unwrap();
            heard.extend_from_slice(&data);
        }
        heard
    };
    assert_eq!(hear(7).await, b"welcome");
    let all: Vec<u8> = (0..=255).collect();
    for said in [&b"get /admin http/1.1\r\n\r\n"[..], b"\x88\x82\0\0\0\0\x03\xe8", &all, &[b'x'; 100_000]] {
        sending.send_data(Bytes::copy_from_slice(said), false).unwrap();
        assert_eq!(hear(said.len()).await, said.to_ascii_uppercase());
    }
    sending.send_data(Bytes::new(), true).unwrap();
    // The end may come as an empty frame of its own.
    while let Some(rest) = timeout(SOON, body.data()).await.expect("the end") {
        assert_eq!(rest.unwrap(), "");
    }
}

#[tokio::test]
async fn what_opens_no_tunnel_is_never_a_success() {
    let fixed =
        "[[routes]]\npath = \"/fixed\"\naccess = \"public\"\nupstream = \"fixed\"\n[upstreams.fixed]\nrespond = {}\n";
    let stage = Stage::with(&format!("{PUBLIC}\n{fixed}"));
    let client = H2Client::connect(stage.address()).await;
    for path in ["/no-web-socket", "/fixed"] {
        let request = connect(&stage, path, "websocket").body(()).unwrap();
        assert_eq!(refusal(&client, request).await, (501, "tunnel_refused".to_owned()), "{path}");
    }
    let (response, _sending) =
        client.open(connect(&stage, "/respond?status=404", "websocket").body(()).unwrap(), false).await.unwrap();
    assert_eq!(whole(response).await.unwrap().status, StatusCode::NOT_FOUND, "the application's own words");
}

// It would be bytes of HTTP/1.1 in the midst of the client's frames.
#[tokio::test]
async fn a_hint_before_the_answer_to_one_does_not_reach_its_connection() {
    let url = application(|mut stream| async move {
        head(&mut stream).await;
        let answers = "HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\nHTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n";
        stream.write_all(answers.as_bytes()).await.unwrap();
        let _ = stream.read_u8().await;
    })
    .await;
    let stage = Stage::with(&format!("[upstream]\nurl = \"{url}\"\n{PUBLIC}"));
    let client = H2Client::connect(stage.address()).await;
    for _ in 0..2 {
        let request = connect(&stage, "/ws", "websocket").body(()).unwrap();
        let (response, _sending) = client.open(request, false).await.unwrap();
        assert_eq!(whole(response).await.unwrap().status, StatusCode::NOT_FOUND);
    }
    assert_eq!(client.get(&stage.url("/")).await.unwrap().status, StatusCode::NOT_FOUND, "the connection goes on");
}

#[tokio::test]
async fn a_tunnel_keeps_its_connection_and_hears_of_a_stop() {
    let mut stage = Stage::with(&format!("[limits]\nidle_timeout = \"1s\"\n{PUBLIC}"));
    let client = H2Client::connect(stage.address()).await;
    let (mut socket, _) = open(&client, connect(&stage, "/ws", "websocket").body(()).unwrap()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    socket.send(1, b"still here");
    assert_eq!(socket.receive().await, Some((1, b"still here".to_vec())));
    let stop = std::thread::spawn(move || stage.stop());
    assert_eq!(socket.receive().await, Some((8, 1001_u16.to_be_bytes().to_vec())));
    socket.send(8, &1001_u16.to_be_bytes());
    assert_eq!(socket.receive().await, None);
    stop.join().unwrap();
}

#[tokio::test]
async fn a_tunnel_that_is_reset_ends_the_applications_too() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let stage = Stage::with(&format!("[upstream]\nurl = \"http://{}\"\n{PUBLIC}", listener.local_addr().unwrap()));
    let application = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = vec![0; 4096];
        let count = stream.read(&mut head).await.unwrap();
        let head = String::from_utf8(head[..count].to_vec()).unwrap();
        let key = head.lines().find_map(|line| line.strip_prefix("sec-websocket-key: ")).expect("a key");
        let accept = derive_accept_key(key.as_bytes());
        let answer = format!(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
        );
        stream.write_all(answer.as_bytes()).await.unwrap();
        let mut heard = Vec::new();
        let _ = stream.read_to_end(&mut heard).await;
        heard
    });
    let client = H2Client::connect(stage.address()).await;
    let (mut socket, _) = open(&client, connect(&stage, "/ws", "websocket").body(()).unwrap()).await.unwrap();
    socket.send(1, b"x");
    tokio::time::sleep(Duration::from_millis(100)).await;
    socket.sending.send_reset(h2::Reason::CANCEL);
    drop(socket);
    let heard = timeout(SOON, application).await.expect("the application's connection ends").unwrap();
    assert_eq!(heard.len(), 7, "the frame came before: {heard:?}");
}
