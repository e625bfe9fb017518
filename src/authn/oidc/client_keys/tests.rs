//! Every kind of key, in every form; and that nothing private is ever published or told.

use aws_lc_rs::encoding::{AsDer as _, EcPrivateKeyRfc5915Der, Pkcs8V1Der};
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{EcdsaKeyPair, Ed25519KeyPair, RsaKeyPair};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use super::*;
use crate::authn::oidc::jwks::KeySet;
use crate::authn::oidc::vectors::{ed25519, encrypted, published};

fn pem(label: &str, der: &[u8]) -> String {
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", BASE64_STANDARD.encode(der))
}

/// Reads these contents as if from files.
fn keys(contents: &[&str]) -> Result<ClientKeys, KeyFileError> {
    let paths: Vec<_> = (1..=contents.len()).map(|number| PathBuf::from(format!("key-{number}"))).collect();
    let contents: Vec<_> = contents.iter().map(|text| Ok(Zeroizing::new(text.as_bytes().to_vec()))).collect();
    ClientKeys::build(&paths, &contents)
}

fn told(contents: &str) -> String {
    keys(&[contents]).unwrap_err().to_string()
}

fn with(jwk: &Value, changes: Value) -> Value {
    let mut jwk = jwk.clone();
    jwk.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    jwk
}

fn rsa() -> Value {
    published()["rfc7520"]["rsa"].clone()
}

fn ec() -> Value {
    published()["rfc7515"]["A.3"]["key"].clone()
}

/// One of each kind, by its JWK.
fn every_kind() -> Vec<Value> {
    let mut kinds = encrypted()["keys"].as_array().unwrap().clone();
    kinds.push(ed25519());
    kinds
}

#[test]
fn every_form_of_pem_is_read_beside_what_else_stands_in_the_file() {
    let rsa = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
    let der: Pkcs8V1Der<'_> = rsa.as_der().unwrap();
    // RFC 5958 §2: version, algorithm, and the PKCS #1 key in an octet string.
    let forms = [pem("PRIVATE KEY", der.as_ref()), pem("RSA PRIVATE KEY", &der.as_ref()[26..])];
    for form in forms {
        assert!(keys(&[&form]).unwrap().keys[0].signs(Algorithm::PS256), "{form:.30}");
    }
    for curve in [Curve::P256, Curve::P384, Curve::P521] {
        let name = curve.name();
        let pair = EcdsaKeyPair::generate(match curve {
            Curve::P256 => &aws_lc_rs::signature::ECDSA_P256_SHA256_FIXED_SIGNING,
            Curve::P384 => &aws_lc_rs::signature::ECDSA_P384_SHA384_FIXED_SIGNING,
            Curve::P521 => &aws_lc_rs::signature::ECDSA_P521_SHA512_FIXED_SIGNING,
        })
        .unwrap();
        let sec1: EcPrivateKeyRfc5915Der<'_> = pair.private_key().as_der().unwrap();
        let pkcs8 = pair.to_pkcs8v1().unwrap();
        let sec1 = pem("EC PARAMETERS", &[5, 0]) + &pem("EC PRIVATE KEY", sec1.as_ref());
        let read: Vec<_> =
            [sec1, pem("PRIVATE KEY", pkcs8.as_ref())].iter().map(|form| keys(&[form]).unwrap()).collect();
        assert_eq!(read[0].public_jwks(), read[1].public_jwks());
        let signing: Vec<_> = Algorithm::ASYMMETRIC.into_iter().filter(|one| read[0].keys[0].signs(*one)).collect();
        assert_eq!(signing.len(), 1, "{signing:?}");
        assert_eq!(read[0].public_jwks()["keys"][0]["crv"], name);
    }
    let ed = Ed25519KeyPair::generate().unwrap();
    for der in [ed.to_pkcs8v1().unwrap(), ed.to_pkcs8().unwrap()] {
        assert!(keys(&[&pem("PRIVATE KEY", der.as_ref())]).unwrap().keys[0].signs(Algorithm::EdDSA));
    }
    let x25519 = BASE64_STANDARD.decode(X25519).unwrap();
    let read = keys(&[&(pem("CERTIFICATE", b"any") + &pem("PRIVATE KEY", &x25519))]).unwrap();
    assert_eq!(read.public_jwks()["keys"][0]["x"], "0xxSzLgodIB64wBWAbZ0i9UIlBmVZd9o4iub1_66rX4");
    assert!(read.keys[0].manages(KeyManagement::EcdhEs) && !read.keys[0].can_sign());
}

