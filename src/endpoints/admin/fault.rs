//! Why the admin API does not do what it was asked.

use std::time::Duration;

use http::StatusCode;

use crate::authn::session::administered::{ListError, Unknown};
use crate::store::StoreError;

/// Each is told to whoever asked, and logged by its code.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    #[error("this is for programs, and the request has the marks of a page in a browser")]
    Browser,
    #[error("the Host header names another machine; ask by address, or by localhost")]
    Host,
    #[error("the request has no Authorization: Bearer with the admin token")]
    TokenMissing,
    #[error("the token is not the admin token")]
    TokenWrong,
    #[error("this address showed too many wrong tokens")]
    TooMany(Duration),
    #[error("sessions are listed by GET and ended by DELETE")]
    Method,
    #[error("{0}")]
    Selection(&'static str),
    #[error(transparent)]
    Unknown(#[from] Unknown),
    #[error("{}", ListError::InCookies)]
    InCookies,
    #[error("there is no such session")]
    NoSession,
    #[error(transparent)]
    Store(StoreError),
}

impl Fault {
    pub(super) fn code(&self) -> &'static str {
        match self {
            Self::Browser => "admin_browser",
            Self::Host => "admin_host",
            Self::TokenMissing => "admin_token_missing",
            Self::TokenWrong => "admin_token_wrong",
            Self::TooMany(_) => "admin_too_many_tokens",
            Self::Method => "admin_method",
            Self::Selection(_) => "admin_selection",
            Self::Unknown(_) => "admin_unknown",
            Self::InCookies => "admin_no_list",
            Self::NoSession => "admin_no_session",
            Self::Store(_) => "admin_store",
        }
    }

    pub(super) fn status(&self) -> StatusCode {
        match self {
            Self::Browser => StatusCode::FORBIDDEN,
            Self::Host => StatusCode::MISDIRECTED_REQUEST,
            Self::TokenMissing | Self::TokenWrong => StatusCode::UNAUTHORIZED,
            Self::TooMany(_) => StatusCode::TOO_MANY_REQUESTS,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::Selection(_) | Self::Unknown(_) => StatusCode::BAD_REQUEST,
            Self::InCookies => StatusCode::NOT_IMPLEMENTED,
            Self::NoSession => StatusCode::NOT_FOUND,
            Self::Store(_) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}
