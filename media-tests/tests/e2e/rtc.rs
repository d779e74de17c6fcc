//! The client's own WebRTC stack, the `webrtc` crate, against the relay's: two that share no code.

use crate::{number, runtime};
use anyhow::{Context, ensure};
use serde_json::{Value, json};
use std::time::Duration;
use trocar_media_tests::http_client;
use trocar_media_tests::process::Process;
use trocar_media_tests::stack::{PATIENCE, Stack, path, summary};

/// The WHEP address of a feed.
fn whep(stack: &Stack, feed: &str) -> anyhow::Result<String> {
    Ok(format!("{}v1/sessions/{}/feeds/{feed}/whep", stack.text("/page")?, stack.text("/session")?))
}

/// The token of an observer who has joined.
fn token(stack: &Stack) -> anyhow::Result<String> {
    runtime().block_on(async {
        let join = format!("{}v1/join", stack.text("/page")?);
        let body = json!({ "invitation": stack.text("/tokens/observer")?, "name": "Player" });
        let grant: Value = http_client()?.post(join).json(&body).send().await?.error_for_status()?.json().await?;
        Ok(grant["token"].as_str().context("token")?.to_owned())
    })
}

/// Checksums of a ledger, in order.
fn sums(file: &std::path::Path) -> anyhow::Result<Vec<String>> {
    let text = std::fs::read_to_string(file)?;
    text.lines()
        .map(|l| {
            let line: Value = serde_json::from_str(l)?;
            Ok(line["sha256"].as_str().context("sha256")?.to_owned())
        })
        .collect()
}

/// Whether `came` is a run of `sent` without a hole.
fn is_run_of(came: &[String], sent: &[String]) -> bool {
    !came.is_empty() && sent.windows(came.len()).any(|w| w == came)
}

#[test]
fn the_crate_gets_every_frame_of_a_roq_publisher_bit_for_bit_with_its_age() -> anyhow::Result<()> {
    let stack = Stack::start()?;
    let (sent, came) = (stack.dir.path().join("sent.jsonl"), stack.dir.path().join("came.jsonl"));
    let mut publisher = stack.publish(&["--source", "test:1280x720@30", "--ledger", path(&sent)?])?;
    let mut viewer = stack.watch(&["--transport", "webrtc", "--frames", "90", "--ledger", path(&came)?])?;
    let s = summary(&mut viewer, PATIENCE)?;
    viewer.wait(PATIENCE)?;
    publisher.stop()?;
    println!("WebRTC: {s}");
    ensure!(number(&s, "/frames") == 90.0 && number(&s, "/frames_lost") == 0.0, "{s}");
    ensure!(s["codec"] == "H264" && number(&s, "/width") == 1280.0, "{s}");
    let (median, known) = (number(&s, "/age_ms/p50"), number(&s, "/age_ms/frames"));
    ensure!(median > 0.0 && median < 200.0 && known > 60.0, "{s}");
    let (sent, mut came) = (sums(&sent)?, sums(&came)?);
    ensure!(came.len() == 90 && is_run_of(&came, &sent), "what came is no run of what was sent");
    // The control: one frame that is another, and one that is missing.
    let kept = std::mem::replace(&mut came[40], "other".to_owned());
    ensure!(!is_run_of(&came, &sent), "a changed frame goes unnoticed");
    came[40] = kept;
    came.remove(40);
    ensure!(!is_run_of(&came, &sent), "a missing frame goes unnoticed");
    Ok(())
}

#[test]
fn a_whep_address_and_a_token_are_enough_and_an_age_that_nobody_told_is_called_unknown() -> anyhow::Result<()> {
    let stack = Stack::start()?;
    let _publisher = stack.publish(&["--source", "test:640x360@30"])?;
    let (url, token) = (whep(&stack, "scope")?, token(&stack)?);
    let arguments = ["watch", "--whep", &url, "--token", &token, "--headless", "--json", "--frames", "60"];
    let mut viewer = Process::trocar("trocar watch --whep", &arguments)?;
    let s = summary(&mut viewer, PATIENCE)?;
    ensure!(number(&s, "/frames") == 60.0 && s["feed"] == "scope" && s["codec"] == "H264", "{s}");
    ensure!(s["age_ms"].is_null() && number(&s, "/age_unknown_frames") == 60.0, "{s}");
    ensure!(viewer.wait(PATIENCE)?.success(), "{}", viewer.stderr());
    // The player deleted its resource, and had its candidates taken before.
    let figures = runtime().block_on(async {
        let response = http_client()?.get(stack.text("/metrics")?).send().await?.error_for_status()?;
        anyhow::Ok(response.text().await?)
    })?;
    for answered in [r#"method="PATCH",status="204"} 1"#, r#"method="DELETE",status="200"} 1"#] {
        ensure!(
            figures.lines().any(|l| l.contains("/whep/{leg}") && l.contains(answered)),
            "no {answered}:\n{figures}"
        );
    }
    Ok(())
}

/// What `trocar watch --whep` says when it fails.
fn fails(stack: &Stack, feed: &str, token: &str) -> anyhow::Result<String> {
    let url = whep(stack, feed)?;
    let arguments = ["watch", "--whep", &url, "--token", token, "--headless", "--json"];
    let mut viewer = Process::trocar("trocar watch --whep", &arguments)?;
    let status = viewer.wait(PATIENCE)?;
    ensure!(!status.success(), "it should have failed");
    // The last words may still be on their way through the pipe.
    let _ = viewer.rest();
    Ok(viewer.stderr())
}

