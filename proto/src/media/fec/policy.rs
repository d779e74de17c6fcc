//! How a line is repaired: by asking again, by redundancy, by both, or not at all.
//!
//! A packet that is missed is asked for where that comes back in time; what asking cannot bring back in time, or not surely
//! enough, is covered by redundancy beforehand. With a round trip `R` and its variation `V`, one try takes
//!
//! ```text
//! try  = DETECT + R + 4 V                        noticed, asked for, come
//! n    = min(repair / try, MAX_TRIES)            tries that fit the time left for repair
//! ```
//!
//! A try fails where the question (sent twice) or the answer is lost: `f = 1 - (1 - p²)(1 - p)`, from the second try on with
//! two answers, `g = 1 - (1 - p²)²`. After asking a packet is still missing with `p · f · g^(n-1)`. Where that leaves more than
//! [`TARGET`] of the frames torn, redundancy is put in: the smallest number of repair packets with which a block of
//! [`BLOCK`] packets cannot be restored in no more than `TARGET / (blocks of a frame · what asking leaves of it)` cases, by the
//! binomial distribution. Losses that come in runs of `b` count as packets of that length, of which a block sees `b / interleave`.
//! Where runs take half of a frame and more, redundancy within the frame is of no use, and none is put in.

use crate::units::Micros;
use std::collections::VecDeque;

/// Share of the frames that may stay torn after repair.
pub const TARGET: f64 = 2e-5;
/// Source packets of the block that [`Plan::fec_percent`] is reckoned for; smaller ones get more ([`Plan::repairs`]).
pub const BLOCK: u32 = 48;
/// From a packet that is missing to the question, in microseconds.
pub const DETECT_US: u64 = 2_000;
/// Tries that are reckoned with.
pub const MAX_TRIES: u32 = 3;
/// Below this share of lost packets a line is clean.
pub const CLEAN: f64 = 1e-5;
/// Runs shorter than that are covered in frames of any size.
const LONG: f64 = 8.0;
/// Blocks that a run of losses is spread over at most.
pub const MAX_INTERLEAVE: u8 = 16;

/// How a line is repaired.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Plan {
    /// A packet that is asked for again can still be used.
    pub rtx: bool,
    /// Repair packets, in per cent of a block of [`BLOCK`] source packets: 0 to 100.
    pub fec_percent: u8,
    /// Blocks that packets in a row are spread over; 1 where losses come singly.
    pub interleave: u8,
}

/// What a plan is made from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Line {
    /// Round trip of the hop, in microseconds.
    pub round_trip_us: u64,
    /// Its mean deviation (RFC 9002 section 5.3), in microseconds.
    pub variation_us: u64,
    /// What is left for repair of the time from capture to display, when a packet should have come: the budget less the way
    /// itself and less what follows after, in microseconds.
    pub repair_us: u64,
    /// Share of the packets lost, 0 to 1.
    pub loss: f64,
    /// Mean number of packets lost in a row, 1 or more.
    pub burst: f64,
    /// Packets of a frame.
    pub frame_packets: u32,
}

impl Line {
    /// What is left for repair of a budget of so many microseconds after a way of half the round trip.
    #[must_use]
    pub const fn repair_time(budget_us: u64, round_trip_us: u64) -> u64 {
        budget_us.saturating_sub(round_trip_us / 2)
    }

    /// How often a packet can be asked for so that it comes in time.
    #[must_use]
    pub fn tries(&self) -> u32 {
        let one = DETECT_US + self.round_trip_us + 4 * self.variation_us;
        u32::try_from(self.repair_us / one).unwrap_or(MAX_TRIES).min(MAX_TRIES)
    }

    /// Chance that a lost packet is still missing after it was asked for as often as fits.
    fn asked_in_vain(&self) -> f64 {
        let p = self.loss.clamp(0.0, 1.0);
        let heard = 1.0 - p * p;
        let first = 1.0 - heard * (1.0 - p);
        let again = 1.0 - heard * heard;
        match self.tries() {
            0 => 1.0,
            n => first * again.powi(i32::try_from(n - 1).unwrap_or(0)),
        }
    }
}

