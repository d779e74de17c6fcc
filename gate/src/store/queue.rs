//! What waits for the disk, and the handle by which it gets there. Nothing here waits for the disk itself.

use super::Run;
use super::layer::Layer;
use super::thread::{self, Writer};
use crate::core::{Disk, Entry, Event, Inbox, Lane, What};
use crate::fail_stop;
use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use trocar_control::audit::record::Outcome;
use trocar_proto::handover::gate::{DiskAct, DiskDone, Input};
use trocar_proto::handover::message::Short;
use trocar_proto::handover::types::{Epoch, ExpertId, GrantedSet, Oid};
use trocar_proto::units::WallMicros;

/// Records that wait at most. Beyond it the oldest that is no intent is dropped; the next one that is written says how many.
pub(super) const MOST: usize = 4_096;
/// Intents that wait at most. Beyond it the newest fails at once: the gate has one grant under way at a time.
const MOST_INTENTS: usize = 16;
/// Records that are no intents wait so long for others, to share a write.
pub(super) const BATCH: Duration = Duration::from_millis(100);

/// What is known of the control source, for the records.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Media {
    /// E.g. `h264`.
    pub codec: Option<String>,
    /// Bits per second.
    pub bit_rate: Option<u64>,
}

/// What records say besides the event itself.
#[derive(Debug, Clone, Default)]
pub(super) struct Facts {
    pub(super) consent: Option<String>,
    pub(super) media: Media,
    pub(super) clock_offset_us: Option<i64>,
}

/// One thing to record.
#[derive(Debug, Clone)]
pub(super) struct Job {
    pub(super) utc: WallMicros,
    pub(super) facts: Arc<Facts>,
    pub(super) said: Said,
}

/// What is recorded.
#[derive(Debug, Clone)]
pub(super) enum Said {
    /// By the core.
    Entry(Entry),
    /// The intent of a grant, whose answer the gate waits for.
    Intent(Intent, Entry),
    /// By the consent watcher.
    Consent(String, Outcome),
    /// By the store about itself.
    Store(String),
}

/// The intent of a grant.
#[derive(Debug, Clone)]
pub(super) struct Intent {
    pub(super) oid: Oid,
    pub(super) epoch: Epoch,
    pub(super) expert: ExpertId,
    pub(super) set: GrantedSet,
    pub(super) step: Short,
}

#[derive(Debug, Default)]
pub(super) struct Queue {
    pub(super) jobs: VecDeque<Job>,
    /// Dropped since the last record that was written.
    pub(super) lost_since: u64,
    /// Dropped in all.
    pub(super) lost_in_all: u64,
    /// The highest end that was asked for and not tried yet.
    pub(super) reserve: Option<Epoch>,
    /// When the oldest job came.
    pub(super) since: Option<Instant>,
    pub(super) is_closing: bool,
    /// The disk's thread has ended.
    pub(super) is_over: bool,
    facts: Arc<Facts>,
}

impl Queue {
    /// Adds a job at the end; drops the oldest that is no intent where there is no room.
    pub(super) fn push(&mut self, job: Job) {
        self.since.get_or_insert_with(Instant::now);
        self.jobs.push_back(job);
        self.trim();
    }

    pub(super) fn trim(&mut self) {
        while self.jobs.len() > MOST {
            let oldest = self.jobs.iter().position(|j| !matches!(j.said, Said::Intent(..)));
            if oldest.and_then(|at| self.jobs.remove(at)).is_none() {
                break;
            }
            self.lost_since = self.lost_since.saturating_add(1);
            self.lost_in_all = self.lost_in_all.saturating_add(1);
        }
    }

    pub(super) fn has_intent(&self) -> bool {
        self.jobs.iter().any(|j| matches!(j.said, Said::Intent(..)))
    }

    fn intents(&self) -> usize {
        self.jobs.iter().filter(|j| matches!(j.said, Said::Intent(..))).count()
    }
}

/// The queue, and how the disk's thread is woken.
#[derive(Debug, Default)]
pub(super) struct Shared {
    queue: Mutex<Queue>,
    pub(super) woken: Condvar,
}

