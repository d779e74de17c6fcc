//! Section 2 and 4: states, epochs, device.

use crate::handover::config::Config;
use crate::handover::gate::{
    Act, Alarms, DeviceAct, DeviceReport, DiskAct, DiskDone, Gate, Input, Output, Start, Store, Why,
};
use crate::handover::message::{Mode, Reason, ToGate};
use crate::handover::rig::{BOOT, CX, Rig, X, ms, short};
use crate::handover::types::{BootId, Colour, Colours, Epoch, GrantedSet, Nonce, Oid, Selection};
use crate::units::Micros;

const BLOCK: Store = Store::Block { first: Epoch(10), end: Epoch(26) };

fn report(selected: Selection, highest: u64) -> DeviceReport {
    let highest = Epoch(highest);
    DeviceReport {
        highest,
        owner: None,
        selected,
        sequence: 0,
        latched: true,
        overridden: false,
        energy: false,
        held: true,
        rival: false,
    }
}

fn fresh(store: Store) -> Gate {
    Gate::new(Config::default(), Micros(0), Start { boot: BOOT, store })
}

fn drained(gate: &mut Gate) -> Vec<DeviceAct> {
    let now = Micros(0);
    std::iter::from_fn(|| gate.poll(now))
        .filter_map(|o| if let Output::Device(a) = o { Some(a) } else { None })
        .collect()
}

#[test]
fn a_gate_starts_in_hold_and_selects_nothing_until_it_heard_its_device() {
    // HO-G-001, HO-G-002
    let mut gate = fresh(BLOCK);
    gate.handle(Micros(0), Input::Tick { nonce: Nonce(1) }).unwrap();
    assert_eq!(gate.mode(), Mode::Hold);
    assert_eq!(drained(&mut gate), [DeviceAct::KeepAlive { boot: BOOT, fence: Epoch(10) }]);
    gate.handle(Micros(0), Input::Device(report(Selection::Remote, 9))).unwrap();
    let select = DeviceAct::Select { boot: BOOT, to: Selection::Nobody, fence: Epoch(10), sequence: 1 };
    assert_eq!(drained(&mut gate), [select]);
}

#[test]
fn a_gate_that_starts_while_local_operates_leaves_local_selected() {
    // HO-G-001, HO-X-009
    let mut gate = fresh(BLOCK);
    gate.handle(Micros(0), Input::Device(report(Selection::Local, 9))).unwrap();
    assert_eq!(gate.mode(), Mode::Local);
    let select = DeviceAct::Select { boot: BOOT, to: Selection::Local, fence: Epoch(10), sequence: 1 };
    assert_eq!(drained(&mut gate), [select]);
}

#[test]
fn take_leads_to_local_from_every_state_but_estop_and_closed() {
    // HO-G-003, HO-G-005, HO-I-007
    for mode in [Mode::Hold, Mode::Local, Mode::Offered, Mode::Ready, Mode::Granting, Mode::Remote] {
        let mut rig = Rig::at(mode);
        rig.world.disk = false;
        assert_eq!(rig.act(Act::Take), Ok(()), "{mode:?}");
        assert_eq!(rig.gate.mode(), Mode::Local, "{mode:?}");
        assert_eq!(rig.fence.selected(), Selection::Local, "{mode:?}");
        let first_select = rig.outs.iter().position(|o| matches!(o, Output::Device(DeviceAct::Select { .. })));
        let first_other = rig.outs.iter().position(|o| !matches!(o, Output::Device(_)));
        assert!(first_other.is_none() || first_select < first_other, "the device comes first: {mode:?}");
    }
    assert_eq!(Rig::at(Mode::Estop).act(Act::Take), Err(Reason::Latched));
    assert_eq!(Rig::at(Mode::Closed).act(Act::Take), Err(Reason::SessionClosed));
}

#[test]
fn a_second_take_selects_local_again_with_the_same_fence_and_the_next_sequence() {
    // HO-G-004
    let mut rig = Rig::at(Mode::Local);
    let epoch = rig.gate.epoch();
    rig.act(Act::Take).unwrap();
    let [DeviceAct::Select { to, fence, sequence, .. }] = rig.device_acts()[..] else { panic!("{:?}", rig.outs) };
    assert_eq!((*to, *fence, *sequence), (Selection::Local, epoch, 3));
    assert_eq!(rig.refused_by_device, []);
}

