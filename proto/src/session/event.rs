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
    /// The first picture of one of my legs is on my screen now: the message is the moment, so that no clock of the client's is needed.
    /// Only where [`ServerEvent::Welcome`] says `traced`; once for a leg. It goes into the trace of the client's own join and
    /// nowhere else.
    Shown {
        /// The leg.
        leg: LegId,
    },
    /// How is the register? Forwarded to the gate; a later [`ServerEvent::Control`] that has this nonce among its answers was made by
    /// the gate after the client sent this. At most five a second.
    ControlProbe {
        /// 64 random bits, 16 hexadecimal digits.
        nonce: String,
    },
    /// Asks local for control. Creates nothing; a browser never holds. Only roles whose highest grade covers the set.
    ControlRequest {
        /// What is asked for.
        set: ControlSet,
        /// For local's eyes, at most 128 bytes.
        reason: String,
    },
    /// Stop. Forwarded to the gate on behalf of the participant; one per 10 s.
    ControlEstop {
        /// Shown everywhere, at most 128 bytes.
        reason: String,
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
        /// Whether the server traces joins and wants [`ClientEvent::Shown`].
        #[serde(default)]
        traced: bool,
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
    /// A leg carries another feed from here on, as its owner asked; points of its map are that feed's.
    Switched {
        /// The leg.
        leg: LegId,
        /// What it carries now.
        feed: FeedId,
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
    /// The register, as the gate's own STATUS says it (HANDOVER.md section 14). It is as old as the newest probe of this client
    /// that it answers.
    Control {
        /// The register.
        control: ControlInfo,
    },
    /// There is no gate in the session, signaling has lost it, or two gates contradict each other: control is unknown.
    ControlGone,
    /// Somebody pressed ESTOP, or asked for control, and a gate has taken it; or there are two gates.
    ControlNotice {
        /// `estop`, `request` or `second_gate`.
        what: String,
        /// Who.
        person: String,
        /// Why.
        reason: String,
    },
    /// Something that the client sent on this socket was not done; the socket stays. Only to that socket.
    Refused {
        /// Type of the message that was refused: `chat`, `control_request`, `control_estop`.
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

/// A set of what may be operated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ControlSet {
    /// What moves the camera mechanically.
    pub camera: bool,
    /// Instruments.
    pub instruments: bool,
    /// Energy, only with instruments.
    pub energy: bool,
}

/// The register as screens see it: `Status` of the handover protocol, in words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ControlInfo {
    /// `hold`, `local`, `offered`, `ready`, `granting`, `remote`, `estop` or `closed`.
    pub mode: String,
    /// The gate's epoch.
    pub epoch: u64,
    /// The holder in `remote`, the addressee before it; nothing where that participant is not known here.
    pub participant: Option<ParticipantId>,
    /// SHA-256 of that one's certificate, hexadecimal.
    pub expert: Option<String>,
    /// What is held, or offered.
    pub set: ControlSet,
    /// Milliseconds since this state began.
    pub since_ms: u64,
    /// Why motion is stopped, in words; empty while it runs and outside `remote`.
    pub stopped: Vec<String>,
    /// What local must know, in words.
    pub alarms: Vec<String>,
    /// Link gates: loop age, jitter, loss, frame age; each `unmeasured`, `green`, `amber` or `red`.
    pub colours: [String; 4],
    /// What they were measured at: loop age p50 and p95, jitter p95 (microseconds), loss (parts per million), frame age
    /// (microseconds); nothing where unmeasured.
    pub figures: [Option<u32>; 5],
    /// Nonces of probes that this answers, each 16 hexadecimal digits.
    pub answers: Vec<String>,
    /// `single`, `protected` (two paths bring what the expert sends) or `unprotected` (there were two, one is gone).
    pub paths: String,
    /// A STATUS older than this, by the client's own probe, is "control unknown, hands off", in milliseconds.
    pub status_age_ms: u32,
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
