//! FlexFEC-03 (draft-ietf-payload-flexible-fec-scheme-03) as browsers know it: repair packets, each the parity of some
//! packets of one media stream, on a stream of their own.
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! |R|F|P|X|  CC   |M| PT recovery |        length recovery        |
//! |                          TS recovery                          |
//! |   SSRCCount   |                    reserved                   |
//! |                           SSRC of media                       |
//! |           SN base             |k|          mask [0-14]        |
//! |k|                   mask [15-45] (where needed)               |
//! |k|                   mask [46-108] (where needed)              |
//! ```
//!
//! R and F are 0 (parity, mask given), SSRCCount is 1, and a k of 1 says that the mask ends with its word. What follows is
//! the parity of all that comes after the fixed RTP header. Packets of a block go to its repair packets in turn, so that as
//! many lost in a row as there are repair packets can be had back.

use crate::media::bytes::put;
use crate::media::ext::TRANSPORT_CC_LEN;
use crate::media::rtp::{FIXED_HEADER, Header, HeaderFields, write_header};
use crate::units::{SeqNo, Ssrc};

/// Repair packets of one block at most.
pub const MAX_REPAIRS: usize = 16;
/// Packets of one block at most: a mask reaches 109, and Chromium keeps no more than 192.
pub const MAX_BLOCK: u16 = 96;
/// Longest packet that can be protected, in bytes; a longer one is left out.
pub const MAX_PACKET: usize = 1_472;
/// Header of a repair packet, without the RTP header, by the length of its mask.
const HEADERS: [(u16, usize); 3] = [(15, 20), (46, 24), (109, 32)];
/// Fields before the mask.
const BEFORE_MASK: usize = 18;
/// Share of repair packets is counted in these parts of a packet.
const PARTS: u32 = 100;

/// How an encoder is set up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EncoderConfig {
    /// SSRC of the media that is protected.
    pub media: Ssrc,
    /// SSRC of the repair packets.
    pub ssrc: Ssrc,
    /// Payload type of the repair packets.
    pub payload_type: u8,
    /// Id of the transport-wide sequence number on this line: receivers take it for zero, since senders write it last.
    pub transport_cc: Option<u8>,
    /// First sequence number of the repair packets; random, below 2^15 (RFC 3711 section 3.3.1).
    pub first_seq: u16,
}

/// The parity of some packets.
#[derive(Debug, Clone)]
struct Parity {
    /// First two bytes, length, and timestamp of the RTP headers.
    head: [u8; 8],
    body: Box<[u8; MAX_PACKET]>,
    /// Longest of the packets, without the fixed header.
    len: usize,
    base: u16,
    mask: u128,
    timestamp: u32,
}

impl Parity {
    fn new() -> Self {
        Self { head: [0; 8], body: Box::new([0; MAX_PACKET]), len: 0, base: 0, mask: 0, timestamp: 0 }
    }

    fn clear(&mut self) {
        self.body.iter_mut().take(self.len).for_each(|b| *b = 0);
        (self.head, self.len, self.mask) = ([0; 8], 0, 0);
    }

    const fn is_empty(&self) -> bool {
        self.mask == 0
    }

    /// Takes a packet in; false where it is too far from the first one.
    fn add(&mut self, h: &Header, packet: &[u8], transport_cc: Option<u8>) -> bool {
        if self.is_empty() {
            self.base = h.seq;
        }
        let place = h.seq.wrapping_sub(self.base);
        let Some(rest) = packet.get(FIXED_HEADER..).filter(|_| place < 109) else { return false };
        if self.mask >> place & 1 == 1 {
            return false;
        }
        self.mask |= 1 << place;
        self.timestamp = h.timestamp;
        let [length_high, length_low] = u16::try_from(rest.len()).unwrap_or(u16::MAX).to_be_bytes();
        let [a, b, c, d] = h.timestamp.to_be_bytes();
        let (first, second) = (packet.first().copied().unwrap_or(0), packet.get(1).copied().unwrap_or(0));
        xor(&mut self.head, &[first, second, length_high, length_low, a, b, c, d]);
        xor(self.body.as_mut_slice(), rest);
        self.len = self.len.max(rest.len());
        if let Some(at) = transport_cc.and_then(|id| h.extension_range(packet, id)) {
            // Out again what a receiver takes for zero.
            let (start, end) = (at.start, at.end.min(at.start + TRANSPORT_CC_LEN));
            if let (Some(body), Some(value)) = (
                self.body.get_mut(start.saturating_sub(FIXED_HEADER)..end.saturating_sub(FIXED_HEADER)),
                packet.get(start..end),
            ) {
                xor(body, value);
            }
        }
        true
    }

