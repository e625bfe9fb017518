//! One line tells what happened to a request, in one shape, whatever the request said; and no line tells a secret.

use std::collections::BTreeSet;

use futures_util::{SinkExt, StreamExt};
use http::{Method, StatusCode};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use vestibule_test_support::{
    AuthorizeFault, Endpoint, IdTokenFault, Program, Request, SESSION_SECRET, Site, TokenFault, Value, json,
    raw_request,
};

const PROGRAM: &str = env!("CARGO_BIN_EXE_vestibule");

/// Every line of a JSON log; each must be an object of its own.
#[track_caller]
fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

/// Ends the program and returns its access lines.
fn access_lines(program: Program) -> Vec<Value> {
    program.signal("TERM");
    let ended = program.ended();
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
    let lines = lines(&ended.stdout);
    lines.into_iter().filter(|line| line["target"] == "vestibule::access").collect()
}

/// The one access line whose path is `path`.
#[track_caller]
fn line_of<'l>(lines: &'l [Value], path: &str) -> &'l Value {
    let found: Vec<&Value> = lines.iter().filter(|line| line["path"] == path).collect();
    let [line] = found[..] else { panic!("{} lines of {path}: {found:?}", found.len()) };
    line
}

#[tokio::test]
async fn each_request_has_one_line_and_each_refusal_a_reason() {
    let site = Site::of(PROGRAM);
    let text = "[[routes]]\npath = \"/admin/*\"\nrequire = { roles = [\"nobody\"] }\n\
                [[routes]]\npath = \"/public/*\"\naccess = \"public\"\n[upstreams.gone]\nurl = \"http://127.0.0.1:1\"\n\
                [[routes]]\npath = \"/gone\"\naccess = \"public\"\nupstream = \"gone\"\n";
    let config = site.file("routes.toml", text);
    let launch = site.launch().env("VESTIBULE_CONFIG", config).env("VESTIBULE_LOG_FORMAT", "json");
    let program = site.start(launch).await;
    let browser = site.browser();
    for (path, status) in [("/public/a?b=c", 200), ("/gone", 502), ("/auth/nowhere", 404), ("/public/..%2fa", 400)] {
        assert_eq!(browser.get(&site.url(path)).await.status, status, "{path}");
    }
    assert_eq!(browser.fetch(&site.url("/script")).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(browser.follow(&site.url("/page?secret=1#x"), 10).await.status, StatusCode::OK);
    assert_eq!(browser.get(&site.url("/admin/x")).await.status, StatusCode::FORBIDDEN);
    let foreign = Request::new(Method::POST, &site.url("/foreign")).header("origin", "https://evil.example.com");
    assert_eq!(browser.send(foreign).await.status, StatusCode::FORBIDDEN);

    let lines = access_lines(program);
    for (path, status, reason, route) in [
        ("/public/a", 200, Value::Null, json!("/public/*")),
        ("/gone", 502, json!("upstream_connect"), json!("/gone")),
        ("/auth/nowhere", 404, json!("no_endpoint"), Value::Null),
        ("/admin/x", 403, json!("missing_role"), json!("/admin/*")),
        ("/foreign", 403, json!("foreign_origin"), json!("default")),
    ] {
        let line = line_of(&lines, path);
        assert_eq!((&line["status"], &line["reason"]), (&json!(status), &reason), "{path}: {line}");
        assert_eq!(line["route"], route, "{path}: {line}");
    }
    for path in ["/public/..%2fa", "/script"] {
        let line = line_of(&lines, path);
        assert!(line["reason"].is_string(), "{line}");
    }
    assert_eq!(line_of(&lines, "/admin/x")["method"], "GET");
    let page: Vec<&Value> = lines.iter().filter(|line| line["path"] == "/page").collect();
    assert_eq!(
        page.iter().map(|line| &line["status"]).collect::<Vec<_>>(),
        [302, 200].map(|status| json!(status)).iter().collect::<Vec<_>>()
    );
    assert_eq!(page[1]["user"], "248289761001", "{}", page[1]);
    let ids: BTreeSet<String> = lines.iter().map(|line| line["id"].to_string()).collect();
    assert_eq!(ids.len(), lines.len(), "every request has an id of its own");
    for line in &lines {
        assert_eq!((&line["client"], &line["level"]), (&json!("127.0.0.1"), &json!("INFO")));
        assert!(line["duration_ms"].is_number() && line["timestamp"].is_string(), "{line}");
        assert!(!line.to_string().contains("secret") && !line.to_string().contains('?'), "{line}");
    }
}

#[tokio::test]
async fn the_text_format_tells_the_same_to_people() {
    let site = Site::of(PROGRAM);
    let mut program = site.start(site.launch()).await;
    let browser = site.browser();
    browser.follow(&site.url("/page?secret=1"), 10).await;
    let line = program.wait_for_line(&["vestibule::access: 200 GET ", " /page "]);
    assert!(line.contains(" user=248289761001 ") && line.contains(" id=") && !line.contains("secret"), "{line}");
    browser.get(&site.url("/auth/nowhere")).await;
    let line = program.wait_for_line(&["vestibule::access: 404 GET "]);
    assert!(line.contains(" reason=no_endpoint "), "{line}");
    assert!(!program.text().contains('\u{1b}'), "a pipe gets no colours");
}

#[tokio::test]
async fn nothing_that_a_stranger_chooses_forges_a_line() {
    const FORGED: &str = "x\" y\r\n2026-01-01T00:00:00.000Z  INFO vestibule::access: 200 GET forged \u{1b}[31m\u{202e}";
    for format in ["json", "text"] {
        let site = Site::of(PROGRAM);
        site.provider.set_claim("name_of_mine", json!(FORGED));
        let launch = site.launch().env("VESTIBULE_LOG_FORMAT", format).env("VESTIBULE_LOG_LEVEL", "trace");
        let launch = launch.env("VESTIBULE_NAME_CLAIM", "name_of_mine");
        let program = site.start(launch).await;
        let browser = site.browser();
        browser.follow(&site.url("/asked"), 10).await;
        // Raw, since no client sends such a path, host, method or callback.
        for head in [
            "GET /a%0d%0aforged%1b[31m HTTP/1.1\r\nHost: localhost\r\n\r\n".as_bytes(),
            "GET /a\"}forged HTTP/1.1\r\nHost: localhost\r\n\r\n".as_bytes(),
            b"GET /agent HTTP/1.1\r\nHost: localhost\r\nUser-Agent: x\x1b[31m\xc2\x9b forged\r\nReferer: \x1b[2J\r\n\r\n",
            b"GET /\xc2\x9bforged HTTP/1.1\r\nHost: localhost\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: local\"host,\u{1b}[2Jforged\r\n\r\n".as_bytes(),
            "FORGED'`|~ / HTTP/1.1\r\nHost: localhost\r\n\r\n".as_bytes(),
            b"GET /auth/callback?error=server_error&error_description=a%0a%0dforged%1b[31m&state=x HTTP/1.1\r\nHost: localhost\r\nAccept: text/html\r\n\r\n",
        ] {
            raw_request(site.address(), head).await;
        }
        program.signal("TERM");
        let ended = program.ended();
        assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
        let hidden = |c: char| c != '\n' && (c.is_control() || matches!(c, '\u{202a}'..='\u{202e}'));
        if format == "json" {
            for line in lines(&ended.stdout) {
                assert!(line["timestamp"].is_string() && line["level"].is_string(), "{line}");
            }
        } else {
            for line in ended.stdout.lines() {
                let level = line.split_whitespace().nth(1);
                assert!(line.starts_with("20") && matches!(level, Some("INFO" | "WARN" | "DEBUG" | "TRACE")), "{line}");
                assert!(!line.starts_with("2026-01-01T"), "{line}");
            }
        }
        assert!(!ended.stdout.chars().any(hidden), "{format}: {}", ended.stdout.escape_debug());
    }
}

/// What a run must not tell, by what it is.
struct Secrets(BTreeSet<(&'static str, String)>);

impl Secrets {
    /// Takes a secret, and its percent-encoded form where that is another one.
    fn add(&mut self, kind: &'static str, secret: &str) {
        // Shorter ones could stand in a log by chance.
        assert!(secret.len() >= 12, "{kind} {secret:?} is too short to be looked for");
        let encoded = url::form_urlencoded::byte_serialize(secret.as_bytes()).collect::<String>();
        self.0.insert((kind, encoded));
        self.0.insert((kind, secret.to_owned()));
    }

    fn add_signature(&mut self, kind: &'static str, token: &str) {
        if let Some((_, signature)) = token.rsplit_once('.').filter(|(_, signature)| signature.len() >= 12) {
            self.add(kind, signature);
        }
        if token.len() >= 12 {
            self.add(kind, token);
        }
    }
}

#[tokio::test]
async fn a_run_at_trace_level_tells_no_secret() {
    let site = Site::of(PROGRAM);
    let mut secrets = Secrets(BTreeSet::new());
    let text = "[[routes]]\npath = \"/ws\"\naccess = \"public\"\n[[routes]]\npath = \"/api/*\"\npass_authorization = true\n\
                [upstream]\naccess_token = \"bearer\"\n";
    let launch = site.launch().env("VESTIBULE_CONFIG", site.file("trace.toml", text));
    let launch = launch
        .env("VESTIBULE_LOG_FORMAT", "json")
        .env("VESTIBULE_LOG_LEVEL", "trace,hyper=trace,h2=trace,rustls=trace");
    let program = site.start(launch).await;
    secrets.add("client secret", site.provider.client_secret());
    secrets.add("session secret", SESSION_SECRET);

    // A whole sign-in and what follows it.
    let browser = site.browser();
    let page = browser.follow(&site.url("/page?query=query-SENTINEL-0001"), 10).await;
    assert_eq!(page.status, StatusCode::OK, "{}", page.text());
    let session = browser.all_cookies();
    let api = Request::fetch(Method::POST, &site.url("/api/x?token=query-SENTINEL-0002"))
        .header("authorization", "Bearer authorization-SENTINEL")
        .header("proxy-authorization", "Basic proxy-SENTINEL-0003")
        .header("cookie", "theirs=cookie-SENTINEL-0004")
        .header("x-api-key", "header-SENTINEL-0005")
        .body("password=body-SENTINEL-0006");
    assert_eq!(browser.send(api).await.status, StatusCode::OK);
    assert_eq!(
        browser.get(&site.url("/set-cookie?name=app&value=upstream-SENTINEL-0007")).await.status,
        StatusCode::OK
    );
    let userinfo = browser.fetch(&site.url("/auth/userinfo")).await;
    assert_eq!(userinfo.status, StatusCode::OK);
    let mut upgrade =
        format!("ws://127.0.0.1:{}/ws?token=query-SENTINEL-0008", site.port).into_client_request().unwrap();
    upgrade.headers_mut().insert("sec-websocket-protocol", "bearer, protocol-SENTINEL".parse().unwrap());
    upgrade.headers_mut().insert("host", format!("localhost:{}", site.port).parse().unwrap());
    // The echo answers without a protocol, which this client takes for an error once the tunnel is open.
    if let Ok((mut socket, _)) = tokio_tungstenite::connect_async(upgrade).await {
        socket.send(Message::text("frame-SENTINEL-0009")).await.unwrap();
        let _ = socket.next().await;
        let _ = socket.close(None).await;
    }
    assert!(
        site.upstream.requests().iter().any(|request| request.path() == "/ws"),
        "the WebSocket was never asked for"
    );

    // Callbacks that fail, each in its way.
    for fault in [AuthorizeFault::AccessDenied, AuthorizeFault::WrongIssuer, AuthorizeFault::CodeOfAnotherTransaction] {
        site.provider.faults(|faults| faults.authorize = Some(fault));
        site.browser().follow(&site.url("/page"), 12).await;
    }
    site.provider.heal();
    for fault in [IdTokenFault::WrongKey, IdTokenFault::WrongNonce, IdTokenFault::Garbage] {
        site.provider.faults(|faults| faults.id_token = Some(fault));
        site.browser().follow(&site.url("/page"), 12).await;
    }
    site.provider.heal();
    for fault in [TokenFault::InvalidClient, TokenFault::Html, TokenFault::FiveMegabytes, TokenFault::UnknownTokenType]
    {
        site.provider.faults(|faults| faults.token = Some(fault));
        site.browser().follow(&site.url("/page"), 12).await;
    }
    site.provider.heal();
    let stray = site.browser();
    let challenge = stray.get(&site.url("/page")).await;
    let callback = stray.step(&challenge).await.location();
    // In another browser, with a state that was tampered with, and twice.
    for url in [
        callback.to_string(),
        callback.as_str().replace("state=", "state=x"),
        format!("{callback}&code=twice-SENTINEL"),
    ] {
        site.browser().get(&url).await;
    }
    let mut spoiled = session[0].clone();
    spoiled.value.push_str("spoiled");
    let with_garbage = site.browser();
    with_garbage.plant(spoiled);
    with_garbage.get(&site.url("/page")).await;
    raw_request(site.address(), b"GET / HTTP/1.1\r\nCookie: broken-head-SENTINEL\r\nno colon\r\n\r\n").await;
    // Signing out ends at the provider, with the ID token as a hint.
    let signed_out = browser.follow(&site.url("/auth/logout"), 10).await;
    assert!(signed_out.status.is_success(), "{}", signed_out.text());

    // A mark such as `1` is no secret.
    for cookie in session.iter().chain(&stray.all_cookies()).filter(|cookie| cookie.value.len() >= 16) {
        secrets.add("cookie", &cookie.value);
    }
    for request in site.provider.requests_of(Endpoint::Authorize) {
        for (name, kind) in [("state", "state"), ("nonce", "nonce"), ("code_challenge", "PKCE challenge")] {
            secrets.add(kind, &request.query_value(name).expect("a parameter of the authorization request"));
        }
    }
    for call in site.provider.token_calls() {
        for (name, value) in &call.form {
            match name.as_str() {
                "code" => secrets.add("authorization code", value),
                "code_verifier" => secrets.add("PKCE verifier", value),
                _ => {}
            }
        }
    }
    for token in site.provider.id_tokens() {
        secrets.add_signature("ID token", &token);
    }
    for request in site.provider.requests() {
        if let Some(token) = request.headers.get("authorization").and_then(|value| value.to_str().ok()) {
            secrets.add("authorization towards the provider", token.rsplit(' ').next().unwrap_or_default());
        }
    }
    for token in site.provider.issued_tokens() {
        secrets.add("access or refresh token", &token);
    }
    let kinds: BTreeSet<&str> = secrets.0.iter().map(|(kind, _)| *kind).collect();
    assert_eq!(kinds.len(), 11, "some kind of secret was never used: {kinds:?}");

    program.signal("TERM");
    let ended = program.ended();
    assert_eq!(ended.code, Some(0));
    let output = ended.stdout + &ended.stderr;
    assert!(output.lines().count() > 30, "the log is not there:\n{output}");
    for (kind, secret) in &secrets.0 {
        let line = output.lines().find(|line| line.contains(secret.as_str()));
        assert_eq!(line, None, "the log tells a secret ({kind}): {secret}");
    }
    let line = output.lines().find(|line| line.contains("SENTINEL"));
    assert_eq!(line, None, "the log tells what somebody sent");
}
