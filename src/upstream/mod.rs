//! Forwarding: one pool of connections per worker and instance of an upstream, HTTP/1.1 or HTTP/2, bodies streamed both ways, hop-by-hop rules.

mod address;
mod answer;
mod balance;
mod body;
mod budget;
mod deadline;
mod eject;
mod exchange;
mod expectation;
mod fault;
mod files;
mod fleet;
mod flight;
mod frames;
mod head;
mod health;
mod http1;
mod http2;
mod instances;
mod lifetime;
pub mod outbound;
mod own;
mod pace;
mod pool;
mod resolve;
mod respond;
mod socket;
mod stream;
mod tls;
mod tunnel;
mod upgrade;

#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_http2;
#[cfg(test)]
mod tests_tls;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::{BoxFuture, ready};
use futures_util::{FutureExt as _, TryFutureExt as _};
use http::{HeaderValue, Response, StatusCode, header};
use tokio::time::timeout_at;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use address::{Address, Place};
pub use files::{FileError, Files};
pub use fleet::Fleet;
pub use health::HealthSettings;
pub use outbound::Outbound;
pub use own::Own;
pub use pace::Pace;
pub use resolve::Lookup;
pub use respond::Respond;
pub use tls::{Tls, TlsFileError, TlsSettings};

use crate::authn::lifetime::Lifetimes;
use crate::authn::oidc::client_credentials::{self, Held, OwnToken, OwnTokenError};
use crate::authn::oidc::insufficient::demand_of;
use crate::message::edits::Edits;
use crate::message::{self, Body, RequestPath};
use crate::policy::Permit;
use crate::route::{RewriteError, Route};
use crate::telemetry::metrics::WorkerMetrics;
use answer::{Telling, signs_in_connection};
use body::ResponseBody;
use fleet::Directory;
use flight::{Admitted, Asked, Flight};
use instances::{Busy, Instances};
use lifetime::{Followed, Term, Tether};
use outbound::Instead;
use pool::Lease;

/// One upstream, checked.
#[derive(Debug, Clone)]
pub struct UpstreamSettings {
    /// For logs.
    pub name: String,
    /// Where its instances listen.
    pub places: Vec<Place>,
    /// How names become addresses.
    pub lookup: Lookup,
    /// How often they do, while the upstream is used. Default 5 s.
    pub resolve_interval: Duration,
    /// Failures in a row after which one of several instances is left out; 0: never. Default 3.
    pub eject_after: u32,
    /// For how long, the first time; doubled up to 5 min. Default 10 s.
    pub eject_for: Duration,
    /// How instances are asked how they are; `None`: not at all.
    pub health: Option<HealthSettings>,
    /// What is spoken there.
    pub protocol: Protocol,
    /// How, if in TLS.
    pub tls: Option<Arc<Tls>>,
    /// What the upstream sees as `Host`; `None`: the client's.
    pub host_header: Option<String>,
    /// Whether a demand of a stronger or more recent sign-in (RFC 9470) is taken for one. Default on.
    pub step_up: bool,
    /// Put the provider's access token into `Authorization: Bearer`.
    pub access_token: bool,
    /// Put an access token of our own there instead, on every request.
    pub own_token: Option<client_credentials::Settings>,
    /// To connect. Default 5 s: 504.
    pub connect_timeout: Duration,
    /// From the end of the request to the answer's head. Default 60 s: 504.
    pub response_timeout: Duration,
    /// The most time without a byte on a body, either way: 504, 408 where the client has to send, or the end of the answer as
    /// an error. Default 5 min.
    pub idle_timeout: Duration,
    /// From the request's arrival to the end of its answer, but for tunnels: 504, or the end of the answer as an error.
    /// Default off.
    pub total_timeout: Option<Duration>,
    /// The slowest a request's body may come; `None`: any.
    pub pace: Option<Pace>,
    /// How long an unused connection is kept. Default 55 s.
    pub pool_idle: Duration,
    /// The most unused connections kept, per worker. Default 128.
    pub pool_size: usize,
    /// After how long without a byte a connection of HTTP/2 that is used is asked whether it is still there, and how long it
    /// may take to say so. Default 10 s each.
    pub h2_ping: (Duration, Duration),
    /// What answers without any connection; nothing above but the name counts then.
    pub own: Option<Own>,
    /// Header fields that are set and removed; those of the route come after.
    pub edits: Option<Box<Edits>>,
}

