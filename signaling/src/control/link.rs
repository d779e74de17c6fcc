//! A gate as the rest of signaling sees it: two bounded queues.

use std::future::Future;
use std::pin::Pin;
use tokio::sync::mpsc;
use trocar_proto::handover::message::{FromGate, ToGate};
use trocar_proto::session::ids::SessionId;

/// Messages that wait for either side of a link. Loss policy: whoever writes to the gate gives the link up, whoever reads from it waits.
pub(crate) const LINK_QUEUE: usize = 64;

/// Gates of one session that are spoken with at a time. One should be there; a dead predecessor and a second one may be as well, and
/// a stop has to reach all of them.
pub(crate) const MOST_GATES: usize = 4;

/// A channel to one of a session's gates. It is at its end when `from_gate` is; dropping it closes the channel.
#[derive(Debug)]
pub(crate) struct GateLink {
    pub(crate) to_gate: mpsc::Sender<ToGate>,
    pub(crate) from_gate: mpsc::Receiver<FromGate>,
}

/// A session's gates, in the order in which they were found. At its end no more will come by this way, and the session is to be
/// dialled again.
pub(crate) type GateLinks = mpsc::Receiver<GateLink>;

/// What a dialer gives back.
pub(crate) type Answer<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Finds gates.
pub(crate) trait Dialer: Send + Sync + 'static {
    /// A way to the session's gates. The error is for the log.
    fn dial<'a>(&'a self, session: &'a SessionId) -> Answer<'a, Result<GateLinks, String>>;
}
