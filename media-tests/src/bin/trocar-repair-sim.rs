//! The repair matrix on the virtual clock: `trocar-repair-sim [--frames N] [--rate MBIT] [--both-hops] [--targets] [--two-paths]
//! [--seed N]`. `--targets` leaves out the cells that the issue sets no target for. Prints one
//! line per cell; ends with an error where a target of the issue is not met. `--real [--seconds N]` runs a few cells with real
//! processes instead and ends with an error where they do not agree with the simulation.

use anyhow::{Context, bail};
use trocar_media_tests::repair_sim::bounds::{at_least, wilson};
use trocar_media_tests::repair_sim::{Cell, Dark, Loss, Outcome, matrix, real, two_paths};

struct Args {
    frames: u64,
    rate: Option<f64>,
    both_hops: bool,
    two_paths: bool,
    targets: bool,
    seed: u64,
    real: bool,
    seconds: u64,
}

fn parse() -> anyhow::Result<Args> {
    let mut args = Args {
        frames: 3_000,
        rate: None,
        both_hops: false,
        two_paths: false,
        targets: false,
        seed: 1,
        real: false,
        seconds: 40,
    };
    let mut given = std::env::args().skip(1);
    while let Some(flag) = given.next() {
        let mut value = || given.next().with_context(|| format!("{flag} wants a number"));
        match flag.as_str() {
            "--frames" => args.frames = value()?.parse().context("--frames wants a whole number")?,
            "--rate" => args.rate = Some(value()?.parse().context("--rate wants a number of Mbit/s")?),
            "--seed" => args.seed = value()?.parse().context("--seed wants a whole number")?,
            "--both-hops" => args.both_hops = true,
            "--two-paths" => args.two_paths = true,
            "--targets" => args.targets = true,
            "--real" => args.real = true,
            "--seconds" => args.seconds = value()?.parse().context("--seconds wants a whole number")?,
            _ => bail!(
                "{flag}: --frames, --rate, --seed, --both-hops, --targets, --two-paths, --real or --seconds is right"
            ),
        }
    }
    Ok(args)
}

fn main() -> anyhow::Result<()> {
    let args = parse()?;
    if args.real {
        return run_for_real(&args);
    }
    println!(
        "{:>7} {:>11} {:>6} {:>22}  {:>8} {:>8}  {:>9} {:>9}  {:>6} {:>6} {:>6}  {:>7} {:>8}",
        "Mbit/s",
        "loss",
        "RTT ms",
        "paths",
        "frames",
        "in time",
        "share %",
        ">= (95 %)",
        "repeat",
        "redund",
        "plan",
        "oldest",
        "target"
    );
    let cells = if args.two_paths { two_paths(args.frames) } else { matrix(args.frames) };
    let mut missed = 0;
    let wanted =
        |c: &Cell| args.rate.is_none_or(|r| (c.mbit_s - r).abs() < 0.5) && (!args.targets || c.target().is_some());
    for cell in cells.into_iter().filter(wanted) {
        let both_hops = args.both_hops && cell.second_path_us.is_none();
        let cell = Cell { both_hops, seed: args.seed, ..cell };
        missed += u32::from(!print(&cell, &cell.run()));
    }
    let off =
        Cell { rtx: false, fec: false, ..Cell::new(50.0, Loss::Random { percent: 1.0 }, 30, args.frames.min(3_000)) };
    let outcome = off.run();
    println!("negative control, repair off: 50 Mbit/s, 1 %, 30 ms: {:.2} % of the frames", 100.0 * outcome.share());
    if outcome.share() > 0.9 {
        bail!("without repair the frames must not be whole");
    }
    if missed > 0 {
        bail!("{missed} cells miss their target");
    }
    Ok(())
}

/// Each real cell beside its simulation.
fn run_for_real(args: &Args) -> anyhow::Result<()> {
    let mut apart = 0;
    for (pictures, loss, round_trip_ms) in real::CELLS {
        let cell = pictures.cell(loss, round_trip_ms, args.frames);
        let (simulated, seen) = (cell.run(), real::run(pictures, &cell, args.seconds)?);
        let agrees = seen.agrees(&simulated);
        apart += u32::from(!agrees);
        let share = |good: u64, all: u64| (100.0 * good as f64 / all.max(1) as f64, 100.0 * at_least(good, all));
        let (real, sim) = (share(seen.whole, seen.frames), share(simulated.in_time, simulated.frames));
        println!(
            "{} Mbit/s, {loss:?}, RTT {round_trip_ms} ms: {} of {} whole for real ({:.3} %, >= {:.3}), {:.3} % simulated (>= {:.3}): {}",
            cell.mbit_s,
            seen.whole,
            seen.frames,
            real.0,
            real.1,
            sim.0,
            sim.1,
            if agrees { "agree" } else { "DIFFER" }
        );
    }
    if apart > 0 {
        bail!("{apart} real cells differ from the simulation");
    }
    Ok(())
}

/// Prints a cell; false where its target is missed: where even the upper bound lies below it.
fn print(cell: &Cell, o: &Outcome) -> bool {
    let loss = match cell.loss {
        Loss::Random { percent } => format!("{percent} %"),
        Loss::Dark { ms } => format!("dark {ms} ms"),
    };
    let paths = match (cell.second_path_us, cell.dark, cell.both_hops) {
        (None, _, false) => "1".to_owned(),
        (None, _, true) => "1, both hops bad".to_owned(),
        (Some(us), Dark::Never, _) => format!("2, skew {} ms", us / 1_000),
        (Some(us), Dark::Cut { path }, _) => format!("2, skew {} ms, cut {path}", us / 1_000),
    };
    let sources = cell.frames as f64 * (cell.mbit_s * 1e6 / 8.0 / 60.0 / 1_120.0).ceil();
    let met = match cell.target() {
        None => None,
        Some(all) if all >= 1.0 => Some(o.in_time == o.frames),
        Some(share) => Some(wilson(o.in_time, o.frames).1 >= share && o.share() >= share),
    };
    println!(
        "{:>7} {loss:>11} {:>6} {paths:>22}  {:>8} {:>8}  {:>9.4} {:>9.4}  {:>5.1}% {:>5.1}% {:>5}%  {:>4} ms {:>8}",
        cell.mbit_s,
        cell.round_trip_us / 1_000,
        o.frames,
        o.in_time,
        100.0 * o.share(),
        100.0 * at_least(o.in_time, o.frames),
        100.0 * o.sent.repeats.repeated as f64 / sources,
        100.0 * o.sent.fec.repairs as f64 / sources,
        o.plan.fec_percent,
        o.oldest_us.div_ceil(1_000),
        match (cell.target(), met) {
            (Some(t), Some(true)) => format!("{} ok", 100.0 * t),
            (Some(t), _) => format!("{} MISSED", 100.0 * t),
            (None, _) => "-".to_owned(),
        }
    );
    met.unwrap_or(true)
}
