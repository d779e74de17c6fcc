//! Which frames are on the screen, as `trocar watch --echo-to` says (HO-T-009).

use super::inbox::Inbox;
use anyhow::{Context as _, bail};
use std::io::ErrorKind;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use trocar_proto::handover::frameproof::{ECHO_LEN, decode_echo};

/// The socket's file; removed when dropped.
#[derive(Debug)]
pub(super) struct Echoes(PathBuf);

impl Drop for Echoes {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Listens on a thread of its own until the process ends. The socket is this user's alone: whoever can write there can make a frozen
/// picture look fresh.
///
/// # Errors
/// Where the socket cannot be made, another station listens there, or others could put their own in its place.
pub(super) fn listen(path: &Path, inbox: Inbox) -> anyhow::Result<Echoes> {
    let named = || format!("--echo-from {}", path.display());
    private_dir(path).with_context(named)?;
    if let Ok(there) = std::fs::symlink_metadata(path) {
        if !there.file_type().is_socket() {
            bail!("{}: there is a file of this name that is no socket: another name is right", named());
        }
        let probe = UnixDatagram::unbound().with_context(named)?;
        if probe.connect(path).is_ok() {
            bail!("{}: another station listens there: another name is right", named());
        }
        // Left behind by a station that was killed.
        std::fs::remove_file(path).with_context(named)?;
    }
    let socket = bind_private(path).with_context(named)?;
    let file = Echoes(path.to_owned());
    let work = move || {
        // One byte more than a word has, so that a longer one is seen to be none.
        let mut bytes = [0; ECHO_LEN + 1];
        loop {
            match socket.recv(&mut bytes) {
                Ok(n) => match decode_echo(bytes.get(..n).unwrap_or_default()) {
                    Ok(frame) => inbox.shown(frame),
                    Err(error) => tracing::debug!(%error, "not an echo"),
                },
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(error) => return tracing::error!(%error, "no more echoes"),
            }
        }
    };
    std::thread::Builder::new().name("trocar-echoes".to_owned()).spawn(work).with_context(named)?;
    Ok(file)
}

/// Nobody else can take the socket away and put another in its place: the directory is this user's alone, and nobody else can rename
/// one above it.
fn private_dir(path: &Path) -> anyhow::Result<()> {
    let me = rustix::process::geteuid().as_raw();
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let dir = parent.canonicalize().with_context(|| parent.display().to_string())?;
    for (above, dir) in dir.ancestors().enumerate() {
        let meta = std::fs::metadata(dir).with_context(|| dir.display().to_string())?;
        let (shared, sticky) = (meta.mode() & 0o022 != 0, meta.mode() & 0o1000 != 0);
        let owned = meta.uid() == me || (above > 0 && meta.uid() == 0);
        if !owned || (shared && (above == 0 || !sticky)) {
            bail!(
                "{}: others can write there: a directory that only this user can write to is right, as /run/user/{me}",
                dir.display()
            );
        }
    }
    Ok(())
}

/// A socket that nobody else can write to, from its first moment on.
fn bind_private(path: &Path) -> std::io::Result<UnixDatagram> {
    let before = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o177));
    let socket = UnixDatagram::bind(path);
    rustix::process::umask(before);
    socket
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::echo::Echo;
    use std::os::unix::fs::PermissionsExt as _;
    use std::time::Duration;

    #[test]
    fn what_a_viewer_shows_reaches_the_core_and_nobody_else_may_say_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("echo");
        let (inbox, core) = Inbox::new();
        let file = listen(&path, inbox.clone()).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let viewer = Echo::to(&path, 1).unwrap();
        let frame = viewer.reference(7, [&b"x"[..]].into_iter());
        viewer.shown(&frame);
        let shown = |n: u64| {
            let mut newest = None;
            let mut all = 0;
            while all < n {
                let taken = core.take(Duration::from_secs(5));
                assert!(taken.echoes > 0, "no echo within 5 s");
                (newest, all) = (taken.shown.or(newest), all + taken.echoes);
            }
            (newest, all)
        };
        assert_eq!(shown(1), (Some(frame), 1));
        // Negative control: what is no word is none.
        UnixDatagram::unbound().unwrap().send_to(&[0; ECHO_LEN], &path).unwrap();
        viewer.shown(&frame);
        assert_eq!(shown(1), (Some(frame), 1));
        let again = listen(&path, inbox.clone()).unwrap_err().to_string();
        assert!(again.contains("another station"), "{again}");
        drop(file);
        assert!(!path.exists());
        std::fs::write(&path, "").unwrap();
        assert!(listen(&path, inbox).unwrap_err().to_string().contains("no socket"));
    }

    #[test]
    fn a_directory_that_others_can_write_to_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let (inbox, _core) = Inbox::new();
        let inner = dir.path().join("inner");
        std::fs::create_dir(&inner).unwrap();
        let set = |dir: &Path, mode| std::fs::set_permissions(dir, std::fs::Permissions::from_mode(mode)).unwrap();
        let path = inner.join("echo");
        for (outer, mode, refused) in [
            (0o700, 0o700, false),
            (0o755, 0o755, false),
            (0o1777, 0o700, false),
            (0o700, 0o770, true),
            (0o700, 0o702, true),
            (0o700, 0o1777, true),
            (0o777, 0o700, true),
        ] {
            set(dir.path(), outer);
            set(&inner, mode);
            match listen(&path, inbox.clone()) {
                Ok(_) => assert!(!refused, "{outer:o} {mode:o}"),
                Err(e) => assert!(refused && format!("{e:#}").contains("only this user"), "{outer:o} {mode:o}: {e:#}"),
            }
        }
    }
}
