//! This process's clock: it stood at the wall clock's time when it was made and was not set since.

use crate::measure::Stamp;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Timestamps of the kernel that are older than this were taken before somebody set the wall clock.
const KERNEL_AGE_MAX_US: i64 = 1_000_000;

/// A clock that is never set.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    origin: Instant,
    wall_us: Stamp,
}

impl Clock {
    /// Stands at the wall clock's time now.
    #[must_use]
    pub fn start() -> Self {
        Self { origin: Instant::now(), wall_us: wall_us() }
    }

    /// The time.
    #[must_use]
    pub fn now(&self) -> Stamp {
        self.wall_us + self.origin.elapsed().as_micros() as Stamp
    }

    /// A time of this clock as one to wait for.
    #[must_use]
    pub fn instant(&self, at: Stamp) -> Instant {
        self.origin + Duration::from_micros(u64::try_from(at - self.wall_us).unwrap_or(0))
    }

    /// A wall time that the kernel wrote on a packet, by this clock.
    #[must_use]
    pub fn of_kernel(&self, wall: Stamp) -> Stamp {
        let now = self.now();
        let age = wall_us() - wall;
        if (0..KERNEL_AGE_MAX_US).contains(&age) { now - age } else { now }
    }
}

fn wall_us() -> Stamp {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |t| t.as_micros() as Stamp)
}
