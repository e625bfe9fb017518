//! Certificates of clients over time: a CA that is taken out, a certificate that is revoked.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use vestibule_test_support::tokio_rustls::client::TlsStream;
use vestibule_test_support::{CertificateFiles, H2Client, Signed, Stage, TestCa, TlsClient};

const PUBLIC: &str = "[[routes]]\npath = \"/*\"\naccess = \"public\"\n";
const NAME: &str = "app.example.com";
const SOON: Duration = Duration::from_secs(10);

/// A proxy that asks for certificates of clients, with `clients.crt` and what else is in `more`.
struct Asking {
    stage: Stage,
    ca: TestCa,
    files: CertificateFiles,
}

impl Asking {
    fn start(roots: &[&TestCa], crl: Option<&str>) -> Self {
        let ca = TestCa::new();
        let files = CertificateFiles::new(&ca.sign(&[NAME]));
        let mut keys = format!("client_ca_file = {:?}\n", files.add("clients.crt", &pems(roots)));
        if let Some(crl) = crl {
            keys += &format!("client_crl_file = {:?}\n", files.add("clients.crl", crl));
        }
        let stage = Stage::with(&format!("{PUBLIC}{}{keys}", files.toml()));
        Self { stage, ca, files }
    }

    fn client(&self, signed: &Signed) -> TlsClient {
        TlsClient::showing(&self.ca, signed)
    }

    /// A connection of HTTP/1.1 that has carried a request.
    async fn kept(&self, signed: &Signed) -> TlsStream<TcpStream> {
        let mut stream = self.client(signed).connect(self.stage.address(), NAME).await.unwrap();
        ask(&mut stream).await;
        stream
    }

    /// One of HTTP/2.
    async fn multiplexed(&self, signed: &Signed) -> H2Client {
        let tls = self.client(signed).offering(&[b"h2"]);
        let stream = tls.connect(self.stage.address(), NAME).await.unwrap();
        let client = H2Client::over(stream, &h2::client::Builder::new()).await;
        assert_eq!(client.get(&format!("https://{NAME}/h2")).await.unwrap().status, 200);
        client
    }

    async fn metrics(&self) -> String {
        self.stage.browser().fetch(&self.stage.admin_url("/metrics")).await.text()
    }

    async fn is_let_in(&self, signed: &Signed) -> bool {
        let answer = self.client(signed).get(self.stage.address(), NAME, "/new", "").await;
        answer.is_ok_and(|answer| answer.starts_with("HTTP/1.1 200"))
    }

