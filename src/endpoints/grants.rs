//! `POST /auth/device` (RFC 8628 §3.1) and `POST /auth/token` (RFC 6749 §3.2, RFC 8628 §3.4) for API clients. Off unless a grant is
//! switched on. No cookie counts here, none is set, and nothing that a browser sends is taken.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use serde_json::{Value, json};
use tracing::info;
use url::form_urlencoded;

use super::Endpoints;
use super::form::{self, FormFault};
use crate::authn::api_clients::{ApiClients, GrantError, HandedOut, Started};
use crate::authn::oidc::device;
use crate::message::{Body, Inbound};
use crate::reply::{ClientFault, Exchange, ProviderFault, Rejection, json_answer, notice};

/// Why an API client gets nothing. The texts are told to it.
#[derive(Debug, thiserror::Error)]
enum GrantFault {
    #[error("requests of browsers are not taken here")]
    Browser,
    #[error("the request is not a form")]
    MediaType,
    #[error("the request body is too large, too slow or broken off")]
    Body,
    #[error("the parameter {0} is missing")]
    Missing(&'static str),
    #[error("a parameter is repeated")]
    Repeated,
    #[error("the grant type is not offered here")]
    Type,
    #[error(transparent)]
    Grant(#[from] GrantError),
}

impl GrantFault {
    fn code(&self) -> &'static str {
        match self {
            Self::Browser => "grant_from_browser",
            Self::MediaType => "grant_media_type",
            Self::Body => "grant_body",
            Self::Missing(_) => "grant_parameter_missing",
            Self::Repeated => "grant_parameter_twice",
            Self::Type => "grant_type",
            Self::Grant(error) => error.code().unwrap_or("provider_unavailable"),
        }
    }

    /// RFC 6749 §5.2.
    fn error(&self) -> &'static str {
        match self {
            Self::Type => "unsupported_grant_type",
            Self::Grant(error) => error.error(),
            _ => "invalid_request",
        }
    }

    fn status(&self) -> StatusCode {
        match self {
            Self::Browser => StatusCode::FORBIDDEN,
            _ => StatusCode::BAD_REQUEST,
        }
    }
}

impl From<FormFault> for GrantFault {
    fn from(fault: FormFault) -> Self {
        match fault {
            FormFault::MediaType => Self::MediaType,
            FormFault::TooLarge | FormFault::TooSlow | FormFault::BrokenOff => Self::Body,
        }
    }
}

impl Endpoints {
    /// Starts a device authorization.
    pub(super) async fn device(&self, inbound: Inbound, exchange: &mut Exchange<'_>) -> Response<Body> {
        let outcome = self.start_device(inbound).await.map(|started| told(&started));
        answer(outcome, exchange)
    }

    /// Redeems a device code or a refresh token.
    pub(super) async fn token(&self, inbound: Inbound, exchange: &mut Exchange<'_>) -> Response<Body> {
        let outcome = self.redeem(inbound).await.map(|tokens| handed_out(&tokens));
        answer(outcome, exchange)
    }

    /// Routing knows the endpoint only where a grant is switched on.
    fn granting(&self) -> Result<&ApiClients, GrantFault> {
        self.api_clients.as_ref().ok_or(GrantFault::Type)
    }

    async fn start_device(&self, inbound: Inbound) -> Result<Started, GrantFault> {
        let form = read(inbound).await?;
        let parameters = Parameters::read(&form)?;
        Ok(self.granting()?.start_device(parameters.value("provider").as_deref()).await?)
    }

    async fn redeem(&self, inbound: Inbound) -> Result<HandedOut, GrantFault> {
        let form = read(inbound).await?;
        let parameters = Parameters::read(&form)?;
        let granting = self.granting()?;
        let needed = |name| parameters.value(name).ok_or(GrantFault::Missing(name));
        let on = granting.settings();
        match needed("grant_type")?.as_str() {
            device::GRANT_TYPE if on.device_code => Ok(granting.redeem_device_code(&needed("device_code")?).await?),
            "refresh_token" if on.refresh_token => Ok(granting.refresh(&needed("refresh_token")?).await?),
            _ => Err(GrantFault::Type),
        }
    }
}

/// Whether a browser sent it: each of them says so with a POST, and none lets a page keep it from saying so.
fn is_of_browser(headers: &HeaderMap) -> bool {
    headers.contains_key(header::ORIGIN) || headers.keys().any(|name| name.as_str().starts_with("sec-fetch-"))
}

async fn read(inbound: Inbound) -> Result<Bytes, GrantFault> {
    if is_of_browser(inbound.headers()) {
        return Err(GrantFault::Browser);
    }
    Ok(form::read(inbound.into_request()).await?)
}

/// A form in which no name stands twice (RFC 6749 §3.2).
struct Parameters(Vec<(String, String)>);

