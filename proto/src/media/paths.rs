//! One feed over two paths: which packet is the first copy, and how each path does (as SMPTE ST 2022-7 has it for RTP: the
//! same packets under the same numbers on both). A path may be behind the other by [`MAX_SKEW_US`].

use super::seq::SeqExtender;
use super::window::Window;
use crate::session::api::MAX_PATHS;
use crate::units::{Micros, SeqNo, Ssrc};

/// How far one path may be behind the other, in microseconds, so that what one lost still comes in time by the other.
pub const MAX_SKEW_US: u64 = 50_000;
/// Numbers of which it is known whether they came, in words of 64: more than half a second at 400 Mbit/s, so that repairs of
/// what both paths lost are told from copies.
const NUMBERS: usize = 512;
/// A path that brings nothing for so long, while the other does, is gone, in microseconds; for slow feeds longer
/// ([`silence_us`]).
pub const PATH_SILENCE_US: u64 = 500_000;

/// For so long a source that was replaced is not taken back, in microseconds: what comes of it is what a slow path still brings.
const OVER_US: u64 = 2_000_000;
/// Numbers this far behind the newest are no copies of a slower path, but of a source that begins anew.
const FAR: u64 = 3_000;
/// So many of those in a row begin it, where nothing newer came for [`MAX_SKEW_US`].
const FAR_IN_A_ROW: u32 = 64;

/// How long a path of a feed of this many frames a second may be silent before it is said to be gone: half a second, or three
/// frames where that is longer. 0 is a feed whose pace is not known.
#[must_use]
pub fn silence_us(fps: f64) -> u64 {
    if fps > 0.0 { ((3e6 / fps) as u64).max(PATH_SILENCE_US) } else { PATH_SILENCE_US }
}

/// What a packet is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// The first one of its number.
    First,
    /// It came before, by this path or the other, or it is too old to tell.
    Again,
    /// Of a source that another one has replaced: the slower path still brings what the faster one has brought.
    Over,
}

/// What one path has brought since it began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PathCounters {
    /// RTP packets.
    pub packets: u64,
    /// Of those, the ones that came by no path before.
    pub first: u64,
    /// Of those, the others.
    pub again: u64,
    /// Numbers that were skipped on this path and have not come by it since: what it loses, whatever the other brings.
    pub missing: u64,
}

/// One source's numbers, on one path.
#[derive(Debug, Clone, Copy)]
struct OwnNumbers {
    /// Of which beginning of which source.
    of: (Ssrc, u32),
    numbers: SeqExtender,
    first: SeqNo,
    came: u64,
}

#[derive(Debug, Clone, Copy, Default)]
struct Path {
    counters: PathCounters,
    /// Missing of the sources before.
    missing_before: u64,
    own: Option<OwnNumbers>,
    last: Option<Micros>,
}

impl Path {
    /// A packet of the source that the feed has now.
    fn count(&mut self, of: (Ssrc, u32), seq: u16) {
        if self.own.is_none_or(|o| o.of != of) {
            self.missing_before = self.counters.missing;
            let numbers = SeqExtender::default();
            self.own = Some(OwnNumbers { of, first: numbers.peek(seq), numbers, came: 0 });
        }
        let Some(own) = &mut self.own else { return };
        // What begins anew fills none of the holes before.
        if own.numbers.highest().is_some_and(|h| own.numbers.peek(seq).0 + FAR < h.0) {
            return;
        }
        let highest = own.numbers.extend(seq).0.max(own.numbers.highest().map_or(0, |h| h.0));
        own.came += 1;
        self.counters.missing =
            self.missing_before + (highest + 1).saturating_sub(own.first.0).saturating_sub(own.came);
    }
}

/// What was seen of one source by any path.
#[derive(Debug, Clone)]
struct Source {
    ssrc: Ssrc,
    /// How often a source has begun, or begun anew.
    beginning: u32,
    numbers: SeqExtender,
    seen: Window<NUMBERS>,
    /// When it brought something last, and when something newer than all before.
    last: Micros,
    advanced: Micros,
    /// Numbers far behind the newest that came last, in a row.
    far: u32,
}

impl Source {
    fn begin(now: Micros, ssrc: Ssrc, beginning: u32) -> Self {
        let (numbers, seen) = (SeqExtender::default(), Window::default());
        Self { ssrc, beginning, numbers, seen, last: now, advanced: now, far: 0 }
    }

