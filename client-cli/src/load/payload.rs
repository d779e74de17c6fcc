//! What the packets of a load test carry: which frame and packet of which feed it is, when it was captured, bytes that follow
//! from these, and a checksum over all. No decoder shows it; the payload headers are right, so that relays and WebRTC stacks
//! take it for what its descriptor says.
//!
//! | bytes | field |
//! | --- | --- |
//! | 0– | payload header of the codec: 2 (H.264: FU-A, RFC 6184 section 5.8), 3 (H.265: FU, RFC 7798 section 4.4.3), 0 (opaque) |
//! | +0 | 0x80: a slice that begins a picture |
//! | +1 | version, 1 |
//! | +2 | packets of the frame, 16 bits |
//! | +4 | packet index in the frame, 16 bits |
//! | +6 | 0 |
//! | +8 | feed, 64 bits: digest of run and name |
//! | +16 | frame id, 32 bits |
//! | +20 | checksum, 32 bits, over everything from +0 with these at 0 |
//! | +24 | capture time, microseconds since the Unix epoch on the clock of the test, 64 bits |
//! | +32– | filler, made from feed, frame and index |

use serde::{Deserialize, Serialize};
use trocar_proto::media::bytes::{be16, be32, be64, put};
use trocar_proto::media::roq::MAX_RTP_PACKET;
use trocar_proto::media::rtp::{FIXED_HEADER, HeaderFields, write_header};
use trocar_proto::units::{Ssrc, WallMicros};
use twox_hash::XxHash3_128;

/// RTP clock rate in Hz.
pub(super) const CLOCK_RATE: u32 = 90_000;
/// Payload type of the feeds.
pub(super) const PAYLOAD_TYPE: u8 = 96;
/// Bytes of header extensions that the sender puts in.
const EXTENSIONS: usize = 20;
/// Largest payload in bytes.
pub(super) const MAX_PAYLOAD: usize = MAX_RTP_PACKET - FIXED_HEADER - EXTENSIONS;
/// Bytes behind the payload header that are there at least.
const FIXED: usize = 32;
/// Smallest payload in bytes.
pub(super) const MIN_PAYLOAD: usize = FIXED + 3;
const VERSION: u8 = 1;
const CHECKSUM_AT: usize = 20;

/// What the feeds say that they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, clap::ValueEnum)]
pub(crate) enum Codec {
    /// Fragments of H.264 slices.
    #[default]
    #[serde(rename = "H264")]
    #[value(name = "H264", alias = "h264")]
    H264,
    /// Fragments of H.265 slices.
    #[serde(rename = "H265")]
    #[value(name = "H265", alias = "h265")]
    H265,
    /// A name that no browser has: between native ends.
    #[serde(rename = "opaque")]
    #[value(name = "opaque")]
    Opaque,
}

impl Codec {
    /// Encoding name for a descriptor.
    pub(super) const fn encoding_name(self) -> &'static str {
        match self {
            Self::H264 => "H264",
            Self::H265 => "H265",
            Self::Opaque => "x-trocar-load",
        }
    }

    /// Format parameters for a descriptor.
    pub(super) const fn fmtp(self) -> &'static str {
        match self {
            Self::H264 => "packetization-mode=1;profile-level-id=42e01f",
            Self::H265 | Self::Opaque => "",
        }
    }

    const fn header_len(self) -> usize {
        match self {
            Self::H264 => 2,
            Self::H265 => 3,
            Self::Opaque => 0,
        }
    }

    /// The payload header of one packet.
    fn put_header(self, out: &mut [u8], start: bool, end: bool, key: bool) -> bool {
        let bits = u8::from(start) << 7 | u8::from(end) << 6;
        match self {
            // Type 28 in FU-A; 5 is a slice of an IDR picture, 1 one that others are needed for.
            Self::H264 => put(out, 0, &[0x7c, bits | if key { 5 } else { 1 }]),
            // Type 49 in the fragmentation unit; 19 is IDR_W_RADL, 1 TRAIL_R.
            Self::H265 => put(out, 0, &[49 << 1, 1, bits | if key { 19 } else { 1 }]),
            Self::Opaque => true,
        }
    }
}

