//! The thread that owns the file: it writes down what was said, brings it to the disk, and writes all of it anew when most of
//! it has expired or something could not be written. A folder that hangs holds this thread and nobody else.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Weak};
use std::thread::{self, Builder};
use std::time::Duration;

use super::EndedSessions;
use super::spool::{ROOM, Said, Spool};

/// A file smaller than this is never written anew because of its size.
const SMALL: u64 = 1 << 20;
/// After what could not be written.
const PAUSE: Duration = Duration::from_secs(1);
/// How often it looks whether the new file is written.
const GLANCE: Duration = Duration::from_millis(20);

/// The file of this process, and what is to go into it.
#[derive(Debug)]
pub(super) struct Keeper {
    pub(super) path: PathBuf,
    pub(super) file: File,
    /// In bytes.
    pub(super) length: u64,
    /// When it was written anew, in bytes.
    pub(super) from: u64,
    /// Something is not in it: only writing it anew helps.
    pub(super) broken: bool,
    pub(super) spool: Arc<Spool>,
    /// Held as long as the file is ours.
    pub(super) _lock: File,
    /// Dropped last, which says that all of it is done.
    pub(super) _done: Sender<()>,
}

impl Keeper {
    /// Works as long as there is a set, and then until everything said is written. Blocks.
    pub(super) fn run(mut self, ended: &Weak<EndedSessions>) {
        while let Some(said) = self.spool.take() {
            self.append(said);
            while self.broken || self.length > SMALL.max(self.from.saturating_mul(2)) {
                let Some(snapshot) = ended.upgrade().map(|ended| ended.tidy_snapshot()) else { return };
                if let Err(error) = self.write_anew(snapshot) {
                    self.fail(&error);
                    thread::sleep(PAUSE);
                }
            }
            self.spool.caught_up();
        }
    }

    /// Hands it to the system, tells whoever waits, and brings it to the disk.
    fn append(&mut self, Said { records, waiting, overflowed, .. }: Said) {
        if self.broken || records.is_empty() {
            self.broken |= overflowed;
            return;
        }
        let written = self.file.write_all(&records).and_then(|()| {
            self.length += records.len() as u64;
            for told in waiting {
                // Whoever has gone does not need to know.
                let _ = told.send(());
            }
            self.file.sync_data()
        });
        if let Err(error) = written {
            self.fail(&error);
        }
        self.broken |= overflowed;
    }

    fn fail(&mut self, error: &io::Error) {
        self.broken = true;
        self.spool.fell_behind(error);
    }

    /// Puts a file of what counts in the place of the old one. What is said meanwhile goes into both.
    fn write_anew(&mut self, snapshot: Vec<u8>) -> io::Result<()> {
        let path = self.path.clone();
        let write = move || write_beside(&path, &snapshot).map(|file| (file, snapshot.len() as u64));
        let writing = Builder::new().name("ended-anew".to_owned()).spawn(write)?;
        let (mut meanwhile, mut missed) = (Vec::new(), false);
        while !writing.is_finished() {
            let said = self.spool.take_within(GLANCE);
            missed |= said.overflowed || meanwhile.len() > ROOM;
            if !missed {
                meanwhile.extend_from_slice(&said.records);
            }
            self.append(said);
        }
        let (mut file, length) = writing.join().map_err(|_| io::Error::other("writing it anew panicked"))??;
        file.write_all(&meanwhile)?;
        file.sync_all()?;
        put_in_place(&self.path)?;
        self.file = file;
        self.from = length + meanwhile.len() as u64;
        self.length = self.from;
        self.broken = missed;
        Ok(())
    }
}

/// Beside the file, under another name. Blocks.
pub(super) fn write_beside(path: &Path, snapshot: &[u8]) -> io::Result<File> {
    let next = path.with_extension("new");
    // Appending, so that what comes later goes to the end.
    let _ = std::fs::remove_file(&next);
    let mut file = OpenOptions::new().append(true).create_new(true).mode(0o600).open(next)?;
    file.write_all(snapshot)?;
    file.sync_all()?;
    Ok(file)
}

/// What was written beside the file takes its place. Blocks.
pub(super) fn put_in_place(path: &Path) -> io::Result<()> {
    std::fs::rename(path.with_extension("new"), path)?;
    // The name too, or a power cut could take it back.
    File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
}
