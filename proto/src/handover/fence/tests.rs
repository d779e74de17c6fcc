use super::*;
use crate::handover::message::Payload;
use crate::handover::types::{Counter, GrantedSet};

const A: BootId = BootId(1);
const B: BootId = BootId(2);

fn ms(n: u64) -> Micros {
    Micros(n * 1_000)
}

fn fence() -> Fence {
    Fence::new(ms(0), Epoch(5), 150_000)
}

fn select(boot: BootId, to: Selection, fence: u64, sequence: u64) -> DeviceAct {
    DeviceAct::Select { boot, to, fence: Epoch(fence), sequence }
}

fn alive(boot: BootId, fence: u64) -> DeviceAct {
    DeviceAct::KeepAlive { boot, fence: Epoch(fence) }
}

fn command(fence: u64, sequence: u64) -> DeviceAct {
    let (set, payload) = (GrantedSet::INSTRUMENTS, Payload::default());
    DeviceAct::Command { fence: Epoch(fence), sequence, counter: Counter(sequence), set, energy: false, payload }
}

fn does(fence: &mut Fence, at: u64, act: &DeviceAct) -> Result<Effects, FenceError> {
    fence.handle(ms(at), act).1
}

/// Remote selected by A with fence 6, on disk.
fn remote() -> Fence {
    let mut f = fence();
    does(&mut f, 0, &select(A, Selection::Remote, 6, 1)).unwrap();
    f.persisted(Epoch(6));
    f
}

#[test]
fn a_device_that_starts_obeys_nobody_and_is_latched() {
    // HO-D-012, HO-D-013
    let mut f = fence();
    assert_eq!((f.selected(), f.highest(), f.report().latched), (Selection::Nobody, Epoch(5), true));
    assert_eq!(does(&mut f, 0, &command(5, 1)), Err(FenceError::NotSelected));
    assert_eq!(does(&mut f, 0, &select(A, Selection::Remote, 5, 1)), Err(FenceError::Latched));
    assert!(
        does(&mut f, 0, &select(A, Selection::Local, 5, 1)).is_ok(),
        "the gate at work goes on after the device's restart"
    );
}

#[test]
fn a_lower_fence_is_refused_for_everything() {
    // HO-D-001
    let mut f = remote();
    for act in [
        alive(A, 5),
        select(A, Selection::Local, 5, 9),
        command(5, 9),
        DeviceAct::Hold { fence: Epoch(5), sequence: 9 },
        DeviceAct::EnergyOff { fence: Epoch(5), sequence: 9 },
    ] {
        assert_eq!(does(&mut f, 1, &act), Err(FenceError::LowFence), "{act:?}");
    }
    assert_eq!(f.report().highest, Epoch(6));
    assert!(does(&mut f, 1, &command(6, 2)).is_ok());
}

#[test]
fn a_new_fence_is_to_be_made_durable_and_commands_wait_for_that_while_local_does_not() {
    // HO-D-001, HO-D-009
    let mut f = fence();
    let effects = does(&mut f, 0, &select(A, Selection::Remote, 6, 1)).unwrap();
    assert_eq!((effects.persist, effects.obey), (Some(Epoch(6)), Some(Selection::Remote)));
    assert_eq!(does(&mut f, 1, &command(6, 2)), Err(FenceError::NotDurable));
    f.persisted(Epoch(6));
    assert_eq!(does(&mut f, 1, &command(6, 2)).unwrap().actuate, Some(false));
    let effects = does(&mut f, 2, &select(A, Selection::Local, 7, 1)).unwrap();
    assert_eq!((effects.obey, effects.energy_off), (Some(Selection::Local), true));
}

