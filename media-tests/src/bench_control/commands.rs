//! The station's ledger beside the device's record.

use super::Figures;
use crate::sentinel::Sentinel;
use anyhow::{Context, ensure};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::path::Path;

/// What left.
#[derive(Debug, Deserialize)]
struct Left {
    at: u64,
    epoch: u64,
    counter: u64,
    bytes: usize,
    #[serde(default)]
    lost: usize,
}

/// What the device wrote down.
#[derive(Debug, Deserialize)]
struct Seen {
    at: u64,
    event: String,
    #[serde(default)]
    act: String,
    #[serde(default)]
    verdict: String,
    #[serde(default)]
    fence: u64,
    #[serde(default)]
    counter: u64,
    /// Lines that did not fit into the record.
    #[serde(default)]
    lines: u64,
}

/// See [`super::Outcome`].
#[derive(Debug, Default)]
pub(super) struct Commands {
    pub(super) figures: Figures,
    pub(super) sent: usize,
    pub(super) lost: usize,
    pub(super) lost_in_stalls: usize,
    pub(super) outside: usize,
    pub(super) bytes: usize,
}

/// What is sent so long before a stall may be lost by it: how old a command may become, microseconds.
const BEFORE: u64 = 200_000;

/// Each command's time, and those that did not arrive.
pub(super) fn compare(ledger: &Path, record: &Path, sentinel: &Sentinel) -> anyhow::Result<Commands> {
    let mut left: Vec<Left> = Vec::new();
    lines(ledger, |l: Left| left.push(l))?;
    let unwritten: usize = left.iter().map(|l| l.lost).sum();
    ensure!(unwritten == 0, "{unwritten} commands are not in the ledger");
    let mut taken: BTreeMap<(u64, u64), u64> = BTreeMap::new();
    let mut missing = 0;
    lines(record, |s: Seen| {
        missing += if s.event == "lost" { s.lines } else { 0 };
        if s.event == "act" && s.act == "command" && s.verdict == "taken" {
            taken.insert((s.fence, s.counter), s.at);
        }
    })?;
    ensure!(missing == 0, "{missing} lines are not in the device's record");
    Ok(judge(&left, &taken, |from, to| sentinel.stalled(from, to)))
}

fn judge(left: &[Left], taken: &BTreeMap<(u64, u64), u64>, stalled: impl Fn(u64, u64) -> bool) -> Commands {
    let mut all = Commands::default();
    for l in left {
        let of_epoch = || taken.range((l.epoch, 0)..=(l.epoch, u64::MAX)).map(|(k, _)| k.1);
        let within = of_epoch().next().zip(of_epoch().next_back());
        if within.is_none_or(|(first, last)| l.counter < first || l.counter > last) {
            all.outside += 1;
            continue;
        }
        all.sent += 1;
        all.bytes = all.bytes.max(l.bytes);
        match taken.get(&(l.epoch, l.counter)) {
            Some(at) => all.figures.note(stalled(l.at, *at), l.at, *at),
            None => {
                all.lost += 1;
                all.lost_in_stalls += usize::from(stalled(l.at, l.at + BEFORE));
            }
        }
    }
    all
}

fn lines<T: DeserializeOwned>(path: &Path, mut each: impl FnMut(T)) -> anyhow::Result<()> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    for line in text.lines() {
        each(serde_json::from_str(line).with_context(|| format!("{}: {line}", path.display()))?);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_between_two_that_came_is_lost_and_what_is_outside_is_not() {
        let left: Vec<Left> =
            (1..=6).map(|n| Left { at: n * 1_000, epoch: 7, counter: n, bytes: 90, lost: 0 }).collect();
        let taken = [((7, 2), 2_900), ((7, 3), 3_200), ((7, 5), 5_300), ((6, 4), 9_999)].into();
        let all = judge(&left, &taken, |from, to| from < 2_900 && to > 2_800);
        assert_eq!((all.sent, all.lost, all.outside, all.bytes), (4, 1, 2, 90));
        assert_eq!((all.figures.trials.values.as_slice(), all.figures.trials.void), (&[200, 300][..], 1));
        assert_eq!((all.figures.longest, all.lost_in_stalls), (900, 0));
        let all = judge(&left, &taken, |from, to| from < 4_100 && to > 4_050);
        assert_eq!((all.lost, all.lost_in_stalls), (1, 1));
    }
}
