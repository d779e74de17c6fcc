//! From RTP packets without marks to whole frames: by sequence number, timestamp and marker (RFC 3550 section 5.1). The
//! counterpart of `proto::media::receive` for a leg on which frames have no number.

use super::codec::begins_independent;
use std::collections::{BTreeMap, VecDeque};
use trocar_proto::media::jitter::Jitter;
use trocar_proto::media::receive::{CompleteFrame, FrameEvent, MAX_PENDING, ReceiveCounters};
use trocar_proto::media::seq::SeqExtender;
use trocar_proto::media::window::IndexWindow;
use trocar_proto::units::Micros;

/// A missing packet is waited for this long: a repair takes a round trip and more. Then its frame is given up.
pub(super) const WAIT_US: u64 = 500_000;
/// What is missing for so long is asked for here. The crate asks by itself for what did not come to it, but not for what it dropped: its
/// queue to us takes 256 packets, and a key frame of 4K has 400.
const ASK_AFTER_US: u64 = 60_000;
/// So often, and for so many packets at a time.
const ASK_EVERY_US: u64 = 40_000;
const ASK_FOR: usize = 256;
/// A leg that begins within a picture waits so long for one that can be decoded by itself. Then every frame is handed out: some
/// encoders refresh a picture bit by bit and send none.
const WAIT_FOR_KEY_US: u64 = 2_000_000;

/// What one packet says.
#[derive(Debug, Clone)]
pub(super) struct Packet {
    pub(super) ssrc: u32,
    pub(super) seq: u16,
    pub(super) timestamp: u32,
    pub(super) marker: bool,
    /// RTP payload; empty for padding alone.
    pub(super) payload: Vec<u8>,
}

#[derive(Debug)]
struct Held {
    packet: Packet,
    at: Micros,
}

/// Puts the packets of one track together.
#[derive(Debug)]
pub(super) struct Assembler {
    codec: String,
    clock_rate: u32,
    /// Each packet is a frame, as sound is sent.
    single: bool,
    ssrc: Option<u32>,
    /// Since when a picture that can be decoded by itself is waited for.
    waits_since: Option<Micros>,
    /// Whether a frame came since then.
    passed: bool,
    numbers: SeqExtender,
    seen: IndexWindow,
    first: u64,
    came: u64,
    missing_before: u64,
    /// Loss policy: at [`MAX_PENDING`] packets the oldest frame is given up.
    held: BTreeMap<u64, Held>,
    next: u64,
    /// The rest of the frame with this timestamp is passed over: its beginning is lost.
    damaged: Option<u32>,
    frame_id: u32,
    /// When it was looked last for what is to be asked for.
    asked: Micros,
    jitter: Jitter,
    out: VecDeque<FrameEvent>,
    counters: ReceiveCounters,
}

impl Assembler {
    /// For a codec by its encoding name, and its RTP clock rate in Hz.
    pub(super) fn new(codec: &str, clock_rate: u32) -> Self {
        Self {
            codec: codec.to_owned(),
            clock_rate,
            single: codec.eq_ignore_ascii_case("opus"),
            ssrc: None,
            waits_since: None,
            passed: false,
            numbers: SeqExtender::default(),
            seen: IndexWindow::default(),
            first: 0,
            came: 0,
            missing_before: 0,
            held: BTreeMap::new(),
            next: 0,
            damaged: None,
            frame_id: 0,
            asked: Micros(0),
            jitter: Jitter::default(),
            out: VecDeque::new(),
            counters: ReceiveCounters::default(),
        }
    }

    /// Takes one packet; then drain [`Self::poll_event`].
    pub(super) fn handle(&mut self, now: Micros, packet: Packet) {
        self.counters.packets += 1;
        self.counters.bytes += 12 + packet.payload.len() as u64;
        if self.ssrc != Some(packet.ssrc) {
            self.begin(packet.ssrc, packet.seq);
            (self.waits_since, self.passed) = (Some(now).filter(|_| !self.single), false);
        }
        let seq = self.numbers.extend(packet.seq).0;
        if self.seen.take(seq) {
            self.came += 1;
        } else {
            self.counters.duplicates += 1;
            return;
        }
        let highest = self.numbers.highest().map_or(seq, |s| s.0);
        self.counters.packets_missing = self.missing_before + (highest + 1 - self.first).saturating_sub(self.came);
        if seq < self.next {
            // Later than its frame was waited for.
            return;
        }
        self.jitter.handle_packet(now, packet.timestamp, self.clock_rate);
        self.held.insert(seq, Held { packet, at: now });
        self.settle(now);
    }

