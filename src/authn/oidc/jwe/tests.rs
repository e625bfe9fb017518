//! The examples of RFC 7516, 7518, 7519 and 7520, tokens of another implementation for every algorithm, and what is refused.

use serde_json::json;

use super::*;
use crate::authn::oidc::jose::base64url;
use crate::authn::oidc::test_keys::b64;
use crate::authn::oidc::vectors::{encrypted, published};

const PAYLOAD: &[u8] = b"header.payload.signature";

fn keys(jwk: &Value) -> ClientKeys {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), jwk.to_string()).unwrap();
    ClientKeys::read(&[file.path().to_owned()]).unwrap()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

fn our_keys() -> ClientKeys {
    keys(&json!({"keys": encrypted()["keys"]}))
}

fn secret() -> SecretString {
    SecretString::new(text(&encrypted()["secret"]).to_owned())
}

fn token(management: &str, content: &str) -> &'static str {
    let tokens = encrypted()["tokens"].as_array().unwrap();
    text(&tokens.iter().find(|token| token[0] == management && token[1] == content).unwrap()[2])
}

fn open(keys: &ClientKeys, token: &str) -> Result<Vec<u8>, Stage> {
    let secret = secret();
    let (management, content) = (&KeyManagement::ALL, &ContentEncryption::ALL);
    Decrypter { keys, secret: Some(&secret), management, content }.open(token).map_err(|error| error.0)
}

#[test]
fn the_published_examples_open() {
    let mut opened = 0;
    for example in published()["jwe"].as_array().unwrap() {
        let (name, token) = (text(&example["name"]), text(&example["token"]));
        let found = if example["key"]["kty"] == "oct" {
            let key = base64url(text(&example["key"]["k"])).unwrap();
            Jwe::parse(token).and_then(|token| token.open_shared(&key))
        } else {
            open(&keys(&example["key"]), token)
        };
        match name {
            // RSA1_5, PBES2 and compression.
            "RFC 7516 A.2" | "RFC 7519 A.1" | "RFC 7519 A.2" | "RFC 7520 5.1" | "RFC 7520 5.3" => {
                assert_eq!(found, Err(Stage::Algorithm), "{name}")
            }
            "RFC 7520 5.9" => assert_eq!(found, Err(Stage::Extension), "{name}"),
            _ => {
                assert_eq!(String::from_utf8(found.unwrap()).unwrap(), text(&example["plaintext"]), "{name}");
                opened += 1;
            }
        }
    }
    assert_eq!(opened, 8);
}

