//! `make attack`: every case of the catalogue of bad input against the real processes, as a table: case, expected, seen.
//! `trocar-attack [bi_31 bi_4 …]`: those whose names begin so. Exit code 1 where one is not as it should be.

use anyhow::ensure;
use trocar_media_tests::attack::{Case, Verdict, play, table, victim};

fn main() -> anyhow::Result<()> {
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    if wanted.iter().any(|w| w == "--victim") {
        return victim::run();
    }
    let there = table::tests_of_the_workspace()?;
    let missing = table::missing_tests(table::ALL.iter().flat_map(|c| c.tests).copied(), &there);
    ensure!(missing.is_empty(), "tests that do not exist: {}", missing.join(", "));
    println!("| case | expected | verdict | seen |\n| --- | --- | --- | --- |");
    let is_wanted = |c: &Case| wanted.is_empty() || wanted.iter().any(|w| c.name.starts_with(w.as_str()));
    let mut rows = Vec::new();
    // A stack of their own for each kind of case: what one leaves behind is not the next one's.
    for (from, to) in [(1, 11), (12, 19), (20, 30), (31, 39), (40, 46), (47, 63)] {
        let cases: Vec<&Case> = table::ALL.iter().filter(|c| (from..=to).contains(&c.number) && is_wanted(c)).collect();
        rows.extend(play(&cases)?);
    }
    println!("\nload average {}", std::fs::read_to_string("/proc/loadavg")?.trim());
    let of = |v: Verdict| rows.iter().filter(|r| r.verdict == v).count();
    let (held, elsewhere, absent) = (of(Verdict::Held), of(Verdict::Elsewhere), of(Verdict::Absent));
    println!("{held} held, {elsewhere} by tests elsewhere, {absent} do not apply, {} failed", of(Verdict::Failed));
    ensure!(of(Verdict::Failed) == 0, "not all are as they should be");
    Ok(())
}
