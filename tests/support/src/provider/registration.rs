//! Dynamic client registration at the fake provider (RFC 7591, RFC 7592). The last client that has registered is the only one
//! it knows.

use http::{Method, StatusCode, header};
use serde_json::{Value, json};

use super::endpoints::json_answer;
use super::{FakeProvider, ProviderRequest, State};
use crate::listener::Answer;
use crate::{random_text, trace};

/// How clients may register themselves.
#[derive(Debug, Clone, Default)]
pub struct RegistrationRules {
    /// Who does not show it is refused.
    pub initial_token: Option<String>,
    /// How long secrets live, in seconds; zero: for ever.
    pub secret_life: u64,
    /// Registrations can be changed (RFC 7592).
    pub manageable: bool,
    /// Registered in the place of the method that was asked for.
    pub auth_method: Option<&'static str>,
    /// The error of every registration.
    pub refusal: Option<&'static str>,
    /// Every registration ends with 500.
    pub is_down: bool,
}

impl FakeProvider {
    /// Lets clients register themselves, by `rules`.
    pub fn let_clients_register(&self, rules: RegistrationRules) {
        let mut state = self.state();
        let endpoint = json!(format!("{}/register", state.issuer));
        state.metadata.insert("registration_endpoint".to_owned(), endpoint);
        state.registration = rules;
    }

    /// The client that it knows now.
    pub fn known_client(&self) -> String {
        self.state().client_id.clone()
    }
}

impl State {
    pub(super) fn register(&mut self, request: &ProviderRequest) -> Answer {
        let bearer = request.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let bearer = bearer.and_then(|value| value.strip_prefix("Bearer ")).map(str::to_owned);
        let refused = |status, error| json_answer(status, &json!({ "error": error, "error_description": "no" }));
        let Ok(wanted) = serde_json::from_str::<Value>(&request.body) else {
            return refused(StatusCode::BAD_REQUEST, "invalid_client_metadata");
        };
        if self.registration.is_down {
            return refused(StatusCode::INTERNAL_SERVER_ERROR, "server_error");
        }
        if let Some(error) = self.registration.refusal {
            return refused(StatusCode::BAD_REQUEST, error);
        }
        let is_change = request.method == Method::PUT;
        if is_change {
            // RFC 7592 §2.2: the secret where it is used; and where it is said, it is the right one.
            let uses_secret =
                wanted["token_endpoint_auth_method"].as_str().is_some_and(|it| it.starts_with("client_secret"));
            let secret = wanted.get("client_secret");
            let fits = self.registration.manageable
                && request.target == format!("/register/{}", self.client_id)
                && bearer.as_deref() == Some(&self.registration_token)
                && wanted["client_id"] == json!(self.client_id)
                && secret.map_or(!uses_secret, |secret| *secret == json!(self.client_secret));
            if !fits {
                return refused(StatusCode::UNAUTHORIZED, "invalid_token");
            }
        } else {
            if request.method != Method::POST || bearer != self.registration.initial_token {
                return refused(StatusCode::UNAUTHORIZED, "invalid_token");
            }
            self.client_id = format!("registered-{}", random_text(9));
        }
        // RFC 7592 §2.2: a change may bring another secret and another token.
        self.client_secret = random_text(24);
        self.registration_token = random_text(24);
        trace::secret("registered client secret", &self.client_secret);
        trace::secret("registration access token", &self.registration_token);
        let mut answer = wanted;
        // RFC 7592 §2.2: a change holds whatever was given before.
        if is_change && answer["subject_type"] != "pairwise" {
            return refused(StatusCode::BAD_REQUEST, "invalid_client_metadata");
        }
        answer["subject_type"] = json!("pairwise");
        if let Some(method) = self.registration.auth_method {
            answer["token_endpoint_auth_method"] = json!(method);
        }
        answer["client_id"] = json!(self.client_id);
        answer["client_secret"] = json!(self.client_secret);
        answer["client_secret_expires_at"] = match self.registration.secret_life {
            0 => json!(0),
            life => json!(self.clock.unix() + life),
        };
        if self.registration.manageable {
            answer["registration_access_token"] = json!(self.registration_token);
            answer["registration_client_uri"] = json!(format!("{}/register/{}", self.issuer, self.client_id));
        }
        json_answer(if is_change { StatusCode::OK } else { StatusCode::CREATED }, &answer)
    }
}
