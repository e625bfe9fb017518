//! A balancer in front of replicas, as simple as one can be.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::net::{TcpListener, TcpStream};

/// Brings each connection to the next replica, or to the one after it where nobody listens; until the runtime ends.
#[derive(Debug)]
pub struct Front(SocketAddr);

impl Front {
    /// Listens on `port` of 127.0.0.1.
    ///
    /// # Panics
    /// When it is taken.
    pub async fn start(port: u16, replicas: Vec<SocketAddr>) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await.expect("the port of the front");
        let address = listener.local_addr().expect("a bound address");
        tokio::spawn(async move {
            let next = AtomicUsize::new(0);
            while let Ok((mut client, _)) = listener.accept().await {
                let turn = next.fetch_add(1, Ordering::Relaxed);
                let [replica, other] = [turn, turn + 1].map(|turn| replicas[turn % replicas.len()]);
                tokio::spawn(async move {
                    let mut server = match TcpStream::connect(replica).await {
                        Ok(server) => server,
                        // Somebody else, where nobody listens.
                        Err(_) => match TcpStream::connect(other).await {
                            Ok(server) => server,
                            Err(_) => return,
                        },
                    };
                    // Either side may break off.
                    let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
                });
            }
        });
        Self(address)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.0
    }
}
