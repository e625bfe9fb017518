//! What stands between an accepted socket and its first request: the PROXY protocol's header, then TLS.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use rustls::CertificateError;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::proxy_protocol::{self, HeaderError};
use super::standing::{self, Judge, Standing};
use super::stream::{Protocol, Socket, Stream};
use super::tls::{self, Tls};
use crate::message::forwarded::is_within;
use crate::message::{ClientCertificate, Connection, Scheme};

/// What a client gets to read that speaks plain HTTP where TLS is expected.
const SPEAK_TLS: &[u8] = b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nContent-Length: 34\r\nConnection: close\r\n\r\nThis port speaks TLS: use https://";
/// How long such a client may take to read it.
const LINGER: Duration = Duration::from_secs(1);

/// One listener's way in.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) proxy_protocol_from: Vec<IpNet>,
    pub(super) tls: Option<Arc<Tls>>,
    /// For all of it together.
    pub(super) time_limit: Duration,
}

/// A connection that is let in.
pub(super) struct Passed {
    pub(super) stream: Stream,
    pub(super) connection: Connection,
    pub(super) protocol: Protocol,
    pub(super) standing: Standing,
}

impl Passed {
    /// A connection from `peer` without TLS: its first bytes tell what is spoken.
    pub(super) fn plain(socket: Socket, peer: SocketAddr) -> Self {
        let connection = Connection::new(peer, Scheme::Http);
        Self { stream: Stream::Plain(socket), connection, protocol: Protocol::Any, standing: Standing::lasting() }
    }
}