impl Default for UpstreamSettings {
    fn default() -> Self {
        Self {
            name: "default".to_owned(),
            places: vec![Place::Host { host: "127.0.0.1".to_owned(), port: 3000 }],
            lookup: Lookup::default(),
            resolve_interval: Duration::from_secs(5),
            eject_after: 3,
            eject_for: Duration::from_secs(10),
            health: None,
            protocol: Protocol::Http1,
            tls: None,
            host_header: None,
            step_up: true,
            access_token: false,
            own_token: None,
            connect_timeout: Duration::from_secs(5),
            response_timeout: Duration::from_secs(60),
            idle_timeout: Duration::from_secs(300),
            total_timeout: None,
            pace: Some(Pace { rate: 240, grace: Duration::from_secs(60) }),
            pool_idle: Duration::from_secs(55),
            pool_size: 128,
            h2_ping: (Duration::from_secs(10), Duration::from_secs(10)),
            own: None,
            edits: None,
        }
    }
}

/// What is spoken to an upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2: by ALPN in TLS, known beforehand without (RFC 9113 §3.3). Upgrades still go over HTTP/1.1.
    H2,
    /// Whichever the upstream takes by ALPN, HTTP/2 first; TLS only.
    Auto,
}

/// Why an upstream gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    /// No connection: 502.
    #[error("the upstream could not be connected to")]
    Connect(#[source] std::io::Error),
    /// No connection in time: 504.
    #[error("the upstream did not accept the connection in time")]
    ConnectTimeout,
    /// The connection broke before the answer's head: 502.
    #[error("the upstream closed the connection before it answered")]
    Closed(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Its certificate is not good: 502.
    #[error("the upstream's certificate is not believed")]
    Certificate(#[source] std::io::Error),
    /// The TLS handshake failed, or the upstream refused us as its client: 502.
    #[error("TLS with the upstream failed")]
    Tls(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Connecting, sending and answering together took too long: 504.
    #[error("the request took longer than its total time limit")]
    TotalTimeout,
    /// No answer in time: 504.
    #[error("the upstream did not answer in time")]
    ResponseTimeout,
    /// Nothing of the request's body was taken for [`UpstreamSettings::idle_timeout`]: 504.
    #[error("the upstream took nothing more of the request's body for idle_timeout")]
    IdleTimeout,
    /// An answer that is not HTTP, or a 101 that does not fit the request: 502.
    #[error("the upstream's answer is not understood")]
    Invalid,
    /// A tunnel (RFC 8441) that the route does not allow, or that the upstream answered without opening it: 501.
    #[error("what was asked for by extended CONNECT is not to be had here")]
    TunnelRefused,
    /// The client's body failed: 400.
    #[error("the request body broke off")]
    RequestBody,
    /// The client's body is larger than the route takes: 413.
    #[error("the request body is too large")]
    BodyTooLarge,
    /// The client's body came too slowly: 408.
    #[error("the request body came too slowly")]
    BodyTooSlow,
    /// Nothing of the client's body came for [`UpstreamSettings::idle_timeout`]: 408.
    #[error("nothing more of the request body came for the upstream's idle_timeout")]
    BodyIdle,
    /// There is no token of our own to send it with, so it was not sent: 503 or 502.
    #[error(transparent)]
    OwnToken(#[from] OwnTokenError),
    /// The session ended before the answer's head: 401.
    #[error("the session ended in the meantime")]
    SessionEnded,
    /// The route cannot rewrite the path: 400.
    #[error(transparent)]
    Rewrite(#[from] RewriteError),
    /// There is no file to answer with: 404 or 500.
    #[error(transparent)]
    File(#[from] FileError),
    /// What answers here takes other methods: 405.
    #[error("the method is none for files")]
    Method {
        /// For `Allow`.
        allow: &'static str,
    },
}

impl UpstreamError {
    /// The constant reason code for the log.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Connect(_) => "upstream_connect",
            Self::ConnectTimeout => "upstream_connect_timeout",
            Self::Closed(_) => "upstream_closed",
            Self::Certificate(_) => "upstream_certificate",
            Self::Tls(_) => "upstream_tls",
            Self::ResponseTimeout => "upstream_timeout",
            Self::TotalTimeout => "upstream_total_timeout",
            Self::IdleTimeout => "upstream_idle",
            Self::Invalid => "upstream_invalid",
            Self::TunnelRefused => "tunnel_refused",
            Self::RequestBody => "request_body",
            Self::BodyTooLarge => "body_too_large",
            Self::BodyTooSlow => "body_too_slow",
            Self::BodyIdle => "body_idle",
            Self::OwnToken(error) if error.is_passing() => "upstream_token_unavailable",
            Self::OwnToken(_) => "upstream_token_refused",
            Self::SessionEnded => "session_ended",
            Self::Rewrite(error) => error.code(),
            Self::File(error) => error.code(),
            Self::Method { .. } => "method_not_allowed",
        }
    }

    /// Whether it would have befallen any request: no connection came about.
    fn is_of_the_instance(&self) -> bool {
        matches!(self, Self::Connect(_) | Self::ConnectTimeout | Self::Certificate(_) | Self::Tls(_))
    }

    /// Whether nothing of the request was sent.
    pub fn is_before_sending(&self) -> bool {
        // A broken TLS may have broken after it.
        matches!(self, Self::Connect(_) | Self::ConnectTimeout | Self::Certificate(_) | Self::OwnToken(_))
    }

    /// 502, 503, 504, 501, 400, 401, 408 or 413.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Connect(_) | Self::Closed(_) | Self::Invalid | Self::Certificate(_) | Self::Tls(_) => {
                StatusCode::BAD_GATEWAY
            }
            Self::ConnectTimeout | Self::ResponseTimeout | Self::TotalTimeout | Self::IdleTimeout => {
                StatusCode::GATEWAY_TIMEOUT
            }
            Self::RequestBody | Self::Rewrite(_) => StatusCode::BAD_REQUEST,
            Self::OwnToken(error) if error.is_passing() => StatusCode::SERVICE_UNAVAILABLE,
            Self::OwnToken(_) => StatusCode::BAD_GATEWAY,
            Self::TunnelRefused => StatusCode::NOT_IMPLEMENTED,
            Self::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::BodyTooSlow | Self::BodyIdle => StatusCode::REQUEST_TIMEOUT,
            Self::File(error) => error.status(),
            Self::Method { .. } => StatusCode::METHOD_NOT_ALLOWED,
            Self::SessionEnded => StatusCode::UNAUTHORIZED,
        }
    }

    /// What the operator can do, where the error itself tells.
    pub fn remedy(&self) -> Option<&'static str> {
        match self {
            Self::Certificate(error) => Some(tls::remedy(error)),
            Self::Tls(error) => Some(tls::remedy(&**error)),
            _ => None,
        }
    }
}

