//! Our own private keys (RFC 7517; RFC 7518 §6; RFC 8037 §2): read from PEM and JWK files, published without their private
//! half. The first that fits signs; all are published, and all decrypt.

mod files;
mod jwk;
mod material;
mod pem;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use aws_lc_rs::error::Unspecified;
use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

pub use self::files::KeyFiles;
pub(super) use self::material::{Curve, Material};
use super::jose::Algorithm;
use super::jwe::KeyManagement;
use super::thumbprint::thumbprint;
use crate::files::{Digest, LARGEST, bounded};

/// Why key files cannot be used: every problem at once, never a word of what the files hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
pub struct KeyFileError {
    /// At least one.
    pub problems: Vec<KeyFileProblem>,
}

/// What is wrong with one key file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{} {what}", file.display())]
pub struct KeyFileProblem {
    /// The file.
    pub file: PathBuf,
    /// What is wrong, as the rest of a sentence.
    pub what: String,
}

/// Our keys, in the order of the files.
#[derive(Debug, Default)]
pub struct ClientKeys {
    keys: Vec<Arc<ClientKey>>,
}

/// One private key.
#[derive(Debug)]
pub(super) struct ClientKey {
    kid: String,
    /// What it is for; `None`: for both.
    purpose: Option<Purpose>,
    /// The only algorithm that it may be used with.
    bound: Option<String>,
    material: Material,
}

/// RFC 7517 §4.2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    Signing,
    Decryption,
}

/// A key as it stands in a file.
struct Described {
    kid: Option<String>,
    purpose: Option<Purpose>,
    bound: Option<String>,
    material: Material,
}

impl From<Material> for Described {
    fn from(material: Material) -> Self {
        Self { kid: None, purpose: None, bound: None, material }
    }
}

/// A file's bytes, or why there are none.
type Contents = Result<Zeroizing<Vec<u8>>, String>;

impl ClientKeys {
    /// Reads every file. Blocks.
    pub fn read(paths: &[PathBuf]) -> Result<Self, KeyFileError> {
        Self::build(paths, &contents(paths))
    }

    /// What the files hold now. Blocks.
    pub(super) fn digest(paths: &[PathBuf]) -> Digest {
        files::digest_of(&contents(paths))
    }

    fn build(paths: &[PathBuf], contents: &[Contents]) -> Result<Self, KeyFileError> {
        let mut keys: Vec<Arc<ClientKey>> = Vec::new();
        let mut problems = Vec::new();
        for (path, contents) in paths.iter().zip(contents) {
            let problem = |what: String| KeyFileProblem { file: path.clone(), what };
            match contents.as_ref().map_err(|why| format!("cannot be read: {why}")).and_then(|bytes| read_keys(bytes)) {
                Ok(read) => {
                    for key in read {
                        // RFC 7517 §4.5: one name for two keys would leave the other side guessing.
                        if keys.iter().any(|other| other.kid == key.kid) {
                            problems.push(problem(format!("holds a second key with the kid {:?}", key.kid)));
                        } else {
                            keys.push(Arc::new(key));
                        }
                    }
                }
                Err(what) => problems.push(problem(what)),
            }
        }
        if problems.is_empty() { Ok(Self { keys }) } else { Err(KeyFileError { problems }) }
    }

    /// The JWK Set to publish (RFC 7517 §5). Every key names its use, as Core §10 asks where both kinds are there, so a key
    /// for both stands in it twice.
    pub fn public_jwks(&self) -> Value {
        json!({ "keys": self.keys.iter().flat_map(|key| key.published()).collect::<Vec<_>>() })
    }

    /// Whether one of them signs with one of `algorithms`.
    pub fn can_sign_with(&self, algorithms: &[Algorithm]) -> bool {
        self.signer(algorithms).is_some()
    }

    /// The first key that signs with one of `wanted`, and the first of those that it can.
    pub(super) fn signer(&self, wanted: &[Algorithm]) -> Option<(Arc<ClientKey>, Algorithm)> {
        self.signers(wanted).next()
    }

    /// Every key with each of `wanted` that it signs with.
    pub(super) fn signers(&self, wanted: &[Algorithm]) -> impl Iterator<Item = (Arc<ClientKey>, Algorithm)> {
        let of_key = |key: &Arc<ClientKey>| {
            let (key, signs) = (Arc::clone(key), wanted.iter().copied().filter(|algorithm| key.signs(*algorithm)));
            signs.map(move |algorithm| (Arc::clone(&key), algorithm)).collect::<Vec<_>>()
        };
        self.keys.iter().flat_map(of_key)
    }

