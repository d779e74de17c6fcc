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
/// Numbers held as missing, where no rate is given. Loss policy: the oldest is given up.
pub const MAX_MISSING: usize = 2_048;
/// Numbers held as missing at any rate.
const MOST_MISSING: usize = 16_384;
/// Round trip that room is kept for, in microseconds.
const ROOM_US: u64 = 200_000;
/// Numbers given up that are remembered, so that one that comes then is known to be late.
const MAX_GIVEN_UP: usize = 4_096;
/// A number that is skipped is not missing before this many more have come …
pub const REORDER_PACKETS: u64 = 2;
/// … or this much time has passed, in microseconds; less on a short way: a quarter of its round trip, but …
pub const REORDER_US: u64 = 5_000;
/// … not less than this, in microseconds.
const MIN_REORDER_US: u64 = 1_000;
/// A jump of more than this many numbers is a new start of the publisher, not loss; at high rates as many as are held.
const MAX_JUMP: i64 = 3_000;
/// Questions after which the time between two of them doubles with each.
const TRIES_IN_A_ROW: u8 = 3;
/// Waited beyond a measured round trip before asking again, in microseconds.
const MARGIN_US: u64 = 2_000;
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

/// What a number meant that came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrival {
    /// The highest so far.
    Newest,
    /// It was missing and came by itself.
    Reordered,
    /// It was asked for.
    Recovered,
    /// It was missing, and its time was over.
    Late,
    /// It had come before, or nothing is known of it.
    Other,
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
    times: u8,
}

