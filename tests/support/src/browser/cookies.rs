//! The cookie rules that user agents live by (RFC 6265bis), as far as sign-ins meet them.

use url::Url;

/// One cookie in the jar.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredCookie {
    /// The name.
    pub name: String,
    /// The value.
    pub value: String,
    /// The host that set it, or the `Domain` it gave.
    pub domain: String,
    /// Whether only that very host gets it back.
    pub host_only: bool,
    /// `Path`.
    pub path: String,
    /// `Secure`.
    pub secure: bool,
    /// `HttpOnly`.
    pub http_only: bool,
    /// `SameSite` in lower case; without one, `lax`, as Chromium does.
    pub same_site: String,
    /// With `Partitioned`: the site (scheme and registrable domain) of the page in the window, around all frames.
    pub partition: Option<(String, String)>,
    /// When it ends, in seconds since the Unix epoch; `None` ends with the user agent.
    pub expires: Option<u64>,
}

impl StoredCookie {
    /// What makes two cookies the same one.
    fn key(&self) -> impl PartialEq + '_ {
        (&self.name, &self.domain, &self.path, &self.partition)
    }
}

/// The jar of one user agent.
#[derive(Debug, Default)]
pub(super) struct Jar {
    cookies: Vec<StoredCookie>,
    pub(super) refuses_all: bool,
    pub(super) rejected: Vec<String>,
}

/// Where a request comes from, for SameSite and Partitioned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Context {
    /// Typed in, or started by a page of the same site.
    pub(super) same_site: bool,
    /// A top-level navigation with a safe method.
    pub(super) safe_navigation: bool,
    /// The page in the window, where that is not what is asked for: no cookies of third parties but those of its partition.
    pub(super) around: Option<Url>,
}

impl Context {
    fn partition(&self, url: &Url) -> (String, String) {
        site(self.around.as_ref().unwrap_or(url))
    }

    fn is_third_party(&self, url: &Url) -> bool {
        self.partition(url) != site(url)
    }
}

impl Jar {
    /// Takes in one `Set-Cookie` from the answer to a request for `url`. What a user agent would refuse is remembered in
    /// `rejected`.
    pub(super) fn store(&mut self, set_cookie: &str, url: &Url, context: &Context, now: u64) {
        if self.refuses_all {
            return;
        }
        let cookie = parse(set_cookie, url, context, now);
        let Some(cookie) = cookie.filter(|cookie| cookie.partition.is_some() || !context.is_third_party(url)) else {
            self.rejected.push(set_cookie.to_owned());
            return;
        };
        self.cookies.retain(|old| old.key() != cookie.key());
        if cookie.expires.is_none_or(|end| end > now) {
            let name = cookie.name.trim_start_matches("__Host-").trim_start_matches("__Secure-");
            if name.starts_with("vestibule") || cookie.partition.is_some() {
                crate::trace::secret("cookie", &cookie.value);
            }
            self.cookies.push(cookie);
        }
    }

    /// The `Cookie` header for a request, longer paths first (RFC 6265 §5.4).
    pub(super) fn header(&mut self, url: &Url, context: &Context, now: u64) -> Option<String> {
        self.drop_expired(now);
        let fits = |cookie: &&StoredCookie| fits(cookie, url) && may_travel(cookie, url, context);
        let mut cookies: Vec<&StoredCookie> = self.cookies.iter().filter(fits).collect();
        cookies.sort_by_key(|cookie| std::cmp::Reverse(cookie.path.len()));
        let pairs: Vec<String> = cookies.iter().map(|cookie| format!("{}={}", cookie.name, cookie.value)).collect();
        (!pairs.is_empty()).then(|| pairs.join("; "))
    }

    /// The cookies that `url`'s host would get back.
    pub(super) fn of(&mut self, url: &Url, context: &Context, now: u64) -> Vec<StoredCookie> {
        self.drop_expired(now);
        let fits = |cookie: &&StoredCookie| domain_fits(cookie, host(url)) && is_of_party(cookie, url, context);
        self.cookies.iter().filter(fits).cloned().collect()
    }

