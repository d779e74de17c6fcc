//! The sender's side: source packets in, repair packets out.

use super::{HEADER, LENGTH, MAX_PACKET, MAX_SOURCES, OVERHEAD, RepairHeader, to_shard};
use crate::media::fec::policy::{BLOCK, Plan};
use crate::media::rtp::{FIXED_HEADER, Header, HeaderFields, write_header};
use crate::units::{Micros, Ssrc};
use reed_solomon_simd::ReedSolomonEncoder;
use std::ops::Range;

/// Numbers of a group at most; then it is closed, whether the frame is over or not.
const MAX_GROUP: u16 = 1_024;
/// Packets that are worth a group of their own at the end of their frame.
const MIN_GROUP: usize = 6;
/// Longer than this a group waits for no other frame, in microseconds.
const SPAN_US: u64 = 4_000;
/// Repair packets that wait to be fetched at most. Loss policy: those of a later group are not made.
const MAX_WAITING: usize = 2_048;
/// Sources below which a block is not split for the sake of interleaving.
const MIN_SPLIT: usize = 12;

/// Counters since the encoder began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct EncoderCounters {
    /// Source packets protected.
    pub sources: u64,
    /// Repair packets made.
    pub repairs: u64,
    /// Bytes of those, with RTP headers.
    pub repair_bytes: u64,
}

/// A source packet of the group, in order of number: its number after the group's first, and where it lies.
#[derive(Debug, Clone)]
struct Source {
    ahead: u16,
    bytes: Range<usize>,
}

/// Makes the repair packets of one line.
pub struct BlockEncoder {
    ssrc: Ssrc,
    payload_type: u8,
    plan: Plan,
    /// First number, SSRC and beginning of the group that is open.
    open: Option<(u16, Ssrc, Micros)>,
    timestamp: u32,
    sources: Vec<Source>,
    bytes: Vec<u8>,
    rs: Option<ReedSolomonEncoder>,
    shard: Vec<u8>,
    out: Vec<u8>,
    ready: Vec<Range<usize>>,
    fetched: usize,
    next_seq: u16,
    counters: EncoderCounters,
}

impl std::fmt::Debug for BlockEncoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BlockEncoder").field("ssrc", &self.ssrc).field("plan", &self.plan).finish_non_exhaustive()
    }
}

impl BlockEncoder {
    /// Repair packets get this SSRC, this payload type and numbers from `first_seq` on. Until [`Self::set_plan`] none are made.
    #[must_use]
    pub fn new(ssrc: Ssrc, payload_type: u8, first_seq: u16) -> Self {
        Self {
            ssrc,
            payload_type,
            plan: Plan::default(),
            open: None,
            timestamp: 0,
            sources: Vec::new(),
            bytes: Vec::new(),
            rs: None,
            shard: Vec::new(),
            out: Vec::new(),
            ready: Vec::new(),
            fetched: 0,
            next_seq: first_seq,
            counters: EncoderCounters::default(),
        }
    }

    /// How much, from the next group on.
    pub const fn set_plan(&mut self, plan: Plan) {
        self.plan = plan;
    }

    /// Takes a source packet as it leaves. `frame_end`: it is the last of its frame. Then drain [`Self::poll_repair`].
    pub fn handle_packet(&mut self, now: Micros, packet: &[u8], frame_end: bool) {
        if self.plan.fec_percent == 0 {
            return self.forget();
        }
        let Ok(h) = Header::parse(packet) else { return };
        if packet.len() > MAX_PACKET {
            return;
        }
        if self.open.is_some_and(|(base, ssrc, _)| {
            ssrc != h.ssrc || (h.seq.wrapping_sub(base) >= MAX_GROUP && h.seq.wrapping_sub(base) < 0x8000)
        }) {
            self.close();
        }
        let (base, _, since) = *self.open.get_or_insert((h.seq, h.ssrc, now));
        let ahead = h.seq.wrapping_sub(base);
        // One that comes late, after repair before us: its group is over and it goes unprotected, or it has a place here.
        let place = self.sources.partition_point(|s| s.ahead < ahead);
        if ahead >= MAX_GROUP || self.sources.get(place).is_some_and(|s| s.ahead == ahead) {
            return;
        }
        let start = self.bytes.len();
        self.bytes.extend_from_slice(packet);
        self.sources.insert(place, Source { ahead, bytes: start..self.bytes.len() });
        self.timestamp = h.timestamp;
        if frame_end && (self.sources.len() >= MIN_GROUP || now.since(since) >= SPAN_US) {
            self.close();
        }
    }

    /// When [`Self::handle_timeout`] is to be called: a small frame waits for others only so long.
    #[must_use]
    pub fn next_wakeup(&self) -> Option<Micros> {
        let (_, _, since) = self.open?;
        // A large one is closed by its end.
        (self.sources.len() < MIN_GROUP).then(|| since.plus(SPAN_US))
    }

