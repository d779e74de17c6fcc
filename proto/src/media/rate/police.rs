//! Nobody sends more than was granted at the cost of others: whole frames of what is too much are dropped.

use crate::units::{Bitrate, Micros};

/// What a feed may send above its grant over a second, in per cent of the grant: repairs and a key frame.
const ALLOWED_PERCENT: u64 = 150;
/// A single frame may not go beyond this, begun or not.
const FRAME_PERCENT: u64 = 300;
/// The second, in slots.
const SLOTS: usize = 20;
const SLOT_US: u64 = 1_000_000 / SLOTS as u64;

/// Watches one feed. Loss policy: frames that begin while the last second is over 1.5 × the grant are dropped whole.
#[derive(Debug, Clone)]
pub struct Police {
    grant: Bitrate,
    /// Bytes let through, by slot of time.
    slots: [u64; SLOTS],
    /// Number of the newest slot since the clock's origin.
    newest: u64,
    sum: u64,
    dropping: bool,
    begun: bool,
    dropped_packets: u64,
    dropped_bytes: u64,
    dropped_frames: u64,
}

impl Police {
    /// Watches a feed that was granted so much.
    #[must_use]
    pub const fn new(grant: Bitrate) -> Self {
        Self {
            grant,
            slots: [0; SLOTS],
            newest: 0,
            sum: 0,
            dropping: false,
            begun: false,
            dropped_packets: 0,
            dropped_bytes: 0,
            dropped_frames: 0,
        }
    }

    /// Whether a packet goes on. `frame_start`: it is the first that came of its frame.
    pub fn admit(&mut self, now: Micros, bytes: u32, frame_start: bool) -> bool {
        self.advance(now);
        if frame_start || !self.begun {
            // The first frame of all goes on in any case: it is what everybody waits for.
            self.dropping = self.begun && self.sum >= self.allowance(ALLOWED_PERCENT);
            self.begun = true;
            self.dropped_frames += u64::from(self.dropping);
        } else if !self.dropping && self.sum >= self.allowance(FRAME_PERCENT) {
            self.dropping = true;
            self.dropped_frames += 1;
        }
        self.count(bytes, !self.dropping);
        !self.dropping
    }

    /// Whether a packet goes on whose frame began before the newest one: as its frame does, but never beyond what a single
    /// frame may have.
    pub fn admit_late(&mut self, now: Micros, bytes: u32, frame_goes_on: bool) -> bool {
        self.advance(now);
        let goes = frame_goes_on && self.sum < self.allowance(FRAME_PERCENT);
        self.count(bytes, goes);
        goes
    }

    /// Whether a frame that begins now goes on, for one that is not the newest: what becomes of that one is not touched.
    pub fn has_room(&mut self, now: Micros) -> bool {
        self.advance(now);
        self.sum < self.allowance(ALLOWED_PERCENT)
    }

    fn count(&mut self, bytes: u32, goes: bool) {
        if !goes {
            self.dropped_packets += 1;
            self.dropped_bytes += u64::from(bytes);
            return;
        }
        self.sum += u64::from(bytes);
        if let Some(slot) = slot_of(&mut self.slots, self.newest) {
            *slot += u64::from(bytes);
        }
    }

    /// What was let through within the last second, bits per second.
    #[must_use]
    pub const fn rate(&self) -> Bitrate {
        Bitrate(self.sum.saturating_mul(8))
    }

    /// The grant.
    #[must_use]
    pub const fn grant(&self) -> Bitrate {
        self.grant
    }

    /// Packets dropped so far.
    #[must_use]
    pub const fn dropped_packets(&self) -> u64 {
        self.dropped_packets
    }

    /// Their bytes.
    #[must_use]
    pub const fn dropped_bytes(&self) -> u64 {
        self.dropped_bytes
    }

    /// Frames that were dropped, or cut off beyond 3 × the grant.
    #[must_use]
    pub const fn dropped_frames(&self) -> u64 {
        self.dropped_frames
    }

