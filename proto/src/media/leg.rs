//! A leg: one viewer's way through a feed. It is a cursor into the ring that *returns* what to send next; whoever owns
//! the socket sends it. A leg never holds a packet, so its queue is the distance between its cursor and the ring's head.

use super::feed::{Entry, Feed};
use super::ring::PacketInfo;
use super::rtp::HeaderFields;
use super::seq::nearest;
use crate::units::{Micros, SeqNo, Ssrc};
use std::collections::VecDeque;

/// What to send next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// This packet of the ring. A verbatim leg sends it as it is; another one with these header fields.
    Send {
        /// Index in the ring.
        index: u64,
        /// Header fields on the leg.
        header: HeaderFields,
        /// Widened sequence number on the leg.
        seq: SeqNo,
    },
    /// Nothing now.
    Idle,
    /// Nothing until a key frame comes, which should be asked for.
    NeedKeyFrame,
}

/// How the leg's packets are numbered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Numbering {
    /// As they came: native legs, bit for bit.
    Verbatim,
    /// By an SSRC and a continuous sequence of the leg's own: WebRTC legs.
    Own {
        /// SSRC of the leg.
        ssrc: Ssrc,
        /// Payload type that the viewer agreed to.
        payload_type: u8,
        /// First sequence number; random, below 2^15 (RFC 3550 section 5.1, RFC 3711 section 3.3.1).
        first_seq: u16,
    },
}

/// Counters since the leg began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LegCounters {
    /// Packets sent, without repeats.
    pub packets: u64,
    /// Payload bytes of those.
    pub octets: u64,
    /// Packets left out because the leg was full or too slow.
    pub shed: u64,
    /// Packets sent again on a NACK.
    pub repeated: u64,
    /// NACKed packets that were not in the ring any more.
    pub gone: u64,
}

/// How long the map from leg numbers back to feed numbers is, in pieces. A piece begins where the offset changes.
const MAX_PIECES: usize = 32;

#[derive(Debug, Clone, Copy)]
struct Piece {
    first: u64,
    /// Leg number minus feed number.
    offset: i64,
    generation: u32,
    /// [`Leg::feed_count`] when the piece began: generations of different feeds have nothing to do with each other.
    feed_count: u32,
    /// Leg timestamp minus feed timestamp, wrapping.
    time_offset: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    WaitKey,
    Live,
}

#[derive(Debug, Clone, Copy)]
struct LastSent {
    seq: u64,
    timestamp: u32,
    arrived: Micros,
}

/// One viewer's way through a feed.
#[derive(Debug)]
pub struct Leg {
    numbering: Numbering,
    cursor: u64,
    state: State,
    /// Where the waiting for a key frame began: what is left out from there on may yet turn out to belong to one.
    waiting_from: u64,
    /// No key frame is taken that begins before: of such a one packets were sent, or left out for want of room.
    passed: u64,
    pieces: VecDeque<Piece>,
    last: Option<LastSent>,
    /// [`LegCounters::shed`] when the newest piece began.
    shed_at_piece: u64,
    /// How often the leg was given another feed.
    feed_count: u32,
    counters: LegCounters,
}

impl Leg {
    /// A leg that starts at the feed's join point, or waits for a key frame.
    #[must_use]
    pub fn new(numbering: Numbering, feed: &Feed, now: Micros) -> Self {
        let mut leg = Self::silent(numbering);
        leg.start(feed, now);
        leg
    }

    /// A leg that has no feed yet: [`Self::switch`] gives it one.
    #[must_use]
    pub fn silent(numbering: Numbering) -> Self {
        Self {
            numbering,
            cursor: 0,
            state: State::WaitKey,
            waiting_from: 0,
            passed: 0,
            pieces: VecDeque::with_capacity(MAX_PIECES),
            last: None,
            shed_at_piece: 0,
            feed_count: 0,
            counters: LegCounters::default(),
        }
    }

