//! A feed in the relay: what comes in is checked, numbered and stored, and the place of the last key frame is kept.

use super::ext::{ExtensionIds, read_marks};
use super::jitter::Jitter;
use super::ring::{PacketInfo, Ring, TooLarge};
use super::rtp::{Header, RtpError};
use super::seq::SeqExtender;
use crate::units::{Bitrate, Micros, SeqNo, Ssrc};

/// Key frames are asked for upstream at most this often, in microseconds.
pub const KEY_FRAME_SPACING_US: u64 = 500_000;
/// A joiner starts from a key frame that is at most this old, in microseconds; else it waits for the next one, which is asked
/// for: a fresh picture is worth a moment.
pub const JOIN_FROM_CACHE_US: u64 = 600_000;
/// The same where the publisher did not answer the last request for a key frame: a recording, an encoder that ignores them.
pub const JOIN_UNANSWERED_US: u64 = 2_000_000;
/// A request that was answered within this time, in microseconds, was answered.
const ANSWER_US: u64 = 500_000;
/// As much as this a joiner is sent at once; more is sent at [`CATCH_UP`] times the pace at which it came, so that it shows a
/// picture at once and the present one after as long again.
const JOIN_BURST_BYTES: u64 = 256 << 10;
/// The pace of a group of pictures is known after so long, in microseconds.
const PACE_US: u64 = 100_000;
/// The same where a leg is given another feed: what was said a second ago is not said late.
pub const SWITCH_FROM_CACHE_US: u64 = 600_000;
/// How many times faster than its feed came a joiner is sent what came before it.
pub const CATCH_UP: u64 = 2;
/// A key frame that was asked for and has not come for so long is overdue, in microseconds.
pub const KEY_FRAME_OVERDUE_US: u64 = 3_000_000;
/// Packets that can stand before the one that shows a frame to be independent: delimiter, parameter sets, SEI.
const MAX_LEADING: usize = 64;
/// A jump of more than this many sequence numbers is a new source, not loss; in a ring with much room, of half of it: at 400
/// Mbit/s a tenth of a second has 4,500.
const MAX_JUMP: i64 = 3_000;

/// How a feed is set up.
#[derive(Debug, Clone, Copy)]
pub struct FeedConfig {
    /// RTP clock rate in Hz.
    pub clock_rate: u32,
    /// Payload type that the descriptor named.
    pub payload_type: u8,
    /// Extension ids that the descriptor named.
    pub extensions: ExtensionIds,
    /// Slots of the ring.
    pub slots: usize,
    /// Bytes of a slot.
    pub slot_size: usize,
}

/// Why a packet was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Not RTP.
    #[error(transparent)]
    NotRtp(#[from] RtpError),
    /// A payload type that the descriptor does not name.
    #[error("payload type {0} is not the feed's")]
    PayloadType(u8),
    /// Another source, or the same one far from where it was: taken when its next packet follows (RFC 3550 appendix A.1).
    #[error("packet is the first of another source")]
    Probation,
    /// It came before.
    #[error("packet came before")]
    Duplicate,
    /// It is older than what the ring holds, so that nobody can tell whether it came before.
    #[error("packet is older than the ring")]
    TooOld,
    /// No room.
    #[error(transparent)]
    TooLarge(#[from] TooLarge),
}

/// Where a viewer begins that is given a key frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Index of the packet that came first, of those that are not before the frame.
    pub index: u64,
    /// The frame's first packet by number.
    pub start: PacketInfo,
}

/// The last key frame.
#[derive(Debug, Clone, Copy)]
struct KeyPoint {
    entry: Entry,
    /// When the packet at the entry came.
    at: Micros,
    /// Bytes stored from there on.
    bytes_since: u64,
}

impl KeyPoint {
    /// The rate since then, once that is known.
    fn pace(&self, now: Micros) -> Option<Bitrate> {
        let took = now.since(self.at);
        (took >= PACE_US).then(|| Bitrate(self.bytes_since.saturating_mul(8_000_000) / took))
    }
}

