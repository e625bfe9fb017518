//! `Authorization: Basic` (RFC 7617) of a program on a guarded route → the provider's token endpoint (RFC 6749 §4.3) → an identity.
//! Off unless `insecure_password_grant` is on. Never for what a browser sends, nor beside a session: a page must not get in by a
//! password that a browser keeps.

mod turns;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http::{HeaderMap, HeaderValue, header};

use self::turns::Turns;
use super::claimed;
use super::identity::{Evidence, Identity};
use super::oidc::Provider;
use super::oidc::id_token::IdTokenError;
use super::oidc::password::GrantedError;
use super::oidc::token_endpoint::TokenError;
use super::proof::ProofDemand;
use super::roles::{MapError, Mapper};
use super::session::record;
use super::verdicts::Verdicts;
use crate::clock::{SharedClock, UnixTime};
use crate::provider_http::SetupError;
use crate::rate::TooMany;
use crate::secret::SecretString;
use crate::telemetry::chain;

/// Why a request with a name and a password is refused.
#[derive(Debug, Clone, thiserror::Error)]
pub enum PasswordError {
    /// Not one name and one password in RFC 7617's form, or too long.
    #[error("the Authorization header does not hold one name and one password")]
    Malformed,
    /// `Origin` or a `Sec-Fetch-…` field came with it.
    #[error("passwords are not taken from browsers")]
    Browser,
    /// A session cookie came with it.
    #[error("a password stands beside a session")]
    BesideSession,
    /// Too often for one client address or one name.
    #[error("too many passwords in too short a time")]
    TooMany(TooMany),
    /// The provider says that it is wrong.
    #[error("the provider refuses the name or the password")]
    Refused,
    /// The provider is away or busy.
    #[error("the provider could not be asked: {0}")]
    Unavailable(String),
    /// The provider's answer cannot be used, or it does not offer this.
    #[error("the provider's answer about the password is unusable: {0}")]
    Answer(String),
    /// The ID token that was given does not hold.
    #[error(transparent)]
    IdToken(IdTokenError),
    /// Its claims give no identity.
    #[error(transparent)]
    Map(MapError),
    /// It holds, but not for this route.
    #[error("the password does not do for this route")]
    Route(&'static str),
    /// It holds, but the route demands another kind of sign-in.
    #[error("a sign-in by password does not do for this route")]
    Insufficient(Box<ProofDemand>),
}

impl PasswordError {
    /// The constant reason code for the log.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Malformed => "password_malformed",
            Self::Browser => "password_from_browser",
            Self::BesideSession => "password_beside_session",
            Self::TooMany(_) => "too_many_passwords",
            Self::Refused => "password_refused",
            Self::Unavailable(_) => "password_unavailable",
            Self::Answer(_) => "password_answer",
            Self::IdToken(error) => error.code(),
            Self::Map(error) => error.code(),
            Self::Route(reason) => reason,
            Self::Insufficient(_) => "insufficient_proof",
        }
    }
}

impl From<GrantedError> for PasswordError {
    fn from(error: GrantedError) -> Self {
        match error {
            GrantedError::Token(TokenError::InvalidGrant) => Self::Refused,
            // RFC 6749 §5.2 has another word for it; Dex says this one of a wrong password.
            GrantedError::Token(TokenError::Refused { error, .. }) if error == "access_denied" => Self::Refused,
            GrantedError::Token(error) if error.is_passing() => Self::Unavailable(chain(&error)),
            GrantedError::Token(error) => Self::Answer(chain(&error)),
            GrantedError::IdToken(error) => Self::IdToken(error),
            GrantedError::Userinfo(error) => Self::Answer(chain(&error)),
        }
    }
}

/// A name and a password in the right form, of which nothing is known yet.
#[derive(Debug)]
pub struct Presented {
    user: String,
    password: SecretString,
}

