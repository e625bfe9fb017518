//! Rejections, challenges and denials as HTTP, logged once, and what a stranger may be told: a page for a person, problem
//! JSON (RFC 9457) for a program, a status in the trailers for gRPC.

mod framing;
pub mod notice;
mod onward;
pub mod pages;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Version, header};
use hyper::body::Incoming;
use serde_json::json;

pub use framing::Framing;
pub use notice::{ClientFault, KeptPostFault, Notice, ProviderFault, Rejection, Way};
pub use onward::onward;

use self::pages::{PageContext, Pages, protect};
use crate::authn::proof::ProofDemand;
use crate::message::headers::is_grpc;
use crate::message::{Body, Connection, Inbound, RequestId, Scheme, Windows, is_navigation, is_prefetch, prefers_html};
use crate::policy::Permit;
use crate::route::{Access, GuardedRoute, Route};
use crate::telemetry::access_log::{self, Access as AccessLine};
use crate::telemetry::metrics::WorkerMetrics;
use crate::upstream::UpstreamError;

/// What decides whom an answer is for, where a session may come along with what another site fetches for itself.
const VARY_BY_IN_FRAMES: &str = "Cookie, Origin, Sec-Fetch-Site, Sec-Fetch-Mode, Sec-Fetch-Dest";
const BEARER: HeaderValue = HeaderValue::from_static("Bearer");
const SEC_FETCH_DEST: HeaderName = HeaderName::from_static("sec-fetch-dest");
const X_REQUESTED_WITH: HeaderName = HeaderName::from_static("x-requested-with");

/// Who reads the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audience {
    /// A browser window: HTML.
    Person,
    /// A script or an API client: problem JSON.
    Program,
    /// A gRPC client: trailers-only.
    Grpc,
}

impl Audience {
    /// A person reads what one of these windows shows; a prefetch or a script does not show a page of ours to anyone.
    fn of(headers: &HeaderMap, windows: Windows) -> Self {
        let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
        if is_grpc(headers) {
            return Self::Grpc;
        }
        let in_a_window = || {
            text(SEC_FETCH_DEST).is_none_or(|dest| windows.show(dest.as_bytes()))
                && !is_prefetch(headers)
                && !headers.contains_key(X_REQUESTED_WITH)
        };
        if prefers_html(headers) && in_a_window() { Self::Person } else { Self::Program }
    }
}

/// One request and its answer, as far as reply and log have to know. Lives as long as the request.
#[derive(Debug)]
pub struct Exchange<'g> {
    started: Instant,
    audience: Audience,
    ends_connection: bool,
    is_secure: bool,
    /// What a person who tries again asks for.
    again: Option<PathAndQuery>,
    logged: bool,
    client: IpAddr,
    method: Method,
    id: Option<RequestId>,
    host: String,
    path: String,
    route: &'g str,
    user: Bytes,
    reason: Option<&'static str>,
}

impl<'g> Exchange<'g> {
    /// The id, also of a request that was refused before it was read.
    pub fn identify(&mut self, id: &RequestId) {
        self.id = Some(id.clone());
    }

    /// Takes over what the request turned out to be.
    pub fn read(&mut self, inbound: &Inbound) {
        self.id = Some(inbound.id().clone());
        self.client = inbound.client().address;
        self.is_secure = inbound.client().scheme == Scheme::Https;
    }

    /// The route that was found.
    pub fn routed(&mut self, route: &'g Route) {
        self.route = if route.name.is_empty() { "default" } else { &route.name };
    }

    /// One of our endpoints, for the log.
    pub fn endpoint(&mut self, name: &'static str) {
        self.route = name;
    }

    /// On whose behalf it is forwarded.
    pub fn admitted(&mut self, permit: &Permit<'_>) {
        if let Some(identity) = permit.identity().filter(|_| self.logged) {
            self.user = identity.name_bytes();
        }
    }

    /// The reason code of a refusal.
    pub fn refused(&mut self, reason: &'static str) {
        self.reason = Some(reason);
    }

