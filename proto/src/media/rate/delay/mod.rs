//! The rate by queueing delay: falls to what was delivered when a queue grows, drains it, climbs again.
//!
//! ```text
//!            queue grows, or stands            drained: 0.95 × what was delivered
//!   Climb ───────────────────────────► Drain ──────────────────────────────────► Climb
//!     ▲                                  │ the delay does not care: it was no queue of ours (another route)
//!     └──────── rate as before ──────────┘ it fell faster than we drained: jitter, tolerated from then on
//!
//!          at once by so much, and even since                 it does not: another route, rate as before
//!   Climb ───────────────────────────────────► Probe, whether ──────────────────────────────────────────► Climb
//!                                              it falls       it does ──► Drain
//! ```
//!
//! The delay of a packet is the receiver's clock minus ours; above its smallest value of 20 s it is queueing. What counts
//! is the smallest of a few slices of 25 ms, so neither jitter nor the burst of a frame is a queue. Losses alone are
//! judged in [`loss`].

mod base;
mod loss;
mod slices;

use super::{LineState, PacketResult, RateConfig, RateController};
use crate::units::{Bitrate, Micros};
use base::Base;
use loss::{Judge, Verdict};
use slices::Slices;

/// A queueing delay below this is none, whatever the line; above the larger value it always is one. Microseconds.
const THRESHOLD_MIN_US: f64 = 5_000.0;
const THRESHOLD_MAX_US: f64 = 40_000.0;
/// And the time that a packet of this size takes on the line, in bits.
const PACKET_BITS: f64 = 10_000.0;
/// The threshold above the noise of the delay.
const NOISE_FACTOR: f64 = 3.0;
/// A queue that stands for this long is drained, in microseconds.
const STANDING_US: u64 = 300_000;
/// Unless less than this share of the target is sent.
const LITTLE: f64 = 0.05;
/// The queueing delay is the smallest of this long, in microseconds.
const LOW_US: u64 = 75_000;
/// Rates are measured over this long, in microseconds.
const DELIVERED_US: i64 = 250_000;
const SENT_US: u64 = 300_000;
/// A queue of this length is drained at the lowest rate, in microseconds.
const DRAIN_FULL_US: f64 = 250_000.0;
/// Share of the delivered rate while a queue drains.
const DRAIN_LOW: f64 = 0.3;
const DRAIN_HIGH: f64 = 0.9;
/// A delay that grew at once is asked whether it is a queue: for so long this share of what was sent is sent.
const PROBE: f64 = 0.9;
const PROBE_US: u64 = 150_000;
/// It is none where less than this share of what a queue would lose by then has gone.
const PROBE_FELL: f64 = 0.35;
/// And what grew at once is at least this share of it.
const PROBE_STEP: f64 = 0.7;
/// Where the queue does not go, each further turn drains at this share of the last, so often at most.
const DRAIN_DEEPER: f64 = 0.75;
const TURNS: u8 = 3;
/// Share of the delivered rate once it has.
const AFTER: f64 = 0.95;
/// Time for what was changed to show beside the round trip, in microseconds: an interval of feedback and two slices.
const TO_SHOW_US: u64 = 125_000;
/// Congested so long after the rate was lowered last, in microseconds.
const CONGESTED_US: u64 = 1_000_000;
/// Climbing, per second: near the last ceiling this share of the grant (alike for all, so that who has little catches up
/// with who has much), but no more than that share of the rate; after [`STEADY_S`] twice as fast each second, up to a limit.
const CLIMB: f64 = 0.02;
const CLIMB_OF_RATE: f64 = 0.3;
const STEADY_S: f64 = 2.0;
const CLIMB_MAX: f64 = 0.5;
/// Share by which the rate may rise before the effect shows.
const CLIMB_BLIND: f64 = 0.12;
/// A rate is used where this share of it is sent.
const USED: f64 = 0.9;
/// And is used in full where this share is.
const FULL: f64 = 0.97;
/// Without proof, the rate rises no further than this times what was delivered.
const UNPROVED: f64 = 1.5;
/// What was delivered counts as proof for this long, in microseconds.
const PROOF_US: u64 = 10_000_000;
/// A line with a shorter round trip that showed no queue for so long is not paced, in microseconds.
const LAN_RTT_US: u64 = 2_000;
const LAN_CLEAR_US: u64 = 30_000_000;
/// The shortest of so many round trips, the newest ones, tells how long a line is: an end that was busy adds to each of its own.
const RTT_LATEST: usize = 4;
/// A round trip counts as this at most, in microseconds.
const RTT_MAX_US: u64 = 10_000_000;
/// The pace there, in bits per second, or this times the grant.
const LAN_PACE: u64 = 1_000_000_000;
const LAN_GRANTS: u64 = 10;
/// Share of a queue that was none, which is tolerated from then on.
const TOLERATED: f64 = 0.8;
/// Tolerated jitter falls to a half in this time, in microseconds.
const TOLERANCE_HALF_US: u64 = 10_000_000;