#[test]
fn a_second_gate_is_refused_while_the_first_ones_keep_alive_is_current_and_leaves_no_trace() {
    // HO-D-002, HO-D-003, HO-X-023
    let mut f = remote();
    for act in [alive(B, 99), select(B, Selection::Local, 99, 1)] {
        assert_eq!(does(&mut f, 149, &act), Err(FenceError::NotOwner));
    }
    assert_eq!(f.report().highest, Epoch(6));
    assert!(does(&mut f, 149, &select(A, Selection::Local, 7, 1)).is_ok(), "the first one's TAKE");
}

#[test]
fn a_gate_whose_keep_alive_lapsed_has_lost_its_place_to_a_higher_fence() {
    // HO-D-004, HO-X-022
    let mut f = remote();
    assert_eq!(does(&mut f, 150, &select(B, Selection::Nobody, 6, 2)), Err(FenceError::NotOwner), "not above");
    assert!(does(&mut f, 150, &alive(B, 7)).is_ok());
    assert_eq!(does(&mut f, 151, &alive(A, 6)), Err(FenceError::NotOwner));
    assert!(does(&mut f, 151, &select(B, Selection::Nobody, 7, 1)).is_ok());
    assert_eq!(does(&mut f, 152, &select(A, Selection::Remote, 6, 9)), Err(FenceError::LowFence));
}

#[test]
fn without_keep_alive_the_device_holds_and_the_hold_latches() {
    // HO-D-005, HO-D-006, HO-D-013, HO-X-009
    let mut f = remote();
    assert_eq!(f.tick(ms(149)), Effects::default());
    assert_eq!(f.tick(ms(150)), Effects { hold: true, energy_off: true, ..Effects::default() });
    assert_eq!(f.tick(ms(151)), Effects::default());
    assert!(does(&mut f, 152, &alive(A, 6)).is_ok(), "the gate is back");
    assert_eq!(does(&mut f, 153, &command(6, 2)), Err(FenceError::Latched));
    assert!(does(&mut f, 153, &select(A, Selection::Remote, 6, 1)).is_ok(), "a repetition changes nothing");
    assert_eq!(does(&mut f, 153, &select(A, Selection::Remote, 6, 2)), Err(FenceError::Latched));
    assert_eq!(does(&mut f, 153, &command(6, 3)), Err(FenceError::Latched));
    assert!(does(&mut f, 154, &select(A, Selection::Remote, 7, 1)).is_ok());
    f.persisted(Epoch(7));
    assert!(does(&mut f, 154, &command(7, 2)).is_ok());
}

#[test]
fn a_device_that_slept_itself_finds_the_latch_closed_before_the_backlog() {
    // HO-D-006
    let mut f = remote();
    let (before, result) = f.handle(ms(5_000), &command(6, 2));
    assert_eq!((before.hold, result), (true, Err(FenceError::Latched)));
}

#[test]
fn while_local_is_selected_nothing_stops_the_surgeon() {
    // HO-D-007
    let mut f = fence();
    does(&mut f, 0, &select(A, Selection::Local, 6, 1)).unwrap();
    assert_eq!(f.tick(ms(10_000)), Effects::default());
    let hold = does(&mut f, 10_001, &DeviceAct::Hold { fence: Epoch(6), sequence: 2 }).unwrap();
    assert!(!hold.hold);
    assert_eq!(f.selected(), Selection::Local);
    assert!(does(&mut f, 10_002, &select(A, Selection::Local, 6, 2)).is_ok(), "TAKE after a long pause");
}

#[test]
fn a_selection_that_comes_twice_changes_nothing_and_an_old_one_is_refused() {
    // HO-D-008
    let mut f = remote();
    does(&mut f, 1, &select(A, Selection::Nobody, 6, 2)).unwrap();
    assert_eq!(does(&mut f, 2, &select(A, Selection::Nobody, 6, 2)), Ok(Effects::default()));
    assert_eq!(does(&mut f, 2, &select(A, Selection::Remote, 6, 1)), Err(FenceError::OldSequence));
    assert_eq!(does(&mut f, 2, &select(A, Selection::Remote, 6, 2)), Err(FenceError::OldSequence));
    assert_eq!(f.selected(), Selection::Nobody);
}

