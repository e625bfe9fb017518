//! What is known of a provider at the moment (metadata and keys), and how it is kept fresh.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use tokio::sync::{Mutex, Notify, watch};
use tokio::time::{sleep, timeout};

use super::discovery::{self, DiscoveryError, Metadata};
use super::jwks::{self, JwksError, KeySet};
use super::registration::Registrar;
use super::settings::Settings;
use super::signed_jwks::{self, HeldAgainst};
use super::static_metadata::KeySource;
use crate::clock::{SharedClock, UnixTime};
use crate::files::Digest;
use crate::provider_http::ProviderHttp;
use crate::telemetry::chain;

/// Metadata, keys and the client that we are, of one moment.
#[derive(Debug, Clone)]
pub(super) struct Known {
    /// With the credentials of today.
    pub(super) settings: Arc<Settings>,
    pub(super) metadata: Arc<Metadata>,
    pub(super) keys: Arc<KeySet>,
    fetched_at: UnixTime,
    /// When the keys were asked for: whatever signed a token before is among them.
    asked_at: Instant,
    /// When the registration has to be looked at again.
    due_in: Option<Duration>,
}

/// How it went since the last success.
#[derive(Debug, Default)]
pub(super) struct Trouble {
    failures: u32,
    /// The last time it said no, which it will say again.
    is_refusal: bool,
    /// What was logged last: the advice, and whether sign-ins still worked.
    told: Option<(&'static str, bool)>,
}

/// The changing part of a provider.
pub(super) struct Knowledge {
    /// As they are written: of a client that registers itself, without its credentials.
    pub(super) settings: Arc<Settings>,
    registrar: Option<Registrar>,
    pub(super) http: ProviderHttp,
    pub(super) clock: SharedClock,
    known: ArcSwapOption<Known>,
    last_error: ArcSwapOption<DiscoveryError>,
    /// Somebody waits for the provider.
    wanted: Notify,
    /// Told after each try.
    tried: watch::Sender<()>,
    /// The last fetch of keys because of a token, for each kind of asker; held while they are fetched.
    last_refetch: [Mutex<Option<Refetch>>; 4],
}

/// Whose token needs newer keys. Each has turns of its own: what strangers send never keeps a sign-in from its keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asker {
    /// A token that the provider gave us for a code or another token of its own. No stranger can make one up, so each may have
    /// the keys asked for, however often they change; those that come at once share one call.
    SignIn,
    /// What came through a browser: an ID token beside a code, or a signed answer.
    Answer,
    /// A logout token.
    Logout,
    /// An access token that came with a request.
    Stranger,
}

/// One fetch of keys because of a token.
#[derive(Debug, Clone, Copy)]
struct Refetch {
    at: UnixTime,
    began: Instant,
    failed: bool,
}

/// The least time between two such fetches when the last one brought nothing: short, because people wait for the provider
/// to be back.
const AFTER_FAILURE: Duration = Duration::from_secs(2);

/// Of files that are looked at; `None` where there are none.
type Digests = (Option<Digest>, Option<[Digest; 2]>);

/// How long somebody waits for a provider that is not known: until the next try has been made.
const LONGEST_WAIT: Duration = Duration::from_millis(1_500);
/// How soon after a try that failed the next one is made, however many wait for it: anybody can have us ask.
const SHORTEST_PAUSE: Duration = Duration::from_secs(1);
/// How long nobody asks who does not wait, after many tries that failed.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// How often files are looked at.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

impl Knowledge {
    pub(super) fn new(settings: Settings, http: ProviderHttp, clock: SharedClock) -> Self {
        let registrar = settings.registration.as_ref().map(|registration| Registrar::new(registration, &settings));
        Self {
            settings: Arc::new(settings),
            registrar,
            http,
            clock,
            known: ArcSwapOption::empty(),
            last_error: ArcSwapOption::empty(),
            wanted: Notify::new(),
            tried: watch::Sender::new(()),
            last_refetch: Default::default(),
        }
    }

