//! From an encoded stream, whatever codec it turns out to have, to RTP packets at one sink.

use super::codec::Codec;
use super::decoder::size_of;
use super::elements::make;
use super::encoder::rtp_sink;
use super::error::MediaError;
use super::frame::RawFrame;
use super::spec::Geometry;
use gst::prelude::*;
use gstreamer as gst;
use gstreamer_app as app;
use std::sync::{Arc, Mutex, PoisonError};

/// Frames per second of a stream that does not say.
const DEFAULT_FPS: f64 = 30.0;

/// Takes the first video stream that is offered to it; the others stay unlinked.
#[derive(Debug, Clone)]
pub(super) struct Funnel {
    pub(super) appsink: app::AppSink,
    found: Arc<Mutex<Found>>,
}

#[derive(Debug, Default)]
struct Found {
    stream: Option<(Codec, gst::Element)>,
    /// Media type of a video that is not forwarded.
    other: Option<String>,
    error: Option<MediaError>,
}

impl Funnel {
    /// With a sink in `pipeline`.
    ///
    /// # Errors
    /// [`MediaError::Pipeline`].
    pub(super) fn new(pipeline: &gst::Pipeline) -> Result<Self, MediaError> {
        let appsink = rtp_sink();
        pipeline.add(&appsink).map_err(|e| MediaError::pipeline("appsink", e))?;
        Ok(Self { appsink, found: Arc::default() })
    }

    fn found(&self) -> std::sync::MutexGuard<'_, Found> {
        lock(&self.found)
    }

    /// Tells the codec later, without a reference to the sink: for the sink's own callback, which would keep it alive.
    pub(super) fn codec_probe(&self) -> impl Fn() -> Option<Codec> + Send + use<> {
        let found = Arc::clone(&self.found);
        move || lock(&found).stream.as_ref().map(|s| s.0)
    }

    /// Looks at the pads that `element` gets from now on.
    pub(super) fn watch(&self, element: &gst::Element) {
        let funnel = self.clone();
        element.connect_pad_added(move |_, pad| funnel.offer(pad));
    }

    /// Links a pad if it has a video that is forwarded.
    pub(super) fn offer(&self, pad: &gst::Pad) {
        if pad.direction() != gst::PadDirection::Src || self.codec().is_some() {
            return;
        }
        let caps = pad.current_caps().unwrap_or_else(|| pad.query_caps(None));
        self.offer_as(pad, &caps);
    }

    /// Links a pad that will have these caps.
    pub(super) fn offer_as(&self, pad: &gst::Pad, caps: &gst::Caps) {
        let Some(structure) = caps.structure(0) else { return };
        let name = structure.name().as_str();
        let text = |field: &str| structure.get::<String>(field).unwrap_or_default();
        let result = match name {
            "application/x-rtp" if text("encoding-name").eq_ignore_ascii_case("MP2T") => self.unwrap_ts(pad),
            "application/x-rtp" => match Codec::of_rtp(&text("encoding-name")) {
                Some(codec) => self.link(pad, codec, true),
                None => {
                    if text("media") == "video" {
                        self.found().other = Some(text("encoding-name"));
                    }
                    Ok(())
                }
            },
            _ => match Codec::of_stream(name) {
                Some(codec) => self.link(pad, codec, false),
                None => {
                    if name.starts_with("video/") || name.starts_with("image/") {
                        self.found().other = Some(name.to_owned());
                    }
                    Ok(())
                }
            },
        };
        if let Err(error) = result {
            self.found().error = Some(error);
        }
    }

    /// RTP with a transport stream in it.
    fn unwrap_ts(&self, pad: &gst::Pad) -> Result<(), MediaError> {
        let (depay, demux) = (make("rtpmp2tdepay")?, make("tsdemux")?);
        self.watch(&demux);
        self.attach(pad, &[depay, demux])
    }

    fn link(&self, pad: &gst::Pad, codec: Codec, in_rtp: bool) -> Result<(), MediaError> {
        let mut elements = Vec::new();
        if in_rtp {
            elements.push(codec.depayloader()?);
        }
        elements.extend(codec.payloading(false)?);
        elements.push(self.appsink.clone().upcast());
        if let [.., pay, _] = elements.as_slice() {
            self.found().stream = Some((codec, pay.clone()));
        }
        self.attach(pad, &elements)
    }

    /// Adds elements to the running pipeline and links them behind a pad.
    fn attach(&self, pad: &gst::Pad, elements: &[gst::Element]) -> Result<(), MediaError> {
        let failed = |e: gst::glib::BoolError| MediaError::pipeline("link", e);
        let parent = self.appsink.parent().and_then(|p| p.downcast::<gst::Pipeline>().ok());
        // A pipeline that is being taken down needs nothing more.
        let Some(pipeline) = parent else { return Ok(()) };
        for element in elements.iter().filter(|e| e.parent().is_none()) {
            pipeline.add(element).map_err(failed)?;
        }
        gst::Element::link_many(elements).map_err(failed)?;
        for element in elements.iter().rev() {
            element.sync_state_with_parent().map_err(failed)?;
        }
        let sink = elements.first().and_then(|e| e.static_pad("sink"));
        sink.map_or(Ok(()), |sink| pad.link(&sink).map(drop).map_err(|e| MediaError::pipeline("link", e)))
    }

    /// The codec that was found.
    pub(super) fn codec(&self) -> Option<Codec> {
        self.found().stream.as_ref().map(|s| s.0)
    }

    /// The media type of a video that is not forwarded, where there is no other.
    pub(super) fn refused(&self) -> Option<String> {
        let found = self.found();
        found.other.clone().filter(|_| found.stream.is_none())
    }

    /// What kept the stream from being linked.
    pub(super) fn error(&self) -> Option<MediaError> {
        self.found().error.take()
    }

    /// Width, height and frames per second; [`DEFAULT_FPS`] where the stream does not say.
    pub(super) fn size(&self) -> (u32, u32, f64) {
        let (width, height, fps) = self.caps().map_or((0, 0, 0.0), |caps| size_of(&caps));
        (width, height, if fps > 0.0 { fps } else { DEFAULT_FPS })
    }

    /// `a=fmtp` of the stream, by its first key frame.
    pub(super) fn fmtp(&self, first: &RawFrame) -> String {
        let Some(codec) = self.codec() else { return String::new() };
        let (width, height, fps) = self.size();
        let profile = self.caps().and_then(|c| c.structure(0)?.get::<String>("profile").ok());
        let geometry = Geometry { width, height, fps: fps.round() as u32 };
        first.fmtp(codec).unwrap_or_else(|| codec.fmtp(geometry, profile.as_deref()))
    }

    fn caps(&self) -> Option<gst::Caps> {
        let pay = self.found().stream.as_ref().map(|s| s.1.clone())?;
        pay.static_pad("sink")?.current_caps()
    }
}

fn lock(found: &Mutex<Found>) -> std::sync::MutexGuard<'_, Found> {
    // Each change leaves it valid, so a panic elsewhere does not matter.
    found.lock().unwrap_or_else(PoisonError::into_inner)
}
