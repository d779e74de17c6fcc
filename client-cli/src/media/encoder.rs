//! Pictures in, frames of RTP packets out: `appsrc ! videoconvert ! ENCODER ! PARSER ! PAYLOADER ! appsink`.

use super::codec::Codec;
use super::elements::{bus_error, chain, make};
use super::error::MediaError;
use super::frame::{Assembler, Frame, FrameSink};
use super::raw::{Raw, RawHasher};
use super::running::{Shared, SourceEvent};
use super::spec::{EncodeSettings, Geometry};
use super::tuning;
use gst::prelude::*;
use gstreamer as gst;
use gstreamer_app as app;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use trocar_proto::units::WallMicros;

/// Pictures under way that are remembered; when there are more, the oldest is forgotten and its frame not delivered.
const MAX_PENDING: usize = 16;

/// A running encoder.
#[derive(Debug)]
pub(super) struct Encoder {
    pipeline: gst::Pipeline,
    appsrc: app::AppSrc,
    encoder: gst::Element,
    /// It gives key frames when it is asked.
    on_request: bool,
    pending: Arc<Mutex<Pending>>,
    /// Where the raw pictures' digests are wanted.
    hasher: Option<RawHasher>,
}

/// What is known of the pictures that are being encoded.
#[derive(Debug, Default)]
struct Pending(VecDeque<Waiting>);

#[derive(Debug)]
struct Waiting {
    /// Running time in nanoseconds.
    at_ns: u64,
    frame_id: u32,
    capture: WallMicros,
    raw: Raw,
}

impl Encoder {
    /// Starts a pipeline for pictures of the given caps; frames go to `sink` from its streaming thread.
    ///
    /// # Errors
    /// [`MediaError`] where an element is missing or the pipeline does not start.
    pub(super) fn start(
        caps: &gst::Caps,
        geometry: Geometry,
        settings: &EncodeSettings,
        sink: FrameSink,
        shared: &Arc<Shared>,
    ) -> Result<Self, MediaError> {
        let pipeline = gst::Pipeline::new();
        let appsrc = app::AppSrc::builder().caps(caps).format(gst::Format::Time).is_live(true).build();
        let encoder = tuning::encoder(geometry, settings)?;
        let appsink = rtp_sink();
        let mut elements = vec![appsrc.clone().upcast()];
        elements.extend(conversion(settings.codec)?);
        elements.push(encoder.clone());
        if settings.codec == Codec::H264 {
            let filter = make("capsfilter")?;
            let profile = settings.profile.caps_name();
            let caps = gst::Caps::builder("video/x-h264").field("profile", profile);
            filter.set_property("caps", caps.field("stream-format", "byte-stream").build());
            elements.push(filter);
        }
        elements.extend(settings.codec.payloading(true)?);
        elements.push(appsink.clone().upcast());
        chain(&pipeline, &elements.iter().collect::<Vec<_>>())?;
        let pending = Arc::default();
        deliver(&appsink, settings.codec, Arc::clone(&pending), sink, Arc::clone(shared));
        report_errors(&pipeline, shared);
        pipeline.set_state(gst::State::Playing).map_err(|e| MediaError::pipeline("encoder", e))?;
        let on_request = settings.codec.has_key_frames_on_request();
        let hasher = settings.raw_digests.then(|| RawHasher::start(caps)).transpose();
        let hasher = hasher.map_err(|cause| MediaError::Thread { name: "trocar-raw", cause })?;
        Ok(Self { pipeline, appsrc, encoder, on_request, pending, hasher })
    }

    /// Pictures that were pushed and have not come out yet.
    pub(super) fn backlog(&self) -> usize {
        lock(&self.pending).0.len()
    }

    /// Encodes a picture of running time `at_ns` nanoseconds.
    ///
    /// # Errors
    /// [`MediaError::Pipeline`] where the pipeline takes no more.
    pub(super) fn push(
        &self,
        mut picture: gst::Buffer,
        at_ns: u64,
        frame_id: u32,
        capture: WallMicros,
    ) -> Result<(), MediaError> {
        let buffer = picture.make_mut();
        buffer.set_pts(gst::ClockTime::from_nseconds(at_ns));
        buffer.set_dts(None);
        // Beside the encoder, not before it.
        let raw = self.hasher.as_ref().map_or(Raw::NotAsked, |h| Raw::Digest(h.begin(&picture)));
        lock(&self.pending).put(Waiting { at_ns, frame_id, capture, raw });
        self.appsrc.push_buffer(picture).map(|_| ()).map_err(|e| MediaError::pipeline("appsrc", e))
    }

