//! A provider that answers with a byte a second, without end, in circles, with an expired certificate: people are told in time,
//! and the operator is told why.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::StatusCode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use vestibule_test_support::rcgen::date_time_ymd;
use vestibule_test_support::script::{application, head};
use vestibule_test_support::{CertificateFiles, Reply, Stage, TestCa, tokio_rustls};

/// The time limit of one call in these tests.
const LIMIT: &str = "timeout = \"2s\"";

/// Starts in front of the provider at `issuer`, waits until its discovery has failed, and holds the reason against `cause`.
async fn assert_told(issuer: &str, more: &str, cause: &str) {
    let toml = format!("[provider]\nissuer = \"{issuer}\"\n{LIMIT}\n{more}\n");
    let stage = Stage::builder().toml(&toml).without_provider().start();
    let started = Instant::now();
    let is_told = |reply: &Reply| reply.json()["reason"].as_str().is_some_and(|reason| reason.contains(cause));
    stage.wait_for_readiness(cause, is_told).await;
    assert!(started.elapsed() < Duration::from_secs(10), "{cause}: {:?}", started.elapsed());

    let asked = Instant::now();
    let page = stage.browser().get(&stage.url("/")).await;
    assert_eq!(page.status, StatusCode::SERVICE_UNAVAILABLE, "{cause}: {}", page.text());
    assert!(page.text().contains("Sign-in unavailable") && page.text().contains("Request id"), "{cause}");
    assert!(asked.elapsed() < Duration::from_secs(2), "{cause}: nobody waits for the provider");
    stage.upstream.assert_untouched();
}

async fn refuse_to_end(mut stream: TcpStream, start: &'static [u8], piece: &'static [u8], pause: Duration) {
    head(&mut stream).await;
    if stream.write_all(start).await.is_err() {
        return;
    }
    while stream.write_all(piece).await.is_ok() {
        tokio::time::sleep(pause).await;
    }
}

#[tokio::test]
async fn a_head_of_one_byte_a_second_is_waited_for_until_the_limit() {
    let issuer =
        application(|stream| refuse_to_end(stream, b"HTTP/1.1 200 OK\r\nx: ", b"y", Duration::from_secs(1))).await;
    assert_told(&issuer, "", "did not answer in time").await;
}

#[tokio::test]
async fn a_document_of_one_byte_a_second_is_waited_for_until_the_limit() {
    const START: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 100000\r\n\r\n{";
    let issuer = application(|stream| refuse_to_end(stream, START, b" ", Duration::from_secs(1))).await;
    assert_told(&issuer, "", "did not answer in time").await;
}

#[tokio::test]
async fn a_document_of_a_hundred_megabytes_is_not_taken_in() {
    const KNOWN: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 104857600\r\n\r\n";
    const CHUNKED: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n";
    static CHUNK: &[u8] = &[b' '; 65_536];
    let issuer = application(|stream| refuse_to_end(stream, KNOWN, CHUNK, Duration::ZERO)).await;
    assert_told(&issuer, "", "larger than allowed").await;
    let issuer = application(|mut stream: TcpStream| async move {
        head(&mut stream).await;
        let mut whole = CHUNKED.to_vec();
        for _ in 0..1600 {
            whole.extend_from_slice(b"10000\r\n");
            whole.extend_from_slice(CHUNK);
            whole.extend_from_slice(b"\r\n");
            if stream.write_all(&whole).await.is_err() {
                return;
            }
            whole.clear();
        }
    })
    .await;
    assert_told(&issuer, "", "larger than allowed").await;
}

#[tokio::test]
async fn a_redirect_to_itself_is_not_followed() {
    let issuer = application(|mut stream: TcpStream| async move {
        while !head(&mut stream).await.is_empty() {
            let answer =
                b"HTTP/1.1 302 Found\r\nlocation: /.well-known/openid-configuration\r\ncontent-length: 0\r\n\r\n";
            if stream.write_all(answer).await.is_err() {
                return;
            }
        }
    })
    .await;
    assert_told(&issuer, "", "answered with a redirect").await;
}

#[tokio::test]
async fn a_page_in_the_place_of_a_document_is_told_as_such() {
    let issuer = application(|mut stream: TcpStream| async move {
        head(&mut stream).await;
        let page = "<!doctype html><title>Welcome</title>";
        let answer =
            format!("HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: {}\r\n\r\n{page}", page.len());
        let _ = stream.write_all(answer.as_bytes()).await;
    })
    .await;
    assert_told(&issuer, "", "is not JSON").await;
}

#[tokio::test]
async fn a_certificate_that_has_expired_is_told_as_such() {
    let ca = TestCa::new();
    let expired = ca.sign_with(&["localhost"], |params| {
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2020, 2, 1);
    });
    let chain = CertificateDer::pem_slice_iter(expired.certificate.as_bytes()).collect::<Result<Vec<_>, _>>().unwrap();
    let key = PrivateKeyDer::from_pem_slice(expired.key.as_bytes()).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let issuer = format!("https://localhost:{}", listener.local_addr().unwrap().port());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                // The client hangs up in the handshake.
                if let Ok(mut stream) = acceptor.accept(stream).await {
                    let _ = stream.read_u8().await;
                }
            });
        }
    });
    let files = CertificateFiles::new(&ca.sign(&["localhost"]));
    let ca_file = files.add("ca.crt", &ca.pem());
    assert_told(&issuer, &format!("ca_file = {ca_file:?}"), "expired").await;
}
