//! The files that the session's secrets are read from, again and again while the proxy runs, and how one of them is rotated.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::secrets::{SHORTEST, generate_secret, weakness};
use crate::files;
use crate::secret::SecretString;

/// No file of secrets is bigger, in bytes.
const LARGEST: u64 = 64 * 1024;

/// Where `session.secret_file` or `session.secrets_files` are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretFiles {
    /// In their order.
    pub paths: Vec<PathBuf>,
    /// Whether white space separates several in one file.
    pub several: bool,
}

/// What a rotation does to the secrets of a file: the first seals, all open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rotation {
    /// A new one comes first.
    First,
    /// A new one comes second, where every replica gets to know it before one seals with it.
    Second,
    /// The second becomes the first.
    Promote,
    /// All but so many of the first go.
    Keep(usize),
}

/// Why secrets cannot be read or rotated. Shows none.
#[derive(Debug, thiserror::Error)]
pub enum SecretFileError {
    /// The file.
    #[error("{} {what}", path.display())]
    Contents {
        /// Which one.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// The system.
    #[error("{} cannot be {what}", path.display())]
    System {
        /// Which one.
        path: PathBuf,
        /// What could not be done.
        what: &'static str,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// No random bytes.
    #[error("the system gives no random bytes")]
    Random,
}

impl SecretFiles {
    /// The secrets, each as strong as the configuration wants it, none twice.
    ///
    /// # Errors
    /// [`SecretFileError`].
    pub fn read(&self) -> Result<Vec<SecretString>, SecretFileError> {
        let mut all: Vec<SecretString> = Vec::new();
        for path in &self.paths {
            let text = text(path)?;
            let written = match self.several {
                true => text.split_whitespace().collect(),
                false => vec![text.strip_suffix('\n').map_or(&**text, |line| line.strip_suffix('\r').unwrap_or(line))],
            };
            check(path, &written, &all)?;
            all.extend(written.into_iter().map(|secret| SecretString::new(secret.to_owned())));
        }
        Ok(all)
    }
}

/// Rotates the secrets of a file, all at once or not at all, and tells how many it holds now.
///
/// # Errors
/// [`SecretFileError`].
pub fn rotate(path: &Path, rotation: Rotation) -> Result<usize, SecretFileError> {
    // Whatever links lead there stay.
    let path = &fs::canonicalize(path).map_err(system(path, "found"))?;
    let old = text(path)?;
    let mut secrets: Vec<&str> = old.split_whitespace().collect();
    check(path, &secrets, &[])?;
    let new = Zeroizing::new(generate_secret().map_err(|_| SecretFileError::Random)?);
    match rotation {
        Rotation::First => secrets.insert(0, &new),
        Rotation::Second => secrets.insert(1, &new),
        Rotation::Promote if secrets.len() > 1 => secrets.swap(0, 1),
        Rotation::Promote => {
            let what = "has one secret, so there is no second one to promote".to_owned();
            return Err(SecretFileError::Contents { path: path.clone(), what });
        }
        Rotation::Keep(count) => secrets.truncate(count.max(1)),
    }
    let mut text = Zeroizing::new(String::with_capacity(old.len() + new.len() + secrets.len() + 2));
    for secret in &secrets {
        text.push_str(secret);
        text.push('\n');
    }
    replace(path, text.as_bytes())?;
    Ok(secrets.len())
}

fn text(path: &Path) -> Result<Zeroizing<String>, SecretFileError> {
    let bytes = files::bounded(path, LARGEST).map_err(system(path, "read"))?;
    let text = std::str::from_utf8(&bytes).map(|text| Zeroizing::new(text.to_owned()));
    text.map_err(|_| SecretFileError::Contents { path: path.to_owned(), what: "is not UTF-8 text".to_owned() })
}

fn check(path: &Path, secrets: &[&str], before: &[SecretString]) -> Result<(), SecretFileError> {
    let bad = |what: String| Err(SecretFileError::Contents { path: path.to_owned(), what });
    if secrets.is_empty() {
        return bad("holds no secret; `vestibule generate-secret` prints a good one".to_owned());
    }
    for (index, secret) in secrets.iter().enumerate() {
        if let Some(why) = weakness(secret) {
            let number = index + 1;
            return bad(format!("is no file of secrets of at least {SHORTEST} bytes: number {number} {why}"));
        }
        if secrets[..index].contains(secret) || before.iter().any(|other| other.expose_secret() == *secret) {
            return bad("holds a secret that is given twice".to_owned());
        }
    }
    Ok(())
}

/// Whoever reads it sees the old file or the new one. The name of the one beside it keeps a second rotation out meanwhile.
fn replace(path: &Path, bytes: &[u8]) -> Result<(), SecretFileError> {
    let old = fs::metadata(path).map_err(system(path, "read"))?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let folder = path.parent().unwrap_or(Path::new("/"));
    let beside = folder.join(format!(".{name}.rotating"));
    let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside);
    let file = made.map_err(|source| match source.kind() {
        io::ErrorKind::AlreadyExists => {
            let what = "is there: another rotation is under way, or was broken off; then remove it".to_owned();
            SecretFileError::Contents { path: beside.clone(), what }
        }
        _ => SecretFileError::System { path: beside.clone(), what: "made", source },
    })?;
    let written = write(file, &old, bytes).and_then(|()| fs::rename(&beside, path));
    if let Err(source) = written {
        // It holds secrets.
        let _ = fs::remove_file(&beside);
        return Err(SecretFileError::System { path: path.to_owned(), what: "replaced", source });
    }
    // The name, too, is on the disk.
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(system(folder, "written to the disk"))
}

fn write(mut file: File, old: &fs::Metadata, bytes: &[u8]) -> io::Result<()> {
    let new = file.metadata()?;
    if (new.uid(), new.gid()) != (old.uid(), old.gid()) {
        fchown(&file, Some(old.uid()), Some(old.gid()))?;
    }
    // After the owner, whose change may take bits away.
    file.set_permissions(fs::Permissions::from_mode(old.mode() & 0o777))?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn system(path: &Path, what: &'static str) -> impl FnOnce(io::Error) -> SecretFileError {
    let path = path.to_owned();
    move |source| SecretFileError::System { path, what, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: &str = "k7Rw2vXq9LmTz4NcYb8HfJd3GsPa6Ue1";

    fn secrets(path: &Path) -> Vec<String> {
        let files = SecretFiles { paths: vec![path.to_owned()], several: true };
        files.read().unwrap().iter().map(|secret| secret.expose_secret().to_owned()).collect()
    }

    #[test]
    fn a_new_secret_comes_first_or_second_and_old_ones_go_last() {
        let folder = tempfile::tempdir().unwrap();
        let (path, link) = (folder.path().join("secret"), folder.path().join("link"));
        fs::write(&path, OLD).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(rotate(&link, Rotation::Promote).unwrap_err().to_string().contains("no second one"));
        assert_eq!(rotate(&link, Rotation::First).unwrap(), 2);
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o640);
        let two = secrets(&path);
        assert_eq!((two.len(), two[1].as_str()), (2, OLD));
        assert_eq!(rotate(&path, Rotation::Second).unwrap(), 3);
        let three = secrets(&path);
        assert_eq!((&three[0], &three[2]), (&two[0], &two[1]));
        assert!(!two.contains(&three[1]));
        assert_eq!(rotate(&path, Rotation::Promote).unwrap(), 3);
        assert_eq!(secrets(&path), [&*three[1], &three[0], &three[2]]);
        assert_eq!(rotate(&path, Rotation::Keep(2)).unwrap(), 2);
        assert_eq!(secrets(&path), [&*three[1], &three[0]]);
        assert_eq!(rotate(&path, Rotation::Keep(0)).unwrap(), 1, "one always seals");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "nothing is left beside it");
    }

    #[test]
    fn what_is_no_file_of_good_secrets_stays_as_it_is_and_is_not_shown() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        for (text, why) in [
            ("", "holds no secret"),
            (" \n", "holds no secret"),
            ("hunter2", "too short"),
            ("changeme-changeme-changeme-changeme", "too weak"),
            (&format!("{OLD}\n{OLD}\n"), "given twice"),
            (&format!("{OLD}\nlisten = \"0.0.0.0:8080\"\n"), "number 2"),
        ] {
            fs::write(&path, text).unwrap();
            let told = rotate(&path, Rotation::First).unwrap_err().to_string();
            assert!(told.contains(why) && !told.contains("hunter2") && !told.contains(OLD), "{told}");
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
        fs::write(&path, OLD).unwrap();
        fs::write(folder.path().join(".secret.rotating"), "").unwrap();
        assert!(rotate(&path, Rotation::First).unwrap_err().to_string().contains("under way"));
        assert_eq!(fs::read_to_string(&path).unwrap(), OLD);
        for other in [folder.path().to_owned(), folder.path().join("none")] {
            assert!(rotate(&other, Rotation::First).is_err());
        }
    }
}
