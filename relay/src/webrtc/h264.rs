//! Which of the H.264 profiles that a viewer offers can show a feed (RFC 6184 section 8.1).

use super::sdp::{Codec, Media, fmtp_value};

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
            0xf4 => Some(Self::High444),
            _ => None,
        }
    }

    /// Whether a decoder of this profile shows a stream of `stream`.
    #[must_use]
    pub fn decodes(self, stream: Self) -> bool {
        use Profile::{Baseline, ConstrainedBaseline, High, High444, Main};
        match self {
            ConstrainedBaseline => stream == ConstrainedBaseline,
            Baseline => matches!(stream, ConstrainedBaseline | Baseline),
            Main => matches!(stream, ConstrainedBaseline | Main),
            High => matches!(stream, ConstrainedBaseline | Main | High),
            High444 => matches!(stream, ConstrainedBaseline | Main | High | High444),
        }
    }
}

fn packetization_mode(fmtp: &str) -> &str {
    fmtp_value(fmtp, "packetization-mode").unwrap_or("0")
}

/// The viewer's payload type for a feed with those format parameters: the same profile first, then one that decodes it.
/// Levels are not compared: browsers offer a low one and allow asymmetry.
#[must_use]
pub fn choose<'a>(media: &'a Media, feed_fmtp: &str) -> Option<&'a Codec> {
    let stream = Profile::from_profile_level_id(fmtp_value(feed_fmtp, "profile-level-id")?)?;
    let fitting = |exact: bool| {
        media.codecs.iter().find(|c| {
            let offered = fmtp_value(&c.fmtp, "profile-level-id").unwrap_or("420010");
            c.name.eq_ignore_ascii_case("H264")
                && packetization_mode(&c.fmtp) == packetization_mode(feed_fmtp)
                && Profile::from_profile_level_id(offered)
                    .is_some_and(|p| if exact { p == stream } else { p.decodes(stream) })
        })
    };
    fitting(true).or_else(|| fitting(false))
}

/// The RTX payload type that goes with `payload_type` (RFC 4588 section 8.1).
#[must_use]
pub fn rtx_for(media: &Media, payload_type: u8) -> Option<u8> {
    media
        .codecs
        .iter()
        .find(|c| {
            c.name.eq_ignore_ascii_case("rtx")
                && fmtp_value(&c.fmtp, "apt").and_then(|a| a.parse::<u8>().ok()) == Some(payload_type)
        })
        .map(|c| c.payload_type)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn media(profiles: &[&str]) -> Media {
        let codecs = profiles
            .iter()
            .zip(100..)
            .map(|(p, payload_type)| Codec {
                payload_type,
                name: "H264".to_owned(),
                clock_rate: 90_000,
                fmtp: format!("packetization-mode=1;profile-level-id={p}"),
            })
            .collect();
        Media { codecs, ..Media::default() }
    }

    #[test]
    fn the_exact_profile_comes_before_one_that_merely_decodes_it() {
        let m = media(&["42001f", "4d001f", "42e01f"]);
        let fmtp = |p: &str| format!("packetization-mode=1;profile-level-id={p}");
        assert_eq!(choose(&m, &fmtp("42c02a")).map(|c| c.payload_type), Some(102));
        assert_eq!(choose(&m, &fmtp("4d0033")).map(|c| c.payload_type), Some(101));
        assert_eq!(choose(&m, &fmtp("640033")), None, "nobody here decodes High");
        assert_eq!(choose(&media(&["640033"]), &fmtp("4d0033")).map(|c| c.payload_type), Some(100));
        assert_eq!(choose(&m, "packetization-mode=0;profile-level-id=42c02a"), None);
        assert_eq!(choose(&m, ""), None);
    }
}
