//! Runs a scenario: publishers first, then viewers stage by stage, then an orderly end in which everything that was sent may
//! still arrive.

use super::access::Access;
use super::figures::{Counts, Found, Losses, Named, Sample, Times, ViewerRow};
use super::machine::{self, Meter, RelayFigures};
use super::publish::{Feed, Pacer, Publisher};
use super::scenario::{Inject, Scenario, Stage};
use super::shared::{Shared, lock};
use super::view::{self, Order};
use crate::net::api::wall_now;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use trocar_proto::units::WallMicros;

/// From the last frame until it must have come.
const LAST_FRAMES: Duration = Duration::from_millis(600);
/// Viewers that do not end within this are left behind.
const END: Duration = Duration::from_secs(10);
/// Seconds that are kept.
const SAMPLES: usize = 86_400;
/// A step of a climb is not carried where more than so many frames in a hundred are lost.
const LOST_PERCENT: f64 = 1.0;

/// Which part of a test runs here: feeds and viewers whose number has this remainder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Share {
    pub(super) index: usize,
    pub(super) of: usize,
}

impl Share {
    pub(super) const ALL: Self = Self { index: 0, of: 1 };

    fn has(self, n: usize) -> bool {
        n % self.of.max(1) == self.index
    }
}

/// What a climb found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[cfg_attr(test, schemars(deny_unknown_fields))]
pub(super) struct Climbed {
    /// Viewers of the last step that was carried.
    pub(super) carried: usize,
    /// Viewers of the step that was not; none where the viewers came to an end first.
    pub(super) failed: Option<usize>,
    /// Why it was not.
    pub(super) why: String,
    /// CPU in that step: this program's, the relay's, its busiest thread's, in per cent of one core.
    pub(super) generator_cpu: f64,
    pub(super) relay_cpu: Option<f64>,
    pub(super) relay_thread_cpu: Option<f64>,
    /// What got lost on the way in that step, as far as somebody counts it.
    pub(super) losses: Losses,
}

/// What one machine counted.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Part {
    pub(super) began: WallMicros,
    pub(super) seconds: f64,
    pub(super) interrupted: bool,
    pub(super) cores: usize,
    pub(super) rows: Vec<ViewerRow>,
    pub(super) joins: u64,
    pub(super) joins_failed: u64,
    pub(super) leaves: u64,
    pub(super) first_frame: Times,
    pub(super) why: BTreeMap<String, u64>,
    pub(super) faults: Vec<Found>,
    pub(super) faults_unnamed: u64,
    pub(super) injected: Vec<Named>,
    pub(super) late: Times,
    pub(super) not_sent: u64,
    pub(super) slipped: u64,
    pub(super) samples: Vec<Sample>,
    pub(super) uncertainty_us: u64,
    pub(super) climbed: Option<Climbed>,
}

/// Somebody at a place.
struct Guest {
    order: watch::Sender<Order>,
    task: JoinHandle<()>,
}

/// A test under way.
pub(super) struct Engine {
    scenario: Scenario,
    share: Share,
    pub(super) shared: Arc<Shared>,
    access: Arc<Access>,
    publishers: Vec<(usize, Publisher)>,
    pacer: Option<Pacer>,
    guests: Vec<Option<Guest>>,
    /// Those that were told to go.
    leaving: Vec<JoinHandle<()>>,
    sampler: JoinHandle<()>,
    random: u64,
    began: WallMicros,
    climbed: Option<Climbed>,
    interrupted: bool,
}

impl Engine {
    /// Joins, announces the feeds of this share, connects, and lets the frames flow.
    ///
    /// # Errors
    /// What kept a feed from being published.
    pub(super) async fn prepare(
        scenario: Scenario,
        (run, share): (u64, Share),
        access: Arc<Access>,
        relay: RelayFigures,
        inject: Option<Inject>,
    ) -> anyhow::Result<Self> {
        let feed = |(i, plan): (usize, super::scenario::FeedPlan)| {
            let group = scenario.publishers.get(plan.group).cloned();
            let group = group.ok_or_else(|| anyhow::anyhow!("feed {} has no group", plan.name))?;
            Feed::new(run, &plan.name, group, share.has(i)).map(Arc::new)
        };
        let feeds: Vec<Arc<Feed>> =
            scenario.feeds().into_iter().enumerate().map(feed).collect::<anyhow::Result<_>>()?;
        let plans = scenario.viewers();
        let shared = Arc::new(Shared::new(feeds, plans, u64::from(scenario.stale_ms) * 1_000));
        let mut publishers = Vec::new();
        for (index, feed) in shared.feeds.iter().enumerate().filter(|(_, f)| f.mine) {
            publishers.push((index, Publisher::start(Arc::clone(feed), &access, index).await?));
        }
        let pacer = Pacer::start(&shared, inject)?;
        let sampler = tokio::spawn(sample(Arc::clone(&shared), Meter::new(relay).await));
        Ok(Self {
            guests: shared.plans.iter().map(|_| None).collect(),
            scenario,
            share,
            access,
            publishers,
            pacer: Some(pacer),
            leaving: Vec::new(),
            sampler,
            random: run | 1,
            began: wall_now(),
            climbed: None,
            interrupted: false,
            shared,
        })
    }

