//! From what was asked for to frames of RTP packets: [`prepare`], look at [`SourceInfo`], [`Prepared::start`].

use super::audio::{AudioSettings, AudioSpec, Sound};
use super::capture::Capture;
use super::codec::Codec;
use super::decoder::{self, Decoder};
use super::elements;
use super::encoder::Encoder;
use super::error::MediaError;
use super::frame::FrameSink;
use super::ingest::{self, Ingest};
use super::keyframe::h264_fmtp;
use super::live::{run_decoded, run_scene, scene_caps};
use super::passthrough::{self, Recording};
use super::place::SourceSpec;
use super::running::{Running, Shared};
use super::scene::Scene;
use super::spec::{EncodeSettings, Geometry, profile_level_id};
use super::tuning;
use std::sync::Arc;

/// What a source will deliver: the facts that a feed's descriptor needs.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct SourceInfo {
    /// Codec.
    pub(crate) codec: Codec,
    /// `a=fmtp` of the feed: a live encoder's by size and rate, a recording's or stream's own.
    pub(crate) fmtp: String,
    /// Pixels from left to right; 0 for sound.
    pub(crate) width: u32,
    /// Pixels from top to bottom; 0 for sound.
    pub(crate) height: u32,
    /// Frames per second; 0 for sound.
    pub(crate) fps: f64,
    /// Mean bits per second: what the encoder is set to, or what the recording has; of a stream an assumption.
    pub(crate) bits_per_second: u64,
    /// Pictures were captured before: the page says so.
    pub(crate) replay: bool,
    /// [`Running::request_key_frame`] has an effect.
    pub(crate) key_frames_on_request: bool,
}

/// A source that has what it needs and waits for its start.
#[derive(Debug)]
pub(crate) struct Prepared {
    info: SourceInfo,
    settings: EncodeSettings,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Scene { scene: Box<Scene>, geometry: Geometry, freeze: Option<u32> },
    Decoded { decoder: Decoder, looped: bool },
    Passthrough { recording: Recording, looped: bool },
    Capture(Capture),
    Ingest(Ingest),
    Sound(Sound),
}

/// Checks the installation, opens the file, device or stream, or draws the scene's wall. Blocks for up to some seconds:
/// call it from a thread that may.
///
/// # Errors
/// [`MediaError`] with what is missing, and where to get it.
pub(crate) fn prepare(spec: &SourceSpec, settings: &EncodeSettings) -> Result<Prepared, MediaError> {
    elements::init()?;
    let (info, kind) = match spec {
        SourceSpec::Test(geometry) => prepare_scene(*geometry, None, settings)?,
        SourceSpec::Freezing { geometry, after } => prepare_scene(*geometry, Some(*after), settings)?,
        SourceSpec::File { path, looped, passthrough: true } => {
            elements::require(&passthrough::ELEMENTS)?;
            let recording = Recording::open(path)?;
            let info = forwarded(recording.codec, &recording.fmtp, recording.size, recording.bits_per_second, true);
            (info, Kind::Passthrough { recording, looped: *looped })
        }
        SourceSpec::File { path, looped, passthrough: false } => {
            elements::require(&settings.codec.encoding_elements())?;
            elements::require(&decoder::ELEMENTS)?;
            let decoder = Decoder::open(path, settings)?;
            (encoded(decoder.size(), settings, true)?, Kind::Decoded { decoder, looped: *looped })
        }
        SourceSpec::Capture(device) => {
            elements::require(&settings.codec.encoding_elements())?;
            let capture = Capture::open(device, settings)?;
            (encoded(capture.size(), settings, false)?, Kind::Capture(capture))
        }
        SourceSpec::Stream(stream) => {
            let ingest = Ingest::open(stream)?;
            let bits = ingest::DEFAULT_BITS;
            (forwarded(ingest.codec, &ingest.fmtp, ingest.size, bits, false), Kind::Ingest(ingest))
        }
    };
    Ok(Prepared { info, settings: settings.clone(), kind })
}

/// The same for sound.
///
/// # Errors
/// [`MediaError`] with what is missing, and where to get it.
pub(crate) fn prepare_audio(spec: &AudioSpec, settings: AudioSettings) -> Result<Prepared, MediaError> {
    let sound = Sound::open(spec, settings)?;
    let geometry = Geometry { width: 0, height: 0, fps: 0 };
    let info = SourceInfo {
        codec: Codec::Opus,
        fmtp: Codec::Opus.fmtp(geometry, None),
        width: 0,
        height: 0,
        fps: 0.0,
        bits_per_second: u64::from(settings.bitrate_bps),
        replay: matches!(spec, AudioSpec::File { .. }),
        key_frames_on_request: false,
    };
    Ok(Prepared { info, settings: EncodeSettings::default(), kind: Kind::Sound(sound) })
}

