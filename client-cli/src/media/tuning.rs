//! Encoders set up so that a frame leaves as soon as it is encoded: no look-ahead, no B frames, no frame threads; and what
//! one costs, so that nobody asks a machine for more than it has.

use super::codec::Codec;
use super::elements::make;
use super::error::MediaError;
use super::spec::{EncodeSettings, Geometry, Profile};
use gst::prelude::*;
use gstreamer as gst;

/// Slices or tiles of a frame that are encoded side by side: more would cost compression, and the relay needs cores as well.
const THREADS: u32 = 2;
/// Milliseconds of the bit rate that a frame may take at once, so that a key frame does not hold up what follows it.
const VBV_MS: u64 = 100;
/// Largest uncompressed picture in bytes: with what each packet costs it must fit into the connection's send buffer whole.
const MAX_RAW_BYTES: u64 = 3_400_000;
/// CPU milliseconds that a 1280x720 picture of the synthetic field takes to draw and encode, by `trocar source` on one
/// machine (two cores, x86-64, smaller pictures scaled up where the encoder did not keep up);
/// good to a factor of two elsewhere, which is why only what is far off is refused.
const COSTS: [(Codec, f64); 7] = [
    (Codec::H264, 4.0),
    (Codec::H265, 30.0),
    (Codec::Vp8, 30.0),
    (Codec::Vp9, 11.0),
    (Codec::Av1, 43.0),
    (Codec::Raw, 5.0),
    (Codec::J2k, 95.0),
];
/// Parts of all cores above which a live encoding is warned about, and refused.
const WARN_ABOVE: f64 = 0.6;
const REFUSE_ABOVE: f64 = 1.5;

/// The encoder's element for pictures of this size.
///
/// # Errors
/// [`MediaError::MissingElement`].
pub(super) fn encoder(geometry: Geometry, settings: &EncodeSettings) -> Result<gst::Element, MediaError> {
    let element = make(settings.codec.encoder())?;
    match settings.codec {
        Codec::H264 => x264(&element, geometry, settings),
        Codec::H265 => x265(&element, geometry, settings),
        Codec::Vp8 | Codec::Vp9 => vpx(&element, geometry, settings),
        Codec::Av1 => av1(&element, geometry, settings),
        Codec::J2k => element.set_property("num-threads", THREADS),
        Codec::Raw | Codec::Opus => {}
    }
    Ok(element)
}

fn vbv_ms(geometry: Geometry) -> u32 {
    u32::try_from((2 * geometry.interval_ns() / 1_000_000).max(VBV_MS)).unwrap_or(u32::MAX)
}

fn kbps(settings: &EncodeSettings) -> u32 {
    (settings.bitrate_bps / 1_000).max(1)
}

fn key_interval(settings: &EncodeSettings) -> u32 {
    settings.key_interval_frames.clamp(1, 100_000)
}

fn x264(encoder: &gst::Element, geometry: Geometry, settings: &EncodeSettings) {
    encoder.set_property_from_str("tune", "zerolatency");
    encoder.set_property_from_str("speed-preset", "ultrafast");
    encoder.set_property("bitrate", kbps(settings));
    encoder.set_property("key-int-max", key_interval(settings));
    encoder.set_property("bframes", 0_u32);
    encoder.set_property("threads", THREADS);
    encoder.set_property("sliced-threads", true);
    encoder.set_property("aud", false);
    encoder.set_property("cabac", settings.profile == Profile::Main);
    encoder.set_property("vbv-buf-capacity", vbv_ms(geometry));
}

fn x265(encoder: &gst::Element, geometry: Geometry, settings: &EncodeSettings) {
    encoder.set_property_from_str("tune", "zerolatency");
    encoder.set_property_from_str("speed-preset", "ultrafast");
    encoder.set_property("bitrate", kbps(settings));
    encoder.set_property("key-int-max", i32::try_from(key_interval(settings)).unwrap_or(i32::MAX));
    let (rate, buffer) = (kbps(settings), u64::from(kbps(settings)) * u64::from(vbv_ms(geometry)) / 1_000);
    let options = format!(
        "bframes=0:rc-lookahead=0:frame-threads=1:pools={THREADS}:open-gop=0:scenecut=0:info=0:log-level=warning:\
         vbv-maxrate={rate}:vbv-bufsize={}",
        buffer.max(1)
    );
    encoder.set_property("option-string", options);
}

fn vpx(encoder: &gst::Element, geometry: Geometry, settings: &EncodeSettings) {
    encoder.set_property("deadline", 1_i64);
    // Of VP8 a negative number is a fixed speed; a positive one lets it take most of the time between two pictures.
    encoder.set_property("cpu-used", if settings.codec == Codec::Vp8 { -12_i32 } else { 8 });
    encoder.set_property("threads", i32::try_from(THREADS).unwrap_or(1));
    encoder.set_property("lag-in-frames", 0_i32);
    encoder.set_property("auto-alt-ref", false);
    encoder.set_property_from_str("end-usage", "cbr");
    encoder.set_property("target-bitrate", i32::try_from(settings.bitrate_bps).unwrap_or(i32::MAX));
    encoder.set_property("keyframe-max-dist", i32::try_from(key_interval(settings)).unwrap_or(i32::MAX));
    let buffer = i32::try_from(vbv_ms(geometry)).unwrap_or(i32::MAX);
    encoder.set_property("buffer-size", buffer.saturating_mul(2));
    encoder.set_property("buffer-initial-size", buffer);
    encoder.set_property("buffer-optimal-size", buffer);
    if settings.codec == Codec::Vp9 {
        encoder.set_property("row-mt", true);
        encoder.set_property("tile-columns", 1_i32);
    } else {
        encoder.set_property_from_str("token-partitions", "2");
    }
}

