//! Long sessions in a short time: packets of a foreign publisher go through [`Ingest`], [`Feed`] and [`Leg`] across every
//! wrap of sequence numbers and timestamps, restarts and late packets. Nothing may be lost, and the leg goes on.

use super::codec::Codec;
use super::ext::{ExtensionIds, read_marks};
use super::feed::tests::CONFIG;
use super::feed::{Feed, Refused};
use super::ingest::Ingest;
use super::ingest::tests::{ingest, packet, pass};
use super::leg::{Leg, Next, Numbering};
use super::rtp::{Header, HeaderFields};
use crate::link::rng::Rng;
use crate::units::{Micros, SeqNo, Ssrc};

const OWN: Numbering = Numbering::Own { ssrc: Ssrc(77), payload_type: 102, first_seq: 0x7ff0 };
const FRAME_TICKS: u32 = 3_000;
const FRAME_US: u64 = 33_333;
/// Key frames are two seconds apart.
const KEY_EVERY: u32 = 60;

/// A WebRTC publisher of H.264, three packets a frame; each payload ends with a number of its own.
struct Publisher {
    ssrc: u32,
    seq: u16,
    timestamp: u32,
    frames: u32,
    packets: u32,
}

impl Publisher {
    fn frame(&mut self) -> [Vec<u8>; 3] {
        let heads: [&[u8]; 3] = if self.frames.is_multiple_of(KEY_EVERY) {
            [&[0x78, 0, 2, 0x67, 0, 0, 2, 0x68, 0xce, 0, 5, 0x65], &[0x7c, 0x85, 0x88], &[0x7c, 0x45]]
        } else {
            [&[0x7c, 0x81, 0x9a], &[0x7c, 0x01], &[0x7c, 0x41]]
        };
        let timestamp = self.timestamp;
        self.frames += 1;
        self.timestamp = timestamp.wrapping_add(FRAME_TICKS);
        let mut left = 3;
        heads.map(|head| {
            left -= 1;
            let payload = [head, &self.packets.to_be_bytes()].concat();
            let p = packet(self.ssrc, self.seq, timestamp, left == 0, &payload);
            self.packets += 1;
            self.seq = self.seq.wrapping_add(1);
            p
        })
    }
}

struct Relay {
    ingest: Ingest,
    feed: Feed,
    leg: Leg,
}

/// What left the leg: header, widened number, number in the payload, frame id.
type Sent = (HeaderFields, SeqNo, u32, u32);

impl Relay {
    fn new() -> Self {
        let feed = Feed::new(CONFIG);
        Self { ingest: ingest(Codec::H264), leg: Leg::new(OWN, &feed, Micros(0)), feed }
    }

    fn take(&mut self, now: Micros, p: &[u8]) -> Result<(), Refused> {
        let p = pass(&mut self.ingest, p).unwrap();
        self.feed.handle_packet(now, &p).map(|_| ())
    }

    fn drain(&mut self, mut each: impl FnMut(Sent)) {
        while let Next::Send { index, header, seq } = self.leg.poll(&self.feed, true) {
            let (info, p) = self.feed.ring().get(index).unwrap();
            let payload = Header::parse(p).unwrap().payload(p);
            let number = u32::from_be_bytes(*payload.last_chunk().unwrap());
            each((header, seq, number, info.frame.frame_id));
        }
    }

    fn drained(&mut self) -> Vec<Sent> {
        let mut out = vec![];
        self.drain(|s| out.push(s));
        out
    }
}

#[test]
fn three_hours_across_every_wrap_lose_nothing_and_stay_continuous() {
    let mut relay = Relay::new();
    let timestamp = 0_u32.wrapping_sub(1_000 * FRAME_TICKS - 7);
    let mut p = Publisher { ssrc: 1, seq: 65_533, timestamp, frames: 0, packets: 0 };
    let mut packets = 0_u32;
    let frames = 3 * 3_600 * 30_u32;
    for n in 0..frames {
        let now = Micros(u64::from(n) * FRAME_US);
        p.frame().iter().for_each(|b| relay.take(now, b).unwrap());
        relay.drain(|(header, seq, number, id)| {
            assert_eq!((number, seq.0), (packets, 0x7ff0 + u64::from(packets)));
            assert_eq!((id, header.seq), (n, (0x7ff0 + packets) as u16));
            assert_eq!(header.timestamp, timestamp.wrapping_add(n.wrapping_mul(FRAME_TICKS)));
            assert_eq!(header.marker, packets % 3 == 2);
            packets += 1;
        });
    }
    assert_eq!(packets, 3 * frames);
    let c = relay.feed.counters();
    assert_eq!((c.packets, c.frames), (u64::from(packets), u64::from(frames)));
    assert_eq!((c.missing, c.duplicates, c.refused, relay.leg.counters().shed), (0, 0, 0, 0));
}

#[test]
fn a_lost_packet_is_noticed_at_the_wrap() {
    // The negative control of the test above: it would fail here.
    let mut relay = Relay::new();
    let mut p = Publisher { ssrc: 1, seq: 65_534, timestamp: 0, frames: 0, packets: 0 };
    let [a, _, c] = p.frame();
    relay.take(Micros(0), &a).unwrap();
    relay.take(Micros(0), &c).unwrap();
    let sent = relay.drained();
    assert_eq!(sent.iter().map(|s| (s.1.0 - 0x7ff0, s.2)).collect::<Vec<_>>(), vec![(0, 0), (2, 2)]);
    assert_eq!(relay.feed.counters().missing, 1);
}

