//! Where viewers join the streams that real encoders and packetizers make: never at a broken picture, and not never.

use super::super::codec::Codec;
use super::super::codec::tests::sps;
use super::super::ingest::Ingest;
use super::super::ingest::tests::{ingest, packet, pass};
use super::super::leg::{Leg, Next, Numbering};
use super::tests::CONFIG;
use super::*;

const PPS: [u8; 2] = [0x68, 0xce];
const IDR: [u8; 3] = [0x65, 0x88, 0x84];
const DELTA: [u8; 3] = [0x41, 0x9a, 0x02];
const DELIMITER: [u8; 2] = [0x09, 0xf0];
/// An SEI message of the encoder's own, and a recovery point 33 frames later.
const SEI: [u8; 5] = [0x06, 5, 1, 0xaa, 0x80];
const RECOVERY: [u8; 6] = [0x06, 6, 2, 0x04, 0x50, 0x80];
const FRAGMENTS: [[u8; 3]; 3] = [[0x7c, 0x85, 0x88], [0x7c, 0x05, 1], [0x7c, 0x45, 2]];
const OWN: Numbering = Numbering::Own { ssrc: Ssrc(9), payload_type: 102, first_seq: 5 };

fn stap_a(units: &[&[u8]]) -> Vec<u8> {
    let sized = units.iter().flat_map(|u| [&u16::try_from(u.len()).unwrap().to_be_bytes()[..], u].concat());
    [0x78].into_iter().chain(sized).collect()
}

struct Stream {
    ingest: Ingest,
    feed: Feed,
    seq: u16,
    timestamp: u32,
}

impl Stream {
    fn new(codec: Codec) -> Self {
        Self { ingest: ingest(codec), feed: Feed::new(CONFIG), seq: 65_530, timestamp: 0 }
    }

    fn take(&mut self, at: u64, packet: &[u8]) {
        let stored = pass(&mut self.ingest, packet).unwrap();
        self.feed.handle_packet(Micros(at), &stored).unwrap();
    }

    /// A picture in these packets. Returns those that do not arrive.
    fn picture(&mut self, at: u64, payloads: &[&[u8]], lost: &[usize]) -> Vec<Vec<u8>> {
        let mut missing = vec![];
        for (n, payload) in payloads.iter().enumerate() {
            let p = packet(1, self.seq, self.timestamp, n + 1 == payloads.len(), payload);
            self.seq = self.seq.wrapping_add(1);
            if lost.contains(&n) { missing.push(p) } else { self.take(at, &p) }
        }
        self.timestamp = self.timestamp.wrapping_add(3_000);
        missing
    }

    /// Payloads that the leg returns now.
    fn sent(&self, leg: &mut Leg) -> Vec<Vec<u8>> {
        let next = || match leg.poll(&self.feed, true) {
            Next::Send { index, .. } => self.feed.ring().get(index),
            Next::Idle | Next::NeedKeyFrame => None,
        };
        std::iter::from_fn(next).map(|(_, p)| Header::parse(p).unwrap().payload(p).to_vec()).collect()
    }
}

/// Key frames as Chromium, GStreamer's payloader (single units, aggregated) and `FFmpeg` put them into packets.
fn key_frames() -> Vec<Vec<Vec<u8>>> {
    let sps = sps(120, 68, 8);
    let fragments = FRAGMENTS.map(|f| f.to_vec()).to_vec();
    let with_fragments = |first: Vec<u8>| [vec![first], fragments.clone()].concat();
    vec![
        with_fragments(stap_a(&[&sps, &PPS])),
        [&DELIMITER[..], &sps, &PPS, &SEI, &IDR].map(<[u8]>::to_vec).to_vec(),
        with_fragments(stap_a(&[&DELIMITER, &sps, &PPS, &SEI])),
        vec![stap_a(&[&sps, &PPS, &SEI, &IDR])],
        vec![IDR.to_vec()],
    ]
}

fn slices(packets: &[Vec<u8>]) -> Vec<&[u8]> {
    packets.iter().map(Vec::as_slice).collect()
}