/// What tunnels (WebSockets) run in, and what ends them.
#[derive(Debug, Clone)]
pub struct Tunnels {
    /// Those that are open.
    pub running: TaskTracker,
    /// Cancelled, each one gets its goodbye (close 1001, "going away") and ends.
    pub closing: CancellationToken,
}

/// All upstreams as one worker sees them. Made once per worker, on its runtime.
#[derive(Debug)]
pub struct Upstreams {
    upstreams: Vec<Upstream>,
    trust: Arc<message::Settings>,
    followed: Arc<Followed>,
    metrics: WorkerMetrics,
    tunnels: TaskTracker,
    closing: CancellationToken,
}

#[derive(Debug)]
struct Upstream {
    settings: UpstreamSettings,
    host: Option<HeaderValue>,
    instances: Arc<Instances>,
    own_token: Option<Arc<OwnToken>>,
}

impl Upstream {
    /// What it sees instead of what the client wrote.
    fn instead<'a>(&'a self, path: Option<&'a RequestPath>, own: Option<&'a Held>) -> Instead<'a> {
        Instead { host: self.host.as_ref(), path, authorization: own.map(Held::header) }
    }

    /// The request to send.
    fn flight(
        &self,
        outbound: Outbound<'_>,
        instead: &Instead<'_>,
        admitted: Admitted,
        trust: &Arc<message::Settings>,
    ) -> Result<Flight, UpstreamError> {
        let mut edits = [&self.settings.edits, &outbound.route.edits].into_iter().flatten();
        // What is not to be said in the answer is not said before it.
        let is_edited = edits.any(|edits| edits.response.clears(&header::LINK));
        let hints = if is_edited { None } else { outbound.inbound.hints().cloned() };
        let (request, ours, upgrade) = outbound.into_request(&self.settings, instead);
        Flight::new(&self.settings, trust, (request, ours, hints), upgrade, admitted)
    }

    /// An answer as it leaves the upstream's side, which may have refused the token of our own that was `used`.
    fn edited(&self, route: &Route, used: Option<Arc<Held>>, mut response: Response<Body>) -> Response<Body> {
        if let (Some(own), Some(used), StatusCode::UNAUTHORIZED) = (&self.own_token, used, response.status()) {
            own.doubt(&used);
        }
        if response.status() == StatusCode::UNAUTHORIZED
            && self.settings.step_up
            && let Some(demand) = demand_of(response.headers())
        {
            response.extensions_mut().insert(demand);
        }
        for edits in [&self.settings.edits, &route.edits].into_iter().flatten() {
            edits.response.apply(response.headers_mut());
        }
        response
    }
}

