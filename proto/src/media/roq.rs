//! RTP over QUIC (draft-ietf-avtcore-rtp-over-quic-14). A datagram is a flow identifier, then one RTP or RTCP packet. A stream
//! is a flow identifier, then packets with their lengths before them.

use super::bytes::{be16, be32, be64};
use crate::units::FlowId;

/// The ALPN token of the draft that we speak.
pub const ALPN: &[u8] = b"roq-14";
/// Largest RTP packet that our own publishers make, in bytes: one fits a QUIC datagram at the initial MTU.
pub const MAX_RTP_PACKET: usize = 1_120;
/// Application error codes of the draft's section on error handling.
pub mod error_code {
    /// Closing without an error.
    pub const NO_ERROR: u32 = 0;
    /// Something that no other code says.
    pub const GENERAL_ERROR: u32 = 1;
    /// Something of the sender's own went wrong.
    pub const INTERNAL_ERROR: u32 = 2;
    /// A packet that is not RTP or RTCP.
    pub const PACKET_ERROR: u32 = 3;
    /// A stream was used in a way that the draft does not know.
    pub const STREAM_CREATION_ERROR: u32 = 4;
    /// A stream was cancelled: its frame would come too late.
    pub const FRAME_CANCELLED: u32 = 5;
    /// A flow identifier that was not agreed on.
    pub const UNKNOWN_FLOW_ID: u32 = 6;
}

/// A flow identifier as a QUIC variable-length integer (RFC 9000 section 16).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FlowPrefix {
    bytes: [u8; 8],
    len: u8,
}

impl FlowPrefix {
    /// The shortest encoding; none above 2^62 − 1.
    #[must_use]
    pub fn new(flow: FlowId) -> Option<Self> {
        let v = flow.0;
        let (value, len) = match v {
            0..=0x3f => (v << 56, 1),
            0x40..=0x3fff => ((v | 0x4000) << 48, 2),
            0x4000..=0x3fff_ffff => ((v | 0x8000_0000) << 32, 4),
            0x4000_0000..=0x3fff_ffff_ffff_ffff => (v | 0xc000_0000_0000_0000, 8),
            _ => return None,
        };
        Some(Self { bytes: value.to_be_bytes(), len })
    }

    /// The bytes that go before the packet.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or(&[])
    }
}

/// Splits a datagram into its flow and the RTP or RTCP packet; none where it is empty or truncated.
#[must_use]
pub fn split(datagram: &[u8]) -> Option<(FlowId, &[u8])> {
    let first = *datagram.first()?;
    let (value, len) = match first >> 6 {
        0 => (u64::from(first), 1),
        1 => (u64::from(be16(datagram, 0)? & 0x3fff), 2),
        2 => (u64::from(be32(datagram, 0)? & 0x3fff_ffff), 4),
        _ => (be64(datagram, 0)? & 0x3fff_ffff_ffff_ffff, 8),
    };
    Some((FlowId(value), datagram.get(len..)?))
}

/// Longest packet that a stream may carry, in bytes: what fits a slot of a feed's ring.
pub const MAX_STREAM_PACKET: usize = 2_048;

/// Appends a packet as streams carry it: its length as a variable-length integer, then the packet.
pub fn put_on_stream(out: &mut Vec<u8>, packet: &[u8]) {
    // A length is encoded like a flow identifier; one of a packet in memory is always below 2^62.
    if let Some(len) = FlowPrefix::new(FlowId(packet.len() as u64)) {
        out.extend_from_slice(len.as_bytes());
        out.extend_from_slice(packet);
    }
}

/// The priority of a frame's stream among those of its connection, for a frame's place in the order of sending: the older
/// frame goes first, since its deadline comes first. Begins anew every 2^31 frames.
#[must_use]
pub const fn stream_priority(frame: u64) -> i32 {
    (0x7fff_ffff - (frame & 0x7fff_ffff)) as i32
}

/// A stream that cannot be read on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a packet of {len} bytes is longer than {MAX_STREAM_PACKET} bytes")]
pub struct StreamPacketTooLong {
    /// What its length says, in bytes.
    pub len: u64,
}

