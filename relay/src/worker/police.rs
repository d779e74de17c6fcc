//! Policing of feeds at their grants: who sends more than was granted loses whole frames, so that others lose nothing.

use super::state::FeedEntry;
use crate::control::rates::{Bucket, Rate};
use trocar_proto::media::rate::Police;
use trocar_proto::media::rtp::Header;
use trocar_proto::units::{Bitrate, Micros};

/// Frames whose fate is remembered, for packets that come out of order or as repairs: 266 ms at 60 Hz.
const REMEMBERED: usize = 16;
/// A frame that is no further behind the newest is older than it, in ticks of its clock: two seconds at 90 kHz. What lies further
/// behind is another source, whose times begin anywhere.
const OLDER: u32 = 180_000;
/// The log tells of one feed at most this often, in microseconds.
const LOG_EVERY_US: u64 = 10_000_000;

/// RTCP packets of one peer, or of one native viewer, that are looked at: 16 times what a browser sends at 5 % loss. Loss policy: those
/// beyond are dropped, and counted; what they say is said again.
const RTCP: Rate = Rate { burst: 1_000, per_second: 4_000 };

/// Bounds the RTCP of one peer, or of one native viewer: whoever asks as fast as it can takes no time from the others. It stands behind
/// the authentication, so that nobody uses up another's.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RtcpPolice(Bucket);

impl RtcpPolice {
    /// With all of it.
    pub(crate) const fn new(now: Micros) -> Self {
        Self(Bucket::full(now, RTCP))
    }

    /// Whether one more is looked at.
    pub(crate) fn admit(&mut self, now: Micros) -> bool {
        self.0.take(now, RTCP, 0)
    }
}

/// Watches a feed packet by packet. A frame is what has one RTP time.
pub(crate) struct FeedPolice {
    police: Police,
    /// Times of the newest frames and whether they go on, the newest first; behind another source's those of the one before.
    frames: [Option<(u32, bool)>; REMEMBERED],
    /// When the log told of it last, and how many packets had been dropped then.
    told: Option<Micros>,
    told_packets: u64,
}

impl FeedPolice {
    pub(crate) const fn new(grant: Bitrate) -> Self {
        Self { police: Police::new(grant), frames: [None; REMEMBERED], told: None, told_packets: 0 }
    }

    /// Packets dropped so far.
    pub(crate) const fn dropped(&self) -> u64 {
        self.police.dropped_packets()
    }

    /// Whether a packet goes on.
    fn admit(&mut self, at: Micros, timestamp: u32, bytes: usize) -> bool {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let [newest, ..] = self.frames;
        if newest.is_some_and(|(t, _)| t == timestamp) {
            let goes = self.police.admit(at, bytes, false);
            if let Some(Some((_, admitted))) = self.frames.first_mut() {
                *admitted &= goes;
            }
            return goes;
        }
        // A packet of a frame before goes its frame's way.
        if let Some((_, admitted)) = self.frames.iter().flatten().find(|(t, _)| *t == timestamp) {
            return self.police.admit_late(at, bytes, *admitted);
        }
        if newest.is_some_and(|(t, _)| is_older(timestamp, t)) {
            // Its frame was lost but for this, is shown before the newest one, or is forgotten.
            let goes = self.police.has_room(at);
            self.remember(timestamp, goes);
            return self.police.admit_late(at, bytes, goes);
        }
        let goes = self.police.admit(at, bytes, true);
        self.put(0, timestamp, goes);
        goes
    }

    /// Remembers a frame at its place by time, where it is not older than all of those.
    fn remember(&mut self, timestamp: u32, goes: bool) {
        let younger = |f: &Option<(u32, bool)>| f.is_some_and(|(t, _)| is_older(timestamp, t));
        let place = self.frames.iter().take_while(|f| younger(f)).count();
        self.put(place, timestamp, goes);
    }

    fn put(&mut self, place: usize, timestamp: u32, goes: bool) {
        let Some(rest) = self.frames.get_mut(place..) else { return };
        if let Some(last) = rest.last_mut() {
            *last = Some((timestamp, goes));
            rest.rotate_right(1);
        }
    }

    /// What to tell the log now, if anything: packets dropped since it was told last.
    fn news(&mut self, at: Micros) -> Option<u64> {
        if self.told.is_some_and(|t| at.since(t) < LOG_EVERY_US) {
            return None;
        }
        let all = self.dropped();
        let dropped = all - std::mem::replace(&mut self.told_packets, all);
        self.told = Some(at);
        Some(dropped)
    }
}

const fn is_older(timestamp: u32, than: u32) -> bool {
    let behind = than.wrapping_sub(timestamp);
    behind > 0 && behind <= OLDER
}

