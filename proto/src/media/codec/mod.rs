//! What the RTP payload headers of a codec say about a packet's place in its picture.
//!
//! Only packets of foreign publishers are looked into, at WHIP and plain-RTP ingress ([`super::ingest`]); our own
//! publishers say the same in a header extension. Nothing here allocates, and nothing is kept from packet to packet.

mod av1;
pub(in crate::media) mod bits;
mod h264;
mod h265;
pub mod pictures;
mod vp8;
mod vp9;

/// How a payload is put into RTP packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Codec {
    /// RFC 6184.
    H264,
    /// RFC 7798.
    H265,
    /// RTP Payload Format For AV1, version 1.0.
    Av1,
    /// RFC 7741.
    Vp8,
    /// RFC 9628.
    Vp9,
    /// RFC 7587.
    Opus,
    /// Anything else: never looked into.
    Other,
}

impl Codec {
    /// From the encoding name of SDP or of a feed descriptor, in any case.
    #[must_use]
    pub fn from_encoding_name(name: &str) -> Self {
        const NAMES: [(&str, Codec); 6] = [
            ("H264", Codec::H264),
            ("H265", Codec::H265),
            ("AV1", Codec::Av1),
            ("VP8", Codec::Vp8),
            ("VP9", Codec::Vp9),
            ("opus", Codec::Opus),
        ];
        NAMES.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map_or(Self::Other, |(_, c)| *c)
    }
}

/// What one packet shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Seen {
    /// A picture can begin with this packet: it holds the first bytes of a picture or of what is sent before one
    /// (parameter sets, delimiter). Several packets of one picture may show this; the first of them is its start.
    pub start: bool,
    /// The picture can be decoded without any other, and it and all after it are whole. False also where this packet does
    /// not show it: parameter sets come before the picture that they announce, and may come before any.
    pub independent: bool,
    /// A decoder may begin with this picture, but what it shows is not whole at once, as far as this packet tells: parameter
    /// sets, or a point where gradual refresh begins.
    pub refresh: bool,
    /// No other picture needs this one.
    pub discardable: bool,
    /// Width and height in pixels, where the packet says so.
    pub size: Option<(u32, u32)>,
}

impl Seen {
    /// Takes in what a further part of the same packet shows.
    fn add(&mut self, other: Self) {
        self.start |= other.start;
        self.independent |= other.independent;
        self.refresh |= other.refresh;
        self.discardable &= other.discardable;
        self.size = other.size.or(self.size);
    }
}

/// The payload does not follow its payload format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(pub &'static str);

/// Largest width and height that is believed, in pixels (as in the feed descriptor).
const MAX_SIDE: u32 = 16_384;

/// Reads the payload headers of one packet, without RTP padding.
///
/// # Errors
/// What is wrong with the payload. Never panics; the work is linear in the payload's length.
pub fn inspect(codec: Codec, payload: &[u8]) -> Result<Seen, Malformed> {
    match codec {
        Codec::H264 => h264::inspect(payload),
        Codec::H265 => h265::inspect(payload),
        Codec::Av1 => av1::inspect(payload),
        Codec::Vp8 => vp8::inspect(payload),
        Codec::Vp9 => vp9::inspect(payload),
        Codec::Opus | Codec::Other => {
            Ok(Seen { start: true, independent: true, discardable: codec == Codec::Opus, ..Seen::default() })
        }
    }
}

/// A picture size, where it is one that can be.
fn believable(width: u32, height: u32) -> Option<(u32, u32)> {
    ((1..=MAX_SIDE).contains(&width) && (1..=MAX_SIDE).contains(&height)).then_some((width, height))
}

#[cfg(test)]
pub(crate) mod tests {
    pub(crate) use super::h264::tests::sps;
    use super::*;

    const ALL: [Codec; 7] = [Codec::H264, Codec::H265, Codec::Av1, Codec::Vp8, Codec::Vp9, Codec::Opus, Codec::Other];

    /// Marsaglia's xorshift64.
    pub(crate) struct XorShift(pub(crate) u64);

