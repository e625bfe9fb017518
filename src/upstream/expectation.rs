//! `Expect: 100-continue` (RFC 9110 §10.1.1): a client that asks before it sends its body is answered by the application, not by us.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http::header::{EXPECT, HeaderMap};
use http::{StatusCode, Version};
use tokio::time::{Timeout, timeout};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// For as long an application is heard out; one that does not know of expectations would be silent for ever.
const PATIENCE: Duration = Duration::from_secs(1);

/// What a client waits for. Clones are the same.
#[derive(Debug, Clone)]
pub(super) struct Expectation {
    met: CancellationToken,
}

impl Expectation {
    /// That of a request with a body, whose head is then as the upstream shall see it: what means nothing, could be read in two ways or
    /// came from somebody to whom no 100 can be passed on is gone.
    pub(super) fn of(headers: &mut HeaderMap, version: Version) -> Option<Self> {
        let mut lines = headers.get_all(EXPECT).iter();
        let is_meant = lines.next()?.as_bytes().eq_ignore_ascii_case(b"100-continue") && lines.next().is_none();
        // hyper's HTTP/2 says no 100, and HTTP/1.0 knows none.
        if is_meant && version == Version::HTTP_11 {
            return Some(Self { met: CancellationToken::new() });
        }
        headers.remove(EXPECT);
        None
    }

    /// The upstream has said something that is not its answer.
    pub(super) fn hear(&self, interim: StatusCode) {
        if interim == StatusCode::CONTINUE {
            self.met.cancel();
        }
    }

    /// Whether the upstream wants the body. One that answers without having said so may never read it, and takes it for the next
    /// request should it come on the same connection.
    pub(super) fn is_met(&self) -> bool {
        self.met.is_cancelled()
    }
}

/// A body that is held back. Asking for it is what has hyper tell the client to go on.
#[derive(Debug)]
pub(super) struct Held {
    expectation: Expectation,
    /// Once somebody asks for the body: the request's head is on its way then.
    wait: Option<Pin<Box<Timeout<WaitForCancellationFutureOwned>>>>,
}

impl Held {
    /// Until `expectation` is met.
    pub(super) fn until(expectation: Expectation) -> Self {
        Self { expectation, wait: None }
    }

    /// Ready once the body may be asked for.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let met = &self.expectation.met;
        let wait = self.wait.get_or_insert_with(|| Box::pin(timeout(PATIENCE, met.clone().cancelled_owned())));
        wait.as_mut().poll(cx).map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_means_one_thing_to_everybody_is_passed_on() {
        let of = |lines: &[&'static str], version| {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(EXPECT, http::HeaderValue::from_static(line));
            }
            let is_expected = Expectation::of(&mut headers, version).is_some();
            assert_eq!(is_expected, headers.contains_key(EXPECT), "{lines:?}");
            is_expected
        };
        assert!(of(&["100-continue"], Version::HTTP_11));
        assert!(of(&["100-Continue"], Version::HTTP_11));
        assert!(!of(&[], Version::HTTP_11));
        for lines in
            [&["100-continue", "100-continue"][..], &["100-continue, 100-continue"], &["y 100-continue"], &[""]]
        {
            assert!(!of(lines, Version::HTTP_11), "{lines:?}");
        }
        assert!(!of(&["100-continue"], Version::HTTP_10));
        assert!(!of(&["100-continue"], Version::HTTP_2));
    }
}
