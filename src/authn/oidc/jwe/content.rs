//! Content encryption (RFC 7518 §5): AES-GCM, and AES-CBC with HMAC, whose tag is checked before anything is decrypted.

use aws_lc_rs::aead::{AES_128_GCM, AES_192_GCM, AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::cipher::{AES_128, AES_192, AES_256, DecryptionContext, PaddedBlockDecryptingKey, UnboundCipherKey};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::iv::FixedLength;
use aws_lc_rs::{aead, cipher, hmac};

/// What is encrypted, and what is authentic only with it.
pub(super) struct Sealed<'a> {
    pub(super) iv: &'a [u8],
    pub(super) aad: &'a [u8],
    pub(super) ciphertext: &'a [u8],
    pub(super) tag: &'a [u8],
}

/// `enc` (RFC 7518 §5.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::authn::oidc) enum ContentEncryption {
    A128Gcm,
    A192Gcm,
    A256Gcm,
    A128CbcHs256,
    A192CbcHs384,
    A256CbcHs512,
}

impl ContentEncryption {
    pub(in crate::authn::oidc) const ALL: [Self; 6] =
        [Self::A128Gcm, Self::A192Gcm, Self::A256Gcm, Self::A128CbcHs256, Self::A192CbcHs384, Self::A256CbcHs512];

    pub(in crate::authn::oidc) fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|content| content.name() == name)
    }

    /// Its JOSE name.
    pub(in crate::authn::oidc) fn name(self) -> &'static str {
        match self {
            Self::A128Gcm => "A128GCM",
            Self::A192Gcm => "A192GCM",
            Self::A256Gcm => "A256GCM",
            Self::A128CbcHs256 => "A128CBC-HS256",
            Self::A192CbcHs384 => "A192CBC-HS384",
            Self::A256CbcHs512 => "A256CBC-HS512",
        }
    }

    /// In bytes.
    pub(super) fn key_len(self) -> usize {
        match self {
            Self::A128Gcm => 16,
            Self::A192Gcm => 24,
            Self::A256Gcm | Self::A128CbcHs256 => 32,
            Self::A192CbcHs384 => 48,
            Self::A256CbcHs512 => 64,
        }
    }

    /// Every failure is the same one.
    pub(super) fn open(self, key: &[u8], sealed: &Sealed<'_>) -> Result<Vec<u8>, Unspecified> {
        if key.len() != self.key_len() {
            return Err(Unspecified);
        }
        match self {
            Self::A128Gcm => open_gcm(&AES_128_GCM, key, sealed),
            Self::A192Gcm => open_gcm(&AES_192_GCM, key, sealed),
            Self::A256Gcm => open_gcm(&AES_256_GCM, key, sealed),
            Self::A128CbcHs256 => open_cbc(&AES_128, hmac::HMAC_SHA256, key, sealed),
            Self::A192CbcHs384 => open_cbc(&AES_192, hmac::HMAC_SHA384, key, sealed),
            Self::A256CbcHs512 => open_cbc(&AES_256, hmac::HMAC_SHA512, key, sealed),
        }
    }
}

/// RFC 7518 §5.3: 96 bits of IV, and a tag that is never shortened.
pub(super) fn open_gcm(
    algorithm: &'static aead::Algorithm,
    key: &[u8],
    sealed: &Sealed<'_>,
) -> Result<Vec<u8>, Unspecified> {
    if sealed.tag.len() != algorithm.tag_len() {
        return Err(Unspecified);
    }
    let key = LessSafeKey::new(UnboundKey::new(algorithm, key)?);
    let nonce = Nonce::try_assume_unique_for_key(sealed.iv)?;
    let mut plaintext = sealed.ciphertext.to_vec();
    key.open_in_place_separate_tag(nonce, Aad::from(sealed.aad), sealed.tag, &mut plaintext)?;
    Ok(plaintext)
}

/// RFC 7518 §5.2.2.2: the first half of the key is for the MAC, the second for AES.
fn open_cbc(
    algorithm: &'static cipher::Algorithm,
    mac: hmac::Algorithm,
    key: &[u8],
    sealed: &Sealed<'_>,
) -> Result<Vec<u8>, Unspecified> {
    let iv: &[u8; 16] = sealed.iv.try_into().map_err(|_| Unspecified)?;
    let (mac_key, aes_key) = key.split_at(key.len() / 2);
    let mut mac = hmac::Context::with_key(&hmac::Key::new(mac, mac_key));
    for part in [sealed.aad, iv, sealed.ciphertext, &(sealed.aad.len() as u64 * 8).to_be_bytes()] {
        mac.update(part);
    }
    let expected = mac.sign();
    verify_slices_are_equal(&expected.as_ref()[..mac_key.len()], sealed.tag)?;
    // Only who knows the key comes here, so that the padding tells nobody anything.
    let key = PaddedBlockDecryptingKey::cbc_pkcs7(UnboundCipherKey::new(algorithm, aes_key)?)?;
    let mut plaintext = sealed.ciphertext.to_vec();
    let length = key.decrypt(&mut plaintext, DecryptionContext::Iv128(FixedLength::from(iv)))?.len();
    plaintext.truncate(length);
    Ok(plaintext)
}
