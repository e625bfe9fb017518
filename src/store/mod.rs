//! Where sealed sessions can lie that are not in the cookie, and what replicas can tell one another.
//!
//! A store sees ciphertext, random ids, digests and times: whoever reads it learns no name and no token, and what it answers is opened
//! with a key that it never had. Every call is bounded in time and runs on the control runtime, so that a store that is slow
//! holds no worker, and a client that goes away cuts no write in two.
//!
//! One rule keeps renewals apart: a record changes only under a [`Lease`]. A lease is of one version and bears the random
//! [`Bid`] of whoever asked for it, so that of two holders only the later one can write, and one whose answer was lost asks
//! again and is told that it is theirs; and a holder that fell silent leaves a mark, so that nobody sends a refresh token
//! that may have been spent.

mod backend;
mod location;
mod memory;
#[cfg(feature = "redis")]
mod redis;
#[cfg(feature = "sql")]
mod sql;
mod steps;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::runtime;

use self::backend::Backend;
pub use self::location::{Location, LocationProblem};
pub use self::steps::{Brought, Step, Stepped};
use crate::random::random;

/// The largest record, in bytes: a session of the largest claims and tokens is a tenth of it.
pub const LARGEST: usize = 1 << 20;
/// How long a call may take, unless it is told to wait.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Names a record: the session's id. Who knows it can ask for the record, and opens nothing with it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Handle([u8; 16]);

impl Handle {
    /// Of a session id.
    pub fn new(id: [u8; 16]) -> Self {
        Self(id)
    }

    /// As a store names it.
    pub fn bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0[..6].iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Whose a record is, in digests: by these it can be listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Owner {
    /// The provider and our client there.
    pub party: [u8; 16],
    /// The person, at that provider.
    pub subject: [u8; 16],
}

/// Counts the writes of one record, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(u64);

impl Version {
    /// That of a new record.
    pub const FIRST: Self = Self(1);

    /// The one after it.
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// Its number.
    pub fn number(self) -> u64 {
        self.0
    }
}

/// A record as it was last written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// The sealed bytes.
    pub bytes: Vec<u8>,
    /// Which write this is.
    pub version: Version,
}

/// Whoever asks for something that one alone gets. Drawn once for all attempts: where an answer was lost, the same question
/// has the same answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bid(u64);

impl Bid {
    /// A random one, never 0; below 2^53, so that every store counts it exactly.
    #[allow(clippy::new_without_default, reason = "no two are the same")]
    pub fn new() -> Self {
        Self((u64::from_le_bytes(random()) >> 11) | 1)
    }
}

/// When what a store is asked for just now, for `span`, is over at the earliest: stores count in whole milliseconds, from the beginning
/// of the one that they are in.
fn end_of(span: Duration) -> Instant {
    Instant::now() + span.saturating_sub(Duration::from_millis(1))
}

/// The right to change one version of one record, for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    handle: Handle,
    version: Version,
    bid: Bid,
    until: Instant,
}

impl Lease {
    /// What a lease is that was asked for just now and whose answer was lost: enough to give it back.
    pub fn asked_for(handle: Handle, version: Version, bid: Bid, ttl: Duration) -> Self {
        Self { handle, version, bid, until: end_of(ttl) }
    }

    /// The version that a write makes.
    pub fn next_version(&self) -> Version {
        self.version.next()
    }

    /// Whether it lasts for at least `span` more. Asked before anything is done that must not be done twice.
    pub fn lasts(&self, span: Duration) -> bool {
        Instant::now() + span < self.until
    }
}

/// What came of asking for a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leased {
    /// It is ours alone.
    Granted(Lease),
    /// The same, but whoever had it before fell silent: what it began with this version's secrets may have been done.
    Abandoned(Lease),
    /// Another has it, for so long at most.
    Busy(Duration),
    /// The record was written in the meantime: read it again.
    Newer,
    /// There is no such record.
    Gone,
}

/// What a write came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    /// It is there, as this version.
    Kept(Version),
    /// Not written: the record was there already, or it is gone, or another lease came after this one.
    Refused,
}

/// Some of the records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filter {
    /// All of them.
    All,
    /// Of one provider and client.
    Party([u8; 16]),
    /// Of one person.
    Owner(Owner),
}

impl Filter {
    fn admits(&self, owner: &Owner) -> bool {
        match self {
            Self::All => true,
            Self::Party(party) => *party == owner.party,
            Self::Owner(one) => one == owner,
        }
    }
}

/// What can be told of a record without opening it. Times are milliseconds since the Unix epoch, by the store's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "each field is its name")]
pub struct Listed {
    pub handle: Handle,
    pub owner: Owner,
    pub version: Version,
    pub created: u64,
    pub changed: u64,
    pub expires: u64,
}

