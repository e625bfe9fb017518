//! Tokens for API clients, which have no browser: the device flow (RFC 8628) and refresh tokens (RFC 6749 §6), with this proxy as
//! the provider's client.
//!
//! What an API client gets to redeem later is sealed here, so that nobody redeems by our credentials what was not given out by
//! us: neither a device code that was started elsewhere nor a refresh token that was stolen from another place.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_lc_rs::rand;
use moka::sync::Cache;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use url::Url;

use super::oidc::device::LONGEST_INTERVAL;
use super::oidc::grant::{Granted, Wisher};
use super::oidc::id_token::{Expected, IdTokenError, Nonce};
use super::oidc::party::Party;
use super::oidc::refresh::{is_renewal, what_stays};
use super::oidc::token_endpoint::TokenError;
use super::oidc::{Provider, Providers, Wish};
use super::session::seal::{KeyRing, Purpose, Sealer};
use crate::clock::{SharedClock, UnixTime};
use crate::message::Origin;
use crate::secret::SecretString;

/// The `[api_clients]` section, checked: the grants that are switched on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Settings {
    /// Device codes.
    pub device_code: bool,
    /// Refresh tokens.
    pub refresh_token: bool,
}

/// Why there are no tokens.
#[derive(Debug, thiserror::Error)]
pub enum GrantError {
    /// The parameter `provider` names none, or is missing where there are several.
    #[error("the parameter provider has to name one of the providers")]
    Provider,
    /// Not sealed here, or redeemed already.
    #[error("the device code is not one that was given out here, or it was used already")]
    DeviceCode,
    /// Nobody said yes in time.
    #[error("the device code has expired")]
    Expired,
    /// The person has said nothing yet.
    #[error("the person has not answered yet")]
    Pending,
    /// Sooner than the interval.
    #[error("the questions come too fast")]
    TooSoon,
    /// The person, or the provider, says no.
    #[error("access was denied")]
    Denied,
    /// Not sealed here, or the provider does not take it any more.
    #[error("the refresh token is not one that was given out here, or it is not good any more")]
    RefreshToken,
    /// The provider gives nothing.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// What it gives is not believed.
    #[error(transparent)]
    IdToken(#[from] IdTokenError),
}

impl GrantError {
    /// The constant reason code for the log; `None` where the fault is the provider's, which has codes of its own.
    pub fn code(&self) -> Option<&'static str> {
        match self {
            Self::Provider => Some("grant_provider"),
            Self::DeviceCode => Some("device_code_unknown"),
            Self::Expired => Some("device_code_expired"),
            Self::Pending => Some("device_pending"),
            Self::TooSoon => Some("device_too_soon"),
            Self::Denied => Some("device_denied"),
            Self::RefreshToken => Some("refresh_token_unknown"),
            Self::Token(_) | Self::IdToken(_) => None,
        }
    }

    /// What the API client is told (RFC 6749 §5.2, RFC 8628 §3.5).
    pub fn error(&self) -> &'static str {
        match self {
            Self::Provider => "invalid_request",
            Self::DeviceCode | Self::RefreshToken => "invalid_grant",
            Self::Expired => "expired_token",
            Self::Pending => "authorization_pending",
            Self::TooSoon => "slow_down",
            Self::Denied => "access_denied",
            Self::Token(_) | Self::IdToken(_) => "server_error",
        }
    }
}

/// A device authorization as it is told to the API client (RFC 8628 §3.2).
#[derive(Debug)]
pub struct Started {
    /// Sealed.
    pub device_code: String,
    /// What the person types in.
    pub user_code: String,
    /// Where.
    pub verification_uri: Url,
    /// The same with the code in it.
    pub verification_uri_complete: Option<Url>,
    /// How long the person has.
    pub expires_in: Duration,
    /// The least time between two questions.
    pub interval: Duration,
}

/// Tokens as they are told to the API client (RFC 6749 §5.1).
#[derive(Debug)]
pub struct HandedOut {
    /// The provider's.
    pub access_token: SecretString,
    /// Its life, when the provider says.
    pub expires_in: Option<Duration>,
    /// Sealed.
    pub refresh_token: Option<String>,
    /// What was granted.
    pub scope: String,
}

/// What is in a device code of ours.
#[derive(Serialize, Deserialize)]
struct DeviceCode {
    party: Party,
    /// Of this one, for the memory of who asks how often.
    id: [u8; 16],
    code: String,
    expires_at: UnixTime,
    /// Seconds.
    interval: u64,
}

/// What is in a refresh token of ours.
#[derive(Serialize, Deserialize)]
struct RefreshToken {
    party: Party,
    token: String,
    /// Of the first ID token, as JSON: what a renewed one has in common with it (OpenID Connect Core §12.2).
    signed_in: String,
}

