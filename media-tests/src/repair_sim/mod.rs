//! Deadline repair on a virtual clock: publisher, relay and viewer as they are (ring, leg, questions, repeats, redundancy,
//! frames), over the lines of [`trocar_proto::link`]. How many frames are whole on the viewer's side within 100 ms of their
//! capture?
//!
//! Frames come at 60 per second, each paced over half of its interval; both directions of a bad line lose; the line is three
//! times as fast as the feed. By default the way from the publisher to the relay is bad and the viewer is near the relay.

pub mod bounds;
pub mod judge;
pub mod real;
pub mod table;
mod world;

use trocar_proto::media::fec::policy::Plan;
use trocar_proto::media::fec::receive::RepairCounters;
use trocar_proto::media::fec::send::SendCounters;

/// Capture to display, in microseconds.
pub const BUDGET_US: u64 = 100_000;

/// What a bad line loses, in each direction.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Loss {
    /// Each packet by itself.
    Random {
        /// Chance of each packet.
        percent: f64,
    },
    /// Everything for so long, about once a second.
    Dark {
        /// How long.
        ms: f64,
    },
}

/// What else happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dark {
    /// Nothing.
    Never,
    /// A path is cut after five seconds, for good.
    Cut {
        /// 1 or 2.
        path: u64,
    },
}

/// One cell of the matrix.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cell {
    /// Rate of the feed.
    pub mbit_s: f64,
    /// From picture to picture, in microseconds.
    pub frame_us: u64,
    /// Capture to display, in microseconds.
    pub budget_us: u64,
    /// What was granted, in rates of the feed.
    pub granted: f64,
    /// What is lost.
    pub loss: Loss,
    /// Round trip of the bad way, in microseconds.
    pub round_trip_us: u64,
    /// The relay's line to the viewer is as bad as that to it, and as long: the whole way is twice as long.
    pub both_hops: bool,
    /// A second, clean path to the relay, slower by so many microseconds.
    pub second_path_us: Option<u64>,
    /// A path is cut.
    pub dark: Dark,
    /// Questions are answered.
    pub rtx: bool,
    /// There may be redundancy.
    pub fec: bool,
    /// Frames counted.
    pub frames: u64,
    /// Seed of the lines.
    pub seed: u64,
}

impl Cell {
    /// A cell with everything switched on.
    #[must_use]
    pub const fn new(mbit_s: f64, loss: Loss, round_trip_ms: u64, frames: u64) -> Self {
        Self {
            mbit_s,
            frame_us: 16_667,
            budget_us: BUDGET_US,
            granted: 1.0,
            loss,
            round_trip_us: round_trip_ms * 1_000,
            both_hops: false,
            second_path_us: None,
            dark: Dark::Never,
            rtx: true,
            fec: true,
            frames,
            seed: 1,
        }
    }

    /// The share of frames that must be whole in time, where the issue names one.
    #[must_use]
    pub fn target(&self) -> Option<f64> {
        if self.second_path_us.is_some() {
            return Some(1.0);
        }
        if self.both_hops {
            return None;
        }
        match self.loss {
            Loss::Random { percent } if percent <= 1.0 && self.round_trip_us <= 30_000 => Some(0.999_9),
            Loss::Random { percent } if percent <= 5.0 && self.round_trip_us <= 30_000 => Some(0.999),
            _ => None,
        }
    }

    /// Packets of so many frames, without repeats and redundancy.
    #[must_use]
    pub fn sources(&self, frames: u64) -> f64 {
        let frame = self.mbit_s * 1e6 / 8.0 * self.frame_us as f64 / 1e6;
        frames as f64 * (frame / world::PACKET as f64).ceil().max(1.0)
    }

    /// Runs it.
    #[must_use]
    pub fn run(self) -> Outcome {
        world::World::new(self).run()
    }
}

/// What came of a cell.
#[derive(Debug, Clone, Copy, Default)]
pub struct Outcome {
    /// Frames captured after the line was known.
    pub frames: u64,
    /// Frames whole on the viewer's side within the budget.
    pub in_time: u64,
    /// Greatest age of a whole frame, in microseconds.
    pub oldest_us: u64,
    /// Publisher's repeats and redundancy.
    pub sent: SendCounters,
    /// Relay's repair of what comes in.
    pub relay: RepairCounters,
    /// Relay's repeats and redundancy towards the viewer.
    pub leg_sent: SendCounters,
    /// Viewer's repair.
    pub viewer: RepairCounters,
    /// Publisher's plan at the end.
    pub plan: Plan,
}

