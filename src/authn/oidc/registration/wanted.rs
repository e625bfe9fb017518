//! The client metadata that our settings imply (RFC 7591 §2, OpenID Connect Registration §2, and the specifications that add
//! members of their own).

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::RegistrationSettings;
use crate::authn::oidc::algorithms::Kind;
use crate::authn::oidc::capabilities::Capabilities;
use crate::authn::oidc::client_auth::{self, ClientAuthMethod};
use crate::authn::oidc::client_keys::ClientKeys;
use crate::authn::oidc::discovery::Metadata;
use crate::authn::oidc::jose::Algorithm;
use crate::authn::oidc::jwe::ContentEncryption;
use crate::authn::oidc::response::ResponseType;
use crate::authn::oidc::security::{Profile, RequestObject};
use crate::authn::oidc::settings::Settings;

/// What is to be registered at `provider`. Without `scope`: providers then give what they give everybody, and some refuse
/// `openid` there.
pub(super) fn metadata(
    registration: &RegistrationSettings,
    settings: &Settings,
    provider: &Metadata,
    keys: Option<&ClientKeys>,
) -> Map<String, Value> {
    let mut wanted = Wanted(Map::new());
    let capabilities = &provider.capabilities;
    wanted.put("application_type", "web");
    wanted.put("client_name", registration.client_name.as_deref());
    wanted.put("redirect_uris", [settings.redirect_uri.as_str()]);
    let after_logout = settings.post_logout_redirect_uri.as_ref().map(|url| vec![url.as_str()]);
    wanted.put("post_logout_redirect_uris", after_logout);
    wanted.put("response_types", [settings.response_type.name()]);
    wanted.put("grant_types", grants(registration, settings));
    let method = auth_method(registration, settings, provider, keys);
    wanted.put("token_endpoint_auth_method", method.name());
    let signs = |offered: &[String]| Some(client_auth::key_signer(keys?, offered, settings).ok()?.name());
    if method == ClientAuthMethod::PrivateKeyJwt {
        wanted.put("token_endpoint_auth_signing_alg", signs(&capabilities.auth_signing_algs));
    }
    wanted.algorithms(settings, provider, keys);
    wanted.keys(registration, settings, keys);
    let security = &settings.security;
    let switches = [
        // RFC 9449 §5.2, RFC 8705 §3.4, RFC 9126 §6, RFC 9101 §10.5.
        ("dpop_bound_access_tokens", security.dpop.is_some()),
        ("tls_client_certificate_bound_access_tokens", security.binds_by_tls()),
        ("require_pushed_authorization_requests", security.pushed_requests == Some(true)),
        ("require_signed_request_object", security.signed_requests.is_some()),
    ];
    for (name, _) in switches.into_iter().filter(|(_, is_on)| *is_on) {
        wanted.put(name, true);
    }
    if security.signed_requests.is_some() {
        wanted.put("request_object_signing_alg", signs(&capabilities.request_signing_algs));
    }
    // Registration §2: the addresses differ in their last segment, which no list can name.
    let fetched = settings.request_objects_at.as_ref().map(|base| vec![format!("{base}/*")]);
    wanted.put("request_uris", fetched);
    if let Some(uri) = registration.backchannel_logout_uri.as_ref().filter(|_| capabilities.backchannel_logout) {
        wanted.put("backchannel_logout_uri", uri.as_str());
        wanted.put("backchannel_logout_session_required", true);
    }
    if let Some(uri) = registration.frontchannel_logout_uri.as_ref().filter(|_| capabilities.frontchannel_logout) {
        wanted.put("frontchannel_logout_uri", uri.as_str());
        wanted.put("frontchannel_logout_session_required", true);
    }
    // Core §4: by https only.
    let login = registration.initiate_login_uri.as_ref().filter(|uri| uri.scheme() == "https");
    wanted.put("initiate_login_uri", login.map(|uri| uri.as_str()));
    wanted.0
}

struct Wanted(Map<String, Value>);

impl Wanted {
    /// Puts what is there.
    fn put(&mut self, name: &str, value: impl Serialize) {
        let value = json!(value);
        if !value.is_null() {
            self.0.insert(name.to_owned(), value);
        }
    }

