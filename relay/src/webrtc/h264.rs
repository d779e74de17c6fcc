//! Which of the H.264 profiles that a viewer offers can show a feed (RFC 6184 section 8.1).

use super::codec::Fit;
use super::sdp::fmtp_value;

/// Profiles that matter here. Each can decode the ones that [`Profile::decodes`] says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    /// Constrained baseline.
    ConstrainedBaseline,
    /// Baseline.
    Baseline,
    /// Main.
    Main,
    /// High and constrained high.
    High,
    /// High 10.
    High10,
    /// High 4:2:2.
    High422,
    /// High 4:4:4 predictive.
    High444,
}

impl Profile {
    /// From the six hex digits of `profile-level-id`: profile_idc, then constraint_set flags (RFC 6184 table 5).
    #[must_use]
    pub fn from_profile_level_id(id: &str) -> Option<Self> {
        let id = u32::from_str_radix(id, 16).ok().filter(|_| id.len() == 6)?;
        let (idc, flags) = ((id >> 16) & 0xff, (id >> 8) & 0xff);
        match idc {
            0x42 if flags & 0x40 != 0 => Some(Self::ConstrainedBaseline),
            0x4d if flags & 0x80 != 0 => Some(Self::ConstrainedBaseline),
            0x42 => Some(Self::Baseline),
            0x4d => Some(Self::Main),
            0x64 => Some(Self::High),
            0x6e => Some(Self::High10),
            0x7a => Some(Self::High422),
            0xf4 => Some(Self::High444),
            _ => None,
        }
    }

    /// Whether a decoder of this profile shows a stream of `stream`. A browser that offers High 4:4:4 is not believed to
    /// show 10 bits.
    #[must_use]
    pub fn decodes(self, stream: Self) -> bool {
        use Profile::{Baseline, ConstrainedBaseline, High, High10, High422, High444, Main};
        let high = matches!(stream, ConstrainedBaseline | Main | High);
        match self {
            ConstrainedBaseline => stream == ConstrainedBaseline,
            Baseline => matches!(stream, ConstrainedBaseline | Baseline),
            Main => matches!(stream, ConstrainedBaseline | Main),
            High => high,
            High10 => high || stream == High10,
            High422 => high || matches!(stream, High10 | High422),
            High444 => high || stream == High444,
        }
    }
}

/// The packetization mode of these format parameters; 0 where none is named.
pub(super) fn packetization_mode(fmtp: &str) -> &str {
    fmtp_value(fmtp, "packetization-mode").unwrap_or("0")
}

/// How well an offered payload type fits a stream. Levels are not compared: browsers offer a low one and allow asymmetry.
/// A stream that does not say its profile fits nothing, since nobody could promise to show it.
pub(super) fn fit(offer: &str, stream: &str) -> Option<Fit> {
    let of_stream = Profile::from_profile_level_id(fmtp_value(stream, "profile-level-id")?)?;
    let offered = Profile::from_profile_level_id(fmtp_value(offer, "profile-level-id").unwrap_or("420010"))?;
    // Whoever takes mode 1 takes single NAL units as well; interleaving is a mode of its own (RFC 6184 section 6.2).
    let same_mode = match (packetization_mode(offer), packetization_mode(stream)) {
        (a, b) if a == b => true,
        ("1", "0") => false,
        _ => return None,
    };
    match (offered == of_stream, same_mode) {
        (true, true) => Some(Fit::Exact),
        (true, false) => Some(Fit::OtherMode),
        (false, _) => offered.decodes(of_stream).then_some(Fit::Contains),
    }
}
