//! Operation authority as browsers see it: signaling is a party at the relay's rendezvous, speaks with the session's gate on their
//! behalf, and tells everybody what the gate says. It never holds, and nothing that it says can grant anything (HO-M-007, HO-M-010).
//!
//! For each session in which somebody listens, one task finds the gate ([`dial`]), says HELLO, passes on what browsers say and turns
//! each STATUS into [`ServerEvent::Control`](trocar_proto::session::event::ServerEvent::Control). What waits is bounded: a probe too
//! many is dropped, for the browser then says "unknown"; an ESTOP or a request too many is refused to whoever sent it.
//!
//! A session has one gate, but the relay may name more: a predecessor that died a moment ago, or a second one that should not be there.
//! A stop goes to all of them, and nobody is told who operates while they differ ([`talk`]). What somebody did is announced only when
//! a gate has answered that it took it ([`acts`]).

mod acts;
mod browser;
mod dial;
mod link;
mod probes;
mod session;
mod talk;
mod words;

pub(crate) use browser::{PROBE_RATE, estop, nonce, request};
pub use dial::ControlConfig;
pub(crate) use dial::RelayDialer;
pub(crate) use link::Dialer;
#[cfg(test)]
pub(crate) use link::{Answer, GateLink, GateLinks};
pub(crate) use session::manage;

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use tokio::sync::{Notify, mpsc};
use trocar_proto::handover::message::Short;
use trocar_proto::handover::types::GrantedSet;
use trocar_proto::session::ids::{ParticipantId, SessionId};

/// What a browser asks of the gate, other than how it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ask {
    /// For control.
    Request { participant: ParticipantId, person: Short, set: GrantedSet, reason: Short },
    /// To stop.
    Estop { participant: ParticipantId, person: Short, reason: Short },
}

/// Why it cannot be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unheard {
    #[error("no gate is connected to this session: nobody hears this")]
    NoGate,
    #[error("too much waits for the gate already: try again")]
    Full,
}

/// Acts that wait for one gate. Loss policy: refused to whoever acts.
const ACTS: usize = 32;
/// Probes that wait for one gate. Loss policy: dropped.
const PROBES: usize = 512;

#[derive(Debug)]
struct Queues {
    acts: mpsc::Sender<Ask>,
    probes: mpsc::Sender<u64>,
}

/// Which gates are there to be asked.
#[derive(Debug, Default)]
pub(crate) struct Gates {
    linked: Mutex<BTreeMap<SessionId, Queues>>,
    /// Somebody began to listen to a session.
    pub(crate) listened: Notify,
}

/// The other end of one gate's queues.
pub(crate) struct Asked {
    acts: mpsc::Receiver<Ask>,
    probes: mpsc::Receiver<u64>,
}

impl Gates {
    /// Has the session's gate asked.
    ///
    /// # Errors
    /// [`Unheard`].
    pub(crate) fn act(&self, session: &SessionId, ask: Ask) -> Result<(), Unheard> {
        let linked = self.linked.lock().unwrap_or_else(PoisonError::into_inner);
        let queues = linked.get(session).ok_or(Unheard::NoGate)?;
        queues.acts.try_send(ask).map_err(|e| match e {
            mpsc::error::TrySendError::Full(_) => Unheard::Full,
            mpsc::error::TrySendError::Closed(_) => Unheard::NoGate,
        })
    }

    /// Passes a probe on where there is a gate; whether it was.
    pub(crate) fn probe(&self, session: &SessionId, nonce: u64) -> bool {
        let linked = self.linked.lock().unwrap_or_else(PoisonError::into_inner);
        linked.get(session).is_some_and(|queues| queues.probes.try_send(nonce).is_ok())
    }

    fn link(&self, session: SessionId) -> Asked {
        let (acts, acts_asked) = mpsc::channel(ACTS);
        let (probes, probes_asked) = mpsc::channel(PROBES);
        let mut linked = self.linked.lock().unwrap_or_else(PoisonError::into_inner);
        linked.insert(session, Queues { acts, probes });
        Asked { acts: acts_asked, probes: probes_asked }
    }

    fn unlink(&self, session: &SessionId) {
        self.linked.lock().unwrap_or_else(PoisonError::into_inner).remove(session);
    }
}
