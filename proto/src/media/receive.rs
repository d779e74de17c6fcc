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
/// A frame of which nothing came is passed over when this many packets of later frames came: until then it is taken to be
/// under way on a line that reorders, which frames of one packet (sound) meet first.
pub const PASS_OVER_AFTER: usize = 8;
/// A frame id this far from the newest one is a publisher that counts anew, not a frame that is late.
pub const MAX_FRAME_JUMP: u32 = 10_000;

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
    /// By frame id, extended over its wrap.
    pending: BTreeMap<u64, Pending>,
    pending_packets: usize,
    /// The extended id that is to be handed out next.
    next_frame: Option<u64>,
    newest_frame: Option<u64>,
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
            newest_frame: None,
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
        let seq = self.number(&h, frame.frame_id);
        self.jitter.handle_packet(now, h.timestamp, self.clock_rate);
        let id = self.extend(frame.frame_id);
        if self.next_frame.is_some_and(|n| id < n) {
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
        // A key frame of a foreign publisher has two starts where something stands before its parameter sets: where it
        // begins, and where a joiner begins. It is whole from the first of them.
        if frame.marks.start {
            p.first = Some(p.first.map_or(seq, |f| f.min(seq)));
        }
        p.independent |= frame.marks.independent;
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

    /// The frame id over its wrap at 2^32. Begins one turn up, so that a late frame has room below.
    fn extend(&mut self, id: u32) -> u64 {
        let newest = self.newest_frame.unwrap_or((1 << 32) | u64::from(id));
        let extended = newest.saturating_add_signed(i64::from(frame_distance(id, newest)));
        self.newest_frame = Some(newest.max(extended));
        extended
    }

    fn number(&mut self, h: &Header, frame_id: u32) -> SeqNo {
        let jumped = self.newest_frame.is_some_and(|n| frame_distance(frame_id, n).unsigned_abs() > MAX_FRAME_JUMP);
        if jumped || self.source.as_ref().is_none_or(|s| s.ssrc != h.ssrc) {
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
        (self.next_frame, self.newest_frame) = (None, None);
        self.jitter = Jitter::default();
        self.reported = (0, 0);
    }

    /// Waits no longer for what is late: hands out the frames that are complete and gives up the others. At the end of a
    /// source or of the watching.
    pub fn give_up_pending(&mut self) {
        for (id, p) in std::mem::take(&mut self.pending) {
            self.release(id, p);
        }
        self.pending_packets = 0;
    }

    /// The viewer stops watching: as [`Self::give_up_pending`], but a newest frame whose last packets were still on their way
    /// is neither handed out nor called lost, for nothing of it is missing yet.
    pub fn leave(&mut self) {
        if let Some((&id, newest)) = self.pending.last_key_value()
            && newest.is_under_way()
        {
            self.pending.remove(&id);
        }
        self.give_up_pending();
    }

    /// Hands out a frame or says that it is lost.
    fn release(&mut self, id: u64, p: Pending) {
        if let Some(n) = self.next_frame {
            self.counters.frames_skipped += id.saturating_sub(n);
        }
        self.next_frame = Some(id + 1);
        let frame_id = (id & 0xffff_ffff) as u32;
        if p.is_complete() {
            self.counters.frames += 1;
            self.out.push_back(FrameEvent::Complete(p.into_frame(frame_id)));
        } else {
            self.counters.frames_lost += 1;
            let packets = u32::try_from(p.packets.len()).unwrap_or(u32::MAX);
            self.out.push_back(FrameEvent::Lost { frame_id, packets });
        }
    }

    /// Hands out complete frames in order of their ids, gives up the ones that were overtaken too often.
    fn settle(&mut self) {
        // Each turn removes one pending frame, so the number of turns is bounded by them.
        while let Some((&id, oldest)) = self.pending.first_key_value() {
            let in_turn = self.next_frame.is_none_or(|n| n == id) || self.pending_packets >= PASS_OVER_AFTER;
            let ready = oldest.is_complete() && in_turn;
            if !ready && !self.must_give_up() {
                return;
            }
            let Some(p) = self.pending.remove(&id) else { return };
            self.pending_packets = self.pending_packets.saturating_sub(p.packets.len());
            self.release(id, p);
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

    /// The source that is being received.
    #[must_use]
    pub fn source(&self) -> Option<Ssrc> {
        self.source.as_ref().map(|s| s.ssrc)
    }

    /// Interarrival jitter in RTP clock ticks (RFC 3550 section 6.4.1).
    #[must_use]
    pub const fn jitter(&self) -> u32 {
        self.jitter.ticks()
    }

    /// Counters.
    #[must_use]
    pub const fn counters(&self) -> ReceiveCounters {
        self.counters
    }
}

/// How far the frame id is from the extended one, modulo 2^32.
const fn frame_distance(id: u32, from: u64) -> i32 {
    id.wrapping_sub((from & 0xffff_ffff) as u32).cast_signed()
}

impl Pending {
    fn is_complete(&self) -> bool {
        let (Some(first), Some(last)) = (self.first, self.last) else { return false };
        last.0.checked_sub(first.0).is_some_and(|n| n + 1 == self.packets.len() as u64)
    }

    /// Its packets came one after the other from the first on, and the last one did not come yet.
    fn is_under_way(&self) -> bool {
        let (Some(first), Some((newest, _))) = (self.first, self.packets.last_key_value()) else { return false };
        self.last.is_none() && newest.0.checked_sub(first.0).is_some_and(|n| n + 1 == self.packets.len() as u64)
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
    fn a_key_frame_whose_parameter_sets_are_not_its_first_packet_is_whole_from_its_first_packet() {
        use super::super::ext::{FrameMark, FrameMarks};
        use super::super::rtp::{HeaderFields, write_header};
        let packet = |seq: u16, marks: FrameMarks| {
            let fields = HeaderFields { marker: marks.end, payload_type: 96, seq, timestamp: 9, ssrc: Ssrc(1) };
            let mark = FrameMark { frame_id: 7, marks }.to_bytes();
            let mut b = vec![0; 64];
            let at = write_header(&mut b, fields, &[(ExtensionIds::OURS.frame, &mark)]).unwrap();
            b.truncate(at + 4);
            b
        };
        let delimiter = FrameMarks { start: true, ..FrameMarks::default() };
        let parameters = FrameMarks { start: true, independent: true, ..FrameMarks::default() };
        let last = FrameMarks { end: true, independent: true, ..FrameMarks::default() };
        for order in [[0, 1, 2], [1, 0, 2], [0, 2, 1]] {
            let mut r = FrameReceiver::new(ExtensionIds::OURS, 90_000);
            let packets = [packet(10, delimiter), packet(11, parameters), packet(12, last)];
            order.iter().for_each(|i| r.handle_packet(Micros(0), &packets[*i]));
            let Some(FrameEvent::Complete(f)) = r.poll_event() else { panic!("{order:?}") };
            assert_eq!((f.frame_id, f.payloads.len(), f.independent), (7, 3, true), "{order:?}");
        }
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
    fn a_frame_under_way_when_the_viewer_stops_is_not_lost_and_one_with_a_hole_is() {
        for (came, lost) in [(&[0, 1, 2][..], 0), (&[0, 2], 1), (&[1, 2], 1)] {
            let mut r = FrameReceiver::new(ExtensionIds::OURS, 90_000);
            let mut p = Publisher { ssrc: 1, seq: 0, frame: 0 };
            p.frame(2, true).iter().for_each(|b| r.handle_packet(Micros(0), b));
            let f = p.frame(4, true);
            came.iter().for_each(|i: &usize| r.handle_packet(Micros(1), &f[*i]));
            r.leave();
            assert_eq!(complete(&mut r), vec![0]);
            assert_eq!(r.counters().frames_lost, lost, "{came:?}");
        }
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
        assert_eq!(complete(&mut r), vec![0, 1], "it may still come");
        r.give_up_pending();
        assert_eq!(complete(&mut r), vec![3, 4]);
        assert_eq!((r.counters().frames_skipped, r.counters().packets_missing), (1, 2));
    }

    #[test]
    fn frames_of_one_packet_that_change_places_are_all_handed_out_in_order() {
        let mut r = FrameReceiver::new(ExtensionIds::OURS, 48_000);
        let mut p = Publisher { ssrc: 1, seq: 0, frame: 0 };
        let mut packets: Vec<_> = (0..40).flat_map(|_| p.frame(1, true)).collect();
        packets.swap(3, 4);
        packets.swap(10, 14);
        packets.iter().for_each(|b| r.handle_packet(Micros(0), b));
        assert_eq!(complete(&mut r), (0..40).collect::<Vec<_>>());
        let c = r.counters();
        assert_eq!((c.frames_skipped, c.duplicates, c.packets_missing), (0, 0, 0));
    }

    #[test]
    fn frame_ids_go_on_over_their_wrap() {
        use crate::media::ext::{FrameMark, FrameMarks};
        use crate::media::rtp::{HeaderFields, write_header};
        let mut r = FrameReceiver::new(ExtensionIds::OURS, 90_000);
        // Frames of one packet: the two around the wrap change places.
        for (seq, id) in [(0, u32::MAX - 1), (2, 0), (1, u32::MAX), (3, 1)] {
            let marks = FrameMarks { start: true, end: true, independent: true, discardable: false };
            let fields = HeaderFields { marker: true, payload_type: 96, seq, timestamp: 0, ssrc: Ssrc(1) };
            let mut b = vec![0; 64];
            let n = write_header(&mut b, fields, &[(1, &FrameMark { frame_id: id, marks }.to_bytes())]).unwrap();
            b.truncate(n);
            r.handle_packet(Micros(0), &b);
        }
        assert_eq!(complete(&mut r), vec![u32::MAX - 1, u32::MAX, 0, 1]);
        assert_eq!((r.counters().frames_skipped, r.counters().duplicates), (0, 0));
    }

    #[test]
    fn a_publisher_that_counts_anew_under_its_old_ssrc_is_followed() {
        let mut r = FrameReceiver::new(ExtensionIds::OURS, 90_000);
        let mut p = Publisher { ssrc: 1, seq: 0, frame: 20_000 };
        p.frame(2, true).iter().for_each(|b| r.handle_packet(Micros(0), b));
        let mut p = Publisher { ssrc: 1, seq: 40_000, frame: 0 };
        p.frame(2, true).iter().for_each(|b| r.handle_packet(Micros(1), b));
        assert_eq!(complete(&mut r), vec![20_000, 0]);
        assert_eq!((r.counters().frames_skipped, r.counters().packets_missing), (0, 0));
    }
}
