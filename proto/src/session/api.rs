//! Bodies of the HTTP API that are not feed descriptors or problems.

use super::break_glass::{BreakGlass, BrokenGlass};
use super::feed::{FeedDescriptor, RoqMode};
use super::ids::{CertHash, FeedId, LegId, ParticipantId, RealmId, SessionId};
use super::role::{Grade, Role, Verb};
use crate::units::{FlowId, WallMicros};
use serde::{Deserialize, Serialize};

/// `POST /v1/join`: redeem an invitation.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct JoinRequest {
    /// The secret from the link's fragment.
    pub invitation: String,
    /// How the participant is shown to others; at most 64 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Where the participant works, by its own word, shown beside its realm; at most 64 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub organisation: Option<String>,
    /// Hash of the client certificate that the bearer will show on QUIC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cnf: Option<CertHash>,
    /// In an emergency: without the login that the invitation asks for, where the node allows that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub break_glass: Option<BreakGlass>,
    /// Of a device that publishes by itself: its certificate's word in place of the login that the invitation asks for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<DeviceProof>,
}

/// What a device signs to redeem an invitation without a login; in the role publisher alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct DeviceProof {
    /// The certificate `trocar://REALM/publisher/NAME` and what leads to the node's trust list: PEM, leaf first, at most 8. Its hash is `cnf`.
    pub certificate: String,
    /// When it was signed, by the device's clock; good for a minute.
    pub at: WallMicros,
    /// By the certificate's key, ECDSA P-256 with SHA-256 (ASN.1) or Ed25519, base64: over `trocar-join-1` and, on a line each, the SHA-256 of
    /// the invitation's secret, that of the certificate (both hexadecimal) and `at`.
    pub signature: String,
}

/// Answer to `POST /v1/join` and `POST /v1/token`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TokenGrant {
    /// The bearer token.
    pub token: String,
    /// When it ends; refresh before.
    pub expires: WallMicros,
    /// The participant that it stands for.
    pub participant: ParticipantId,
    /// How the participant is shown.
    pub name: String,
    /// The session that it is good for.
    pub session: SessionId,
    /// The participant's realm.
    pub realm: RealmId,
    /// What the participant is.
    pub role: Role,
    /// Highest grade it may hold at a gate.
    pub grade: Grade,
    /// What it may do.
    pub verbs: Vec<Verb>,
}

/// `POST /v1/sessions/{session}/invitations`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct InvitationRequest {
    /// Role of whoever redeems it.
    pub role: Role,
    /// Seconds that it stays good for, 60 to 604800; a day where left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_s: Option<u64>,
}

/// Answer to [`InvitationRequest`].
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Invitation {
    /// The link to hand on. The secret is in the fragment, which browsers do not send to servers.
    pub link: String,
    /// The secret alone.
    pub invitation: String,
    /// Role of whoever redeems it.
    pub role: Role,
    /// When it ends.
    pub expires: WallMicros,
}

/// Where and how to send or fetch RTP over QUIC; answer to `POST …/feeds` and `POST …/legs`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RoqBinding {
    /// `host:port` of the relay's QUIC listener for the bearer's realm.
    pub relay: String,
    /// Other addresses of the same listener, for a second path.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub relay_alternates: Vec<String>,
    /// Another relay with the same flows, for a second path; goes before the other addresses.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub also: Vec<OtherRelay>,
    /// TLS server name to expect there.
    pub server_name: String,
    /// Flow of the RTP packets.
    pub rtp_flow_id: FlowId,
    /// Flow of the RTCP packets, both directions.
    pub rtcp_flow_id: FlowId,
    /// The leg, where this is a viewer's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leg: Option<LegId>,
    /// The feed as the relay has it.
    pub feed: FeedDescriptor,
}

/// A relay beside the one that a binding names first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct OtherRelay {
    /// `host:port` of its QUIC listener for the bearer's realm.
    pub relay: String,
    /// TLS server name to expect there.
    pub server_name: String,
}

