//! What is fuzzed, as plain functions of bytes: libFuzzer drives them (`fuzz_targets`), and so does the driver of the repository on a
//! stable compiler (`make fuzz`). The kept corpora are replayed by ordinary tests.

pub mod doors;
#[path = "lib.rs"]
mod handover;
pub mod media;

pub use handover::{codec, gate};
