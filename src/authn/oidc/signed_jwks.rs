//! A key set that is signed (OpenID Federation 1.0 §5.2.1, `signed_jwks_uri`) by a key that the operator knows: whoever can speak
//! for the provider's address cannot put a key of their own into it. Where it is configured, no other key set counts.

use bytes::Bytes;
use http::{Request, StatusCode, header};
use serde_json::Value;
use url::Url;

use super::claims::{self, string};
use super::id_token::IdTokenError;
use super::jose::{Algorithm, Jws, Trust};
use super::jwks::{JwksError, KeySet};
use crate::clock::UnixTime;
use crate::provider_http::{ProviderHttp, WrongMediaType, media_type};

/// What a signed key set is held against.
#[derive(Debug, Clone, Copy)]
pub(super) struct HeldAgainst<'a> {
    /// The operator's keys for it.
    pub(super) keys: &'a KeySet,
    pub(super) algorithms: &'a [Algorithm],
    pub(super) issuer: &'a str,
    /// In seconds.
    pub(super) leeway: u64,
    pub(super) now: UnixTime,
}

/// Asks `signed_jwks_uri` for the provider's keys.
pub(super) async fn fetch(http: &ProviderHttp, uri: &Url, expected: HeldAgainst<'_>) -> Result<KeySet, JwksError> {
    let request = Request::get(uri.as_str())
        .header(header::ACCEPT, "application/jwk-set+jwt, application/jwt")
        .body(Bytes::new())
        .map_err(|_| JwksError::NotAKeySet)?;
    let answer = http.send(request).await.map_err(JwksError::Http)?;
    if answer.status() != StatusCode::OK {
        return Err(JwksError::Status(answer.status().as_u16()));
    }
    match media_type(&answer).as_deref() {
        Some("application/jwk-set+jwt" | "application/jwt" | "application/jose") => {}
        found => return Err(WrongMediaType { found: found.unwrap_or_default().chars().take(128).collect() }.into()),
    }
    let text = std::str::from_utf8(answer.body()).map_err(|_| JwksError::NotAKeySet)?;
    verify(text.trim_ascii(), expected)
}

/// Its signature, then whose it is and until when. Pure.
pub(super) fn verify(token: &str, expected: HeldAgainst<'_>) -> Result<KeySet, JwksError> {
    let claims = judge(token, expected).map_err(JwksError::Signed)?;
    KeySet::parse(Value::Object(claims).to_string().as_bytes())
}

fn judge(
    token: &str,
    HeldAgainst { keys, algorithms, issuer, leeway, now }: HeldAgainst<'_>,
) -> Result<serde_json::Map<String, Value>, IdTokenError> {
    let jws = Jws::parse(token)?;
    // No other kind of token that the same key signs passes for one.
    if !matches!(jws.media_type(), None | Some("jwk-set+jwt")) {
        return Err(IdTokenError::Kind);
    }
    let claims = jws.verify(Trust { keys, secret: None, algorithms })?;
    if string(&claims, "iss")? != Some(issuer) {
        return Err(IdTokenError::Issuer);
    }
    // Whose keys they are; the same, where a provider speaks for itself.
    if string(&claims, "sub")?.is_some_and(|subject| subject != issuer) {
        return Err(IdTokenError::Subject);
    }
    if claims.contains_key("exp") {
        claims::judge_expiry(&claims, leeway, now)?;
    }
    claims::judge_begin(&claims, leeway, now)?;
    Ok(claims)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::authn::oidc::test_keys::TestKey;

    const NOW: u64 = 1_700_000_000;
    const ISSUER: &str = "https://id.example";

    #[test]
    fn a_key_set_counts_only_as_the_operators_key_signed_it_for_this_issuer_and_now() {
        let (key, stranger) = (TestKey::new(Algorithm::ES256), TestKey::new(Algorithm::ES256));
        let inside = TestKey::new(Algorithm::EdDSA).jwk("k1");
        let trusted = KeySet::parse(json!({ "keys": [key.jwk("op")] }).to_string().as_bytes()).unwrap();
        let verify = |signer: &TestKey, header: Value, change: Value| {
            let mut claims = json!({ "iss": ISSUER, "sub": ISSUER, "iat": NOW, "exp": NOW + 60, "keys": [inside] });
            for (name, value) in change.as_object().unwrap() {
                claims[name] = value.clone();
            }
            claims.as_object_mut().unwrap().retain(|_, value| !value.is_null());
            let token = signer.sign(Algorithm::ES256, &header, &claims);
            let algorithms = &Algorithm::ASYMMETRIC;
            let expected = HeldAgainst { keys: &trusted, algorithms, issuer: ISSUER, leeway: 30, now: UnixTime(NOW) };
            super::verify(&token, expected).map(|keys| keys.is_empty())
        };
        let head = |typ: Value| json!({ "alg": "ES256", "kid": "op", "typ": typ });
        for header in [head(json!("jwk-set+jwt")), json!({ "alg": "ES256" })] {
            assert!(matches!(verify(&key, header, json!({})), Ok(false)));
        }
        let good = || head(json!("jwk-set+jwt"));
        assert!(verify(&key, good(), json!({ "sub": null, "exp": null, "iat": null })).is_ok());
        for change in [
            json!({ "iss": null }),
            json!({ "iss": "https://id.example/" }),
            json!({ "sub": "https://stranger.example" }),
            json!({ "exp": NOW - 30 }),
            json!({ "exp": "soon" }),
            json!({ "iat": NOW + 31 }),
            json!({ "nbf": NOW + 31 }),
        ] {
            let outcome = verify(&key, good(), change.clone());
            assert!(matches!(outcome, Err(JwksError::Signed(_))), "{change}: {outcome:?}");
        }
        for typ in ["JWT", "at+jwt", "logout+jwt", "entity-statement+jwt"] {
            assert!(matches!(verify(&key, head(json!(typ)), json!({})), Err(JwksError::Signed(IdTokenError::Kind))));
        }
        assert!(matches!(verify(&stranger, good(), json!({})), Err(JwksError::Signed(IdTokenError::Signature))));
        assert!(matches!(verify(&key, good(), json!({ "keys": {} })), Err(JwksError::NotAKeySet)));
        assert!(matches!(verify(&key, good(), json!({ "keys": [] })), Err(JwksError::Empty)));
    }
}
