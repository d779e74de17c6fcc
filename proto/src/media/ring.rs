//! The feed ring: the only copy of a packet in the relay. Fixed size, allocated once, at most [`MAX_BYTES`]; the newest
//! packet overwrites the oldest (loss policy: a leg or a repair that comes too late finds the packet gone, and is told so).

use super::ext::FrameMark;
use crate::units::{Micros, SeqNo, WallMicros};

/// What the relay knows about a stored packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PacketInfo {
    /// Widened sequence number within its generation.
    pub seq: SeqNo,
    /// RTP timestamp as it came.
    pub timestamp: u32,
    /// Marker bit.
    pub marker: bool,
    /// Where the payload starts in the packet.
    pub payload_offset: u16,
    /// Payload bytes, without padding.
    pub payload_len: u16,
    /// Frame id and marks, where the feed has them.
    pub frame: FrameMark,
    /// Capture time on the publisher's clock.
    pub capture: Option<WallMicros>,
    /// When it came.
    pub arrived: Micros,
    /// Rises by one each time the publisher starts anew (another SSRC).
    pub generation: u32,
}

#[derive(Debug, Clone, Copy)]
struct Slot {
    index: u64,
    len: u16,
    info: PacketInfo,
}

/// Packets in the order in which they came, addressed by a rising index.
#[derive(Debug)]
pub struct Ring {
    slots: Vec<Option<Slot>>,
    by_seq: Vec<u64>,
    bytes: Vec<u8>,
    slot_size: usize,
    next: u64,
}

/// A packet is larger than the ring's slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("packet of {len} bytes does not fit a slot of {slot_size} bytes")]
pub struct TooLarge {
    /// Size of the packet in bytes.
    pub len: usize,
    /// Size of a slot in bytes.
    pub slot_size: usize,
}

/// Largest memory of a ring's packets, in bytes, whatever rate a descriptor names.
pub const MAX_BYTES: usize = 64 << 20;
/// Smallest and largest number of slots of a ring.
pub const SLOTS: std::ops::RangeInclusive<usize> = 256..=65_536;

impl Ring {
    /// A ring of `slots` packets (rounded up to a power of two within [`SLOTS`]) of at most `slot_size` bytes each; fewer
    /// where they would take more than [`MAX_BYTES`].
    #[must_use]
    pub fn new(slots: usize, slot_size: usize) -> Self {
        let slot_size = slot_size.clamp(64, 9_216);
        // At least 4,096: the largest slots are 9,216 bytes.
        let largest = 1 << (MAX_BYTES / slot_size).ilog2();
        let slots = slots.clamp(*SLOTS.start(), *SLOTS.end()).next_power_of_two().min(largest);
        Self {
            slots: vec![None; slots],
            by_seq: vec![u64::MAX; slots],
            bytes: vec![0; slots * slot_size],
            slot_size,
            next: 0,
        }
    }

    /// Slots for a feed of that rate in packets of about 1,000 bytes: two seconds up to 100 Mbit/s, half a second at least.
    /// A joiner needs what came since the last key frame, a repair its budget.
    #[must_use]
    pub fn slots_for(bits_per_second: u64) -> usize {
        let second = bits_per_second / 8_000;
        let slots = (2 * second).min(25_000.max(second / 2));
        usize::try_from(slots).unwrap_or(*SLOTS.end()).clamp(*SLOTS.start(), *SLOTS.end())
    }

    /// How many packets it holds.
    #[must_use]
    pub const fn slots(&self) -> usize {
        self.slots.len()
    }

    /// Most bytes of a packet.
    #[must_use]
    pub const fn slot_size(&self) -> usize {
        self.slot_size
    }

    /// # Errors
    /// [`TooLarge`] where the packet is larger than a slot.
    pub const fn fits(&self, packet: &[u8]) -> Result<(), TooLarge> {
        if packet.len() > self.slot_size {
            return Err(TooLarge { len: packet.len(), slot_size: self.slot_size });
        }
        Ok(())
    }

    fn place(&self, number: u64) -> usize {
        // The number of slots is a power of two, so the mask keeps this below it.
        (number & (self.slots.len() as u64 - 1)) as usize
    }

