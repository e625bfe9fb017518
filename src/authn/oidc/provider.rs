//! One configured provider: its metadata and keys as they are known now, and the calls made to it (OpenID Connect Core 1.0 §3.1
//! to §3.3, RFC 7636, RP-Initiated Logout 1.0 §2).

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Response, StatusCode};
use moka::Expiry;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use openidconnect::core::{CoreAuthenticationFlow, CoreClient, CoreResponseType};
use openidconnect::{
    ClientId, CsrfToken, EndpointMaybeSet, EndpointNotSet, EndpointSet, HttpRequest, Nonce, RedirectUrl, Scope,
};
use serde_json::{Map, Value};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use url::Url;

use super::access_token::AccessTokens;
use super::algorithms::{AnswerAlgorithms, Kind as Answer, of_id_tokens};
use super::ask::Ask;
use super::claims::Rules;
use super::client_auth::{self, ProofError};
use super::decryption::{self, Decryption};
use super::demands::Demands;
use super::discovery::{DiscoveryError, Metadata, Unsupported};
use super::id_token::{self, Expected, IdTokenError, Nonce as ExpectedNonce, VerifiedClaims};
use super::jose::{Algorithm, JoseError, Trust};
use super::jwe::Undecryptable;
use super::known::{Asker, Knowledge, Known};
use super::logout_token::{Logout, LogoutTokenError, UnprovenLogout};
use super::ourselves::Ourselves;
use super::par::{self, PushError};
use super::party::Party;
use super::query::without_doubles;
use super::registration::RegistrationSettings;
use super::response::{AuthorizationResponse, ResponseMode, ResponseType};
use super::revocation::{self, Kind};
use super::security::{Profile, Security};
use super::static_metadata::StaticMetadata;
use super::tenants::Tenants;
use super::token_endpoint::{self, Redemption, TokenError, Tokens};
use super::userinfo::{self, Said, UserinfoError};
use super::wish::Wish;
use crate::authn::session::Signatory;
use crate::clock::SharedClock;
use crate::provider_http::{self, ProviderHttp, ProviderHttpError, SetupError};
use crate::secret::SecretString;
use crate::telemetry::chain;

/// The `[provider]` section or one of `[providers]`, checked.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Its `provider_id`: the name in `[providers.NAME]`, `default` for `[provider]`.
    pub id: String,
    /// What people call it, where they choose one of several.
    pub name: String,
    /// A `data:` URL to show beside the name.
    pub logo: Option<String>,
    /// Domains of e-mail addresses whose owners sign in here.
    pub email_domains: Vec<String>,
    /// How it is reached.
    pub http: provider_http::Settings,
    /// The issuer, character for character as the provider writes it.
    pub issuer: String,
    /// Its tenants, where it has an issuer for each; `issuer` is where it is discovered then.
    pub tenants: Option<Tenants>,
    /// Where we reach the provider, when that differs from its public address: replaces the issuer's origin in discovery
    /// and in the token, JWKS and userinfo endpoints; never in what the user agent sees.
    pub backchannel_url: Option<Url>,
    /// What is stated about it in the place of discovery.
    pub metadata: StaticMetadata,
    /// Where the provider fetches our request objects, each below it (RFC 9101 §5.2); `None` where it fetches none.
    pub request_objects_at: Option<Url>,
    /// Who we are there; of a client that registers itself known only once it has.
    pub credentials: Credentials,
    /// How we register ourselves, where no client id is written.
    pub registration: Option<RegistrationSettings>,
    /// How we prove that, and what our tokens are bound to.
    pub security: Security,
    /// Where the provider sends the user agent back to.
    pub redirect_uri: Url,
    /// Always with `openid`.
    pub scopes: Vec<String>,
    /// What is asked for.
    pub response_type: ResponseType,
    /// How the answer comes back.
    pub response_mode: ResponseMode,
    /// Extra parameters of the authorization request.
    pub authorization_params: Vec<(String, String)>,
    /// Extra parameters of the logout request.
    pub logout_params: Vec<(String, String)>,
    /// Parameters of the authorization request with a setting of their own.
    pub ask: Ask,
    /// What every ID token must say.
    pub demands: Demands,
    /// How far the provider's clock may be from ours. Default 30 s.
    pub clock_skew: Duration,
    /// Audiences of the ID token that are trusted beside our client id.
    pub trusted_audiences: Vec<String>,
    /// The signing algorithms accepted for ID tokens: empty means every asymmetric one that the metadata offers. HS256 only
    /// where it is named here, alone, and a secret exists.
    pub signing_algs: Vec<Algorithm>,
    /// The same for everything else that the provider signs.
    pub answer_algs: AnswerAlgorithms,
    /// What is taken of encrypted tokens.
    pub decryption: Decryption,
    /// Fetch userinfo where the metadata offers it.
    pub userinfo: bool,
    /// Whether userinfo feeds name or roles, so that its failure fails the sign-in.
    pub userinfo_required: bool,
    /// How access tokens that others present are verified.
    pub access_tokens: AccessTokens,
    /// Names and passwords of programs are exchanged here (RFC 6749 §4.3).
    pub insecure_password_grant: bool,
    /// http beyond loopback.
    pub allow_insecure_http: bool,
    /// Revoke a session's tokens when it is signed out, where the metadata offers that.
    pub revoke_at_sign_out: bool,
    /// Sent at sign-out when set; must be registered at the provider.
    pub post_logout_redirect_uri: Option<Url>,
    /// How often discovery and keys are refreshed. Default 15 min.
    pub refresh_interval: Duration,
    /// The least time between two key fetches caused by unknown key ids. Default 30 s.
    pub key_refetch_interval: Duration,
    /// How long keys stay usable when they can't be refreshed. Default 24 h.
    pub stale_keys: Duration,
    /// Token calls at the same time; more wait. Default 64.
    pub max_token_calls: usize,
    /// How long a token call may wait for its turn. Default 5 s.
    pub token_queue_timeout: Duration,
}