    /// The last that was known, however old.
    pub(super) fn known(&self) -> Option<Arc<Known>> {
        self.known.load_full()
    }

    /// The last that was known, unless its keys are too old.
    pub(super) fn usable(&self) -> Option<Arc<Known>> {
        self.known().filter(|known| self.is_usable(known))
    }

    /// Whether its keys are young enough.
    pub(super) fn is_usable(&self, known: &Known) -> bool {
        self.clock.now().since(known.fetched_at) <= self.settings.stale_keys
    }

    pub(super) fn last_error(&self) -> Option<Arc<DiscoveryError>> {
        self.last_error.load_full()
    }

    /// Fetches the keys again, unless somebody else just has, and says what is known then; `None` when nothing newer is.
    ///
    /// However many ask, there is one call at a time, and those who wait share its result. For all but [`Asker::SignIn`] there is
    /// one per `key_refetch_interval` (one in two seconds while the provider gives no keys).
    pub(super) async fn newer_keys_than(self: &Arc<Self>, seen: &Arc<Known>, asker: Asker) -> Option<Arc<Known>> {
        let came = Instant::now();
        let this = Arc::clone(self);
        let before = Arc::clone(seen);
        // On a task of its own: when the client that caused the fetch goes away, the others still get its result.
        let fetching = self.http.control().spawn(async move { this.refetch_keys(&before, asker, came).await });
        if fetching.await.is_err() {
            return None;
        }
        self.known().filter(|known| !Arc::ptr_eq(known, seen))
    }

    /// For a token that `came` when those keys were `seen`.
    async fn refetch_keys(&self, seen: &Arc<Known>, asker: Asker, came: Instant) {
        let mut last_refetch = self.last_refetch[asker as usize].lock().await;
        // Keys that were asked for before the token came may be older than it is.
        let is_newer =
            |known: &Arc<Known>| !Arc::ptr_eq(known, seen) && (asker != Asker::SignIn || known.asked_at >= came);
        let answers = |last: Refetch| last.began >= came || (asker != Asker::SignIn && self.is_too_soon(last));
        if self.known().as_ref().is_some_and(is_newer) || last_refetch.is_some_and(answers) {
            return;
        }
        let began = Instant::now();
        *last_refetch = Some(Refetch { at: self.clock.now(), began, failed: false });
        match self.fetch_keys(&seen.settings, &seen.metadata).await {
            Ok(keys) => self.put_keys(Arc::new(keys), began),
            Err(error) => {
                // Counted from its end, so that whoever waited through a timeout does not begin another.
                *last_refetch = Some(Refetch { at: self.clock.now(), began, failed: true });
                tracing::warn!(error = chain(&error), "keys could not be fetched for a token with an unknown one");
            }
        }
    }

    fn is_too_soon(&self, last: Refetch) -> bool {
        let (now, interval) = (self.clock.now(), self.settings.key_refetch_interval);
        let pause = if last.failed { interval.min(AFTER_FAILURE) } else { interval };
        // A clock that was set back must not put the next fetch off.
        last.at <= now && now.since(last.at) < pause
    }

    /// A background refresh may have put newer metadata here meanwhile, which stay, and so do keys that were asked for later.
    fn put_keys(&self, keys: Arc<KeySet>, asked_at: Instant) {
        let fetched_at = self.clock.now();
        self.known.rcu(|known| {
            let known = known.as_ref()?;
            if known.asked_at > asked_at {
                return Some(Arc::clone(known));
            }
            Some(Arc::new(Known { keys: Arc::clone(&keys), fetched_at, asked_at, ..Known::clone(known) }))
        });
    }

    /// In the place of what was known before, unless its keys were asked for later.
    fn put(&self, fresh: &Known) {
        self.known.rcu(|known| {
            let mut fresh = fresh.clone();
            if let Some(known) = known.as_ref().filter(|known| known.asked_at > fresh.asked_at) {
                fresh.keys = Arc::clone(&known.keys);
                (fresh.fetched_at, fresh.asked_at) = (known.fetched_at, known.asked_at);
            }
            Some(Arc::new(fresh))
        });
    }

