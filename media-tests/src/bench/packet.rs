//! The packets of the generator: H.264-like, marked as our publishers mark them, with a number and the time of sending in
//! the payload.

use rustix::time::{ClockId, clock_gettime};
use trocar_proto::media::bytes::{be64, put};
use trocar_proto::media::ext::{ExtensionIds, FrameMark, FrameMarks};
use trocar_proto::media::rtp::{HeaderFields, write_header};
use trocar_proto::units::{Ssrc, WallMicros};

/// Bytes of an RTP packet on its way in, header and extensions included.
pub const PACKET: usize = 1_100;
/// Bytes of its header: fixed header, extension header, frame mark, capture time.
pub const HEADER: usize = 32;
/// Bytes of its payload.
pub const PAYLOAD: usize = PACKET - HEADER;
/// Payload type of the feed.
pub const PAYLOAD_TYPE: u8 = 96;
/// Synchronization source of the stream.
pub const SOURCE: Ssrc = Ssrc(0x0bec_0001);
/// RTP clock rate in Hz.
pub const CLOCK_RATE: u32 = 90_000;
/// Frames per second.
pub const FRAME_RATE: u64 = 60;
/// A key frame comes once a second.
pub const KEY_EVERY: u32 = 60;
/// Where the probe stands in the payload: behind the two bytes of a fragmentation unit (RFC 6184 section 5.8).
const PROBE_AT: usize = 2;

/// What a packet says about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Probe {
    /// Counts packets from 0.
    pub number: u64,
    /// When it was handed to the network, in nanoseconds of the monotonic clock, which all processes share.
    pub sent_ns: u64,
}

impl Probe {
    /// Reads it from a payload that is not encrypted.
    #[must_use]
    pub fn read(payload: &[u8]) -> Option<Self> {
        Some(Self { number: be64(payload, PROBE_AT)?, sent_ns: be64(payload, PROBE_AT + 8)? })
    }
}

/// Nanoseconds of the monotonic clock.
#[must_use]
pub fn monotonic_ns() -> u64 {
    let t = clock_gettime(ClockId::Monotonic);
    u64::try_from(t.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(t.tv_nsec).unwrap_or(0)
}

/// Makes packet after packet.
#[derive(Debug)]
pub struct Maker {
    packet: [u8; PACKET],
    number: u64,
    frame: u32,
    /// Packets of the present frame that are made, and those that it has.
    place: (u32, u32),
}

impl Maker {
    /// Frames of that many packets each.
    #[must_use]
    pub fn new(packets_per_frame: u32) -> Self {
        let mut packet = [0; PACKET];
        // No zeros and no start codes: nothing that a codec parser would stop at.
        packet.iter_mut().enumerate().for_each(|(i, b)| *b = (i % 251) as u8 | 1);
        Self { packet, number: 0, frame: 0, place: (0, packets_per_frame.max(1)) }
    }

    /// Number of the packet that comes next: how many were made.
    #[must_use]
    pub const fn made(&self) -> u64 {
        self.number
    }

    /// The next packet, sent at `now_ns` of the monotonic clock and captured at `capture`.
    pub fn next(&mut self, now_ns: u64, capture: WallMicros) -> &[u8; PACKET] {
        let (index, of) = self.place;
        let (start, end, key) = (index == 0, index + 1 == of, self.frame.is_multiple_of(KEY_EVERY));
        let marks = FrameMarks { start, end, independent: key, discardable: false };
        let mark = FrameMark { frame_id: self.frame, marks }.to_bytes();
        let fields = HeaderFields {
            marker: end,
            payload_type: PAYLOAD_TYPE,
            seq: (self.number & 0xffff) as u16,
            timestamp: self.frame.wrapping_mul(CLOCK_RATE / 60),
            ssrc: SOURCE,
        };
        let ids = ExtensionIds::OURS;
        let capture = capture.to_ntp().to_be_bytes();
        let written = write_header(&mut self.packet, fields, &[(ids.frame, &mark), (ids.abs_capture_time, &capture)]);
        debug_assert_eq!(written, Ok(HEADER));
        // FU-A of a slice, of an IDR picture where the frame is a key frame.
        let unit = [0x7c, u8::from(start) << 7 | u8::from(end) << 6 | if key { 5 } else { 1 }];
        let whole = put(&mut self.packet, HEADER, &unit)
            && put(&mut self.packet, HEADER + PROBE_AT, &self.number.to_be_bytes())
            && put(&mut self.packet, HEADER + PROBE_AT + 8, &now_ns.to_be_bytes());
        debug_assert!(whole);
        self.number += 1;
        self.place.0 = index + 1;
        if end {
            self.frame = self.frame.wrapping_add(1);
            self.place.0 = 0;
        }
        &self.packet
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use trocar_proto::media::ext::read_marks;
    use trocar_proto::media::rtp::Header;

    #[test]
    fn packets_are_numbered_marked_and_say_when_they_were_sent() {
        let mut maker = Maker::new(3);
        for n in 0..200_u64 {
            let packet = *maker.next(n * 1_000, WallMicros(1_790_000_000_000_000));
            let h = Header::parse(&packet).unwrap();
            assert_eq!((h.payload_offset, h.payload(&packet).len(), u64::from(h.seq)), (HEADER, PAYLOAD, n));
            assert_eq!(Probe::read(h.payload(&packet)), Some(Probe { number: n, sent_ns: n * 1_000 }));
            let mark = read_marks(&h, &packet, ExtensionIds::OURS).frame.unwrap();
            assert_eq!(u64::from(mark.frame_id), n / 3);
            assert_eq!((mark.marks.start, mark.marks.end, h.marker), (n % 3 == 0, n % 3 == 2, n % 3 == 2));
            assert_eq!(mark.marks.independent, (n / 3).is_multiple_of(60));
        }
    }
}
