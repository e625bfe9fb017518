//! Device authorization (RFC 8628) at the provider: where a person types a code in at another device, and whether they have.

use std::time::Duration;

use bytes::Bytes;
use http::{Response, StatusCode};
use serde_json::{Map, Value};
use url::Url;

use super::Provider;
use super::discovery::Unsupported;
use super::grant::{Granted, Wisher, form};
use super::jose::json_object;
use super::settings::Settings;
use super::token_endpoint::{self, TokenError};
use crate::provider_http::{check_json, is_protected};
use crate::secret::SecretString;

/// The grant type of a device code (§3.4).
pub const GRANT_TYPE: &str = "urn:ietf:params:oauth:grant-type:device_code";

/// What the provider answers with (§3.2).
#[derive(Debug)]
pub struct DeviceAuthorization {
    /// What tokens are asked for with; for us alone.
    pub device_code: SecretString,
    /// What the person types in.
    pub user_code: String,
    /// Where.
    pub verification_uri: Url,
    /// The same with the code in it.
    pub verification_uri_complete: Option<Url>,
    /// How long the person has; an hour at most.
    pub expires_in: Duration,
    /// The least time between two questions; a minute at most.
    pub interval: Duration,
}

impl Provider {
    /// Starts one (§3.1). With a refresh token in mind, `offline_access` is asked for where the settings name it.
    ///
    /// # Errors
    /// [`TokenError`].
    pub async fn authorize_device(&self, wants_refresh: bool) -> Result<DeviceAuthorization, TokenError> {
        let known = self.knowledge.known().ok_or(TokenError::ProviderUnknown)?;
        known.offers(GRANT_TYPE)?;
        let settings = &known.settings;
        let endpoint = known.metadata.capabilities.device_authorization_endpoint.as_ref().ok_or_else(|| {
            TokenError::Unsupported(Unsupported {
                provider: settings.id.clone(),
                key: "api_clients.grants",
                value: "device_code".to_owned(),
                offered: Vec::new(),
            })
        })?;
        let scope = settings.scope(wants_refresh);
        // Such as the audience that some providers have in the place of a resource.
        let extra = settings.authorization_params.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let extra = extra.filter(|(name, _)| !["scope", "resource", "client_id"].contains(name));
        let mut parameters: Vec<(&str, &str)> = settings.ask.with_resources(&[("scope", &scope)]);
        parameters.extend(extra);
        let answer = self.call_for_stranger(form(endpoint, &parameters)?).await?;
        read(&answer, settings)
    }

    /// Asks whether the person has said yes (§3.4).
    ///
    /// # Errors
    /// [`TokenError`]; that they have said nothing yet is [`TokenError::Refused`] with `authorization_pending` (§3.5).
    pub async fn redeem_device_code(&self, device_code: &str) -> Result<Granted, TokenError> {
        let parameters = self.settings().ask.with_resources(&[("device_code", device_code)]);
        self.grant(GRANT_TYPE, &parameters, Wisher::Stranger).await
    }
}

fn read(answer: &Response<Bytes>, settings: &Settings) -> Result<DeviceAuthorization, TokenError> {
    let status = answer.status();
    let body = json_object(answer.body());
    if status != StatusCode::OK {
        let refusal = body.ok().filter(|_| status.is_client_error()).and_then(|body| token_endpoint::refusal(&body));
        return Err(refusal.unwrap_or(TokenError::Status(status.as_u16())));
    }
    check_json(answer)?;
    let body = body.map_err(|_| TokenError::Response { field: "body" })?;
    let text = |field: &'static str| body.get(field).and_then(Value::as_str).unwrap_or_default();
    let user_code = text("user_code");
    // A person reads it from a screen: nothing that could be more than a code.
    if !(1..=MAX_USER_CODE).contains(&user_code.len()) || !user_code.bytes().all(|byte| (0x20..0x7f).contains(&byte)) {
        return Err(TokenError::Response { field: "user_code" });
    }
    let device_code = token_endpoint::token("device_code", text("device_code"))?;
    if device_code.expose_secret().len() > MAX_DEVICE_CODE {
        return Err(TokenError::Response { field: "device_code" });
    }
    Ok(DeviceAuthorization {
        device_code,
        user_code: user_code.to_owned(),
        verification_uri: address(&body, "verification_uri", settings)?
            .ok_or(TokenError::Response { field: "verification_uri" })?,
        verification_uri_complete: address(&body, "verification_uri_complete", settings)?,
        expires_in: seconds(&body, "expires_in")?
            .filter(|life| !life.is_zero())
            .ok_or(TokenError::Response { field: "expires_in" })?
            .min(LONGEST_LIFE),
        // §3.2: five seconds where it is not said.
        interval: seconds(&body, "interval")?
            .unwrap_or(Duration::from_secs(5))
            .clamp(Duration::from_secs(1), LONGEST_INTERVAL),
    })
}

