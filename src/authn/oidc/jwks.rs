//! The provider's keys (RFC 7517): parsed once into ready-to-use keys; a key that can't be read or used is skipped alone.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256K1_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ECDSA_P521_SHA512_FIXED, ED25519,
    EcdsaVerificationAlgorithm, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384,
    RSA_PKCS1_2048_8192_SHA512, RSA_PSS_2048_8192_SHA256, RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512,
    RsaParameters, RsaPublicKeyComponents,
};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::{Request, header};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use url::Url;

use super::id_token::IdTokenError;
use super::jose::{Algorithm, JoseError, json_object};
use crate::provider_http::{ProviderHttp, WrongMediaType, check_json};

/// Why a key set is unusable as a whole.
#[derive(Debug, thiserror::Error)]
pub enum JwksError {
    /// The call failed.
    #[error("the key set could not be fetched")]
    Http(#[source] crate::provider_http::ProviderHttpError),
    /// The file of keys cannot be read.
    #[error("the file of keys cannot be read")]
    File(#[source] std::io::Error),
    /// A status other than 200.
    #[error("the provider answered the key set request with status {0}")]
    Status(u16),
    /// The signed one does not hold.
    #[error("the signed key set does not hold")]
    Signed(#[source] IdTokenError),
    /// The settings ask for a signed one, and the metadata name none.
    #[error("the provider's metadata name no signed_jwks_uri")]
    NotSigned,
    /// Not JSON by its content type.
    #[error("the key set cannot be read")]
    MediaType(#[from] WrongMediaType),
    /// Not a JSON object with one `keys` array.
    #[error("the key set is not a JSON Web Key Set")]
    NotAKeySet,
    /// No key in it can be used.
    #[error("the key set holds no usable signature key")]
    Empty,
}

/// Asks `jwks_uri` for the provider's keys.
pub(super) async fn fetch(http: &ProviderHttp, jwks_uri: &Url) -> Result<KeySet, JwksError> {
    let request = Request::get(jwks_uri.as_str())
        .header(header::ACCEPT, "application/jwk-set+json, application/json")
        .body(Bytes::new())
        .map_err(|_| JwksError::NotAKeySet)?;
    let answer = http.send(request).await.map_err(JwksError::Http)?;
    if answer.status() != http::StatusCode::OK {
        return Err(JwksError::Status(answer.status().as_u16()));
    }
    check_json(&answer)?;
    KeySet::parse(answer.body())
}

/// Keys ready for use.
#[derive(Debug, Default)]
pub(super) struct KeySet {
    keys: Vec<Key>,
}

/// One public key, with each algorithm it may be used with.
#[derive(Debug)]
struct Key {
    kid: Option<String>,
    verifiers: Vec<(Algorithm, ParsedPublicKey)>,
}

/// A key set as it comes; `keys` twice is an error.
#[derive(Deserialize)]
struct Document<'a> {
    #[serde(borrow)]
    keys: Vec<&'a RawValue>,
}

impl KeySet {
    /// Reads a key set (RFC 7517 §5). Keys that cannot be used, or can be read in two ways since a member stands twice (§4), are
    /// left out; a set whose `keys` stand twice is none.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, JwksError> {
        // An array would be read as the members in their order.
        if !bytes.trim_ascii_start().starts_with(b"{") {
            return Err(JwksError::NotAKeySet);
        }
        let Document { keys: jwks } = serde_json::from_slice(bytes).map_err(|_| JwksError::NotAKeySet)?;
        if jwks.len() > MAX_KEYS {
            tracing::debug!(keys = jwks.len(), used = MAX_KEYS, "the key set is too long; the rest of it is left out");
        }
        let keys: Vec<Key> = jwks.iter().take(MAX_KEYS).filter_map(usable_key).collect();
        if keys.is_empty() {
            return Err(JwksError::Empty);
        }
        Ok(Self { keys })
    }

    /// Whether there is none.
    pub(super) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Checks a signature with every key that may have made it.
    ///
    /// A key named by the token that did not sign it is [`JoseError::Signature`]; where no key is named, none of them
    /// fitting means that the right one is not here (yet).
    pub(super) fn verify(
        &self,
        algorithm: Algorithm,
        kid: Option<&str>,
        signed: &[u8],
        signature: &[u8],
    ) -> Result<(), JoseError> {
        let mut failure = JoseError::UnknownKey;
        // RFC 7517 §4.5: `kid` is optional, so a key without one is never ruled out by name.
        for key in self.keys.iter().filter(|key| kid.is_none() || key.kid.is_none() || key.kid.as_deref() == kid) {
            let named = kid.is_some() && key.kid.is_some();
            let Some((_, verifier)) = key.verifiers.iter().find(|(fitting, _)| *fitting == algorithm) else {
                if named && failure == JoseError::UnknownKey {
                    failure = JoseError::Algorithm;
                }
                continue;
            };
            if verifier.verify_sig(signed, signature).is_ok() {
                return Ok(());
            }
            if named {
                failure = JoseError::Signature;
            }
        }
        Err(failure)
    }
}

fn usable_key(jwk: &&RawValue) -> Option<Key> {
    let Ok(jwk) = json_object(jwk.get().as_bytes()) else {
        tracing::debug!("a key of the provider is left out: it is no object that can be read in one way");
        return None;
    };
    let kid = jwk.get("kid").and_then(Value::as_str);
    match read_key(&jwk) {
        Ok(verifiers) => Some(Key { kid: kid.map(str::to_owned), verifiers }),
        Err(reason) => {
            tracing::debug!(?kid, reason, "a key of the provider is left out");
            None
        }
    }
}

/// A key's verifiers, or why it is left out.
fn read_key(jwk: &Map<String, Value>) -> Result<Vec<(Algorithm, ParsedPublicKey)>, &'static str> {
    if !jwk.get("kid").is_none_or(Value::is_string) {
        return Err("its kid is not a string");
    }
    if !jwk.get("use").is_none_or(|purpose| purpose == "sig") {
        return Err("it is not for signatures (use)");
    }
    if !jwk.get("key_ops").is_none_or(|ops| ops.as_array().is_some_and(|ops| ops.iter().any(|op| op == "verify"))) {
        return Err("it is not for signatures (key_ops)");
    }
    // A published private key proves nothing about who signs with it.
    if jwk.contains_key("d") {
        return Err("it is a private key");
    }
    let bound = match jwk.get("alg") {
        None => None,
        Some(name) => Some(name.as_str().and_then(Algorithm::from_name).ok_or("its alg is not known")?),
    };
    let mut verifiers = match jwk.get("kty").and_then(Value::as_str) {
        Some("RSA") => read_rsa(jwk, bound)?,
        Some("EC") => vec![read_ec(jwk)?],
        Some("OKP") => vec![read_okp(jwk)?],
        // A secret that everybody can read is none.
        Some("oct") => return Err("it is symmetric"),
        _ => return Err("its kty is not known"),
    };
    verifiers.retain(|(algorithm, _)| bound.is_none_or(|bound| bound == *algorithm));
    if verifiers.is_empty() {
        return Err("its alg does not fit its kty");
    }
    Ok(verifiers)
}

/// RFC 7518 §6.3.1.
fn read_rsa(
    jwk: &Map<String, Value>,
    bound: Option<Algorithm>,
) -> Result<Vec<(Algorithm, ParsedPublicKey)>, &'static str> {
    let (n, e) = (octets(jwk, "n")?, octets(jwk, "e")?);
    // Some libraries write the sign byte of their big integers.
    let (n, e) = (without_leading_zeros(&n), without_leading_zeros(&e));
    let bits = n.first().map_or(0, |first| n.len() * 8 - first.leading_zeros() as usize);
    if !(2048..=8192).contains(&bits) {
        return Err("its modulus is not of 2048 to 8192 bits");
    }
    let odd = e.last().is_some_and(|last| last % 2 == 1);
    if !odd || e == [1] || e.len() > 4 {
        return Err("its exponent is unusable");
    }
    let components = RsaPublicKeyComponents { n, e };
    RSA_ALGORITHMS
        .iter()
        .filter(|(algorithm, _)| bound.is_none_or(|bound| bound == *algorithm))
        .map(|(algorithm, parameters)| {
            let key = components.to_parsed_public_key(parameters).map_err(|_| "its components are unusable")?;
            Ok((*algorithm, key))
        })
        .collect()
}

