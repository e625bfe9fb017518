//! The request path, top down: sanitize → route → decide → forward → reply. Read this first.

use std::sync::Arc;

use http::{Request, Response};
use hyper::body::Incoming;

use crate::admission::{Admission, Decision};
use crate::endpoints::Endpoints;
use crate::message::{self, Body, Connection, Inbound};
use crate::reply::{Exchange, Rejection, Replies};
use crate::route::{Routes, Target};
use crate::server::Handler;
use crate::upstream::{Outbound, Upstreams};

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
    async fn handle(&self, raw: Request<Incoming>, connection: &Connection) -> Response<Body> {
        let Parts { trust, replies, upstreams, .. } = &*self.0;
        let mut exchange = replies.begin(&raw, connection);
        let outcome = match Inbound::sanitize(raw, connection, trust) {
            Ok(inbound) => self.dispatch(inbound, &mut exchange).await,
            Err((malformed, id)) => {
                exchange.identify(&id);
                Err(malformed.into())
            }
        };
        let mut response = replies.finish(outcome, exchange);
        upstreams.open_tunnel(&mut response);
        response
    }

    fn refused(&self, reason: &'static str, status: u16) {
        self.0.replies.metrics().unread(status, reason);
    }

    fn cut(&self, reason: &'static str) {
        self.0.replies.metrics().cut(reason);
    }
}

impl Gateway {
    async fn dispatch<'g>(
        &'g self,
        mut inbound: Inbound,
        exchange: &mut Exchange<'g>,
    ) -> Result<Response<Body>, Rejection> {
        let Parts { routes, admission, endpoints, replies, upstreams, .. } = &*self.0;
        exchange.read(&inbound);
        match routes.resolve(&inbound)? {
            Target::Elsewhere(elsewhere) => Ok(replies.moved(&elsewhere.location(&inbound), exchange)),
            Target::NoEndpoint => Err(Rejection::NoEndpoint),
            // Boxed: it may call the provider, and no connection has to make room for that.
            Target::Endpoint(endpoint) => Box::pin(endpoints.serve(endpoint, inbound, replies, exchange)).await,
            Target::Public(route) => {
                exchange.routed(route.route());
                route.route().take_turn(inbound.client().address)?;
                Ok(upstreams.forward(Outbound::anonymous(inbound, route)).await?)
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
                    Decision::Refuse(error) => Ok(replies.reject(&error.into(), exchange)),
                    Decision::Unknown(away) => Err(away.into()),
                    Decision::Challenge(challenge) => {
                        Box::pin(endpoints.challenge(challenge, inbound, replies, exchange)).await
                    }
                    Decision::Deny(denial, renewal) => {
                        Ok(renewal.attach(endpoints.deny(denial, &inbound, replies, exchange)))
                    }
                    Decision::Hold(too_many, renewal) => Ok(renewal.attach(replies.reject(&too_many.into(), exchange))),
                    Decision::Admit(permit, renewal) => {
                        exchange.admitted(&permit);
                        let signed_in_at = permit.signed_in_at();
                        let kept = match endpoints.restore_form(&mut inbound, &permit, replies).await {
                            Ok(kept) => kept,
                            Err(rejection) => return Ok(renewal.attach(replies.reject(&rejection, exchange))),
                        };
                        let outcome = upstreams.forward(Outbound::on_behalf_of(inbound, permit)).await;
                        endpoints.settle_form(kept, outcome.as_ref().err(), replies).await;
                        let outcome = endpoints.or_step_up(outcome, signed_in_at, exchange);
                        // A renewed session survives even a 502.
                        Ok(renewal.attach(replies.guarded(outcome, route, exchange)))
                    }
                }
            }
        }
    }
}