impl Parameters {
    fn read(form: &[u8]) -> Result<Self, GrantFault> {
        // What is sent without a value is not sent (§3.2).
        let pairs = form_urlencoded::parse(form).into_owned();
        let mut names = std::collections::BTreeSet::new();
        let pairs: Vec<(String, String)> = pairs.collect();
        if pairs.iter().any(|(name, _)| !names.insert(name.as_str())) {
            return Err(GrantFault::Repeated);
        }
        Ok(Self(pairs.into_iter().filter(|(_, value)| !value.is_empty()).collect()))
    }

    fn value(&self, name: &str) -> Option<String> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone())
    }
}

/// RFC 8628 §3.2.
fn told(started: &Started) -> Value {
    let mut told = json!({
        "device_code": started.device_code,
        "user_code": started.user_code,
        "verification_uri": started.verification_uri.as_str(),
        "expires_in": started.expires_in.as_secs(),
        "interval": started.interval.as_secs(),
    });
    if let Some(complete) = &started.verification_uri_complete {
        told["verification_uri_complete"] = json!(complete.as_str());
    }
    told
}

/// RFC 6749 §5.1. Tokens that are bound to a key of ours are never asked for here.
fn handed_out(tokens: &HandedOut) -> Value {
    let mut told = json!({
        "access_token": tokens.access_token.expose_secret(),
        "token_type": "Bearer",
        "scope": tokens.scope,
    });
    if let Some(life) = tokens.expires_in {
        told["expires_in"] = json!(life.as_secs());
    }
    if let Some(refresh_token) = &tokens.refresh_token {
        told["refresh_token"] = json!(refresh_token);
    }
    told
}

fn answer(outcome: Result<Value, GrantFault>, exchange: &mut Exchange<'_>) -> Response<Body> {
    let fault = match outcome {
        Ok(value) => return json_answer(StatusCode::OK, "application/json", &value),
        Err(GrantFault::Grant(GrantError::Token(error))) => {
            return of_provider(ProviderFault::Token(error).into(), exchange);
        }
        Err(GrantFault::Grant(GrantError::IdToken(error))) => {
            return of_provider(ProviderFault::IdToken(error).into(), exchange);
        }
        Err(fault) => fault,
    };
    exchange.refused(fault.code());
    // Whoever waits for a person asks every few seconds.
    if !matches!(fault, GrantFault::Grant(GrantError::Pending | GrantError::TooSoon)) {
        info!(reason = fault.code(), request = exchange.id(), cause = %fault, "an API client was refused");
    }
    let mut response = refusal(fault.status(), fault.error(), &fault.to_string());
    if matches!(fault, GrantFault::Browser | GrantFault::MediaType | GrantFault::Body) {
        // What was not read of the body is no next request.
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// What the provider did wrong has codes and log lines of its own.
fn of_provider(rejection: Rejection, exchange: &mut Exchange<'_>) -> Response<Body> {
    let notice = rejection.notice();
    exchange.refused(notice.code);
    notice::log(&rejection, &notice, exchange.id());
    let is_away = notice.status == StatusCode::SERVICE_UNAVAILABLE;
    let (error, text) = match is_away {
        true => ("temporarily_unavailable", "the sign-in service can't be reached at the moment"),
        false => ("server_error", "the sign-in service gave no tokens that can be accepted"),
    };
    let mut response = refusal(notice.status, error, text);
    if let Some(seconds) = notice.retry_after {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

fn refusal(status: StatusCode, error: &str, description: &str) -> Response<Body> {
    json_answer(status, "application/json", &json!({ "error": error, "error_description": description }))
}

/// Too many of one client: as RFC 6749 §5.2 has it, too.
pub(super) fn too_many(fault: ClientFault, exchange: &mut Exchange<'_>) -> Response<Body> {
    let rejection = Rejection::from(fault);
    let notice = rejection.notice();
    exchange.refused(notice.code);
    notice::log(&rejection, &notice, exchange.id());
    let mut response = refusal(notice.status, "temporarily_unavailable", "too many requests in a short time");
    if let Some(seconds) = notice.retry_after {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    // The body was not read.
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_stands_twice_is_refused_and_what_is_empty_is_not_there() {
        let read = |text: &str| Parameters::read(text.as_bytes());
        assert!(matches!(read("a=1&a=1"), Err(GrantFault::Repeated)));
        assert!(matches!(read("a=1&%61="), Err(GrantFault::Repeated)));
        let parameters = read("grant_type=refresh_token&provider=&x=a%2Bb").unwrap_or_else(|fault| panic!("{fault}"));
        assert_eq!(parameters.value("provider"), None);
        assert_eq!(parameters.value("x").as_deref(), Some("a+b"));
    }

    #[test]
    fn a_browser_is_known_by_what_no_page_can_leave_out() {
        let of = |name: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(name, HeaderValue::from_static("null"));
            is_of_browser(&headers)
        };
        assert!(
            ["origin", "sec-fetch-site", "sec-fetch-mode", "sec-fetch-dest", "sec-fetch-user"]
                .map(of)
                .iter()
                .all(|is| *is)
        );
        assert!(!["user-agent", "accept", "cookie"].map(of).iter().any(|is| *is));
    }
}
