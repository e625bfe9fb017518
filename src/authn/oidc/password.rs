//! The resource owner's password (RFC 6749 §4.3), which RFC 9700 §2.4 forbids: for programs that can do nothing else.

use serde_json::Map;
use serde_json::Value;

use super::Provider;
use super::grant::{Granted, Wisher};
use super::id_token::{Expected, IdTokenError, Nonce, VerifiedClaims};
use super::token_endpoint::TokenError;
use super::userinfo::UserinfoError;
use super::wish::Wish;
use crate::secret::SecretString;
use crate::telemetry::chain;

/// Why nobody is known by a password.
#[derive(Debug, thiserror::Error)]
pub enum GrantedError {
    /// No tokens.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The ID token does not hold.
    #[error(transparent)]
    IdToken(#[from] IdTokenError),
    /// Userinfo is needed and not to be had.
    #[error(transparent)]
    Userinfo(#[from] UserinfoError),
}

/// Whose tokens they are, verified.
#[derive(Debug)]
pub struct Verified {
    /// Of the ID token.
    pub claims: VerifiedClaims,
    /// Of the userinfo endpoint.
    pub userinfo: Option<Map<String, Value>>,
    /// What else was given.
    pub granted: Granted,
}

impl Provider {
    /// Exchanges a password (§4.3.2), and verifies all that comes of it before it says who that is.
    ///
    /// # Errors
    /// [`GrantedError`]; a wrong password is [`TokenError::InvalidGrant`].
    pub async fn redeem_password(&self, user: &str, password: &SecretString) -> Result<Verified, GrantedError> {
        // Nothing that outlives the answer: the password comes with every request.
        let scope = self.settings().scope(false);
        let parameters = [("username", user), ("password", password.expose_secret()), ("scope", &scope)];
        let parameters = self.settings().ask.with_resources(&parameters);
        let mut granted = self.grant("password", &parameters, Wisher::Stranger).await?;
        let id_token = granted.id_token.take().ok_or(TokenError::Response { field: "id_token" })?;
        let id_token = self.open_id_token(id_token)?;
        let wish = Wish::default();
        let access_token = Some(granted.access_token.expose_secret());
        let expected =
            Expected { nonce: Nonce::NotSent, access_token, code: None, state: None, in_front: false, wish: &wish };
        let claims = self.verify_id_token(id_token.expose_secret(), expected).await?;
        let userinfo = match self.userinfo(&granted.access_token, claims.subject()).await {
            Ok(userinfo) => userinfo,
            Err(error) if self.settings().userinfo_required => return Err(error.into()),
            Err(error) => {
                tracing::warn!(error = chain(&error), "userinfo is not to be had; going on with the ID token alone");
                None
            }
        };
        Ok(Verified { claims, userinfo, granted })
    }
}
