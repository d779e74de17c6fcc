//! What was asked for: the picture's size and the encoding. Where pictures come from is in [`super::place`].

use super::codec::Codec;
use super::error::MediaError;
use std::str::FromStr;

/// Largest and smallest sides of a picture in pixels, and the fastest rate in frames/s.
const MAX_WIDTH: u32 = 7680;
const MAX_HEIGHT: u32 = 4320;
const MIN_HEIGHT: u32 = 90;
const MAX_FPS: u32 = 240;

/// Width and height in pixels, whole frames per second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Geometry {
    /// Pixels from left to right.
    pub(crate) width: u32,
    /// Pixels from top to bottom.
    pub(crate) height: u32,
    /// Frames per second.
    pub(crate) fps: u32,
}

impl Geometry {
    /// This geometry, if a 4:2:0 picture of it exists and is wide enough for the pixel mark.
    ///
    /// # Errors
    /// [`MediaError::Size`] with what is asked of it.
    pub(crate) fn checked(self) -> Result<Self, MediaError> {
        let Self { width, height, fps } = self;
        let bad = |reason| Err(MediaError::Size { width, height, fps, reason });
        if !width.is_multiple_of(2) || !height.is_multiple_of(2) {
            return bad("width and height are even numbers");
        }
        if !(MIN_HEIGHT..=MAX_HEIGHT).contains(&height) || width > MAX_WIDTH {
            return bad("at least 90 rows, at most 7680x4320");
        }
        if width < height {
            return bad("the scope's circle is as wide as the picture is high, so width is at least height");
        }
        if !(1..=MAX_FPS).contains(&fps) {
            return bad("1 to 240 frames/s");
        }
        Ok(self)
    }

    /// Nanoseconds from one frame to the next.
    pub(crate) const fn interval_ns(self) -> u64 {
        1_000_000_000 / if self.fps == 0 { 1 } else { self.fps as u64 }
    }

    /// Pixels per second.
    pub(crate) const fn pixel_rate(self) -> u64 {
        self.width as u64 * self.height as u64 * self.fps as u64
    }
}

impl std::fmt::Display for Geometry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}x{}@{}", self.width, self.height, self.fps)
    }
}

impl FromStr for Geometry {
    type Err = MediaError;

    /// `1920x1080@60`; sides and rate are checked.
    fn from_str(s: &str) -> Result<Self, MediaError> {
        let bad = || MediaError::Spec { given: s.to_owned(), reason: "a size is WIDTHxHEIGHT@FPS" };
        let (size, fps) = s.split_once('@').ok_or_else(bad)?;
        let (width, height) = size.split_once('x').ok_or_else(bad)?;
        let number = |n: &str| n.parse::<u32>().map_err(|_| bad());
        Self { width: number(width)?, height: number(height)?, fps: number(fps)? }.checked()
    }
}

/// The H.264 profile of a live encoding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Profile {
    /// What every browser decodes.
    ConstrainedBaseline,
    /// CABAC: about 10 % fewer bits for more CPU time.
    Main,
}

impl Profile {
    /// The name in GStreamer's caps.
    pub(super) const fn caps_name(self) -> &'static str {
        match self {
            Self::ConstrainedBaseline => "constrained-baseline",
            Self::Main => "main",
        }
    }

    /// `profile_idc` and the constraint flags as in `profile-level-id` (RFC 6184 section 8.1).
    const fn idc_and_flags(self) -> u16 {
        match self {
            Self::ConstrainedBaseline => 0x42c0,
            Self::Main => 0x4d40,
        }
    }
}

/// How pictures are encoded. Passthrough ignores all of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct EncodeSettings {
    /// Codec.
    pub(crate) codec: Codec,
    /// Bits per second that the encoder keeps to over its buffer's time.
    pub(crate) bitrate_bps: u32,
    /// Profile of H.264.
    pub(crate) profile: Profile,
    /// A key frame at least every so many frames.
    pub(crate) key_interval_frames: u32,
    /// Scale pictures to this width and height, both even.
    pub(crate) size: Option<(u32, u32)>,
    /// Bring pictures to this rate by repeating and leaving out pictures.
    pub(crate) fps: Option<u32>,
    /// Make a digest of each raw picture, for the frame proof.
    pub(crate) raw_digests: bool,
}

impl Default for EncodeSettings {
    /// H.264, 8 Mbit/s constrained baseline, a key frame every 240 frames: joiners get theirs on request.
    fn default() -> Self {
        Self {
            codec: Codec::H264,
            bitrate_bps: 8_000_000,
            profile: Profile::ConstrainedBaseline,
            key_interval_frames: 240,
            size: None,
            fps: None,
            raw_digests: false,
        }
    }
}

/// One row of H.264 table A-1: macroblocks/s, macroblocks a frame, kbit/s, `level_idc`.
const LEVELS: [(u64, u64, u64, u8); 8] = [
    (40_500, 1_620, 10_000, 30),
    (108_000, 3_600, 14_000, 31),
    (216_000, 5_120, 20_000, 32),
    (245_760, 8_192, 50_000, 41),
    (522_240, 8_704, 50_000, 42),
    (589_824, 22_080, 135_000, 50),
    (983_040, 36_864, 240_000, 51),
    (2_073_600, 36_864, 240_000, 52),
];

/// SDP's `profile-level-id` for a live encoding: the lowest level of 3.0 and above that has room for it (H.264 table A-1).
pub(super) fn profile_level_id(profile: Profile, geometry: Geometry, bitrate_bps: u32) -> String {
    let blocks = u64::from(geometry.width.div_ceil(16)) * u64::from(geometry.height.div_ceil(16));
    let rate = blocks * u64::from(geometry.fps);
    let kbps = u64::from(bitrate_bps) / 1_000;
    let fits = |&&(mbps, fs, br, _): &&(u64, u64, u64, u8)| rate <= mbps && blocks <= fs && kbps <= br;
    let level = LEVELS.iter().find(fits).map_or(62, |l| l.3);
    format!("{:04x}{level:02x}", profile.idc_and_flags())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn level_follows_size_rate_and_bits() {
        let id =
            |w, h, fps, bps| profile_level_id(Profile::ConstrainedBaseline, Geometry { width: w, height: h, fps }, bps);
        assert_eq!(id(1280, 720, 30, 4_000_000), "42c01f");
        assert_eq!(id(1920, 1080, 60, 8_000_000), "42c02a");
        assert_eq!(id(1920, 1080, 30, 80_000_000), "42c032");
        assert_eq!(id(3840, 2160, 60, 50_000_000), "42c034");
    }
}
