//! Everything that reads what came as RTP or RTCP, and the relay's state behind it.

use std::collections::BTreeMap;
use trocar_proto::media::codec::{self, Codec};
use trocar_proto::media::dd::{DescriptorReader, Renumber};
use trocar_proto::media::ext::{
    ExtensionIds, FrameMark, element, forward_capture_time, read_marks, transport_sequence,
};
use trocar_proto::media::fec::receive::{RepairConfig, RepairReceiver, Verdict};
use trocar_proto::media::feed::{Feed, FeedConfig};
use trocar_proto::media::ingest::{Ingest, IngestConfig};
use trocar_proto::media::leg::{Leg, Next, Numbering};
use trocar_proto::media::ring::Ring;
use trocar_proto::media::roq::{self, FlowPrefix, StreamReader};
use trocar_proto::media::rtcp::{Compound, Rtcp};
use trocar_proto::media::rtp::{Header, is_rtcp};
use trocar_proto::media::{fec, rtx, twcc};
use trocar_proto::units::{Bitrate, Micros, Ssrc};

/// Bytes of a packet at most, as a socket of the relay reads them.
const MTU: usize = 2_048;
const CODECS: [Codec; 7] = [Codec::H264, Codec::H265, Codec::Av1, Codec::Vp8, Codec::Vp9, Codec::Opus, Codec::Other];

/// An RTP header and what is read by it: nothing lies outside the packet.
///
/// # Panics
/// Where something does.
pub fn rtp(data: &[u8]) {
    let _ = is_rtcp(data);
    let Ok(h) = Header::parse(data) else { return };
    assert!(h.payload(data).len() <= data.len() && h.payload_offset <= data.len());
    for e in h.extensions(data) {
        std::hint::black_box(e);
    }
    for id in 0..=255 {
        if let Some(range) = h.extension_range(data, id) {
            assert!(range.end <= h.payload_offset && element(&h, data, id).is_some());
        }
        let _ = transport_sequence(&h, data, id);
    }
    let _ = read_marks(&h, data, ExtensionIds::OURS);
    let mut out = vec![0; data.len() + 64];
    if let Some(len) = rtx::decapsulate(&h, data, Ssrc(1), 96, &mut out) {
        let again = Header::parse(out.get(..len).unwrap_or(&[])).expect("what comes out of RTX is RTP");
        assert_eq!((again.ssrc, again.payload_type), (Ssrc(1), 96));
    }
}

/// A compound RTCP packet, walked to its end, and everything within.
///
/// # Panics
/// Where a walk does not end.
pub fn rtcp(data: &[u8]) {
    let mut steps = 0_usize;
    for part in Compound::new(data) {
        steps += match part {
            Rtcp::SenderReport(_, blocks) | Rtcp::ReceiverReport(_, blocks) => {
                blocks.filter(|b| b.round_trip_us(7).is_some() || b.jitter > 0).count()
            }
            Rtcp::Bye(sources) | Rtcp::Estimate { sources, .. } => sources.count(),
            Rtcp::Nack { lost, .. } => lost.count(),
            Rtcp::FullIntraRequest(asked) => asked.count(),
            Rtcp::TransportFeedback { fci, .. } => match twcc::Feedback::parse(fci) {
                Ok(feedback) => feedback.times().count(),
                Err(_) => 0,
            },
            _ => 0,
        };
        steps += 1;
    }
    steps += fec::xr::runs(data).take(1 << 20).count();
    // A NACK names 17 numbers in 4 bytes; a run of feedback at most 8,191 in 2.
    assert!(steps <= 64 + 8_192 * data.len(), "{steps} steps of {} bytes", data.len());
    if let Ok(feedback) = twcc::Feedback::parse(data) {
        let bytes = feedback.to_bytes();
        assert_eq!(twcc::Feedback::parse(&bytes).map(|f| f.times().count()), Ok(feedback.times().count()));
    }
}

