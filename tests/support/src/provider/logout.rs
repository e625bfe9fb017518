//! Logout tokens (OpenID Connect Back-Channel Logout 1.0 §2.4), well-made or as a test wants them.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{CLIENT_ID, FakeProvider};
use crate::forge::SigningKey;
use crate::random_text;

impl FakeProvider {
    /// The claims of a good logout token for nobody yet, with these set; `null` takes one out.
    pub fn logout_claims(&self, changes: &Value) -> Value {
        let now = self.state().clock.unix();
        let mut claims = json!({
            "iss": self.issuer(),
            "aud": CLIENT_ID,
            "iat": now,
            "exp": now + 120,
            "jti": random_text(12),
            "events": { "http://schemas.openid.net/event/backchannel-logout": {} },
        });
        let members = claims.as_object_mut().expect("written as an object above");
        for (name, value) in changes.as_object().expect("changes are an object") {
            members.insert(name.clone(), value.clone());
        }
        members.retain(|_, value| !value.is_null());
        claims
    }

    /// A logout token, signed and typed as it should be.
    pub fn logout_token(&self, changes: &Value) -> String {
        self.sign(&json!({ "typ": "logout+jwt" }), &self.logout_claims(changes))
    }

    /// A token with any claims, signed with the key of the moment; `header` is put over its `alg` and `kid`.
    pub fn sign(&self, header: &Value, claims: &Value) -> String {
        let key = self.signing_key();
        let mut whole = json!({ "alg": key.alg().name(), "kid": key.kid() });
        for (name, value) in header.as_object().expect("a header is an object") {
            whole[name] = value.clone();
        }
        key.token_with_header(&whole, claims)
    }

    /// The key that it signs with at the moment.
    pub fn signing_key(&self) -> Arc<SigningKey> {
        self.state().keys[0].clone()
    }
}
