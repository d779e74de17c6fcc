//! A browser that publishes in layers, a viewer who goes from one to the other without a break, and the page, which shows them
//! as one picture.

use crate::number;
use anyhow::{Context, ensure};
use serde_json::{Value, json};
use std::process::Command;
use trocar_media_tests::stack::{Stack, path};
use trocar_media_tests::{artifacts, workspace};

/// How much longer than those who never switch the one who does may be without a new picture around a switch, in milliseconds:
/// pictures are 67 ms apart. What the browser's encoder holds up on a machine under load, it holds up for whoever views that
/// layer; a switch that waited without pictures for a key frame would take that and the key frame's way besides.
const LONGER_GAP_MS: f64 = 300.0;

#[test]
fn a_viewer_goes_from_layer_to_layer_of_a_browsers_camera_without_a_freeze() -> anyhow::Result<()> {
    let stack = Stack::start()?;
    let (page, expert, observer) =
        (stack.text("/page")?, stack.text("/tokens/expert")?, stack.text("/tokens/observer")?);
    let shot = artifacts()?.join("simulcast-page.png");
    let out = Command::new("node")
        .current_dir(workspace().join("media-tests/browser"))
        .args(["simulcast.mjs", &page, &expert, &observer, &stack.invitation("observer")?, path(&shot)?])
        .output()?;
    let said = String::from_utf8_lossy(&out.stdout);
    let line = said
        .lines()
        .find(|l| l.starts_with('{'))
        .with_context(|| format!("no result:\n{said}\n{}", String::from_utf8_lossy(&out.stderr)))?;
    println!("{line}");
    let seen: Value = serde_json::from_str(line)?;
    ensure!(
        seen["answer"] == json!(["a=rid:q recv", "a=rid:h recv", "a=rid:f recv", "a=simulcast:recv q;h;f"]),
        "{}",
        seen["answer"]
    );
    let layers = json!([
        {"feed": "cam", "view": "overview", "source": "cam", "width": 960},
        {"feed": "cam-half", "view": "overview-half", "source": "cam", "width": 480},
        {"feed": "cam-quarter", "view": "overview-quarter", "source": "cam", "width": 240},
    ]);
    ensure!(seen["feeds"] == layers, "{}", seen["feeds"]);
    let switches = seen["switches"].as_array().context("switches")?;
    ensure!(switches.len() == 4, "{}", seen["switches"]);
    for switch in switches {
        let (gap, still) = (number(switch, "/gap"), number(switch, "/still"));
        ensure!(gap > 0.0 && still > 0.0, "no pictures around a switch: {switch}");
        ensure!(
            gap < still + LONGER_GAP_MS,
            "{gap} ms without a picture, and those who never switch {still}: {switch}"
        );
    }
    ensure!(number(&seen, "/frames") >= 60.0, "only {} pictures in four switches", seen["frames"]);
    ensure!(
        number(&seen, "/freezes") <= number(&seen, "/stillFreezes"),
        "{} freezes, and {} of those who never switch",
        seen["freezes"],
        seen["stillFreezes"]
    );
    ensure!(seen["back"] == 0, "timestamps went back {} times", seen["back"]);
    ensure!(seen["lost"] == 0, "{} packets look lost", seen["lost"]);
    // The control: a name that is no feed is refused, so the switches above were not no-ops.
    ensure!(seen["refused"].as_str().is_some_and(|r| r.contains("404") && r.contains("feed-missing")), "{seen}");
    ensure!(seen["left"] == 0, "{} feeds are left of a publication that ended", seen["left"]);
    page_shows_one_picture(&seen["page"])
}

/// One tile and one leg; its layer is that of the tile's size, or the one that was chosen.
fn page_shows_one_picture(page: &Value) -> anyhow::Result<()> {
    let expected = [
        ("large", "cam", 960.0),
        ("small", "cam-half", 480.0),
        ("chosen", "cam-quarter", 240.0),
        ("chosen and large", "cam-quarter", 240.0),
        ("automatic again", "cam", 960.0),
    ];
    let steps = page["steps"].as_array().context("steps")?;
    ensure!(steps.len() == expected.len(), "{page}");
    let mut frames = 0.0;
    for (step, (what, feed, width)) in steps.iter().zip(expected) {
        ensure!(step["what"] == what && step["feed"] == feed && number(step, "/width") == width, "{what}: {step}");
        ensure!(step["state"] == "live" && step["others"] == 0 && step["source"] == "cam", "{what}: {step}");
        ensure!(number(step, "/frames") > frames, "{what}: no new picture: {step}");
        frames = number(step, "/frames");
    }
    let options = json!(["Auto: 960×540", "960×540", "480×270", "240×135"]);
    ensure!(page["options"] == options, "{}", page["options"]);
    let requests: Vec<&str> =
        page["requests"].as_array().context("requests")?.iter().filter_map(Value::as_str).collect();
    let posted = requests.iter().filter(|r| r.starts_with("POST feeds/")).count();
    let patched = requests.iter().filter(|r| r.starts_with("PATCH legs/")).count();
    // A window that is made smaller passes sizes between: the tile may have gone to one of them for a moment.
    ensure!(posted == 1 && (3..=5).contains(&patched), "one leg, and three times another layer: {requests:?}");
    Ok(())
}
