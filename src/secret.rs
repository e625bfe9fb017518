//! Strings that are never shown: no `Display`, no `Serialize`, a `Debug` that says only `[secret]`, memory cleared on drop.

use std::fmt;

use secrecy::ExposeSecret;
use serde::{Deserialize, Deserializer};

/// A secret value from configuration, a token endpoint or a sealed session.
#[derive(Clone)]
pub struct SecretString(secrecy::SecretString);

impl SecretString {
    /// Takes `value` over.
    pub fn new(value: String) -> Self {
        Self(value.into())
    }

    /// The value itself, for the one line that puts it on the wire.
    pub fn expose_secret(&self) -> &str {
        self.0.expose_secret()
    }
}

impl fmt::Debug for SecretString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

impl From<String> for SecretString {
    fn from(value: String) -> Self {
        Self::new(value)
    }
}

impl<'de> Deserialize<'de> for SecretString {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::new)
    }
}
