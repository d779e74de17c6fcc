//! What generator, viewers and whoever looks on have in common during a run.

use super::figures::{Counts, Faults, Named, Sample, Times, ViewerRow};
use super::publish::Feed;
use super::scenario::ViewerPlan;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use trocar_proto::units::WallMicros;

/// Seconds of which a viewer's ages are kept one by one; later ones are in the histograms alone.
const SECONDS: usize = 3_600;
/// Reasons for failed joins that are told apart.
const REASONS: usize = 16;
/// Injected faults that are remembered.
const INJECTED: usize = 2_000;

/// Held for as long as a look takes.
pub(super) fn lock<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The clock of the test: microseconds since the Unix epoch. Within one process it never steps; among several it is signaling's,
/// as well as that is known.
#[derive(Debug)]
pub(super) struct Clock {
    origin: Instant,
    wall: WallMicros,
    /// Clock of the test minus ours, in microseconds, and how well that is known.
    offset_us: AtomicI64,
    uncertainty_us: AtomicU64,
}

impl Clock {
    pub(super) fn new() -> Self {
        let (origin, wall) = (Instant::now(), crate::net::api::wall_now());
        Self { origin, wall, offset_us: AtomicI64::new(0), uncertainty_us: AtomicU64::new(0) }
    }

    fn own(&self) -> WallMicros {
        self.wall.offset(i64::try_from(self.origin.elapsed().as_micros()).unwrap_or(i64::MAX))
    }

    pub(super) fn now(&self) -> WallMicros {
        self.own().offset(self.offset_us.load(Ordering::Relaxed))
    }

    /// Another clock is the clock of the test: it is `offset_us` ahead of this machine's wall clock.
    pub(super) fn follow(&self, offset_us: i64, uncertainty_us: u64) {
        let stepped = crate::net::api::wall_now().signed_since(self.own());
        self.offset_us.store(offset_us.saturating_add(stepped), Ordering::Relaxed);
        self.uncertainty_us.store(uncertainty_us, Ordering::Relaxed);
    }

    pub(super) fn uncertainty_us(&self) -> u64 {
        self.uncertainty_us.load(Ordering::Relaxed)
    }
}

/// Coming and going.
#[derive(Debug, Default)]
pub(super) struct Joins {
    pub(super) asked: u64,
    pub(super) failed: u64,
    pub(super) leaves: u64,
    pub(super) first_frame: Times,
    /// Why joins failed, and how often.
    pub(super) why: BTreeMap<String, u64>,
}

impl Joins {
    pub(super) fn fail(&mut self, why: &str) {
        self.failed += 1;
        let why = if self.why.len() < REASONS || self.why.contains_key(why) { why } else { "other reasons" };
        *self.why.entry(why.to_owned()).or_default() += 1;
    }
}

/// A viewer's place: whoever takes it goes on with its figures.
#[derive(Debug, Default)]
pub(super) struct Place {
    pub(super) row: ViewerRow,
    /// Whether somebody is there.
    pub(super) taken: bool,
    /// When the last frame came to somebody who was killed and is not back yet.
    pub(super) last_before_kill: Option<Instant>,
}

impl Place {
    /// The place of that second, made where it is not there; none beyond the bound.
    pub(super) fn second(&mut self, at: usize) -> Option<(&mut i32, &mut u32)> {
        if at >= SECONDS {
            return None;
        }
        if self.row.seconds.len() <= at {
            self.row.seconds.resize(at + 1, -2);
            self.row.lost_in.resize(at + 1, 0);
        }
        self.row.seconds.get_mut(at).zip(self.row.lost_in.get_mut(at))
    }
}

/// Everything.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) clock: Clock,
    pub(super) began: Instant,
    pub(super) feeds: Vec<Arc<Feed>>,
    pub(super) plans: Vec<ViewerPlan>,
    pub(super) stale_us: u64,
    /// By viewer.
    pub(super) places: Vec<Mutex<Place>>,
    pub(super) joins: Mutex<Joins>,
    pub(super) faults: Mutex<Faults>,
    pub(super) injected: Mutex<Vec<Named>>,
    /// Ages of the present second.
    pub(super) second: Mutex<Times>,
    /// Ages since somebody cleared it: the seconds that are over.
    pub(super) interval: Mutex<Times>,
    /// How late frames were made.
    pub(super) late: Mutex<Times>,
    pub(super) late_second: Mutex<Times>,
    /// Frames that were left out because the generator was far behind.
    pub(super) slipped: AtomicU64,
    pub(super) stage: Mutex<String>,
    pub(super) samples: Mutex<Vec<Sample>>,
    /// The last frame of each feed, where it is known.
    pub(super) last_frames: Mutex<Vec<Option<u32>>>,
}

impl Shared {
    pub(super) fn new(feeds: Vec<Arc<Feed>>, plans: Vec<ViewerPlan>, stale_us: u64) -> Self {
        Self {
            clock: Clock::new(),
            began: Instant::now(),
            places: plans.iter().map(|_| Mutex::default()).collect(),
            last_frames: Mutex::new(vec![None; feeds.len()]),
            feeds,
            plans,
            stale_us,
            joins: Mutex::default(),
            faults: Mutex::default(),
            injected: Mutex::default(),
            second: Mutex::default(),
            interval: Mutex::default(),
            late: Mutex::default(),
            late_second: Mutex::default(),
            slipped: AtomicU64::new(0),
            stage: Mutex::default(),
            samples: Mutex::default(),
        }
    }

    /// Seconds since the beginning.
    pub(super) fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    pub(super) fn note_injected(&self, what: Named) {
        let mut all = lock(&self.injected);
        if all.len() < INJECTED {
            all.push(what);
        }
    }

    /// The sum over all viewers, and how many are there.
    pub(super) fn totals(&self) -> (Counts, u64) {
        let (mut sum, mut present) = (Counts::default(), 0);
        for place in &self.places {
            let place = lock(place);
            sum.add(place.row.counts);
            present += u64::from(place.taken);
        }
        (sum, present)
    }
}
