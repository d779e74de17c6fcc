//! What can go wrong between a camera, or a file, and the RTP packets.

use std::path::PathBuf;

/// Why a source does not start, or stopped.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MediaError {
    /// The words after `--source` are not a source.
    #[error(
        "`{given}` is not a source: {reason}. Sources are `test`, `test:1920x1080@60`, `file:PATH`, `v4l2:/dev/video0`, \
         `decklink:0`, `screen`, `rtsp://…`, `srt://…`, `udp://…` and `gst:ELEMENTS`"
    )]
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
    /// There is no sound in the file.
    #[error("{path} holds no sound that GStreamer can find")]
    NoSound {
        /// The file.
        path: PathBuf,
    },
    /// The words after `--audio` are no sound.
    #[error(
        "`{given}` is no sound: {reason}. Sounds are `tone`, `tone:440`, `alsa`, `alsa:DEVICE`, `pulse`, `file:PATH`"
    )]
    Audio {
        /// What was typed.
        given: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A device that was named is not there.
    #[error("{device} is not there: {hint}")]
    NoDevice {
        /// The device, as it was typed.
        device: String,
        /// What is there, or what would be right.
        hint: String,
    },
    /// A camera does not have the size that it was asked for.
    #[error(
        "{device} gives no {asked}: leave --size away to take what it gives; `v4l2-ctl --list-formats-ext` lists it"
    )]
    NoMode {
        /// The device, as it was typed.
        device: String,
        /// Size and rate, as they were typed.
        asked: String,
    },
    /// A live encoding that this machine cannot do.
    #[error("{codec} cannot be encoded live at {geometry}: {reason}")]
    TooMuch {
        /// The codec, for people.
        codec: &'static str,
        /// Size and rate.
        geometry: String,
        /// What it would take, and what would go.
        reason: String,
    },
    /// A live source ended.
    #[error("{source_name} ended")]
    Ended {
        /// The source, without secrets.
        source_name: String,
    },
    /// A network stream has video that is not forwarded.
    #[error("{source_name} sends {found}: H.264, H.265, AV1, VP8 and VP9 are forwarded")]
    NotForwarded {
        /// The source, without secrets.
        source_name: String,
        /// Media type of its video.
        found: String,
    },
    /// Passthrough was asked for a file with another codec.
    #[error(
        "passthrough forwards H.264, H.265, AV1, VP8 and VP9 untouched, but {path} holds {found}: leave --passthrough away \
         to encode it again"
    )]
    NotForPassthrough {
        /// The file.
        path: PathBuf,
        /// Media type of its video, e.g. `image/jpeg`.
        found: String,
    },
    /// No frame of the file can be decoded by itself, so nobody could join.
    #[error("{path} holds no key frame, so that no viewer could start")]
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
        step: String,
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
    /// Whether trying again can help: what was typed, or is not installed, stays as it is.
    pub(crate) const fn may_pass(&self) -> bool {
        !matches!(
            self,
            Self::Spec { .. }
                | Self::Audio { .. }
                | Self::Init(_)
                | Self::MissingElement { .. }
                | Self::MissingDecoder { .. }
                | Self::NoVideo { .. }
                | Self::NoSound { .. }
                | Self::NotForPassthrough { .. }
                | Self::NoKeyFrame { .. }
                | Self::NoMode { .. }
                | Self::TooMuch { .. }
                | Self::Size { .. }
                | Self::Write { .. }
        )
    }

    /// An element's or step's complaint, whatever its type.
    pub(super) fn pipeline(element: &str, detail: impl std::fmt::Display) -> Self {
        Self::Pipeline { element: element.to_owned(), detail: detail.to_string() }
    }
}
