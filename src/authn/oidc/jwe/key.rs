//! Key management (RFC 7518 §4): how the content key comes out of the token. A192KW is missing, since the library has no
//! AES-192 key wrap.

use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM};
use aws_lc_rs::digest;
use aws_lc_rs::key_wrap::{AES_128, AES_256, AesKek, KeyWrap as _};
use aws_lc_rs::rsa::{OAEP_SHA1_MGF1SHA1, OAEP_SHA256_MGF1SHA256, OaepAlgorithm};
use zeroize::Zeroizing;

use super::content::{Sealed, open_gcm};
use super::{Jwe, Stage, ecdh, text};
use crate::authn::oidc::client_keys::Material;
use crate::authn::oidc::jose::base64url;
use crate::secret::SecretString;

/// `alg` (RFC 7518 §4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::authn::oidc) enum KeyManagement {
    RsaOaep,
    RsaOaep256,
    EcdhEs,
    EcdhEsA128Kw,
    EcdhEsA256Kw,
    Direct,
    A128Kw,
    A256Kw,
    A128GcmKw,
    A256GcmKw,
}

impl KeyManagement {
    pub(in crate::authn::oidc) const ALL: [Self; 10] = [
        Self::RsaOaep,
        Self::RsaOaep256,
        Self::EcdhEs,
        Self::EcdhEsA128Kw,
        Self::EcdhEsA256Kw,
        Self::Direct,
        Self::A128Kw,
        Self::A256Kw,
        Self::A128GcmKw,
        Self::A256GcmKw,
    ];

    pub(in crate::authn::oidc) fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|management| management.name() == name)
    }

    /// Its JOSE name.
    pub(in crate::authn::oidc) fn name(self) -> &'static str {
        match self {
            Self::RsaOaep => "RSA-OAEP",
            Self::RsaOaep256 => "RSA-OAEP-256",
            Self::EcdhEs => "ECDH-ES",
            Self::EcdhEsA128Kw => "ECDH-ES+A128KW",
            Self::EcdhEsA256Kw => "ECDH-ES+A256KW",
            Self::Direct => "dir",
            Self::A128Kw => "A128KW",
            Self::A256Kw => "A256KW",
            Self::A128GcmKw => "A128GCMKW",
            Self::A256GcmKw => "A256GCMKW",
        }
    }

    /// With an RSA key of ours.
    pub(in crate::authn::oidc) fn is_rsa(self) -> bool {
        matches!(self, Self::RsaOaep | Self::RsaOaep256)
    }

    /// With an EC or X25519 key of ours.
    pub(in crate::authn::oidc) fn is_agreement(self) -> bool {
        matches!(self, Self::EcdhEs | Self::EcdhEsA128Kw | Self::EcdhEsA256Kw)
    }

    /// With a key that both sides have.
    pub(in crate::authn::oidc) fn is_shared(self) -> bool {
        !self.is_rsa() && !self.is_agreement()
    }

    /// The key-encryption key's bytes; `None`: there is none between the shared key and the content.
    pub(super) fn shared_len(self) -> Option<usize> {
        match self {
            Self::A128Kw | Self::A128GcmKw | Self::EcdhEsA128Kw => Some(16),
            Self::A256Kw | Self::A256GcmKw | Self::EcdhEsA256Kw => Some(32),
            Self::RsaOaep | Self::RsaOaep256 | Self::EcdhEs | Self::Direct => None,
        }
    }
}

type ContentKey = Zeroizing<Vec<u8>>;

/// Core §10.2: the left-most octets of the secret's SHA-2 hash, the smallest that has enough of them.
pub(super) fn from_secret(secret: &SecretString, length: usize) -> ContentKey {
    let hash = match length {
        0..=32 => &digest::SHA256,
        33..=48 => &digest::SHA384,
        _ => &digest::SHA512,
    };
    let hash = digest::digest(hash, secret.expose_secret().as_bytes());
    Zeroizing::new(hash.as_ref()[..length.min(hash.as_ref().len())].to_vec())
}

