//! Path patterns: `/x` exact, `/x/*` everything below and `/x` itself, `{id}` one segment.

use crate::message::RequestPath;

/// A compiled pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pattern {
    segments: Vec<Segment>,
    /// Whether everything below matches as well.
    is_open: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Segment {
    Literal {
        /// As it stands in a request: non-ASCII characters percent-encoded.
        raw: String,
        /// As it is read.
        read: String,
    },
    /// `{id}`: one segment that is not empty.
    Any,
}

/// The parts of a pattern's rank, in rising order.
const OPEN_END: u8 = 1;
const ANY: u8 = 2;
const LITERAL: u8 = 3;
const EXACT_END: u8 = 4;

impl Pattern {
    /// What every path matches.
    pub(super) fn everything() -> Self {
        Self { segments: Vec::new(), is_open: true }
    }

    /// Compiles `text`; the error says what is wrong and what to write.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let Some(relative) = text.strip_prefix('/') else {
            return Err(format!("`{text}`: a path pattern starts with `/`"));
        };
        let (relative, is_open) = match relative {
            "*" => return Ok(Self::everything()),
            _ => relative.strip_suffix("/*").map_or((relative, false), |before| (before, true)),
        };
        let count = relative.split('/').count();
        let segments = relative.split('/').enumerate().map(|(position, segment)| {
            // `/` and a trailing slash are exact patterns of their own.
            let may_be_empty = position + 1 == count && !is_open;
            Segment::parse(segment, may_be_empty).map_err(|problem| format!("`{text}`: {problem}"))
        });
        Ok(Self { segments: segments.collect::<Result<_, _>>()?, is_open })
    }

    /// Whether the bytes of a path as sent match, character for character.
    pub(super) fn matches_raw(&self, path: &str) -> bool {
        self.matches(segments(path), |segment, text| match segment {
            Segment::Literal { raw, .. } => raw == text,
            Segment::Any => !text.is_empty(),
        })
    }

    /// Whether a reading of a path matches.
    pub(super) fn matches_reading(&self, reading: &str) -> bool {
        self.matches(segments(reading), |segment, text| match segment {
            Segment::Literal { read, .. } => read == text,
            Segment::Any => !text.is_empty(),
        })
    }

    /// Whether a reading matches with case ignored, several slashes as one, no slash at the end and no `;…`.
    pub(super) fn matches_folded(&self, reading: &str) -> bool {
        let wanted = self.segments.iter().filter(|segment| !segment.is_empty());
        matches(wanted, self.is_open, folded_segments(reading), |segment, text| match segment {
            Segment::Literal { read, .. } => eq_folded(read, text),
            Segment::Any => true,
        })
    }

    fn matches<'p>(&self, path: impl Iterator<Item = &'p str>, fits: impl Fn(&Segment, &str) -> bool) -> bool {
        matches(self.segments.iter(), self.is_open, path, fits)
    }

    /// Orders patterns that match the same path: the greater one is the more specific. From left to right, a literal segment
    /// beats `{id}`, and that beats `*`; an end beats `*` too.
    pub(super) fn rank(&self) -> Vec<u8> {
        let end = if self.is_open { OPEN_END } else { EXACT_END };
        let segment_rank = |segment: &Segment| if matches!(segment, Segment::Any) { ANY } else { LITERAL };
        self.segments.iter().map(segment_rank).chain([end]).collect()
    }

    /// Whether some path matches both.
    pub(super) fn overlaps(&self, other: &Self) -> bool {
        let common = self.segments.iter().zip(&other.segments);
        common.into_iter().all(|(one, another)| one == another || one.is_any() || another.is_any())
            && match self.segments.len().cmp(&other.segments.len()) {
                std::cmp::Ordering::Less => self.is_open,
                std::cmp::Ordering::Equal => true,
                std::cmp::Ordering::Greater => other.is_open,
            }
    }

    /// Whether every path matches.
    pub(super) fn is_everything(&self) -> bool {
        self.is_open && self.segments.is_empty()
    }
}