    /// What the client still sends was never read, so nothing else can be read from its connection.
    fn close_if_unread(&self, headers: &mut HeaderMap) {
        if self.ends_connection {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
    }

    /// Who reads the answer.
    pub fn audience(&self) -> Audience {
        self.audience
    }

    /// The address to ask for once more.
    fn again(&self) -> &str {
        self.again.as_ref().map_or("/", PathAndQuery::as_str)
    }

    /// The address that a person navigated to, where asking for it again is the same request.
    pub fn repeatable(&self) -> Option<&str> {
        self.again.as_ref().map(PathAndQuery::as_str)
    }

    /// The request's id, as it is shown.
    pub fn id(&self) -> &str {
        self.id.as_ref().map_or("-", RequestId::as_str)
    }
}

/// Makes answers; one per worker, because it counts.
#[derive(Debug, Clone)]
pub struct Replies {
    pages: Arc<Pages>,
    metrics: WorkerMetrics,
    access_log: bool,
    hsts: Option<HeaderValue>,
    framing: Option<Framing>,
}

impl Replies {
    /// For one worker. `hsts` is the value of `Strict-Transport-Security`, if it is ours to say.
    pub fn new(pages: Arc<Pages>, metrics: WorkerMetrics, access_log: bool, hsts: Option<HeaderValue>) -> Self {
        Self { pages, metrics, access_log, hsts, framing: None }
    }

    /// For people who look at the application in frames, too.
    pub fn with_framing(self, framing: Option<Framing>) -> Self {
        Self { framing, ..self }
    }

    /// The worker's counters.
    pub fn metrics(&self) -> &WorkerMetrics {
        &self.metrics
    }

    /// Begins an exchange.
    pub fn begin<'g>(&self, raw: &Request<Incoming>, connection: &Connection) -> Exchange<'g> {
        let headers = raw.headers();
        let windows = if self.framing.is_some() { Windows::AndFrames } else { Windows::Own };
        let audience = Audience::of(headers, windows);
        // Only a GET that a person navigates with can be repeated by a link.
        let may_repeat = audience == Audience::Person && is_navigation(raw.method(), headers, windows);
        let authority = || raw.uri().authority().map(|authority| authority.as_str().as_bytes());
        let host = headers.get(header::HOST).map(HeaderValue::as_bytes);
        let host = || host.or_else(authority).map(|host| String::from_utf8_lossy(host).into_owned());
        Exchange {
            started: Instant::now(),
            audience,
            // Over HTTP/2 only the stream ends, by a reset (RFC 9113 §8.1).
            ends_connection: raw.version() != Version::HTTP_2 && !http_body::Body::is_end_stream(raw.body()),
            again: raw.uri().path_and_query().filter(|_| may_repeat).cloned(),
            is_secure: connection.scheme == Scheme::Https,
            logged: self.access_log,
            client: connection.peer.ip(),
            method: raw.method().clone(),
            id: None,
            host: if self.access_log { host().unwrap_or_default() } else { String::new() },
            path: if self.access_log { raw.uri().path().to_owned() } else { String::new() },
            route: "-",
            user: Bytes::new(),
            reason: None,
        }
    }

    /// Ends an exchange: an error becomes HTTP, the request is counted and logged, once.
    pub fn finish(&self, outcome: Result<Response<Body>, Rejection>, mut exchange: Exchange<'_>) -> Response<Body> {
        let mut response = outcome.unwrap_or_else(|rejection| self.reject(&rejection, &mut exchange));
        if let Some(hsts) = &self.hsts {
            put_hsts(response.headers_mut(), hsts, exchange.is_secure);
        }
        if let Some(framing) = &self.framing {
            framing.put(&mut response);
        }
        let duration = exchange.started.elapsed();
        let status = response.status().as_u16();
        self.metrics.request(status, exchange.reason, duration);
        if exchange.logged {
            access_log::record(AccessLine {
                id: exchange.id(),
                client: exchange.client,
                method: exchange.method.as_str(),
                host: &exchange.host,
                path: &exchange.path,
                status,
                route: exchange.route,
                reason: exchange.reason.unwrap_or("-"),
                user: match std::str::from_utf8(&exchange.user) {
                    Ok(user) if !user.is_empty() => user,
                    _ => "-",
                },
                duration,
            });
        }
        response
    }

    /// A refusal as HTTP; the operator's line is written here.
    pub fn reject(&self, rejection: &Rejection, exchange: &mut Exchange<'_>) -> Response<Body> {
        let notice = rejection.notice();
        exchange.refused(notice.code);
        notice::log(rejection, &notice, exchange.id());
        self.notify(&notice, exchange)
    }

