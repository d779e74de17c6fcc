//! Section 6: CONFIRM, the intent, the grant.

use crate::handover::config::Config;
use crate::handover::gate::{Act, Alarms, DiskAct, DiskDone, Input, Judgement, Output};
use crate::handover::message::{FromGate, Mode, Reason, ToGate};
use crate::handover::rig::{CS, CX, CY, GOOD, Rig, X, ms, short};
use crate::handover::types::{Clutch, Colour, Colours, Epoch, GrantedSet, Oid};

const AMBER: Colours = Colours { loop_age: Colour::Amber, ..Colours::GREEN };

#[test]
fn confirm_counts_in_ready_only_and_leads_to_granting() {
    // HO-G-010
    for mode in [Mode::Hold, Mode::Local, Mode::Offered, Mode::Granting, Mode::Remote, Mode::Estop, Mode::Closed] {
        assert_eq!(Rig::at(mode).act(Act::Confirm), Err(Reason::WrongState), "{mode:?}");
    }
    let mut rig = Rig::at(Mode::Ready);
    rig.world.disk = false;
    rig.act(Act::Confirm).unwrap();
    assert_eq!(rig.gate.mode(), Mode::Granting);
}

#[test]
fn an_accept_leads_to_ready_where_nothing_is_measured_yet() {
    // HO-G-008, HO-R-002, HO-K-002
    let mut rig = Rig::at(Mode::Offered);
    rig.accept().unwrap();
    assert_eq!(rig.gate.mode(), Mode::Ready);
    rig.world.presence = false;
    rig.run(ms(60));
    rig.world.presence = true;
    rig.run(ms(60));
    assert_eq!(rig.act(Act::Confirm), Err(Reason::LinkUnmeasured));
    assert_eq!(rig.gate.mode(), Mode::Ready);
}

/// Spoils one thing in READY and tells what CONFIRM says.
fn spoiled(spoil: impl FnOnce(&mut Rig)) -> Result<(), Reason> {
    let mut rig = Rig::at(Mode::Ready);
    spoil(&mut rig);
    let result = rig.act(Act::Confirm);
    assert_eq!(rig.gate.mode(), if result.is_ok() { Mode::Remote } else { Mode::Ready });
    result
}

#[test]
fn each_guard_refuses_confirm_by_its_own_reason() {
    // HO-R-002, HO-R-004, HO-R-005, HO-R-006, HO-R-007, HO-D-018
    assert_eq!(spoiled(|_| ()), Ok(()), "the negative control");
    let unaligned = |judgement| {
        spoiled(|rig| {
            rig.world.judgement = judgement;
            rig.run(ms(40));
        })
    };
    for bad in [
        Judgement { orientation: 5_001, ..GOOD },
        Judgement { grip_matched: false, ..GOOD },
        Judgement { motion_zero: false, ..GOOD },
    ] {
        assert_eq!(unaligned(bad), Err(Reason::NotAligned));
    }
    let released = spoiled(|rig| {
        rig.world.presence = false;
        rig.run(ms(40));
    });
    assert_eq!(released, Err(Reason::NoPresence));
    let silent = spoiled(|rig| {
        rig.world.heartbeats = false;
        rig.run(ms(170));
    });
    assert_eq!(silent, Err(Reason::NotHeard));
    let slow = spoiled(|rig| {
        rig.world.delay = ms(220);
        rig.run(ms(300));
    });
    assert_eq!(slow, Err(Reason::NotHeard));
    let blind = spoiled(|rig| {
        rig.world.echo = false;
        rig.run(ms(340));
    });
    assert_eq!(blind, Err(Reason::NoFrame));
    let no_device = spoiled(|rig| {
        rig.world.reports = false;
        rig.run(ms(520));
    });
    assert_eq!(no_device, Err(Reason::NoDevice));
    let other = spoiled(|rig| rig.links(Colours { jitter: Colour::Unmeasured, ..Colours::GREEN }).unwrap());
    assert_eq!(other, Err(Reason::LinkUnmeasured));
}