    /// Waits until all pictures have come out, at most a second.
    pub(super) fn drain(&self) {
        for _ in 0..100 {
            if self.backlog() == 0 {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }

    /// Changes the kind of pictures that follow.
    pub(super) fn set_caps(&self, caps: &gst::Caps) {
        self.appsrc.set_caps(Some(caps));
        if let Some(hasher) = &self.hasher {
            hasher.set_caps(caps);
        }
    }

    /// A handle for other threads; none where the encoder gives no key frames when it is asked.
    pub(super) fn control(&self) -> Option<Control> {
        self.on_request.then(|| Control { encoder: self.encoder.clone() })
    }
}

impl Drop for Encoder {
    fn drop(&mut self) {
        // Nothing can be done about a pipeline that does not stop.
        let _ = self.pipeline.set_state(gst::State::Null);
    }
}

/// What can be asked of a running encoder from any thread.
#[derive(Debug, Clone)]
pub(super) struct Control {
    encoder: gst::Element,
}

impl Control {
    /// Makes the next picture a key frame with its parameter sets; false where the encoder is gone.
    pub(super) fn request_key_frame(&self) -> bool {
        let event = gstreamer_video::UpstreamForceKeyUnitEvent::builder().all_headers(true).build();
        self.encoder.static_pad("src").is_some_and(|pad| pad.send_event(event))
    }
}

impl Pending {
    fn put(&mut self, picture: Waiting) {
        if self.0.len() >= MAX_PENDING {
            self.0.pop_front();
        }
        self.0.push_back(picture);
    }

    /// The picture of running time `at_ns`; older ones will not come any more.
    fn take(&mut self, at_ns: u64) -> Option<Waiting> {
        while self.0.front().is_some_and(|p| p.at_ns < at_ns) {
            self.0.pop_front();
        }
        self.0.pop_front_if(|p| p.at_ns == at_ns)
    }
}

/// What brings pictures into the form that an opaque codec wants; the others get theirs as they are.
fn conversion(codec: Codec) -> Result<Vec<gst::Element>, MediaError> {
    if codec.is_compressed() {
        return Ok(Vec::new());
    }
    let filter = make("capsfilter")?;
    filter.set_property("caps", gst::Caps::builder("video/x-raw").field("format", codec.picture_format()).build());
    Ok(vec![exact_conversion(codec)?, filter])
}

/// `videoconvert`; of an opaque codec without the noise that it otherwise adds, even where no bit is lost.
pub(super) fn exact_conversion(codec: Codec) -> Result<gst::Element, MediaError> {
    let convert = make("videoconvert")?;
    if !codec.is_compressed() {
        convert.set_property_from_str("dither", "none");
    }
    Ok(convert)
}

/// The end of the pipeline: takes a frame's packets as one list and waits for no clock.
pub(super) fn rtp_sink() -> app::AppSink {
    let caps = gst::Caps::builder("application/x-rtp").build();
    app::AppSink::builder().caps(&caps).sync(false).buffer_list(true).max_buffers(64).build()
}

/// The packets of a sample of [`rtp_sink`].
pub(super) fn packets(sample: &gst::Sample) -> impl Iterator<Item = &gst::BufferRef> {
    sample.buffer().into_iter().chain(sample.buffer_list().into_iter().flat_map(gst::BufferListRef::iter))
}

fn deliver(
    appsink: &app::AppSink,
    codec: Codec,
    pending: Arc<Mutex<Pending>>,
    mut sink: FrameSink,
    shared: Arc<Shared>,
) {
    let mut assembler = Assembler::new(codec);
    let new_sample = move |appsink: &app::AppSink| {
        let sample = appsink.pull_sample().map_err(|_| gst::FlowError::Eos)?;
        let segment = sample.segment().and_then(|s| s.downcast_ref::<gst::ClockTime>()).cloned();
        for packet in packets(&sample) {
            let Some(raw) = assembler.handle(packet).map_err(|e| shared.fail(e))? else { continue };
            let pts = raw.pts.map(gst::ClockTime::from_nseconds);
            let at = segment.as_ref().and_then(|s| s.to_running_time(pts)).map(gst::ClockTime::nseconds);
            let Some(Waiting { frame_id, capture, raw: digest, .. }) = at.and_then(|at| lock(&pending).take(at)) else {
                tracing::warn!(?at, "an encoded frame without a picture is not sent");
                continue;
            };
            let (key, (_, rtp_timestamp)) = (raw.key, raw.first_header());
            let packets = raw.into_packets();
            let frame = Frame { frame_id, key, capture, rtp_timestamp, audio_level: None, raw: digest, packets };
            shared.count(&frame);
            sink(frame);
        }
        Ok(gst::FlowSuccess::Ok)
    };
    appsink.set_callbacks(app::AppSinkCallbacks::builder().new_sample(new_sample).build());
}

/// Turns error messages into events on the thread that posts them, so that no thread has to wait for them.
pub(super) fn report_errors(pipeline: &gst::Pipeline, shared: &Arc<Shared>) {
    let Some(bus) = pipeline.bus() else { return };
    let shared = Arc::clone(shared);
    bus.set_sync_handler(move |_, message| {
        if let gst::MessageView::Error(error) = message.view() {
            shared.stop();
            shared.tell(SourceEvent::Error(bus_error(error)));
        }
        gst::BusSyncReply::Drop
    });
}

fn lock(pending: &Mutex<Pending>) -> std::sync::MutexGuard<'_, Pending> {
    // Each change leaves the queue valid, so a panic elsewhere does not matter.
    pending.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capture_times_are_found_by_time_and_bounded() {
        let mut pending = Pending::default();
        for i in 0..40 {
            let frame_id = u32::try_from(i).unwrap();
            pending.put(Waiting { at_ns: i * 10, frame_id, capture: WallMicros(i), raw: Raw::NotAsked });
        }
        assert_eq!(pending.0.len(), MAX_PENDING);
        let mut take = |at| pending.take(at).map(|p| (p.frame_id, p.capture));
        assert_eq!(take(5), None);
        assert_eq!(take(300), Some((30, WallMicros(30))));
        assert_eq!(take(300), None);
        assert_eq!(take(390), Some((39, WallMicros(39))));
        assert!(pending.0.is_empty());
    }
}
