//! Access tokens of programs at the fake provider, and what its introspection endpoint says of them (RFC 7662, RFC 9701).

use http::{StatusCode, header};
use serde_json::{Map, Value, json};

use super::endpoints::{json_answer, page, respond};
use super::{FakeProvider, IntrospectionFault, ProviderRequest, State, stray_key};
use crate::listener::Answer;
use crate::{forge, random_text, trace};

impl FakeProvider {
    /// An opaque access token of whoever signs in now.
    pub fn opaque_token(&self) -> String {
        let token = format!("at-{}", random_text(24));
        trace::secret("access token", &token);
        let mut state = self.state();
        let user = state.user.clone();
        state.access_tokens.insert(token.clone(), user);
        token
    }

    /// Forgets an access token.
    pub fn revoke(&self, token: &str) {
        self.state().access_tokens.remove(token);
    }

    /// A JWT with the header's `typ` (none: absent) and `claims` over those of an access token of whoever signs in now, for the
    /// audience `api`; `null` takes a claim out.
    pub fn jwt_token(&self, typ: Option<&str>, claims: &Value) -> String {
        let state = self.state();
        let now = state.clock.unix();
        let mut all = state.user.clone();
        let registered = json!({
            "iss": state.issuer, "aud": "api", "client_id": "a-program", "iat": now, "exp": now + 300, "jti": random_text(9),
        });
        for part in [&registered, claims] {
            all.extend(part.as_object().expect("an object").clone());
        }
        all.retain(|_, value| !value.is_null());
        let key = &state.keys[0];
        let mut head = json!({ "alg": key.alg().name(), "kid": key.kid() });
        if let Some(typ) = typ {
            head["typ"] = json!(typ);
        }
        let token = key.token_with_header(&head, &Value::Object(all));
        trace::secret("access token", &token);
        token
    }

    /// Puts `members` over what introspection would say; `null` takes one out.
    pub fn introspect_as(&self, members: Value) {
        let Value::Object(members) = members else { panic!("members are an object") };
        self.state().introspection = members;
    }
}

impl State {
    pub(super) fn introspect(&mut self, request: &ProviderRequest) -> Answer {
        let form = request.form();
        let field = |name: &str| form.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
        let fault = self.faults.introspection;
        match fault {
            Some(IntrospectionFault::ServerError) => return page(StatusCode::INTERNAL_SERVER_ERROR, "broken"),
            Some(IntrospectionFault::Html) => return page(StatusCode::OK, "<h1>Welcome</h1>"),
            _ => {}
        }
        if fault == Some(IntrospectionFault::Unauthorized)
            || !self.is_our_client(&request.headers, field("client_id"), field("client_secret"))
        {
            return json_answer(StatusCode::UNAUTHORIZED, &json!({ "error": "invalid_client" }));
        }
        let mut said = Map::new();
        match field("token").and_then(|token| self.access_tokens.get(token)) {
            None => drop(said.insert("active".to_owned(), json!(false))),
            Some(user) => {
                said.extend(user.clone());
                let registered = json!({
                    "active": true, "iss": self.issuer, "aud": "api", "client_id": "a-program", "token_type": "Bearer",
                    "exp": self.clock.unix() + 300, "iat": self.clock.unix(),
                });
                said.extend(registered.as_object().expect("an object").clone());
                said.extend(self.introspection.clone());
                said.retain(|_, value| !value.is_null());
            }
        }
        let accept = request.headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
        if !accept.contains("token-introspection+jwt") || fault == Some(IntrospectionFault::NotSigned) {
            return json_answer(StatusCode::OK, &Value::Object(said));
        }
        let mut claims = json!({
            "iss": self.issuer, "aud": self.client_id, "iat": self.clock.unix(), "token_introspection": said,
        });
        let mut typ = "token-introspection+jwt";
        match fault {
            Some(IntrospectionFault::OtherType) => typ = "JWT",
            Some(IntrospectionFault::OtherIssuer) => claims["iss"] = json!("https://other.example.com"),
            Some(IntrospectionFault::OtherAudience) => claims["aud"] = json!("another-client"),
            _ => {}
        }
        let key = &self.keys[0];
        let head = json!({ "alg": key.alg().name(), "kid": key.kid(), "typ": typ });
        let jwt = match fault {
            Some(IntrospectionFault::WrongKey) => stray_key(key.alg()).token_with_header(&head, &claims),
            Some(IntrospectionFault::Unsigned) => forge::unsigned(&claims),
            _ => key.token_with_header(&head, &claims),
        };
        let jwt = self.encrypted(jwt, &claims);
        respond(StatusCode::OK, "application/token-introspection+jwt", jwt)
    }
}