    /// Until a client with this certificate is refused.
    async fn refuses(&self, signed: &Signed) {
        let end = Instant::now() + SOON;
        while self.is_let_in(signed).await {
            assert!(Instant::now() < end, "it is still let in");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

fn pems(cas: &[&TestCa]) -> String {
    cas.iter().map(|ca| ca.pem()).collect()
}

async fn ask(stream: &mut TlsStream<TcpStream>) {
    let request = format!("GET /kept HTTP/1.1\r\nhost: {NAME}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\n}") {
        answer.push(timeout(SOON, stream.read_u8()).await.unwrap().unwrap());
    }
    assert!(answer.starts_with(b"HTTP/1.1 200"));
}

async fn read_until(stream: &mut TlsStream<TcpStream>, end: &[u8]) -> String {
    let mut read = Vec::new();
    while !read.ends_with(end) {
        read.push(timeout(SOON, stream.read_u8()).await.unwrap().unwrap());
    }
    String::from_utf8(read).unwrap()
}

/// With the end of TLS, so that nobody takes it for a broken connection.
async fn assert_ended(mut stream: TlsStream<TcpStream>) {
    let ended = timeout(SOON, stream.read(&mut [0; 64])).await.expect("the connection ends");
    assert_eq!(ended.expect("a goodbye"), 0);
}

#[tokio::test]
async fn a_ca_that_is_taken_out_ends_the_connections_of_its_clients_and_nobody_elses() {
    let (leaving, staying) = (TestCa::new(), TestCa::new());
    let asking = Asking::start(&[&leaving, &staying], None);
    let (ada, bob) = (leaving.sign(&["ada"]), staying.sign(&["bob"]));
    let (adas, mut bobs) = (asking.kept(&ada).await, asking.kept(&bob).await);
    // Long enough for one of them to rest.
    let resting = asking.kept(&ada).await;
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    let (adas_h2, bobs_h2) = (asking.multiplexed(&ada).await, asking.multiplexed(&bob).await);
    asking.files.add("clients.crt", &pems(&[&staying]));
    asking.refuses(&ada).await;
    assert_ended(adas).await;
    assert_ended(resting).await;
    adas_h2.end(SOON).await.expect("a goodbye without an error");
    asking.stage.upstream.forget();
    ask(&mut bobs).await;
    assert_eq!(bobs_h2.get(&format!("https://{NAME}/h2")).await.unwrap().status, 200);
    assert!(asking.is_let_in(&bob).await);
    assert_eq!(asking.stage.upstream.count(), 3);
}

#[tokio::test]
async fn a_request_that_is_on_its_way_when_its_client_is_sent_away_is_answered() {
    let (leaving, staying) = (TestCa::new(), TestCa::new());
    let asking = Asking::start(&[&leaving, &staying], None);
    let ada = leaving.sign(&["ada"]);
    let mut stream = asking.kept(&ada).await;
    let request = format!("POST /kept HTTP/1.1\r\nhost: {NAME}\r\ncontent-length: 4\r\n\r\nab");
    stream.write_all(request.as_bytes()).await.unwrap();
    asking.files.add("clients.crt", &pems(&[&staying]));
    asking.refuses(&ada).await;
    stream.write_all(b"cd").await.unwrap();
    let mut answer = String::new();
    timeout(SOON, stream.read_to_string(&mut answer)).await.expect("an end in time").expect("a goodbye");
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("\"length\": 4"), "{answer}");
}

// The tunnel has left HTTP behind, and the answer never ends.
#[tokio::test]
async fn what_streams_to_a_client_that_is_sent_away_is_cut_and_nobody_elses() {
    let (leaving, staying) = (TestCa::new(), TestCa::new());
    let asking = Asking::start(&[&leaving, &staying], None);
    let (ada, bob) = (leaving.sign(&["ada"]), staying.sign(&["bob"]));
    let websocket = async |signed: &Signed| {
        let mut stream = asking.client(signed).connect(asking.stage.address(), NAME).await.unwrap();
        let request = format!(
            "GET /ws HTTP/1.1\r\nhost: {NAME}\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
             sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let head = read_until(&mut stream, b"\r\n\r\n").await;
        assert!(head.starts_with("HTTP/1.1 101"), "{head}");
        stream
    };
    let events = async |signed: &Signed| {
        let mut stream = asking.client(signed).connect(asking.stage.address(), NAME).await.unwrap();
        let request = format!("GET /sse HTTP/1.1\r\nhost: {NAME}\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let head = read_until(&mut stream, b"\r\n\r\n").await;
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        stream
    };
    let (mut adas, mut bobs) = (websocket(&ada).await, websocket(&bob).await);
    let mut adas_events = events(&ada).await;
    asking.files.add("clients.crt", &pems(&[&staying]));
    asking.refuses(&ada).await;
    let close = timeout(SOON, adas.read_u8()).await.expect("a goodbye in time").unwrap();
    assert_eq!(close, 0x88, "the close frame of a WebSocket");
    let mut rest = Vec::new();
    let _ = timeout(SOON, adas_events.read_to_end(&mut rest)).await.expect("an end in time");
    assert!(!rest.ends_with(b"0\r\n\r\n"), "the answer is not passed off as whole");
    // A masked text frame, and its echo.
    bobs.write_all(&[0x81, 0x82, 0, 0, 0, 0, b'h', b'i']).await.unwrap();
    let mut echo = [0; 4];
    timeout(SOON, bobs.read_exact(&mut echo)).await.expect("an echo").unwrap();
    assert_eq!(&echo, &[0x81, 2, b'h', b'i']);
    let metrics = asking.metrics().await;
    let cut = metrics.lines().find(|line| line.contains("cut") && line.contains("client_certificate_invalid"));
    assert!(cut.is_some_and(|line| line.ends_with(" 2")), "{cut:?}");
}

#[tokio::test]
async fn a_revoked_certificate_is_refused_and_ends_its_connections_and_a_broken_list_changes_nothing() {
    let clients = TestCa::new();
    let signed = |serial: u64| clients.sign_with(&["somebody"], |params| params.serial_number = Some(serial.into()));
    let (revoked, ada, bob) = (signed(7), signed(8), signed(9));
    let asking = Asking::start(&[&clients], Some(&clients.revocations(&[7], 2100)));
    assert!(!asking.is_let_in(&revoked).await);
    asking.stage.upstream.assert_untouched();
    let (adas, mut bobs) = (asking.kept(&ada).await, asking.kept(&bob).await);
    asking.files.add("clients.crl", "no list");
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(asking.is_let_in(&ada).await && !asking.is_let_in(&revoked).await, "the list from before holds");
    asking.files.add("clients.crl", &clients.revocations(&[7, 8], 2100));
    asking.refuses(&ada).await;
    assert_ended(adas).await;
    ask(&mut bobs).await;
}

#[tokio::test]
async fn without_a_list_that_still_holds_nobody_is_let_in() {
    let (clients, others) = (TestCa::new(), TestCa::new());
    for crl in [clients.revocations(&[], 2021), others.revocations(&[], 2100)] {
        let asking = Asking::start(&[&clients], Some(&crl));
        assert!(!asking.is_let_in(&clients.sign(&["ada"])).await);
        asking.stage.upstream.assert_untouched();
        let end = Instant::now() + SOON;
        // With TLS 1.3 the refusal comes behind the client's handshake.
        while !asking.metrics().await.contains("reason=\"client_certificate_invalid\"} 1") {
            assert!(Instant::now() < end, "it is not counted");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}
