//! Live views on a terminal: what an engineer looks at while a test runs is there, in a wide window and in a narrow one.

use anyhow::ensure;
use std::process::Command;
use trocar_media_tests::process::trocar;
use trocar_media_tests::stack::{PATIENCE, Stack};
use trocar_media_tests::tmux::{Tmux, garbled};

const WIDE: (u16, u16) = (120, 40);
const NARROW: (u16, u16) = (60, 20);

/// A load test without an end, whose relay is known by these arguments.
fn load(stack: &Stack, known: &[&str]) -> anyhow::Result<Tmux> {
    let mut command = Command::new(trocar()?);
    command.args(["load", "run", "--invite", &stack.invitation("local")?, "--ca", &stack.text("/ca_file")?]);
    command
        .args(["--publishers", "2", "--viewers", "6", "--bitrate", "20", "--ramp", "0.5", "--duration", "600"])
        .args(known);
    Tmux::start(WIDE, &command)
}

/// The number that stands between two words, where one does.
fn figure(screen: &str, before: &str, after: &str) -> Option<f64> {
    screen.split(before).skip(1).find_map(|rest| rest.split_once(after)?.0.parse().ok())
}

/// Rate, loss, ages and CPU, as numbers; whichever are there.
fn of_load(screen: &str) -> [Option<f64>; 9] {
    [
        figure(screen, "received ", " Mbit/s"),
        figure(screen, " Mbit/s   ", " frames/s"),
        figure(screen, "lost ", " ("),
        figure(screen, " stale ", " "),
        figure(screen, "p50 ", " "),
        figure(screen, "p99 ", " "),
        figure(screen, "relay ", " % of one core"),
        figure(screen, "busiest thread ", " %"),
        figure(screen, "generator ", " % of "),
    ]
}

/// Everything is there, and every frame is closed.
fn is_whole(screen: &str, (columns, _): (u16, u16)) -> bool {
    let parts = ["6 of 6", "missing ", "foreign ", "frames late by ", "max ", "stage hold", "q ends the test"];
    let all = of_load(screen).iter().all(Option::is_some) && parts.iter().all(|p| screen.contains(p));
    all && garbled(screen, usize::from(columns)).is_empty()
}

#[test]
fn a_load_test_shows_rates_loss_ages_and_cpu_while_it_runs_on_wide_and_narrow_terminals() -> anyhow::Result<()> {
    let stack = Stack::start()?;
    let metrics = stack.text("/metrics")?;
    let tmux = load(&stack, &["--metrics", &metrics])?;
    let flows = |s: &str| of_load(s)[0].is_some_and(|rate| rate > 1.0) && of_load(s)[6].is_some_and(|cpu| cpu > 0.0);
    tmux.until(PATIENCE, |s| is_whole(s, WIDE) && flows(s) && s.matches(": highest ").count() == 3)?;
    tmux.keep("load-120x40")?;

    // The relay's own view at the same time.
    let mut top = Command::new(trocar()?);
    top.args(["top", "--metrics", &metrics]);
    let top = Tmux::start(WIDE, &top)?;
    let cpu = |s: &str| [figure(s, "\nCPU ", " %, "), figure(s, ", worker CPU ", " %, ")];
    top.until(PATIENCE, |s| cpu(s).iter().all(|c| c.is_some_and(|c| c > 0.0)) && s.contains("6 legs"))?;
    top.keep("top-120x40")?;
    top.resize(NARROW)?;
    // Heads of columns are read whole, or not there.
    let heads = ["Mbit/s legs missing keyreq  p99 ms", "out/s   shed   lost  RTT ms"];
    let parts = ["worker CPU ", "event socket", "refused ", "strangers ", "events lost ", "Feeds (2)", "Legs (6)"];
    let parts = [&parts[..], &heads].concat();
    top.until(PATIENCE, |s| parts.iter().all(|p| s.contains(p)) && garbled(s, 60).is_empty())?;
    top.keep("top-60x20")?;
    top.press(&["q"])?;
    ensure!(top.end(PATIENCE)? == 0, "{}", top.screen()?);

    tmux.resize(NARROW)?;
    tmux.until(PATIENCE, |s| is_whole(s, NARROW))?;
    tmux.keep("load-60x20")?;
    tmux.press(&["q"])?;
    ensure!(tmux.end(PATIENCE)? == 99, "{}", tmux.screen()?);

    // The control: where nobody says what the relay costs, no figure stands there.
    let blind = load(&stack, &[])?;
    let screen =
        blind.until(PATIENCE, |s| s.contains("6 of 6") && s.contains("relay not known (--metrics, --relay-pid)"))?;
    ensure!(of_load(&screen)[6].is_none() && !is_whole(&screen, WIDE), "{screen}");
    Ok(())
}
