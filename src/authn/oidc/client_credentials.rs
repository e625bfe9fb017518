//! Client credentials (RFC 6749 §4.4): an access token of our own for an upstream, that is fetched once and renewed ahead of its
//! end, while requests go on with the one before.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use http::HeaderValue;
use tokio::sync::Mutex;

use super::Provider;
use super::grant::{Granted, Wisher};
use super::token_endpoint::TokenError;
use crate::clock::UnixTime;
use crate::provider_http::ProviderHttpError;
use crate::telemetry::chain;

/// `[upstream.client_credentials]`, checked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    /// Index of the provider.
    pub provider: usize,
    /// `scope`; empty: none is asked for.
    pub scopes: Vec<String>,
    /// `resource` (RFC 8707 §2.2).
    pub resources: Vec<String>,
    /// `audience`, which some providers have in the place of `resource`.
    pub audience: Option<String>,
}

/// Why there is no token. Whoever waited for the same call gets the same error.
#[derive(Debug, Clone, thiserror::Error)]
#[error("no access token of our own is to be had for the upstream")]
pub struct OwnTokenError(#[source] Arc<TokenError>);

impl OwnTokenError {
    /// Whether it may be over soon: the provider is away or busy.
    pub fn is_passing(&self) -> bool {
        self.0.is_passing()
    }
}

/// A token as it goes into `Authorization`.
#[derive(Debug)]
pub struct Held {
    header: HeaderValue,
    obtained: UnixTime,
    renew_at: UnixTime,
    ends_at: UnixTime,
}

impl Held {
    fn new(granted: &Granted, obtained: UnixTime) -> Option<Self> {
        let mut header = HeaderValue::try_from(format!("Bearer {}", granted.access_token.expose_secret())).ok()?;
        header.set_sensitive(true);
        // Whoever waited has to find it good, so none lives for no time at all.
        let life = granted.life().max(Duration::from_secs(1));
        Some(Self {
            header,
            obtained,
            renew_at: obtained.after(life * 3 / 4).max(UnixTime(obtained.0 + 1)),
            // On its way it must not end.
            ends_at: obtained.after(life - (life / 4).min(ON_ITS_WAY)).max(UnixTime(obtained.0 + 1)),
        })
    }

    /// The field's value.
    pub fn header(&self) -> &HeaderValue {
        &self.header
    }
}

/// Our own token for one upstream; shared by all workers.
#[derive(Debug)]
pub struct OwnToken {
    provider: Arc<Provider>,
    settings: Settings,
    held: ArcSwapOption<Held>,
    is_renewing: AtomicBool,
    /// How the last call failed, if it did, and when; held while there is one.
    last_failure: Mutex<Option<(UnixTime, OwnTokenError)>>,
}

impl OwnToken {
    /// Nothing is fetched before somebody asks.
    pub fn new(provider: Arc<Provider>, settings: Settings) -> Arc<Self> {
        let (held, is_renewing, last_failure) = Default::default();
        Arc::new(Self { provider, settings, held, is_renewing, last_failure })
    }

    /// The token that there is, if it still holds; shortly before its end another one is fetched beside the request.
    pub fn held(self: &Arc<Self>) -> Option<Arc<Held>> {
        let now = self.now();
        let held = self.held.load_full().filter(|held| now < held.ends_at)?;
        if now >= held.renew_at && !self.is_renewing.swap(true, Ordering::Relaxed) {
            let this = Arc::clone(self);
            self.provider.knowledge.http.control().spawn(async move {
                // Whether it worked or not: it is logged, and the next request sees.
                let _ = this.fetch().await;
                this.is_renewing.store(false, Ordering::Relaxed);
            });
        }
        Some(held)
    }

    /// A token that is fetched now, by one call however many wait for it.
    ///
    /// # Errors
    /// [`OwnTokenError`]; for [`AFTER_FAILURE`] everybody gets the same.
    pub async fn fetched(self: &Arc<Self>) -> Result<Arc<Held>, OwnTokenError> {
        let this = Arc::clone(self);
        // On a task of its own: when the client that caused the call goes away, the others still get its result.
        let fetching = self.provider.knowledge.http.control().spawn(async move { this.fetch().await });
        let lost = |lost| {
            let lost = ProviderHttpError::Unreachable(Box::new(lost));
            Err(OwnTokenError(Arc::new(TokenError::Http(lost))))
        };
        fetching.await.unwrap_or_else(lost)
    }

    /// The upstream does not take `used`, which may have been revoked: the next request fetches another one. Not for a token
    /// that is new, since that would be no better.
    pub fn doubt(&self, used: &Arc<Held>) {
        if self.now().since(used.obtained) < LEAST_USE {
            return;
        }
        self.held.rcu(|held| held.clone().filter(|held| !Arc::ptr_eq(held, used)));
    }

    async fn fetch(&self) -> Result<Arc<Held>, OwnTokenError> {
        let mut last_failure = self.last_failure.lock().await;
        let obtained = self.now();
        if let Some(held) = self.held.load_full().filter(|held| obtained < held.renew_at) {
            return Ok(held);
        }
        // A clock that was set back must not put the next call off.
        let is_recent = |at: UnixTime| at <= obtained && obtained.since(at) < AFTER_FAILURE;
        if let Some((_, error)) = last_failure.as_ref().filter(|(at, _)| is_recent(*at)) {
            return Err(error.clone());
        }
        let outcome = self.ask().await.and_then(|granted| {
            Held::new(&granted, obtained).map(Arc::new).ok_or(TokenError::Response { field: "access_token" })
        });
        match outcome {
            Ok(held) => {
                *last_failure = None;
                self.held.store(Some(Arc::clone(&held)));
                Ok(held)
            }
            Err(error) => {
                let (provider, cause) = (&self.provider.settings().id, chain(&error));
                tracing::warn!(%provider, cause, "the client credentials gave no access token for an upstream");
                let error = OwnTokenError(Arc::new(error));
                // Counted from its end, so that whoever waited through a timeout does not begin another.
                *last_failure = Some((self.now(), error.clone()));
                Err(error)
            }
        }
    }

    /// §4.4.2.
    async fn ask(&self) -> Result<Granted, TokenError> {
        let Settings { scopes, resources, audience, .. } = &self.settings;
        let scope = scopes.join(" ");
        let scope = Some(("scope", scope.as_str())).filter(|(_, scope)| !scope.is_empty());
        let resources = resources.iter().map(|resource| ("resource", resource.as_str()));
        let audience = audience.iter().map(|audience| ("audience", audience.as_str()));
        let parameters: Vec<_> = scope.into_iter().chain(resources).chain(audience).collect();
        self.provider.grant("client_credentials", &parameters, Wisher::Ourselves).await
    }

    fn now(&self) -> UnixTime {
        self.provider.knowledge.clock.now()
    }
}

/// How long before its end no request sets out with a token any more, at most.
const ON_ITS_WAY: Duration = Duration::from_secs(10);

/// How long a failed call answers for the next ones.
pub const AFTER_FAILURE: Duration = Duration::from_secs(2);

/// How long a token is used whatever the upstream says.
const LEAST_USE: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::SecretString;

    #[test]
    fn a_token_is_renewed_in_its_last_quarter_and_never_used_at_its_end() {
        let times = |seconds: Option<u64>| {
            let granted = Granted {
                access_token: SecretString::new("a".to_owned()),
                expires_in: seconds.map(Duration::from_secs),
                refresh_token: None,
                id_token: None,
                scope: None,
            };
            let held = Held::new(&granted, UnixTime(1000)).unwrap();
            assert!(held.header.is_sensitive() && held.renew_at <= held.ends_at);
            (held.renew_at.0 - 1000, held.ends_at.0 - 1000)
        };
        assert_eq!(times(Some(300)), (225, 290));
        assert_eq!(times(Some(20)), (15, 15));
        assert_eq!(times(None), (45, 50));
        for short in [0, 1] {
            assert_eq!(times(Some(short)), (1, 1), "whoever waited for it uses it");
        }
    }
}
