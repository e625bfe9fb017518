//! `Authorization: Bearer` (RFC 6750 §2.1) → a verified access token → an identity. A token that is there and does not hold is
//! refused, whatever session comes with it.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{self, SHA256};
use http::{HeaderMap, HeaderValue, header};
use serde_json::{Map, Value};

use super::claimed;
use super::identity::{Evidence, Identity};
use super::oidc::access_token::{AccessTokenError, AccessTokens};
use super::oidc::{Provider, Providers};
use super::proof::ProofDemand;
use super::roles::{MapError, Mapper};
use super::verdicts::Verdicts;
use crate::clock::{SharedClock, UnixTime};
use crate::secret::SecretString;

/// The `[bearer]` section, checked.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Whom tokens must be for: one of these. Never empty.
    pub audiences: Vec<String>,
}

/// Why a request with an `Authorization` header is refused.
#[derive(Debug, Clone, thiserror::Error)]
pub enum BearerError {
    /// Two `Authorization` headers.
    #[error("there are several Authorization headers")]
    Repeated,
    /// Another scheme.
    #[error("the scheme of the Authorization header is not Bearer")]
    Scheme,
    /// No token in RFC 6750's form.
    #[error("the Authorization header holds no token")]
    Malformed,
    /// Longer than 16 KiB.
    #[error("the access token is too long")]
    TooLarge,
    /// The token does not hold.
    #[error(transparent)]
    Refused(AccessTokenError),
    /// The token's claims give no identity.
    #[error(transparent)]
    Map(MapError),
    /// It holds, but not for this route.
    #[error("the access token does not do for this route")]
    Route(&'static str),
    /// It holds, but whoever it is of did not sign in as the route demands.
    #[error("the sign-in behind the access token does not do for this route")]
    Insufficient(Box<ProofDemand>),
}

impl BearerError {
    /// The constant reason code for the log.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Repeated => "authorization_repeated",
            Self::Scheme => "authorization_scheme",
            Self::Malformed => "authorization_malformed",
            Self::TooLarge => "authorization_too_large",
            Self::Refused(error) => error.code(),
            Self::Map(error) => error.code(),
            Self::Route(reason) => reason,
            Self::Insufficient(_) => "insufficient_proof",
        }
    }

    /// The `error` that whoever asked is told (RFC 6750 §3.1); empty where no token came, `None` where nothing is known to be
    /// wrong with it.
    pub fn challenge(&self) -> Option<&'static str> {
        match self {
            Self::Repeated | Self::Malformed | Self::TooLarge => Some("invalid_request"),
            Self::Scheme => Some(""),
            Self::Refused(AccessTokenError::Unavailable(_) | AccessTokenError::Answer(_)) => None,
            Self::Refused(_) | Self::Map(_) | Self::Route(_) => Some("invalid_token"),
            // RFC 9470 §3.
            Self::Insufficient(_) => Some("insufficient_user_authentication"),
        }
    }
}

/// A token in the right form, of which nothing is known yet.
#[derive(Debug)]
pub struct Presented(SecretString);

/// Verifies access tokens; one for all workers.
#[derive(Debug)]
pub struct Bearer {
    settings: Settings,
    providers: Providers,
    mapper: Mapper,
    clock: SharedClock,
    passes_access_token: bool,
    known: Verdicts<Result<Identity, BearerError>>,
}

impl Bearer {
    /// Puts the parts together. `passes_access_token`: an upstream is given the token.
    pub fn new(
        settings: Settings,
        providers: Providers,
        mapper: Mapper,
        passes_access_token: bool,
        clock: SharedClock,
    ) -> Self {
        let known = Verdicts::new(LONGEST, Arc::clone(&clock));
        Self { settings, providers, mapper, clock, passes_access_token, known }
    }

    /// The token of a request; `None` where it shows none. Another scheme is the application's where the route passes it on.
    ///
    /// # Errors
    /// [`BearerError`] (RFC 6750 §3.1).
    pub fn presented(&self, headers: &HeaderMap, passed_on: bool) -> Option<Result<Presented, BearerError>> {
        let mut fields = headers.get_all(header::AUTHORIZATION).iter();
        let field = fields.next()?;
        if fields.next().is_some() {
            return Some(Err(BearerError::Repeated));
        }
        match token_of(field) {
            Err(BearerError::Scheme) if passed_on => None,
            outcome => Some(outcome.map(|token| Presented(SecretString::new(token.to_owned())))),
        }
    }

    /// Who stands behind a token.
    ///
    /// # Errors
    /// [`BearerError`].
    pub async fn authenticate(&self, Presented(token): Presented) -> Result<Identity, BearerError> {
        let mut identity = self.known.of(self.digest(&token), || self.judge(&token)).await?;
        identity.access_token = self.passes_access_token.then_some(token);
        Ok(identity)
    }

    /// The kind of check is part of it: what one provider said never answers for another.
    fn digest(&self, token: &SecretString) -> [u8; 32] {
        let mut context = digest::Context::new(&SHA256);
        for provider in self.providers.iter() {
            let settings = provider.settings();
            let kind = format!("{:?}", settings.access_tokens);
            for part in [settings.id.as_str(), &settings.issuer, &kind] {
                context.update(&(part.len() as u64).to_be_bytes());
                context.update(part.as_bytes());
            }
        }
        context.update(token.expose_secret().as_bytes());
        // SHA-256 has 32 bytes.
        context.finish().as_ref().try_into().unwrap_or_default()
    }

