//! Where a request should have come to: https, and the one host that an application is known by. Decided before any route;
//! the target is built from configuration, never from what the request says of itself (RFC 9110 §17.1), but for path and
//! query as they were judged.

use crate::message::{Inbound, Scheme};

/// Below it a certificate authority looks for its challenge over http (RFC 8555 §8.3), at whichever host.
const ACME: &str = "/.well-known/acme-challenge/";

/// `https_redirect` and `canonical_host`, with the origin that people know: the redirect URI's.
#[derive(Debug, Clone, Default)]
pub struct Canonical {
    /// What came over http is sent to https.
    pub https: bool,
    /// What came to another host is sent to `host`, unless routes name that other host.
    pub one_host: bool,
    /// The redirect URI's scheme.
    pub scheme: Option<Scheme>,
    /// Its host: lower case, no port, IPv6 in brackets.
    pub host: String,
    /// Its port, where it is not the scheme's own.
    pub port: Option<u16>,
}

/// Another origin of ours that a request is sent to.
#[derive(Debug, Clone, Copy)]
pub struct Elsewhere<'r> {
    canonical: &'r Canonical,
    host: &'r str,
}

impl Canonical {
    /// Whether any request may be sent elsewhere.
    pub(super) fn is_on(&self) -> bool {
        self.https || self.one_host
    }

    /// Where a request that came over `scheme` to `host` belongs, if that is elsewhere. `listed` is `host` as the
    /// configuration writes it, and whether routes name it.
    pub(super) fn elsewhere<'r>(
        &'r self,
        scheme: Scheme,
        host: &str,
        path: &str,
        listed: Option<(&'r str, bool)>,
    ) -> Option<Elsewhere<'r>> {
        if path.starts_with(ACME) {
            return None;
        }
        let is_alias = host != self.host && !matches!(listed, Some((_, true)));
        let is_insecure = self.https && scheme == Scheme::Http;
        let moves_host = self.one_host && is_alias;
        let host = match listed {
            Some((listed, _)) if !moves_host => listed,
            _ => &self.host,
        };
        (is_insecure || moves_host).then_some(Elsewhere { canonical: self, host })
    }
}

impl Elsewhere<'_> {
    /// The same path and query there.
    pub fn location(&self, inbound: &Inbound) -> String {
        self.with(inbound.path_and_query())
    }

    fn with(&self, path_and_query: &str) -> String {
        let scheme = self.canonical.scheme.unwrap_or(Scheme::Https).as_str();
        let port = self.canonical.port.map(|port| format!(":{port}")).unwrap_or_default();
        format!("{scheme}://{}{port}{path_and_query}", self.host)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn canonical(https: bool, one_host: bool) -> Canonical {
        let scheme = Some(Scheme::Https);
        Canonical { https, one_host, scheme, host: "app.example".to_owned(), port: None }
    }

    fn told(canonical: &Canonical, scheme: Scheme, host: &str, listed: Option<(&str, bool)>) -> Option<String> {
        canonical.elsewhere(scheme, host, "/x", listed).map(|elsewhere| elsewhere.with("/x?y"))
    }

    #[test]
    fn http_is_sent_to_https_at_a_host_that_the_configuration_names() {
        let https = canonical(true, false);
        for (host, listed, wanted) in [
            ("app.example", Some(("app.example", false)), "https://app.example/x?y"),
            ("app.example", None, "https://app.example/x?y"),
            ("www.example", Some(("www.example", false)), "https://www.example/x?y"),
            ("evil.example", None, "https://app.example/x?y"),
        ] {
            assert_eq!(told(&https, Scheme::Http, host, listed).as_deref(), Some(wanted), "{host}");
            assert_eq!(told(&https, Scheme::Https, host, listed), None, "{host}");
            assert_eq!(told(&canonical(false, false), Scheme::Http, host, listed), None, "{host}");
        }
        let port = Canonical { port: Some(8443), ..https };
        assert_eq!(told(&port, Scheme::Http, "x", None).as_deref(), Some("https://app.example:8443/x?y"));
    }

    #[test]
    fn an_alias_is_sent_to_the_one_host_unless_routes_name_it() {
        let one = canonical(false, true);
        let there = Some("https://app.example/x?y".to_owned());
        for scheme in [Scheme::Http, Scheme::Https] {
            assert_eq!(told(&one, scheme, "app.example", Some(("app.example", false))), None);
            assert_eq!(told(&one, scheme, "www.example", Some(("www.example", false))), there);
            assert_eq!(told(&one, scheme, "evil.example", None), there);
            assert_eq!(told(&one, scheme, "files.example", Some(("files.example", true))), None);
        }
        let both = canonical(true, true);
        let files = told(&both, Scheme::Http, "files.example", Some(("files.example", true)));
        assert_eq!(files.as_deref(), Some("https://files.example/x?y"));
    }

    #[test]
    fn a_certificate_authority_is_sent_nowhere() {
        for (path, is_sent) in [
            ("/.well-known/acme-challenge/token", false),
            ("/.well-known/acme-challenge", true),
            ("/.well-known/security.txt", true),
        ] {
            let both = canonical(true, true);
            assert_eq!(both.elsewhere(Scheme::Http, "www.example", path, None).is_some(), is_sent, "{path}");
        }
    }

    #[test]
    fn a_path_like_a_host_stays_a_path() {
        let canonical = canonical(true, true);
        let elsewhere = canonical.elsewhere(Scheme::Http, "x", "//evil.example", None).unwrap();
        assert_eq!(elsewhere.with("//evil.example/@a?b"), "https://app.example//evil.example/@a?b");
    }
}
