//! Cameras, capture cards and screens: live pictures with the time at which they were captured.

use super::clock::wall_now;
use super::decoder::{size_of, wanted, with_rate};
use super::elements::{self, bus_error, chain, make};
use super::encoder::{Encoder, exact_conversion};
use super::error::MediaError;
use super::live::MAX_BACKLOG;
use super::place::{Device, SourceSpec};
use super::running::Shared;
use super::spec::EncodeSettings;
use gst::prelude::*;
use gstreamer as gst;
use gstreamer_app as app;
use std::path::Path;
use std::time::{Duration, Instant};
use trocar_proto::units::WallMicros;

/// Seconds in which a device must give its first picture.
const FIRST_PICTURE_S: u64 = 10;
/// Seconds without a picture after which a device is given up and opened again.
const SILENCE_S: u64 = 2;
/// What is missing where there is no DeckLink device.
const DECKLINK_HINT: &str = "no DeckLink driver is loaded: Blackmagic's package desktopvideo makes /dev/blackmagic";
/// Pictures that wait to be encoded; the oldest goes when there are more.
const QUEUE: u32 = 2;

/// An open device.
#[derive(Debug)]
pub(super) struct Capture {
    name: String,
    pipeline: gst::Pipeline,
    appsink: app::AppSink,
    caps: gst::Caps,
}

impl Capture {
    /// Opens a device and waits for its first picture. It is brought to the size and rate of the settings.
    ///
    /// # Errors
    /// [`MediaError`] where the device or an element is missing, or no picture comes.
    pub(super) fn open(device: &Device, settings: &EncodeSettings) -> Result<Self, MediaError> {
        let name = SourceSpec::Capture(device.clone()).to_string();
        Self::of(name, &source(device)?, mode(device, settings), settings)
    }

    /// The same with the device's element, and what it is asked for.
    fn of(
        name: String,
        source: &gst::Element,
        mode: Option<gst::Caps>,
        settings: &EncodeSettings,
    ) -> Result<Self, MediaError> {
        let pipeline = gst::Pipeline::new();
        let (decode, is_asked) = (make("decodebin")?, mode.is_some());
        pipeline.add_many([source, &decode]).map_err(|e| MediaError::pipeline("pipeline", e))?;
        match mode {
            // The camera is asked for the size, be it raw or as JPEG pictures. One that can be asked before it runs says no here.
            Some(mode) => source
                .link_filtered(&decode, &mode)
                .map_err(|_| MediaError::NoMode { device: name.clone(), asked: asked(settings) })?,
            None => source.link(&decode).map_err(|e| MediaError::pipeline("link", e))?,
        }
        let (convert, scale, rate, filter) =
            (exact_conversion(settings.codec)?, make("videoscale")?, make("videorate")?, make("capsfilter")?);
        // A picture that was repeated to fill a gap would look alive.
        rate.set_property("drop-only", true);
        filter.set_property("caps", wanted(settings));
        let appsink = app::AppSink::builder().sync(false).max_buffers(QUEUE).drop(true).build();
        let sink = convert.static_pad("sink");
        chain(&pipeline, &[&convert, &scale, &rate, &filter, appsink.upcast_ref()])?;
        decode.connect_pad_added(move |_, pad| {
            if let Some(sink) = sink.as_ref().filter(|s| !s.is_linked()) {
                // Where it does not link, no picture comes, and that is reported.
                let _ = pad.link(sink);
            }
        });
        let mut capture = Self { name, pipeline, appsink, caps: gst::Caps::new_empty() };
        // A failure is explained by the message on the bus.
        let _ = capture.pipeline.set_state(gst::State::Playing);
        let first = capture.next(FIRST_PICTURE_S, || false).map_err(|e| match e {
            MediaError::Pipeline { detail, .. } if is_asked && detail.contains("not-negotiated") => {
                MediaError::NoMode { device: capture.name.clone(), asked: asked(settings) }
            }
            other => other,
        })?;
        let first = first.ok_or_else(|| MediaError::Ended { source_name: capture.name.clone() })?;
        let caps = first.caps_owned();
        capture.caps = with_rate(caps.ok_or_else(|| MediaError::pipeline(&capture.name, "pictures without caps"))?);
        Ok(capture)
    }

    /// The caps of the pictures, with a frame rate in any case.
    pub(super) fn caps(&self) -> gst::Caps {
        self.caps.clone()
    }

    /// Pixels from left to right, from top to bottom, and frames per second.
    pub(super) fn size(&self) -> (u32, u32, f64) {
        size_of(&self.caps)
    }