#[test]
fn nothing_private_is_ever_published() {
    const PUBLIC: [&str; 8] = ["kty", "crv", "x", "y", "n", "e", "kid", "use"];
    for jwk in every_kind() {
        let published = keys(&[&jwk.to_string()]).unwrap().public_jwks();
        let entries = published["keys"].as_array().unwrap();
        assert!(!entries.is_empty());
        for entry in entries {
            for (name, value) in entry.as_object().unwrap() {
                assert!(PUBLIC.contains(&name.as_str()), "{name}");
                if !["kid", "use"].contains(&name.as_str()) {
                    assert_eq!(value, &jwk[name]);
                }
            }
        }
        let text = published.to_string();
        for private in ["d", "p", "q", "dp", "dq", "qi"].iter().filter_map(|name| jwk.get(*name)) {
            assert!(!text.contains(private.as_str().unwrap()));
        }
        let shown = format!("{:?}", keys(&[&jwk.to_string()]).unwrap());
        assert!(!shown.contains(jwk["d"].as_str().unwrap()), "{shown}");
    }
}

#[test]
fn what_is_published_verifies_what_is_signed() {
    for jwk in every_kind() {
        let keys = keys(&[&jwk.to_string()]).unwrap();
        if !keys.keys[0].can_sign() {
            continue;
        }
        let set = KeySet::parse(keys.public_jwks().to_string().as_bytes()).unwrap();
        for algorithm in Algorithm::ASYMMETRIC.into_iter().filter(|algorithm| keys.keys[0].signs(*algorithm)) {
            let signature = keys.keys[0].signature(algorithm, b"message").unwrap();
            assert_eq!(
                set.verify(algorithm, Some(keys.keys[0].kid()), b"message", &signature),
                Ok(()),
                "{algorithm:?}"
            );
        }
    }
}

#[test]
fn a_key_for_both_is_published_once_for_each_use_under_two_names() {
    let jwk = with(&ec(), json!({"kid": "k"}));
    let set = keys(&[&jwk.to_string()]).unwrap();
    let published = set.public_jwks();
    let entries: Vec<_> =
        published["keys"].as_array().unwrap().iter().map(|entry| (&entry["kid"], &entry["use"])).collect();
    assert_eq!(json!(entries), json!([["k", "sig"], ["k-enc", "enc"]]));
    for kid in [None, Some("k"), Some("k-enc"), Some("stranger")] {
        assert_eq!(set.decrypting(KeyManagement::EcdhEs, kid).len(), 1, "{kid:?}");
    }
    for (change, uses) in [
        (json!({"use": "sig"}), json!(["sig"])),
        (json!({"use": "enc"}), json!(["enc"])),
        (json!({"key_ops": ["sign"]}), json!(["sig"])),
        (json!({"key_ops": ["deriveBits"]}), json!(["enc"])),
        (json!({"alg": "ES256"}), json!(["sig"])),
        (json!({"alg": "ECDH-ES+A128KW"}), json!(["enc"])),
    ] {
        let published = keys(&[&with(&jwk, change).to_string()]).unwrap().public_jwks();
        let found: Vec<_> = published["keys"].as_array().unwrap().iter().map(|entry| entry["use"].clone()).collect();
        assert_eq!(json!(found), uses);
    }
}

