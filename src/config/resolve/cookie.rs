//! `[cookie]`: names and attributes of our cookies (RFC 6265bis §4.1). What a browser would refuse to keep, or would never
//! send back to where it is needed, is found here and not by people who go round in a circle.

use url::{Host, Url};

use super::endpoints::unusable;
use super::{Resolver, host_of};
use crate::authn::session::cookie::{SameSite, Settings, is_at_or_below};
use crate::config::problem::shown;
use crate::config::raw::{RawCookie, RawSameSite};
use crate::message::Origin;
use crate::route::{Access, Endpoint, Route};

/// Of cookies that nobody gave a name.
const DEFAULT_NAME: &str = "vestibule";

impl Resolver {
    pub(super) fn cookie(&mut self, raw: RawCookie, redirect_uri: Option<&Url>) -> Settings {
        let partitioned = raw.partitioned == Some(true);
        if partitioned {
            self.partitioned(&raw, redirect_uri);
        }
        let same_site = match raw.same_site {
            _ if partitioned => SameSite::Partitioned,
            None | Some(RawSameSite::Lax) => SameSite::Lax,
            Some(RawSameSite::Strict) => SameSite::Strict,
            Some(RawSameSite::None) => {
                let what = "is \"none\": the session would come along with whatever any other site asks for";
                let fix = "write \"lax\" or \"strict\"; pages of sibling hosts are of the same site and need no more, and \
                           their origins stand in a route's allowed_origins; for a frame in a page of another site write \
                           partitioned = true";
                self.error("cookie.same_site", what, fix);
                SameSite::Lax
            }
        };
        Settings {
            name: self.cookie_name(raw.name),
            domain: raw.domain.and_then(|domain| self.cookie_domain(&domain, redirect_uri)),
            path: raw.path.and_then(|path| self.cookie_path(path)).unwrap_or_else(|| "/".to_owned()),
            same_site,
            framed_by: self.framed_by(raw.framed_by, partitioned),
        }
    }

    fn cookie_name(&mut self, written: Option<String>) -> String {
        let key = "cookie.name";
        let name = written.unwrap_or_else(|| DEFAULT_NAME.to_owned());
        let lower = name.to_ascii_lowercase();
        if lower.starts_with("__host-") || lower.starts_with("__secure-") {
            self.error(
                key,
                "begins with a prefix that Vestibule puts there itself",
                "write the rest of the name alone",
            );
        } else if name.is_empty()
            || name.len() > 64
            || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
        {
            // RFC 6265 §4.1.1 would allow more. A dot separates our cookies from one another, so `a` would own `a.b`.
            self.error(
                key,
                format!("is {}, no name for our cookies", shown(&name)),
                "use up to 64 letters, digits, - and _",
            );
        }
        name
    }

    /// Browsers take a domain that the host which sets the cookie lies at or below, and no public suffix (RFC 6265bis §5.7).
    fn cookie_domain(&mut self, written: &str, redirect_uri: Option<&Url>) -> Option<String> {
        let key = "cookie.domain";
        let own = redirect_uri.and_then(host_of);
        let example = own.as_deref().and_then(|own| own.split_once('.')).map_or("example.com", |(_, parent)| parent);
        let example =
            format!("write a name such as {example:?}, or remove the key: the cookies are the host's own then");
        if written.starts_with('.') {
            let bare = written.trim_start_matches('.');
            let what = format!("is {}; the dot in front means nothing any more", shown(written));
            self.error(key, what, format!("write {bare:?}: names below it are meant with it"));
            return None;
        }
        let domain = match Host::parse(written) {
            Ok(Host::Domain(domain)) if !written.contains(['*', '%']) => domain,
            Ok(Host::Ipv4(_) | Host::Ipv6(_)) => {
                let what = format!("is {}, an address: there is nothing below it", shown(written));
                self.error(key, what, "remove the key: the cookies are the host's own then");
                return None;
            }
            _ => {
                let what = format!("is {}, no domain", shown(written));
                self.error(key, what, format!("no scheme, port, path or *: {example}"));
                return None;
            }
        };
        if domain.ends_with('.') || domain.split('.').any(str::is_empty) {
            self.error(key, format!("is {}, which browsers read as another name", shown(written)), example);
        } else if !domain.contains('.') {
            self.error(key, format!("is {}, a name that browsers keep no cookies for", shown(written)), example);
        } else if own.as_deref().is_some_and(|own| !is_at_or_below(own, &domain)) {
            let own = own.unwrap_or_default();
            let what = format!("is {domain:?}, which {own}, the redirect URI's host, is not and does not lie below");
            self.error(key, what, example);
        } else {
            return Some(domain);
        }
        None
    }

    fn cookie_path(&mut self, path: String) -> Option<String> {
        let key = "cookie.path";
        if path != "/" && path.ends_with('/') && !unusable(&path) {
            let bare = path.trim_end_matches('/');
            // RFC 6265 §5.1.4: `/app/` does not match `/app`.
            self.error(key, format!("is {}, which leaves out {bare} itself", shown(&path)), format!("write {bare:?}"));
        } else if unusable(&path) {
            let fix = "write a path such as \"/app\": letters, digits, -, _, ., ~ and / only, and no pattern";
            self.error(key, format!("is {}, no path for cookies", shown(&path)), fix);
        } else {
            return Some(path);
        }
        None
    }

