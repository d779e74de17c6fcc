//! Section 3: a stop that the device did not hear is said again, and a device that does not stop is an alarm.

use crate::handover::gate::{Act, Alarms, DeviceAct, DeviceReport, Input, Why};
use crate::handover::message::Mode;
use crate::handover::rig::{BOOT, Rig, ms};
use crate::handover::types::{BootId, Clutch, GrantedSet, Selection};

/// Motion runs, and energy is on.
fn energised() -> Rig {
    let mut rig = Rig::at(Mode::Remote);
    rig.engage();
    rig.world.clutch = Clutch::Closed;
    rig.world.commands = true;
    rig.world.pedal = true;
    rig.run(ms(60));
    assert_eq!(shown(&rig), (true, false));
    rig
}

/// What the device shows: energy on, remote held.
fn shown(rig: &Rig) -> (bool, bool) {
    let report = rig.fence.report();
    (report.energy, report.held)
}

/// Sequences of energy-offs and of holds since the last run.
fn stops(rig: &Rig) -> (Vec<u64>, Vec<u64>) {
    let (mut off, mut hold) = (Vec::new(), Vec::new());
    for act in rig.device_acts() {
        match act {
            DeviceAct::EnergyOff { sequence, .. } => off.push(*sequence),
            DeviceAct::Hold { sequence, .. } => hold.push(*sequence),
            _ => {}
        }
    }
    (off, hold)
}

#[test]
fn a_stop_that_was_lost_is_repeated_with_the_next_keep_alive_until_the_device_reports_it() {
    // HO-D-022, HO-S-005, HO-S-009, HO-I-016
    let mut rig = energised();
    rig.world.clutch = Clutch::Open;
    rig.world.lost_stops = 2;
    rig.run(ms(10));
    assert_eq!(shown(&rig), (true, false), "the negative control: both were lost");
    assert!(!rig.gate.motion_runs());
    rig.run(ms(20));
    assert_eq!(shown(&rig), (false, true));
    rig.run(ms(20));
    // Nothing more is said once the device agrees, and the clutch may stay open.
    rig.run(ms(3_000));
    assert_eq!(stops(&rig), (Vec::new(), Vec::new()));
    assert_eq!((rig.gate.mode(), rig.gate.motion_runs()), (Mode::Remote, false));
}

#[test]
fn every_repetition_has_a_new_sequence_and_a_command_of_after_the_stop_is_above_them_all() {
    // HO-D-022, HO-D-019
    let mut rig = energised();
    rig.world.clutch = Clutch::Open;
    rig.world.lost_stops = 8;
    rig.run(ms(120));
    let (off, hold) = stops(&rig);
    assert!(off.len() >= 5 && hold.len() >= 5, "{off:?} {hold:?}");
    assert!(off.is_sorted_by(|a, b| a < b) && hold.is_sorted_by(|a, b| a < b), "{off:?} {hold:?}");
    assert_eq!(shown(&rig), (false, true));
    let highest = hold.last().max(off.last()).copied();
    rig.world.clutch = Clutch::Closed;
    let before = rig.moved.len();
    rig.run(ms(40));
    assert!(rig.gate.motion_runs() && rig.moved.len() >= before + 2, "{:?}", &rig.moved[before..]);
    let first = rig
        .device_acts()
        .iter()
        .find_map(|a| if let DeviceAct::Command { sequence, .. } = a { Some(*sequence) } else { None });
    assert!(first > highest, "{first:?} after {highest:?}");
    assert_eq!((stops(&rig), rig.refused_by_device), ((Vec::new(), Vec::new()), Vec::new()));
}

