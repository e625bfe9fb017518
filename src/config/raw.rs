//! What can be written in a configuration: a mirror of the TOML file. The JSON Schema is made from these types, and the
//! walk that finds every problem at once ([`super::walk`]) is driven by that schema, so that there is one list of keys.
//! Doc comments of fields are the schema's descriptions.

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Deserialize;

use super::text::{Address, AdminAddress, Network, Size, Span, WebUrl};
use crate::secret::SecretString;

/// Configuration of Vestibule.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "Vestibule")]
pub(super) struct RawConfig {
    /// Where requests are taken. Default 0.0.0.0:8080.
    pub listen: Option<Address>,
    /// Where health, readiness and metrics are answered, or "off". Default 127.0.0.1:9090.
    pub admin_listen: Option<AdminAddress>,
    /// Worker threads. Default: the cores this process may use.
    #[schemars(example = 2, range(min = 1, max = 1024))]
    pub workers: Option<u32>,
    /// Networks whose X-Forwarded-* and Forwarded headers are believed. Default none.
    pub trusted_proxies: Option<Vec<Network>>,
    /// Further origins that people may be sent back to after signing in or out.
    #[schemars(example = ["https://www.example.com"])]
    pub return_origins: Option<Vec<String>>,
    /// The hosts that are served; all others get 421. Default: any.
    #[schemars(example = ["app.example.com"])]
    pub hosts: Option<Vec<String>>,
    /// A folder for whatever has to outlive a restart. Not used by this release.
    pub state_dir: Option<PathBuf>,
    /// The OpenID Provider.
    #[serde(default)]
    pub provider: RawProvider,
    /// The session.
    #[serde(default)]
    pub session: RawSession,
    /// Our cookies.
    #[serde(default)]
    pub cookie: RawCookie,
    /// Who somebody is: name, roles, and the headers the application sees.
    #[serde(default)]
    pub identity: RawIdentity,
    /// The application.
    pub upstream: Option<RawUpstream>,
    /// Several applications, each with a name that routes use.
    #[serde(default)]
    pub upstreams: BTreeMap<String, RawUpstream>,
    /// Who may pass where. The most specific route wins, so the order does not matter.
    #[serde(default)]
    pub routes: Vec<RawRoute>,
    /// Where our own endpoints are.
    #[serde(default)]
    pub endpoints: RawEndpoints,
    /// Own templates for the pages that people see.
    #[serde(default)]
    pub pages: RawPages,
    /// Logs.
    #[serde(default)]
    pub log: RawLog,
    /// Bounds.
    #[serde(default)]
    pub limits: RawLimits,
    /// How a stop goes.
    #[serde(default)]
    pub drain: RawDrain,
}

/// The OpenID Provider.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawProvider {
    /// The issuer, exactly as the provider writes it in its discovery document.
    #[schemars(example = &"https://id.example.com/realms/demo")]
    pub issuer: Option<String>,
    /// Where this process reaches the provider, when that differs from the provider's public address.
    #[schemars(example = &"http://keycloak.internal:8080")]
    pub backchannel_url: Option<WebUrl>,
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
    /// Extra parameters of the authorization request.
    #[serde(default)]
    pub authorization_params: BTreeMap<String, String>,
    /// Audiences of the ID token that are trusted beside the client id.
    #[schemars(example = ["api"])]
    pub trusted_audiences: Option<Vec<String>>,
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

/// Signature algorithms (RFC 7518 §3.1, RFC 8037 §3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
pub(super) enum RawAlgorithm {
    RS256,
    RS384,
    RS512,
    PS256,
    PS384,
    PS512,
    ES256,
    ES384,
    ES512,
    EdDSA,
    HS256,
}

/// The session.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawSession {
    /// Secrets of at least 32 bytes: the first seals, all open.
    #[schemars(with = "Option<Vec<String>>", extend("writeOnly" = true))]
    pub secrets: Option<Vec<SecretString>>,
    /// Files with one secret each: the first seals, all open.
    #[schemars(example = ["/run/secrets/session-2", "/run/secrets/session-1"])]
    pub secrets_files: Option<Vec<PathBuf>>,
    /// One secret, or several separated by white space: the first seals, all open.
    #[schemars(with = "Option<String>", extend("writeOnly" = true))]
    pub secret: Option<SecretString>,
    /// A file with one secret, or several separated by white space.
    #[schemars(example = &"/run/secrets/session")]
    pub secret_file: Option<PathBuf>,
    /// When a session ends whatever happens. Default 24h.
    pub lifetime: Option<Span>,
    /// When an unused session ends. Default 1h.
    pub idle: Option<Span>,
    /// End the session with the browser.
    #[schemars(example = true)]
    pub browser_session: Option<bool>,
    /// Where sessions are kept. Only "cookie" in this release.
    #[schemars(example = &"cookie")]
    pub store: Option<String>,
}