#[test]
fn the_first_key_that_fits_signs_and_a_key_without_name_has_its_thumbprint() {
    let (old, new) = (with(&ec(), json!({"kid": "ec"})), ed25519());
    let set = keys(&[&json!({"keys": [rsa(), old]}).to_string(), &new.to_string()]).unwrap();
    let signer = |wanted: &[Algorithm]| set.signer(wanted).map(|(key, algorithm)| (key.kid.clone(), algorithm));
    assert_eq!(signer(&[Algorithm::ES256, Algorithm::EdDSA]), Some(("ec".into(), Algorithm::ES256)));
    assert_eq!(signer(&[Algorithm::ES384]), None);
    // RFC 8037 A.3.
    let name = "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k";
    assert_eq!(signer(&[Algorithm::EdDSA]), Some((name.into(), Algorithm::EdDSA)));
}

#[test]
fn every_problem_is_told_at_once_with_its_file_and_without_its_contents() {
    let error = keys(&[&ed25519().to_string(), "nonsense", &ed25519().to_string(), "{\"secret\": "]).unwrap_err();
    let text = error.to_string();
    assert_eq!(error.problems.len(), 3, "{text}");
    for (file, what) in [("key-2", "holds no private key"), ("key-3", "a second key"), ("key-4", "is not a JWK")] {
        let told = error.problems.iter().find(|problem| problem.file == Path::new(file)).unwrap();
        assert!(told.what.contains(what), "{text}");
    }
    assert!(!text.contains("nonsense") && !text.contains("secret"), "{text}");
    let missing = ClientKeys::read(&["/nonexistent/key".into()]).unwrap_err().to_string();
    assert!(missing.starts_with("/nonexistent/key cannot be read: "), "{missing}");
}

#[test]
fn weak_and_unsound_keys_are_refused() {
    let weak = BASE64_STANDARD.decode(RSA_1024).unwrap();
    assert!(told(&pem("PRIVATE KEY", &weak)).contains("fewer than 2048 bits"));
    assert!(told(&pem("RSA PRIVATE KEY", &weak[26..])).contains("fewer than 2048 bits"));
    assert!(told(&pem("ENCRYPTED PRIVATE KEY", &weak)).contains("unencrypted"));
    assert!(told(&pem("PRIVATE KEY", b"garbage")).contains("it is not RSA"));
    let short = rsa()["n"].as_str().unwrap()[..172].to_owned();
    let other = published()["rfc7515"]["A.2"]["key"].clone();
    for (jwk, what) in [
        (with(&rsa(), json!({"n": short})), "fewer than 2048 bits"),
        (with(&rsa(), json!({"n": other["n"]})), "no sound RSA"),
        (with(&rsa(), json!({"d": other["d"]})), "no sound RSA"),
        (with(&rsa(), json!({"qi": null})), "is missing"),
        (with(&rsa(), json!({"oth": []})), "more than two primes"),
        (with(&ec(), json!({"d": ed25519()["d"]})), "do not belong together"),
        (with(&ec(), json!({"d": "AAAA"})), "not of the curve's length"),
        (with(&ec(), json!({"crv": "secp256k1"})), "crv is not"),
        (with(&ec(), json!({"d": null})), "must be a private key"),
        (with(&ed25519(), json!({"x": ed25519()["d"]})), "do not belong together"),
        (with(&ed25519(), json!({"d": "AAAA"})), "32 bytes"),
        (with(&ed25519(), json!({"crv": "Ed448"})), "crv is not"),
        (with(&ed25519(), json!({"use": "enc"})), "does not fit its kind"),
        (with(&ed25519(), json!({"alg": "ES256"})), "does not fit its kind"),
        (with(&ed25519(), json!({"alg": "HS256"})), "alg is not known"),
        (with(&ed25519(), json!({"use": "both"})), "neither sig nor enc"),
        (with(&ed25519(), json!({"use": "sig", "key_ops": ["decrypt"]})), "contradict"),
        (with(&ed25519(), json!({"key_ops": ["verify"]})), "nothing that a private key does"),
        (with(&ed25519(), json!({"kid": ""})), "kid is no text"),
        (json!({"kty": "oct", "k": "AAAA"}), "symmetric"),
        (json!({"keys": []}), "without keys"),
        (json!({"keys": [ed25519(), 7]}), "keys[1]"),
    ] {
        let told = told(&jwk.to_string());
        assert!(told.contains(what), "{told} instead of {what}");
    }
}

