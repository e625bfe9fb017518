//! Tokens for clients without a browser: the device flow, refresh tokens, and whoever should get nothing.

use std::sync::Arc;
use std::time::Duration;

use http::Method;
use vestibule::config::{self, Sources};
use vestibule_test_support::{
    Endpoint, FakeProvider, IdTokenFault, Reply, Request, Stage, TestClock, TokenFault, Value, json,
};

const GRANTS: &str = "[api_clients]\ngrants = [\"device_code\", \"refresh_token\"]\n\
                      [bearer]\naccept = true\naudiences = [\"api\"]\n";
const DEVICE_CODE: &str = "urn:ietf:params:oauth:grant-type:device_code";

async fn stage() -> Stage {
    stage_with("").await
}

async fn stage_with(more: &str) -> Stage {
    let stage = Stage::with(&format!("{GRANTS}{more}"));
    stage.wait_for_provider().await;
    let now = stage.clock.unix();
    let issuer = stage.provider.issuer();
    stage.provider.issue_jwts(json!({
        "iss": issuer, "sub": "248289761001", "aud": "api", "client_id": "app", "iat": now, "exp": now + 3600,
    }));
    stage
}

async fn post(stage: &Stage, path: &str, form: &[(&str, &str)]) -> Reply {
    stage.browser().send(request(stage, path, form)).await
}

fn request(stage: &Stage, path: &str, form: &[(&str, &str)]) -> Request {
    let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
    Request::new(Method::POST, &stage.url(path)).header("content-type", "application/x-www-form-urlencoded").body(body)
}

async fn start(stage: &Stage) -> Value {
    let reply = post(stage, "/auth/device", &[]).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert!(reply.header("cache-control").is_some_and(|value| value.contains("no-store")));
    assert!(reply.header("set-cookie").is_none() && reply.header("access-control-allow-origin").is_none());
    reply.json()
}

async fn poll(stage: &Stage, code: &Value) -> Reply {
    let code = code["device_code"].as_str().expect("a device code");
    post(stage, "/auth/token", &[("grant_type", DEVICE_CODE), ("device_code", code)]).await
}

async fn refresh(stage: &Stage, token: &str) -> Reply {
    post(stage, "/auth/token", &[("grant_type", "refresh_token"), ("refresh_token", token)]).await
}

#[track_caller]
fn assert_refused(stage: &Stage, reply: &Reply, status: u16, error: &str) {
    assert_eq!((reply.status.as_u16(), reply.json()["error"].as_str()), (status, Some(error)), "{}", reply.text());
    assert!(reply.header("cache-control").is_some_and(|value| value.contains("no-store")));
    assert!(reply.json().get("access_token").is_none() && reply.header("set-cookie").is_none());
    assert!(stage.upstream.requests().iter().all(|request| !request.path().starts_with("/auth")));
}

/// A whole device flow: the tokens that come of it.
async fn tokens(stage: &Stage) -> Value {
    let device = start(stage).await;
    stage.provider.answer_device(device["user_code"].as_str().unwrap(), true);
    let reply = poll(stage, &device).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    reply.json()
}

#[tokio::test]
async fn a_person_says_yes_at_another_device_and_the_program_is_let_in() {
    let stage = stage().await;
    let device = start(&stage).await;
    assert_eq!(device["verification_uri"], format!("{}/device", stage.provider.issuer()));
    assert_eq!((device["interval"].as_u64(), device["expires_in"].as_u64()), (Some(5), Some(600)));
    let started = stage.provider.requests_of(Endpoint::Device);
    assert!(started[0].form().contains(&("scope".into(), "openid email profile".into())));
    assert!(started[0].headers.contains_key("authorization"), "the client says who it is");

    assert_refused(&stage, &poll(&stage, &device).await, 400, "authorization_pending");
    stage.provider.answer_device(device["user_code"].as_str().unwrap(), true);
    stage.clock.advance(Duration::from_secs(5));
    let reply = poll(&stage, &device).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert!(reply.header("cache-control").is_some_and(|value| value.contains("no-store")));
    let tokens = reply.json();
    assert_eq!((tokens["token_type"].as_str(), tokens["expires_in"].as_u64()), (Some("Bearer"), Some(300)));
    assert_eq!(tokens["scope"], "openid profile email");
    assert!(tokens.get("id_token").is_none());

    let shown = Request::new(Method::GET, &stage.url("/x"))
        .header("authorization", &format!("Bearer {}", tokens["access_token"].as_str().unwrap()));
    let reply = stage.browser().send(shown).await;
    assert_eq!((reply.status.as_u16(), reply.echoed("x-forwarded-user").as_deref()), (200, Some("248289761001")));
    // A code works once, and the provider is not asked again.
    stage.clock.advance(Duration::from_secs(5));
    let calls = stage.provider.count(Endpoint::Token);
    assert_refused(&stage, &poll(&stage, &device).await, 400, "invalid_grant");
    assert_eq!(stage.provider.count(Endpoint::Token), calls);
}

