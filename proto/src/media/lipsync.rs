//! A publisher's clocks, as its sender reports tell them (RFC 3550 section 6.4.1): which moment an RTP timestamp means, and
//! how far its wall clock is from ours. Reports that the relay sends on a leg go by this, so that the sound and the picture
//! of one source stay as far apart as they were captured.

use super::rtcp::SenderReport;
use crate::units::{Micros, Ssrc};
use std::collections::VecDeque;

/// Reports whose way here is compared: the quickest of them says most about the clocks.
const REPORTS: usize = 16;
/// A clock that moved by more than this was set; what was known of it is forgotten. In units of 2^-32 s.
const SET_BY: u64 = 1 << 32;
/// A report older than this says nothing any more, in microseconds.
const STALE_US: u64 = 60_000_000;

/// What the reports of one stream say.
#[derive(Debug, Clone, Default)]
pub struct SourceClock {
    last: Option<(SenderReport, Micros)>,
    /// Our NTP time at arrival minus the publisher's in the report, the newest last.
    offsets: VecDeque<i64>,
}

impl SourceClock {
    /// Takes a report that came at `at`, when our clock showed `ntp`.
    pub fn handle_report(&mut self, report: &SenderReport, ntp: u64, at: Micros) {
        let offset = ntp.wrapping_sub(report.ntp).cast_signed();
        if self.offsets.back().is_some_and(|before| before.abs_diff(offset) > SET_BY) {
            self.offsets.clear();
        }
        if self.offsets.len() >= REPORTS {
            self.offsets.pop_front();
        }
        self.offsets.push_back(offset);
        self.last = Some((*report, at));
    }

    /// Our clock minus the publisher's, in units of 2^-32 s, too large by the quickest way of a report to us. Streams of one
    /// publisher share a clock: the smallest of theirs is theirs all.
    #[must_use]
    pub fn offset(&self) -> Option<i64> {
        self.offsets.iter().copied().min()
    }

    /// The RTP timestamp of the stream `ssrc` at the moment when our clock shows `ntp`, given how far the clocks are apart.
    /// None where no report of that stream came, or long ago.
    #[must_use]
    pub fn timestamp_at(&self, ssrc: Ssrc, ntp: u64, offset: i64, clock_rate: u32, now: Micros) -> Option<u32> {
        let (report, _) = self.last.filter(|(r, at)| r.ssrc == ssrc && now.since(*at) <= STALE_US)?;
        let theirs = ntp.wrapping_sub(offset.cast_unsigned());
        let elapsed = i128::from(theirs.wrapping_sub(report.ntp).cast_signed());
        let ticks = (elapsed * i128::from(clock_rate)) >> 32;
        Some(report.rtp_time.wrapping_add((ticks & 0xffff_ffff) as u32))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1 << 32;

    fn report(ssrc: u32, ntp: u64, rtp_time: u32) -> SenderReport {
        SenderReport { ssrc: Ssrc(ssrc), ntp, rtp_time, packets: 0, octets: 0 }
    }

    #[test]
    fn sound_and_picture_of_one_source_keep_their_distance() {
        // The publisher's clock is an hour and a bit behind; its reports take 20 ms here, or up to 200 ms.
        let behind = 3_600 * SECOND + 12_345;
        let (mut picture, mut sound) = (SourceClock::default(), SourceClock::default());
        let ms = |n: u64| n * SECOND / 1_000;
        for n in 0..20_u64 {
            let sent = 1_000 * SECOND + n * SECOND;
            let came = |way: u64| sent.wrapping_add(behind).wrapping_add(ms(way));
            picture.handle_report(&report(1, sent, 90_000 * n as u32), came(20 + 9 * n), Micros(n * 1_000_000));
            sound.handle_report(&report(2, sent + ms(500), 48_000 * n as u32), came(700), Micros(n * 1_000_000));
        }
        let offset = picture.offset().unwrap().min(sound.offset().unwrap());
        // What was said and shown at 1,030 s of the publisher's clock is said and shown at one moment of ours.
        let ntp = 1_030 * SECOND + offset.cast_unsigned();
        let now = Micros(20_000_000);
        assert_eq!(picture.timestamp_at(Ssrc(1), ntp, offset, 90_000, now), Some(30 * 90_000));
        assert_eq!(sound.timestamp_at(Ssrc(2), ntp, offset, 48_000, now), Some(30 * 48_000 - 24_000));
        // The quickest of the reports that are remembered took 56 ms.
        assert_eq!((offset - behind.cast_signed()) * 1_000 / SECOND.cast_signed(), 55);
    }

    #[test]
    fn timestamps_wrap_and_moments_before_the_report_are_before_it() {
        let mut c = SourceClock::default();
        c.handle_report(&report(1, 10 * SECOND, u32::MAX - 10), 10 * SECOND, Micros(0));
        let at = |ntp| c.timestamp_at(Ssrc(1), ntp, 0, 90_000, Micros(0));
        assert_eq!(at(11 * SECOND), Some(90_000 - 11));
        assert_eq!(at(9 * SECOND), Some(u32::MAX - 10 - 90_000));
    }

    #[test]
    fn another_source_an_old_report_and_none_say_nothing() {
        let mut c = SourceClock::default();
        assert_eq!((c.offset(), c.timestamp_at(Ssrc(1), 0, 0, 90_000, Micros(0))), (None, None));
        c.handle_report(&report(1, 0, 0), 0, Micros(0));
        assert_eq!(c.timestamp_at(Ssrc(2), 0, 0, 90_000, Micros(0)), None);
        assert!(c.timestamp_at(Ssrc(1), 0, 0, 90_000, Micros(STALE_US)).is_some());
        assert_eq!(c.timestamp_at(Ssrc(1), 0, 0, 90_000, Micros(STALE_US + 1)), None);
    }

    #[test]
    fn a_clock_that_was_set_is_learnt_anew() {
        let mut c = SourceClock::default();
        c.handle_report(&report(1, 100 * SECOND, 0), 100 * SECOND, Micros(0));
        c.handle_report(&report(1, 50 * SECOND, 0), 101 * SECOND, Micros(0));
        assert_eq!(c.offset(), Some((51 * SECOND).cast_signed()));
        for extreme in [0, u64::MAX, 1 << 63] {
            c.handle_report(&report(1, extreme, 7), 0, Micros(0));
            let _ = c.timestamp_at(Ssrc(1), u64::MAX, i64::MIN, u32::MAX, Micros(0));
        }
    }
}
