//! A program of the user's own: acts as JSON lines on its standard input, reports on its standard output.
//!
//! It is started once. When it ends, or says nothing more, the gate sees a silent device; starting another one while nobody knows what
//! the arm does is a person's decision.

use super::seen::{Judge, Reports};
use super::words::{ActWords, ReportWords};
use super::{Counters, DeviceError, PayloadFormat, count};
use crate::{core, realtime};
use serde::Serialize;
use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, Read as _, Write};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use trocar_proto::handover::device_wire::Report;
use trocar_proto::handover::gate::{DeviceAct, Judgement};
use trocar_proto::handover::message::Pose;

/// Commands that wait for a program that reads too slowly. The oldest is dropped.
const COMMANDS: usize = 64;
/// Longest line of a program.
const LINE: usize = 8_192;

/// The core's end.
#[derive(Debug)]
pub(super) struct Program {
    queue: Arc<Queue>,
    judge: Judge,
    payload: PayloadFormat,
    counters: Arc<Counters>,
}

impl Program {
    pub(super) fn open(
        program: &Path,
        args: &[String],
        payload: PayloadFormat,
        reports: Reports,
        counters: Arc<Counters>,
    ) -> Result<Self, DeviceError> {
        let failed = |source| DeviceError::Program { program: program.to_owned(), source };
        let mut child = Command::new(program)
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0) // Ctrl-C at the gate's terminal is not for the device.
            .spawn()
            .map_err(failed)?;
        let judge = reports.judge();
        let queue = Arc::new(Queue::default());
        let pipe = || failed(io::Error::other("no pipe"));
        let stdin = child.stdin.take().ok_or_else(pipe)?;
        let stdout = child.stdout.take().ok_or_else(pipe)?;
        let stderr = child.stderr.take().ok_or_else(pipe)?;
        let (writer, counted) = (Arc::clone(&queue), Arc::clone(&counters));
        spawn("trocar-device-in", move || {
            realtime::claim();
            write_acts(&writer, stdin, &counted);
        })?;
        let (reader, counted) = (Arc::clone(&queue), Arc::clone(&counters));
        spawn("trocar-device-out", move || {
            realtime::claim();
            read_reports(BufReader::new(stdout), reports, &counted);
            reader.close();
            finish(child);
        })?;
        spawn("trocar-device-err", move || {
            lines(BufReader::new(stderr), |line| {
                tracing::warn!(program = %String::from_utf8_lossy(line.unwrap_or(b"(a long line)")), "device");
            });
        })?;
        Ok(Self { queue, judge, payload, counters })
    }
}

impl Drop for Program {
    /// The program's standard input ends, which it has to take for silence.
    fn drop(&mut self) {
        self.queue.close();
    }
}

impl core::Device for Program {
    fn act(&mut self, act: &DeviceAct) {
        if !self.payload.allows(act) {
            count(&self.counters.outside);
        } else if !self.queue.put(act) {
            count(&self.counters.lost);
        }
    }

    fn judge(&mut self, pose: &Pose) -> Judgement {
        self.judge.judge(pose)
    }
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), DeviceError> {
    thread::Builder::new().name(name.into()).spawn(work).map(drop).map_err(DeviceError::Thread)
}

fn finish(mut child: Child) {
    match child.wait() {
        Ok(status) => tracing::error!(%status, "the device's program ended; it is not started again"),
        Err(error) => tracing::error!(%error, "the device's program"),
    }
}

/// What waits for the writer: of stops, selections and keep-alives the newest of each kind, so that none is ever lost to a bound, and
/// a few commands. A stop or a selection clears the commands that it overtakes.
#[derive(Debug, Default)]
struct Waiting {
    energy_off: Option<DeviceAct>,
    hold: Option<DeviceAct>,
    select: Option<DeviceAct>,
    keep_alive: Option<DeviceAct>,
    commands: VecDeque<DeviceAct>,
    closed: bool,
}

impl Waiting {
    /// False where something was lost: the oldest command, or the act itself after the end.
    fn put(&mut self, act: &DeviceAct) -> bool {
        if self.closed {
            return false;
        }
        let slot = match act {
            DeviceAct::EnergyOff { .. } => &mut self.energy_off,
            DeviceAct::Hold { .. } => &mut self.hold,
            DeviceAct::Select { .. } => &mut self.select,
            DeviceAct::KeepAlive { .. } => &mut self.keep_alive,
            DeviceAct::Command { .. } => {
                let fits = self.commands.len() < COMMANDS;
                if !fits {
                    self.commands.pop_front();
                }
                self.commands.push_back(act.clone());
                return fits;
            }
        };
        *slot = Some(act.clone());
        if matches!(act, DeviceAct::Hold { .. } | DeviceAct::Select { .. }) {
            self.commands.clear();
        }
        true
    }