#[test]
fn a_joiner_gets_the_whole_key_frame_of_every_packetizer_whether_it_waits_or_comes_later() {
    for key in key_frames() {
        let mut s = Stream::new(Codec::H264);
        s.picture(0, &[&DELIMITER, &DELTA], &[]);
        let mut waiting = Leg::new(OWN, &s.feed, Micros(0));
        assert_eq!(s.sent(&mut waiting), Vec::<Vec<u8>>::new());
        s.picture(1, &slices(&key), &[]);
        assert_eq!(s.sent(&mut waiting), key);
        s.picture(2, &[&DELIMITER, &DELTA], &[]);
        let mut later = Leg::new(OWN, &s.feed, Micros(2));
        let rest = [DELIMITER.to_vec(), DELTA.to_vec()];
        assert_eq!(s.sent(&mut later), [&key[..], &rest].concat());
        assert_eq!(s.sent(&mut waiting), rest);
        assert_eq!((waiting.counters().shed, later.counters().shed), (0, 0), "going back leaves nothing out");
    }
}

#[test]
fn a_key_frame_is_found_packet_by_packet_and_is_not_sent_twice() {
    for key in key_frames() {
        let mut s = Stream::new(Codec::H264);
        s.picture(0, &[&DELTA], &[]);
        let mut leg = Leg::new(OWN, &s.feed, Micros(0));
        let mut sent = s.sent(&mut leg);
        for (n, payload) in key.iter().enumerate() {
            let p = packet(1, s.seq, s.timestamp, n + 1 == key.len(), payload);
            s.seq = s.seq.wrapping_add(1);
            s.take(1, &p);
            sent.extend(s.sent(&mut leg));
        }
        assert_eq!(sent, key);
    }
}

#[test]
fn periodic_parameter_sets_with_pictures_that_need_others_are_no_entry() {
    let sps = sps(120, 68, 8);
    let aggregated = stap_a(&[&sps, &PPS]);
    let refresh = stap_a(&[&sps, &PPS, &RECOVERY]);
    for picture in [&[&aggregated[..], &DELTA][..], &[&DELIMITER, &sps, &PPS, &DELTA], &[&refresh, &DELTA]] {
        let mut s = Stream::new(Codec::H264);
        let mut leg = Leg::new(OWN, &s.feed, Micros(0));
        for _ in 0..20 {
            s.picture(0, picture, &[]);
        }
        assert_eq!(leg.poll(&s.feed, true), Next::NeedKeyFrame);
        assert_eq!(s.feed.join_point(Micros(0), JOIN_FROM_CACHE_US), None);
        s.picture(1, &[&aggregated, &IDR], &[]);
        assert_eq!(s.sent(&mut leg), [&aggregated[..], &IDR], "the negative control");
    }
}

#[test]
fn a_publisher_that_only_refreshes_gradually_is_joined_when_its_key_frame_is_overdue() {
    let refresh = stap_a(&[&sps(120, 68, 8), &PPS, &RECOVERY]);
    let mut s = Stream::new(Codec::H264);
    let mut leg = Leg::new(OWN, &s.feed, Micros(0));
    let mut joined = None;
    for n in 0..200_u64 {
        let at = n * 33_000;
        let overdue = s.feed.key_frame_overdue(Micros(at));
        s.ingest.take_refresh_as_entry(overdue);
        let first: &[u8] = if n % 30 == 0 { &refresh } else { &DELIMITER };
        s.picture(at, &[first, &DELTA], &[]);
        if leg.poll(&s.feed, true) == Next::NeedKeyFrame {
            s.feed.handle_key_frame_request();
            s.feed.poll_key_frame_request(Micros(at));
        } else if joined.is_none() {
            joined = Some(n);
        }
        s.sent(&mut leg);
    }
    assert_eq!(joined, Some(120), "the first refresh point later than three seconds");
    assert!(!s.feed.key_frame_overdue(Micros(10_000_000)), "nobody waits any more");
}

