//! Our own cookies, cut out of `Cookie` before anything else reads it.
//! Names are matched byte for byte (space and tab trimmed, nothing else), because a sibling domain can toss look-alikes.

use std::ops::Range;

use http::header::{COOKIE, HeaderMap, HeaderValue};
use memchr::{memchr, memchr_iter};

/// The cookies of ours that one request carried, as byte slices of the original header values.
#[derive(Debug, Clone, Default)]
pub struct OwnCookies {
    /// The `Cookie` line as it came; none when no cookie is ours.
    line: Option<HeaderValue>,
    /// Those after it, which hardly any request has.
    more: Vec<HeaderValue>,
    found: Vec<Found>,
}

/// Where one of our cookies stands.
#[derive(Debug, Clone)]
struct Found {
    line: usize,
    name: Range<usize>,
    value: Range<usize>,
}

/// One of our names came twice: neither is believed (cookie tossing).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a cookie of ours came twice")]
pub struct DuplicateCookie;

impl OwnCookies {
    /// Cuts every cookie named as one of `bases`, or as it with `.…` behind it, out of the `Cookie` headers, and keeps it
    /// here. What is left stays in `headers` byte for byte, joined as it was; a `Cookie` header left empty goes.
    pub fn cut_from<B: AsRef<str>>(headers: &mut HeaderMap, bases: &[B]) -> Self {
        let (mut own, mut left) = (Self::default(), Vec::new());
        for (index, line) in headers.get_all(COOKIE).iter().enumerate() {
            match own.take_from(index, line.as_bytes(), bases) {
                Left::Everything => left.push(line.clone()),
                Left::Some(rest) => left.push(rest),
                Left::Nothing => {}
            }
            match own.line {
                None => own.line = Some(line.clone()),
                Some(_) => own.more.push(line.clone()),
            }
        }
        if own.is_empty() {
            return Self::default();
        }
        headers.remove(COOKIE);
        for rest in left {
            headers.append(COOKIE, rest);
        }
        own
    }

    /// Notes our cookies in one line.
    fn take_from<B: AsRef<str>>(&mut self, line: usize, bytes: &[u8], bases: &[B]) -> Left {
        let before = self.found.len();
        let mut kept: Vec<&[u8]> = Vec::new();
        let mut first_kept = None;
        for (position, pair) in pairs(bytes).enumerate() {
            if is_ours(pair.name_bytes, bases) {
                self.found.push(Found { line, name: pair.name, value: pair.value });
            } else {
                first_kept.get_or_insert(position);
                kept.push(&bytes[pair.whole]);
            }
        }
        if self.found.len() == before {
            return Left::Everything;
        }
        let mut rest = kept.join(&b';');
        if first_kept != Some(0) {
            // The space after the `;` that went with the cut.
            let blank = rest.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
            rest.drain(..blank);
        }
        if rest.iter().all(|byte| matches!(byte, b' ' | b'\t' | b';')) {
            return Left::Nothing;
        }
        // A part of a valid value is valid; were it not, the cookies would be dropped rather than ours passed on.
        HeaderValue::from_maybe_shared(bytes::Bytes::from(rest)).map_or(Left::Nothing, Left::Some)
    }

    /// The value of the cookie called `name`.
    ///
    /// # Errors
    /// [`DuplicateCookie`] when it came twice, even with the same value.
    pub fn get(&self, name: &str) -> Result<Option<&[u8]>, DuplicateCookie> {
        let mut values = self.iter().filter(|(own, _)| *own == name.as_bytes()).map(|(_, value)| value);
        match (values.next(), values.next()) {
            (_, Some(_)) => Err(DuplicateCookie),
            (value, None) => Ok(value),
        }
    }

    /// All of them as (name, value), in the order they came.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.found.iter().filter_map(|found| {
            let line = match found.line.checked_sub(1) {
                None => self.line.as_ref()?,
                Some(at) => self.more.get(at)?,
            };
            let line = line.as_bytes();
            Some((line.get(found.name.clone())?, line.get(found.value.clone())?))
        })
    }

    /// Whether the request carried none of ours.
    pub fn is_empty(&self) -> bool {
        self.found.is_empty()
    }
}

/// RFC 9113 §8.2.3: HTTP/2 sends a `Cookie` field in as many pieces as it likes; whoever counts or reads fields sees one.
pub fn join_crumbs(headers: &mut HeaderMap) {
    if headers.get_all(COOKIE).iter().nth(1).is_none() {
        return;
    }
    let crumbs: Vec<&[u8]> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    let joined = HeaderValue::from_maybe_shared(bytes::Bytes::from(crumbs.join(&b"; "[..])));
    // Valid values joined by a valid one are valid; were they not, no cookie is safer than some of them.
    match joined {
        Ok(joined) => drop(headers.insert(COOKIE, joined)),
        Err(_) => drop(headers.remove(COOKIE)),
    }
}

/// What remains of a line for the upstream.
enum Left {
    Everything,
    Some(HeaderValue),
    Nothing,
}

