//! The device as a process of its own: what it does is read from its record, by its own clock.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may stop the process: that is how it fails"
)]

mod conformance;
mod process;
mod program;
mod sim;
