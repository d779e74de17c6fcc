//! When packets leave the generator: all of a frame at once, or evenly spread.

use super::packet::{FRAME_RATE, PACKET, monotonic_ns};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Packets leave in groups this far apart at least where they are paced, in nanoseconds: a thread cannot sleep for much less.
const GROUP_NS: u64 = 500_000;

/// How the packets of a frame leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pattern {
    /// All at once, 60 times a second.
    Bursts,
    /// Evenly spread over the time between two frames.
    Paced,
}

/// A stream's rate and pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Schedule {
    /// Bits per second of RTP packets.
    pub bits: u64,
    /// When they leave.
    pub pattern: Pattern,
}

impl Schedule {
    /// Packets of each frame.
    #[must_use]
    pub fn packets_per_frame(self) -> u32 {
        let per_frame = self.bits as f64 / (FRAME_RATE * 8 * PACKET as u64) as f64;
        per_frame.round().max(1.0) as u32
    }

    /// How many packets are due so long after the start.
    #[must_use]
    pub fn due(self, elapsed_ns: u64) -> u64 {
        let per_frame = u64::from(self.packets_per_frame());
        match self.pattern {
            Pattern::Bursts => (elapsed_ns * FRAME_RATE / 1_000_000_000 + 1) * per_frame,
            Pattern::Paced => {
                let group = elapsed_ns / GROUP_NS + 1;
                group * GROUP_NS * FRAME_RATE * per_frame / 1_000_000_000
            }
        }
    }

    /// When it is worth looking again, in nanoseconds after the start.
    #[must_use]
    pub fn next(self, elapsed_ns: u64) -> u64 {
        match self.pattern {
            Pattern::Bursts => (elapsed_ns * FRAME_RATE / 1_000_000_000 + 1) * 1_000_000_000 / FRAME_RATE + 1,
            Pattern::Paced => (elapsed_ns / GROUP_NS + 1) * GROUP_NS,
        }
    }

    /// Calls `send` with how many packets are due now, until it says that it is enough.
    pub fn run(self, mut send: impl FnMut(u64) -> bool) {
        let start = monotonic_ns();
        let mut sent = 0;
        loop {
            let elapsed = monotonic_ns() - start;
            let due = self.due(elapsed).saturating_sub(sent);
            if !send(due) {
                return;
            }
            sent += due;
            let wait = self.next(elapsed).saturating_sub(monotonic_ns() - start);
            std::thread::sleep(Duration::from_nanos(wait));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_patterns_send_the_same_number_of_packets_in_the_long_run() {
        for bits in [20_000_000, 50_000_000, 400_000_000] {
            let burst = Schedule { bits, pattern: Pattern::Bursts };
            let paced = Schedule { pattern: Pattern::Paced, ..burst };
            let rate = (burst.packets_per_frame() as usize * 60 * 8 * PACKET) as f64 / bits as f64;
            assert!((0.98..1.02).contains(&rate), "{rate}");
            let (a, b) = (burst.due(9_999_999_999), paced.due(9_999_999_999));
            assert!(a.abs_diff(b) <= u64::from(burst.packets_per_frame()), "{a} {b}");
            assert_eq!(burst.due(0), u64::from(burst.packets_per_frame()));
            assert_eq!(burst.due(16_666_666), burst.due(0));
            assert_eq!(burst.due(burst.next(0)), 2 * burst.due(0));
        }
    }
}
