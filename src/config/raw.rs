//! What can be written in a configuration: a mirror of the TOML file. The JSON Schema is made from these types, and the
//! walk that finds every problem at once ([`super::walk`]) is driven by that schema, so that there is one list of keys.
//! Doc comments of fields are the schema's descriptions.

mod edits;
mod identity;
mod listener;
mod metadata;
mod provider;
mod route;
mod upstream;

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Deserialize;

pub(super) use self::edits::{RawHeaderEdits, RawRespond};
pub(super) use self::identity::{RawBuiltin, RawHeaderSource, RawIdentity, RawListFormat};
pub(super) use self::listener::{
    RawAcme, RawChallenge, RawClientCertificate, RawListener, RawListenerTls, RawPair, RawTls, RawTlsVersion,
};
pub(super) use self::metadata::RawMetadata;
pub(super) use self::provider::{
    RawAccessTokenFormat, RawAlgorithm, RawAudience, RawClientAuthMethod, RawIntrospection, RawProfile, RawProvider,
    RawRequestObject, RawResponseMode, RawResponseType,
};
pub(super) use self::route::{RawAccess, RawPer, RawPreflight, RawRateLimit, RawRequire, RawRoute};
pub(super) use self::upstream::{
    RawAccessToken, RawClientCredentials, RawHealth, RawProtocol, RawUpstream, RawUpstreamTls,
};
use super::text::{Address, AdminAddress, Network, OftenOrOff, Size, SizeOrOff, Span, WebUrl};
use crate::secret::SecretString;

/// Configuration of Vestibule.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "Vestibule")]
pub(super) struct RawConfig {
    /// Where requests are taken. Default 0.0.0.0:8080.
    pub listen: Option<Address>,
    /// Further places where requests are taken: unix sockets, behind balancers, with other certificates.
    #[serde(default)]
    pub listeners: Vec<RawListener>,
    /// TLS towards clients.
    pub tls: Option<RawTls>,
    /// Where health, readiness and metrics are answered, or "off". Default 127.0.0.1:9090.
    pub admin_listen: Option<AdminAddress>,
    /// Who shows it at the admin listener may list and end sessions: at least 32 bytes. Default: nobody may.
    #[schemars(with = "Option<String>", extend("writeOnly" = true))]
    pub admin_token: Option<SecretString>,
    /// A file with the same.
    #[schemars(example = &"/run/secrets/admin-token")]
    pub admin_token_file: Option<PathBuf>,
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
    /// Send what came over http to https. Default false.
    #[schemars(example = true)]
    pub https_redirect: Option<bool>,
    /// The one host to be known by, the redirect URI's: what comes to another one is sent there.
    #[schemars(example = &"app.example.com")]
    pub canonical_host: Option<String>,
    /// Strict-Transport-Security on whatever goes over https: for how long, or a table. Default: what the application says.
    pub hsts: Option<RawHsts>,
    /// A folder for whatever has to outlive a restart: ended sessions, certificates of [tls.acme], registrations at
    /// providers.
    pub state_dir: Option<PathBuf>,
    /// Where people find this site, when redirect URIs are to be made of it and endpoints.callback.
    #[schemars(example = &"https://app.example.com")]
    pub public_url: Option<WebUrl>,
    /// The OpenID Provider.
    #[serde(default)]
    pub provider: RawProvider,
    /// Several OpenID Providers, each with a name that routes and links use: its provider_id.
    #[serde(default)]
    pub providers: BTreeMap<String, RawProvider>,
    /// The session.
    #[serde(default)]
    pub session: RawSession,
    /// Access tokens of programs.
    #[serde(default)]
    pub bearer: RawBearer,
    /// Tokens for clients without a browser.
    #[serde(default)]
    pub api_clients: RawApiClients,
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

/// Strict-Transport-Security.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(example = &"1y")]
pub(super) enum RawHsts {
    /// For how long.
    Age(Span),
    /// All of it.
    Policy(RawHstsPolicy),
}

/// Strict-Transport-Security (RFC 6797 §6.1).
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawHstsPolicy {
    /// For how long.
    pub max_age: Span,
    /// Also for every host below this one.
    #[schemars(example = true)]
    pub include_subdomains: Option<bool>,
    /// Also for browsers that have never been here.
    #[schemars(example = true)]
    pub preload: Option<bool>,
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
    /// Renew access tokens by refresh tokens before they expire. Default true.
    #[schemars(example = true)]
    pub renew: Option<bool>,
    /// Take claims and roles anew at least this often: by the refresh token, or where there is none by a redirect of the next
    /// navigation to the provider and back (prompt=none). Default: as often as access tokens are renewed.
    #[schemars(example = &"15m")]
    pub renew_every: Option<Span>,
    /// End the session with the browser.
    #[schemars(example = true)]
    pub browser_session: Option<bool>,
    /// Where sessions lie: "cookie" (default), redis://, rediss://, redis+cluster://, redis+sentinel://, postgres:// or sqlite:.
    #[schemars(with = "Option<String>", extend("writeOnly" = true), example = &"redis://sessions:6379")]
    pub store: Option<SecretString>,
    /// A file that says the same: an address may hold a password.
    #[schemars(example = &"/run/secrets/session-store")]
    pub store_file: Option<PathBuf>,
    /// A store by which replicas with sessions in cookies tell one another what has ended, and which of them renews.
    #[schemars(with = "Option<String>", extend("writeOnly" = true), example = &"redis://sessions:6379")]
    pub share: Option<SecretString>,
    /// A file that says the same.
    #[schemars(example = &"/run/secrets/session-share")]
    pub share_file: Option<PathBuf>,
    /// How long sessions that were seen go on while the store is away; "0s": not at all. Default 1m.
    #[schemars(example = &"1m")]
    pub store_grace: Option<Span>,
    /// Keep forms whose session is over, this many bytes of each at most, and send them after the sign-in of the same person, who
    /// is asked first. Default: none.
    #[schemars(example = &"64KiB")]
    pub keep_posts: Option<Size>,
    /// All of them together that one process keeps. Default 16MiB.
    #[schemars(example = &"16MiB")]
    pub keep_posts_total: Option<Size>,
    /// How long each is kept. Default 15m.
    #[schemars(example = &"15m")]
    pub keep_posts_for: Option<Span>,
}

/// Access tokens of programs, as Authorization: Bearer on guarded routes.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawBearer {
    /// Take them. Default false.
    #[schemars(example = true)]
    pub accept: Option<bool>,
    /// Whom a token must be for: one of these.
    #[schemars(example = ["api"])]
    pub audiences: Option<Vec<String>>,
}

