//! Failures of processes: killed, paused, started again, started twice.
#![allow(clippy::indexing_slicing, reason = "a JSON value without that member gives null")]

use super::{Row, SOON, TICK_MS, Trial, holds_then_nobody};
use crate::sentinel::boot_us;
use crate::stack::PATIENCE;
use crate::theatre::{Setting, Theatre, is_hold, is_motion, selects, somebody, time};
use anyhow::ensure;
use serde_json::{Value, json};

const HZ: u32 = 200;

/// HO-X-002. `kill -9` of relay and signaling on a single path.
pub(super) fn f2() -> anyhow::Result<Trial> {
    let mut t = Theatre::open()?;
    t.remote("instruments", HZ)?;
    let at = boot_us();
    t.stack.kill()?;
    let (hold, nobody) = holds_then_nobody(&mut t, at)?;
    let mut row = Row::new("F2");
    row.time("motion stopped", at, hold, 150.0 + TICK_MS);
    row.time("HOLD", at, nobody, 500.0 + TICK_MS);
    let (taken, local) = t.take()?;
    row.time("TAKE without a relay", taken, local, 50.0);
    t.nothing_moves(nobody)?;
    Ok(Trial { row, from: at, to: local })
}

/// HO-X-007. The relay starts again: its mirror knows nothing until the gate answers it, and then what the gate says.
pub(super) fn f6() -> anyhow::Result<Trial> {
    let mut t = Theatre::open()?;
    t.local(json!({ "act": "take" }))?;
    t.gate_shows("LOCAL", |v| v["mode"] == "local")?;
    let at = boot_us();
    t.stack.restart()?;
    let again = boot_us();
    let mode = crate::theatre::wait_metric(&t.stack, "trocar_control_mode", "local")?;
    let mut row = Row::new("F6");
    row.time("mirror rebuilt after the restart", again, boot_us(), 10_000.0);
    row.saw(format!("the gate's own word: {mode}"));
    Ok(Trial { row, from: at, to: at + 1 })
}

/// HO-X-008. The expert's process dies and comes back with the same certificate: an observer, whatever it says of the old epoch.
pub(super) fn f7() -> anyhow::Result<Trial> {
    let mut t = Theatre::open()?;
    t.remote("instruments", HZ)?;
    let epoch = epoch_of(&t.gate_shows("the epoch", |v| v["mode"] == "remote")?);
    let at = boot_us();
    t.station.process.signal("KILL")?;
    let (hold, nobody) = holds_then_nobody(&mut t, at)?;
    // Who has the certificate and says that it still holds the old epoch: its datagrams belong to no key, its RETURN to no holder.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let thrown = runtime.block_on(super::races::claim(&t.room, epoch))?;
    t.restart_station()?;
    let back = boot_us();
    t.gate_shows("the expert again", |v| {
        v["at_us"].as_u64().is_some_and(|n| n > back + 1_000_000) && somebody(v).is_some()
    })?;
    t.station.tell(&json!({ "presence": true, "clutch": "closed", "trajectory": "circle", "hz": HZ, "seconds": 2 }))?;
    let view = t.gate_shows("later", |v| v["at_us"].as_u64().is_some_and(|n| n > back + 2_000_000))?;
    ensure!(view["mode"] == "hold", "{view}");
    t.nothing_moves(nobody)?;
    let mut row = Row::new("F7");
    row.time("motion stopped", at, hold, 150.0 + TICK_MS);
    row.time("HOLD", at, nobody, 500.0 + TICK_MS);
    row.saw(format!("who comes back is an observer; {thrown} datagrams under the old epoch moved nothing"));
    Ok(Trial { row, from: at, to: nobody })
}

