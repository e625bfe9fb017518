//! The provider, as it is written.

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;

use super::metadata::RawMetadata;
use crate::config::text::{Size, Span, WebUrl};
use crate::secret::SecretString;

/// The OpenID Provider.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct RawProvider {
    /// What people call it, on the page where they choose one of several. Default: its provider_id.
    #[schemars(example = &"Company account")]
    pub name: Option<String>,
    /// A picture to show beside the name: a file, SVG, PNG, JPEG or WebP, of at most 32 KiB.
    #[schemars(example = &"/etc/vestibule/company.svg")]
    pub logo: Option<PathBuf>,
    /// Domains of e-mail addresses whose owners sign in here, for the page where they choose.
    #[schemars(example = ["example.com"])]
    pub email_domains: Option<Vec<String>>,
    /// The issuer, exactly as the provider writes it in its discovery document.
    #[schemars(example = &"https://id.example.com/realms/demo")]
    pub issuer: Option<String>,
    /// Where this process reaches the provider, when that differs from the provider's public address.
    #[schemars(example = &"http://keycloak.internal:8080")]
    pub backchannel_url: Option<WebUrl>,
    /// Ask the provider for its metadata. Default true; with false, [provider.metadata] says all of them.
    #[schemars(example = true)]
    pub discovery: Option<bool>,
    /// Metadata in the place of what the provider says of itself, member by member.
    pub metadata: Option<RawMetadata>,
    /// Register a client at the provider (RFC 7591), in the place of client_id. Default false.
    #[schemars(example = true)]
    pub dynamic_registration: Option<bool>,
    /// A file with the initial access token that the provider wants for a registration.
    #[schemars(example = &"/run/secrets/registration-token")]
    pub registration_token_file: Option<PathBuf>,
    /// The name that a registered client has at the provider.
    #[schemars(example = &"Our application")]
    pub client_name: Option<String>,
    /// The client id registered at the provider.
    #[schemars(example = &"app")]
    pub client_id: Option<String>,
    /// The client secret.
    #[schemars(with = "Option<String>", extend("writeOnly" = true))]
    pub client_secret: Option<SecretString>,
    /// A file that holds the client secret.
    #[schemars(example = &"/run/secrets/oidc")]
    pub client_secret_file: Option<PathBuf>,
    /// The client is registered as a public one, without a secret.
    #[schemars(example = true)]
    pub public_client: Option<bool>,
    /// Where the provider sends people back to; registered there. Its path becomes the callback endpoint.
    #[schemars(example = &"https://app.example.com/auth/callback")]
    pub redirect_uri: Option<WebUrl>,
    /// Where the provider sends people after signing out; registered there.
    #[schemars(example = &"https://app.example.com/auth/signed-out")]
    pub post_logout_redirect_uri: Option<WebUrl>,
    /// The scopes asked for. Default openid email profile.
    #[schemars(example = ["openid", "email", "profile"])]
    pub scopes: Option<Vec<String>>,
    /// Extra roots (PEM) for connections to the provider, beside the system's.
    #[schemars(example = &"/etc/ssl/company.pem")]
    pub ca_file: Option<PathBuf>,
    /// What is asked for. Default "code".
    #[schemars(example = &"code id_token")]
    pub response_type: Option<RawResponseType>,
    /// How the answer comes back. Default "query", with response_type "code id_token" "form_post".
    #[schemars(example = &"form_post")]
    pub response_mode: Option<RawResponseMode>,
    /// Extra parameters of the authorization request.
    #[serde(default)]
    pub authorization_params: BTreeMap<String, String>,
    /// Audiences of the ID token that are trusted beside the client id.
    #[schemars(example = ["api"])]
    pub trusted_audiences: Option<Vec<String>>,
    /// What its access tokens are: verified here, or explained by the provider. Default "jwt".
    #[schemars(example = &"jwt")]
    pub access_token_format: Option<RawAccessTokenFormat>,
    /// Ask the introspection endpoint about opaque access tokens, in the place of userinfo; "jwt": only a signed answer counts.
    #[schemars(example = &"json")]
    pub introspection: Option<RawIntrospection>,
    /// Signing algorithms accepted for ID tokens. Default: every asymmetric one that the provider offers.
    #[schemars(example = ["RS256"])]
    pub signing_algs: Option<Vec<RawAlgorithm>>,
    /// Fetch userinfo where the provider offers it. Default true.
    #[schemars(example = true)]
    pub userinfo: Option<bool>,
    /// The deadline of one call to the provider. Default 15s.
    pub timeout: Option<Span>,
    /// The largest answer taken from the provider. Default 1MiB.
    pub max_response: Option<Size>,
    /// Allow http beyond loopback for redirect URI, issuer and provider endpoints.
    #[schemars(example = true)]
    pub allow_insecure_http: Option<bool>,
    /// How often discovery and keys are refreshed. Default 15m.
    pub refresh_interval: Option<Span>,
    /// The least time between two key fetches caused by unknown key ids. Default 30s.
    pub key_refetch_interval: Option<Span>,
    /// How long keys stay usable when they can't be refreshed. Default 24h.
    pub stale_keys: Option<Span>,
    /// Token calls at the same time; more wait. Default 64.
    #[schemars(example = 64, range(min = 1, max = 100_000))]
    pub max_token_calls: Option<u32>,
    /// How long a token call may wait for its turn. Default 5s.
    pub token_queue_timeout: Option<Span>,
}

/// What access tokens are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(in crate::config) enum RawAccessTokenFormat {
    Jwt,
    Opaque,
}

/// How the introspection endpoint answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(in crate::config) enum RawIntrospection {
    Json,
    Jwt,
}

/// What is asked for.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
pub(in crate::config) enum RawResponseType {
    #[serde(rename = "code")]
    Code,
    #[serde(rename = "code id_token")]
    CodeIdToken,
}

/// How the answer comes back.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
pub(in crate::config) enum RawResponseMode {
    #[serde(rename = "query")]
    Query,
    #[serde(rename = "form_post")]
    FormPost,
    #[serde(rename = "jwt")]
    Jwt,
    #[serde(rename = "query.jwt")]
    QueryJwt,
    #[serde(rename = "form_post.jwt")]
    FormPostJwt,
}

/// Signature algorithms (RFC 7518 §3.1, RFC 8037 §3.1, RFC 8812 §3.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
pub(in crate::config) enum RawAlgorithm {
    RS256,
    RS384,
    RS512,
    PS256,
    PS384,
    PS512,
    ES256,
    ES384,
    ES512,
    ES256K,
    EdDSA,
    HS256,
    HS384,
    HS512,
}
