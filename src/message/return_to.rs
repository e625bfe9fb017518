//! Where a person goes after signing in or out: parsed once, so that an open redirect cannot be written.

use std::fmt;

use url::Url;

use super::RequestPath;

/// A web origin: scheme, host and port, by the WHATWG URL standard. `Display` gives its serialization.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Origin(String);

impl Origin {
    /// The origin of an http or https URL.
    pub fn of(url: &url::Url) -> Option<Self> {
        matches!(url.scheme(), "http" | "https").then(|| Self(url.origin().ascii_serialization()))
    }

    /// `https://app.example.com`, as it stands in an `Origin` header.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A same-origin path (with query), or an absolute URL on an allowed origin. At most 2 KiB, no fragment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReturnTo(String);

/// Why a return address is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReturnToError {
    /// Longer than 2 KiB.
    #[error("the return address is too long")]
    TooLong,
    /// Does not parse, or carries control characters, backslashes or credentials.
    #[error("the return address is not a plain path or URL")]
    Invalid,
    /// Another origin than ours and not in `return_origins`.
    #[error("the return address is on another origin")]
    ForeignOrigin,
    /// Under our own prefix: it would loop.
    #[error("the return address is one of our own endpoints")]
    OwnEndpoint,
}

/// What return addresses are measured against.
#[derive(Debug, Clone)]
pub struct ReturnRules {
    /// Our public origin: that of the redirect URI.
    pub own: Origin,
    /// Further origins from `return_origins`.
    pub allowed: Vec<Origin>,
    /// Paths no one is sent back to: the prefix (`/auth`, everything below) and the callback path.
    pub own_paths: Vec<String>,
    /// The one path below these that people are sent back to all the same: where a form waits for them.
    pub kept_post: Option<String>,
}

impl ReturnTo {
    /// The front page, `/`.
    pub fn root() -> Self {
        Self("/".to_owned())
    }

    /// Parses `rd` or a request's own path and query.
    ///
    /// # Errors
    /// [`ReturnToError`]; callers fall back to [`ReturnTo::root`] or refuse.
    pub fn parse(text: &str, rules: &ReturnRules) -> Result<Self, ReturnToError> {
        if text.len() > MAX_LENGTH {
            return Err(ReturnToError::TooLong);
        }
        check_text(text)?;
        let own = Url::parse(rules.own.as_str()).map_err(|_| ReturnToError::Invalid)?;
        let url = own.join(text).map_err(|_| ReturnToError::Invalid)?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(ReturnToError::Invalid);
        }
        let origin = Origin::of(&url).ok_or(ReturnToError::ForeignOrigin)?;
        let target = if origin == rules.own {
            check_path(url.path(), rules)?;
            // Without the origin it stays ours however it is resolved.
            url[url::Position::BeforePath..].to_owned()
        } else if rules.allowed.contains(&origin) {
            String::from(url)
        } else {
            return Err(ReturnToError::ForeignOrigin);
        };
        // Percent-encoding may have made it longer.
        if target.len() > MAX_LENGTH { Err(ReturnToError::TooLong) } else { Ok(Self(target)) }
    }

    /// For a `Location` header: a path starting with exactly one `/`, or an absolute URL of an allowed origin.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The longest return address, in bytes.
const MAX_LENGTH: usize = 2048;

/// Only what browsers cannot read in two ways: `/path`, or `http(s)://host…`; none of the characters that URL parsers skip
/// or turn into something else (WHATWG URL §4.4 drops tabs and line ends and reads `\\` as `/`).
fn check_text(text: &str) -> Result<(), ReturnToError> {
    if text.chars().any(|c| c.is_control() || c.is_whitespace() || matches!(c, '\\' | '#')) {
        return Err(ReturnToError::Invalid);
    }
    let after_scheme = ["http://", "https://"]
        .iter()
        .find(|scheme| text.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme)))
        .map(|scheme| &text[scheme.len()..]);
    let is_acceptable = match after_scheme {
        Some(rest) => {
            let authority = rest.split(['/', '?']).next().unwrap_or_default();
            !authority.is_empty() && !authority.contains('@')
        }
        None => text.starts_with('/') && !text.starts_with("//"),
    };
    if is_acceptable { Ok(()) } else { Err(ReturnToError::Invalid) }
}

