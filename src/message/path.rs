//! The request path and every reading an upstream may take of it.
//!
//! Applications differ in five things: whether `%2f` separates segments, whether `//` is `/`, whether `;…` belongs to a
//! segment, whether a decoded `?` or `#` ends the path, and how often `%25` is decoded. All five occur in the wild, so none
//! is refused as such: every combination, in every order, is a reading, and each must be harmless and meet the same route.

use std::collections::VecDeque;

use http::uri::PathAndQuery;

/// A path that is safe to route by: raw bytes plus all its readings.
#[derive(Debug, Clone)]
pub struct RequestPath {
    raw: Raw,
    /// Empty when the raw bytes are the only reading, as with nearly every path.
    readings: Vec<String>,
}

/// Shares the request's own buffer where there is one.
#[derive(Debug, Clone)]
enum Raw {
    Text(Box<str>),
    Target(PathAndQuery),
}

/// Why a path is refused: always 400.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// `.` or `..` as a segment, in any encoding or after decoding, also once `;…` is cut off.
    #[error("the path contains a dot segment")]
    DotSegment,
    /// NUL or another control byte, plain or encoded.
    #[error("the path contains a control byte")]
    ControlByte,
    /// `\` or `%5c`.
    #[error("the path contains a backslash")]
    Backslash,
    /// `%` without two hexadecimal digits, or an overlong UTF-8 form.
    #[error("the path contains a broken percent-encoding")]
    BrokenEncoding,
    /// Longer than 8 KiB, or too many different readings.
    #[error("the path is too long or too ambiguous")]
    TooLong,
}

impl PathError {
    /// The constant reason code for the log.
    pub fn code(self) -> &'static str {
        match self {
            Self::DotSegment => "path_dot_segment",
            Self::ControlByte => "path_control_byte",
            Self::Backslash => "path_backslash",
            Self::BrokenEncoding => "path_broken_encoding",
            Self::TooLong => "path_too_long",
        }
    }
}

/// The longest path, in bytes.
const MAX_LENGTH: usize = 8 * 1024;
/// The most steps between readings; a path with one of each oddity needs about half.
const MAX_STEPS: usize = 96;
/// The most bytes in all steps together, so that a long path full of oddities costs no more than a large body.
const MAX_WORK: usize = 96 * 1024;

impl RequestPath {
    /// Reads a raw path (no query).
    ///
    /// # Errors
    /// [`PathError`], for what is refused whatever the routes say.
    pub fn parse(raw: &str) -> Result<Self, PathError> {
        Ok(Self { readings: readings(raw)?, raw: Raw::Text(raw.into()) })
    }

    /// Reads the path of a request target.
    ///
    /// # Errors
    /// As [`RequestPath::parse`].
    pub(super) fn of(target: &PathAndQuery) -> Result<Self, PathError> {
        Ok(Self { readings: readings(target.path())?, raw: Raw::Target(target.clone()) })
    }

    /// The bytes as sent; what is forwarded.
    pub fn raw(&self) -> &str {
        match &self.raw {
            Raw::Text(text) => text,
            Raw::Target(target) => target.path(),
        }
    }

    /// Every reading, at least one; all must meet the same route. Percent-decoded (lossy UTF-8 never: invalid UTF-8 stays
    /// percent-encoded).
    pub fn readings(&self) -> impl Iterator<Item = &str> {
        let only = self.readings.is_empty().then(|| self.raw());
        only.into_iter().chain(self.readings.iter().map(String::as_str))
    }
}

