//! Which cells are measured, in which order, and what is asked of them.

use super::cell::{Cell, Ingress, Leg, Outcome, Relay, Times};
use super::figures::median;
use super::schedule::{Pattern, Schedule};
use super::words::Reading;
use std::time::Duration;

/// Measured several times, one after the other and then all over again, so that what else the machine does meets all alike.
#[derive(Debug, Clone)]
pub struct Group {
    /// One after the other.
    pub cells: Vec<Cell>,
    /// So many times.
    pub repeats: usize,
}

/// How long each cell runs.
///
/// What is measured is a stream that goes on: until a viewer's second report the relay knows no round trip, and sends a frame's packets no
/// faster than twice the rate (`proto::media::rate`).
pub const TIMES: Times = Times { warm_up: Duration::from_millis(2_800), measure: Duration::from_secs(6) };

/// Trocar, fed by QUIC, WebRTC viewers with plain sockets, 60 bursts a second.
const fn cell(viewers: usize, mbit: u64) -> Cell {
    Cell {
        relay: Relay::Trocar,
        viewers,
        schedule: Schedule { bits: mbit * 1_000_000, pattern: Pattern::Bursts },
        ingress: Ingress::Roq,
        leg: Leg::Webrtc,
        reading: Reading::Plain,
    }
}

const fn by(relay: Relay, cell: Cell) -> Cell {
    Cell { relay, ..cell }
}

const fn gro(cell: Cell) -> Cell {
    Cell { reading: Reading::Gro, ..cell }
}

const fn paced(cell: Cell) -> Cell {
    Cell { schedule: Schedule { pattern: Pattern::Paced, bits: cell.schedule.bits }, ..cell }
}

const fn by_srtp(cell: Cell) -> Cell {
    Cell { ingress: Ingress::Srtp, ..cell }
}

const fn fetched(leg: Leg, cell: Cell) -> Cell {
    Cell { leg, ..cell }
}

/// All that is measured.
#[must_use]
pub fn groups() -> Vec<Group> {
    let sixteen = cell(16, 50);
    let four = cell(4, 50);
    let group = |repeats, cells: &[Cell]| Group { cells: cells.to_vec(), repeats };
    vec![
        group(3, &[sixteen, by_srtp(sixteen), by(Relay::Sealed, sixteen), by(Relay::Str0m, sixteen)]),
        group(3, &[gro(sixteen), by(Relay::Sealed, gro(sixteen)), by(Relay::Str0m, gro(sixteen))]),
        group(3, &[four, by_srtp(four), by(Relay::Sealed, four)]),
        group(3, &[cell(16, 20), cell(64, 20)]),
        group(
            1,
            &[
                by(Relay::Clear, sixteen),
                cell(1, 50),
                fetched(Leg::WebrtcCm, sixteen),
                paced(sixteen),
                by(Relay::Sealed, paced(sixteen)),
                fetched(Leg::Roq, four),
                fetched(Leg::RoqStreams, four),
                cell(1, 400),
                cell(4, 400),
                by(Relay::Sealed, cell(4, 400)),
            ],
        ),
    ]
}

/// Cells of the full grid that are not measured, and why.
pub const NOT_RUN: &[(&str, &str)] = &[
    ("1→64 at 50 Mbit/s, 1→16 and 1→64 at 400 Mbit/s", "more than 2 Gbit/s out: generator and viewers share one core"),
    ("1→1 and 1→4 at 20 Mbit/s", "between cells that are measured"),
    ("AES-CM, RoQ and paced at other numbers of viewers, with GRO sinks", "a dozen cells are enough for eight minutes"),
];

/// A cell and every time that it was measured.
#[derive(Debug, Clone)]
pub struct Row {
    /// What was measured.
    pub cell: Cell,
    /// What came of it, in the order of the repeats.
    pub outcomes: Vec<Outcome>,
}

impl Row {
    /// Median over the repeats.
    #[must_use]
    pub fn median(&self, of: impl Fn(&Outcome) -> f64) -> f64 {
        median(&self.outcomes.iter().map(of).collect::<Vec<_>>())
    }

    /// Smallest and largest over the repeats.
    #[must_use]
    pub fn spread(&self, of: impl Fn(&Outcome) -> f64) -> (f64, f64) {
        let all = self.outcomes.iter().map(of);
        all.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v)))
    }
}

/// One target.
#[derive(Debug, Clone)]
pub struct Target {
    /// What it says.
    pub what: &'static str,
    /// The bound, and whether a value may be above it.
    pub bound: (f64, Side),
    /// What was measured each time; empty where a cell is missing.
    pub values: Vec<f64>,
}

