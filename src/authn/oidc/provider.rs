//! One configured provider: its metadata and keys as they are known now, and the calls made to it.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use openidconnect::core::{CoreAuthenticationFlow, CoreClient, CoreResponseType};
use openidconnect::{
    ClientId, ClientSecret, CsrfToken, EndpointMaybeSet, EndpointNotSet, EndpointSet, HttpRequest, Nonce,
    PkceCodeChallenge, RedirectUrl, Scope,
};
use serde_json::{Map, Value};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use url::Url;

use super::access_token::AccessTokens;
use super::discovery::{DiscoveryError, Metadata, Unsupported};
use super::id_token::{self, Expected, IdTokenError, Rules, VerifiedClaims};
use super::jose::{Algorithm, Trust};
use super::known::{Asker, Knowledge, Known};
use super::party::Party;
use super::query::without_doubles;
use super::registration::RegistrationSettings;
use super::response::{AuthorizationResponse, ResponseMode, ResponseType};
use super::static_metadata::StaticMetadata;
use super::token_endpoint::{self, TokenError, Tokens};
use super::userinfo::{self, UserinfoError};
use super::wish::Wish;
use crate::authn::session::Signatory;
use crate::clock::SharedClock;
use crate::provider_http::{self, ProviderHttp, ProviderHttpError, SetupError};
use crate::secret::SecretString;

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
    /// Where we reach the provider, when that differs from its public address: replaces the issuer's origin in discovery
    /// and in the token, JWKS and userinfo endpoints; never in what the user agent sees.
    pub backchannel_url: Option<Url>,
    /// What is stated about it in the place of discovery.
    pub metadata: StaticMetadata,
    /// Who we are there; of a client that registers itself known only once it has.
    pub credentials: Credentials,
    /// How we register ourselves, where no client id is written.
    pub registration: Option<RegistrationSettings>,
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
    /// Audiences of the ID token that are trusted beside our client id.
    pub trusted_audiences: Vec<String>,
    /// The signing algorithms accepted for ID tokens: empty means every asymmetric one that the metadata offers. HS256 only
    /// where it is named here, alone, and a secret exists.
    pub signing_algs: Vec<Algorithm>,
    /// Fetch userinfo where the metadata offers it.
    pub userinfo: bool,
    /// Whether userinfo feeds name or roles, so that its failure fails the sign-in.
    pub userinfo_required: bool,
    /// How access tokens that others present are verified.
    pub access_tokens: AccessTokens,
    /// http beyond loopback.
    pub allow_insecure_http: bool,
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
}

/// One authorization request.
#[derive(Debug)]
pub struct AuthorizationRequest<'a> {
    /// What comes back with the answer.
    pub state: &'a str,
    /// What comes back in the ID token.
    pub nonce: &'a str,
    /// For the code (RFC 7636 §4.3).
    pub pkce_challenge: PkceCodeChallenge,
    /// What this sign-in asks for beyond the settings.
    pub wish: &'a Wish,
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
    /// Turns for calls of the token endpoint.
    token_calls: Arc<Semaphore>,
}

impl Provider {
    /// Knows nothing yet; call [`Provider::run`] on the control runtime.
    ///
    /// # Errors
    /// [`SetupError`] when the client towards it can't be built.
    pub fn new(settings: Settings, control: Handle, clock: SharedClock) -> Result<Arc<Self>, SetupError> {
        let http = ProviderHttp::new(settings.http.clone(), control)?;
        warn_about_weak_secret(&settings);
        let token_calls = settings.max_token_calls.clamp(1, Semaphore::MAX_PERMITS);
        Ok(Arc::new(Self {
            token_calls: Arc::new(Semaphore::new(token_calls)),
            knowledge: Arc::new(Knowledge::new(settings, http, clock)),
        }))
    }

    /// Discovers, then keeps metadata and keys fresh for as long as the future is polled: at once, retried every second at
    /// first (up to 5 s between tries) until it worked, then every `refresh_interval` (jittered). Each change of state is
    /// logged once.
    pub async fn run(self: Arc<Self>) {
        self.knowledge.keep_fresh().await;
    }

    /// The settings.
    pub fn settings(&self) -> &Settings {
        &self.knowledge.settings
    }