/// A packet was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Taken {
    /// Its index in the ring.
    pub index: u64,
    /// It was the last of its frame.
    pub frame_end: bool,
}

/// Counters since the feed began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FeedCounters {
    /// Packets taken.
    pub packets: u64,
    /// Bytes of those, with RTP headers.
    pub bytes: u64,
    /// Frames whose last packet came.
    pub frames: u64,
    /// Sequence numbers that were skipped and have not come since.
    pub missing: u64,
    /// Duplicates refused.
    pub duplicates: u64,
    /// Other packets refused.
    pub refused: u64,
    /// Key frames asked for upstream.
    pub key_requests: u64,
}

#[derive(Debug, Clone, Copy)]
struct Source {
    ssrc: Ssrc,
    numbers: SeqExtender,
    generation: u32,
}

/// What the relay keeps of one feed.
#[derive(Debug)]
pub struct Feed {
    config: FeedConfig,
    ring: Ring,
    source: Option<Source>,
    /// First packet of what may be another source.
    probation: Option<(Ssrc, u16)>,
    /// That packet.
    held: Vec<u8>,
    last_key: Option<KeyPoint>,
    /// The pace of the group of pictures before.
    pace_before: Option<Bitrate>,
    /// The last request for a key frame was not answered in time.
    unanswered: bool,
    last_arrival: Option<Micros>,
    key_wanted: bool,
    key_asked: Option<Micros>,
    /// When a key frame was first asked for after the last one came.
    key_asked_first: Option<Micros>,
    jitter: Jitter,
    counters: FeedCounters,
}

impl Feed {
    /// An empty feed.
    #[must_use]
    pub fn new(config: FeedConfig) -> Self {
        Self {
            ring: Ring::new(config.slots, config.slot_size),
            config,
            source: None,
            probation: None,
            held: Vec::new(),
            last_key: None,
            pace_before: None,
            unanswered: false,
            last_arrival: None,
            key_wanted: false,
            key_asked: None,
            key_asked_first: None,
            jitter: Jitter::default(),
            counters: FeedCounters::default(),
        }
    }

    /// Takes one RTP packet.
    ///
    /// # Errors
    /// Why it was refused; nothing changed then but a counter.
    pub fn handle_packet(&mut self, now: Micros, packet: &[u8]) -> Result<Taken, Refused> {
        let taken = match Header::parse(packet) {
            Ok(h) => self.take(now, &h, packet),
            Err(error) => Err(error.into()),
        };
        self.count(&taken);
        taken
    }

    /// The same for a packet whose header was read already.
    ///
    /// # Errors
    /// As [`Self::handle_packet`].
    pub fn handle_parsed(&mut self, now: Micros, h: &Header, packet: &[u8]) -> Result<Taken, Refused> {
        let taken = self.take(now, h, packet);
        self.count(&taken);
        taken
    }

    /// Whether a packet of that number is here already; it is counted as a duplicate then. For who asks before the packet is
    /// looked at further: a second copy costs its sender nothing of what it was granted.
    pub fn refuse_copy(&mut self, h: &Header) -> bool {
        let is_copy = h.payload_type == self.config.payload_type
            && self
                .source
                .is_some_and(|s| s.ssrc == h.ssrc && self.ring.find(s.generation, s.numbers.peek(h.seq)).is_some());
        self.counters.duplicates += u64::from(is_copy);
        is_copy
    }

    fn count(&mut self, taken: &Result<Taken, Refused>) {
        match taken {
            Ok(_) => {}
            Err(Refused::Duplicate) => self.counters.duplicates += 1,
            Err(_) => self.counters.refused += 1,
        }
    }

