//! Key agreement with an ephemeral key (RFC 7518 §4.6, RFC 8037 §3.2), and the Concat KDF (NIST SP 800-56A §5.8.1).

use aws_lc_rs::agreement::{self, PrivateKey, UnparsedPublicKey};
use aws_lc_rs::digest;
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use super::Stage;
use crate::authn::oidc::client_keys::{Curve, Material};
use crate::authn::oidc::jose::base64url;
use crate::authn::oidc::jwks::octets;

/// The agreed key: `length` bytes, bound to the algorithm that it is for and to both parties' names.
pub(super) fn agree(
    header: &Map<String, Value>,
    ours: &Material,
    algorithm: &str,
    length: usize,
) -> Result<Zeroizing<Vec<u8>>, Stage> {
    let epk = header.get("epk").and_then(Value::as_object).ok_or(Stage::Malformed)?;
    let (private, theirs) = match ours {
        Material::Ec { curve, agreement, .. } => (agreement, ec(epk, *curve)?),
        Material::X25519 { agreement, .. } => (agreement, x25519(epk)?),
        _ => return Err(Stage::NoKey),
    };
    let parties = [party(header, "apu")?, party(header, "apv")?];
    derive(private, theirs, algorithm, &parties, length)
}

fn ec(epk: &Map<String, Value>, curve: Curve) -> Result<UnparsedPublicKey<Vec<u8>>, Stage> {
    is(epk, "kty", "EC")?;
    is(epk, "crv", curve.name())?;
    // The agreement refuses a point that is not on the curve.
    Ok(UnparsedPublicKey::new(curve.agreement(), curve.point(epk).map_err(|_| Stage::Malformed)?))
}

fn x25519(epk: &Map<String, Value>) -> Result<UnparsedPublicKey<Vec<u8>>, Stage> {
    is(epk, "kty", "OKP")?;
    is(epk, "crv", "X25519")?;
    Ok(UnparsedPublicKey::new(&agreement::X25519, octets(epk, "x").map_err(|_| Stage::Malformed)?))
}

/// Of another kind or curve than our key, the ephemeral key is for another key.
fn is(epk: &Map<String, Value>, name: &str, value: &str) -> Result<(), Stage> {
    if epk.get(name).and_then(Value::as_str) == Some(value) { Ok(()) } else { Err(Stage::Key) }
}

/// RFC 7518 §4.6.1.2 and §4.6.1.3; empty where it is missing.
fn party(header: &Map<String, Value>, name: &str) -> Result<Vec<u8>, Stage> {
    match header.get(name) {
        None => Ok(Vec::new()),
        Some(Value::String(text)) => base64url(text).map_err(|_| Stage::Malformed),
        Some(_) => Err(Stage::Malformed),
    }
}

fn derive(
    private: &PrivateKey,
    theirs: UnparsedPublicKey<Vec<u8>>,
    algorithm: &str,
    parties: &[Vec<u8>; 2],
    length: usize,
) -> Result<Zeroizing<Vec<u8>>, Stage> {
    agreement::agree(private, theirs, Stage::Key, |secret| Ok(concat_kdf(secret, algorithm, parties, length)))
}

/// RFC 7518 §4.6.2, with SHA-256.
pub(super) fn concat_kdf(secret: &[u8], algorithm: &str, parties: &[Vec<u8>; 2], length: usize) -> Zeroizing<Vec<u8>> {
    // What is hashed is bounded by the token, and the length of a key, so that both fit.
    let size = |bytes: usize| (bytes as u32).to_be_bytes();
    let mut key = Zeroizing::new(Vec::with_capacity(length + digest::SHA256_OUTPUT_LEN));
    let mut round: u32 = 1;
    while key.len() < length {
        let mut hash = digest::Context::new(&digest::SHA256);
        hash.update(&round.to_be_bytes());
        hash.update(secret);
        for part in [algorithm.as_bytes(), &parties[0], &parties[1]] {
            hash.update(&size(part.len()));
            hash.update(part);
        }
        hash.update(&size(length * 8));
        key.extend_from_slice(hash.finish().as_ref());
        round += 1;
    }
    key.truncate(length);
    key
}
