//! The codecs that a feed may have: their names in GStreamer and in RTP, the way to packets and back, and the format
//! parameters that the feed's descriptor says.

use super::elements::make;
use super::error::MediaError;
use super::spec::Geometry;
use super::{MTU, PAYLOAD_TYPE};
use gst::prelude::*;
use gstreamer as gst;

/// How pictures or sound are coded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Codec {
    /// H.264 (RFC 6184): what every browser shows.
    #[default]
    H264,
    /// H.265 (RFC 7798).
    H265,
    /// AV1 (the AOM's RTP payload format).
    Av1,
    /// VP8 (RFC 7741).
    Vp8,
    /// VP9 (RFC 9628).
    Vp9,
    /// Uncompressed 4:2:2 with 10 bits (RFC 4175), between native ends.
    Raw,
    /// JPEG 2000, lossless 4:2:2 with 10 bits (RFC 5371), between native ends.
    J2k,
    /// Opus (RFC 7587): sound.
    #[value(skip)]
    #[serde(skip)]
    Opus,
}

/// Names of one codec.
struct Names {
    /// In the RTP payload format registry.
    encoding: &'static str,
    /// Media type of GStreamer's caps.
    caps: &'static str,
    /// Empty where there is none.
    parser: &'static str,
    payloader: &'static str,
    depayloader: &'static str,
    encoder: &'static str,
}

impl Codec {
    /// Every codec of pictures.
    pub(crate) const VIDEO: [Self; 7] = [Self::H264, Self::H265, Self::Av1, Self::Vp8, Self::Vp9, Self::Raw, Self::J2k];

    const fn names(self) -> Names {
        let [encoding, caps, parser, payloader, depayloader, encoder] = match self {
            Self::H264 => ["H264", "video/x-h264", "h264parse", "rtph264pay", "rtph264depay", "x264enc"],
            Self::H265 => ["H265", "video/x-h265", "h265parse", "rtph265pay", "rtph265depay", "x265enc"],
            Self::Av1 => ["AV1", "video/x-av1", "av1parse", "rtpav1pay", "rtpav1depay", "av1enc"],
            Self::Vp8 => ["VP8", "video/x-vp8", "", "rtpvp8pay", "rtpvp8depay", "vp8enc"],
            Self::Vp9 => ["VP9", "video/x-vp9", "vp9parse", "rtpvp9pay", "rtpvp9depay", "vp9enc"],
            Self::Raw => ["raw", "video/x-raw", "", "rtpvrawpay", "rtpvrawdepay", "identity"],
            Self::J2k => ["jpeg2000", "image/x-jpc", "", "rtpj2kpay", "rtpj2kdepay", "openjpegenc"],
            Self::Opus => ["opus", "audio/x-opus", "", "rtpopuspay", "rtpopusdepay", "opusenc"],
        };
        Names { encoding, caps, parser, payloader, depayloader, encoder }
    }

