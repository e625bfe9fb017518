//! What is configured about one provider and our client there (OpenID Connect Core 1.0 §3.1, Dynamic Client Registration 1.0 §2),
//! and what follows from that alone.

use std::time::Duration;

use openidconnect::core::CoreClient;
use openidconnect::{ClientId, EndpointMaybeSet, EndpointNotSet, EndpointSet, RedirectUrl};
use url::Url;

use super::access_token::AccessTokens;
use super::algorithms::AnswerAlgorithms;
use super::ask::Ask;
use super::claims::Rules;
use super::client_auth;
use super::decryption::Decryption;
use super::demands::Demands;
use super::discovery::Metadata;
use super::jose::{Algorithm, Trust};
use super::known::Known;
use super::party::Party;
use super::registration::RegistrationSettings;
use super::response::{ResponseMode, ResponseType};
use super::security::{Profile, Security};
use super::static_metadata::StaticMetadata;
use super::tenants::Tenants;
use crate::authn::session::Signatory;
use crate::provider_http;
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
    /// The claim that is sent as `logout_hint`, whose meaning is the provider's (RP-Initiated Logout §2).
    pub logout_hint_claim: Option<String>,
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

/// Who we are at a provider, by name and secret.
#[derive(Debug, Clone)]
pub struct Credentials {
    /// Our client id.
    pub client_id: String,
    /// Our client secret; `None` for a client that has none.
    pub client_secret: Option<SecretString>,
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
        Signatory {
            id: self.id.clone(),
            party: self.party(),
            issuer: self.issuer.clone(),
            tenants: self.tenants.clone(),
        }
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

/// The library's client, from a provider's metadata.
pub(super) type Client =
    CoreClient<EndpointSet, EndpointNotSet, EndpointNotSet, EndpointNotSet, EndpointMaybeSet, EndpointMaybeSet>;
