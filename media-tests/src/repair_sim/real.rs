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
use trocar_proto::link::config::{Blackout, Delay, Line, Loss as LinkLoss};
use trocar_proto::link::{Direction, LinkConfig, Record};

/// Bytes of a UDP payload from which on it is taken for one with packets of a picture.
const PICTURE: u32 = 1_000;

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
        // Twice the rate is what `trocar publish` asks for.
        Cell { frame_us, granted: 2.0, ..Cell::new(mbit_s, loss, round_trip_ms, frames) }
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
    /// Frames that the source gave between the first and the last one that the viewer had.
    pub frames: u64,
    /// Of those, the ones that the viewer had whole, as they were sent, and within the budget.
    pub whole: u64,
    /// Those that the publisher left out, for the line took no more.
    pub left_out: u64,
    /// Those that it had whole, and later.
    pub late: u64,
    /// How many times frames were missing in a row, be it one or many.
    pub gaps: u64,
    /// Where the line was dark: how long after that the publisher sent no packet of a picture, by the emulator's ledger, in microseconds;
    /// the middle one of all times. The simulated one sends all the time.
    pub silent_us: Option<u64>,
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

/// Runs a cell until the viewer has so many whole frames after those in which the line is got to know: how long it takes to the first picture is
/// no matter.
///
/// # Errors
/// Where a process does not do what it should.
pub fn run(pictures: Pictures, cell: &Cell, whole: u64) -> anyhow::Result<Seen> {
    let stack = Stack::start()?;
    let profile = stack.dir.path().join("line.toml");
    let (config, there) = (line(cell, cell.round_trip_us, true, 0), path(&profile)?);
    std::fs::write(&profile, profile_of(&config)?)?;
    let mut impair = Command::new(trocar()?);
    let to = stack.text("/relay/quic")?;
    impair.args(["impair", "--listen", "127.0.0.1:0", "--to", &to, "--json", "--seed", "5", "--profile", there]);
    let did = stack.dir.path().join("impair.jsonl");
    if !config.blackout.is_empty() {
        impair.args(["--ledger", path(&did)?]);
    }
    let mut impair = Process::start("impair", &mut impair)?;
    let ready: Value = serde_json::from_str(&impair.line(PATIENCE, |l| l.contains("\"ready\""))?)?;
    let way = format!("127.0.0.1={}", ready["listen"].as_str().context("listen")?);
    let (sent, came) = (stack.dir.path().join("sent.jsonl"), stack.dir.path().join("came.jsonl"));
    let file = match pictures {
        Pictures::Scope => scope_fixture()?,
        Pictures::Line => line_fixture()?,
    };
    let source = format!("file:{}", path(&file)?);
    let budget = (cell.budget_us / 1_000).to_string();
    let fixed = ["--source", &source, "--loop", "--passthrough", "--ledger", path(&sent)?, "--path", &way];
    let mut publisher = stack.publish(&[&fixed[..], &["--budget", &budget]].concat())?;
    let frames = (WARM_UP + whole).to_string();
    let mut viewer = stack.watch(&["--frames", &frames, "--ledger", path(&came)?])?;
    summary(&mut viewer, Duration::from_secs(120))?;
    ensure!(viewer.wait(PATIENCE)?.success(), "{}", viewer.stderr());
    publisher.stop()?;
    impair.stop()?;
    let seen = compare(&ledger(&sent)?, &ledger(&came)?, cell.budget_us)?;
    let did = if config.blackout.is_empty() { Vec::new() } else { crate::ledger::read(&did)? };
    Ok(Seen { silent_us: silent(&did, &config.blackout), ..seen })
}

/// How long after each dark time nothing of a picture came to the emulator from the publisher: the middle one.
fn silent(ledger: &[Record], dark: &[Blackout]) -> Option<u64> {
    let of_picture: Vec<u64> =
        ledger.iter().filter(|r| r.direction == Direction::Up && r.len >= PICTURE).map(|r| r.arrived_us).collect();
    let last = of_picture.last().copied()?;
    let mut all = Vec::new();
    for d in dark {
        for end in d.ends().take_while(|end| *end < last) {
            // They stand in the order in which they went on, not in that in which they came.
            all.extend(of_picture.iter().filter(|at| **at >= end).min().map(|at| at - end));
        }
    }
    all.sort_unstable();
    all.get(all.len() / 2).copied()
}

