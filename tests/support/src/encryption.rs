//! Encrypts tokens as a provider would (RFC 7516): RSA-OAEP-256 with A256GCM.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::rand;
use aws_lc_rs::rsa::{OAEP_SHA1_MGF1SHA1, OAEP_SHA256_MGF1SHA256, OaepPublicEncryptingKey, PrivateDecryptingKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use crate::forge::encode;

/// A client's key, as far as the provider knows it.
#[derive(Debug)]
pub struct EncryptionKey(OaepPublicEncryptingKey);

impl EncryptionKey {
    /// The public half of a private key in PEM (PKCS #8).
    ///
    /// # Panics
    /// When it is none.
    pub fn of_private_pem(pem: &str) -> Self {
        let body: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
        let der = STANDARD.decode(body).expect("base64 in PEM");
        let key = PrivateDecryptingKey::from_pkcs8(&der).expect("an RSA key");
        Self(OaepPublicEncryptingKey::new(key.public_key()).expect("a key for OAEP"))
    }

    /// `content`, encrypted by `alg`: RSA-OAEP-256 or RSA-OAEP.
    ///
    /// # Panics
    /// For another algorithm.
    pub fn encrypt(&self, content: &str, alg: &str) -> String {
        let oaep = match alg {
            "RSA-OAEP-256" => &OAEP_SHA256_MGF1SHA256,
            "RSA-OAEP" => &OAEP_SHA1_MGF1SHA1,
            other => panic!("{other} is not done here"),
        };
        let (mut key, mut iv) = ([0; 32], [0; 12]);
        rand::fill(&mut key).expect("random bytes");
        rand::fill(&mut iv).expect("random bytes");
        let mut wrapped = vec![0; self.0.ciphertext_size()];
        let wrapped = self.0.encrypt(oaep, &key, &mut wrapped, None).expect("a wrapped key");
        let header = encode(json!({ "alg": alg, "enc": "A256GCM", "cty": "JWT" }).to_string().as_bytes());
        let mut sealed = content.as_bytes().to_vec();
        let sealer = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &key).expect("a key"));
        let nonce = Nonce::assume_unique_for_key(iv);
        let tag = sealer
            .seal_in_place_separate_tag(nonce, Aad::from(header.as_bytes()), &mut sealed)
            .expect("a sealed content");
        [header, encode(wrapped), encode(&iv), encode(&sealed), encode(tag.as_ref())].join(".")
    }
}
