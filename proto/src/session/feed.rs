//! The feed descriptor: what a publisher says about one published thing, and what every viewer is told.

use super::ids::FeedId;
use crate::units::{Bitrate, FlowId};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Video, audio or data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum MediaKind {
    /// Pictures.
    Video,
    /// Sound.
    Audio,
    /// Anything else with a descriptor.
    Data,
}

/// The bandwidth partition that a feed belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Purpose {
    /// The primary endoscope.
    Scope,
    /// A room or wall camera.
    Room,
    /// A voice.
    Voice,
    /// Another picture: ultrasound, X-ray, monitor.
    Secondary,
}

/// How packets go by RTP over QUIC: those of a native feed to the relay, or those of a leg to its viewer. By datagram goes by
/// stream what fits into none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum RoqMode {
    /// One RTP packet per QUIC datagram.
    #[default]
    Datagram,
    /// One stream per frame: QUIC repeats what is lost, until the frame's deadline; then the stream is reset.
    Stream,
}

/// The way a feed comes in or a leg goes out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum Transport {
    /// A browser or another WebRTC client.
    Webrtc,
    /// RTP over QUIC. The relay gives the flow ids out; a publisher leaves them out when it asks.
    Roq {
        /// Datagrams or a stream per frame.
        mode: RoqMode,
        /// Flow id of the RTP packets.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        rtp_flow_id: Option<FlowId>,
        /// Flow id of the RTCP packets, both directions.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        rtcp_flow_id: Option<FlowId>,
    },
}

/// How redundancy is made on native lines of a feed: from its publisher to the relay, between relays, and to native viewers
/// that report what they lose (RFC 3611 section 4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Fec {
    /// The code.
    pub scheme: FecScheme,
    /// Payload type of the repair packets, 96 to 127, on the flow of the feed.
    pub payload_type: u8,
}

/// Codes that there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum FecScheme {
    /// Reed–Solomon over GF(2^16) across the packets of frames: [`crate::media::fec::block`].
    Rs16,
}

/// One published thing. JSON, `POST /v1/sessions/{session}/feeds`; mirrored on the event stream. Unknown keys are refused.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct FeedDescriptor {
    /// Name of the feed, unique in its session.
    pub feed: FeedId,
    /// What the camera is: feeds with one source and one frame id show the same moment.
    pub source: String,
    /// Which rendition of the source this is, e.g. `overview`.
    pub view: String,
    /// Video, audio or data.
    pub kind: MediaKind,
    /// The bandwidth partition.
    pub purpose: Purpose,
    /// Encoding name of the RTP payload format registry, e.g. `H264`.
    pub codec: String,
    /// Format parameters as in SDP `a=fmtp`, e.g. `packetization-mode=1;profile-level-id=42e01f`.
    #[serde(default)]
    pub fmtp: String,
    /// RTP clock rate in Hz.
    pub clock_rate: u32,
    /// RTP payload type on the way in, 0 to 127.
    pub payload_type: u8,
    /// Picture width in pixels; 0 for sound.
    #[serde(default)]
    pub width: u32,
    /// Picture height in pixels; 0 for sound.
    #[serde(default)]
    pub height: u32,
    /// Pictures per second; 0 for sound.
    #[serde(default)]
    pub fps: f64,
    /// Bits per second that the publisher will not exceed: its grant.
    pub max_bitrate: Bitrate,
    /// Capture to display, in milliseconds: what the feed aims at.
    pub budget_ms: u32,
    /// RTP header extensions in use: URI to id (RFC 8285).
    #[serde(default)]
    pub header_extensions: BTreeMap<String, u8>,
    /// 0 goes first.
    #[serde(default)]
    pub priority: u8,
    /// Sent over two paths: every packet by each of two QUIC connections.
    #[serde(default)]
    pub protected: bool,
    /// A stored recording that is played, not a live camera: the page says so.
    #[serde(default)]
    pub replay: bool,
    /// Redundancy on native lines; without it lost packets are only asked for again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fec: Option<Fec>,
    /// How it comes in.
    pub transport: Transport,
}

/// One reason why a descriptor is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {expected}")]
pub struct InvalidDescriptor {
    /// JSON name of the field.
    pub field: &'static str,
    /// What would be right.
    pub expected: &'static str,
}

impl FeedDescriptor {
    /// Checks ranges that the JSON types do not.
    ///
    /// # Errors
    /// The first field that is out of range, and what would be right.
    pub fn check(&self) -> Result<(), InvalidDescriptor> {
        let bad = |field, expected| Err(InvalidDescriptor { field, expected });
        let printable = |s: &str| (1..=64).contains(&s.len()) && s.bytes().all(|b| b.is_ascii_graphic());
        if !printable(&self.source) {
            return bad("source", "1 to 64 printable ASCII characters without spaces");
        }
        if !printable(&self.view) {
            return bad("view", "1 to 64 printable ASCII characters without spaces");
        }
        if !printable(&self.codec) {
            return bad("codec", "an encoding name of the RTP payload format registry, such as H264");
        }
        let is_opus = self.codec.eq_ignore_ascii_case("opus") && self.clock_rate == 48_000;
        if self.kind == MediaKind::Audio && self.purpose == Purpose::Voice && !is_opus {
            return bad("codec", "opus with a clock_rate of 48000: listeners can play no other voice");
        }
        if self.fmtp.len() > 512 || !self.fmtp.bytes().all(|b| (0x20..0x7f).contains(&b)) {
            return bad("fmtp", "at most 512 printable ASCII characters");
        }
        if !(1..=1_000_000).contains(&self.clock_rate) {
            return bad("clock_rate", "1 to 1000000 Hz");
        }
        if !(96..=127).contains(&self.payload_type) && self.payload_type > 34 {
            return bad("payload_type", "0 to 34 or 96 to 127 (RFC 5761 section 4)");
        }
        if self.fec.is_some_and(|f| !(96..=127).contains(&f.payload_type) || f.payload_type == self.payload_type) {
            return bad("fec", "a payload_type of 96 to 127 that is not the feed's");
        }
        if self.width > 16_384 || self.height > 16_384 {
            return bad("width", "width and height of at most 16384 pixels");
        }
        if !(0.0..=1000.0).contains(&self.fps) {
            return bad("fps", "0 to 1000 pictures per second");
        }
        if !(1_000..=2_000_000_000).contains(&self.max_bitrate.0) {
            return bad("max_bitrate", "1000 to 2000000000 bit/s");
        }
        if !(1..=10_000).contains(&self.budget_ms) {
            return bad("budget_ms", "1 to 10000 ms");
        }
        if self.header_extensions.len() > 14 || self.header_extensions.values().any(|id| !(1..=14).contains(id)) {
            return bad("header_extensions", "at most 14 URIs with ids 1 to 14 (RFC 8285 section 4.2)");
        }
        Ok(())
    }

    /// The id that the descriptor gives to an extension URI.
    #[must_use]
    pub fn extension_id(&self, uri: &str) -> Option<u8> {
        self.header_extensions.get(uri).copied()
    }
}
