//! Why there is no session: on a request, or after a sign-in.

use super::cookie::JoinError;
use super::record::PackError;
use super::seal::OpenError;
use super::stored::{Away, Unwritten};
use crate::authn::roles::MapError;

/// Why a request carries no live session. Each is a constant reason code in the log, and a challenge to the stranger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoSession {
    /// No session cookie.
    #[error("there is no session cookie")]
    Absent,
    /// The cookie cannot be put together.
    #[error(transparent)]
    Cookie(#[from] JoinError),
    /// The cookie does not open.
    #[error(transparent)]
    Seal(#[from] OpenError),
    /// Made for another issuer or client.
    #[error("the session belongs to another issuer or client")]
    OtherParty,
    /// Past its lifetime.
    #[error("the session has expired")]
    Expired,
    /// Not used for longer than the idle time, or its idle cookie is missing or another session's.
    #[error("the session was idle for too long")]
    Idle,
    /// Begins in the future.
    #[error("the session begins in the future")]
    Future,
    /// Signed out.
    #[error("the session has ended")]
    Ended,
    /// Nobody knows: it lies in a store that gives no answer.
    #[error(transparent)]
    Away(#[from] Away),
    /// It had to be renewed, and what it could be renewed with is spent.
    #[error("the session could not be renewed")]
    NotRenewed,
    /// The changed `[identity]` settings give no identity for its claims.
    #[error("the session's claims give no identity any more")]
    Unmappable,
}

impl NoSession {
    /// The constant reason code for the log.
    pub fn code(self) -> &'static str {
        match self {
            Self::Absent => "no_session",
            Self::Cookie(JoinError::Duplicate(_)) => "session_cookie_twice",
            Self::Cookie(JoinError::Incomplete) => "session_cookie_incomplete",
            Self::Seal(OpenError::Malformed) => "session_malformed",
            Self::Seal(OpenError::UnknownKey) => "session_key_unknown",
            Self::Seal(OpenError::Forged) => "session_forged",
            Self::Seal(OpenError::Record) => "session_version",
            Self::OtherParty => "session_other_party",
            Self::Expired => "session_expired",
            Self::Idle => "session_idle",
            Self::Future => "session_future",
            Self::Ended => "session_ended",
            Self::Away(_) => "session_store_away",
            Self::NotRenewed => "session_not_renewed",
            Self::Unmappable => "session_unmappable",
        }
    }
}

/// Why a verified sign-in gives no session.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// The claims give no identity.
    #[error(transparent)]
    Map(#[from] MapError),
    /// Too large for the cookies.
    #[error(transparent)]
    TooLarge(#[from] PackError),
    /// The store takes nothing.
    #[error(transparent)]
    Away(#[from] Away),
    /// The session that was to be renewed has ended in the meantime.
    #[error("the session has ended in the meantime")]
    Ended,
}

impl From<Unwritten> for CreateError {
    fn from(unwritten: Unwritten) -> Self {
        match unwritten {
            Unwritten::Away => Away.into(),
            Unwritten::Gone => Self::Ended,
        }
    }
}