    /// Never ends; drop it to stop.
    pub(super) async fn keep_fresh(&self) {
        let mut trouble = Trouble::default();
        loop {
            // Before, so that no change falls between.
            let digests = self.digests();
            let pause = self.keep_fresh_once(&mut trouble).await;
            self.tried.send_replace(());
            let is_due = async {
                match digests {
                    (None, None) => sleep(pause).await,
                    digests => drop(timeout(pause, self.changed_since(digests)).await),
                }
            };
            tokio::select! {
                () = is_due => {}
                () = self.is_wanted(), if self.usable().is_none() && !trouble.is_refusal => {}
            }
        }
    }

    /// Until somebody waits for a provider that is not known.
    async fn is_wanted(&self) {
        sleep(jittered(SHORTEST_PAUSE)).await;
        self.wanted.notified().await;
    }

    /// What is known, or what the next try brings, which is made now: whoever comes first after an outage need not come again.
    pub(super) async fn usable_soon(&self) -> Option<Arc<Known>> {
        if let Some(known) = self.usable() {
            return Some(known);
        }
        let mut tried = self.tried.subscribe();
        self.wanted.notify_one();
        // Whether it came to a try or not: what is known then, counts.
        let _ = timeout(LONGEST_WAIT, tried.changed()).await;
        self.usable()
    }

    /// Of the file of keys, of the registration, which another process may renew, and of our own keys that are registered.
    fn digests(&self) -> Digests {
        let keys = self.settings.metadata.keys.as_ref().and_then(KeySource::digest);
        (keys, self.registrar.as_ref().map(|registrar| registrar.digests(&self.settings)))
    }

    /// Until one of the files holds something else. Looked at whole, as every file is: they are small.
    async fn changed_since(&self, digests: Digests) {
        while self.digests() == digests {
            sleep(LOOK_AGAIN).await;
        }
    }

    async fn fetch_keys(&self, settings: &Settings, metadata: &Metadata) -> Result<KeySet, JwksError> {
        if let Some(source) = &settings.metadata.key_set_keys {
            let keys = source.read()?;
            let uri = metadata.signed_jwks_uri.as_ref().ok_or(JwksError::NotSigned)?;
            let (algorithms, leeway) = (settings.security.profile.algorithms(), settings.clock_skew.as_secs());
            let (issuer, now) = (settings.issuer.as_str(), self.clock.now());
            return signed_jwks::fetch(&self.http, uri, HeldAgainst { keys: &keys, algorithms, issuer, leeway, now })
                .await;
        }
        match (&settings.metadata.keys, &metadata.jwks_uri) {
            (Some(source), _) => source.read(),
            (None, Some(jwks_uri)) => jwks::fetch(&self.http, jwks_uri).await,
            // Metadata without it are read only where keys are stated.
            (None, None) => Err(JwksError::NotAKeySet),
        }
    }

    /// One try, and how long to wait for the next.
    pub(super) async fn keep_fresh_once(&self, trouble: &mut Trouble) -> Duration {
        match self.refresh().await {
            Ok(fresh) => {
                *trouble = Trouble::default();
                let pause = jittered(self.settings.refresh_interval);
                let pause = fresh.due_in.map_or(pause, |due| due.min(pause));
                self.note_success(fresh);
                pause
            }
            Err(error) => {
                trouble.failures = trouble.failures.saturating_add(1);
                trouble.is_refusal = matches!(&error, DiscoveryError::Registration(error) if error.is_refusal());
                self.note_failure(error, &mut trouble.told);
                jittered(self.pause_after(trouble.failures, trouble.is_refusal))
            }
        }
    }

