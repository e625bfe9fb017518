//! Login transactions without a store: what lies between the authorization request and the callback.
//!
//! The browser holds one random secret in a cookie of constant size; `state` is a sealed record of the transaction; nonce
//! and PKCE verifier (RFC 7636) are derived from the server key, the browser secret and the transaction id. So any number
//! of tabs, any replica and any restart can finish any login, and nothing piles up anywhere.

mod reference;

use std::time::Duration;

use aws_lc_rs::constant_time;
use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::HeaderValue;
use moka::sync::Cache;
use openidconnect::{PkceCodeChallenge, PkceCodeVerifier};
use serde::{Deserialize, Serialize};

pub use self::reference::ReferenceError;
use self::reference::Referred;
use super::authorization::{AuthorizationError, AuthorizationRequest};
use super::{Party, Provider, Wish};
use crate::authn::session::cookie::CookieJar;
use crate::authn::session::seal::{KeyId, KeyRing, Purpose, Sealer};
use crate::clock::{SharedClock, UnixTime};
use crate::message::{Origin, OwnCookies};
use crate::random::random;

/// How long a person may take at the provider.
pub const LIFETIME: Duration = Duration::from_secs(600);
/// Sign-ins in one chain before the page that names the cause.
pub const MAX_ATTEMPTS: u8 = 3;
/// The browser's secret outlives the transaction, so that a late callback is told apart from a foreign one.
const COOKIE_LIFETIME: Duration = Duration::from_secs(3_600);
/// How long a finished sign-in counts as one of a chain.
const CHAIN_LIFETIME: Duration = Duration::from_secs(30);
/// The length of a browser secret in its cookie: 32 bytes in base64url.
const SECRET_LEN: usize = 43;

/// What `state` holds. Sealed, never compressed.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Started {
    transaction: [u8; 16],
    /// A digest of the browser's secret.
    browser: [u8; 16],
    /// The provider that it was started at.
    party: Party,
    started_at: UnixTime,
    attempts: u8,
    return_to: String,
    wish: Wish,
}

/// Starts and recognises logins.
#[derive(Debug)]
pub struct Logins {
    ring: KeyRing,
    sealer: Sealer<Started>,
    references: Sealer<Referred>,
    /// Transactions redeemed in this process.
    redeemed: Cache<[u8; 16], ()>,
    jar: CookieJar,
    clock: SharedClock,
}

/// A login that was started: where the browser goes, and what it has to keep.
#[derive(Debug)]
pub struct LoginStart {
    /// The authorization request.
    pub location: String,
    /// The browser's secret.
    pub cookie: HeaderValue,
}

/// What a callback's `state` turned out to be.
#[derive(Debug)]
pub enum Recognised {
    /// This browser's, in time, not redeemed here before.
    Fresh(Box<LoginTransaction>),
    /// Not to be redeemed; the person can be helped on.
    Stray {
        /// Where they wanted to go, when the seal says so.
        return_to: Option<String>,
        /// How many sign-ins this chain has seen.
        attempts: u8,
        /// Why.
        cause: StrayCause,
    },
}

/// Why a callback is not redeemed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StrayCause {
    /// `state` does not open: altered, or sealed under a key that is gone.
    Unreadable,
    /// Started more than [`LIFETIME`] ago.
    Stale,
    /// Started by another browser.
    OtherBrowser,
    /// The browser brought no login secret: cookies are off, or it took longer than the cookie lives.
    NoCookie,
    /// Redeemed before: a reload or the back button.
    Repeated,
    /// The provider says that the code is spent or expired.
    CodeSpent,
    /// The provider gave up on the login (its own page expired).
    ProviderRestart,
    /// Sign-ins succeed, but the session they make is not there on the next request.
    SessionLost,
    /// Sign-ins succeed, but are never strong or recent enough for what was asked for.
    NotSufficient,
}

