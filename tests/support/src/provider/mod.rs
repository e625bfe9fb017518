//! An OpenID provider that approves everybody at once and misbehaves on demand.

mod by_reference;
mod clients;
mod endpoints;
mod faults;
mod grants;
mod introspection;
mod logout;
mod refresh;
mod registration;
mod response;
mod tokens;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use http::{HeaderMap, Method};
use serde_json::{Map, Value, json};

pub use clients::{ClientAuth, Demands};
pub use faults::{
    AuthorizeFault, DiscoveryFault, EncryptionFault, Endpoint, Faults, IdTokenFault, IntrospectionFault, JwksFault,
    PushFault, ResponseFault, TokenFault, UserinfoFault,
};
pub use registration::RegistrationRules;

use crate::clock::TestClock;
use crate::encryption::EncryptionKey;
use crate::forge::{Alg, SigningKey};
use crate::listener::Listener;

/// The client that the fake provider knows.
pub(crate) const CLIENT_ID: &str = "vestibule-test";
/// Its secret: with characters that form encoding changes, as RFC 6749 §2.3.1 wants it encoded even in Basic.
pub(crate) const CLIENT_SECRET: &str = "s3cret+with/odd:chars=& of the test client";

/// One request as it reached the provider.
#[derive(Debug, Clone)]
pub struct ProviderRequest {
    /// Which endpoint.
    pub endpoint: Endpoint,
    /// The method.
    pub method: Method,
    /// The request target.
    pub target: String,
    /// The header fields.
    pub headers: HeaderMap,
    /// The body, lossily decoded.
    pub body: String,
}

impl ProviderRequest {
    /// The parameters of the query.
    pub fn query(&self) -> Vec<(String, String)> {
        let query = self.target.split_once('?').map_or("", |(_, query)| query);
        url::form_urlencoded::parse(query.as_bytes()).into_owned().collect()
    }

    /// One parameter of the query.
    pub fn query_value(&self, name: &str) -> Option<String> {
        self.query().into_iter().find(|(key, _)| key == name).map(|(_, value)| value)
    }

    /// The parameters of a form body.
    pub fn form(&self) -> Vec<(String, String)> {
        url::form_urlencoded::parse(self.body.as_bytes()).into_owned().collect()
    }
}

/// One call of the token endpoint and what became of it.
#[derive(Debug, Clone)]
pub struct TokenCall {
    /// The form.
    pub form: Vec<(String, String)>,
    /// Whether tokens were given.
    pub accepted: bool,
    /// Why not, when not.
    pub refusal: Option<&'static str>,
}

/// The provider; gone when dropped.
#[derive(Debug)]
pub struct FakeProvider {
    listener: Listener,
    shared: Shared,
}

pub(crate) type Shared = Arc<Mutex<State>>;

/// Everything the endpoints know.
#[derive(Debug)]
pub(crate) struct State {
    issuer: String,
    /// The one client it knows: the last that has registered itself.
    client_id: String,
    client_secret: String,
    /// Over what introspection would say; `null` takes a member out.
    introspection: Map<String, Value>,
    registration: RegistrationRules,
    registration_token: String,
    clock: TestClock,
    faults: Faults,
    demands: Demands,
    pushed: BTreeMap<String, clients::Fields>,
    /// Every `jti` so far.
    seen: Vec<String>,
    user: Map<String, Value>,
    by_hint: bool,
    userinfo_only: Vec<String>,
    keys: Vec<Arc<SigningKey>>,
    grants: BTreeMap<String, Grant>,
    /// Access tokens that came with something spoiled, by code.
    spoiled: BTreeMap<String, String>,
    /// Access tokens that came with an ID token which is never good, and how often each was shown here.
    forbidden: BTreeMap<String, usize>,
    access_tokens: BTreeMap<String, Map<String, Value>>,
    /// The keys that access tokens are bound to.
    bound: BTreeMap<String, String>,
    devices: BTreeMap<String, grants::Device>,
    device_members: Map<String, Value>,
    /// By the person's name.
    passwords: BTreeMap<String, String>,
    keeps_refresh_tokens: bool,
    token_life: Option<u64>,
    token_padding: usize,
    refreshable: BTreeMap<String, refresh::Refreshable>,
    /// How often a refresh token came that had been used before.
    reuse_alarms: usize,
    /// Whether somebody is signed in there, for `prompt=none`.
    knows_the_person: bool,
    offered_acr: Vec<String>,
    encryption: Option<Arc<EncryptionKey>>,
    userinfo_key: Option<Arc<SigningKey>>,
    key_set_key: Option<SigningKey>,
    jwt_claims: Option<Value>,
    metadata: Map<String, Value>,
    requests: Vec<ProviderRequest>,
    token_calls: Vec<TokenCall>,
    id_tokens: Vec<String>,
    issued_tokens: Vec<String>,
    /// When each access token was made.
    issued_at: BTreeMap<String, Instant>,
    revoked_tokens: Vec<String>,
}

