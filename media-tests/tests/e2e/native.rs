//! Native publishers and viewers over RoQ: every frame that was sent comes, bit for bit.

use crate::{number, runtime, span};
use anyhow::{Context, ensure};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};
use trocar_media_tests::browser::Browser;
use trocar_media_tests::process::Process;
use trocar_media_tests::stack::{PATIENCE, Stack, path, scope_fixture, summary};

/// How long the 4K fixture is replayed, in seconds.
fn replayed() -> u64 {
    span(15, 60)
}

pub(crate) fn ledger(file: &Path) -> anyhow::Result<BTreeMap<u64, String>> {
    let text = std::fs::read_to_string(file)?;
    text.lines()
        .map(|l| {
            let v: Value = serde_json::from_str(l)?;
            let frame = v["frame"].as_u64().context("frame")?;
            Ok((frame, v["sha256"].as_str().context("sha256")?.to_owned()))
        })
        .collect()
}

/// Every frame from the first to the last that came is in `sent` with the same checksum, and none is missing between.
pub(crate) fn same_frames(sent: &BTreeMap<u64, String>, came: &BTreeMap<u64, String>) -> anyhow::Result<()> {
    let (first, last) = came.keys().next().zip(came.keys().last()).context("no frame came")?;
    ensure!(last - first + 1 == came.len() as u64, "{} frames from {first} to {last}", came.len());
    for (frame, sum) in came {
        ensure!(sent.get(frame) == Some(sum), "frame {frame} is not the one that was sent");
    }
    Ok(())
}

struct Replay {
    stack: Stack,
    publisher: Process,
}

impl Replay {
    fn start() -> anyhow::Result<Self> {
        let stack = Stack::start()?;
        let source = format!("file:{}", path(&scope_fixture()?)?);
        let sent = stack.dir.path().join("sent.jsonl");
        let publisher = stack.publish(&["--source", &source, "--loop", "--passthrough", "--ledger", path(&sent)?])?;
        Ok(Self { stack, publisher })
    }

    fn viewers(&self, count: usize, seconds: u64) -> anyhow::Result<Vec<Process>> {
        let seconds = seconds.to_string();
        (0..count)
            .map(|i| {
                let came = self.stack.dir.path().join(format!("came{i}.jsonl"));
                self.stack.watch(&["--duration", &seconds, "--ledger", path(&came)?])
            })
            .collect()
    }

    /// Waits for the viewers' ends and compares each with what was sent.
    fn check(mut self, mut viewers: Vec<Process>, seconds: u64) -> anyhow::Result<()> {
        let mut summaries = Vec::new();
        for v in &mut viewers {
            summaries.push(summary(v, Duration::from_secs(seconds) + PATIENCE)?);
            ensure!(v.wait(PATIENCE)?.success(), "a viewer failed: {}", v.stderr());
        }
        let relay_lost = runtime().block_on(async {
            let mut lost = 0.0;
            for name in ["trocar_feed_missing_packets", "trocar_feed_refused_packets_total"] {
                lost += self.stack.metric(name).await?;
            }
            Ok::<_, anyhow::Error>(lost)
        })?;
        self.publisher.stop()?;
        let sent = ledger(&self.stack.dir.path().join("sent.jsonl"))?;
        for (i, s) in summaries.iter().enumerate() {
            println!("{s}");
            ensure!(number(s, "/packets_missing") == 0.0 && number(s, "/frames_lost") == 0.0, "viewer {i} lost: {s}");
            // The first key frame is at most one second away, and the connection takes its time.
            ensure!(number(s, "/frames") >= (seconds as f64 - 3.0) * 59.0, "viewer {i} has too few frames: {s}");
            ensure!(number(s, "/packets") / number(s, "/frames") > 80.0, "that is not 50 Mbit/s: {s}");
            same_frames(&sent, &ledger(&self.stack.dir.path().join(format!("came{i}.jsonl")))?)?;
        }
        ensure!(relay_lost == 0.0, "the relay missed or refused {relay_lost} packets");
        Ok(())
    }
}

#[test]
fn one_viewer_gets_every_4k_frame() -> anyhow::Result<()> {
    let replay = Replay::start()?;
    let viewers = replay.viewers(1, replayed())?;
    replay.check(viewers, replayed())
}