#[test]
fn presence_that_was_never_released_after_the_accept_is_not_pressed_anew() {
    // HO-R-005
    let mut rig = Rig::at(Mode::Offered);
    rig.accept().unwrap();
    rig.run(ms(200));
    rig.links(Colours::GREEN).unwrap();
    assert_eq!(rig.act(Act::Confirm), Err(Reason::NoPresence));
}

#[test]
fn consent_revocation_and_a_lost_console_end_an_open_offer() {
    // HO-G-027, HO-R-008, HO-R-009
    for mode in [Mode::Offered, Mode::Ready, Mode::Granting] {
        for which in 0..3 {
            let mut rig = Rig::at(mode);
            rig.world.disk = false;
            match which {
                0 => rig.input(Input::Consent(false)).unwrap(),
                1 => rig.input(Input::Revoked(X)).unwrap(),
                _ => {
                    rig.gate_time_without_console();
                }
            }
            assert_eq!(rig.gate.mode(), Mode::Local, "{mode:?} {which}");
        }
    }
}

#[test]
fn means_that_cannot_be_used_end_an_open_offer_refuse_the_next_and_leave_the_holder_and_local_alone() {
    // HO-G-028, HO-R-014
    for mode in [Mode::Offered, Mode::Ready, Mode::Granting] {
        let mut rig = Rig::at(mode);
        rig.world.disk = false;
        rig.input(Input::Means(false)).unwrap();
        assert_eq!(rig.gate.mode(), Mode::Local, "{mode:?}");
        assert_eq!(rig.offer(X, GrantedSet::CAMERA), Err(Reason::RemoteRefused));
        rig.act(Act::Take).unwrap();
        assert!(rig.gate.alarms().has(Alarms::MEANS), "no TAKE answers it");
        rig.input(Input::Means(true)).unwrap();
        assert!(!rig.gate.alarms().has(Alarms::MEANS));
        rig.offer(X, GrantedSet::CAMERA).unwrap();
    }
    let mut rig = Rig::at(Mode::Remote);
    rig.engage();
    rig.input(Input::Means(false)).unwrap();
    assert!(rig.gate.motion_runs() && rig.gate.alarms().has(Alarms::MEANS));
    rig.act(Act::Take).unwrap();
    assert_eq!(rig.gate.mode(), Mode::Local);
}

impl Rig {
    /// A second without the console; GRANTING's own second must not be over first.
    fn gate_time_without_console(&mut self) {
        self.world.console = false;
        self.run(ms(1_000));
    }
}

#[test]
fn amber_needs_another_act_after_it_was_told_and_green_takes_that_back() {
    // HO-R-003, HO-G-026, HO-R-012
    let mut rig = Rig::at(Mode::Ready);
    rig.links(AMBER).unwrap();
    assert_eq!(rig.act(Act::ConfirmAmber), Err(Reason::WrongState), "not before it was told");
    assert_eq!(rig.act(Act::Confirm), Err(Reason::LinkAmber));
    assert_eq!(rig.act(Act::Confirm), Err(Reason::LinkAmber), "the same button twice is no second confirmation");
    rig.links(Colours::GREEN).unwrap();
    rig.links(AMBER).unwrap();
    assert_eq!(rig.act(Act::ConfirmAmber), Err(Reason::WrongState));
    assert_eq!(rig.act(Act::Confirm), Err(Reason::LinkAmber));
    rig.act(Act::ConfirmAmber).unwrap();
    assert_eq!(rig.gate.mode(), Mode::Remote);
}

#[test]
fn green_that_turns_amber_on_the_way_to_the_disk_is_not_granted() {
    // HO-R-013
    let mut rig = Rig::at(Mode::Granting);
    rig.world.disk = false;
    rig.links(AMBER).unwrap();
    let durable = Input::Disk(DiskDone::Durable(Oid(1), Epoch(11)));
    rig.input(durable).unwrap();
    assert_eq!(rig.gate.mode(), Mode::Granting);
    rig.links(Colours::GREEN).unwrap();
    assert_eq!(rig.gate.mode(), Mode::Remote);
}

