use std::convert::Infallible;
use std::io::{Read as _, Write as _};
use std::sync::Mutex;

use http_body_util::StreamBody;
use hyper::body::Frame;

use super::test_server::{TestServer, answer};
use super::*;

fn client(change: impl FnOnce(&mut Settings)) -> ProviderHttp {
    client_with(Matcher::builder().build(), change)
}

fn client_with(proxy: Matcher, change: impl FnOnce(&mut Settings)) -> ProviderHttp {
    let mut settings = Settings { timeout: Duration::from_secs(5), ..Settings::default() };
    change(&mut settings);
    ProviderHttp::with_proxy(settings, tokio::runtime::Handle::current(), proxy, None).unwrap()
}

fn get(url: &str) -> Request<Bytes> {
    Request::get(url).body(Bytes::new()).unwrap()
}

fn causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        text = format!("{text}: {next}");
        cause = next.source();
    }
    text
}

#[tokio::test]
async fn an_answer_arrives_whole_and_we_say_who_we_are() {
    let server = TestServer::start(|request| {
        let agent = request.headers()["user-agent"].to_str().unwrap().to_owned();
        answer(404, "text/plain", format!("{agent} {}", String::from_utf8_lossy(request.body())))
    })
    .await;
    let request = Request::post(server.url("/token")).body(Bytes::from("form")).unwrap();
    let response = client(|_| ()).send(request).await.unwrap();
    assert_eq!(response.status(), 404);
    assert_eq!(response.body(), concat!("vestibule/", env!("CARGO_PKG_VERSION"), " form"));
}

#[tokio::test]
async fn redirects_are_never_followed() {
    let hits = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&hits);
    let server = TestServer::start(move |request| {
        seen.lock().unwrap().push(request.uri().path().to_owned());
        let mut redirect = answer(307, "text/plain", "");
        redirect.headers_mut().insert("location", HeaderValue::from_static("/elsewhere"));
        redirect
    })
    .await;
    let error = client(|_| ()).send(get(&server.url("/"))).await.unwrap_err();
    assert!(matches!(error, ProviderHttpError::Redirect));
    assert_eq!(*hits.lock().unwrap(), ["/"]);
}

#[tokio::test]
async fn large_answers_are_cut_off_whether_announced_or_not() {
    let server = TestServer::start(|request| match request.uri().path() {
        "/announced" => answer(200, "text/plain", vec![b'x'; 1001]),
        "/fits" => answer(200, "text/plain", vec![b'x'; 1000]),
        _ => {
            // Endless: only a client that stops reading comes back from this.
            let frames = futures_util::stream::repeat_with(|| Ok(Frame::data(Bytes::from_static(&[b'x'; 100]))));
            Response::new(StreamBody::new(frames).boxed_unsync())
        }
    })
    .await;
    let client = client(|settings| settings.max_response = 1000);
    for path in ["/announced", "/endless"] {
        let error = client.send(get(&server.url(path))).await.unwrap_err();
        assert!(matches!(error, ProviderHttpError::TooLarge), "{path}: {error:?}");
    }
    assert_eq!(client.send(get(&server.url("/fits"))).await.unwrap().body().len(), 1000);
}

#[tokio::test]
async fn the_deadline_covers_head_and_body() {
    let server = TestServer::start(|_| {
        let first = futures_util::stream::iter([Ok::<_, Infallible>(Frame::data(Bytes::from_static(b"slow")))]);
        let never = futures_util::stream::pending();
        Response::new(StreamBody::new(futures_util::StreamExt::chain(first, never)).boxed_unsync())
    })
    .await;
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent_url = format!("http://{}/", silent.local_addr().unwrap());
    let client = client(|settings| settings.timeout = Duration::from_millis(150));
    for url in [server.url("/"), silent_url] {
        assert!(matches!(client.send(get(&url)).await, Err(ProviderHttpError::Timeout)), "{url}");
    }
}

