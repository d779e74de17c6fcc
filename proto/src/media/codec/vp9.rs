//! VP9 in RTP (RFC 9628), in flexible and non-flexible mode.

use super::bits::Bits;
use super::{Malformed, Seen, believable};
use crate::media::bytes::be16;

const SHORT: Malformed = Malformed("VP9 descriptor is longer than its packet");

pub(super) fn inspect(payload: &[u8]) -> Result<Seen, Malformed> {
    let mut d = Descriptor(payload);
    let bits = d.byte()?;
    let on = |bit: u8| bits & bit != 0;
    let (with_id, inter, layers, flexible) = (on(0x80), on(0x40), on(0x20), on(0x10));
    if with_id {
        let wide = d.byte()? & 0x80 != 0;
        d.skip(usize::from(wide))?;
    }
    if flexible && !with_id {
        return Err(Malformed("VP9 flexible mode without a picture id"));
    }
    let mut spatial = 0;
    if layers {
        spatial = (d.byte()? >> 1) & 0x07;
        d.skip(usize::from(!flexible))?;
    }
    if flexible && inter {
        skip_references(&mut d)?;
    }
    let mut size = if on(0x02) { scalability(&mut d)? } else { None };
    if d.0.is_empty() {
        return Err(Malformed("VP9 packet has a descriptor and nothing else"));
    }
    let start = on(0x08) && spatial == 0;
    let independent = !inter && spatial == 0;
    if size.is_none() && start && independent {
        size = picture_size(d.0);
    }
    Ok(Seen { start, independent, size, ..Seen::default() })
}

/// What is left of the packet.
struct Descriptor<'a>(&'a [u8]);

impl Descriptor<'_> {
    fn byte(&mut self) -> Result<u8, Malformed> {
        let (&b, rest) = self.0.split_first().ok_or(SHORT)?;
        self.0 = rest;
        Ok(b)
    }

    fn skip(&mut self, bytes: usize) -> Result<(), Malformed> {
        self.0 = self.0.get(bytes..).ok_or(SHORT)?;
        Ok(())
    }
}

/// Up to three reference indices, each saying whether another follows.
fn skip_references(d: &mut Descriptor<'_>) -> Result<(), Malformed> {
    for _ in 0..3 {
        if d.byte()? & 0x01 == 0 {
            return Ok(());
        }
    }
    Err(Malformed("VP9 packet has more than three references"))
}

/// The scalability structure (section 4.2.1): the size of each spatial layer, of which the last is the largest, and the
/// pictures of a group. At most 8 sizes and 255 pictures of 4 bytes.
fn scalability(d: &mut Descriptor<'_>) -> Result<Option<(u32, u32)>, Malformed> {
    let bits = d.byte()?;
    let mut size = None;
    if bits & 0x10 != 0 {
        for _ in 0..=(bits >> 5) {
            let (width, height) = be16(d.0, 0).zip(be16(d.0, 2)).ok_or(SHORT)?;
            d.skip(4)?;
            size = believable(u32::from(width), u32::from(height)).or(size);
        }
    }
    if bits & 0x08 != 0 {
        for _ in 0..d.byte()? {
            let references = (d.byte()? >> 2) & 0x03;
            d.skip(usize::from(references))?;
        }
    }
    Ok(size)
}

/// From the uncompressed header of a key frame (VP9 bitstream specification section 6.2).
fn picture_size(frame: &[u8]) -> Option<(u32, u32)> {
    const RGB: u32 = 7;
    let mut b = Bits::new(frame);
    if b.bits(2)? != 2 {
        return None;
    }
    let profile = u32::from(b.bit()?) | (u32::from(b.bit()?) << 1);
    if profile == 3 {
        b.bit()?;
    }
    let existing = b.bit()?;
    let inter = b.bit()?;
    if existing || inter {
        return None;
    }
    b.skip(2)?; // show_frame, error_resilient_mode
    if b.bits(24)? != 0x49_83_42 {
        return None;
    }
    if profile >= 2 {
        b.bit()?; // ten or twelve bits
    }
    let sampled = profile % 2 == 1;
    if b.bits(3)? == RGB {
        b.skip(u32::from(sampled))?;
    } else {
        b.skip(if sampled { 4 } else { 1 })?;
    }
    let (width, height) = (b.bits(16)? + 1, b.bits(16)? + 1);
    believable(width, height)
}

