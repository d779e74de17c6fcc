//! What becomes of foreign packets: marks, ids, extensions, over loss and reordering.

use super::super::codec::tests::XorShift;
use super::super::ext::read_marks;
use super::super::feed::Feed;
use super::super::feed::tests::CONFIG;
use super::super::leg::{Leg, Next, Numbering};
use super::*;
use crate::units::{Micros, WallMicros};

const SPS: [u8; 2] = [0x67, 0];
const PPS: [u8; 2] = [0x68, 0xce];
const IDR: [u8; 3] = [0x65, 0x88, 0x84];
const DELTA: [u8; 3] = [0x41, 0x9a, 0x02];
const DELIMITER: [u8; 2] = [0x09, 0xf0];
const LATER_SLICE: [u8; 3] = [0x41, 0x1a, 0x02];

pub(crate) fn ingest(codec: Codec) -> Ingest {
    Ingest::new(IngestConfig { codec, payload_type: 96, abs_capture_time: 0, audio_level: 0, dependency_descriptor: 0 })
}

/// A packet as a browser sends it.
pub(crate) fn packet(ssrc: u32, seq: u16, timestamp: u32, marker: bool, payload: &[u8]) -> Vec<u8> {
    let mut b = vec![0; 32];
    let fields = HeaderFields { marker, payload_type: 109, seq, timestamp, ssrc: Ssrc(ssrc) };
    let n = write_header(&mut b, fields, &[(4, &[0, 7])]).unwrap();
    b.truncate(n);
    b.extend_from_slice(payload);
    b
}

pub(crate) fn pass(i: &mut Ingest, p: &[u8]) -> Result<Vec<u8>, IngestError> {
    let mut out = [0; 2048];
    let n = i.handle_packet(&Header::parse(p).unwrap(), p, &mut out)?;
    Ok(out[..n].to_vec())
}

fn mark(i: &mut Ingest, seq: u16, timestamp: u32, marker: bool, payload: &[u8]) -> (u32, bool, bool, bool) {
    let p = pass(i, &packet(1, seq, timestamp, marker, payload)).unwrap();
    let f = read_marks(&Header::parse(&p).unwrap(), &p, ExtensionIds::OURS).frame.unwrap();
    (f.frame_id, f.marks.start, f.marks.end, f.marks.independent)
}

#[test]
fn a_packet_keeps_what_it_is_and_gets_our_extensions() {
    let mut i = Ingest::new(IngestConfig {
        codec: Codec::H264,
        payload_type: 96,
        abs_capture_time: 7,
        audio_level: 5,
        dependency_descriptor: 0,
    });
    let mut b = [0; 64];
    let captured = WallMicros(1_700_000_000_000_000);
    let ntp = captured.to_ntp().to_be_bytes();
    let fields =
        HeaderFields { marker: true, payload_type: 109, seq: 65_535, timestamp: u32::MAX, ssrc: Ssrc(0xfeed_beef) };
    let n = write_header(&mut b, fields, &[(3, b"0"), (7, &ntp), (5, &[1, 2])]).unwrap();
    b[0] |= 0x20;
    b[n..n + 3].copy_from_slice(&IDR);
    b[n + 7] = 5;
    let out = pass(&mut i, &b[..n + 8]).unwrap();
    let h = Header::parse(&out).unwrap();
    assert_eq!((h.marker, h.seq, h.timestamp, h.ssrc), (true, 65_535, u32::MAX, Ssrc(0xfeed_beef)));
    assert_eq!((h.payload_type, h.padding, h.payload(&out)), (96, 0, &IDR[..]));
    assert_eq!(h.extensions(&out).map(|e| e.0).collect::<Vec<_>>(), vec![1, 2]);
    let marks = read_marks(&h, &out, ExtensionIds::OURS);
    assert_eq!(marks.capture, Some(captured));
    let all = FrameMarks { start: true, end: true, independent: true, discardable: false };
    assert_eq!(marks.frame, Some(FrameMark { frame_id: 0, marks: all }));
}

#[test]
fn the_long_form_of_the_capture_time_passes_and_other_lengths_do_not() {
    for (len, ids) in [(16, vec![1, 2]), (8, vec![1, 2]), (7, vec![1]), (9, vec![1])] {
        let mut i = Ingest::new(IngestConfig {
            codec: Codec::Other,
            payload_type: 96,
            abs_capture_time: 9,
            audio_level: 0,
            dependency_descriptor: 0,
        });
        let mut b = [0; 64];
        let fields = HeaderFields { marker: false, payload_type: 1, seq: 0, timestamp: 0, ssrc: Ssrc(1) };
        let n = write_header(&mut b, fields, &[(9, &[0xe0; 16][..len])]).unwrap();
        let out = pass(&mut i, &b[..=n]).unwrap();
        let h = Header::parse(&out).unwrap();
        assert_eq!(h.extensions(&out).map(|e| e.0).collect::<Vec<_>>(), ids);
    }
}