/// The readings of `raw`; none when `raw` itself is the only one.
fn readings(raw: &str) -> Result<Vec<String>, PathError> {
    if raw.len() > MAX_LENGTH {
        return Err(PathError::TooLong);
    }
    if is_plain(raw.as_bytes()) {
        return Ok(Vec::new());
    }
    check_encoding(raw.as_bytes())?;

    // Everything that can be made of the raw path by the steps below, each step in any order and number. A path is read
    // once it was decoded at least once.
    let mut known: Vec<Step> = Vec::new();
    let mut work = 0;
    let mut ahead = VecDeque::from([Step { text: raw.to_owned(), is_decoded: !raw.contains('%') }]);
    while let Some(step) = ahead.pop_front() {
        if known.contains(&step) {
            continue;
        }
        work += step.text.len();
        if known.len() == MAX_STEPS || work > MAX_WORK {
            return Err(PathError::TooLong);
        }
        inspect(&step.text)?;
        if step.text.contains('%') {
            ahead.push_back(Step { text: decode(&step.text, Slash::Decoded)?, is_decoded: true });
            ahead.push_back(Step { text: decode(&step.text, Slash::Kept)?, is_decoded: true });
        }
        if step.text.contains(';') {
            ahead.push_back(Step { text: without_parameters(&step.text), is_decoded: step.is_decoded });
        }
        // Decoded, then read as a URL once more (CVE-2026-41059).
        for end in ['?', '#'].into_iter().filter_map(|mark| step.text.find(mark)) {
            ahead.push_back(Step { text: step.text[..end].to_owned(), is_decoded: step.is_decoded });
        }
        if step.text.contains("//") {
            ahead.push_back(Step { text: with_single_slashes(&step.text), is_decoded: step.is_decoded });
        }
        known.push(step);
    }
    let mut readings: Vec<String> = known.into_iter().filter(|step| step.is_decoded).map(|step| step.text).collect();
    if readings.len() == 1 && readings[0] == raw {
        readings.clear();
    }
    Ok(readings)
}

#[derive(Debug, PartialEq, Eq)]
struct Step {
    text: String,
    is_decoded: bool,
}

/// Whether every upstream reads the path alike: no `%`, `;`, `//`, nothing beyond RFC 3986's path characters, and no segment
/// that starts with a dot.
fn is_plain(raw: &[u8]) -> bool {
    let mut after_slash = true;
    for byte in raw.strip_prefix(b"/").unwrap_or(raw) {
        match byte {
            b'/' | b'.' if after_slash => return false,
            b'/' => after_slash = true,
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' => after_slash = false,
            b'-' | b'.' | b'_' | b'~' | b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b'=' | b':'
            | b'@' => {
                after_slash = false;
            }
            _ => return false,
        }
    }
    true
}

/// Each `%` is followed by two hexadecimal digits. Asked of the raw path only: `100%25` is read as `100%`.
fn check_encoding(raw: &[u8]) -> Result<(), PathError> {
    let mut rest = raw;
    while let Some(at) = rest.iter().position(|byte| *byte == b'%') {
        encoded_byte(&rest[at..]).ok_or(PathError::BrokenEncoding)?;
        rest = &rest[at + 3..];
    }
    Ok(())
}

