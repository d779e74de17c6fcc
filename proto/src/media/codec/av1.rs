//! AV1 in RTP (RTP Payload Format For AV1, version 1.0, section 4).

use super::bits::Bits;
use super::{Malformed, Seen, believable};

const SEQUENCE_HEADER: u8 = 1;
const TEMPORAL_DELIMITER: u8 = 2;
const FRAME_HEADER: u8 = 3;
const METADATA: u8 = 5;
const FRAME: u8 = 6;

pub(super) fn inspect(payload: &[u8]) -> Result<Seen, Malformed> {
    let (&header, mut rest) = payload.split_first().ok_or(Malformed("AV1 payload is empty"))?;
    let on = |bit: u8| header & bit != 0;
    let (continues, unfinished, new_sequence) = (on(0x80), on(0x40), on(0x08));
    if continues && new_sequence {
        return Err(Malformed("AV1 sequence begins within an OBU"));
    }
    let counted = (header >> 4) & 0x03;
    let mut seen = Seen { independent: new_sequence, ..Seen::default() };
    let mut number = 0_usize;
    // Each turn takes at least one byte.
    while !rest.is_empty() {
        // With a count, the last element has no size: it is what is left.
        let sized = counted == 0 || number + 1 < usize::from(counted);
        let element = if sized { take_sized(&mut rest)? } else { std::mem::take(&mut rest) };
        let fragment = unfinished && rest.is_empty();
        if number > 0 || !continues {
            let part = obu(element, fragment)?;
            seen.start |= number == 0 && part.start;
            seen.size = part.size.or(seen.size);
        }
        number += 1;
    }
    if number == 0 || (counted != 0 && number != usize::from(counted)) {
        return Err(Malformed("AV1 packet has fewer OBU elements than it says"));
    }
    Ok(seen)
}

fn take_sized<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], Malformed> {
    let size = leb128(rest)?;
    if size == 0 {
        return Err(Malformed("AV1 OBU element is empty"));
    }
    let element = rest.get(..size).ok_or(Malformed("AV1 OBU element is longer than its packet"))?;
    *rest = rest.get(size..).unwrap_or(&[]);
    Ok(element)
}

/// AV1 specification section 4.10.5: at most eight bytes, a value below 2^32.
fn leb128(rest: &mut &[u8]) -> Result<usize, Malformed> {
    let mut value = 0_u64;
    for i in 0..8 {
        let (&b, tail) = rest.split_first().ok_or(Malformed("AV1 size is cut short"))?;
        *rest = tail;
        value |= u64::from(b & 0x7f) << (7 * i);
        if b & 0x80 == 0 {
            let value = u32::try_from(value).map_err(|_| Malformed("AV1 size is above 32 bits"))?;
            return usize::try_from(value).map_err(|_| Malformed("AV1 size is above the machine's"));
        }
    }
    Err(Malformed("AV1 size is longer than eight bytes"))
}

/// An OBU (section 5.3), or its first part where `fragment` says so.
fn obu(bytes: &[u8], fragment: bool) -> Result<Seen, Malformed> {
    let (&header, mut rest) = bytes.split_first().ok_or(Malformed("AV1 OBU is empty"))?;
    if header & 0x80 != 0 {
        return Err(Malformed("AV1 OBU has its forbidden bit set"));
    }
    let kind = (header >> 3) & 0x0f;
    let mut spatial = 0;
    if header & 0x04 != 0 {
        let (&layers, tail) = rest.split_first().ok_or(Malformed("AV1 OBU has no extension header"))?;
        spatial = (layers >> 3) & 0x03;
        rest = tail;
    }
    if header & 0x02 != 0 {
        let size = leb128(&mut rest)?;
        match rest.get(..size) {
            Some(body) => rest = body,
            None if fragment => {}
            None => return Err(Malformed("AV1 OBU is longer than its element")),
        }
    }
    let leads = matches!(kind, SEQUENCE_HEADER | TEMPORAL_DELIMITER | FRAME_HEADER | METADATA | FRAME);
    let size = (kind == SEQUENCE_HEADER).then(|| picture_size(rest)).flatten();
    Ok(Seen { start: leads && spatial == 0, size, ..Seen::default() })
}

/// Largest frame size of a sequence header (section 5.5).
fn picture_size(header: &[u8]) -> Option<(u32, u32)> {
    let mut b = Bits::new(header);
    b.skip(4)?; // profile, still picture
    let reduced = b.bit()?;
    if reduced {
        b.skip(5)?; // level
    } else {
        skip_operating_points(&mut b)?;
    }
    let (width_bits, height_bits) = (b.bits(4)? + 1, b.bits(4)? + 1);
    let (width, height) = (b.bits(width_bits)? + 1, b.bits(height_bits)? + 1);
    believable(width, height)
}

