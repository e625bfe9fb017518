//! The one door for requests: [`Inbound::sanitize`].

pub(super) mod authority;
mod connect;
mod navigation;
mod request_id;

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderValue, REFERER, TRANSFER_ENCODING, UPGRADE};
use http::uri::PathAndQuery;
use http::{HeaderMap, Method, Request, StatusCode, Uri, Version};
use hyper::body::Incoming;

use self::authority::Authority;
pub use self::navigation::{
    Windows, is_embedded_elsewhere, is_for_another_site, is_frame, is_navigation, is_own_form, is_prefetch,
    prefers_html,
};
pub use self::request_id::RequestId;
use super::forwarded::Peer;
use super::headers::{IdentityNames, list_members, strip_forwarding};
use super::{
    Body, Client, ClientCertificate, EarlyHints, Forwarding, Origin, OwnCookies, PathError, Recall, RequestPath, Scheme,
};

/// The connection a request came on.
#[derive(Debug, Clone)]
pub struct Connection {
    /// The socket's peer, or whom its PROXY protocol header names.
    pub peer: SocketAddr,
    /// The scheme spoken on the socket itself.
    pub scheme: Scheme,
    /// The certificate that the client has shown, verified.
    pub certificate: Option<Arc<ClientCertificate>>,
    /// What its last request leaves for the next one.
    pub recall: Recall,
    /// Where hints before an answer go, where it speaks HTTP/1.1.
    pub hints: EarlyHints,
    /// The peer's address as headers have it, written once for all requests.
    forwarded: Peer,
}

impl Connection {
    /// A connection from `peer` over `scheme`, without a certificate.
    pub fn new(peer: SocketAddr, scheme: Scheme) -> Self {
        Self {
            peer,
            scheme,
            certificate: None,
            recall: Recall::default(),
            hints: EarlyHints::default(),
            forwarded: Peer::new(peer.ip()),
        }
    }

    /// The same, with what the client has shown.
    pub fn with_certificate(self, certificate: Option<Arc<ClientCertificate>>) -> Self {
        Self { certificate, ..self }
    }
}

/// What [`Inbound::sanitize`] has to know.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Peers whose `X-Forwarded-*`, `X-Real-IP` and `Forwarded` are believed.
    pub trusted_proxies: Vec<ipnet::IpNet>,
    /// Header names that only we may set.
    pub identity_names: IdentityNames,
    /// What the names of our cookies begin with, prefix included (`__Host-vestibule`).
    pub cookie_bases: Vec<String>,
    /// The longest request target, in bytes. Default 8 KiB: 414.
    pub max_uri_bytes: usize,
    /// Where people look at the application: also in frames of other pages, where `cookie.partitioned` is set.
    pub windows: Windows,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            trusted_proxies: Vec::new(),
            identity_names: IdentityNames::default(),
            cookie_bases: Vec::new(),
            max_uri_bytes: 8 * 1024,
            windows: Windows::default(),
        }
    }
}

/// A request with one reading and no header that could be mistaken for ours.
#[derive(Debug)]
pub struct Inbound {
    request: Request<Incoming>,
    /// What is sent on instead of a body that was read here.
    instead: Option<Bytes>,
    id: RequestId,
    head: Head,
}

/// What was read from a request's head.
#[derive(Debug)]
struct Head {
    authority: Authority,
    path: RequestPath,
    client: Client,
    certificate: Option<Arc<ClientCertificate>>,
    cookies: OwnCookies,
    recall: Recall,
    hints: Option<EarlyHints>,
    is_tunnel: bool,
    /// Whether there is an `Upgrade`, be it one that counts or not.
    has_upgrade: bool,
    windows: Windows,
}

