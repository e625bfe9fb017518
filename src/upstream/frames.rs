//! Where WebSocket frames begin and end (RFC 6455 §5.2), so that a close frame is only ever put between two of them.

use aws_lc_rs::rand::{SecureRandom, SystemRandom};

/// FIN and opcode 8.
const CLOSE: u8 = 0x88;
/// Two bytes, eight of extended length, four of mask.
const LONGEST_HEADER: usize = 14;

/// Follows one direction of a WebSocket, in whatever pieces its bytes come.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct FrameTracker {
    header: [u8; LONGEST_HEADER],
    filled: usize,
    payload: u64,
    closed: bool,
}

impl FrameTracker {
    /// Reads on to the end of the current frame at most; gives how many of `bytes` belong to it.
    pub(super) fn advance(&mut self, bytes: &[u8]) -> usize {
        let mut used = 0;
        if self.payload == 0 {
            while let Some(byte) = bytes.get(used) {
                self.header[self.filled] = *byte;
                self.filled += 1;
                used += 1;
                if self.filled >= self.header_len() {
                    self.begin_payload();
                    break;
                }
            }
        }
        let here = self.payload.min((bytes.len() - used) as u64);
        self.payload -= here;
        // `here` is at most a length of memory.
        used + usize::try_from(here).unwrap_or_default()
    }

    /// Reads all of `bytes`.
    pub(super) fn advance_all(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let used = self.advance(bytes);
            bytes = &bytes[used..];
        }
    }

    /// Whether no frame is begun and unfinished.
    pub(super) fn is_between_frames(&self) -> bool {
        self.filled == 0 && self.payload == 0
    }

    /// Whether a close frame has begun: nothing may follow it.
    pub(super) fn has_closed(&self) -> bool {
        self.closed
    }

    /// The whole header's length, as far as it can be told; more than what is there while it can't.
    fn header_len(&self) -> usize {
        if self.filled < 2 {
            return 2;
        }
        let extended = match self.header[1] & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let mask = if self.header[1] & 0x80 == 0 { 0 } else { 4 };
        2 + extended + mask
    }

    fn begin_payload(&mut self) {
        let long = |bytes: &[u8]| bytes.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
        self.payload = match self.header[1] & 0x7f {
            126 => long(&self.header[2..4]),
            127 => long(&self.header[2..10]),
            short => u64::from(short),
        };
        self.closed |= self.header[0] & 0x0f == CLOSE & 0x0f;
        self.filled = 0;
    }
}

/// Why we close: status code (RFC 6455 §7.4.1) and words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Goodbye {
    /// 1001: the process stops.
    GoingAway,
    /// 1008, "policy": nobody may use this any more.
    SessionEnded,
}

impl Goodbye {
    fn payload(self) -> Vec<u8> {
        let (code, reason) = match self {
            Self::GoingAway => (1001_u16, ""),
            Self::SessionEnded => (1008, "session ended"),
        };
        [&code.to_be_bytes(), reason.as_bytes()].concat()
    }

    /// The frame towards the client: unmasked (RFC 6455 §5.1).
    pub(super) fn to_client(self) -> Vec<u8> {
        let payload = self.payload();
        [&[CLOSE, length(&payload)], &*payload].concat()
    }

    /// The frame towards the upstream: masked, as from any client (RFC 6455 §5.3).
    pub(super) fn to_upstream(self) -> Vec<u8> {
        let mut mask = [0; 4];
        // A mask protects caches between a script and a server; without randomness this frame still parses.
        let _ = SystemRandom::new().fill(&mut mask);
        let mut payload = self.payload();
        payload.iter_mut().zip(mask.iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
        [&[CLOSE, 0x80 | length(&payload)], &mask[..], &payload].concat()
    }
}

/// Ours are far below the 126 bytes from which a length takes more than this.
fn length(payload: &[u8]) -> u8 {
    u8::try_from(payload.len()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frame(opcode: u8, mask: bool, len: usize) -> Vec<u8> {
        let bit = if mask { 0x80 } else { 0 };
        let mut bytes = vec![0x80 | opcode];
        match len {
            0..=125 => bytes.push(bit | len as u8),
            126..=0xffff => {
                bytes.push(bit | 126);
                bytes.extend((len as u16).to_be_bytes());
            }
            _ => {
                bytes.push(bit | 127);
                bytes.extend((len as u64).to_be_bytes());
            }
        }
        if mask {
            bytes.extend([0x88, 0x02, 0x7f, 0xff]);
        }
        bytes.extend(std::iter::repeat_n(0x88, len));
        bytes
    }

    fn frames() -> impl Strategy<Value = Vec<Vec<u8>>> {
        let len = prop_oneof![Just(0_usize), 1..130_usize, 65_530..65_545_usize];
        prop::collection::vec((0..3_u8, any::<bool>(), len).prop_map(|(op, mask, len)| frame(op, mask, len)), 1..6)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn boundaries_do_not_depend_on_how_the_bytes_are_split(frames in frames(), sizes in prop::collection::vec(1..5000_usize, 1..40)) {
            let stream = frames.concat();
            let expected: Vec<usize> =
                frames.iter().scan(0, |at, frame| { *at += frame.len(); Some(*at) }).collect();
            let mut tracker = FrameTracker::default();
            let (mut found, mut at, mut sizes) = (Vec::new(), 0, sizes.into_iter().cycle());
            while at < stream.len() {
                let end = (at + sizes.next().unwrap()).min(stream.len());
                while at < end {
                    let used = tracker.advance(&stream[at..end]);
                    prop_assert!(used > 0);
                    at += used;
                    if tracker.is_between_frames() {
                        found.push(at);
                    }
                }
            }
            prop_assert_eq!(found, expected);
            prop_assert!(!tracker.has_closed());
        }

        #[test]
        fn no_bytes_make_it_panic_or_stand_still(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            let mut tracker = FrameTracker::default();
            tracker.advance_all(&bytes);
        }
    }

    #[test]
    fn every_byte_alone_finds_the_close_frame() {
        let mut tracker = FrameTracker::default();
        for byte in frame(1, true, 300) {
            tracker.advance_all(&[byte]);
        }
        assert!(tracker.is_between_frames() && !tracker.has_closed());
        tracker.advance_all(&Goodbye::SessionEnded.to_upstream());
        assert!(tracker.is_between_frames() && tracker.has_closed());
        assert_eq!(Goodbye::GoingAway.to_client(), [0x88, 2, 0x03, 0xe9]);
        assert_eq!(Goodbye::SessionEnded.to_client(), *b"\x88\x0f\x03\xf0session ended");
    }
}
