//! What comes in to the gate and what goes out of it.

use super::epochs::Store;
use super::frames::FrameReport;
use super::talk::Judgement;
use crate::handover::message::{
    Beacon, Command, Figures, FromGate, Heartbeat, Mode, Payload, Pose, Reason, Short, ToGate,
};
use crate::handover::paths::Protection;
use crate::handover::types::{
    Binding, BootId, ChannelId, Colours, Counter, Epoch, ExpertId, GrantedSet, Oid, Selection,
};
use crate::session::role::{Grade, Role};
use std::collections::VecDeque;

/// One thing that happens to the gate.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Input {
    /// Time passes; at least every 5 ms. `nonce` is random and used where a BEACON is due.
    Tick {
        /// 64 random bits.
        nonce: crate::handover::types::Nonce,
    },
    /// An act of the surgeon at the patient's side, at the gate's own console or hardware input.
    Local(Act),
    /// The local console is alive.
    Console,
    /// A channel was authenticated.
    Opened {
        /// Its number.
        channel: ChannelId,
        /// Who is at its other end.
        peer: Peer,
    },
    /// A channel is gone.
    Gone(ChannelId),
    /// A reliable message came by a channel, once (copies are dropped before).
    Message {
        /// By which.
        channel: ChannelId,
        /// What it says.
        message: ToGate,
        /// What the token of a HELLO or an ACCEPT says, if it verified.
        token: Option<Verified>,
    },
    /// A datagram that this channel's key for its binding opened.
    Heartbeat(ChannelId, Heartbeat),
    /// A datagram that this channel's key for its binding opened.
    Command(ChannelId, Command),
    /// The disk is done with something.
    Disk(DiskDone),
    /// Whether records for the audit chain wait that could not be written.
    Unwritten(bool),
    /// The device said how it is.
    Device(DeviceReport),
    /// The adapter judged the pose of an HB.
    Judged(Binding, Counter, Judgement),
    /// The adapter saw the camera move, and not by the holder's command.
    CameraMoved,
    /// The publisher reported a frame.
    Frame(FrameReport),
    /// The link gates as measured for that offer.
    Links(Oid, Colours, Figures),
    /// Whether consent for remote operation is active.
    Consent(bool),
    /// Whether the means of remote operation can be used: this gate's certificate, trust list, issuer's key and listeners.
    Means(bool),
    /// How many paths bring what that expert sends; [`Protection::Single`] also when it is gone.
    Paths(ExpertId, Protection),
    /// The certificate revocation list names this one.
    Revoked(ExpertId),
}

/// Acts of local. Nothing from the network is one of them (HO-M-010).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Act {
    /// "You have control", if you accept. `oid` is random.
    Offer {
        /// 128 random bits.
        oid: Oid,
        /// To whom.
        expert: ExpertId,
        /// What.
        set: GrantedSet,
        /// The declared step.
        step: Short,
    },
    /// Takes the offer back.
    Withdraw,
    /// "You have control."
    Confirm,
    /// The second confirmation, for amber (HO-G-026).
    ConfirmAmber,
    /// "I have control."
    Take,
    /// Nobody moves.
    Estop,
    /// Ends the latched stop, in HOLD.
    Reset,
    /// Ends the session.
    Close,
    /// Hears no more ESTOP of whoever was shown by that name in [`Notice::Estop`]: of a station, whoever its token names.
    Mute(Short),
}

/// Who is at the other end of a channel, by its certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Peer {
    /// A program that could operate.
    Station(ExpertId),
    /// The signaling service, on behalf of browsers. It never holds.
    Signaling,
}

/// A token whose signature, times, audience and session are right.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Verified {
    /// The certificate that it is bound to (`cnf`).
    pub expert: ExpertId,
    /// Whose it is (`sub`).
    pub person: Short,
    /// What that person is in the session.
    pub role: Role,
    /// The highest grade that its bearer may ever hold.
    pub grade: Grade,
}

/// What the disk did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DiskDone {
    /// A block up to this epoch, which is not part of it, is on disk.
    Reserved(Epoch),
    /// The intent is on disk.
    Durable(Oid, Epoch),
    /// It could not be written.
    Failed(Oid, Epoch),
}

