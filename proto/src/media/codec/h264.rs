//! H.264 in RTP (RFC 6184): single NAL units, aggregation packets and fragments of all three packetization modes.
//!
//! A picture is independent where it is an IDR picture, or where its recovery point says that it is whole at once. Parameter
//! sets say nothing about it: encoders that refresh gradually repeat them with pictures that others are needed for.

use super::bits::{Bits, recovery_point};
use super::{Malformed, Seen, believable};
use crate::media::bytes::be16;

const SLICE: u8 = 1;
const PARTITION_A: u8 = 2;
const IDR: u8 = 5;
const SEI: u8 = 6;
const SPS: u8 = 7;
const PPS: u8 = 8;
const DELIMITER: u8 = 9;
const PREFIX: u8 = 14;
const SUBSET_SPS: u8 = 15;
const STAP_A: u8 = 24;
const STAP_B: u8 = 25;
const MTAP16: u8 = 26;
const MTAP24: u8 = 27;
const FU_A: u8 = 28;
const FU_B: u8 = 29;

pub(super) fn inspect(payload: &[u8]) -> Result<Seen, Malformed> {
    let (&header, body) = payload.split_first().ok_or(Malformed("H.264 payload is empty"))?;
    match header & 0x1f {
        0 | 30 | 31 => Err(Malformed("H.264 NAL unit type is reserved")),
        STAP_A => aggregate(body, 0),
        // A decoding order number comes first.
        STAP_B => aggregate(body.get(2..).ok_or(Malformed("H.264 STAP-B is too short"))?, 0),
        MTAP16 => aggregate(body.get(2..).ok_or(Malformed("H.264 MTAP16 is too short"))?, 3),
        MTAP24 => aggregate(body.get(2..).ok_or(Malformed("H.264 MTAP24 is too short"))?, 4),
        FU_A => fragment(header, body, 0),
        FU_B => fragment(header, body, 2),
        _ => Ok(nal_unit(header, body, true)),
    }
}

/// The units of an aggregation packet; each has a size and `between` bytes (order and time offset of an MTAP) before it.
fn aggregate(mut rest: &[u8], between: usize) -> Result<Seen, Malformed> {
    let mut seen = None;
    // Each turn takes at least three bytes.
    while !rest.is_empty() {
        let size = usize::from(be16(rest, 0).ok_or(Malformed("H.264 aggregation packet ends in a size"))?);
        if size == 0 {
            return Err(Malformed("H.264 aggregation packet holds an empty unit"));
        }
        let from = 2 + between;
        let unit = rest.get(from..from + size).ok_or(Malformed("H.264 unit is longer than its packet"))?;
        let (&header, body) = unit.split_first().ok_or(Malformed("H.264 unit is empty"))?;
        if matches!(header & 0x1f, 0 | STAP_A..=31) {
            return Err(Malformed("H.264 aggregation packet holds a unit that is not a NAL unit"));
        }
        let part = nal_unit(header, body, true);
        match &mut seen {
            None => seen = Some(part),
            Some(s) => s.add(part),
        }
        rest = rest.get(from + size..).unwrap_or(&[]);
    }
    seen.ok_or(Malformed("H.264 aggregation packet is empty"))
}

fn fragment(indicator: u8, body: &[u8], skip: usize) -> Result<Seen, Malformed> {
    let (&fu, rest) = body.split_first().ok_or(Malformed("H.264 fragment has no header"))?;
    if matches!(fu & 0x1f, 0 | STAP_A..=31) {
        return Err(Malformed("H.264 fragment of a unit that is not a NAL unit"));
    }
    let rest = rest.get(skip..).ok_or(Malformed("H.264 FU-B is too short"))?;
    Ok(nal_unit((indicator & 0xe0) | (fu & 0x1f), rest, fu & 0x80 != 0))
}

