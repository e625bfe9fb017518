//! What is sent to the registration endpoint (RFC 7591 §3.1, RFC 7592 §2.2) and what comes back (RFC 7591 §3.2).

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use serde_json::{Map, Value, json};
use url::Url;

use super::RegistrationError;
use super::file::Kept;
use crate::authn::oidc::client_auth::ClientAuthMethod;
use crate::authn::oidc::discovery::url_called_by_us;
use crate::authn::oidc::jose::{self, Algorithm};
use crate::authn::oidc::security::Profile;
use crate::authn::oidc::settings::{Credentials, Settings};
use crate::clock::UnixTime;
use crate::provider_http::check_json;
use crate::secret::SecretString;

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
    // §2.2: everything that the provider gave, too, but for what we no longer want.
    let mut whole = kept.registered.clone();
    whole.retain(|name, _| !kept.metadata.contains_key(name));
    whole.extend(wanted.clone());
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
    if answer.status().is_success() {
        check_json(answer)?;
    }
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
    let method = method_of(body, &wanted, settings, client_secret.is_some())?;
    let algorithm = algorithm_of(body, &wanted, settings)?;
    let is_symmetric = algorithm.is_some_and(Algorithm::is_symmetric);
    let uses_secret = method.is_some_and(ClientAuthMethod::needs_secret) || is_symmetric;
    // RFC 7591 §3.2.1: what is signed otherwise than was asked for would be refused each time.
    for field in
        ["userinfo_signed_response_alg", "authorization_signed_response_alg", "introspection_signed_response_alg"]
    {
        if let (Some(registered), Some(asked)) = (body.get(field), wanted.get(field))
            && registered != asked
        {
            return Err(RegistrationError::Answer { field });
        }
    }
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
        registered: sent_back(body),
        metadata: wanted,
    })
}

/// RFC 7591 §3.2.1: the provider may register something else than was asked for. What we cannot do, or what the settings say
/// otherwise, is no registration.
fn method_of(
    body: &Map<String, Value>,
    wanted: &Map<String, Value>,
    settings: &Settings,
    has_secret: bool,
) -> Result<Option<ClientAuthMethod>, RegistrationError> {
    let field = "token_endpoint_auth_method";
    let unusable = RegistrationError::Answer { field };
    let named = |value: &Value| ClientAuthMethod::registered(value.as_str()?);
    let asked = wanted.get(field).and_then(named);
    let Some(registered) = body.get(field).filter(|value| !value.is_null()) else { return Ok(asked) };
    let Some(method) = named(registered) else { return Err(unusable) };
    let security = &settings.security;
    let is_ours_to_choose = security.method.is_none() && security.profile != Profile::Fapi2;
    let can = match method {
        method if method.needs_secret() => has_secret,
        ClientAuthMethod::PrivateKeyJwt => wanted.contains_key("jwks") || wanted.contains_key("jwks_uri"),
        // It would leave us without any proof of who we are.
        _ => false,
    };
    if Some(method) == asked || (is_ours_to_choose && can) { Ok(Some(method)) } else { Err(unusable) }
}

/// The same about `id_token_signed_response_alg`: only what the settings allow is ever taken.
fn algorithm_of(
    body: &Map<String, Value>,
    wanted: &Map<String, Value>,
    settings: &Settings,
) -> Result<Option<Algorithm>, RegistrationError> {
    let field = "id_token_signed_response_alg";
    let named = |value: &Value| Algorithm::from_name(value.as_str()?);
    let asked = wanted.get(field).and_then(named);
    let Some(registered) = body.get(field).filter(|value| !value.is_null() && asked.is_some()) else {
        return Ok(asked);
    };
    let registered = named(registered).filter(|algorithm| settings.signing_algs.contains(algorithm));
    registered.map(Some).ok_or(RegistrationError::Answer { field })
}

/// RFC 7592 §2.2: all of the answer but what a change must not hold. The secret is kept on its own.
fn sent_back(body: &Map<String, Value>) -> Map<String, Value> {
    const NOT_SENT_BACK: [&str; 6] = [
        "client_id",
        "client_secret",
        "client_secret_expires_at",
        "client_id_issued_at",
        "registration_access_token",
        "registration_client_uri",
    ];
    let is_kept = |(name, value): &(&String, &Value)| !value.is_null() && !NOT_SENT_BACK.contains(&name.as_str());
    body.iter().filter(is_kept).map(|(name, value)| (name.clone(), value.clone())).collect()
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
