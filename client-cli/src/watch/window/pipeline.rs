//! The two GStreamer pipelines of the window.

use super::WindowError;
use super::caption::{Caption, Level};
use crate::media::init_gstreamer;
use gst::prelude::*;
use gstreamer as gst;
use gstreamer_app as app;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use trocar_proto::media::receive::CompleteFrame;
use trocar_proto::media::rtp::{HeaderFields, write_header};
use trocar_proto::units::Ssrc;

const PAYLOAD_TYPE: u8 = 96;
/// Frames that wait for the decoder. Loss policy: the oldest goes, and the decoder says that something is missing.
const WAITING_PACKETS: u64 = 8_192;
/// The picture's size while there is none.
const EMPTY: (i32, i32) = (1_280, 720);

/// What undoes a codec: elements with their Debian packages.
type Chain = &'static [(&'static str, &'static str)];

const GOOD: &str = "gstreamer1.0-plugins-good";
const BAD: &str = "gstreamer1.0-plugins-bad";
const LIBAV: &str = "gstreamer1.0-libav";
const BASE: &str = "gstreamer1.0-plugins-base";

/// Elements from packets to pictures, by encoding name.
fn chain(codec: &str) -> Option<Chain> {
    Some(match codec.to_ascii_uppercase().as_str() {
        "H264" => &[("rtph264depay", GOOD), ("h264parse", BAD), ("avdec_h264", LIBAV)],
        "H265" => &[("rtph265depay", GOOD), ("h265parse", BAD), ("avdec_h265", LIBAV)],
        "VP8" => &[("rtpvp8depay", GOOD), ("vp8dec", GOOD)],
        "VP9" => &[("rtpvp9depay", GOOD), ("vp9dec", GOOD)],
        "AV1" => &[("rtpav1depay", "gst-plugin-rtp, built in"), ("av1parse", BAD), ("av1dec", BAD)],
        _ => return None,
    })
}

fn make(name: &'static str, package: &'static str) -> Result<gst::Element, WindowError> {
    gst::ElementFactory::make(name).build().map_err(|_| WindowError::Missing { element: name, package })
}

fn fault(e: impl std::fmt::Display) -> WindowError {
    WindowError::Pipeline(e.to_string())
}

/// Links the elements into a running pipeline.
fn run(elements: &[&gst::Element]) -> Result<gst::Pipeline, WindowError> {
    let pipeline = gst::Pipeline::new();
    pipeline.add_many(elements).map_err(fault)?;
    gst::Element::link_many(elements).map_err(fault)?;
    Ok(pipeline)
}

/// The first error on the pipeline's bus.
fn bus_error(pipeline: &gst::Pipeline) -> Option<String> {
    let message = pipeline.bus()?.pop_filtered(&[gst::MessageType::Error])?;
    match message.view() {
        gst::MessageView::Error(e) => Some(e.error().to_string()),
        _ => None,
    }
}

/// From frames to pictures.
pub(super) struct Decoder {
    pipeline: gst::Pipeline,
    source: app::AppSrc,
    sink: app::AppSink,
    sequence: AtomicU16,
}

/// A decoded picture.
pub(super) struct Picture {
    /// Of the frame that it came from.
    pub(super) number: u64,
    pub(super) sample: gst::Sample,
}

impl Decoder {
    pub(super) fn start(codec: &str, fmtp: &str, clock_rate: u32) -> Result<Self, WindowError> {
        init_gstreamer().map_err(fault)?;
        let chain = chain(codec).ok_or_else(|| WindowError::Codec { codec: codec.to_owned() })?;
        let source = app::AppSrc::builder()
            .caps(&rtp_caps(codec, fmtp, clock_rate)?)
            .format(gst::Format::Time)
            .is_live(true)
            .max_buffers(WAITING_PACKETS)
            .leaky_type(app::AppLeakyType::Downstream)
            .build();
        let undo = chain.iter().map(|(name, package)| make(name, package)).collect::<Result<Vec<_>, _>>()?;
        if let Some(decoder) = undo.last() {
            for (property, value) in [("thread-type", "slice"), ("output-corrupt", "false")] {
                if decoder.has_property(property) {
                    decoder.set_property_from_str(property, value);
                }
            }
        }
        let convert = make("videoconvert", BASE)?;
        let sink = app::AppSink::builder()
            .caps(&gst::Caps::builder("video/x-raw").field("format", "I420").build())
            .sync(false)
            .max_buffers(2)
            .drop(true)
            .build();
        let mut elements = vec![source.upcast_ref()];
        elements.extend(undo.iter());
        elements.extend([&convert, sink.upcast_ref()]);
        let pipeline = run(&elements)?;
        pipeline.set_state(gst::State::Playing).map_err(fault)?;
        Ok(Self { pipeline, source, sink, sequence: AtomicU16::new(0) })
    }