/// A NAL unit, or with `first` false a later fragment of one.
fn nal_unit(header: u8, body: &[u8], first: bool) -> Seen {
    let kind = header & 0x1f;
    // A slice begins with ue(v) first_mb_in_slice: a one bit is 0, the first of its picture.
    let first_slice = matches!(kind, SLICE | PARTITION_A | IDR) && body.first().is_some_and(|b| b & 0x80 != 0);
    let leads = matches!(kind, SEI | SPS | PPS | DELIMITER | PREFIX | SUBSET_SPS);
    // recovery_frame_cnt: how many frames later the pictures are whole.
    let recovery = (first && kind == SEI).then(|| recovery_point(body)?.ue()).flatten();
    Seen {
        start: first && (first_slice || leads),
        independent: kind == IDR || recovery == Some(0),
        refresh: kind == SPS || recovery.is_some_and(|frames| frames > 0),
        // nal_ref_idc is 0: no picture refers to this one. Units that are not slices say nothing about it.
        discardable: header & 0x60 == 0 && (SLICE..IDR).contains(&kind),
        size: (first && kind == SPS).then(|| picture_size(body)).flatten(),
    }
}

/// Width and height after cropping, from a sequence parameter set (H.264 section 7.3.2.1.1) that is here in full.
fn picture_size(sps: &[u8]) -> Option<(u32, u32)> {
    let mut b = Bits::of_nal(sps);
    let profile = b.bits(8)?;
    b.skip(16)?; // constraints and level
    b.ue()?; // id
    let mut chroma = 1;
    let mut separate = false;
    if matches!(profile, 100 | 110 | 122 | 244 | 44 | 83 | 86 | 118 | 128 | 138 | 139 | 134 | 135) {
        chroma = b.ue()?;
        if chroma > 3 {
            return None;
        }
        separate = chroma == 3 && b.bit()?;
        b.ue()?; // luma depth
        b.ue()?; // chroma depth
        b.bit()?; // lossless
        if b.bit()? {
            skip_scaling_lists(&mut b, if chroma == 3 { 12 } else { 8 })?;
        }
    }
    b.ue()?; // log2_max_frame_num_minus4
    skip_order_count(&mut b)?;
    b.ue()?; // max_num_ref_frames
    b.bit()?; // gaps allowed
    let width_mbs = b.ue()?.checked_add(1)?;
    let height_units = b.ue()?.checked_add(1)?;
    let frames_only = u32::from(b.bit()?);
    if frames_only == 0 {
        b.bit()?; // mb_adaptive_frame_field
    }
    b.bit()?; // direct_8x8_inference
    let fields = 2 - frames_only;
    let width = width_mbs.checked_mul(16)?;
    let height = height_units.checked_mul(16)?.checked_mul(fields)?;
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
    let off_y = top.checked_add(bottom)?.checked_mul(unit_y * fields)?;
    believable(width.checked_sub(off_x)?, height.checked_sub(off_y)?)
}

/// Section 7.3.2.1.1.1.
fn skip_scaling_lists(b: &mut Bits<'_>, lists: u32) -> Option<()> {
    for list in 0..lists {
        if !b.bit()? {
            continue;
        }
        let (mut last, mut next) = (8_i32, 8_i32);
        for _ in 0..if list < 6 { 16 } else { 64 } {
            if next != 0 {
                next = last.checked_add(b.se()?)?.rem_euclid(256);
            }
            last = if next == 0 { last } else { next };
        }
    }
    Some(())
}

