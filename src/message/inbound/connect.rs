//! Extended CONNECT (RFC 8441): what HTTP/2 says instead of an upgrade, brought into the form that HTTP/1.1 has for it, so
//! that everything behind reads one form.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{CONNECTION, HeaderValue, SEC_WEBSOCKET_KEY, UPGRADE};
use http::{Method, Request, Version};
use hyper::ext::Protocol;

use super::Malformed;
use crate::message::headers::is_token;

/// The protocol of an extended CONNECT, in lower case; `None` for every other request.
///
/// # Errors
/// [`Malformed::UpgradeInvalid`] where it could not stand in `Upgrade` as one protocol (RFC 9110 §7.8).
pub(super) fn protocol<B>(request: &Request<B>) -> Result<Option<HeaderValue>, Malformed> {
    let asked = request.extensions().get::<Protocol>().filter(|_| request.method() == Method::CONNECT);
    let Some(protocol) = asked.map(Protocol::as_str) else { return Ok(None) };
    if protocol.is_empty() || !protocol.bytes().all(is_of_a_protocol) {
        return Err(Malformed::UpgradeInvalid);
    }
    HeaderValue::try_from(protocol.to_ascii_lowercase()).map(Some).map_err(|_| Malformed::UpgradeInvalid)
}

/// Makes of it the GET that asks for the same in HTTP/1.1.
pub(super) fn into_upgrade<B>(request: &mut Request<B>, protocol: HeaderValue) -> Result<(), Malformed> {
    *request.method_mut() = Method::GET;
    *request.version_mut() = Version::HTTP_11;
    let headers = request.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    // RFC 8441 §5: there is no key in HTTP/2, so that whatever came under its name is nobody's.
    headers.remove(SEC_WEBSOCKET_KEY);
    if protocol.as_bytes() == b"websocket" {
        headers.insert(SEC_WEBSOCKET_KEY, fresh_key()?);
    }
    headers.insert(UPGRADE, protocol);
    Ok(())
}

/// RFC 6455 §4.1: sixteen random bytes.
fn fresh_key() -> Result<HeaderValue, Malformed> {
    let mut nonce = [0; 16];
    aws_lc_rs::rand::fill(&mut nonce).map_err(|_| Malformed::UpgradeInvalid)?;
    HeaderValue::try_from(STANDARD.encode(nonce)).map_err(|_| Malformed::UpgradeInvalid)
}

/// A character of `token ["/" token]`.
fn is_of_a_protocol(byte: u8) -> bool {
    byte == b'/' || is_token(byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(protocol: &'static str) -> Request<()> {
        let request = Request::builder().method("CONNECT").version(Version::HTTP_2).uri("https://a/chat");
        request.extension(Protocol::from_static(protocol)).header("sec-websocket-key", "theirs").body(()).unwrap()
    }

    #[test]
    fn it_becomes_an_upgrade_with_a_key_of_ours() {
        let mut request = request("WebSocket");
        let protocol = protocol(&request).unwrap().unwrap();
        into_upgrade(&mut request, protocol).unwrap();
        assert_eq!((request.method(), request.version()), (&Method::GET, Version::HTTP_11));
        assert!(request.headers()["upgrade"] == "websocket" && request.headers()["connection"] == "upgrade");
        let key = STANDARD.decode(&request.headers()["sec-websocket-key"]).unwrap();
        assert_eq!(key.len(), 16);
        assert_ne!(fresh_key().unwrap(), fresh_key().unwrap());
    }

    #[test]
    fn other_protocols_have_no_key_and_one_name() {
        let mut other = request("tcp/1");
        let name = protocol(&other).unwrap().unwrap();
        into_upgrade(&mut other, name).unwrap();
        assert!(other.headers()["upgrade"] == "tcp/1" && !other.headers().contains_key("sec-websocket-key"));
        for broken in ["", "websocket, h2c", "a b", "a\"b"] {
            assert_eq!(protocol(&request(broken)), Err(Malformed::UpgradeInvalid), "{broken}");
        }
        let plain = Request::builder().method("CONNECT").uri("a:80").body(()).unwrap();
        assert_eq!(protocol(&plain), Ok(None));
    }
}
