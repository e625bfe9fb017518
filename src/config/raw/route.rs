//! The routes, as they are written.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{OneOrMany, RawHeaderEdits};
use crate::config::text::{Often, SizeOrOff, Span};

/// One rule.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct RawRoute {
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
    /// The provider to sign in at, by its name in [providers], or several. Default: any.
    #[schemars(example = &"company")]
    pub provider: Option<OneOrMany>,
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
    /// Taken away from the front of the path before the upstream sees it; it gets X-Forwarded-Prefix instead.
    #[schemars(example = &"/app")]
    pub strip_prefix: Option<String>,
    /// Put in front of the path that the upstream sees, after strip_prefix.
    #[schemars(example = &"/v2")]
    pub add_prefix: Option<String>,
    /// The largest request body, or "off". Default: that of [limits].
    pub max_body: Option<SizeOrOff>,
    /// How often one client or user may use it; what is more gets 429. Default: as often as they like.
    pub rate_limit: Option<RawRateLimit>,
    /// Header fields that the upstream gets otherwise than the client wrote them.
    #[serde(default)]
    pub request_headers: RawHeaderEdits,
    /// Header fields that the client gets otherwise than the upstream wrote them.
    #[serde(default)]
    pub response_headers: RawHeaderEdits,
}

/// How often.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct RawRateLimit {
    /// Whose requests are counted: those of an address, or of a signed-in user.
    #[schemars(example = &"client")]
    pub per: RawPer,
    /// How many in a second, minute or hour.
    pub rate: Often,
    /// How many may come at once. Default: the number in rate.
    #[schemars(example = 20, range(min = 1, max = 1_000_000))]
    pub burst: Option<u32>,
}

/// Whose requests are counted.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(in crate::config) enum RawPer {
    Client,
    User,
}

/// Who may pass.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(in crate::config) enum RawAccess {
    Public,
    Optional,
    Required,
}

/// What a signed-in person must have.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct RawRequire {
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
    /// Signed in at the provider in one of these ways (acr); whoever is not signs in so and comes back.
    #[schemars(example = ["gold"])]
    pub acr: Option<OneOrMany>,
    /// Proved who they are at the provider no longer ago (auth_time); whoever did not does so and comes back.
    #[schemars(example = &"5m")]
    pub max_age: Option<Span>,
}

/// What a CORS preflight meets.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(in crate::config) enum RawPreflight {
    Refuse,
    Forward,
}
