//! `make soak`: a site that works for an hour, watched for what grows. `trocar-soak [MINUTES]`; 60 where nothing is said. Every look is in
//! var/artifacts/soak.csv; the table of twenty minutes and more, where nothing grew, goes into docs/OPERATING.md. Exit code 1 where
//! something grew.

use anyhow::{Context as _, bail};
use trocar_media_tests::soak::{Plan, report, run};
use trocar_media_tests::{artifacts, docs, workspace};

/// What the table stands between.
const BEGIN: &str = "<!-- `make soak` writes from here -->";
const END: &str = "<!-- to here -->";
/// Minutes that are worth writing down.
const WORTH: u64 = 20;

/// What the published figures are made of.
const MINUTES: u64 = 60;
/// Rounds between two words about how many there were.
const WORD: u64 = 10;

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let minutes = match arguments.as_slice() {
        [] => MINUTES,
        [minutes] => minutes.parse().with_context(|| format!("{minutes}: a number of minutes is right"))?,
        _ => bail!("trocar-soak [MINUTES]"),
    };
    // Written as it goes, so that a soak that breaks off leaves what was seen.
    let file = artifacts()?.join("soak.csv");
    let outcome = run(Plan::minutes(minutes), |watched, rounds| {
        if let Err(error) = std::fs::write(&file, report::csv(watched)) {
            eprintln!("{}: {error}", file.display());
        }
        if rounds.is_multiple_of(WORD) {
            eprintln!("{rounds} rounds");
        }
    })?;
    let table = format!("{}\n\n{}", docs::provenance(), report::table(&outcome)?);
    print!("{table}");
    report::judge(&outcome)?;
    if minutes >= WORTH {
        docs::put(&workspace().join("docs/OPERATING.md"), BEGIN, END, &table)?;
    }
    Ok(())
}
