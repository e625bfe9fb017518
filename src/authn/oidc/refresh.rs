//! Refreshing (RFC 6749 §6, OpenID Connect Core §12): a refresh token for new tokens, verified against the ID token of the
//! sign-in before any of them is used.

use std::time::Duration;

use serde_json::{Map, Value};
use tracing::warn;

use super::Provider;
use super::grant::{Granted, Wisher};
use super::id_token::{Expected, IdTokenError, Nonce, VerifiedClaims};
use super::response::needs_the_person;
use super::token_endpoint::TokenError;
use super::userinfo::UserinfoError;
use super::wish::Wish;
use crate::clock::UnixTime;
use crate::secret::SecretString;
use crate::telemetry::chain;

/// What a refresh token brought.
#[derive(Debug)]
pub struct Refreshed {
    /// The new access token.
    pub access_token: SecretString,
    /// Its life, when the provider says.
    pub expires_in: Option<Duration>,
    /// When it came: that life has begun.
    pub came_at: UnixTime,
    /// In place of the one that was sent, where the provider rotates them.
    pub refresh_token: Option<SecretString>,
    /// The new ID token, opened, where one came.
    pub id_token: Option<SecretString>,
    /// Its claims.
    pub claims: Option<VerifiedClaims>,
    /// New claims from userinfo, where they were to be had.
    pub userinfo: Option<Map<String, Value>>,
    /// How far that provider's clock may be from ours.
    pub clock_skew: Duration,
}