/// How the device is, as it says itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct DeviceReport {
    /// The highest fence that it accepted.
    pub highest: Epoch,
    /// The gate whose keep-alive is current.
    pub owner: Option<BootId>,
    /// What it obeys.
    pub selected: Selection,
    /// Sequence of the selection that it obeys, under `highest`.
    pub sequence: u64,
    /// The watchdog's hold is latched.
    pub latched: bool,
    /// The hardware override gave it to local.
    pub overridden: bool,
    /// Remote energy is on (HO-D-020).
    pub energy: bool,
    /// No command was actuated since remote motion was held, selected or taken away last (HO-D-021).
    pub held: bool,
    /// Another gate was refused lately (HO-D-024).
    pub rival: bool,
}

/// For the device's adapter. `sequence` rises with every act under one fence.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum DeviceAct {
    /// This gate lives.
    KeepAlive {
        /// This run of the gate.
        boot: BootId,
        /// Its epoch.
        fence: Epoch,
    },
    /// Obey this one.
    Select {
        /// This run of the gate.
        boot: BootId,
        /// Whom.
        to: Selection,
        /// The epoch.
        fence: Epoch,
        /// Its place.
        sequence: u64,
    },
    /// Stop remote motion, hold position.
    Hold {
        /// The epoch.
        fence: Epoch,
        /// Its place.
        sequence: u64,
    },
    /// Remote energy off.
    EnergyOff {
        /// The epoch.
        fence: Epoch,
        /// Its place.
        sequence: u64,
    },
    /// One motion.
    Command {
        /// The epoch.
        fence: Epoch,
        /// Its place.
        sequence: u64,
        /// The expert's own number, for the audit log.
        counter: Counter,
        /// What the holder may move; the adapter refuses the rest (HO-S-016).
        set: GrantedSet,
        /// Whether energy may act with it.
        energy: bool,
        /// For the device.
        payload: Payload,
    },
}

/// For the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DiskAct {
    /// Cover every epoch below this one.
    Reserve(Epoch),
    /// Make the intent of a grant durable.
    Intent {
        /// The offer.
        oid: Oid,
        /// The epoch that the grant takes.
        epoch: Epoch,
        /// To whom.
        expert: ExpertId,
        /// What.
        set: GrantedSet,
    },
}

/// Why the register changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Why {
    /// The gate started.
    Start,
    /// An act of local.
    Local,
    /// The expert's message.
    Expert,
    /// A time ran out.
    Time,
    /// The grant is complete.
    Granted,
    /// No valid HB for the lease.
    Lease,
    /// Loop age above the limit for too long.
    Slow,
    /// Loop age far above the limit.
    TooLate,
    /// Picture too old.
    Frame,
    /// A stop that lasted too long.
    Stopped,
    /// Local's console is lost.
    Console,
    /// The certificate was revoked.
    Revoked,
    /// ESTOP from the network.
    NetworkEstop,
    /// A link gate is red.
    Red,
    /// Consent ended.
    Consent,
    /// The means of remote operation cannot be used any more.
    Means,
    /// The intent could not be written.
    Disk,
    /// The device serves another gate, latched, is silent, or does not stop.
    Device,
    /// The hardware override.
    Override,
}

/// A change of state, for the audit log (HO-U-005).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Record {
    /// Before.
    pub from: Mode,
    /// After.
    pub to: Mode,
    /// After.
    pub epoch: Epoch,
    /// Of which offer.
    pub oid: Option<Oid>,
    /// To or by which expert.
    pub expert: Option<ExpertId>,
    /// What was offered or held.
    pub set: GrantedSet,
    /// The declared step.
    pub step: Short,
    /// Why.
    pub why: Why,
    /// Whose ESTOP, reason of a DECLINE.
    pub note: Option<Short>,
}

/// What local's console shows beside the register.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Notice {
    /// Somebody asks.
    Request {
        /// By which channel.
        channel: ChannelId,
        /// For what.
        set: GrantedSet,
        /// Why.
        reason: Short,
    },
    /// Somebody stopped, or asked to.
    Estop {
        /// Who: a station as person and the first 16 digits of its certificate's hash, `dr-a [5f3a9c0112345678]`.
        person: Short,
        /// Why.
        reason: Short,
    },
    /// Consent ended; the holder goes on until local takes (HO-U-003).
    ConsentEnded,
}

