//! `trocar load`, short: thresholds decide the exit code, each fault that is made on purpose is found and named, every way
//! of watching brings every frame, and a mistake in a scenario is told.

use crate::number;
use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output};
use trocar_media_tests::process::trocar;
use trocar_media_tests::stack::{Stack, path};

/// Runs `trocar load run` against the stack, which is watched by its process.
fn load(stack: &Stack, arguments: &[&str]) -> anyhow::Result<Output> {
    let pid = stack.up.id().to_string();
    blind(stack, &[&["--relay-pid", &pid][..], arguments].concat())
}

/// The same where nobody says what the relay costs.
fn blind(stack: &Stack, arguments: &[&str]) -> anyhow::Result<Output> {
    let (link, ca) = (stack.invitation("local")?, stack.text("/ca_file")?);
    let mut command = Command::new(trocar()?);
    command.args(["load", "run", "--invite", &link, "--ca", &ca]).args(arguments);
    Ok(command.output()?)
}

/// A page of figures that says this and nothing else, for as long as the test runs; where.
fn page_of(figures: &'static str) -> anyhow::Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut head = BufReader::new(&stream).lines().map_while(Result::ok);
            if head.any(|line| line.is_empty()) {
                // Who asked may be gone.
                let length = figures.len();
                let _ =
                    write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{figures}");
            }
        }
    });
    Ok(format!("http://{address}"))
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

/// Faults of a list by name, as they stand there.
fn names(report: &Value, list: &str) -> Vec<Value> {
    let all = report[list].as_array().into_iter().flatten();
    all.map(|f| json!([f["fault"], f["feed"], f["frame"], f["packet"]])).collect()
}

/// The page, as somebody opens it who got it by mail; the controls of that look are with the reports of a line.
fn is_readable(html: &Path) -> anyhow::Result<()> {
    let artifacts = trocar_media_tests::workspace().join("var/artifacts/reports");
    let mut node = Command::new("node");
    node.arg("report.mjs").args([&artifacts, html]);
    let seen = node.current_dir(trocar_media_tests::workspace().join("media-tests/browser")).output()?;
    let said = String::from_utf8_lossy(&seen.stderr);
    let page: Value = serde_json::from_slice(&seen.stdout).with_context(|| said.into_owned())?;
    ensure!(page["amiss"] == json!([]) && page["plots"] == 6, "{page}");
    ensure!(page["text"].as_str().is_some_and(|t| t.contains("all thresholds met")), "{page}");
    Ok(())
}

#[test]
fn thresholds_that_a_relay_meets_end_with_0_and_one_that_none_meets_ends_with_99() -> anyhow::Result<()> {
    let stack = Stack::start()?;
    let (junit, html) = (stack.dir.path().join("load.xml"), stack.dir.path().join("load.html"));
    let files = ["--junit", path(&junit)?, "--html", path(&html)?, "--json"];
    let shape = ["--publishers", "2", "--viewers", "6", "--bitrate", "4", "--duration", "4"];
    let met = ["--threshold", "age_p99_ms < 500", "--threshold", "joins_failed == 0"];
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
    let junit = std::fs::read_to_string(junit)?;
    ensure!(junit.contains(" tests=\"2\"") && junit.contains(" failures=\"0\""), "{junit}");
    is_readable(&html)?;

    let out = load(&stack, &["--ramp", "0.1", "--duration", "1", "--threshold", "age_p99_ms < 0.001", "--json"])?;
    let r = report(&out)?;
    ensure!(code(&out)? == 99 && r["met"] == false && number(&r, "/thresholds/0/measured") > 0.0, "{r}");
    Ok(())
}

