//! Whether a person is navigating: only then may a request start a sign-in.

use http::Method;
use http::header::{ACCEPT, HeaderMap, HeaderName, HeaderValue, ORIGIN};

use crate::message::Origin;
use crate::message::headers::list_members;

const SEC_FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");
const SEC_FETCH_DEST: HeaderName = HeaderName::from_static("sec-fetch-dest");
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const SEC_PURPOSE: HeaderName = HeaderName::from_static("sec-purpose");
const X_REQUESTED_WITH: HeaderName = HeaderName::from_static("x-requested-with");

/// Where people look at the application.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Windows {
    /// In windows and tabs.
    #[default]
    Own,
    /// Also in frames of other pages (`cookie.partitioned`).
    AndFrames,
}

impl Windows {
    /// Whether somebody looks at what is fetched for this destination (`Sec-Fetch-Dest`).
    pub fn show(self, destination: &[u8]) -> bool {
        destination == b"document" || (self == Self::AndFrames && is_frame(destination))
    }
}

/// A destination that a page embeds for people to look at. Not `object` and `embed`, which pages embed all kinds of things by.
pub fn is_frame(destination: &[u8]) -> bool {
    matches!(destination, b"iframe" | b"frame")
}

/// A GET that the browser calls a navigation of one of these `windows`; where it says nothing (Fetch Metadata), one that prefers
/// HTML.
pub fn is_navigation(method: &Method, headers: &HeaderMap, windows: Windows) -> bool {
    if method != Method::GET || headers.contains_key(X_REQUESTED_WITH) || is_prefetch(headers) {
        return false;
    }
    if headers.contains_key(SEC_FETCH_MODE) || headers.contains_key(SEC_FETCH_DEST) {
        return navigates(headers, windows);
    }
    prefers_html(headers)
}

/// By every word of the browser.
fn navigates(headers: &HeaderMap, windows: Windows) -> bool {
    is_only(headers, &SEC_FETCH_MODE, b"navigate")
        && only(headers, &SEC_FETCH_DEST).is_some_and(|destination| windows.show(destination))
}

/// A form of a page of ours, sent in a window, by every word of a browser that says so (Fetch Metadata, Fetch §3.2): a POST that is a
/// top-level navigation, from our own origin exactly. Silence and `Origin: null` are no such word.
pub fn is_own_form(method: &Method, headers: &HeaderMap, own: &Origin, windows: Windows) -> bool {
    method == Method::POST
        && navigates(headers, windows)
        && is_only(headers, &SEC_FETCH_SITE, b"same-origin")
        && is_only(headers, &ORIGIN, own.as_str().as_bytes())
}

/// Whether a page of another site makes the browser fetch this for itself: an image, a script, whatever a script of it asks for. Not
/// so where somebody goes there, in a window or in a frame, as a browser brings cookies with `SameSite=Lax` into a window (RFC
/// 6265bis §5.2). Of a browser that does not say (Fetch Metadata) nothing else is known.
pub fn is_for_another_site(headers: &HeaderMap) -> bool {
    let mut sites = headers.get_all(&SEC_FETCH_SITE).into_iter().peekable();
    let is_near = |site: &HeaderValue| site == "same-origin" || site == "same-site" || site == "none";
    let is_said = sites.peek().is_some();
    !(is_said && (sites.all(is_near) || navigates(headers, Windows::AndFrames)))
}

/// Whether, by the word of the browser, another site's page has this fetched for anything but a window: for a frame, which the browser
/// may show or not, or for an image. Where nobody looks at frames of other sites, those of a page of the same site are near.
pub fn is_embedded_elsewhere(headers: &HeaderMap, windows: Windows) -> bool {
    let is_near = |site: &HeaderValue| {
        site == "same-origin" || site == "none" || (windows == Windows::Own && site == "same-site")
    };
    headers.get_all(&SEC_FETCH_DEST).into_iter().any(|destination| destination != "document")
        && !headers.get_all(&SEC_FETCH_SITE).into_iter().all(is_near)
}

