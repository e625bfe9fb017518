//! TLS and unix sockets.

use bytes::Bytes;
use http_body_util::BodyExt;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;

use super::tests::{Fake, fake, get};
use super::*;

/// A certificate authority, with a folder for what it issues.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: rcgen::Certificate,
    folder: PathBuf,
}

impl Drop for Authority {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

impl Authority {
    fn new() -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::SeqCst);
        let folder = std::env::temp_dir().join(format!("vestibule-upstream-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, format!("authority {number}"));
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        std::fs::write(folder.join("ca.pem"), certificate.pem()).unwrap();
        Self { issuer: Issuer::new(params, key), certificate, folder }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn issue(&self, name: &str, expired: bool) -> (rcgen::Certificate, KeyPair) {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        if expired {
            params.not_before = rcgen::date_time_ymd(2020, 1, 1);
            params.not_after = rcgen::date_time_ymd(2021, 1, 1);
        }
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.issuer).unwrap(), key)
    }

    /// A server's side; `clients`: who has to have signed a client's certificate.
    fn server(&self, name: &str, expired: bool, alpn: &[&str], clients: Option<&Self>) -> Arc<ServerConfig> {
        let (certificate, key) = self.issue(name, expired);
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder =
            ServerConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions().unwrap();
        let builder = match clients {
            None => builder.with_no_client_auth(),
            Some(authority) => {
                let mut roots = RootCertStore::empty();
                roots.add(authority.certificate.der().clone()).unwrap();
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
                builder.with_client_cert_verifier(verifier)
            }
        };
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let mut config = builder.with_single_cert(vec![certificate.der().clone()], key).unwrap();
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        Arc::new(config)
    }

    /// A client's side that believes this authority.
    fn settings(&self, name: &'static str) -> TlsSettings {
        TlsSettings {
            ca_file: Some(self.file("ca.pem")),
            server_name: ServerName::try_from(name).unwrap(),
            client_certificate: None,
            reload_interval: Duration::from_millis(20),
        }
    }
}

/// Answers one request after the other with the protocol that was agreed on, and the request's target.
async fn answer<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, is_h2: bool) {
    if is_h2 {
        let Ok(mut serving) = h2::server::handshake(stream).await else { return };
        while let Some(Ok((request, mut respond))) = serving.accept().await {
            let text = format!("h2 {}", request.uri());
            if let Ok(mut body) = respond.send_response(Response::new(()), false) {
                let _ = body.send_data(Bytes::from(text), true);
            }
        }
        return;
    }
    let mut seen = Vec::new();
    while let Ok(byte) = stream.read_u8().await {
        seen.push(byte);
        if seen.ends_with(b"\r\n\r\n") {
            seen.clear();
            if stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhttp1").await.is_err() {
                return;
            }
        }
    }
}

async fn tls_fake(server: Arc<ServerConfig>, client: TlsSettings, protocol: Protocol) -> Fake {
    let tls = Arc::new(Tls::load(client).unwrap());
    let change = move |settings: &mut UpstreamSettings| {
        settings.tls = Some(tls);
        settings.protocol = protocol;
    };
    fake(change, move |stream, _| {
        let server = Arc::clone(&server);
        async move {
            let Ok(stream) = TlsAcceptor::from(server).accept(stream).await else { return };
            let is_h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
            answer(stream, is_h2).await;
        }
    })
    .await
}

