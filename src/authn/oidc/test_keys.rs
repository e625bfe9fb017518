//! Keys that sign tokens, for the unit tests of this folder.

use aws_lc_rs::encoding::AsDer as _;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P256K1_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING,
    ECDSA_P521_SHA512_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256, RSA_PKCS1_SHA384,
    RSA_PKCS1_SHA512, RSA_PSS_SHA256, RSA_PSS_SHA384, RSA_PSS_SHA512, RsaKeyPair,
};
use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use super::jose::Algorithm;

pub(super) enum TestKey {
    Rsa(RsaKeyPair),
    Ec(&'static str, EcdsaKeyPair),
    Ed(Ed25519KeyPair),
}

impl TestKey {
    /// A fresh key for a family.
    pub(super) fn new(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::ES256 => Self::Ec("P-256", EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap()),
            Algorithm::ES384 => Self::Ec("P-384", EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).unwrap()),
            Algorithm::ES512 => Self::Ec("P-521", EcdsaKeyPair::generate(&ECDSA_P521_SHA512_FIXED_SIGNING).unwrap()),
            Algorithm::EdDSA => Self::Ed(Ed25519KeyPair::generate().unwrap()),
            Algorithm::ES256K => {
                Self::Ec("secp256k1", EcdsaKeyPair::generate(&ECDSA_P256K1_SHA256_FIXED_SIGNING).unwrap())
            }
            Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512 => panic!("not a key pair"),
            _ => Self::Rsa(RsaKeyPair::generate(KeySize::Rsa2048).unwrap()),
        }
    }

    pub(super) fn jwk(&self, kid: &str) -> Value {
        match self {
            Self::Rsa(pair) => {
                // RFC 8017 A.1.1, whose lengths are fixed for 2048 bits and 65537.
                let der = pair.public_key().as_ref();
                json!({"kty": "RSA", "kid": kid, "n": b64(&der[9..265]), "e": b64(&der[der.len() - 3..])})
            }
            Self::Ec(curve, pair) => {
                let (x, y) = pair.public_key().as_ref()[1..].split_at(pair.public_key().as_ref().len() / 2);
                json!({"kty": "EC", "kid": kid, "crv": curve, "x": b64(x), "y": b64(y)})
            }
            Self::Ed(pair) => json!({"kty": "OKP", "kid": kid, "crv": "Ed25519", "x": b64(pair.public_key().as_ref())}),
        }
    }

    /// The public key as DER (SubjectPublicKeyInfo) and as PEM: what a confused HS256 verifier might take for its secret.
    pub(super) fn public_bytes(&self) -> Vec<Vec<u8>> {
        let Self::Rsa(pair) = self else { panic!("only RSA") };
        let spki = pair.public_key().as_der().unwrap().as_ref().to_vec();
        let pem = format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", BASE64_STANDARD.encode(&spki));
        vec![spki, pair.public_key().as_ref().to_vec(), pem.trim().as_bytes().to_vec(), pem.into_bytes()]
    }

    /// A token with these very header and claims, signed as `algorithm` whatever the header says.
    pub(super) fn sign(&self, algorithm: Algorithm, header: &Value, claims: &Value) -> String {
        self.sign_text(algorithm, &header.to_string(), &claims.to_string())
    }

    pub(super) fn sign_text(&self, algorithm: Algorithm, header: &str, claims: &str) -> String {
        let signed = format!("{}.{}", b64(header), b64(claims));
        let signature = self.signature(algorithm, signed.as_bytes());
        format!("{signed}.{}", b64(signature))
    }

    fn signature(&self, algorithm: Algorithm, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match self {
            Self::Ec(_, pair) => pair.sign(&random, message).unwrap().as_ref().to_vec(),
            Self::Ed(pair) => pair.sign(message).as_ref().to_vec(),
            Self::Rsa(pair) => {
                let padding: &'static dyn aws_lc_rs::signature::RsaEncoding = match algorithm {
                    Algorithm::RS384 => &RSA_PKCS1_SHA384,
                    Algorithm::RS512 => &RSA_PKCS1_SHA512,
                    Algorithm::PS256 => &RSA_PSS_SHA256,
                    Algorithm::PS384 => &RSA_PSS_SHA384,
                    Algorithm::PS512 => &RSA_PSS_SHA512,
                    _ => &RSA_PKCS1_SHA256,
                };
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(padding, &random, message, &mut signature).unwrap();
                signature
            }
        }
    }
}

/// A token signed with HMAC-SHA-256 over whatever secret.
pub(super) fn hs256(secret: &[u8], header: &Value, claims: &Value) -> String {
    hmac(aws_lc_rs::hmac::HMAC_SHA256, secret, header, claims)
}

/// A token signed with any HMAC over whatever secret.
pub(super) fn hmac(algorithm: aws_lc_rs::hmac::Algorithm, secret: &[u8], header: &Value, claims: &Value) -> String {
    let signed = format!("{}.{}", b64(header.to_string()), b64(claims.to_string()));
    let key = aws_lc_rs::hmac::Key::new(algorithm, secret);
    let tag = aws_lc_rs::hmac::sign(&key, signed.as_bytes());
    format!("{signed}.{}", b64(tag))
}

/// A key set document.
pub(super) fn key_set(keys: &[Value]) -> Value {
    json!({ "keys": keys })
}

pub(super) fn b64(bytes: impl AsRef<[u8]>) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}