    /// Hands a frame over. Its number becomes its time stamp, which the picture keeps.
    pub(super) fn push(&self, number: u64, frame: &CompleteFrame) {
        let time = gst::ClockTime::from_nseconds(number * STEP_NS);
        let last = frame.payloads.len().saturating_sub(1);
        for (i, payload) in frame.payloads.iter().enumerate() {
            let fields = HeaderFields {
                marker: i == last,
                payload_type: PAYLOAD_TYPE,
                seq: self.sequence.fetch_add(1, Ordering::Relaxed),
                timestamp: frame.timestamp,
                ssrc: Ssrc(1),
            };
            let mut packet = vec![0; 12];
            let Ok(header) = write_header(&mut packet, fields, &[]) else { return };
            packet.truncate(header);
            packet.extend_from_slice(payload);
            let mut buffer = gst::Buffer::from_mut_slice(packet);
            if let Some(b) = buffer.get_mut() {
                b.set_pts(time);
                b.set_dts(time);
            }
            // Fails while the pipeline stops, which its bus tells.
            let _ = self.source.push_buffer(buffer);
        }
    }

    /// The newest picture, waited for this long.
    pub(super) fn next_picture(&self, wait: Duration) -> Option<Picture> {
        let wait = gst::ClockTime::try_from(wait).ok()?;
        let mut sample = self.sink.try_pull_sample(wait)?;
        // At most as many as the sink holds: only the newest is worth painting.
        while let Some(newer) = self.sink.try_pull_sample(gst::ClockTime::ZERO) {
            sample = newer;
        }
        let number = sample.buffer()?.pts()?.nseconds() / STEP_NS;
        Some(Picture { number, sample })
    }

    /// What went wrong, if anything.
    pub(super) fn fault(&self) -> Option<WindowError> {
        bus_error(&self.pipeline).map(WindowError::Pipeline)
    }
}

/// Between the time stamps of two frames: decoders take stamps that are too close for errors.
const STEP_NS: u64 = 1_000_000;

impl Drop for Decoder {
    fn drop(&mut self) {
        let _ = self.pipeline.set_state(gst::State::Null);
    }
}

/// Caps of the packets, with the format parameters that a decoder may need (RFC 6184 section 8.1, RFC 7798 section 7.1).
fn rtp_caps(codec: &str, fmtp: &str, clock_rate: u32) -> Result<gst::Caps, WindowError> {
    let mut caps = gst::Caps::builder("application/x-rtp")
        .field("media", "video")
        .field("encoding-name", codec.to_ascii_uppercase())
        .field("payload", i32::from(PAYLOAD_TYPE))
        .field("clock-rate", i32::try_from(clock_rate).map_err(fault)?);
    for (name, value) in fmtp.split(';').filter_map(|p| p.trim().split_once('=')) {
        if matches!(name, "packetization-mode" | "sprop-parameter-sets" | "sprop-vps" | "sprop-sps" | "sprop-pps") {
            caps = caps.field(name, value);
        }
    }
    Ok(caps.build())
}

/// The window itself.
pub(super) struct Screen {
    pipeline: gst::Pipeline,
    source: app::AppSrc,
    words: Words,
    picture: gst::Sample,
    /// Of the frame that the picture came from; none while it is black.
    number: Option<u64>,
}

/// Called with a frame's number when its picture was handed to the window system, on the thread that did it.
pub(super) type Shown = Arc<dyn Fn(u64) + Send + Sync>;

impl Screen {
    /// Opens it, black.
    pub(super) fn start(shown: Shown) -> Result<Self, WindowError> {
        Self::start_on(&make("autovideosink", GOOD)?, Some(shown))
    }

