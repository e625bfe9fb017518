//! The userinfo endpoint (OpenID Connect Core §5.3). Asked only after the ID token is fully verified.
//!
//! Not by the library, which would verify signed answers itself and fail on a standard claim of another type.

use std::borrow::Cow;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header};
use serde_json::{Map, Value};
use url::Url;

use super::claims::{self, Rules};
use super::client_auth::ProofError;
use super::decryption::is_encrypted;
use super::id_token;
use super::jose::{self, Jws, Trust};
use super::jwe::Undecryptable;
use super::security::TokenType;
use crate::clock::UnixTime;
use crate::provider_http::ProviderHttpError;
use crate::secret::SecretString;

/// Why userinfo is not believed.
#[derive(Debug, thiserror::Error)]
pub enum UserinfoError {
    /// The call failed.
    #[error("the userinfo endpoint could not be asked")]
    Http(#[source] ProviderHttpError),
    /// A status other than 200.
    #[error("the userinfo endpoint answered with status {0}")]
    Status(u16),
    /// Not a JSON object, or a signed one that does not verify.
    #[error("the userinfo answer is unusable")]
    Malformed,
    /// A proof of ours could not be made.
    #[error(transparent)]
    Proof(#[from] ProofError),
    /// Encrypted, and not to be opened with our keys. The cause is for the log.
    #[error("the userinfo answer cannot be decrypted: {0}")]
    Undecryptable(&'static str),
    /// `sub` is missing or another (Core §5.3.2).
    #[error("the userinfo answer is about another subject")]
    SubjectMismatch,
}

/// The request (Core §5.3.1, RFC 6750 §2.1, RFC 9449 §7.1).
pub(super) fn request(
    endpoint: &Url,
    token_type: TokenType,
    access_token: &SecretString,
) -> Result<Request<Bytes>, UserinfoError> {
    let mut token = HeaderValue::try_from(format!("{} {}", token_type.name(), access_token.expose_secret()))
        .map_err(|_| UserinfoError::Malformed)?;
    token.set_sensitive(true);
    Request::get(endpoint.as_str())
        .header(header::ACCEPT, "application/json, application/jwt;q=0.9")
        .header(header::AUTHORIZATION, token)
        .body(Bytes::new())
        .map_err(|_| UserinfoError::Malformed)
}

/// The answer with what is inside of an encrypted one. Core §5.3.2 lets it be encrypted without being signed: then there is JSON
/// inside, believed for coming over TLS from the endpoint, as JSON in the clear is, and no token that says `none`.
pub(super) fn opened<'a>(
    answer: &'a Response<Bytes>,
    open: impl FnOnce(&str) -> Result<Vec<u8>, Undecryptable>,
) -> Result<Cow<'a, Response<Bytes>>, UserinfoError> {
    let text = std::str::from_utf8(answer.body()).unwrap_or_default().trim_ascii();
    if media_type(answer).as_deref() != Some("application/jwt") || !is_encrypted(text) {
        return Ok(Cow::Borrowed(answer));
    }
    let inside = open(text).map_err(|error| UserinfoError::Undecryptable(error.stage()))?;
    let kind = if inside.trim_ascii_start().starts_with(b"{") { "application/json" } else { "application/jwt" };
    let mut opened = answer.clone();
    opened.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    *opened.body_mut() = inside.into();
    Ok(Cow::Owned(opened))
}

/// Reads the answer (Core §5.3.2): always an object, always about `subject`.
pub(super) fn read_answer(
    answer: &Response<Bytes>,
    trust: Trust<'_>,
    rules: Rules<'_>,
    subject: &str,
    now: UnixTime,
) -> Result<Map<String, Value>, UserinfoError> {
    let claims = read_claims(answer, trust, rules, now)?;
    let found = claims.get("sub").and_then(Value::as_str).ok_or(UserinfoError::SubjectMismatch)?;
    // An empty `sub` names nobody, whatever it is compared with.
    if found.is_empty() || verify_slices_are_equal(found.as_bytes(), subject.as_bytes()).is_err() {
        return Err(UserinfoError::SubjectMismatch);
    }
    Ok(claims)
}

/// Reads the answer: always an object, always about somebody.
pub(super) fn read_claims(
    answer: &Response<Bytes>,
    trust: Trust<'_>,
    rules: Rules<'_>,
    now: UnixTime,
) -> Result<Map<String, Value>, UserinfoError> {
    if answer.status() != StatusCode::OK {
        return Err(UserinfoError::Status(answer.status().as_u16()));
    }
    let claims = match media_type(answer).as_deref() {
        Some("application/json") => jose::json_object(answer.body()).map_err(|_| UserinfoError::Malformed)?,
        Some("application/jwt") => signed(answer.body(), trust, rules, now).ok_or(UserinfoError::Malformed)?,
        _ => return Err(UserinfoError::Malformed),
    };
    id_token::subject(&claims).map_err(|_| UserinfoError::SubjectMismatch)?;
    Ok(claims)
}

pub(super) fn media_type(answer: &Response<Bytes>) -> Option<String> {
    let value = answer.headers().get(header::CONTENT_TYPE)?.to_str().ok()?;
    Some(value.split(';').next()?.trim().to_ascii_lowercase())
}

/// Core §5.3.2: a signed answer SHOULD carry `iss` and `aud`; where they are, they must be right, and so must `exp`.
fn signed(body: &[u8], trust: Trust<'_>, rules: Rules<'_>, now: UnixTime) -> Option<Map<String, Value>> {
    let token = std::str::from_utf8(body).ok()?.trim_ascii();
    let claims = Jws::parse(token).ok()?.verify(trust).ok()?;
    let right = (!claims.contains_key("iss") || rules.judge_issuer(&claims).is_ok())
        && (!claims.contains_key("aud") || rules.judge_audience(&claims).is_ok())
        && (!claims.contains_key("exp") || claims::judge_expiry(&claims, rules.leeway, now).is_ok());
    right.then_some(claims)
}
