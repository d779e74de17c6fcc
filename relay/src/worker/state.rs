//! What a worker owns: feeds, legs, peers. Everything here belongs to one thread; nothing is shared.

use super::cascade::Cascades;
use super::cross::{Cross, MirrorOut};
use super::egress::{Batch, Flushed, Socket};
use super::native::RoqWay;
use super::paths::Paths;
use super::peer::{Peer, WebrtcWay};
use super::police::{FeedPolice, RtcpPolice};
use super::switch::Switching;
use super::tcp::TcpOut;
use super::voices::SessionVoices;
use crate::metrics::DelayHistogram;
use crate::uplink::Uplink;
use crate::webrtc::remote::Remote;
use slab::Slab;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::mpsc;
use trocar_proto::media::fec::receive::RepairReceiver;
use trocar_proto::media::fec::send::RepairSender;
use trocar_proto::media::feed::Feed;
use trocar_proto::media::ingest::Ingest;
use trocar_proto::media::leg::Leg;
use trocar_proto::media::lipsync::SourceClock;
use trocar_proto::media::rate::Pacer;
use trocar_proto::session::admission::{FeedKey, RelayEvent};
use trocar_proto::session::api::FeedState;
use trocar_proto::session::event::LegState;
use trocar_proto::session::feed::FeedDescriptor;
use trocar_proto::session::ids::{CertHash, LegId, ParticipantId, PublicationId, RealmId, SessionId};
use trocar_proto::units::{FlowId, Micros, Ssrc, WallMicros};

/// One realm's sockets on this worker.
pub(crate) struct Listener {
    pub(crate) realm: RealmId,
    pub(crate) webrtc: Rc<Socket>,
    /// Taken by the task that accepts.
    pub(crate) webrtc_tcp: Option<std::net::TcpListener>,
    /// Where peers reach us: candidates for SDP.
    pub(crate) candidates: Vec<Remote>,
    /// `host:port` for native clients, the usual one and others.
    pub(crate) quic_address: String,
    pub(crate) quic_alternates: Vec<String>,
    pub(crate) server_name: String,
    /// What its viewers' legs share, where that is counted.
    pub(crate) uplink: Option<Arc<Uplink>>,
}

/// A feed and what hangs on it.
pub(crate) struct FeedEntry {
    pub(crate) key: FeedKey,
    pub(crate) descriptor: FeedDescriptor,
    pub(crate) feed: Feed,
    pub(crate) legs: Vec<usize>,
    /// The same feed on other workers.
    pub(crate) mirrors: Vec<MirrorOut>,
    pub(crate) publisher: ParticipantId,
    pub(crate) origin: Origin,
    /// Reads codec headers and adds the extensions of the house, where the publisher does not.
    pub(crate) ingest: Option<Ingest>,
    /// Id of the audio level extension; 0 where there is none.
    pub(crate) level_id: u8,
    pub(crate) state: FeedState,
    pub(crate) delay: DelayHistogram,
    pub(crate) last_sr: Option<(u32, Micros)>,
    /// What the publisher's sender reports say about its clocks.
    pub(crate) clock: SourceClock,
    pub(crate) last_report: Micros,
    /// Last packet of the newest frame of which the last packet came last.
    pub(crate) frame_end: Option<u64>,
    /// When viewers were last told of a change of the descriptor.
    pub(crate) last_news: Micros,
    pub(crate) reported: ReportedLoss,
    pub(crate) receiver_ssrc: Ssrc,
    /// What is above its grant is dropped.
    pub(crate) police: FeedPolice,
    /// Of what comes in by datagrams.
    pub(crate) repair: Option<Box<RepairReceiver>>,
}

/// Where a feed comes from.
pub(crate) enum Origin {
    /// RTP over QUIC, on these flows.
    Roq {
        rtp_flow: FlowId,
        rtcp_flow: FlowId,
        /// The connections that bring it; where key-frame requests go.
        paths: Box<Paths>,
    },
    /// A track of a WebRTC peer.
    Webrtc {
        peer: usize,
        /// SSRC of the media, once a packet came.
        media: Option<Ssrc>,
    },
    /// Another worker, where the feed lives ([`super::cross`]).
    Mirror { home: usize, serial: u32 },
}