/// Why no authorization request can be made.
#[derive(Debug, thiserror::Error)]
pub enum AuthorizationError {
    /// Discovery has not worked yet.
    #[error("the provider is not known yet")]
    ProviderUnknown(#[source] Option<Arc<DiscoveryError>>),
    /// Its metadata say that it can't do what the settings ask for.
    #[error(transparent)]
    Unsupported(Unsupported),
    /// It could not be pushed.
    #[error(transparent)]
    Push(#[from] PushError),
    /// It could not be signed.
    #[error("the authorization request could not be signed")]
    Unsigned(#[source] ProofError),
}

/// One authorization request.
#[derive(Debug)]
pub struct AuthorizationRequest<'a> {
    /// What comes back with the answer.
    pub state: &'a str,
    /// What comes back in the ID token.
    pub nonce: &'a str,
    /// For the code, by S256 (RFC 7636 §4.3).
    pub pkce_challenge: &'a str,
    /// What this sign-in asks for beyond the settings.
    pub wish: &'a Wish,
    /// Where all of it can be fetched as an object (RFC 9101 §5.2); `None`: nowhere.
    pub reference: Option<&'a str>,
}

/// Who we are at a provider, by name and secret.
#[derive(Debug, Clone)]
pub struct Credentials {
    /// Our client id.
    pub client_id: String,
    /// Our client secret; `None` for a client that has none.
    pub client_secret: Option<SecretString>,
}

/// A provider that can be asked. Cheap reads, shared by all workers.
#[derive(Debug)]
pub struct Provider {
    pub(super) knowledge: Arc<Knowledge>,
    ourselves: Arc<Ourselves>,
    /// Turns for calls of the token endpoint.
    token_calls: Arc<Semaphore>,
    /// Turns for questions about access tokens that came with requests, which anybody may make up: a quarter of those, of
    /// their own, so that no sign-in waits behind them.
    pub(super) stranger_calls: Arc<Semaphore>,
    /// Turns for sign-outs whose tokens are revoked.
    revocations: revocation::Turns,
    /// `jti` of the logout tokens that were verified, for as long as any of them could come again.
    logout_tokens: Cache<[u8; 16], Duration>,
}

impl Provider {
    /// Knows nothing yet; call [`Provider::run`] on the control runtime.
    ///
    /// # Errors
    /// [`SetupError`] when the client towards it can't be built, or a file that says who we are can't be used.
    pub fn new(settings: Settings, control: Handle, clock: SharedClock) -> Result<Arc<Self>, SetupError> {
        let http = ProviderHttp::new(settings.http.clone(), control.clone())?;
        let ourselves = Ourselves::new(&settings, http.clone(), &control, Arc::clone(&clock))?;
        warn_about_weak_secret(&settings);
        let token_calls = settings.max_token_calls.clamp(1, Semaphore::MAX_PERMITS);
        Ok(Arc::new(Self {
            ourselves: Arc::new(ourselves),
            token_calls: Arc::new(Semaphore::new(token_calls)),
            stranger_calls: Arc::new(Semaphore::new((token_calls / 4).max(1))),
            revocations: revocation::Turns::new(token_calls),
            logout_tokens: Cache::builder()
                .max_capacity(MAX_LOGOUT_TOKENS)
                // The default policy may turn away what is new, and what is new is what comes again.
                .eviction_policy(EvictionPolicy::lru())
                .expire_after(UntilItExpires)
                .build(),
            knowledge: Arc::new(Knowledge::new(settings, http, clock)),
        }))
    }

    /// Discovers, then keeps metadata and keys fresh for as long as the future is polled: at once, retried every second at
    /// first (up to 5 s between tries) until it worked, then every `refresh_interval` (jittered). Each change of state is
    /// logged once.
    pub async fn run(self: Arc<Self>) {
        self.knowledge.keep_fresh().await;
    }

    /// Takes changed files of keys and certificates into use, for as long as the future is polled.
    pub async fn watch_files(self: Arc<Self>, every: Duration) {
        self.ourselves.watch(every).await;
    }

    /// Our public keys for this provider (RFC 7517 §5), where there are any.
    pub fn public_keys(&self) -> Option<Value> {
        self.ourselves.public_keys()
    }

    /// The settings.
    pub fn settings(&self) -> &Settings {
        &self.knowledge.settings
    }

    /// The metadata, when discovery has worked and keys are known. Makes no call.
    pub fn metadata(&self) -> Option<Arc<Metadata>> {
        self.knowledge.usable().map(|known| Arc::clone(&known.metadata))
    }

    /// Whether something `is_for` the client that we are now; of a client that registers itself, for nobody until it has.
    pub(in crate::authn) fn is_us(&self, is_for: impl Fn(&str) -> bool) -> bool {
        let known = self.knowledge.known();
        let client_id = known.as_ref().map_or(&self.settings().credentials, |known| &known.settings.credentials);
        !client_id.client_id.is_empty() && is_for(&client_id.client_id)
    }

    /// Whether a sign-in begins with a call of the provider (RFC 9126), as far as that is known.
    pub fn pushes(&self) -> bool {
        let pushes = |known: Arc<Known>| known.settings.security.pushes(&known.metadata.capabilities);
        self.knowledge.usable().is_some_and(pushes)
    }

    /// Where people are sent to sign in, once that is known.
    pub fn authorization_endpoint(&self) -> Option<Url> {
        self.metadata().map(|metadata| metadata.standard.authorization_endpoint().url().clone())
    }

    /// Whether sign-ins can work now: metadata and usable keys are known. Makes no call.
    pub fn is_ready(&self) -> bool {
        self.knowledge.usable().is_some()
    }

    /// Why there is no metadata, for readiness and for the sign-in page. Makes no call.
    ///
    /// Also there while a refresh fails and what was known before is still used; `None` once a refresh worked.
    pub fn last_error(&self) -> Option<Arc<DiscoveryError>> {
        self.knowledge.last_error()
    }

    /// Where to send the user agent with the authorization request (RFC 6749 §4.1.1, RFC 7636 §4.3, OpenID Connect Core
    /// §3.1.2.1).
    ///
    /// # Errors
    /// [`AuthorizationError`].
    pub async fn authorization_url(&self, asked: AuthorizationRequest<'_>) -> Result<Url, AuthorizationError> {
        let known = self.usable()?;
        let parameters = self.parameters(&known, &asked)?;
        let parameters = self.protected(&known, parameters, asked.reference).await?;
        let endpoint = known.metadata.standard.authorization_endpoint().url();
        let mut url = endpoint.clone();
        url.query_pairs_mut().extend_pairs(parameters);
        Ok(without_doubles(endpoint, url))
    }

    /// The same request as an object that the provider fetches (RFC 9101 §5.2.3). Makes no call.
    ///
    /// # Errors
    /// [`AuthorizationError`].
    pub fn request_object(&self, asked: &AuthorizationRequest<'_>) -> Result<String, AuthorizationError> {
        let known = self.usable()?;
        let parameters = self.parameters(&known, asked)?;
        let object = self.ourselves.request_object(&known.settings, &known.metadata, &parameters);
        object.map_err(AuthorizationError::Unsigned)
    }

    /// Whether the provider says that it takes request objects in the request itself (Discovery §3).
    pub(super) fn takes_request_objects(&self) -> bool {
        let takes = |known: Arc<Known>| known.metadata.capabilities.takes_request_objects;
        self.knowledge.usable().and_then(takes).unwrap_or(false)
    }

    fn usable(&self) -> Result<Arc<Known>, AuthorizationError> {
        self.knowledge.usable().ok_or_else(|| AuthorizationError::ProviderUnknown(self.last_error()))
    }

    /// All parameters of a request, however they travel.
    fn parameters(
        &self,
        known: &Known,
        asked: &AuthorizationRequest<'_>,
    ) -> Result<Vec<(String, String)>, AuthorizationError> {
        let AuthorizationRequest { state, nonce, pkce_challenge, wish, .. } = *asked;
        let (settings, metadata) = (&known.settings, &known.metadata);
        metadata.supports(settings).map_err(AuthorizationError::Unsupported)?;
        let jkt = self.ourselves.jkt(settings, metadata).map_err(AuthorizationError::Unsupported)?;
        let client = settings.client(metadata);
        let (state, nonce) = (CsrfToken::new(state.to_owned()), Nonce::new(nonce.to_owned()));
        let flow = match settings.response_type {
            ResponseType::Code => CoreAuthenticationFlow::AuthorizationCode,
            ResponseType::CodeIdToken => {
                CoreAuthenticationFlow::Hybrid(vec![CoreResponseType::Code, CoreResponseType::IdToken])
            }
        };
        let request =
            client.authorize_url(flow, || state, || nonce).add_scopes(settings.scopes.iter().cloned().map(Scope::new));
        let pkce = [("code_challenge", pkce_challenge), ("code_challenge_method", "S256")];
        let pkce = pkce.into_iter().map(|(name, value)| (name, Cow::Borrowed(value)));
        let extra = settings.authorization_params.iter().filter(|(name, _)| !OURS.contains(&name.as_str()));
        let extra = extra.map(|(name, value)| (name.as_str(), Cow::Borrowed(value.as_str())));
        let mode = settings.response_mode.name().map(|mode| ("response_mode", Cow::Borrowed(mode)));
        let asked = settings.ask.parameters(&settings.demands, wish, metadata.capabilities.takes_claims == Some(true));
        let asked = asked.into_iter().map(|(name, value)| (name, Cow::Owned(value)));
        let asked: Vec<_> = asked.chain(mode).collect();
        // No parameter stands twice, whatever one sign-in asks for.
        let extra = extra.filter(|(name, _)| asked.iter().all(|(asked, _)| asked != name));
        let extra: Vec<_> = pkce.chain(extra).chain(asked.iter().cloned()).collect();
        let request = extra.into_iter().fold(request, |request, (name, value)| request.add_extra_param(name, value));
        let (url, _, _) = request.url();
        let of_endpoint = metadata.standard.authorization_endpoint().url().query_pairs().count();
        let jkt = jkt.map(|jkt| ("dpop_jkt".to_owned(), jkt.to_owned()));
        Ok(url.query_pairs().into_owned().skip(of_endpoint).chain(jkt).collect())
    }

    /// What the user agent carries of an authorization request: all of it, or as an object (RFC 9101 §5.1), or no more than a
    /// reference (RFC 9101 §5.2, RFC 9126 §4).
    async fn protected(
        &self,
        known: &Known,
        mut parameters: Vec<(String, String)>,
        reference: Option<&str>,
    ) -> Result<Vec<(String, String)>, AuthorizationError> {
        let (settings, metadata) = (&known.settings, &known.metadata);
        let security = &settings.security;
        let pushed = metadata.capabilities.pushed_request_endpoint.as_ref();
        let pushed = pushed.filter(|_| security.pushes(&metadata.capabilities));
        if security.signed_requests.is_some() {
            let signed = match reference {
                Some(reference) => ("request_uri".to_owned(), reference.to_owned()),
                None => {
                    let object = self.ourselves.request_object(settings, metadata, &parameters);
                    ("request".to_owned(), object.map_err(AuthorizationError::Unsigned)?)
                }
            };
            // Core §6.1 and §6.2 want these outside as well, where the user agent carries them.
            let outside =
                |name: &str| name == "client_id" || (pushed.is_none() && ["response_type", "scope"].contains(&name));
            parameters.retain(|(name, _)| outside(name));
            parameters.push(signed);
        }
        if let Some(endpoint) = pushed {
            let answer = self.call(par::request(endpoint, &parameters)?).await.map_err(PushError::from)?;
            let reference = par::read_answer(&answer)?;
            parameters.retain(|(name, _)| name == "client_id");
            parameters.push(("request_uri".to_owned(), reference));
        }
        Ok(parameters)
    }

    /// Redeems an authorization code (RFC 6749 §4.1.3, RFC 7636 §4.5).
    ///
    /// # Errors
    /// [`TokenError`].
    pub async fn redeem_code(&self, code: &str, pkce_verifier: &str) -> Result<Tokens, TokenError> {
        let known = self.knowledge.usable().ok_or(TokenError::ProviderUnknown)?;
        let client = known.settings.client(&known.metadata);
        let redemption = Redemption {
            code,
            pkce_verifier,
            resources: &known.settings.ask.resources,
            token_type: known.settings.security.token_type(),
        };
        token_endpoint::redeem(&client, redemption, |request| self.call(request)).await
    }

    /// Sends a form to one of the endpoints that want to know who we are, in its turn, and says that. Borrows nothing, since no borrow can be
    /// followed through the library's generic future.
    pub(super) fn call(
        &self,
        request: HttpRequest,
    ) -> impl Future<Output = Result<Response<Bytes>, TokenError>> + use<> {
        self.call_in_turn(&self.token_calls, request)
    }

    /// As [`Provider::call`], about a token that came with a request.
    pub(super) fn call_for_stranger(
        &self,
        request: HttpRequest,
    ) -> impl Future<Output = Result<Response<Bytes>, TokenError>> + use<> {
        self.call_in_turn(&self.stranger_calls, request)
    }

    fn call_in_turn(
        &self,
        turns: &Arc<Semaphore>,
        request: HttpRequest,
    ) -> impl Future<Output = Result<Response<Bytes>, TokenError>> + use<> {
        let turn = Arc::clone(turns).acquire_owned();
        let turn = tokio::time::timeout(self.settings().token_queue_timeout, turn);
        let (knowledge, ourselves) = (Arc::clone(&self.knowledge), Arc::clone(&self.ourselves));
        async move {
            let Ok(Ok(turn)) = turn.await else { return Err(TokenError::Busy) };
            let known = knowledge.known().ok_or(TokenError::ProviderUnknown)?;
            // The turn is over when the call is, not when the client has gone away.
            let call = knowledge.http.control().clone().spawn(async move {
                let answer = ourselves.call(&known.settings, &known.metadata, request).await;
                drop(turn);
                answer
            });
            let lost = |lost| Err(TokenError::Http(ProviderHttpError::Unreachable(Box::new(lost))));
            call.await.unwrap_or_else(lost)
        }
    }

    /// The signed ID token inside of what the token endpoint gave: that itself, unless it is encrypted.
    ///
    /// # Errors
    /// [`IdTokenError`] when it can't be opened, or is not encrypted where the settings ask for it.
    pub fn open_id_token(&self, token: SecretString) -> Result<SecretString, IdTokenError> {
        if !decryption::is_encrypted(token.expose_secret()) {
            return if self.settings().decryption.required { Err(IdTokenError::NotEncrypted) } else { Ok(token) };
        }
        let opened = decryption::opened(token.expose_secret(), |token| self.decrypt(token))?;
        Ok(SecretString::new(opened.into_owned()))
    }

    pub(super) fn decrypt(&self, token: &str) -> Result<Vec<u8>, Undecryptable> {
        let known = self.knowledge.known();
        let settings = known.as_ref().map_or(self.settings(), |known| &known.settings);
        settings.decryption.open(token, &self.ourselves.private_keys(), settings.credentials.client_secret.as_ref())
    }

    /// Verifies an opened ID token to the letter of OpenID Connect Core §3.1.3.7. An unknown key id
    /// refetches the keys once, within `key_refetch_interval`, single-flight.
    ///
    /// # Errors
    /// [`IdTokenError`].
    pub async fn verify_id_token(
        &self,
        id_token: &str,
        expected: Expected<'_>,
    ) -> Result<VerifiedClaims, IdTokenError> {
        let clock = &self.knowledge.clock;
        let verify = |settings: &Settings, trust: Trust<'_>| {
            let verified = id_token::verify(id_token, trust, settings.rules(), expected, clock.now())?;
            match expected.nonce {
                ExpectedNonce::Sent(_) | ExpectedNonce::NotSent => {
                    let leeway = settings.rules().leeway;
                    settings.demands.judge(verified.claims(), expected.wish, leeway, clock.now())?;
                }
                ExpectedNonce::OfSignIn(_) => settings.demands.judge_renewed(verified.claims())?,
            }
            Ok(verified)
        };
        let asker = if expected.in_front { Asker::Answer } else { Asker::SignIn };
        self.with_keys(asker, of_id_tokens, verify).await
    }

    /// A logout token with its encryption taken off; `None` where our keys at this provider do not open it.
    pub(super) fn open_logout_token(&self, token: &str) -> Option<String> {
        String::from_utf8(self.decrypt(token).ok()?).ok()
    }

    /// Verifies a logout token to the letter of OpenID Connect Back-Channel Logout §2.6; keys are refetched as for ID tokens.
    ///
    /// # Errors
    /// [`LogoutTokenError`].
    pub async fn verify_logout_token(&self, token: &UnprovenLogout<'_>) -> Result<Logout, LogoutTokenError> {
        let clock = &self.knowledge.clock;
        let verify = |settings: &Settings, trust: Trust<'_>| token.verify(trust, settings.rules(), clock.now());
        let logout = self.with_keys(Asker::Logout, of_id_tokens, verify).await?;
        // §2.6 item 7. The last of all, so that nobody else can use up an identifier.
        let identifier = self.settings().party().digest("jti", &logout.issuer, &logout.identifier);
        let is_fresh = self.logout_tokens.entry(identifier).or_insert(logout.good_for).is_fresh();
        if is_fresh { Ok(logout) } else { Err(LogoutTokenError::Repeated) }
    }

    /// Verifies with the keys that are known; where those do not do, once more with newer ones.
    pub(super) async fn with_keys<T, E>(
        &self,
        asker: Asker,
        algorithms: impl Fn(&Known) -> Vec<Algorithm>,
        verify: impl Fn(&Settings, Trust<'_>) -> Result<T, E>,
    ) -> Result<T, E>
    where
        E: From<JoseError> + PartialEq,
    {
        let known = self.knowledge.known().ok_or(JoseError::UnknownKey)?;
        let allowed = algorithms(&known);
        let first = self.with_keys_of(&known, &allowed, &verify);
        // A provider that starts anew may sign with another key of the same name, so a wrong signature asks again too. The
        // secret is no key of its set.
        let has_keys = !allowed.iter().all(|algorithm| algorithm.is_symmetric());
        let asks_again =
            |error: &E| has_keys && [JoseError::UnknownKey, JoseError::Signature].map(E::from).contains(error);
        if !first.as_ref().err().is_some_and(asks_again) {
            return first;
        }
        match self.knowledge.newer_keys_than(&known, asker).await {
            Some(newer) => self.with_keys_of(&newer, &algorithms(&newer), &verify),
            None => first,
        }
    }

    /// Verifies a signed authorization response (JARM §2.4), be it encrypted (§2.2), as [`Provider::verify_id_token`] does an
    /// ID token.
    ///
    /// # Errors
    /// [`IdTokenError`].
    pub async fn verify_response(&self, jwt: &str) -> Result<AuthorizationResponse, IdTokenError> {
        let jwt = &*decryption::opened(jwt, |token| self.decrypt(token))?;
        let algorithms = |known: &Known| Answer::Authorization.algorithms(known);
        let clock = &self.knowledge.clock;
        let verify = |settings: &Settings, trust: Trust<'_>| {
            AuthorizationResponse::verify(jwt, trust, settings.rules(), clock.now())
        };
        self.with_keys(Asker::Answer, algorithms, verify).await
    }

    /// The userinfo claims (OpenID Connect Core §5.3), JSON, signed, encrypted or both, their `sub` compared with `subject`.
    /// `Ok(None)` where the setting is off or the metadata offers none.
    ///
    /// # Errors
    /// [`UserinfoError`].
    pub async fn userinfo(
        &self,
        access_token: &SecretString,
        subject: &str,
    ) -> Result<Option<Map<String, Value>>, UserinfoError> {
        if !self.settings().userinfo {
            return Ok(None);
        }
        let Some(known) = self.knowledge.usable() else {
            return Err(UserinfoError::Http(ProviderHttpError::Unreachable("the provider is not known yet".into())));
        };
        let Some(endpoint) = known.metadata.standard.userinfo_endpoint() else { return Ok(None) };
        let settings = &known.settings;
        let answer = self.ourselves.fetch(settings, &known.metadata, endpoint.url(), access_token).await?;
        let claims = self.userinfo_claims(&answer, Asker::SignIn).await?;
        userinfo::is_about(&claims, subject).map(|()| Some(claims))
    }

    /// What userinfo says, in whatever form it comes.
    pub(super) async fn userinfo_claims(
        &self,
        answer: &Response<Bytes>,
        asker: Asker,
    ) -> Result<Map<String, Value>, UserinfoError> {
        let token = match userinfo::read(answer, |token| self.decrypt(token))? {
            Said::Plain(_) if !self.settings().answer_algs.userinfo.is_empty() => return Err(UserinfoError::NotSigned),
            Said::Plain(claims) => return Ok(claims),
            Said::Signed(token) => token,
        };
        let algorithms = |known: &Known| Answer::Userinfo.algorithms(known);
        let verify = |settings: &Settings, trust: Trust<'_>| {
            userinfo::verify(&token, trust, settings.rules(), self.knowledge.clock.now())
        };
        self.with_keys(asker, algorithms, verify).await.map_err(UserinfoError::Signed)
    }