    pub(super) fn insert(&mut self, cookie: StoredCookie) {
        self.cookies.retain(|old| old.key() != cookie.key());
        self.cookies.push(cookie);
    }

    pub(super) fn remove(&mut self, pick: impl Fn(&StoredCookie) -> bool) {
        self.cookies.retain(|cookie| !pick(cookie));
    }

    pub(super) fn all(&self) -> Vec<StoredCookie> {
        self.cookies.clone()
    }

    fn drop_expired(&mut self, now: u64) {
        self.cookies.retain(|cookie| cookie.expires.is_none_or(|end| end > now));
    }
}

/// Whether user agents treat `url` as a secure context: https, or loopback.
pub(super) fn is_trustworthy(url: &Url) -> bool {
    url.scheme() == "https"
        || matches!(host(url), "localhost" | "127.0.0.1" | "[::1]")
        || host(url).ends_with(".localhost")
}

/// Scheme and registrable domain, as far as hosts in these tests have one.
pub(super) fn site(url: &Url) -> (String, String) {
    (url.scheme().to_owned(), registrable(host(url)).to_owned())
}

pub(super) fn host(url: &Url) -> &str {
    url.host_str().unwrap_or_default()
}

fn registrable(host: &str) -> &str {
    let is_address = host.starts_with('[') || host.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    if is_address {
        return host;
    }
    let last_two = host.rmatch_indices('.').nth(1).map_or(0, |(dot, _)| dot + 1);
    // `localhost` is a suffix by itself: each of its sub-domains is a site.
    &host[last_two..]
}

fn parse(set_cookie: &str, url: &Url, context: &Context, now: u64) -> Option<StoredCookie> {
    let mut parts = set_cookie.split(';');
    let (name, value) = parts.next()?.split_once('=')?;
    let (name, value) = (name.trim(), value.trim());
    let mut cookie = StoredCookie {
        name: name.to_owned(),
        value: value.to_owned(),
        domain: host(url).to_owned(),
        host_only: true,
        path: default_path(url),
        secure: false,
        http_only: false,
        same_site: "lax".to_owned(),
        partition: None,
        expires: None,
    };
    let mut max_age_seen = false;
    for part in parts {
        let (key, value) = part.split_once('=').unwrap_or((part, ""));
        let value = value.trim();
        match key.trim().to_ascii_lowercase().as_str() {
            "path" if value.starts_with('/') => cookie.path = value.to_owned(),
            "domain" if !value.is_empty() => {
                cookie.domain = value.trim_start_matches('.').to_ascii_lowercase();
                cookie.host_only = false;
            }
            "secure" => cookie.secure = true,
            "partitioned" => cookie.partition = Some(context.partition(url)),
            "httponly" => cookie.http_only = true,
            "samesite" => cookie.same_site = value.to_ascii_lowercase(),
            "max-age" => {
                let seconds: i64 = value.parse().ok()?;
                cookie.expires = Some(now.saturating_add_signed(seconds.max(-1)));
                max_age_seen = true;
            }
            // RFC 6265 §5.3: Max-Age wins.
            "expires" if !max_age_seen => cookie.expires = http_date(value),
            _ => {}
        }
    }
    is_acceptable(&cookie, set_cookie, url).then_some(cookie)
}

fn is_acceptable(cookie: &StoredCookie, set_cookie: &str, url: &Url) -> bool {
    // User agents keep at most 4,096 bytes of name and value, and refuse what is longer.
    let fits = !cookie.name.is_empty() && cookie.name.len() + cookie.value.len() <= 4096;
    let ours = domain_fits(cookie, host(url)) && (cookie.host_only || cookie.domain.contains('.'));
    let secure = if cookie.secure { is_trustworthy(url) } else { cookie.partition.is_none() };
    let cross_site = cookie.same_site != "none" || cookie.secure;
    let lower = cookie.name.to_ascii_lowercase();
    // RFC 6265bis §4.1.3: the prefixes are matched without case, and `__Host-` needs the Path to be written.
    let path_written = set_cookie.split(';').any(|part| part.trim().eq_ignore_ascii_case("path=/"));
    let secure_prefix = !lower.starts_with("__secure-") || cookie.secure;
    let host_prefix = !lower.starts_with("__host-") || (cookie.secure && cookie.host_only && path_written);
    fits && ours && secure && cross_site && secure_prefix && host_prefix
}