    /// A new source under the same track.
    fn begin(&mut self, ssrc: u32, seq: u16) {
        if self.held.values().any(|h| !h.packet.payload.is_empty()) {
            self.lose(None);
        }
        self.held.clear();
        self.missing_before = self.counters.packets_missing;
        self.ssrc = Some(ssrc);
        self.numbers = SeqExtender::default();
        self.seen = IndexWindow::default();
        self.first = self.numbers.peek(seq).0;
        (self.next, self.came, self.damaged) = (self.first, 0, None);
        self.jitter = Jitter::default();
    }

    fn settle(&mut self, now: Micros) {
        // Each turn takes at least one held packet, so they bound the turns.
        while let Some((&oldest, held)) = self.held.first_key_value() {
            if oldest != self.next {
                if now.since(held.at) < WAIT_US && self.held.len() < MAX_PENDING {
                    return;
                }
                self.pass_over(oldest);
            } else if held.packet.payload.is_empty() || self.damaged == Some(held.packet.timestamp) {
                self.held.remove(&oldest);
                self.next = oldest + 1;
            } else {
                self.damaged = None;
                let Some(end) = self.end_of_frame() else {
                    // In the middle of a frame: wait, unless what follows has come and this has not.
                    if !self.hole_is_old(now) {
                        return;
                    }
                    self.pass_over_frame();
                    continue;
                };
                self.emit(end, now);
            }
        }
    }

    /// The last number of the frame that begins at `next`, where all of it is there.
    fn end_of_frame(&self) -> Option<u64> {
        let timestamp = self.held.get(&self.next)?.packet.timestamp;
        for (expected, (&seq, held)) in (self.next..).zip(self.held.range(self.next..)) {
            if seq != expected {
                return None;
            }
            // A sender that sets no marker ends a frame by beginning the next.
            if held.packet.timestamp != timestamp && !held.packet.payload.is_empty() {
                return seq.checked_sub(1);
            }
            if held.packet.marker || self.single {
                return Some(seq);
            }
        }
        None
    }

    /// Whether the first hole behind `next` was waited for long enough.
    fn hole_is_old(&self, now: Micros) -> bool {
        for (expected, (&seq, held)) in (self.next..).zip(self.held.range(self.next..)) {
            if seq != expected {
                return now.since(held.at) >= WAIT_US || self.held.len() >= MAX_PENDING;
            }
        }
        self.held.len() >= MAX_PENDING
    }

    /// Gives up what is missing between `next` and `to`: the frame that `to` belongs to has perhaps lost its beginning.
    fn pass_over(&mut self, to: u64) {
        let timestamp = self.held.get(&to).map(|h| h.packet.timestamp);
        self.next = to;
        if self.damaged.is_none() || self.damaged != timestamp {
            self.lose(timestamp);
        }
        if self.single {
            self.damaged = None;
        }
    }

    /// Gives up the frame that begins at `next` and has a hole.
    fn pass_over_frame(&mut self) {
        let timestamp = self.held.get(&self.next).map(|h| h.packet.timestamp);
        self.lose(timestamp);
    }

    fn lose(&mut self, timestamp: Option<u32>) {
        self.damaged = timestamp;
        self.counters.frames_lost += 1;
        let packets = self.held.values().filter(|h| Some(h.packet.timestamp) == timestamp).count();
        let packets = u32::try_from(packets).unwrap_or(u32::MAX);
        self.out.push_back(FrameEvent::Lost { frame_id: self.frame_id, packets });
        self.frame_id = self.frame_id.wrapping_add(1);
    }

    fn emit(&mut self, end: u64, now: Micros) {
        let rest = self.held.split_off(&(end + 1));
        let packets = std::mem::replace(&mut self.held, rest);
        self.next = end + 1;
        let arrivals = || packets.values().map(|h| h.at);
        let (Some(first_arrival), Some(last_arrival)) = (arrivals().min(), arrivals().max()) else { return };
        let timestamp = packets.values().next().map_or(0, |h| h.packet.timestamp);
        let payloads: Vec<Vec<u8>> =
            packets.into_values().map(|h| h.packet.payload).filter(|p| !p.is_empty()).collect();
        let independent = payloads.iter().any(|p| begins_independent(&self.codec, p));
        if !independent && self.waits_since.is_some_and(|t| now.since(t) < WAIT_FOR_KEY_US) {
            self.passed = true;
            self.counters.frames_skipped += 1;
            self.out.push_back(FrameEvent::Skipped { frames: 1 });
            return;
        }
        self.waits_since = None;
        self.counters.frames += 1;
        self.out.push_back(FrameEvent::Complete(CompleteFrame {
            frame_id: self.frame_id,
            independent,
            timestamp,
            capture: None,
            first_arrival,
            last_arrival,
            payloads,
        }));
        self.frame_id = self.frame_id.wrapping_add(1);
    }