    /// Writes what comes after the RTP header; returns its length.
    fn write(&self, media: Ssrc, out: &mut [u8]) -> Option<usize> {
        let highest = 127 - u16::try_from(self.mask.leading_zeros()).ok()?;
        let (_, header) = *HEADERS.iter().find(|(reach, _)| highest < *reach)?;
        let len = header + self.len;
        let [first, second, length @ ..] = self.head;
        // R and F are 0; what stands in their place of the RTP header is the version, which is known.
        let mut ok = put(out, 0, &[first & 0x3f, second]) && put(out, 2, &length) && put(out, 8, &[1, 0, 0, 0]);
        ok = ok && put(out, 12, &media.0.to_be_bytes()) && put(out, 16, &self.base.to_be_bytes());
        ok = ok && self.write_mask(header, out) && put(out, header, self.body.get(..self.len)?);
        ok.then_some(len)
    }

    /// The mask's first packet is its highest bit, and each word begins with its k.
    fn write_mask(&self, header: usize, out: &mut [u8]) -> bool {
        let bits = |from: u32, count: u32| {
            // Packets from..from+count, the first one highest.
            ((self.mask >> from) & ((1 << count) - 1)).reverse_bits() >> (128 - count)
        };
        let (first, second, third) = (bits(0, 15) as u16, bits(15, 31) as u32, bits(46, 63) as u64);
        let last = |at: usize| header == at;
        let k = |yes: bool| u16::from(yes) << 15;
        put(out, BEFORE_MASK, &(first | k(last(20))).to_be_bytes())
            && (header < 24 || put(out, 20, &(second | (u32::from(k(last(24))) << 16)).to_be_bytes()))
            && (header < 32 || put(out, 24, &(third | (1 << 63)).to_be_bytes()))
    }
}

fn xor(into: &mut [u8], from: &[u8]) {
    into.iter_mut().zip(from).for_each(|(a, b)| *a ^= b);
}

/// Makes the repair packets of one media stream. Bounded: two blocks of [`MAX_REPAIRS`] parities; nothing is allocated once
/// both have been used. Loss policy: repair packets that were not fetched when the next block ends are dropped and counted.
#[derive(Debug)]
pub struct Encoder {
    config: EncoderConfig,
    /// The block that is being filled.
    filling: Vec<Parity>,
    /// The block whose repair packets can be fetched.
    ready: Vec<Parity>,
    /// Those of `ready` that have been fetched.
    fetched: usize,
    percent: u8,
    interleave: u8,
    /// Parities that the present block uses.
    width: usize,
    /// Packets in the present block.
    packets: u16,
    /// Packets of the frame that is under way, and of the one before.
    frame: u16,
    frame_before: u16,
    /// What the share of redundancy adds up to, in [`PARTS`].
    owed: u32,
    next: SeqNo,
    dropped: u64,
}

impl Encoder {
    /// Protects nothing until [`Self::set_plan`] says how much.
    #[must_use]
    pub const fn new(config: EncoderConfig) -> Self {
        Self {
            config,
            filling: Vec::new(),
            ready: Vec::new(),
            fetched: 0,
            percent: 0,
            interleave: 1,
            width: 1,
            packets: 0,
            frame: 0,
            frame_before: 0,
            owed: 0,
            next: SeqNo(config.first_seq as u64),
            dropped: 0,
        }
    }