    /// Closes a small group whose time is over.
    pub fn handle_timeout(&mut self, now: Micros) {
        if self.next_wakeup().is_some_and(|at| at <= now) {
            self.close();
        }
    }

    fn forget(&mut self) {
        self.open = None;
        self.sources.clear();
        self.bytes.clear();
    }

    /// Makes the repair packets of the group that is open.
    fn close(&mut self) {
        let Some((base, source, _)) = self.open.take() else { return };
        if self.fetched >= self.ready.len() {
            self.out.clear();
            self.ready.clear();
            self.fetched = 0;
        }
        if self.ready.len() < MAX_WAITING {
            self.encode(base, source);
        }
        self.forget();
    }

    fn encode(&mut self, base: u16, source: Ssrc) {
        let count = self.sources.len();
        let spread = usize::from(self.plan.interleave).min(count / MIN_SPLIT);
        let numbers = usize::from(self.sources.last().map_or(0, |s| s.ahead)) + 1;
        // By numbers, not by packets: gaps take a place in the mask. At most 22 blocks, since a group has 1,024 numbers.
        let step = numbers.div_ceil(BLOCK as usize).max(spread).clamp(1, 255);
        let first = self.ready.len();
        for block in 0..step {
            self.encode_block(base, source, block as u16, step as u8);
        }
        self.shuffle(first);
        self.counters.sources += count as u64;
    }

    fn encode_block(&mut self, base: u16, source: Ssrc, block: u16, step: u8) {
        let mine = |s: &&Source| s.ahead % u16::from(step) == block;
        let (mut mask, mut longest) = (0_u64, 0);
        for s in self.sources.iter().filter(mine) {
            mask |= 1_u64.checked_shl(u32::from(s.ahead / u16::from(step))).unwrap_or(0);
            longest = longest.max(s.bytes.len());
        }
        let sources = mask.count_ones();
        let repairs = self.plan.repairs(sources).min(MAX_SOURCES);
        if sources == 0 || repairs == 0 {
            return;
        }
        let shard_len = (longest + LENGTH).next_multiple_of(2);
        self.shard.resize(shard_len, 0);
        let (k, r) = (sources as usize, repairs as usize);
        let made = match &mut self.rs {
            Some(rs) => rs.reset(k, r, shard_len).is_ok(),
            none => ReedSolomonEncoder::new(k, r, shard_len).map(|rs| *none = Some(rs)).is_ok(),
        };
        let Some(rs) = self.rs.as_mut().filter(|_| made) else { return };
        for s in self.sources.iter().filter(mine) {
            let packet = self.bytes.get(s.bytes.clone()).unwrap_or(&[]);
            if !to_shard(packet, &mut self.shard) || rs.add_original_shard(&self.shard).is_err() {
                return;
            }
        }
        let Ok(result) = rs.encode() else { return };
        let header =
            RepairHeader { source, base: base.wrapping_add(block), step, mask, repairs: repairs as u8, index: 0 };
        for (index, shard) in result.recovery_iter().enumerate() {
            let start = self.out.len();
            self.out.resize(start + OVERHEAD, 0);
            let room = self.out.get_mut(start + FIXED_HEADER..start + FIXED_HEADER + HEADER).unwrap_or(&mut []);
            RepairHeader { index: index as u8, ..header }.write(room);
            self.out.extend_from_slice(shard);
            self.ready.push(start..self.out.len());
        }
    }

    /// Puts the repair packets of the blocks in turn, and numbers them: a run of losses is shared by them, too.
    fn shuffle(&mut self, first: usize) {
        let out = &self.out;
        let index_of = |r: &Range<usize>| out.get(r.start + FIXED_HEADER + 3).copied().unwrap_or(0);
        self.ready.get_mut(first..).unwrap_or(&mut []).sort_by_key(index_of);
        for range in self.ready.get(first..).unwrap_or(&[]) {
            let fields = HeaderFields {
                marker: false,
                payload_type: self.payload_type,
                seq: self.next_seq,
                timestamp: self.timestamp,
                ssrc: self.ssrc,
            };
            self.next_seq = self.next_seq.wrapping_add(1);
            let room = self.out.get_mut(range.clone()).unwrap_or(&mut []);
            // The room is longer than a header.
            let _ = write_header(room, fields, &[]);
            self.counters.repairs += 1;
            self.counters.repair_bytes += range.len() as u64;
        }
    }

    /// The next repair packet.
    pub fn poll_repair(&mut self) -> Option<&[u8]> {
        let range = self.ready.get(self.fetched)?.clone();
        self.fetched += 1;
        self.out.get(range)
    }

    /// Counters.
    #[must_use]
    pub const fn counters(&self) -> EncoderCounters {
        self.counters
    }
}