    fn take(&mut self, now: Micros, seq: u16) -> Seen {
        let (wide, highest) = (self.numbers.peek(seq), self.numbers.highest());
        self.far = if highest.is_some_and(|h| wide.0 + FAR < h.0) { self.far + 1 } else { 0 };
        if self.far > FAR_IN_A_ROW && now.since(self.advanced) > MAX_SKEW_US {
            *self = Self::begin(now, self.ssrc, self.beginning.wrapping_add(1));
        } else if highest.is_none_or(|h| wide > h) {
            self.advanced = now;
        }
        self.last = now;
        let wide = self.numbers.extend(seq);
        if self.seen.take(wide.0) { Seen::First } else { Seen::Again }
    }
}

/// Puts what two paths bring into one, by (SSRC, number).
#[derive(Debug, Clone, Default)]
pub struct PathMerge {
    paths: [Path; MAX_PATHS],
    /// When anything came first.
    began: Option<Micros>,
    source: Option<Source>,
    /// The newest packet of what may be another source: as in the feed behind, the packet after it makes it one.
    candidate: Option<(Ssrc, u16)>,
    /// The source before, whose packets the slower path still brings, and when it was replaced.
    replaced: Option<(Ssrc, Micros)>,
}

impl PathMerge {
    /// Takes note of a packet that came by a path, and says whether it is the first copy.
    pub fn handle_packet(&mut self, now: Micros, path: usize, ssrc: Ssrc, seq: u16) -> Seen {
        self.began.get_or_insert(now);
        let seen = self.classify(now, ssrc, seq);
        let now_on = self.source.as_ref().map(|s| (s.ssrc, s.beginning)).filter(|of| of.0 == ssrc);
        // A path that brings nothing but what is over brings the feed nothing.
        if let Some(p) = self.paths.get_mut(path).filter(|_| seen != Seen::Over) {
            p.last = Some(now);
            p.counters.packets += 1;
            p.counters.first += u64::from(seen == Seen::First);
            p.counters.again += u64::from(seen == Seen::Again);
            if let Some(of) = now_on {
                p.count(of, seq);
            }
        }
        seen
    }

    fn classify(&mut self, now: Micros, ssrc: Ssrc, seq: u16) -> Seen {
        if let Some(source) = self.source.as_mut().filter(|s| s.ssrc == ssrc) {
            return source.take(now, seq);
        }
        if self.is_over(now, ssrc) {
            return Seen::Over;
        }
        let before = self.source.as_ref().map(|s| (s.ssrc, s.beginning));
        // The very first source needs no second packet: there is nothing that it could end.
        let follows = self.candidate.filter(|(s, n)| *s == ssrc && n.wrapping_add(1) == seq);
        if before.is_some() && follows.is_none() {
            let is_copy = self.candidate.replace((ssrc, seq)) == Some((ssrc, seq));
            return if is_copy { Seen::Again } else { Seen::First };
        }
        let mut source = Source::begin(now, ssrc, before.map_or(0, |(_, n)| n.wrapping_add(1)));
        if let Some((_, first)) = follows {
            source.take(now, first);
        }
        let seen = source.take(now, seq);
        self.source = Some(source);
        self.candidate = None;
        self.replaced = before.map(|(s, _)| (s, now));
        seen
    }

    /// Whether it is the source before, and has not come back: the one that replaced it lives, or has only just begun.
    fn is_over(&self, now: Micros, ssrc: Ssrc) -> bool {
        let Some(since) = self.replaced.filter(|(s, _)| *s == ssrc).map(|(_, since)| since) else { return false };
        let lives = self.source.as_ref().is_some_and(|s| now.since(s.last) < PATH_SILENCE_US);
        lives || now.since(since) < OVER_US
    }

    /// A path begins anew: what it brought before is forgotten.
    pub fn begin(&mut self, path: usize) {
        if let Some(p) = self.paths.get_mut(path) {
            *p = Path::default();
        }
    }

    /// What a path has brought.
    #[must_use]
    pub fn counters(&self, path: usize) -> PathCounters {
        self.paths.get(path).map(|p| p.counters).unwrap_or_default()
    }

    /// When a path last brought something.
    #[must_use]
    pub fn last(&self, path: usize) -> Option<Micros> {
        self.paths.get(path)?.last
    }

    /// Whether a path has brought something within `silence_us`.
    #[must_use]
    pub fn is_alive(&self, path: usize, now: Micros, silence_us: u64) -> bool {
        self.last(path).is_some_and(|t| now.since(t) <= silence_us)
    }

    /// How many paths have.
    #[must_use]
    pub fn alive(&self, now: Micros, silence_us: u64) -> u8 {
        (0..MAX_PATHS).map(|p| u8::from(self.is_alive(p, now, silence_us))).sum()
    }

