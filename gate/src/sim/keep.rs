//! The highest fence, on disk: written by a thread of its own, so that the device waits for no disk.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use trocar_proto::handover::types::Epoch;

const LABEL: &str = "trocar-sim-device fence ";

/// The fence in the file; 0 where there is no file.
///
/// # Errors
/// The file cannot be read, or has something else in it: then nobody knows the fence.
pub(super) fn load(path: &Path) -> io::Result<Epoch> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Epoch(0)),
        Err(e) => return Err(e),
    };
    let number = text.strip_prefix(LABEL).and_then(|rest| rest.trim_end().parse().ok());
    number.map(Epoch).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "not a state of trocar-sim-device"))
}

/// Whole or not at all.
fn store(path: &Path, fence: Epoch) -> io::Result<()> {
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let new = PathBuf::from(new);
    let mut file = File::create(&new)?;
    writeln!(file, "{LABEL}{}", fence.0)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(dir)?.sync_all()
}

/// The thread that writes. Only the newest fence waits.
#[derive(Debug)]
pub(super) struct Keeper {
    wanted: Arc<(Mutex<Option<Epoch>>, Condvar)>,
    durable: Receiver<Epoch>,
}

impl Keeper {
    /// `None` keeps nothing and says at once that it did.
    pub(super) fn start(path: Option<PathBuf>) -> io::Result<Self> {
        let wanted: Arc<(Mutex<Option<Epoch>>, Condvar)> = Arc::default();
        let (done, durable) = sync_channel(64);
        let theirs = Arc::clone(&wanted);
        thread::Builder::new().name("sim-disk".into()).spawn(move || write(&theirs, path.as_deref(), &done))?;
        Ok(Self { wanted, durable })
    }

    /// Write this one.
    pub(super) fn want(&self, fence: Epoch) {
        let (wanted, woken) = &*self.wanted;
        *wanted.lock().unwrap_or_else(PoisonError::into_inner) = Some(fence);
        woken.notify_one();
    }

    /// The next one that is on disk.
    pub(super) fn durable(&self) -> Option<Epoch> {
        self.durable.try_recv().ok()
    }
}

fn write((wanted, woken): &(Mutex<Option<Epoch>>, Condvar), path: Option<&Path>, done: &SyncSender<Epoch>) {
    loop {
        let guard = wanted.lock().unwrap_or_else(PoisonError::into_inner);
        let mut guard = woken.wait_while(guard, |w| w.is_none()).unwrap_or_else(PoisonError::into_inner);
        let Some(fence) = guard.take() else { continue };
        drop(guard);
        match path.map_or(Ok(()), |path| store(path, fence)) {
            Ok(()) if done.send(fence).is_err() => return,
            Ok(()) => {}
            // Commands under this fence go on being refused: NotDurable.
            Err(error) => tracing::error!(%error, fence = fence.0, "the fence could not be written"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fence_comes_back_from_disk_and_a_torn_file_is_no_fence() {
        // HO-D-001
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        assert_eq!(load(&path).unwrap(), Epoch(0));
        store(&path, Epoch(42)).unwrap();
        store(&path, Epoch(43)).unwrap();
        assert_eq!(load(&path).unwrap(), Epoch(43));
        for torn in ["", "trocar-sim-device fence ", "trocar-sim-device fence -1\n", "43\n"] {
            fs::write(&path, torn).unwrap();
            assert!(load(&path).is_err(), "{torn:?}");
        }
    }

    #[test]
    fn of_many_the_newest_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        let keeper = Keeper::start(Some(path.clone())).unwrap();
        for n in 1..=50 {
            keeper.want(Epoch(n));
        }
        while keeper.durable.recv().unwrap() != Epoch(50) {}
        assert_eq!(load(&path).unwrap(), Epoch(50));
    }
}