    /// What came of the next frame. Its number counts what was handed out and given up here: it is not the publisher's.
    pub(super) fn poll_event(&mut self) -> Option<FrameEvent> {
        self.out.pop_front()
    }

    /// Sequence numbers that are to be asked for now.
    pub(super) fn overdue(&mut self, now: Micros) -> Vec<u16> {
        if self.ssrc.is_none() || now.since(self.asked) < ASK_EVERY_US {
            return Vec::new();
        }
        self.asked = now;
        let mut expected = self.next;
        let (mut missing, mut perhaps) = (Vec::new(), Vec::new());
        for (&seq, held) in self.held.range(self.next..) {
            let room = ASK_FOR.saturating_sub(missing.len() + perhaps.len());
            perhaps.extend((expected..seq).take(room).map(|n| (n & 0xffff) as u16));
            // What stands before one that came long ago is missing since then.
            if now.since(held.at) >= ASK_AFTER_US {
                missing.append(&mut perhaps);
            }
            expected = seq + 1;
        }
        missing
    }

    /// Whether frames were passed over since the leg began, as none of them could be decoded by itself.
    pub(super) const fn waits_for_key_frame(&self) -> bool {
        self.waits_since.is_some() && self.passed
    }

    /// Counters.
    pub(super) const fn counters(&self) -> ReceiveCounters {
        self.counters
    }