    fn next(&mut self) -> Option<DeviceAct> {
        let urgent = self.energy_off.take().or_else(|| self.hold.take()).or_else(|| self.select.take());
        urgent.or_else(|| self.keep_alive.take()).or_else(|| self.commands.pop_front())
    }
}

#[derive(Debug, Default)]
struct Queue {
    waiting: Mutex<Waiting>,
    woken: Condvar,
}

impl Queue {
    fn put(&self, act: &DeviceAct) -> bool {
        let kept = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).put(act);
        self.woken.notify_one();
        kept
    }

    /// Waits for the next one; nothing after the end.
    fn next(&self) -> Option<DeviceAct> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if waiting.closed {
                return None;
            }
            if let Some(act) = waiting.next() {
                return Some(act);
            }
            waiting = self.woken.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn close(&self) {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).closed = true;
        self.woken.notify_one();
    }
}

/// An act with its number, from 1, which the program's `echo` and `refused.n` name.
#[derive(Serialize)]
struct Line {
    n: u64,
    #[serde(flatten)]
    act: ActWords,
}

fn write_acts(queue: &Queue, mut stdin: impl Write, counters: &Counters) {
    let mut n = 0;
    while let Some(act) = queue.next() {
        n += 1;
        let written = serde_json::to_vec(&Line { n, act: ActWords::from(&act) }).map_err(io::Error::from);
        let written = written.and_then(|mut line| {
            line.push(b'\n');
            stdin.write_all(&line)
        });
        match written {
            Ok(()) => count(&counters.sent),
            Err(_) => {
                count(&counters.lost);
                return queue.close();
            }
        }
    }
}

fn read_reports(stdout: impl BufRead, mut reports: Reports, counters: &Counters) {
    lines(stdout, |line| {
        let read = line.ok_or_else(|| format!("longer than {LINE} bytes")).and_then(|line| {
            let words: ReportWords = serde_json::from_slice(line).map_err(|e| e.to_string())?;
            Report::try_from(&words).map_err(|e| e.to_string())
        });
        match read {
            Ok(report) => reports.take(&report),
            Err(error) => {
                count(&counters.refused);
                tracing::debug!(error, "not a report of a device");
            }
        }
    });
}

/// Hands out each line until the end; nothing for a line that is too long, whose rest is skipped.
fn lines(mut from: impl BufRead, mut each: impl FnMut(Option<&[u8]>)) {
    let bound = u64::try_from(LINE).unwrap_or(u64::MAX);
    let (mut line, mut skips) = (Vec::new(), false);
    loop {
        line.clear();
        match from.by_ref().take(bound).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        let ends = line.last() == Some(&b'\n');
        match (skips, ends || line.len() < LINE) {
            (true, _) => {}
            (false, true) => each(Some(line.trim_ascii())),
            (false, false) => each(None),
        }
        skips = !ends;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use trocar_proto::handover::message::Payload;
    use trocar_proto::handover::types::{BootId, Counter, Epoch, GrantedSet, Selection};

    fn command(sequence: u64) -> DeviceAct {
        let (fence, counter) = (Epoch(1), Counter(sequence));
        let (set, energy, payload) = (GrantedSet::CAMERA, false, Payload::default());
        DeviceAct::Command { fence, sequence, counter, set, energy, payload }
    }

    fn select(sequence: u64) -> DeviceAct {
        DeviceAct::Select { boot: BootId(1), to: Selection::Local, fence: Epoch(1), sequence }
    }

    #[test]
    fn a_program_that_does_not_read_loses_the_oldest_commands_and_never_a_stop() {
        let mut waiting = Waiting::default();
        let hold = DeviceAct::Hold { fence: Epoch(1), sequence: 1 };
        assert!(waiting.put(&hold) && waiting.put(&select(2)));
        let lost = (3..103).filter(|n| !waiting.put(&command(*n))).count();
        assert_eq!(lost, 100 - COMMANDS);
        assert_eq!((waiting.next(), waiting.next()), (Some(hold), Some(select(2))));
        assert_eq!(waiting.next(), Some(command(103 - 64)));
    }

    #[test]
    fn a_stop_and_a_selection_clear_what_they_overtake() {
        // HO-S-005
        for stop in [DeviceAct::Hold { fence: Epoch(1), sequence: 9 }, select(9)] {
            let mut waiting = Waiting::default();
            assert!(waiting.put(&command(1)) && waiting.put(&stop) && waiting.put(&command(10)));
            assert_eq!((waiting.next(), waiting.next(), waiting.next()), (Some(stop), Some(command(10)), None));
        }
    }

    #[test]
    fn a_line_that_is_too_long_is_skipped_whole_and_the_next_one_counts() {
        let mut text = vec![b'x'; 3 * LINE];
        text.extend(b"\nshort\n\nlast");
        let mut got = Vec::new();
        lines(&text[..], |line| got.push(line.map(<[u8]>::to_vec)));
        assert_eq!(got, [None, Some(b"short".to_vec()), Some(Vec::new()), Some(b"last".to_vec())]);
    }
}
