//! Model checking of handing over operation authority: the very files of `proto::handover`, in a small world that is explored to its
//! end.
//!
//! - [`world`]: gates, device, stations, disk and a hostile relay as one value, and what may happen to it.
//! - [`truth`]: what really happened, noted beside the machines, and the invariants of HANDOVER.md section 16 judged by it.
//! - [`heal`]: from every situation the way back to REMOTE (HO-I-018), and TAKE at once (HO-I-007).
//! - [`scopes`]: named, bounded worlds. [`check`]: explores one. [`story`]: a counter-example in words.
//!
//! Seals carry identity only: who made a datagram, and nothing of its binding. So fresh keys do not hide a missing check.

#![allow(
    clippy::indexing_slicing,
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a tool for tests: what is not there is a fault of the model, and stopping is how it says so"
)]

pub use trocar_proto::{session, units};

#[allow(dead_code, reason = "compiled once more for the checker, which does not use all of it")]
#[path = "../../../proto/src/handover/mod.rs"]
pub mod handover;

pub mod acts;
pub mod check;
mod forge;
pub mod heal;
pub mod parts;
pub mod scopes;
pub mod story;
pub mod truth;
pub mod world;

/// Seeds of the simulation that ever failed, each with its steps: `seeds.txt`.
#[must_use]
pub fn kept_seeds() -> Vec<(u64, usize)> {
    let lines = include_str!("../seeds.txt").lines().filter(|l| !l.starts_with('#') && !l.trim().is_empty());
    lines
        .map(|line| {
            let mut words = line.split_whitespace();
            let mut number =
                || words.next().and_then(|w| w.parse::<u64>().ok()).expect("seeds.txt: SEED STEPS what it was");
            (number(), usize::try_from(number()).unwrap_or(0))
        })
        .collect()
}
