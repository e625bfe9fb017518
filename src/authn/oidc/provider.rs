//! One configured provider: its metadata and keys as they are known now, and the calls made to it (OpenID Connect Core 1.0 §3.1
//! to §3.3, RFC 7636, RP-Initiated Logout 1.0 §2).

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Response, StatusCode};
use moka::Expiry;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use openidconnect::HttpRequest;
use serde_json::{Map, Value};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use url::Url;

use super::algorithms::{Kind as Answer, of_id_tokens};
use super::decryption;
use super::discovery::{DiscoveryError, Metadata};
use super::id_token::{self, Expected, IdTokenError, Nonce as ExpectedNonce, VerifiedClaims};
use super::jose::{Algorithm, JoseError, Trust};
use super::jwe::Undecryptable;
use super::known::{Asker, Knowledge, Known};
use super::logout_token::{Logout, LogoutTokenError, UnprovenLogout};
use super::ourselves::Ourselves;
use super::query::without_doubles;
use super::response::AuthorizationResponse;
use super::revocation::{self, Kind};
use super::settings::Settings;
use super::token_endpoint::{self, Redemption, TokenError, Tokens};
use super::userinfo::{self, Said, UserinfoError};
use crate::clock::SharedClock;
use crate::provider_http::{ProviderHttp, ProviderHttpError, SetupError};
use crate::secret::SecretString;
use crate::telemetry::chain;

/// A provider that can be asked. Cheap reads, shared by all workers.
#[derive(Debug)]
pub struct Provider {
    pub(super) knowledge: Arc<Knowledge>,
    pub(super) ourselves: Arc<Ourselves>,
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

/// Who signs out, as far as the provider is told.
#[derive(Debug, Default)]
pub struct SigningOut<'a> {
    /// The session's ID token, for `id_token_hint`.
    pub id_token: Option<&'a str>,
    /// The value of `logout_hint_claim`.
    pub hint: Option<&'a str>,
    /// What comes back with the person.
    pub state: Option<&'a str>,
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

    /// Verifies an opened ID token to the letter of OpenID Connect Core §3.1.3.7. Where no key fits, the keys are fetched once more
    /// (§10.1.1): always for a token of the token endpoint, once per `key_refetch_interval` for one that came through a browser.
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
    /// `session` is the longest that one lasts.
    ///
    /// # Errors
    /// [`LogoutTokenError`].
    pub async fn verify_logout_token(
        &self,
        token: &UnprovenLogout<'_>,
        session: Duration,
    ) -> Result<Logout, LogoutTokenError> {
        let clock = &self.knowledge.clock;
        let verify =
            |settings: &Settings, trust: Trust<'_>| token.verify(trust, settings.rules(), (clock.now(), session));
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
    /// `id_token_hint` that would make the URL longer than 4 KB gives way to `client_id` and `logout_hint`; `state` goes along
    /// wherever the person is sent back.
    ///
    /// §2 would have the large one posted. That takes a page with a form and a button, since a redirect posts no more than the
    /// browser sent to us, and our pages run no script. It would put an ID token into a page to save the question that a provider
    /// asks without the hint: one click for another.
    pub fn end_session_url(&self, SigningOut { id_token, hint, state }: SigningOut<'_>) -> Option<Url> {
        let known = self.knowledge.known()?;
        let endpoint = known.metadata.end_session_endpoint()?.url();
        let settings = &known.settings;
        let back = settings.post_logout_redirect_uri.as_ref().map(|url| ("post_logout_redirect_uri", url.as_str()));
        // The provider hands `state` back with the redirect, so without one it has nowhere to go.
        let state = state.filter(|_| back.is_some()).map(|state| ("state", state));
        let locales = settings.ask.ui_locales.join(" ");
        let is_added = settings.logout_params.iter().any(|(name, _)| name == "ui_locales");
        let locales = (!locales.is_empty() && !is_added).then_some(("ui_locales", locales.as_str()));
        let logout_hint = hint.map(|hint| ("logout_hint", hint));
        // Not the library's `LogoutRequest`: it takes no hint but an ID token that it can read every claim of.
        let url = |id_token: Option<&str>| {
            let hint = id_token.map(|id_token| ("id_token_hint", id_token));
            let client = ("client_id", settings.credentials.client_id.as_str());
            let mut url = endpoint.clone();
            url.query_pairs_mut()
                .extend_pairs(
                    hint.into_iter().chain(logout_hint).chain([client]).chain(back).chain(state).chain(locales),
                )
                .extend_pairs(&settings.logout_params);
            without_doubles(endpoint, url)
        };
        let with_hint = url(id_token);
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

/// The most logout tokens of one provider whose identifiers are remembered; about 100 bytes each.
const MAX_LOGOUT_TOKENS: u64 = 100_000;

/// The longest logout URL, in bytes.
const MAX_LOGOUT_URL: usize = 4096;

#[cfg(test)]
pub(super) use tests::settings as test_settings;

#[cfg(test)]
mod tests;
