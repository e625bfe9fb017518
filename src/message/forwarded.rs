//! Who the client is and how it reached us: `X-Forwarded-*`, `X-Real-IP` and `Forwarded` (RFC 7239) are believed only from
//! peers in the configured networks, and written anew by us.
//!
//! Of a trusted peer's word only the client's address and scheme are used. Its `X-Forwarded-Host` is not: the host that
//! routes, origins and cookies go by is the one of the request itself.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use bytes::Bytes;
use http::header::{FORWARDED, HeaderMap, HeaderName, HeaderValue};
use ipnet::IpNet;

use super::headers::{is_token, list_members};

/// The scheme the user agent used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// Plain HTTP.
    Http,
    /// HTTP over TLS.
    Https,
}

impl Scheme {
    /// As it stands in a URL.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    /// Exactly `http` or `https`, in any case; nothing else has a meaning here (CVE-2023-35944).
    fn parse(text: &[u8]) -> Option<Self> {
        match text {
            _ if text.eq_ignore_ascii_case(b"http") => Some(Self::Http),
            _ if text.eq_ignore_ascii_case(b"https") => Some(Self::Https),
            _ => None,
        }
    }
}

/// The client as far as it can be believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Client {
    /// Its address: the socket's peer, or the right-most untrusted hop when the peer is a trusted proxy.
    pub address: IpAddr,
    /// The scheme it used.
    pub scheme: Scheme,
    /// The value for `X-Forwarded-For` towards the upstream: the trusted chain and the peer.
    pub forwarded_for: HeaderValue,
}

/// Where a request came from, as its upstream is told.
#[derive(Debug)]
pub struct Forwarding {
    client: Client,
    authority: HeaderValue,
    fields: [(HeaderName, Option<HeaderValue>); 5],
}

/// A socket's peer: its address, an IPv4 address as such however it came, and the same as text.
#[derive(Debug, Clone)]
pub(super) struct Peer {
    address: IpAddr,
    text: HeaderValue,
}

impl Peer {
    pub(super) fn new(address: IpAddr) -> Self {
        let address = address.to_canonical();
        Self { address, text: text_of(address) }
    }
}

fn text_of(text: impl ToString) -> HeaderValue {
    // Addresses with commas between them are always valid.
    HeaderValue::try_from(text.to_string()).unwrap_or_else(|_| HeaderValue::from_static("unknown"))
}

impl Client {
    /// The client of a request that came from `peer` over `scheme`. The forwarding headers count only when `peer` is in one
    /// of the `trusted` networks; what is malformed there ends the chain, so that the nearest hop that is known counts.
    pub(super) fn derive(headers: &HeaderMap, peer: &Peer, scheme: Scheme, trusted: &[IpNet]) -> Self {
        let Peer { address: peer, text } = peer;
        let Some(trusted_peer) = TrustedPeer::new(*peer, trusted) else {
            return Self { address: *peer, scheme, forwarded_for: text.clone() };
        };
        let hops = trusted_peer.hops(headers);
        let address = hops.last().copied().unwrap_or(*peer);
        let mut forwarded_for = String::new();
        for hop in hops.iter().rev() {
            let _ = write!(forwarded_for, "{hop}, ");
        }
        let _ = write!(forwarded_for, "{peer}");
        Self { address, scheme: trusted_peer.scheme(headers).unwrap_or(scheme), forwarded_for: text_of(forwarded_for) }
    }
}

/// A socket address in the configured networks: the only one whose word about others is heard.
#[derive(Debug, Clone, Copy)]
struct TrustedPeer<'t> {
    trusted: &'t [IpNet],
}

/// The longest chain that is followed.
const MAX_HOPS: usize = 32;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");

impl<'t> TrustedPeer<'t> {
    fn new(peer: IpAddr, trusted: &'t [IpNet]) -> Option<Self> {
        is_within(peer, trusted).then_some(Self { trusted })
    }

    /// The hops before the peer, nearest first, up to the first untrusted one; from `X-Forwarded-For`, else `Forwarded`,
    /// else `X-Real-IP`.
    fn hops(self, headers: &HeaderMap) -> Vec<IpAddr> {
        if headers.contains_key(X_FORWARDED_FOR) {
            let lines = headers.get_all(X_FORWARDED_FOR).into_iter().rev();
            return self.walk(lines.flat_map(|line| line.as_bytes().rsplit(|byte| *byte == b',')).map(hop_address));
        }
        if headers.contains_key(FORWARDED) {
            return self.walk(forwarded_elements(headers).into_iter().rev().map(|element| element.address));
        }
        let mut lines = headers.get_all(X_REAL_IP).into_iter();
        match (lines.next(), lines.next()) {
            (Some(line), None) => hop_address(line.as_bytes()).into_iter().collect(),
            _ => Vec::new(),
        }
    }

