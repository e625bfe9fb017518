//! The PROXY protocol, versions 1 and 2: a few bytes before everything else in which a balancer tells whose connection it
//! passes on. Read exactly to its end, so that no byte of what follows is lost.

use std::io;
use std::net::{IpAddr, SocketAddr};

use ppp::{v1, v2};
use tokio::io::{AsyncRead, AsyncReadExt};

/// A version 1 line with its CR LF, at most (specification §2.1).
const V1_LONGEST: usize = 107;
/// What a version 2 header may carry behind its first 16 bytes. Addresses take up to 216; the rest is for others.
const V2_LONGEST: usize = 4096;

/// Why there is no header to be had.
#[derive(Debug, thiserror::Error)]
pub(super) enum HeaderError {
    /// The connection ended before its first byte: a balancer's look at the port.
    #[error("the connection ended before its first byte")]
    Nothing,
    /// The first bytes are none of a header's.
    #[error("the connection does not begin with a PROXY protocol header")]
    Missing,
    /// It begins like a header and is none.
    #[error("the PROXY protocol header is malformed")]
    Malformed,
    /// More than a header may have.
    #[error("the PROXY protocol header is too long")]
    TooLong,
    /// It broke off.
    #[error("the connection broke off within the PROXY protocol header")]
    Broken(#[source] io::Error),
}

/// Reads a header; gives the address it tells, or `None` where it tells none (LOCAL, UNKNOWN, UNSPEC, unix sockets), so that
/// the socket's own address counts.
pub(super) async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Result<Option<SocketAddr>, HeaderError> {
    // As long as the signature of version 2, and shorter than any line of version 1.
    let mut header = vec![0; v2::PROTOCOL_PREFIX.len()];
    let first = stream.read(&mut header).await.map_err(HeaderError::Broken)?;
    if first == 0 {
        return Err(HeaderError::Nothing);
    }
    let length = header.len();
    // What cannot become a header is told at once, not when its sender gives up waiting for us.
    if !may_begin(&header[..first]) {
        return Err(HeaderError::Missing);
    }
    fill(stream, &mut header[first..length]).await?;
    if header == v2::PROTOCOL_PREFIX {
        version_2(stream, header).await
    } else if header.starts_with(v1::PROTOCOL_PREFIX.as_bytes()) {
        version_1(stream, header).await
    } else {
        Err(HeaderError::Missing)
    }
}

fn may_begin(bytes: &[u8]) -> bool {
    let begins = |prefix: &[u8]| bytes.iter().zip(prefix).all(|(one, other)| one == other);
    begins(v2::PROTOCOL_PREFIX) || begins(v1::PROTOCOL_PREFIX.as_bytes())
}

async fn fill(stream: &mut (impl AsyncRead + Unpin), bytes: &mut [u8]) -> Result<(), HeaderError> {
    stream.read_exact(bytes).await.map_err(HeaderError::Broken)?;
    Ok(())
}

async fn version_1(
    stream: &mut (impl AsyncRead + Unpin),
    mut line: Vec<u8>,
) -> Result<Option<SocketAddr>, HeaderError> {
    while !line.ends_with(b"\r\n") {
        // Never more than what has to come: the line ends in CR LF.
        let missing = if line.ends_with(b"\r") { 1 } else { 2 };
        if line.len() + missing > V1_LONGEST {
            return Err(HeaderError::TooLong);
        }
        let known = line.len();
        line.resize(known + missing, 0);
        fill(stream, &mut line[known..]).await?;
        // A line that ends otherwise would let the next read run over it.
        let bare = |pair: &[u8]| (pair[0] == b'\r') != (pair[1] == b'\n');
        if line.windows(2).any(bare) {
            return Err(HeaderError::Malformed);
        }
    }
    let header = v1::Header::try_from(line.as_slice()).map_err(|_| HeaderError::Malformed)?;
    Ok(match header.addresses {
        v1::Addresses::Unknown => None,
        v1::Addresses::Tcp4(ip) => Some(SocketAddr::new(IpAddr::V4(ip.source_address), ip.source_port)),
        v1::Addresses::Tcp6(ip) => Some(SocketAddr::new(IpAddr::V6(ip.source_address), ip.source_port)),
    })
}

async fn version_2(
    stream: &mut (impl AsyncRead + Unpin),
    mut header: Vec<u8>,
) -> Result<Option<SocketAddr>, HeaderError> {
    let mut rest = [0; 4];
    fill(stream, &mut rest).await?;
    let length = usize::from(u16::from_be_bytes([rest[2], rest[3]]));
    if length > V2_LONGEST {
        return Err(HeaderError::TooLong);
    }
    header.extend_from_slice(&rest);
    let known = header.len();
    header.resize(known + length, 0);
    fill(stream, &mut header[known..]).await?;
    // What stands behind the addresses (TLVs) is nobody's business here and is not looked at.
    let header = v2::Header::try_from(header.as_slice()).map_err(|_| HeaderError::Malformed)?;
    match (header.command, header.protocol, header.addresses) {
        // §2.2: the sender speaks for itself, whatever addresses stand there.
        (v2::Command::Local, _, _) => Ok(None),
        (v2::Command::Proxy, v2::Protocol::Datagram, _) => Err(HeaderError::Malformed),
        (v2::Command::Proxy, _, v2::Addresses::IPv4(ip)) => {
            Ok(Some(SocketAddr::new(IpAddr::V4(ip.source_address), ip.source_port)))
        }
        (v2::Command::Proxy, _, v2::Addresses::IPv6(ip)) => {
            Ok(Some(SocketAddr::new(IpAddr::V6(ip.source_address), ip.source_port)))
        }
        (v2::Command::Proxy, _, v2::Addresses::Unspecified | v2::Addresses::Unix(_)) => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What `bytes` read as, and what is left behind them.
    fn read_all(bytes: &[u8]) -> (Result<Option<SocketAddr>, HeaderError>, Vec<u8>) {
        let mut rest = bytes;
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let read = runtime.block_on(read(&mut rest));
        (read, rest.to_vec())
    }

    fn binary(command: u8, family: u8, addresses: &[u8], tlvs: &[u8]) -> Vec<u8> {
        let mut header = v2::PROTOCOL_PREFIX.to_vec();
        header.extend([0x20 | command, family]);
        header.extend(u16::try_from(addresses.len() + tlvs.len()).unwrap().to_be_bytes());
        header.extend(addresses);
        header.extend(tlvs);
        header
    }

    const V4: [u8; 12] = [198, 51, 100, 7, 10, 0, 0, 1, 0x12, 0x34, 1, 187];

    #[test]
    fn headers_tell_an_address_or_none_and_swallow_nothing_behind_them() {
        let mut v6 = vec![0x20, 1, 0xd, 0xb8];
        v6.resize(15, 0);
        v6.push(5);
        v6.extend([0; 16]);
        v6.extend([0, 80, 1, 187]);
        let table: Vec<(Vec<u8>, Option<&str>)> = vec![
            (b"PROXY TCP4 198.51.100.7 10.0.0.1 4660 443\r\n".to_vec(), Some("198.51.100.7:4660")),
            (b"PROXY TCP4 1.1.1.1 1.1.1.1 1 1\r\n".to_vec(), Some("1.1.1.1:1")),
            (b"PROXY TCP6 2001:db8::5 ::1 80 443\r\n".to_vec(), Some("[2001:db8::5]:80")),
            (b"PROXY UNKNOWN\r\n".to_vec(), None),
            (b"PROXY UNKNOWN ffff:f...f:ffff ffff 65535 65535\r\n".to_vec(), None),
            (binary(1, 0x11, &V4, b""), Some("198.51.100.7:4660")),
            // An authority that is not UTF-8, and a TLV that runs over the end.
            (binary(1, 0x11, &V4, b"\x02\x00\x02\xff\xfe\x01\xff\xff"), Some("198.51.100.7:4660")),
            (binary(1, 0x21, &v6, b""), Some("[2001:db8::5]:80")),
            (binary(0, 0x11, &V4, b""), None),
            (binary(0, 0x00, b"", b""), None),
            (binary(1, 0x00, b"", b""), None),
            (binary(1, 0x31, &[0; 216], b""), None),
        ];
        for (header, told) in table {
            for behind in [&b""[..], b"G", b"\r\n", b"\n", b"GET / HTTP/1.1\r\n\r\n"] {
                let (read, rest) = read_all(&[&header, behind].concat());
                assert_eq!(read.unwrap().map(|address| address.to_string()).as_deref(), told, "{header:?}");
                assert_eq!(rest, behind, "{header:?}");
            }
        }
    }

    #[test]
    fn what_is_no_header_is_refused() {
        type Kind = fn(&HeaderError) -> bool;
        let missing: Kind = |error| matches!(error, HeaderError::Missing);
        let malformed: Kind = |error| matches!(error, HeaderError::Malformed);
        let too_long: Kind = |error| matches!(error, HeaderError::TooLong);
        let broken: Kind = |error| matches!(error, HeaderError::Broken(_));
        let mut huge = binary(0, 0, b"", b"");
        huge[14..16].copy_from_slice(&[0xff, 0xff]);
        let table: Vec<(Vec<u8>, Kind)> = vec![
            (b"GET / HTTP/1.1\r\nhost: a\r\n\r\n".to_vec(), missing),
            (b"G".to_vec(), missing),
            (b"\x16\x03\x01\x02\x00".to_vec(), missing),
            (b"proxy TCP4 1.1.1.1 1.1.1.1 1 1\r\n".to_vec(), missing),
            (b"PROXY TCP4 1.1.1.1 1.1.1.1 1 1\nGET / HTTP/1.1\r\n".to_vec(), malformed),
            (b"PROXY TCP4 1.1.1.1 1.1.1.1 1 1\rGET / HTTP/1.1\r\n".to_vec(), malformed),
            (b"PROXY TCP4 1.1.1.1 1.1.1.1 1 99999\r\n".to_vec(), malformed),
            (b"PROXY TCP4 1.1.1 1.1.1.1 1 1\r\n".to_vec(), malformed),
            (b"PROXY TCP4 ::1 ::1 1 1\r\n".to_vec(), malformed),
            (b"PROXY TCP4 \xff\xfe 1.1.1.1 1 1\r\n".to_vec(), malformed),
            ([b"PROXY UNKNOWN ".to_vec(), vec![b'x'; 200], b"\r\n".to_vec()].concat(), too_long),
            (huge, too_long),
            (binary(2, 0x11, &V4, b""), malformed),
            (binary(1, 0x12, &V4, b""), malformed),
            (binary(1, 0x11, &V4[..6], b""), malformed),
            (binary(1, 0x11, &V4, b"")[..20].to_vec(), broken),
            (b"PROXY TCP4 1.1.1.1 1.1".to_vec(), broken),
        ];
        for (bytes, is_kind) in table {
            let error = read_all(&bytes).0.unwrap_err();
            assert!(is_kind(&error), "{bytes:?}: {error:?}");
        }
        assert!(matches!(read_all(b"").0, Err(HeaderError::Nothing)));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic_and_a_header_never_takes_more_than_itself(
            start in proptest::sample::select(vec![&b""[..], b"PROXY ", b"PROXY TCP4 1.1.1.1 2.2.2.2 1 2", v2::PROTOCOL_PREFIX]),
            rest in proptest::collection::vec(any::<u8>(), 0..300),
        ) {
            let _ = read_all(&[start, &rest].concat());
        }
    }
}