#[test]
fn frames_are_counted_and_their_packets_marked() {
    let mut i = ingest(Codec::H264);
    assert_eq!(mark(&mut i, 10, 0, false, &SPS), (0, true, false, false));
    assert_eq!(mark(&mut i, 11, 0, false, &PPS), (0, false, false, false));
    assert_eq!(mark(&mut i, 12, 0, true, &IDR), (0, false, true, true));
    assert_eq!(mark(&mut i, 13, 3000, false, &DELTA), (1, true, false, false));
    assert_eq!(mark(&mut i, 14, 3000, true, &LATER_SLICE), (1, false, true, false));
    // By the numbers a frame begins here, whatever the slice says.
    assert_eq!(mark(&mut i, 15, 6000, true, &LATER_SLICE), (2, true, true, false));
}

#[test]
fn a_key_frame_that_a_delimiter_announces_starts_there_and_is_independent_from_its_picture_on() {
    let mut i = ingest(Codec::H264);
    assert_eq!(mark(&mut i, 1, 0, false, &DELIMITER), (0, true, false, false));
    assert_eq!(mark(&mut i, 2, 0, false, &SPS), (0, false, false, false));
    assert_eq!(mark(&mut i, 3, 0, false, &PPS), (0, false, false, false));
    assert_eq!(mark(&mut i, 4, 0, true, &IDR), (0, false, true, true));
}

#[test]
fn a_late_packet_from_before_all_that_is_remembered_is_refused_and_takes_no_id() {
    use super::super::codec::tests::sps;
    let mut i = ingest(Codec::Opus);
    for n in 0..=FRAMES as u16 {
        assert_eq!(mark(&mut i, n, 960 * u32::from(n), false, &[1]).0, u32::from(n));
    }
    // Of frames 0 to 64 the first is forgotten; the second is not, and keeps its id.
    assert_eq!(pass(&mut i, &packet(1, 0, 0, false, &[1])), Err(IngestError::TooOld));
    assert_eq!(mark(&mut i, 1, 960, false, &[1]).0, 1);
    assert_eq!(mark(&mut i, 65, 960 * 65, false, &[1]).0, 65, "no id was taken");
    // The same for a picture, whose size is not taken either.
    let mut i = ingest(Codec::H264);
    for n in 0..100_u16 {
        mark(&mut i, n, 3000 * u32::from(n), true, &DELTA);
    }
    assert_eq!(pass(&mut i, &packet(1, 3, 9000, true, &sps(120, 68, 8))), Err(IngestError::TooOld));
    assert_eq!((i.size(), mark(&mut i, 100, 300_000, true, &DELTA).0), (None, 100));
}

#[test]
fn the_rest_of_a_key_frame_whose_start_is_lost_is_no_entry() {
    let mut i = ingest(Codec::H264);
    mark(&mut i, 1, 0, true, &DELTA);
    // The parameter sets and the first fragment (2, 3) are missing.
    assert_eq!(mark(&mut i, 4, 3000, false, &[0x7c, 0x05, 1]), (1, false, false, true));
    assert_eq!(mark(&mut i, 5, 3000, true, &[0x7c, 0x45, 1]), (1, false, true, true));
    // Sent again, they are part of it.
    assert_eq!(mark(&mut i, 3, 3000, false, &[0x7c, 0x85, 0x88]), (1, true, false, true));
    assert_eq!(mark(&mut i, 2, 3000, false, &SPS), (1, true, false, true));
}

#[test]
fn late_packets_get_the_id_of_their_frame() {
    let mut i = ingest(Codec::Vp8);
    let vp8 = |start: bool| [if start { 0x10 } else { 0 }, 0x31];
    for n in 0..60_u16 {
        mark(&mut i, 2 * n, 3000 * u32::from(n), false, &vp8(true));
    }
    for n in 0..59_u16 {
        assert_eq!(mark(&mut i, 2 * n + 1, 3000 * u32::from(n), true, &vp8(false)), (n.into(), false, true, false));
    }
}

