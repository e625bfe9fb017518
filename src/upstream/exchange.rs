//! One request and its answer's head over one connection, and the rule for sending again.

use std::future::poll_fn;
use std::mem;
use std::net::IpAddr;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use http::{Method, Request, Response};
use tokio::time::Instant;

use super::body::{Progress, RequestBody};
use super::fault::Fault;
use super::head::{Head, Ours};
use super::instances::{self, Instances, Tried};
use super::pool::Lease;
use super::{Protocol, UpstreamError, UpstreamSettings};

/// Fresh connections or instances: an upstream that breaks them all is down. One connection from a pool comes before them.
const TRIES: usize = 3;

/// Why there is no answer's head.
pub(super) enum Failure {
    /// Nothing was written, or the upstream said that it has not looked at it: here is the body once more.
    Unsent(Box<RequestBody>, Fault),
    /// It broke, and bytes of the request may have arrived.
    Broken(Fault),
    /// Something took too long, as this says.
    TimedOut(UpstreamError),
}

impl Failure {
    /// Whether the client's body failed.
    fn is_of_the_client(&self) -> bool {
        matches!(self, Self::Broken(error) if error.is_user())
    }

    /// The body with which the request can be sent again, which a `replayable` one has not; and what to tell.
    fn into_parts(self, replayable: bool) -> (Option<RequestBody>, UpstreamError) {
        match self {
            Self::Unsent(body, error) => (Some(*body), error.classify()),
            Self::Broken(error) => (replayable.then(RequestBody::empty), error.classify()),
            Self::TimedOut(error) => (None, error),
        }
    }
}

/// Whose a request is, and what it needs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Manner {
    /// A connection of HTTP/1.1 for itself.
    pub(super) alone: bool,
    /// Who sent it, as far as that is known.
    pub(super) client: Option<IpAddr>,
}

/// Sends a request, on a connection from the pool if there is a good one. It is sent again only
/// where it was never written, or where it changes nothing to receive it twice (an idempotent method without a body, RFC 9110
/// §9.2.2) and no byte of an answer came: on a fresh connection where one that had been idle broke (RFC 9112 §9.3.1), to
/// another instance where a fresh one broke.
pub(super) async fn exchange(
    instances: &Instances,
    settings: &UpstreamSettings,
    (head, body): (&mut Head, &mut RequestBody),
    progress: Option<&Progress>,
    Manner { alone, client }: Manner,
) -> Result<(Response<()>, Lease), UpstreamError> {
    let replayable = progress.is_none() && is_idempotent(&head.parts.method);
    let (mut tries, mut tried, mut connect_by) = (1, Tried::of(client), None);
    let mut fresh = false;
    // An upgrade asks for HTTP/1.1, which an instance need not speak where it is said to speak HTTP/2.
    let is_asked_otherwise = alone && settings.protocol == Protocol::H2;
    let is_of_the_instance = |error: &UpstreamError| error.is_of_the_instance() && !is_asked_otherwise;
    loop {
        let chosen = instances.choose(&tried).await?;
        let pool = chosen.pool();
        let may_be_old = !fresh && (replayable || !pool.is_unreliable());
        fresh = true;
        let mut lease = match may_be_old.then(|| pool.check_out(alone, replayable)).flatten() {
            Some(lease) => lease,
            None => {
                let now = Instant::now();
                let end = *connect_by.get_or_insert(now + settings.connect_timeout);
                let left = instances.untried(&tried).min(TRIES + 1 - tries);
                // Boxed: few requests open a connection, and every one would carry the room for it.
                match Box::pin(pool.connect(alone, instances::share(end, now, left))).await {
                    Ok(lease) => lease,
                    Err(error) => {
                        instances.failed(&chosen, &error, is_of_the_instance(&error), &mut tried);
                        if tries == TRIES || !instances.may_go_on(&tried) {
                            instances.gave_up(&tried);
                            return Err(error);
                        }
                        tries += 1;
                        continue;
                    }
                }
            }
        };
        let may_repeat = replayable && (lease.is_reused() || instances.has_several());
        let failure = match send(&mut lease, head, body, settings, progress).await {
            Ok(response) => {
                lease.count(instances.succeeded(chosen, &tried));
                return Ok((response, lease));
            }
            Err(failure) => failure,
        };
        // HTTP/2 only tells that the stream was reset; that it was for the body's sake, the body remembers.
        let is_of_the_client = failure.is_of_the_client() || progress.and_then(Progress::cut).is_some();
        let silent = !lease.heard() && !is_of_the_client;
        let was_idle = silent && lease.is_reused() && !matches!(failure, Failure::TimedOut(_));
        if was_idle && matches!(failure, Failure::Broken(_)) {
            pool.note_sudden_end();
        }
        let (again, error) = failure.into_parts(may_repeat && silent);
        if !was_idle && !is_of_the_client {
            instances.failed(&chosen, &error, is_of_the_instance(&error), &mut tried);
        }
        let Some(again) = again else {
            instances.gave_up(&tried);
            return Err(error);
        };
        if !was_idle {
            if tries == TRIES || (instances.has_several() && !instances.may_go_on(&tried)) {
                instances.gave_up(&tried);
                return Err(error);
            }
            tries += 1;
        }
        *body = again;
        // This one connected, so the next has all the time to do so.
        connect_by = None;
    }
}

/// Sends a request without a body, once.
///
/// # Errors
/// [`UpstreamError`].
pub(super) async fn ask(
    lease: &mut Lease,
    request: Request<RequestBody>,
    settings: &UpstreamSettings,
) -> Result<Response<()>, UpstreamError> {
    let (parts, mut body) = request.into_parts();
    let mut head = Head { parts, ours: Ours::default(), hints: None, expectation: None };
    send(lease, &mut head, &mut body, settings, None).await.map_err(|failure| failure.into_parts(false).1)
}

async fn send(
    lease: &mut Lease,
    head: &mut Head,
    body: &mut RequestBody,
    settings: &UpstreamSettings,
    progress: Option<&Progress>,
) -> Result<Response<()>, Failure> {
    let (response, idle) = (settings.response_timeout, settings.idle_timeout);
    let first = if progress.is_some() { response.min(idle) } else { response };
    let mut deadline = mem::take(lease.deadline());
    deadline.set(Instant::now() + first);
    let outcome = {
        let mut answer = pin!(lease.send(head, mem::replace(body, RequestBody::empty())));
        poll_fn(|cx| {
            loop {
                if let Poll::Ready(outcome) = answer.as_mut().poll(cx) {
                    return Poll::Ready(Some(outcome));
                }
                if deadline.poll(cx).is_pending() {
                    return Poll::Pending;
                }
                match later(progress, response, idle) {
                    Some(at) => deadline.set(at),
                    None => return Poll::Ready(None),
                }
            }
        })
        .await
    };
    *lease.deadline() = deadline;
    outcome.unwrap_or_else(|| {
        // What is still to be sent was not waited for, or it would have been cut itself.
        let is_taken = progress.is_none_or(Progress::is_over);
        Err(Failure::TimedOut(if is_taken { UpstreamError::ResponseTimeout } else { UpstreamError::IdleTimeout }))
    })
}

/// The deadline after one that passed: later only while a body moves, or while the client is waited for.
pub(super) fn later(progress: Option<&Progress>, response: Duration, idle: Duration) -> Option<Instant> {
    let now = Instant::now();
    let next = progress?.deadline(response, idle).unwrap_or(now + response.min(idle));
    (next > now).then_some(next)
}

fn is_idempotent(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS | Method::PUT | Method::DELETE)
}
