//! Provider metadata (OpenID Connect Discovery 1.0 §4).

use std::sync::Arc;

use bytes::Bytes;
use http::{Request, header};
use openidconnect::{
    AuthUrl, EmptyAdditionalProviderMetadata, EndSessionUrl, IssuerUrl, JsonWebKeySetUrl, LogoutProviderMetadata,
    ProviderMetadataWithLogout, TokenUrl, UserInfoUrl,
};
use serde_json::{Map, Value};
use url::Url;

use super::capabilities::Capabilities;
use super::client_auth::ClientAuthMethod;
use super::jose::{self, Algorithm};
use super::jwks::JwksError;
use super::registration::RegistrationError;
use super::settings::Settings;
use super::tenants::Tenants;
use crate::provider_http::{ProviderHttp, ProviderHttpError, WrongMediaType, check_json, is_loopback, is_protected};

/// What we use of a provider's metadata; every URL https or loopback (or `allow_insecure_http`).
#[derive(Debug, Clone)]
pub struct Metadata {
    /// The endpoints, and the issuer as configured, with which the document's own agrees character for character. Always with a
    /// token endpoint.
    pub standard: ProviderMetadataWithLogout,
    /// Where tokens are revoked (RFC 7009).
    pub revocation_endpoint: Option<Url>,
    /// Where the keys are fetched; `None` only where they are stated.
    pub jwks_uri: Option<Url>,
    /// Where they are fetched signed (OpenID Federation §5.2.1).
    pub signed_jwks_uri: Option<Url>,
    /// Where tokens are explained (RFC 7662 §2).
    pub introspection_endpoint: Option<Url>,
    /// Where clients register themselves (RFC 7591 §3).
    pub registration_endpoint: Option<Url>,
    /// RFC 9207 §3: a missing `iss` in the callback is then an error.
    pub iss_parameter_supported: bool,
    /// What the provider says it signs ID tokens with, as far as we know the names (the library's list has no `Ed25519`).
    pub id_token_signing_algs: Vec<Algorithm>,
    /// `response_types_supported`; empty: it does not say.
    pub response_types: Vec<String>,
    /// `response_modes_supported`; empty: it does not say.
    pub response_modes: Vec<String>,
    /// What else it says that it can do.
    pub capabilities: Capabilities,
}

/// What the settings ask for and the provider says it can't do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key} = {value:?} is not supported by provider {provider}: its metadata offer {offered:?}")]
pub struct Unsupported {
    /// The `provider_id`.
    pub provider: String,
    /// The setting.
    pub key: &'static str,
    /// Its value.
    pub value: String,
    /// What there is instead.
    pub offered: Vec<String>,
}

