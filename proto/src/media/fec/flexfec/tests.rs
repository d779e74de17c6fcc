//! An encoder against a decoder that is written from the draft, over loss, wraps and every length of mask.

use super::*;
use crate::link::rng::Rng;
use crate::media::bytes::{be16, be32, be64};
use std::collections::BTreeMap;

const MEDIA: Ssrc = Ssrc(0x0102_0304);
const CONFIG: EncoderConfig =
    EncoderConfig { media: MEDIA, ssrc: Ssrc(9), payload_type: 118, transport_cc: Some(3), first_seq: 0x7ffe };

/// What a repair packet says, read as section 4.2 of the draft has it.
struct Repair {
    base: u16,
    places: Vec<u16>,
    head: [u8; 8],
    parity: Vec<u8>,
}

fn read(payload: &[u8]) -> Repair {
    assert_eq!(payload[0] & 0xc0, 0, "R and F");
    assert_eq!(payload[8], 1, "one SSRC");
    assert_eq!(be32(payload, 12), Some(MEDIA.0));
    let mut places = vec![];
    let mut word = |value: u64, bits: u16, first: u16| {
        (0..bits).filter(|i| value >> (bits - 1 - i) & 1 == 1).for_each(|i| places.push(first + i));
        value >> bits & 1 == 1
    };
    let mut at = 20;
    if !word(be16(payload, 18).unwrap().into(), 15, 0) {
        at = 24;
        if !word(be32(payload, 20).unwrap().into(), 31, 15) {
            at = 32;
            assert!(word(be64(payload, 24).unwrap(), 63, 46), "the third word is the last");
        }
    }
    let head = [payload[0], payload[1], payload[2], payload[3], payload[4], payload[5], payload[6], payload[7]];
    Repair { base: be16(payload, 16).unwrap(), places, head, parity: payload[at..].to_vec() }
}

/// The one packet that is missing of what a repair packet protects; none where it is not one. What came has zero where the
/// transport-wide number was.
fn recover(repair: &Repair, came: &BTreeMap<u16, Vec<u8>>) -> Option<(u16, Vec<u8>)> {
    let numbers = repair.places.iter().map(|p| repair.base.wrapping_add(*p));
    let (there, missing): (Vec<u16>, Vec<u16>) = numbers.partition(|n| came.contains_key(n));
    let [lost] = missing[..] else { return None };
    let (mut head, mut body) = (repair.head, repair.parity.clone());
    for n in there {
        let p = &came[&n];
        let length = (p.len() as u16 - 12).to_be_bytes();
        xor(&mut head, &[p[0] & 0x3f, p[1], length[0], length[1], p[4], p[5], p[6], p[7]]);
        assert!(p.len() - 12 <= body.len(), "the parity is as long as the longest");
        xor(&mut body, &p[12..]);
    }
    let mut out = vec![head[0] | 0x80, head[1]];
    out.extend_from_slice(&lost.to_be_bytes());
    out.extend_from_slice(&head[4..8]);
    out.extend_from_slice(&MEDIA.0.to_be_bytes());
    let length = usize::from(u16::from_be_bytes([head[2], head[3]]));
    out.extend_from_slice(body.get(..length)?);
    Some((lost, out))
}

fn media(seq: u16, marker: bool, transport: u16, payload: &[u8]) -> Vec<u8> {
    let mut b = vec![0; 64];
    let timestamp = u32::from(seq).wrapping_mul(77);
    let fields = HeaderFields { marker, payload_type: 96, seq, timestamp, ssrc: MEDIA };
    let n = write_header(&mut b, fields, &[(5, &[1, 2, 3]), (3, &transport.to_be_bytes())]).unwrap();
    b.truncate(n);
    b.extend_from_slice(payload);
    b
}

/// As a receiver keeps it for repair.
fn zeroed(packet: &[u8]) -> Vec<u8> {
    let mut p = packet.to_vec();
    let at = Header::parse(&p).unwrap().extension_range(&p, 3).unwrap();
    p[at].fill(0);
    p
}

fn repairs(e: &mut Encoder) -> Vec<Vec<u8>> {
    let mut out = [0; 1_600];
    std::iter::from_fn(|| e.poll_repair(&mut out).map(|(n, _)| out[..n].to_vec())).collect()
}

