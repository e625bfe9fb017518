//! Token introspection (RFC 7662), plain or signed (RFC 9701).
//!
//! The library makes the request; its answer drops the claims that say who somebody is and knows no signed one, so that is read
//! here.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use openidconnect::{AccessToken, HttpRequest, HttpResponse, IntrospectionUrl, RequestTokenError};
use serde_json::{Map, Value};
use url::Url;

use super::access_token::{AccessTokenError, judge_audience, judge_kind};
use super::claims::{self, Rules};
use super::decryption;
use super::id_token::{self, IdTokenError};
use super::jose::{self, Jws, Trust};
use super::jwe::Undecryptable;
use super::settings::Client;
use super::token_endpoint::TokenError;
use super::userinfo::Said;
use crate::clock::UnixTime;
use crate::provider_http::{check_json, media_type};
use crate::secret::SecretString;
use crate::telemetry::chain;

const SIGNED: &str = "application/token-introspection+jwt";

/// The one request (RFC 7662 §2.1, RFC 9701 §4).
pub(super) async fn ask<F>(
    client: Client,
    endpoint: Url,
    token: &SecretString,
    signed: bool,
    call: impl Fn(HttpRequest) -> F,
) -> Result<Response<Bytes>, AccessTokenError>
where
    F: Future<Output = Result<Response<Bytes>, TokenError>> + 'static,
{
    let told = Arc::new(OnceLock::new());
    let exchange = |mut request: HttpRequest| {
        let accept = HeaderValue::from_static(if signed { SIGNED } else { "application/json" });
        let headers = request.headers_mut();
        headers.insert(header::ACCEPT, accept);
        if let Some(authorization) = headers.get_mut(header::AUTHORIZATION) {
            authorization.set_sensitive(true);
        }
        let (answer, told) = (call(request), Arc::clone(&told));
        async move {
            let answer = answer.await?;
            told.get_or_init(|| answer);
            Ok::<_, TokenError>(HttpResponse::new(br#"{"active":false}"#.to_vec()))
        }
    };
    let token = AccessToken::new(token.expose_secret().to_owned());
    let client = client.set_introspection_url(IntrospectionUrl::from_url(endpoint));
    let outcome = client.introspect(&token).set_token_type_hint("access_token").request_async(&exchange).await;
    if let Err(RequestTokenError::Request(error)) = outcome {
        return Err(AccessTokenError::Unavailable(chain(&error)));
    }
    told.get().cloned().ok_or_else(|| AccessTokenError::Answer("there is none".to_owned()))
}

/// Reads the answer (RFC 7662 §2.2, RFC 9701 §5), through its encryption. Where a signed one was asked for, no other counts.
pub(super) fn read(
    answer: &Response<Bytes>,
    signed: bool,
    open: impl FnOnce(&str) -> Result<Vec<u8>, Undecryptable>,
) -> Result<Said, AccessTokenError> {
    match answer.status() {
        StatusCode::OK => {}
        status if status.is_server_error() => {
            return Err(AccessTokenError::Unavailable(format!("introspection was answered with status {status}")));
        }
        // We are refused there (RFC 7662 §2.3), not the token.
        status => return Err(unusable(&format!("introspection was answered with status {status}"))),
    }
    if media_type(answer).as_deref() == Some(SIGNED) {
        let text = std::str::from_utf8(answer.body()).map_err(|_| unusable("it is no text"))?.trim_ascii();
        let text = decryption::opened(text, open).map_err(|error| unusable(&chain(&IdTokenError::from(error))))?;
        return Ok(Said::Signed(text.into_owned()));
    }
    if signed {
        return Err(unusable("it is not signed"));
    }
    check_json(answer).map_err(|error| unusable(&chain(&error)))?;
    let claims = jose::json_object(answer.body());
    claims.map(Said::Plain).map_err(|_| unusable("it is no JSON that reads in one way"))
}

fn unusable(why: &str) -> AccessTokenError {
    AccessTokenError::Answer(why.to_owned())
}

/// RFC 9701 §5: a type of its own, from the provider, for us.
pub(super) fn verify(
    token: &str,
    trust: Trust<'_>,
    rules: Rules<'_>,
    now: UnixTime,
) -> Result<Map<String, Value>, IdTokenError> {
    let jws = Jws::parse(token)?;
    let mut claims = jws.verify(trust)?;
    if jws.media_type() != Some("token-introspection+jwt") {
        return Err(IdTokenError::Kind);
    }
    rules.judge_issuer(&claims)?;
    rules.judge_audience(&claims)?;
    claims::numeric_date(&claims, "iat")?.ok_or(IdTokenError::NotYetValid)?;
    claims::judge_begin(&claims, rules.leeway, now)?;
    match claims.remove("token_introspection") {
        Some(Value::Object(inside)) => Ok(inside),
        _ => Err(IdTokenError::ClaimType("token_introspection")),
    }
}

/// What is there must be right, whom the token is for must be there, and it must be an access token.
pub(super) fn judge(
    claims: &Map<String, Value>,
    rules: Rules<'_>,
    audiences: &[String],
    now: UnixTime,
) -> Result<(), AccessTokenError> {
    if claims.get("active") != Some(&Value::Bool(true)) {
        return Err(AccessTokenError::Inactive);
    }
    // Of several tenants it has to be said, or each would be taken for an allowed one.
    if claims.contains_key("iss") || rules.tenants.is_some() {
        rules.judge_issuer(claims).map_err(IdTokenError::from)?;
    }
    let names_audience = claims.contains_key("aud");
    if names_audience {
        judge_audience(claims, audiences)?;
    } else if claims::string(claims, "client_id").map_err(IdTokenError::from)? != Some(rules.client_id) {
        // Without an audience a token is for the client that it was given to.
        return Err(IdTokenError::Audience.into());
    }
    if claims.contains_key("exp") {
        claims::judge_expiry(claims, rules.leeway, now).map_err(IdTokenError::from)?;
    }
    claims::judge_begin(claims, rules.leeway, now).map_err(IdTokenError::from)?;
    judge_type(claims, names_audience)?;
    id_token::subject(claims)?;
    Ok(())
}

/// A server that explains every token that it gave (RFC 7662 §2.1 lets it) explains refresh and ID tokens, too.
fn judge_type(claims: &Map<String, Value>, names_audience: bool) -> Result<(), AccessTokenError> {
    // RFC 6749 §5.1: how it is used; a refresh token is not, so it has none.
    match claims::string(claims, "token_type").map_err(IdTokenError::from)? {
        Some(kind) if kind.eq_ignore_ascii_case("dpop") => return Err(AccessTokenError::Bound),
        Some(kind) if !kind.eq_ignore_ascii_case("bearer") => return Err(AccessTokenError::Type),
        None if !names_audience => return Err(AccessTokenError::Type),
        _ => {}
    }
    // What some servers say of the kind.
    match claims::string(claims, "token_use").map_err(IdTokenError::from)? {
        None | Some("access" | "access_token") => {}
        Some(_) => return Err(AccessTokenError::Type),
    }
    judge_kind(claims, true)
}
