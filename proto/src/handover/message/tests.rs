use super::*;
use crate::handover::types::Colour;

fn short(s: &str) -> Short {
    Short::new(s).unwrap()
}

const OID: Oid = Oid(0x0011_2233_4455_6677_8899_aabb_ccdd_eeff);
const ECHO: FrameRef = FrameRef { source: 1, view: 2, frame: 0x0102_0304, digest: 0xd1 };

fn to_gate() -> Vec<ToGate> {
    vec![
        ToGate::Hello { capabilities: 0, binds: Some(9), token: Token::new("a.b.c").unwrap() },
        ToGate::Probe { nonce: Nonce(0xfeed) },
        ToGate::Request { set: GrantedSet::CAMERA, grade: Grade::Camera, reason: short("näher") },
        ToGate::Accept { oid: OID, token: Token::new("t").unwrap() },
        ToGate::Decline { oid: OID, reason: short("") },
        ToGate::Return { epoch: Epoch(7) },
        ToGate::Estop { person: Some(short("nurse-1")), reason: short("bleeding") },
    ]
}

fn status() -> Status {
    Status {
        epoch: Epoch(7),
        mode: Mode::Remote,
        expert: Some(ExpertId([0xab; 32])),
        set: GrantedSet::ENERGY,
        since_ms: 1_234,
        stopped: 3,
        alarms: 0x0102,
        colours: Colours { jitter: Colour::Amber, ..Colours::GREEN },
        figures: Figures { loop_p50: 40_000, ..Figures::default() },
        answers: vec![Nonce(1), Nonce(2)],
        paths: crate::handover::paths::Protection::Unprotected,
        timers: crate::handover::message::Timers::default(),
    }
}

fn from_gate() -> Vec<FromGate> {
    vec![
        FromGate::Status(status()),
        FromGate::Offer {
            oid: OID,
            set: GrantedSet::INSTRUMENTS,
            grade: Grade::Instruments,
            step: short("anastomosis"),
            expires_ms: 30_000,
        },
        FromGate::Withdraw { oid: OID },
        FromGate::Grant { holder: ExpertId([1; 32]), epoch: Epoch(8), set: GrantedSet::CAMERA, lease_ms: 500 },
        FromGate::Nack { reason: Reason::WrongEpoch, epoch: Epoch(9) },
    ]
}

fn datagrams() -> Vec<Datagram> {
    vec![
        Datagram::Heartbeat(Heartbeat {
            binding: Binding::Offer(OID),
            counter: Counter(5),
            beat: 4,
            nonce: Nonce(0xbeef),
            echo: Some(ECHO),
            presence: true,
            pedal: false,
            pose: Pose::new([9, 8, 7]).unwrap(),
        }),
        Datagram::Command(Command {
            epoch: Epoch(8),
            counter: Counter(6),
            nonce: Nonce(1),
            echo: None,
            clutch: Clutch::Closed,
            payload: Payload::new([1, 2]).unwrap(),
        }),
        Datagram::Beacon(Beacon { binding: Binding::Epoch(Epoch(8)), counter: Counter(1), nonce: Nonce(2) }),
    ]
}

fn all_bytes() -> Vec<Vec<u8>> {
    let mut all: Vec<_> = to_gate().iter().map(|m| encode_to_gate(77, m)).collect();
    all.extend(from_gate().iter().map(|m| encode_from_gate(78, m)));
    all.extend(datagrams().iter().map(encode_datagram));
    all
}