const RSA_ALGORITHMS: [(Algorithm, &RsaParameters); 6] = [
    (Algorithm::RS256, &RSA_PKCS1_2048_8192_SHA256),
    (Algorithm::RS384, &RSA_PKCS1_2048_8192_SHA384),
    (Algorithm::RS512, &RSA_PKCS1_2048_8192_SHA512),
    (Algorithm::PS256, &RSA_PSS_2048_8192_SHA256),
    (Algorithm::PS384, &RSA_PSS_2048_8192_SHA384),
    (Algorithm::PS512, &RSA_PSS_2048_8192_SHA512),
];

/// RFC 7518 §6.2.1; each curve has exactly one algorithm (§3.4; RFC 8812 §3.2 for secp256k1).
fn read_ec(jwk: &Map<String, Value>) -> Result<(Algorithm, ParsedPublicKey), &'static str> {
    let (algorithm, curve, size): (_, &'static EcdsaVerificationAlgorithm, _) =
        match jwk.get("crv").and_then(Value::as_str) {
            Some("P-256") => (Algorithm::ES256, &ECDSA_P256_SHA256_FIXED, 32),
            Some("P-384") => (Algorithm::ES384, &ECDSA_P384_SHA384_FIXED, 48),
            Some("secp256k1") => (Algorithm::ES256K, &ECDSA_P256K1_SHA256_FIXED, 32),
            Some("P-521") => (Algorithm::ES512, &ECDSA_P521_SHA512_FIXED, 66),
            _ => return Err("its crv is not known"),
        };
    let (x, y) = (octets(jwk, "x")?, octets(jwk, "y")?);
    if x.len() != size || y.len() != size {
        return Err("its coordinates are not of the curve's length");
    }
    // SEC 1 §2.3.3, uncompressed.
    let point = [&[4], x.as_slice(), y.as_slice()].concat();
    let key = ParsedPublicKey::new(curve, point).map_err(|_| "its point is not on the curve")?;
    Ok((algorithm, key))
}