#[tokio::test]
async fn a_call_goes_on_when_nobody_waits_for_it() {
    let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
    let server = TestServer::start(move |_| {
        let _ = sender.send(());
        answer(200, "text/plain", "")
    })
    .await;
    let client = client(|_| ());
    let url = server.url("/");
    let mut call = Box::pin(client.send(get(&url)));
    // One poll starts it; then the one who waited goes away.
    assert!(futures_util::poll!(call.as_mut()).is_pending());
    drop(call);
    assert!(tokio::time::timeout(Duration::from_secs(5), receiver.recv()).await.unwrap().is_some());
}

#[tokio::test]
async fn http_works_towards_this_machine_only() {
    let strict = client(|_| ());
    for url in ["http://id.example/", "http://10.0.0.1/", "http://[2001:db8::1]/", "http://localhost.evil.example/"] {
        assert!(matches!(strict.send(get(url)).await, Err(ProviderHttpError::Insecure)), "{url}");
    }
    assert!(matches!(strict.send(get("ftp://127.0.0.1/")).await, Err(ProviderHttpError::Insecure)));
    assert!(matches!(strict.send(get("/relative")).await, Err(ProviderHttpError::Insecure)));
    for host in ["127.0.0.1", "127.9.9.9", "[::1]", "[::ffff:127.0.0.1]", "localhost", "LocalHost"] {
        assert!(is_protected("http", host), "{host}");
    }
    // With the option it is tried; nothing answers at a closed port of another loopback spelling of this machine.
    let lax = client(|settings| settings.allow_insecure_http = true);
    assert!(matches!(lax.send(get("http://0.0.0.0:1/")).await, Err(ProviderHttpError::Unreachable(_))));
    assert!(matches!(lax.send(get("ftp://id.example/")).await, Err(ProviderHttpError::Insecure)));
}

#[tokio::test]
async fn a_closed_port_says_so() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    drop(listener);
    let error = client(|_| ()).send(get(&url)).await.unwrap_err();
    assert!(causes(&error).contains("onnection refused"), "{}", causes(&error));
}

#[tokio::test]
async fn https_goes_through_the_proxy_and_nothing_else_does() {
    let proxy = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = proxy.local_addr().unwrap();
    let seen = std::thread::spawn(move || {
        let (mut stream, _) = proxy.accept().unwrap();
        let mut head = [0; 1024];
        let length = stream.read(&mut head).unwrap();
        stream.write_all(b"HTTP/1.1 403 Forbidden\r\n\r\n").unwrap();
        String::from_utf8_lossy(&head[..length]).into_owned()
    });
    let matcher = || Matcher::builder().all(format!("http://me:pass@{address}")).no("direct.example").build();
    let client = client_with(matcher(), |_| ());
    let error = client.send(get("https://id.example:8443/x")).await.unwrap_err();
    assert!(causes(&error).contains("tunnel error"), "{}", causes(&error));
    let head = seen.join().unwrap();
    assert!(head.starts_with("CONNECT id.example:8443 HTTP/1.1\r\n"), "{head}");
    assert!(head.contains("Proxy-Authorization: Basic bWU6cGFzcw=="), "{head}");

    let outward = Outward {
        tcp: HttpConnector::new(),
        to_proxy: HttpsConnector::from((
            HttpConnector::new(),
            tls_config(rustls::RootCertStore::empty(), &Settings::default()),
        )),
        proxy: Arc::new(matcher()),
    };
    for (url, proxied) in [
        ("https://id.example/", true),
        ("http://id.example/", false),
        ("https://127.0.0.1/", false),
        ("https://localhost:8443/", false),
        ("https://[::1]/", false),
        ("https://a.direct.example/", false),
    ] {
        assert_eq!(outward.proxy_for(&url.parse().unwrap()).is_some(), proxied, "{url}");
    }
}

#[test]
fn an_unusable_ca_file_is_named() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    for file in ["/nowhere/ca.pem", "/dev/null"] {
        let settings = Settings { ca_file: Some(file.into()), ..Settings::default() };
        let error = ProviderHttp::new(settings, runtime.handle().clone()).unwrap_err();
        assert!(error.to_string().contains(file), "{error}");
    }
}

mod tls {
    //! Against a real TLS server, with certificates made on the spot.