/// Why metadata is not to be had.
#[derive(Debug, thiserror::Error)]
pub enum DiscoveryError {
    /// The call failed.
    #[error("the discovery document could not be fetched")]
    Http(#[source] ProviderHttpError),
    /// A status other than 200.
    #[error("the provider answered discovery with status {0}")]
    Status(u16),
    /// Not JSON by its content type (often an HTML error page).
    #[error("the discovery document cannot be read")]
    MediaType(#[from] WrongMediaType),
    /// Not a JSON object, or one with a member that stands twice.
    #[error("the discovery document is not JSON that reads in one way")]
    NotJson,
    /// Its issuer is not the configured one.
    #[error("the discovery document names the issuer {found:?}, not {expected:?}")]
    IssuerMismatch {
        /// As configured.
        expected: String,
        /// As the document says.
        found: String,
    },
    /// A field is missing or unusable.
    #[error("the discovery document's {field} is missing or unusable")]
    Field {
        /// Its name.
        field: &'static str,
    },
    /// An endpoint that is neither https nor loopback.
    #[error("the discovery document's {field} is not https")]
    Insecure {
        /// Its name.
        field: &'static str,
    },
    /// We are not registered there.
    #[error("no client is registered at the provider")]
    Registration(#[source] Arc<RegistrationError>),
    /// The key set could not be had.
    #[error("the key set could not be fetched")]
    Keys(#[source] JwksError),
}

impl DiscoveryError {
    /// What the operator can do about it.
    pub fn fix(&self) -> &'static str {
        match self {
            Self::Http(error) | Self::Keys(JwksError::Http(error)) => fix_call(error),
            Self::Registration(error) => error.fix(),
            Self::Status(404) => {
                "nothing answers at the issuer's /.well-known/openid-configuration; write the issuer as the provider \
                 shows it, realm or tenant included"
            }
            Self::Status(_) | Self::Keys(JwksError::Status(_)) => {
                "look into the provider's own log; it is tried again by itself"
            }
            Self::NotJson | Self::MediaType(_) => {
                "open the issuer plus /.well-known/openid-configuration in a browser; a login page or an error page of \
                 another server may be answering there"
            }
            Self::IssuerMismatch { .. } => {
                "write the issuer exactly as the document names it, to the last slash; if the provider builds it from \
                 the address it is asked at, set its public address there, or set provider.backchannel_url here"
            }
            Self::Field { .. } => "the provider must offer OpenID Connect Discovery 1.0; compare the document with it",
            Self::Insecure { .. } => {
                "make the provider announce https addresses (behind a proxy, tell it its public address), or set \
                 allow_insecure_http = true for a test network"
            }
            Self::Keys(JwksError::Signed(_) | JwksError::NotSigned) => {
                "compare signed_jwks_key_file with the key that the provider signs its key set with; an unsigned one is \
                 never taken in its place"
            }
            Self::Keys(JwksError::NotAKeySet | JwksError::MediaType(_)) => {
                "open the jwks_uri of the discovery document in a browser, or look into provider.metadata.jwks_file"
            }
            Self::Keys(JwksError::File(_)) => {
                "look at provider.metadata.jwks_file and whether this process may read it"
            }
            Self::Keys(JwksError::Empty) => {
                "give the provider a signing key of a family we know: RSA of 2048 bits and more, P-256, P-384, P-521, \
                 Ed25519"
            }
        }
    }
}

fn fix_call(error: &ProviderHttpError) -> &'static str {
    match error {
        ProviderHttpError::Unreachable(_) => {
            "look at the issuer's host name, the network and the proxy variables; for a certificate of a private CA set \
             OIDC_CA_FILE"
        }
        ProviderHttpError::ClientCertificate(_) => {
            "look at provider.client_certificate_file: whether it has expired, and whether the provider trusts who issued it"
        }
        ProviderHttpError::Timeout => "the provider is slow or a firewall drops the connection; look at both",
        ProviderHttpError::TooLarge => "something other than a discovery document or key set answers there",
        ProviderHttpError::Redirect => {
            "redirects are not followed; write the address that it redirects to, with the right scheme and slash"
        }
        ProviderHttpError::Insecure => {
            "use https in the issuer and in provider.backchannel_url, or set allow_insecure_http = true for a test network"
        }
    }
}

/// Asks the provider for its metadata, unless they are stated.
pub(super) async fn fetch(http: &ProviderHttp, settings: &Settings) -> Result<Metadata, DiscoveryError> {
    if !settings.metadata.discovery {
        return Metadata::stated(settings);
    }
    let request = Request::get(document_url(settings)?.as_str())
        .header(header::ACCEPT, "application/json")
        .body(Bytes::new())
        .map_err(|_| DiscoveryError::Field { field: "issuer" })?;
    let answer = http.send(request).await.map_err(DiscoveryError::Http)?;
    if answer.status() != http::StatusCode::OK {
        return Err(DiscoveryError::Status(answer.status().as_u16()));
    }
    check_json(&answer)?;
    Metadata::parse(answer.body(), settings)
}

/// Discovery §4.1: a terminating slash of the issuer is removed before the well-known path is appended.
fn document_url(settings: &Settings) -> Result<Url, DiscoveryError> {
    let issuer = settings.issuer.strip_suffix('/').unwrap_or(&settings.issuer);
    let url = Url::parse(&format!("{issuer}/.well-known/openid-configuration"))
        .ok()
        // Discovery §3: an issuer has no query or fragment; either would have swallowed the path.
        .filter(|url| url.query().is_none() && url.fragment().is_none())
        .ok_or(DiscoveryError::Field { field: "issuer" })?;
    Ok(through_backchannel(url, settings))
}

impl Metadata {
    /// Reads a discovery document (§4.2) and compares its issuer (§4.3).
    pub(super) fn parse(bytes: &[u8], settings: &Settings) -> Result<Self, DiscoveryError> {
        Self::read(jose::json_object(bytes).map_err(|_| DiscoveryError::NotJson)?, settings)
    }

    /// What the settings state, with nobody asked.
    ///
    /// # Errors
    /// [`DiscoveryError`].
    pub(crate) fn stated(settings: &Settings) -> Result<Self, DiscoveryError> {
        let issuer = ("issuer".to_owned(), Value::from(expected_issuer(settings)));
        Self::read(Map::from_iter([issuer]), settings)
    }

    fn read(mut document: Map<String, Value>, settings: &Settings) -> Result<Self, DiscoveryError> {
        settings.metadata.overlay(&mut document);
        let fields = Fields { document: &document, settings };
        let issuer = fields.string("issuer")?.ok_or(DiscoveryError::Field { field: "issuer" })?;
        let expected = expected_issuer(settings);
        if issuer != expected {
            return Err(DiscoveryError::IssuerMismatch { expected, found: issuer.chars().take(512).collect() });
        }
        let end_session_endpoint =
            fields.url("end_session_endpoint", Reached::ByUserAgent)?.map(EndSessionUrl::from_url);
        let authorization_endpoint = fields.required("authorization_endpoint", Reached::ByUserAgent)?;
        let needs_jwks_uri = settings.metadata.keys.is_none() && settings.metadata.key_set_keys.is_none();
        let jwks_uri = needs_jwks_uri.then(|| fields.required("jwks_uri", Reached::ByUs)).transpose()?;
        // The library wants one; where keys are stated nobody asks for any.
        let for_the_library = jwks_uri.clone().unwrap_or_else(|| authorization_endpoint.clone());
        let standard = ProviderMetadataWithLogout::new(
            // A template would be none.
            IssuerUrl::new(settings.issuer.clone()).map_err(|_| DiscoveryError::Field { field: "issuer" })?,
            AuthUrl::from_url(authorization_endpoint),
            JsonWebKeySetUrl::from_url(for_the_library),
            Vec::new(),
            Vec::new(),
            Vec::new(),
            LogoutProviderMetadata { end_session_endpoint, additional_metadata: EmptyAdditionalProviderMetadata {} },
        )
        .set_token_endpoint(Some(TokenUrl::from_url(fields.required("token_endpoint", Reached::ByUs)?)))
        .set_userinfo_endpoint(fields.url("userinfo_endpoint", Reached::ByUs)?.map(UserInfoUrl::from_url));
        Ok(Self {
            standard,
            revocation_endpoint: fields.url("revocation_endpoint", Reached::ByUs)?,
            jwks_uri,
            signed_jwks_uri: fields.url("signed_jwks_uri", Reached::ByUs)?,
            introspection_endpoint: fields.url("introspection_endpoint", Reached::ByUs)?,
            registration_endpoint: fields.url("registration_endpoint", Reached::ByUs)?,
            iss_parameter_supported: fields.flag("authorization_response_iss_parameter_supported")?,
            id_token_signing_algs: fields
                .names("id_token_signing_alg_values_supported")?
                .filter_map(Algorithm::from_name)
                .collect(),
            response_types: fields.names("response_types_supported")?.map(sorted_words).collect(),
            response_modes: fields.list("response_modes_supported")?,
            capabilities: Capabilities::read(&fields)?,
        })
    }

    /// How a client with a secret authenticates: RFC 6749 §2.3.1 prefers the header; the body is for providers that offer
    /// nothing else.
    pub(super) fn secret_method(&self) -> ClientAuthMethod {
        let offers = |method: ClientAuthMethod| self.capabilities.auth_methods.iter().any(|one| one == method.name());
        if offers(ClientAuthMethod::ClientSecretPost) && !offers(ClientAuthMethod::ClientSecretBasic) {
            ClientAuthMethod::ClientSecretPost
        } else {
            ClientAuthMethod::ClientSecretBasic
        }
    }

    /// Where RP-initiated logout begins.
    pub(super) fn end_session_endpoint(&self) -> Option<&EndSessionUrl> {
        self.standard.additional_metadata().end_session_endpoint.as_ref()
    }

    /// The endpoints that can be read on the way; not empty only with `allow_insecure_http`.
    pub(super) fn unprotected(&self) -> Vec<&str> {
        [self.standard.authorization_endpoint().url()]
            .into_iter()
            .chain(&self.jwks_uri)
            .chain(self.standard.token_endpoint().map(TokenUrl::url))
            .chain(self.standard.userinfo_endpoint().map(UserInfoUrl::url))
            .chain(self.end_session_endpoint().map(EndSessionUrl::url))
            .chain(self.revocation_endpoint.as_ref())
            .filter(|url| !is_protected(url.scheme(), url.host_str().unwrap_or_default()))
            .map(Url::as_str)
            .collect()
    }
}

/// An address that the provider told us to call, read as those in its metadata are.
pub(super) fn url_called_by_us(text: &str, field: &'static str, settings: &Settings) -> Result<Url, DiscoveryError> {
    let document = Map::from_iter([(field.to_owned(), Value::from(text))]);
    Fields { document: &document, settings }.required(field, Reached::ByUs)
}

/// Who calls an endpoint: only what we call ourselves goes through the back channel.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Reached {
    ByUs,
    ByUserAgent,
}

/// The members of a discovery document, read strictly: absent is fine where the caller says so, unusable never is. The
/// library's own reading fails on any of forty members, most of them unused here, and does not name the one it failed on.
pub(super) struct Fields<'a> {
    pub(super) document: &'a Map<String, Value>,
    pub(super) settings: &'a Settings,
}

