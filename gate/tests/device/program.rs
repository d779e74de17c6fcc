//! A program of the user's own behind `stdio`: the one in docs/DEVICES.md, as it is printed there.

use crate::sim::{Gate, Home};
use std::path::PathBuf;
use std::time::{Duration, Instant};
use trocar_gate::core::{Device as _, Inbox};
use trocar_gate::device::{DeviceConfig, DeviceError, PayloadFormat, open};
use trocar_proto::handover::device_wire::sim;
use trocar_proto::handover::gate::{DeviceAct, DeviceReport};
use trocar_proto::handover::message::Pose;
use trocar_proto::handover::types::{Epoch, GrantedSet, Selection};

fn printed() -> &'static str {
    let page = include_str!("../../../docs/DEVICES.md");
    let (_, rest) = page.split_once("```python\n").unwrap();
    rest.split_once("```").unwrap().0
}

fn start(home: &Home) -> Gate {
    let script = home.path().join("arm.py");
    std::fs::write(&script, printed()).unwrap();
    let args = vec![script.display().to_string(), home.path().join("fence").display().to_string()];
    let config = DeviceConfig::Stdio { program: "python3".into(), args, payload: PayloadFormat::Sim };
    Gate::with(&config, 0xaa)
}

fn is_held(report: &DeviceReport) -> bool {
    report.latched
}

#[test]
fn the_documented_program_selects_moves_holds_and_keeps_its_fence() {
    // HO-D-001, HO-D-005, HO-D-006, HO-D-008, HO-D-012
    let home = Home::new();
    let mut gate = start(&home);
    gate.select_anew(Selection::Remote);
    let report = gate.report("remote", |report| report.selected == Selection::Remote);
    assert_eq!((report.highest, report.owner, report.latched), (Epoch(1), Some(gate.boot), false));
    gate.command(GrantedSet::INSTRUMENTS, false);
    let pose = sim::Pose { motion_zero: true, orientation: sim::UPRIGHT, grip: 0 };
    let judged = gate.device.judge(&Pose::new(pose.encode()).unwrap());
    assert!(judged.orientation == 0 && judged.grip_matched && judged.motion_zero, "{judged:?}");

    gate.sequence = 0; // No keep-alive while waiting.
    gate.report("the watchdog's hold", is_held);
    gate.sequence = 2;
    gate.select(Selection::Remote);
    gate.report("still held", is_held);
    gate.select_anew(Selection::Local);
    gate.report("local", |report| report.selected == Selection::Local && report.highest == Epoch(2));

    drop(gate); // Its standard input ends, and with it the program.
    let again = start(&home);
    assert_eq!(again.fence, 2, "the fence is on its disk");
}

#[test]
fn a_program_that_ended_is_silence_and_never_an_error_of_the_core() {
    let inbox = Inbox::default();
    let config = DeviceConfig::Stdio { program: "true".into(), args: Vec::new(), payload: PayloadFormat::Sim };
    let counters = std::sync::Arc::<trocar_gate::device::Counters>::default();
    let mut device =
        trocar_gate::device::open_counted(&config, inbox.clone(), std::sync::Arc::clone(&counters)).unwrap();
    let lost = || counters.named().into_iter().find(|(name, _)| *name == "device acts lost").unwrap().1;
    let until = Instant::now() + Duration::from_secs(20);
    while lost() == 0 {
        assert!(Instant::now() < until, "acts to a program that ended are counted as lost");
        device.act(&DeviceAct::Hold { fence: Epoch(1), sequence: 1 });
        assert!(inbox.pop(Duration::from_millis(5)).is_none(), "nothing was reported");
    }
}

#[test]
fn a_program_that_is_not_there_is_named() {
    let program = PathBuf::from("/nonexistent/arm");
    let config = DeviceConfig::Stdio { program, args: Vec::new(), payload: PayloadFormat::Sim };
    let error = open(&config, Inbox::default()).err().unwrap();
    assert!(matches!(error, DeviceError::Program { .. }) && error.to_string().contains("/nonexistent/arm"), "{error}");
}
