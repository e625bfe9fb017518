//! The token endpoint (RFC 6749 §3.2): authorization codes for tokens.

use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header};
use serde_json::{Map, Value};
use url::form_urlencoded;

use super::discovery::Metadata;
use super::jose::MAX_TOKEN;
use super::provider::Settings;
use crate::provider_http::ProviderHttpError;
use crate::secret::SecretString;

/// A successful token response (RFC 6749 §5.1, OpenID Connect Core §3.1.3.3).
#[derive(Debug)]
pub struct Tokens {
    /// The ID token, unverified.
    pub id_token: SecretString,
    /// The access token.
    pub access_token: SecretString,
    /// Its life, when the provider says.
    pub expires_in: Option<Duration>,
    /// The refresh token, when one was granted.
    pub refresh_token: Option<SecretString>,
}

/// Why no tokens came.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// Discovery has not worked yet.
    #[error("the provider is not known yet")]
    ProviderUnknown,
    /// The call failed.
    #[error("the token endpoint could not be asked")]
    Http(#[source] ProviderHttpError),
    /// Too many calls wait: 503 with `Retry-After`.
    #[error("too many token calls are waiting")]
    Busy,
    /// `invalid_grant`: the code is spent, expired or another client's.
    #[error("the authorization code was refused")]
    InvalidGrant,
    /// Another OAuth error (RFC 6749 §5.2), such as `invalid_client`. The description is for the log only.
    #[error("the token endpoint refused the request with {error:?}")]
    Refused {
        /// The `error` code, cut to 64 characters.
        error: String,
        /// The `error_description`, cut to 256 characters.
        description: Option<String>,
    },
    /// 5xx or another status that is no OAuth answer.
    #[error("the token endpoint answered with status {0}")]
    Status(u16),
    /// Not JSON, no ID token, not a bearer token type.
    #[error("the token response's {field} is missing or unusable")]
    Response {
        /// What is wrong with it.
        field: &'static str,
    },
}

/// The request that redeems a code (RFC 6749 §4.1.3, RFC 7636 §4.5).
pub(super) fn code_request(
    settings: &Settings,
    metadata: &Metadata,
    code: &str,
    pkce_verifier: &str,
) -> Result<Request<Bytes>, TokenError> {
    let mut form = form_urlencoded::Serializer::new(String::new());
    form.append_pair("grant_type", "authorization_code")
        .append_pair("code", code)
        .append_pair("redirect_uri", settings.redirect_uri.as_str())
        .append_pair("code_verifier", pkce_verifier);
    let mut authorization = None;
    match &settings.client_secret {
        Some(secret) if wants_secret_in_body(metadata) => {
            form.append_pair("client_id", &settings.client_id).append_pair("client_secret", secret.expose_secret());
        }
        Some(secret) => authorization = Some(basic(&settings.client_id, secret)),
        None => {
            form.append_pair("client_id", &settings.client_id);
        }
    }
    let mut request = Request::post(metadata.token_endpoint.as_str())
        .header(header::ACCEPT, "application/json")
        .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
        .body(Bytes::from(form.finish()))
        .map_err(|_| TokenError::Response { field: "endpoint" })?;
    if let Some(authorization) = authorization {
        request.headers_mut().insert(header::AUTHORIZATION, authorization?);
    }
    Ok(request)
}

/// RFC 6749 §2.3.1 prefers the header; the body is for providers that offer nothing else.
fn wants_secret_in_body(metadata: &Metadata) -> bool {
    let offers = |method: &str| metadata.token_auth_methods.iter().any(|offered| offered == method);
    offers("client_secret_post") && !offers("client_secret_basic")
}

/// RFC 6749 §2.3.1: both parts are form-urlencoded before they are joined.
fn basic(client_id: &str, secret: &SecretString) -> Result<HeaderValue, TokenError> {
    let encoded = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
    let pair = format!("{}:{}", encoded(client_id), encoded(secret.expose_secret()));
    let mut value = HeaderValue::try_from(format!("Basic {}", BASE64_STANDARD.encode(pair)))
        .map_err(|_| TokenError::Response { field: "client" })?;
    value.set_sensitive(true);
    Ok(value)
}

