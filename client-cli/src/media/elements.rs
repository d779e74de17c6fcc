//! GStreamer's elements by name, and the Debian package to install where one is missing.

use super::error::MediaError;
use gst::prelude::*;
use gstreamer as gst;

/// Debian package of each element that is used here.
const PACKAGES: [(&str, &str); 16] = [
    ("x264enc", "gstreamer1.0-plugins-ugly"),
    ("avdec_h264", "gstreamer1.0-libav"),
    ("rtph264pay", "gstreamer1.0-plugins-good"),
    ("rtph264depay", "gstreamer1.0-plugins-good"),
    ("qtdemux", "gstreamer1.0-plugins-good"),
    ("mp4mux", "gstreamer1.0-plugins-good"),
    ("h264parse", "gstreamer1.0-plugins-bad"),
    ("videoconvert", "gstreamer1.0-plugins-base"),
    ("videoscale", "gstreamer1.0-plugins-base"),
    ("videorate", "gstreamer1.0-plugins-base"),
    ("appsrc", "gstreamer1.0-plugins-base"),
    ("appsink", "gstreamer1.0-plugins-base"),
    ("decodebin", "gstreamer1.0-plugins-base"),
    ("parsebin", "gstreamer1.0-plugins-base"),
    ("filesrc", "libgstreamer1.0-0"),
    ("filesink", "libgstreamer1.0-0"),
];

/// Starts GStreamer (once) and checks that all of `names` are installed.
///
/// # Errors
/// [`MediaError::MissingElement`] names the first that is not, and its package.
pub(super) fn require(names: &[&str]) -> Result<(), MediaError> {
    gst::init().map_err(MediaError::Init)?;
    names.iter().find(|name| gst::ElementFactory::find(name).is_none()).map_or(Ok(()), |name| Err(missing(name)))
}

/// A new element.
///
/// # Errors
/// [`MediaError::MissingElement`] where it is not installed.
pub(super) fn make(name: &str) -> Result<gst::Element, MediaError> {
    gst::ElementFactory::make(name).build().map_err(|_| missing(name))
}

fn missing(name: &str) -> MediaError {
    let package = PACKAGES.iter().find(|(element, _)| *element == name).map_or("gstreamer1.0-plugins-*", |p| p.1);
    MediaError::MissingElement { element: name.to_owned(), package }
}

/// Puts `elements` into `pipeline` and links them in order.
pub(super) fn chain(pipeline: &gst::Pipeline, elements: &[&gst::Element]) -> Result<(), MediaError> {
    pipeline.add_many(elements).map_err(|e| MediaError::pipeline("pipeline", e))?;
    gst::Element::link_many(elements).map_err(|e| MediaError::pipeline("link", e))
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
