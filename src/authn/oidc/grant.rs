//! Grants that begin without a redirect (RFC 6749 §4.3, §4.4 and §6, RFC 8628 §3.4): one form to the token endpoint, and what
//! it gives.
//!
//! Not by the library, which has no one request for all of them and would read the ID token itself.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, header};
use openidconnect::HttpRequest;
use serde_json::{Map, Value};
use url::{Url, form_urlencoded};

use super::Provider;
use super::discovery::Unsupported;
use super::known::Known;
use super::security::TokenType;
use super::settings::Settings;
use super::token_endpoint::{self, TokenError};
use crate::secret::SecretString;

/// What the token endpoint gives (RFC 6749 §5.1).
#[derive(Debug)]
pub struct Granted {
    /// The access token.
    pub access_token: SecretString,
    /// Its life, when the provider says.
    pub expires_in: Option<Duration>,
    /// The refresh token, when one was granted.
    pub refresh_token: Option<SecretString>,
    /// The ID token, unverified, when there is one.
    pub id_token: Option<SecretString>,
    /// What was granted, when the provider says.
    pub scope: Option<String>,
}

impl Granted {
    /// How long the access token lives: a minute where the provider does not say.
    pub fn life(&self) -> Duration {
        self.expires_in.unwrap_or(UNSAID)
    }
}

/// Whose wish it is, which says whose turns it takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::authn) enum Wisher {
    /// Ours.
    Ourselves,
    /// Of a client that anybody may be.
    Stranger,
}

impl Provider {
    /// Asks the token endpoint for what `grant` gives.
    pub(super) async fn grant(
        &self,
        grant: &str,
        parameters: &[(&str, &str)],
        wisher: Wisher,
    ) -> Result<Granted, TokenError> {
        let known = self.knowledge.known().ok_or(TokenError::ProviderUnknown)?;
        known.offers(grant)?;
        let endpoint = known.metadata.standard.token_endpoint().ok_or(TokenError::Response { field: "endpoint" })?;
        let request = form(endpoint.url(), [("grant_type", grant)].iter().chain(parameters))?;
        let answer = match wisher {
            Wisher::Ourselves => self.call(request).await,
            Wisher::Stranger => self.call_for_stranger(request).await,
        };
        read(&answer?, known.settings.security.token_type())
    }
}

impl Settings {
    /// The scopes for a client without a session: nothing that outlives it, unless it `wants_refresh`.
    pub(in crate::authn) fn scope(&self, wants_refresh: bool) -> String {
        let wanted = self.scopes.iter().filter(|scope| wants_refresh || *scope != "offline_access");
        wanted.map(String::as_str).collect::<Vec<_>>().join(" ")
    }
}

impl Known {
    /// Whether the provider offers a grant; where it does not say, it is asked.
    pub(super) fn offers(&self, grant: &str) -> Result<(), TokenError> {
        let offered = &self.metadata.capabilities.grant_types;
        if offered.is_empty() || offered.iter().any(|one| one == grant) {
            return Ok(());
        }
        Err(TokenError::Unsupported(Unsupported {
            provider: self.settings.id.clone(),
            key: "grant_type",
            value: grant.to_owned(),
            offered: offered.clone(),
        }))
    }
}

/// A form to one of the provider's endpoints. Who we are is added when it is sent.
pub(super) fn form<'a, T: AsRef<str> + 'a>(
    endpoint: &Url,
    parameters: impl IntoIterator<Item = &'a (T, T)>,
) -> Result<HttpRequest, TokenError> {
    let form = form_urlencoded::Serializer::new(String::new()).extend_pairs(parameters).finish();
    Request::post(endpoint.as_str())
        .header(header::ACCEPT, "application/json")
        .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
        .body(form.into_bytes())
        .map_err(|_| TokenError::Response { field: "endpoint" })
}

fn read(answer: &Response<Bytes>, token_type: TokenType) -> Result<Granted, TokenError> {
    let body = token_endpoint::success(answer, token_type)?;
    let access_token = optional(&body, "access_token")?.ok_or(TokenError::Response { field: "access_token" })?;
    let scope = body.get("scope").and_then(Value::as_str).filter(|scope| scope.len() <= MAX_SCOPE && is_scope(scope));
    Ok(Granted {
        access_token,
        expires_in: token_endpoint::expires_in(&body)?.map(Duration::from_secs),
        refresh_token: optional(&body, "refresh_token")?,
        id_token: optional(&body, "id_token")?,
        scope: scope.map(str::to_owned),
    })
}

fn optional(body: &Map<String, Value>, field: &'static str) -> Result<Option<SecretString>, TokenError> {
    match body.get(field) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => token_endpoint::token(field, value.as_str().unwrap_or_default()).map(Some),
    }
}

/// RFC 6749 §3.3: words of visible ASCII without `"` and `\`, one space between them.
pub fn is_scope(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\');
    text.split(' ').all(|word| !word.is_empty() && word.bytes().all(plain))
}

/// How long a token lives of which the provider does not say.
const UNSAID: Duration = Duration::from_secs(60);

/// The longest scope that is told, in bytes.
const MAX_SCOPE: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn answer(body: &Value) -> Result<Granted, TokenError> {
        let answer = Response::builder().header("content-type", "application/json");
        read(&answer.body(Bytes::from(body.to_string())).unwrap(), TokenType::Bearer)
    }

    #[test]
    fn tokens_that_can_be_missing_are_read_or_refused_by_name() {
        let least = answer(&json!({ "access_token": "a", "token_type": "bearer" })).unwrap();
        assert_eq!((least.access_token.expose_secret(), least.expires_in, least.scope), ("a", None, None));
        assert!(least.id_token.is_none() && least.refresh_token.is_none());
        let full = answer(&json!({
            "access_token": "a", "token_type": "Bearer", "expires_in": 60, "refresh_token": "r", "id_token": "i",
            "scope": "openid email",
        }))
        .unwrap();
        assert_eq!(full.expires_in, Some(Duration::from_secs(60)));
        assert_eq!(full.scope.as_deref(), Some("openid email"));
        assert_eq!(full.refresh_token.unwrap().expose_secret(), "r");
        for (name, value) in [
            ("access_token", Value::Null),
            ("access_token", json!(["a"])),
            ("refresh_token", json!("")),
            ("refresh_token", json!(7)),
            ("id_token", json!("a\nb")),
            ("token_type", json!("DPoP")),
            ("expires_in", json!("soon")),
        ] {
            let mut body = json!({ "access_token": "a", "token_type": "Bearer" });
            body[name] = value.clone();
            assert!(matches!(answer(&body), Err(TokenError::Response { field }) if field == name), "{name} {value}");
        }
    }

    #[test]
    fn a_scope_is_words_of_plain_ascii() {
        assert!(is_scope("openid") && is_scope("api.read https://api.example/x"));
        for bad in ["", " a", "a ", "a  b", "a\tb", "a\"b", "a\\b", "ä"] {
            assert!(!is_scope(bad), "{bad:?}");
        }
        assert_eq!(
            answer(&json!({ "access_token": "a", "token_type": "bearer", "scope": "a\"b" })).unwrap().scope,
            None
        );
    }
}
