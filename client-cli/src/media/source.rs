//! From what was asked for to frames of RTP packets: [`prepare`], look at [`SourceInfo`], [`Prepared::start`].

use super::decoder::{self, Decoder};
use super::elements;
use super::encoder::{self, Encoder};
use super::error::MediaError;
use super::frame::FrameSink;
use super::live::{run_decoded, run_scene, scene_caps};
use super::passthrough::{self, Recording};
use super::running::{Running, Shared};
use super::scene::Scene;
use super::spec::{EncodeSettings, Geometry, SourceSpec, profile_level_id};
use std::sync::Arc;

/// What a source will deliver: the facts that a feed's descriptor needs.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct SourceInfo {
    /// Pixels from left to right.
    pub(crate) width: u32,
    /// Pixels from top to bottom.
    pub(crate) height: u32,
    /// Frames per second.
    pub(crate) fps: f64,
    /// Six hexadecimal digits (RFC 6184 section 8.1): a live encoder's by size and rate, a recording's own.
    pub(crate) profile_level_id: String,
    /// Mean bits per second: what the encoder is set to, or what the recording has.
    pub(crate) bits_per_second: u64,
    /// Pictures were captured before: the page says so.
    pub(crate) replay: bool,
    /// [`Running::request_key_frame`] has an effect.
    pub(crate) key_frames_on_request: bool,
}

impl SourceInfo {
    /// `a=fmtp` of the feed.
    pub(crate) fn fmtp(&self) -> String {
        format!("level-asymmetry-allowed=1;packetization-mode=1;profile-level-id={}", self.profile_level_id)
    }
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
    Scene { scene: Box<Scene>, geometry: Geometry },
    Decoded { decoder: Decoder, looped: bool },
    Passthrough { recording: Recording, looped: bool },
}

/// Checks the installation, opens the file or draws the scene's wall. Blocks for up to some seconds: call it from a
/// thread that may.
///
/// # Errors
/// [`MediaError`] with what is missing, and where to get it.
pub(crate) fn prepare(spec: &SourceSpec, settings: &EncodeSettings) -> Result<Prepared, MediaError> {
    match spec {
        SourceSpec::Test(geometry) => prepare_scene(*geometry, settings),
        SourceSpec::File { path, looped, passthrough: true } => {
            elements::require(&passthrough::ELEMENTS)?;
            let recording = Recording::open(path)?;
            let (width, height, fps) = recording.size;
            let info = SourceInfo {
                width,
                height,
                fps,
                profile_level_id: recording.profile_level_id.clone(),
                bits_per_second: recording.bits_per_second,
                replay: true,
                key_frames_on_request: false,
            };
            let kind = Kind::Passthrough { recording, looped: *looped };
            Ok(Prepared { info, settings: settings.clone(), kind })
        }
        SourceSpec::File { path, looped, passthrough: false } => {
            elements::require(&encoder::ELEMENTS)?;
            elements::require(&decoder::ELEMENTS)?;
            let decoder = Decoder::open(path, settings)?;
            let (width, height, fps) = decoder.size();
            let whole = Geometry { width, height, fps: fps.round() as u32 };
            if !width.is_multiple_of(2) || !height.is_multiple_of(2) {
                return Err(MediaError::Size {
                    width,
                    height,
                    fps: whole.fps,
                    reason: "width and height are even numbers",
                });
            }
            let info = live_info(whole, fps, settings, true);
            let kind = Kind::Decoded { decoder, looped: *looped };
            Ok(Prepared { info, settings: settings.clone(), kind })
        }
    }
}

fn prepare_scene(mut geometry: Geometry, settings: &EncodeSettings) -> Result<Prepared, MediaError> {
    elements::require(&encoder::ELEMENTS)?;
    (geometry.width, geometry.height) = settings.size.unwrap_or((geometry.width, geometry.height));
    geometry.fps = settings.fps.unwrap_or(geometry.fps);
    let scene = Box::new(Scene::new(geometry, 0)?);
    let info = live_info(geometry, f64::from(geometry.fps), settings, false);
    Ok(Prepared { info, settings: settings.clone(), kind: Kind::Scene { scene, geometry } })
}

fn live_info(geometry: Geometry, fps: f64, settings: &EncodeSettings, replay: bool) -> SourceInfo {
    SourceInfo {
        width: geometry.width,
        height: geometry.height,
        fps,
        profile_level_id: profile_level_id(settings.profile, geometry, settings.bitrate_bps),
        bits_per_second: u64::from(settings.bitrate_bps),
        replay,
        key_frames_on_request: true,
    }
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
            Kind::Scene { scene, geometry } => {
                let encoder = Encoder::start(&scene_caps(geometry), geometry, &self.settings, sink, &shared)?;
                let (control, name) = (Some(encoder.control()), "trocar-scene");
                Running::spawn(name, Arc::clone(&shared), events, control, move |shared| {
                    run_scene(&scene, geometry, &encoder, shared)
                })
            }
            Kind::Decoded { mut decoder, looped } => {
                let encoder = Encoder::start(&decoder.caps(), whole, &self.settings, sink, &shared)?;
                let (control, name) = (Some(encoder.control()), "trocar-player");
                Running::spawn(name, Arc::clone(&shared), events, control, move |shared| {
                    run_decoded(&mut decoder, looped, &encoder, shared)
                })
            }
            Kind::Passthrough { mut recording, looped } => {
                Running::spawn("trocar-player", Arc::clone(&shared), events, None, move |shared| {
                    recording.run(looped, &mut sink, shared)
                })
            }
        }
    }
}
