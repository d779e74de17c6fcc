//! What a feed takes, refuses, counts and asks for.

use super::*;
use crate::media::ext::{FrameMark, FrameMarks};
use crate::media::rtp::{HeaderFields, write_header};
use crate::units::WallMicros;

pub(crate) const CONFIG: FeedConfig =
    FeedConfig { clock_rate: 90_000, payload_type: 96, extensions: ExtensionIds::OURS, slots: 1024, slot_size: 2048 };

pub(crate) struct Publisher {
    pub ssrc: u32,
    pub seq: u16,
    pub frame: u32,
}

impl Publisher {
    pub(crate) fn frame(&mut self, packets: u32, key: bool) -> Vec<Vec<u8>> {
        let id = self.frame;
        self.frame += 1;
        (0..packets)
            .map(|i| {
                let marks = FrameMarks { start: i == 0, end: i + 1 == packets, independent: key, discardable: false };
                let fields = HeaderFields {
                    marker: marks.end,
                    payload_type: 96,
                    seq: self.seq,
                    timestamp: id.wrapping_mul(1500),
                    ssrc: Ssrc(self.ssrc),
                };
                self.seq = self.seq.wrapping_add(1);
                let capture = WallMicros(1_000_000 * u64::from(id)).to_ntp().to_be_bytes();
                let mut b = vec![0; 64];
                let mark = FrameMark { frame_id: id, marks }.to_bytes();
                let n = write_header(&mut b, fields, &[(1, &mark), (2, &capture)]).unwrap();
                b.truncate(n);
                b.extend_from_slice(&[7; 100]);
                b
            })
            .collect()
    }
}

#[test]
fn a_joiner_starts_at_a_fresh_key_frame_and_waits_for_the_next_one_otherwise() {
    let mut f = Feed::new(CONFIG);
    let mut p = Publisher { ssrc: 1, seq: 65_530, frame: 0 };
    for b in p.frame(2, false) {
        f.handle_packet(Micros(0), &b).unwrap();
    }
    assert_eq!(f.join_point(Micros(0), JOIN_FROM_CACHE_US), None);
    for b in p.frame(4, true) {
        f.handle_packet(Micros(10), &b).unwrap();
    }
    assert_eq!(f.join_point(Micros(10), JOIN_FROM_CACHE_US), Some(2));
    assert_eq!(f.join_point(Micros(10 + JOIN_FROM_CACHE_US + 1), JOIN_FROM_CACHE_US), None);
    assert_eq!(f.counters().missing, 0);
}

#[test]
fn key_frame_requests_are_merged_and_spaced() {
    let mut f = Feed::new(CONFIG);
    let mut p = Publisher { ssrc: 9, seq: 0, frame: 0 };
    f.handle_key_frame_request();
    assert_eq!(f.poll_key_frame_request(Micros(0)), None, "nobody publishes");
    for b in p.frame(1, false) {
        f.handle_packet(Micros(0), &b).unwrap();
    }
    let asked = (0..1_000_u64)
        .filter(|ms| {
            f.handle_key_frame_request();
            f.poll_key_frame_request(Micros(ms * 1_000)).is_some()
        })
        .count();
    assert_eq!(asked, 2, "1000 requests in a second leave as two");
}

#[test]
fn duplicates_wrong_types_and_rubbish_are_refused_and_counted() {
    let mut f = Feed::new(CONFIG);
    let mut p = Publisher { ssrc: 1, seq: 5, frame: 0 };
    let b = p.frame(1, true).remove(0);
    f.handle_packet(Micros(0), &b).unwrap();
    assert_eq!(f.handle_packet(Micros(0), &b), Err(Refused::Duplicate));
    let mut other = b.clone();
    other[1] = 100;
    assert_eq!(f.handle_packet(Micros(0), &other), Err(Refused::PayloadType(100)));
    assert!(f.handle_packet(Micros(0), &[1, 2, 3]).is_err());
    let c = f.counters();
    assert_eq!((c.packets, c.duplicates, c.refused), (1, 1, 2));
}

