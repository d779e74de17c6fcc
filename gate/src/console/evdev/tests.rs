//! Recorded bytes through a real pipe: this is what a device file gives.

use super::*;
use crate::console::fixture;
use crate::core::{Event, Inbox};
use rustix::fs::{FileType, mknodat};
use std::io::Write as _;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::watch;
use trocar_control::evdev::encode;

const SPACE: u16 = 57;
const A: u16 = 30;
const C: u16 = 46;

/// A gate's inbox with one pedal, a pipe.
struct Pedal {
    inbox: Inbox,
    shared: Shared,
    pipe: PathBuf,
    _dir: tempfile::TempDir,
    _view: watch::Sender<Arc<crate::core::View>>,
}

impl Pedal {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("event7");
        mknodat(rustix::fs::CWD, &pipe, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        let inbox = Inbox::default();
        let (to, view) = watch::channel(Arc::new(fixture::local()));
        let shared = Shared::new(inbox.clone(), crate::console::fixture::withdrawal().0, view);
        shared.inputs.lock().unwrap().push(("pedal".to_owned(), Some("not opened yet".to_owned())));
        let keys = [(SPACE, HardwareAct::Take), (A, HardwareAct::Estop), (C, HardwareAct::Confirm)];
        let keys = keys.into_iter().map(|(k, a)| (KeyCode(k), a)).collect();
        let config = InputConfig { name: "pedal".to_owned(), device: pipe.clone(), keys };
        start(0, config, shared.clone()).unwrap();
        Self { inbox, shared, pipe, _dir: dir, _view: to }
    }

    /// Opens the pipe for writing; waits for the reader.
    fn plug_in(&self) -> File {
        File::options().write(true).open(&self.pipe).unwrap()
    }

    fn next(&self) -> Option<Act> {
        match self.inbox.pop(Duration::from_secs(5)) {
            Some(Event::Act(act, _)) => Some(act),
            Some(other) => panic!("a pedal is no live console: {other:?}"),
            None => None,
        }
    }

    /// Until the screens say this of it.
    fn wait_for(&self, is: impl Fn(&Option<String>) -> bool) -> Option<String> {
        let begin = Instant::now();
        loop {
            let now = self.shared.inputs.lock().unwrap()[0].1.clone();
            if is(&now) || begin.elapsed() > Duration::from_secs(5) {
                assert!(is(&now), "{now:?}");
                return now;
            }
            std::thread::yield_now();
        }
    }
}

impl Drop for Pedal {
    fn drop(&mut self) {
        self.shared.stop.store(true, std::sync::atomic::Ordering::Relaxed);
    }
}

#[test]
fn a_press_is_the_act_and_release_repetition_and_unknown_codes_are_nothing() {
    let pedal = Pedal::new();
    let mut pipe = pedal.plug_in();
    let mut bytes = Vec::new();
    for (kind, code, value) in [
        (4, 4, 458_796), // MSC_SCAN
        (1, SPACE, 1),
        (0, 0, 0),
        (1, SPACE, 2),
        (1, SPACE, 2),
        (1, SPACE, 0),
        (1, 99, 1),
        (3, SPACE, 1), // an axis of the same number
        (0, 3, 0),     // SYN_DROPPED
        (1, A, 1),
        (1, C, 1),
    ] {
        bytes.extend(encode(kind, code, value));
    }
    // In pieces that end within a record.
    for piece in bytes.chunks(17) {
        pipe.write_all(piece).unwrap();
    }
    assert_eq!([pedal.next(), pedal.next(), pedal.next()], [Some(Act::Take), Some(Act::Estop), Some(Act::Confirm)]);
    assert!(pedal.inbox.pop(Duration::ZERO).is_none());
    pedal.wait_for(Option::is_none);
}

