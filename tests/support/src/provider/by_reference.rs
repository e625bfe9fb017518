//! Authorization requests that the fake provider fetches (RFC 9101 §5.2, Core §6.2), written from the specification.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use url::Url;

use super::ProviderRequest;
use super::faults::Endpoint;

/// The object that a request refers to, or why there is none; `None` where it refers to none of the client's.
pub(super) async fn fetched(
    request: &ProviderRequest,
    from: Option<SocketAddr>,
) -> Option<Result<String, &'static str>> {
    let reference = request.query_value("request_uri").filter(|_| request.endpoint == Endpoint::Authorize)?;
    let url = Url::parse(&reference).ok().filter(|url| url.scheme() == "http")?;
    if reference.len() > 512 || !reference.is_ascii() {
        return Some(Err("a reference of more than 512 ASCII characters"));
    }
    Some(tokio::time::timeout(Duration::from_secs(5), fetch(&url, from)).await.unwrap_or(Err("nobody answers")))
}

async fn fetch(url: &Url, from: Option<SocketAddr>) -> Result<String, &'static str> {
    let port = url.port().unwrap_or(80);
    let address = from.unwrap_or(SocketAddr::from(([127, 0, 0, 1], port)));
    let host = url.host_str().unwrap_or_default();
    let request =
        format!("GET {} HTTP/1.1\r\nhost: {host}:{port}\r\naccept: */*\r\nconnection: close\r\n\r\n", url.path());
    let answer = async {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok::<_, std::io::Error>(answer)
    };
    let answer = answer.await.map_err(|_| "nobody answers at the reference")?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or("no answer at the reference")?;
    let head = head.to_ascii_lowercase();
    let has = |line: &str| head.lines().any(|one| one == line);
    // RFC 9101 §5.2.3 and §9.4.1.
    if !head.starts_with("http/1.1 200 ") || !has("content-type: application/oauth-authz-req+jwt") {
        return Err("no request object at the reference");
    }
    if has("cache-control: no-store") { Ok(body.to_owned()) } else { Err("a request object for everybody's cache") }
}
