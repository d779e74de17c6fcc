use super::*;

const SYNC: InputEvent = InputEvent::Sync;

fn key(code: u16, change: KeyChange) -> InputEvent {
    InputEvent::Key(KeyCode(code), change)
}

fn axis(code: u16, value: i32) -> InputEvent {
    InputEvent::Axis(AxisCode(code), value)
}

fn pad() -> State {
    State::new(Layout::gamepad(), |_| None)
}

fn pad_with(settings: &[&str]) -> State {
    let settings: Vec<_> = settings.iter().map(|s| s.parse().unwrap()).collect();
    State::new(Layout::gamepad().with(&settings).unwrap(), |_| None)
}

fn after(state: &mut State, events: &[InputEvent]) -> Vec<Act> {
    let now = Micros(1);
    events.iter().flat_map(|e| state.handle(*e, now)).collect()
}

fn presence(acts: Vec<Act>) -> Option<bool> {
    match acts.into_iter().next_back() {
        Some(Act::Hands(hands)) => hands.presence,
        None => None,
        other => panic!("{other:?}"),
    }
}

fn motions(acts: &[Act]) -> Vec<sim::Motion> {
    let payloads = acts.iter().filter_map(|a| if let Act::Motion(p) = a { Some(p) } else { None });
    payloads.map(|p| sim::Motion::decode(p.as_bytes()).unwrap()).collect()
}

/// Presence and clutch held.
fn coupled(mut state: State) -> State {
    after(&mut state, &[key(0x138, KeyChange::Pressed), key(0x139, KeyChange::Pressed), SYNC]);
    state
}

#[test]
fn presence_lasts_as_long_as_the_trigger_is_held_and_ends_where_events_are_lost() {
    let mut state = pad();
    assert_eq!(presence(after(&mut state, &[key(0x138, KeyChange::Pressed), SYNC])), Some(true));
    // Not said again, so that another input's word stands.
    assert_eq!(presence(after(&mut state, &[key(0x139, KeyChange::Pressed), SYNC])), None);
    assert_eq!(presence(after(&mut state, &[InputEvent::Dropped])), Some(false));
    // In doubt it stays released until the hand comes up and goes down again.
    assert_eq!(presence(after(&mut state, &[SYNC, key(0x138, KeyChange::Repeated), SYNC])), None);
    assert_eq!(presence(after(&mut state, &[key(0x138, KeyChange::Pressed), SYNC])), Some(true));
    assert_eq!(presence(after(&mut state, &[key(0x138, KeyChange::Released), SYNC])), Some(false));
}

#[test]
fn a_trigger_that_is_an_axis_is_held_beyond_three_quarters_and_only_after_it_was_seen_let_go() {
    let mut state = pad();
    // Pulled before the pad was there: it trembles, and that is no press.
    assert_eq!(presence(after(&mut state, &[axis(2, 250), SYNC, axis(2, 255), SYNC])), None);
    assert_eq!(presence(after(&mut state, &[axis(2, 10), SYNC, axis(2, 180), SYNC])), None, "not far enough");
    assert_eq!(presence(after(&mut state, &[axis(2, 200), SYNC])), Some(true));
    assert_eq!(presence(after(&mut state, &[axis(2, 170), SYNC])), None, "held: a little less is no release");
    assert_eq!(presence(after(&mut state, &[axis(2, 160), SYNC])), Some(false));
    // After lost events it has to be let go first.
    after(&mut state, &[axis(2, 255), SYNC, InputEvent::Dropped, SYNC]);
    assert_eq!(presence(after(&mut state, &[axis(2, 254), SYNC])), None);
    assert_eq!(presence(after(&mut state, &[axis(2, 0), SYNC, axis(2, 255), SYNC])), Some(true));
}

#[test]
fn an_axis_that_rests_in_its_middle_is_no_trigger() {
    let range = |now| Range { min: 0, max: 255, flat: 15, now: Some(now) };
    let ask = |axis: AxisCode| (axis == AxisCode(2)).then(|| range(128));
    let mut state = State::new(Layout::gamepad(), ask);
    assert_eq!(presence(after(&mut state, &[axis(2, 0), SYNC, axis(2, 255), SYNC])), None);
    // The negative control: the same axis at rest at its end is one.
    let mut state = State::new(Layout::gamepad(), |a: AxisCode| (a == AxisCode(2)).then(|| range(2)));
    assert_eq!(presence(after(&mut state, &[axis(2, 0), SYNC, axis(2, 255), SYNC])), Some(true));
}