    /// The RP-initiated logout request (OpenID Connect RP-Initiated Logout §2), or `None` where the provider offers none. An
    /// `id_token_hint` that would make the URL longer than 4 KB gives way to `client_id` alone; `state` goes along wherever the
    /// person is sent back.
    pub fn end_session_url(&self, id_token_hint: Option<&str>, state: Option<&str>) -> Option<Url> {
        let known = self.knowledge.known()?;
        let endpoint = known.metadata.end_session_endpoint()?.url();
        let settings = &known.settings;
        let back = settings.post_logout_redirect_uri.as_ref().map(|url| ("post_logout_redirect_uri", url.as_str()));
        // The provider hands `state` back with the redirect, so without one it has nowhere to go.
        let state = state.filter(|_| back.is_some()).map(|state| ("state", state));
        let locales = settings.ask.ui_locales.join(" ");
        let is_added = settings.logout_params.iter().any(|(name, _)| name == "ui_locales");
        let locales = (!locales.is_empty() && !is_added).then_some(("ui_locales", locales.as_str()));
        // Not the library's `LogoutRequest`: it takes no hint but an ID token that it can read every claim of.
        let url = |hint: Option<&str>| {
            let hint = hint.map(|hint| ("id_token_hint", hint));
            let client = ("client_id", settings.credentials.client_id.as_str());
            let mut url = endpoint.clone();
            url.query_pairs_mut()
                .extend_pairs(hint.into_iter().chain([client]).chain(back).chain(state).chain(locales))
                .extend_pairs(&settings.logout_params);
            without_doubles(endpoint, url)
        };
        let with_hint = url(id_token_hint);
        Some(if with_hint.as_str().len() <= MAX_LOGOUT_URL { with_hint } else { url(None) })
    }

