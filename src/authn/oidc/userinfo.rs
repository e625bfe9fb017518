//! The userinfo endpoint (OpenID Connect Core §5.3). Asked only after the ID token is fully verified.
//!
//! Not by the library, which would verify signed answers itself and fail on a standard claim of another type.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header};
use serde_json::{Map, Value};
use url::Url;

use super::claims::{self, Rules};
use super::client_auth::ProofError;
use super::decryption::is_encrypted;
use super::id_token::{self, IdTokenError};
use super::jose::{self, Jws, Trust};
use super::jwe::Undecryptable;
use super::security::TokenType;
use crate::clock::UnixTime;
use crate::provider_http::{ProviderHttpError, WrongMediaType, check_json, media_type};
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
    /// Neither JSON nor a token, by its media type.
    #[error("the userinfo answer cannot be read")]
    MediaType(#[from] WrongMediaType),
    /// Not what its media type says.
    #[error("the userinfo answer is unusable")]
    Malformed,
    /// A signed answer that does not hold.
    #[error("the signed userinfo answer does not hold")]
    Signed(#[source] IdTokenError),
    /// Not signed, though the settings name algorithms for it.
    #[error("the userinfo answer is not signed")]
    NotSigned,
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

/// What an answer says.
#[derive(Debug)]
pub(super) enum Said {
    /// Believed for coming over TLS from the endpoint.
    Plain(Map<String, Value>),
    /// A token that [`verify`] has to be asked about.
    Signed(String),
}

/// Reads the answer (Core §5.3.2), through its encryption. That may be without a signature: then there is JSON inside, believed
/// as JSON in the clear is, and no token that says `none`.
pub(super) fn read(
    answer: &Response<Bytes>,
    open: impl FnOnce(&str) -> Result<Vec<u8>, Undecryptable>,
) -> Result<Said, UserinfoError> {
    if answer.status() != StatusCode::OK {
        return Err(UserinfoError::Status(answer.status().as_u16()));
    }
    if media_type(answer).as_deref() != Some("application/jwt") {
        check_json(answer)?;
        return plain(answer.body());
    }
    let text = std::str::from_utf8(answer.body()).map_err(|_| UserinfoError::Malformed)?.trim_ascii();
    if !is_encrypted(text) {
        return Ok(Said::Signed(text.to_owned()));
    }
    let inside = open(text).map_err(|error| UserinfoError::Undecryptable(error.stage()))?;
    if inside.trim_ascii_start().starts_with(b"{") {
        return plain(&inside);
    }
    Ok(Said::Signed(String::from_utf8(inside).map_err(|_| UserinfoError::Malformed)?))
}

fn plain(body: &[u8]) -> Result<Said, UserinfoError> {
    let claims = jose::json_object(body).map_err(|_| UserinfoError::Malformed)?;
    id_token::subject(&claims).map_err(|_| UserinfoError::SubjectMismatch)?;
    Ok(Said::Plain(claims))
}

/// Core §5.3.2: a signed answer is the issuer's and for us; whoever else it is for. Where it says until when, that counts.
pub(super) fn verify(
    token: &str,
    trust: Trust<'_>,
    rules: Rules<'_>,
    now: UnixTime,
) -> Result<Map<String, Value>, IdTokenError> {
    let token = Jws::parse(token)?;
    let claims = token.verify(trust)?;
    if token.is_of_another_kind() || claims.contains_key("events") {
        return Err(IdTokenError::Kind);
    }
    rules.judge_issuer(&claims)?;
    rules.judge_inclusion(&claims)?;
    if claims.contains_key("exp") {
        claims::judge_expiry(&claims, rules.leeway, now)?;
    }
    claims::judge_begin(&claims, rules.leeway, now)?;
    id_token::subject(&claims)?;
    Ok(claims)
}

/// Core §5.3.2: always about whom the ID token is.
pub(super) fn is_about(claims: &Map<String, Value>, subject: &str) -> Result<(), UserinfoError> {
    let found = claims.get("sub").and_then(Value::as_str).ok_or(UserinfoError::SubjectMismatch)?;
    // An empty `sub` names nobody, whatever it is compared with.
    if found.is_empty() || verify_slices_are_equal(found.as_bytes(), subject.as_bytes()).is_err() {
        return Err(UserinfoError::SubjectMismatch);
    }
    Ok(())
}
