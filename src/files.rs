//! Files that are read whole, within a bound, and looked at again later. By content, since a mounted secret changes by a
//! symlink two folders up (Kubernetes' `..data`), of which no watch of the file itself hears.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use aws_lc_rs::digest;
use zeroize::Zeroizing;

/// No certificate or key file is bigger, in bytes: a bundle of every public root has 250 KB.
pub(crate) const LARGEST: u64 = 1 << 20;

/// SHA-256 over everything that some files hold.
pub(crate) type Digest = [u8; 32];

/// Reads a file of at most `largest` bytes. Blocks.
pub(crate) fn bounded(path: &Path, largest: u64) -> io::Result<Zeroizing<Vec<u8>>> {
    // The kind first: opening a pipe would wait for its writer.
    if !std::fs::metadata(path)?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no file"));
    }
    let mut bytes = Zeroizing::new(Vec::new());
    File::open(path)?.take(largest + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > largest {
        let bound = bytesize::ByteSize(largest).display().iec();
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("it is bigger than {bound}")));
    }
    Ok(bytes)
}

/// Over what was read, or why it was not.
pub(crate) fn digest<'a>(contents: impl IntoIterator<Item = Result<&'a [u8], &'a str>>) -> Digest {
    let mut context = digest::Context::new(&digest::SHA256);
    for contents in contents {
        let (kind, bytes): (u8, &[u8]) = match contents {
            Ok(bytes) => (1, bytes),
            Err(why) => (0, why.as_bytes()),
        };
        context.update(&[kind]);
        context.update(&(bytes.len() as u64).to_be_bytes());
        context.update(bytes);
    }
    // SHA-256 has 32 bytes.
    context.finish().as_ref().try_into().unwrap_or_default()
}

/// Which contents are in use, and which cannot be.
#[derive(Debug)]
pub(crate) struct Settled {
    in_use: Digest,
    /// What cannot be used and has been seen once. The files change one after the other: only what stays is told.
    unsettled: Option<Digest>,
    told: Option<Digest>,
}

impl Settled {
    pub(crate) fn new(in_use: Digest) -> Self {
        Self { in_use, unsettled: None, told: None }
    }

    /// Whether nothing has changed.
    pub(crate) fn still(&mut self, digest: Digest) -> bool {
        let same = digest == self.in_use;
        if same {
            (self.unsettled, self.told) = (None, None);
        }
        same
    }

    /// These contents are in use from now on.
    pub(crate) fn took(&mut self, digest: Digest) {
        *self = Self::new(digest);
    }

    /// These contents cannot be used. Whether that is to be told: once, when they are seen a second time.
    pub(crate) fn failed(&mut self, digest: Digest) -> bool {
        if self.unsettled != Some(digest) {
            self.unsettled = Some(digest);
            return false;
        }
        self.told.replace(digest) != Some(digest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_within_the_bound_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, [7; 100]).unwrap();
        assert_eq!(bounded(&path, 100).unwrap().len(), 100);
        assert!(bounded(&path, 99).unwrap_err().to_string().contains("bigger than 99 B"));
        assert!(bounded(folder.path(), 100).unwrap_err().to_string().contains("no file"));
        assert!(bounded(&folder.path().join("none"), 100).is_err());
    }

    #[test]
    fn what_cannot_be_used_is_told_once_and_only_when_it_stays() {
        let (good, bad, worse) = ([0; 32], [1; 32], [2; 32]);
        let mut settled = Settled::new(good);
        assert!(settled.still(good));
        assert!(!settled.still(bad));
        assert_eq!([bad; 4].map(|digest| settled.failed(digest)), [false, true, false, false]);
        assert_eq!([worse; 3].map(|digest| settled.failed(digest)), [false, true, false]);
        settled.took(bad);
        assert!(settled.still(bad));
        assert_eq!([worse; 2].map(|digest| settled.failed(digest)), [false, true]);
    }

    #[test]
    fn bytes_and_failures_never_have_the_same_digest() {
        let of = |contents: &[Result<&[u8], &str>]| digest(contents.iter().copied());
        assert_ne!(of(&[Ok(b"x")]), of(&[Err("x")]));
        assert_ne!(of(&[Ok(b"x"), Ok(b"y")]), of(&[Ok(b"xy"), Ok(b"")]));
    }
}
