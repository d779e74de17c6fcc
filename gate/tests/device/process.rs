//! Section 3 of HANDOVER.md with a real process, measured in its own record.

use crate::sim::{Gate, Home, Sim, is};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::io::Write as _;
use trocar_gate::device::Key;
use trocar_proto::handover::gate::Input;
use trocar_proto::handover::types::{GrantedSet, Selection};

const WATCHDOG: u64 = 150_000;
/// What the device may be later than its watchdog, in microseconds.
const TICK: u64 = 5_000;
/// A stall of the machine above this voids a trial, in microseconds.
const STALL: u64 = 20_000;

fn at(line: &Value) -> u64 {
    line["at"].as_u64().unwrap()
}

/// Time between the last keep-alive and the hold, and how long the machine held the device up meanwhile.
fn silence_to_hold(sim: &Sim, hold: &Value) -> (u64, u64) {
    let serves = |line: &&Value| {
        at(line) <= at(hold)
            && line["event"] == "act"
            && line["verdict"] == "taken"
            && (line["act"] == "keep_alive" || line["act"] == "select")
    };
    let last = sim.seen.iter().rfind(serves).map(at).unwrap();
    let stalls = sim.seen.iter().filter(|line| line["event"] == "stall" && at(line) > last && at(line) <= at(hold));
    (at(hold) - last, stalls.map(|line| line["us"].as_u64().unwrap()).sum())
}

#[test]
fn without_keep_alive_the_device_holds_within_its_watchdog_and_stays_so() {
    // HO-D-005, HO-D-006, HO-D-009, HO-D-014
    let home = Home::new();
    let mut sim = home.start(0, &[]);
    let mut gate = Gate::open(&home, sim.address, 1);
    let mut trials = 0;
    loop {
        gate.remote(&mut sim);
        let sequence = gate.command(GrantedSet::ENERGY, true);
        let moved = sim.wait("a command", |line| is(line, "act", &[("act", "command".into())]));
        assert!(is(&moved, "act", &[("sequence", sequence.into()), ("verdict", "taken".into())]), "{moved}");
        sim.wait("energy", |line| is(line, "change", &[("energy", true.into())]));
        gate.keep_alive();
        let hold = sim.wait("the hold", |line| is(line, "change", &[("why", "watchdog".into())]));
        let after = [("latched", true), ("held", true), ("energy", false)];
        assert!(is(&hold, "change", &after.map(|(name, value)| (name, value.into()))), "{hold}");

        gate.keep_alive();
        gate.command(GrantedSet::INSTRUMENTS, false);
        let late = sim.wait("a late command", |line| is(line, "act", &[("act", "command".into())]));
        assert_eq!(late["reason"], "latched", "{late}");

        let (silence, stalls) = silence_to_hold(&sim, &hold);
        trials += 1;
        println!("watchdog {WATCHDOG} us: held after {silence} us, the machine stalled {stalls} us");
        assert!(silence >= WATCHDOG, "{silence} us is too early");
        if stalls <= STALL {
            assert!(silence <= WATCHDOG + TICK + stalls, "{silence} us is too late, with stalls of {stalls} us");
            break;
        }
        assert!(trials < 10, "ten trials in a row were stalled by the machine");
    }
}

#[test]
fn a_device_that_was_killed_comes_up_with_its_fence_nobody_selected_and_latched() {
    // HO-D-001, HO-D-012, HO-D-013
    let home = Home::new();
    let mut sim = home.start(0, &[]);
    let mut gate = Gate::open(&home, sim.address, 1);
    for _ in 0..3 {
        gate.remote(&mut sim);
    }
    sim.kill();
    let mut sim = home.start(sim.address.port(), &[]);
    let start = sim.wait("its state", |line| is(line, "change", &[("why", "start".into())]));
    let expected = [("selected", json!("nobody")), ("latched", json!(true)), ("highest", json!(3))];
    assert!(is(&start, "change", &expected), "{start}");

    let report = gate.report("the report of the new run", |report| report.latched && report.highest.0 > 0);
    assert_eq!((report.highest.0, report.selected), (3, Selection::Nobody));
    gate.select(Selection::Remote);
    let refused = sim.wait("a selection", |line| is(line, "act", &[("act", "select".into())]));
    assert_eq!(refused["reason"], "latched", "a fence from before the restart moves nothing: {refused}");
    gate.select(Selection::Local);
    gate.report("local", |report| report.selected == Selection::Local);
}

