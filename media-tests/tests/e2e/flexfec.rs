//! FlexFEC to a Chromium by a line on which asking again takes longer than the feed's budget: what is lost comes back by redundancy.

use crate::lines::{Emulator, browse, stage};
use crate::{number, span};
use anyhow::ensure;
use serde_json::json;

/// There and back 140 ms: of the budget of 200 ms that leaves 130 for repair, and asking once takes more.
const FAR: [&str; 4] = ["--loss", "1%", "--delay", "70ms"];

#[test]
fn redundancy_brings_back_in_time_what_asking_cannot() -> anyhow::Result<()> {
    let (stack, mut publisher) = stage()?;
    let line = Emulator::open(&stack.text("/relay/webrtc")?, &FAR)?;
    // Enough losses for the two counts to be apart.
    let seconds = span(20, 60);
    let seen = browse(&json!({
        "origin": stack.text("/page")?, "invitation": stack.text("/tokens/observer")?, "feed": "scope", "seconds": seconds,
        "lines": [{ "name": "with", "to": line.listen, "fec": true }, { "name": "without", "to": line.listen, "fec": false }],
    }))?;
    publisher.stop()?;
    let summary = line.end()?;
    println!("with FlexFEC: {}\nwithout: {}", seen["with"], seen["without"]);
    println!(
        "emulator: {} of {} lost; load average {}",
        summary["down"]["lost"],
        summary["down"]["offered"],
        std::fs::read_to_string("/proc/loadavg")?.trim()
    );
    let of = |name: &str, what: &str| number(&seen, &format!("/{name}/{what}"));
    ensure!(number(&summary, "/down/lost") > 100.0, "{summary}");
    // Two losses of one group are not brought back, and asking takes its time then: pictures are late seldom, not never.
    ensure!(of("with", "fecPacketsReceived") > 50.0, "{}", seen["with"]);
    ensure!(of("with", "framesDecoded") >= 0.97 * 30.0 * seconds as f64, "{}", seen["with"]);
    // The control: without it the same losses make more pictures late.
    ensure!(of("without", "fecPacketsReceived") == 0.0, "{}", seen["without"]);
    ensure!(of("with", "late") < of("without", "late"), "late pictures: {seen}");
    Ok(())
}
