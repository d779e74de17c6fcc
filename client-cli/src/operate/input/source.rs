//! Reads a file and knows how old what it reads can be at most (HO-T-012).
//!
//! A line of `stdin` has no time of its own, and a device's events have that of a clock that can be set. But what was read came after
//! the source was last seen to have nothing to say: a process that was paused for a while and finds a backlog knows it by that.

use crate::operate::now;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::io::{ErrorKind, Read};
use std::os::fd::AsFd;
use std::time::Duration;
use trocar_proto::units::Micros;

/// A source with nothing to say is looked at this often.
const LOOK: Duration = Duration::from_millis(10);

/// What a look at the source gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    /// Nothing waits there at this time.
    Nothing(Micros),
    /// So many bytes, written after this time; zero at the end.
    Bytes(usize, Micros),
}

/// A file that is read as it comes.
#[derive(Debug)]
pub(super) struct Source<F> {
    file: F,
    /// When nothing was waiting.
    empty: Micros,
    /// The last look found nothing.
    waits: bool,
    every: Duration,
}

impl<F: Read + AsFd> Source<F> {
    /// From now on.
    pub(super) fn new(file: F) -> Self {
        Self::new_looking(file, LOOK)
    }

    /// As [`Self::new`], where it is looked at as often as that, or every 10 ms.
    pub(super) fn new_looking(file: F, every: Duration) -> Self {
        Self { file, empty: now(), waits: false, every: every.min(LOOK) }
    }

    /// Looks; where nothing was there the last time, for 10 ms at most.
    ///
    /// # Errors
    /// Where it cannot be read any more.
    pub(super) fn look(&mut self, bytes: &mut [u8]) -> std::io::Result<Look> {
        if std::mem::take(&mut self.waits) {
            self.is_ready(self.every)?;
        }
        // Before the look: what comes while it is taken came after.
        let at = now();
        if !self.is_ready(Duration::ZERO)? {
            (self.empty, self.waits) = (at, true);
            return Ok(Look::Nothing(at));
        }
        loop {
            match self.file.read(bytes) {
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                // Somebody else read it meanwhile.
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(Look::Nothing(self.empty)),
                read => return read.map(|n| Look::Bytes(n, self.empty)),
            }
        }
    }

    fn is_ready(&self, wait: Duration) -> std::io::Result<bool> {
        let mut asked = [PollFd::new(&self.file, PollFlags::IN)];
        match poll(&mut asked, Some(&Timespec { tv_sec: 0, tv_nsec: wait.subsec_nanos().into() })) {
            Ok(ready) => Ok(ready > 0),
            // Seen as something that waits, a signal would make a read that blocks; seen as nothing, what waits would look young.
            Err(rustix::io::Errno::INTR) => self.is_ready(Duration::ZERO),
            Err(error) => Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    #[test]
    fn what_is_read_is_as_old_as_the_last_moment_at_which_nothing_was_there() {
        // HO-T-012
        let (reader, mut writer) = std::io::pipe().unwrap();
        let mut source = Source::new(reader);
        let mut bytes = [0; 4];
        let Look::Nothing(empty) = source.look(&mut bytes).unwrap() else { panic!("something") };
        writer.write_all(b"abcdef").unwrap();
        // What stands still here is the reader; that is what is measured.
        std::thread::sleep(Duration::from_millis(60));
        assert_eq!(source.look(&mut bytes).unwrap(), Look::Bytes(4, empty));
        writer.write_all(b"gh").unwrap();
        assert_eq!(source.look(&mut bytes).unwrap(), Look::Bytes(4, empty), "still the same backlog");
        // Negative control: seen empty, it is young again.
        let Look::Nothing(later) = source.look(&mut bytes).unwrap() else { panic!("something") };
        assert!(later.since(empty) >= 60_000);
        writer.write_all(b"i").unwrap();
        assert_eq!(source.look(&mut bytes).unwrap(), Look::Bytes(1, later));
        drop(writer);
        assert_eq!(source.look(&mut bytes).unwrap(), Look::Bytes(0, later), "the end");
    }
}
