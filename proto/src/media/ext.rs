//! The header extensions that the house reads and writes.
//!
//! | URI | bytes | meaning |
//! | --- | --- | --- |
//! | [`FRAME_URI`] | 5 | frame id, u32, then one byte of marks in the places of RFC 9626's short form: start, end, independent, discardable |
//! | [`ABS_CAPTURE_TIME_URI`] | 8 or 16 | capture time as UQ32.32 NTP; with 16, the estimated offset of the capture clock follows |
//! | [`PLAYOUT_DELAY_URI`] | 3 | minimum and maximum playout delay, 12 bits each, in units of 10 ms |

use super::bytes::{be16, be32, be64, put};
use super::rtp::Header;
use crate::units::WallMicros;

/// Frame id and frame marks: ours.
pub const FRAME_URI: &str = "urn:x-trocar:rtp-hdrext:frame";
/// Absolute capture time, as WebRTC implementations name it.
pub const ABS_CAPTURE_TIME_URI: &str = "http://www.webrtc.org/experiments/rtp-hdrext/abs-capture-time";
/// Bytes of the longer form of absolute capture time.
pub const ABS_CAPTURE_TIME_LONG: usize = 16;
/// Playout delay, as WebRTC implementations name it.
pub const PLAYOUT_DELAY_URI: &str = "http://www.webrtc.org/experiments/rtp-hdrext/playout-delay";
/// Transport-wide sequence number, two bytes ([`super::twcc`]).
pub const TRANSPORT_CC_URI: &str = "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01";
/// Bytes of that number.
pub const TRANSPORT_CC_LEN: usize = 2;
/// Which m-line a packet belongs to (RFC 9143).
pub const MID_URI: &str = "urn:ietf:params:rtp-hdrext:sdes:mid";
/// Which simulcast layer a packet belongs to (RFC 8852).
pub const RID_URI: &str = "urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id";
/// Which simulcast layer a repair packet repairs (RFC 8852).
pub const REPAIRED_RID_URI: &str = "urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id";
/// How loud a packet's sound is, one byte (RFC 6464; [`super::voices::AudioLevel`]).
pub const AUDIO_LEVEL_URI: &str = "urn:ietf:params:rtp-hdrext:ssrc-audio-level";
/// How a frame depends on others, for codecs whose payload need not be read (AV1 RTP specification, appendix A;
/// [`super::dd`]).
pub const DEPENDENCY_DESCRIPTOR_URI: &str =
    "https://aomediacodec.github.io/av1-rtp-spec/#dependency-descriptor-rtp-header-extension";

/// Marks of a packet's place in its frame (bits of RFC 9626 section 3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FrameMarks {
    /// First packet of the frame.
    pub start: bool,
    /// Last packet of the frame.
    pub end: bool,
    /// The frame can be decoded without any other.
    pub independent: bool,
    /// No other frame needs this one.
    pub discardable: bool,
}

/// Which frame a packet belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FrameMark {
    /// Counter per source, wrapping.
    pub frame_id: u32,
    /// The packet's place in it.
    pub marks: FrameMarks,
}

impl FrameMark {
    /// The five bytes of the element.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; 5] {
        let [a, b, c, d] = self.frame_id.to_be_bytes();
        let m = self.marks;
        let bits =
            ((m.start as u8) << 7) | ((m.end as u8) << 6) | ((m.independent as u8) << 5) | ((m.discardable as u8) << 4);
        [a, b, c, d, bits]
    }

    /// From the bytes of the element; none where there are fewer than five.
    #[must_use]
    pub fn from_bytes(b: &[u8]) -> Option<Self> {
        let bits = *b.get(4)?;
        let marks = FrameMarks {
            start: bits & 0x80 != 0,
            end: bits & 0x40 != 0,
            independent: bits & 0x20 != 0,
            discardable: bits & 0x10 != 0,
        };
        Some(Self { frame_id: be32(b, 0)?, marks })
    }
}

/// The ids that a feed's descriptor gives to the extensions of the house; 0 means not in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ExtensionIds {
    /// Id of [`FRAME_URI`].
    pub frame: u8,
    /// Id of [`ABS_CAPTURE_TIME_URI`].
    pub abs_capture_time: u8,
    /// Id of [`AUDIO_LEVEL_URI`].
    pub audio_level: u8,
    /// Id of [`DEPENDENCY_DESCRIPTOR_URI`].
    pub dependency_descriptor: u8,
}

impl ExtensionIds {
    /// The ids our own publishers use.
    pub const OURS: Self = Self { frame: 1, abs_capture_time: 2, audio_level: 3, dependency_descriptor: 4 };
}

