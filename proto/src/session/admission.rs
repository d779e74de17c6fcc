//! What signaling says to the relay and hears from it. Plain values: in one process they cross by a call, between
//! machines by HTTP with mutual TLS. The relay needs nothing else from signaling to keep a running session alive.

use super::api::FeedState;
use super::event::LegState;
use super::feed::FeedDescriptor;
use super::ids::{CertHash, FeedId, LegId, RealmId, SessionId};
use crate::units::{FlowId, WallMicros};
use serde::{Deserialize, Serialize};

/// A feed anywhere in the house.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct FeedKey {
    /// Its session.
    pub session: SessionId,
    /// Its name there.
    pub feed: FeedId,
}

/// A feed that may be sent, and by whom.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FeedGrant {
    /// Which feed.
    pub key: FeedKey,
    /// The publisher's realm: which listener it comes in by.
    pub realm: RealmId,
    /// The certificate that the sending connection must show.
    pub cnf: CertHash,
    /// What was described.
    pub descriptor: FeedDescriptor,
}

/// A leg that may be sent, and to whom.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LegGrant {
    /// The leg's name, chosen by signaling.
    pub leg: LegId,
    /// Which feed.
    pub feed: FeedKey,
    /// The viewer's realm.
    pub realm: RealmId,
}

/// The flow ids that the relay gave out, and where to bring them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowBinding {
    /// `host:port` of the QUIC listener of that realm.
    pub relay: String,
    /// TLS server name.
    pub server_name: String,
    /// RTP flow.
    pub rtp_flow_id: FlowId,
    /// RTCP flow.
    pub rtcp_flow_id: FlowId,
}

/// The relay's side of a WebRTC leg.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WebrtcAnswer {
    /// SDP answer.
    pub sdp: String,
    /// The ICE session, as in the ETag of RFC 9725 section 4.3.1; changes at an ICE restart.
    pub ice_session: String,
}

/// Why the relay refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum AdmitError {
    /// No such feed here.
    #[error("the relay has no such feed")]
    NoSuchFeed,
    /// No such leg here.
    #[error("the relay has no such leg")]
    NoSuchLeg,
    /// The name is taken.
    #[error("a feed of that name exists already")]
    FeedExists,
    /// The realm has no listener on this relay.
    #[error("realm {0} has no listener on this relay")]
    NoSuchRealm(RealmId),
    /// SDP or an SDP fragment that cannot be used. Says which line or attribute, and what would be right.
    #[error("{0}")]
    BadSdp(String),
    /// The other side offers nothing that this feed can be sent as.
    #[error("{0}")]
    NotAcceptable(String),
    /// A limit of the relay is reached.
    #[error("the relay is full: {0}")]
    Full(String),
    /// The relay does not answer.
    #[error("the relay does not answer")]
    Unavailable,
}

/// What the relay tells signaling, unasked.
#[derive(Debug, Clone, PartialEq)]
pub enum RelayEvent {
    /// Packets of a feed begin or cease to arrive.
    FeedState {
        /// Which.
        key: FeedKey,
        /// How it is now.
        state: FeedState,
        /// Since when, relay's wall clock.
        since: WallMicros,
    },
    /// One point of a leg's map from RTP time to capture time, at most ten a second.
    Capture {
        /// The leg.
        leg: LegId,
        /// The feed it shows.
        feed: FeedKey,
        /// RTP timestamp on the leg.
        rtp: u32,
        /// RTP clock rate in Hz.
        clock_rate: u32,
        /// The publisher's own capture time, its clock, not corrected.
        capture: Option<WallMicros>,
        /// When the relay got the frame's last packet, relay's clock.
        received: WallMicros,
    },
    /// A leg's transport changed.
    Leg {
        /// The leg.
        leg: LegId,
        /// How it is now.
        state: LegState,
    },
}
