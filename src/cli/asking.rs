//! One request to a running proxy's admin listener.

use std::error::Error;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, HOST, HeaderValue};
use http::{Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Empty, Limited};
use vestibule::secret::SecretString;

/// The largest answer: a page of sessions has a tenth of it.
const LARGEST: usize = 4 << 20;

/// An address to connect to: a listener on every address is asked on loopback.
pub(super) fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(if address.is_ipv4() { [127, 0, 0, 1].into() } else { std::net::Ipv6Addr::LOCALHOST.into() });
    }
    address
}

/// An http URL, which is all that an admin listener speaks.
pub(super) fn http_uri(text: &str) -> Option<Uri> {
    text.parse::<Uri>().ok().filter(|uri| uri.scheme_str() == Some("http") && uri.authority().is_some())
}

/// Status and body of the answer.
pub(super) fn ask(
    method: Method,
    uri: &Uri,
    token: Option<&SecretString>,
    deadline: Duration,
) -> Result<(StatusCode, Bytes), Box<dyn Error>> {
    let authority = uri.authority().ok_or("the URL has no host")?.clone();
    let host = authority.host().trim_matches(['[', ']']).to_owned();
    let port = authority.port_u16().unwrap_or(80);
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let mut request = Request::builder().method(method).uri(path).header(HOST, authority.as_str());
    if let Some(token) = token {
        let mut value = HeaderValue::try_from(format!("Bearer {}", token.expose_secret()))?;
        value.set_sensitive(true);
        request = request.header(AUTHORIZATION, value);
    }
    let request = request.body(Empty::<Bytes>::new())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let answer = async {
            let stream = tokio::net::TcpStream::connect((host.as_str(), port)).await?;
            let stream = hyper_util::rt::TokioIo::new(stream);
            let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await?;
            let connection = tokio::spawn(connection);
            let (head, body) = sender.send_request(request).await?.into_parts();
            let body = Limited::new(body, LARGEST).collect().await.map_err(|error| error as Box<dyn Error>)?.to_bytes();
            connection.abort();
            Ok::<_, Box<dyn Error>>((head.status, body))
        };
        let late = || format!("no answer within {} s", deadline.as_secs());
        tokio::time::timeout(deadline, answer).await.map_err(|_| late())?
    })
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};

    use super::*;

    #[test]
    fn a_listener_on_every_address_is_asked_on_loopback() {
        assert_eq!(reachable(([0, 0, 0, 0], 9090).into()).to_string(), "127.0.0.1:9090");
        assert_eq!(reachable("[::]:9090".parse().unwrap()).to_string(), "[::1]:9090");
        assert_eq!(reachable("10.0.0.1:9090".parse().unwrap()).to_string(), "10.0.0.1:9090");
    }

    #[test]
    fn one_question_gets_one_answer() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut head = [0; 1024];
            let read = stream.read(&mut head).unwrap();
            stream.write_all(b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 4\r\n\r\nbody").unwrap();
            String::from_utf8_lossy(&head[..read]).into_owned()
        });
        let uri = http_uri(&format!("http://{address}/readyz")).unwrap();
        let token = SecretString::new("t0ken".to_owned());
        let (status, body) = ask(Method::GET, &uri, Some(&token), Duration::from_secs(5)).unwrap();
        assert_eq!((status, &body[..]), (StatusCode::SERVICE_UNAVAILABLE, &b"body"[..]));
        let head = server.join().unwrap();
        assert!(head.starts_with("GET /readyz HTTP/1.1\r\n") && head.contains("authorization: Bearer t0ken"), "{head}");
        assert!(ask(Method::GET, &uri, None, Duration::from_secs(5)).is_err());
        for other in ["https://127.0.0.1/", "127.0.0.1:9090", "/readyz", "ftp://x/"] {
            assert!(http_uri(other).is_none(), "{other}");
        }
    }
}