#[test]
fn a_second_gate_is_refused_and_the_first_ones_take_works() {
    // HO-D-002, HO-D-003, HO-X-023
    let home = Home::new();
    let mut sim = home.start(0, &[]);
    let (mut first, mut second) = (Gate::open(&home, sim.address, 1), Gate::open(&home, sim.address, 2));
    first.remote(&mut sim);
    second.fence = 100;
    second.select_anew(Selection::Local);
    let refused = sim.wait_while(
        "the second gate's selection",
        |line| is(line, "act", &[("act", "select".into()), ("fence", 101.into())]),
        || first.keep_alive(),
    );
    assert_eq!(refused["reason"], "not-owner", "{refused}");
    first.select_anew(Selection::Local);
    let report = first.report("the first one's TAKE", |report| report.selected == Selection::Local);
    assert_eq!((report.highest.0, report.owner), (first.fence, Some(first.boot)));
    let report = second.report("the second gate sees whose it is", |report| report.owner.is_some());
    assert_eq!(report.owner, Some(first.boot));
}

#[test]
fn the_override_gives_the_device_to_local_by_signal_and_by_line_and_only_local_ends_it() {
    // HO-D-011
    let home = Home::new();
    let mut sim = home.start(0, &["--override-input"]);
    let mut gate = Gate::open(&home, sim.address, 1);
    for by_signal in [true, false] {
        gate.remote(&mut sim);
        if by_signal {
            sim.signal(Signal::USR1);
        } else {
            sim.child.stdin.as_mut().unwrap().write_all(b"override\n").unwrap();
        }
        let change = sim.wait("the override", |line| is(line, "change", &[("why", "override".into())]));
        assert!(is(&change, "change", &[("selected", "local".into()), ("overridden", true.into())]), "{change}");
        gate.report("the override", |report| report.overridden && report.selected == Selection::Local);
        gate.select_anew(Selection::Nobody);
        let refused = sim.wait("nobody", |line| is(line, "act", &[("act", "select".into()), ("to", "nobody".into())]));
        assert_eq!(refused["reason"], "overridden");
        gate.select(Selection::Local);
        gate.report("local", |report| !report.overridden && report.selected == Selection::Local);
    }
}

#[test]
fn the_surgeon_goes_on_working_without_a_gate() {
    // HO-D-007, HO-X-009
    let home = Home::new();
    let mut sim = home.start(0, &["--local-motion"]);
    let mut gate = Gate::open(&home, sim.address, 1);
    gate.select_anew(Selection::Local);
    let first = sim.wait("local's motion", |line| line["event"] == "local");
    drop(gate); // Not one keep-alive more.
    let last = sim.wait("a second of it", |line| line["event"] == "local" && at(line) > at(&first) + 1_000_000);
    let places: Vec<_> =
        sim.seen.iter().filter(|line| line["event"] == "local").map(|line| &line["position"]).collect();
    assert!(places.windows(2).all(|pair| pair[0] != pair[1]), "it stood still");
    let after = |line: &&Value| line["event"] == "change" && at(line) > at(&first) && at(line) < at(&last);
    let lapsed: Vec<_> = sim.seen.iter().filter(after).collect();
    assert!(lapsed.iter().all(|line| line["selected"] == "local" && line["latched"] == false), "{lapsed:?}");
    assert_eq!(lapsed.len(), 1, "the gate lapsed, once: {lapsed:?}");
}

#[test]
fn a_camera_that_is_pushed_is_told_to_the_core() {
    // HO-S-004
    let home = Home::new();
    let sim = home.start(0, &[]);
    let mut gate = Gate::open(&home, sim.address, 1);
    sim.signal(Signal::USR2);
    gate.input("camera motion", |input| matches!(input, Input::CameraMoved));
}

#[test]
fn sigterm_ends_it_cleanly_and_the_record_is_whole() {
    let home = Home::new();
    let mut sim = home.start(0, &[]);
    sim.signal(Signal::TERM);
    assert!(sim.child.wait().unwrap().success());
    assert_eq!(sim.rest().last().unwrap()["event"], "ended");
}

#[test]
fn a_device_that_does_not_know_its_fence_does_not_start_and_says_which_file() {
    // HO-D-001
    let home = Home::new();
    std::fs::write(home.state(), "trocar-sim-dev").unwrap();
    let output = home.command(0).stderr(std::process::Stdio::piped()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("--state") && said.contains("not a state"), "{said}");
}

#[test]
fn a_gate_with_another_key_has_no_effect_and_hears_nothing() {
    let home = Home::new();
    let mut sim = home.start(0, &[]);
    let other = Home::new();
    assert!(Key::load(&other.key()).is_ok());
    let config = trocar_gate::device::DeviceConfig::Udp {
        address: sim.address,
        key_file: other.key(),
        payload: trocar_gate::device::PayloadFormat::Sim,
    };
    let inbox = trocar_gate::core::Inbox::default();
    let _adapter = trocar_gate::device::open(&config, inbox.clone()).unwrap();
    for _ in 0..3 {
        sim.wait("a refused datagram", |line| is(line, "datagram", &[("refused", "tag".into())]));
    }
    assert!(inbox.pop(std::time::Duration::ZERO).is_none());
}
