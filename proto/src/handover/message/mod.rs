//! The messages of HANDOVER.md section 5: reliable ones inside the channel's TLS, and the plain form of sealed datagrams.
//!
//! These are what was said, not what is true: nothing in a message names its sender, since the channel that it came by does
//! (HO-M-001), and nothing in it is a time that anybody believes (HO-A-002).

mod codec;
mod dedupe;
mod wire;

#[cfg(test)]
mod tests;

pub use codec::{decode_datagram, decode_from_gate, decode_to_gate, encode_datagram, encode_from_gate, encode_to_gate};
pub use dedupe::Dedupe;
pub use wire::{Bounded, DecodeError, Text, TooLong};

use super::paths::Protection;
use super::types::{Binding, Clutch, Colours, Counter, Epoch, ExpertId, FrameRef, GrantedSet, HolderId, Nonce, Oid};
use crate::session::role::Grade;

/// Version of the handover protocol, the first byte of every message.
pub const VERSION: u8 = 1;
/// Longest opaque payload of a CMD, in bytes (HO-P-005).
pub const MAX_PAYLOAD: usize = 1_024;
/// Longest pose in an HB, in bytes (HO-P-005).
pub const MAX_POSE: usize = 64;
/// Most probes that one STATUS answers.
pub const MAX_ANSWERS: usize = 32;

/// A reason, a step, a name: at most 128 bytes.
pub type Short = Text<128>;
/// A signed token as it came: at most 4 KiB.
pub type Token = Text<4_096>;
/// The pose of the expert's controls, judged by the device's adapter.
pub type Pose = Bounded<MAX_POSE>;
/// What the device understands; nobody on the way does.
pub type Payload = Bounded<MAX_PAYLOAD>;

/// What experts and screens say to the gate.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ToGate {
    /// Who is there; may be repeated with a newer token.
    Hello {
        /// Bit field of what the station can do; 0 for now.
        capabilities: u32,
        /// The first tunnel's binding value, where this is a second one of the same station.
        binds: Option<u128>,
        /// The bearer's token, checked by whoever drives the gate.
        token: Token,
    },
    /// Asks to be answered in STATUS.
    Probe {
        /// Chosen by the screen.
        nonce: Nonce,
    },
    /// Asks local for control. Creates nothing.
    Request {
        /// What is asked for.
        set: GrantedSet,
        /// The grade that goes with it.
        grade: Grade,
        /// For local's eyes.
        reason: Short,
    },
    /// "I have control."
    Accept {
        /// The offer.
        oid: Oid,
        /// A fresh token.
        token: Token,
    },
    /// "I do not take it."
    Decline {
        /// The offer.
        oid: Oid,
        /// For local's eyes.
        reason: Short,
    },
    /// The holder gives back.
    Return {
        /// The epoch that ends.
        epoch: Epoch,
    },
    /// Stop.
    Estop {
        /// On behalf of whom, where it comes by signaling's channel.
        person: Option<Short>,
        /// Shown everywhere.
        reason: Short,
    },
}

/// What the gate says.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum FromGate {
    /// The register as it is.
    Status(Status),
    /// "You have control", if you accept and local confirms.
    Offer {
        /// Unguessable, single use.
        oid: Oid,
        /// What is offered.
        set: GrantedSet,
        /// The grade that goes with it.
        grade: Grade,
        /// The step of the operation that local declared.
        step: Short,
        /// Milliseconds until the offer is gone.
        expires_ms: u32,
    },
    /// The offer is gone.
    Withdraw {
        /// Which one.
        oid: Oid,
    },
    /// "You have control."
    Grant {
        /// Who.
        holder: HolderId,
        /// From now on the binding of HB and CMD.
        epoch: Epoch,
        /// What.
        set: GrantedSet,
        /// Milliseconds without an HB after which it ends.
        lease_ms: u32,
    },
    /// Refused.
    Nack {
        /// Why.
        reason: Reason,
        /// The gate's epoch.
        epoch: Epoch,
    },
}