impl Plan {
    /// The plan for a line.
    #[must_use]
    pub fn of(line: &Line) -> Self {
        let rtx = line.tries() > 0;
        let packets = f64::from(line.frame_packets.max(1));
        let in_vain = line.asked_in_vain();
        let long = line.burst >= LONG && line.burst * 2.0 >= packets;
        if line.loss < CLEAN || long || line.loss * in_vain * packets <= TARGET {
            return Self { rtx, fec_percent: 0, interleave: 1 };
        }
        let interleave = if line.burst < 1.5 { 1 } else { line.burst.ceil().min(f64::from(MAX_INTERLEAVE)) as u8 };
        let run = (line.burst / f64::from(interleave)).max(1.0);
        let blocks = (packets / f64::from(BLOCK)).ceil();
        let wanted = (TARGET / (blocks * in_vain)).min(0.5);
        let repairs = repairs_for(line.loss.min(1.0), run, wanted);
        let fec_percent = (repairs * 100).div_ceil(BLOCK).min(100) as u8;
        Self { rtx, fec_percent, interleave }
    }

    /// Repair packets for a block of `sources` packets: the share of a full block, and more for a smaller one, in which chance
    /// weighs more: in proportion to the square root of its length. Never more than it has packets, but for one of one.
    #[must_use]
    pub fn repairs(&self, sources: u32) -> u32 {
        if self.fec_percent == 0 || sources == 0 {
            return 0;
        }
        let full = f64::from(self.fec_percent) / 100.0 * f64::from(BLOCK);
        let share = f64::from(sources) / f64::from(BLOCK);
        let scaled = if share < 1.0 { full * share.sqrt() } else { full * share };
        (scaled.ceil() as u32).clamp(1, sources.max(2))
    }
}

/// The smallest number of repair packets with which a block of [`BLOCK`] is torn in no more than `wanted` of the cases, where
/// each packet is lost with `loss` and losses come in runs of `run`.
fn repairs_for(loss: f64, run: f64, wanted: f64) -> u32 {
    // In units of runs: fewer, larger packets.
    let sources = f64::from(BLOCK) / run;
    let found = (0..=BLOCK).find(|r| {
        let repairs = (f64::from(*r) / run).floor();
        beyond(sources + f64::from(*r) / run, loss, repairs) <= wanted
    });
    found.unwrap_or(BLOCK)
}

/// P(X > k) of the binomial distribution of `n` trials, `n` rounded up.
fn beyond(n: f64, p: f64, k: f64) -> f64 {
    let n = n.ceil();
    if p >= 1.0 {
        return if n > k { 1.0 } else { 0.0 };
    }
    let (mut term, mut below, mut i) = ((1.0 - p).powf(n), 0.0, 0.0);
    // At most 2 × BLOCK turns.
    while i <= k.min(n) {
        below += term;
        term *= (n - i) / (i + 1.0) * p / (1.0 - p);
        i += 1.0;
    }
    (1.0 - below).max(0.0)
}

/// A slot of the window, in microseconds.
const SLOT_US: u64 = 250_000;
/// Slots of the window: ten seconds. Redundancy put in too long costs some rate, taken out too early it costs pictures.
const SLOTS: usize = 40;
/// Fewer packets than this say nothing about loss.
const MIN_PACKETS: u64 = 100;

#[derive(Debug, Clone, Copy, Default)]
struct Slot {
    number: u64,
    packets: u64,
    lost: u64,
    runs: u64,
}

/// Loss share and burst length of a line, as its packets came before anything was repaired: over a sliding window of ten
/// seconds, or over the last second where that was worse.
#[derive(Debug, Default)]
pub struct LossMeter {
    slots: VecDeque<Slot>,
    /// The packet before was lost.
    in_run: bool,
}

impl LossMeter {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// So many packets in a row came, or were lost. In the order in which they were sent.
    pub fn handle_run(&mut self, now: Micros, lost: bool, packets: u64) {
        if packets == 0 {
            return;
        }
        let begins = lost && !self.in_run;
        self.in_run = lost;
        let Some(slot) = self.slot(now) else { return };
        slot.packets += packets;
        if lost {
            slot.lost += packets;
            slot.runs += u64::from(begins);
        }
    }

    /// What a receiver report tells (RFC 3550 section 6.4.1), where nothing finer does: a share in 1/256 of that many
    /// packets. Losses are taken to come singly.
    pub fn handle_report(&mut self, now: Micros, fraction_lost: u8, packets: u64) {
        let lost = packets * u64::from(fraction_lost) / 256;
        let Some(slot) = self.slot(now) else { return };
        slot.packets += packets;
        slot.lost += lost;
        slot.runs += lost;
    }