/// Why a connection ends before its first request.
#[derive(Debug, thiserror::Error)]
pub(super) enum TurnedAway {
    #[error("the connection ended before its first byte")]
    Silent,
    #[error(transparent)]
    Header(HeaderError),
    #[error("the PROXY protocol header did not end in time")]
    HeaderTimeout,
    #[error("plain HTTP on a port that speaks TLS")]
    PlainHttp,
    #[error("the TLS handshake failed")]
    Handshake(#[source] io::Error),
    #[error("the TLS handshake did not end in time")]
    HandshakeTimeout,
    #[error("the client has no certificate, and one is required")]
    CertificateMissing,
    #[error("the client's certificate is not accepted")]
    CertificateInvalid(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl TurnedAway {
    /// The reason code for log and metrics; `None` where nothing happened worth telling.
    pub(super) fn code(&self) -> Option<&'static str> {
        Some(match self {
            Self::Silent => return None,
            Self::Header(_) => "proxy_header_invalid",
            Self::HeaderTimeout => "proxy_header_timeout",
            Self::PlainHttp => "plain_http_on_tls",
            Self::Handshake(_) => "tls_handshake_failed",
            Self::HandshakeTimeout => "tls_handshake_timeout",
            Self::CertificateMissing => "client_certificate_missing",
            Self::CertificateInvalid(_) => "client_certificate_invalid",
        })
    }
}

impl Entry {
    /// Whether a connection's first byte is its first request's.
    pub(super) fn is_open(&self) -> bool {
        self.proxy_protocol_from.is_empty() && self.tls.is_none()
    }

    /// Whether this peer tells first whom it speaks for. Anybody else's header is not read: to the parser of requests it is a
    /// broken one.
    pub(super) fn is_balancer(&self, peer: SocketAddr) -> bool {
        is_within(peer.ip().to_canonical(), &self.proxy_protocol_from)
    }

    /// Lets a connection in. Where a balancer tells its client, `peer` is that from then on, however this ends.
    pub(super) async fn pass(&self, mut socket: Socket, peer: &mut SocketAddr) -> Result<Passed, TurnedAway> {
        let deadline = Instant::now() + self.time_limit;
        if self.is_balancer(*peer) {
            let header = timeout_at(deadline, proxy_protocol::read(&mut socket)).await;
            *peer = match header.map_err(|_| TurnedAway::HeaderTimeout)? {
                Ok(told) => told.unwrap_or(*peer),
                Err(HeaderError::Nothing) => return Err(TurnedAway::Silent),
                Err(error) => return Err(TurnedAway::Header(error)),
            };
        }
        let Some(tls) = &self.tls else { return Ok(Passed::plain(socket, *peer)) };
        let begun = timeout_at(deadline, first_byte(&socket)).await.map_err(|_| TurnedAway::HandshakeTimeout)?;
        match begun {
            Ok(Some(byte)) if byte.is_ascii_alphabetic() => {
                tell_to_speak_tls(socket).await;
                return Err(TurnedAway::PlainHttp);
            }
            Ok(Some(_)) => {}
            Ok(None) => return Err(TurnedAway::Silent),
            Err(error) => return Err(TurnedAway::Handshake(error)),
        }
        // Asked for first, so that no change is missed between the two.
        let judges = tls.judge();
        let handshake = timeout_at(deadline, TlsAcceptor::from(tls.config()).accept(socket)).await;
        let stream = handshake.map_err(|_| TurnedAway::HandshakeTimeout)?.map_err(judge)?;
        let certificate = certificate(&stream, tls, judges.as_ref());
        let certificate = certificate.map_err(|error| TurnedAway::CertificateInvalid(error.into()))?;
        let protocol = match stream.get_ref().1.alpn_protocol() {
            // RFC 8737 §3: the handshake was the answer, and nothing follows it.
            Some(tls::PROOF_PROTOCOL) => return Err(TurnedAway::Silent),
            Some(b"h2") => Protocol::Http2,
            Some(_) => Protocol::Http1,
            None => Protocol::Any,
        };
        let standing = match certificate.clone().zip(judges) {
            Some((certificate, judges)) => Standing::by_certificate(certificate, judges),
            None => Standing::lasting(),
        };
        let connection = Connection::new(*peer, Scheme::Https).with_certificate(certificate);
        Ok(Passed { stream: Stream::Tls(Box::new(stream)), connection, protocol, standing })
    }
}

/// The first byte, which stays where it is; `None` at the end, and a handshake's where the system cannot look without reading.
async fn first_byte(socket: &Socket) -> io::Result<Option<u8>> {
    const HANDSHAKE: u8 = 0x16;
    match socket {
        Socket::Tcp(socket) => {
            let mut byte = [0];
            Ok((socket.peek(&mut byte).await? > 0).then_some(byte[0]))
        }
        Socket::Unix(_) => Ok(Some(HANDSHAKE)),
    }
}

async fn tell_to_speak_tls(mut socket: Socket) {
    let tell = async {
        socket.write_all(SPEAK_TLS).await?;
        socket.shutdown().await?;
        // RFC 9112 §9.6: closed with bytes unread, the socket would take the answer back.
        let mut scrap = [0; 1024];
        while socket.read(&mut scrap).await? > 0 {}
        Ok::<_, io::Error>(())
    };
    // Whether it got it makes no difference any more.
    let _ = timeout(LINGER, tell).await;
}

fn judge(error: io::Error) -> TurnedAway {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::NoCertificatesPresented) => TurnedAway::CertificateMissing,
        Some(rustls::Error::InvalidCertificate(why)) => TurnedAway::CertificateInvalid(explained(why).into()),
        Some(rustls::Error::InvalidCertRevocationList(why)) => {
            TurnedAway::CertificateInvalid(format!("a list in client_crl_file cannot be believed: {why:?}").into())
        }
        _ => TurnedAway::Handshake(error),
    }
}

fn explained(why: &CertificateError) -> String {
    match why {
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "it was not signed by a CA in client_ca_file".to_owned()
        }
        CertificateError::Revoked => "it is revoked: a list in client_crl_file names it".to_owned(),
        CertificateError::UnknownRevocationStatus => {
            "no list in client_crl_file is of the CA that signed it, or of a CA above that one".to_owned()
        }
        CertificateError::ExpiredRevocationList | CertificateError::ExpiredRevocationListContext { .. } => {
            "the list in client_crl_file that would tell of it has expired; put the next one in its place".to_owned()
        }
        other => other.to_string(),
    }
}

/// What the client has shown; rustls has verified it. Without those who judge, nobody was asked for one.
fn certificate(
    stream: &TlsStream<Socket>,
    tls: &Tls,
    judges: Option<&watch::Receiver<Judge>>,
) -> Result<Option<Arc<ClientCertificate>>, tls::UnreadableCertificate> {
    let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
    let (Some(leaf), Some(judges)) = (chain.first(), judges) else { return Ok(None) };
    let headers = tls::read_client_certificate(leaf, tls.headers())?;
    let chain = chain.iter().map(|one| one.clone().into_owned()).collect();
    Ok(Some(Arc::new(ClientCertificate::new(headers, standing::is_refused(chain, judges.clone())))))
}
