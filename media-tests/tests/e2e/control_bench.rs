//! The way of a command, timed as `make bench-control` does it, short and without load: beside plain UDP in the same run.

use anyhow::ensure;
use trocar_media_tests::bench_control::{Plan, render, run};

/// How many times longer than plain UDP the middle command may take. Plain UDP wakes three threads on its way; a command wakes six (the
/// station's QUIC, the relay, the gate's QUIC, the gate's core, the device, and timers beside them) and is enciphered or deciphered eight
/// times. Measured: 5 (docs/CONTROL.md).
const RATIO: f64 = 20.0;
/// And what it may take at all: half of the gate's tick of 5 ms. Something that waits for a tick on the way is seen even where plain UDP is
/// slow.
const MIDDLE_US: u64 = 2_500;

/// Commands at 1 kHz: none is lost, none waits.
#[test]
fn two_thousand_commands_arrive_and_take_about_as_long_as_plain_udp_does() -> anyhow::Result<()> {
    let plan = Plan { commands: 2_000, feeds: 0, delay_us: None };
    let outcome = run(&plan)?;
    println!("{}", render(&plan, &outcome)?);
    ensure!(outcome.sent >= 2_000 && outcome.commands.trials.believable(), "{outcome:?}");
    ensure!(outcome.lost == outcome.lost_in_stalls, "{} of {} are lost", outcome.lost, outcome.sent);
    let middle = outcome.commands.permille(500).unwrap_or(u64::MAX);
    ensure!(middle <= MIDDLE_US, "the middle one took {middle} µs");
    ensure!(outcome.ratio(500) <= RATIO, "{:.1} times as long as plain UDP", outcome.ratio(500));
    Ok(())
}

/// The control: the same measurement sees 20 ms that a line adds, in commands and not in plain datagrams.
#[test]
fn a_line_that_is_20_ms_long_is_seen_by_the_same_measurement() -> anyhow::Result<()> {
    let plan = Plan { commands: 500, feeds: 0, delay_us: Some(20_000) };
    let outcome = run(&plan)?;
    let middle = outcome.commands.permille(500).unwrap_or(0);
    ensure!((20_000..60_000).contains(&middle), "the middle one took {middle} µs");
    ensure!(outcome.commands.permille(0).is_some_and(|us| us >= 20_000), "one was faster than the line");
    ensure!(outcome.ratio(500) > RATIO, "{:.1}", outcome.ratio(500));
    Ok(())
}
