//! What holds of every refused sign-in in every story: no session comes of it, the application does not hear of it, and where
//! what the provider gave was spoiled, its access token is used for nothing.
//!
//! Each [`crate::Browser`] of a [`crate::Stage`] has one, and the stage itself at its end, so that no story can leave it out.

use std::sync::Arc;

use http::{HeaderMap, StatusCode};
use url::Url;

use crate::echo::EchoUpstream;
use crate::forge::payload_of;
use crate::provider::FakeProvider;

/// Looks at what a browser gets from the callback.
#[derive(Debug, Clone)]
pub(crate) struct Watch {
    provider: Arc<FakeProvider>,
    upstream: Arc<EchoUpstream>,
}

/// A request to the callback, as far as it matters here.
#[derive(Debug)]
pub(crate) struct Callback {
    url: Url,
    code: Option<String>,
}

impl Watch {
    pub(crate) fn new(provider: Arc<FakeProvider>, upstream: Arc<EchoUpstream>) -> Self {
        Self { provider, upstream }
    }

    /// Of all that was given beside an ID token which is never good, by whatever grant, nothing was shown to anybody.
    ///
    /// # Panics
    /// When something was.
    pub(crate) fn judge_all(&self) {
        let forbidden = self.provider.forbidden_tokens();
        let used: Vec<_> = forbidden.values().filter(|&&uses| uses > 0).collect();
        assert!(used.is_empty(), "userinfo was asked with {} access tokens whose ID tokens are never good", used.len());
        let shows = |value: &str| forbidden.keys().any(|token| value.ends_with(token.as_str()));
        let reached = self.upstream.requests();
        let reached = reached.iter().filter(|request| request.header("authorization").into_iter().any(shows)).count();
        assert_eq!(reached, 0, "the application was given access tokens whose ID tokens are never good");
    }

    /// `None` for a request to anything else.
    pub(crate) fn callback(&self, url: &Url, body: &[u8]) -> Option<Callback> {
        url.path().contains("/callback").then(|| Callback { url: url.clone(), code: code(url, body) })
    }

    /// # Panics
    /// When something came of a sign-in that was refused.
    pub(crate) fn judge(&self, callback: &Callback, status: StatusCode, headers: &HeaderMap) {
        if !status.is_client_error() && !status.is_server_error() {
            return;
        }
        let (url, code) = (&callback.url, callback.code.as_deref().unwrap_or_default());
        let lines = headers.get_all(http::header::SET_COOKIE).iter();
        let session: Vec<_> = lines.filter(|line| is_session(line.as_bytes())).collect();
        assert!(session.is_empty(), "{url} is refused with {status} and sets a session: {session:?}");
        let path = url.path();
        let reached = self.upstream.requests().iter().any(|request| request.path() == path);
        assert!(!reached, "{url} is refused with {status} and reached the application");
        let used = self.provider.uses_of_spoiled(code);
        assert_eq!(used, 0, "{url} is refused with {status} and its access token was used");
    }
}

/// A cookie of a session, with something in it.
fn is_session(line: &[u8]) -> bool {
    let line = String::from_utf8_lossy(line);
    let (name, rest) = line.split_once('=').unwrap_or((&line, ""));
    let name = name.trim_start_matches("__Host-").trim_start_matches("__Secure-");
    let is_part = matches!(name.split_once('.'), None | Some((_, "1" | "2" | "3" | "idle")));
    is_part && !rest.is_empty() && !rest.starts_with(';')
}

/// Of the query, of a form, or of a signed answer in either.
fn code(url: &Url, body: &[u8]) -> Option<String> {
    let find = |name: &str| {
        let form = url::form_urlencoded::parse(body).into_owned();
        url.query_pairs().into_owned().chain(form).find(|(key, _)| key == name).map(|(_, value)| value)
    };
    find("code").or_else(|| {
        let signed = find("response").filter(|token| token.split('.').count() == 3)?;
        payload_of(&signed).get("code")?.as_str().map(str::to_owned)
    })
}
