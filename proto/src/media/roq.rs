//! RTP over QUIC in datagrams (draft-ietf-avtcore-rtp-over-quic-14): a flow identifier, then one RTP or RTCP packet.

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
    /// Something of the sender's own went wrong.
    pub const INTERNAL_ERROR: u32 = 2;
    /// A packet that is not RTP or RTCP.
    pub const PACKET_ERROR: u32 = 3;
    /// A stream was used in a way that the draft does not know.
    pub const STREAM_CREATION_ERROR: u32 = 4;
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

#[cfg(test)]
mod tests {
    use super::*;

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
