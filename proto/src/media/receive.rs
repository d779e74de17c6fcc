//! A native viewer's end: packets in, complete frames and losses out. Needs the frame marks of the header extension.

use super::ext::{ExtensionIds, read_marks};
use super::jitter::Jitter;
use super::rtcp::ReportBlock;
use super::rtp::Header;
use super::seq::SeqExtender;
use super::window::IndexWindow;
use crate::units::{Micros, SeqNo, Ssrc, WallMicros};
use std::collections::{BTreeMap, VecDeque};

/// Packets kept while their frames are not complete. Loss policy: the oldest frame is given up as lost.
pub const MAX_PENDING: usize = 8_192;
/// A frame is given up when this many complete frames came after it.
pub const GIVE_UP_AFTER: u32 = 8;

/// What came of a frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FrameEvent {
    /// All of it came.
    Complete(CompleteFrame),
    /// It will not be complete.
    Lost {
        /// Which; none where not even one packet of it came, as far as numbers tell.
        frame_id: u32,
        /// Packets that came.
        packets: u32,
    },
}

/// A frame whose packets have all come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompleteFrame {
    /// Frame id.
    pub frame_id: u32,
    /// It can be decoded by itself.
    pub independent: bool,
    /// RTP timestamp.
    pub timestamp: u32,
    /// Publisher's capture time, its clock.
    pub capture: Option<WallMicros>,
    /// When its first packet came.
    pub first_arrival: Micros,
    /// When its last packet came.
    pub last_arrival: Micros,
    /// RTP payloads in order.
    pub payloads: Vec<Vec<u8>>,
}

#[derive(Debug)]
struct Pending {
    first: Option<SeqNo>,
    last: Option<SeqNo>,
    packets: BTreeMap<SeqNo, Vec<u8>>,
    independent: bool,
    timestamp: u32,
    capture: Option<WallMicros>,
    first_arrival: Micros,
    last_arrival: Micros,
}

/// Counters since the receiver began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ReceiveCounters {
    /// RTP packets.
    pub packets: u64,
    /// Their bytes, with RTP headers.
    pub bytes: u64,
    /// Packets that did not parse or had no frame mark.
    pub unusable: u64,
    /// Complete frames.
    pub frames: u64,
    /// Frames given up.
    pub frames_lost: u64,
    /// Frame ids that were skipped without one packet.
    pub frames_skipped: u64,
    /// Sequence numbers expected but not come, now.
    pub packets_missing: u64,
    /// Duplicates.
    pub duplicates: u64,
}

#[derive(Debug, Clone)]
struct Source {
    ssrc: Ssrc,
    numbers: SeqExtender,
    first: SeqNo,
    came: u64,
    seen: IndexWindow,
}

/// Puts packets together to frames.
#[derive(Debug)]
pub struct FrameReceiver {
    ids: ExtensionIds,
    source: Option<Source>,
    /// Packets missing of sources that are over.
    missing_before: u64,
    pending: BTreeMap<u32, Pending>,
    pending_packets: usize,
    next_frame: Option<u32>,
    out: VecDeque<FrameEvent>,
    clock_rate: u32,
    jitter: Jitter,
    reported: (u64, u64),
    counters: ReceiveCounters,
}

impl FrameReceiver {
    /// A receiver for a feed whose descriptor gives these extension ids and this clock rate in Hz.
    #[must_use]
    pub fn new(ids: ExtensionIds, clock_rate: u32) -> Self {
        Self {
            ids,
            source: None,
            missing_before: 0,
            pending: BTreeMap::new(),
            pending_packets: 0,
            next_frame: None,
            out: VecDeque::new(),
            clock_rate,
            jitter: Jitter::default(),
            reported: (0, 0),
            counters: ReceiveCounters::default(),
        }
    }

    /// Takes one RTP packet; then drain [`Self::poll_event`].
    pub fn handle_packet(&mut self, now: Micros, packet: &[u8]) {
        let Ok(h) = Header::parse(packet) else {
            self.counters.unusable += 1;
            return;
        };
        let marks = read_marks(&h, packet, self.ids);
        let Some(frame) = marks.frame else {
            self.counters.unusable += 1;
            return;
        };
        self.counters.packets += 1;
        self.counters.bytes += packet.len() as u64;
        let seq = self.number(&h);
        self.jitter.handle_packet(now, h.timestamp, self.clock_rate);
        let id = frame.frame_id;
        if self.next_frame.is_some_and(|n| (id.wrapping_sub(n)).cast_signed() < 0) {
            // A packet of a frame that is done: a duplicate, or too late.
            self.counters.duplicates += 1;
            return;
        }
        let p = self.pending.entry(id).or_insert_with(|| Pending {
            first: None,
            last: None,
            packets: BTreeMap::new(),
            independent: frame.marks.independent,
            timestamp: h.timestamp,
            capture: marks.capture,
            first_arrival: now,
            last_arrival: now,
        });
        if frame.marks.start {
            p.first = Some(seq);
        }
        if frame.marks.end {
            p.last = Some(seq);
        }
        p.last_arrival = now;
        if p.packets.insert(seq, h.payload(packet).to_vec()).is_some() {
            self.counters.duplicates += 1;
        } else {
            self.pending_packets += 1;
        }
        self.settle();
    }