/// HO-X-009. Killed in REMOTE the device holds by itself, latched; killed in LOCAL the surgeon goes on; it is back within 2 s with a
/// higher epoch; a store that cannot be read means that remote is refused.
pub(super) fn f8() -> anyhow::Result<Trial> {
    let mut t = Theatre::open()?;
    t.remote("energy", HZ)?;
    let epoch = epoch_of(&t.gate_shows("the epoch", |v| v["mode"] == "remote")?);
    // HO-X-009 with energy on, so that "energy off" is seen to happen.
    t.station.tell(&json!({ "pedal": true }))?;
    let pressed = boot_us();
    t.record.after(pressed, "a motion with energy", SOON, |e| is_motion(e) && e["energy"] == true)?;
    let at = boot_us();
    t.gate.process.signal("KILL")?;
    let held = t.record.after(at, "the watchdog's hold", SOON, is_hold)?;
    ensure!(held["energy"] == false && held["latched"] == true, "{held}");
    let hold = time(&held);
    let mut row = Row::new("F8");
    row.time("device holds without its gate", at, hold, 150.0 + TICK_MS);
    let started = boot_us();
    t.gate = t.start_gate()?;
    let view = t.gate_shows("the gate again", |v| v["device"]["heard_us"].is_u64())?;
    row.time("gate is back", started, boot_us(), 2_000.0);
    ensure!(epoch_of(&view) > epoch, "epoch {} after {epoch}", epoch_of(&view));
    t.nothing_moves(hold)?;
    // In LOCAL: the surgeon's own motion goes on while the gate is dead.
    t.local(json!({ "act": "take" }))?;
    let taken = boot_us();
    t.record.after(taken, "local motion", SOON, is_local_motion)?;
    t.gate.process.signal("KILL")?;
    let dead = boot_us();
    t.gate.process.wait(PATIENCE)?;
    t.record.after(dead + 500_000, "local motion with a dead gate", SOON, is_local_motion)?;
    row.saw("the surgeon works on with the gate dead");
    // A store that cannot be read.
    for name in ["epochs.a", "epochs.b"] {
        std::fs::write(t.places.store().join(name), b"torn")?;
    }
    t.gate = t.start_gate()?;
    let view = t.gate_shows("a gate without a store", |v| v["alarms"].as_u64().is_some_and(|a| a & 32 != 0))?;
    ensure!(view["mode"] == "local" || view["mode"] == "hold", "{view}");
    t.gate_shows("the expert", |v| somebody(v).is_some())?;
    t.local(json!({ "act": "take" }))?;
    let (_, refused) = t.try_local(json!({ "act": "offer", "set": "instruments" }))?;
    ensure!(refused.as_deref().is_some_and(|r| r.contains("remote is refused")), "{refused:?}");
    row.saw("unreadable store: remote refused, TAKE works");
    Ok(Trial { row, from: at, to: hold })
}

/// HO-X-019. Signaling, and with it the only store that there is beside the gate's own, is killed in REMOTE: nobody but people who want
/// to come in notices. The relays, apart from it, go on; the register is at the gate. Ten minutes where `TROCAR_SOAK` is set.
pub(super) fn f18() -> anyhow::Result<Trial> {
    let seconds: u64 = if std::env::var_os("TROCAR_SOAK").is_some() { 600 } else { 8 };
    let mut t = Theatre::open_as(Setting { apart: true, ..Setting::default() })?;
    t.remote("instruments", HZ)?;
    let epoch = epoch_of(&t.gate_shows("the epoch", |v| v["mode"] == "remote")?);
    let at = boot_us();
    t.stack.kill()?;
    let end = at + seconds * 1_000_000;
    while boot_us() < end {
        // A trajectory lasts a minute.
        t.station.tell(&json!({ "trajectory": "circle", "hz": HZ, "seconds": 60 }))?;
        t.pass(end.min(boot_us() + 55_000_000))?;
    }
    let view = t.gate_shows("the same epoch", |v| v["at_us"].as_u64().is_some_and(|n| n > end))?;
    ensure!(view["mode"] == "remote" && epoch_of(&view) == epoch, "{view}");
    let stopped = t.record.between(at, end, |e| is_hold(e) || selects("nobody")(e))?;
    ensure!(stopped.is_empty(), "motion stopped: {stopped:?}");
    let moved = t.record.between(at, end, is_motion)?.len() as u64;
    ensure!(moved > seconds * u64::from(HZ) / 2, "{moved} motions in {seconds} s");
    let mut row = Row::new("F18");
    let (taken, local) = t.take()?;
    row.time("TAKE without signaling", taken, local, 50.0);
    t.local(json!({ "act": "offer", "set": "instruments", "step": "the next one" }))?;
    t.station.until("an offer without signaling", |v| v["event"] == "offer")?;
    row.saw(format!("same holder and epoch for {seconds} s, {moved} motions, no stop; local offers again"));
    // The negative control: what control does go by is the relay.
    let cut = boot_us();
    t.relays.iter().try_for_each(|relay| relay.signal("KILL"))?;
    t.gate_shows("nobody there", |v| v["at_us"].as_u64().is_some_and(|n| n > cut) && somebody(v).is_none())?;
    Ok(Trial { row, from: at, to: local })
}

fn epoch_of(view: &Value) -> u64 {
    view["epoch"].as_u64().unwrap_or(0)
}

fn is_local_motion(event: &Value) -> bool {
    event["event"] == "local"
}

/// HO-X-010. Ten seconds without the expert's process, then its backlog: motions that were made meanwhile, and the clutch opened and
/// closed.
pub(super) fn f9() -> anyhow::Result<Trial> {
    let mut t = Theatre::open()?;
    t.remote("instruments", 1_000)?;
    let at = boot_us();
    t.station.process.signal("STOP")?;
    work_on(&mut t, at + 10_000_000)?;
    let (hold, nobody) = holds_then_nobody(&mut t, at)?;
    t.station.process.signal("CONT")?;
    let woken = boot_us();
    t.station.until("the gap", |v| v["event"] == "gap" && v["ms"].as_u64() > Some(9_000))?;
    t.gate_shows("two more", |v| v["at_us"].as_u64().is_some_and(|n| n > woken + 2_000_000))?;
    t.nothing_moves(nobody)?;
    let mut row = Row::new("F9");
    row.time("motion stopped", at, hold, 150.0 + TICK_MS);
    row.time("HOLD", at, nobody, 500.0 + TICK_MS);
    row.saw("nothing of the backlog was carried out");
    Ok(Trial { row, from: at, to: nobody })
}

