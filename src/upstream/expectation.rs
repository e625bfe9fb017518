//! `Expect: 100-continue` (RFC 9110 §10.1.1): a client that asks before it sends its body is answered by the application, not by us.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Version;
use http::header::{EXPECT, HeaderMap};
use tokio::sync::oneshot;
use tokio::time::{Sleep, sleep};

/// For as long an application is heard out; one that does not know of expectations would be silent for ever.
const PATIENCE: Duration = Duration::from_secs(1);

/// What a client waits for. An answer's head drops it, and then the body is never asked for: who answers without a 100 may take what
/// comes next for a request.
#[derive(Debug)]
pub(super) struct Expectation(oneshot::Sender<()>);

impl Expectation {
    /// That of a request with a body, and the same as the body has it. What means nothing, could be read in two ways or came from
    /// somebody to whom no 100 can be passed on is taken out of the head.
    pub(super) fn of(headers: &mut HeaderMap, version: Version) -> Option<(Self, Hold)> {
        let mut lines = headers.get_all(EXPECT).iter();
        let is_meant = lines.next()?.as_bytes().eq_ignore_ascii_case(b"100-continue") && lines.next().is_none();
        // hyper's HTTP/2 says no 100, and HTTP/1.0 knows none.
        if is_meant && version == Version::HTTP_11 {
            let (expectation, told) = oneshot::channel();
            return Some((Self(expectation), Hold::Until(told, None)));
        }
        headers.remove(EXPECT);
        None
    }

    /// The body is wanted.
    pub(super) fn meet(self) {
        // It may be on its way already.
        let _ = self.0.send(());
    }
}

/// What holds a body back. Asking for the body is what has hyper tell the client to go on.
#[derive(Debug)]
pub(super) enum Hold {
    /// A 100; and how long that is waited for, once somebody asks for the body: the request's head is on its way then.
    Until(oneshot::Receiver<()>, Option<Pin<Box<Sleep>>>),
    /// There was another answer.
    ForEver,
}

impl Hold {
    /// Ready once the body may be asked for.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Self::Until(told, patience) = self else { return Poll::Pending };
        match Pin::new(told).poll(cx) {
            Poll::Ready(Ok(())) => Poll::Ready(()),
            Poll::Ready(Err(_)) => {
                *self = Self::ForEver;
                Poll::Pending
            }
            Poll::Pending => patience.get_or_insert_with(|| Box::pin(sleep(PATIENCE))).as_mut().poll(cx),
        }
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