    /// Encoding name of the RTP payload format registry, as the descriptor has it.
    pub(crate) const fn encoding_name(self) -> &'static str {
        self.names().encoding
    }

    /// RTP clock rate in Hz.
    pub(crate) const fn clock_rate(self) -> u32 {
        match self {
            Self::Opus => 48_000,
            _ => 90_000,
        }
    }

    /// How the codec is called to people.
    pub(crate) const fn title(self) -> &'static str {
        match self {
            Self::H264 => "H.264",
            Self::H265 => "H.265",
            Self::Av1 => "AV1",
            Self::Vp8 => "VP8",
            Self::Vp9 => "VP9",
            Self::Raw => "uncompressed 4:2:2 10 bit",
            Self::J2k => "JPEG 2000 lossless 4:2:2 10 bit",
            Self::Opus => "Opus",
        }
    }

    /// The codec of an encoded stream's caps; none for what is not carried. `encoding` is the `encoding-name` of RTP caps.
    pub(super) fn of_stream(media_type: &str) -> Option<Self> {
        Self::VIDEO.into_iter().filter(|c| c.is_compressed()).find(|c| c.names().caps == media_type)
    }

    /// The codec of an RTP stream by its encoding name, in any case.
    pub(super) fn of_rtp(encoding: &str) -> Option<Self> {
        Self::VIDEO.into_iter().filter(|c| c.is_compressed()).find(|c| c.encoding_name().eq_ignore_ascii_case(encoding))
    }

    /// Whether it has a bit rate that an encoder keeps to, and key frames; the opaque ones send every picture whole.
    pub(crate) const fn is_compressed(self) -> bool {
        !matches!(self, Self::Raw | Self::J2k)
    }

    /// Whether its encoder gives a key frame when it is asked.
    pub(super) const fn has_key_frames_on_request(self) -> bool {
        matches!(self, Self::H264 | Self::H265 | Self::Vp8 | Self::Vp9)
    }

    /// The format of the pictures that the encoder wants, as in caps.
    pub(super) const fn picture_format(self) -> &'static str {
        match self {
            Self::Raw => "UYVP",
            Self::J2k => "I422_10LE",
            _ => "I420",
        }
    }

    /// Elements that turn pictures into packets, to be checked before they are made.
    pub(super) fn encoding_elements(self) -> Vec<&'static str> {
        let names = self.names();
        let mut all = vec!["appsrc", "appsink", "capsfilter", "videoconvert", names.encoder];
        all.extend(self.forwarding_elements());
        all
    }

    /// Elements that turn an encoded stream into packets.
    pub(super) fn forwarding_elements(self) -> Vec<&'static str> {
        let names = self.names();
        [names.parser, names.payloader].into_iter().filter(|name| !name.is_empty()).collect()
    }

    /// Name of the encoder's element.
    pub(super) const fn encoder(self) -> &'static str {
        self.names().encoder
    }

    /// The element from RTP to the encoded stream.
    ///
    /// # Errors
    /// [`MediaError::MissingElement`].
    pub(super) fn depayloader(self) -> Result<gst::Element, MediaError> {
        make(self.names().depayloader)
    }

    /// Elements from the encoder's output, or a demuxed stream, to packets of at most [`MTU`] bytes: parser, caps and
    /// payloader, with parameter sets before each key frame. `from_encoder` leaves the stream in the encoder's form.
    ///
    /// # Errors
    /// [`MediaError::MissingElement`].
    pub(super) fn payloading(self, from_encoder: bool) -> Result<Vec<gst::Element>, MediaError> {
        let names = self.names();
        let mut chain = Vec::with_capacity(3);
        if !names.parser.is_empty() {
            let parse = make(names.parser)?;
            if matches!(self, Self::H264 | Self::H265) {
                parse.set_property("config-interval", -1_i32);
            }
            chain.push(parse);
        }
        if let Some(caps) = self.packet_form().filter(|_| !from_encoder || self == Self::Av1) {
            let filter = make("capsfilter")?;
            filter.set_property("caps", caps);
            chain.push(filter);
        }
        let pay = make(names.payloader)?;
        pay.set_property("mtu", MTU);
        pay.set_property("pt", u32::from(PAYLOAD_TYPE));
        match self {
            Self::H264 | Self::H265 => pay.set_property_from_str("aggregate-mode", "zero-latency"),
            Self::Vp8 | Self::Vp9 => pay.set_property_from_str("picture-id-mode", "15-bit"),
            _ => {}
        }
        chain.push(pay);
        Ok(chain)
    }

    /// The form in which a demuxed stream goes to the payloader: whole frames. Not as a byte stream where there is another
    /// form: the parser would add an access unit delimiter, and with it a packet, to each frame.
    fn packet_form(self) -> Option<gst::Caps> {
        let caps = gst::Caps::builder(self.names().caps);
        Some(match self {
            Self::H264 => caps.field("stream-format", "avc").field("alignment", "au").build(),
            Self::H265 => caps.field("stream-format", "hvc1").field("alignment", "au").build(),
            Self::Av1 => caps.field("stream-format", "obu-stream").field("alignment", "tu").build(),
            Self::Vp9 => caps.field("alignment", "super-frame").build(),
            _ => return None,
        })
    }

    /// `a=fmtp` of pictures of this size, where it does not come from the stream itself (H.264 and H.265 have parameter
    /// sets). `profile` is the stream's own, by GStreamer's name.
    pub(super) fn fmtp(self, geometry: Geometry, profile: Option<&str>) -> String {
        let Geometry { width, height, .. } = geometry;
        match self {
            Self::H264 | Self::Vp8 => String::new(),
            Self::H265 => h265_fmtp([0x01, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, h265_level(geometry)]),
            Self::Av1 => {
                let profile = match profile {
                    Some("high") => 1,
                    Some("professional") => 2,
                    _ => 0,
                };
                format!("profile={profile};level-idx={};tier=0", av1_level(geometry))
            }
            Self::Vp9 => format!("profile-id={}", profile.filter(|p| p.len() == 1).unwrap_or("0")),
            Self::Raw => {
                format!("sampling=YCbCr-4:2:2;width={width};height={height};depth=10;colorimetry=BT709-2")
            }
            Self::J2k => format!("sampling=YCbCr-4:2:2;width={width};height={height}"),
            Self::Opus => "minptime=10;stereo=1;sprop-stereo=1;useinbandfec=1".to_owned(),
        }
    }
}