    /// What needs the session, and would never see it.
    pub(super) fn cookie_path_covers(&mut self, path: &str, endpoints: &[(Endpoint, String)], routes: &[Route]) {
        let key = "cookie.path";
        if path == "/" {
            return;
        }
        let for_browsers = |endpoint: &Endpoint| match endpoint {
            Endpoint::Login
            | Endpoint::Callback(_)
            | Endpoint::Logout
            | Endpoint::SignedOut
            | Endpoint::KeptPost
            | Endpoint::FrontchannelLogout
            | Endpoint::Userinfo => true,
            Endpoint::BackchannelLogout
            | Endpoint::Jwks
            | Endpoint::Device
            | Endpoint::Token
            | Endpoint::RequestObject => false,
        };
        let missed = endpoints.iter().filter(|(endpoint, at)| for_browsers(endpoint) && !is_below(at, path));
        let missed: Vec<_> = missed.map(|(_, at)| at.as_str()).collect();
        if !missed.is_empty() {
            let fix = format!(
                "write endpoints.prefix = \"{path}/auth\" and a redirect URI below {path}, or path = \"/\": a path keeps \
                 nothing from another application anyway"
            );
            self.error(key, format!("is {path:?}, and does not cover {}", missed.join(", ")), fix);
        }
        for (index, route) in routes.iter().enumerate().filter(|(_, route)| route.access != Access::Public) {
            let pattern = route.path.as_deref().unwrap_or("/");
            // Up to the first segment that can be several.
            let fixed = pattern.split_once(['*', '{']).map_or(pattern, |(fixed, _)| fixed).trim_end_matches('/');
            if !is_below(fixed, path) && !is_below(path, fixed) {
                let what = format!("is {pattern:?}, where no session ever comes: cookie.path is {path:?}");
                self.error(&format!("routes[{index}].path"), what, "write cookie.path = \"/\", or access = \"public\"");
            }
        }
    }

    /// Cookies Having Independent Partitioned State (draft-cutler-httpbis-partitioned-cookies): what does not go with them.
    fn partitioned(&mut self, raw: &RawCookie, redirect_uri: Option<&Url>) {
        if raw.name.as_deref().is_none_or(|name| name == DEFAULT_NAME) {
            let what = format!(
                "is {DEFAULT_NAME:?}, as by default: a browser may hold such a cookie without Partitioned from before, and sends \
                 both"
            );
            self.error("cookie.name", what, "write a name of its own, such as name = \"intranet\"");
        }
        let held_back = match raw.same_site {
            None | Some(RawSameSite::None) => None,
            Some(RawSameSite::Lax) => Some("lax"),
            Some(RawSameSite::Strict) => Some("strict"),
        };
        if let Some(same_site) = held_back {
            let what = format!(
                "is {same_site:?}: such a cookie never comes into a frame of another site, which partitioned is for"
            );
            self.error("cookie.same_site", what, "remove it: SameSite=None goes with partitioned");
        }
        if raw.domain.is_some() {
            let what = "is for several hosts, which would all be open to frames; a partitioned session is one host's, and its \
                        cookies are __Host- cookies";
            self.error("cookie.domain", what, "remove it, or partitioned");
        }
        if redirect_uri.is_some_and(|uri| uri.scheme() != "https") {
            let what = "is for https only: browsers refuse Partitioned without Secure, and the redirect URI is http";
            self.error("cookie.partitioned", what, "write an https redirect URI, or remove partitioned");
        }
    }

    /// Each exactly one origin, and one that a Content-Security-Policy can name (CSP3 §2.3.1 `host-source`).
    fn framed_by(&mut self, written: Option<Vec<String>>, partitioned: bool) -> Vec<Origin> {
        let key = "cookie.framed_by";
        if !partitioned {
            if written.is_some() {
                let what = "lets pages of other sites show the application in a frame, where nobody can be signed in without \
                            partitioned";
                self.error(key, what, "write partitioned = true beside it, or remove it");
            }
            return Vec::new();
        }
        let texts = written.unwrap_or_default();
        if texts.is_empty() {
            let what = "names nobody: partitioned lets the session into frames, and somebody has to say of whose pages";
            self.error(key, what, "write their origins, such as framed_by = [\"https://portal.example.com\"]");
        }
        let mut origins = Vec::new();
        for (index, text) in texts.into_iter().enumerate() {
            let key = format!("{key}[{index}]");
            let Some(origin) = self.origin(&key, &text) else { continue };
            let Some(host) = origin.as_str().strip_prefix("https://") else {
                let what = format!("is {}: what goes over http is anybody's page", shown(&text));
                self.error(&key, what, "write an https origin");
                continue;
            };
            if !host.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b':')) {
                let what = format!("is {}, and not one host by its name", shown(&text));
                self.error(
                    &key,
                    what,
                    "write each origin out, such as \"https://portal.example.com\": no * and no address of IPv6",
                );
            } else if !origins.contains(&origin) {
                origins.push(origin);
            }
        }
        origins
    }
}

/// RFC 6265 §5.1.4; both without a slash at the end.
fn is_below(path: &str, cookie_path: &str) -> bool {
    let cookie_path = cookie_path.trim_end_matches('/');
    path.strip_prefix(cookie_path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}
