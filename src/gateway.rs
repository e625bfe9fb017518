//! The request path, top down: sanitize → route → decide → forward → reply. Read this first.

use std::sync::Arc;

use http::{Request, Response};
use hyper::body::Incoming;

use crate::admission::{Admission, Decision};
use crate::authn::session::kept::Taken;
use crate::authn::session::{Renewal, SessionId};
use crate::endpoints::Endpoints;
use crate::message::{self, Body, Connection, Inbound};
use crate::reply::{Exchange, Rejection, Replies};
use crate::route::{GuardedRoute, Routes, Target};
use crate::server::Handler;
use crate::upstream::{Begun, Outbound, Upstreams};

/// One worker's gateway.
#[derive(Debug, Clone)]
pub struct Gateway(Arc<Parts>);

/// What a gateway is made of; `upstreams` and the counters in `replies` are the worker's own, all else is shared and only read.
#[derive(Debug)]
#[allow(missing_docs, reason = "each field is its type")]
pub struct Parts {
    pub trust: Arc<message::Settings>,
    pub routes: Arc<Routes>,
    pub admission: Arc<Admission>,
    pub endpoints: Arc<Endpoints>,
    pub replies: Replies,
    pub upstreams: Upstreams,
}

impl Gateway {
    /// Puts the parts together.
    pub fn new(parts: Parts) -> Self {
        Self(Arc::new(parts))
    }
}

impl Handler for Gateway {
    fn handle(&self, raw: Request<Incoming>, connection: &Connection) -> impl Future<Output = Response<Body>> + Send {
        let Parts { replies, upstreams, .. } = &*self.0;
        let mut exchange = replies.begin(&raw, connection);
        async move {
            let outcome = self.dispatch(raw, connection, &mut exchange).await;
            let mut response = replies.finish(outcome, exchange);
            upstreams.open_tunnel(&mut response);
            response
        }
    }

    fn refused(&self, reason: &'static str, status: u16) {
        self.0.replies.metrics().unread(status, reason);
    }

    fn cut(&self, reason: &'static str) {
        self.0.replies.metrics().cut(reason);
    }
}

/// What becomes of a request.
#[expect(clippy::large_enum_variant, reason = "moved once, where a box would be an allocation for every request")]
enum Course<'g> {
    /// It is answered here.
    Answered(Response<Body>),
    /// An upstream answers it; behind a guarded route that answer has more to go through.
    Forwarded(Begun<'g>, Option<Back<'g>>),
}

/// What the answer on a guarded route needs.
struct Back<'g> {
    route: GuardedRoute<'g>,
    renewal: Renewal,
    signed_in_at: Option<(SessionId, usize)>,
    kept: Option<Box<Taken>>,
}

impl Gateway {
    async fn dispatch<'g>(
        &'g self,
        raw: Request<Incoming>,
        connection: &Connection,
        exchange: &mut Exchange<'g>,
    ) -> Result<Response<Body>, Rejection> {
        let Parts { endpoints, replies, upstreams, .. } = &*self.0;
        // What it takes to decide is let go of before the upstream is waited for, and what it takes to ask that one after it.
        let (outcome, back) = {
            let (mut begun, back) = match self.decide(raw, connection, exchange).await? {
                Course::Answered(response) => return Ok(response),
                Course::Forwarded(begun, back) => (begun, back),
            };
            (upstreams.forward(&mut begun).await, back)
        };
        let Some(Back { route, renewal, signed_in_at, kept }) = back else { return Ok(outcome?) };
        endpoints.settle_form(kept, outcome.as_ref().err(), replies).await;
        let outcome = endpoints.or_step_up(outcome, signed_in_at, exchange);
        // A renewed session survives even a 502.
        Ok(renewal.attach(replies.guarded(outcome, route, exchange)))
    }

    async fn decide<'g>(
        &'g self,
        raw: Request<Incoming>,
        connection: &Connection,
        exchange: &mut Exchange<'g>,
    ) -> Result<Course<'g>, Rejection> {
        let Parts { trust, routes, admission, endpoints, replies, upstreams } = &*self.0;
        let mut inbound = match Inbound::sanitize(raw, connection, trust) {
            Ok(inbound) => inbound,
            Err((malformed, id)) => {
                exchange.identify(&id);
                return Err(malformed.into());
            }
        };
        exchange.read(&inbound);
        let answer = match routes.resolve(&inbound)? {
            Target::Elsewhere(elsewhere) => replies.moved(&elsewhere.location(&inbound), exchange),
            Target::NoEndpoint => return Err(Rejection::NoEndpoint),
            // Boxed: it may call the provider, and no connection has to make room for that.
            Target::Endpoint(endpoint) => Box::pin(endpoints.serve(endpoint, inbound, replies, exchange)).await?,
            Target::Public(route) => {
                exchange.routed(route.route());
                route.route().take_turn(inbound.client().address)?;
                return Ok(Course::Forwarded(upstreams.begin(Outbound::anonymous(inbound, route)), None));
            }
            Target::Guarded(route) => {
                exchange.routed(route.route());
                route.route().take_turn(inbound.client().address)?;
                let decision = match admission.presented(&inbound, route) {
                    None => match admission.decide(&inbound, route) {
                        Ok(decision) => decision,
                        Err(later) => Box::pin(admission.decide_later(later, &inbound, route)).await,
                    },
                    // Boxed for the same reason as a challenge.
                    Some(shown) => Box::pin(admission.decide_by_credentials(shown, &inbound, route)).await,
                };
                match decision {
                    Decision::Refuse(error) => replies.reject(&error.into(), exchange),
                    Decision::Unknown(away) => return Err(away.into()),
                    Decision::Challenge(challenge) => {
                        Box::pin(endpoints.challenge(challenge, inbound, replies, exchange)).await?
                    }
                    Decision::Deny(denial, renewal) => {
                        renewal.attach(endpoints.deny(denial, &inbound, replies, exchange))
                    }
                    Decision::Hold(too_many, renewal) => renewal.attach(replies.reject(&too_many.into(), exchange)),
                    Decision::Admit(permit, renewal) => {
                        exchange.admitted(&permit);
                        let signed_in_at = permit.signed_in_at();
                        match endpoints.restore_form(&mut inbound, &permit, replies).await {
                            Ok(kept) => {
                                let back = Back { route, renewal, signed_in_at, kept };
                                let begun = upstreams.begin(Outbound::on_behalf_of(inbound, permit));
                                return Ok(Course::Forwarded(begun, Some(back)));
                            }
                            Err(rejection) => renewal.attach(replies.reject(&rejection, exchange)),
                        }
                    }
                }
            }
        };
        Ok(Course::Answered(answer))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of what `handle` gives, in bytes.
    fn room<'a, F: Future>(_: impl Fn(&'a Gateway, Request<Incoming>, &'a Connection) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn a_request_in_flight_takes_little_room() {
        // Every connection of HTTP/1.1 holds that much, also between two requests.
        let room = room(|gateway, raw, connection| gateway.handle(raw, connection));
        assert!(room <= 2816, "{room} bytes");
    }
}
