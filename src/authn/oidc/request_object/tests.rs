//! What a request object holds, and what it never does.

use serde_json::json;

use super::*;
use crate::authn::oidc::client_keys::ClientKeys;
use crate::authn::oidc::jose::{Algorithm, Jws, Trust, base64url};
use crate::authn::oidc::jwks::KeySet;
use crate::authn::oidc::vectors::{ed25519, published};
use crate::clock::UnixTime;

fn keys() -> ClientKeys {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), ed25519().to_string()).unwrap();
    ClientKeys::read(&[file.path().to_owned()]).unwrap()
}

fn object(parameters: &[(&str, &str)]) -> Result<String, RequestObjectError> {
    let (key, algorithm) = keys().signer(&[Algorithm::EdDSA]).unwrap();
    let signer = Signer::key(key, algorithm).unwrap();
    let fresh = Fresh { now: UnixTime(1_700_000_000), jti: "j" };
    request_object(&signer, "app", "https://id.example", parameters.iter().copied(), fresh)
}

#[test]
fn the_parameters_are_claims_of_their_types() {
    let token = object(&[
        ("client_id", "app"),
        ("response_type", "code"),
        ("state", "s&=\u{fc}"),
        ("max_age", "0"),
        ("claims", r#"{"id_token": {"acr": {"essential": true}}}"#),
        ("authorization_details", r#"[{"type": "payment"}]"#),
        ("resource", "https://a.example"),
        ("resource", "https://b.example"),
        ("resource", "https://c.example"),
    ])
    .unwrap();
    let header: Value = serde_json::from_slice(&base64url(token.split('.').next().unwrap()).unwrap()).unwrap();
    assert_eq!((&header["typ"], &header["alg"]), (&json!("oauth-authz-req+jwt"), &json!("EdDSA")));
    let set = KeySet::parse(keys().public_jwks().to_string().as_bytes()).unwrap();
    let trust = Trust { keys: &set, secret: None, algorithms: &[Algorithm::EdDSA] };
    assert_eq!(
        Value::Object(Jws::parse(&token).unwrap().verify(trust).unwrap()),
        json!({
            "iss": "app", "aud": "https://id.example", "iat": 1_700_000_000, "nbf": 1_700_000_000,
            "exp": 1_700_000_300, "jti": "j", "client_id": "app", "response_type": "code", "state": "s&=\u{fc}",
            "max_age": 0, "claims": {"id_token": {"acr": {"essential": true}}},
            "authorization_details": [{"type": "payment"}],
            "resource": ["https://a.example", "https://b.example", "https://c.example"]
        })
    );
}

#[test]
fn the_details_of_rfc_9396_3_are_a_claim_as_they_are() {
    let details = &published()["rfc9396"]["2"];
    let token = object(&[("authorization_details", &details.to_string())]).unwrap();
    assert_eq!(&Jws::parse(&token).unwrap().unproven_claims().unwrap()["authorization_details"], details);
}

#[test]
fn an_object_is_never_inside_another_and_describes_itself_only_once() {
    for name in RESERVED {
        assert_eq!(object(&[(name, "x")]), Err(RequestObjectError::Reserved(name.into())));
    }
    assert_eq!(object(&[("scope", "openid"), ("scope", "email")]), Err(RequestObjectError::Twice("scope".into())));
}

#[test]
fn what_is_not_of_its_type_is_refused() {
    for (name, text) in [
        ("max_age", ""),
        ("max_age", "+1"),
        ("max_age", "1.5"),
        ("max_age", "99999999999999999999"),
        ("claims", "[]"),
        ("claims", "{"),
        ("authorization_details", "{}"),
        ("authorization_details", ""),
    ] {
        assert!(matches!(object(&[(name, text)]), Err(RequestObjectError::Type(..))), "{name} {text}");
    }
}