    /// Revokes the tokens of a session that was signed out (RFC 7009), where the setting and the metadata have it: the refresh
    /// token first, since most providers end the other with it. Returns at once; that it fails is only logged.
    pub fn revoke(self: &Arc<Self>, refresh: Option<SecretString>, access: Option<SecretString>) {
        let Some(known) = self.knowledge.known().filter(|_| self.settings().revoke_at_sign_out) else { return };
        let Some(endpoint) = known.metadata.revocation_endpoint.clone() else { return };
        let Some(turn) = self.revocations.wait() else {
            tracing::warn!(
                issuer = self.settings().issuer,
                "too many tokens wait to be revoked; these expire by themselves"
            );
            return;
        };
        let this = Arc::clone(self);
        self.knowledge.http.control().spawn(async move {
            let turn = turn.await;
            let tokens = [(Kind::Refresh, refresh), (Kind::Access, access)];
            for (kind, token) in tokens.into_iter().filter_map(|(kind, token)| Some((kind, token?))) {
                let Some(request) = revocation::request(&endpoint, kind, &token) else { return };
                let (issuer, token) = (&this.settings().issuer, kind.hint());
                match this.call(request).await {
                    // §2.2: 200 also where it was no token any more.
                    Ok(answer) if answer.status() == StatusCode::OK => {}
                    // §2.2.1: such as an access token that cannot be revoked.
                    Ok(answer) => tracing::info!(%issuer, token, status = answer.status().as_u16(), "not revoked"),
                    Err(error) => tracing::warn!(%issuer, token, error = chain(&error), "could not be revoked"),
                }
            }
            drop(turn);
        });
    }