/// Whether the browser fetches ahead of time what nobody asked for: `Sec-Purpose: prefetch` or `prefetch;prerender` (Fetch,
/// "Sec-Purpose"); other purposes say nothing about who is looking.
pub fn is_prefetch(headers: &HeaderMap) -> bool {
    list_members(headers, &SEC_PURPOSE)
        .any(|purpose| purpose.get(..8).is_some_and(|start| start.eq_ignore_ascii_case(b"prefetch")))
}

fn is_only(headers: &HeaderMap, name: &HeaderName, wanted: &[u8]) -> bool {
    only(headers, name) == Some(wanted)
}

fn only<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h [u8]> {
    let mut lines = headers.get_all(name).into_iter().map(HeaderValue::as_bytes);
    lines.next().filter(|_| lines.next().is_none())
}

/// Whether `text/html` is named and nothing is liked better (RFC 9110 §12.5.1); among equals, what is named first counts,
/// and a named type counts before a wildcard.
pub fn prefers_html(headers: &HeaderMap) -> bool {
    let (mut html, mut other, mut wildcard) = (0, 0, 0);
    for range in list_members(headers, &ACCEPT) {
        let mut pieces = range.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
        let media_type = pieces.next().unwrap_or_default();
        let Some(quality) = quality(pieces) else { continue };
        if [&b"text/html"[..], b"application/xhtml+xml"].iter().any(|one| media_type.eq_ignore_ascii_case(one)) {
            // Named after something liked as much: that other type is what the client is about.
            if quality > other {
                html = html.max(quality);
            }
        } else if media_type.ends_with(b"/*") {
            wildcard = wildcard.max(quality);
        } else {
            other = other.max(quality);
        }
    }
    html > 0 && html >= other && html >= wildcard
}

