//! The receiver's side of generic NACK (RFC 4585 section 6.2.1): which packets of a publisher to ask for again, and when.
//!
//! A packet is asked for while a round trip fits the time that is left of its budget, and given up when that is over. The
//! caller chooses the budget; at a rate of R packets/s about R × loss × (round trip + budget) numbers are missing at a time.
//!
//! The round trip is learnt from the numbers that come after they were asked for: it rises to what is seen at once and falls
//! by an eighth of the difference. What comes after it was asked for twice answers an unknown one of the two (Karn), and so
//! says only that the round trip is no shorter than the time since the last.

use super::seq::nearest;
use crate::units::Micros;
use std::collections::VecDeque;
use std::ops::RangeInclusive;

/// Numbers named by one call of [`NackGenerator::poll`] at most.
pub const MAX_ASKED: usize = 128;
/// Numbers held as missing. Loss policy: the oldest is given up.
pub const MAX_MISSING: usize = 2_048;
/// A number that is skipped is not missing before this many more have come …
pub const REORDER_PACKETS: u64 = 2;
/// … or this much time has passed, in microseconds.
pub const REORDER_US: u64 = 5_000;
/// A jump of more than this many numbers is a new start of the publisher, not loss.
const MAX_JUMP: i64 = 3_000;
/// Shortest round trip that asking again reckons with, in microseconds.
const MIN_ROUND_TRIP_US: u64 = 10_000;
/// Round trip until one is known, in microseconds; half the budget where that is shorter.
const FIRST_ROUND_TRIP_US: u64 = 50_000;
/// Round trips that can be learnt, in microseconds.
const ROUND_TRIPS_US: RangeInclusive<u64> = 1_000..=2_000_000;
/// A round trip that nothing confirmed for so long is forgotten, in microseconds: one that is longer than the budget lets
/// nothing be asked, and so would never be found to have become shorter.
const FORGET_US: u64 = 10_000_000;

/// Counters since the generator began. What was missing is in the end asked for or not, and comes or is given up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NackCounters {
    /// Numbers that were skipped.
    pub missing: u64,
    /// Numbers asked for, each counted once.
    pub asked: u64,
    /// Times that a number was asked for again.
    pub asked_again: u64,
    /// Numbers that came after they were asked for.
    pub recovered: u64,
    /// Numbers that came late by themselves.
    pub reordered: u64,
    /// Numbers given up.
    pub given_up: u64,
}

#[derive(Debug, Clone, Copy)]
struct Missing {
    seq: u64,
    since: Micros,
    asked: Option<Asked>,
}

#[derive(Debug, Clone, Copy)]
struct Asked {
    first: Micros,
    last: Micros,
}

/// Knows which numbers of one source are missing.
#[derive(Debug)]
pub struct NackGenerator {
    budget_us: u64,
    /// As learnt, and when.
    round_trip: Option<(u64, Micros)>,
    /// While it is in doubt whether the round trip is longer than that: what it may be, for asking again; 0 otherwise.
    doubtful_us: u64,
    highest: Option<u64>,
    /// In order of number, and so in order of time.
    missing: VecDeque<Missing>,
    /// A number that was given up after it was asked for. When it comes, it shows a round trip longer than the budget.
    late: Option<(u64, Asked)>,
    asking: Vec<u16>,
    counters: NackCounters,
}

impl NackGenerator {
    /// For a feed that has `budget_us` microseconds for repair.
    #[must_use]
    pub fn new(budget_us: u64) -> Self {
        Self {
            budget_us,
            round_trip: None,
            doubtful_us: 0,
            highest: None,
            missing: VecDeque::new(),
            late: None,
            asking: Vec::with_capacity(MAX_ASKED),
            counters: NackCounters::default(),
        }
    }

    /// The publisher sends by another SSRC from now on: what was missing of the one before is given up, and its numbers mean
    /// nothing any more. The way to the publisher, and so the round trip, is the same.
    pub fn begin_source(&mut self) {
        self.forget_missing();
        self.highest = None;
    }

    fn forget_missing(&mut self) {
        self.counters.given_up += self.missing.len() as u64;
        self.missing.clear();
        self.late = None;
    }

    /// Time from asking for a packet until it comes that is reckoned with, in microseconds.
    #[must_use]
    pub fn round_trip_us(&self, now: Micros) -> u64 {
        let known = self.round_trip.filter(|(_, at)| now.since(*at) < FORGET_US);
        known.map_or(FIRST_ROUND_TRIP_US.min(self.budget_us / 2), |(us, _)| us)
    }

