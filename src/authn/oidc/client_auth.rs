//! How we say who we are (RFC 6749 §2.3, OpenID Connect Core §9, RFC 7523 §2.2, RFC 8705 §2): the one way that configuration
//! and metadata agree on, chosen before anything is sent and never by trial.

use std::error::Error;

use aws_lc_rs::rand;
use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use http::{HeaderValue, header};
use openidconnect::{AuthType, ClientSecret, HttpRequest};
use url::form_urlencoded;

use super::assertion::{self, ASSERTION_TYPE, FederatedToken};
use super::capabilities::{Capabilities, algorithms, wants_ed25519};
use super::client_keys::ClientKeys;
use super::discovery::{Metadata, Unsupported};
use super::jose::Algorithm;
use super::jws::{Fresh, Signer, SigningError};
use super::security::Audience;
use super::settings::Settings;
use super::tls_client;
use crate::clock::UnixTime;
use crate::secret::SecretString;

/// A way of client authentication.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientAuthMethod {
    /// A public client.
    None,
    /// The secret in the header.
    ClientSecretBasic,
    /// The secret in the form.
    ClientSecretPost,
    /// An assertion signed with the secret.
    ClientSecretJwt,
    /// An assertion signed with a key of ours.
    PrivateKeyJwt,
    /// A certificate of an authority.
    TlsClientAuth,
    /// A certificate that the provider knows itself.
    SelfSignedTlsClientAuth,
    /// An assertion that the platform signs for us.
    KubernetesServiceAccount,
    /// A certificate in a header field. It proves nothing: certificates are public.
    InsecureXCert,
}

impl ClientAuthMethod {
    /// As it is configured and, where it is registered, in metadata.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::ClientSecretBasic => "client_secret_basic",
            Self::ClientSecretPost => "client_secret_post",
            Self::ClientSecretJwt => "client_secret_jwt",
            Self::PrivateKeyJwt => "private_key_jwt",
            Self::TlsClientAuth => "tls_client_auth",
            Self::SelfSignedTlsClientAuth => "self_signed_tls_client_auth",
            Self::KubernetesServiceAccount => "kubernetes_service_account",
            Self::InsecureXCert => "insecure_x_cert",
        }
    }

    /// By the name that it has in client metadata (RFC 7591 §2).
    pub(super) fn registered(name: &str) -> Option<Self> {
        const REGISTERED: [ClientAuthMethod; 7] = [
            ClientAuthMethod::None,
            ClientAuthMethod::ClientSecretBasic,
            ClientAuthMethod::ClientSecretPost,
            ClientAuthMethod::ClientSecretJwt,
            ClientAuthMethod::PrivateKeyJwt,
            ClientAuthMethod::TlsClientAuth,
            ClientAuthMethod::SelfSignedTlsClientAuth,
        ];
        REGISTERED.into_iter().find(|method| method.name() == name)
    }

    /// Whether the client secret is what it needs.
    pub fn needs_secret(self) -> bool {
        matches!(self, Self::ClientSecretBasic | Self::ClientSecretPost | Self::ClientSecretJwt)
    }

    /// Whether it is an assertion that we sign.
    fn signs(self) -> bool {
        matches!(self, Self::ClientSecretJwt | Self::PrivateKeyJwt)
    }

    /// Whether it is the TLS handshake that says who we are.
    pub fn is_tls(self) -> bool {
        matches!(self, Self::TlsClientAuth | Self::SelfSignedTlsClientAuth)
    }

    /// Whether metadata would list it: real providers take public clients without saying so, and the last two have no name.
    fn is_listed(self) -> bool {
        !matches!(self, Self::None | Self::KubernetesServiceAccount | Self::InsecureXCert)
    }
}