#[tokio::test]
async fn whoever_asks_too_fast_is_slowed_down_here_and_the_provider_is_not_asked() {
    let stage = stage().await;
    let device = start(&stage).await;
    assert_refused(&stage, &poll(&stage, &device).await, 400, "authorization_pending");
    for _ in 0..5 {
        assert_refused(&stage, &poll(&stage, &device).await, 400, "slow_down");
    }
    assert_eq!(stage.provider.count(Endpoint::Token), 1);
    stage.clock.advance(Duration::from_secs(10));
    assert_refused(&stage, &poll(&stage, &device).await, 400, "slow_down");
    stage.clock.advance(Duration::from_secs(60));
    assert_refused(&stage, &poll(&stage, &device).await, 400, "authorization_pending");
    assert_eq!(stage.provider.count(Endpoint::Token), 2);
    // The provider may say so, too.
    let other = start(&stage).await;
    stage.provider.faults(|faults| faults.slow_down = true);
    assert_refused(&stage, &poll(&stage, &other).await, 400, "slow_down");
    stage.provider.heal();
    stage.clock.advance(Duration::from_secs(6));
    assert_refused(&stage, &poll(&stage, &other).await, 400, "slow_down");
    stage.clock.advance(Duration::from_secs(10));
    assert_refused(&stage, &poll(&stage, &other).await, 400, "authorization_pending");
}

#[tokio::test]
async fn a_no_and_no_answer_in_time_end_it() {
    let stage = stage().await;
    let denied = start(&stage).await;
    stage.provider.answer_device(denied["user_code"].as_str().unwrap(), false);
    assert_refused(&stage, &poll(&stage, &denied).await, 400, "access_denied");
    let calls = stage.provider.count(Endpoint::Token);
    let late = start(&stage).await;
    stage.clock.advance(Duration::from_secs(600));
    assert_refused(&stage, &poll(&stage, &late).await, 400, "expired_token");
    assert_eq!(stage.provider.count(Endpoint::Token), calls, "it is known here, too");
}

#[tokio::test]
async fn nobody_redeems_by_our_client_what_was_not_given_out_here() {
    let (stage, other) = (stage().await, stage().await);
    let device = start(&stage).await;
    let code = device["device_code"].as_str().unwrap().to_owned();
    let tokens = tokens(&stage).await;
    let calls = stage.provider.count(Endpoint::Token);
    // The provider's own codes and tokens, those of another proxy, and one kind for the other.
    let real = stage.provider.issued_tokens()[1].clone();
    let foreign = start(&other).await["device_code"].as_str().unwrap().to_owned();
    let mut altered = code.clone();
    altered.replace_range(20..21, if &code[20..21] == "A" { "B" } else { "A" });
    for bad in ["x", &altered, &foreign, &real, tokens["refresh_token"].as_str().unwrap()] {
        let reply = post(&stage, "/auth/token", &[("grant_type", DEVICE_CODE), ("device_code", bad)]).await;
        assert_refused(&stage, &reply, 400, "invalid_grant");
    }
    for bad in ["x", &real, &code] {
        assert_refused(&stage, &refresh(&stage, bad).await, 400, "invalid_grant");
    }
    assert_eq!(stage.provider.count(Endpoint::Token), calls, "the provider was not asked");
    stage.upstream.assert_untouched();
}