/// One piece between two `;`.
struct Pair<'l> {
    name_bytes: &'l [u8],
    whole: Range<usize>,
    /// Empty at the end of `whole` when there is no `=`.
    name: Range<usize>,
    value: Range<usize>,
}

/// Whether a cookie is named as one of `bases`, or as it with `.…` behind it. An empty base names nothing.
pub fn is_ours<B: AsRef<str>>(name: &[u8], bases: &[B]) -> bool {
    bases.iter().map(|base| base.as_ref().as_bytes()).any(|base| {
        !base.is_empty() && name.strip_prefix(base).is_some_and(|rest| rest.is_empty() || rest.starts_with(b"."))
    })
}

/// Splits at every `;`: quotes mean nothing in a `Cookie` header (RFC 6265 §5.4). A piece without `=` has no name.
/// A session is kilobytes long, so that looking at its bytes one by one would cost more than opening it.
fn pairs(line: &[u8]) -> impl Iterator<Item = Pair<'_>> {
    let mut ends = memchr_iter(b';', line).chain([line.len()]);
    let mut start = 0;
    std::iter::from_fn(move || {
        let whole = start..ends.next()?;
        start = whole.end + 1;
        let equals = memchr(b'=', &line[whole.clone()]);
        let (name, value) = match equals {
            Some(at) => (whole.start..whole.start + at, whole.start + at + 1..whole.end),
            None => (whole.end..whole.end, whole.end..whole.end),
        };
        let (name, value) = (trimmed(line, name), trimmed(line, value));
        Some(Pair { name_bytes: &line[name.clone()], whole, name, value })
    })
}