/// Body of `POST …/feeds/{feed}/legs`; no body at all means the same as an empty one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct LegRequest {
    /// Datagrams, or a stream per frame with a deadline.
    #[serde(default)]
    pub mode: RoqMode,
    /// Over how many QUIC connections the packets are to go, each packet over each: 1 or 2.
    #[serde(default = "one")]
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 2))]
    pub paths: u8,
}

const fn one() -> u8 {
    1
}

impl Default for LegRequest {
    fn default() -> Self {
        Self { mode: RoqMode::Datagram, paths: 1 }
    }
}

/// Connections that one feed or leg uses at most.
pub const MAX_PATHS: usize = 2;

/// Longest chat message, in characters.
pub const MAX_CHAT_LEN: usize = 2_000;
/// Chat messages of a session that are kept for those who come later; the oldest goes first.
pub const MAX_CHAT_KEPT: usize = 200;

/// Something that a participant wrote.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ChatMessage {
    /// Counter of the session, from 1.
    pub id: u64,
    /// Who wrote it.
    pub participant: ParticipantId,
    /// How the writer was shown then.
    pub name: String,
    /// What was written.
    pub text: String,
    /// When the server got it.
    pub at: WallMicros,
}

/// A STUN or TURN server for WebRTC clients (RFC 8829 section 3.5.2); element of `GET …/ice-servers`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct IceServer {
    /// `stun:`, `turn:` or `turns:` URIs (RFC 7064, RFC 7065).
    pub urls: Vec<String>,
    /// User name, `EXPIRY:PARTICIPANT`; time-limited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// Its password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential: Option<String>,
    /// When the credential ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<WallMicros>,
}

/// One participant as others see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ParticipantInfo {
    /// Id in this session.
    pub participant: ParticipantId,
    /// Shown name.
    pub name: String,
    /// What it is.
    pub role: Role,
    /// Its hospital network.
    pub realm: RealmId,
    /// Where it works, by its own word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub organisation: Option<String>,
    /// A WHIP or WHEP client that is known by an invitation alone, for as long as the resource that it made.
    #[serde(default)]
    pub guest: bool,
    /// Of somebody who came in by break-glass, without the login that the role asks for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub break_glass: Option<BrokenGlass>,
    /// Since when it is present: on the event stream, or with a leg or a WHIP publication.
    pub since: WallMicros,
}

/// Whether packets of a feed arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum FeedState {
    /// Announced; no packet has come yet.
    Waiting,
    /// Packets arrive.
    Live,
    /// No packet for more than 300 ms.
    Stalled,
}

/// How many paths bring a protected feed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FeedPaths {
    /// As many are to bring it.
    pub expected: u8,
    /// As many do.
    pub alive: u8,
    /// Since when, relay's wall clock.
    pub since: WallMicros,
}

impl FeedPaths {
    /// Whether one path may fail without anybody seeing it.
    #[must_use]
    pub const fn is_protected(&self) -> bool {
        self.alive >= self.expected
    }
}

/// A feed with what is known about it now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FeedInfo {
    /// The descriptor.
    pub descriptor: FeedDescriptor,
    /// Who publishes it.
    pub publisher: ParticipantId,
    /// Whether packets arrive.
    pub state: FeedState,
    /// Since when it is in that state.
    pub since: WallMicros,
    /// Of a protected feed, how many paths bring it; none where the feed is not to be protected, or nothing has come yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paths: Option<FeedPaths>,
    /// Server clock minus publisher's clock, in microseconds, by the publisher's report; none while unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock_offset_us: Option<i64>,
    /// Half round trip of the publisher's clock exchange, in microseconds; none while unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock_uncertainty_us: Option<u64>,
}

/// `GET /v1/sessions/{session}`, and the start of the event stream.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SessionInfo {
    /// Id.
    pub session: SessionId,
    /// Title for people.
    pub title: String,
    /// Who is here.
    pub participants: Vec<ParticipantInfo>,
    /// What is published.
    pub feeds: Vec<FeedInfo>,
}

impl SessionInfo {
    /// The feed of that name.
    #[must_use]
    pub fn feed(&self, id: &FeedId) -> Option<&FeedInfo> {
        self.feeds.iter().find(|f| &f.descriptor.feed == id)
    }
}
