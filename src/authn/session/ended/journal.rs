//! What has ended, in a file, so that a restart forgets nothing.
//!
//! A statement is handed to the system before whoever ended the session is answered, which a killed process cannot take
//! back; a thread brings it to the disk at once, so that a power cut takes no more than the last moment. The file is written
//! anew when most of it has expired, and at each start.
//!
//! Processes may share the folder: each writes a file of its own, and reads all of them when it starts.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use super::frame::{self, Content};
use super::statement::Statement;
use crate::files;

/// Processes that share a folder.
const SLOTS: usize = 64;
/// The largest file, in bytes: a million entries of the longest kind are less.
const LARGEST: u64 = 512 << 20;
/// A file smaller than this is never written anew because of its size.
const SMALL: u64 = 1 << 20;

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

/// The file of this process.
#[derive(Debug)]
pub(super) struct Journal {
    path: PathBuf,
    file: File,
    /// In bytes.
    length: u64,
    /// When it was written anew, in bytes.
    from: u64,
    /// What is said while it is written anew.
    meanwhile: Option<Vec<u8>>,
    /// Something could not be written: only writing it anew helps.
    broken: bool,
    wake: SyncSender<()>,
    /// Held as long as the file is ours.
    _lock: File,
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
    /// Writes our own file, with what all of them said. The receiver is told whenever there is something to bring to disk.
    pub(super) fn open(self, snapshot: &[u8]) -> Result<(Journal, Receiver<()>), JournalError> {
        let Unopened { folder, own, locks } = self.journal;
        let path = place(&folder, own, "log");
        let opened = write_anew(&path, snapshot).and_then(|file| {
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
        let (wake, waking) = sync_channel(1);
        let length = snapshot.len() as u64;
        let Some(lock) = own_lock else { return Err(JournalError::Crowded(folder)) };
        let journal = Journal { path, file, length, from: length, meanwhile: None, broken: false, wake, _lock: lock };
        Ok((journal, waking))
    }
}

impl Journal {
    /// Says it. What cannot be written is said to the log, and written when that becomes possible.
    pub(super) fn append(&mut self, statement: &Statement) {
        let mut record = Vec::with_capacity(64);
        frame::write(&mut record, statement);
        if let Some(meanwhile) = &mut self.meanwhile {
            meanwhile.extend_from_slice(&record);
        }
        if !self.broken {
            match self.file.write_all(&record) {
                Ok(()) => self.length += record.len() as u64,
                Err(error) => self.fail(&error),
            }
        }
        // Full: it is about to look anyway.
        let _ = self.wake.try_send(());
    }

    pub(super) fn fail(&mut self, error: &io::Error) {
        if !self.broken {
            let path = self.path.display();
            tracing::error!(reason = "ended_unwritten", %path, %error, "ended sessions cannot be written down; a restart would forget them");
        }
        self.broken = true;
    }

    /// What has to be brought to the disk; `None`: it has to be written anew.
    pub(super) fn unsettled(&self) -> Option<io::Result<File>> {
        let is_full = self.length > SMALL.max(self.from.saturating_mul(2));
        (!self.broken && !is_full).then(|| self.file.try_clone())
    }

    /// From here on, what is said is kept for the new file too.
    pub(super) fn begin_anew(&mut self) -> PathBuf {
        self.meanwhile = Some(Vec::new());
        self.path.clone()
    }

    /// The new file takes the place of the old one, or its writing failed.
    pub(super) fn end_anew(&mut self, written: io::Result<(File, u64)>) -> io::Result<()> {
        let meanwhile = self.meanwhile.take().unwrap_or_default();
        let (mut file, length) = written?;
        file.write_all(&meanwhile)?;
        file.sync_all()?;
        put_in_place(&self.path)?;
        self.file = file;
        self.from = length + meanwhile.len() as u64;
        self.length = self.from;
        if std::mem::take(&mut self.broken) {
            tracing::info!("ended sessions are written down again");
        }
        Ok(())
    }
}

/// Beside the file, under another name. Blocks.
pub(super) fn write_anew(path: &Path, snapshot: &[u8]) -> io::Result<File> {
    let next = path.with_extension("new");
    // Appending, so that what comes later goes to the end.
    let _ = std::fs::remove_file(&next);
    let mut file = OpenOptions::new().append(true).create_new(true).mode(0o600).open(next)?;
    file.write_all(snapshot)?;
    file.sync_all()?;
    Ok(file)
}

fn put_in_place(path: &Path) -> io::Result<()> {
    std::fs::rename(path.with_extension("new"), path)?;
    // The name too, or a power cut could take it back.
    File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
}

fn place(folder: &Path, slot: usize, kind: &str) -> PathBuf {
    folder.join(format!("ended-sessions-{slot}.{kind}"))
}