impl StrayCause {
    /// The constant reason code for the log.
    pub fn code(self) -> &'static str {
        match self {
            Self::Unreadable => "state_unreadable",
            Self::Stale => "state_stale",
            Self::OtherBrowser => "state_other_browser",
            Self::NoCookie => "login_cookie_missing",
            Self::Repeated => "callback_repeated",
            Self::CodeSpent => "code_spent",
            Self::ProviderRestart => "provider_restart",
            Self::SessionLost => "session_lost",
            Self::NotSufficient => "not_sufficient",
        }
    }
}

/// A login that may be redeemed once. Only [`Logins::recognise`] makes one, and redeeming consumes it.
#[derive(Debug)]
pub struct LoginTransaction {
    started: Started,
    nonce: String,
    pkce_verifier: String,
}

/// What the answers of provider and token endpoint are held against.
#[derive(Debug)]
pub struct Redeemed {
    /// To be found in the ID token.
    pub nonce: String,
    /// For the token endpoint (RFC 7636 §4.5).
    pub pkce_verifier: String,
    /// What was asked for.
    pub wish: Wish,
}

/// What a sign-in starts with.
#[derive(Debug, Clone, Copy)]
pub struct Start<'a> {
    /// Where the person wants to go.
    pub return_to: &'a str,
    /// How many sign-ins this chain has seen.
    pub attempts: u8,
    /// What it asks for beyond the settings.
    pub wish: &'a Wish,
}

impl LoginTransaction {
    /// What was asked for.
    pub fn wish(&self) -> &Wish {
        &self.started.wish
    }

    /// Where the person wanted to go.
    pub fn return_to(&self) -> &str {
        &self.started.return_to
    }

    /// How many sign-ins this chain has seen.
    pub fn attempts(&self) -> u8 {
        self.started.attempts
    }

    /// Gives up the transaction for what its answer is held against.
    pub fn redeem(self) -> Redeemed {
        Redeemed { nonce: self.nonce, pkce_verifier: self.pkce_verifier, wish: self.started.wish }
    }
}

impl Logins {
    /// For one public origin.
    pub fn new(ring: KeyRing, origin: &Origin, jar: CookieJar, clock: SharedClock) -> Self {
        Self {
            sealer: ring.sealer(Purpose::Login, "state", origin),
            references: ring.sealer(Purpose::Request, "request_uri", origin),
            ring,
            jar,
            // Bounded: one that is pushed out can at worst be sent to the provider again, which refuses the spent code.
            redeemed: Cache::builder().max_capacity(100_000).time_to_live(LIFETIME).build(),
            clock,
        }
    }

    /// The time by which logins are measured.
    pub fn now(&self) -> UnixTime {
        self.clock.now()
    }

    /// Starts a login.
    ///
    /// # Errors
    /// [`AuthorizationError`].
    pub async fn start(
        &self,
        provider: &Provider,
        present: &OwnCookies,
        start: Start<'_>,
    ) -> Result<LoginStart, AuthorizationError> {
        let is_post = provider.settings().response_mode.is_post();
        let secret = self.browser_secret(present, is_post).unwrap_or_else(|| URL_SAFE_NO_PAD.encode(random::<32>()));
        let mut started = Started {
            transaction: random(),
            browser: browser_digest(&secret),
            party: provider.settings().party(),
            started_at: self.clock.now(),
            attempts: start.attempts,
            return_to: start.return_to.to_owned(),
            wish: start.wish.clone(),
        };
        // Once, unless the secrets are replaced in between.
        let (key, (nonce, verifier)) = loop {
            let key = self.ring.current();
            if let Some(derived) = self.derived(key, &secret, &started.transaction) {
                break (key, derived);
            }
        };
        // A derived value has the 43 characters that a verifier must have (RFC 7636 §4.1).
        let pkce_challenge = PkceCodeChallenge::from_code_verifier_sha256(&PkceCodeVerifier::new(verifier));
        let pkce_challenge = pkce_challenge.as_str();
        let reference = self.reference(provider, &mut started, (&nonce, pkce_challenge));
        let state = self.sealer.seal_under(key, &started);
        let reference = reference.as_deref();
        let asked = AuthorizationRequest { state: &state, nonce: &nonce, pkce_challenge, wish: start.wish, reference };
        let location = provider.authorization_url(asked).await?;
        let cookie = if is_post {
            self.jar.post().set(&secret, Some(LIFETIME))
        } else {
            self.jar.login().set(&secret, Some(COOKIE_LIFETIME))
        };
        Ok(LoginStart { location: location.into(), cookie })
    }