#[test]
fn what_is_unplugged_is_told_and_works_again_when_it_is_back() {
    let pedal = Pedal::new();
    let mut pipe = pedal.plug_in();
    // Half a record, and gone: the other half of something else must not complete it.
    pipe.write_all(&encode(1, A, 1)[..20]).unwrap();
    drop(pipe);
    pedal.wait_for(|t| t.as_deref() == Some("nobody at the other end"));
    let model = pedal.shared.model();
    assert_eq!(
        (model.inputs[0].good, model.inputs[0].text.as_str()),
        (false, "pedal NOT CONNECTED: nobody at the other end")
    );
    let mut pipe = pedal.plug_in();
    pipe.write_all(&encode(1, SPACE, 1)).unwrap();
    assert_eq!(pedal.next(), Some(Act::Take));
    pedal.wait_for(Option::is_none);
}

#[test]
fn a_device_that_is_not_there_is_told_by_the_systems_own_words() {
    let pedal = Pedal::new();
    let config = InputConfig { name: "button".into(), device: "/nowhere/event9".into(), keys: BTreeMap::new() };
    start(0, config, pedal.shared.clone()).unwrap();
    pedal.wait_for(|t| t.as_ref().is_some_and(|t| t.contains("No such file or directory")));
}

#[test]
fn what_is_no_event_device_is_told_and_its_bytes_are_no_acts() {
    // The negative control of the pipe: a character device has to be one that can be grabbed.
    let pedal = Pedal::new();
    let keys = [(KeyCode(SPACE), HardwareAct::Take)].into();
    start(0, InputConfig { name: "zero".into(), device: "/dev/zero".into(), keys }, pedal.shared.clone()).unwrap();
    pedal.wait_for(|t| t.as_ref().is_some_and(|t| t.contains("it is no event device: /dev/input/eventN")));
    assert!(pedal.inbox.pop(RETRY).is_none());
}

#[test]
fn a_recording_is_played_once() {
    let pedal = Pedal::new();
    let file = pedal.pipe.with_file_name("recording");
    std::fs::write(&file, [encode(1, SPACE, 1), encode(1, SPACE, 0)].concat()).unwrap();
    let keys = [(KeyCode(SPACE), HardwareAct::Take)].into();
    start(0, InputConfig { name: "recording".into(), device: file, keys }, pedal.shared.clone()).unwrap();
    assert_eq!(pedal.next(), Some(Act::Take));
    pedal.wait_for(|t| t.as_deref() == Some("the recording is over"));
    assert!(pedal.inbox.pop(RETRY * 2).is_none());
}

#[test]
fn of_a_backlog_take_and_estop_count_and_a_confirmation_does_not() {
    let pedal = Pedal::new();
    let keys = [(KeyCode(SPACE), HardwareAct::Take), (KeyCode(C), HardwareAct::Confirm)].into();
    let config = InputConfig { name: "pedal".into(), device: pedal.pipe.clone(), keys };
    let reader = Reader { place: 0, config, shared: pedal.shared.clone() };
    let press = |key| InputEvent::Key(KeyCode(key), KeyChange::Pressed);
    reader.perform(press(C), true);
    reader.perform(press(SPACE), true);
    reader.perform(press(C), false);
    assert_eq!([pedal.next(), pedal.next()], [Some(Act::Take), Some(Act::Confirm)]);
}

#[test]
fn take_is_tried_again_while_the_core_does_not_take_it() {
    let pedal = Pedal::new();
    while pedal.inbox.push(crate::core::Lane::Local, Event::Shutdown).is_ok() {}
    let mut pipe = pedal.plug_in();
    pipe.write_all(&encode(1, SPACE, 1)).unwrap();
    let begin = Instant::now();
    let mut acts = 0;
    while acts == 0 && begin.elapsed() < Duration::from_secs(5) {
        acts += usize::from(matches!(pedal.inbox.pop(TRY_AGAIN), Some(Event::Act(Act::Take, _))));
    }
    assert_eq!(acts, 1);
}