#[test]
fn every_crossing_of_remotes_border_takes_the_next_epoch_and_nothing_else_does() {
    // HO-E-001, HO-E-002, HO-I-002
    let mut rig = Rig::new();
    let start = rig.gate.epoch();
    for mode in [Mode::Local, Mode::Offered, Mode::Ready, Mode::Granting, Mode::Estop, Mode::Closed] {
        assert_eq!(Rig::at(mode).gate.epoch(), start, "{mode:?}");
    }
    rig.reach(Mode::Remote, GrantedSet::CAMERA);
    assert_eq!(rig.gate.epoch(), Epoch(start.0 + 1));
    rig.act(Act::Take).unwrap();
    assert_eq!(rig.gate.epoch(), Epoch(start.0 + 2));
    rig.reach(Mode::Remote, GrantedSet::CAMERA);
    rig.say(CX, ToGate::Return { epoch: Epoch(start.0 + 3) }).unwrap();
    assert_eq!((rig.gate.mode(), rig.gate.epoch()), (Mode::Hold, Epoch(start.0 + 4)));
}

#[test]
fn an_exit_hands_out_the_stop_and_the_new_selection_before_anything_else_with_the_disk_stalled() {
    // HO-G-021, HO-D-014, HO-E-008, HO-X-018
    let mut rig = Rig::at(Mode::Remote);
    rig.engage();
    rig.world.disk = false;
    rig.command(crate::handover::types::Clutch::Closed).unwrap();
    rig.act(Act::Take).unwrap();
    let kinds: Vec<u8> = rig
        .outs
        .iter()
        .take(3)
        .map(|o| match o {
            Output::Device(DeviceAct::EnergyOff { .. }) => 1,
            Output::Device(DeviceAct::Hold { .. }) => 2,
            Output::Device(DeviceAct::Select { to: Selection::Local, .. }) => 3,
            _ => 0,
        })
        .collect();
    assert_eq!(kinds, [1, 2, 3]);
}

#[test]
fn estop_latches_from_every_state_and_only_reset_leads_out_to_hold() {
    // HO-G-016, HO-G-017
    for mode in [Mode::Hold, Mode::Local, Mode::Offered, Mode::Ready, Mode::Granting, Mode::Remote, Mode::Estop] {
        let mut rig = Rig::at(mode);
        rig.act(Act::Estop).unwrap();
        assert_eq!(rig.gate.mode(), Mode::Estop, "{mode:?}");
        assert_eq!(rig.fence.selected(), Selection::Nobody, "{mode:?}");
        assert!(rig.device_acts().iter().any(|a| matches!(a, DeviceAct::Hold { .. })), "{mode:?}");
        rig.run(ms(2_000));
        assert_eq!(rig.gate.mode(), Mode::Estop);
        rig.act(Act::Reset).unwrap();
        assert_eq!(rig.gate.mode(), Mode::Hold);
        assert_eq!(rig.act(Act::Reset), Err(Reason::WrongState));
    }
}

#[test]
fn closed_is_final_and_an_estop_there_stops_the_device_once_more() {
    // HO-G-016, HO-G-019
    let mut rig = Rig::at(Mode::Closed);
    for act in [Act::Take, Act::Reset, Act::Close, Act::Confirm, Act::Withdraw] {
        assert!(rig.act(act).is_err());
    }
    rig.act(Act::Estop).unwrap();
    assert_eq!((rig.gate.mode(), rig.fence.selected()), (Mode::Closed, Selection::Nobody));
    assert!(rig.device_acts().iter().any(|a| matches!(a, DeviceAct::Select { to: Selection::Nobody, .. })));
}

#[test]
fn a_session_is_not_closed_while_an_offer_is_open_or_an_expert_holds() {
    // HO-G-018
    for (mode, result) in [
        (Mode::Hold, Ok(())),
        (Mode::Local, Ok(())),
        (Mode::Estop, Ok(())),
        (Mode::Offered, Err(Reason::WrongState)),
        (Mode::Ready, Err(Reason::WrongState)),
        (Mode::Granting, Err(Reason::WrongState)),
        (Mode::Remote, Err(Reason::WrongState)),
    ] {
        assert_eq!(Rig::at(mode).act(Act::Close), result, "{mode:?}");
    }
}

#[test]
fn an_offer_needs_local_and_a_second_one_is_refused_while_one_is_open() {
    // HO-G-006, HO-I-011
    for mode in [Mode::Hold, Mode::Offered, Mode::Ready, Mode::Granting, Mode::Remote, Mode::Estop, Mode::Closed] {
        assert_eq!(Rig::at(mode).offer(X, GrantedSet::CAMERA), Err(Reason::WrongState), "{mode:?}");
    }
    assert_eq!(Rig::at(Mode::Local).offer(X, GrantedSet::CAMERA), Ok(()));
}

