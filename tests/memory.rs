//! What the program itself holds, looked at from outside: little for those who only wait, and bounded for those who drip.

use std::any::Any;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use http::{Request, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use vestibule_test_support::bytes::Bytes;
use vestibule_test_support::script::{connect, head};
use vestibule_test_support::{CertificateFiles, H2Client, Program, Site, TestCa, TlsClient, free_port};

const PROGRAM: &str = env!("CARGO_BIN_EXE_vestibule");
const NAME: &str = "app.example.com";
const KIB: u64 = 1024;
/// How long anything that happens at once may take on a busy machine.
const SOON: Duration = Duration::from_secs(20);

/// The program in front of an application whose `/open` is open to everybody, with a plain listener and one of TLS.
struct House {
    site: Site,
    program: Program,
    secure: SocketAddr,
    tls: TlsClient,
    _files: CertificateFiles,
}

impl House {
    async fn start(limits: &str) -> Self {
        let ca = TestCa::new();
        let files = CertificateFiles::new(&ca.sign(&[NAME]));
        let (site, port) = (Site::of(PROGRAM), free_port());
        let toml = format!(
            "[limits]\n{limits}\n[[routes]]\npath = \"/open/*\"\naccess = \"public\"\n\
             [[listeners]]\naddress = \"127.0.0.1:{port}\"\n[listeners.tls]\n{}",
            files.keys()
        );
        let program = site.start(site.launch().env("VESTIBULE_CONFIG", site.file("house.toml", &toml))).await;
        let tls = TlsClient::trusting(&ca);
        Self { site, program, secure: ([127, 0, 0, 1], port).into(), tls, _files: files }
    }

    async fn assert_others_are_served(&self) {
        let reply = timeout(SOON, self.site.browser().fetch(&self.site.url("/open"))).await.expect("others are served");
        assert_eq!(reply.status, StatusCode::OK);
    }
}

/// A kind of connection that waits.
#[derive(Debug, Clone, Copy)]
enum Kind {
    /// Not a byte came.
    Silent,
    /// Kept after an answer.
    Answered,
    /// A WebSocket of somebody who is signed in, through to the application.
    WebSocket,
    /// TLS, and not a request.
    SilentTls,
    /// TLS, kept after an answer.
    AnsweredTls,
    /// HTTP/2, kept after an answer.
    Http2,
    /// HTTP/2 over TLS, kept after an answer.
    Http2Tls,
}

const GET: &str = "GET /open HTTP/1.1\r\nHost: {host}\r\n\r\n";

/// Reads an answer of HTTP/1.1 to its end.
async fn read_answer<S: AsyncReadExt + Unpin>(stream: &mut S) {
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(timeout(SOON, stream.read_u8()).await.expect("an answer in time").unwrap());
    }
    let answer = String::from_utf8(answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let length = answer.lines().find_map(|line| line.strip_prefix("content-length: ")).expect("a length");
    stream.read_exact(&mut vec![0; length.parse().unwrap()]).await.unwrap();
}

impl Kind {
    /// A connection of this kind, for as long as it is kept.
    async fn open(self, house: &House, cookies: &str) -> Box<dyn Any> {
        let (site, plain) = (&house.site, house.site.address());
        let secure = async |protocol: &[u8]| {
            house.tls.offering(&[protocol]).connect(house.secure, NAME).await.expect("a handshake")
        };
        let get = async |client: H2Client, origin: &str| {
            let reply = client.send(Request::get(format!("{origin}/open")).body(()).unwrap(), Bytes::new()).await;
            assert_eq!(reply.unwrap().status, StatusCode::OK);
            client
        };
        match self {
            Self::Silent => Box::new(connect(plain, "").await),
            Self::Answered => {
                let mut stream = connect(plain, GET).await;
                read_answer(&mut stream).await;
                Box::new(stream)
            }
            Self::WebSocket => {
                let asks = format!(
                    "GET /ws HTTP/1.1\r\nHost: {{host}}\r\nOrigin: {}\r\nCookie: {cookies}\r\nConnection: upgrade\r\n\
                     Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
                    site.url("")
                );
                let mut stream = connect(plain, &asks).await;
                let answer = head(&mut stream).await;
                assert!(answer.starts_with("HTTP/1.1 101"), "{answer}");
                Box::new(stream)
            }
            Self::SilentTls => Box::new(secure(b"http/1.1").await),
            Self::AnsweredTls => {
                let mut stream = secure(b"http/1.1").await;
                stream.write_all(GET.replace("{host}", NAME).as_bytes()).await.unwrap();
                // It may have kept what the socket did not take.
                stream.flush().await.unwrap();
                read_answer(&mut stream).await;
                Box::new(stream)
            }
            Self::Http2 => Box::new(get(H2Client::connect(plain).await, &site.url("")).await),
            Self::Http2Tls => {
                let client = H2Client::over(secure(b"h2").await, &h2::client::Builder::new()).await;
                Box::new(get(client, &format!("https://{NAME}")).await)
            }
        }
    }

    /// Bytes that each of four times `count` adds once it waits. A connection gives room back when it has been silent for a
    /// second, and those that come after it use that room: so they come in waves, and the first, whose room for its beginning
    /// stays with the program, is not counted.
    async fn takes(self, count: usize) -> u64 {
        const WAVES: usize = 4;
        let house = House::start("idle_timeout = \"10m\"").await;
        let browser = house.site.browser();
        assert_eq!(browser.follow(&house.site.url("/"), 10).await.status, StatusCode::OK);
        let cookies = browser.cookie_line(&house.site.url(""));
        let (mut all, mut before) = (Vec::new(), 0);
        for wave in 0..=WAVES {
            for start in (0..count).step_by(50) {
                let few = (start..count.min(start + 50)).map(|_| self.open(&house, &cookies));
                all.extend(join_all(few).await);
            }
            tokio::time::sleep(Duration::from_millis(1_500)).await;
            if wave == 0 {
                before = house.program.memory();
            }
        }
        let each = house.program.memory().saturating_sub(before) / (WAVES * count) as u64;
        house.assert_others_are_served().await;
        each
    }
}

#[tokio::test]
async fn an_idle_connection_takes_little() {
    for kind in [Kind::Silent, Kind::Answered] {
        let each = kind.takes(250).await;
        assert!(each <= 12 * KIB, "{kind:?}: {each} bytes");
    }
}

#[tokio::test]
async fn an_idle_web_socket_takes_little() {
    let each = Kind::WebSocket.takes(125).await;
    assert!(each <= 25 * KIB, "{each} bytes");
}

#[tokio::test]
async fn an_idle_connection_of_tls_or_http_2_takes_little() {
    for (kind, most) in [(Kind::SilentTls, 16), (Kind::AnsweredTls, 16), (Kind::Http2, 48), (Kind::Http2Tls, 48)] {
        let each = kind.takes(125).await;
        assert!(each <= most * KIB, "{kind:?}: {each} bytes");
    }
}

/// Sends a byte now and then until the connection ends.
async fn drip(mut stream: TcpStream) {
    let started = Instant::now();
    let mut answer = [0; 1024];
    loop {
        if stream.write_all(b"a").await.is_err() {
            return;
        }
        match timeout(Duration::from_millis(50), stream.read(&mut answer)).await {
            // What was said before the end.
            Ok(Ok(1..)) => {}
            Ok(_) => return,
            Err(_) => assert!(started.elapsed() < SOON, "never cut"),
        }
    }
}

/// Heads and bodies that never end, wave after wave: had a connection left anything behind, there would be more of it with each
/// wave.
#[tokio::test]
async fn those_who_drip_cost_a_bounded_piece_each_and_leave_nothing_behind() {
    const COUNT: usize = 500;
    /// How many waves it takes until the program has all the room that a wave ever needs, and how many come then.
    const WAVES: (usize, usize) = (3, 6);
    /// The most that the latter may add, in bytes: one KiB for each connection.
    const COST: u64 = (WAVES.1 * COUNT) as u64 * KIB;
    let begun = format!("GET /open HTTP/1.1\r\nHost: {{host}}\r\nX-Slow: {}", "a".repeat(4096));
    let length = "Content-Length: 1000000\r\n\r\n";
    let sending = format!("POST /open HTTP/1.1\r\nHost: {{host}}\r\n{length}{}", "a".repeat(512));
    for (what, said, most) in [("heads", begun, 48 * KIB), ("bodies", sending, 96 * KIB)] {
        let house = House::start("header_timeout = \"1s\"\nmin_body_rate = \"4KiB\"\nbody_grace = \"1s\"").await;
        house.assert_others_are_served().await;
        let (begun, mut before) = (house.program.memory(), 0);
        for wave in 1..=WAVES.0 + WAVES.1 {
            let all = join_all((0..COUNT).map(|_| connect(house.site.address(), &said))).await;
            tokio::join!(join_all(all.into_iter().map(drip)), house.assert_others_are_served());
            if wave == WAVES.0 {
                before = house.program.peak_memory();
                let each = before.saturating_sub(begun) / COUNT as u64;
                assert!(each <= most, "{what}: {each} bytes for each connection");
            }
        }
        let growth = house.program.peak_memory().saturating_sub(before);
        assert!(growth < COST, "{what}: {} KiB more", growth / KIB);
    }
}
