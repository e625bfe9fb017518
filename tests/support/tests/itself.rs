//! The support crate against itself: a stand-in client signs in at the fake provider, and the upstream tells the truth.

use std::time::Duration;

use vestibule_test_support::forge::Alg;
use vestibule_test_support::{
    Browser, EchoUpstream, Endpoint, FakeProvider, IdTokenFault, Request, TestClock, Value, raw_request,
};

const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
/// RFC 7636, appendix B.
const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";
const REDIRECT_URI: &str = "http://localhost:1/auth/callback";

async fn code(browser: &Browser, provider: &FakeProvider) -> String {
    let url = format!(
        "{}/authorize?response_type=code&client_id={}&redirect_uri={REDIRECT_URI}&scope=openid+email&state=s&nonce=n\
         &code_challenge={CHALLENGE}&code_challenge_method=S256",
        provider.issuer(),
        provider.client_id(),
    );
    let callback = browser.get(&url).await.location();
    let value = |name: &str| callback.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value.into_owned());
    assert_eq!(value("state").as_deref(), Some("s"));
    assert_eq!(value("iss"), Some(provider.issuer()));
    value("code").unwrap()
}

async fn redeem(browser: &Browser, provider: &FakeProvider, code: &str, verifier: &str) -> Value {
    let request = Request::new(http::Method::POST, &format!("{}/token", provider.issuer())).form(&[
        ("grant_type", "authorization_code"),
        ("code", code),
        ("redirect_uri", REDIRECT_URI),
        ("code_verifier", verifier),
        ("client_id", provider.client_id()),
        ("client_secret", provider.client_secret()),
    ]);
    browser.send(request).await.json()
}

#[tokio::test]
async fn a_code_is_redeemed_once_and_only_with_its_verifier() {
    let clock = TestClock::new();
    let provider = FakeProvider::start(clock.clone());
    let browser = Browser::new(clock);
    for alg in Alg::ALL {
        provider.sign_with(alg);
        let grant = code(&browser, &provider).await;
        let tokens = redeem(&browser, &provider, &grant, VERIFIER).await;
        let id_token = tokens["id_token"].as_str().unwrap();
        assert_eq!(id_token.split('.').count(), 3);
        assert_eq!(redeem(&browser, &provider, &grant, VERIFIER).await["error"], "invalid_grant");
        let userinfo = Request::new(http::Method::GET, &format!("{}/userinfo", provider.issuer()))
            .header("authorization", &format!("Bearer {}", tokens["access_token"].as_str().unwrap()));
        assert_eq!(browser.send(userinfo).await.json()["preferred_username"], "ada");
    }
    let other = code(&browser, &provider).await;
    let wrong = "x".repeat(43);
    assert_eq!(redeem(&browser, &provider, &other, &wrong).await["error"], "invalid_grant");
    let last = provider.token_calls().pop().unwrap();
    assert_eq!((last.accepted, last.refusal), (false, Some("invalid_grant")));
    assert_eq!(provider.count(Endpoint::Userinfo), Alg::ALL.len());
}

#[tokio::test]
async fn every_fault_changes_the_id_token() {
    let clock = TestClock::new();
    let provider = FakeProvider::start(clock.clone());
    let browser = Browser::new(clock);
    for fault in IdTokenFault::ALL {
        provider.faults(|faults| faults.id_token = Some(fault));
        let grant = code(&browser, &provider).await;
        let tokens = redeem(&browser, &provider, &grant, VERIFIER).await;
        assert_eq!(tokens["id_token"].is_null(), fault == IdTokenFault::Missing, "{fault:?}");
    }
}

#[tokio::test]
async fn the_provider_goes_away_and_comes_back_on_the_same_port() {
    let provider = FakeProvider::start_down(TestClock::new());
    let connect = || tokio::net::TcpStream::connect(provider.address());
    assert!(connect().await.is_err());
    provider.bring_back();
    assert!(connect().await.is_ok());
    provider.take_down();
    assert!(connect().await.is_err());
    provider.bring_back();
    let browser = Browser::new(TestClock::new());
    let metadata = browser.fetch(&format!("{}/.well-known/openid-configuration", provider.issuer())).await.json();
    assert_eq!(metadata["issuer"], provider.issuer());
}

#[tokio::test]
async fn the_upstream_tells_what_reached_it() {
    let upstream = EchoUpstream::start();
    upstream.assert_untouched();
    let address = upstream.url().trim_start_matches("http://").parse().unwrap();
    let answer = raw_request(
        address,
        b"POST /a%2Fb?c=d HTTP/1.1\r\nHost: x\r\nX-One: 1\r\nx-one: 2\r\nTransfer-Encoding: chunked\r\nTrailer: X-T\r\n\r\n\
          5\r\nhello\r\n0\r\nX-T: end\r\n\r\n",
    )
    .await;
    assert!(answer.starts_with(b"HTTP/1.1 200 OK"));
    let seen = upstream.last();
    assert_eq!(seen.target, "/a%2Fb?c=d");
    assert_eq!(seen.header("x-one"), ["1", "2"]);
    assert_eq!((seen.body_length, seen.body_text.as_str()), (5, "hello"));
    assert_eq!(seen.body_sha256, "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824");
    assert_eq!(seen.trailers, [("x-t".to_owned(), "end".to_owned())]);
    assert!(seen.wire().windows(8).any(|window| window == b"X-One: 1"));
}

