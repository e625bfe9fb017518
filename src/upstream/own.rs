//! Upstreams without a connection: what we answer ourselves, under the same routes and the same policy.

use std::io;
use std::sync::Arc;

use http::header::{CONNECTION, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use http::{Method, Response};

use super::UpstreamError;
use super::files::{Asked, FileError, Files};
use super::lifetime::Term;
use super::respond::Respond;
use crate::message::{Body, Inbound, RequestPath, prefers_html};

/// What answers in an upstream's place.
#[derive(Debug, Clone)]
pub enum Own {
    /// One answer to everything.
    Respond(Arc<Respond>),
    /// The files of a folder.
    Files(Arc<Files>),
}

impl Own {
    /// Answers; `path` is the rewritten path, where the route changes it.
    pub(super) async fn answer(
        &self,
        inbound: Inbound,
        path: Option<RequestPath>,
        term: Option<Term>,
    ) -> Result<Response<Body>, UpstreamError> {
        if inbound.is_tunnel() {
            // A 2xx would say that one is open.
            return Err(UpstreamError::TunnelRefused);
        }
        let is_unread = inbound.ends_connection_unread();
        let mut response = match self {
            Self::Respond(respond) => respond.answer(),
            Self::Files(files) => {
                let asked = asked(inbound, path.as_ref(), term)?;
                let files = Arc::clone(files);
                // Files are opened and read where waiting for a disk stops nobody else.
                let answer = tokio::task::spawn_blocking(move || files.answer(&asked)).await;
                answer.unwrap_or_else(|error| Err(FileError::Unreadable(io::Error::other(error))))?
            }
        };
        let headers = response.headers_mut();
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        if is_unread {
            // What the client still sends was never read, so nothing else can be read from this connection.
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        Ok(response)
    }
}

fn asked(inbound: Inbound, path: Option<&RequestPath>, term: Option<Term>) -> Result<Asked, UpstreamError> {
    if !matches!(*inbound.method(), Method::GET | Method::HEAD) {
        return Err(UpstreamError::Method { allow: "GET, HEAD" });
    }
    let query = inbound.query().map(|query| format!("?{query}")).unwrap_or_default();
    Ok(Asked {
        path: path.unwrap_or(inbound.path()).raw().to_owned(),
        with_slash: format!("{}/{query}", inbound.path().raw()),
        term,
        is_for_a_person: prefers_html(inbound.headers()),
        method: inbound.method().clone(),
        headers: inbound.into_request().into_parts().0.headers,
    })
}