    /// Opens the `state` that came to the callback of `provider` and holds it against this browser. One that was started at
    /// another provider is none (the mix-up attack, RFC 9700 §4.4). A [`Recognised::Fresh`] counts as redeemed from here on.
    pub fn recognise(&self, provider: &Provider, state: &str, present: &OwnCookies) -> Recognised {
        let stray = |return_to, attempts, cause| Recognised::Stray { return_to, attempts, cause };
        let Ok((started, key)) = self.sealer.open(state.as_bytes()) else {
            return stray(None, 0, StrayCause::Unreadable);
        };
        let return_to = Some(started.return_to.clone());
        if started.party != provider.settings().party() {
            return stray(None, started.attempts, StrayCause::Unreadable);
        }
        let Some(secret) = self.browser_secret(present, provider.settings().response_mode.is_post()) else {
            return stray(return_to, started.attempts, StrayCause::NoCookie);
        };
        if constant_time::verify_slices_are_equal(&browser_digest(&secret), &started.browser).is_err() {
            return stray(return_to, started.attempts, StrayCause::OtherBrowser);
        }
        if self.clock.now().since(started.started_at) > LIFETIME {
            return stray(return_to, started.attempts, StrayCause::Stale);
        }
        if !self.redeemed.entry(started.transaction).or_insert(()).is_fresh() {
            return stray(return_to, started.attempts, StrayCause::Repeated);
        }
        match self.derived(key, &secret, &started.transaction) {
            Some((nonce, pkce_verifier)) => {
                Recognised::Fresh(Box::new(LoginTransaction { started, nonce, pkce_verifier }))
            }
            None => stray(return_to, started.attempts, StrayCause::Unreadable),
        }
    }

    /// A sign-in succeeded: counted for half a minute, so that a session that the browser does not keep ends on a page and
    /// not in a loop.
    pub fn succeeded(&self, attempts: u8) -> HeaderValue {
        self.jar.done().set(&attempts.saturating_add(1).to_string(), Some(CHAIN_LIFETIME))
    }

    /// How many sign-ins this browser has finished in a row without a session on the next request.
    pub fn finished_in_a_row(&self, present: &OwnCookies) -> u8 {
        let value = present.get(self.jar.done().name()).ok().flatten();
        value.and_then(|value| std::str::from_utf8(value).ok()?.parse().ok()).unwrap_or(0)
    }

    /// The secret that the browser brought, if it is one of ours by its shape.
    fn browser_secret(&self, present: &OwnCookies, is_post: bool) -> Option<String> {
        let cookie = if is_post { self.jar.post() } else { self.jar.login() };
        let value = present.get(cookie.name()).ok()??;
        let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_".contains(byte);
        let well_formed = value.len() == SECRET_LEN && value.iter().all(is_plain);
        well_formed.then(|| String::from_utf8_lossy(value).into_owned())
    }

    fn derived(&self, key: KeyId, secret: &str, transaction: &[u8; 16]) -> Option<(String, String)> {
        let value = |label: &[u8]| self.ring.derive(key, &[label, secret.as_bytes(), transaction]);
        Some((value(b"nonce")?, value(b"pkce verifier")?))
    }
}

fn browser_digest(secret: &str) -> [u8; 16] {
    let mut short = [0; 16];
    short.copy_from_slice(&digest(&SHA256, secret.as_bytes()).as_ref()[..16]);
    short
}
