//! Races and floods, by parties that say what no station would.
#![allow(clippy::indexing_slicing, reason = "a JSON value without that member gives null")]

use super::{Row, Trial};
use crate::party::Party;
use crate::sentinel::boot_us;
use crate::theatre::{Room, Setting, Theatre, at_us, is_motion};
use anyhow::{Context, ensure};
use serde_json::{Value, json};
use trocar_proto::handover::message::{Command, Datagram, FromGate, Heartbeat, Mode, Payload, Pose, Short, ToGate};
use trocar_proto::handover::types::{Binding, Clutch, Counter, Epoch, ExpertId, Nonce, Oid};

/// Accept races of F11: 2,000 in every run of the tests; `make handover` and `make soak` ask for the 10,000 of HO-X-012 by `TROCAR_RACES`.
fn races() -> usize {
    std::env::var("TROCAR_RACES").ok().and_then(|n| n.parse().ok()).unwrap_or(2_000)
}

fn oid_of(message: FromGate) -> Option<Oid> {
    match message {
        FromGate::Offer { oid, .. } => Some(oid),
        _ => None,
    }
}

/// The addressee of READY; nothing while it is something else.
fn ready(message: FromGate) -> Option<Option<ExpertId>> {
    match message {
        FromGate::Status(s) if s.mode == Mode::Ready => Some(s.expert),
        _ => None,
    }
}

fn local(message: FromGate) -> Option<()> {
    matches!(message, FromGate::Status(s) if s.mode == Mode::Local).then_some(())
}

/// HO-X-012. Two experts accept the same offer at once, the second one having learnt its name: the addressee has it, or nobody.
pub(super) fn f11() -> anyhow::Result<Trial> {
    let mut t = Room::open(Setting::default())?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let (at, wanted) = (boot_us(), races());
    let (won, refused) = runtime.block_on(race(&mut t, wanted))?;
    let mut row = Row::new("F11");
    ensure!(won == wanted, "{won} of {wanted} races were won by the addressee, the others by nobody or the thief");
    ensure!(refused == wanted, "{refused} of {wanted} stolen accepts were refused");
    row.saw(format!("{wanted} races: {won} won by the addressee, {refused} stolen accepts refused"));
    Ok(Trial { row, from: at, to: at + 1 })
}

async fn race(t: &mut Room, races: usize) -> anyhow::Result<(usize, usize)> {
    let control = t.gate_line.address;
    let mut x = Party::connect(&t.stack, control, "station").await.context("the addressee")?;
    let mut y = Party::connect(&t.stack, control, "station-2").await.context("the thief")?;
    y.until("a first STATUS", |m| matches!(m, FromGate::Status(_)).then_some(())).await?;
    x.until("a first STATUS", |m| matches!(m, FromGate::Status(_)).then_some(())).await?;
    t.gate.tell(&json!({ "act": "take" }))?;
    x.until("LOCAL", local).await?;
    let (mut won, mut refused) = (0, 0);
    for n in 0..races {
        t.gate.tell(&json!({ "act": "offer", "to": "station", "set": "instruments", "step": "race" }))?;
        let oid = x.until("the offer", oid_of).await.with_context(|| format!("race {n}"))?;
        // Either may be first; which one is changes from race to race.
        if n % 2 == 0 {
            y.accept(oid)?;
            x.accept(oid)?;
        } else {
            x.accept(oid)?;
            y.accept(oid)?;
        }
        let expert = x.until("READY", ready).await?;
        won += usize::from(expert == Some(own(&t.stack, "station")?));
        let nack = y.until("a refusal", |m| if let FromGate::Nack { reason, .. } = m { Some(reason) } else { None });
        nack.await?;
        refused += 1;
        t.gate.tell(&json!({ "act": "withdraw" }))?;
        x.until("LOCAL again", local).await?;
    }
    Ok((won, refused))
}

fn own(stack: &crate::stack::Stack, name: &str) -> anyhow::Result<ExpertId> {
    Ok(crate::party::credentials(stack, name)?.0.expert())
}

/// Says with the holder's certificate, by a new channel, that the old epoch is still its own. How many datagrams went out.
pub(super) async fn claim(t: &Room, epoch: u64) -> anyhow::Result<usize> {
    let mut x = Party::connect(&t.stack, t.line.address, "station").await?;
    x.until("a first STATUS", |m| matches!(m, FromGate::Status(_)).then_some(())).await?;
    let thrown = throw(&mut x, Epoch(epoch), 200).await?;
    x.say(&ToGate::Return { epoch: Epoch(epoch) })?;
    let refused = |m| if let FromGate::Nack { reason, .. } = m { Some(reason) } else { None };
    x.until("a refusal of the RETURN", refused).await?;
    Ok(thrown)
}