/// Why a request is refused before it is routed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// RFC 9112 §3.2; in HTTP/2 `:authority` stands in for it (RFC 9113 §8.3.1).
    #[error("the Host header is missing")]
    HostMissing,
    /// RFC 9112 §3.2.
    #[error("more than one Host header")]
    HostRepeated,
    /// Not a host name or address with an optional port.
    #[error("the Host header is not a valid host")]
    HostInvalid,
    /// The absolute-form target, or `:authority`, and the Host header name different hosts.
    #[error("the request target and the Host header contradict each other")]
    HostContradicted,
    /// The path can be read two ways or is broken.
    #[error(transparent)]
    Path(#[from] PathError),
    /// The target is none of origin-form or absolute-form with http or https.
    #[error("the request target has no path of ours")]
    TargetInvalid,
    /// The target is longer than `limits.max_uri_bytes`: 414.
    #[error("the request target is too long")]
    UriTooLong,
    /// A transfer coding other than exactly `chunked` (RFC 9112 §6.1): 501.
    #[error("the transfer coding is not understood")]
    TransferCoding,
    /// `Upgrade` with a body.
    #[error("an upgrade request carries a body")]
    UpgradeWithBody,
    /// The `:protocol` of an extended CONNECT (RFC 8441) names no protocol.
    #[error("the protocol asked for has no name")]
    UpgradeInvalid,
    /// TRACE and CONNECT: 405.
    #[error("the method is refused")]
    MethodRefused,
}

impl Malformed {
    /// The constant reason code for the log.
    pub fn code(&self) -> &'static str {
        match self {
            Self::HostMissing => "host_missing",
            Self::HostRepeated => "host_repeated",
            Self::HostInvalid => "host_invalid",
            Self::HostContradicted => "host_contradicted",
            Self::Path(error) => error.code(),
            Self::TargetInvalid => "target_invalid",
            Self::UriTooLong => "uri_too_long",
            Self::TransferCoding => "transfer_coding",
            Self::UpgradeWithBody => "upgrade_with_body",
            Self::UpgradeInvalid => "upgrade_invalid",
            Self::MethodRefused => "method_refused",
        }
    }

    /// The status it is answered with: 400, 405, 414 or 501.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::MethodRefused => StatusCode::METHOD_NOT_ALLOWED,
            Self::UriTooLong => StatusCode::URI_TOO_LONG,
            Self::TransferCoding => StatusCode::NOT_IMPLEMENTED,
            Self::HostMissing
            | Self::HostRepeated
            | Self::HostInvalid
            | Self::HostContradicted
            | Self::Path(_)
            | Self::TargetInvalid
            | Self::UpgradeWithBody
            | Self::UpgradeInvalid => StatusCode::BAD_REQUEST,
        }
    }
}

impl Inbound {
    /// Reads `request` once and for all.
    ///
    /// # Errors
    /// [`Malformed`] for whatever can be read two ways, with the id the answer will carry.
    pub fn sanitize(
        mut request: Request<Incoming>,
        connection: &Connection,
        settings: &Settings,
    ) -> Result<Self, (Malformed, RequestId)> {
        let id = RequestId::generate();
        match read(&mut request, connection, settings) {
            Ok(head) => Ok(Self { request, instead: None, id, head }),
            Err(malformed) => Err((malformed, id)),
        }
    }

    /// The request's id.
    pub fn id(&self) -> &RequestId {
        &self.id
    }

    /// The method.
    pub fn method(&self) -> &Method {
        self.request.method()
    }

    /// The host: lower case, no trailing dot, no port; IPv6 in brackets.
    pub fn host(&self) -> &str {
        self.head.authority.host()
    }

    /// The authority as the client wrote it (with port), for `Host` and `X-Forwarded-Host` towards the upstream.
    pub fn authority(&self) -> &str {
        self.head.authority.as_str()
    }

    /// The path: raw bytes and every reading an upstream may take.
    pub fn path(&self) -> &RequestPath {
        &self.head.path
    }

    /// The raw query, without `?`.
    pub fn query(&self) -> Option<&str> {
        self.request.uri().query()
    }

    /// The client as far as it can be believed.
    pub fn client(&self) -> &Client {
        &self.head.client
    }

    /// The certificate that the client has shown on this connection, verified.
    pub fn certificate(&self) -> Option<&Arc<ClientCertificate>> {
        self.head.certificate.as_ref()
    }

    /// The headers, less identity names and our cookies. A trusted peer's forwarding headers are gone too: see [`Client`].
    pub fn headers(&self) -> &HeaderMap {
        self.request.headers()
    }

