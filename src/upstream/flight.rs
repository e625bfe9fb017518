//! A request that is ready to go to its upstream, and what its answer has to know of it.

use std::net::IpAddr;
use std::sync::Arc;

use http::{HeaderValue, Method, Request, Version, header};
use hyper::body::Body as _;
use tokio::time::Instant;

use super::answer::{Telling, signs_in_connection};
use super::body::{self, Farewell, Progress, RequestBody};
use super::exchange::Manner;
use super::expectation::Expectation;
use super::head::{Head, Ours};
use super::lifetime::Term;
use super::upgrade::Upgrade;
use super::{Protocol, UpstreamError, UpstreamSettings};
use crate::message::headers::is_grpc;
use crate::message::{self, Body, EarlyHints};

/// What admission and the route say about a request.
#[derive(Debug, Default)]
pub(super) struct Admitted {
    /// Whose request it is, as far as that is known: one client's failures say less about an instance than those of many.
    pub(super) client: Option<IpAddr>,
    /// The session it was let in for.
    pub(super) term: Option<Term>,
    /// The most bytes of its body.
    pub(super) max_body: Option<u64>,
}

/// What an answer has to know of its request.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) method: Method,
    version: Version,
    pub(super) term: Option<Term>,
    /// When its answer has to be whole.
    pub(super) total: Option<Instant>,
    /// Whether it signs its connection in.
    pub(super) is_personal: bool,
    pub(super) upgrade: Option<Box<Upgrade>>,
}

impl Asked {
    /// Only HTTP/2 is sure to bring trailers to a client of gRPC.
    pub(super) fn farewell(&self, answer: &http::HeaderMap) -> Farewell {
        if self.version == Version::HTTP_2 && is_grpc(answer) { Farewell::GrpcStatus } else { Farewell::Break }
    }
}

/// Lies in one place while it is sent, however often that is tried.
#[derive(Debug)]
pub(super) struct Flight {
    pub(super) head: Head,
    pub(super) body: RequestBody,
    pub(super) progress: Option<Arc<Progress>>,
    pub(super) manner: Manner,
    pub(super) asked: Asked,
}

impl Flight {
    /// Of a request whose head is already as the upstream shall see it, but for framing.
    ///
    /// # Errors
    /// [`UpstreamError::BodyTooLarge`].
    pub(super) fn new(
        settings: &UpstreamSettings,
        trust: &Arc<message::Settings>,
        (request, ours, hints): (Request<Body>, Ours, Option<EarlyHints>),
        upgrade: Option<Box<Upgrade>>,
        Admitted { client, term, max_body }: Admitted,
    ) -> Result<Self, UpstreamError> {
        let (mut head, body) = request.into_parts();
        if max_body.is_some_and(|most| body.size_hint().lower() > most) {
            return Err(UpstreamError::BodyTooLarge);
        }
        let total = settings.total_timeout.map(|total| Instant::now() + total);
        let telling = Telling::of(&head.headers);
        let is_personal = telling.signs_in && signs_in_connection(&head.headers, &header::AUTHORIZATION);
        let manner = Manner { alone: upgrade.is_some() || is_personal, client };
        let asked = Asked { method: head.method.clone(), version: head.version, term, total, is_personal, upgrade };
        head.version = Version::HTTP_11;
        if telling.frames {
            head.headers.remove(header::CONTENT_LENGTH);
            head.headers.remove(header::TRANSFER_ENCODING);
        }
        let mut expectation = None;
        let (body, progress) = if body.is_end_stream() {
            head.headers.remove(header::EXPECT);
            // RFC 9110 §8.6: a method that is meant to have content says that it has none.
            if matches!(asked.method, Method::POST | Method::PUT | Method::PATCH) {
                head.headers.insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
            }
            (RequestBody::empty(), None)
        } else {
            let length_known = body.size_hint().exact().is_some();
            // Whoever announces a length has the bytes; a stream may say something once an hour. But a stranger's holds a
            // place at the application that others need. A call of gRPC may well be silent for as long, and is answered when it
            // ends; where one can't be, because one side need not speak HTTP/2, nothing passes for one.
            let term = asked.term.as_ref().and_then(Term::of_the_session_alone);
            let is_http2 = asked.version == Version::HTTP_2;
            let is_call = is_http2 && settings.protocol == Protocol::H2 && !manner.alone && is_grpc(&head.headers);
            let paced = length_known || (term.is_none() && !is_call);
            let hold;
            (expectation, hold) = Expectation::of(&mut head.headers, asked.version).unzip();
            let limits = body::Limits {
                idle: settings.idle_timeout,
                pace: settings.pace.filter(|_| paced),
                most: max_body,
                term,
                is_http2,
                hold,
            };
            let (body, progress) = RequestBody::watched(body, limits, trust);
            (body, Some(progress))
        };
        Ok(Self { head: Head { parts: head, ours, hints, expectation }, body, progress, manner, asked })
    }
}