impl<'a> Fields<'a> {
    fn required(&self, field: &'static str, reached: Reached) -> Result<Url, DiscoveryError> {
        self.url(field, reached)?.ok_or(DiscoveryError::Field { field })
    }

    pub(super) fn url(&self, field: &'static str, reached: Reached) -> Result<Option<Url>, DiscoveryError> {
        let Some(text) = self.string(field)? else { return Ok(None) };
        let mut url = Url::parse(text).map_err(|_| DiscoveryError::Field { field })?;
        // RFC 6749 §3.1 and §3.2: no fragment.
        if url.fragment().is_some() || !url.username().is_empty() || url.password().is_some() || !url.has_host() {
            return Err(DiscoveryError::Field { field });
        }
        if reached == Reached::ByUs {
            url = through_backchannel(url, self.settings);
        }
        if !self.is_good_enough(&url, reached) {
            return Err(DiscoveryError::Insecure { field });
        }
        Ok(Some(url))
    }

    /// https; or http that stays on this machine, where the operator has put the provider on it: a document from elsewhere
    /// must not send codes and secrets to whatever listens here.
    fn is_good_enough(&self, url: &Url, reached: Reached) -> bool {
        let is_here = |url: &Url| url.host_str().is_some_and(is_loopback);
        let Settings { issuer, backchannel_url, allow_insecure_http, .. } = self.settings;
        let provider_is_here = || {
            Url::parse(issuer).is_ok_and(|issuer| is_here(&issuer))
                || (reached == Reached::ByUs && backchannel_url.as_ref().is_some_and(is_here))
        };
        match url.scheme() {
            "https" => true,
            "http" => *allow_insecure_http || (is_here(url) && provider_is_here()),
            _ => false,
        }
    }

