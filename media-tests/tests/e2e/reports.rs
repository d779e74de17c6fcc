//! Reports as those get them who did not make them: the page in a browser in both colour schemes and on paper, the verbs that
//! show and compare, and the files for Prometheus and Grafana against a real node.

use crate::runtime;
use anyhow::{Context, ensure};
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use trocar_media_tests::process::trocar;
use trocar_media_tests::stack::{PATIENCE, Stack, path};
use trocar_media_tests::{http_client, workspace};
use trocar_relay::metrics::METRICS;

/// A picture that costs little.
const PICTURE: &[&str] = &["--source", "test:320x180@15"];
/// A measured line that is not fit, as the code of reports writes it.
const EXAMPLE: &str = "configs/schemas/link-report.example.json";

/// Runs `trocar report` with these words: exit code, standard output, standard error.
fn report(words: &[&str]) -> anyhow::Result<(i32, String, String)> {
    let out = Command::new(trocar()?).arg("report").args(words).stdin(Stdio::null()).output()?;
    let text = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
    Ok((out.status.code().context("ended by a signal")?, text(&out.stdout), text(&out.stderr)))
}

fn said(words: &[&str]) -> anyhow::Result<String> {
    let (code, out, error) = report(words)?;
    ensure!(code == 0, "{words:?}: exit {code}: {error}");
    Ok(out)
}

/// The example, and the same line after its rate was raised, both as files.
fn before_and_after(dir: &Path) -> anyhow::Result<(PathBuf, PathBuf)> {
    let before = workspace().join(EXAMPLE);
    let mut value: Value = serde_json::from_slice(&std::fs::read(&before)?)?;
    for way in 0..2 {
        let rate = value.pointer_mut(&format!("/result/directions/{way}/capacity_mbit_s")).context("no capacity")?;
        *rate = 180.0.into();
    }
    let measured = dir.join("measured.json");
    std::fs::write(&measured, value.to_string())?;
    let after = dir.join("after.json");
    let judged = said(&["show", path(&measured)?, "--class", "telesurgery-dual", "--json"])?;
    std::fs::write(&after, judged)?;
    Ok((before, after))
}

#[test]
fn a_report_is_read_in_both_colour_schemes_on_a_phone_and_on_paper_and_fetches_nothing() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let (before, after) = before_and_after(dir.path())?;
    let (page, compared) = (dir.path().join("link-report.html"), dir.path().join("link-compare.html"));
    said(&["show", path(&before)?, "--html", path(&page)?])?;
    said(&["compare", path(&before)?, path(&after)?, "--html", path(&compared)?])?;
    // The control: a page that fetches something and is too wide.
    let spoilt = dir.path().join("spoilt.html");
    let text = "<!DOCTYPE html><div style=\"width: 2000px\">wide</div><img src=\"http://127.0.0.1:9/x.png\">";
    std::fs::write(&spoilt, text)?;
    let artifacts = workspace().join("var/artifacts/reports");
    let mut node = Command::new("node");
    node.arg("report.mjs").arg(&artifacts).args([&page, &compared, &spoilt]);
    let seen = node.current_dir(workspace().join("media-tests/browser")).output()?;
    let lines = String::from_utf8(seen.stdout)?;
    let pages: Vec<Value> = lines.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    ensure!(pages.len() == 3, "{lines}{}", String::from_utf8_lossy(&seen.stderr));
    for page in &pages[..2] {
        ensure!(page["amiss"] == serde_json::json!([]), "{page}");
    }
    ensure!(pages[0]["plots"] == 8 && pages[1]["plots"] == 2, "{lines}");
    let text = pages[0]["text"].as_str().unwrap_or_default();
    ensure!(text.contains("NOT FIT for Telesurgery") && text.contains("What to change"), "{text}");
    ensure!(pages[0]["backgrounds"]["print"] == pages[0]["backgrounds"]["light"], "paper is white: {lines}");
    ensure!(std::fs::metadata(artifacts.join("link-report.pdf"))?.len() > 20_000, "nothing was printed");
    ensure!(seen.status.code() == Some(1), "{lines}");
    for amiss in ["one background", "wider than", "x.png", "image-alt"] {
        ensure!(pages[2]["amiss"].to_string().contains(amiss), "{amiss} was not seen: {}", pages[2]);
    }
    Ok(())
}

