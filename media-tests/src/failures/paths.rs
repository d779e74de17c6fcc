//! Failures of one of two paths, and of both a little.
#![allow(clippy::indexing_slicing, reason = "a JSON value without that member gives null")]

use super::{Row, SOON, TICK_MS, Trial, holds_then_nobody};
use crate::sentinel::boot_us;
use crate::theatre::{Setting, Theatre, is_hold, is_motion, selects, time};
use anyhow::{Context as _, ensure};
use serde_json::Value;
use std::sync::atomic::Ordering;
use std::time::Duration;

const HZ: u32 = 200;
/// Bit of the alarm "one of two paths lost".
const PATH: u64 = 8_192;
/// What the loss of a path may cost, milliseconds (HO-X-003).
const GAP_MS: f64 = 40.0;

fn two_paths() -> anyhow::Result<Theatre> {
    let mut t = Theatre::open_as(Setting { two_paths: true, ..Setting::default() })?;
    t.gate_shows("two paths", |v| v["paths"] == "protected")?;
    t.station.until("two paths at the station", |v| v["event"] == "protection" && v["paths"] == "protected")?;
    Ok(t)
}

fn has_alarm(view: &Value) -> bool {
    view["alarms"].as_u64().is_some_and(|a| a & PATH != 0)
}

/// HO-X-003, HO-C-009, HO-C-010, HO-C-011. A relay is killed in REMOTE, then the line of the other one is cut while the first is there
/// again, then both are.
pub(super) fn f2b() -> anyhow::Result<Trial> {
    let mut t = two_paths()?;
    t.remote("instruments", HZ)?;
    let epoch = t.gate_shows("the epoch", |v| v["mode"] == "remote")?["epoch"].clone();
    let at = boot_us();
    t.second.as_ref().context("no second path")?.relay.signal("KILL")?;
    let alarm = t.gate_shows("the alarm", has_alarm)?;
    let alarmed = boot_us();
    t.station.until("the alarm at the station", |v| v["event"] == "protection" && v["paths"] == "unprotected")?;
    let told = boot_us();
    ensure!(alarm["paths"] == "unprotected", "{alarm}");
    t.pass(at + 2_000_000)?;
    let after = boot_us();
    let mut row = Row::new("F2b");
    row.time("longest gap between motions", 0, longest_gap(&mut t, at - 500_000, after)?, GAP_MS);
    row.time("alarm at the gate", at, alarmed, 1_000.0);
    row.time("alarm at the station", at, told, 1_100.0);
    let view = t.gate_shows("the same epoch", |v| v["at_us"].as_u64().is_some_and(|n| n > after))?;
    ensure!(view["mode"] == "remote" && view["epoch"] == epoch, "{view}");
    let stopped = t.record.between(at, after, |e| is_hold(e) || selects("nobody")(e))?;
    ensure!(stopped.is_empty(), "motion stopped: {stopped:?}");
    row.saw("same holder, same epoch, no stop");
    // The negative control: what is left is the only path, and its loss is that of everything (HO-X-002).
    let cut = boot_us();
    t.line.cut(true);
    let (hold, nobody) = holds_then_nobody(&mut t, cut)?;
    row.time("both paths gone: motion stopped", cut, hold, 150.0 + TICK_MS);
    row.time("HOLD", cut, nobody, 500.0 + TICK_MS);
    t.nothing_moves(nobody)?;
    Ok(Trial { row, from: at, to: nobody })
}

/// The longest time between two motions of the expert that the device carried out.
fn longest_gap(t: &mut Theatre, from: u64, to: u64) -> anyhow::Result<u64> {
    let moved: Vec<u64> = t.record.between(from, to, is_motion)?.iter().map(time).collect();
    ensure!(moved.len() > 100, "{} motions only", moved.len());
    let gaps = moved.iter().zip(moved.iter().skip(1)).map(|(a, b)| b - a);
    // Up to the end as well: motion that never came back is a gap.
    let last = moved.last().map_or(0, |last| to.saturating_sub(*last));
    Ok(gaps.max().unwrap_or(u64::MAX).max(last))
}

/// HO-X-020. A minute with every tenth packet lost on each of four lines: no stop, no lease expiry. How often one is to be expected in
/// ten hours is reckoned in `trocar-proto` (`sim`); this shows that the real processes do what is reckoned with.
pub(super) fn f19() -> anyhow::Result<Trial> {
    let mut t = two_paths()?;
    t.remote("instruments", HZ)?;
    let second = t.second.as_ref().context("no second path")?;
    for line in [&t.line, &t.gate_line, &second.line, &second.gate_line] {
        // Station to relay and relay to gate: together every tenth.
        line.switches().loss.store(51_317, Ordering::Relaxed);
    }
    let at = boot_us();
    t.pass(at + 40_000_000)?;
    let to = boot_us();
    let view = t.gate_shows("REMOTE", |v| v["at_us"].as_u64().is_some_and(|n| n > to))?;
    ensure!(view["mode"] == "remote", "{view}");
    let stopped = t.record.between(at, to, |e| is_hold(e) || selects("nobody")(e))?;
    ensure!(stopped.is_empty(), "motion stopped: {stopped:?}");
    let moved = t.record.between(at, to, is_motion)?.len();
    let mut row = Row::new("F19");
    row.time("longest gap between motions", 0, longest_gap(&mut t, at, to)?, 150.0);
    let seconds = (to - at) / 1_000_000;
    let counted = |name: &str| super::links::counter(&view, name);
    let lost = [1, 2].map(|n| counted(&format!("net_path_{n}_lost")));
    let brought = [1, 2].map(|n| counted(&format!("net_path_{n}_first")) + counted(&format!("net_path_{n}_copies")));
    ensure!(lost.iter().all(|n| *n > 100), "the lines lose nothing: {lost:?} of {brought:?}");
    row.saw(format!("{moved} motions in {seconds} s, no stop; lost by path {lost:?}, brought {brought:?}"));
    // The negative control: the same loss ten times over is felt.
    let second = t.second.as_ref().context("no second path")?;
    for line in [&t.line, &second.line] {
        line.switches().loss.store(950_000, Ordering::Relaxed);
    }
    t.record.after(to, "a stop with nineteen in twenty lost", SOON + Duration::from_secs(10), is_hold)?;
    Ok(Trial { row, from: at, to })
}
