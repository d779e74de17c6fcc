//! Sends a flow at its times, from a thread with nothing else to do.

use super::clock::Clock;
use super::socket::Socket;
use crate::measure::Stamp;
use crate::measure::packet::{Header, Key, Kind};
use crate::measure::schedule::{FlowSpec, Schedule};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Closer than this to a packet's time the thread does not sleep: that is how late the kernel wakes it anyhow.
const SPIN: Duration = Duration::from_micros(60);

/// A flow that is to be sent.
pub struct Flow {
    /// By which socket.
    pub socket: Socket,
    /// To whom: looked at before each packet.
    pub to: Arc<Mutex<SocketAddr>>,
    /// Which end this is.
    pub from_responder: bool,
    /// The session.
    pub session: u64,
    /// Number of the flow in it.
    pub phase: u16,
    /// The session's key.
    pub key: Key,
    /// What is sent.
    pub spec: FlowSpec,
    /// By which clock.
    pub clock: Clock,
    /// When it begins.
    pub begin: Stamp,
}

/// How far it is, for others to look at.
#[derive(Debug, Default)]
pub struct Progress {
    /// Set by whoever wants it to end.
    pub stop: AtomicBool,
    /// Packets that the system took.
    pub sent: AtomicU32,
}

impl Flow {
    /// Sends until the flow ends or is stopped; how many packets were sent. One that the system does not take counts as sent: it is
    /// lost, and the other end will say so.
    pub fn run(&self, progress: &Progress) -> u32 {
        let mut bytes = Vec::new();
        let mut sent = 0;
        for due in Schedule::new(self.spec).into_iter().flatten() {
            self.wait_for(self.clock.instant(self.begin + due.at_us as Stamp), progress);
            if progress.stop.load(Ordering::Relaxed) {
                break;
            }
            let head = Header {
                kind: Kind::Probe,
                from_responder: self.from_responder,
                phase: self.phase,
                session: self.session,
                seq: due.seq,
                frame: due.frame,
                sent: self.clock.now(),
            };
            head.write_probe(&self.key, usize::from(self.spec.packet_bytes), &mut bytes);
            let to = *self.to.lock().unwrap_or_else(PoisonError::into_inner);
            if let Err(error) = self.socket.send(&bytes, to, self.spec.tos) {
                tracing::debug!(%error, "a probe was not sent");
            }
            sent += 1;
            progress.sent.store(sent, Ordering::Relaxed);
        }
        sent
    }

    fn wait_for(&self, at: Instant, progress: &Progress) {
        loop {
            let left = at.saturating_duration_since(Instant::now());
            if left.is_zero() || progress.stop.load(Ordering::Relaxed) {
                return;
            }
            if left > SPIN {
                // Long waits in pieces, so that a stop is seen.
                std::thread::sleep((left - SPIN).min(Duration::from_millis(50)));
            } else {
                std::hint::spin_loop();
            }
        }
    }
}
