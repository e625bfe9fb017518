//! What a client's TLS certificate tells the upstream.

use std::fmt;

use http::{HeaderName, HeaderValue};

/// A verified client certificate. Its names are identity headers: only we write them.
pub struct ClientCertificate {
    headers: Vec<(HeaderName, HeaderValue)>,
    is_refused: Box<dyn Fn() -> bool + Send + Sync>,
}

impl ClientCertificate {
    /// From the headers that tell of it, their values encoded, and whoever knows whether it would be refused now.
    pub fn new(headers: Vec<(HeaderName, HeaderValue)>, is_refused: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        Self { headers, is_refused: Box::new(is_refused) }
    }

    /// The headers that tell of it.
    pub fn headers(&self) -> &[(HeaderName, HeaderValue)] {
        &self.headers
    }

    /// Whether those who judge certificates have changed since it was shown, and would refuse it. That it expires changes nobody.
    pub fn is_refused(&self) -> bool {
        (self.is_refused)()
    }
}

impl fmt::Debug for ClientCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientCertificate").field("headers", &self.headers).finish_non_exhaustive()
    }
}