/// What a packet says about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Proof {
    /// [`tag`] of its feed.
    pub(super) feed: u64,
    /// Frame id.
    pub(super) frame: u32,
    /// Its place in the frame.
    pub(super) index: u16,
    /// Packets of the frame.
    pub(super) of: u16,
    /// When it was captured, on the clock of the test.
    pub(super) capture: WallMicros,
}

/// Which feed of which run.
pub(super) fn tag(run: u64, feed: &str) -> u64 {
    (XxHash3_128::oneshot_with_seed(run, feed.as_bytes()) & u128::from(u64::MAX)) as u64
}

/// What an RTP header says beside its constants.
#[derive(Debug, Clone, Copy)]
pub(super) struct Head {
    pub(super) seq: u16,
    pub(super) timestamp: u32,
    pub(super) ssrc: Ssrc,
}

/// Makes the RTP packet (without header extensions) of a proof, with a payload of `len` bytes.
pub(super) fn packet(codec: Codec, p: Proof, key: bool, head: Head, len: usize) -> Vec<u8> {
    let mut out = vec![0; FIXED_HEADER + len.clamp(MIN_PAYLOAD, MAX_PAYLOAD)];
    let last = p.index + 1 == p.of;
    let Head { seq, timestamp, ssrc } = head;
    let fields = HeaderFields { marker: last, payload_type: PAYLOAD_TYPE, seq, timestamp, ssrc };
    let written = write_header(&mut out, fields, &[]);
    debug_assert_eq!(written, Ok(FIXED_HEADER));
    let (_, payload) = out.split_at_mut(FIXED_HEADER);
    let headed = codec.put_header(payload, p.index == 0, last, key);
    let (_, body) = payload.split_at_mut(codec.header_len());
    let whole = headed
        && put(body, 0, &[0x80, VERSION])
        && put(body, 2, &p.of.to_be_bytes())
        && put(body, 4, &p.index.to_be_bytes())
        && put(body, 8, &p.feed.to_be_bytes())
        && put(body, 16, &p.frame.to_be_bytes())
        && put(body, 24, &p.capture.0.to_be_bytes());
    debug_assert!(whole, "a payload of {len} bytes");
    fill(body.get_mut(FIXED..).unwrap_or(&mut []), p);
    let sum = checksum(body).to_be_bytes();
    let summed = put(body, CHECKSUM_AT, &sum);
    debug_assert!(summed);
    out
}

/// RTP media time of a capture time: the clock of all feeds begins with the epoch.
pub(super) fn timestamp(capture: WallMicros) -> u32 {
    ((u128::from(capture.0) * u128::from(CLOCK_RATE) / 1_000_000) & 0xffff_ffff) as u32
}

