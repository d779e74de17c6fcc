//! The gate's audit chain (HANDOVER.md section 15): one JSON object a line, each bound to the one before it.
//!
//! The last member of every line is `"hash"`: SHA-256, in hex, of the line's own bytes without that member and without the line feed,
//! so that nobody has to agree on how JSON is written to check it. `previous` is the hash of the record before, 64 zeros in the first.
//! `seq` counts from 1 without gaps.
//!
//! What this finds: a byte that was changed, a record that was removed, moved or added, a tail that was cut off while later records, the
//! copy or the head beside the file remember it. What it cannot find by itself: a store whose every file was replaced by an older or a newly
//! made one. Whoever needs that notes the head that [`verify()`] gives, somewhere else.
//!
//! - [`record`]: what a record says; [`sector`]: small values in two checksummed copies, among them the head of the chain.
//! - [`verify()`]: names the first bad record. [`show()`]: the chain as a story.

pub mod clock;
pub mod record;
pub mod sector;
mod show;
mod story;
mod verify;

pub use record::{Hash, Link, Record};
pub use show::show;
pub use verify::{Bad, Verified, Why, verify};

/// The chain's file in the gate's store.
pub const CHAIN: &str = "audit.jsonl";
/// Its second copy, byte for byte.
pub const COPY: &str = "audit.copy.jsonl";
/// The two copies of the chain's head: [`sector::Head`].
pub const HEADS: [&str; 2] = ["audit.head.a", "audit.head.b"];
