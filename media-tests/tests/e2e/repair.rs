//! Deadline repair of native lines with real processes: what the lines between publisher, relay and viewer lose is asked for or
//! restored in time, and a line that loses much costs frames, never the picture.

use crate::native::{ledger, same_frames};
use crate::number;
use crate::paths::Way;
use anyhow::ensure;
use std::time::Duration;
use trocar_media_tests::repair_sim::{Loss, real};
use trocar_media_tests::stack::{PATIENCE, Stack, path, scope_fixture, summary};

/// How long is watched, in seconds.
const SECONDS: u64 = 15;
/// Frames of the feed in a second.
const FRAMES_PER_S: f64 = 60.0;

/// What a viewer saw.
struct Seen {
    frames: f64,
    /// Lost, or skipped without a trace.
    missed: f64,
    /// Whether all between the first and the last one are there as they were sent.
    same: anyhow::Result<()>,
}

/// 50 Mbit/s through one line to the relay and one to the viewer.
fn journey(up: &[&'static str], down: &[&'static str]) -> anyhow::Result<Seen> {
    let stack = Stack::start()?;
    let relay = stack.text("/relay/quic")?;
    let (up, down) = (Way::open(&relay, up)?, Way::open(&relay, down)?);
    let (sent, came) = (stack.dir.path().join("sent.jsonl"), stack.dir.path().join("came.jsonl"));
    let source = format!("file:{}", path(&scope_fixture()?)?);
    let fixed = ["--source", &source, "--loop", "--passthrough", "--ledger", path(&sent)?, "--path", &up.option()];
    let mut publisher = stack.publish(&fixed)?;
    let seconds = SECONDS.to_string();
    let fixed = ["--duration", &seconds, "--ledger", path(&came)?, "--path", &down.option()];
    let mut viewer = stack.watch(&fixed)?;
    let s = summary(&mut viewer, Duration::from_secs(60))?;
    ensure!(viewer.wait(PATIENCE)?.success(), "{}", viewer.stderr());
    publisher.stop()?;
    println!("{s}");
    ensure!(number(&s, "/packets") / number(&s, "/frames") > 80.0, "that is not 50 Mbit/s: {s}");
    let missed = number(&s, "/frames_lost") + number(&s, "/frames_skipped");
    Ok(Seen { frames: number(&s, "/frames"), missed, same: same_frames(&ledger(&sent)?, &ledger(&came)?) })
}

/// Frames that a viewer sees that joins at once, less what the first seconds cost until the line is known.
const EXPECTED: f64 = (SECONDS - 4) as f64 * FRAMES_PER_S;

#[test]
fn one_percent_lost_and_thirty_milliseconds_of_round_trip_cost_no_frame() {
    let bad = ["--loss", "1%", "--delay", "15ms"];
    let seen = journey(&bad, &[]).unwrap();
    assert!(seen.frames >= EXPECTED, "{} frames", seen.frames);
    assert!(seen.missed <= 1.0, "{} missed", seen.missed);
    if seen.missed == 0.0 {
        seen.same.unwrap();
    }
}

#[test]
fn five_percent_lost_on_both_hops_never_ends_the_picture() {
    let bad = ["--loss", "5%", "--delay", "7ms"];
    let seen = journey(&bad, &bad).unwrap();
    assert!(seen.frames >= 0.9 * EXPECTED, "{} frames of {EXPECTED}", seen.frames);
}

/// `trocar-repair-sim --real` runs more cells, for longer.
#[test]
fn a_real_cell_comes_out_as_its_simulation_and_not_as_that_of_another_line() {
    let (pictures, loss) = (real::Pictures::Line, Loss::Dark { ms: 300.0 });
    let cell = pictures.cell(loss, 30, 3_000);
    let seen = real::run(pictures, &cell, 150).unwrap();
    let simulated = cell.run();
    println!("{seen:?}, simulated {} of {}", simulated.in_time, simulated.frames);
    assert!(seen.whole + seen.late >= 150 && seen.agrees(&simulated), "{seen:?} {simulated:?}");
    let other = pictures.cell(Loss::Random { percent: 1.0 }, 30, 3_000).run();
    assert!(!seen.agrees(&other), "the control: {seen:?} {other:?}");
}

#[test]
fn what_is_dark_for_longer_than_the_budget_is_not_repaired() {
    let dark = ["--blackout", "9s+400ms"];
    let seen = journey(&dark, &[]).unwrap();
    assert!(seen.missed > 0.0 && seen.same.is_err(), "the negative control: {} missed", seen.missed);
}