/// The byte that `%xx` at the beginning of `text` stands for.
fn encoded_byte(text: &[u8]) -> Option<u8> {
    let [b'%', high, low, ..] = text else { return None };
    let digit = |byte: &u8| char::from(*byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    Some(digit(high)? << 4 | digit(low)?)
}

/// What no reading may contain.
fn inspect(text: &str) -> Result<(), PathError> {
    if text.bytes().any(|byte| byte.is_ascii_control()) {
        return Err(PathError::ControlByte);
    }
    if text.contains('\\') {
        return Err(PathError::Backslash);
    }
    if text.split('/').any(|segment| matches!(segment, "." | "..")) {
        return Err(PathError::DotSegment);
    }
    Ok(())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Slash {
    /// `%2f` separates segments.
    Decoded,
    /// `%2f` is part of a segment.
    Kept,
}

/// One round of percent-decoding; what is not UTF-8 stays encoded.
fn decode(text: &str, slash: Slash) -> Result<String, PathError> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some(at) = rest.iter().position(|byte| *byte == b'%') {
        let (plain, from_percent) = rest.split_at(at);
        bytes.extend_from_slice(plain);
        let (read, width) = match encoded_byte(from_percent) {
            Some(b'/') if slash == Slash::Kept => (&from_percent[..3], 3),
            Some(byte) => (&[byte][..], 3),
            None => (&b"%"[..], 1),
        };
        bytes.extend_from_slice(read);
        rest = &from_percent[width..];
    }
    bytes.extend_from_slice(rest);
    String::from_utf8(bytes).or_else(|error| encode_invalid(error.as_bytes()))
}

/// Puts the bytes that are not UTF-8 back into percent-encoding.
fn encode_invalid(bytes: &[u8]) -> Result<String, PathError> {
    // RFC 3629 §10: `c0 ae` is a dot to a careless decoder.
    let is_overlong =
        |pair: &[u8]| matches!(pair, [0xc0 | 0xc1, 0x80..=0xbf] | [0xe0, 0x80..=0x9f] | [0xf0, 0x80..=0x8f]);
    if bytes.windows(2).any(is_overlong) {
        return Err(PathError::BrokenEncoding);
    }
    let mut text = String::with_capacity(bytes.len() + 8);
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        for byte in chunk.invalid() {
            text.push('%');
            for digit in [byte >> 4, byte & 15] {
                text.extend(char::from_digit(digit.into(), 16).map(|digit| digit.to_ascii_uppercase()));
            }
        }
    }
    Ok(text)
}

/// Each segment up to its first `;`.
fn without_parameters(text: &str) -> String {
    let mut cut = String::with_capacity(text.len());
    for (position, segment) in text.split('/').enumerate() {
        if position > 0 {
            cut.push('/');
        }
        cut.push_str(segment.split(';').next().unwrap_or_default());
    }
    cut
}