    /// Our own cookies.
    pub fn cookies(&self) -> &OwnCookies {
        &self.head.cookies
    }

    /// What the last request of the same connection has left.
    pub fn recall(&self) -> &Recall {
        &self.head.recall
    }

    /// Where hints before the answer go, if the client knows such.
    pub fn hints(&self) -> Option<&EarlyHints> {
        self.head.hints.as_ref()
    }

    /// Where people look at the application.
    pub fn windows(&self) -> Windows {
        self.head.windows
    }

    /// Whether this is a person's navigation, and so may start a sign-in: `Sec-Fetch-Mode: navigate` with `Sec-Fetch-Dest:
    /// document` (or `iframe`, where people look at frames) and no `Sec-Purpose: prefetch`; without those headers, a GET that
    /// prefers `text/html`.
    pub fn is_navigation(&self) -> bool {
        navigation::is_navigation(self.request.method(), self.request.headers(), self.head.windows)
    }

    /// Whether another site's page embeds it: see [`is_embedded_elsewhere`].
    pub fn is_embedded_elsewhere(&self) -> bool {
        navigation::is_embedded_elsewhere(self.request.headers(), self.head.windows)
    }

    /// Whether a page of our own sends a form with it, in a window: see [`is_own_form`].
    pub fn is_own_form(&self, own: &Origin) -> bool {
        navigation::is_own_form(self.request.method(), self.request.headers(), own, self.head.windows)
    }

    /// The path and query as sent, for the way back after a sign-in.
    pub fn path_and_query(&self) -> &str {
        self.request.uri().path_and_query().map_or("/", |target| target.as_str())
    }

    /// Whether an answer that leaves the body unread ends the connection too; over HTTP/2 only the stream ends, by a reset
    /// (RFC 9113 §8.1).
    pub fn ends_connection_unread(&self) -> bool {
        self.request.version() != Version::HTTP_2 && !http_body::Body::is_end_stream(self.request.body())
    }

    /// How long the body is, where that is said before it comes.
    pub fn body_length(&self) -> Option<u64> {
        http_body::Body::size_hint(self.request.body()).exact()
    }

    /// The body as it comes in, to be read whole: the upstream gets nothing of it but what is put in its place.
    pub fn body_mut(&mut self) -> &mut Incoming {
        self.request.body_mut()
    }

    /// Puts `body` in the place of one that was read.
    pub fn put_body(&mut self, body: Bytes) {
        self.instead = Some(body);
    }

    /// The same with a form that came before: its type, and the page that it was on.
    pub fn put_form(&mut self, body: Bytes, content_type: HeaderValue, referer: Option<HeaderValue>) {
        let headers = self.request.headers_mut();
        headers.insert(CONTENT_TYPE, content_type);
        headers.remove(REFERER);
        headers.extend(referer.map(|referer| (REFERER, referer)));
        self.put_body(body);
    }

    /// The upgrade the request asks for (`websocket`, lower case), when `Connection` names `upgrade` and exactly one
    /// protocol is asked for.
    pub fn upgrade(&self) -> Option<String> {
        if self.head.has_upgrade { requested_upgrade(self.request.version(), self.request.headers()) } else { None }
    }

    /// Whether it came as an extended CONNECT (RFC 8441): it reads like a GET with `Upgrade`, but a success that is no
    /// tunnel is no answer to it.
    pub fn is_tunnel(&self) -> bool {
        self.head.is_tunnel
    }

    /// The request for the upstream, as [`Inbound::into_request`] gives it, and what the upstream is told of its origin.
    pub fn into_parts(self) -> (Request<Body>, RequestId, Arc<Forwarding>) {
        let Head { authority, client, recall, .. } = self.head;
        let request = match self.instead {
            None => self.request.map(Body::Incoming),
            Some(body) => self.request.map(|_| Body::full(body)),
        };
        (request, self.id, recall.forwarding(client, authority.value()))
    }

    /// Gives up the request itself; for the upstream module and for endpoints that read a body. Its target is in
    /// origin-form, its headers are as [`Inbound::headers`] shows them (hop-by-hop ones included).
    pub fn into_request(self) -> Request<Incoming> {
        self.request
    }
}