    fn slot(&mut self, now: Micros) -> Option<&mut Slot> {
        let number = now.0 / SLOT_US;
        if self.slots.back().is_none_or(|s| s.number < number) {
            self.slots.push_back(Slot { number, ..Slot::default() });
        }
        while self.slots.len() > SLOTS || self.slots.front().is_some_and(|s| s.number + (SLOTS as u64) < number) {
            self.slots.pop_front();
        }
        self.slots.back_mut()
    }

    fn sum(&self, now: Micros, slots: u64) -> Slot {
        let oldest = (now.0 / SLOT_US).saturating_sub(slots - 1);
        self.slots.iter().filter(|s| s.number >= oldest).fold(Slot::default(), |a, s| Slot {
            number: 0,
            packets: a.packets + s.packets,
            lost: a.lost + s.lost,
            runs: a.runs + s.runs,
        })
    }

    /// Share of the packets lost, 0 to 1: 0 while too few are known of.
    #[must_use]
    pub fn loss(&self, now: Micros) -> f64 {
        let share = |s: Slot| if s.packets < MIN_PACKETS { 0.0 } else { s.lost as f64 / s.packets as f64 };
        share(self.sum(now, SLOTS as u64)).max(share(self.sum(now, 1_000_000 / SLOT_US)))
    }

