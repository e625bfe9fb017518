//! Access tokens that others present to us: JWTs verified here (RFC 9068), all others explained by the provider (RFC 7662,
//! OpenID Connect Core §5.3). An ID token is never one.

use serde_json::{Map, Value};

use super::algorithms::Kind as Answer;
use super::claims::{self, ID_TOKEN_ONLY, Rules};
use super::id_token::{self, IdTokenError};
use super::introspection;
use super::jose::{JoseError, Jws, Trust};
use super::known::{Asker, Known};
use super::security::TokenType;
use super::userinfo::{self, Said, UserinfoError};
use super::{Provider, Settings};
use crate::clock::UnixTime;
use crate::secret::SecretString;
use crate::telemetry::chain;

/// How a provider's access tokens are verified (`access_token_format`, `introspection`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AccessTokens {
    /// Here, with the provider's keys.
    #[default]
    Jwt,
    /// The same, of tokens that are to the letter of RFC 9068 only: they say so in their header.
    Rfc9068,
    /// By the userinfo endpoint, which says nothing of whom a token is for.
    Userinfo,
    /// By the introspection endpoint.
    Introspection {
        /// Only a signed answer counts (RFC 9701).
        signed: bool,
    },
}

/// How much of RFC 9068 a JWT has to keep to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// Whatever cannot be mistaken for another kind of token.
    Any,
    /// All of it.
    Rfc9068,
}

/// Why an access token is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AccessTokenError {
    /// The signature or a claim that every token has.
    #[error("the access token does not hold")]
    Claims(#[source] IdTokenError),
    /// Another kind of token: an ID, refresh or logout token.
    #[error("the token is not an access token")]
    Type,
    /// Bound to a key or certificate that was not shown (RFC 9449 §7.2, RFC 8705 §3).
    #[error("the access token is bound to a key, and none was shown")]
    Bound,
    /// The provider does not know it, or no longer.
    #[error("the provider says that the access token is not active")]
    Inactive,
    /// The provider's answer cannot be used.
    #[error("the provider's answer about the access token is unusable: {0}")]
    Answer(String),
    /// The provider did not answer.
    #[error("the provider could not be asked about the access token: {0}")]
    Unavailable(String),
}

impl AccessTokenError {
    /// The constant reason code for the log.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Claims(IdTokenError::UnknownKey | IdTokenError::Signature) => "access_token_signature",
            Self::Claims(IdTokenError::Issuer) => "access_token_issuer",
            Self::Claims(IdTokenError::Audience | IdTokenError::AuthorizedParty) => "access_token_audience",
            Self::Claims(IdTokenError::Expired | IdTokenError::NotYetValid) => "access_token_expired",
            Self::Claims(_) => "access_token_malformed",
            Self::Type => "access_token_type",
            Self::Bound => "access_token_bound",
            Self::Inactive => "access_token_inactive",
            Self::Answer(_) => "access_token_answer",
            Self::Unavailable(_) => "access_token_unavailable",
        }
    }
}

impl From<IdTokenError> for AccessTokenError {
    fn from(error: IdTokenError) -> Self {
        Self::Claims(error)
    }
}

impl From<JoseError> for AccessTokenError {
    fn from(error: JoseError) -> Self {
        Self::Claims(error.into())
    }
}

impl Provider {
    /// The claims behind an access token for one of `audiences`.
    ///
    /// # Errors
    /// [`AccessTokenError`].
    pub(in crate::authn) async fn verify_access_token(
        &self,
        token: &SecretString,
        audiences: &[String],
    ) -> Result<Map<String, Value>, AccessTokenError> {
        match self.settings().access_tokens {
            AccessTokens::Jwt => self.verify_jwt(token.expose_secret(), audiences, Form::Any).await,
            AccessTokens::Rfc9068 => self.verify_jwt(token.expose_secret(), audiences, Form::Rfc9068).await,
            AccessTokens::Userinfo => self.ask_userinfo(token).await,
            AccessTokens::Introspection { signed } => self.introspect(token, audiences, signed).await,
        }
    }

    async fn verify_jwt(
        &self,
        token: &str,
        audiences: &[String],
        form: Form,
    ) -> Result<Map<String, Value>, AccessTokenError> {
        self.knowledge.usable().ok_or_else(unknown)?;
        let algorithms = |known: &Known| Answer::AccessToken.algorithms(known);
        // Strangers have a turn of their own: whatever they send, a sign-in finds new keys at once.
        self.with_keys(Asker::Stranger, algorithms, |settings, trust| {
            // The client secret is none of the keys: whoever knows it could make tokens.
            let trust = Trust { secret: None, ..trust };
            verify(token, trust, settings.rules(), Expectation { audiences, form, now: self.knowledge.clock.now() })
        })
        .await
    }

    async fn ask_userinfo(&self, token: &SecretString) -> Result<Map<String, Value>, AccessTokenError> {
        let known = self.knowledge.usable().ok_or_else(unknown)?;
        let endpoint = known.metadata.standard.userinfo_endpoint().ok_or_else(not_offered)?;
        let request = userinfo::request(endpoint.url(), TokenType::Bearer, token);
        let request = request.map_err(|error| AccessTokenError::Answer(chain(&error)))?;
        let turn = tokio::time::timeout(self.settings().token_queue_timeout, self.stranger_calls.acquire());
        let Ok(Ok(_turn)) = turn.await else {
            return Err(AccessTokenError::Unavailable("too many access tokens wait for an answer".to_owned()));
        };
        let answer = self.knowledge.http.send(request).await;
        let answer = answer.map_err(|error| AccessTokenError::Unavailable(chain(&error)))?;
        let claims = self.userinfo_claims(&answer, Asker::Stranger).await.map_err(|error| match error {
            UserinfoError::Status(400..=403) => AccessTokenError::Inactive,
            UserinfoError::Status(500..) => AccessTokenError::Unavailable(chain(&error)),
            _ => AccessTokenError::Answer(chain(&error)),
        })?;
        Ok(of_userinfo(claims, &known.settings.issuer))
    }

