//! Header names that only we may set, compared after folding: case ignored, every character that is not a letter or digit
//! counted as the same one (`X_Forwarded.User` is `X-Forwarded-User`). CVE-2025-64484 and its relatives end here.
//!
//! Also here: what never travels further than one connection, what changes a request after it was judged, which names
//! mean something to HTTP itself, and what gRPC is known by.

use http::header::{CONNECTION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, TE};

/// The closed list of identity header names: the configured ones, our defaults, and the field's usual ones.
#[derive(Debug, Clone)]
pub struct IdentityNames {
    patterns: Vec<FoldedName>,
    /// The first characters that occur, as bits: most names are told apart by it.
    first: u64,
}

impl IdentityNames {
    /// The built-in list plus `configured` names.
    pub fn new<I, S>(configured: I) -> Self
    where
        I: IntoIterator<Item = S>,
        S: AsRef<str>,
    {
        let built_in = BUILT_IN.iter().map(|name| FoldedName::new(name));
        let configured = configured.into_iter().map(|name| FoldedName { text: fold(name.as_ref()), is_prefix: false });
        let mut patterns: Vec<FoldedName> = built_in.chain(configured).filter(|name| !name.text.is_empty()).collect();
        patterns.sort_unstable();
        patterns.dedup();
        let first = patterns.iter().filter_map(|name| name.text.bytes().next()).fold(0, |bits, byte| bits | bit(byte));
        Self { patterns, first }
    }

    /// Whether `name`, in any spelling, is on the list.
    pub fn covers(&self, name: &str) -> bool {
        let name = name.as_bytes();
        let Some(first) = name.first() else { return false };
        self.first & bit(*first) != 0 && self.patterns.iter().any(|pattern| pattern.matches(name))
    }

    /// Removes every header on the list, silently.
    pub fn strip(&self, headers: &mut HeaderMap) {
        remove_where(headers, |name| self.covers(name));
    }

    /// Removes from trailers what only a header section may carry or only we may write (RFC 9110 §6.5.1): identity names,
    /// forwarding and overriding names, framing, cookies and credentials, in any spelling.
    pub fn strip_trailers(&self, trailers: &mut HeaderMap) {
        remove_where(trailers, |name| {
            self.covers(name)
                || is_forwarding(name)
                || OVERRIDES.iter().chain(NOT_IN_TRAILERS).any(|listed| eq_folded(listed.as_bytes(), name.as_bytes()))
        });
    }
}

/// The built-in list: never empty, so that a forgotten setting fails closed.
impl Default for IdentityNames {
    fn default() -> Self {
        Self::new(std::iter::empty::<&str>())
    }
}

/// What applications behind identity-aware proxies usually read; a `*` at the end stands for anything.
const BUILT_IN: &[&str] = &[
    "x-forwarded-user",
    "x-forwarded-email",
    "x-forwarded-preferred-username",
    "x-forwarded-groups",
    "x-forwarded-roles",
    "x-forwarded-access-token",
    "remote-user",
    "x-remote-user",
    "x-webauth-user",
    // Ours too: a second spelling could pass for the id that we give.
    "x-request-id",
    "x-auth-request-*",
    "x-vestibule-*",
    "ssl-client-*",
];

/// Beside the identity names and the names below: what a trailer section must not set (RFC 9110 §6.5.1).
const NOT_IN_TRAILERS: &[&str] = &[
    "authorization",
    "connection",
    "content-encoding",
    "content-length",
    "content-range",
    "content-type",
    "cookie",
    "expect",
    "host",
    "http2-settings",
    "keep-alive",
    "proxy",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "set-cookie",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "www-authenticate",
];

/// A name or the beginning of names, folded.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct FoldedName {
    text: String,
    is_prefix: bool,
}

impl FoldedName {
    fn new(pattern: &str) -> Self {
        match pattern.strip_suffix('*') {
            Some(prefix) => Self { text: fold(prefix), is_prefix: true },
            None => Self { text: fold(pattern), is_prefix: false },
        }
    }

    fn matches(&self, name: &[u8]) -> bool {
        let wanted = self.text.as_bytes();
        let name = if self.is_prefix { name.get(..wanted.len()).unwrap_or(name) } else { name };
        eq_folded(wanted, name)
    }
}

