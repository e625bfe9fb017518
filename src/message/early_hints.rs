//! An answer before the answer, 103 (RFC 8297): what a page will need, told while the application still makes the page. hyper's
//! server writes no such answers, so they go to the client's connection below it.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, ready};

use http::StatusCode;

/// The most that waits to be written, in bytes. What does not fit is left out: nobody relies on a hint.
const MOST: usize = 16 * 1024;

/// The hints of one connection of HTTP/1.1; a clone is the same ones. Said by whoever waits for the answer, written by the
/// connection, and never at the same time. The lock is never contended: a connection is one worker's.
#[derive(Debug, Clone, Default)]
pub struct EarlyHints(Arc<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    is_any: AtomicBool,
    lines: Mutex<Lines>,
}

/// Whole answers, of which so many bytes are written.
#[derive(Debug, Default)]
struct Lines {
    bytes: Vec<u8>,
    written: usize,
}

impl EarlyHints {
    /// Says what of `fields` is a hint: `Link`. Nothing else of a 103 is passed on, such as what is only said of the connection, or a
    /// cookie.
    pub fn say<'f>(&self, status: StatusCode, fields: impl Iterator<Item = (&'f str, &'f [u8])>) {
        if status != StatusCode::EARLY_HINTS {
            return;
        }
        let mut links =
            fields.filter(|(name, value)| name.eq_ignore_ascii_case("link") && is_a_value(value)).peekable();
        if links.peek().is_none() {
            return;
        }
        let mut answer = b"HTTP/1.1 103 Early Hints\r\n".to_vec();
        for part in links.flat_map(|(_, value)| [b"link: ", value, b"\r\n"]) {
            answer.extend_from_slice(part);
        }
        answer.extend_from_slice(b"\r\n");
        let bytes = &mut self.lines().bytes;
        if bytes.len() + answer.len() <= MOST {
            bytes.extend_from_slice(&answer);
            self.0.is_any.store(true, Ordering::Relaxed);
        }
    }

    /// Whether something waits to be written.
    pub fn is_any(&self) -> bool {
        self.0.is_any.load(Ordering::Relaxed)
    }

    /// Writes what waits, by `write`, which tells how much it took; or lets go of it where nothing of it is written and it is
    /// `unwelcome`.
    ///
    /// # Errors
    /// What `write` fails with, and that it takes nothing.
    pub fn poll_write(
        &self,
        unwelcome: bool,
        mut write: impl FnMut(&[u8]) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<()>> {
        let mut lines = self.lines();
        while !(unwelcome && lines.written == 0) && lines.written < lines.bytes.len() {
            match ready!(write(&lines.bytes[lines.written..]))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => lines.written += count,
            }
        }
        *lines = Lines::default();
        self.0.is_any.store(false, Ordering::Relaxed);
        Poll::Ready(Ok(()))
    }

    fn lines(&self) -> MutexGuard<'_, Lines> {
        self.0.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// RFC 9110 §5.5: nothing that could end a line.
fn is_a_value(value: &[u8]) -> bool {
    value.iter().all(|byte| matches!(byte, b'\t' | b' '..=b'~' | 0x80..))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(hints: &EarlyHints, unwelcome: bool) -> Vec<u8> {
        let mut written = Vec::new();
        // A few bytes at a time.
        let write = |bytes: &[u8]| {
            let some = &bytes[..bytes.len().min(7)];
            written.extend_from_slice(some);
            Poll::Ready(Ok(some.len()))
        };
        assert!(matches!(hints.poll_write(unwelcome, write), Poll::Ready(Ok(()))) && !hints.is_any());
        written
    }

    fn said(fields: &[(&'static str, &'static str)]) -> Vec<u8> {
        let hints = EarlyHints::default();
        hints.say(StatusCode::EARLY_HINTS, fields.iter().map(|(name, value)| (*name, value.as_bytes())));
        written(&hints, false)
    }

    #[test]
    fn only_what_is_a_hint_is_said() {
        let fields = [
            ("Link", "</a.css>; rel=preload"),
            ("set-cookie", "a=1"),
            ("connection", "close"),
            ("x-forwarded-user", "eve"),
            ("content-length", "3"),
            ("location", "/"),
            ("link", "</b.css>\r\nset-cookie: a=1"),
        ];
        assert_eq!(said(&fields), b"HTTP/1.1 103 Early Hints\r\nlink: </a.css>; rel=preload\r\n\r\n");
        assert_eq!(said(&fields[1..]), b"");
    }

    #[test]
    fn hints_wait_whole_and_bounded_and_are_written_once() {
        let hints = EarlyHints::default();
        for _ in 0..9 {
            hints.say(StatusCode::EARLY_HINTS, std::iter::once(("link", [b'x'; 6 * 1024].as_slice())));
        }
        let bytes = written(&hints, false);
        assert!(bytes.len() <= MOST && bytes.ends_with(b"x\r\n\r\n"));
        assert_eq!(bytes.windows(3).filter(|part| part == b"103").count(), 2);
        assert_eq!(written(&hints, false), b"");
    }

    #[test]
    fn what_is_begun_is_written_to_its_end_and_what_is_not_can_be_unwelcome() {
        let hints = EarlyHints::default();
        hints.say(StatusCode::EARLY_HINTS, std::iter::once(("link", b"</a>".as_slice())));
        let mut taken = 0;
        let stuck = hints.poll_write(false, |_| {
            taken += 1;
            if taken == 1 { Poll::Ready(Ok(5)) } else { Poll::Pending }
        });
        assert!(stuck.is_pending() && hints.is_any());
        assert_eq!(written(&hints, true), b"1.1 103 Early Hints\r\nlink: </a>\r\n\r\n");
        hints.say(StatusCode::EARLY_HINTS, std::iter::once(("link", b"</a>".as_slice())));
        assert_eq!(written(&hints, true), b"");
    }
}