    /// Puts the leg at the feed's join point; to be called again when its transport is connected.
    pub fn start(&mut self, feed: &Feed, now: Micros) {
        self.cursor = feed.join_point(now).unwrap_or(feed.ring().head());
        self.wait_for_key();
        // A key frame may be under way that nothing has shown to be one yet.
        self.passed = 0;
    }

    /// Waits from the cursor on.
    const fn wait_for_key(&mut self) {
        self.state = State::WaitKey;
        self.waiting_from = self.cursor;
        self.passed = self.cursor;
    }

    /// Goes on with another feed of the same clock rate and payload format, from its next key frame on: another voice, or
    /// another view. Sequence and time of the leg are continuous. Packets of the feed before are gone for repair.
    pub fn switch(&mut self, feed: &Feed, now: Micros) {
        self.feed_count = self.feed_count.wrapping_add(1);
        self.start(feed, now);
    }

    /// What to send next. `has_room` says whether the leg's transport takes another packet: where it does not, the
    /// frame is left out and everything up to the next key frame with it, so that no broken picture is shown.
    pub fn poll(&mut self, feed: &Feed, has_room: bool) -> Next {
        let ring = feed.ring();
        if self.cursor < ring.oldest() {
            self.counters.shed += ring.oldest() - self.cursor;
            self.cursor = ring.oldest();
            self.wait_for_key();
        }
        // Bounded by the ring: the cursor only rises, up to its head, but for one step back to each key frame's beginning,
        // which then is passed.
        while let Some((info, _)) = ring.get(self.cursor) {
            let index = self.cursor;
            // A new source that begins in the middle of a group of pictures cannot be decoded.
            let anew = self.pieces.back().is_some_and(|p| !self.is_piece_of(p, info));
            if self.state == State::Live && anew {
                self.wait_for_key();
            }
            self.cursor += 1;
            if self.state == State::WaitKey {
                // What a viewer misses after its start is left out by the leg; before it, it is not its to have.
                self.counters.shed += u64::from(!self.pieces.is_empty());
                if let Some(entry) = feed.entry_of(index).filter(|e| e.index >= self.passed) {
                    self.go_live(feed, index, &entry);
                }
                continue;
            }
            if !has_room {
                self.counters.shed += 1;
                self.wait_for_key();
                continue;
            }
            let info = *info;
            // A packet from before the present piece would take a number that is used up: a number is sealed once.
            let Some((header, seq)) = self.number(&info, feed.clock_rate()) else { continue };
            self.counters.packets += 1;
            self.counters.octets += u64::from(info.payload_len);
            return Next::Send { index, header, seq };
        }
        match self.state {
            State::WaitKey => Next::NeedKeyFrame,
            State::Live => Next::Idle,
        }
    }

    /// Begins with a key frame, of which the packet of that index is the last one looked at.
    fn go_live(&mut self, feed: &Feed, index: u64, entry: &Entry) {
        self.state = State::Live;
        if !self.pieces.is_empty() {
            // It is not left out after all.
            let back = index + 1 - entry.index.max(self.waiting_from);
            self.counters.shed = self.counters.shed.saturating_sub(back);
        }
        // The numbers begin with its first packet, but others of it may have come before that.
        self.piece_for(&entry.start, feed.clock_rate(), self.first_seq());
        self.cursor = entry.index;
    }

    const fn is_piece_of(&self, p: &Piece, info: &PacketInfo) -> bool {
        p.generation == info.generation && p.feed_count == self.feed_count
    }

    const fn first_seq(&self) -> u16 {
        match self.numbering {
            Numbering::Verbatim => 0,
            Numbering::Own { first_seq, .. } => first_seq,
        }
    }

    fn number(&mut self, info: &PacketInfo, clock_rate: u32) -> Option<(HeaderFields, SeqNo)> {
        let (ssrc, payload_type) = match self.numbering {
            Numbering::Verbatim => (Ssrc(0), 0),
            Numbering::Own { ssrc, payload_type, .. } => (ssrc, payload_type),
        };
        let piece = self.piece_for(info, clock_rate, self.first_seq());
        let seq = info.seq.0.saturating_add_signed(piece.offset);
        if seq < piece.first {
            return None;
        }
        let timestamp = info.timestamp.wrapping_add(piece.time_offset);
        if self.last.is_none_or(|l| seq > l.seq) {
            self.last = Some(LastSent { seq, timestamp, arrived: info.arrived });
        }
        let header = HeaderFields { marker: info.marker, payload_type, seq: SeqNo(seq).low16(), timestamp, ssrc };
        Some((header, SeqNo(seq)))
    }

