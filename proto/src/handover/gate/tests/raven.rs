//! Section 11, and what was done to RAVEN II (Bonaci 2015): hijack by a forward jump, reset by an old number, missing identity, an
//! emergency stop by an outsider.

use crate::handover::gate::{Input, Output};
use crate::handover::message::{Mode, Reason, ToGate};
use crate::handover::rig::{CX, CY, Rig, ms, short};
use crate::handover::types::{ChannelId, Clutch, Counter};
use crate::units::Micros;

fn running() -> Rig {
    let mut rig = Rig::at(Mode::Remote);
    rig.engage();
    rig
}

#[test]
fn a_forward_jump_is_refused_and_does_not_lock_the_holder_out() {
    // HO-P-002
    let mut rig = running();
    let newest = rig.counter;
    for jump in [1_025, 2_000, u64::MAX - newest] {
        let mut command = rig.cmd(Clutch::Closed);
        command.counter = Counter(newest + jump);
        assert_eq!(rig.input(Input::Command(CX, command)), Err(Reason::CounterJump));
    }
    rig.counter = newest;
    rig.command(Clutch::Closed).unwrap();
    assert_eq!(rig.moved, [newest + 1]);
    let mut edge = rig.cmd(Clutch::Closed);
    edge.counter = Counter(newest + 1 + 1_024);
    rig.input(Input::Command(CX, edge)).unwrap();
}

#[test]
fn an_old_number_resets_nothing() {
    // HO-P-003, HO-S-014
    let mut rig = running();
    let newest = rig.counter;
    for old in [0, 1, newest - 1, newest] {
        let mut command = rig.cmd(Clutch::Closed);
        command.counter = Counter(old);
        assert_eq!(rig.input(Input::Command(CX, command)), Err(Reason::OldCounter), "{old}");
    }
    assert_eq!(rig.moved, [0_u64; 0]);
}

#[test]
fn a_command_that_comes_twice_moves_once() {
    // HO-P-003, HO-S-014, HO-X-006
    let mut rig = running();
    let command = rig.cmd(Clutch::Closed);
    rig.input(Input::Command(CX, command.clone())).unwrap();
    assert_eq!(rig.input(Input::Command(CX, command)), Err(Reason::OldCounter));
    assert_eq!(rig.moved.len(), 1);
}

#[test]
fn a_datagram_without_the_holders_keys_counts_for_nothing() {
    // HO-P-004, HO-M-001
    let mut rig = running();
    for channel in [CY, ChannelId(99)] {
        let (hb, command) = (rig.hb(), rig.cmd(Clutch::Closed));
        assert_eq!(rig.input(Input::Heartbeat(channel, hb)), Err(Reason::WrongChannel));
        assert_eq!(rig.input(Input::Command(channel, command)), Err(Reason::WrongChannel));
        assert!(rig.outs.contains(&Output::Refused(channel, Reason::WrongChannel)));
    }
    assert_eq!(rig.moved, [0_u64; 0]);
}

#[test]
fn an_outsiders_estop_stops_nobody() {
    // HO-M-002, HO-X-021
    let mut rig = running();
    let estop = ToGate::Estop { person: Some(short("surgeon")), reason: short("") };
    assert_eq!(rig.say(ChannelId(99), estop), Err(Reason::NoHello));
    assert!(rig.gate.motion_runs());
}

#[test]
fn more_than_a_thousand_commands_a_second_do_not_pass() {
    // HO-P-001
    let mut rig = running();
    rig.world.clutch = Clutch::Closed;
    let mut passed = 0;
    for n in 0..2_000_u64 {
        if n.is_multiple_of(40) {
            rig.run(ms(10));
        }
        passed += usize::from(rig.command(Clutch::Closed).is_ok());
    }
    assert!((500..=580).contains(&passed), "{passed} in half a second");
}

#[test]
fn a_flood_of_heartbeats_is_cut_and_the_lease_goes_on() {
    // HO-P-006
    let mut rig = running();
    let passed = (0..1_000).filter(|_| rig.beat().is_ok()).count();
    assert!(passed <= 64, "{passed}");
    assert_eq!(rig.gate.mode(), Mode::Remote);
}

#[test]
fn nothing_is_left_to_the_caller_to_bound() {
    // HO-S-015, HO-F-007: a caller that never drains.
    let mut rig = running();
    for n in 0..5_000 {
        let hb = rig.hb();
        let _ = rig.gate.handle(Micros(rig.now + n), Input::Heartbeat(CX, hb));
    }
    let count = std::iter::from_fn(|| rig.gate.poll(Micros(rig.now))).count();
    assert!(count <= 520, "{count}");
}