#[test]
fn what_the_relay_costs_is_known_by_its_metrics_alone_and_not_known_where_they_do_not_say() -> anyhow::Result<()> {
    let stack = Stack::start()?;
    let shape = ["--viewers", "4", "--bitrate", "8", "--ramp", "0.1", "--duration", "4", "--json"];
    let metrics = stack.text("/metrics")?;
    let r = report(&blind(&stack, &[&shape[..], &["--metrics", &metrics]].concat())?)?;
    let samples = r["samples"].as_array().context("samples")?;
    let last = samples.last().context("no second was sampled")?;
    let (relay, thread) = (number(last, "/relay_cpu"), number(last, "/relay_thread_cpu"));
    ensure!(number(&r, "/figures/relay_cpu_percent") > 0.1 && thread > 0.1, "{}", r["figures"]);
    // The process is its workers and signaling.
    ensure!(thread <= relay && r["limit"]["who"] != "unknown", "{relay} % {thread} %: {}", r["limit"]);

    // The controls: a page that says other things, and nobody at that address.
    let other = page_of("# TYPE trocar_relay_up gauge\ntrocar_relay_up 1\n# EOF\n")?;
    let r = report(&blind(&stack, &["--ramp", "0.1", "--duration", "2", "--json", "--metrics", &other])?)?;
    ensure!(r["figures"]["relay_cpu_percent"].is_null() && r["limit"]["who"] == "unknown", "{}", r["limit"]);
    let why = r["limit"]["why"].as_str().unwrap_or_default();
    ensure!(why.contains("is not known") && why.contains("process_cpu_seconds_total"), "{why}");
    let closed = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let out = blind(&stack, &["--metrics", &format!("http://{closed}")])?;
    let said = String::from_utf8_lossy(&out.stderr);
    ensure!(code(&out)? == 1 && said.contains("--metrics http://127.0.0.1"), "{said}");
    Ok(())
}

#[test]
fn each_fault_that_is_made_on_purpose_is_found_by_its_feed_frame_and_packet() -> anyhow::Result<()> {
    let stack = Stack::start()?;
    for fault in ["corrupt", "reorder", "missing", "stale"] {
        let every = format!("{fault}:16");
        let out = load(&stack, &["--viewers", "2", "--ramp", "0.1", "--duration", "2", "--inject", &every, "--json"])?;
        let r = report(&out)?;
        let (found, injected) = (names(&r, "faults"), names(&r, "injected"));
        // The first ones may be from before the viewers; from the first that is found on, none is missed and none invented.
        let seen = injected.iter().position(|i| found.contains(i)).map_or(&[][..], |first| &injected[first..]);
        println!("{fault}: {} injected, {} found", injected.len(), found.len());
        ensure!(seen.len() >= 3 && seen.iter().all(|i| found.contains(i)), "{fault}: {r}");
        ensure!(found.len() == seen.len(), "{fault}: {found:?} of {injected:?}");
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
         [[stage]]\nkind = \"churn\"\nseconds = 2\njoins_per_s = 2\nleaves_per_s = 2\n\
         [[stage]]\nkind = \"hold\"\nseconds = 1\n",
    )?;
    let out = load(&stack, &[path(&scenario)?, "--json"])?;
    let r = report(&out)?;
    ensure!(code(&out)? == 0, "{r}");
    // At 0.25 s and every half second one leaves, and in between one comes back.
    ensure!(number(&r, "/figures/joins") > 6.0 && number(&r, "/figures/leaves") >= 3.0, "{r}");
    for viewer in r["viewers"].as_array().context("viewers")? {
        ensure!(number(viewer, "/counts/frames") > 60.0, "{viewer}");
    }
    Ok(())
}

/// Two feeds and four viewers, between two calm stages of which another one lies.
fn with_middle_stage(stack: &Stack, stage: &str) -> anyhow::Result<Value> {
    let scenario = stack.dir.path().join("middle.toml");
    let text = format!(
        "thresholds = [\"joins_failed == 0\"]\n[[publishers]]\ncount = 2\nbitrate = 1\nfps = 30\n[[viewers]]\ncount = 4\n\
         [[stage]]\nkind = \"ramp\"\nseconds = 0.4\n[[stage]]\nkind = \"hold\"\nseconds = 2\n\
         [[stage]]\n{stage}\nseconds = 3\n[[stage]]\nkind = \"hold\"\nseconds = 3\n"
    );
    std::fs::write(&scenario, text)?;
    let out = load(stack, &[path(&scenario)?, "--json"])?;
    ensure!(code(&out)? == 0, "{}", String::from_utf8_lossy(&out.stderr));
    report(&out)
}

/// How many viewers there were in the seconds of that kind of stage.
fn viewers_in(r: &Value, stage: &str) -> Vec<u64> {
    let samples = r["samples"].as_array().into_iter().flatten();
    samples.filter(|s| s["stage"] == stage).filter_map(|s| s["viewers"].as_u64()).collect()
}