/// Verifies passwords; one for all workers.
#[derive(Debug)]
pub struct Passwords {
    provider: Arc<Provider>,
    /// Its index.
    index: usize,
    mapper: Mapper,
    clock: SharedClock,
    passes_access_token: bool,
    /// For the digests of what was verified: made anew by each process, and never leaves it.
    key: hmac::Key,
    known: Verdicts<Result<Identity, PasswordError>>,
    turns: Turns,
}

impl Passwords {
    /// Puts the parts together: passwords are verified at the provider with this index.
    ///
    /// # Errors
    /// [`SetupError`] when the system has no randomness.
    pub fn new(
        (index, provider): (usize, Arc<Provider>),
        mapper: Mapper,
        passes_access_token: bool,
        clock: SharedClock,
    ) -> Result<Self, SetupError> {
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new());
        let key = key.map_err(|_| SetupError::Client("the system has no randomness".to_owned()))?;
        Ok(Self {
            provider,
            index,
            mapper,
            known: Verdicts::new(LONGEST, Arc::clone(&clock)),
            clock,
            passes_access_token,
            key,
            turns: Turns::new(),
        })
    }

    /// What a request shows; `None` where it is no password, or the route passes it on to the application. Whether there
    /// `is_session` is asked only for a password.
    ///
    /// # Errors
    /// [`PasswordError`].
    pub fn presented(
        &self,
        headers: &HeaderMap,
        passed_on: bool,
        is_session: impl FnOnce() -> bool,
    ) -> Option<Result<Presented, PasswordError>> {
        let mut fields = headers.get_all(header::AUTHORIZATION).iter();
        let encoded = credentials(fields.next()?)?;
        if passed_on {
            return None;
        }
        let is_of_browser =
            headers.contains_key(header::ORIGIN) || headers.keys().any(|name| name.as_str().starts_with("sec-fetch-"));
        Some(if is_of_browser {
            Err(PasswordError::Browser)
        } else if is_session() {
            Err(PasswordError::BesideSession)
        } else if fields.next().is_some() {
            Err(PasswordError::Malformed)
        } else {
            decode(encoded).ok_or(PasswordError::Malformed)
        })
    }

    /// Who stands behind a name and a password.
    ///
    /// # Errors
    /// [`PasswordError`].
    pub async fn authenticate(&self, presented: Presented, client: IpAddr) -> Result<Identity, PasswordError> {
        let digest = self.digest(&presented);
        self.known.of(digest, || self.judge(&presented, &digest, client)).await
    }

    /// Keyed, so that memory that leaks tells no password to whoever can guess.
    fn digest(&self, Presented { user, password }: &Presented) -> [u8; 32] {
        let mut context = hmac::Context::with_key(&self.key);
        context.update(&(user.len() as u64).to_be_bytes());
        context.update(user.as_bytes());
        context.update(password.expose_secret().as_bytes());
        // HMAC-SHA-256 has 32 bytes.
        context.sign().as_ref().try_into().unwrap_or_default()
    }

    /// The verdict, and until when it holds.
    async fn judge(
        &self,
        presented: &Presented,
        digest: &[u8; 32],
        client: IpAddr,
    ) -> (Result<Identity, PasswordError>, UnixTime) {
        // Only what the provider is asked takes a turn: whoever is verified already goes on.
        let verdict = match self.turns.take(&presented.user, digest, client) {
            Ok(()) => self.ask(presented).await,
            Err(too_many) => Err(PasswordError::TooMany(too_many)),
        };
        match &verdict {
            Ok(_) => self.turns.was_right(digest),
            Err(PasswordError::Refused) => self.turns.was_wrong(digest),
            Err(_) => {}
        }
        let now = self.clock.now();
        let until = match &verdict {
            Ok(identity) => identity.expires_at().min(now.after(LONGEST)),
            // A turn is no verdict.
            Err(PasswordError::TooMany(_)) => UnixTime(0),
            Err(PasswordError::Unavailable(_)) => now.after(Duration::from_secs(1)),
            Err(_) => now.after(REFUSED_FOR),
        };
        (verdict, until)
    }

    async fn ask(&self, Presented { user, password }: &Presented) -> Result<Identity, PasswordError> {
        let verified = self.provider.redeem_password(user, password).await?;
        let claims = record::merged(verified.claims.claims(), verified.userinfo.as_ref());
        let (settings, now) = (self.provider.settings(), self.clock.now());
        let ends_at = now.after(verified.granted.life());
        let whose = claimed::Whose {
            signatory: &settings.signatory(),
            index: self.index,
            issuer: &settings.issuer,
            skew: settings.clock_skew,
        };
        let evidence = |issuer, subject| Evidence::Password { issuer, subject };
        let identity = claimed::identity(&self.mapper, whose, &claims, evidence, (now, ends_at));
        let mut identity = identity.map_err(PasswordError::Map)?;
        identity.access_token = self.passes_access_token.then_some(verified.granted.access_token);
        Ok(identity)
    }
}