    /// The metadata, when discovery has worked and keys are known. Makes no call.
    pub fn metadata(&self) -> Option<Arc<Metadata>> {
        self.knowledge.usable().map(|known| Arc::clone(&known.metadata))
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
        let AuthorizationRequest { state, nonce, pkce_challenge, wish } = asked;
        let known = self.knowledge.usable().ok_or_else(|| AuthorizationError::ProviderUnknown(self.last_error()))?;
        let settings = &known.settings;
        known.metadata.supports(settings).map_err(AuthorizationError::Unsupported)?;
        let client = settings.client(&known.metadata);
        let (state, nonce) = (CsrfToken::new(state.to_owned()), Nonce::new(nonce.to_owned()));
        let flow = match settings.response_type {
            ResponseType::Code => CoreAuthenticationFlow::AuthorizationCode,
            ResponseType::CodeIdToken => {
                CoreAuthenticationFlow::Hybrid(vec![CoreResponseType::Code, CoreResponseType::IdToken])
            }
        };
        let request = client
            .authorize_url(flow, || state, || nonce)
            .add_scopes(settings.scopes.iter().cloned().map(Scope::new))
            .set_pkce_challenge(pkce_challenge);
        let extra = settings.authorization_params.iter().filter(|(name, _)| !OURS.contains(&name.as_str()));
        let extra = extra.map(|(name, value)| (name.as_str(), Cow::Borrowed(value.as_str())));
        let mode = settings.response_mode.name().map(|mode| ("response_mode", Cow::Borrowed(mode)));
        let wished: Vec<_> = wish.parameters().chain(mode).collect();
        // What one sign-in asks for stands above what all of them do.
        let extra = extra.filter(|(name, _)| wished.iter().all(|(wished, _)| wished != name));
        let extra: Vec<_> = extra.chain(wished.iter().cloned()).collect();
        let request = extra.into_iter().fold(request, |request, (name, value)| request.add_extra_param(name, value));
        let (url, _, _) = request.url();
        Ok(without_doubles(known.metadata.standard.authorization_endpoint().url(), url))
    }

    /// Redeems an authorization code (RFC 6749 §4.1.3, RFC 7636 §4.5).
    ///
    /// # Errors
    /// [`TokenError`].
    pub async fn redeem_code(&self, code: &str, pkce_verifier: &str) -> Result<Tokens, TokenError> {
        let known = self.knowledge.usable().ok_or(TokenError::ProviderUnknown)?;
        let client = known.settings.client(&known.metadata);
        token_endpoint::redeem(&client, code, pkce_verifier, |request| self.call(request)).await
    }

    /// Sends a request to one of the endpoints that want to know who we are, in its turn. Borrows nothing, since no borrow can be
    /// followed through the library's generic future.
    pub(super) fn call(
        &self,
        request: HttpRequest,
    ) -> impl Future<Output = Result<Response<Bytes>, TokenError>> + use<> {
        let turn = Arc::clone(&self.token_calls).acquire_owned();
        let turn = tokio::time::timeout(self.settings().token_queue_timeout, turn);
        let http = self.knowledge.http.clone();
        async move {
            let Ok(Ok(turn)) = turn.await else { return Err(TokenError::Busy) };
            // The turn is over when the call is, not when the client has gone away.
            let call = http.control().clone().spawn(async move {
                let answer = http.send(request.map(Bytes::from)).await;
                drop(turn);
                answer
            });
            let answer = call.await.unwrap_or_else(|lost| Err(ProviderHttpError::Unreachable(Box::new(lost))));
            answer.map_err(TokenError::Http)
        }
    }

    /// Verifies an ID token from the token endpoint to the letter of OpenID Connect Core §3.1.3.7. An unknown key id
    /// refetches the keys once, within `key_refetch_interval`, single-flight.
    ///
    /// # Errors
    /// [`IdTokenError`].
    pub async fn verify_id_token(
        &self,
        id_token: &str,
        expected: Expected<'_>,
    ) -> Result<VerifiedClaims, IdTokenError> {
        let known = self.knowledge.known().ok_or(IdTokenError::UnknownKey)?;
        let first = self.verify_with(&known, id_token, expected);
        // A provider that starts anew may sign with another key of the same name, so a wrong signature asks again too.
        if !matches!(first, Err(IdTokenError::UnknownKey | IdTokenError::Signature)) {
            return first;
        }
        match self.knowledge.newer_keys_than(&known, Asker::SignIn).await {
            Some(newer) => self.verify_with(&newer, id_token, expected),
            None => first,
        }
    }

    /// Verifies a signed authorization response (JARM §2.4), as [`Provider::verify_id_token`] does an ID token.
    ///
    /// # Errors
    /// [`IdTokenError`].
    pub async fn verify_response(&self, jwt: &str) -> Result<AuthorizationResponse, IdTokenError> {
        let verify = |known: &Known| {
            let settings = &known.settings;
            if !self.knowledge.is_usable(known) {
                return Err(IdTokenError::UnknownKey);
            }
            // JARM §3: an algorithm of its own at the provider, never `none`.
            let algorithms = settings.algorithms_of_others();
            AuthorizationResponse::verify(
                jwt,
                settings.trust(known, &algorithms),
                settings.rules(),
                self.knowledge.clock.now(),
            )
        };
        let known = self.knowledge.known().ok_or(IdTokenError::UnknownKey)?;
        let first = verify(&known);
        if !matches!(first, Err(IdTokenError::UnknownKey | IdTokenError::Signature)) {
            return first;
        }
        match self.knowledge.newer_keys_than(&known, Asker::SignIn).await {
            Some(newer) => verify(&newer),
            None => first,
        }
    }

