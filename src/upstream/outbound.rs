//! The request as the upstream gets it: the only place where identity headers are written.

use http::header::{AUTHORIZATION, CONNECTION, HOST, UPGRADE};
use http::uri::Uri;
use http::{HeaderMap, HeaderName, HeaderValue, Request};

use super::UpstreamSettings;
use super::head::Ours;
use super::upgrade::{self, Upgrade};
use crate::authn::Identity;
use crate::message::{Body, Inbound, RequestPath, headers};
use crate::policy::Permit;
use crate::route::{PublicRoute, RewriteError, Route};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const X_FORWARDED_PREFIX: HeaderName = HeaderName::from_static("x-forwarded-prefix");

/// A request with its route and, behind admission, its identity. Both constructors consume what they are made from.
#[derive(Debug)]
pub struct Outbound<'r> {
    pub(super) inbound: Inbound,
    pub(super) route: &'r Route,
    pub(super) permit: Option<Permit<'r>>,
}

/// What the upstream sees instead of what the client wrote.
#[derive(Debug, Clone, Copy)]
pub(super) struct Instead<'a> {
    pub(super) host: Option<&'a HeaderValue>,
    pub(super) path: Option<&'a RequestPath>,
    /// A token of our own, signed in or not.
    pub(super) authorization: Option<&'a HeaderValue>,
}

impl<'r> Outbound<'r> {
    /// For a public route: no identity header, whatever the client sent.
    pub fn anonymous(inbound: Inbound, route: PublicRoute<'r>) -> Self {
        Self { inbound, route: route.route(), permit: None }
    }

    /// For a guarded route, after policy.
    pub fn on_behalf_of(inbound: Inbound, permit: Permit<'r>) -> Self {
        Self { inbound, route: permit.route(), permit: Some(permit) }
    }

    /// The path that the upstream gets instead of the client's, where the route changes it.
    pub(super) fn rewritten(&self) -> Result<Option<RequestPath>, RewriteError> {
        self.route.rewrite.as_ref().map(|rewrite| rewrite.apply(self.inbound.path())).transpose()
    }

    /// Whether it asks for a tunnel (RFC 8441) that its route does not allow; an `Upgrade` field could be ignored instead.
    pub(super) fn is_refused_tunnel(&self) -> bool {
        self.inbound.is_tunnel() && allowed_upgrade(&self.inbound, self.route).is_none()
    }

    /// The request to send, the fields that are ours, and the upgrade that it asks for.
    pub(super) fn into_request(
        self,
        settings: &UpstreamSettings,
        &Instead { host, path, authorization }: &Instead<'_>,
    ) -> (Request<Body>, Ours, Option<Box<Upgrade>>) {
        let Self { inbound, route, permit } = self;
        let is_tunnel = inbound.is_tunnel();
        let protocol = allowed_upgrade(&inbound, route).and_then(|protocol| HeaderValue::try_from(protocol).ok());
        let certificate = inbound.certificate().cloned();
        let (mut request, id, forwarding) = inbound.into_parts();
        let id = HeaderValue::from_str(id.as_str()).ok();
        let upgrade = protocol.clone().map(|protocol| {
            let client = hyper::upgrade::on(&mut request);
            Box::new(Upgrade::new(protocol, request.headers(), client, is_tunnel))
        });
        // Whatever hyper attached for its own use belongs to the client's connection.
        request.extensions_mut().clear();
        into_origin_form(request.uri_mut());
        if let Some(path) = path {
            put_path(request.uri_mut(), path);
        }

        let headers = request.headers_mut();
        drop_foreign(headers, route);
        put_host(headers, host, forwarding.authority());
        let mut ours = Ours::default();
        ours.put(REQUEST_ID, id);
        ours.put_forwarding(forwarding);
        if let Some(rewrite) = route.rewrite.as_deref().filter(|rewrite| !rewrite.strip.is_empty()) {
            ours.put(X_FORWARDED_PREFIX, HeaderValue::from_str(&rewrite.strip).ok());
        }
        match &permit {
            _ if authorization.is_some() => put_authorization(headers, false, Some(authorization.cloned())),
            Some(permit) => {
                let ours = settings.access_token.then(|| permit.identity().and_then(bearer));
                put_authorization(headers, route.pass_authorization, ours);
            }
            // What the upstream takes for ours on one route must not be a stranger's on another.
            None if settings.access_token => put_authorization(headers, route.pass_authorization, None),
            None => {}
        }
        if settings.edits.is_some() || route.edits.is_some() {
            // What is set and removed by configuration may be ours, up to here.
            std::mem::take(&mut ours).settle(headers);
        }
        for edits in [&settings.edits, &route.edits].into_iter().flatten() {
            edits.request.apply(headers);
        }
        // Last of all, so that nothing written above can stand in an identity header.
        if let Some(identity) = permit.and_then(Permit::into_identity) {
            ours.put_identity(identity.into_headers());
        }
        // Who shows a certificate is known by it on every route, signed in or not. Without one the names are gone already.
        for (name, value) in certificate.iter().flat_map(|certificate| certificate.headers()) {
            ours.replace(name.clone(), value.clone());
        }
        if let Some(protocol) = protocol {
            headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
            headers.insert(UPGRADE, protocol);
        }
        (request, ours, upgrade)
    }
}