impl Origin {
    /// Whether there is anybody to ask upstream.
    pub(crate) fn is_connected(&self) -> bool {
        match self {
            Self::Roq { paths, .. } => paths.connection().is_some(),
            Self::Webrtc { media, .. } => media.is_some(),
            Self::Mirror { .. } => true,
        }
    }

    /// Whether it is the mirror of that number.
    pub(crate) const fn is_mirror(&self, number: u32) -> bool {
        matches!(self, Self::Mirror { serial, .. } if *serial == number)
    }
}

/// What the last receiver report said, for the share lost since.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct ReportedLoss {
    pub(crate) packets: u64,
    pub(crate) missing: u64,
}

/// A leg and its way out.
pub(crate) struct LegEntry {
    pub(crate) id: LegId,
    /// None for a voice's place that is silent.
    pub(crate) feed: Option<usize>,
    pub(crate) leg: Leg,
    pub(crate) way: Way,
    pub(crate) state: LegState,
    pub(crate) sent: LegSent,
    pub(crate) viewer: ViewerReport,
    pub(crate) last_sr: Micros,
    pub(crate) last_point: Micros,
    /// When its transport was last seen to be missing; a leg that nobody fetches is dropped.
    pub(crate) unconnected_since: Micros,
    /// The pace of what came before it joined.
    pub(crate) catch_up: Pacer,
    /// When it may go on, where it waits for its pace.
    pub(crate) due: Option<Micros>,
    /// It is in [`Core::paced`].
    pub(crate) listed: bool,
    /// Of a native leg that leaves by datagrams.
    pub(crate) repair: Option<Box<RepairSender>>,
    /// How much RTCP of a native viewer is looked at; that of others is bounded by their peer.
    pub(crate) rtcp: RtcpPolice,
}

/// What became of a leg's packets at the socket.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct LegSent {
    pub(crate) packets: u64,
    pub(crate) dropped: u64,
    pub(crate) too_large: u64,
    /// NACKed packets that the repair budget did not allow.
    pub(crate) unrepaired: u64,
    /// Of the packets, those that are redundancy for a browser.
    pub(crate) fec: u64,
}

impl LegSent {
    /// A flush of packets that went for the first time.
    pub(crate) const fn note(&mut self, f: Flushed) {
        self.packets += f.sent;
        self.dropped += f.dropped;
    }

    /// A flush of repeats: what went is counted by the leg.
    pub(crate) const fn note_repeats(&mut self, f: Flushed) {
        self.dropped += f.dropped;
    }
}

/// What the viewer last reported.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct ViewerReport {
    pub(crate) fraction_lost: u8,
    pub(crate) cumulative_lost: i32,
    pub(crate) jitter: u32,
    pub(crate) round_trip_us: Option<u64>,
}

impl LegEntry {
    pub(crate) fn new(id: LegId, feed: Option<usize>, leg: Leg, way: Way, at: Micros) -> Self {
        Self {
            id,
            feed,
            leg,
            way,
            state: LegState::Connecting,
            sent: LegSent::default(),
            viewer: ViewerReport::default(),
            last_sr: at,
            last_point: Micros(0),
            unconnected_since: at,
            catch_up: Pacer::new(),
            due: None,
            listed: false,
            repair: None,
            rtcp: RtcpPolice::new(at),
        }
    }

    /// What hangs on the SSRCs that a peer knows the leg by.
    pub(crate) fn webrtc(&self) -> Option<&WebrtcWay> {
        match &self.way {
            Way::Webrtc(w) => Some(w),
            Way::Roq(_) => None,
        }
    }
}

/// What signaling's name of a leg stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Resource {
    /// A native viewer's leg.
    Leg(usize),
    /// A WebRTC connection with all that leaves by it.
    Peer(usize),
}

