//! What will be published: from what was typed, or stands in a file, to sources, encodings and descriptors.

use super::proof::Proof;
use crate::media::{
    self, AudioSettings, AudioSpec, Codec, EncodeSettings, Geometry, MediaError, Prepared, SourceInfo, SourceSpec,
};
use crate::sender::{AUDIO_LEVEL_ID, AUDIO_LEVEL_URI};
use anyhow::bail;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::PathBuf;
use trocar_proto::media::ext::{ABS_CAPTURE_TIME_URI, ExtensionIds, FRAME_URI};
use trocar_proto::session::feed::{FeedDescriptor, MediaKind, Purpose, RoqMode, Transport};
use trocar_proto::session::ids::FeedId;
use trocar_proto::units::Bitrate;

/// Capture to display, where nothing else is said, in milliseconds.
pub(super) const USUAL_BUDGET_MS: u32 = 200;
/// What a feed's budget may be.
const BUDGETS_MS: std::ops::RangeInclusive<u32> = 1..=10_000;

/// What `--purpose` may say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum PurposeArg {
    #[default]
    Scope,
    Room,
    Secondary,
}

/// What `--roq-mode` may say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum RoqModeArg {
    /// One RTP packet per QUIC datagram.
    #[default]
    Datagram,
    /// A stream per frame, which QUIC repairs until the frame's deadline and which is reset then.
    Stream,
}

impl From<RoqModeArg> for RoqMode {
    fn from(arg: RoqModeArg) -> Self {
        match arg {
            RoqModeArg::Datagram => Self::Datagram,
            RoqModeArg::Stream => Self::Stream,
        }
    }
}

/// What `--size` may say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Size {
    Auto,
    Fixed(Geometry),
}

impl std::str::FromStr for Size {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        let fixed = |width, height, fps| Ok(Self::Fixed(Geometry { width, height, fps }));
        match s {
            "auto" => Ok(Self::Auto),
            "720p" => fixed(1280, 720, 30),
            "1080p" => fixed(1920, 1080, 60),
            "2160p" => fixed(3840, 2160, 30),
            other => other
                .parse()
                .map(Self::Fixed)
                .map_err(|e| format!("{e}; a size is auto, 720p, 1080p, 2160p or WIDTHxHEIGHT@FPS")),
        }
    }
}

/// One camera with its sound, as it was asked for.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    pub(super) feed: FeedId,
    pub(super) source: Option<SourceSpec>,
    pub(super) size: Option<Size>,
    pub(super) looped: bool,
    pub(super) passthrough: bool,
    pub(super) codec: Option<Codec>,
    /// Mbit/s.
    pub(super) bitrate: Option<f64>,
    pub(super) purpose: PurposeArg,
    pub(super) audio: Option<AudioSpec>,
    /// kbit/s.
    pub(super) audio_bitrate: Option<u32>,
    /// Milliseconds.
    pub(super) audio_frame: Option<u32>,
    pub(super) ledger: Option<PathBuf>,
    /// Datagrams, or a stream per frame.
    pub(super) mode: RoqMode,
    /// Capture to display.
    pub(super) budget_ms: u32,
    /// Over two paths.
    pub(super) protected: bool,
    /// Where the frames of the operating field are reported.
    pub(super) proof: Option<Proof>,
    /// What stands before the name of an option in an error: `--`, or the feed's place in a file.
    pub(super) prefix: String,
}

/// One feed that will be published.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) feed: FeedId,
    /// What the camera is: sound and picture of one source belong together.
    source: String,
    pub(super) what: What,
    purpose: Purpose,
    /// Bits per second of a forwarded stream, where they were told.
    told_bits: Option<u64>,
    mode: RoqMode,
    budget_ms: u32,
    protected: bool,
    pub(super) ledger: Option<PathBuf>,
    /// Of the operating field, where its frames are reported.
    pub(super) proof: Option<Proof>,
    /// Name of the option that named the source, for errors.
    pub(super) option: String,
}

/// Picture or sound.
#[derive(Debug, Clone)]
pub(super) enum What {
    Picture { spec: SourceSpec, settings: EncodeSettings, probe_size: bool },
    Sound { spec: AudioSpec, settings: AudioSettings },
}