    /// The keys that may open a token: the named one, or every fitting one where the name is missing or unknown.
    pub(super) fn decrypting(&self, management: KeyManagement, kid: Option<&str>) -> Vec<&ClientKey> {
        let fitting: Vec<_> = self.keys.iter().filter(|key| key.manages(management)).map(AsRef::as_ref).collect();
        let named: Vec<_> = fitting.iter().copied().filter(|key| kid.is_some_and(|kid| key.is_named(kid))).collect();
        if named.is_empty() { fitting } else { named }
    }
}

impl ClientKey {
    /// A fresh P-256 key that lives as long as the process, named by its thumbprint.
    pub(super) fn generate() -> Result<Self, Unspecified> {
        Ok(Self::named(Described { purpose: Some(Purpose::Signing), ..Material::generate()?.into() }))
    }

    fn named(Described { kid, purpose, bound, material }: Described) -> Self {
        // Every kind that we read has a thumbprint.
        let kid = kid.or_else(|| thumbprint(&material.public_jwk())).unwrap_or_default();
        Self { kid, purpose, bound, material }
    }

    pub(super) fn kid(&self) -> &str {
        &self.kid
    }

    /// Its public members and nothing else.
    pub(super) fn public_jwk(&self) -> Map<String, Value> {
        self.material.public_jwk()
    }

    pub(super) fn material(&self) -> &Material {
        &self.material
    }

    /// Whether it may and can sign so.
    pub(super) fn signs(&self, algorithm: Algorithm) -> bool {
        self.purpose != Some(Purpose::Decryption)
            && self.bound.as_deref().is_none_or(|bound| Algorithm::from_name(bound) == Some(algorithm))
            && self.material.signs(algorithm)
    }

    /// Whether it may and can decrypt so.
    pub(super) fn manages(&self, management: KeyManagement) -> bool {
        self.purpose != Some(Purpose::Signing)
            && self.bound.as_deref().is_none_or(|bound| bound == management.name())
            && self.material.manages(management)
    }

    /// The bare signature (RFC 7518 §3); fails for an algorithm that it does not sign with.
    pub(super) fn signature(&self, algorithm: Algorithm, message: &[u8]) -> Result<Vec<u8>, Unspecified> {
        if self.signs(algorithm) { self.material.sign(algorithm, message) } else { Err(Unspecified) }
    }

    fn can_sign(&self) -> bool {
        Algorithm::ASYMMETRIC.into_iter().any(|algorithm| self.signs(algorithm))
    }

    fn can_decrypt(&self) -> bool {
        KeyManagement::ALL.into_iter().any(|management| self.manages(management))
    }

    fn is_named(&self, kid: &str) -> bool {
        self.kid == kid || self.decryption_kid() == kid
    }

    /// A key for both is published under two names, since a kid should name one entry (RFC 7517 §4.5).
    fn decryption_kid(&self) -> String {
        if self.can_sign() { format!("{}-enc", self.kid) } else { self.kid.clone() }
    }

    fn published(&self) -> Vec<Value> {
        let entry = |kid: String, purpose: &str| {
            let mut jwk = self.public_jwk();
            jwk.insert("kid".to_owned(), kid.into());
            jwk.insert("use".to_owned(), purpose.into());
            if let Some(bound) = &self.bound {
                jwk.insert("alg".to_owned(), bound.as_str().into());
            }
            Value::Object(jwk)
        };
        let signing = self.can_sign().then(|| entry(self.kid.clone(), "sig"));
        let decryption = self.can_decrypt().then(|| entry(self.decryption_kid(), "enc"));
        signing.into_iter().chain(decryption).collect()
    }
}

fn contents(paths: &[PathBuf]) -> Vec<Contents> {
    let read = |path: &PathBuf| bounded(Path::new(path), LARGEST).map_err(|error| error.to_string());
    paths.iter().map(read).collect()
}

/// JSON begins with a brace, PEM with anything else.
fn read_keys(bytes: &[u8]) -> Result<Vec<ClientKey>, String> {
    let described = if bytes.trim_ascii_start().starts_with(b"{") { jwk::read(bytes)? } else { pem::read(bytes)? };
    let keys: Vec<_> = described.into_iter().map(ClientKey::named).collect();
    match keys.iter().find(|key| !key.can_sign() && !key.can_decrypt()) {
        Some(useless) => Err(format!("holds the key {:?}, whose use or alg does not fit its kind", useless.kid)),
        None => Ok(keys),
    }
}

#[cfg(test)]
mod tests;
