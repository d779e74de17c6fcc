//! The sender's answer to a NACK: which packets go again, and how often.
//!
//! A repeat goes only where it can still be used, at most once a round trip, and within a budget of bytes. The second time
//! that one is asked for it goes twice, for by then there is no time for a third; without SRTP the receiver tells repeats from
//! packets by their numbers.

use crate::units::{Bitrate, Micros};

/// Numbers remembered; a power of two.
const REMEMBERED: usize = 8_192;
/// Copies of one answer at most.
const MAX_COPIES: u8 = 2;
/// Shortest time between two answers with one number, in microseconds.
const MIN_SPACING_US: u64 = 2_000;
/// Bytes that may go at once on the slowest line.
const MIN_DEPTH: u64 = 64 << 10;

/// Counters since the beginning.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RepeatCounters {
    /// Packets sent again, copies counted.
    pub repeated: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Numbers asked for within a round trip of the last answer.
    pub too_soon: u64,
    /// Numbers whose packet would come too late.
    pub too_late: u64,
    /// Numbers that the budget had no room for.
    pub over_budget: u64,
    /// Numbers whose packet is not kept any more.
    pub gone: u64,
}

#[derive(Debug, Clone, Copy)]
struct Answered {
    seq: u16,
    at: Micros,
    times: u8,
}

/// Decides about repeats of one line.
#[derive(Debug)]
pub struct Repeats {
    answered: Vec<Option<Answered>>,
    budget_us: u64,
    round_trip_us: u64,
    /// Bytes per second that go into the bucket, and how many it holds.
    rate: u64,
    depth: u64,
    room: u64,
    filled: Micros,
    counters: RepeatCounters,
}

impl Repeats {
    /// For a feed of that rate and that budget from capture to display. Repeats may take half of the rate, and once the
    /// whole of what one budget carries.
    #[must_use]
    pub fn new(rate: Bitrate, budget_us: u64) -> Self {
        let bytes = rate.0 / 8;
        let depth = (bytes.saturating_mul(budget_us.min(1_000_000)) / 1_000_000).max(MIN_DEPTH);
        Self {
            answered: vec![None; REMEMBERED],
            budget_us,
            round_trip_us: 10_000,
            rate: bytes / 2,
            depth,
            room: depth,
            filled: Micros(0),
            counters: RepeatCounters::default(),
        }
    }

    /// The round trip of the line, in microseconds.
    pub const fn set_round_trip(&mut self, us: u64) {
        self.round_trip_us = us;
    }

    /// How many copies to send of the packet of that number and length, which was first sent at `sent`; 0 for none. What is
    /// said here is counted as sent.
    pub fn admit(&mut self, now: Micros, seq: u16, sent: Micros, len: usize) -> u8 {
        if now.since(sent) + self.round_trip_us / 2 > self.budget_us {
            self.counters.too_late += 1;
            return 0;
        }
        let spacing = (self.round_trip_us / 4 * 3).max(MIN_SPACING_US);
        let Some(place) = self.answered.get_mut(usize::from(seq) % REMEMBERED) else { return 0 };
        let before = place.filter(|a| a.seq == seq && a.at >= sent);
        // Nor may it be a packet that is still on its way for the first time: a relay gets one late that its viewer misses, too.
        if now.since(before.map_or(sent, |a| a.at)) < spacing {
            self.counters.too_soon += 1;
            return 0;
        }
        let times = before.map_or(1, |a| a.times.saturating_add(1));
        let copies = times.min(MAX_COPIES);
        let fill = u128::from(self.rate) * u128::from(now.since(self.filled)) / 1_000_000;
        self.room = self.room.saturating_add(u64::try_from(fill).unwrap_or(u64::MAX)).min(self.depth);
        self.filled = now;
        let bytes = u64::from(copies) * len as u64;
        if self.room < bytes {
            self.counters.over_budget += 1;
            return 0;
        }
        self.room -= bytes;
        *place = Some(Answered { seq, at: now, times });
        self.counters.repeated += u64::from(copies);
        self.counters.bytes += bytes;
        copies
    }

    /// A number was asked for whose packet is not there any more.
    pub const fn count_gone(&mut self) {
        self.counters.gone += 1;
    }