/// The names by which proxies tell whom they forward for: `X-Forwarded-*`, `X-Real-IP`, `Forwarded`, in any spelling.
pub fn is_forwarding(name: &str) -> bool {
    let name = name.as_bytes();
    match name.first().copied().map(fold_byte) {
        Some(b'x') => {
            name.get(..12).is_some_and(|start| eq_folded(b"x-forwarded-", start)) || eq_folded(b"x-real-ip", name)
        }
        Some(b'f') => eq_folded(b"forwarded", name),
        _ => false,
    }
}

/// Removes the forwarding headers of whoever called; what they said is in [`super::Client`] as far as it is believed.
pub fn strip_forwarding(headers: &mut HeaderMap) {
    remove_where(headers, is_forwarding);
}

/// Headers that make some applications answer for another path or method than the one that was judged.
pub(super) const OVERRIDES: &[&str] =
    &["x-original-url", "x-rewrite-url", "x-http-method", "x-http-method-override", "x-method-override"];

/// Removes the headers that change a request after judgement (`X-Original-URL`, `X-HTTP-Method-Override` and their like, in
/// any spelling), but those named in `let_through`.
pub fn strip_override(headers: &mut HeaderMap, let_through: &[String]) {
    remove_where(headers, |name| {
        // A route lets through the very name it writes, not each of its spellings.
        name.starts_with(['x', 'X'])
            && OVERRIDES.iter().any(|listed| eq_folded(listed.as_bytes(), name.as_bytes()))
            && !let_through.iter().any(|allowed| allowed.eq_ignore_ascii_case(name))
    });
}

/// Removes what belongs to one connection only (RFC 9110 §7.6.1): `Connection` and what it names, `Keep-Alive`,
/// `Proxy-Connection`, `Proxy-Authenticate`, `Proxy-Authorization`, `TE` (but `trailers`), `Transfer-Encoding`, `Upgrade`; and
/// `Proxy`, which means nothing in HTTP and too much to some applications.
///
/// `Connection` cannot name fields with a meaning of their own (`Host`, `Cookie`, `Authorization`, `Content-*`, …: see
/// [`is_functional`]) nor `X-Forwarded-*`: these are ignored there. Identity headers are written after this, so that nothing
/// can name them. `Trailer` stays. `TE: trailers` stays as such; whoever sends it on adds `Connection: te` (RFC 9110 §10.1.4).
pub fn strip_hop_by_hop(headers: &mut HeaderMap) {
    // `Connection` and `TE` are of them, too.
    if !headers.keys().any(|name| is_hop_by_hop(name.as_str())) {
        return;
    }
    for name in named_by_connection(headers) {
        headers.remove(name);
    }
    let wants_trailers = list_members(headers, &TE).any(|member| {
        let coding = member.split(|byte| *byte == b';').next().unwrap_or_default();
        coding.trim_ascii().eq_ignore_ascii_case(b"trailers")
    });
    remove_where(headers, is_hop_by_hop);
    if wants_trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
}

fn is_hop_by_hop(name: &str) -> bool {
    // Most names are told apart by how they begin.
    matches!(name.as_bytes(), [b'c' | b'h' | b'k' | b'p' | b't' | b'u', ..]) && HOP_BY_HOP.contains(&name)
}

/// In lower case, as a map holds them.
pub(super) const HOP_BY_HOP: &[&str] = &[
    "connection",
    // Part of the h2c upgrade, which never happens here.
    "http2-settings",
    "keep-alive",
    // No field of HTTP: CGI applications take it for the environment variable HTTP_PROXY (CVE-2016-5385).
    "proxy",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "transfer-encoding",
    "upgrade",
];

/// The headers that `Connection` names and may name.
fn named_by_connection(headers: &HeaderMap) -> Vec<HeaderName> {
    list_members(headers, &CONNECTION)
        .filter(|option| {
            ![&b"close"[..], b"keep-alive", b"upgrade", b"te"].iter().any(|one| option.eq_ignore_ascii_case(one))
        })
        .filter_map(|option| HeaderName::from_bytes(option).ok())
        .filter(|name| !is_functional(name.as_str()) && !is_forwarding(name.as_str()))
        .collect()
}

/// Whether HTTP itself, browsers or proxies give `name` a meaning (in any spelling), so that it cannot carry an identity.
/// Answers for `Content-*`, `Host`, `Cookie`, `Set-Cookie`, `Authorization`, `If-*`, `Range`, `Origin`, `Connection`,
/// `Transfer-Encoding`, `Accept*`, `Sec-*`, `X-Forwarded-For`, … .
pub fn is_functional(name: &str) -> bool {
    let folded = fold(name);
    FUNCTIONAL.contains(&folded.as_str())
        || FUNCTIONAL_PREFIXES.iter().any(|prefix| folded.starts_with(prefix))
        || OVERRIDES.contains(&folded.as_str())
}

