//! The authorization request (OpenID Connect Core 1.0 §3.1.2.1, RFC 6749 §4.1.1, RFC 7636 §4.3), as a URL, an object (RFC 9101) or
//! pushed (RFC 9126).

use std::borrow::Cow;
use std::sync::Arc;

use openidconnect::core::{CoreAuthenticationFlow, CoreResponseType};
use openidconnect::{CsrfToken, Nonce, Scope};
use url::Url;

use super::Provider;
use super::client_auth::ProofError;
use super::discovery::{DiscoveryError, Unsupported};
use super::known::Known;
use super::par::{self, PushError};
use super::query::without_doubles;
use super::response::ResponseType;
use super::wish::Wish;

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

impl Provider {
    /// Where to send the user agent with the authorization request (RFC 6749 §4.1.1, RFC 7636 §4.3, OpenID Connect Core
    /// §3.1.2.1).
    ///
    /// # Errors
    /// [`AuthorizationError`].
    pub async fn authorization_url(&self, asked: AuthorizationRequest<'_>) -> Result<Url, AuthorizationError> {
        let known = self.knowledge.usable_soon().await;
        let known = known.ok_or_else(|| AuthorizationError::ProviderUnknown(self.last_error()))?;
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
}

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