#[tokio::test]
async fn each_protocol_is_agreed_on_by_alpn_and_connections_are_kept() {
    let authority = Authority::new();
    let h2 = "h2 https://app/x";
    for (offered, protocol, said) in [
        (&["h2", "http/1.1"][..], Protocol::Http1, "http1"),
        (&["h2", "http/1.1"], Protocol::H2, h2),
        (&["h2", "http/1.1"], Protocol::Auto, h2),
        (&["http/1.1"], Protocol::Auto, "http1"),
        (&[], Protocol::Auto, "http1"),
        (&[], Protocol::Http1, "http1"),
    ] {
        let server = authority.server("app.internal", false, offered, None);
        let fake = tls_fake(server, authority.settings("app.internal"), protocol).await;
        for _ in 0..3 {
            assert_eq!(fake.text(get()).await, said, "{offered:?} {protocol:?}");
        }
        assert_eq!(fake.connections(), 1, "{offered:?} {protocol:?}");
    }
    // As an upgrade meets an application that speaks HTTP/2 alone.
    let server = authority.server("app.internal", false, &["h2"], None);
    let fake = tls_fake(server, authority.settings("app.internal"), Protocol::Http1).await;
    let failed = fake.send(get()).await.unwrap_err();
    assert!(matches!(failed, UpstreamError::Tls(_)), "{failed:?}");
    for offered in [&["http/1.1"][..], &[]] {
        let server = authority.server("app.internal", false, offered, None);
        let fake = tls_fake(server, authority.settings("app.internal"), Protocol::H2).await;
        let failed = fake.send(get()).await.unwrap_err();
        assert!(matches!(failed, UpstreamError::Tls(_)), "{offered:?} {failed:?}");
    }
}

#[tokio::test]
async fn a_certificate_that_is_not_good_is_its_own_error_and_the_request_never_leaves() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    for (server, client, remedy) in [
        (authority.server("app.internal", false, &[], None), stranger.settings("app.internal"), "ca_file"),
        (authority.server("other.internal", false, &[], None), authority.settings("app.internal"), "server_name"),
        (authority.server("app.internal", true, &[], None), authority.settings("app.internal"), "renew"),
    ] {
        let fake = tls_fake(server, client, Protocol::Http1).await;
        let failed = fake.send(get()).await.unwrap_err();
        assert!(matches!(failed, UpstreamError::Certificate(_)), "{failed:?}");
        assert_eq!((failed.status(), failed.code()), (StatusCode::BAD_GATEWAY, "upstream_certificate"));
        assert!(failed.remedy().unwrap().contains(remedy), "{failed:?}: {:?}", failed.remedy());
    }
    let plain = fake(
        |settings| settings.tls = Some(Arc::new(Tls::load(authority.settings("app.internal")).unwrap())),
        |mut stream, _| async move {
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        },
    )
    .await;
    let failed = plain.send(get()).await.unwrap_err();
    assert!(matches!(failed, UpstreamError::Tls(_)), "{failed:?}");
}

#[tokio::test]
async fn a_handshake_that_takes_too_long_is_a_connect_timeout() {
    let authority = Authority::new();
    let tls = Arc::new(Tls::load(authority.settings("app.internal")).unwrap());
    let silent = fake(
        |settings| {
            settings.tls = Some(tls);
            settings.connect_timeout = Duration::from_millis(100);
        },
        |stream, _| async move {
            tokio::time::sleep(Duration::from_secs(5)).await;
            drop(stream);
        },
    )
    .await;
    assert!(matches!(silent.send(get()).await, Err(UpstreamError::ConnectTimeout)));
}

#[tokio::test]
async fn a_client_certificate_is_shown_where_it_is_asked_for() {
    let (authority, clients) = (Authority::new(), Authority::new());
    for protocol in [Protocol::Http1, Protocol::H2] {
        let server = authority.server("app.internal", false, &["h2", "http/1.1"], Some(&clients));
        let without = tls_fake(Arc::clone(&server), authority.settings("app.internal"), protocol).await;
        let failed = without.send(get()).await.unwrap_err();
        assert!(matches!(failed, UpstreamError::Tls(_)), "{protocol:?} {failed:?}");
        assert!(failed.remedy().unwrap().contains("client_certificate_file"), "{:?}", failed.remedy());

        let (certificate, key) = clients.issue("proxy", false);
        std::fs::write(clients.file("client.pem"), certificate.pem()).unwrap();
        std::fs::write(clients.file("client-key.pem"), key.serialize_pem()).unwrap();
        let pair = (clients.file("client.pem"), clients.file("client-key.pem"));
        let shown = TlsSettings { client_certificate: Some(pair), ..authority.settings("app.internal") };
        let with = tls_fake(server, shown, protocol).await;
        assert_eq!(with.send(get()).await.unwrap().status(), 200, "{protocol:?}");
    }
}

