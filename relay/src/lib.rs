//! The process that owns the media sockets.
//!
//! [`Relay::start`] binds a pair of UDP sockets (WebRTC and QUIC) for each realm and worker. A worker is one pinned thread
//! that owns its sockets with its feeds and legs; each has ports of its own, so that a peer's packets always meet the worker
//! that it was given. The handle is cheap to clone and speaks to workers by commands; events come out of one bounded channel.
//! Media never passes through handle or channel, but by a ring from one worker to another where a viewer's leg is not on
//! the worker of its feed.
//!
//! A packet's way: [`worker`]'s RoQ task reads a batch of datagrams → the feed stores each packet in its ring
//! (`trocar_proto::media::feed`) → each leg returns what to send (`trocar_proto::media::leg`) → it is sealed straight into
//! the batch that leaves the socket as one segmented datagram.
//!
//! [`control`] is apart from all that: another thread, another socket, nothing shared.

pub mod control;
mod doors;
pub mod frames;
pub mod link_test;
pub mod metrics;
pub mod quic;
pub mod remote;
mod route;
mod sockets;
pub mod srtp;
pub mod uplink;
pub mod webrtc;
pub mod worker;

pub use doors::{CertificateFiles, KeepError};

use control::{Control, ControlListener};
use doors::Doors;
use metrics::Snapshot;
use quic::{Identity, QuicError};
use route::{LegChoice, Opens, Router};
use sockets::Watched;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::mpsc;
use trocar_control::process::Process;
use trocar_proto::session::admission::{
    AdmitError, FeedGrant, FeedKey, FlowBinding, LegGrant, PublicationAnswer, PublicationGrant, RelayEvent,
    VoicesGrant, WebrtcAnswer,
};
use trocar_proto::session::ids::{CertHash, LegId, PublicationId, RealmId};
use trocar_proto::session::remote::CascadeGrant;
use worker::{Bound, Command, Limits, RealmListener, Setup};

/// Events that wait for signaling. Loss policy: the worker drops the event and counts it; feed and leg states are
/// repeated when they change again, points of the time map come ten times a second.
const EVENTS: usize = 4_096;

/// How long the rendezvous may take to say its figures; they are left out then.
const CONTROL_FIGURES: std::time::Duration = std::time::Duration::from_millis(500);

/// How a relay is set up.
pub struct RelayConfig {
    /// One pair of sockets per realm and worker.
    pub listeners: Vec<RealmListener>,
    /// Threads that carry media, 1 to [`MAX_WORKERS`], of what is not in that range the nearest; [`default_workers`] is right where nothing else runs.
    pub workers: usize,
    /// Certificate, key and trust list of the QUIC listeners.
    pub identity: Identity,
    /// CPU to pin the first worker to, and the next ones for the others; none leaves it to the kernel.
    pub pin: Option<usize>,
    /// What may be open.
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

/// Workers at most.
pub const MAX_WORKERS: usize = 8;

/// One worker on one or two cores; else all cores but one, which is left to signaling and the kernel, and [`MAX_WORKERS`] at
/// most.
#[must_use]
pub fn default_workers() -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    cores.saturating_sub(1).clamp(1, MAX_WORKERS)
}

/// Where a worker's sockets of a realm are.
#[derive(Debug, Clone)]
pub struct ListenerAddresses {
    /// The realm.
    pub realm: RealmId,
    /// Number of the worker, from 0.
    pub worker: usize,
    /// WebRTC over UDP.
    pub webrtc: SocketAddr,
    /// QUIC.
    pub quic: SocketAddr,
}

/// A running relay.
#[derive(Clone)]
pub struct Relay {
    router: Router,
    control: Option<Control>,
    addresses: Vec<ListenerAddresses>,
    sockets: Arc<[Watched]>,
    doors: Arc<Doors>,
}

