//! Dynamic client registration (RFC 7591, OpenID Connect Dynamic Client Registration 1.0) and its management (RFC 7592): we
//! register ourselves, keep the registration, renew it before its secret expires and change it when our addresses do.
//!
//! Not by the library: its answer fails on any member of forty, and it has nothing of RFC 7592.

mod file;
mod message;
mod wanted;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};
use tokio::sync::Mutex;
use url::Url;

pub(super) use self::file::Kept;
use self::file::StateFile;
use super::client_auth::ClientAuthMethod;
use super::client_keys::{ClientKeys, KeyFileError};
use super::discovery::Metadata;
use super::settings::{Credentials, Settings};
use crate::clock::UnixTime;
use crate::files::Digest;
use crate::provider_http::{ProviderHttp, ProviderHttpError, WrongMediaType};
use crate::telemetry::chain;

/// How we register ourselves.
#[derive(Debug, Clone)]
pub struct RegistrationSettings {
    /// Where the registration is kept.
    pub state_dir: PathBuf,
    /// A file with the initial access token (RFC 7591 §3), where the provider wants one.
    pub token_file: Option<PathBuf>,
    /// What the provider shows people as our name.
    pub client_name: Option<String>,
    /// Registered without a secret.
    pub is_public: bool,
    /// Where a third party starts a sign-in (Core §4); `None` where that is switched off.
    pub initiate_login_uri: Option<Url>,
    /// Our public keys; `None` where they are not published.
    pub jwks_uri: Option<Url>,
    /// Where the provider ends sessions (Back-Channel Logout §2.2); `None` where that is switched off.
    pub backchannel_logout_uri: Option<Url>,
    /// The same in a frame (Front-Channel Logout §2).
    pub frontchannel_logout_uri: Option<Url>,
    /// Grants that the client uses beside that of people's sign-ins.
    pub further_grants: Vec<&'static str>,
}

/// Why we are not registered.
#[derive(Debug, thiserror::Error)]
pub enum RegistrationError {
    /// The metadata name no registration endpoint.
    #[error("the provider offers no dynamic client registration")]
    NotOffered,
    /// The call failed.
    #[error("the registration endpoint could not be asked")]
    Http(#[source] ProviderHttpError),
    /// A status that is no answer of a registration endpoint.
    #[error("the provider answered the registration with status {0}")]
    Status(u16),
    /// RFC 7591 §3.2.2.
    #[error("the provider refused the registration with {error:?}: {description:?}")]
    Refused {
        /// The code, cut to 64 characters.
        error: String,
        /// Cut to 256 characters.
        description: String,
    },
    /// A success that is not JSON by its content type.
    #[error("the answer to the registration cannot be read")]
    MediaType(#[from] WrongMediaType),
    /// What came back cannot be used.
    #[error("the registration's {field} is missing or unusable")]
    Answer {
        /// The member.
        field: &'static str,
    },
    /// The file of the registration, or that of the initial access token.
    #[error("{} cannot be used", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file holds no registration of ours.
    #[error("{} holds no registration with this provider", .0.display())]
    Garbage(PathBuf),
    /// Our keys, which are registered with us.
    #[error(transparent)]
    Keys(#[from] KeyFileError),
    /// Somebody else holds the lock.
    #[error("{} has been locked for a minute", .0.display())]
    Locked(PathBuf),
}

impl RegistrationError {
    /// What the operator can do about it.
    pub fn fix(&self) -> &'static str {
        match self {
            Self::NotOffered => "register a client by hand and write its client_id, or switch registration on there",
            Self::Http(_) => {
                "look at the provider's registration_endpoint and the network; it is tried again by itself"
            }
            Self::Status(401 | 403) => {
                "the provider lets only those register who have an initial access token: name its file in \
                 registration_token_file"
            }
            Self::Status(_) => "look into the provider's own log; it is tried again by itself",
            Self::Refused { .. } => "the provider's words name what it does not accept; it is tried again by itself",
            Self::Answer { field: "token_endpoint_auth_method" } => {
                "the provider registers another way of client authentication than client_auth_method, or one that needs \
                 what is not there: write the one that it takes; it is tried again in an hour"
            }
            Self::MediaType(_) | Self::Answer { .. } => {
                "the provider must answer as RFC 7591 §3.2.1 says, with what the settings allow; it is tried again by itself, \
                 after an hour where each try makes a client"
            }
            Self::Keys(_) => "look at client_keys_files, and whether this process may read them",
            Self::File { .. } => "look at state_dir and registration_token_file, and whether this process may use them",
            Self::Garbage(_) => {
                "move the file aside to register anew; the client that it was for stays at the provider"
            }
            Self::Locked(_) => "look for another process with the same state_dir that hangs",
        }
    }

    /// Whether the provider has said no: asking again soon changes nothing.
    pub(super) fn is_refusal(&self) -> bool {
        !matches!(self, Self::Http(_) | Self::Status(500..) | Self::Locked(_))
    }

    /// Whether the provider may have made a client of it.
    fn was_asked(&self) -> bool {
        matches!(
            self,
            Self::Http(_) | Self::Status(_) | Self::Refused { .. } | Self::MediaType(_) | Self::Answer { .. }
        )
    }
}

const METHOD: &str = "token_endpoint_auth_method";

/// Keeps us registered at one provider.
#[derive(Debug)]
pub(super) struct Registrar {
    settings: RegistrationSettings,
    file: StateFile,
    state: Mutex<State>,
}

/// What is to be registered, and where.
struct Registration<'a> {
    http: &'a ProviderHttp,
    provider: &'a Settings,
    metadata: &'a Metadata,
    wanted: Map<String, Value>,
    now: UnixTime,
}

/// What was asked for last and did not come about, and when.
#[derive(Debug)]
struct Failed {
    wanted: Map<String, Value>,
    error: Arc<RegistrationError>,
    at: UnixTime,
    /// In a row.
    times: u32,
    /// Whether the provider made a client all the same.
    is_unusable: bool,
}

/// How long the same is not asked for again where the provider made a client that we cannot use: each time makes another.
const AFTER_UNUSABLE: Duration = Duration::from_secs(3600);
/// How long it is not asked for again after many failures, whoever waits for it.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

impl Failed {
    /// Whether it is too soon to ask for the same again.
    fn counts(&self, wanted: &Map<String, Value>, now: UnixTime) -> bool {
        // A clock that was set back must not put it off.
        self.wanted == *wanted && self.at <= now && now.since(self.at) < self.pause()
    }

