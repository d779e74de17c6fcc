//! How long a command takes from the station to the device, real processes apart, beside plain UDP through as many of them at the same
//! rate in the same minutes: `make bench-control`, and a short run in the tests.
//!
//! ```text
//! trocar operate ─► trocar up (relay) ─► trocar-gate ─► trocar-sim-device
//! this process   ─► forwarder         ─► forwarder   ─► this process
//! ```
//! A command's time runs from before the station seals it (its ledger) until the device acts on it (its record); both clocks are
//! CLOCK_BOOTTIME of this machine.

mod commands;
mod figures;
pub mod load;
pub mod plain;
mod report;

pub use figures::Figures;
pub use report::render;

use crate::sentinel::{Sentinel, boot_us};
use crate::stack::Stack;
use crate::theatre::{Setting, Theatre, at_us};
use anyhow::ensure;
use load::Load;
use plain::Chain;
use serde_json::{Value, json};
use std::sync::atomic::Ordering;
use trocar_proto::handover::gate::{Alarms, Causes};

/// How often REMOTE may be lost on the way; a machine that does something else now and then turns a link gate red.
const SPELLS: usize = 12;
/// Commands a second: what the gate's police takes of one holder (HO-P-001).
pub const HZ: u32 = 1_000;

/// What is measured.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// So many commands at least that the device got.
    pub commands: u64,
    /// Feeds of the fixture that cross the same relay meanwhile, about 50 Mbit/s each.
    pub feeds: usize,
    /// Between station and relay is a line that takes so many microseconds longer, each way: the control. The line's own pace of 200 µs
    /// comes on top.
    pub delay_us: Option<u64>,
}

/// What came of it.
#[derive(Debug)]
pub struct Outcome {
    /// Of commands.
    pub commands: Figures,
    /// Of plain datagrams.
    pub plain: Figures,
    /// Commands that left the station between the first and the last that the device took in the same epoch.
    pub sent: usize,
    /// Those of them that the device did not take.
    pub lost: usize,
    /// Of the lost, those that were sent less than 200 ms before the machine stood still, or in that: a burst that a stall made is
    /// policed (HO-P-001), and what became too old is refused.
    pub lost_in_stalls: usize,
    /// Commands that left while the gate had stopped motion already: no loss of the way, and in no figure.
    pub outside: usize,
    /// Plain datagrams sent, and those that did not come back.
    pub plain_sent: usize,
    /// See there.
    pub plain_lost: usize,
    /// Why the gate ended REMOTE before there were enough, each time: it was granted anew then.
    pub ends: Vec<String>,
    /// Bytes of a sealed command; its QUIC packet is [`plain::OVERHEAD`] longer at most.
    pub bytes: usize,
    /// What the relay took from publishers, Mbit/s, and what viewers got.
    pub mbit_in: f64,
    /// See there.
    pub mbit_out: f64,
    /// Packets that viewers missed.
    pub load_lost: u64,
    /// The gate's own counters, as it shows them.
    pub counters: Value,
    /// Datagrams that the relay dropped between the two, for any reason.
    pub relay_dropped: f64,
    /// Load average at the end, as the kernel prints it.
    pub load_average: String,
}

impl Outcome {
    /// How many times longer a command takes than a plain datagram, at so many of a thousand; infinite without values.
    #[must_use]
    pub fn ratio(&self, permille: usize) -> f64 {
        let at = |f: &Figures| f.permille(permille).map(|us| us as f64);
        at(&self.commands).zip(at(&self.plain)).map_or(f64::INFINITY, |(c, p)| c / p.max(1.0))
    }
}

