//! A gamepad or a foot pedal by its event device (`/dev/input/eventN`). Presence is a button that is held: a device that is gone, or
//! that lost events, lets everything go, and what it said last is not said again.

use super::layout::Layout;
use super::pad::State;
use super::source::{Look, Source};
use crate::operate::acts::{Act, Hands};
use crate::operate::inbox::Inbox;
use crate::operate::now;
use anyhow::Context as _;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;
use trocar_control::evdev::device::{self, Range};
use trocar_control::evdev::{Parser, RECORD};

/// A device that is gone is tried again this often.
const AGAIN: Duration = Duration::from_millis(500);

/// An event device.
#[derive(Debug)]
pub(in crate::operate) struct Controls {
    path: PathBuf,
    layout: Layout,
    file: Option<File>,
}

impl Controls {
    /// Opens it, and sees to it that its keys type nowhere else.
    ///
    /// # Errors
    /// Where it cannot be read, or another program has it.
    pub(super) fn open(path: &Path, layout: Layout) -> anyhow::Result<Self> {
        let file = open(path)?;
        Ok(Self { path: path.to_owned(), layout, file: Some(file) })
    }

    /// Reads until the process ends, or a recording does.
    pub(super) fn run(mut self, inbox: &Inbox) {
        let mut told = String::new();
        loop {
            match self.file.take().map_or_else(|| open(&self.path), Ok) {
                Ok(file) => {
                    let is_recording = file.metadata().is_ok_and(|m| m.is_file());
                    follow(file, &self.layout, inbox);
                    told.clear();
                    tracing::error!(device = %self.path.display(), "the input is gone: everything is let go");
                    if is_recording {
                        return;
                    }
                }
                Err(error) => {
                    let why = format!("{error:#}");
                    if why != told {
                        tracing::error!("{why}");
                        told = why;
                    }
                }
            }
            std::thread::sleep(AGAIN);
        }
    }
}

fn open(path: &Path) -> anyhow::Result<File> {
    let file = File::open(path).with_context(|| {
        format!("{}: an event device that this user may read is right (group input)", path.display())
    })?;
    device::grab(&file).with_context(|| path.display().to_string())?;
    Ok(file)
}

/// Acts until the device is gone; then everything is let go. A stick that is held away from its rest still says nothing and moves on.
fn follow(file: File, layout: &Layout, inbox: &Inbox) {
    let state = State::new(layout.clone(), |axis| Range::of(&file, axis));
    let every = Duration::from_secs(1) / layout.rate.max(1);
    act_on(state, Source::new_looking(file, every), inbox);
    inbox.act(now(), Act::Hands(Hands::released()));
}

fn act_on(mut state: State, mut source: Source<File>, inbox: &Inbox) {
    let (mut bytes, mut parser) = ([0; RECORD * 64], Parser::default());
    loop {
        let mut acts = Vec::new();
        let at = match source.look(&mut bytes) {
            Ok(Look::Nothing(at)) => {
                acts = state.felt(at);
                at
            }
            Ok(Look::Bytes(n @ 1.., at)) => {
                parser.handle(bytes.get(..n).unwrap_or_default(), |e| acts.extend(state.handle(e, at)));
                at
            }
            Ok(Look::Bytes(..)) | Err(_) => return,
        };
        for act in acts {
            inbox.act(at, act);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{PipeWriter, Write as _};
    use std::os::fd::OwnedFd;
    use trocar_control::evdev::encode;
    use trocar_proto::handover::device_wire::sim;
    use trocar_proto::handover::types::Clutch;

    const SOON: Duration = Duration::from_secs(5);

    fn plugged_in(inbox: &Inbox) -> (PipeWriter, std::thread::JoinHandle<()>) {
        let (reader, writer) = std::io::pipe().unwrap();
        let inbox = inbox.clone();
        let file = File::from(OwnedFd::from(reader));
        (writer, std::thread::spawn(move || follow(file, &Layout::gamepad(), &inbox)))
    }

    /// A hand at the pad: triggers pulled from their rest, the left stick pushed to the right. As a driver writes it.
    fn gripped() -> Vec<u8> {
        let events: [(u16, u16, i32); 9] = [
            (3, 2, 3),
            (3, 5, 2),
            (0, 0, 0),
            (3, 2, 255),
            (0, 0, 0),
            (3, 5, 255),
            (0, 0, 0),
            (3, 0, 32_767),
            (0, 0, 0),
        ];
        events.iter().flat_map(|(kind, code, value)| encode(*kind, *code, *value)).collect()
    }

    #[test]
    fn a_stick_that_is_held_moves_at_its_speed_and_a_pad_that_is_unplugged_lets_go_and_says_nothing_again() {
        // HO-T-013
        let (inbox, lanes) = Inbox::new();
        let (mut pad, thread) = plugged_in(&inbox);
        pad.write_all(&gripped()).unwrap();
        // The stick stays where it is and says nothing more.
        let (mut moved, mut hands) = (Vec::new(), Hands::default());
        let begin = std::time::Instant::now();
        while moved.len() < 20 && begin.elapsed() < SOON {
            let taken = lanes.take(Duration::from_millis(100));
            taken.hands.iter().for_each(|felt| hands.take(&felt.latest));
            moved.extend(taken.motions);
        }
        assert_eq!((hands.presence, hands.clutch), (Some(true), Some(Clutch::Closed)));
        let steps: Vec<i16> = moved.iter().map(|(_, m)| sim::Motion::decode(m.as_bytes()).unwrap().axes[0]).collect();
        assert!(steps.len() >= 20 && steps.iter().all(|x| *x == 200), "20 mm/s at 100 a second: {steps:?}");
        drop(pad);
        thread.join().unwrap();
        let taken = lanes.take(Duration::ZERO);
        assert_eq!(taken.hands.map(|felt| felt.latest), Some(Hands::released()));
        assert!(lanes.take(Duration::from_millis(50)).motions.is_empty(), "moves without a hand");
    }

    #[test]
    fn another_character_device_is_no_gamepad_and_a_recording_ends_with_everything_let_go() {
        let error = format!("{:#}", Controls::open(Path::new("/dev/null"), Layout::pedal()).unwrap_err());
        assert!(error.contains("/dev/null") && error.contains("no event device"), "{error}");
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&gripped()).unwrap();
        let (inbox, lanes) = Inbox::new();
        Controls::open(file.path(), Layout::gamepad()).unwrap().run(&inbox);
        let latest = lanes.take(Duration::ZERO).hands.map(|felt| felt.latest).unwrap_or_default();
        assert_eq!((latest.presence, latest.pedal, latest.clutch), (Some(false), Some(false), Some(Clutch::Open)));
    }
}
