//! `trocar link test` against the relay itself: the link of an invitation, and the ways that media can take from here.

use crate::number;
use crate::turn::{SECRET, coturn};
use anyhow::{Context, ensure};
use serde_json::{Value, json};
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};
use trocar_media_tests::netns::Namespace;
use trocar_media_tests::peers::ours::judged;
use trocar_media_tests::process::{Process, trocar};
use trocar_media_tests::stack::{PATIENCE, Stack, path};
use trocar_media_tests::theatre::{Setting, Theatre};

const ENABLED: &str = "[link_test]\nenabled = true\nlisten = \"127.0.0.1:0\"\n";

/// A measurement, as short as it may be; with words before it, such as a namespace to run in.
pub(crate) fn test(before: &[&str], target: &str, json: &Path, flags: &[&str]) -> anyhow::Result<Output> {
    let trocar = trocar()?;
    let fixed = ["link", "test", target, "-t", "1", "--profile", "consultation", "--max-rate", "8M"];
    let all: Vec<&str> = before.iter().copied().chain([path(&trocar)?]).chain(fixed).collect();
    let (program, arguments) = all.split_first().context("no program")?;
    Ok(Command::new(program).args(arguments).args(["--json", path(json)?]).args(flags).output()?)
}

pub(crate) fn said(out: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr))
}

pub(crate) fn report(file: &Path) -> anyhow::Result<Value> {
    Ok(serde_json::from_str(&std::fs::read_to_string(file)?)?)
}

pub(crate) fn rung<'a>(report: &'a Value, name: &str) -> anyhow::Result<&'a Value> {
    let ladder = report.pointer("/result/ladder").and_then(Value::as_array).context("ladder")?;
    ladder.iter().find(|r| r["name"] == name).with_context(|| format!("no {name} in {ladder:?}"))
}

#[test]
fn the_line_to_a_relay_is_measured_with_an_engineers_invitation() -> anyhow::Result<()> {
    let stack = Stack::start_with(ENABLED)?;
    let json = stack.dir.path().join("line.json");
    let out = test(&[], &stack.invitation("engineer")?, &json, &[])?;
    let said_all = said(&out);
    let line = judged(&out, &json)?;
    ensure!(number(&line, "/result/directions/0/capacity_mbit_s") > 7.0, "{said_all}");
    ensure!(line.pointer("/result/there").is_some_and(|t| t.to_string().contains(" relay)")), "{line}");
    ensure!(!line.to_string().contains(&stack.text("/tokens/engineer")?), "the secret is in the report");
    for name in ["quic-udp", "webrtc-udp", "ice-tcp"] {
        let rung = rung(&line, name)?;
        ensure!(rung["reachable"] == true && rung["rtt_us"].as_f64() > Some(1.0), "{rung}");
        ensure!(rung["connect_us"].as_f64() >= rung["rtt_us"].as_f64().map(|us| us / 2.0), "{rung}");
    }
    ensure!(rung(&line, "turn-udp")?["latency_class"] == "not offered", "{line}");
    // Who may not measure is told who may, and a node without [link_test] which line it lacks.
    let out = test(&[], &stack.invitation("observer")?, &json, &[])?;
    ensure!(out.status.code() == Some(1) && said(&out).contains("that of an engineer"), "{}", said(&out));
    let other = Stack::start()?;
    let out = test(&[], &other.invitation("engineer")?, &json, &[])?;
    ensure!(said(&out).contains("[link_test] enabled = true"), "{}", said(&out));
    ensure!(rung(&report(&json)?, "ice-tcp")?["reachable"] == true, "the ways are tried all the same: {}", said(&out));
    Ok(())
}

/// A measurement of a minute that has begun to send.
pub(crate) fn begun(link: &str, more: &[&str]) -> anyhow::Result<Process> {
    let fixed = ["link", "test", link, "-t", "60", "--profile", "consultation", "--max-rate", "1M"];
    let arguments: Vec<&str> = fixed.iter().chain(more).copied().collect();
    let mut running = Process::trocar("trocar link test", &arguments)?;
    running.line(PATIENCE, |l| l.contains("] idle "))?;
    Ok(running)
}

