//! Clock offset between two of ours: four-timestamp exchange (RFC 5905 section 8), minimum round trip of the last 30 s.

use crate::units::{Micros, WallMicros};
use std::collections::VecDeque;

/// How long a sample counts, in microseconds.
pub const WINDOW_US: u64 = 30_000_000;
/// How many samples are kept at most; one a second fills half of it.
pub const MAX_SAMPLES: usize = 64;
/// Largest uncertainty that is told to others, in microseconds: what is known less well says nothing about an age.
pub const MAX_UNCERTAINTY_US: u64 = 60_000_000;
/// Largest offset that is told to others, in microseconds: ten years, beyond which a clock was never set.
pub const MAX_OFFSET_US: u64 = 3_652 * 86_400 * 1_000_000;

/// What is known about the other side's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Offset {
    /// Other clock minus ours, in microseconds.
    pub offset_us: i64,
    /// Half of the round trip of the sample that the offset came from, in microseconds: the true offset is within it.
    pub uncertainty_us: u64,
}

impl Offset {
    /// Within [`MAX_OFFSET_US`] and [`MAX_UNCERTAINTY_US`]: may be told to others, and is taken from them.
    #[must_use]
    pub const fn is_plausible(self) -> bool {
        self.offset_us.unsigned_abs() <= MAX_OFFSET_US && self.uncertainty_us <= MAX_UNCERTAINTY_US
    }
}

#[derive(Debug, Clone, Copy)]
struct Sample {
    at: Micros,
    rtt_us: u64,
    offset_us: i64,
}

/// Keeps the exchanges of the last 30 s and answers from the quickest.
#[derive(Debug, Default)]
pub struct ClockFilter {
    samples: VecDeque<Sample>,
}

/// The four timestamps of one exchange.
#[derive(Debug, Clone, Copy)]
pub struct Exchange {
    /// Our clock when the question left.
    pub t0: WallMicros,
    /// Their clock when it came.
    pub t1: WallMicros,
    /// Their clock when the answer left.
    pub t2: WallMicros,
    /// Our clock when the answer came.
    pub t3: WallMicros,
}

impl ClockFilter {
    /// Takes one exchange. One whose round trip would be negative (a clock was set meanwhile) is dropped.
    pub fn handle_exchange(&mut self, now: Micros, e: Exchange) {
        let rtt = e.t3.signed_since(e.t0).wrapping_sub(e.t2.signed_since(e.t1));
        let Ok(rtt_us) = u64::try_from(rtt) else { return };
        let forth = i128::from(e.t1.signed_since(e.t0));
        let back = i128::from(e.t2.signed_since(e.t3));
        let Ok(offset_us) = i64::try_from((forth + back) / 2) else { return };
        if self.samples.len() >= MAX_SAMPLES {
            self.samples.pop_front();
        }
        self.samples.push_back(Sample { at: now, rtt_us, offset_us });
    }

    /// Forgets all exchanges: a clock was set since, and what they say holds no longer.
    pub fn clear(&mut self) {
        self.samples.clear();
    }

    /// The offset by the quickest exchange of the last 30 s; none where there was none.
    #[must_use]
    pub fn offset(&self, now: Micros) -> Option<Offset> {
        self.samples
            .iter()
            .filter(|s| now.since(s.at) <= WINDOW_US)
            .min_by_key(|s| s.rtt_us)
            .map(|s| Offset { offset_us: s.offset_us, uncertainty_us: s.rtt_us.div_ceil(2) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exchange(start: u64, forth: u64, back: u64, ahead: i64) -> Exchange {
        let t0 = WallMicros(start);
        let t1 = WallMicros(start + forth).offset(ahead);
        let t2 = t1.offset(10);
        let t3 = WallMicros(start + forth + 10 + back);
        Exchange { t0, t1, t2, t3 }
    }

    #[test]
    fn the_quickest_exchange_wins_and_its_error_is_within_half_its_round_trip() {
        let mut f = ClockFilter::default();
        f.handle_exchange(Micros(0), exchange(1_000_000, 50_000, 1_000, 7_000_000));
        f.handle_exchange(Micros(1), exchange(2_000_000, 300, 500, 7_000_000));
        let o = f.offset(Micros(2)).unwrap();
        assert_eq!(o.uncertainty_us, 400);
        assert!((o.offset_us - 7_000_000).unsigned_abs() <= o.uncertainty_us);
    }

    #[test]
    fn samples_age_out_after_thirty_seconds() {
        let mut f = ClockFilter::default();
        f.handle_exchange(Micros(0), exchange(1_000_000, 10, 10, 5));
        assert!(f.offset(Micros(WINDOW_US)).is_some());
        assert!(f.offset(Micros(WINDOW_US + 1)).is_none());
    }

    #[test]
    fn a_cleared_filter_knows_nothing_until_the_next_exchange() {
        let mut f = ClockFilter::default();
        f.handle_exchange(Micros(0), exchange(1_000_000, 10, 10, 5));
        f.clear();
        assert!(f.offset(Micros(0)).is_none());
        // A slower exchange counts again at once: no quicker one from before stands in its way.
        f.handle_exchange(Micros(1), exchange(2_000_000, 400, 400, -9_000));
        assert_eq!(f.offset(Micros(1)), Some(Offset { offset_us: -9_000, uncertainty_us: 400 }));
    }

    #[test]
    fn offsets_of_more_than_ten_years_or_a_minute_of_doubt_are_not_plausible() {
        let plausible = |offset_us, uncertainty_us| Offset { offset_us, uncertainty_us }.is_plausible();
        let ten_years = MAX_OFFSET_US.cast_signed();
        assert!(plausible(ten_years, MAX_UNCERTAINTY_US) && plausible(-ten_years, 0));
        assert!(!plausible(ten_years + 1, 0) && !plausible(-ten_years - 1, 0) && !plausible(i64::MIN, 0));
        assert!(!plausible(0, MAX_UNCERTAINTY_US + 1) && !plausible(0, u64::MAX));
    }

    #[test]
    fn an_exchange_during_which_a_clock_was_set_is_dropped() {
        let mut f = ClockFilter::default();
        let mut e = exchange(1_000_000, 10, 10, 0);
        e.t3 = WallMicros(900_000);
        f.handle_exchange(Micros(0), e);
        assert!(f.offset(Micros(0)).is_none());
    }
}
