//! A provider against a small server on loopback that can be told to misbehave.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::Request;
use serde_json::json;

use super::*;
use crate::authn::oidc::access_token::AccessTokens;
use crate::authn::oidc::algorithms::AnswerAlgorithms;
use crate::authn::oidc::ask::Ask;
use crate::authn::oidc::authorization::AuthorizationRequest;
use crate::authn::oidc::decryption::Decryption;
use crate::authn::oidc::demands::Demands;
use crate::authn::oidc::known::Trouble;
use crate::authn::oidc::response::{ResponseMode, ResponseType};
use crate::authn::oidc::security::Security;
use crate::authn::oidc::settings::Credentials;
use crate::authn::oidc::static_metadata::StaticMetadata;
use crate::authn::oidc::test_keys::{TestKey, hs256, key_set};
use crate::authn::oidc::wish::Wish;
use crate::clock::{Clock, UnixTime};
use crate::provider_http;
use crate::provider_http::test_server::{Answer, TestServer, answer, json};

pub(in super::super) fn settings(issuer: &str) -> Settings {
    Settings {
        id: "default".to_owned(),
        name: "default".to_owned(),
        logo: None,
        email_domains: Vec::new(),
        http: provider_http::Settings::default(),
        issuer: issuer.to_owned(),
        tenants: None,
        backchannel_url: None,
        metadata: StaticMetadata::default(),
        credentials: Credentials {
            client_id: "app".to_owned(),
            client_secret: Some(SecretString::new("the client's secret, which is long enough".to_owned())),
        },
        registration: None,
        request_objects_at: None,
        security: Security::default(),
        access_tokens: AccessTokens::default(),
        redirect_uri: Url::parse("https://app.example/auth/callback").unwrap(),
        scopes: vec!["openid".to_owned(), "email".to_owned()],
        response_type: ResponseType::Code,
        response_mode: ResponseMode::Query,
        authorization_params: Vec::new(),
        logout_hint_claim: None,
        logout_params: Vec::new(),
        ask: Ask::default(),
        demands: Demands::default(),
        clock_skew: Duration::from_secs(30),
        trusted_audiences: Vec::new(),
        signing_algs: Vec::new(),
        answer_algs: AnswerAlgorithms::default(),
        decryption: Decryption::default(),
        userinfo: true,
        userinfo_required: false,
        allow_insecure_http: false,
        revoke_at_sign_out: true,
        post_logout_redirect_uri: None,
        refresh_interval: Duration::from_secs(900),
        key_refetch_interval: Duration::from_secs(30),
        stale_keys: Duration::from_secs(86_400),
        max_token_calls: 64,
        token_queue_timeout: Duration::from_secs(5),
        insecure_password_grant: false,
    }
}

const NOW: u64 = 1_700_000_000;

#[derive(Debug)]
struct TestClock(AtomicU64);

impl Clock for TestClock {
    fn now(&self) -> UnixTime {
        UnixTime(self.0.load(Ordering::SeqCst))
    }
}

type Respond = Box<dyn Fn(&Request<Bytes>) -> Answer + Send>;

/// What the server answers and what it was asked.
#[derive(Default)]
struct Script {
    keys: Vec<Value>,
    discovery: Option<fn() -> Answer>,
    jwks: Option<fn() -> Answer>,
    userinfo: Option<Respond>,
    asked: Vec<String>,
}

struct Stage {
    provider: Arc<Provider>,
    script: Arc<Mutex<Script>>,
    clock: Arc<TestClock>,
    server: TestServer,
}

impl Stage {
    /// The provider is not asked anything yet.
    async fn new(keys: Vec<Value>, change: impl FnOnce(&mut Settings)) -> Self {
        let script = Arc::new(Mutex::new(Script { keys, ..Script::default() }));
        let told = Arc::clone(&script);
        let server = TestServer::start(move |request| serve(&mut told.lock().unwrap(), &request)).await;
        let mut settings = settings(&server.url(""));
        change(&mut settings);
        settings.http.timeout = Duration::from_secs(5);
        let clock = Arc::new(TestClock(AtomicU64::new(NOW)));
        let provider = Provider::new(settings, Handle::current(), Arc::clone(&clock) as SharedClock).unwrap();
        Self { provider, script, clock, server }
    }

    /// Runs until the provider is available.
    async fn available(keys: Vec<Value>, change: impl FnOnce(&mut Settings)) -> Self {
        let stage = Self::new(keys, change).await;
        stage.run_until(|stage| stage.provider.is_ready()).await;
        stage
    }