    /// Bytes of a second.
    const fn allowance(&self, percent: u64) -> u64 {
        self.grant.0.saturating_mul(percent) / 800
    }

    fn advance(&mut self, now: Micros) {
        let slot = now.0 / SLOT_US;
        // Each turn empties one slot; after a whole second all are empty.
        for n in (self.newest + 1..=slot).take(SLOTS) {
            if let Some(old) = slot_of(&mut self.slots, n) {
                self.sum -= *old;
                *old = 0;
            }
        }
        self.newest = self.newest.max(slot);
    }
}

fn slot_of(slots: &mut [u64; SLOTS], number: u64) -> Option<&mut u64> {
    slots.get_mut((number % SLOTS as u64) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRANT: Bitrate = Bitrate(8_000_000);

    /// Frames of ten packets, 50 a second, at so many times the grant; per second: frames whole, in parts, dropped.
    fn run(p: &mut Police, times: f64, from_s: u64, seconds: u64) -> Vec<(u32, u32, u32)> {
        let bytes = (1_000_000.0 * times / 500.0) as u32;
        let second = |s: u64| {
            let mut out = (0, 0, 0);
            for f in 0..50 {
                let start = Micros((from_s + s) * 1_000_000 + f * 20_000);
                match (0..10).filter(|i| p.admit(start.plus(i * 100), bytes, *i == 0)).count() {
                    10 => out.0 += 1,
                    0 => out.2 += 1,
                    _ => out.1 += 1,
                }
            }
            out
        };
        (0..seconds).map(second).collect()
    }

    #[test]
    fn up_to_one_and_a_half_times_the_grant_nothing_is_dropped_for_a_minute() {
        for times in [0.1, 1.0, 1.45] {
            let mut p = Police::new(GRANT);
            assert!(run(&mut p, times, 0, 60).iter().all(|s| *s == (50, 0, 0)), "{times}");
            assert_eq!(p.dropped_packets(), 0);
        }
    }

    #[test]
    fn above_it_whole_frames_are_dropped_after_most_of_a_second_and_the_rest_is_one_and_a_half_times_the_grant() {
        for times in [2.0_f64, 2.9] {
            let mut p = Police::new(GRANT);
            let seconds = run(&mut p, times, 0, 20);
            assert!(seconds.iter().all(|s| s.1 == 0), "a frame in parts: {seconds:?}");
            let kept: u32 = seconds.iter().map(|s| s.0).sum();
            let rate = f64::from(kept) / 20.0 * times / 50.0;
            assert!((1.45..1.65).contains(&rate), "{rate} of the grant at {times}");
            let dropped: u32 = seconds.iter().map(|s| s.2).sum();
            assert_eq!((p.dropped_frames(), p.dropped_packets()), (dropped.into(), u64::from(dropped) * 10));
            // And nothing is held against it a second after it has stopped.
            assert_eq!(run(&mut p, 1.0, 21, 1), vec![(50, 0, 0)]);
        }
    }

    #[test]
    fn the_first_frame_goes_whatever_its_size_and_one_without_end_is_cut_off() {
        let mut p = Police::new(GRANT);
        let first = (0..2_000).filter(|i| p.admit(Micros(*i), 1_200, *i == 0)).count();
        assert_eq!(first, 2_000, "2.4 MB of an allowance of 1.5 MB");
        assert!(!p.admit(Micros(5_000), 1_200, true));
        let mut endless = Police::new(GRANT);
        let n = (0..10_000).filter(|i| endless.admit(Micros(*i), 1_200, false)).count();
        assert_eq!(n, 2_500, "3 MB");
        assert_eq!(endless.dropped_frames(), 1);
    }

    #[test]
    fn a_clock_that_jumps_is_no_panic() {
        let mut p = Police::new(Bitrate(0));
        for at in [7, u64::MAX, 0, u64::MAX / 2] {
            p.admit(Micros(at), u32::MAX, true);
        }
    }
}