    async fn introspect(
        &self,
        token: &SecretString,
        audiences: &[String],
        signed: bool,
    ) -> Result<Map<String, Value>, AccessTokenError> {
        let known = self.knowledge.usable().ok_or_else(unknown)?;
        let endpoint = known.metadata.introspection_endpoint.clone().ok_or_else(not_offered)?;
        let client = known.settings.client(&known.metadata);
        let answer =
            introspection::ask(client, endpoint, token, signed, |request| self.call_for_stranger(request)).await?;
        let now = || self.knowledge.clock.now();
        let claims = match introspection::read(&answer, signed, |token| self.decrypt(token))? {
            Said::Plain(claims) => claims,
            Said::Signed(token) => {
                let algorithms = |known: &Known| Answer::Introspection.algorithms(known);
                let verify = |settings: &Settings, trust: Trust<'_>| {
                    introspection::verify(&token, trust, settings.rules(), now())
                };
                let verified = self.with_keys(Asker::Stranger, algorithms, verify).await;
                verified.map_err(|error| AccessTokenError::Answer(chain(&error)))?
            }
        };
        introspection::judge(&claims, known.settings.rules(), audiences, now())?;
        Ok(claims)
    }
}

fn not_offered() -> AccessTokenError {
    AccessTokenError::Answer("the provider's metadata name no endpoint for it".to_owned())
}

/// What userinfo says of a person; what only an ID token can say of a sign-in is nobody's word there.
fn of_userinfo(mut claims: Map<String, Value>, issuer: &str) -> Map<String, Value> {
    claims.retain(|name, _| name == "sub" || !ID_TOKEN_ONLY.contains(&name.as_str()));
    claims.insert("iss".to_owned(), issuer.into());
    claims
}

fn unknown() -> AccessTokenError {
    AccessTokenError::Unavailable("the provider is not known yet".to_owned())
}

/// What a JWT is held against.
#[derive(Debug, Clone, Copy)]
struct Expectation<'a> {
    audiences: &'a [String],
    form: Form,
    now: UnixTime,
}

/// RFC 9068 §4. Pure.
fn verify(
    token: &str,
    trust: Trust<'_>,
    rules: Rules<'_>,
    Expectation { audiences, form, now }: Expectation<'_>,
) -> Result<Map<String, Value>, AccessTokenError> {
    let jws = Jws::parse(token).map_err(IdTokenError::from)?;
    let declared = match (jws.media_type(), form) {
        (Some("at+jwt"), _) => true,
        (None | Some("jwt"), Form::Any) => false,
        _ => return Err(AccessTokenError::Type),
    };
    let claims = jws.verify(trust).map_err(IdTokenError::from)?;
    judge_kind(&claims, declared)?;
    rules.judge_issuer(&claims).map_err(IdTokenError::from)?;
    judge_audience(&claims, audiences)?;
    claims::judge_expiry(&claims, rules.leeway, now).map_err(IdTokenError::from)?;
    claims::judge_begin(&claims, rules.leeway, now).map_err(IdTokenError::from)?;
    id_token::subject(&claims)?;
    if form == Form::Rfc9068 {
        is_complete(&claims)?;
    }
    Ok(claims)
}

/// RFC 9068 §2.2, as far as nothing else asks for it.
fn is_complete(claims: &Map<String, Value>) -> Result<(), IdTokenError> {
    for name in ["client_id", "jti"] {
        if claims::string(claims, name)?.is_none_or(str::is_empty) {
            return Err(IdTokenError::ClaimType(name));
        }
    }
    if claims.contains_key("iat") { Ok(()) } else { Err(IdTokenError::ClaimType("iat")) }
}

/// Nothing that a provider signs for another purpose passes for an access token (RFC 8725 §3.12).
pub(super) fn judge_kind(claims: &Map<String, Value>, declared: bool) -> Result<(), AccessTokenError> {
    const OF_OTHERS: [&str; 5] = ["nonce", "at_hash", "c_hash", "s_hash", "events"];
    if OF_OTHERS.iter().any(|name| claims.contains_key(*name)) {
        return Err(AccessTokenError::Type);
    }
    if claims.contains_key("cnf") {
        return Err(AccessTokenError::Bound);
    }
    match claims.get("typ") {
        None => {
            // What does not say that it is an access token has to look like one: ID tokens have neither.
            let looks = ["scope", "scp", "client_id"].iter().any(|name| claims.contains_key(*name));
            if declared || looks { Ok(()) } else { Err(AccessTokenError::Type) }
        }
        Some(Value::String(kind)) if kind.eq_ignore_ascii_case("bearer") => Ok(()),
        Some(_) => Err(AccessTokenError::Type),
    }
}

/// One of ours is among them.
pub(super) fn judge_audience(claims: &Map<String, Value>, audiences: &[String]) -> Result<(), IdTokenError> {
    let ours = |value: &Value| audiences.iter().any(|audience| value == audience);
    let meant_for_us = match claims.get("aud") {
        Some(Value::Array(several)) if several.iter().all(Value::is_string) => several.iter().any(ours),
        Some(one @ Value::String(_)) => ours(one),
        None => false,
        Some(_) => return Err(IdTokenError::ClaimType("aud")),
    };
    if meant_for_us { Ok(()) } else { Err(IdTokenError::Audience) }
}
