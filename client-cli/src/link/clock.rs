//! This process's clock: it stood at the wall clock's time when it was made and was not set since.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use trocar_link::measure::Stamp;

/// Timestamps of the kernel that are older than this were taken before somebody set the wall clock.
const KERNEL_AGE_MAX_US: i64 = 1_000_000;

/// A clock that is never set.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    origin: Instant,
    wall_us: Stamp,
}

impl Clock {
    pub(super) fn start() -> Self {
        Self { origin: Instant::now(), wall_us: wall_us() }
    }

    pub(super) fn now(&self) -> Stamp {
        self.wall_us + self.origin.elapsed().as_micros() as Stamp
    }

    /// A time of this clock as one to wait for.
    pub(super) fn instant(&self, at: Stamp) -> Instant {
        self.origin + Duration::from_micros(u64::try_from(at - self.wall_us).unwrap_or(0))
    }

    /// A wall time that the kernel wrote on a packet, by this clock.
    pub(super) fn of_kernel(&self, wall: Stamp) -> Stamp {
        let now = self.now();
        let age = wall_us() - wall;
        if (0..KERNEL_AGE_MAX_US).contains(&age) { now - age } else { now }
    }
}

fn wall_us() -> Stamp {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |t| t.as_micros() as Stamp)
}