#[test]
fn loss_is_counted_and_taken_back_when_the_packet_comes_late() {
    let mut f = Feed::new(CONFIG);
    let mut p = Publisher { ssrc: 1, seq: 65_533, frame: 0 };
    let packets = p.frame(8, true);
    for (i, b) in packets.iter().enumerate() {
        if i != 3 && i != 4 {
            f.handle_packet(Micros(0), b).unwrap();
        }
    }
    assert_eq!(f.counters().missing, 2);
    f.handle_packet(Micros(0), &packets[3]).unwrap();
    assert_eq!(f.counters().missing, 1);
}

#[test]
fn a_publisher_that_starts_anew_is_a_new_generation() {
    let mut f = Feed::new(CONFIG);
    let mut p = Publisher { ssrc: 1, seq: 5, frame: 0 };
    f.handle_packet(Micros(0), &p.frame(1, true).remove(0)).unwrap();
    let mut q = Publisher { ssrc: 2, seq: 5, frame: 0 };
    let packets = q.frame(2, true);
    assert_eq!(f.handle_packet(Micros(1), &packets[0]), Err(Refused::Probation));
    let t = f.handle_packet(Micros(1), &packets[1]).unwrap();
    assert_eq!(f.ring().get(t.index).unwrap().0.generation, 1);
    let first = f.ring().get(t.index - 1).unwrap().0;
    assert!(first.frame.marks.start, "the packet that was kept aside is not lost");
    assert_eq!(f.counters().missing, 0);
    assert_eq!(f.join_point(Micros(1), JOIN_FROM_CACHE_US), Some(t.index - 1));
}

#[test]
fn one_stray_packet_changes_nothing() {
    let mut f = Feed::new(CONFIG);
    let mut p = Publisher { ssrc: 1, seq: 5, frame: 0 };
    f.handle_packet(Micros(0), &p.frame(1, true).remove(0)).unwrap();
    for (ssrc, seq) in [(9, 100), (1, 40_000), (9, 200)] {
        let stray = Publisher { ssrc, seq, frame: 0 }.frame(1, true).remove(0);
        assert_eq!(f.handle_packet(Micros(1), &stray), Err(Refused::Probation));
    }
    let t = f.handle_packet(Micros(2), &p.frame(1, false).remove(0)).unwrap();
    assert_eq!(f.ring().get(t.index).unwrap().0.generation, 0);
    assert_eq!(f.join_point(Micros(2), JOIN_FROM_CACHE_US), Some(0));
}

#[test]
fn sources_that_take_turns_use_one_buffer_of_a_slot() {
    let mut f = Feed::new(CONFIG);
    let mut p = Publisher { ssrc: 1, seq: 5, frame: 0 };
    f.handle_packet(Micros(0), &p.frame(1, true).remove(0)).unwrap();
    let mut buffer = None;
    for n in 0..100_u16 {
        let mut stray = Publisher { ssrc: 2 + u32::from(n % 2), seq: n * 50, frame: 0 }.frame(1, true).remove(0);
        stray.resize(200 + 10 * usize::from(n), 7);
        assert_eq!(f.handle_packet(Micros(1), &stray), Err(Refused::Probation));
        assert_eq!(f.held, stray);
        assert_eq!(*buffer.get_or_insert(f.held.as_ptr()), f.held.as_ptr());
    }
    assert_eq!(f.held.capacity(), CONFIG.slot_size);
    let mut large = Publisher { ssrc: 7, seq: 0, frame: 0 }.frame(1, true).remove(0);
    large.resize(CONFIG.slot_size + 1, 7);
    assert!(matches!(f.handle_packet(Micros(2), &large), Err(Refused::TooLarge(_))));
}

#[test]
fn a_long_outage_is_missing_in_full() {
    let mut f = Feed::new(CONFIG);
    let mut p = Publisher { ssrc: 1, seq: 5, frame: 0 };
    f.handle_packet(Micros(0), &p.frame(1, true).remove(0)).unwrap();
    p.seq += 10_000;
    for b in p.frame(2, true) {
        let _ = f.handle_packet(Micros(1), &b);
    }
    assert_eq!(f.counters().missing, 10_000);
}