    /// An empty string says as little as an absent one.
    fn string(&self, field: &'static str) -> Result<Option<&'a str>, DiscoveryError> {
        match self.document.get(field) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.as_str()).filter(|text| !text.is_empty())),
            Some(_) => Err(DiscoveryError::Field { field }),
        }
    }

    pub(super) fn flag(&self, field: &'static str) -> Result<bool, DiscoveryError> {
        Ok(self.said(field)?.unwrap_or(false))
    }

    /// Some providers write booleans as strings.
    pub(super) fn said(&self, field: &'static str) -> Result<Option<bool>, DiscoveryError> {
        match self.document.get(field) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(*flag)),
            Some(Value::String(text)) if text == "true" => Ok(Some(true)),
            Some(Value::String(text)) if text == "false" => Ok(Some(false)),
            Some(_) => Err(DiscoveryError::Field { field }),
        }
    }

    pub(super) fn list(&self, field: &'static str) -> Result<Vec<String>, DiscoveryError> {
        Ok(self.names(field)?.map(str::to_owned).collect())
    }

    fn names(&self, field: &'static str) -> Result<impl Iterator<Item = &'a str>, DiscoveryError> {
        let names = match self.document.get(field) {
            None | Some(Value::Null) => [].as_slice(),
            Some(Value::Array(names)) => names,
            Some(_) => return Err(DiscoveryError::Field { field }),
        };
        Ok(names.iter().filter_map(Value::as_str).take(MAX_NAMES))
    }
}

