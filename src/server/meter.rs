//! Watches the frames of HTTP/2 as they come, by their heads alone: a header block that does not end, and frames that cost
//! us an answer or a look and ask for nothing (CVE-2019-9512, -9513, -9515, -9518 and their relatives; CVE-2023-44487).

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::io::ClientIo;
use super::streams::Streams;

/// What is borne without anything in return, in frames.
const ALLOWANCE: i64 = 1_000;
/// And what more for each second of the connection.
const PER_SECOND: i64 = 100;
/// What a request is worth: it comes with window updates, a ping, a priority.
const REQUEST: i64 = 4;
/// What a reset costs: where more than half of all requests are taken back, something else is going on.
const RESET: i64 = 8;
/// A frame is borne for as many bytes that we sent: window updates come with what we send.
const BYTES_SENT: u64 = 1_024;

/// RFC 9113 §6.
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// The connection's byte stream under hyper. Dropped, it leaves the stream with [`Streams`].
#[derive(Debug)]
pub(super) struct Metered {
    io: Option<ClientIo>,
    meter: Meter,
    streams: Arc<Streams>,
}

impl Metered {
    pub(super) fn new(io: ClientIo, streams: Arc<Streams>) -> Self {
        Self { io: Some(io), meter: Meter::new(), streams }
    }

    fn io(&mut self) -> io::Result<Pin<&mut ClientIo>> {
        self.io.as_mut().map(Pin::new).ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    fn sent(&mut self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(count)) = written {
            self.meter.sent += count as u64;
        }
        written
    }
}

impl Drop for Metered {
    fn drop(&mut self) {
        if let Some(io) = self.io.take() {
            self.streams.give_back(io);
        }
    }
}

impl AsyncRead for Metered {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.streams.is_flooded() {
            return Poll::Pending;
        }
        let before = buf.filled().len();
        ready!(this.io()?.poll_read(cx, buf))?;
        this.meter.read(&buf.filled()[before..]);
        this.streams.note(this.meter.in_head, this.meter.is_flood());
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Metered {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = this.io()?.poll_write(cx, buf);
        this.sent(written)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = this.io()?.poll_write_vectored(cx, bufs);
        this.sent(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.as_ref().is_some_and(ClientIo::is_write_vectored)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().io()?.poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().io()?.poll_shutdown(cx)
    }
}

#[derive(Debug)]
struct Meter {
    begun: Instant,
    /// Bytes to go over: the preface, or a frame's payload.
    skip: usize,
    head: [u8; 9],
    got: usize,
    /// A header block has begun and not ended, nor has the connection's first frame.
    in_head: bool,
    block_ends: bool,
    spent: i64,
    sent: u64,
}

impl Meter {
    fn new() -> Self {
        // RFC 9113 §3.4: the preface is 24 bytes long.
        let (begun, skip) = (Instant::now(), 24);
        Self { begun, skip, head: [0; 9], got: 0, in_head: true, block_ends: true, spent: 0, sent: 0 }
    }

    fn read(&mut self, mut bytes: &[u8]) {
        loop {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = &bytes[skipped..];
            if self.skip > 0 {
                return;
            }
            if self.got == self.head.len() {
                self.got = 0;
                self.in_head = !self.block_ends;
            }
            if bytes.is_empty() {
                return;
            }
            let taken = (self.head.len() - self.got).min(bytes.len());
            self.head[self.got..self.got + taken].copy_from_slice(&bytes[..taken]);
            self.got += taken;
            bytes = &bytes[taken..];
            if self.got == self.head.len() {
                self.begin_frame();
            }
        }
    }

    /// RFC 9113 §4.1: length, type, flags, stream.
    fn begin_frame(&mut self) {
        let [high, middle, low, kind, flags, ..] = self.head;
        self.skip = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
        match kind {
            HEADERS | CONTINUATION => {
                self.in_head = true;
                self.block_ends = flags & END_HEADERS != 0;
                if kind == HEADERS {
                    self.spent -= REQUEST;
                }
            }
            DATA if self.skip > 0 || flags & END_STREAM != 0 => {}
            RST_STREAM => self.spent += RESET,
            _ => self.spent += 1,
        }
    }