fn payload_of(repair: &[u8]) -> Vec<u8> {
    let h = Header::parse(repair).unwrap();
    assert_eq!((h.ssrc, h.payload_type), (Ssrc(9), 118));
    h.payload(repair).to_vec()
}

#[test]
fn the_bytes_of_a_repair_packet_are_those_of_the_draft() {
    let mut e = Encoder::new(EncoderConfig { transport_cc: None, ..CONFIG });
    e.set_plan(50, 1);
    let packet = |seq: u16, marker: u8, timestamp: u8, payload: &[u8]| {
        let head = [0x80, marker | 96, (seq >> 8) as u8, seq as u8, 0, 0, 0, timestamp, 1, 2, 3, 4];
        [&head[..], payload].concat()
    };
    e.protect(&packet(0x1000, 0, 5, &[0xf0, 0x0f, 1]));
    e.protect(&packet(0x1001, 0x80, 6, &[0x01, 0x01]));
    let mut out = [0xee; 64];
    let (n, seq) = e.poll_repair(&mut out).unwrap();
    assert_eq!((n, seq), (12 + 20 + 3, SeqNo(0x7ffe)));
    assert_eq!(out[..12], [0x80, 118, 0x7f, 0xfe, 0, 0, 0, 6, 0, 0, 0, 9]);
    // Version and payload type cancel out, the marker stays; lengths 3 and 2; k and packets 0 and 1.
    assert_eq!(out[12..24], [0, 0x80, 0, 1, 0, 0, 0, 3, 1, 0, 0, 0]);
    assert_eq!(out[24..32], [1, 2, 3, 4, 0x10, 0, 0b1110_0000, 0]);
    assert_eq!(out[32..35], [0xf1, 0x0e, 1]);
    assert_eq!(e.poll_repair(&mut out), None);
}

#[test]
fn any_one_packet_of_a_block_comes_back_bit_for_bit_across_the_wrap() {
    let mut rng = Rng::new(11);
    for round in 0..60_u16 {
        let mut e = Encoder::new(CONFIG);
        e.set_plan(100, 1);
        e.set_plan(3, 1);
        // About 33 packets a block, so that all lengths of mask are met where numbers are skipped.
        let mut came = BTreeMap::new();
        let mut seq = 65_500_u16.wrapping_add(round);
        let mut made = vec![];
        while made.is_empty() {
            let payload: Vec<u8> = (0..rng.below(1_100)).map(|_| rng.next_u64() as u8).collect();
            let p = media(seq, rng.chance(0.2), rng.next_u64() as u16, &payload);
            e.protect(&p);
            came.insert(seq, zeroed(&p));
            seq = seq.wrapping_add(1 + if rng.chance(0.2) { rng.below(8) as u16 } else { 0 });
            made = repairs(&mut e);
        }
        let repair = read(&payload_of(&made[0]));
        assert!(repair.places.len() > 5, "{}", repair.places.len());
        for place in &repair.places {
            let lost = repair.base.wrapping_add(*place);
            let mut rest = came.clone();
            let whole = rest.remove(&lost).unwrap();
            assert_eq!(recover(&repair, &rest), Some((lost, whole)), "round {round}");
        }
    }
}

#[test]
fn each_length_of_mask_is_used_where_it_is_needed() {
    for (gap, header) in [(14_u16, 20), (15, 24), (45, 24), (46, 32), (108, 32)] {
        let mut e = Encoder::new(CONFIG);
        e.set_plan(50, 1);
        e.protect(&media(65_530, false, 1, &[1; 10]));
        e.protect(&media(65_530_u16.wrapping_add(gap), true, 2, &[2; 10]));
        let made = repairs(&mut e);
        let repair = read(&payload_of(&made[0]));
        assert_eq!(repair.places, [0, gap]);
        assert_eq!(made[0].len(), 12 + header + (media(0, true, 2, &[2; 10]).len() - 12));
    }
    let mut e = Encoder::new(CONFIG);
    e.set_plan(50, 1);
    e.protect(&media(10, false, 1, &[1; 10]));
    e.protect(&media(10 + 109, true, 2, &[2; 10]));
    assert_eq!(read(&payload_of(&repairs(&mut e)[0])).places, [0], "too far for any mask");
}

