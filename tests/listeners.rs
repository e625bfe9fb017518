//! Several listeners, unix sockets, and the PROXY protocol.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use vestibule_test_support::{CertificateFiles, Site, Stage, TestCa, TlsClient, free_port, get, raw_request};

const PROGRAM: &str = env!("CARGO_BIN_EXE_vestibule");
const PUBLIC: &str = "[[routes]]\npath = \"/*\"\naccess = \"public\"\n";
const HOST: &str = "app.example.com";
const REQUEST: &str =
    "GET / HTTP/1.1\r\nhost: app.example.com\r\nx-forwarded-for: 192.0.2.77\r\nconnection: close\r\n\r\n";

/// A proxy with one more listener, whose balancer is this machine.
fn behind_balancer(more: &str) -> (Stage, SocketAddr) {
    let port = free_port();
    let stage = Stage::with(&format!(
        "{PUBLIC}[[listeners]]\naddress = \"127.0.0.1:{port}\"\nproxy_protocol_from = [\"127.0.0.1\"]\n{more}"
    ));
    (stage, SocketAddr::from(([127, 0, 0, 1], port)))
}

async fn wait_for_refusal(stage: &Stage, reason: &str, count: u32) {
    let line = format!("vestibule_refusals_total{{reason=\"{reason}\"}} {count}\n");
    let end = Instant::now() + Duration::from_secs(10);
    loop {
        let metrics = stage.browser().fetch(&stage.admin_url("/metrics")).await.text();
        if metrics.contains(&line) {
            return;
        }
        assert!(Instant::now() < end, "{line} is not there: {metrics}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn version_2(command: u8, family: u8, payload: &[u8]) -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
    header.extend([0x20 | command, family]);
    header.extend(u16::try_from(payload.len()).unwrap().to_be_bytes());
    header.extend(payload);
    header
}

#[tokio::test]
async fn the_address_in_a_proxy_header_is_the_clients_and_the_one_that_trusted_proxies_is_asked_about() {
    let v4 = [198, 51, 100, 7, 10, 0, 0, 1, 0x12, 0x34, 1, 187];
    let tlvs = [&v4[..], b"\x02\x00\x02\xff\xfe"].concat();
    let headers = [
        (b"PROXY TCP4 198.51.100.7 10.0.0.1 4660 443\r\n".to_vec(), "198.51.100.7"),
        (b"PROXY TCP6 2001:db8::5 ::1 80 443\r\n".to_vec(), "2001:db8::5"),
        (b"PROXY UNKNOWN\r\n".to_vec(), "127.0.0.1"),
        (version_2(1, 0x11, &v4), "198.51.100.7"),
        (version_2(1, 0x11, &tlvs), "198.51.100.7"),
        (version_2(0, 0x11, &v4), "127.0.0.1"),
        (version_2(1, 0x00, b""), "127.0.0.1"),
    ];
    // The balancer's own network is trusted as a proxy, but it is not the peer any more where it tells another.
    let (stage, address) = behind_balancer("");
    for (header, client) in headers {
        let answer = raw_request(address, &[&header, REQUEST.as_bytes()].concat()).await;
        assert!(answer.starts_with(b"HTTP/1.1 200"), "{header:?}: {}", String::from_utf8_lossy(&answer));
        assert_eq!(stage.upstream.last().header("x-real-ip"), [client], "{header:?}");
    }

    let port = free_port();
    let stage = Stage::with(&format!(
        "trusted_proxies = [\"127.0.0.1\", \"198.51.100.0/24\"]\n{PUBLIC}\
         [[listeners]]\naddress = \"127.0.0.1:{port}\"\nproxy_protocol_from = [\"127.0.0.1\"]\n"
    ));
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    for (header, client) in [
        ("PROXY TCP4 198.51.100.7 10.0.0.1 1 443\r\n", "192.0.2.77"),
        ("PROXY TCP4 203.0.113.9 10.0.0.1 1 443\r\n", "203.0.113.9"),
        ("PROXY UNKNOWN\r\n", "192.0.2.77"),
    ] {
        raw_request(address, format!("{header}{REQUEST}").as_bytes()).await;
        assert_eq!(stage.upstream.last().header("x-real-ip"), [client], "{header:?}");
    }
}

#[tokio::test]
async fn without_a_good_header_a_balancers_connection_is_closed_unanswered() {
    let (stage, address) = behind_balancer("[limits]\nheader_timeout = \"400ms\"\n");
    let too_long = [b"PROXY UNKNOWN ".to_vec(), vec![b'x'; 200]].concat();
    let bad = [
        REQUEST.as_bytes().to_vec(),
        b"PROXY TCP4 300.1.1.1 1.1.1.1 1 1\r\n".to_vec(),
        [b"PROXY TCP4 1.1.1.1 1.1.1.1 1 1\n", REQUEST.as_bytes()].concat(),
        too_long,
        version_2(1, 0x11, &[0; 4]),
        version_2(1, 0x11, &vec![0; 5000]),
        b"\x16\x03\x01\x02\x00\x01".to_vec(),
    ];
    for header in &bad {
        let answer = raw_request(address, &[header, REQUEST.as_bytes()].concat()).await;
        assert!(answer.is_empty(), "{header:?}: {}", String::from_utf8_lossy(&answer));
    }
    wait_for_refusal(&stage, "proxy_header_invalid", u32::try_from(bad.len()).unwrap()).await;

    // Slow, or saying nothing at all.
    let started = Instant::now();
    for begun in [&b""[..], b"PROXY TCP4 1.1"] {
        let mut slow = TcpStream::connect(address).await.unwrap();
        slow.write_all(begun).await.unwrap();
        let read = tokio::time::timeout(Duration::from_secs(5), slow.read(&mut [0; 64])).await;
        assert!(matches!(read, Ok(Ok(0) | Err(_))), "{read:?}");
    }
    assert!(started.elapsed() >= Duration::from_millis(700), "{:?}", started.elapsed());
    wait_for_refusal(&stage, "proxy_header_timeout", 2).await;
    // A balancer's look at the port is nothing.
    drop(TcpStream::connect(address).await.unwrap());
    stage.upstream.assert_untouched();
}

#[tokio::test]
async fn a_strangers_header_is_a_broken_request() {
    let port = free_port();
    let stage = Stage::with(&format!(
        "{PUBLIC}[[listeners]]\naddress = \"127.0.0.1:{port}\"\nproxy_protocol_from = [\"10.0.0.0/8\"]\n"
    ));
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    for header in [b"PROXY TCP4 198.51.100.7 10.0.0.1 1 443\r\n".to_vec(), version_2(0, 0, b"")] {
        let answer = raw_request(address, &[&header, REQUEST.as_bytes()].concat()).await;
        assert!(!answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
    }
    stage.upstream.assert_untouched();
    let answer = raw_request(address, REQUEST.as_bytes()).await;
    assert!(answer.starts_with(b"HTTP/1.1 200"), "without one it is anybody's request");
    assert_eq!(stage.upstream.last().header("x-real-ip"), ["127.0.0.1"]);
}

#[tokio::test]
async fn tls_comes_behind_the_proxy_header() {
    let ca = TestCa::new();
    let files = CertificateFiles::new(&ca.sign(&[HOST]));
    let (stage, address) = behind_balancer(&format!("[listeners.tls]\n{}", files.keys()));
    let mut stream = TcpStream::connect(address).await.unwrap();
    // In one write with what follows, so that a byte too many would be missed.
    stream.write_all(b"PROXY TCP4 198.51.100.7 10.0.0.1 1 443\r\n").await.unwrap();
    let mut stream = TlsClient::trusting(&ca).wrap(stream, HOST).await.unwrap();
    let answer = get(&mut stream, HOST, "/", "").await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(stage.upstream.last().header("x-real-ip"), ["198.51.100.7"]);
    assert_eq!(stage.upstream.last().header("x-forwarded-proto"), ["https"]);
}

#[tokio::test]
async fn a_handshake_that_fails_behind_a_balancer_is_the_clients() {
    let site = Site::of(PROGRAM);
    let files = CertificateFiles::new(&TestCa::new().sign(&[HOST]));
    let port = free_port();
    let toml = format!(
        "[[listeners]]\naddress = \"127.0.0.1:{port}\"\nproxy_protocol_from = [\"127.0.0.1\"]\n[listeners.tls]\n{}",
        files.keys()
    );
    let mut program = site.start(site.launch().env("VESTIBULE_CONFIG", site.file("tls.toml", &toml))).await;
    let spoken = [b"PROXY TCP4 198.51.100.7 10.0.0.1 4660 443\r\n", REQUEST.as_bytes()].concat();
    raw_request(SocketAddr::from(([127, 0, 0, 1], port)), &spoken).await;
    program.wait_for_line(&["plain_http_on_tls", "198.51.100.7"]);
    site.upstream.assert_untouched();
}

#[tokio::test]
async fn a_unix_socket_a_plain_port_and_a_tls_port_serve_at_once_and_all_close_in_the_drain() {
    let ca = TestCa::new();
    let files = CertificateFiles::new(&ca.sign(&[HOST]));
    let folder = tempfile::tempdir().unwrap();
    let (socket, port) = (folder.path().join("http.sock"), free_port());
    let mut stage = Stage::with(&format!(
        "workers = 2\n{PUBLIC}{}[[listeners]]\naddress = \"unix:{}\"\nmode = \"0600\"\ntls = false\n\
         [[listeners]]\naddress = \"127.0.0.1:{port}\"\ntls = false\n",
        files.toml(),
        socket.display()
    ));
    let plain = SocketAddr::from(([127, 0, 0, 1], port));
    assert_eq!(std::fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
    for _ in 0..20 {
        let mut stream = UnixStream::connect(&socket).await.unwrap();
        let answer = get(&mut stream, HOST, "/", "").await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert_eq!(stage.upstream.last().header("x-real-ip"), ["127.0.0.1"]);
        assert_eq!(stage.upstream.last().header("x-forwarded-proto"), ["http"]);
    }
    assert!(raw_request(plain, REQUEST.as_bytes()).await.starts_with(b"HTTP/1.1 200"));
    let client = TlsClient::trusting(&ca);
    assert!(client.get(stage.address(), HOST, "/", "").await.unwrap().starts_with("HTTP/1.1 200"));

    let mut idle = client.connect(stage.address(), HOST).await.unwrap();
    let handshake = TcpStream::connect(stage.address()).await.unwrap();
    let started = Instant::now();
    stage.stop();
    assert!(started.elapsed() < Duration::from_secs(2), "nothing waits for an idle client or a handshake");
    assert!(matches!(idle.read(&mut [0; 16]).await, Ok(0) | Err(_)));
    drop(handshake);
    assert!(TcpStream::connect(plain).await.is_err() && TcpStream::connect(stage.address()).await.is_err());
    assert!(!socket.exists(), "the socket's file is removed");
}