/// Our cookies.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawCookie {
    /// The name all our cookies begin with; the prefix __Host- is put before it where the redirect URI is https. Default
    /// vestibule.
    #[schemars(example = &"vestibule")]
    pub name: Option<String>,
}

/// One text or several.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum OneOrMany {
    /// One.
    One(String),
    /// Several.
    Many(Vec<String>),
}

impl OneOrMany {
    pub(super) fn into_vec(self) -> Vec<String> {
        match self {
            Self::One(one) => vec![one],
            Self::Many(many) => many,
        }
    }
}

/// Who somebody is.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawIdentity {
    /// The claim that names a person; an array is a path into nested claims. Default sub.
    #[schemars(example = &"preferred_username")]
    pub name_claim: Option<OneOrMany>,
    /// The claims that hold roles; each a name or a path. Default groups, roles, realm_access.roles.
    #[schemars(example = serde_json::json!(["groups", ["realm_access", "roles"]]))]
    pub roles_claims: Option<Vec<OneOrMany>>,
    /// Roles of everyone signed in.
    #[schemars(example = ["user"])]
    pub default_roles: Option<Vec<String>>,
    /// Claim value to roles. With a mapping, values that it does not name give no role.
    pub role_mapping: Option<BTreeMap<String, OneOrMany>>,
    /// Name to roles, beside the mapped ones.
    #[serde(default)]
    pub individual_roles: BTreeMap<String, OneOrMany>,
    /// The headers the application sees. Setting this replaces the default ones.
    pub headers: Option<BTreeMap<String, RawHeaderSource>>,
    /// How lists are written into one header. Default comma.
    #[schemars(example = &"comma")]
    pub list_format: Option<RawListFormat>,
    /// Believe an e-mail address without email_verified.
    #[schemars(example = true)]
    pub trust_unverified_email: Option<bool>,
    /// The claims that the userinfo endpoint shows.
    #[schemars(example = ["sub", "name", "email"])]
    pub userinfo_claims: Option<Vec<String>>,
}

/// What an identity header is filled from.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(example = serde_json::json!({ "claim": "department" }))]
pub(super) enum RawHeaderSource {
    /// A built-in source.
    Builtin(RawBuiltin),
    /// Any claim.
    Claim(RawClaim),
}

/// Sources with a name of their own.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum RawBuiltin {
    Name,
    Roles,
    Groups,
    Email,
    Subject,
}

/// Any claim.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawClaim {
    /// Its name, or a path into nested claims.
    #[schemars(example = ["org", "department"])]
    pub claim: OneOrMany,
}

/// How lists are written.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum RawListFormat {
    Comma,
    Json,
}

/// One application.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawUpstream {
    /// Its address: http, host and port, no path.
    #[schemars(example = &"http://127.0.0.1:3000")]
    pub url: Option<String>,
    /// What it sees as Host. Default: what the client wrote.
    #[schemars(example = &"app.internal")]
    pub host: Option<String>,
    /// Give it the provider's access token as Authorization: Bearer.
    #[schemars(example = &"bearer")]
    pub access_token: Option<RawAccessToken>,
    /// To connect. Default 5s.
    pub connect_timeout: Option<Span>,
    /// From the end of the request to the answer's head. Default 60s.
    pub response_timeout: Option<Span>,
    /// The most time without a byte on a body, either way. Default 5m.
    pub idle_timeout: Option<Span>,
    /// How long an unused connection is kept. Default 55s.
    pub pool_idle: Option<Span>,
    /// The most unused connections kept, per worker. Default 128.
    #[schemars(example = 128, range(max = 100_000))]
    pub pool_size: Option<u32>,
}

/// How the access token is passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum RawAccessToken {
    Bearer,
    Off,
}

/// One rule.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawRoute {
    /// For logs.
    #[schemars(example = &"admin")]
    pub name: Option<String>,
    /// The host it is for. Default: any.
    #[schemars(example = &"app.example.com")]
    pub host: Option<String>,
    /// The path: "/x" exact, "/x/*" everything below, "{id}" one segment. Default: everything.
    #[schemars(example = &"/admin/*")]
    pub path: Option<String>,
    /// The methods; GET covers HEAD. Default: any.
    #[schemars(example = ["GET"])]
    pub methods: Option<OneOrMany>,
    /// Who may pass. Default required.
    #[schemars(example = &"public")]
    pub access: Option<RawAccess>,
    /// What a signed-in person must have; several keys must all hold.
    #[serde(default)]
    pub require: RawRequire,
    /// The upstream, by name.
    #[schemars(example = &"api")]
    pub upstream: Option<String>,
    /// Headers that change the request after judgement and are let through here all the same.
    #[schemars(example = ["X-HTTP-Method-Override"])]
    pub pass_headers: Option<Vec<String>>,
    /// Pass on the client's own Authorization header.
    #[schemars(example = true)]
    pub pass_authorization: Option<bool>,
    /// Foreign origins that may make unsafe requests and WebSocket upgrades with a session.
    #[schemars(example = ["https://partner.example.com"])]
    pub allowed_origins: Option<Vec<String>>,
    /// Protocol upgrades let through beside websocket.
    #[schemars(example = ["tcp"])]
    pub upgrades: Option<Vec<String>>,
    /// What a CORS preflight meets. Default refuse.
    #[schemars(example = &"forward")]
    pub preflight: Option<RawPreflight>,
    /// An identity older than this must sign in anew.
    pub max_identity_age: Option<Span>,
}

