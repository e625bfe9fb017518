//! What a provider's metadata say that it can do (OpenID Connect Discovery 1.0 §3, RFC 8414 §2, RFC 8705 §5, RFC 9126 §5, RFC
//! 9101 §10.5, RFC 9449 §5.1, RFC 8628 §4, RFC 9396 §10).

use serde_json::Value;
use url::Url;

use super::discovery::{DiscoveryError, Fields, Reached};
use super::jose::Algorithm;

/// One member each; an empty list says nothing.
#[derive(Debug, Clone, Default)]
pub struct Capabilities {
    /// `token_endpoint_auth_methods_supported`.
    pub auth_methods: Vec<String>,
    /// `token_endpoint_auth_signing_alg_values_supported`.
    pub auth_signing_algs: Vec<String>,
    /// `pushed_authorization_request_endpoint`.
    pub pushed_request_endpoint: Option<Url>,
    /// `require_pushed_authorization_requests`.
    pub requires_pushed_requests: bool,
    /// `id_token_encryption_alg_values_supported` (Discovery §3).
    pub id_token_encryption_algs: Vec<String>,
    /// `id_token_encryption_enc_values_supported`.
    pub id_token_encryption_encs: Vec<String>,
    /// `request_object_signing_alg_values_supported`.
    pub request_signing_algs: Vec<String>,
    /// `require_signed_request_object`.
    pub requires_signed_requests: bool,
    /// `request_parameter_supported` (Discovery §3), where it is said.
    pub takes_request_objects: Option<bool>,
    /// `request_uri_parameter_supported`, where it is said.
    pub takes_request_uris: Option<bool>,
    /// `userinfo_signing_alg_values_supported`.
    pub userinfo_signing_algs: Vec<String>,
    /// `authorization_signing_alg_values_supported` (JARM §4).
    pub authorization_signing_algs: Vec<String>,
    /// `introspection_signing_alg_values_supported` (RFC 9701 §7).
    pub introspection_signing_algs: Vec<String>,
    /// `dpop_signing_alg_values_supported`.
    pub dpop_signing_algs: Vec<String>,
    /// `backchannel_logout_supported` (OpenID Connect Back-Channel Logout §2.1).
    pub backchannel_logout: bool,
    /// `frontchannel_logout_supported` (OpenID Connect Front-Channel Logout §3).
    pub frontchannel_logout: bool,
    /// `grant_types_supported`.
    pub grant_types: Vec<String>,
    /// `claims_parameter_supported` (Core §5.5), where it is said.
    pub takes_claims: Option<bool>,
    /// `code_challenge_methods_supported`.
    pub challenge_methods: Vec<String>,
    /// `prompt_values_supported`.
    pub prompts: Vec<String>,
    /// `authorization_details_types_supported`.
    pub details_types: Vec<String>,
    /// `device_authorization_endpoint` (RFC 8628 §4).
    pub device_authorization_endpoint: Option<Url>,
    /// `mtls_endpoint_aliases`: an endpoint, and where it takes client certificates.
    pub tls_aliases: Vec<(Url, Url)>,
}

impl Capabilities {
    pub(super) fn read(fields: &Fields<'_>) -> Result<Self, DiscoveryError> {
        Ok(Self {
            auth_methods: fields.list("token_endpoint_auth_methods_supported")?,
            auth_signing_algs: fields.list("token_endpoint_auth_signing_alg_values_supported")?,
            pushed_request_endpoint: fields.url("pushed_authorization_request_endpoint", Reached::ByUs)?,
            requires_pushed_requests: fields.flag("require_pushed_authorization_requests")?,
            id_token_encryption_algs: fields.list("id_token_encryption_alg_values_supported")?,
            id_token_encryption_encs: fields.list("id_token_encryption_enc_values_supported")?,
            request_signing_algs: fields.list("request_object_signing_alg_values_supported")?,
            requires_signed_requests: fields.flag("require_signed_request_object")?,
            takes_request_objects: fields.said("request_parameter_supported")?,
            takes_request_uris: fields.said("request_uri_parameter_supported")?,
            userinfo_signing_algs: fields.list("userinfo_signing_alg_values_supported")?,
            authorization_signing_algs: fields.list("authorization_signing_alg_values_supported")?,
            introspection_signing_algs: fields.list("introspection_signing_alg_values_supported")?,
            dpop_signing_algs: fields.list("dpop_signing_alg_values_supported")?,
            backchannel_logout: fields.flag("backchannel_logout_supported")?,
            frontchannel_logout: fields.flag("frontchannel_logout_supported")?,
            grant_types: fields.list("grant_types_supported")?,
            takes_claims: fields.said("claims_parameter_supported")?,
            challenge_methods: fields.list("code_challenge_methods_supported")?,
            prompts: fields.list("prompt_values_supported")?,
            details_types: fields.list("authorization_details_types_supported")?,
            device_authorization_endpoint: fields.url("device_authorization_endpoint", Reached::ByUs)?,
            tls_aliases: aliases(fields),
        })
    }

    /// Where `endpoint` takes client certificates (RFC 8705 §5): itself, unless the metadata name another place.
    pub(super) fn by_tls(&self, endpoint: &str) -> Option<&Url> {
        self.tls_aliases.iter().find(|(plain, _)| plain.as_str() == endpoint).map(|(_, alias)| alias)
    }
}

/// What is not https is left out: no certificate can be shown there.
fn aliases(fields: &Fields<'_>) -> Vec<(Url, Url)> {
    let Some(Value::Object(document)) = fields.document.get("mtls_endpoint_aliases") else { return Vec::new() };
    let inner = Fields { document, settings: fields.settings };
    let pair = |name: &&'static str| {
        let alias = inner.url(name, Reached::ByUs).ok()??;
        let plain = fields.url(name, Reached::ByUs).ok()??;
        (alias.scheme() == "https").then_some((plain, alias))
    };
    ALIASED.iter().filter_map(pair).collect()
}

/// The endpoints that we call and that may have an alias.
const ALIASED: [&str; 7] = [
    "token_endpoint",
    "userinfo_endpoint",
    "pushed_authorization_request_endpoint",
    "revocation_endpoint",
    "introspection_endpoint",
    "device_authorization_endpoint",
    "backchannel_authentication_endpoint",
];

/// The algorithms among `names` that we know; `None` where nothing is said.
pub(super) fn algorithms(names: &[String]) -> Option<Vec<Algorithm>> {
    (!names.is_empty()).then(|| names.iter().filter_map(|name| Algorithm::from_name(name)).collect())
}

/// Whether only the newer name of EdDSA is offered (RFC 9864 §2.2).
pub(super) fn wants_ed25519(names: &[String]) -> bool {
    let offers = |wanted: &str| names.iter().any(|name| name == wanted);
    offers("Ed25519") && !offers("EdDSA")
}
