//! The table of the document.

use super::{LINES, Line, Outcome, Pair, Place, iperf, ours, srt};
use crate::docs;
use std::fmt::Write as _;
use std::process::Command;

/// The seed of every line. With it the first packets get through in both directions: `iperf3` gives up where its first one is lost.
pub const SEED: u64 = 7;

/// The three tools over one line, one after the other.
///
/// # Errors
/// Where one of them does not run.
pub fn compare(line: &Line, at: Place, seconds: u64) -> anyhow::Result<[Outcome; 3]> {
    Ok([ours::run(line, at, SEED, seconds)?, iperf::run(line, at, SEED, seconds)?, srt::run(line, at, SEED, seconds)?])
}

/// All lines, with what the figures are worth. `tell` hears of each line that is done.
///
/// # Errors
/// As [`compare`].
pub fn render(at: Place, seconds: u64, mut tell: impl FnMut(&str)) -> anyhow::Result<String> {
    let mut rows = String::new();
    for line in &LINES {
        let all = compare(line, at, seconds)?;
        rows.push_str(&of_line(line.name, &all));
        tell(line.name);
    }
    let head = "| line | figure | `trocar link test` | `iperf3 -u` | SRT |\n| --- | --- | --- | --- | --- |";
    let versions = [version("iperf3", "-v"), version("srt-live-transmit", "-version")].join("; ");
    Ok(format!("{} {versions}; {seconds} s each.\n\n{head}\n{rows}", docs::provenance()))
}

/// The first line that says a version.
fn version(program: &str, flag: &str) -> String {
    let out = Command::new(program).arg(flag).output().ok();
    let said = out.map_or_else(String::new, |o| {
        [o.stdout, o.stderr].iter().map(|t| String::from_utf8_lossy(t).into_owned()).collect::<String>()
    });
    let line = said.lines().find(|l| l.chars().any(|c| c.is_ascii_digit()));
    line.map_or_else(|| format!("{program} of an unknown version"), |l| l.trim().to_owned())
}

fn of_line(name: &str, all: &[Outcome; 3]) -> String {
    let mut out = String::new();
    let mut row = |figure: &str, cells: [String; 3]| {
        let _ = writeln!(out, "| {name} | {figure} | {} |", cells.join(" | "));
    };
    row("carries, Mbit/s", all.map(|o| cell(o.capacity_mbit_s, 2)));
    row("came, Mbit/s", all.map(|o| cell(o.rate_mbit_s, 2)));
    row("lost", all.map(|o| lost(o.lost, o.sent)));
    row("jitter, ms", all.map(|o| cell(o.jitter_ms, 2)));
    row("round trip, ms", all.map(|o| cell(o.rtt_ms, 1)));
    out
}

/// What was said, and in brackets the truth and how far it is off.
fn cell(pair: Option<Pair>, digits: usize) -> String {
    pair.map_or_else(
        || "–".to_owned(),
        |p| {
            let off = match 100.0 * (p.said - p.truth) / p.truth {
                off if off.is_finite() => format!("{off:+.1} %"),
                _ => format!("{:+.digits$}", p.said - p.truth),
            };
            let bar = p.bar.map_or_else(String::new, |bar| format!(" ± {bar:.digits$}"));
            format!("{:.digits$}{bar} ({:.digits$}; {off})", p.said, p.truth)
        },
    )
}

/// Packets are counted: off by so many.
fn lost(pair: Option<Pair>, sent: u64) -> String {
    pair.map_or_else(
        || "–".to_owned(),
        |p| {
            let off = p.said - p.truth;
            let off = if off == 0.0 { "exact".to_owned() } else { format!("{off:+.0}") };
            format!("{:.0} of {sent} ({:.0}; {off})", p.said, p.truth)
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_says_what_was_said_the_truth_and_how_far_it_is_off() {
        let pair = |said, truth| Some(Pair::new(said, truth));
        assert_eq!(cell(pair(5.7, 6.0), 2), "5.70 (6.00; -5.0 %)");
        assert_eq!(cell(pair(0.1, 0.0), 2), "0.10 (0.00; +0.10)");
        assert_eq!(cell(Some(Pair { bar: Some(0.4), ..Pair::new(5.7, 6.0) }), 2), "5.70 ± 0.40 (6.00; -5.0 %)");
        assert_eq!(cell(None, 2), "–");
        assert_eq!(lost(pair(12.0, 12.0), 500), "12 of 500 (12; exact)");
        assert_eq!(lost(pair(9.0, 12.0), 500), "9 of 500 (12; -3)");
    }
}
