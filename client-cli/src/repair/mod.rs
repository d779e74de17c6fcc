//! Deadline repair at the native ends: a publisher sends again what the relay asks for, `trocar watch` asks for what it
//! lost, and both ends know redundancy.

mod publisher;
mod viewer;

pub(crate) use publisher::Repeater;
pub(crate) use viewer::ViewerRepair;

use std::time::Instant;
use trocar_proto::session::feed::{Fec, FecScheme, RoqMode};
use trocar_proto::units::Micros;

/// Payload type of repair packets: the last of the dynamic ones, which no feed of ours has.
const FEC_PAYLOAD_TYPE: u8 = 127;

/// What a feed's descriptor says of redundancy. Sound has few packets, which are asked for; streams are repeated by QUIC.
pub(crate) fn offered(mode: RoqMode, sound: bool) -> Option<Fec> {
    let offered = Fec { scheme: FecScheme::Rs16, payload_type: FEC_PAYLOAD_TYPE };
    (mode == RoqMode::Datagram && !sound).then_some(offered)
}

/// Time since `origin` for the pure parts.
fn micros(origin: Instant) -> Micros {
    Micros(u64::try_from(origin.elapsed().as_micros()).unwrap_or(u64::MAX))
}

/// Round trip of a connection and its variation, in microseconds: quinn tells the first alone.
fn round_trip(connection: &quinn::Connection) -> (u64, u64) {
    let us = u64::try_from(connection.rtt().as_micros()).unwrap_or(u64::MAX);
    (us, us / 16 + 250)
}