fn fits(cookie: &StoredCookie, url: &Url) -> bool {
    domain_fits(cookie, host(url)) && path_fits(&cookie.path, url.path()) && (!cookie.secure || is_trustworthy(url))
}

/// RFC 6265bis §5.2: below a page of another site nothing is of the same site, and no navigation a top-level one.
fn may_travel(cookie: &StoredCookie, url: &Url, context: &Context) -> bool {
    let by_site = match cookie.same_site.as_str() {
        "none" => true,
        _ if context.is_third_party(url) => false,
        "strict" => context.same_site,
        _ => context.same_site || context.safe_navigation,
    };
    by_site && is_of_party(cookie, url, context)
}

/// draft-cutler-httpbis-partitioned-cookies §4.4, and no cookies of third parties besides.
fn is_of_party(cookie: &StoredCookie, url: &Url, context: &Context) -> bool {
    match &cookie.partition {
        Some(partition) => *partition == context.partition(url),
        None => !context.is_third_party(url),
    }
}

fn domain_fits(cookie: &StoredCookie, host: &str) -> bool {
    let sub_domain = || host.strip_suffix(&cookie.domain).is_some_and(|front| front.ends_with('.'));
    cookie.domain == host || (!cookie.host_only && sub_domain())
}

/// RFC 6265 §5.1.4.
fn path_fits(cookie_path: &str, path: &str) -> bool {
    let Some(rest) = path.strip_prefix(cookie_path) else { return false };
    rest.is_empty() || cookie_path.ends_with('/') || rest.starts_with('/')
}

fn default_path(url: &Url) -> String {
    match url.path().rfind('/') {
        None | Some(0) => "/".to_owned(),
        Some(slash) => url.path()[..slash].to_owned(),
    }
}