    fn walk(self, hops: impl Iterator<Item = Option<IpAddr>>) -> Vec<IpAddr> {
        let mut chain = Vec::new();
        for hop in hops.take(MAX_HOPS) {
            // What is behind a hop that cannot be read is nobody's word (CVE-2024-47070).
            let Some(hop) = hop else { break };
            chain.push(hop);
            if !is_within(hop, self.trusted) {
                break;
            }
        }
        chain
    }

    /// What the peer says of the scheme: the right-most value, since that one is its own.
    fn scheme(self, headers: &HeaderMap) -> Option<Scheme> {
        if headers.contains_key(X_FORWARDED_PROTO) {
            return Scheme::parse(list_members(headers, &X_FORWARDED_PROTO).last()?);
        }
        forwarded_elements(headers).last()?.scheme
    }
}

/// Whom an address stands for where clients are counted: whoever has one IPv6 address has its network of 64 bits, and counting
/// single addresses there would count nothing.
pub(crate) fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
        v4 => v4,
    }
}

/// Whether `address` is in one of the networks. An IPv4 address counts as IPv4 however it is written, on both sides.
pub(crate) fn is_within(address: IpAddr, networks: &[IpNet]) -> bool {
    networks.iter().any(|network| match (network, address) {
        // Only networks of mapped addresses can hold an IPv4 peer: `::/0` says nothing about IPv4.
        (IpNet::V6(network), IpAddr::V4(address)) => {
            network.prefix_len() >= 96
                && network.addr().to_ipv4_mapped().is_some()
                && network.contains(&address.to_ipv6_mapped())
        }
        _ => network.contains(&address),
    })
}

/// An address with or without a port, IPv6 with or without brackets.
fn hop_address(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text).ok()?.trim_matches([' ', '\t']);
    let address = text
        .parse::<IpAddr>()
        .or_else(|_| text.parse::<SocketAddr>().map(|address| address.ip()))
        .ok()
        .or_else(|| text.strip_prefix('[')?.strip_suffix(']')?.parse::<Ipv6Addr>().ok().map(IpAddr::V6))?;
    Some(address.to_canonical())
}

/// One element of `Forwarded`.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Element {
    address: Option<IpAddr>,
    scheme: Option<Scheme>,
}

/// The elements of all `Forwarded` lines, in order (RFC 7239 §4). A line with a broken quotation yields one element that
/// says nothing: it ends the chain.
fn forwarded_elements(headers: &HeaderMap) -> Vec<Element> {
    let lines = headers.get_all(FORWARDED).into_iter();
    lines.flat_map(|line| line_elements(line.as_bytes()).unwrap_or_else(|| vec![Element::default()])).collect()
}

fn line_elements(line: &[u8]) -> Option<Vec<Element>> {
    split_outside_quotes(line, b',')?
        .into_iter()
        .filter(|element| !element.trim_ascii().is_empty())
        .map(|element| {
            let mut read = Element::default();
            let (mut seen_for, mut seen_proto) = (false, false);
            for pair in split_outside_quotes(element, b';')? {
                let Some(equals) = pair.iter().position(|byte| *byte == b'=') else { continue };
                let (name, value) = (pair[..equals].trim_ascii(), unquoted(pair[equals + 1..].trim_ascii()));
                // RFC 7239 §4: each parameter occurs once; twice is malformed, and the element says nothing.
                if name.eq_ignore_ascii_case(b"for") {
                    read.address = if seen_for { None } else { hop_address(&value) };
                    seen_for = true;
                } else if name.eq_ignore_ascii_case(b"proto") {
                    read.scheme = if seen_proto { None } else { Scheme::parse(&value) };
                    seen_proto = true;
                }
            }
            Some(read)
        })
        .collect()
}

