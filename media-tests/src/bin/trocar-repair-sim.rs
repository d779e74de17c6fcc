//! The repair matrix on the virtual clock: `trocar-repair-sim [--frames N] [--rate MBIT] [--both-hops] [--targets] [--two-paths]
//! [--seed N] [--keep]`. Prints one line per cell; ends with an error where a target of the issue is not met by the lower confidence
//! bound. A cell with such a target gets as many frames as its bound needs, any other N. `--targets` leaves out the cells that the issue
//! sets no target for; `--keep` puts the tables into docs/DESIGN.md. `--real [--whole N]` runs a few cells with real processes instead
//! and ends with an error where they do not agree with the simulation.

use anyhow::{Context, bail};
use trocar_media_tests::repair_sim::bounds::at_least;
use trocar_media_tests::repair_sim::judge::{Tally, Verdict, frames_for, judge};
use trocar_media_tests::repair_sim::{Cell, Loss, matrix, real, table, two_paths};
use trocar_media_tests::{docs, workspace};

const BEGIN: &str = "<!-- `make repair` writes from here: simulated -->";
const BEGIN_REAL: &str = "<!-- `make repair` writes from here: real -->";
const END: &str = "<!-- to here -->";

struct Args {
    frames: u64,
    rate: Option<f64>,
    both_hops: bool,
    two_paths: bool,
    targets: bool,
    seed: u64,
    real: bool,
    keep: bool,
    whole: u64,
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
        keep: false,
        whole: 900,
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
            "--keep" => args.keep = true,
            "--whole" => args.whole = value()?.parse().context("--whole wants a whole number of frames")?,
            _ => bail!(
                "{flag}: --frames, --rate, --seed, --both-hops, --targets, --two-paths, --keep, --real or --whole is right"
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
        "{:>7} {:>11} {:>6} {:>22}  {:>8} {:>8}  {:>9} {:>9}  {:>6} {:>6} {:>6}  {:>7} {:>16}",
        "Mbit/s",
        "loss",
        "RTT ms",
        "paths",
        "frames",
        "in time",
        "share %",
        ">= %",
        "repeat",
        "redund",
        "plan",
        "oldest",
        "target"
    );
    let cells = if args.two_paths { two_paths(args.frames) } else { matrix(args.frames) };
    let wanted =
        |c: &Cell| args.rate.is_none_or(|r| (c.mbit_s - r).abs() < 0.5) && (!args.targets || c.target().is_some());
    let mut cells: Vec<Cell> = cells.into_iter().filter(wanted).collect();
    // What costs least first: what is wrong is said soon.
    cells.sort_by_key(|c| c.sources(c.target().filter(|t| *t < 1.0).map_or(c.frames, |t| frames_for(t, 0))) as u64);
    let mut rows = Vec::new();
    for cell in cells {
        let both_hops = args.both_hops && cell.second_path_us.is_none();
        let frames = if cell.second_path_us.is_some() { 2 * cell.frames } else { cell.frames };
        let cell = Cell { both_hops, seed: args.seed, frames, ..cell };
        let (tally, verdict) = judge(&cell, Cell::run);
        print(&cell, &tally, verdict);
        rows.push((cell, tally, verdict));
    }
    let off =
        Cell { rtx: false, fec: false, ..Cell::new(50.0, Loss::Random { percent: 1.0 }, 30, args.frames.min(3_000)) };
    let outcome = off.run();
    let control =
        format!("Negative control, repair off: 50 Mbit/s, 1 %, 30 ms: {:.1} % of the frames.", 100.0 * outcome.share());
    println!("{control}");
    if outcome.share() > 0.9 {
        bail!("without repair the frames must not be whole");
    }
    if args.keep {
        let table = format!("{}\n\n{}\n{control}", docs::provenance(), table::render(&rows));
        docs::put(&workspace().join("docs/DESIGN.md"), BEGIN, END, &table)?;
    }
    let unmet = rows.iter().filter(|(.., v)| v.is_some_and(|v| v != Verdict::Met)).count();
    if unmet > 0 {
        bail!("{unmet} cells do not meet their target");
    }
    Ok(())
}

/// Each real cell beside its simulation.
fn run_for_real(args: &Args) -> anyhow::Result<()> {
    let mut apart = 0;
    let mut out = String::from(
        "| cell | real, within 100 ms | later | left out | silent after the dark | simulated | |\n| --- | --- | --- | --- | --- | --- | --- |\n",
    );
    for (pictures, loss, round_trip_ms) in real::CELLS {
        let cell = pictures.cell(loss, round_trip_ms, args.frames);
        let (simulated, seen) = (cell.run(), real::run(pictures, &cell, args.whole)?);
        let agrees = seen.agrees(&simulated);
        apart += u32::from(!agrees);
        let share = |good: u64, all: u64| {
            let bound = 100.0 * at_least(good, all);
            format!("{good} of {all}: {:.2} %, ≥ {bound:.2}", 100.0 * good as f64 / all.max(1) as f64)
        };
        let row = format!(
            "| {} Mbit/s, {:.0} frames/s, {}, {round_trip_ms} ms | {} | {} | {} | {} | {} | {} |\n",
            cell.mbit_s,
            1e6 / cell.frame_us as f64,
            table::of_loss(loss),
            share(seen.whole, seen.frames),
            seen.late,
            seen.left_out,
            seen.silent_us.map_or_else(|| "–".to_owned(), |us| format!("{} ms", us / 1_000)),
            share(simulated.in_time, simulated.frames),
            if agrees { "agree" } else { "**DIFFER**" }
        );
        print!("{row}");
        out += &row;
    }
    if args.keep {
        let table = format!("{} Until {} frames were whole.\n\n{out}", docs::provenance(), args.whole);
        docs::put(&workspace().join("docs/DESIGN.md"), BEGIN_REAL, END, &table)?;
    }
    if apart > 0 {
        bail!("{apart} real cells differ from the simulation");
    }
    Ok(())
}

/// Prints a cell.
fn print(cell: &Cell, t: &Tally, verdict: Option<Verdict>) {
    let sources = cell.sources(t.frames);
    println!(
        "{:>7} {:>11} {:>6} {:>22}  {:>8} {:>8}  {:>9.4} {:>9.4}  {:>5.1}% {:>5.1}% {:>5}%  {:>4} ms {:>16}",
        cell.mbit_s,
        table::of_loss(cell.loss),
        cell.round_trip_us / 1_000,
        table::of_paths(cell),
        t.frames,
        t.in_time,
        100.0 * t.in_time as f64 / t.frames.max(1) as f64,
        100.0 * t.at_least(),
        100.0 * t.repeated as f64 / sources,
        100.0 * t.repairs as f64 / sources,
        t.plan_percent,
        t.oldest_us.div_ceil(1_000),
        match (cell.target(), verdict) {
            (Some(target), Some(verdict)) => format!("{} {}", 100.0 * target, verdict.name()),
            _ => "-".to_owned(),
        }
    );
}
