//! The disk's thread: the one that waits.

use super::Run;
use super::chain::Chain;
use super::entry;
use super::layer::Layer;
use super::pair::Pair;
use super::queue::{BATCH, Job, Queue, Said, Shared, answer, wall};
use crate::core::{Inbox, Lane};
use crate::fail_stop::Asked;
use aws_lc_rs::rand::{SecureRandom as _, SystemRandom};
use std::io;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;
use trocar_control::audit::record::{Link, Record};
use trocar_proto::handover::gate::{DiskDone, Input};
use trocar_proto::handover::types::Epoch;

/// Records in one write at most.
const MOST_AT_ONCE: usize = 512;
/// After a failure, records that are no intents wait so long before they are tried again.
const TRY_AGAIN: Duration = Duration::from_millis(200);

/// The epoch block.
#[derive(Debug)]
pub(super) struct Epochs {
    pub(super) pair: Pair,
    pub(super) end: u64,
}

impl Epochs {
    /// The end of a block, from a sector's content.
    pub(super) fn decode(content: &[u8]) -> Option<u64> {
        content.try_into().ok().map(u64::from_be_bytes)
    }

    /// Covers every epoch below `end`; a lower end than the present one never gets to the disk.
    fn cover(&mut self, layer: &mut dyn Layer, end: u64) -> io::Result<()> {
        if end > self.end {
            self.pair.write(layer, &end.to_be_bytes())?;
            self.end = end;
        }
        Ok(())
    }
}

/// All that is needed to write.
#[derive(Debug)]
pub(super) struct Writer<L> {
    layer: L,
    chain: Chain,
    /// Nothing where the block cannot be relied on: then nothing is reserved.
    epochs: Option<Epochs>,
    random: SystemRandom,
    /// The next record is the first of this run, or the first after somebody changed the files.
    is_anew: bool,
}

impl<L: Layer> Writer<L> {
    pub(super) fn new(layer: L, chain: Chain, epochs: Option<Epochs>) -> Self {
        Self { layer, chain, epochs, random: SystemRandom::new(), is_anew: true }
    }

    /// Covers every epoch below `end`. A failure is told to nobody: the gate asks again (HO-E-008).
    fn reserve(&mut self, end: Epoch, inbox: &Inbox) {
        match self.cover(end.0) {
            Ok(()) => answer(inbox, DiskDone::Reserved(end)),
            Err(e) => tracing::warn!(error = %e, "the next epochs could not be reserved"),
        }
    }

    pub(super) fn cover(&mut self, end: u64) -> io::Result<()> {
        let epochs = self.epochs.as_mut().ok_or_else(|| io::Error::other("the epoch block cannot be relied on"))?;
        epochs.cover(&mut self.layer, end)
    }

    /// Writes a batch; the first record of it says how many were lost before it.
    pub(super) fn write(&mut self, jobs: &[Job], lost: u64, run: &Run) -> io::Result<()> {
        for what in self.chain.look(&mut self.layer)? {
            self.is_anew = true;
            let said = Said::Store(what);
            let facts = jobs.first().map(|j| Arc::clone(&j.facts)).unwrap_or_default();
            self.append(&[Job { utc: wall(), facts, said }], 0, run)?;
        }
        self.append(jobs, lost, run)
    }

    fn append(&mut self, jobs: &[Job], lost: u64, run: &Run) -> io::Result<()> {
        let durable = self.chain.durable();
        let mut link = durable;
        let mut lines = String::new();
        for (n, job) in jobs.iter().enumerate() {
            let mut record = entry::record(job, run);
            record.seq = link.seq + 1;
            record.previous = link.hash;
            record.id = self.id()?;
            if n == 0 {
                record.lost = lost;
            }
            // HO-U-007
            if matches!(job.said, Said::Intent(..) | Said::Store(_)) || (n == 0 && self.is_anew) {
                record.durable = Some(durable);
            }
            let (line, hash) = line(&record)?;
            lines.push_str(&line);
            link = Link { seq: record.seq, hash };
        }
        self.chain.append(&mut self.layer, lines.as_bytes(), link)?;
        self.is_anew = false;
        Ok(())
    }

    pub(super) fn note_head(&mut self) {
        if let Err(e) = self.chain.note_head(&mut self.layer) {
            tracing::warn!(error = %e, "the head of the audit chain could not be noted beside it");
        }
    }