/// How far ahead of their frame's time packets may leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// A short line that showed no queue of late: at once.
    Open,
    /// Twice the target: nothing tells of a queue.
    Ahead,
    /// About the target: the line takes no more.
    Tight,
}

#[derive(Debug, Clone, Copy)]
enum Phase {
    Climb,
    Drain(Drain),
    Probe(Probe),
}

/// The delay grew at once: a queue gets shorter when less is sent, another route stays as long as it is.
#[derive(Debug, Clone, Copy)]
struct Probe {
    since: Micros,
    /// The target before.
    before: f64,
    /// The queueing delay then.
    queue: f64,
    /// When the rate was lowered before.
    lowered: Option<Micros>,
}

/// A queue is being drained.
#[derive(Debug, Clone, Copy)]
struct Drain {
    since: Micros,
    /// How often more was tried than before.
    turn: u8,
    /// Packets sent from then on should find no queue; none until the first packet after the cut is heard of.
    until: Option<Micros>,
    /// The target before.
    before: f64,
    /// What was delivered while the queue was there.
    capacity: f64,
    /// It was growing.
    grew: bool,
    /// The queueing delay of the first packets after the cut.
    queue: f64,
    /// How long draining takes at the rate of the drain, in microseconds.
    expected: f64,
}

/// Rate control by delay. See the module.
#[derive(Debug, Clone)]
pub struct DelayController {
    config: RateConfig,
    target: f64,
    phase: Phase,
    rtt: Option<u64>,
    /// The newest round trips, in no order.
    latest: [u64; RTT_LATEST],
    /// Which of them is the oldest.
    oldest: usize,
    slices: Slices,
    base: Base,
    judge: Judge,
    /// Newest queueing delay in microseconds.
    queue: f64,
    /// Usual noise of the delay.
    noise: f64,
    /// Jitter that once looked like a queue, and since when it counts.
    tolerance: f64,
    tolerance_since: Micros,
    above_since: Option<Micros>,
    lowered: Option<Micros>,
    queue_seen: Option<Micros>,
    last: Option<Micros>,
    began: Micros,
    /// Highest delivered rate of late.
    proved: Proof,
    full: bool,
    state: LineState,
}

/// The highest rate that was delivered within the last [`PROOF_US`] to twice that.
#[derive(Debug, Clone, Copy, Default)]
struct Proof {
    before: f64,
    now: f64,
    since: Micros,
}

impl Proof {
    fn take(&mut self, now: Micros, rate: f64) {
        if now.since(self.since) >= PROOF_US {
            *self = Self { before: self.now, now: 0.0, since: now };
        }
        self.now = self.now.max(rate);
    }

    const fn get(&self) -> f64 {
        self.before.max(self.now)
    }
}

impl DelayController {
    /// Starts at the granted rate.
    #[must_use]
    pub fn new(config: RateConfig) -> Self {
        Self {
            config,
            target: config.granted.0 as f64,
            phase: Phase::Climb,
            rtt: None,
            latest: [u64::MAX; RTT_LATEST],
            oldest: 0,
            slices: Slices::default(),
            base: Base::default(),
            judge: Judge::default(),
            queue: 0.0,
            noise: 0.0,
            tolerance: 0.0,
            tolerance_since: Micros(0),
            above_since: None,
            lowered: None,
            queue_seen: None,
            last: None,
            began: Micros(0),
            proved: Proof::default(),
            full: false,
            state: LineState::Clear,
        }
    }

    /// Another grant: the target moves with it, unless the line has shown that it takes less.
    pub fn set_config(&mut self, config: RateConfig) {
        let old = self.config.granted.0 as f64;
        self.config = config;
        if self.target >= old * 0.99 || self.last.is_none() {
            self.target = config.granted.0 as f64;
        }
        self.target = self.bounded(self.target);
    }