/// Why we cannot say who we are at the moment.
#[derive(Debug, thiserror::Error)]
#[error("we cannot say who we are")]
pub struct ProofError(#[source] Box<dyn Error + Send + Sync>);

impl ProofError {
    pub(super) fn new(cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self(cause.into())
    }
}

/// The one way for this provider.
pub(super) fn choose(settings: &Settings, capabilities: &Capabilities) -> Result<ClientAuthMethod, Unsupported> {
    let offered = &capabilities.auth_methods;
    let offers = |method: &ClientAuthMethod| {
        !method.is_listed() || offered.is_empty() || offered.iter().any(|one| one == method.name())
    };
    let candidates = candidates(settings);
    let unsupported = |key, value: &str, offered: &[String]| Unsupported {
        provider: settings.id.clone(),
        key,
        value: value.to_owned(),
        offered: offered.to_vec(),
    };
    let best = candidates.first().map_or("none", |method| method.name());
    let method = candidates.iter().copied().find(offers);
    let method = method.ok_or_else(|| unsupported("client_auth_method", best, offered))?;
    let names = &capabilities.auth_signing_algs;
    match settings.security.signing_alg.filter(|_| method.signs()) {
        Some(only) if algorithms(names).is_some_and(|offered| !offered.contains(&only)) => {
            Err(unsupported("client_signing_alg", only.name(), names))
        }
        _ => Ok(method),
    }
}

/// What could be done with what is configured, the best-known first (RFC 6749 §2.3.1 prefers the header; a provider that lists
/// nothing takes it).
pub(super) fn candidates(settings: &Settings) -> Vec<ClientAuthMethod> {
    use ClientAuthMethod as Method;
    let security = &settings.security;
    if let Some(method) = security.method {
        return vec![method];
    }
    if settings.credentials.client_secret.is_some() {
        return vec![Method::ClientSecretBasic, Method::ClientSecretPost, Method::ClientSecretJwt];
    }
    if security.assertion_file.is_some() {
        return vec![Method::KubernetesServiceAccount];
    }
    let keys = (!security.key_files.is_empty()).then_some(Method::PrivateKeyJwt);
    let certificate = security.certificate.is_some();
    let tls = certificate.then_some([Method::TlsClientAuth, Method::SelfSignedTlsClientAuth]);
    let candidates: Vec<_> = keys.into_iter().chain(tls.into_iter().flatten()).collect();
    if candidates.is_empty() { vec![Method::None] } else { candidates }
}

impl Settings {
    /// Whether the client has nothing to prove who it is with (RFC 6749 §2.1). One that registers itself is given it.
    pub fn is_public_client(&self) -> bool {
        self.registration.is_none() && candidates(self) == [ClientAuthMethod::None]
    }
}

/// What the library puts into its requests by itself: the secret as it is, in one of two places, or nothing.
pub(super) fn for_library(settings: &Settings, metadata: &Metadata) -> (Option<ClientSecret>, AuthType) {
    let secret = || {
        let secret = settings.credentials.client_secret.as_ref()?;
        Some(ClientSecret::new(secret.expose_secret().to_owned()))
    };
    match choose(settings, &metadata.capabilities) {
        Ok(ClientAuthMethod::ClientSecretBasic) => (secret(), AuthType::BasicAuth),
        Ok(ClientAuthMethod::ClientSecretPost) => (secret(), AuthType::RequestBody),
        // Without a secret the client id goes into the form.
        _ => (None, AuthType::RequestBody),
    }
}

/// With what is shown who we are.
pub(super) struct Proof<'a> {
    pub(super) settings: &'a Settings,
    pub(super) metadata: &'a Metadata,
    pub(super) keys: Option<&'a ClientKeys>,
    pub(super) now: UnixTime,
}