#[tokio::test]
async fn refresh_tokens_are_ours_to_read_and_the_providers_to_rotate() {
    let stage = stage().await;
    let first = tokens(&stage).await;
    let sealed = first["refresh_token"].as_str().unwrap();
    assert!(!stage.provider.issued_tokens().iter().any(|token| sealed.contains(token.as_str())));
    let reply = refresh(&stage, sealed).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    let second = reply.json();
    assert_ne!(second["refresh_token"], first["refresh_token"]);
    // Rotated there: the old one is of no use, and whoever shows it ends the newer one, too (RFC 9700 §4.14.2).
    for ended in [sealed, second["refresh_token"].as_str().unwrap()] {
        assert_refused(&stage, &refresh(&stage, ended).await, 400, "invalid_grant");
    }
    // Where the provider keeps one, the client does.
    stage.provider.keep_refresh_tokens();
    let third = tokens(&stage).await;
    let sealed = third["refresh_token"].as_str().unwrap();
    for _ in 0..2 {
        let reply = refresh(&stage, sealed).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        assert!(reply.json().get("refresh_token").is_none());
    }
    // A renewed ID token may be missing, but is about nobody else.
    stage.provider.faults(|faults| faults.id_token = Some(IdTokenFault::Missing));
    assert_eq!(refresh(&stage, sealed).await.status, 200);
    stage.provider.heal();
    stage.provider.falsify("sub", json!("somebody-else"));
    assert_refused(&stage, &refresh(&stage, sealed).await, 502, "server_error");
}

/// OpenID Connect Core §12.2: the time of the sign-in is not that of the renewal, and may be left out.
#[tokio::test]
async fn a_renewal_is_no_sign_in_and_is_not_judged_as_one() {
    let stage = stage_with("[provider]\nmax_age = \"5m\"\nmax_token_age = \"5m\"\nrequired_acr = [\"gold\"]\n").await;
    stage.provider.falsify("acr", json!("gold"));
    let mut sealed = tokens(&stage).await["refresh_token"].as_str().unwrap().to_owned();
    for left_out in [None, Some("acr"), Some("auth_time")] {
        stage.clock.advance(Duration::from_secs(3600));
        if let Some(name) = left_out {
            stage.provider.falsify(name, Value::Null);
        }
        let reply = refresh(&stage, &sealed).await;
        assert_eq!(reply.status, 200, "{left_out:?}: {}", reply.text());
        reply.json()["refresh_token"].as_str().unwrap().clone_into(&mut sealed);
    }
    // The first ID token is what all are compared with, also after one that left the time out.
    stage.provider.falsify("auth_time", json!(stage.clock.unix()));
    assert_refused(&stage, &refresh(&stage, &sealed).await, 502, "server_error");
}

#[tokio::test]
async fn a_renewed_id_token_of_another_sign_in_hands_nothing_out() {
    for (name, value) in [
        ("sub", json!("somebody-else")),
        ("iss", json!("https://other.example.com")),
        ("aud", json!(["vestibule-test", "trusted"])),
        ("azp", Value::Null),
        ("auth_time", json!(1)),
        ("nonce", json!("of-a-sign-in")),
        ("acr", json!("silver")),
    ] {
        let stage = stage_with("[provider]\ntrusted_audiences = [\"trusted\"]\nrequired_acr = [\"gold\"]\n").await;
        stage.provider.falsify("acr", json!("gold"));
        let sealed = tokens(&stage).await["refresh_token"].as_str().unwrap().to_owned();
        stage.provider.falsify(name, value);
        let reply = refresh(&stage, &sealed).await;
        assert_refused(&stage, &reply, 502, "server_error");
        assert!(reply.json().get("refresh_token").is_none(), "{name}");
        assert_eq!(stage.provider.count(Endpoint::Userinfo), 0, "{name}");
        stage.upstream.assert_untouched();
    }
}

/// RFC 8707 §2.2.
#[tokio::test]
async fn the_resources_of_the_settings_are_named_to_the_token_endpoint_each_time() {
    let resources = ["https://a.example/", "urn:b"];
    let stage = stage_with(&format!("[provider]\nresource = {resources:?}\n")).await;
    let first = tokens(&stage).await;
    assert_eq!(refresh(&stage, first["refresh_token"].as_str().unwrap()).await.status, 200);
    let sent: Vec<_> = stage.provider.requests_of(Endpoint::Device).iter().map(|request| request.form()).collect();
    let calls = stage.provider.token_calls();
    assert_eq!((sent.len(), calls.len()), (1, 2));
    for form in sent.iter().chain(calls.iter().map(|call| &call.form)) {
        let named: Vec<_> = form.iter().filter(|(name, _)| name == "resource").map(|(_, value)| value).collect();
        assert_eq!(named, resources, "{form:?}");
    }
}

