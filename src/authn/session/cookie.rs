//! Our cookies: names, attributes, and a value split over several when one would be too large.
//!
//! | name | what it holds |
//! |---|---|
//! | `base` | the sealed session, or its first part behind `N~` (N parts in all) |
//! | `base.1` … `base.3` | the further parts |
//! | `base.idle` | the sealed time of the last request |
//! | `base.login` | this browser's login secret |
//! | `base.post` | the same where the provider answers by a POST from its own site; `SameSite=None` |
//! | `base.logout` | for as long as a sign-out is on its way through the provider: a digest of its `state` |
//! | `base.done` | for half a minute after a sign-in: how many in a row there were |

use std::time::Duration;

use cookie::{Cookie, SameSite};
use http::HeaderValue;

use crate::message::{DuplicateCookie, OwnCookies};

/// Browsers keep cookies of up to 4,096 bytes (RFC 6265bis §5.6); this leaves room for the name.
pub const PART: usize = 3_900;
/// The most parts. Four keep the `Cookie` line within what proxies in front accept of one line (16 KiB) as a rule.
pub const MAX_PARTS: usize = 4;

/// The names and attributes of our cookies.
#[derive(Debug, Clone)]
pub struct CookieJar {
    base: String,
    secure: bool,
    idle: String,
    login: String,
    post: String,
    done: String,
    logout: String,
    parts: Vec<String>,
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
    /// `base` carries its prefix already; `secure` where the redirect URI is https.
    pub fn new(base: String, secure: bool) -> Self {
        Self {
            idle: format!("{base}.idle"),
            login: format!("{base}.login"),
            post: format!("{base}.post"),
            done: format!("{base}.done"),
            logout: format!("{base}.logout"),
            parts: (0..MAX_PARTS).map(|part| if part == 0 { base.clone() } else { format!("{base}.{part}") }).collect(),
            base,
            secure,
        }
    }

    /// The session's name.
    pub fn session_name(&self) -> &str {
        &self.base
    }

    /// The idle record's name.
    pub fn idle_name(&self) -> &str {
        &self.idle
    }

    /// The login secret's name.
    pub fn login_name(&self) -> &str {
        &self.login
    }

    /// The login secret's name where the provider answers by a POST.
    pub fn post_name(&self) -> &str {
        &self.post
    }

    /// A cookie that comes back with a POST from another site. Browsers take `SameSite=None` only with `Secure`, and that
    /// also from http on loopback.
    pub fn set_for_posts(&self, value: &str, max_age: Duration) -> HeaderValue {
        let mut cookie = self.attributes(&self.post, value);
        cookie.set_same_site(SameSite::None);
        cookie.set_secure(true);
        cookie.set_max_age(cookie::time::Duration::try_from(max_age).unwrap_or(cookie::time::Duration::DAY));
        header_value(&cookie)
    }

    /// The name of the cookie that counts sign-ins in a row.
    pub fn done_name(&self) -> &str {
        &self.done
    }

    /// The name of the cookie that binds a sign-out to this browser.
    pub fn logout_name(&self) -> &str {
        &self.logout
    }