/// Where a person is sent: a page, and one that nobody on the way can change.
fn address(body: &Map<String, Value>, field: &'static str, settings: &Settings) -> Result<Option<Url>, TokenError> {
    let text = match body.get(field) {
        None | Some(Value::Null) => return Ok(None),
        Some(value) => value.as_str().filter(|text| text.len() <= MAX_ADDRESS),
    };
    let is_good = |url: &Url| {
        let host = url.host_str().unwrap_or_default();
        is_protected(url.scheme(), host) || (settings.allow_insecure_http && url.scheme() == "http")
    };
    let url = text.and_then(|text| Url::parse(text).ok()).filter(is_good);
    url.map(Some).ok_or(TokenError::Response { field })
}

fn seconds(body: &Map<String, Value>, field: &'static str) -> Result<Option<Duration>, TokenError> {
    match body.get(field) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => value.as_u64().map(Duration::from_secs).map(Some).ok_or(TokenError::Response { field }),
    }
}

/// The longest codes and addresses, in bytes.
const MAX_USER_CODE: usize = 64;
const MAX_DEVICE_CODE: usize = 4096;
const MAX_ADDRESS: usize = 2048;

/// The longest a device authorization is kept up.
const LONGEST_LIFE: Duration = Duration::from_secs(3600);

/// The longest that anybody has to wait between two questions.
pub const LONGEST_INTERVAL: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::authn::oidc::provider::test_settings;

    fn answer(status: u16, body: &Value) -> Result<DeviceAuthorization, TokenError> {
        answer_as("application/json", status, body)
    }

    fn answer_as(kind: &str, status: u16, body: &Value) -> Result<DeviceAuthorization, TokenError> {
        let answer = Response::builder().status(status).header("content-type", kind);
        read(&answer.body(Bytes::from(body.to_string())).unwrap(), &test_settings("https://id.example"))
    }

    fn good() -> Value {
        json!({
            "device_code": "d", "user_code": "WDJB-MJHT", "verification_uri": "https://id.example/device",
            "verification_uri_complete": "https://id.example/device?user_code=WDJB-MJHT", "expires_in": 1800,
        })
    }

    /// RFC 8628 §3.2's own example.
    #[test]
    fn an_answer_is_read_with_the_interval_that_it_leaves_out() {
        let read = answer(200, &good()).unwrap();
        assert_eq!((read.user_code.as_str(), read.device_code.expose_secret()), ("WDJB-MJHT", "d"));
        assert_eq!((read.interval.as_secs(), read.expires_in.as_secs()), (5, 1800));
        let mut long = good();
        long["expires_in"] = json!(1_000_000);
        long["interval"] = json!(1_000_000);
        let read = answer(200, &long).unwrap();
        assert_eq!((read.interval, read.expires_in), (LONGEST_INTERVAL, LONGEST_LIFE));
    }

    #[test]
    fn what_nobody_should_be_shown_is_refused_by_name() {
        for (field, value) in [
            ("device_code", json!("")),
            ("device_code", json!("x".repeat(4097))),
            ("user_code", json!("A\u{1b}[2J")),
            ("user_code", json!("x".repeat(65))),
            ("user_code", Value::Null),
            ("verification_uri", Value::Null),
            ("verification_uri", json!("javascript:alert(1)")),
            ("verification_uri", json!("http://id.example/device")),
            ("verification_uri_complete", json!("data:text/html,x")),
            ("expires_in", Value::Null),
            ("expires_in", json!(0)),
            ("expires_in", json!(-1)),
            ("interval", json!("often")),
        ] {
            let mut body = good();
            body[field] = value.clone();
            let outcome = answer(200, &body);
            let named = matches!(&outcome, Err(TokenError::Response { field: named }) if *named == field);
            assert!(named, "{field} = {value}: {outcome:?}");
        }
        assert!(matches!(answer(400, &json!({ "error": "invalid_scope" })), Err(TokenError::Refused { .. })));
        assert!(matches!(answer(500, &good()), Err(TokenError::Status(500))));
        assert!(matches!(answer(200, &json!([])), Err(TokenError::Response { field: "body" })));
        assert!(matches!(answer_as("text/html", 200, &good()), Err(TokenError::MediaType(_))));
    }
}
