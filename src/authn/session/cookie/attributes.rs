//! What a cookie of ours is set with, and deleted with in the very same words (CVE-2025-55162): RFC 6265bis §4.1.2 and §4.1.3.
//!
//! The prefix follows from the attributes. A browser keeps a `__Host-` cookie only with `Secure`, without `Domain` and with
//! `Path=/`, so no other host can have set it; a `__Secure-` cookie at least came over https.

use std::time::Duration;

use ::cookie::Cookie;
use http::HeaderValue;

use crate::message::Origin;

/// The `[cookie]` section, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// `cookie.name`, without a prefix. Default `vestibule`.
    pub name: String,
    /// `cookie.domain`: the session is shown to this host and all below it. `None`: to the redirect URI's host alone.
    pub domain: Option<String>,
    /// `cookie.path`: the session is shown below it. Default `/`.
    pub path: String,
    /// `cookie.same_site`, of the session.
    pub same_site: SameSite,
    /// `cookie.framed_by`: whose pages may show the application in a frame. Empty unless [`SameSite::Partitioned`].
    pub framed_by: Vec<Origin>,
}

impl Settings {
    /// The defaults, under a name.
    pub fn named(name: &str) -> Self {
        let (name, path) = (name.to_owned(), "/".to_owned());
        Self { name, domain: None, path, same_site: SameSite::Lax, framed_by: Vec::new() }
    }
}

/// Whether the session's cookies come along when another site leads here (RFC 6265bis §4.1.2.7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SameSite {
    /// With a navigation.
    Lax,
    /// Not even then.
    Strict,
    /// Always, from a jar of its own for each site whose pages show the application in a frame (`SameSite=None; Partitioned`,
    /// draft-cutler-httpbis-partitioned-cookies): whatever belongs to a sign-in has to be set and come back in there.
    Partitioned,
}

/// Where cookies of one kind go.
#[derive(Debug, Clone, Copy)]
pub(super) struct Attributes<'s> {
    /// The redirect URI is https. Without it no prefix can be had.
    pub(super) https: bool,
    pub(super) secure: bool,
    pub(super) same_site: cookie::SameSite,
    pub(super) partitioned: bool,
    pub(super) domain: Option<&'s str>,
    pub(super) path: &'s str,
}

impl<'s> Attributes<'s> {
    /// For this host and all of its paths, whatever the settings are: so a neighbour below the same domain can't set it. In a
    /// window it comes back from the provider as Lax; into a frame of another site nothing that is Lax comes.
    pub(super) fn of_host(settings: &Settings, https: bool) -> Self {
        let partitioned = settings.same_site == SameSite::Partitioned;
        let same_site = if partitioned { ::cookie::SameSite::None } else { ::cookie::SameSite::Lax };
        Self { https, secure: https, same_site, partitioned, domain: None, path: "/" }
    }

    /// As the settings have it.
    pub(super) fn of_session(settings: &'s Settings, https: bool) -> Self {
        let same_site = match settings.same_site {
            SameSite::Lax => ::cookie::SameSite::Lax,
            SameSite::Strict => ::cookie::SameSite::Strict,
            SameSite::Partitioned => ::cookie::SameSite::None,
        };
        let (domain, path) = (settings.domain.as_deref(), settings.path.as_str());
        Self { same_site, domain, path, ..Self::of_host(settings, https) }
    }

    /// The best prefix that a browser takes with them.
    fn prefix(&self) -> &'static str {
        match (self.https, self.domain, self.path) {
            (false, ..) => "",
            (true, None, "/") => "__Host-",
            (true, ..) => "__Secure-",
        }
    }

    /// What the names of all of these cookies begin with.
    pub(super) fn base(&self, name: &str) -> String {
        format!("{}{name}", self.prefix())
    }

    /// One of them; `suffix` begins with a dot or is empty.
    pub(super) fn cookie(&self, name: &str, suffix: &str) -> OwnCookie {
        let cookie = Cookie::build(format!("{}{suffix}", self.base(name)))
            .path(self.path.to_owned())
            .secure(self.secure)
            .http_only(true)
            .partitioned(self.partitioned)
            .same_site(self.same_site);
        let cookie = match self.domain {
            Some(domain) => cookie.domain(domain.to_owned()),
            None => cookie,
        };
        OwnCookie(cookie.build())
    }
}

/// A cookie of ours: its name, and everything that it is set and deleted with.
#[derive(Debug, Clone)]
pub struct OwnCookie(Cookie<'static>);

impl OwnCookie {
    /// Its name, with the prefix.
    pub fn name(&self) -> &str {
        self.0.name()
    }

    /// Sets it; without `max_age` (whole seconds) it ends with the browser.
    pub fn set(&self, value: &str, max_age: Option<Duration>) -> HeaderValue {
        let mut cookie = self.0.clone();
        cookie.set_value(value.to_owned());
        if let Some(age) = max_age {
            cookie.set_max_age(::cookie::time::Duration::try_from(age).unwrap_or(::cookie::time::Duration::DAY));
        }
        // Names, domains and paths are checked with the configuration and values are base64url, so this cannot fail; an empty
        // value would be harmless.
        HeaderValue::try_from(cookie.to_string()).unwrap_or_else(|_| HeaderValue::from_static(""))
    }

    /// Deletes it: a browser heeds that only in the words that set it.
    pub fn delete(&self) -> HeaderValue {
        self.set("", Some(Duration::ZERO))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(domain: Option<&str>, path: &str, same_site: SameSite, https: bool) -> OwnCookie {
        let settings =
            Settings { domain: domain.map(str::to_owned), path: path.to_owned(), same_site, ..Settings::named("v") };
        Attributes::of_session(&settings, https).cookie("v", ".idle")
    }

    #[test]
    fn the_prefix_is_the_best_that_a_browser_takes() {
        for (cookie, expected) in [
            (session(None, "/", SameSite::Lax, true), "__Host-v.idle=x; HttpOnly; SameSite=Lax; Secure; Path=/"),
            (session(None, "/", SameSite::Strict, true), "__Host-v.idle=x; HttpOnly; SameSite=Strict; Secure; Path=/"),
            (
                session(Some("example.com"), "/", SameSite::Lax, true),
                "__Secure-v.idle=x; HttpOnly; SameSite=Lax; Secure; Path=/; Domain=example.com",
            ),
            (
                session(None, "/app", SameSite::Lax, true),
                "__Secure-v.idle=x; HttpOnly; SameSite=Lax; Secure; Path=/app",
            ),
            (session(None, "/", SameSite::Lax, false), "v.idle=x; HttpOnly; SameSite=Lax; Path=/"),
            (
                session(Some("example.com"), "/app", SameSite::Strict, false),
                "v.idle=x; HttpOnly; SameSite=Strict; Path=/app; Domain=example.com",
            ),
            (
                session(None, "/", SameSite::Partitioned, true),
                "__Host-v.idle=x; HttpOnly; SameSite=None; Partitioned; Secure; Path=/",
            ),
        ] {
            assert_eq!(cookie.set("x", None), expected);
            let aged = format!("{expected}; Max-Age=60");
            assert_eq!(cookie.set("x", Some(Duration::from_secs(60))), aged);
            assert_eq!(cookie.delete(), aged.replace("=x;", "=;").replace("=60", "=0"), "a deletion repeats all of it");
        }
    }
}
