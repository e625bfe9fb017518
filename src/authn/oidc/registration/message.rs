//! What is sent to the registration endpoint (RFC 7591 §3.1, RFC 7592 §2.2) and what comes back (RFC 7591 §3.2).

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use serde_json::{Map, Value, json};
use url::Url;

use super::file::Kept;
use super::{RegistrationError, RegistrationSettings};
use crate::authn::oidc::client_auth::ClientAuthMethod;
use crate::authn::oidc::discovery::{Metadata, url_called_by_us};
use crate::authn::oidc::jose;
use crate::authn::oidc::provider::{Credentials, Settings};
use crate::authn::oidc::response::ResponseType;
use crate::authn::oidc::security::Profile;
use crate::clock::UnixTime;
use crate::secret::SecretString;

/// The client metadata that our settings imply (RFC 7591 §2); `keys` are our public ones. Without `scope`: providers then give
/// what they give everybody, and some refuse `openid` there.
pub(super) fn metadata(
    registration: &RegistrationSettings,
    settings: &Settings,
    provider: &Metadata,
    keys: Option<Value>,
) -> Map<String, Value> {
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
    let mut wanted = Map::new();
    let mut put = |name: &str, value: Value| drop(wanted.insert(name.to_owned(), value));
    put("application_type", json!("web"));
    if let Some(name) = &registration.client_name {
        put("client_name", json!(name));
    }
    put("redirect_uris", json!([settings.redirect_uri.as_str()]));
    if let Some(url) = &settings.post_logout_redirect_uri {
        put("post_logout_redirect_uris", json!([url.as_str()]));
    }
    put("response_types", json!([settings.response_type.name()]));
    put("grant_types", json!(grants));
    put("token_endpoint_auth_method", json!(auth_method(registration, settings, provider)));
    if let Some(algorithm) = settings.signing_algs.first() {
        put("id_token_signed_response_alg", json!(algorithm.name()));
    }
    if let Some(keys) = keys {
        put("jwks", keys);
    }
    let security = &settings.security;
    let switches = [
        // RFC 9449 §5.2, RFC 8705 §3.4, RFC 9126 §6, RFC 9101 §10.5.
        ("dpop_bound_access_tokens", security.dpop.is_some()),
        ("tls_client_certificate_bound_access_tokens", security.binds_by_tls()),
        ("require_pushed_authorization_requests", security.pushed_requests == Some(true)),
        ("require_signed_request_object", security.signed_requests),
    ];
    for (name, _) in switches.into_iter().filter(|(_, is_on)| *is_on) {
        put(name, json!(true));
    }
    let capabilities = &provider.capabilities;
    if let Some(uri) = registration.backchannel_logout_uri.as_ref().filter(|_| capabilities.backchannel_logout) {
        put("backchannel_logout_uri", json!(uri.as_str()));
        put("backchannel_logout_session_required", json!(true));
    }
    if let Some(uri) = registration.frontchannel_logout_uri.as_ref().filter(|_| capabilities.frontchannel_logout) {
        put("frontchannel_logout_uri", json!(uri.as_str()));
        put("frontchannel_logout_session_required", json!(true));
    }
    wanted
}

/// How we shall say who we are: as it is written, by a key where the profile wants no secret, else by the secret that comes
/// with the registration.
fn auth_method(registration: &RegistrationSettings, settings: &Settings, provider: &Metadata) -> &'static str {
    match settings.security.method {
        _ if registration.is_public => "none",
        Some(method) => method.name(),
        None if settings.security.profile == Profile::Fapi2 => ClientAuthMethod::PrivateKeyJwt.name(),
        None => provider.secret_method(),
    }
}

pub(super) fn register(
    endpoint: &Url,
    wanted: &Map<String, Value>,
    token: Option<&SecretString>,
) -> Result<Request<Bytes>, RegistrationError> {
    request(Method::POST, endpoint, &Value::Object(wanted.clone()), token)
}

/// `None` where the provider lets nobody change a registration.
pub(super) fn update(
    kept: &Kept,
    wanted: &Map<String, Value>,
    settings: &Settings,
) -> Result<Option<Request<Bytes>>, RegistrationError> {
    let (Some(token), Some(uri)) = (&kept.token, &kept.client_uri) else { return Ok(None) };
    let field = "registration_client_uri";
    let uri = url_called_by_us(uri, field, settings).map_err(|_| RegistrationError::Answer { field })?;
    let mut whole = wanted.clone();
    whole.insert("client_id".to_owned(), json!(kept.credentials.client_id));
    if let Some(secret) = &kept.credentials.client_secret {
        whole.insert("client_secret".to_owned(), json!(secret.expose_secret()));
    }
    request(Method::PUT, &uri, &Value::Object(whole), Some(token)).map(Some)
}