    fn start_on(sink: &gst::Element, shown: Option<Shown>) -> Result<Self, WindowError> {
        init_gstreamer().map_err(fault)?;
        let picture = black()?;
        let source = app::AppSrc::builder()
            .format(gst::Format::Time)
            .is_live(true)
            .do_timestamp(true)
            .max_buffers(2)
            .leaky_type(app::AppLeakyType::Downstream)
            .build();
        source.set_caps(picture.caps_owned().as_ref());
        let overlay = make("textoverlay", "gstreamer1.0-x")?;
        let convert = make("videoconvert", BASE)?;
        let scale = make("videoscale", BASE)?;
        sink.set_property("sync", false);
        overlay.set_property("shaded-background", true);
        let words = Words::on(&overlay)?;
        let pipeline = run(&[source.upcast_ref(), &overlay, &convert, &scale, sink])?;
        if let (Some(shown), Some(pad)) = (shown, scale.static_pad("src")) {
            tell_shown(&pad, shown);
        }
        let no_display = |why: String| {
            let _ = pipeline.set_state(gst::State::Null);
            Err(WindowError::NoDisplay(why))
        };
        if pipeline.set_state(gst::State::Playing).is_err() {
            let why = bus_error(&pipeline).unwrap_or_else(|| "the display does not answer".to_owned());
            return no_display(why);
        }
        // Where nothing else works, autovideosink takes a sink that shows nothing.
        let chosen = sink.downcast_ref::<gst::Bin>().map(|b| b.children().first().cloned());
        let name = chosen.map(|c| c.and_then(|c| c.factory()).map(|f| f.name().to_string()).unwrap_or_default());
        if name.is_some_and(|n| n.is_empty() || n.starts_with("fake")) {
            return no_display("the display that DISPLAY or WAYLAND_DISPLAY names does not answer".to_owned());
        }
        Ok(Self { pipeline, source, words, picture, number: None })
    }

    /// What is painted from now on.
    pub(super) fn set_picture(&mut self, picture: Picture) {
        if picture.sample.caps() != self.picture.caps() {
            self.source.set_caps(picture.sample.caps_owned().as_ref());
        }
        self.picture = picture.sample;
        self.number = Some(picture.number);
    }

    /// Paints the picture with the caption on it.
    ///
    /// # Errors
    /// Where the window was closed or broke.
    pub(super) fn paint(&mut self, caption: &Caption) -> Result<(), WindowError> {
        self.words.say(caption);
        if let Some(buffer) = self.picture.buffer() {
            let mut buffer = buffer.copy();
            if let Some(b) = buffer.get_mut() {
                // Stamped anew on its way.
                b.set_pts(gst::ClockTime::NONE);
                b.set_dts(gst::ClockTime::NONE);
                // Raw pictures have no use for it, and every element hands it on.
                b.set_offset(self.number.unwrap_or(NO_NUMBER));
                b.set_offset_end(NO_NUMBER);
            }
            let _ = self.source.push_buffer(buffer);
        }
        bus_error(&self.pipeline).map_or(Ok(()), |e| Err(WindowError::Pipeline(e)))
    }
}

/// What is to stand on the next picture.
///
/// The overlay's letters have no lock in GStreamer 1.22: whoever sets the font while a picture is being written on changes Pango's layout
/// under the hands of the thread that walks through it, which ends the process now and then, or leaves GObject's tables broken. So the
/// properties are set by that thread alone, between two pictures.
#[derive(Clone, Default)]
struct Words(Arc<Mutex<Wanted>>);

#[derive(Default)]
struct Wanted {
    /// Not written yet.
    new: Option<Caption>,
    /// What was last asked for.
    last: Option<Caption>,
}

impl Words {
    fn on(overlay: &gst::Element) -> Result<Self, WindowError> {
        let words = Self::default();
        let pad = overlay.static_pad("video_sink").ok_or_else(|| fault("textoverlay has no video_sink"))?;
        let (wanted, weak) = (words.clone(), overlay.downgrade());
        pad.add_probe(gst::PadProbeType::BUFFER, move |_, _| {
            let caption = wanted.lock().new.take();
            if let (Some(overlay), Some(caption)) = (weak.upgrade(), caption) {
                write(&overlay, &caption);
            }
            gst::PadProbeReturn::Ok
        });
        Ok(words)
    }

