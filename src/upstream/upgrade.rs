//! Protocol upgrades: a tunnel opens only after a checked 101 (RFC 9110 §7.8, RFC 6455 §4.2.2).

use aws_lc_rs::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, UPGRADE};
use http::{HeaderMap, HeaderValue};
use hyper::upgrade::OnUpgrade;

use super::UpstreamError;
use super::tunnel::Client;
use crate::route::Route;

const WEBSOCKET: &str = "websocket";
/// RFC 6455 §1.3.
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// An upgrade that a request asks for and its route allows.
#[derive(Debug)]
pub(super) struct Upgrade {
    protocol: HeaderValue,
    key: Option<HeaderValue>,
    client: OnUpgrade,
    is_tunnel: bool,
}

/// Whether `protocol` (lower case) may be asked for on `route`. h2c never: requests inside it would pass unjudged.
pub(super) fn is_allowed(protocol: &str, route: &Route) -> bool {
    protocol != "h2c" && (protocol == WEBSOCKET || route.upgrades.iter().any(|allowed| allowed == protocol))
}

impl Upgrade {
    /// `headers` are the client's, `client` its connection, or its stream, of which it asked for nothing else when
    /// `is_tunnel`.
    pub(super) fn new(protocol: HeaderValue, headers: &HeaderMap, client: OnUpgrade, is_tunnel: bool) -> Self {
        Self { key: headers.get(SEC_WEBSOCKET_KEY).cloned(), protocol, client, is_tunnel }
    }

    /// Whether no other success will do (RFC 8441 §4: a 2xx opens the tunnel, whatever came with it).
    pub(super) fn is_tunnel(&self) -> bool {
        self.is_tunnel
    }

    /// The protocol's name, for `Upgrade`.
    pub(super) fn protocol(&self) -> HeaderValue {
        self.protocol.clone()
    }

    /// Whether a 101 with `headers` is the answer to this very request.
    pub(super) fn check(&self, headers: &HeaderMap) -> Result<(), UpstreamError> {
        let mut protocols = headers.get_all(UPGRADE).iter();
        let protocol = protocols.next().filter(|_| protocols.next().is_none()).ok_or(UpstreamError::Invalid)?;
        if !protocol.as_bytes().trim_ascii().eq_ignore_ascii_case(self.protocol.as_bytes()) {
            return Err(UpstreamError::Invalid);
        }
        if !self.is_websocket() {
            return Ok(());
        }
        let accept = self.key.as_ref().map(|key| accept_for(key.as_bytes())).ok_or(UpstreamError::Invalid)?;
        let mut given = headers.get_all(SEC_WEBSOCKET_ACCEPT).iter();
        match (given.next(), given.next()) {
            (Some(given), None) if given.as_bytes().trim_ascii() == accept.as_bytes() => Ok(()),
            _ => Err(UpstreamError::Invalid),
        }
    }

    /// The client's half, for the tunnel.
    pub(super) fn into_client(self) -> Client {
        Client { websocket: self.is_websocket(), upgrade: self.client }
    }

    fn is_websocket(&self) -> bool {
        self.protocol.as_bytes() == WEBSOCKET.as_bytes()
    }
}

fn accept_for(key: &[u8]) -> String {
    let mut digest = Context::new(&SHA1_FOR_LEGACY_USE_ONLY);
    digest.update(key.trim_ascii());
    digest.update(GUID);
    STANDARD.encode(digest.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_accept_value_is_that_of_the_rfc() {
        assert_eq!(accept_for(b"dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn h2c_is_never_allowed_and_others_only_by_name() {
        let route = Route { upgrades: vec!["h2c".to_owned(), "spdy/3.1".to_owned()], ..Route::default() };
        let allowed = ["websocket", "spdy/3.1", "h2c", "tls/1.0"].map(|protocol| is_allowed(protocol, &route));
        assert_eq!(allowed, [true, true, false, false]);
    }

    #[test]
    fn a_101_must_fit_the_request() {
        let upgrade = |protocol: &'static str, key: Option<&'static str>| {
            let mut headers = HeaderMap::new();
            key.map(|key| headers.insert(SEC_WEBSOCKET_KEY, HeaderValue::from_static(key)));
            Upgrade::new(
                HeaderValue::from_static(protocol),
                &headers,
                hyper::upgrade::on(http::Request::new(())),
                false,
            )
        };
        let answer = |fields: &[(&'static str, &'static str)]| {
            fields.iter().map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value))).collect()
        };
        let key = Some("dGhlIHNhbXBsZSBub25jZQ==");
        let right = ("sec-websocket-accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        let cases: [(_, _, HeaderMap, bool); 7] = [
            ("websocket", key, answer(&[("upgrade", "WebSocket"), right]), true),
            ("websocket", key, answer(&[("upgrade", "websocket")]), false),
            ("websocket", key, answer(&[("upgrade", "websocket"), ("sec-websocket-accept", "AAAA")]), false),
            ("websocket", key, answer(&[("upgrade", "other"), right]), false),
            ("websocket", key, answer(&[right]), false),
            ("websocket", None, answer(&[("upgrade", "websocket"), right]), false),
            ("spdy/3.1", None, answer(&[("upgrade", "SPDY/3.1")]), true),
        ];
        for (protocol, key, headers, fits) in cases {
            assert_eq!(upgrade(protocol, key).check(&headers).is_ok(), fits, "{protocol} {headers:?}");
        }
    }
}
