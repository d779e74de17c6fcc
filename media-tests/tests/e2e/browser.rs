//! What a remote physician sees in a browser.

use crate::{median, number};
use anyhow::{Context, ensure};
use serde_json::{Value, json};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use trocar_media_tests::browser::Browser;
use trocar_media_tests::stack::{Stack, natural_fixture, path};

const LIVE: &str = ".tile[data-state=live]";
const PATIENCE: Duration = Duration::from_secs(20);

fn wall_ms() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64() * 1e3
}

/// A picture plays whose pixels say what the page says. `frame_ms`: time from one frame to the next.
fn plays_what_it_says(browser: &mut Browser, page: &str, frame_ms: f64, patience: Duration) -> anyhow::Result<()> {
    browser.wait(page, LIVE, patience)?;
    browser.wait(page, ".tile[data-age-kind=known]", patience)?;
    let samples = browser.call("marks", page, json!({ "ms": 3_000 }))?;
    let samples = samples.as_array().context("samples")?;
    let marked: Vec<&Value> = samples.iter().filter(|s| !s["mark"].is_null()).collect();
    ensure!(marked.len() > 20, "only {} of {} frames had a readable mark", marked.len(), samples.len());
    ensure!(marked.len() * 100 >= samples.len() * 98, "{} of {} frames were readable", marked.len(), samples.len());

    let frames: Vec<f64> = marked.iter().map(|s| number(s, "/mark/frame")).collect();
    ensure!(frames.windows(2).all(|w| w[1] > w[0]), "the counter in the pixels does not rise: {frames:?}");
    let captures: Vec<f64> = marked.iter().map(|s| number(s, "/mark/capture")).collect();
    let rate = (frames[frames.len() - 1] - frames[0]) * 1e3 / (captures[captures.len() - 1] - captures[0]);
    ensure!((rate * frame_ms / 1e3 - 1.0).abs() < 0.1, "{rate:.1} frames/s by the pixels");

    let by_pixels = median(marked.iter().map(|s| number(s, "/displayed") - number(s, "/mark/capture")).collect());
    let shown = median(marked.iter().map(|s| number(s, "/shownAge")).collect());
    println!("age shown {shown:.0} ms, by the pixels {by_pixels:.1} ms, {} frames", marked.len());
    ensure!(by_pixels > 0.0 && by_pixels < 1_000.0, "age by the pixels is {by_pixels} ms");
    ensure!((shown - by_pixels).abs() <= 2.0 * frame_ms, "the page shows {shown} ms, the pixels say {by_pixels} ms");
    Ok(())
}

#[test]
fn a_picture_plays_and_its_age_is_the_one_in_its_pixels() -> anyhow::Result<()> {
    let stack = Stack::start()?;
    let _publisher = stack.publish(&["--source", "test:1280x720@30"])?;
    let mut browser = Browser::start()?;
    browser.join("expert", &stack.invitation("expert")?, "Dr.+Sato")?;
    plays_what_it_says(&mut browser, "expert", 1e3 / 30.0, PATIENCE)?;
    browser.screenshot("expert", "page-live.png")?;
    let log = browser.call("log", "expert", json!({}))?;
    ensure!(log["errors"].as_array().is_some_and(Vec::is_empty), "errors on the page: {}", log["errors"]);
    Ok(())
}

#[test]
fn without_a_publisher_no_viewer_test_passes() -> anyhow::Result<()> {
    let stack = Stack::start()?;
    let mut browser = Browser::start()?;
    browser.join("expert", &stack.invitation("expert")?, "Dr.+Sato")?;
    browser.wait("expert", "body[data-connection=open]", PATIENCE)?;
    let failed = plays_what_it_says(&mut browser, "expert", 1e3 / 30.0, Duration::from_secs(3));
    ensure!(failed.is_err(), "a picture played that nobody publishes");
    browser.screenshot("expert", "page-no-publisher.png")?;
    let text = browser.call("text", "expert", json!({ "selector": "main" }))?;
    ensure!(text.to_string().to_lowercase().contains("no picture"), "the page says: {text}");
    Ok(())
}

/// Joins in a row of a browser that is warm: from the answer of WHEP to the first picture on the screen.
fn join_times(browser: &mut Browser, link: &str, count: usize) -> anyhow::Result<Vec<f64>> {
    let mut times = Vec::new();
    for i in 0..count {
        let page = format!("joiner{i}");
        browser.join(&page, link, &format!("Joiner+{i}"))?;
        browser.wait(&page, LIVE, PATIENCE)?;
        let log = browser.call("log", &page, json!({}))?;
        times.push(number(&log, "/firstFrames/0") - number(&log, "/whep/0"));
        browser.call("close", &page, json!({}))?;
    }
    Ok(times)
}

#[test]
fn a_joiner_has_a_picture_within_300_ms_on_a_live_source() -> anyhow::Result<()> {
    let stack = Stack::start()?;
    let _publisher = stack.publish(&["--source", "test:1280x720@30"])?;
    let mut browser = Browser::start()?;
    let link = stack.invitation("observer")?;
    // The first join warms the browser's decoder up.
    join_times(&mut browser, &link, 1)?;
    let times = join_times(&mut browser, &link, 5)?;
    println!("WHEP answer to first picture: {times:?} ms");
    ensure!(median(times.clone()) <= 300.0, "{times:?}");
    Ok(())
}

