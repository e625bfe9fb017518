//! Provider metadata that the operator states (OpenID Connect Discovery 1.0 §3): alone, or over single members of what the
//! provider says of itself; and keys from a file or from the configuration.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::jwks::{JwksError, KeySet};
use crate::files::{self, Digest};

/// The `[provider.metadata]` section, checked.
#[derive(Debug, Clone)]
pub struct StaticMetadata {
    /// Whether the provider is asked for its own document.
    pub discovery: bool,
    /// Stands above what that document says, member by member.
    pub members: Map<String, Value>,
    /// The provider's keys, where they are not fetched.
    pub keys: Option<KeySource>,
    /// The keys that sign the provider's key set (`signed_jwks_key_file`); with them no key set counts that they did not sign.
    pub key_set_keys: Option<KeySource>,
}

/// Where keys are that nobody has to be asked for.
#[derive(Debug, Clone)]
pub enum KeySource {
    /// In this file; looked at again every so often.
    File(PathBuf),
    /// In the configuration.
    Inline(String),
}

impl Default for StaticMetadata {
    fn default() -> Self {
        Self { discovery: true, members: Map::new(), keys: None, key_set_keys: None }
    }
}

impl StaticMetadata {
    /// Puts what is stated over what was discovered.
    pub(super) fn overlay(&self, document: &mut Map<String, Value>) {
        for (name, value) in &self.members {
            document.insert(name.clone(), value.clone());
        }
    }
}

impl KeySource {
    /// Reads the keys. Blocks for as long as a small file takes.
    ///
    /// # Errors
    /// [`JwksError`].
    pub(super) fn read(&self) -> Result<KeySet, JwksError> {
        match self {
            Self::File(path) => KeySet::parse(&bounded(path).map_err(JwksError::File)?),
            Self::Inline(text) => KeySet::parse(text.as_bytes()),
        }
    }

    /// What the file holds now; the same as before means that nothing is to be done. `None` where nothing can change.
    pub(super) fn digest(&self) -> Option<Digest> {
        let Self::File(path) = self else { return None };
        let contents = bounded(path).map_err(|error| error.to_string());
        Some(files::digest([contents.as_ref().map(|bytes| bytes.as_slice()).map_err(String::as_str)]))
    }
}

/// Whether keys can be read from `source`, for whoever asks before anything is built. Blocks.
///
/// # Errors
/// [`JwksError`], as the first use would give it.
pub fn check_keys(source: &KeySource) -> Result<(), JwksError> {
    source.read().map(drop)
}

fn bounded(path: &Path) -> std::io::Result<zeroize::Zeroizing<Vec<u8>>> {
    files::bounded(path, files::LARGEST)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const KEYS: &str = r#"{"keys":[{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;

    #[test]
    fn keys_come_from_the_configuration_or_a_file_whose_change_is_noticed() {
        let inline = KeySource::Inline(KEYS.to_owned());
        assert!(check_keys(&inline).is_ok() && inline.digest().is_none());
        assert!(matches!(check_keys(&KeySource::Inline("{}".to_owned())), Err(JwksError::NotAKeySet)));
        let folder = tempfile::tempdir().unwrap();
        let file = KeySource::File(folder.path().join("keys.json"));
        assert!(matches!(check_keys(&file), Err(JwksError::File(_))));
        let absent = file.digest();
        std::fs::write(folder.path().join("keys.json"), KEYS).unwrap();
        assert!(check_keys(&file).is_ok());
        assert_ne!(file.digest(), absent);
        assert_eq!(file.digest(), file.digest());
    }

    #[test]
    fn what_is_stated_stands_above_what_was_discovered() {
        let Value::Object(mut document) = json!({ "token_endpoint": "a", "jwks_uri": "b" }) else { unreachable!() };
        let Value::Object(members) = json!({ "token_endpoint": "c", "userinfo_endpoint": "d" }) else { unreachable!() };
        StaticMetadata { members, ..StaticMetadata::default() }.overlay(&mut document);
        assert_eq!(
            Value::Object(document),
            json!({ "token_endpoint": "c", "jwks_uri": "b", "userinfo_endpoint": "d" })
        );
    }
}
