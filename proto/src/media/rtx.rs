//! Retransmission in a stream of its own (RFC 4588): back to the packet that was lost.

use super::bytes::{be16, put};
use super::rtp::{FIXED_HEADER, Header};
use crate::units::Ssrc;

/// Writes the original of a retransmission packet to `out` and returns its length: its own number is the first two bytes of
/// the payload (section 4), marker, timestamp, contributing sources and header extensions are as they came, padding goes.
/// None for a packet that carries no original (senders probe the line with padding), and where `out` is too small.
#[must_use]
pub fn decapsulate(
    h: &Header,
    packet: &[u8],
    media_ssrc: Ssrc,
    media_payload_type: u8,
    out: &mut [u8],
) -> Option<usize> {
    let payload = h.payload(packet);
    let original_seq = be16(payload, 0)?;
    let rest = payload.get(2..).filter(|r| !r.is_empty())?;
    // Everything between the fixed header and the payload stays: contributing sources and the extension block.
    let between = packet.get(FIXED_HEADER..h.payload_offset)?;
    let b0 = packet.first()? & !0x20;
    let b1 = (u8::from(h.marker) << 7) | (media_payload_type & 0x7f);
    let payload_at = FIXED_HEADER + between.len();
    let fits = put(out, payload_at, rest)
        && put(out, FIXED_HEADER, between)
        && put(out, 8, &media_ssrc.0.to_be_bytes())
        && put(out, 4, &h.timestamp.to_be_bytes())
        && put(out, 2, &original_seq.to_be_bytes())
        && put(out, 0, &[b0, b1]);
    fits.then_some(payload_at + rest.len())
}

#[cfg(test)]
mod tests {
    use super::super::rtp::{HeaderFields, write_header};
    use super::*;

    fn retransmission(payload: &[u8]) -> Vec<u8> {
        let mut b = vec![0; 64];
        let fields = HeaderFields { marker: true, payload_type: 97, seq: 5, timestamp: 0xffff_fff0, ssrc: Ssrc(2) };
        let n = write_header(&mut b, fields, &[(3, b"0"), (5, &[0, 9])]).unwrap();
        b.truncate(n);
        b.extend_from_slice(payload);
        b
    }

    #[test]
    fn the_original_comes_back_with_its_extensions() {
        let p = retransmission(&[0xff, 0xfe, 7, 8, 9]);
        let mut out = [0; 64];
        let n = decapsulate(&Header::parse(&p).unwrap(), &p, Ssrc(1), 96, &mut out).unwrap();
        let h = Header::parse(&out[..n]).unwrap();
        assert_eq!((h.seq, h.ssrc, h.payload_type, h.marker, h.timestamp), (0xfffe, Ssrc(1), 96, true, 0xffff_fff0));
        assert_eq!(h.payload(&out[..n]), &[7, 8, 9]);
        assert_eq!(h.extensions(&out[..n]).collect::<Vec<_>>(), vec![(3, &b"0"[..]), (5, &[0, 9][..])]);
    }

    #[test]
    fn contributing_sources_stay_and_padding_goes() {
        let mut p = vec![0xa1, 97, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, 1, 2, 3, 4];
        p.extend_from_slice(&[0x12, 0x34, 0xaa, 0, 0, 3]);
        let mut out = [0; 64];
        let n = decapsulate(&Header::parse(&p).unwrap(), &p, Ssrc(9), 96, &mut out).unwrap();
        assert_eq!(&out[..n], &[0x81, 96, 0x12, 0x34, 0, 0, 0, 2, 0, 0, 0, 9, 1, 2, 3, 4, 0xaa]);
    }

    #[test]
    fn probes_are_no_packets() {
        let mut padded = retransmission(&[0; 20]);
        padded[0] |= 0x20;
        *padded.last_mut().unwrap() = 20;
        for p in [retransmission(&[]), retransmission(&[1]), retransmission(&[1, 2]), padded] {
            let h = Header::parse(&p).unwrap();
            assert_eq!(decapsulate(&h, &p, Ssrc(1), 96, &mut [0; 64]), None);
        }
    }

    #[test]
    fn a_buffer_that_is_too_small_is_none() {
        let p = retransmission(&[0, 1, 7, 8, 9]);
        let h = Header::parse(&p).unwrap();
        let n = p.len() - 2;
        for len in 0..n {
            assert_eq!(decapsulate(&h, &p, Ssrc(1), 96, &mut vec![0; len]), None);
        }
        assert_eq!(decapsulate(&h, &p, Ssrc(1), 96, &mut vec![0; n]), Some(n));
    }
}
