//! Which payload type carries a feed: what a viewer's offer can show, and what the relay takes of a publisher's offer.

use super::h264;
use super::sdp::{Codec, Media, fmtp_value};
use std::collections::BTreeMap;

/// Codecs that the relay knows how to forward, by kind.
const VIDEO: [&str; 5] = ["H264", "H265", "VP8", "VP9", "AV1"];
const AUDIO: [&str; 1] = ["opus"];

/// How well a payload type fits. A greater one is taken first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fit {
    /// It should show, although the offer's level is below the stream's.
    AboveLevel,
    /// Another profile, which contains the stream's.
    Contains,
    /// The stream's own profile, in a packetization mode that contains the stream's.
    OtherMode,
    /// The stream's own profile.
    Exact,
}

/// The viewer's payload type for a feed of that codec, the best one that fits, in the offer's order among equals. None
/// where the viewer cannot decode it.
#[must_use]
pub fn choose_for_viewer<'a>(media: &'a Media, encoding_name: &str, fmtp: &str, clock_rate: u32) -> Option<&'a Codec> {
    let mut best: Option<(Fit, &Codec)> = None;
    for codec in media.codecs.iter().filter(|c| c.name.eq_ignore_ascii_case(encoding_name)) {
        if codec.clock_rate != clock_rate {
            continue;
        }
        if let Some(fit) = fit(codec, encoding_name, fmtp)
            && best.is_none_or(|(b, _)| fit > b)
        {
            best = Some((fit, codec));
        }
    }
    best.map(|(_, c)| c)
}

fn fit(codec: &Codec, encoding_name: &str, stream: &str) -> Option<Fit> {
    let exact = |ok: bool| ok.then_some(Fit::Exact);
    match encoding_name.to_ascii_uppercase().as_str() {
        "H264" => h264::fit(&codec.fmtp, stream),
        "H265" => h265(&codec.fmtp, stream),
        "AV1" => av1(&codec.fmtp, stream),
        "VP8" => Some(Fit::Exact),
        // RFC 9628 section 6.1: without profile-id it is profile 0.
        "VP9" => exact(number(&codec.fmtp, "profile-id", 0)? == number(stream, "profile-id", 0)?),
        // RFC 7587 section 7: always two channels in SDP; the parameters are wishes of a receiver.
        "OPUS" => exact(codec.clock_rate == 48_000 && codec.channels == Some(2)),
        _ => exact(parameters(&codec.fmtp) == parameters(stream)),
    }
}

/// The value of a numeric parameter, or its default. None where it is no number.
fn number(fmtp: &str, key: &str, default: u32) -> Option<u32> {
    fmtp_value(fmtp, key).map_or(Some(default), |v| v.parse().ok())
}

/// RFC 7798 section 7.1. A level is the highest that the receiver decodes, and browsers offer what their hardware has: it
/// is compared.
fn h265(offer: &str, stream: &str) -> Option<Fit> {
    let read = |fmtp: &str| {
        let profile = (number(fmtp, "profile-space", 0)?, number(fmtp, "profile-id", 1)?);
        Some((profile, number(fmtp, "tier-flag", 0)?, number(fmtp, "level-id", 93)?))
    };
    let ((space, profile), tier, level) = read(offer)?;
    let ((stream_space, stream_profile), stream_tier, stream_level) = read(stream)?;
    let level = number(offer, "max-recv-level-id", level)?.max(level);
    let mode = |fmtp| fmtp_value(fmtp, "tx-mode").unwrap_or("SRST").to_ascii_uppercase();
    if space != stream_space || stream_tier > tier || stream_level > level || mode(offer) != mode(stream) {
        return None;
    }
    match (profile, stream_profile) {
        (a, b) if a == b => Some(Fit::Exact),
        // Main 10 decodes Main and Main Still Picture, Main decodes Main Still Picture (H.265 section A.3).
        (2, 1 | 3) | (1, 3) => Some(Fit::Contains),
        _ => None,
    }
}

