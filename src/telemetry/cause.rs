//! An error with everything that caused it, as one line for the log.

use std::error::Error;
use std::io;

/// The error and its causes, each once: `could not be fetched: tcp connect error: Connection refused (os error 111)`.
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = cause_of(error);
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        // A transparent error repeats its cause's text, and so do some libraries.
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        next = cause_of(cause);
    }
    text
}

/// `io::Error::source` passes over the error that it wraps and names that one's cause; a TLS error would be lost.
fn cause_of<'e>(error: &'e (dyn Error + 'static)) -> Option<&'e (dyn Error + 'static)> {
    match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        Some(wrapped) => Some(wrapped),
        None => error.source(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    enum Outer {
        #[error("the page could not be fetched")]
        Wrapping(#[source] io::Error),
        #[error(transparent)]
        Transparent(io::Error),
    }

    #[derive(Debug, thiserror::Error)]
    #[error("the certificate is not trusted")]
    struct Untrusted(#[source] std::num::ParseIntError);

    fn tls() -> io::Error {
        let innermost = "x".parse::<u8>().unwrap_err();
        io::Error::other(io::Error::new(io::ErrorKind::InvalidData, Untrusted(innermost)))
    }

    #[test]
    fn every_cause_is_told_once() {
        let expected = "the certificate is not trusted: invalid digit found in string";
        assert_eq!(chain(&Outer::Wrapping(tls())), format!("the page could not be fetched: {expected}"));
        assert_eq!(chain(&Outer::Transparent(tls())), expected);
        assert_eq!(chain(&tls()), expected);
        assert_eq!(chain(&io::Error::from(io::ErrorKind::TimedOut)), "timed out");
    }
}
