//! The receiver's side of generic NACK (RFC 4585 section 6.2.1): which packets of a publisher to ask for again, and when.
//!
//! A packet is asked for while a round trip fits the time that is left of its budget, and given up when that is over. The
//! caller chooses the budget; at a rate of R packets/s about R × loss × (round trip + budget) numbers are missing at a time.

use super::seq::nearest;
use crate::units::Micros;
use std::collections::VecDeque;

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
/// Shortest round trip that is reckoned with, in microseconds.
const MIN_ROUND_TRIP_US: u64 = 10_000;

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
    asked: Option<Micros>,
}

/// Knows which numbers of one source are missing.
#[derive(Debug)]
pub struct NackGenerator {
    budget_us: u64,
    round_trip_us: u64,
    highest: Option<u64>,
    /// In order of number, and so in order of time.
    missing: VecDeque<Missing>,
    asking: Vec<u16>,
    counters: NackCounters,
}

impl NackGenerator {
    /// For a feed that has `budget_us` microseconds for repair.
    #[must_use]
    pub fn new(budget_us: u64) -> Self {
        Self {
            budget_us,
            round_trip_us: 0,
            highest: None,
            missing: VecDeque::new(),
            asking: Vec::with_capacity(MAX_ASKED),
            counters: NackCounters::default(),
        }
    }

    /// The round trip to the publisher, in microseconds. Until it is known, 0 is reckoned with for what fits the budget.
    pub const fn set_round_trip(&mut self, us: u64) {
        self.round_trip_us = us;
    }

    /// Takes the number of a packet that came, for the first time or again.
    pub fn handle_packet(&mut self, now: Micros, seq: u16) {
        // One cycle up, so that a packet from before the first has a number.
        let Some(highest) = self.highest else {
            self.highest = Some(0x1_0000 + u64::from(seq));
            return;
        };
        let seq = nearest(highest, seq);
        let jump = seq.cast_signed().wrapping_sub(highest.cast_signed());
        if jump.abs() > MAX_JUMP {
            self.counters.given_up += self.missing.len() as u64;
            self.missing.clear();
            self.highest = Some(0x1_0000 + (seq & 0xffff));
            return;
        }
        if jump <= 0 {
            self.came(seq);
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

    fn came(&mut self, seq: u64) {
        let Ok(at) = self.missing.binary_search_by_key(&seq, |m| m.seq) else { return };
        match self.missing.remove(at).and_then(|m| m.asked) {
            Some(_) => self.counters.recovered += 1,
            None => self.counters.reordered += 1,
        }
    }

    /// The numbers to ask for now, in order, at most [`MAX_ASKED`]; none where nothing is due. To be called until none, at
    /// each packet or every few milliseconds.
    pub fn poll(&mut self, now: Micros) -> Option<&[u16]> {
        while self.missing.front().is_some_and(|m| now.since(m.since) > self.budget_us) {
            self.missing.pop_front();
            self.counters.given_up += 1;
        }
        let highest = self.highest?;
        let again_after = self.round_trip_us.max(MIN_ROUND_TRIP_US) * 3 / 2;
        self.asking.clear();
        for m in &mut self.missing {
            let age = now.since(m.since);
            let fits = age.saturating_add(self.round_trip_us) <= self.budget_us;
            let settled = highest.saturating_sub(m.seq) > REORDER_PACKETS || age >= REORDER_US;
            let due = m.asked.is_none_or(|t| now.since(t) >= again_after);
            if !(fits && settled && due) {
                continue;
            }
            if self.asking.len() >= MAX_ASKED {
                break;
            }
            match m.asked.replace(now) {
                Some(_) => self.counters.asked_again += 1,
                None => self.counters.asked += 1,
            }
            self.asking.push((m.seq & 0xffff) as u16);
        }
        (!self.asking.is_empty()).then_some(&self.asking)
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
        g.set_round_trip(40_000);
        g.handle_packet(ms(0), 1);
        g.handle_packet(ms(0), 5);
        let times: Vec<_> = (0..400).filter(|t| g.poll(ms(*t)).is_some()).collect();
        // 2 at once, 3 and 4 after 5 ms; each again after 60 ms; not after 160 ms, because 40 ms would be late.
        assert_eq!(times, vec![0, 5, 60, 65, 120, 125]);
        let c = g.counters();
        assert_eq!((c.asked, c.asked_again, c.given_up, g.missing()), (3, 6, 3, 0));
    }

    #[test]
    fn a_round_trip_that_does_not_fit_the_budget_is_never_asked() {
        let mut g = NackGenerator::new(100_000);
        g.set_round_trip(100_001);
        g.handle_packet(ms(0), 1);
        g.handle_packet(ms(0), 9);
        assert!((0..300).all(|t| g.poll(ms(t)).is_none()));
        assert_eq!((g.counters().asked, g.counters().given_up), (0, 7));
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
        assert_eq!(asked(&mut g, ms(30)), vec![4, 5]);
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
        g.set_round_trip(30_000);
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
