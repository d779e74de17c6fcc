use super::*;
use crate::link::rng::Rng;
use crate::media::fec::policy::Plan;
use crate::media::rtp::{HeaderFields, write_header};
use crate::units::Micros;
use std::collections::BTreeMap;

fn packet(seq: u16, len: usize) -> Vec<u8> {
    let fields = HeaderFields { marker: false, payload_type: 96, seq, timestamp: 5, ssrc: Ssrc(9) };
    let mut b = vec![0; len];
    let n = write_header(&mut b, fields, &[(1, &[1, 2, 3])]).unwrap();
    for (i, byte) in b[n..].iter_mut().enumerate() {
        *byte = (i as u8).wrapping_mul(31).wrapping_add(seq as u8);
    }
    b
}

fn plan(fec_percent: u8, interleave: u8) -> Plan {
    Plan { rtx: false, fec_percent, interleave }
}

fn encoder(p: Plan) -> BlockEncoder {
    let mut e = BlockEncoder::new(Ssrc(77), 120, 65_530);
    e.set_plan(p);
    e
}

fn protect(e: &mut BlockEncoder, packets: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let last = packets.len() - 1;
    packets.iter().enumerate().for_each(|(i, p)| e.handle_packet(Micros(0), p, i == last));
    std::iter::from_fn(|| e.poll_repair().map(<[u8]>::to_vec)).collect()
}

fn decode(d: &mut BlockDecoder, repairs: &[Vec<u8>], here: &BTreeMap<u16, Vec<u8>>) -> Vec<Vec<u8>> {
    repairs.iter().for_each(|r| d.handle_repair(Micros(0), r, |seq| here.get(&seq).map(Vec::as_slice)));
    std::iter::from_fn(|| d.poll_restored()).collect()
}

fn by_number(packets: &[Vec<u8>]) -> BTreeMap<u16, Vec<u8>> {
    packets.iter().map(|p| (Header::parse(p).unwrap().seq, p.clone())).collect()
}

#[test]
fn as_many_losses_as_repair_packets_come_back_bit_for_bit_over_the_wrap_and_whatever_the_lengths() {
    let mut rng = Rng::new(3);
    for (count, lengths) in [(1, 1_120), (5, 60), (47, 1_120), (48, 1_120), (139, 1_120), (744, 1_100), (900, 2_048)] {
        let packets: Vec<_> =
            (0..count).map(|i| packet(65_500_u16.wrapping_add(i), 40 + rng.below(lengths - 39) as usize)).collect();
        let mut e = encoder(plan(25, 1));
        let mut repairs = protect(&mut e, &packets);
        if repairs.is_empty() {
            e.handle_timeout(Micros(4_000));
            repairs = std::iter::from_fn(|| e.poll_repair().map(<[u8]>::to_vec)).collect();
        }
        let blocks = usize::from(count).div_ceil(48);
        assert!(repairs.len() >= blocks, "{count}");
        let per_block = repairs.len() / blocks;
        let mut here = by_number(&packets);
        // A run of so many losses hits each block as often as it can bear.
        let run = (per_block * blocks).min(packets.len());
        let lost: Vec<_> = packets[..run].iter().map(|p| Header::parse(p).unwrap().seq).collect();
        lost.iter().for_each(|s| drop(here.remove(s)));
        let mut d = BlockDecoder::new();
        let back = decode(&mut d, &repairs, &here);
        assert_eq!(by_number(&back), by_number(&packets[..run]), "{count}");
        assert_eq!(d.counters().restored, run as u64);
        assert_eq!(e.counters().sources, u64::from(count));
    }
}

#[test]
fn one_loss_too_many_brings_nothing_back_until_one_of_them_comes_late() {
    let packets: Vec<_> = (0..40).map(|i| packet(i, 700)).collect();
    let repairs = protect(&mut encoder(plan(10, 1)), &packets);
    let mut here = by_number(&packets);
    (0..=repairs.len() as u16).for_each(|s| drop(here.remove(&s)));
    let mut d = BlockDecoder::new();
    assert!(decode(&mut d, &repairs, &here).is_empty());
    here.insert(0, packets[0].clone());
    d.handle_late(100, |seq| here.get(&seq).map(Vec::as_slice));
    assert_eq!(d.poll_restored(), None, "a number of another block");
    d.handle_late(0, |seq| here.get(&seq).map(Vec::as_slice));
    let back: Vec<_> = std::iter::from_fn(|| d.poll_restored()).collect();
    assert_eq!(by_number(&back), by_number(&packets[1..=repairs.len()]));
}