    /// The piece of the number map that a packet falls into. Loss on the way in stays visible as a gap (the viewer may
    /// ask for it, and it may still come); what the leg itself left out, or a publisher's new start, closes up.
    fn piece_for(&mut self, info: &PacketInfo, clock_rate: u32, first_seq: u16) -> Piece {
        let last_piece = self.pieces.back().copied();
        let shed_before = self.counters.shed;
        if let Some(p) = last_piece.filter(|p| self.is_piece_of(p, info) && shed_before == self.shed_at_piece) {
            return p;
        }
        let (next_seq, time_offset) = match (self.last, last_piece) {
            (Some(last), Some(p)) => {
                let time_offset = if self.is_piece_of(&p, info) {
                    p.time_offset
                } else {
                    let elapsed =
                        info.arrived.since(last.arrived).max(1).saturating_mul(u64::from(clock_rate)) / 1_000_000;
                    last.timestamp.wrapping_add(u32::try_from(elapsed).unwrap_or(1).max(1)).wrapping_sub(info.timestamp)
                };
                (last.seq + 1, time_offset)
            }
            _ => (u64::from(first_seq), 0),
        };
        let piece = Piece {
            first: next_seq,
            offset: next_seq.cast_signed().wrapping_sub(info.seq.0.cast_signed()),
            generation: info.generation,
            feed_count: self.feed_count,
            time_offset,
        };
        if self.pieces.len() >= MAX_PIECES {
            self.pieces.pop_front();
        }
        self.pieces.push_back(piece);
        self.shed_at_piece = shed_before;
        piece
    }

    /// A NACKed sequence number of this leg: the packet's index, header and number, where the ring still has it.
    pub fn handle_nack(&mut self, feed: &Feed, seq: u16) -> Option<(u64, HeaderFields, SeqNo)> {
        let Numbering::Own { ssrc, payload_type, .. } = self.numbering else { return None };
        // Near the start of the numbers the nearest one would lie below zero: nothing was sent under it.
        let wide = nearest(self.last?.seq, seq);
        if SeqNo(wide).low16() != seq {
            return None;
        }
        let found =
            self.pieces.iter().rev().find(|p| p.first <= wide).filter(|p| p.feed_count == self.feed_count).and_then(
                |p| {
                    let original = SeqNo(wide.saturating_add_signed(p.offset.checked_neg()?));
                    let index = feed.ring().find(p.generation, original)?;
                    let (info, _) = feed.ring().get(index)?;
                    let timestamp = info.timestamp.wrapping_add(p.time_offset);
                    let header = HeaderFields { marker: info.marker, payload_type, seq, timestamp, ssrc };
                    (index < self.cursor).then_some((index, header, SeqNo(wide)))
                },
            );
        match found {
            Some(_) => self.counters.repeated += 1,
            None => self.counters.gone += 1,
        }
        found
    }

    /// Leaves out what has come so far and waits for the next key frame: after a pause, old pictures are of no use.
    pub fn skip_to_now(&mut self, feed: &Feed) {
        self.counters.shed += self.behind(feed);
        self.cursor = feed.ring().head();
        self.wait_for_key();
    }

    /// When the oldest packet came that the leg has not looked at.
    #[must_use]
    pub fn oldest_waiting(&self, feed: &Feed) -> Option<Micros> {
        let first = self.cursor.max(feed.ring().oldest());
        feed.ring().get(first).map(|(info, _)| info.arrived)
    }

    /// RTP timestamp that a packet of the ring has on this leg, by the present piece of the map.
    #[must_use]
    pub fn timestamp_on_leg(&self, info: &PacketInfo) -> Option<u32> {
        let p = self.pieces.back().filter(|p| self.is_piece_of(p, info))?;
        Some(info.timestamp.wrapping_add(p.time_offset))
    }

