//! A recording as pictures: `filesrc ! decodebin ! videoconvert ! videoscale ! videorate ! appsink`.

use super::elements::{bus_error, chain, make};
use super::encoder::exact_conversion;
use super::error::MediaError;
use super::spec::EncodeSettings;
use gst::prelude::*;
use gstreamer as gst;
use gstreamer_app as app;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Elements of the pipeline, checked before it is made.
pub(super) const ELEMENTS: [&str; 7] =
    ["filesrc", "decodebin", "videoconvert", "videoscale", "videorate", "capsfilter", "appsink"];
/// Seconds in which the first picture must be there, and a next one.
const PATIENCE_S: u64 = 10;
/// Decoded pictures that wait; the decoder waits when there are more.
const QUEUE: u32 = 3;
/// Frames per second of a file that does not say.
const DEFAULT_FPS: i32 = 30;

/// A recording being decoded.
#[derive(Debug)]
pub(super) struct Decoder {
    path: PathBuf,
    pipeline: gst::Pipeline,
    appsink: app::AppSink,
    caps: gst::Caps,
}

impl Decoder {
    /// Opens a file and decodes its first picture.
    ///
    /// # Errors
    /// [`MediaError`] where the file or a decoder for it is not there, or there is no video in it.
    pub(super) fn open(path: &Path, settings: &EncodeSettings) -> Result<Self, MediaError> {
        let pipeline = gst::Pipeline::new();
        let (source, decode) = (file_source(path)?, make("decodebin")?);
        chain(&pipeline, &[&source, &decode])?;
        let convert = exact_conversion(settings.codec)?;
        let (scale, rate, filter) = (make("videoscale")?, make("videorate")?, make("capsfilter")?);
        filter.set_property("caps", wanted(settings));
        let appsink = app::AppSink::builder().sync(false).max_buffers(QUEUE).build();
        chain(&pipeline, &[&convert, &scale, &rate, &filter, appsink.upcast_ref()])?;
        let sink = convert.static_pad("sink");
        decode.connect_pad_added(move |_, pad| {
            let video =
                pad.current_caps().is_some_and(|c| c.structure(0).is_some_and(|s| s.name().starts_with("video/")));
            if let Some(sink) = sink.as_ref().filter(|s| video && !s.is_linked()) {
                // Where it does not link, no picture comes, and that is reported.
                let _ = pad.link(sink);
            }
        });
        preroll(&pipeline, path, || convert.static_pad("sink").is_some_and(|s| s.is_linked()), || None)?;
        let caps = appsink.static_pad("sink").and_then(|p| p.current_caps());
        let caps = with_rate(caps.ok_or_else(|| MediaError::NoVideo { path: path.to_owned() })?);
        pipeline.set_state(gst::State::Playing).map_err(|e| MediaError::pipeline("decoder", e))?;
        Ok(Self { path: path.to_owned(), pipeline, appsink, caps })
    }

    /// The caps of the pictures, with a frame rate in any case.
    pub(super) fn caps(&self) -> gst::Caps {
        self.caps.clone()
    }

    /// Pixels from left to right, from top to bottom, and frames per second.
    pub(super) fn size(&self) -> (u32, u32, f64) {
        size_of(&self.caps)
    }

    /// Nanoseconds from one frame to the next, by the frame rate.
    pub(super) fn interval_ns(&self) -> u64 {
        (1e9 / self.size().2.max(1.0)) as u64
    }

    /// The next picture; none at the end, or once `stopped`.
    ///
    /// # Errors
    /// [`MediaError`] where the decoder fails or stands still.
    pub(super) fn next(&mut self, stopped: impl Fn() -> bool) -> Result<Option<gst::Sample>, MediaError> {
        next_sample(&self.pipeline, &self.appsink, stopped)
    }

    /// Back to the beginning.
    ///
    /// # Errors
    /// [`MediaError::Pipeline`] where the file's format cannot seek.
    pub(super) fn rewind(&mut self) -> Result<(), MediaError> {
        rewind(&self.pipeline, &self.path)
    }
}

impl Drop for Decoder {
    fn drop(&mut self) {
        let _ = self.pipeline.set_state(gst::State::Null);
    }
}

/// The element that reads a file, which must be there.
pub(super) fn file_source(path: &Path) -> Result<gst::Element, MediaError> {
    let open = |cause| MediaError::Open { path: path.to_owned(), cause };
    let file = std::fs::File::open(path).map_err(open)?;
    if file.metadata().map_err(open)?.is_dir() {
        return Err(open(std::io::Error::from(std::io::ErrorKind::IsADirectory)));
    }
    let source = make("filesrc")?;
    source.set_property("location", path);
    Ok(source)
}

/// Runs a pipeline up to its first buffer. `refused` may say why there will be none.
pub(super) fn preroll(
    pipeline: &gst::Pipeline,
    path: &Path,
    linked: impl Fn() -> bool,
    refused: impl Fn() -> Option<MediaError>,
) -> Result<(), MediaError> {
    let result = wait_for_preroll(pipeline, path, linked, refused);
    if result.is_err() {
        let _ = pipeline.set_state(gst::State::Null);
    }
    result
}

