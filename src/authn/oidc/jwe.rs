//! Encrypted tokens (JWE, RFC 7516, compact form), opened with our private keys or with a key from the client secret (Core
//! §10.2). RSA1_5 (a padding oracle), PBES2 and compression (bombs) are never taken.

mod content;
mod ecdh;
mod key;

use serde_json::{Map, Value};

pub(super) use self::content::ContentEncryption;
use self::content::Sealed;
pub(super) use self::key::KeyManagement;
use super::client_keys::ClientKeys;
use super::jose::{MAX_TOKEN, base64url, json_object};
use crate::secret::SecretString;

/// An encrypted token that was not opened. Whoever sent it learns no more than this; the log learns the stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the token cannot be decrypted")]
pub(super) struct Undecryptable(Stage);

/// How far the opening came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Not five base64url parts with a JSON object in the first, or a part that does not fit the algorithm.
    Malformed,
    /// `crit` or `zip` in the header.
    Extension,
    /// An `alg` or `enc` that is unknown or not allowed here.
    Algorithm,
    /// No key of ours is for it.
    NoKey,
    /// The content key could not be recovered.
    Key,
    /// The tag, or after it the padding, is wrong.
    Content,
}

impl Undecryptable {
    /// For the log.
    pub(super) fn stage(self) -> &'static str {
        match self.0 {
            Stage::Malformed => "it is malformed",
            Stage::Extension => "it asks for extensions or compression",
            Stage::Algorithm => "its algorithms are not allowed",
            Stage::NoKey => "no key fits",
            Stage::Key => "its content key cannot be recovered",
            Stage::Content => "its content is not authentic",
        }
    }
}

/// What opens tokens.
#[derive(Debug, Clone, Copy)]
pub(super) struct Decrypter<'a> {
    /// Our private keys.
    pub(super) keys: &'a ClientKeys,
    /// The client secret, for the symmetric kinds of key management.
    pub(super) secret: Option<&'a SecretString>,
    /// What is allowed here as `alg`.
    pub(super) management: &'a [KeyManagement],
    /// What is allowed here as `enc`.
    pub(super) content: &'a [ContentEncryption],
}

impl Decrypter<'_> {
    /// The content of a token: for an ID token a JWS, which the caller verifies.
    pub(super) fn open(&self, token: &str) -> Result<Vec<u8>, Undecryptable> {
        let token = Jwe::parse(token).map_err(Undecryptable)?;
        if !self.management.contains(&token.management) || !self.content.contains(&token.content) {
            return Err(Undecryptable(Stage::Algorithm));
        }
        self.open_parsed(&token).map_err(Undecryptable)
    }

    fn open_parsed(&self, token: &Jwe<'_>) -> Result<Vec<u8>, Stage> {
        if token.management.is_shared() {
            let secret = self.secret.filter(|secret| !secret.expose_secret().is_empty()).ok_or(Stage::NoKey)?;
            return token.open_shared(&key::from_secret(secret, token.shared_len()));
        }
        let mut failure = Stage::NoKey;
        for key in self.keys.decrypting(token.management, token.kid.as_deref()) {
            match key::unwrap(token, key.material()).and_then(|key| token.open_content(&key)) {
                Ok(content) => return Ok(content),
                Err(stage) => failure = stage,
            }
        }
        Err(failure)
    }
}

/// A token in its five parts.
struct Jwe<'a> {
    protected: &'a str,
    header: Map<String, Value>,
    management: KeyManagement,
    content: ContentEncryption,
    kid: Option<String>,
    encrypted_key: Vec<u8>,
    iv: Vec<u8>,
    ciphertext: Vec<u8>,
    tag: Vec<u8>,
}

impl<'a> Jwe<'a> {
    /// RFC 7516 §5.2 steps 1 to 5 and 7.1.
    fn parse(token: &'a str) -> Result<Self, Stage> {
        if token.len() > MAX_TOKEN {
            return Err(Stage::Malformed);
        }
        let mut parts = token.split('.');
        let mut next = || parts.next().ok_or(Stage::Malformed);
        let (protected, parts_of_binary) = (next()?, [next()?, next()?, next()?, next()?]);
        if parts.next().is_some() {
            return Err(Stage::Malformed);
        }
        let decode = |part: &str| base64url(part).map_err(|_| Stage::Malformed);
        let header = json_object(&decode(protected)?).map_err(|_| Stage::Malformed)?;
        if header.contains_key("crit") || header.contains_key("zip") {
            return Err(Stage::Extension);
        }
        let management = KeyManagement::from_name(text(&header, "alg")?).ok_or(Stage::Algorithm)?;
        let content = ContentEncryption::from_name(text(&header, "enc")?).ok_or(Stage::Algorithm)?;
        let kid = if header.contains_key("kid") { Some(text(&header, "kid")?.to_owned()) } else { None };
        let [encrypted_key, iv, ciphertext, tag] = parts_of_binary.map(decode);
        let (encrypted_key, iv, ciphertext, tag) = (encrypted_key?, iv?, ciphertext?, tag?);
        Ok(Self { protected, header, management, content, kid, encrypted_key, iv, ciphertext, tag })
    }

    /// The length of the key that both sides share, in bytes.
    fn shared_len(&self) -> usize {
        self.management.shared_len().unwrap_or(self.content.key_len())
    }

    fn open_shared(&self, shared: &[u8]) -> Result<Vec<u8>, Stage> {
        self.open_content(&key::unwrap_shared(self, shared)?)
    }

    /// RFC 7516 §5.2 steps 14 to 16.
    fn open_content(&self, key: &[u8]) -> Result<Vec<u8>, Stage> {
        let aad = self.protected.as_bytes();
        let sealed = Sealed { iv: &self.iv, aad, ciphertext: &self.ciphertext, tag: &self.tag };
        self.content.open(key, &sealed).map_err(|_| Stage::Content)
    }
}

fn text<'a>(header: &'a Map<String, Value>, name: &str) -> Result<&'a str, Stage> {
    header.get(name).and_then(Value::as_str).ok_or(Stage::Malformed)
}

#[cfg(test)]
mod tests;