#[test]
fn a_key_frame_without_its_parameter_sets_is_no_entry_until_they_are_repaired() {
    let parameters = stap_a(&[&sps(120, 68, 8), &PPS]);
    let fragments = FRAGMENTS;
    let key: [&[u8]; 4] = [&parameters, &fragments[0], &fragments[1], &fragments[2]];
    for lost in [0, 1] {
        let mut s = Stream::new(Codec::H264);
        // An earlier key frame, which nobody can join any more, shows that parameter sets come with each.
        s.picture(0, &key, &[]);
        s.feed = Feed::new(CONFIG);
        s.picture(0, &[&DELTA], &[]);
        let mut leg = Leg::new(OWN, &s.feed, Micros(0));
        let missing = s.picture(1, &key, &[lost]);
        s.picture(2, &[&DELTA], &[]);
        assert_eq!(leg.poll(&s.feed, true), Next::NeedKeyFrame, "{lost}");
        assert_eq!(s.feed.join_point(Micros(2), JOIN_FROM_CACHE_US), None, "{lost}");
        s.take(3, &missing[0]);
        let mut want: Vec<_> = key.iter().enumerate().filter(|(n, _)| *n != lost).map(|(_, p)| p.to_vec()).collect();
        want.extend([DELTA.to_vec(), key[lost].to_vec()]);
        assert_eq!(s.sent(&mut leg), want, "{lost}: what came before the repair is sent too");
        let mut later = Leg::new(OWN, &s.feed, Micros(3));
        assert_eq!(s.sent(&mut later), want, "{lost}");
    }
}

#[test]
fn an_h265_joiner_begins_at_the_delimiter_of_an_irap_picture_and_at_no_other() {
    let unit = |kind: u8, b: u8| [kind << 1, 1, b];
    let (vps, sps, pps, delimiter) = (unit(32, 0), unit(33, 0), unit(34, 0), unit(35, 0));
    let mut s = Stream::new(Codec::H265);
    let mut leg = Leg::new(OWN, &s.feed, Micros(0));
    s.picture(0, &[&delimiter, &vps, &sps, &pps, &unit(1, 0x80)], &[]);
    assert_eq!(leg.poll(&s.feed, true), Next::NeedKeyFrame);
    let key: [&[u8]; 5] = [&delimiter, &vps, &sps, &pps, &unit(19, 0x80)];
    s.picture(1, &key, &[]);
    assert_eq!(s.sent(&mut leg), key);
}

#[test]
fn a_leg_without_room_in_a_key_frame_leaves_the_rest_of_it_out() {
    let key = &key_frames()[0];
    let mut s = Stream::new(Codec::H264);
    let mut leg = Leg::new(OWN, &s.feed, Micros(0));
    s.picture(0, &slices(key), &[]);
    assert!(matches!(leg.poll(&s.feed, true), Next::Send { .. }));
    assert_eq!(leg.poll(&s.feed, false), Next::NeedKeyFrame);
    assert_eq!(s.sent(&mut leg), Vec::<Vec<u8>>::new());
    assert_eq!(leg.counters().shed, 3);
    s.picture(1, &slices(key), &[]);
    assert_eq!(s.sent(&mut leg), *key);
}

#[test]
fn padding_does_not_make_a_feed_live() {
    let mut s = Stream::new(Codec::H264);
    let padding = |seq: u16, filled: &[u8]| {
        let mut p = packet(1, seq, 0, false, filled);
        p[0] |= if filled.is_empty() { 0 } else { 0x20 };
        p
    };
    s.take(1, &padding(65_530, &[]));
    s.take(2, &padding(65_531, &[0, 0, 0, 4]));
    // A publisher whose packets are stored as they are.
    let mut padded = padding(65_532, &[0, 0, 0, 4]);
    padded[1] = 96;
    s.feed.handle_packet(Micros(3), &padded).unwrap();
    assert_eq!((s.feed.last_arrival(), s.feed.counters().packets), (None, 3));
    s.take(4, &packet(1, 65_533, 0, true, &IDR));
    s.take(5, &padding(65_534, &[]));
    assert_eq!(s.feed.last_arrival(), Some(Micros(4)));
}