/// Picture order count: three types, of which the second has a list of at most 255 entries.
fn skip_order_count(b: &mut Bits<'_>) -> Option<()> {
    match b.ue()? {
        0 => b.ue().map(|_| ()),
        1 => {
            b.bit()?;
            b.se()?;
            b.se()?;
            let entries = b.ue().filter(|n| *n <= 255)?;
            for _ in 0..entries {
                b.se()?;
            }
            Some(())
        }
        2 => Some(()),
        _ => None,
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::super::bits::BitWriter;
    use super::*;

    /// A sequence parameter set of the high profile, 4:2:0, cropped by `crop` rows.
    pub(crate) fn sps(width_mbs: u32, height_mbs: u32, crop: u32) -> Vec<u8> {
        let w = BitWriter::default().bits(8, 100).bits(16, 0x0028).ue(0).ue(1).ue(0).ue(0).bits(1, 0);
        // One scaling list that ends at once (se(v) −8 as ue(v) 16), seven that are absent.
        let w = w.bits(1, 1).bits(1, 1).ue(16).bits(7, 0);
        let w = w.ue(0).ue(0).ue(4).ue(3).bits(1, 0).ue(width_mbs - 1).ue(height_mbs - 1).bits(2, 3);
        let w = if crop > 0 { w.bits(1, 1).ue(0).ue(0).ue(0).ue(crop / 2) } else { w.bits(1, 0) };
        let mut out = vec![0x67];
        out.extend(w.bits(1, 0).finish_nal());
        out
    }

    fn stap_a(units: &[&[u8]]) -> Vec<u8> {
        let mut out = vec![0x78];
        for u in units {
            out.extend_from_slice(&u16::try_from(u.len()).unwrap().to_be_bytes());
            out.extend_from_slice(u);
        }
        out
    }

    #[test]
    fn single_units_show_starts_key_frames_and_pictures_nobody_needs() {
        let seen = |p: &[u8]| inspect(p).unwrap();
        assert_eq!(seen(&[0x65, 0x88]), Seen { start: true, independent: true, ..Seen::default() });
        assert_eq!(seen(&[0x65, 0x08]), Seen { independent: true, ..Seen::default() }, "a later slice of the picture");
        assert_eq!(seen(&[0x41, 0x9a]), Seen { start: true, ..Seen::default() });
        assert_eq!(seen(&[0x01, 0x9a]), Seen { start: true, discardable: true, ..Seen::default() });
        assert_eq!(seen(&[0x09, 0xf0]), Seen { start: true, ..Seen::default() });
        assert_eq!(seen(&[0x0c, 0xff]), Seen::default(), "filler");
    }

    #[test]
    fn parameter_sets_and_gradual_refresh_do_not_make_a_picture_independent() {
        let seen = |p: &[u8]| inspect(p).map(|s| (s.start, s.independent, s.refresh)).unwrap();
        let sps = sps(120, 68, 8);
        assert_eq!(seen(&sps), (true, false, true));
        assert_eq!(seen(&[0x68, 0xce]), (true, false, false));
        // Recovery point after 0 and after 33 frames (1 is ue(v) 0; 0000 0100 010 is ue(v) 33), by itself and aggregated.
        let (at_once, later) = ([0x06, 6, 1, 0xc4, 0x80], [0x06, 6, 2, 0x04, 0x50, 0x80]);
        assert_eq!(seen(&at_once), (true, true, false));
        assert_eq!(seen(&later), (true, false, true));
        assert_eq!(seen(&stap_a(&[&sps, &[0x68, 0xce], &later, &[0x41, 0x9a]])), (true, false, true));
        assert_eq!(seen(&stap_a(&[&at_once, &[0x41, 0x9a]])), (true, true, false));
        assert_eq!(seen(&[0x06, 5, 1, 0xc4, 0x80]), (true, false, false), "another message");
        assert_eq!(seen(&[0x7c, 0x06, 6, 1, 0xc4]), (false, false, false), "the rest of a unit");
    }

    #[test]
    fn the_picture_size_is_the_cropped_one() {
        assert_eq!(inspect(&sps(120, 68, 8)).unwrap().size, Some((1920, 1080)));
        assert_eq!(inspect(&sps(240, 135, 0)).unwrap().size, Some((3840, 2160)));
        // Baseline 640 × 480 with order count type 2, byte by byte from the syntax table.
        let w = BitWriter::default().bits(8, 66).bits(16, 0xc01e).ue(0).ue(0).ue(2).ue(1).bits(1, 0);
        let w = w.ue(39).ue(29).bits(2, 3).bits(2, 0);
        let p = [&[0x67][..], &w.finish_nal()].concat();
        assert_eq!(inspect(&p).unwrap().size, Some((640, 480)));
    }

    #[test]
    fn interlaced_and_listed_order_counts_are_understood() {
        let w = BitWriter::default()
            .bits(8, 77)
            .bits(16, 0x0028)
            .ue(0)
            .ue(0)
            .ue(1)
            .bits(1, 0)
            .ue(0)
            .ue(0)
            .ue(2)
            .ue(1)
            .ue(2);
        let w = w.ue(3).bits(1, 0).ue(119).ue(33).bits(3, 0b011).bits(1, 1).ue(0).ue(0).ue(0).ue(2).bits(1, 0);
        let p = [&[0x67][..], &w.finish_nal()].concat();
        assert_eq!(inspect(&p).unwrap().size, Some((1920, 1080)));
    }

    #[test]
    fn a_size_that_cannot_be_is_not_believed() {
        assert_eq!(inspect(&sps(2000, 2000, 0)).unwrap().size, None);
        assert_eq!(inspect(&sps(1, 1, 16)).unwrap().size, None, "cropped to nothing");
        let whole = sps(120, 68, 8);
        for n in 1..whole.len() - 1 {
            assert_eq!(inspect(&whole[..n]).unwrap().size, None, "{n} bytes");
        }
    }

    #[test]
    fn an_aggregation_packet_shows_what_its_units_show() {
        let s = sps(120, 68, 8);
        let seen = inspect(&stap_a(&[&[0x09, 0x10], &s, &[0x68, 0xce], &[0x65, 0x88]])).unwrap();
        let want = Seen { start: true, independent: true, refresh: true, size: Some((1920, 1080)), ..Seen::default() };
        assert_eq!(seen, want);
        let parameters = inspect(&stap_a(&[&s, &[0x68, 0xce]])).unwrap();
        assert_eq!(
            parameters,
            Seen { independent: false, ..want },
            "as browsers send it before the fragments of a picture"
        );
        let b = [&[0x79, 0, 1][..], &stap_a(&[&[0x65, 0x88]])[1..]].concat();
        assert!(inspect(&b).unwrap().independent, "STAP-B");
        assert!(inspect(&[0x7a, 0, 1, 0, 2, 9, 9, 9, 0x65, 0x88]).unwrap().independent, "MTAP16");
        assert!(inspect(&[0x7b, 0, 1, 0, 2, 9, 9, 9, 9, 0x65, 0x88]).unwrap().independent, "MTAP24");
    }

    #[test]
    fn a_fragment_is_a_start_only_where_its_unit_begins() {
        assert_eq!(inspect(&[0x7c, 0x85, 0x88]).unwrap(), Seen { start: true, independent: true, ..Seen::default() });
        assert_eq!(inspect(&[0x7c, 0x05, 0x88]).unwrap(), Seen { independent: true, ..Seen::default() });
        assert_eq!(inspect(&[0x7c, 0x41, 0x88]).unwrap(), Seen::default());
        assert!(inspect(&[0x7d, 0x85, 0, 1, 0x88]).unwrap().start, "FU-B");
    }

    #[test]
    fn an_aggregation_packet_that_lies_about_its_units_is_malformed() {
        for p in [
            &[0x78][..],
            &[0x78, 0],
            &[0x78, 0, 0],
            &[0x78, 0, 0, 0x65],
            &[0x78, 0, 9, 0x65],
            &[0x78, 0, 1, 0x65, 0],
            &[0x78, 0, 1, 0x65, 0, 0],
            &[0x78, 0xff, 0xff, 0x65],
            &[0x78, 0, 2, 0x78, 0],
            &[0x79, 0],
            &[0x7a, 0, 1, 0, 2, 9, 9],
            &[0x7b],
        ] {
            assert!(inspect(p).is_err(), "{p:02x?}");
        }
    }

    #[test]
    fn fragments_without_headers_and_reserved_types_are_malformed() {
        for p in
            [&[][..], &[0x7c], &[0x7c, 0x80 | 28], &[0x7c, 0x80], &[0x7d, 0x85, 0], &[0x60], &[0x7e, 1], &[0x7f, 1]]
        {
            assert!(inspect(p).is_err(), "{p:02x?}");
        }
    }
}
