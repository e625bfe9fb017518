//! A stream outlives the check that let it in; it does not outlive its session.

use std::time::{Duration, Instant};

use http::StatusCode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use vestibule_test_support::{Browser, Stage};

const UPGRADE: &str = "Connection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                       Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
/// Close, 1008, in words.
const GOODBYE: &[u8] = b"\x88\x0f\x03\xf0session ended";
/// A masked text frame "hi", and its echo.
const HI: [&[u8]; 2] = [b"\x81\x82\0\0\0\0hi", b"\x81\x02hi"];
const HOUR: Duration = Duration::from_secs(3600);

/// Something that does not end by itself, behind its answer's head.
pub(crate) struct Stream(TcpStream);

impl Stream {
    /// `line` is the request line, `fields` further header lines.
    async fn open(stage: &Stage, browser: &Browser, line: &str, fields: &str) -> Self {
        let mut stream = TcpStream::connect(stage.address()).await.unwrap();
        let (host, cookies) = (stage.host(), browser.cookie_line(&stage.origin()));
        let head = format!("{line} HTTP/1.1\r\nHost: {host}\r\nCookie: {cookies}\r\n{fields}\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        Self(stream)
    }

    pub(crate) async fn events(stage: &Stage, browser: &Browser, path: &str) -> Self {
        let mut stream = Self::open(stage, browser, &format!("GET {path}"), "").await;
        let head = stream.until(b"tick 0").await;
        assert!(head.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&head));
        stream
    }

    pub(crate) async fn web_socket(stage: &Stage, browser: &Browser) -> Self {
        let mut stream = Self::open(stage, browser, "GET /ws", UPGRADE).await;
        let head = stream.until(b"\r\n\r\n").await;
        assert!(head.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&head));
        stream.assert_echoes().await;
        stream
    }

    async fn until(&mut self, end: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        while !bytes.ends_with(end) {
            let byte = timeout(Duration::from_secs(10), self.0.read_u8()).await.expect("in time");
            bytes.push(byte.unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&bytes))));
        }
        bytes
    }

    pub(crate) async fn assert_ticks(&mut self) {
        for _ in 0..5 {
            self.until(b"tick ").await;
        }
    }

    pub(crate) async fn assert_echoes(&mut self) {
        self.0.write_all(HI[0]).await.unwrap();
        assert_eq!(self.until(b"hi").await, HI[1]);
    }

    /// Everything to the end of the connection, within `limit`.
    async fn rest(&mut self, limit: Duration) -> Vec<u8> {
        let mut rest = Vec::new();
        // A reset is an end too.
        let _ = timeout(limit, self.0.read_to_end(&mut rest)).await.expect("the connection ends in time");
        rest
    }

    /// An event stream that is cut, and not completed.
    pub(crate) async fn assert_cut(&mut self) {
        let rest = self.rest(Duration::from_secs(1)).await;
        assert!(!rest.ends_with(b"0\r\n\r\n"), "{}", String::from_utf8_lossy(&rest));
    }

    /// A WebSocket that is told why, and closed.
    pub(crate) async fn assert_told(&mut self) {
        let started = Instant::now();
        assert_eq!(self.until(GOODBYE).await, GOODBYE);
        assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
        // Close, 1008, as any client answers.
        let _ = self.0.write_all(b"\x88\x82\0\0\0\0\x03\xf0").await;
        assert_eq!(self.rest(Duration::from_secs(1)).await, b"");
    }
}

async fn sign_out(stage: &Stage, browser: &Browser) {
    assert_eq!(browser.get(&stage.url("/auth/logout")).await.status, StatusCode::SEE_OTHER);
}