    /// Between which rates it moves.
    #[must_use]
    pub const fn config(&self) -> RateConfig {
        self.config
    }

    /// The round trip it was told last, in microseconds.
    #[must_use]
    pub const fn round_trip_us(&self) -> Option<u64> {
        self.rtt
    }

    /// The delay of the empty line, receiver's clock minus ours; where acknowledgements are the arrivals, the round trip.
    #[must_use]
    pub fn base_delay_us(&self) -> Option<i64> {
        self.base.get()
    }

    /// What is above the delay of the empty line and may be the way itself: as long as that is asked, in microseconds.
    #[must_use]
    pub const fn doubtful_delay_us(&self) -> u64 {
        match self.phase {
            Phase::Probe(_) | Phase::Drain(_) => self.queue as u64,
            Phase::Climb => 0,
        }
    }

    /// How far ahead of their frame's time packets may leave.
    #[must_use]
    pub fn pace(&self, now: Micros) -> Pace {
        let clear = self.queue_seen.is_none_or(|s| now.since(s) >= LAN_CLEAR_US);
        if clear && self.latest.iter().any(|rtt| *rtt < LAN_RTT_US) {
            return Pace::Open;
        }
        let drains = !matches!(self.phase, Phase::Climb);
        let below = self.target < self.config.granted.0 as f64;
        if drains || below || self.state == LineState::Congested || self.judge.is_smooth(now) {
            return Pace::Tight;
        }
        Pace::Ahead
    }

    const fn bounded(&self, rate: f64) -> f64 {
        rate.clamp(self.config.min.0 as f64, self.config.max.0 as f64)
    }

    /// From which queueing delay on there is a queue.
    fn threshold(&self) -> f64 {
        let packet = PACKET_BITS * 1e6 / self.target.max(1.0);
        let noisy = NOISE_FACTOR.mul_add(self.noise, THRESHOLD_MIN_US + packet);
        (noisy + self.tolerance).min(THRESHOLD_MAX_US)
    }

    /// A slice of packets is complete.
    fn look(&mut self, now: Micros) {
        let Some(newest) = self.slices.newest().copied() else { return };
        if let Some((delay, sent)) = newest.delay {
            self.base.take(sent, delay);
        }
        let low = self.slices.low(LOW_US).zip(self.base.get());
        self.queue = low.map_or(0.0, |(low, base)| (low.saturating_sub(base)).max(0) as f64);
        let elapsed = self.last.map_or(0, |l| now.since(l)).min(200_000) as f64 / 1e6;
        if self.last.is_none() {
            self.began = now;
        }
        self.last = Some(now);
        self.full = self.slices.sent(SENT_US).is_some_and(|s| s > FULL * self.target);
        if let Some(rate) = self.slices.delivered(SENT_US.cast_signed()) {
            self.proved.take(now, rate);
        }
        if now.since(self.tolerance_since) >= TOLERANCE_HALF_US {
            self.tolerance /= 2.0;
            self.tolerance_since = now;
        }
        match self.phase {
            Phase::Drain(drain) => self.drain(now, drain),
            Phase::Probe(probe) => self.probe(now, probe),
            Phase::Climb => self.watch(now, elapsed),
        }
        let recently = self.lowered.is_some_and(|l| now.since(l) < CONGESTED_US);
        self.state = match self.phase {
            Phase::Drain(_) => LineState::Congested,
            Phase::Probe(_) => LineState::Filling,
            Phase::Climb if recently => LineState::Congested,
            Phase::Climb if self.queue > self.threshold() || self.judge.is_looking() => LineState::Filling,
            Phase::Climb => LineState::Clear,
        };
    }

