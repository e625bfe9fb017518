//! HTTP/2 over TLS, chosen by ALPN: what holds for either holds for both at once.

use std::io::ErrorKind;
use std::time::Duration;

use futures_util::future::join_all;
use http::request::Builder;
use http::{Request, StatusCode};
use vestibule_test_support::{Browser, CertificateFiles, H2Client, Stage, TestCa, TlsClient};

use super::echoed;
use super::web_sockets::{connect_to, open};

const SOON: Duration = Duration::from_secs(5);
const PUBLIC: &str = "[[routes]]\npath = \"/*\"\naccess = \"public\"\n";

/// A proxy at `https://localhost:PORT`; what it trusts and shows.
struct Secure {
    stage: Stage,
    ca: TestCa,
    _files: CertificateFiles,
}

impl Secure {
    fn start(more: &str) -> Self {
        let ca = TestCa::new();
        let files = CertificateFiles::new(&ca.sign(&["localhost"]));
        let stage = Stage::with(&format!(
            "{more}\n[provider]\nredirect_uri = \"https://localhost:{{port}}/auth/callback\"\n{}",
            files.toml()
        ));
        Self { stage, ca, _files: files }
    }

    fn url(&self, path: &str) -> String {
        format!("https://{}{path}", self.stage.host())
    }

    async fn client(&self) -> H2Client {
        self.client_of(TlsClient::trusting(&self.ca)).await
    }

    async fn client_of(&self, tls: TlsClient) -> H2Client {
        let tls = tls.offering(&[b"h2", b"http/1.1"]);
        let stream = tls.connect(self.stage.address(), "localhost").await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        H2Client::over(stream, &h2::client::Builder::new()).await
    }

    async fn signed_in(&self) -> Browser {
        let browser = self.stage.browser().with_tls(TlsClient::trusting(&self.ca));
        browser.connect(&self.url(""), self.stage.address());
        let reply = browser.follow(&self.url("/"), 10).await;
        assert_eq!(reply.status, 200, "{}: {}", reply.url, reply.text());
        self.stage.upstream.forget();
        browser
    }

    fn with_cookies(&self, browser: &Browser, request: Builder) -> Request<()> {
        let crumbs = browser.cookies(&self.url("")).into_iter();
        let crumbs = crumbs.map(|cookie| format!("{}={}", cookie.name, cookie.value));
        crumbs.fold(request, |request, crumb| request.header("cookie", crumb)).body(()).unwrap()
    }
}

#[tokio::test]
async fn a_hundred_streams_with_a_session_carry_the_identity_and_hsts() {
    let secure = Secure::start("hsts = \"365d\"");
    let (browser, client) = (secure.signed_in().await, secure.client().await);
    let stranger = client.send(Request::get(secure.url("/")).body(()).unwrap(), "").await.unwrap();
    assert_eq!(stranger.status, StatusCode::UNAUTHORIZED);
    assert_eq!(stranger.headers["strict-transport-security"], "max-age=31536000");
    secure.stage.upstream.assert_untouched();
    let replies = join_all((0..100).map(|number| {
        let request = Request::get(secure.url(&format!("/slow?ms=100&n={number}"))).header("x-forwarded-user", "root");
        client.send(secure.with_cookies(&browser, request), "")
    }))
    .await;
    for (number, reply) in replies.into_iter().enumerate() {
        let reply = reply.unwrap();
        let echo = reply.json();
        assert_eq!((reply.status, &echo["target"]), (StatusCode::OK, &format!("/slow?ms=100&n={number}").into()));
        assert_eq!(echoed(&echo, "x-forwarded-user"), ["248289761001"]);
        assert_eq!(echoed(&echo, "x-forwarded-proto"), ["https"]);
        assert_eq!(reply.headers["strict-transport-security"], "max-age=31536000");
    }
}

#[tokio::test]
async fn a_web_socket_over_tls_carries_frames_and_ends_with_its_session() {
    let secure = Secure::start("");
    let (browser, client) = (secure.signed_in().await, secure.client().await);
    let origin = secure.url("");
    let request = connect_to(secure.url("/ws"), "websocket").header("origin", origin);
    let (mut socket, _) = open(&client, secure.with_cookies(&browser, request)).await.unwrap();
    assert_eq!(secure.stage.upstream.last().header("x-forwarded-proto"), ["https"]);
    for number in 0..50 {
        let text = format!("message {number}");
        socket.send(1, text.as_bytes());
        assert_eq!(socket.receive().await, Some((1, text.into_bytes())));
    }
    assert_eq!(browser.tab().get(&secure.url("/auth/logout")).await.status, StatusCode::SEE_OTHER);
    assert_eq!(socket.receive().await, Some((8, b"\x03\xf0session ended".to_vec())));
}

#[tokio::test]
async fn a_client_certificate_names_its_bearer_on_every_stream() {
    let clients = TestCa::new();
    let roots = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(roots.path(), clients.pem()).unwrap();
    let secure = Secure::start(&format!(
        "{PUBLIC}[identity.headers]\n\"X-Client-Names\" = \"client_certificate_san\"\n\
         [tls]\nclient_ca_file = {:?}\nclient_certificate = \"optional\"",
        roots.path()
    ));
    let shown = TlsClient::showing(&secure.ca, &clients.sign(&["ada.example.com"]));
    for (tls, names) in [(shown, vec!["DNS:ada.example.com"]), (TlsClient::trusting(&secure.ca), vec![])] {
        let client = secure.client_of(tls).await;
        for _ in 0..3 {
            let request = Request::get(secure.url("/")).header("x-client-names", "DNS:admin").body(()).unwrap();
            let reply = client.send(request, "").await.unwrap();
            assert_eq!(echoed(&reply.json(), "x-client-names"), names);
        }
    }
}

/// The proxy closes behind its goodbye, and our own, which TLS writes, may find nobody any more. Every other error is one.
fn assert_said_goodbye(end: Result<(), ::h2::Error>) {
    let Err(error) = end else { return };
    let kind = error.get_io().map(std::io::Error::kind);
    assert!(matches!(kind, Some(ErrorKind::BrokenPipe | ErrorKind::ConnectionReset)), "{error:?}");
}

#[tokio::test]
async fn a_stop_says_goodbye_over_tls_and_lets_requests_in_flight_finish() {
    let mut secure = Secure::start(PUBLIC);
    let (busy, idle) = (secure.client().await, secure.client().await);
    let slow = secure.url("/slow?ms=700");
    let stop = async {
        while secure.stage.upstream.count() == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        secure.stage.begin_stop();
        assert_said_goodbye(idle.end(SOON).await);
    };
    let (slow, ()) = tokio::join!(busy.get(&slow), stop);
    assert_eq!(slow.unwrap().status, StatusCode::OK);
    assert_said_goodbye(busy.end(SOON).await);
    secure.stage.stop();
}

#[tokio::test]
async fn who_does_not_offer_h2_gets_http_1() {
    let secure = Secure::start(PUBLIC);
    for (offered, chosen) in [(&[&b"http/1.1"[..]][..], Some(&b"http/1.1"[..])), (&[], None)] {
        let tls = TlsClient::trusting(&secure.ca).offering(offered);
        let mut stream = tls.connect(secure.stage.address(), "localhost").await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), chosen);
        let answer = vestibule_test_support::get(&mut stream, "localhost", "/", "").await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
}