/// Reads the answer (RFC 6749 §5). Nothing of a body is ever part of an error, but for the two fields made for it.
pub(super) fn read_answer(answer: &Response<Bytes>) -> Result<Tokens, TokenError> {
    let body = match serde_json::from_slice(answer.body()) {
        Ok(Value::Object(body)) => Some(body),
        _ => None,
    };
    match (answer.status(), body) {
        (StatusCode::OK, None) => Err(TokenError::Response { field: "body" }),
        (StatusCode::OK, Some(body)) if body.contains_key("error") => {
            Err(refusal(&body).unwrap_or(TokenError::Response { field: "error" }))
        }
        (StatusCode::OK, Some(body)) => tokens(&body),
        (status @ (StatusCode::BAD_REQUEST | StatusCode::UNAUTHORIZED), Some(body)) => {
            Err(refusal(&body).unwrap_or(TokenError::Status(status.as_u16())))
        }
        (status, _) => Err(TokenError::Status(status.as_u16())),
    }
}

/// RFC 6749 §5.2.
fn refusal(body: &Map<String, Value>) -> Option<TokenError> {
    let error = body.get("error")?.as_str()?;
    if error == "invalid_grant" {
        return Some(TokenError::InvalidGrant);
    }
    Some(TokenError::Refused {
        error: error.chars().take(64).collect(),
        description: body
            .get("error_description")
            .and_then(Value::as_str)
            .map(|text| text.chars().filter(|c| !c.is_control()).take(256).collect()),
    })
}

/// RFC 6749 §5.1, Core §3.1.3.3.
fn tokens(body: &Map<String, Value>) -> Result<Tokens, TokenError> {
    let is_bearer =
        body.get("token_type").and_then(Value::as_str).is_some_and(|kind| kind.eq_ignore_ascii_case("bearer"));
    if !is_bearer {
        return Err(TokenError::Response { field: "token_type" });
    }
    let required = |field| token(body, field)?.ok_or(TokenError::Response { field });
    Ok(Tokens {
        id_token: required("id_token")?,
        access_token: required("access_token")?,
        expires_in: expires_in(body)?,
        refresh_token: token(body, "refresh_token")?,
    })
}

/// RFC 6749 appendix A.12 and A.17: visible ASCII, so that it can stand in a header field.
fn token(body: &Map<String, Value>, field: &'static str) -> Result<Option<SecretString>, TokenError> {
    match body.get(field) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text))
            if (1..=MAX_TOKEN).contains(&text.len()) && text.bytes().all(|byte| (0x20..0x7f).contains(&byte)) =>
        {
            Ok(Some(SecretString::new(text.clone())))
        }
        Some(_) => Err(TokenError::Response { field }),
    }
}

/// Seconds; some providers write them as a string.
fn expires_in(body: &Map<String, Value>) -> Result<Option<Duration>, TokenError> {
    let seconds = match body.get("expires_in") {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::String(text)) => text.parse::<f64>().ok(),
        Some(value) => value.as_f64(),
    };
    let seconds = seconds.filter(|seconds| seconds.is_finite() && *seconds >= 0.0);
    let seconds = seconds.ok_or(TokenError::Response { field: "expires_in" })?;
    // The cast floors, and the bound makes it exact.
    Ok(Some(Duration::from_secs(seconds.min(MAX_LIFE) as u64)))
}