/// What stands in header extensions.
///
/// # Panics
/// Where one that is written again is another.
pub fn extensions(data: &[u8]) {
    let mut reader = DescriptorReader::new();
    let (mut numbers, mut rest) = (Renumber::default(), data);
    // A length, and so many bytes of an element; again and again, for both keep a state.
    while let Some((len, tail)) = rest.split_first() {
        let part = tail.get(..usize::from(*len)).unwrap_or(tail);
        let _ = reader.read(part);
        let source = (u32::from(*len & 3), u32::from(*len >> 6));
        if let Some(moved) = numbers.write(source, part) {
            assert_eq!(moved.len(), part.len());
        }
        let _ = numbers.write_again(source, part);
        if let Some((bytes, len)) = forward_capture_time(part, Some(i64::from(*len) << 40)) {
            assert!(len <= bytes.len());
        }
        if let Some(mark) = FrameMark::from_bytes(part) {
            assert_eq!(FrameMark::from_bytes(&mark.to_bytes()), Some(mark));
        }
        rest = tail.get(part.len()..).unwrap_or(&[]);
    }
}

/// Codec headers, one by one and as a stream through what adds marks to it.
///
/// # Panics
/// Where a size is out of range, or what comes out is no packet.
pub fn headers(data: &[u8]) {
    let Some((first, rest)) = data.split_first() else { return };
    let kind = CODECS[usize::from(*first) % CODECS.len()];
    let mut ingest = Ingest::new(IngestConfig {
        codec: kind,
        payload_type: 96,
        abs_capture_time: 0,
        audio_level: 0,
        dependency_descriptor: 0,
    });
    ingest.take_refresh_as_entry(first & 0x80 != 0);
    let mut out = vec![0; MTU + 64];
    let (mut seq, mut timestamp) = (0_u16, 0_u32);
    let mut rest = rest;
    // Two bytes of what the header says, a length, and the payload.
    while let [jump, flags, len, tail @ ..] = rest {
        let payload = tail.get(..usize::from(*len)).unwrap_or(tail);
        if let Ok(seen) = codec::inspect(kind, payload)
            && let Some((width, height)) = seen.size
        {
            assert!((1..=65_536).contains(&width) && (1..=65_536).contains(&height), "{width}x{height}");
        }
        seq = seq.wrapping_add(u16::from(jump & 7));
        timestamp = timestamp.wrapping_add(u32::from(*jump >> 3).wrapping_mul(0x1000_0001));
        let mut packet = vec![0x80 | flags & 0x20, 96 | flags & 0x80];
        packet.extend(seq.to_be_bytes());
        packet.extend(timestamp.to_be_bytes());
        packet.extend([0, 0, 0, flags & 3]);
        packet.extend(payload);
        if let Ok(h) = Header::parse(&packet)
            && let Ok(len) = ingest.handle_packet(&h, &packet, &mut out)
        {
            assert!(Header::parse(out.get(..len).unwrap_or(&[])).is_ok());
        }
        rest = tail.get(payload.len()..).unwrap_or(&[]);
    }
}

/// RTP over QUIC: a datagram, and a stream that comes in pieces of any length.
///
/// # Panics
/// Where a packet is longer than any, or a stream keeps more than that.
pub fn roq(data: &[u8]) {
    if let Some((flow, packet)) = roq::split(data) {
        let prefix = FlowPrefix::new(flow).expect("a flow that was read can be written");
        assert!(prefix.as_bytes().len() + packet.len() <= data.len() + 8);
    }
    let mut reader = StreamReader::default();
    let (mut rest, mut size) = (data, 1);
    while !rest.is_empty() {
        let (piece, tail) = rest.split_at(size.min(rest.len()));
        reader.handle_bytes(piece);
        loop {
            match reader.poll_packet() {
                Ok(Some((_, packet))) => assert!(packet.len() <= 65_535),
                Ok(None) => break,
                Err(_) => return,
            }
        }
        rest = tail;
        size = size % 37 + 3;
    }
}