/// What a code stands for.
#[derive(Debug, Clone)]
struct Grant {
    redirect_uri: String,
    challenge: Option<String>,
    nonce: Option<String>,
    jkt: Option<String>,
    user: Map<String, Value>,
    /// What was asked for, as far as it is offered.
    acr: Option<String>,
    /// In seconds since the epoch.
    authenticated_at: u64,
    redeemed: bool,
}

impl FakeProvider {
    /// Serves on a free port of 127.0.0.1; its tokens are stamped by `clock`.
    pub fn start(clock: TestClock) -> Self {
        let provider = Self::start_down(clock);
        provider.bring_back();
        provider
    }

    /// Has an address but refuses connections until [`FakeProvider::bring_back`].
    pub fn start_down(clock: TestClock) -> Self {
        crate::trace::secret("client secret", CLIENT_SECRET);
        let listener = Listener::reserve();
        let state = State {
            issuer: format!("http://{}", listener.address()),
            client_id: CLIENT_ID.to_owned(),
            client_secret: CLIENT_SECRET.to_owned(),
            introspection: Map::new(),
            registration: RegistrationRules::default(),
            registration_token: String::new(),
            clock,
            faults: Faults::default(),
            demands: Demands::default(),
            pushed: BTreeMap::new(),
            seen: Vec::new(),
            user: ada(),
            by_hint: false,
            userinfo_only: Vec::new(),
            keys: vec![default_key()],
            grants: BTreeMap::new(),
            spoiled: BTreeMap::new(),
            forbidden: BTreeMap::new(),
            access_tokens: BTreeMap::new(),
            bound: BTreeMap::new(),
            devices: BTreeMap::new(),
            device_members: Map::new(),
            passwords: BTreeMap::new(),
            keeps_refresh_tokens: false,
            token_life: Some(300),
            token_padding: 0,
            refreshable: BTreeMap::new(),
            reuse_alarms: 0,
            knows_the_person: true,
            offered_acr: Vec::new(),
            encryption: None,
            userinfo_key: None,
            key_set_key: None,
            jwt_claims: None,
            metadata: Map::new(),
            requests: Vec::new(),
            token_calls: Vec::new(),
            id_tokens: Vec::new(),
            issued_tokens: Vec::new(),
            issued_at: BTreeMap::new(),
            revoked_tokens: Vec::new(),
        };
        Self { listener, shared: Arc::new(Mutex::new(state)) }
    }

    /// The issuer.
    pub fn issuer(&self) -> String {
        self.state().issuer.clone()
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.listener.address()
    }

    /// How many connections were made to it so far.
    pub fn connections(&self) -> usize {
        self.listener.accepted()
    }