    fn with_keys_of<T, E: From<JoseError>>(
        &self,
        known: &Known,
        algorithms: &[Algorithm],
        verify: impl Fn(&Settings, Trust<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        if !self.knowledge.is_usable(known) {
            return Err(JoseError::UnknownKey.into());
        }
        verify(&known.settings, known.settings.trust(known, algorithms))
    }
}

impl Settings {
    /// In a line: how the client says who it is, and what more is done.
    pub fn proof(&self) -> String {
        let Security { pushed_requests, signed_requests, dpop, profile, .. } = &self.security;
        let methods: Vec<_> = client_auth::candidates(self).iter().map(|method| method.name()).collect();
        let more = [
            (*pushed_requests == Some(true), "pushed requests"),
            (signed_requests.is_some(), "signed requests"),
            (dpop.is_some(), "DPoP"),
            (self.security.binds_by_tls(), "certificate-bound tokens"),
            (*profile == Profile::Fapi2, "FAPI 2.0"),
        ];
        let more = more.iter().filter(|(is_on, _)| *is_on).map(|(_, what)| format!(", {what}"));
        format!("{}{}", methods.join(" or "), more.collect::<String>())
    }

    /// Whether an authorization response without `iss` is refused (RFC 9207 §2.4, FAPI 2.0 §5.3.3.2).
    pub fn demands_issuer(&self, metadata: Option<&Metadata>) -> bool {
        self.security.profile == Profile::Fapi2 || metadata.is_some_and(|metadata| metadata.iss_parameter_supported)
    }