/// Both halves of a tunnel that is agreed on and not open yet; travels in the extensions of its 101.
#[derive(Debug, Clone)]
struct Agreed {
    client: tunnel::Client,
    /// Taken by whoever opens it: extensions want to be cloned.
    upstream: Arc<Mutex<Option<http1::Upgraded>>>,
    term: Option<Term>,
    /// The instance's load for as long as the tunnel is open.
    busy: Option<Arc<Busy>>,
}

/// A request that [goes](Upstreams::forward) to its upstream.
pub struct Begun<'f>(Beginning<'f>);

/// How far a request is once all that needs no waiting is done.
#[expect(clippy::large_enum_variant, reason = "moved once, where a box would be an allocation for every request")]
enum Beginning<'f> {
    /// It can go, with that token of our own.
    Ready { upstream: &'f Upstream, route: &'f Route, flight: Flight, own: Option<Arc<Held>> },
    /// Something else comes first, or in its place. Boxed, because it is rare and would make every request's future larger.
    Later(BoxFuture<'f, Result<Response<Body>, UpstreamError>>),
}

impl Upstreams {
    /// For one worker. `trust` knows which names only we may set, in trailers and cookies; `lifetimes` tells when a stream
    /// has to end, and `metrics` counts those that end before their end.
    pub fn new(
        fleet: &Fleet,
        trust: Arc<message::Settings>,
        lifetimes: Lifetimes,
        metrics: WorkerMetrics,
        Tunnels { running: tunnels, closing }: Tunnels,
    ) -> Self {
        let upstream = |directory: &Arc<Directory>| Upstream {
            settings: directory.settings.clone(),
            // Configuration has checked that it is a host; one that isn't would leave the client's.
            host: directory.settings.host_header.as_deref().and_then(|host| HeaderValue::from_str(host).ok()),
            instances: Instances::new(directory),
            own_token: None,
        };
        let upstreams = fleet.directories().iter().map(upstream).collect();
        // A token of this worker's own, so that its tunnels take no lock that another worker takes.
        let followed = Followed::new(lifetimes, metrics.clone());
        Self { upstreams, trust, followed, metrics, tunnels, closing: closing.child_token() }
    }

