//! H.265 in RTP (RFC 7798): single NAL units, aggregation packets, fragments, and PACI around one of those.
//!
//! A picture is independent where it is an IRAP picture. Parameter sets say nothing about it: encoders that refresh gradually
//! repeat them with pictures that others are needed for.
//!
//! Decoding order numbers (`sprop-max-don-diff` above 0) are not expected: no real-time sender uses them.

use super::bits::{Bits, recovery_point};
use super::{Malformed, Seen, believable};
use crate::media::bytes::be16;

const VPS: u8 = 32;
const SPS: u8 = 33;
const PPS: u8 = 34;
const DELIMITER: u8 = 35;
const PREFIX_SEI: u8 = 39;
const AGGREGATION: u8 = 48;
const FRAGMENT: u8 = 49;
const PACI: u8 = 50;

pub(super) fn inspect(payload: &[u8]) -> Result<Seen, Malformed> {
    let (kind, body) = unit(payload, "H.265 payload is shorter than its header")?;
    if kind == PACI {
        return paci(body);
    }
    by_kind(kind, body)
}

/// Type and body of what begins with the two-byte header.
fn unit<'a>(bytes: &'a [u8], short: &'static str) -> Result<(u8, &'a [u8]), Malformed> {
    let (&first, _) = bytes.split_first().ok_or(Malformed(short))?;
    let body = bytes.get(2..).ok_or(Malformed(short))?;
    Ok(((first >> 1) & 0x3f, body))
}

fn by_kind(kind: u8, body: &[u8]) -> Result<Seen, Malformed> {
    match kind {
        AGGREGATION => aggregate(body),
        FRAGMENT => fragment(body),
        0..AGGREGATION => Ok(nal_unit(kind, body, true)),
        _ => Err(Malformed("H.265 unit type is reserved")),
    }
}

/// Section 4.4.4: two bytes of fields, the header extension, then what the packet would hold without them.
fn paci(body: &[u8]) -> Result<Seen, Malformed> {
    let fields = be16(body, 0).ok_or(Malformed("H.265 PACI packet is too short"))?;
    let kind = ((fields >> 9) & 0x3f) as u8;
    let extension = usize::from((fields >> 4) & 0x1f);
    let rest = body.get(2 + extension..).filter(|r| !r.is_empty());
    let rest = rest.ok_or(Malformed("H.265 PACI packet is shorter than its header extension"))?;
    by_kind(kind, rest)
}

fn aggregate(mut rest: &[u8]) -> Result<Seen, Malformed> {
    let mut seen = None;
    // Each turn takes at least four bytes.
    while !rest.is_empty() {
        let size = usize::from(be16(rest, 0).ok_or(Malformed("H.265 aggregation packet ends in a size"))?);
        let bytes = rest.get(2..2 + size).ok_or(Malformed("H.265 unit is longer than its packet"))?;
        let (kind, body) = unit(bytes, "H.265 aggregation packet holds a unit without a header")?;
        if kind >= AGGREGATION {
            return Err(Malformed("H.265 aggregation packet holds a unit that is not a NAL unit"));
        }
        let part = nal_unit(kind, body, true);
        match &mut seen {
            None => seen = Some(part),
            Some(s) => Seen::add(s, part),
        }
        rest = rest.get(2 + size..).unwrap_or(&[]);
    }
    seen.ok_or(Malformed("H.265 aggregation packet is empty"))
}

fn fragment(body: &[u8]) -> Result<Seen, Malformed> {
    let (&fu, rest) = body.split_first().ok_or(Malformed("H.265 fragment has no header"))?;
    let kind = fu & 0x3f;
    if kind >= AGGREGATION {
        return Err(Malformed("H.265 fragment of a unit that is not a NAL unit"));
    }
    Ok(nal_unit(kind, rest, fu & 0x80 != 0))
}