#[tokio::test]
async fn nothing_is_handed_out_before_the_id_token_holds() {
    for fault in [
        IdTokenFault::Missing,
        IdTokenFault::WrongKey,
        IdTokenFault::AlgNone,
        IdTokenFault::WrongAudience,
        IdTokenFault::WrongIssuer,
        IdTokenFault::WrongAccessTokenHash,
        IdTokenFault::Expired,
    ] {
        let stage = stage().await;
        let device = start(&stage).await;
        stage.provider.answer_device(device["user_code"].as_str().unwrap(), true);
        stage.provider.faults(|faults| faults.id_token = Some(fault));
        assert_refused(&stage, &poll(&stage, &device).await, 502, "server_error");
        assert_eq!(stage.provider.count(Endpoint::Userinfo), 0, "{fault:?}");
        stage.upstream.assert_untouched();
    }
    // One with a nonce is of a sign-in.
    let stage = stage().await;
    stage.provider.falsify("nonce", json!("of-a-sign-in"));
    let device = start(&stage).await;
    stage.provider.answer_device(device["user_code"].as_str().unwrap(), true);
    assert_refused(&stage, &poll(&stage, &device).await, 502, "server_error");
    assert_eq!(stage.provider.count(Endpoint::Userinfo), 0);
    stage.upstream.assert_untouched();
}

#[tokio::test]
async fn what_a_browser_sends_is_refused_and_so_is_what_reads_in_two_ways() {
    let stage = stage().await;
    let browser = stage.signed_in_browser().await;
    let calls = stage.provider.requests().len();
    for path in ["/auth/device", "/auth/token"] {
        for (name, value) in [
            ("origin", stage.origin()),
            ("origin", "null".to_owned()),
            ("origin", "https://evil.example".to_owned()),
            ("sec-fetch-site", "same-origin".to_owned()),
            ("sec-fetch-mode", "no-cors".to_owned()),
            ("sec-fetch-dest", "empty".to_owned()),
        ] {
            let reply = browser.send(request(&stage, path, &[]).header(name, &value)).await;
            assert_refused(&stage, &reply, 403, "invalid_request");
            assert!(reply.header("access-control-allow-origin").is_none());
        }
        let preflight = Request::new(Method::OPTIONS, &stage.url(path))
            .header("origin", "https://evil.example")
            .header("access-control-request-method", "POST");
        let reply = browser.send(preflight).await;
        assert_eq!(reply.status, 405);
        assert!(reply.header("access-control-allow-origin").is_none());
        assert_eq!(browser.get(&stage.url(path)).await.status, 405);
        let plain = Request::new(Method::POST, &stage.url(path)).header("content-type", "application/json").body("{}");
        assert_refused(&stage, &stage.browser().send(plain).await, 400, "invalid_request");
    }
    for (form, error) in [
        (&[][..], "invalid_request"),
        (&[("grant_type", DEVICE_CODE)][..], "invalid_request"),
        (&[("grant_type", DEVICE_CODE), ("device_code", "")][..], "invalid_request"),
        (&[("grant_type", "refresh_token"), ("grant_type", DEVICE_CODE), ("device_code", "x")][..], "invalid_request"),
        (&[("grant_type", "password"), ("username", "ada"), ("password", "x")][..], "unsupported_grant_type"),
        (&[("grant_type", "client_credentials")][..], "unsupported_grant_type"),
        (&[("grant_type", "authorization_code"), ("code", "x")][..], "unsupported_grant_type"),
    ] {
        assert_refused(&stage, &post(&stage, "/auth/token", form).await, 400, error);
    }
    assert_refused(&stage, &post(&stage, "/auth/device", &[("provider", "other")]).await, 400, "invalid_request");
    assert_eq!(stage.provider.requests().len(), calls, "the provider was not asked");
    stage.upstream.assert_untouched();
}