    /// Takes the number of a packet that came, for the first time or again. Before the first one of another SSRC,
    /// [`Self::begin_source`] is to be called.
    pub fn handle_packet(&mut self, now: Micros, seq: u16) {
        // One cycle up, so that a packet from before the first has a number.
        let Some(highest) = self.highest else {
            self.highest = Some(0x1_0000 + u64::from(seq));
            return;
        };
        let seq = nearest(highest, seq);
        let jump = seq.cast_signed().wrapping_sub(highest.cast_signed());
        if jump.abs() > MAX_JUMP {
            self.forget_missing();
            self.highest = Some(0x1_0000 + (seq & 0xffff));
            return;
        }
        if jump <= 0 {
            self.came(now, seq);
            return;
        }
        // At most MAX_JUMP turns.
        for skipped in highest + 1..seq {
            if self.missing.len() >= MAX_MISSING {
                self.missing.pop_front();
                self.counters.given_up += 1;
            }
            self.missing.push_back(Missing { seq: skipped, since: now, asked: None });
            self.counters.missing += 1;
        }
        self.highest = Some(seq);
    }

    fn came(&mut self, now: Micros, seq: u64) {
        let Ok(at) = self.missing.binary_search_by_key(&seq, |m| m.seq) else {
            if let Some((_, asked)) = self.late.take_if(|(late, _)| *late == seq) {
                self.learn(now, asked);
            }
            return;
        };
        match self.missing.remove(at).and_then(|m| m.asked) {
            Some(asked) => {
                self.counters.recovered += 1;
                self.learn(now, asked);
            }
            None => self.counters.reordered += 1,
        }
    }

    /// From a number that was asked for and came.
    fn learn(&mut self, now: Micros, asked: Asked) {
        let bounded = |us: u64| us.clamp(*ROUND_TRIPS_US.start(), *ROUND_TRIPS_US.end());
        let known = self.round_trip_us(now);
        let since_last = bounded(now.since(asked.last));
        if asked.first == asked.last {
            let fallen = known - known.saturating_sub(since_last) / 8;
            self.round_trip = Some((bounded(fallen.max(since_last)), now));
            self.doubtful_us = 0;
        } else if since_last >= known / 4 * 3 {
            // It may well answer the last time; whichever it answers, a round trip is no shorter than this.
            self.round_trip = Some((bounded(known.max(since_last)), now));
        } else {
            // It hardly answers the last time, which then was too soon: the next number is asked for once, and tells.
            self.doubtful_us = bounded(now.since(asked.first));
        }
    }

    /// The numbers to ask for now, in order, at most [`MAX_ASKED`]; none where nothing is due. To be called until none, at
    /// each packet or every few milliseconds.
    pub fn poll(&mut self, now: Micros) -> Option<&[u16]> {
        self.give_up(now);
        let highest = self.highest?;
        let round_trip_us = self.round_trip_us(now);
        let again_after = round_trip_us.max(self.doubtful_us).max(MIN_ROUND_TRIP_US) * 3 / 2;
        self.asking.clear();
        for m in &mut self.missing {
            let age = now.since(m.since);
            let fits = age.saturating_add(round_trip_us) <= self.budget_us;
            let settled = highest.saturating_sub(m.seq) > REORDER_PACKETS || age >= REORDER_US;
            let due = m.asked.is_none_or(|a| now.since(a.last) >= again_after);
            if !(fits && settled && due) {
                continue;
            }
            if self.asking.len() >= MAX_ASKED {
                break;
            }
            match &mut m.asked {
                Some(asked) => {
                    asked.last = now;
                    self.counters.asked_again += 1;
                }
                None => {
                    m.asked = Some(Asked { first: now, last: now });
                    self.counters.asked += 1;
                }
            }
            self.asking.push((m.seq & 0xffff) as u16);
        }
        (!self.asking.is_empty()).then_some(&self.asking)
    }

    /// Gives up what is over its budget.
    fn give_up(&mut self, now: Micros) {
        self.late.take_if(|(_, asked)| now.since(asked.last) > *ROUND_TRIPS_US.end());
        while let Some(m) = self.missing.pop_front_if(|m| now.since(m.since) > self.budget_us) {
            self.late = self.late.or(m.asked.map(|a| (m.seq, a)));
            self.counters.given_up += 1;
        }
    }

    /// How many numbers are missing now.
    #[must_use]
    pub fn missing(&self) -> usize {
        self.missing.len()
    }

