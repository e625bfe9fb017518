//! What the provider refuses, and that the way through works.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::clock::Clock;

const ISSUER: &str = "http://127.0.0.1:4000";
const VERIFIER: &str = "a-verifier-that-is-long-enough-0123456789abcdefg";

#[derive(Debug)]
struct HandClock(AtomicU64);

impl Clock for HandClock {
    fn now(&self) -> UnixTime {
        UnixTime(self.0.load(Ordering::Relaxed))
    }
}

/// A provider with a browser that keeps its cookie.
struct Scene {
    provider: Provider,
    clock: Arc<HandClock>,
    cookie: Mutex<Option<String>>,
}

/// What an answer says.
#[derive(Debug)]
struct Said {
    status: u16,
    location: Option<String>,
    body: String,
}

impl Said {
    /// A parameter of the redirect.
    fn param(&self, name: &str) -> Option<String> {
        let url = url::Url::parse(self.location.as_deref()?).unwrap();
        url.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    fn is_invalid_grant(&self) -> bool {
        self.status == 400 && self.json()["error"] == "invalid_grant"
    }
}

impl Scene {
    fn new() -> Self {
        let clock = Arc::new(HandClock(AtomicU64::new(1_800_000_000)));
        let client = Client {
            id: "app".to_owned(),
            secret: "s3cret+/ &:".to_owned(),
            origin: "http://localhost:8080".to_owned(),
            redirect_uri: "http://localhost:8080/auth/callback".to_owned(),
            post_logout_redirect_uri: "http://localhost:8080/auth/signed-out".to_owned(),
            login_url: "http://localhost:8080/auth/login".to_owned(),
        };
        let provider = Provider::new(ISSUER.to_owned(), client, Arc::clone(&clock) as SharedClock).unwrap();
        Self { provider, clock, cookie: Mutex::new(None) }
    }

    fn pass(&self, seconds: u64) {
        self.clock.0.fetch_add(seconds, Ordering::Relaxed);
    }