/// How often one device code is asked about.
#[derive(Debug)]
struct Asked {
    last: Option<UnixTime>,
    interval: Duration,
    is_spent: bool,
}

impl Asked {
    /// Takes a turn; sooner than the interval, less a second that clocks and networks take, none is left, and the interval grows
    /// (RFC 8628 §3.5).
    fn take(&mut self, now: UnixTime) -> Result<(), GrantError> {
        if self.is_spent {
            return Err(GrantError::DeviceCode);
        }
        let next = self.last.map(|last| last.after(self.interval).before(Duration::from_secs(1)));
        if next.is_some_and(|next| now < next) {
            self.slow_down();
            return Err(GrantError::TooSoon);
        }
        self.last = Some(now);
        Ok(())
    }

    fn slow_down(&mut self) {
        self.interval = (self.interval + Duration::from_secs(5)).min(LONGEST_INTERVAL);
    }
}

/// Gives tokens to API clients; one for all workers.
#[derive(Debug)]
pub struct ApiClients {
    settings: Settings,
    providers: Providers,
    device_codes: Sealer<DeviceCode>,
    refresh_tokens: Sealer<RefreshToken>,
    asked: Cache<[u8; 16], Arc<Mutex<Asked>>>,
    clock: SharedClock,
}

impl ApiClients {
    /// Puts the parts together.
    pub fn new(settings: Settings, providers: Providers, ring: &KeyRing, origin: &Origin, clock: SharedClock) -> Self {
        Self {
            settings,
            providers,
            device_codes: ring.sealer(Purpose::DeviceCode, "device_code", origin),
            refresh_tokens: ring.sealer(Purpose::RefreshToken, "refresh_token", origin),
            asked: Cache::builder().max_capacity(MOST_ASKED).time_to_idle(Duration::from_secs(3600)).build(),
            clock,
        }
    }

    /// The grants that are switched on.
    pub fn settings(&self) -> Settings {
        self.settings
    }

    /// Starts a device authorization at the provider of this `provider_id`, or at the only one.
    ///
    /// # Errors
    /// [`GrantError`].
    pub async fn start_device(&self, provider: Option<&str>) -> Result<Started, GrantError> {
        let provider = match provider {
            Some(id) => self.providers.by_id(id).map(|(_, provider)| provider),
            None if self.providers.iter().len() == 1 => Some(self.providers.first()),
            None => None,
        };
        let provider = provider.ok_or(GrantError::Provider)?;
        let now = self.clock.now();
        let answer = provider.authorize_device(self.settings.refresh_token).await?;
        let mut id = [0; 16];
        // The generator fails only when the system has no randomness at all; without an id of its own no code is given out.
        rand::fill(&mut id).map_err(|_| TokenError::Response { field: "device_code" })?;
        let sealed = DeviceCode {
            party: provider.settings().party(),
            id,
            code: answer.device_code.expose_secret().to_owned(),
            expires_at: now.after(answer.expires_in),
            interval: answer.interval.as_secs(),
        };
        Ok(Started {
            device_code: self.device_codes.seal(&sealed),
            user_code: answer.user_code,
            verification_uri: answer.verification_uri,
            verification_uri_complete: answer.verification_uri_complete,
            expires_in: answer.expires_in,
            interval: answer.interval,
        })
    }

    /// Asks whether the person has said yes; the provider is asked no more often than it said.
    ///
    /// # Errors
    /// [`GrantError`].
    pub async fn redeem_device_code(&self, sealed: &str) -> Result<HandedOut, GrantError> {
        let (code, _) = self.device_codes.open(sealed.as_bytes()).map_err(|_| GrantError::DeviceCode)?;
        let (_, provider) = self.providers.by_party(code.party).ok_or(GrantError::DeviceCode)?;
        let now = self.clock.now();
        if now >= code.expires_at {
            return Err(GrantError::Expired);
        }
        let begin = || {
            let interval = Duration::from_secs(code.interval);
            Arc::new(Mutex::new(Asked { last: None, interval, is_spent: false }))
        };
        let asked = self.asked.get_with(code.id, begin);
        let with_asked = |change: fn(&mut Asked)| change(&mut asked.lock().unwrap_or_else(PoisonError::into_inner));
        asked.lock().unwrap_or_else(PoisonError::into_inner).take(now)?;
        let outcome = provider.redeem_device_code(&code.code).await.map_err(device_error);
        match &outcome {
            Err(GrantError::TooSoon) => with_asked(Asked::slow_down),
            // Also where what comes of it is not believed: a code works once.
            Ok(_) | Err(GrantError::DeviceCode | GrantError::Denied) => with_asked(|asked| asked.is_spent = true),
            Err(_) => {}
        }
        self.hand_out(provider, outcome?, None).await
    }

