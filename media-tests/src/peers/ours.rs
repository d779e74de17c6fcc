//! `trocar link test`, from the client's end: the direction up.

use super::{Emulator, Line, Outcome, Pair, Place, figure};
use crate::ledger::Flow;
use crate::process::{Process, trocar};
use crate::stack::{PATIENCE, path};
use anyhow::{Context, bail, ensure};
use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output};
use trocar_proto::link::Direction;

/// UDP payload of the idle flow's packets, and of nothing before it.
pub const IDLE_BYTES: u32 = 200;

/// The report that `trocar link test` wrote, where it ended with the exit code that belongs to its verdict.
///
/// # Errors
/// Where there is none, or with another code.
pub fn judged(out: &Output, json: &Path) -> anyhow::Result<Value> {
    let said = || [&out.stdout, &out.stderr].map(|s| String::from_utf8_lossy(s).into_owned()).concat();
    let text = std::fs::read_to_string(json).with_context(|| format!("no report; {:?}: {}", out.status, said()))?;
    let report: Value = serde_json::from_str(&text)?;
    let wanted = match report.pointer("/verdict/fit").and_then(Value::as_str) {
        Some("fit" | "with_limits") => 0,
        Some("not_fit") => 99,
        Some("unknown") => 1,
        other => bail!("a verdict that nobody knows: {other:?}"),
    };
    ensure!(out.status.code() == Some(wanted), "{:?}, and not {wanted}: {}", out.status, said());
    Ok(report)
}

/// What was measured, and the ledger's idle flows, up and down.
pub struct Measured {
    /// The report (JSON).
    pub report: Value,
    /// Up and down.
    pub idle: [Flow; 2],
}

/// Measures a line.
///
/// # Errors
/// Where something does not start, or nothing could be measured.
pub fn measure(at: Place, profile: &str, seed: u64, flags: &[&str]) -> anyhow::Result<Measured> {
    let listen = format!("{}:0", at.server);
    let mut serve = Process::trocar("trocar link serve", &["link", "serve", "--json", "--listen", &listen])?;
    let ready: Value = serde_json::from_str(&serve.line(PATIENCE, |l| l.contains("\"ready\""))?)?;
    let server = ready.get("listen").and_then(serde_json::Value::as_str).context("listen")?;
    let emulator = Emulator::open((at.line, 0).into(), server, profile, seed)?;
    let dir = tempfile::tempdir()?;
    let json = dir.path().join("report.json");
    let fixed = ["link", "test", &emulator.listen, "--profile", "consultation", "--json", path(&json)?];
    let out = Command::new(trocar()?).args(fixed).args(flags).output()?;
    let report = judged(&out, &json)?;
    let ledger = emulator.end()?;
    let idle = |i: usize, way| {
        let sent = figure(&report, &format!("/result/directions/{i}/idle/sent"))?;
        Flow::of(&ledger, way, |len| len == IDLE_BYTES).first(sent as u64)
    };
    let idle = [idle(0, Direction::Up)?, idle(1, Direction::Down)?];
    Ok(Measured { report, idle })
}

impl Measured {
    /// What it says of a direction's idle flow, 0 up, 1 down, is what these packets were: to the packet, and every burst.
    ///
    /// # Errors
    /// What differs.
    pub fn counts(&self, direction: usize, truth: &Flow) -> anyhow::Result<()> {
        let idle = self.report.pointer(&format!("/result/directions/{direction}/idle")).context("no idle flow")?;
        let bursts = serde_json::to_value(truth.bursts())?;
        ensure!(idle["lost"].as_u64() == Some(truth.lost()), "lost {}, ledger {}", idle["lost"], truth.lost());
        ensure!(idle["loss_bursts"] == bursts, "bursts {}, ledger {bursts}", idle["loss_bursts"]);
        Ok(())
    }
}

/// A line of the table.
///
/// # Errors
/// As [`measure`].
pub fn run(line: &Line, at: Place, seed: u64, seconds: u64) -> anyhow::Result<Outcome> {
    // More than the line has, so that the search ends below.
    let most = format!("{:.1}M", line.mbit_s * 4.0 / 3.0);
    let m = measure(at, &line.profile(), seed, &["-t", &seconds.to_string(), "--max-rate", &most])?;
    let up = |key: &str| figure(&m.report, &format!("/result/directions/0/{key}"));
    let [there, back] = &m.idle;
    let ms = |us: f64| us / 1_000.0;
    Ok(Outcome {
        capacity_mbit_s: Some(Pair {
            bar: Some(up("capacity_uncertainty_mbit_s")?),
            ..Pair::new(up("capacity_mbit_s")?, line.mbit_s)
        }),
        rate_mbit_s: None,
        lost: Some(Pair::new(up("idle/lost")?, there.lost() as f64)),
        sent: there.sent(),
        jitter_ms: Some(Pair::new(ms(up("idle/jitter_us/p95")?), ms(there.variation_us(0.95)))),
        rtt_ms: Some(Pair::new(
            ms(figure(&m.report, "/result/path/rtt_idle_us/p50")?),
            ms(there.delay_us() + back.delay_us()),
        )),
    })
}