    /// Interarrival jitter in RTP clock ticks.
    pub(super) const fn jitter(&self) -> u32 {
        self.jitter.ticks()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Packet `seq` of frame `frame`, two or three a frame.
    fn packet(seq: u16, frame: u32, marker: bool) -> Packet {
        let first = if frame == 0 { 0x65 } else { 0x41 };
        Packet { ssrc: 1, seq, timestamp: frame * 3_000, marker, payload: vec![first, seq as u8] }
    }

    /// `frames` frames of three packets each, from sequence number `from`.
    fn stream(from: u16, frames: u32) -> Vec<Packet> {
        (0..frames * 3).map(|i| packet(from.wrapping_add(i as u16), i / 3, i % 3 == 2)).collect()
    }

    /// Timestamps of complete frames, in frames; and how many were lost.
    fn run(packets: impl IntoIterator<Item = (u64, Packet)>, codec: &str) -> (Vec<u32>, u64, ReceiveCounters) {
        let mut a = Assembler::new(codec, 90_000);
        let (mut complete, mut lost) = (Vec::new(), 0);
        for (ms, p) in packets {
            a.handle(Micros(ms * 1_000), p);
            while let Some(e) = a.poll_event() {
                match e {
                    FrameEvent::Complete(f) => complete.push(f.timestamp / 3_000),
                    FrameEvent::Lost { .. } | FrameEvent::Skipped { .. } => lost += 1,
                }
            }
        }
        (complete, lost, a.counters())
    }

    fn timed(packets: Vec<Packet>) -> Vec<(u64, Packet)> {
        packets.into_iter().enumerate().map(|(i, p)| (i as u64 * 10, p)).collect()
    }

    #[test]
    fn frames_come_out_whole_and_in_order_over_the_wrap_and_from_shuffled_packets() {
        let mut packets = stream(65_530, 10);
        packets.swap(4, 5);
        packets.swap(9, 13);
        let (complete, lost, c) = run(timed(packets), "H264");
        assert_eq!((complete, lost), ((0..10).collect(), 0));
        assert_eq!((c.packets_missing, c.duplicates, c.frames), (0, 0, 10));
    }

    #[test]
    fn a_frame_with_a_hole_is_given_up_after_a_while_and_the_next_ones_follow() {
        for missing in [12, 13, 14] {
            let mut packets = timed(stream(0, 60));
            packets.remove(missing);
            let (complete, lost, c) = run(packets, "H264");
            let mut expected: Vec<u32> = (0..60).collect();
            expected.remove(4);
            if missing == 14 {
                // Its last packet: nothing tells that the next one begins at once.
                expected.remove(4);
            }
            let given_up = 60 - expected.len() as u64;
            assert_eq!((complete, lost, c.packets_missing), (expected, given_up, 1), "without {missing}");
        }
    }

    #[test]
    fn a_repaired_packet_completes_its_frame_within_the_wait_and_not_after_it() {
        for (late, frames) in [(40, 60), (52, 59)] {
            let mut packets = timed(stream(0, 60));
            let (_, repair) = packets.remove(12);
            packets.insert(12 + late, (packets[12 + late].0, repair));
            let (complete, _, c) = run(packets, "H264");
            assert_eq!((complete.len(), c.packets_missing), (frames, 0), "{late} packets late");
        }
    }

    #[test]
    fn duplicates_and_padding_are_no_frames() {
        let mut packets = stream(0, 3);
        packets.insert(3, packets[2].clone());
        packets.push(Packet { payload: Vec::new(), marker: false, ..packet(9, 2, false) });
        packets.push(packet(10, 3, true));
        let (complete, lost, c) = run(timed(packets), "H264");
        assert_eq!((complete, lost, c.duplicates), (vec![0, 1, 2, 3], 0, 1));
    }

    #[test]
    fn each_packet_of_sound_is_a_frame_and_a_lost_one_costs_no_other() {
        let mut packets: Vec<_> = (0..80).map(|i| (u64::from(i) * 20, packet(i as u16, i, false))).collect();
        packets.remove(10);
        let (complete, lost, c) = run(packets, "opus");
        assert_eq!((complete.len(), lost, c.packets_missing), (79, 1, 1));
    }

    #[test]
    fn what_does_not_come_is_asked_for_after_a_while_and_again_until_it_is_there() {
        let mut a = Assembler::new("H264", 90_000);
        let packets = stream(65_534, 4);
        let (lost, came): (Vec<_>, Vec<_>) = packets.into_iter().partition(|p| [65_535, 0, 4].contains(&p.seq));
        came.into_iter().for_each(|p| a.handle(Micros(100_000), p));
        assert!(a.overdue(Micros(150_000)).is_empty(), "whoever is below us asks first");
        assert!(a.overdue(Micros(170_000)).is_empty(), "it was looked a moment ago");
        assert_eq!(a.overdue(Micros(190_000)), [65_535, 0, 4]);
        assert!(a.overdue(Micros(200_000)).is_empty());
        a.handle(Micros(210_000), lost[1].clone());
        assert_eq!(a.overdue(Micros(230_000)), [65_535, 4]);
        lost.into_iter().for_each(|p| a.handle(Micros(240_000), p));
        assert!(a.overdue(Micros(400_000)).is_empty(), "the control: nothing is missing");
        assert_eq!((a.counters().frames, a.counters().frames_lost), (4, 0));
    }

    #[test]
    fn a_leg_that_begins_within_a_picture_waits_for_a_key_frame_but_not_for_ever() {
        let key = |seq, frame| Packet { payload: vec![0x65, 1], ..packet(seq, frame, true) };
        // Frames 1 to 9 need what never came; the key frame is number 10.
        let late = stream(0, 10).split_off(4);
        let (complete, passed, c) = run(timed(late.clone()).into_iter().chain([(300, key(30, 10))]), "H264");
        assert_eq!((complete, passed, c.frames_skipped), (vec![10], 9, 9));
        let mut a = Assembler::new("H264", 90_000);
        a.handle(Micros(0), late[0].clone());
        assert!(!a.waits_for_key_frame(), "nothing is asked for before a frame is over");
        late[1..3].iter().for_each(|p| a.handle(Micros(1), p.clone()));
        assert!(a.waits_for_key_frame());
        a.handle(Micros(2), key(7, 10));
        // An encoder that sends none is shown after all.
        let (complete, ..) = run(timed(stream(0, 90).split_off(4)), "H264");
        assert_eq!(complete.first(), Some(&68), "two seconds of three packets in 30 ms");
    }

    #[test]
    fn key_frames_are_marked_and_another_source_begins_anew() {
        let mut a = Assembler::new("H264", 90_000);
        stream(0, 2).into_iter().for_each(|p| a.handle(Micros(0), p));
        stream(40_000, 2).into_iter().for_each(|p| a.handle(Micros(1), Packet { ssrc: 2, ..p }));
        let keys: Vec<_> = std::iter::from_fn(|| a.poll_event())
            .map(|e| matches!(e, FrameEvent::Complete(CompleteFrame { independent: true, .. })))
            .collect();
        assert_eq!(keys, [true, false, true, false]);
        assert_eq!(a.counters().packets_missing, 0);
    }
}