    /// Looks for a queue; climbs where there is none.
    fn watch(&mut self, now: Micros, elapsed: f64) {
        let trend = self.slices.trend();
        let threshold = self.threshold();
        let above = self.queue > threshold;
        if above {
            self.queue_seen = Some(now);
        } else {
            self.above_since = None;
            if trend.slices >= 6 {
                self.noise += 0.05 * (trend.noise - self.noise);
            }
        }
        if above && self.slices.step(self.noise).is_some_and(|step| step > PROBE_STEP * self.queue) {
            self.begin_probe(now);
            return;
        }
        let since = *self.above_since.get_or_insert(now);
        let sure = trend.slices >= 4 || (trend.slices >= 2 && self.queue > THRESHOLD_MAX_US);
        let grows = above && sure && trend.slope > 0.01 && trend.growth > threshold.max(4.0 * trend.noise);
        // Who sends next to nothing has no queue of his own: what he sees is somebody's timer.
        let matters = self.slices.sent(SENT_US).is_some_and(|s| s > LITTLE * self.target);
        let stands = above && matters && now.since(since) >= STANDING_US && trend.slope > -0.02;
        if grows || stands {
            self.cut(now, grows);
            return;
        }
        if above {
            return;
        }
        match self.judge.verdict(now, self.target, self.config.granted.0 as f64) {
            Verdict::Lower(rate) => {
                self.target = self.bounded(rate.min(self.target));
                self.lowered = Some(now);
            }
            Verdict::Trim(rate) | Verdict::Try(rate) => self.target = self.bounded(rate.min(self.target)),
            Verdict::Back(rate) => self.target = self.bounded(rate.max(self.target)),
            Verdict::Hold => {}
            Verdict::Nothing => self.climb(now, elapsed),
        }
    }

    /// A little less than what is sent.
    fn begin_probe(&mut self, now: Micros) {
        let Some(sent) = self.slices.sent(SENT_US) else { return };
        let probe = Probe { since: now, before: self.target, queue: self.queue, lowered: self.lowered };
        self.target = self.bounded(PROBE * sent.min(self.target));
        self.phase = Phase::Probe(probe);
        self.above_since = None;
    }

    /// Whether the delay falls, judged by packets that were sent since less is.
    fn probe(&mut self, now: Micros, probe: Probe) {
        let Some(sent) = self.slices.newest().map(|s| Micros(s.first_sent)) else { return };
        if sent < probe.since.plus(PROBE_US) {
            return;
        }
        self.target = probe.before;
        let would_fall = ((1.0 - PROBE) * PROBE_US as f64).min(probe.queue);
        if probe.queue - self.queue > PROBE_FELL * would_fall {
            self.cut(now, false);
            return;
        }
        self.another_route(now);
        self.phase = Phase::Climb;
        self.lowered = probe.lowered;
    }

    /// What was taken for a queue is the way's own length.
    fn another_route(&mut self, now: Micros) {
        if let Some(low) = self.slices.low(LOW_US) {
            self.base.begin(now.0, low);
        }
        self.queue = 0.0;
    }

    /// Down to what was delivered, and below it until the queue is gone.
    fn cut(&mut self, now: Micros, grew: bool) {
        let Some(capacity) = self.slices.delivered(DELIVERED_US) else { return };
        self.begin_drain(
            now,
            Drain { since: now, turn: 0, before: self.target, capacity, grew, until: None, queue: 0.0, expected: 0.0 },
        );
    }

    fn begin_drain(&mut self, now: Micros, drain: Drain) {
        self.empty(&drain);
        self.phase = Phase::Drain(drain);
        self.judge.forget();
        self.slices.forget_before(now.0);
        self.lowered = Some(now);
        self.queue_seen = Some(now);
        self.above_since = None;
    }

    /// Sends so much less than gets through that the queue is gone in a quarter of a second, or slower where that would
    /// leave nothing; in later turns still less. Gives how long it takes, in microseconds.
    fn empty(&mut self, drain: &Drain) -> f64 {
        let share = (1.0 - self.queue / DRAIN_FULL_US).clamp(DRAIN_LOW, DRAIN_HIGH);
        let share = (share * DRAIN_DEEPER.powi(drain.turn.into())).max(DRAIN_LOW);
        self.target = self.bounded((drain.capacity * share).min(drain.before));
        self.queue / (1.0 - share)
    }