    async fn call(
        &self,
        method: Method,
        path: &str,
        params: &[(&str, &str)],
        headers: &[(&'static str, &str)],
    ) -> Said {
        let query = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(params).finish();
        let mut map = HeaderMap::from_iter([(HOST, HeaderValue::from_static("127.0.0.1:4000"))]);
        map.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
        if let Some(cookie) = &*self.cookie.lock().unwrap() {
            map.insert(COOKIE, HeaderValue::try_from(cookie).unwrap());
        }
        for (name, value) in headers {
            map.insert(*name, HeaderValue::try_from(*value).unwrap());
        }
        let (query, form) = if method == Method::POST { (String::new(), query) } else { (query, String::new()) };
        let response = self.provider.respond(&Call { method, path: path.to_owned(), query, headers: map, form });
        let header =
            |name: http::HeaderName| response.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
        if let Some(cookie) = header(SET_COOKIE) {
            *self.cookie.lock().unwrap() = cookie.split(';').next().map(str::to_owned);
        }
        let (status, location) = (response.status().as_u16(), header(LOCATION));
        let body = response.into_body().collect().await.unwrap().to_bytes();
        Said { status, location, body: String::from_utf8(body.to_vec()).unwrap() }
    }

    /// An authorization request with some parameters changed, or left out by an empty value.
    async fn authorize(&self, method: Method, changes: &[(&str, &str)]) -> Said {
        let challenge = challenge_of(VERIFIER);
        let mut params = vec![
            ("client_id", "app"),
            ("redirect_uri", "http://localhost:8080/auth/callback"),
            ("response_type", "code"),
            ("scope", "openid profile email"),
            ("state", "the state"),
            ("nonce", "the nonce"),
            ("code_challenge", &challenge),
            ("code_challenge_method", "S256"),
        ];
        params.retain(|(name, _)| !changes.iter().any(|(changed, _)| changed == name));
        params.extend(changes);
        self.call(method, "/authorize", &params, &[("origin", ISSUER)]).await
    }

    async fn code(&self) -> String {
        self.authorize(Method::POST, &[("user", "ada")]).await.param("code").unwrap()
    }

    async fn redeem(&self, code: &str, changes: &[(&str, &str)]) -> Said {
        let mut params = vec![
            ("grant_type", "authorization_code"),
            ("code", code),
            ("redirect_uri", "http://localhost:8080/auth/callback"),
            ("code_verifier", VERIFIER),
            ("client_id", "app"),
            ("client_secret", "s3cret+/ &:"),
        ];
        params.retain(|(name, _)| !changes.iter().any(|(changed, _)| changed == name));
        params.extend(changes);
        self.call(Method::POST, "/token", &params, &[]).await
    }
}

#[tokio::test]
async fn the_way_through_gives_a_verifiable_id_token_and_userinfo() {
    let scene = Scene::new();
    let form = scene.authorize(Method::GET, &[]).await;
    assert_eq!(form.status, 200);
    assert!(
        form.body.contains(r#"name="user" value="grace""#) && form.body.contains(r#"value="the nonce""#),
        "{form:?}"
    );

    let back = scene.authorize(Method::POST, &[("user", "ada")]).await;
    assert_eq!(back.status, 303);
    assert_eq!((back.param("state").as_deref(), back.param("iss").as_deref()), (Some("the state"), Some(ISSUER)));

    let tokens = scene.redeem(&back.param("code").unwrap(), &[]).await.json();
    let claims = scene.provider.key.open(tokens["id_token"].as_str().unwrap()).unwrap();
    let access_token = tokens["access_token"].as_str().unwrap();
    for (name, expected) in [
        ("iss", json!(ISSUER)),
        ("sub", json!("demo|ada")),
        ("aud", json!("app")),
        ("nonce", json!("the nonce")),
        ("iat", json!(1_800_000_000)),
        ("exp", json!(1_800_000_300)),
        ("preferred_username", json!("ada")),
        ("groups", json!(["/admins"])),
        ("at_hash", json!(at_hash(access_token))),
    ] {
        assert_eq!(claims[name], expected, "{name}");
    }
    let bearer = format!("Bearer {access_token}");
    let userinfo = scene.call(Method::GET, "/userinfo", &[], &[("authorization", &bearer)]).await;
    assert_eq!(userinfo.json()["email"], "ada@example.com");
}

#[tokio::test]
async fn the_published_key_is_the_one_that_signs() {
    let scene = Scene::new();
    let key = scene.call(Method::GET, "/jwks", &[], &[]).await.json()["keys"][0].clone();
    let coordinate =
        |name: &str| base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(key[name].as_str().unwrap()).unwrap();
    let point = [vec![4], coordinate("x"), coordinate("y")].concat();
    assert_eq!(point.len(), 65);
    let tokens = scene.redeem(&scene.code().await, &[]).await.json();
    let (signed, signature) = tokens["id_token"].as_str().unwrap().rsplit_once('.').unwrap();
    let signature = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(signature).unwrap();
    let public = aws_lc_rs::signature::UnparsedPublicKey::new(&aws_lc_rs::signature::ECDSA_P256_SHA256_FIXED, point);
    public.verify(signed.as_bytes(), &signature).unwrap();
}

#[tokio::test]
async fn a_wrong_verifier_is_refused_and_spends_the_code() {
    let scene = Scene::new();
    let code = scene.code().await;
    let other = VERIFIER.replace("long", "LONG");
    assert!(scene.redeem(&code, &[("code_verifier", &other)]).await.is_invalid_grant());
    assert!(scene.redeem(&code, &[]).await.is_invalid_grant());
    for verifier in ["", "short"] {
        let code = scene.code().await;
        assert!(scene.redeem(&code, &[("code_verifier", verifier)]).await.is_invalid_grant());
    }
}

#[tokio::test]
async fn a_code_is_good_once_and_its_second_use_takes_back_the_first() {
    let scene = Scene::new();
    let code = scene.code().await;
    let tokens = scene.redeem(&code, &[]).await.json();
    let bearer = format!("Bearer {}", tokens["access_token"].as_str().unwrap());
    assert_eq!(scene.call(Method::GET, "/userinfo", &[], &[("authorization", &bearer)]).await.status, 200);
    assert!(scene.redeem(&code, &[]).await.is_invalid_grant());
    assert_eq!(scene.call(Method::GET, "/userinfo", &[], &[("authorization", &bearer)]).await.status, 401);
}

#[tokio::test]
async fn a_code_is_good_for_a_minute_and_with_its_redirect_uri() {
    let scene = Scene::new();
    let (first, second) = (scene.code().await, scene.code().await);
    scene.pass(60);
    assert_eq!(scene.redeem(&first, &[]).await.status, 200);
    scene.pass(1);
    assert!(scene.redeem(&second, &[]).await.is_invalid_grant());
    let third = scene.code().await;
    let other = [("redirect_uri", "http://localhost:8080/auth/callback/")];
    assert!(scene.redeem(&third, &other).await.is_invalid_grant());
    assert!(scene.redeem("unknown", &[]).await.is_invalid_grant());
}

#[tokio::test]
async fn a_client_that_cannot_be_trusted_is_never_redirected_to() {
    let scene = Scene::new();
    for change in [
        ("redirect_uri", "http://localhost:8080/auth/callback/"),
        ("redirect_uri", "http://localhost:8080/auth/callback?x=1"),
        ("redirect_uri", "http://LOCALHOST:8080/auth/callback"),
        ("redirect_uri", "http://localhost:8081/auth/callback"),
        ("redirect_uri", "https://evil.example/"),
        ("redirect_uri", ""),
        ("client_id", "other"),
        ("client_id", ""),
    ] {
        for method in [Method::GET, Method::POST] {
            let said = scene.authorize(method, &[change, ("user", "ada")]).await;
            assert_eq!((said.status, said.location), (400, None), "{change:?}");
        }
    }
    let twice = [("redirect_uri", "http://localhost:8080/auth/callback"), ("redirect_uri", "https://evil.example/")];
    assert_eq!(scene.authorize(Method::GET, &twice).await.status, 400);
}

#[tokio::test]
async fn a_bad_authorization_request_goes_back_to_the_client_with_its_error() {
    let scene = Scene::new();
    for (change, error) in [
        (("code_challenge", ""), "invalid_request"),
        (("code_challenge", "short"), "invalid_request"),
        (("code_challenge_method", ""), "invalid_request"),
        (("code_challenge_method", "plain"), "invalid_request"),
        (("response_type", "token"), "unsupported_response_type"),
        (("response_mode", "fragment"), "invalid_request"),
        (("scope", "profile"), "invalid_scope"),
        (("prompt", "none login"), "invalid_request"),
        (("prompt", "none"), "login_required"),
        (("max_age", "soon"), "invalid_request"),
        (("request", "x.y.z"), "request_not_supported"),
        (("request_uri", "https://evil.example/"), "request_uri_not_supported"),
    ] {
        let said = scene.authorize(Method::GET, &[change]).await;
        assert_eq!(said.param("error").as_deref(), Some(error), "{change:?}");
        assert_eq!((said.param("state").as_deref(), said.param("iss").as_deref()), (Some("the state"), Some(ISSUER)));
        assert_eq!(said.param("code"), None);
    }
    let back = scene.authorize(Method::POST, &[("user", "nobody")]).await;
    assert_eq!(back.param("error").as_deref(), Some("access_denied"));
}

#[tokio::test]
async fn a_wrong_client_secret_is_refused_however_it_is_sent() {
    let scene = Scene::new();
    let code = scene.code().await;
    for changes in
        [&[("client_secret", "wrong")][..], &[("client_secret", "")], &[("client_id", "other")], &[("client_id", "")]]
    {
        let said = scene.redeem(&code, changes).await;
        assert_eq!((said.status, &said.json()["error"]), (401, &json!("invalid_client")), "{changes:?}");
    }
    let params = [
        ("grant_type", "authorization_code"),
        ("code", code.as_str()),
        ("redirect_uri", "http://localhost:8080/auth/callback"),
        ("code_verifier", VERIFIER),
    ];
    let basic = |id: &str, secret: &str| format!("Basic {}", STANDARD.encode(format!("{id}:{secret}")));
    for wrong in [basic("app", "wrong"), basic("other", "s3cret%2B%2F+%26%3A"), "Basic !".to_owned()] {
        assert_eq!(scene.call(Method::POST, "/token", &params, &[("authorization", &wrong)]).await.status, 401);
    }
    let right = basic("app", "s3cret%2B%2F+%26%3A");
    let both = [&params[..], &[("client_secret", "s3cret+/ &:")]].concat();
    assert_eq!(scene.call(Method::POST, "/token", &both, &[("authorization", &right)]).await.status, 401);
    // None of these spent the code.
    assert_eq!(scene.call(Method::POST, "/token", &params, &[("authorization", &right)]).await.status, 200);
}

#[tokio::test]
async fn a_second_sign_in_is_silent_until_the_user_is_switched() {
    let scene = Scene::new();
    scene.code().await;
    assert!(scene.authorize(Method::GET, &[]).await.param("code").is_some());
    assert!(scene.authorize(Method::GET, &[("prompt", "none")]).await.param("code").is_some());
    assert_eq!(scene.authorize(Method::GET, &[("prompt", "login")]).await.status, 200);
    scene.pass(10);
    assert_eq!(scene.authorize(Method::GET, &[("max_age", "9")]).await.status, 200);
    assert!(scene.authorize(Method::GET, &[("max_age", "10")]).await.param("code").is_some());
    let switched = scene.call(Method::GET, "/switch", &[], &[]).await;
    assert_eq!(switched.location.as_deref(), Some("http://localhost:8080/auth/login"));
    assert_eq!(scene.authorize(Method::GET, &[]).await.status, 200);
}

#[tokio::test]
async fn a_form_from_another_site_or_under_another_name_is_refused() {
    let scene = Scene::new();
    for origin in ["null", "http://localhost:8080", "http://127.0.0.1:4001"] {
        let said = scene.call(Method::POST, "/authorize", &[("user", "ada")], &[("origin", origin)]).await;
        assert_eq!((said.status, said.location), (400, None), "{origin}");
    }
    assert_eq!(scene.call(Method::GET, "/jwks", &[], &[("host", "rebound.example")]).await.status, 421);
}

#[tokio::test]
async fn a_sign_out_returns_only_to_the_registered_address() {
    let scene = Scene::new();
    let tokens = scene.redeem(&scene.code().await, &[]).await.json();
    let hint = tokens["id_token"].as_str().unwrap();
    let registered = ("post_logout_redirect_uri", "http://localhost:8080/auth/signed-out");
    for params in [
        &[("id_token_hint", hint), ("post_logout_redirect_uri", "https://evil.example/")][..],
        &[("id_token_hint", hint), ("post_logout_redirect_uri", "http://localhost:8080/auth/signed-out/")],
        &[registered],
        &[registered, ("client_id", "other")],
        &[registered, ("id_token_hint", &format!("{hint}x"))],
    ] {
        let said = scene.call(Method::GET, "/end_session", params, &[]).await;
        assert_eq!((said.status, said.location), (400, None), "{params:?}");
    }
    // Without a hint the person is asked, and is still signed in until the answer.
    let asked = scene.call(Method::GET, "/end_session", &[registered, ("client_id", "app")], &[]).await;
    assert!(asked.status == 200 && asked.body.contains(r#"name="confirm""#), "{asked:?}");
    assert!(scene.authorize(Method::GET, &[]).await.param("code").is_some());

    scene.pass(3600);
    let params = [registered, ("id_token_hint", hint), ("state", "a b")];
    let said = scene.call(Method::GET, "/end_session", &params, &[]).await;
    assert_eq!(said.location.as_deref(), Some("http://localhost:8080/auth/signed-out?state=a+b"));
    assert_eq!(scene.authorize(Method::GET, &[]).await.status, 200);
}

#[tokio::test]
async fn what_a_request_says_is_escaped_in_the_form() {
    let scene = Scene::new();
    let form = scene.authorize(Method::GET, &[("nonce", r#""><script>alert(1)</script>"#)]).await;
    assert!(!form.body.contains("<script>alert") && form.body.contains("&lt;script&gt;alert"), "{form:?}");
}