    /// All stages, or as many as come before somebody asks for the end.
    pub(super) async fn run(&mut self, stop: impl Future<Output = ()>) {
        tokio::pin!(stop);
        for stage in self.scenario.stages.clone() {
            *lock(&self.shared.stage) = stage.word().to_owned();
            tokio::select! {
                () = self.stage(&stage) => {}
                () = &mut stop => {
                    self.interrupted = true;
                    break;
                }
            }
        }
        *lock(&self.shared.stage) = "end".to_owned();
    }

    async fn stage(&mut self, stage: &Stage) {
        let begin = Instant::now();
        let over = |seconds: f64| tokio::time::Instant::from(begin + Duration::from_secs_f64(seconds));
        match stage {
            Stage::Ramp { seconds, to } => {
                let to = to.map_or(self.guests.len(), |t| t as usize);
                let new: Vec<usize> = self.free().filter(|i| *i < to).collect();
                for (n, viewer) in new.iter().enumerate() {
                    tokio::time::sleep_until(over(seconds * n as f64 / new.len() as f64)).await;
                    self.come(*viewer);
                }
                tokio::time::sleep_until(over(*seconds)).await;
            }
            Stage::Hold { seconds } => tokio::time::sleep_until(over(*seconds)).await,
            Stage::Churn { seconds, joins_per_s, leaves_per_s } => {
                self.churn(over(*seconds), *joins_per_s, *leaves_per_s).await;
            }
            Stage::Kill { seconds, viewers, publishers } => {
                let killed: Vec<usize> = self.there().filter(|i| *i < *viewers as usize).collect();
                killed.iter().for_each(|v| self.go(*v, Order::Kill));
                let mine = |(i, _): &&(usize, Publisher)| *i < *publishers as usize;
                self.publishers.iter().filter(mine).for_each(|(_, p)| p.set_alive(false));
                tokio::time::sleep_until(over(*seconds)).await;
                self.publishers.iter().filter(mine).for_each(|(_, p)| p.set_alive(true));
                killed.iter().for_each(|v| self.come(*v));
            }
            Stage::Climb { step, seconds, age_p99_ms } => self.climb(*step as usize, *seconds, *age_p99_ms).await,
        }
    }

    /// Places of this share where nobody is.
    fn free(&self) -> impl Iterator<Item = usize> {
        let share = self.share;
        self.guests.iter().enumerate().filter(move |(i, g)| share.has(*i) && g.is_none()).map(|(i, _)| i)
    }

    /// Places of this share where somebody is.
    fn there(&self) -> impl Iterator<Item = usize> {
        self.guests.iter().enumerate().filter(|(_, g)| g.is_some()).map(|(i, _)| i)
    }

    fn come(&mut self, viewer: usize) {
        let (order, told) = watch::channel(Order::Stay);
        let task = tokio::spawn(view::watch(Arc::clone(&self.shared), Arc::clone(&self.access), viewer, told));
        if let Some(place) = self.guests.get_mut(viewer) {
            *place = Some(Guest { order, task });
        }
    }

    fn go(&mut self, viewer: usize, how: Order) {
        if let Some(guest) = self.guests.get_mut(viewer).and_then(Option::take) {
            guest.order.send_replace(how);
            self.leaving.retain(|t| !t.is_finished());
            self.leaving.push(guest.task);
        }
    }

    /// A number below `n`, by chance (Marsaglia's xorshift64).
    fn dice(&mut self, n: usize) -> usize {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        usize::try_from(self.random).unwrap_or(0).checked_rem(n).unwrap_or(0)
    }