#[test]
fn what_was_missing_before_the_sender_takes_no_redundancy() {
    // The relay lacks some of the numbers itself.
    let packets: Vec<_> = (0..60).filter(|i| i % 7 != 3).map(|i| packet(i, 500)).collect();
    let repairs = protect(&mut encoder(plan(10, 1)), &packets);
    let (mut here, lost) = (by_number(&packets), [0_u16, 1, 2, 11]);
    lost.iter().for_each(|s| drop(here.remove(s)));
    let mut d = BlockDecoder::new();
    let back = decode(&mut d, &repairs, &here);
    assert_eq!(back.len(), 4);
}

#[test]
fn nothing_lost_makes_every_repair_packet_useless() {
    let packets: Vec<_> = (0..100).map(|i| packet(i, 300)).collect();
    let repairs = protect(&mut encoder(plan(20, 4)), &packets);
    let mut d = BlockDecoder::new();
    assert!(decode(&mut d, &repairs, &by_number(&packets)).is_empty());
    let c = d.counters();
    assert_eq!((c.repairs, c.useless, c.used), (repairs.len() as u64, repairs.len() as u64, 0));
}

#[test]
fn without_a_plan_nothing_is_made_and_nothing_kept() {
    let packets: Vec<_> = (0..100).map(|i| packet(i, 300)).collect();
    let mut e = encoder(Plan::default());
    assert!(protect(&mut e, &packets).is_empty());
    assert_eq!((e.counters().sources, e.next_wakeup()), (0, None));
}

#[test]
fn a_small_frame_waits_for_another_four_milliseconds_at_most() {
    let mut e = encoder(plan(20, 1));
    e.handle_packet(Micros(0), &packet(0, 100), true);
    e.handle_packet(Micros(1_000), &packet(1, 100), true);
    assert_eq!(e.poll_repair(), None);
    assert_eq!(e.next_wakeup(), Some(Micros(4_000)));
    e.handle_timeout(Micros(3_999));
    assert_eq!(e.poll_repair(), None);
    e.handle_timeout(Micros(4_000));
    assert!(e.poll_repair().is_some());
    assert_eq!(e.next_wakeup(), None);
}

#[test]
fn a_repair_packet_of_our_largest_packet_fits_a_datagram_of_the_first_mtu() {
    let packets: Vec<_> = (0..20).map(|i| packet(i, crate::media::roq::MAX_RTP_PACKET)).collect();
    let repairs = protect(&mut encoder(plan(20, 1)), &packets);
    // quinn's limit at 1,200 bytes is 1,162; a flow id of up to 16,383 takes two.
    assert!(repairs.iter().all(|r| r.len() + 2 <= 1_162), "{}", repairs[0].len());
}

#[test]
fn whatever_comes_as_a_repair_packet_does_no_harm() {
    let packets: Vec<_> = (0..30).map(|i| packet(i, 200)).collect();
    let repairs = protect(&mut encoder(plan(20, 1)), &packets);
    let mut rng = Rng::new(11);
    let mut here = by_number(&packets);
    here.remove(&3);
    let mut d = BlockDecoder::new();
    for _ in 0..20_000 {
        let mut r = repairs[rng.below(repairs.len() as u32) as usize].clone();
        for _ in 0..=rng.below(3) {
            let at = rng.below(r.len() as u32) as usize;
            r[at] ^= 1 << rng.below(8);
        }
        r.truncate(r.len() - rng.below(2) as usize * rng.below(200) as usize);
        d.handle_repair(Micros(0), &r, |seq| here.get(&seq).map(Vec::as_slice));
        while let Some(p) = d.poll_restored() {
            assert!(Header::parse(&p).is_ok_and(|h| !here.contains_key(&h.seq)));
        }
    }
    assert!(d.blocks() <= 128);
    assert!(d.counters().malformed > 0);
}