    fn take(&mut self, now: Micros, h: &Header, packet: &[u8]) -> Result<Taken, Refused> {
        if h.payload_type != self.config.payload_type {
            return Err(Refused::PayloadType(h.payload_type));
        }
        match self.number(h) {
            Err(Refused::Probation) => self.probe(now, h, packet),
            number => {
                let (seq, generation) = number?;
                self.store(now, h, packet, seq, generation)
            }
        }
    }

    /// A packet that does not go on from the last one. The first is kept aside; when the next one follows it, a new source
    /// begins with both. One stray packet changes nothing.
    fn probe(&mut self, now: Micros, h: &Header, packet: &[u8]) -> Result<Taken, Refused> {
        if self.probation.take_if(|(ssrc, seq)| *ssrc == h.ssrc && seq.wrapping_add(1) == h.seq).is_none() {
            self.ring.fits(packet)?;
            self.probation = Some((h.ssrc, h.seq));
            // At most a slot of the ring, and allocated once.
            self.held.reserve_exact(self.ring.slot_size().saturating_sub(self.held.len()));
            self.held.clear();
            self.held.extend_from_slice(packet);
            return Err(Refused::Probation);
        }
        let held = std::mem::take(&mut self.held);
        let taken = self.begin_with(now, &held, h, packet);
        self.held = held;
        taken
    }

    fn begin_with(&mut self, now: Micros, first: &[u8], h: &Header, packet: &[u8]) -> Result<Taken, Refused> {
        let first_header = Header::parse(first)?;
        let generation = self.begin(&first_header);
        let seq = self.extend(first_header.seq);
        self.store(now, &first_header, first, seq, generation)?;
        let seq = self.extend(h.seq);
        self.store(now, h, packet, seq, generation)
    }

    /// Begins a new generation at this packet. What the same source skipped on the way there is missing.
    fn begin(&mut self, h: &Header) -> u32 {
        if let Some(s) = self.source.filter(|s| s.ssrc == h.ssrc)
            && let Some(before) = s.numbers.highest()
        {
            let jump = s.numbers.peek(h.seq).0.saturating_sub(before.0);
            self.counters.missing += jump.saturating_sub(1);
        }
        let generation = self.source.map_or(0, |s| s.generation.wrapping_add(1));
        self.source = Some(Source { ssrc: h.ssrc, numbers: SeqExtender::default(), generation });
        self.last_key = None;
        self.key_asked_first = None;
        self.jitter = Jitter::default();
        generation
    }

    fn extend(&mut self, seq: u16) -> SeqNo {
        self.source.as_mut().map_or(SeqNo(u64::from(seq)), |s| s.numbers.extend(seq))
    }

    fn store(&mut self, now: Micros, h: &Header, packet: &[u8], seq: SeqNo, generation: u32) -> Result<Taken, Refused> {
        let marks = read_marks(h, packet, self.config.extensions);
        let frame = marks.frame.unwrap_or_default();
        let payload = h.payload(packet).len();
        let info = PacketInfo {
            seq,
            timestamp: h.timestamp,
            marker: h.marker,
            payload_offset: u16::try_from(h.payload_offset).unwrap_or(u16::MAX),
            payload_len: u16::try_from(payload).unwrap_or(u16::MAX),
            frame,
            capture: marks.capture,
            arrived: now,
            generation,
        };
        let index = self.ring.push(info, packet)?;
        self.note(now, index, &info, packet.len());
        Ok(Taken { index, frame_end: frame.marks.end || h.marker })
    }

    /// Widens the sequence number of a packet that goes on from the last one.
    fn number(&mut self, h: &Header) -> Result<(SeqNo, u32), Refused> {
        let Some(s) = &mut self.source else {
            let generation = self.begin(h);
            return Ok((self.extend(h.seq), generation));
        };
        let seq = s.numbers.peek(h.seq);
        let before = s.numbers.highest().map_or(seq.0, |b| b.0);
        let jump = seq.0.cast_signed().wrapping_sub(before.cast_signed());
        if s.ssrc != h.ssrc || jump.abs() > MAX_JUMP.max(self.ring.slots() as i64 / 2) {
            return Err(Refused::Probation);
        }
        if self.ring.find(s.generation, seq).is_some() {
            return Err(Refused::Duplicate);
        }
        if jump < 0 && jump.unsigned_abs() >= self.ring.slots() as u64 {
            return Err(Refused::TooOld);
        }
        s.numbers.extend(h.seq);
        if jump > 1 {
            self.counters.missing += jump.unsigned_abs() - 1;
        } else if jump < 0 {
            self.counters.missing = self.counters.missing.saturating_sub(1);
        }
        Ok((seq, s.generation))
    }

