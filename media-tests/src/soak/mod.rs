//! A site that works on and on: rounds of the same work, and after each one a look at what every process holds. What grows from round to
//! round is a leak.
//!
//! What is written for ever (audit chains, the store) grows on disk, as it is meant to; no process may grow with it. What is kept up to a
//! bound or for a time (the last chat messages, people who went without a word: until their token ends) has come to its level within the
//! warm-up of an hour; three minutes have room for it.

pub mod control;
pub mod report;
mod round;
pub mod site;
pub mod verdict;

use crate::process::Process;
use crate::vitals::Vitals;
use anyhow::Context as _;
use site::Site;
use std::time::{Duration, Instant};
use verdict::{LOOKS, Measure, Trend};

/// Readings of one look.
const READINGS: usize = 10;
/// Between two of them.
const APART: Duration = Duration::from_millis(100);

/// How long, and how densely.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Rounds begin for so long. Where that gives fewer than [`LOOKS`], there are so many all the same.
    pub length: Duration,
    /// Between the beginnings of two rounds at least.
    pub pace: Duration,
}

impl Plan {
    /// One that takes so many minutes. Ten minutes and more leave the machine time for other things in between.
    #[must_use]
    pub const fn minutes(minutes: u64) -> Self {
        let pace = if minutes < 10 { 0 } else { 30 };
        Self { length: Duration::from_secs(minutes * 60), pace: Duration::from_secs(pace) }
    }
}

/// What one process held after one round.
#[derive(Debug, Clone)]
pub struct Look {
    /// Since the beginning.
    pub at: Duration,
    /// Name of the process.
    pub of: String,
    /// What it held.
    pub vitals: Vitals,
}

/// All looks, in the order in which they were taken.
#[derive(Debug, Clone)]
pub struct Watched {
    began: Instant,
    /// One for each process and round.
    pub looks: Vec<Look>,
}

impl Default for Watched {
    fn default() -> Self {
        Self { began: Instant::now(), looks: Vec::new() }
    }
}

impl Watched {
    /// Looks at each of them for a second. Of descriptors and threads the least counts: what answers the last question of somebody who has
    /// gone is still open for a moment.
    ///
    /// # Errors
    /// Names the process that has ended, with its last words.
    pub fn look(&mut self, processes: &[(&str, &Process)]) -> anyhow::Result<()> {
        let at = self.began.elapsed();
        let first = self.looks.len();
        for reading in 0..READINGS {
            for (i, (name, process)) in processes.iter().enumerate() {
                let vitals = Vitals::of(process).with_context(|| format!("{name}:\n{}", process.stderr()))?;
                if reading == 0 {
                    self.looks.push(Look { at, of: (*name).to_owned(), vitals });
                } else if let Some(look) = self.looks.get_mut(first + i) {
                    look.vitals.descriptors = look.vitals.descriptors.min(vitals.descriptors);
                    look.vitals.threads = look.vitals.threads.min(vitals.threads);
                }
            }
            // What a process holds is no event that could be waited for.
            std::thread::sleep(APART);
        }
        Ok(())
    }

    /// How each process came on in each measure, in the order in which they were looked at.
    ///
    /// # Errors
    /// Where there are too few looks.
    pub fn trends(&self) -> anyhow::Result<Vec<Trend>> {
        let mut names: Vec<&str> = Vec::new();
        for look in &self.looks {
            if !names.contains(&look.of.as_str()) {
                names.push(&look.of);
            }
        }
        let mut trends = Vec::new();
        for name in names {
            let its = || self.looks.iter().filter(|l| l.of == name).map(|l| l.vitals);
            let memory: Vec<u64> = its().map(|v| v.memory_kib).collect();
            let descriptors: Vec<u64> = its().map(|v| v.descriptors).collect();
            let threads: Vec<u64> = its().map(|v| v.threads).collect();
            trends.push(Trend::of(name, Measure::Memory, &memory)?);
            trends.push(Trend::of(name, Measure::Descriptors, &descriptors)?);
            trends.push(Trend::of(name, Measure::Threads, &threads)?);
        }
        Ok(trends)
    }
}

/// What came of a soak.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Every look.
    pub watched: Watched,
    /// Rounds of work.
    pub rounds: u64,
    /// How long.
    pub took: Duration,
    /// Handovers that had to be begun again.
    pub again: u64,
    /// What the viewers who were there all along said at the end: how they looked, and their summary.
    pub viewers: Vec<(&'static str, serde_json::Value)>,
}

/// Lets a site work. `told` hears after each round what was seen so far, and how many rounds that were.
///
/// # Errors
/// Where the work does not come about, or a process ends. What has grown is no error here: that is [`Watched::trends`].
pub fn run(plan: Plan, mut told: impl FnMut(&Watched, u64)) -> anyhow::Result<Outcome> {
    let mut site = Site::open()?;
    let mut watched = Watched::default();
    let (began, mut rounds) = (Instant::now(), 0);
    while began.elapsed() < plan.length || rounds < LOOKS as u64 {
        let start = Instant::now();
        site.round().with_context(|| format!("in round {}", rounds + 1))?;
        rounds += 1;
        watched.look(&site.processes())?;
        told(&watched, rounds);
        std::thread::sleep(plan.pace.saturating_sub(start.elapsed()));
    }
    let (again, viewers) = site.close()?;
    Ok(Outcome { watched, rounds, took: began.elapsed(), again, viewers })
}