#[tokio::test]
async fn the_upstream_behaves_as_its_paths_say() {
    let upstream = EchoUpstream::start();
    let browser = Browser::new(TestClock::new());
    let url = |path: &str| format!("{}{path}", upstream.url());
    assert_eq!(browser.fetch(&url("/big?bytes=200000")).await.body.len(), 200_000);
    assert_eq!(browser.fetch(&url("/sse?events=3&every_ms=5")).await.text().matches("data: tick").count(), 3);
    let reply = browser.fetch(&url("/respond?status=503&header=X-A:1&header=X-A:2")).await;
    assert_eq!((reply.status.as_u16(), reply.headers.get_all("x-a").iter().count()), (503, 2));
    browser.fetch(&url("/set-cookie?name=a&value=b")).await;
    assert_eq!(browser.fetch(&url("/")).await.echoed("cookie").as_deref(), Some("a=b"));
    let address = upstream.url().trim_start_matches("http://").parse().unwrap();
    let cut = raw_request(address, b"GET /die-mid-body HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert!(cut.ends_with(b"ten bytes!"));
    let trailers = raw_request(address, b"GET /trailers HTTP/1.1\r\nHost: x\r\nTE: trailers\r\n\r\n").await;
    assert!(trailers.windows(17).any(|window| window.eq_ignore_ascii_case(b"x-checksum: abc\r\n")));
    let upgrade = raw_request(
        address,
        b"GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
          Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n\x81\x82\0\0\0\0hi",
    )
    .await;
    assert!(upgrade.ends_with(b"\x81\x02hi"), "{}", String::from_utf8_lossy(&upgrade));
}

#[tokio::test]
async fn a_connection_closes_unannounced_when_asked() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let upstream = EchoUpstream::start();
    let address: std::net::SocketAddr = upstream.url().trim_start_matches("http://").parse().unwrap();
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET /close-after HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut answer)).await.unwrap().unwrap();
    let answer = String::from_utf8(answer).unwrap().to_lowercase();
    assert!(answer.starts_with("http/1.1 200") && !answer.contains("connection: close"));
}

/// The parts that the runner starts, without the proxy: what fails here is not the proxy's fault.
mod real {
    use vestibule_test_support::real::{Chromium, RealProvider};
    use vestibule_test_support::{Browser, EchoUpstream, Reply, Request, TestClock, Value, json};

    use super::{CHALLENGE, VERIFIER};

    #[tokio::test]
    async fn keycloak_lets_a_person_in_and_out_at_any_port_of_loopback() {
        sign_in_and_out(&RealProvider::keycloak()).await;
    }

    #[tokio::test]
    async fn oidc_provider_lets_a_person_in_and_out_at_any_port_of_loopback() {
        sign_in_and_out(&RealProvider::oidc_provider()).await;
    }

    async fn sign_in_and_out(provider: &RealProvider) {
        let upstream = EchoUpstream::start();
        let origin = upstream.url().replace("127.0.0.1", "localhost");
        let script = Browser::new(TestClock::new());
        let metadata = script.fetch(&format!("{}/.well-known/openid-configuration", provider.issuer)).await.json();
        let endpoint = |name: &str| metadata[name].as_str().unwrap().to_owned();
        let authorize = |state: &str| {
            format!(
                "{}?response_type=code&client_id={}&redirect_uri={origin}/auth/callback&scope=openid+profile&state={state}\
                 &nonce=n&code_challenge={CHALLENGE}&code_challenge_method=S256",
                endpoint("authorization_endpoint"),
                provider.client_id(),
            )
        };
        let chromium = Chromium::start().await;
        chromium.goto(&authorize("first")).await.unwrap();
        let first = chromium.client.window().await.unwrap();
        let second = chromium.new_tab().await.unwrap();
        chromium.goto(&authorize("second")).await.unwrap();
        assert!(provider.asks_for_password(&chromium).await.unwrap());
        chromium.show(&first).await.unwrap();
        provider.sign_in(&chromium, "ada", &origin).await.unwrap();
        let echo = chromium.echo().await.unwrap();
        assert_eq!(parameter(&echo, "state"), "first");
        chromium.show(&second).await.unwrap();
        provider.finish_in_another_tab(&chromium, "ada", &origin).await.unwrap();
        chromium.goto(&authorize("third")).await.unwrap();
        assert!(chromium.is_at(&origin).await.unwrap(), "a second sign-in asks for no password");

        let redeem = Request::new(http::Method::POST, &endpoint("token_endpoint"))
            .header("authorization", &basic(provider))
            .form(&[
                ("grant_type", "authorization_code"),
                ("code", &parameter(&echo, "code")),
                ("redirect_uri", &format!("{origin}/auth/callback")),
                ("code_verifier", VERIFIER),
            ]);
        let tokens = script.send(redeem).await.json();
        let hint = tokens["id_token"].as_str().unwrap_or_else(|| panic!("no ID token: {tokens}"));
        let end = format!(
            "{}?id_token_hint={hint}&post_logout_redirect_uri={origin}/auth/signed-out",
            endpoint("end_session_endpoint")
        );
        chromium.goto(&end).await.unwrap();
        provider.confirm_sign_out(&chromium, &origin).await.unwrap();
        assert_eq!(chromium.client.current_url().await.unwrap().path(), "/auth/signed-out");
        chromium.goto(&authorize("fourth")).await.unwrap();
        assert!(provider.asks_for_password(&chromium).await.unwrap(), "the provider still knows this person");
    }