    /// The upstream's answer on a guarded route, kept out of shared caches, or its failure as HTTP.
    pub fn guarded(
        &self,
        outcome: Result<Response<Body>, UpstreamError>,
        route: GuardedRoute<'_>,
        exchange: &mut Exchange<'_>,
    ) -> Response<Body> {
        let mut response = match outcome {
            Ok(response) => response,
            Err(error) => return self.reject(&error.into(), exchange),
        };
        let headers = response.headers_mut();
        let may_be_shared = match headers.entry(header::CACHE_CONTROL) {
            header::Entry::Occupied(_) => true,
            header::Entry::Vacant(missing) => {
                missing.insert(HeaderValue::from_static("private"));
                false
            }
        };
        // What the application lets a shared cache keep is still another answer than the challenge at the same address; and some
        // browsers' own cache gives the page around a frame what the frame was given.
        if may_be_shared || route.route().access == Access::Optional || self.framing.is_some() {
            let by = if self.framing.is_some() { VARY_BY_IN_FRAMES } else { "Cookie" };
            headers.append(header::VARY, HeaderValue::from_static(by));
        }
        response
    }

    /// To where a request should have come. Nobody keeps it, so that the setting can be taken back.
    pub fn moved(&self, location: &str, exchange: &mut Exchange<'_>) -> Response<Body> {
        exchange.endpoint("redirect");
        // The same method and body again.
        let mut response = redirect(StatusCode::PERMANENT_REDIRECT, location);
        exchange.close_if_unread(response.headers_mut());
        response
    }

    /// Says something to whoever asked.
    pub fn notify(&self, notice: &Notice<'_>, exchange: &Exchange<'_>) -> Response<Body> {
        let mut response = match exchange.audience {
            Audience::Person => self.page(notice, exchange, &[]),
            Audience::Program => problem(notice, exchange.id()),
            Audience::Grpc => grpc_status(notice),
        };
        let headers = response.headers_mut();
        if let Some(seconds) = notice.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if let Some(allow) = notice.allow {
            headers.insert(header::ALLOW, HeaderValue::from_static(allow));
        }
        if let Some(error) = notice.bearer {
            let challenge = match (error, &notice.step_up) {
                ("", _) => BEARER,
                (_, Some(demand)) => bearer_challenge(&insufficient(demand).join(", ")),
                (error, None) => bearer_challenge(&format!("error=\"{error}\"")),
            };
            headers.append(header::WWW_AUTHENTICATE, challenge);
        }
        exchange.close_if_unread(headers);
        response
    }

    /// A page; `form_action` is what its form may be redirected to.
    pub fn page<'n>(
        &self,
        notice: &'n Notice<'_>,
        exchange: &'n Exchange<'_>,
        form_action: &[String],
    ) -> Response<Body> {
        let url = |way: &'n Way| match way {
            Way::To(url) => url.as_str(),
            Way::SameAddress => exchange.again(),
        };
        let context = PageContext {
            status: notice.status.as_u16(),
            title: notice.title,
            message: &notice.message,
            advice: notice.advice,
            request_id: exchange.id(),
            action_url: notice.action.as_ref().map(|(way, _)| url(way)),
            action_label: notice.action.as_ref().map(|(_, label)| *label),
            action_post: notice.post,
            field_name: notice.field.as_ref().map(|(name, _)| *name),
            field_value: notice.field.as_ref().map(|(_, value)| value.as_str()),
            other_url: notice.other.as_ref().map(|(url, _)| url.as_str()),
            other_label: notice.other.as_ref().map(|(_, label)| *label),
            choices: &notice.choices,
            email_url: notice.email_form.as_ref().map(|(url, _)| url.as_str()),
            email_rd: notice.email_form.as_ref().map(|(_, rd)| rd.as_str()),
        };
        self.pages.render(notice.page, &context, form_action)
    }
}

/// RFC 6797 §7.2: on whatever goes over https, ours before the application's, and on nothing else.
fn put_hsts(headers: &mut HeaderMap, hsts: &HeaderValue, is_secure: bool) {
    if is_secure {
        headers.insert(header::STRICT_TRANSPORT_SECURITY, hsts.clone());
    } else {
        headers.remove(header::STRICT_TRANSPORT_SECURITY);
    }
}

/// A redirect of ours: never cached, never followed by a body.
pub fn redirect(status: StatusCode, location: &str) -> Response<Body> {
    let mut response = Response::new(Body::Empty);
    *response.status_mut() = status;
    // Locations are serialised URLs or parsed return addresses, so this cannot fail; the front page is the safe way out.
    let location = HeaderValue::try_from(location).unwrap_or_else(|_| HeaderValue::from_static("/"));
    response.headers_mut().insert(header::LOCATION, location);
    protect(&mut response);
    response
}

/// A JSON answer of ours.
pub fn json_answer(status: StatusCode, content_type: &'static str, value: &serde_json::Value) -> Response<Body> {
    text_answer(status, content_type, value.to_string())
}