#[test]
fn every_open_offer_ends_in_its_time() {
    // HO-G-007, HO-G-009, HO-G-011, HO-I-017
    for (mode, time) in [(Mode::Offered, 30_000), (Mode::Ready, 30_000), (Mode::Granting, 1_000)] {
        let mut rig = Rig::at(mode);
        rig.world.disk = false;
        rig.run(ms(time - 200));
        assert_eq!(rig.gate.mode(), mode);
        rig.run(ms(210));
        assert_eq!(rig.gate.mode(), Mode::Local, "{mode:?}");
    }
}

#[test]
fn withdraw_and_decline_end_an_open_offer_and_nothing_else() {
    // HO-G-007, HO-G-009, HO-G-011, HO-G-020, HO-M-020
    for mode in [Mode::Offered, Mode::Ready, Mode::Granting] {
        let mut rig = Rig::at(mode);
        rig.act(Act::Withdraw).unwrap();
        assert_eq!(rig.gate.mode(), Mode::Local);
        let mut rig = Rig::at(mode);
        rig.say(CX, ToGate::Decline { oid: Oid(1), reason: short("busy") }).unwrap();
        assert_eq!(rig.gate.mode(), Mode::Local);
        assert_eq!(rig.records()[0].note, Some(short("busy")));
    }
    for mode in [Mode::Hold, Mode::Local, Mode::Remote, Mode::Estop] {
        assert_eq!(Rig::at(mode).act(Act::Withdraw), Err(Reason::NoSuchOffer), "{mode:?}");
    }
}

#[test]
fn a_red_gate_ends_an_open_offer_and_not_a_grant() {
    // HO-G-009, HO-G-011, HO-R-012
    let red = Colours { loss: Colour::Red, ..Colours::GREEN };
    for (mode, after) in [(Mode::Ready, Mode::Local), (Mode::Granting, Mode::Local), (Mode::Remote, Mode::Remote)] {
        let mut rig = Rig::at(mode);
        rig.links(red).unwrap();
        assert_eq!(rig.gate.mode(), after);
    }
}

#[test]
fn the_holder_gives_back_by_return_and_by_a_late_decline() {
    // HO-G-015, HO-G-023, HO-M-020
    let mut rig = Rig::at(Mode::Remote);
    let epoch = rig.gate.epoch();
    assert_eq!(rig.say(CX, ToGate::Return { epoch: Epoch(epoch.0 - 1) }), Err(Reason::WrongEpoch));
    assert_eq!(rig.gate.mode(), Mode::Remote);
    rig.say(CX, ToGate::Return { epoch }).unwrap();
    assert_eq!(rig.gate.mode(), Mode::Hold);
    let mut rig = Rig::at(Mode::Remote);
    assert_eq!(rig.say(CX, ToGate::Decline { oid: Oid(9), reason: short("") }), Err(Reason::NoSuchOffer));
    rig.say(CX, ToGate::Decline { oid: Oid(1), reason: short("") }).unwrap();
    assert_eq!(rig.gate.mode(), Mode::Hold);
}

#[test]
fn time_that_runs_backwards_makes_nothing_younger() {
    // HO-G-025
    let mut rig = Rig::at(Mode::Offered);
    let back = rig.now;
    rig.run(ms(29_900));
    rig.now = back;
    rig.run(ms(29_900));
    assert_eq!(rig.gate.mode(), Mode::Offered);
    rig.now += ms(200);
    rig.tick();
    assert_eq!(rig.gate.mode(), Mode::Local);
}

#[test]
fn the_hardware_override_counts_as_take() {
    // HO-G-024, HO-G-022, HO-D-011
    for (mode, after) in [(Mode::Hold, Mode::Local), (Mode::Remote, Mode::Local), (Mode::Estop, Mode::Estop)] {
        let mut rig = Rig::at(mode);
        rig.fence.override_to_local();
        let report = rig.fence.report();
        rig.input(Input::Device(report)).unwrap();
        assert_eq!(rig.gate.mode(), after, "{mode:?}");
        assert_eq!(rig.fence.selected(), Selection::Local);
    }
}

