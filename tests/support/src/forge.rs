//! Makes tokens, good and bad: every asymmetric algorithm of RFC 7518 §3.1 and RFC 8037, and the forgeries that a verifier
//! must refuse.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    self, EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair as _, RsaEncoding, RsaKeyPair,
};
use aws_lc_rs::{digest, hmac, rsa};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};

/// A signing algorithm, named as in the JOSE registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Alg {
    /// RSASSA-PKCS1-v1_5, SHA-256.
    Rs256,
    /// RSASSA-PKCS1-v1_5, SHA-384.
    Rs384,
    /// RSASSA-PKCS1-v1_5, SHA-512.
    Rs512,
    /// RSASSA-PSS, SHA-256.
    Ps256,
    /// RSASSA-PSS, SHA-384.
    Ps384,
    /// RSASSA-PSS, SHA-512.
    Ps512,
    /// ECDSA over P-256.
    Es256,
    /// ECDSA over P-384.
    Es384,
    /// ECDSA over P-521.
    Es512,
    /// Ed25519.
    EdDsa,
}

impl Alg {
    /// All of them.
    pub const ALL: [Alg; 10] = [
        Alg::Rs256,
        Alg::Rs384,
        Alg::Rs512,
        Alg::Ps256,
        Alg::Ps384,
        Alg::Ps512,
        Alg::Es256,
        Alg::Es384,
        Alg::Es512,
        Alg::EdDsa,
    ];

    /// The registered name.
    pub fn name(self) -> &'static str {
        match self {
            Alg::Rs256 => "RS256",
            Alg::Rs384 => "RS384",
            Alg::Rs512 => "RS512",
            Alg::Ps256 => "PS256",
            Alg::Ps384 => "PS384",
            Alg::Ps512 => "PS512",
            Alg::Es256 => "ES256",
            Alg::Es384 => "ES384",
            Alg::Es512 => "ES512",
            Alg::EdDsa => "EdDSA",
        }
    }

    /// `at_hash` of `access_token` (OpenID Connect Core §3.1.3.6): the left half of the algorithm's hash.
    pub fn access_token_hash(self, access_token: &str) -> String {
        let algorithm = match self {
            Alg::Rs256 | Alg::Ps256 | Alg::Es256 => &digest::SHA256,
            Alg::Rs384 | Alg::Ps384 | Alg::Es384 => &digest::SHA384,
            // Ed25519 hashes with SHA-512, which is what providers use for its at_hash.
            Alg::Rs512 | Alg::Ps512 | Alg::Es512 | Alg::EdDsa => &digest::SHA512,
        };
        let hash = digest::digest(algorithm, access_token.as_bytes());
        let hash = hash.as_ref();
        encode(&hash[..hash.len() / 2])
    }
}

