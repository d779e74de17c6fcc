//! What the link did, packet by packet and in sum.

use crate::units::Micros;
use serde::{Deserialize, Serialize};

/// Which way a packet goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// From a client to the target.
    Up,
    /// From the target to a client.
    Down,
}

impl Direction {
    /// The seed of this direction's link, where one seed is given for both.
    #[must_use]
    pub const fn seed(self, seed: u64) -> u64 {
        match self {
            Self::Up => super::rng::SplitMix64::new(seed).next_u64(),
            Self::Down => super::rng::SplitMix64::new(!seed).next_u64(),
        }
    }
}

/// What became of a packet or a copy. Each has exactly one fate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It arrived.
    Delivered {
        /// When, on the caller's clock.
        at: Micros,
        /// After a packet with a higher number (RFC 4737 section 3).
        reordered: bool,
        /// The bit that was turned: bit 0 is the highest of the first byte.
        corrupt_bit: Option<u32>,
    },
    /// Lost by the loss model.
    Lost,
    /// There was no room in the queue of the line.
    QueueDrop,
    /// It came in a blackout.
    Blackout,
    /// More was under way than the link holds ([`super::INSIDE_MAX`], [`super::INSIDE_BYTES_MAX`]): a bound of the
    /// emulator and no property of the line. A run in which this occurs says nothing about the line.
    Overload,
    /// It was still under way when the link ended.
    Inside,
}

/// One packet or copy and what became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Number of the packet in this direction, from 0, in order of arrival at the link.
    pub seq: u64,
    /// Whether it is the copy that duplication made.
    pub copy: bool,
    /// Bytes of payload.
    pub len: u32,
    /// When it came to the link.
    pub arrived: Micros,
    /// What became of it.
    pub fate: Fate,
}

/// Sums over the entries. `offered + copies` is the sum of all fates and of what is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Tally {
    /// Packets that came to the link.
    pub offered: u64,
    /// Their bytes.
    pub offered_bytes: u64,
    /// Copies that duplication made.
    pub copies: u64,
    /// Packets and copies that arrived.
    pub delivered: u64,
    /// Their bytes.
    pub delivered_bytes: u64,
    /// Of those, after a packet with a higher number.
    pub reordered: u64,
    /// Of those, with a bit turned.
    pub corrupted: u64,
    /// Lost by the loss model.
    pub lost: u64,
    /// No room in the queue.
    pub queue_dropped: u64,
    /// Came in a blackout.
    pub blackout: u64,
    /// Beyond what the link holds.
    pub overload: u64,
    /// Under way when the link ended.
    pub inside: u64,
    /// Drops whose entry nobody fetched in time; their sums are right.
    pub unrecorded: u64,
}

impl Tally {
    pub(super) fn count(&mut self, entry: &Entry) {
        match entry.fate {
            Fate::Delivered { reordered, corrupt_bit, .. } => {
                self.delivered += 1;
                self.delivered_bytes += u64::from(entry.len);
                self.reordered += u64::from(reordered);
                self.corrupted += u64::from(corrupt_bit.is_some());
            }
            Fate::Lost => self.lost += 1,
            Fate::QueueDrop => self.queue_dropped += 1,
            Fate::Blackout => self.blackout += 1,
            Fate::Overload => self.overload += 1,
            Fate::Inside => self.inside += 1,
        }
    }

    /// Packets and copies whose fate is known.
    #[must_use]
    pub const fn settled(&self) -> u64 {
        self.delivered + self.lost + self.queue_dropped + self.blackout + self.overload + self.inside
    }
}

/// An [`Entry`] as a line of a ledger file (JSON): what `trocar impair --ledger` writes and a test reads back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Which way.
    pub direction: Direction,
    /// Number of the client, from 0, in order of appearance.
    pub client: u32,
    /// [`Entry::seq`].
    pub seq: u64,
    /// [`Entry::copy`].
    pub copy: bool,
    /// Bytes of payload.
    pub len: u32,
    /// When it came, in microseconds of the emulator's clock.
    pub arrived_us: u64,
    /// What became of it.
    pub fate: FateName,
    /// When the model says that it arrives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub due_us: Option<u64>,
    /// When it was really sent on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sent_us: Option<u64>,
    /// After a packet with a higher number.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub reordered: bool,
    /// The bit that was turned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub corrupt_bit: Option<u32>,
}

/// A [`Fate`] by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FateName {
    /// [`Fate::Delivered`].
    Delivered,
    /// [`Fate::Delivered`] by the model, but the system did not take it.
    SendFailed,
    /// [`Fate::Lost`].
    Lost,
    /// [`Fate::QueueDrop`].
    QueueDrop,
    /// [`Fate::Blackout`].
    Blackout,
    /// [`Fate::Overload`].
    Overload,
    /// [`Fate::Inside`].
    Inside,
}

impl Record {
    /// An entry as a line.
    #[must_use]
    pub const fn new(direction: Direction, client: u32, entry: &Entry) -> Self {
        let (fate, due_us, reordered, corrupt_bit) = match entry.fate {
            Fate::Delivered { at, reordered, corrupt_bit } => (FateName::Delivered, Some(at.0), reordered, corrupt_bit),
            Fate::Lost => (FateName::Lost, None, false, None),
            Fate::QueueDrop => (FateName::QueueDrop, None, false, None),
            Fate::Blackout => (FateName::Blackout, None, false, None),
            Fate::Overload => (FateName::Overload, None, false, None),
            Fate::Inside => (FateName::Inside, None, false, None),
        };
        let Entry { seq, copy, len, arrived, .. } = *entry;
        let arrived_us = arrived.0;
        Self { direction, client, seq, copy, len, arrived_us, fate, due_us, sent_us: None, reordered, corrupt_bit }
    }
}
