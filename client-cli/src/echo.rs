//! The frame proof on the viewer's side: which frame is on the screen, told to the expert's station (HANDOVER.md section 8).
//!
//! HO-T-009: what was not shown is not echoed. A word that is not taken is lost: the next frame is told anew, and a screen that stands
//! still tells nothing new.

use anyhow::Context as _;
use aws_lc_rs::digest;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use trocar_proto::handover::frameproof::{encode_echo, first_128, length_prefix};
use trocar_proto::handover::types::FrameRef;

/// The first 128 bits of the SHA-256 over a frame's RTP payloads in order, each after its length in 32 bits.
pub(crate) fn frame_digest<'a>(payloads: impl Iterator<Item = &'a [u8]>) -> u128 {
    let mut context = digest::Context::new(&digest::SHA256);
    for payload in payloads {
        context.update(&length_prefix(payload));
        context.update(payload);
    }
    let mut sha = [0; 32];
    sha.iter_mut().zip(context.finish().as_ref()).for_each(|(to, from)| *to = *from);
    first_128(&sha)
}

/// Tells a station which frame is shown.
#[derive(Debug)]
pub(crate) struct Echo {
    socket: UnixDatagram,
    path: PathBuf,
    source: u16,
    told: AtomicU64,
    lost: AtomicBool,
}

impl Echo {
    /// To the station that listens at this path, now or later.
    ///
    /// # Errors
    /// Where no socket can be made, or the path cannot be the name of one.
    pub(crate) fn to(path: &Path, source: u16) -> anyhow::Result<Self> {
        std::os::unix::net::SocketAddr::from_pathname(path)
            .with_context(|| format!("--echo-to {}: at most 107 bytes are right", path.display()))?;
        let socket = UnixDatagram::unbound().context("--echo-to: no socket")?;
        socket.set_nonblocking(true).context("--echo-to")?;
        Ok(Self { socket, path: path.to_owned(), source, told: AtomicU64::new(0), lost: AtomicBool::new(false) })
    }

    /// The reference of a frame that came whole.
    pub(crate) fn reference<'a>(&self, frame: u32, payloads: impl Iterator<Item = &'a [u8]>) -> FrameRef {
        FrameRef { source: self.source, view: 0, frame, digest: frame_digest(payloads) }
    }

    /// It is on the screen now. Never waits.
    pub(crate) fn shown(&self, frame: &FrameRef) {
        match self.socket.send_to(&encode_echo(frame), &self.path) {
            Ok(_) => {
                self.told.fetch_add(1, Ordering::Relaxed);
                if self.lost.swap(false, Ordering::Relaxed) {
                    tracing::info!(socket = %self.path.display(), "the station hears which frames are shown");
                }
            }
            // Loss policy: a station that is slow or not there hears of the next frame.
            Err(error) => {
                if !self.lost.swap(true, Ordering::Relaxed) {
                    tracing::warn!(socket = %self.path.display(), %error, "the station does not hear which frames are shown");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use trocar_proto::handover::frameproof::decode_echo;

    #[test]
    fn the_digest_is_of_each_payload_after_its_length() {
        // SHA-256 of 00000002 6162 00000001 63.
        let whole = digest::digest(&digest::SHA256, b"\0\0\0\x02ab\0\0\0\x01c");
        let want = u128::from_be_bytes(whole.as_ref()[..16].try_into().unwrap());
        assert_eq!(frame_digest([&b"ab"[..], b"c"].into_iter()), want);
        // Negative control: the same bytes, cut elsewhere.
        assert_ne!(frame_digest([&b"a"[..], b"bc"].into_iter()), want);
    }

    #[test]
    fn a_station_hears_what_is_shown_and_one_that_is_not_there_stops_nothing() {
        // HO-T-009
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("echo");
        let echo = Echo::to(&path, 1).unwrap();
        let frame = echo.reference(7, [&b"x"[..]].into_iter());
        echo.shown(&frame);
        assert_eq!(echo.told.load(Ordering::Relaxed), 0);
        let station = UnixDatagram::bind(&path).unwrap();
        echo.shown(&frame);
        let mut buffer = [0; 64];
        let n = station.recv(&mut buffer).unwrap();
        assert_eq!(decode_echo(&buffer[..n]), Ok(frame));
        assert_eq!((frame.source, frame.view, frame.frame), (1, 0, 7));
    }

    #[test]
    fn a_path_that_is_no_socket_is_refused() {
        let e = Echo::to(Path::new(&"x".repeat(200)), 1).unwrap_err().to_string();
        assert!(e.contains("--echo-to") && e.contains("107"), "{e}");
    }
}