    async fn run_until(&self, done: impl Fn(&Self) -> bool) {
        let run = tokio::spawn(Arc::clone(&self.provider).run());
        for _ in 0..1000 {
            if done(self) {
                run.abort();
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("it did not come about");
    }

    fn asked(&self, path: &str) -> usize {
        self.script.lock().unwrap().asked.iter().filter(|asked| *asked == path).count()
    }

    fn claims(&self) -> Value {
        let now = self.clock.now().0;
        json!({
            "iss": self.server.url(""), "aud": "app", "sub": "ada", "nonce": "nonce", "iat": now, "exp": now + 300
        })
    }

    fn token(&self, key: &TestKey, kid: &str) -> String {
        key.sign(Algorithm::RS256, &json!({"alg": "RS256", "kid": kid}), &self.claims())
    }

    /// As it comes beside a code.
    fn front_token(&self, key: &TestKey, kid: &str, code: &str) -> String {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, code.as_bytes());
        let mut claims = self.claims();
        claims["c_hash"] = BASE64_URL_SAFE_NO_PAD.encode(&digest.as_ref()[..16]).into();
        key.sign(Algorithm::RS256, &json!({"alg": "RS256", "kid": kid}), &claims)
    }

    async fn verify(&self, token: &str) -> Result<VerifiedClaims, IdTokenError> {
        self.verify_with(token, None).await
    }

    /// `code`: it came beside one.
    async fn verify_with(&self, token: &str, code: Option<&str>) -> Result<VerifiedClaims, IdTokenError> {
        let wish = Wish::default();
        let in_front = code.is_some();
        let expected = Expected {
            nonce: ExpectedNonce::Sent("nonce"),
            access_token: None,
            code,
            state: None,
            in_front,
            wish: &wish,
        };
        self.provider.verify_id_token(token, expected).await
    }
}

fn asked<'a>(state: &'a str, nonce: &'a str, wish: &'a Wish) -> AuthorizationRequest<'a> {
    AuthorizationRequest { state, nonce, pkce_challenge: CHALLENGE, wish, reference: None }
}

fn serve(script: &mut Script, request: &Request<Bytes>) -> Answer {
    let path = request.uri().path().to_owned();
    let base = format!("http://{}", request.headers()["host"].to_str().unwrap());
    script.asked.push(path.clone());
    match path.as_str() {
        "/.well-known/openid-configuration" => script.discovery.map_or_else(
            || {
                json(
                    200,
                    &json!({
                        "issuer": base,
                        "authorization_endpoint": format!("{base}/authorize?tenant=1"),
                        "token_endpoint": format!("{base}/token"),
                        "jwks_uri": format!("{base}/jwks"),
                        "userinfo_endpoint": format!("{base}/userinfo"),
                        "end_session_endpoint": format!("{base}/logout?tenant=1"),
                    }),
                )
            },
            |discovery| discovery(),
        ),
        "/jwks" => script.jwks.map_or_else(|| json(200, &key_set(&script.keys)), |jwks| jwks()),
        "/userinfo" => script.userinfo.as_ref().unwrap()(request),
        "/token" => json(200, &json!({"id_token": "i", "access_token": "a", "token_type": "Bearer"})),
        _ => answer(404, "text/plain", ""),
    }
}

fn html() -> Answer {
    answer(200, "text/html", "<html>Please sign in</html>")
}

fn page_as_json() -> Answer {
    answer(200, "application/json", "<html>Please sign in</html>")
}

