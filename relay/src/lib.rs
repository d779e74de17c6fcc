//! The process that owns the media sockets.
//!
//! [`Relay::start`] binds a pair of UDP sockets per realm (WebRTC and QUIC) and hands them to a worker, one pinned thread
//! that owns them with its feeds and legs. The handle is cheap to clone and speaks to workers by commands; events come out of
//! one bounded channel. Media never passes through handle or channel.
//!
//! A packet's way: [`worker`]'s RoQ task reads a batch of datagrams → the feed stores each packet in its ring
//! (`trocar_proto::media::feed`) → each leg returns what to send (`trocar_proto::media::leg`) → it is sealed straight into
//! the batch that leaves the socket as one segmented datagram.
//!
//! [`control`] is apart from all that: another thread, another socket, nothing shared.

pub mod control;
pub mod metrics;
pub mod quic;
pub mod srtp;
pub mod webrtc;
pub mod worker;

use control::{Control, ControlListener};
use metrics::Snapshot;
use quic::{Identity, QuicError};
use std::net::SocketAddr;
use tokio::sync::{mpsc, oneshot};
use trocar_proto::session::admission::{
    AdmitError, FeedGrant, FeedKey, FlowBinding, LegGrant, PublicationAnswer, PublicationGrant, RelayEvent,
    VoicesGrant, WebrtcAnswer,
};
use trocar_proto::session::ids::{CertHash, LegId, PublicationId, RealmId};
use worker::{Bound, Command, Limits, RealmListener, WorkerHandle};

/// Events that wait for signaling. Loss policy: the worker drops the event and counts it; feed and leg states are
/// repeated when they change again, points of the time map come ten times a second.
const EVENTS: usize = 4_096;

/// How long the rendezvous may take to say its figures; they are left out then.
const CONTROL_FIGURES: std::time::Duration = std::time::Duration::from_millis(500);

/// How a relay is set up.
pub struct RelayConfig {
    /// One pair of sockets per realm.
    pub listeners: Vec<RealmListener>,
    /// Certificate, key and trust list of the QUIC listeners.
    pub identity: Identity,
    /// CPU to pin the worker to; none leaves it to the kernel.
    pub pin: Option<usize>,
    /// Limits per worker.
    pub limits: Limits,
    /// The control rendezvous, where there is one.
    pub control: Option<ControlListener>,
}

