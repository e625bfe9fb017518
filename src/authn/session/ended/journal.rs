//! What has ended, in a file, so that a restart forgets nothing.
//!
//! A statement is handed to the system before whoever ended the session is answered, which a killed process cannot take
//! back, by a thread that brings it to the disk at once, so that a power cut takes no more than the last moment. Where the
//! system does not take it within a second, the answer goes all the same, since the set has it: that is logged and counted. The
//! file is written anew when most of it has expired, and at each start.
//!
//! Processes may share the folder: each writes a file of its own, and reads all of them when it starts.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};

use super::frame::{self, Content};
use super::keeper::{Keeper, put_in_place, write_beside};
use super::spool::{PATIENCE, Spool, Written};
use super::statement::Statement;
use crate::files;

/// Processes that share a folder.
const SLOTS: usize = 64;
/// The largest file, in bytes: a million entries of the longest kind are less.
const LARGEST: u64 = 512 << 20;

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// It, or its folder, cannot be read or written.
    #[error("the ended sessions cannot be kept in {}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// As many processes as may share a folder do.
    #[error("{SLOTS} processes keep ended sessions in {} already", .0.display())]
    Crowded(PathBuf),
}

/// The file of this process, as far as those who say something see it.
#[derive(Debug)]
pub(super) struct Journal {
    pub(super) spool: Arc<Spool>,
    done: Receiver<()>,
}

/// What the files of a folder said.
pub(super) struct Found {
    pub(super) contents: Vec<Content>,
    journal: Unopened,
}

/// The place for a file of our own.
struct Unopened {
    folder: PathBuf,
    own: usize,
    /// Of processes that are gone, ours among them: what they said is said in ours.
    locks: Vec<(usize, File)>,
}

/// Reads every file and takes a place for our own.
pub(super) fn find(folder: &Path) -> Result<Found, JournalError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| JournalError::File { path, source }
    };
    DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed(folder))?;
    let mut locks = Vec::new();
    let mut contents = Vec::new();
    for slot in 0..SLOTS {
        let lock = place(folder, slot, "lock");
        let path = place(folder, slot, "log");
        // The first that nobody has is ours, so there is no need for another where there is no file.
        if locks.is_empty() || lock.exists() {
            let opened = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&lock);
            let file = opened.map_err(failed(&lock))?;
            match file.try_lock() {
                Ok(()) => locks.push((slot, file)),
                Err(std::fs::TryLockError::WouldBlock) => {}
                Err(std::fs::TryLockError::Error(source)) => return Err(JournalError::File { path: lock, source }),
            }
        }
        match files::bounded(&path, LARGEST) {
            Ok(bytes) => {
                let content = frame::read(&bytes);
                if content.damaged && locks.iter().any(|(own, _)| *own == slot) {
                    let aside = place(folder, slot, "damaged");
                    std::fs::rename(&path, &aside).map_err(failed(&path))?;
                }
                contents.push(content);
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(JournalError::File { path, source }),
        }
    }
    let Some((own, _)) = locks.first() else { return Err(JournalError::Crowded(folder.to_owned())) };
    let journal = Unopened { folder: folder.to_owned(), own: *own, locks };
    Ok(Found { contents, journal })
}

impl Found {
    /// Writes our own file, with what all of them said, for its thread to go on with.
    pub(super) fn open(self, snapshot: &[u8]) -> Result<(Journal, Keeper), JournalError> {
        let Unopened { folder, own, locks } = self.journal;
        let path = place(&folder, own, "log");
        let opened = write_beside(&path, snapshot).and_then(|file| {
            put_in_place(&path)?;
            Ok(file)
        });
        let file = opened.map_err(|source| JournalError::File { path: path.clone(), source })?;
        let mut own_lock = None;
        for (slot, lock) in locks {
            if slot == own {
                own_lock = Some(lock);
            } else if let Err(error) = std::fs::remove_file(place(&folder, slot, "log"))
                && error.kind() != io::ErrorKind::NotFound
            {
                tracing::debug!(%error, "a file of ended sessions that nobody needs stays");
            }
        }
        let Some(lock) = own_lock else { return Err(JournalError::Crowded(folder)) };
        let (spool, (working, done)) = (Spool::new(path.clone()), channel());
        let journal = Journal { spool: Arc::clone(&spool), done };
        let length = snapshot.len() as u64;
        let keeper = Keeper { path, file, length, from: length, broken: false, spool, _lock: lock, _done: working };
        Ok((journal, keeper))
    }
}

impl Journal {
    /// Says it, to be written down.
    pub(super) fn say(&self, statement: &Statement) -> Written {
        self.spool.say(statement)
    }

    pub(super) fn unwritten(&self) -> u64 {
        self.spool.unwritten()
    }
}

impl Drop for Journal {
    /// What was said is written before the place is another's, unless that takes too long.
    fn drop(&mut self) {
        self.spool.close();
        // Nothing is ever sent: it is done, or has had its time.
        let _ = self.done.recv_timeout(PATIENCE);
    }
}

fn place(folder: &Path, slot: usize, kind: &str) -> PathBuf {
    folder.join(format!("ended-sessions-{slot}.{kind}"))
}
