//! Block redundancy between native ends: Reed–Solomon over GF(2^16) across the packets of a frame.
//!
//! The packets of a frame, or of a few small frames, are a *group*. Numbers of a group are dealt out to its blocks in turn, so
//! that a run of losses is shared by them. What is protected is the whole RTP packet, header and extensions, with its length
//! before it: it comes back bit for bit. Repair packets are RTP with an SSRC, a numbering and a payload type of their own; what
//! follows their fixed header is
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! +---------------+---------------+---------------+---------------+
//! |  version = 1  |     step      | repair count  | repair index  |
//! +---------------+---------------+---------------+---------------+
//! |          base number          |           reserved            |
//! +-------------------------------+-------------------------------+
//! |                         source SSRC                           |
//! +---------------------------------------------------------------+
//! |       which numbers are in the block: bit i (1 << i)          |
//! |       of 64 stands for base number + i * step                 |
//! +---------------------------------------------------------------+
//! |       shard: an even number of bytes                          |
//! ```
//!
//! A source packet's shard is its length in 16 bits, the packet, and zeros. The sources are numbered in the order of their
//! bits; the code is that of Lin, Al-Naffouri, Han and Chung ("Novel polynomial basis with fast Fourier transform", 2016) as
//! the crate `reed-solomon-simd` computes it. Any as many packets of a block as it has sources bring all of them back.

mod decode;
mod encode;

pub use decode::{BlockDecoder, DecoderCounters};
pub use encode::{BlockEncoder, EncoderCounters};

use crate::media::bytes::{be16, be32, be64, put};
use crate::media::rtp::{FIXED_HEADER, Header};
use crate::units::Ssrc;

/// Name of the scheme in a descriptor.
pub const SCHEME: &str = "rs16";
/// Bytes of a repair packet before its shard: RTP header and block header.
pub const OVERHEAD: usize = FIXED_HEADER + HEADER;
/// Sources of a block at most: its bits.
pub const MAX_SOURCES: u32 = 64;
/// Longest packet that is protected, in bytes: what fits a slot of a feed's ring.
pub const MAX_PACKET: usize = 2_048;
const HEADER: usize = 20;
const VERSION: u8 = 1;
/// Length before a packet in its shard.
const LENGTH: usize = 2;

/// The header of a repair packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct RepairHeader {
    /// SSRC of what it repairs.
    source: Ssrc,
    base: u16,
    step: u8,
    /// Bit i: base + i × step is in the block.
    mask: u64,
    repairs: u8,
    index: u8,
}

impl RepairHeader {
    /// Reads a repair packet: its header and its shard. None where it is not one that can be.
    fn parse<'a>(h: &Header, packet: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let p = h.payload(packet);
        let (&version, &step, &repairs, &index) = (p.first()?, p.get(1)?, p.get(2)?, p.get(3)?);
        let header = Self { source: Ssrc(be32(p, 8)?), base: be16(p, 4)?, step, mask: be64(p, 12)?, repairs, index };
        let shard = p.get(HEADER..)?;
        let right = version == VERSION
            && step > 0
            && header.mask != 0
            && index < repairs
            && u32::from(repairs) <= MAX_SOURCES
            && shard.len() > LENGTH
            && shard.len().is_multiple_of(2)
            && shard.len() <= MAX_PACKET + LENGTH;
        right.then_some((header, shard))
    }

    fn write(&self, out: &mut [u8]) -> bool {
        let [b0, b1] = self.base.to_be_bytes();
        put(out, 0, &[VERSION, self.step, self.repairs, self.index, b0, b1, 0, 0])
            && put(out, 8, &self.source.0.to_be_bytes())
            && put(out, 12, &self.mask.to_be_bytes())
    }

    /// The same block, whichever of its repair packets.
    fn is_of(&self, other: &Self) -> bool {
        (self.source, self.base, self.step, self.mask, self.repairs)
            == (other.source, other.base, other.step, other.mask, other.repairs)
    }

    /// The numbers of the block in order, each with the position of its shard.
    fn numbers(&self) -> impl Iterator<Item = (usize, u16)> + use<> {
        let Self { base, step, mask, .. } = *self;
        let set = (0..64_u16).filter(move |i| mask & (1 << i) != 0);
        set.enumerate().map(move |(at, i)| (at, base.wrapping_add(i * u16::from(step))))
    }

    fn has(&self, seq: u16) -> bool {
        let (ahead, step) = (seq.wrapping_sub(self.base), u16::from(self.step));
        ahead.is_multiple_of(step) && ahead / step < 64 && self.mask & (1 << (ahead / step)) != 0
    }

    const fn sources(&self) -> usize {
        self.mask.count_ones() as usize
    }
}

/// Writes a packet as a shard; false where it is too long for it.
fn to_shard(packet: &[u8], shard: &mut [u8]) -> bool {
    let Ok(len) = u16::try_from(packet.len()) else { return false };
    if !(put(shard, 0, &len.to_be_bytes()) && put(shard, LENGTH, packet)) {
        return false;
    }
    if let Some(rest) = shard.get_mut(LENGTH + packet.len()..) {
        rest.fill(0);
    }
    true
}

/// The packet in a shard.
fn of_shard(shard: &[u8]) -> Option<&[u8]> {
    shard.get(LENGTH..LENGTH + usize::from(be16(shard, 0)?))
}

#[cfg(test)]
mod tests;