    /// Last RTP timestamp sent and when that packet came in, for sender reports.
    #[must_use]
    pub fn last_sent(&self) -> Option<(u32, Micros)> {
        self.last.map(|l| (l.timestamp, l.arrived))
    }

    /// How many packets of the ring the leg has not looked at.
    #[must_use]
    pub fn behind(&self, feed: &Feed) -> u64 {
        feed.ring().head().saturating_sub(self.cursor)
    }

    /// Counters.
    #[must_use]
    pub const fn counters(&self) -> LegCounters {
        self.counters
    }
}

#[cfg(test)]
mod tests {
    use super::super::feed::tests::{CONFIG, Publisher};
    use super::*;

    const OWN: Numbering = Numbering::Own { ssrc: Ssrc(77), payload_type: 102, first_seq: 0x7ffe };

    fn feed_with(p: &mut Publisher, at: u64, packets: u32, key: bool, f: &mut Feed, lose: &[usize]) {
        for (i, b) in p.frame(packets, key).iter().enumerate() {
            if !lose.contains(&i) {
                f.handle_packet(Micros(at), b).unwrap();
            }
        }
    }

    fn drain(leg: &mut Leg, feed: &Feed) -> (Vec<(u64, HeaderFields, SeqNo)>, Next) {
        let mut out = Vec::new();
        loop {
            match leg.poll(feed, true) {
                Next::Send { index, header, seq } => out.push((index, header, seq)),
                end => return (out, end),
            }
        }
    }

    #[test]
    fn a_joiner_gets_nothing_before_a_key_frame_and_everything_after() {
        let mut f = Feed::new(CONFIG);
        let mut p = Publisher { ssrc: 1, seq: 10, frame: 0 };
        feed_with(&mut p, 0, 3, false, &mut f, &[]);
        let mut leg = Leg::new(OWN, &f, Micros(0));
        assert_eq!(drain(&mut leg, &f), (vec![], Next::NeedKeyFrame));
        feed_with(&mut p, 1, 2, false, &mut f, &[]);
        assert_eq!(drain(&mut leg, &f).1, Next::NeedKeyFrame);
        feed_with(&mut p, 2, 3, true, &mut f, &[]);
        let (sent, end) = drain(&mut leg, &f);
        assert_eq!((sent.len(), end), (3, Next::Idle));
        assert_eq!(sent[0].1.seq, 0x7ffe);
        assert_eq!((sent[0].1.ssrc, sent[0].1.payload_type), (Ssrc(77), 102));
        assert!(sent[2].1.marker);
    }

    #[test]
    fn loss_on_the_way_in_stays_a_gap_and_the_late_packet_gets_its_own_number() {
        let mut f = Feed::new(CONFIG);
        let mut p = Publisher { ssrc: 1, seq: 65_533, frame: 0 };
        let packets = p.frame(6, true);
        for i in [0, 1, 3, 4, 5] {
            f.handle_packet(Micros(0), &packets[i]).unwrap();
        }
        let mut leg = Leg::new(OWN, &f, Micros(0));
        let (sent, _) = drain(&mut leg, &f);
        let numbers: Vec<_> = sent.iter().map(|s| s.2.0 - 0x7ffe).collect();
        assert_eq!(numbers, vec![0, 1, 3, 4, 5]);
        f.handle_packet(Micros(9), &packets[2]).unwrap();
        assert_eq!(drain(&mut leg, &f).0[0].2.0 - 0x7ffe, 2);
    }

    #[test]
    fn a_nack_finds_the_packet_that_was_sent_under_that_number_and_no_other() {
        let mut f = Feed::new(CONFIG);
        let mut p = Publisher { ssrc: 1, seq: 100, frame: 0 };
        feed_with(&mut p, 0, 5, true, &mut f, &[]);
        let mut leg = Leg::new(OWN, &f, Micros(0));
        let (sent, _) = drain(&mut leg, &f);
        for s in &sent {
            assert_eq!(leg.handle_nack(&f, s.1.seq), Some(*s));
        }
        assert_eq!(leg.handle_nack(&f, 0x7ffe_u16.wrapping_sub(1)), None);
        assert_eq!(leg.handle_nack(&f, 0x7ffe + 5), None, "not sent yet");
        assert_eq!((leg.counters().repeated, leg.counters().gone), (5, 2));
    }