#[test]
fn a_grant_waits_for_the_intent_of_exactly_its_oid_and_epoch() {
    // HO-G-012, HO-G-013, HO-U-004, HO-I-013
    let mut rig = Rig::at(Mode::Granting);
    rig.world.disk = false;
    for (oid, epoch) in [(1, 10), (1, 12), (0, 11), (2, 11)] {
        rig.input(Input::Disk(DiskDone::Durable(Oid(oid), Epoch(epoch)))).unwrap();
        assert_eq!(rig.gate.mode(), Mode::Granting, "{oid} {epoch}");
    }
    rig.input(Input::Disk(DiskDone::Durable(Oid(1), Epoch(11)))).unwrap();
    assert_eq!((rig.gate.mode(), rig.gate.epoch()), (Mode::Remote, Epoch(11)));
}

#[test]
fn a_completion_of_an_earlier_granting_counts_for_nothing_in_the_next() {
    // HO-G-013: the epoch is the same, the oid is not.
    let mut rig = Rig::at(Mode::Granting);
    rig.world.disk = false;
    rig.act(Act::Take).unwrap();
    rig.reach(Mode::Granting, GrantedSet::CAMERA);
    rig.input(Input::Disk(DiskDone::Durable(Oid(1), Epoch(11)))).unwrap();
    assert_eq!(rig.gate.mode(), Mode::Granting);
    rig.input(Input::Disk(DiskDone::Durable(Oid(2), Epoch(11)))).unwrap();
    assert_eq!(rig.gate.mode(), Mode::Remote);
}

#[test]
fn guards_are_passed_again_when_the_intent_is_durable() {
    // HO-G-012
    let mut rig = Rig::at(Mode::Granting);
    rig.world.disk = false;
    rig.world.presence = false;
    rig.run(ms(40));
    rig.input(Input::Disk(DiskDone::Durable(Oid(1), Epoch(11)))).unwrap();
    rig.run(ms(40));
    assert_eq!(rig.gate.mode(), Mode::Granting);
    rig.world.presence = true;
    rig.run(ms(40));
    assert_eq!(rig.gate.mode(), Mode::Remote);
}

#[test]
fn an_intent_that_cannot_be_written_ends_granting_at_once() {
    // HO-E-008, HO-X-018
    let mut rig = Rig::at(Mode::Granting);
    rig.input(Input::Disk(DiskDone::Failed(Oid(1), Epoch(99)))).unwrap();
    assert_eq!(rig.gate.mode(), Mode::Granting);
    rig.input(Input::Disk(DiskDone::Failed(Oid(1), Epoch(11)))).unwrap();
    assert_eq!(rig.gate.mode(), Mode::Local);
}

#[test]
fn the_intent_names_oid_epoch_expert_and_set() {
    // HO-R-011
    let mut rig = Rig::at(Mode::Ready);
    rig.world.disk = false;
    rig.act(Act::Confirm).unwrap();
    let intent = DiskAct::Intent { oid: Oid(1), epoch: Epoch(11), expert: X, set: GrantedSet::ENERGY };
    assert!(rig.outs.contains(&Output::Disk(intent)));
}

#[test]
fn grant_goes_to_all_and_offer_and_withdraw_to_the_addressee_alone() {
    // HO-M-011, HO-M-013
    let mut rig = Rig::at(Mode::Local);
    rig.offer(X, GrantedSet::CAMERA).unwrap();
    let told: Vec<_> =
        rig.sent().into_iter().filter(|(_, m)| matches!(m, FromGate::Offer { .. })).map(|(c, _)| c).collect();
    assert_eq!(told, [CX]);
    rig.act(Act::Withdraw).unwrap();
    let told: Vec<_> =
        rig.sent().into_iter().filter(|(_, m)| matches!(m, FromGate::Withdraw { .. })).map(|(c, _)| c).collect();
    assert_eq!(told, [CX]);
    rig.reach(Mode::Ready, GrantedSet::CAMERA);
    rig.act(Act::Confirm).unwrap();
    let told: Vec<_> =
        rig.sent().into_iter().filter(|(_, m)| matches!(m, FromGate::Grant { .. })).map(|(c, _)| c).collect();
    assert_eq!(told, [CX, CY, CS]);
}