enum Secret {
    Rsa(RsaKeyPair, &'static dyn RsaEncoding),
    Ecdsa(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

/// A private key with its id.
pub struct SigningKey {
    kid: String,
    alg: Alg,
    secret: Secret,
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SigningKey({}, {})", self.alg.name(), self.kid)
    }
}

impl SigningKey {
    /// A fresh key for `alg`; its id is random.
    pub fn generate(alg: Alg) -> Self {
        let secret = match alg {
            Alg::Rs256 => rsa(&signature::RSA_PKCS1_SHA256),
            Alg::Rs384 => rsa(&signature::RSA_PKCS1_SHA384),
            Alg::Rs512 => rsa(&signature::RSA_PKCS1_SHA512),
            Alg::Ps256 => rsa(&signature::RSA_PSS_SHA256),
            Alg::Ps384 => rsa(&signature::RSA_PSS_SHA384),
            Alg::Ps512 => rsa(&signature::RSA_PSS_SHA512),
            Alg::Es256 => ecdsa(&signature::ECDSA_P256_SHA256_FIXED_SIGNING),
            Alg::Es384 => ecdsa(&signature::ECDSA_P384_SHA384_FIXED_SIGNING),
            Alg::Es512 => ecdsa(&signature::ECDSA_P521_SHA512_FIXED_SIGNING),
            Alg::EdDsa => Secret::Ed25519(Ed25519KeyPair::generate().expect("an Ed25519 key")),
        };
        Self { kid: crate::random_text(6), alg, secret }
    }

    /// The key id.
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// The algorithm.
    pub fn alg(&self) -> Alg {
        self.alg
    }

    /// The same key under another id is another key to whoever looks it up.
    pub fn with_kid(mut self, kid: &str) -> Self {
        self.kid = kid.to_owned();
        self
    }

    /// A well-made token over `claims`.
    pub fn token(&self, claims: &Value) -> String {
        self.token_with_header(&json!({ "alg": self.alg.name(), "typ": "JWT", "kid": self.kid }), claims)
    }

    /// A token that is truly signed with this key, whatever `header` says.
    pub fn token_with_header(&self, header: &Value, claims: &Value) -> String {
        let input = signing_input(header, claims);
        let signature = self.sign(input.as_bytes());
        format!("{input}.{}", encode(&signature))
    }

    /// The public key as a JWK (RFC 7517) with `kid`, `use` and `alg`.
    pub fn jwk(&self) -> Value {
        let mut jwk = match &self.secret {
            Secret::Rsa(key, _) => {
                let (modulus, exponent) = rsa_components(key.public_key().as_ref());
                json!({ "kty": "RSA", "n": encode(modulus), "e": encode(exponent) })
            }
            Secret::Ecdsa(key) => {
                // SEC 1 §2.3.3: an uncompressed point is 0x04, x, y.
                let point = &key.public_key().as_ref()[1..];
                let (x, y) = point.split_at(point.len() / 2);
                let curve = match self.alg {
                    Alg::Es256 => "P-256",
                    Alg::Es384 => "P-384",
                    _ => "P-521",
                };
                json!({ "kty": "EC", "crv": curve, "x": encode(x), "y": encode(y) })
            }
            Secret::Ed25519(key) => json!({ "kty": "OKP", "crv": "Ed25519", "x": encode(key.public_key().as_ref()) }),
        };
        jwk["kid"] = json!(self.kid);
        jwk["use"] = json!("sig");
        jwk["alg"] = json!(self.alg.name());
        jwk
    }

    /// The public key in PEM: the text that the oldest of all forgeries uses as an HMAC secret.
    ///
    /// # Panics
    /// For keys other than RSA.
    pub fn public_pem(&self) -> String {
        let Secret::Rsa(key, _) = &self.secret else { panic!("only RSA keys are written as PEM here") };
        let lines: Vec<String> = STANDARD
            .encode(subject_public_key_info(key.public_key().as_ref()))
            .as_bytes()
            .chunks(64)
            .map(|line| String::from_utf8_lossy(line).into_owned())
            .collect();
        format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", lines.join("\n"))
    }

    fn sign(&self, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match &self.secret {
            Secret::Rsa(key, padding) => {
                let mut signature = vec![0; key.public_modulus_len()];
                key.sign(*padding, &random, message, &mut signature).expect("an RSA signature");
                signature
            }
            Secret::Ecdsa(key) => key.sign(&random, message).expect("an ECDSA signature").as_ref().to_vec(),
            Secret::Ed25519(key) => key.sign(message).as_ref().to_vec(),
        }
    }
}

/// Header and claims of a token that one of `keys` (public JWKs) has signed with RS256, PS256, ES256 or EdDSA.
pub fn verify(keys: &[Value], token: &str) -> Option<(Value, Value)> {
    let (signed, signature) = token.rsplit_once('.')?;
    let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
    let header = header_of(token);
    let part =
        |jwk: &Value, name: &str| URL_SAFE_NO_PAD.decode(jwk[name].as_str().unwrap_or_default()).unwrap_or_default();
    let is_right = |jwk: &Value| {
        let rsa = |parameters: &'static signature::RsaParameters| {
            let key = signature::RsaPublicKeyComponents { n: part(jwk, "n"), e: part(jwk, "e") };
            key.verify(parameters, signed.as_bytes(), &signature).is_ok()
        };
        let plain = |algorithm: &'static dyn signature::VerificationAlgorithm, key: Vec<u8>| {
            signature::UnparsedPublicKey::new(algorithm, key).verify(signed.as_bytes(), &signature).is_ok()
        };
        let named = header.get("kid").is_none_or(|kid| jwk.get("kid").is_none_or(|own| own == kid));
        named
            && match (header["alg"].as_str(), jwk["kty"].as_str(), jwk["crv"].as_str()) {
                (Some("RS256"), Some("RSA"), _) => rsa(&signature::RSA_PKCS1_2048_8192_SHA256),
                (Some("PS256"), Some("RSA"), _) => rsa(&signature::RSA_PSS_2048_8192_SHA256),
                (Some("ES256"), Some("EC"), Some("P-256")) => {
                    plain(&signature::ECDSA_P256_SHA256_FIXED, [vec![4], part(jwk, "x"), part(jwk, "y")].concat())
                }
                (Some("EdDSA"), Some("OKP"), Some("Ed25519")) => plain(&signature::ED25519, part(jwk, "x")),
                _ => false,
            }
    };
    keys.iter().any(is_right).then(|| (header.clone(), payload_of(token)))
}

