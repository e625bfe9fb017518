//! Tokens of a session that was signed out are of no use to anybody any more (RFC 7009).
//!
//! Not by the library, which refuses http towards loopback and has no answer for a session without a refresh token.

use std::sync::Arc;

use openidconnect::HttpRequest;
use tokio::sync::Semaphore;
use url::Url;

use super::grant::form;
use crate::secret::SecretString;

/// What kind of token it is (§2.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Refresh,
    Access,
}

impl Kind {
    pub(super) fn hint(self) -> &'static str {
        match self {
            Self::Refresh => "refresh_token",
            Self::Access => "access_token",
        }
    }
}

/// Bounds how many sign-outs have their tokens revoked, and how many of the token calls that takes.
#[derive(Debug)]
pub(super) struct Turns {
    waiting: Arc<Semaphore>,
    calling: Arc<Semaphore>,
}

/// The most sign-outs that wait.
const MAX_WAITING: usize = 256;

impl Turns {
    /// A quarter of the token calls at the most: an endpoint that hangs keeps nobody from signing in.
    pub(super) fn new(token_calls: usize) -> Self {
        let calling = Semaphore::new((token_calls / 4).max(1));
        Self { waiting: Arc::new(Semaphore::new(MAX_WAITING)), calling: Arc::new(calling) }
    }

    /// Over when what it resolves to is dropped; `None` where too many wait.
    pub(super) fn wait(&self) -> Option<impl Future<Output = impl Sized + Send + use<>> + Send + use<>> {
        let waiting = Arc::clone(&self.waiting).try_acquire_owned().ok()?;
        let calling = Arc::clone(&self.calling).acquire_owned();
        // It is never closed.
        Some(async move { (waiting, calling.await.ok()) })
    }
}

/// The request (§2.1). Who we are is added when it is sent. `None` where the endpoint can't be asked.
pub(super) fn request(endpoint: &Url, kind: Kind, token: &SecretString) -> Option<HttpRequest> {
    form(endpoint, &[("token", token.expose_secret()), ("token_type_hint", kind.hint())]).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_travels_in_the_form_alone() {
        let endpoint = Url::parse("https://id.example/revoke?x=1").unwrap();
        let request = request(&endpoint, Kind::Refresh, &SecretString::new("a+b&c".to_owned())).unwrap();
        assert_eq!(request.uri(), "https://id.example/revoke?x=1");
        assert_eq!(request.body(), b"token=a%2Bb%26c&token_type_hint=refresh_token");
        assert!(!request.headers().contains_key("authorization"));
    }
}
