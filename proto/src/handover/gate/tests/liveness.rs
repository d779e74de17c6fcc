//! Sections 7 and 8: age, lease, frames.

use crate::handover::gate::{Act, Alarms, Input, Output, Why};
use crate::handover::message::{Mode, Reason};
use crate::handover::rig::{CX, Rig, ms};
use crate::handover::types::{Binding, Clutch, Epoch, GrantedSet, Nonce, Oid};

fn running() -> Rig {
    let mut rig = Rig::at(Mode::Remote);
    rig.engage();
    rig.world.clutch = Clutch::Closed;
    rig.world.commands = true;
    rig
}

fn why(rig: &Rig) -> Vec<Why> {
    rig.records().iter().map(|r| r.why).collect()
}

#[test]
fn beacons_go_every_20_ms_in_ready_granting_and_remote_and_not_elsewhere() {
    // HO-A-001
    for (mode, beacons) in [
        (Mode::Hold, 0),
        (Mode::Local, 0),
        (Mode::Offered, 0),
        (Mode::Ready, 10),
        (Mode::Granting, 10),
        (Mode::Remote, 10),
        (Mode::Estop, 0),
    ] {
        let mut rig = Rig::at(mode);
        rig.world.disk = false;
        rig.run(ms(200));
        let seen = rig.outs.iter().filter(|o| matches!(o, Output::Seal(CX, _))).count();
        assert_eq!(seen, beacons, "{mode:?}");
    }
}

#[test]
fn silence_for_the_lease_ends_remote_and_commands_do_not_renew_it() {
    // HO-A-006, HO-A-007, HO-I-008
    let mut rig = running();
    rig.world.heartbeats = false;
    rig.run(ms(490));
    assert_eq!(rig.gate.mode(), Mode::Remote, "{:?}", why(&rig));
    rig.run(ms(30));
    assert_eq!((rig.gate.mode(), why(&rig)), (Mode::Hold, vec![Why::Lease]));
    assert!(rig.gate.alarms().has(Alarms::LINK));
}

#[test]
fn a_gap_below_the_lease_keeps_the_epoch() {
    // HO-X-016
    let mut rig = running();
    let epoch = rig.gate.epoch();
    rig.world.heartbeats = false;
    rig.world.commands = false;
    rig.run(ms(400));
    rig.world.heartbeats = true;
    rig.run(ms(100));
    assert_eq!((rig.gate.mode(), rig.gate.epoch()), (Mode::Remote, epoch));
}

#[test]
fn a_datagram_with_an_unknown_nonce_counts_for_nothing_but_its_counter() {
    // HO-A-002, HO-A-003
    let mut rig = running();
    rig.world.heartbeats = false;
    rig.world.commands = false;
    for _ in 0..60 {
        rig.run(ms(10));
        if rig.gate.mode() != Mode::Remote {
            break;
        }
        let mut hb = rig.hb();
        hb.nonce = Nonce(u64::MAX);
        assert_eq!(rig.input(Input::Heartbeat(CX, hb.clone())), Err(Reason::UnknownNonce));
        assert_eq!(rig.input(Input::Heartbeat(CX, hb)), Err(Reason::OldCounter));
    }
    assert_eq!(rig.gate.mode(), Mode::Hold);
}

#[test]
fn a_nonce_that_was_issued_in_an_earlier_offer_is_unknown() {
    // HO-A-004
    let mut rig = Rig::at(Mode::Ready);
    let old = rig.nonce();
    rig.act(Act::Withdraw).unwrap();
    rig.reach(Mode::Ready, GrantedSet::CAMERA);
    let mut hb = rig.hb();
    hb.nonce = old;
    assert_eq!(rig.input(Input::Heartbeat(CX, hb)), Err(Reason::UnknownNonce));
}

#[test]
fn a_heartbeat_of_the_offer_does_not_count_in_remote_nor_one_of_an_epoch_before_it() {
    // HO-A-008
    let mut rig = Rig::at(Mode::Remote);
    let mut hb = rig.hb();
    hb.binding = Binding::Offer(Oid(1));
    assert_eq!(rig.input(Input::Heartbeat(CX, hb)), Err(Reason::NoSuchOffer));
    let mut rig = Rig::at(Mode::Ready);
    let mut hb = rig.hb();
    hb.binding = Binding::Epoch(Epoch(11));
    assert_eq!(rig.input(Input::Heartbeat(CX, hb)), Err(Reason::WrongEpoch));
}

