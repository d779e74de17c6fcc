//! Repair with a deadline: what is lost is asked for where that comes back in time, and covered by redundancy where it does
//! not ([`policy`] says which, and how much). [`send::RepairSender`] and [`receive::RepairReceiver`] are the two ends of a
//! native line; [`block`] is the code between native ends.

pub mod block;
pub mod flexfec;
pub mod policy;
pub mod receive;
pub mod repeats;
pub mod send;
mod went;
pub mod xr;

use super::feed::Feed;
use super::ring::PacketInfo;
use super::seq::nearest;
use crate::units::SeqNo;

/// The packet of the feed's present source with that number, where the ring has it, and its index.
#[must_use]
pub fn packet_of(feed: &Feed, seq: u16) -> Option<(u64, &PacketInfo, &[u8])> {
    let (_, SeqNo(highest)) = feed.highest()?;
    let ring = feed.ring();
    let (newest, _) = ring.get(ring.head().checked_sub(1)?)?;
    let index = ring.find(newest.generation, SeqNo(nearest(highest, seq)))?;
    ring.get(index).map(|(info, packet)| (index, info, packet))
}