    fn number(&mut self, h: &Header) -> SeqNo {
        if self.source.as_ref().is_none_or(|s| s.ssrc != h.ssrc) {
            self.begin(h);
        }
        let Some(s) = &mut self.source else { return SeqNo(u64::from(h.seq)) };
        let seq = s.numbers.extend(h.seq);
        s.came += u64::from(s.seen.take(seq.0));
        let highest = s.numbers.highest().map_or(seq.0, |s| s.0);
        let missing = (highest + 1).saturating_sub(s.first.0).saturating_sub(s.came);
        self.counters.packets_missing = self.missing_before + missing;
        seq
    }

    /// Another source: what was under way of the last one is lost, and said to be.
    fn begin(&mut self, h: &Header) {
        self.give_up_pending();
        self.missing_before = self.counters.packets_missing;
        let numbers = SeqExtender::default();
        let first = numbers.peek(h.seq);
        self.source = Some(Source { ssrc: h.ssrc, numbers, first, came: 0, seen: IndexWindow::default() });
        self.next_frame = None;
        self.jitter = Jitter::default();
        self.reported = (0, 0);
    }

    /// Gives up the frames that are not complete: at the end of a source or of the watching.
    pub fn give_up_pending(&mut self) {
        for (frame_id, p) in std::mem::take(&mut self.pending) {
            self.counters.frames_lost += 1;
            let packets = u32::try_from(p.packets.len()).unwrap_or(u32::MAX);
            self.out.push_back(FrameEvent::Lost { frame_id, packets });
        }
        self.pending_packets = 0;
    }

    /// Hands out complete frames in order of their ids, gives up the ones that were overtaken too often.
    fn settle(&mut self) {
        // Each turn removes one pending frame, so the number of turns is bounded by them.
        while let Some(id) = self.pending.keys().next().copied() {
            let complete = self.pending.get(&id).is_some_and(Pending::is_complete);
            if !complete && !self.must_give_up() {
                return;
            }
            let Some(p) = self.pending.remove(&id) else { return };
            self.pending_packets = self.pending_packets.saturating_sub(p.packets.len());
            if let Some(n) = self.next_frame {
                self.counters.frames_skipped += u64::from(id.wrapping_sub(n));
            }
            self.next_frame = Some(id.wrapping_add(1));
            if complete {
                self.counters.frames += 1;
                self.out.push_back(FrameEvent::Complete(p.into_frame(id)));
            } else {
                self.counters.frames_lost += 1;
                let packets = u32::try_from(p.packets.len()).unwrap_or(u32::MAX);
                self.out.push_back(FrameEvent::Lost { frame_id: id, packets });
            }
        }
    }

    /// Whether the oldest pending frame has waited long enough.
    fn must_give_up(&self) -> bool {
        let complete_after = self.pending.values().skip(1).filter(|p| p.is_complete()).count();
        complete_after >= GIVE_UP_AFTER as usize || self.pending_packets > MAX_PENDING
    }

    /// What came of the next frame.
    pub fn poll_event(&mut self) -> Option<FrameEvent> {
        self.out.pop_front()
    }

    /// The block of the next receiver report; `last_sr` and `delay_since_sr` as in RFC 3550 section 6.4.1. None before
    /// the first packet.
    pub fn poll_report(&mut self, last_sr: u32, delay_since_sr: u32) -> Option<ReportBlock> {
        let Source { ssrc, numbers, first, came, .. } = self.source.as_ref()?;
        let (ssrc, first, came) = (*ssrc, *first, *came);
        let highest = numbers.highest()?;
        let expected = (highest.0 + 1).saturating_sub(first.0);
        let (expected_before, came_before) = self.reported;
        self.reported = (expected, came);
        let expected_now = expected.saturating_sub(expected_before);
        let lost_now = expected_now.saturating_sub(came.saturating_sub(came_before));
        let fraction = (lost_now * 256).checked_div(expected_now).unwrap_or(0).min(255);
        let lost = i64::try_from(expected).unwrap_or(i64::MAX) - i64::try_from(came).unwrap_or(i64::MAX);
        Some(ReportBlock {
            ssrc,
            fraction_lost: u8::try_from(fraction).unwrap_or(255),
            cumulative_lost: i32::try_from(lost.clamp(-0x80_0000, 0x7f_ffff)).unwrap_or(0),
            highest_seq: (highest.0 & 0xffff_ffff) as u32,
            jitter: self.jitter.ticks(),
            last_sr,
            delay_since_sr,
        })
    }

