//! Where an instance of an upstream is, and the way there.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use socket2::SockRef;
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Instant, timeout_at};

use super::UpstreamError;
use super::socket::Stream;
use crate::keepalive;

/// Where an upstream listens, as it is configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A name or an IP address (without brackets), and a port.
    Host {
        /// A name stands for all its addresses, and is resolved again and again while it is used.
        host: String,
        /// The port.
        port: u16,
    },
    /// A socket in the file system.
    Unix(PathBuf),
}

impl Place {
    /// As it is written in the configuration, `tls` for https.
    pub fn url(&self, tls: bool) -> String {
        let scheme = if tls { "https" } else { "http" };
        match self {
            Self::Host { host, port } if host.contains(':') => format!("{scheme}://[{host}]:{port}"),
            Self::Host { host, port } => format!("{scheme}://{host}:{port}"),
            Self::Unix(path) => format!("unix:{}", path.display()),
        }
    }
}

/// One address: what a connection is made to, with no name left to resolve.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Address {
    /// A TCP port.
    Tcp(SocketAddr),
    /// A socket in the file system.
    Unix(PathBuf),
}

impl Address {
    /// Whether it is IPv6.
    pub(super) fn is_v6(&self) -> bool {
        matches!(self, Self::Tcp(address) if address.is_ipv6())
    }

    /// What stands in `Host` where nobody else says.
    pub(super) fn authority(&self) -> String {
        match self {
            Self::Tcp(address) => address.to_string(),
            Self::Unix(_) => "localhost".to_owned(),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(formatter),
            Self::Unix(path) => write!(formatter, "unix:{}", path.display()),
        }
    }
}

/// Connects; what a kernel gives up on in its own time counts as [`UpstreamError::ConnectTimeout`] too.
pub(super) async fn dial(address: &Address, deadline: Instant) -> Result<Stream, UpstreamError> {
    let connecting = async {
        match address {
            Address::Tcp(address) => {
                let stream = TcpStream::connect(address).await?;
                // A socket that can't be tuned still works.
                let _ = stream.set_nodelay(true);
                let _ = keepalive::switch_on(&SockRef::from(&stream));
                io::Result::Ok(Stream::Tcp(stream))
            }
            Address::Unix(path) => Ok(Stream::Unix(UnixStream::connect(path).await?)),
        }
    };
    match timeout_at(deadline, connecting).await {
        Ok(Err(error)) if error.kind() == io::ErrorKind::TimedOut => Err(UpstreamError::ConnectTimeout),
        Ok(outcome) => outcome.map_err(UpstreamError::Connect),
        Err(_) => Err(UpstreamError::ConnectTimeout),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn a_dialled_connection_is_kept_alive_and_does_not_wait_for_more() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = Address::Tcp(listener.local_addr().unwrap());
        let dialled = dial(&address, Instant::now() + Duration::from_secs(5)).await.unwrap();
        let Stream::Tcp(dialled) = dialled else { panic!("a socket of TCP") };
        assert!(keepalive::is_on(&SockRef::from(&dialled)) && dialled.nodelay().unwrap());
    }
}