impl Outcome {
    /// Share of the frames that were whole in time.
    #[must_use]
    pub fn share(&self) -> f64 {
        self.in_time as f64 / self.frames.max(1) as f64
    }
}

/// Rates of the matrix, in Mbit/s.
pub const RATES: [f64; 4] = [20.0, 50.0, 100.0, 400.0];
/// Losses of the matrix.
pub const LOSSES: [Loss; 6] = [
    Loss::Random { percent: 0.1 },
    Loss::Random { percent: 1.0 },
    Loss::Random { percent: 5.0 },
    Loss::Random { percent: 10.0 },
    Loss::Dark { ms: 20.0 },
    Loss::Dark { ms: 100.0 },
];
/// Round trips of the matrix, in milliseconds.
pub const ROUND_TRIPS_MS: [u64; 3] = [5, 30, 100];

/// Every cell of the matrix, with so many frames each, and the cells of two paths.
#[must_use]
pub fn matrix(frames: u64) -> Vec<Cell> {
    let mut cells = Vec::new();
    for mbit_s in RATES {
        for loss in LOSSES {
            cells.extend(ROUND_TRIPS_MS.map(|ms| Cell::new(mbit_s, loss, ms, frames)));
        }
    }
    cells.extend(two_paths(frames));
    cells
}

/// Two paths, the second slower by up to 50 ms: one cut, or one that loses a tenth.
#[must_use]
pub fn two_paths(frames: u64) -> Vec<Cell> {
    let mut cells = Vec::new();
    for mbit_s in [20.0, 100.0] {
        for skew_us in [0, 50_000] {
            let lossy = Cell::new(mbit_s, Loss::Random { percent: 10.0 }, 30, frames);
            cells.push(Cell { second_path_us: Some(skew_us), ..lossy });
            let clean = Cell::new(mbit_s, Loss::Random { percent: 0.0 }, 30, frames);
            cells.push(Cell { second_path_us: Some(skew_us), dark: Dark::Cut { path: 1 }, ..clean });
            cells.push(Cell { second_path_us: Some(skew_us), dark: Dark::Cut { path: 2 }, ..clean });
        }
    }
    cells
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Loss = Loss::Random { percent: 1.0 };

    #[test]
    fn one_per_cent_at_thirty_milliseconds_loses_no_frame_and_without_repair_a_third() {
        let cell = Cell::new(20.0, ONE, 30, 3_000);
        let whole = cell.run();
        assert_eq!(whole.in_time, 3_000, "{whole:?}");
        let off = Cell { rtx: false, fec: false, ..cell }.run();
        assert!((0.60..0.78).contains(&off.share()), "(1 - 0.01)^38 = 0.68, was {}", off.share());
    }

    #[test]
    fn five_per_cent_is_held_and_without_redundancy_is_not() {
        let cell = Cell::new(50.0, Loss::Random { percent: 5.0 }, 30, 1_500);
        let whole = cell.run();
        assert!(whole.share() >= 0.999, "{whole:?}");
        assert!(Cell { fec: false, ..cell }.run().share() < whole.share());
    }

    #[test]
    fn a_round_trip_longer_than_the_budget_is_bridged_by_redundancy_alone() {
        let cell = Cell::new(20.0, ONE, 100, 1_500);
        let whole = cell.run();
        assert!(whole.share() >= 0.999, "{whole:?}");
        assert_eq!(whole.sent.repeats.repeated, 0, "nothing is repeated that comes too late");
        assert!(Cell { fec: false, ..cell }.run().share() < 0.8);
    }

    #[test]
    fn two_paths_lose_nothing_when_one_is_cut_or_loses_a_tenth() {
        for cell in two_paths(400).into_iter().filter(|c| c.mbit_s < 50.0) {
            let outcome = cell.run();
            assert_eq!(outcome.in_time, 400, "{cell:?} {outcome:?}");
        }
        let alone = Cell { dark: Dark::Cut { path: 1 }, ..Cell::new(20.0, Loss::Random { percent: 0.0 }, 30, 400) };
        assert!(alone.run().share() < 0.5, "one path that is cut is the end");
    }
}