#[test]
fn a_late_heartbeat_does_not_bring_presence_back() {
    // HO-A-005
    let mut rig = running();
    let early = rig.hb();
    rig.world.presence = false;
    rig.beat().unwrap();
    assert!(!rig.gate.motion_runs());
    assert_eq!(rig.input(Input::Heartbeat(CX, early)), Err(Reason::OldCounter));
}

#[test]
fn loop_age_above_200_ms_for_a_second_withdraws_and_shorter_does_not() {
    // HO-A-009, HO-X-014
    let mut rig = running();
    rig.world.delay = ms(240);
    rig.run(ms(900));
    assert_eq!(rig.gate.mode(), Mode::Remote);
    rig.world.delay = 0;
    rig.run(ms(100));
    rig.world.delay = ms(240);
    rig.run(ms(900));
    assert_eq!(rig.gate.mode(), Mode::Hold, "stopped by then: commands this old move nothing");
    // With commands cut off by age the stop of a second and the withdrawal compete; both end in HOLD.
    assert!(matches!(why(&rig)[..], [Why::Slow | Why::Stopped]));
}

#[test]
fn one_newest_heartbeat_older_than_500_ms_withdraws_at_once() {
    // HO-A-010
    let mut rig = running();
    rig.run(ms(700));
    rig.world.delay = ms(510);
    rig.beat().unwrap();
    assert_eq!((rig.gate.mode(), why(&rig)), (Mode::Hold, vec![Why::TooLate]));
}

#[test]
fn a_gate_that_slept_ends_remote_before_it_looks_at_its_backlog() {
    // HO-A-011, HO-X-022
    let mut rig = running();
    let (hb, command) = (rig.hb(), rig.cmd(Clutch::Closed));
    let moved = rig.moved.len();
    rig.now += ms(5_000);
    assert!(rig.input(Input::Heartbeat(CX, hb)).is_err());
    assert!(rig.input(Input::Command(CX, command)).is_err());
    assert_eq!((rig.gate.mode(), rig.moved.len()), (Mode::Hold, moved));
}

#[test]
fn a_gate_that_slept_less_than_the_lease_still_actuates_nothing_of_its_backlog() {
    // HO-A-011, HO-S-013
    let mut rig = running();
    let backlog: Vec<_> = (0..10).map(|_| rig.cmd(Clutch::Closed)).collect();
    let moved = rig.moved.len();
    rig.now += ms(300);
    for command in backlog {
        assert!(rig.input(Input::Command(CX, command)).is_err());
    }
    assert_eq!(rig.moved.len(), moved);
}

#[test]
fn a_lost_console_ends_remote() {
    // HO-A-012
    let mut rig = running();
    rig.world.console = false;
    rig.run(ms(980));
    assert_eq!(rig.gate.mode(), Mode::Remote);
    rig.run(ms(30));
    assert_eq!((rig.gate.mode(), why(&rig)), (Mode::Hold, vec![Why::Console]));
    assert_eq!(rig.act(Act::Take), Ok(()));
}

#[test]
fn a_picture_older_than_a_second_ends_remote() {
    // HO-F-005, HO-X-004
    let mut rig = running();
    rig.world.frames = false;
    rig.run(ms(900));
    assert_eq!(rig.gate.mode(), Mode::Remote);
    rig.run(ms(150));
    assert_eq!((rig.gate.mode(), why(&rig)), (Mode::Hold, vec![Why::Frame]));
}

#[test]
fn frames_of_another_source_prove_nothing() {
    // HO-F-001, HO-F-002
    use crate::handover::gate::FrameReport;
    use crate::handover::types::FrameRef;
    let mut rig = Rig::at(Mode::Ready);
    rig.world.frames = false;
    rig.world.echo = false;
    rig.run(ms(340));
    let other = FrameRef { source: 2, view: 0, frame: 9_999, digest: 1 };
    rig.input(Input::Frame(FrameReport { frame: other, raw: 5 })).unwrap();
    let mut hb = rig.hb();
    hb.echo = Some(other);
    rig.input(Input::Heartbeat(CX, hb)).unwrap();
    assert_eq!(rig.act(Act::Confirm), Err(Reason::NoFrame));
}

#[test]
fn samples_for_the_link_gates_are_told_for_every_datagram_that_counts() {
    // HO-K-001
    for mode in [Mode::Ready, Mode::Granting, Mode::Remote] {
        let mut rig = Rig::at(mode);
        rig.run(ms(20));
        rig.world.delay = ms(20);
        rig.beat().unwrap();
        let sample = rig.outs.iter().find_map(|o| if let Output::Sample(s) = o { Some(*s) } else { None }).unwrap();
        assert!(sample.loop_age >= ms(20) && sample.frame_age.is_some(), "{mode:?} {sample:?}");
    }
}
