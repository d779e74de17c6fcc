//! What an RTP payload says about its frame, codec by codec: whether it can be decoded by itself, and the profile of its
//! parameter sets.

use super::codec::{Codec, h265_fmtp};

/// NAL unit types (H.264 table 7-1, RFC 6184 section 5.2).
const NAL_IDR: u8 = 5;
const NAL_SPS: u8 = 7;
const NAL_STAP_A: u8 = 24;
const NAL_FU_A: u8 = 28;
/// NAL unit types (H.265 table 7-1, RFC 7798 section 4.4): the first and last of those that a decoder can start at.
const H265_IRAP: std::ops::RangeInclusive<u8> = 16..=21;
const H265_SPS: u8 = 33;
const H265_AP: u8 = 48;
const H265_FU: u8 = 49;

/// Whether the payload belongs to a frame that can be decoded without any other. Of a frame's packets at least the first
/// says so.
pub(super) fn is_independent(codec: Codec, payload: &[u8]) -> bool {
    match codec {
        Codec::H264 => h264_units(payload).any(|(kind, _)| kind == NAL_IDR),
        Codec::H265 => h265_units(payload).any(|(kind, _)| H265_IRAP.contains(&kind)),
        // N of the aggregation header: the first packet of a coded video sequence (AV1 payload format, section 4.4).
        Codec::Av1 => payload.first().is_some_and(|header| header & 0x08 != 0),
        Codec::Vp8 => vp8_is_key(payload),
        // P of the payload descriptor says inter-picture predicted, B the start of a frame (RFC 9628 section 4.2).
        Codec::Vp9 => payload.first().is_some_and(|d| d & 0x40 == 0 && d & 0x08 != 0),
        Codec::Raw | Codec::J2k | Codec::Opus => true,
    }
}

/// `a=fmtp` from parameter sets in the payload; none where there are none, or the codec has none.
pub(super) fn fmtp(codec: Codec, payload: &[u8]) -> Option<String> {
    match codec {
        Codec::H264 => h264_units(payload).find_map(sps_profile).map(|p| h264_fmtp(&p)),
        Codec::H265 => h265_units(payload).find_map(h265_profile).map(h265_fmtp),
        _ => None,
    }
}

/// `a=fmtp` of H.264 in packets of our payloader.
pub(super) fn h264_fmtp(profile_level_id: &str) -> String {
    format!("level-asymmetry-allowed=1;packetization-mode=1;profile-level-id={profile_level_id}")
}

/// The units of an aggregation packet: a length of two bytes before each (RFC 6184 section 5.7.1, RFC 7798 section 4.4.2).
fn aggregated(mut rest: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (size, tail) = rest.split_first_chunk::<2>()?;
        let (unit, tail) = tail.split_at_checked(usize::from(u16::from_be_bytes(*size)))?;
        rest = tail;
        Some(unit)
    })
}

/// Type and bytes of the NAL units that a payload carries whole, or of the one that it carries a part of (RFC 6184
/// sections 5.6 to 5.8).
fn h264_units(payload: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    let kind = payload.first().map_or(0, |b| b & 0x1f);
    let rest = if kind == NAL_STAP_A { payload.get(1..).unwrap_or_default() } else { &[] };
    let single = match kind {
        NAL_STAP_A => None,
        NAL_FU_A => payload.get(1).map(|b| (b & 0x1f, payload.get(2..).unwrap_or_default())),
        _ => Some((kind, payload)),
    };
    single.into_iter().chain(aggregated(rest).filter_map(|unit| Some((unit.first()? & 0x1f, unit))))
}

/// The same for H.265 (RFC 7798 sections 4.4.1 to 4.4.3).
fn h265_units(payload: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    let kind_of = |b: &u8| (b >> 1) & 0x3f;
    let kind = payload.first().map_or(0, kind_of);
    let rest = if kind == H265_AP { payload.get(2..).unwrap_or_default() } else { &[] };
    let single = match kind {
        H265_AP => None,
        H265_FU => payload.get(2).map(|b| (b & 0x3f, payload.get(3..).unwrap_or_default())),
        _ => Some((kind, payload)),
    };
    single.into_iter().chain(aggregated(rest).filter_map(move |unit| Some((kind_of(unit.first()?), unit))))
}

fn sps_profile((kind, unit): (u8, &[u8])) -> Option<String> {
    match unit {
        [_, profile, flags, level, ..] if kind == NAL_SPS => Some(format!("{profile:02x}{flags:02x}{level:02x}")),
        _ => None,
    }
}