/// Text for a program: never kept.
pub fn text_answer(status: StatusCode, content_type: &'static str, text: String) -> Response<Body> {
    let mut response = Response::new(Body::full(text));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    protect(&mut response);
    response
}

fn problem(notice: &Notice<'_>, id: &str) -> Response<Body> {
    let mut value = json!({
        "type": "about:blank",
        "title": notice.title,
        "status": notice.status.as_u16(),
        "detail": notice.message,
        "code": notice.code,
        "request_id": id,
    });
    if let Some(url) = &notice.sign_in_url {
        value["sign_in_url"] = json!(url);
    }
    let mut response = json_answer(notice.status, "application/problem+json", &value);
    // Where a token was shown, the challenge is about tokens alone.
    if notice.status == StatusCode::UNAUTHORIZED && notice.bearer.is_none_or(str::is_empty) {
        // RFC 9110 §11.6.1: a 401 has a challenge. The scheme is our own, so that no browser opens a password box.
        let address = notice.sign_in_url.as_ref().map(|url| format!("sign_in_url=\"{url}\""));
        let parameters: Vec<_> =
            address.into_iter().chain(notice.step_up.iter().flat_map(|demand| insufficient(demand))).collect();
        let challenge = format!("Vestibule {}", parameters.join(", "));
        let challenge = challenge.trim_end();
        let challenge = HeaderValue::try_from(challenge).unwrap_or_else(|_| HeaderValue::from_static("Vestibule"));
        response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
    }
    response
}

fn bearer_challenge(parameters: &str) -> HeaderValue {
    HeaderValue::try_from(format!("Bearer {parameters}")).unwrap_or(BEARER)
}

/// RFC 9470 §3. The values are those of the configuration, which takes none that would have to be escaped.
fn insufficient(demand: &ProofDemand) -> Vec<String> {
    let mut parameters = vec!["error=\"insufficient_user_authentication\"".to_owned()];
    parameters.extend(demand.acr_values().map(|values| format!("acr_values=\"{values}\"")));
    parameters.extend(demand.max_age().map(|seconds| format!("max_age=\"{seconds}\"")));
    parameters
}

/// gRPC over HTTP/2, "Trailers-Only": status in the head of a 200, by gRPC's own table of HTTP statuses;
/// what is bounded here is a resource that is used up, and not a server that is away.
fn grpc_status(notice: &Notice<'_>) -> Response<Body> {
    let code = match notice.status {
        // UNAUTHENTICATED
        StatusCode::UNAUTHORIZED => "16",
        // PERMISSION_DENIED
        StatusCode::FORBIDDEN => "7",
        // UNIMPLEMENTED
        StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED => "12",
        // UNAVAILABLE
        StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT => "14",
        // INTERNAL
        StatusCode::BAD_REQUEST => "13",
        // RESOURCE_EXHAUSTED
        StatusCode::TOO_MANY_REQUESTS | StatusCode::PAYLOAD_TOO_LARGE => "8",
        // UNKNOWN
        _ => "2",
    };
    let mut response = Response::new(Body::Empty);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert("grpc-status", HeaderValue::from_static(code));
    headers.insert("grpc-message", HeaderValue::from_static(notice.code));
    protect(&mut response);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn audience(fields: &[(&'static str, &'static str)]) -> Audience {
        audience_in(Windows::Own, fields)
    }

    fn audience_in(windows: Windows, fields: &[(&'static str, &'static str)]) -> Audience {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_static(value));
        }
        Audience::of(&headers, windows)
    }

    #[test]
    fn a_window_is_a_persons_and_what_nobody_looks_at_is_a_programs() {
        const HTML: (&str, &str) = ("accept", "text/html");
        for (field, expected) in [
            (("sec-fetch-dest", "document"), Audience::Person),
            (("sec-fetch-dest", "iframe"), Audience::Program),
            (("sec-purpose", "prefetch"), Audience::Program),
            (("sec-purpose", "Prefetch;prerender"), Audience::Program),
            // Whoever may start a sign-in also gets the page that says why it did not start.
            (("sec-purpose", "something-else"), Audience::Person),
            (("x-requested-with", "XMLHttpRequest"), Audience::Program),
            (("content-type", "application/grpc+proto"), Audience::Grpc),
        ] {
            assert_eq!(audience(&[HTML, field]), expected, "{field:?}");
        }
        assert_eq!((audience(&[HTML]), audience(&[])), (Audience::Person, Audience::Program));
        let framed = |destination| audience_in(Windows::AndFrames, &[HTML, ("sec-fetch-dest", destination)]);
        assert_eq!((framed("iframe"), framed("embed")), (Audience::Person, Audience::Program));
    }
}