/// Judges a request's head and takes out of it what is not for the upstream. Generic, as only hyper makes [`Incoming`].
fn read<B>(request: &mut Request<B>, connection: &Connection, settings: &Settings) -> Result<Head, Malformed> {
    let protocol = connect::protocol(request)?;
    if protocol.is_none() {
        check_method(request.method())?;
    }
    if request.uri().path_and_query().is_some_and(|target| target.as_str().len() > settings.max_uri_bytes) {
        return Err(Malformed::UriTooLong);
    }
    let authority = read_host(request, &connection.recall)?;
    if request.uri().scheme().is_some() {
        request.headers_mut().insert(HOST, authority.value().clone());
    }
    let path = read_target(request)?;
    // RFC 9110 §15.2: a client of HTTP/1.0 knows no answer before the answer. Asked before a CONNECT of HTTP/2 is made to read like an
    // upgrade.
    let hints = (request.version() == Version::HTTP_11).then(|| connection.hints.clone());
    let is_tunnel = protocol.is_some();
    if let Some(protocol) = protocol {
        connect::into_upgrade(request, protocol)?;
    }
    let has_upgrade = request.headers().contains_key(UPGRADE);
    check_framing(request.headers(), has_upgrade)?;

    let headers = request.headers_mut();
    let client = Client::derive(headers, &connection.forwarded, connection.scheme, &settings.trusted_proxies);
    strip_forwarding(headers);
    settings.identity_names.strip(headers);
    let cookies = OwnCookies::cut_from(headers, &settings.cookie_bases);
    let (certificate, recall) = (connection.certificate.clone(), connection.recall.clone());
    let windows = settings.windows;
    Ok(Head { authority, path, client, certificate, cookies, recall, hints, is_tunnel, has_upgrade, windows })
}

/// TRACE echoes cookies, CONNECT opens tunnels; some upstreams know methods in any case.
fn check_method(method: &Method) -> Result<(), Malformed> {
    let is_refused = ["TRACE", "CONNECT"].iter().any(|refused| method.as_str().eq_ignore_ascii_case(refused));
    if is_refused { Err(Malformed::MethodRefused) } else { Ok(()) }
}

/// RFC 9112 §3.2: exactly one `Host`; the authority of an absolute-form target wins where both agree. RFC 9113 §8.3.1: an
/// HTTP/2 request names its host in `:authority`, and may do without `Host`.
fn read_host<B>(request: &Request<B>, recall: &Recall) -> Result<Authority, Malformed> {
    let target = request.uri();
    let mut lines = request.headers().get_all(HOST).into_iter();
    let host = match (lines.next(), lines.next()) {
        (None, _) if request.version() == Version::HTTP_2 => None,
        (None, _) => return Err(Malformed::HostMissing),
        (Some(_), Some(_)) => return Err(Malformed::HostRepeated),
        (Some(line), None) => Some(recall.authority(line.as_bytes()).ok_or(Malformed::HostInvalid)?),
    };
    let Some(authority) = target.authority() else { return host.ok_or(Malformed::HostMissing) };
    let default_port = match target.scheme_str() {
        Some("http") => 80,
        Some("https") => 443,
        _ => return Err(Malformed::TargetInvalid),
    };
    let named = recall.authority(authority.as_str().as_bytes()).ok_or(Malformed::HostInvalid)?;
    match host {
        Some(host) if !named.agrees(&host, default_port) => Err(Malformed::HostContradicted),
        _ => Ok(named),
    }
}