impl Relay {
    /// Binds the sockets and starts the workers.
    ///
    /// # Errors
    /// [`StartError`] names the socket, certificate or thread.
    pub fn start(config: RelayConfig) -> Result<(Self, mpsc::Receiver<RelayEvent>), StartError> {
        let ends = worker::connect(config.workers.clamp(1, MAX_WORKERS));
        let (events, receiver) = mpsc::channel(EVENTS);
        // What it fetches from other relays it fetches with the same certificate.
        let doors = Doors::new(quic::client_config(config.identity.duplicate())?, events.clone());
        let server = quic::server_config(config.identity)?;
        let workers = ends.len();
        let origin = Instant::now();
        let (mut addresses, mut sockets, mut ready) = (Vec::new(), Vec::new(), Vec::new());
        let uplinks: Vec<_> = config.listeners.iter().map(uplink::Uplink::of).collect();
        // All sockets before the first thread: where one cannot be had, nothing has begun.
        for (number, (cross, incoming)) in ends.into_iter().enumerate() {
            let mut bound = Vec::new();
            for (l, uplink) in config.listeners.iter().zip(&uplinks) {
                let mut b = Bound::new(l.clone(), number)?;
                b.share_uplink(uplink.clone());
                let (webrtc, quic) = b.addresses()?;
                addresses.push(ListenerAddresses { realm: l.realm.clone(), worker: number, webrtc, quic });
                let watch = |(protocol, socket)| Watched::new(socket, &l.realm, number, protocol);
                sockets.extend(b.udp().into_iter().filter_map(watch));
                bound.push(b);
            }
            let (server, limits, events) = (server.clone(), config.limits, events.clone());
            ready.push((Setup { bound, server, limits, events, cross, workers, origin }, incoming));
        }
        let control = config.control.map(|c| Control::start_with(c, Some(Arc::clone(&doors)))).transpose()?;
        let mut handles = Vec::new();
        for (number, (setup, incoming)) in ready.into_iter().enumerate() {
            handles.push(worker::spawn(config.pin.map(|cpu| cpu + number), setup, Arc::clone(&doors), incoming)?);
        }
        let router = Router::new(handles, config.limits);
        Ok((Self { router, control, addresses, sockets: sockets.into(), doors }, receiver))
    }

    /// Keeps to these files from now on, in place of what [`RelayConfig::identity`] said: new connections meet the certificate, trust
    /// and revocation lists that are there, what stands goes on, and whose certificate is taken back is out within a second. Whoever
    /// holds authority stays until its gate has ended that. Files that cannot be used leave the former in force; all of it is told
    /// by [`RelayEvent::Certificates`].
    ///
    /// # Errors
    /// [`KeepError`] names the file and what it wants.
    pub fn keep_certificates(&self, files: CertificateFiles) -> Result<(), KeepError> {
        self.doors.keep(files)
    }

    /// The files of [`Self::keep_certificates`] are read within a moment, changed or not.
    pub fn read_certificates_again(&self) {
        self.doors.look_again();
    }

    /// Where the control rendezvous listens, where there is one.
    #[must_use]
    pub fn control_address(&self) -> Option<SocketAddr> {
        self.control.as_ref().map(Control::address)
    }

    /// Where stations of other realms find it.
    #[must_use]
    pub fn control_of_realms(&self) -> &[(RealmId, SocketAddr)] {
        self.control.as_ref().map_or(&[], |c| c.others())
    }

    /// Where the sockets are.
    #[must_use]
    pub fn addresses(&self) -> &[ListenerAddresses] {
        &self.addresses
    }

    /// A publisher may send a feed; answers with its flows.
    ///
    /// # Errors
    /// [`AdmitError`].
    pub async fn open_feed(&self, grant: FeedGrant) -> Result<FlowBinding, AdmitError> {
        let home = self.router.home_of(&grant.key.session, Opens::Feeds).await?;
        home.ask(|r| Command::OpenFeed(grant, r)).await?
    }

    /// A feed ends, and its legs with it.
    pub async fn close_feed(&self, key: FeedKey) {
        self.router.ask_all(|r| Command::CloseFeed(key.clone(), r)).await;
    }

    /// Fetches a feed from other relays and sends it on as if its publisher were here. One that is fetched already is fetched
    /// from the new places from now on.
    ///
    /// # Errors
    /// [`AdmitError`].
    pub async fn open_cascade(&self, grant: CascadeGrant) -> Result<(), AdmitError> {
        let home = self.router.home_of(&grant.key.session, Opens::Feeds).await?;
        let asked = Box::new((grant, Arc::clone(&self.doors)));
        home.ask(|r| Command::OpenCascade(asked, r)).await?
    }

    /// A native viewer may fetch a feed over the connection that shows that certificate.
    ///
    /// # Errors
    /// [`AdmitError`].
    pub async fn open_roq_leg(&self, grant: LegGrant, cnf: CertHash) -> Result<FlowBinding, AdmitError> {
        let LegChoice { choice, images, .. } = self.router.place_of(&grant).await?;
        choice.ask(|r| Command::OpenRoqLeg(grant, cnf, images, r)).await?
    }

