//! The upstreams, as they are written.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::text::Span;

/// One application.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct RawUpstream {
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
pub(in crate::config) enum RawAccessToken {
    Bearer,
    Off,
}