/// Brings the target into origin-form and reads its path.
fn read_target<B>(request: &mut Request<B>) -> Result<RequestPath, Malformed> {
    let target = request.uri().path_and_query().ok_or(Malformed::TargetInvalid)?;
    let is_absolute = request.uri().scheme().is_some();
    if !target.as_str().starts_with('/') {
        // `http://host?query` has the path `/` (RFC 9110 §4.2.3); `*` and anything else has none, nor has a `:path` that
        // does not begin with `/` (RFC 9113 §8.3.1).
        let rooted = if is_absolute && request.version() != Version::HTTP_2 {
            PathAndQuery::try_from(format!("/{}", target.as_str()))
        } else {
            return Err(Malformed::TargetInvalid);
        };
        let rooted = rooted.map_err(|_| Malformed::TargetInvalid)?;
        *request.uri_mut() = Uri::from(rooted);
    } else if is_absolute {
        *request.uri_mut() = Uri::from(target.clone());
    }
    let target = request.uri().path_and_query().ok_or(Malformed::TargetInvalid)?;
    Ok(RequestPath::of(target)?)
}

/// One way to find the end of the body, and none to leave bytes behind for another protocol.
fn check_framing(headers: &HeaderMap, has_upgrade: bool) -> Result<(), Malformed> {
    let mut codings = headers.get_all(TRANSFER_ENCODING).into_iter();
    let is_chunked = match (codings.next(), codings.next()) {
        (None, _) => false,
        (Some(coding), None) if coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked") => true,
        _ => return Err(Malformed::TransferCoding),
    };
    if !has_upgrade {
        return Ok(());
    }
    let has_length =
        headers.get_all(CONTENT_LENGTH).iter().any(|length| length.as_bytes().iter().any(|byte| *byte != b'0'));
    if is_chunked || has_length { Err(Malformed::UpgradeWithBody) } else { Ok(()) }
}

