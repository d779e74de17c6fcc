//! What signaling says to the relay and hears from it. Plain values: in one process they cross by a call, between
//! machines by HTTP with mutual TLS. The relay needs nothing else from signaling to keep a running session alive.

use super::api::{FeedPaths, FeedState, LegRequest, OtherRelay};
use super::event::LegState;
use super::event::VoiceSlot;
use super::feed::{FeedDescriptor, Purpose};
use super::ids::{CertHash, FeedId, LegId, ParticipantId, PublicationId, RealmId, SessionId};
use super::link_test::LinkTestRefused;
use super::remote::RelayState;
use crate::units::{Bitrate, FlowId, WallMicros};
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
    /// Who publishes: its own voice is not sent back to it.
    pub publisher: ParticipantId,
    /// The certificate that the sending connection must show.
    pub cnf: CertHash,
    /// What was described.
    pub descriptor: FeedDescriptor,
    /// RTP and RTCP flow, where another relay has the same feed on the same ones; else the relay chooses.
    #[serde(default)]
    pub flows: Option<(FlowId, FlowId)>,
}

/// What signaling settles about a feed before its SDP is read; the rest of the descriptor comes from the SDP.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FeedOutline {
    /// Name of the feed.
    pub feed: FeedId,
    /// What the camera or microphone is.
    pub source: String,
    /// Which rendition.
    pub view: String,
    /// The bandwidth partition.
    pub purpose: Purpose,
    /// Bits per second that the publisher may send.
    pub max_bitrate: Bitrate,
    /// Capture to display, in milliseconds.
    pub budget_ms: u32,
    /// 0 goes first.
    pub priority: u8,
    /// The publisher says that it plays a recording.
    pub replay: bool,
}

/// A WebRTC connection that may publish (WHIP, RFC 9725), and as what. The relay opens a feed for each kind that has an
/// outline and that the offer wants to send; it answers with the descriptors of those.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublicationGrant {
    /// The connection's name, chosen by signaling.
    pub publication: PublicationId,
    /// Its session.
    pub session: SessionId,
    /// The publisher's realm: which listener it comes in by.
    pub realm: RealmId,
    /// Who publishes.
    pub publisher: ParticipantId,
    /// The feed of the first m-line that sends video; of its largest layer, where it is simulcast (RFC 8853).
    pub video: Option<FeedOutline>,
    /// The feeds of its smaller layers, the larger one first. The relay opens as many as the offer has.
    #[serde(default)]
    pub layers: Vec<FeedOutline>,
    /// The feed of the first m-line that sends audio.
    pub audio: Option<FeedOutline>,
}

/// The relay's side of a publication.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PublicationAnswer {
    /// SDP answer.
    pub sdp: String,
    /// The ICE session, as in the ETag of RFC 9725 section 4.3.1; changes at an ICE restart.
    pub ice_session: String,
    /// The feeds that were opened, as they are described to viewers.
    pub feeds: Vec<FeedDescriptor>,
}

/// One WebRTC connection that receives the voices of a session, the loudest of them where there are more than its offer
/// has audio m-lines. Never its listener's own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VoicesGrant {
    /// The leg's name, chosen by signaling.
    pub leg: LegId,
    /// Whose voices.
    pub session: SessionId,
    /// The listener's realm.
    pub realm: RealmId,
    /// Who listens.
    pub listener: ParticipantId,
    /// The relay that it is to be at, where somebody wants to know how that one is reached: no voice is fetched for it then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relay: Option<String>,
}

/// A leg that may be sent, and to whom.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LegGrant {
    /// The leg's name, chosen by signaling.
    pub leg: LegId,
    /// Which feed.
    pub feed: FeedKey,
    /// Who views it; none where it is another relay.
    #[serde(default)]
    pub viewer: Option<ParticipantId>,
    /// The viewer's realm.
    pub realm: RealmId,
    /// A feed of the other kind and of the same source, sent over the same WebRTC connection where the offer has an
    /// m-line for it: the sound that belongs to a picture.
    pub companion: Option<FeedKey>,
    /// How it is to be sent by RTP over QUIC, where it is.
    #[serde(default)]
    pub roq: LegRequest,
    /// As in [`FeedGrant`].
    #[serde(default)]
    pub flows: Option<(FlowId, FlowId)>,
}

