//! RTP headers (RFC 3550 section 5.1) and header extensions in both forms (RFC 8285).

use super::bytes::{be16, be32, put};
use crate::units::Ssrc;

/// Length of the fixed header in bytes.
pub const FIXED_HEADER: usize = 12;
/// Profile of the one-byte extension form (RFC 8285 section 4.2).
pub const ONE_BYTE_PROFILE: u16 = 0xbede;
/// Profile of the two-byte extension form without its four application bits (RFC 8285 section 4.3).
const TWO_BYTE_PROFILE: u16 = 0x1000;

/// Why a packet is not RTP that we take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RtpError {
    /// Shorter than its own header says.
    #[error("packet is shorter than its header")]
    TooShort,
    /// Version other than 2.
    #[error("RTP version is not 2")]
    Version,
    /// Padding longer than the payload.
    #[error("padding is longer than the payload")]
    Padding,
    /// The output buffer is too small.
    #[error("output buffer is too small")]
    NoRoom,
}

/// A parsed header. Offsets are into the packet that it was parsed from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Marker bit: last packet of a video frame.
    pub marker: bool,
    /// Payload type, 0 to 127.
    pub payload_type: u8,
    /// Sequence number as it travels.
    pub seq: u16,
    /// RTP timestamp.
    pub timestamp: u32,
    /// Source.
    pub ssrc: Ssrc,
    /// Profile and byte range of the extension block, where there is one.
    pub extension: Option<ExtensionBlock>,
    /// Where the payload starts, in bytes.
    pub payload_offset: usize,
    /// Bytes of padding at the end.
    pub padding: usize,
}

/// Where the extension block is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExtensionBlock {
    /// The 16 bits "defined by profile".
    pub profile: u16,
    /// First byte of the elements.
    pub start: usize,
    /// Byte after the elements.
    pub end: usize,
}

impl Header {
    /// Parses the header of an RTP packet.
    ///
    /// # Errors
    /// See [`RtpError`]; never panics.
    pub fn parse(p: &[u8]) -> Result<Self, RtpError> {
        let (&b0, &b1) = p.first().zip(p.get(1)).ok_or(RtpError::TooShort)?;
        if b0 >> 6 != 2 {
            return Err(RtpError::Version);
        }
        let seq = be16(p, 2).ok_or(RtpError::TooShort)?;
        let timestamp = be32(p, 4).ok_or(RtpError::TooShort)?;
        let ssrc = Ssrc(be32(p, 8).ok_or(RtpError::TooShort)?);
        let mut offset = FIXED_HEADER + 4 * usize::from(b0 & 0x0f);
        let mut extension = None;
        if b0 & 0x10 != 0 {
            let profile = be16(p, offset).ok_or(RtpError::TooShort)?;
            let words = be16(p, offset + 2).ok_or(RtpError::TooShort)?;
            let start = offset + 4;
            offset = start + 4 * usize::from(words);
            extension = Some(ExtensionBlock { profile, start, end: offset });
        }
        if offset > p.len() {
            return Err(RtpError::TooShort);
        }
        let padding = if b0 & 0x20 != 0 { usize::from(*p.last().ok_or(RtpError::TooShort)?) } else { 0 };
        if b0 & 0x20 != 0 && (padding == 0 || padding > p.len() - offset) {
            return Err(RtpError::Padding);
        }
        Ok(Self {
            marker: b1 & 0x80 != 0,
            payload_type: b1 & 0x7f,
            seq,
            timestamp,
            ssrc,
            extension,
            payload_offset: offset,
            padding,
        })
    }

    /// The payload without padding.
    #[must_use]
    pub fn payload<'a>(&self, p: &'a [u8]) -> &'a [u8] {
        p.get(self.payload_offset..p.len().saturating_sub(self.padding)).unwrap_or(&[])
    }

    /// The extension elements, in order. Stops at the first that is malformed.
    #[must_use]
    pub fn extensions<'a>(&self, p: &'a [u8]) -> Extensions<'a> {
        let (rest, two_byte) = match self.extension {
            Some(e) if e.profile == ONE_BYTE_PROFILE => (p.get(e.start..e.end).unwrap_or(&[]), false),
            Some(e) if e.profile & 0xfff0 == TWO_BYTE_PROFILE => (p.get(e.start..e.end).unwrap_or(&[]), true),
            _ => (&[] as &[u8], false),
        };
        Extensions { rest, two_byte }
    }

    /// Where in the packet the data of the first extension element with that id is.
    #[must_use]
    pub fn extension_range(&self, p: &[u8], id: u8) -> Option<std::ops::Range<usize>> {
        let mut elements = self.extensions(p);
        let data = loop {
            let (i, data) = elements.next()?;
            if i == id {
                break data;
            }
        };
        let end = self.extension?.end.checked_sub(elements.rest.len())?;
        Some(end.checked_sub(data.len())?..end)
    }
}

