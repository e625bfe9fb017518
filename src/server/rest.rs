//! A connection whose client is silent: hyper's buffers and the room for a request are given up until it speaks.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWriteExt as _, ReadBuf};
use tokio::time::timeout;

use super::clock::{Clock, Expired};
use super::connection::{Terms, Wait, drive};
use super::io::ClientIo;
use super::standing::Standing;

/// What is read when the client speaks again; hyper reads the rest.
const FIRST_BYTES: usize = 64;

/// How long the last word may take.
const GOODBYE: Duration = Duration::from_secs(1);

/// How a rest has ended.
pub(super) enum Rested {
    /// The client speaks.
    Awake(ClientIo),
    /// It speaks HTTP/2.
    Http2(ClientIo),
    /// It is gone, or the service ends.
    Over,
    /// Its time is over.
    Expired(Expired),
}

/// Rests until the client speaks, for what its idle time still has.
pub(super) fn rest(
    io: ClientIo,
    clock: &mut Clock,
    terms: &Terms,
    standing: &mut Standing,
) -> impl Future<Output = Rested> + Send {
    let activity = Arc::clone(io.activity());
    let mut resting = Resting { io: Some(io), over: false };
    async move {
        let look = |_| {
            if activity.is_http2() {
                return Wait::Over(Expired::NotHttp1);
            }
            clock.look(&activity).map_or(Wait::Long, |(deadline, expired)| Wait::Until(deadline, Some(expired)))
        };
        let is_enough = |cx: &mut Context<'_>| standing.is_lost(cx);
        match drive(&mut resting, |resting| resting.get_mut().over = true, &terms.closing, is_enough, look).await {
            Ok(Some(io)) => Rested::Awake(io),
            Err(Expired::NotHttp1) => resting.io.map_or(Rested::Over, Rested::Http2),
            Err(expired) => Rested::Expired(expired),
            Ok(None) => {
                // Boxed: it comes once.
                Box::pin(say_goodbye(resting.io)).await;
                Rested::Over
            }
        }
    }
}

/// RFC 8446 §6.1: the end of TLS is told, so that nobody takes it for an attack.
async fn say_goodbye(io: Option<ClientIo>) {
    if let Some(mut io) = io.filter(|io| !io.has_ended()) {
        // Whether the client gets it makes no difference any more.
        let _ = timeout(GOODBYE, io.shutdown()).await;
    }
}

/// Ends with the connection when there is something to read, without it at the end.
struct Resting {
    io: Option<ClientIo>,
    over: bool,
}

impl Future for Resting {
    type Output = Option<ClientIo>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<ClientIo>> {
        let this = self.get_mut();
        let Some(io) = this.io.as_mut().filter(|_| !this.over) else { return Poll::Ready(None) };
        let mut bytes = [0; FIRST_BYTES];
        let mut bytes = ReadBuf::new(&mut bytes);
        match Pin::new(&mut *io).poll_read(cx, &mut bytes) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Ok(())) if !bytes.filled().is_empty() => {
                io.keep(Bytes::copy_from_slice(bytes.filled()));
                Poll::Ready(this.io.take())
            }
            Poll::Ready(_) => Poll::Ready(None),
        }
    }
}
