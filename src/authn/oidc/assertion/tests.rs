//! What an assertion says, and what it is signed with.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::*;
use crate::authn::oidc::jose::{Jws, Trust};
use crate::authn::oidc::jwks::KeySet;
use crate::authn::oidc::test_keys::b64;
use crate::authn::oidc::vectors::{ed25519, published};
use crate::clock::UnixTime;

const NOW: UnixTime = UnixTime(1_700_000_000);

fn keys(jwks: Value) -> ClientKeys {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), json!({ "keys": jwks }).to_string()).unwrap();
    ClientKeys::read(&[file.path().to_owned()]).unwrap()
}

fn header(token: &str) -> Value {
    serde_json::from_slice(&crate::authn::oidc::jose::base64url(token.split('.').next().unwrap()).unwrap()).unwrap()
}

fn fresh(jti: &str) -> Fresh<'_> {
    Fresh { now: NOW, jti }
}

fn expected(jti: &str) -> Value {
    json!({
        "iss": "app", "sub": "app", "aud": "https://id.example", "jti": jti, "iat": NOW.0, "exp": NOW.0 + 60
    })
}

#[test]
fn an_assertion_by_key_says_who_we_are_for_one_minute() {
    assert_eq!(ASSERTION_TYPE, "urn:ietf:params:oauth:client-assertion-type:jwt-bearer");
    let keys = keys(json!([ed25519()]));
    let signer = key_signer(&keys, None, &Algorithm::ASYMMETRIC).unwrap();
    let token = assertion(&signer, "app", "https://id.example", fresh("j1")).unwrap();
    let set = KeySet::parse(keys.public_jwks().to_string().as_bytes()).unwrap();
    let trust = Trust { keys: &set, secret: None, algorithms: &[Algorithm::EdDSA] };
    let claims = Jws::parse(&token).unwrap().verify(trust).unwrap();
    assert_eq!(Value::Object(claims), expected("j1"));
    let kid = keys.public_jwks()["keys"][0]["kid"].clone();
    assert_eq!(header(&token), json!({"alg": "EdDSA", "typ": "JWT", "kid": kid}));
}

#[test]
fn an_assertion_by_secret_is_no_stronger_than_the_secret_is_long() {
    let secret = |length: usize| SecretString::new("s".repeat(length));
    for (length, offered, found) in [
        (32, None, Ok("HS256")),
        (64, Some(&[Algorithm::HS512, Algorithm::HS384][..]), Ok("HS384")),
        (48, Some(&[Algorithm::HS512]), Err(SigningError::ShortSecret)),
        (31, None, Err(SigningError::ShortSecret)),
        (64, Some(&[Algorithm::RS256]), Err(SigningError::NoKey)),
        (64, Some(&[]), Err(SigningError::NoKey)),
    ] {
        let secret = secret(length);
        let signer = secret_signer(&secret, offered, &Algorithm::SYMMETRIC);
        let token = signer.map(|signer| assertion(&signer, "app", "https://id.example", fresh("j2")).unwrap());
        assert_eq!(token.as_ref().map(|token| header(token)["alg"].clone()), found.as_ref().map(|name| json!(name)));
        let Ok(token) = token else { continue };
        let trust = Trust { keys: &KeySet::default(), secret: Some(&secret), algorithms: &Algorithm::SYMMETRIC };
        assert_eq!(Value::Object(Jws::parse(&token).unwrap().verify(trust).unwrap()), expected("j2"));
        assert_eq!(header(&token).get("kid"), None);
    }
}

#[test]
fn the_algorithm_is_offered_allowed_and_the_keys_own() {
    use Algorithm::*;
    let keys = keys(json!([published()["rfc7520"]["rsa"], ed25519()]));
    for (offered, allowed, chosen) in [
        (None, &Algorithm::ASYMMETRIC[..], Ok("RS256")),
        (None, &[PS256, ES256, EdDSA], Ok("PS256")),
        (Some(&[RS256, PS256][..]), &Algorithm::ASYMMETRIC, Ok("PS256")),
        (Some(&[RS256, ES256][..]), &Algorithm::ASYMMETRIC, Ok("RS256")),
        (Some(&[EdDSA, ES256]), &Algorithm::ASYMMETRIC, Ok("EdDSA")),
        (Some(&[RS256]), &[PS256, ES256, EdDSA], Err(SigningError::NoKey)),
        (Some(&[ES256]), &Algorithm::ASYMMETRIC, Err(SigningError::NoKey)),
        (Some(&[HS256]), &[HS256], Err(SigningError::NoKey)),
    ] {
        let signer = key_signer(&keys, offered, allowed);
        let alg = signer.map(|signer| header(&assertion(&signer, "a", "b", fresh("j")).unwrap())["alg"].clone());
        assert_eq!(alg, chosen.map(|name| json!(name)), "{offered:?} {allowed:?}");
    }
    assert!(Algorithm::ASYMMETRIC.iter().all(|algorithm| PREFERRED.contains(algorithm)));
}

#[test]
fn a_service_accounts_token_is_read_anew_at_each_use() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token");
    let file = FederatedToken::new(path.clone());
    assert!(matches!(file.read(), Err(FederatedTokenError::Unreadable(..))));
    for subject in ["one", "two"] {
        let claims = b64(json!({ "sub": subject }).to_string());
        let token = format!("{}.{claims}.{}", b64(r#"{"alg":"RS256","kid":"k"}"#), b64("signature"));
        std::fs::write(&path, format!("\n {token}\r\n")).unwrap();
        assert_eq!(file.read().unwrap().expose_secret(), token);
    }
}

#[test]
fn what_is_no_signed_token_is_never_sent() {
    let folder = tempfile::tempdir().unwrap();
    let path: PathBuf = folder.path().join("token");
    let (header, claims) = (b64(r#"{"alg":"RS256"}"#), b64("{}"));
    for content in [
        String::new(),
        "password".into(),
        format!("{header}.{claims}"),
        format!("{header}.{claims}."),
        format!("{header}.{claims}.x.y"),
        format!("{header}.{claims}.a b"),
        format!("{}.{claims}.AAAA", b64(r#"{"alg":"none"}"#)),
        format!("{}.{claims}.AAAA", b64("{}")),
        format!("{header}.{}.AAAA", b64("[]")),
        format!("{header}.{claims}.AAAA\n{header}.{claims}.AAAA"),
        format!("{header}.{claims}.{}", "A".repeat(16 * 1024)),
    ] {
        std::fs::write(&path, &content).unwrap();
        let error = FederatedToken::new(path.clone()).read().unwrap_err();
        assert!(!format!("{error} {error:?}").contains("password"));
    }
}
