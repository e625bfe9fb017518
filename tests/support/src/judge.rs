//! What stories ask again and again: whether somebody is signed in, and whether something is so at last.

use std::time::{Duration, Instant};

use http::StatusCode;

use crate::browser::{Browser, Reply};
use crate::stage::Stage;

/// How long [`until`] waits.
const PATIENCE: Duration = Duration::from_secs(20);

impl Stage {
    /// Whether the reply sends the browser to sign in.
    pub fn asks_to_sign_in(&self, reply: &Reply) -> bool {
        reply.status == StatusCode::FOUND && reply.location().as_str().starts_with(&self.provider.issuer())
    }

    /// A script of this browser gets through to the application.
    ///
    /// # Panics
    /// When it does not.
    pub async fn assert_signed_in(&self, browser: &Browser) {
        let reply = browser.fetch(&self.url("/")).await;
        assert_eq!(reply.status, StatusCode::OK, "{}", reply.text());
    }

    /// A navigation of this browser is sent to sign in, and the application does not hear of it.
    ///
    /// # Panics
    /// When it is not.
    pub async fn assert_signed_out(&self, browser: &Browser) {
        self.upstream.forget();
        let reply = browser.get(&self.url("/")).await;
        assert!(self.asks_to_sign_in(&reply), "{} {}", reply.status, reply.text());
        self.upstream.assert_untouched();
    }

    /// The session of this browser was ended by somebody else, and the application does not hear of it.
    ///
    /// # Panics
    /// When it was not.
    pub async fn assert_ended(&self, browser: &Browser) {
        self.upstream.forget();
        let reply = browser.fetch(&self.url("/")).await;
        assert_eq!((reply.status, &reply.json()["code"]), (StatusCode::UNAUTHORIZED, &"session_ended".into()));
        self.upstream.assert_untouched();
    }
}

/// Polls until `is_so`.
///
/// # Panics
/// When that takes longer than 20 s.
pub async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !is_so().await {
        assert!(Instant::now() < end, "waited for {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