/// How a leg leaves.
#[allow(
    clippy::large_enum_variant,
    reason = "a leg in its slab: a box would be one more thing to follow on a packet's way"
)]
pub(crate) enum Way {
    Webrtc(Box<WebrtcWay>),
    Roq(RoqWay),
}

/// What a RoQ flow leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flow {
    FeedRtp(usize),
    FeedRtcp(usize),
    LegRtcp(usize),
}

/// Counters of a worker that belong to no feed or leg.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct WorkerCounters {
    /// Datagrams from addresses that no peer has validated.
    pub(crate) unknown_source: u64,
    /// STUN that was not authentic or for nobody.
    pub(crate) stun_refused: u64,
    /// SRTP or SRTCP that did not authenticate, was replayed or was malformed.
    pub(crate) srtp_refused: u64,
    /// RTCP packets of peers and native viewers beyond what is looked at.
    pub(crate) rtcp_dropped: u64,
    /// RoQ datagrams for flows that the connection's certificate is not bound to.
    pub(crate) unknown_flow: u64,
    /// Events for signaling that found its queue full.
    pub(crate) events_dropped: u64,
}

/// Limits of a relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Feeds at most; the mirrors that workers have of each other's feeds are not counted.
    pub max_feeds: usize,
    /// Legs at most.
    pub max_legs: usize,
    /// QUIC connections at most, of each worker.
    pub max_connections: usize,
    /// QUIC handshakes under way above which a client must first prove its address (RFC 9000 section 8.1.2), and that there may
    /// be beyond the connections: what they cost is paid on the media thread.
    pub handshakes: usize,
    /// A QUIC handshake that takes longer is given up.
    pub handshake_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_feeds: 64,
            max_legs: 1_024,
            max_connections: 1_024,
            handshakes: 64,
            handshake_timeout: Duration::from_secs(5),
        }
    }
}

/// A feed can be touched by each datagram of a read.
pub(crate) const MAX_TOUCHED: usize = 16;

/// Different feeds that a read has touched. Bounded: what would be one too many is sent on before.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Touched([usize; MAX_TOUCHED]);

impl Touched {
    const NONE: usize = usize::MAX;

    pub(crate) const fn new() -> Self {
        Self([Self::NONE; MAX_TOUCHED])
    }

    /// Notes a feed; false where there is no room for another one.
    pub(crate) fn note(&mut self, feed: usize) -> bool {
        let slot = self.0.iter_mut().find(|t| **t == feed || **t == Self::NONE);
        slot.map(|s| *s = feed).is_some()
    }

    /// Gives out what was noted and forgets it.
    pub(crate) const fn take(&mut self) -> Self {
        std::mem::replace(self, Self::new())
    }

    /// What was noted, in that order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = usize> {
        self.0.iter().copied().take_while(|t| *t != Self::NONE)
    }
}

/// Bytes of a packet at most.
pub(crate) const SCRATCH: usize = 2_048;