impl Proof<'_> {
    /// Adds to a form what shows who we are, unless that is there already. A second proof would contradict the first (RFC 6749
    /// §2.3).
    pub(super) async fn add(&self, method: ClientAuthMethod, request: HttpRequest) -> Result<HttpRequest, ProofError> {
        let credentials = &self.settings.credentials;
        let id = credentials.client_id.as_str();
        let secret = credentials.client_secret.as_ref().map(SecretString::expose_secret);
        let is_there = request.headers().contains_key(header::AUTHORIZATION) || has(&request, "client_secret");
        match method {
            _ if is_there && method.needs_secret() => Ok(request),
            ClientAuthMethod::ClientSecretBasic => basic(request, id, secret.unwrap_or_default()),
            ClientAuthMethod::ClientSecretPost => {
                Ok(with_fields(request, &[("client_id", id), ("client_secret", secret.unwrap_or_default())]))
            }
            ClientAuthMethod::ClientSecretJwt | ClientAuthMethod::PrivateKeyJwt => {
                let signer = self.signer(method).map_err(ProofError::new)?;
                let jti = unguessable()?;
                let fresh = Fresh { now: self.now, jti: &jti };
                let assertion = assertion::assertion(&signer, id, &self.audience(), fresh).map_err(ProofError::new)?;
                Ok(asserted(request, id, &assertion))
            }
            ClientAuthMethod::KubernetesServiceAccount => {
                let file = self.settings.security.assertion_file.clone().unwrap_or_default();
                let token = tokio::task::spawn_blocking(move || FederatedToken::new(file).read()).await;
                let token = token.map_err(ProofError::new)?.map_err(ProofError::new)?;
                Ok(asserted(request, id, token.expose_secret()))
            }
            ClientAuthMethod::InsecureXCert => {
                let file = self.settings.security.certificate.clone().map(|(chain, _)| chain).unwrap_or_default();
                let certificate = tokio::task::spawn_blocking(move || tls_client::leaf(&file)).await;
                let certificate = certificate.map_err(ProofError::new)?.map_err(ProofError::new)?;
                let value = HeaderValue::try_from(BASE64_STANDARD.encode(certificate)).map_err(ProofError::new)?;
                let mut request = with_fields(request, &[("client_id", id)]);
                request.headers_mut().insert("x-cert", value);
                Ok(request)
            }
            // RFC 8705 §2: the certificate says who we are, and the id says whom to look it up for.
            ClientAuthMethod::TlsClientAuth | ClientAuthMethod::SelfSignedTlsClientAuth | ClientAuthMethod::None => {
                Ok(with_fields(request, &[("client_id", id)]))
            }
        }
    }

    fn signer(&self, method: ClientAuthMethod) -> Result<Signer, SigningError> {
        let names = &self.metadata.capabilities.auth_signing_algs;
        if method == ClientAuthMethod::ClientSecretJwt {
            let secret = self.settings.credentials.client_secret.as_ref().ok_or(SigningError::NoKey)?;
            let only = self.settings.security.signing_alg.as_ref();
            let allowed = only.map_or(&Algorithm::SYMMETRIC[..], std::slice::from_ref);
            return assertion::secret_signer(secret, algorithms(names).as_deref(), allowed);
        }
        key_signer(self.keys.ok_or(SigningError::NoKey)?, names, self.settings)
    }

    fn audience(&self) -> String {
        let token_endpoint = || self.metadata.standard.token_endpoint().map(|endpoint| endpoint.url().to_string());
        match self.settings.security.audience {
            Audience::Issuer => None,
            Audience::TokenEndpoint => token_endpoint(),
        }
        .unwrap_or_else(|| self.settings.issuer.clone())
    }
}

/// The first of our keys that signs with what is offered, where anything is, and allowed.
pub(super) fn key_signer(keys: &ClientKeys, offered: &[String], settings: &Settings) -> Result<Signer, SigningError> {
    let allowed = settings.security.algorithms();
    let signer = assertion::key_signer(keys, algorithms(offered).as_deref(), allowed)?;
    Ok(if wants_ed25519(offered) { signer.fully_specified() } else { signer })
}

/// 128 random bits as text: a `jti` that nobody used before.
pub(super) fn unguessable() -> Result<String, ProofError> {
    let mut bytes = [0; 16];
    rand::fill(&mut bytes).map_err(|_| ProofError::new("the system has no randomness"))?;
    Ok(BASE64_URL_SAFE_NO_PAD.encode(bytes))
}

/// Whether the form has a field.
pub(super) fn has(request: &HttpRequest, name: &str) -> bool {
    form_urlencoded::parse(request.body()).any(|(field, _)| field == name)
}

fn asserted(request: HttpRequest, id: &str, assertion: &str) -> HttpRequest {
    let fields = [("client_id", id), ("client_assertion_type", ASSERTION_TYPE), ("client_assertion", assertion)];
    with_fields(request, &fields)
}

