//! Keeps a certificate good: orders, waits, renews.

use std::path::PathBuf;
use std::time::Duration;

use instant_acme::{Account, ExternalAccountKey, NewAccount};

use super::challenges::Challenges;
use super::files::Files;
use super::{Challenge, ExternalAccount, Settings, http, order};
use crate::clock::{SharedClock, UnixTime};
use crate::provider_http::ProviderHttp;
use crate::telemetry;

/// The first pause after a failure; each further one is twice as long. Authorities count failures by the hour.
const FIRST_PAUSE: Duration = Duration::from_secs(60);
const LONGEST_PAUSE: Duration = Duration::from_secs(6 * 3600);
/// How often a certificate that is good is looked at.
const LOOK: Duration = Duration::from_secs(3600);

/// Why there is no new certificate.
#[derive(Debug, thiserror::Error)]
pub enum AcmeError {
    /// The authority could not be asked, or it said no.
    #[error("the certificate authority was of no help")]
    Authority(#[from] instant_acme::Error),
    /// A name was not proven, in the authority's words.
    #[error("the certificate authority refused: {0}")]
    Refused(String),
    /// The authority offers other challenges.
    #[error("the certificate authority does not offer the configured challenge")]
    NotOffered,
    /// A key or request could not be made.
    #[error("the certificate request could not be made")]
    Request(#[from] rcgen::Error),
    /// rustls does not take the key of a challenge.
    #[error("the challenge's key cannot be used")]
    Key(#[from] rustls::Error),
    /// The folder cannot be read or written.
    #[error("{path} cannot be used")]
    Files {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
}

/// Keeps one certificate good.
#[derive(Debug)]
pub struct Manager {
    settings: Settings,
    files: Files,
    http: ProviderHttp,
    challenges: Challenges,
    clock: SharedClock,
}

impl Manager {
    /// Makes the folder, and where there is no certificate yet a self-signed one, so that the listener can start.
    ///
    /// # Errors
    /// [`AcmeError::Files`] where the folder cannot be written.
    pub fn new(settings: Settings, http: ProviderHttp, clock: SharedClock) -> Result<Self, AcmeError> {
        let files = Files::open(&settings.folder)?;
        files.put_placeholder(&settings.domains)?;
        let challenges = Challenges::new(settings.proofs.clone());
        Ok(Self { settings, files, http, challenges, clock })
    }

    /// What has to be answered by http while an order is open; `None` where the authority asks by TLS.
    pub fn challenges(&self) -> Option<Challenges> {
        (self.settings.challenge == Challenge::Http01).then(|| self.challenges.clone())
    }

    /// Orders and renews for as long as it is polled.
    pub async fn run(self) {
        let mut pause = FIRST_PAUSE;
        loop {
            if !self.is_due() {
                tokio::time::sleep(LOOK).await;
                continue;
            }
            match self.renew().await {
                Ok(()) => {
                    tracing::info!(domains = ?self.settings.domains, "a new certificate was issued");
                    pause = FIRST_PAUSE;
                }
                Err(error) => {
                    tracing::error!(
                        reason = "acme_failed",
                        error = telemetry::chain(&error),
                        next_try_seconds = pause.as_secs(),
                        "no certificate was issued; the names must lead here, on port 80 for http-01 and 443 for tls-alpn-01"
                    );
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }

    /// Whether the certificate is for other names, or a third or less of its life is left.
    fn is_due(&self) -> bool {
        let Some(current) = self.files.current() else { return true };
        let due = current.not_before.0 + (current.not_after.0.saturating_sub(current.not_before.0)) / 3 * 2;
        !current.is_for(&self.settings.domains) || self.clock.now() >= UnixTime(due)
    }

    async fn renew(&self) -> Result<(), AcmeError> {
        let account = self.account().await?;
        let issued = order::order(&account, &self.settings.domains, self.settings.challenge, &self.challenges).await?;
        self.files.put_pair(&issued.chain, &issued.key)
    }

    /// The account of this folder, made at the first order.
    async fn account(&self) -> Result<Account, AcmeError> {
        let builder = Account::builder_with_http(Box::new(http::Client(self.http.clone())));
        if let Some(credentials) = self.files.account(&self.settings.directory)? {
            return Ok(builder.from_credentials(credentials).await?);
        }
        let contacts: Vec<_> = self.settings.contacts.iter().map(String::as_str).collect();
        let new = NewAccount { contact: &contacts, terms_of_service_agreed: true, only_return_existing: false };
        let external = self.settings.external_account.as_ref().and_then(|external| {
            // Configuration has decoded it once.
            let key = ExternalAccount::decode(external.hmac_key.expose_secret())?;
            Some(ExternalAccountKey::new(external.key_id.clone(), &key))
        });
        let (account, credentials) = builder.create(&new, self.settings.directory.clone(), external.as_ref()).await?;
        self.files.put_account(&self.settings.directory, &credentials)?;
        Ok(account)
    }
}