/// `range` without spaces and tabs at its ends.
fn trimmed(line: &[u8], mut range: Range<usize>) -> Range<usize> {
    let is_blank = |at: usize| matches!(line.get(at), Some(b' ' | b'\t'));
    while range.start < range.end && is_blank(range.start) {
        range.start += 1;
    }
    while range.start < range.end && is_blank(range.end - 1) {
        range.end -= 1;
    }
    range
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BASE: &str = "__Host-vestibule";

    #[test]
    fn crumbs_are_one_field_and_a_name_twice_is_still_twice() {
        let mut headers = HeaderMap::new();
        for crumb in ["a=1", "__Host-vestibule=x", "b=2; c=3", "__Host-vestibule=y"] {
            headers.append(COOKIE, HeaderValue::from_static(crumb));
        }
        join_crumbs(&mut headers);
        assert_eq!(headers.len(), 1);
        assert_eq!(headers[COOKIE], "a=1; __Host-vestibule=x; b=2; c=3; __Host-vestibule=y");
        assert_eq!(OwnCookies::cut_from(&mut headers, &[BASE]).get(BASE), Err(DuplicateCookie));
        assert_eq!(headers[COOKIE], "a=1; b=2; c=3");
        join_crumbs(&mut headers);
        assert_eq!(headers[COOKIE], "a=1; b=2; c=3");
    }

    fn cut(lines: &[&[u8]]) -> (OwnCookies, Vec<Vec<u8>>) {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(COOKIE, HeaderValue::from_bytes(line).unwrap());
        }
        let own = OwnCookies::cut_from(&mut headers, &[BASE]);
        let left = headers.get_all(COOKIE).iter().map(|line| line.as_bytes().to_vec()).collect();
        (own, left)
    }

    #[test]
    fn ours_are_cut_and_the_rest_stays_byte_for_byte() {
        let table: &[(&str, &[&str], &str)] = &[
            ("a=1; b=2", &[], "a=1; b=2"),
            ("a=1; __Host-vestibule=x; b=2", &["x"], "a=1; b=2"),
            ("__Host-vestibule=x; a=1", &["x"], "a=1"),
            ("__Host-vestibule=x;a=1;  b=2", &["x"], "a=1;  b=2"),
            ("a=1;__Host-vestibule.1=x", &["x"], "a=1"),
            ("\t__Host-vestibule \t= x ;a=\"1\" ", &["x"], "a=\"1\" "),
            ("a=1;; ;b;=c; __Host-vestibule.idle=y;", &["y"], "a=1;; ;b;=c;"),
            ("__Host-vestibule=", &[""], ""),
            ("; __Host-vestibule=x ;", &["x"], ""),
            ("__Host-vestibule=a=b==", &["a=b=="], ""),
            ("a=\"; __Host-vestibule=x; b=\"", &["x"], "a=\"; b=\""),
        ];
        for (line, values, left) in table {
            let (own, rest) = cut(&[line.as_bytes()]);
            let found: Vec<&[u8]> = own.iter().map(|(_, value)| value).collect();
            let wanted: Vec<&[u8]> = values.iter().map(|value| value.as_bytes()).collect();
            assert_eq!(found, wanted, "{line}");
            let left: Vec<Vec<u8>> =
                Some(left.as_bytes().to_vec()).filter(|left| !left.is_empty()).into_iter().collect();
            assert_eq!(rest, left, "{line}");
        }
    }

    #[test]
    fn look_alikes_are_not_ours() {
        for line in [
            "__host-vestibule=x",
            "__Host-vestibule-other=x",
            "__Host-vestibulex=x",
            "x__Host-vestibule=x",
            "\"__Host-vestibule\"=x",
            "__Host-vestibule",
            "__Host%2dvestibule=x",
            // Unicode spaces that a lenient parser trims: a sibling domain may set these names.
            "\u{a0}__Host-vestibule=x",
            "\u{3000}__Host-vestibule\u{2003}=x",
        ] {
            let (own, left) = cut(&[line.as_bytes()]);
            assert!(own.is_empty(), "{line}");
            assert_eq!(left, [line.as_bytes()], "{line}");
        }
    }

    #[test]
    fn a_name_that_comes_twice_is_not_believed() {
        let (own, left) = cut(&[b"__Host-vestibule=x; a=1", b"b=2", b"__Host-vestibule=x; __Host-vestibule.1=y"]);
        assert_eq!(own.get(BASE), Err(DuplicateCookie));
        assert_eq!(own.get("__Host-vestibule.1"), Ok(Some(&b"y"[..])));
        assert_eq!(own.get("__Host-vestibule.2"), Ok(None));
        assert_eq!(left, [b"a=1".to_vec(), b"b=2".to_vec()]);
    }

    #[test]
    fn an_empty_base_and_none_cut_nothing() {
        let mut headers = HeaderMap::new();
        headers.append(COOKIE, HeaderValue::from_static("=x; .a=b"));
        assert!(OwnCookies::cut_from(&mut headers, &[""]).is_empty());
        assert!(OwnCookies::cut_from::<&str>(&mut headers, &[]).is_empty());
        assert_eq!(headers[COOKIE], "=x; .a=b");
    }

    #[test]
    fn each_of_several_bases_is_cut() {
        let mut headers = HeaderMap::new();
        let line = "__Secure-v=1; __Host-v.login=2; v=3; __Host-vv=4; __Secure-v.idle=5";
        headers.append(COOKIE, HeaderValue::from_static(line));
        let own = OwnCookies::cut_from(&mut headers, &["__Secure-v", "__Host-v"]);
        let names: Vec<_> = own.iter().map(|(name, _)| name).collect();
        assert_eq!(names, [&b"__Secure-v"[..], b"__Host-v.login", b"__Secure-v.idle"]);
        assert_eq!(headers[COOKIE], "v=3; __Host-vv=4");
    }

    #[test]
    fn thousands_of_pairs_are_only_pairs() {
        let line = "__Host-vestibule.7=x;".repeat(3_000);
        let (own, left) = cut(&[line.as_bytes()]);
        assert_eq!((own.iter().count(), left.len()), (3_000, 0));
    }

    /// Bytes a header value may hold.
    fn value_bytes() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            Just(b"__Host-vestibule".to_vec()),
            Just(b"__Host-vestibule.1=v".to_vec()),
            Just(b"; ".to_vec()),
            Just(b";".to_vec()),
            Just(b"=".to_vec()),
            Just(b" ".to_vec()),
            proptest::collection::vec(prop_oneof![0x20u8..0x7f, 0x80u8..=0xff, Just(b'\t')], 0..6),
        ];
        proptest::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn what_is_cut_and_what_is_left_make_up_what_came(lines in proptest::collection::vec(value_bytes(), 0..4)) {
            let lines: Vec<&[u8]> = lines.iter().map(Vec::as_slice).collect();
            let (own, left) = cut(&lines);
            let blank = |piece: &[u8]| piece.iter().all(|byte| matches!(byte, b' ' | b'\t'));
            let trim = |piece: &[u8]| piece[trimmed(piece, 0..piece.len())].to_vec();
            let pieces = |line: &[u8]| line.split(|byte| *byte == b';').filter(|p| !blank(p)).map(trim).collect::<Vec<_>>();
            let all: Vec<Vec<u8>> = lines.iter().flat_map(|line| pieces(line)).collect();
            let rest: Vec<Vec<u8>> = left.iter().flat_map(|line| pieces(line)).collect();
            prop_assert_eq!(all.len(), rest.len() + own.iter().count());
            let mut remaining = rest.iter().peekable();
            let mut ours = own.iter();
            for piece in &all {
                if remaining.peek() == Some(&piece) && !pairs(piece).any(|pair| is_ours(pair.name_bytes, &[BASE])) {
                    remaining.next();
                    continue;
                }
                let (name, value) = ours.next().expect("a piece is neither left nor cut");
                let at = piece.iter().position(|byte| *byte == b'=').unwrap();
                prop_assert_eq!(trim(&piece[..at]), name);
                prop_assert_eq!(trim(&piece[at + 1..]), value);
            }
            for line in &left {
                prop_assert!(!pairs(line).any(|pair| is_ours(pair.name_bytes, &[BASE])));
            }
        }
    }
}
