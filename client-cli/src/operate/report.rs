//! What the core says: JSON lines, and the screen's view. Never waits for whoever reads.

use super::now;
use super::view::View;
use serde_json::{Value, json};
use std::io::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

/// Lines that wait to be written. Loss policy: the newest is dropped, counted and told in the next that fits.
const LINES: usize = 4_096;

/// Counters of one second.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Sent {
    pub(super) heartbeats: u64,
    pub(super) commands: u64,
    /// Not sealed, or not taken by the line.
    pub(super) dropped: u64,
    /// Motions that were too old to be sent (HO-T-012).
    pub(super) late: u64,
    /// BEACONs that counted.
    pub(super) beacons: u64,
    /// Datagrams that did not.
    pub(super) refused: u64,
    /// Copies of BEACONs that another path had brought.
    pub(super) copies: u64,
    /// Frames that the viewer has shown.
    pub(super) echoes: u64,
}

impl Sent {
    pub(super) fn words(self, inbox_dropped: u64) -> Value {
        let Self { heartbeats, commands, dropped, late, beacons, refused, copies, echoes } = self;
        json!({
            "heartbeats": heartbeats,
            "commands": commands,
            "dropped": dropped,
            "late": late,
            "beacons": beacons,
            "refused": refused,
            "copies": copies,
            "echoes": echoes,
            "inbox_dropped": inbox_dropped,
        })
    }
}

/// Takes what is said; cloned freely.
#[derive(Debug, Clone)]
pub(super) struct Report {
    lines: Option<SyncSender<String>>,
    lost: Arc<AtomicU64>,
    view: Arc<Mutex<View>>,
    writer: Arc<Mutex<Option<JoinHandle<()>>>>,
}

impl Report {
    /// JSON lines on standard output, or the view alone.
    pub(super) fn start(json: bool) -> Self {
        let mut writer = None;
        let lines = json.then(|| {
            let (lines, waiting) = sync_channel(LINES);
            let spawned = std::thread::Builder::new().name("trocar-report".to_owned()).spawn(move || write(&waiting));
            writer = spawned.ok();
            lines
        });
        Self { lines, lost: Arc::default(), view: Arc::default(), writer: Arc::new(Mutex::new(writer)) }
    }

    /// Says what happened, with the time of now.
    pub(super) fn event(&self, event: &str, facts: Value) {
        let Some(lines) = &self.lines else { return };
        let mut line = json!({ "at_us": now().0, "event": event });
        let lost = self.lost.swap(0, Ordering::Relaxed);
        if let (Value::Object(line), Value::Object(facts)) = (&mut line, facts) {
            line.extend(facts);
            if lost > 0 {
                line.insert("lines_lost".to_owned(), lost.into());
            }
        }
        if lines.try_send(line.to_string()).is_err() {
            self.lost.fetch_add(lost + 1, Ordering::Relaxed);
        }
    }

    /// Changes what the screen shows.
    pub(super) fn with_view(&self, change: impl FnOnce(&mut View)) {
        change(&mut self.view.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// What the screen reads.
    pub(super) fn view(&self) -> Arc<Mutex<View>> {
        Arc::clone(&self.view)
    }

    /// Waits until everything said is written, as far as somebody reads.
    pub(super) fn finish(mut self) {
        self.lines = None;
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(writer) = writer {
            let deadline = std::time::Instant::now() + std::time::Duration::from_millis(500);
            while !writer.is_finished() && std::time::Instant::now() < deadline {
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
        }
    }
}

fn write(waiting: &Receiver<String>) {
    let mut out = std::io::stdout().lock();
    for line in waiting {
        // A reader that went away has what it wanted; the station goes on.
        if writeln!(out, "{line}").and_then(|()| out.flush()).is_err() {
            return;
        }
    }
}
