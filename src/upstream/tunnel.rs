//! What runs after a 101: bytes both ways, half-closes passed on, no buffer held while nothing moves, and a goodbye between
//! two frames when the process stops.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io::{self, ErrorKind};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::sync::CancellationToken;

use super::frames::{FrameTracker, Goodbye};
use super::http1::Upgraded;
use super::lifetime::Tether;

/// How long both ends may take to answer a close frame when the process stops.
const PATIENCE: Duration = Duration::from_secs(2);
/// The same when the session has ended: what is still in mid-frame must not go on for long.
const LITTLE_PATIENCE: Duration = Duration::from_millis(500);
/// Bytes moved at a time.
const SCRATCH: usize = 16 * 1024;

thread_local! {
    /// One for all tunnels of a worker: filled and emptied within one poll.
    static BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; SCRATCH]);
}

/// The client's half of an upgrade, and whether its frames are understood.
#[derive(Debug, Clone)]
pub(super) struct Client {
    pub(super) upgrade: OnUpgrade,
    pub(super) websocket: bool,
}

/// When a tunnel ends though neither side wants it to.
#[derive(Debug)]
pub(super) struct Ends {
    pub(super) closing: CancellationToken,
    pub(super) session: Option<Tether>,
}

/// Joins the two connections once the client's is free of HTTP, as the upstream's is; ends when both have ended, one breaks,
/// or `ends` says so.
pub(super) async fn run(client: Client, upstream: Upgraded, ends: Ends) {
    // The client's connection is free once the 101 is written; where that fails, the upstream's is dropped here.
    let Ok(downstream) = client.upgrade.await else {
        tracing::debug!("an upgrade was agreed on but the client's connection ended before it began");
        return;
    };
    let outcome = join(TokioIo::new(downstream), upstream, client.websocket, ends).await;
    if let Err(error) = outcome {
        tracing::debug!(%error, "a tunnel broke");
    }
}

pub(super) async fn join<D, U>(
    mut downstream: D,
    mut upstream: U,
    websocket: bool,
    Ends { closing, mut session }: Ends,
) -> io::Result<()>
where
    D: AsyncRead + AsyncWrite + Unpin,
    U: AsyncRead + AsyncWrite + Unpin,
{
    let mut up = Direction::new(websocket);
    let mut down = Direction::new(websocket);
    let goodbye = {
        let mut closing = pin!(closing.cancelled());
        poll_fn(|cx| {
            let up = up.poll(cx, &mut downstream, &mut upstream)?;
            let down = down.poll(cx, &mut upstream, &mut downstream)?;
            if up.is_ready() && down.is_ready() {
                return Poll::Ready(io::Result::Ok(None));
            }
            if session.as_mut().is_some_and(|session| session.poll_over(cx).is_ready()) {
                return Poll::Ready(Ok(Some(Goodbye::SessionEnded)));
            }
            closing.as_mut().poll(cx).map(|()| Ok(Some(Goodbye::GoingAway)))
        })
        .await?
    };
    let Some(goodbye) = goodbye else { return Ok(()) };
    let patience = match goodbye {
        Goodbye::GoingAway => PATIENCE,
        Goodbye::SessionEnded => LITTLE_PATIENCE,
    };
    if let Some(session) = session.filter(|_| goodbye == Goodbye::SessionEnded) {
        session.tell();
    }
    if websocket {
        up.say_goodbye(goodbye.to_upstream());
        down.say_goodbye(goodbye.to_client());
        let answers = poll_fn(|cx| {
            let up = up.poll(cx, &mut downstream, &mut upstream)?;
            let down = down.poll(cx, &mut upstream, &mut downstream)?;
            if up.is_ready() && down.is_ready() { Poll::Ready(io::Result::Ok(())) } else { Poll::Pending }
        });
        if let Ok(outcome) = tokio::time::timeout(patience, answers).await {
            outcome?;
        }
    }
    let ends = poll_fn(|cx| {
        let first = Pin::new(&mut downstream).poll_shutdown(cx);
        let second = Pin::new(&mut upstream).poll_shutdown(cx);
        if first.is_ready() && second.is_ready() { Poll::Ready(()) } else { Poll::Pending }
    });
    // A shutdown of a socket never waits; that of a stream of HTTP/2 waits for the client to take what was written.
    let _ = tokio::time::timeout(patience, ends).await;
    Ok(())
}

/// One direction of a tunnel.
#[derive(Debug)]
struct Direction {
    frames: Option<FrameTracker>,
    /// What the writer would not take; empty and unallocated most of the time.
    left: Vec<u8>,
    written: usize,
    /// The writer has taken something and not been asked to send it.
    unflushed: bool,
    stage: Stage,
}

#[derive(Debug, PartialEq, Eq)]
enum Stage {
    /// Copying.
    Open,
    /// Copying to the end of the current frame, then this close frame.
    Leaving(Vec<u8>),
    /// Nothing is passed on any more; waiting for the other side's close frame.
    Left,
    /// The reader has ended.
    Ended,
    /// And so was the writer told.
    Over,
}

