//! Signaling and relays apart: pictures cross from one relay to another bit for bit, and go on when signaling dies.

use crate::native::{ledger, same_frames};
use crate::{number, runtime};
use anyhow::{Context as _, ensure};
use serde_json::Value;
use std::time::{Duration, Instant};
use trocar_media_tests::cluster::Cluster;
use trocar_media_tests::http_client;
use trocar_media_tests::process::Process;
use trocar_media_tests::stack::{PATIENCE, Stack, path, summary};

const PICTURE: [&str; 2] = ["--source", "test:1280x720@30"];

/// The lines of `/metrics` with that name and label.
pub(crate) async fn figure(stack: &Stack, name: &str, label: &str) -> anyhow::Result<Option<f64>> {
    let text = http_client()?.get(stack.text("/metrics")?).send().await?.error_for_status()?.text().await?;
    let line = text.lines().find(|l| l.starts_with(name) && l.contains(label));
    line.map(|l| l.rsplit(' ').next().unwrap_or_default().parse().context(l.to_owned())).transpose()
}

/// Waits until a figure has a value; how long that took.
pub(crate) fn until(stack: &Stack, name: &str, label: &str, wanted: f64) -> anyhow::Result<Duration> {
    let began = Instant::now();
    runtime().block_on(async {
        loop {
            let value = figure(stack, name, label).await?;
            if value == Some(wanted) {
                return Ok(began.elapsed());
            }
            ensure!(began.elapsed() < PATIENCE, "{name} with {label} is {value:?}, not {wanted}");
            // A page of figures has no event that could be waited for.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
}

pub(crate) fn publish(cluster: &Cluster, more: &[&str]) -> anyhow::Result<Process> {
    let all: Vec<&str> = PICTURE.iter().chain(more).copied().collect();
    cluster.stack.publish(&all)
}

#[test]
fn viewers_at_another_relay_get_every_frame_bit_for_bit_by_roq_and_by_webrtc() -> anyhow::Result<()> {
    let cluster = Cluster::start(&[("a", &["feeds"]), ("b", &["legs"])])?;
    let at = |name: &str| cluster.stack.dir.path().join(name);
    let (sent, native, webrtc) = (at("sent.jsonl"), at("native.jsonl"), at("webrtc.jsonl"));
    let mut publisher = publish(&cluster, &["--ledger", path(&sent)?])?;
    let mut viewers = [
        cluster.stack.watch(&["--duration", "10", "--ledger", path(&native)?])?,
        cluster.stack.watch(&["--duration", "10", "--transport", "webrtc", "--ledger", path(&webrtc)?])?,
    ];
    until(&cluster.stack, "trocar_leg_connected", "relay=\"b\"", 1.0)?;
    // One copy between the two, whoever views.
    let text = runtime().block_on(async {
        Ok::<_, anyhow::Error>(http_client()?.get(cluster.stack.text("/metrics")?).send().await?.text().await?)
    })?;
    let at_a = text.lines().filter(|l| l.starts_with("trocar_leg_connected{") && l.contains("relay=\"a\"")).count();
    ensure!(at_a == 1, "{at_a} legs at relay a:\n{text}");
    let mut summaries = Vec::new();
    for v in &mut viewers {
        summaries.push(summary(v, PATIENCE)?);
        v.wait(PATIENCE)?;
    }
    publisher.stop()?;
    for s in &summaries {
        println!("{s}");
        ensure!(number(s, "/packets_missing") == 0.0 && number(s, "/frames_lost") == 0.0, "{s}");
        ensure!(number(s, "/frames") > 8.0 * 29.0, "{s}");
    }
    let (sent, came) = (ledger(&sent)?, ledger(&native)?);
    same_frames(&sent, &came)?;
    let (first, last) = came.keys().next().zip(came.keys().last()).context("no frame")?;
    let sums = sums(&webrtc)?;
    let all: Vec<&String> = sent.values().collect();
    let began = all.iter().position(|s| Some(*s) == sums.first()).context("WebRTC: the first frame was never sent")?;
    ensure!(began + sums.len() <= all.len(), "{began} + {} of {}", sums.len(), all.len());
    let differs = sums.iter().zip(all.iter().skip(began)).position(|(came, sent)| came != *sent);
    ensure!(differs.is_none(), "WebRTC: frame {differs:?} of {} is not what was sent {began} frames in", sums.len());
    // The control: one frame that is another is noticed.
    let mut other = came.clone();
    other.insert((first + last) / 2, "other".to_owned());
    ensure!(same_frames(&sent, &other).is_err(), "a changed frame goes unnoticed");
    Ok(())
}

/// Checksums of a ledger, in order.
fn sums(file: &std::path::Path) -> anyhow::Result<Vec<String>> {
    let text = std::fs::read_to_string(file)?;
    let sum = |l: &str| {
        let line: Value = serde_json::from_str(l)?;
        Ok(line["sha256"].as_str().context("sha256")?.to_owned())
    };
    text.lines().map(sum).collect()
}

#[test]
fn when_signaling_is_killed_and_started_again_running_pictures_do_not_miss_a_frame_and_people_come_back()
-> anyhow::Result<()> {
    let mut cluster = Cluster::start(&[("a", &["feeds"]), ("b", &["legs"])])?;
    let at = |name: &str| cluster.stack.dir.path().join(name);
    let (sent, native, webrtc) = (at("sent.jsonl"), at("native.jsonl"), at("webrtc.jsonl"));
    let mut publisher = publish(&cluster, &["--ledger", path(&sent)?])?;
    let mut viewers = [
        cluster.stack.watch(&["--duration", "20", "--ledger", path(&native)?])?,
        cluster.stack.watch(&["--duration", "20", "--transport", "webrtc", "--ledger", path(&webrtc)?])?,
    ];
    for v in &mut viewers {
        v.line(PATIENCE, |l| serde_json::from_str::<Value>(l).is_ok_and(|v| number(&v, "/frames") > 30.0))?;
    }
    cluster.restart_signaling()?;
    // What it did not open itself is known to it: feed and legs.
    until(&cluster.stack, "trocar_signaling_feeds", "", 1.0)?;
    until(&cluster.stack, "trocar_signaling_legs", "", 2.0)?;
    let mut late = cluster.stack.watch(&["--frames", "60"])?;
    let s = summary(&mut late, PATIENCE)?;
    ensure!(number(&s, "/frames") == 60.0, "a viewer who comes after the restart: {s}");
    for v in &mut viewers {
        let s = summary(v, PATIENCE)?;
        println!("{s}");
        v.wait(PATIENCE)?;
        ensure!(number(&s, "/packets_missing") == 0.0 && number(&s, "/frames_lost") == 0.0, "{s}");
        ensure!(number(&s, "/frames") > 17.0 * 29.0, "a picture stood still: {s}");
    }
    publisher.stop()?;
    // No frame is missing from the first to the last: the picture ran over the restart.
    same_frames(&ledger(&sent)?, &ledger(&native)?)
}

#[test]
fn when_a_relay_is_killed_viewers_are_told_within_two_seconds_and_go_on_at_another_one() -> anyhow::Result<()> {
    let mut cluster = Cluster::start(&[("a", &["feeds"]), ("b", &["legs"]), ("c", &["legs"])])?;
    let _publisher = publish(&cluster, &[])?;
    let mut viewer = cluster.stack.watch(&["--duration", "25"])?;
    let mut browserlike = cluster.stack.watch(&["--duration", "25", "--transport", "webrtc"])?;
    until(&cluster.stack, "trocar_signaling_legs", "", 2.0)?;
    for v in [&mut viewer, &mut browserlike] {
        v.line(PATIENCE, |l| serde_json::from_str::<Value>(l).is_ok_and(|v| number(&v, "/frames") > 30.0))?;
    }
    cluster.kill_relay("b")?;
    let began = Instant::now();
    until(&cluster.stack, "trocar_relay_up", "relay=\"b\"", 0.0)?;
    let told = began.elapsed();
    println!("relay b is known to be gone after {told:?}");
    ensure!(told < Duration::from_secs(2), "{told:?}");
    until(&cluster.stack, "trocar_leg_connected", "relay=\"c\"", 1.0)?;
    println!("a viewer is at relay c after {:?}", began.elapsed());
    for v in [&mut viewer, &mut browserlike] {
        let s = summary(v, PATIENCE)?;
        println!("{s}");
        ensure!(number(&s, "/frames") > 12.0 * 29.0, "the viewer did not go on: {s}");
    }
    cluster.start_relay_again("b")?;
    until(&cluster.stack, "trocar_relay_up", "relay=\"b\"", 1.0)?;
    let mut again = cluster.stack.watch(&["--frames", "30"])?;
    ensure!(number(&summary(&mut again, PATIENCE)?, "/frames") == 30.0, "nobody can view at relay b again");
    Ok(())
}

#[test]
fn a_publisher_whose_relay_is_killed_goes_on_at_another_one() -> anyhow::Result<()> {
    let mut cluster = Cluster::start(&[("a", &["feeds"]), ("b", &["feeds", "legs"])])?;
    let _publisher = publish(&cluster, &[])?;
    let mut before = cluster.stack.watch(&["--frames", "30"])?;
    ensure!(number(&summary(&mut before, PATIENCE)?, "/frames") == 30.0, "no picture before");
    cluster.kill_relay("a")?;
    let began = Instant::now();
    until(&cluster.stack, "trocar_feed_live", "relay=\"b\"", 1.0)?;
    let mut after = cluster.stack.watch(&["--frames", "30"])?;
    ensure!(number(&summary(&mut after, PATIENCE)?, "/frames") == 30.0, "no picture after");
    println!("a viewer has the picture again after {:?}", began.elapsed());
    Ok(())
}

#[test]
fn a_protected_feed_at_two_relays_loses_no_frame_when_one_is_killed_and_everybody_is_told_within_a_second()
-> anyhow::Result<()> {
    let mut cluster = Cluster::start(&[("a", &["feeds", "legs"]), ("a2", &["feeds", "legs"])])?;
    let at = |name: &str| cluster.stack.dir.path().join(name);
    let (sent, native) = (at("sent.jsonl"), at("native.jsonl"));
    let two = ["--path", "127.0.0.1", "--path", "127.0.0.2"];
    let mut publisher = publish(&cluster, &[&two[..], &["--bitrate", "20", "--ledger", path(&sent)?]].concat())?;
    let watch = |more: &[&str]| cluster.stack.watch(&[&["--duration", "20"], more].concat());
    let mut viewer = watch(&[&two[..], &["--ledger", path(&native)?]].concat())?;
    let mut browserlike = watch(&["--transport", "webrtc"])?;
    for v in [&mut viewer, &mut browserlike] {
        v.line(PATIENCE, |l| serde_json::from_str::<Value>(l).is_ok_and(|v| number(&v, "/frames") > 60.0))?;
    }
    // Both viewers are at a, the native one at a2 as well.
    until(&cluster.stack, "trocar_leg_connected", "relay=\"a2\"", 1.0)?;
    cluster.kill_relay("a")?;
    let began = Instant::now();
    publisher.line(PATIENCE, |l| l.starts_with("scope: UNPROTECTED"))?;
    println!("everybody knows after {:?} that there is one path left", began.elapsed());
    ensure!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    let s = summary(&mut viewer, PATIENCE)?;
    println!("{s}");
    ensure!(number(&s, "/packets_missing") == 0.0 && number(&s, "/frames_lost") == 0.0, "{s}");
    ensure!(number(&s, "/frames") > 17.0 * 29.0, "{s}");
    let s = summary(&mut browserlike, PATIENCE)?;
    println!("{s}");
    ensure!(number(&s, "/frames") > 14.0 * 29.0, "the WebRTC viewer did not go on at the other relay: {s}");
    publisher.stop()?;
    same_frames(&ledger(&sent)?, &ledger(&native)?)
}
