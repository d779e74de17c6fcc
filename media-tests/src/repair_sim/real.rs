//! Cells for real: `trocar publish`, the relay and `trocar watch` as processes, and `trocar impair` with the cell's line between
//! publisher and relay. What comes of it is held against the simulation of the same cell.
#![allow(clippy::indexing_slicing, reason = "a JSON value without that member gives null")]

use super::bounds::{at_least, wilson};
use super::world::{WARM_UP, line};
use super::{Cell, Loss, Outcome};
use crate::process::{Process, trocar};
use crate::stack::{PATIENCE, Stack, line_fixture, path, scope_fixture, summary};
use anyhow::{Context, ensure};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use trocar_proto::link::LinkConfig;
use trocar_proto::link::config::{Delay, Line, Loss as LinkLoss};

/// The pictures of a cell: which recording has its rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pictures {
    /// 4K at 60 frames and 50 Mbit/s.
    Scope,
    /// 1080p at 30 frames and 20 Mbit/s.
    Line,
}

impl Pictures {
    /// A cell with these pictures on such a line.
    #[must_use]
    pub const fn cell(self, loss: Loss, round_trip_ms: u64, frames: u64) -> Cell {
        let (mbit_s, frame_us) = match self {
            Self::Scope => (50.0, 16_667),
            Self::Line => (20.0, 33_333),
        };
        // As `trocar publish` announces a recording.
        Cell { frame_us, budget_us: 200_000, granted: 2.0, ..Cell::new(mbit_s, loss, round_trip_ms, frames) }
    }
}

/// The cells that are run for real: random loss, little and much, a burst that can be bridged, and one that cannot: there frames
/// are lost, in the simulation as for real.
pub const CELLS: [(Pictures, Loss, u64); 5] = [
    (Pictures::Line, Loss::Random { percent: 1.0 }, 30),
    (Pictures::Scope, Loss::Random { percent: 0.1 }, 5),
    (Pictures::Line, Loss::Random { percent: 5.0 }, 30),
    (Pictures::Scope, Loss::Dark { ms: 20.0 }, 30),
    (Pictures::Line, Loss::Dark { ms: 300.0 }, 30),
];

/// What was seen of a real cell, after the line was known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// Frames that were sent between the first and the last one that the viewer had.
    pub frames: u64,
    /// Of those, the ones that the viewer had whole, and as they were sent.
    pub whole: u64,
    /// How many times frames were missing in a row, be it one or many.
    pub gaps: u64,
}

impl Seen {
    /// Whether the share is that of the simulation, within the 95 % bounds of both. Frames that are missing in a row are no
    /// independent draws: as many frames count as one as are missing in a row on average (the design effect of Kish 1965).
    #[must_use]
    pub fn agrees(self, simulated: &Outcome) -> bool {
        let length = (self.frames - self.whole).checked_div(self.gaps).unwrap_or(1).max(1);
        let bounds = |good: u64, all: u64| {
            let (good, all) = (good / length, all / length);
            (at_least(good, all), if good == all { 1.0 } else { wilson(good, all).1 })
        };
        let (real, sim) = (bounds(self.whole, self.frames), bounds(simulated.in_time, simulated.frames));
        real.0 <= sim.1 && sim.0 <= real.1
    }
}

/// Runs a cell for so many seconds of pictures.
///
/// # Errors
/// Where a process does not do what it should.
pub fn run(pictures: Pictures, cell: &Cell, seconds: u64) -> anyhow::Result<Seen> {
    let stack = Stack::start()?;
    let profile = stack.dir.path().join("line.toml");
    let (config, there) = (line(cell, cell.round_trip_us, true, 0), path(&profile)?);
    std::fs::write(&profile, profile_of(&config)?)?;
    let mut impair = Command::new(trocar()?);
    let to = stack.text("/relay/quic")?;
    impair.args(["impair", "--listen", "127.0.0.1:0", "--to", &to, "--json", "--seed", "5", "--profile", there]);
    let mut impair = Process::start("impair", &mut impair)?;
    let ready: Value = serde_json::from_str(&impair.line(PATIENCE, |l| l.contains("\"ready\""))?)?;
    let way = format!("127.0.0.1={}", ready["listen"].as_str().context("listen")?);
    let (sent, came) = (stack.dir.path().join("sent.jsonl"), stack.dir.path().join("came.jsonl"));
    let file = match pictures {
        Pictures::Scope => scope_fixture()?,
        Pictures::Line => line_fixture()?,
    };
    let source = format!("file:{}", path(&file)?);
    let fixed = ["--source", &source, "--loop", "--passthrough", "--ledger", path(&sent)?, "--path", &way];
    let mut publisher = stack.publish(&fixed)?;
    let seconds = seconds.to_string();
    let mut viewer = stack.watch(&["--duration", &seconds, "--ledger", path(&came)?])?;
    summary(&mut viewer, Duration::from_secs(120))?;
    ensure!(viewer.wait(PATIENCE)?.success(), "{}", viewer.stderr());
    publisher.stop()?;
    compare(&ledger(&sent)?, &ledger(&came)?)
}