/// The weight in thousandths; `None` when it is malformed.
fn quality<'p>(mut parameters: impl Iterator<Item = &'p [u8]>) -> Option<u16> {
    let Some(weight) = parameters.find_map(|one| one.strip_prefix(b"q=").or_else(|| one.strip_prefix(b"Q="))) else {
        return Some(1000);
    };
    let (whole, fraction) = match weight {
        [whole] | [whole, b'.'] => (whole, &[][..]),
        [whole, b'.', fraction @ ..] if fraction.len() <= 3 => (whole, fraction),
        _ => return None,
    };
    let digit = |byte: &u8| byte.is_ascii_digit().then(|| u16::from(byte - b'0'));
    let mut thousandths = digit(whole)? * 1000;
    for (byte, place) in fraction.iter().zip([100, 10, 1]) {
        thousandths += digit(byte)? * place;
    }
    (thousandths <= 1000).then_some(thousandths)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn navigates(headers: &[(&'static str, &'static str)]) -> bool {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, HeaderValue::from_static(value));
        }
        for windows in [Windows::Own, Windows::AndFrames] {
            assert!(!is_navigation(&Method::POST, &map, windows) && !is_navigation(&Method::HEAD, &map, windows));
        }
        is_navigation(&Method::GET, &map, Windows::Own)
    }

    #[test]
    fn a_frame_is_a_window_only_where_people_look_at_frames() {
        for (mode, destination, wanted) in [
            ("navigate", "document", [true, true]),
            ("navigate", "iframe", [false, true]),
            ("navigate", "frame", [false, true]),
            ("navigate", "embed", [false, false]),
            ("navigate", "object", [false, false]),
            ("no-cors", "iframe", [false, false]),
            ("cors", "empty", [false, false]),
        ] {
            let mut map = HeaderMap::new();
            map.append("sec-fetch-mode", HeaderValue::from_static(mode));
            map.append("sec-fetch-dest", HeaderValue::from_static(destination));
            let told = [Windows::Own, Windows::AndFrames].map(|windows| is_navigation(&Method::GET, &map, windows));
            assert_eq!(told, wanted, "{mode} {destination}");
        }
    }

    #[test]
    fn what_another_sites_page_embeds_is_told_from_windows_and_from_what_a_page_of_ours_embeds() {
        type Row = (&'static [(&'static str, &'static str)], [bool; 2]);
        let table: &[Row] = &[
            (&[], [false, false]),
            (&[("sec-fetch-dest", "iframe")], [false, false]),
            (&[("sec-fetch-site", "cross-site")], [false, false]),
            (&[("sec-fetch-dest", "document"), ("sec-fetch-site", "cross-site")], [false, false]),
            (&[("sec-fetch-dest", "iframe"), ("sec-fetch-site", "none")], [false, false]),
            (&[("sec-fetch-dest", "iframe"), ("sec-fetch-site", "same-origin")], [false, false]),
            (&[("sec-fetch-dest", "iframe"), ("sec-fetch-site", "same-site")], [false, true]),
            (&[("sec-fetch-dest", "iframe"), ("sec-fetch-site", "cross-site")], [true, true]),
            (&[("sec-fetch-dest", "frame"), ("sec-fetch-site", "cross-site")], [true, true]),
            (&[("sec-fetch-dest", "image"), ("sec-fetch-site", "cross-site")], [true, true]),
            (&[("sec-fetch-dest", "empty"), ("sec-fetch-site", "new")], [true, true]),
            (
                &[("sec-fetch-dest", "iframe"), ("sec-fetch-site", "same-origin"), ("sec-fetch-site", "cross-site")],
                [true, true],
            ),
        ];
        for (fields, wanted) in table {
            let mut map = HeaderMap::new();
            for (name, value) in *fields {
                map.append(*name, HeaderValue::from_static(value));
            }
            let told = [Windows::Own, Windows::AndFrames].map(|windows| is_embedded_elsewhere(&map, windows));
            assert_eq!(told, *wanted, "{fields:?}");
        }
    }

    #[test]
    fn what_another_site_fetches_for_itself_is_told_from_where_somebody_goes() {
        const CROSS: (&str, &str) = ("sec-fetch-site", "cross-site");
        let navigation = |destination| [CROSS, ("sec-fetch-mode", "navigate"), ("sec-fetch-dest", destination)];
        let fetch = |mode| [CROSS, ("sec-fetch-mode", mode), ("sec-fetch-dest", "empty")];
        let table: &[(&[(&str, &str)], bool)] = &[
            (&[], true),
            (&[("origin", "https://portal.example")], true),
            (&[("sec-fetch-site", "none")], false),
            (&[("sec-fetch-site", "same-origin"), ("origin", "https://app.example")], false),
            (&[("sec-fetch-site", "same-site"), ("sec-fetch-mode", "cors")], false),
            (&navigation("document"), false),
            (&navigation("iframe"), false),
            (&navigation("frame"), false),
            (&navigation("embed"), true),
            (&navigation("object"), true),
            (&navigation("image"), true),
            (&fetch("cors"), true),
            (&fetch("no-cors"), true),
            (&[CROSS], true),
            (&[CROSS, ("sec-fetch-mode", "navigate")], true),
            (&[("sec-fetch-site", "same-origin"), CROSS], true),
            (&[("sec-fetch-site", "new")], true),
        ];
        for (fields, wanted) in table {
            let mut map = HeaderMap::new();
            for (name, value) in *fields {
                map.append(*name, HeaderValue::from_static(value));
            }
            assert_eq!(is_for_another_site(&map), *wanted, "{fields:?}");
        }
    }

    #[test]
    fn fetch_metadata_decides_where_it_is_sent() {
        let table: &[(&[(&str, &str)], bool)] = &[
            (&[("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document")], true),
            (&[("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "iframe")], false),
            (&[("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "empty")], false),
            (&[("sec-fetch-mode", "cors"), ("sec-fetch-dest", "empty"), ("accept", "text/html")], false),
            (&[("sec-fetch-mode", "navigate"), ("accept", "text/html")], false),
            (&[("sec-fetch-dest", "document"), ("accept", "text/html")], false),
            (&[("sec-fetch-mode", "navigate"), ("sec-fetch-mode", "cors"), ("sec-fetch-dest", "document")], false),
            (
                &[
                    ("sec-fetch-mode", "navigate"),
                    ("sec-fetch-dest", "document"),
                    ("sec-purpose", "prefetch;prerender"),
                ],
                false,
            ),
            (&[("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document"), ("x-requested-with", "x")], false),
            (&[("sec-fetch-mode", "websocket"), ("sec-fetch-dest", "websocket")], false),
        ];
        for (headers, wanted) in table {
            assert_eq!(navigates(headers), *wanted, "{headers:?}");
        }
    }

    #[test]
    fn a_form_is_ours_by_every_word_that_says_so() {
        const OURS: [(&str, &str); 4] = [
            ("sec-fetch-mode", "navigate"),
            ("sec-fetch-dest", "document"),
            ("sec-fetch-site", "same-origin"),
            ("origin", "https://app.example"),
        ];
        let own = Origin::of(&url::Url::parse("https://app.example").unwrap()).unwrap();
        let is_ours = |method, fields: &[(&'static str, &'static str)]| {
            let mut map = HeaderMap::new();
            for (name, value) in fields {
                map.append(*name, HeaderValue::from_static(value));
            }
            is_own_form(&method, &map, &own, Windows::Own)
        };
        assert!(is_ours(Method::POST, &OURS));
        let in_a_frame: HeaderMap = OURS
            .iter()
            .map(|(name, value)| {
                let value = if *name == "sec-fetch-dest" { "iframe" } else { value };
                (HeaderName::from_static(name), HeaderValue::from_static(value))
            })
            .collect();
        let of_a_frame = |windows| is_own_form(&Method::POST, &in_a_frame, &own, windows);
        assert!(of_a_frame(Windows::AndFrames) && !of_a_frame(Windows::Own));
        for method in [Method::GET, Method::PUT, Method::PATCH, Method::DELETE] {
            assert!(!is_ours(method, &OURS));
        }
        for index in 0..OURS.len() {
            let mut fields = OURS.to_vec();
            let (name, value) = fields.remove(index);
            assert!(!is_ours(Method::POST, &fields), "without {name}");
            for other in ["null", "", "https://evil.example", "same-site", "cross-site", "none", "iframe", "no-cors"] {
                assert!(!is_ours(Method::POST, &[&fields[..], &[(name, other)]].concat()), "{name}: {other}");
                let twice = [&fields[..], &[(name, value), (name, other)]].concat();
                assert!(!is_ours(Method::POST, &twice), "{name}: {value} and {other}");
            }
        }
        for origin in
            ["http://app.example", "https://app.example:8443", "https://www.app.example", "https://app.example/"]
        {
            assert!(!is_ours(Method::POST, &[&OURS[..3], &[("origin", origin)]].concat()), "{origin}");
        }
    }

    #[test]
    fn elsewhere_html_must_be_preferred() {
        for (accept, wanted) in [
            ("text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8", true),
            ("text/html", true),
            ("TEXT/HTML;level=1;q=0.5", true),
            ("text/html, */*", true),
            ("text/html, application/json", true),
            ("*/*", false),
            ("text/*", false),
            ("", false),
            ("application/json", false),
            ("application/json, text/plain, */*", false),
            ("application/json, text/html", false),
            ("application/json, text/html;q=0.9", false),
            ("text/html;q=0.9, application/json", false),
            ("text/html;q=0.9, */*", false),
            ("application/json;q=0.9, */*;q=0.1", false),
            ("application/vnd.api+json", false),
            ("text/event-stream", false),
            ("text/html;q=0", false),
            ("text/html;q=2", false),
            ("text/html;q=x", false),
            ("text/html;q=0.1234", false),
            ("text/htmlx", false),
        ] {
            assert_eq!(navigates(&[("accept", accept)]), wanted, "{accept}");
        }
        assert!(!navigates(&[]));
        assert!(!navigates(&[("accept", "text/html"), ("x-requested-with", "XMLHttpRequest")]));
        assert!(!navigates(&[("accept", "text/html"), ("sec-purpose", "prefetch")]));
    }
}