/// RFC 6749 §2.3.1: both form-encoded, then as RFC 7617 says.
fn basic(mut request: HttpRequest, id: &str, secret: &str) -> Result<HttpRequest, ProofError> {
    let encoded = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
    let pair = BASE64_STANDARD.encode(format!("{}:{}", encoded(id), encoded(secret)));
    let mut value = HeaderValue::try_from(format!("Basic {pair}")).map_err(ProofError::new)?;
    value.set_sensitive(true);
    request.headers_mut().insert(header::AUTHORIZATION, value);
    Ok(request)
}

/// Puts fields in the place of those of the same name.
fn with_fields(request: HttpRequest, fields: &[(&str, &str)]) -> HttpRequest {
    let (head, body) = request.into_parts();
    let is_new = |name: &str| fields.iter().all(|(field, _)| *field != name);
    let mut form = form_urlencoded::Serializer::new(String::new());
    form.extend_pairs(form_urlencoded::parse(&body).filter(|(name, _)| is_new(name))).extend_pairs(fields);
    HttpRequest::from_parts(head, form.finish().into_bytes())
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use serde_json::json;

    use super::*;
    use crate::authn::oidc::provider::test_settings;

    fn metadata(settings: &Settings) -> Metadata {
        let document = json!({
            "issuer": "https://id.example",
            "authorization_endpoint": "https://id.example/authorize",
            "token_endpoint": "https://id.example/token",
            "jwks_uri": "https://id.example/jwks",
        });
        Metadata::parse(document.to_string().as_bytes(), settings).unwrap()
    }

    /// The header and the form, once it is said who we are.
    fn sent(method: ClientAuthMethod, secret: Option<&str>, form: &str) -> (Option<String>, String) {
        let mut settings = test_settings("https://id.example");
        settings.credentials.client_id = "the app".to_owned();
        settings.credentials.client_secret = secret.map(|secret| SecretString::new(secret.to_owned()));
        let metadata = metadata(&settings);
        let proof = Proof { settings: &settings, metadata: &metadata, keys: None, now: UnixTime(1_700_000_000) };
        let request = http::Request::post("https://id.example/any").body(form.as_bytes().to_vec()).unwrap();
        let request = proof.add(method, request).now_or_never().unwrap().unwrap();
        let authorization = request.headers().get(header::AUTHORIZATION).map(|value| {
            assert!(value.is_sensitive());
            value.to_str().unwrap().to_owned()
        });
        (authorization, String::from_utf8(request.into_body()).unwrap())
    }

    #[test]
    fn every_form_says_who_we_are_in_one_way() {
        use ClientAuthMethod as Method;
        let basic = format!("Basic {}", BASE64_STANDARD.encode("the+app:s%3A%26"));
        let secret = Some("s:&");
        assert_eq!(sent(Method::ClientSecretBasic, secret, "token=t%261"), (Some(basic), "token=t%261".to_owned()));
        let both = "token=t&client_id=the+app&client_secret=s%3A%26".to_owned();
        assert_eq!(sent(Method::ClientSecretPost, secret, "token=t"), (None, both.clone()));
        // The library has said it already.
        assert_eq!(sent(Method::ClientSecretPost, secret, &both), (None, both));
        let public = (None, "token=t&client_id=the+app".to_owned());
        assert_eq!(sent(Method::None, None, "token=t"), public);
        assert_eq!(sent(Method::TlsClientAuth, None, "client_id=other&token=t"), public);
        let (header, form) = sent(Method::ClientSecretJwt, Some("a secret that has thirty-two bytes or more"), "x=1");
        assert!(header.is_none() && form.starts_with("x=1&client_id=the+app&client_assertion_type=urn"), "{form}");
        assert!(!form.contains("client_secret="));
    }

    #[test]
    fn nothing_is_sent_without_what_is_needed() {
        let settings = test_settings("https://id.example");
        let metadata = metadata(&settings);
        let proof = Proof { settings: &settings, metadata: &metadata, keys: None, now: UnixTime(0) };
        let request = http::Request::post("https://id.example/any").body(Vec::new()).unwrap();
        assert!(proof.add(ClientAuthMethod::PrivateKeyJwt, request).now_or_never().unwrap().is_err());
    }
}
