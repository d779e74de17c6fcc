//! Failures of lines and pictures.
#![allow(clippy::indexing_slicing, reason = "a JSON value without that member gives null")]

use super::{Row, SOON, TICK_MS, Trial, holds_then_nobody};
use crate::netns::Outage;
use crate::sentinel::boot_us;
use crate::theatre::{Setting, Theatre, is_hold, is_motion, selects, somebody, time};
use anyhow::{Context as _, ensure};
use serde_json::json;
use std::sync::atomic::Ordering;
use std::time::Duration;

const HZ: u32 = 200;

/// HO-X-001. Cut both ways, healed: stopped, HOLD, alarm, and the healed expert is an observer.
pub(super) fn f1() -> anyhow::Result<Trial> {
    let mut t = Theatre::open()?;
    t.remote("instruments", HZ)?;
    let at = boot_us();
    t.line.cut(true);
    let (hold, nobody) = holds_then_nobody(&mut t, at)?;
    let mut row = Row::new("F1");
    row.time("motion stopped", at, hold, 150.0 + TICK_MS);
    row.time("HOLD", at, nobody, 500.0 + TICK_MS);
    let view = t.gate_shows("the alarm", |v| v["mode"] == "hold")?;
    ensure!(view["alarms"].as_u64().is_some_and(|a| a & 1 != 0), "no alarm for the link: {view}");
    // The healed expert: connected again, and an observer that moves nothing whatever it sends.
    t.gate_shows("the expert gone", |v| somebody(v).is_none())?;
    t.line.cut(false);
    let healed = boot_us();
    t.gate_shows("the expert again", |v| somebody(v).is_some())?;
    t.station.until("an observer", |v| v["event"] == "status" && v["mine"] == false)?;
    t.station.tell(&json!({ "presence": true, "clutch": "closed", "trajectory": "circle", "hz": HZ, "seconds": 2 }))?;
    let view = t.gate_shows("half a second of HOLD", |v| v["at_us"].as_u64().is_some_and(|n| n > healed + 500_000))?;
    ensure!(view["mode"] == "hold", "{view}");
    t.nothing_moves(nobody)?;
    row.saw("alarm shown; healed expert is an observer");
    Ok(Trial { row, from: at, to: nobody })
}

/// HO-X-001, HO-T-001. The expert's machine hears nothing any more, by its own packet filter, while what it sends still arrives: it falls
/// silent by itself within `station_silence`, and the gate's bounds run from there. Then its cable swallows everything, both ways.
pub(super) fn f1_deaf() -> anyhow::Result<Trial> {
    /// `station_silence`, milliseconds.
    const SILENCE: f64 = 250.0;
    let mut t = Theatre::open_as(Setting { far: true, ..Setting::default() })?;
    t.remote("instruments", HZ)?;
    let mut row = Row::new("F1b");
    let deaf = boot_us();
    t.far.as_ref().context("no namespace")?.deafen(true)?;
    let cut = boot_us();
    let (hold, nobody) = holds_then_nobody(&mut t, deaf)?;
    // `nft` itself takes its time: from when it was done the bounds count, and before it began nothing may have stopped.
    row.time("deaf: motion stopped", cut.min(hold), hold, SILENCE + 150.0 + TICK_MS);
    row.time("HOLD", cut.min(nobody), nobody, SILENCE + 500.0 + TICK_MS);
    t.station.until("it knows by itself", |v| v["event"] == "silence")?;
    t.far.as_ref().context("no namespace")?.deafen(false)?;
    t.gate_shows("the expert again", |v| somebody(v).is_some())?;
    t.station.until("an observer", |v| v["event"] == "status" && v["mine"] == false)?;
    t.remote("instruments", HZ)?;
    let silent = boot_us();
    t.far.as_ref().context("no namespace")?.cut(Outage::Silent)?;
    let cut = boot_us();
    let (hold, nobody) = holds_then_nobody(&mut t, silent)?;
    row.time("both ways: motion stopped", cut.min(hold), hold, 150.0 + TICK_MS);
    row.time("HOLD", cut.min(nobody), nobody, 500.0 + TICK_MS);
    t.nothing_moves(nobody)?;
    row.saw("network namespace, nftables; the deaf expert came back as an observer and was given control anew");
    Ok(Trial { row, from: deaf, to: nobody })
}

/// HO-X-004. The viewer stands still, so nothing new is shown; commands and heartbeats go on.
pub(super) fn f3() -> anyhow::Result<Trial> {
    let mut t = Theatre::open()?;
    t.remote("instruments", HZ)?;
    let at = boot_us();
    t.eye.signal("STOP")?;
    let (hold, nobody) = holds_then_nobody(&mut t, at)?;
    t.eye.signal("CONT")?;
    let mut row = Row::new("F3");
    row.time("motion stopped", at, hold, 300.0 + TICK_MS);
    row.time("HOLD", at, nobody, 1_000.0 + TICK_MS);
    t.nothing_moves(nobody)?;
    Ok(Trial { row, from: at, to: nobody })
}

