//! TCP keepalive (RFC 9293 §3.8.4), on connections from clients and to applications alike: a tunnel has no clock of its own,
//! and nobody may write to it for hours, so that without a question a peer whose host vanished would be there for ever.

use std::io;
use std::time::Duration;

use socket2::{Socket, TcpKeepalive};

/// How long a peer may be silent before the kernel asks whether it is still there.
const SILENCE: Duration = Duration::from_secs(120);
/// How long the kernel waits before it asks again. How often it does so is up to the system: 9 times by Linux's own default.
const BETWEEN: Duration = Duration::from_secs(30);

/// Switches it on for a socket, and for those that it will accept.
pub(crate) fn switch_on(socket: &Socket) -> io::Result<()> {
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(SILENCE).with_interval(BETWEEN))
}

/// Whether it is switched on with our times.
#[cfg(test)]
pub(crate) fn is_on(socket: &Socket) -> bool {
    socket.keepalive().unwrap()
        && socket.tcp_keepalive_time().unwrap() == SILENCE
        && socket.tcp_keepalive_interval().unwrap() == BETWEEN
}