/// Header and claims of a token that is signed with HS256 and `secret`.
pub fn verify_hs256(secret: &[u8], token: &str) -> Option<(Value, Value)> {
    let (signed, signature) = token.rsplit_once('.')?;
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    hmac::verify(&key, signed.as_bytes(), &URL_SAFE_NO_PAD.decode(signature).ok()?).ok()?;
    (header_of(token)["alg"] == "HS256").then(|| (header_of(token), payload_of(token)))
}

/// The header of a token, unverified; `null` where there is none.
pub fn header_of(token: &str) -> Value {
    decoded(token, 0)
}

/// The claims of a token, unverified; `null` where there are none.
pub fn payload_of(token: &str) -> Value {
    decoded(token, 1)
}

fn decoded(token: &str, part: usize) -> Value {
    let bytes = token.split('.').nth(part).and_then(|part| URL_SAFE_NO_PAD.decode(part).ok());
    bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
}

/// A token that says `alg: none` and has an empty signature (RFC 7519 §6).
pub fn unsigned(claims: &Value) -> String {
    format!("{}.", signing_input(&json!({ "alg": "none", "typ": "JWT" }), claims))
}

/// A token with an HMAC, as HS256.
pub fn hs256(secret: &[u8], kid: Option<&str>, claims: &Value) -> String {
    let mut header = json!({ "alg": "HS256", "typ": "JWT" });
    if let Some(kid) = kid {
        header["kid"] = json!(kid);
    }
    let input = signing_input(&header, claims);
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), input.as_bytes());
    format!("{input}.{}", encode(tag.as_ref()))
}

/// `token` with one bit of its signature flipped.
pub fn tampered(token: &str) -> String {
    let (input, signature) = token.rsplit_once('.').expect("a token of three parts");
    let mut signature = URL_SAFE_NO_PAD.decode(signature).expect("a base64url signature");
    signature[0] ^= 1;
    format!("{input}.{}", encode(&signature))
}

/// base64url without padding, as everywhere in JOSE.
pub fn encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn signing_input(header: &Value, claims: &Value) -> String {
    format!("{}.{}", encode(header.to_string().as_bytes()), encode(claims.to_string().as_bytes()))
}

fn rsa(padding: &'static dyn RsaEncoding) -> Secret {
    Secret::Rsa(RsaKeyPair::generate(rsa::KeySize::Rsa2048).expect("an RSA key"), padding)
}

