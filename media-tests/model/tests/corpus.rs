//! The kept corpora of the fuzz targets, replayed without libFuzzer: HO-C-003, HO-C-004.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may stop the process: that is how it fails")]

#[allow(
    unreachable_pub,
    clippy::indexing_slicing,
    clippy::needless_range_loop,
    reason = "a library of its own for libFuzzer"
)]
#[path = "../../../fuzz/src/lib.rs"]
mod targets;

use std::path::Path;

fn replay(name: &str, target: fn(&[u8])) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(name);
    let mut count = 0;
    for entry in std::fs::read_dir(&dir).unwrap() {
        target(&std::fs::read(entry.unwrap().path()).unwrap());
        count += 1;
    }
    assert!(count >= 10, "{} holds {count} inputs", dir.display());
}

#[test]
fn what_the_codecs_were_fuzzed_with_is_still_refused_or_round() {
    replay("codec", targets::codec);
}

#[test]
fn what_the_gate_was_fuzzed_with_still_breaks_nothing() {
    replay("gate", targets::gate);
}