#[test]
fn an_offer_of_control_ends_a_measurement_that_runs_and_none_begins_until_the_team_has_control_again()
-> anyhow::Result<()> {
    let mut theatre = Theatre::open_as(Setting { node: ENABLED.to_owned(), ..Setting::default() })?;
    let link = theatre.stack.invitation("engineer")?;
    let json = theatre.places.dir.join("line.json");
    theatre.local(json!({ "act": "take" }))?;
    let mut running = begun(&link, &[])?;
    theatre.local(json!({ "act": "offer", "set": "camera", "step": "clip the cystic duct" }))?;
    ensure!(running.wait(PATIENCE)?.code() == Some(1), "{}", running.stderr());
    let needed = "control of instruments is being handed over: the line is needed";
    ensure!(running.stderr().contains(needed), "{}", running.stderr());
    let out = test(&[], &link, &json, &[])?;
    ensure!(out.status.code() == Some(1) && said(&out).contains("a measurement fills the line"), "{}", said(&out));

    theatre.local(json!({ "act": "take" }))?;
    let began = Instant::now();
    // The answering end looks four times a second; it has no event that a client could wait for.
    while test(&[], &link, &json, &[])?.status.code() == Some(1) {
        ensure!(began.elapsed() < PATIENCE, "the team has control again, and nothing may be measured");
    }
    // The control: one that runs and whose line nobody needs goes on.
    let mut running = begun(&link, &[])?;
    ensure!(running.wait(Duration::from_secs(2)).is_err(), "it ended by itself: {}", running.stderr());
    Ok(())
}

#[test]
fn where_udp_is_blocked_the_way_that_remains_is_named_with_its_class() -> anyhow::Result<()> {
    let space = Namespace::new()?;
    let host = space.host();
    let stack = Stack::start_with(&format!(
        "[signaling]\nlisten = \"{host}:0\"\n[relay]\nwebrtc = \"{host}:0\"\nquic = \"{host}:0\"\ncontrol = \"{host}:0\"\n\
         [link_test]\nenabled = true\nlisten = \"{host}:0\"\n"
    ))?;
    let link = format!("{}#invitation={}", stack.text("/https")?, stack.text("/tokens/engineer")?);
    let json = stack.dir.path().join("line.json");
    let inside = ["ip", "netns", "exec", space.name()];
    let flags = ["--ca", &stack.text("/ca_file")?];

    let out = test(&inside, &link, &json, &flags)?;
    let open = judged(&out, &json)?;
    ensure!(rung(&open, "webrtc-udp")?["reachable"] == true, "the control: {open}");
    ensure!(!said(&out).contains("what remains"), "{}", said(&out));

    let rules = "add table inet trtest; add chain inet trtest in { type filter hook input priority 0; policy accept; }; \
                 add rule inet trtest in meta l4proto udp drop";
    space.nft(rules)?;
    let out = test(&inside, &link, &json, &flags)?;
    let blocked = judged(&out, &json)?;
    ensure!(blocked.pointer("/verdict/fit") == Some(&json!("unknown")), "{}", said(&out));
    for name in ["quic-udp", "webrtc-udp"] {
        ensure!(rung(&blocked, name)?["reachable"] == false, "{name}: {blocked}");
    }
    ensure!(rung(&blocked, "ice-tcp")?["reachable"] == true, "{blocked}");
    let last = said(&out);
    ensure!(last.contains("what remains is ice-tcp: waits for retransmissions (TCP), round trip"), "{last}");
    Ok(())
}

#[test]
fn a_way_through_turn_is_tried_by_udp_and_by_tls() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()])?;
    let (cert, key) = (dir.path().join("turn.pem"), dir.path().join("turn.key"));
    std::fs::write(&cert, made.cert.pem())?;
    std::fs::write(&key, made.signing_key.serialize_pem())?;
    let tls_port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let more = format!("tls-listening-port={tls_port}\ncert={}\npkey={}\n", path(&cert)?, path(&key)?);
    let (_server, port) = coturn(dir.path(), &more)?;
    for (secret, good) in [(SECRET, true), ("south-entrance-43", false)] {
        let urls = format!("\"turn:127.0.0.1:{port}\", \"turns:127.0.0.1:{tls_port}?transport=tcp\"");
        let stack = crate::turn::stack_with(dir.path(), &urls, secret, ENABLED)?;
        let ca = dir.path().join("both.pem");
        std::fs::write(&ca, [std::fs::read(stack.text("/ca_file")?)?, std::fs::read(&cert)?].concat())?;
        let json = stack.dir.path().join("line.json");
        let out = test(&[], &stack.invitation("engineer")?, &json, &["--ca", path(&ca)?])?;
        let line = judged(&out, &json)?;
        for name in ["turn-udp", "turn-tls"] {
            let rung = rung(&line, name)?;
            ensure!(rung["reachable"] == good, "{secret}: {rung}");
            ensure!(good || rung["detail"].as_str().is_some_and(|d| d.contains("401")), "{rung}");
        }
    }
    Ok(())
}
