//! Logout tokens, verified to the letter of OpenID Connect Back-Channel Logout 1.0 §2.6. Whatever needs no key is judged
//! first, so that a token of the wrong shape costs no signature check.

use std::time::Duration;

use serde_json::{Map, Value};

use super::claims::{ClaimError, Rules, judge_times, numeric_date, string};
use super::jose::{JoseError, Jws, Trust};
use crate::clock::UnixTime;

/// The media type of a logout token (§2.4), without `application/`.
const LOGOUT_TOKEN: &str = "logout+jwt";
/// The member of `events` that makes it one (§2.4).
const EVENT: &str = "http://schemas.openid.net/event/backchannel-logout";
/// Why a logout token is refused; one variant per fact, each with a constant reason code. The texts are told to the provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LogoutTokenError {
    /// Whatever cannot be read: not three base64url parts, no JSON, a name that stands twice.
    #[error("the logout token is malformed")]
    Malformed,
    /// Encrypted, and not to be opened with our keys.
    #[error("the logout token cannot be decrypted")]
    Undecryptable,
    /// Not encrypted, where ID tokens have to be (§2.6 item 1).
    #[error("the logout token is not encrypted")]
    NotEncrypted,
    /// `typ` is neither `logout+jwt` nor `JWT`.
    #[error("the logout token's typ is another kind's")]
    Kind,
    /// `none`, an unknown algorithm, or one that is not allowed for this client.
    #[error("the logout token's algorithm is not allowed")]
    Algorithm,
    /// A `crit` header (RFC 7515 §4.1.11).
    #[error("the logout token has critical extensions")]
    Critical,
    /// No key of the provider fits, after at most one refetch.
    #[error("the logout token's key is unknown")]
    UnknownKey,
    /// The signature does not verify.
    #[error("the logout token's signature is wrong")]
    Signature,
    /// `iss` is missing or no provider's.
    #[error("the logout token's issuer is wrong")]
    Issuer,
    /// We are not in `aud`, or an audience in it is not trusted.
    #[error("the logout token's audience is wrong")]
    Audience,
    /// `exp` is missing or past.
    #[error("the logout token has expired")]
    Expired,
    /// `iat` is missing or in the future, or `nbf` is in the future.
    #[error("the logout token is not valid yet")]
    NotYetValid,
    /// `iat` is so long ago that every session of then is over.
    #[error("the logout token is older than any session")]
    TooOld,
    /// `jti` is missing or empty.
    #[error("the logout token has no identifier")]
    Identifier,
    /// `jti` came before.
    #[error("the logout token was used before")]
    Repeated,
    /// `events` does not hold the event of a logout.
    #[error("the logout token's events are not those of a logout")]
    Events,
    /// `nonce` is there.
    #[error("the logout token has a nonce")]
    Nonce,
    /// Neither `sub` nor `sid`, or an empty one.
    #[error("the logout token names neither a subject nor a session")]
    Subject,
    /// A registered claim has the wrong JSON type or range.
    #[error("the logout token's claim {0} has the wrong type")]
    ClaimType(&'static str),
}

impl LogoutTokenError {
    /// The constant reason code for the log, such as `logout_token_events`.
    pub fn code(self) -> &'static str {
        match self {
            Self::Malformed => "logout_token_malformed",
            Self::Undecryptable => "logout_token_undecryptable",
            Self::NotEncrypted => "logout_token_not_encrypted",
            Self::Kind => "logout_token_kind",
            Self::Algorithm => "logout_token_algorithm",
            Self::Critical => "logout_token_critical",
            Self::UnknownKey => "logout_token_unknown_key",
            Self::Signature => "logout_token_signature",
            Self::Issuer => "logout_token_issuer",
            Self::Audience => "logout_token_audience",
            Self::Expired => "logout_token_expired",
            Self::NotYetValid => "logout_token_not_yet_valid",
            Self::TooOld => "logout_token_too_old",
            Self::Identifier => "logout_token_identifier",
            Self::Repeated => "logout_token_repeated",
            Self::Events => "logout_token_events",
            Self::Nonce => "logout_token_nonce",
            Self::Subject => "logout_token_subject",
            Self::ClaimType(_) => "logout_token_claim_type",
        }
    }
}

impl From<ClaimError> for LogoutTokenError {
    fn from(error: ClaimError) -> Self {
        match error {
            ClaimError::Issuer => Self::Issuer,
            ClaimError::Audience | ClaimError::AuthorizedParty => Self::Audience,
            ClaimError::Expired => Self::Expired,
            ClaimError::NotYetValid => Self::NotYetValid,
            ClaimError::Type(name) => Self::ClaimType(name),
        }
    }
}

impl From<JoseError> for LogoutTokenError {
    fn from(error: JoseError) -> Self {
        match error {
            JoseError::Malformed => Self::Malformed,
            JoseError::Algorithm => Self::Algorithm,
            JoseError::Critical => Self::Critical,
            JoseError::UnknownKey => Self::UnknownKey,
            JoseError::Signature => Self::Signature,
        }
    }
}

