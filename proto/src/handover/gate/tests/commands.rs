//! Sections 9 and 10: motion and energy.

use crate::handover::gate::{Act, DeviceAct, Input, Judgement, Output};
use crate::handover::message::{Mode, Reason};
use crate::handover::rig::{CX, GOOD, Rig, ms};
use crate::handover::types::{Clutch, Epoch, GrantedSet};
use crate::units::Micros;

fn running() -> Rig {
    let mut rig = Rig::at(Mode::Remote);
    rig.engage();
    rig.world.clutch = Clutch::Closed;
    rig.world.commands = true;
    rig
}

#[test]
fn commands_move_the_device_once_each_in_order_with_the_granted_set() {
    // HO-S-012, HO-S-014, HO-S-016, HO-I-004
    let mut rig = running();
    rig.run(ms(100));
    assert!(rig.moved.len() >= 9 && rig.moved.is_sorted_by(|a, b| a < b), "{:?}", rig.moved);
    let sets: Vec<_> = rig
        .device_acts()
        .iter()
        .filter_map(|a| if let DeviceAct::Command { set, .. } = a { Some(*set) } else { None })
        .collect();
    assert!(sets.iter().all(|s| *s == GrantedSet::ENERGY));
    assert_eq!(rig.refused_by_device, []);
}

#[test]
fn the_command_that_closes_the_clutch_moves_nothing() {
    // HO-S-011
    let mut rig = Rig::at(Mode::Remote);
    rig.engage();
    assert_eq!(rig.moved, [0_u64; 0]);
    rig.command(Clutch::Closed).unwrap();
    assert_eq!(rig.moved, [rig.counter]);
}

/// Spoils something while motion runs and waits; then the device holds, energy is off and REMOTE goes on.
fn stops(spoil: impl FnOnce(&mut Rig), wait: u64) {
    let mut rig = running();
    rig.world.pedal = true;
    rig.run(ms(60));
    assert!(rig.energy, "the negative control");
    spoil(&mut rig);
    rig.run(wait);
    assert_eq!(rig.gate.mode(), Mode::Remote);
    assert!(!rig.gate.motion_runs());
    assert!(!rig.energy);
    let moved = rig.moved.len();
    rig.run(ms(20));
    assert_eq!(rig.moved.len(), moved);
}

#[test]
fn silence_presence_clutch_frames_and_anothers_hand_on_the_camera_stop_motion_and_energy() {
    // HO-S-001, HO-S-002, HO-S-003, HO-S-004, HO-S-005, HO-F-004, HO-I-014, HO-I-016, HO-X-001, HO-X-004
    stops(
        |rig| {
            rig.world.heartbeats = false;
            rig.world.commands = false;
        },
        ms(170),
    );
    stops(|rig| rig.world.presence = false, ms(30));
    stops(|rig| rig.world.clutch = Clutch::Open, ms(20));
    stops(|rig| rig.world.frames = false, ms(200));
    stops(|rig| rig.world.echo = false, ms(200));
    stops(|rig| rig.world.frozen = true, ms(340));
    stops(|rig| rig.input(Input::CameraMoved).unwrap(), ms(10));
}

#[test]
fn a_stop_takes_effect_in_the_same_step() {
    // HO-S-005
    let mut rig = running();
    rig.world.presence = false;
    rig.beat().unwrap();
    let acts = rig.device_acts();
    assert!(matches!(acts[..2], [DeviceAct::EnergyOff { .. }, DeviceAct::Hold { .. }]), "{acts:?}");
}

#[test]
fn foreign_camera_motion_does_not_stop_a_holder_of_the_camera_alone() {
    // HO-S-004
    let mut rig = Rig::new();
    rig.reach(Mode::Remote, GrantedSet::CAMERA);
    rig.engage();
    rig.input(Input::CameraMoved).unwrap();
    assert!(rig.gate.motion_runs());
}

#[test]
fn motion_resumes_only_by_a_clutch_that_is_opened_and_closed() {
    // HO-S-006, HO-S-008, HO-I-010
    let mut rig = running();
    rig.world.heartbeats = false;
    rig.world.commands = false;
    rig.run(ms(200));
    rig.world.heartbeats = true;
    rig.run(ms(60));
    assert!(!rig.gate.motion_runs(), "not by itself");
    assert_eq!(rig.command(Clutch::Closed), Err(Reason::MotionStopped), "not by a clutch that was never opened");
    rig.command(Clutch::Open).unwrap();
    rig.world.judgement = Judgement { grip_matched: false, ..GOOD };
    rig.run(ms(40));
    assert_eq!(rig.command(Clutch::Closed), Err(Reason::NotAligned));
    rig.world.judgement = GOOD;
    rig.run(ms(40));
    assert_eq!(rig.command(Clutch::Closed), Err(Reason::MotionStopped), "closed in vain: it has to be opened again");
    rig.command(Clutch::Open).unwrap();
    rig.command(Clutch::Closed).unwrap();
    assert!(rig.gate.motion_runs());
}

#[test]
fn after_a_released_presence_the_hand_has_to_come_back_first() {
    // HO-S-007, HO-S-008
    let mut rig = running();
    rig.world.commands = false;
    rig.world.presence = false;
    rig.beat().unwrap();
    rig.command(Clutch::Open).unwrap();
    assert_eq!(rig.command(Clutch::Closed), Err(Reason::MotionStopped));
    rig.world.presence = true;
    rig.beat().unwrap();
    assert!(!rig.gate.motion_runs());
    assert_eq!(rig.command(Clutch::Closed), Err(Reason::MotionStopped));
    rig.command(Clutch::Open).unwrap();
    rig.command(Clutch::Closed).unwrap();
    assert!(rig.gate.motion_runs());
}