/// Well sealed HBs and CMDs under that epoch, by this channel's own keys. How many went out.
async fn throw(x: &mut Party, epoch: Epoch, count: u64) -> anyhow::Result<usize> {
    x.granted(epoch)?;
    let mut thrown = 0;
    for n in 1..=count {
        let (counter, nonce) = (Counter(n), Nonce(n));
        let datagram = if n % 2 == 0 {
            let binding = Binding::Epoch(epoch);
            let (echo, beat, pose) = (None, n as u32, Pose::default());
            Datagram::Heartbeat(Heartbeat { binding, counter, beat, nonce, echo, presence: true, pedal: true, pose })
        } else {
            let payload = Payload::new(vec![1; 22])?;
            Datagram::Command(Command { epoch, counter, nonce, echo: None, clutch: Clutch::Closed, payload })
        };
        let mut bytes = x.seal(&datagram)?;
        thrown += usize::from(x.throw(&bytes));
        // The same once more, changed by one bit, and bytes that are nothing.
        if let Some(last) = bytes.last_mut() {
            *last ^= 1;
        }
        thrown += usize::from(x.throw(&bytes)) + usize::from(x.throw(&[0x13; 64]));
        // The pace of the flood: 3,000 a second. A faster one is thrown away by the line before the gate sees it.
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
    Ok(thrown)
}

/// HO-X-021. A second expert that is connected and hostile, against one that holds: sealed datagrams under the holder's epoch, changed
/// ones, noise, ACCEPTs and RETURNs of what it never had. The holder goes on, everything is counted. In LOCAL, a flood of ESTOPs: one is shown.
pub(super) fn f20() -> anyhow::Result<Trial> {
    let mut t = Theatre::open()?;
    t.remote("instruments", 200)?;
    let before = t.gate_shows("REMOTE", |v| v["mode"] == "remote")?;
    let epoch = before["epoch"].as_u64().unwrap_or(0);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let (mut hostile, thrown) = runtime.block_on(async {
        let mut y = Party::connect(&t.stack, t.gate_line.address, "station-2").await?;
        y.until("a first STATUS", |m| matches!(m, FromGate::Status(_)).then_some(())).await?;
        let thrown = throw(&mut y, Epoch(epoch), 1_000).await?;
        y.say(&ToGate::Return { epoch: Epoch(epoch) })?;
        y.accept(Oid(7))?;
        anyhow::Ok((y, thrown))
    })?;
    let flooded = boot_us();
    t.record.after(flooded + 300_000, "the holder's motion goes on", super::SOON, is_motion)?;
    let after = t.gate_shows("after the flood", |v| at_us(v) > flooded + 300_000)?;
    ensure!(after["mode"] == "remote" && after["epoch"] == before["epoch"], "the flood changed the register: {after}");
    let counted = |v: &Value| {
        let names = ["net_datagrams_unopened", "net_datagrams_flood", "datagrams refused"];
        names.iter().map(|n| super::links::counter(v, n)).sum::<u64>()
    };
    let counts = counted(&after) - counted(&before);
    ensure!(counts > thrown as u64 / 2, "{counts} of {thrown} thrown datagrams were counted");
    let (taken, local) = t.take()?;
    runtime.block_on(async {
        for n in 0..40 {
            // A full queue is the channel's own bound.
            let _ = hostile.say(&ToGate::Estop { person: None, reason: Short::new(format!("flood {n}"))? });
        }
        let refused = |m| if let FromGate::Nack { reason, .. } = m { Some(reason) } else { None };
        hostile.until("a refusal", refused).await.map(drop)
    })?;
    let view = t.gate_shows("LOCAL", |v| v["notices"].as_array().is_some_and(|n| !n.is_empty()))?;
    let shown = view["notices"].as_array().map_or(0, Vec::len);
    ensure!(view["mode"] == "local" && shown == 1, "{shown} ESTOPs of one sender were shown: {view}");
    let mut row = Row::new("F20");
    row.time("TAKE after the flood", taken, local, 50.0);
    row.saw(format!(
        "{thrown} forged datagrams: the holder went on, {counts} counted so far; of 40 ESTOPs one is shown"
    ));
    Ok(Trial { row, from: taken, to: local })
}

/// TAKE to its effect at the device, one after the other; links are down, and the disk is what the theatre was given.
///
/// # Errors
/// Where the gate does not answer.
pub fn takes(t: &mut Room, count: usize) -> anyhow::Result<Vec<(u64, u64)>> {
    (0..count).map(|n| t.take().with_context(|| format!("TAKE {n}"))).collect()
}
