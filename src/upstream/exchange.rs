//! One request and its answer's head over one connection, and the rule for sending again.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Method, Request, Response, Uri};
use tokio::time::Instant;

use super::body::{Progress, RequestBody};
use super::fault::Fault;
use super::instances::Instances;
use super::pool::Lease;
use super::{UpstreamError, UpstreamSettings};
use crate::message::Body;

/// One connection from the pool and two fresh ones: an upstream that breaks them all is down.
const TRIES: usize = 3;

/// Why there is no answer's head.
pub(super) enum Failure {
    /// Nothing was written, or the upstream said that it has not looked at it.
    Unsent(Box<Request<RequestBody>>, Fault),
    /// It broke, and bytes of the request may have arrived.
    Broken(Fault),
    TimedOut,
}

/// Sends `request`, on a connection from the pool if there is a good one, `alone` on one of HTTP/1.1 if so. It is sent again only where it was never written,
/// or where it changes nothing to receive it twice (an idempotent method without a body, RFC 9110 §9.2.2) and a connection
/// that had been idle broke before any byte of an answer (RFC 9112 §9.3.1).
pub(super) async fn exchange(
    instances: &Instances,
    settings: &UpstreamSettings,
    mut request: Request<RequestBody>,
    progress: Option<&Progress>,
    alone: bool,
) -> Result<(Response<Body>, Lease), UpstreamError> {
    let replayable = progress.is_none() && is_idempotent(request.method());
    let mut fresh = !replayable && instances.is_unreliable();
    let mut tries = 1;
    loop {
        let pooled = if fresh { None } else { instances.check_out(alone) };
        let mut lease = match pooled {
            Some(lease) => lease,
            None => instances.connect(alone).await?,
        };
        fresh = true;
        let spare = (replayable && lease.is_reused()).then(|| Spare::of(&request));
        match send(&mut lease, request, settings, progress).await {
            Ok(response) => return Ok((response, lease)),
            Err(Failure::TimedOut) => return Err(UpstreamError::ResponseTimeout),
            Err(Failure::Unsent(unsent, _)) if tries < TRIES => request = *unsent,
            Err(Failure::Unsent(_, error)) => return Err(error.classify()),
            Err(Failure::Broken(error)) => {
                let silent = lease.is_reused() && !lease.heard() && !error.is_user();
                if silent {
                    lease.pool().note_sudden_end();
                }
                match spare {
                    Some(spare) if silent => request = spare.into_request(),
                    _ => return Err(error.classify()),
                }
            }
        }
        tries += 1;
    }
}

async fn send(
    lease: &mut Lease,
    request: Request<RequestBody>,
    settings: &UpstreamSettings,
    progress: Option<&Progress>,
) -> Result<Response<Body>, Failure> {
    let (response, idle) = (settings.response_timeout, settings.idle_timeout);
    let first = if progress.is_some() { response.min(idle) } else { response };
    lease.deadline().set(Instant::now() + first);
    let mut answer = pin!(lease.send(request));
    let outcome = poll_fn(|cx| {
        loop {
            if let Poll::Ready(outcome) = answer.as_mut().poll(cx) {
                return Poll::Ready(Some(outcome));
            }
            if lease.deadline().poll(cx).is_pending() {
                return Poll::Pending;
            }
            match later(progress, response, idle) {
                Some(at) => lease.deadline().set(at),
                None => return Poll::Ready(None),
            }
        }
    })
    .await;
    outcome.unwrap_or(Err(Failure::TimedOut))
}

/// The deadline after one that passed: later only while a body moves, or while the client is waited for.
fn later(progress: Option<&Progress>, response: Duration, idle: Duration) -> Option<Instant> {
    let now = Instant::now();
    let next = progress?.deadline(response, idle).unwrap_or(now + response.min(idle));
    (next > now).then_some(next)
}

fn is_idempotent(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS | Method::PUT | Method::DELETE)
}

/// A request without a body, in case that it has to be sent again: hardly ever, so this is cheap to make and not to use. Whoever
/// makes one has seen that there is no body.
struct Spare {
    method: Method,
    uri: Uri,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Spare {
    fn of(request: &Request<RequestBody>) -> Self {
        let headers = request.headers().iter();
        Self {
            method: request.method().clone(),
            uri: request.uri().clone(),
            headers: headers.map(|(name, value)| (name.clone(), value.clone())).collect(),
        }
    }

    fn into_request(self) -> Request<RequestBody> {
        let mut request = Request::new(RequestBody::empty());
        *request.method_mut() = self.method;
        *request.uri_mut() = self.uri;
        for (name, value) in self.headers {
            request.headers_mut().append(name, value);
        }
        request
    }
}
