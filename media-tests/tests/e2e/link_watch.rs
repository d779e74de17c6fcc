//! `trocar link test` as somebody sees it who sits before it: on a terminal, and with `--watch`, which rings when the line becomes another
//! one, and only then.

use crate::link::{class, serve};
use anyhow::ensure;
use std::process::Command;
use std::sync::atomic::Ordering;
use std::time::Duration;
use trocar_media_tests::line::Line;
use trocar_media_tests::process::{Process, trocar};
use trocar_media_tests::stack::{PATIENCE, path};
use trocar_media_tests::tmux::Tmux;

/// A run is made and judged within that.
const RUN: Duration = Duration::from_secs(60);

#[test]
fn a_line_that_gets_worse_rings_and_one_that_does_not_is_unchanged() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let classes = class(dir.path(), "loss_up_percent = { max = 10")?;
    let (_serve, at) = serve()?;
    let line = Line::to(at.parse()?)?;
    let to = line.address.to_string();
    // Longer than a run takes, so that the line changes between two of them.
    let fixed = ["link", "test", &to, "-t", "1", "--max-rate", "1M", "--watch", "10", "--runs", "3"];
    let more = ["--profile", "ours", "--classes", path(&classes)?];
    let mut watch = Process::trocar("trocar link test --watch", &[&fixed[..], &more].concat())?;
    let mut said =
        |wanted: &str| watch.line(RUN, |l| l.contains("changed: ") || l.contains("CHANGED") || l.starts_with(wanted));
    ensure!(said("FIT for Ours")?.starts_with("FIT for Ours"));
    // The control: the same line again.
    ensure!(said("-")? == "unchanged: FIT");
    line.switches().loss.store(400_000, Ordering::Relaxed);
    let change = said("-")?;
    ensure!(change == "\x07CHANGED: FIT -> NOT FIT", "{change:?}");
    ensure!(watch.wait(PATIENCE)?.code() == Some(99), "{}", watch.stderr());
    Ok(())
}

#[test]
fn on_a_terminal_what_runs_is_written_over_and_what_was_found_stays() -> anyhow::Result<()> {
    let (_serve, at) = serve()?;
    let mut command = Command::new(trocar()?);
    command.args(["link", "test", &at, "-t", "1", "--profile", "consultation", "--max-rate", "8M"]);
    let tmux = Tmux::start((100, 60), &command)?;
    let runs = "2 s, 100 packets/s each way";
    let screen = tmux.until(RUN, |s| s.contains(runs))?;
    ensure!(screen.contains("] clock    theirs is"), "{screen}");
    ensure!(screen.trim_end().lines().last().is_some_and(|l| l.contains(runs)), "what runs is the last line: {screen}");
    let code = tmux.end(RUN)?;
    let screen = tmux.until(PATIENCE, |s| s.contains("\nFor a ticket:\n"))?;
    tmux.keep("link-test")?;
    ensure!([0, 99].contains(&code) && screen.contains("FIT"), "{code}: {screen}");
    // Of what ran nothing is left, and each line of what was found fits into its row.
    ensure!(!screen.contains(runs), "{screen}");
    let found = screen.lines().filter(|l| l.starts_with('[')).count();
    ensure!(
        found > 12 && screen.contains("up   carries at least") && screen.contains("frames damaged"),
        "{found}: {screen}"
    );
    // The control: into a pipe each look is a line.
    let out = String::from_utf8(command.output()?.stdout)?;
    ensure!(out.contains(runs) && !out.contains(['\r', '\x1b']), "{out}");
    Ok(())
}
