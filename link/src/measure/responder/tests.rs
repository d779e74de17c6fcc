//! The responder against strangers, forgers and clients.

use super::*;
use crate::measure::cookie::read_address;
use crate::measure::schedule::FlowSpec;
use std::cell::Cell;
use trocar_proto::link::rng::Rng;

const A: &str = "192.0.2.1:4000";

struct World {
    responder: Responder,
    now: Cell<Stamp>,
    shared: Key,
}

impl World {
    fn new() -> Self {
        let limits = Limits { mbit_s_max: 100.0, seconds_max: 60.0, sessions_max: 2 };
        let responder = Responder::new(b"secret", b"", limits, "test 1", Doors { second_port: Some(5), quic: None });
        Self { responder, now: Cell::new(1_000_000), shared: Key::new(b"") }
    }

    fn give(&mut self, from: &str, bytes: &[u8]) -> Vec<Output> {
        let mut out = Vec::new();
        let d = Datagram { from: from.parse().unwrap(), at: self.now.get(), tos: 0, bytes };
        self.responder.handle_packet(d, || self.now.get(), &mut out);
        out
    }

    fn sent(out: &[Output]) -> Option<&[u8]> {
        out.iter().find_map(|o| if let Output::Send { bytes, .. } = o { Some(bytes.as_slice()) } else { None })
    }

    fn cookie(&mut self, from: &str, nonce: u64) -> String {
        let hello = opening(Kind::Hello, nonce, &self.shared, &[]);
        let out = self.give(from, &hello);
        hex::encode(Header::open(&self.shared, Self::sent(&out).unwrap()).unwrap())
    }

    fn open(&mut self, from: &str, nonce: u64, beside: Option<Beside>) -> Result<(u64, Key), String> {
        let cookie = self.cookie(from, nonce);
        let body = json(&Opening { cookie, program: "t".to_owned(), beside });
        let out = self.give(from, &opening(Kind::Open, nonce, &self.shared, &body));
        let bytes = Self::sent(&out).ok_or("silence")?;
        let header = Header::read(bytes).unwrap();
        if header.kind == Kind::Refuse {
            return Err(refusal_of(&out));
        }
        let a: Accepted = read(Header::open(&self.shared, bytes).unwrap()).unwrap();
        Ok((header.session, self.shared.derive(nonce, header.session, &hex::decode(&a.salt).unwrap())))
    }

    fn ask(&mut self, from: &str, (id, key): &(u64, Key), ask: &Ask) -> (Option<Answer>, Vec<Output>) {
        let head = Header {
            kind: Kind::Ask,
            from_responder: false,
            phase: 0,
            session: *id,
            seq: 1,
            frame: 0,
            sent: self.now.get(),
        };
        let out = self.give(from, &head.seal(key, &json(ask)));
        (Self::sent(&out).and_then(|b| read(Header::open(key, b)?)), out)
    }
}
use crate::measure::message::Beside;

const DOWN: Ask = Ask::Start {
    phase: 1,
    way: Way::Down,
    flow: FlowSpec {
        shape: crate::measure::schedule::Shape::Smooth { pps: 100.0 },
        packet_bytes: 200,
        duration_us: 1_000_000,
        tos: 0,
    },
};

