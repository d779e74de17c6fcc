//! The printed table.

use super::{Figures, HZ, Outcome, Plan, plain};
use serde_json::Value;
use std::fmt::Write as _;

/// As Markdown.
///
/// # Errors
/// Where this machine does not say what it is.
pub fn render(plan: &Plan, o: &Outcome) -> anyhow::Result<String> {
    let cores = std::thread::available_parallelism()?;
    let model = std::fs::read_to_string("/proc/cpuinfo")?;
    let model = model.lines().find_map(|l| l.strip_prefix("model name")).unwrap_or("");
    let model = model.trim_start_matches([' ', '\t', ':']);
    let commit = std::process::Command::new("git").args(["rev-parse", "--short", "HEAD"]).output()?;
    let commit = String::from_utf8_lossy(&commit.stdout).trim().to_owned();
    let date = std::process::Command::new("date").args(["-u", "+%Y-%m-%d %H:%M"]).output()?;
    let date = String::from_utf8_lossy(&date.stdout).trim().to_owned();
    let mut out = String::new();
    writeln!(out, "# How long a command takes\n\nPrinted by `make bench-control`, {date} UTC.")?;
    writeln!(out, "Machine: {cores} cores, {model}; load average at the end {}; commit {commit}.", o.load_average)?;
    writeln!(
        out,
        "Across the same relay: {:.0} Mbit/s in by its metrics ({} feeds), {:.0} Mbit/s at the viewer, {} packets missed there.",
        o.mbit_in, plan.feeds, o.mbit_out, o.load_lost
    )?;
    if plan.feeds > 0 && o.mbit_in < 180.0 {
        writeln!(out, "**This is less than the 200 Mbit/s that were meant.**")?;
    }
    writeln!(
        out,
        "{HZ} commands a second of {} sealed bytes; datagrams of {} bytes. {} commands left while the gate had stopped \
         motion or before it had begun, and are in no figure.",
        o.bytes,
        plain::BYTES,
        o.outside
    )?;
    for why in &o.ends {
        writeln!(out, "The gate ended REMOTE on the way, and granted it anew: {why}.")?;
    }
    writeln!(out)?;
    writeln!(
        out,
        "| | sent | lost (in stalls) | void | p50 µs | p99 µs | p99.9 µs | max µs | max with void |\n| --- | --- | --- | --- | --- | --- | --- | --- | --- |"
    )?;
    let lost = format!("{} ({})", o.lost, o.lost_in_stalls);
    row(&mut out, "command: operate → relay → gate → device", o.sent, &lost, &o.commands)?;
    row(&mut out, "plain UDP through as many processes", o.plain_sent, &o.plain_lost.to_string(), &o.plain)?;
    let ratios: Vec<String> = [500, 990, 999, 1_000].iter().map(|p| format!("{:.1}", o.ratio(*p))).collect();
    writeln!(out, "| ratio | | | | {} | |", ratios.join(" | "))?;
    writeln!(
        out,
        "\nWhat was dropped or refused anywhere, by the counters: relay {:.0}{}.",
        o.relay_dropped,
        troubles(&o.counters)
    )?;
    Ok(out)
}

/// The gate's counters of what did not go on, where they are not 0, and its longest delay.
fn troubles(counters: &Value) -> String {
    const NAMES: [&str; 9] =
        ["refused", "dropped", "lost", "unopened", "flood", "full", "overflowed", "unsent", "longest delay"];
    let all = counters.as_array().into_iter().flatten();
    let pairs = all.filter_map(|pair| Some((pair.get(0)?.as_str()?, pair.get(1)?.as_u64()?)));
    let shown = pairs.filter(|(name, n)| *n > 0 && NAMES.iter().any(|part| name.contains(part)));
    shown.map(|(name, n)| format!(", gate: {name} {n}")).collect()
}

fn row(out: &mut String, what: &str, sent: usize, lost: &str, figures: &Figures) -> std::fmt::Result {
    let at = |p: usize| figures.permille(p).map_or("none".to_owned(), |us| us.to_string());
    writeln!(
        out,
        "| {what} | {sent} | {lost} | {} | {} | {} | {} | {} | {} |",
        figures.trials.void,
        at(500),
        at(990),
        at(999),
        at(1_000),
        figures.longest
    )
}