fn with_single_slashes(text: &str) -> String {
    let mut merged = String::with_capacity(text.len());
    for character in text.chars() {
        if character != '/' || !merged.ends_with('/') {
            merged.push(character);
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(raw: &str) -> Vec<String> {
        let path = RequestPath::parse(raw).unwrap();
        assert_eq!(path.raw(), raw);
        let mut readings: Vec<String> = path.readings().map(str::to_owned).collect();
        readings.sort_unstable();
        readings
    }

    #[test]
    fn a_plain_path_is_its_own_only_reading() {
        for raw in ["/", "/a/b", "/a.b/c..d/...x", "/~ada/@x:y,z=1&2+3*(4)!'$", "/a/", "/.well-known/x", "/x/...", "/ä"]
        {
            assert_eq!(read(raw), [raw]);
            assert!(RequestPath::parse(raw).unwrap().readings.is_empty(), "{raw}");
        }
    }

    #[test]
    fn ordinary_encodings_have_one_reading() {
        for (raw, reading) in [
            ("/%41dmin", "/Admin"),
            ("/a%20b", "/a b"),
            ("/%c3%a9/%E2%82%AC", "/é/€"),
            ("/%ff%C3x", "/%FF%C3x"),
            ("/100%25", "/100%"),
            ("/50%25off", "/50%off"),
        ] {
            assert_eq!(read(raw), [reading], "{raw}");
        }
    }

    #[test]
    fn real_oddities_have_several_readings() {
        for (raw, readings) in [
            ("/a%2Fb", &["/a%2Fb", "/a/b"][..]),
            ("/a//b", &["/a/b", "/a//b"]),
            ("/a;x=1/b", &["/a/b", "/a;x=1/b"]),
            ("/a%3bx", &["/a", "/a;x"]),
            ("/%23%3f", &["/", "/#", "/#?"]),
            ("/a%23b/c", &["/a", "/a#b/c"]),
            ("/a%253fb", &["/a", "/a%3fb", "/a?b"]),
            ("/a%2541", &["/a%41", "/aA"]),
            ("/a%252fb", &["/a%2fb", "/a/b"]),
            ("/a%252541", &["/a%2541", "/a%41", "/aA"]),
            ("/a;x%2fb", &["/a", "/a/b", "/a;x%2fb", "/a;x/b"]),
            ("/a%2f%2fb", &["/a%2f%2fb", "/a/b", "/a//b"]),
        ] {
            let mut readings = readings.to_vec();
            readings.sort_unstable();
            assert_eq!(read(raw), readings, "{raw}");
        }
        assert!(RequestPath::parse("/api/v4/projects/a%2Fb/files/c%252Fd%2Fe;v=1//f").is_ok());
    }

    #[test]
    fn what_is_never_harmless_is_refused() {
        use PathError::*;
        for (raw, error) in [
            ("/a/../b", DotSegment),
            ("/..", DotSegment),
            ("/./a", DotSegment),
            ("/a/.", DotSegment),
            ("/%2e%2e/a", DotSegment),
            ("/.%2E/a", DotSegment),
            ("/a/%2e", DotSegment),
            ("/%252e%252e/a", DotSegment),
            ("/%25252e/a", DotSegment),
            ("/a%2f..%2fb", DotSegment),
            ("/a%252f..%252fb", DotSegment),
            ("/..;/a", DotSegment),
            ("/.;x=1/a", DotSegment),
            ("/a/..%3bx/b", DotSegment),
            ("/a/%2e%2e%253b/b", DotSegment),
            ("/a;%2f../b", DotSegment),
            ("/%00", ControlByte),
            ("/a%0a", ControlByte),
            ("/a%7f", ControlByte),
            ("/a%09/b", ControlByte),
            ("/a%2500", ControlByte),
            ("/a\u{1}", ControlByte),
            ("/a\\b", Backslash),
            ("/a%5cb", Backslash),
            ("/a%5C..%5cb", Backslash),
            ("/a%255cb", Backslash),
            ("/%", BrokenEncoding),
            ("/%4", BrokenEncoding),
            ("/%zz", BrokenEncoding),
            ("/%u002e", BrokenEncoding),
            ("/%+1", BrokenEncoding),
            ("/%c0%ae%c0%ae/a", BrokenEncoding),
            ("/%e0%80%af", BrokenEncoding),
            ("/a%25c0%25af", BrokenEncoding),
        ] {
            assert_eq!(RequestPath::parse(raw).map(|path| path.raw().to_owned()), Err(error), "{raw}");
        }
    }

    #[test]
    fn length_and_ambiguity_are_bounded() {
        assert!(RequestPath::parse(&format!("/{}", "a".repeat(MAX_LENGTH - 1))).is_ok());
        for raw in [
            format!("/{}", "a".repeat(MAX_LENGTH)),
            format!("/%{}41", "25".repeat(4_000)),
            format!("/%25252541;//%252f{}", "a".repeat(8_000)),
        ] {
            assert_eq!(RequestPath::parse(&raw).map(|_| ()), Err(PathError::TooLong));
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(raw in "\\PC{0,60}|([/.;a%]|%2f|%25|%2e|%5c|%3B|%c0|%af|\u{e9}|2|e){0,16}") {
            let Ok(path) = RequestPath::parse(&raw) else { return Ok(()) };
            prop_assert_eq!(path.raw(), &raw);
            prop_assert!(path.readings().count() >= 1);
            for reading in path.readings() {
                prop_assert!(!reading.split('/').any(|segment| {
                    matches!(segment.split(';').next(), Some("." | ".."))
                }), "{} reads as {}", raw, reading);
                prop_assert!(!reading.contains(|c: char| c.is_ascii_control() || c == '\\'));
            }
        }

        #[test]
        fn a_plain_path_is_never_more_than_itself(raw in "(/[A-Za-z0-9_~-][A-Za-z0-9._~-]{0,6}){1,5}") {
            prop_assert!(RequestPath::parse(&raw).unwrap().readings.is_empty());
        }
    }
}