fn allowed_upgrade(inbound: &Inbound, route: &Route) -> Option<String> {
    inbound.upgrade().filter(|protocol| upgrade::is_allowed(protocol, route))
}

/// `http://host/path?query` becomes `/path?query`, byte for byte (RFC 9112 §3.2.1).
fn into_origin_form(uri: &mut Uri) {
    if uri.scheme().is_some() || uri.authority().is_some() {
        let target = std::mem::take(uri).into_parts().path_and_query;
        *uri = target.map(Uri::from).unwrap_or_default();
    }
}

/// Another path before the same query.
fn put_path(uri: &mut Uri, path: &RequestPath) {
    let query = uri.query().map(|query| ["?", query].concat()).unwrap_or_default();
    // Nothing else can be made of a path that was read and a query that came in a target: never the client's own path.
    *uri = Uri::try_from([path.raw(), &query].concat()).unwrap_or_default();
}

/// Takes out what is for us alone, before anything is written: no `Connection` of the client can take away what follows.
fn drop_foreign(headers: &mut HeaderMap, route: &Route) {
    headers::strip_hop_by_hop(headers);
    headers::strip_override(headers, &route.pass_headers);
}

fn put_host(headers: &mut HeaderMap, host: Option<&HeaderValue>, authority: &HeaderValue) {
    if let Some(host) = host {
        headers.insert(HOST, host.clone());
        return;
    }
    let mut present = headers.get_all(HOST).iter();
    if present.next().is_some_and(|value| value == authority) && present.next().is_none() {
        return;
    }
    headers.insert(HOST, authority.clone());
}

/// `ours` is the access token, where the upstream counts on it; the client's own never stands in for it.
fn put_authorization(headers: &mut HeaderMap, pass: bool, ours: Option<Option<HeaderValue>>) {
    match ours {
        Some(token) => put(headers, &AUTHORIZATION, token),
        None if pass => {}
        None => put(headers, &AUTHORIZATION, None),
    }
}

fn bearer(identity: &Identity) -> Option<HeaderValue> {
    let mut value = HeaderValue::try_from(format!("Bearer {}", identity.access_token()?.expose_secret())).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// Insert or remove, never just insert.
fn put(headers: &mut HeaderMap, name: &HeaderName, value: Option<HeaderValue>) {
    match value {
        Some(value) => headers.insert(name, value),
        None => headers.remove(name),
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_target_is_forwarded_byte_for_byte_in_origin_form() {
        for (given, forwarded) in [
            ("/a%2Fb//c;x?q=%41&r", "/a%2Fb//c;x?q=%41&r"),
            ("http://app.example/a%2Fb?q", "/a%2Fb?q"),
            ("http://app.example", "/"),
            ("/?", "/?"),
        ] {
            let mut uri: Uri = given.parse().unwrap();
            into_origin_form(&mut uri);
            assert_eq!(uri.to_string(), forwarded, "{given}");
        }
    }

    #[test]
    fn the_host_is_the_clients_unless_configured() {
        let mut headers = HeaderMap::new();
        headers.append(HOST, HeaderValue::from_static("other"));
        headers.append(HOST, HeaderValue::from_static("app:8080"));
        put_host(&mut headers, None, &HeaderValue::from_static("app:8080"));
        assert_eq!(headers.get_all(HOST).iter().collect::<Vec<_>>(), ["app:8080"]);
        put_host(&mut headers, Some(&HeaderValue::from_static("internal")), &HeaderValue::from_static("app:8080"));
        assert_eq!(headers.get_all(HOST).iter().collect::<Vec<_>>(), ["internal"]);
    }

    #[test]
    fn the_clients_authorization_ends_here_unless_the_route_passes_it_and_never_beside_ours() {
        let after = |pass: bool, ours: Option<Option<&'static str>>| {
            let mut headers = HeaderMap::new();
            headers.append(AUTHORIZATION, HeaderValue::from_static("Basic Zm9v"));
            headers.append(AUTHORIZATION, HeaderValue::from_static("Bearer theirs"));
            put_authorization(&mut headers, pass, ours.map(|token| token.map(HeaderValue::from_static)));
            headers.get_all(AUTHORIZATION).iter().map(|value| value.to_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(after(false, None), [""; 0]);
        assert_eq!(after(true, None), ["Basic Zm9v", "Bearer theirs"]);
        assert_eq!(after(true, Some(Some("Bearer ours"))), ["Bearer ours"]);
        assert_eq!(after(true, Some(None)), [""; 0], "an expired token leaves nothing");
    }
}
