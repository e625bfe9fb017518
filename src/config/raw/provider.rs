//! The provider, as it is written.

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;

use super::OneOrMany;
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
    /// The issuer of ID tokens where each tenant has one of its own, with {tenantid} for the tenant (tid), exactly as the
    /// discovery document writes it.
    #[schemars(example = &"https://login.microsoftonline.com/{tenantid}/v2.0")]
    pub issuer_template: Option<String>,
    /// Tenants whose people may sign in, by their ids; ["*"]: every tenant there is.
    #[schemars(example = ["8f1c2c4b-7a0e-4b5e-9c43-0d2f5a6b7c8d"])]
    pub allowed_tenants: Option<Vec<String>>,
    /// Where this process reaches the provider, when that differs from the provider's public address.
    #[schemars(example = &"http://keycloak.internal:8080")]
    pub backchannel_url: Option<WebUrl>,
    /// Ask the provider for its metadata. Default true; with false, [provider.metadata] says all of them.
    #[schemars(example = true)]
    pub discovery: Option<bool>,
    /// A file with the public key that signs the provider's key set, a JSON Web Key Set: keys then come from its
    /// signed_jwks_uri, and no unsigned key set counts.
    #[schemars(example = &"/etc/vestibule/key-set-key.json")]
    pub signed_jwks_key_file: Option<PathBuf>,
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
    /// How the client authenticates. Default: what is configured and the provider offers.
    #[schemars(example = &"private_key_jwt")]
    pub client_auth_method: Option<RawClientAuthMethod>,
    /// Private keys of the client, PEM or JWK, read again when they change: the first that fits signs, all are published.
    #[schemars(example = ["/run/secrets/client-key.pem"])]
    pub client_keys_files: Option<Vec<PathBuf>>,
    /// What assertions and requests are signed with. Default: the first that key and provider agree on, PS256 before RS256; RS256
    /// where the provider does not say.
    #[schemars(example = &"RS256")]
    pub client_signing_alg: Option<RawAlgorithm>,
    /// A token that says who the client is, such as a projected one of a Kubernetes service account; read at each use.
    #[schemars(example = &"/var/run/secrets/tokens/vestibule")]
    pub client_assertion_file: Option<PathBuf>,
    /// Whom the client's own assertions are for. Default "issuer".
    #[schemars(example = &"issuer")]
    pub client_assertion_audience: Option<RawAudience>,
    /// The client's certificate chain (PEM), read again when it changes.
    #[schemars(example = &"/run/secrets/client.crt")]
    pub client_certificate_file: Option<PathBuf>,
    /// The key of that certificate (PEM).
    #[schemars(example = &"/run/secrets/client.key")]
    pub client_certificate_key_file: Option<PathBuf>,
    /// Push authorization requests (RFC 9126). Default: where the provider demands it.
    #[schemars(example = true)]
    pub pushed_authorization_requests: Option<bool>,
    /// Sign authorization requests with the client's keys (RFC 9101), sent or fetched by the provider.
    #[schemars(example = &"value")]
    pub request_object: Option<RawRequestObject>,
    /// Bind tokens to a key of the client's (RFC 9449).
    #[schemars(example = true)]
    pub dpop: Option<bool>,
    /// That key, PEM or JWK, the same at every replica. Default: each process makes its own.
    #[schemars(example = &"/run/secrets/dpop.pem")]
    pub dpop_key_file: Option<PathBuf>,
    /// Everything that a profile asks of a client, and nothing that contradicts it.
    #[schemars(example = &"fapi2")]
    pub profile: Option<RawProfile>,
    /// Where the provider sends people back to; registered there. Its path becomes the callback endpoint.
    #[schemars(example = &"https://app.example.com/auth/callback")]
    pub redirect_uri: Option<WebUrl>,
    /// Where the provider sends people after signing out; registered there.
    #[schemars(example = &"https://app.example.com/auth/signed-out")]
    pub post_logout_redirect_uri: Option<WebUrl>,
    /// Revoke the tokens of a session that is signed out, where the provider offers that. Default true.
    #[schemars(example = false)]
    pub revoke_at_sign_out: Option<bool>,
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
    /// A claim whose value goes along with the logout request as logout_hint, such as login_hint. Default: none.
    #[schemars(example = &"login_hint")]
    pub logout_hint_claim: Option<String>,
    /// Extra parameters of the logout request, such as ui_locales.
    #[serde(default)]
    pub logout_params: BTreeMap<String, String>,
    /// Ways to sign in that are asked for, in order of preference; the provider may choose another.
    #[schemars(example = ["gold", "silver"])]
    pub acr_values: Option<Vec<String>>,
    /// Ways to sign in of which the ID token must name one. Default: any.
    #[schemars(example = ["gold", "silver"])]
    pub required_acr: Option<Vec<String>>,
    /// The longest time since people proved who they are: a sign-in asks for it and checks it.
    #[schemars(example = &"8h")]
    pub max_age: Option<Span>,
    /// The oldest ID token that is taken, by its time of issue. Default: any that has not expired.
    #[schemars(example = &"5m")]
    pub max_token_age: Option<Span>,
    /// How far the provider's clock may be from ours. Default 30s.
    #[schemars(example = &"30s")]
    pub clock_skew: Option<Span>,
    /// Who is expected to sign in.
    #[schemars(example = &"ada@example.com")]
    pub login_hint: Option<String>,
    /// Languages for the provider's pages, in order of preference.
    #[schemars(example = ["de", "en"])]
    pub ui_locales: Option<Vec<String>>,
    /// Single claims that are asked for, as JSON (the claims parameter).
    #[schemars(example = &"{\"id_token\":{\"email\":{\"essential\":true}}}")]
    pub claims: Option<String>,
    /// What the provider shows even to whoever is signed in there: login, consent, select_account. Default: nothing, and consent
    /// with the scope offline_access; an empty text: nothing.
    #[schemars(example = &"select_account")]
    pub prompt: Option<String>,
    /// What access tokens are for (RFC 8707): absolute URIs.
    #[schemars(example = ["https://api.example.com"])]
    pub resource: Option<OneOrMany>,
    /// What access is asked for in detail (RFC 9396), as JSON.
    #[schemars(example = &"[{\"type\":\"payment\"}]")]
    pub authorization_details: Option<String>,
    /// Audiences of the ID token that are trusted beside the client id.
    #[schemars(example = ["api"])]
    pub trusted_audiences: Option<Vec<String>>,
    /// What its access tokens are: verified here ("at+jwt": to the letter of RFC 9068), or explained by the provider. Default
    /// "jwt".
    #[schemars(example = &"jwt")]
    pub access_token_format: Option<RawAccessTokenFormat>,
    /// Ask the introspection endpoint about opaque access tokens, in the place of userinfo; "jwt": only a signed answer counts.
    #[schemars(example = &"json")]
    pub introspection: Option<RawIntrospection>,
    /// Signing algorithms accepted for ID tokens. Default: every asymmetric one that the provider offers.
    #[schemars(example = ["RS256"])]
    pub signing_algs: Option<Vec<RawAlgorithm>>,
    /// The same for signed userinfo, and no other userinfo is taken then. Default: as it comes, by every asymmetric algorithm that
    /// the provider offers.
    #[schemars(example = ["RS256"])]
    pub userinfo_signing_algs: Option<Vec<RawAlgorithm>>,
    /// The same for signed authorization responses (JARM).
    #[schemars(example = ["PS256"])]
    pub authorization_signing_algs: Option<Vec<RawAlgorithm>>,
    /// The same for signed introspection answers.
    #[schemars(example = ["RS256"])]
    pub introspection_signing_algs: Option<Vec<RawAlgorithm>>,
    /// The same for access tokens that are verified here.
    #[schemars(example = ["RS256"])]
    pub access_token_signing_algs: Option<Vec<RawAlgorithm>>,
    /// How encrypted tokens may be made out to us. Default RSA-OAEP-256 and ECDH-ES, with and without key wrap.
    #[schemars(example = ["RSA-OAEP-256"])]
    pub decryption_algs: Option<Vec<String>>,
    /// Refuse ID tokens that are not encrypted.
    #[schemars(example = true)]
    pub require_encrypted_id_token: Option<bool>,
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
    /// The least time between two key fetches that strangers' tokens cause by unknown key ids. Default 30s.
    pub key_refetch_interval: Option<Span>,
    /// How long keys stay usable when they can't be refreshed. Default 24h.
    pub stale_keys: Option<Span>,
    /// Token calls at the same time; more wait. A quarter as many ask about access tokens of requests, apart. Default 64.
    #[schemars(example = 64, range(min = 1, max = 100_000))]
    pub max_token_calls: Option<u32>,
    /// How long a token call may wait for its turn. Default 5s.
    pub token_queue_timeout: Option<Span>,
    /// Take names and passwords of programs (Authorization: Basic on guarded routes) and exchange them here, which RFC 9700
    /// forbids. Default false.
    #[schemars(example = true)]
    pub insecure_password_grant: Option<bool>,
}

/// How the client authenticates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::config) enum RawClientAuthMethod {
    None,
    ClientSecretBasic,
    ClientSecretPost,
    ClientSecretJwt,
    PrivateKeyJwt,
    TlsClientAuth,
    SelfSignedTlsClientAuth,
    KubernetesServiceAccount,
    InsecureXCert,
}

/// Whom an assertion is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::config) enum RawAudience {
    Issuer,
    TokenEndpoint,
}

/// How a signed request travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::config) enum RawRequestObject {
    Value,
    Reference,
}

/// A set of rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::config) enum RawProfile {
    Fapi2,
}

/// What access tokens are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(in crate::config) enum RawAccessTokenFormat {
    Jwt,
    #[serde(rename = "at+jwt")]
    AtJwt,
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
