//! A native viewer's end: packets in, complete frames and losses out. Needs the frame marks of the header extension.

use super::ext::{ExtensionIds, read_marks};
use super::jitter::Jitter;
use super::rtcp::ReportBlock;
use super::rtp::Header;
use super::seq::SeqExtender;
use super::window::Window;
use crate::units::{Micros, SeqNo, Ssrc, WallMicros};
use std::collections::{BTreeMap, VecDeque};

/// Packets kept while their frames are not complete. Loss policy: the oldest frame is given up as lost.
pub const MAX_PENDING: usize = 8_192;
/// A frame is given up when this many complete frames came after it, where no budget says when it is late.
pub const GIVE_UP_AFTER: u32 = 8;
/// A frame of which nothing came is passed over when this many packets of later frames came: until then it is taken to be
/// under way on a line that reorders, which frames of one packet (sound) meet first.
pub const PASS_OVER_AFTER: usize = 8;
/// A way that is longer than it was by so much, in microseconds, is a clock that was set.
const CLOCK_SET_US: i64 = 1_000_000;
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
    /// Frames of which nothing came, while numbers are missing: what needs them cannot be decoded.
    Skipped {
        /// How many ids were passed over.
        frames: u64,
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
    /// As many as are repaired at a time at a high rate.
    seen: Window<256>,
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
    /// How long a frame is waited for, in microseconds, where packets are repaired.
    budget_us: Option<u64>,
    /// Our clock at a frame's first packet less the publisher's at its capture, for frames that nothing held up.
    way_us: Option<i64>,
    now: Micros,
    /// The last number of the frame that was handed out last.
    handed_out: Option<SeqNo>,
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
            budget_us: None,
            way_us: None,
            now: Micros(0),
            handed_out: None,
            next_frame: None,
            newest_frame: None,
            out: VecDeque::new(),
            clock_rate,
            jitter: Jitter::default(),
            reported: (0, 0),
            counters: ReceiveCounters::default(),
        }
    }

    /// Packets are repaired: a frame is waited for so long after its first packet should have come, in microseconds, however many
    /// others come meanwhile, and then given up, so that those need not wait for it any longer. When it should have come follows
    /// from its capture time and the way of frames that nothing held up; without capture times it is when it came. To be
    /// followed by [`Self::handle_timeout`] at [`Self::next_wakeup`].
    pub const fn set_budget(&mut self, us: u64) {
        self.budget_us = Some(us);
    }

    /// When the oldest frame that is waited for is given up.
    #[must_use]
    pub fn next_wakeup(&self) -> Option<Micros> {
        let (_, oldest) = self.pending.first_key_value()?;
        Some(self.deadline(oldest, self.budget_us?))
    }

    fn deadline(&self, p: &Pending, budget_us: u64) -> Micros {
        let should = p.capture.zip(self.way_us).map(|(c, way)| Micros(c.0.saturating_add_signed(way)));
        should.map_or(p.first_arrival, |s| s.min(p.first_arrival)).plus(budget_us)
    }

    /// Learns how long frames are under way: at once where it is less than was known, slowly where it is more.
    fn note_way(&mut self, now: Micros, capture: WallMicros) {
        let took = now.0.cast_signed().saturating_sub(capture.0.cast_signed());
        let known = self.way_us.unwrap_or(took);
        let longer = took.saturating_sub(known);
        self.way_us = Some(if longer > CLOCK_SET_US { took } else { known.saturating_add(longer.min(longer / 64)) });
    }

    /// Gives up what is late; then drain [`Self::poll_event`].
    pub fn handle_timeout(&mut self, now: Micros) {
        self.now = self.now.max(now);
        self.settle();
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
        self.now = self.now.max(now);
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
        if let Some(capture) = marks.capture.filter(|_| !self.pending.contains_key(&id)) {
            self.note_way(now, capture);
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
        self.source = Some(Source { ssrc: h.ssrc, numbers, first, came: 0, seen: Window::default() });
        (self.next_frame, self.newest_frame, self.handed_out) = (None, None, None);
        self.jitter = Jitter::default();
        self.way_us = None;
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
        if let Some(id) = self.first_under_repair() {
            self.pending.split_off(&id);
        }
        self.give_up_pending();
    }

    /// The first pending frame that may still be repaired, or that waits for one before it: nothing can be said of it yet.
    fn first_under_repair(&self) -> Option<u64> {
        let budget_us = self.budget_us?;
        let mut next = self.next_frame;
        let waits = |(id, p): &(&u64, &Pending)| {
            let whole = p.is_complete() && next.is_none_or(|n| n == **id);
            next = Some(**id + 1);
            !whole && self.now < self.deadline(p, budget_us)
        };
        self.pending.iter().find(waits).map(|(id, _)| *id)
    }

    /// Hands out a frame or says that it is lost.
    fn release(&mut self, id: u64, p: Pending) {
        let skipped = self.next_frame.map_or(0, |n| id.saturating_sub(n));
        self.counters.frames_skipped += skipped;
        if skipped > 0 && !self.follows(&p) {
            self.out.push_back(FrameEvent::Skipped { frames: skipped });
        }
        self.next_frame = Some(id + 1);
        let frame_id = (id & 0xffff_ffff) as u32;
        self.handed_out = p.last.filter(|_| p.is_complete());
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
            let ready = oldest.is_complete() && self.is_in_turn(id, oldest);
            if !ready && !self.must_give_up(oldest) {
                return;
            }
            let Some(p) = self.pending.remove(&id) else { return };
            self.pending_packets = self.pending_packets.saturating_sub(p.packets.len());
            self.release(id, p);
        }
    }

    /// Whether nothing that may still come goes before the oldest pending frame.
    fn is_in_turn(&self, id: u64, oldest: &Pending) -> bool {
        let passed_over = self.budget_us.is_none() && self.pending_packets >= PASS_OVER_AFTER;
        self.next_frame.is_none_or(|n| n == id) || self.follows(oldest) || passed_over
    }

    /// Whether no number is missing before it: where ids are, the publisher has left frames out that nothing needs.
    fn follows(&self, p: &Pending) -> bool {
        self.handed_out.zip(p.first).is_some_and(|(last, first)| first.0 == last.0 + 1)
    }

    /// Whether the oldest pending frame has waited long enough.
    fn must_give_up(&self, oldest: &Pending) -> bool {
        if let Some(budget_us) = self.budget_us {
            return self.now >= self.deadline(oldest, budget_us) || self.pending_packets > MAX_PENDING;
        }
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
mod tests;
