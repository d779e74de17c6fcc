use super::*;
use trocar_proto::handover::message::{Beacon, Command, Heartbeat, MAX_PAYLOAD, Payload, Pose};
use trocar_proto::handover::types::{Clutch, FrameRef, Nonce};

const OID: Oid = Oid(0x0123_4567_89ab_cdef_0011_2233_4455_6677);

fn keys(end: End) -> SealKeys {
    let mut secret = [0; SECRET_LEN];
    secret.iter_mut().zip(0_u8..).for_each(|(s, n)| *s = n);
    SealKeys::new(Zeroizing::new(secret), end)
}

/// Gate and station of one channel, with the same offer and epoch live.
fn pair() -> (SealKeys, SealKeys) {
    let (mut gate, mut station) = (keys(End::Gate), keys(End::Station));
    for side in [&mut gate, &mut station] {
        side.accept(OID).unwrap();
        side.grant(Epoch(7)).unwrap();
    }
    (gate, station)
}

fn heartbeat(binding: Binding, counter: u64) -> Datagram {
    let echo = Some(FrameRef { source: 1, view: 2, frame: 3, digest: 4 });
    let pose = Pose::new([5; 64]).unwrap();
    Datagram::Heartbeat(Heartbeat {
        binding,
        counter: Counter(counter),
        beat: 1,
        nonce: Nonce(6),
        echo,
        presence: true,
        pedal: false,
        pose,
    })
}

fn command(epoch: u64, counter: u64) -> Datagram {
    let payload = Payload::new([8; MAX_PAYLOAD]).unwrap();
    let echo = Some(FrameRef { source: 1, view: 2, frame: 3, digest: 4 });
    let (epoch, counter) = (Epoch(epoch), Counter(counter));
    Datagram::Command(Command { epoch, counter, nonce: Nonce(6), echo, clutch: Clutch::Closed, payload })
}

fn beacon(binding: Binding, counter: u64) -> Datagram {
    Datagram::Beacon(Beacon { binding, counter: Counter(counter), nonce: Nonce(9) })
}

#[test]
fn what_one_end_seals_the_other_opens_and_nothing_is_too_long_for_a_quic_datagram() {
    // HO-C-007
    let (mut gate, mut station) = pair();
    for d in [heartbeat(Binding::Offer(OID), 1), heartbeat(Binding::Epoch(Epoch(7)), 1), command(7, 2)] {
        let sealed = station.seal(&d).unwrap();
        assert_eq!(gate.open(&sealed), Ok(d));
        assert!(sealed.len() <= MAX_SEALED, "{}", sealed.len());
    }
    let d = beacon(Binding::Epoch(Epoch(7)), 1);
    assert_eq!(station.open(&gate.seal(&d).unwrap()), Ok(d));
}

#[test]
fn the_bytes_are_what_the_document_says() {
    // HO-C-007. The values were calculated by another implementation of RFC 5869 and RFC 5116 (Python's hmac and cryptography).
    let (mut gate, mut station) = pair();
    let hb = Datagram::Heartbeat(Heartbeat {
        binding: Binding::Epoch(Epoch(7)),
        counter: Counter(0x0102),
        beat: 1,
        nonce: Nonce(6),
        echo: None,
        presence: true,
        pedal: false,
        pose: Pose::default(),
    });
    assert_eq!(hex::encode(station.seal(&hb).unwrap()), GOLDEN_HB);
    assert_eq!(hex::encode(gate.seal(&beacon(Binding::Offer(OID), 3)).unwrap()), GOLDEN_BEACON);
}

const GOLDEN_HB: &str = "112102250d000000000000010289017173904b25ef525e3b94f9ac0dbd2e7f8f27fdd87acf03ffe430994475a16c7f90c0c4\
    41eb77db5d8b26913fc4d60147c7c4";
const GOLDEN_BEACON: &str = "130ab082a400000000000000039f145a1f74fd8e2861fea2f6c90fe40090de31a9c49022fa7c19a960d15f86ff7f1b078d5c\
    668f45d162f3081e2cdde8026e1d";