    /// Whether the queue is gone, judged by packets that were sent since the cut.
    fn drain(&mut self, now: Micros, drain: Drain) {
        self.slices.forget_before(drain.since.0);
        // The clock here is that of the packets: what is heard of now was sent before the queue of then was through.
        let Some(sent) = self.slices.newest().map(|s| Micros(s.first_sent)) else { return };
        let Some(until) = drain.until else {
            // Only now is it known how long the queue was when the rate fell.
            let expected = self.empty(&drain);
            let until = Some(drain.since.plus((1.3 * expected) as u64 + TO_SHOW_US));
            self.phase = Phase::Drain(Drain { until, queue: self.queue, expected, ..drain });
            return;
        };
        if self.queue < (self.threshold() * 0.5).max(2_000.0) {
            let at_once = (sent.since(drain.since) as f64) < 0.35 * drain.expected;
            if at_once {
                // No queue of ours goes that fast: jitter, or somebody else's.
                self.tolerance = (TOLERATED * drain.queue).max(self.tolerance);
                self.tolerance_since = now;
            }
            self.finish(now, if at_once { drain.before } else { drain.before.min(AFTER * drain.capacity) });
            return;
        }
        if sent < until {
            return;
        }
        let trend = self.slices.trend();
        let capacity = self.slices.delivered(DELIVERED_US).unwrap_or(drain.capacity).min(drain.capacity);
        let again = Drain { since: now, until: None, capacity, ..drain };
        if trend.slope > 0.02 && trend.slices >= 3 && drain.turn < TURNS {
            // Still too much: less than was thought gets through.
            self.begin_drain(now, Drain { turn: 0, grew: true, ..again });
        } else if drain.turn >= TURNS || (drain.turn > 0 && self.queue > 0.7 * drain.queue) {
            // It does not care for our rate: another route, or somebody else's queue.
            self.another_route(now);
            self.finish(now, if drain.grew { drain.before.min(drain.capacity) } else { drain.before });
        } else {
            self.begin_drain(now, Drain { turn: drain.turn + 1, ..again });
        }
    }

    fn finish(&mut self, now: Micros, target: f64) {
        self.target = self.bounded(target);
        self.phase = Phase::Climb;
        self.lowered = Some(now);
        self.above_since = None;
    }

    fn climb(&mut self, now: Micros, elapsed: f64) {
        let sent = self.slices.sent(SENT_US).unwrap_or(0.0);
        if sent < USED * self.target {
            return;
        }
        let granted = self.config.granted.0 as f64;
        let near = (CLIMB * granted).min(CLIMB_OF_RATE * self.target);
        let calm = now.since(self.lowered.unwrap_or(self.began)) as f64 / 1e6;
        let faster = (calm - STEADY_S).clamp(-1.0, 8.0).exp2();
        let blind = (self.rtt.unwrap_or(0) + TO_SHOW_US) as f64 / 1e6;
        let most = CLIMB_MAX.min(CLIMB_BLIND / blind) * self.target;
        let step = (near * faster.max(1.0)).min(most) * elapsed;
        let limit = (UNPROVED * self.proved.get()).max(self.target).min(self.judge.ceiling(now).max(self.target));
        self.target = self.bounded((self.target + step).min(limit));
    }
}

impl RateController for DelayController {
    fn handle_results(&mut self, now: Micros, results: &[PacketResult]) {
        for r in results {
            self.judge.take(r);
            if self.slices.take(r) {
                self.look(now);
            }
        }
    }

    fn handle_round_trip(&mut self, _now: Micros, rtt_us: u64) {
        let rtt_us = rtt_us.min(RTT_MAX_US);
        self.rtt = Some(self.rtt.map_or(rtt_us, |r| (7 * r + rtt_us) / 8));
        if let Some(slot) = self.latest.get_mut(self.oldest) {
            *slot = rtt_us;
        }
        self.oldest = (self.oldest + 1) % RTT_LATEST;
    }

    fn target(&self) -> Bitrate {
        Bitrate(self.target as u64)
    }

    fn pacing_rate(&self, now: Micros) -> Bitrate {
        let target = self.target as u64;
        Bitrate(match self.pace(now) {
            Pace::Open => self.config.granted.0.saturating_mul(LAN_GRANTS).max(LAN_PACE),
            Pace::Ahead => target.saturating_mul(2),
            Pace::Tight if !matches!(self.phase, Phase::Climb) => target,
            Pace::Tight if self.judge.is_smooth(now) => target.saturating_add(target / 50),
            // All of it in use, for a while: something waits for the line all the time, and the pace is the rate.
            Pace::Tight if self.full => target.saturating_add(target / 20),
            Pace::Tight => target.saturating_add(target / 4),
        })
    }

    fn queueing_delay_us(&self) -> u64 {
        self.queue as u64
    }

    fn state(&self) -> LineState {
        self.state
    }
}

#[cfg(test)]
mod rig;
#[cfg(test)]
mod tests;