fn prepare_scene(
    mut geometry: Geometry,
    freeze: Option<u32>,
    settings: &EncodeSettings,
) -> Result<(SourceInfo, Kind), MediaError> {
    elements::require(&settings.codec.encoding_elements())?;
    (geometry.width, geometry.height) = settings.size.unwrap_or((geometry.width, geometry.height));
    geometry.fps = settings.fps.unwrap_or(geometry.fps);
    let size = (geometry.width, geometry.height, f64::from(geometry.fps));
    let info = encoded(size, settings, false)?;
    Ok((info, Kind::Scene { scene: Box::new(Scene::new(geometry, 0)?), geometry, freeze }))
}

/// Pictures that are encoded here.
fn encoded(size: (u32, u32, f64), settings: &EncodeSettings, replay: bool) -> Result<SourceInfo, MediaError> {
    let (width, height, fps) = size;
    let geometry = Geometry { width, height, fps: fps.round() as u32 };
    if !width.is_multiple_of(2) || !height.is_multiple_of(2) {
        let reason = "width and height are even numbers";
        return Err(MediaError::Size { width, height, fps: geometry.fps, reason });
    }
    tuning::check(settings.codec, geometry)?;
    let fmtp = match settings.codec {
        Codec::H264 => h264_fmtp(&profile_level_id(settings.profile, geometry, settings.bitrate_bps)),
        codec => codec.fmtp(geometry, None),
    };
    Ok(SourceInfo {
        codec: settings.codec,
        fmtp,
        width,
        height,
        fps,
        bits_per_second: tuning::bits_per_second(geometry, settings),
        replay,
        key_frames_on_request: settings.codec.has_key_frames_on_request(),
    })
}

/// Video that was encoded elsewhere.
fn forwarded(codec: Codec, fmtp: &str, size: (u32, u32, f64), bits_per_second: u64, replay: bool) -> SourceInfo {
    let (width, height, fps) = size;
    let fmtp = fmtp.to_owned();
    SourceInfo { codec, fmtp, width, height, fps, bits_per_second, replay, key_frames_on_request: false }
}

impl Prepared {
    /// What it will deliver.
    pub(crate) const fn info(&self) -> &SourceInfo {
        &self.info
    }

    /// Starts it. `sink` gets whole frames in order, on a thread of the source, and must not block.
    ///
    /// # Errors
    /// [`MediaError`] where the encoder or a thread does not start; what goes wrong later is an event.
    pub(crate) fn start(self, mut sink: FrameSink) -> Result<Running, MediaError> {
        let (shared, events) = Shared::new();
        let whole = Geometry { width: self.info.width, height: self.info.height, fps: self.info.fps.round() as u32 };
        match self.kind {
            Kind::Scene { scene, geometry, freeze } => {
                let encoder = Encoder::start(&scene_caps(geometry), geometry, &self.settings, sink, &shared)?;
                let (control, name) = (encoder.control(), "trocar-scene");
                Running::spawn(name, Arc::clone(&shared), events, control, move |shared| {
                    run_scene(&scene, geometry, freeze, &encoder, shared)
                })
            }
            Kind::Decoded { mut decoder, looped } => {
                let encoder = Encoder::start(&decoder.caps(), whole, &self.settings, sink, &shared)?;
                let (control, name) = (encoder.control(), "trocar-player");
                Running::spawn(name, Arc::clone(&shared), events, control, move |shared| {
                    run_decoded(&mut decoder, looped, &encoder, shared)
                })
            }
            Kind::Capture(capture) => {
                let encoder = Encoder::start(&capture.caps(), whole, &self.settings, sink, &shared)?;
                let (control, name) = (encoder.control(), "trocar-capture");
                Running::spawn(name, Arc::clone(&shared), events, control, move |shared| capture.run(&encoder, shared))
            }
            Kind::Passthrough { mut recording, looped } => {
                Running::spawn("trocar-player", Arc::clone(&shared), events, None, move |shared| {
                    recording.run(looped, &mut sink, shared)
                })
            }
            Kind::Ingest(mut ingest) => {
                Running::spawn("trocar-ingest", Arc::clone(&shared), events, None, move |shared| {
                    ingest.run(&mut sink, shared)
                })
            }
            Kind::Sound(mut sound) => {
                let inside = Arc::clone(&shared);
                Running::spawn("trocar-sound", shared, events, None, move |_| sound.run(sink, &inside))
            }
        }
    }
}