impl Wanted {
    /// Checks what belongs together, and gives the picture's feed and the sound's.
    ///
    /// # Errors
    /// Names the option, and what would be right.
    pub(super) fn plans(&self) -> anyhow::Result<Vec<Plan>> {
        if !BUDGETS_MS.contains(&self.budget_ms) {
            let (least, most) = (BUDGETS_MS.start(), BUDGETS_MS.end());
            bail!("{}budget is {least} to {most} milliseconds, not {}", self.prefix, self.budget_ms);
        }
        let mut plans = Vec::new();
        if let Some(source) = &self.source {
            plans.push(self.picture(source)?);
        }
        if let Some(audio) = &self.audio {
            plans.push(self.sound(audio)?);
        } else if self.audio_bitrate.is_some() || self.audio_frame.is_some() {
            bail!("{0}audio-bitrate and {0}audio-frame go with {0}audio", self.prefix);
        }
        if plans.is_empty() {
            bail!("{0}source or {0}audio is missing: at least one is right", self.prefix);
        }
        Ok(plans)
    }

    fn picture(&self, source: &SourceSpec) -> anyhow::Result<Plan> {
        let p = &self.prefix;
        let mut spec = source.clone().with_file_options(self.looped, self.passthrough);
        if !spec.is_encoded_here() && self.codec.is_some() {
            bail!("{p}codec goes with pictures that are encoded here: {spec} keeps the codec that it has");
        }
        if self.passthrough && !matches!(spec, SourceSpec::File { .. }) {
            bail!("{p}passthrough goes with {p}source file:PATH; rtsp, srt and udp are passed through always");
        }
        let codec = self.codec.unwrap_or_default();
        if self.bitrate.is_some() && !codec.is_compressed() {
            bail!("{p}bitrate does not go with {p}codec raw or j2k: every picture is sent whole");
        }
        let mut settings = EncodeSettings { codec, ..EncodeSettings::default() };
        let mut probe_size = false;
        match (&mut spec, self.size) {
            (_, None) => {}
            (SourceSpec::Test(_), Some(Size::Auto)) => probe_size = true,
            (SourceSpec::Test(geometry), Some(Size::Fixed(g))) => *geometry = g,
            (SourceSpec::Freezing { .. }, Some(_)) => bail!("{p}size does not go with {spec}, which has its own"),
            (SourceSpec::Capture(_), Some(Size::Fixed(g))) => {
                (settings.size, settings.fps) = (Some((g.width, g.height)), Some(g.fps));
            }
            (SourceSpec::Capture(_), Some(Size::Auto)) => {
                bail!("{p}size auto goes with {p}source test; a camera's size is WIDTHxHEIGHT@FPS, or left out")
            }
            (SourceSpec::File { .. }, Some(_)) => bail!("{p}size goes with {p}source test; a file has its own size"),
            (SourceSpec::Stream(_), Some(_)) => {
                bail!("{p}size goes with pictures that are encoded here: {spec} has its own")
            }
        }
        settings.bitrate_bps = match self.bitrate {
            Some(mbps) if (0.1..=400.0).contains(&mbps) => (mbps * 1e6) as u32,
            Some(mbps) => bail!("{p}bitrate is 0.1 to 400 Mbit/s, not {mbps}"),
            None => usual_bits(&spec),
        };
        let proof = self.proof.clone().filter(|_| matches!(self.purpose, PurposeArg::Scope));
        settings.raw_digests = proof.is_some();
        Ok(Plan {
            feed: self.feed.clone(),
            source: self.feed.to_string(),
            what: What::Picture { spec, settings, probe_size },
            purpose: match self.purpose {
                PurposeArg::Scope => Purpose::Scope,
                PurposeArg::Room => Purpose::Room,
                PurposeArg::Secondary => Purpose::Secondary,
            },
            told_bits: self.bitrate.map(|mbps| (mbps * 1e6) as u64),
            mode: self.mode,
            budget_ms: self.budget_ms,
            protected: self.protected,
            ledger: self.ledger.clone(),
            proof,
            option: format!("{p}source"),
        })
    }