/// With one of our private keys.
pub(super) fn unwrap(token: &Jwe<'_>, ours: &Material) -> Result<ContentKey, Stage> {
    match token.management {
        KeyManagement::RsaOaep => unwrap_rsa(token, ours, &OAEP_SHA1_MGF1SHA1),
        KeyManagement::RsaOaep256 => unwrap_rsa(token, ours, &OAEP_SHA256_MGF1SHA256),
        // §4.6.2: what is agreed is bound to `enc` where it is the content key, to `alg` where it wraps one.
        KeyManagement::EcdhEs => {
            no_encrypted_key(token)?;
            ecdh::agree(&token.header, ours, token.content.name(), token.content.key_len())
        }
        management => {
            let agreed = ecdh::agree(&token.header, ours, management.name(), token.shared_len())?;
            unwrap_aes(token, &agreed)
        }
    }
}

/// With a key that both sides have.
pub(super) fn unwrap_shared(token: &Jwe<'_>, shared: &[u8]) -> Result<ContentKey, Stage> {
    match token.management {
        KeyManagement::Direct => {
            no_encrypted_key(token)?;
            Ok(Zeroizing::new(shared.to_vec()))
        }
        KeyManagement::A128GcmKw | KeyManagement::A256GcmKw => unwrap_gcm(token, shared),
        _ => unwrap_aes(token, shared),
    }
}

/// RFC 7516 §5.2 step 10.
fn no_encrypted_key(token: &Jwe<'_>) -> Result<(), Stage> {
    if token.encrypted_key.is_empty() { Ok(()) } else { Err(Stage::Malformed) }
}

/// RFC 7518 §4.3.
fn unwrap_rsa(token: &Jwe<'_>, ours: &Material, algorithm: &'static OaepAlgorithm) -> Result<ContentKey, Stage> {
    let Material::Rsa { oaep, .. } = ours else { return Err(Stage::NoKey) };
    if token.encrypted_key.len() != oaep.key_size_bytes() {
        return Err(Stage::Malformed);
    }
    let mut key = Zeroizing::new(vec![0; oaep.min_output_size()]);
    let length = oaep.decrypt(algorithm, &token.encrypted_key, &mut key, None).map_err(|_| Stage::Key)?.len();
    key.truncate(length);
    Ok(key)
}

/// RFC 7518 §4.4, RFC 3394.
fn unwrap_aes(token: &Jwe<'_>, shared: &[u8]) -> Result<ContentKey, Stage> {
    // The integrity check of a wrapped key has 8 bytes.
    if token.encrypted_key.len() != token.content.key_len() + 8 {
        return Err(Stage::Malformed);
    }
    let wrapping = if shared.len() == 16 { AesKek::new(&AES_128, shared) } else { AesKek::new(&AES_256, shared) };
    let mut key = Zeroizing::new(vec![0; token.encrypted_key.len()]);
    let unwrapped = wrapping.and_then(|wrapping| Ok(wrapping.unwrap(&token.encrypted_key, &mut key)?.len()));
    let length = unwrapped.map_err(|_| Stage::Key)?;
    key.truncate(length);
    Ok(key)
}

/// RFC 7518 §4.7.
fn unwrap_gcm(token: &Jwe<'_>, shared: &[u8]) -> Result<ContentKey, Stage> {
    let octets = |name| base64url(text(&token.header, name)?).map_err(|_| Stage::Malformed);
    let (iv, tag) = (octets("iv")?, octets("tag")?);
    let algorithm = if shared.len() == 16 { &AES_128_GCM } else { &AES_256_GCM };
    let sealed = Sealed { iv: &iv, aad: b"", ciphertext: &token.encrypted_key, tag: &tag };
    let key = open_gcm(algorithm, shared, &sealed).map_err(|_| Stage::Key)?;
    Ok(Zeroizing::new(key))
}
