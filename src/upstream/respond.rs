//! An upstream that is one and the same answer to everybody, such as a maintenance page.

use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode};

use crate::message::Body;

/// The answer.
#[derive(Debug, Clone)]
pub struct Respond {
    /// Its status, 200 or above.
    pub status: StatusCode,
    /// Its fields, `Content-Type` among them.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
}

impl Respond {
    pub(super) fn answer(&self) -> Response<Body> {
        let mut response = Response::new(Body::full(self.body.clone()));
        *response.status_mut() = self.status;
        *response.headers_mut() = self.headers.clone();
        response
    }
}