    /// Puts the session value together, without copying where it is whole; `None` when there is no session cookie.
    ///
    /// # Errors
    /// [`JoinError`].
    pub fn join<'c>(&self, cookies: &'c OwnCookies) -> Result<Option<std::borrow::Cow<'c, [u8]>>, JoinError> {
        let Some(first) = cookies.get(&self.base)? else { return Ok(None) };
        let Some(mark) = first.iter().take(3).position(|byte| *byte == b'~') else { return Ok(Some(first.into())) };
        let count = std::str::from_utf8(&first[..mark]).ok().and_then(|count| count.parse::<usize>().ok());
        let count = count.filter(|count| (2..=MAX_PARTS).contains(count)).ok_or(JoinError::Incomplete)?;
        let mut whole = first[mark + 1..].to_vec();
        for name in &self.parts[1..count] {
            whole.extend_from_slice(cookies.get(name)?.ok_or(JoinError::Incomplete)?);
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
            cookies.push(self.set(&self.base, value, max_age));
        } else {
            // Two bytes of the first part are its mark.
            let count = (value.len() + 2).div_ceil(PART);
            let (first, rest) = value.split_at_checked(PART - 2)?;
            cookies.push(self.set(&self.base, &format!("{count}~{first}"), max_age));
            for (chunk, name) in rest.as_bytes().chunks(PART).zip(&self.parts[1..]) {
                cookies.push(self.set(name, std::str::from_utf8(chunk).ok()?, max_age));
            }
        }
        let stale = self.parts.iter().skip(cookies.len()).filter(|name| !matches!(present.get(name), Ok(None)));
        let deletions = stale.map(|name| self.delete(name)).collect::<Vec<_>>();
        cookies.extend(deletions);
        Some(cookies)
    }

    /// One cookie; without `max_age` it ends with the browser.
    pub fn set(&self, name: &str, value: &str, max_age: Option<Duration>) -> HeaderValue {
        let mut cookie = self.attributes(name, value);
        if let Some(age) = max_age {
            cookie.set_max_age(cookie::time::Duration::try_from(age).unwrap_or(cookie::time::Duration::DAY));
        }
        header_value(&cookie)
    }

    /// Deletes one cookie, with the attributes it was set with: a browser ignores the deletion of a `__Host-` cookie
    /// without `Secure` (CVE-2025-55162).
    pub fn delete(&self, name: &str) -> HeaderValue {
        let mut cookie = self.attributes(name, "");
        cookie.set_max_age(cookie::time::Duration::ZERO);
        header_value(&cookie)
    }

    /// Deletes every session cookie of ours that the request showed, with what belongs to it.
    pub fn delete_session(&self, present: &OwnCookies) -> Vec<HeaderValue> {
        let names = self.parts.iter().chain([&self.idle, &self.done]);
        names.filter(|name| !matches!(present.get(name), Ok(None))).map(|name| self.delete(name)).collect()
    }

    fn attributes<'a>(&self, name: &'a str, value: &'a str) -> Cookie<'a> {
        Cookie::build((name, value)).path("/").secure(self.secure).http_only(true).same_site(SameSite::Lax).build()
    }
}

fn header_value(cookie: &Cookie<'_>) -> HeaderValue {
    // Names are configuration-checked tokens and values base64url, so this cannot fail; an empty value would be harmless.
    HeaderValue::try_from(cookie.to_string()).unwrap_or_else(|_| HeaderValue::from_static(""))
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;
    use http::header::COOKIE;
    use proptest::prelude::*;

    use super::*;

    fn jar() -> CookieJar {
        CookieJar::new("__Host-v".to_owned(), true)
    }

    fn carried(cookies: &[HeaderValue]) -> OwnCookies {
        let pairs = cookies.iter().map(|cookie| cookie.to_str().unwrap().split(';').next().unwrap().to_owned());
        let mut headers = HeaderMap::new();
        headers.insert(COOKIE, pairs.collect::<Vec<_>>().join("; ").parse().unwrap());
        OwnCookies::cut_from(&mut headers, "__Host-v")
    }

    #[test]
    fn cookies_are_host_bound_secure_http_only_and_lax() {
        let cookie = jar().set("__Host-v", "x", Some(Duration::from_secs(60)));
        assert_eq!(cookie, "__Host-v=x; HttpOnly; SameSite=Lax; Secure; Path=/; Max-Age=60");
        assert_eq!(jar().set("__Host-v", "x", None), "__Host-v=x; HttpOnly; SameSite=Lax; Secure; Path=/");
    }

    #[test]
    fn a_deletion_repeats_the_attributes() {
        assert_eq!(jar().delete("__Host-v"), "__Host-v=; HttpOnly; SameSite=Lax; Secure; Path=/; Max-Age=0");
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