fn ecdsa(algorithm: &'static EcdsaSigningAlgorithm) -> Secret {
    Secret::Ecdsa(EcdsaKeyPair::generate(algorithm).expect("an EC key"))
}

/// Modulus and exponent out of an RSAPublicKey (RFC 8017 §A.1.1), without the sign byte.
fn rsa_components(der: &[u8]) -> (&[u8], &[u8]) {
    let (sequence, _) = der_value(der, 0x30);
    let (modulus, rest) = der_value(sequence, 0x02);
    let (exponent, _) = der_value(rest, 0x02);
    (modulus.strip_prefix(&[0]).unwrap_or(modulus), exponent.strip_prefix(&[0]).unwrap_or(exponent))
}

/// The value of the first DER element, which must have `tag`, and what follows it.
fn der_value(der: &[u8], tag: u8) -> (&[u8], &[u8]) {
    assert_eq!(der[0], tag, "the expected DER tag");
    let (length, start) = match der[1] {
        short @ 0..=0x7f => (usize::from(short), 2),
        long => {
            let count = usize::from(long & 0x7f);
            let length = der[2..2 + count].iter().fold(0, |length, byte| (length << 8) | usize::from(*byte));
            (length, 2 + count)
        }
    };
    der[start..].split_at(length)
}

/// RFC 3279 §2.3.1: an RSAPublicKey inside a SubjectPublicKeyInfo.
fn subject_public_key_info(rsa_public_key: &[u8]) -> Vec<u8> {
    const RSA_ENCRYPTION: &[u8] =
        &[0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0];
    let mut bits = vec![0];
    bits.extend_from_slice(rsa_public_key);
    let mut inner = RSA_ENCRYPTION.to_vec();
    inner.extend(der_element(0x03, &bits));
    der_element(0x30, &inner)
}

fn der_element(tag: u8, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(value.len()).expect("a short element").to_be_bytes();
    let mut element = vec![tag, 0x82, length[0], length[1]];
    element.extend_from_slice(value);
    element
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::{RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};

    use super::*;

    #[test]
    fn an_rsa_token_verifies_with_the_written_pem_and_not_once_tampered() {
        let key = SigningKey::generate(Alg::Rs256);
        let pem: String = key.public_pem().lines().filter(|line| !line.starts_with('-')).collect();
        let public = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, STANDARD.decode(pem).unwrap());
        let verifies = |token: &str| {
            let (input, signature) = token.rsplit_once('.').unwrap();
            let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
            public.verify(input.as_bytes(), &signature).is_ok()
        };
        let token = key.token(&json!({ "sub": "ada" }));
        assert!(verifies(&token));
        assert!(!verifies(&tampered(&token)));
    }

    #[test]
    fn every_algorithm_signs_and_publishes_a_key() {
        for alg in Alg::ALL {
            let key = SigningKey::generate(alg);
            assert_eq!(key.token(&json!({})).split('.').count(), 3, "{}", alg.name());
            let jwk = key.jwk();
            let (name, length) = match alg {
                Alg::Es256 => ("y", 43),
                Alg::Es384 => ("y", 64),
                Alg::Es512 => ("y", 88),
                Alg::EdDsa => ("x", 43),
                _ => ("n", 342),
            };
            assert_eq!(jwk[name].as_str().unwrap().len(), length, "{}", alg.name());
        }
    }

    #[test]
    fn the_access_token_hash_is_the_one_of_the_specification() {
        // OpenID Connect Core §A.3 (the hybrid example): this access token, RS256.
        let hash = Alg::Rs256.access_token_hash("jHkWEdUXMU1BwAsC4vtUsZwnNvTIxEl0z9K3vx5KF0Y");
        assert_eq!(hash, "77QmUPtjPfzWtF2AnpK9RQ");
    }
}
