//! What a client's TLS certificate tells the upstream.

use http::{HeaderName, HeaderValue};

/// A verified client certificate. Its names are identity headers: only we write them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCertificate(Vec<(HeaderName, HeaderValue)>);

impl ClientCertificate {
    /// From the headers that tell of it, their values encoded.
    pub fn new(headers: Vec<(HeaderName, HeaderValue)>) -> Self {
        Self(headers)
    }

    /// The headers that tell of it.
    pub fn headers(&self) -> &[(HeaderName, HeaderValue)] {
        &self.0
    }
}
