//! Which codecs are offered, and which packets begin a picture that can be decoded by itself.

use rtc::peer_connection::configuration::media_engine::MediaEngine;
use rtc::rtp_transceiver::rtp_sender::{
    RTCPFeedback, RTCRtpCodec, RTCRtpCodecParameters, RTCRtpHeaderExtensionCapability, RtpCodecKind,
};
use trocar_proto::media::ext::ABS_CAPTURE_TIME_URI;

/// Payload types that may be given out (RFC 3551 section 6, RFC 5761 section 4): first these, then the lower ones.
const PAYLOAD_TYPES: [std::ops::RangeInclusive<u8>; 2] = [96..=127, 35..=63];

/// Encoding name and format parameters of what can be received, by preference. H.264 at level 5.2, which is 4K at 60.
const VIDEO: [(&str, &str); 12] = [
    ("H264", "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e034"),
    ("H264", "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=420034"),
    ("H264", "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=4d0034"),
    ("H264", "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=640034"),
    ("H264", "level-asymmetry-allowed=1;packetization-mode=0;profile-level-id=42e034"),
    ("H265", ""),
    ("VP9", "profile-id=0"),
    ("VP9", "profile-id=2"),
    ("AV1", ""),
    ("VP8", ""),
    ("H264", "level-asymmetry-allowed=1;packetization-mode=0;profile-level-id=4d0034"),
    ("H264", "level-asymmetry-allowed=1;packetization-mode=0;profile-level-id=640034"),
];
/// RFC 7587 section 7.
pub(super) const OPUS_FMTP: &str = "minptime=10;useinbandfec=1";

/// A codec as the `webrtc` crate wants it.
pub(super) fn codec(kind: RtpCodecKind, name: &str, fmtp: &str, clock_rate: u32, channels: u16) -> RTCRtpCodec {
    let feedback = |typ: &str, parameter: &str| RTCPFeedback { typ: typ.to_owned(), parameter: parameter.to_owned() };
    let (family, rtcp_feedback) = match kind {
        RtpCodecKind::Video => ("video", vec![feedback("ccm", "fir"), feedback("nack", ""), feedback("nack", "pli")]),
        _ => ("audio", Vec::new()),
    };
    RTCRtpCodec {
        mime_type: format!("{family}/{name}"),
        clock_rate,
        channels,
        sdp_fmtp_line: fmtp.to_owned(),
        rtcp_feedback,
    }
}

/// All that can be received, each picture codec with its retransmissions (RFC 4588).
pub(super) fn all() -> Result<MediaEngine, webrtc::error::Error> {
    let mut engine = MediaEngine::default();
    let mut free = PAYLOAD_TYPES.into_iter().flatten();
    let opus = codec(RtpCodecKind::Audio, "opus", OPUS_FMTP, 48_000, 2);
    let opus = RTCRtpCodecParameters { rtp_codec: opus, payload_type: free.next().unwrap_or_default() };
    engine.register_codec(opus, RtpCodecKind::Audio)?;
    for (name, fmtp) in VIDEO {
        add_video(&mut engine, codec(RtpCodecKind::Video, name, fmtp, 90_000, 0), &mut free)?;
    }
    Ok(engine)
}

/// These alone, each with its payload type; and that pictures and sound carry their capture time.
pub(super) fn only(codecs: &[(RtpCodecKind, RTCRtpCodec, u8)]) -> Result<MediaEngine, webrtc::error::Error> {
    let mut engine = MediaEngine::default();
    let taken: Vec<u8> = codecs.iter().map(|(_, _, payload_type)| *payload_type).collect();
    let mut free = PAYLOAD_TYPES.into_iter().flatten().filter(|p| !taken.contains(p));
    for (kind, one, payload_type) in codecs {
        if *kind == RtpCodecKind::Video {
            let mut types = std::iter::once(*payload_type).chain(&mut free);
            add_video(&mut engine, one.clone(), &mut types)?;
        } else {
            let codec = RTCRtpCodecParameters { rtp_codec: one.clone(), payload_type: *payload_type };
            engine.register_codec(codec, *kind)?;
        }
        let capture = RTCRtpHeaderExtensionCapability { uri: ABS_CAPTURE_TIME_URI.to_owned() };
        engine.register_header_extension(capture, *kind, None)?;
    }
    Ok(engine)
}

fn add_video(
    engine: &mut MediaEngine,
    one: RTCRtpCodec,
    types: &mut impl Iterator<Item = u8>,
) -> Result<(), webrtc::error::Error> {
    let (Some(payload_type), Some(rtx)) = (types.next(), types.next()) else { return Ok(()) };
    engine.register_codec(RTCRtpCodecParameters { rtp_codec: one, payload_type }, RtpCodecKind::Video)?;
    let repair = RTCRtpCodec {
        mime_type: "video/rtx".to_owned(),
        clock_rate: 90_000,
        channels: 0,
        sdp_fmtp_line: format!("apt={payload_type}"),
        rtcp_feedback: Vec::new(),
    };
    engine.register_codec(RTCRtpCodecParameters { rtp_codec: repair, payload_type: rtx }, RtpCodecKind::Video)
}