#[test]
fn late_packets_across_the_wraps_keep_their_frame_and_their_number() {
    let mut rng = Rng::new(2);
    for round in 0..200_u32 {
        let mut relay = Relay::new();
        let seq = 65_536_u32 - 40 + round % 7;
        let timestamp = 0_u32.wrapping_sub(12 * FRAME_TICKS);
        let mut p = Publisher { ssrc: 1, seq: seq as u16, timestamp, frames: 0, packets: 0 };
        // Two frames in order tell how far apart frames are.
        [p.frame(), p.frame()].concat().iter().for_each(|b| relay.take(Micros(0), b).unwrap());
        // Each packet has a due time; some are late by up to 40 packets.
        let packets: Vec<_> = (0..30).flat_map(|_| p.frame()).collect();
        let late = |rng: &mut Rng| if rng.chance(0.2) { rng.below(40) } else { 0 };
        let mut order: Vec<_> = packets.iter().zip(0_u32..).map(|(b, i)| (i + late(&mut rng), i, b)).collect();
        order.sort_unstable_by_key(|(due, i, _)| (*due, *i));
        let mut got = relay.drained();
        for (_, _, b) in order {
            relay.take(Micros(1), b).unwrap();
            got.extend(relay.drained());
        }
        assert_eq!(got.len(), 96);
        for (header, seq, number, id) in got {
            assert_eq!((seq.0, id), (0x7ff0 + u64::from(number), number / 3), "round {round}");
            assert_eq!(header.timestamp, timestamp.wrapping_add(number / 3 * FRAME_TICKS));
        }
        assert_eq!(relay.feed.counters().missing, 0);
    }
}

/// A publisher that ends and one that begins, each with two frames; what the leg sent.
fn restart(ssrc: u32, seq: u16, timestamp: u32) -> Vec<Sent> {
    let mut relay = Relay::new();
    let mut p = Publisher { ssrc: 1, seq: 65_530, timestamp: 0_u32.wrapping_sub(FRAME_TICKS), frames: 0, packets: 0 };
    for _ in 0..2 {
        p.frame().iter().for_each(|b| relay.take(Micros(0), b).unwrap());
    }
    let mut got = relay.drained();
    let mut q = Publisher { ssrc, seq, timestamp, frames: 0, packets: p.packets };
    let packets = [q.frame(), q.frame()].concat();
    let taken: Vec<_> = packets.iter().map(|b| relay.take(Micros(1_000_000), b)).collect();
    assert_eq!(taken[0], Err(Refused::Probation), "it is kept, and taken with the next");
    assert!(taken[1..].iter().all(Result::is_ok));
    got.extend(relay.drained());
    assert_eq!(relay.feed.counters().packets, 12);
    got
}

#[test]
fn a_publisher_that_starts_again_loses_nothing_and_the_leg_goes_on() {
    // With a new SSRC, also with the very numbers and times of the old one; with the same SSRC at another place.
    let cases = [
        (2, 65_535, u32::MAX - 5),
        (2, 4, 0),
        (2, 65_530, 0_u32.wrapping_sub(FRAME_TICKS)),
        (1, 30_000, 77),
        (1, 50_000, 0),
    ];
    for (ssrc, seq, timestamp) in cases {
        let sent = restart(ssrc, seq, timestamp);
        let numbers: Vec<_> = sent.iter().map(|s| (s.1.0 - 0x7ff0, s.2, s.3)).collect();
        let want: Vec<_> = (0..12).map(|n| (u64::from(n), n, n / 3)).collect();
        assert_eq!(numbers, want, "SSRC {ssrc}, number {seq}, time {timestamp}");
        // One second between the last frame before and the first one after, whatever the publisher's clock says.
        let times: Vec<_> = sent.iter().step_by(3).map(|s| s.0.timestamp).collect();
        assert_eq!(times[2].wrapping_sub(times[1]), 90_000);
        assert_eq!(times[3].wrapping_sub(times[2]), FRAME_TICKS);
    }
}

#[test]
fn a_joiner_at_the_wrap_starts_at_the_key_frame() {
    let mut relay = Relay::new();
    let timestamp = 0_u32.wrapping_sub(KEY_EVERY * FRAME_TICKS);
    let mut p = Publisher { ssrc: 1, seq: 65_535 - 180 + 1, timestamp, frames: 0, packets: 0 };
    for _ in 0..=KEY_EVERY {
        p.frame().iter().for_each(|b| relay.take(Micros(0), b).unwrap());
    }
    relay.drained();
    let mut joiner = Leg::new(OWN, &relay.feed, Micros(0));
    let Next::Send { index, header, .. } = joiner.poll(&relay.feed, true) else { panic!("nothing to send") };
    assert_eq!((header.timestamp, header.seq), (0, 0x7ff0));
    let (_, bytes) = relay.feed.ring().get(index).unwrap();
    let h = Header::parse(bytes).unwrap();
    assert_eq!(h.seq, 0);
    let marks = read_marks(&h, bytes, ExtensionIds::OURS).frame.unwrap().marks;
    assert!(marks.start && marks.independent && !marks.end);
}