    /// The same, where something can be said: none while the first packet is younger than `silence_us` and not all `expected`
    /// paths have brought one. One connection is always up before the other, which is no alarm.
    #[must_use]
    pub fn alive_to_tell(&self, now: Micros, silence_us: u64, expected: u8) -> Option<u8> {
        let alive = self.alive(now, silence_us);
        let settled = self.began.is_some_and(|t| now.since(t) > silence_us);
        (alive >= expected || settled).then_some(alive)
    }

    /// The path that brought something last: where reports and requests go.
    #[must_use]
    pub fn freshest(&self) -> Option<usize> {
        (0..MAX_PATHS).filter_map(|p| Some((self.last(p)?, p))).max().map(|(_, p)| p)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Ssrc = Ssrc(7);

    /// Sends `n` packets over two paths, the second behind by `skew` packets; `lost` says which copy does not come. Gives the
    /// numbers of the first copies in order of their coming.
    fn run(m: &mut PathMerge, n: u16, skew: u16, lost: impl Fn(usize, u16) -> bool) -> Vec<u16> {
        let mut first = Vec::new();
        for turn in 0..n + skew {
            for path in 0..2 {
                let place = if path == 0 { Some(turn) } else { turn.checked_sub(skew) };
                let Some(i) = place.filter(|i| *i < n) else { continue };
                let seq = i.wrapping_add(65_500);
                let now = Micros(u64::from(turn) * 250);
                if !lost(path, i) && m.handle_packet(now, path, S, seq) == Seen::First {
                    first.push(i);
                }
            }
        }
        first
    }

    #[test]
    fn what_one_path_loses_comes_by_the_other_once_and_in_the_skew() {
        let mut m = PathMerge::default();
        // 50 ms of packets each 250 µs, over the wrap of the numbers.
        let mut first = run(&mut m, 2_000, 200, |path, i| path == 0 && i % 10 == 3);
        first.sort_unstable();
        assert_eq!(first, (0..2_000).collect::<Vec<_>>());
        let (a, b) = (m.counters(0), m.counters(1));
        assert_eq!((a.packets, a.missing, b.packets, b.missing), (1_800, 200, 2_000, 0));
        assert_eq!((a.first, b.first, b.again), (1_800, 200, 1_800));
    }

    #[test]
    fn what_both_lose_does_not_come_and_a_repeat_is_no_first_copy() {
        let mut m = PathMerge::default();
        let first = run(&mut m, 100, 5, |_, i| i == 50);
        assert!(first.len() == 99 && !first.contains(&50));
        assert_eq!(m.handle_packet(Micros(9), 0, S, 65_500), Seen::Again);
        assert_eq!(m.handle_packet(Micros(9), 1, S, 65_500_u16.wrapping_add(50)), Seen::First, "a repair");
    }

    #[test]
    fn the_slower_path_does_not_bring_a_replaced_source_back() {
        let mut m = PathMerge::default();
        for seq in 0..10 {
            m.handle_packet(Micros(0), 0, S, seq);
        }
        assert_eq!(m.handle_packet(Micros(1), 0, Ssrc(8), 399), Seen::First);
        assert_eq!(m.handle_packet(Micros(1), 0, Ssrc(8), 400), Seen::First);
        for seq in 5..15 {
            assert_eq!(m.handle_packet(Micros(2), 1, S, seq), Seen::Over);
        }
        assert_eq!((m.last(1), m.counters(1)), (None, PathCounters::default()), "what is over is no sign of life");
        assert_eq!(m.handle_packet(Micros(3), 1, Ssrc(8), 400), Seen::Again);
        assert_eq!(m.handle_packet(Micros(3), 1, Ssrc(8), 401), Seen::First);
        assert_eq!(m.counters(1).missing, 0);
    }

    #[test]
    fn one_stray_packet_ends_no_source_and_one_that_was_replaced_comes_back() {
        let mut m = PathMerge::default();
        let at = |ms: u64| Micros(ms * 1_000);
        for seq in 0..10 {
            m.handle_packet(at(0), 0, S, seq);
        }
        assert_eq!(m.handle_packet(at(1), 0, Ssrc(8), 399), Seen::First, "the feed holds it");
        assert_eq!(m.handle_packet(at(1), 1, Ssrc(8), 399), Seen::Again);
        assert_eq!(m.handle_packet(at(2), 0, S, 10), Seen::First, "a stray packet changes nothing");
        assert_eq!(m.counters(0), PathCounters { packets: 12, first: 12, again: 0, missing: 0 });
        assert_eq!(m.handle_packet(at(3), 0, Ssrc(8), 400), Seen::First);
        assert_eq!(m.handle_packet(at(4), 1, Ssrc(8), 399), Seen::Again, "of the two that began it");
        // Two publishers that run at once do not take turns.
        for t in 1..30_u16 {
            assert_eq!(m.handle_packet(at(u64::from(t) * 100), 0, Ssrc(8), 400 + t), Seen::First);
            assert_eq!(m.handle_packet(at(u64::from(t) * 100), 1, S, 10 + t), Seen::Over, "{t}");
        }
        // The new one is silent: the old one is heard again, from its second packet on as the only one.
        for seq in 100..110 {
            assert_eq!(m.handle_packet(at(3_500), 0, S, seq), Seen::First);
        }
        assert_eq!(m.handle_packet(at(3_501), 0, Ssrc(8), 430), Seen::Over);
    }

    #[test]
    fn a_source_that_begins_anew_behind_its_own_numbers_is_heard_within_a_few_packets() {
        let mut m = PathMerge::default();
        let ms = |ms: u64| Micros(ms * 1_000);
        for n in 0..40_000_u16 {
            m.handle_packet(ms(u64::from(n) / 4), 0, S, n);
        }
        assert_eq!(m.counters(0).missing, 0);
        let again = |m: &mut PathMerge, from: u64, path, seqs: std::ops::Range<u16>| {
            let seen = seqs.map(|n| m.handle_packet(ms(from + u64::from(n % 1_000) / 4), path, S, n));
            seen.filter(|s| *s == Seen::Again).count()
        };
        // Copies of the slower path never begin it, near or far, while the faster one goes on.
        assert_eq!(again(&mut m, 10_000, 1, 38_000..39_000), 1_000);
        for n in 0..1_000 {
            assert_eq!(m.handle_packet(ms(10_000), 1, S, 30_000 + n), Seen::Again);
            assert_eq!(m.handle_packet(ms(10_000), 0, S, 40_000 + n), Seen::First);
        }
        // The publisher is started anew with the same source and another number, a second later.
        let refused = again(&mut m, 11_000, 0, 15_000..16_000);
        assert_eq!(refused as u32, FAR_IN_A_ROW);
        assert_eq!((m.counters(0).missing, m.alive(ms(11_250), PATH_SILENCE_US)), (0, 1));
        assert_eq!(again(&mut m, 11_000, 1, 15_064..16_000), 936, "one copy of each");
    }

    #[test]
    fn a_silent_path_is_gone_and_comes_back() {
        let mut m = PathMerge::default();
        let gone = silence_us(60.0);
        assert_eq!((gone, silence_us(2.0), silence_us(0.0)), (500_000, 1_500_000, 500_000));
        m.handle_packet(Micros(0), 0, S, 1);
        m.handle_packet(Micros(10), 1, S, 1);
        assert_eq!((m.alive(Micros(500_000), gone), m.freshest()), (2, Some(1)));
        m.handle_packet(Micros(600_000), 0, S, 2);
        assert_eq!((m.alive(Micros(600_000), gone), m.freshest()), (1, Some(0)));
        m.handle_packet(Micros(700_000), 1, S, 3);
        assert_eq!(m.alive(Micros(700_000), gone), 2);
        m.begin(1);
        assert_eq!((m.alive(Micros(700_000), gone), m.counters(1)), (1, PathCounters::default()));
    }

    #[test]
    fn a_path_that_is_up_before_the_other_is_no_alarm_and_one_that_stays_alone_is() {
        let (mut m, gone) = (PathMerge::default(), silence_us(60.0));
        let tell = |m: &PathMerge, ms: u64| m.alive_to_tell(Micros(ms * 1_000), gone, 2);
        assert_eq!(tell(&m, 0), None, "nothing came");
        let mut both = m.clone();
        for ms in 1_000..1_600 {
            m.handle_packet(Micros(ms * 1_000), 0, S, ms as u16);
            assert_eq!(tell(&m, ms), (ms > 1_500).then_some(1), "{ms}: the second one never comes");
        }
        both.handle_packet(Micros(1_000_000), 0, S, 1);
        both.handle_packet(Micros(1_020_000), 1, S, 1);
        assert_eq!(tell(&both, 1_020), Some(2), "both are told of at once");
        both.handle_packet(Micros(1_600_000), 0, S, 2);
        assert_eq!(tell(&both, 1_600), Some(1), "and the loss of one after its silence");
    }
}