/// HO-X-010, HO-T-011. 300 ms, within the lease: the expert is still the holder, and the backlog with its re-clutch moves nothing. A
/// re-clutch after it does.
pub(super) fn f9_short() -> anyhow::Result<Trial> {
    let mut t = Theatre::open()?;
    t.remote("instruments", HZ)?;
    let at = boot_us();
    t.station.process.signal("STOP")?;
    work_on(&mut t, at + 300_000)?;
    t.station.process.signal("CONT")?;
    let woken = boot_us();
    let mut row = Row::new("F9b");
    row.time("the pause", at, woken, 450.0);
    if woken - at > 450_000 {
        return Ok(Trial { row, from: at, to: woken });
    }
    let hold = time(&t.record.after(at, "a hold", SOON, is_hold)?);
    t.station.until("the gap", |v| v["event"] == "gap" && v["ms"].as_u64() > Some(200))?;
    let later = |n: u64| move |v: &Value| v["at_us"].as_u64().is_some_and(|at| at > n);
    let view = t.gate_shows("half a second more", later(woken + 500_000))?;
    ensure!(view["mode"] == "remote", "the lease is over: {view}");
    t.nothing_moves(hold)?;
    // The control: a clutch that is opened and closed now moves.
    t.station.tell(&json!({ "clutch": "open" }))?;
    let opened = boot_us();
    t.gate_shows("hands at rest", later(opened + 200_000))?;
    t.station.tell(&json!({ "clutch": "closed" }))?;
    t.record.after(opened, "a motion after the re-clutch", SOON, is_motion)?;
    row.time("motion stopped", at, hold, 150.0 + TICK_MS);
    row.saw("nothing of the backlog was carried out, and a re-clutch moves again");
    Ok(Trial { row, from: at, to: woken })
}

/// The expert goes on at a picture that stands still: a hundred motions a second, with the clutch opened and closed five times a second.
fn work_on(t: &mut Theatre, until: u64) -> anyhow::Result<()> {
    for n in 0_u32.. {
        let now = boot_us();
        if now >= until {
            break;
        }
        if n % 20 == 10 {
            t.station.tell(&json!({ "clutch": "open" }))?;
            t.station.tell(&json!({ "clutch": "closed" }))?;
        }
        t.station.tell(&json!({ "motion": { "axes": [200, 0, 0, 0, 0, 0] } }))?;
        t.pass((now + 10_000).min(until))?;
    }
    Ok(())
}

/// HO-X-022. The gate itself stands still for 5 s in REMOTE.
pub(super) fn f21() -> anyhow::Result<Trial> {
    let mut t = Theatre::open()?;
    t.remote("instruments", 1_000)?;
    let at = boot_us();
    t.gate.process.signal("STOP")?;
    let hold = time(&t.record.after(at, "the watchdog's hold", SOON, is_hold)?);
    t.pass(at + 5_000_000)?;
    let woken = boot_us();
    t.gate.process.signal("CONT")?;
    let nobody = time(&t.record.after(woken, "nobody selected", SOON, selects("nobody"))?);
    t.gate_shows("two more", |v| v["at_us"].as_u64().is_some_and(|n| n > woken + 2_000_000))?;
    t.nothing_moves(hold)?;
    let mut row = Row::new("F21");
    row.time("device holds by itself", at, hold, 150.0 + TICK_MS);
    row.time("HOLD once it wakes", woken, nobody, 100.0);
    row.saw("nothing stale was carried out");
    Ok(Trial { row, from: at, to: hold })
}

/// HO-X-023. A second gate with a store of its own, for the same device.
pub(super) fn f22() -> anyhow::Result<Trial> {
    let mut t = Theatre::open()?;
    t.remote("instruments", HZ)?;
    let at = boot_us();
    let mut second = t.second_gate()?;
    second.until("the alarm at the second", |v| {
        v["type"] == "view" && v["alarms"].as_u64().is_some_and(|a| a & 8 != 0)
    })?;
    let first = |v: &Value| v["alarms"].as_u64().is_some_and(|a| a & 8 != 0);
    let alarm = t.gate_shows("the alarm at the first", first)?;
    ensure!(alarm["mode"] == "remote", "the alarm is no reason to stop: {alarm}");
    let later = boot_us() + 500_000;
    t.record.after(later, "the first one's motion goes on", SOON, is_motion)?;
    let is_select = |e: &Value| e["act"] == "select" && e["verdict"] == "taken";
    let selected = t.record.between(at, u64::MAX, is_select)?;
    ensure!(selected.is_empty(), "the second gate changed the selection: {selected:?}");
    let (taken, local) = t.take()?;
    let mut row = Row::new("F22");
    row.time("the first one's TAKE", taken, local, 50.0);
    row.saw("the second gate is refused and says so, and so does the first");
    Ok(Trial { row, from: taken, to: local })
}
