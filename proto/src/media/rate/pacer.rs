//! When the next packet may leave.

use crate::units::{Bitrate, Micros};

/// Packets that may leave at once, of this many bytes each: a batch for the kernel.
const BURST_PACKETS: u64 = 16;
const BURST_PACKET_BYTES: u64 = 1_250;
/// Or what the rate sends in this time, whichever is more, in microseconds.
const BURST_US: u64 = 2_000;

/// A bucket that empties at the rate. What it holds is what has left ahead of its time.
#[derive(Debug, Clone, Copy, Default)]
pub struct Pacer {
    /// Millionths of a bit.
    level: u64,
    at: Micros,
}

impl Pacer {
    /// An empty bucket: a whole burst may leave at once.
    #[must_use]
    pub const fn new() -> Self {
        Self { level: 0, at: Micros(0) }
    }

    /// Lets a packet leave and counts it; the rate may be another at each call.
    ///
    /// # Errors
    /// When there is room for it, at this rate. Nothing was counted.
    pub fn take(&mut self, now: Micros, bytes: u32, rate: Bitrate) -> Result<(), Micros> {
        let rate = rate.0.max(1);
        self.level = self.level.saturating_sub(now.since(self.at).saturating_mul(rate));
        self.at = self.at.max(now);
        let burst = (BURST_PACKETS * BURST_PACKET_BYTES * 8_000_000).max(BURST_US.saturating_mul(rate));
        let packet = u64::from(bytes) * 8_000_000;
        // A packet larger than the burst leaves when everything before it has.
        let over = self.level.saturating_add(packet).saturating_sub(burst).min(self.level);
        if over > 0 {
            return Err(now.plus(over.div_ceil(rate)));
        }
        self.level = self.level.saturating_add(packet);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends as fast as the pacer allows for so long; bytes sent, and the most in any millisecond.
    fn run(rate: Bitrate, size: u32, for_us: u64) -> (u64, u64) {
        let mut p = Pacer::new();
        let (mut now, mut sent, mut most) = (Micros(5_000_000), 0_u64, 0);
        let end = now.plus(for_us);
        let mut times = Vec::new();
        while now < end {
            match p.take(now, size, rate) {
                Ok(()) => {
                    sent += u64::from(size);
                    times.push(now.0);
                }
                Err(at) => {
                    assert!(at > now, "no progress");
                    now = at;
                }
            }
        }
        for (i, t) in times.iter().enumerate() {
            let n = times[..=i].iter().rev().take_while(|s| t - **s < 1_000).count() as u64;
            most = most.max(n * u64::from(size));
        }
        (sent, most)
    }

    #[test]
    fn the_rate_is_kept_over_a_second_and_the_burst_within_a_millisecond() {
        for (rate, size) in [(500_000, 1_200), (20_000_000, 1_200), (400_000_000, 1_200), (3_000_000, 100)] {
            let (sent, most) = run(Bitrate(rate), size, 1_000_000);
            let burst = 20_000.max(rate * 2 / 8_000);
            let want = rate / 8 + burst;
            assert!(sent.abs_diff(want) <= 2 * u64::from(size), "{rate}: {sent} of {want}");
            assert!(most <= burst + rate / 8_000 + u64::from(size), "{rate}: {most}");
        }
    }

    #[test]
    fn a_packet_larger_than_the_burst_leaves_and_a_pause_earns_no_more_than_a_burst() {
        let mut p = Pacer::new();
        assert_eq!(p.take(Micros(0), 60_000, Bitrate(1_000_000)), Ok(()));
        assert_eq!(p.take(Micros(0), 60_000, Bitrate(1_000_000)), Err(Micros(480_000)));
        assert_eq!(p.take(Micros(480_000), 60_000, Bitrate(1_000_000)), Ok(()));
        let later = Micros(100_000_000);
        let n = (0..100).take_while(|_| p.take(later, 1_250, Bitrate(1_000_000)).is_ok()).count();
        assert_eq!(n, 16);
    }

    #[test]
    fn a_clock_that_stands_or_goes_back_and_any_rate_are_no_panic() {
        let mut p = Pacer::new();
        for (now, rate) in [(9, 0), (3, u64::MAX), (u64::MAX, 1), (0, 0), (u64::MAX, u64::MAX)] {
            let _ = p.take(Micros(now), u32::MAX, Bitrate(rate));
        }
    }
}
