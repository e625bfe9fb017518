//! What an operator writes about a provider in the place of its discovery document.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Provider metadata (OpenID Connect Discovery 1.0 §3, RFC 8414 §2), each member in the place of the discovered one.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct RawMetadata {
    /// Where people sign in.
    #[schemars(example = &"https://id.example.com/authorize")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub authorization_endpoint: Option<String>,
    /// Where codes become tokens.
    #[schemars(example = &"https://id.example.com/token")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_endpoint: Option<String>,
    /// Where the provider's keys are.
    #[schemars(example = &"https://id.example.com/keys")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jwks_uri: Option<String>,
    /// Where the provider's keys are, signed (OpenID Federation 1.0).
    #[schemars(example = &"https://id.example.com/keys.jwt")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signed_jwks_uri: Option<String>,
    /// A file with the provider's keys, a JSON Web Key Set; taken in anew when it changes.
    #[schemars(example = &"/etc/vestibule/provider-keys.json")]
    #[serde(skip_serializing)]
    pub jwks_file: Option<PathBuf>,
    /// The provider's keys themselves: a JSON Web Key Set as text.
    #[schemars(example = &"{\"keys\": []}")]
    #[serde(skip_serializing)]
    pub jwks: Option<String>,
    /// Where claims are told.
    #[schemars(example = &"https://id.example.com/userinfo")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub userinfo_endpoint: Option<String>,
    /// Where people sign out.
    #[schemars(example = &"https://id.example.com/logout")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end_session_endpoint: Option<String>,
    /// Where tokens are explained (RFC 7662).
    #[schemars(example = &"https://id.example.com/introspect")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub introspection_endpoint: Option<String>,
    /// Where tokens are revoked (RFC 7009).
    #[schemars(example = &"https://id.example.com/revoke")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revocation_endpoint: Option<String>,
    /// Where devices begin a sign-in (RFC 8628).
    #[schemars(example = &"https://id.example.com/device")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device_authorization_endpoint: Option<String>,
    /// Where authorization requests are pushed (RFC 9126).
    #[schemars(example = &"https://id.example.com/par")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pushed_authorization_request_endpoint: Option<String>,
    /// Where clients register themselves (RFC 7591).
    #[schemars(example = &"https://id.example.com/register")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub registration_endpoint: Option<String>,
    /// What ID tokens may be signed with.
    #[schemars(example = ["RS256"])]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id_token_signing_alg_values_supported: Option<Vec<String>>,
    /// How clients may authenticate.
    #[schemars(example = ["client_secret_basic"])]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_endpoint_auth_methods_supported: Option<Vec<String>>,
    /// What may be asked for.
    #[schemars(example = ["code"])]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response_types_supported: Option<Vec<String>>,
    /// How the answer may come back.
    #[schemars(example = ["query"])]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response_modes_supported: Option<Vec<String>>,
    /// Answers name their issuer (RFC 9207): one without it is refused.
    #[schemars(example = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub authorization_response_iss_parameter_supported: Option<bool>,
    /// Authorization requests may be objects (RFC 9101), and travel by value where their address would be too long.
    #[schemars(example = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_parameter_supported: Option<bool>,
    /// Authorization requests may be fetched from us: with `false`, `request_object = "reference"` is refused.
    #[schemars(example = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_uri_parameter_supported: Option<bool>,
    /// Authorization requests have to be pushed (RFC 9126).
    #[schemars(example = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub require_pushed_authorization_requests: Option<bool>,
}