    fn note(&mut self, now: Micros, index: u64, info: &PacketInfo, len: usize) {
        // Padding is no sign of life: a sender that lost its camera goes on with it.
        if info.payload_len > 0 {
            self.last_arrival = Some(now);
        }
        self.counters.packets += 1;
        self.counters.bytes += len as u64;
        if info.frame.marks.end || info.marker {
            self.counters.frames += 1;
        }
        self.jitter.handle_packet(now, info.timestamp, self.config.clock_rate);
        if let Some(k) = &mut self.last_key {
            k.bytes_since += len as u64;
        }
        let known = self.last_key.is_some_and(|k| k.entry.start.frame.frame_id == info.frame.frame_id);
        if info.frame.marks.independent && !known {
            self.note_key_frame(index);
        }
    }

    fn note_key_frame(&mut self, index: u64) {
        let Some(entry) = self.entry_of(index) else { return };
        // A key frame that comes late does not move the joiners' place back.
        if self.last_key.is_some_and(|k| k.entry.start.seq >= entry.start.seq) {
            return;
        }
        let stored = (entry.index..=index).filter_map(|i| self.ring.get(i));
        let bytes_since = stored.map(|(_, packet)| packet.len() as u64).sum();
        let at = self.ring.get(entry.index).map_or(entry.start.arrived, |(first, _)| first.arrived);
        self.pace_before = self.last_key.and_then(|k| k.pace(at)).or(self.pace_before);
        if let Some(asked) = self.key_asked_first.take() {
            self.unanswered = at.since(asked) > ANSWER_US;
        }
        self.last_key = Some(KeyPoint { entry, at, bytes_since });
        self.key_wanted = false;
    }

    /// Where a viewer begins to whom the packet of that index shows that its frame is independent: at the frame's first
    /// packet, where that and all between the two are here. What comes first in a frame may not show it, for a delimiter or
    /// parameter sets precede pictures of all kinds; and packets that come late may complete what goes before.
    #[must_use]
    pub fn entry_of(&self, index: u64) -> Option<Entry> {
        let (shown, _) = self.ring.get(index).filter(|(p, _)| p.frame.marks.independent)?;
        let (generation, frame_id) = (shown.generation, shown.frame.frame_id);
        let (mut first, mut start) = (index, shown);
        for _ in 0..MAX_LEADING {
            if start.frame.marks.start {
                break;
            }
            let at = self.ring.find(generation, SeqNo(start.seq.0.checked_sub(1)?))?;
            start = self.ring.get(at).map(|(p, _)| p).filter(|p| p.frame.frame_id == frame_id)?;
            first = first.min(at);
        }
        if !start.frame.marks.start {
            return None;
        }
        // What came before its first packet and is not older belongs to it, or to what needs it.
        let later = |i: &u64| self.ring.get(*i).is_some_and(|(p, _)| p.generation == generation && p.seq > start.seq);
        first = (self.ring.oldest()..first).rev().take_while(later).last().unwrap_or(first);
        Some(Entry { index: first, start: *start })
    }

    /// A packet of the publisher was refused before it got here.
    pub const fn count_refused(&mut self) {
        self.counters.refused += 1;
    }

    /// Interarrival jitter in units of the RTP clock (RFC 3550 section 6.4.1), over the first packets of frames.
    #[must_use]
    pub const fn jitter(&self) -> u32 {
        self.jitter.ticks()
    }