/// What follows the scheme, which has no case (RFC 9110 §11.1); `None` where it is another.
fn credentials(field: &HeaderValue) -> Option<&[u8]> {
    let text = field.as_bytes().trim_ascii();
    let (scheme, rest) = text.split_at_checked(5)?;
    let is_basic = scheme.eq_ignore_ascii_case(b"basic") && rest.first().is_none_or(|byte| *byte == b' ');
    is_basic.then(|| rest.trim_ascii_start())
}

/// RFC 7617 §2: base64 of UTF-8, the name before the first colon, no control characters. Neither part may be empty: an empty
/// password is what some directories take for nobody's.
fn decode(encoded: &[u8]) -> Option<Presented> {
    if encoded.len() > LARGEST {
        return None;
    }
    let text = String::from_utf8(BASE64_STANDARD.decode(encoded).ok()?).ok()?;
    let (user, password) = text.split_once(':')?;
    let is_good = !user.trim().is_empty() && !password.is_empty() && !text.chars().any(char::is_control);
    is_good.then(|| Presented { user: user.to_owned(), password: SecretString::new(password.to_owned()) })
}

/// The longest credentials, in bytes as they are sent.
const LARGEST: usize = 2048;

/// How long a verdict is kept at most: that long a changed password still works.
const LONGEST: Duration = Duration::from_secs(300);

/// How long a refusal is kept.
const REFUSED_FOR: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Option<Option<(String, String)>> {
        let field = HeaderValue::from_bytes(text.as_bytes()).unwrap();
        let decoded = decode(credentials(&field)?);
        Some(decoded.map(|one| (one.user, one.password.expose_secret().to_owned())))
    }

    #[test]
    fn one_form_of_the_header_is_a_name_and_a_password() {
        let pair = |user: &str, password: &str| Some(Some((user.to_owned(), password.to_owned())));
        // RFC 7617 §2 and §2.1.
        assert_eq!(read("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="), pair("Aladdin", "open sesame"));
        assert_eq!(read("basic  dGVzdDoxMjPCow=="), pair("test", "123£"));
        let of = |text: &str| read(&format!("Basic {}", BASE64_STANDARD.encode(text)));
        assert_eq!(of("ada:a:b:"), pair("ada", "a:b:"));
        for bad in ["", "ada", ":x", " :x", "ada:", "a\nb:x", "ada:\0", "ada:x\u{7f}"] {
            assert_eq!(of(bad), Some(None), "{bad:?}");
        }
        for bad in ["Basic", "Basic ====", "Basic YWRhOng", "Basic YWRhOng= YWRhOng=", "Basic YTr/"] {
            assert_eq!(read(bad), Some(None), "{bad}");
        }
        assert_eq!(of(&format!("ada:{}", "x".repeat(LARGEST))), Some(None));
        for other in ["Bearer x", "Basicx YWRhOng=", "Digest x", ""] {
            assert_eq!(read(other), None, "{other}");
        }
    }
}
