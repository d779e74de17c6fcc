//! Traces of a line whose rate varies, in the format of mahimahi (Netravali et al., USENIX ATC 2015): one line per
//! opportunity to send 1,500 bytes, holding its time in whole milliseconds; when the last has passed it starts anew, the last
//! time being the length of a round.

use crate::units::Micros;
use std::sync::Arc;

/// Bytes that go at one opportunity. What a packet does not need, the next one gets; what nobody needs is lost.
pub const OPPORTUNITY_BYTES: u32 = 1_500;
/// Opportunities in a trace.
pub const TRACE_MAX: usize = 4_000_000;

/// A trace: times in milliseconds that never fall, at least one, the last above 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trace(Arc<[u32]>);

/// What is wrong with a trace.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TraceError {
    /// A line that holds something else.
    #[error("line {line}: {is:?} is no time; whole milliseconds are right")]
    NoTime {
        /// Number of the line, from 1.
        line: usize,
        /// What it holds.
        is: String,
    },
    /// A time before the one above it.
    #[error("line {line}: {ms} ms is before the line above; times that never fall are right")]
    Falls {
        /// Number of the line, from 1.
        line: usize,
        /// Its time in milliseconds.
        ms: u32,
    },
    /// Nothing in it, or all at 0.
    #[error("the last time is 0 or there is none; it is the length of a round, in milliseconds")]
    NoLength,
    /// More than [`TRACE_MAX`] lines.
    #[error("more than {TRACE_MAX} lines")]
    TooLong,
}

impl Trace {
    /// Reads a trace; empty lines are passed over.
    ///
    /// # Errors
    /// Names the line at fault.
    pub fn parse(text: &str) -> Result<Self, TraceError> {
        let mut times: Vec<u32> = Vec::new();
        for (i, line) in text.lines().enumerate().filter(|(_, l)| !l.trim().is_empty()) {
            let parsed = line.trim().parse();
            let ms: u32 =
                parsed.map_err(|_| TraceError::NoTime { line: i + 1, is: line.chars().take(40).collect() })?;
            if times.last().is_some_and(|before| ms < *before) {
                return Err(TraceError::Falls { line: i + 1, ms });
            }
            if times.len() >= TRACE_MAX {
                return Err(TraceError::TooLong);
            }
            times.push(ms);
        }
        if times.last().is_none_or(|ms| *ms == 0) {
            return Err(TraceError::NoLength);
        }
        Ok(Self(times.into()))
    }

    /// Length of a round in milliseconds; never 0.
    #[must_use]
    pub fn round_ms(&self) -> u64 {
        self.0.last().copied().unwrap_or(1).max(1).into()
    }

    /// Mean rate in bits per second.
    #[must_use]
    pub fn mean_bits_per_s(&self) -> u64 {
        self.0.len() as u64 * u64::from(OPPORTUNITY_BYTES) * 8 * 1_000 / self.round_ms()
    }
}

/// A place in a trace that goes round and round.
#[derive(Debug, Clone)]
pub(super) struct Cursor {
    trace: Trace,
    round: u64,
    index: usize,
}

impl Cursor {
    pub(super) const fn new(trace: Trace) -> Self {
        Self { trace, round: 0, index: 0 }
    }

    /// When the next opportunity comes.
    pub(super) fn at(&self) -> Micros {
        let within = self.trace.0.get(self.index).copied().unwrap_or(0);
        Micros((self.round * self.trace.round_ms() + u64::from(within)) * 1_000)
    }

    /// Past the next opportunity.
    pub(super) fn step(&mut self) {
        self.index += 1;
        if self.index >= self.trace.0.len() {
            self.index = 0;
            self.round += 1;
        }
    }

    /// Past all opportunities before `now`, without going through them.
    pub(super) fn seek(&mut self, now: Micros) {
        if self.at() >= now {
            return;
        }
        let ms = now.0.div_ceil(1_000);
        // At a seam the last opportunity of a round and, where there is one, the first of the next fall together.
        let round = ms.saturating_sub(1) / self.trace.round_ms();
        let within = ms - round * self.trace.round_ms();
        let index = self.trace.0.partition_point(|t| u64::from(*t) < within);
        if (round, index) > (self.round, self.index) {
            (self.round, self.index) = (round, index);
        }
        if self.index >= self.trace.0.len() {
            self.index = 0;
            self.round += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_go_round() {
        let mut c = Cursor::new(Trace::parse("0\n5\n5\n\n10\n").unwrap());
        let mut times = Vec::new();
        for _ in 0..9 {
            times.push(c.at().0 / 1_000);
            c.step();
        }
        assert_eq!(times, [0, 5, 5, 10, 10, 15, 15, 20, 20]);
        assert_eq!(c.trace.mean_bits_per_s(), 4 * 1_500 * 8 * 100);
    }

    #[test]
    fn seeking_is_the_same_as_stepping() {
        for text in ["0\n5\n5\n10", "3\n7\n7\n11", "10"] {
            for us in (0..60_000).step_by(250) {
                let mut stepped = Cursor::new(Trace::parse(text).unwrap());
                while stepped.at() < Micros(us) {
                    stepped.step();
                }
                let mut sought = Cursor::new(stepped.trace.clone());
                sought.seek(Micros(us));
                assert_eq!((sought.round, sought.index), (stepped.round, stepped.index), "{text:?} at {us} us");
            }
        }
    }

    #[test]
    fn what_is_no_trace_is_refused_by_line() {
        for (text, want) in [
            ("1\nx\n", "line 2: \"x\" is no time"),
            ("1\n-2\n", "line 2"),
            ("5\n\n4\n", "line 3: 4 ms is before"),
            ("", "the last time"),
            ("0\n0\n", "the last time"),
        ] {
            let error = Trace::parse(text).unwrap_err().to_string();
            assert!(error.starts_with(want), "{error}");
        }
    }
}
