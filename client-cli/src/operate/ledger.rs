//! Which command left when: what the way to the device is measured from (`make bench-control`). A thread writes; the core hands over
//! batches and never waits.

use anyhow::Context as _;
use serde::Serialize;
use std::fs::File;
use std::io::{self, BufWriter, Write as _};
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use trocar_proto::handover::message::Command;
use trocar_proto::units::Micros;

/// Commands that are handed over together, so that the writer does not run as often as the core.
const BATCH: usize = 64;
/// Batches that wait for the disk: 16 s at 1 kHz. Loss policy: the newest is left out, and its commands are counted in the next line
/// that fits.
const WAITING: usize = 256;

/// One line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
struct Line {
    /// CLOCK_BOOTTIME, microseconds, before it was sealed.
    at: u64,
    epoch: u64,
    counter: u64,
    /// As it was handed to the connection.
    bytes: usize,
    /// Commands before this one that are in no line.
    #[serde(skip_serializing_if = "is_zero")]
    lost: usize,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands out references")]
const fn is_zero(n: &usize) -> bool {
    *n == 0
}

/// The core's end of it.
#[derive(Debug)]
pub(super) struct Ledger {
    batch: Vec<Line>,
    lost: usize,
    queue: Option<SyncSender<Vec<Line>>>,
    writer: Option<JoinHandle<()>>,
}

impl Ledger {
    /// Writes to that file, from its beginning.
    ///
    /// # Errors
    /// Where the file cannot be written or a thread cannot be started.
    pub(super) fn start(path: &Path) -> anyhow::Result<Self> {
        let file = File::create(path).with_context(|| format!("--ledger {}", path.display()))?;
        let (queue, waiting) = sync_channel(WAITING);
        let work = move || {
            if let Err(error) = write(&waiting, file) {
                tracing::error!(%error, "the ledger cannot be written any more");
            }
        };
        let writer = std::thread::Builder::new().name("trocar-ledger".to_owned()).spawn(work).context("no thread")?;
        Ok(Self { batch: Vec::with_capacity(BATCH), lost: 0, queue: Some(queue), writer: Some(writer) })
    }

    /// A command that the connection took.
    pub(super) fn put(&mut self, at: Micros, command: &Command, bytes: usize) {
        let lost = std::mem::take(&mut self.lost);
        self.batch.push(Line { at: at.0, epoch: command.epoch.0, counter: command.counter.0, bytes, lost });
        if self.batch.len() >= BATCH {
            self.hand_over();
        }
    }

    /// What there is goes to the writer.
    pub(super) fn hand_over(&mut self) {
        if self.batch.is_empty() {
            return;
        }
        let batch = std::mem::replace(&mut self.batch, Vec::with_capacity(BATCH));
        let commands = batch.iter().map(|l| 1 + l.lost).sum::<usize>();
        if self.queue.as_ref().is_none_or(|q| q.try_send(batch).is_err()) {
            self.lost += commands;
        }
    }
}

impl Drop for Ledger {
    /// What waits is written.
    fn drop(&mut self) {
        self.hand_over();
        self.queue = None;
        let _ = self.writer.take().map(JoinHandle::join);
    }
}

fn write(waiting: &Receiver<Vec<Line>>, file: File) -> io::Result<()> {
    let mut file = BufWriter::new(file);
    for batch in waiting {
        for line in batch {
            serde_json::to_writer(&mut file, &line)?;
            file.write_all(b"\n")?;
        }
        file.flush()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use trocar_proto::handover::message::Payload;
    use trocar_proto::handover::types::{Clutch, Counter, Epoch, Nonce};

    fn command(counter: u64) -> Command {
        let (epoch, nonce, payload) = (Epoch(7), Nonce(1), Payload::default());
        Command { epoch, counter: Counter(counter), nonce, echo: None, clutch: Clutch::Closed, payload }
    }

    #[test]
    fn each_command_is_a_line_and_the_last_batch_is_written_at_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ledger");
        let mut ledger = Ledger::start(&path).unwrap();
        for n in 0..100 {
            ledger.put(Micros(1_000 * n), &command(n), 90);
        }
        drop(ledger);
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().count(), 100);
        assert_eq!(text.lines().last(), Some(r#"{"at":99000,"epoch":7,"counter":99,"bytes":90}"#));
    }

    #[test]
    fn commands_that_did_not_fit_are_counted_in_the_next_line() {
        let (queue, waiting) = sync_channel(1);
        let mut ledger = Ledger { batch: Vec::new(), lost: 0, queue: Some(queue), writer: None };
        for n in 0..3 * BATCH as u64 {
            ledger.put(Micros(n), &command(n), 90);
        }
        assert_eq!(waiting.recv().unwrap().len(), BATCH);
        ledger.put(Micros(999), &command(999), 90);
        ledger.hand_over();
        assert_eq!(waiting.recv().unwrap().first().map(|l| (l.at, l.lost)), Some((999, 2 * BATCH)));
    }

    #[test]
    fn a_file_that_cannot_be_made_is_named() {
        let e = Ledger::start(Path::new("/nowhere/at/all")).unwrap_err();
        assert!(format!("{e:#}").contains("--ledger /nowhere/at/all"), "{e:#}");
    }
}