    /// Joins and leaves at their rates. Who leaves is chance; where nobody is left to, or no place is free, nothing happens.
    async fn churn(&mut self, end: tokio::time::Instant, joins_per_s: f64, leaves_per_s: f64) {
        let apart = |per_s: f64| {
            let each = per_s / self.share.of.max(1) as f64;
            (each > 0.0).then(|| Duration::from_secs_f64(1.0 / each))
        };
        let (joins, leaves) = (apart(joins_per_s), apart(leaves_per_s));
        let begin = tokio::time::Instant::now();
        let (mut join_at, mut leave_at) = (joins.map(|d| begin + d), leaves.map(|d| begin + d / 2));
        loop {
            let next = join_at.into_iter().chain(leave_at).min().unwrap_or(end);
            tokio::time::sleep_until(next.min(end)).await;
            if next >= end {
                return;
            }
            if leave_at == Some(next) {
                let there: Vec<usize> = self.there().collect();
                let chosen = self.dice(there.len());
                there.get(chosen).into_iter().for_each(|v| self.go(*v, Order::Leave));
                leave_at = leaves.map(|d| next + d);
            } else {
                let free: Vec<usize> = self.free().collect();
                let chosen = self.dice(free.len());
                free.get(chosen).into_iter().for_each(|v| self.come(*v));
                join_at = joins.map(|d| next + d);
            }
        }
    }

    async fn climb(&mut self, step: usize, seconds: f64, age_p99_ms: f64) {
        let settle = Duration::from_secs(1);
        let measure = Duration::from_secs_f64((seconds - 1.0).max(1.0));
        let mut carried = self.there().count();
        loop {
            let new: Vec<usize> = self.free().take(step).collect();
            if new.is_empty() {
                self.climbed = Some(self.climbed_to(carried, None, "all viewers were there".to_owned(), usize::MAX));
                return;
            }
            for viewer in &new {
                self.come(*viewer);
                tokio::time::sleep(settle / u32::try_from(new.len()).unwrap_or(u32::MAX)).await;
            }
            tokio::time::sleep(settle).await;
            lock(&self.shared.interval).clear();
            let (before, failed) = (self.shared.totals().0, lock(&self.shared.joins).failed);
            let first = lock(&self.shared.samples).len();
            tokio::time::sleep(measure).await;
            let counts = self.shared.totals().0.since(before);
            let (there, age) = (self.there().count(), lock(&self.shared.interval).ms(0.99));
            let refused = lock(&self.shared.joins).failed;
            if let Some(why) = not_carried(counts, age, age_p99_ms, refused.max(failed)) {
                self.climbed = Some(self.climbed_to(carried, Some(there), why, first));
                return;
            }
            carried = there;
        }
    }

    /// The step that began with the second of that number is the last one.
    fn climbed_to(&self, carried: usize, failed: Option<usize>, why: String, first: usize) -> Climbed {
        let samples = lock(&self.shared.samples);
        let last = samples.last().cloned().unwrap_or_default();
        Climbed {
            carried,
            failed,
            why,
            generator_cpu: last.generator_cpu,
            relay_cpu: last.relay_cpu,
            relay_thread_cpu: last.relay_thread_cpu,
            losses: Losses::of(samples.iter().skip(first)),
        }
    }

    /// No more frames; the last one of each feed that is published from here.
    pub(super) fn stop_publishing(&mut self) -> Vec<Option<u32>> {
        self.pacer = None;
        let last = |f: &Arc<Feed>| f.next.load(Ordering::Relaxed).checked_sub(1).filter(|_| f.mine);
        self.shared.feeds.iter().map(last).collect()
    }

    /// Waits for what is under way, sends everybody home, and says what was counted.
    pub(super) async fn finish(mut self, last_frames: Vec<Option<u32>>) -> Part {
        let seconds = self.shared.elapsed().as_secs_f64();
        tokio::time::sleep(LAST_FRAMES).await;
        self.sampler.abort();
        *lock(&self.shared.last_frames) = last_frames;
        let there: Vec<usize> = self.there().collect();
        there.into_iter().for_each(|v| self.go(v, Order::End));
        let home = async {
            for task in &mut self.leaving {
                // One that panicked has said so on standard error; its figures are in.
                let _ = task.await;
            }
        };
        if tokio::time::timeout(END, home).await.is_err() {
            tracing::warn!("viewers did not end in time");
        }
        let not_sent = self.publishers.iter().map(|(_, p)| p.feed.sender.report(wall_now()).frames_dropped).sum();
        for (index, publisher) in self.publishers.drain(..) {
            publisher.finish(&self.access, index).await;
        }
        self.access.finish().await;
        self.part(seconds, not_sent)
    }