const FUNCTIONAL_PREFIXES: &[&str] = &["accept-", "access-control-", "content-", "if-", "proxy-", "sec-"];

const FUNCTIONAL: &[&str] = &[
    "accept",
    "age",
    "allow",
    "alt-svc",
    "authorization",
    "cache-control",
    "clear-site-data",
    "connection",
    "cookie",
    "date",
    "etag",
    "expect",
    "expires",
    "forwarded",
    "from",
    "host",
    "http2-settings",
    "keep-alive",
    "last-modified",
    "link",
    "location",
    "max-forwards",
    "origin",
    "pragma",
    "range",
    "referer",
    "referrer-policy",
    "retry-after",
    "server",
    "set-cookie",
    "strict-transport-security",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
    "vary",
    "via",
    "www-authenticate",
    "x-content-type-options",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-prefix",
    "x-forwarded-proto",
    "x-frame-options",
    "x-real-ip",
    "x-request-id",
    "x-requested-with",
];

/// Whether this is `application/grpc`, with any message format. gRPC-Web (`application/grpc-web`) comes from scripts in
/// browsers, which see the status of HTTP and are told where to sign in, as every other script is.
pub fn is_grpc(headers: &HeaderMap) -> bool {
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let media_type = content_type.split(';').next().unwrap_or_default().trim();
    let after = media_type.get(..16).filter(|start| start.eq_ignore_ascii_case("application/grpc"));
    after.is_some_and(|start| media_type.len() == start.len() || media_type[start.len()..].starts_with('+'))
}

/// Folds a header name for comparison: ASCII lower case, every non-alphanumeric byte as `-`.
pub fn fold(name: &str) -> String {
    name.bytes().map(|byte| fold_byte(byte) as char).collect()
}

/// A character of a token (RFC 9110 §5.6.2).
pub fn is_token(byte: u8) -> bool {
    matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'A'..=b'Z' | b'!' | b'#'..=b'\'' | b'*' | b'+' | b'^'..=b'`' | b'|' | b'~')
}

/// The members of a comma-separated field over all its lines, white space trimmed, empty ones left out (RFC 9110 §5.6.1).
pub(super) fn list_members<'h>(headers: &'h HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'h [u8]> {
    let lines = headers.get_all(name).into_iter();
    lines
        .flat_map(|line| line.as_bytes().split(|byte| *byte == b','))
        .map(<[u8]>::trim_ascii)
        .filter(|member| !member.is_empty())
}

/// Removes the headers whose name `unwanted` picks; allocates only when there is one.
pub(super) fn remove_where(headers: &mut HeaderMap, unwanted: impl Fn(&str) -> bool) {
    let names: Vec<HeaderName> = headers.keys().filter(|name| unwanted(name.as_str())).cloned().collect();
    for name in names {
        headers.remove(name);
    }
}

/// Whether `name` folds to `folded`.
pub(super) fn eq_folded(folded: &[u8], name: &[u8]) -> bool {
    folded.len() == name.len() && folded.iter().zip(name).all(|(wanted, byte)| *wanted == fold_byte(*byte))
}

fn fold_byte(byte: u8) -> u8 {
    if byte.is_ascii_alphanumeric() { byte.to_ascii_lowercase() } else { b'-' }
}

