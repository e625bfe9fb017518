//! Encrypted ID tokens, userinfo and signed answers (OpenID Connect Core §10.2, JARM §2.2): opened with our own keys, so that
//! the one verifier sees what is inside. Encryption proves nothing about who sent it: what is inside is judged as if it had
//! come in the clear.

use std::borrow::Cow;

use super::client_keys::ClientKeys;
use super::jwe::{ContentEncryption, Decrypter, KeyManagement, Undecryptable};
use crate::secret::SecretString;

/// What is taken of encrypted tokens.
#[derive(Debug, Clone)]
pub struct Decryption {
    management: Vec<KeyManagement>,
    /// An ID token from the token endpoint that is not encrypted is refused.
    pub required: bool,
}

impl Default for Decryption {
    /// Without RSA-OAEP, whose hash is SHA-1, and without keys that both sides have.
    fn default() -> Self {
        let management =
            KeyManagement::ALL.into_iter().filter(|one| *one == KeyManagement::RsaOaep256 || one.is_agreement());
        Self { management: management.collect(), required: false }
    }
}

impl Decryption {
    /// With the algorithms of these JOSE names in the place of the default.
    ///
    /// # Errors
    /// The first name that is not known.
    pub fn with_algorithms(self, names: &[String]) -> Result<Self, &str> {
        let known = |name| KeyManagement::from_name(name).ok_or(name);
        let management = names.iter().map(String::as_str).map(known).collect::<Result<_, _>>()?;
        Ok(Self { management, ..self })
    }

    /// The algorithms that are taken.
    pub(super) fn names(&self) -> impl Iterator<Item = &'static str> {
        self.management.iter().map(|management| management.name())
    }

    /// Every name that is known.
    pub fn known_algorithms() -> Vec<&'static str> {
        KeyManagement::ALL.into_iter().map(KeyManagement::name).collect()
    }

    /// The names of those algorithms that one of `keys` opens tokens with.
    pub(super) fn usable_with(&self, keys: &ClientKeys) -> Vec<&'static str> {
        let usable = self.management.iter().filter(|management| !keys.decrypting(**management, None).is_empty());
        usable.map(|management| management.name()).collect()
    }

    /// Whether one of the algorithms works with a key that both sides have: the client secret (Core §10.2).
    pub fn uses_the_secret(&self) -> bool {
        self.management.iter().any(|management| management.is_shared())
    }

    /// The content of an encrypted token.
    pub(super) fn open(
        &self,
        token: &str,
        keys: &ClientKeys,
        secret: Option<&SecretString>,
    ) -> Result<Vec<u8>, Undecryptable> {
        Decrypter { keys, secret, management: &self.management, content: &ContentEncryption::ALL }.open(token)
    }
}

/// Whether it has the five parts of an encrypted token (RFC 7516 §9); a signed one has three.
pub fn is_encrypted(token: &str) -> bool {
    token.bytes().filter(|byte| *byte == b'.').count() == 4
}

/// What is inside, as text; the token itself where it is not encrypted.
pub(super) fn opened<'t>(
    token: &'t str,
    open: impl FnOnce(&str) -> Result<Vec<u8>, Undecryptable>,
) -> Result<Cow<'t, str>, Undecryptable> {
    if !is_encrypted(token) {
        return Ok(Cow::Borrowed(token));
    }
    // What is no text is no token either, and has none of the characters of one.
    Ok(Cow::Owned(String::from_utf8(open(token)?).unwrap_or_default()))
}
