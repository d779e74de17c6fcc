//! Viewers that come and go without end: nobody else is disturbed, and nothing is left behind.

use crate::{number, runtime, span};
use anyhow::{Context, ensure};
use serde_json::Value;
use std::process::Command;
use std::time::{Duration, Instant};
use tokio::task::{JoinSet, LocalSet};
use trocar_media_tests::netns::{Namespace, Outage};
use trocar_media_tests::process::{Process, trocar};
use trocar_media_tests::sink::Viewer;
use trocar_media_tests::stack::{PATIENCE, Stack, summary};

/// Visits that begin each second.
const PER_SECOND: u32 = 50;
/// Participants that the visitors are: the rate of requests is limited for each.
const VISITORS: usize = 8;
/// Between the packet that a visitor waits for and its leaving.
const TURN: Duration = Duration::from_millis(1_000 / PER_SECOND as u64);

/// For how many seconds.
fn seconds() -> u32 {
    span(15, 60)
}

async fn visits(stack: &Stack) -> anyhow::Result<Vec<Duration>> {
    let mut visitors = Vec::new();
    for _ in 0..VISITORS {
        visitors.push(std::rc::Rc::new(Viewer::join(&stack.text("/page")?, &stack.text("/tokens/observer")?).await?));
    }
    let mut pace = tokio::time::interval(TURN);
    let mut under_way = JoinSet::new();
    let mut took = Vec::new();
    for visitor in visitors.iter().cycle().take((PER_SECOND * seconds()) as usize) {
        pace.tick().await;
        let visitor = std::rc::Rc::clone(visitor);
        under_way.spawn_local(async move { visitor.visit("scope").await });
        while let Some(done) = under_way.try_join_next() {
            took.push(done??);
        }
    }
    while let Some(done) = under_way.join_next().await {
        took.push(done??);
    }
    Ok(took)
}

/// Whether a viewer of 30 frames a second was there for so many seconds and missed nothing.
fn undisturbed(s: &Value, seconds: u32) -> anyhow::Result<()> {
    ensure!(number(s, "/packets_missing") == 0.0 && number(s, "/frames_lost") == 0.0, "the viewer lost: {s}");
    ensure!(number(s, "/frames") > f64::from(seconds) * 28.0, "the viewer has too few frames: {s}");
    Ok(())
}

/// Whether no more legs are left than the one of a viewer that has just ended. They are closed by the time their DELETE is
/// answered.
async fn nothing_left(stack: &Stack) -> anyhow::Result<()> {
    for name in ["trocar_leg_connected", "trocar_signaling_legs"] {
        let left = stack.metric(name).await.unwrap_or(0.0);
        ensure!(left <= 1.0, "{left} of {name} are left");
    }
    Ok(())
}

#[test]
fn fifty_joins_and_leaves_a_second_cost_the_viewer_beside_them_nothing() -> anyhow::Result<()> {
    let stack = Stack::start()?;
    let _publisher = stack.publish(&["--source", "test", "--size", "320x240@30"])?;
    let mut beside = stack.watch(&["--duration", &(seconds() + 4).to_string()])?;
    let runtime = runtime();
    let began = Instant::now();
    let mut took = LocalSet::new().block_on(&runtime, visits(&stack))?;
    let spent = began.elapsed();
    let s = summary(&mut beside, Duration::from_secs(30) + PATIENCE)?;
    took.sort();
    let at = |share: f64| took.get((took.len() as f64 * share) as usize).copied().context("no visit");
    println!(
        "{} visits in {:.1} s; first packet after p50 {:?}, p99 {:?}, at most {:?}; the viewer beside them: {s}",
        took.len(),
        spent.as_secs_f64(),
        at(0.5)?,
        at(0.99)?,
        took.last()
    );
    ensure!(took.len() == (PER_SECOND * seconds()) as usize, "{} visits", took.len());
    // A machine that cannot keep the pace has not been asked what the test's name says.
    ensure!(spent < Duration::from_secs(u64::from(seconds()) + 5), "the visits took {spent:?}");
    undisturbed(&s, seconds())?;
    runtime.block_on(nothing_left(&stack))
}

#[test]
fn a_viewer_whose_line_is_cut_for_a_second_is_not_taken_for_an_undisturbed_one() -> anyhow::Result<()> {
    let space = Namespace::new()?;
    let stack = Stack::start_at(&space.host())?;
    let _publisher = stack.publish(&["--source", "test", "--size", "320x240@30"])?;
    let (link, ca) = (stack.invitation("observer")?, stack.text("/ca_file")?);
    for cut in [false, true] {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", space.name()]).arg(trocar()?);
        command.args(["watch", "--invite", &link, "--ca", &ca, "--headless", "--json", "--duration", "10"]);
        let mut viewer = Process::start("trocar watch", &mut command)?;
        viewer.line(PATIENCE, |l| l.contains("\"state\":\"live\""))?;
        if cut {
            space.cut(Outage::Silent)?;
            // As long as the line is cut.
            std::thread::sleep(Duration::from_secs(1));
            space.mend(Outage::Silent)?;
        }
        let s = summary(&mut viewer, PATIENCE)?;
        println!("cut: {cut}; {s}");
        match undisturbed(&s, 6) {
            Ok(()) => ensure!(!cut, "a cut line goes unnoticed: {s}"),
            Err(error) => ensure!(cut, "a line that nobody cut: {error}"),
        }
    }
    Ok(())
}

#[test]
fn a_leg_that_nobody_closed_is_noticed() -> anyhow::Result<()> {
    let stack = Stack::start()?;
    let _publisher = stack.publish(&["--source", "test", "--size", "320x240@30"])?;
    LocalSet::new().block_on(&runtime(), async {
        let visitor = Viewer::join(&stack.text("/page")?, &stack.text("/tokens/observer")?).await?;
        visitor.visit("scope").await?;
        nothing_left(&stack).await.context("after a visit that was ended")?;
        let stays = [visitor.fetch("scope").await?, visitor.fetch("scope").await?];
        ensure!(nothing_left(&stack).await.is_err(), "two legs that were never closed go unnoticed");
        for (_, task) in stays {
            task.abort();
        }
        Ok(())
    })
}
