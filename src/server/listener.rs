//! Where connections come from: TCP addresses, one SO_REUSEPORT socket for each worker, and unix sockets, which the workers
//! share.

use std::fmt;
use std::fs::Permissions;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::task::{Context, Poll};

use ipnet::IpNet;
use socket2::{Domain, Protocol, SockAddr, Socket as RawSocket, Type};
use tokio::net::{TcpListener, UnixListener};

use super::stream::Socket;
use super::tls;
use crate::keepalive;

/// Connections that the kernel holds ready per socket; it may hold fewer (`net.core.somaxconn`).
const BACKLOG: i32 = 4096;
/// Whoever connects through a unix socket is on this machine.
const LOCAL_PEER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
/// Owner and group of a unix socket may connect.
pub const DEFAULT_MODE: u32 = 0o660;

/// One listener, checked.
#[derive(Debug, Clone)]
pub struct Listener {
    /// Where.
    pub address: Address,
    /// Who may connect to a unix socket, as file permissions.
    pub mode: u32,
    /// TLS; `None`: plain.
    pub tls: Option<Arc<tls::Settings>>,
    /// The peers whose connections begin with a PROXY protocol header.
    pub proxy_protocol_from: Vec<IpNet>,
}

impl Listener {
    /// A plain listener.
    pub fn plain(address: Address) -> Self {
        Self { address, mode: DEFAULT_MODE, tls: None, proxy_protocol_from: Vec::new() }
    }
}

/// Where a listener is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// An address and port.
    Tcp(SocketAddr),
    /// The file of a unix socket. Its peers count as 127.0.0.1.
    Unix(PathBuf),
}

impl Address {
    /// The address and port, where it has them.
    pub fn tcp(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(address) => Some(*address),
            Self::Unix(_) => None,
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// One worker's end of a listener, bound and not yet accepting.
#[derive(Debug)]
pub(super) enum BoundSocket {
    Tcp(std::net::TcpListener),
    Unix(Arc<SocketFile>, std::os::unix::net::UnixListener),
}

/// Binds `wanted` for every worker; gives the address with its real port.
pub(super) fn bind(wanted: &Listener, workers: NonZeroUsize) -> io::Result<(Address, Vec<BoundSocket>)> {
    match &wanted.address {
        Address::Tcp(address) => {
            let (address, sockets) = bind_tcp(*address, workers)?;
            Ok((Address::Tcp(address), sockets.into_iter().map(|socket| BoundSocket::Tcp(socket.into())).collect()))
        }
        Address::Unix(path) => Ok((wanted.address.clone(), bind_unix(path, wanted.mode, workers)?)),
    }
}

/// Binds exclusively once, so that "address in use" is told, then once more per worker with SO_REUSEPORT.
fn bind_tcp(wanted: SocketAddr, workers: NonZeroUsize) -> io::Result<(SocketAddr, Vec<RawSocket>)> {
    let first = tcp_socket(wanted)?;
    first.bind(&wanted.into())?;
    // The address is ours alone from here on, its port known; only now may our own workers join.
    let address = first.local_addr()?.as_socket().unwrap_or(wanted);
    first.set_reuse_port(true)?;
    let mut sockets = vec![first];
    for _ in 1..workers.get() {
        let next = tcp_socket(address)?;
        next.set_reuse_port(true)?;
        next.bind(&address.into())?;
        sockets.push(next);
    }
    for socket in &sockets {
        socket.listen(BACKLOG)?;
    }
    Ok((address, sockets))
}

fn tcp_socket(address: SocketAddr) -> io::Result<RawSocket> {
    let socket = RawSocket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // So that a restart need not wait for the old connections' last two minutes.
    socket.set_reuse_address(true)?;
    // Accepted sockets inherit it.
    keepalive::switch_on(&socket)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn bind_unix(path: &Path, mode: u32, workers: NonZeroUsize) -> io::Result<Vec<BoundSocket>> {
    remove_stale(path)?;
    let socket = RawSocket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SockAddr::unix(path)?)?;
    let file = Arc::new(SocketFile::of(path)?);
    // Before it listens, so that nobody gets in by the mode it was made with.
    std::fs::set_permissions(path, Permissions::from_mode(mode))?;
    socket.listen(BACKLOG)?;
    let clones = (1..workers.get()).map(|_| socket.try_clone()).collect::<io::Result<Vec<_>>>()?;
    let sockets = std::iter::once(socket).chain(clones);
    Ok(sockets.map(|socket| BoundSocket::Unix(Arc::clone(&file), socket.into())).collect())
}

/// Removes what a process that ended without a word has left: a socket that nobody listens on, and nothing else.
fn remove_stale(path: &Path) -> io::Result<()> {
    let found = match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        found => found?,
    };
    let in_use = |what: &str| io::Error::new(io::ErrorKind::AddrInUse, what);
    if !found.file_type().is_socket() {
        return Err(in_use("there is a file of that name, and it is no socket"));
    }
    match StdUnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => std::fs::remove_file(path),
        Ok(_) => Err(in_use("another process listens on that socket")),
        Err(error) => Err(error),
    }
}