fn request(
    method: Method,
    url: &Url,
    body: &Value,
    token: Option<&SecretString>,
) -> Result<Request<Bytes>, RegistrationError> {
    let unusable = || RegistrationError::Answer { field: "registration_access_token" };
    let mut request = Request::builder()
        .method(method)
        .uri(url.as_str())
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::ACCEPT, "application/json")
        .body(Bytes::from(body.to_string()))
        .map_err(|_| unusable())?;
    if let Some(token) = token {
        let bearer = HeaderValue::try_from(format!("Bearer {}", token.expose_secret()));
        let mut bearer = bearer.map_err(|_| unusable())?;
        bearer.set_sensitive(true);
        request.headers_mut().insert(header::AUTHORIZATION, bearer);
    }
    Ok(request)
}

/// RFC 7591 §3.2.1 is 201 to a registration, RFC 7592 §3 200 to a change; some answer 200 to both.
pub(super) fn read_answer(
    answer: &Response<Bytes>,
    wanted: Map<String, Value>,
    settings: &Settings,
    now: UnixTime,
) -> Result<Kept, RegistrationError> {
    let body = jose::json_object(answer.body());
    match (answer.status(), body) {
        (StatusCode::OK | StatusCode::CREATED, Ok(body)) => read(&body, wanted, settings, now),
        (StatusCode::OK | StatusCode::CREATED, Err(_)) => Err(RegistrationError::Answer { field: "body" }),
        (StatusCode::BAD_REQUEST, Ok(body)) if body.get("error").is_some_and(Value::is_string) => {
            let text = |name: &str, most: usize| {
                let text = body.get(name).and_then(Value::as_str).unwrap_or_default();
                text.chars().filter(|c| !c.is_control()).take(most).collect::<String>()
            };
            Err(RegistrationError::Refused { error: text("error", 64), description: text("error_description", 256) })
        }
        (status, _) => Err(RegistrationError::Status(status.as_u16())),
    }
}

fn read(
    body: &Map<String, Value>,
    wanted: Map<String, Value>,
    settings: &Settings,
    now: UnixTime,
) -> Result<Kept, RegistrationError> {
    let client_id = text(body, "client_id")?.ok_or(RegistrationError::Answer { field: "client_id" })?;
    let client_secret = text(body, "client_secret")?.map(SecretString::new);
    let token = text(body, "registration_access_token")?.map(SecretString::new);
    let client_uri = text(body, "registration_client_uri")?;
    if let Some(uri) = &client_uri {
        let field = "registration_client_uri";
        url_called_by_us(uri, field, settings).map_err(|_| RegistrationError::Answer { field })?;
    }
    // The provider may register something else than was asked for (RFC 7591 §3.2.1): what we cannot do is no registration.
    for field in ["token_endpoint_auth_method", "id_token_signed_response_alg"] {
        if let (Some(registered), Some(asked)) = (body.get(field), wanted.get(field))
            && registered != asked
        {
            return Err(RegistrationError::Answer { field });
        }
    }
    let begins = |member: &str, with: &str| {
        wanted.get(member).and_then(Value::as_str).is_some_and(|value| value.starts_with(with))
    };
    let uses_secret =
        begins("token_endpoint_auth_method", "client_secret") || begins("id_token_signed_response_alg", "HS");
    let ours = Value::from(settings.redirect_uri.as_str());
    let registered = body.get("redirect_uris").and_then(Value::as_array);
    if registered.is_some_and(|registered| !registered.contains(&ours)) {
        return Err(RegistrationError::Answer { field: "redirect_uris" });
    }
    // Zero: never.
    let expires_at = match body.get("client_secret_expires_at") {
        None | Some(Value::Null) => None,
        Some(value) => {
            let field = "client_secret_expires_at";
            let seconds = value.as_f64().filter(|seconds| (0.0..MAX_SECONDS).contains(seconds));
            // The cast floors, and the range makes it exact.
            let seconds = seconds.ok_or(RegistrationError::Answer { field })? as u64;
            (seconds > 0).then_some(UnixTime(seconds))
        }
    };
    let has_secret = client_secret.is_some();
    // Some give a secret even to a client that says who it is in another way; it is then none of ours to use.
    let client_secret = client_secret.filter(|_| uses_secret);
    Ok(Kept {
        credentials: Credentials { client_id, client_secret },
        expires_at: expires_at.filter(|_| has_secret && uses_secret),
        registered_at: now,
        token,
        client_uri,
        metadata: wanted,
    })
}

/// RFC 6749 appendix A.1, A.2 and A.12: visible ASCII and spaces.
fn text(body: &Map<String, Value>, field: &'static str) -> Result<Option<String>, RegistrationError> {
    match body.get(field) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text))
            if (1..=jose::MAX_TOKEN).contains(&text.len()) && text.bytes().all(|byte| (0x20..0x7f).contains(&byte)) =>
        {
            Ok(Some(text.clone()))
        }
        Some(_) => Err(RegistrationError::Answer { field }),
    }
}

/// 2^53.
const MAX_SECONDS: f64 = 9_007_199_254_740_992.0;
