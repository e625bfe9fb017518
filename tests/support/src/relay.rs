//! A wire to somebody else that a test makes slow, cuts and mends.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

use crate::listener::Listener;

/// Passes everything on, both ways, from a port of its own.
#[derive(Debug)]
pub struct Relay {
    listener: Listener,
    target: SocketAddr,
    /// Milliseconds for which each piece of an answer is held.
    delay: Arc<AtomicU64>,
}

impl Relay {
    /// To `target`, without a delay.
    pub fn to(target: SocketAddr) -> Self {
        let relay = Self { listener: Listener::reserve(), target, delay: Arc::default() };
        relay.mend();
        relay
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.listener.address()
    }

    /// Holds each piece of an answer for so long from now on, one after the other.
    pub fn slow_down(&self, delay: Duration) {
        self.delay.store(u64::try_from(delay.as_millis()).expect("a short delay"), Ordering::SeqCst);
    }

    /// Cuts every connection and refuses new ones.
    pub fn cut(&self) {
        self.listener.refuse();
    }

    /// Passes everything on again, at once; connections of before are cut.
    pub fn mend(&self) {
        self.slow_down(Duration::ZERO);
        let (target, delay) = (self.target, Arc::clone(&self.delay));
        self.listener.hand_over(move |client| pass_on(client, target, Arc::clone(&delay)));
    }
}

async fn pass_on(client: TcpStream, target: SocketAddr, delay: Arc<AtomicU64>) {
    // Nobody there is the end of this connection too.
    let Ok(server) = TcpStream::connect(target).await else { return };
    let _ = server.set_nodelay(true);
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    tokio::join!(carry(from_client, to_server, Arc::default()), carry(from_server, to_client, delay));
}

/// Until either side breaks off.
async fn carry(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, delay: Arc<AtomicU64>) {
    let mut piece = vec![0; 16 * 1024];
    while let Ok(count @ 1..) = from.read(&mut piece).await {
        tokio::time::sleep(Duration::from_millis(delay.load(Ordering::SeqCst))).await;
        if to.write_all(&piece[..count]).await.is_err() {
            return;
        }
    }
}