    /// The verdict, and until when it holds.
    async fn judge(&self, token: &SecretString) -> (Result<Identity, BearerError>, UnixTime) {
        let mut refusal = AccessTokenError::Type;
        for (index, provider) in self.providers.iter().enumerate() {
            match provider.verify_access_token(token, &self.settings.audiences).await {
                // The one it was made for comes later, or has refused it.
                Ok(claims) if self.is_of_another(index, &claims) => {}
                Ok(claims) => {
                    let identity = self.identity(index, provider, &claims);
                    let until = identity.as_ref().map(|identity| identity.expires_at).unwrap_or_else(|_| self.soon());
                    let latest = self.clock.now().after(LONGEST);
                    return (identity, until.min(latest));
                }
                // With several providers the one whose key signed it says what is wrong.
                Err(AccessTokenError::Claims(super::oidc::id_token::IdTokenError::UnknownKey)) if index > 0 => {}
                Err(error) => refusal = error,
            }
        }
        let until = match refusal {
            AccessTokenError::Unavailable(_) => self.clock.now().after(Duration::from_secs(1)),
            _ => self.soon(),
        };
        (Err(BearerError::Refused(refusal)), until)
    }

    /// Whether the token was made for another client that we are at the same issuer (RFC 9068 §2.2, `client_id`; `azp` with
    /// providers that write it as in ID tokens).
    fn is_of_another(&self, index: usize, claims: &Map<String, Value>) -> bool {
        let made_for = ["client_id", "azp"].into_iter().find_map(|name| claims.get(name)?.as_str());
        let Some(client) = made_for else { return false };
        let issuer = &self.providers.at(index).settings().issuer;
        let is_it = |provider: &Arc<Provider>| provider.is_us(|own| own == client);
        let is_same = |provider: &&Arc<Provider>| provider.settings().issuer == *issuer;
        !is_it(self.providers.at(index)) && self.providers.iter().filter(is_same).any(is_it)
    }

    fn soon(&self) -> UnixTime {
        self.clock.now().after(REFUSED_FOR)
    }

    fn identity(
        &self,
        index: usize,
        provider: &Provider,
        claims: &Map<String, Value>,
    ) -> Result<Identity, BearerError> {
        let now = self.clock.now();
        let settings = provider.settings();
        let skew = settings.clock_skew;
        // As long as verification takes the token; the verdict is made anew much sooner.
        let end = claims.get("exp").and_then(Value::as_f64).map(|seconds| UnixTime(seconds as u64));
        let expires_at = end.map_or(now.after(UNTOLD), |end| end.after(skew));
        let whose = claimed::Whose { signatory: &settings.signatory(), index, issuer: &settings.issuer, skew };
        let evidence = |issuer, subject| Evidence::AccessToken { issuer, subject };
        claimed::identity(&self.mapper, whose, claims, evidence, (now, expires_at)).map_err(BearerError::Map)
    }
}

/// Whether `providers` can be asked without telling one of them another's tokens: only JWTs say whose they are.
pub fn are_told_apart(kinds: &[AccessTokens]) -> bool {
    let says = |kind: &AccessTokens| matches!(kind, AccessTokens::Jwt | AccessTokens::Rfc9068);
    kinds.len() <= 1 || kinds.iter().all(says)
}

/// RFC 6750 §2.1; schemes have no case (RFC 9110 §11.1).
fn token_of(field: &HeaderValue) -> Result<&str, BearerError> {
    let text = field.to_str().map_err(|_| BearerError::Malformed)?.trim_matches([' ', '\t']);
    let (scheme, rest) = text.split_once(' ').unwrap_or((text, ""));
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(BearerError::Scheme);
    }
    let token = rest.trim_start_matches(' ');
    if token.len() > LARGEST {
        return Err(BearerError::TooLarge);
    }
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/".contains(&byte);
    let body = token.trim_end_matches('=');
    if body.is_empty() || !body.bytes().all(plain) {
        return Err(BearerError::Malformed);
    }
    Ok(token)
}

/// The longest token, in bytes.
const LARGEST: usize = 16 * 1024;

/// How long a verdict is kept at most.
const LONGEST: Duration = Duration::from_secs(60);

/// How long a token is good for where nobody says it: what streams may go on for so long.
const UNTOLD: Duration = Duration::from_secs(3600);

/// How long a refusal is kept.
const REFUSED_FOR: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_form_of_the_header_is_a_token() {
        let of = |text: &str| token_of(&HeaderValue::from_str(text).unwrap()).map(str::to_owned).map_err(|e| e.code());
        for good in ["Bearer abc", "bearer abc", "BEARER   abc", "Bearer abc "] {
            assert_eq!(of(good).as_deref(), Ok("abc"), "{good}");
        }
        assert_eq!(of("Bearer a-._~+/9==").as_deref(), Ok("a-._~+/9=="));
        for bad in ["Bearer", "Bearer ", "Bearer a b", "Bearer a,b", "Bearer =", "Bearer a=b", "Bearer a, Bearer b"] {
            assert_eq!(of(bad), Err("authorization_malformed"), "{bad}");
        }
        for other in ["Basic abc", "abc", "", "DPoP abc", "Bearer\tabc", "Bearerabc"] {
            assert_eq!(of(other), Err("authorization_scheme"), "{other}");
        }
        assert!(of(&format!("Bearer {}", "a".repeat(LARGEST))).is_ok());
        assert_eq!(of(&format!("Bearer {}", "a".repeat(LARGEST + 1))), Err("authorization_too_large"));
    }

    #[test]
    fn only_jwts_say_whose_they_are() {
        use AccessTokens::{Jwt, Rfc9068, Userinfo};
        assert!(are_told_apart(&[Userinfo]) && are_told_apart(&[Jwt, Rfc9068]));
        assert!(!are_told_apart(&[Jwt, Userinfo]) && !are_told_apart(&[Userinfo, Userinfo]));
    }
}
