//! The files of a store, behind a trait: tests put a disk behind it that tears, fills up and fails.

use rustix::fs::FlockOperation;
use std::collections::BTreeMap;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// The files that a store writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Name {
    EpochsA,
    EpochsB,
    HeadA,
    HeadB,
    ConsentA,
    ConsentB,
    Chain,
    ChainCopy,
}

impl Name {
    pub(super) const ALL: [Self; 8] = [
        Self::EpochsA,
        Self::EpochsB,
        Self::HeadA,
        Self::HeadB,
        Self::ConsentA,
        Self::ConsentB,
        Self::Chain,
        Self::ChainCopy,
    ];
    pub(super) const EPOCHS: [Self; 2] = [Self::EpochsA, Self::EpochsB];
    pub(super) const HEAD: [Self; 2] = [Self::HeadA, Self::HeadB];
    pub(super) const CONSENT: [Self; 2] = [Self::ConsentA, Self::ConsentB];
    pub(super) const CHAINS: [Self; 2] = [Self::Chain, Self::ChainCopy];

    pub(super) const fn file(self) -> &'static str {
        match self {
            Self::EpochsA => "epochs.a",
            Self::EpochsB => "epochs.b",
            Self::HeadA => trocar_control::audit::HEADS[0],
            Self::HeadB => trocar_control::audit::HEADS[1],
            Self::ConsentA => "consent.a",
            Self::ConsentB => "consent.b",
            Self::Chain => trocar_control::audit::CHAIN,
            Self::ChainCopy => trocar_control::audit::COPY,
        }
    }
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.file())
    }
}

/// What a store asks of a disk. All of it may block.
pub(super) trait Layer: Send {
    /// Length in bytes; nothing where there is no such file.
    fn length(&mut self, name: Name) -> io::Result<Option<u64>>;
    /// As many bytes from `offset` on as there are, at most `length`.
    fn read(&mut self, name: Name, offset: u64, length: usize) -> io::Result<Vec<u8>>;
    /// Writes all of it; makes the file where there is none.
    fn write(&mut self, name: Name, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// Cuts the file to this length.
    fn cut(&mut self, name: Name, length: u64) -> io::Result<()>;
    /// Returns when everything written to the file so far is on disk, its name and length too.
    fn sync(&mut self, name: Name) -> io::Result<()>;
    /// Keeps bytes as they are in a file of their own, on disk, and gives its name.
    fn keep(&mut self, bytes: &[u8]) -> io::Result<String>;
    /// Takes a whole file out of the way, and gives its new name.
    fn set_aside(&mut self, name: Name) -> io::Result<String>;
}

/// Why a directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum DirectoryError {
    #[error("another gate runs with this store; stop it, or name another directory")]
    InUse,
    #[error("cannot be used as the gate's store: {0}")]
    Io(#[from] io::Error),
}

/// Files in a directory.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    files: BTreeMap<Name, File>,
    /// Made since the directory itself was synced last.
    is_dir_dirty: bool,
    /// The lock, shared by all that [`Directory::another`] made.
    lock: std::sync::Arc<File>,
}

/// Number of files kept aside at most; beyond it the store refuses to go on, since something is very wrong.
const MOST_KEPT: u32 = 10_000;

impl Directory {
    /// Makes the directory where there is none, and locks it.
    pub(super) fn open(path: &Path) -> Result<Self, DirectoryError> {
        DirBuilder::new().recursive(true).mode(0o700).create(path)?;
        let lock = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path.join("lock"))?;
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(DirectoryError::InUse),
            Err(e) => return Err(io::Error::from(e).into()),
        }
        Ok(Self { path: path.to_path_buf(), files: BTreeMap::new(), is_dir_dirty: true, lock: lock.into() })
    }

    /// The same directory under the same lock, for another thread.
    pub(super) fn another(&self) -> Self {
        Self {
            path: self.path.clone(),
            files: BTreeMap::new(),
            is_dir_dirty: false,
            lock: std::sync::Arc::clone(&self.lock),
        }
    }

    /// The file that has this name now: one that was moved away or removed is not written any more.
    fn existing(&mut self, name: Name) -> io::Result<Option<&File>> {
        let path = self.path.join(name.file());
        let there = match std::fs::symlink_metadata(&path) {
            Ok(there) if there.is_file() => there,
            Ok(_) => return Err(io::Error::other("is not an ordinary file")),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                self.files.remove(&name);
                return Ok(None);
            }
            Err(e) => return Err(e),
        };
        let is_same = match self.files.get(&name) {
            Some(open) => open.metadata().map(|m| (m.dev(), m.ino()) == (there.dev(), there.ino()))?,
            None => false,
        };
        if !is_same {
            let options = i32::try_from(rustix::fs::OFlags::NOFOLLOW.bits()).unwrap_or_default();
            let file = OpenOptions::new().read(true).write(true).custom_flags(options).open(&path)?;
            self.files.insert(name, file);
        }
        Ok(self.files.get(&name))
    }

    fn made(&mut self, name: Name) -> io::Result<&File> {
        if self.existing(name)?.is_none() {
            let path = self.path.join(name.file());
            let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)?;
            self.is_dir_dirty = true;
            self.files.insert(name, file);
        }
        self.files.get(&name).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn sync_dir(&mut self) -> io::Result<()> {
        if self.is_dir_dirty {
            File::open(&self.path)?.sync_all()?;
            self.is_dir_dirty = false;
        }
        Ok(())
    }

    /// A name that nobody has yet.
    fn free(&self) -> io::Result<(String, PathBuf)> {
        let names = (1..=MOST_KEPT).map(|n| format!("audit.torn-{n}"));
        let mut free = names.map(|n| (self.path.join(&n), n)).filter(|(path, _)| !path.exists());
        free.next().map(|(path, n)| (n, path)).ok_or_else(|| io::Error::other("too many files named audit.torn-N"))
    }
}