/// Everything a worker owns.
pub(crate) struct Core {
    pub(crate) listeners: Vec<Listener>,
    pub(crate) feeds: Slab<FeedEntry>,
    pub(crate) legs: Slab<LegEntry>,
    pub(crate) peers: Slab<Peer>,
    pub(crate) feed_by_key: HashMap<FeedKey, usize>,
    pub(crate) leg_by_id: HashMap<LegId, Resource>,
    pub(crate) publications: HashMap<PublicationId, usize>,
    /// (listener, our user fragment) → peer.
    pub(crate) peer_by_ufrag: HashMap<(usize, String), usize>,
    /// (listener, validated address) → peer.
    pub(crate) peer_by_address: HashMap<(usize, Remote), usize>,
    /// (listener, address) → the TCP connection that came from there.
    pub(crate) tcp_out: HashMap<(usize, SocketAddr), Rc<TcpOut>>,
    /// Who speaks and who listens, by session.
    pub(crate) voices: BTreeMap<SessionId, SessionVoices>,
    /// Feeds that are fetched from other relays.
    pub(crate) cascades: Cascades,
    pub(crate) flows: HashMap<FlowId, (CertHash, Flow)>,
    pub(crate) next_flow: u64,
    /// Two for each worker, so that no two workers give out the same flow id.
    pub(crate) flow_step: u64,
    pub(crate) connection_count: usize,
    /// When connections were told their grants last.
    pub(crate) granted_at: Micros,
    pub(crate) dtls: Arc<dimpl::Config>,
    pub(crate) certificate: dimpl::DtlsCertificate,
    pub(crate) fingerprint: Vec<u8>,
    pub(crate) batch: Batch,
    /// Feeds that got packets in the read under way, which have not been sent on yet.
    pub(crate) touched: Touched,
    /// Where a packet is rewritten before a feed stores it.
    pub(crate) scratch: Box<[u8; SCRATCH]>,
    pub(crate) events: mpsc::Sender<RelayEvent>,
    /// States that signaling has not been told because its queue was full, oldest first; told at the next tick.
    pub(crate) untold: VecDeque<RelayEvent>,
    /// Legs that are to carry another feed from its next key frame on; one entry for each at most.
    pub(crate) switching: Vec<Switching>,
    pub(crate) counters: WorkerCounters,
    pub(crate) limits: Limits,
    /// The ways to the other workers.
    pub(crate) cross: Cross,
    /// The moment that all workers count time from.
    pub(crate) origin: Instant,
    /// Legs that wait for their pace, and the list before this one, whose memory is used again.
    pub(crate) paced: Vec<usize>,
    pub(crate) paced_before: Vec<usize>,
    /// When the worker looks again, before its next tick ([`super::due`]).
    pub(crate) wake_at: Option<Instant>,
    /// Rings when that was brought forward.
    pub(crate) woken: Rc<tokio::sync::Notify>,
}

impl Core {
    /// Microseconds since the relay began.
    pub(crate) fn micros(&self, now: Instant) -> Micros {
        Micros(u64::try_from(now.saturating_duration_since(self.origin).as_micros()).unwrap_or(u64::MAX))
    }

    /// The wall clock's time of a moment of the worker's clock, given both clocks now.
    pub(crate) fn wall_at(&self, at: Micros, now: Instant) -> WallMicros {
        let ago = self.micros(now).since(at);
        WallMicros(wall_now().0.saturating_sub(ago))
    }

    /// Tells signaling. Points of the time map are dropped from half of its queue on (another comes in 100 ms); a state is
    /// kept and told later, in order. Loss policy beyond [`MAX_UNTOLD`]: the oldest state is dropped and counted.
    pub(crate) fn tell(&mut self, event: RelayEvent) {
        if let RelayEvent::Descriptor { key, descriptor } = &event {
            self.describe_to_mirrors(key, descriptor);
        }
        if matches!(event, RelayEvent::Capture { .. }) {
            if self.events.capacity() < self.events.max_capacity() / 2 || self.events.try_send(event).is_err() {
                self.counters.events_dropped += 1;
            }
            return;
        }
        if self.untold.len() >= MAX_UNTOLD {
            self.untold.pop_front();
            self.counters.events_dropped += 1;
        }
        self.untold.push_back(event);
        self.tell_untold();
    }

    /// Tells what could not be told before.
    pub(crate) fn tell_untold(&mut self) {
        while let Ok(permit) = self.events.try_reserve() {
            let Some(event) = self.untold.pop_front() else { return };
            permit.send(event);
        }
    }
}

/// States that wait to be told at most.
const MAX_UNTOLD: usize = 8_192;

/// The wall clock.
pub(crate) fn wall_now() -> WallMicros {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    WallMicros(u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
}

/// Random bits from the cryptographic library, for SSRCs and first sequence numbers.
pub(crate) fn random_u32() -> u32 {
    let mut b = [0; 4];
    // A failing system source leaves zeros: an SSRC of 0 is legal, and secrets are never drawn here.
    let _ = aws_lc_rs::rand::fill(&mut b);
    u32::from_be_bytes(b)
}
