//! `make bench-control`: how long a command takes to the device while 200 Mbit/s cross the same relay, beside plain UDP in the same run.
//! `trocar-bench-control [COMMANDS [FEEDS]]`; 100,000 and 4 where nothing is said; then the table is
//! written to media-tests/bench/CONTROL.md as well.

use anyhow::{Context, bail, ensure};
use trocar_media_tests::bench_control::{Plan, load, plain, render, run};

/// What the published figures are made of.
const COMMANDS: u64 = 100_000;
/// Of about 50 Mbit/s each.
const FEEDS: usize = 4;

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        // The run's own processes.
        ["forward", next] => plain::forward(next.parse()?),
        ["view", page, token, feeds @ ..] => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let feeds: Vec<String> = feeds.iter().map(ToString::to_string).collect();
            tokio::task::LocalSet::new().block_on(&runtime, load::view(page, token, &feeds))
        }
        [] => {
            let table = measure(COMMANDS, FEEDS)?;
            let file = trocar_media_tests::workspace().join("media-tests/bench/CONTROL.md");
            std::fs::write(&file, table).with_context(|| file.display().to_string())
        }
        [commands] => measure(number(commands)? as u64, FEEDS).map(drop),
        [commands, feeds] => measure(number(commands)? as u64, number(feeds)?).map(drop),
        _ => bail!("trocar-bench-control [COMMANDS [FEEDS]]"),
    }
}

fn number(text: &str) -> anyhow::Result<usize> {
    text.parse().with_context(|| format!("{text}: a number of commands or of feeds is right"))
}

fn measure(commands: u64, feeds: usize) -> anyhow::Result<String> {
    let plan = Plan { commands, feeds, delay_us: None };
    let outcome = run(&plan)?;
    let table = render(&plan, &outcome)?;
    print!("{table}");
    ensure!(
        outcome.commands.trials.believable(),
        "{} trials were void: a quieter machine is needed",
        outcome.commands.trials.void
    );
    Ok(table)
}