/// Iterator over `(id, data)` of extension elements.
#[derive(Debug, Clone)]
pub struct Extensions<'a> {
    rest: &'a [u8],
    two_byte: bool,
}

impl<'a> Iterator for Extensions<'a> {
    type Item = (u8, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let (&first, tail) = self.rest.split_first()?;
            if first == 0 {
                self.rest = tail;
                continue;
            }
            let (id, len, body) = if self.two_byte {
                let (&len, body) = tail.split_first()?;
                (first, usize::from(len), body)
            } else {
                // Id 15 ends the block, and so does padding that claims to have a length (RFC 8285 section 4.2).
                if matches!(first >> 4, 0 | 15) {
                    self.rest = &[];
                    return None;
                }
                (first >> 4, usize::from(first & 0x0f) + 1, tail)
            };
            let Some(data) = body.get(..len) else {
                self.rest = &[];
                return None;
            };
            self.rest = body.get(len..).unwrap_or(&[]);
            return Some((id, data));
        }
    }
}

/// The fixed fields of a header that is to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeaderFields {
    /// Marker bit.
    pub marker: bool,
    /// Payload type.
    pub payload_type: u8,
    /// Sequence number.
    pub seq: u16,
    /// RTP timestamp.
    pub timestamp: u32,
    /// Source.
    pub ssrc: Ssrc,
}

/// Bytes that [`write_header`] writes for these elements.
#[must_use]
pub fn header_len(elements: &[(u8, &[u8])]) -> usize {
    if elements.is_empty() {
        return FIXED_HEADER;
    }
    let head = if is_short(elements) { 1 } else { 2 };
    let bytes: usize = elements.iter().map(|(_, data)| head + data.len()).sum();
    FIXED_HEADER + 4 + bytes.next_multiple_of(4)
}

/// Whether all elements fit the one-byte form.
fn is_short(elements: &[(u8, &[u8])]) -> bool {
    elements.iter().all(|(id, data)| *id < 15 && data.len() <= 16)
}

/// Writes a header with extension elements and returns its length: in the one-byte form where all fit it (each 1 to 16
/// bytes, ids 1 to 14), else in the two-byte form (up to 255 bytes, any id but 0).
///
/// # Errors
/// [`RtpError::NoRoom`] where `out` is too small or an element cannot be written.
pub fn write_header(out: &mut [u8], h: HeaderFields, elements: &[(u8, &[u8])]) -> Result<usize, RtpError> {
    let with_extension = !elements.is_empty();
    let b0 = 0x80 | if with_extension { 0x10 } else { 0 };
    let b1 = (u8::from(h.marker) << 7) | (h.payload_type & 0x7f);
    let mut ok = put(out, 0, &[b0, b1])
        && put(out, 2, &h.seq.to_be_bytes())
        && put(out, 4, &h.timestamp.to_be_bytes())
        && put(out, 8, &h.ssrc.0.to_be_bytes());
    let mut at = FIXED_HEADER;
    let is_short = is_short(elements);
    if with_extension {
        at += 4;
        for &(id, data) in elements {
            let len = u8::try_from(data.len()).map_err(|_| RtpError::NoRoom)?;
            if id == 0 || len == 0 {
                return Err(RtpError::NoRoom);
            }
            let head = [(id << 4) | (len.wrapping_sub(1) & 0x0f), 0];
            let head = if is_short { head.get(..1).unwrap_or(&[]) } else { &[id, len][..] };
            ok = ok && put(out, at, head) && put(out, at + head.len(), data);
            at += head.len() + data.len();
        }
        while !at.is_multiple_of(4) {
            ok = ok && put(out, at, &[0]);
            at += 1;
        }
        let words = u16::try_from((at - FIXED_HEADER - 4) / 4).map_err(|_| RtpError::NoRoom)?;
        ok = ok
            && put(out, FIXED_HEADER, &(if is_short { ONE_BYTE_PROFILE } else { TWO_BYTE_PROFILE }).to_be_bytes())
            && put(out, FIXED_HEADER + 2, &words.to_be_bytes());
    }
    if ok { Ok(at) } else { Err(RtpError::NoRoom) }
}

