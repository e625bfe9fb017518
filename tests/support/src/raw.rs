//! Bytes on a socket, for requests that no HTTP client would send.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};

/// How long a silent connection is taken to have said everything, once it has said something.
const QUIET: Duration = Duration::from_millis(400);

/// Sends `bytes` and returns everything that comes back until the connection ends, falls silent after an answer, or ten
/// seconds are over.
pub async fn raw_request(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    raw_request_within(address, bytes, Duration::from_secs(10)).await
}

/// As [`raw_request`] with a deadline of its own. A connection that is reset returns what came before.
pub async fn raw_request_within(address: SocketAddr, bytes: &[u8], deadline: Duration) -> Vec<u8> {
    let end = Instant::now() + deadline;
    let mut stream = timeout_at(end, TcpStream::connect(address))
        .await
        .unwrap_or_else(|_| panic!("no connection to {address} in time"))
        .unwrap_or_else(|error| panic!("no connection to {address}: {error}"));
    // The other side may refuse and close before it has read everything: its answer counts, not our write error.
    let _ = timeout_at(end, stream.write_all(bytes)).await;
    let mut answer = Vec::new();
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let patience = if answer.is_empty() { left } else { left.min(QUIET) };
        match timeout(patience, stream.read(&mut buffer)).await {
            Ok(Ok(count)) if count > 0 => answer.extend_from_slice(&buffer[..count]),
            _ => return answer,
        }
    }
}