    /// Counters.
    #[must_use]
    pub const fn counters(&self) -> NackCounters {
        self.counters
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::rng::Rng;
    use std::collections::BTreeSet;

    fn ms(n: u64) -> Micros {
        Micros(n * 1_000)
    }

    fn asked(g: &mut NackGenerator, now: Micros) -> Vec<u16> {
        g.poll(now).unwrap_or(&[]).to_vec()
    }

    fn asked_at(g: &mut NackGenerator, at_ms: u64) -> Vec<u16> {
        asked(g, ms(at_ms))
    }

    #[test]
    fn a_little_reordering_is_not_asked_for() {
        let mut g = NackGenerator::new(200_000);
        for seq in [65_534, 1, 0, 65_535, 2] {
            g.handle_packet(ms(0), seq);
            assert_eq!(g.poll(ms(0)), None);
        }
        let c = g.counters();
        assert_eq!((c.missing, c.reordered, c.asked), (2, 2, 0));
    }

    #[test]
    fn a_hole_is_asked_for_after_three_more_packets_or_five_milliseconds() {
        let mut g = NackGenerator::new(200_000);
        g.handle_packet(ms(0), 65_534);
        g.handle_packet(ms(0), 0);
        g.handle_packet(ms(0), 1);
        assert_eq!(g.poll(ms(0)), None);
        g.handle_packet(ms(0), 2);
        assert_eq!(asked(&mut g, ms(0)), vec![65_535]);
        g.handle_packet(ms(1), 4);
        assert_eq!(g.poll(ms(5)), None);
        assert_eq!(asked(&mut g, ms(6)), vec![3]);
    }

    #[test]
    fn it_is_asked_for_again_after_one_and_a_half_round_trips_while_that_fits_the_budget() {
        let mut g = NackGenerator::new(200_000);
        g.handle_packet(ms(0), 1);
        g.handle_packet(ms(0), 5);
        let times: Vec<_> = (0..400).filter(|t| g.poll(ms(*t)).is_some()).collect();
        // 2 at once, 3 and 4 after 5 ms; each again after 75 ms; not after 160 ms, because 50 ms would be late.
        assert_eq!(times, vec![0, 5, 75, 80, 150]);
        let c = g.counters();
        assert_eq!((c.asked, c.asked_again, c.given_up, g.missing()), (3, 4, 3, 0));
    }

    /// Every tenth of 4,000 packets, one each millisecond, is lost, and comes `round_trip_ms` after it was first asked for,
    /// and again for each further time. Returns how often numbers were asked for, from the second half alone.
    fn lossy(g: &mut NackGenerator, round_trip_ms: u64) -> (u64, u64) {
        let mut answers: VecDeque<(u64, u16)> = VecDeque::new();
        let mut half = NackCounters::default();
        for t in 0..4_000_u64 {
            if t == 2_000 {
                half = g.counters();
            }
            while let Some((_, seq)) = answers.pop_front_if(|a| a.0 <= t) {
                g.handle_packet(ms(t), seq);
            }
            if t % 10 != 9 {
                g.handle_packet(ms(t), t as u16);
            }
            while let Some(list) = g.poll(ms(t)) {
                answers.extend(list.iter().map(|s| (t + round_trip_ms, *s)));
            }
        }
        let c = g.counters();
        (c.asked - half.asked, c.asked_again - half.asked_again)
    }

    #[test]
    fn one_lost_packet_is_asked_for_once_whatever_the_round_trip() {
        for round_trip in [2, 20, 50, 75, 100, 150, 180] {
            let mut g = NackGenerator::new(200_000);
            let (asked, again) = lossy(&mut g, round_trip);
            assert!((199..=201).contains(&asked), "{round_trip} ms: {asked}");
            assert_eq!(again, 0, "{round_trip} ms");
            let known = g.round_trip_us(ms(4_000));
            assert!((round_trip * 1_000..round_trip * 1_000 + 1_100).contains(&known), "{round_trip} ms: {known}");
        }
    }

    #[test]
    fn a_round_trip_that_does_not_fit_the_budget_is_learnt_and_then_not_asked_before_it_is_forgotten() {
        let mut g = NackGenerator::new(100_000);
        let (asked, again) = lossy(&mut g, 150);
        assert_eq!((asked, again), (0, 0));
        assert_eq!(g.round_trip_us(ms(4_000)), 150_000);
        assert!(g.counters().asked > 0, "that is how it was learnt");
        g.begin_source();
        for (seq, at) in [(1, 4_000), (3, 4_000), (5, 9_000)] {
            g.handle_packet(ms(at), seq);
            assert_eq!(g.poll(ms(at + 6)), None);
        }
        g.handle_packet(ms(11_000), 7);
        assert_eq!(asked_at(&mut g, 11_006), vec![6], "the way may have become shorter");
    }

    #[test]
    fn a_shorter_budget_than_the_first_round_trip_still_asks() {
        let mut g = NackGenerator::new(30_000);
        g.handle_packet(ms(0), 1);
        g.handle_packet(ms(0), 3);
        assert_eq!(asked_at(&mut g, 5), vec![2]);
    }

    #[test]
    fn another_source_does_not_meet_the_numbers_of_the_one_before() {
        let mut g = NackGenerator::new(200_000);
        g.handle_packet(ms(0), 100);
        g.handle_packet(ms(0), 110);
        g.begin_source();
        assert_eq!((g.missing(), g.counters().given_up), (0, 9));
        // Near the old numbers, above and below them: nothing was skipped.
        g.handle_packet(ms(1), 600);
        assert_eq!(g.poll(ms(20)), None);
        g.begin_source();
        g.handle_packet(ms(21), 90);
        g.handle_packet(ms(21), 92);
        assert_eq!(asked_at(&mut g, 30), vec![91]);
    }

    #[test]
    fn what_comes_again_is_recovered_once() {
        let mut g = NackGenerator::new(200_000);
        g.handle_packet(ms(0), 1);
        g.handle_packet(ms(0), 6);
        assert_eq!(asked(&mut g, ms(5)), vec![2, 3, 4, 5]);
        for seq in [3, 3, 2, 6, 1] {
            g.handle_packet(ms(20), seq);
        }
        assert_eq!(asked(&mut g, ms(100)), vec![4, 5]);
        assert_eq!((g.counters().recovered, g.counters().reordered), (2, 0));
    }

    #[test]
    fn a_call_names_128_numbers_and_the_next_one_goes_on() {
        let mut g = NackGenerator::new(200_000);
        g.handle_packet(ms(0), 0);
        g.handle_packet(ms(0), 301);
        let lengths: Vec<_> = std::iter::from_fn(|| g.poll(ms(9)).map(<[u16]>::len)).collect();
        assert_eq!(lengths, vec![128, 128, 44]);
    }

    #[test]
    fn no_more_than_2048_are_held_and_a_long_jump_starts_anew() {
        let mut g = NackGenerator::new(200_000);
        g.handle_packet(ms(0), 0);
        g.handle_packet(ms(0), 3_000);
        assert_eq!((g.missing(), g.counters().given_up), (MAX_MISSING, 2_999 - MAX_MISSING as u64));
        for far in [6_001, 60_000, 20_000] {
            g.handle_packet(ms(1), far);
            assert_eq!((g.missing(), g.poll(ms(50))), (0, None));
        }
        assert_eq!(g.counters().given_up, 2_999);
        g.handle_packet(ms(60), 20_002);
        assert_eq!(asked(&mut g, ms(70)), vec![20_001]);
    }

    /// 100 Mbit/s (10,000 packets/s), 2 % loss both ways, round trip 30 ms, budget 200 ms.
    #[test]
    fn at_a_high_rate_with_loss_nearly_everything_comes_back_in_time() {
        let mut g = NackGenerator::new(200_000);
        let mut rng = Rng::new(11);
        let mut answers: VecDeque<(Micros, u16)> = VecDeque::new();
        let mut lost = BTreeSet::new();
        for n in 0..100_000_u64 {
            let now = Micros(n * 100);
            while answers.front().is_some_and(|a| a.0 <= now) {
                let seq = answers.pop_front().unwrap().1;
                lost.remove(&seq);
                g.handle_packet(now, seq);
            }
            let seq = (n % 65_536) as u16;
            if rng.chance(0.02) {
                lost.insert(seq);
            } else {
                g.handle_packet(now, seq);
            }
            while let Some(list) = g.poll(now) {
                answers.extend(list.iter().filter(|_| !rng.chance(0.04)).map(|s| (now.plus(30_000), *s)));
            }
        }
        let c = g.counters();
        assert_eq!(c.missing, c.recovered + c.reordered + c.given_up + g.missing() as u64);
        assert!(c.missing > 1_800, "{c:?}");
        assert!(c.given_up * 1_000 < c.missing, "{c:?}");
        assert_eq!(c.reordered, 0);
    }
}
