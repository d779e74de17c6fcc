//! GStreamer's elements by name, and the Debian package to install where one is missing.

use super::error::MediaError;
use gst::prelude::*;
use gstreamer as gst;

/// Debian package of the elements that are used here, by the beginning of their names; the first that fits counts.
const PACKAGES: [(&str, &str); 36] = [
    ("x264enc", "gstreamer1.0-plugins-ugly"),
    ("x265enc", "gstreamer1.0-plugins-bad"),
    ("vp8enc", "gstreamer1.0-plugins-good"),
    ("vp9enc", "gstreamer1.0-plugins-good"),
    ("av1enc", "gstreamer1.0-plugins-bad"),
    ("openjpegenc", "gstreamer1.0-plugins-bad"),
    ("opusenc", "gstreamer1.0-plugins-base"),
    ("avdec_", "gstreamer1.0-libav"),
    ("rtpav1", "gst-plugin-rtp, which is built in: please report this"),
    ("rtpsrc", "gstreamer1.0-plugins-bad"),
    ("rtp", "gstreamer1.0-plugins-good"),
    ("qtdemux", "gstreamer1.0-plugins-good"),
    ("mp4mux", "gstreamer1.0-plugins-good"),
    ("vp9parse", "gstreamer1.0-plugins-bad"),
    ("av1parse", "gstreamer1.0-plugins-bad"),
    ("h26", "gstreamer1.0-plugins-bad"),
    ("video", "gstreamer1.0-plugins-base"),
    ("audio", "gstreamer1.0-plugins-base"),
    ("app", "gstreamer1.0-plugins-base"),
    ("decodebin", "gstreamer1.0-plugins-base"),
    ("parsebin", "gstreamer1.0-plugins-base"),
    ("udpsrc", "gstreamer1.0-plugins-good"),
    ("rtspsrc", "gstreamer1.0-plugins-good"),
    ("srtsrc", "gstreamer1.0-plugins-bad"),
    ("tsdemux", "gstreamer1.0-plugins-bad"),
    ("v4l2src", "gstreamer1.0-plugins-good"),
    ("ximagesrc", "gstreamer1.0-plugins-good"),
    ("decklinkvideosrc", "gstreamer1.0-plugins-bad"),
    ("alsasrc", "gstreamer1.0-alsa"),
    ("pulsesrc", "gstreamer1.0-plugins-good"),
    ("level", "gstreamer1.0-plugins-good"),
    ("filesrc", "libgstreamer1.0-0"),
    ("filesink", "libgstreamer1.0-0"),
    ("identity", "libgstreamer1.0-0"),
    ("queue", "libgstreamer1.0-0"),
    ("capsfilter", "libgstreamer1.0-0"),
];

/// Starts GStreamer (once) and checks that all of `names` are installed.
///
/// # Errors
/// [`MediaError::MissingElement`] names the first that is not, and its package.
pub(super) fn require(names: &[&str]) -> Result<(), MediaError> {
    init()?;
    names.iter().find(|name| gst::ElementFactory::find(name).is_none()).map_or(Ok(()), |name| Err(missing(name)))
}

/// Starts GStreamer (once), and adds the elements that come with this binary.
///
/// # Errors
/// [`MediaError::Init`].
pub(crate) fn init() -> Result<(), MediaError> {
    static ADDED: std::sync::OnceLock<Result<(), gst::glib::BoolError>> = std::sync::OnceLock::new();
    gst::init().map_err(MediaError::Init)?;
    let added = ADDED.get_or_init(gstrsrtp::plugin_register_static);
    added.as_ref().map(|&()| ()).map_err(|e| MediaError::pipeline("gst-plugin-rtp", e))
}

/// A new element.
///
/// # Errors
/// [`MediaError::MissingElement`] where it is not installed.
pub(super) fn make(name: &str) -> Result<gst::Element, MediaError> {
    gst::ElementFactory::make(name).build().map_err(|_| missing(name))
}

fn missing(name: &str) -> MediaError {
    let package =
        PACKAGES.iter().find(|(element, _)| name.starts_with(element)).map_or("gstreamer1.0-plugins-*", |p| p.1);
    MediaError::MissingElement { element: name.to_owned(), package }
}

/// Puts `elements` into `pipeline` and links them in order.
pub(super) fn chain(pipeline: &gst::Pipeline, elements: &[&gst::Element]) -> Result<(), MediaError> {
    pipeline.add_many(elements).map_err(|e| MediaError::pipeline("pipeline", e))?;
    gst::Element::link_many(elements).map_err(|e| MediaError::pipeline("link", e))
}

/// A pipeline that plays until it is dropped.
#[derive(Debug)]
pub(super) struct Playing(gst::Pipeline);

impl Playing {
    /// Starts it; what goes wrong is seen by [`Self::check`].
    pub(super) fn start(pipeline: gst::Pipeline) -> Self {
        let _ = pipeline.set_state(gst::State::Playing);
        Self(pipeline)
    }

    /// What the bus says of the end of the source `name`, which may be shown.
    ///
    /// # Errors
    /// [`MediaError::Pipeline`] for a failure, [`MediaError::Ended`] for an end.
    pub(super) fn check(&self, name: &str) -> Result<(), MediaError> {
        let kinds = [gst::MessageType::Error, gst::MessageType::Eos];
        let message = self.0.bus().and_then(|bus| bus.pop_filtered(&kinds));
        match message.as_ref().map(|m| m.view()) {
            Some(gst::MessageView::Error(error)) => {
                // The debug text may repeat an address with its password.
                tracing::debug!(name, "{}", bus_error(error));
                Err(MediaError::pipeline(name, error.error()))
            }
            Some(gst::MessageView::Eos(_)) => Err(MediaError::Ended { source_name: name.to_owned() }),
            _ => Ok(()),
        }
    }

    /// Starts a file again from its beginning.
    ///
    /// # Errors
    /// [`MediaError::Pipeline`] where its format cannot seek.
    pub(super) fn rewind(&self, name: &str) -> Result<(), MediaError> {
        let seek = self.0.seek_simple(gst::SeekFlags::FLUSH | gst::SeekFlags::KEY_UNIT, gst::ClockTime::ZERO);
        seek.map_err(|_| MediaError::pipeline(name, "it cannot be played again from its start"))
    }
}

impl Drop for Playing {
    fn drop(&mut self) {
        // Nothing can be done about a pipeline that does not stop.
        let _ = self.0.set_state(gst::State::Null);
    }
}

/// What an error message on the bus says: the element and both of its texts.
pub(super) fn bus_error(message: &gst::message::Error) -> MediaError {
    let element = message.src().map_or_else(|| "pipeline".to_owned(), |s| s.name().to_string());
    let debug = message.debug().map(|d| format!(" ({d})")).unwrap_or_default();
    MediaError::Pipeline { element, detail: format!("{}{debug}", message.error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_element_is_named_with_its_package() {
        assert!(require(&["appsrc", "x264enc"]).is_ok());
        let error = require(&["appsrc", "no-such-element"]).unwrap_err().to_string();
        assert!(error.contains("`no-such-element` is not installed"), "{error}");
        let error = missing("x264enc").to_string();
        assert!(error.ends_with("the package gstreamer1.0-plugins-ugly"), "{error}");
    }
}