    /// The next picture; none once `stopped`.
    fn next(&self, patience_s: u64, stopped: impl Fn() -> bool) -> Result<Option<gst::Sample>, MediaError> {
        let deadline = Instant::now() + Duration::from_secs(patience_s);
        while !stopped() {
            if let Some(sample) = self.appsink.try_pull_sample(gst::ClockTime::from_mseconds(50)) {
                return Ok(Some(sample));
            }
            let error = self.pipeline.bus().and_then(|bus| bus.pop_filtered(&[gst::MessageType::Error]));
            if let Some(gst::MessageView::Error(error)) = error.as_ref().map(|m| m.view()) {
                return Err(bus_error(error));
            }
            if self.appsink.is_eos() {
                return Err(MediaError::Ended { source_name: self.name.clone() });
            }
            if Instant::now() > deadline {
                return Err(MediaError::Stalled { step: self.name.clone(), seconds: patience_s });
            }
        }
        Ok(None)
    }

    /// Encodes what the device gives until it is stopped. A picture that finds the encoder busy is left out.
    ///
    /// # Errors
    /// [`MediaError`] where the device fails, ends or gives nothing for [`SILENCE_S`].
    pub(super) fn run(&self, encoder: &Encoder, shared: &Shared) -> Result<(), MediaError> {
        let (mut frame_id, mut last_ns) = (0_u32, 0_u64);
        let mut caps = self.caps();
        while let Some(sample) = self.next(SILENCE_S, || shared.stopped())? {
            let Some(buffer) = sample.buffer_owned() else { continue };
            if encoder.backlog() >= MAX_BACKLOG {
                shared.skip(1);
                continue;
            }
            if let Some(now) = sample.caps_owned().map(with_rate).filter(|now| *now != caps) {
                encoder.set_caps(&now);
                caps = now;
            }
            let (at_ns, capture) = self.captured(&sample, &buffer);
            // Running time that never goes back, whatever the device's own clock does.
            let at_ns = at_ns.max(last_ns + 1);
            last_ns = at_ns;
            encoder.push(buffer, at_ns, frame_id, capture)?;
            frame_id = frame_id.wrapping_add(1);
        }
        Ok(())
    }

    /// Running time of a picture in nanoseconds, and that moment on the wall clock.
    fn captured(&self, sample: &gst::Sample, buffer: &gst::Buffer) -> (u64, WallMicros) {
        let wall = wall_now();
        let Some(now) = self.pipeline.current_running_time() else { return (0, wall) };
        let segment = sample.segment().and_then(|s| s.downcast_ref::<gst::ClockTime>());
        let at = segment.and_then(|s| s.to_running_time(buffer.pts())).unwrap_or(now);
        (at.nseconds(), WallMicros(wall.0.saturating_sub(now.saturating_sub(at).useconds())))
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        // Nothing can be done about a pipeline that does not stop.
        let _ = self.pipeline.set_state(gst::State::Null);
    }
}

/// What the device itself is asked for, where a size was given.
fn mode(device: &Device, settings: &EncodeSettings) -> Option<gst::Caps> {
    let (Device::V4l2(_), Some((width, height))) = (device, settings.size) else { return None };
    let whole = |n: u32| i32::try_from(n).unwrap_or(i32::MAX);
    let structure = |name: &str| {
        let mut s = gst::Structure::builder(name).field("width", whole(width)).field("height", whole(height));
        if let Some(fps) = settings.fps {
            s = s.field("framerate", gst::Fraction::new(whole(fps), 1));
        }
        s.build()
    };
    Some(gst::Caps::from_iter([structure("video/x-raw"), structure("image/jpeg")]))
}

/// As it was typed.
fn asked(settings: &EncodeSettings) -> String {
    let size = settings.size.map(|(width, height)| format!("{width}x{height}")).unwrap_or_default();
    settings.fps.map_or_else(|| size.clone(), |fps| format!("{size}@{fps}"))
}

fn source(device: &Device) -> Result<gst::Element, MediaError> {
    match device {
        Device::V4l2(path) => {
            elements::require(&["v4l2src"])?;
            if !path.exists() {
                return Err(MediaError::NoDevice { device: format!("v4l2:{}", path.display()), hint: cameras() });
            }
            let source = make("v4l2src")?;
            source.set_property("device", path.display().to_string());
            Ok(source)
        }
        Device::Decklink(number) => {
            let (device, hint) = (format!("decklink:{number}"), DECKLINK_HINT);
            elements::require(&["decklinkvideosrc"])?;
            if !Path::new("/dev/blackmagic").exists() {
                return Err(MediaError::NoDevice { device, hint: hint.to_owned() });
            }
            let source = make("decklinkvideosrc")?;
            source.set_property("device-number", *number);
            source.set_property_from_str("mode", "auto");
            Ok(source)
        }
        Device::Screen => screen(|name| std::env::var_os(name).is_some_and(|v| !v.is_empty())),
        Device::Elements(line) => {
            // The last element may be a caps filter written as caps, which GStreamer takes between elements only.
            let bin = gst::parse::bin_from_description(&format!("{line} ! identity"), true);
            bin.map(gst::Bin::upcast).map_err(|e| MediaError::pipeline("gst:", e))
        }
    }
}

