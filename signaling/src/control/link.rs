//! A gate as the rest of signaling sees it: two bounded queues.

use std::future::Future;
use std::pin::Pin;
use tokio::sync::mpsc;
use trocar_proto::handover::message::{FromGate, ToGate};
use trocar_proto::session::ids::SessionId;

/// Messages that wait for either side of a link. Loss policy: whoever writes to the gate gives the link up, whoever reads from it waits.
pub(crate) const LINK_QUEUE: usize = 64;

/// A channel to a session's gate. It is at its end when `from_gate` is; dropping it closes the channel.
#[derive(Debug)]
pub(crate) struct GateLink {
    pub(crate) to_gate: mpsc::Sender<ToGate>,
    pub(crate) from_gate: mpsc::Receiver<FromGate>,
}

/// What a dialer gives back.
pub(crate) type Answer<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Finds gates.
pub(crate) trait Dialer: Send + Sync + 'static {
    /// A channel to the session's gate; waits until there is one. The error is for the log.
    fn dial<'a>(&'a self, session: &'a SessionId) -> Answer<'a, Result<GateLink, String>>;
}