#[test]
fn a_command_moves_once_and_none_overtakes_a_hold() {
    // HO-D-010, HO-D-019
    let mut f = remote();
    assert!(does(&mut f, 1, &command(6, 2)).is_ok());
    assert_eq!(does(&mut f, 1, &command(6, 2)), Err(FenceError::OldSequence));
    assert!(does(&mut f, 1, &DeviceAct::Hold { fence: Epoch(6), sequence: 5 }).unwrap().hold);
    assert_eq!(does(&mut f, 1, &command(6, 4)), Err(FenceError::OldSequence));
    assert!(does(&mut f, 1, &command(6, 6)).is_ok());
    assert_eq!(does(&mut f, 1, &command(7, 7)), Err(FenceError::NotSelected), "a fence that nobody selected");
}

#[test]
fn the_hardware_override_gives_the_device_to_local_and_only_a_selection_of_local_ends_it() {
    // HO-D-011
    let mut f = remote();
    assert_eq!(f.override_to_local().obey, Some(Selection::Local));
    assert_eq!(does(&mut f, 1, &command(6, 9)), Err(FenceError::NotSelected));
    for to in [Selection::Nobody, Selection::Remote] {
        assert_eq!(does(&mut f, 1, &select(A, to, 9, 1)), Err(FenceError::Overridden));
    }
    assert!(does(&mut f, 1, &select(A, Selection::Local, 7, 1)).is_ok());
    assert!(!f.report().overridden);
}

#[test]
fn every_selection_but_remote_turns_remote_energy_off() {
    // HO-D-014
    for (to, off) in [(Selection::Nobody, true), (Selection::Local, true), (Selection::Remote, false)] {
        assert_eq!(does(&mut fence(), 0, &select(A, to, 6, 1)).unwrap().energy_off, off);
    }
}

#[test]
fn energy_and_the_hold_are_reported_as_they_are() {
    // HO-D-020, HO-D-021
    let shown = |f: &Fence| (f.report().energy, f.report().held);
    let with = |sequence| {
        let DeviceAct::Command { fence, counter, set, payload, .. } = command(6, sequence) else { unreachable!() };
        DeviceAct::Command { fence, sequence, counter, set, energy: true, payload }
    };
    assert_eq!(shown(&fence()), (false, true));
    type Stop = (&'static str, fn(&mut Fence));
    let stops: [Stop; 5] = [
        ("hold", |f| _ = does(f, 2, &DeviceAct::Hold { fence: Epoch(6), sequence: 9 })),
        ("nobody", |f| _ = does(f, 2, &select(A, Selection::Nobody, 6, 9))),
        ("local", |f| _ = does(f, 2, &select(A, Selection::Local, 6, 9))),
        ("override", |f| _ = f.override_to_local()),
        ("watchdog", |f| _ = f.tick(ms(151))),
    ];
    for (what, stop) in stops {
        let mut f = remote();
        assert_eq!(shown(&f), (false, true), "selected, and nothing moved yet");
        does(&mut f, 1, &with(2)).unwrap();
        assert_eq!(shown(&f), (true, false));
        stop(&mut f);
        assert_eq!(shown(&f), (false, true), "{what}");
    }
    let mut f = remote();
    does(&mut f, 1, &with(2)).unwrap();
    does(&mut f, 1, &DeviceAct::EnergyOff { fence: Epoch(5), sequence: 9 }).unwrap_err();
    assert_eq!(shown(&f), (true, false), "what is refused changes nothing");
    does(&mut f, 1, &DeviceAct::EnergyOff { fence: Epoch(6), sequence: 3 }).unwrap();
    assert_eq!(shown(&f), (false, false), "energy off holds nothing");
    does(&mut f, 1, &with(4)).unwrap();
    does(&mut f, 1, &command(6, 5)).unwrap();
    assert_eq!(shown(&f), (false, false), "the first command without the permit");
}