#[test]
fn every_single_bit_of_a_datagram_is_covered_by_the_seal() {
    let (gate, mut station) = pair();
    let sealed = station.seal(&heartbeat(Binding::Epoch(Epoch(7)), 5)).unwrap();
    assert!(gate.open(&sealed).is_ok());
    for bit in 0..sealed.len() * 8 {
        let mut forged = sealed.clone();
        forged[bit / 8] ^= 1 << (bit % 8);
        assert!(gate.open(&forged).is_err(), "bit {bit} can be changed");
    }
    for len in 0..sealed.len() {
        assert!(gate.open(&sealed[..len]).is_err(), "cut to {len} bytes it opens");
    }
    let mut longer = sealed;
    longer.push(0);
    assert_eq!(gate.open(&longer), Err(SealError::Broken));
}

#[test]
fn a_datagram_repeated_under_another_counter_or_kind_does_not_open() {
    let (gate, mut station) = pair();
    let sealed = station.seal(&heartbeat(Binding::Epoch(Epoch(7)), 5)).unwrap();
    let mut later = sealed.clone();
    later[12] += 1;
    assert_eq!(gate.open(&later), Err(SealError::Broken));
    let mut as_command = sealed;
    as_command[0] = VERSION << 4 | 2;
    assert_eq!(gate.open(&as_command), Err(SealError::Broken));
}

#[test]
fn a_header_that_disagrees_with_the_message_is_refused_although_the_seal_holds() {
    // An end with the right keys that lies in its header: counter, kind, binding.
    let (gate, station) = pair();
    let live = station.epoch.as_ref().unwrap();
    let forge = |kind: u8, counter: u64, what: &Datagram| {
        let key = live.key(Direction::ToGate);
        let head = header(kind, key.id, counter);
        let mut body = encode_datagram(what);
        key.seal(counter, &head, &mut body).unwrap();
        [head.as_slice(), &body].concat()
    };
    let honest = heartbeat(Binding::Epoch(Epoch(7)), 5);
    assert_eq!(gate.open(&forge(1, 5, &honest)), Ok(honest.clone()));
    assert_eq!(gate.open(&forge(1, 6, &honest)), Err(SealError::Disagrees));
    assert_eq!(gate.open(&forge(2, 5, &honest)), Err(SealError::Disagrees));
    assert_eq!(gate.open(&forge(1, 5, &heartbeat(Binding::Offer(OID), 5))), Err(SealError::Disagrees));
    assert_eq!(gate.open(&forge(1, 5, &beacon(Binding::Epoch(Epoch(7)), 5))), Err(SealError::Disagrees));
}

#[test]
fn neither_end_seals_or_opens_what_goes_the_other_way() {
    let (mut gate, mut station) = pair();
    let (hb, cmd, b) = (heartbeat(Binding::Epoch(Epoch(7)), 1), command(7, 2), beacon(Binding::Epoch(Epoch(7)), 1));
    assert_eq!(gate.seal(&hb), Err(SealError::Kind));
    assert_eq!(gate.seal(&cmd), Err(SealError::Kind));
    assert_eq!(station.seal(&b), Err(SealError::Kind));
    // A reflected datagram: refused by kind, and with the kind changed by the key of its direction.
    let mut own = station.seal(&hb).unwrap();
    assert_eq!(station.open(&own), Err(SealError::Kind));
    own[0] = VERSION << 4 | 3;
    assert_eq!(station.open(&own), Err(SealError::NoKey));
}

