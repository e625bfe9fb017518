//! Tokens of a session that was signed out are of no use to anybody any more (RFC 7009).
//!
//! Not by the library, which refuses http towards loopback and has no answer for a session without a refresh token.

use http::Request;
use http::header::{ACCEPT, CONTENT_TYPE};
use openidconnect::HttpRequest;
use url::{Url, form_urlencoded};

use crate::secret::SecretString;

/// What kind of token it is (§2.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Refresh,
    Access,
}

impl Kind {
    pub(super) fn hint(self) -> &'static str {
        match self {
            Self::Refresh => "refresh_token",
            Self::Access => "access_token",
        }
    }
}

/// The request (§2.1). Who we are is added when it is sent. `None` where the endpoint can't be asked.
pub(super) fn request(endpoint: &Url, kind: Kind, token: &SecretString) -> Option<HttpRequest> {
    let mut form = form_urlencoded::Serializer::new(String::new());
    form.append_pair("token", token.expose_secret()).append_pair("token_type_hint", kind.hint());
    let request = Request::post(endpoint.as_str())
        .header(ACCEPT, "application/json")
        .header(CONTENT_TYPE, "application/x-www-form-urlencoded");
    request.body(form.finish().into_bytes()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_travels_in_the_form_alone() {
        let endpoint = Url::parse("https://id.example/revoke?x=1").unwrap();
        let request = request(&endpoint, Kind::Refresh, &SecretString::new("a+b&c".to_owned())).unwrap();
        assert_eq!(request.uri(), "https://id.example/revoke?x=1");
        assert_eq!(request.body(), b"token=a%2Bb%26c&token_type_hint=refresh_token");
        assert!(!request.headers().contains_key("authorization"));
    }
}