/// The longest life that is believed: ten years, in seconds.
const MAX_LIFE: f64 = 315_360_000.0;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::authn::oidc::provider::test_settings;

    fn metadata(methods: &[&str]) -> Metadata {
        let document = json!({
            "issuer": "https://id.example",
            "authorization_endpoint": "https://id.example/authorize",
            "token_endpoint": "https://id.example/token",
            "jwks_uri": "https://id.example/jwks",
            "token_endpoint_auth_methods_supported": methods,
        });
        Metadata::parse(document.to_string().as_bytes(), &test_settings("https://id.example")).unwrap()
    }

    fn request(settings: &Settings, methods: &[&str]) -> (Option<String>, String) {
        let request = code_request(settings, &metadata(methods), "c&d", "verifier").unwrap();
        let authorization = request.headers().get("authorization").map(|value| value.to_str().unwrap().to_owned());
        (authorization, String::from_utf8(request.into_body().to_vec()).unwrap())
    }

    #[test]
    fn the_client_authenticates_as_the_metadata_says() {
        let mut settings = test_settings("https://id.example");
        settings.client_id = "app one".into();
        settings.client_secret = Some(SecretString::new("s:+ä".into()));
        let grant = "grant_type=authorization_code&code=c%26d\
            &redirect_uri=https%3A%2F%2Fapp.example%2Fauth%2Fcallback&code_verifier=verifier";
        let header = format!("Basic {}", BASE64_STANDARD.encode("app+one:s%3A%2B%C3%A4"));
        for methods in [&[][..], &["client_secret_basic", "client_secret_post"], &["private_key_jwt"]] {
            assert_eq!(request(&settings, methods), (Some(header.clone()), grant.to_owned()), "{methods:?}");
        }
        let posted = format!("{grant}&client_id=app+one&client_secret=s%3A%2B%C3%A4");
        assert_eq!(request(&settings, &["private_key_jwt", "client_secret_post"]), (None, posted));
        settings.client_secret = None;
        assert_eq!(request(&settings, &["none"]), (None, format!("{grant}&client_id=app+one")));
    }

    fn answer(status: u16, body: impl ToString) -> Result<Tokens, TokenError> {
        read_answer(&Response::builder().status(status).body(Bytes::from(body.to_string())).unwrap())
    }

    #[test]
    fn a_full_answer_is_read() {
        let tokens = answer(
            200,
            json!({"id_token": "i", "access_token": "a", "refresh_token": "r", "token_type": "bEARER", "expires_in": "300"}),
        )
        .unwrap();
        assert_eq!(tokens.id_token.expose_secret(), "i");
        assert_eq!(tokens.access_token.expose_secret(), "a");
        assert_eq!(tokens.refresh_token.unwrap().expose_secret(), "r");
        assert_eq!(tokens.expires_in, Some(Duration::from_secs(300)));
    }

    #[test]
    fn unusable_answers_name_the_field() {
        let good = json!({"id_token": "i", "access_token": "a", "token_type": "Bearer"});
        let changes = [
            ("id_token", Value::Null),
            ("id_token", json!(["i"])),
            ("id_token", json!("x".repeat(MAX_TOKEN + 1))),
            ("access_token", json!("")),
            ("access_token", json!("a\nb")),
            ("access_token", json!(7)),
            ("refresh_token", json!({})),
            ("token_type", json!("DPoP")),
            ("token_type", Value::Null),
            ("expires_in", json!(-1)),
            ("expires_in", json!("soon")),
            ("expires_in", json!("inf")),
            ("expires_in", json!([])),
        ];
        for (name, value) in changes {
            let mut body = good.clone();
            body[name] = value.clone();
            let error = answer(200, &body).unwrap_err();
            assert!(matches!(error, TokenError::Response { field } if field == name), "{name} = {value}: {error:?}");
        }
        for body in ["<html>", "[]", ""] {
            assert!(matches!(answer(200, body), Err(TokenError::Response { field: "body" })), "{body}");
        }
        let far =
            answer(200, json!({"id_token": "i", "access_token": "a", "token_type": "Bearer", "expires_in": 1e300}));
        assert_eq!(far.unwrap().expires_in, Some(Duration::from_secs(315_360_000)));
    }

    #[test]
    fn refusals_keep_their_code_and_a_bounded_description() {
        assert!(matches!(answer(400, json!({"error": "invalid_grant"})), Err(TokenError::InvalidGrant)));
        let long = "x".repeat(1000);
        for status in [200, 400, 401] {
            let body = json!({"error": format!("invalid_client{long}"), "error_description": format!("a\n{long}")});
            let Err(TokenError::Refused { error, description }) = answer(status, body) else { panic!("{status}") };
            assert!(error.starts_with("invalid_client") && error.len() == 64);
            assert!(description.is_some_and(|text| text.starts_with("ax") && text.len() == 256));
        }
        assert!(matches!(answer(400, "<html>"), Err(TokenError::Status(400))));
        assert!(matches!(answer(401, json!({"error": 1})), Err(TokenError::Status(401))));
        assert!(matches!(answer(503, json!({"error": "server_error"})), Err(TokenError::Status(503))));
    }
}
