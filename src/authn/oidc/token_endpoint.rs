//! The token endpoint (RFC 6749 §3.2): authorization codes for tokens (§4.1.3), and what its answers say, whatever they were asked
//! for (§5.1, §5.2).

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use http::{Response, StatusCode, header};
use openidconnect::{
    AuthorizationCode, ErrorResponse, HttpRequest, HttpResponse, OAuth2TokenResponse as _, PkceCodeVerifier,
    RequestTokenError,
};
use serde_json::{Map, Value, json};

use super::client_auth::ProofError;
use super::discovery::Unsupported;
use super::jose::{MAX_TOKEN, json_object};
use super::security::TokenType;
use super::settings::Client;
use crate::provider_http::{ProviderHttpError, WrongMediaType, check_json};
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
    /// `invalid_grant`: the code, token or password is wrong, spent, expired or another client's.
    #[error("the grant was refused")]
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
    /// The metadata say that it can't be asked in the way that is configured.
    #[error(transparent)]
    Unsupported(Unsupported),
    /// A key, a certificate or a token of ours is not to be had.
    #[error(transparent)]
    Proof(#[from] ProofError),
    /// A success that is not JSON by its content type.
    #[error("the token response cannot be read")]
    MediaType(#[from] WrongMediaType),
    /// Not JSON that reads in one way, no ID token, another token type than was asked for.
    #[error("the token response's {field} is missing or unusable")]
    Response {
        /// What is wrong with it.
        field: &'static str,
    },
}

impl TokenError {
    /// Whether it may be over soon: the provider is away or busy.
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Busy | Self::Http(_) | Self::ProviderUnknown | Self::Status(500..))
    }
}

/// What a code is redeemed with.
#[derive(Debug, Clone, Copy)]
pub(super) struct Redemption<'a> {
    pub(super) code: &'a str,
    pub(super) pkce_verifier: &'a str,
    /// What the access token is for (RFC 8707).
    pub(super) resources: &'a [String],
    /// The only kind that is taken (RFC 6749 §7.1, RFC 9449 §5).
    pub(super) token_type: TokenType,
}

/// Redeems a code (RFC 6749 §4.1.3, RFC 7636 §4.5) with the one request that `call` sends.
pub(super) async fn redeem<F>(
    client: &Client,
    redemption: Redemption<'_>,
    call: impl Fn(HttpRequest) -> F,
) -> Result<Tokens, TokenError>
where
    F: Future<Output = Result<Response<Bytes>, TokenError>> + 'static,
{
    let Redemption { code, pkce_verifier, resources, token_type } = redemption;
    // Goes past the library, which would open it: there is one verifier, and it is ours.
    let id_token = Arc::new(OnceLock::new());
    let exchange = |mut request: HttpRequest| {
        if let Some(authorization) = request.headers_mut().get_mut(header::AUTHORIZATION) {
            authorization.set_sensitive(true);
        }
        let (answer, id_token) = (call(request), Arc::clone(&id_token));
        async move {
            let (standard, unverified) = read_answer(&answer.await?, token_type)?;
            id_token.get_or_init(|| unverified);
            Ok(standard)
        }
    };
    let request = client
        .exchange_code(AuthorizationCode::new(code.to_owned()))
        .map_err(|_| TokenError::ProviderUnknown)?
        .set_pkce_verifier(PkceCodeVerifier::new(pkce_verifier.to_owned()));
    // RFC 8707 §2.2: the same as in the authorization request.
    let answer = resources
        .iter()
        .fold(request, |request, resource| request.add_extra_param("resource", resource))
        .request_async(&exchange)
        .await
        .map_err(unusable)?;
    Ok(Tokens {
        id_token: id_token.get().cloned().ok_or(TokenError::Response { field: "id_token" })?,
        access_token: token("access_token", answer.access_token().secret())?,
        expires_in: answer.expires_in(),
        refresh_token: answer.refresh_token().map(|text| token("refresh_token", text.secret())).transpose()?,
    })
}