    /// Counters.
    #[must_use]
    pub const fn counters(&self) -> ReceiveCounters {
        self.counters
    }
}

impl Pending {
    fn is_complete(&self) -> bool {
        let (Some(first), Some(last)) = (self.first, self.last) else { return false };
        last.0.checked_sub(first.0).is_some_and(|n| n + 1 == self.packets.len() as u64)
    }

    fn into_frame(self, frame_id: u32) -> CompleteFrame {
        CompleteFrame {
            frame_id,
            independent: self.independent,
            timestamp: self.timestamp,
            capture: self.capture,
            first_arrival: self.first_arrival,
            last_arrival: self.last_arrival,
            payloads: self.packets.into_values().collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::feed::tests::Publisher;
    use super::*;

    fn complete(r: &mut FrameReceiver) -> Vec<u32> {
        std::iter::from_fn(|| r.poll_event())
            .filter_map(|e| match e {
                FrameEvent::Complete(f) => Some(f.frame_id),
                FrameEvent::Lost { .. } => None,
            })
            .collect()
    }

    #[test]
    fn frames_come_out_whole_and_in_order_from_shuffled_packets() {
        let mut r = FrameReceiver::new(ExtensionIds::OURS, 90_000);
        let mut p = Publisher { ssrc: 1, seq: 65_534, frame: 0 };
        let first = p.frame(1, true);
        let mut packets: Vec<_> = (0..4).flat_map(|_| p.frame(3, false)).collect();
        packets.swap(0, 2);
        packets.swap(3, 7);
        for b in first.iter().chain(&packets) {
            r.handle_packet(Micros(0), b);
        }
        assert_eq!(complete(&mut r), vec![0, 1, 2, 3, 4]);
        let c = r.counters();
        assert_eq!((c.frames, c.frames_lost, c.packets_missing, c.frames_skipped), (5, 0, 0, 0));
    }

    #[test]
    fn a_frame_with_a_hole_is_lost_and_later_ones_go_on() {
        let mut r = FrameReceiver::new(ExtensionIds::OURS, 90_000);
        let mut p = Publisher { ssrc: 1, seq: 0, frame: 0 };
        for n in 0..20 {
            for (i, b) in p.frame(3, n == 0).iter().enumerate() {
                if n != 5 || i != 1 {
                    r.handle_packet(Micros(n), b);
                }
            }
        }
        let got = complete(&mut r);
        assert_eq!(got.len(), 19);
        assert!(!got.contains(&5));
        assert_eq!((r.counters().frames_lost, r.counters().packets_missing), (1, 1));
        let report = r.poll_report(0, 0).unwrap();
        assert_eq!((report.cumulative_lost, report.fraction_lost), (1, (256 / 60) as u8));
        assert_eq!(r.poll_report(0, 0).unwrap().fraction_lost, 0, "nothing since");
    }

    #[test]
    fn a_duplicate_does_not_make_up_for_a_loss() {
        let mut r = FrameReceiver::new(ExtensionIds::OURS, 90_000);
        let mut p = Publisher { ssrc: 1, seq: 0, frame: 0 };
        let f = p.frame(4, true);
        for i in [0, 1, 1, 3] {
            r.handle_packet(Micros(0), &f[i]);
        }
        assert_eq!((r.counters().packets_missing, r.counters().duplicates), (1, 1));
    }

    #[test]
    fn another_source_begins_anew_and_what_the_last_one_lost_stays_counted() {
        let mut r = FrameReceiver::new(ExtensionIds::OURS, 90_000);
        let mut p = Publisher { ssrc: 1, seq: 0, frame: 7 };
        let f = p.frame(4, true);
        [0, 3].iter().for_each(|i: &usize| r.handle_packet(Micros(0), &f[*i]));
        let mut q = Publisher { ssrc: 2, seq: 900, frame: 0 };
        q.frame(2, true).iter().for_each(|b| r.handle_packet(Micros(1), b));
        assert_eq!(r.poll_event(), Some(FrameEvent::Lost { frame_id: 7, packets: 2 }));
        assert_eq!(complete(&mut r), vec![0]);
        assert_eq!((r.counters().packets_missing, r.counters().frames_lost), (2, 1));
    }

    #[test]
    fn a_frame_that_vanished_whole_is_counted_as_skipped() {
        let mut r = FrameReceiver::new(ExtensionIds::OURS, 90_000);
        let mut p = Publisher { ssrc: 1, seq: 0, frame: 0 };
        for n in 0..5 {
            let f = p.frame(2, true);
            if n != 2 {
                f.iter().for_each(|b| r.handle_packet(Micros(n), b));
            }
        }
        assert_eq!(complete(&mut r), vec![0, 1, 3, 4]);
        assert_eq!((r.counters().frames_skipped, r.counters().packets_missing), (1, 2));
    }
}