    /// Stores a packet and returns its index.
    ///
    /// # Errors
    /// [`TooLarge`] with both numbers.
    pub fn push(&mut self, info: PacketInfo, packet: &[u8]) -> Result<u64, TooLarge> {
        let too_large = TooLarge { len: packet.len(), slot_size: self.slot_size };
        let len = u16::try_from(packet.len()).map_err(|_| too_large)?;
        let index = self.next;
        let place = self.place(index);
        let start = place * self.slot_size;
        let room = self.bytes.get_mut(start..start + self.slot_size).ok_or(too_large)?;
        room.get_mut(..packet.len()).ok_or(too_large)?.copy_from_slice(packet);
        if let Some(slot) = self.slots.get_mut(place) {
            *slot = Some(Slot { index, len, info });
        }
        let by_seq = self.place(info.seq.0);
        if let Some(entry) = self.by_seq.get_mut(by_seq) {
            *entry = index;
        }
        self.next = index + 1;
        Ok(index)
    }

    /// Index that the next packet will have.
    #[must_use]
    pub const fn head(&self) -> u64 {
        self.next
    }

    /// Oldest index that can still be there.
    #[must_use]
    pub const fn oldest(&self) -> u64 {
        self.next.saturating_sub(self.slots.len() as u64)
    }

    /// The packet of that index; none where it has been overwritten or has not come.
    #[must_use]
    pub fn get(&self, index: u64) -> Option<(&PacketInfo, &[u8])> {
        let place = self.place(index);
        let slot = self.slots.get(place)?.as_ref().filter(|s| s.index == index)?;
        let start = place * self.slot_size;
        Some((&slot.info, self.bytes.get(start..start + usize::from(slot.len))?))
    }

    /// Index of the packet with that sequence number in that generation, where it is still there.
    #[must_use]
    pub fn find(&self, generation: u32, seq: SeqNo) -> Option<u64> {
        let index = *self.by_seq.get(self.place(seq.0))?;
        let (info, _) = self.get(index)?;
        (info.seq == seq && info.generation == generation).then_some(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(crate) fn info(seq: u64) -> PacketInfo {
        PacketInfo {
            seq: SeqNo(seq),
            timestamp: 0,
            marker: false,
            payload_offset: 12,
            payload_len: 1,
            frame: FrameMark::default(),
            capture: None,
            arrived: Micros(0),
            generation: 0,
        }
    }

    #[test]
    fn a_packet_is_found_until_it_is_overwritten() {
        let mut r = Ring::new(256, 64);
        for i in 0..300_u64 {
            let b = [u8::try_from(i % 251).unwrap(); 20];
            assert_eq!(r.push(info(1000 + i), &b), Ok(i));
        }
        assert_eq!((r.oldest(), r.head()), (44, 300));
        assert!(r.get(43).is_none());
        assert!(r.get(300).is_none());
        let (i, b) = r.get(44).unwrap();
        assert_eq!((i.seq.0, b[0], b.len()), (1044, 44, 20));
        assert_eq!(r.find(0, SeqNo(1299)), Some(299));
        assert_eq!(r.find(0, SeqNo(1043)), None);
        assert_eq!(r.find(1, SeqNo(1299)), None, "another generation is another source");
    }

    #[test]
    fn no_ring_takes_more_than_64_mib_whatever_the_descriptor_says() {
        for (rate, slots) in [(1_000_000, 256), (100_000_000, 32_768), (200_000_000, 32_768), (500_000_000, 32_768)] {
            assert_eq!(Ring::new(Ring::slots_for(rate), 2_048).slots(), slots, "{rate} bit/s");
        }
        for rate in [2_000_000_000, u64::MAX] {
            for slot_size in [0, 64, 1_500, 2_048, 9_216, usize::MAX] {
                let r = Ring::new(Ring::slots_for(rate), slot_size);
                assert!(r.bytes.len() <= MAX_BYTES && r.slots().is_power_of_two(), "{rate} {slot_size}");
                assert_eq!(r.bytes.len(), r.slots() * r.slot_size);
                assert!(r.slots() >= 4_096);
            }
        }
        assert_eq!(Ring::new(Ring::slots_for(2_000_000_000), 2_048).bytes.len(), MAX_BYTES);
    }

    #[test]
    fn up_to_100_mbit_per_second_two_seconds_are_kept_and_never_less_than_half_a_second() {
        for (rate, slots) in [(8_000_000, 2_000), (100_000_000, 25_000), (200_000_000, 25_000), (400_000_000, 25_000)] {
            assert_eq!(Ring::slots_for(rate), slots, "{rate} bit/s");
        }
        assert_eq!(Ring::slots_for(500_000_000), 31_250);
    }

    #[test]
    fn a_packet_larger_than_a_slot_is_refused_with_the_numbers() {
        let mut r = Ring::new(256, 64);
        assert_eq!(r.push(info(0), &[0; 65]), Err(TooLarge { len: 65, slot_size: 64 }));
        assert_eq!(r.head(), 0);
    }
}
