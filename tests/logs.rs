//! The program itself, run at its chattiest through whatever can happen: its log holds nothing that lets anybody in.

use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{Method, StatusCode};
use vestibule_test_support::{
    AuthorizeFault, Browser, EchoUpstream, FakeProvider, IdTokenFault, Request, TestClock, TokenFault, UserinfoFault,
    free_port,
};

const SESSION_SECRET: &str = "tR8w_Zk3-Qm6Hx1Vb9Ny4Lp7Jd2Gs5Fc0AeUiOoWqYt";
/// What the client itself must not find again.
const CLIENTS_OWN: [&str; 6] = [
    "clients-own-authorization",
    "clients-own-cookie",
    "clients-own-subprotocol",
    "clients-own-query",
    "clients-own-csrf-token",
    "applications-own-cookie",
];

/// Killed when a test fails before it was stopped.
struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Program {
    fn start(provider: &FakeProvider, upstream: &EchoUpstream, port: u16, format: &str) -> Self {
        let child = Command::new(env!("CARGO_BIN_EXE_vestibule"))
            .args(["--set", "drain.grace=0s", "--set", "drain.timeout=1s", "--set", "upstream.access_token=bearer"])
            .env_clear()
            .env("OIDC_ISSUER", provider.issuer())
            .env("OIDC_CLIENT_ID", provider.client_id())
            .env("OIDC_CLIENT_SECRET", provider.client_secret())
            .env("OIDC_REDIRECT_URI", format!("http://localhost:{port}/auth/callback"))
            .env("SESSION_SECRET", SESSION_SECRET)
            .env("VESTIBULE_UPSTREAM", upstream.url())
            .env("VESTIBULE_LISTEN", format!("127.0.0.1:{port}"))
            .env("VESTIBULE_ADMIN_LISTEN", "off")
            .env("VESTIBULE_LOG_LEVEL", "trace")
            .env("VESTIBULE_LOG_FORMAT", format)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        Self(child)
    }

    /// SIGTERM, and all that was written.
    fn stop(mut self) -> String {
        let status = Command::new("kill").args(["-TERM", &self.0.id().to_string()]).status().unwrap();
        assert!(status.success());
        let mut log = String::new();
        self.0.stdout.take().unwrap().read_to_string(&mut log).unwrap();
        self.0.stderr.take().unwrap().read_to_string(&mut log).unwrap();
        log
    }
}

#[tokio::test]
async fn a_trace_of_everything_shows_no_secret() {
    for format in ["text", "json"] {
        let clock = TestClock::new();
        let provider = Arc::new(FakeProvider::start(clock.clone()));
        let upstream = EchoUpstream::start();
        let port = free_port();
        let program = Program::start(&provider, &upstream, port, format);
        let url = |path: &str| format!("http://localhost:{port}{path}");
        let end = Instant::now() + Duration::from_secs(20);
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < end, "the program does not listen");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let browser = Browser::new(clock);
        while browser.get(&url("/")).await.status == StatusCode::SERVICE_UNAVAILABLE {
            assert!(Instant::now() < end, "the provider is not found");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }

        let mut secrets = go_through_everything(&browser, &provider, &url).await;
        secrets.extend(provider.secrets());
        secrets.push(SESSION_SECRET.to_owned());
        secrets.extend(CLIENTS_OWN.map(str::to_owned));
        let log = program.stop();
        assert!(
            log.contains("TRACE") || log.contains("DEBUG") || log.contains("trace") || log.contains("debug"),
            "{log}"
        );
        for told in
            ["signed in", "/auth/callback", "token_refused", "userinfo", "/auth/logout", "callback not redeemed"]
        {
            assert!(log.contains(told), "{told} is not in the log, so it is not the log of this run: {log}");
        }
        assert!(secrets.len() > 20, "{}", secrets.len());
        for secret in secrets {
            assert!(secret.len() >= 8, "{secret:?} is found by chance");
            assert!(!log.contains(&secret), "{secret} is in the log: {log}");
        }
    }
}

/// Sign-ins that work and that fail in every way, use, garbage and a sign-out; gives the cookies and states that were seen.
async fn go_through_everything(
    browser: &Browser,
    provider: &FakeProvider,
    url: &impl Fn(&str) -> String,
) -> Vec<String> {
    let mut seen = Vec::new();
    let faults: [fn(&mut vestibule_test_support::Faults); 7] = [
        |faults| faults.token = Some(TokenFault::InvalidClient),
        |faults| faults.token = Some(TokenFault::Html),
        |faults| faults.id_token = Some(IdTokenFault::TamperedSignature),
        |faults| faults.id_token = Some(IdTokenFault::WrongNonce),
        |faults| faults.id_token = Some(IdTokenFault::Garbage),
        |faults| faults.userinfo = Some(UserinfoFault::Html),
        |faults| faults.authorize = Some(AuthorizeFault::ErrorFromWrongIssuer),
    ];
    for fault in faults {
        provider.heal();
        provider.faults(fault);
        let page = browser.follow(&url("/page?token=clients-own-query"), 12).await;
        assert!(page.status.is_client_error() || page.status.is_server_error(), "{}", page.status);
        seen.extend(
            page.visited
                .iter()
                .flat_map(|url| url.query_pairs())
                .filter_map(|(name, value)| (name == "state" || name == "code").then(|| value.into_owned())),
        );
    }
    provider.heal();
    let page = browser.follow(&url("/page?token=clients-own-query"), 8).await;
    assert_eq!(page.status, StatusCode::OK, "{}", page.text());
    let callback = page.visited.iter().find(|url| url.path() == "/auth/callback").unwrap().clone();
    seen.extend(callback.query_pairs().filter(|(name, _)| name != "iss").map(|(_, value)| value.into_owned()));
    browser.follow(callback.as_str(), 8).await;
    browser.get(&format!("{callback}&code=x")).await;

    let request = Request::navigation(Method::GET, &url("/set-cookie?name=app&value=applications-own-cookie"))
        .header("authorization", "Bearer clients-own-authorization")
        .header("x-csrf-token", "clients-own-csrf-token")
        .header("cookie", "app=clients-own-cookie");
    assert_eq!(browser.send(request).await.status, StatusCode::OK);
    let web_socket = Request::new(Method::GET, &url("/page"))
        .header("connection", "upgrade")
        .header("upgrade", "websocket")
        .header("sec-websocket-version", "13")
        .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
        .header("sec-websocket-protocol", "clients-own-subprotocol");
    browser.send(web_socket).await;
    seen.extend(browser.cookies(&url("/")).into_iter().map(|cookie| cookie.value).filter(|value| value.len() > 8));
    let twice = browser.cookies(&url("/")).into_iter().find(|cookie| cookie.name == "vestibule").unwrap();
    let garbage = Request::new(Method::GET, &url("/page")).header("cookie", &format!("vestibule={}", twice.value));
    assert_eq!(browser.send(garbage).await.status, StatusCode::UNAUTHORIZED);
    browser.follow(&url("/auth/logout"), 6).await;
    seen
}