/// Some records, and where to go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// In no order; one may come twice where records change meanwhile, none that stays is left out.
    pub records: Vec<Listed>,
    /// `None`: these were the last.
    pub next: Option<Cursor>,
}

/// Whose records were taken away, one of each, and where to go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Swept {
    /// In no order.
    pub owners: Vec<Owner>,
    /// `None`: that was all.
    pub next: Option<Cursor>,
}

/// Where a list goes on; means something to its own store alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor(String);

impl Cursor {
    /// Of a text that [`Cursor::as_str`] gave; `None`: it is of no store.
    pub fn parse(text: &str) -> Option<Self> {
        let fits = |byte: u8| byte.is_ascii_hexdigit() || byte == b':';
        ((1..=64).contains(&text.len()) && text.bytes().all(fits)).then(|| Self(text.to_owned()))
    }

    /// As it can be handed around.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What is told to all replicas.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Topic {
    /// Sessions that ended.
    Ended,
}

impl Topic {
    #[cfg_attr(not(any(feature = "redis", feature = "sql")), allow(dead_code, reason = "names a key of a store"))]
    fn name(self) -> &'static str {
        match self {
            Self::Ended => "ended",
        }
    }
}

/// How far one reader of a topic has come; means something to its own store alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position(String);

/// What was told since a position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct News {
    /// In the order in which it was told.
    pub messages: Vec<Vec<u8>>,
    /// Where to go on.
    pub position: Position,
}

/// Why a store gave no answer. A record that is not there is an answer.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// No connection, or it broke: what was asked may have been done.
    #[error("the session store is away")]
    Away(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// No answer in time: what was asked may have been done.
    #[error("the session store did not answer in time")]
    Timeout,
    /// It is there but takes nothing now: it loads, fails over, or all connections are in use.
    #[error("the session store takes no requests now")]
    Busy(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// It does not let us: a password, a certificate, a right that is missing.
    #[error("the session store refuses us")]
    Refused(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// What it holds is not what we wrote.
    #[error("the session store holds what is no record: {0}")]
    Corrupt(&'static str),
    /// More bytes than a record may have.
    #[error("the record is larger than {LARGEST} bytes")]
    TooLarge,
    /// It cannot be used as it is configured.
    #[error("the session store cannot be used: {0}")]
    Setup(String),
}

/// A store of sealed sessions, and of what replicas tell one another. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    backend: Arc<dyn Backend>,
    control: runtime::Handle,
    #[cfg(test)]
    fault: Arc<std::sync::Mutex<Option<Fault>>>,
}

/// What a test does to a store.
#[cfg(test)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It is not asked.
    Away,
    /// It does what it is asked, and its answers are lost.
    Unheard,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("backend", &self.backend).finish_non_exhaustive()
    }
}

impl Store {
    /// Opens no connection: a store that is away is told by the first call, and by each until it is back.
    ///
    /// # Errors
    /// [`StoreError::Setup`] where it could never work: a file of roots that cannot be read, a feature that is left out.
    pub fn new(location: &Location, control: runtime::Handle) -> Result<Self, StoreError> {
        let backend = location.open(&control)?;
        Ok(Self {
            backend,
            control,
            #[cfg(test)]
            fault: Arc::default(),
        })
    }

    /// In this process alone.
    pub fn memory(control: runtime::Handle) -> Self {
        Self {
            backend: Arc::new(memory::Memory::default()),
            control,
            #[cfg(test)]
            fault: Arc::default(),
        }
    }

    /// From now on.
    #[cfg(test)]
    pub(crate) fn suffer(&self, fault: Option<Fault>) {
        *self.fault.lock().unwrap() = fault;
    }