/// On which side of the bound a value is right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// At most the bound.
    AtMost,
    /// At least the bound.
    AtLeast,
}

impl Target {
    /// Whether the median keeps the bound; a target without a value does not.
    #[must_use]
    pub fn is_met(&self) -> bool {
        let value = median(&self.values);
        match self.bound {
            (bound, Side::AtMost) => value <= bound,
            (bound, Side::AtLeast) => value >= bound,
        }
    }
}

/// The targets, from what was measured. Ratios are made of runs that followed each other.
#[must_use]
pub fn targets(rows: &[Row]) -> Vec<Target> {
    let outcomes = |cell: Cell| rows.iter().find(|r| r.cell == cell).map_or(&[] as &[Outcome], |r| &r.outcomes);
    let ratios = |above: Cell, below: Cell, of: fn(&Outcome) -> f64| {
        outcomes(above).iter().zip(outcomes(below)).map(|(a, b)| of(a) / of(b)).collect::<Vec<_>>()
    };
    let cpu = |o: &Outcome| o.ns_per_packet;
    let p99 = |o: &Outcome| f64::from(o.measured.p99_us);
    let (sixteen, four) = (cell(16, 50), cell(4, 50));
    let memory = outcomes(cell(64, 20)).iter().filter_map(|o| o.memory_per_viewer).map(|b| b / 1_024.0).collect();
    vec![
        Target {
            what: "CPU per packet, SRTP 1→16 at 50 Mbit/s, over the sealed floor's",
            bound: (1.3, Side::AtMost),
            values: ratios(sixteen, by(Relay::Sealed, sixteen), cpu),
        },
        Target {
            what: "the same, fed by SRTP",
            bound: (1.3, Side::AtMost),
            values: ratios(by_srtp(sixteen), by(Relay::Sealed, sixteen), cpu),
        },
        Target {
            what: "CPU per packet of plain str0m over ours, 1→16 at 50 Mbit/s, plain sinks",
            bound: (2.2, Side::AtLeast),
            values: ratios(by(Relay::Str0m, sixteen), sixteen, cpu),
        },
        Target {
            what: "CPU per packet of plain str0m over ours, 1→16 at 50 Mbit/s, GRO sinks",
            bound: (4.0, Side::AtLeast),
            values: ratios(by(Relay::Str0m, gro(sixteen)), gro(sixteen), cpu),
        },
        Target {
            what: "delay p99, SRTP 1→4 at 50 Mbit/s, over the sealed floor's; with the generator's own QUIC",
            bound: (1.5, Side::AtMost),
            values: ratios(four, by(Relay::Sealed, four), p99),
        },
        Target {
            what: "the same, fed by SRTP",
            bound: (1.5, Side::AtMost),
            values: ratios(by_srtp(four), by(Relay::Sealed, four), p99),
        },
        Target {
            what: "CPU per packet, 64 viewers over 16, at 20 Mbit/s",
            bound: (1.15, Side::AtMost),
            values: ratios(cell(64, 20), cell(16, 20), cpu),
        },
        Target { what: "memory per viewer, KiB", bound: (256.0, Side::AtMost), values: memory },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_cell_asks_for_more_than_two_gigabits_and_every_target_has_its_cells() {
        let all: Vec<Cell> = groups().into_iter().flat_map(|g| g.cells).collect();
        for c in &all {
            assert!(c.viewers as u64 * c.schedule.bits <= 2_000_000_000, "{c:?}");
        }
        let row = |cell: &Cell| Row {
            cell: *cell,
            outcomes: vec![Outcome { ns_per_packet: 1.0, memory_per_viewer: Some(1.0), ..Outcome::default() }],
        };
        let rows: Vec<Row> = all.iter().map(row).collect();
        assert!(targets(&rows).iter().all(|t| t.values.len() == 1));
    }

    #[test]
    fn a_target_without_a_value_is_missed() {
        assert!(targets(&[]).iter().all(|t| !t.is_met()));
        let target = |bound, values: &[f64]| Target { what: "", bound, values: values.to_vec() };
        assert!(target((1.3, Side::AtMost), &[1.2, 1.3, 9.0]).is_met());
        assert!(!target((1.3, Side::AtMost), &[1.31]).is_met());
        assert!(target((4.0, Side::AtLeast), &[4.0]).is_met() && !target((4.0, Side::AtLeast), &[3.9]).is_met());
    }
}