    /// With the tokens of our own for the upstreams, in their order.
    pub fn with_own_tokens(mut self, tokens: &[Option<Arc<OwnToken>>]) -> Self {
        for (upstream, token) in self.upstreams.iter_mut().zip(tokens) {
            upstream.own_token.clone_from(token);
        }
        self
    }

    /// Makes of a request what its upstream shall see.
    pub fn begin<'f>(&'f self, outbound: Outbound<'f>) -> Begun<'f> {
        let begun = self.try_begin(outbound);
        Begun(begun.unwrap_or_else(|error| Beginning::Later(ready(Err(error)).boxed())))
    }

    /// Sends one request and gives the answer's head with a streamed body. `Set-Cookie` of our names is dropped and logged; what
    /// a 401 demands of the sign-in is in the extensions. `begun` is over then: it is only borrowed so that it can stay where
    /// it lies.
    ///
    /// # Errors
    /// [`UpstreamError`].
    pub async fn forward(&self, begun: &mut Begun<'_>) -> Result<Response<Body>, UpstreamError> {
        match &mut begun.0 {
            Beginning::Ready { upstream, route, flight, own } => {
                let response = self.fly(upstream, flight).await?;
                Ok(upstream.edited(route, own.take(), response))
            }
            Beginning::Later(later) => later.await,
        }
    }

    fn try_begin<'f>(&'f self, outbound: Outbound<'f>) -> Result<Beginning<'f>, UpstreamError> {
        let route = outbound.route;
        let upstream = self.upstream(route.upstream)?;
        let lifetime = outbound.permit.as_ref().and_then(Permit::lifetime);
        let admitted = Admitted {
            client: Some(outbound.inbound.client().address),
            term: Term::of(&self.followed, lifetime, outbound.inbound.certificate()),
            max_body: route.max_body,
        };
        if outbound.is_refused_tunnel() {
            return Err(UpstreamError::TunnelRefused);
        }
        let path = outbound.rewritten()?;
        if let Some(own) = &upstream.settings.own {
            let answer = own.answer(outbound.inbound, path, admitted.term);
            return Ok(Beginning::Later(Box::pin(
                answer.map_ok(move |response| upstream.edited(route, None, response)),
            )));
        }
        let own = match &upstream.own_token {
            None => None,
            Some(own) => match own.held() {
                Some(held) => Some(held),
                // It calls the provider.
                None => {
                    return Ok(Beginning::Later(Box::pin(async move {
                        let own = own.fetched().await?;
                        let instead = upstream.instead(path.as_ref(), Some(&own));
                        let mut flight = upstream.flight(outbound, &instead, admitted, &self.trust)?;
                        let response = self.fly(upstream, &mut flight).await?;
                        Ok(upstream.edited(route, Some(own), response))
                    })));
                }
            },
        };
        let instead = upstream.instead(path.as_ref(), own.as_deref());
        let flight = upstream.flight(outbound, &instead, admitted, &self.trust)?;
        Ok(Beginning::Ready { upstream, route, flight, own })
    }

    /// Opens the tunnel that an answer has agreed on, if it has. Called for what really goes to the client: dropped instead,
    /// the answer takes the upstream's connection with it.
    pub fn open_tunnel(&self, response: &mut Response<Body>) {
        if let Some(Agreed { client, upstream, term, busy }) = response.extensions_mut().remove()
            && let Some(upstream) = upstream.lock().unwrap_or_else(PoisonError::into_inner).take()
        {
            let ends = tunnel::Ends { closing: self.closing.clone(), session: term.map(Tether::new) };
            let tunnel = tunnel::run(client, upstream, ends);
            self.tunnels.spawn(async move {
                tunnel.await;
                drop(busy);
            });
        }
    }