/// Nobody's: 1024 bits, PKCS #8.
const RSA_1024: &str = "MIICdQIBADANBgkqhkiG9w0BAQEFAASCAl8wggJbAgEAAoGBAKrpc/Tn0y/K5sFQYV5YGoEr+XkvZYx2pIqylV7CZ9KJ4AO8MTXrxjn/7XgfRPXD5ziiKN0GD5hS9CTWybuTMPGberqZpyZprkSZaLPQQH/mxUgTU+wYWuqzeQtEzpGxqKIwlyqfsEPe1DV6XUhkwjiNVGEXrioJ4sMSySRM9Z/BAgMBAAECgYAkjJ4Wjoj0HIDycD0STucEHqJQDxm5Sxnu6zfUNuC6/m8gfVtMu6n9d0SSPqWhpQ5KZysz8PreyUaapjAn49dASlck7b3RvzU0/KuVKNyviF9v1IdIgC5vVQDOtQU2v4/B7IO6w35qyXMcObbj4oVhdK8VMrp9Xb+/XhffmwaJPQJBANK3IECfngYrVdf0t9vmH93IXiQKr88QAwqyX7NG5DQL30jrQiJcD465ov/IJZ92Fp4yaP/2YMb0PzRu5wb0xOcCQQDPpHj1l9g6wrI5UseKcuGPK+1Z4p2i6FArjyDNwUG+J9lit/VvqZyYxLV/jIDVdUSxgtraHKZsbigjjvqtS7kXAkAW5G5MlwrEANFCtQOEkGvF3I7du4t+I28xKk/bWkhQnzmS4nw832ORTfm3cDcmK94pMbDWnh3Ff6OePq46wzzhAkA4bLhV/LJMnXWy8BS7QaabslMoVtWBXGHUxGsknnyQAOIo2lZ+xneAaAvuIi8sUladajKwjJKI6pJLv2HNT8N3AkAW461MzKAbV3Dv9EL+sLoMfCqs56v1Kkqt5wtY4kuzoobB1RawVHv7LbryE5HisfOcI8xYNT+VBKaY9+eRzPfS";

/// Nobody's either: PKCS #8, as OpenSSL writes it.
const X25519: &str = "MC4CAQAwBQYDK2VuBCIEINjhdVB6LMSrrAueZtp6mVTCLN7CgMm8aXjQZsDxVPh+";

/// RFC 7517 appendix A, and B with its certificate: what is ours to keep, what a provider may publish, and what nobody may.
#[test]
fn the_key_sets_of_rfc_7517_are_kept_published_or_left_out() {
    let sets = &published()["rfc7517"];
    let provider = |keys: &Value| KeySet::parse(keys.to_string().as_bytes());
    let private = keys(&[&sets["A.2"].to_string()]).unwrap();
    let mut public = sets["A.1"].clone();
    public["keys"][1]["use"] = "sig".into();
    assert_eq!(private.public_jwks(), public);
    let signature = private.keys[1].signature(Algorithm::RS256, b"signed").unwrap();
    let set = provider(&sets["A.1"]).unwrap();
    assert_eq!(set.verify(Algorithm::RS256, Some("2011-04-29"), b"signed", &signature), Ok(()));
    // The other one there is for encryption.
    assert!(set.verify(Algorithm::ES256, Some("1"), b"signed", &signature).is_err());
    for secret in ["A.2", "A.3"] {
        assert!(provider(&sets[secret]).is_err(), "{secret} is no set to publish");
    }
    assert!(keys(&[&sets["A.3"].to_string()]).is_err());
    assert!(provider(&json!({"keys": [sets["B"]]})).is_ok());
}