/// The screen of an X session. A Wayland session hands its screen out by a portal only, after a question to the person
/// before it; whoever has such a stream names it with `gst:pipewiresrc path=NUMBER`.
fn screen(is_set: impl Fn(&str) -> bool) -> Result<gst::Element, MediaError> {
    let missing = |hint: &str| MediaError::NoDevice { device: "screen".to_owned(), hint: hint.to_owned() };
    if !is_set("DISPLAY") {
        let hint = if is_set("WAYLAND_DISPLAY") {
            "a Wayland session hands its screen out by a portal; with such a stream use gst:pipewiresrc path=NUMBER, or \
             publish from an X session"
        } else {
            "no X session: DISPLAY is not set"
        };
        return Err(missing(hint));
    }
    elements::require(&["ximagesrc"])?;
    let source = make("ximagesrc")?;
    source.set_property("use-damage", false);
    Ok(source)
}

fn cameras() -> String {
    let Ok(entries) = std::fs::read_dir("/dev") else { return "/dev cannot be read".to_owned() };
    let names = entries.filter_map(|e| Some(e.ok()?.file_name().to_string_lossy().into_owned()));
    let mut found: Vec<String> = names.filter(|n| n.starts_with("video")).map(|n| format!("/dev/{n}")).collect();
    found.sort_unstable();
    if found.is_empty() { "no camera is there".to_owned() } else { format!("there are {}", found.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_device_is_named_with_what_would_be_right() {
        elements::init().unwrap();
        let open = |device| Capture::open(&device, &EncodeSettings::default()).unwrap_err().to_string();
        let error = open(Device::V4l2("/dev/video-none".into()));
        assert!(error.starts_with("v4l2:/dev/video-none is not there"), "{error}");
        let error = open(Device::Elements("no-such-element".to_owned()));
        assert!(error.starts_with("gst:") && error.contains("no-such-element"), "{error}");
        let error = screen(|_| false).unwrap_err().to_string();
        assert!(error.contains("DISPLAY"), "{error}");
        let error = screen(|name| name == "WAYLAND_DISPLAY").unwrap_err().to_string();
        assert!(error.contains("Wayland"), "{error}");
        // A machine with a card opens it: its number, which no card has, is what is wrong then.
        let error = open(Device::Decklink(63));
        let without_driver = error == format!("decklink:63 is not there: {DECKLINK_HINT}");
        assert!(without_driver || Path::new("/dev/blackmagic").exists(), "{error}");
    }

    /// What a camera does that knows one mode.
    fn camera(line: &str) -> gst::Element {
        elements::init().unwrap();
        gst::parse::bin_from_description(line, true).unwrap().upcast()
    }

    fn settings(width: u32, height: u32, fps: u32) -> EncodeSettings {
        EncodeSettings { size: Some((width, height)), fps: Some(fps), ..EncodeSettings::default() }
    }

    #[test]
    fn a_camera_is_asked_for_its_size_raw_or_as_jpeg_and_one_that_it_lacks_is_named() {
        let device = Device::V4l2("/dev/video0".into());
        let raw = "videotestsrc is-live=true ! video/x-raw,format=YUY2,width=640,height=360,framerate=15/1 ! identity";
        let jpeg = "videotestsrc is-live=true ! video/x-raw,format=I420,width=640,height=360,framerate=15/1 ! jpegenc";
        for line in [raw, jpeg] {
            let open = |s: &EncodeSettings| Capture::of("v4l2:/dev/video0".into(), &camera(line), mode(&device, s), s);
            assert_eq!(open(&settings(640, 360, 15)).unwrap().size(), (640, 360, 15.0), "{line}");
            let error = open(&settings(1_920, 1_080, 30)).unwrap_err();
            assert!(!error.may_pass(), "{line}: {error}");
            let said = error.to_string();
            assert!(said.starts_with("v4l2:/dev/video0 gives no 1920x1080@30: leave --size away"), "{line}: {said}");
        }
        // Without a size it gives what it has.
        let any = EncodeSettings::default();
        let capture = Capture::of("v4l2:/dev/video0".into(), &camera(jpeg), mode(&device, &any), &any).unwrap();
        assert_eq!(capture.size(), (640, 360, 15.0));
    }
}
