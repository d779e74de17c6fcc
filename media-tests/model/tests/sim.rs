//! Two thousand seeds of the simulation in `proto/src/handover/sim.rs`, and every seed that ever failed, first.
//! HO-I-001, HO-I-002, HO-I-003, HO-I-004, HO-I-005, HO-I-006, HO-I-007, HO-I-011, HO-I-013, HO-I-016, HO-I-017, HO-X-006, HO-X-013.

use trocar_model::handover::sim;
use trocar_model::kept_seeds;

const STEPS: usize = 4_000;

fn seeds(from: u64) {
    let all: Vec<_> = (from..from + 500).map(|seed| sim::seed(seed, STEPS)).collect();
    let (remotes, moved) = all.iter().fold((0, 0), |(r, m), (a, b)| (r + a, m + b));
    println!("{remotes} grants, {moved} commands moved the device in 500 seeds of {STEPS} steps");
    assert!(remotes > 100 && moved > 5_000, "the simulation proves nothing: {remotes} grants, {moved} commands");
}

#[test]
fn every_seed_that_ever_failed_passes() {
    for (seed, steps) in kept_seeds() {
        let _ = sim::seed(seed, steps);
    }
}

#[test]
fn seeds_of_the_first_quarter() {
    seeds(10_001);
}

#[test]
fn seeds_of_the_second_quarter() {
    seeds(10_501);
}

#[test]
fn seeds_of_the_third_quarter() {
    seeds(11_001);
}

#[test]
fn seeds_of_the_last_quarter() {
    seeds(11_501);
}