#[test]
fn only_live_bindings_open_and_another_channels_keys_never_do() {
    let (mut gate, mut station) = pair();
    let old = station.seal(&heartbeat(Binding::Epoch(Epoch(7)), 1)).unwrap();
    station.grant(Epoch(9)).unwrap();
    let new = station.seal(&heartbeat(Binding::Epoch(Epoch(9)), 1)).unwrap();
    assert_eq!(gate.open(&new), Err(SealError::NoKey), "the gate did not grant it");
    gate.grant(Epoch(9)).unwrap();
    assert!(gate.open(&new).is_ok());
    assert!(gate.open(&old).is_ok(), "one epoch back is opened, so that the machine refuses it by name");
    gate.grant(Epoch(11)).unwrap();
    assert_eq!(gate.open(&old), Err(SealError::NoKey), "two epochs back is not");
    gate.end(Binding::Epoch(Epoch(9)));
    assert_eq!(gate.open(&new), Err(SealError::NoKey));
    assert_eq!(gate.bindings(), [Binding::Offer(OID), Binding::Epoch(Epoch(11))]);
    gate.end_all();
    assert!(gate.bindings().is_empty());

    let mut other = SealKeys::new(Zeroizing::new([1; SECRET_LEN]), End::Gate);
    other.grant(Epoch(9)).unwrap();
    assert_eq!(other.open(&new), Err(SealError::NoKey));
    let mut with_id = new;
    let id = other.epoch.as_ref().unwrap().key(Direction::ToGate).id;
    with_id[1..5].copy_from_slice(&id);
    assert_eq!(other.open(&with_id), Err(SealError::Broken));
}

#[test]
fn no_counter_is_sealed_twice_and_no_binding_becomes_live_again() {
    // HO-C-008: a second seal under one nonce would give the key away.
    let (mut gate, mut station) = pair();
    station.seal(&heartbeat(Binding::Epoch(Epoch(7)), 5)).unwrap();
    for again in [5, 4, 0] {
        assert_eq!(station.seal(&heartbeat(Binding::Epoch(Epoch(7)), again)), Err(SealError::OldCounter));
    }
    assert_eq!(station.seal(&command(7, 5)), Err(SealError::OldCounter), "HB and CMD share one count");
    assert!(station.seal(&command(7, 6)).is_ok());
    assert!(station.seal(&heartbeat(Binding::Offer(OID), 1)).is_ok(), "each binding has its own");

    station.accept(Oid(2)).unwrap();
    assert_eq!(station.seal(&heartbeat(Binding::Offer(OID), 2)), Err(SealError::NoKey));
    assert_eq!(station.accept(OID), Err(SealError::Binding));
    assert_eq!(station.grant(Epoch(6)), Err(SealError::Binding));
    assert_eq!(station.grant(Epoch(7)), Ok(()), "the live one stays as it is");
    assert_eq!(station.seal(&command(7, 6)), Err(SealError::OldCounter));
    gate.end_all();
    assert_eq!(gate.bind(Binding::Offer(OID)), Err(SealError::Binding));
    assert_eq!(gate.bind(Binding::Epoch(Epoch(7))), Err(SealError::Binding));
}

#[test]
fn a_channel_accepts_a_bounded_number_of_offers() {
    let mut station = keys(End::Station);
    for n in 0..MAX_OFFERS {
        station.accept(Oid(n as u128)).unwrap();
    }
    assert_eq!(station.accept(Oid(u128::MAX)), Err(SealError::Binding));
    assert_eq!(station.bindings().len(), 1);
}

#[test]
fn no_bytes_whatever_panic_or_open() {
    let (gate, mut station) = pair();
    let good = station.seal(&command(7, 1)).unwrap();
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random
    };
    for round in 0..200_000_u64 {
        let len = usize::try_from(next() % 1_300).unwrap();
        let mut bytes: Vec<u8> = (0..len.min(48)).map(|_| next() as u8).collect();
        bytes.resize(len, next() as u8);
        if round % 2 == 0 {
            // Half of them with a header that is right, so that they get as far as the seal.
            bytes.iter_mut().zip(&good[..HEADER_LEN]).for_each(|(b, g)| *b = *g);
        }
        assert!(gate.open(&bytes).is_err());
    }
}

#[test]
fn a_log_shows_no_key_and_no_oid() {
    let (_, station) = pair();
    let shown = format!("{station:?}");
    assert_eq!(shown, "SealKeys { end: Station, live: [Offer(Oid(0123…)), Epoch(Epoch(7))], .. }");
}