#[test]
fn an_address_that_has_shown_no_cookie_never_gets_more_than_came_from_it() {
    let mut w = World::new();
    let session = w.open("192.0.2.9:9", 77, None).unwrap();
    let mut rng = Rng::new(1);
    let real = [
        opening(Kind::Hello, 5, &w.shared, &[]),
        opening(Kind::Open, 5, &w.shared, b"{\"cookie\":\"00\",\"program\":\"x\"}"),
        Header { kind: Kind::Ask, from_responder: false, phase: 1, session: session.0, seq: 1, frame: 0, sent: 0 }
            .seal(&Key::new(b"guess"), &json(&DOWN)),
        Header { kind: Kind::Ping, from_responder: false, phase: 1, session: session.0, seq: 1, frame: 0, sent: 0 }
            .seal(&Key::new(b"guess"), &[0; 900]),
    ];
    let (mut came, mut went, mut answered) = (0_usize, 0_usize, 0);
    for i in 0..20_000_u32 {
        let mut bytes = real[rng.below(4) as usize].clone();
        if i % 2 == 0 {
            bytes.truncate(rng.below(700) as usize);
        }
        if i % 3 == 0 && !bytes.is_empty() {
            let at = rng.below(bytes.len() as u32) as usize;
            bytes[at] ^= 1 << rng.below(8);
        }
        came += bytes.len();
        for output in w.give(A, &bytes) {
            match output {
                Output::Send { bytes: sent, .. } => {
                    assert!(sent.len() <= bytes.len(), "{} for {}", sent.len(), bytes.len());
                    went += sent.len();
                    answered += 1;
                }
                other => panic!("a stranger made it do {other:?}"),
            }
        }
    }
    assert!(went * 4 < came && answered > 1_000, "{went} of {came}, {answered} answers");
    assert_eq!(w.responder.sessions(), 1, "nothing is kept of a stranger");
    // The control: who showed the cookie is sent a flow, at its address.
    let (answer, out) = w.ask("192.0.2.9:9", &session, &DOWN);
    assert_eq!(answer, Some(Answer::Done));
    assert!(out.iter().any(|o| matches!(o, Output::Start { to, .. } if to.to_string() == "192.0.2.9:9")));
}

#[test]
fn a_cookie_of_another_address_opens_nothing() {
    let mut w = World::new();
    let cookie = w.cookie(A, 5);
    let body = json(&Opening { cookie, program: "t".to_owned(), beside: None });
    let open = opening(Kind::Open, 5, &w.shared, &body);
    assert!(w.give("192.0.2.66:4000", &open).is_empty());
    assert!(World::sent(&w.give(A, &open)).is_some(), "the control");
    assert!(World::sent(&w.give(A, &open)).is_some(), "asked again, answered again");
    assert_eq!(w.responder.sessions(), 1);
}

#[test]
fn a_peer_has_one_session_and_a_second_only_beside_it() {
    let mut w = World::new();
    let first = w.open(A, 1, None).unwrap();
    assert!(w.open("192.0.2.1:4001", 2, None).unwrap_err().contains("one measurement at a time"));
    let proof =
        |w: &mut World, key: &Key| hex::encode(key.mac(&[&hex::decode(w.cookie("192.0.2.1:4001", 3)).unwrap()]));
    let good = proof(&mut w, &first.1);
    let bad = proof(&mut w, &Key::new(b"x"));
    assert!(w.open("192.0.2.1:4001", 3, Some(Beside { session: first.0, proof: bad })).is_err());
    let second = w.open("192.0.2.1:4001", 3, Some(Beside { session: first.0, proof: good })).unwrap();
    assert!(w.open("192.0.2.2:1", 4, None).unwrap_err().contains("busy with 2 measurements"));
    // Silence makes room.
    w.now.set(1_000_000 + SILENCE_YIELDS_US);
    w.ask("192.0.2.1:4001", &second, &Ask::Bye);
    assert!(w.open("192.0.2.1:4002", 9, None).is_ok());
}

#[test]
fn another_key_another_version_and_too_many_openings_are_refused_with_the_reason() {
    let mut w = World::new();
    let other = Key::new(b"other");
    let out = w.give(A, &opening(Kind::Open, 1, &other, b"{}"));
    let why = |out: &[Output]| String::from_utf8_lossy(World::sent(out).unwrap()).into_owned();
    assert!(why(&out).contains("--key"));
    let mut hello = opening(Kind::Hello, 1, &w.shared, &[]);
    hello[4] = 2;
    assert!(why(&w.give(A, &hello)).contains("version 2 was asked for"));
    for n in 0..OPENS_MAX {
        let s = w.open(A, u64::from(n) + 10, None).unwrap();
        w.ask(A, &s, &Ask::Bye);
    }
    assert!(w.open(A, 99, None).unwrap_err().contains("within a minute"));
    w.now.set(w.now.get() + MINUTE_US);
    assert!(w.open(A, 100, None).is_ok());
}