/// Bytes that follow from feed, frame and index (Steele's and Vigna's splitmix64).
fn fill(out: &mut [u8], p: Proof) {
    let mut state = p.feed ^ u64::from(p.frame) << 16 ^ u64::from(p.index);
    for chunk in out.chunks_mut(8) {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let a = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let b = (a ^ (a >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let bytes = (b ^ (b >> 31)).to_le_bytes();
        chunk.iter_mut().zip(bytes).for_each(|(to, from)| *to = from);
    }
}

/// Over the body but its own four bytes.
fn checksum(body: &[u8]) -> u32 {
    let before = body.get(..CHECKSUM_AT).unwrap_or(&[]);
    let seed = (XxHash3_128::oneshot(before) & u128::from(u64::MAX)) as u64;
    let sum = XxHash3_128::oneshot_with_seed(seed, body.get(CHECKSUM_AT + 4..).unwrap_or(&[]));
    (sum & 0xffff_ffff) as u32
}

/// Why a payload proves nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Broken {
    /// Bytes are others than were sent. What it says about itself may be wrong; a best guess.
    Corrupt(Proof),
    /// Too short, or of another kind.
    NoProof,
}

/// Reads a payload and checks every byte of it.
///
/// # Errors
/// [`Broken`].
pub(super) fn read(codec: Codec, payload: &[u8]) -> Result<Proof, Broken> {
    let body = payload.get(codec.header_len()..).filter(|b| b.len() >= FIXED).ok_or(Broken::NoProof)?;
    let proof = parse(body).ok_or(Broken::NoProof)?;
    let right = body.get(1) == Some(&VERSION) && be32(body, CHECKSUM_AT) == Some(checksum(body));
    if right { Ok(proof) } else { Err(Broken::Corrupt(proof)) }
}

fn parse(body: &[u8]) -> Option<Proof> {
    Some(Proof {
        of: be16(body, 2)?,
        index: be16(body, 4)?,
        feed: be64(body, 8)?,
        frame: be32(body, 16)?,
        capture: WallMicros(be64(body, 24)?),
    })
}

/// Turns one bit of a packet's filler, so that nothing but the checksum tells.
pub(super) fn corrupt(packet: &mut [u8]) {
    if let Some(last) = packet.last_mut() {
        *last ^= 0x10;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use trocar_proto::media::codec::{Codec as Known, inspect};
    use trocar_proto::media::rtp::Header;

    const PROOF: Proof =
        Proof { feed: 0x0123_4567_89ab_cdef, frame: 77, index: 1, of: 3, capture: WallMicros(1_790_000_000_123_456) };

    fn payload(codec: Codec, p: Proof, key: bool) -> Vec<u8> {
        let packet = packet(codec, p, key, Head { seq: 9, timestamp: 7, ssrc: Ssrc(5) }, MAX_PAYLOAD);
        let h = Header::parse(&packet).unwrap();
        assert_eq!((h.seq, h.marker, h.payload_type, h.ssrc), (9, p.index + 1 == p.of, PAYLOAD_TYPE, Ssrc(5)));
        h.payload(&packet).to_vec()
    }

    #[test]
    fn a_packet_says_what_it_is_and_every_bit_that_turns_is_noticed() {
        for codec in [Codec::H264, Codec::H265, Codec::Opaque] {
            let whole = payload(codec, PROOF, true);
            assert_eq!((whole.len(), read(codec, &whole)), (MAX_PAYLOAD, Ok(PROOF)));
            for at in codec.header_len()..whole.len() {
                let mut broken = whole.clone();
                broken[at] ^= 1 << (at % 8);
                assert!(read(codec, &broken).is_err(), "byte {at}");
            }
            assert_eq!(read(codec, &whole[..FIXED - 1]), Err(Broken::NoProof));
            assert!(read(codec, &whole[..whole.len() - 1]).is_err(), "cut short");
        }
    }

    #[test]
    fn a_corrupted_packet_is_still_named() {
        let mut packet = packet(Codec::H264, PROOF, false, Head { seq: 9, timestamp: 7, ssrc: Ssrc(5) }, 600);
        corrupt(&mut packet);
        assert_eq!(read(Codec::H264, &packet[FIXED_HEADER..]), Err(Broken::Corrupt(PROOF)));
    }

    #[test]
    fn payload_headers_are_taken_for_the_beginning_of_key_frames_and_of_others() {
        for (codec, known) in [(Codec::H264, Known::H264), (Codec::H265, Known::H265)] {
            for key in [true, false] {
                let seen = inspect(known, &payload(codec, Proof { index: 0, ..PROOF }, key)).unwrap();
                assert_eq!((seen.start, seen.independent), (true, key), "{codec:?}");
            }
        }
    }

    #[test]
    fn no_two_packets_and_no_two_feeds_are_alike() {
        let a = payload(Codec::H264, PROOF, true);
        let others =
            [Proof { frame: 78, ..PROOF }, Proof { index: 2, ..PROOF }, Proof { feed: tag(1, "load-0"), ..PROOF }];
        assert!(others.iter().all(|p| payload(Codec::H264, *p, true)[FIXED + 2..] != a[FIXED + 2..]));
        assert!(tag(1, "load-0") != tag(1, "load-1") && tag(1, "load-0") != tag(2, "load-0"));
    }
}