/// What the bytes are, said again as bytes; nothing where they are no message.
fn again(bytes: &[u8]) -> Option<Vec<u8>> {
    let ways = [
        decode_to_gate(bytes).ok().map(|(id, m)| encode_to_gate(id, &m)),
        decode_from_gate(bytes).ok().map(|(id, m)| encode_from_gate(id, &m)),
        decode_datagram(bytes).ok().map(|d| encode_datagram(&d)),
    ];
    let mut found = ways.into_iter().flatten();
    let first = found.next();
    assert!(found.next().is_none(), "two readings of {bytes:02x?}");
    first
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[test]
fn every_message_comes_back_as_it_went() {
    // HO-C-004
    for m in to_gate() {
        assert_eq!(decode_to_gate(&encode_to_gate(3, &m)), Ok((3, m)));
    }
    for m in from_gate() {
        assert_eq!(decode_from_gate(&encode_from_gate(4, &m)), Ok((4, m)));
    }
    for d in datagrams() {
        assert_eq!(decode_datagram(&encode_datagram(&d)), Ok(d));
    }
    for (number, reason) in Reason::ALL.into_iter().enumerate() {
        let bytes = encode_from_gate(1, &FromGate::Nack { reason, epoch: Epoch(1) });
        assert_eq!(usize::from(bytes[10]), number);
        assert_eq!(decode_from_gate(&bytes).map(|(_, m)| m), Ok(FromGate::Nack { reason, epoch: Epoch(1) }));
    }
}

#[test]
fn the_bytes_are_the_ones_written_down() {
    // HO-C-001, HO-C-004: version, kind, id, fields; big endian.
    let golden = [
        "0101000000000000004d0000000001000000000000000000000000000000090005612e622e63",
        "0102000000000000004d000000000000feed",
        "0103000000000000004d010200066ec3a4686572",
        "0104000000000000004d00112233445566778899aabbccddeeff000174",
        "0105000000000000004d00112233445566778899aabbccddeeff0000",
        "0106000000000000004d0000000000000007",
        "0107000000000000004d0100076e757273652d310008626c656564696e67",
        concat!(
            "0126000000000000004e000000000000000705",
            "01abababababababababababababababababababababababababababababababab",
            "0600000000000004d203010201020101",
            "00009c40ffffffffffffffffffffffffffffffff",
            "0200000000000000010000000000000002",
            "02",
            "00004e200003d0900007a12001c9c380000f4240"
        ),
        "0122000000000000004e00112233445566778899aabbccddeeff0203000b616e6173746f6d6f73697300007530",
        "0123000000000000004e00112233445566778899aabbccddeeff",
        concat!(
            "0124000000000000004e0101010101010101010101010101010101010101010101010101010101010101",
            "000000000000000801000001f4"
        ),
        "0125000000000000004e0b0000000000000009",
        concat!(
            "01410000112233445566778899aabbccddeeff000000000000000500000004000000000000beef",
            "010001000201020304000000000000000000000000000000d101000003090807"
        ),
        "0142000000000000000800000000000000060000000000000001000100020102",
        "014301000000000000000800000000000000010000000000000002",
    ];
    let ours: Vec<String> = all_bytes().iter().map(|b| hex(b)).collect();
    assert_eq!(ours, golden);
}

#[test]
fn a_cut_message_is_refused_at_every_length_and_a_byte_too_many_as_well() {
    // HO-C-002, HO-C-003
    for bytes in all_bytes() {
        for len in 0..bytes.len() {
            assert_eq!(again(&bytes[..len]), None, "{} of {}", len, hex(&bytes));
        }
        let longer = [bytes.as_slice(), &[0]].concat();
        assert_eq!(again(&longer), None, "{}", hex(&longer));
    }
}

#[test]
fn a_flipped_byte_never_panics_and_what_still_reads_has_one_encoding() {
    // HO-C-003, HO-C-004
    for bytes in all_bytes() {
        for at in 0..bytes.len() {
            for flip in 1..=255_u8 {
                let mut bad = bytes.clone();
                bad[at] ^= flip;
                if let Some(out) = again(&bad) {
                    assert_eq!(hex(&out), hex(&bad));
                }
            }
        }
    }
}

#[test]
fn versions_kinds_lengths_and_values_that_are_unknown_have_errors_of_their_own() {
    // HO-C-001, HO-C-002, HO-C-005, HO-P-005
    let beacon = &all_bytes()[14];
    let with = |at: usize, value: u8| {
        let mut b = beacon.clone();
        b[at] = value;
        decode_datagram(&b).unwrap_err()
    };
    assert_eq!(with(0, 2), DecodeError::Version(2));
    assert_eq!(with(1, 0x44), DecodeError::Kind(0x44));
    assert_eq!(with(2, 2), DecodeError::Value { field: "binding", value: 2 });
    assert_eq!(decode_to_gate(beacon).unwrap_err(), DecodeError::Kind(0x43));
    let mut request = all_bytes()[2].clone();
    request[10] = 4;
    assert_eq!(decode_to_gate(&request).unwrap_err(), DecodeError::Value { field: "set", value: 4 });
    let mut command = all_bytes()[13].clone();
    command[28..30].copy_from_slice(&1_025_u16.to_be_bytes());
    assert_eq!(
        decode_datagram(&command).unwrap_err(),
        DecodeError::Long { field: "payload", len: 1_025, max: MAX_PAYLOAD }
    );
    let mut decline = all_bytes()[4].clone();
    decline.splice(26.., [0, 1, 0xff]);
    assert_eq!(decode_to_gate(&decline).unwrap_err(), DecodeError::Text);
    assert_eq!(decode_datagram(&[]).unwrap_err().to_string(), "ends within version");
}

#[test]
fn a_status_has_no_place_for_an_oid() {
    // HO-M-013: its whole size is fixed but for the answers.
    let len = encode_from_gate(1, &FromGate::Status(Status { answers: vec![], ..status() })).len();
    assert_eq!(len, 2 + 8 + 8 + 1 + 33 + 1 + 8 + 1 + 2 + 4 + 20 + 1 + 1 + 20);
}

#[test]
fn text_and_bytes_beyond_their_bound_are_not_even_built() {
    // HO-P-005
    assert_eq!(Payload::new(vec![0; 1_025]).unwrap_err(), TooLong { len: 1_025, max: 1_024 });
    assert!(Payload::new(vec![0; 1_024]).is_ok());
    assert!(Pose::new(vec![0; 65]).is_err());
    assert!(Short::new("x".repeat(129)).is_err());
}
