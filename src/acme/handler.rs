//! Answers the authority's questions by http before anything else is asked (RFC 8555 §8.3).

use futures_util::future::{Either, ready};
use http::{HeaderValue, Method, Request, Response, header};
use hyper::body::Incoming;

use super::Challenges;
use crate::message::{Body, Connection};
use crate::server::Handler;

/// A handler with the open challenges in front. Without an open one for the path asked for, it is the handler itself.
#[derive(Debug, Clone)]
pub struct WithChallenges<H> {
    challenges: Option<Challenges>,
    handler: H,
}

impl<H> WithChallenges<H> {
    /// `None`: no authority asks by http.
    pub fn new(challenges: Option<Challenges>, handler: H) -> Self {
        Self { challenges, handler }
    }
}

impl<H: Handler> Handler for WithChallenges<H> {
    fn handle(
        &self,
        request: Request<Incoming>,
        connection: &Connection,
    ) -> impl Future<Output = Response<Body>> + Send {
        let asked = || (request.method() == Method::GET).then(|| request.uri().path());
        match self.challenges.as_ref().and_then(|challenges| challenges.answer(asked()?)) {
            None => Either::Left(self.handler.handle(request, connection)),
            Some(proof) => Either::Right(ready(answer(proof))),
        }
    }

    fn refused(&self, reason: &'static str, status: u16) {
        self.handler.refused(reason, status);
    }

    fn cut(&self, reason: &'static str) {
        self.handler.cut(reason);
    }
}

fn answer(proof: String) -> Response<Body> {
    let mut response = Response::new(Body::full(proof));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
