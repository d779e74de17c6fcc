//! The media half of `trocar publish`: pictures, from a synthetic field or a recording, as frames of RTP packets.
//!
//! ```text
//! test            scene ─┐
//! file            decoder ┴─► encoder (x264enc ! h264parse ! rtph264pay) ─► Frame
//! file, untouched             recording (demuxed, packetised, restamped) ─► Frame
//! ```
//! [`prepare`] a [`SourceSpec`], read its [`SourceInfo`] for the feed's descriptor, `Prepared::start` it with a
//! `FrameSink`, and listen to the events of what is [`Running`]. Header extensions and sending are the caller's.

mod canvas;
mod clock;
pub(crate) mod command;
mod cpu;
mod decoder;
mod elements;
mod encoder;
mod error;
mod fixture;
mod font;
mod frame;
mod live;
mod measure;
mod passthrough;
mod running;
mod scene;
mod source;
mod spec;
mod texture;

#[cfg(test)]
mod tests;

pub(crate) use error::MediaError;
pub(crate) use frame::Frame;
pub(crate) use measure::probe_largest_live_size;
pub(crate) use running::{Running, SourceEvent};
pub(crate) use source::{SourceInfo, prepare};
pub(crate) use spec::{EncodeSettings, Geometry, SourceSpec};

/// Largest RTP packet in bytes, header included: 20 bytes are left for header extensions up to the house's 1,120.
pub(crate) const MTU: u32 = 1_100;
/// RTP payload type of all packets.
pub(crate) const PAYLOAD_TYPE: u8 = 96;
/// RTP clock rate in Hz (RFC 6184 section 8.1).
pub(crate) const CLOCK_RATE: u32 = 90_000;