/// Why a refresh token brought nothing; one variant for each thing to do then.
#[derive(Debug, thiserror::Error)]
pub enum RefreshError {
    /// `invalid_grant`: the grant is over.
    #[error("the provider refuses the refresh token")]
    Refused,
    /// The token was not used, as far as the provider says: it can be sent again.
    #[error("the refresh token could not be used")]
    Unused(#[source] TokenError),
    /// It may have been used, and what came back, if anything, is of no use.
    #[error("no answer came to the refresh token that was sent")]
    Lost(#[source] TokenError),
    /// It was given to a client that we are not any more (RFC 6749 §6), so it is not sent.
    #[error("the refresh token was given to another client")]
    OtherClient,
    /// What came is not for this session.
    #[error("the renewed ID token is not to be trusted")]
    IdToken(#[source] IdTokenError),
}

impl Provider {
    /// Sends a refresh token; `signed_in` are the claims of the ID token that the session has.
    ///
    /// # Errors
    /// [`RefreshError`].
    pub async fn refresh(
        &self,
        refresh_token: &SecretString,
        signed_in: &Map<String, Value>,
    ) -> Result<Refreshed, RefreshError> {
        let known = self.knowledge.usable().ok_or(RefreshError::Unused(TokenError::ProviderUnknown))?;
        if !audiences(signed_in).contains(&known.settings.credentials.client_id.as_str()) {
            return Err(RefreshError::OtherClient);
        }
        let tokens = self.redeem_refresh_token(refresh_token.expose_secret(), Wisher::Ourselves).await;
        let tokens = tokens.map_err(RefreshError::of)?;
        let subject = signed_in.get("sub").and_then(Value::as_str).unwrap_or_default();
        let mut refreshed = Refreshed {
            access_token: tokens.access_token,
            expires_in: tokens.expires_in,
            came_at: self.knowledge.clock.now(),
            refresh_token: tokens.refresh_token,
            id_token: None,
            claims: None,
            userinfo: None,
            clock_skew: known.settings.clock_skew,
        };
        if let Some(id_token) = tokens.id_token {
            let id_token = self.open_id_token(id_token).map_err(RefreshError::IdToken)?;
            let claims = self.verify_renewed(&id_token, &refreshed.access_token, signed_in).await;
            refreshed.claims = Some(claims.map_err(RefreshError::IdToken)?);
            refreshed.id_token = Some(id_token);
        }
        // Only now is the access token used for anything.
        match self.userinfo(&refreshed.access_token, subject).await {
            Ok(userinfo) => refreshed.userinfo = userinfo,
            // Where no ID token came, nothing else says whose the new access token is.
            Err(UserinfoError::SubjectMismatch) => return Err(RefreshError::IdToken(IdTokenError::OtherSubject)),
            // The new tokens are here, and the old claims still stand.
            Err(error) => {
                warn!(error = chain(&error), "userinfo is not to be had; the session keeps the claims that it has")
            }
        }
        Ok(refreshed)
    }

    /// Tokens for a refresh token (RFC 6749 §6), unverified.
    ///
    /// # Errors
    /// [`TokenError`].
    pub(in crate::authn) async fn redeem_refresh_token(
        &self,
        refresh_token: &str,
        wisher: Wisher,
    ) -> Result<Granted, TokenError> {
        let parameters = self.settings().ask.with_resources(&[("refresh_token", refresh_token)]);
        self.grant("refresh_token", &parameters, wisher).await
    }

    async fn verify_renewed(
        &self,
        id_token: &SecretString,
        access_token: &SecretString,
        signed_in: &Map<String, Value>,
    ) -> Result<VerifiedClaims, IdTokenError> {
        let expected = Expected {
            nonce: Nonce::OfSignIn(signed_in.get("nonce").and_then(Value::as_str)),
            access_token: Some(access_token.expose_secret()),
            code: None,
            state: None,
            in_front: false,
            wish: &Wish::default(),
        };
        let verified = self.verify_id_token(id_token.expose_secret(), expected).await?;
        is_renewal(signed_in, verified.claims())?;
        Ok(verified)
    }
}

impl RefreshError {
    fn of(error: TokenError) -> Self {
        match error {
            TokenError::InvalidGrant => Self::Refused,
            TokenError::Http(ref http) if http.may_have_been_read() => Self::Lost(error),
            // A gateway's word for an answer that it did not get.
            TokenError::Status(502 | 504) => Self::Lost(error),
            // Only the person can do something about it: at the provider, where the browser takes them.
            TokenError::Refused { error: ref name, .. } if needs_the_person(name) || name == "access_denied" => {
                Self::Lost(error)
            }
            // It was answered, with something that holds no tokens: whatever that was, it may have used up the old one.
            TokenError::Response { .. } | TokenError::MediaType(_) => Self::Lost(error),
            // To ask again would bring the same for as long as the metadata say so; the browser can renew.
            TokenError::Unsupported(_) => Self::Lost(error),
            _ => Self::Unused(error),
        }
    }
}

/// Of a verified ID token, what [`is_renewal`] compares. No longer than the settings: verification lets in but the trusted
/// audiences, each of which is kept once, and times are kept as numbers only.
pub(in crate::authn) fn what_stays(claims: &Map<String, Value>) -> Map<String, Value> {
    let kept = |(name, value): (&String, &Value)| match name.as_str() {
        "iss" | "sub" | "azp" => Some((name.clone(), value.clone())),
        "aud" => Some((name.clone(), audiences(claims).into())),
        "auth_time" => value.is_number().then(|| (name.clone(), value.clone())),
        _ => None,
    };
    claims.iter().filter_map(kept).collect()
}

/// Core §12.2: what a renewed ID token must have in common with the one of the sign-in.
pub(in crate::authn) fn is_renewal(
    signed_in: &Map<String, Value>,
    renewed: &Map<String, Value>,
) -> Result<(), IdTokenError> {
    if signed_in.get("sub") != renewed.get("sub") {
        return Err(IdTokenError::OtherSubject);
    }
    if signed_in.get("iss") != renewed.get("iss") {
        return Err(IdTokenError::Issuer);
    }
    if audiences(signed_in) != audiences(renewed) {
        return Err(IdTokenError::Audience);
    }
    if signed_in.get("azp") != renewed.get("azp") {
        return Err(IdTokenError::AuthorizedParty);
    }
    // The time of the sign-in, not of the renewal; it may be left out.
    match (signed_in.get("auth_time"), renewed.get("auth_time")) {
        (Some(old), Some(new)) if old.as_f64() != new.as_f64() => Err(IdTokenError::AuthTime),
        _ => Ok(()),
    }
}

/// In no order.
fn audiences(claims: &Map<String, Value>) -> Vec<&str> {
    let mut all: Vec<_> = match claims.get("aud") {
        Some(Value::String(one)) => vec![one.as_str()],
        Some(Value::Array(several)) => several.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    all.sort_unstable();
    all.dedup();
    all
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_renewed_id_token_is_of_the_same_person_provider_client_and_sign_in() {
        let old =
            json!({"iss": "i", "sub": "s", "aud": ["a", "b"], "azp": "a", "auth_time": 7, "exp": 1, "name": "Ada"});
        let judged = |change: Value| {
            let mut new = old.clone();
            for (name, value) in change.as_object().unwrap() {
                new[name] = value.clone();
            }
            new.as_object_mut().unwrap().retain(|_, value| !value.is_null());
            let (old, new) = (old.as_object().unwrap(), new.as_object().unwrap());
            let judged = is_renewal(old, new);
            assert_eq!(is_renewal(&what_stays(old), new), judged, "nothing more is compared than what stays");
            judged
        };
        for same in [
            json!({"exp": 2, "name": "Grace"}),
            json!({"aud": ["b", "a", "a"]}),
            json!({"auth_time": null}),
            json!({"auth_time": 7.0}),
        ] {
            assert_eq!(judged(same.clone()), Ok(()), "{same}");
        }
        for (other, error) in [
            (json!({"sub": "t"}), IdTokenError::OtherSubject),
            (json!({"sub": null}), IdTokenError::OtherSubject),
            (json!({"iss": "j"}), IdTokenError::Issuer),
            (json!({"aud": "a"}), IdTokenError::Audience),
            (json!({"aud": ["a", "b", "c"]}), IdTokenError::Audience),
            (json!({"azp": "b"}), IdTokenError::AuthorizedParty),
            (json!({"azp": null}), IdTokenError::AuthorizedParty),
            (json!({"auth_time": 8}), IdTokenError::AuthTime),
            (json!({"auth_time": "7"}), IdTokenError::AuthTime),
        ] {
            assert_eq!(judged(other.clone()), Err(error), "{other}");
        }
        let stays = json!({"iss": "i", "sub": "s", "aud": ["a", "b"], "azp": "a", "auth_time": 7});
        assert_eq!(Value::Object(what_stays(old.as_object().unwrap())), stays);
        let repeated = json!({"aud": vec!["a"; 1000], "auth_time": "7".repeat(1000)});
        assert_eq!(Value::Object(what_stays(repeated.as_object().unwrap())), json!({"aud": ["a"]}));
        let silent = json!({"iss": "i", "sub": "s", "aud": "a"});
        let told = json!({"iss": "i", "sub": "s", "aud": "a", "azp": "a"});
        let of = |old: &Value, new: &Value| is_renewal(old.as_object().unwrap(), new.as_object().unwrap());
        assert_eq!(of(&silent, &told), Err(IdTokenError::AuthorizedParty), "§12.2: absent then, absent now");
    }
}