/// Tokens of the provider for clients without a browser, at endpoints of ours.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawApiClients {
    /// What they get tokens by. Default: nothing.
    #[schemars(example = ["device_code", "refresh_token"])]
    pub grants: Option<Vec<RawGrant>>,
}

/// What API clients get tokens by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum RawGrant {
    DeviceCode,
    RefreshToken,
}

/// Our cookies.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawCookie {
    /// The name all our cookies begin with; the prefix __Host- or __Secure- is put before it where the redirect URI is https.
    /// Default vestibule.
    #[schemars(example = &"vestibule")]
    pub name: Option<String>,
    /// Show the session to this host and all below it, too. Default: to the redirect URI's host alone.
    #[schemars(example = &"example.com")]
    pub domain: Option<String>,
    /// Show the session below this path only. Default /.
    #[schemars(example = &"/app")]
    pub path: Option<String>,
    /// Whether the session comes along when a link on another site leads here ("lax", the default) or only on the next
    /// navigation ("strict").
    #[schemars(example = &"strict")]
    pub same_site: Option<RawSameSite>,
    /// Sign people in inside frames of other sites' pages, with cookies of their own for each such site (SameSite=None;
    /// Partitioned). Needs a name and framed_by. Default false.
    #[schemars(example = true)]
    pub partitioned: Option<bool>,
    /// With partitioned: the origins whose pages may show the application in a frame.
    #[schemars(example = &["https://portal.example.com"])]
    pub framed_by: Option<Vec<String>>,
}

/// Which requests the session's cookies come with.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum RawSameSite {
    Lax,
    Strict,
    None,
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

