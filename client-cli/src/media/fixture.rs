//! Recordings of the synthetic field, for replay where live encoding would be too slow.

use super::elements::{self, bus_error, chain, make};
use super::error::MediaError;
use super::live::{PicturePool, scene_caps};
use super::scene::{Scene, Stamp};
use super::spec::Geometry;
use gst::prelude::*;
use gstreamer as gst;
use gstreamer_app as app;
use std::path::{Path, PathBuf};

/// Elements of the pipeline, checked before it is made.
const ELEMENTS: [&str; 6] = ["appsrc", "x264enc", "capsfilter", "h264parse", "mp4mux", "filesink"];
/// Noise of the sensor in luma steps: gives the encoder something to spend a high bit rate on.
const GRAIN: u8 = 3;
/// Pictures that wait for the encoder; the drawing thread waits when there are more.
const QUEUE: u64 = 3;

/// What to record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FixtureSpec {
    /// The MP4 file to write. It appears when it is complete; what was there before is replaced.
    pub(crate) path: PathBuf,
    /// Size and rate.
    pub(crate) geometry: Geometry,
    /// Length in seconds. The field's motion repeats after 10 s: multiples of that loop without a jump.
    pub(crate) seconds: u32,
    /// Constant bit rate in bits per second, kept within 5 % over the whole file.
    pub(crate) bitrate_bps: u32,
    /// A key frame every so many frames, closed groups of pictures; at most a second's worth is used.
    pub(crate) key_interval_frames: u32,
}

/// Records the field: frame counter from 0, `REPLAY` in place of the time, mark time 0. `progress` is told the frames
/// done and the frames in all, after each frame. Blocks: 600 frames of 2160 rows take about 30 s of CPU time.
///
/// # Errors
/// [`MediaError`] where an element is missing, the size cannot be done or the file cannot be written.
pub(crate) fn make_fixture(spec: &FixtureSpec, progress: &mut dyn FnMut(u32, u32)) -> Result<(), MediaError> {
    elements::require(&ELEMENTS)?;
    let scene = Scene::new(spec.geometry, GRAIN)?;
    let partial = partial_name(&spec.path);
    let write = |cause| MediaError::Write { path: spec.path.clone(), cause };
    // GStreamer's own words about a file that cannot be made do not name the reason well.
    std::fs::File::create(&partial).map_err(write)?;
    let result = record(spec, &scene, &partial, progress);
    let result = result.and_then(|()| std::fs::rename(&partial, &spec.path).map_err(write));
    if result.is_err() {
        // The reason is on its way to the caller already.
        let _ = std::fs::remove_file(&partial);
    }
    result
}

fn record(
    spec: &FixtureSpec,
    scene: &Scene,
    partial: &Path,
    progress: &mut dyn FnMut(u32, u32),
) -> Result<(), MediaError> {
    let pipeline = gst::Pipeline::new();
    let appsrc = source(spec, scene);
    let (encoder, profile) = (encoder(spec)?, make("capsfilter")?);
    profile.set_property("caps", gst::Caps::builder("video/x-h264").field("profile", "constrained-baseline").build());
    let (parse, mux, sink) = (make("h264parse")?, make("mp4mux")?, make("filesink")?);
    sink.set_property("location", partial);
    chain(&pipeline, &[appsrc.upcast_ref(), &encoder, &profile, &parse, &mux, &sink])?;
    let result = feed(spec, scene, &pipeline, &appsrc, progress);
    let stopped = pipeline.set_state(gst::State::Null).map_err(|e| MediaError::pipeline("filesink", e));
    result.and(stopped.map(|_| ()))
}

fn feed(
    spec: &FixtureSpec,
    scene: &Scene,
    pipeline: &gst::Pipeline,
    appsrc: &app::AppSrc,
    progress: &mut dyn FnMut(u32, u32),
) -> Result<(), MediaError> {
    pipeline.set_state(gst::State::Playing).map_err(|e| MediaError::pipeline("fixture", e))?;
    let bus = pipeline.bus().ok_or_else(|| MediaError::pipeline("pipeline", "no bus"))?;
    let (pool, fps) = (PicturePool::new(), spec.geometry.fps);
    let total = spec.seconds.saturating_mul(fps);
    for frame in 0..total {
        let mut picture = pool.take(scene);
        scene.draw(&mut picture, frame, f64::from(frame) / f64::from(fps), Stamp::Replay)?;
        let mut buffer = pool.buffer(picture);
        let at = |frame: u32| gst::ClockTime::from_nseconds(u64::from(frame) * 1_000_000_000 / u64::from(fps));
        let writable = buffer.make_mut();
        writable.set_pts(at(frame));
        writable.set_duration(at(frame + 1) - at(frame));
        if let Err(flow) = appsrc.push_buffer(buffer) {
            return Err(pending_error(&bus).unwrap_or_else(|| MediaError::pipeline("appsrc", flow)));
        }
        progress(frame + 1, total);
    }
    appsrc.end_of_stream().map_err(|e| MediaError::pipeline("appsrc", e))?;
    let kinds = [gst::MessageType::Eos, gst::MessageType::Error];
    let end = bus.timed_pop_filtered(gst::ClockTime::from_seconds(60), &kinds);
    match end.as_ref().map(|m| m.view()) {
        Some(gst::MessageView::Eos(_)) => Ok(()),
        Some(gst::MessageView::Error(error)) => Err(bus_error(error)),
        _ => Err(MediaError::Stalled { step: "finishing the file".to_owned(), seconds: 60 }),
    }
}

fn source(spec: &FixtureSpec, scene: &Scene) -> app::AppSrc {
    let caps = scene_caps(spec.geometry);
    let max_bytes = scene.picture_size() as u64 * QUEUE;
    app::AppSrc::builder().caps(&caps).format(gst::Format::Time).block(true).max_bytes(max_bytes).build()
}

/// Frame threads, not slices: throughput counts here, not delay. What the picture does not need of the constant bit
/// rate is filled up.
fn encoder(spec: &FixtureSpec) -> Result<gst::Element, MediaError> {
    let encoder = make("x264enc")?;
    encoder.set_property_from_str("speed-preset", "ultrafast");
    encoder.set_property_from_str("pass", "cbr");
    encoder.set_property("bitrate", (spec.bitrate_bps / 1_000).max(1));
    encoder.set_property("vbv-buf-capacity", 100_u32);
    encoder.set_property("bframes", 0_u32);
    encoder.set_property("qp-min", 1_u32);
    encoder.set_property("aud", false);
    encoder.set_property("key-int-max", spec.key_interval_frames.clamp(1, spec.geometry.fps.max(1)));
    encoder.set_property("option-string", "nal-hrd=cbr:filler=1:open-gop=0:scenecut=0");
    Ok(encoder)
}

fn pending_error(bus: &gst::Bus) -> Option<MediaError> {
    let message = bus.pop_filtered(&[gst::MessageType::Error])?;
    if let gst::MessageView::Error(error) = message.view() { Some(bus_error(error)) } else { None }
}

/// A name beside the target, so that the rename stays on one file system.
fn partial_name(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(".partial");
    path.with_file_name(name)
}
