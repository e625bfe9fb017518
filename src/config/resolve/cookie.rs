//! `[cookie]`: names and attributes of our cookies (RFC 6265bis §4.1). What a browser would refuse to keep, or would never
//! send back to where it is needed, is found here and not by people who go round in a circle.

use url::{Host, Url};

use super::endpoints::unusable;
use super::{Resolver, host_of};
use crate::authn::session::cookie::{SameSite, Settings, is_at_or_below};
use crate::config::problem::shown;
use crate::config::raw::{RawCookie, RawSameSite};
use crate::route::{Access, Endpoint, Route};

impl Resolver {
    pub(super) fn cookie(&mut self, raw: RawCookie, redirect_uri: Option<&Url>) -> Settings {
        let same_site = match raw.same_site {
            None | Some(RawSameSite::Lax) => SameSite::Lax,
            Some(RawSameSite::Strict) => SameSite::Strict,
            Some(RawSameSite::None) => {
                let what = "is \"none\": the session would come along with whatever any other site asks for";
                let fix = "write \"lax\" or \"strict\"; pages of sibling hosts are of the same site and need no more, and \
                           their origins stand in a route's allowed_origins";
                self.error("cookie.same_site", what, fix);
                SameSite::Lax
            }
        };
        if raw.partitioned == Some(true) {
            self.partitioned(redirect_uri);
        }
        Settings {
            name: self.cookie_name(raw.name),
            domain: raw.domain.and_then(|domain| self.cookie_domain(&domain, redirect_uri)),
            path: raw.path.and_then(|path| self.cookie_path(path)).unwrap_or_else(|| "/".to_owned()),
            same_site,
        }
    }

    fn cookie_name(&mut self, written: Option<String>) -> String {
        let key = "cookie.name";
        let name = written.unwrap_or_else(|| "vestibule".to_owned());
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

    /// Cookies Having Independent Partitioned State: a frame would have a jar of its own for each site that shows it.
    fn partitioned(&mut self, redirect_uri: Option<&Url>) {
        let key = "cookie.partitioned";
        let what = "cannot work: the cookies of a frame would have to be set by a sign-in inside the frame, which providers \
                    refuse to be shown in, as they must (RFC 9700 §4.16); a sign-in in a window of its own fills another jar";
        let fix = "remove it; open the application in a window of its own, or serve it and the page around it from hosts of \
                   one site, where Lax and Strict cookies reach the frame";
        self.error(key, what, fix);
        if redirect_uri.is_some_and(|uri| uri.scheme() != "https") {
            let what = "is for https only: browsers refuse Partitioned without Secure, and the redirect URI is http";
            self.error(key, what, "remove it");
        }
    }
}

/// RFC 6265 §5.1.4; both without a slash at the end.
fn is_below(path: &str, cookie_path: &str) -> bool {
    let cookie_path = cookie_path.trim_end_matches('/');
    path.strip_prefix(cookie_path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}