    /// The id of the one client it knows.
    pub fn client_id(&self) -> &'static str {
        CLIENT_ID
    }

    /// The secret of that client.
    pub fn client_secret(&self) -> &'static str {
        CLIENT_SECRET
    }

    /// Who signs in from now on. `claims` replaces everything, `sub` included.
    pub fn set_user(&self, claims: Value) {
        let Value::Object(claims) = claims else { panic!("claims are an object") };
        self.state().user = claims;
    }

    /// From now on `login_hint` says who signs in: it is their `sub`.
    pub fn know_people_by_hint(&self) {
        self.state().by_hint = true;
    }

    /// Adds or replaces one claim of whoever signs in from now on.
    pub fn set_claim(&self, name: &str, value: Value) {
        self.state().user.insert(name.to_owned(), value);
    }

    /// These claims are told by userinfo only and left out of ID tokens.
    pub fn only_in_userinfo(&self, claims: &[&str]) {
        self.state().userinfo_only = claims.iter().map(|&claim| claim.to_owned()).collect();
    }

    /// People can sign in in these ways: the first of them that `acr_values` names becomes the `acr`.
    pub fn offer_acr(&self, values: &[&str]) {
        self.state().offered_acr = values.iter().map(|&value| value.to_owned()).collect();
    }

    /// Puts a claim into ID tokens in the place of what belongs there; `null` leaves it out.
    pub fn falsify(&self, name: &str, value: Value) {
        self.faults(|faults| drop(faults.id_token_claims.insert(name.to_owned(), value)));
    }

    /// ID tokens and userinfo are encrypted to this key from now on.
    pub fn encrypt_to(&self, key: EncryptionKey) {
        self.state().encryption = Some(Arc::new(key));
    }

    /// Userinfo is signed from now on.
    pub fn sign_userinfo(&self) {
        let mut state = self.state();
        state.userinfo_key = Some(state.keys[0].clone());
    }

    /// Userinfo is signed from now on with a key that is published with this call.
    pub fn sign_userinfo_with(&self, alg: Alg) {
        let key = Arc::new(SigningKey::generate(alg));
        let mut state = self.state();
        state.userinfo_key = Some(key.clone());
        state.keys.push(key);
    }

    /// Publishes its key set signed by `key` as well.
    pub fn sign_key_set(&self, key: SigningKey) {
        let mut state = self.state();
        let uri = format!("{}/keys.jwt", state.issuer);
        state.metadata.insert("signed_jwks_uri".to_owned(), json!(uri));
        state.key_set_key = Some(key);
    }

    /// What is encrypted to the client's key.
    ///
    /// # Panics
    /// Without [`FakeProvider::encrypt_to`].
    pub fn encrypt(&self, token: &str) -> String {
        let key = self.state().encryption.clone();
        key.expect("the client's key").encrypt(token, "RSA-OAEP-256")
    }

    /// Makes access and refresh tokens longer by `bytes` incompressible characters each.
    pub fn pad_tokens(&self, bytes: usize) {
        self.state().token_padding = bytes;
    }

    /// Access tokens are JWTs with these claims from now on, and refresh tokens are JWTs too.
    pub fn issue_jwts(&self, access_token_claims: Value) {
        self.state().jwt_claims = Some(access_token_claims);
    }

    /// Puts a member into the discovery document; `null` takes it out.
    pub fn set_metadata(&self, name: &str, value: Value) {
        self.state().metadata.insert(name.to_owned(), value);
    }

    /// Changes what it demands of its client.
    pub fn demand(&self, change: impl FnOnce(&mut Demands)) {
        change(&mut self.state().demands);
    }

    /// Changes what it does wrong.
    pub fn faults(&self, change: impl FnOnce(&mut Faults)) {
        change(&mut self.state().faults);
    }

    /// Good answers of `endpoint` come with another `Content-Type`; empty: with none.
    pub fn answer_as(&self, endpoint: Endpoint, content_type: &'static str) {
        self.faults(|faults| {
            faults.content_type.insert(endpoint, content_type);
        });
    }

    /// Does everything right again.
    pub fn heal(&self) {
        self.faults(|faults| *faults = Faults::default());
    }

    /// Makes `endpoint` take `delay` before it answers.
    pub fn slow_down(&self, endpoint: Endpoint, delay: Duration) {
        self.faults(|faults| {
            faults.delay.insert(endpoint, delay);
        });
    }

    /// Its keys, as its key set would show them.
    pub fn key_set(&self) -> Value {
        let state = self.state();
        json!({ "keys": state.keys.iter().map(|key| key.jwk()).collect::<Vec<_>>() })
    }

    /// Signs with a fresh key of `alg` from now on and publishes only that one.
    pub fn sign_with(&self, alg: Alg) {
        self.state().keys = vec![Arc::new(SigningKey::generate(alg))];
    }

    /// Takes a fresh key of the same algorithm into use; the old ones are gone from the key set. Returns its id.
    pub fn rotate_keys(&self) -> String {
        let alg = self.state().keys[0].alg();
        let key = SigningKey::generate(alg);
        let kid = key.kid().to_owned();
        self.state().keys = vec![Arc::new(key)];
        kid
    }

    /// Publishes one more key, signing with the one before as before.
    pub fn publish_another_key(&self) {
        let key = Arc::new(SigningKey::generate(Alg::Es256));
        self.state().keys.push(key);
    }

    /// Refuses connections from now on, and cuts those that are open.
    pub fn take_down(&self) {
        self.listener.refuse();
    }

    /// Serves on the same port as before.
    pub fn bring_back(&self) {
        let shared = self.shared.clone();
        self.listener.serve(move |request, _| endpoints::answer(request, shared.clone()));
    }

    /// Every request so far.
    pub fn requests(&self) -> Vec<ProviderRequest> {
        self.state().requests.clone()
    }

    /// Every request of one endpoint so far.
    pub fn requests_of(&self, endpoint: Endpoint) -> Vec<ProviderRequest> {
        self.requests().into_iter().filter(|request| request.endpoint == endpoint).collect()
    }

    /// How often an endpoint was asked.
    pub fn count(&self, endpoint: Endpoint) -> usize {
        self.state().requests.iter().filter(|request| request.endpoint == endpoint).count()
    }

    /// Every call of the token endpoint so far.
    pub fn token_calls(&self) -> Vec<TokenCall> {
        self.state().token_calls.clone()
    }

    /// How often userinfo was asked with the access token that came for `code`, if that came with something spoiled.
    pub(crate) fn uses_of_spoiled(&self, code: &str) -> usize {
        let state = self.state();
        let Some(token) = state.spoiled.get(code) else { return 0 };
        let shows = |request: &&ProviderRequest| {
            let shown = request.headers.get(http::header::AUTHORIZATION).and_then(|value| value.to_str().ok());
            request.endpoint == Endpoint::Userinfo && shown.is_some_and(|shown| shown.ends_with(token.as_str()))
        };
        state.requests.iter().filter(shows).count()
    }

    /// The access tokens that came with an ID token which is never good, and how often userinfo was asked with each.
    pub(crate) fn forbidden_tokens(&self) -> BTreeMap<String, usize> {
        self.state().forbidden.clone()
    }

    /// Every ID token given out so far.
    pub fn id_tokens(&self) -> Vec<String> {
        self.state().id_tokens.clone()
    }

    /// Every access and refresh token given out so far.
    pub fn issued_tokens(&self) -> Vec<String> {
        self.state().issued_tokens.clone()
    }

    /// When it made this access token; `None` for one of somebody else's.
    pub fn issued_at(&self, access_token: &str) -> Option<Instant> {
        self.state().issued_at.get(access_token).copied()
    }

    /// Every token that was revoked so far.
    pub fn revoked_tokens(&self) -> Vec<String> {
        self.state().revoked_tokens.clone()
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.shared.lock().unwrap()
    }
}

/// Who signs in unless a test says otherwise.
fn ada() -> Map<String, Value> {
    let claims = json!({
        "sub": "248289761001",
        "name": "Ada Lovelace",
        "preferred_username": "ada",
        "email": "ada@example.com",
        "email_verified": true,
        "groups": ["/admins", "/staff"],
    });
    let Value::Object(claims) = claims else { unreachable!("written as an object above") };
    claims
}

/// RSA keys are dear to make: the first one is shared by every provider of the process.
fn default_key() -> Arc<SigningKey> {
    static KEY: OnceLock<Arc<SigningKey>> = OnceLock::new();
    KEY.get_or_init(|| Arc::new(SigningKey::generate(Alg::Rs256))).clone()
}

/// A key that no key set holds.
fn stray_key(alg: Alg) -> Arc<SigningKey> {
    static KEY: OnceLock<Arc<SigningKey>> = OnceLock::new();
    match alg {
        Alg::Rs256 => KEY.get_or_init(|| Arc::new(SigningKey::generate(alg))).clone(),
        _ => Arc::new(SigningKey::generate(alg)),
    }
}