fn two_issuers() -> Answer {
    answer(200, "application/json", r#"{"issuer":"https://id.example","issuer":"https://stranger.example"}"#)
}

fn down() -> Answer {
    answer(503, "text/plain", "")
}

fn huge() -> Answer {
    answer(200, "application/json", vec![b' '; 5 << 20])
}

fn elsewhere() -> Answer {
    answer(302, "text/plain", "")
}

fn stranger() -> Answer {
    json(200, &json!({"issuer": "https://stranger.example"}))
}

fn no_keys() -> Answer {
    json(200, &key_set(&[json!({"kty": "oct", "k": "c2VjcmV0"})]))
}

#[tokio::test]
async fn a_sign_in_works_from_discovery_to_claims() {
    let key = TestKey::new(Algorithm::RS256);
    let stage = Stage::new(vec![key.jwk("k1")], |_| ()).await;
    assert!(!stage.provider.is_ready() && stage.provider.metadata().is_none());
    assert!(stage.provider.authorization_url(asked("s", "n", &Wish::default())).await.is_err());
    assert!(stage.provider.end_session_url(SigningOut::default()).is_none());
    assert!(matches!(stage.provider.redeem_code("c", "v").await, Err(TokenError::ProviderUnknown)));
    assert_eq!(stage.verify(&stage.token(&key, "k1")).await.unwrap_err(), IdTokenError::UnknownKey);
    let unknown = stage.provider.userinfo(&SecretString::new("a".into()), "ada").await;
    assert!(matches!(unknown, Err(UserinfoError::Http(_))));

    stage.run_until(|stage| stage.provider.is_ready()).await;
    assert!(stage.provider.last_error().is_none());
    assert_eq!(stage.provider.metadata().unwrap().standard.issuer().as_str(), stage.server.url(""));
    let tokens = stage.provider.redeem_code("c", "v").await.unwrap();
    assert_eq!(tokens.id_token.expose_secret(), "i");
    assert_eq!(stage.verify(&stage.token(&key, "k1")).await.unwrap().subject(), "ada");
    assert_eq!(stage.asked("/jwks"), 1);
}

#[tokio::test]
async fn each_misbehaviour_of_discovery_is_told_apart_and_recovered_from() {
    type Case = (fn(&mut Script), fn(&DiscoveryError) -> bool);
    let cases: [Case; 9] = [
        (|s| s.discovery = Some(html), |e| matches!(e, DiscoveryError::MediaType(_))),
        (|s| s.discovery = Some(page_as_json), |e| matches!(e, DiscoveryError::NotJson)),
        (|s| s.discovery = Some(two_issuers), |e| matches!(e, DiscoveryError::NotJson)),
        (|s| s.discovery = Some(down), |e| matches!(e, DiscoveryError::Status(503))),
        (|s| s.discovery = Some(huge), |e| matches!(e, DiscoveryError::Http(ProviderHttpError::TooLarge))),
        (|s| s.discovery = Some(elsewhere), |e| matches!(e, DiscoveryError::Http(ProviderHttpError::Redirect))),
        (|s| s.discovery = Some(stranger), |e| matches!(e, DiscoveryError::IssuerMismatch { .. })),
        (|s| s.jwks = Some(html), |e| matches!(e, DiscoveryError::Keys(super::super::jwks::JwksError::MediaType(_)))),
        (|s| s.jwks = Some(no_keys), |e| matches!(e, DiscoveryError::Keys(super::super::jwks::JwksError::Empty))),
    ];
    let key = TestKey::new(Algorithm::EdDSA);
    for (index, (misbehave, expected)) in cases.into_iter().enumerate() {
        let stage = Stage::new(vec![key.jwk("k1")], |_| ()).await;
        misbehave(&mut stage.script.lock().unwrap());
        stage.run_until(|stage| stage.provider.last_error().is_some()).await;
        let error = stage.provider.last_error().unwrap();
        assert!(expected(&error), "{index}: {error:?}");
        assert!(!error.fix().is_empty() && !stage.provider.is_ready());
        {
            let mut script = stage.script.lock().unwrap();
            (script.discovery, script.jwks) = (None, None);
        }
        stage.run_until(|stage| stage.provider.is_ready()).await;
        assert!(stage.provider.last_error().is_none());
    }
}

/// The same token from 50 people at once: who it is about, for each.
async fn spread(stage: &Arc<Stage>, token: &str) -> Vec<Result<String, IdTokenError>> {
    spread_with(stage, token, None).await
}

async fn spread_with(stage: &Arc<Stage>, token: &str, code: Option<&'static str>) -> Vec<Result<String, IdTokenError>> {
    let calls: Vec<_> = (0..50)
        .map(|_| {
            let (stage, token) = (Arc::clone(stage), token.to_owned());
            tokio::spawn(async move { stage.verify_with(&token, code).await.map(|claims| claims.subject().to_owned()) })
        })
        .collect();
    let mut outcomes = Vec::new();
    for call in calls {
        outcomes.push(call.await.unwrap());
    }
    outcomes
}

#[tokio::test]
async fn those_who_wait_for_a_fetch_share_its_result() {
    let (old, new) = (TestKey::new(Algorithm::RS256), TestKey::new(Algorithm::RS256));
    let no_interval = |settings: &mut Settings| settings.key_refetch_interval = Duration::ZERO;
    let stage = Arc::new(Stage::available(vec![old.jwk("old")], no_interval).await);
    let before = stage.asked("/jwks");
    stage.script.lock().unwrap().keys.push(new.jwk("new"));
    let outcomes = spread(&stage, &stage.token(&new, "new")).await;
    assert!(outcomes.iter().all(|outcome| outcome.as_deref() == Ok("ada")));
    assert_eq!(stage.asked("/jwks") - before, 1);
}

#[tokio::test]
async fn many_tokens_of_strangers_with_unknown_keys_cause_one_fetch_an_interval() {
    let (old, new) = (TestKey::new(Algorithm::RS256), TestKey::new(Algorithm::RS256));
    let stage = Arc::new(Stage::available(vec![old.jwk("old")], |_| ()).await);
    let before = stage.asked("/jwks");
    let rotated = stage.front_token(&new, "new", "code");
    let spread = async || spread_with(&stage, &rotated, Some("code")).await;

    // Nobody has the key: one fetch, all refused; and no further one within the interval.
    assert!(spread().await.iter().all(|outcome| *outcome == Err(IdTokenError::UnknownKey)));
    assert_eq!(stage.asked("/jwks") - before, 1);
    stage.script.lock().unwrap().keys.push(new.jwk("new"));
    assert!(spread().await.iter().all(Result::is_err));
    assert_eq!(stage.asked("/jwks") - before, 1);

    // Once the interval is over one fetch serves all who wait.
    stage.clock.0.fetch_add(30, Ordering::SeqCst);
    assert!(spread().await.iter().all(|outcome| outcome.as_deref() == Ok("ada")));
    assert_eq!(stage.asked("/jwks") - before, 2);
    assert!(stage.verify(&stage.token(&old, "old")).await.is_ok());
    assert_eq!(stage.asked("/jwks") - before, 2);
}

/// OpenID Connect Core §10.1.1: the provider may change its keys as often as it likes.
#[tokio::test]
async fn each_token_of_the_token_endpoint_has_the_keys_fetched_that_came_into_use_before_it() {
    let keys: Vec<_> = (0..4).map(|_| TestKey::new(Algorithm::RS256)).collect();
    let stage = Arc::new(Stage::available(vec![keys[0].jwk("0")], |_| ()).await);
    let before = stage.asked("/jwks");
    let token = |name: usize| stage.token(&keys[name], &name.to_string());
    for name in [1, 2] {
        stage.script.lock().unwrap().keys = vec![keys[name].jwk(&name.to_string())];
        assert!(spread(&stage, &token(name)).await.iter().all(|outcome| outcome.as_deref() == Ok("ada")));
        assert_eq!(stage.asked("/jwks") - before, name, "no pause between two changes, and one call for all who wait");
    }
    // Nor after a call that brought nothing.
    stage.script.lock().unwrap().jwks = Some(down);
    assert!(spread(&stage, &token(3)).await.iter().all(|outcome| *outcome == Err(IdTokenError::UnknownKey)));
    assert_eq!(stage.asked("/jwks") - before, 3);
    stage.script.lock().unwrap().jwks = None;
    stage.script.lock().unwrap().keys = vec![keys[3].jwk("3")];
    assert!(stage.verify(&token(3)).await.is_ok());
    assert_eq!(stage.asked("/jwks") - before, 4);
}

#[tokio::test]
async fn a_key_replaced_under_its_old_name_is_fetched() {
    let (old, new) = (TestKey::new(Algorithm::RS256), TestKey::new(Algorithm::RS256));
    let stage = Stage::available(vec![old.jwk("k1")], |_| ()).await;
    stage.script.lock().unwrap().keys = vec![new.jwk("k1")];
    assert!(stage.verify(&stage.token(&new, "k1")).await.is_ok());
    assert_eq!(stage.verify(&stage.token(&old, "k1")).await.unwrap_err(), IdTokenError::Signature);
}

#[tokio::test]
async fn a_failing_refetch_keeps_the_keys() {
    let (old, new) = (TestKey::new(Algorithm::RS256), TestKey::new(Algorithm::RS256));
    let stage = Stage::available(vec![old.jwk("old")], |_| ()).await;
    for broken in [down as fn() -> Answer, no_keys, html] {
        stage.script.lock().unwrap().jwks = Some(broken);
        stage.clock.0.fetch_add(30, Ordering::SeqCst);
        assert_eq!(stage.verify(&stage.token(&new, "new")).await.unwrap_err(), IdTokenError::UnknownKey);
        assert!(stage.verify(&stage.token(&old, "old")).await.is_ok());
    }
}

#[tokio::test]
async fn keys_that_could_not_be_fetched_are_asked_for_again_soon_and_not_by_everyone() {
    let (old, new) = (TestKey::new(Algorithm::RS256), TestKey::new(Algorithm::RS256));
    let stage = Arc::new(Stage::available(vec![old.jwk("old")], |_| ()).await);
    let before = stage.asked("/jwks");
    stage.script.lock().unwrap().jwks = Some(down);
    let rotated = stage.token(&new, "new");
    assert!(spread(&stage, &rotated).await.iter().all(|outcome| *outcome == Err(IdTokenError::UnknownKey)));
    assert_eq!(stage.asked("/jwks") - before, 1);

    stage.script.lock().unwrap().jwks = None;
    stage.script.lock().unwrap().keys.push(new.jwk("new"));
    stage.clock.0.fetch_add(2, Ordering::SeqCst);
    assert!(spread(&stage, &rotated).await.iter().all(|outcome| outcome.as_deref() == Ok("ada")));
    assert_eq!(stage.asked("/jwks") - before, 2);
}

/// Whoever sends junk through a browser, a bearer token or a logout token uses up no turn but its own.
#[tokio::test]
async fn tokens_of_strangers_keep_no_sign_in_from_its_keys() {
    let (old, new) = (TestKey::new(Algorithm::RS256), TestKey::new(Algorithm::RS256));
    let stage = Stage::available(vec![old.jwk("old")], |_| ()).await;
    let before = stage.asked("/jwks");
    let junk = stage.token(&new, "junk");
    for _ in 0..2 {
        assert_eq!(stage.verify_with(&junk, Some("code")).await.unwrap_err(), IdTokenError::UnknownKey);
        assert!(stage.provider.verify_response(&junk).await.is_err());
        let access = SecretString::new(junk.clone());
        assert!(stage.provider.verify_access_token(&access, &["app".to_owned()]).await.is_err());
    }
    assert_eq!(stage.asked("/jwks") - before, 2, "one for what came through a browser, one for access tokens");
    stage.script.lock().unwrap().keys.push(new.jwk("new"));
    let claims = json!({
        "iss": stage.server.url(""), "aud": "app", "sub": "ada", "iat": stage.clock.now().0,
        "exp": stage.clock.now().0 + 120, "jti": "1",
        "events": { "http://schemas.openid.net/event/backchannel-logout": {} }
    });
    let logout = new.sign(Algorithm::RS256, &json!({"alg": "RS256", "kid": "new"}), &claims);
    let logout = UnprovenLogout::read(&logout).unwrap();
    assert_eq!(
        stage.provider.verify_logout_token(&logout, Duration::from_secs(60)).await.unwrap().subject.as_deref(),
        Some("ada")
    );
    assert_eq!(stage.asked("/jwks") - before, 3);
    let third = TestKey::new(Algorithm::RS256);
    stage.script.lock().unwrap().keys.push(third.jwk("third"));
    assert!(stage.verify(&stage.token(&third, "third")).await.is_ok());
    assert_eq!(stage.asked("/jwks") - before, 4);
}

#[tokio::test]
async fn a_clock_set_back_does_not_put_a_refetch_off() {
    let (old, new) = (TestKey::new(Algorithm::RS256), TestKey::new(Algorithm::RS256));
    let stage = Stage::available(vec![old.jwk("old")], |_| ()).await;
    let verify = async || stage.verify_with(&stage.front_token(&new, "new", "code"), Some("code")).await;
    assert_eq!(verify().await.unwrap_err(), IdTokenError::UnknownKey);
    stage.script.lock().unwrap().keys.push(new.jwk("new"));
    stage.clock.0.fetch_sub(3600, Ordering::SeqCst);
    assert!(verify().await.is_ok());
}

#[tokio::test]
async fn stale_keys_are_used_for_a_bounded_time() {
    let key = TestKey::new(Algorithm::RS256);
    let stage = Stage::available(vec![key.jwk("k1")], |settings| settings.refresh_interval = Duration::ZERO).await;
    {
        let mut script = stage.script.lock().unwrap();
        script.discovery = Some(down);
        script.jwks = Some(down);
    }
    stage.run_until(|stage| stage.provider.last_error().is_some()).await;
    // A refresh failed: still in use.
    assert!(stage.provider.is_ready());
    stage.clock.0.fetch_add(86_400, Ordering::SeqCst);
    assert!(stage.verify(&stage.token(&key, "k1")).await.is_ok());
    stage.clock.0.fetch_add(1, Ordering::SeqCst);
    assert!(!stage.provider.is_ready() && stage.provider.metadata().is_none());
    assert_eq!(stage.verify(&stage.token(&key, "k1")).await.unwrap_err(), IdTokenError::UnknownKey);
    // The next token that comes after the provider is back finds fresh keys.
    stage.script.lock().unwrap().jwks = None;
    stage.clock.0.fetch_add(30, Ordering::SeqCst);
    assert!(stage.verify(&stage.token(&key, "k1")).await.is_ok());
    assert!(stage.provider.is_ready());
}

#[tokio::test]
async fn algorithms_follow_settings_and_metadata() {
    use Algorithm::*;
    let mut settings = settings("https://id.example");
    assert_eq!(settings.allowed_algorithms(&[]), [RS256]);
    assert_eq!(settings.allowed_algorithms(&[HS256]), [RS256]);
    assert_eq!(settings.allowed_algorithms(&[HS256, ES512, PS256]), [ES512, PS256]);
    settings.signing_algs = vec![ES256];
    assert_eq!(settings.allowed_algorithms(&[RS256]), [ES256]);
    settings.signing_algs = vec![HS256, ES256];
    assert_eq!(settings.allowed_algorithms(&[RS256]), [ES256]);
    settings.signing_algs = vec![HS256];
    assert_eq!(settings.allowed_algorithms(&[RS256]), [HS256]);
    settings.credentials.client_secret = None;
    assert_eq!(settings.allowed_algorithms(&[RS256]), []);
}

#[tokio::test]
async fn a_client_registered_for_hs256_needs_no_keys() {
    let stage = Stage::available(Vec::new(), |settings| settings.signing_algs = vec![Algorithm::HS256]).await;
    let header = json!({"alg": "HS256"});
    let good = hs256(b"the client's secret, which is long enough", &header, &stage.claims());
    assert!(stage.verify(&good).await.is_ok());
    let forged = hs256(b"guess", &header, &stage.claims());
    assert_eq!(stage.verify(&forged).await.unwrap_err(), IdTokenError::Signature);
    assert_eq!(stage.asked("/jwks"), 0);
}

#[test]
fn hmac_is_never_taken_from_the_metadata() {
    let offered = [&Algorithm::SYMMETRIC[..], &[Algorithm::ES256]].concat();
    let mut settings = settings("https://id.example");
    assert_eq!(settings.allowed_algorithms(&offered), [Algorithm::ES256]);
    assert_eq!(settings.allowed_algorithms(&Algorithm::SYMMETRIC), [Algorithm::RS256]);
    for algorithm in Algorithm::SYMMETRIC {
        settings.signing_algs = vec![algorithm];
        assert_eq!(settings.allowed_algorithms(&offered), [algorithm]);
    }
}

#[tokio::test]
async fn token_calls_queue_for_a_bounded_time() {
    let stage = Stage::available(vec![TestKey::new(Algorithm::EdDSA).jwk("k")], |settings| {
        settings.max_token_calls = 1;
        settings.token_queue_timeout = Duration::from_millis(50);
    })
    .await;
    let turn = Arc::clone(&stage.provider.token_calls).acquire_owned().await.unwrap();
    assert!(matches!(stage.provider.redeem_code("c", "v").await, Err(TokenError::Busy)));
    assert_eq!(stage.asked("/token"), 0);
    drop(turn);
    for _ in 0..3 {
        assert!(stage.provider.redeem_code("c", "v").await.is_ok());
    }
}

/// RFC 7636 appendix B.
const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";

#[test]
fn the_verifier_of_rfc_7636_appendix_b_has_its_challenge() {
    use openidconnect::{PkceCodeChallenge, PkceCodeVerifier};
    const OCTETS: [u8; 32] = [
        116, 24, 223, 180, 151, 153, 224, 37, 79, 250, 96, 125, 216, 173, 187, 186, 22, 212, 37, 77, 105, 214, 191,
        240, 91, 88, 5, 88, 83, 132, 141, 121,
    ];
    let verifier = BASE64_URL_SAFE_NO_PAD.encode(OCTETS);
    assert_eq!(verifier, "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk");
    let challenge = PkceCodeChallenge::from_code_verifier_sha256(&PkceCodeVerifier::new(verifier));
    assert_eq!((challenge.as_str(), challenge.method().as_str()), (CHALLENGE, "S256"));
}

#[tokio::test]
async fn the_authorization_request_has_each_parameter_once() {
    let stage = Stage::available(vec![TestKey::new(Algorithm::EdDSA).jwk("k")], |settings| {
        settings.authorization_params =
            [("audience", "api"), ("state", "evil"), ("code_challenge_method", "plain"), ("nonce", "evil")]
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .to_vec();
    })
    .await;
    let url = stage.provider.authorization_url(asked("st&te", "nonce", &Wish::default())).await.unwrap();
    assert_eq!(
        url.query().unwrap(),
        "tenant=1&response_type=code&client_id=app&state=st%26te\
         &redirect_uri=https%3A%2F%2Fapp.example%2Fauth%2Fcallback&scope=openid+email\
         &code_challenge=E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM&code_challenge_method=S256\
         &audience=api&nonce=nonce"
    );
    assert_eq!(url.path(), "/authorize");
}

#[tokio::test]
async fn the_logout_request_fits_into_a_url() {
    let key = TestKey::new(Algorithm::EdDSA).jwk("k");
    let plain = Stage::available(vec![key.clone()], |_| ()).await;
    let query = |url: Option<Url>| url.unwrap().query().unwrap().to_owned();
    // Without an address to return to, `state` would go nowhere.
    assert_eq!(query(plain.provider.end_session_url(leaving(Some("h")))), "tenant=1&id_token_hint=h&client_id=app");
    let back = Stage::available(vec![key], |settings| {
        settings.post_logout_redirect_uri = Some(Url::parse("https://app.example/bye").unwrap());
    })
    .await;
    let rest = "client_id=app&post_logout_redirect_uri=https%3A%2F%2Fapp.example%2Fbye&state=s";
    let provider = &back.provider;
    assert_eq!(query(provider.end_session_url(leaving(Some("h")))), format!("tenant=1&id_token_hint=h&{rest}"));
    assert_eq!(query(provider.end_session_url(leaving(None))), format!("tenant=1&{rest}"));
    let big = "x".repeat(4096);
    assert_eq!(query(provider.end_session_url(leaving(Some(&big)))), format!("tenant=1&{rest}"));
}

#[tokio::test]
async fn userinfo_is_believed_only_about_the_same_subject() {
    let key = TestKey::new(Algorithm::RS256);
    let stranger = TestKey::new(Algorithm::RS256);
    let stage = Stage::available(vec![key.jwk("k1")], |_| ()).await;
    let issuer = stage.server.url("");
    let signed = |key: &TestKey, claims: Value| {
        let token = key.sign(Algorithm::RS256, &json!({"alg": "RS256", "kid": "k1"}), &claims);
        ("application/jwt", token)
    };
    let unsigned = |claims: Value| ("application/json; charset=utf-8", claims.to_string());
    let ask = async |(media_type, body): (&'static str, String)| {
        stage.script.lock().unwrap().userinfo = Some(Box::new(move |request| {
            assert_eq!(request.headers()["authorization"], "Bearer access");
            answer(200, media_type, body.clone())
        }));
        stage.provider.userinfo(&SecretString::new("access".into()), "ada").await
    };

    let good = [
        unsigned(json!({"sub": "ada", "email": "ada@example.org"})),
        signed(&key, json!({"iss": issuer, "aud": "app", "sub": "ada", "email": "ada@example.org"})),
        signed(&key, json!({"iss": issuer, "aud": ["app", "other"], "sub": "ada", "email": "ada@example.org"})),
    ];
    for case in good {
        assert_eq!(ask(case).await.unwrap().unwrap()["email"], "ada@example.org");
    }
    let others = [
        unsigned(json!({"sub": "bob"})),
        unsigned(json!({"sub": "ada "})),
        unsigned(json!({"sub": ["ada"]})),
        unsigned(json!({"email": "ada@example.org"})),
        signed(&key, json!({"sub": "bob", "iss": issuer, "aud": "app"})),
    ];
    for case in others {
        let text = case.1.clone();
        assert!(matches!(ask(case).await, Err(UserinfoError::SubjectMismatch)), "{text}");
    }
    let malformed = [
        unsigned(json!([{"sub": "ada"}])),
        unsigned(json!("ada")),
        ("application/json", r#"{"sub":"bob","sub":"ada"}"#.to_owned()),
        ("text/html", r#"{"sub":"ada"}"#.to_owned()),
        ("application/json", signed(&key, json!({"sub": "ada"})).1),
    ];
    for case in malformed {
        let text = case.1.clone();
        let outcome = ask(case).await;
        assert!(matches!(outcome, Err(UserinfoError::Malformed | UserinfoError::MediaType(_))), "{text}");
    }
    let ours = |more: Value| {
        let mut claims = json!({"sub": "ada", "iss": issuer, "aud": "app"});
        claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        claims
    };
    let refused = [
        ("application/jwt", r#"{"sub":"ada"}"#.to_owned()),
        signed(&stranger, ours(json!({}))),
        signed(&key, json!({"sub": "ada"})),
        signed(&key, json!({"sub": "ada", "aud": "app"})),
        signed(&key, json!({"sub": "ada", "iss": issuer})),
        signed(&key, ours(json!({"iss": "https://stranger.example"}))),
        signed(&key, ours(json!({"aud": "other"}))),
        signed(&key, ours(json!({"exp": NOW - 30}))),
        signed(&key, ours(json!({"exp": 1e300}))),
        signed(&key, ours(json!({"nbf": NOW + 31}))),
    ];
    for case in refused {
        let text = case.1.clone();
        assert!(matches!(ask(case).await, Err(UserinfoError::Signed(_))), "{text}");
    }
    stage.script.lock().unwrap().userinfo = Some(Box::new(|_| answer(401, "text/plain", "")));
    let refused = stage.provider.userinfo(&SecretString::new("access".into()), "ada").await;
    assert!(matches!(refused, Err(UserinfoError::Status(401))));
    let bad_header = stage.provider.userinfo(&SecretString::new("a\nb".into()), "ada").await;
    assert!(matches!(bad_header, Err(UserinfoError::Malformed)));
}

#[tokio::test]
async fn userinfo_switched_off_asks_nobody() {
    let key = TestKey::new(Algorithm::EdDSA).jwk("k");
    let stage = Stage::available(vec![key], |settings| settings.userinfo = false).await;
    assert!(stage.provider.userinfo(&SecretString::new("a".into()), "ada").await.unwrap().is_none());
    assert_eq!(stage.asked("/userinfo"), 0);
}

#[tokio::test]
async fn each_change_of_state_is_logged_once() {
    let log = Log::default();
    // With a single subscriber in the process, tracing would judge a log line by the thread that comes to it first,
    // which may be another test's without any; with two it asks both.
    let _second = tracing::Dispatch::new(tracing_subscriber::fmt().with_writer(std::io::sink).finish());
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let key = TestKey::new(Algorithm::EdDSA).jwk("k");
    let stage = Stage::new(vec![key], |settings| settings.refresh_interval = Duration::ZERO).await;
    let (knowledge, script) = (&stage.provider.knowledge, &stage.script);
    let trouble = tokio::sync::Mutex::new(Trouble::default());
    let turn = async |discovery: Option<fn() -> Answer>, times| {
        script.lock().unwrap().discovery = discovery;
        for _ in 0..times {
            knowledge.keep_fresh_once(&mut *trouble.lock().await).await;
        }
    };
    turn(Some(down), 3).await;
    turn(Some(stranger), 3).await;
    turn(None, 3).await;
    turn(Some(html), 3).await;
    turn(None, 3).await;
    let text = log.text();
    let count = |needle: &str| text.matches(needle).count();
    assert_eq!(count("nobody can sign in"), 2, "{text}");
    assert_eq!(count("status 503"), 1, "{text}");
    assert_eq!(count("https://stranger.example"), 1, "{text}");
    assert_eq!(count("what was known before is used on"), 1, "{text}");
    assert_eq!(count("the provider is available again"), 1, "{text}");
    assert_eq!(count("the provider is available issuer="), 1, "{text}");
}

/// What was logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_provider_can_be_shared_and_its_futures_sent() {
    fn send<T: Send>(_: &T) {}
    fn shared<T: Send + Sync>() {}
    shared::<Provider>();
    #[allow(dead_code, reason = "compiling is the test")]
    fn futures(provider: &Arc<Provider>, expected: Expected<'_>, token: &SecretString) {
        send(&Arc::clone(provider).run());
        send(&provider.redeem_code("", ""));
        send(&provider.verify_id_token("", expected));
        send(&provider.userinfo(token, ""));
    }
}

fn leaving(id_token: Option<&str>) -> SigningOut<'_> {
    SigningOut { id_token, state: Some("s"), ..SigningOut::default() }
}