/// Knows which numbers of one source are missing.
#[derive(Debug)]
pub struct NackGenerator {
    budget_us: u64,
    /// As learnt, and when.
    round_trip: Option<(u64, Micros)>,
    /// While it is in doubt whether the round trip is longer than that: what it may be, for asking again; 0 otherwise.
    doubtful_us: u64,
    /// As measured by the transport: round trip and its variation, in microseconds. Then nothing is learnt.
    measured: Option<(u64, u64)>,
    /// Another path may bring what is missing on this one: so long, in microseconds.
    patience_us: u64,
    most_missing: usize,
    highest: Option<u64>,
    /// In order of number, and so in order of time.
    missing: VecDeque<Missing>,
    /// Numbers given up, in order.
    given_up: VecDeque<u64>,
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
            measured: None,
            patience_us: 0,
            most_missing: MAX_MISSING,
            highest: None,
            missing: VecDeque::new(),
            given_up: VecDeque::new(),
            late: None,
            asking: Vec::with_capacity(MAX_ASKED),
            counters: NackCounters::default(),
        }
    }

    /// For a feed of at most that many packets per second: holds as many missing ones as come in its budget and a round trip.
    #[must_use]
    pub fn sized(budget_us: u64, packets_per_second: u64) -> Self {
        let room = packets_per_second.saturating_mul(budget_us.saturating_add(ROOM_US)) / 1_000_000;
        let room = usize::try_from(room).unwrap_or(usize::MAX);
        Self { most_missing: room.clamp(MAX_MISSING, MOST_MISSING), ..Self::new(budget_us) }
    }

    /// What the transport measures, in microseconds: to be told every few hundred milliseconds.
    pub const fn set_round_trip(&mut self, round_trip_us: u64, variation_us: u64) {
        self.measured = Some((round_trip_us, variation_us));
    }

    /// How long what is missing is left to come by another path before it is asked for, in microseconds.
    pub const fn set_patience(&mut self, us: u64) {
        self.patience_us = us;
    }

    /// The time for repair from now on, in microseconds: as the way itself takes more or less of the feed's budget.
    pub const fn set_budget(&mut self, us: u64) {
        self.budget_us = us;
    }

    fn max_jump(&self) -> i64 {
        i64::try_from(self.most_missing).unwrap_or(MAX_JUMP).max(MAX_JUMP)
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
        self.given_up.clear();
        self.late = None;
    }

    /// Time from asking for a packet until it comes that is reckoned with, in microseconds.
    #[must_use]
    pub fn round_trip_us(&self, now: Micros) -> u64 {
        if let Some((us, variation)) = self.measured {
            return us + 2 * variation;
        }
        let known = self.round_trip.filter(|(_, at)| now.since(*at) < FORGET_US);
        known.map_or(FIRST_ROUND_TRIP_US.min(self.budget_us / 2), |(us, _)| us)
    }

    /// Takes the number of a packet that came, for the first time or again. Before the first one of another SSRC,
    /// [`Self::begin_source`] is to be called.
    pub fn handle_packet(&mut self, now: Micros, seq: u16) -> Arrival {
        // One cycle up, so that a packet from before the first has a number.
        let Some(highest) = self.highest else {
            self.highest = Some(0x1_0000 + u64::from(seq));
            return Arrival::Newest;
        };
        let seq = nearest(highest, seq);
        let jump = seq.cast_signed().wrapping_sub(highest.cast_signed());
        if jump.abs() > self.max_jump() {
            self.forget_missing();
            self.highest = Some(0x1_0000 + (seq & 0xffff));
            return Arrival::Newest;
        }
        if jump <= 0 {
            return self.came(now, seq);
        }
        // At most MOST_MISSING turns.
        for skipped in highest + 1..seq {
            if self.missing.len() >= self.most_missing {
                let oldest = self.missing.pop_front();
                oldest.into_iter().for_each(|m| self.note_given_up(m.seq));
            }
            self.missing.push_back(Missing { seq: skipped, since: now, asked: None });
            self.counters.missing += 1;
        }
        self.highest = Some(seq);
        Arrival::Newest
    }

    fn came(&mut self, now: Micros, seq: u64) -> Arrival {
        let Ok(at) = self.missing.binary_search_by_key(&seq, |m| m.seq) else {
            if let Some((_, asked)) = self.late.take_if(|(late, _)| *late == seq) {
                self.learn(now, asked);
            }
            let Ok(late) = self.given_up.binary_search(&seq) else { return Arrival::Other };
            self.given_up.remove(late);
            return Arrival::Late;
        };
        if let Some(asked) = self.missing.remove(at).and_then(|m| m.asked) {
            self.counters.recovered += 1;
            self.learn(now, asked);
            return Arrival::Recovered;
        }
        self.counters.reordered += 1;
        Arrival::Reordered
    }

    /// A number was restored from redundancy: it is missing no more, and tells nothing of the round trip. False where its time
    /// was over, or it was not missing.
    pub fn handle_restored(&mut self, seq: u16) -> bool {
        let Some(highest) = self.highest else { return false };
        let seq = nearest(highest, seq);
        let Ok(at) = self.missing.binary_search_by_key(&seq, |m| m.seq) else { return false };
        self.missing.remove(at);
        true
    }

    /// Whether the number is above all that came.
    #[must_use]
    pub fn is_ahead(&self, seq: u16) -> bool {
        self.highest.is_some_and(|h| nearest(h, seq) > h)
    }

    fn note_given_up(&mut self, seq: u64) {
        self.counters.given_up += 1;
        if self.given_up.len() >= MAX_GIVEN_UP {
            self.given_up.pop_front();
        }
        self.given_up.push_back(seq);
    }

    /// From a number that was asked for and came.
    fn learn(&mut self, now: Micros, asked: Asked) {
        if self.measured.is_some() {
            return;
        }
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
        let again_after = self.measured.map_or_else(
            || round_trip_us.max(self.doubtful_us).max(MIN_ROUND_TRIP_US) * 3 / 2,
            |(us, variation)| us + 4 * variation + MARGIN_US,
        );
        // Whoever is asked may lack it himself, and asks on: a short way is not filled with questions.
        let patience = |a: &Asked| {
            let doubled = if self.measured.is_some() { a.times.saturating_sub(TRIES_IN_A_ROW).min(4) } else { 0 };
            again_after << doubled
        };
        let reorder_us = (round_trip_us / 4).clamp(MIN_REORDER_US, REORDER_US).max(self.patience_us);
        let reorder_packets = if self.patience_us == 0 { REORDER_PACKETS } else { u64::MAX };
        self.asking.clear();
        for m in &mut self.missing {
            let age = now.since(m.since);
            let fits = age.saturating_add(round_trip_us) <= self.budget_us;
            let settled = highest.saturating_sub(m.seq) > reorder_packets || age >= reorder_us;
            let due = m.asked.is_none_or(|a| now.since(a.last) >= patience(&a));
            if !(fits && settled && due) {
                continue;
            }
            if self.asking.len() >= MAX_ASKED {
                break;
            }
            match &mut m.asked {
                Some(asked) => {
                    asked.last = now;
                    asked.times = asked.times.saturating_add(1);
                    self.counters.asked_again += 1;
                }
                None => {
                    m.asked = Some(Asked { first: now, last: now, times: 1 });
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
            self.note_given_up(m.seq);
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

    #[test]
    fn a_measured_round_trip_is_used_as_it_is_and_nothing_is_learnt() {
        let mut g = NackGenerator::sized(100_000, 5_000);
        g.set_round_trip(5_000, 250);
        g.handle_packet(ms(0), 1);
        g.handle_packet(ms(0), 3);
        let times: Vec<_> = (0..1_000).filter(|t| g.poll(Micros(t * 100)).is_some()).collect();
        // After 1.375 ms, a quarter of the way there and back; then after 5 + 4 * 0.25 + 2 = 8 ms, twice, then 16 ms and 32 ms.
        assert_eq!(times, [14, 94, 174, 254, 414, 734]);
        g.handle_packet(ms(95), 2);
        assert_eq!(g.round_trip_us(ms(95)), 5_500);
    }

    #[test]
    fn room_for_what_is_missing_goes_with_the_rate() {
        let mut g = NackGenerator::sized(100_000, 50_000);
        g.handle_packet(ms(0), 0);
        // A tenth of a second of 400 Mbit/s is dark.
        g.handle_packet(ms(0), 4_500);
        assert_eq!(g.missing(), 4_499);
        let mut asked = 0;
        while let Some(list) = g.poll(ms(5)) {
            asked += list.len();
        }
        assert_eq!(asked, 4_499);
    }

    #[test]
    fn what_may_come_by_another_path_is_not_asked_for_before_that_had_its_time() {
        let mut g = NackGenerator::sized(150_000, 5_000);
        g.set_round_trip(30_000, 500);
        g.set_patience(50_000);
        (0..10).filter(|s| *s != 4).for_each(|s| assert_eq!(g.handle_packet(ms(0), s), Arrival::Newest));
        assert_eq!(g.poll(Micros(49_999)), None);
        assert_eq!(asked_at(&mut g, 50), vec![4]);
        let mut g = NackGenerator::sized(150_000, 5_000);
        g.set_patience(50_000);
        (0..10).filter(|s| *s != 4).for_each(|s| drop(g.handle_packet(ms(0), s)));
        assert_eq!(g.handle_packet(ms(40), 4), Arrival::Reordered);
    }

    #[test]
    fn what_comes_after_it_was_given_up_is_late_and_what_comes_twice_is_not() {
        let mut g = NackGenerator::new(50_000);
        g.handle_packet(ms(0), 1);
        g.handle_packet(ms(0), 4);
        assert!(g.handle_restored(2));
        assert!(!g.handle_restored(2));
        assert_eq!(g.poll(ms(51)), None);
        assert_eq!(
            [3, 3, 2, 4].map(|s| g.handle_packet(ms(60), s)),
            [Arrival::Late, Arrival::Other, Arrival::Other, Arrival::Other]
        );
    }
}
