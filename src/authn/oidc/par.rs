//! Pushed authorization requests (RFC 9126): the request goes to the provider by us, and the browser carries no more than a
//! reference to it.

use bytes::Bytes;
use http::{Response, StatusCode};
use openidconnect::HttpRequest;
use serde_json::Value;
use url::Url;

use super::grant::form;
use super::jose::json_object;
use super::token_endpoint::{TokenError, oauth_error};
use crate::provider_http::{ProviderHttpError, WrongMediaType, check_json};

/// Why a request was not pushed.
#[derive(Debug, thiserror::Error)]
pub enum PushError {
    /// The call failed.
    #[error("the authorization request could not be pushed")]
    Http(#[source] ProviderHttpError),
    /// It was not even sent: too many calls wait, or we cannot say who we are.
    #[error("the authorization request was not pushed")]
    Unsent(#[source] TokenError),
    /// An OAuth error (§2.3). The description is for the log only.
    #[error("the provider refused the pushed authorization request with {error:?}")]
    Refused {
        /// The `error` code, cut to 64 characters.
        error: String,
        /// The `error_description`, cut to 256 characters.
        description: Option<String>,
    },
    /// A status that is neither success nor an OAuth error.
    #[error("the provider answered the pushed authorization request with status {0}")]
    Status(u16),
    /// A success that is not JSON by its content type.
    #[error("the answer to the pushed authorization request cannot be read")]
    MediaType(#[from] WrongMediaType),
    /// A success that is none.
    #[error("the {field} of the answer to the pushed authorization request is missing or unusable")]
    Response {
        /// What is wrong with it.
        field: &'static str,
    },
}

impl From<TokenError> for PushError {
    fn from(error: TokenError) -> Self {
        match error {
            TokenError::Http(error) => Self::Http(error),
            other => Self::Unsent(other),
        }
    }
}

/// The request (§2.1). Who we are is added when it is sent.
pub(super) fn request(endpoint: &Url, parameters: &[(String, String)]) -> Result<HttpRequest, PushError> {
    form(endpoint, parameters).map_err(|_| PushError::Response { field: "endpoint" })
}

/// Reads the answer (§2.2): the reference.
pub(super) fn read_answer(answer: &Response<Bytes>) -> Result<String, PushError> {
    let status = answer.status();
    let body = json_object(answer.body());
    // 201 it is to be; 200 is what some say, and means nothing else.
    if !matches!(status, StatusCode::CREATED | StatusCode::OK) {
        let refusal = body.ok().filter(|_| status.is_client_error()).and_then(|body| oauth_error(&body));
        let refusal = refusal.map(|(error, description)| PushError::Refused { error, description });
        return Err(refusal.unwrap_or(PushError::Status(status.as_u16())));
    }
    check_json(answer)?;
    let body = body.map_err(|_| PushError::Response { field: "body" })?;
    if body.get("expires_in").and_then(Value::as_u64).is_none_or(|seconds| seconds == 0) {
        return Err(PushError::Response { field: "expires_in" });
    }
    let reference = body.get("request_uri").and_then(Value::as_str).filter(|text| is_reference(text));
    reference.map(str::to_owned).ok_or(PushError::Response { field: "request_uri" })
}

/// §2.2 leaves the form to the server: any URI (RFC 3986 §3), which nobody but the server itself ever opens.
fn is_reference(text: &str) -> bool {
    let Some((scheme, rest)) = text.split_once(':') else { return false };
    let in_scheme = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
    let in_uri = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~:/?#[]@!$&'()*+,;=%".contains(&byte);
    text.len() <= LONGEST
        && scheme.starts_with(|first: char| first.is_ascii_alphabetic())
        && scheme.bytes().all(in_scheme)
        && !rest.is_empty()
        && rest.bytes().all(in_uri)
}

/// The longest reference, in bytes: it travels in a URL.
const LONGEST: usize = 2048;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_is_any_uri_and_nothing_else() {
        let longest = format!("urn:{}", "x".repeat(LONGEST - 4));
        for good in [
            "urn:ietf:params:oauth:request_uri:6esc_11ACC5bwc014ltc14eY22c",
            "urn:example:bwc4JK-ESC0w8acc191e-Y1LTC2",
            "https://requests.elsewhere.example/r/1?x=%20#part",
            "tag:id.example,2026:6esc",
            "x+y-z.1:opaque",
            &longest,
        ] {
            assert!(is_reference(good), "{good}");
        }
        for bad in [
            "",
            "6esc",
            "/r/1",
            "//id.example/r",
            ":x",
            "urn:",
            "1x:y",
            "ur n:x",
            "urn:a b",
            "urn:a\r\nb",
            "urn:ä",
            "urn:<x>",
        ] {
            assert!(!is_reference(bad), "{bad}");
        }
        assert!(!is_reference(&format!("{longest}x")));
    }
}