/// The receiving end of one stream: bytes in, packets out. Holds at most one packet and what came with its end.
#[derive(Debug, Default)]
pub struct StreamReader {
    flow: Option<FlowId>,
    bytes: Vec<u8>,
    read: usize,
}

impl StreamReader {
    /// Takes what the stream delivered next. To be followed by [`Self::poll_packet`] until that gives none.
    pub fn handle_bytes(&mut self, bytes: &[u8]) {
        self.bytes.drain(..self.read.min(self.bytes.len()));
        self.read = 0;
        self.bytes.extend_from_slice(bytes);
    }

    /// The next whole packet and its flow.
    ///
    /// # Errors
    /// [`StreamPacketTooLong`]; the stream is of no more use then.
    pub fn poll_packet(&mut self) -> Result<Option<(FlowId, &[u8])>, StreamPacketTooLong> {
        let rest = self.bytes.get(self.read..).unwrap_or(&[]);
        let flow = match self.flow {
            Some(flow) => flow,
            None => {
                let Some((flow, after)) = split(rest) else { return Ok(None) };
                self.read += rest.len() - after.len();
                *self.flow.insert(flow)
            }
        };
        let rest = self.bytes.get(self.read..).unwrap_or(&[]);
        let Some((FlowId(len), body)) = split(rest) else { return Ok(None) };
        let size = usize::try_from(len).ok().filter(|l| *l <= MAX_STREAM_PACKET).ok_or(StreamPacketTooLong { len })?;
        let Some(packet) = body.get(..size) else { return Ok(None) };
        self.read += rest.len() - body.len() + size;
        Ok(Some((flow, packet)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_of_a_stream_come_out_whole_however_it_is_cut() {
        let mut stream = FlowPrefix::new(FlowId(300)).unwrap().as_bytes().to_vec();
        let packets = [vec![1_u8; 40], vec![2; 1_300], vec![], vec![3; 70]];
        packets.iter().for_each(|p| put_on_stream(&mut stream, p));
        for cut in [1, 2, 7, 64, 5_000] {
            let mut reader = StreamReader::default();
            let mut out = Vec::new();
            for piece in stream.chunks(cut) {
                reader.handle_bytes(piece);
                while let Some((flow, p)) = reader.poll_packet().unwrap() {
                    assert_eq!(flow, FlowId(300));
                    out.push(p.to_vec());
                }
            }
            assert_eq!(out, packets, "in pieces of {cut}");
        }
    }

    #[test]
    fn older_frames_go_first() {
        assert!(stream_priority(0) > stream_priority(1) && stream_priority(1 << 20) > stream_priority((1 << 20) + 1));
        assert_eq!(stream_priority(0x7fff_ffff), 0);
    }

    #[test]
    fn a_length_that_no_packet_has_ends_the_stream_before_anything_is_kept() {
        let mut reader = StreamReader::default();
        reader.handle_bytes(&[0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
        assert_eq!(reader.poll_packet(), Err(StreamPacketTooLong { len: (1 << 62) - 1 }));
    }

    #[test]
    fn flow_identifiers_round_trip_at_the_edges_of_each_length() {
        for (v, len) in
            [(0, 1), (63, 1), (64, 2), (16_383, 2), (16_384, 4), ((1 << 30) - 1, 4), (1 << 30, 8), ((1 << 62) - 1, 8)]
        {
            let p = FlowPrefix::new(FlowId(v)).unwrap();
            assert_eq!(p.as_bytes().len(), len);
            let mut d = p.as_bytes().to_vec();
            d.push(0x80);
            assert_eq!(split(&d), Some((FlowId(v), &[0x80_u8][..])));
        }
        assert_eq!(FlowPrefix::new(FlowId(1 << 62)), None);
    }

    #[test]
    fn the_sample_of_rfc_9000_appendix_a_decodes() {
        assert_eq!(
            split(&[0xc2, 0x19, 0x7c, 0x5e, 0xff, 0x14, 0xe8, 0x8c]),
            Some((FlowId(151_288_809_941_952_652), &[][..]))
        );
        assert_eq!(split(&[0x7b, 0xbd]), Some((FlowId(15_293), &[][..])));
        assert_eq!(split(&[]), None);
        assert_eq!(split(&[0xc2, 0x19]), None);
    }
}