impl Segment {
    fn parse(text: &str, may_be_empty: bool) -> Result<Self, String> {
        if let Some(name) = text.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) {
            let is_name = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
            return if is_name { Ok(Self::Any) } else { Err(format!("`{text}` is not a name in braces")) };
        }
        if text.is_empty() && !may_be_empty {
            return Err("a segment is empty".to_owned());
        }
        if text.contains('*') {
            return Err("`*` can only be the last segment, as in `/x/*`".to_owned());
        }
        if text.contains(['{', '}']) {
            return Err("`{…}` stands for a whole segment".to_owned());
        }
        if text.contains(['?', '#', '"', '<', '>', '`', '^', '|']) || text.contains(char::is_whitespace) {
            return Err(
                "a pattern matches the path only; percent-encode white space and other special characters".to_owned()
            );
        }
        // A segment that can be read in several ways, or is never let in, would be a rule that nobody can rely on.
        let path = RequestPath::parse(text).map_err(|error| error.to_string())?;
        let mut readings = path.readings();
        let (Some(read), None) = (readings.next(), readings.next()) else {
            return Err("`;`, `%2f`, `%3f`, `%23` and `%25` can be read in several ways".to_owned());
        };
        if read.contains(['/', ';', '%']) {
            return Err("`/`, `;` and `%` cannot be part of a segment".to_owned());
        }
        Ok(Self::Literal { raw: percent_encoded(text), read: read.to_owned() })
    }

    fn is_any(&self) -> bool {
        matches!(self, Self::Any)
    }

    fn is_empty(&self) -> bool {
        matches!(self, Self::Literal { read, .. } if read.is_empty())
    }
}

