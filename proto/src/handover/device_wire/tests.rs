use super::*;
use crate::handover::message::Payload;
use crate::handover::types::{BootId, Counter, GrantedSet, Selection};

const HEAD_OF: Head = Head { sender: 0x1111_1111_1111_1111, counter: 0x2222, peer: 0x3333_3333_3333_3333 };
const BOOT: BootId = BootId(0x00ff_0000_0000_0000_0000_0000_0000_00aa);

fn motion() -> sim::Motion {
    sim::Motion { axes: [100, 0, -50, 0, 0, 0], camera: [0; 3], grip: None }
}

fn to_device() -> Vec<(&'static str, ToDevice)> {
    let (fence, sequence) = (Epoch(7), 3);
    vec![
        ("hello", ToDevice::Hello),
        ("keep-alive", ToDevice::Act(DeviceAct::KeepAlive { boot: BOOT, fence })),
        ("select", ToDevice::Act(DeviceAct::Select { boot: BOOT, to: Selection::Remote, fence, sequence: 1 })),
        ("hold", ToDevice::Act(DeviceAct::Hold { fence, sequence })),
        ("energy-off", ToDevice::Act(DeviceAct::EnergyOff { fence, sequence })),
        (
            "command",
            ToDevice::Act(DeviceAct::Command {
                fence,
                sequence,
                counter: Counter(99),
                set: GrantedSet::ENERGY,
                energy: true,
                payload: Payload::new(motion().encode()).unwrap(),
            }),
        ),
    ]
}

fn report() -> Report {
    Report {
        device: DeviceReport {
            highest: Epoch(7),
            owner: Some(BOOT),
            selected: Selection::Remote,
            sequence: 1,
            latched: false,
            overridden: false,
            energy: true,
            held: false,
            rival: false,
        },
        moving: true,
        watchdog: 150_000,
        camera_moves: 2,
        echo: 0x2222,
        actuated: Some(Actuated { fence: Epoch(7), sequence: 3 }),
        refusals: 5,
        refused: Some(Refusal { counter: 0x2221, reason: Refused::OldSequence }),
        state: State::new(vec![1, 2, 3]).unwrap(),
    }
}

fn quiet_report() -> Report {
    let device = DeviceReport {
        highest: Epoch(0),
        owner: None,
        selected: Selection::Nobody,
        sequence: 0,
        latched: true,
        overridden: true,
        energy: false,
        held: true,
        rival: true,
    };
    let (moving, watchdog, camera_moves) = (false, 1, 0);
    let (echo, actuated, refusals, refused, state) = (0, None, 0, None, State::default());
    Report { device, moving, watchdog, camera_moves, echo, actuated, refusals, refused, state }
}

