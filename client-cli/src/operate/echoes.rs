//! Which frames are on the screen, as `trocar watch --echo-to` says (HO-T-009).

use super::acts::{In, Inbox};
use anyhow::{Context as _, bail};
use std::io::ErrorKind;
use std::os::unix::fs::FileTypeExt as _;
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
/// Where the socket cannot be made, or another station listens there.
pub(super) fn listen(path: &Path, inbox: Inbox) -> anyhow::Result<Echoes> {
    let named = || format!("--echo-from {}", path.display());
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
                    Ok(frame) => drop(inbox.put(In::Shown(frame))),
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
        match core.recv_timeout(Duration::from_secs(5)).unwrap() {
            In::Shown(shown) => assert_eq!(shown, frame),
            other => panic!("{other:?}"),
        }
        // Negative control: what is no word is none.
        UnixDatagram::unbound().unwrap().send_to(&[0; ECHO_LEN], &path).unwrap();
        viewer.shown(&frame);
        assert!(matches!(core.recv_timeout(Duration::from_secs(5)).unwrap(), In::Shown(f) if f == frame));
        assert!(core.try_recv().is_err());
        let again = listen(&path, inbox.clone()).unwrap_err().to_string();
        assert!(again.contains("another station"), "{again}");
        drop(file);
        assert!(!path.exists());
        std::fs::write(&path, "").unwrap();
        assert!(listen(&path, inbox).unwrap_err().to_string().contains("no socket"));
    }
}