    async fn refresh(&self) -> Result<Known, DiscoveryError> {
        let metadata = discovery::fetch(&self.http, &self.settings).await?;
        let now = self.clock.now();
        let (settings, due_in) = match &self.registrar {
            None => (Arc::clone(&self.settings), None),
            Some(registrar) => {
                let kept = registrar.ensure(&self.http, &self.settings, &metadata, now).await;
                let kept = kept.map_err(DiscoveryError::Registration)?;
                (kept.settings(&self.settings), kept.due_in(now))
            }
        };
        // ID tokens that are signed with the secret need no keys; once something else did, they are kept fresh.
        let needs_keys = !settings.is_symmetric() || self.known().is_some_and(|known| !known.keys.is_empty());
        let asked_at = Instant::now();
        let keys = match needs_keys {
            true => self.fetch_keys(&settings, &metadata).await.map_err(DiscoveryError::Keys)?,
            false => KeySet::default(),
        };
        let (metadata, keys) = (Arc::new(metadata), Arc::new(keys));
        Ok(Known { settings, metadata, keys, fetched_at: self.clock.now(), asked_at, due_in })
    }

    fn note_success(&self, fresh: Known) {
        let is_first = self.known().is_none();
        let was_failing = self.last_error.swap(None).is_some();
        let issuer = &self.settings.issuer;
        if is_first {
            let unprotected = fresh.metadata.unprotected();
            if !unprotected.is_empty() {
                tracing::warn!(%issuer, endpoints = ?unprotected, "tokens travel unencrypted (allow_insecure_http)");
            }
        }
        let denied = |known: &Known| known.metadata.supports(&known.settings).err();
        let now_denied = denied(&fresh);
        if let Some(unsupported) = &now_denied
            && self.known().and_then(|before| denied(&before)) != now_denied
        {
            let fix = "write what the provider offers, or switch it on there";
            tracing::warn!(%issuer, %unsupported, fix, "the provider is available; nobody can sign in");
        }
        self.put(&fresh);
        match (is_first, was_failing) {
            (true, _) => tracing::info!(%issuer, "the provider is available"),
            (false, true) => tracing::info!(%issuer, "the provider is available again"),
            (false, false) => tracing::debug!(%issuer, "metadata and keys of the provider are fresh"),
        }
    }

    /// The same trouble again is no news; another one is, and so is that nobody can sign in any more.
    fn note_failure(&self, error: DiscoveryError, told: &mut Option<(&'static str, bool)>) {
        let (fix, usable) = (error.fix(), self.usable().is_some());
        let error = Arc::new(error);
        self.last_error.store(Some(Arc::clone(&error)));
        if told.replace((fix, usable)) == Some((fix, usable)) {
            return;
        }
        let issuer = &self.settings.issuer;
        let error = chain(&*error);
        if usable {
            tracing::warn!(%issuer, error, fix, "the provider is not available; what was known before is used on");
        } else {
            tracing::warn!(%issuer, error, fix, "the provider is not available; nobody can sign in");
        }
    }

    /// Quick at first, since people wait; with something known, patient.
    fn pause_after(&self, failures: u32, is_refusal: bool) -> Duration {
        // Whoever does not register us now will not in a second; the operator has to do something.
        if is_refusal {
            return Duration::from_secs(1 << failures.min(8));
        }
        if self.usable().is_some() {
            return self.settings.refresh_interval.min(Duration::from_secs(60));
        }
        SHORTEST_PAUSE.saturating_mul(1 << failures.clamp(1, 8).saturating_sub(1)).min(LONGEST_PAUSE)
    }
}

impl std::fmt::Debug for Knowledge {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Knowledge")
            .field("settings", &self.settings)
            .field("known", &self.known)
            .finish_non_exhaustive()
    }
}

/// ±10 %, so that replicas do not ask in step.
fn jittered(interval: Duration) -> Duration {
    let mut random = [0_u8; 2];
    // Without randomness the interval is exact, which does no harm.
    let share = match aws_lc_rs::rand::fill(&mut random) {
        Ok(()) => f64::from(u16::from_le_bytes(random)) / f64::from(u16::MAX),
        Err(_) => 0.5,
    };
    interval.mul_f64(0.9 + 0.2 * share)
}
