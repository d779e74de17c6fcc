//! `trocar load` on several machines, each a process here: what all counted is one report, an agent that is lost is named and
//! nothing was measured, and strangers are refused at both ends.

use crate::{number, runtime};
use anyhow::{Context as _, ensure};
use serde_json::Value;
use std::collections::BTreeMap;
use std::process::{Command, Output};
use trocar_media_tests::process::{Process, trocar};
use trocar_media_tests::stack::{PATIENCE, Stack, path};
use trocar_testpki::{Authority, Leaf};

/// A machine that waits for coordinators.
struct Agent {
    process: Process,
    address: String,
}

impl Agent {
    /// One with a certificate of the stack's authority.
    fn start(stack: &Stack, name: &str) -> anyhow::Result<Self> {
        let state = stack.dir.path().join("state");
        let mut issue = Command::new(trocar()?);
        issue.args(["ca", "issue", "--dir", path(&state)?, "--role", "relay", "--host", "127.0.0.1", name]);
        let issued = issue.output()?;
        ensure!(issued.status.success(), "{}", String::from_utf8_lossy(&issued.stderr));
        Self::with(stack, path(&state.join(format!("{name}.pem")))?, path(&state.join(format!("{name}.key")))?)
    }

    fn with(stack: &Stack, cert: &str, key: &str) -> anyhow::Result<Self> {
        let (link, ca) = (stack.invitation("local")?, stack.text("/ca_file")?);
        let identity = ["--ca", &ca, "--cert", cert, "--key", key];
        let words = [&["load", "agent", "--listen", "127.0.0.1:0", "--invite", &link][..], &identity].concat();
        let mut process = Process::trocar("trocar load agent", &words)?;
        let line = process.line(PATIENCE, |l| l.starts_with("waiting at "))?;
        Ok(Self { process, address: line.trim_start_matches("waiting at ").to_owned() })
    }
}

/// What starts a coordinator of these agents.
fn words<'a>(ca: &'a str, agents: &'a str, shape: &[&'a str]) -> Vec<&'a str> {
    [&["load", "run", "--agents", agents, "--ca", ca, "--fps", "30", "--bitrate", "1", "--ramp", "0.3"][..], shape]
        .concat()
}

fn coordinate(stack: &Stack, agents: &[&Agent], shape: &[&str]) -> anyhow::Result<Output> {
    let (ca, agents) = (stack.text("/ca_file")?, list(agents));
    Ok(Command::new(trocar()?).args(words(&ca, &agents, shape)).output()?)
}

fn list(agents: &[&Agent]) -> String {
    agents.iter().map(|a| a.address.as_str()).collect::<Vec<_>>().join(",")
}

fn said(out: &Output) -> String {
    String::from_utf8_lossy(&out.stderr).into_owned()
}

#[test]
fn two_agents_count_what_one_report_says_and_thresholds_decide_as_on_one_machine() -> anyhow::Result<()> {
    let stack = Stack::start()?;
    let (a, b) = (Agent::start(&stack, "load-a")?, Agent::start(&stack, "load-b")?);
    let metrics = stack.text("/metrics")?;
    // Every third viewer watches the same feed and every other one is by the same agent, so that feeds cross from one to the other.
    let shape = ["--publishers", "3", "--viewers", "6", "--duration", "4", "--json", "--metrics", &metrics];
    let met = ["--threshold", "frames_lost == 0", "--threshold", "joins_failed == 0"];
    let out = coordinate(&stack, &[&a, &b], &[&shape[..], &met].concat())?;
    ensure!(out.status.code() == Some(0), "{}{}", String::from_utf8_lossy(&out.stdout), said(&out));
    let r: Value = serde_json::from_slice(&out.stdout)?;
    ensure!(r["machines"] == 2 && number(&r, "/figures/viewers") == 6.0, "{}", r["figures"]);
    let mut by_agent: BTreeMap<&str, (usize, f64)> = BTreeMap::new();
    for viewer in r["viewers"].as_array().context("viewers")? {
        let frames = number(viewer, "/counts/frames");
        ensure!(frames > 30.0, "{viewer}");
        let of = by_agent.entry(viewer["agent"].as_str().context("agent")?).or_default();
        *of = (of.0 + 1, of.1 + frames);
    }
    let wanted = [a.address.as_str(), b.address.as_str()];
    ensure!(wanted.iter().all(|w| by_agent.get(w).is_some_and(|(viewers, _)| *viewers == 3)), "{by_agent:?}");
    let sum: f64 = by_agent.values().map(|(_, frames)| frames).sum();
    ensure!(number(&r, "/figures/frames") == sum, "{sum}: {}", r["figures"]);
    // Who was the limit is known to the coordinator, which is no generator itself.
    ensure!(number(&r, "/figures/relay_cpu_percent") > 0.1 && r["limit"]["who"] != "unknown", "{}", r["limit"]);

    // The same agents take the next coordinator; this one wants what nobody can.
    let never = ["--viewers", "2", "--duration", "1", "--threshold", "frames < 1", "--json"];
    let out = coordinate(&stack, &[&a, &b], &never)?;
    let r: Value = serde_json::from_slice(&out.stdout)?;
    ensure!(out.status.code() == Some(99) && r["met"] == false, "{r}");
    Ok(())
}

