//! Conditional and range requests (RFC 9110 §13 and §14) for something whose length and validators are known. Pure.

use std::ops::Range;
use std::time::SystemTime;

use http::Method;
use http::header::{
    HeaderMap, HeaderName, HeaderValue, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE,
    RANGE,
};

/// What tells one version of a file from another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Validators {
    /// `"…"`, without `W/`.
    pub(super) tag: String,
    /// Whether the file may still change without the tag changing.
    pub(super) is_weak: bool,
    /// Not after now.
    pub(super) modified: SystemTime,
}

impl Validators {
    /// The field value of `ETag`.
    pub(super) fn etag(&self) -> String {
        format!("{}{}", if self.is_weak { "W/" } else { "" }, self.tag)
    }

    /// §8.8.3.2.
    fn matches_weakly(&self, tag: &str) -> bool {
        tag.strip_prefix("W/").unwrap_or(tag) == self.tag
    }

    fn matches_strongly(&self, tag: &str) -> bool {
        !self.is_weak && tag == self.tag
    }

    /// Dates have whole seconds.
    fn is_after(&self, date: SystemTime) -> bool {
        seconds(self.modified) > seconds(date)
    }
}

/// What is to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    /// 200 with everything.
    Whole,
    /// 206 with these bytes.
    Part(Range<u64>),
    /// 304.
    NotModified,
    /// 412.
    PreconditionFailed,
    /// 416.
    Unsatisfiable,
}

/// What a GET or HEAD with these `headers` gets of `length` bytes, in the order of §13.2.2. Without validators no condition
/// can be judged, and none holds anything back.
pub(super) fn judge(method: &Method, headers: &HeaderMap, validators: Option<&Validators>, length: u64) -> Answer {
    let Some(validators) = validators else { return ranged(method, headers, length) };
    if headers.contains_key(IF_MATCH) {
        if !any_tag(headers, &IF_MATCH, |tag| validators.matches_strongly(tag)) {
            return Answer::PreconditionFailed;
        }
    } else if date(headers, &IF_UNMODIFIED_SINCE).is_some_and(|date| validators.is_after(date)) {
        return Answer::PreconditionFailed;
    }
    if headers.contains_key(IF_NONE_MATCH) {
        if any_tag(headers, &IF_NONE_MATCH, |tag| validators.matches_weakly(tag)) {
            return Answer::NotModified;
        }
    } else if date(headers, &IF_MODIFIED_SINCE).is_some_and(|date| !validators.is_after(date)) {
        return Answer::NotModified;
    }
    if headers.contains_key(IF_RANGE) && !is_same(headers, validators) {
        return Answer::Whole;
    }
    ranged(method, headers, length)
}

/// §13.1.5: exactly the version that the client has a part of, or else it gets the whole.
fn is_same(headers: &HeaderMap, validators: &Validators) -> bool {
    let Some(value) = only(headers, &IF_RANGE) else { return false };
    match httpdate::parse_http_date(value) {
        Ok(date) => !validators.is_weak && seconds(date) == seconds(validators.modified),
        Err(_) => validators.matches_strongly(value),
    }
}

/// §14.2: a range that is malformed, or one of several, is not honoured; the whole is always a right answer.
fn ranged(method: &Method, headers: &HeaderMap, length: u64) -> Answer {
    if method != Method::GET {
        return Answer::Whole;
    }
    let range = only(headers, &RANGE).and_then(|value| {
        let (unit, range) = value.split_once('=')?;
        unit.trim().eq_ignore_ascii_case("bytes").then_some(range.trim())
    });
    let Some((first, last)) = range.and_then(|range| range.split_once('-')) else { return Answer::Whole };
    let range = match (first, digits(first), digits(last)) {
        // The last n bytes.
        ("", _, Some(count)) => length.saturating_sub(count)..length,
        (_, Some(first), None) if last.is_empty() => first..length,
        (_, Some(first), Some(last)) if first <= last => first..length.min(last.saturating_add(1)),
        _ => return Answer::Whole,
    };
    if range.is_empty() { Answer::Unsatisfiable } else { Answer::Part(range) }
}

/// A number, at most the largest that there is.
fn digits(text: &str) -> Option<u64> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().unwrap_or(u64::MAX))
}

fn any_tag(headers: &HeaderMap, name: &HeaderName, fits: impl Fn(&str) -> bool) -> bool {
    let lines = headers.get_all(name).into_iter().filter_map(|line| line.to_str().ok());
    // A tag of ours has no comma, so that no part of another can look like it.
    lines.flat_map(|line| line.split(',')).map(str::trim).any(|tag| tag == "*" || fits(tag))
}

fn date(headers: &HeaderMap, name: &HeaderName) -> Option<SystemTime> {
    httpdate::parse_http_date(only(headers, name)?).ok()
}