#[test]
fn a_wrong_token_and_a_missing_feed_are_told_in_the_relays_words() -> anyhow::Result<()> {
    let stack = Stack::start()?;
    let _publisher = stack.publish(&["--source", "test:320x180@15"])?;
    let good = token(&stack)?;
    let said = fails(&stack, "scope", "nonsense")?;
    ensure!(said.contains("HTTP 401") && said.contains("token"), "{said}");
    let said = fails(&stack, "nothing", &good)?;
    ensure!(said.contains("HTTP 404") && said.contains("feed"), "{said}");
    Ok(())
}

#[test]
fn a_webrtc_viewer_survives_a_publisher_that_goes_and_comes_back() -> anyhow::Result<()> {
    let stack = Stack::start()?;
    let mut first = stack.publish(&["--source", "test:640x360@30"])?;
    let mut viewer = stack.watch(&["--transport", "webrtc"])?;
    viewer.line(PATIENCE, |l| l.contains("\"state\":\"live\""))?;
    first.stop()?;
    viewer.line(PATIENCE, |l| l.contains("\"state\":\"waiting\"") || l.contains("\"type\":\"gap\""))?;
    let _second = stack.publish(&["--source", "test:640x360@30"])?;
    viewer.line(PATIENCE, |l| l.contains("\"state\":\"live\""))?;
    viewer.stop()
}

/// Starts a WHIP publisher with picture and sound.
fn publish_whip(stack: &Stack, token: &str) -> anyhow::Result<Process> {
    let url = format!("{}v1/sessions/{}/whip?feed=cam", stack.text("/page")?, stack.text("/session")?);
    let source = ["--source", "test:640x360@30", "--audio", "tone"];
    // Its address is of http, which has no certificate to check.
    // A token may begin with a dash.
    let token = format!("--token={token}");
    let fixed = ["publish", "--whip", &url, &token];
    Process::trocar("trocar publish --whip", &[&fixed[..], &source[..]].concat())
}

#[test]
fn the_crate_publishes_picture_and_sound_by_whip_to_both_kinds_of_viewers() -> anyhow::Result<()> {
    let stack = Stack::start()?;
    let mut publisher = publish_whip(&stack, &stack.text("/tokens/local")?)?;
    publisher.line(PATIENCE, |l| l.starts_with("publishing by WHIP"))?;
    for (feed, codec, frames) in [("cam", "H264", "60"), ("cam-audio", "opus", "100")] {
        for transport in ["webrtc", "roq"] {
            let mut viewer = stack.watch(&["--feed", feed, "--transport", transport, "--frames", frames])?;
            let s = summary(&mut viewer, PATIENCE)?;
            ensure!(s["codec"].as_str().is_some_and(|c| c.eq_ignore_ascii_case(codec)), "{s}");
            ensure!(number(&s, "/frames_lost") == 0.0 && number(&s, "/packets_missing") == 0.0, "{s}");
        }
    }
    publisher.stop()?;
    // It hung up: the feed is no longer live.
    let mut viewer = stack.watch(&["--feed", "cam", "--duration", "2"])?;
    let s = summary(&mut viewer, PATIENCE)?;
    ensure!(s["state"] != "live" && number(&s, "/frames") == 0.0, "{s}");
    Ok(())
}

#[test]
fn what_is_sent_to_an_https_address_or_over_quic_needs_the_authority_and_is_told_so() -> anyhow::Result<()> {
    let whip = ["--whip", "https://127.0.0.1:9/whip", "--token", "t"];
    let quic = ["--invite", "https://127.0.0.1:9/#invitation=t"];
    for how in [&whip[..], &quic] {
        let mut publisher =
            Process::trocar("trocar publish", &[&["publish", "--source", "test:320x180@15"], how].concat())?;
        ensure!(!publisher.wait(PATIENCE)?.success());
        let _ = publisher.rest();
        ensure!(publisher.stderr().contains("--ca"), "{how:?}: {}", publisher.stderr());
    }
    Ok(())
}

#[test]
fn an_observer_cannot_publish_by_whip_and_is_told_so() -> anyhow::Result<()> {
    let stack = Stack::start()?;
    let mut publisher = publish_whip(&stack, &stack.text("/tokens/observer")?)?;
    ensure!(!publisher.wait(PATIENCE)?.success());
    let _ = publisher.rest();
    ensure!(publisher.stderr().contains("HTTP 403"), "{}", publisher.stderr());
    Ok(())
}

#[test]
fn without_a_display_a_window_is_refused_and_the_flag_that_needs_none_is_named() -> anyhow::Result<()> {
    let stack = Stack::start()?;
    let (link, ca) = (stack.invitation("observer")?, stack.text("/ca_file")?);
    let mut command = std::process::Command::new(trocar_media_tests::process::trocar()?);
    command.args(["watch", "--invite", &link, "--ca", &ca]).env_remove("DISPLAY").env_remove("WAYLAND_DISPLAY");
    let mut viewer = Process::start("trocar watch", &mut command)?;
    ensure!(!viewer.wait(Duration::from_secs(10))?.success());
    let _ = viewer.rest();
    ensure!(viewer.stderr().contains("--headless"), "{}", viewer.stderr());
    Ok(())
}