    fn sound(&self, spec: &AudioSpec) -> anyhow::Result<Plan> {
        let p = &self.prefix;
        let kbps = self.audio_bitrate.unwrap_or(64);
        if !(6..=510).contains(&kbps) {
            bail!("{p}audio-bitrate is 6 to 510 kbit/s, not {kbps}");
        }
        let frame_ms = self.audio_frame.unwrap_or(20);
        if !matches!(frame_ms, 10 | 20) {
            bail!("{p}audio-frame is 10 or 20 ms, not {frame_ms}");
        }
        let mut spec = spec.clone();
        if let AudioSpec::File { looped, .. } = &mut spec {
            *looped = self.looped;
        }
        // A feed of sound alone has the name as it is.
        let feed = match &self.source {
            Some(_) => FeedId::new(format!("{}-audio", self.feed))?,
            None => self.feed.clone(),
        };
        Ok(Plan {
            feed,
            source: self.feed.to_string(),
            what: What::Sound { spec, settings: AudioSettings { bitrate_bps: kbps * 1_000, frame_ms } },
            purpose: Purpose::Voice,
            told_bits: None,
            mode: self.mode,
            budget_ms: self.budget_ms,
            protected: self.protected,
            ledger: self.ledger.clone().filter(|_| self.source.is_none()),
            proof: None,
            option: format!("{p}audio"),
        })
    }
}

/// A tenth of a bit per pixel is visually clean for the scene; bounded to what one line carries.
fn usual_bits(spec: &SourceSpec) -> u32 {
    match spec {
        SourceSpec::Test(g) | SourceSpec::Freezing { geometry: g, .. } => {
            u32::try_from(g.pixel_rate() / 10).unwrap_or(u32::MAX).clamp(2_000_000, 40_000_000)
        }
        _ => EncodeSettings::default().bitrate_bps,
    }
}

impl Plan {
    /// Opens the source. Blocks for up to some seconds.
    ///
    /// # Errors
    /// Those of [`media::prepare`].
    pub(super) fn prepare(&self) -> Result<Prepared, MediaError> {
        match &self.what {
            What::Sound { spec, settings } => media::prepare_audio(spec, *settings),
            What::Picture { spec, settings, probe_size: false } => media::prepare(spec, settings),
            What::Picture { settings, probe_size: true, .. } => {
                let spec = SourceSpec::Test(media::probe_largest_live_size()?);
                let mut settings = settings.clone();
                if self.told_bits.is_none() {
                    settings.bitrate_bps = usual_bits(&spec);
                }
                media::prepare(&spec, &settings)
            }
        }
    }

    /// The source, as it may be shown.
    pub(super) fn place(&self) -> String {
        match &self.what {
            What::Picture { spec, .. } => spec.to_string(),
            What::Sound { spec, .. } => spec.to_string(),
        }
    }

    /// Whether it is a stream of somebody who may come later.
    pub(super) const fn may_come_later(&self) -> bool {
        matches!(&self.what, What::Picture { spec: SourceSpec::Stream(_), .. })
    }

    /// Whether it shows the present, so that what was opened long ago must be opened again.
    pub(super) const fn is_live(&self) -> bool {
        match &self.what {
            What::Picture { spec, .. } => spec.is_live(),
            What::Sound { spec, .. } => !matches!(spec, AudioSpec::File { .. }),
        }
    }

