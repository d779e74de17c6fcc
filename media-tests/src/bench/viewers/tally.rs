//! What one viewer got.

use super::super::figures::quantile;
use super::super::packet::{Probe, monotonic_ns};
use super::super::words::{Finished, Measured};
use super::SAMPLE;

/// Counts of one viewer.
#[derive(Debug, Default)]
pub(super) struct Tally {
    packets: u64,
    bytes: u64,
    refused: u64,
    at_begin: (u64, u64),
    counting: bool,
    /// Number of the first packet that was opened since it counts, and how many packets had come with it.
    anchor: Option<(u64, u64)>,
}

impl Tally {
    pub(super) const fn packets(&self) -> u64 {
        self.packets
    }

    /// A media packet came. Every [`SAMPLE`]th is opened.
    pub(super) fn take(&mut self, len: usize, read_ns: u64, delays: &mut Delays, open: impl FnOnce() -> Option<Probe>) {
        self.packets += 1;
        self.bytes += len as u64;
        if !self.packets.is_multiple_of(SAMPLE) {
            return;
        }
        let Some(probe) = open() else {
            self.refused += 1;
            return;
        };
        if self.counting {
            self.anchor.get_or_insert((probe.number, self.packets));
            delays.push(read_ns.saturating_sub(probe.sent_ns));
        }
    }

    pub(super) const fn begin(&mut self) {
        (self.at_begin, self.counting, self.anchor) = ((self.packets, self.bytes), true, None);
    }

    /// Adds what this viewer got since it began.
    pub(super) const fn add_to(&self, all: &mut Measured) {
        all.packets += self.packets - self.at_begin.0;
        all.bytes += self.bytes - self.at_begin.1;
    }

    /// Adds what became of the packets up to the last that the generator made. A viewer of which nothing opened since it
    /// counts missed all that the generator made, as far as anybody knows.
    pub(super) fn finish(&self, made: u64, all: &mut Finished) {
        let (first, before) = self.anchor.unwrap_or((0, self.packets));
        let expected = made.saturating_sub(first);
        let got = if self.anchor.is_some() { self.packets - before + 1 } else { 0 };
        all.expected += expected;
        all.lost += expected.saturating_sub(got);
        all.refused += self.refused;
    }
}

/// Delays of all viewers, in microseconds.
#[derive(Debug, Default)]
pub(super) struct Delays {
    values: Vec<u32>,
    counting: bool,
}

/// Delays kept at most: 64 viewers at 20 Mbit/s make 80,000 in eight seconds. Later ones are left out.
const MAX_DELAYS: usize = 1 << 20;

impl Delays {
    fn push(&mut self, ns: u64) {
        if self.counting && self.values.len() < MAX_DELAYS {
            self.values.push(u32::try_from(ns / 1_000).unwrap_or(u32::MAX));
        }
    }

    pub(super) fn begin(&mut self) {
        self.values.clear();
        self.counting = true;
    }

    pub(super) fn end(&mut self, all: &mut Measured) {
        self.counting = false;
        self.values.sort_unstable();
        let at = |share| quantile(&self.values, share);
        (all.p50_us, all.p99_us, all.p999_us) = (at(0.5), at(0.99), at(0.999));
        all.samples = self.values.len() as u64;
    }
}

/// Now, for a packet that was just read.
pub(super) fn read_now() -> u64 {
    monotonic_ns()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(lose: impl Fn(u64) -> bool) -> (Measured, Finished) {
        let (mut tally, mut delays) = (Tally::default(), Delays::default());
        let mut measured = Measured::default();
        for number in 0..10_000_u64 {
            if number == 1_000 {
                tally.begin();
                delays.begin();
            }
            if number == 9_000 {
                tally.add_to(&mut measured);
                delays.end(&mut measured);
            }
            let sent_ns = number * 1_000;
            if !lose(number) {
                tally.take(1_000, sent_ns + 70_000, &mut delays, || Some(Probe { number, sent_ns }));
            }
        }
        let mut finished = Finished::default();
        tally.finish(10_000, &mut finished);
        (measured, finished)
    }

    #[test]
    fn a_viewer_that_gets_everything_misses_nothing() {
        let (measured, finished) = run(|_| false);
        assert_eq!((measured.packets, measured.bytes, measured.p50_us, measured.p999_us), (8_000, 8_000_000, 70, 70));
        assert_eq!((measured.samples, finished.lost), (8_000_u64.div_ceil(SAMPLE), 0));
        assert!(finished.expected > 8_900, "{finished:?}");
    }

    #[test]
    fn every_packet_that_does_not_come_is_missed_in_the_middle_and_at_the_end() {
        assert_eq!(run(|n| n == 5_000).1.lost, 1);
        assert_eq!(run(|n| n >= 9_990).1.lost, 10);
        assert_eq!(run(|n| n.is_multiple_of(100) && n > 2_000).1.lost, 79);
    }

    #[test]
    fn a_viewer_that_gets_nothing_misses_everything() {
        assert_eq!(run(|_| true).1.lost, 10_000);
        assert_eq!(run(|n| n > 999).1.lost, 10_000);
    }
}