#[test]
fn frames_that_are_late_as_a_whole_get_the_ids_that_were_kept_for_them() {
    let mut i = ingest(Codec::Opus);
    let mut ids = vec![];
    let order = [0, 1, 2, 6, 4, 3, 5, 7, 9, 8, 10];
    for n in order {
        let (id, start, end, independent) = mark(&mut i, 65_533_u16.wrapping_add(n), 960 * u32::from(n), false, &[1]);
        assert!(start && end && independent);
        ids.push(id);
    }
    assert_eq!(ids, order.map(u32::from), "the id is the frame's number in every order");
}

#[test]
fn ids_are_kept_only_for_as_many_frames_as_the_time_allows() {
    let mut i = ingest(Codec::H264);
    mark(&mut i, 0, 0, true, &IDR);
    mark(&mut i, 1, 3000, true, &DELTA);
    // Eight packets missing, but no more than one frame's time.
    assert_eq!(mark(&mut i, 10, 6000, true, &DELTA).0, 2);
    // Two packets missing and ten frames' time: at most two frames.
    assert_eq!(mark(&mut i, 13, 36_000, true, &DELTA).0, 5);
}

#[test]
fn padding_leaves_no_gap_and_begins_no_frame() {
    let mut i = ingest(Codec::H264);
    mark(&mut i, 1, 0, true, &IDR);
    let mut p = packet(1, 2, 0, false, &[0, 0, 0, 4]);
    p[0] |= 0x20;
    let out = pass(&mut i, &p).unwrap();
    let h = Header::parse(&out).unwrap();
    assert_eq!((h.seq, h.payload(&out).len(), h.padding), (2, 0, 0));
    let f = read_marks(&h, &out, ExtensionIds::OURS).frame.unwrap();
    assert_eq!((f.frame_id, f.marks), (0, FrameMarks::default()));
    assert_eq!(mark(&mut i, 3, 3000, true, &LATER_SLICE), (1, true, true, false), "the next number, so its start");
}

#[test]
fn malformed_payloads_are_dropped_and_change_nothing() {
    let mut i = ingest(Codec::H264);
    mark(&mut i, 1, 0, true, &IDR);
    for p in [&[0x78, 0, 0][..], &[0x7c], &[0x1f]] {
        assert!(matches!(pass(&mut i, &packet(1, 2, 9000, true, p)), Err(IngestError::Malformed(_))));
    }
    assert_eq!(mark(&mut i, 2, 3000, true, &DELTA).0, 1);
    let p = packet(1, 3, 6000, true, &DELTA);
    let short = i.handle_packet(&Header::parse(&p).unwrap(), &p, &mut [0; 20]);
    assert_eq!(short, Err(IngestError::Rtp(RtpError::NoRoom)));
}

#[test]
fn the_picture_size_is_that_of_the_last_key_frame() {
    use super::super::codec::tests::sps;
    let mut i = ingest(Codec::H264);
    assert_eq!(i.size(), None);
    for (seq, (mbs, crop, want)) in [(1, (120, 8, (1920, 1080))), (2, (240, 0, (3840, 1088)))] {
        mark(&mut i, seq, u32::from(seq), false, &sps(mbs, 68, crop));
        assert_eq!(i.size(), Some(want));
    }
    mark(&mut i, 3, 9, true, &DELTA);
    assert_eq!(i.size(), Some((3840, 1088)));
}

#[test]
fn a_joiner_begins_before_the_parameter_sets_and_gets_the_whole_key_frame() {
    let mut i = ingest(Codec::H264);
    let mut f = Feed::new(CONFIG);
    let mut seq = 65_530_u16;
    let mut send = |f: &mut Feed, timestamp: u32, payloads: &[&[u8]]| {
        for (n, payload) in payloads.iter().enumerate() {
            let p = packet(1, seq, timestamp, n + 1 == payloads.len(), payload);
            seq = seq.wrapping_add(1);
            f.handle_packet(Micros(0), &pass(&mut i, &p).unwrap()).unwrap();
        }
    };
    send(&mut f, 0, &[&DELTA, &LATER_SLICE]);
    let own = Numbering::Own { ssrc: Ssrc(9), payload_type: 102, first_seq: 5 };
    let mut leg = Leg::new(own, &f, Micros(0));
    assert_eq!(leg.poll(&f, true), Next::NeedKeyFrame);
    send(&mut f, 3000, &[&DELIMITER, &SPS, &PPS, &IDR]);
    send(&mut f, 6000, &[&DELIMITER, &DELTA]);
    let sent: Vec<_> = std::iter::from_fn(|| match leg.poll(&f, true) {
        Next::Send { index, header, .. } => Some((header.seq, f.ring().get(index).unwrap().1.to_vec())),
        Next::Idle | Next::NeedKeyFrame => None,
    })
    .collect();
    let payloads: Vec<_> = sent.iter().map(|(_, p)| Header::parse(p).unwrap().payload(p).to_vec()).collect();
    let want: [&[u8]; 6] = [&DELIMITER, &SPS, &PPS, &IDR, &DELIMITER, &DELTA];
    assert_eq!(payloads, want);
    assert_eq!(sent.iter().map(|s| s.0).collect::<Vec<_>>(), vec![5, 6, 7, 8, 9, 10]);
    assert_eq!((f.counters().frames, f.counters().missing), (3, 0));
}