    fn pause(&self) -> Duration {
        match self.is_unusable {
            true => AFTER_UNUSABLE,
            false => Duration::from_secs(1 << self.times.clamp(1, 7).saturating_sub(1)).min(LONGEST_PAUSE),
        }
    }
}

#[derive(Debug, Default)]
struct State {
    failed: Option<Failed>,
    /// The last call made a client that cannot be used; a change makes none.
    is_unusable: bool,
    /// Made at the provider, but not written yet: never made twice because of a full disk.
    unsaved: Option<Kept>,
    told: Option<&'static str>,
}

impl Registrar {
    pub(super) fn new(settings: &RegistrationSettings, provider: &Settings) -> Self {
        let file = StateFile::new(&settings.state_dir, &provider.id, &provider.issuer);
        Self { settings: settings.clone(), file, state: Mutex::default() }
    }

    /// What the file holds now, and the files of the keys that are registered.
    pub(super) fn digests(&self, provider: &Settings) -> [Digest; 2] {
        [self.file.digest(), ClientKeys::digest(&provider.security.key_files)]
    }

    /// The registration that is good now: the kept one, or a new one. While an old one can still be used, failing to renew
    /// it is told and nothing more. However often this is asked, the provider is asked again only after a pause that grows: every
    /// time may make another client there.
    pub(super) async fn ensure(
        &self,
        http: &ProviderHttp,
        provider: &Settings,
        metadata: &Metadata,
        now: UnixTime,
    ) -> Result<Kept, Arc<RegistrationError>> {
        let mut state = self.state.lock().await;
        let files = provider.security.key_files.clone();
        let keys = match files.is_empty() {
            true => None,
            false => {
                let read = tokio::task::spawn_blocking(move || ClientKeys::read(&files)).await;
                // Only a runtime that is shutting down loses its tasks.
                Some(read.unwrap_or_else(|_| Ok(ClientKeys::default())).map_err(RegistrationError::from)?)
            }
        };
        let wanted = wanted::metadata(&self.settings, provider, metadata, keys.as_ref());
        // Held until the end: of two processes with one folder, the second finds what the first has written.
        let _lock = self.file.lock().await?;
        let kept = match state.unsaved.take() {
            Some(unsaved) => Some(self.save(&mut state, unsaved)?),
            None => self.file.read(provider)?,
        };
        let is_as_wanted = kept.as_ref().is_some_and(|kept| kept.metadata == wanted);
        let kept = match kept {
            Some(kept) if is_as_wanted && !kept.is_due(now, provider.refresh_interval) => return Ok(kept),
            kept => kept,
        };
        let last = state.failed.as_ref().filter(|last| last.counts(&wanted, now));
        let asked = match last.map(|last| Arc::clone(&last.error)) {
            Some(error) => Err(error),
            None => {
                let registration = Registration { http, provider, metadata, wanted: wanted.clone(), now };
                let asked = match &kept {
                    Some(kept) => self.change(registration, kept, &mut state).await,
                    None => self.register(registration, &mut state).await,
                };
                asked.map_err(|error| state.failed_with(error, wanted, now))
            }
        };
        match (asked, kept) {
            (Err(error), Some(kept)) if is_as_wanted && kept.is_alive(now) => {
                let fix = error.fix();
                if state.told.replace(fix) != Some(fix) {
                    let (issuer, error) = (&provider.issuer, chain(&error));
                    tracing::warn!(%issuer, error, fix, "the registration could not be renewed; the old one is used on");
                }
                Ok(kept)
            }
            (asked, _) => asked,
        }
    }