    /// Repair packets in percent of the media packets (0 is none, at most 100), and how many packets lost in a row they are
    /// to stand, at most [`MAX_REPAIRS`]. Counts from the next block on.
    pub fn set_plan(&mut self, percent: u8, interleave: u8) {
        self.percent = percent.min(100);
        self.interleave = interleave.clamp(1, MAX_REPAIRS as u8);
        if self.percent == 0 {
            self.begin_block();
            self.owed = 0;
        }
    }

    /// Takes a media packet as it is sent, before SRTP. A block ends with a frame (marker) once it has earned its repair
    /// packets, or when it is full. A packet that came late or is too long is not protected.
    pub fn protect(&mut self, rtp: &[u8]) {
        let Ok(h) = Header::parse(rtp) else { return };
        if self.percent == 0 || h.ssrc != self.config.media || rtp.len() > MAX_PACKET {
            return;
        }
        if self.packets == 0 {
            self.width = self.next_width();
            while self.filling.len() < self.width {
                self.filling.push(Parity::new());
            }
        }
        self.frame = self.frame.saturating_add(1);
        self.owed += u32::from(self.percent);
        let place = usize::from(self.packets) % self.width;
        if self.filling.get_mut(place).is_some_and(|p| p.add(&h, rtp, self.config.transport_cc)) {
            self.packets += 1;
        }
        if h.marker {
            self.frame_before = std::mem::take(&mut self.frame);
        }
        let earned = self.owed >= PARTS * u32::try_from(self.width).unwrap_or(1);
        if (earned && (h.marker || self.is_wide())) || self.packets >= MAX_BLOCK {
            self.end_block();
        }
    }

    /// As many as the frame before would have earned, so that the block ends with its frame.
    fn next_width(&self) -> usize {
        let earned = (u32::from(self.frame_before) * u32::from(self.percent)).div_ceil(PARTS);
        usize::try_from(earned).unwrap_or(1).clamp(1, usize::from(self.interleave))
    }

    /// A large frame is not waited for: what comes after would only hold its repair up.
    fn is_wide(&self) -> bool {
        self.width >= usize::from(self.interleave)
    }

    fn end_block(&mut self) {
        self.dropped += self.ready.len().saturating_sub(self.fetched) as u64;
        let paid = PARTS * u32::try_from(self.width).unwrap_or(1);
        // What a frame that was larger than the one before has left unpaid is not paid in full: it would come too late.
        self.owed = self.owed.saturating_sub(paid).min(paid);
        std::mem::swap(&mut self.filling, &mut self.ready);
        self.fetched = 0;
        self.begin_block();
    }

    fn begin_block(&mut self) {
        self.filling.iter_mut().for_each(Parity::clear);
        self.packets = 0;
    }

    /// Writes the next repair packet, with a fixed RTP header of 12 bytes, and returns its length and its sequence number;
    /// none where there is none. It goes by [`EncoderConfig::ssrc`]. One that does not fit `out` is dropped and counted.
    pub fn poll_repair(&mut self, out: &mut [u8]) -> Option<(usize, SeqNo)> {
        while let Some(parity) = self.ready.get(self.fetched) {
            self.fetched += 1;
            if parity.is_empty() {
                continue;
            }
            let fields = HeaderFields {
                marker: false,
                payload_type: self.config.payload_type,
                seq: self.next.low16(),
                timestamp: parity.timestamp,
                ssrc: self.config.ssrc,
            };
            let head = write_header(out, fields, &[]).ok();
            let body = out.get_mut(FIXED_HEADER..).and_then(|o| parity.write(self.config.media, o));
            if let (Some(head), Some(body)) = (head, body) {
                let seq = self.next;
                self.next = SeqNo(seq.0 + 1);
                return Some((head + body, seq));
            }
            self.dropped += 1;
        }
        None
    }

    /// Repair packets that nobody fetched or that did not fit.
    #[must_use]
    pub const fn dropped(&self) -> u64 {
        self.dropped
    }
}

#[cfg(test)]
mod tests;
