//! Our public keys (RFC 7517 §5), for providers that fetch them: to check what we sign, and to encrypt what is for us.

use http::{HeaderValue, Response, StatusCode, header};
use serde_json::{Value, json};

use super::Endpoints;
use crate::message::Body;
use crate::reply::{Rejection, json_answer};

/// Long enough to spare us, short enough that a key that was changed is known before the old one is gone.
const KEPT: HeaderValue = HeaderValue::from_static("public, max-age=300");

impl Endpoints {
    pub(super) fn jwks(&self) -> Result<Response<Body>, Rejection> {
        let mut keys: Vec<Value> = Vec::new();
        for set in self.providers.iter().filter_map(|provider| provider.public_keys()) {
            let entries = set.get("keys").and_then(Value::as_array).cloned().unwrap_or_default();
            // Providers may share a file.
            keys.extend(entries.into_iter().filter(|key| !keys.contains(key)).collect::<Vec<_>>());
        }
        if keys.is_empty() {
            return Err(Rejection::NoEndpoint);
        }
        let mut answer = json_answer(StatusCode::OK, "application/jwk-set+json", &json!({ "keys": keys }));
        answer.headers_mut().insert(header::CACHE_CONTROL, KEPT);
        answer.headers_mut().remove(header::VARY);
        Ok(answer)
    }
}
