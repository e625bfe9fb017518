//! The identity, as it is written.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use super::OneOrMany;

/// Who somebody is.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct RawIdentity {
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
pub(in crate::config) enum RawHeaderSource {
    /// A built-in source.
    Builtin(RawBuiltin),
    /// Any claim.
    Claim(RawClaim),
}

/// Sources with a name of their own.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::config) enum RawBuiltin {
    Name,
    Roles,
    Groups,
    Email,
    Provider,
    Subject,
    ClientCertificateSubject,
    ClientCertificateSan,
}

/// Any claim.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct RawClaim {
    /// Its name, or a path into nested claims.
    #[schemars(example = ["org", "department"])]
    pub claim: OneOrMany,
}

/// How lists are written.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(in crate::config) enum RawListFormat {
    Comma,
    Json,
}
