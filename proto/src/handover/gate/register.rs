//! The register: the one place that says who may operate.
//!
//! ```text
//!                        ┌────────────────────────── TAKE ──────────────────────────┐
//!                        ▼                                                          │
//!  start ──► HOLD ──TAKE──► LOCAL ──OFFER──► OFFERED ──ACCEPT──► READY ──CONFIRM──► GRANTING
//!             ▲ ▲             ▲                 │                  │                  │   │
//!             │ │             └─ WITHDRAW, DECLINE, time, red, ESTOP by network ──────┘   │ intent durable,
//!             │ │             ▲                                                           │ epochs covered,
//!        RESET│ │lease, RETURN│TAKE                                                       │ guards passed again
//!             │ │withdrawn …  │                                                           ▼
//!             │ └─────────────┴─────────────────────────────────────────────────────── REMOTE
//!           ESTOP ◄── local's ESTOP, hardware input: from every state; CLOSED ◄── CLOSE in HOLD, LOCAL, ESTOP
//! ```
//! Every arrow out of REMOTE takes the next epoch and waits for nothing.

use super::stops::Stop;
use super::talk::Talk;
use crate::handover::message::{Command, Figures, Mode, Short};
use crate::handover::types::{Colours, Epoch, ExpertId, GrantedSet, Oid, Selection};
use crate::units::Micros;
use std::collections::VecDeque;

/// An offer: one addressee, one set, single use.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Offer {
    /// Its unguessable name.
    pub oid: Oid,
    /// The one addressee.
    pub expert: ExpertId,
    /// What is offered.
    pub set: GrantedSet,
    /// The step that local declared.
    pub step: Short,
}

/// Link gates as last reported for this offer.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(super) struct Links {
    pub(super) colours: Colours,
    pub(super) figures: Figures,
}

/// READY.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Ready {
    pub(super) offer: Offer,
    pub(super) until: Micros,
    pub(super) talk: Talk,
    pub(super) links: Links,
    /// A CONFIRM was answered with "amber" (HO-G-026).
    pub(super) amber_told: bool,
    /// Local confirmed a second time.
    pub(super) amber_confirmed: bool,
}

/// GRANTING.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Granting {
    pub(super) ready: Ready,
    pub(super) epoch: Epoch,
    pub(super) until: Micros,
    pub(super) durable: bool,
}

/// A command that waits to be handed to the device; never longer than until the caller's next poll.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Waiting {
    pub(super) command: Command,
    /// When the gate issued the nonce that it echoes.
    pub(super) issued: Micros,
}

/// REMOTE.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Remote {
    pub(super) offer: Offer,
    pub(super) talk: Talk,
    pub(super) links: Links,
    /// Why and since when motion is stopped; nothing while it runs.
    pub(super) stop: Option<Stop>,
    /// Clutch in the newest CMD.
    pub(super) clutch_open: bool,
    /// When camera motion of another was seen last.
    pub(super) camera_moved: Option<Micros>,
    /// Since when newest HBs are too slow (HO-A-009).
    pub(super) slow_since: Option<Micros>,
    /// A command that permits energy was handed out, and energy was not turned off since.
    pub(super) energised: bool,
    pub(super) waiting: VecDeque<Waiting>,
}

/// The states. What belongs to one lives in it, so leaving a state forgets it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum State {
    Hold,
    Local,
    Offered { offer: Offer, until: Micros },
    Ready(Ready),
    Granting(Granting),
    Remote(Remote),
    Estop,
    Closed,
}

impl State {
    /// The state's name.
    pub(super) const fn mode(&self) -> Mode {
        match self {
            Self::Hold => Mode::Hold,
            Self::Local => Mode::Local,
            Self::Offered { .. } => Mode::Offered,
            Self::Ready(_) => Mode::Ready,
            Self::Granting(_) => Mode::Granting,
            Self::Remote(_) => Mode::Remote,
            Self::Estop => Mode::Estop,
            Self::Closed => Mode::Closed,
        }
    }

    /// What the device is to obey in this state.
    pub(super) const fn selection(&self) -> Selection {
        match self {
            Self::Hold | Self::Estop | Self::Closed => Selection::Nobody,
            Self::Local | Self::Offered { .. } | Self::Ready(_) | Self::Granting(_) => Selection::Local,
            Self::Remote(_) => Selection::Remote,
        }
    }

    /// The offer that this state is about: open, or granted.
    pub(super) const fn offer(&self) -> Option<&Offer> {
        match self {
            Self::Offered { offer, .. } => Some(offer),
            Self::Ready(ready) => Some(&ready.offer),
            Self::Granting(granting) => Some(&granting.ready.offer),
            Self::Remote(remote) => Some(&remote.offer),
            Self::Hold | Self::Local | Self::Estop | Self::Closed => None,
        }
    }

    /// When this state ends by itself.
    pub(super) const fn until(&self) -> Option<Micros> {
        match self {
            Self::Offered { until, .. } => Some(*until),
            Self::Ready(ready) => Some(ready.until),
            Self::Granting(granting) => Some(granting.until),
            Self::Hold | Self::Local | Self::Remote(_) | Self::Estop | Self::Closed => None,
        }
    }

    /// Whether an offer is open (HO-I-011).
    pub(super) const fn is_open(&self) -> bool {
        matches!(self, Self::Offered { .. } | Self::Ready(_) | Self::Granting(_))
    }

    /// What is known of the expert's datagrams.
    pub(super) const fn talk(&self) -> Option<&Talk> {
        match self {
            Self::Ready(ready) => Some(&ready.talk),
            Self::Granting(granting) => Some(&granting.ready.talk),
            Self::Remote(remote) => Some(&remote.talk),
            _ => None,
        }
    }

    pub(super) const fn talk_mut(&mut self) -> Option<&mut Talk> {
        match self {
            Self::Ready(ready) => Some(&mut ready.talk),
            Self::Granting(granting) => Some(&mut granting.ready.talk),
            Self::Remote(remote) => Some(&mut remote.talk),
            _ => None,
        }
    }

    pub(super) const fn links(&self) -> Option<&Links> {
        match self {
            Self::Ready(ready) => Some(&ready.links),
            Self::Granting(granting) => Some(&granting.ready.links),
            Self::Remote(remote) => Some(&remote.links),
            _ => None,
        }
    }

    pub(super) const fn links_mut(&mut self) -> Option<&mut Links> {
        match self {
            Self::Ready(ready) => Some(&mut ready.links),
            Self::Granting(granting) => Some(&mut granting.ready.links),
            Self::Remote(remote) => Some(&mut remote.links),
            _ => None,
        }
    }
}
