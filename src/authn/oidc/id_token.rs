//! ID token verification, to the letter of OpenID Connect Core §3.1.3.7 and §3.1.3.8 (`at_hash`).

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use super::claims::{ClaimError, Rules, judge_times, string};
use super::jose::{Algorithm, JoseError, Jws, Trust};
use super::jwe::Undecryptable;
use super::wish::Wish;
use crate::clock::UnixTime;

/// What one sign-in expects of its ID token.
#[derive(Debug, Clone, Copy)]
pub struct Expected<'a> {
    /// The nonce.
    pub nonce: Nonce<'a>,
    /// The access token that came along, for `at_hash`.
    pub access_token: Option<&'a str>,
    /// The authorization code that it came for, or with: what `c_hash` must fit (Core §3.3.2.11).
    pub code: Option<&'a str>,
    /// The `state` that came back with that: what `s_hash` must fit (FAPI 1.0 Advanced §5.1).
    pub state: Option<&'a str>,
    /// It came through a browser, beside the code; `c_hash` must be there then (Core §3.3.2.10).
    pub in_front: bool,
    /// What its sign-in asked for.
    pub wish: &'a Wish,
}

/// What is expected of the `nonce`.
#[derive(Debug, Clone, Copy)]
pub enum Nonce<'a> {
    /// The one of the authorization request, and that it is there.
    Sent(&'a str),
    /// There was none, as in a grant without a redirect: a token with one belongs to a sign-in.
    NotSent,
    /// Of a renewed ID token: that of the sign-in, or none (Core §12.2).
    OfSignIn(Option<&'a str>),
}

/// The claims of a token whose signature and registered claims hold. Cannot be made outside of verification.
#[derive(Debug, Clone)]
pub struct VerifiedClaims {
    pub(in crate::authn) subject: String,
    pub(in crate::authn) claims: Map<String, Value>,
}

impl VerifiedClaims {
    /// `sub`: 1 to 255 ASCII characters (Core §2).
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// `iss`, which verification has compared.
    pub fn issuer(&self) -> &str {
        self.claims.get("iss").and_then(Value::as_str).unwrap_or_default()
    }

    /// `sid`: the provider's name for the session (OpenID Connect Front-Channel Logout §3).
    pub fn session(&self) -> Option<&str> {
        self.claims.get("sid").and_then(Value::as_str).filter(|sid| !sid.is_empty())
    }

    /// Whether the other ID token of the same sign-in says the same (Core §3.3.3.6): who, by whom, and whatever both tell of
    /// the sign-in and of the person.
    ///
    /// # Errors
    /// [`IdTokenError::OtherSubject`] and [`IdTokenError::Contradictory`].
    pub fn agrees_with(&self, other: &Self) -> Result<(), IdTokenError> {
        if self.subject != other.subject {
            return Err(IdTokenError::OtherSubject);
        }
        let differs = |name: &&&str| match (self.claims.get(**name), other.claims.get(**name)) {
            (Some(one), Some(other)) => one != other,
            _ => false,
        };
        SAID_TWICE.iter().find(differs).map_or(Ok(()), |name| Err(IdTokenError::Contradictory(name)))
    }

    /// All claims.
    pub fn claims(&self) -> &Map<String, Value> {
        &self.claims
    }
}

/// Why an ID token is refused; one variant per fact, each with a constant reason code.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdTokenError {
    /// Whatever cannot be read: not three base64url parts, no JSON, a name that stands twice, more than 64 KiB.
    #[error("the ID token is malformed")]
    Malformed,
    /// Encrypted, and not to be opened with our keys. The cause is for the log.
    #[error("the ID token cannot be decrypted: {0}")]
    Undecryptable(&'static str),
    /// Not encrypted, where the settings ask for it.
    #[error("the ID token is not encrypted")]
    NotEncrypted,
    /// A logout token, by its `typ` or its `events` (OpenID Connect Back-Channel Logout §4.1).
    #[error("the token is no ID token")]
    Kind,
    /// `none`, an unknown algorithm, or one that is not allowed for this client.
    #[error("the ID token's algorithm is not allowed")]
    Algorithm,
    /// A `crit` header (RFC 7515 §4.1.11).
    #[error("the ID token has critical extensions")]
    Critical,
    /// No key of the provider fits, after at most one refetch.
    #[error("the ID token's key is unknown")]
    UnknownKey,
    /// The signature does not verify.
    #[error("the ID token's signature is wrong")]
    Signature,
    /// `iss` is missing or another.
    #[error("the ID token's issuer is wrong")]
    Issuer,
    /// We are not in `aud`, or an audience in it is not trusted.
    #[error("the ID token's audience is wrong")]
    Audience,
    /// `azp` is not us.
    #[error("the ID token's authorized party is wrong")]
    AuthorizedParty,
    /// `exp` is missing or past.
    #[error("the ID token has expired")]
    Expired,
    /// `iat` is missing or in the future, or `nbf` is in the future.
    #[error("the ID token is not valid yet")]
    NotYetValid,
    /// `iat` lies further back than the settings allow.
    #[error("the ID token was issued too long ago")]
    TooOld,
    /// `auth_time` is missing, or further back than was asked for (Core §3.1.3.7 item 13).
    #[error("the person proved who they are too long ago, or the ID token does not say when")]
    AuthTime,
    /// `acr` is none of those that are required (Core §3.1.3.7 item 12).
    #[error("the way the person signed in is none of those required")]
    Acr,
    /// `nonce` is missing or another.
    #[error("the ID token's nonce is wrong")]
    Nonce,
    /// `at_hash` does not fit the access token.
    #[error("the ID token's access token hash is wrong")]
    AccessTokenHash,
    /// `c_hash` is missing or does not fit the code that came along.
    #[error("the ID token's code hash is missing or wrong")]
    CodeHash,
    /// `s_hash` does not fit the state that came back.
    #[error("the ID token's state hash is wrong")]
    StateHash,
    /// The ID tokens of one sign-in, or of a session and its renewal, are about two people (Core §3.3.3.6, §12.2).
    #[error("two ID tokens that belong together name different subjects")]
    OtherSubject,
    /// The ID tokens of one sign-in say two things of the same person or sign-in (Core §3.3.3.6).
    #[error("two ID tokens that belong together differ in {0}")]
    Contradictory(&'static str),
    /// `sub` is missing, empty or too long.
    #[error("the ID token has no usable subject")]
    Subject,
    /// A registered claim has the wrong JSON type or range.
    #[error("the ID token's claim {0} has the wrong type")]
    ClaimType(&'static str),
}

impl IdTokenError {
    /// The constant reason code for the log, such as `id_token_nonce`.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Malformed => "id_token_malformed",
            Self::Undecryptable(_) => "id_token_undecryptable",
            Self::NotEncrypted => "id_token_not_encrypted",
            Self::Kind => "id_token_kind",
            Self::Algorithm => "id_token_algorithm",
            Self::Critical => "id_token_critical",
            Self::UnknownKey => "id_token_unknown_key",
            Self::Signature => "id_token_signature",
            Self::Issuer => "id_token_issuer",
            Self::Audience => "id_token_audience",
            Self::AuthorizedParty => "id_token_authorized_party",
            Self::Expired => "id_token_expired",
            Self::NotYetValid => "id_token_not_yet_valid",
            Self::TooOld => "id_token_too_old",
            Self::AuthTime => "id_token_auth_time",
            Self::Acr => "id_token_acr",
            Self::Nonce => "id_token_nonce",
            Self::AccessTokenHash => "id_token_access_token_hash",
            Self::CodeHash => "id_token_code_hash",
            Self::StateHash => "id_token_state_hash",
            Self::OtherSubject => "id_token_other_subject",
            Self::Contradictory(_) => "id_token_contradictory",
            Self::Subject => "id_token_subject",
            Self::ClaimType(_) => "id_token_claim_type",
        }
    }
}

impl From<Undecryptable> for IdTokenError {
    fn from(error: Undecryptable) -> Self {
        Self::Undecryptable(error.stage())
    }
}

impl From<ClaimError> for IdTokenError {
    fn from(error: ClaimError) -> Self {
        match error {
            ClaimError::Issuer => Self::Issuer,
            ClaimError::Audience => Self::Audience,
            ClaimError::AuthorizedParty => Self::AuthorizedParty,
            ClaimError::Expired => Self::Expired,
            ClaimError::NotYetValid => Self::NotYetValid,
            ClaimError::Type(name) => Self::ClaimType(name),
        }
    }
}

impl From<JoseError> for IdTokenError {
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

/// What two ID tokens of one sign-in agree in, where both say it: the issuer, what is about the sign-in (Core §2), and the
/// standard claims about the person (§5.1). Claims of a provider's own may name the token they are in.
const SAID_TWICE: [&str; 26] = [
    "iss",
    "auth_time",
    "acr",
    "amr",
    "azp",
    "sid",
    "tid",
    "name",
    "given_name",
    "family_name",
    "middle_name",
    "nickname",
    "preferred_username",
    "profile",
    "picture",
    "website",
    "email",
    "email_verified",
    "gender",
    "birthdate",
    "zoneinfo",
    "locale",
    "phone_number",
    "phone_number_verified",
    "address",
    "updated_at",
];

/// Verifies an ID token. Pure: keys and time are arguments.
pub(super) fn verify(
    id_token: &str,
    trust: Trust<'_>,
    rules: Rules<'_>,
    expected: Expected<'_>,
    now: UnixTime,
) -> Result<VerifiedClaims, IdTokenError> {
    let token = Jws::parse(id_token)?;
    let algorithm = token.algorithm();
    let claims = token.verify(trust)?;
    judge_kind(&token, &claims)?;
    rules.judge_issuer(&claims)?;
    rules.judge_audience(&claims)?;
    judge_times(&claims, rules.leeway, now)?;
    judge_nonce(&claims, expected.nonce)?;
    if let Some(access_token) = expected.access_token {
        let found = string(&claims, "at_hash")?;
        if found.is_some_and(|found| found != half_hash(algorithm, access_token)) {
            return Err(IdTokenError::AccessTokenHash);
        }
    }
    if let Some(code) = expected.code {
        let found = string(&claims, "c_hash")?;
        if found.map_or(expected.in_front, |found| found != half_hash(algorithm, code)) {
            return Err(IdTokenError::CodeHash);
        }
    }
    if let Some(state) = expected.state
        && string(&claims, "s_hash")?.is_some_and(|found| found != half_hash(algorithm, state))
    {
        return Err(IdTokenError::StateHash);
    }
    let subject = subject(&claims)?.to_owned();
    Ok(VerifiedClaims { subject, claims })
}

/// RFC 8725 §3.11 and §3.12: what was signed as another kind of token never passes for an ID token.
fn judge_kind(token: &Jws<'_>, claims: &Map<String, Value>) -> Result<(), IdTokenError> {
    let is_other = token.is_of_another_kind() || claims.contains_key("events");
    if is_other { Err(IdTokenError::Kind) } else { Ok(()) }
}

/// Core §3.1.3.7 item 11.
fn judge_nonce(claims: &Map<String, Value>, expected: Nonce<'_>) -> Result<(), IdTokenError> {
    let found = string(claims, "nonce")?;
    let expected = match expected {
        Nonce::Sent(nonce) => Some(nonce),
        Nonce::NotSent => None,
        Nonce::OfSignIn(nonce) => found.and(nonce),
    };
    match (found, expected) {
        (None, None) => Ok(()),
        // An empty expectation would mean that the login transaction was not read.
        (Some(nonce), Some(expected)) if !expected.is_empty() => {
            verify_slices_are_equal(nonce.as_bytes(), expected.as_bytes()).map_err(|_| IdTokenError::Nonce)
        }
        _ => Err(IdTokenError::Nonce),
    }
}

/// Core §3.1.3.6 and §3.3.2.11: the left half of the hash of the octets of an access token or code.
fn half_hash(algorithm: Algorithm, text: &str) -> String {
    let hash = digest::digest(algorithm.digest(), text.as_bytes());
    BASE64_URL_SAFE_NO_PAD.encode(&hash.as_ref()[..hash.as_ref().len() / 2])
}

/// Core §2: at most 255 ASCII characters.
pub(super) fn subject(claims: &Map<String, Value>) -> Result<&str, IdTokenError> {
    match string(claims, "sub")? {
        Some(subject) if subject.is_ascii() && (1..=255).contains(&subject.len()) => Ok(subject),
        _ => Err(IdTokenError::Subject),
    }
}

#[cfg(test)]
mod tests;