#[tokio::test]
async fn changed_files_count_for_new_connections_and_broken_ones_do_not() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let good = std::fs::read(authority.file("ca.pem")).unwrap();
    std::fs::copy(stranger.file("ca.pem"), authority.file("ca.pem")).unwrap();
    let server = authority.server("app.internal", false, &[], None);
    let fake = tls_fake(server, authority.settings("app.internal"), Protocol::Http1).await;
    assert!(matches!(fake.send(get()).await, Err(UpstreamError::Certificate(_))));
    // As a mounted secret changes: another file of the same size and time under the same name.
    let (path, next) = (authority.file("ca.pem"), authority.file("next.pem"));
    let bad = std::fs::read(&path).unwrap();
    let padding = vec![b'\n'; bad.len().saturating_sub(good.len())];
    std::fs::write(&next, [&good[..], &padding].concat()).unwrap();
    let time = std::fs::metadata(&path).unwrap().modified().unwrap();
    std::fs::File::options().write(true).open(&next).unwrap().set_modified(time).unwrap();
    std::fs::rename(&next, &path).unwrap();
    let end = Instant::now() + Duration::from_secs(10);
    while fake.send(get()).await.is_err() {
        assert!(Instant::now() < end, "the change is not seen");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    std::fs::write(&path, b"nonsense").unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    fake.upstreams.upstreams[0].instances.forget_idle();
    assert_eq!(fake.text(get()).await, "http1");
}

#[test]
fn files_that_cannot_be_used_are_named() {
    let authority = Authority::new();
    let settings = |change: &dyn Fn(&mut TlsSettings)| {
        let mut settings = authority.settings("app.internal");
        change(&mut settings);
        Tls::load(settings).unwrap_err().to_string()
    };
    let missing = authority.file("missing.pem");
    assert!(settings(&|settings| settings.ca_file = Some(missing.clone())).contains("missing.pem"));
    let (certificate, _) = authority.issue("proxy", false);
    let (_, other) = authority.issue("proxy", false);
    std::fs::write(authority.file("client.pem"), certificate.pem()).unwrap();
    std::fs::write(authority.file("client-key.pem"), other.serialize_pem()).unwrap();
    let pair = (authority.file("client.pem"), authority.file("client-key.pem"));
    let told = settings(&|settings| settings.client_certificate = Some(pair.clone()));
    assert!(told.contains("does not fit the key"), "{told}");
    std::fs::write(authority.file("client-key.pem"), "-----BEGIN whisper\n").unwrap();
    let told = settings(&|settings| settings.client_certificate = Some(pair.clone()));
    assert!(told.contains("no unencrypted private key") && told.contains("client-key.pem"), "{told}");
    assert!(!told.contains("whisper"), "what a key file holds is not shown: {told}");
}

#[tokio::test]
async fn a_unix_socket_is_spoken_to_in_both_protocols() {
    let authority = Authority::new();
    for (protocol, said) in [(Protocol::Http1, "http1"), (Protocol::H2, "h2 http://app/x")] {
        let path = authority.file("app.sock");
        let _ = std::fs::remove_file(&path);
        let listener = tokio::net::UnixListener::bind(&path).unwrap();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answer(stream, protocol == Protocol::H2));
            }
        });
        let fake = fake(
            |settings| {
                settings.places = vec![Place::Unix(path.clone())];
                settings.protocol = protocol;
            },
            |_, _| async {},
        )
        .await;
        for _ in 0..3 {
            assert_eq!(fake.text(get()).await, said);
        }
        drop(fake.send(get()).await.unwrap().into_body().collect().await);
    }
    let gone = fake(|settings| settings.places = vec![Place::Unix(authority.file("none.sock"))], |_, _| async {}).await;
    assert!(matches!(gone.send(get()).await, Err(UpstreamError::Connect(_))));
}
