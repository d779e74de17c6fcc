//! The simulation with as many seeds as one likes: `trocar-sim --seeds 10000 [--from 1] [--steps 4000]`, or one again: `--seed 7`.

use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use trocar_model::handover::sim;
use trocar_model::kept_seeds;

/// The value behind a flag.
fn value(name: &str) -> Result<Option<u64>, String> {
    let mut args = std::env::args().skip_while(|a| a != name).skip(1);
    args.next().map(|text| text.parse().map_err(|_| format!("{name}: {text} is no number"))).transpose()
}

fn run() -> Result<(), String> {
    let steps = usize::try_from(value("--steps")?.unwrap_or(4_000)).map_err(|e| e.to_string())?;
    if let Some(seed) = value("--seed")? {
        let (grants, moved) = sim::seed(seed, steps);
        println!("seed {seed}: {grants} grants, {moved} commands moved the device");
        return Ok(());
    }
    for (seed, steps) in kept_seeds() {
        let _ = sim::seed(seed, steps);
    }
    let (from, seeds) = (value("--from")?.unwrap_or(1), value("--seeds")?.unwrap_or(2_000));
    let (next, grants, moved) = (AtomicU64::new(from), AtomicU64::new(0), AtomicU64::new(0));
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= from.saturating_add(seeds) {
                        break;
                    }
                    let (g, m) = sim::seed(seed, steps);
                    grants.fetch_add(g, Ordering::Relaxed);
                    moved.fetch_add(m, Ordering::Relaxed);
                }
            });
        }
    });
    println!(
        "{seeds} seeds of {steps} steps from {from}: {} grants, {} commands moved the device, no invariant broken",
        grants.into_inner(),
        moved.into_inner()
    );
    Ok(())
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