/// A NAL unit, or with `first` false a later fragment of one. Whether a picture may be left out depends on which
/// temporal sub-layers are in use, which a packet does not say: `discardable` stays false.
fn nal_unit(kind: u8, body: &[u8], first: bool) -> Seen {
    // A slice segment begins with first_slice_segment_in_pic_flag.
    let first_slice = kind < VPS && body.first().is_some_and(|b| b & 0x80 != 0);
    let leads = matches!(kind, VPS | SPS | PPS | DELIMITER | PREFIX_SEI);
    let recovers = first && kind == PREFIX_SEI && recovery_point(body).is_some();
    Seen {
        start: first && (first_slice || leads),
        independent: matches!(kind, 16..=23),
        refresh: matches!(kind, VPS | SPS) || recovers,
        size: (first && kind == SPS).then(|| picture_size(body)).flatten(),
        ..Seen::default()
    }
}

/// Width and height inside the conformance window, from a sequence parameter set (H.265 section 7.3.2.2.1).
fn picture_size(sps: &[u8]) -> Option<(u32, u32)> {
    let mut b = Bits::of_nal(sps);
    b.skip(4)?; // video parameter set
    let sub_layers = b.bits(3)?;
    b.skip(1)?; // temporal id nesting
    skip_profile_tier_level(&mut b, sub_layers)?;
    b.ue()?; // id
    let chroma = b.ue().filter(|c| *c <= 3)?;
    let separate = chroma == 3 && b.bit()?;
    let (width, height) = (b.ue()?, b.ue()?);
    if !b.bit()? {
        return believable(width, height);
    }
    let (left, right, top, bottom) = (b.ue()?, b.ue()?, b.ue()?, b.ue()?);
    let (unit_x, unit_y) = match chroma {
        _ if separate => (1, 1),
        1 => (2, 2),
        2 => (2, 1),
        _ => (1, 1),
    };
    let off_x = left.checked_add(right)?.checked_mul(unit_x)?;
    let off_y = top.checked_add(bottom)?.checked_mul(unit_y)?;
    believable(width.checked_sub(off_x)?, height.checked_sub(off_y)?)
}

/// Section 7.3.3: 88 bits of profile and 8 of level, then as much for each of up to six sub-layers that has it.
fn skip_profile_tier_level(b: &mut Bits<'_>, sub_layers: u32) -> Option<()> {
    b.skip(96)?;
    let mut to_skip = 0;
    for _ in 0..sub_layers {
        to_skip += if b.bit()? { 88 } else { 0 };
        to_skip += if b.bit()? { 8 } else { 0 };
    }
    if sub_layers > 0 {
        b.skip(2 * (8 - sub_layers))?;
    }
    b.skip(to_skip)
}

#[cfg(test)]
mod tests {
    use super::super::bits::BitWriter;
    use super::*;

    fn header(kind: u8) -> [u8; 2] {
        [kind << 1, 1]
    }

    /// A parameter set with two sub-layers, one of which has a level: 3840 × 2176, of which 16 rows are outside the window.
    fn sps() -> Vec<u8> {
        let w = BitWriter::default().bits(4, 0).bits(3, 1).bits(1, 1);
        let w = w.bits(8, 1).bits(32, 0x6000_0000).bits(32, 0x9000_0000).bits(16, 0).bits(8, 153);
        let w = w.bits(2, 0b01).bits(14, 0).bits(8, 120);
        let w = w.ue(0).ue(1).ue(3840).ue(2176).bits(1, 1).ue(0).ue(0).ue(0).ue(8).bits(1, 0);
        [&header(SPS)[..], &w.finish_nal()].concat()
    }

    #[test]
    fn single_units_show_starts_and_key_frames() {
        let seen = |kind: u8, b: u8| inspect(&[kind << 1, 1, b]).unwrap();
        for irap in 16..=23 {
            assert_eq!(seen(irap, 0x80), Seen { start: true, independent: true, ..Seen::default() });
            assert_eq!(seen(irap, 0x00), Seen { independent: true, ..Seen::default() });
        }
        assert_eq!(seen(1, 0x80), Seen { start: true, ..Seen::default() });
        assert_eq!(seen(DELIMITER, 0), Seen { start: true, ..Seen::default() });
        assert_eq!(seen(40, 0), Seen::default(), "a suffix comes after its picture");
    }

