//! The datagrams between a gate and a device's controller, for people who build controllers: docs/DEVICES.md has the byte tables.
//!
//! One datagram holds one act or one report. Its head names the run of the sender, a counter that rises, and the run of the
//! addressee, so that nothing recorded on the local wire counts a second time; an HMAC-SHA-256 over all of it follows as the last
//! [`TAG`] bytes. The codec is pure: the tag is made and checked by whoever holds the key, before anything here is called.
//!
//! [`sim`] has the contents that `trocar-sim-device` understands; a controller of another kind brings its own.

mod codec;
pub mod sim;

#[cfg(test)]
mod tests;

pub use super::message::DecodeError;
pub use codec::{decode_report, decode_to_device, encode_report, encode_to_device, split_tag};

use super::fence::FenceError;
use super::gate::{DeviceAct, DeviceReport};
use super::message::{Bounded, MAX_PAYLOAD};
use super::types::Epoch;

/// The first bytes of every datagram.
pub const MAGIC: [u8; 4] = *b"TRDV";
/// Version of the wire, the byte behind the magic; it goes with that of the handover protocol.
pub const VERSION: u8 = super::message::VERSION;
/// Bytes of the head: magic, version, kind, sender, counter, peer.
pub const HEAD: usize = 30;
/// Bytes of the authentication tag at the end: HMAC-SHA-256, not shortened.
pub const TAG: usize = 32;
/// Longest opaque state in a report, in bytes.
pub const MAX_STATE: usize = 256;
/// Longest datagram in either direction with its tag, in bytes: a command with the longest payload.
pub const MAX_DATAGRAM: usize = HEAD + 28 + MAX_PAYLOAD + TAG;

/// What the device says of its pose, for the gate's adapter; the core does not look into it.
pub type State = Bounded<MAX_STATE>;

/// What every datagram says before its contents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Head {
    /// Random number of this run of the sender, never 0. A device draws one for each run of a gate that it hears.
    pub sender: u64,
    /// Rises with every datagram of this run, from 1. What is not above the newest is not looked at.
    pub counter: u64,
    /// The addressee's number as the sender knows it, 0 where it knows none yet.
    pub peer: u64,
}

/// What a gate says to a device.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ToDevice {
    /// "Who is there?" Has no effect but a report, by which the gate learns the number to address.
    Hello,
    /// An act of the gate.
    Act(DeviceAct),
}

/// What a device says to a gate: at once after each change and each refusal, and every 20 ms.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Report {
    /// Whom it obeys, and what of remote is on.
    pub device: DeviceReport,
    /// Something moves.
    pub moving: bool,
    /// The device's own watchdog, in microseconds.
    pub watchdog: u32,
    /// How often since its start the camera moved without a command: pushed by hand, for example.
    pub camera_moves: u32,
    /// The newest counter of this gate that the device has dealt with, 0 for none.
    pub echo: u64,
    /// The newest command that was actuated.
    pub actuated: Option<Actuated>,
    /// How many datagrams and acts the device has refused to anybody since its start.
    pub refusals: u32,
    /// The newest act of this gate that was refused.
    pub refused: Option<Refusal>,
    /// The pose.
    pub state: State,
}

/// Names one actuated command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Actuated {
    /// Its fence.
    pub fence: Epoch,
    /// Its sequence.
    pub sequence: u64,
}

/// An act that was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Refusal {
    /// The counter of the datagram that carried it.
    pub counter: u64,
    /// Why.
    pub reason: Refused,
}

/// Why a device refused an act.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
pub enum Refused {
    /// Not the number by which the device knows this gate: another run of the device, or none yet.
    #[error("addressed to another run of the device")]
    Peer,
    /// [`FenceError::LowFence`].
    #[error("the fence is lower than the highest")]
    LowFence,
    /// [`FenceError::NotOwner`].
    #[error("another gate is served")]
    NotOwner,
    /// [`FenceError::OldSequence`].
    #[error("the sequence is not above the newest of this fence")]
    OldSequence,
    /// [`FenceError::Latched`].
    #[error("latched until a higher fence is selected")]
    Latched,
    /// [`FenceError::Overridden`].
    #[error("overridden by hardware: only local can be selected")]
    Overridden,
    /// [`FenceError::NotSelected`].
    #[error("remote is not selected")]
    NotSelected,
    /// [`FenceError::NotDurable`].
    #[error("the fence is not durable yet")]
    NotDurable,
    /// The payload moves what is not in the granted set, or energy is permitted without being granted (HO-S-016).
    #[error("outside the granted set")]
    OutsideSet,
    /// The payload is none that this device understands.
    #[error("not a payload of this device")]
    Payload,
}

impl Refused {
    /// Every reason; its place, from 1, is its byte.
    pub const ALL: [Self; 10] = [
        Self::Peer,
        Self::LowFence,
        Self::NotOwner,
        Self::OldSequence,
        Self::Latched,
        Self::Overridden,
        Self::NotSelected,
        Self::NotDurable,
        Self::OutsideSet,
        Self::Payload,
    ];

    /// The word for it in records and in the JSON of `stdio`.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Peer => "peer",
            Self::LowFence => "low-fence",
            Self::NotOwner => "not-owner",
            Self::OldSequence => "old-sequence",
            Self::Latched => "latched",
            Self::Overridden => "overridden",
            Self::NotSelected => "not-selected",
            Self::NotDurable => "not-durable",
            Self::OutsideSet => "outside-set",
            Self::Payload => "payload",
        }
    }
}

impl From<FenceError> for Refused {
    fn from(error: FenceError) -> Self {
        match error {
            FenceError::LowFence => Self::LowFence,
            FenceError::NotOwner => Self::NotOwner,
            FenceError::OldSequence => Self::OldSequence,
            FenceError::Latched => Self::Latched,
            FenceError::Overridden => Self::Overridden,
            FenceError::NotSelected => Self::NotSelected,
            FenceError::NotDurable => Self::NotDurable,
        }
    }
}
