//! What an operator may do with sessions: see which there are, where a store can list them, and end them, wherever they lie.

use std::time::Duration;

use tokio::time::timeout;

use super::kept::FORMS;
use super::marks::NameDigest;
use super::stored::{StoredSessions, delete_all};
use super::{SessionId, Sessions, Signatory};
use crate::authn::oidc::Party;
use crate::clock::UnixTime;
use crate::store::{Cursor, Filter, Listed, Owner, StoreError};

/// How long whoever ends sessions waits until the store has let go of them. It goes on for as long as it takes.
const PATIENCE: Duration = Duration::from_secs(3);

/// Which sessions are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// This one.
    One(SessionId),
    /// Those of one person, as one provider names them.
    OfPerson(Party, NameDigest),
    /// Those of one provider and client.
    OfProvider(Party),
    /// All.
    All,
}

/// Whom an operator speaks of is not known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unknown {
    /// No provider has that name.
    #[error("no provider is called that; there are: {0}")]
    Provider(String),
    /// A `sub` means nothing without one.
    #[error("there are several providers, and a user is one of theirs; name one of: {0}")]
    WhichProvider(String),
    /// Each tenant gives names of its own.
    #[error("this provider has an issuer for each tenant, and a user is one of theirs: name the issuer")]
    WhichIssuer,
    /// The issuer is another one.
    #[error("this provider has no such issuer")]
    Issuer,
}

/// Why sessions cannot be listed.
#[derive(Debug, thiserror::Error)]
pub enum ListError {
    /// Nobody but the browsers has them.
    #[error(
        "sessions lie in the cookies of those who are signed in, so there is no list of them; session.store keeps one"
    )]
    InCookies,
    /// The store does not tell.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A session in a list. Times are milliseconds since the Unix epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its id.
    pub id: SessionId,
    /// The `provider_id`; `None`: of a provider or client that is not configured (any more).
    pub provider: Option<String>,
    /// Tells the sessions of one person from those of all others.
    pub subject: [u8; 16],
    /// When the person signed in, or when it came into the store.
    pub created: u64,
    /// When it was last renewed.
    pub changed: u64,
    /// The end of its absolute lifetime.
    pub expires: u64,
}

/// What came of ending sessions.
#[derive(Debug)]
pub enum Ended {
    /// They have ended: it is written down, and told where there is somebody to tell.
    InCookies,
    /// The same, and the store has let go of so many.
    Deleted(u64),
    /// They have ended; the store still lets go of them.
    Deleting,
    /// They have ended, and will be told to others; the store is away, and keeps what nobody can use until that expires.
    Kept(StoreError),
}

impl Sessions {
    /// The sessions of one person: `sub` as the provider says it. A provider need not be named where there is one, nor its
    /// issuer, unless it has tenants.
    ///
    /// # Errors
    /// [`Unknown`].
    pub fn of_person(&self, provider: Option<&str>, issuer: Option<&str>, sub: &str) -> Result<Which, Unknown> {
        let provider = match (provider, self.providers.as_slice()) {
            (Some(id), _) => self.named(id)?,
            (None, [only]) => only,
            (None, _) => return Err(Unknown::WhichProvider(self.names())),
        };
        let issuer = match (issuer, &provider.tenants) {
            (None, None) => provider.issuer.as_str(),
            (None, Some(_)) => return Err(Unknown::WhichIssuer),
            (Some(issuer), None) if issuer == provider.issuer => issuer,
            (Some(issuer), Some(tenants)) if tenants.has(issuer) => issuer,
            (Some(_), _) => return Err(Unknown::Issuer),
        };
        Ok(Which::OfPerson(provider.party, NameDigest::of_subject(provider.party, issuer, sub)))
    }

    /// The sessions of one provider.
    ///
    /// # Errors
    /// [`Unknown::Provider`].
    pub fn of_provider(&self, id: &str) -> Result<Which, Unknown> {
        self.named(id).map(|provider| Which::OfProvider(provider.party))
    }

    fn named(&self, id: &str) -> Result<&Signatory, Unknown> {
        let provider = self.providers.iter().find(|provider| provider.id == id);
        provider.ok_or_else(|| Unknown::Provider(self.names()))
    }