    /// Mean number of packets lost in a row; 1 where none were.
    #[must_use]
    pub fn burst(&self, now: Micros) -> f64 {
        let s = self.sum(now, SLOTS as u64);
        if s.runs == 0 { 1.0 } else { (s.lost as f64 / s.runs as f64).max(1.0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::rng::Rng;

    const LINE: Line =
        Line { round_trip_us: 30_000, variation_us: 500, repair_us: 70_000, loss: 0.01, burst: 1.0, frame_packets: 93 };

    #[test]
    fn a_clean_line_gets_no_redundancy_and_may_ask() {
        for loss in [0.0, 0.9e-5] {
            for round_trip_us in [1_000, 30_000, 100_000] {
                let repair_us = Line::repair_time(100_000, round_trip_us);
                let plan = Plan::of(&Line { loss, round_trip_us, repair_us, ..LINE });
                assert_eq!((plan.fec_percent, plan.interleave), (0, 1));
                assert_eq!(plan.rtx, round_trip_us < 100_000);
            }
        }
    }

    #[test]
    fn asking_alone_does_where_it_fits_often_enough_and_redundancy_alone_where_it_never_fits() {
        let asked = Plan::of(&Line { round_trip_us: 5_000, repair_us: 90_000, loss: 0.001, ..LINE });
        assert_eq!(asked, Plan { rtx: true, fec_percent: 0, interleave: 1 });
        let covered = Plan::of(&Line { round_trip_us: 100_000, repair_us: 50_000, ..LINE });
        assert!(!covered.rtx && covered.fec_percent >= 12, "{covered:?}");
        let both = Plan::of(&Line { loss: 0.10, ..LINE });
        assert!(both.rtx && both.fec_percent > 10, "{both:?}");
    }

    #[test]
    fn one_try_fits_exactly_where_the_time_left_is_a_detection_and_a_round_trip_with_its_variation() {
        let one = DETECT_US + 30_000 + 4 * 500;
        for (repair_us, tries) in [(0, 0), (one - 1, 0), (one, 1), (2 * one - 1, 1), (2 * one, 2), (9 * one, 3)] {
            assert_eq!(Line { repair_us, ..LINE }.tries(), tries, "{repair_us}");
        }
        assert_eq!(Line::repair_time(100_000, 250_000), 0, "a way longer than the budget leaves nothing");
    }

    #[test]
    fn more_loss_longer_ways_and_larger_frames_never_get_less_redundancy() {
        let of = |l: Line| Plan::of(&l).fec_percent;
        let mut before = 0;
        for loss in [0.0, 0.001, 0.01, 0.05, 0.10, 0.3, 0.5, 1.0] {
            let now = of(Line { loss, repair_us: 0, ..LINE });
            assert!(now >= before, "{loss}: {now} < {before}");
            before = now;
        }
        assert_eq!(before, 100);
        let large = of(Line { frame_packets: 744, loss: 0.05, ..LINE });
        assert!(large >= of(Line { loss: 0.05, ..LINE }) && large > 0);
        assert!(of(Line { loss: 0.05, repair_us: 10_000, ..LINE }) > of(Line { loss: 0.05, ..LINE }));
    }

    #[test]
    fn bursts_are_spread_and_get_more() {
        let single = Plan::of(&Line { repair_us: 0, ..LINE });
        let bursts = Plan::of(&Line { repair_us: 0, burst: 4.0, ..LINE });
        assert_eq!((single.interleave, bursts.interleave), (1, 4));
        let long = Plan::of(&Line { repair_us: 0, burst: 40.0, ..LINE });
        assert!(long.interleave == MAX_INTERLEAVE && long.fec_percent > bursts.fec_percent, "{long:?}");
        let whole = Plan::of(&Line { repair_us: 0, burst: 47.0, ..LINE });
        assert_eq!(whole.fec_percent, 0, "half of a frame is gone at a time");
        let small = Plan::of(&Line { repair_us: 0, burst: 2.0, frame_packets: 2, ..LINE });
        assert!(small.fec_percent > 0);
    }

    #[test]
    fn a_block_with_the_planned_redundancy_is_torn_as_seldom_as_planned() {
        let mut rng = Rng::new(7);
        for (loss, sources) in [(0.05, 48), (0.10, 48), (0.05, 12), (0.10, 20), (0.02, 5)] {
            let plan = Plan::of(&Line { repair_us: 0, loss, frame_packets: sources, ..LINE });
            let repairs = plan.repairs(sources);
            let torn = (0..200_000)
                .filter(|_| (0..sources + repairs).filter(|_| rng.chance(loss)).count() > repairs as usize)
                .count();
            // 2e-5 of 200,000 are 4: twelve or more by chance in one of 4,000 cases.
            assert!(torn < 12, "{loss} {sources}+{repairs}: {torn}");
        }
    }

    #[test]
    fn small_blocks_get_more_of_their_length_and_nothing_gets_none() {
        let plan = Plan { rtx: false, fec_percent: 20, interleave: 1 };
        let list: Vec<u32> = [0, 1, 2, 12, 24, 48, 64].into_iter().map(|n| plan.repairs(n)).collect();
        assert_eq!(list, [0, 2, 2, 5, 7, 10, 13]);
        assert_eq!(Plan::default().repairs(48), 0);
    }

    #[test]
    fn the_meter_knows_share_and_burst_and_forgets_after_ten_seconds() {
        let mut m = LossMeter::new();
        assert_eq!((m.loss(Micros(0)), m.burst(Micros(0))), (0.0, 1.0));
        for i in 0..100_u64 {
            let now = Micros(i * 10_000);
            m.handle_run(now, false, 96);
            m.handle_run(now, true, 3);
            m.handle_run(now, true, 1);
        }
        let now = Micros(1_000_000);
        assert!((m.loss(now) - 0.04).abs() < 1e-9, "{}", m.loss(now));
        assert!((m.burst(now) - 4.0).abs() < 1e-9);
        assert!(m.loss(Micros(10_000_000)) > 0.039);
        m.handle_run(Micros(11_000_000), false, 1_000);
        assert!(m.loss(Micros(11_000_000)) < 1e-9);
    }

    #[test]
    fn one_bad_second_counts_at_once_and_a_handful_of_packets_does_not() {
        let mut m = LossMeter::new();
        m.handle_run(Micros(0), true, 50);
        assert!(m.loss(Micros(0)) < 1e-9, "too few to tell");
        let mut m = LossMeter::new();
        m.handle_run(Micros(0), false, 100_000);
        m.handle_run(Micros(5_000_000), false, 900);
        m.handle_run(Micros(5_000_000), true, 100);
        assert!((m.loss(Micros(5_000_000)) - 0.1).abs() < 1e-9);
    }

    #[test]
    fn a_receiver_report_is_a_share_without_bursts() {
        let mut m = LossMeter::new();
        m.handle_report(Micros(0), 26, 1_000);
        assert!((m.loss(Micros(0)) - 0.101).abs() < 1e-9);
        assert!((m.burst(Micros(0)) - 1.0).abs() < 1e-9);
    }
}
