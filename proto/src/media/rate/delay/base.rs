//! The delay of the empty line.

use std::collections::VecDeque;

/// The smallest delay of this long counts, in seconds: a clock that drifts by 100 ppm moves it by 2 ms, a route that
/// became longer is forgotten.
const WINDOW_S: u64 = 20;

/// Smallest delay over a sliding window, one value a second.
#[derive(Debug, Clone, Default)]
pub(super) struct Base {
    /// Second and smallest delay; both rise from front to back, so there are [`WINDOW_S`] + 1 at most.
    low: VecDeque<(u64, i64)>,
}

impl Base {
    /// Takes the delay of a packet that was sent then.
    pub(super) fn take(&mut self, sent_us: u64, delay: i64) {
        let second = sent_us / 1_000_000;
        if self.low.back().is_some_and(|(s, d)| *s >= second && *d <= delay) {
            return;
        }
        while self.low.back().is_some_and(|(_, d)| *d >= delay) {
            self.low.pop_back();
        }
        let second = self.low.back().map_or(second, |(s, _)| second.max(*s));
        self.low.push_back((second, delay));
        while self.low.front().is_some_and(|(s, _)| s + WINDOW_S < second) {
            self.low.pop_front();
        }
    }

    /// The delay of the empty line, by the receiver's clock.
    pub(super) fn get(&self) -> Option<i64> {
        self.low.front().map(|(_, d)| *d)
    }

    /// The line is another one: this is its delay.
    pub(super) fn begin(&mut self, sent_us: u64, delay: i64) {
        self.low.clear();
        self.take(sent_us, delay);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_of_twenty_seconds_counts_and_the_memory_is_bounded() {
        let mut b = Base::default();
        let mut rng = crate::link::rng::Rng::new(4);
        let mut all: Vec<(u64, i64)> = Vec::new();
        for i in 0..60_000_u64 {
            // A clock that drifts upwards by 100 ppm, with a jump down of the route in the middle.
            let delay = (i / 10) as i64 + i64::from(rng.below(3_000)) - if i > 30_000 { 9_000 } else { 0 };
            b.take(i * 1_000, delay);
            all.push((i / 1_000, delay));
            let want = all.iter().rev().take_while(|(s, _)| s + WINDOW_S >= i / 1_000).map(|a| a.1).min();
            assert_eq!(b.get(), want);
            assert!(b.low.len() as u64 <= WINDOW_S + 1);
        }
        b.begin(60_000_000, 77_000);
        assert_eq!(b.get(), Some(77_000));
    }
}