/// `a=fmtp` from the twelve bytes of `profile_tier_level` (H.265 section 7.3.3; RFC 7798 section 7.1).
pub(super) fn h265_fmtp(ptl: [u8; 12]) -> String {
    let [general, .., level] = ptl;
    let (space, tier, profile) = (general >> 6, (general >> 5) & 1, general & 0x1f);
    format!("level-id={level};profile-id={profile};profile-space={space};tier-flag={tier};tx-mode=SRST")
}

/// The lowest level that has room for a size and rate: the row's last number (H.265 table A.8 and A.9: luma samples of a
/// picture, luma samples per second, `general_level_idc`).
fn h265_level(geometry: Geometry) -> u8 {
    const LEVELS: [(u64, u64, u8); 8] = [
        (552_960, 16_588_800, 90),
        (983_040, 33_177_600, 93),
        (2_228_224, 66_846_720, 120),
        (2_228_224, 133_693_440, 123),
        (8_912_896, 267_386_880, 150),
        (8_912_896, 534_773_760, 153),
        (8_912_896, 1_069_547_520, 156),
        (35_651_584, 2_139_095_040, 183),
    ];
    lowest(geometry, &LEVELS).unwrap_or(186)
}

/// `seq_level_idx` (AV1 specification, annex A.3: picture size, display rate).
fn av1_level(geometry: Geometry) -> u8 {
    const LEVELS: [(u64, u64, u8); 9] = [
        (147_456, 4_423_680, 0),
        (278_784, 8_363_520, 1),
        (665_856, 19_975_680, 4),
        (1_065_024, 31_950_720, 5),
        (2_359_296, 70_778_880, 8),
        (2_359_296, 141_557_760, 9),
        (8_912_896, 267_386_880, 12),
        (8_912_896, 534_773_760, 13),
        (8_912_896, 1_069_547_520, 14),
    ];
    lowest(geometry, &LEVELS).unwrap_or(19)
}

fn lowest(geometry: Geometry, levels: &[(u64, u64, u8)]) -> Option<u8> {
    let pixels = u64::from(geometry.width) * u64::from(geometry.height);
    let fits = |l: &&(u64, u64, u8)| pixels <= l.0 && geometry.pixel_rate() <= l.1;
    levels.iter().find(fits).map(|l| l.2)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn size(width: u32, height: u32, fps: u32) -> Geometry {
        Geometry { width, height, fps }
    }

    #[test]
    fn format_parameters_follow_the_picture() {
        let hd = size(1920, 1080, 60);
        assert_eq!(Codec::Av1.fmtp(hd, None), "profile=0;level-idx=9;tier=0");
        assert_eq!(Codec::Av1.fmtp(size(640, 360, 30), Some("high")), "profile=1;level-idx=1;tier=0");
        assert_eq!(Codec::Vp9.fmtp(hd, Some("2")), "profile-id=2");
        assert_eq!(Codec::Vp8.fmtp(hd, None), "");
        let h265 = Codec::H265.fmtp(hd, None);
        assert_eq!(h265, "level-id=123;profile-id=1;profile-space=0;tier-flag=0;tx-mode=SRST");
        assert_eq!(
            Codec::Raw.fmtp(hd, None),
            "sampling=YCbCr-4:2:2;width=1920;height=1080;depth=10;colorimetry=BT709-2"
        );
        assert_eq!(av1_level(size(16_384, 8_704, 120)), 19);
    }

    #[test]
    fn codecs_are_found_by_the_names_of_streams() {
        assert_eq!(Codec::of_stream("video/x-h265"), Some(Codec::H265));
        assert_eq!(Codec::of_rtp("h264"), Some(Codec::H264));
        // Opaque payloads are not taken from foreign streams.
        assert_eq!((Codec::of_stream("video/x-raw"), Codec::of_rtp("RAW")), (None, None));
    }
}
