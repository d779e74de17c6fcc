//! `--source screen`: what stands on an X display comes out in a browser.

use crate::windows::Display;
use anyhow::{Context, ensure};
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;
use trocar_media_tests::browser::Browser;
use trocar_media_tests::process::{Process, trocar};
use trocar_media_tests::stack::{PATIENCE, Stack};

const WIDTH: usize = 640;
const HEIGHT: usize = 360;
/// The left half and the right half.
const GREYS: [u8; 2] = [64, 192];
const PAGE: &str = "expert";

/// A publisher of that display's screen, or of none.
fn publish(stack: &Stack, display: Option<&str>) -> anyhow::Result<Process> {
    let (link, ca) = (stack.invitation("local")?, stack.text("/ca_file")?);
    let mut command = Command::new(trocar()?);
    command.args(["publish", "--invite", &link, "--ca", &ca, "--source", "screen"]);
    command.env_remove("DISPLAY").env_remove("WAYLAND_DISPLAY").envs(display.map(|d| ("DISPLAY", d)));
    Process::start("trocar publish", &mut command)
}

/// Fills the display with two greys and, in the lowest quarter, a white mark that steps from eighth to eighth.
fn draw(dir: &Path, display: &str) -> anyhow::Result<Process> {
    for mark in 0..8 {
        let mut picture = format!("P6\n{WIDTH} {HEIGHT}\n255\n").into_bytes();
        for (y, x) in (0..HEIGHT).flat_map(|y| (0..WIDTH).map(move |x| (y, x))) {
            let grey = match (y * 4 >= HEIGHT * 3, x * 8 / WIDTH == mark) {
                (false, _) => GREYS[x * 2 / WIDTH],
                (true, is_mark) => u8::from(is_mark) * 255,
            };
            picture.extend([grey; 3]);
        }
        std::fs::write(dir.join(format!("{mark}.ppm")), picture)?;
    }
    let location = format!("location={}/%d.ppm", dir.display());
    let mut command = Command::new("gst-launch-1.0");
    command.args([
        "multifilesrc",
        &location,
        "stop-index=7",
        "loop=true",
        "caps=image/x-portable-pixmap,framerate=10/1",
    ]);
    command.args(["!", "pnmdec", "!", "videoconvert", "!", "ximagesink"]);
    Process::start("gst-launch-1.0", command.env("DISPLAY", display))
}

/// Whether a look saw the drawing: both greys, and the mark at most of its places.
fn is_drawing(seen: &Value) -> bool {
    let near = |key: &str, want: u8| seen[key].as_f64().is_some_and(|v| (v - f64::from(want)).abs() <= 24.0);
    near("left", GREYS[0]) && near("right", GREYS[1]) && seen["marks"].as_array().is_some_and(|m| m.len() >= 6)
}

/// Looks at the picture, a second at a time, until it is the drawing or not.
fn look_until(browser: &mut Browser, drawing: bool) -> anyhow::Result<Value> {
    let mut seen = Value::Null;
    for _ in 0..20 {
        seen = browser.call("look", PAGE, json!({ "feed": "scope", "ms": 1_000 }))?;
        if is_drawing(&seen) == drawing {
            return Ok(seen);
        }
    }
    anyhow::bail!("a picture that should {} the drawing: {seen}", if drawing { "be" } else { "not be" })
}

#[test]
fn a_screen_is_seen_as_it_is_and_a_black_one_as_black() -> anyhow::Result<()> {
    let stack = Stack::start()?;
    let display = Display::start(WIDTH, HEIGHT)?;
    let mut publisher = publish(&stack, Some(&display.name))?;
    publisher.line(PATIENCE, |l| l.starts_with("publishing "))?;
    let mut browser = Browser::start()?;
    browser.join(PAGE, &stack.invitation("expert")?, "Dr.+Sato")?;
    browser.wait(PAGE, ".tile[data-feed=scope][data-state=live]", PATIENCE)?;
    // The control first: nothing is drawn yet, and the picture is live.
    let black = look_until(&mut browser, false)?;
    ensure!(black["frames"].as_u64().is_some_and(|n| n > 0), "no frame: {black}");
    ensure!(black["left"].as_f64().is_some_and(|v| v < 30.0), "an empty screen is not black: {black}");
    let drawn = tempfile::tempdir()?;
    let drawing = draw(drawn.path(), &display.name).context("gst-launch-1.0")?;
    let seen = look_until(&mut browser, true).with_context(|| drawing.stderr())?;
    println!("black: {black}; drawn: {seen}");
    drop(drawing);
    look_until(&mut browser, false)?;
    Ok(())
}

#[test]
fn without_a_display_the_screen_is_refused_and_what_is_missing_is_named() -> anyhow::Result<()> {
    let stack = Stack::start()?;
    for (display, said) in [(None, "DISPLAY is not set"), (Some(":9999"), "screen")] {
        let mut publisher = publish(&stack, display)?;
        ensure!(!publisher.wait(PATIENCE)?.success(), "it publishes nothing");
        let _ = publisher.rest();
        let error = publisher.stderr();
        println!("{display:?}: {error}");
        ensure!(error.contains("screen") && error.contains(said), "{display:?}: {error}");
    }
    Ok(())
}