    #[test]
    fn a_full_leg_loses_whole_frames_to_the_next_key_frame_and_its_numbers_close_up() {
        let mut f = Feed::new(CONFIG);
        let mut p = Publisher { ssrc: 1, seq: 100, frame: 0 };
        feed_with(&mut p, 0, 2, true, &mut f, &[]);
        let mut leg = Leg::new(OWN, &f, Micros(0));
        let (first, _) = drain(&mut leg, &f);
        feed_with(&mut p, 1, 4, false, &mut f, &[]);
        assert_eq!(leg.poll(&f, false), Next::NeedKeyFrame);
        feed_with(&mut p, 2, 4, false, &mut f, &[]);
        assert_eq!(drain(&mut leg, &f).0, vec![]);
        feed_with(&mut p, 3, 2, true, &mut f, &[]);
        let (again, _) = drain(&mut leg, &f);
        assert_eq!(again[0].2.0, first[1].2.0 + 1, "the viewer sees no gap");
        assert!(leg.counters().shed > 0);
        assert_eq!(leg.handle_nack(&f, again[0].1.seq), Some(again[0]));
        assert_eq!(leg.handle_nack(&f, first[0].1.seq), Some(first[0]), "numbers of the older piece still lead back");
    }

    #[test]
    fn a_publisher_that_starts_anew_goes_on_in_sequence_and_time() {
        let mut f = Feed::new(CONFIG);
        let mut p = Publisher { ssrc: 1, seq: 100, frame: 5 };
        feed_with(&mut p, 0, 2, true, &mut f, &[]);
        let mut leg = Leg::new(OWN, &f, Micros(0));
        let (first, _) = drain(&mut leg, &f);
        let mut q = Publisher { ssrc: 2, seq: 9_000, frame: 1_000_000 };
        // The first packet of a new source is taken with its second.
        let taken: Vec<_> = q.frame(2, true).iter().map(|b| f.handle_packet(Micros(1_000_000), b).is_ok()).collect();
        assert_eq!(taken, vec![false, true]);
        let (second, _) = drain(&mut leg, &f);
        assert_eq!(second[0].2.0, first[1].2.0 + 1);
        assert_eq!(second[0].1.timestamp.wrapping_sub(first[1].1.timestamp), 90_000, "one second at 90 kHz");
    }

    #[test]
    fn another_feed_goes_on_in_sequence_and_time_and_the_first_one_is_gone_for_repair() {
        let (mut f, mut g) = (Feed::new(CONFIG), Feed::new(CONFIG));
        let (mut p, mut q) =
            (Publisher { ssrc: 1, seq: 100, frame: 5 }, Publisher { ssrc: 2, seq: 40_000, frame: 1_000_000 });
        feed_with(&mut p, 0, 2, true, &mut f, &[]);
        feed_with(&mut q, 0, 2, true, &mut g, &[]);
        let mut leg = Leg::new(OWN, &f, Micros(0));
        let (first, _) = drain(&mut leg, &f);
        leg.switch(&g, Micros(1_000_000));
        assert_eq!(drain(&mut leg, &g).1, Next::NeedKeyFrame, "what came long before is not sent late");
        feed_with(&mut q, 1_000_000, 2, true, &mut g, &[]);
        let (second, _) = drain(&mut leg, &g);
        assert_eq!(second[0].2.0, first[1].2.0 + 1);
        assert_eq!(second[0].1.timestamp.wrapping_sub(first[1].1.timestamp), 90_000, "one second at 90 kHz");
        assert_eq!(leg.handle_nack(&g, second[0].1.seq), Some(second[0]));
        assert_eq!(leg.handle_nack(&g, first[0].1.seq), None);
        leg.switch(&f, Micros(2_000_000));
        feed_with(&mut p, 2_000_000, 2, true, &mut f, &[]);
        let (third, _) = drain(&mut leg, &f);
        assert_eq!(third[0].2.0, second[1].2.0 + 1);
        assert_eq!(leg.handle_nack(&f, first[0].1.seq), None, "its number is of an older time of that feed");
    }

