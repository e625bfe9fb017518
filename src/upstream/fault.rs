//! What the HTTP libraries say went wrong, and what it means for a request.

use std::error::Error;
use std::io;

use super::{UpstreamError, tls};

/// Why there is no answer's head.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    #[error(transparent)]
    Http1(#[from] hyper::Error),
    #[error(transparent)]
    Http2(#[from] h2::Error),
}

impl Fault {
    /// Whether the client's body failed.
    pub(super) fn is_user(&self) -> bool {
        matches!(self, Self::Http1(error) if error.is_user())
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
            Self::Http1(error) => error.is_parse(),
            // What h2 itself ends is what it can't read.
            Self::Http2(error) => error.is_library(),
        }
    }

    fn io(&self) -> Option<&io::Error> {
        match self {
            Self::Http1(error) => error.source()?.downcast_ref(),
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