    /// The record.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn get(&self, handle: Handle) -> Result<Option<Kept>, StoreError> {
        self.bounded(TIMEOUT, move |backend| async move { backend.get(&handle).await }).await
    }

    /// Writes a new record, which goes away by itself after `ttl`, whatever is written to it. May be asked again where the
    /// answer was lost.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn create(&self, handle: Handle, owner: Owner, bytes: Vec<u8>, ttl: Duration) -> Result<Put, StoreError> {
        fits(&bytes)?;
        self.bounded(TIMEOUT, move |backend| async move { backend.create(&handle, &owner, &bytes, ttl).await }).await
    }

    /// Asks for the right to change `version` of a record, for `ttl`. May be asked again with the same bid where the answer
    /// was lost: what is its already lasts for `ttl` from then on.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn try_lease(
        &self,
        handle: Handle,
        version: Version,
        bid: Bid,
        ttl: Duration,
    ) -> Result<Leased, StoreError> {
        // Counted from before the question: here it ends no later than there.
        let lease = Lease::asked_for(handle, version, bid, ttl);
        self.bounded(TIMEOUT, move |backend| async move {
            Ok(match backend.try_lease(&handle, version, bid, ttl).await? {
                backend::Claim::Ours { abandoned: false } => Leased::Granted(lease),
                backend::Claim::Ours { abandoned: true } => Leased::Abandoned(lease),
                backend::Claim::Busy(span) => Leased::Busy(span),
                backend::Claim::Newer => Leased::Newer,
                backend::Claim::Gone => Leased::Gone,
            })
        })
        .await
    }

    /// Writes the next version, which ends the lease. A lease that ran out still writes, unless another came after it.
    /// May be asked again where the answer was lost.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn replace(&self, lease: Lease, bytes: Vec<u8>) -> Result<Put, StoreError> {
        fits(&bytes)?;
        self.bounded(TIMEOUT, move |backend| async move {
            backend.replace(&lease.handle, lease.version, lease.bid, &bytes).await
        })
        .await
    }

    /// Gives the lease back: nothing was begun with this version's secrets. Says whether it was still ours. Where it was
    /// [`Leased::Abandoned`], so is the next one.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn release(&self, lease: Lease) -> Result<bool, StoreError> {
        self.bounded(
            TIMEOUT,
            move |backend| async move { backend.release(&lease.handle, lease.version, lease.bid).await },
        )
        .await
    }

    /// Takes a record away for good. Says whether there was one.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn delete(&self, handle: Handle) -> Result<bool, StoreError> {
        self.bounded(TIMEOUT, move |backend| async move { backend.delete(&handle).await }).await
    }

    /// What can be told of one record without opening it.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn find(&self, handle: Handle) -> Result<Option<Listed>, StoreError> {
        self.bounded(TIMEOUT, move |backend| async move { backend.find(&handle).await }).await
    }

    /// Some hundred records at a time.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn list(&self, filter: Filter, from: Option<Cursor>) -> Result<Page, StoreError> {
        self.bounded(TIMEOUT, move |backend| async move {
            backend.list(&filter, from.as_ref().map(|cursor| cursor.0.as_str())).await
        })
        .await
    }

    /// Takes away for good what was created by `until`, in milliseconds since the Unix epoch by the store's clock; some hundred records
    /// at a time.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn sweep(&self, filter: Filter, until: u64, from: Option<Cursor>) -> Result<Swept, StoreError> {
        self.bounded(TIMEOUT, move |backend| async move {
            backend.sweep(&filter, until, from.as_ref().map(|cursor| cursor.0.as_str())).await
        })
        .await
    }

    /// What time it is by the clock that all replicas share, in microseconds since the Unix epoch; exact to a millisecond.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn time(&self) -> Result<u64, StoreError> {
        self.bounded(TIMEOUT, move |backend| async move { backend.time().await }).await
    }

    /// Tells all replicas; whoever starts within `keep` hears of it too.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn publish(&self, topic: Topic, message: Vec<u8>, keep: Duration) -> Result<(), StoreError> {
        fits(&message)?;
        self.bounded(TIMEOUT, move |backend| async move { backend.publish(topic, &message, keep).await }).await
    }

    /// What was told since `after`, or since the beginning; waits up to `wait` for the first of it. The position is the
    /// reader's own, so nothing is lost with a connection.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn read(&self, topic: Topic, after: Option<Position>, wait: Duration) -> Result<News, StoreError> {
        self.bounded(TIMEOUT + wait, move |backend| async move {
            backend.read(topic, after.as_ref().map(|position| position.0.as_str()), wait).await
        })
        .await
    }

    /// The call goes on when the returned future is dropped, up to its bound.
    async fn bounded<T, F>(
        &self,
        within: Duration,
        call: impl FnOnce(Arc<dyn Backend>) -> F + Send + 'static,
    ) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, StoreError>> + Send + 'static,
    {
        let backend = Arc::clone(&self.backend);
        let bounded =
            async move { tokio::time::timeout(within, call(backend)).await.unwrap_or(Err(StoreError::Timeout)) };
        #[cfg(test)]
        let fault = *self.fault.lock().unwrap();
        #[cfg(test)]
        let bounded = async move {
            match fault {
                Some(Fault::Away) => Err(StoreError::Timeout),
                Some(Fault::Unheard) => bounded.await.and(Err(StoreError::Timeout)),
                None => bounded.await,
            }
        };
        // Only a control runtime that is shutting down loses its tasks.
        self.control.spawn(bounded).await.unwrap_or_else(|lost| Err(StoreError::Away(Box::new(lost))))
    }
}

fn fits(bytes: &[u8]) -> Result<(), StoreError> {
    if bytes.len() > LARGEST { Err(StoreError::TooLarge) } else { Ok(()) }
}