    /// Somebody needs a key frame.
    pub const fn handle_key_frame_request(&mut self) {
        self.key_wanted = true;
    }

    /// Whether a key frame is to be asked for upstream now. Requests are merged and spaced by [`KEY_FRAME_SPACING_US`].
    pub fn poll_key_frame_request(&mut self, now: Micros) -> Option<Ssrc> {
        let ssrc = self.source?.ssrc;
        let due = self.key_asked.is_none_or(|t| now.since(t) >= KEY_FRAME_SPACING_US);
        if !(self.key_wanted && due) {
            return None;
        }
        self.key_asked = Some(now);
        self.key_asked_first.get_or_insert(now);
        self.counters.key_requests += 1;
        Some(ssrc)
    }

    /// Whether a key frame was asked for [`KEY_FRAME_OVERDUE_US`] ago, is still wanted, and none came since: the publisher may
    /// refresh its pictures gradually and send no key frames at all.
    #[must_use]
    pub fn key_frame_overdue(&self, now: Micros) -> bool {
        self.key_wanted && self.key_asked_first.is_some_and(|t| now.since(t) >= KEY_FRAME_OVERDUE_US)
    }

    /// Where a joiner can start at once: the last key frame, where it is not older than that and the ring will hold what came
    /// since until the joiner has it.
    #[must_use]
    pub fn join_point(&self, now: Micros, age_us: u64) -> Option<u64> {
        let k = self.last_key?;
        let fresh = now.since(k.at) <= age_us;
        // At twice the pace what it has not sent yet only becomes less; a quarter of the ring is left for a feed that comes
        // faster meanwhile.
        let since = self.ring.head().saturating_sub(k.entry.index);
        (fresh && since <= self.ring.slots() as u64 / 4 * 3).then_some(k.entry.index)
    }

    /// How old a key frame may be that a joiner starts from, in microseconds.
    #[must_use]
    pub fn join_age_us(&self, now: Micros) -> u64 {
        let waits = self.key_asked_first.is_some_and(|t| now.since(t) > ANSWER_US);
        if waits || self.unanswered { JOIN_UNANSWERED_US } else { JOIN_FROM_CACHE_US }
    }

    /// Rate at which a joiner is sent what came before it.
    #[must_use]
    pub fn catch_up_rate(&self, now: Micros) -> Bitrate {
        let Some(k) = self.last_key.filter(|k| k.bytes_since > JOIN_BURST_BYTES) else { return Bitrate(u64::MAX) };
        // A key frame alone says nothing about the pace of its group.
        let pace = k.pace(now).into_iter().chain(self.pace_before).max_by_key(|p| p.0);
        pace.map_or(Bitrate(u64::MAX), |p| Bitrate(p.0.saturating_mul(CATCH_UP)))
    }

    /// The stored packets.
    #[must_use]
    pub const fn ring(&self) -> &Ring {
        &self.ring
    }

    /// RTP clock rate in Hz.
    #[must_use]
    pub const fn clock_rate(&self) -> u32 {
        self.config.clock_rate
    }

    /// Ids of the extensions that its packets have.
    #[must_use]
    pub const fn extensions(&self) -> ExtensionIds {
        self.config.extensions
    }

    /// When the last packet with a payload came: padding does not make a feed live.
    #[must_use]
    pub const fn last_arrival(&self) -> Option<Micros> {
        self.last_arrival
    }

    /// Counters.
    #[must_use]
    pub const fn counters(&self) -> FeedCounters {
        self.counters
    }

    /// Highest sequence number of the present source, with its SSRC.
    #[must_use]
    pub fn highest(&self) -> Option<(Ssrc, SeqNo)> {
        self.source.and_then(|s| Some((s.ssrc, s.numbers.highest()?)))
    }
}

#[cfg(test)]
mod joining;

#[cfg(test)]
pub(crate) mod tests;
