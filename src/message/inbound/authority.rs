//! Host and port as a request names them.

use std::net::Ipv6Addr;
use std::sync::Arc;

use http::HeaderValue;

/// A host with an optional port, as written and as compared; a clone is the same one. It shares no bytes with the request, so
/// that it can be [recalled](crate::message::Recall) without them.
#[derive(Debug, Clone)]
pub(in crate::message) struct Authority(Arc<Named>);

#[derive(Debug)]
struct Named {
    text: HeaderValue,
    host: String,
    port: Option<u16>,
}

impl Authority {
    /// Reads `host`, `host:port`, `[v6]` or `[v6]:port` (RFC 9110 §7.2). Host names are letters, digits, `-`, `_` and single
    /// dots; no user information, no percent-encoding, no empty port.
    pub(in crate::message) fn parse(text: &[u8]) -> Option<Self> {
        let value = HeaderValue::from_bytes(text).ok()?;
        let text = std::str::from_utf8(text).ok()?;
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (address, after) = rest.split_once(']')?;
                let address: Ipv6Addr = address.parse().ok()?;
                (format!("[{address}]"), after)
            }
            None => {
                let end = text.bytes().position(|byte| byte == b':').unwrap_or(text.len());
                (named(&text[..end])?, &text[end..])
            }
        };
        let port = match port.strip_prefix(':') {
            Some(digits) => Some(port_number(digits)?),
            None if port.is_empty() => None,
            None => return None,
        };
        Some(Self(Arc::new(Named { text: value, host, port })))
    }

    /// As written.
    pub(super) fn as_str(&self) -> &str {
        // It was text when it was read.
        self.0.text.to_str().unwrap_or_default()
    }

    /// As written, for a header; no copy.
    pub(in crate::message) fn value(&self) -> &HeaderValue {
        &self.0.text
    }

    /// Lower case, no trailing dot, no port; IPv6 shortened and in brackets.
    pub(in crate::message) fn host(&self) -> &str {
        &self.0.host
    }

    /// Whether both name the same place, a port left out being `default_port`.
    pub(super) fn agrees(&self, other: &Self, default_port: u16) -> bool {
        self.host() == other.host() && self.0.port.unwrap_or(default_port) == other.0.port.unwrap_or(default_port)
    }
}

/// A name or an IPv4 address at the beginning of the text, as compared.
fn named(host: &str) -> Option<String> {
    // RFC 1035 §2.3.4.
    const MAX_HOST: usize = 255;
    let trimmed = host.strip_suffix('.').unwrap_or(host);
    let mut label = 0;
    for byte in trimmed.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => label += 1,
            b'.' if label > 0 => label = 0,
            _ => return None,
        }
    }
    match label {
        0 => None,
        _ if trimmed.len() > MAX_HOST => None,
        _ => Some(trimmed.to_ascii_lowercase()),
    }
}

fn port_number(digits: &str) -> Option<u16> {
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Option<Authority> {
        Authority::parse(text.as_bytes())
    }

    #[test]
    fn hosts_are_compared_lower_case_without_dot_and_port() {
        for (text, host) in [
            ("app.example.com", "app.example.com"),
            ("APP.Example.com.:8080", "app.example.com"),
            ("localhost:65535", "localhost"),
            ("my_service", "my_service"),
            ("127.0.0.1:80", "127.0.0.1"),
            ("[::1]", "[::1]"),
            ("[2001:DB8:0:0::1]:443", "[2001:db8::1]"),
        ] {
            let authority = parse(text).unwrap();
            assert_eq!((authority.host(), authority.as_str()), (host, text));
        }
    }

    #[test]
    fn what_is_no_host_is_refused() {
        for text in [
            "",
            ".",
            ":80",
            "a..b",
            ".a",
            "a..",
            "a b",
            "user@a",
            "a:b@c",
            "a%2eb",
            "a/b",
            "a\\b",
            "a?b",
            "a#b",
            "a,b",
            "a:",
            "a:-1",
            "a:+1",
            "a:65536",
            "a:8o",
            "a:80:80",
            "::1",
            "[::1",
            "::1]",
            "[::1]x",
            "[fe80::1%25eth0]",
            "[a]",
            "[]",
            "[1.2.3.4]",
            "ä.example",
            "a\u{0}",
            "a\tb",
            "[::1]:",
            "a;b",
            "*.a",
        ] {
            assert!(parse(text).is_none(), "{text:?}");
        }
        assert!(parse(&"a.".repeat(200)).is_none());
    }

    #[test]
    fn a_port_left_out_is_the_default() {
        let parse = |text| parse(text).unwrap();
        assert!(parse("a").agrees(&parse("A.:80"), 80));
        assert!(parse("a:443").agrees(&parse("a"), 443));
        assert!(!parse("a:8080").agrees(&parse("a"), 80));
        assert!(!parse("a").agrees(&parse("b"), 80));
    }
}