    fn lock(&self) -> MutexGuard<'_, Wanted> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From the next picture on.
    fn say(&self, caption: &Caption) {
        let mut wanted = self.lock();
        if wanted.last.as_ref() != Some(caption) {
            (wanted.new, wanted.last) = (Some(caption.clone()), Some(caption.clone()));
        }
    }
}

fn write(overlay: &gst::Element, caption: &Caption) {
    let (vertical, horizontal, font, color) = match caption.level {
        Level::Good => ("top", "left", "Sans Bold 14", 0xffff_ffff_u32),
        Level::Late => ("top", "left", "Sans Bold 18", 0xffff_b000),
        Level::Alarm => ("center", "center", "Sans Bold 40", 0xffff_3030),
    };
    overlay.set_property_from_str("valignment", vertical);
    overlay.set_property_from_str("halignment", horizontal);
    overlay.set_property("font-desc", font);
    overlay.set_property("color", color);
    overlay.set_property("text", &caption.text);
}

impl Drop for Screen {
    fn drop(&mut self) {
        let _ = self.pipeline.set_state(gst::State::Null);
    }
}

/// GStreamer's "no offset".
const NO_NUMBER: u64 = u64::MAX;

/// Tells the number of each picture when the sink behind the pad has taken it and come back, which is after it drew (HO-T-009): while
/// the window system stands still, or refuses the picture, nothing is told.
fn tell_shown(pad: &gst::Pad, shown: Shown) {
    pad.add_probe(gst::PadProbeType::BUFFER, move |pad, info| {
        if let Some(number) = info.buffer().map(|b| b.offset()).filter(|n| *n != NO_NUMBER) {
            let shown = Arc::clone(&shown);
            // The pad is busy with this picture now, so that this is called when the sink has returned.
            pad.add_probe(gst::PadProbeType::IDLE, move |pad, _| {
                if pad.last_flow_result().is_ok() {
                    shown(number);
                }
                gst::PadProbeReturn::Remove
            });
        }
        gst::PadProbeReturn::Ok
    });
}

/// A black picture, until there is one.
fn black() -> Result<gst::Sample, WindowError> {
    let (width, height) = EMPTY;
    let caps = gst::Caps::builder("video/x-raw")
        .field("format", "I420")
        .field("width", width)
        .field("height", height)
        .field("framerate", gst::Fraction::new(0, 1))
        // Without it the elements behind take the caps for others than theirs.
        .field("pixel-aspect-ratio", gst::Fraction::new(1, 1))
        .build();
    let luma = usize::try_from(width * height).map_err(fault)?;
    let mut data = vec![16_u8; luma];
    data.resize(luma + luma / 2, 128);
    Ok(gst::Sample::builder().caps(&caps).buffer(&gst::Buffer::from_mut_slice(data)).build())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn captions_of_every_size_follow_each_other_as_fast_as_pictures_do() {
        init_gstreamer().unwrap();
        let sink = app::AppSink::builder().max_buffers(1).drop(true).build();
        let mut screen = Screen::start_on(sink.upcast_ref(), None).unwrap();
        for n in 0..1_000 {
            let level = [Level::Good, Level::Late, Level::Alarm][n % 3];
            // Two on the way: the second caption is set while the first is written.
            for n in [2 * n, 2 * n + 1] {
                screen.paint(&Caption { text: format!("AGE {n} ms"), level }).unwrap();
            }
            assert!(sink.try_pull_sample(gst::ClockTime::from_seconds(30)).is_some());
        }
    }

    #[test]
    fn what_undoes_each_codec_is_there_and_another_codec_is_refused_by_name() {
        for codec in ["H264", "h265", "VP8", "VP9", "AV1"] {
            if let Err(error) = Decoder::start(codec, "", 90_000) {
                panic!("{codec}: {error}");
            }
        }
        let error = Decoder::start("jpeg2000", "", 90_000).err().unwrap().to_string();
        assert!(error.contains("jpeg2000"), "{error}");
    }
}