/// Flow ids from here on are chosen by signaling, smaller ones by relays: so many that two relays are never given the same by
/// chance, and few enough for a prefix of 4 bytes (RFC 9000 section 16).
pub const CHOSEN_FLOWS: std::ops::Range<u64> = 1 << 29..1 << 30;

/// The flow ids that the relay gave out, and where to bring them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowBinding {
    /// `host:port` of the QUIC listener of that realm.
    pub relay: String,
    /// Other addresses of the same listener, for a second path.
    #[serde(default)]
    pub relay_alternates: Vec<String>,
    /// Another relay with the same flows, for a second path.
    #[serde(default)]
    pub also: Vec<OtherRelay>,
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
    /// The other side offers nothing that this feed can be sent as. Says what was offered and what is needed.
    #[error("{detail}")]
    NotAcceptable {
        /// What was offered and what is needed.
        detail: String,
        /// Feeds of the session that the offer could take.
        alternatives: Vec<FeedId>,
    },
    /// No such publication here.
    #[error("the relay has no such publication")]
    NoSuchPublication,
    /// A limit of the relay is reached.
    #[error("the relay is full: {0}")]
    Full(String),
    /// The relay does not answer.
    #[error("the relay does not answer")]
    Unavailable,
    /// No measurement of the line may begin.
    #[error(transparent)]
    LinkTest(#[from] LinkTestRefused),
}

/// What may happen to the certificates that a listener knows its own and its peers by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CertificateNews {
    /// New files are in force.
    Renewed,
    /// New files cannot be used; the former stay in force.
    Unusable,
    /// A peer's certificate was taken back while it was in use.
    Revoked,
    /// A peer's certificate was not taken.
    Refused,
}

/// What the relay tells signaling, unasked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
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
    /// A protected feed is brought by another number of paths than before.
    Paths {
        /// Which.
        key: FeedKey,
        /// How it is now.
        paths: FeedPaths,
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
    /// A publication's transport changed. Once closed, its feeds are gone as well.
    Publication {
        /// Which.
        publication: PublicationId,
        /// How it is now.
        state: LegState,
    },
    /// The relay learnt more about a feed than its announcement said, such as the size of its pictures.
    Descriptor {
        /// Which.
        key: FeedKey,
        /// The descriptor as it is now.
        descriptor: FeedDescriptor,
    },
    /// A leg carries another feed from here on, as it was asked to.
    Switched {
        /// The leg.
        leg: LegId,
        /// What it carries now.
        feed: FeedKey,
    },
    /// Which voice a listener hears on which m-line.
    Voices {
        /// The listener's leg.
        leg: LegId,
        /// All its m-lines.
        slots: Vec<VoiceSlot>,
    },
    /// A feed is gone with the relay that had it.
    FeedClosed {
        /// Which.
        key: FeedKey,
    },
    /// Something about the certificates of the relay's listeners, for the audit chain.
    Certificates {
        /// What.
        news: CertificateNews,
        /// Whose, and why.
        detail: String,
    },
    /// A feed that was fetched from another relay is fetched no more: nobody has viewed it for a while.
    CascadeClosed {
        /// Which.
        key: FeedKey,
    },
    /// An expert operates by the rendezvous of a relay in another process, or is about to; or nobody does any more.
    Operated {
        /// Whether.
        operated: bool,
    },
    /// All that a relay in another process has, after signaling has connected to it.
    State(Box<RelayState>),
    /// Who speaks in a session; told when it changes, at most five times a second.
    Speaking {
        /// The session.
        session: SessionId,
        /// Feeds with a voice above the noise, the loudest first.
        feeds: Vec<FeedId>,
    },
}