#[test]
fn no_stream_of_random_packets_is_a_panic_and_each_parses_again() {
    let mut x = XorShift(7);
    for codec in [Codec::H264, Codec::H265, Codec::Av1, Codec::Vp8, Codec::Vp9, Codec::Opus, Codec::Other] {
        let mut i = ingest(codec);
        let mut passed = 0;
        for _ in 0..20_000 {
            let payload: Vec<u8> = (0..x.next() % 12).map(|_| (x.next() >> 40) as u8).collect();
            let r = x.next();
            // Small steps, so that frames are found again, and now and then a leap.
            let seq = if r.is_multiple_of(50) { (r >> 8) as u16 } else { (r >> 8) as u16 & 0x1f };
            let p = packet((r >> 30) as u32 & 1, seq, (r >> 32) as u32 & 0xff, r & 1 == 0, &payload);
            if let Ok(out) = pass(&mut i, &p) {
                passed += 1;
                let h = Header::parse(&out).unwrap();
                assert_eq!((h.seq, h.payload(&out)), (seq, &payload[..]));
                assert!(read_marks(&h, &out, ExtensionIds::OURS).frame.is_some());
            }
        }
        assert!(passed > 1_000, "{codec:?} {passed}");
    }
}

#[test]
fn level_and_dependency_descriptor_pass_untouched_and_marks_come_from_the_descriptor() {
    let mut i = Ingest::new(IngestConfig {
        codec: Codec::Av1,
        payload_type: 96,
        abs_capture_time: 0,
        audio_level: 6,
        dependency_descriptor: 200,
    });
    // One template, which needs no other frame and which the one target needs; no chains, no size.
    let structure = [0b1100_0000, 0, 1, 0b1000_0000, 0, 0b1110_0000];
    let delta = [0b1000_0000, 0, 2];
    // The payload is nothing that AV1 knows: it may be encrypted.
    let mut packet = |seq: u16, element: &[u8]| {
        let mut b = vec![0; 64];
        let fields = HeaderFields { marker: true, payload_type: 45, seq, timestamp: 7, ssrc: Ssrc(1) };
        let n = write_header(&mut b, fields, &[(6, &[0x85]), (200, element)]).unwrap();
        b.truncate(n);
        b.extend_from_slice(&[0xff; 40]);
        let out = pass(&mut i, &b).unwrap();
        let h = Header::parse(&out).unwrap();
        assert_eq!(h.payload(&out), [0xff; 40]);
        let ours = ExtensionIds::OURS;
        assert_eq!(element_of(&h, &out, ours.dependency_descriptor), element);
        assert_eq!(element_of(&h, &out, ours.audio_level), [0x85]);
        read_marks(&h, &out, ours).frame.unwrap().marks
    };
    let key = packet(1, &structure);
    assert!(key.start && key.end && key.independent, "{key:?}");
    // A descriptor that fits one element of the one-byte form no more.
    let long = [&structure[..], &[0; 30]].concat();
    assert!(packet(2, &long).independent);
    let mut other = ingest(Codec::Av1);
    assert!(pass(&mut other, &packet_of(3, &delta)).is_err(), "without the extension the payload is read");
}

fn element_of<'a>(h: &Header, packet: &'a [u8], id: u8) -> &'a [u8] {
    element(h, packet, id).unwrap_or(&[])
}

fn packet_of(seq: u16, descriptor: &[u8]) -> Vec<u8> {
    let mut b = vec![0; 64];
    let fields = HeaderFields { marker: true, payload_type: 45, seq, timestamp: 7, ssrc: Ssrc(1) };
    let n = write_header(&mut b, fields, &[(9, descriptor)]).unwrap();
    b.truncate(n);
    b.extend_from_slice(&[0xff; 40]);
    b
}
