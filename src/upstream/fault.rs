//! What HTTP/1.1 and HTTP/2 say went wrong, and what it means for a request.

use std::error::Error;
use std::io;

use super::{UpstreamError, http1, tls};

/// Why there is no answer's head.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    #[error(transparent)]
    Http1(#[from] http1::Error),
    #[error(transparent)]
    Http2(#[from] h2::Error),
}

impl Fault {
    /// Whether the client's body failed.
    pub(super) fn is_user(&self) -> bool {
        matches!(self, Self::Http1(http1::Error::RequestBody(_)))
    }

    /// What to tell.
    pub(super) fn classify(self) -> UpstreamError {
        if self.is_user() {
            UpstreamError::RequestBody
        } else if self.is_nonsense() {
            UpstreamError::Invalid
        } else if self.io().is_some_and(tls::is_refusal) {
            UpstreamError::Tls(self.into_cause())
        } else {
            UpstreamError::Closed(self.into_cause())
        }
    }

    fn is_nonsense(&self) -> bool {
        match self {
            Self::Http1(error) => error.is_nonsense(),
            // What h2 itself ends is what it can't read.
            Self::Http2(error) => error.is_library(),
        }
    }

    fn io(&self) -> Option<&io::Error> {
        match self {
            Self::Http1(http1::Error::Io(error)) => Some(error),
            Self::Http1(_) => None,
            Self::Http2(error) => error.get_io(),
        }
    }

    fn into_cause(self) -> Box<dyn Error + Send + Sync> {
        match self {
            Self::Http1(error) => error.into(),
            Self::Http2(error) => error.into(),
        }
    }
}
