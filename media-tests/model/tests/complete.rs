//! Every world of CI is explored to its end, and nothing is broken in it: HO-I-001, HO-I-002, HO-I-003, HO-I-004, HO-I-005,
//! HO-I-006, HO-I-007, HO-I-008, HO-I-009, HO-I-010, HO-I-011, HO-I-012, HO-I-013, HO-I-014, HO-I-015, HO-I-016, HO-I-017 and
//! HO-I-018. Together they have more than a million situations. The negative controls are in `mutants`.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may stop the process: that is how it fails")]

use std::sync::atomic::{AtomicUsize, Ordering};
use trocar_model::check::explore;
use trocar_model::handover::checks::Strict;
use trocar_model::scopes::{ci, named};

/// Explores it and prints its line; its size is held to a floor, so that a world that shrinks by a mistake is seen.
fn complete(name: &str, floor: usize) {
    let scope = named(name).unwrap();
    let outcome = explore::<Strict>(&scope, 1, None);
    let seconds = outcome.time.as_secs_f64();
    println!("{name}: {} situations, {} steps, depth {}, {seconds:.1} s", outcome.unique, outcome.steps, outcome.depth);
    for (property, story) in &outcome.broken {
        println!("{property}\n{story}");
    }
    assert!(outcome.broken.is_empty(), "{name}: a property is broken");
    assert!(outcome.missed.is_empty(), "{name} proves nothing: {:?}", outcome.missed);
    assert!(outcome.complete && outcome.unique >= floor, "{name} shrank to {}", outcome.unique);
}

/// Every world has a test and a floor; the floors together are more than a million.
macro_rules! worlds {
    ($($test:ident: $name:literal $floor:literal),* $(,)?) => {
        $(#[test] fn $test() { complete($name, $floor); })*

        #[test]
        fn every_world_has_its_test_and_together_they_have_a_million_situations() {
            let tested = [$($name),*];
            assert_eq!(ci().iter().map(|s| s.name).collect::<Vec<_>>(), tested);
            let sum = AtomicUsize::new(0);
            $(sum.fetch_add($floor, Ordering::Relaxed);)*
            assert!(sum.into_inner() >= 1_000_000);
        }
    };
}

worlds! {
    handshake: "handshake" 130_000,
    local: "local" 92_000,
    races: "races" 54_000,
    disk: "disk" 413_000,
    relay: "relay" 149_000,
    heartbeats: "heartbeats" 273_000,
    beacons: "beacons" 358_000,
    forgeries: "forgeries" 72_000,
    crashes: "crashes" 203_000,
    pauses: "pauses" 420_000,
    device: "device" 410_000,
    restarts: "restarts" 296_000,
    second_gate: "second-gate" 443_000,
    links: "links" 30_000,
    pictures: "pictures" 751_000,
    hands: "hands" 116_000,
    screens: "screens" 190_000,
}