#[test]
fn a_stick_moves_only_with_presence_and_clutch_held_and_at_rest_nothing_moves() {
    let push = axis(0, 32_767);
    for held in [&[][..], &[0x138], &[0x139]] {
        let mut state = pad();
        let mut events: Vec<_> = held.iter().map(|code| key(*code, KeyChange::Pressed)).collect();
        events.extend([push, SYNC]);
        assert_eq!(motions(&after(&mut state, &events)), [], "{held:?}");
    }
    let mut state = coupled(pad());
    assert_eq!(motions(&after(&mut state, &[push, SYNC, SYNC])).len(), 1, "at most one in 10 ms");
    assert_eq!(motions(&state.felt(Micros(10_001))).len(), 1, "it is still pushed");
    // The hand lets go of the dead-man button and the stick stays where it is.
    after(&mut state, &[key(0x138, KeyChange::Released), SYNC]);
    assert_eq!(motions(&state.felt(Micros(1_000_000))), []);
    let rest = after(&mut pad(), &[axis(0, 3_000), key(0x137, KeyChange::Pressed), SYNC]);
    let Some(Act::Hands(Hands { pose: Some(pose), .. })) = rest.first() else { panic!("{rest:?}") };
    assert!(sim::Pose::decode(pose.as_bytes()).unwrap().motion_zero);
}

#[test]
fn a_stick_at_its_end_moves_at_its_speed_whatever_the_rate_and_slow_motions_add_up() {
    for rate in [50_u64, 100, 1_000] {
        let mut state = coupled(pad_with(&[&format!("rate={rate}"), "speed=10", "turn=20", "dead-zone=0"]));
        after(&mut state, &[axis(0, 32_767), axis(3, -32_768), axis(4, 330), SYNC]);
        let steps = (1..=rate).map(|n| Micros(1 + n * (1_000_000 / rate)));
        let all: Vec<_> = steps.flat_map(|at| motions(&state.felt(at))).collect();
        assert_eq!(all.len() as u64, rate);
        let sum = |i: usize| all.iter().map(|m| i64::from(m.axes[i])).sum::<i64>();
        assert!((9_990..=10_010).contains(&sum(0)), "10 mm in a second at {rate}: {} µm", sum(0));
        assert!((-2_001..=-1_990).contains(&sum(5)), "20 degrees: {}", sum(5));
        assert!((95..=105).contains(&sum(2)), "a hundredth of the way, 0.1 mm: {} µm", sum(2));
    }
}

#[test]
fn the_cross_moves_the_camera_and_a_trigger_may_be_the_grip() {
    let mut state = coupled(pad_with(&["grip=ABS_GAS", "y=-ABS_Y"]));
    let acts = after(&mut state, &[axis(0x10, 1), axis(0x11, -1), axis(1, 32_767), axis(9, 255), SYNC]);
    // The grip alone made the last motion: the next one is due after a tick.
    let later = state.felt(Micros(10_001));
    let [motion] = motions(&later)[..] else { panic!("{later:?}") };
    assert_eq!((motion.camera, motion.grip), ([30, -30, 0], Some(sim::CLOSED)));
    assert_eq!(motion.axes[1], -200);
    let Some(Act::Hands(Hands { pose: Some(pose), .. })) = acts.first() else { panic!("{acts:?}") };
    assert_eq!(sim::Pose::decode(pose.as_bytes()).unwrap().grip, sim::CLOSED);
}

#[test]
fn a_pedal_knows_nothing_of_what_other_inputs_do() {
    let acts = after(&mut State::new(Layout::pedal(), |_| None), &[key(46, KeyChange::Pressed), SYNC]);
    let [Act::Hands(hands)] = &acts[..] else { panic!("{acts:?}") };
    assert_eq!(*hands, Hands { pedal: Some(true), ..Hands::default() });
    assert_eq!(after(&mut pad(), &[key(0x130, KeyChange::Pressed)]), [Act::Accept]);
}