/// The relay's state behind one feed: packets of any kind come in, viewers of both kinds follow, ask again, and are blocked, time passes.
///
/// # Panics
/// Where a leg is sent something that is not in the ring, or one number of a browser's leg leads to two packets.
pub fn relay(data: &[u8]) {
    let mut feed = Feed::new(FeedConfig {
        clock_rate: 90_000,
        payload_type: 96,
        extensions: ExtensionIds::OURS,
        slots: Ring::slots_for(1_000_000),
        slot_size: MTU,
    });
    let mut repair =
        RepairReceiver::new(RepairConfig { budget_us: 100_000, rate: Bitrate(1_000_000), fec_payload_type: Some(97) });
    let mut now = 1_000_000_u64;
    let numbering = Numbering::Own { ssrc: Ssrc(7), first_seq: 32_760, payload_type: 100 };
    let mut legs = [Leg::new(Numbering::Verbatim, &feed, Micros(now)), Leg::new(numbering, &feed, Micros(now))];
    let mut numbers = Numbers::default();
    let mut rest = data;
    while let [what, arg, tail @ ..] = rest {
        rest = tail;
        let at = Micros(now);
        match what % 8 {
            0..4 => {
                let len = usize::from(*arg).min(tail.len());
                let packet = marked(*what, tail.get(..len).unwrap_or(&[]));
                rest = tail.get(len..).unwrap_or(&[]);
                if let Ok(h) = Header::parse(&packet) {
                    match repair.handle_packet(at, &h) {
                        Verdict::Repair => repair.handle_repair(at, &packet, |_| None),
                        Verdict::Take | Verdict::Late => drop(feed.handle_packet(at, &packet)),
                    }
                }
            }
            4 => now += 1_000 * u64::from(*arg),
            5 => {
                let seq = u16::from(*arg) | u16::from(*what) << 8;
                let [native, browser] = &mut legs;
                let _ = native.handle_verbatim_nack(&feed, seq);
                if let Some((index, _, number)) = browser.handle_nack(&feed, seq) {
                    numbers.repeat(&feed, number.0, index);
                }
            }
            6 => {
                if let Some(leg) = legs.get_mut(usize::from(arg & 1)) {
                    match arg >> 1 & 7 {
                        0 => leg.skip_to_now(&feed),
                        1 => leg.start(&feed, at),
                        2 => leg.switch(&feed, at),
                        3 => leg.give_up_frame(),
                        4 => leg.leave_out_discardable(arg & 0x40 != 0),
                        _ => leg.leave_out_older(Micros(now.saturating_sub(50_000))),
                    }
                }
            }
            _ => {
                let [native, browser] = &mut legs;
                pump(native, &feed, usize::from(*arg), |_, _| ());
                pump(browser, &feed, usize::from(*arg), |number, index| numbers.send(&feed, number, index));
                let _ = (repair.poll_restored(at), repair.poll_rtcp(at, Ssrc(1)), feed.poll_key_frame_request(at));
            }
        }
        let _ = (feed.join_point(at, 1_000_000), feed.key_frame_overdue(at), repair.next_wakeup(at));
    }
}

/// A packet of the feed whose marks and numbers the bytes choose.
fn marked(what: u8, bytes: &[u8]) -> Vec<u8> {
    let at = |i: usize| bytes.get(i).copied().unwrap_or(0);
    if what & 0x80 != 0 {
        return bytes.to_vec();
    }
    let mut packet = vec![0x90, 96 | at(0) & 0x80 | u8::from(what & 0x40 != 0), 0, at(1)];
    packet.extend([0, 0, at(2), at(3), 0, 0, 0, 5, 0xbe, 0xde, 0, 2]);
    packet.extend([0x14, at(4), 0, 0, at(5), at(6), 0, 0]);
    packet.extend(bytes);
    packet
}

fn pump(leg: &mut Leg, feed: &Feed, turns: usize, mut sent: impl FnMut(u64, u64)) {
    for turn in 0..turns {
        match leg.poll(feed, turn % 5 != 4) {
            Next::Send { index, seq, .. } => {
                assert!(feed.ring().get(index).is_some(), "what is to be sent is in the ring");
                sent(seq.0, index);
            }
            Next::Idle | Next::NeedKeyFrame => return,
        }
    }
}

/// What a browser's leg has numbered: the packet of each number, through all sources, feeds and pauses. Numbers need not rise: a
/// packet that comes late has the number of the gap that was left for it.
#[derive(Default)]
struct Numbers {
    packets: BTreeMap<u64, u64>,
    highest: u64,
}

impl Numbers {
    fn send(&mut self, feed: &Feed, number: u64, index: u64) {
        let before = self.packets.insert(number, index);
        // What the ring has forgotten may come again; the relay's seal then refuses its number.
        let is_new = before.is_none_or(|i| i < feed.ring().oldest());
        assert!(is_new, "{number} for packet {index} after {before:?}");
        self.highest = self.highest.max(number);
    }

    fn repeat(&mut self, feed: &Feed, number: u64, index: u64) {
        assert!(number <= self.highest, "{number} is repeated, {} is the highest that was sent", self.highest);
        // What was left out may be sent for the first time so.
        let first = *self.packets.entry(number).or_insert(index);
        assert!(first == index || first < feed.ring().oldest(), "{number} was of packet {first} and is of {index}");
    }
}
