//! Glass to glass by the pixels: from the drawing of the test scene to the picture on a screen, for a native viewer's window and for a
//! Chromium. The scene carries the time at which it was drawn; one machine's clock is at both ends. What a camera and a screen take
//! besides is not in it.
//!
//! `cargo nextest run --workspace -E 'test(/^glass::/)' --success-output final` prints it.

use crate::paths::Way;
use crate::windows::Display;
use crate::{number, span};
use anyhow::ensure;
use serde_json::{Value, json};
use std::process::Command;
use std::time::Duration;
use trocar_media_tests::browser::Browser;
use trocar_media_tests::process::{Process, trocar};
use trocar_media_tests::stack::{PATIENCE, Stack, path};

/// What is published, drawn and encoded live.
const SOURCE: &str = "test:1280x720@30";
/// What a line that is slower by that takes longer, in milliseconds.
const SLOWER_MS: f64 = 60.0;

/// Ages in milliseconds.
struct Ages(Vec<f64>);

impl Ages {
    fn new(mut ages: Vec<f64>) -> anyhow::Result<Self> {
        ages.sort_by(f64::total_cmp);
        ensure!(ages.len() >= 60, "only {} pictures with a mark", ages.len());
        Ok(Self(ages))
    }

    fn at(&self, share: f64) -> f64 {
        self.0[((self.0.len() - 1) as f64 * share).round() as usize]
    }

    fn print(&self, who: &str) {
        println!(
            "{who}: glass to glass p50 {:.0} p95 {:.0} p99 {:.0} max {:.0} ms, {} pictures",
            self.at(0.5),
            self.at(0.95),
            self.at(0.99),
            self.at(1.0),
            self.0.len()
        );
    }
}

/// What a native viewer's window shows for so many seconds, after one in which it settles.
fn window(stack: &Stack, name: &str, seconds: u64, more: &[&str]) -> anyhow::Result<Ages> {
    let display = Display::start(1_280, 720)?;
    let marks = stack.dir.path().join(format!("{name}.jsonl"));
    let (link, ca) = (stack.invitation("observer")?, stack.text("/ca_file")?);
    let seconds = (seconds + 2).to_string();
    let mut command = Command::new(trocar()?);
    command
        .args(["watch", "--invite", &link, "--ca", &ca, "--marks", path(&marks)?, "--duration", &seconds])
        .args(more);
    command.env("DISPLAY", &display.name).env_remove("WAYLAND_DISPLAY");
    let mut viewer = Process::start("trocar watch", &mut command)?;
    ensure!(viewer.wait(Duration::from_secs(60) + PATIENCE)?.success(), "{}", viewer.stderr());
    let text = std::fs::read_to_string(&marks)?;
    let age = |l: &str| {
        let v: Value = serde_json::from_str(l)?;
        anyhow::Ok((number(&v, "/shown_us") - number(&v, "/captured_us")) / 1e3)
    };
    // The first second is of joining.
    Ages::new(text.lines().skip(30).map(age).collect::<anyhow::Result<_>>()?)
}

#[test]
fn glass_to_glass_is_known_from_the_pixels_for_a_window_and_for_a_browser() -> anyhow::Result<()> {
    let seconds = span(4, 60);
    let stack = Stack::start()?;
    let _publisher = stack.publish(&["--source", SOURCE])?;
    let native = window(&stack, "roq", seconds, &[])?;
    let webrtc = window(&stack, "webrtc", seconds, &["--transport", "webrtc"])?;
    let slower = Way::open(&stack.text("/relay/quic")?, &["--delay", "60ms"])?;
    let slower = window(&stack, "slower", seconds, &["--path", &slower.option()])?;

    let mut browser = Browser::start()?;
    browser.join("expert", &stack.invitation("expert")?, "Dr.+Sato")?;
    browser.wait("expert", ".tile[data-age-kind=known]", PATIENCE)?;
    let samples = browser.call("marks", "expert", json!({ "ms": seconds * 1_000 }))?;
    let marked = samples.as_array().into_iter().flatten().filter(|s| !s["mark"].is_null());
    let chromium = Ages::new(marked.map(|s| number(s, "/displayed") - number(s, "/mark/capture")).collect())?;

    native.print("native window, RTP over QUIC");
    webrtc.print("native window, WebRTC");
    chromium.print("Chromium");
    slower.print("native window by a line that takes 60 ms longer (the control)");
    println!("{SOURCE}, one machine; load average {}", std::fs::read_to_string("/proc/loadavg")?.trim());
    for ages in [&native, &webrtc, &chromium] {
        ensure!(ages.at(0.0) > 0.0 && ages.at(0.5) < 250.0, "p50 {} ms", ages.at(0.5));
    }
    let longer = slower.at(0.5) - native.at(0.5);
    ensure!((longer - SLOWER_MS).abs() < 30.0, "the control: {longer:.0} ms longer");
    Ok(())
}
