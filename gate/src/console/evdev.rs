//! Hardware inputs: a foot pedal or a button that is TAKE, ESTOP or CONFIRM when it goes down.
//!
//! Each has a thread that waits for nothing else, so that TAKE is one step away with every network, disk and screen down. A device that
//! is unplugged, or that another program has grabbed, is told on every console and opened again. Its events go nowhere else: it is
//! grabbed (EVIOCGRAB). A hardware input is no live console: nobody reads from it.

use super::Shared;
use super::hand::NotDone;
use crate::fail_stop::{self, Asked};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::time::Duration;
use trocar_control::evdev::device;
use trocar_control::evdev::{InputEvent, KeyChange, KeyCode, Parser, RECORD};
use trocar_proto::handover::gate::Act;

/// One pedal or button box.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InputConfig {
    /// For the screen: "foot pedal".
    pub name: String,
    /// `/dev/input/by-id/…-event-kbd` or the like; a pipe with the same records works too.
    pub device: PathBuf,
    /// What its keys do when they go down.
    pub keys: BTreeMap<KeyCode, HardwareAct>,
}

/// Acts that a key can be. OFFER needs a choice, and RESET and CLOSE want eyes on the screen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HardwareAct {
    /// TAKE.
    Take,
    /// ESTOP (HO-G-016).
    Estop,
    /// The first confirmation; amber wants another act (HO-G-026).
    Confirm,
}

impl HardwareAct {
    const fn act(self) -> Act {
        match self {
            Self::Take => Act::Take,
            Self::Estop => Act::Estop,
            Self::Confirm => Act::Confirm,
        }
    }

    /// Whether it counts whenever it is read. A CONFIRM out of a backlog would be for something that nobody looks at any more.
    const fn is_safe_late(self) -> bool {
        matches!(self, Self::Take | Self::Estop)
    }
}

/// How long one wait for an event is: after so long the thread looks whether it is to end.
const WAIT: Duration = Duration::from_millis(250);
/// Before a device that is gone is tried again.
const RETRY: Duration = Duration::from_millis(500);
/// A thread that was away for longer than this reads a backlog, microseconds.
const BACKLOG: u64 = 750_000;
/// How often an act is tried again where the core's lane is full, and how long after.
const TRIES: u32 = 50;
const TRY_AGAIN: Duration = Duration::from_millis(20);

/// Reads one input on a thread of its own.
pub(super) fn start(place: usize, config: InputConfig, shared: Shared) -> io::Result<()> {
    let name = format!("trocar-input-{place}");
    fail_stop::spawn(&name, move || Ok(Reader { place, config, shared }.run()))
}

struct Reader {
    place: usize,
    config: InputConfig,
    shared: Shared,
}

/// Why reading ended.
enum End {
    Asked,
    /// A recording, not a device: it is played once.
    Played,
    Lost(io::Error),
}

impl Reader {
    fn run(self) -> Asked {
        crate::realtime::claim();
        let mut was = None;
        while !self.shared.is_over() {
            let end = match self.open() {
                Ok(file) => self.read(&file, &mut was),
                Err(e) => End::Lost(e),
            };
            match end {
                End::Asked => return Asked,
                // Whoever named a recording asked for its end too.
                End::Played => {
                    self.shared.note_input(self.place, Some("the recording is over".to_owned()));
                    return Asked;
                }
                End::Lost(error) => self.tell(&mut was, Some(error.to_string())),
            }
            std::thread::sleep(RETRY);
        }
        Asked
    }

    fn open(&self) -> io::Result<File> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = File::from(rustix::fs::open(&self.config.device, flags, Mode::empty())?);
        // A pedal that is a keyboard must not type into a terminal as well, nor press a button in a browser.
        device::grab(&file).map_err(io::Error::other)?;
        Ok(file)
    }

    /// Tells the screens, and the log when it is news.
    fn tell(&self, was: &mut Option<Option<String>>, trouble: Option<String>) {
        if was.as_ref() == Some(&trouble) {
            return;
        }
        let (input, device) = (&self.config.name, self.config.device.display());
        match &trouble {
            None => tracing::info!(%input, %device, "hardware input connected"),
            Some(why) => tracing::warn!(%input, %device, %why, "hardware input NOT CONNECTED"),
        }
        self.shared.note_input(self.place, trouble.clone());
        *was = Some(trouble);
    }

    fn read(&self, file: &File, was: &mut Option<Option<String>>) -> End {
        let is_recording = file.metadata().is_ok_and(|m| m.is_file());
        let mut parser = Parser::default();
        let mut bytes = [0; 64 * RECORD];
        let wait = Timespec { tv_sec: 0, tv_nsec: WAIT.subsec_nanos().into() };
        let mut before = crate::core::now();
        while !self.shared.is_over() {
            let mut fds = [PollFd::new(file, PollFlags::IN)];
            match poll(&mut fds, Some(&wait)) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(e) => return End::Lost(e.into()),
            }
            let now = crate::core::now();
            let late = now.since(before) > BACKLOG;
            before = now;
            match rustix::io::read(file, &mut bytes) {
                Ok(0) if is_recording => return End::Played,
                Ok(0) => return End::Lost(io::Error::new(io::ErrorKind::UnexpectedEof, "nobody at the other end")),
                Ok(n) => {
                    self.tell(was, None);
                    parser.handle(bytes.get(..n).unwrap_or_default(), |event| self.perform(event, late));
                }
                Err(Errno::AGAIN) => self.tell(was, None),
                Err(Errno::INTR) => {}
                Err(e) => return End::Lost(e.into()),
            }
        }
        End::Asked
    }

    fn perform(&self, event: InputEvent, late: bool) {
        let input = &self.config.name;
        if event == InputEvent::Dropped {
            tracing::warn!(%input, "events were lost; press again");
        }
        let InputEvent::Key(key, KeyChange::Pressed) = event else { return };
        let Some(act) = self.config.keys.get(&key) else { return };
        if late && !act.is_safe_late() {
            tracing::warn!(%input, %key, ?act, "came too late to count");
            return;
        }
        for _ in 0..TRIES {
            match self.shared.hand.act(act.act()) {
                // The register's answer stands on the screens.
                Ok(_) => return,
                Err(NotDone::Full) => std::thread::sleep(TRY_AGAIN),
                Err(_) => break,
            }
        }
        tracing::error!(%input, ?act, "NOT TAKEN: the gate does not run");
    }
}

#[cfg(test)]
mod tests;
