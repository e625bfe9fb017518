//! The authorization request (Core §3.1.2.1, RFC 7636 §4.3), checked as strictly as a real provider should.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Client;

/// Form or query parameters: no name twice (RFC 6749 §3.1), empty ones left out.
pub(super) type Params = BTreeMap<String, String>;

/// `None` when a name comes twice.
pub(super) fn params(text: &str) -> Option<Params> {
    let mut params = Params::new();
    for (name, value) in url::form_urlencoded::parse(text.as_bytes()) {
        if params.insert(name.into_owned(), value.into_owned()).is_some() {
            return None;
        }
    }
    params.retain(|_, value| !value.is_empty());
    Some(params)
}

/// What the client asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct AuthorizationRequest {
    pub(super) redirect_uri: String,
    pub(super) scope: String,
    pub(super) state: Option<String>,
    pub(super) nonce: Option<String>,
    pub(super) code_challenge: String,
    pub(super) prompt: Prompt,
    pub(super) max_age: Option<Duration>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Prompt {
    /// Silent when somebody is signed in, else the form.
    Auto,
    /// Never the form.
    None,
    /// Always the form.
    Form,
}

/// Why it is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The client or its redirect URI cannot be trusted: told to the person, never redirected (RFC 6749 §4.1.2.1).
    Page(&'static str),
    /// Told to the client: error code and description.
    Redirect(&'static str, &'static str),
}

impl AuthorizationRequest {
    pub(super) fn check(params: &Params, client: &Client) -> Result<Self, Refusal> {
        let get = |name: &str| params.get(name).map(String::as_str);
        if get("client_id") != Some(client.id.as_str()) {
            return Err(Refusal::Page("The client is not known here."));
        }
        // RFC 9700 §4.1.3: exact string comparison.
        if get("redirect_uri") != Some(client.redirect_uri.as_str()) {
            return Err(Refusal::Page("The redirect URI is not the registered one."));
        }
        if get("request").is_some() {
            return Err(Refusal::Redirect("request_not_supported", "request objects are not supported"));
        }
        if get("request_uri").is_some() {
            return Err(Refusal::Redirect("request_uri_not_supported", "request objects are not supported"));
        }
        if get("response_type") != Some("code") {
            return Err(Refusal::Redirect("unsupported_response_type", "only code is supported"));
        }
        if get("response_mode").is_some_and(|mode| mode != "query") {
            return Err(Refusal::Redirect("invalid_request", "only the response mode query is supported"));
        }
        let scope = get("scope").unwrap_or_default();
        if !scope.split(' ').any(|one| one == "openid") {
            return Err(Refusal::Redirect("invalid_scope", "the scope openid is missing"));
        }
        if get("code_challenge_method") != Some("S256") {
            return Err(Refusal::Redirect("invalid_request", "PKCE with the method S256 is required"));
        }
        let code_challenge = get("code_challenge").unwrap_or_default();
        if code_challenge.len() != 43 || !code_challenge.bytes().all(is_base64url) {
            return Err(Refusal::Redirect("invalid_request", "code_challenge is not a SHA-256 in base64url"));
        }
        let max_age = get("max_age").map(str::parse).transpose();
        Ok(Self {
            redirect_uri: client.redirect_uri.clone(),
            scope: scope.to_owned(),
            state: get("state").map(str::to_owned),
            nonce: get("nonce").map(str::to_owned),
            code_challenge: code_challenge.to_owned(),
            prompt: prompt(get("prompt").unwrap_or_default())?,
            max_age: max_age
                .map_err(|_| Refusal::Redirect("invalid_request", "max_age is not a number"))?
                .map(Duration::from_secs),
        })
    }
}

fn prompt(values: &str) -> Result<Prompt, Refusal> {
    let values: Vec<&str> = values.split(' ').collect();
    match (values.contains(&"none"), values.len()) {
        (true, 1) => Ok(Prompt::None),
        // Core §3.1.2.1: none goes with no other value.
        (true, _) => Err(Refusal::Redirect("invalid_request", "the prompt none goes with no other")),
        _ if values.iter().any(|&value| value == "login" || value == "select_account") => Ok(Prompt::Form),
        _ => Ok(Prompt::Auto),
    }
}

fn is_base64url(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_'
}