    #[tokio::test]
    async fn a_person_passes_the_pages_of_keycloak_without_chromium() {
        pass_the_pages(RealProvider::keycloak(), "grace", "").await;
        pass_the_pages(RealProvider::keycloak().client("vestibule-consent"), "grace", "").await;
        pass_the_pages(RealProvider::keycloak().client("vestibule-step-up"), "grace", "&acr_values=gold").await;
        pass_the_pages(RealProvider::keycloak_by_https(), "grace", "").await;
        pass_the_pages(RealProvider::keycloak(), "grace", "&response_mode=form_post").await;
    }

    #[tokio::test]
    async fn a_person_passes_the_pages_of_oidc_provider_without_chromium() {
        pass_the_pages(RealProvider::oidc_provider(), "ada", "").await;
        pass_the_pages(RealProvider::oidc_provider(), "ada", "&response_mode=form_post").await;
    }

    #[tokio::test]
    async fn a_person_passes_the_pages_of_dex_without_chromium() {
        pass_the_pages(RealProvider::dex(), "grace", "").await;
    }

    async fn pass_the_pages(provider: RealProvider, name: &str, more: &str) {
        let upstream = EchoUpstream::start();
        let browser = provider.let_in(Browser::new(TestClock::new()));
        let arrived = sign_in(&provider, &browser, &upstream, name, more).await;
        assert!(arrived.url.as_str().starts_with(&format!("{}/auth/callback", upstream.url())), "{}", arrived.url);
        let echo = arrived.json();
        let parameters = [&echo["target"], &echo["body"]["text"]].map(|place| place.as_str().unwrap_or_default());
        assert!(parameters.concat().contains("code="), "{echo}");
    }

    #[tokio::test]
    async fn keycloak_calls_the_logout_endpoint_of_a_client_of_ones_own() {
        let upstream = EchoUpstream::start();
        let logout = format!("{}/auth/backchannel-logout", upstream.url());
        let metadata = json!({ "attributes": { "backchannel.logout.url": logout } });
        let provider = RealProvider::keycloak().registered(&metadata).await;
        let person = provider.new_person().await;
        let browser = Browser::new(TestClock::new());
        sign_in(&provider, &browser, &upstream, &person, "").await;
        provider.end_all_sessions_of(&person).await;
        assert_eq!(upstream.last().target, "/auth/backchannel-logout");
        assert!(!provider.initial_access_token().await.is_empty());
    }

    #[tokio::test]
    async fn oidc_provider_registers_a_client_of_ones_own() {
        let provider = RealProvider::oidc_provider().registered(&json!({ "client_name": "of a test" })).await;
        assert_ne!(provider.client_id(), "vestibule");
        pass_the_pages(provider, "ada", "").await;
    }

    /// A sign-in for a client that sends people to the upstream; the page where it ends.
    async fn sign_in(
        provider: &RealProvider,
        browser: &Browser,
        upstream: &EchoUpstream,
        name: &str,
        more: &str,
    ) -> Reply {
        let metadata = browser.fetch(&format!("{}/.well-known/openid-configuration", provider.issuer)).await.json();
        let url = format!(
            "{}?response_type=code&client_id={}&redirect_uri={}/auth/callback&scope=openid&state=s\
             &code_challenge={CHALLENGE}&code_challenge_method=S256{more}",
            metadata["authorization_endpoint"].as_str().unwrap(),
            provider.client_id(),
            upstream.url(),
        );
        provider.sign_in_without_browser_as(browser, &url, name).await
    }

    fn basic(provider: &RealProvider) -> String {
        use base64::Engine as _;
        let pair = format!("{}:{}", provider.client_id(), provider.client_secret());
        format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair))
    }

    fn parameter(echo: &Value, name: &str) -> String {
        let target = url::Url::parse("http://localhost").unwrap().join(echo["target"].as_str().unwrap()).unwrap();
        target.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value.into_owned()).unwrap_or_default()
    }
}