/// The register's state, as one byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mode {
    /// Nobody may actuate.
    Hold,
    /// Local may.
    Local,
    /// Local may; an offer is open.
    Offered,
    /// Local may; the addressee accepted.
    Ready,
    /// Local may; the grant is on its way to the disk.
    Granting,
    /// The holder may.
    Remote,
    /// Nobody; latched.
    Estop,
    /// Nobody; final.
    Closed,
}

/// The register as the gate tells it. Without the oid, which is the addressee's alone (HO-M-013).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Status {
    /// The gate's epoch.
    pub epoch: Epoch,
    /// The state.
    pub mode: Mode,
    /// Holder in REMOTE; addressee in OFFERED, READY and GRANTING.
    pub expert: Option<ExpertId>,
    /// What is held, or offered.
    pub set: GrantedSet,
    /// Milliseconds since this state began.
    pub since_ms: u64,
    /// Why motion is stopped, as [`Causes`](super::gate::Causes) bits; 0 while it runs and outside REMOTE.
    pub stopped: u8,
    /// What local must know, as [`Alarms`](super::gate::Alarms) bits.
    pub alarms: u16,
    /// The link gates.
    pub colours: Colours,
    /// What they were measured at.
    pub figures: Figures,
    /// Probes answered, oldest first.
    pub answers: Vec<Nonce>,
    /// Whether the loss of one path to the expert would be felt.
    pub paths: Protection,
    /// The timers of the gate that a station and its screen go by.
    pub timers: Timers,
}

/// What a station has to know of the gate's configuration, so that both go by the same numbers. Microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Timers {
    /// Time between two HBs.
    pub heartbeat: u32,
    /// The station stops sending when no BEACON came for so long.
    pub station_silence: u32,
    /// A STATUS older than this is "control unknown, hands off".
    pub status_age: u32,
    /// Measuring, alignment and CONFIRM.
    pub ready_time: u32,
    /// Intent to durable.
    pub grant_time: u32,
}

/// What the link gates were measured at: the same values on every screen. Microseconds; `u32::MAX` is "unmeasured".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Figures {
    /// Loop age, median.
    pub loop_p50: u32,
    /// Loop age, 95th percentile.
    pub loop_p95: u32,
    /// Jitter of heartbeats, 95th percentile.
    pub jitter_p95: u32,
    /// Loss after repair, parts per million.
    pub loss_ppm: u32,
    /// Age of the picture in front of the expert.
    pub frame_age: u32,
}

impl Default for Figures {
    fn default() -> Self {
        let none = u32::MAX;
        Self { loop_p50: none, loop_p95: none, jitter_p95: none, loss_ppm: none, frame_age: none }
    }
}

/// A datagram before it is sealed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Datagram {
    /// Station to gate.
    Heartbeat(Heartbeat),
    /// Station to gate.
    Command(Command),
    /// Gate to station.
    Beacon(Beacon),
}

impl Datagram {
    /// What it belongs to.
    #[must_use]
    pub const fn binding(&self) -> Binding {
        match self {
            Self::Heartbeat(hb) => hb.binding,
            Self::Command(cmd) => Binding::Epoch(cmd.epoch),
            Self::Beacon(beacon) => beacon.binding,
        }
    }

    /// Its number under that binding.
    #[must_use]
    pub const fn counter(&self) -> Counter {
        match self {
            Self::Heartbeat(hb) => hb.counter,
            Self::Command(cmd) => cmd.counter,
            Self::Beacon(beacon) => beacon.counter,
        }
    }
}

/// HB: "I am here, I see this, my hand is on the dead-man input."
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Heartbeat {
    /// The oid in READY and GRANTING, the epoch in REMOTE.
    pub binding: Binding,
    /// One count over HB and CMD of a binding.
    pub counter: Counter,
    /// How many HBs under this binding came before: only to measure jitter, nothing is decided by it.
    pub beat: u32,
    /// Of the newest BEACON.
    pub nonce: Nonce,
    /// The newest frame shown, if any was.
    pub echo: Option<FrameRef>,
    /// The dead-man input.
    pub presence: bool,
    /// Whether an energy pedal is held.
    pub pedal: bool,
    /// For alignment.
    pub pose: Pose,
}