    /// RFC 7592 §2.2 where the provider lets us, else anew.
    async fn change(
        &self,
        registration: Registration<'_>,
        kept: &Kept,
        state: &mut State,
    ) -> Result<Kept, RegistrationError> {
        let Registration { http, provider, ref wanted, now, .. } = registration;
        if let Some(request) = message::update(kept, wanted, provider)? {
            let answer = http.send(request).await.map_err(RegistrationError::Http)?;
            match message::read_answer(&answer, wanted.clone(), provider, now) {
                Ok(changed) => {
                    // RFC 7592 §2.2: what the answer leaves out stays as it was.
                    let changed = changed.completed_by(kept);
                    if !changed.is_due(now, provider.refresh_interval) {
                        tracing::info!(issuer = %provider.issuer, "the registration at the provider was changed");
                        return self.save(state, changed);
                    }
                }
                // The client or its token is gone there (RFC 7592 §2.2, §2.1): another one is due.
                Err(RegistrationError::Status(401 | 403 | 404 | 405)) => {}
                Err(error) => return Err(error),
            }
        }
        self.register(registration, state).await
    }

    async fn register(&self, registration: Registration<'_>, state: &mut State) -> Result<Kept, RegistrationError> {
        let Registration { http, provider, metadata, wanted, now } = registration;
        let endpoint = metadata.registration_endpoint.as_ref().ok_or(RegistrationError::NotOffered)?;
        // Before the provider is asked: a client that cannot be kept is not to be made.
        self.file.probe()?;
        let token = self.settings.token_file.as_deref().map(file::read_token).transpose()?;
        let request = message::register(endpoint, &wanted, token.as_ref())?;
        let answer = http.send(request).await.map_err(RegistrationError::Http)?;
        let kept = message::read_answer(&answer, wanted, provider, now);
        state.is_unusable = matches!(kept, Err(RegistrationError::Answer { .. }));
        let kept = kept?;
        let (issuer, client_id) = (&provider.issuer, &kept.credentials.client_id);
        tracing::info!(%issuer, client_id, "registered as a client at the provider");
        self.save(state, kept)
    }

    fn save(&self, state: &mut State, kept: Kept) -> Result<Kept, RegistrationError> {
        if let Err(error) = self.file.write(&kept) {
            state.unsaved = Some(kept);
            return Err(error);
        }
        (state.told, state.failed) = (None, None);
        Ok(kept)
    }
}

impl State {
    fn failed_with(
        &mut self,
        error: RegistrationError,
        wanted: Map<String, Value>,
        now: UnixTime,
    ) -> Arc<RegistrationError> {
        let (error, is_unusable) = (Arc::new(error), std::mem::take(&mut self.is_unusable));
        if error.was_asked() {
            let before = self.failed.take().filter(|last| last.wanted == wanted);
            let times = before.map_or(0, |last| last.times).saturating_add(1);
            self.failed = Some(Failed { wanted, error: Arc::clone(&error), at: now, times, is_unusable });
        }
        error
    }
}

impl Kept {
    /// Whether the secret still works (RFC 7591 §3.2.1).
    fn is_alive(&self, now: UnixTime) -> bool {
        self.expires_at.is_none_or(|end| now < end)
    }

    /// Whether the secret expires before it would be looked at three more times, or has a tenth of its life left.
    fn is_due(&self, now: UnixTime, refresh_interval: Duration) -> bool {
        let Some(end) = self.expires_at else { return false };
        let life = end.since(self.registered_at);
        let margin = (refresh_interval * 3).max(life / 10).min(life / 2);
        now >= end.before(margin)
    }

    /// How long until it has to be looked at again.
    pub(super) fn due_in(&self, now: UnixTime) -> Option<Duration> {
        let end = self.expires_at?;
        Some((end.since(now) / 4).max(Duration::from_secs(1)))
    }

    fn completed_by(mut self, before: &Self) -> Self {
        if self.token.is_none() || self.client_uri.is_none() {
            (self.token, self.client_uri) = (before.token.clone(), before.client_uri.clone());
        }
        if self.credentials.client_secret.is_none() && self.credentials.client_id == before.credentials.client_id {
            self.credentials.client_secret.clone_from(&before.credentials.client_secret);
            self.expires_at = before.expires_at;
            self.registered_at = before.registered_at;
        }
        self
    }

    /// The settings of this client.
    pub(super) fn settings(&self, provider: &Settings) -> Arc<Settings> {
        let Credentials { client_id, client_secret } = &self.credentials;
        let credentials = Credentials { client_id: client_id.clone(), client_secret: client_secret.clone() };
        let mut settings = Settings { credentials, ..provider.clone() };
        // As it was registered, whatever else could be done.
        let registered = |of: &Map<String, Value>| ClientAuthMethod::registered(of.get(METHOD)?.as_str()?);
        settings.security.method = registered(&self.registered).or_else(|| registered(&self.metadata));
        Arc::new(settings)
    }
}

#[cfg(test)]
mod tests;