fn wait_for_preroll(
    pipeline: &gst::Pipeline,
    path: &Path,
    linked: impl Fn() -> bool,
    refused: impl Fn() -> Option<MediaError>,
) -> Result<(), MediaError> {
    // A failure is explained by the message on the bus.
    let _ = pipeline.set_state(gst::State::Paused);
    let bus = pipeline.bus().ok_or_else(|| MediaError::pipeline("pipeline", "no bus"))?;
    let deadline = Instant::now() + Duration::from_secs(PATIENCE_S);
    let kinds = [gst::MessageType::AsyncDone, gst::MessageType::Error, gst::MessageType::Eos];
    while Instant::now() < deadline {
        let message = bus.timed_pop_filtered(gst::ClockTime::from_mseconds(50), &kinds);
        if let Some(reason) = refused() {
            return Err(reason);
        }
        match message.as_ref().map(|m| m.view()) {
            Some(gst::MessageView::AsyncDone(_)) => return Ok(()),
            Some(gst::MessageView::Eos(_)) => return Err(MediaError::NoVideo { path: path.to_owned() }),
            Some(gst::MessageView::Error(error)) => return Err(explain(error, path, linked())),
            _ => {}
        }
    }
    if linked() {
        return Err(MediaError::Stalled { step: "opening the file".to_owned(), seconds: PATIENCE_S });
    }
    Err(MediaError::NoVideo { path: path.to_owned() })
}

/// What a file's error message means to the person who named the file.
fn explain(error: &gst::message::Error, path: &Path, linked: bool) -> MediaError {
    let cause = error.error();
    let path = path.to_owned();
    if cause.matches(gst::StreamError::CodecNotFound) || cause.matches(gst::CoreError::MissingPlugin) {
        return MediaError::MissingDecoder { path, what: cause.message().to_owned() };
    }
    let unknown = [gst::StreamError::TypeNotFound, gst::StreamError::WrongType, gst::StreamError::Demux];
    if !linked || unknown.into_iter().any(|kind| cause.matches(kind)) {
        tracing::debug!("{}: {}", path.display(), bus_error(error));
        return MediaError::NoVideo { path };
    }
    bus_error(error)
}

/// The next sample of a sink; none at its end, or once `stopped`.
pub(super) fn next_sample(
    pipeline: &gst::Pipeline,
    appsink: &app::AppSink,
    stopped: impl Fn() -> bool,
) -> Result<Option<gst::Sample>, MediaError> {
    let deadline = Instant::now() + Duration::from_secs(PATIENCE_S);
    while !stopped() {
        if let Some(sample) = appsink.try_pull_sample(gst::ClockTime::from_mseconds(50)) {
            return Ok(Some(sample));
        }
        let error = pipeline.bus().and_then(|bus| bus.pop_filtered(&[gst::MessageType::Error]));
        if let Some(gst::MessageView::Error(error)) = error.as_ref().map(|m| m.view()) {
            return Err(bus_error(error));
        }
        if appsink.is_eos() {
            break;
        }
        if Instant::now() > deadline {
            return Err(MediaError::Stalled { step: "reading the file".to_owned(), seconds: PATIENCE_S });
        }
    }
    Ok(None)
}

/// Starts a file again from its beginning.
pub(super) fn rewind(pipeline: &gst::Pipeline, path: &Path) -> Result<(), MediaError> {
    let seek = pipeline.seek_simple(gst::SeekFlags::FLUSH | gst::SeekFlags::KEY_UNIT, gst::ClockTime::ZERO);
    seek.map_err(|_| {
        MediaError::pipeline("rewind", format!("{} cannot be played again from its start", path.display()))
    })
}

/// Width, height and frames per second of video caps; what is not said is 0.
pub(super) fn size_of(caps: &gst::CapsRef) -> (u32, u32, f64) {
    let Some(s) = caps.structure(0) else { return (0, 0, 0.0) };
    let side = |name: &str| s.get::<i32>(name).ok().and_then(|n| u32::try_from(n).ok()).unwrap_or(0);
    let fps = s.get::<gst::Fraction>("framerate").map_or(0.0, |f| f64::from(f.numer()) / f64::from(f.denom().max(1)));
    (side("width"), side("height"), fps)
}

pub(super) fn wanted(settings: &EncodeSettings) -> gst::Caps {
    let whole = |n: u32| i32::try_from(n).unwrap_or(i32::MAX);
    let mut caps = gst::Caps::builder("video/x-raw").field("format", settings.codec.picture_format());
    if let Some((width, height)) = settings.size {
        caps = caps.field("width", whole(width)).field("height", whole(height));
        caps = caps.field("pixel-aspect-ratio", gst::Fraction::new(1, 1));
    }
    if let Some(fps) = settings.fps {
        caps = caps.field("framerate", gst::Fraction::new(whole(fps), 1));
    }
    caps.build()
}

/// Variable rates are written down as 0: the encoder's rate control needs a number.
pub(super) fn with_rate(mut caps: gst::Caps) -> gst::Caps {
    if size_of(&caps).2 <= 0.0 {
        let caps = caps.make_mut();
        caps.set("framerate", gst::Fraction::new(DEFAULT_FPS, 1));
    }
    caps
}