    /// Whether an answer of `issuer` can be this provider's.
    pub fn is_issuer(&self, issuer: &str) -> bool {
        match &self.tenants {
            None => issuer == self.issuer,
            Some(tenants) => tenants.has(issuer),
        }
    }

    /// Whom sessions and login transactions are bound to: issuer and client id. A client that registers itself may have another
    /// id tomorrow, and its people stay signed in: there the `provider_id` counts, in a form that no client id has.
    pub fn party(&self) -> Party {
        match &self.registration {
            None => Party::of(&self.issuer, &self.credentials.client_id),
            Some(_) => Party::of(&self.issuer, &format!("\0{}", self.id)),
        }
    }

    /// The same for sessions.
    pub fn signatory(&self) -> Signatory {
        Signatory { id: self.id.clone(), party: self.party(), tenants: self.tenants.clone() }
    }

    /// What makes our requests. It reads no token, so it gets no keys.
    pub(super) fn client(&self, metadata: &Metadata) -> Client {
        let (secret, auth_type) = client_auth::for_library(self, metadata);
        let client_id = ClientId::new(self.credentials.client_id.clone());
        Client::from_provider_metadata(metadata.standard.clone(), client_id, secret)
            .set_redirect_uri(RedirectUrl::from_url(self.redirect_uri.clone()))
            .set_auth_type(auth_type)
            // It is among the scopes.
            .disable_openid_scope()
    }