/// Takes a success (RFC 6749 §5.1) apart into what the library reads, in the one form that it knows, and the ID token.
fn read_answer(answer: &Response<Bytes>, token_type: TokenType) -> Result<(HttpResponse, SecretString), TokenError> {
    let body = success(answer, token_type)?;
    let standard = json!({
        "access_token": body.get("access_token"),
        "token_type": "bearer",
        "expires_in": expires_in(&body)?,
        "refresh_token": body.get("refresh_token"),
    });
    let id_token = token("id_token", body.get("id_token").and_then(Value::as_str).unwrap_or_default())?;
    Ok((HttpResponse::new(standard.to_string().into_bytes()), id_token))
}

/// The members of a success (RFC 6749 §5.1) with the right kind of token. Refusals are read here: the library takes none with
/// status 200, and none with an odd member.
pub(super) fn success(answer: &Response<Bytes>, token_type: TokenType) -> Result<Map<String, Value>, TokenError> {
    if answer.status() == StatusCode::OK {
        check_json(answer)?;
    }
    let body = match (answer.status(), json_object(answer.body())) {
        (StatusCode::OK, Ok(body)) if !body.contains_key("error") => body,
        (StatusCode::OK, Ok(body)) => return Err(refusal(&body).unwrap_or(TokenError::Response { field: "error" })),
        (StatusCode::OK, Err(_)) => return Err(TokenError::Response { field: "body" }),
        (status @ (StatusCode::BAD_REQUEST | StatusCode::UNAUTHORIZED), Ok(body)) => {
            return Err(refusal(&body).unwrap_or(TokenError::Status(status.as_u16())));
        }
        (status, _) => return Err(TokenError::Status(status.as_u16())),
    };
    // A bearer token where a bound one was asked for is one that anybody could use.
    let is_right = |given: &str| given.eq_ignore_ascii_case(token_type.name());
    if !body.get("token_type").and_then(Value::as_str).is_some_and(is_right) {
        return Err(TokenError::Response { field: "token_type" });
    }
    Ok(body)
}

/// Why the library read no tokens: nothing of the body, which its own error carries, is ever part of ours.
fn unusable<E: ErrorResponse>(error: RequestTokenError<TokenError, E>) -> TokenError {
    match error {
        RequestTokenError::Request(error) => error,
        RequestTokenError::Parse(error, _) => {
            let path = error.path().to_string();
            let field = ["access_token", "refresh_token"].into_iter().find(|field| *field == path);
            TokenError::Response { field: field.unwrap_or("body") }
        }
        _ => TokenError::Response { field: "endpoint" },
    }
}

/// RFC 6749 §5.2.
pub(super) fn refusal(body: &Map<String, Value>) -> Option<TokenError> {
    let (error, description) = oauth_error(body)?;
    if error == "invalid_grant" {
        return Some(TokenError::InvalidGrant);
    }
    Some(TokenError::Refused { error, description })
}

/// An OAuth error (RFC 6749 §5.2): its code, cut to 64 characters, and its description, to 256 that are no control characters.
pub(super) fn oauth_error(body: &Map<String, Value>) -> Option<(String, Option<String>)> {
    let error = body.get("error")?.as_str()?;
    let description = body.get("error_description").and_then(Value::as_str);
    let description = description.map(|text| text.chars().filter(|letter| !letter.is_control()).take(256).collect());
    Some((error.chars().take(64).collect(), description))
}

/// RFC 6749 appendix A.12 and A.17: visible ASCII, so that it can stand in a header field.
pub(super) fn token(field: &'static str, text: &str) -> Result<SecretString, TokenError> {
    if (1..=MAX_TOKEN).contains(&text.len()) && text.bytes().all(|byte| (0x20..0x7f).contains(&byte)) {
        Ok(SecretString::new(text.to_owned()))
    } else {
        Err(TokenError::Response { field })
    }
}

