//! What the core is told: hands, acts, and what the line brings.

use super::input::trajectory::Trajectory;
use trocar_control::channel::Writer;
use trocar_control::seal::SealKeys;
use trocar_control::transport::ControlConnection;
use trocar_proto::control::Index;
use trocar_proto::handover::message::{FromGate, Payload, Pose, Short};
use trocar_proto::handover::types::{Clutch, GrantedSet};
use trocar_proto::session::ids::CertHash;

/// What hands and feet do, as far as one input knows; what it does not know stays.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Hands {
    pub(super) presence: Option<bool>,
    pub(super) pedal: Option<bool>,
    pub(super) clutch: Option<Clutch>,
    pub(super) pose: Option<Pose>,
}

impl Hands {
    /// What is other in `new`; nothing where nothing is.
    pub(super) fn changed(&self, new: &Self) -> Option<Self> {
        fn other<T: PartialEq + Clone>(old: &Option<T>, new: &Option<T>) -> Option<T> {
            new.clone().filter(|_| old != new)
        }
        let changed = Self {
            presence: other(&self.presence, &new.presence),
            pedal: other(&self.pedal, &new.pedal),
            clutch: other(&self.clutch, &new.clutch),
            pose: other(&self.pose, &new.pose),
        };
        (changed != Self::default()).then_some(changed)
    }

    /// Takes over what `new` knows.
    pub(super) fn take(&mut self, new: &Self) {
        let new = new.clone();
        self.presence = new.presence.or(self.presence);
        self.pedal = new.pedal.or(self.pedal);
        self.clutch = new.clutch.or(self.clutch);
        self.pose = new.pose.or_else(|| self.pose.take());
    }

    /// What `self` lets go; nothing else.
    pub(super) fn letting_go(&self) -> Self {
        Self {
            presence: self.presence.filter(|held| !held),
            pedal: self.pedal.filter(|held| !held),
            clutch: self.clutch.filter(|c| *c == Clutch::Open),
            pose: None,
        }
    }

    /// Everything let go: an input that is gone holds nothing.
    pub(super) const fn released() -> Self {
        Self { presence: Some(false), pedal: Some(false), clutch: Some(Clutch::Open), pose: None }
    }
}

/// An act of the expert.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Act {
    Hands(Hands),
    Motion(Payload),
    Trajectory(Trajectory),
    Accept,
    Decline(Short),
    Return,
    Request(GrantedSet, Short),
    Estop(Short),
    Quit,
}

/// A channel that stands.
#[derive(Debug)]
pub(super) struct Path {
    /// Place on the command line, from 0.
    pub(super) number: usize,
    /// Of the gate.
    pub(super) certificate: CertHash,
    /// The tunnel's name, by which another one is bound to it.
    pub(super) tunnel: u128,
    pub(super) gate: String,
    pub(super) connection: ControlConnection,
    pub(super) index: Index,
    pub(super) writer: Writer,
    pub(super) keys: SealKeys,
}

/// What the lines bring, each in order; the number is the path's.
#[derive(Debug)]
pub(super) enum News {
    Opened(Box<Path>),
    /// With the gate's id, the same on every path.
    Message(usize, u64, FromGate),
    /// Why there is no channel, or no more.
    Gone(usize, String),
}
