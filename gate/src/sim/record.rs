//! What the device did, one JSON object in a line, for proofs and for people. A thread writes; the device never waits for it: beyond
//! the bound the newest is lost, counted, and told in the next line.

use super::{Arm, Status};
use crate::device::words::{ActWords, hex_of, selection};
use serde::Serialize;
use std::fs::File;
use std::io::{self, BufWriter, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::{self, JoinHandle};
use trocar_proto::handover::gate::DeviceAct;
use trocar_proto::units::Micros;

/// Lines that wait for the writer: more than a minute of commands at their highest rate.
const WAITING: usize = 65_536;

/// One line.
#[derive(Debug)]
pub(super) struct Line {
    /// CLOCK_BOOTTIME, microseconds.
    pub(super) at: Micros,
    pub(super) what: What,
}

/// What a line says.
#[derive(Debug)]
pub(super) enum What {
    Started {
        address: String,
        fence: u64,
        watchdog_us: u32,
        fault: Option<String>,
    },
    Act {
        from: u64,
        n: u64,
        act: DeviceAct,
        refused: Option<&'static str>,
        moved: Option<Arm>,
    },
    /// A datagram that was no act: bad tag, bad bytes, old, stranger.
    Datagram {
        why: &'static str,
    },
    Change {
        why: &'static str,
        status: Status,
    },
    Durable {
        fence: u64,
    },
    Stall {
        us: u64,
    },
    Local {
        arm: Arm,
    },
    Camera {
        arm: Arm,
    },
    Ended,
}

/// The same in words.
#[derive(Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum Words<'a> {
    Started {
        address: &'a str,
        fence: u64,
        watchdog_us: u32,
        #[serde(rename = "break")]
        fault: Option<&'a str>,
    },
    Act {
        from: String,
        n: u64,
        #[serde(flatten)]
        act: ActWords,
        verdict: &'static str,
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<&'static str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        position: Option<[i32; 6]>,
        #[serde(skip_serializing_if = "Option::is_none")]
        camera: Option<[i32; 3]>,
    },
    Datagram {
        refused: &'static str,
    },
    Change {
        why: &'static str,
        selected: &'static str,
        latched: bool,
        overridden: bool,
        energy: bool,
        held: bool,
        highest: u64,
        owner: Option<String>,
    },
    Durable {
        fence: u64,
    },
    Stall {
        us: u64,
    },
    Local {
        position: [i32; 6],
    },
    Camera {
        camera: [i32; 3],
    },
    Lost {
        lines: u64,
    },
    Ended,
}

impl<'a> From<&'a What> for Words<'a> {
    fn from(what: &'a What) -> Self {
        match what {
            What::Started { address, fence, watchdog_us, fault } => {
                Self::Started { address, fence: *fence, watchdog_us: *watchdog_us, fault: fault.as_deref() }
            }
            What::Act { from, n, act, refused, moved } => Self::Act {
                from: format!("{from:016x}"),
                n: *n,
                act: act.into(),
                verdict: if refused.is_some() { "refused" } else { "taken" },
                reason: *refused,
                position: moved.map(|arm| arm.axes),
                camera: moved.map(|arm| arm.camera),
            },
            What::Datagram { why } => Self::Datagram { refused: why },
            What::Change { why, status } => Self::Change {
                why,
                selected: selection(status.selected),
                latched: status.latched,
                overridden: status.overridden,
                energy: status.energy,
                held: status.held,
                highest: status.highest.0,
                owner: status.owner.map(hex_of),
            },
            What::Stall { us } => Self::Stall { us: *us },
            What::Durable { fence } => Self::Durable { fence: *fence },
            What::Local { arm } => Self::Local { position: arm.axes },
            What::Camera { arm } => Self::Camera { camera: arm.camera },
            What::Ended => Self::Ended,
        }
    }
}

/// The device's end of it.
#[derive(Debug)]
pub(super) struct Recorder {
    lines: Option<SyncSender<Line>>,
    lost: Arc<AtomicU64>,
    writer: Option<JoinHandle<()>>,
}

impl Recorder {
    /// Goes on at the end of the file; without one nothing is recorded.
    pub(super) fn start(path: Option<&Path>, limit: Option<u64>) -> io::Result<Self> {
        let lost = Arc::new(AtomicU64::new(0));
        let Some(path) = path else { return Ok(Self { lines: None, lost, writer: None }) };
        let file = File::options().create(true).append(true).open(path)?;
        let (lines, waiting) = sync_channel(WAITING);
        let theirs = Arc::clone(&lost);
        let writer = thread::Builder::new().name("sim-record".into()).spawn(move || {
            if let Err(error) = write(&waiting, file, limit.unwrap_or(u64::MAX), &theirs) {
                tracing::error!(%error, "the record cannot be written any more");
            }
        })?;
        Ok(Self { lines: Some(lines), lost, writer: Some(writer) })
    }

    pub(super) fn put(&self, at: Micros, what: What) {
        let Some(lines) = &self.lines else { return };
        if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) = lines.try_send(Line { at, what }) {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Lines that did not fit.
    pub(super) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}

impl Drop for Recorder {
    /// What waits is written.
    fn drop(&mut self) {
        self.lines = None;
        let _ = self.writer.take().map(JoinHandle::join);
    }
}

/// Flushed whenever nothing waits, so that a reader sees each line at once.
fn write(waiting: &Receiver<Line>, file: File, limit: u64, lost: &AtomicU64) -> io::Result<()> {
    let mut file = BufWriter::new(file);
    let (mut told, mut changed) = (0, None);
    while let Ok(line) = waiting.recv() {
        for line in std::iter::once(line).chain(waiting.try_iter()) {
            put(&mut file, line.at, &Words::from(&line.what))?;
            if matches!(line.what, What::Change { .. }) {
                changed = Some(line);
            }
        }
        let now_lost = lost.load(Ordering::Relaxed);
        if now_lost > told {
            put(&mut file, crate::core::now(), &Words::Lost { lines: now_lost - told })?;
            told = now_lost;
        }
        file.flush()?;
        if file.get_ref().metadata()?.len() > limit {
            file.get_ref().set_len(0)?;
            // How it has been since then.
            changed.iter().try_for_each(|line| put(&mut file, line.at, &Words::from(&line.what)))?;
        }
    }
    file.flush()
}

fn put(file: &mut impl io::Write, at: Micros, words: &Words<'_>) -> io::Result<()> {
    #[derive(Serialize)]
    struct Timed<'a> {
        at: u64,
        #[serde(flatten)]
        words: &'a Words<'a>,
    }
    serde_json::to_writer(&mut *file, &Timed { at: at.0, words })?;
    file.write_all(b"\n")
}