/// Who may pass.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum RawAccess {
    Public,
    Optional,
    Required,
}

/// What a signed-in person must have.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawRequire {
    /// Any of these roles.
    #[schemars(example = ["admin"])]
    pub roles: Option<OneOrMany>,
    /// All of these roles.
    #[schemars(example = ["admin", "auditor"])]
    pub all_roles: Option<OneOrMany>,
    /// Any of these groups.
    #[schemars(example = ["/staff"])]
    pub groups: Option<OneOrMany>,
    /// All of these groups.
    #[schemars(example = ["/staff"])]
    pub all_groups: Option<OneOrMany>,
}

/// What a CORS preflight meets.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum RawPreflight {
    Refuse,
    Forward,
}

/// Our own endpoints: the prefix, and each one's whole path or false.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawEndpoints {
    /// Paths below it are ours. Default /auth.
    #[schemars(example = &"/auth")]
    pub prefix: Option<String>,
    /// Starts a sign-in.
    #[schemars(example = &"/auth/login")]
    pub login: Option<PathOrOff>,
    /// Signs out.
    #[schemars(example = &"/auth/logout")]
    pub logout: Option<PathOrOff>,
    /// Where a sign-out ends.
    #[schemars(example = &"/auth/signed-out")]
    pub signed_out: Option<PathOrOff>,
    /// Claims for the front end.
    #[schemars(example = &"/auth/userinfo")]
    pub userinfo: Option<PathOrOff>,
}

/// A path, or `false`.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub(super) enum PathOrOff {
    /// `false`; `true` is the default path.
    Switch(bool),
    /// The whole path.
    Path(String),
}

impl JsonSchema for PathOrOff {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "PathOrOff".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        schemars::json_schema!({ "anyOf": [{ "type": "boolean" }, { "type": "string" }] })
    }
}

/// Template files (minijinja), one for each page.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawPages {
    /// A sign-in could not be finished.
    #[schemars(example = &"pages/sign-in-failed.html")]
    pub sign_in_failed: Option<PathBuf>,
    /// 403.
    #[schemars(example = &"pages/access-denied.html")]
    pub access_denied: Option<PathBuf>,
    /// After a sign-out.
    #[schemars(example = &"pages/signed-out.html")]
    pub signed_out: Option<PathBuf>,
    /// Asks for a click before signing out.
    #[schemars(example = &"pages/confirm-sign-out.html")]
    pub confirm_sign_out: Option<PathBuf>,
    /// The application or the provider is away.
    #[schemars(example = &"pages/unavailable.html")]
    pub unavailable: Option<PathBuf>,
    /// Any other refusal.
    #[schemars(example = &"pages/error.html")]
    pub error: Option<PathBuf>,
}

/// Logs.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawLog {
    /// How lines look. Default text.
    #[schemars(example = &"json")]
    pub format: Option<RawLogFormat>,
    /// A level (error, warn, info, debug, trace, off) or a filter directive. Default info.
    #[schemars(example = &"info")]
    pub level: Option<String>,
    /// One line for each request. Default true.
    #[schemars(example = true)]
    pub access_log: Option<bool>,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum RawLogFormat {
    Text,
    Json,
}

/// Bounds.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawLimits {
    /// Time for a request's head. Default 15s.
    pub header_timeout: Option<Span>,
    /// How long an idle connection is kept. Default 75s.
    pub idle_timeout: Option<Span>,
    /// The largest request head. Default 32KiB.
    pub max_header_bytes: Option<Size>,
    /// The most header fields. Default 100.
    #[schemars(example = 100, range(min = 10, max = 1000))]
    pub max_headers: Option<u32>,
    /// Connections at the same time. Default 10000.
    #[schemars(example = 10_000, range(min = 1, max = 10_000_000))]
    pub max_connections: Option<u32>,
}

/// How a stop goes.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawDrain {
    /// How long new connections are still served after the signal, while readiness says no. Default 5s.
    pub grace: Option<Span>,
    /// How long requests in flight may take after that. Default 20s.
    pub timeout: Option<Span>,
}