/// HO-X-005. A line that takes 60 ms longer each way: what is under way when local takes is not carried out, and is one audit record.
pub(super) fn f4() -> anyhow::Result<Trial> {
    let mut t = Theatre::open()?;
    t.remote("instruments", HZ)?;
    t.line.switches().delay.store(60_000, Ordering::Relaxed);
    let slow = boot_us() + 300_000;
    t.record.after(slow, "motion over the slow line", SOON, is_motion)?;
    let shown = t.gate_shows("the count before", |v| counter(v, "datagrams refused") < u64::MAX)?;
    let before = counter(&shown, "datagrams refused");
    let lines = std::fs::read_to_string(t.places.audit())?.lines().count();
    let (at, taken) = t.take()?;
    let late = taken + 500_000;
    t.gate_shows("half a second", |v| v["at_us"].as_u64().is_some_and(|n| n > late))?;
    t.nothing_moves(taken)?;
    let mut row = Row::new("F4");
    row.time("TAKE", at, taken, 50.0);
    let view = t.gate_shows("late datagrams counted", |v| counter(v, "datagrams refused") > before)?;
    row.saw(format!("{} late datagrams refused, none carried out", counter(&view, "datagrams refused") - before));
    // A burst is over, and written down, when nothing was refused for a second: one record for each reason.
    t.pass(boot_us() + 2_500_000)?;
    let audit = std::fs::read_to_string(t.places.audit())?;
    let bursts: Vec<&str> = audit.lines().skip(lines).filter(|l| l.contains(r#""event":"burst""#)).collect();
    let mut reasons: Vec<Option<&str>> = bursts.iter().map(|l| l.split(r#""reason":"#).nth(1)).collect();
    reasons.sort_unstable();
    reasons.dedup();
    ensure!(
        !bursts.is_empty() && reasons.len() == bursts.len(),
        "{} records of {} bursts",
        bursts.len(),
        reasons.len()
    );
    row.saw(format!("{} audit records, one for each reason", bursts.len()));
    Ok(Trial { row, from: at, to: taken })
}

pub(super) fn counter(view: &serde_json::Value, name: &str) -> u64 {
    let all = view["counters"].as_array().cloned().unwrap_or_default();
    all.iter().find(|c| c[0] == name).and_then(|c| c[1].as_u64()).unwrap_or(0)
}

/// HO-X-015. A capture card that repeats one picture: encoded, sent, shown, and nevertheless old.
pub(super) fn f14() -> anyhow::Result<Trial> {
    const PICTURES: u64 = 750;
    let setting = Setting { source: format!("test:640x360@30,freeze={PICTURES}"), ..Setting::default() };
    let began = boot_us();
    let mut t = Theatre::open_as(setting)?;
    t.remote("instruments", HZ)?;
    let moving = boot_us();
    let hold = t.record.after(moving, "a hold", Duration::from_secs(40), is_hold)?;
    let nobody = time(&t.record.after(moving, "nobody selected", SOON, selects("nobody"))?);
    // The gate's own word for how old the newest picture was, as it held.
    let view = t.gate_shows("HOLD", |v| v["mode"] == "hold")?;
    ensure!(view["alarms"].as_u64().is_some_and(|a| a & 2 != 0), "no alarm for the picture: {view}");
    let (hold, at) = (time(&hold), nobody.saturating_sub(1_000_000));
    // The control: that was when the picture stood still, and not some moment of the line.
    let stood = (at - began) as f64 / 1e6;
    let meant = PICTURES as f64 / 30.0;
    ensure!((meant - 1.0..meant + 8.0).contains(&stood), "it stood still after {stood:.1} s, {meant:.1} s is meant");
    let mut row = Row::new("F14");
    row.time(
        "motion stopped ahead of HOLD by at least 690 ms, by",
        hold.saturating_add(690_000),
        nobody,
        310.0 + TICK_MS,
    );
    row.saw(format!("the picture stood still {stood:.1} s after the start, as it was told to"));
    t.nothing_moves(nobody)?;
    Ok(Trial { row, from: at, to: nobody })
}

/// HO-X-016. The station's packets come from another port in the middle of a motion: the same epoch goes on.
pub(super) fn f15() -> anyhow::Result<Trial> {
    let mut t = Theatre::open()?;
    t.remote("instruments", HZ)?;
    let epoch = t.gate_shows("the epoch", |v| v["mode"] == "remote")?["epoch"].clone();
    let at = boot_us();
    t.line.switches().rebinds.fetch_add(1, Ordering::Relaxed);
    let again = t.record.after(at + 50_000, "motion by the new path", Duration::from_secs(2), is_motion)?;
    let later = t.gate_shows("a second later", |v| v["at_us"].as_u64().is_some_and(|n| n > at + 1_000_000))?;
    ensure!(later["mode"] == "remote" && later["epoch"] == epoch, "another epoch: {later}");
    let mut row = Row::new("F15");
    row.time("first motion by the new path", at, time(&again), 500.0);
    row.saw("same epoch");
    Ok(Trial { row, from: at, to: time(&again) })
}