fn only<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h str> {
    let mut lines = headers.get_all(name).into_iter();
    let (line, None) = (lines.next()?, lines.next()) else { return None };
    HeaderValue::to_str(line).ok()
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    const THEN: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const BEFORE: &str = "Sun, 06 Nov 1994 08:49:36 GMT";
    const AFTER: &str = "Sun, 06 Nov 1994 08:49:38 GMT";

    fn validators(is_weak: bool) -> Validators {
        let modified = httpdate::parse_http_date(THEN).unwrap() + Duration::from_millis(250);
        Validators { tag: "\"a-b\"".to_owned(), is_weak, modified }
    }

    fn fields(lines: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    fn told(lines: &[(&'static str, &str)]) -> Answer {
        judge(&Method::GET, &fields(lines), Some(&validators(false)), 10)
    }

    #[test]
    fn conditions_are_judged_in_their_order() {
        use Answer::*;
        for (lines, answer) in [
            (&[][..], Whole),
            (&[("if-none-match", "\"a-b\"")], NotModified),
            (&[("if-none-match", "\"x\", W/\"a-b\"")], NotModified),
            (&[("if-none-match", "\"x\""), ("if-none-match", "\"a-b\"")], NotModified),
            (&[("if-none-match", "*")], NotModified),
            (&[("if-none-match", "\"x\"")], Whole),
            (&[("if-none-match", "a-b")], Whole),
            (&[("if-none-match", "\"x\""), ("if-modified-since", AFTER)], Whole),
            (&[("if-modified-since", THEN)], NotModified),
            (&[("if-modified-since", AFTER)], NotModified),
            (&[("if-modified-since", BEFORE)], Whole),
            (&[("if-modified-since", "yesterday")], Whole),
            (&[("if-match", "\"x\"")], PreconditionFailed),
            (&[("if-match", "W/\"a-b\"")], PreconditionFailed),
            (&[("if-match", "\"a-b\""), ("if-unmodified-since", BEFORE)], Whole),
            (&[("if-match", "*"), ("if-none-match", "\"a-b\"")], NotModified),
            (&[("if-unmodified-since", BEFORE)], PreconditionFailed),
            (&[("if-unmodified-since", THEN)], Whole),
            (&[("range", "bytes=0-0"), ("if-none-match", "\"a-b\"")], NotModified),
            (&[("range", "bytes=0-0"), ("if-range", "\"a-b\"")], Part(0..1)),
            (&[("range", "bytes=0-0"), ("if-range", "W/\"a-b\"")], Whole),
            (&[("range", "bytes=0-0"), ("if-range", "\"x\"")], Whole),
            (&[("range", "bytes=0-0"), ("if-range", THEN)], Part(0..1)),
            (&[("range", "bytes=0-0"), ("if-range", AFTER)], Whole),
            (&[("range", "bytes=99-"), ("if-range", "\"x\"")], Whole),
        ] {
            assert_eq!(told(lines), answer, "{lines:?}");
        }
    }

    #[test]
    fn a_weak_validator_spares_a_body_and_never_joins_parts() {
        let told = |lines: &[(&'static str, &str)]| judge(&Method::GET, &fields(lines), Some(&validators(true)), 10);
        assert_eq!(validators(true).etag(), "W/\"a-b\"");
        assert_eq!(told(&[("if-none-match", "W/\"a-b\"")]), Answer::NotModified);
        assert_eq!(told(&[("if-match", "\"a-b\"")]), Answer::PreconditionFailed);
        for same in ["\"a-b\"", "W/\"a-b\"", THEN] {
            assert_eq!(told(&[("range", "bytes=0-0"), ("if-range", same)]), Answer::Whole, "{same}");
        }
        let without = |lines: &[(&'static str, &str)]| judge(&Method::GET, &fields(lines), None, 10);
        assert_eq!(without(&[("if-none-match", "*"), ("if-match", "\"x\"")]), Answer::Whole);
        assert_eq!(without(&[("range", "bytes=-1")]), Answer::Part(9..10));
    }

    #[test]
    fn one_range_is_a_part_and_anything_else_the_whole() {
        use Answer::*;
        for (range, answer) in [
            ("bytes=0-4", Part(0..5)),
            ("bytes=5-", Part(5..10)),
            ("bytes=-3", Part(7..10)),
            ("bytes=-30", Part(0..10)),
            ("BYTES = 2-2", Part(2..3)),
            ("bytes=9-99999999999999999999999", Part(9..10)),
            ("bytes=10-", Unsatisfiable),
            ("bytes=99999999999999999999999-", Unsatisfiable),
            ("bytes=-0", Unsatisfiable),
            ("bytes=4-2", Whole),
            ("bytes=0-0,2-3", Whole),
            ("bytes=-", Whole),
            ("bytes=", Whole),
            ("bytes", Whole),
            ("bytes=+1-2", Whole),
            ("bytes=1- 2", Whole),
            ("bytes=--1", Whole),
            ("lines=0-1", Whole),
        ] {
            assert_eq!(told(&[("range", range)]), answer, "{range}");
        }
        assert_eq!(told(&[("range", "bytes=0-1"), ("range", "bytes=3-4")]), Whole);
        assert_eq!(judge(&Method::HEAD, &fields(&[("range", "bytes=0-1")]), None, 10), Whole);
        assert_eq!(judge(&Method::GET, &fields(&[("range", "bytes=0-")]), None, 0), Unsatisfiable);
    }

    proptest! {
        #[test]
        fn a_part_lies_within_the_file(range in "(bytes=)?[0-9]{0,20}-[0-9]{0,20}", length in prop::num::u64::ANY) {
            if let Answer::Part(part) = judge(&Method::GET, &fields(&[("range", &range)]), None, length) {
                prop_assert!(part.start < part.end && part.end <= length);
            }
        }
    }
}
