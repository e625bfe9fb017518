//! Access tokens that others present to us: JWTs verified here (RFC 9068), all others explained by the provider (RFC 7662,
//! OpenID Connect Core §5.3). An ID token is never one.

use serde_json::{Map, Value};

use super::Provider;
use super::claims::{self, Rules};
use super::id_token::{self, IdTokenError};
use super::introspection::{self, Expected};
use super::jose::{Jws, Trust};
use super::known::Asker;
use super::security::TokenType;
use super::userinfo::{self, UserinfoError};
use crate::clock::UnixTime;
use crate::secret::SecretString;
use crate::telemetry::chain;

/// How a provider's access tokens are verified (`access_token_format`, `introspection`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AccessTokens {
    /// Here, with the provider's keys.
    #[default]
    Jwt,
    /// By the userinfo endpoint, which says nothing of whom a token is for.
    Userinfo,
    /// By the introspection endpoint.
    Introspection {
        /// Only a signed answer counts (RFC 9701).
        signed: bool,
    },
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
    #[error("the provider's answer about the access token is unusable")]
    Answer,
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
            Self::Answer => "access_token_answer",
            Self::Unavailable(_) => "access_token_unavailable",
        }
    }
}

impl From<IdTokenError> for AccessTokenError {
    fn from(error: IdTokenError) -> Self {
        Self::Claims(error)
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
            AccessTokens::Jwt => self.verify_jwt(token.expose_secret(), audiences).await,
            AccessTokens::Userinfo => self.ask_userinfo(token).await,
            AccessTokens::Introspection { signed } => self.introspect(token, audiences, signed).await,
        }
    }

    async fn verify_jwt(&self, token: &str, audiences: &[String]) -> Result<Map<String, Value>, AccessTokenError> {
        let known = self.knowledge.usable().ok_or_else(unknown)?;
        let verify = |known: &super::known::Known| {
            let algorithms = known.settings.algorithms_of_others();
            // The client secret is none of the keys: whoever knows it could make tokens.
            let trust = Trust { secret: None, ..known.settings.trust(known, &algorithms) };
            verify(token, trust, known.settings.rules(), audiences, self.knowledge.clock.now())
        };
        match verify(&known) {
            Err(AccessTokenError::Claims(IdTokenError::UnknownKey)) => {
                // Strangers have a turn of their own: whatever they send, a sign-in finds new keys at once.
                let newer = self.knowledge.newer_keys_than(&known, Asker::Stranger).await;
                newer.map_or(Err(IdTokenError::UnknownKey.into()), |newer| verify(&newer))
            }
            outcome => outcome,
        }
    }

    async fn ask_userinfo(&self, token: &SecretString) -> Result<Map<String, Value>, AccessTokenError> {
        let known = self.knowledge.usable().ok_or_else(unknown)?;
        let endpoint = known.metadata.standard.userinfo_endpoint().ok_or(AccessTokenError::Answer)?;
        let request =
            userinfo::request(endpoint.url(), TokenType::Bearer, token).map_err(|_| AccessTokenError::Answer)?;
        let turn = tokio::time::timeout(self.settings().token_queue_timeout, self.stranger_calls.acquire());
        let Ok(Ok(_turn)) = turn.await else {
            return Err(AccessTokenError::Unavailable("too many access tokens wait for an answer".to_owned()));
        };
        let answer = self.knowledge.http.send(request).await;
        let answer = answer.map_err(|error| AccessTokenError::Unavailable(chain(&error)))?;
        let algorithms = known.settings.algorithms_of_others();
        let trust = known.settings.trust(&known, &algorithms);
        let now = self.knowledge.clock.now();
        userinfo::read_claims(&answer, trust, known.settings.rules(), now).map_err(|error| match error {
            UserinfoError::Status(400..=403) => AccessTokenError::Inactive,
            UserinfoError::Status(500..) => AccessTokenError::Unavailable(chain(&error)),
            _ => AccessTokenError::Answer,
        })
    }

    async fn introspect(
        &self,
        token: &SecretString,
        audiences: &[String],
        signed: bool,
    ) -> Result<Map<String, Value>, AccessTokenError> {
        let known = self.knowledge.usable().ok_or_else(unknown)?;
        let endpoint = known.metadata.introspection_endpoint.clone().ok_or(AccessTokenError::Answer)?;
        let client = known.settings.client(&known.metadata);
        let answer =
            introspection::ask(client, endpoint, token, signed, |request| self.call_for_stranger(request)).await?;
        let algorithms = known.settings.algorithms_of_others();
        let trust = known.settings.trust(&known, &algorithms);
        let now = self.knowledge.clock.now();
        introspection::read(&answer, trust, known.settings.rules(), Expected { signed, audiences, now })
    }
}

fn unknown() -> AccessTokenError {
    AccessTokenError::Unavailable("the provider is not known yet".to_owned())
}

/// RFC 9068 §4. Pure.
fn verify(
    token: &str,
    trust: Trust<'_>,
    rules: Rules<'_>,
    audiences: &[String],
    now: UnixTime,
) -> Result<Map<String, Value>, AccessTokenError> {
    let jws = Jws::parse(token).map_err(IdTokenError::from)?;
    let declared = match jws.media_type() {
        Some("at+jwt") => true,
        None | Some("jwt") => false,
        Some(_) => return Err(AccessTokenError::Type),
    };
    let claims = jws.verify(trust).map_err(IdTokenError::from)?;
    judge_kind(&claims, declared)?;
    rules.judge_issuer(&claims).map_err(IdTokenError::from)?;
    judge_audience(&claims, audiences)?;
    claims::judge_expiry(&claims, rules.leeway, now).map_err(IdTokenError::from)?;
    judge_begin(&claims, rules.leeway, now)?;
    id_token::subject(&claims)?;
    Ok(claims)
}

/// Nothing that a provider signs for another purpose passes for an access token (RFC 8725 §3.12).
fn judge_kind(claims: &Map<String, Value>, declared: bool) -> Result<(), AccessTokenError> {
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

pub(super) fn judge_begin(claims: &Map<String, Value>, leeway: u64, now: UnixTime) -> Result<(), IdTokenError> {
    let latest = now.0.saturating_add(leeway);
    for name in ["iat", "nbf"] {
        if claims::numeric_date(claims, name)?.is_some_and(|begin| begin > latest) {
            return Err(IdTokenError::NotYetValid);
        }
    }
    Ok(())
}
