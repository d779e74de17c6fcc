//! Interarrival jitter (RFC 3550 section 6.4.1 and appendix A.8).

use crate::units::Micros;

/// Estimates jitter over the first packets of frames: the others have the same timestamp but were sent after it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Jitter {
    /// In 1/16 of a clock tick.
    scaled: u32,
    /// Timestamp and transit of the last first packet.
    last: Option<(u32, u32)>,
}

impl Jitter {
    /// Takes a packet that came at `now` with that RTP timestamp.
    pub fn handle_packet(&mut self, now: Micros, timestamp: u32, clock_rate: u32) {
        let arrival = u128::from(now.0) * u128::from(clock_rate) / 1_000_000;
        let transit = ((arrival & 0xffff_ffff) as u32).wrapping_sub(timestamp);
        match self.last {
            Some((same, _)) if same == timestamp => return,
            Some((_, before)) => {
                let d = transit.wrapping_sub(before).cast_signed().unsigned_abs();
                self.scaled = self.scaled.saturating_add(d).saturating_sub((self.scaled + 8) >> 4);
            }
            None => {}
        }
        self.last = Some((timestamp, transit));
    }

    /// Jitter in ticks of the RTP clock.
    #[must_use]
    pub const fn ticks(&self) -> u32 {
        self.scaled >> 4
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_even_stream_has_none_and_an_uneven_one_has_its_mean_deviation() {
        let mut even = Jitter::default();
        let mut uneven = Jitter::default();
        for i in 0..1_000_u64 {
            let timestamp = (i * 1_500) as u32;
            let at = i * 1_500 * 1_000_000 / 90_000;
            even.handle_packet(Micros(at), timestamp, 90_000);
            uneven.handle_packet(Micros(at + (i % 2) * 1_000), timestamp, 90_000);
        }
        assert!(even.ticks() <= 1, "{}", even.ticks());
        // Every step deviates by 1 ms, which is 90 ticks.
        assert!((80..=91).contains(&uneven.ticks()), "{}", uneven.ticks());
    }
}