/// CMD: one motion.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Command {
    /// The holder's epoch.
    pub epoch: Epoch,
    /// One count over HB and CMD of a binding.
    pub counter: Counter,
    /// Of the newest BEACON.
    pub nonce: Nonce,
    /// The newest frame shown, if any was.
    pub echo: Option<FrameRef>,
    /// Whether the controls are coupled.
    pub clutch: Clutch,
    /// For the device.
    pub payload: Payload,
}

/// BEACON: what ages are counted from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Beacon {
    /// As in HB.
    pub binding: Binding,
    /// Its own count, rising.
    pub counter: Counter,
    /// Random.
    pub nonce: Nonce,
}

/// Why something was refused: in NACK, on screens and in the audit log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
#[allow(missing_docs, reason = "the text of each is its documentation")]
pub enum Reason {
    #[error("not in this state")]
    WrongState,
    #[error("reset the emergency stop first")]
    Latched,
    #[error("the session is closed")]
    SessionClosed,
    #[error("say HELLO first")]
    NoHello,
    #[error("the token does not verify, or is not this sender's")]
    BadToken,
    #[error("the token's grade does not cover the set")]
    GradeTooLow,
    #[error("only an expert's station can hold")]
    NotAStation,
    #[error("no such participant is connected")]
    NotConnected,
    #[error("the set is empty, or has energy without instruments")]
    BadSet,
    #[error("no such offer is open")]
    NoSuchOffer,
    #[error("the offer is another's")]
    NotTheAddressee,
    #[error("another epoch")]
    WrongEpoch,
    #[error("not the holder")]
    NotTheHolder,
    #[error("keys of another channel")]
    WrongChannel,
    #[error("number not above the newest")]
    OldCounter,
    #[error("number too far ahead")]
    CounterJump,
    #[error("unknown nonce")]
    UnknownNonce,
    #[error("too old")]
    TooOld,
    #[error("too many per second")]
    TooFast,
    #[error("motion is stopped")]
    MotionStopped,
    #[error("consent for remote operation is not active")]
    NoConsent,
    #[error("remote is refused: the gate's store or the device's fence cannot be relied on")]
    RemoteRefused,
    #[error("a link gate is not measured yet")]
    LinkUnmeasured,
    #[error("a link gate is amber: confirm a second time")]
    LinkAmber,
    #[error("a link gate is red")]
    LinkRed,
    #[error("not aligned: orientation, grip or motion")]
    NotAligned,
    #[error("presence not held, or not pressed anew")]
    NoPresence,
    #[error("nothing fresh from the expert")]
    NotHeard,
    #[error("no proof that the expert sees a fresh picture")]
    NoFrame,
    #[error("local's console is not alive")]
    NoConsole,
    #[error("the device does not answer this gate, or serves another")]
    NoDevice,
    #[error("the next epochs are not on disk yet")]
    NotCovered,
    #[error("the grant's intent is not on disk yet")]
    NotDurable,
    #[error("muted, or stopped less than 10 s ago")]
    EstopLimited,
    #[error("too many channels or mutes")]
    Full,
    #[error("the certificate is revoked")]
    Revoked,
}

impl Reason {
    /// All, in the order of their numbers on the wire.
    pub const ALL: [Self; 36] = [
        Self::WrongState,
        Self::Latched,
        Self::SessionClosed,
        Self::NoHello,
        Self::BadToken,
        Self::GradeTooLow,
        Self::NotAStation,
        Self::NotConnected,
        Self::BadSet,
        Self::NoSuchOffer,
        Self::NotTheAddressee,
        Self::WrongEpoch,
        Self::NotTheHolder,
        Self::WrongChannel,
        Self::OldCounter,
        Self::CounterJump,
        Self::UnknownNonce,
        Self::TooOld,
        Self::TooFast,
        Self::MotionStopped,
        Self::NoConsent,
        Self::RemoteRefused,
        Self::LinkUnmeasured,
        Self::LinkAmber,
        Self::LinkRed,
        Self::NotAligned,
        Self::NoPresence,
        Self::NotHeard,
        Self::NoFrame,
        Self::NoConsole,
        Self::NoDevice,
        Self::NotCovered,
        Self::NotDurable,
        Self::EstopLimited,
        Self::Full,
        Self::Revoked,
    ];
}
