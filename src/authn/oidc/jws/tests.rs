//! The examples of RFC 7515, 7519 and 7520: signed again where that gives the same bytes, and verified by our own verifier.

use serde_json::json;

use super::*;
use crate::authn::oidc::claims::judge_expiry;
use crate::authn::oidc::client_keys::ClientKeys;
use crate::authn::oidc::jose::{JoseError, Jws, Trust, base64url};
use crate::authn::oidc::jwks::KeySet;
use crate::authn::oidc::vectors::{ed25519, published};
use crate::clock::UnixTime;

/// Keys as if from a file.
fn keys(jwk: &Value) -> ClientKeys {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), jwk.to_string()).unwrap();
    ClientKeys::read(&[file.path().to_owned()]).unwrap()
}

fn signer(jwk: &Value, algorithm: Algorithm) -> Signer {
    let (key, algorithm) = keys(jwk).signer(&[algorithm]).unwrap();
    Signer::key(key, algorithm).unwrap()
}

fn verifies(token: &str, keys: &KeySet, algorithm: Algorithm) -> Result<(), JoseError> {
    let (signed, signature) = token.rsplit_once('.').unwrap();
    keys.verify(algorithm, None, signed.as_bytes(), &base64url(signature).unwrap())
}

fn public(jwk: &Value) -> KeySet {
    KeySet::parse(keys(jwk).public_jwks().to_string().as_bytes()).unwrap()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

/// A token's header without `alg`, and its payload.
fn parts(token: &str) -> (Map<String, Value>, Vec<u8>) {
    let mut parts = token.split('.').map(|part| base64url(part).unwrap());
    let header = serde_json::from_slice(&parts.next().unwrap()).unwrap();
    (header, parts.next().unwrap())
}

#[test]
fn the_hmac_example_of_rfc_7515_a_1_has_its_signature() {
    let example = &published()["rfc7515"]["A.1"];
    let (signed, signature) = text(&example["token"]).rsplit_once('.').unwrap();
    let key = hmac::Key::new(hmac::HMAC_SHA256, &base64url(text(&example["key"]["k"])).unwrap());
    assert_eq!(BASE64_URL_SAFE_NO_PAD.encode(hmac::sign(&key, signed.as_bytes())), signature);
}

#[test]
fn the_claims_of_rfc_7519_3_1_are_read_and_end_in_time_and_those_of_6_1_are_nobodys() {
    let examples = &published()["rfc7519"];
    let token = Jws::parse(text(&examples["3.1"])).unwrap();
    let claims = token.unproven_claims().unwrap();
    assert_eq!(json!(claims), json!({"iss": "joe", "exp": 1_300_819_380, "http://example.com/is_root": true}));
    assert_eq!(token.algorithm(), Algorithm::HS256);
    assert!(judge_expiry(&claims, 0, UnixTime(1_300_819_379)).is_ok());
    assert!(judge_expiry(&claims, 0, UnixTime(1_300_819_380)).is_err());
    let unsecured = Jws::parse(text(&examples["6.1"]));
    assert_eq!(unsecured.err(), Some(JoseError::Algorithm));
}

#[test]
fn the_rsa_example_of_rfc_7515_a_2_is_signed_byte_for_byte() {
    let example = &published()["rfc7515"]["A.2"];
    let (_, payload) = parts(text(&example["token"]));
    let token = signer(&example["key"], Algorithm::RS256).sign(&Map::new(), &payload).unwrap();
    assert_eq!(token, text(&example["token"]));
}

#[test]
fn the_eddsa_example_of_rfc_8037_a_4_is_signed_byte_for_byte() {
    let signer = signer(&ed25519(), Algorithm::EdDSA);
    let token = signer.sign(&Map::new(), b"Example of Ed25519 signing").unwrap();
    assert_eq!(
        token,
        "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc.\
         hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg"
    );
    let newer = signer.fully_specified().sign(&Map::new(), b"x").unwrap();
    assert_eq!(parts(&newer).0["alg"], "Ed25519");
}

#[test]
fn the_elliptic_examples_of_rfc_7515_verify_and_so_does_what_we_sign() {
    for (name, algorithm) in [("A.2", Algorithm::RS256), ("A.3", Algorithm::ES256), ("A.4", Algorithm::ES512)] {
        let example = &published()["rfc7515"][name];
        let set = public(&example["key"]);
        assert_eq!(verifies(text(&example["token"]), &set, algorithm), Ok(()), "{name}");
        let (header, payload) = parts(text(&example["token"]));
        let ours = signer(&example["key"], algorithm).sign(&header, &payload).unwrap();
        assert_eq!(parts(&ours), (header, payload), "{name}");
        assert_eq!(verifies(&ours, &set, algorithm), Ok(()), "{name}");
    }
}

#[test]
fn the_examples_of_rfc_7520_verify_and_those_without_chance_are_signed_byte_for_byte() {
    let cookbook = &published()["rfc7520"];
    let header = |token: &str| {
        let (mut header, payload) = parts(token);
        header.remove("alg");
        (header, payload)
    };
    for (name, key, algorithm) in
        [("4.1", "rsa", Algorithm::RS256), ("4.2", "rsa", Algorithm::PS384), ("4.3", "ec", Algorithm::ES512)]
    {
        let token = text(&cookbook[name]);
        let set = public(&cookbook[key]);
        assert_eq!(verifies(token, &set, algorithm), Ok(()), "{name}");
        let (header, payload) = header(token);
        let ours = signer(&cookbook[key], algorithm).sign(&header, &payload).unwrap();
        assert_eq!(verifies(&ours, &set, algorithm), Ok(()), "{name}");
        if name == "4.1" {
            assert_eq!(ours, token);
        }
    }
    let (signed, signature) = text(&cookbook["4.4"]).rsplit_once('.').unwrap();
    let key = hmac::Key::new(hmac::HMAC_SHA256, &base64url(text(&cookbook["mac"]["k"])).unwrap());
    assert_eq!(BASE64_URL_SAFE_NO_PAD.encode(hmac::sign(&key, signed.as_bytes())), signature);
}

#[test]
fn each_hmac_signs_with_a_long_enough_secret_and_is_verified_under_its_own_name_only() {
    let secret = SecretString::new("s".repeat(64));
    let claims = json!({"sub": "ada"}).as_object().unwrap().clone();
    for algorithm in Algorithm::SYMMETRIC {
        let token = Signer::secret(&secret, algorithm).unwrap().sign_claims("JWT", &claims).unwrap();
        assert_eq!(json!(parts(&token).0), json!({"alg": algorithm.name(), "typ": "JWT"}));
        for other in Algorithm::SYMMETRIC {
            let trust = Trust { keys: &KeySet::default(), secret: Some(&secret), algorithms: &[other] };
            let verified = Jws::parse(&token).unwrap().verify(trust);
            assert_eq!(verified.is_ok(), algorithm == other, "{algorithm:?} {other:?}");
        }
        let bytes = algorithm.hmac().unwrap().digest_algorithm().output_len();
        let short = Signer::secret(&SecretString::new("s".repeat(bytes - 1)), algorithm);
        assert_eq!(short.unwrap_err(), SigningError::ShortSecret);
        assert!(Signer::secret(&SecretString::new("s".repeat(bytes)), algorithm).is_ok());
    }
    assert_eq!(Signer::secret(&secret, Algorithm::RS256).unwrap_err(), SigningError::NoKey);
}

#[test]
fn a_key_signs_with_its_own_algorithms_only_and_the_header_cannot_name_another() {
    let (key, _) = keys(&ed25519()).signer(&[Algorithm::EdDSA]).unwrap();
    for algorithm in Algorithm::ASYMMETRIC.into_iter().filter(|algorithm| *algorithm != Algorithm::EdDSA) {
        assert_eq!(Signer::key(Arc::clone(&key), algorithm).unwrap_err(), SigningError::NoKey);
        assert!(key.signature(algorithm, b"").is_err());
    }
    let header = json!({"alg": "none", "typ": "JWT"}).as_object().unwrap().clone();
    let token = Signer::key(key, Algorithm::EdDSA).unwrap().sign(&header, b"{}").unwrap();
    assert_eq!(json!(parts(&token).0), json!({"alg": "EdDSA", "typ": "JWT"}));
}