/// Whether this payload, one of a frame's, says that the frame can be decoded by itself. False for what is not known.
pub(super) fn begins_independent(codec: &str, payload: &[u8]) -> bool {
    let first = payload.first().copied().unwrap_or(0);
    match codec.to_ascii_uppercase().as_str() {
        "H264" => h264(payload),
        "H265" => h265(payload),
        "VP8" => vp8(payload),
        // Not predicted from an earlier picture, and the beginning of a frame (RFC 9628 section 4.2).
        "VP9" => first & 0x40 == 0 && first & 0x08 != 0,
        // A new coded video sequence (AV1 RTP specification section 4.4).
        "AV1" => first & 0x08 != 0,
        "OPUS" => true,
        _ => false,
    }
}

/// An IDR slice or a parameter set (RFC 6184 section 5.4).
fn h264(payload: &[u8]) -> bool {
    let wanted = |kind: u8| matches!(kind & 0x1f, 5 | 7);
    match payload {
        // STAP-A: its first unit is enough, since parameter sets come first.
        [first, _, _, unit, ..] if first & 0x1f == 24 => wanted(*unit),
        [first, unit, ..] if first & 0x1f == 28 => unit & 0x80 != 0 && wanted(*unit),
        [first, ..] => wanted(*first),
        [] => false,
    }
}

/// A random access point or a parameter set (RFC 7798 section 4.4).
fn h265(payload: &[u8]) -> bool {
    let wanted = |kind: u8| matches!(kind, 16..=21 | 32..=34);
    let kind = |b: u8| (b >> 1) & 0x3f;
    match payload {
        [first, _, _, _, unit, ..] if kind(*first) == 48 => wanted(kind(*unit)),
        [first, _, unit, ..] if kind(*first) == 49 => unit & 0x80 != 0 && wanted(unit & 0x3f),
        [first, _, ..] => wanted(kind(*first)),
        _ => false,
    }
}

/// The first partition of a frame whose header says key frame (RFC 7741 sections 4.2 and 4.3).
fn vp8(payload: &[u8]) -> bool {
    let Some((&descriptor, rest)) = payload.split_first() else { return false };
    if descriptor & 0x10 == 0 || descriptor & 0x07 != 0 {
        return false;
    }
    let mut skip = 0;
    if descriptor & 0x80 != 0 {
        let flags = rest.first().copied().unwrap_or(0);
        let long_id = rest.get(1).is_some_and(|id| id & 0x80 != 0);
        let picture_id = if flags & 0x80 == 0 { 0 } else { 1 + usize::from(long_id) };
        skip = 1 + picture_id + usize::from(flags & 0x40 != 0) + usize::from(flags & 0x30 != 0);
    }
    rest.get(skip).is_some_and(|header| header & 0x01 == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_frames_are_told_from_others_in_every_codec() {
        let key: [(&str, &[u8]); 11] = [
            ("H264", &[0x67, 0x42]),
            ("H264", &[0x65]),
            ("H264", &[24, 0, 2, 0x67, 0x42]),
            ("h264", &[28, 0x85]),
            ("H265", &[0x26, 1, 0]),
            ("H265", &[0x40, 1, 0]),
            ("H265", &[98, 1, 0x93]),
            ("VP8", &[0x10, 0x00]),
            ("VP8", &[0x90, 0xc0, 0x80, 1, 5, 0x02]),
            ("VP9", &[0x08]),
            ("AV1", &[0x18]),
        ];
        for (codec, payload) in key {
            assert!(begins_independent(codec, payload), "{codec} {payload:?}");
        }
        let other: [(&str, &[u8]); 12] = [
            ("H264", &[0x41]),
            ("H264", &[28, 0x45]),
            ("H264", &[24, 0, 2, 0x41, 0x42]),
            ("H264", &[]),
            ("H265", &[0x02, 1]),
            ("H265", &[98, 1, 0x13]),
            ("VP8", &[0x10, 0x01]),
            ("VP8", &[0x00, 0x00]),
            ("VP8", &[0x90, 0xc0, 0x80, 1, 5, 0x03]),
            ("VP9", &[0x48]),
            ("AV1", &[0x10]),
            ("raw", &[0, 0, 0]),
        ];
        for (codec, payload) in other {
            assert!(!begins_independent(codec, payload), "{codec} {payload:?}");
        }
    }

    #[test]
    fn everything_that_is_offered_has_a_payload_type_of_its_own() {
        assert!(all().is_ok());
        let room: usize = PAYLOAD_TYPES.into_iter().map(Iterator::count).sum();
        assert!(VIDEO.len() * 2 < room);
    }
}