/// `text` with its non-ASCII characters as browsers send them.
fn percent_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii() {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

fn matches<'s, 'p>(
    wanted: impl Iterator<Item = &'s Segment>,
    is_open: bool,
    mut path: impl Iterator<Item = &'p str>,
    fits: impl Fn(&Segment, &str) -> bool,
) -> bool {
    for segment in wanted {
        if !path.next().is_some_and(|text| fits(segment, text)) {
            return false;
        }
    }
    is_open || path.next().is_none()
}

fn segments(path: &str) -> impl Iterator<Item = &str> {
    path.strip_prefix('/').unwrap_or(path).split('/')
}

/// The segments as a lenient upstream sees them: `;…` cut off, empty ones left out.
pub(super) fn folded_segments(path: &str) -> impl Iterator<Item = &str> {
    let without_parameters = |segment| str::split(segment, ';').next().unwrap_or_default();
    path.split('/').map(without_parameters).filter(|segment| !segment.is_empty())
}

/// Whether two segments differ in case only.
pub(super) fn eq_folded(one: &str, another: &str) -> bool {
    if one.is_ascii() && another.is_ascii() {
        return one.eq_ignore_ascii_case(another);
    }
    // Upper case first: `ſ` and `K` (Kelvin) are `s` and `k` to some.
    let fold =
        |text: &str| -> String { text.chars().flat_map(char::to_uppercase).flat_map(char::to_lowercase).collect() };
    fold(one) == fold(another)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> Pattern {
        Pattern::parse(text).unwrap()
    }

    #[test]
    fn patterns_match_whole_segments() {
        for (text, hits, misses) in [
            ("/x", &["/x"][..], &["/", "/x/", "/x/y", "/xy", "/X", "//x"][..]),
            ("/x/*", &["/x", "/x/", "/x/y", "/x/y/z", "/x//y"], &["/", "/xy", "/X/y", "//x"]),
            ("/*", &["/", "/x", "//", "/x/y"], &[]),
            ("/", &["/"], &["/x", "//"]),
            ("/x/", &["/x/"], &["/x", "/x/y"]),
            ("/u/{id}", &["/u/1", "/u/a b"], &["/u", "/u/", "/u/1/", "/u/1/2"]),
            ("/u/{id}/*", &["/u/1", "/u/1/2"], &["/u", "/u/"]),
            ("/%C3%A9", &["/é"], &["/%C3%A9"]),
        ] {
            for hit in hits {
                assert!(pattern(text).matches_reading(hit), "{text} {hit}");
            }
            for miss in misses {
                assert!(!pattern(text).matches_reading(miss), "{text} {miss}");
            }
        }
    }

    #[test]
    fn folded_matches_are_lenient() {
        for (text, hits, misses) in [
            (
                "/admin",
                &["/Admin", "/admin/", "//admin", "/ADMIN;x=1", "/;x/admin/;y", "/admın"][..],
                &["/admin/x", "/adm"][..],
            ),
            ("/admin/", &["/ADMIN", "/admin/"], &["/"]),
            ("/Admin/*", &["/admin", "/admin/x", "//aDMIN//x;y/z"], &["/administrator"]),
            ("/", &["/", "//", "/;x"], &["/x"]),
            ("/u/{id}", &["/U/1/"], &["/u/", "/u//"]),
            ("/straße", &["/STRASSE", "/straße"], &["/strase"]),
            ("/kelvin/*", &["/\u{212a}elvin/x"], &[]),
        ] {
            for hit in hits {
                assert!(pattern(text).matches_folded(hit), "{text} {hit}");
            }
            for miss in misses {
                assert!(!pattern(text).matches_folded(miss), "{text} {miss}");
            }
        }
    }

    #[test]
    fn raw_matches_are_byte_for_byte() {
        assert!(pattern("/é/*").matches_raw("/%C3%A9/x") && pattern("/%C3%A9").matches_raw("/%C3%A9"));
        for raw in ["/%c3%a9", "/é", "/%C3%A9/"] {
            assert!(!pattern("/é").matches_raw(raw), "{raw}");
        }
        assert!(!pattern("/health").matches_raw("/%68ealth"));
    }

    #[test]
    fn the_more_specific_pattern_ranks_higher() {
        let rising =
            ["/*", "/{a}/*", "/{a}", "/x/*", "/x/{id}/*", "/x/{id}", "/x/{id}/y", "/x/y/*", "/x/y/z/*", "/x/y"];
        for pair in rising.windows(2) {
            let (low, high) = (pattern(pair[0]).rank(), pattern(pair[1]).rank());
            let is_comparable = pattern(pair[0]).overlaps(&pattern(pair[1]));
            assert!(low < high || !is_comparable, "{pair:?}");
        }
    }

    #[test]
    fn overlaps_are_found() {
        for (one, another, overlap) in [
            ("/x/*", "/x", true),
            ("/x/*", "/{a}/y", true),
            ("/*", "/x/y", true),
            ("/x/{id}", "/{a}/y", true),
            ("/x", "/y", false),
            ("/x", "/x/y", false),
            ("/x/*", "/y/*", false),
        ] {
            assert_eq!(pattern(one).overlaps(&pattern(another)), overlap, "{one} {another}");
            assert_eq!(pattern(another).overlaps(&pattern(one)), overlap, "{another} {one}");
        }
    }

    #[test]
    fn what_is_no_pattern_is_explained() {
        for text in [
            "", "x", "x/*", "//", "/x//y", "//*", "/x/*/y", "/x*", "/**", "/x/**", "/{", "/{}", "/{a-b}", "/x{id}",
            "/{id}x", "/x?y", "/x#y", "/x y", "/../x", "/x/.", "/%2e%2e", "/x;y", "/x%3by", "/%2f", "/%25", "/%",
            "/%zz", "/x\\y", "/%5c", "/%00", "/\t",
        ] {
            let problem = Pattern::parse(text);
            assert!(
                problem.as_ref().is_err_and(|problem| problem.starts_with(&format!("`{text}`: "))),
                "{text}: {problem:?}"
            );
        }
    }
}