/// Why a relay cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A socket, certificate or trust list.
    #[error(transparent)]
    Quic(#[from] QuicError),
    /// A thread, runtime or endpoint.
    #[error("worker: {0}")]
    Worker(#[from] std::io::Error),
}

/// Where a realm's sockets are.
#[derive(Debug, Clone)]
pub struct ListenerAddresses {
    /// The realm.
    pub realm: RealmId,
    /// WebRTC over UDP.
    pub webrtc: SocketAddr,
    /// QUIC.
    pub quic: SocketAddr,
}

/// A running relay.
#[derive(Clone)]
pub struct Relay {
    /// One for now; a feed lives on one worker, and everything here asks the worker of the feed.
    workers: Vec<WorkerHandle>,
    control: Option<Control>,
    addresses: Vec<ListenerAddresses>,
}

impl Relay {
    /// Binds the sockets and starts the worker.
    ///
    /// # Errors
    /// [`StartError`] names the socket, certificate or thread.
    pub fn start(config: RelayConfig) -> Result<(Self, mpsc::Receiver<RelayEvent>), StartError> {
        let (events, receiver) = mpsc::channel(EVENTS);
        let server = quic::server_config(config.identity)?;
        let mut bound = Vec::new();
        let mut addresses = Vec::new();
        for l in config.listeners {
            let realm = l.realm.clone();
            let b = Bound::new(l)?;
            let (webrtc, quic) = b.addresses()?;
            addresses.push(ListenerAddresses { realm, webrtc, quic });
            bound.push(b);
        }
        let control = config.control.map(Control::start).transpose()?;
        let worker = worker::spawn("trocar-relay-0".to_owned(), config.pin, bound, server, config.limits, events)?;
        Ok((Self { workers: vec![worker], control, addresses }, receiver))
    }

    /// Where the control rendezvous listens, where there is one.
    #[must_use]
    pub fn control_address(&self) -> Option<SocketAddr> {
        self.control.as_ref().map(Control::address)
    }

    /// Where the sockets are.
    #[must_use]
    pub fn addresses(&self) -> &[ListenerAddresses] {
        &self.addresses
    }

    async fn ask<T>(&self, make: impl FnOnce(oneshot::Sender<T>) -> Command) -> Result<T, AdmitError> {
        let worker = self.workers.first().ok_or(AdmitError::Unavailable)?;
        let (reply, answer) = oneshot::channel();
        worker.commands.send(make(reply)).await.map_err(|_| AdmitError::Unavailable)?;
        answer.await.map_err(|_| AdmitError::Unavailable)
    }

    /// A publisher may send a feed; answers with its flows.
    ///
    /// # Errors
    /// [`AdmitError`].
    pub async fn open_feed(&self, grant: FeedGrant) -> Result<FlowBinding, AdmitError> {
        self.ask(|r| Command::OpenFeed(grant, r)).await?
    }

    /// A feed ends, and its legs with it.
    pub async fn close_feed(&self, key: FeedKey) {
        let _ = self.ask(|r| Command::CloseFeed(key, r)).await;
    }

    /// A native viewer may fetch a feed over the connection that shows that certificate.
    ///
    /// # Errors
    /// [`AdmitError`].
    pub async fn open_roq_leg(&self, grant: LegGrant, cnf: CertHash) -> Result<FlowBinding, AdmitError> {
        self.ask(|r| Command::OpenRoqLeg(grant, cnf, r)).await?
    }

    /// A browser may fetch a feed; answers its SDP offer.
    ///
    /// # Errors
    /// [`AdmitError`].
    pub async fn open_webrtc_leg(&self, grant: LegGrant, offer: String) -> Result<WebrtcAnswer, AdmitError> {
        self.ask(|r| Command::OpenWebrtcLeg(grant, offer, r)).await?
    }

    /// A trickled SDP fragment; an ICE restart answers with our fragment and the new ICE session.
    ///
    /// # Errors
    /// [`AdmitError`].
    pub async fn patch_webrtc_leg(&self, leg: LegId, fragment: String) -> Result<Option<(String, String)>, AdmitError> {
        self.ask(|r| Command::PatchWebrtcLeg(leg, fragment, r)).await?
    }

    /// A browser may publish; answers its SDP offer.
    ///
    /// # Errors
    /// [`AdmitError`].
    pub async fn open_publication(
        &self,
        grant: PublicationGrant,
        offer: String,
    ) -> Result<PublicationAnswer, AdmitError> {
        self.ask(|r| Command::OpenPublication(grant, offer, r)).await?
    }

    /// A fragment of a publication, as [`Self::patch_webrtc_leg`].
    ///
    /// # Errors
    /// [`AdmitError`].
    pub async fn patch_publication(
        &self,
        publication: PublicationId,
        fragment: String,
    ) -> Result<Option<(String, String)>, AdmitError> {
        self.ask(|r| Command::PatchPublication(publication, fragment, r)).await?
    }

    /// A publication ends, its feeds and their legs with it.
    pub async fn close_publication(&self, publication: PublicationId) {
        let _ = self.ask(|r| Command::ClosePublication(publication, r)).await;
    }

    /// A listener may hear the voices of a session; answers its SDP offer.
    ///
    /// # Errors
    /// [`AdmitError`].
    pub async fn open_voices(&self, grant: VoicesGrant, offer: String) -> Result<WebrtcAnswer, AdmitError> {
        self.ask(|r| Command::OpenVoices(grant, offer, r)).await?
    }

    /// A leg ends.
    pub async fn close_leg(&self, leg: LegId) {
        let _ = self.ask(|r| Command::CloseLeg(leg, r)).await;
    }

    /// All figures now; none where the worker does not answer.
    pub async fn snapshot(&self) -> Option<Snapshot> {
        let mut snapshot = self.ask(Command::Snapshot).await.ok()?;
        if let Some(control) = &self.control {
            // What is going on there must not hold up what is known of the media.
            snapshot.control = tokio::time::timeout(CONTROL_FIGURES, control.figures()).await.unwrap_or_default();
        }
        Some(snapshot)
    }

    /// Closes connections and stops the worker and the rendezvous.
    pub async fn shutdown(&self) {
        if let Some(control) = &self.control {
            control.shutdown().await;
        }
        let _ = self.ask(Command::Shutdown).await;
    }
}
