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
    /// When [`Self::poll`] looked last, and the number that it has not looked at since.
    looked: Option<(Micros, u64)>,
    counters: NackCounters,
    /// Numbers that were looked at.
    #[cfg(test)]
    steps: usize,
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
            looked: None,
            counters: NackCounters::default(),
            #[cfg(test)]
            steps: 0,
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
        self.looked = None;
    }

    /// How long what is missing is left to come by another path before it is asked for, in microseconds.
    pub const fn set_patience(&mut self, us: u64) {
        self.patience_us = us;
        self.looked = None;
    }

    /// The time for repair from now on, in microseconds: as the way itself takes more or less of the feed's budget.
    pub const fn set_budget(&mut self, us: u64) {
        self.budget_us = us;
        self.looked = None;
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
        self.looked = None;
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
        // Where there is too much for one call, the next one goes on from there: at one time each number is looked at once.
        let left = self.looked.filter(|(at, _)| *at == now).map_or(0, |(_, seq)| seq);
        let left = self.missing.partition_point(|m| m.seq < left);
        let mut next = highest + 1;
        for m in self.missing.range_mut(left..) {
            #[cfg(test)]
            {
                self.steps += 1;
            }
            let age = now.since(m.since);
            let fits = age.saturating_add(round_trip_us) <= self.budget_us;
            let settled = highest.saturating_sub(m.seq) > reorder_packets || age >= reorder_us;
            let due = m.asked.is_none_or(|a| now.since(a.last) >= patience(&a));
            if !(fits && settled && due) {
                continue;
            }
            if self.asking.len() >= MAX_ASKED {
                next = m.seq;
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
        self.looked = Some((now, next));
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
mod tests;