impl FeedEntry {
    /// Whether a packet is within what its feed was granted.
    pub(super) fn is_granted(&mut self, at: Micros, header: &Header, packet: &[u8]) -> bool {
        if self.police.admit(at, header.timestamp, packet.len()) {
            return true;
        }
        if let Some(dropped) = self.police.news(at) {
            let (granted, taken) = (self.descriptor.max_bitrate.0, self.police.police.rate().0);
            tracing::warn!(
                session = %self.key.session, feed = %self.key.feed, dropped, granted, taken,
                "the feed sends more than 1.5 times its grant for a second: whole frames are dropped (packets, bit/s)"
            );
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Frames of ten packets at 50 a second, at so many times the grant of 8 Mbit/s, for so many seconds; the times of those
    /// that went on whole. None goes on in parts.
    fn run(p: &mut FeedPolice, times: u32, seconds: u32, late: bool) -> Vec<u32> {
        let bytes = (2_000 * times) as usize;
        let mut goes = |frame: u32, packet: u32| {
            let at = Micros(u64::from(frame) * 20_000 + u64::from(packet) * 100);
            p.admit(at, frame * 1_800, bytes)
        };
        let mut whole = Vec::new();
        let mut last_of_before: Option<(u32, usize)> = None;
        for frame in 0..50 * seconds {
            let (first, rest) = (goes(frame, 0), (1..if late { 9 } else { 10 }).filter(|i| goes(frame, *i)).count());
            let mut came = usize::from(first) + rest;
            if late && let Some((before, n)) = last_of_before.replace((frame, came)) {
                // The last packet of the frame before comes after the first of this one.
                came = n + usize::from(goes(before, 10));
                if came == 10 {
                    whole.push(before);
                }
            } else if came == 10 {
                whole.push(frame);
            }
            assert!(
                matches!(came, 0 | 10) || late && last_of_before.is_some_and(|(f, _)| f == 0),
                "{came} of frame {frame}"
            );
        }
        whole
    }

    #[test]
    fn within_the_grant_every_frame_goes_and_above_it_whole_frames_are_dropped() {
        let mut p = FeedPolice::new(Bitrate(8_000_000));
        assert_eq!(run(&mut p, 1, 10, false).len(), 500);
        assert_eq!(p.dropped(), 0);
        for late in [false, true] {
            let mut p = FeedPolice::new(Bitrate(8_000_000));
            let n = run(&mut p, 3, 10, late).len();
            assert!((230..280).contains(&n), "{n} of 500 frames at three times the grant");
        }
    }

    #[test]
    fn a_repair_that_comes_late_leaves_the_frames_under_way_whole() {
        // 60 Hz at the limit; between two halves of each frame come packets of frames before it. The time wraps.
        let mut p = FeedPolice::new(Bitrate(8_000_000));
        let time = |frame: u32| frame.wrapping_mul(1_500).wrapping_add(u32::MAX - 150_000);
        let (mut whole, mut late) = (0, 0);
        for frame in 0..600_u32 {
            let mut goes = |of: u32, us: u64, bytes: usize| {
                let at = Micros(u64::from(frame) * 16_667 + us);
                p.admit(at, time(of), bytes)
            };
            let first = (0..10).filter(|i| goes(frame, *i, 1_250)).count();
            for back in [3, 5, 7, 9, 12, 40] {
                late += usize::from(frame >= back && goes(frame - back, 50, 100));
            }
            let all = first + (0..10).filter(|i| goes(frame, 100 + *i, 1_250)).count();
            assert!(matches!(all, 0 | 20), "{all} of frame {frame}");
            whole += all / 20;
        }
        assert!((500..600).contains(&whole), "{whole} of 600 frames");
        assert!(late > 2_500, "{late} of 3,524 repairs");
    }

    #[test]
    fn frames_that_are_shown_before_the_newest_are_dropped_whole_as_well_and_another_source_is_the_newest() {
        let mut p = FeedPolice::new(Bitrate(8_000_000));
        let mut whole = 0;
        // Each picture of four comes first that is shown last, at three times the grant.
        for n in 0..500_u32 {
            let shown = n / 4 * 4 + [3, 0, 1, 2][(n % 4) as usize];
            let came = (0..10_u32).filter(|i| p.admit(Micros(u64::from(n * 20_000 + i * 100)), shown * 1_800, 6_000));
            let came = came.count();
            assert!(matches!(came, 0 | 10), "{came} of picture {n}");
            whole += came / 10;
        }
        assert!((230..280).contains(&whole), "{whole} of 500");
        // The publisher is started anew; its times are far behind, and its frames are judged like any others.
        let start = 500 * 20_000;
        let mut again = 0;
        for n in 0..500_u32 {
            let at = |i: u32| Micros(u64::from(start + n * 20_000 + i * 100));
            let came = (0..10_u32).filter(|i| p.admit(at(*i), 3_000_000_000 + n * 1_800, 6_000)).count();
            assert!(matches!(came, 0 | 10), "{came} of frame {n}");
            again += came / 10;
        }
        assert!((230..280).contains(&again), "{again} of 500");
    }

    #[test]
    fn the_log_tells_once_in_ten_seconds_what_was_dropped_since() {
        let mut p = FeedPolice::new(Bitrate(8_000));
        let mut told = Vec::new();
        for t in 0..250_u32 {
            let at = Micros(u64::from(t) * 100_000);
            if !p.admit(at, t * 90, 1_000) {
                told.extend(p.news(at));
            }
        }
        assert_eq!(told.len(), 3);
        assert_eq!(told[0], 1);
        assert!(told[1] > 50, "{told:?}");
    }
}