#[test]
fn a_report_is_shown_judged_anew_and_compared_and_mistakes_are_named() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let (before, after) = before_and_after(dir.path())?;
    let (before, after, junit) = (path(&before)?, path(&after)?, dir.path().join("junit.xml"));
    let text = said(&["show", before, "--junit", path(&junit)?])?;
    ensure!(text.starts_with("NOT FIT for Telesurgery, both eyes, two paths\n  Rate (up) is 120"), "{text}");
    let xml = std::fs::read_to_string(&junit)?;
    ensure!(xml.contains("<testcase name=\"rate_up_mbit_s\"") && xml.contains("<failure type=\"limit\""), "{xml}");
    ensure!(said(&["show", before, "--ticket"])?.lines().count() == 2, "a ticket is two lines");
    let text = said(&["show", before, "--class", "telementoring-8k"])?;
    ensure!(text.starts_with("FIT for Telementoring, 8K"), "{text}");
    let text = said(&["compare", before, after])?;
    ensure!(text.lines().any(|l| l.contains("Rate (up)") && l.ends_with("better")), "{text}");
    ensure!(text.lines().any(|l| l.contains("Loss (up)") && l.ends_with("within the error bars")), "{text}");
    let classes = said(&["classes"])?;
    ensure!(classes.contains("telesurgery-dual") && classes.contains("Ebihara 2022"), "{classes}");
    for (words, want) in [
        (&["show", "/nonexistent.json"][..], "/nonexistent.json"),
        (&["show", before, "--class", "telepathy"], "telementoring-8k"),
        (&["show", "Cargo.toml"], "Cargo.toml"),
        (&["show", before, "--classes", "Cargo.toml"], "Cargo.toml"),
        (&["show", before, "--at-expert"], "--class"),
    ] {
        let (code, out, error) = report(words)?;
        ensure!(code == 1 && out.is_empty() && error.contains(want), "{words:?}: exit {code}: {out}{error}");
    }
    Ok(())
}

/// Words of a text that look like metrics of ours.
fn metrics_of(text: &str) -> BTreeSet<&str> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != ':');
    words.filter(|w| w.starts_with("trocar_")).collect()
}

#[test]
fn dashboards_and_alerts_speak_only_of_figures_that_a_node_has() -> anyhow::Result<()> {
    let stack = Stack::start()?;
    let _publisher = stack.publish(PICTURE)?;
    let _watch = stack.watch(&["--headless", "--json", "--duration", "4"])?;
    let page = runtime().block_on(async {
        // One refusal, so that the family of refusals has a row.
        http_client()?.get(stack.text("/metrics")?.replace("/metrics", "/v1/sessions/none")).send().await?;
        let end = tokio::time::Instant::now() + PATIENCE;
        loop {
            let text = http_client()?.get(stack.text("/metrics")?).send().await?.error_for_status()?.text().await?;
            if text.contains("trocar_leg_packets_total{") || tokio::time::Instant::now() > end {
                return Ok::<_, anyhow::Error>(text);
            }
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        }
    })?;
    let named = |line: &str| line.split(['{', ' ']).next().map(str::to_owned);
    let on_page: BTreeSet<String> = page.lines().filter(|l| !l.starts_with('#')).filter_map(named).collect();
    // What has no row on this page (a second path, a gate) is known to the relay all the same; a page shows it when there is one.
    // Families of signaling that count by label are there with their help alone until the first.
    let families = page.lines().filter_map(|l| l.strip_prefix("# TYPE ")?.split_once(' '));
    let by_help =
        families.map(|(name, kind)| if kind == "counter" { format!("{name}_total") } else { name.to_owned() });
    let known: BTreeSet<String> = METRICS
        .iter()
        .map(|m| if m.counter { format!("{}_total", m.name) } else { m.name.to_owned() })
        .chain(by_help)
        .chain(on_page.iter().cloned())
        .collect();
    let mut shown = 0;
    for file in [
        "configs/grafana/trocar.json",
        "configs/prometheus/rules/alerts.yml",
        "configs/prometheus/rules/recording.yml",
        "configs/prometheus/tests/alerts.yml",
    ] {
        let text = std::fs::read_to_string(workspace().join(file))?;
        let used = metrics_of(&text);
        ensure!(used.len() > 5, "{file} uses {used:?}");
        for metric in used {
            ensure!(known.contains(metric), "{file}: {metric} is no figure of this node");
            shown += usize::from(on_page.contains(metric));
        }
    }
    ensure!(shown > 30, "only {shown} uses are of figures with rows on a page with a feed and a leg");
    ensure!(metrics_of("rate(trocar_feed_age_total[1m])").iter().all(|m| !known.contains(*m)), "the control");
    // Grafana reads it as JSON; every panel has a query, a title, and an id of its own.
    let board: Value = serde_json::from_slice(&std::fs::read(workspace().join("configs/grafana/trocar.json"))?)?;
    let panels = board["panels"].as_array().context("no panels")?;
    let ids: BTreeSet<u64> = panels.iter().filter_map(|p| p["id"].as_u64()).collect();
    ensure!(ids.len() == panels.len(), "two panels have one id");
    for panel in panels.iter().filter(|p| p["type"] != "row") {
        let title = panel["title"].as_str().unwrap_or_default();
        ensure!(!title.is_empty() && panel["targets"][0]["expr"].is_string(), "{panel}");
        ensure!(panel["description"].as_str().is_some_and(|d| d.len() > 10), "{title} says nothing of what it shows");
    }
    Ok(())
}

