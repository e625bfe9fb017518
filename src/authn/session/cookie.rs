//! Our cookies: names, attributes, and a value split over several when one would be too large.
//!
//! | name | what it holds | whose |
//! |---|---|---|
//! | `base` | the sealed session, or its first part behind `N~` (N parts in all) | the settings' |
//! | `base.1` … `base.3` | the further parts | the settings' |
//! | `base.idle` | the sealed time of the last request | the settings' |
//! | `base.login` | this browser's login secret | the host's; Lax, as it comes back from the provider |
//! | `base.post` | the same where the provider answers by a POST from its own site | the host's; `SameSite=None` |
//! | `base.done` | for half a minute after a sign-in: how many in a row there were | the host's; Lax |
//! | `base.hop` | for seconds, where the session is Strict: the address just led to once more | the host's; Lax |
//! | `base.kept` | where posts are kept: this browser's secret that opens its own | the host's; Lax |
//! | `base.logout` | for as long as a sign-out is on its way through the provider: a digest of its `state` | the domain's; Lax |
//!
//! `base` is `cookie.name` behind the prefix that goes with the attributes. The settings' are Domain, Path and SameSite as
//! configured. Sign-ins begin and end on the redirect URI's host, so what they need stays with that host (and `__Host-`) even
//! where the session goes to a whole domain; a sign-out may begin on any host that the session is shown to. Where the session
//! is partitioned, every one of them is: `SameSite=None` in a jar of its own for each site around a frame.

mod attributes;

use std::time::Duration;

use http::HeaderValue;

use self::attributes::Attributes;
pub use self::attributes::{OwnCookie, SameSite, Settings};
use crate::message::{DuplicateCookie, OwnCookies};

/// Browsers keep cookies of up to 4,096 bytes (RFC 6265bis §5.6); this leaves room for the name and for what is written beside
/// the value.
pub const PART: usize = 3_900;
/// The most parts. Four keep the `Cookie` line within what proxies in front accept of one line (16 KiB) as a rule.
pub const MAX_PARTS: usize = 4;
/// The names of the parts behind the base.
const PART_SUFFIXES: [&str; MAX_PARTS] = ["", ".1", ".2", ".3"];

/// The names and attributes of our cookies.
#[derive(Debug, Clone)]
pub struct CookieJar {
    is_strict: bool,
    is_partitioned: bool,
    domain: Option<String>,
    bases: Vec<String>,
    parts: [OwnCookie; MAX_PARTS],
    idle: OwnCookie,
    login: OwnCookie,
    post: OwnCookie,
    done: OwnCookie,
    hop: OwnCookie,
    kept: OwnCookie,
    logout: OwnCookie,
}

/// Why a split value cannot be put together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum JoinError {
    /// A name came twice.
    #[error(transparent)]
    Duplicate(#[from] DuplicateCookie),
    /// A part is missing, or the count is not one we write.
    #[error("a part of the session cookie is missing")]
    Incomplete,
}

impl CookieJar {
    /// By the settings; `https` where the redirect URI is.
    pub fn new(settings: &Settings, https: bool) -> Self {
        let name = settings.name.as_str();
        let (host, session) = (Attributes::of_host(settings, https), Attributes::of_session(settings, https));
        // Browsers take `SameSite=None` only with `Secure`, and that also from http on loopback.
        let post = Attributes { same_site: ::cookie::SameSite::None, secure: true, ..host };
        let logout = Attributes { domain: session.domain, ..host };
        let mut bases = vec![session.base(name)];
        for base in [host.base(name), logout.base(name)] {
            if !bases.contains(&base) {
                bases.push(base);
            }
        }
        Self {
            is_strict: settings.same_site == SameSite::Strict,
            is_partitioned: settings.same_site == SameSite::Partitioned,
            domain: settings.domain.clone(),
            bases,
            parts: PART_SUFFIXES.map(|suffix| session.cookie(name, suffix)),
            idle: session.cookie(name, ".idle"),
            login: host.cookie(name, ".login"),
            post: post.cookie(name, ".post"),
            done: host.cookie(name, ".done"),
            hop: host.cookie(name, ".hop"),
            kept: host.cookie(name, ".kept"),
            logout: logout.cookie(name, ".logout"),
        }
    }