/// A token of the right shape, of which nothing is proven yet.
pub struct UnprovenLogout<'a> {
    token: Jws<'a>,
    claims: Map<String, Value>,
}

/// What a provider told with a logout token. Cannot be made outside of verification.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Logout {
    pub(super) identifier: String,
    /// `iss`: who gives the names.
    pub issuer: String,
    /// For how long the same token could come again.
    pub(super) good_for: Duration,
    /// Sessions that began after this moment are none that it ends.
    pub begun_by: UnixTime,
    /// `sub`: whose sessions ended.
    pub subject: Option<String>,
    /// `sid`: which one.
    pub session: Option<String>,
}

impl<'a> UnprovenLogout<'a> {
    /// Reads a token and judges its shape.
    ///
    /// # Errors
    /// [`LogoutTokenError`].
    pub fn read(token: &'a str) -> Result<Self, LogoutTokenError> {
        let token = Jws::parse(token)?;
        // RFC 8725 §3.11; providers from before the type was registered (§2.4) write the general one, or none.
        if !matches!(token.media_type(), None | Some("jwt" | LOGOUT_TOKEN)) {
            return Err(LogoutTokenError::Kind);
        }
        let claims = token.unproven_claims()?;
        shape(&claims)?;
        Ok(Self { token, claims })
    }

    /// Who it says that it is of.
    pub(super) fn issuer(&self) -> Option<&str> {
        self.claims.get("iss").and_then(Value::as_str)
    }

    /// Whether it says that it is for this client.
    pub(super) fn is_for(&self, client_id: &str) -> bool {
        match self.claims.get("aud") {
            Some(Value::Array(several)) => several.iter().any(|one| one.as_str() == Some(client_id)),
            one => one.and_then(Value::as_str) == Some(client_id),
        }
    }

    /// Verifies it (§2.6). Pure: keys and time are arguments. Whether `jti` came before is not known here.
    ///
    /// How long it counts is the provider's to say, by `exp`: it may try again for an hour, and what it says late still ends what
    /// began before. `iat` need only be acceptable (item 4; Core §3.1.3.7 item 10 leaves to the client what is): one from before
    /// the longest `session` that could still be there would end nothing, and is told so. One that comes twice, where `jti` is
    /// forgotten by a restart or for newer ones, ends what it ended before and nothing that began since.
    pub(super) fn verify(
        &self,
        trust: Trust<'_>,
        rules: Rules<'_>,
        (now, session): (UnixTime, Duration),
    ) -> Result<Logout, LogoutTokenError> {
        rules.judge_issuer(&self.claims)?;
        rules.judge_audience(&self.claims)?;
        judge_times(&self.claims, rules.leeway, now)?;
        let issued_at = numeric_date(&self.claims, "iat")?.ok_or(LogoutTokenError::NotYetValid)?;
        // `iat` is floored, and the provider's clock may be behind ours.
        let begun_by = UnixTime(issued_at.saturating_add(1).saturating_add(rules.leeway));
        if now > begun_by.after(session) {
            return Err(LogoutTokenError::TooOld);
        }
        let end = numeric_date(&self.claims, "exp")?.ok_or(LogoutTokenError::Expired)?;
        let good_for = Duration::from_secs(end.saturating_add(rules.leeway).saturating_sub(now.0));
        // The same octets again, and only now are they the provider's.
        Ok(Logout { good_for, begun_by, ..shape(&self.token.verify(trust)?)? })
    }
}

/// §2.4 and §2.6 items 4 to 6: who, an event, no nonce, an identifier.
fn shape(claims: &Map<String, Value>) -> Result<Logout, LogoutTokenError> {
    let events = claims.get("events").ok_or(LogoutTokenError::Events)?;
    let events = events.as_object().ok_or(LogoutTokenError::Events)?;
    if !events.get(EVENT).is_some_and(Value::is_object) {
        return Err(LogoutTokenError::Events);
    }
    if claims.contains_key("nonce") {
        return Err(LogoutTokenError::Nonce);
    }
    let text = |name, missing| match string(claims, name)? {
        Some("") => Err(missing),
        text => Ok(text.map(str::to_owned)),
    };
    let identifier = text("jti", LogoutTokenError::Identifier)?.ok_or(LogoutTokenError::Identifier)?;
    let subject = text("sub", LogoutTokenError::Subject)?;
    let session = text("sid", LogoutTokenError::Subject)?;
    if subject.is_none() && session.is_none() {
        return Err(LogoutTokenError::Subject);
    }
    // What it has to be is judged with the other claims.
    let issuer = string(claims, "iss")?.unwrap_or_default().to_owned();
    Ok(Logout { identifier, good_for: Duration::ZERO, begun_by: UnixTime(0), issuer, subject, session })
}

#[cfg(test)]
mod tests;