#[test]
fn a_burst_as_long_as_the_interleaving_comes_back_and_a_longer_one_does_not() {
    let mut e = Encoder::new(CONFIG);
    e.set_plan(20, 4);
    let mut seq = 100_u16;
    // The second frame knows how large frames are.
    let mut frame = |e: &mut Encoder| {
        let packets: Vec<_> = (0..20).map(|i| media(seq + i, i == 19, i, &[i as u8; 50])).collect();
        seq += 20;
        packets.iter().for_each(|p| e.protect(p));
        (packets, repairs(e))
    };
    frame(&mut e);
    let (packets, made) = frame(&mut e);
    assert_eq!(made.len(), 4);
    for burst in [4_usize, 5] {
        let mut came: BTreeMap<u16, Vec<u8>> =
            packets.iter().map(|p| (Header::parse(p).unwrap().seq, zeroed(p))).collect();
        for p in &packets[7..7 + burst] {
            came.remove(&Header::parse(p).unwrap().seq);
        }
        let back = made.iter().filter_map(|r| recover(&read(&payload_of(r)), &came)).count();
        assert_eq!(back, if burst == 4 { 4 } else { 3 });
    }
}

#[test]
fn redundancy_adds_up_to_its_share_whatever_the_size_of_frames() {
    for (percent, interleave, frame) in [(10, 4, 3), (10, 4, 70), (25, 8, 1), (50, 1, 200), (100, 16, 10), (5, 2, 30)] {
        let mut e = Encoder::new(CONFIG);
        e.set_plan(percent, interleave);
        let (mut seq, mut made, mut sent) = (0_u16, 0, 0_u32);
        for _ in 0..4_000 / frame {
            for i in 0..frame {
                e.protect(&media(seq, i + 1 == frame, 0, &[1; 20]));
                seq = seq.wrapping_add(1);
                sent += 1;
                made += repairs(&mut e).len();
            }
        }
        let share = f64::from(made as u32) / f64::from(sent) * 100.0;
        assert!((share - f64::from(percent)).abs() < 1.0, "{percent} % in frames of {frame}: {share:.1} %");
        assert_eq!(e.dropped(), 0);
    }
}

#[test]
fn nothing_is_made_without_a_plan_or_of_what_is_not_the_stream_and_nothing_panics() {
    let mut e = Encoder::new(CONFIG);
    e.protect(&media(1, true, 0, &[1; 20]));
    assert!(repairs(&mut e).is_empty());
    e.set_plan(100, 1);
    let mut other = media(1, true, 0, &[1; 20]);
    other[8] ^= 1;
    e.protect(&other);
    e.protect(&media(1, true, 0, &[1; MAX_PACKET]));
    e.protect(&[0x80; 5]);
    assert!(repairs(&mut e).is_empty());
    let mut rng = Rng::new(8);
    for _ in 0..20_000 {
        let mut p: Vec<u8> = (0..rng.below(60)).map(|_| rng.next_u64() as u8).collect();
        if p.len() > 12 {
            p[0] = 0x80 | (p[0] & 0x1f);
            p[8..12].copy_from_slice(&MEDIA.0.to_be_bytes());
        }
        e.protect(&p);
        for r in repairs(&mut e) {
            read(&payload_of(&r));
        }
    }
}

#[test]
fn repairs_that_nobody_fetches_are_dropped_and_counted_and_do_not_fit_into_too_little() {
    let mut e = Encoder::new(CONFIG);
    e.set_plan(100, 1);
    for seq in 0..10 {
        e.protect(&media(seq, true, 0, &[1; 20]));
    }
    assert_eq!(e.dropped(), 9);
    assert_eq!(e.poll_repair(&mut [0; 30]), None);
    assert_eq!(e.dropped(), 10);
    let numbers: Vec<u64> = (0..3)
        .map(|n| {
            e.protect(&media(20 + n, true, 0, &[1; 20]));
            e.poll_repair(&mut [0; 200]).unwrap().1.0
        })
        .collect();
    assert_eq!(numbers, [0x7ffe, 0x7fff, 0x8000], "no number is left out, and none comes twice");
}