/// A path that we would serve, and that no reading takes elsewhere or into our own endpoints.
fn check_path(path: &str, rules: &ReturnRules) -> Result<(), ReturnToError> {
    if rules.kept_post.as_deref() == Some(path) {
        return Ok(());
    }
    let path = RequestPath::parse(path).map_err(|_| ReturnToError::Invalid)?;
    for reading in path.readings() {
        // `/.//host`, `/%2fhost`: once normalised or decoded, a reference to another host.
        if reading.starts_with("//") {
            return Err(ReturnToError::Invalid);
        }
        if rules.own_paths.iter().any(|own| is_at_or_below(reading, own)) {
            return Err(ReturnToError::OwnEndpoint);
        }
    }
    Ok(())
}

/// Whether `path` is `own` or lies below it, case ignored.
fn is_at_or_below(path: &str, own: &str) -> bool {
    let own = own.trim_end_matches('/');
    if own.is_empty() {
        return false;
    }
    let Some(start) = path.get(..own.len()) else { return false };
    start.eq_ignore_ascii_case(own) && matches!(path.as_bytes().get(own.len()), None | Some(b'/' | b';'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rules() -> ReturnRules {
        let origin = |text: &str| Origin::of(&Url::parse(text).unwrap()).unwrap();
        ReturnRules {
            own: origin("https://app.example.com"),
            allowed: vec![origin("https://other.example.com"), origin("http://localhost:3000")],
            own_paths: vec!["/auth".to_owned(), "/oidc/callback".to_owned()],
            kept_post: Some("/auth/kept-post".to_owned()),
        }
    }

    fn parse(text: &str) -> Result<String, ReturnToError> {
        ReturnTo::parse(text, &rules()).map(|target| target.as_str().to_owned())
    }

    #[test]
    fn paths_of_ours_and_allowed_origins_are_taken() {
        for (text, target) in [
            ("/", "/"),
            ("/a/b?c=d&e=//x#".trim_end_matches('#'), "/a/b?c=d&e=//x"),
            ("/a//b", "/a//b"),
            ("/a%2Fb", "/a%2Fb"),
            ("/ä?ö", "/%C3%A4?%C3%B6"),
            ("/a/../b", "/b"),
            ("/authors", "/authors"),
            ("/?next=https://evil.example/", "/?next=https://evil.example/"),
            ("https://app.example.com", "/"),
            ("HTTPS://APP.example.com:443/x", "/x"),
            ("https://app.example.com?x", "/?x"),
            ("https://other.example.com/x?y", "https://other.example.com/x?y"),
            ("https://other.example.com", "https://other.example.com/"),
            ("http://localhost:3000/auth/x", "http://localhost:3000/auth/x"),
        ] {
            assert_eq!(parse(text), Ok(target.to_owned()), "{text}");
        }
        assert_eq!(ReturnTo::root().as_str(), "/");
    }

    #[test]
    fn of_our_endpoints_only_the_one_where_a_form_waits_is_led_to() {
        assert_eq!(parse("/auth/kept-post?form=x"), Ok("/auth/kept-post?form=x".to_owned()));
        assert_eq!(parse("https://app.example.com/auth/kept-post"), Ok("/auth/kept-post".to_owned()));
        for text in [
            "/auth/kept-post/",
            "/auth/kept-post/x",
            "/auth/kept-post;x",
            "/auth/Kept-Post",
            "/auth//kept-post",
            "/auth/kept%2dpost",
            "/auth/kept-postx",
            "/auth/login",
        ] {
            assert_eq!(parse(text), Err(ReturnToError::OwnEndpoint), "{text}");
        }
        let without = ReturnRules { kept_post: None, ..rules() };
        assert!(ReturnTo::parse("/auth/kept-post", &without).is_err());
    }

    #[test]
    fn nobody_is_sent_to_another_origin() {
        for text in [
            "https://evil.example",
            "http://app.example.com/",
            "https://app.example.com:8443/",
            "https://app.example.com.evil.example/",
            "https://evilother.example.com/",
            "https://sub.other.example.com/",
            "https://other.example.com.evil.example/",
            "https://app.example.comevil.example/",
            "http://localhost:3001/",
        ] {
            assert_eq!(parse(text), Err(ReturnToError::ForeignOrigin), "{text}");
        }
    }

    #[test]
    fn tricks_are_refused() {
        for text in [
            "",
            "x",
            "?x",
            "#x",
            "/x#y",
            "./x",
            "javascript:alert(1)",
            "data:text/html,x",
            "//evil.example",
            "///evil.example",
            "http:evil.example",
            "http:/evil.example",
            "https:///evil.example",
            "https://",
            "https:www.evil.example",
            "https://user@app.example.com/",
            "https://@app.example.com/",
            "https://app.example.com@evil.example/",
            "https://app.example.com:x@evil.example/",
            "https://evil.example\\.app.example.com/",
            "https://evil.fr\\.own.example/",
            "/.//evil.example",
            "/x/..//evil.example",
            "/%2fevil.example",
            "/%2F%2Fevil.example",
            "/%5cevil.example",
            "/%2f%5cevil%2fa%3fhttps://own/",
            "/%09/evil.example",
            "/%0a/evil.example",
            "/%252fevil.example",
            "/;//evil.example",
            "https://app.example.com//evil.example",
            "/%zz",
            "ftp://app.example.com/",
            "\u{feff}/x",
            "/\u{85}x",
            "/\u{2028}/evil.example",
            "/\u{3000}/evil.example",
            "vbscript:x",
            "/auth/../../%2e%2e//evil.example",
        ] {
            let result = parse(text);
            assert!(matches!(result, Err(ReturnToError::Invalid | ReturnToError::ForeignOrigin)), "{text}: {result:?}");
        }
    }

    /// Two separators with white space or dot segments between them, the form behind most open redirects of the field.
    #[test]
    fn separators_with_anything_between_them_never_leave_our_origin() {
        let fillers = [
            "", "\t", "\n", "\r", "\u{b}", "\u{c}", " ", "%09", "%20", "%0a", "%0d", "%0b", ".", "..", "./..", "\t\t",
            "%5c", "%2f", ";",
        ];
        let own = Url::parse(rules().own.as_str()).unwrap();
        let mut tried = 0;
        for first in ["/", "\\", "%2f", "%5c"] {
            for filler in fillers {
                for second in ["/", "\\", "%2f", "%5c", "/\t/", "/./\\", "/../\\"] {
                    for text in [
                        format!("{first}{filler}{second}evil.example"),
                        format!("/{first}{filler}{second}evil.example"),
                    ] {
                        tried += 1;
                        let Ok(target) = parse(&text) else { continue };
                        assert!(target.starts_with('/') && !target.starts_with("//"), "{text}: {target}");
                        assert_eq!(own.join(&target).unwrap().host_str(), Some("app.example.com"), "{text}");
                    }
                }
            }
        }
        assert!(tried > 1_000);
    }

    #[test]
    fn nobody_is_sent_to_our_own_endpoints() {
        for text in [
            "/auth",
            "/auth/",
            "/auth/login",
            "/auth/logout?rd=/",
            "/AUTH/login",
            "/%61uth/login",
            "/auth%2flogin",
            "/auth;x/login",
            "/x/../auth/login",
            "/oidc/callback?code=x",
            "https://app.example.com/auth/login",
        ] {
            assert_eq!(parse(text), Err(ReturnToError::OwnEndpoint), "{text}");
        }
        for text in ["/authx", "/x/auth", "/oidc", "/oidc/callbacks"] {
            assert!(parse(text).is_ok(), "{text}");
        }
    }

    #[test]
    fn length_is_bounded_before_and_after() {
        let longest = format!("/{}", "a".repeat(MAX_LENGTH - 1));
        assert_eq!(parse(&longest), Ok(longest.clone()));
        assert_eq!(parse(&format!("{longest}a")), Err(ReturnToError::TooLong));
        assert_eq!(parse(&format!("/{}", "ä".repeat(500))), Err(ReturnToError::TooLong));
    }

    proptest! {
        #[test]
        fn what_is_accepted_stays_on_an_accepted_origin(
            text in "\\PC{0,40}|(https?:)?([/\\\\.@:?;\t %a]|%2f|%5c|%09|app\\.example\\.com|other\\.example\\.com|evil\\.example){0,10}",
        ) {
            let rules = rules();
            let Ok(target) = ReturnTo::parse(&text, &rules) else { return Ok(()) };
            let joined = Url::parse(rules.own.as_str()).unwrap().join(target.as_str()).unwrap();
            let origin = Origin::of(&joined).unwrap();
            prop_assert!(origin == rules.own || rules.allowed.contains(&origin), "{} became {}", text, target.as_str());
            prop_assert!(joined.fragment().is_none() && joined.username().is_empty() && joined.password().is_none());
            if origin == rules.own {
                prop_assert!(target.as_str().starts_with('/') && !target.as_str().starts_with("//"));
            }
            // Once accepted, always accepted, and unchanged.
            prop_assert_eq!(ReturnTo::parse(target.as_str(), &rules), Ok(target));
        }
    }
}
