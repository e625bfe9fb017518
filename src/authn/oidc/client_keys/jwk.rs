//! Private keys as a JWK or a JWK Set (RFC 7517). In our own file a key that cannot be used is an error, not passed over.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use super::material::{Curve, Material, RsaNumbers};
use super::{Described, Purpose};
use crate::authn::oidc::jose::{Algorithm, json_object};
use crate::authn::oidc::jwe::KeyManagement;

/// What is wrong is the rest of a sentence that begins with the file's name.
pub(super) fn read(bytes: &[u8]) -> Result<Vec<Described>, String> {
    let document = json_object(bytes).map_err(|_| "is not a JWK: it is no JSON that can be read in one way only")?;
    let keys = match document.get("keys") {
        None => return Ok(vec![read_one(&document).map_err(|why| format!("holds a JWK that cannot be used: {why}"))?]),
        Some(Value::Array(keys)) if !keys.is_empty() => keys,
        Some(_) => return Err("is a JWK Set without keys".into()),
    };
    let read = |(index, jwk): (usize, &Value)| {
        let jwk = jwk.as_object().ok_or("it is no object");
        jwk.and_then(read_one).map_err(|why| format!("holds a JWK that cannot be used (keys[{index}]): {why}"))
    };
    keys.iter().enumerate().map(read).collect()
}

fn read_one(jwk: &Map<String, Value>) -> Result<Described, &'static str> {
    let kid = match jwk.get("kid") {
        None => None,
        Some(Value::String(kid)) if !kid.is_empty() => Some(kid.clone()),
        Some(_) => return Err("its kid is no text"),
    };
    let material = match jwk.get("kty").and_then(Value::as_str) {
        Some("RSA") => read_rsa(jwk)?,
        Some("EC") => read_ec(jwk)?,
        Some("OKP") => read_okp(jwk)?,
        Some("oct") => return Err("it is symmetric: the client secret has a key of its own"),
        _ => return Err("its kty is not RSA, EC or OKP"),
    };
    let bound = match jwk.get("alg") {
        None => None,
        Some(Value::String(alg)) => Some(alg.clone()),
        Some(_) => return Err("its alg is no text"),
    };
    if let Some(alg) = &bound
        && Algorithm::from_name(alg).is_none_or(Algorithm::is_symmetric)
        && KeyManagement::from_name(alg).is_none()
    {
        return Err("its alg is not known");
    }
    Ok(Described { kid, purpose: purpose(jwk)?, bound, material })
}

/// RFC 7517 §4.2 and §4.3.
fn purpose(jwk: &Map<String, Value>) -> Result<Option<Purpose>, &'static str> {
    let by_use = match jwk.get("use") {
        None => None,
        Some(purpose) if purpose == "sig" => Some(Purpose::Signing),
        Some(purpose) if purpose == "enc" => Some(Purpose::Decryption),
        Some(_) => return Err("its use is neither sig nor enc"),
    };
    let Some(ops) = jwk.get("key_ops") else { return Ok(by_use) };
    let ops = ops.as_array().ok_or("its key_ops is no list")?;
    let has = |names: &[&str]| ops.iter().any(|op| names.iter().any(|name| op == name));
    let by_ops = match (has(&["sign"]), has(&["decrypt", "unwrapKey", "deriveKey", "deriveBits"])) {
        (true, true) => None,
        (true, false) => Some(Purpose::Signing),
        (false, true) => Some(Purpose::Decryption),
        (false, false) => return Err("its key_ops has nothing that a private key does"),
    };
    match (by_use, by_ops) {
        (Some(one), Some(other)) if one != other => Err("its use and its key_ops contradict each other"),
        _ => Ok(by_use.or(by_ops)),
    }
}

/// RFC 7518 §6.3.2.
fn read_rsa(jwk: &Map<String, Value>) -> Result<Material, &'static str> {
    if jwk.contains_key("oth") {
        return Err("it has more than two primes");
    }
    let private =
        |name| octets(jwk, name).map_err(|_| "one of n, e, d, p, q, dp, dq and qi is missing or not base64url");
    Material::rsa_from_numbers(&RsaNumbers {
        n: private("n")?,
        e: private("e")?,
        d: private("d")?,
        p: private("p")?,
        q: private("q")?,
        dp: private("dp")?,
        dq: private("dq")?,
        qi: private("qi")?,
    })
}

/// RFC 7518 §6.2.2.
fn read_ec(jwk: &Map<String, Value>) -> Result<Material, &'static str> {
    let curve = jwk.get("crv").and_then(Value::as_str).and_then(Curve::from_name);
    let curve = curve.ok_or("its crv is not P-256, P-384 or P-521")?;
    let (d, point) = (octets(jwk, "d")?, curve.point(jwk)?);
    Material::ec_from_numbers(curve, &d, &point)
}

/// RFC 8037 §2.
fn read_okp(jwk: &Map<String, Value>) -> Result<Material, &'static str> {
    let (d, x) = (octets(jwk, "d")?, octets(jwk, "x")?);
    match jwk.get("crv").and_then(Value::as_str) {
        Some("Ed25519") => Material::ed25519_from_numbers(&d, &x),
        Some("X25519") => Material::x25519_from_numbers(&d, &x),
        _ => Err("its crv is not Ed25519 or X25519"),
    }
}

fn octets(jwk: &Map<String, Value>, name: &str) -> Result<Zeroizing<Vec<u8>>, &'static str> {
    let text = jwk.get(name).and_then(Value::as_str).ok_or("a member is missing: it must be a private key")?;
    BASE64_URL_SAFE_NO_PAD.decode(text).map(Zeroizing::new).map_err(|_| "a member is not base64url")
}
