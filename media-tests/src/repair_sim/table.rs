//! The tables of docs/DESIGN.md.

use super::judge::{Tally, Verdict};
use super::{Cell, Dark, LOSSES, Loss, RATES, ROUND_TRIPS_MS};
use std::fmt::Write as _;

/// A cell and what came of it.
pub type Row = (Cell, Tally, Option<Verdict>);

/// The matrix, a line for each loss and round trip, a column for each rate; then the cells of two paths in a line each.
#[must_use]
pub fn render(rows: &[Row]) -> String {
    let rates = RATES.map(|r| format!(" {r} Mbit/s |")).concat();
    let mut out = format!("| loss, RTT | target |{rates}\n| --- | --- |{}\n", " --- |".repeat(RATES.len()));
    for loss in LOSSES {
        for ms in ROUND_TRIPS_MS {
            let of = |rate: f64| {
                let is = |c: &Cell| {
                    c.second_path_us.is_none()
                        && c.loss == loss
                        && c.round_trip_us == ms * 1_000
                        && c.mbit_s.total_cmp(&rate).is_eq()
                };
                rows.iter().find(|(c, ..)| is(c))
            };
            let target = RATES.into_iter().find_map(|r| of(r)?.0.target());
            let target = target.map_or_else(|| "–".to_owned(), |t| format!("{} %", percent(t)));
            let cells = RATES.map(|r| format!(" {} |", of(r).map_or_else(|| "not run".to_owned(), said))).concat();
            let _ = writeln!(out, "| {}, {ms} ms | {target} |{cells}", of_loss(loss));
        }
    }
    out.push('\n');
    for row in rows.iter().filter(|(c, ..)| c.second_path_us.is_some()) {
        let (rate, loss) = (row.0.mbit_s, of_loss(row.0.loss));
        let _ = writeln!(out, "- {rate} Mbit/s, {loss} on the first path; paths: {}: {}", of_paths(&row.0), said(row));
    }
    out
}

/// How a loss is called.
#[must_use]
pub fn of_loss(loss: Loss) -> String {
    match loss {
        Loss::Random { percent } => format!("{percent} %"),
        Loss::Dark { ms } => format!("dark {ms} ms"),
    }
}

/// How the paths of a cell are called.
#[must_use]
pub fn of_paths(cell: &Cell) -> String {
    match (cell.second_path_us, cell.dark, cell.both_hops) {
        (None, _, false) => "1".to_owned(),
        (None, _, true) => "1, both hops bad".to_owned(),
        (Some(us), Dark::Never, _) => format!("2, skew {} ms", us / 1_000),
        (Some(us), Dark::Cut { path }, _) => format!("2, skew {} ms, cut {path}", us / 1_000),
    }
}

/// Redundancy is told from 1 % on.
fn said((cell, t, verdict): &Row) -> String {
    let mut text = format!("{} of {}, ≥ {} %", t.lost(), t.frames, percent(t.at_least()));
    let share = 100.0 * t.repairs as f64 / cell.sources(t.frames);
    if share >= 1.0 {
        let _ = write!(text, "; {share:.0} %");
    }
    match verdict {
        None | Some(Verdict::Met) => {}
        Some(other) => text += &format!(" **{}**", other.name()),
    }
    text
}

/// Never rounded up.
fn percent(share: f64) -> String {
    let text = format!("{:.3}", (share * 1e5 + 1e-7).floor() / 1e3);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tables_say_what_was_lost_the_bound_and_what_it_cost_and_a_missed_target() {
        let cell = Cell::new(20.0, Loss::Random { percent: 5.0 }, 30, 1);
        let tally = Tally { frames: 1_000, in_time: 999, repairs: 6_080, ..Tally::default() };
        let two = Cell { second_path_us: Some(50_000), dark: Dark::Cut { path: 1 }, ..cell };
        let whole = Tally { frames: 400, in_time: 400, ..Tally::default() };
        let text = render(&[(cell, tally, Some(Verdict::Undecided)), (two, whole, Some(Verdict::Met))]);
        let line = text.lines().find(|l| l.starts_with("| 5 %, 30 ms")).unwrap();
        assert_eq!(
            line,
            "| 5 %, 30 ms | 99.9 % | 1 of 1000, ≥ 99.444 %; 16 % **UNDECIDED** | not run | not run | not run |"
        );
        assert!(
            text.ends_with("- 20 Mbit/s, 5 % on the first path; paths: 2, skew 50 ms, cut 1: 0 of 400, ≥ 99.082 %\n"),
            "{text}"
        );
        assert_eq!([0.999_999_9, 0.999_9, 1.0, 0.999].map(percent), ["99.999", "99.99", "100", "99.9"]);
    }
}
