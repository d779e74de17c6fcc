//! Every encoding that `trocar publish` makes, and payloads that nobody on the way knows: bit for bit to a native viewer.

use crate::native::{ledger, same_frames};
use crate::number;
use anyhow::{Context, ensure};
use serde_json::Value;
use trocar_media_tests::browser::Browser;
use trocar_media_tests::stack::{PATIENCE, Stack, path, summary};

/// Frames that are compared.
const FRAMES: &str = "40";

/// Publishes with `how`, watches `feed` until it has [`FRAMES`] frames, and compares what came with what was sent.
fn carried(how: &[&str], feed: &str) -> anyhow::Result<Value> {
    let stack = Stack::start()?;
    let (sent, came) = (stack.dir.path().join("sent.jsonl"), stack.dir.path().join("came.jsonl"));
    let mut arguments = how.to_vec();
    let sent_to = path(&sent)?.to_owned();
    arguments.extend(["--ledger", &sent_to]);
    let mut publisher = stack.publish(&arguments)?;
    let mut viewer = stack.watch(&["--feed", feed, "--frames", FRAMES, "--ledger", path(&came)?])?;
    let s = summary(&mut viewer, PATIENCE)?;
    ensure!(viewer.wait(PATIENCE)?.success(), "the viewer failed: {}", viewer.stderr());
    publisher.stop()?;
    let (sent, came) = (ledger(&sent)?, ledger(&came)?);
    same_frames(&sent, &came)?;
    ensure!(number(&s, "/packets_missing") == 0.0 && number(&s, "/frames_lost") == 0.0, "lost: {s}");
    Ok(s)
}

#[test]
fn every_encoding_and_opaque_payload_comes_out_bit_for_bit() -> anyhow::Result<()> {
    let small = ["--source", "test", "--size", "320x240@15"];
    for codec in ["h264", "h265", "vp8", "vp9", "av1", "raw", "j2k"] {
        let s = carried(&[&small[..], &["--codec", codec]].concat(), "scope").with_context(|| codec.to_owned())?;
        println!("{codec}: {s}");
        let name = s["codec"].as_str().context("codec")?.to_ascii_lowercase();
        let right = match codec {
            "j2k" => "jpeg2000",
            other => other,
        };
        ensure!(name == right, "{codec} came as {name}");
    }
    Ok(())
}

#[test]
fn a_frame_that_was_changed_on_the_way_is_found_out() -> anyhow::Result<()> {
    let one = |sum: &str| [(7, sum.to_owned())].into_iter().collect();
    ensure!(same_frames(&one("aa"), &one("aa")).is_ok());
    ensure!(same_frames(&one("aa"), &one("ab")).is_err(), "another checksum");
    ensure!(same_frames(&one("aa"), &[(8, "aa".to_owned())].into_iter().collect()).is_err(), "a frame nobody sent");
    Ok(())
}

#[test]
fn sound_is_a_feed_of_its_own_beside_the_picture() -> anyhow::Result<()> {
    let stack = Stack::start()?;
    let _publisher = stack.publish(&["--source", "test", "--size", "320x240@15", "--audio", "tone:440"])?;
    let mut viewer = stack.watch(&["--feed", "scope-audio", "--duration", "3"])?;
    let s = summary(&mut viewer, PATIENCE)?;
    ensure!(s["codec"].as_str().is_some_and(|c| c.eq_ignore_ascii_case("opus")), "{s}");
    ensure!(number(&s, "/frames") > 100.0 && number(&s, "/packets_missing") == 0.0, "{s}");
    let mut nobody = stack.watch(&["--feed", "room-audio", "--duration", "1"])?;
    let none = summary(&mut nobody, PATIENCE)?;
    ensure!(number(&none, "/frames") == 0.0, "sound that nobody publishes: {none}");
    Ok(())
}

#[test]
fn a_publisher_that_comes_back_with_another_codec_is_shown_by_page_and_native_viewer() -> anyhow::Result<()> {
    const LIVE: &str = "main:has(.tile[data-state=live])";
    const DARK: &str = "main:not(:has(.tile[data-state=live]))";
    let stack = Stack::start()?;
    let mut first = stack.publish(&["--source", "test", "--size", "320x240@15", "--codec", "h264"])?;
    let mut native = stack.watch(&["--duration", "20"])?;
    let mut browser = Browser::start()?;
    browser.join("expert", &stack.invitation("expert")?, "Dr.+Sato")?;
    browser.wait("expert", LIVE, PATIENCE)?;
    first.stop()?;
    browser.wait("expert", DARK, PATIENCE)?;
    let _second = stack.publish(&["--source", "test", "--size", "320x240@15", "--codec", "vp8"])?;
    browser.wait("expert", LIVE, PATIENCE)?;
    let s = summary(&mut native, PATIENCE)?;
    ensure!(s["codec"].as_str() == Some("VP8"), "the native viewer ended with {s}");
    ensure!(number(&s, "/packets_missing") == 0.0 && number(&s, "/frames") > 60.0, "{s}");
    Ok(())
}