impl Layer for Directory {
    fn length(&mut self, name: Name) -> io::Result<Option<u64>> {
        match self.existing(name)? {
            Some(file) => Ok(Some(file.metadata()?.len())),
            None => Ok(None),
        }
    }

    fn read(&mut self, name: Name, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let file = self.existing(name)?.ok_or(io::ErrorKind::NotFound)?;
        let mut out = vec![0; length];
        let mut have = 0;
        while let Some(rest) = out.get_mut(have..).filter(|rest| !rest.is_empty()) {
            match file.read_at(rest, offset + have as u64) {
                Ok(0) => break,
                Ok(n) => have += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        out.truncate(have);
        Ok(out)
    }

    fn write(&mut self, name: Name, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.made(name)?.write_all_at(bytes, offset)
    }

    fn cut(&mut self, name: Name, length: u64) -> io::Result<()> {
        match self.existing(name)? {
            Some(file) => file.set_len(length),
            None => Ok(()),
        }
    }

    fn sync(&mut self, name: Name) -> io::Result<()> {
        if let Some(file) = self.files.get(&name) {
            // fdatasync: the length is flushed with it, times are not.
            file.sync_data()?;
        }
        self.sync_dir()
    }

    fn keep(&mut self, bytes: &[u8]) -> io::Result<String> {
        let (name, path) = self.free()?;
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        file.write_all_at(bytes, 0)?;
        file.sync_all()?;
        self.is_dir_dirty = true;
        self.sync_dir()?;
        Ok(name)
    }

    fn set_aside(&mut self, name: Name) -> io::Result<String> {
        let (kept, path) = self.free()?;
        std::fs::rename(self.path.join(name.file()), path)?;
        self.files.remove(&name);
        self.is_dir_dirty = true;
        self.sync_dir()?;
        Ok(kept)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_gate_cannot_have_the_same_directory_until_the_first_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let first = Directory::open(dir.path()).unwrap();
        let part = first.another();
        assert!(matches!(Directory::open(dir.path()), Err(DirectoryError::InUse)));
        drop(first);
        assert!(matches!(Directory::open(dir.path()), Err(DirectoryError::InUse)), "a part of it still lives");
        drop(part);
        Directory::open(dir.path()).unwrap();
    }

    #[test]
    fn files_are_written_read_cut_and_kept_and_nobody_else_may_read_them() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let mut files = Directory::open(dir.path()).unwrap();
        assert_eq!(files.length(Name::Chain).unwrap(), None);
        files.write(Name::Chain, 0, b"one two").unwrap();
        files.write(Name::Chain, 4, b"2").unwrap();
        files.cut(Name::Chain, 5).unwrap();
        files.sync(Name::Chain).unwrap();
        assert_eq!(files.read(Name::Chain, 2, 100).unwrap(), b"e 2");
        assert_eq!(files.length(Name::Chain).unwrap(), Some(5));
        assert_eq!(files.keep(b"torn").unwrap(), "audit.torn-1");
        assert_eq!(files.set_aside(Name::Chain).unwrap(), "audit.torn-2");
        assert_eq!(files.length(Name::Chain).unwrap(), None);
        for kept in ["audit.torn-1", "audit.torn-2", "lock"] {
            let mode = std::fs::metadata(dir.path().join(kept)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{kept}");
        }
    }

    #[test]
    fn a_file_that_was_moved_away_is_not_written_any_more() {
        let dir = tempfile::tempdir().unwrap();
        let mut files = Directory::open(dir.path()).unwrap();
        files.write(Name::Chain, 0, b"old").unwrap();
        std::fs::rename(dir.path().join("audit.jsonl"), dir.path().join("elsewhere")).unwrap();
        assert_eq!(files.length(Name::Chain).unwrap(), None);
        files.write(Name::Chain, 0, b"new one").unwrap();
        assert_eq!(std::fs::read(dir.path().join("audit.jsonl")).unwrap(), b"new one");
        assert_eq!(std::fs::read(dir.path().join("elsewhere")).unwrap(), b"old");
    }

    #[test]
    fn a_link_in_place_of_a_file_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let mut files = Directory::open(dir.path()).unwrap();
        std::os::unix::fs::symlink("/dev/null", dir.path().join("epochs.a")).unwrap();
        assert!(files.write(Name::EpochsA, 0, b"x").is_err());
        assert!(files.length(Name::EpochsA).is_err());
    }
}