    /// What viewers are told.
    pub(super) fn describe(&self, info: &SourceInfo) -> FeedDescriptor {
        let ids = ExtensionIds::OURS;
        let mut header_extensions = BTreeMap::from([
            (FRAME_URI.to_owned(), ids.frame),
            (ABS_CAPTURE_TIME_URI.to_owned(), ids.abs_capture_time),
        ]);
        let sound = matches!(self.what, What::Sound { .. });
        if sound {
            header_extensions.insert(AUDIO_LEVEL_URI.to_owned(), AUDIO_LEVEL_ID);
        }
        let mean = if info.key_frames_on_request {
            info.bits_per_second
        } else {
            self.told_bits.unwrap_or(info.bits_per_second)
        };
        // Twice the mean: key frames come in bursts, and the grant is what the relay sizes its ring by. What is not
        // compressed has no bursts.
        let grant = if info.codec.is_compressed() { mean.saturating_mul(2).max(1_000_000) } else { mean };
        FeedDescriptor {
            feed: self.feed.clone(),
            source: self.source.clone(),
            view: "overview".to_owned(),
            kind: if sound { MediaKind::Audio } else { MediaKind::Video },
            purpose: self.purpose,
            codec: info.codec.encoding_name().to_owned(),
            fmtp: info.fmtp.clone(),
            clock_rate: info.codec.clock_rate(),
            payload_type: media::PAYLOAD_TYPE,
            width: info.width,
            height: info.height,
            fps: info.fps,
            max_bitrate: Bitrate(grant),
            budget_ms: self.budget_ms,
            header_extensions,
            priority: 0,
            protected: self.protected,
            replay: info.replay,
            fec: crate::repair::offered(self.mode, sound),
            transport: Transport::Roq { mode: self.mode, rtp_flow_id: None, rtcp_flow_id: None },
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::publish) fn wanted(source: &str) -> Wanted {
        Wanted {
            feed: FeedId::new("scope").unwrap(),
            source: Some(source.parse().unwrap()),
            size: None,
            looped: false,
            passthrough: false,
            codec: None,
            bitrate: None,
            purpose: PurposeArg::Scope,
            audio: None,
            audio_bitrate: None,
            audio_frame: None,
            ledger: None,
            mode: RoqMode::Datagram,
            budget_ms: USUAL_BUDGET_MS,
            protected: false,
            proof: None,
            prefix: "--".to_owned(),
        }
    }

    #[test]
    fn sizes_are_names_or_numbers_and_what_is_neither_is_told_what_would_be() {
        assert_eq!("auto".parse(), Ok(Size::Auto));
        assert_eq!("2160p".parse(), Ok(Size::Fixed(Geometry { width: 3840, height: 2160, fps: 30 })));
        assert_eq!("640x360@25".parse(), Ok(Size::Fixed(Geometry { width: 640, height: 360, fps: 25 })));
        let e = "8k".parse::<Size>().unwrap_err();
        assert!(e.contains("auto, 720p, 1080p, 2160p or WIDTHxHEIGHT@FPS"), "{e}");
    }

    #[test]
    fn a_picture_with_sound_is_two_feeds_of_one_source() {
        let plans = Wanted { audio: Some(AudioSpec::Tone(440)), ..wanted("test") }.plans().unwrap();
        let names: Vec<_> = plans.iter().map(|p| (p.feed.to_string(), p.source.clone())).collect();
        assert_eq!(names, [("scope".to_owned(), "scope".to_owned()), ("scope-audio".to_owned(), "scope".to_owned())]);
        let alone = Wanted { source: None, audio: Some(AudioSpec::Tone(440)), ..wanted("test") }.plans().unwrap();
        assert_eq!((alone.len(), alone[0].feed.to_string()), (1, "scope".to_owned()));
        let info = SourceInfo {
            codec: Codec::Opus,
            fmtp: String::new(),
            width: 0,
            height: 0,
            fps: 0.0,
            bits_per_second: 64_000,
            replay: false,
            key_frames_on_request: false,
        };
        let d = plans[1].describe(&info);
        assert_eq!(
            (d.kind, d.purpose, d.codec.as_str(), d.clock_rate),
            (MediaKind::Audio, Purpose::Voice, "opus", 48_000)
        );
        assert_eq!(d.extension_id(AUDIO_LEVEL_URI), Some(3));
        assert_eq!(d.check(), Ok(()));
    }

    #[test]
    fn what_does_not_go_together_is_named() {
        let size = Some(Size::Fixed(Geometry { width: 640, height: 360, fps: 30 }));
        let cases = [
            (Wanted { codec: Some(Codec::H264), ..wanted("udp://0.0.0.0:5004") }, "--codec"),
            (Wanted { codec: Some(Codec::Vp8), passthrough: true, ..wanted("file:x.mp4") }, "--codec"),
            (Wanted { passthrough: true, ..wanted("test") }, "--passthrough"),
            (Wanted { codec: Some(Codec::Raw), bitrate: Some(1.0), ..wanted("test") }, "--bitrate"),
            (Wanted { bitrate: Some(0.0), ..wanted("test") }, "--bitrate is 0.1 to 400"),
            (Wanted { size, ..wanted("file:x.mp4") }, "--size goes with --source test; a file has its own size"),
            (Wanted { size, ..wanted("srt://h:1") }, "--size"),
            (Wanted { size: Some(Size::Auto), ..wanted("v4l2:/dev/video0") }, "--size auto"),
            (Wanted { source: None, ..wanted("test") }, "--source or --audio is missing"),
            (Wanted { audio_frame: Some(20), ..wanted("test") }, "go with --audio"),
            (Wanted { audio: Some(AudioSpec::Tone(1)), audio_frame: Some(15), ..wanted("test") }, "10 or 20 ms"),
            (Wanted { audio: Some(AudioSpec::Tone(1)), audio_bitrate: Some(1), ..wanted("test") }, "6 to 510"),
        ];
        for (wanted, reason) in cases {
            let error = wanted.plans().unwrap_err().to_string();
            assert!(error.contains(reason), "{reason}: {error}");
        }
    }
}
