//! How a route changes the path on its way to the upstream: a prefix is taken away, another is put in front. Pure.
//!
//! The prefix counts only byte for byte and up to the end of a segment, and what comes out is read as strictly as what came
//! in: never half a spelling of a prefix, never a path that could leave the new one (CVE-2026-48020, CVE-2026-65600).

use crate::message::RequestPath;

/// `strip_prefix` and `add_prefix` of a route.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rewrite {
    /// Taken away from the front: whole plain segments without a slash at the end, such as `/app`. Empty: nothing.
    pub strip: String,
    /// Put in front of the rest; as `strip`.
    pub add: String,
}

/// Why a path cannot be rewritten: always 400.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RewriteError {
    /// The route was met by another spelling of its prefix (`/App`, `/%61pp`, `/app;x`): what is left could not be told.
    #[error("the path spells the prefix of its route in another way")]
    Prefix,
    /// The rest begins with `//`, is too long, or can be read in a way that is refused.
    #[error("without its prefix the path can be read in more than one way")]
    Result,
}

impl RewriteError {
    /// The constant reason code for the log.
    pub fn code(self) -> &'static str {
        match self {
            Self::Prefix => "path_prefix",
            Self::Result => "path_rewritten",
        }
    }
}

impl Rewrite {
    /// The path that is forwarded for `path`; at least `/`.
    ///
    /// # Errors
    /// [`RewriteError`].
    pub fn apply(&self, path: &RequestPath) -> Result<RequestPath, RewriteError> {
        let rest = below(path.raw(), &self.strip).ok_or(RewriteError::Prefix)?;
        let rewritten = match [self.add.as_str(), rest].concat() {
            empty if empty.is_empty() => "/".to_owned(),
            path => path,
        };
        // To a URL parser `//x/y` is the host x.
        if rewritten.starts_with("//") {
            return Err(RewriteError::Result);
        }
        RequestPath::parse(&rewritten).map_err(|_| RewriteError::Result)
    }

    /// The pattern of what the upstream gets on a route with this `pattern`, for comparing routes; `None` where the pattern
    /// does not lie below the prefix.
    pub fn pattern(&self, pattern: &str) -> Option<String> {
        let rest = below(pattern, &self.strip)?;
        let rewritten = [self.add.as_str(), rest].concat();
        Some(if rewritten.is_empty() { "/".to_owned() } else { rewritten })
    }
}

/// What follows `prefix` in `path`: nothing, or a rest that begins with a slash.
fn below<'p>(path: &'p str, prefix: &str) -> Option<&'p str> {
    path.strip_prefix(prefix).filter(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rewrite(strip: &str, add: &str) -> Rewrite {
        Rewrite { strip: strip.to_owned(), add: add.to_owned() }
    }

    fn told(rewrite: &Rewrite, path: &str) -> Result<String, RewriteError> {
        rewrite.apply(&RequestPath::parse(path).unwrap()).map(|path| path.raw().to_owned())
    }

    #[test]
    fn a_prefix_goes_and_another_comes() {
        for (strip, add, path, wanted) in [
            ("/app", "", "/app/x", "/x"),
            ("/app", "", "/app/x/", "/x/"),
            ("/app", "", "/app/", "/"),
            ("/app", "", "/app", "/"),
            ("/app", "", "/app/app", "/app"),
            ("/a/b", "", "/a/b/c%2Fd", "/c%2Fd"),
            ("/app", "/v2", "/app/x;y=1//z", "/v2/x;y=1//z"),
            ("/app", "/v2", "/app//x", "/v2//x"),
            ("/app", "/v2", "/app", "/v2"),
            ("", "/v2", "/x", "/v2/x"),
            ("", "/v2", "/", "/v2/"),
            ("", "/v2", "//x", "/v2//x"),
        ] {
            assert_eq!(told(&rewrite(strip, add), path).as_deref(), Ok(wanted), "{strip} {add} {path}");
        }
    }

    #[test]
    fn a_prefix_is_its_own_bytes_up_to_the_end_of_a_segment() {
        for path in
            ["/application", "/app%2Fx", "/%61pp/x", "/App/x", "/app;v=1/x", "//app/x", "/x/app", "/", "/app%3b/x"]
        {
            assert_eq!(told(&rewrite("/app", ""), path), Err(RewriteError::Prefix), "{path}");
        }
    }

    #[test]
    fn what_could_be_read_as_a_host_is_refused() {
        for path in ["/app//evil.example", "/app//", "/app///x"] {
            assert_eq!(told(&rewrite("/app", ""), path), Err(RewriteError::Result), "{path}");
        }
        let long = format!("/{}", "a".repeat(8_190));
        assert_eq!(told(&rewrite("", "/v2"), &long), Err(RewriteError::Result));
    }

    #[test]
    fn patterns_are_rewritten_like_paths() {
        let strip = rewrite("/app", "");
        for (pattern, wanted) in
            [("/app/*", Some("/*")), ("/app/{id}", Some("/{id}")), ("/app", Some("/")), ("/apple", None), ("/*", None)]
        {
            assert_eq!(strip.pattern(pattern).as_deref(), wanted, "{pattern}");
        }
        assert_eq!(rewrite("", "/v2").pattern("/*").as_deref(), Some("/v2/*"));
    }

    proptest! {
        #[test]
        fn whatever_is_asked_the_upstream_reads_what_was_judged_below_the_new_prefix(
            prefix in prop::sample::select(vec!["/app", "/App", "/%61pp", "/app;x", "/app%2f", "", "/"]),
            rest in "\\PC{0,40}|([/.;a%]|%2f|%25|%2e|%3f|%23|%5c|%3B|app|2|e){0,12}",
            strip in prop::sample::select(vec!["/app", ""]),
            add in prop::sample::select(vec!["", "/v2", "/v2/x"]),
        ) {
            let Ok(judged) = RequestPath::parse(&format!("{prefix}{rest}")) else { return Ok(()) };
            let Ok(rewritten) = rewrite(strip, add).apply(&judged) else { return Ok(()) };
            prop_assert!(rewritten.raw().starts_with('/') && !rewritten.raw().starts_with("//"));
            prop_assert!(judged.raw().ends_with(rewritten.raw().strip_prefix(add).unwrap().trim_start_matches('/')));
            for reading in rewritten.readings() {
                prop_assert!(below(reading, add).is_some(), "{} reads as {}", rewritten.raw(), reading);
                prop_assert!(!reading.split('/').any(|segment| matches!(segment.split(';').next(), Some("." | ".."))));
                let rest = below(reading, add).unwrap();
                let before = format!("{strip}{rest}");
                // An empty rest becomes `/`, and what was judged may have been `/app` or `/app/`.
                prop_assert!(
                    judged.readings().any(|reading| reading.trim_end_matches('/') == before.trim_end_matches('/')),
                    "{} reads as {reading}, which was never judged", rewritten.raw()
                );
            }
        }
    }
}