#[test]
fn an_unreadable_store_gives_local_the_devices_fence_plus_one_and_refuses_remote() {
    // HO-E-005, HO-R-010, HO-M-009, HO-X-009
    let mut gate = fresh(Store::Unreadable);
    gate.handle(Micros(0), Input::Local(Act::Take)).unwrap();
    assert_eq!(drained(&mut gate), []);
    gate.handle(Micros(0), Input::Device(report(Selection::Nobody, 41))).unwrap();
    let select = DeviceAct::Select { boot: BOOT, to: Selection::Local, fence: Epoch(42), sequence: 1 };
    assert_eq!(drained(&mut gate), [select]);
    assert!(gate.alarms().has(Alarms::STORE));
    gate.handle(Micros(0), Input::Console).unwrap();
    gate.handle(Micros(0), Input::Consent(true)).unwrap();
    let offer = Act::Offer { oid: Oid(1), expert: X, set: GrantedSet::CAMERA, step: short("") };
    assert_eq!(gate.handle(Micros(0), Input::Local(offer)), Err(Reason::RemoteRefused));
}

#[test]
fn a_store_behind_the_devices_fence_is_not_believed() {
    // HO-E-006
    let mut rig = Rig::at(Mode::Local);
    rig.input(Input::Device(DeviceReport { highest: Epoch(50), ..rig.fence.report() })).unwrap();
    assert_eq!((rig.gate.mode(), rig.gate.epoch()), (Mode::Local, Epoch(51)));
    assert_eq!(rig.offer(X, GrantedSet::CAMERA), Err(Reason::RemoteRefused));
}

#[test]
fn a_second_gate_is_an_alarm_and_ends_remote_and_its_fence_is_not_taken_over() {
    // HO-D-017, HO-X-023
    let mut rig = Rig::at(Mode::Remote);
    let epoch = rig.gate.epoch();
    let other = DeviceReport { owner: Some(BootId(1)), highest: Epoch(90), ..rig.fence.report() };
    rig.input(Input::Device(other)).unwrap();
    assert_eq!((rig.gate.mode(), rig.gate.epoch()), (Mode::Hold, Epoch(epoch.0 + 1)));
    assert!(rig.gate.alarms().has(Alarms::SECOND_GATE));
}

#[test]
fn a_gate_that_is_served_tells_of_one_that_is_refused_and_goes_on() {
    // HO-D-024, HO-X-023
    let mut rig = Rig::at(Mode::Remote);
    let knocked = DeviceReport { rival: true, ..rig.fence.report() };
    rig.input(Input::Device(knocked)).unwrap();
    assert!(rig.gate.alarms().has(Alarms::SECOND_GATE));
    assert_eq!(rig.gate.mode(), Mode::Remote);
    rig.run(ms(40));
    assert!(!rig.gate.alarms().has(Alarms::SECOND_GATE), "it stands although the other one is gone");
}

#[test]
fn records_that_cannot_be_written_are_an_alarm_until_they_are_whatever_local_does() {
    // HO-U-008
    let mut rig = Rig::at(Mode::Remote);
    rig.input(Input::Unwritten(true)).unwrap();
    assert!(rig.gate.alarms().has(Alarms::DISK));
    rig.act(Act::Take).unwrap();
    assert_eq!(rig.gate.mode(), Mode::Local);
    assert!(rig.gate.alarms().has(Alarms::DISK), "TAKE writes nothing");
    rig.input(Input::Unwritten(false)).unwrap();
    assert!(!rig.gate.alarms().has(Alarms::DISK));
}

#[test]
fn no_grant_completes_while_the_hardware_override_is_in_use() {
    // HO-D-018
    let mut rig = Rig::at(Mode::Ready);
    rig.world.reports = false;
    let overridden = DeviceReport { overridden: true, ..rig.fence.report() };
    rig.input(Input::Device(overridden)).unwrap();
    assert_eq!(rig.act(Act::Confirm), Err(Reason::NoDevice));
    let free = rig.fence.report();
    rig.input(Input::Device(free)).unwrap();
    rig.act(Act::Confirm).unwrap();
    assert_eq!(rig.gate.mode(), Mode::Remote);
}

#[test]
fn a_latched_a_silent_and_a_lost_device_end_remote() {
    // HO-D-017, HO-X-022
    let mut latched = Rig::at(Mode::Remote);
    latched.run(ms(40));
    let report = DeviceReport { latched: true, ..latched.fence.report() };
    latched.input(Input::Device(report)).unwrap();
    assert_eq!((latched.gate.mode(), latched.records()[0].why), (Mode::Hold, Why::Device));
    let mut silent = Rig::at(Mode::Remote);
    silent.world.reports = false;
    silent.run(ms(520));
    assert_eq!(silent.gate.mode(), Mode::Hold);
    assert!(silent.gate.alarms().has(Alarms::DEVICE));
}