    /// A browser may fetch a feed; answers its SDP offer.
    ///
    /// # Errors
    /// [`AdmitError`].
    pub async fn open_webrtc_leg(&self, grant: LegGrant, offer: String) -> Result<WebrtcAnswer, AdmitError> {
        let LegChoice { choice, images, home } = self.router.place_of(&grant).await?;
        let (again, its_offer) = (grant.clone(), offer.clone());
        let answer = choice.ask(|r| Command::OpenWebrtcLeg(grant, offer, images, r)).await?;
        match (home, answer) {
            // Other feeds that the offer could take are known at home.
            (Some(home), Err(AdmitError::NotAcceptable { .. })) => {
                home.ask(|r| Command::OpenWebrtcLeg(again, its_offer, Vec::new(), r)).await?
            }
            (_, answer) => answer,
        }
    }

    /// A trickled SDP fragment; an ICE restart answers with our fragment and the new ICE session.
    ///
    /// # Errors
    /// [`AdmitError`].
    pub async fn patch_webrtc_leg(&self, leg: LegId, fragment: String) -> Result<Option<(String, String)>, AdmitError> {
        let make = |r| Command::PatchWebrtcLeg(leg.clone(), fragment.clone(), r);
        self.router.ask_who_knows(AdmitError::NoSuchLeg, make).await
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
        let home = self.router.home_of(&grant.session, Opens::Feeds).await?;
        home.ask(|r| Command::OpenPublication(grant, offer, r)).await?
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
        let make = |r| Command::PatchPublication(publication.clone(), fragment.clone(), r);
        self.router.ask_who_knows(AdmitError::NoSuchPublication, make).await
    }

    /// A publication ends, its feeds and their legs with it.
    pub async fn close_publication(&self, publication: PublicationId) {
        self.router.ask_all(|r| Command::ClosePublication(publication.clone(), r)).await;
    }

    /// A listener may hear the voices of a session; answers its SDP offer.
    ///
    /// # Errors
    /// [`AdmitError`].
    pub async fn open_voices(&self, grant: VoicesGrant, offer: String) -> Result<WebrtcAnswer, AdmitError> {
        let home = self.router.home_of(&grant.session, Opens::Legs).await?;
        home.ask(|r| Command::OpenVoices(grant, offer, r)).await?
    }

    /// A WebRTC leg goes on with another view or layer of its source, from that one's next key frame on; an event says when.
    ///
    /// # Errors
    /// [`AdmitError`].
    pub async fn switch_leg(&self, leg: LegId, feed: FeedKey) -> Result<(), AdmitError> {
        let images = self.router.images_of(&feed).await?;
        let make = |r| Command::SwitchLeg(leg.clone(), feed.clone(), images.clone(), r);
        self.router.ask_who_knows(AdmitError::NoSuchLeg, make).await
    }

    /// A leg ends.
    pub async fn close_leg(&self, leg: LegId) {
        self.router.ask_all(|r| Command::CloseLeg(leg.clone(), r)).await;
    }

    /// All figures now; none where a worker does not answer.
    pub async fn snapshot(&self) -> Option<Snapshot> {
        let mut snapshot = self.router.snapshot().await?;
        let sockets = Arc::clone(&self.sockets);
        // Reads files of the kernel's: not on a thread that others wait for.
        let read = move || (sockets::figures(&sockets), Process::now());
        if let Ok((figures, process)) = tokio::task::spawn_blocking(read).await {
            snapshot.workers.extend(figures);
            snapshot.process = Some(process);
        }
        snapshot.workers.extend(self.doors.figures());
        if let Some(control) = &self.control {
            // What is going on there must not hold up what is known of the media.
            snapshot.control = tokio::time::timeout(CONTROL_FIGURES, control.figures()).await.unwrap_or_default();
        }
        Some(snapshot)
    }

    /// What the control rendezvous says of the gates that are there; nothing of them where there is no rendezvous, and no answer where it is too
    /// busy to say. Asks no media worker.
    pub async fn control_figures(&self) -> Option<Vec<metrics::LegFigures>> {
        let Some(control) = &self.control else { return Some(Vec::new()) };
        tokio::time::timeout(CONTROL_FIGURES, control.figures()).await.ok()
    }

    /// Closes connections and stops the workers and the rendezvous.
    pub async fn shutdown(&self) {
        if let Some(control) = &self.control {
            control.shutdown().await;
        }
        self.router.ask_all(Command::Shutdown).await;
    }
}