/// `None` when a quotation does not end.
fn split_outside_quotes(text: &[u8], separator: u8) -> Option<Vec<&[u8]>> {
    let mut pieces = Vec::new();
    let (mut start, mut quoted, mut escaped) = (0, false, false);
    for (at, byte) in text.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            _ if *byte == separator && !quoted => {
                pieces.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    pieces.push(&text[start..]);
    (!quoted).then_some(pieces)
}

fn unquoted(value: &[u8]) -> Vec<u8> {
    let Some(inner) = value.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\"")) else {
        return value.to_vec();
    };
    let mut text = Vec::with_capacity(inner.len());
    let mut bytes = inner.iter();
    while let Some(byte) = bytes.next() {
        // RFC 9110 §5.6.4: a backslash stands for the byte after it.
        text.push(*if *byte == b'\\' { bytes.next().unwrap_or(byte) } else { byte });
    }
    text
}

impl Forwarding {
    /// Of a client that asked for `authority`, the host with its port, as written.
    pub(super) fn new(client: Client, authority: HeaderValue) -> Self {
        let forwarded = forwarded(&client, authority.as_bytes());
        let real_ip = match client.forwarded_for.as_bytes().contains(&b',') {
            true => text_of(client.address),
            false => client.forwarded_for.clone(),
        };
        let fields = [
            (X_FORWARDED_FOR, Some(client.forwarded_for.clone())),
            (X_REAL_IP, Some(real_ip)),
            (X_FORWARDED_PROTO, Some(HeaderValue::from_static(client.scheme.as_str()))),
            (X_FORWARDED_HOST, Some(authority.clone())),
            (FORWARDED, forwarded),
        ];
        Self { client, authority, fields }
    }

    /// Whether it says what [`Forwarding::new`] would say of these.
    pub(super) fn is_of(&self, client: &Client, authority: &HeaderValue) -> bool {
        self.client == *client && self.authority == *authority
    }

    /// The host that was asked for, with its port, as written.
    pub fn authority(&self) -> &HeaderValue {
        &self.authority
    }

    /// The forwarding headers for the upstream, each to be there exactly once: `X-Forwarded-For`, `X-Forwarded-Proto`,
    /// `X-Forwarded-Host`, `X-Real-IP` and `Forwarded` (RFC 7239); one without a value not at all, since nothing is better
    /// than somebody else's.
    pub fn fields(&self) -> &[(HeaderName, Option<HeaderValue>)] {
        &self.fields
    }
}

