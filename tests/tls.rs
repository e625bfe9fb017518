//! TLS towards clients: versions, names, client certificates, and certificates that change while connections stay open.

use std::io;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use vestibule_test_support::rcgen::{DnType, SanType};
use vestibule_test_support::tokio_rustls::rustls::pki_types::CertificateDer;
use vestibule_test_support::tokio_rustls::rustls::{HandshakeKind, NamedGroup, ProtocolVersion, version};
use vestibule_test_support::{CertificateFiles, Stage, TestCa, TlsClient, raw_request};

const PUBLIC: &str = "[[routes]]\npath = \"/*\"\naccess = \"public\"\n";
const NAME: &str = "app.example.com";

/// A public proxy that speaks TLS with a certificate of `ca`, and its files.
fn tls_stage(ca: &TestCa, more: &str) -> (Stage, CertificateFiles) {
    let files = CertificateFiles::new(&ca.sign(&[NAME]));
    let stage = Stage::with(&format!("{PUBLIC}{}{more}", files.toml()));
    (stage, files)
}

/// What a client is shown, by its serial number's place in the certificate: the whole of it.
async fn shown(client: &TlsClient, stage: &Stage, name: &str) -> CertificateDer<'static> {
    let stream = client.connect(stage.address(), name).await.unwrap();
    stream.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned()
}