/// The general part of `profile_tier_level`, which follows the two bytes of NAL unit header and one of ids (H.265 section
/// 7.3.2.2), without emulation prevention.
fn h265_profile((kind, unit): (u8, &[u8])) -> Option<[u8; 12]> {
    if kind != H265_SPS {
        return None;
    }
    let mut out = [0; 12];
    let (mut zeros, mut bytes) = (0, unit.get(3..)?.iter());
    for slot in &mut out {
        let mut byte = *bytes.next()?;
        if zeros >= 2 && byte == 3 {
            (zeros, byte) = (0, *bytes.next()?);
        }
        zeros = if byte == 0 { zeros + 1 } else { 0 };
        *slot = byte;
    }
    Some(out)
}

/// The first packet of a key frame (RFC 7741 sections 4.2 and 4.3).
fn vp8_is_key(payload: &[u8]) -> bool {
    let Some(descriptor) = payload.first() else { return false };
    let starts = descriptor & 0x10 != 0 && descriptor & 0x07 == 0;
    let mut at = 1;
    if descriptor & 0x80 != 0 {
        let Some(extension) = payload.get(1) else { return false };
        at += 1;
        if extension & 0x80 != 0 {
            let long = payload.get(at).is_some_and(|b| b & 0x80 != 0);
            at += if long { 2 } else { 1 };
        }
        at += usize::from(extension & 0x40 != 0) + usize::from(extension & 0x30 != 0);
    }
    starts && payload.get(at).is_some_and(|header| header & 0x01 == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broken_payloads_are_no_key_frames() {
        let nal: [&[u8]; 8] = [&[], &[24], &[24, 0], &[24, 0, 9, 5], &[28], &[24, 0, 0], &[96, 1, 0], &[98, 1]];
        for payload in nal {
            for codec in [Codec::H264, Codec::H265] {
                assert!(!is_independent(codec, payload), "{codec:?} {payload:?}");
            }
        }
        let vp8: [&[u8]; 4] = [&[0x10], &[0x90], &[0x90, 0x80], &[0x90, 0x80, 0x81, 2]];
        for payload in vp8 {
            assert!(!is_independent(Codec::Vp8, payload), "{payload:?}");
        }
        for codec in [Codec::H264, Codec::H265, Codec::Av1, Codec::Vp8, Codec::Vp9] {
            assert!(!is_independent(codec, &[]), "{codec:?}");
        }
    }

    #[test]
    fn h264_is_read_from_single_aggregated_and_fragmented_units() {
        let parameters = [24, 0, 5, 0x67, 0x42, 0xc0, 0x1f, 9, 0, 2, 0x68, 1];
        assert!(!is_independent(Codec::H264, &parameters));
        assert!(fmtp(Codec::H264, &parameters).unwrap().ends_with("profile-level-id=42c01f"));
        assert!(is_independent(Codec::H264, &[28, 0x85, 1, 2]) && is_independent(Codec::H264, &[0x65, 1]));
        assert!(!is_independent(Codec::H264, &[28, 0x81, 1, 2]) && !is_independent(Codec::H264, &[0x41, 1]));
    }

    #[test]
    fn h265_is_read_from_single_aggregated_and_fragmented_units() {
        // IDR_W_RADL (19) and TRAIL_R (1).
        assert!(is_independent(Codec::H265, &[19 << 1, 1, 0]) && !is_independent(Codec::H265, &[1 << 1, 1, 0]));
        assert!(is_independent(Codec::H265, &[49 << 1, 1, 0x80 | 19, 0]));
        assert!(is_independent(Codec::H265, &[48 << 1, 1, 0, 3, 19 << 1, 1, 7]));
        // Main profile, level 3.1, with two emulation prevention bytes in it.
        let sps = [33 << 1, 1, 1, 1, 0x60, 0, 0, 3, 0, 0x90, 0, 0, 3, 0, 0, 3, 0, 93, 0xa0];
        let text = fmtp(Codec::H265, &sps).unwrap();
        assert_eq!(text, "level-id=93;profile-id=1;profile-space=0;tier-flag=0;tx-mode=SRST");
        assert_eq!(fmtp(Codec::H265, &sps[..9]), None);
    }

    #[test]
    fn vp8_vp9_and_av1_say_it_in_their_first_byte_or_behind_the_descriptor() {
        assert!(is_independent(Codec::Vp8, &[0x10, 0x10]) && !is_independent(Codec::Vp8, &[0x10, 0x11]));
        assert!(!is_independent(Codec::Vp8, &[0x00, 0x10]), "not the first packet");
        assert!(is_independent(Codec::Vp8, &[0x90, 0x80, 0x81, 0x02, 0x10]));
        assert!(!is_independent(Codec::Vp8, &[0x90, 0x80, 0x81, 0x02, 0x11]));
        assert!(is_independent(Codec::Vp9, &[0x88]) && !is_independent(Codec::Vp9, &[0xc8]));
        assert!(is_independent(Codec::Av1, &[0x18]) && !is_independent(Codec::Av1, &[0x10]));
    }
}