fn compare(sent: &BTreeMap<u64, String>, came: &BTreeMap<u64, String>) -> anyhow::Result<Seen> {
    let (first, last) = came.keys().next().zip(came.keys().last()).context("no frame came")?;
    let counted = || sent.range((first + WARM_UP).min(*last)..=*last);
    let is_whole = |(frame, sum): (&u64, &String)| came.get(frame) == Some(sum);
    let kept: Vec<bool> = counted().map(is_whole).collect();
    let whole = kept.iter().filter(|kept| **kept).count();
    let gaps = kept.windows(2).filter(|pair| pair[0] && !pair[1]).count() + usize::from(kept.first() == Some(&false));
    Ok(Seen { frames: kept.len() as u64, whole: whole as u64, gaps: gaps as u64 })
}

/// Frame numbers and checksums.
fn ledger(file: &Path) -> anyhow::Result<BTreeMap<u64, String>> {
    let text = std::fs::read_to_string(file)?;
    let lines = text.lines().map(|l| {
        let v: Value = serde_json::from_str(l)?;
        let frame = v["frame"].as_u64().context("frame")?;
        Ok((frame, v["sha256"].as_str().context("sha256")?.to_owned()))
    });
    lines.collect()
}

/// The same line in both directions, as docs/IMPAIR.md has it.
fn profile_of(config: &LinkConfig) -> anyhow::Result<String> {
    let Delay::Uniform { min_ms, max_ms } = config.delay else { anyhow::bail!("{:?}", config.delay) };
    let Some(Line { mbit_s: Some(mbit_s), queue_ms: Some(queue_ms), .. }) = config.line else {
        anyhow::bail!("{:?}", config.line)
    };
    let mut text = String::from("title = \"A cell of the repair matrix\"\nsource = \"the simulation\"\n");
    for way in ["up", "down"] {
        text += &format!("[{way}]\ndelay = {{ shape = \"uniform\", min_ms = {min_ms:?}, max_ms = {max_ms:?} }}\n");
        text += &format!("line = {{ mbit_s = {mbit_s:?}, queue_ms = {queue_ms:?} }}\n");
        if let Some(LinkLoss::Random { percent }) = config.loss {
            text += &format!("loss = {{ model = \"random\", percent = {percent:?} }}\n");
        }
        for dark in &config.blackout {
            let (start, length) = (dark.start_ms, dark.length_ms);
            text += &format!("[[{way}.blackout]]\nstart_ms = {start:?}\nlength_ms = {length:?}\n");
            text += &dark.every_ms.map_or_else(String::new, |every| format!("every_ms = {every:?}\n"));
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use trocar_proto::link::config::Profile;

    #[test]
    fn the_profile_is_the_line_of_the_simulation() {
        for (pictures, loss, round_trip_ms) in CELLS {
            let cell = pictures.cell(loss, round_trip_ms, 1);
            let config = line(&cell, cell.round_trip_us, true, 0);
            let profile: Profile = toml::from_str(&profile_of(&config).unwrap()).unwrap();
            assert_eq!((&profile.up, &profile.down), (&config, &config));
        }
    }

    #[test]
    fn what_is_seen_agrees_within_the_bounds_and_not_beyond() {
        let sim = |in_time| Outcome { frames: 4_000, in_time, ..Outcome::default() };
        let seen = |whole| Seen { frames: 300, whole, gaps: 300 - whole };
        assert!(seen(300).agrees(&sim(4_000)) && seen(298).agrees(&sim(3_990)));
        assert!(!seen(270).agrees(&sim(4_000)), "a tenth is missing");
        assert!(!seen(300).agrees(&sim(3_600)), "better than can be");
        assert!(seen(265).agrees(&sim(3_600)));
        // Thirty missing one by one say more than three times ten.
        let in_a_row = |gaps| Seen { frames: 300, whole: 246, gaps };
        assert!(
            !in_a_row(54).agrees(&sim(3_600)) && in_a_row(6).agrees(&sim(3_600)) && !in_a_row(6).agrees(&sim(4_000))
        );
    }

    #[test]
    fn frames_count_from_the_first_after_the_line_is_known_to_the_last_that_came() {
        let of = |frames: std::ops::Range<u64>| frames.map(|f| (f, f.to_string())).collect::<BTreeMap<_, _>>();
        let (sent, mut came) = (of(0..1_000), of(100..900));
        came.remove(&150);
        came.remove(&500);
        came.insert(600, "torn".to_owned());
        assert_eq!(compare(&sent, &came).unwrap(), Seen { frames: 900 - 100 - WARM_UP, whole: 620 - 2, gaps: 2 });
        assert!(compare(&sent, &BTreeMap::new()).is_err());
    }
}