    pub(super) fn trust<'a>(&'a self, known: &'a Known, algorithms: &'a [Algorithm]) -> Trust<'a> {
        Trust { keys: &known.keys, secret: self.credentials.client_secret.as_ref(), algorithms }
    }

    pub(super) fn rules(&self) -> Rules<'_> {
        Rules {
            issuer: &self.issuer,
            tenants: self.tenants.as_ref(),
            client_id: &self.credentials.client_id,
            trusted_audiences: &self.trusted_audiences,
            leeway: self.clock_skew.as_secs(),
        }
    }
}

/// RFC 7518 §3.2: an HMAC key must be at least as long as the hash.
fn warn_about_weak_secret(settings: &Settings) {
    let (Some(secret), [only]) = (&settings.credentials.client_secret, &*settings.signing_algs) else { return };
    let Some(mac) = only.hmac() else { return };
    let wanted = mac.digest_algorithm().output_len();
    if secret.expose_secret().len() < wanted {
        let algorithm = only.name();
        tracing::warn!(
            "the client secret is shorter than the {wanted} bytes that {algorithm} asks for; use a longer one or RS256"
        );
    }
}

/// An identifier is remembered for as long as its token holds, and a minute more for clocks that are set.
struct UntilItExpires;

impl Expiry<[u8; 16], Duration> for UntilItExpires {
    fn expire_after_create(&self, _: &[u8; 16], good_for: &Duration, _: Instant) -> Option<Duration> {
        Some((*good_for).min(LONGEST_MEMORY) + Duration::from_secs(60))
    }
}

/// The longest that an identifier is remembered: longer than any process runs.
const LONGEST_MEMORY: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// The library's client, from a provider's metadata.
pub(super) type Client =
    CoreClient<EndpointSet, EndpointNotSet, EndpointNotSet, EndpointNotSet, EndpointMaybeSet, EndpointMaybeSet>;

/// The parameters of the authorization request that no setting changes.
const OURS: [&str; 9] = [
    "response_type",
    "response_mode",
    "client_id",
    "redirect_uri",
    "scope",
    "state",
    "nonce",
    "code_challenge",
    "code_challenge_method",
];

/// The most logout tokens of one provider whose identifiers are remembered; about 100 bytes each.
const MAX_LOGOUT_TOKENS: u64 = 100_000;

/// The longest logout URL, in bytes.
const MAX_LOGOUT_URL: usize = 4096;

#[cfg(test)]
pub(super) use tests::settings as test_settings;

#[cfg(test)]
mod tests;
