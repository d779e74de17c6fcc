//! Real time: the wall clock for capture times, and the pace of a source.

pub(super) use crate::net::api::wall_now;
use std::time::{Duration, Instant};

/// Longest single sleep, so that a stop is noticed.
const MAX_SLEEP: Duration = Duration::from_millis(50);

/// Turns a source's own time (nanoseconds from its first frame) into points of the monotonic clock.
#[derive(Debug)]
pub(super) struct Pacer {
    origin: Instant,
}

impl Pacer {
    /// Time 0 of the source is now.
    pub(super) fn start() -> Self {
        Self { origin: Instant::now() }
    }

    /// Nanoseconds since time 0.
    pub(super) fn elapsed_ns(&self) -> u64 {
        u64::try_from(self.origin.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// Nanoseconds by which the source is behind at its time `at_ns`; 0 when it is early.
    pub(super) fn late_ns(&self, at_ns: u64) -> u64 {
        self.elapsed_ns().saturating_sub(at_ns)
    }

    /// Sleeps until `at_ns` or until `stopped`; returns false where it was stopped.
    pub(super) fn wait_until(&self, at_ns: u64, stopped: impl Fn() -> bool) -> bool {
        loop {
            if stopped() {
                return false;
            }
            let left = at_ns.saturating_sub(self.elapsed_ns());
            if left == 0 {
                return true;
            }
            std::thread::sleep(Duration::from_nanos(left).min(MAX_SLEEP));
        }
    }
}