/// Whole seconds; some providers write them as a string or with a fraction.
pub(super) fn expires_in(body: &Map<String, Value>) -> Result<Option<u64>, TokenError> {
    let seconds = match body.get("expires_in") {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::String(text)) => text.parse::<f64>().ok(),
        Some(value) => value.as_f64(),
    };
    let seconds = seconds.filter(|seconds| seconds.is_finite() && *seconds >= 0.0);
    let seconds = seconds.ok_or(TokenError::Response { field: "expires_in" })?;
    // The cast floors, and the bound makes it exact.
    Ok(Some(seconds.min(MAX_LIFE) as u64))
}

/// The longest life that is believed: ten years, in seconds.
const MAX_LIFE: f64 = 315_360_000.0;

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use base64::Engine as _;
    use base64::prelude::BASE64_STANDARD;
    use futures_util::FutureExt as _;

    use super::*;
    use crate::authn::oidc::discovery::Metadata;
    use crate::authn::oidc::provider::test_settings;
    use crate::authn::oidc::settings::Settings;

    fn redemption(code: &str) -> Redemption<'_> {
        Redemption { code, pkce_verifier: "verifier", resources: &[], token_type: TokenType::Bearer }
    }

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
        let sent = Mutex::new(None);
        let client = settings.client(&metadata(methods));
        let call = |request| {
            *sent.lock().unwrap() = Some(request);
            std::future::ready(Err(TokenError::Busy))
        };
        let outcome = redeem(&client, redemption("c&d"), call).now_or_never().unwrap();
        assert!(matches!(outcome, Err(TokenError::Busy)));
        let request: HttpRequest = sent.into_inner().unwrap().unwrap();
        assert_eq!((request.method().as_str(), request.uri().path()), ("POST", "/token"));
        assert_eq!(request.headers()["content-type"], "application/x-www-form-urlencoded");
        let authorization = request.headers().get("authorization").map(|value| {
            assert!(value.is_sensitive());
            value.to_str().unwrap().to_owned()
        });
        (authorization, String::from_utf8(request.into_body()).unwrap())
    }

    #[test]
    fn the_client_authenticates_as_the_metadata_says() {
        let mut settings = test_settings("https://id.example");
        settings.credentials.client_id = "app one".into();
        settings.credentials.client_secret = Some(SecretString::new("s:+ä".into()));
        let grant = "grant_type=authorization_code&code=c%26d&code_verifier=verifier";
        let back = "redirect_uri=https%3A%2F%2Fapp.example%2Fauth%2Fcallback";
        let header = format!("Basic {}", BASE64_STANDARD.encode("app+one:s%3A%2B%C3%A4"));
        for methods in [&[][..], &["client_secret_basic", "client_secret_post"]] {
            assert_eq!(request(&settings, methods), (Some(header.clone()), format!("{grant}&{back}")), "{methods:?}");
        }
        let posted = format!("{grant}&client_id=app+one&client_secret=s%3A%2B%C3%A4&{back}");
        assert_eq!(request(&settings, &["private_key_jwt", "client_secret_post"]), (None, posted));
        settings.credentials.client_secret = None;
        assert_eq!(request(&settings, &["none"]), (None, format!("{grant}&client_id=app+one&{back}")));
    }

    fn answer(status: u16, body: impl ToString) -> Result<Tokens, TokenError> {
        let client = test_settings("https://id.example").client(&metadata(&[]));
        let body = Bytes::from(body.to_string());
        let call = |_| {
            let answer = Response::builder().status(status).header("content-type", "application/json;charset=UTF-8");
            std::future::ready(Ok(answer.body(body.clone()).unwrap()))
        };
        redeem(&client, redemption("code"), call).now_or_never().unwrap()
    }

    #[test]
    fn a_full_answer_is_read() {
        let tokens = answer(
            200,
            json!({"id_token": "i", "access_token": "a", "refresh_token": "r", "token_type": "bEARER",
                "expires_in": "300", "scope": ["openid"]}),
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
        let twice = r#"{"id_token":"i","access_token":"a","access_token":"b","token_type":"Bearer"}"#;
        for body in ["<html>", "[]", "", twice] {
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
