//! What a soak has to say: a table for people, every look as CSV, and the verdict.

use super::site::undisturbed;
use super::verdict::Trend;
use super::{Outcome, Watched};
use anyhow::{bail, ensure};
use std::fmt::Write as _;

/// How many handovers of a hundred may have been begun again: they were given back in good order each time, because a link was late.
const AGAIN_PERCENT: u64 = 20;

/// Every look: seconds since the beginning, process, memory in KiB, descriptors, threads.
#[must_use]
pub fn csv(watched: &Watched) -> String {
    let mut text = "seconds,process,memory_kib,descriptors,threads\n".to_owned();
    for look in &watched.looks {
        let v = look.vitals;
        let at = look.at.as_secs_f64();
        let _ = writeln!(text, "{at:.1},{},{},{},{}", look.of, v.memory_kib, v.descriptors, v.threads);
    }
    text
}

/// One row for each process, and what the viewers saw.
///
/// # Errors
/// Where there are too few looks.
pub fn table(outcome: &Outcome) -> anyhow::Result<String> {
    let minutes = outcome.took.as_secs_f64() / 60.0;
    let (rounds, again) = (outcome.rounds, outcome.again);
    let mut text = format!("{rounds} rounds in {minutes:.1} minutes, {again} handovers begun again.\n\n");
    text.push_str(
        "| process | memory, KiB | a leak shows from | descriptors | threads |\n| --- | --- | --- | --- | --- |\n",
    );
    for of in outcome.watched.trends()?.chunks(3) {
        let [memory, descriptors, threads] = of else { continue };
        let went = |t: &Trend| format!("{} → {}", t.before, t.after);
        let _ = writeln!(
            text,
            "| {} | {} | {:.1} KiB a round | {} | {} |",
            memory.of,
            went(memory),
            memory.resolution() as f64 / 1e3,
            went(descriptors),
            went(threads)
        );
    }
    text.push('\n');
    for (name, said) in &outcome.viewers {
        let figure = |of: &str| said.get(of).map_or_else(|| "?".to_owned(), ToString::to_string);
        let _ = writeln!(text, "The viewer by {name}: {} frames, {} lost.", figure("frames"), figure("frames_lost"));
    }
    Ok(text)
}

/// Whether all is as it was and nobody was disturbed.
///
/// # Errors
/// Names everything that has grown, or who was disturbed.
pub fn judge(outcome: &Outcome) -> anyhow::Result<()> {
    flat(&outcome.watched)?;
    for (name, said) in &outcome.viewers {
        if let Err(error) = undisturbed(said) {
            bail!("the viewer by {name}: {error:#}");
        }
    }
    let (rounds, again) = (outcome.rounds, outcome.again);
    ensure!(again * 100 <= rounds * AGAIN_PERCENT, "{again} handovers of {rounds} had to be begun again");
    Ok(())
}

/// Whether nothing has grown.
///
/// # Errors
/// Names everything that has, with its figures.
pub fn flat(watched: &Watched) -> anyhow::Result<()> {
    let leaks: Vec<String> = watched.trends()?.iter().filter_map(Trend::leak).collect();
    ensure!(leaks.is_empty(), "{}", leaks.join("\n"));
    Ok(())
}