#[test]
fn keep_alives_go_every_20_ms_in_every_state_and_repeat_a_selection_until_it_is_reported() {
    // HO-D-015, HO-D-016
    for mode in [Mode::Hold, Mode::Local, Mode::Remote, Mode::Estop, Mode::Closed] {
        let mut rig = Rig::at(mode);
        rig.run(ms(100));
        let alive = rig.device_acts().into_iter().filter(|a| matches!(a, DeviceAct::KeepAlive { .. })).count();
        assert_eq!(alive, 5, "{mode:?}");
    }
    let mut deaf = Rig::at(Mode::Local);
    deaf.world.reports = false;
    deaf.act(Act::Take).unwrap();
    deaf.run(ms(100));
    let repeats = deaf.device_acts().into_iter().filter(|a| matches!(a, DeviceAct::Select { .. })).count();
    assert_eq!(repeats, 5);
    deaf.world.reports = true;
    deaf.run(ms(20));
    deaf.run(ms(100));
    assert!(!deaf.device_acts().iter().any(|a| matches!(a, DeviceAct::Select { .. })));
}

#[test]
fn the_next_block_is_asked_for_and_a_grant_waits_for_it() {
    // HO-E-003, HO-E-004, HO-E-007, HO-E-008
    let mut rig = Rig::new();
    rig.world.disk = false;
    for _ in 0..8 {
        rig.reach(Mode::Granting, GrantedSet::CAMERA);
        let epoch = Epoch(rig.gate.epoch().0 + 1);
        let done = DiskDone::Durable(Oid(rig.oid), epoch);
        rig.input(Input::Disk(done)).unwrap();
        if rig.gate.mode() == Mode::Granting {
            assert_eq!(epoch, Epoch(25), "25 is covered, 26 is not");
            let reserve = rig.gate.clone();
            drop(reserve);
            rig.run(ms(900));
            assert_eq!(rig.gate.mode(), Mode::Granting);
            rig.input(Input::Disk(DiskDone::Reserved(Epoch(99)))).unwrap();
            assert_eq!(rig.gate.mode(), Mode::Granting, "nobody asked for 99");
            let asked = asked(&mut rig);
            rig.input(Input::Disk(DiskDone::Reserved(asked))).unwrap();
            assert_eq!(rig.gate.mode(), Mode::Remote);
            return;
        }
        rig.counter = 0;
        rig.act(Act::Take).unwrap();
    }
    panic!("the block never ran out");
}

/// The end of the newest reservation that the gate asks for within its second.
fn asked(rig: &mut Rig) -> Epoch {
    for _ in 0..9 {
        rig.run(ms(10));
        if let Some(Output::Disk(DiskAct::Reserve(end))) =
            rig.outs.iter().find(|o| matches!(o, Output::Disk(DiskAct::Reserve(_))))
        {
            return *end;
        }
    }
    Epoch(rig.gate.epoch().0 + 17)
}

#[test]
fn each_change_of_state_leaves_one_record() {
    // HO-U-005
    let mut rig = Rig::at(Mode::Granting);
    rig.act(Act::Withdraw).unwrap();
    let [record] = rig.records()[..] else { panic!("{:?}", rig.outs) };
    assert_eq!((record.from, record.to, record.why), (Mode::Granting, Mode::Local, Why::Local));
    assert_eq!((record.oid, record.expert, record.set), (Some(Oid(1)), Some(X), GrantedSet::ENERGY));
    assert_eq!(record.step, short("step"));
}

#[test]
fn hold_is_left_by_no_message_and_no_time() {
    // HO-G-022, HO-I-010
    let mut rig = Rig::at(Mode::Remote);
    let (epoch, oid) = (rig.gate.epoch(), Oid(rig.oid));
    rig.world.heartbeats = false;
    rig.run(ms(600));
    assert_eq!(rig.gate.mode(), Mode::Hold);
    rig.world.heartbeats = true;
    for _ in 0..20 {
        let mut hb = rig.hb();
        hb.binding = crate::handover::types::Binding::Epoch(epoch);
        assert!(rig.input(Input::Heartbeat(CX, hb)).is_err());
        let accept = ToGate::Accept { oid, token: crate::handover::message::Token::default() };
        assert_eq!(rig.say_with(CX, accept, Some(crate::handover::rig::token(X))), Err(Reason::NoSuchOffer));
        rig.run(ms(50));
        assert_eq!(rig.gate.mode(), Mode::Hold);
    }
}