/// Our own endpoints: the prefix, and each one's whole path or false.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawEndpoints {
    /// Paths below it are ours. Default /auth.
    #[schemars(example = &"/auth")]
    pub prefix: Option<String>,
    /// Where providers answer, for redirect URIs made of public_url; {provider_id} stands for the provider's. Default
    /// PREFIX/callback, with several providers PREFIX/callback/{provider_id}.
    #[schemars(example = &"/login/oauth2/code/{provider_id}")]
    pub callback: Option<String>,
    /// Starts a sign-in.
    #[schemars(example = &"/auth/login")]
    pub login: Option<PathOrOff>,
    /// Signs out.
    #[schemars(example = &"/auth/logout")]
    pub logout: Option<PathOrOff>,
    /// Where a sign-out ends.
    #[schemars(example = &"/auth/signed-out")]
    pub signed_out: Option<PathOrOff>,
    /// Where a form that was kept is sent after all (session.keep_posts).
    #[schemars(example = &"/auth/kept-post")]
    pub kept_post: Option<PathOrOff>,
    /// Where providers end sessions with a logout token; registered there as backchannel_logout_uri.
    #[schemars(example = &"/auth/backchannel-logout")]
    pub backchannel_logout: Option<PathOrOff>,
    /// What providers show in a frame to end a session; registered there as frontchannel_logout_uri.
    #[schemars(example = &"/auth/frontchannel-logout")]
    pub frontchannel_logout: Option<PathOrOff>,
    /// Claims for the front end.
    #[schemars(example = &"/auth/userinfo")]
    pub userinfo: Option<PathOrOff>,
    /// Our public keys, where there are any.
    #[schemars(example = &"/auth/jwks")]
    pub jwks: Option<PathOrOff>,
    /// Starts a device authorization, where api_clients.grants names "device_code".
    #[schemars(example = &"/auth/device")]
    pub device: Option<PathOrOff>,
    /// Gives tokens to API clients, where api_clients.grants names a grant.
    #[schemars(example = &"/auth/token")]
    pub token: Option<PathOrOff>,
    /// Where providers fetch signed requests, each below it (request_object = "reference").
    #[schemars(example = &"/auth/request")]
    pub request: Option<PathOrOff>,
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
    /// Several providers, one to be chosen.
    #[schemars(example = &"pages/choose-provider.html")]
    pub choose_provider: Option<PathBuf>,
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
    /// Asks for a click before a form that was kept is sent.
    #[schemars(example = &"pages/send-form.html")]
    pub send_form: Option<PathBuf>,
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
    /// How long a client may read nothing of an answer. Default 5m.
    pub unread_timeout: Option<Span>,
    /// The largest request head. Default 32KiB.
    pub max_header_bytes: Option<Size>,
    /// The most header fields. Default 100.
    #[schemars(example = 100, range(min = 10, max = 1000))]
    pub max_headers: Option<u32>,
    /// Requests at the same time on one connection of HTTP/2. Default 128.
    #[schemars(example = 128, range(min = 1, max = 1000))]
    pub h2_max_streams: Option<u32>,
    /// Connections at the same time. Default 10000.
    #[schemars(example = 10_000, range(min = 1, max = 10_000_000))]
    pub max_connections: Option<u32>,
    /// Connections of one client address at the same time; trusted proxies may have any number. Default: any number.
    #[schemars(example = 100, range(min = 1, max = 10_000_000))]
    pub max_connections_per_client: Option<u32>,
    /// Requests of one connection. Default 10000.
    #[schemars(example = 10_000, range(min = 1, max = 1_000_000_000))]
    pub max_requests_per_connection: Option<u32>,
    /// The longest request target: path and query. Default 8KiB.
    pub max_uri_bytes: Option<Size>,
    /// The largest request body, or "off"; a route can say otherwise. Default off.
    pub max_body: Option<SizeOrOff>,
    /// The slowest a request body may come, in bytes per second on average, or "off". Default 240B.
    #[schemars(example = &"240B")]
    pub min_body_rate: Option<SizeOrOff>,
    /// How long a request body may fall behind min_body_rate. Default 60s.
    pub body_grace: Option<Span>,
    /// How often one client address may sign in, or "off". Default 10/s.
    pub sign_in_rate: Option<OftenOrOff>,
    /// How many sign-ins of one client address may come at once. Default 600.
    #[schemars(example = 600, range(min = 1, max = 1_000_000))]
    pub sign_in_burst: Option<u32>,
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
