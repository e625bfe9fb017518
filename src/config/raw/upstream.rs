//! The upstreams, as they are written.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;

use super::{OneOrMany, RawHeaderEdits, RawRespond};
use crate::config::text::{Span, Statuses};

/// One application.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct RawUpstream {
    /// Its address: http or https with host and port and no path, or unix: and a socket's path.
    #[schemars(example = &"http://127.0.0.1:3000")]
    pub url: Option<String>,
    /// Several instances, in the place of url: the addresses of each.
    #[schemars(example = ["http://10.0.0.1:3000", "http://10.0.0.2:3000"])]
    pub urls: Option<Vec<String>>,
    /// What it sees as Host. Default: what the client wrote.
    #[schemars(example = &"app.internal")]
    pub host: Option<String>,
    /// What is spoken there: http1, h2, or auto, which lets an https upstream choose by ALPN. Default http1.
    #[schemars(example = &"h2")]
    pub protocol: Option<RawProtocol>,
    /// TLS towards an https upstream.
    pub tls: Option<RawUpstreamTls>,
    /// Give it an access token as Authorization: Bearer: "bearer", that of whoever is signed in; "client_credentials", one of
    /// our own.
    #[schemars(example = &"bearer")]
    pub access_token: Option<RawAccessToken>,
    /// What the token of our own is asked for with.
    pub client_credentials: Option<RawClientCredentials>,
    /// Whether its 401 with insufficient_user_authentication (RFC 9470) sends people to sign in as it demands. Default true.
    #[schemars(example = false)]
    pub step_up: Option<bool>,
    /// To connect, TLS included. Default 5s.
    pub connect_timeout: Option<Span>,
    /// From the end of the request to the answer's head. Default 60s.
    pub response_timeout: Option<Span>,
    /// The most time without a byte on a body, either way. Default 5m.
    pub idle_timeout: Option<Span>,
    /// From the request's arrival to the end of its answer; 0s is no limit. Default 0s.
    #[schemars(example = &"10m")]
    pub total_timeout: Option<Span>,
    /// How long an unused connection is kept. Default 55s.
    pub pool_idle: Option<Span>,
    /// The most unused connections kept, per worker. Default 128.
    #[schemars(example = 128, range(max = 100_000))]
    pub pool_size: Option<u32>,
    /// How often host names are resolved while they are used; each address is an instance. Default 5s.
    pub resolve_interval: Option<Span>,
    /// Failures in a row after which one of several instances is left out; 0: never. Default 3.
    #[schemars(example = 3, range(max = 1_000))]
    pub eject_after: Option<u32>,
    /// For how long, the first time; doubled each time in a row, up to 5m. Default 10s.
    pub eject_for: Option<Span>,
    /// Asks each instance how it is. Default: not at all.
    pub health: Option<RawHealth>,
    /// Header fields that it gets otherwise than the client wrote them.
    #[serde(default)]
    pub request_headers: RawHeaderEdits,
    /// Header fields that the client gets otherwise than it wrote them.
    #[serde(default)]
    pub response_headers: RawHeaderEdits,
    /// No application: one answer to everything.
    pub respond: Option<RawRespond>,
    /// No application: the files of this folder.
    #[schemars(example = &"/srv/site")]
    pub files: Option<PathBuf>,
    /// The files looked for where a folder is asked for. Default index.html.
    #[schemars(example = ["index.html"])]
    pub index: Option<Vec<String>>,
    /// The file that a person gets where there is none, for single-page applications.
    #[schemars(example = &"index.html")]
    pub fallback: Option<String>,
}

/// How instances are asked how they are.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct RawHealth {
    /// What they are asked for.
    #[schemars(example = &"/healthz")]
    pub path: Option<String>,
    /// How often. Default 10s.
    pub interval: Option<Span>,
    /// The most time for an answer. Default 2s.
    pub timeout: Option<Span>,
    /// Good answers in a row that bring an instance back. Default 2.
    #[schemars(example = 2, range(min = 1, max = 1_000))]
    pub healthy_after: Option<u32>,
    /// Bad answers in a row that take one out. Default 3.
    #[schemars(example = 3, range(min = 1, max = 1_000))]
    pub unhealthy_after: Option<u32>,
    /// The status of a good answer, or a range. Default 200-299.
    pub expect: Option<Statuses>,
}

/// What is spoken to an upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(in crate::config) enum RawProtocol {
    Http1,
    H2,
    Auto,
}

/// Whose certificate is believed, and whose is shown.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct RawUpstreamTls {
    /// The only roots that are believed (PEM). Default: the system's.
    #[schemars(example = &"/etc/ssl/internal-ca.pem")]
    pub ca_file: Option<PathBuf>,
    /// The name that is asked for and that the certificate must have. Default: the URL's host.
    #[schemars(example = &"app.internal")]
    pub server_name: Option<String>,
    /// Our certificate with its chain (PEM), for an upstream that asks for one.
    #[schemars(example = &"/run/secrets/client.pem")]
    pub client_certificate_file: Option<PathBuf>,
    /// Its key (PEM).
    #[schemars(example = &"/run/secrets/client-key.pem")]
    pub client_key_file: Option<PathBuf>,
}

/// A token of our own for an upstream (RFC 6749 §4.4).
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct RawClientCredentials {
    /// The provider that gives it. Default: the only one there is.
    #[schemars(example = &"company")]
    pub provider: Option<String>,
    /// The scopes asked for. Default: none.
    #[schemars(example = ["orders.read"])]
    pub scopes: Option<Vec<String>>,
    /// What it is for (RFC 8707): one URI or several.
    #[schemars(example = &"https://api.example.com")]
    pub resource: Option<OneOrMany>,
    /// The same for providers that have a parameter of this name.
    #[schemars(example = &"orders")]
    pub audience: Option<String>,
}

/// How the access token is passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::config) enum RawAccessToken {
    Bearer,
    ClientCredentials,
    Off,
}