    #[test]
    fn a_number_is_never_given_twice_even_when_a_late_packet_crosses_a_resume() {
        let mut f = Feed::new(CONFIG);
        let mut p = Publisher { ssrc: 1, seq: 100, frame: 0 };
        feed_with(&mut p, 0, 4, true, &mut f, &[]);
        let mut leg = Leg::new(OWN, &f, Micros(0));
        let (first, _) = drain(&mut leg, &f);
        let lost = p.frame(3, false);
        f.handle_packet(Micros(1), &lost[0]).unwrap();
        assert_eq!(leg.poll(&f, false), Next::NeedKeyFrame);
        feed_with(&mut p, 2, 2, true, &mut f, &[]);
        let (second, _) = drain(&mut leg, &f);
        f.handle_packet(Micros(3), &lost[2]).unwrap();
        let (late, _) = drain(&mut leg, &f);
        assert_eq!(late, vec![]);
        let mut numbers: Vec<_> = first.iter().chain(&second).map(|s| s.2).collect();
        let n = numbers.len();
        numbers.dedup();
        assert_eq!(numbers.len(), n);
    }

    #[test]
    fn a_key_frame_whose_packets_were_reordered_is_sent_whole() {
        let mut f = Feed::new(CONFIG);
        let mut p = Publisher { ssrc: 1, seq: 100, frame: 0 };
        feed_with(&mut p, 0, 2, false, &mut f, &[]);
        let mut leg = Leg::new(OWN, &f, Micros(0));
        drain(&mut leg, &f);
        let key = p.frame(4, true);
        for i in [2, 1, 0, 3] {
            f.handle_packet(Micros(1), &key[i]).unwrap();
        }
        let (sent, _) = drain(&mut leg, &f);
        let numbers: Vec<_> = sent.iter().map(|s| s.2.0 - 0x7ffe).collect();
        assert_eq!(numbers, vec![2, 1, 0, 3]);
    }

    #[test]
    fn after_a_pause_nothing_old_is_sent() {
        let mut f = Feed::new(CONFIG);
        let mut p = Publisher { ssrc: 1, seq: 100, frame: 0 };
        feed_with(&mut p, 0, 2, true, &mut f, &[]);
        let mut leg = Leg::new(OWN, &f, Micros(0));
        let (first, _) = drain(&mut leg, &f);
        feed_with(&mut p, 1, 5, true, &mut f, &[]);
        assert_eq!(leg.oldest_waiting(&f), Some(Micros(1)));
        leg.skip_to_now(&f);
        assert_eq!(leg.counters().shed, 5);
        feed_with(&mut p, 2, 3, false, &mut f, &[]);
        assert_eq!(drain(&mut leg, &f), (vec![], Next::NeedKeyFrame));
        feed_with(&mut p, 3, 2, true, &mut f, &[]);
        let (again, _) = drain(&mut leg, &f);
        assert_eq!(again[0].2.0, first[1].2.0 + 1);
    }

    #[test]
    fn a_leg_that_was_overrun_starts_again_at_a_key_frame() {
        let mut f = Feed::new(super::super::feed::FeedConfig { slots: 256, ..CONFIG });
        let mut p = Publisher { ssrc: 1, seq: 0, frame: 0 };
        feed_with(&mut p, 0, 2, true, &mut f, &[]);
        let mut leg = Leg::new(OWN, &f, Micros(0));
        drain(&mut leg, &f);
        for _ in 0..300 {
            feed_with(&mut p, 1, 1, false, &mut f, &[]);
        }
        let (sent, end) = drain(&mut leg, &f);
        assert_eq!((sent.len(), end), (0, Next::NeedKeyFrame));
    }
}
