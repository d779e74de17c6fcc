//! `make bench`: what a packet costs in the relay, beside floors and the common way, in one run.
//!
//! Four processes: the relay under test alone on core 0; on core 1 the generator, the viewers, and (asleep while it measures)
//! the one that runs them all. They speak JSON lines over their standard streams ([`words`]).

pub mod cell;
mod dtls;
pub mod ends;
pub mod figures;
pub mod floor;
pub mod generator;
pub mod packet;
mod peer;
pub mod plan;
pub mod report;
pub mod road;
pub mod schedule;
pub mod str0m_relay;
pub mod viewers;
pub mod words;

/// The core of the relay under test.
pub const RELAY_CORE: usize = 0;
/// The core of everything else.
pub const ENDS_CORE: usize = 1;
/// Packets of one batch on the way out, in the relay and in the floors alike.
pub const BATCH: usize = 16;