/// RFC 8037 §2.
fn read_okp(jwk: &Map<String, Value>) -> Result<(Algorithm, ParsedPublicKey), &'static str> {
    if jwk.get("crv").and_then(Value::as_str) != Some("Ed25519") {
        return Err("its crv is not known");
    }
    let x = octets(jwk, "x")?;
    if x.len() != 32 {
        return Err("its x is not of 32 bytes");
    }
    let key = ParsedPublicKey::new(&ED25519, x).map_err(|_| "its x is unusable")?;
    Ok((Algorithm::EdDSA, key))
}

pub(super) fn octets(jwk: &Map<String, Value>, name: &str) -> Result<Vec<u8>, &'static str> {
    let text = jwk.get(name).and_then(Value::as_str).ok_or("a component is missing")?;
    BASE64_URL_SAFE_NO_PAD.decode(text).map_err(|_| "a component is not base64url")
}

pub(super) fn without_leading_zeros(bytes: &[u8]) -> &[u8] {
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    &bytes[zeros..]
}

/// The most keys of a set that are read.
const MAX_KEYS: usize = 100;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::authn::oidc::test_keys::{TestKey, b64, key_set};

    fn parse(keys: &[Value]) -> Result<KeySet, JwksError> {
        KeySet::parse(key_set(keys).to_string().as_bytes())
    }

    fn changed(jwk: &Value, changes: Value) -> Value {
        let mut jwk = jwk.clone();
        jwk.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        jwk
    }

    #[test]
    fn unusable_keys_are_left_out_alone() {
        let good = TestKey::new(Algorithm::EdDSA).jwk("good");
        let rsa = TestKey::new(Algorithm::RS256).jwk("rsa");
        let ec = TestKey::new(Algorithm::ES256).jwk("ec");
        let modulus = |bytes: usize| b64([vec![0xc1; bytes - 1], vec![0xc1]].concat());
        let unusable = [
            json!(null),
            json!("key"),
            json!({}),
            json!({"kty": "oct", "kid": "good", "k": b64([7; 32]), "alg": "HS256"}),
            json!({"kty": "AKP", "alg": "ML-DSA-44"}),
            changed(&good, json!({"use": "enc"})),
            changed(&good, json!({"use": null})),
            changed(&good, json!({"key_ops": ["sign"]})),
            changed(&good, json!({"key_ops": "verify"})),
            changed(&good, json!({"alg": "RS256"})),
            changed(&good, json!({"alg": "none"})),
            changed(&good, json!({"alg": 1})),
            changed(&good, json!({"kid": 1})),
            changed(&good, json!({"d": "AAAA"})),
            changed(&good, json!({"crv": "X25519"})),
            changed(&good, json!({"crv": "Ed448"})),
            changed(&good, json!({"x": "AAAA"})),
            changed(&rsa, json!({"alg": "ES256"})),
            changed(&rsa, json!({"alg": "HS256"})),
            changed(&rsa, json!({"alg": "RSA-OAEP"})),
            changed(&rsa, json!({"n": modulus(128)})),
            changed(&rsa, json!({"n": modulus(1025)})),
            changed(&rsa, json!({"n": b64([[0x7f; 1].as_slice(), &[0xc1; 255]].concat())})),
            changed(&rsa, json!({"n": "not base64"})),
            changed(&rsa, json!({"n": ""})),
            changed(&rsa, json!({"e": "AQ"})),
            changed(&rsa, json!({"e": "AQAA"})),
            changed(&rsa, json!({"e": ""})),
            changed(&rsa, json!({"e": b64([1; 9])})),
            changed(&ec, json!({"crv": "P-384"})),
            changed(&ec, json!({"crv": "secp256k1"})),
            changed(&ec, json!({"y": b64([1; 32])})),
            changed(&ec, json!({"y": b64([1; 31])})),
            changed(&ec, json!({"x": format!("{}=", ec["x"].as_str().unwrap())})),
        ];
        for jwk in unusable {
            assert!(matches!(parse(std::slice::from_ref(&jwk)), Err(JwksError::Empty)), "{jwk}");
            assert_eq!(parse(&[jwk.clone(), good.clone()]).unwrap().keys.len(), 1, "{jwk}");
        }
    }

    #[test]
    fn keys_are_bound_to_their_algorithms() {
        let algorithms = |jwk: Value| {
            let set = parse(&[jwk]).unwrap();
            set.keys[0].verifiers.iter().map(|(algorithm, _)| *algorithm).collect::<Vec<_>>()
        };
        let rsa = TestKey::new(Algorithm::RS256).jwk("rsa");
        assert_eq!(algorithms(rsa.clone()).len(), 6);
        assert_eq!(algorithms(changed(&rsa, json!({"alg": "PS384", "use": "sig"}))), [Algorithm::PS384]);
        assert_eq!(algorithms(changed(&rsa, json!({"alg": "RS256", "key_ops": ["verify"]}))), [Algorithm::RS256]);
        let padded = octets(rsa.as_object().unwrap(), "n").unwrap();
        assert_eq!(algorithms(changed(&rsa, json!({"n": b64([&[0], padded.as_slice()].concat())}))).len(), 6);
        assert_eq!(algorithms(TestKey::new(Algorithm::ES512).jwk("e")), [Algorithm::ES512]);
        let ed = changed(&TestKey::new(Algorithm::EdDSA).jwk("e"), json!({"alg": "Ed25519"}));
        assert_eq!(algorithms(ed), [Algorithm::EdDSA]);
    }

    #[test]
    fn what_is_no_key_set_is_told_apart_from_an_empty_one() {
        for text in ["", "<html>", "[]", "{}", r#"{"keys":{}}"#, "null", r#"[[{"kty":"OKP"}]]"#, r#"{"keys":[]} x"#] {
            assert!(matches!(KeySet::parse(text.as_bytes()), Err(JwksError::NotAKeySet)), "{text}");
        }
        assert!(matches!(parse(&[]), Err(JwksError::Empty)));
    }

    /// RFC 7517 §4: the names are unique, or parsers differ on what the key is.
    #[test]
    fn a_member_that_stands_twice_leaves_out_its_key_and_keys_that_stand_twice_the_whole_set() {
        let (good, other) = (TestKey::new(Algorithm::EdDSA).jwk("good"), TestKey::new(Algorithm::EdDSA).jwk("other"));
        let doubled = |member: &str| other.to_string().replacen('{', &format!("{{{member},"), 1);
        let same_kid = format!("\"kid\":{}", other["kid"]);
        for member in [
            "\"kid\":\"good\"",
            &same_kid,
            "\"x\":\"AAAA\"",
            "\"use\":\"enc\",\"use\":\"sig\"",
            "\"more\":{\"a\":1,\"a\":1}",
        ] {
            let text = format!("{{\"keys\":[{},{good}]}}", doubled(member));
            let set = KeySet::parse(text.as_bytes()).unwrap();
            assert_eq!(set.keys.iter().map(|key| key.kid.as_deref()).collect::<Vec<_>>(), [Some("good")], "{member}");
            let alone = format!("{{\"keys\":[{}]}}", doubled(member));
            assert!(matches!(KeySet::parse(alone.as_bytes()), Err(JwksError::Empty)), "{member}");
        }
        for text in [
            format!("{{\"keys\":[{good}],\"keys\":[{other}]}}"),
            format!("{{\"keys\":[{good}],\"keys\":[{good}]}}"),
            format!("{{\"keys\":[{good}],\"ke\\u0079s\":[{other}]}}"),
        ] {
            assert!(matches!(KeySet::parse(text.as_bytes()), Err(JwksError::NotAKeySet)), "{text}");
        }
        let beside = format!(" {{\"issuer\":1,\"issuer\":2,\"keys\":[{good}]}} ");
        assert!(KeySet::parse(beside.as_bytes()).is_ok(), "what is beside them is not read");
    }

    #[test]
    fn only_so_many_keys_are_read() {
        let key = TestKey::new(Algorithm::EdDSA);
        let keys: Vec<_> = (0..MAX_KEYS + 50).map(|index| key.jwk(&index.to_string())).collect();
        assert_eq!(parse(&keys).unwrap().keys.len(), MAX_KEYS);
    }
}