#[test]
fn an_open_clutch_may_last_and_any_other_stop_becomes_hold_after_a_second() {
    // HO-S-009, HO-S-010
    let mut rig = running();
    rig.world.clutch = Clutch::Open;
    rig.run(ms(5_000));
    assert_eq!(rig.gate.mode(), Mode::Remote);
    rig.world.presence = false;
    rig.run(ms(900));
    assert_eq!(rig.gate.mode(), Mode::Remote);
    rig.run(ms(200));
    assert_eq!(rig.gate.mode(), Mode::Hold);
}

#[test]
fn a_command_that_grew_too_old_while_it_waited_is_not_handed_out() {
    // HO-S-012, HO-S-013, HO-I-005
    let mut rig = running();
    rig.run(ms(60));
    let command = rig.cmd(Clutch::Closed);
    rig.gate.handle(Micros(rig.now), Input::Command(CX, command)).unwrap();
    let late = Micros(rig.now + ms(140));
    let out: Vec<_> = std::iter::from_fn(|| rig.gate.poll(late)).collect();
    assert!(out.iter().any(|o| matches!(o, Output::Device(DeviceAct::Command { .. }))), "the negative control");
    let mut rig = running();
    rig.run(ms(60));
    rig.world.delay = ms(100);
    let command = rig.cmd(Clutch::Closed);
    rig.gate.handle(Micros(rig.now), Input::Command(CX, command)).unwrap();
    let late = Micros(rig.now + ms(140));
    let out: Vec<_> = std::iter::from_fn(|| rig.gate.poll(late)).collect();
    assert!(out.contains(&Output::Refused(CX, Reason::TooOld)), "{out:?}");
    assert!(!out.iter().any(|o| matches!(o, Output::Device(DeviceAct::Command { .. }))));
}

#[test]
fn a_command_with_a_loop_age_above_the_limit_is_refused() {
    // HO-S-013
    let mut rig = running();
    rig.run(ms(300));
    rig.world.delay = ms(201);
    assert_eq!(rig.command(Clutch::Closed), Err(Reason::TooOld));
    rig.world.delay = ms(160);
    assert_eq!(rig.command(Clutch::Closed), Ok(()));
}

#[test]
fn commands_in_the_queue_are_gone_after_take() {
    // HO-S-005, HO-X-005
    let mut rig = running();
    let (a, b) = (rig.cmd(Clutch::Closed), rig.cmd(Clutch::Closed));
    rig.gate.handle(Micros(rig.now), Input::Command(CX, a)).unwrap();
    rig.gate.handle(Micros(rig.now), Input::Command(CX, b)).unwrap();
    let moved = rig.moved.len();
    rig.act(Act::Take).unwrap();
    assert_eq!(rig.moved.len(), moved);
    let late = rig.cmd(Clutch::Closed);
    assert_eq!(rig.input(Input::Command(CX, late)), Err(Reason::NotTheHolder));
}

#[test]
fn the_queue_of_commands_is_bounded_and_drops_the_oldest() {
    // HO-S-015
    let mut rig = running();
    let first = rig.counter + 1;
    for _ in 0..40 {
        let command = rig.cmd(Clutch::Closed);
        rig.gate.handle(Micros(rig.now), Input::Command(CX, command)).unwrap();
    }
    rig.moved.clear();
    rig.drain();
    assert_eq!(rig.moved.len(), 32);
    assert_eq!(rig.moved[0], first + 8);
}

#[test]
fn energy_acts_only_with_the_pedal_in_a_young_heartbeat_and_a_grant_for_it() {
    // HO-N-002, HO-N-003, HO-N-004, HO-I-016
    let mut rig = running();
    rig.run(ms(60));
    assert!(!rig.energy, "no pedal");
    rig.world.pedal = true;
    rig.run(ms(40));
    assert!(rig.energy);
    rig.world.heartbeats = false;
    rig.run(ms(50));
    assert!(rig.energy);
    rig.run(ms(30));
    assert!(!rig.energy, "the pedal's HB is more than 60 ms old");
    assert!(rig.gate.motion_runs(), "motion goes on");
    for set in [GrantedSet::INSTRUMENTS, GrantedSet::CAMERA] {
        let mut rig = Rig::new();
        rig.reach(Mode::Remote, set);
        rig.engage();
        rig.world.clutch = Clutch::Closed;
        rig.world.commands = true;
        rig.world.pedal = true;
        rig.run(ms(100));
        assert!(!rig.moved.is_empty() && !rig.energy, "{set:?}");
    }
}

#[test]
fn a_pedal_that_is_released_turns_energy_off_in_the_same_step() {
    // HO-N-004
    let mut rig = running();
    rig.world.pedal = true;
    rig.run(ms(60));
    rig.world.pedal = false;
    rig.beat().unwrap();
    assert!(matches!(rig.device_acts()[..], [DeviceAct::EnergyOff { .. }]));
}

#[test]
fn a_command_of_another_epoch_moves_nothing() {
    // HO-I-003, HO-I-001
    let mut rig = running();
    for epoch in [0, 10, 12, u64::MAX] {
        let mut command = rig.cmd(Clutch::Closed);
        command.epoch = Epoch(epoch);
        assert_eq!(rig.input(Input::Command(CX, command)), Err(Reason::WrongEpoch));
    }
    assert_eq!(rig.moved, [0_u64; 0]);
}
