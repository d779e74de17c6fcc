//! Which packets came by themselves: the loss RLE block of an extended report (RFC 3611 section 4.1), before anything was
//! repaired. From it the sender knows both the share and the length of bursts, and chooses its redundancy.

use crate::media::bytes::{be16, be32};
use crate::media::seq::nearest;
use crate::units::Ssrc;
use std::collections::VecDeque;

const XR: u8 = 207;
const LOSS_RLE: u8 = 1;
/// Numbers kept at most. Loss policy: the oldest are not reported.
const MAX_NUMBERS: usize = 16_384;
/// Numbers this far below the highest are reported: those above may still be under way behind others.
const SETTLED: usize = 16;
/// Chunks of a report at most: with its headers it fits a datagram.
const MAX_CHUNKS: usize = 480;
/// Numbers of a bit-vector chunk.
const VECTOR: usize = 15;
/// Longest run of a run-length chunk.
const MAX_RUN: usize = 0x3fff;

/// Notes what came and writes the reports of it.
#[derive(Debug)]
pub struct LossRecorder {
    source: Option<Ssrc>,
    /// The number of the first of `came`.
    begin: u64,
    came: VecDeque<bool>,
    settled: usize,
}

impl Default for LossRecorder {
    fn default() -> Self {
        Self { source: None, begin: 0, came: VecDeque::new(), settled: SETTLED }
    }
}

impl LossRecorder {
    /// So many packets come while another path may still bring one: those numbers are not reported yet.
    pub fn set_patience(&mut self, packets: u64) {
        self.settled = SETTLED + usize::try_from(packets).unwrap_or(MAX_NUMBERS).min(MAX_NUMBERS / 2);
    }

    /// A packet of that source came by itself: neither asked for nor restored.
    pub fn handle_packet(&mut self, source: Ssrc, seq: u16) {
        if self.source != Some(source) {
            // One turn up, so that what is before has a number.
            (self.source, self.begin) = (Some(source), 0x1_0000 + u64::from(seq));
            self.came = VecDeque::from([true]);
            return;
        }
        let end = self.begin + self.came.len() as u64;
        let seq = nearest(end, seq);
        if seq < self.begin {
            return;
        }
        if seq - self.begin >= 2 * MAX_NUMBERS as u64 {
            (self.begin, self.came) = (seq, VecDeque::from([true]));
            return;
        }
        // At most 2 × MAX_NUMBERS turns.
        while self.begin + self.came.len() as u64 <= seq {
            self.came.push_back(false);
        }
        if let Some(c) = self.came.get_mut((seq - self.begin) as usize) {
            *c = true;
        }
        let over = self.came.len().saturating_sub(MAX_NUMBERS);
        self.came.drain(..over);
        self.begin += over as u64;
    }

    /// An extended report of what was not reported yet, to be put behind the other parts of a compound. None where nothing
    /// is settled.
    pub fn poll_report(&mut self, from: Ssrc) -> Option<Vec<u8>> {
        let source = self.source?;
        let settled = self.came.len().saturating_sub(self.settled);
        if settled == 0 {
            return None;
        }
        self.came.make_contiguous();
        let (bits, _) = self.came.as_slices();
        let (chunks, reported) = to_chunks(bits.get(..settled)?);
        let end = self.begin + reported as u64;
        let mut out = Vec::with_capacity(24 + 2 * chunks.len());
        let words = 5 + chunks.len() / 2;
        out.extend_from_slice(&[0x80, XR]);
        out.extend_from_slice(&u16::try_from(words - 1).unwrap_or(u16::MAX).to_be_bytes());
        out.extend_from_slice(&from.0.to_be_bytes());
        out.extend_from_slice(&[LOSS_RLE, 0]);
        out.extend_from_slice(&u16::try_from(words - 3).unwrap_or(u16::MAX).to_be_bytes());
        out.extend_from_slice(&source.0.to_be_bytes());
        out.extend_from_slice(&((self.begin & 0xffff) as u16).to_be_bytes());
        out.extend_from_slice(&((end & 0xffff) as u16).to_be_bytes());
        chunks.iter().for_each(|c| out.extend_from_slice(&c.to_be_bytes()));
        self.came.drain(..reported);
        self.begin = end;
        Some(out)
    }
}

/// An even number of chunks, and how many numbers they stand for.
fn to_chunks(bits: &[bool]) -> (Vec<u16>, usize) {
    let (mut chunks, mut at) = (Vec::new(), 0);
    while let Some(&first) = bits.get(at).filter(|_| chunks.len() < MAX_CHUNKS) {
        let rest = bits.get(at..).unwrap_or(&[]);
        let run = rest.iter().take(MAX_RUN).take_while(|b| **b == first).count();
        if run >= VECTOR || run == rest.len() {
            chunks.push(u16::from(first) << 14 | run as u16);
            at += run;
        } else {
            let vector = rest.iter().take(VECTOR).enumerate();
            chunks.push(vector.fold(0x8000, |v, (i, came)| v | u16::from(*came) << (14 - i)));
            at += VECTOR.min(rest.len());
        }
    }
    if !chunks.len().is_multiple_of(2) {
        chunks.push(0);
    }
    (chunks, at)
}

