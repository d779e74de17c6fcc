//! `trocar load`, short: thresholds decide the exit code, each fault that is made on purpose is found and named, and a mistake in a
//! scenario is told with what would be right.

use crate::number;
use anyhow::{Context as _, ensure};
use serde_json::Value;
use std::process::{Command, Output};
use trocar_media_tests::process::trocar;
use trocar_media_tests::stack::{Stack, path};

/// Runs `trocar load run` against the stack.
fn load(stack: &Stack, arguments: &[&str]) -> anyhow::Result<Output> {
    let (link, ca) = (stack.invitation("local")?, stack.text("/ca_file")?);
    let pid = stack.up.id().to_string();
    let mut command = Command::new(trocar()?);
    command.args(["load", "run", "--invite", &link, "--ca", &ca, "--relay-pid", &pid]).args(arguments);
    Ok(command.output()?)
}

fn report(out: &Output) -> anyhow::Result<Value> {
    let text = String::from_utf8_lossy(&out.stdout);
    let line = text.lines().find(|l| l.starts_with('{'));
    let line = line.with_context(|| format!("no report: {}", String::from_utf8_lossy(&out.stderr)))?;
    Ok(serde_json::from_str(line)?)
}

fn code(out: &Output) -> anyhow::Result<i32> {
    out.status.code().context("ended by a signal")
}

/// Faults of a list by name.
fn names(list: &Value) -> Vec<(String, u64, u64)> {
    let all = list.as_array().map_or(&[][..], Vec::as_slice);
    let text = |v: &Value, k: &str| v[k].as_str().unwrap_or_default().to_owned();
    let number = |v: &Value, k: &str| v[k].as_u64().unwrap_or(u64::MAX);
    let mut out: Vec<_> = all
        .iter()
        .map(|v| (format!("{} {}", text(v, "fault"), text(v, "feed")), number(v, "frame"), number(v, "packet")))
        .collect();
    out.sort();
    out
}

#[test]
fn a_relay_that_carries_the_load_meets_the_thresholds_and_one_that_nothing_meets_ends_with_99() -> anyhow::Result<()> {
    let stack = Stack::start()?;
    let (junit, html) = (stack.dir.path().join("load.xml"), stack.dir.path().join("load.html"));
    let files = ["--junit", path(&junit)?, "--html", path(&html)?, "--json"];
    let shape = ["--publishers", "2", "--viewers", "6", "--bitrate", "4", "--duration", "4"];
    let met =
        ["--threshold", "age_p99_ms < 500", "--threshold", "frames_lost == 0", "--threshold", "joins_failed == 0"];
    let out = load(&stack, &[&shape[..], &met, &files].concat())?;
    let r = report(&out)?;
    ensure!(code(&out)? == 0 && r["met"] == true, "{r}");
    ensure!(number(&r, "/figures/viewers") == 6.0 && number(&r, "/figures/joins") == 6.0, "{r}");
    // Six viewers, four seconds and what is left of the first, 60 frames each.
    ensure!(number(&r, "/figures/frames") > 6.0 * 4.0 * 55.0, "{r}");
    let rate = number(&r, "/figures/mbit_per_s");
    ensure!((12.0..28.0).contains(&rate), "{rate} Mbit/s");
    ensure!(
        number(&r, "/figures/relay_cpu_percent") > 0.1 && number(&r, "/figures/generator_cpu_percent") > 0.1,
        "{r}"
    );
    ensure!(r["faults"].as_array().is_some_and(Vec::is_empty), "{r}");
    let junit = std::fs::read_to_string(junit)?;
    ensure!(junit.contains("tests=\"3\" failures=\"0\""), "{junit}");
    let html = std::fs::read_to_string(html)?;
    ensure!(html.contains("all thresholds met") && html.matches("<svg ").count() == 6, "{} bytes", html.len());

    let out = load(&stack, &["--duration", "1", "--threshold", "age_p99_ms < 0.001", "--json"])?;
    let r = report(&out)?;
    ensure!(code(&out)? == 99 && r["met"] == false && number(&r, "/thresholds/0/measured") > 0.0, "{r}");
    Ok(())
}