#[test]
fn a_flow_goes_where_the_cookie_was_shown_also_when_the_client_asks_from_elsewhere() {
    let mut w = World::new();
    let s = w.open(A, 1, None).unwrap();
    let elsewhere = "192.0.2.50:1";
    let (_, out) = w.ask(elsewhere, &s, &DOWN);
    assert!(out.iter().any(|o| matches!(o, Output::Start { to, .. } if to.to_string() == A)));
    let forged = Ask::Move { nonce: 1, cookie: w.cookie(A, 1) };
    assert!(matches!(w.ask(elsewhere, &s, &forged).0, Some(Answer::No { .. })));
    let cookie = w.cookie(elsewhere, 6);
    assert_eq!(w.ask(elsewhere, &s, &Ask::Move { nonce: 6, cookie }).0, Some(Answer::Done));
    let Ask::Start { flow, .. } = DOWN else { unreachable!() };
    let (_, out) = w.ask(elsewhere, &s, &Ask::Start { phase: 2, way: Way::Down, flow });
    assert!(out.iter().any(|o| matches!(o, Output::Start { to, .. } if to.to_string() == elsewhere)));
}

#[test]
fn limits_hold_and_silence_ends_flows_and_sessions() {
    let mut w = World::new();
    let s = w.open(A, 1, None).unwrap();
    let fast = Ask::Start { phase: 9, way: Way::Down, flow: FlowSpec::smooth_at(101.0, 1_200, 1_000_000) };
    assert!(matches!(w.ask(A, &s, &fast).0, Some(Answer::No { why }) if why.contains("mbit_s = 101")));
    w.ask(A, &s, &DOWN);
    let mut out = Vec::new();
    w.responder.handle_timeout(w.now.get() + SILENCE_FLOW_US, &mut out);
    assert!(out.is_empty(), "the control");
    w.responder.handle_timeout(w.now.get() + SILENCE_FLOW_US + 1, &mut out);
    assert!(matches!(out[..], [Output::Stop { id: (_, 1) }]), "{out:?}");
    w.responder.handle_timeout(w.now.get() + 60_000_001, &mut Vec::new());
    assert_eq!(w.responder.sessions(), 0);
}

#[test]
fn a_pong_says_what_a_clock_needs_and_where_we_are_seen() {
    let mut w = World::new();
    let (id, key) = w.open(A, 1, None).unwrap();
    let head = Header { kind: Kind::Ping, from_responder: false, phase: 0, session: id, seq: 8, frame: 0, sent: 123 };
    let ping = head.seal(&key, &[0; 56]);
    let out = w.give(A, &ping);
    let pong = World::sent(&out).unwrap();
    assert_eq!(pong.len(), ping.len());
    let (h, body) = (Header::read(pong).unwrap(), Header::open(&key, pong).unwrap());
    assert_eq!((h.kind, h.seq, h.sent), (Kind::Pong, 8, 1_000_000));
    assert_eq!(body[..8], 123_i64.to_be_bytes());
    assert_eq!(read_address(&body[16..34]), Some(A.parse().unwrap()));
    assert!(w.give(A, &head.seal(&key, &[0; 20])).is_empty(), "a ping that is shorter than its pong");
    let later = Header { frame: 3, ..head }.seal(&key, &[0; 56]);
    assert!(matches!(w.give(A, &later)[..], [Output::Later { seconds: 3, .. }]));
}

#[test]
fn a_report_comes_in_parts_that_fit_into_packets() {
    let mut w = World::new();
    let s = w.open(A, 1, None).unwrap();
    let flow = FlowSpec::smooth_at(0.8, 100, 1_000_000);
    w.ask(A, &s, &Ask::Start { phase: 3, way: Way::Up, flow });
    let mut probe = Vec::new();
    for seq in (0..1_000).filter(|s| s % 7 != 0) {
        let h = Header {
            kind: Kind::Probe,
            from_responder: false,
            phase: 3,
            session: s.0,
            seq,
            frame: 0,
            sent: i64::from(seq) * 1_000,
        };
        h.write_probe(&s.1, 100, &mut probe);
        w.give(A, &probe);
    }
    let known = crate::measure::flow::Known {
        way: Way::Up,
        sent: 1_000,
        clock: Default::default(),
        floor_us: None,
        detail: true,
    };
    let mut text = String::new();
    for part in 0.. {
        let (answer, out) = w.ask(A, &s, &Ask::Report { phase: 3, known, part });
        assert!(World::sent(&out).unwrap().len() < 1_200);
        let Some(Answer::Part { parts, text: t, .. }) = answer else { panic!("{answer:?}") };
        text += &t;
        if part + 1 == parts {
            break;
        }
    }
    let r: Received = serde_json::from_str(&text).unwrap();
    assert_eq!((r.flow.lost, r.flow.received), (143, 857));
}

