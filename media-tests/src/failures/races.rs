//! Races and floods, by parties that say what no station would.

use super::{Row, Trial};
use crate::party::Party;
use crate::sentinel::boot_us;
use crate::theatre::{Room, Setting, selects};
use anyhow::{Context, ensure};
use serde_json::json;
use trocar_proto::handover::message::{Beacon, Datagram, FromGate, Mode, Short, ToGate};
use trocar_proto::handover::types::{Binding, Counter, Epoch, ExpertId, Nonce, Oid};

/// Accept races that [`f11`] runs.
pub const RACES: usize = 10_000;

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
    let at = boot_us();
    let (won, refused) = runtime.block_on(race(&mut t, RACES))?;
    let mut row = Row::new("F11");
    ensure!(won == RACES, "{won} of {RACES} races were won by the addressee, the others by nobody or the thief");
    ensure!(refused == RACES, "{refused} of {RACES} stolen accepts were refused");
    row.saw(format!("{RACES} races: {won} won by the addressee, {refused} stolen accepts refused"));
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

/// HO-X-021. An expert that is connected and hostile: floods of ESTOP, of accepts without an offer, of datagrams with invented content,
/// BEACONs sent to the gate. Nothing changes, everything is counted, and local is not in its way.
pub(super) fn f20() -> anyhow::Result<Trial> {
    let mut t = Room::open(Setting::default())?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    t.local(json!({ "act": "take" }))?;
    let thrown = runtime.block_on(flood(&t))?;
    let taken = t.local(json!({ "act": "take" }))?;
    let selected = t.record.after(taken, "local's TAKE", super::SOON, selects("local"))?;
    let view = t.gate_shows("LOCAL", |v| v["mode"] == "local")?;
    let shown = view["notices"].as_array().map_or(0, Vec::len);
    ensure!(shown <= 1, "{shown} ESTOPs of one sender were shown within 10 s");
    let mut row = Row::new("F20");
    row.time("TAKE in the flood", taken, crate::theatre::time(&selected), 50.0);
    row.saw(format!("{thrown} forged datagrams and messages: state unchanged, one ESTOP shown"));
    Ok(Trial { row, from: taken, to: taken + 50_000 })
}

async fn flood(t: &Room) -> anyhow::Result<usize> {
    let mut x = Party::connect(&t.stack, t.gate_line.address, "station").await?;
    x.until("a first STATUS", |m| matches!(m, FromGate::Status(_)).then_some(())).await?;
    let (oid, epoch) = (Oid(7), Epoch(1));
    x.accept(oid)?;
    x.granted(epoch)?;
    let mut thrown = 0;
    for n in 1..=2_000 {
        let beacon = Beacon { binding: Binding::Epoch(epoch), counter: Counter(n), nonce: Nonce(n) };
        // A station's keys seal no BEACON; what a hostile one would throw is bytes.
        let mut bytes = x.seal(&Datagram::Beacon(beacon)).unwrap_or_else(|_| vec![0x13; 64]);
        bytes.iter_mut().rev().take(4).for_each(|b| *b ^= n as u8);
        thrown += usize::from(x.throw(&bytes));
        if n % 50 == 0 {
            let reason = Short::new("flood")?;
            // A full queue is the channel's own bound.
            let _ = x.say(&ToGate::Estop { person: None, reason });
            let _ = x.say(&ToGate::Return { epoch });
            let _ = x.accept(Oid(n.into()));
            thrown += 3;
            tokio::task::yield_now().await;
        }
    }
    Ok(thrown)
}

/// TAKE to its effect at the device, one after the other; links are down, and the disk is what the theatre was given.
///
/// # Errors
/// Where the gate does not answer.
pub fn takes(t: &mut Room, count: usize) -> anyhow::Result<Vec<(u64, u64)>> {
    let mut all = Vec::with_capacity(count);
    for n in 0..count {
        let at = boot_us();
        t.gate.tell(&json!({ "act": "take" }))?;
        let act = t.record.after(at, "the TAKE", super::SOON, selects("local"));
        all.push((at, crate::theatre::time(&act.with_context(|| format!("TAKE {n}"))?)));
    }
    Ok(all)
}
