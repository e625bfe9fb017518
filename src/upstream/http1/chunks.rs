//! The chunked transfer coding (RFC 9112 §7.1) of an answer, read strictly: what a server and we could take for two different
//! bodies is refused.

use bytes::{Buf as _, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::{Error, HEADERS};

/// The most bytes of all chunk extensions of one body, of padding beside them, and the most of its trailers.
const LIMIT: usize = 16 * 1024;
/// The most digits of a size, leading zeros included: 2⁶⁴ − 1 has as many.
const DIGITS: u8 = 16;

/// How far a body has been read.
#[derive(Debug, Default)]
pub(super) struct Chunks {
    stage: Stage,
    /// Bytes of the present chunk still to come.
    left: u64,
    digits: u8,
    /// Bytes of extensions so far.
    ignored: usize,
    trailers: Vec<u8>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Stage {
    #[default]
    Size,
    /// White space, which only an extension or the line's end may follow.
    Padding,
    Extension,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    Trailers,
}

/// What the next bytes are.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Decoded {
    Data(Bytes),
    Trailers(HeaderMap),
    /// The end, without trailers.
    End,
    /// There are not enough of them yet.
    More,
}

impl Chunks {
    /// Takes what it can from the front of `input`, and leaves what is behind the body. Not to be called after the end.
    pub(super) fn decode(&mut self, input: &mut BytesMut) -> Result<Decoded, Error> {
        loop {
            if self.stage == Stage::Data && !input.is_empty() {
                let room = usize::try_from(self.left).unwrap_or(usize::MAX);
                let data = input.split_to(room.min(input.len())).freeze();
                self.left -= data.len() as u64;
                if self.left == 0 {
                    self.stage = Stage::DataCr;
                }
                return Ok(Decoded::Data(data));
            }
            let Some(&byte) = input.first() else { return Ok(Decoded::More) };
            input.advance(1);
            self.stage = match (self.stage, byte) {
                (Stage::Size, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => self.size(byte)?,
                (Stage::Size, b'\r') if self.digits > 0 => Stage::SizeLf,
                (Stage::Padding | Stage::Extension, b'\r') => Stage::SizeLf,
                (Stage::Size, b';') if self.digits > 0 => Stage::Extension,
                (Stage::Padding, b';') => Stage::Extension,
                (Stage::Size, b' ' | b'\t') if self.digits > 0 => Stage::Padding,
                (Stage::Padding, b' ' | b'\t') => self.ignore(Stage::Padding)?,
                // Control characters are in no extension, and a line feed could be taken for the line's end.
                (Stage::Extension, b'\t' | b' '..=b'~' | 0x80..) => self.ignore(Stage::Extension)?,
                (Stage::SizeLf, b'\n') if self.left == 0 => Stage::Trailers,
                (Stage::SizeLf, b'\n') => Stage::Data,
                (Stage::DataCr, b'\r') => Stage::DataLf,
                (Stage::DataLf, b'\n') => {
                    self.digits = 0;
                    Stage::Size
                }
                (Stage::Trailers, byte) => {
                    if self.trailer(byte)? {
                        return self.end();
                    }
                    Stage::Trailers
                }
                _ => return Err(Error::Nonsense("a chunk of the answer is malformed")),
            };
        }
    }

    fn size(&mut self, digit: u8) -> Result<Stage, Error> {
        self.digits += 1;
        if self.digits > DIGITS {
            return Err(Error::Nonsense("the size of a chunk has too many digits"));
        }
        // Sixteen digits of four bits each.
        let value = char::from(digit).to_digit(16).unwrap_or_default();
        self.left = (self.left << 4) | u64::from(value);
        Ok(Stage::Size)
    }

    fn ignore(&mut self, stage: Stage) -> Result<Stage, Error> {
        self.ignored += 1;
        if self.ignored > LIMIT { Err(Error::Nonsense("chunk extensions are too long")) } else { Ok(stage) }
    }

    /// Whether the section is whole.
    fn trailer(&mut self, byte: u8) -> Result<bool, Error> {
        if byte == b'\n' && self.trailers.last() != Some(&b'\r') {
            return Err(Error::Nonsense("a line of the trailers has no proper end"));
        }
        self.trailers.push(byte);
        if self.trailers.len() > LIMIT {
            return Err(Error::Nonsense("the trailers are too large"));
        }
        Ok(self.trailers == b"\r\n" || self.trailers.ends_with(b"\r\n\r\n"))
    }

    fn end(&mut self) -> Result<Decoded, Error> {
        let section = std::mem::take(&mut self.trailers);
        if section == b"\r\n" {
            return Ok(Decoded::End);
        }
        let mut fields = [httparse::EMPTY_HEADER; HEADERS];
        let httparse::Status::Complete((_, fields)) = httparse::parse_headers(&section, &mut fields)? else {
            return Err(Error::Nonsense("the trailers are malformed"));
        };
        let mut trailers = HeaderMap::with_capacity(fields.len());
        for field in fields {
            let name = HeaderName::from_bytes(field.name.as_bytes());
            let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(field.value)) else {
                return Err(Error::Nonsense("the trailers are malformed"));
            };
            trailers.append(name, value);
        }
        Ok(Decoded::Trailers(trailers))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The data, the trailers and what is left behind the end.
    type Whole = (Vec<u8>, HeaderMap, Vec<u8>);

    /// What `pieces` say, one after the other.
    fn read(pieces: &[&[u8]]) -> Result<Option<Whole>, Error> {
        let (mut chunks, mut input, mut data) = (Chunks::default(), BytesMut::new(), Vec::new());
        for (index, piece) in pieces.iter().enumerate() {
            input.extend_from_slice(piece);
            loop {
                let trailers = match chunks.decode(&mut input)? {
                    Decoded::Data(some) => {
                        data.extend_from_slice(&some);
                        continue;
                    }
                    Decoded::More => break,
                    Decoded::End => HeaderMap::new(),
                    Decoded::Trailers(trailers) => trailers,
                };
                let rest = pieces[index + 1..].concat();
                return Ok(Some((data, trailers, [&input, rest.as_slice()].concat())));
            }
        }
        Ok(None)
    }

    const WHOLE: &[u8] =
        b"4\r\nWiki\r\n6 ; x=\"y\"\r\npedia \r\nE\r\nin \r\n\r\nchunks.\r\n0\r\nX-Sum: 1\r\nx-other:\r\n\r\nNEXT";

    #[test]
    fn every_split_gives_the_same_body() {
        let whole = read(&[WHOLE]).unwrap().unwrap();
        assert_eq!(whole.0, b"Wikipedia in \r\n\r\nchunks.");
        assert_eq!(
            (&whole.1["x-sum"], &whole.1["x-other"]),
            (&HeaderValue::from_static("1"), &HeaderValue::from_static(""))
        );
        assert_eq!(whole.2, b"NEXT");
        for at in 0..WHOLE.len() {
            assert_eq!(read(&[&WHOLE[..at], &WHOLE[at..]]).unwrap(), Some(whole.clone()), "split at {at}");
        }
        let bytes: Vec<_> = WHOLE.chunks(1).collect();
        assert_eq!(read(&bytes).unwrap(), Some(whole));
    }

    #[test]
    fn no_beginning_is_taken_for_the_whole() {
        for end in 0..WHOLE.len() - 4 {
            assert_eq!(read(&[&WHOLE[..end]]).unwrap(), None, "{end}");
        }
    }

    #[test]
    fn what_has_two_readings_is_refused() {
        for body in [
            "\r\n",
            ";x\r\n",
            " 1\r\nx\r\n0\r\n\r\n",
            "+1\r\nx\r\n",
            "-1\r\nx\r\n",
            "0x1\r\nx\r\n",
            "1_0\r\n",
            "1\nx\r\n0\r\n\r\n",
            "1\r\nx\n0\r\n\r\n",
            "1\r\nxy\r\n0\r\n\r\n",
            "1\r\nx0\r\n\r\n",
            "1\rx",
            "1 1\r\nx",
            "1\x0b\r\nx",
            "1;a\nb\r\nx\r\n",
            "1;a\rb\r\nx\r\n",
            "1;a\0\r\nx\r\n",
            "10000000000000000\r\n",
            "00000000000000001\r\nx\r\n",
            "0\r\nx: 1\n\r\n",
            "0\r\nx: 1\r\n y\r\n\r\n",
            "0\r\nx y: 1\r\n\r\n",
            "0\r\nx : 1\r\n\r\n",
            "0\r\n: 1\r\n\r\n",
            "0\r\nx: \0\r\n\r\n",
            "0\r\nno colon\r\n\r\n",
            "0\n\n",
            "0\r\n\n",
        ] {
            assert!(read(&[body.as_bytes()]).is_err(), "{body:?}");
        }
    }

    #[test]
    fn what_is_ignored_is_bounded() {
        let extension = |length: usize| format!("1;{}\r\nx\r\n0\r\n\r\n", "e".repeat(length));
        assert!(read(&[extension(LIMIT).as_bytes()]).is_ok());
        assert!(read(&[extension(LIMIT + 1).as_bytes()]).is_err());
        assert!(read(&["1;e\r\nx\r\n".repeat(LIMIT + 1).as_bytes()]).is_err(), "all chunks together");
        assert!(read(&[format!("1{}\r\n", " ".repeat(LIMIT + 2)).as_bytes()]).is_err());
        let trailer = format!("0\r\nx: {}\r\n\r\n", "y".repeat(LIMIT));
        assert!(read(&[trailer.as_bytes()]).is_err());
        let many: String = (0..=HEADERS).map(|index| format!("x-{index}: 1\r\n")).collect();
        assert!(read(&[format!("0\r\n{many}\r\n").as_bytes()]).is_err());
    }

    proptest! {
        #[test]
        fn what_was_written_in_chunks_is_read_back(
            chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 0..8),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
        ) {
            let mut wire = Vec::new();
            for chunk in &chunks {
                wire.extend(format!("{:X}\r\n", chunk.len()).bytes());
                wire.extend(chunk);
                wire.extend(b"\r\n");
            }
            wire.extend(b"0\r\n\r\n");
            let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(wire.len())).collect();
            cuts.extend([0, wire.len()]);
            cuts.sort_unstable();
            let pieces: Vec<_> = cuts.windows(2).map(|cut| &wire[cut[0]..cut[1]]).collect();
            let (data, trailers, rest) = read(&pieces).unwrap().unwrap();
            prop_assert_eq!(data, chunks.concat());
            prop_assert!(trailers.is_empty() && rest.is_empty());
        }

        #[test]
        fn any_bytes_are_read_or_refused_alike_however_they_are_split(
            wire in "[0-9a-f;\r\n x:]{0,60}", at in any::<prop::sample::Index>(),
        ) {
            let (wire, at) = (wire.as_bytes(), at.index(wire.len().max(1)).min(wire.len()));
            let outcome = |pieces: &[&[u8]]| read(pieces).map_err(drop);
            prop_assert_eq!(outcome(&[wire]), outcome(&[&wire[..at], &wire[at..]]));
        }
    }
}