impl Direction {
    fn new(websocket: bool) -> Self {
        let frames = websocket.then(FrameTracker::default);
        Self { frames, left: Vec::new(), written: 0, unflushed: false, stage: Stage::Open }
    }

    /// Puts `close` between two frames, unless a close frame passed already.
    fn say_goodbye(&mut self, close: Vec<u8>) {
        if self.stage == Stage::Open {
            self.stage = Stage::Leaving(close);
        }
    }

    fn poll<R, W>(&mut self, cx: &mut Context<'_>, reader: &mut R, writer: &mut W) -> Poll<io::Result<()>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        loop {
            ready!(self.write_left(cx, writer))?;
            match &mut self.stage {
                Stage::Over => return Poll::Ready(Ok(())),
                Stage::Ended => {
                    ready!(Pin::new(&mut *writer).poll_shutdown(cx))?;
                    self.stage = Stage::Over;
                }
                Stage::Leaving(close) if self.frames.as_ref().is_none_or(FrameTracker::is_between_frames) => {
                    if !self.frames.as_ref().is_some_and(FrameTracker::has_closed) {
                        self.left = std::mem::take(close);
                    }
                    self.stage = Stage::Left;
                }
                Stage::Left if self.frames.as_ref().is_none_or(FrameTracker::has_closed) => {
                    return self.flush(cx, writer);
                }
                Stage::Open | Stage::Leaving(_) | Stage::Left => {
                    if self.move_some(cx, reader, writer)?.is_pending() {
                        ready!(self.flush(cx, writer))?;
                        return Poll::Pending;
                    }
                }
            }
        }
    }

    /// TLS takes bytes that its socket does not, and nothing may come after them for hours.
    fn flush<W: AsyncWrite + Unpin>(&mut self, cx: &mut Context<'_>, writer: &mut W) -> Poll<io::Result<()>> {
        if self.unflushed {
            ready!(Pin::new(&mut *writer).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    fn write_left<W: AsyncWrite + Unpin>(&mut self, cx: &mut Context<'_>, writer: &mut W) -> Poll<io::Result<()>> {
        while self.written < self.left.len() {
            match ready!(Pin::new(&mut *writer).poll_write(cx, &self.left[self.written..]))? {
                0 => return Poll::Ready(Err(ErrorKind::WriteZero.into())),
                count => self.written += count,
            }
            self.unflushed = true;
        }
        self.left = Vec::new();
        self.written = 0;
        Poll::Ready(Ok(()))
    }

    /// Reads once and passes on as much as the writer takes at once.
    fn move_some<R, W>(&mut self, cx: &mut Context<'_>, reader: &mut R, writer: &mut W) -> Poll<io::Result<()>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        BUFFER.with_borrow_mut(|buffer| {
            let mut filled = ReadBuf::new(buffer);
            ready!(Pin::new(reader).poll_read(cx, &mut filled))?;
            let bytes = filled.filled();
            if bytes.is_empty() {
                self.stage = Stage::Ended;
                return Poll::Ready(Ok(()));
            }
            let (mut passed, close) = self.account_for(bytes);
            while !passed.is_empty() {
                match Pin::new(&mut *writer).poll_write(cx, passed)? {
                    Poll::Ready(0) => return Poll::Ready(Err(ErrorKind::WriteZero.into())),
                    Poll::Ready(count) => {
                        passed = &passed[count..];
                        self.unflushed = true;
                    }
                    Poll::Pending => {
                        self.left = passed.to_vec();
                        break;
                    }
                }
            }
            self.left.extend(close);
            Poll::Ready(Ok(()))
        })
    }

    /// Follows the frames in `bytes`; gives the part that is passed on, and the close frame that comes after it.
    fn account_for<'b>(&mut self, bytes: &'b [u8]) -> (&'b [u8], Vec<u8>) {
        let Some(frames) = &mut self.frames else { return (bytes, Vec::new()) };
        match &mut self.stage {
            Stage::Leaving(close) => {
                let used = frames.advance(bytes);
                let between = frames.is_between_frames();
                frames.advance_all(&bytes[used..]);
                if frames.has_closed() || !between {
                    // The other side's own close frame is on its way: it says all there is to say.
                    return (bytes, Vec::new());
                }
                let close = std::mem::take(close);
                self.stage = Stage::Left;
                (&bytes[..used], close)
            }
            Stage::Left => {
                frames.advance_all(bytes);
                (&[], Vec::new())
            }
            Stage::Open | Stage::Ended | Stage::Over => {
                frames.advance_all(bytes);
                (bytes, Vec::new())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, BufStream, duplex};

    fn until(closing: CancellationToken) -> Ends {
        Ends { closing, session: None }
    }

    /// As TLS does with what its socket does not take at once.
    #[tokio::test]
    async fn what_a_writer_has_taken_and_not_sent_is_flushed_before_more_is_waited_for() {
        let (mut client, downstream) = duplex(64);
        let (mut app, upstream) = duplex(64);
        let (downstream, upstream) = (BufStream::new(downstream), BufStream::new(upstream));
        tokio::spawn(join(downstream, upstream, false, until(CancellationToken::new())));
        let soon = Duration::from_secs(5);
        for _ in 0..2 {
            let mut heard = [0; 4];
            app.write_all(b"news").await.unwrap();
            tokio::time::timeout(soon, client.read_exact(&mut heard)).await.expect("it arrives").unwrap();
            client.write_all(b"more").await.unwrap();
            tokio::time::timeout(soon, app.read_exact(&mut heard)).await.expect("it arrives").unwrap();
            assert_eq!(&heard, b"more");
        }
    }

    #[tokio::test]
    async fn a_half_close_is_passed_on_and_the_other_way_stays_open() {
        let (mut client, downstream) = duplex(64);
        let (mut server, upstream) = duplex(64);
        let tunnel = tokio::spawn(join(downstream, upstream, false, until(CancellationToken::new())));
        client.write_all(b"question").await.unwrap();
        client.shutdown().await.unwrap();
        let mut got = String::new();
        server.read_to_string(&mut got).await.unwrap();
        assert_eq!(got, "question");
        let mut answer = Vec::new();
        let (written, read) = tokio::join!(
            async {
                let written = server.write_all(&[b'a'; 1000]).await;
                server.shutdown().await.and(written)
            },
            client.read_to_end(&mut answer),
        );
        written.and(read.map(drop)).unwrap();
        assert_eq!(answer.len(), 1000);
        tunnel.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_stop_in_mid_frame_waits_for_its_end_and_then_closes_with_1001() {
        let (mut client, downstream) = duplex(1024);
        let (mut server, upstream) = duplex(1024);
        let closing = CancellationToken::new();
        let tunnel = tokio::spawn(join(downstream, upstream, true, until(closing.clone())));
        server.write_all(&[0x82, 4, 1, 2]).await.unwrap();
        let mut begun = [0; 4];
        client.read_exact(&mut begun).await.unwrap();
        closing.cancel();
        let mut frame = [0; 8];
        server.read_exact(&mut frame).await.unwrap();
        assert_eq!(frame[..2], [0x88, 0x82]);
        assert_eq!([frame[6] ^ frame[2], frame[7] ^ frame[3]], 1001_u16.to_be_bytes());
        // The rest of the frame, another one that must not pass, and the answer to the close frame.
        server.write_all(&[3, 4, 0x81, 1, b'x', 0x89, 0]).await.unwrap();
        server.write_all(&[0x88, 2, 0x03, 0xe9]).await.unwrap();
        client.write_all(&[0x88, 0x82, 0, 0, 0, 0, 0x03, 0xe9]).await.unwrap();
        let mut rest = Vec::new();
        client.read_to_end(&mut rest).await.unwrap();
        assert!(rest.starts_with(&[3, 4]), "{rest:?}");
        let mut frames = FrameTracker::default();
        frames.advance_all(&[begun.as_slice(), &rest].concat());
        assert!(frames.is_between_frames() && frames.has_closed(), "{rest:?}");
        tunnel.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn what_is_idle_holds_no_buffer() {
        let (mut client, mut downstream) = duplex(4096);
        let (mut upstream, mut server) = duplex(64);
        let mut up = Direction::new(false);
        client.write_all(&[b'x'; 1000]).await.unwrap();
        let blocked = poll_fn(|cx| Poll::Ready(up.poll(cx, &mut downstream, &mut upstream).is_pending())).await;
        assert!(blocked && !up.left.is_empty(), "the server has room for 64 bytes");
        let mut got = [0; 1000];
        let copy = async {
            poll_fn(|cx| up.poll(cx, &mut downstream, &mut upstream)).await.unwrap();
        };
        tokio::select! {
            () = copy => panic!("the client is still there"),
            read = server.read_exact(&mut got) => drop(read.unwrap()),
        }
        let idle = poll_fn(|cx| Poll::Ready(up.poll(cx, &mut downstream, &mut upstream).is_pending())).await;
        assert!(idle);
        assert_eq!((up.left.capacity(), got), (0, [b'x'; 1000]));
    }

    #[tokio::test]
    async fn ends_that_do_not_answer_the_goodbye_are_left() {
        let (mut client, downstream) = duplex(1024);
        let (_server, upstream) = duplex(1024);
        let closing = CancellationToken::new();
        closing.cancel();
        let start = tokio::time::Instant::now();
        join(downstream, upstream, true, until(closing)).await.unwrap();
        assert!(start.elapsed() < Duration::from_secs(3));
        let mut got = Vec::new();
        client.read_to_end(&mut got).await.unwrap();
        assert_eq!(got, [0x88, 2, 0x03, 0xe9]);
    }
}