    fn part(&self, seconds: f64, not_sent: u64) -> Part {
        let s = &self.shared;
        let joins = lock(&s.joins);
        // Not within the value below: a guard lives to the end of its statement, and one lock is not taken twice.
        let (faults, faults_unnamed) = {
            let faults = lock(&s.faults);
            (faults.list(), faults.unnamed)
        };
        let rows = s.places.iter().map(|p| lock(p).row.clone()).filter(|r| !r.feed.is_empty());
        Part {
            began: self.began,
            seconds,
            interrupted: self.interrupted,
            cores: machine::cores(),
            rows: rows.collect(),
            joins: joins.asked,
            joins_failed: joins.failed,
            leaves: joins.leaves,
            first_frame: joins.first_frame.clone(),
            why: joins.why.clone(),
            faults,
            faults_unnamed,
            injected: lock(&s.injected).clone(),
            late: lock(&s.late).clone(),
            not_sent,
            slipped: s.slipped.load(Ordering::Relaxed),
            samples: lock(&s.samples).clone(),
            uncertainty_us: s.clock.uncertainty_us(),
            climbed: self.climbed.clone(),
        }
    }
}

/// Why a step of a climb is not carried; none where it is.
fn not_carried(counts: Counts, age_ms: Option<f64>, limit_ms: f64, joins_failed: u64) -> Option<String> {
    let lost = counts.lost_percent().unwrap_or(100.0);
    if joins_failed > 0 {
        return Some(format!("{joins_failed} joins failed"));
    }
    if lost > LOST_PERCENT {
        return Some(format!("{lost:.1} % of the frames were lost"));
    }
    match age_ms {
        Some(age) if age <= limit_ms => None,
        Some(age) => Some(format!("age p99 was {age:.1} ms")),
        None => Some("no frame came".to_owned()),
    }
}

/// Writes a line of figures each second.
async fn sample(shared: Arc<Shared>, mut meter: Meter) {
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    tick.tick().await;
    let (mut before, mut at) = (shared.totals().0, Instant::now());
    loop {
        tick.tick().await;
        let load = meter.read().await;
        let (counts, viewers) = shared.totals();
        let seconds = at.elapsed().as_secs_f64().max(1e-3);
        at = Instant::now();
        let new = counts.since(before);
        before = counts;
        let ages = std::mem::take(&mut *lock(&shared.second));
        lock(&shared.interval).add(&ages);
        let late = std::mem::take(&mut *lock(&shared.late_second));
        mark_the_silent(&shared);
        let sample = Sample {
            at: shared.elapsed().as_secs_f64(),
            stage: lock(&shared.stage).clone(),
            viewers,
            mbit_per_s: new.bytes as f64 * 8.0 / 1e6 / seconds,
            frames_per_s: new.frames as f64 / seconds,
            frames_lost: new.frames_lost,
            age_p50_ms: ages.ms(0.5),
            age_p99_ms: ages.ms(0.99),
            age_max_ms: ages.max_ms(),
            generator_cpu: load.own,
            relay_cpu: load.relay,
            relay_thread_cpu: load.relay_thread,
            late_max_ms: late.max_ms(),
            load_average: load.average,
            generator_drops: load.own_drops,
            relay_drops: load.relay_drops,
            relay_left_out: load.relay_left_out,
        };
        let mut samples = lock(&shared.samples);
        if samples.len() < SAMPLES {
            samples.push(sample);
        }
    }
}

/// Whoever is there and saw no whole frame in this second is told from those that are not there.
fn mark_the_silent(shared: &Shared) {
    let second = (shared.elapsed().as_secs() as usize).saturating_sub(1);
    for place in &shared.places {
        let mut place = lock(place);
        if place.taken
            && let Some((age, _)) = place.second(second)
            && *age == -2
        {
            *age = -1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_carried_up_to_its_limits_and_not_beyond() {
        let counts = |lost| Counts { frames: 1_000 - lost, frames_lost: lost, ..Counts::default() };
        assert_eq!(not_carried(counts(10), Some(50.0), 50.0, 0), None);
        assert!(not_carried(counts(11), Some(50.0), 50.0, 0).unwrap().contains("lost"));
        assert!(not_carried(counts(0), Some(50.1), 50.0, 0).unwrap().contains("50.1 ms"));
        assert!(not_carried(counts(0), Some(1.0), 50.0, 1).unwrap().contains("1 joins"));
        assert!(not_carried(Counts::default(), None, 50.0, 0).is_some());
    }

    #[test]
    fn shares_are_everything_and_have_nothing_in_common() {
        for n in 0..100 {
            assert!(Share::ALL.has(n));
            assert_eq!((0..3).filter(|index| Share { index: *index, of: 3 }.has(n)).count(), 1);
        }
    }
}