#[test]
fn remote_begins_with_motion_stopped_and_the_lease_running() {
    // HO-G-014
    let mut rig = Rig::at(Mode::Remote);
    assert!(!rig.gate.motion_runs());
    rig.world.heartbeats = false;
    rig.run(ms(490));
    assert_eq!(rig.gate.mode(), Mode::Remote);
    rig.run(ms(20));
    assert_eq!(rig.gate.mode(), Mode::Hold);
}

#[test]
fn the_holder_is_who_was_offered_accepted_and_confirmed() {
    // HO-R-001, HO-I-006, HO-I-009
    let mut rig = Rig::at(Mode::Remote);
    assert_eq!(rig.gate.holder(), Some((X, GrantedSet::ENERGY)));
    rig.engage();
    rig.command(Clutch::Closed).unwrap();
    assert_eq!(rig.moved.len(), 1);
}

#[test]
fn colours_of_another_offer_are_ignored() {
    // HO-K-008
    let mut rig = Rig::at(Mode::Offered);
    rig.accept().unwrap();
    let old = Input::Links(Oid(99), Colours::GREEN, crate::handover::message::Figures::default());
    assert_eq!(rig.input(old), Err(Reason::NoSuchOffer));
    assert_eq!(rig.gate.status().colours, Colours::default());
}

#[test]
fn after_an_exit_local_can_offer_again_and_remote_is_reached() {
    // HO-I-018
    let mut rig = Rig::at(Mode::Remote);
    rig.world.heartbeats = false;
    rig.run(ms(600));
    rig.world.heartbeats = true;
    rig.reach(Mode::Remote, GrantedSet::CAMERA);
    assert_eq!(rig.gate.holder(), Some((X, GrantedSet::CAMERA)));
}

#[test]
fn energy_alone_is_not_offered() {
    // HO-N-001, HO-M-009
    let mut rig = Rig::at(Mode::Local);
    let alone = GrantedSet { camera: true, instruments: false, energy: true };
    assert_eq!(rig.offer(X, alone), Err(Reason::BadSet));
    assert_eq!(rig.offer(X, GrantedSet::default()), Err(Reason::BadSet));
}

#[test]
fn where_the_epochs_end_nothing_is_granted() {
    // HO-E-009
    use crate::handover::gate::{Gate, Start, Store};
    use crate::units::Micros;
    let store = Store::Block { first: Epoch(u64::MAX - 1), end: Epoch(u64::MAX) };
    let start = Start { boot: crate::handover::rig::BOOT, store };
    let mut gate = Gate::new(Config::default(), Micros(0), start);
    gate.handle(Micros(0), Input::Local(Act::Take)).unwrap();
    let offer = Act::Offer { oid: Oid(1), expert: X, set: GrantedSet::CAMERA, step: short("") };
    assert_eq!(gate.handle(Micros(0), Input::Local(offer)), Err(Reason::RemoteRefused));
}

#[test]
fn take_wins_over_whatever_it_crosses() {
    // HO-X-013
    let mut rig = Rig::at(Mode::Granting);
    rig.act(Act::Take).unwrap();
    rig.input(Input::Disk(DiskDone::Durable(Oid(1), Epoch(11)))).unwrap();
    assert_eq!(rig.gate.mode(), Mode::Local);
    let mut rig = Rig::at(Mode::Offered);
    rig.act(Act::Take).unwrap();
    assert_eq!(rig.accept(), Err(Reason::NoSuchOffer));
    let mut rig = Rig::at(Mode::Ready);
    rig.act(Act::Take).unwrap();
    assert_eq!(rig.act(Act::Confirm), Err(Reason::WrongState));
    let mut rig = Rig::at(Mode::Remote);
    let epoch = rig.gate.epoch();
    rig.act(Act::Take).unwrap();
    assert_eq!(rig.say(CX, ToGate::Return { epoch }), Err(Reason::NotTheHolder));
    assert_eq!(rig.gate.mode(), Mode::Local);
}