    /// The userinfo claims (OpenID Connect Core §5.3), JSON or signed, their `sub` compared with `subject`. `Ok(None)` where
    /// the setting is off or the metadata offers none.
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
        let request = userinfo::request(endpoint.url(), access_token)?;
        let answer = self.knowledge.http.send(request).await.map_err(UserinfoError::Http)?;
        let settings = &known.settings;
        // Userinfo has an algorithm of its own at the provider, so `id_token_signing_alg_values_supported` says nothing.
        let algorithms = settings.algorithms_of_others();
        let trust = settings.trust(&known, &algorithms);
        userinfo::read_answer(&answer, trust, settings.rules(), subject, self.knowledge.clock.now()).map(Some)
    }

    /// The RP-initiated logout request (OpenID Connect RP-Initiated Logout §2), or `None` where the provider offers none. An
    /// `id_token_hint` that would make the URL longer than 4 KB gives way to `client_id` alone.
    pub fn end_session_url(&self, id_token_hint: Option<&str>, state: Option<&str>) -> Option<Url> {
        let known = self.knowledge.known()?;
        let endpoint = known.metadata.end_session_endpoint()?.url();
        let settings = &known.settings;
        let back = settings.post_logout_redirect_uri.as_ref().map(|url| ("post_logout_redirect_uri", url.as_str()));
        // The provider hands `state` back with the redirect, so without one it has nowhere to go.
        let state = state.filter(|_| back.is_some()).map(|state| ("state", state));
        // Not the library's `LogoutRequest`: it takes no hint but an ID token that it can read every claim of.
        let url = |hint: Option<&str>| {
            let hint = hint.map(|hint| ("id_token_hint", hint));
            let client = ("client_id", settings.credentials.client_id.as_str());
            let mut url = endpoint.clone();
            url.query_pairs_mut().extend_pairs(hint.into_iter().chain([client]).chain(back).chain(state));
            without_doubles(endpoint, url)
        };
        let with_hint = url(id_token_hint);
        Some(if with_hint.as_str().len() <= MAX_LOGOUT_URL { with_hint } else { url(None) })
    }

    fn verify_with(
        &self,
        known: &Known,
        id_token: &str,
        expected: Expected<'_>,
    ) -> Result<VerifiedClaims, IdTokenError> {
        let now = self.knowledge.clock.now();
        if !self.knowledge.is_usable(known) {
            return Err(IdTokenError::UnknownKey);
        }
        let settings = &known.settings;
        let algorithms = settings.allowed_algorithms(&known.metadata.id_token_signing_algs);
        let trust = settings.trust(known, &algorithms);
        id_token::verify(id_token, trust, settings.rules(), expected, now)
    }
}

impl Settings {
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
        Signatory { id: self.id.clone(), party: self.party() }
    }

    /// What ID tokens may be signed with, given what the metadata offers. HMAC is never taken from there: the secret is
    /// enough to sign with it.
    pub(super) fn allowed_algorithms(&self, offered: &[Algorithm]) -> Vec<Algorithm> {
        if self.is_symmetric() {
            return self.signing_algs.clone();
        }
        let wanted = if self.signing_algs.is_empty() { offered } else { &self.signing_algs };
        let mut allowed: Vec<_> = wanted.iter().copied().filter(|algorithm| !algorithm.is_symmetric()).collect();
        if allowed.is_empty() && self.signing_algs.is_empty() {
            // Discovery §3: every provider must offer it.
            allowed.push(Algorithm::RS256);
        }
        allowed
    }

    /// Whether the client is registered for one HMAC algorithm, so that the provider's key set plays no part.
    pub(super) fn is_symmetric(&self) -> bool {
        matches!(*self.signing_algs, [only] if only.is_symmetric()) && self.credentials.client_secret.is_some()
    }

    /// What makes our requests. It reads no token, so it gets no keys.
    pub(super) fn client(&self, metadata: &Metadata) -> Client {
        let Credentials { client_id, client_secret } = &self.credentials;
        let secret = client_secret.as_ref().map(|secret| ClientSecret::new(secret.expose_secret().to_owned()));
        Client::from_provider_metadata(metadata.standard.clone(), ClientId::new(client_id.clone()), secret)
            .set_redirect_uri(RedirectUrl::from_url(self.redirect_uri.clone()))
            .set_auth_type(token_endpoint::auth_type(metadata))
            // It is among the scopes.
            .disable_openid_scope()
    }

    /// What anything but an ID token may be signed with.
    pub(super) fn algorithms_of_others(&self) -> Vec<Algorithm> {
        if self.signing_algs.is_empty() { Algorithm::ASYMMETRIC.to_vec() } else { self.allowed_algorithms(&[]) }
    }

    pub(super) fn trust<'a>(&'a self, known: &'a Known, algorithms: &'a [Algorithm]) -> Trust<'a> {
        Trust { keys: &known.keys, secret: self.credentials.client_secret.as_ref(), algorithms }
    }

    pub(super) fn rules(&self) -> Rules<'_> {
        Rules {
            issuer: &self.issuer,
            client_id: &self.credentials.client_id,
            trusted_audiences: &self.trusted_audiences,
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

/// The longest logout URL, in bytes.
const MAX_LOGOUT_URL: usize = 4096;

#[cfg(test)]
pub(super) use tests::settings as test_settings;

#[cfg(test)]
mod tests;
