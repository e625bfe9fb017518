//! Grants of the fake provider that begin without a redirect: client credentials (RFC 6749 §4.4), passwords (§4.3), refresh
//! tokens (§6) and device codes (RFC 8628). Written from the specifications, not from the proxy.

use http::StatusCode;
use serde_json::{Map, Value, json};

use super::endpoints::json_answer;
use super::{FakeProvider, Grant, ProviderRequest, State};
use crate::listener::Answer;
use crate::{random_text, trace};

/// A device authorization.
#[derive(Debug)]
pub(super) struct Device {
    user_code: String,
    expires_at: u64,
    /// What the person said, once they did.
    approved: Option<bool>,
    redeemed: bool,
}

/// The seconds a device authorization lives.
const DEVICE_LIFE: u64 = 600;

impl FakeProvider {
    /// The person at the other device has typed this code in, and says yes or no.
    ///
    /// # Panics
    /// When there is no such code.
    pub fn answer_device(&self, user_code: &str, approved: bool) {
        let mut state = self.state();
        let device = state.devices.values_mut().find(|device| device.user_code == user_code);
        device.expect("a user code that was given out").approved = Some(approved);
    }

    /// Puts a member into what a device authorization is answered with; `null` takes it out.
    pub fn set_device_member(&self, name: &str, value: Value) {
        self.state().device_members.insert(name.to_owned(), value);
    }

    /// The password of whoever signs in, known by this name.
    pub fn set_password(&self, name: &str, password: &str) {
        trace::secret("password", password);
        self.state().passwords.insert(name.to_owned(), password.to_owned());
    }

    /// How long access tokens live from now on, in seconds; `None`: it does not say.
    pub fn set_token_life(&self, seconds: Option<u64>) {
        self.state().token_life = seconds;
    }

    /// Refresh tokens stay good, and are not given out anew.
    pub fn keep_refresh_tokens(&self) {
        self.state().keeps_refresh_tokens = true;
    }
}

impl State {
    /// RFC 8628 §3.1 and §3.2.
    pub(super) fn authorize_device(&mut self, request: &ProviderRequest) -> Answer {
        let form = request.form();
        let refused = |status, error: &str| json_answer(status, &json!({ "error": error }));
        if let Err(error) = self.authenticate(&form, &request.headers) {
            return refused(StatusCode::UNAUTHORIZED, error);
        }
        let (device_code, user_code) = (random_text(24), random_text(4).to_uppercase());
        trace::secret("device code", &device_code);
        let mut answer = json!({
            "device_code": device_code,
            "user_code": user_code,
            "verification_uri": format!("{}/device", self.issuer),
            "verification_uri_complete": format!("{}/device?user_code={user_code}", self.issuer),
            "expires_in": DEVICE_LIFE,
            "interval": 5,
        });
        let members = answer.as_object_mut().expect("written as an object");
        members.extend(self.device_members.clone());
        members.retain(|_, value| !value.is_null());
        let expires_at = self.clock.unix() + DEVICE_LIFE;
        self.devices.insert(device_code, Device { user_code, expires_at, approved: None, redeemed: false });
        json_answer(StatusCode::OK, &answer)
    }

    /// Any grant but that of an authorization code.
    pub(super) fn grant(&mut self, form: &[(String, String)], jkt: Option<String>) -> Result<Value, &'static str> {
        let field = |name: &str| form.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
        match field("grant_type") {
            Some("client_credentials") => {
                let grant = self.of_person(self.user.clone());
                let mut tokens = self.tokens(&grant, jkt);
                let members = tokens.as_object_mut().expect("an object");
                members.retain(|name, _| name != "id_token" && name != "refresh_token");
                Ok(tokens)
            }
            Some("password") => {
                let (name, password) = (field("username"), field("password"));
                let known = name.and_then(|name| self.passwords.get(name)).map(String::as_str);
                if known.is_none() || known != password {
                    return Err("invalid_grant");
                }
                let mut user = self.user.clone();
                user.insert("preferred_username".to_owned(), json!(name));
                let grant = self.of_person(user);
                Ok(self.tokens(&grant, jkt))
            }
            Some("refresh_token") => self.refresh(field("refresh_token").ok_or("invalid_request")?, jkt),
            Some("urn:ietf:params:oauth:grant-type:device_code") => {
                let now = self.clock.unix();
                let device = self.devices.get_mut(field("device_code").unwrap_or_default()).ok_or("invalid_grant")?;
                match device.approved {
                    _ if device.redeemed => return Err("invalid_grant"),
                    _ if device.expires_at <= now => return Err("expired_token"),
                    None => return Err(if self.faults.slow_down { "slow_down" } else { "authorization_pending" }),
                    Some(false) => return Err("access_denied"),
                    Some(true) => device.redeemed = true,
                }
                let grant = self.of_person(self.user.clone());
                Ok(self.tokens(&grant, jkt))
            }
            _ => Err("unsupported_grant_type"),
        }
    }

    fn of_person(&self, user: Map<String, Value>) -> Grant {
        Grant {
            redirect_uri: String::new(),
            challenge: None,
            nonce: None,
            jkt: None,
            user,
            acr: None,
            authenticated_at: self.clock.unix(),
            redeemed: true,
        }
    }
}