/// Section 7.2 of the RTP payload format for AV1. Professional decodes High, High decodes Main. Browsers offer level 3.1
/// (`level-idx=5`, which is also the default) and decode far more, so a level below the stream's only comes last.
fn av1(offer: &str, stream: &str) -> Option<Fit> {
    let read =
        |fmtp: &str| Some((number(fmtp, "profile", 0)?, number(fmtp, "tier", 0)?, number(fmtp, "level-idx", 5)?));
    let (profile, tier, level) = read(offer)?;
    let (stream_profile, stream_tier, stream_level) = read(stream)?;
    if profile > 2 || stream_profile > profile || stream_tier > tier {
        None
    } else if stream_level > level {
        Some(Fit::AboveLevel)
    } else if stream_profile == profile {
        Some(Fit::Exact)
    } else {
        Some(Fit::Contains)
    }
}

/// Format parameters without regard to their order, to spaces, or to the case of their names.
fn parameters(fmtp: &str) -> BTreeMap<String, &str> {
    fmtp.split(';')
        .map(str::trim)
        .filter(|p| !p.is_empty())
        .map(|p| p.split_once('=').unwrap_or((p, "")))
        .map(|(k, v)| (k.trim_end().to_ascii_lowercase(), v.trim_start()))
        .collect()
}

/// What the relay takes of a publisher's m-line: the first of `preferred` that is offered, else the first codec in the
/// offer's order, of those that the relay forwards. Repair, redundancy, comfort noise and tones are none of them.
#[must_use]
pub fn choose_from_publisher<'a>(media: &'a Media, preferred: &[&str]) -> Option<&'a Codec> {
    let known: &[&str] = match media.kind.as_str() {
        "video" => &VIDEO,
        "audio" => &AUDIO,
        _ => &[],
    };
    let is = |c: &Codec, name: &str| c.name.eq_ignore_ascii_case(name);
    let takes = |c: &&Codec| known.iter().any(|k| is(c, k)) && is_forwarded(c);
    let mut wanted = preferred.iter().filter_map(|p| media.codecs.iter().filter(takes).find(|c| is(c, p)));
    wanted.next().or_else(|| media.codecs.iter().find(takes))
}

/// Whether the relay forwards a known codec in that form.
fn is_forwarded(c: &Codec) -> bool {
    match c.name.to_ascii_uppercase().as_str() {
        "OPUS" => c.clock_rate == 48_000 && c.channels == Some(2),
        // Interleaved mode sends out of decoding order (RFC 6184 section 6.4); no browser shows it.
        "H264" => c.clock_rate == 90_000 && matches!(h264::packetization_mode(&c.fmtp), "0" | "1"),
        _ => c.clock_rate == 90_000,
    }
}

/// The RTX payload type that goes with `payload_type` (RFC 4588 section 8.1).
#[must_use]
pub fn rtx_for(media: &Media, payload_type: u8) -> Option<u8> {
    let repairs = |c: &&Codec| {
        c.name.eq_ignore_ascii_case("rtx")
            && fmtp_value(&c.fmtp, "apt").and_then(|a| a.parse::<u8>().ok()) == Some(payload_type)
    };
    media.codecs.iter().find(repairs).map(|c| c.payload_type)
}