#[test]
fn a_kill_shows_as_a_gap_and_lost_connections_and_everybody_comes_back() -> anyhow::Result<()> {
    let stack = Stack::start()?;
    let r = with_middle_stage(&stack, "kind = \"kill\"\nviewers = 2\npublishers = 1")?;
    let gap = number(&r, "/figures/gap_max_ms");
    // Three seconds without the first feed, whatever it took to notice and to come back.
    ensure!(gap >= 2_900.0, "{gap} ms: {}", r["figures"]);
    ensure!(number(&r, "/figures/disconnects") == 2.0 && number(&r, "/figures/leaves") == 0.0, "{}", r["figures"]);
    ensure!(number(&r, "/figures/joins") == 6.0, "four came and two came back: {}", r["figures"]);
    ensure!(viewers_in(&r, "kill").contains(&2), "nobody was gone: {}", r["samples"]);
    ensure!(viewers_in(&r, "hold").last() == Some(&4), "not everybody is back: {}", r["samples"]);
    for viewer in r["viewers"].as_array().context("viewers")? {
        // The killed ones were without a picture, and so was everybody of the killed feed. The fourth one noticed nothing.
        let hit = viewer["viewer"] != 3;
        let own = number(viewer, "/gap_ms");
        ensure!((own >= 2_900.0) == hit, "{own} ms: {viewer}");
        let seconds = viewer["seconds"].as_array().into_iter().flatten().rev().filter_map(Value::as_i64);
        ensure!(seconds.take(3).any(|age| age >= 0), "no frame came in the end: {viewer}");
    }
    // The control: the same without a kill.
    let r = with_middle_stage(&stack, "kind = \"hold\"")?;
    let calm = number(&r, "/figures/gap_max_ms");
    println!("longest gap with a kill of 3 s {gap} ms, without {calm} ms");
    ensure!(calm < 2_900.0 && number(&r, "/figures/disconnects") == 0.0, "{calm} ms: {}", r["figures"]);
    ensure!(number(&r, "/figures/joins") == 4.0 && viewers_in(&r, "kill").is_empty(), "{}", r["figures"]);
    Ok(())
}

#[test]
fn a_mistake_in_a_scenario_ends_with_2_and_names_the_file_and_the_examples_are_right() -> anyhow::Result<()> {
    let check = |file: &Path| -> anyhow::Result<(i32, String)> {
        let out = Command::new(trocar()?).args(["load", "check", path(file)?]).output()?;
        Ok((code(&out)?, format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr))))
    };
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("wrong.toml");
    let right = "[[publishers]]\nbitrate = 1\n[[viewers]]\ncount = 1\n[[stage]]\nkind = \"hold\"\nseconds = 1\n";
    for (from, to, wanted, says) in [
        ("", "", 0, "1 feeds, 1 viewers, ok"),
        ("bitrate", "bitrat", 2, "bitrat"),
        ("bitrate = 1", "bitrate = 0", 2, "Mbit/s from 0.01 to 1000"),
    ] {
        std::fs::write(&file, right.replacen(from, to, 1))?;
        let (status, said) = check(&file)?;
        ensure!(status == wanted && said.contains("wrong.toml") && said.contains(says), "{to}: {status}: {said}");
    }
    let folder = trocar_media_tests::workspace().join("configs/load");
    let mut examples = 0;
    for example in std::fs::read_dir(&folder)? {
        let example = example?.path();
        if example.is_dir() {
            continue;
        }
        let (status, said) = check(&example)?;
        ensure!(status == 0, "{said}");
        examples += 1;
    }
    ensure!(examples > 0, "no examples");
    // Nodes for those that a usual one is too small for, each with the name of its scenario.
    let mut nodes = 0;
    for node in std::fs::read_dir(folder.join("nodes"))? {
        let node = node?.path();
        let out = Command::new(trocar()?).args(["config", "check", path(&node)?]).output()?;
        ensure!(code(&out)? == 0, "{}", String::from_utf8_lossy(&out.stderr));
        ensure!(folder.join(node.file_name().context("no name")?).is_file(), "{} is for no scenario", node.display());
        nodes += 1;
    }
    ensure!(nodes > 0, "no nodes");
    Ok(())
}