    fn is_flood(&self) -> bool {
        let earned = i64::try_from(self.sent / BYTES_SENT).unwrap_or(i64::MAX).saturating_add(ALLOWANCE);
        // The clock is asked only where there is something to ask about.
        self.spent > earned && {
            let seconds = i64::try_from(self.begun.elapsed().as_secs()).unwrap_or(i64::MAX);
            self.spent > earned.saturating_add(seconds.saturating_mul(PER_SECOND))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, payload: usize) -> Vec<u8> {
        let mut bytes = vec![0, (payload >> 8) as u8, payload as u8, kind, flags, 0, 0, 0, 1];
        bytes.resize(9 + payload, 0xff);
        bytes
    }

    fn after(frames: &[Vec<u8>], piece: usize) -> Meter {
        let mut meter = Meter::new();
        let bytes = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".as_slice(), &frames.concat()].concat();
        bytes.chunks(piece).for_each(|piece| meter.read(piece));
        meter
    }

    #[test]
    fn a_header_block_is_open_until_its_last_byte() {
        const SETTINGS: u8 = 4;
        let settings = frame(SETTINGS, 0, 12);
        for piece in [1, 7, 1_000] {
            assert!(after(&[], piece).in_head, "no frame came yet");
            assert!(!after(std::slice::from_ref(&settings), piece).in_head);
            let open = [settings.clone(), frame(HEADERS, 0, 300)];
            assert!(after(&open, piece).in_head);
            let continued = [open.concat(), frame(CONTINUATION, 0, 5)];
            assert!(after(&continued, piece).in_head);
            let mut last = frame(CONTINUATION, END_HEADERS, 5);
            let whole = [continued.concat(), last.clone()];
            assert!(!after(&whole, piece).in_head);
            last.pop();
            assert!(after(&[continued.concat(), last], piece).in_head, "its last byte is missing");
            assert!(!after(&[settings.clone(), frame(HEADERS, END_HEADERS, 0)], piece).in_head);
        }
    }

    #[test]
    fn frames_that_ask_for_nothing_are_borne_up_to_a_number() {
        let many = |frame: Vec<u8>, count: usize| after(&vec![frame; count], 4_096);
        for (kind, payload) in [(4, 0), (6, 8), (2, 5), (8, 4), (0, 0), (0x2a, 0)] {
            assert!(!many(frame(kind, 0, payload), 1_000).is_flood(), "{kind}");
            assert!(many(frame(kind, 0, payload), 1_001).is_flood(), "{kind}");
        }
        assert!(!many(frame(DATA, 0, 1), 5_000).is_flood());
        assert!(!many(frame(HEADERS, END_HEADERS, 10), 5_000).is_flood());
    }

    #[test]
    fn half_of_all_requests_may_be_taken_back() {
        let taken_back = [frame(HEADERS, END_HEADERS, 10), frame(RST_STREAM, 0, 4)].concat();
        let kept = frame(HEADERS, END_HEADERS, 10);
        assert!(!after(&vec![[taken_back.clone(), kept].concat(); 3_000], 4_096).is_flood());
        assert!(after(&vec![taken_back; 300], 4_096).is_flood());
    }

    #[test]
    fn what_we_send_and_time_that_passes_are_credit() {
        let mut meter = after(&vec![frame(8, 0, 4); 2_000], 4_096);
        assert!(meter.is_flood());
        meter.sent = 1_000 * BYTES_SENT;
        assert!(!meter.is_flood());
        meter.sent = 0;
        meter.begun = meter.begun.checked_sub(std::time::Duration::from_secs(10)).unwrap();
        assert!(!meter.is_flood());
    }
}
