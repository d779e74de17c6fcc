//! What a line takes, and who gets how much of it: rate control from delays and losses, pacing, policing, shares.
//!
//! ```text
//! packets sent ──► SentLog ──┐ feedback (TWCC, QUIC ACKs)
//!                            ▼
//!                    DelayController ── target ──► who encodes, sheds or repairs
//!                            └───────── pacing ──► Pacer (WebRTC), quinn's window (QUIC)
//! ```
//!
//! A controller starts at the granted rate, because the line was measured before: it does not grope its way up. What
//! lowers it is a queue that grows; losses alone do so only where they are the line's answer to the rate.

mod delay;
mod pacer;
mod police;
mod sent;
mod share;
mod shared;

pub use delay::{DelayController, Pace};
pub use pacer::Pacer;
pub use police::Police;
pub use sent::SentLog;
pub use share::{Demand, NoRoom, admit, allocate, rank};
pub use shared::{Share, SharedLine};

use crate::units::{Bitrate, Micros};

/// One packet of which the receiver told (transport-wide feedback, RFC 8888) or QUIC knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PacketResult {
    /// Its size on the wire, as the transport counts.
    pub bytes: u32,
    /// When it was sent.
    pub sent: Micros,
    /// When it came, in microseconds of the receiver's clock, whose origin does not matter; none where it is lost.
    pub arrived: Option<i64>,
}

/// Between which rates a controller moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateConfig {
    /// What the line was measured for: where the controller starts.
    pub granted: Bitrate,
    /// Never less.
    pub min: Bitrate,
    /// Never more.
    pub max: Bitrate,
}

impl RateConfig {
    /// From a tenth of the grant (100 kbit/s at least) up to twice the grant.
    #[must_use]
    pub fn around(granted: Bitrate) -> Self {
        let min = (granted.0 / 10).max(100_000).min(granted.0);
        Self { granted, min: Bitrate(min), max: Bitrate(granted.0.saturating_mul(2)) }
    }
}

/// How a line is, for figures and for the pace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LineState {
    /// Nothing tells of a queue.
    #[default]
    Clear,
    /// A queue has begun, or losses that may be the line's answer to the rate.
    Filling,
    /// The rate has been lowered because of the line, and the queue is not gone or was there a moment ago.
    Congested,
}

/// What a transport sees of a controller. `handle_*` in, getters look.
pub trait RateController {
    /// Takes what became of packets. Order does not matter.
    fn handle_results(&mut self, now: Micros, results: &[PacketResult]);
    /// Takes a round trip in microseconds.
    fn handle_round_trip(&mut self, now: Micros, rtt_us: u64);
    /// What the line takes now.
    fn target(&self) -> Bitrate;
    /// At what rate packets leave: above the target, so that a frame does not wait for the next one; far above on a line
    /// that is short and never showed a queue.
    fn pacing_rate(&self, now: Micros) -> Bitrate;
    /// How long the newest packets waited in queues on the way, in microseconds.
    fn queueing_delay_us(&self) -> u64;
    /// How the line is.
    fn state(&self) -> LineState;
}