    impl XorShift {
        pub(crate) fn next(&mut self) -> u64 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            self.0
        }
    }

    #[test]
    fn encoding_names_are_found_in_any_case() {
        for (name, codec) in [("h264", Codec::H264), ("H265", Codec::H265), ("av1", Codec::Av1), ("vp8", Codec::Vp8)] {
            assert_eq!(Codec::from_encoding_name(name), codec);
        }
        assert_eq!(Codec::from_encoding_name("Vp9"), Codec::Vp9);
        assert_eq!(Codec::from_encoding_name("OPUS"), Codec::Opus);
        assert_eq!(Codec::from_encoding_name("raw"), Codec::Other);
    }

    #[test]
    fn what_is_not_looked_into_stands_by_itself() {
        let s = inspect(Codec::Opus, &[]).unwrap();
        assert!(s.start && s.independent);
        assert!(inspect(Codec::Other, &[0xff; 3]).unwrap().start);
    }

    /// Made here with x264, x265, libvpx (profile 3) and libaom.
    #[test]
    fn headers_that_encoders_write_give_the_size() {
        let cases: [(Codec, &[u8], (u32, u32)); 4] = [
            (
                Codec::H264,
                &[
                    0x67, 0x42, 0xc0, 0x28, 0xda, 0x01, 0xe0, 0x08, 0x9f, 0x97, 0x01, 0x6a, 0x02, 0x02, 0x02, 0x80,
                    0x00, 0x00, 0x03, 0x00, 0x80, 0x00, 0x00, 0x1e, 0x47, 0x8c, 0x19, 0x50,
                ],
                (1920, 1080),
            ),
            (
                Codec::H265,
                &[
                    0x42, 0x01, 0x01, 0x04, 0x08, 0x00, 0x00, 0x03, 0x00, 0x98, 0x08, 0x00, 0x00, 0x03, 0x00, 0x00,
                    0x78, 0x90, 0x00, 0x78, 0x10, 0x02, 0x20, 0xf8, 0x92, 0x94, 0xb7, 0x49, 0x49, 0x85, 0xff, 0xe0,
                    0x00, 0x20, 0x00, 0x2d, 0x40, 0x40, 0x40, 0x41, 0x00, 0x00, 0x03, 0x00, 0x01, 0x00, 0x00, 0x03,
                    0x00, 0x1e, 0x08,
                ],
                (1920, 1080),
            ),
            (
                Codec::Vp9,
                &[
                    0x08, 0xb1, 0x24, 0xc1, 0xa1, 0x48, 0x01, 0x3f, 0x80, 0xb3, 0xb0, 0x71, 0xc1, 0x20, 0xe0, 0xc5,
                    0x70, 0x80, 0x40, 0x40, 0x5f, 0xfb, 0x6f, 0xbf, 0x67,
                ],
                (640, 360),
            ),
            (
                Codec::Av1,
                &[0x18, 0x0a, 0x0b, 0x20, 0x00, 0x00, 0x0c, 0xc4, 0xff, 0x67, 0xe0, 0x6d, 0x7c, 0x81],
                (640, 360),
            ),
        ];
        for (codec, payload, size) in cases {
            let seen = inspect(codec, payload).unwrap();
            // Parameter sets by themselves are no picture.
            let parameters = matches!(codec, Codec::H264 | Codec::H265);
            let want = (Some(size), true, !parameters, parameters);
            assert_eq!((seen.size, seen.start, seen.independent, seen.refresh), want, "{codec:?}");
        }
    }

    #[test]
    fn no_short_byte_string_is_a_panic() {
        for codec in ALL {
            assert!(inspect(codec, &[]).is_ok() == matches!(codec, Codec::Opus | Codec::Other));
            for first in 0..=255_u8 {
                let _ = inspect(codec, &[first]);
                for second in 0..=255_u8 {
                    let _ = inspect(codec, &[first, second]);
                    for fill in [0x00, 0x01, 0x7f, 0x80, 0xff] {
                        let _ = inspect(codec, &[first, second, fill, fill, fill, fill]);
                    }
                }
            }
        }
    }

    #[test]
    fn no_random_byte_string_is_a_panic_and_no_size_is_out_of_range() {
        let mut x = XorShift(0x9e37_79b9_7f4a_7c15);
        let mut b = [0_u8; 96];
        for round in 0..60_000_u32 {
            let len = (x.next() % 96) as usize;
            // Many zeros make long exponential-Golomb codes, many ones make long LEB128 numbers.
            let mask = [0xff, 0x0f, 0x01, 0x81][(round % 4) as usize];
            for v in &mut b[..len] {
                *v = (x.next() >> 32) as u8 & mask;
            }
            // The first byte decides how far a parser comes.
            if len > 0 {
                b[0] = (round >> 2) as u8;
            }
            for codec in ALL {
                if let Ok(Seen { size: Some((w, h)), .. }) = inspect(codec, &b[..len]) {
                    assert!((1..=MAX_SIDE).contains(&w) && (1..=MAX_SIDE).contains(&h), "{codec:?} {w}x{h}");
                }
            }
        }
    }
}
