//! The receiver's side: repair packets in, lost source packets out.

use super::{MAX_PACKET, RepairHeader, of_shard, to_shard};
use crate::media::rtp::Header;
use crate::units::Micros;
use reed_solomon_simd::ReedSolomonDecoder;
use std::collections::VecDeque;

/// Blocks remembered. Loss policy: the oldest is forgotten.
const MAX_BLOCKS: usize = 128;
/// Restored packets that wait to be fetched at most. Loss policy: a block is not restored before they are.
const MAX_WAITING: usize = 2_048;

/// Counters since the decoder began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DecoderCounters {
    /// Repair packets that came.
    pub repairs: u64,
    /// Of those, ones that brought packets back.
    pub used: u64,
    /// Of those, ones that were not needed: nothing of their block was missing any more.
    pub useless: u64,
    /// Of those, ones that were no repair packets.
    pub malformed: u64,
    /// Source packets brought back.
    pub restored: u64,
}

#[derive(Debug)]
struct Block {
    header: RepairHeader,
    shard_len: usize,
    since: Micros,
    repairs: Vec<(u8, Vec<u8>)>,
    done: bool,
}

/// Restores packets of one line.
#[derive(Default)]
pub struct BlockDecoder {
    blocks: VecDeque<Block>,
    rs: Option<ReedSolomonDecoder>,
    shard: Vec<u8>,
    out: VecDeque<Vec<u8>>,
    counters: DecoderCounters,
}

impl std::fmt::Debug for BlockDecoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BlockDecoder").field("blocks", &self.blocks.len()).finish_non_exhaustive()
    }
}

impl BlockDecoder {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes a repair packet. `find` gives the source packet of a number, as it came, where it did. Then drain
    /// [`Self::poll_restored`].
    pub fn handle_repair<'a>(&mut self, now: Micros, packet: &[u8], find: impl Fn(u16) -> Option<&'a [u8]>) {
        self.counters.repairs += 1;
        let parsed = Header::parse(packet).ok().and_then(|h| RepairHeader::parse(&h, packet));
        let Some((header, shard)) = parsed else {
            self.counters.malformed += 1;
            return;
        };
        // From the newest: the block is nearly always there.
        let known = self.blocks.iter().rposition(|b| b.header.is_of(&header) && b.shard_len == shard.len());
        let at = known.unwrap_or_else(|| {
            if self.blocks.len() >= MAX_BLOCKS {
                self.blocks.pop_front();
            }
            self.blocks.push_back(Block {
                header,
                shard_len: shard.len(),
                since: now,
                repairs: Vec::new(),
                done: false,
            });
            self.blocks.len() - 1
        });
        let Some(block) = self.blocks.get_mut(at) else { return };
        if block.done {
            self.counters.useless += 1;
            return;
        }
        if !block.repairs.iter().any(|(index, _)| *index == header.index) {
            block.repairs.push((header.index, shard.to_vec()));
        }
        self.try_block(at, &find);
    }

    /// A source packet came that was missing, by itself or asked for: a block may now have enough. `find` as before, and
    /// knows it already.
    pub fn handle_late<'a>(&mut self, seq: u16, find: impl Fn(u16) -> Option<&'a [u8]>) {
        for at in 0..self.blocks.len() {
            if self.blocks.get(at).is_some_and(|b| !b.done && b.header.has(seq)) {
                self.try_block(at, &find);
            }
        }
    }

    fn try_block<'a>(&mut self, at: usize, find: &impl Fn(u16) -> Option<&'a [u8]>) {
        let Some(block) = self.blocks.get_mut(at) else { return };
        let missing = block.header.numbers().filter(|(_, seq)| find(*seq).is_none()).count();
        if missing == 0 {
            block.done = true;
            self.counters.useless += block.repairs.len() as u64;
            block.repairs = Vec::new();
            return;
        }
        if block.repairs.len() < missing || self.out.len() + missing > MAX_WAITING {
            return;
        }
        block.done = true;
        let block = Block { repairs: std::mem::take(&mut block.repairs), ..*block };
        self.counters.used += missing as u64;
        self.counters.useless += (block.repairs.len() - missing) as u64;
        if self.restore(&block, find).is_none() {
            self.counters.malformed += 1;
        }
    }

    /// None where what came does not fit together.
    fn restore<'a>(&mut self, block: &Block, find: &impl Fn(u16) -> Option<&'a [u8]>) -> Option<()> {
        let Block { header, shard_len, .. } = block;
        let (k, r) = (header.sources(), usize::from(header.repairs));
        if let Some(rs) = &mut self.rs {
            rs.reset(k, r, *shard_len).ok()?;
        } else {
            self.rs = Some(ReedSolomonDecoder::new(k, r, *shard_len).ok()?);
        }
        let rs = self.rs.as_mut()?;
        self.shard.resize(*shard_len, 0);
        let mut wanted = Vec::new();
        for (position, seq) in header.numbers() {
            match find(seq) {
                Some(packet) => {
                    if !to_shard(packet, &mut self.shard) {
                        return None;
                    }
                    rs.add_original_shard(position, &self.shard).ok()?;
                }
                None => wanted.push((position, seq)),
            }
        }
        for (index, shard) in &block.repairs {
            rs.add_recovery_shard(usize::from(*index), shard).ok()?;
        }
        let result = rs.decode().ok()?;
        for (position, seq) in wanted {
            let packet = of_shard(result.restored_original(position)?)?;
            let h = Header::parse(packet).ok()?;
            if h.seq != seq || h.ssrc != header.source || packet.len() > MAX_PACKET {
                return None;
            }
            self.out.push_back(packet.to_vec());
            self.counters.restored += 1;
        }
        Some(())
    }

    /// The next source packet that was brought back.
    pub fn poll_restored(&mut self) -> Option<Vec<u8>> {
        self.out.pop_front()
    }

    /// Forgets blocks that began before: nothing of them can be used.
    pub fn forget_before(&mut self, at: Micros) {
        while let Some(b) = self.blocks.pop_front_if(|b| b.since < at) {
            self.counters.useless += b.repairs.len() as u64;
        }
    }

    #[cfg(test)]
    pub(super) fn blocks(&self) -> usize {
        self.blocks.len()
    }

    /// Counters.
    #[must_use]
    pub const fn counters(&self) -> DecoderCounters {
        self.counters
    }
}