    /// What is signed or encrypted for us, as far as the settings say so: of ours the first that the provider offers.
    fn algorithms(&mut self, settings: &Settings, provider: &Metadata, keys: Option<&ClientKeys>) {
        let capabilities = &provider.capabilities;
        let offered = &provider.id_token_signing_algs;
        let both = settings.signing_algs.iter().find(|one| offered.is_empty() || offered.contains(one));
        // Where there is none, ours is told, and the refusal is the provider's.
        let signed = both.or(settings.signing_algs.first()).map(|algorithm| algorithm.name());
        self.put("id_token_signed_response_alg", signed);
        if settings.decryption.required {
            let first = |names: Vec<&'static str>, offered: &[String]| {
                let is_offered = |name: &&str| offered.is_empty() || offered.iter().any(|one| one == name);
                names.into_iter().find(is_offered)
            };
            let usable = keys.map(|keys| settings.decryption.usable_with(keys)).unwrap_or_default();
            let alg = first(usable, &capabilities.id_token_encryption_algs);
            let content: Vec<_> = match &*capabilities.id_token_encryption_encs {
                // Registration §2: the default, which therefore everybody has.
                [] => vec!["A128CBC-HS256"],
                _ => ContentEncryption::ALL.into_iter().rev().map(ContentEncryption::name).collect(),
            };
            let enc = first(content, &capabilities.id_token_encryption_encs).filter(|_| alg.is_some());
            self.put("id_token_encrypted_response_alg", alg);
            self.put("id_token_encrypted_response_enc", enc);
        }
        // OpenID Connect Registration §2, RFC 9701 §6.
        let answers = &settings.answer_algs;
        let first = |algorithms: &[Algorithm]| algorithms.first().map(|algorithm| algorithm.name());
        self.put("userinfo_signed_response_alg", first(&answers.userinfo));
        self.put("introspection_signed_response_alg", first(&answers.introspection));
        if settings.response_mode.is_jwt() {
            let taken = settings.algorithms_of(Kind::Authorization, capabilities);
            // Those that ID tokens may have come first, where both may.
            let preferred = settings.signing_algs.iter().filter(|one| taken.contains(one));
            let names = preferred.chain(&taken).map(|algorithm| algorithm.name());
            self.put("authorization_signed_response_alg", answer_algorithm(names, capabilities, signed));
        }
    }

    /// RFC 7591 §2: by value, or where the provider has a way to us in any case, by their address; never both.
    fn keys(&mut self, registration: &RegistrationSettings, settings: &Settings, keys: Option<&ClientKeys>) {
        let Some(keys) = keys else { return };
        let by_reference = settings.security.signed_requests == Some(RequestObject::Reference);
        match registration.jwks_uri.as_ref().filter(|_| by_reference) {
            Some(uri) => self.put("jwks_uri", uri.as_str()),
            None => self.put("jwks", keys.public_jwks()),
        }
    }
}

/// JARM §3: as ID tokens are signed, where answers may be, else the first that is offered; where nothing is said, the default.
fn answer_algorithm(
    names: impl Iterator<Item = &'static str>,
    capabilities: &Capabilities,
    of_id_tokens: Option<&'static str>,
) -> Option<&'static str> {
    let offered = &capabilities.authorization_signing_algs;
    let is_offered = |name: &&str| offered.iter().any(|one| one == name);
    if offered.is_empty() {
        return of_id_tokens;
    }
    of_id_tokens.filter(is_offered).or_else(|| names.into_iter().find(is_offered))
}

fn grants(registration: &RegistrationSettings, settings: &Settings) -> Vec<&'static str> {
    let mut grants = vec!["authorization_code"];
    if settings.response_type == ResponseType::CodeIdToken {
        // Registration §2: what the hybrid flow needs.
        grants.push("implicit");
    }
    if settings.scopes.iter().any(|scope| scope == "offline_access") {
        grants.push("refresh_token");
    }
    let further: Vec<_> = registration.further_grants.iter().filter(|grant| !grants.contains(grant)).collect();
    grants.extend(further);
    grants
}

/// How we shall say who we are: as it is written, by a key where there is one and the provider takes that, else by the secret
/// that comes with the registration.
fn auth_method(
    registration: &RegistrationSettings,
    settings: &Settings,
    provider: &Metadata,
    keys: Option<&ClientKeys>,
) -> ClientAuthMethod {
    let capabilities = &provider.capabilities;
    let offers = |method: ClientAuthMethod| capabilities.auth_methods.iter().any(|one| one == method.name());
    let signs =
        || keys.is_some_and(|keys| client_auth::key_signer(keys, &capabilities.auth_signing_algs, settings).is_ok());
    match settings.security.method {
        _ if registration.is_public => ClientAuthMethod::None,
        Some(method) => method,
        None if settings.security.profile == Profile::Fapi2 => ClientAuthMethod::PrivateKeyJwt,
        None if offers(ClientAuthMethod::PrivateKeyJwt) && signs() => ClientAuthMethod::PrivateKeyJwt,
        None => provider.secret_method(),
    }
}