fn refusal_of(out: &[Output]) -> String {
    let bytes = World::sent(out).expect("silence");
    assert_eq!(Header::read(bytes).unwrap().kind, Kind::Refuse);
    read::<Refusal>(&bytes[crate::measure::packet::HEADER_BYTES..]).unwrap().why
}

#[test]
fn where_measurements_are_asked_for_elsewhere_a_grant_opens_one_and_nothing_else_does() {
    use crate::measure::keys::{GRANTS_MAX, nonce_of};
    const UNTIL: Stamp = 20_000_000;
    let limits = Limits { mbit_s_max: 100.0, seconds_max: 60.0, sessions_max: 2 };
    let mut w = World::new();
    w.responder = Responder::for_grants(b"secret", limits, "test 1", Doors::default());
    let hello = |w: &mut World, key: &Key, nonce| w.give(A, &opening(Kind::Hello, nonce, key, &[]));
    for nonce in [77, nonce_of(Some(3), 77)] {
        let out = hello(&mut w, &Key::new(b""), nonce);
        assert!(refusal_of(&out).contains("ask the relay again"), "nobody asked for {nonce}");
    }
    assert!(w.responder.handle_grant(3, b"north", 1_000_000, UNTIL));
    assert!(!w.responder.handle_grant(3, b"south", 1_000_000, UNTIL), "a number is given once");
    // Somebody who knows the number, and not the key.
    w.shared = Key::new(b"south");
    let cookie = "00".repeat(24);
    let body = json(&Opening { cookie, program: "t".to_owned(), beside: None });
    let out = w.give(A, &opening(Kind::Open, nonce_of(Some(3), 77), &w.shared.clone(), &body));
    assert!(refusal_of(&out).contains("keys of the two ends differ"));
    w.shared = Key::new(b"north");
    let session = w.open(A, nonce_of(Some(3), 77), None).unwrap();
    let (answer, _) = w.ask(A, &session, &DOWN);
    assert_eq!(answer, Some(Answer::Done), "the control: who has number and key measures");

    assert!(w.responder.handle_grant(4, b"east", 1_000_000, UNTIL));
    w.shared = Key::new(b"east");
    let why = w.open("192.0.2.2:1", nonce_of(Some(4), 1), None).unwrap_err();
    assert!(why.contains("one at a time"), "{why}");

    let mut out = Vec::new();
    w.responder.end_all("somebody operates", &mut out);
    assert!(out.iter().any(|o| matches!(o, Output::Stop { id: (_, 1) })), "its flow ends");
    assert!(out.iter().any(|o| matches!(o, Output::Send { to, .. } if *to == A.parse().unwrap())));
    assert_eq!(refusal_of(&out), "somebody operates");
    assert_eq!(w.responder.sessions(), 0);
    let out = hello(&mut w, &Key::new(b"east"), nonce_of(Some(4), 1));
    assert!(refusal_of(&out).contains("not asked for"), "a grant of before is gone too");

    // A grant ends, and there are only so many.
    assert!(w.responder.handle_grant(5, b"west", 1_000_000, UNTIL));
    w.now.set(UNTIL);
    let out = hello(&mut w, &Key::new(b"west"), nonce_of(Some(5), 1));
    assert!(refusal_of(&out).contains("its time is over"));
    let granted = (10..100).filter(|id| w.responder.handle_grant(*id, b"k", UNTIL, 2 * UNTIL)).count();
    assert_eq!(granted, GRANTS_MAX);
}