/// The `issuer` of a document that is this provider's.
fn expected_issuer(settings: &Settings) -> String {
    settings.tenants.as_ref().map_or_else(|| settings.issuer.clone(), Tenants::template)
}

/// Response types are sets of words (OAuth 2.0 Multiple Response Types §3).
fn sorted_words(text: &str) -> String {
    let mut words: Vec<_> = text.split(' ').collect();
    words.sort_unstable();
    words.join(" ")
}

/// The same URL at the origin of `backchannel_url`, if it lies at the issuer's origin.
fn through_backchannel(url: Url, settings: &Settings) -> Url {
    let Some(backchannel) = &settings.backchannel_url else { return url };
    let at_issuer = Url::parse(&settings.issuer).is_ok_and(|issuer| issuer.origin() == url.origin());
    if !at_issuer {
        return url;
    }
    let mut moved = backchannel.clone();
    moved.set_path(url.path());
    moved.set_query(url.query());
    moved.set_fragment(None);
    moved
}

/// The most entries of a list that are read.
const MAX_NAMES: usize = 64;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::authn::oidc::provider::test_settings;

    fn document() -> Value {
        json!({
            "issuer": "https://id.example/realm",
            "authorization_endpoint": "https://id.example/realm/authorize?p=1",
            "token_endpoint": "https://id.example/realm/token",
            "jwks_uri": "https://keys.example/jwks",
            "userinfo_endpoint": "https://id.example/realm/userinfo",
            "end_session_endpoint": "https://id.example/realm/logout",
            "authorization_response_iss_parameter_supported": true,
            "id_token_signing_alg_values_supported": ["none", "ES512", "HS256", "XY1", 7],
            "token_endpoint_auth_methods_supported": ["client_secret_post"],
        })
    }

    fn parse(document: &Value, settings: &Settings) -> Result<Metadata, DiscoveryError> {
        Metadata::parse(document.to_string().as_bytes(), settings)
    }

    fn with(field: &str, value: Value) -> Value {
        let mut document = document();
        document[field] = value;
        document
    }

    #[test]
    fn a_full_document_is_read() {
        let metadata = parse(&document(), &test_settings("https://id.example/realm")).unwrap();
        assert_eq!(metadata.standard.authorization_endpoint().as_str(), "https://id.example/realm/authorize?p=1");
        assert_eq!(metadata.id_token_signing_algs, [Algorithm::ES512, Algorithm::HS256]);
        assert_eq!(metadata.capabilities.auth_methods, ["client_secret_post"]);
        assert_eq!(metadata.secret_method(), ClientAuthMethod::ClientSecretPost);
        assert!(metadata.iss_parameter_supported);
        assert!(metadata.unprotected().is_empty());
    }

    #[test]
    fn optional_fields_may_be_absent_null_or_empty() {
        let optional = ["userinfo_endpoint", "end_session_endpoint", "revocation_endpoint"];
        let settings = test_settings("https://id.example/realm");
        for value in [Value::Null, json!("")] {
            let mut document = document();
            for field in optional {
                document[field] = value.clone();
            }
            document.as_object_mut().unwrap().remove("id_token_signing_alg_values_supported");
            document.as_object_mut().unwrap().remove("authorization_response_iss_parameter_supported");
            let metadata = parse(&document, &settings).unwrap();
            assert!(metadata.standard.userinfo_endpoint().is_none() && metadata.end_session_endpoint().is_none());
            assert!(metadata.revocation_endpoint.is_none());
            assert!(metadata.id_token_signing_algs.is_empty() && !metadata.iss_parameter_supported);
        }
    }

    #[test]
    fn the_issuer_must_be_the_configured_one_to_the_character() {
        for issuer in ["https://id.example/realm/", "https://ID.example/realm", "https://id.example:443/realm"] {
            let error = parse(&with("issuer", json!(issuer)), &test_settings("https://id.example/realm")).unwrap_err();
            assert!(error.to_string().contains(issuer) && error.fix().contains("exactly"), "{error}");
        }
        for issuer in [Value::Null, json!(""), json!(7)] {
            let error = parse(&with("issuer", issuer), &test_settings("https://id.example/realm")).unwrap_err();
            assert!(matches!(error, DiscoveryError::Field { field: "issuer" }));
        }
    }

    #[test]
    fn unusable_fields_are_named() {
        let settings = test_settings("https://id.example/realm");
        let cases = [
            ("authorization_endpoint", Value::Null),
            ("token_endpoint", json!("/token")),
            ("token_endpoint", json!(["https://id.example"])),
            ("jwks_uri", json!("")),
            ("authorization_endpoint", json!("https://id.example/a#fragment")),
            ("token_endpoint", json!("https://user:pass@id.example/")),
            ("userinfo_endpoint", json!(1)),
            ("end_session_endpoint", json!("nowhere")),
            ("authorization_response_iss_parameter_supported", json!("maybe")),
            ("id_token_signing_alg_values_supported", json!("RS256")),
            ("token_endpoint_auth_methods_supported", json!({})),
        ];
        for (name, value) in cases {
            let error = parse(&with(name, value.clone()), &settings).unwrap_err();
            assert!(matches!(error, DiscoveryError::Field { field } if field == name), "{name} = {value}: {error}");
        }
        for text in ["<html>", "", "[]", "null"] {
            assert!(matches!(Metadata::parse(text.as_bytes(), &settings), Err(DiscoveryError::NotJson)));
        }
    }

    #[test]
    fn endpoints_are_https_unless_the_operator_allows_otherwise() {
        let mut settings = test_settings("https://id.example/realm");
        let urls = [
            "authorization_endpoint",
            "token_endpoint",
            "jwks_uri",
            "userinfo_endpoint",
            "end_session_endpoint",
            "revocation_endpoint",
        ];
        for name in urls {
            for url in ["http://id.example/x", "javascript://id.example/x", "file://id.example/x"] {
                let error = parse(&with(name, json!(url)), &settings).unwrap_err();
                assert!(matches!(error, DiscoveryError::Insecure { field } if field == name), "{name} {url}");
            }
        }
        settings.allow_insecure_http = true;
        for name in urls {
            let metadata = parse(&with(name, json!("http://id.example/x")), &settings).unwrap();
            assert_eq!(metadata.unprotected(), ["http://id.example/x"]);
            assert!(parse(&with(name, json!("ws://id.example/x")), &settings).is_err());
        }
    }

    #[test]
    fn an_endpoint_is_on_this_machine_only_where_the_provider_is() {
        let urls = ["http://127.0.0.1:8080/x", "http://[::1]/x", "http://localhost/x"];
        let by_us = ["token_endpoint", "jwks_uri", "userinfo_endpoint"];
        let by_user_agent = ["authorization_endpoint", "end_session_endpoint"];
        let refused = |name: &str, url: &str, settings: &Settings| {
            let mut document = with(name, json!(url));
            document["issuer"] = json!(settings.issuer);
            match parse(&document, settings) {
                Ok(_) => false,
                Err(DiscoveryError::Insecure { field }) => field == name,
                Err(error) => panic!("{name} {url}: {error}"),
            }
        };
        let mut elsewhere = test_settings("https://id.example/realm");
        let here = ["http://127.0.0.1:8080/realm", "https://localhost/realm", "http://[::1]:80"].map(test_settings);
        for url in urls {
            for name in by_us.into_iter().chain(by_user_agent) {
                assert!(refused(name, url, &elsewhere), "{name} {url}");
                for settings in &here {
                    assert!(!refused(name, url, settings), "{name} {url} {}", settings.issuer);
                }
            }
        }
        // A back channel on this machine is the operator's word for what we call ourselves.
        elsewhere.backchannel_url = Some(Url::parse("http://localhost:8080").unwrap());
        for url in urls {
            assert!(by_us.iter().all(|name| !refused(name, url, &elsewhere)), "{url}");
            assert!(by_user_agent.iter().all(|name| refused(name, url, &elsewhere)), "{url}");
        }
    }

    #[test]
    fn the_document_lies_below_the_issuer() {
        let cases = [
            ("https://id.example", "https://id.example/.well-known/openid-configuration"),
            ("https://id.example/", "https://id.example/.well-known/openid-configuration"),
            ("https://id.example/a/b/", "https://id.example/a/b/.well-known/openid-configuration"),
        ];
        for (issuer, expected) in cases {
            assert_eq!(document_url(&test_settings(issuer)).unwrap().as_str(), expected);
        }
        for issuer in ["https://id.example/?a=b", "https://id.example/#a", "id.example", ""] {
            assert!(document_url(&test_settings(issuer)).is_err(), "{issuer}");
        }
    }

    #[test]
    fn the_back_channel_is_for_what_we_call_at_the_issuers_origin() {
        let mut settings = test_settings("https://id.example/realm");
        settings.backchannel_url = Some(Url::parse("http://localhost:8080").unwrap());
        let base = "http://localhost:8080/realm";
        assert_eq!(document_url(&settings).unwrap().as_str(), format!("{base}/.well-known/openid-configuration"));
        let metadata = parse(&with("token_endpoint", json!("https://id.example/realm/token?a=b")), &settings).unwrap();
        let standard = &metadata.standard;
        assert_eq!(standard.token_endpoint().unwrap().as_str(), format!("{base}/token?a=b"));
        assert_eq!(standard.userinfo_endpoint().unwrap().as_str(), format!("{base}/userinfo"));
        assert_eq!(standard.jwks_uri().as_str(), "https://keys.example/jwks");
        assert_eq!(standard.authorization_endpoint().as_str(), "https://id.example/realm/authorize?p=1");
        assert_eq!(metadata.end_session_endpoint().unwrap().as_str(), "https://id.example/realm/logout");
    }
}
