//! Whether a cell meets its target: by the lower confidence bound, with as many frames as that needs.
//!
//! There are two looks and no more, for a bound that is looked at until it pleases is none: one when the bound would hold with no frame
//! lost, one at [`MOST_LOST`] lost. Each is that of Clopper and Pearson at 97.5 %, so that a cell below its target meets it in at most 5 %
//! of the cases, whichever look it is (Bonferroni).

use super::bounds::{at_least, wilson};
use super::{Cell, Outcome};

/// A cell that loses more frames than this cannot meet its target any more.
pub const MOST_LOST: u64 = 4;
/// Frames of one run at most. Each run has a seed of its own.
const RUN: u64 = 6_000;

/// What is to be said of a cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The lower bound is at the target, or above it. With two paths: no frame was lost.
    Met,
    /// The upper bound is below it.
    Missed,
    /// More frames would be needed than there may be.
    Undecided,
}

impl Verdict {
    /// In a word.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Met => "met",
            Self::Missed => "MISSED",
            Self::Undecided => "UNDECIDED",
        }
    }
}

/// What a cell came to, over all its runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Frames captured after the line was known.
    pub frames: u64,
    /// Frames whole on the viewer's side within the budget.
    pub in_time: u64,
    /// Greatest age of a whole frame, in microseconds.
    pub oldest_us: u64,
    /// Packets that the publisher sent again.
    pub repeated: u64,
    /// Its repair packets.
    pub repairs: u64,
    /// Its redundancy at the end, in per cent of a full block.
    pub plan_percent: u32,
}

impl Tally {
    fn add(&mut self, o: &Outcome) {
        self.frames += o.frames;
        self.in_time += o.in_time;
        self.oldest_us = self.oldest_us.max(o.oldest_us);
        self.repeated += o.sent.repeats.repeated;
        self.repairs += o.sent.fec.repairs;
        self.plan_percent = u32::from(o.plan.fec_percent);
    }

    /// Frames that were not whole in time.
    #[must_use]
    pub const fn lost(&self) -> u64 {
        self.frames - self.in_time
    }

    /// The lower bound of the share that was.
    #[must_use]
    pub fn at_least(&self) -> f64 {
        at_least(self.in_time, self.frames)
    }
}

/// Runs a cell. One that has a target of less than all gets as many frames as its bound needs, any other those that it names; `run` is
/// [`Cell::run`]. No verdict where there is no target.
pub fn judge(cell: &Cell, mut run: impl FnMut(Cell) -> Outcome) -> (Tally, Option<Verdict>) {
    match cell.target() {
        Some(target) if target < 1.0 => {
            let (tally, verdict) = by_bound(cell, target, run);
            (tally, Some(verdict))
        }
        target => {
            let mut tally = Tally::default();
            tally.add(&run(*cell));
            let verdict = if tally.lost() == 0 { Verdict::Met } else { Verdict::Missed };
            (tally, target.map(|_| verdict))
        }
    }
}

fn by_bound(cell: &Cell, target: f64, mut run: impl FnMut(Cell) -> Outcome) -> (Tally, Verdict) {
    let looks = [0, MOST_LOST].map(|lost| frames_for(target, lost));
    let mut tally = Tally::default();
    let mut turn = 0;
    while let Some(look) = looks.into_iter().find(|n| *n > tally.frames) {
        let frames = RUN.min(look - tally.frames);
        tally.add(&run(Cell { frames, seed: cell.seed.wrapping_mul(1_000).wrapping_add(turn), ..*cell }));
        turn += 1;
        if tally.frames == look && tally.at_least() >= target {
            return (tally, Verdict::Met);
        }
        if tally.lost() > MOST_LOST {
            break;
        }
    }
    let above = wilson(tally.in_time, tally.frames).1;
    (tally, if above < target { Verdict::Missed } else { Verdict::Undecided })
}