fn skip_operating_points(b: &mut Bits<'_>) -> Option<()> {
    let mut delay_bits = None;
    if b.bit()? {
        b.skip(64)?; // units in a tick, time scale
        if b.bit()? {
            b.ue()?; // ticks in a picture
        }
        if b.bit()? {
            delay_bits = Some(b.bits(5)? + 1);
            b.skip(42)?; // units in a decoding tick, lengths of removal and presentation times
        }
    }
    let display_delay = b.bit()?;
    for _ in 0..=b.bits(5)? {
        b.skip(12)?; // layers
        if b.bits(5)? > 7 {
            b.bit()?; // tier
        }
        if let Some(bits) = delay_bits
            && b.bit()?
        {
            b.skip(2 * bits + 1)?;
        }
        if display_delay && b.bit()? {
            b.skip(4)?;
        }
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::super::bits::BitWriter;
    use super::*;

    fn sequence_header(timing: bool) -> Vec<u8> {
        let w = BitWriter::default().bits(3, 0).bits(1, 0).bits(1, 0);
        let w = if timing {
            // Timing with a decoder model, two operating points of which the first has delays.
            let w = w.bits(1, 1).bits(32, 1).bits(32, 60).bits(1, 1).ue(0).bits(1, 1);
            let w = w.bits(5, 9).bits(32, 1).bits(5, 3).bits(5, 3).bits(1, 1).bits(5, 1);
            let w =
                w.bits(12, 1).bits(5, 8).bits(1, 0).bits(1, 1).bits(10, 5).bits(10, 5).bits(1, 0).bits(1, 1).bits(4, 3);
            w.bits(12, 1).bits(5, 5).bits(1, 0).bits(1, 0)
        } else {
            w.bits(1, 0).bits(1, 0).bits(5, 0).bits(12, 0).bits(5, 8).bits(1, 0)
        };
        let w = w.bits(4, 11).bits(4, 11).bits(12, 3839).bits(12, 2159);
        [&[0x08][..], &w.finish()].concat()
    }

    #[test]
    fn a_new_sequence_is_a_key_frame_and_gives_the_size() {
        for timing in [false, true] {
            let s = sequence_header(timing);
            let p = [&[0x28, u8::try_from(s.len()).unwrap()][..], &s, &[0x30, 1, 2]].concat();
            let want = Seen { start: true, independent: true, size: Some((3840, 2160)), ..Seen::default() };
            assert_eq!(inspect(&p).unwrap(), want);
            let all_sized = [&[0x08, u8::try_from(s.len()).unwrap()][..], &s, &[3, 0x30, 1, 2]].concat();
            assert_eq!(inspect(&all_sized).unwrap(), want);
        }
    }

    #[test]
    fn frames_begin_where_an_obu_of_the_lowest_layer_begins() {
        assert_eq!(inspect(&[0x10, 0x30, 1]).unwrap(), Seen { start: true, ..Seen::default() });
        assert_eq!(inspect(&[0x90, 0x30, 1]).unwrap(), Seen::default(), "the rest of an OBU");
        assert_eq!(inspect(&[0x10, 0x34, 0x08, 1]).unwrap(), Seen::default(), "spatial layer 1");
        assert_eq!(inspect(&[0x10, 0x20, 1]).unwrap(), Seen::default(), "a tile group follows its frame header");
    }

    #[test]
    fn an_obu_with_a_size_of_its_own_is_read_and_a_fragment_may_be_shorter() {
        assert!(inspect(&[0x10, 0x32, 2, 1, 2]).unwrap().start);
        assert!(inspect(&[0x50, 0x32, 200, 1, 1, 2]).unwrap().start, "goes on in the next packet");
        assert!(inspect(&[0x10, 0x32, 200, 1, 1, 2]).is_err());
    }

    #[test]
    fn sizes_that_overflow_are_malformed() {
        for p in [
            &[0x00, 0x05, 0x30][..],
            &[0x00, 0x80],
            &[0x00, 0x80, 0x80],
            &[0x00, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
            &[0x00, 0xff, 0xff, 0xff, 0xff, 0x7f, 0x30],
            &[0x00, 0xff, 0xff, 0xff, 0xff, 0x0f, 0x30],
            &[0x00, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x00],
            &[0x20, 0x7f, 0x30, 1],
            &[0x10, 0x32, 0xff, 0xff, 0xff, 0xff, 0x0f, 1],
            &[0x10, 0x32],
        ] {
            assert!(inspect(p).is_err(), "{p:02x?}");
        }
    }

    #[test]
    fn counts_and_headers_that_lie_are_malformed() {
        for p in [
            &[][..],
            &[0x10],
            &[0x00],
            &[0x00, 0x00],
            &[0x20, 0x01, 0x30],
            &[0x30, 0x01, 0x30, 0x01, 0x30],
            &[0x98, 0x30],
            &[0x10, 0xb0],
            &[0x10, 0x34],
        ] {
            assert!(inspect(p).is_err(), "{p:02x?}");
        }
    }

    #[test]
    fn a_sequence_header_cut_short_has_no_size() {
        let s = sequence_header(true);
        for n in 1..s.len() - 1 {
            let p = [&[0x18][..], &s[..n]].concat();
            assert_eq!(inspect(&p).unwrap().size, None, "{n} bytes");
        }
    }
}