fn compare(sent: &Ledger, came: &Ledger, budget_us: u64) -> anyhow::Result<Seen> {
    let (first, last) = came.keys().next().zip(came.keys().last()).context("no frame came")?;
    // A number is given to each frame of the source, to those as well that the publisher leaves out.
    let counted = (first + WARM_UP).min(*last)..=*last;
    let same = |n: u64| came.get(&n).zip(sent.get(&n)).filter(|(c, s)| c.sum == s.sum).map(|(c, _)| c);
    let ages: Vec<i64> = counted.clone().filter_map(same).filter_map(|c| c.age_us).collect();
    let came_at_all = counted.clone().filter_map(same).count();
    ensure!(ages.len() == came_at_all, "{} of {came_at_all} frames have an age", ages.len());
    let in_time = |c: &Frame| c.age_us.is_some_and(|age| age <= budget_us as i64);
    let kept: Vec<bool> = counted.clone().map(|n| same(n).is_some_and(in_time)).collect();
    let left_out = counted.filter(|n| !sent.contains_key(n)).count();
    let late = came_at_all - kept.iter().filter(|kept| **kept).count();
    let whole = kept.iter().filter(|kept| **kept).count();
    let gaps = kept.windows(2).filter(|pair| pair[0] && !pair[1]).count() + usize::from(kept.first() == Some(&false));
    let [frames, whole, left_out, late, gaps] = [kept.len(), whole, left_out, late, gaps].map(|n| n as u64);
    Ok(Seen { frames, whole, left_out, late, gaps, silent_us: None })
}

/// A frame of a ledger. Those that came have an age, where it is known.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Frame {
    sum: String,
    age_us: Option<i64>,
}

type Ledger = BTreeMap<u64, Frame>;

fn ledger(file: &Path) -> anyhow::Result<Ledger> {
    let text = std::fs::read_to_string(file)?;
    let lines = text.lines().map(|l| {
        let v: Value = serde_json::from_str(l)?;
        let frame = v["frame"].as_u64().context("frame")?;
        let sum = v["sha256"].as_str().context("sha256")?.to_owned();
        Ok((frame, Frame { sum, age_us: v["age_us"].as_i64() }))
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
    fn the_silence_after_the_dark_is_that_of_packets_of_pictures() {
        let came = |ms: u64, len: u64| {
            let text = format!(
                r#"{{"direction":"up","client":0,"seq":0,"copy":false,"len":{len},"arrived_us":{ms}000,"fate":"lost"}}"#
            );
            serde_json::from_str::<Record>(&text).unwrap()
        };
        let dark = [Blackout { start_ms: 100.0, length_ms: 50.0, every_ms: Some(1_000.0) }];
        let ledger = [
            came(99, 1_200),
            came(120, 1_200),
            came(151, 80),
            came(190, 1_200),
            came(1_160, 1_200),
            came(2_000, 1_200),
        ];
        assert_eq!(silent(&ledger, &dark), Some(40_000), "40 and 10 ms");
        assert_eq!(silent(&ledger, &[]), None);
    }

    #[test]
    fn what_is_seen_agrees_within_the_bounds_and_not_beyond() {
        let sim = |in_time| Outcome { frames: 4_000, in_time, ..Outcome::default() };
        let seen = |whole| Seen { frames: 300, whole, left_out: 0, late: 0, gaps: 300 - whole, silent_us: None };
        assert!(seen(300).agrees(&sim(4_000)) && seen(298).agrees(&sim(3_990)));
        assert!(!seen(270).agrees(&sim(4_000)), "a tenth is missing");
        assert!(!seen(300).agrees(&sim(3_600)), "better than can be");
        assert!(seen(265).agrees(&sim(3_600)));
        // Thirty missing one by one say more than three times ten.
        let in_a_row = |gaps| Seen { frames: 300, whole: 246, left_out: 0, late: 0, gaps, silent_us: None };
        assert!(
            !in_a_row(54).agrees(&sim(3_600)) && in_a_row(6).agrees(&sim(3_600)) && !in_a_row(6).agrees(&sim(4_000))
        );
    }

    #[test]
    fn frames_count_from_the_first_after_the_line_is_known_to_the_last_that_came_where_they_came_in_time() {
        let frame = |sum: String, age_us| Frame { sum, age_us: Some(age_us) };
        let of = |frames: std::ops::Range<u64>| frames.map(|f| (f, frame(f.to_string(), 1_000))).collect::<Ledger>();
        let (mut sent, mut came) = (of(0..1_000), of(100..900));
        // One that the publisher left out counts as one that the line took.
        sent.remove(&450);
        came.remove(&450);
        came.remove(&150);
        came.remove(&500);
        came.insert(600, frame("torn".to_owned(), 1_000));
        came.insert(700, frame("700".to_owned(), 100_001));
        came.insert(800, frame("800".to_owned(), 100_000));
        let seen = Seen { frames: 900 - 100 - WARM_UP, whole: 620 - 4, left_out: 1, late: 1, gaps: 4, silent_us: None };
        assert_eq!(compare(&sent, &came, 100_000).unwrap(), seen);
        assert!(compare(&sent, &Ledger::new(), 100_000).is_err());
        came.insert(400, Frame { sum: "400".to_owned(), age_us: None });
        assert!(compare(&sent, &came, 100_000).is_err(), "an age that is not known");
    }
}
