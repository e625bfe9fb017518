//! The answer's head as the client gets it.

use std::time::Duration;

use http::header::{
    AUTHORIZATION, CONNECTION, CONTENT_LENGTH, SET_COOKIE, TRANSFER_ENCODING, UPGRADE, WWW_AUTHENTICATE,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version, response};

use super::UpstreamError;
use crate::message::{headers, is_ours};

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");

/// Which fields with a meaning for us a head has at all. Most have hardly any, so that one walk over the names costs less than
/// a search for each.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Telling {
    /// `Authorization` or `WWW-Authenticate`.
    pub(super) signs_in: bool,
    /// `Content-Length` or `Transfer-Encoding`.
    pub(super) frames: bool,
    pub(super) keep_alive: bool,
    pub(super) set_cookie: bool,
}

impl Telling {
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let mut telling = Self::default();
        for name in headers.keys() {
            telling.signs_in |= name == AUTHORIZATION || name == WWW_AUTHENTICATE;
            telling.frames |= name == CONTENT_LENGTH || name == TRANSFER_ENCODING;
            telling.keep_alive |= name == KEEP_ALIVE;
            telling.set_cookie |= name == SET_COOKIE;
        }
        telling
    }
}

/// Takes what belongs to the upstream's connection out of `head`.
///
/// # Errors
/// [`UpstreamError::Invalid`] for a transfer coding that is not exactly `chunked`: without its header the client would take
/// the coded bytes for the content.
pub(super) fn clean(head: &mut response::Parts, method: &Method, telling: Telling) -> Result<(), UpstreamError> {
    if telling.frames {
        settle_framing(head, method)?;
    }
    headers::strip_hop_by_hop(&mut head.headers);
    // What the upstream speaks says nothing about what we speak to the client.
    head.version = Version::HTTP_11;
    Ok(())
}

fn settle_framing(head: &mut response::Parts, method: &Method) -> Result<(), UpstreamError> {
    if let Some(coding) = head.headers.get(TRANSFER_ENCODING) {
        let chunked = coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked");
        if !chunked || head.headers.get_all(TRANSFER_ENCODING).iter().count() != 1 {
            return Err(UpstreamError::Invalid);
        }
        // RFC 9112 §6.3: chunked overrides a length, and only one of them may go on.
        head.headers.remove(CONTENT_LENGTH);
    }
    // Where there is a body the length is written anew from what is really there. Where there is none by its kind, the field says
    // what a GET would bring (RFC 9110 §8.6); one that says nothing clear goes.
    let is_told = method == Method::HEAD || head.status == StatusCode::NOT_MODIFIED;
    if !(is_told && has_one_length(&head.headers)) {
        head.headers.remove(CONTENT_LENGTH);
    }
    Ok(())
}

fn has_one_length(headers: &HeaderMap) -> bool {
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    let is_number = |length: &HeaderValue| !length.is_empty() && length.as_bytes().iter().all(u8::is_ascii_digit);
    lengths.next().is_some_and(is_number) && lengths.next().is_none()
}

/// Whether `name` speaks of NTLM or Negotiate, which sign in a connection and not a request (RFC 4559 §6): whoever came
/// next on it would pass for the same person.
pub(super) fn signs_in_connection(headers: &HeaderMap, name: &HeaderName) -> bool {
    // Several challenges may stand in one line.
    let challenges = headers.get_all(name).iter().flat_map(|line| line.as_bytes().split(|byte| *byte == b','));
    let scheme = |challenge: &[u8]| {
        let end = challenge.iter().position(|byte| *byte == b' ').unwrap_or(challenge.len());
        [&b"ntlm"[..], b"negotiate"].iter().any(|one| challenge[..end].eq_ignore_ascii_case(one))
    };
    challenges.map(<[u8]>::trim_ascii).any(scheme)
}

/// After a checked 101: the upgrade is the client's connection's now.
pub(super) fn announce_upgrade(headers: &mut HeaderMap, protocol: HeaderValue) {
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, protocol);
}

/// `Keep-Alive: timeout=` in whole seconds (RFC 2068 §19.7.1.1, still sent by many servers).
pub(super) fn announced_idle(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get(KEEP_ALIVE)?.to_str().ok()?;
    let seconds = value.split(',').find_map(|parameter| {
        let (name, seconds) = parameter.split_once('=')?;
        name.trim().eq_ignore_ascii_case("timeout").then(|| seconds.trim().parse::<u32>().ok())?
    })?;
    Some(Duration::from_secs(seconds.into()))
}