#[tokio::test]
async fn a_sign_out_in_another_tab_cuts_what_streams_within_a_second_and_nobody_elses() {
    let stage = Stage::start();
    let (ada, bob) = (stage.signed_in_browser().await, stage.signed_in_browser().await);
    // As the server holds them: the sign-out takes the cookies away.
    let copy = ada.stolen_copy();
    let mut events = Stream::events(&stage, &ada, "/sse").await;
    let mut quiet = Stream::events(&stage, &ada, "/sse?every_ms=3600000").await;
    let mut socket = Stream::web_socket(&stage, &ada).await;
    let mut other_events = Stream::events(&stage, &bob, "/sse").await;
    let mut other_socket = Stream::web_socket(&stage, &bob).await;

    sign_out(&stage, &ada.tab()).await;
    tokio::join!(events.assert_cut(), quiet.assert_cut(), socket.assert_told());
    other_events.assert_ticks().await;
    other_socket.assert_echoes().await;
    let metrics = stage.browser().fetch(&stage.admin_url("/metrics")).await.text();
    assert!(metrics.contains("vestibule_streams_cut_total{reason=\"session_ended\"} 3"), "{metrics}");

    // What an event source does next.
    stage.upstream.forget();
    let again = copy.fetch(&stage.url("/sse")).await;
    assert_eq!((again.status, &again.json()["code"]), (StatusCode::UNAUTHORIZED, &"session_ended".into()));
    stage.upstream.assert_untouched();
}

#[tokio::test]
async fn a_stream_ends_with_its_sessions_lifetime_and_not_with_its_idle_time() {
    let stage = Stage::with("[session]\nlifetime = \"2h\"\nidle = \"10m\"");
    let browser = stage.signed_in_browser().await;
    let mut events = Stream::events(&stage, &browser, "/sse").await;
    let mut socket = Stream::web_socket(&stage, &browser).await;
    stage.clock.advance(HOUR);
    tokio::time::sleep(Duration::from_millis(600)).await;
    events.assert_ticks().await;
    socket.assert_echoes().await;
    stage.clock.advance(HOUR);
    tokio::join!(events.assert_cut(), socket.assert_told());
}

#[tokio::test]
async fn a_stream_of_a_route_that_asks_for_a_fresh_sign_in_ends_when_that_is_no_longer_fresh() {
    let stage = Stage::with("[[routes]]\npath = \"/sse\"\nmax_identity_age = \"30m\"");
    let browser = stage.signed_in_browser().await;
    let mut events = Stream::events(&stage, &browser, "/sse").await;
    let mut socket = Stream::web_socket(&stage, &browser).await;
    stage.clock.advance(Duration::from_secs(1801));
    events.assert_cut().await;
    socket.assert_echoes().await;
}

#[tokio::test]
async fn streams_of_nobody_go_on() {
    let stage = Stage::with("[[routes]]\npath = \"/*\"\naccess = \"optional\"\n[session]\nlifetime = \"1h\"");
    let mut events = Stream::events(&stage, &stage.browser(), "/sse").await;
    stage.clock.advance(HOUR * 30);
    tokio::time::sleep(Duration::from_millis(600)).await;
    events.assert_ticks().await;
}

#[tokio::test]
async fn an_upload_is_not_taken_in_for_a_session_that_has_ended() {
    let stage = Stage::start();
    let browser = stage.signed_in_browser().await;
    let mut upload = Stream::open(&stage, &browser, "POST /upload", "Transfer-Encoding: chunked\r\n").await;
    upload.0.write_all(b"4\r\npart\r\n").await.unwrap();
    while stage.upstream.count() == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    sign_out(&stage, &browser.tab()).await;
    let answer = String::from_utf8(upload.until(b"}").await).unwrap();
    assert!(answer.starts_with("HTTP/1.1 401") && answer.contains("\"code\":\"session_ended\""), "{answer}");
    tokio::time::sleep(Duration::from_millis(200)).await;
    let seen = stage.upstream.last();
    assert_eq!((seen.path(), seen.complete), ("/upload", false));
}

#[tokio::test]
async fn a_download_that_never_has_to_wait_is_cut_too() {
    const MIB: usize = 1 << 20;
    let stage = Stage::start();
    let browser = stage.signed_in_browser().await;
    let mut download = Stream::open(&stage, &browser, &format!("GET /big?bytes={}", 4096 * MIB), "").await;
    download.until(b"\r\n\r\n").await;
    download.0.read_exact(&mut vec![0; 4 * MIB]).await.unwrap();
    sign_out(&stage, &browser.tab()).await;
    tokio::time::sleep(Duration::from_millis(600)).await;
    // What is on its way in the kernel still comes.
    let left = download.rest(Duration::from_secs(5)).await.len();
    assert!(left < 64 * MIB, "{} MiB more", left / MIB);
}