    fn upstream(&self, index: usize) -> Result<&Upstream, UpstreamError> {
        // Configuration resolves names to indices, so a miss is a mistake of ours; it still must not end the worker.
        self.upstreams.get(index).ok_or_else(|| UpstreamError::Connect(std::io::ErrorKind::NotFound.into()))
    }

    /// Sends a request and makes an answer of what comes.
    async fn fly(&self, upstream: &Upstream, flight: &mut Flight) -> Result<Response<Body>, UpstreamError> {
        let Upstream { instances, settings, .. } = upstream;
        let Flight { head, body, progress, manner, asked } = flight;
        let exchange = exchange::exchange(instances, settings, (head, body), progress.as_deref(), *manner);
        let outcome = match asked.total {
            // Boxed, so that the common case does not carry its clock.
            Some(total) => {
                let within = Box::pin(timeout_at(total, exchange)).await;
                within.unwrap_or(Err(UpstreamError::TotalTimeout))
            }
            None => exchange.await,
        };
        let progress = progress.take();
        let (response, mut lease) = outcome.map_err(|error| body::blame(progress.as_deref(), error))?;
        let telling = Telling::of(response.headers());
        if asked.is_personal || telling.signs_in && signs_in_connection(response.headers(), &header::WWW_AUTHENTICATE) {
            lease.use_once();
        }
        if let Some(progress) = &progress {
            progress.answer_begins();
        }
        lease.watch(progress);
        self.answer(upstream, asked, (response, telling), lease)
    }

    fn answer(
        &self,
        upstream: &Upstream,
        asked: &mut Asked,
        (response, telling): (Response<()>, Telling),
        mut lease: Lease,
    ) -> Result<Response<Body>, UpstreamError> {
        let upgrade = asked.upgrade.take();
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            let upgrade = upgrade.ok_or(UpstreamError::Invalid)?;
            upgrade.check(response.headers())?;
            // A tunnel outlives every later check, so its session is looked at once more before it opens.
            if asked.term.as_ref().is_some_and(Term::has_no_session) {
                return Err(UpstreamError::SessionEnded);
            }
            let (mut head, ()) = response.into_parts();
            answer::clean(&mut head, &asked.method, telling)?;
            self.drop_own_cookies(upstream, &mut head.headers);
            answer::announce_upgrade(&mut head.headers, upgrade.protocol());
            let busy = lease.busy().map(Arc::new);
            let ours = lease.into_upgraded().ok_or(UpstreamError::Invalid)?;
            let ours = Arc::new(Mutex::new(Some(ours)));
            let term = asked.term.take();
            head.extensions.insert(Agreed { client: upgrade.into_client(), upstream: ours, term, busy });
            return Ok(Response::from_parts(head, Body::Empty));
        }
        if upgrade.is_some_and(|upgrade| upgrade.is_tunnel()) && response.status().is_success() {
            return Err(UpstreamError::TunnelRefused);
        }
        if telling.keep_alive
            && let Some(announced) = answer::announced_idle(response.headers())
        {
            lease.limit_idle(announced);
        }
        let (mut head, ()) = response.into_parts();
        answer::clean(&mut head, &asked.method, telling)?;
        if telling.set_cookie {
            self.drop_own_cookies(upstream, &mut head.headers);
        }
        let body = if lease.is_answered() {
            lease.give_back();
            Body::Empty
        } else if let Some(body) = lease.take_whole_body() {
            lease.give_back();
            Body::full(body)
        } else {
            let body = ResponseBody::new(lease, upstream.settings.idle_timeout, asked.total, self.metrics.clone());
            let farewell = asked.farewell(&head.headers);
            Body::stream(body.until(asked.term.take(), farewell))
        };
        Ok(Response::from_parts(head, body))
    }

    fn drop_own_cookies(&self, upstream: &Upstream, headers: &mut http::HeaderMap) {
        let dropped = answer::drop_own_cookies(headers, &self.trust.cookie_bases);
        if dropped > 0 {
            tracing::warn!(
                upstream = %upstream.settings.name,
                dropped,
                "the upstream tried to set a cookie of ours"
            );
        }
    }
}