/// The fewest frames of which so many may be lost for the bound to hold.
#[must_use]
pub fn frames_for(target: f64, lost: u64) -> u64 {
    let holds = |n: u64| at_least(n - lost.min(n), n) >= target;
    let (mut low, mut high) = (0, 1);
    while !holds(high) {
        (low, high) = (high, high * 2);
    }
    while low + 1 < high {
        let middle = u64::midpoint(low, high);
        if holds(middle) { high = middle } else { low = middle }
    }
    high
}

#[cfg(test)]
mod tests {
    use super::super::Loss;
    use super::*;

    /// Judges a cell with a target of 99.99 % that loses these frames, by number; with the frames of each run.
    fn of(lost: &[u64]) -> (Tally, Verdict, Vec<u64>) {
        let cell = Cell::new(20.0, Loss::Random { percent: 1.0 }, 30, 1);
        let (mut from, mut runs, mut seeds) = (0, Vec::new(), Vec::new());
        let (tally, verdict) = judge(&cell, |c| {
            let here = lost.iter().filter(|n| (from..from + c.frames).contains(*n)).count() as u64;
            from += c.frames;
            runs.push(c.frames);
            seeds.push(c.seed);
            Outcome { frames: c.frames, in_time: c.frames - here, ..Outcome::default() }
        });
        seeds.dedup();
        assert_eq!(seeds.len(), runs.len(), "each run has a seed of its own");
        (tally, verdict.unwrap(), runs)
    }

    #[test]
    fn a_cell_gets_as_many_frames_as_its_bound_needs_and_no_more() {
        // ln(0.025) / ln(0.9999): the exact bound with nothing lost.
        assert_eq!(frames_for(0.999_9, 0), 36_887);
        assert_eq!(frames_for(0.999, 0), 3_688);
        let most = frames_for(0.999_9, MOST_LOST);
        assert!(at_least(most - MOST_LOST, most) >= 0.999_9 && at_least(most - 1 - MOST_LOST, most - 1) < 0.999_9);
        let (none, verdict, runs) = of(&[]);
        assert_eq!((none.frames, verdict, runs[0], runs.len()), (36_887, Verdict::Met, RUN, 7));
        let (one, verdict, _) = of(&[5]);
        assert_eq!((one.frames, one.lost(), verdict), (most, 1, Verdict::Met));
        assert_eq!(of(&[5, 50_000, 60_000, 70_000]).1, Verdict::Met);
    }

    #[test]
    fn what_a_point_estimate_would_pass_is_undecided_and_what_is_below_is_missed() {
        // Five of a hundred thousand are 99.995 %, and the bound is below 99.99 %.
        let (tally, verdict, _) = of(&[5, 20_000, 40_000, 60_000, 90_000]);
        assert!(tally.in_time as f64 / tally.frames as f64 > 0.999_9 && tally.at_least() < 0.999_9, "{tally:?}");
        assert_eq!(verdict, Verdict::Undecided);
        let (tally, verdict, runs) = of(&(0..100).collect::<Vec<_>>());
        assert_eq!((verdict, tally.frames, runs.len()), (Verdict::Missed, RUN, 1), "it ends early");
    }

    #[test]
    fn two_paths_may_lose_nothing_and_what_has_no_target_gets_no_verdict() {
        let two = Cell { second_path_us: Some(0), ..Cell::new(20.0, Loss::Random { percent: 10.0 }, 30, 500) };
        let run = |lost| move |c: Cell| Outcome { frames: c.frames, in_time: c.frames - lost, ..Outcome::default() };
        assert_eq!(judge(&two, run(0)).1, Some(Verdict::Met));
        assert_eq!(judge(&two, run(1)).1, Some(Verdict::Missed));
        let free = Cell::new(20.0, Loss::Dark { ms: 20.0 }, 5, 500);
        let (tally, verdict) = judge(&free, run(3));
        assert_eq!((tally.frames, tally.lost(), verdict), (500, 3, None));
    }
}
