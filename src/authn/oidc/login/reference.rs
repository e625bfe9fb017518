//! The authorization request by reference (RFC 9101 §5.2, OpenID Connect Core §6.2): its address holds, sealed, what it is made
//! of, and it is made and signed when the provider fetches it. So any replica serves it and nothing is kept.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

use super::{Logins, Started};
use crate::authn::oidc::authorization::{AuthorizationError, AuthorizationRequest};
use crate::authn::oidc::{Provider, Providers};

/// How long the address is good for: the user agent goes to the provider at once, and the provider fetches then.
const LIFETIME: Duration = Duration::from_secs(120);
/// RFC 9101 §5.2: the longest `request_uri`, in ASCII characters.
const LONGEST: usize = 512;

/// What an address holds: the login, and what only the browser's secret would give again.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Referred {
    started: Started,
    login_hint: Option<String>,
    nonce: [u8; 32],
    challenge: [u8; 32],
}

/// Why there is no object at an address.
#[derive(Debug, thiserror::Error)]
pub enum ReferenceError {
    /// Not made by us, older than two minutes, or of a provider that is no longer configured.
    #[error("the address of a request object is unreadable or too old")]
    Gone,
    /// It could not be made.
    #[error("the request object could not be made")]
    Unmade(#[source] AuthorizationError),
}

impl Logins {
    /// The address of the request object, where the provider is to fetch one. Where it would be too long, the request travels by
    /// value; at a provider that does not take that, the return path is given up.
    pub(super) fn reference(
        &self,
        provider: &Provider,
        started: &mut Started,
        (nonce, challenge): (&str, &str),
    ) -> Option<String> {
        let base = provider.settings().request_objects_at.as_ref()?;
        let (nonce, challenge) = (octets(nonce)?, octets(challenge)?);
        let login_hint = started.wish.login_hint.clone();
        let short_enough = |started: &Started| {
            let referred = Referred { started: started.clone(), login_hint: login_hint.clone(), nonce, challenge };
            let uri = format!("{base}/{}", self.references.seal(&referred));
            (uri.len() <= LONGEST).then_some(uri)
        };
        if let Some(uri) = short_enough(started) {
            return Some(uri);
        }
        if provider.takes_request_objects() {
            return None;
        }
        tracing::info!(
            provider = provider.settings().id,
            reason = "return_path_left_out",
            "the address of a request object has no room for the page that was asked for: this sign-in ends at /"
        );
        started.return_to = "/".to_owned();
        short_enough(started)
    }

    /// The signed request object at an address that ends in `sealed`.
    ///
    /// # Errors
    /// [`ReferenceError`].
    pub fn request_object(&self, providers: &Providers, sealed: &str) -> Result<String, ReferenceError> {
        let (referred, _) = self.references.open(sealed.as_bytes()).map_err(|_| ReferenceError::Gone)?;
        let Referred { mut started, login_hint, nonce, challenge } = referred;
        started.wish.login_hint = login_hint;
        if self.clock.now().since(started.started_at) > LIFETIME {
            return Err(ReferenceError::Gone);
        }
        let (_, provider) = providers.by_party(started.party).ok_or(ReferenceError::Gone)?;
        let [nonce, pkce_challenge] = [nonce, challenge].map(|octets| URL_SAFE_NO_PAD.encode(octets));
        let asked = AuthorizationRequest {
            state: &self.sealer.seal(&started),
            nonce: &nonce,
            pkce_challenge: &pkce_challenge,
            wish: &started.wish,
            reference: None,
        };
        provider.request_object(&asked).map_err(ReferenceError::Unmade)
    }
}

/// Nonces and challenges are 32 octets in base64url.
fn octets(text: &str) -> Option<[u8; 32]> {
    URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok()
}