    #[test]
    fn parameter_sets_and_gradual_refresh_do_not_make_a_picture_independent() {
        let seen = |p: &[u8]| inspect(p).map(|s| (s.start, s.independent, s.refresh)).unwrap();
        for kind in [VPS, SPS] {
            assert_eq!(seen(&[kind << 1, 1, 0]), (true, false, true));
        }
        assert_eq!(seen(&[PPS << 1, 1, 0]), (true, false, false));
        // A recovery point at the same picture (se(v) 0) and another message.
        assert_eq!(seen(&[PREFIX_SEI << 1, 1, 6, 1, 0xd0, 0x80]), (true, false, true));
        assert_eq!(seen(&[PREFIX_SEI << 1, 1, 5, 1, 0xd0, 0x80]), (true, false, false));
    }

    #[test]
    fn the_picture_size_is_that_of_the_window() {
        assert_eq!(inspect(&sps()).unwrap().size, Some((3840, 2160)));
        let whole = sps();
        for n in 2..whole.len() - 2 {
            assert_eq!(inspect(&whole[..n]).unwrap().size, None, "{n} bytes");
        }
    }

    #[test]
    fn aggregation_packets_and_fragments_show_what_is_in_them() {
        let s = sps();
        let len = u16::try_from(s.len()).unwrap().to_be_bytes();
        let p = [&header(AGGREGATION)[..], &[0, 3], &header(VPS), &[9], &len, &s].concat();
        let want = Seen { start: true, refresh: true, size: Some((3840, 2160)), ..Seen::default() };
        assert_eq!(inspect(&p).unwrap(), want);
        let whole = [&p[..], &[0, 3], &header(19), &[0x80]].concat();
        assert_eq!(inspect(&whole).unwrap(), Seen { independent: true, ..want });
        assert!(inspect(&[FRAGMENT << 1, 1, 0x80 | 19, 0x80]).unwrap().start);
        let later = inspect(&[FRAGMENT << 1, 1, 19, 0x80]).unwrap();
        assert_eq!((later.start, later.independent), (false, true));
    }

    #[test]
    fn a_paci_packet_shows_what_it_wraps() {
        // A = 0, type 19, an extension of three bytes.
        let fields = ((19_u16 << 9) | (3 << 4)).to_be_bytes();
        let p = [&header(PACI)[..], &fields, &[1, 2, 3], &[0x80, 0]].concat();
        assert_eq!(inspect(&p).unwrap(), Seen { start: true, independent: true, ..Seen::default() });
    }

    #[test]
    fn a_short_paci_packet_is_malformed() {
        let long = ((19_u16 << 9) | (31 << 4)).to_be_bytes();
        let nested = (u16::from(PACI) << 9).to_be_bytes();
        for tail in [&[][..], &[0x26], &[0x26, 0x00], &[long[0], long[1], 1, 2], &[nested[0], nested[1], 1, 2, 3]] {
            let p = [&header(PACI)[..], tail].concat();
            assert!(inspect(&p).is_err(), "{p:02x?}");
        }
        let exact = [&header(PACI)[..], &long, &[0; 31]].concat();
        assert!(inspect(&exact).is_err(), "nothing is wrapped");
    }

    #[test]
    fn units_that_lie_about_their_size_or_type_are_malformed() {
        for p in [
            &[][..],
            &[0x26],
            &[AGGREGATION << 1, 1],
            &[AGGREGATION << 1, 1, 0],
            &[AGGREGATION << 1, 1, 0, 0],
            &[AGGREGATION << 1, 1, 0, 1, 0x40],
            &[AGGREGATION << 1, 1, 0, 9, 0x40, 1],
            &[AGGREGATION << 1, 1, 0, 2, AGGREGATION << 1, 1],
            &[FRAGMENT << 1, 1],
            &[FRAGMENT << 1, 1, 0x80 | 50],
            &[51 << 1, 1, 0],
            &[63 << 1, 1, 0],
        ] {
            assert!(inspect(p).is_err(), "{p:02x?}");
        }
    }
}