    /// What the names of our cookies begin with: the session's first, and what the others have instead.
    pub fn bases(&self) -> &[String] {
        &self.bases
    }

    /// Whether the session does not come along when another site leads here.
    pub fn is_strict(&self) -> bool {
        self.is_strict
    }

    /// Whether people are signed in inside frames of other sites, so that the session comes along with whatever a page around
    /// such a frame asks for.
    pub fn is_partitioned(&self) -> bool {
        self.is_partitioned
    }

    /// Whether the session is shown to `host` because of `cookie.domain`.
    pub fn is_shared_with(&self, host: &str) -> bool {
        self.domain.as_deref().is_some_and(|domain| is_at_or_below(host, domain))
    }

    /// The session's name.
    pub fn session_name(&self) -> &str {
        self.parts[0].name()
    }

    /// The idle record's name.
    pub fn idle_name(&self) -> &str {
        self.idle.name()
    }

    /// The idle record.
    pub fn idle(&self) -> &OwnCookie {
        &self.idle
    }

    /// The login secret.
    pub fn login(&self) -> &OwnCookie {
        &self.login
    }

    /// The login secret where the provider answers by a POST.
    pub fn post(&self) -> &OwnCookie {
        &self.post
    }

    /// What counts sign-ins in a row.
    pub fn done(&self) -> &OwnCookie {
        &self.done
    }

    /// What remembers the last hop over a page of our own.
    pub fn hop(&self) -> &OwnCookie {
        &self.hop
    }

    /// What opens the posts that are kept for this browser.
    pub fn kept(&self) -> &OwnCookie {
        &self.kept
    }

    /// What binds a sign-out to this browser.
    pub fn logout(&self) -> &OwnCookie {
        &self.logout
    }

    /// Puts the session value together, without copying where it is whole; `None` when there is no session cookie.
    ///
    /// # Errors
    /// [`JoinError`].
    pub fn join<'c>(&self, cookies: &'c OwnCookies) -> Result<Option<std::borrow::Cow<'c, [u8]>>, JoinError> {
        let Some(first) = cookies.get(self.session_name())? else { return Ok(None) };
        let Some(mark) = first.iter().take(3).position(|byte| *byte == b'~') else { return Ok(Some(first.into())) };
        let count = std::str::from_utf8(&first[..mark]).ok().and_then(|count| count.parse::<usize>().ok());
        let count = count.filter(|count| (2..=MAX_PARTS).contains(count)).ok_or(JoinError::Incomplete)?;
        let mut whole = first[mark + 1..].to_vec();
        for part in &self.parts[1..count] {
            whole.extend_from_slice(cookies.get(part.name())?.ok_or(JoinError::Incomplete)?);
        }
        Ok(Some(whole.into()))
    }

    /// Whether a value fits into the cookies.
    pub fn holds(&self, value: &str) -> bool {
        // Two bytes are the mark of the first of several parts.
        value.len() <= PART * MAX_PARTS - 2
    }

    /// The `Set-Cookie` values that store a session and delete the parts of an older one that `present` shows.
    /// `None` when the value needs more than [`MAX_PARTS`].
    pub fn store(&self, value: &str, max_age: Option<Duration>, present: &OwnCookies) -> Option<Vec<HeaderValue>> {
        if !self.holds(value) {
            return None;
        }
        let mut cookies = Vec::with_capacity(1);
        if value.len() <= PART {
            cookies.push(self.parts[0].set(value, max_age));
        } else {
            // Two bytes of the first part are its mark.
            let count = (value.len() + 2).div_ceil(PART);
            let (first, rest) = value.split_at_checked(PART - 2)?;
            cookies.push(self.parts[0].set(&format!("{count}~{first}"), max_age));
            for (chunk, part) in rest.as_bytes().chunks(PART).zip(&self.parts[1..]) {
                cookies.push(part.set(std::str::from_utf8(chunk).ok()?, max_age));
            }
        }
        let stale = self.parts.iter().skip(cookies.len()).filter(|part| is_there(part, present));
        let deletions = stale.map(OwnCookie::delete).collect::<Vec<_>>();
        cookies.extend(deletions);
        Some(cookies)
    }

    /// Deletes every session cookie of ours that the request showed, with what belongs to it.
    pub fn delete_session(&self, present: &OwnCookies) -> Vec<HeaderValue> {
        let all = self.parts.iter().chain([&self.idle, &self.done, &self.kept]);
        all.filter(|cookie| is_there(cookie, present)).map(OwnCookie::delete).collect()
    }
}

