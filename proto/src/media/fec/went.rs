//! What went out by a line: when each number left, and which did not leave in their turn.

use super::xr::Run;
use crate::media::bytes::{be16, be32};
use crate::media::seq::nearest;
use crate::units::{Micros, Ssrc};
use std::collections::VecDeque;
use std::ops::Range;

/// Gaps that are remembered. Loss policy: the oldest is forgotten, and what its receiver tells of it counts as loss.
const MAX_GAPS: usize = 1_024;
/// Moments that are remembered. Loss policy: for older ones the time that a packet came is taken.
const MAX_MOMENTS: usize = 512;
/// Moments are at least this far apart, in microseconds.
const MOMENT_US: u64 = 1_000;

/// Remembers what went out, by number.
#[derive(Debug)]
pub(super) struct Went {
    source: Option<Ssrc>,
    highest: u64,
    /// Numbers that had not gone when one above them went, in order.
    gaps: VecDeque<Range<u64>>,
    /// The first number of each moment, in order.
    moments: VecDeque<(u64, Micros)>,
    moment_us: u64,
}

impl Went {
    /// For a feed of that budget, which the moments reach back for.
    pub(super) fn new(budget_us: u64) -> Self {
        Self {
            source: None,
            highest: 0,
            gaps: VecDeque::new(),
            moments: VecDeque::new(),
            moment_us: (budget_us / MAX_MOMENTS as u64).max(MOMENT_US),
        }
    }

    /// A packet left for the first time.
    pub(super) fn note(&mut self, now: Micros, packet: &[u8]) {
        let (Some(seq), Some(source)) = (be16(packet, 2), be32(packet, 8).map(Ssrc)) else { return };
        if self.source.replace(source) != Some(source) {
            self.gaps.clear();
            self.moments.clear();
            // One cycle up, so that a number from before the first has a place.
            self.highest = 0xffff + u64::from(seq);
        }
        let seq = nearest(self.highest, seq);
        if seq <= self.highest {
            return;
        }
        if seq > self.highest + 1 {
            push(&mut self.gaps, MAX_GAPS, self.highest + 1..seq);
        }
        self.highest = seq;
        if self.moments.back().is_none_or(|(_, at)| now.since(*at) >= self.moment_us) {
            push(&mut self.moments, MAX_MOMENTS, (seq, now));
        }
    }

    /// When that number left, or somewhat before; none where that is not known.
    pub(super) fn sent_at(&self, seq: u16) -> Option<Micros> {
        self.source?;
        let seq = nearest(self.highest, seq);
        let after = self.moments.partition_point(|(first, _)| *first <= seq);
        self.moments.get(after.checked_sub(1)?).filter(|_| seq <= self.highest).map(|(_, at)| *at)
    }

    /// Gives to `each` the lengths of those parts of a run that left in their turn. What a receiver misses of the others says
    /// nothing about the line: it was lost before it, or left out.
    pub(super) fn in_turn(&self, run: &Run, mut each: impl FnMut(u64)) {
        if self.source != Some(run.source) {
            return each(run.packets);
        }
        let mut at = nearest(self.highest, run.begin);
        let end = at + run.packets;
        let first = self.gaps.partition_point(|g| g.end <= at);
        for gap in self.gaps.range(first..).take_while(|g| g.start < end) {
            each(gap.start.saturating_sub(at));
            at = gap.end.min(end);
        }
        each(end - at);
    }
}

fn push<T>(to: &mut VecDeque<T>, most: usize, what: T) {
    if to.len() >= most {
        to.pop_front();
    }
    to.push_back(what);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::rtp::{HeaderFields, write_header};

    fn went(ssrc: u32, numbers: impl IntoIterator<Item = (u64, u16)>) -> Went {
        let mut went = Went::new(100_000);
        for (ms, seq) in numbers {
            let fields = HeaderFields { marker: false, payload_type: 96, seq, timestamp: 5, ssrc: Ssrc(ssrc) };
            let mut b = vec![0; 20];
            write_header(&mut b, fields, &[]).unwrap();
            went.note(Micros(ms * 1_000), &b);
        }
        went
    }

    fn parts(went: &Went, source: u32, begin: u16, packets: u64) -> Vec<u64> {
        let mut parts = Vec::new();
        went.in_turn(&Run { source: Ssrc(source), begin, lost: true, packets }, |n| parts.push(n));
        parts
    }

    #[test]
    fn what_did_not_go_in_its_turn_is_left_out_of_a_run_over_the_wrap() {
        let numbers = [65_530, 65_531, 65_534, 65_535, 3, 1, 4].map(|s| (0, s));
        let w = went(9, numbers);
        assert_eq!(parts(&w, 9, 65_530, 11), [2, 2, 2], "65532 and 65533, 0 to 2: 1 came late");
        assert_eq!(parts(&w, 9, 65_533, 2), [0, 1]);
        assert_eq!(parts(&w, 9, 0, 2), [0, 0]);
        assert_eq!(parts(&w, 9, 65_530, 2), [2]);
        assert_eq!(parts(&w, 8, 65_530, 11), [11], "of another source nothing is known");
        assert_eq!(parts(&Went::new(1), 9, 0, 3), [3]);
    }

    #[test]
    fn a_number_left_when_its_moment_began() {
        let w = went(9, [(10, 65_535), (10, 0), (12, 1), (12, 2), (30, 5), (31, 4)]);
        let at = |seq| w.sent_at(seq).map(|t| t.0 / 1_000);
        assert_eq!([65_535, 0, 1, 2, 5].map(at), [10, 10, 12, 12, 30].map(Some));
        assert_eq!([65_534, 6].map(at), [None, None]);
        assert_eq!(Went::new(1).sent_at(0), None);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let w = went(9, (0..5_000).map(|i| (i, (i * 2) as u16)));
        assert_eq!((w.gaps.len(), w.moments.len()), (MAX_GAPS, MAX_MOMENTS));
        assert_eq!(w.sent_at(8_000), None);
        assert_eq!(w.sent_at(9_998), Some(Micros(4_999_000)));
    }
}
