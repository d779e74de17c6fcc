//! What can go wrong between a camera, or a file, and the RTP packets.

use std::path::PathBuf;

/// Why a source does not start, or stopped.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MediaError {
    /// The words after `--source` are not a source.
    #[error("`{given}` is not a source: {reason}. Use `test`, `test:1920x1080@60` or `file:PATH`")]
    Spec {
        /// What was typed.
        given: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// GStreamer does not start at all.
    #[error("GStreamer does not start: {0}")]
    Init(gstreamer::glib::Error),
    /// A GStreamer element is not installed.
    #[error("the GStreamer element `{element}` is not installed: on Debian it is in the package {package}")]
    MissingElement {
        /// Name of the element.
        element: String,
        /// Debian package that has it.
        package: &'static str,
    },
    /// No decoder for what is in the file.
    #[error("no decoder for {what} in {path}: on Debian most are in the package gstreamer1.0-libav")]
    MissingDecoder {
        /// The file.
        path: PathBuf,
        /// Description of the format, from GStreamer.
        what: String,
    },
    /// The file cannot be opened.
    #[error("cannot open {path}: {cause}")]
    Open {
        /// The file.
        path: PathBuf,
        /// Why not.
        cause: std::io::Error,
    },
    /// There is no picture in the file.
    #[error("{path} holds no video that GStreamer can find")]
    NoVideo {
        /// The file.
        path: PathBuf,
    },
    /// Passthrough was asked for a file that is not H.264.
    #[error(
        "passthrough forwards H.264 untouched, but {path} holds {found}: leave --passthrough away to encode it again"
    )]
    NotH264 {
        /// The file.
        path: PathBuf,
        /// Media type of its video, e.g. `video/x-vp8`.
        found: String,
    },
    /// No frame of the file can be decoded by itself, so nobody could join.
    #[error("{path} holds no key frame (IDR), so that no viewer could start")]
    NoKeyFrame {
        /// The file.
        path: PathBuf,
    },
    /// A picture size that the scene or the encoder cannot do.
    #[error("{width}x{height} at {fps} frames/s cannot be done: {reason}")]
    Size {
        /// Pixels from left to right.
        width: u32,
        /// Pixels from top to bottom.
        height: u32,
        /// Frames per second.
        fps: u32,
        /// What is asked of them.
        reason: &'static str,
    },
    /// An element reported an error, or refused what it was asked.
    #[error("{element}: {detail}")]
    Pipeline {
        /// Name of the element or of the step.
        element: String,
        /// What it said.
        detail: String,
    },
    /// Nothing came out of the pipeline in time.
    #[error("{step} gave nothing for {seconds} s")]
    Stalled {
        /// What was waited for.
        step: &'static str,
        /// For how long, in seconds.
        seconds: u64,
    },
    /// The system has no thread to give.
    #[error("cannot start the thread `{name}`: {cause}")]
    Thread {
        /// Name of the thread.
        name: &'static str,
        /// Why not.
        cause: std::io::Error,
    },
    /// A fixture cannot be written.
    #[error("cannot write {path}: {cause}")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why not.
        cause: std::io::Error,
    },
}

impl MediaError {
    /// An element's or step's complaint, whatever its type.
    pub(super) fn pipeline(element: &str, detail: impl std::fmt::Display) -> Self {
        Self::Pipeline { element: element.to_owned(), detail: detail.to_string() }
    }
}