fn forwarded(client: &Client, authority: &[u8]) -> Option<HeaderValue> {
    let chain = client.forwarded_for.as_bytes();
    let hops = chain.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
    // What stands around a hop is at most `, for="[]"`.
    let commas = chain.iter().filter(|byte| **byte == b',').count();
    let mut text = Vec::with_capacity(chain.len() + (commas + 1) * 10 + authority.len() + 21);
    for hop in hops {
        text.extend_from_slice(if text.is_empty() { b"for=" } else { b", for=" });
        // RFC 7239 §6: an IPv6 address stands in brackets and quotes.
        match hop.contains(&b':') {
            true => [b"\"[", hop, b"]\""].into_iter().for_each(|part| text.extend_from_slice(part)),
            false => text.extend_from_slice(hop),
        }
    }
    let is_quotable = !authority.is_empty() && !authority.iter().any(|byte| matches!(byte, b'"' | b'\\'));
    if is_quotable {
        let quote: &[u8] = if authority.iter().all(|byte| is_token(*byte)) { b"" } else { b"\"" };
        for part in [b";host=", quote, authority, quote] {
            text.extend_from_slice(part);
        }
    }
    text.extend_from_slice(b";proto=");
    text.extend_from_slice(client.scheme.as_str().as_bytes());
    HeaderValue::from_maybe_shared(Bytes::from(text)).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn client(peer: &str, lines: &[(&'static str, &str)]) -> Client {
        let trusted: Vec<IpNet> = ["10.0.0.0/8", "fd00::/8", "::ffff:192.168.0.0/112"]
            .iter()
            .map(|network| network.parse().unwrap())
            .collect();
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        Client::derive(&headers, &Peer::new(peer.parse().unwrap()), Scheme::Http, &trusted)
    }

    fn write(headers: &mut HeaderMap, forwarding: Forwarding) {
        for (name, value) in forwarding.fields() {
            match value {
                Some(value) => headers.insert(name, value.clone()),
                None => headers.remove(name),
            };
        }
    }

    fn forwarding(client: Client, authority: &'static str) -> Forwarding {
        Forwarding::new(client, HeaderValue::from_static(authority))
    }

    #[test]
    fn a_stranger_says_nothing_about_itself() {
        let client = client(
            "203.0.113.9",
            &[
                ("x-forwarded-for", "10.0.0.1"),
                ("x-real-ip", "10.0.0.1"),
                ("x-forwarded-proto", "https"),
                ("forwarded", "for=10.0.0.1;proto=https"),
            ],
        );
        assert_eq!(client.address.to_string(), "203.0.113.9");
        assert_eq!(client.scheme, Scheme::Http);
        assert_eq!(client.forwarded_for, "203.0.113.9");
    }

    #[test]
    fn the_right_most_untrusted_hop_is_the_client() {
        let table: &[(&str, &[&str], &str, &str)] = &[
            ("10.0.0.1", &["198.51.100.7"], "198.51.100.7", "198.51.100.7, 10.0.0.1"),
            ("10.0.0.1", &["1.1.1.1, 198.51.100.7, 10.0.0.2"], "198.51.100.7", "198.51.100.7, 10.0.0.2, 10.0.0.1"),
            ("10.0.0.1", &["1.1.1.1, 198.51.100.7", "10.0.0.2"], "198.51.100.7", "198.51.100.7, 10.0.0.2, 10.0.0.1"),
            ("10.0.0.1", &["10.0.0.3,\t10.0.0.2"], "10.0.0.3", "10.0.0.3, 10.0.0.2, 10.0.0.1"),
            ("::ffff:10.0.0.1", &["::ffff:198.51.100.7"], "198.51.100.7", "198.51.100.7, 10.0.0.1"),
            ("192.168.0.4", &["198.51.100.7:4711"], "198.51.100.7", "198.51.100.7, 192.168.0.4"),
            ("fd00::1", &["[2001:db8::5]:443"], "2001:db8::5", "2001:db8::5, fd00::1"),
            ("fd00::1", &["2001:DB8::5, [fd00::2]"], "2001:db8::5", "2001:db8::5, fd00::2, fd00::1"),
            // Malformed: the chain ends at the last hop that is known.
            ("10.0.0.1", &["a"], "10.0.0.1", "10.0.0.1"),
            ("10.0.0.1", &[""], "10.0.0.1", "10.0.0.1"),
            ("10.0.0.1", &["198.51.100.7,"], "10.0.0.1", "10.0.0.1"),
            ("10.0.0.1", &["198.51.100.7, unknown, 10.0.0.2"], "10.0.0.2", "10.0.0.2, 10.0.0.1"),
            ("10.0.0.1", &["198.51.100.7", "\u{e9}"], "10.0.0.1", "10.0.0.1"),
            ("10.0.0.1", &["fe80::1%eth0"], "10.0.0.1", "10.0.0.1"),
        ];
        for (peer, lines, address, forwarded_for) in table {
            let lines: Vec<(&'static str, &str)> = lines.iter().map(|line| ("x-forwarded-for", *line)).collect();
            let client = client(peer, &lines);
            assert_eq!(client.address.to_string(), *address, "{lines:?}");
            assert_eq!(client.forwarded_for, *forwarded_for, "{lines:?}");
        }
    }

    #[test]
    fn a_chain_of_trusted_hops_is_bounded() {
        let line = "10.0.0.2, ".repeat(500) + "10.0.0.2";
        assert_eq!(
            client("10.0.0.1", &[("x-forwarded-for", &line)]).forwarded_for.to_str().unwrap().matches(',').count(),
            MAX_HOPS
        );
    }

    #[test]
    fn every_ipv6_network_is_not_every_ipv4_network() {
        let everywhere = ["::/0".parse().unwrap()];
        assert!(!is_within("203.0.113.9".parse().unwrap(), &everywhere));
        assert!(is_within("2001:db8::1".parse().unwrap(), &everywhere));
    }

    #[test]
    fn forwarded_and_x_real_ip_are_heard_when_x_forwarded_for_is_absent() {
        let table: &[(&[(&'static str, &str)], &str)] = &[
            (&[("forwarded", "for=198.51.100.7")], "198.51.100.7"),
            (&[("forwarded", "for=1.1.1.1, For=\"198.51.100.7:1\" ; by=x, for=10.0.0.2")], "198.51.100.7"),
            (&[("forwarded", "for=\"[2001:db8::5]:443\";proto=https")], "2001:db8::5"),
            (&[("forwarded", "for=\"a,b\\\"\"")], "10.0.0.1"),
            (&[("forwarded", "for=\"198.51.100.7")], "10.0.0.1"),
            (&[("forwarded", "for=198.51.100.7;for=198.51.100.8")], "10.0.0.1"),
            (&[("forwarded", "for=_hidden, for=10.0.0.2")], "10.0.0.2"),
            (&[("x-forwarded-for", "x"), ("forwarded", "for=198.51.100.7")], "10.0.0.1"),
            (&[("x-real-ip", "198.51.100.7")], "198.51.100.7"),
            (&[("x-real-ip", "198.51.100.7"), ("x-real-ip", "198.51.100.8")], "10.0.0.1"),
        ];
        for (lines, address) in table {
            assert_eq!(client("10.0.0.1", lines).address.to_string(), *address, "{lines:?}");
        }
    }

    #[test]
    fn the_scheme_is_exactly_http_or_https() {
        let table: &[(&[(&'static str, &str)], Scheme)] = &[
            (&[("x-forwarded-proto", "https")], Scheme::Https),
            (&[("x-forwarded-proto", "HTTPS")], Scheme::Https),
            (&[("x-forwarded-proto", "http, https")], Scheme::Https),
            (&[("x-forwarded-proto", "https"), ("x-forwarded-proto", "http")], Scheme::Http),
            (&[("x-forwarded-proto", "https, javascript")], Scheme::Http),
            (&[("x-forwarded-proto", "https://evil.example")], Scheme::Http),
            (&[("x-forwarded-proto", "")], Scheme::Http),
            (&[("x-forwarded-proto", "x"), ("forwarded", "proto=https")], Scheme::Http),
            (&[("forwarded", "for=1.2.3.4;proto=http, for=10.0.0.2;proto=\"https\"")], Scheme::Https),
        ];
        for (lines, scheme) in table {
            assert_eq!(client("10.0.0.1", lines).scheme, *scheme, "{lines:?}");
        }
    }

    #[test]
    fn the_upstream_gets_each_forwarding_header_once() {
        let mut headers = HeaderMap::new();
        headers.append(X_FORWARDED_FOR, HeaderValue::from_static("evil"));
        headers.append(X_FORWARDED_FOR, HeaderValue::from_static("evil"));
        let client = client("fd00::1", &[("x-forwarded-for", "198.51.100.7"), ("x-forwarded-proto", "https")]);
        write(&mut headers, forwarding(client, "app.example.com:8443"));
        assert_eq!(headers.len(), 5);
        assert_eq!(headers["x-forwarded-for"], "198.51.100.7, fd00::1");
        assert_eq!(headers["x-real-ip"], "198.51.100.7");
        assert_eq!(headers["x-forwarded-proto"], "https");
        assert_eq!(headers["x-forwarded-host"], "app.example.com:8443");
        assert_eq!(
            headers["forwarded"],
            "for=198.51.100.7, for=\"[fd00::1]\";host=\"app.example.com:8443\";proto=https"
        );
    }

    #[test]
    fn a_plain_host_needs_no_quotes() {
        let mut headers = HeaderMap::new();
        write(&mut headers, forwarding(client("203.0.113.9", &[]), "app.example.com"));
        assert_eq!(headers["forwarded"], "for=203.0.113.9;host=app.example.com;proto=http");
        assert_eq!(headers["x-real-ip"], "203.0.113.9");
    }

    proptest! {
        #[test]
        fn a_hop_is_never_invented(
            lines in proptest::collection::vec("[ -~]{0,40}|([0-9.]{7,9}, ?){0,4}10\\.0\\.0\\.[0-9]", 0..3),
            header in proptest::sample::select(vec!["x-forwarded-for", "forwarded", "x-real-ip", "x-forwarded-proto"]),
        ) {
            let lines: Vec<(&'static str, &str)> = lines.iter().map(|line| (header, line.as_str())).collect();
            let believed = client("10.0.0.1", &lines);
            prop_assert!(believed.forwarded_for.as_bytes().ends_with(b"10.0.0.1"));
            let hops: Vec<IpAddr> = believed.forwarded_for.to_str().unwrap().split(", ").map(|hop| hop.parse().unwrap()).collect();
            // All but the first are trusted, and the first is the client.
            prop_assert_eq!(hops[0], believed.address);
            for hop in &hops[1..] {
                prop_assert!(is_within(*hop, &["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()]));
            }
            let stranger = client("203.0.113.9", &lines);
            prop_assert_eq!(stranger.forwarded_for, "203.0.113.9");
        }
    }
}