#[tokio::test]
async fn a_provider_that_fails_or_cannot_is_told_apart() {
    let stage = stage().await;
    let device = start(&stage).await;
    stage.provider.faults(|faults| faults.token = Some(TokenFault::InvalidClient));
    assert_refused(&stage, &poll(&stage, &device).await, 502, "server_error");
    stage.provider.heal();
    stage.provider.take_down();
    let reply = post(&stage, "/auth/device", &[]).await;
    assert_refused(&stage, &reply, 503, "temporarily_unavailable");
    assert!(reply.header("retry-after").is_some());
    stage.provider.bring_back();
    for (name, value) in [
        ("verification_uri", json!("javascript:alert(1)")),
        ("verification_uri", json!("http://elsewhere.example/device")),
        ("user_code", json!("<b>x</b>\n")),
        ("expires_in", Value::Null),
        ("device_code", json!("x".repeat(5000))),
    ] {
        stage.provider.set_device_member(name, value);
        assert_refused(&stage, &post(&stage, "/auth/device", &[]).await, 502, "server_error");
        stage.provider.set_device_member(
            name,
            match name {
                "verification_uri" => json!(format!("{}/device", stage.provider.issuer())),
                "expires_in" => json!(600),
                _ => json!("x"),
            },
        );
    }
    for missing in ["grant_types_supported", "device_authorization_endpoint"] {
        let clock = TestClock::new();
        let provider = Arc::new(FakeProvider::start(clock.clone()));
        let value = if missing.starts_with("grant") { json!(["authorization_code"]) } else { Value::Null };
        provider.set_metadata(missing, value);
        let stage = Stage::builder().provider(provider).clock(clock).toml(GRANTS).start();
        stage.wait_for_provider().await;
        assert_refused(&stage, &post(&stage, "/auth/device", &[]).await, 502, "server_error");
        assert_eq!(stage.provider.count(Endpoint::Device) + stage.provider.count(Endpoint::Token), 0, "{missing}");
    }
}

#[tokio::test]
async fn it_is_all_off_unless_it_is_switched_on_and_can_lie_elsewhere() {
    let off = Stage::with("");
    for path in ["/auth/device", "/auth/token"] {
        assert_eq!(post(&off, path, &[]).await.status, 404);
    }
    off.upstream.assert_untouched();
    let stage = Stage::with(
        "[api_clients]\ngrants = [\"device_code\"]\n[endpoints]\ndevice = \"/oauth/device\"\ntoken = \"/oauth/token\"\n",
    );
    assert!(stage.warnings().iter().any(|warning| warning.contains("no route takes")), "{:?}", stage.warnings());
    stage.wait_for_provider().await;
    let device = post(&stage, "/oauth/device", &[]).await.json();
    stage.provider.answer_device(device["user_code"].as_str().unwrap(), true);
    let code = device["device_code"].as_str().unwrap();
    let reply = post(&stage, "/oauth/token", &[("grant_type", DEVICE_CODE), ("device_code", code)]).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert!(reply.json().get("refresh_token").is_none(), "that grant is off");
    let reply = post(&stage, "/oauth/token", &[("grant_type", "refresh_token"), ("refresh_token", "x")]).await;
    assert_refused(&stage, &reply, 400, "unsupported_grant_type");
}

#[test]
fn what_contradicts_itself_is_told_before_the_start() {
    let base = format!(
        "[provider]\nissuer = \"https://id.example.com\"\nclient_id = \"app\"\nclient_secret = \"s3cr3t\"\n\
         redirect_uri = \"https://app.example.com/auth/callback\"\n{{}}[session]\nsecret = \"{}\"\n\
         [upstream]\nurl = \"http://127.0.0.1:3000\"\n[bearer]\naccept = true\naudiences = [\"api\"]\n",
        config::generate_secret().unwrap()
    );
    let told = |provider: &str, more: &str| match config::load(&Sources::toml(&(base.replace("{}", provider) + more))) {
        Ok(_) => String::new(),
        Err(problems) => problems.iter().map(|problem| format!("{problem}\n")).collect::<String>(),
    };
    let on = "[api_clients]\ngrants = [\"device_code\"]\n";
    assert_eq!(told("", on), "");
    for (provider, more, wanted) in [
        ("", "[api_clients]\ngrants = [\"refresh_token\"]\n".to_owned(), "nothing gives any out"),
        ("", "[api_clients]\ngrants = [\"password\"]\n".to_owned(), "device_code"),
        ("", "[endpoints]\ntoken = \"/t\"\n".to_owned(), "is an endpoint for API clients"),
        ("", format!("{on}[endpoints]\ndevice = false\n"), "without it no device code can be redeemed"),
        ("dpop = true\n", on.to_owned(), "are bound to a key that API clients lack"),
    ] {
        let told = told(provider, &more);
        assert!(told.contains(wanted), "{more}: {told}");
    }
}
