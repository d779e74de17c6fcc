//! `make link-peers`: `trocar link test`, `iperf3 -u` and SRT over the same emulated lines, side by side with the ledgers. Prints the table
//! and keeps it in docs/LINK.md. `--seconds N` measures for another time; then nothing is kept.

use anyhow::{Context, bail};
use trocar_media_tests::peers::{Place, table};
use trocar_media_tests::{docs, workspace};

const BEGIN: &str = "<!-- `make link-peers` writes from here -->";
const END: &str = "<!-- to here -->";
/// What the document's table is measured for.
const SECONDS: u64 = 10;

fn main() -> anyhow::Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let seconds = match words.as_slice() {
        [] => SECONDS,
        [flag, n] if flag == "--seconds" => n.parse().context("--seconds wants a whole number")?,
        _ => bail!("--seconds N, or nothing, is right"),
    };
    let table = table::render(Place::ours(), seconds, |line| eprintln!("measured: {line}"))?;
    println!("{table}");
    if words.is_empty() {
        docs::put(&workspace().join("docs/LINK.md"), BEGIN, END, &table)?;
    }
    Ok(())
}