#[test]
fn energy_off_alone_is_repeated_while_motion_runs_and_motion_goes_on() {
    // HO-D-022, HO-N-004
    let mut rig = energised();
    // Commands would end the energy as well; the hand holds still for a moment.
    rig.world.commands = false;
    rig.world.pedal = false;
    rig.world.lost_stops = 1;
    rig.run(ms(20));
    assert_eq!((rig.world.lost_stops, shown(&rig)), (0, (true, false)), "the negative control");
    rig.run(ms(30));
    let (off, hold) = stops(&rig);
    assert!(!off.is_empty() && hold.is_empty(), "{off:?} {hold:?}");
    assert_eq!((shown(&rig), rig.gate.motion_runs()), ((false, false), true));
}

#[test]
fn a_device_that_does_not_stop_is_an_alarm_and_ends_remote() {
    // HO-D-023
    let mut rig = energised();
    rig.world.clutch = Clutch::Open;
    rig.world.lost_stops = u32::MAX;
    rig.run(ms(500));
    assert_eq!((rig.gate.mode(), rig.gate.alarms().has(Alarms::DEVICE)), (Mode::Remote, false));
    rig.run(ms(20));
    assert_eq!((rig.gate.mode(), rig.gate.alarms().has(Alarms::DEVICE)), (Mode::Hold, true));
    let [record] = rig.records()[..] else { panic!("{:?}", rig.outs) };
    assert_eq!(record.why, Why::Device);

    // The negative control: the same clutch, and a device that hears.
    let mut hears = energised();
    hears.world.clutch = Clutch::Open;
    hears.run(ms(3_000));
    assert_eq!((hears.gate.mode(), hears.gate.alarms().has(Alarms::DEVICE)), (Mode::Remote, false));
}

/// LOCAL, and for that long the device says this and nothing else.
fn says(report: impl Fn(DeviceReport) -> DeviceReport, us: u64) -> Rig {
    let mut rig = Rig::at(Mode::Local);
    rig.run(ms(40));
    let report = report(rig.fence.report());
    rig.world.reports = false;
    rig.input(Input::Device(report)).unwrap();
    rig.run(us);
    rig
}

#[test]
fn remote_energy_while_local_operates_is_turned_off_and_stays_an_alarm() {
    // HO-D-022, HO-D-023
    let on = |report| DeviceReport { energy: true, ..report };
    let mut rig = says(on, ms(100));
    assert_eq!(stops(&rig).0.len(), 5);
    assert!(!rig.gate.alarms().has(Alarms::DEVICE));
    rig.run(ms(420));
    assert!(rig.gate.alarms().has(Alarms::DEVICE));
    rig.act(Act::Take).unwrap();
    assert_eq!(
        (rig.gate.mode(), rig.gate.alarms().has(Alarms::DEVICE)),
        (Mode::Local, true),
        "TAKE does not answer it"
    );
    let quiet = DeviceReport { energy: false, ..rig.fence.report() };
    rig.input(Input::Device(quiet)).unwrap();
    rig.act(Act::Take).unwrap();
    assert!(!rig.gate.alarms().has(Alarms::DEVICE));
}

#[test]
fn a_gate_that_stands_by_does_not_stop_the_expert_of_the_gate_at_work() {
    // HO-D-022, HO-D-002
    let busy = |report| DeviceReport { selected: Selection::Remote, energy: true, held: false, ..report };
    let another = says(|report| DeviceReport { owner: Some(BootId(BOOT.0 + 1)), ..busy(report) }, ms(600));
    assert_eq!(stops(&another), (Vec::new(), Vec::new()));
    assert!(!another.gate.alarms().has(Alarms::DEVICE));
    // The negative control: its own device.
    let own = says(busy, ms(600));
    assert!(stops(&own).0.len() == 30 && stops(&own).1.len() == 30 && own.gate.alarms().has(Alarms::DEVICE));
}

#[test]
fn a_grant_of_the_camera_sends_no_stop_before_the_first_motion() {
    // HO-D-021, HO-D-022: a device that was just selected holds, and says so.
    let mut rig = Rig::new();
    rig.reach(Mode::Remote, GrantedSet::CAMERA);
    rig.run(ms(400));
    assert_eq!((stops(&rig), shown(&rig)), ((Vec::new(), Vec::new()), (false, true)));
}