    /// Fresh tokens for a refresh token of ours.
    ///
    /// # Errors
    /// [`GrantError`].
    pub async fn refresh(&self, sealed: &str) -> Result<HandedOut, GrantError> {
        let (held, _) = self.refresh_tokens.open(sealed.as_bytes()).map_err(|_| GrantError::RefreshToken)?;
        let (_, provider) = self.providers.by_party(held.party).ok_or(GrantError::RefreshToken)?;
        let signed_in = serde_json::from_str(&held.signed_in).map_err(|_| GrantError::RefreshToken)?;
        let granted =
            provider.redeem_refresh_token(&held.token, Wisher::Stranger).await.map_err(|error| match error {
                TokenError::InvalidGrant => GrantError::RefreshToken,
                error => error.into(),
            })?;
        self.hand_out(provider, granted, Some(signed_in)).await
    }

    /// Nothing is handed out before the ID token holds. Only a renewal may come without one (OpenID Connect Core §12.2), and that
    /// is of the sign-in it was before.
    async fn hand_out(
        &self,
        provider: &Provider,
        granted: Granted,
        before: Option<Map<String, Value>>,
    ) -> Result<HandedOut, GrantError> {
        let Granted { access_token, expires_in, refresh_token, id_token, scope } = granted;
        let signed_in = match (id_token, before) {
            (None, None) => return Err(TokenError::Response { field: "id_token" }.into()),
            (None, Some(before)) => before,
            (Some(id_token), before) => {
                let id_token = provider.open_id_token(id_token)?;
                let wish = Wish::default();
                let expected = Expected {
                    nonce: if before.is_some() { Nonce::OfSignIn(None) } else { Nonce::NotSent },
                    access_token: Some(access_token.expose_secret()),
                    code: None,
                    state: None,
                    in_front: false,
                    wish: &wish,
                };
                let claims = provider.verify_id_token(id_token.expose_secret(), expected).await?;
                if let Some(before) = &before {
                    is_renewal(before, claims.claims())?;
                }
                let (provider, what) = (&provider.settings().id, if before.is_some() { "renewed" } else { "given" });
                tracing::info!(%provider, subject = claims.subject(), "tokens were {what} to an API client");
                before.unwrap_or_else(|| what_stays(claims.claims()))
            }
        };
        let party = provider.settings().party();
        let refresh_token = refresh_token.filter(|_| self.settings.refresh_token).map(|token| {
            let (token, signed_in) = (token.expose_secret().to_owned(), Value::Object(signed_in).to_string());
            self.refresh_tokens.seal(&RefreshToken { party, token, signed_in })
        });
        let scope = scope.unwrap_or_else(|| provider.settings().scope(self.settings.refresh_token));
        Ok(HandedOut { access_token, expires_in, refresh_token, scope })
    }
}

/// RFC 8628 §3.5.
fn device_error(error: TokenError) -> GrantError {
    match error {
        TokenError::InvalidGrant => GrantError::DeviceCode,
        TokenError::Refused { error, description } => match error.as_str() {
            "authorization_pending" => GrantError::Pending,
            "slow_down" => GrantError::TooSoon,
            "access_denied" => GrantError::Denied,
            "expired_token" => GrantError::Expired,
            _ => TokenError::Refused { error, description }.into(),
        },
        error => error.into(),
    }
}

/// The most device codes whose questions are remembered; about 200 bytes each.
const MOST_ASKED: u64 = 10_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_asks_too_soon_has_to_wait_longer_and_whoever_keeps_to_it_never_does() {
        let begin = || Asked { last: None, interval: Duration::from_secs(5), is_spent: false };
        let mut patient = begin();
        for turn in 0..10 {
            assert!(patient.take(UnixTime(turn * 5)).is_ok());
        }
        let mut hasty = begin();
        assert!(hasty.take(UnixTime(0)).is_ok());
        assert!(matches!(hasty.take(UnixTime(2)), Err(GrantError::TooSoon)));
        assert!(matches!(hasty.take(UnixTime(8)), Err(GrantError::TooSoon)), "now it is ten seconds");
        assert!(hasty.take(UnixTime(15)).is_ok());
        for _ in 0..100 {
            hasty.slow_down();
        }
        assert_eq!(hasty.interval, LONGEST_INTERVAL);
        hasty.is_spent = true;
        assert!(matches!(hasty.take(UnixTime(1000)), Err(GrantError::DeviceCode)));
    }
}