#[test]
fn a_natural_video_plays_and_is_marked_as_a_replay() -> anyhow::Result<()> {
    let stack = Stack::start()?;
    let source = format!("file:{}", path(&natural_fixture()?)?);
    let _publisher = stack.publish(&["--source", &source, "--loop"])?;
    let mut browser = Browser::start()?;
    browser.join("observer", &stack.invitation("observer")?, "Observer")?;
    browser.wait("observer", LIVE, PATIENCE)?;
    let before = browser.call("tiles", "observer", json!({}))?;
    let samples = browser.call("marks", "observer", json!({ "ms": 3_000 }))?;
    let count = samples.as_array().map_or(0, Vec::len);
    ensure!(count > 50, "{count} frames of a 25 Hz video in 3 s");
    let spread = browser.call("spread", "observer", json!({}))?.as_f64().unwrap_or(0.0);
    ensure!(spread > 5.0, "the picture is one colour: spread {spread}");
    let after = browser.call("tiles", "observer", json!({}))?;
    ensure!(after[0]["frames"] != before[0]["frames"], "the page counts no frames");
    browser.screenshot("observer", "page-replay.png")?;
    let text = browser.call("text", "observer", json!({ "selector": ".tile" }))?.to_string();
    ensure!(text.to_uppercase().contains("REPLAY"), "the tile says: {text}");
    Ok(())
}

#[test]
fn a_killed_relay_is_said_within_a_second() -> anyhow::Result<()> {
    let mut stack = Stack::start()?;
    let _publisher = stack.publish(&["--source", "test:1280x720@30"])?;
    let mut browser = Browser::start()?;
    browser.join("expert", &stack.invitation("expert")?, "Dr.+Sato")?;
    browser.wait("expert", LIVE, PATIENCE)?;
    ensure!(said_at(&mut browser)?.is_nan(), "the page says lost while the relay runs");
    let killed = wall_ms();
    stack.kill()?;
    browser.wait("expert", "body[data-connection=lost]", PATIENCE)?;
    let after = said_at(&mut browser)? - killed;
    println!("killed relay said after {after:.0} ms");
    ensure!((0.0..=1_000.0).contains(&after), "{after} ms");
    browser.screenshot("expert", "page-relay-killed.png")?;
    Ok(())
}

fn said_at(browser: &mut Browser) -> anyhow::Result<f64> {
    let log = browser.call("log", "expert", json!({}))?;
    let connections = log["connections"].as_array().context("connections")?;
    Ok(connections.iter().find(|c| c["value"] == "lost").map_or(f64::NAN, |c| number(c, "/at")))
}

#[test]
fn a_freeze_is_announced_within_500_ms() -> anyhow::Result<()> {
    let stack = Stack::start()?;
    let publisher = stack.publish(&["--source", "test:1280x720@30"])?;
    let mut browser = Browser::start()?;
    browser.join("expert", &stack.invitation("expert")?, "Dr.+Sato")?;
    browser.wait("expert", LIVE, PATIENCE)?;
    // A picture that moves for two seconds is not called frozen: the control of what follows.
    browser.call("marks", "expert", json!({ "ms": 2_000 }))?;
    ensure!(frozen(&mut browser)?.is_none(), "a moving picture was called frozen");
    publisher.signal("STOP")?;
    let waited = browser.wait("expert", ".tile[data-state=frozen], .tile[data-state=stalled]", PATIENCE);
    let shot = browser.screenshot("expert", "page-frozen.png");
    publisher.signal("CONT")?;
    waited.and(shot)?;
    let (last_frame, at) = frozen(&mut browser)?.context("the page's log has no freeze")?;
    println!("freeze announced {:.0} ms after the last new picture", at - last_frame);
    ensure!(at - last_frame <= 500.0, "announced {} ms after the last new picture", at - last_frame);
    browser.wait("expert", LIVE, PATIENCE)?;
    Ok(())
}

fn frozen(browser: &mut Browser) -> anyhow::Result<Option<(f64, f64)>> {
    let log = browser.call("log", "expert", json!({}))?;
    let states = log["states"].as_array().context("states")?;
    let live = states.iter().position(|s| s["value"] == "live").unwrap_or(0);
    let stood = states.iter().skip(live).find(|s| s["value"] == "frozen" || s["value"] == "stalled");
    Ok(stood.map(|s| (number(s, "/lastFrame"), number(s, "/at"))))
}

#[test]
fn a_restarted_publisher_comes_back_on_the_same_page() -> anyhow::Result<()> {
    let stack = Stack::start()?;
    let mut first = stack.publish(&["--source", "test:1280x720@30"])?;
    let mut browser = Browser::start()?;
    browser.join("expert", &stack.invitation("expert")?, "Dr.+Sato")?;
    browser.wait("expert", LIVE, PATIENCE)?;
    first.stop()?;
    browser.wait("expert", "main:not(:has(.tile[data-state=live]))", PATIENCE)?;
    let _second = stack.publish(&["--source", "test:1280x720@30"])?;
    plays_what_it_says(&mut browser, "expert", 1e3 / 30.0, PATIENCE)
}
