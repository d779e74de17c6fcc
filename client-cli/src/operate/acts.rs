//! The one queue into the core, and what goes through it.

use super::input::trajectory::Trajectory;
use bytes::Bytes;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use tokio::sync::Notify;
use trocar_control::channel::Writer;
use trocar_control::seal::SealKeys;
use trocar_control::transport::ControlConnection;
use trocar_proto::control::Index;
use trocar_proto::handover::message::{FromGate, Payload, Pose, Short};
use trocar_proto::handover::types::{Clutch, FrameRef, GrantedSet};

/// Things that wait for the core at most. Loss policy: the newest is dropped and counted; a reliable message that does not fit closes
/// its channel, and a hand that does not fit is felt again with its next movement.
const WAITING: usize = 1_024;

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
    pub(super) gate: String,
    pub(super) connection: ControlConnection,
    pub(super) index: Index,
    pub(super) writer: Writer,
    pub(super) keys: SealKeys,
}

/// One thing for the core.
#[derive(Debug)]
pub(super) enum In {
    Act(Act),
    /// A frame is on the screen.
    Shown(FrameRef),
    Opened(Box<Path>),
    Message(FromGate),
    Datagram(Bytes),
    /// Why there is no channel, or no more.
    Gone(String),
    Stop,
}

/// Where it is put in; cloned freely.
#[derive(Debug, Clone)]
pub(super) struct Inbox {
    queue: SyncSender<In>,
    dropped: Arc<AtomicU64>,
    quit: Arc<Notify>,
}

impl Inbox {
    pub(super) fn new() -> (Self, Receiver<In>) {
        let (queue, out) = sync_channel(WAITING);
        (Self { queue, dropped: Arc::default(), quit: Arc::default() }, out)
    }

    /// Puts one in; false where it does not fit or nobody is there any more.
    pub(super) fn put(&self, one: In) -> bool {
        if matches!(one, In::Act(Act::Quit)) {
            self.quit.notify_one();
            return true;
        }
        match self.queue.try_send(one) {
            Ok(()) => true,
            Err(TrySendError::Full(_)) => {
                self.dropped.fetch_add(1, Ordering::Relaxed);
                false
            }
            Err(TrySendError::Disconnected(_)) => false,
        }
    }

    /// An act of the expert.
    pub(super) fn act(&self, act: Act) -> bool {
        self.put(In::Act(act))
    }

    /// How many did not fit.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Returns when the expert asked to end.
    pub(super) async fn quit(&self) {
        self.quit.notified().await;
    }
}