/// Once or more.
fn is_there(cookie: &OwnCookie, present: &OwnCookies) -> bool {
    !matches!(present.get(cookie.name()), Ok(None))
}

/// RFC 6265 §5.1.3, of names that are lower case and no addresses.
pub fn is_at_or_below(host: &str, domain: &str) -> bool {
    host.strip_suffix(domain).is_some_and(|front| front.is_empty() || front.ends_with('.'))
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;
    use http::header::COOKIE;
    use proptest::prelude::*;

    use super::*;

    fn jar() -> CookieJar {
        CookieJar::new(&Settings::named("v"), true)
    }

    fn carried(cookies: &[HeaderValue]) -> OwnCookies {
        let pairs = cookies.iter().map(|cookie| cookie.to_str().unwrap().split(';').next().unwrap().to_owned());
        let mut headers = HeaderMap::new();
        headers.insert(COOKIE, pairs.collect::<Vec<_>>().join("; ").parse().unwrap());
        OwnCookies::cut_from(&mut headers, &["__Host-v"])
    }

    #[test]
    fn each_cookie_goes_no_further_than_it_must() {
        let told = |jar: &CookieJar| {
            let all =
                [&jar.parts[0], &jar.parts[3], &jar.idle, &jar.login, &jar.post, &jar.done, &jar.hop, &jar.logout];
            all.map(|cookie| cookie.set("x", None).to_str().unwrap().replace("; HttpOnly", ""))
        };
        let host = |suffix: &str, same_site: &str| format!("__Host-v{suffix}=x; SameSite={same_site}; Secure; Path=/");
        let of_host = [host(".login", "Lax"), host(".post", "None"), host(".done", "Lax"), host(".hop", "Lax")];
        let plain = told(&jar());
        assert_eq!(plain[..3], [host("", "Lax"), host(".3", "Lax"), host(".idle", "Lax")]);
        assert_eq!(plain[3..7], of_host);
        assert_eq!(plain[7], host(".logout", "Lax"));
        assert_eq!(jar().bases(), ["__Host-v"]);

        let domain = Some("example.com".to_owned());
        let same_site = SameSite::Strict;
        let wide =
            CookieJar::new(&Settings { domain, same_site, path: "/app".to_owned(), ..Settings::named("v") }, true);
        let shared = |suffix: &str, same_site: &str, path: &str| {
            format!("__Secure-v{suffix}=x; SameSite={same_site}; Secure; Path={path}; Domain=example.com")
        };
        let told = told(&wide);
        let session = ["", ".3", ".idle"].map(|suffix| shared(suffix, "Strict", "/app"));
        assert_eq!(told[..3], session);
        assert_eq!(told[3..7], of_host);
        assert_eq!(told[7], shared(".logout", "Lax", "/"));
        assert_eq!(wide.bases(), ["__Secure-v", "__Host-v"]);
        assert!(wide.is_strict() && !jar().is_strict());
    }

    #[test]
    fn for_a_frame_every_one_of_them_is_partitioned_and_a_deletion_says_so() {
        let settings = Settings { same_site: SameSite::Partitioned, ..Settings::named("v") };
        let jar = CookieJar::new(&settings, true);
        let more = [&jar.idle, &jar.login, &jar.post, &jar.done, &jar.hop, &jar.kept, &jar.logout];
        for cookie in jar.parts.iter().chain(more) {
            let words = "HttpOnly; SameSite=None; Partitioned; Secure; Path=/";
            assert_eq!(cookie.set("x", None), format!("{}=x; {words}", cookie.name()));
            assert_eq!(cookie.delete(), format!("{}=; {words}; Max-Age=0", cookie.name()));
            assert!(cookie.name().starts_with("__Host-v"));
        }
        assert!(jar.is_partitioned() && !jar.is_strict() && !super::tests::jar().is_partitioned());
    }

    #[test]
    fn over_http_there_is_no_prefix_and_a_post_from_another_site_is_secure_all_the_same() {
        let jar = CookieJar::new(&Settings::named("v"), false);
        assert_eq!(jar.parts[0].set("x", None), "v=x; HttpOnly; SameSite=Lax; Path=/");
        assert_eq!(jar.post.set("x", None), "v.post=x; HttpOnly; SameSite=None; Secure; Path=/");
        assert_eq!(jar.bases(), ["v"]);
    }

    #[test]
    fn a_domain_ends_at_a_dot() {
        let jar = CookieJar::new(&Settings { domain: Some("example.com".to_owned()), ..Settings::named("v") }, true);
        for (host, shared) in
            [("example.com", true), ("a.b.example.com", true), ("evilexample.com", false), ("com", false), ("", false)]
        {
            assert_eq!(jar.is_shared_with(host), shared, "{host}");
            assert!(!super::tests::jar().is_shared_with(host));
        }
    }

    #[test]
    fn what_needs_too_many_parts_is_not_stored() {
        let none = OwnCookies::default();
        assert!(jar().store(&"a".repeat(PART * MAX_PARTS - 2), None, &none).is_some());
        assert!(jar().store(&"a".repeat(PART * MAX_PARTS - 1), None, &none).is_none());
    }

    #[test]
    fn parts_of_a_longer_session_are_deleted() {
        let none = OwnCookies::default();
        let long = carried(&jar().store(&"a".repeat(9_000), None, &none).unwrap());
        let stored = jar().store("short", None, &long).unwrap();
        let texts = stored.iter().map(|cookie| cookie.to_str().unwrap()).collect::<Vec<_>>();
        assert_eq!(texts.len(), 3);
        assert!(texts[0].starts_with("__Host-v=short;"));
        assert!(texts[1].starts_with("__Host-v.1=; ") && texts[1].ends_with("Max-Age=0"));
        assert!(texts[2].starts_with("__Host-v.2=; "));
    }

    #[test]
    fn a_missing_part_and_a_wrong_count_are_refused() {
        let none = OwnCookies::default();
        let stored = jar().store(&"a".repeat(9_000), None, &none).unwrap();
        assert_eq!(jar().join(&carried(&stored[..2])), Err(JoinError::Incomplete));
        for value in ["1~x", "5~x", "0~", "~x", "-1~x", "99~x"] {
            let cookies = carried(&[HeaderValue::try_from(format!("__Host-v={value}")).unwrap()]);
            assert_eq!(jar().join(&cookies), Err(JoinError::Incomplete), "{value}");
        }
    }

    #[test]
    fn a_name_that_comes_twice_is_refused() {
        let cookies = carried(&["__Host-v=a".parse().unwrap(), "__Host-v=a".parse().unwrap()]);
        assert!(matches!(jar().join(&cookies), Err(JoinError::Duplicate(_))));
    }

    proptest! {
        #[test]
        fn joining_gives_back_what_was_stored(value in "[A-Za-z0-9_-]{1,15598}") {
            let none = OwnCookies::default();
            let stored = jar().store(&value, None, &none).unwrap();
            prop_assert!(stored.iter().all(|cookie| cookie.len() <= 4_096));
            let carried = carried(&stored);
            let joined = jar().join(&carried).unwrap().unwrap().into_owned();
            prop_assert_eq!(joined, value.into_bytes());
        }
    }
}