#[test]
fn an_agent_that_is_lost_is_named_nothing_was_measured_and_the_other_one_serves_on() -> anyhow::Result<()> {
    let stack = Stack::start()?;
    let (a, mut b) = (Agent::start(&stack, "load-a")?, Agent::start(&stack, "load-b")?);
    let (ca, both) = (stack.text("/ca_file")?, list(&[&a, &b]));
    // Longer than anybody waits here: it is the loss that ends it.
    let shape = ["--publishers", "2", "--viewers", "4", "--duration", "600", "--threshold", "frames_lost == 0"];
    let mut coordinator = Process::trocar("trocar load run", &words(&ca, &both, &shape))?;
    runtime().block_on(stack.until_metric("trocar_leg_connected", 4.0))?;
    b.process.signal("KILL")?;
    b.process.wait(PATIENCE)?;
    let code = coordinator.wait(PATIENCE)?.code();
    let (said, printed) = (coordinator.stderr(), coordinator.rest());
    ensure!(code == Some(1) && printed.is_empty(), "{code:?}: {said}\n{printed:?}");
    ensure!(said.contains(&format!("agent {}: the other end is gone", b.address)), "{said}");
    ensure!(!said.contains(&format!("agent {}", a.address)), "{said}");
    let out = coordinate(&stack, &[&a], &["--duration", "1", "--threshold", "frames > 0"])?;
    ensure!(out.status.code() == Some(0), "{}", String::from_utf8_lossy(&out.stdout));
    Ok(())
}

#[test]
fn whoever_shows_a_certificate_of_another_authority_is_refused_at_both_ends() -> anyhow::Result<()> {
    let stack = Stack::start()?;
    let dir = tempfile::tempdir()?;
    let other = Authority::called("Somebody else");
    let stranger = other.issue(&Leaf::device("trocar://local/relay/stranger").at("127.0.0.1"));
    let (cert, key) = stranger.write(dir.path(), "stranger");
    let (cert, key) = (path(&cert)?, path(&key)?);
    let refused = |out: &Output, agent: &Agent| {
        let text = said(out);
        ensure!(out.status.code() == Some(1) && text.contains(&format!("agent {}", agent.address)), "{text}");
        ensure!(out.stdout.is_empty(), "something was measured");
        Ok(text)
    };
    let agent = Agent::with(&stack, cert, key)?;
    let text = refused(&coordinate(&stack, &[&agent], &["--duration", "1"])?, &agent)?;
    ensure!(text.contains("UnknownIssuer"), "{text}");

    let mut agent = Agent::start(&stack, "load-a")?;
    refused(&coordinate(&stack, &[&agent], &["--duration", "1", "--cert", cert, "--key", key])?, &agent)?;
    // The control: with a certificate of its own authority the same agent takes the same coordinator.
    let out = coordinate(&stack, &[&agent], &["--duration", "1", "--threshold", "frames > 0"])?;
    ensure!(out.status.code() == Some(0), "{}", said(&out));
    agent.process.stop()?;
    ensure!(agent.process.stderr().contains("is refused"), "{}", agent.process.stderr());
    Ok(())
}
