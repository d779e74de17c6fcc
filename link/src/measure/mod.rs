//! The measurement: its packets, its phases, and what is made of what came.
//!
//! ```text
//!  trocar link test                                   trocar link serve
//!  Hello (padded) ───────────────────────────────────►           who answers sends no more than it got,
//!                ◄─────────────────────────────────── Retry      until the cookie came back (RFC 9000 section 8.1)
//!  Open, cookie  ───────────────────────────────────►
//!                ◄─────────────────────────────────── Accept     from here on everything carries a tag of the session
//!  Ping ◄──────────────────────────────────────────► Pong       four timestamps (RFC 5905), padded for the MTU search
//!  Ask ◄────────────────────────────────────────────► Answer     begin and end a flow, what came of it as JSON
//!  Probe ◄──────────────────────────────────────────► Probe      numbered packets of a flow, both directions
//! ```
//!
//! Whoever receives a flow keeps one [`log::Arrival`] per packet, and makes a [`crate::result::Flow`] of them when the flow has
//! ended: the same pure code at both ends, and in the tests, where the packets come from the link emulator and its ledger is
//! the truth. Times are microseconds of the clock of the machine that took them ([`Stamp`]); the measuring end knows how
//! the other's clock stands to its own ([`clock::ClockModel`]), and tells it when it asks for a report.

pub mod clock;
pub mod cookie;
pub mod flow;
pub mod keys;
pub mod log;
pub mod message;
pub mod mtu;
pub mod nat;
pub mod packet;
pub mod pair;
pub mod quantiles;
pub mod ramp;
pub mod responder;
pub mod schedule;
pub mod trips;

#[cfg(test)]
mod emulated;

/// Microseconds of a clock that stood at the wall clock's time when its process began and was not set since. Those of two
/// machines differ by an offset and a drift.
pub type Stamp = i64;

/// Where the measuring program and `trocar link serve` meet, unless told otherwise.
pub const PORT: u16 = 4436;
