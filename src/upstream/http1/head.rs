//! The heads of HTTP/1.1 (RFC 9112 §2 to §6): the request's as it is written, the answer's as it is read.

use std::mem::MaybeUninit;
use std::ops::Range;

use bytes::{Buf as _, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, response};
use hyper::ext::ReasonPhrase;

use super::chunks::Chunks;
use super::{Error, HEADERS};
use crate::message::EarlyHints;
use crate::upstream::head::Head;

/// The most of an answer's head, in bytes.
const LIMIT: usize = 64 * 1024;

/// How long a request's body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Length {
    /// There is none.
    None,
    /// So many bytes.
    Known(u64),
    /// Its last chunk tells.
    Chunked,
}

/// Writes the head of a request. `head` has no framing of its own, unless it says that there is no body.
pub(super) fn write(out: &mut Vec<u8>, Head { parts: head, ours, .. }: &Head, length: Length) {
    out.extend_from_slice(head.method.as_str().as_bytes());
    out.push(b' ');
    let target = head.uri.path_and_query().map_or("/", |target| target.as_str());
    out.extend_from_slice(target.as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\n");
    write_fields(out, head.headers.iter().filter(|(name, _)| !ours.rules(name)));
    write_fields(out, ours.iter());
    match length {
        Length::None => {}
        Length::Known(length) => {
            out.extend_from_slice(b"content-length: ");
            out.extend_from_slice(length.to_string().as_bytes());
            out.extend_from_slice(b"\r\n");
        }
        Length::Chunked => out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
    }
    out.extend_from_slice(b"\r\n");
}

/// Writes the lines of a header or trailer section.
pub(super) fn write_fields<'f>(out: &mut Vec<u8>, fields: impl IntoIterator<Item = (&'f HeaderName, &'f HeaderValue)>) {
    // Not a loop: fields come from several lists in a row, each of which this walks through at once.
    fields.into_iter().for_each(|(name, value)| {
        let (name, value) = (name.as_str().as_bytes(), value.as_bytes());
        out.reserve(name.len() + value.len() + 4);
        out.extend_from_slice(name);
        out.extend_from_slice(b": ");
        out.extend_from_slice(value);
        out.extend_from_slice(b"\r\n");
    });
}

/// How an answer's body ends.
#[derive(Debug)]
pub(super) enum Framing {
    /// After so many bytes.
    Length(u64),
    /// With its last chunk.
    Chunked(Chunks),
    /// With the connection.
    UntilClose,
}

/// An answer's head, and what it means for its connection.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) head: response::Parts,
    pub(super) framing: Framing,
    /// Whether the upstream takes another request after this one (RFC 9112 §9.3).
    pub(super) keeps_alive: bool,
}

/// Takes a whole answer's head from the front of `input`, once it is there, for the request of `parts`. Interim answers before it
/// are dropped (RFC 9110 §15.2), but for hints and for what meets an expectation. Its fields take the place of the request's;
/// without what only said how the body is framed and whether the connection stays. The first `searched` bytes are known to hold
/// no end of a head; 0 at first.
///
/// # Errors
/// For what is not HTTP/1, is too large, or has two lengths (RFC 9112 §6.3).
pub(super) fn read(
    input: &mut BytesMut,
    searched: &mut usize,
    Head { parts, hints, expectation, .. }: &mut Head,
) -> Result<Option<Answer>, Error> {
    loop {
        // Some servers end a body with one line too many.
        let empty = input.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
        input.advance(empty);
        // What comes in pieces is parsed again once it has an end, so that a slow head costs no more than a quick one.
        let is_parted = *searched > 0 && !has_end(input, *searched);
        let mut places = [Place::default(); HEADERS];
        let draft = if is_parted { None } else { Draft::read(input, &parts.method, hints.as_ref(), &mut places)? };
        let Some(draft) = draft else {
            if !is_parted && has_end(input, *searched) {
                return Err(Error::Nonsense("the answer's head is malformed"));
            }
            *searched = input.len();
            return if input.len() >= LIMIT { Err(Error::TooLarge) } else { Ok(None) };
        };
        *searched = 0;
        let bytes = input.split_to(draft.end).freeze();
        if !draft.is_interim() {
            let mut answer = draft.finish(&bytes, &places, &mut parts.headers)?;
            answer.keeps_alive &= expectation.take().is_none();
            return Ok(Some(answer));
        }
        if draft.status == StatusCode::CONTINUE
            && let Some(expectation) = expectation.take()
        {
            expectation.meet();
        }
    }
}