#[test]
fn four_viewers_get_every_4k_frame_while_a_browser_comes_and_goes() -> anyhow::Result<()> {
    let replay = Replay::start()?;
    let mut browser = Browser::start()?;
    let link = replay.stack.invitation("expert")?;
    let (viewers, joins) = (replay.viewers(4, replayed())?, span(4, 10));
    let began = Instant::now();
    for i in 0..joins {
        let page = format!("guest{i}");
        browser.join(&page, &link, &format!("Guest+{i}"))?;
        browser.wait(&page, ".tile[data-state=live]", PATIENCE)?;
        if i == 0 {
            browser.screenshot(&page, "page-4k.png")?;
        }
        browser.call("close", &page, json!({}))?;
    }
    println!("{joins} joins took {:.1} s", began.elapsed().as_secs_f64());
    ensure!(began.elapsed().as_secs() < replayed(), "the browser's joins did not fit into the replay");
    replay.check(viewers, replayed())
}

#[test]
fn four_viewers_get_every_4k_frame() -> anyhow::Result<()> {
    let replay = Replay::start()?;
    let viewers = replay.viewers(4, replayed())?;
    replay.check(viewers, replayed())
}

#[test]
fn the_comparison_finds_a_changed_a_missing_and_a_foreign_frame() {
    let sent: BTreeMap<u64, String> = (0..100).map(|i| (i, format!("sum{i}"))).collect();
    let came = |f: &dyn Fn(&mut BTreeMap<u64, String>)| {
        let mut c: BTreeMap<u64, String> = sent.range(10..50).map(|(k, v)| (*k, v.clone())).collect();
        f(&mut c);
        c
    };
    assert!(same_frames(&sent, &came(&|_| {})).is_ok());
    assert!(same_frames(&sent, &came(&|c| drop(c.remove(&20)))).is_err());
    assert!(same_frames(&sent, &came(&|c| drop(c.insert(20, "other".to_owned())))).is_err());
    assert!(same_frames(&sent, &came(&|c| drop(c.insert(100, "sum100".to_owned())))).is_err());
    assert!(same_frames(&sent, &BTreeMap::new()).is_err());
}

#[test]
fn without_a_publisher_a_native_viewer_has_no_frame_and_says_so() -> anyhow::Result<()> {
    let stack = Stack::start()?;
    let mut viewer = stack.watch(&["--duration", "2"])?;
    let s = summary(&mut viewer, PATIENCE)?;
    ensure!(number(&s, "/frames") == 0.0 && s["state"] == "waiting", "{s}");
    Ok(())
}

#[test]
fn a_native_joiner_has_a_frame_within_300_ms_on_a_live_source() -> anyhow::Result<()> {
    let stack = Stack::start()?;
    let _publisher = stack.publish(&["--source", "test:1280x720@30"])?;
    let mut times = Vec::new();
    for _ in 0..5 {
        let mut viewer = stack.watch(&["--frames", "30"])?;
        let s = summary(&mut viewer, PATIENCE)?;
        times.push(number(&s, "/first_frame_ms"));
        ensure!(number(&s, "/age_ms/p50") > 0.0 && number(&s, "/age_ms/p50") < 200.0, "{s}");
        ensure!(number(&s, "/age_unknown_frames") == 0.0, "{s}");
    }
    println!("connection to first frame: {times:?} ms");
    ensure!(crate::median(times.clone()) <= 300.0, "{times:?}");
    Ok(())
}

#[test]
fn a_viewer_survives_a_publisher_that_goes_and_comes_back() -> anyhow::Result<()> {
    let stack = Stack::start()?;
    let mut first = stack.publish(&["--source", "test:640x360@30"])?;
    let mut viewer = stack.watch(&[])?;
    viewer.line(PATIENCE, |l| l.contains("\"state\":\"live\""))?;
    first.stop()?;
    viewer.line(PATIENCE, |l| l.contains("\"type\":\"gap\""))?;
    let _second = stack.publish(&["--source", "test:640x360@30"])?;
    viewer.line(PATIENCE, |l| l.contains("\"state\":\"live\""))?;
    viewer.stop()
}

#[test]
fn several_feeds_of_one_session_are_carried_side_by_side() -> anyhow::Result<()> {
    let stack = Stack::start()?;
    let _scope = stack.publish(&["--source", "test:640x360@30", "--feed", "scope"])?;
    let _room = stack.publish(&["--source", "test:320x180@15", "--feed", "room", "--purpose", "room"])?;
    for (feed, frames_per_s) in [("scope", 30.0), ("room", 15.0)] {
        let mut viewer = stack.watch(&["--feed", feed, "--duration", "4"])?;
        let s = summary(&mut viewer, PATIENCE)?;
        let rate = number(&s, "/frames") / 4.0;
        ensure!((rate / frames_per_s - 1.0).abs() < 0.25, "{feed}: {s}");
    }
    Ok(())
}
