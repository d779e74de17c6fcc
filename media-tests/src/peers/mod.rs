//! `trocar link test`, `iperf3 -u` and an SRT transfer over the same emulated line, each held against the emulator's ledger of its
//! own packets: what each of them says, and how far that is off.
//!
//! ```text
//! client ── UDP ──► trocar impair, a profile and a seed, a ledger ──► server
//!        ── TCP ──► straight on: iperf3's control connection ───────►
//! ```
//!
//! Each tool has the line to itself, one after the other. The line knows no packets by content: with one seed, what it does to packet 17
//! it does to packet 17 of each tool, whatever that is. So each tool is held against the truth of what *it* sent.

pub mod iperf;
pub mod ours;
pub mod srt;
pub mod table;

use crate::ledger;
use crate::process::Process;
use crate::stack::{PATIENCE, path};
use anyhow::{Context, ensure};
use serde_json::Value;
use std::net::{Ipv4Addr, SocketAddr};
use tempfile::TempDir;
use trocar_proto::link::Record;

/// An emulated line.
#[derive(Debug, Clone, Copy)]
pub struct Line {
    /// In the table.
    pub name: &'static str,
    /// What it does.
    pub does: Does,
    /// Its rate, of UDP payload, in Mbit/s.
    pub mbit_s: f64,
    /// What `iperf3` is told to send, in Mbit/s: it has no search for the rate, and is asked for too much to find it.
    pub iperf_mbit_s: f64,
}

/// What a line does (docs/IMPAIR.md).
#[derive(Debug, Clone, Copy)]
pub enum Does {
    /// The same in both directions: what stands in `[up]` of a profile.
    BothWays(&'static str),
    /// A whole profile.
    Profile(&'static str),
}

/// The lines of the table: four that do one thing each, and two that come with the program, at their real rates.
pub const LINES: [Line; 6] = [
    Line {
        name: "rate: 6 Mbit/s, 60 ms of queue, 10 ms",
        does: Does::BothWays("delay = { shape = 'constant', ms = 10 }\nline = { mbit_s = 6, queue_ms = 60 }\n"),
        mbit_s: 6.0,
        iperf_mbit_s: 8.0,
    },
    Line {
        name: "random: 1 % lost, 10 ms, 6 Mbit/s",
        does: Does::BothWays(
            "delay = { shape = 'constant', ms = 10 }\nline = { mbit_s = 6, queue_ms = 60 }\n\
               loss = { model = 'random', percent = 1 }\n",
        ),
        mbit_s: 6.0,
        iperf_mbit_s: 3.0,
    },
    Line {
        name: "bursts: 2 % lost in threes, 10 ms, 6 Mbit/s",
        does: Does::BothWays(
            "delay = { shape = 'constant', ms = 10 }\nline = { mbit_s = 6, queue_ms = 60 }\n\
               loss = { model = 'bursts', percent = 2, burst_packets = 3 }\n",
        ),
        mbit_s: 6.0,
        iperf_mbit_s: 3.0,
    },
    Line {
        name: "jitter: 10 to 30 ms in order, 6 Mbit/s",
        does: Does::BothWays(
            "delay = { shape = 'uniform', min_ms = 10, max_ms = 30 }\nline = { mbit_s = 6, queue_ms = 60 }\n",
        ),
        mbit_s: 6.0,
        iperf_mbit_s: 3.0,
    },
    Line {
        name: "`lte`: 20 Mbit/s, 500 ms of queue, 27 ms",
        does: Does::Profile(include_str!("../../../configs/link-profiles/lte.toml")),
        mbit_s: of_payload(20.0),
        iperf_mbit_s: 25.0,
    },
    Line {
        name: "`5g-busy`: 30 Mbit/s, 1.2 % lost in fours, 57 ms",
        does: Does::Profile(include_str!("../../../configs/link-profiles/5g-busy.toml")),
        mbit_s: of_payload(30.0),
        iperf_mbit_s: 15.0,
    },
];

/// What is left of a rate for the payload of packets of 1,200 bytes, where the line counts UDP and IPv4 too.
const fn of_payload(mbit_s: f64) -> f64 {
    mbit_s * 1_200.0 / 1_228.0
}

impl Line {
    /// As a profile.
    #[must_use]
    pub fn profile(&self) -> String {
        match self.does {
            Does::BothWays(does) => format!("[up]\n{does}[down]\n{does}"),
            Does::Profile(text) => text.to_owned(),
        }
    }
}

/// What a tool says of something, and what the ledger says of the same packets.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pair {
    /// By the tool.
    pub said: f64,
    /// By the ledger.
    pub truth: f64,
    /// ± of it, by the tool: how far off it may be.
    pub bar: Option<f64>,
}

impl Pair {
    /// Of a tool that says no error bar.
    #[must_use]
    pub const fn new(said: f64, truth: f64) -> Self {
        Self { said, truth, bar: None }
    }
}

/// What a tool says of a line. None: it does not say.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Outcome {
    /// What the line carries, in Mbit/s; the truth is its configuration.
    pub capacity_mbit_s: Option<Pair>,
    /// What came of the tool's own flow, in Mbit/s.
    pub rate_mbit_s: Option<Pair>,
    /// Packets that were lost.
    pub lost: Option<Pair>,
    /// Of so many.
    pub sent: u64,
    /// Jitter by the tool's own definition, in ms.
    pub jitter_ms: Option<Pair>,
    /// Round trip, in ms.
    pub rtt_ms: Option<Pair>,
}

