//! A leg: one viewer's way through a feed. It is a cursor into the ring that *returns* what to send next; whoever owns
//! the socket sends it. A leg never holds a packet, so its queue is the distance between its cursor and the ring's head.

use super::fec;
use super::feed::{Entry, Feed, SWITCH_FROM_CACHE_US};
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
    /// It began at a key frame of the past and has not come to the present yet.
    catching_up: bool,
    /// Frames that no other needs are left out.
    only_needed: bool,
    /// Frames that began to come before are left out.
    not_before: Micros,
    /// The frame that is being left out.
    leaving_out: Option<u32>,
    /// The last packet taken ended its frame.
    between_frames: bool,
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
            catching_up: false,
            only_needed: false,
            not_before: Micros(0),
            leaving_out: None,
            between_frames: true,
            shed_at_piece: 0,
            feed_count: 0,
            counters: LegCounters::default(),
        }
    }

    /// Puts the leg at the feed's join point; to be called again when its transport is connected. A leg with numbers of its own that
    /// has sent already goes on in them: what it sent is gone for repair.
    pub fn start(&mut self, feed: &Feed, now: Micros) {
        if self.last.is_some() && matches!(self.numbering, Numbering::Own { .. }) {
            // The packets from the join point on may have gone once: under their old numbers they would be sealed twice.
            self.feed_count = self.feed_count.wrapping_add(1);
        }
        self.start_within(feed, now, feed.join_age_us(now));
    }

    fn start_within(&mut self, feed: &Feed, now: Micros, age_us: u64) {
        let join = feed.join_point(now, age_us);
        self.catching_up = join.is_some();
        self.cursor = join.unwrap_or(feed.ring().head());
        self.wait_for_key();
        // A key frame may be under way that nothing has shown to be one yet.
        self.passed = 0;
    }

    /// Waits from the cursor on.
    const fn wait_for_key(&mut self) {
        self.state = State::WaitKey;
        self.between_frames = true;
        self.leaving_out = None;
        self.waiting_from = self.cursor;
        self.passed = self.cursor;
    }

    /// Goes on with another feed of the same clock rate and payload format, from its next key frame on: another voice, or
    /// another view. Sequence and time of the leg are continuous. Packets of the feed before are gone for repair.
    pub fn switch(&mut self, feed: &Feed, now: Micros) {
        self.feed_count = self.feed_count.wrapping_add(1);
        self.start_within(feed, now, SWITCH_FROM_CACHE_US);
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
            if self.state == State::Live && self.leaves_out(info) {
                self.counters.shed += 1;
                continue;
            }
            if self.state == State::Live && self.between_frames && self.is_too_old(info) {
                self.counters.shed += 1;
                self.wait_for_key();
                continue;
            }
            if self.state == State::WaitKey {
                // What a viewer misses after its start is left out by the leg; before it, it is not its to have.
                self.counters.shed += u64::from(!self.pieces.is_empty());
                let fits = |e: &Entry| e.index >= self.passed && !self.is_too_old(&e.start);
                if let Some(entry) = feed.entry_of(index).filter(fits) {
                    self.go_live(feed, index, &entry);
                }
                continue;
            }
            if !has_room {
                self.counters.shed += 1;
                self.wait_for_key();
                continue;
            }
            self.between_frames = info.frame.marks.end || info.marker;
            let info = *info;
            // A packet from before the present piece would take a number that is used up: a number is sealed once.
            let Some((header, seq)) = self.number(&info, feed.clock_rate()) else { continue };
            self.counters.packets += 1;
            self.counters.octets += u64::from(info.payload_len);
            return Next::Send { index, header, seq };
        }
        self.catching_up = false;
        match self.state {
            State::WaitKey => Next::NeedKeyFrame,
            State::Live => Next::Idle,
        }
    }

    /// Whether a packet belongs to a frame that no other needs, and such are left out now: as a whole, from its first packet.
    fn leaves_out(&mut self, info: &PacketInfo) -> bool {
        let frame = info.frame.frame_id;
        let wanted = self.only_needed || self.is_too_old(info);
        if wanted && self.between_frames && info.frame.marks.discardable && info.frame.marks.start {
            self.leaving_out = Some(frame);
        }
        let out = self.leaving_out == Some(frame);
        if !out {
            self.leaving_out = None;
        }
        out
    }

    /// On a line that is getting full, frames that no other needs are left out; the others go on.
    pub const fn leave_out_discardable(&mut self, yes: bool) {
        self.only_needed = yes;
    }

    /// A frame that began to come before `cutoff` would be shown too late: it is left out whole, and everything that needs it up to
    /// the next key frame that came later. One of which packets have gone goes on, and what a joiner is sent of the past is not late
    /// for that.
    pub const fn leave_out_older(&mut self, cutoff: Micros) {
        self.not_before = cutoff;
    }

    const fn is_too_old(&self, info: &PacketInfo) -> bool {
        info.arrived.0 < self.not_before.0 && !self.catching_up
    }

    /// Leaves out the rest of a frame of which packets have gone, and everything up to the next key frame.
    pub const fn give_up_frame(&mut self) {
        if matches!(self.state, State::Live) && !self.between_frames {
            self.wait_for_key();
        }
    }

    /// How often the leg was given another feed: with it generations of packets are told apart.
    #[must_use]
    pub const fn feed_count(&self) -> u32 {
        self.feed_count
    }

    /// It began at a key frame of the past and has not come to the present yet: what waits for it is no sign of a slow line.
    #[must_use]
    pub const fn is_catching_up(&self) -> bool {
        self.catching_up
    }

    /// The packet that the leg looks at next, where one waits.
    #[must_use]
    pub fn next_packet<'a>(&self, feed: &'a Feed) -> Option<&'a PacketInfo> {
        feed.ring().get(self.cursor.max(feed.ring().oldest())).map(|(info, _)| info)
    }

    /// Bytes of payload of the packet that comes next, a little less than what is sent; none where nothing waits, or nothing
    /// but what came before the key frame that the leg waits for.
    #[must_use]
    pub fn next_len(&self, feed: &Feed) -> Option<u32> {
        if self.state == State::WaitKey {
            return None;
        }
        feed.ring().get(self.cursor.max(feed.ring().oldest())).map(|(info, _)| u32::from(info.payload_len))
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
        // What came late of frames before the one that the piece begins with stays behind: nobody could use parts of them.
        let seq = info.seq.0.checked_add_signed(piece.offset).filter(|seq| *seq >= piece.first)?;
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
        let last = self.last?.seq;
        // Near the start of the numbers the nearest one would lie below zero: nothing was sent under it.
        let wide = nearest(last, seq);
        if SeqNo(wide).low16() != seq {
            return None;
        }
        // A number above the last is for what comes next, whatever the leg has left out meanwhile.
        let piece = self.pieces.iter().rev().find(|p| p.first <= wide).filter(|_| wide <= last);
        let found = piece.filter(|p| p.feed_count == self.feed_count).and_then(|p| {
            let original = SeqNo(wide.saturating_add_signed(p.offset.checked_neg()?));
            let index = feed.ring().find(p.generation, original)?;
            let (info, _) = feed.ring().get(index)?;
            let timestamp = info.timestamp.wrapping_add(p.time_offset);
            let header = HeaderFields { marker: info.marker, payload_type, seq, timestamp, ssrc };
            (index < self.cursor).then_some((index, header, SeqNo(wide)))
        });
        match found {
            Some(_) => self.counters.repeated += 1,
            None => self.counters.gone += 1,
        }
        found
    }

    /// A NACKed sequence number of a verbatim leg: the packet's index, where the ring still has it and the leg has sent it. What
    /// the leg left out is a gap to its viewer, too: nobody could use it, and it was left out for want of room.
    #[must_use]
    pub fn handle_verbatim_nack(&self, feed: &Feed, seq: u16) -> Option<u64> {
        let (index, info, _) = fec::packet_of(feed, seq)?;
        // What went in a piece are the leg's numbers from its first to the next piece's first.
        let mut end = self.last?.seq + 1;
        let sent = self.pieces.iter().rev().any(|p| {
            let numbers = p.first..std::mem::replace(&mut end, p.first);
            let number = info.seq.0.checked_add_signed(p.offset);
            self.is_piece_of(p, info) && number.is_some_and(|n| numbers.contains(&n))
        });
        (sent && index < self.cursor).then_some(index)
    }

    /// Leaves out what has come so far and waits for the next key frame: after a pause, old pictures are of no use.
    pub fn skip_to_now(&mut self, feed: &Feed) {
        self.counters.shed += self.behind(feed);
        self.cursor = feed.ring().head();
        self.catching_up = false;
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
mod tests;