/// Measures it.
///
/// # Errors
/// What did not come about, and a record that is not whole.
pub fn run(plan: &Plan) -> anyhow::Result<Outcome> {
    let mut theatre = Theatre::open_as(Setting { direct: plan.delay_us.is_none(), ..Setting::default() })?;
    let mut load = (plan.feeds > 0).then(|| Load::start(&theatre.stack, plan.feeds)).transpose()?;
    theatre.line.switches().delay.store(plan.delay_us.unwrap_or(0), Ordering::Relaxed);
    let sentinel = Sentinel::start()?;
    let chain = Chain::open()?;
    let before = load.as_mut().map(Load::look).transpose()?;
    let ledger = theatre.places.ledger("station");
    let (mut counters, mut ends) = (Value::Null, Vec::new());
    let datagrams = chain.pump(|| {
        while handed(&counters) < plan.commands {
            ensure!(ends.len() < SPELLS, "REMOTE did not last: {}", ends.join("; "));
            theatre.remote("instruments", HZ)?;
            let spell = spell(&mut theatre, plan.commands)?;
            counters = spell.counters;
            ends.extend(spell.ended);
        }
        Ok(())
    })?;
    let after = load.as_mut().map(Load::look).transpose()?;
    let relay_dropped = dropped(&theatre.stack)?;
    let load_average = std::fs::read_to_string("/proc/loadavg")?.trim().to_owned();
    // Each writes what it still has.
    theatre.station.process.stop()?;
    theatre.room.device.stop()?;
    let commands = commands::compare(&ledger, &theatre.places.dir.join("device.jsonl"), &sentinel)?;
    let (mbit_in, mbit_out, load_lost) = before.zip(after).map_or((0.0, 0.0, 0), |(b, a)| a.since(&b));
    Ok(Outcome {
        sent: commands.sent,
        lost: commands.lost,
        lost_in_stalls: commands.lost_in_stalls,
        outside: commands.outside,
        bytes: commands.bytes,
        commands: commands.figures,
        plain_sent: datagrams.len(),
        plain_lost: datagrams.iter().filter(|d| d.1.is_none()).count(),
        plain: plain::figures(&datagrams, &sentinel),
        ends,
        mbit_in,
        mbit_out,
        load_lost,
        counters,
        relay_dropped,
        load_average,
    })
}

/// Until the device got enough, or REMOTE is over. What was on the way is at the device when this returns.
fn spell(theatre: &mut Theatre, commands: u64) -> anyhow::Result<Spell> {
    // Some more than a minute for sixty thousand, since the schedule moves where the station's thread slept.
    let seconds = commands as f64 / f64::from(HZ) * 1.5 + 5.0;
    theatre.station.tell(&json!({ "trajectory": "circle", "hz": HZ, "seconds": seconds }))?;
    let mut causes = Causes::default();
    loop {
        let view = theatre.gate.until("a view", |v| is(v, "type", "view"))?;
        causes.0 |= number(&view, "stopped") as u8;
        if !is(&view, "mode", "remote") {
            let alarms = Alarms(number(&view, "alarms") as u16);
            let why: Vec<&str> = causes.words().chain(alarms.words()).collect();
            return Ok(Spell { counters: counters(&view), ended: Some(why.join(", ")) });
        }
        if handed(&counters(&view)) >= commands {
            break;
        }
    }
    let over = boot_us();
    theatre.station.tell(&json!({ "do": "return" }))?;
    let view = theatre.gate_shows("HOLD", |v| is(v, "mode", "hold") && at_us(v) >= over)?;
    Ok(Spell { counters: counters(&view), ended: None })
}

/// From a grant to the end of REMOTE.
struct Spell {
    counters: Value,
    /// Why the gate ended it, as it says itself; nothing where the station gave control back.
    ended: Option<String>,
}

/// Commands that the device got, in all epochs, as the gate counts.
fn handed(counters: &Value) -> u64 {
    let mut pairs = counters.as_array().into_iter().flatten();
    let found = pairs.find(|p| p.get(0).is_some_and(|name| name == "commands handed to the device"));
    found.and_then(|p| p.get(1)?.as_u64()).unwrap_or(0)
}

fn number(view: &Value, key: &str) -> u64 {
    view.get(key).and_then(Value::as_u64).unwrap_or(0)
}

fn is(view: &Value, key: &str, word: &str) -> bool {
    view.get(key).is_some_and(|v| v == word)
}

fn counters(view: &Value) -> Value {
    view.get("counters").cloned().unwrap_or_default()
}

/// By the relay's metrics; a reason that did not occur has no line.
fn dropped(stack: &Stack) -> anyhow::Result<f64> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        // That the page has the figures of control at all.
        stack.metric("trocar_control_datagrams_total").await?;
        Ok(stack.metric("trocar_control_dropped_total").await.unwrap_or(0.0))
    })
}