/// The file of a unix socket; removed with the last worker's end, if it still is ours.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
}

impl SocketFile {
    fn of(path: &Path) -> io::Result<Self> {
        let identity = Self::identity(path)?;
        Ok(Self { path: path.to_owned(), identity })
    }

    fn identity(path: &Path) -> io::Result<(u64, u64)> {
        std::fs::symlink_metadata(path).map(|found| (found.dev(), found.ino()))
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if Self::identity(&self.path).is_ok_and(|found| found == self.identity) {
            // A file that stays is found stale by the next start.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// One worker's end of a listener, on its runtime.
#[derive(Debug)]
pub(super) enum Acceptor {
    Tcp(TcpListener),
    /// The file goes first, so that a client never finds a file that nobody listens behind.
    Unix {
        _file: Arc<SocketFile>,
        listener: UnixListener,
    },
}

impl Acceptor {
    /// Must be called on the worker's runtime.
    pub(super) fn new(socket: BoundSocket) -> io::Result<Self> {
        match socket {
            BoundSocket::Tcp(listener) => TcpListener::from_std(listener).map(Self::Tcp),
            BoundSocket::Unix(file, listener) => {
                Ok(Self::Unix { _file: file, listener: UnixListener::from_std(listener)? })
            }
        }
    }

    pub(super) fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<(Socket, SocketAddr)>> {
        match self {
            Self::Tcp(listener) => listener.poll_accept(cx).map_ok(|(stream, peer)| {
                // A socket that can't be tuned still works.
                let _ = stream.set_nodelay(true);
                (Socket::Tcp(stream), peer)
            }),
            Self::Unix { listener, .. } => {
                listener.poll_accept(cx).map_ok(|(stream, _)| (Socket::Unix(stream), LOCAL_PEER))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.sock");
        (folder, path)
    }

    const ONE: NonZeroUsize = NonZeroUsize::MIN;

    #[tokio::test]
    async fn an_accepted_connection_is_kept_alive_and_does_not_wait_for_more() {
        let (address, mut sockets) = bind_tcp(([127, 0, 0, 1], 0).into(), ONE).unwrap();
        let acceptor = Acceptor::new(BoundSocket::Tcp(sockets.remove(0).into())).unwrap();
        let _client = tokio::net::TcpStream::connect(address).await.unwrap();
        let (accepted, _) = std::future::poll_fn(|cx| acceptor.poll_accept(cx)).await.unwrap();
        let Socket::Tcp(accepted) = accepted else { panic!("a socket of TCP") };
        assert!(keepalive::is_on(&socket2::SockRef::from(&accepted)) && accepted.nodelay().unwrap());
    }

    #[test]
    fn a_stale_socket_is_replaced_and_anything_else_is_left_alone() {
        let (_folder, path) = path();
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "the file of a listener that is gone");
        let bound = bind_unix(&path, 0o600, ONE).unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let again = bind_unix(&path, 0o600, ONE).unwrap_err();
        assert_eq!(again.kind(), io::ErrorKind::AddrInUse, "it is in use by ourselves");
        drop(bound);
        assert!(!path.exists(), "removed at the end");

        std::fs::write(&path, "precious").unwrap();
        assert_eq!(bind_unix(&path, 0o600, ONE).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
    }

    #[test]
    fn a_successors_file_is_not_removed() {
        let (_folder, path) = path();
        let bound = bind_unix(&path, 0o600, ONE).unwrap();
        let moved = path.with_extension("old");
        std::fs::rename(&path, moved).unwrap();
        let successor = bind_unix(&path, 0o600, ONE).unwrap();
        drop(bound);
        assert!(path.exists());
        drop(successor);
        assert!(!path.exists());
    }
}