/// Where servers listen, and the line before them: addresses on loopback that no other process has, since the port that a tool
/// wants cannot be left to chance.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    /// Of the servers.
    pub server: Ipv4Addr,
    /// Of the line.
    pub line: Ipv4Addr,
}

impl Place {
    /// This process's.
    #[must_use]
    pub fn ours() -> Self {
        let id = std::process::id();
        let (high, low) = ((id / 254 % 256) as u8, (id % 254) as u8 + 1);
        Self { server: Ipv4Addr::new(127, 77, high, low), line: Ipv4Addr::new(127, 78, high, low) }
    }
}

/// `trocar impair` with a ledger.
pub struct Emulator {
    process: Process,
    /// Where clients send to.
    pub listen: String,
    dir: TempDir,
}

impl Emulator {
    /// A line from `listen` to `to`, as the profile says.
    ///
    /// # Errors
    /// Where it does not start.
    pub fn open(listen: SocketAddr, to: &str, profile: &str, seed: u64) -> anyhow::Result<Self> {
        let dir = tempfile::tempdir()?;
        let (file, ledger) = (dir.path().join("line.toml"), dir.path().join("ledger.jsonl"));
        std::fs::write(&file, profile)?;
        let (listen, seed) = (listen.to_string(), seed.to_string());
        let fixed = ["impair", "--json", "--listen", &listen, "--to", to, "--seed", &seed];
        let files = ["--profile", path(&file)?, "--ledger", path(&ledger)?];
        let mut process = Process::trocar("impair", &[&fixed[..], &files].concat())?;
        let ready: Value = serde_json::from_str(&process.line(PATIENCE, |l| l.contains("\"ready\""))?)?;
        let listen = ready.get("listen").and_then(serde_json::Value::as_str).context("listen")?.to_owned();
        Ok(Self { process, listen, dir })
    }

    /// Ends it: the ledger.
    ///
    /// # Errors
    /// Where the emulator itself was the limit: then the ledger is not the truth.
    pub fn end(mut self) -> anyhow::Result<Vec<Record>> {
        self.process.stop()?;
        let said = self.process.rest();
        let summary = said.iter().rfind(|l| l.contains("\"summary\"")).context("no summary")?;
        let summary: Value = serde_json::from_str(summary)?;
        for pointer in ["/up/kernel_drops", "/up/overload", "/down/kernel_drops", "/down/overload"] {
            ensure!(summary.pointer(pointer).and_then(Value::as_u64) == Some(0), "{pointer}: {summary}");
        }
        ledger::read(&self.dir.path().join("ledger.jsonl"))
    }
}

/// A number of a report; an error names what is missing.
fn figure(report: &Value, pointer: &str) -> anyhow::Result<f64> {
    report.pointer(pointer).and_then(Value::as_f64).with_context(|| format!("no {pointer} in {report}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use trocar_proto::link::Profile;

    #[test]
    fn the_rate_of_each_line_is_what_its_profile_leaves_for_payload() {
        for line in &LINES {
            let profile: Profile = toml::from_str(&line.profile()).unwrap();
            let up = profile.up.line.unwrap();
            let left = up.mbit_s.unwrap() * 1_200.0 / (1_200.0 + f64::from(up.overhead_bytes));
            assert!((line.mbit_s - left).abs() < 1e-9, "{}: {left}", line.name);
        }
    }
}