/// A folded character's bit.
fn bit(byte: u8) -> u64 {
    1 << match fold_byte(byte) {
        letter @ b'a'..=b'z' => letter - b'a',
        digit @ b'0'..=b'9' => 26 + digit - b'0',
        _ => 36,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn map(lines: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    fn names(headers: &HeaderMap) -> Vec<&str> {
        let mut names: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn every_spelling_of_an_identity_header_is_covered() {
        let identity = IdentityNames::new(["X-Department", "My.Role"]);
        for name in [
            "X-Forwarded-User",
            "x_forwarded_user",
            "X.Forwarded~Email",
            "X-FORWARDED_PREFERRED.USERNAME",
            "x-forwarded-groups",
            "X-Forwarded-Roles",
            "X-Forwarded-Access-Token",
            "Remote-User",
            "REMOTE_USER",
            "X-Remote-User",
            "X_WebAuth_User",
            "X-Auth-Request-Email",
            "x_auth_request_anything",
            "X-Auth-Request-",
            "X-Vestibule-Session",
            "SSL_CLIENT_S_DN",
            "Ssl-Client-Verify",
            "X-Department",
            "x!department",
            "my_role",
        ] {
            assert!(identity.covers(name), "{name}");
        }
    }

    #[test]
    fn names_outside_the_list_pass() {
        let identity = IdentityNames::default();
        let untouched = [
            ("x-user-agent", "1"),
            ("x-auth-token", "2"),
            ("x_api_key", "3"),
            ("x-auth-request", "4"),
            ("x-forwarded-userx", "5"),
            ("ssl-clientx", "6"),
            ("x--forwarded-user", "7"),
            ("user", "8"),
        ];
        let mut headers = map(&untouched);
        headers.append("remote-user", HeaderValue::from_static("root"));
        headers.append("remote-user", HeaderValue::from_static("root again"));
        identity.strip(&mut headers);
        assert_eq!(headers, map(&untouched));
        assert!(!identity.covers(""));
    }

    #[test]
    fn a_name_configured_empty_covers_nothing_else() {
        assert!(!IdentityNames::new([""]).covers("x-a"));
        // A star is only ours to write: configured, it is a character like any other.
        assert!(!IdentityNames::new(["x-*"]).covers("x-anything"));
    }

    #[test]
    fn trailers_lose_framing_credentials_and_identity() {
        let mut trailers = map(&[
            ("grpc-status", "0"),
            ("content-digest", "sha-256=:x:"),
            ("server-timing", "a"),
            ("x_forwarded_user", "root"),
            ("x-forwarded-for", "1.2.3.4"),
            ("Transfer_Encoding", "chunked"),
            ("content-length", "3"),
            ("cookie", "a=b"),
            ("set-cookie", "a=b"),
            ("authorization", "Bearer x"),
            ("proxy-authorization", "x"),
            ("host", "x"),
            ("x-http-method-override", "DELETE"),
        ]);
        IdentityNames::default().strip_trailers(&mut trailers);
        assert_eq!(names(&trailers), ["content-digest", "grpc-status", "server-timing"]);
    }

    #[test]
    fn forwarding_names_go_in_every_spelling() {
        let mut headers = map(&[
            ("x-forwarded-for", "1"),
            ("x_forwarded_proto", "1"),
            ("X.Forwarded.Prefix", "1"),
            ("x-real-ip", "1"),
            ("X_Real_IP", "1"),
            ("forwarded", "1"),
            ("x-forwardedfor", "kept"),
            ("forwarded-by", "kept"),
        ]);
        strip_forwarding(&mut headers);
        assert_eq!(names(&headers), ["forwarded-by", "x-forwardedfor"]);
    }

    #[test]
    fn overriding_headers_go_unless_let_through_by_name() {
        let lines = [
            ("X-Original-URL", "/admin"),
            ("X_Rewrite_URL", "/admin"),
            ("X-HTTP-Method", "DELETE"),
            ("X-HTTP-Method-Override", "DELETE"),
            ("X_HTTP_Method_Override", "DELETE"),
            ("X-Method-Override", "DELETE"),
            ("X-Other", "1"),
        ];
        let mut headers = map(&lines);
        strip_override(&mut headers, &[]);
        assert_eq!(names(&headers), ["x-other"]);
        let mut headers = map(&lines);
        strip_override(&mut headers, &["x-http-method-override".to_owned()]);
        assert_eq!(names(&headers), ["x-http-method-override", "x-other"]);
    }

    #[test]
    fn hop_by_hop_headers_go() {
        assert!(HOP_BY_HOP.iter().all(|name| is_hop_by_hop(name)));
        let mut headers = map(&[
            ("connection", "close, X-Mine ,,\"quoted\", upgrade"),
            ("connection", "x-other"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "x"),
            ("proxy-authorization", "x"),
            ("te", "gzip;q=0.5, Trailers"),
            ("trailer", "x-sum"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "websocket"),
            ("http2-settings", "x"),
            ("x-mine", "1"),
            ("x-other", "1"),
            ("x-stays", "1"),
        ]);
        strip_hop_by_hop(&mut headers);
        assert_eq!(names(&headers), ["te", "trailer", "x-stays"]);
        assert_eq!(headers["te"], "trailers");
        let mut headers = map(&[("te", "gzip")]);
        strip_hop_by_hop(&mut headers);
        assert!(headers.is_empty());
    }

    #[test]
    fn connection_cannot_name_what_has_a_meaning() {
        let kept = [
            ("authorization", "x"),
            ("content-length", "3"),
            ("content-type", "x"),
            ("cookie", "a=b"),
            ("forwarded", "x"),
            ("host", "h"),
            ("origin", "https://evil.example"),
            ("sec-fetch-site", "cross-site"),
            ("x-forwarded-for", "x"),
            ("x-forwarded-user", "ada"),
            ("x-real-ip", "x"),
        ];
        let mut headers = map(&kept);
        for (name, _) in kept {
            headers.append("connection", HeaderValue::from_static(name));
        }
        strip_hop_by_hop(&mut headers);
        assert_eq!(headers, map(&kept));
    }

    #[test]
    fn functional_names_are_known_in_every_spelling() {
        for name in [
            "Content-Type",
            "content_anything",
            "HOST",
            "Cookie",
            "Set-Cookie",
            "Authorization",
            "If-Match",
            "Range",
            "Origin",
            "Connection",
            "Transfer_Encoding",
            "TE",
            "Trailer",
            "Upgrade",
            "Expect",
            "Accept",
            "Accept-Language",
            "Forwarded",
            "X-Forwarded-For",
            "X-Forwarded-Host",
            "X-Forwarded-Proto",
            "X-Forwarded-Port",
            "X-Forwarded-Prefix",
            "X-Real-Ip",
            "User-Agent",
            "Referer",
            "Sec-Fetch-Mode",
            "Date",
            "Via",
            "X-HTTP-Method-Override",
            "Proxy-Authorization",
        ] {
            assert!(is_functional(name), "{name}");
        }
        for name in ["X-Forwarded-User", "X-Department", "Remote-User", "Ifx", "Contentment", "Hostname"] {
            assert!(!is_functional(name), "{name}");
        }
    }

    /// A name on the list, with its case and separators changed at will.
    fn respelled() -> impl Strategy<Value = String> {
        let listed = proptest::sample::select(BUILT_IN.to_vec());
        let changes = proptest::collection::vec((any::<bool>(), "[!#$%&'*+.^_`|~-]"), 64);
        (listed, "[A-Za-z0-9_.-]{1,8}", changes).prop_map(|(listed, rest, changes)| {
            let whole = listed.strip_suffix('*').map_or(listed.to_owned(), |prefix| format!("{prefix}{rest}"));
            let respell = |(letter, (upper, separator)): (char, &(bool, String))| match letter {
                '-' => separator.clone(),
                _ if *upper => letter.to_ascii_uppercase().to_string(),
                _ => letter.to_string(),
            };
            whole.chars().zip(&changes).map(respell).collect()
        })
    }

    proptest! {
        #[test]
        fn whatever_the_spelling_no_listed_name_is_left(
            listed in proptest::collection::vec(respelled(), 0..8),
            others in proptest::collection::vec("[A-Za-z0-9!#$%&'*+.^_`|~-]{1,24}", 0..8),
        ) {
            let identity = IdentityNames::new(["X-Department"]);
            let mut headers = HeaderMap::new();
            for name in listed.iter().chain(&others) {
                headers.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_static("v"));
            }
            identity.strip(&mut headers);
            for name in headers.keys() {
                let folded = fold(name.as_str());
                for pattern in BUILT_IN.iter().chain(&["x-department"]) {
                    let hit = match pattern.strip_suffix('*') {
                        Some(prefix) => folded.starts_with(prefix),
                        None => folded == *pattern,
                    };
                    prop_assert!(!hit, "{name} is left");
                }
            }
            for name in &others {
                prop_assert_eq!(identity.covers(name), !headers.contains_key(name.as_str()), "{}", name);
            }
        }
    }

    #[test]
    fn grpc_is_told_by_its_media_type_and_grpc_web_is_a_script() {
        for (content_type, wanted) in [
            ("application/grpc", true),
            ("application/grpc+proto", true),
            ("Application/gRPC; charset=utf-8", true),
            ("application/grpc-web", false),
            ("application/grpc-web+proto", false),
            ("application/grpc-web-text", false),
            ("application/grpcx", false),
            ("application/json", false),
            ("", false),
        ] {
            assert_eq!(is_grpc(&map(&[("content-type", content_type)])), wanted, "{content_type}");
        }
    }
}