    fn id(&self) -> io::Result<String> {
        let mut bytes = [0; 16];
        self.random.fill(&mut bytes).map_err(|_| io::Error::other("no random bytes"))?;
        Ok(hex::encode(bytes))
    }
}

fn line(record: &Record) -> io::Result<(String, trocar_control::audit::Hash)> {
    record.line().map_err(io::Error::other)
}

/// Runs until the handle says that it is over: reservations first, then records in their order, an intent and all before it at once, others
/// within [`BATCH`].
pub(super) fn run<L: Layer>(mut writer: Writer<L>, run: &Run, shared: &Shared, inbox: &Inbox) -> Asked {
    let mut failed = false;
    loop {
        let mut queue = wait(shared, failed);
        if let Some(end) = queue.reserve.take() {
            drop(queue);
            writer.reserve(end, inbox);
            continue;
        }
        if queue.jobs.is_empty() && queue.is_closing {
            break;
        }
        let count = queue.jobs.len().min(MOST_AT_ONCE);
        let jobs: Vec<Job> = queue.jobs.drain(..count).collect();
        let lost = std::mem::take(&mut queue.lost_since);
        if queue.jobs.is_empty() {
            queue.since = None;
        }
        drop(queue);
        if jobs.is_empty() {
            continue;
        }
        let result = writer.write(&jobs, lost, run);
        // HO-U-008: said each time, and once when it works again.
        if failed || result.is_err() {
            inbox.input(Lane::Device, Input::Unwritten(result.is_err()));
        }
        failed = result.is_err();
        tell(&jobs, failed, inbox);
        match result {
            Ok(()) => writer.note_head(),
            Err(e) => {
                tracing::error!(error = %e, "the audit chain could not be written");
                let is_over = give_back(jobs, lost, shared);
                if is_over {
                    break;
                }
            }
        }
    }
    // The lock goes with it, so that the next gate can start when `finish` returns.
    drop(writer);
    over(shared)
}

/// Without a chain: intents fail, everything else is lost and counted.
pub(super) fn run_without(shared: &Shared, inbox: &Inbox) -> Asked {
    loop {
        let mut queue = wait(shared, false);
        let jobs: Vec<Job> = queue.jobs.drain(..).collect();
        queue.since = None;
        queue.reserve = None;
        queue.lost_in_all = queue.lost_in_all.saturating_add(jobs.len() as u64);
        let is_closing = queue.is_closing;
        drop(queue);
        tell(&jobs, true, inbox);
        if is_closing {
            break;
        }
    }
    over(shared)
}

/// Waits until there is something to do: a reservation or an intent at once, records when the oldest has waited long enough.
fn wait(shared: &Shared, failed: bool) -> MutexGuard<'_, Queue> {
    let pause = if failed { TRY_AGAIN } else { BATCH };
    let mut queue = shared.lock();
    loop {
        if queue.is_closing || queue.reserve.is_some() || queue.has_intent() {
            return queue;
        }
        queue = match queue.since {
            None => shared.woken.wait(queue).unwrap_or_else(PoisonError::into_inner),
            Some(since) => {
                let left = pause.saturating_sub(since.elapsed());
                if left.is_zero() {
                    return queue;
                }
                shared.woken.wait_timeout(queue, left).unwrap_or_else(PoisonError::into_inner).0
            }
        };
    }
}

/// Answers the intents among these.
fn tell(jobs: &[Job], failed: bool, inbox: &Inbox) {
    for job in jobs {
        if let Said::Intent(intent, _) = &job.said {
            let done = if failed { DiskDone::Failed } else { DiskDone::Durable };
            answer(inbox, done(intent.oid, intent.epoch));
        }
    }
}

/// Puts records that were not written back in front; an intent that failed is over. True where nobody waits for them any more.
fn give_back(jobs: Vec<Job>, lost: u64, shared: &Shared) -> bool {
    let mut queue = shared.lock();
    queue.lost_since = queue.lost_since.saturating_add(lost);
    for job in jobs.into_iter().rev().filter(|j| !matches!(j.said, Said::Intent(..))) {
        queue.jobs.push_front(job);
    }
    queue.trim();
    queue.since = Some(std::time::Instant::now());
    queue.is_closing
}

/// Both loops are left when the handle says that it is over, and only then.
fn over(shared: &Shared) -> Asked {
    let mut queue = shared.lock();
    queue.is_over = true;
    queue.lost_in_all = queue.lost_in_all.saturating_add(queue.jobs.len() as u64);
    queue.jobs.clear();
    drop(queue);
    shared.woken.notify_all();
    Asked
}
