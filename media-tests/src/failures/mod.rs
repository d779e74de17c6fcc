//! The failures of HANDOVER.md section 17 with real processes: each is brought about, and what came of it is read from the device's
//! own record. One function per failure; the tests and `make handover` run the same.
#![allow(clippy::indexing_slicing, reason = "a JSON value without that member gives null")]

mod links;
mod paths;
pub mod people;
mod processes;
pub mod races;

use crate::sentinel::Sentinel;
use crate::theatre::{Theatre, is_hold, selects, time};
use anyhow::{bail, ensure};
use std::time::Duration;

/// What one failure came to.
#[derive(Debug, Clone)]
pub struct Row {
    /// Its number in the specification, as `F1`.
    pub id: &'static str,
    /// What was measured, and the bound: the longest in milliseconds where it is a time.
    pub figures: Vec<Figure>,
    /// What else was seen and checked.
    pub seen: Vec<String>,
    /// Trials that fell into a moment at which the machine stood still, and were repeated.
    pub void: usize,
}

/// One measured time.
#[derive(Debug, Clone)]
pub struct Figure {
    /// From what to what.
    pub what: &'static str,
    /// Milliseconds.
    pub ms: f64,
    /// What it may be, milliseconds.
    pub bound: f64,
}

impl Row {
    fn new(id: &'static str) -> Self {
        Self { id, figures: Vec::new(), seen: Vec::new(), void: 0 }
    }

    fn time(&mut self, what: &'static str, from: u64, to: u64, bound: f64) {
        self.figures.push(Figure { what, ms: to.saturating_sub(from) as f64 / 1e3, bound });
    }

    fn saw(&mut self, what: impl Into<String>) {
        self.seen.push(what.into());
    }

    /// Whether every time is within its bound.
    ///
    /// # Errors
    /// Names the first that is not.
    pub fn check(&self) -> anyhow::Result<()> {
        for f in &self.figures {
            ensure!(f.ms <= f.bound, "{}: {} took {:.1} ms, {:.0} ms is the bound", self.id, f.what, f.ms, f.bound);
        }
        ensure!(!self.figures.is_empty() || !self.seen.is_empty(), "{}: nothing was measured", self.id);
        Ok(())
    }

    /// One line of the table.
    #[must_use]
    pub fn line(&self) -> String {
        let figures = self.figures.iter().map(|f| format!("{} {:.1} ms (≤ {:.0})", f.what, f.ms, f.bound));
        let all: Vec<String> = figures.chain(self.seen.iter().cloned()).collect();
        format!("| {} | {} | {} |", self.id, all.join("; "), self.void)
    }
}

/// The gate's tick, the device's tick: what "one tick" in a bound is, measured at the device.
pub const TICK_MS: f64 = 10.0;

/// One failure.
#[derive(Debug, Clone, Copy)]
pub struct Failure {
    /// As in the specification.
    pub id: &'static str,
    /// In words.
    pub name: &'static str,
    /// One trial.
    pub run: fn() -> anyhow::Result<Trial>,
}

/// One trial: what it came to, and when it was, boot clock.
#[derive(Debug, Clone)]
pub struct Trial {
    /// What it came to.
    pub row: Row,
    /// The time in which a stall of the machine voids it.
    pub from: u64,
    /// Its end.
    pub to: u64,
}

/// All of them, in the order of the specification.
pub const ALL: &[Failure] = &[
    Failure { id: "F1", name: "expert and gate are cut off from each other", run: links::f1 },
    Failure { id: "F1b", name: "the expert's machine is deaf, then cut off (nftables)", run: links::f1_deaf },
    Failure { id: "F2", name: "the relay is killed", run: processes::f2 },
    Failure { id: "F2b", name: "one of two relays is killed, then both paths are cut", run: paths::f2b },
    Failure { id: "F3", name: "the picture is lost while commands go on", run: links::f3 },
    Failure { id: "F4", name: "commands arrive after TAKE", run: links::f4 },
    Failure { id: "F6", name: "the relay restarts", run: processes::f6 },
    Failure { id: "F7", name: "the expert crashes and comes back", run: processes::f7 },
    Failure { id: "F8", name: "the gate is killed in REMOTE and in LOCAL", run: processes::f8 },
    Failure { id: "F9", name: "the expert's process is paused for 10 s", run: processes::f9 },
    Failure {
        id: "F9b",
        name: "the expert's process is paused for 300 ms, within the lease",
        run: processes::f9_short,
    },
    Failure { id: "F10", name: "wall clocks jump by an hour and drift", run: people::f10 },
    Failure { id: "F11", name: "two experts accept at once, 10,000 times", run: races::f11 },
    Failure { id: "F14", name: "the picture stands still while everything else goes on", run: links::f14 },
    Failure { id: "F15", name: "the path changes", run: links::f15 },
    Failure { id: "F16", name: "consent is withdrawn while an expert holds", run: people::f16 },
    Failure { id: "F17", name: "the gate's disk is full", run: people::f17 },
    Failure { id: "F17b", name: "the gate's disk stands still for 3 s", run: people::f17_stalled },
    Failure {
        id: "F18",
        name: "signaling and the store behind it are gone while an expert holds",
        run: processes::f18,
    },
    Failure { id: "F19", name: "10 % of the packets are lost on each of two paths", run: paths::f19 },
    Failure { id: "F20", name: "forged and flooded messages", run: races::f20 },
    Failure { id: "F21", name: "the gate is paused for 5 s", run: processes::f21 },
    Failure { id: "F22", name: "a second gate is started for the same device", run: processes::f22 },
    Failure { id: "F23", name: "the holder's certificate is revoked", run: people::f23 },
];

/// Runs one until a trial is not void, three times at most.
///
/// # Errors
/// What went wrong in it, or that the machine never ran long enough.
pub fn run(failure: &Failure, sentinel: &Sentinel) -> anyhow::Result<Row> {
    for void in 0..3 {
        let Trial { mut row, from, to } = (failure.run)()?;
        if sentinel.stalled(from, to) {
            eprintln!("{}: the machine stood still, once more", failure.id);
            continue;
        }
        row.void = void;
        println!("{}", row.line());
        row.check()?;
        return Ok(row);
    }
    bail!("{}: the machine stood still in three trials", failure.id)
}

const SOON: Duration = Duration::from_secs(5);

/// After something went wrong at `at` in REMOTE: the device holds, then nobody is selected. Both times.
fn holds_then_nobody(t: &mut Theatre, at: u64) -> anyhow::Result<(u64, u64)> {
    let hold = t.record.after(at, "a hold", SOON, |e| is_hold(e) || selects("nobody")(e))?;
    let nobody = t.record.after(at, "nobody selected", SOON, selects("nobody"))?;
    Ok((time(&hold), time(&nobody)))
}