    use aws_lc_rs::encoding::AsDer as _;
    use aws_lc_rs::rand::SystemRandom;
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _};
    use base64::Engine as _;
    use base64::prelude::BASE64_STANDARD;
    use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

    use super::*;

    /// A self-signed certificate for `localhost` that is its own CA, and its key (both DER).
    fn certificate(valid: [&str; 2]) -> (Vec<u8>, Vec<u8>) {
        certificate_of(b"test", valid)
    }

    fn certificate_of(subject: &[u8], valid: [&str; 2]) -> (Vec<u8>, Vec<u8>) {
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &SystemRandom::new()).unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, pkcs8.as_ref()).unwrap();
        // ecdsa-with-SHA256
        let algorithm = der(0x30, &[&der(0x06, &[&[0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2]])]);
        let common_name = der(0x30, &[&der(0x06, &[&[0x55, 4, 3]]), &der(0x0c, &[subject])]);
        let name = der(0x30, &[&der(0x31, &[&common_name])]);
        let times: Vec<_> = valid.iter().map(|time| der(0x18, &[time.as_bytes()])).collect();
        // subjectAltName: dNSName localhost, iPAddress 127.0.0.1
        let names = der(0x30, &[&der(0x82, &[b"localhost"]), &der(0x87, &[&[127, 0, 0, 1]])]);
        let extension = der(0x30, &[&der(0x06, &[&[0x55, 0x1d, 0x11]]), &der(0x04, &[&names])]);
        let to_be_signed = der(
            0x30,
            &[
                &der(0xa0, &[&der(0x02, &[&[2]])]),
                &der(0x02, &[&[1]]),
                &algorithm,
                &name,
                &der(0x30, &[&times[0], &times[1]]),
                &name,
                pair.public_key().as_der().unwrap().as_ref(),
                &der(0xa3, &[&der(0x30, &[&extension])]),
            ],
        );
        let signature = pair.sign(&SystemRandom::new(), &to_be_signed).unwrap();
        let signature = der(0x03, &[&[0], signature.as_ref()]);
        (der(0x30, &[&to_be_signed, &algorithm, &signature]), pkcs8.as_ref().to_vec())
    }

    fn der(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
        let body = parts.concat();
        let length = body.len();
        let mut out = match length {
            0..128 => vec![tag, length as u8],
            128..256 => vec![tag, 0x81, length as u8],
            _ => vec![tag, 0x82, (length >> 8) as u8, length as u8],
        };
        out.extend(body);
        out
    }

    /// Answers each connection once; gives back the port.
    fn serve(certificate: &[u8], key: &[u8]) -> u16 {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.to_vec()));
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![CertificateDer::from(certificate.to_vec())], key)
            .unwrap();
        let config = Arc::new(config);
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            while let Ok((mut stream, _)) = listener.accept() {
                let mut tls = rustls::ServerConnection::new(Arc::clone(&config)).unwrap();
                let mut plain = rustls::Stream::new(&mut tls, &mut stream);
                let mut head = [0; 1024];
                if plain.read(&mut head).is_ok() {
                    let _ = plain.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nhi");
                }
            }
        });
        port
    }

    /// Written where cargo keeps what it builds; removed when dropped.
    struct CaFile(PathBuf);

    impl CaFile {
        fn new(certificate: &[u8]) -> Self {
            let text = BASE64_STANDARD.encode(certificate);
            let mut unique = [0; 8];
            aws_lc_rs::rand::fill(&mut unique).unwrap();
            let path = std::env::temp_dir().join(format!("vestibule-ca-{:x}.pem", u64::from_le_bytes(unique)));
            std::fs::write(&path, format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n")).unwrap();
            Self(path)
        }
    }

    impl Drop for CaFile {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.0);
        }
    }

    /// Answers whoever shows a certificate of `clients`; everyone else gets an alert. Gives back the port.
    fn serve_to(clients: &[u8], certificate: &[u8], key: &[u8]) -> u16 {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from(clients.to_vec())).unwrap();
        let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(roots.into(), Arc::clone(&provider));
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.to_vec()));
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(verifier.build().unwrap())
            .with_single_cert(vec![CertificateDer::from(certificate.to_vec())], key)
            .unwrap();
        let config = Arc::new(config);
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            while let Ok((mut stream, _)) = listener.accept() {
                let mut tls = rustls::ServerConnection::new(Arc::clone(&config)).unwrap();
                assert!(rustls::Stream::new(&mut tls, &mut stream).read(&mut [0; 1024]).is_err(), "nobody is let in");
                // What was not read would reset the connection, and the alert with it.
                let _ = stream.shutdown(std::net::Shutdown::Write);
                let _ = std::io::copy(&mut stream, &mut std::io::sink());
            }
        });
        port
    }

    #[tokio::test]
    async fn a_client_certificate_that_is_refused_or_missing_is_told_by_name() {
        let (certificate, key) = certificate(VALID);
        let (clients, _) = certificate_of(b"clients", VALID);
        let port = serve_to(&clients, &certificate, &key);
        let file = CaFile::new(&certificate);
        let signer = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.clone()));
        let signer = rustls::crypto::aws_lc_rs::sign::any_supported_type(&signer).unwrap();
        let strangers = rustls::sign::CertifiedKey::new(vec![CertificateDer::from(certificate.clone())], signer);
        let strangers: Arc<dyn ResolvesClientCert> = Arc::new(rustls::sign::SingleCertAndKey::from(strangers));
        for shown in [None, Some(strangers)] {
            let settings = Settings { ca_file: Some(file.0.clone()), ..Settings::default() };
            let control = tokio::runtime::Handle::current();
            let client = ProviderHttp::with_proxy(settings, control, Matcher::builder().build(), shown).unwrap();
            let error = client.send(get(&format!("https://localhost:{port}/"))).await.unwrap_err();
            assert!(matches!(error, ProviderHttpError::ClientCertificate(_)), "{}", causes(&error));
        }
    }

    const VALID: [&str; 2] = ["20200101000000Z", "21200101000000Z"];

    #[tokio::test]
    async fn a_ca_file_makes_its_certificate_good_and_nothing_else() {
        let (certificate, key) = certificate(VALID);
        let port = serve(&certificate, &key);
        let file = CaFile::new(&certificate);
        let trusting = client(|settings| settings.ca_file = Some(file.0.clone()));
        for host in ["127.0.0.1", "localhost"] {
            let response = trusting.send(get(&format!("https://{host}:{port}/"))).await.unwrap();
            assert_eq!(response.body(), "hi", "{host}");
        }
        let error = client(|_| ()).send(get(&format!("https://localhost:{port}/"))).await.unwrap_err();
        let text = causes(&error);
        assert!(text.contains("certificate") && text.contains("UnknownIssuer"), "{text}");
    }

    #[tokio::test]
    async fn certificate_errors_can_be_read_in_the_causes() {
        let (expired, key) = certificate(["20200101000000Z", "20210101000000Z"]);
        let port = serve(&expired, &key);
        let file = CaFile::new(&expired);
        let trusting = client(|settings| settings.ca_file = Some(file.0.clone()));
        let error = trusting.send(get(&format!("https://localhost:{port}/"))).await.unwrap_err();
        assert!(causes(&error).contains("certificate expired"), "{}", causes(&error));

        let (good, key) = certificate(VALID);
        let port = serve(&good, &key);
        let file = CaFile::new(&good);
        let trusting = client(|settings| settings.ca_file = Some(file.0.clone()));
        // The certificate does not name this address.
        let error = trusting.send(get(&format!("https://127.0.0.2:{port}/"))).await.unwrap_err();
        assert!(matches!(error, ProviderHttpError::Unreachable(_)));
    }
}

#[test]
fn of_tls_1_2_only_recommended_suites_are_offered_where_that_is_asked_for() {
    let names = |recommended_suites| {
        let config =
            tls_config(rustls::RootCertStore::empty(), &Settings { recommended_suites, ..Settings::default() });
        let suites = config.crypto_provider().cipher_suites.iter().filter(|suite| suite.tls13().is_none());
        suites.map(|suite| format!("{:?}", suite.suite())).collect::<Vec<_>>()
    };
    assert!(names(false).iter().any(|name| name.contains("CHACHA20")));
    let recommended = names(true);
    assert_eq!(recommended.len(), 4);
    assert!(recommended.iter().all(|name| name.starts_with("TLS_ECDHE_") && name.contains("_GCM_")), "{recommended:?}");
}