fn requested_upgrade(version: Version, headers: &HeaderMap) -> Option<String> {
    // RFC 9110 §7.8: from an HTTP/1.0 client it is ignored.
    if version != Version::HTTP_11 {
        return None;
    }
    if !list_members(headers, &CONNECTION).any(|option| option.eq_ignore_ascii_case(b"upgrade")) {
        return None;
    }
    let mut protocols = list_members(headers, &UPGRADE);
    let (protocol, None) = (protocols.next()?, protocols.next()) else { return None };
    std::str::from_utf8(protocol).ok().map(str::to_ascii_lowercase)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Settings {
        Settings {
            trusted_proxies: vec!["10.0.0.0/8".parse().unwrap()],
            identity_names: IdentityNames::default(),
            cookie_bases: vec!["__Host-vestibule".to_owned()],
            ..Settings::default()
        }
    }

    fn request(method: &str, target: &str, headers: &[(&str, &str)]) -> Request<()> {
        let mut request = Request::builder().method(method).uri(target);
        for (name, value) in headers {
            request = request.header(*name, value.as_bytes());
        }
        request.body(()).unwrap()
    }

    fn read_from(peer: &str, request: &mut Request<()>) -> Result<Head, Malformed> {
        let connection = Connection::new(peer.parse().unwrap(), Scheme::Http);
        read(request, &connection, &settings())
    }

    fn reading(method: &str, target: &str, headers: &[(&str, &str)]) -> Result<(Request<()>, Head), Malformed> {
        let mut request = request(method, target, headers);
        read_from("203.0.113.9:1", &mut request).map(|head| (request, head))
    }

    fn refusal(method: &str, target: &str, headers: &[(&str, &str)]) -> Option<Malformed> {
        reading(method, target, headers).err()
    }

    #[test]
    fn the_host_has_one_reading_or_none() {
        for (target, hosts, wanted) in [
            ("/", &["App.Example.com.:8080"][..], Ok("app.example.com")),
            ("/", &[], Err(Malformed::HostMissing)),
            ("http://a/", &[], Err(Malformed::HostMissing)),
            ("/", &["a", "a"], Err(Malformed::HostRepeated)),
            ("/", &["a, a"], Err(Malformed::HostInvalid)),
            ("/", &["user@a"], Err(Malformed::HostInvalid)),
            ("/", &["a/b"], Err(Malformed::HostInvalid)),
            ("/", &["\u{e4}"], Err(Malformed::HostInvalid)),
            ("/", &[""], Err(Malformed::HostInvalid)),
            ("http://A:80/x", &["a"], Ok("a")),
            ("https://a/x", &["a:443"], Ok("a")),
            ("http://a/x", &["b"], Err(Malformed::HostContradicted)),
            ("http://a:8080/x", &["a"], Err(Malformed::HostContradicted)),
            ("http://user@a/x", &["a"], Err(Malformed::HostInvalid)),
            ("ftp://a/x", &["a"], Err(Malformed::TargetInvalid)),
            ("a:80", &["a:80"], Err(Malformed::TargetInvalid)),
            ("*", &["a"], Err(Malformed::TargetInvalid)),
        ] {
            let hosts: Vec<(&str, &str)> = hosts.iter().map(|host| ("host", *host)).collect();
            let host = reading("GET", target, &hosts).map(|(_, head)| head.authority.host().to_owned());
            assert_eq!(host, wanted.map(str::to_owned), "{target} {hosts:?}");
        }
    }

    #[test]
    fn over_http_2_the_authority_is_the_host() {
        for (target, hosts, wanted) in [
            ("https://App.Example.com:8443/x", &[][..], Ok("App.Example.com:8443")),
            ("http://a/x", &["A:80"], Ok("a")),
            ("/x", &["a:1"], Ok("a:1")),
            ("/x", &[], Err(Malformed::HostMissing)),
            ("https://a/x", &["b"], Err(Malformed::HostContradicted)),
            ("https://a/x", &["a:444"], Err(Malformed::HostContradicted)),
            ("https://a/x", &["a", "a"], Err(Malformed::HostRepeated)),
            ("https://user@a/x", &[], Err(Malformed::HostInvalid)),
            ("ftp://a/x", &[], Err(Malformed::TargetInvalid)),
            ("https://a?x", &[], Err(Malformed::TargetInvalid)),
        ] {
            let hosts: Vec<(&str, &str)> = hosts.iter().map(|host| ("host", *host)).collect();
            let mut request = request("GET", target, &hosts);
            *request.version_mut() = Version::HTTP_2;
            let host = read_from("203.0.113.9:1", &mut request).map(|head| head.authority.as_str().to_owned());
            assert_eq!(host, wanted.map(str::to_owned), "{target} {hosts:?}");
            if let Ok(host) = host {
                assert_eq!((request.headers()[HOST].to_str().unwrap(), request.uri().path()), (&*host, "/x"));
            }
        }
        let mut star = request("OPTIONS", "/", &[]);
        *star.uri_mut() = Uri::builder().scheme("https").authority("a").path_and_query("*").build().unwrap();
        *star.version_mut() = Version::HTTP_2;
        assert_eq!(read_from("203.0.113.9:1", &mut star).unwrap_err(), Malformed::TargetInvalid);
    }

    #[test]
    fn an_extended_connect_reads_like_the_upgrade_that_it_is() {
        let mut request = request("CONNECT", "https://a/chat?x", &[]);
        *request.version_mut() = Version::HTTP_2;
        request.extensions_mut().insert(hyper::ext::Protocol::from_static("websocket"));
        let head = read_from("203.0.113.9:1", &mut request).unwrap();
        assert!(head.is_tunnel && head.path.raw() == "/chat" && head.authority.as_str() == "a");
        assert_eq!(requested_upgrade(request.version(), request.headers()).as_deref(), Some("websocket"));
        assert_eq!(request.method(), Method::GET);
    }

    #[test]
    fn an_absolute_form_target_becomes_origin_form() {
        for (target, origin_form) in
            [("http://A/x%2Fy?z=1", "/x%2Fy?z=1"), ("http://A", "/"), ("http://A?x=1", "/?x=1")]
        {
            let (request, head) = reading("GET", target, &[("host", "a:80")]).unwrap();
            assert_eq!(request.uri().to_string(), origin_form);
            assert_eq!(request.uri().path(), head.path.raw());
            assert_eq!((request.headers()[HOST].as_bytes(), head.authority.as_str()), (&b"A"[..], "A"));
        }
    }

    #[test]
    fn methods_that_reflect_or_tunnel_are_refused() {
        for (method, target) in [("TRACE", "/"), ("trace", "/"), ("CONNECT", "a:80"), ("Connect", "/")] {
            assert_eq!(refusal(method, target, &[("host", "a")]), Some(Malformed::MethodRefused), "{method}");
        }
        assert_eq!(refusal("PROPFIND", "/", &[("host", "a")]), None);
    }

    #[test]
    fn paths_that_can_be_read_two_ways_are_refused() {
        assert_eq!(refusal("GET", "/a/%2e%2e/b", &[("host", "a")]), Some(Malformed::Path(PathError::DotSegment)));
        assert_eq!(refusal("GET", "http://a/../b", &[("host", "a")]), Some(Malformed::Path(PathError::DotSegment)));
        assert_eq!(refusal("GET", "/a?x=/../%00", &[("host", "a")]), None);
    }

    #[test]
    fn only_chunked_is_a_transfer_coding() {
        let with = |codings: &[&str]| {
            let mut headers = vec![("host", "a")];
            headers.extend(codings.iter().map(|coding| ("transfer-encoding", *coding)));
            refusal("POST", "/", &headers)
        };
        assert_eq!(with(&["chunked"]), None);
        assert_eq!(with(&["Chunked"]), None);
        for codings in [
            &["gzip, chunked"][..],
            &["chunked, chunked"],
            &["chunked", "chunked"],
            &["identity"],
            &[""],
            &["xchunked"],
        ] {
            assert_eq!(with(codings), Some(Malformed::TransferCoding), "{codings:?}");
        }
    }

    #[test]
    fn an_upgrade_has_no_body() {
        let with = |name, value| refusal("GET", "/", &[("host", "a"), ("upgrade", "websocket"), (name, value)]);
        assert_eq!(with("content-length", "0"), None);
        assert_eq!(with("content-length", "1"), Some(Malformed::UpgradeWithBody));
        assert_eq!(with("transfer-encoding", "chunked"), Some(Malformed::UpgradeWithBody));
    }

    #[test]
    fn an_upgrade_names_one_protocol() {
        let asked =
            |headers: &[(&str, &str)]| requested_upgrade(Version::HTTP_11, request("GET", "/", headers).headers());
        let websocket = [("connection", "keep-alive, Upgrade"), ("upgrade", "WebSocket")];
        assert_eq!(asked(&websocket).as_deref(), Some("websocket"));
        assert_eq!(asked(&[("connection", "upgrade"), ("upgrade", "websocket, h2c")]), None);
        assert_eq!(asked(&[("connection", "upgrade"), ("upgrade", "a"), ("upgrade", "b")]), None);
        assert_eq!(asked(&[("connection", "upgraded"), ("upgrade", "websocket")]), None);
        assert_eq!(asked(&[("upgrade", "websocket")]), None);
        assert_eq!(asked(&[("connection", "upgrade")]), None);
        assert_eq!(requested_upgrade(Version::HTTP_10, request("GET", "/", &websocket).headers()), None);
    }

    #[test]
    fn nothing_that_could_be_ours_is_left() {
        let headers = [
            ("host", "a"),
            ("X_Forwarded_User", "root"),
            ("remote-user", "root"),
            ("x-forwarded-for", "198.51.100.7"),
            ("X_Forwarded_Proto", "https"),
            ("x-forwarded-host", "evil.example"),
            ("x-real-ip", "198.51.100.7"),
            ("forwarded", "for=198.51.100.7"),
            ("cookie", "a=1; __Host-vestibule=sealed"),
            ("x-api-key", "kept"),
            ("connection", "x-forwarded-user, close"),
        ];
        for (peer, address) in [("203.0.113.9:1", "203.0.113.9"), ("10.0.0.1:1", "198.51.100.7")] {
            let mut request = request("GET", "/", &headers);
            let head = read_from(peer, &mut request).unwrap();
            assert_eq!(head.client.address.to_string(), address);
            assert_eq!(head.client.scheme, Scheme::Http);
            assert_eq!(head.cookies.get("__Host-vestibule"), Ok(Some(&b"sealed"[..])));
            let mut left: Vec<&str> = request.headers().keys().map(|name| name.as_str()).collect();
            left.sort_unstable();
            assert_eq!(left, ["connection", "cookie", "host", "x-api-key"]);
            assert_eq!(request.headers()["cookie"], "a=1");
        }
    }

    #[test]
    fn opaque_header_bytes_do_no_harm() {
        let mut request =
            request("GET", "/", &[("host", "a"), ("x-forwarded-for", "\u{fffd}"), ("cookie", "\u{e9};=;")]);
        request.headers_mut().append("accept", HeaderValue::from_bytes(&[0xff, b',', 0xfe]).unwrap());
        read_from("10.0.0.1:1", &mut request).unwrap();
        assert!(!navigation::is_navigation(request.method(), request.headers(), Windows::Own));
        assert_eq!(request.headers()["accept"].as_bytes(), [0xff, b',', 0xfe]);
    }

    /// What `sanitize` makes of these bytes behind hyper: `None` when hyper itself refuses them.
    fn over_the_wire(bytes: &[u8]) -> Option<Result<String, Malformed>> {
        use std::sync::Mutex;
        use tokio::io::{AsyncReadExt, AsyncWriteExt};

        static SEEN: Mutex<Option<Result<String, Malformed>>> = Mutex::new(None);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let (mut client, server) = tokio::io::duplex(64 * 1024);
            let service = hyper::service::service_fn(|request| async {
                let connection = Connection::new("203.0.113.9:1".parse().unwrap(), Scheme::Http);
                let inbound = Inbound::sanitize(request, &connection, &settings());
                let told = inbound.map(|inbound| {
                    assert_eq!(inbound.id().as_str().len(), 22);
                    assert!(!inbound.is_navigation() && inbound.upgrade().is_none() && inbound.cookies().is_empty());
                    let headers: Vec<&str> = inbound.headers().keys().map(|name| name.as_str()).collect();
                    format!("{} {} {} {headers:?}", inbound.method(), inbound.authority(), inbound.path_and_query())
                });
                *SEEN.lock().unwrap() = Some(told.map_err(|(malformed, _)| malformed));
                Ok::<_, std::convert::Infallible>(http::Response::new(crate::message::Body::Empty))
            });
            client.write_all(bytes).await.unwrap();
            client.shutdown().await.unwrap();
            let serving = hyper::server::conn::http1::Builder::new()
                .half_close(true)
                .serve_connection(hyper_util::rt::TokioIo::new(server), service);
            let _ = serving.await;
            let _ = client.read_to_end(&mut Vec::new()).await;
        });
        SEEN.lock().unwrap().take()
    }

    #[test]
    fn raw_requests_have_one_reading_or_none() {
        let table: &[(&str, Option<Result<&str, Malformed>>)] = &[
            ("GET /a?b#c HTTP/1.1\r\nHost: a\r\n\r\n", Some(Ok("GET a /a?b [\"host\"]"))),
            ("GET /a HTTP/1.1\nHost: a\n\n", Some(Ok("GET a /a [\"host\"]"))),
            (
                "POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
                Some(Ok("POST a /a [\"host\", \"transfer-encoding\"]")),
            ),
            ("GET http://A/x HTTP/1.1\r\nHost: a\r\nRemote_User: x\r\n\r\n", Some(Ok("GET A /x [\"host\"]"))),
            ("GET /a HTTP/1.1\r\n\r\n", Some(Err(Malformed::HostMissing))),
            ("GET /a HTTP/1.0\r\n\r\n", Some(Err(Malformed::HostMissing))),
            ("GET /a HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", Some(Err(Malformed::HostRepeated))),
            ("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", Some(Err(Malformed::TargetInvalid))),
            ("GET /a\\b HTTP/1.1\r\nHost: a\r\n\r\n", Some(Err(Malformed::Path(PathError::Backslash)))),
            ("GET http:http://internal/admin HTTP/1.1\r\nHost: a\r\n\r\n", None),
            ("GET /a HTTP/1.1\r\nHost: a\r\nX: \0\r\n\r\n", None),
            (
                "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
                Some(Err(Malformed::TransferCoding)),
            ),
        ];
        for (bytes, wanted) in table {
            let wanted = wanted.clone().map(|told| told.map(str::to_owned));
            assert_eq!(over_the_wire(bytes.as_bytes()), wanted, "{bytes:?}");
        }
    }
}
