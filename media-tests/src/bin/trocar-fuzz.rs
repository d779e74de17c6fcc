//! `make fuzz`: mutates the kept corpora for a minute each and feeds the targets of `fuzz/` with that. `trocar-fuzz [--seconds N] [--seed N]
//! [NAME …]`; `--write-seeds` writes what the corpora begin with. Exit code 1 where an input stops a target: it is kept.

use anyhow::{Context as _, ensure};
use std::time::Duration;
use trocar_media_tests::fuzz::{ALL, run, write_seeds};

fn main() -> anyhow::Result<()> {
    let (mut seconds, mut seed, mut names) = (60, 1, Vec::new());
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut number = || arguments.next().and_then(|n| n.parse::<u64>().ok()).context("a whole number is right");
        match argument.as_str() {
            "--seconds" => seconds = number().context("--seconds")?,
            "--seed" => seed = number().context("--seed")?,
            "--write-seeds" => {
                println!("{} inputs", write_seeds()?);
                return Ok(());
            }
            name => {
                ensure!(ALL.iter().any(|t| t.name == name), "{name} is no target");
                names.push(name.to_owned());
            }
        }
    }
    for target in ALL.iter().filter(|t| names.is_empty() || names.iter().any(|n| n == t.name)) {
        let ran = run(target, Duration::from_secs(seconds), seed)?;
        println!("{:12} {:>10} inputs, the slowest {:?}", target.name, ran.inputs, ran.slowest);
    }
    Ok(())
}