    fn names(&self) -> String {
        self.providers.iter().map(|provider| provider.id.as_str()).collect::<Vec<_>>().join(", ")
    }

    /// Some of the sessions, and where to go on.
    ///
    /// # Errors
    /// [`ListError`].
    pub async fn list(&self, which: Which, from: Option<Cursor>) -> Result<(Vec<Entry>, Option<Cursor>), ListError> {
        let store = self.stored.as_ref().map(StoredSessions::store).ok_or(ListError::InCookies)?;
        let (listed, next) = match filter(which) {
            Err(id) => (store.find(id.into()).await?.into_iter().collect(), None),
            Ok(filter) => {
                let page = store.list(filter, from).await?;
                (page.records, page.next)
            }
        };
        let sessions = listed.iter().filter(|listed| listed.owner.party != FORMS);
        Ok((sessions.map(|listed| self.entry(listed)).collect(), next))
    }

    fn entry(&self, listed: &Listed) -> Entry {
        let provider = self.providers.iter().find(|provider| *provider.party.as_bytes() == listed.owner.party);
        Entry {
            id: SessionId(*listed.handle.bytes()),
            provider: provider.map(|provider| provider.id.clone()),
            subject: listed.owner.subject,
            created: listed.created,
            changed: listed.changed,
            expires: listed.expires,
        }
    }

    /// Ends sessions: whatever began before this moment, and one that is named by its id however it is renewed. Waits until
    /// that is written down and told, and a moment for the store.
    pub async fn end_by_operator(&self, which: Which) -> Ended {
        let lifetime = self.settings.remembered_for();
        let written = match which {
            Which::One(id) => self.ended.end_id(id, self.clock.now().after(lifetime)),
            // By the order of turns alone: it is said of this moment.
            Which::OfPerson(_, subject) => self.ended.end_subject(subject, (UnixTime(u64::MAX), lifetime)),
            Which::OfProvider(party) => self.ended.end_party(party, lifetime),
            Which::All => self.ended.end_all(),
        };
        let until = self.clock.micros() / 1000;
        let deleted = self.stored.as_ref().map(|stored| {
            let store = stored.store().clone();
            stored.control().spawn(async move {
                match filter(which) {
                    Err(id) => store.delete(id.into()).await.map(u64::from),
                    Ok(filter) => delete_all(&store, filter, until).await,
                }
            })
        });
        written.wait().await;
        match deleted {
            None => Ended::InCookies,
            Some(deleted) => match timeout(PATIENCE, deleted).await {
                Ok(Ok(Ok(count))) => Ended::Deleted(count),
                Ok(Ok(Err(error))) => Ended::Kept(error),
                Ok(Err(_)) | Err(_) => Ended::Deleting,
            },
        }
    }
}

/// As a store knows them; the id of one.
fn filter(which: Which) -> Result<Filter, SessionId> {
    match which {
        Which::One(id) => Err(id),
        Which::OfPerson(party, subject) => {
            Ok(Filter::Owner(Owner { party: *party.as_bytes(), subject: *subject.as_bytes() }))
        }
        Which::OfProvider(party) => Ok(Filter::Party(*party.as_bytes())),
        Which::All => Ok(Filter::All),
    }
}

impl SessionId {
    /// As operators write it: 32 hexadecimal digits.
    pub fn parse(text: &str) -> Option<Self> {
        let fits = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        fits.then(|| u128::from_str_radix(text, 16).ok().map(|number| Self(number.to_be_bytes()))).flatten()
    }

    /// The same, as it is shown.
    pub fn hex(self) -> String {
        format!("{:032x}", u128::from_be_bytes(self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_read_as_it_is_shown() {
        let id = SessionId([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 255]);
        assert_eq!(id.hex(), "000102030405060708090a0b0c0d0eff");
        assert_eq!(SessionId::parse(&id.hex()), Some(id));
        assert_eq!(SessionId::parse(&id.hex().to_uppercase()), Some(id));
        let long = "0".repeat(33);
        for other in ["", "00", "+00102030405060708090a0b0c0d0eff", "000102030405060708090a0b0c0d0efg", long.as_str()] {
            assert_eq!(SessionId::parse(other), None, "{other}");
        }
    }
}