#[test]
fn the_content_examples_of_rfc_7518_b_open() {
    for example in published()["rfc7518_b"].as_array().unwrap() {
        let bytes = |name: &str| -> Vec<u8> {
            let hex = text(&example[name]);
            (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
        };
        let content = ContentEncryption::from_name(text(&example["enc"])).unwrap();
        let open = |key: &[u8], iv: &[u8], aad: &[u8], ciphertext: &[u8], tag: &[u8]| {
            content.open(key, &Sealed { iv, aad, ciphertext, tag }).ok()
        };
        let [key, iv, aad, ciphertext, tag] = ["key", "iv", "aad", "ciphertext", "tag"].map(bytes);
        assert_eq!(open(&key, &iv, &aad, &ciphertext, &tag).unwrap(), bytes("plaintext"));
        assert_eq!(open(&key, &iv, &aad, &ciphertext, &tag[1..]), None);
        assert_eq!(open(&key, &iv, &aad, &ciphertext, b""), None);
        assert_eq!(open(&key[1..], &iv, &aad, &ciphertext, &tag), None);
        assert_eq!(open(&key, &iv[1..], &aad, &ciphertext, &tag), None);
        assert_eq!(open(&key, &iv, b"", &ciphertext, &tag), None);
        assert_eq!(open(&key, &iv, &aad, b"", &tag), None);
    }
}

/// RFC 7518 appendix C: Alice's ephemeral key, Bob's static one.
#[test]
fn the_agreement_example_of_rfc_7518_c_gives_its_key() {
    let bob = json!({
        "kty": "EC", "crv": "P-256", "x": "weNJy2HscCSM6AEDTDg04biOvhFhyyWvOHQfeF_PxMQ",
        "y": "e8lnCO-AlStT-NJVX-crhB7QRYhiix03illJOVAOyck", "d": "VEmDZpDXXK8p8N0Cndsxs924q6nS1RXFASRl6BfUqdw"
    });
    let header = json!({
        "alg": "ECDH-ES", "enc": "A128GCM", "apu": "QWxpY2U", "apv": "Qm9i",
        "epk": {
            "kty": "EC", "crv": "P-256", "x": "gI0GAILBdu7T53akrFmMyGcsF3n5dO7MmwNBHKW5SV0",
            "y": "SLW_xSffzlPWrHEVI30DHM_4egVwt3NQqeUD7nMFpps"
        }
    });
    let keys = keys(&bob);
    let bob = keys.decrypting(KeyManagement::EcdhEs, None)[0].material();
    let key = ecdh::agree(header.as_object().unwrap(), bob, "A128GCM", 16);
    assert_eq!(b64(key.unwrap().as_slice()), "VqqN6vgjbSBcIijNcacQGg");
}

#[test]
fn every_algorithm_opens_what_another_implementation_sealed() {
    let keys = our_keys();
    let mut opened = Vec::new();
    for example in encrypted()["tokens"].as_array().unwrap() {
        let (management, content, token) = (text(&example[0]), text(&example[1]), text(&example[2]));
        let Some(known) = KeyManagement::from_name(management) else {
            assert!(management.contains("A192"), "{management}");
            assert_eq!(open(&keys, token), Err(Stage::Algorithm));
            continue;
        };
        assert_eq!(open(&keys, token).as_deref(), Ok(PAYLOAD), "{management} {content}");
        opened.push((known.name(), content));
    }
    for management in KeyManagement::ALL {
        assert!(opened.iter().any(|(known, _)| *known == management.name()), "{management:?}");
    }
    for content in ContentEncryption::ALL {
        assert!(opened.iter().any(|(_, known)| *known == content.name()), "{content:?}");
    }
}

#[test]
fn only_what_is_allowed_is_opened() {
    let (keys, secret) = (our_keys(), secret());
    let decrypter = |management: &'static [KeyManagement], content: &'static [ContentEncryption]| Decrypter {
        keys: &keys,
        secret: Some(&secret),
        management,
        content,
    };
    let oaep = token("RSA-OAEP-256", "A256GCM");
    let allowed = decrypter(&[KeyManagement::RsaOaep256], &[ContentEncryption::A256Gcm]);
    assert!(allowed.open(oaep).is_ok());
    for refused in [token("dir", "A256GCM"), token("ECDH-ES", "A256GCM"), token("RSA-OAEP-256", "A128GCM")] {
        let error = allowed.open(refused).unwrap_err();
        assert_eq!((error.0, error.stage()), (Stage::Algorithm, "its algorithms are not allowed"));
        assert_eq!(error.to_string(), "the token cannot be decrypted");
    }
    assert!(decrypter(&[], &ContentEncryption::ALL).open(oaep).is_err());
    assert!(decrypter(&KeyManagement::ALL, &[]).open(oaep).is_err());
    // Without a secret there is no symmetric key, and an empty one is none.
    for secret in [None, Some(&SecretString::new(String::new()))] {
        let without = Decrypter { secret, ..decrypter(&KeyManagement::ALL, &ContentEncryption::ALL) };
        assert_eq!(without.open(token("dir", "A256GCM")).unwrap_err().0, Stage::NoKey);
    }
    assert_eq!(open(&ClientKeys::default(), oaep), Err(Stage::NoKey));
}

#[test]
fn a_flipped_bit_in_any_part_is_refused() {
    let keys = our_keys();
    for (management, content) in [
        ("RSA-OAEP-256", "A256GCM"),
        ("RSA-OAEP", "A256CBC-HS512"),
        ("ECDH-ES", "A256CBC-HS512"),
        ("ECDH-ES+A256KW", "A128GCM"),
        ("A128GCMKW", "A128GCM"),
        ("A256KW", "A256CBC-HS512"),
        ("dir", "A192GCM"),
        ("dir", "A128CBC-HS256"),
    ] {
        let parts: Vec<_> = token(management, content).split('.').map(str::to_owned).collect();
        for index in 0..5 {
            let bytes = base64url(&parts[index]).unwrap();
            for at in [0, bytes.len() / 2, bytes.len().saturating_sub(1)] {
                let Some(byte) = bytes.get(at) else { continue };
                let mut changed = bytes.clone();
                changed[at] = byte ^ 1;
                for changed in [changed, bytes[..at].to_vec()] {
                    let mut parts = parts.clone();
                    parts[index] = b64(changed);
                    assert!(open(&keys, &parts.join(".")).is_err(), "{management} {content} part {index} at {at}");
                }
            }
        }
    }
}

/// A token with another header: refused whatever it says, and for the reason that it gives.
fn with_header(token: &str, change: impl FnOnce(&mut Map<String, Value>)) -> String {
    let (header, rest) = token.split_once('.').unwrap();
    let mut header: Map<String, Value> = serde_json::from_slice(&base64url(header).unwrap()).unwrap();
    change(&mut header);
    format!("{}.{rest}", b64(Value::Object(header).to_string()))
}

#[test]
fn headers_that_ask_for_more_are_refused() {
    let keys = our_keys();
    let agreed = token("ECDH-ES", "A128GCM");
    let set = |name: &'static str, value: Value| {
        move |header: &mut Map<String, Value>| {
            header.insert(name.to_owned(), value);
        }
    };
    for (changed, stage) in [
        (with_header(agreed, set("zip", json!("DEF"))), Stage::Extension),
        (with_header(agreed, set("crit", json!(["exp"]))), Stage::Extension),
        (with_header(agreed, set("alg", json!("RSA1_5"))), Stage::Algorithm),
        (with_header(agreed, set("alg", json!("PBES2-HS256+A128KW"))), Stage::Algorithm),
        (with_header(agreed, set("alg", json!("none"))), Stage::Algorithm),
        (with_header(agreed, set("enc", json!("none"))), Stage::Algorithm),
        (with_header(agreed, set("alg", json!(["dir"]))), Stage::Malformed),
        (with_header(agreed, set("kid", json!(7))), Stage::Malformed),
        (with_header(agreed, set("apu", json!(7))), Stage::Malformed),
        (with_header(agreed, set("apv", json!("="))), Stage::Malformed),
        (with_header(agreed, set("epk", json!("x"))), Stage::Malformed),
        (with_header(agreed, set("alg", json!("ECDH-ES+A128KW"))), Stage::Malformed),
        (with_header(token("RSA-OAEP", "A128GCM"), set("alg", json!("dir"))), Stage::Malformed),
    ] {
        assert_eq!(open(&keys, &changed), Err(stage), "{changed:.200}");
    }
    let twice =
        format!("{}.{}", b64(r#"{"alg":"dir","alg":"dir","enc":"A128GCM"}"#), agreed.split_once('.').unwrap().1);
    assert_eq!(open(&keys, &twice), Err(Stage::Malformed));
}

#[test]
fn an_ephemeral_key_must_be_on_the_curve_of_our_key() {
    let keys = our_keys();
    for (kid, size) in [("P-256", 32), ("P-384", 48), ("P-521", 66)] {
        let tokens = encrypted()["tokens"].as_array().unwrap();
        let named = |token: &&Value| {
            let header: Value =
                serde_json::from_slice(&base64url(text(&token[2]).split('.').next().unwrap()).unwrap()).unwrap();
            header["kid"] == kid && token[0] == "ECDH-ES"
        };
        let token = text(&tokens.iter().find(named).unwrap()[2]);
        for (x, y) in
            [(vec![1; size], vec![1; size]), (vec![0; size], vec![0; size]), (vec![0xff; size], vec![1; size])]
        {
            let epk = json!({"kty": "EC", "crv": kid, "x": b64(x), "y": b64(y)});
            let off = with_header(token, |header| header["epk"] = epk);
            assert_eq!(open(&keys, &off), Err(Stage::Key), "{kid}");
        }
        let elsewhere = with_header(token, |header| header["epk"]["crv"] = "P-224".into());
        assert_eq!(open(&keys, &elsewhere), Err(Stage::Key));
        let short = with_header(token, |header| header["epk"]["x"] = "AAAA".into());
        assert_eq!(open(&keys, &short), Err(Stage::Malformed));
    }
}

#[test]
fn what_is_no_compact_token_is_refused() {
    let keys = our_keys();
    let good = token("dir", "A128GCM");
    let long = format!("{good}{}", "A".repeat(MAX_TOKEN));
    for malformed in ["", ".", "....", "a.b.c", &".".repeat(60_000), &format!("{good}."), &format!("{good}="), &long] {
        assert_eq!(open(&keys, malformed), Err(Stage::Malformed), "{malformed:.80}");
    }
}