/// What a packet's extensions say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Marks {
    /// Frame id and marks.
    pub frame: Option<FrameMark>,
    /// Capture time on the publisher's clock.
    pub capture: Option<WallMicros>,
}

/// Reads the extensions of the house from a packet.
#[must_use]
pub fn read_marks(h: &Header, packet: &[u8], ids: ExtensionIds) -> Marks {
    let mut out = Marks::default();
    for (id, data) in h.extensions(packet) {
        if id == ids.frame && ids.frame != 0 {
            out.frame = FrameMark::from_bytes(data);
        } else if id == ids.abs_capture_time && ids.abs_capture_time != 0 {
            out.capture = be64(data, 0).map(WallMicros::from_ntp);
        }
    }
    out
}

/// The data of the first element with that id; none where there is none, or `id` is 0.
#[must_use]
pub fn element<'a>(h: &Header, packet: &'a [u8], id: u8) -> Option<&'a [u8]> {
    h.extensions(packet).find(|(i, _)| *i == id && id != 0).map(|(_, data)| data)
}

/// Capture time as it is sent on by somebody with another clock: `element` is what came (8 or 16 bytes), `offset` the
/// sender's clock minus ours in units of 2^-32 s, as
/// [`super::lipsync`] finds it. Returns the new element and its length: 16 bytes where that is known, else 8 as they came.
/// None where `element` is no capture time.
#[must_use]
pub fn forward_capture_time(element: &[u8], offset: Option<i64>) -> Option<([u8; 16], usize)> {
    let mut out = [0; 16];
    let known = be64(element, 0).filter(|_| matches!(element.len(), 8 | 16))?;
    // Without an offset of its own the capture clock is the sender's.
    let own = be64(element, 8).map_or(0, u64::cast_signed);
    let ok = put(&mut out, 0, &known.to_be_bytes());
    match offset {
        Some(offset) => (ok && put(&mut out, 8, &own.wrapping_add(offset).to_be_bytes())).then_some((out, 16)),
        None => ok.then_some((out, 8)),
    }
}

/// The transport-wide sequence number of a packet (`id` of [`TRANSPORT_CC_URI`]); none where it has none.
#[must_use]
pub fn transport_sequence(h: &Header, packet: &[u8], id: u8) -> Option<u16> {
    h.extensions(packet).find(|(i, _)| *i == id).and_then(|(_, data)| be16(data, 0))
}

/// The three bytes of a playout-delay element. `min_ms` and `max_ms` are rounded down to 10 ms and end at 40,950 ms.
#[must_use]
pub fn playout_delay(min_ms: u16, max_ms: u16) -> [u8; 3] {
    let min = u32::from(min_ms / 10).min(0xfff);
    let max = u32::from(max_ms / 10).min(0xfff);
    let [_, a, b, c] = ((min << 12) | max).to_be_bytes();
    [a, b, c]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frame_mark_round_trips_in_every_combination() {
        for bits in 0..16_u8 {
            let marks = FrameMarks {
                start: bits & 8 != 0,
                end: bits & 4 != 0,
                independent: bits & 2 != 0,
                discardable: bits & 1 != 0,
            };
            let m = FrameMark { frame_id: 0xfedc_ba98, marks };
            assert_eq!(FrameMark::from_bytes(&m.to_bytes()), Some(m));
        }
        assert_eq!(FrameMark::from_bytes(&[0; 4]), None);
    }

    #[test]
    fn capture_time_goes_on_with_the_offset_of_its_clock_to_ours() {
        let at = 0x1234_5678_9abc_def0_u64;
        let short = at.to_be_bytes();
        assert_eq!(forward_capture_time(&short, None).map(|(b, n)| b[..n].to_vec()), Some(short.to_vec()));
        let (b, n) = forward_capture_time(&short, Some(-5)).unwrap();
        assert_eq!((n, be64(&b, 0), be64(&b, 8)), (16, Some(at), Some((-5_i64).cast_unsigned())));
        let long = [short, 7_i64.to_be_bytes()].concat();
        let (b, n) = forward_capture_time(&long, Some(-5)).unwrap();
        assert_eq!((n, be64(&b, 8)), (16, Some(2)));
        for n in [0, 7, 9, 15] {
            assert_eq!(forward_capture_time(&long[..n], None), None);
        }
    }

    #[test]
    fn playout_delay_packs_two_twelve_bit_numbers() {
        assert_eq!(playout_delay(0, 0), [0, 0, 0]);
        assert_eq!(playout_delay(100, 40_950), [0x00, 0xaf, 0xff]);
    }
}