async fn wait_for_refusal(stage: &Stage, reason: &str) {
    let line = format!("vestibule_refusals_total{{reason=\"{reason}\"}} ");
    let end = Instant::now() + Duration::from_secs(10);
    loop {
        let metrics = stage.browser().fetch(&stage.admin_url("/metrics")).await.text();
        if metrics.contains(&line) {
            return;
        }
        assert!(Instant::now() < end, "{reason} is not counted: {metrics}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn tls_1_3_and_1_2_are_spoken_with_post_quantum_keys_and_the_application_sees_https() {
    let ca = TestCa::new();
    let (stage, _files) = tls_stage(&ca, "");
    for (wanted, spoken, groups) in [
        (&version::TLS13, ProtocolVersion::TLSv1_3, vec![NamedGroup::X25519MLKEM768]),
        (&version::TLS12, ProtocolVersion::TLSv1_2, vec![NamedGroup::X25519, NamedGroup::secp256r1]),
    ] {
        let client = TlsClient::speaking(&ca, wanted).offering(&[b"http/1.1"]);
        let mut stream = client.connect(stage.address(), NAME).await.unwrap();
        let connection = stream.get_ref().1;
        assert_eq!(connection.protocol_version(), Some(spoken));
        assert_eq!(connection.alpn_protocol(), Some(&b"http/1.1"[..]));
        let group = connection.negotiated_key_exchange_group().unwrap().name();
        assert!(groups.contains(&group), "{group:?}");
        let answer = vestibule_test_support::get(&mut stream, NAME, "/", "").await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        let received = stage.upstream.last();
        assert_eq!(received.header("x-forwarded-proto"), ["https"]);
        assert_eq!(received.header("x-forwarded-host"), [NAME]);
    }
}

#[tokio::test]
async fn a_client_of_tls_1_1_and_an_unknown_application_protocol_are_refused() {
    let ca = TestCa::new();
    let (stage, _files) = tls_stage(&ca, "");
    // A ClientHello of TLS 1.1 with one cipher suite, and the signature algorithms that rustls asks for before the version.
    let mut hello = vec![0x16, 3, 1, 0, 55, 1, 0, 0, 51, 3, 2];
    hello.extend([7; 32]);
    hello.extend([0, 0, 2, 0xc0, 0x13, 1, 0, 0, 8, 0, 13, 0, 4, 0, 2, 4, 3]);
    let answer = raw_request(stage.address(), &hello).await;
    // An alert (21), fatal (2): protocol_version (70).
    assert_eq!((answer[0], &answer[5..]), (21, &[2, 70][..]), "{answer:?}");
    wait_for_refusal(&stage, "tls_handshake_failed").await;

    let error = TlsClient::trusting(&ca).offering(&[b"spdy/1"]).connect(stage.address(), NAME).await.unwrap_err();
    assert!(error.to_string().contains("NoApplicationProtocol"), "{error}");
    stage.upstream.assert_untouched();
}

#[tokio::test]
async fn min_version_1_3_refuses_1_2() {
    let ca = TestCa::new();
    let (stage, _files) = tls_stage(&ca, "min_version = \"1.3\"\n");
    assert!(TlsClient::speaking(&ca, &version::TLS12).connect(stage.address(), NAME).await.is_err());
    assert!(TlsClient::speaking(&ca, &version::TLS13).connect(stage.address(), NAME).await.is_ok());
}

#[tokio::test]
async fn the_name_chooses_the_certificate_and_a_strange_name_gets_the_first() {
    let ca = TestCa::new();
    let further = CertificateFiles::new(&ca.sign(&["*.example.org", "example.org"]));
    let (stage, _files) = tls_stage(&ca, &format!("[[tls.certificates]]\n{}", further.keys()));
    let client = TlsClient::trusting(&ca);
    for name in [NAME, "a.example.org", "A.EXAMPLE.ORG", "example.org"] {
        // The client verifies the name.
        let answer = client.get(stage.address(), name, "/", "").await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{name}: {answer}");
    }
    for strange in ["b.a.example.org", "other.example.com"] {
        let error = client.connect(stage.address(), strange).await.unwrap_err();
        assert!(error.to_string().contains(NAME), "the first one's name is told: {error}");
    }
}

#[tokio::test]
async fn certificates_change_by_a_symlink_swap_while_a_connection_stays_open_and_a_broken_pair_changes_nothing() {
    let ca = TestCa::new();
    let (stage, mut files) = tls_stage(&ca, "");
    let client = TlsClient::trusting(&ca);
    let first = shown(&client, &stage, NAME).await;
    let mut kept = client.connect(stage.address(), NAME).await.unwrap();
    let request = format!("GET /kept HTTP/1.1\r\nhost: {NAME}\r\n\r\n");
    kept.write_all(request.as_bytes()).await.unwrap();
    kept.read_exact(&mut [0; 50]).await.unwrap();

    // A key that does not fit, for longer than several looks.
    let (second, other) = (ca.sign(&[NAME]), ca.sign(&[NAME]));
    files.swap(&[("tls.crt", &second.certificate), ("tls.key", &other.key)]);
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(shown(&client, &stage, NAME).await, first, "a broken pair keeps the old one");

    files.swap(&[("tls.crt", &second.certificate), ("tls.key", &second.key)]);
    let end = Instant::now() + Duration::from_secs(10);
    while shown(&client, &stage, NAME).await == first {
        assert!(Instant::now() < end, "the new certificate is not shown");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // The connection from before goes on.
    let answer = vestibule_test_support::get(&mut kept, NAME, "/after", "").await.unwrap();
    assert!(answer.contains("/after"), "{answer}");
}

#[tokio::test]
async fn the_expiry_of_the_first_certificate_to_end_is_a_metric() {
    let ca = TestCa::new();
    let soon =
        ca.sign_with(&[NAME], |params| params.not_after = vestibule_test_support::rcgen::date_time_ymd(2035, 1, 1));
    let further = CertificateFiles::new(&soon);
    let (stage, _files) = tls_stage(&ca, &format!("[[tls.certificates]]\n{}", further.keys()));
    let metrics = stage.browser().fetch(&stage.admin_url("/metrics")).await.text();
    assert!(metrics.contains("vestibule_tls_certificate_expiry_timestamp_seconds 2051222400\n"), "{metrics}");
}

#[tokio::test]
async fn a_required_client_certificate_is_asked_for_and_one_of_another_ca_is_not_enough() {
    let (ca, clients, strangers) = (TestCa::new(), TestCa::new(), TestCa::new());
    let files = CertificateFiles::new(&ca.sign(&[NAME]));
    let roots = files.add("clients.crt", &clients.pem());
    let stage = Stage::with(&format!("{PUBLIC}{}client_ca_file = {roots:?}\n", files.toml()));
    // With TLS 1.3 the refusal comes behind the client's handshake.
    let none = TlsClient::trusting(&ca).get(stage.address(), NAME, "/", "").await;
    assert!(none.is_err(), "{none:?}");
    wait_for_refusal(&stage, "client_certificate_missing").await;
    let strange = TlsClient::showing(&ca, &strangers.sign(&["ada"])).get(stage.address(), NAME, "/", "").await;
    assert!(strange.is_err(), "{strange:?}");
    wait_for_refusal(&stage, "client_certificate_invalid").await;
    stage.upstream.assert_untouched();
    let client = TlsClient::showing(&ca, &clients.sign(&["ada"]));
    for _ in 0..2 {
        let mut stream = client.connect(stage.address(), NAME).await.unwrap();
        let answer = vestibule_test_support::get(&mut stream, NAME, "/", "").await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert_eq!(stream.get_ref().1.handshake_kind(), Some(HandshakeKind::Full), "never resumed: shown each time");
    }
}

#[tokio::test]
async fn who_shows_an_optional_certificate_is_named_by_it_and_nobody_else_can_write_these_headers() {
    let (ca, clients) = (TestCa::new(), TestCa::new());
    let files = CertificateFiles::new(&ca.sign(&[NAME]));
    let roots = files.add("clients.crt", &clients.pem());
    let stage = Stage::with(&format!(
        "{PUBLIC}[identity.headers]\n\"X-Client-Subject\" = \"client_certificate_subject\"\n\
         \"X-Client-Names\" = \"client_certificate_san\"\n\
         {}client_ca_file = {roots:?}\nclient_certificate = \"optional\"\n",
        files.toml()
    ));
    let spoof = "x-client-subject: CN=admin\r\nX_Client_Subject: CN=admin\r\nx-client-names: DNS:admin\r\n";
    let seen = || {
        let received = stage.upstream.last();
        let all =
            ["x-client-subject", "x_client_subject", "x-client-names"].map(|name| received.header(name).join("|"));
        all.map(|value| value.to_owned())
    };
    TlsClient::trusting(&ca).get(stage.address(), NAME, "/", spoof).await.unwrap();
    assert_eq!(seen(), ["", "", ""], "no certificate, no header");

    let signed = clients.sign_with(&["ada.example.com"], |params| {
        params.distinguished_name.push(DnType::OrganizationName, "Analytical, Engines");
        params.distinguished_name.push(DnType::CommonName, "Ada\0\r\nX-Role: admin");
        params.subject_alt_names.push(SanType::Rfc822Name("ada@example.com".try_into().unwrap()));
    });
    TlsClient::showing(&ca, &signed).get(stage.address(), NAME, "/", spoof).await.unwrap();
    assert_eq!(
        seen(),
        ["O=Analytical\\, Engines,CN=Ada\\00%0D%0AX-Role: admin", "", "DNS:ada.example.com,email:ada@example.com"]
    );
    assert_eq!(stage.upstream.last().header("x-role"), [""; 0]);
}

#[tokio::test]
async fn a_session_is_resumed_only_where_it_began() {
    let ca = TestCa::new();
    let (files, own) = (CertificateFiles::new(&ca.sign(&[NAME])), CertificateFiles::new(&ca.sign(&[NAME])));
    let port = vestibule_test_support::free_port();
    let stage = Stage::with(&format!(
        "{PUBLIC}{}[[listeners]]\naddress = \"127.0.0.1:{port}\"\n[listeners.tls]\n{}",
        files.toml(),
        own.keys()
    ));
    let second = std::net::SocketAddr::from(([127, 0, 0, 1], port));
    for version in [&version::TLS13, &version::TLS12] {
        let client = TlsClient::speaking(&ca, version);
        let kind = async |address| {
            let mut stream = client.connect(address, NAME).await.unwrap();
            // The tickets of TLS 1.3 come with the answer.
            vestibule_test_support::get(&mut stream, NAME, "/", "").await.unwrap();
            stream.get_ref().1.handshake_kind().unwrap()
        };
        assert_eq!(kind(stage.address()).await, HandshakeKind::Full);
        assert_eq!(kind(stage.address()).await, HandshakeKind::Resumed, "{version:?}");
        assert_eq!(kind(second).await, HandshakeKind::Full, "{version:?}: CVE-2025-23419");
    }
}

/// What comes with the first flight could be sent again by anybody (RFC 8446 §8).
#[tokio::test]
async fn nothing_is_taken_before_the_handshake_is_over() {
    let ca = TestCa::new();
    let (stage, _files) = tls_stage(&ca, "");
    let client = TlsClient::speaking(&ca, &version::TLS13).eager();
    for kind in [HandshakeKind::Full, HandshakeKind::Resumed] {
        let mut stream = client.connect(stage.address(), NAME).await.unwrap();
        vestibule_test_support::get(&mut stream, NAME, "/", "").await.unwrap();
        assert_eq!(stream.get_ref().1.handshake_kind(), Some(kind));
    }
    // It has another ticket, and a ticket that allows it would be one to send by.
    assert_eq!(client.early(NAME), None);
}

#[tokio::test]
async fn plain_http_on_the_tls_port_is_told_to_speak_tls() {
    let ca = TestCa::new();
    let (stage, _files) = tls_stage(&ca, "");
    let answer = raw_request(stage.address(), b"GET / HTTP/1.1\r\nhost: app.example.com\r\n\r\n").await;
    let answer = String::from_utf8(answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 400") && answer.ends_with("use https://"), "{answer}");
    wait_for_refusal(&stage, "plain_http_on_tls").await;
    stage.upstream.assert_untouched();
}

#[tokio::test]
async fn a_handshake_has_a_time_limit_and_a_connection_without_a_byte_is_nothing() {
    let ca = TestCa::new();
    let (stage, _files) = tls_stage(&ca, "[limits]\nheader_timeout = \"300ms\"\n");
    drop(TcpStream::connect(stage.address()).await.unwrap());
    let mut silent = TcpStream::connect(stage.address()).await.unwrap();
    let mut slow = TcpStream::connect(stage.address()).await.unwrap();
    slow.write_all(&[0x16, 3, 1, 2]).await.unwrap();
    for stream in [&mut silent, &mut slow] {
        let read = tokio::time::timeout(Duration::from_secs(5), stream.read(&mut [0; 64])).await;
        assert!(matches!(read, Ok(Ok(0) | Err(_))), "{read:?}");
    }
    wait_for_refusal(&stage, "tls_handshake_timeout").await;
    let metrics = stage.browser().fetch(&stage.admin_url("/metrics")).await.text();
    assert!(!metrics.contains("tls_handshake_failed"), "{metrics}");
}

#[tokio::test]
async fn a_sign_in_over_the_tls_listener_has_host_cookies_and_ends_in_the_application() {
    let ca = TestCa::new();
    let files = CertificateFiles::new(&ca.sign(&["localhost"]));
    let stage = Stage::with(&format!(
        "[provider]\nredirect_uri = \"https://localhost:{{port}}/auth/callback\"\n{}",
        files.toml()
    ));
    let origin = format!("https://{}", stage.host());
    let browser = stage.browser().with_tls(TlsClient::trusting(&ca));
    browser.connect(&origin, stage.address());
    let reply = browser.follow(&format!("{origin}/hello"), 10).await;
    assert_eq!(reply.status, 200, "{}: {}", reply.url, reply.text());
    assert!(reply.echoed("x-forwarded-user").is_some());
    assert_eq!(reply.echoed("x-forwarded-proto").as_deref(), Some("https"));
    let cookies = browser.cookies(&origin);
    assert!(!cookies.is_empty());
    for cookie in cookies {
        assert!(cookie.name.starts_with("__Host-") && cookie.secure && cookie.http_only, "{cookie:?}");
    }
}

#[tokio::test]
async fn large_bodies_pass_whole_both_ways() {
    let ca = TestCa::new();
    let (stage, _files) = tls_stage(&ca, "");
    let mut stream = TlsClient::trusting(&ca).connect(stage.address(), NAME).await.unwrap();
    let body = vec![b'x'; 3_000_000];
    let head =
        format!("POST / HTTP/1.1\r\nhost: {NAME}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&body).await.unwrap();
    let mut answer = Vec::new();
    // Ends with close_notify, or reading to the end is an error: nobody can cut an answer short unseen.
    let read: io::Result<usize> = stream.read_to_end(&mut answer).await;
    assert!(read.is_ok() && answer.starts_with(b"HTTP/1.1 200"), "{read:?}");
    assert_eq!(stage.upstream.last().body_length, body.len() as u64);
}
