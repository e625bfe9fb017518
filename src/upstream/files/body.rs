//! A file's bytes on their way out: one piece in memory at a time, read where waiting for a disk stops nobody else.

use std::fs::File;
use std::io::{self, Read};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::task::JoinHandle;

use crate::message::body::{BodyError, PIECE};
use crate::upstream::body::Cut;
use crate::upstream::lifetime::Tether;

/// Exactly so many bytes from where the file stands; a file that has become shorter ends as an error, never as a complete
/// answer.
#[derive(Debug)]
pub(super) struct FileBody {
    state: State,
    left: u64,
    tether: Option<Tether>,
}

#[derive(Debug)]
enum State {
    Ready(File),
    Reading(JoinHandle<io::Result<(File, Bytes)>>),
    Over,
}

impl FileBody {
    pub(super) fn new(file: File, left: u64, tether: Option<Tether>) -> Self {
        Self { state: State::Ready(file), left, tether }
    }

    fn fail(&mut self, error: impl Into<BodyError>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.state = State::Over;
        Poll::Ready(Some(Err(error.into())))
    }
}

/// The next `count` bytes.
pub(super) fn read(file: &File, count: u64) -> io::Result<Bytes> {
    // At most a piece.
    let mut bytes = Vec::with_capacity(usize::try_from(count).unwrap_or_default());
    file.take(count).read_to_end(&mut bytes)?;
    if bytes.len() as u64 == count { Ok(bytes.into()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

impl http_body::Body for FileBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        if this.left > 0
            && let Some(tether) = this.tether.as_mut()
            && tether.is_over()
        {
            tether.tell();
            return this.fail(Cut::SessionEnded);
        }
        loop {
            match std::mem::replace(&mut this.state, State::Over) {
                State::Ready(file) if this.left > 0 => {
                    let count = this.left.min(PIECE as u64);
                    this.state = State::Reading(tokio::task::spawn_blocking(move || {
                        let bytes = read(&file, count)?;
                        Ok((file, bytes))
                    }));
                }
                State::Ready(_) | State::Over => return Poll::Ready(None),
                State::Reading(mut reading) => {
                    let Poll::Ready(read) = Pin::new(&mut reading).poll(cx) else {
                        this.state = State::Reading(reading);
                        return Poll::Pending;
                    };
                    match read {
                        Ok(Ok((file, bytes))) => {
                            this.left -= bytes.len() as u64;
                            this.state = State::Ready(file);
                            return Poll::Ready(Some(Ok(Frame::data(bytes))));
                        }
                        Ok(Err(error)) => return this.fail(error),
                        Err(error) => return this.fail(error),
                    }
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}
