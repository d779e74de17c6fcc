//! The terminal as a file: opened anew without blocking, so that one that hangs delays nothing, and put back as it was.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr, ttyname};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

/// A terminal that can be drawn on.
#[derive(Debug)]
pub struct Tty(File);

impl Tty {
    /// The one that the program was started from.
    ///
    /// # Errors
    /// Standard input or output is no terminal, or it may not be opened.
    pub fn stdio() -> io::Result<Self> {
        tcgetattr(io::stdin())?;
        tcgetattr(io::stdout())?;
        let name = ttyname(io::stdin(), Vec::new())?;
        let named = rustix::fs::open(name.as_c_str(), FLAGS, Mode::empty());
        // After `su` the terminal's own name may be another user's.
        let fd = named.or_else(|_| rustix::fs::open("/dev/tty", FLAGS, Mode::empty()))?;
        Ok(Self(File::from(fd)))
    }

    /// Any other one, by its path: `/dev/tty2`.
    ///
    /// # Errors
    /// It cannot be opened, or is no terminal.
    pub fn open(path: &Path) -> io::Result<Self> {
        let fd: OwnedFd = rustix::fs::open(path, FLAGS, Mode::empty())?;
        tcgetattr(&fd)?;
        Ok(Self(File::from(fd)))
    }

    #[cfg(test)]
    pub(super) const fn file(&self) -> &File {
        &self.0
    }

    /// Columns and rows; 80 by 24 where it does not know.
    pub(super) fn size(&self) -> (u16, u16) {
        match tcgetwinsize(&self.0) {
            Ok(size) if size.ws_col > 0 && size.ws_row > 0 => (size.ws_col, size.ws_row),
            _ => (80, 24),
        }
    }

    /// Waits until something came, or until there is room where that is `wanted`.
    pub(super) fn wait(&self, wanted: bool, wait: Duration) -> io::Result<()> {
        let flags = if wanted { PollFlags::IN | PollFlags::OUT } else { PollFlags::IN };
        let mut fds = [PollFd::new(&self.0, flags)];
        let wait = Timespec { tv_sec: 0, tv_nsec: wait.as_nanos().min(999_999_999).try_into().unwrap_or(0) };
        match poll(&mut fds, Some(&wait)) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }

    /// What has come; empty where nothing has.
    ///
    /// # Errors
    /// The terminal is gone.
    pub(super) fn read<'a>(&self, into: &'a mut [u8]) -> io::Result<&'a [u8]> {
        match rustix::io::read(&self.0, &mut *into) {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(n) => Ok(into.get(..n).unwrap_or_default()),
            Err(Errno::AGAIN | Errno::INTR) => Ok(&[]),
            Err(e) => Err(e.into()),
        }
    }

    /// How much of it went out; 0 where there is no room.
    ///
    /// # Errors
    /// The terminal is gone.
    pub(super) fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        match rustix::io::write(&self.0, bytes) {
            Ok(n) => Ok(n),
            Err(Errno::AGAIN | Errno::INTR) => Ok(0),
            Err(e) => Err(e.into()),
        }
    }
}

const FLAGS: OFlags = OFlags::RDWR.union(OFlags::NONBLOCK).union(OFlags::NOCTTY).union(OFlags::CLOEXEC);
/// Alternate screen, cleared, no cursor.
pub(super) const ENTER: &[u8] = b"\x1b[?1049h\x1b[2J\x1b[?25l";
/// Colours as they were, cursor, the screen that was there before.
pub(super) const LEAVE: &[u8] = b"\x1b[0m\x1b[?25h\x1b[?1049l";
/// "Are you there?" (DSR 5).
pub(super) const ARE_YOU_THERE: &[u8] = b"\x1b[5n";

/// Keys come one by one and unseen, as long as this lives; also where a thread that panics drops it.
#[derive(Debug)]
pub(super) struct Raw<'a> {
    tty: &'a Tty,
    before: Termios,
}

impl<'a> Raw<'a> {
    pub(super) fn new(tty: &'a Tty) -> io::Result<Self> {
        let before = tcgetattr(&tty.0)?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(&tty.0, OptionalActions::Now, &raw)?;
        Ok(Self { tty, before })
    }
}

impl Drop for Raw<'_> {
    fn drop(&mut self) {
        // A terminal that hangs gets a moment and no more.
        let mut rest = LEAVE;
        for _ in 0..10 {
            let Ok(n) = self.tty.write(rest) else { break };
            rest = rest.get(n..).unwrap_or_default();
            if rest.is_empty() || self.tty.wait(true, Duration::from_millis(20)).is_err() {
                break;
            }
        }
        let _ = tcsetattr(&self.tty.0, OptionalActions::Now, &self.before);
    }
}