/// Whether a packet that came on a port shared by RTP and RTCP is RTCP (RFC 5761 section 4).
#[must_use]
pub fn is_rtcp(p: &[u8]) -> bool {
    p.get(1).is_some_and(|b| (64..96).contains(&(b & 0x7f)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIELDS: HeaderFields =
        HeaderFields { marker: true, payload_type: 96, seq: 0xfffe, timestamp: 0xdead_beef, ssrc: Ssrc(7) };

    #[test]
    fn what_is_written_parses_back() {
        let mut b = [0_u8; 64];
        let n = write_header(&mut b, FIELDS, &[(1, &[9; 5]), (2, &[8; 8])]).unwrap();
        assert_eq!(n % 4, 0);
        b[n] = 0x55;
        let p = &b[..=n];
        let h = Header::parse(p).unwrap();
        assert!(h.marker);
        assert_eq!((h.payload_type, h.seq, h.timestamp, h.ssrc), (96, 0xfffe, 0xdead_beef, Ssrc(7)));
        assert_eq!(h.payload(p), &[0x55]);
        let e: Vec<_> = h.extensions(p).collect();
        assert_eq!(e, vec![(1, &[9_u8; 5][..]), (2, &[8_u8; 8][..])]);
    }

    #[test]
    fn the_two_byte_form_is_read_as_well() {
        let p = [0x90, 96, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0x10, 0x05, 0, 2, 20, 3, 1, 2, 3, 0, 21, 0, 0xaa];
        let h = Header::parse(&p).unwrap();
        let e: Vec<_> = h.extensions(&p).collect();
        assert_eq!(e, vec![(20, &[1_u8, 2, 3][..]), (21, &[][..])]);
        assert_eq!(h.payload(&p), &[0xaa]);
    }

    #[test]
    fn padding_that_claims_a_length_ends_the_block() {
        let p = [0x90, 96, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0xbe, 0xde, 0, 2, 0x10, 7, 0, 0x01, 8, 9, 0x20, 5];
        let h = Header::parse(&p).unwrap();
        assert_eq!(h.extensions(&p).collect::<Vec<_>>(), vec![(1, &[7_u8][..])]);
        assert_eq!(h.extension_range(&p, 0), None);
    }

    #[test]
    fn malformed_packets_are_refused_without_a_panic() {
        assert_eq!(Header::parse(&[]), Err(RtpError::TooShort));
        assert_eq!(Header::parse(&[0x40; 20]), Err(RtpError::Version));
        // An extension that says it is longer than the packet.
        let p = [0x90, 96, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0xbe, 0xde, 0xff, 0xff];
        assert_eq!(Header::parse(&p), Err(RtpError::TooShort));
        // Padding longer than the payload (as in CVE-2025-49140).
        let p = [0xa0, 96, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 200];
        assert_eq!(Header::parse(&p), Err(RtpError::Padding));
        // An element that runs past the block.
        let p = [0x90, 96, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0xbe, 0xde, 0, 1, 0x1f, 1, 2, 3];
        let h = Header::parse(&p).unwrap();
        assert_eq!(h.extensions(&p).count(), 0);
    }

    #[test]
    fn every_prefix_of_every_two_byte_start_is_survived() {
        for b0 in 0..=255_u8 {
            for len in 0..40 {
                let mut p = vec![0x11_u8; len];
                if let Some(x) = p.first_mut() {
                    *x = b0;
                }
                if let Ok(h) = Header::parse(&p) {
                    assert!(h.payload(&p).len() <= len);
                    assert!(h.extensions(&p).count() <= 40);
                }
            }
        }
    }

    #[test]
    fn rtcp_is_told_from_rtp_by_its_second_byte() {
        assert!(is_rtcp(&[0x80, 200]));
        assert!(is_rtcp(&[0x81, 206]));
        assert!(!is_rtcp(&[0x80, 96 | 0x80]));
        assert!(!is_rtcp(&[0x80]));
    }
}