/// Whether there is an empty line that was not there when the first `searched` bytes were all. A line may end with a bare LF
/// (RFC 9112 §2.2).
fn has_end(input: &[u8], searched: usize) -> bool {
    // An end is at most three bytes long, and two of them may have been there.
    let new = &input[searched.saturating_sub(2)..];
    memchr::memchr_iter(b'\n', new).any(|at| matches!(&new[at + 1..], [b'\n', ..] | [b'\r', b'\n', ..]))
}

/// Where in a head a field lies: the beginning and the end of its name, and those of its value.
#[derive(Debug, Clone, Copy, Default)]
struct Place([u32; 4]);

impl Place {
    /// `head` is no longer than [`LIMIT`].
    fn of(field: &httparse::Header<'_>, head: &[u8]) -> Self {
        let start = |part: &[u8]| (part.as_ptr().addr() - head.as_ptr().addr()) as u32;
        let (name, value) = (start(field.name.as_bytes()), start(field.value));
        Self([name, name + field.name.len() as u32, value, value + field.value.len() as u32])
    }

    fn name(self) -> Range<usize> {
        self.0[0] as usize..self.0[1] as usize
    }

    fn value(self) -> Range<usize> {
        self.0[2] as usize..self.0[3] as usize
    }
}

/// A whole head as far as it is read while it still lies where it came in.
struct Draft {
    end: usize,
    status: StatusCode,
    reason: Option<ReasonPhrase>,
    is_11: bool,
    lines: Lines,
    /// How many fields there are, but for those of which nothing is left to say.
    fields: usize,
}