/// What the gate wants done.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Output {
    /// To the device, in this order, without delay.
    Device(DeviceAct),
    /// To the disk; the answer comes as [`Input::Disk`] whenever it comes.
    Disk(DiskAct),
    /// Reliably, by this channel.
    Send(ChannelId, FromGate),
    /// Sealed with this channel's key, on every path.
    Seal(ChannelId, Beacon),
    /// Close the channel.
    Close(ChannelId),
    /// To the adapter: judge this pose.
    Judge(Binding, Counter, Pose),
    /// To the meter of the link gates.
    Sample(Sample),
    /// To local's console.
    Show(Notice),
    /// To the audit chain.
    Audit(Record),
    /// A datagram was refused; NACKs and records of these are made by [`Bursts`](crate::handover::bursts::Bursts).
    Refused(ChannelId, Reason),
}

/// A datagram that counted, as the link gates measure it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Sample {
    /// Of which offer.
    pub oid: Oid,
    /// Under which binding the counter counts.
    pub binding: Binding,
    /// Its number.
    pub counter: Counter,
    /// Which HB it is; nothing for a CMD.
    pub beat: Option<u32>,
    /// Loop age, microseconds.
    pub loop_age: u64,
    /// Age of the picture in front of the expert, microseconds.
    pub frame_age: Option<u64>,
}

/// How a gate begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Start {
    /// 128 random bits.
    pub boot: BootId,
    /// What the store holds.
    pub store: Store,
}

/// What local must know, as bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Alarms(pub u16);

impl Alarms {
    /// The expert was lost: lease, or far too slow.
    pub const LINK: Self = Self(1);
    /// The expert's picture was too old.
    pub const FRAME: Self = Self(2);
    /// A stop lasted too long.
    pub const STOPPED: Self = Self(4);
    /// The device serves another gate, or another one asks for it.
    pub const SECOND_GATE: Self = Self(8);
    /// The device latched, is silent, lost its selection, or does not stop (HO-D-023).
    pub const DEVICE: Self = Self(16);
    /// Remote is refused for the session: store or fence.
    pub const STORE: Self = Self(32);
    /// Consent is not active.
    pub const CONSENT: Self = Self(64);
    /// The holder's certificate was revoked.
    pub const REVOKED: Self = Self(128);
    /// Local's console was lost.
    pub const CONSOLE: Self = Self(256);
    /// Somebody on the network pressed ESTOP.
    pub const ESTOP: Self = Self(512);
    /// The hardware override is in use.
    pub const OVERRIDE: Self = Self(1_024);
    /// The audit chain could not be written.
    pub const DISK: Self = Self(2_048);
    /// Outputs were lost because the caller did not drain them.
    pub const LOST: Self = Self(4_096);

    /// One of two paths to the expert is gone.
    pub const PATH: Self = Self(8_192);
    /// The gate's certificate, trust list, issuer's key or listener for frames cannot be used (HO-R-014).
    pub const MEANS: Self = Self(16_384);

    /// These that a TAKE does not answer.
    const STANDING: Self =
        Self(Self::STORE.0 | Self::CONSENT.0 | Self::SECOND_GATE.0 | Self::LOST.0 | Self::PATH.0 | Self::MEANS.0);

    /// Whether one of those is among these.
    #[must_use]
    pub const fn has(self, those: Self) -> bool {
        self.0 & those.0 != 0
    }

    pub(super) const fn set(&mut self, which: Self, present: bool) {
        if present {
            self.0 |= which.0;
        } else {
            self.0 &= !which.0;
        }
    }

    /// Local saw them and acted.
    pub(super) const fn answered(&mut self) {
        self.0 &= Self::STANDING.0;
    }
}

/// Outputs that wait for the caller. After each input it drains them; the bound is never reached then.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(super) struct Outbox(VecDeque<Output>);

impl Outbox {
    /// Most that wait. Beyond it the newest is dropped; nothing for the device goes this way.
    const MOST: usize = 512;

    /// False where it was dropped.
    pub(super) fn push(&mut self, output: Output) -> bool {
        let fits = self.0.len() < Self::MOST;
        if fits {
            self.0.push_back(output);
        }
        fits
    }

    pub(super) fn pop(&mut self) -> Option<Output> {
        self.0.pop_front()
    }
}