/// The payload type of FlexFEC-03 in an m-line, in the form that Chromium knows: one stream of repair for one of media.
#[must_use]
pub fn fec_for(media: &Media, clock_rate: u32) -> Option<u8> {
    let repairs = |c: &&Codec| c.name.eq_ignore_ascii_case("flexfec-03") && c.clock_rate == clock_rate;
    media.codecs.iter().find(repairs).map(|c| c.payload_type)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An m-line with payload types from 100 on.
    fn media(kind: &str, codecs: &[(&str, &str)]) -> Media {
        let codecs = codecs
            .iter()
            .zip(100..)
            .map(|((rtpmap, fmtp), payload_type)| {
                let mut parts = rtpmap.split('/');
                Codec {
                    payload_type,
                    name: parts.next().unwrap().to_owned(),
                    clock_rate: parts.next().unwrap().parse().unwrap(),
                    channels: parts.next().map(|c| c.parse().unwrap()),
                    fmtp: (*fmtp).to_owned(),
                    ..Codec::default()
                }
            })
            .collect();
        Media { kind: kind.to_owned(), codecs, ..Media::default() }
    }

    fn viewer(name: &str, offered: &[&str], stream: &str) -> Option<u8> {
        let rtpmap = format!("{name}/90000");
        let codecs: Vec<(&str, &str)> = offered.iter().map(|f| (rtpmap.as_str(), *f)).collect();
        choose_for_viewer(&media("video", &codecs), name, stream, 90_000).map(|c| c.payload_type)
    }

    #[test]
    fn a_mode_1_stream_needs_a_mode_1_viewer_and_a_mode_0_stream_suits_both() {
        let mode = |m: &str| format!("packetization-mode={m};profile-level-id=42e01f");
        let (zero, one, two) = (mode("0"), mode("1"), mode("2"));
        let absent = "profile-level-id=42e01f";
        assert_eq!(viewer("H264", &[&zero, &one], &one), Some(101));
        assert_eq!(viewer("H264", &[&zero], &one), None);
        assert_eq!(viewer("H264", &[absent], &one), None, "no parameter means mode 0");
        assert_eq!(viewer("H264", &[&one], &zero), Some(100));
        assert_eq!(viewer("H264", &[&one, &zero], &zero), Some(101), "its own mode comes first");
        assert_eq!(viewer("H264", &[&one, absent], absent), Some(101));
        assert_eq!(viewer("H264", &[&zero, &one], &two), None);
        assert_eq!(viewer("H264", &[&two], &two), Some(100));
        assert_eq!(viewer("H264", &[&two], &one), None);
    }

    fn viewer_h264(profiles: &[&str], stream: &str) -> Option<u8> {
        let of = |p: &str| format!("packetization-mode=1;profile-level-id={p}");
        let offered: Vec<String> = profiles.iter().map(|p| of(p)).collect();
        viewer("H264", &offered.iter().map(String::as_str).collect::<Vec<_>>(), &of(stream))
    }

    #[test]
    fn the_exact_h264_profile_comes_before_one_that_merely_decodes_it() {
        let browser = ["42001f", "4d001f", "42e01f"];
        assert_eq!(viewer_h264(&browser, "42c02a"), Some(102));
        assert_eq!(viewer_h264(&browser, "4d0033"), Some(101));
        assert_eq!(viewer_h264(&browser, "640033"), None, "nobody here decodes High");
        assert_eq!(viewer_h264(&["640033"], "4d0033"), Some(100));
        assert_eq!(viewer("H264", &["packetization-mode=1;profile-level-id=42e01f"], ""), None);
    }

    #[test]
    fn ten_bits_and_4_2_2_go_only_to_who_says_that_it_decodes_them() {
        let browser = ["42001f", "42e01f", "4d001f", "f4001f"];
        assert_eq!(viewer_h264(&browser, "640033"), Some(103));
        for p in ["6e0033", "7a0033"] {
            assert_eq!(viewer_h264(&browser, p), None, "{p}");
            assert_eq!(viewer_h264(&["7a0033"], p), Some(100), "{p}");
        }
        assert_eq!(viewer_h264(&browser, "xyz"), None);
    }

    #[test]
    fn h265_compares_profile_tier_and_level_with_the_defaults_of_the_rfc() {
        let main = "level-id=120;profile-id=1;tier-flag=0;tx-mode=SRST";
        let main10 = "level-id=180;profile-id=2;tier-flag=0;tx-mode=SRST";
        assert_eq!(viewer("H265", &[main10, main], "profile-id=1;level-id=120"), Some(101));
        assert_eq!(viewer("H265", &[main10, main], "profile-id=1;level-id=150"), Some(100), "only that level suffices");
        assert_eq!(viewer("H265", &[main], "profile-id=2;level-id=93"), None, "Main does not decode 10 bits");
        assert_eq!(viewer("H265", &[""], ""), Some(100));
        assert_eq!(viewer("H265", &[""], "level-id=120"), None, "the default level is 3.1");
        assert_eq!(viewer("H265", &["max-recv-level-id=153"], "level-id=120"), Some(100));
        assert_eq!(viewer("H265", &["level-id=120"], "level-id=120;tier-flag=1"), None);
        assert_eq!(viewer("H265", &[main], "profile-space=1;level-id=93"), None);
        assert_eq!(viewer("H265", &[main], "level-id=93;tx-mode=MRST"), None);
        assert_eq!(viewer("H265", &["profile-id=abc"], ""), None);
    }

    #[test]
    fn av1_compares_profile_and_tier_and_prefers_a_level_that_suffices() {
        let browser = "level-idx=5;profile=0;tier=0";
        assert_eq!(viewer("AV1", &[browser], "profile=0;level-idx=8"), Some(100));
        assert_eq!(viewer("AV1", &[browser, "profile=0;level-idx=13"], "profile=0;level-idx=8"), Some(101));
        assert_eq!(viewer("AV1", &["profile=1", browser], ""), Some(101), "the exact profile comes first");
        assert_eq!(viewer("AV1", &["profile=1"], ""), Some(100));
        assert_eq!(viewer("AV1", &[browser], "profile=1"), None);
        assert_eq!(viewer("AV1", &[browser], "profile=0;tier=1"), None);
        assert_eq!(viewer("AV1", &["profile=7"], ""), None);
    }

    #[test]
    fn vp9_goes_by_profile_and_vp8_by_name() {
        assert_eq!(viewer("VP9", &["profile-id=2", "profile-id=0"], ""), Some(101));
        assert_eq!(viewer("VP9", &["", "profile-id=2"], "profile-id=2"), Some(101));
        assert_eq!(viewer("VP9", &[""], "profile-id=2"), None);
        assert_eq!(viewer("VP8", &["max-fr=30"], ""), Some(100));
    }

    #[test]
    fn opus_is_48000_and_2_channels_and_anything_else_goes_by_name_and_parameters() {
        let m = media("audio", &[("opus/48000", ""), ("OPUS/48000/2", "minptime=10"), ("L24/48000/2", "")]);
        let pick = |name: &str, fmtp: &str, rate| choose_for_viewer(&m, name, fmtp, rate).map(|c| c.payload_type);
        assert_eq!(pick("opus", "stereo=1", 48_000), Some(101));
        assert_eq!(pick("L24", "", 48_000), Some(102));
        assert_eq!(pick("L24", "", 96_000), None);
        assert_eq!(pick("L24", "x=1", 48_000), None);
        assert_eq!(viewer("raw", &["Width=8; depth=10"], "depth=10;width=8"), Some(100));
        assert_eq!(viewer("raw", &["width=8;depth=8"], "width=8;depth=10"), None);
    }

    #[test]
    fn of_a_publisher_the_first_known_codec_is_taken_unless_another_is_preferred() {
        let m = media(
            "video",
            &[
                ("rtx/90000", "apt=101"),
                ("red/90000", ""),
                ("H264/90000", "packetization-mode=2;profile-level-id=42e01f"),
                ("VP8/90000", ""),
                ("H264/90000", "packetization-mode=1;profile-level-id=42e01f"),
                ("ulpfec/90000", ""),
                ("flexfec-03/90000", "repair-window=1"),
            ],
        );
        let pick = |preferred: &[&str]| choose_from_publisher(&m, preferred).map(|c| c.payload_type);
        assert_eq!(pick(&[]), Some(103));
        assert_eq!(pick(&["AV1", "h264"]), Some(104), "the interleaved one is passed over");
        assert_eq!(pick(&["H265"]), Some(103), "a wish that is not offered changes nothing");
        assert_eq!(pick(&["red"]), Some(103));
        let a = media(
            "audio",
            &[("CN/8000", ""), ("telephone-event/48000", ""), ("red/48000/2", "111/111"), ("opus/48000/2", "")],
        );
        assert_eq!(choose_from_publisher(&a, &[]).map(|c| c.payload_type), Some(103));
        assert_eq!(choose_from_publisher(&media("audio", &[("VP8/90000", "")]), &[]), None);
    }

    #[test]
    fn rtx_belongs_to_its_payload_type() {
        let m = media("video", &[("VP8/90000", ""), ("rtx/90000", "apt=100"), ("rtx/90000", "apt=300")]);
        assert_eq!(rtx_for(&m, 100), Some(101));
        assert_eq!(rtx_for(&m, 44), None);
        assert_eq!(fec_for(&m, 90_000), None);
        let m = media("video", &[("VP8/90000", ""), ("FLEXFEC-03/90000", "repair-window=10000000")]);
        assert_eq!((fec_for(&m, 90_000), fec_for(&m, 48_000)), (Some(101), None));
    }
}