/// Packets in a row that came, or were lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// Whose packets.
    pub source: Ssrc,
    /// Number of the first.
    pub begin: u16,
    /// Whether they were lost.
    pub lost: bool,
    /// How many they are.
    pub packets: u64,
}

/// The runs of the loss RLE blocks of a compound, in their order.
pub fn runs(compound: &[u8]) -> impl Iterator<Item = Run> {
    let blocks = parts(compound).filter(|p| p.get(1) == Some(&XR)).filter_map(|p| p.get(8..)).flat_map(blocks);
    blocks.filter(|b| b.first() == Some(&LOSS_RLE)).flat_map(block_runs)
}

/// The parts of a compound.
fn parts(mut rest: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let len = 4 + 4 * usize::from(be16(rest, 2)?);
        let part = rest.get(..len)?;
        rest = rest.get(len..)?;
        Some(part)
    })
}

/// The blocks of an extended report.
fn blocks(rest: &[u8]) -> impl Iterator<Item = &[u8]> {
    // Packed alike: a type, a byte, a length in words less one.
    parts(rest)
}

fn block_runs(block: &[u8]) -> impl Iterator<Item = Run> {
    let source = Ssrc(be32(block, 4).unwrap_or(0));
    let (begin, end) = (be16(block, 8).unwrap_or(0), be16(block, 10).unwrap_or(0));
    let mut left = u64::from(end.wrapping_sub(begin));
    let chunks = block.get(12..).unwrap_or(&[]).chunks_exact(2).filter_map(|c| be16(c, 0));
    let all = chunks.flat_map(|c| {
        let vector = c & 0x8000 != 0;
        let bits = if vector { VECTOR } else { 1 };
        (0..bits).map(
            move |i| {
                if vector { (c & (1 << (14 - i)) == 0, 1) } else { (c & 0x4000 == 0, u64::from(c & 0x3fff)) }
            },
        )
    });
    // What exceeds the numbers that the block names is padding.
    all.map_while(move |(lost, n)| {
        let packets = n.min(left);
        let begin = end.wrapping_sub(u16::try_from(left).unwrap_or(0));
        left -= packets;
        (packets > 0).then_some(Run { source, begin, lost, packets })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::rng::Rng;
    use crate::media::rtcp::{Builder, Compound, Rtcp};

    fn told(r: &mut LossRecorder) -> Vec<bool> {
        let mut all = Vec::new();
        while let Some(xr) = r.poll_report(Ssrc(1)) {
            let mut compound = Builder::default().receiver_report(Ssrc(1), None).finish();
            compound.extend_from_slice(&xr);
            assert!(compound.len() <= 1_100);
            let parts: Vec<_> = Compound::new(&compound).collect();
            assert!(matches!(parts[..], [Rtcp::ReceiverReport(..), Rtcp::Other(XR)]), "{parts:?}");
            let mut begin = None;
            for run in runs(&compound) {
                assert_eq!((run.source, run.begin), (Ssrc(9), begin.unwrap_or(run.begin)));
                begin = Some(run.begin.wrapping_add(run.packets as u16));
                all.extend(std::iter::repeat_n(!run.lost, run.packets as usize));
            }
            assert_eq!(begin, Some(r.begin as u16));
        }
        all
    }

    #[test]
    fn what_was_lost_is_told_number_by_number_over_the_wrap() {
        let mut rng = Rng::new(5);
        for loss in [0.0, 0.01, 0.1, 0.5] {
            let mut r = LossRecorder::default();
            let mut came: Vec<bool> = (0..9_000).map(|_| !rng.chance(loss)).collect();
            came[0] = true;
            *came.last_mut().unwrap() = true;
            for (i, _) in came.iter().enumerate().filter(|(_, c)| **c) {
                r.handle_packet(Ssrc(9), 60_000_u16.wrapping_add(i as u16));
            }
            assert_eq!(told(&mut r), came[..came.len() - SETTLED], "{loss}");
        }
    }

    #[test]
    fn a_number_out_of_order_is_not_lost() {
        let mut r = LossRecorder::default();
        for seq in [5, 7, 6, 8, 10, 4].into_iter().chain(11..40) {
            r.handle_packet(Ssrc(9), seq);
        }
        let mut want = vec![true; 40 - 5 - SETTLED];
        want[4] = false;
        assert_eq!(told(&mut r), want);
    }

    #[test]
    fn a_report_of_a_clean_second_is_short_and_nothing_settled_is_no_report() {
        let mut r = LossRecorder::default();
        assert_eq!(r.poll_report(Ssrc(1)), None);
        (0..10_000).for_each(|s| r.handle_packet(Ssrc(9), s));
        assert_eq!(r.poll_report(Ssrc(1)).map(|b| b.len()), Some(24));
        assert_eq!(r.poll_report(Ssrc(1)), None);
    }

    #[test]
    fn rubbish_is_read_to_its_end() {
        let mut rng = Rng::new(8);
        for _ in 0..20_000 {
            let mut b: Vec<u8> = (0..rng.below(80)).map(|_| rng.below(256) as u8).collect();
            if let [_, kind, high, ..] = &mut b[..] {
                (*kind, *high) = (XR, 0);
            }
            assert!(runs(&b).count() < 5_000);
        }
    }
}