#[test]
fn each_fault_that_is_made_on_purpose_is_found_by_its_feed_frame_and_packet() -> anyhow::Result<()> {
    let stack = Stack::start()?;
    for fault in ["corrupt", "reorder", "missing", "stale"] {
        let every = format!("{fault}:40");
        let out = load(&stack, &["--viewers", "2", "--duration", "2", "--ramp", "0.1", "--inject", &every, "--json"])?;
        let r = report(&out)?;
        let (found, injected) = (names(&r["faults"]), names(&r["injected"]));
        println!("{fault}: {} injected, {} found", injected.len(), found.len());
        // The first one may be before the first viewer.
        ensure!(injected.len() >= 3, "{fault}: {r}");
        let unseen: Vec<_> = injected.iter().filter(|i| !found.contains(i)).collect();
        ensure!(unseen.iter().all(|u| u.1 <= 80) && unseen.len() <= 1, "{fault}: {unseen:?}");
        let invented: Vec<_> = found.iter().filter(|f| !injected.contains(f)).collect();
        ensure!(invented.is_empty(), "{fault}: {invented:?}");
        let broken = matches!(fault, "corrupt" | "missing");
        ensure!((number(&r, "/figures/frames_lost") > 0.0) == broken, "{fault}: {r}");
    }
    Ok(())
}

#[test]
fn streams_two_paths_and_webrtc_bring_every_frame_too() -> anyhow::Result<()> {
    let stack = Stack::start()?;
    let scenario = stack.dir.path().join("mix.toml");
    std::fs::write(
        &scenario,
        "thresholds = [\"frames_lost == 0\", \"joins_failed == 0\", \"packets_corrupted == 0\", \"disconnects == 0\"]\n\
         [[publishers]]\nname = \"a\"\nbitrate = 2\npaths = 2\n\
         [[publishers]]\nname = \"b\"\nbitrate = 2\ntransport = \"stream\"\n\
         [[viewers]]\ncount = 2\npaths = 2\n[[viewers]]\ncount = 2\ntransport = \"roq-stream\"\n\
         [[viewers]]\ncount = 2\ntransport = \"webrtc\"\n\
         [[stage]]\nkind = \"ramp\"\nseconds = 0.5\n[[stage]]\nkind = \"hold\"\nseconds = 2\n\
         [[stage]]\nkind = \"churn\"\nseconds = 2\njoins_per_s = 2\nleaves_per_s = 2\n",
    )?;
    let out = load(&stack, &[path(&scenario)?, "--json"])?;
    let r = report(&out)?;
    ensure!(code(&out)? == 0, "{r}");
    ensure!(number(&r, "/figures/joins") > 6.0 && number(&r, "/figures/leaves") >= 3.0, "{r}");
    for viewer in r["viewers"].as_array().context("viewers")? {
        ensure!(number(viewer, "/counts/frames") > 30.0, "{viewer}");
    }
    Ok(())
}

#[test]
fn a_mistake_in_a_scenario_is_named_with_what_would_be_right() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("wrong.toml");
    let right = "[[publishers]]\nbitrate = 1\n[[viewers]]\ncount = 1\n[[stage]]\nkind = \"hold\"\nseconds = 1\n";
    let check = |text: &str| -> anyhow::Result<(i32, String)> {
        std::fs::write(&file, text)?;
        let out = Command::new(trocar()?).args(["load", "check", path(&file)?]).output()?;
        Ok((code(&out)?, format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr))))
    };
    let (status, said) = check(right)?;
    ensure!(status == 0 && said.contains("1 feeds, 1 viewers, ok"), "{status}: {said}");
    for (from, to, says) in [
        ("bitrate", "bitrat", "bitrat"),
        ("bitrate = 1", "bitrate = 0", "Mbit/s from 0.01 to 1000"),
        ("\"hold\"", "\"hald\"", "hald"),
        ("count = 1", "count = 1\nfeeds = [\"x\"]", "nobody publishes \"x\"; of load-0"),
        ("[[publishers]]", "thresholds = [\"age < 3\"]\n[[publishers]]", "there is no figure \"age\""),
    ] {
        let (status, said) = check(&right.replacen(from, to, 1))?;
        ensure!(status == 2 && said.contains("wrong.toml") && said.contains(says), "{to}: {status}: {said}");
    }
    for example in std::fs::read_dir(trocar_media_tests::workspace().join("configs/load"))? {
        let out = Command::new(trocar()?).args(["load", "check"]).arg(example?.path()).output()?;
        ensure!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    }
    Ok(())
}