/// Drops every `Set-Cookie` of our names; tells how many.
pub(super) fn drop_own_cookies(headers: &mut HeaderMap, bases: &[String]) -> usize {
    let own = |value: &HeaderValue| is_ours(cookie_name(value.as_bytes()), bases);
    let dropped = headers.get_all(SET_COOKIE).iter().filter(|value| own(value)).count();
    if dropped > 0 {
        let kept: Vec<_> = headers.get_all(SET_COOKIE).iter().filter(|value| !own(value)).cloned().collect();
        headers.remove(SET_COOKIE);
        for value in kept {
            headers.append(SET_COOKIE, value);
        }
    }
    dropped
}

/// The name as a browser would send it back: a cookie without a name comes back as its bare value (RFC 6265bis §5.6), which
/// may itself look like `name=value`.
fn cookie_name(set_cookie: &[u8]) -> &[u8] {
    let pair = set_cookie.split(|byte| *byte == b';').next().unwrap_or_default();
    let start = pair.iter().position(|byte| !matches!(byte, b' ' | b'\t' | b'=')).unwrap_or(pair.len());
    let name = pair[start..].split(|byte| *byte == b'=').next().unwrap_or_default();
    let end = name.iter().rposition(|byte| !matches!(byte, b' ' | b'\t')).map_or(0, |last| last + 1);
    &name[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cookies_of_our_names_never_come_from_an_upstream() {
        let mut headers = HeaderMap::new();
        for value in [
            "app=1; Path=/",
            "__Host-vestibule=x",
            " \t__Host-vestibule.1 =x",
            "=__Host-vestibule=tossed",
            "__Host-vestibule",
            "__Host-vestibules=theirs",
            "other=__Host-vestibule",
        ] {
            headers.append(SET_COOKIE, HeaderValue::from_static(value));
        }
        assert_eq!(drop_own_cookies(&mut headers, &["__Host-vestibule".to_owned()]), 4);
        let kept: Vec<_> = headers.get_all(SET_COOKIE).iter().collect();
        assert_eq!(kept, ["app=1; Path=/", "__Host-vestibules=theirs", "other=__Host-vestibule"]);
        assert_eq!(drop_own_cookies(&mut headers, &["__Host-vestibule".to_owned()]), 0);
    }

    #[test]
    fn an_answer_has_one_framing() {
        let parts = |fields: &[(&str, &str)]| {
            let mut response = http::Response::builder().version(Version::HTTP_10);
            for (name, value) in fields {
                response = response.header(*name, *value);
            }
            response.body(()).unwrap().into_parts().0
        };
        let mut both = parts(&[("transfer-encoding", "chunked"), ("content-length", "3"), ("etag", "x")]);
        let clean = |head: &mut response::Parts, method| clean(head, method, Telling::of(&head.headers));
        clean(&mut both, &Method::GET).unwrap();
        assert_eq!((both.headers.len(), both.version), (1, Version::HTTP_11));
        for coding in ["gzip, chunked", "gzip", "chunked, chunked"] {
            assert!(clean(&mut parts(&[("transfer-encoding", coding)]), &Method::GET).is_err(), "{coding}");
        }
        let mut head = parts(&[("content-length", "3")]);
        clean(&mut head, &Method::HEAD).unwrap();
        assert_eq!(head.headers[CONTENT_LENGTH], "3");
        for unclear in [&[("content-length", "3"), ("content-length", "4")][..], &[("content-length", "3, 3")]] {
            let mut head = parts(unclear);
            clean(&mut head, &Method::HEAD).unwrap();
            assert!(!head.headers.contains_key(CONTENT_LENGTH), "{unclear:?}");
        }
    }

    #[test]
    fn the_announced_idle_time_is_read() {
        for (value, seconds) in
            [("timeout=5", Some(5)), ("max=100, Timeout = 7", Some(7)), ("timeout=x", None), ("", None)]
        {
            let mut headers = HeaderMap::new();
            headers.insert(KEEP_ALIVE, HeaderValue::from_static(value));
            assert_eq!(announced_idle(&headers), seconds.map(Duration::from_secs), "{value}");
        }
    }
}