/// An IMF-fixdate (RFC 9110 §5.6.7) as seconds since the epoch; what cannot be read ends the session with the user agent.
fn http_date(text: &str) -> Option<u64> {
    let mut words = text.split([' ', '-', ',']).filter(|word| !word.is_empty()).skip(1);
    let day: u64 = words.next()?.parse().ok()?;
    let month = words.next()?;
    let month = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
        .iter()
        .position(|name| *name == month)? as u64
        + 1;
    let year: u64 = words.next()?.parse().ok()?;
    let mut clock = words.next()?.split(':').map(|part| part.parse::<u64>().ok());
    let (hour, minute, second) = (clock.next()??, clock.next()??, clock.next()??);
    // Days from civil, with March as the first month, so that the leap day comes last.
    let (shifted_year, shifted_month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let day_of_year = (153 * shifted_month + 2) / 5 + day - 1;
    let days = shifted_year * 365 + shifted_year / 4 - shifted_year / 100 + shifted_year / 400 + day_of_year;
    Some(days.checked_sub(719_468)? * 86_400 + hour * 3600 + minute * 60 + second)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000;
    const TYPED: Context = Context { same_site: true, safe_navigation: true, around: None };
    const LINKED: Context = Context { same_site: false, safe_navigation: true, around: None };
    const FOREIGN: Context = Context { same_site: false, safe_navigation: false, around: None };

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    fn stored(set_cookie: &str, from: &str) -> Jar {
        let mut jar = Jar::default();
        jar.store(set_cookie, &url(from), &TYPED, NOW);
        jar
    }

    #[test]
    fn each_page_around_a_frame_has_a_jar_of_its_own() {
        let app = url("https://app.example.com/");
        let around = |page: &str| Context { around: Some(url(page)), ..TYPED };
        let mut jar = Jar::default();
        jar.store("a=window; Secure; SameSite=None; Partitioned", &app, &TYPED, NOW);
        jar.store("a=portal; Secure; SameSite=None; Partitioned", &app, &around("https://www.portal.net/"), NOW);
        jar.store("b=refused; Secure; SameSite=None", &app, &around("https://www.portal.net/"), NOW);
        jar.store("c=refused; SameSite=None; Partitioned", &app, &TYPED, NOW);
        jar.store("d=own; Secure; SameSite=None", &app, &TYPED, NOW);
        assert_eq!(jar.rejected.len(), 2);
        let mut sent = |context: &Context| jar.header(&app, context, NOW);
        assert_eq!(sent(&TYPED).as_deref(), Some("a=window; d=own"));
        assert_eq!(sent(&around("https://app.example.com/")).as_deref(), Some("a=window; d=own"));
        assert_eq!(sent(&around("https://portal.net/")).as_deref(), Some("a=portal"));
        assert_eq!((sent(&around("http://portal.net/")), sent(&around("https://evil.org/"))), (None, None));
        jar.store("a=; Secure; SameSite=None; Max-Age=0", &app, &around("https://portal.net/"), NOW);
        assert!(jar.header(&app, &around("https://portal.net/"), NOW).is_some(), "a deletion says all of it");
    }

    #[test]
    fn prefixes_hold() {
        for (set_cookie, kept) in [
            ("__Host-a=1; Secure; Path=/", true),
            ("__Host-a=1; Secure", false),
            ("__Host-a=1; Path=/", false),
            ("__host-a=1; Path=/", false),
            ("__Host-a=1; Secure; Path=/; Domain=example.com", false),
            ("__Secure-a=1; Path=/", false),
            ("a=1; SameSite=None", false),
        ] {
            let jar = stored(set_cookie, "https://example.com/");
            assert_eq!(jar.cookies.len(), usize::from(kept), "{set_cookie}");
        }
    }

    #[test]
    fn secure_cookies_live_on_https_and_loopback() {
        for (from, kept) in [("https://example.com/", 1), ("http://localhost:1/", 1), ("http://example.com/", 0)] {
            assert_eq!(stored("a=1; Secure", from).cookies.len(), kept, "{from}");
        }
    }

    #[test]
    fn same_site_decides_who_travels() {
        for (same_site, typed, linked, foreign) in
            [("Strict", true, false, false), ("Lax", true, true, false), ("None; Secure", true, true, true)]
        {
            let mut jar = stored(&format!("a=1; SameSite={same_site}"), "https://example.com/");
            let mut sent = |context| jar.header(&url("https://example.com/x"), &context, NOW).is_some();
            assert_eq!((sent(TYPED), sent(LINKED), sent(FOREIGN)), (typed, linked, foreign), "{same_site}");
        }
    }

    #[test]
    fn cookies_end_when_told() {
        let mut jar = stored("a=1; Max-Age=60; Path=/", "http://localhost/");
        assert!(jar.header(&url("http://localhost/"), &TYPED, NOW + 59).is_some());
        assert!(jar.header(&url("http://localhost/"), &TYPED, NOW + 60).is_none());
        jar.store("b=1; Path=/", &url("http://localhost/"), &TYPED, NOW);
        jar.store("b=; Max-Age=0; Path=/", &url("http://localhost/"), &TYPED, NOW);
        assert!(jar.header(&url("http://localhost/"), &TYPED, NOW).is_none());
        assert_eq!(http_date("Fri, 15 Jan 2027 08:00:00 GMT"), Some(1_800_000_000));
        assert_eq!(http_date("Thu, 01 Jan 1970 00:00:00 GMT"), Some(0));
    }

    #[test]
    fn paths_and_hosts_are_honoured() {
        let mut jar = stored("a=1; Path=/auth", "http://localhost:1/x/y");
        for (target, sent) in [
            ("http://localhost:2/auth", true),
            ("http://localhost/auth/callback", true),
            ("http://localhost/author", false),
            ("http://127.0.0.1/auth", false),
        ] {
            assert_eq!(jar.header(&url(target), &TYPED, NOW).is_some(), sent, "{target}");
        }
    }
}
