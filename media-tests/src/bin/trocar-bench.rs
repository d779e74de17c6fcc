//! `make bench`: what a packet costs in the relay, beside floors and the common way, in one run
//! (`trocar_media_tests::bench`). The table is printed and written to `media-tests/bench/RESULTS.md`.
//!
//! `trocar-bench 1→4 ' 50 '` measures only the cells whose row has all of these words, and writes nothing.

use anyhow::{Context as _, ensure};
use std::time::Instant;
use trocar_media_tests::bench::cell::run;
use trocar_media_tests::bench::plan::{Row, TIMES, groups};
use trocar_media_tests::bench::report::{line, load, name, render};

fn main() -> anyhow::Result<()> {
    let (began, before) = (Instant::now(), load()?);
    let words: Vec<String> = std::env::args().skip(1).collect();
    let mut rows: Vec<Row> = Vec::new();
    for group in groups() {
        let first = rows.len();
        let wanted = group.cells.iter().filter(|cell| words.iter().all(|word| name(**cell).contains(word)));
        rows.extend(wanted.map(|cell| Row { cell: *cell, outcomes: Vec::new() }));
        for _ in 0..group.repeats {
            for row in rows.iter_mut().skip(first) {
                let outcome = run(row.cell, TIMES)?;
                row.outcomes.push(outcome.clone());
                eprintln!("{}", line(&Row { cell: row.cell, outcomes: vec![outcome] }));
            }
        }
    }
    if !words.is_empty() {
        ensure!(!rows.is_empty(), "no cell has all of {words:?} in its row");
        return Ok(());
    }
    let page = render(&rows, (&before, &load()?), began.elapsed().as_secs_f64())?;
    println!("{page}");
    let file = trocar_media_tests::workspace().join("media-tests/bench/RESULTS.md");
    std::fs::write(&file, page).with_context(|| file.display().to_string())
}
