//! The event WebSocket, `GET /v1/sessions/{session}/events`, subprotocol `trocar.v1`, JSON text frames.
//!
//! The client speaks first: `hello` with its token, within 2 s. It may then ask for the server's time, twice a
//! second at most (the four-timestamp exchange of RFC 5905 section 8) and, where it publishes, report the offset it found.

use super::api::{ChatMessage, FeedInfo, ParticipantInfo, SessionInfo};
use super::ids::{FeedId, LegId, ParticipantId, PublicationId};
use crate::units::WallMicros;
use serde::{Deserialize, Serialize};

/// Subprotocol name in `Sec-WebSocket-Protocol`.
pub const SUBPROTOCOL: &str = "trocar.v1";

/// Client to server.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum ClientEvent {
    /// Who I am. First message, within 2 s.
    Hello {
        /// The bearer token.
        token: String,
    },
    /// What time is it? Answered by [`ServerEvent::ClockReply`].
    Clock {
        /// Client's clock when it sent this.
        t0: WallMicros,
    },
    /// What the client found. A publisher's report makes the age of its pictures known to viewers.
    ClockReport {
        /// Server clock minus client clock, in microseconds.
        offset_us: i64,
        /// Half of the round trip that the offset came from, in microseconds.
        uncertainty_us: u64,
    },
    /// Something to read for everybody in the session. Answered by [`ServerEvent::Chat`], to all, or where it comes too
    /// often by [`ServerEvent::Refused`].
    Chat {
        /// 1 to [`super::api::MAX_CHAT_LEN`] characters; control characters other than line ends are refused.
        text: String,
    },
}

/// Server to client.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ServerEvent {
    /// First message: everything as it is now.
    Welcome {
        /// Who the server takes the client for.
        participant: ParticipantId,
        /// Server's clock.
        now: WallMicros,
        /// The session.
        session: SessionInfo,
        /// What was written last, oldest first.
        #[serde(default)]
        chat: Vec<ChatMessage>,
    },
    /// Somebody wrote something.
    Chat {
        /// What.
        message: ChatMessage,
    },
    /// Answer to [`ClientEvent::Clock`].
    ClockReply {
        /// As sent by the client.
        t0: WallMicros,
        /// Server's clock when the question came.
        t1: WallMicros,
        /// Server's clock when this answer left.
        t2: WallMicros,
    },
    /// Somebody came.
    ParticipantJoined {
        /// Who.
        participant: ParticipantInfo,
    },
    /// Somebody left.
    ParticipantLeft {
        /// Who.
        participant: ParticipantId,
    },
    /// A feed was announced, or its state or descriptor changed.
    Feed {
        /// The feed as it is now.
        feed: FeedInfo,
    },
    /// A feed is gone.
    FeedRemoved {
        /// Which.
        feed: FeedId,
    },
    /// Which moment a picture shows: one point of the map from this leg's RTP time to capture time. About ten a second,
    /// only for the client's own legs. The client joins it with the RTP timestamp of the picture on its screen.
    Capture {
        /// The leg.
        leg: LegId,
        /// RTP timestamp of the frame as sent on this leg.
        rtp: u32,
        /// RTP clock rate in Hz.
        clock_rate: u32,
        /// Capture time on the server's clock; none where the publisher gave none or its clock is unknown.
        capture: Option<WallMicros>,
        /// When the relay got the frame's last packet, server's clock.
        received: WallMicros,
        /// Uncertainty of `capture`, in microseconds.
        uncertainty_us: u64,
    },
    /// A leg's transport changed.
    Leg {
        /// The leg.
        leg: LegId,
        /// `connecting`, `connected` or `closed`.
        state: LegState,
    },
    /// A publication's transport changed; only to its publisher.
    Publication {
        /// The publication.
        publication: PublicationId,
        /// `connecting`, `connected` or `closed`.
        state: LegState,
    },
    /// Which voice is heard on which m-line of the client's voices leg.
    Voices {
        /// The leg.
        leg: LegId,
        /// All its m-lines.
        slots: Vec<VoiceSlot>,
    },
    /// Who speaks, when that changes.
    Speaking {
        /// Audio feeds with a voice above the noise, the loudest first.
        feeds: Vec<FeedId>,
    },
    /// Something that the client sent on this socket was not done; the socket stays. Only to that socket.
    Refused {
        /// Type of the message that was refused: `chat`.
        what: String,
        /// Why, and what would be right.
        detail: String,
    },
    /// The server is going away, on purpose.
    Goodbye {
        /// Why.
        reason: String,
    },
}

/// One m-line of a leg that carries voices.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct VoiceSlot {
    /// Media identification of the m-line (RFC 5888).
    pub mid: String,
    /// The feed that is heard there; none while it is silent.
    pub feed: Option<FeedId>,
}

/// Where a leg's transport is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum LegState {
    /// ICE and DTLS are under way, or no QUIC connection yet.
    Connecting,
    /// Media can flow.
    Connected,
    /// Gone.
    Closed,
}
