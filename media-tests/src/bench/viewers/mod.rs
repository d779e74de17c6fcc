//! The viewers: many in one process, which counts every packet, opens one in [`SAMPLE`], and decodes nothing.

mod roq;
mod sockets;
mod tally;

use super::words::{ViewerKind, ViewerSettings};

/// One packet in so many is opened, for its number and the time it was sent: opening all would take the core from the
/// generator. Prime, so that no place in a frame is left out.
pub const SAMPLE: u64 = 13;
/// Packets that each viewer must have got before the viewers call themselves ready.
const ENOUGH: u64 = 50;

/// Reads until standard input ends.
///
/// # Errors
/// Where a socket fails, or nobody reads what it says.
pub fn run(settings: &ViewerSettings) -> anyhow::Result<()> {
    match &settings.kind {
        ViewerKind::Roq { base, invitation, ca, streams } => roq::run(base, invitation, ca, *streams),
        _ => sockets::run(settings),
    }
}