impl Draft {
    /// `None` while there is no end. Says in `places` where the fields are.
    fn read(
        input: &[u8],
        method: &Method,
        hints: Option<&EarlyHints>,
        places: &mut [Place; HEADERS],
    ) -> Result<Option<Self>, Error> {
        let mut fields = [const { MaybeUninit::<httparse::Header<'_>>::uninit() }; HEADERS];
        let mut parsed = httparse::Response::new(&mut []);
        let parser = httparse::ParserConfig::default();
        let status = parser.parse_response_with_uninit_headers(&mut parsed, input, &mut fields)?;
        let httparse::Status::Complete(end) = status else { return Ok(None) };
        if end > LIMIT {
            return Err(Error::TooLarge);
        }
        let status = parsed.code.and_then(|code| StatusCode::from_u16(code).ok());
        let status = status.ok_or(Error::Nonsense("the answer's status is no status"))?;
        let reason = parsed.reason.filter(|reason| Some(*reason) != status.canonical_reason());
        let reason = reason.and_then(|reason| ReasonPhrase::try_from(reason.as_bytes()).ok());
        if let Some(hints) = hints {
            hints.say(status, parsed.headers.iter().map(|field| (field.name, field.value)));
        }
        let is_11 = parsed.version == Some(1);
        let mut lines = Lines { keeps_alive: is_11, has_body: has_body(status, method), ..Lines::default() };
        let mut free = places.iter_mut();
        for field in &*parsed.headers {
            if !lines.note(field)
                && let Some(place) = free.next()
            {
                *place = Place::of(field, input);
            }
        }
        let fields = HEADERS - free.len();
        Ok(Some(Self { end, status, reason, is_11, lines, fields }))
    }

    fn is_interim(&self) -> bool {
        self.status.is_informational() && self.status != StatusCode::SWITCHING_PROTOCOLS
    }

    /// `bytes` are the head, which the values share.
    fn finish(self, bytes: &Bytes, places: &[Place; HEADERS], headers: &mut HeaderMap) -> Result<Answer, Error> {
        let Self { status, reason, is_11, lines, fields, .. } = self;
        headers.clear();
        headers.reserve(fields);
        for place in &places[..fields] {
            let name = HeaderName::from_bytes(&bytes[place.name()]);
            let value = HeaderValue::from_maybe_shared(bytes.slice(place.value()));
            let (Ok(name), Ok(value)) = (name, value) else {
                return Err(Error::Nonsense("a field of the answer's head is malformed"));
            };
            headers.append(name, value);
        }
        let keeps_alive = lines.keeps_alive && status != StatusCode::SWITCHING_PROTOCOLS;
        let framing = if lines.has_body { lines.framing(is_11)? } else { Framing::Length(0) };
        let mut head = http::Response::new(()).into_parts().0;
        head.status = status;
        std::mem::swap(&mut head.headers, headers);
        if let Some(reason) = reason {
            head.extensions.insert(reason);
        }
        let keeps_alive = keeps_alive && !matches!(framing, Framing::UntilClose);
        Ok(Answer { head, framing, keeps_alive })
    }
}

/// RFC 9112 §6.3, 1: what has no content by its kind.
fn has_body(status: StatusCode, method: &Method) -> bool {
    !matches!(status, StatusCode::SWITCHING_PROTOCOLS | StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
        && method != Method::HEAD
}

/// What the lines that speak of the connection say together.
#[derive(Debug, Default)]
struct Lines {
    has_body: bool,
    keeps_alive: bool,
    closes: bool,
    length: Option<Result<u64, Error>>,
    /// Whether it is `chunked` and nothing else.
    coding: Option<bool>,
}

impl Lines {
    /// Whether there is no more in a line than what is noted of it.
    fn note(&mut self, &httparse::Header { name, value }: &httparse::Header<'_>) -> bool {
        if name.eq_ignore_ascii_case("connection") {
            let (mut keeps, mut is_all) = (false, true);
            for option in value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
                if option.eq_ignore_ascii_case(b"close") {
                    self.closes = true;
                } else if option.eq_ignore_ascii_case(b"keep-alive") {
                    keeps = true;
                } else {
                    is_all = false;
                }
            }
            // Once one line asks for the end, no other takes it back.
            self.keeps_alive = (self.keeps_alive || keeps) && !self.closes;
            is_all
        } else if name.eq_ignore_ascii_case("content-length") {
            // A list of equal ones is one (RFC 9110 §8.6).
            for number in value.split(|byte| *byte == b',') {
                let number = digits(number.trim_ascii());
                self.length = Some(match (self.length.take(), number) {
                    (None, Some(number)) => Ok(number),
                    (Some(Ok(before)), Some(number)) if before == number => Ok(number),
                    _ => Err(Error::Nonsense("the answer's Content-Length says nothing clear")),
                });
            }
            // Without a body it says what a GET would bring.
            self.has_body
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            let is_chunked = value.trim_ascii().eq_ignore_ascii_case(b"chunked");
            self.coding = Some(self.coding.is_none() && is_chunked);
            self.has_body
        } else {
            false
        }
    }

    fn framing(self, is_11: bool) -> Result<Framing, Error> {
        match (self.coding, self.length) {
            (None, None) => Ok(Framing::UntilClose),
            (None, Some(length)) => length.map(Framing::Length),
            // What one of us reads as the length of this answer, another could read as the beginning of the next one.
            (Some(_), Some(_)) => Err(Error::Nonsense("the answer has both Transfer-Encoding and Content-Length")),
            (Some(true), None) if is_11 => Ok(Framing::Chunked(Chunks::default())),
            (Some(_), None) => Err(Error::Nonsense("the answer's Transfer-Encoding is not exactly chunked")),
        }
    }
}

/// A number of digits alone.
fn digits(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0_u64, |number, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })
}