#[cfg(test)]
mod tests {
    use super::super::bits::BitWriter;
    use super::*;

    #[test]
    fn non_flexible_packets_show_starts_and_key_frames() {
        // I, L, B: picture id of 15 bits, layer indices, TL0PICIDX.
        let key = inspect(&[0xa8, 0x92, 0x34, 0x00, 7, 0xff]).unwrap();
        assert_eq!(key, Seen { start: true, independent: true, ..Seen::default() });
        let delta = inspect(&[0xe8, 0x92, 0x34, 0x00, 7, 0xff]).unwrap();
        assert_eq!(delta, Seen { start: true, ..Seen::default() });
        let upper = inspect(&[0xa8, 0x92, 0x34, 0x02, 7, 0xff]).unwrap();
        assert_eq!(upper, Seen::default(), "an upper layer begins no picture and needs the lower one");
        assert_eq!(inspect(&[0x00, 0xff]).unwrap(), Seen { independent: true, ..Seen::default() });
    }

    #[test]
    fn flexible_packets_name_up_to_three_references() {
        for references in [&[0x02][..], &[0x03, 0x02], &[0x03, 0x03, 0x02]] {
            let p = [&[0xf8, 0x11, 0x00][..], references, &[0xff]].concat();
            assert_eq!(inspect(&p).unwrap(), Seen { start: true, ..Seen::default() }, "{p:02x?}");
        }
        assert!(inspect(&[0xf8, 0x11, 0x00, 0x03, 0x03, 0x03, 0x02, 0xff]).is_err(), "four references");
        assert!(inspect(&[0x18, 0x00, 0xff]).is_err(), "flexible mode wants a picture id");
    }

    #[test]
    fn the_scalability_structure_gives_the_largest_size() {
        // Two layers with sizes and a group of two pictures, the second with one reference.
        let ss = [0x38, 0x02, 0x80, 0x01, 0x68, 0x05, 0x00, 0x02, 0xd0, 2, 0x00, 0x04, 1];
        let p = [&[0x8a, 0x11][..], &ss, &[0xff]].concat();
        let want = Seen { start: true, independent: true, size: Some((1280, 720)), ..Seen::default() };
        assert_eq!(inspect(&p).unwrap(), want);
        for n in 0..p.len() {
            assert!(inspect(&p[..n]).is_err(), "{n} bytes");
        }
    }

    #[test]
    fn a_scalability_structure_that_runs_past_its_packet_is_malformed() {
        for ss in [&[][..], &[0xf0, 0, 1, 0, 1], &[0x08], &[0x08, 255, 0, 0], &[0x08, 1, 0x0c, 1, 1], &[0xf8; 20]] {
            let p = [&[0x8a, 0x11][..], ss].concat();
            assert!(inspect(&p).is_err(), "{p:02x?}");
        }
    }

    #[test]
    fn without_one_the_size_comes_from_the_frame() {
        let w = BitWriter::default().bits(2, 2).bits(2, 0).bits(2, 0).bits(2, 2).bits(24, 0x49_83_42);
        let frame = w.bits(3, 2).bits(1, 0).bits(16, 1919).bits(16, 1079).finish();
        let p = [&[0x08][..], &frame].concat();
        assert_eq!(inspect(&p).unwrap().size, Some((1920, 1080)));
        let delta = [&[0x48][..], &frame].concat();
        assert_eq!(inspect(&delta).unwrap().size, None);
    }

    #[test]
    fn a_packet_without_a_picture_is_malformed() {
        for p in [&[][..], &[0x08], &[0x80], &[0x88, 0x11], &[0xa8, 0x11, 0x00], &[0x88, 0x91]] {
            assert!(inspect(p).is_err(), "{p:02x?}");
        }
    }
}