fn all_bytes() -> Vec<(&'static str, Vec<u8>)> {
    let acts = to_device().into_iter().map(|(name, message)| (name, encode_to_device(&HEAD_OF, &message)));
    acts.chain([("report", encode_report(&HEAD_OF, &report()))]).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[test]
fn the_documentation_shows_the_bytes_that_the_codec_makes() {
    // HO-C-001. Golden bytes live in docs/DEVICES.md, where makers of controllers read them.
    let documented = include_str!("../../../../docs/DEVICES.md");
    for (name, bytes) in all_bytes() {
        let line = format!("{name}: {}", hex(&bytes));
        assert!(documented.lines().any(|each| each == line), "docs/DEVICES.md lacks the line\n{line}");
    }
    for (name, bytes) in [
        ("motion", motion().encode()),
        ("pose", sim::Pose { motion_zero: true, orientation: sim::UPRIGHT, grip: 5_000 }.encode()),
        ("state", state().encode()),
    ] {
        let line = format!("{name}: {}", hex(&bytes));
        assert!(documented.lines().any(|each| each == line), "docs/DEVICES.md lacks the line\n{line}");
    }
}

fn state() -> sim::State {
    let (axes, camera) = ([100, 0, -50, 0, 0, 9_000], [0, -100, 0]);
    sim::State { moving: true, orientation: sim::orientation(0, 0, 9_000), grip: 5_000, axes, camera }
}

#[test]
fn what_was_encoded_decodes_to_the_same_value() {
    // HO-C-004
    for (name, message) in to_device() {
        assert_eq!(decode_to_device(&encode_to_device(&HEAD_OF, &message)), Ok((HEAD_OF, message)), "{name}");
    }
    for report in [report(), quiet_report()] {
        assert_eq!(decode_report(&encode_report(&HEAD_OF, &report)), Ok((HEAD_OF, report)));
    }
    assert_eq!(sim::Motion::decode(&motion().encode()), Ok(motion()));
    assert_eq!(sim::State::decode(&state().encode()), Ok(state()));
}

#[test]
fn every_truncation_and_every_byte_more_is_refused() {
    // HO-C-002, HO-C-003
    for (name, bytes) in all_bytes() {
        let whole = |bytes: &[u8]| decode_to_device(bytes).is_ok() || decode_report(bytes).is_ok();
        assert!(whole(&bytes), "{name}");
        for n in 0..bytes.len() {
            assert!(!whole(&bytes[..n]), "{name} cut at {n}");
        }
        assert!(!whole(&[&bytes[..], &[0]].concat()), "{name} with a byte more");
    }
}

#[test]
fn a_changed_byte_is_refused_or_another_value_and_encodes_to_itself() {
    // HO-C-003, HO-C-004: an encoding is unique.
    for (name, bytes) in all_bytes() {
        for n in 0..bytes.len() {
            for value in [0, 1, 2, 7, 0x7f, 0x80, 0xff] {
                let mut changed = bytes.clone();
                changed[n] = value;
                if let Ok((head, message)) = decode_to_device(&changed) {
                    assert_eq!(encode_to_device(&head, &message), changed, "{name} byte {n}");
                }
                if let Ok((head, report)) = decode_report(&changed) {
                    assert_eq!(encode_report(&head, &report), changed, "{name} byte {n}");
                }
            }
        }
    }
}

#[test]
fn neither_side_reads_what_the_other_side_says() {
    // HO-C-001: a reflected datagram is of an unknown kind.
    for (name, bytes) in all_bytes() {
        let (to_device, report) = (decode_to_device(&bytes), decode_report(&bytes));
        let kind = bytes[5];
        match name {
            "report" => assert_eq!(to_device, Err(DecodeError::Kind(kind))),
            _ => assert_eq!(report, Err(DecodeError::Kind(kind))),
        }
    }
}

#[test]
fn another_magic_another_version_and_numbers_that_nobody_has_are_refused_by_name() {
    let bytes = encode_to_device(&HEAD_OF, &ToDevice::Hello);
    let changed = |at: usize, with: &[u8]| {
        let mut changed = bytes.clone();
        changed[at..at + with.len()].copy_from_slice(with);
        decode_to_device(&changed).unwrap_err()
    };
    assert!(matches!(changed(0, b"X"), DecodeError::Value { field: "magic", .. }));
    assert_eq!(changed(4, &[9]), DecodeError::Version(9));
    assert_eq!(changed(6, &[0; 8]), DecodeError::Value { field: "sender", value: 0 });
    assert_eq!(changed(14, &[0; 8]), DecodeError::Value { field: "counter", value: 0 });
}

#[test]
fn a_payload_beyond_the_bound_is_refused_by_its_length() {
    // HO-P-005, HO-C-002
    let act = |payload| DeviceAct::Command {
        fence: Epoch(1),
        sequence: 1,
        counter: Counter(1),
        set: GrantedSet::CAMERA,
        energy: false,
        payload,
    };
    let longest = encode_to_device(&HEAD_OF, &ToDevice::Act(act(Payload::new(vec![7; MAX_PAYLOAD]).unwrap())));
    assert_eq!(longest.len() + TAG, MAX_DATAGRAM);
    assert!(decode_to_device(&longest).is_ok());
    let at = longest.len() - MAX_PAYLOAD - 2;
    let mut longer = longest;
    longer[at..at + 2].copy_from_slice(&1_025_u16.to_be_bytes());
    longer.push(7);
    assert_eq!(decode_to_device(&longer), Err(DecodeError::Long { field: "payload", len: 1_025, max: 1_024 }));
}

#[test]
fn energy_without_instruments_is_no_set_on_this_wire_either() {
    // HO-C-005
    let (_, mut bytes) = all_bytes().into_iter().find(|(name, _)| *name == "command").unwrap();
    bytes[54] = 0b100;
    assert_eq!(decode_to_device(&bytes), Err(DecodeError::Value { field: "set", value: 4 }));
}

#[test]
fn a_datagram_without_room_for_a_tag_has_none() {
    let datagram = [encode_to_device(&HEAD_OF, &ToDevice::Hello), vec![5; TAG]].concat();
    assert_eq!(split_tag(&datagram).unwrap().1, [5; TAG]);
    assert_eq!(split_tag(&datagram[..HEAD + TAG - 1]), None);
    assert_eq!(split_tag(&[]), None);
}

#[test]
fn the_angle_between_two_orientations_is_that_of_the_turn_whatever_the_signs() {
    // HO-R-004
    let turned = sim::orientation(0, 500, 0);
    assert!(sim::angle_between(sim::UPRIGHT, turned).unwrap().abs_diff(5_000) <= 5);
    let negative = turned.map(|part| -part);
    assert!(sim::angle_between(sim::UPRIGHT, negative).unwrap().abs_diff(5_000) <= 5);
    assert_eq!(sim::angle_between(turned, turned), Some(0));
    assert!(sim::angle_between(sim::UPRIGHT, sim::orientation(18_000, 0, 0)).unwrap().abs_diff(180_000) <= 5);
    assert!(sim::angle_between(sim::orientation(3_000, 0, 0), sim::orientation(0, 3_000, 0)).unwrap() > 40_000);
    assert_eq!(sim::angle_between([0; 4], turned), None);
    assert_eq!(sim::angle_between([i16::MIN; 4], [i16::MIN; 4]), Some(0));
}

#[test]
fn a_motion_is_within_the_set_only_where_all_that_it_moves_is_granted() {
    // HO-S-016
    let camera = sim::Motion { camera: [0, 1, 0], ..sim::Motion::default() };
    let grip = sim::Motion { grip: Some(0), ..sim::Motion::default() };
    for (motion, set, within) in [
        (motion(), GrantedSet::INSTRUMENTS, true),
        (motion(), GrantedSet::CAMERA, false),
        (grip, GrantedSet::CAMERA, false),
        (camera, GrantedSet::CAMERA, true),
        (camera, GrantedSet::ENERGY, false),
        (sim::Motion::default(), GrantedSet::default(), true),
    ] {
        assert_eq!(motion.is_within(set), within, "{motion:?} {set:?}");
    }
}

#[test]
fn contents_of_the_simulated_device_have_one_encoding() {
    // HO-C-002, HO-C-004
    let pose = sim::Pose { motion_zero: true, orientation: sim::UPRIGHT, grip: 1 };
    assert_eq!(sim::Pose::decode(&pose.encode()), Ok(pose));
    let mut idle_grip = motion().encode();
    *idle_grip.last_mut().unwrap() = 1;
    assert_eq!(sim::Motion::decode(&idle_grip), Err(DecodeError::Value { field: "grip", value: 1 }));
    let mut wide = pose.encode();
    wide[10..].copy_from_slice(&10_001_u16.to_be_bytes());
    assert_eq!(sim::Pose::decode(&wide), Err(DecodeError::Value { field: "grip", value: 10_001 }));
    for bytes in [motion().encode(), pose.encode(), state().encode()] {
        let (longer, mut other) = ([&bytes[..], &[0]].concat(), bytes.clone());
        other[0] = 2;
        for bad in [&longer[..], &bytes[..bytes.len() - 1], &other[..], &[]] {
            assert!(
                sim::Motion::decode(bad).is_err()
                    && sim::Pose::decode(bad).is_err()
                    && sim::State::decode(bad).is_err()
            );
        }
    }
}
