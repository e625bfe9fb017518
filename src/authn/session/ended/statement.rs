//! What is said of ended sessions, one thing at a time: so it lies in the file and so replicas tell one another. Saying it
//! twice, or in another order, says no more.

use serde::{Deserialize, Serialize};

use super::table::Key;
use super::{MAX_SUBJECTS, Told};
use crate::authn::session::marks::{NameDigest, Turn};
use crate::clock::UnixTime;

/// One session, or one person's of one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Entry {
    /// All sessions that it ends began at this turn or before.
    pub(super) at: Turn,
    /// When the last of them would have expired.
    pub(super) until: UnixTime,
}

impl Entry {
    /// What both say.
    pub(super) fn and(self, other: Self) -> Self {
        Self { at: self.at.max(other.at), until: self.until.max(other.until) }
    }
}

/// One session of the provider's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Named {
    pub(super) entry: Entry,
    /// Whose it has to be; empty: anyone's.
    pub(super) subjects: Vec<NameDigest>,
    pub(super) told: Told,
}

impl Named {
    pub(super) fn is_of(&self, subject: NameDigest) -> bool {
        self.subjects.is_empty() || self.subjects.contains(&subject)
    }

    /// What both say: too many subjects stand for everyone.
    pub(super) fn and(mut self, other: &Self) -> Self {
        if self.subjects.is_empty() || other.subjects.is_empty() {
            self.subjects.clear();
        } else {
            let new: Vec<_> =
                other.subjects.iter().filter(|subject| !self.subjects.contains(subject)).copied().collect();
            self.subjects.extend(new);
        }
        if self.subjects.len() > MAX_SUBJECTS {
            self.subjects.clear();
        }
        let told = if self.told == other.told { self.told } else { Told::ByProvider };
        Self { entry: self.entry.and(other.entry), subjects: self.subjects, told }
    }
}

/// One thing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Statement {
    /// A session of ours has ended.
    Id(Key, Entry),
    /// Every session of a subject.
    Subject(Key, Entry),
    /// A session of the provider's.
    Name(Key, Named),
    /// Every session that began at this turn or before.
    Horizon(Turn),
    /// Every session of a provider and client. Files and replicas know these by their order: what is new comes last.
    Party(Key, Entry),
}

impl Statement {
    /// Nothing here can fail to be written: no map, no text, no unknown length.
    pub(super) fn encode(&self) -> Vec<u8> {
        postcard::to_stdvec(self).unwrap_or_default()
    }

    /// `None`: it is none, or there is more than one.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (statement, rest) = postcard::take_from_bytes(bytes).ok()?;
        rest.is_empty().then_some(statement)
    }

    /// The latest moment that it speaks of.
    pub(super) fn turn(&self) -> Turn {
        match self {
            Self::Id(_, entry) | Self::Subject(_, entry) | Self::Party(_, entry) => entry.at,
            Self::Name(_, named) => named.entry.at,
            Self::Horizon(turn) => *turn,
        }
    }

    /// The same, of `latest` at the latest; but one session of ours ends whenever it began.
    pub(super) fn no_later_than(mut self, latest: Turn) -> Self {
        match &mut self {
            Self::Id(_, entry)
            | Self::Subject(_, entry)
            | Self::Party(_, entry)
            | Self::Name(_, Named { entry, .. }) => {
                entry.at = entry.at.min(latest);
            }
            Self::Horizon(turn) => *turn = (*turn).min(latest),
        }
        self
    }

    /// Whether it still ends anything.
    pub(super) fn counts(&self, now: UnixTime) -> bool {
        match self {
            Self::Id(_, entry) | Self::Subject(_, entry) | Self::Party(_, entry) => entry.until > now,
            Self::Name(_, named) => named.entry.until > now,
            Self::Horizon(_) => true,
        }
    }
}
