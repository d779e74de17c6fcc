//! The media half of `trocar publish`: pictures and sound as frames of RTP packets.
//!
//! ```text
//! test                     scene ─┐
//! file                   decoder ─┼─► encoder (ENCODER ! PARSER ! PAYLOADER) ─► Frame
//! v4l2, decklink, screen capture ─┘
//! file, untouched                     recording (demuxed, packetised, restamped) ─► Frame
//! rtsp, srt, udp                      ingest (unwrapped, parsed, packetised) ─► Frame
//! tone, alsa, pulse, file             sound (opusenc ! rtpopuspay) ─► Frame
//! ```
//! [`prepare`] a [`SourceSpec`] (or [`prepare_audio`] an [`AudioSpec`]), read its [`SourceInfo`] for the feed's descriptor
//! or an SDP offer, `Prepared::start` it with a `FrameSink`, and listen to the events of what is [`Running`].
//!
//! **For whoever sends.** The sink is called on a thread of the source and must not block. It gets whole [`Frame`]s: RTP
//! packets with a 12-byte header, of at most [`MTU`] bytes, payload type [`PAYLOAD_TYPE`], one SSRC and rising sequence
//! numbers per start. Header extensions, payload type, SSRC and sending are the caller's: `crate::sender` puts in the house's
//! extensions and sends by RoQ, a WebRTC sender writes its own SSRC and payload type over bytes 1 and 8 to 11. `Frame::key`
//! tells frames that can be decoded by themselves; `Running::request_key_frame` asks for one. H.264 leaves in
//! packetization-mode 1 with parameter sets before each key frame. A source that ends says so once, by an event; starting it
//! again is the caller's decision ([`MediaError::may_pass`]), with frame ids from 0 and another SSRC.

mod audio;
mod canvas;
mod capture;
mod clock;
mod codec;
pub(crate) mod command;
mod cpu;
mod decoder;
mod elements;
mod encoder;
mod error;
mod fixture;
mod font;
mod frame;
mod funnel;
mod ingest;
mod keyframe;
mod live;
mod measure;
mod passthrough;
mod place;
mod raw;
mod running;
mod scene;
mod source;
mod spec;
mod texture;
mod tuning;

#[cfg(test)]
pub(crate) mod tests;

pub(crate) use audio::{AudioSettings, AudioSpec};
pub(crate) use codec::Codec;
pub(crate) use elements::init as init_gstreamer;
pub(crate) use error::MediaError;
pub(crate) use frame::Frame;
pub(crate) use measure::probe_largest_live_size;
pub(crate) use place::SourceSpec;
pub(crate) use raw::Raw;
#[cfg(test)]
pub(crate) use raw::RawDigest;
pub(crate) use running::{Running, SourceEvent};
pub(crate) use source::{Prepared, SourceInfo, prepare, prepare_audio};
pub(crate) use spec::{EncodeSettings, Geometry};

/// Largest RTP packet in bytes, header included: 20 bytes are left for header extensions up to the house's 1,120.
pub(crate) const MTU: u32 = 1_100;
/// RTP payload type of all packets.
pub(crate) const PAYLOAD_TYPE: u8 = 96;