/// A key frame every second at least, for this encoder does not hear when it is asked for one. GStreamer 1.22 allows it
/// one quantizer only, 0, unless told otherwise: then it keeps to no bit rate, and ends the process by an assertion.
fn av1(encoder: &gst::Element, geometry: Geometry, settings: &EncodeSettings) {
    encoder.set_property_from_str("usage-profile", "realtime");
    encoder.set_property("cpu-used", 10_i32);
    encoder.set_property("threads", THREADS);
    encoder.set_property("row-mt", true);
    encoder.set_property("lag-in-frames", 0_u32);
    encoder.set_property("min-quantizer", 2_u32);
    encoder.set_property("max-quantizer", 58_u32);
    encoder.set_property_from_str("end-usage", "cbr");
    encoder.set_property("target-bitrate", kbps(settings));
    encoder.set_property(
        "keyframe-max-dist",
        i32::try_from(key_interval(settings).min(geometry.fps.max(1))).unwrap_or(i32::MAX),
    );
}

/// Mean bits per second of what leaves: the encoder's setting; of the opaque codecs, the uncompressed size.
pub(super) fn bits_per_second(geometry: Geometry, settings: &EncodeSettings) -> u64 {
    if settings.codec.is_compressed() { u64::from(settings.bitrate_bps) } else { geometry.pixel_rate() * 20 * 21 / 20 }
}

/// Says where a live encoding is too much for this machine: a warning in the log, or an error where it is hopeless.
///
/// # Errors
/// [`MediaError::TooMuch`] with what would go.
pub(super) fn check(codec: Codec, geometry: Geometry) -> Result<(), MediaError> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get) as f64;
    check_for(codec, geometry, cores)
}

fn check_for(codec: Codec, geometry: Geometry, cores: f64) -> Result<(), MediaError> {
    let too_much = |reason| Err(MediaError::TooMuch { codec: codec.title(), geometry: geometry.to_string(), reason });
    let bytes = u64::from(geometry.width) * u64::from(geometry.height) * 5 / 2;
    if codec == Codec::Raw && bytes > MAX_RAW_BYTES {
        let reason = format!(
            "a picture of {bytes} bytes does not fit into a connection's send buffer; at most {MAX_RAW_BYTES} bytes do, \
             which is 1280x720. `--codec j2k` is lossless and smaller"
        );
        return too_much(reason);
    }
    let part = cost_per_second(codec, geometry) / cores;
    if part > REFUSE_ABOVE {
        let fits = geometry.pixel_rate() as f64 * WARN_ABOVE / part / 1e6;
        return too_much(format!(
            "it would take about {:.1} of this machine's {cores} cores. About {fits:.0} million pixels per second fit \
             (640x360@30 has 7), or another codec, or a file that is forwarded with --passthrough",
            part * cores
        ));
    }
    if part > WARN_ABOVE {
        tracing::warn!(
            codec = codec.title(),
            %geometry,
            cores = format!("{:.1} of {cores}", part * cores),
            "encoding live takes much of this machine: pictures may be left out"
        );
    }
    Ok(())
}

/// Cores that encoding takes.
fn cost_per_second(codec: Codec, geometry: Geometry) -> f64 {
    let per_picture = COSTS.iter().find(|c| c.0 == codec).map_or(0.0, |c| c.1);
    per_picture / 1e3 * geometry.pixel_rate() as f64 / (1280.0 * 720.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn size(width: u32, height: u32, fps: u32) -> Geometry {
        Geometry { width, height, fps }
    }

    #[test]
    fn what_a_machine_cannot_encode_is_refused_with_what_it_can() {
        let error = check_for(Codec::Av1, size(1920, 1080, 60), 2.0).unwrap_err().to_string();
        assert!(error.contains("AV1") && error.contains("1920x1080@60") && error.contains("--passthrough"), "{error}");
        assert!(check_for(Codec::H265, size(3840, 2160, 60), 2.0).is_err());
        let error = check_for(Codec::Raw, size(1920, 1080, 5), 64.0).unwrap_err().to_string();
        assert!(error.contains("send buffer") && error.contains("1280x720"), "{error}");
        for codec in Codec::VIDEO {
            assert!(check_for(codec, size(480, 270, 15), 2.0).is_ok(), "{codec:?}");
        }
        assert!(check_for(Codec::H264, size(1920, 1080, 60), 2.0).is_ok());
    }
}