    /// Counters.
    #[must_use]
    pub const fn counters(&self) -> RepeatCounters {
        self.counters
    }
}

/// What a sender keeps for repeats: the newest packets by number, as the caller has them.
#[derive(Debug)]
pub struct History<P> {
    slots: Vec<Option<(u16, Micros, P)>>,
}

impl<P> History<P> {
    /// Room for what goes out at `rate`, in packets of about 1,000 bytes, in a round trip of 200 ms and a budget of
    /// `budget_us`: 256 to 32,768 packets.
    #[must_use]
    pub fn new(rate: Bitrate, budget_us: u64) -> Self {
        let packets = (rate.0 / 8_000).saturating_mul(budget_us.saturating_add(200_000)) / 1_000_000;
        let slots = usize::try_from(packets).unwrap_or(usize::MAX).clamp(256, 32_768).next_power_of_two();
        Self { slots: std::iter::repeat_with(|| None).take(slots).collect() }
    }

    /// Keeps a packet.
    pub fn push(&mut self, now: Micros, seq: u16, packet: P) {
        let place = usize::from(seq) % self.slots.len().max(1);
        if let Some(slot) = self.slots.get_mut(place) {
            *slot = Some((seq, now, packet));
        }
    }

    /// The packet of a number, and when it was kept.
    #[must_use]
    pub fn get(&self, seq: u16) -> Option<(Micros, &P)> {
        let (kept, at, packet) = self.slots.get(usize::from(seq) % self.slots.len().max(1))?.as_ref()?;
        (*kept == seq).then_some((*at, packet))
    }

    /// Forgets everything: another source begins, whose numbers mean something else.
    pub fn clear(&mut self) {
        self.slots.iter_mut().for_each(|s| *s = None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(n: u64) -> Micros {
        Micros(n * 1_000)
    }

    fn repeats() -> Repeats {
        let mut r = Repeats::new(Bitrate(8_000_000), 100_000);
        r.set_round_trip(30_000);
        r
    }

    #[test]
    fn one_question_is_answered_once_and_the_next_round_trips_twice() {
        let mut r = repeats();
        let copies: Vec<u8> = [20, 30, 31, 50, 53, 60, 79].map(|t| r.admit(ms(t), 7, ms(0), 1_000)).to_vec();
        assert_eq!(copies, [0, 1, 0, 0, 2, 0, 2], "the first one came while the packet itself was on its way");
        assert_eq!(r.counters().too_soon, 4);
    }

    #[test]
    fn nothing_goes_that_would_come_too_late() {
        let mut r = repeats();
        assert_eq!(r.admit(ms(85), 7, ms(0), 1_000), 1);
        assert_eq!(r.admit(ms(86), 8, ms(0), 1_000), 0);
        assert_eq!(r.counters().too_late, 1);
    }

    #[test]
    fn repeats_take_half_of_the_rate_and_a_budgets_worth_at_once() {
        let mut r = repeats();
        let at_once = (0..200_u16).map(|s| u64::from(r.admit(ms(30), s, ms(5), 1_000))).sum::<u64>();
        assert_eq!(at_once, 100, "100 ms of 1 MB/s");
        let later = (0..1_000_u16).map(|i| u64::from(r.admit(ms(30 + u64::from(i)), 300 + i, ms(u64::from(i)), 1_000)));
        let later = later.sum::<u64>();
        assert!((495..=505).contains(&later), "{later}");
        assert!(r.counters().over_budget > 0);
    }

    #[test]
    fn a_number_that_is_used_again_is_another_packet() {
        let mut r = repeats();
        assert_eq!(r.admit(ms(30), 7, ms(0), 100), 1);
        assert_eq!(r.admit(ms(60), 7, ms(31), 100), 1, "sent after the answer");
    }

    #[test]
    fn a_packet_is_kept_until_its_place_is_taken() {
        let mut h = History::new(Bitrate(8_000_000), 56_000);
        (0..300_u16).for_each(|s| h.push(ms(u64::from(s)), s, s));
        assert_eq!(h.get(44), Some((ms(44), &44)));
        assert_eq!(h.get(43), None);
        h.clear();
        assert_eq!(h.get(299), None);
        assert_eq!(History::<()>::new(Bitrate(400_000_000), 100_000).slots.len(), 16_384);
    }
}
