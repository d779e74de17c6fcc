//! What the publisher says it captured (HANDOVER.md section 8): a listener for `trocar publish --frame-proof`, on a network of the
//! operating room's own.
//!
//! Mutual TLS 1.3 over TCP. Each report becomes `Input::Frame`, which the core notes with its own clock. A report that was held up on
//! its way is left out: noted late, its frame would look younger than it is. How long it was under way is told by the gate's own marks
//! ([`trocar_proto::handover::frameproof`]), not by anybody's clock.
//!
//! Whoever may report can make a frozen picture look fresh. Experts' programs have certificates of the same role as publishers: where
//! they can reach this listener, [`FramesConfig::publishers`] has to name who publishes.

mod claims;
mod connection;
mod marks;

#[cfg(test)]
mod tests;

use crate::core::Inbox;
use crate::doors::Doors;
use claims::Claims;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use trocar_control::trust::{CertName, Identity, Trust};

/// Connections of publishers at a time; one more is refused and counted.
const MAX_CONNECTIONS: usize = 8;
/// Handshakes at a time, in all and of one address: a host that connects and says nothing keeps no publisher out.
const HANDSHAKES: (usize, usize) = (16, 2);
/// A report may have been under way for so long, by default.
pub const MAX_LAG: Duration = Duration::from_millis(100);

/// What the listener is told.
#[derive(Debug, Clone)]
pub struct FramesConfig {
    /// Where publishers connect.
    pub listen: SocketAddr,
    /// Whose certificates may report; empty for any of role `station` that the trust list lets in.
    pub publishers: Vec<CertName>,
    /// A report that was under way for longer is left out: [`MAX_LAG`].
    pub max_lag: Duration,
}

/// Why there is no listener.
#[derive(Debug, thiserror::Error)]
#[error("frames.listen = {listen}: {cause}")]
pub struct FramesError {
    /// Where it was to be.
    pub listen: SocketAddr,
    /// What the system said.
    pub cause: std::io::Error,
}

#[derive(Debug, Default)]
struct Counters {
    taken: AtomicU64,
    late: AtomicU64,
    too_fast: AtomicU64,
    malformed: AtomicU64,
    refused: AtomicU64,
    connections: AtomicU64,
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// What all connections share.
struct Shared {
    config: FramesConfig,
    identity: Arc<Identity>,
    trust: watch::Receiver<Arc<Trust>>,
    inbox: Inbox,
    counters: Counters,
    claims: Claims,
    room: Arc<Semaphore>,
}

/// A running listener; ends when dropped.
pub struct Frames {
    shared: Arc<Shared>,
    address: SocketAddr,
    task: tokio::task::JoinHandle<Infallible>,
}

impl std::fmt::Debug for Frames {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Frames").field("address", &self.address).finish_non_exhaustive()
    }
}

/// Begins to listen. Has to be called within a tokio runtime. `trust` is what holds now, and says when that changes: a publisher whose
/// certificate is taken back is cut off.
///
/// # Errors
/// [`FramesError`] where the address cannot be listened at.
pub async fn start(
    config: FramesConfig,
    identity: Arc<Identity>,
    trust: watch::Receiver<Arc<Trust>>,
    inbox: Inbox,
) -> Result<Frames, FramesError> {
    let listen = config.listen;
    let failed = |cause| FramesError { listen, cause };
    let listener = TcpListener::bind(listen).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    let (counters, claims) = (Counters::default(), Claims::default());
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let shared = Arc::new(Shared { config, identity, trust, inbox, counters, claims, room });
    let task = tokio::spawn(accept(listener, Arc::clone(&shared)));
    Ok(Frames { shared, address, task })
}

impl Frames {
    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Reports taken, late (left out), too fast (left out); connections that broke the protocol, that were refused, and that there
    /// were.
    #[must_use]
    pub fn counters(&self) -> [(&'static str, u64); 6] {
        let c = &self.shared.counters;
        [
            ("frames taken", &c.taken),
            ("frames late", &c.late),
            ("frames too fast", &c.too_fast),
            ("publishers malformed", &c.malformed),
            ("publishers refused", &c.refused),
            ("publishers connected", &c.connections),
        ]
        .map(|(name, n)| (name, n.load(Ordering::Relaxed)))
    }
}

impl Drop for Frames {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) -> Infallible {
    let doors = Doors::new(HANDSHAKES.0, HANDSHAKES.1);
    // Ended with this task.
    let mut connections = tokio::task::JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let (stream, from) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors, for example: what is there goes on.
                tracing::warn!(%error, "frames: a publisher could not be let in");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Some(place) = doors.enter(from.ip().to_canonical()) else {
            count(&shared.counters.refused);
            continue;
        };
        let shared = Arc::clone(&shared);
        connections.spawn(async move {
            match connection::serve(stream, place, &shared).await {
                Ok(()) => tracing::info!(%from, "frames: the publisher is gone"),
                Err(error) => tracing::warn!(%from, %error, "frames: the publisher's connection ended"),
            }
        });
    }
}
