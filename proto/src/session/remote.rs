//! What signaling and a relay in another process say to each other, beyond [`super::admission`]: who the relay is, all
//! that it has at one moment, and the lines of its event stream (docs/CLUSTER.md).

use super::admission::{FeedGrant, FeedKey, FlowBinding, LegGrant, PublicationGrant, RelayEvent, VoicesGrant};
use super::api::FeedState;
use super::event::{LegState, VoiceSlot};
use super::feed::FeedDescriptor;
use super::ids::{CertHash, LegId, ParticipantId, PublicationId, RealmId, SessionId};
use crate::units::WallMicros;
use core::net::SocketAddr;
use serde::{Deserialize, Serialize};

/// A feed that is fetched from other relays and sent on here as if its publisher were here.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CascadeGrant {
    /// Which feed.
    pub key: FeedKey,
    /// Who publishes: its own voice is not sent back to it.
    pub publisher: ParticipantId,
    /// As viewers are told of it.
    pub descriptor: FeedDescriptor,
    /// Where it is fetched, on connections that show this relay's certificate: 1 or 2 relays. Packets of both are merged by
    /// number.
    pub upstream: Vec<FlowBinding>,
}

/// Relays that one relay fetches a feed from at most.
pub const MAX_UPSTREAM: usize = 2;

/// Who a relay is; the first line of its event stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelayHello {
    /// Its name, as its certificate has it.
    pub name: String,
    /// Another one at each start: what a relay of another instance had is gone.
    pub instance: String,
    /// The realm of its certificate: where it appears to other relays.
    pub realm: RealmId,
    /// Realms that it has listeners for.
    pub realms: Vec<RealmId>,
    /// SHA-256 of its certificate: what it shows other relays.
    pub certificate: CertHash,
    /// Where its control rendezvous listens, where there is one.
    pub control: Option<SocketAddr>,
    /// Whether it answers measurements of the line.
    pub link_tests: bool,
}

/// How a feed comes in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum FeedOrigin {
    /// RTP over QUIC, by that grant, on those flows.
    Roq {
        /// What was granted.
        grant: Box<FeedGrant>,
        /// What was answered.
        binding: FlowBinding,
    },
    /// By a publication (WHIP).
    Whip {
        /// Which.
        publication: PublicationId,
    },
}

/// A feed that a relay has.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FeedHeld {
    /// Which.
    pub key: FeedKey,
    /// Who publishes it.
    pub publisher: ParticipantId,
    /// How it comes in.
    pub origin: FeedOrigin,
    /// As viewers are told of it.
    pub descriptor: FeedDescriptor,
    /// Whether packets arrive.
    pub state: FeedState,
    /// Since when, relay's wall clock.
    pub since: WallMicros,
}

/// What a leg is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum LegShape {
    /// RTP over QUIC.
    Roq(LegGrant),
    /// WebRTC, with the name of its ICE session.
    Webrtc(LegGrant, String),
    /// The voices of a session by WebRTC, with the name of its ICE session.
    Voices(VoicesGrant, String),
}

/// A leg that a relay has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LegHeld {
    /// What it is.
    pub shape: LegShape,
    /// Where its transport is.
    pub state: LegState,
    /// Which voice is heard on which m-line, where it carries voices.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub slots: Vec<VoiceSlot>,
}

impl LegHeld {
    /// Its name.
    #[must_use]
    pub const fn leg(&self) -> &LegId {
        match &self.shape {
            LegShape::Roq(grant) | LegShape::Webrtc(grant, _) => &grant.leg,
            LegShape::Voices(grant, _) => &grant.leg,
        }
    }

    /// Its session.
    #[must_use]
    pub const fn session(&self) -> &SessionId {
        match &self.shape {
            LegShape::Roq(grant) | LegShape::Webrtc(grant, _) => &grant.feed.session,
            LegShape::Voices(grant, _) => &grant.session,
        }
    }

    /// Whose it is; none where another relay fetches by it.
    #[must_use]
    pub const fn viewer(&self) -> Option<&ParticipantId> {
        match &self.shape {
            LegShape::Roq(grant) | LegShape::Webrtc(grant, _) => grant.viewer.as_ref(),
            LegShape::Voices(grant, _) => Some(&grant.listener),
        }
    }

    /// The feed that it shows; none where it carries voices.
    #[must_use]
    pub const fn feed(&self) -> Option<&FeedKey> {
        match &self.shape {
            LegShape::Roq(grant) | LegShape::Webrtc(grant, _) => Some(&grant.feed),
            LegShape::Voices(..) => None,
        }
    }
}

/// A publication that a relay has. Its feeds say that they belong to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublicationHeld {
    /// What was granted.
    pub grant: PublicationGrant,
    /// Name of its ICE session.
    pub ice_session: String,
    /// Where its transport is.
    pub state: LegState,
}

/// All that a relay has: what signaling goes by after it has connected, for events of before are not repeated.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RelayState {
    /// Feeds whose publishers send to it.
    pub feeds: Vec<FeedHeld>,
    /// Legs.
    pub legs: Vec<LegHeld>,
    /// Publications.
    pub publications: Vec<PublicationHeld>,
    /// Feeds that it fetches from other relays.
    pub cascades: Vec<FeedKey>,
    /// Whether an expert operates by its rendezvous, or is about to.
    pub operated: bool,
}

/// One line of `GET /v1/events`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StreamLine {
    /// Counts from 0 on each stream; one that is not the next means that a line is missing.
    pub seq: u64,
    /// What is said.
    pub word: Word,
}

/// What a line says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(clippy::large_enum_variant, reason = "few at a time, and a box would be one more thing to read past")]
pub enum Word {
    /// First: who it is, and all that it has.
    Hello(Box<RelayHello>, Box<RelayState>),
    /// Something happened.
    Event(RelayEvent),
    /// Nothing happened.
    Alive,
}

/// A command with an SDP offer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WithSdp<T> {
    /// What is granted.
    pub grant: T,
    /// SDP offer, or a fragment (RFC 8840).
    pub sdp: String,
}

/// A native leg, and the certificate of the connections that it is sent on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ForCertificate {
    /// What is granted.
    pub grant: LegGrant,
    /// SHA-256 of the certificate.
    pub cnf: CertHash,
}
