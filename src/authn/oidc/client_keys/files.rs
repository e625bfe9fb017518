//! Rotation without a restart: the key files are looked at again, and what is sound takes the place of the keys in use.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;

use super::{ClientKeys, Contents, KeyFileError, contents};
use crate::files::{Digest, Settled, digest};

/// The key files of a provider, and the keys in use.
#[derive(Debug)]
pub struct KeyFiles {
    paths: Vec<PathBuf>,
    keys: ArcSwap<ClientKeys>,
    settled: Mutex<Settled>,
}

impl KeyFiles {
    /// Reads the files for the first time, where a problem is an error. Blocks.
    pub fn open(paths: Vec<PathBuf>) -> Result<Self, KeyFileError> {
        let contents = contents(&paths);
        let keys = ArcSwap::from_pointee(ClientKeys::build(&paths, &contents)?);
        Ok(Self { paths, keys, settled: Mutex::new(Settled::new(digest_of(&contents))) })
    }

    /// The keys in use.
    pub fn current(&self) -> Arc<ClientKeys> {
        self.keys.load_full()
    }

    /// Looks at the files every so often. Never ends, unless there is nothing to look at.
    pub async fn watch(self: Arc<Self>, every: Duration) {
        while !self.paths.is_empty() {
            tokio::time::sleep(every).await;
            let files = Arc::clone(&self);
            // A panic in there ends the watch; the keys in use stay.
            let Ok(()) = tokio::task::spawn_blocking(move || files.look()).await else { return };
        }
    }

    /// Takes in what has changed. What cannot be used leaves the keys as they are and is told once, when it stays. Blocks.
    fn look(&self) {
        let mut settled = self.settled.lock().unwrap_or_else(PoisonError::into_inner);
        let contents = contents(&self.paths);
        let digest = digest_of(&contents);
        if settled.still(digest) {
            return;
        }
        match ClientKeys::build(&self.paths, &contents) {
            Ok(keys) => {
                tracing::info!(keys = keys.keys.len(), "client keys reloaded: the first that fits signs from now on");
                self.keys.store(Arc::new(keys));
                settled.took(digest);
            }
            Err(error) if settled.failed(digest) => {
                for problem in error.problems {
                    tracing::error!(
                        file = %problem.file.display(),
                        "client keys not reloaded, those in use stay: the file {}", problem.what
                    );
                }
            }
            Err(_) => {}
        }
    }
}

pub(super) fn digest_of(contents: &[Contents]) -> Digest {
    digest(contents.iter().map(|contents| match contents {
        Ok(bytes) => Ok(bytes.as_slice()),
        Err(why) => Err(why.as_str()),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authn::oidc::vectors::ed25519;

    fn kids(files: &KeyFiles) -> Vec<String> {
        files.current().keys.iter().map(|key| key.kid.clone()).collect()
    }

    fn named(kid: &str) -> String {
        let mut key = ed25519();
        key["kid"] = kid.into();
        key.to_string()
    }

    #[test]
    fn a_sound_change_is_taken_in_and_any_other_leaves_the_keys_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        std::fs::write(&path, named("one")).unwrap();
        let files = KeyFiles::open(vec![path.clone()]).unwrap();
        files.look();
        assert_eq!(kids(&files), ["one"]);
        let whole = named("two");
        for broken in ["", &whole[..40], "-----BEGIN PRIVATE KEY-----"] {
            std::fs::write(&path, broken).unwrap();
            for _ in 0..3 {
                files.look();
                assert_eq!(kids(&files), ["one"], "{broken}");
            }
        }
        std::fs::remove_file(&path).unwrap();
        files.look();
        assert_eq!(kids(&files), ["one"]);
        std::fs::write(&path, whole).unwrap();
        files.look();
        assert_eq!(kids(&files), ["two"]);
    }

    #[cfg(unix)]
    #[test]
    fn a_mounted_secret_changes_by_its_symlink() {
        let folder = tempfile::tempdir().unwrap();
        for (version, kid) in [("v1", "one"), ("v2", "two")] {
            std::fs::create_dir(folder.path().join(version)).unwrap();
            std::fs::write(folder.path().join(version).join("key"), named(kid)).unwrap();
        }
        let data = folder.path().join("..data");
        std::os::unix::fs::symlink("v1", &data).unwrap();
        let files = KeyFiles::open(vec![data.join("key")]).unwrap();
        assert_eq!(kids(&files), ["one"]);
        let next = folder.path().join("..next");
        std::os::unix::fs::symlink("v2", &next).unwrap();
        std::fs::rename(&next, &data).unwrap();
        files.look();
        assert_eq!(kids(&files), ["two"]);
    }
}
