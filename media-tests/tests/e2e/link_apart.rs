//! `trocar link test` against one of several relays that run apart from signaling.

use crate::link_relay::{begun, report, rung, said, test};
use crate::number;
use anyhow::{Context, ensure};
use serde_json::{Value, json};
use std::time::Instant;
use trocar_media_tests::cluster::{Cluster, LINK_TEST};
use trocar_media_tests::stack::PATIENCE;
use trocar_media_tests::theatre::{Setting, Theatre};

const EDGE: [&str; 2] = ["--relay", "edge"];

/// What a relay has printed of itself.
fn of(cluster: &mut Cluster, relay: &str, pointer: &str) -> anyhow::Result<String> {
    let report = &cluster.relay(relay)?.report;
    let found = report.pointer(pointer).and_then(Value::as_str).map(ToOwned::to_owned);
    found.with_context(|| format!("{pointer} is not in {report}"))
}

#[test]
fn of_several_relays_the_one_that_is_named_is_measured_and_nothing_of_another_is_shown_for_it() -> anyhow::Result<()> {
    let all: [(&str, &[&str], &str); 3] =
        [("theatre", &["feeds", "legs"], LINK_TEST), ("edge", &["legs"], LINK_TEST), ("west", &["legs"], "")];
    let mut cluster = Cluster::start_with(&all, &[])?;
    let link = cluster.stack.invitation("engineer")?;
    let json = cluster.stack.dir.path().join("line.json");
    let out = test(&[], &link, &json, &EDGE)?;
    ensure!(matches!(out.status.code(), Some(0 | 99)), "{}", said(&out));
    let line = report(&json)?;
    ensure!(number(&line, "/result/directions/0/capacity_mbit_s") > 0.0, "{}", said(&out));
    ensure!(
        line.pointer("/result/there").is_some_and(|t| t.to_string().contains(", relay edge (trocar-relay ")),
        "{line}"
    );
    for (name, at) in [("quic-udp", "quic"), ("webrtc-udp", "webrtc"), ("ice-tcp", "webrtc")] {
        let (rung, at) = (rung(&line, name)?, of(&mut cluster, "edge", &format!("/listeners/0/{at}"))?);
        ensure!(rung["reachable"] == true && rung["detail"].as_str().is_some_and(|d| d.contains(&at)), "{at}: {rung}");
    }
    let began = |cluster: &mut Cluster, relay: &str| {
        anyhow::Ok(cluster.relay(relay)?.process.stderr().contains(" measures, by "))
    };
    ensure!(began(&mut cluster, "edge")? && !began(&mut cluster, "theatre")?, "another one was measured");

    // Without a name those that answer are named, with a wrong one all of them, and one that answers none says what it lacks.
    let out = test(&[], &link, &json, &[])?;
    ensure!(out.status.code() == Some(1) && said(&out).contains("name one of theatre, edge"), "{}", said(&out));
    let out = test(&[], &link, &json, &["--relay", "north"])?;
    ensure!(
        out.status.code() == Some(1) && said(&out).contains("those here are theatre, edge, west"),
        "{}",
        said(&out)
    );
    let out = test(&[], &link, &json, &["--relay", "west"])?;
    ensure!(
        said(&out).contains("relay west: the relay's configuration has no [link_test] enabled = true"),
        "{}",
        said(&out)
    );
    let west = of(&mut cluster, "west", "/listeners/0/webrtc")?;
    let rungs = report(&json)?;
    let its = rung(&rungs, "webrtc-udp")?;
    ensure!(its["detail"].as_str().is_some_and(|d| d.contains(&west)), "its own ways are tried all the same: {its}");
    let out = test(&[], &cluster.stack.invitation("observer")?, &json, &EDGE)?;
    ensure!(out.status.code() == Some(1) && said(&out).contains("that of an engineer"), "{}", said(&out));

    // Nobody is there any more to say that nobody operates.
    let mut running = begun(&link, &EDGE)?;
    cluster.stack.kill()?;
    ensure!(running.wait(PATIENCE)?.code() == Some(1), "{}", running.stderr());
    ensure!(running.stderr().contains("signaling says no more that nobody operates"), "{}", running.stderr());
    Ok(())
}

#[test]
fn an_offer_of_control_by_one_relay_ends_a_measurement_at_another_until_the_team_has_control_again()
-> anyhow::Result<()> {
    let mut theatre = Theatre::open_as(Setting { measured: true, ..Setting::default() })?;
    let link = theatre.stack.invitation("engineer")?;
    let json = theatre.places.dir.join("line.json");
    theatre.local(json!({ "act": "take" }))?;
    let mut running = begun(&link, &EDGE)?;
    theatre.local(json!({ "act": "offer", "set": "camera", "step": "clip the cystic duct" }))?;
    ensure!(running.wait(PATIENCE)?.code() == Some(1), "{}", running.stderr());
    let needed = "control of instruments is being handed over: the line is needed";
    ensure!(running.stderr().contains(needed), "{}", running.stderr());
    for (relay, through) in [("edge", "through relay theatre"), ("theatre", "through this relay")] {
        let out = test(&[], &link, &json, &["--relay", relay])?;
        ensure!(out.status.code() == Some(1) && said(&out).contains(through), "{relay}: {}", said(&out));
    }

    theatre.local(json!({ "act": "take" }))?;
    let began = Instant::now();
    // The relay looks four times a second; it has no event that a client could wait for.
    while test(&[], &link, &json, &EDGE)?.status.code() == Some(1) {
        ensure!(began.elapsed() < PATIENCE, "the team has control again, and nothing may be measured");
    }
    Ok(())
}
