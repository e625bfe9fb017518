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

use super::access_token::{AccessTokenError, judge_audience, judge_begin};
use super::claims::{self, Rules};
use super::id_token::{self, IdTokenError};
use super::jose::{self, Jws, Trust};
use super::provider::Client;
use super::token_endpoint::TokenError;
use super::userinfo;
use crate::clock::UnixTime;
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
    told.get().cloned().ok_or(AccessTokenError::Answer)
}

/// What is expected of an answer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Expected<'a> {
    pub(super) signed: bool,
    pub(super) audiences: &'a [String],
    pub(super) now: UnixTime,
}

/// Reads the answer (RFC 7662 §2.2, RFC 9701 §5). Where a signed one was asked for, no other counts.
pub(super) fn read(
    answer: &Response<Bytes>,
    trust: Trust<'_>,
    rules: Rules<'_>,
    expected: Expected<'_>,
) -> Result<Map<String, Value>, AccessTokenError> {
    match answer.status() {
        StatusCode::OK => {}
        status if status.is_server_error() => {
            return Err(AccessTokenError::Unavailable(format!("introspection was answered with status {status}")));
        }
        // We are refused there (RFC 7662 §2.3), not the token.
        _ => return Err(AccessTokenError::Answer),
    }
    let claims = match userinfo::media_type(answer).as_deref() {
        Some(SIGNED) => open(answer.body(), trust, rules, expected.now)?,
        Some("application/json") if !expected.signed => {
            jose::json_object(answer.body()).map_err(|_| AccessTokenError::Answer)?
        }
        _ => return Err(AccessTokenError::Answer),
    };
    judge(&claims, rules, expected)?;
    Ok(claims)
}

/// RFC 9701 §5: a type of its own, from the provider, for us.
fn open(
    body: &[u8],
    trust: Trust<'_>,
    rules: Rules<'_>,
    now: UnixTime,
) -> Result<Map<String, Value>, AccessTokenError> {
    let text = std::str::from_utf8(body).map_err(|_| AccessTokenError::Answer)?.trim_ascii();
    let jws = Jws::parse(text).map_err(|_| AccessTokenError::Answer)?;
    if jws.media_type() != Some("token-introspection+jwt") {
        return Err(AccessTokenError::Answer);
    }
    let mut claims = jws.verify(trust).map_err(|_| AccessTokenError::Answer)?;
    let right = rules.judge_issuer(&claims).is_ok()
        && rules.judge_audience(&claims).is_ok()
        && claims::numeric_date(&claims, "iat").is_ok_and(|issued| issued.is_some())
        && judge_begin(&claims, rules.leeway, now).is_ok();
    match claims.remove("token_introspection") {
        Some(Value::Object(inside)) if right => Ok(inside),
        _ => Err(AccessTokenError::Answer),
    }
}

/// What is there must be right, and whom the token is for must be there.
fn judge(claims: &Map<String, Value>, rules: Rules<'_>, expected: Expected<'_>) -> Result<(), AccessTokenError> {
    let Expected { audiences, now, .. } = expected;
    if claims.get("active") != Some(&Value::Bool(true)) {
        return Err(AccessTokenError::Inactive);
    }
    if claims.contains_key("iss") {
        rules.judge_issuer(claims).map_err(IdTokenError::from)?;
    }
    if claims.contains_key("aud") {
        judge_audience(claims, audiences)?;
    } else if claims::string(claims, "client_id").map_err(IdTokenError::from)? != Some(rules.client_id) {
        // Without an audience a token is for the client that it was given to.
        return Err(IdTokenError::Audience.into());
    }
    if claims.contains_key("exp") {
        claims::judge_expiry(claims, rules.leeway, now).map_err(IdTokenError::from)?;
    }
    judge_begin(claims, rules.leeway, now)?;
    let kind = claims::string(claims, "token_type").map_err(IdTokenError::from)?;
    if claims.contains_key("cnf") || kind.is_some_and(|kind| kind.eq_ignore_ascii_case("dpop")) {
        return Err(AccessTokenError::Bound);
    }
    id_token::subject(claims)?;
    Ok(())
}