impl Shared {
    pub(super) fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The way to the disk's thread. Cloned freely; every call returns at once.
#[derive(Debug, Clone)]
pub struct DiskHandle {
    pub(super) shared: Arc<Shared>,
    inbox: Inbox,
    /// The newest change's offer and its step, for the intent.
    step: Option<(Oid, Short)>,
}

impl DiskHandle {
    /// The consent document that counts from now on, as records name it, and what happened, for the chain.
    pub fn consent(&self, reference: Option<String>, what: String, outcome: Outcome) {
        let mut queue = self.shared.lock();
        let facts = Facts { consent: reference, ..Facts::clone(&queue.facts) };
        queue.facts = Arc::new(facts);
        self.push(queue, Said::Consent(what, outcome));
    }

    /// The consent document that counts when the gate starts, without a record.
    pub fn set_consent(&self, reference: Option<String>) {
        let mut queue = self.shared.lock();
        queue.facts = Arc::new(Facts { consent: reference, ..Facts::clone(&queue.facts) });
    }

    /// What the control source is, as far as somebody knows.
    pub fn set_media(&self, media: Media) {
        let mut queue = self.shared.lock();
        if queue.facts.media != media {
            queue.facts = Arc::new(Facts { media, ..Facts::clone(&queue.facts) });
        }
    }

    /// How far the wall clock is known to be off, microseconds.
    pub fn set_clock_offset(&self, offset: Option<i64>) {
        let mut queue = self.shared.lock();
        queue.facts = Arc::new(Facts { clock_offset_us: offset, ..Facts::clone(&queue.facts) });
    }

    /// Records lost since the start, because the disk did not take them in time.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.shared.lock().lost_in_all
    }

    /// Writes what waits and ends the disk's thread: before the process ends. False where the disk was not done within `wait`.
    #[must_use]
    pub fn finish(&self, wait: Duration) -> bool {
        let mut queue = self.shared.lock();
        queue.is_closing = true;
        self.shared.woken.notify_all();
        let waited = self.shared.woken.wait_timeout_while(queue, wait, |q| !q.is_over);
        waited.unwrap_or_else(PoisonError::into_inner).0.is_over
    }

    pub(super) fn note(&self, what: String) {
        self.push(self.shared.lock(), Said::Store(what));
    }

    fn push(&self, mut queue: MutexGuard<'_, Queue>, said: Said) {
        let facts = Arc::clone(&queue.facts);
        queue.push(Job { utc: wall(), facts, said });
        drop(queue);
        self.shared.woken.notify_all();
    }
}

impl Disk for DiskHandle {
    fn act(&mut self, act: DiskAct, context: &Entry) {
        match act {
            DiskAct::Reserve(end) => {
                let mut queue = self.shared.lock();
                queue.reserve = queue.reserve.max(Some(end));
                drop(queue);
                self.shared.woken.notify_all();
            }
            DiskAct::Intent { oid, epoch, expert, set } => {
                let queue = self.shared.lock();
                if queue.is_over || queue.intents() >= MOST_INTENTS {
                    drop(queue);
                    answer(&self.inbox, DiskDone::Failed(oid, epoch));
                    return;
                }
                let step = self.step.as_ref().filter(|(of, _)| *of == oid).map(|(_, step)| step.clone());
                let intent = Intent { oid, epoch, expert, set, step: step.unwrap_or_default() };
                self.push(queue, Said::Intent(intent, context.clone()));
            }
        }
    }

    fn audit(&mut self, entry: Entry) {
        if let What::Change(record) = &entry.what
            && let Some(oid) = record.oid
        {
            self.step = Some((oid, record.step.clone()));
        }
        self.push(self.shared.lock(), Said::Entry(entry));
    }
}

/// Starts the disk's thread. Without a writer everything is lost, counted and answered as failed.
pub(super) fn start<L: Layer + 'static>(
    writer: Option<Writer<L>>,
    run: Run,
    inbox: Inbox,
    found: &[String],
) -> Result<DiskHandle, std::io::Error> {
    let handle = DiskHandle { shared: Arc::default(), inbox: inbox.clone(), step: None };
    for what in found {
        handle.note(what.clone());
    }
    let shared = Arc::clone(&handle.shared);
    fail_stop::spawn("trocar-disk", move || {
        Ok(match writer {
            Some(writer) => thread::run(writer, &run, &shared, &inbox),
            None => thread::run_without(&shared, &inbox),
        })
    })?;
    Ok(handle)
}

/// Tells the gate. Lost where the lane is full: the grant then ends by its own time.
pub(super) fn answer(inbox: &Inbox, done: DiskDone) {
    let _ = inbox.push(Lane::Device, Event::Input(Input::Disk(done)));
}

/// The wall clock, for records and display only.
pub(super) fn wall() -> WallMicros {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    WallMicros(u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
}