/// promtool's exit code and what it said.
fn promtool(words: &[&str]) -> anyhow::Result<(bool, String)> {
    let out = Command::new("promtool").args(words).current_dir(workspace().join("configs/prometheus")).output();
    let out = out.context("promtool comes with Debian's package prometheus: run `make setup`")?;
    Ok((out.status.success(), String::from_utf8_lossy(&[out.stdout, out.stderr].concat()).into_owned()))
}

#[test]
fn promtool_takes_the_configuration_and_the_rules_and_their_tests_can_fail() -> anyhow::Result<()> {
    for words in [
        &["check", "config", "prometheus.yml"][..],
        &["check", "rules", "rules/alerts.yml", "rules/recording.yml"],
        &["test", "rules", "tests/alerts.yml"],
    ] {
        let (right, text) = promtool(words)?;
        ensure!(right, "{words:?}: {text}");
    }
    // The control: with another threshold the same tests fail, and a rule that is no PromQL is refused.
    let dir = tempfile::tempdir()?;
    let copy = |from: &str, change: &dyn Fn(String) -> String| -> anyhow::Result<PathBuf> {
        let to = dir.path().join(from);
        std::fs::create_dir_all(to.parent().context("no directory")?)?;
        std::fs::write(&to, change(std::fs::read_to_string(workspace().join("configs/prometheus").join(from))?))?;
        Ok(to)
    };
    copy("rules/recording.yml", &|t| t)?;
    let test = copy("tests/alerts.yml", &|t| t)?;
    let rules = copy("rules/alerts.yml", &|t| t.replace("trocar_feed_live == 0", "trocar_feed_live == 2"))?;
    let (right, text) = promtool(&["test", "rules", path(&test)?])?;
    ensure!(!right && text.contains("TrocarFeedFrozen"), "{text}");
    std::fs::write(&rules, std::fs::read_to_string(&rules)?.replace("trocar_feed_live == 2", "trocar_feed_live =="))?;
    let (right, text) = promtool(&["check", "rules", path(&rules)?])?;
    ensure!(!right && text.contains("parse error"), "{text}");
    Ok(())
}

/// Where the links of a page lead: path and anchor.
fn links_of(text: &str) -> Vec<(&str, &str)> {
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    targets.filter(|t| !t.contains("://")).map(|t| t.split_once('#').unwrap_or((t, ""))).collect()
}

#[test]
fn every_link_of_these_pages_leads_somewhere() -> anyhow::Result<()> {
    let docs = workspace().join("docs");
    let anchor_of = |heading: &str| -> String {
        let kept = heading.trim_start_matches('#').trim().to_lowercase();
        kept.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c)).collect::<String>().replace(' ', "-")
    };
    let mut followed = 0;
    for page in ["REPORTS.md", "MONITORING.md", "IMPAIR.md"] {
        let text = std::fs::read_to_string(docs.join(page))?;
        for (to, anchor) in links_of(&text) {
            let file = docs.join(if to.is_empty() { page } else { to });
            let there = std::fs::read_to_string(&file).with_context(|| format!("{page} points at {to}"))?;
            let found = anchor.is_empty() || there.lines().any(|l| l.starts_with('#') && anchor_of(l) == anchor);
            ensure!(found, "{page} points at {to}#{anchor}");
            followed += 1;
        }
    }
    ensure!(followed >= 4, "only {followed} links were found");
    ensure!(links_of("[a](b.md#c) [d](https://e)") == [("b.md", "c")], "the control");
    Ok(())
}
