//! The screen on a real pseudo-terminal, whose other end is played here: one that answers, one that hangs.

use super::*;
use crate::console::fixture::{self, local};
use crate::core::{Event, Inbox, View};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::tcgetattr;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Instant;
use tokio::sync::watch;
use trocar_proto::handover::gate::{Act, Input};

/// A screen at work, and the other end of its terminal.
struct Seat {
    master: File,
    inbox: Inbox,
    shared: Shared,
    running: Option<JoinHandle<io::Result<()>>>,
    slave: std::path::PathBuf,
    view: watch::Sender<Arc<View>>,
    withdrawn: Arc<std::sync::atomic::AtomicUsize>,
}

impl Seat {
    fn new() -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let slave = Path::new(std::ffi::OsStr::from_bytes(name.as_bytes())).to_owned();
        let far = View { at: crate::core::now().plus(600_000_000), ..local() };
        let (to, view) = watch::channel(Arc::new(far));
        let inbox = Inbox::default();
        let (withdrawal, withdrawn) = fixture::withdrawal();
        let shared = Shared::new(inbox.clone(), withdrawal, view);
        let (tty, theirs) = (Tty::open(&slave).unwrap(), shared.clone());
        let running = Some(std::thread::spawn(move || run(&theirs, tty)));
        Self { master: File::from(master), inbox, shared, running, slave, view: to, withdrawn }
    }

    /// Reads what is drawn and answers as a terminal does, on a thread, until told to stop. Returns all that was drawn.
    fn answering(&self, until: Arc<AtomicBool>) -> JoinHandle<Vec<u8>> {
        let mut master = self.master.try_clone().unwrap();
        std::thread::spawn(move || {
            let (mut all, mut bytes) = (Vec::new(), [0; 4_096]);
            while !until.load(Ordering::Relaxed) {
                let Ok(n) = master.read(&mut bytes) else { break };
                all.extend_from_slice(&bytes[..n]);
                if bytes[..n].windows(4).any(|w| w == tty::ARE_YOU_THERE) {
                    master.write_all(b"\x1b[0n").unwrap();
                }
            }
            all
        })
    }

    fn next_act(&self) -> Option<Act> {
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_secs(5) {
            if let Some(Event::Act(act, _)) = self.inbox.pop(Duration::from_millis(50)) {
                return Some(act);
            }
        }
        None
    }

    /// Signs of life within that time.
    fn beats(&self, within: Duration) -> usize {
        let begin = Instant::now();
        let mut n = 0;
        while begin.elapsed() < within {
            n += usize::from(matches!(self.inbox.pop(Duration::from_millis(20)), Some(Event::Input(Input::Console))));
        }
        n
    }

    fn end(&mut self) -> io::Result<()> {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.running.take().unwrap().join().unwrap()
    }
}

#[test]
fn a_terminal_that_answers_is_a_live_console_and_is_put_back_as_it_was() {
    let mut seat = Seat::new();
    let end = Arc::new(AtomicBool::new(false));
    let other = seat.answering(end.clone());
    assert!(seat.beats(Duration::from_secs(2)) >= 4);
    (&seat.master).write_all(b"t").unwrap();
    assert_eq!(seat.next_act(), Some(Act::Take));
    (&seat.master).write_all(b"\x1b\x1b").unwrap();
    assert_eq!(seat.next_act(), Some(Act::Estop));
    // Withdrawn consent is no act of the register, and wants its key twice.
    seat.beats(Duration::from_millis(300));
    (&seat.master).write_all(b"n").unwrap();
    seat.beats(Duration::from_millis(1_300));
    assert_eq!(seat.withdrawn.load(Ordering::Relaxed), 0);
    (&seat.master).write_all(b"n").unwrap();
    seat.beats(Duration::from_millis(300));
    assert_eq!(seat.withdrawn.load(Ordering::Relaxed), 1);
    // A core that falls silent is shown, and watched by nobody.
    seat.view.send_replace(Arc::new(View { at: Micros(0), ..local() }));
    seat.beats(Duration::from_millis(500));
    assert_eq!(seat.beats(Duration::from_secs(1)), 0);
    let ours = Tty::open(&seat.slave).unwrap();
    let raw = tcgetattr(ours.file()).unwrap();
    seat.end().unwrap();
    let cooked = tcgetattr(ours.file()).unwrap();
    assert!(raw.local_modes != cooked.local_modes);
    end.store(true, Ordering::Relaxed);
    drop(ours);
    let drawn = other.join().unwrap();
    assert!(drawn.starts_with(tty::ENTER) && drawn.ends_with(tty::LEAVE));
    let text = String::from_utf8_lossy(&drawn);
    assert!(text.contains("CONTROL:") && text.contains("UNKNOWN"));
}

#[test]
fn a_terminal_that_hangs_is_no_live_console_and_take_works_all_the_same() {
    let mut seat = Seat::new();
    // Nobody reads what is drawn, and nobody answers.
    assert_eq!(seat.beats(Duration::from_secs(2)), 0);
    for key in [&b" "[..], b"e", b"\x1bOP"] {
        (&seat.master).write_all(key).unwrap();
    }
    assert_eq!(
        [seat.next_act(), seat.next_act(), seat.next_act()],
        [Some(Act::Take), Some(Act::Estop), Some(Act::Take)]
    );
    assert!(matches!(seat.end(), Ok(())));
}

#[test]
fn pasted_letters_confirm_nothing() {
    let mut seat = Seat::new();
    seat.view.send_replace(Arc::new(View { at: crate::core::now().plus(600_000_000), ..fixture::ready() }));
    let end = Arc::new(AtomicBool::new(false));
    let other = seat.answering(end.clone());
    seat.beats(Duration::from_secs(1));
    (&seat.master).write_all(b"cc").unwrap();
    (&seat.master).write_all(b"\x14").unwrap();
    assert_eq!(seat.next_act(), Some(Act::Take));
    seat.beats(Duration::from_millis(300));
    (&seat.master).write_all(b"c").unwrap();
    assert_eq!(seat.next_act(), Some(Act::Confirm));
    seat.end().unwrap();
    end.store(true, Ordering::Relaxed);
    other.join().unwrap();
}

#[test]
fn a_terminal_that_is_gone_ends_the_screen_and_not_the_gate() {
    let mut seat = Seat::new();
    seat.beats(Duration::from_millis(300));
    let nothing = File::open("/dev/null").unwrap();
    drop(std::mem::replace(&mut seat.master, nothing));
    assert!(seat.running.take().unwrap().join().unwrap().is_err());
    assert!(Tty::open(Path::new("/dev/null")).is_err());
}
