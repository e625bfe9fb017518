//! Tokens of a session that was signed out are of no use to anybody any more (RFC 7009).
//!
//! Not by the library, which refuses http towards loopback and has no answer for a session without a refresh token.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderValue, Request};
use openidconnect::{AuthType, HttpRequest};
use url::{Url, form_urlencoded};

use super::provider::Credentials;
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

/// The request (§2.1), with the client authentication of the token endpoint. `None` where the credentials can't stand in a
/// header.
pub(super) fn request(
    endpoint: &Url,
    credentials: &Credentials,
    auth_type: &AuthType,
    kind: Kind,
    token: &SecretString,
) -> Option<HttpRequest> {
    let Credentials { client_id, client_secret } = credentials;
    let mut form = form_urlencoded::Serializer::new(String::new());
    form.append_pair("token", token.expose_secret()).append_pair("token_type_hint", kind.hint());
    let mut request = Request::post(endpoint.as_str())
        .header(ACCEPT, "application/json")
        .header(CONTENT_TYPE, "application/x-www-form-urlencoded");
    match (client_secret, auth_type) {
        (Some(secret), AuthType::BasicAuth) => {
            // RFC 6749 §2.3.1: both form-encoded first.
            let encoded = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
            let pair = format!("{}:{}", encoded(client_id), encoded(secret.expose_secret()));
            let mut basic = HeaderValue::try_from(format!("Basic {}", BASE64_STANDARD.encode(pair))).ok()?;
            basic.set_sensitive(true);
            request = request.header(AUTHORIZATION, basic);
        }
        (Some(secret), _) => {
            form.append_pair("client_id", client_id).append_pair("client_secret", secret.expose_secret());
        }
        (None, _) => {
            form.append_pair("client_id", client_id);
        }
    }
    request.body(form.finish().into_bytes()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(secret: Option<&str>, auth_type: &AuthType) -> (Option<String>, String) {
        let credentials = Credentials {
            client_id: "the app".to_owned(),
            client_secret: secret.map(|secret| SecretString::new(secret.to_owned())),
        };
        let endpoint = Url::parse("https://id.example/revoke?tenant=1").unwrap();
        let token = SecretString::new("t&1".to_owned());
        let request = request(&endpoint, &credentials, auth_type, Kind::Refresh, &token).unwrap();
        assert_eq!((request.method().as_str(), request.uri().to_string()), ("POST", endpoint.to_string()));
        assert_eq!(request.headers()[CONTENT_TYPE], "application/x-www-form-urlencoded");
        let authorization = request.headers().get(AUTHORIZATION).map(|value| {
            assert!(value.is_sensitive());
            value.to_str().unwrap().to_owned()
        });
        (authorization, String::from_utf8(request.into_body()).unwrap())
    }

    #[test]
    fn it_says_who_we_are_as_the_token_endpoint_wants_it() {
        let token = "token=t%261&token_type_hint=refresh_token";
        let basic = format!("Basic {}", BASE64_STANDARD.encode("the+app:s%3A%26"));
        assert_eq!(sent(Some("s:&"), &AuthType::BasicAuth), (Some(basic), token.to_owned()));
        let both = "client_id=the+app&client_secret=s%3A%26";
        assert_eq!(sent(Some("s:&"), &AuthType::RequestBody), (None, format!("{token}&{both}")));
        assert_eq!(sent(None, &AuthType::BasicAuth), (None, format!("{token}&client_id=the+app")));
    }
}
