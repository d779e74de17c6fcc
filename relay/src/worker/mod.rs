//! A worker: one pinned thread with its own sockets, QUIC endpoint, feeds and legs. Nothing of it is shared; it is
//! spoken to by commands, which are rare, and answers by events, which are rare too. What it has to do with the other
//! workers is in `cross`.

mod admission;
mod cascade;
mod control;
mod cross;
mod due;
mod egress;
mod figures;
mod grants;
mod ingress;
mod media;
mod native;
mod negotiate;
mod out;
mod paths;
mod peer;
mod peers;
mod police;
mod publish;
mod repair;
mod reports;
mod roq;
mod state;
mod stun;
mod switch;
mod tcp;
mod voices;

pub(crate) use cross::{Cross, Image, Incoming, Standing, connect};
pub use state::Limits;
pub(crate) use state::wall_now;

use crate::doors::{Door, Doors};
use crate::metrics::WorkerSnapshot;
use crate::quic::{self, QuicError};
use crate::uplink::Uplink;
use crate::webrtc::remote::Remote;
use crate::webrtc::transport::dtls_certificate;
use egress::{Batch, Socket};
use state::{Core, Listener, SCRATCH, Touched, WorkerCounters};
use std::cell::RefCell;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};
use tokio::task::LocalSet;
use trocar_proto::media::roq::error_code;
use trocar_proto::session::admission::{
    AdmitError, FeedGrant, FeedKey, FlowBinding, LegGrant, PublicationAnswer, PublicationGrant, RelayEvent,
    VoicesGrant, WebrtcAnswer,
};
use trocar_proto::session::ids::{CertHash, LegId, PublicationId, RealmId, SessionId};
use trocar_proto::session::remote::CascadeGrant;
use trocar_proto::units::Bitrate;

/// Everything by the clock runs this often.
const TICK: Duration = Duration::from_millis(20);
/// Commands that wait for the worker. Loss policy: the asker waits.
const COMMANDS: usize = 256;

/// What signaling may ask of a worker. Feeds that a leg needs and that live on another worker come with it.
pub(crate) enum Command {
    /// How the worker stands towards a session and these feeds.
    Stand(SessionId, Vec<FeedKey>, oneshot::Sender<Standing>),
    OpenFeed(FeedGrant, oneshot::Sender<Result<FlowBinding, AdmitError>>),
    CloseFeed(FeedKey, oneshot::Sender<()>),
    /// Fetches a feed from other relays, with the certificate that is in force there.
    OpenCascade(Box<(CascadeGrant, Arc<Doors>)>, oneshot::Sender<Result<(), AdmitError>>),
    OpenRoqLeg(LegGrant, CertHash, Vec<Image>, oneshot::Sender<Result<FlowBinding, AdmitError>>),
    OpenWebrtcLeg(LegGrant, String, Vec<Image>, oneshot::Sender<Result<WebrtcAnswer, AdmitError>>),
    PatchWebrtcLeg(LegId, String, oneshot::Sender<Result<Option<(String, String)>, AdmitError>>),
    OpenPublication(PublicationGrant, String, oneshot::Sender<Result<PublicationAnswer, AdmitError>>),
    PatchPublication(PublicationId, String, oneshot::Sender<Result<Option<(String, String)>, AdmitError>>),
    ClosePublication(PublicationId, oneshot::Sender<()>),
    OpenVoices(VoicesGrant, String, oneshot::Sender<Result<WebrtcAnswer, AdmitError>>),
    SwitchLeg(LegId, FeedKey, Vec<Image>, oneshot::Sender<Result<(), AdmitError>>),
    CloseLeg(LegId, oneshot::Sender<()>),
    Snapshot(oneshot::Sender<WorkerSnapshot>),
    Shutdown(oneshot::Sender<()>),
}

/// One realm's addresses.
#[derive(Debug, Clone)]
pub struct RealmListener {
    /// The realm.
    pub realm: RealmId,
    /// UDP and TCP address for WebRTC of the first worker, and the next port for each other one; port 0 takes ports that are
    /// free for both.
    pub webrtc: SocketAddr,
    /// UDP address for QUIC of the first worker, and the next port for each other one; port 0 takes free ones.
    pub quic: SocketAddr,
    /// Addresses that clients of this realm reach us at; where empty, the bound address, which then must not be a wildcard.
    pub advertise: Vec<IpAddr>,
    /// TLS server name of the QUIC listener.
    pub server_name: String,
    /// What the line towards this realm's viewers takes; legs that do not fit are refused. None: not counted.
    pub uplink: Option<Bitrate>,
}

/// A realm's sockets of one worker, bound but not served.
pub(crate) struct Bound {
    config: RealmListener,
    uplink: Option<Arc<Uplink>>,
    webrtc: UdpSocket,
    webrtc_tcp: std::net::TcpListener,
    quic: UdpSocket,
}

impl Bound {
    /// The sockets of worker `number`.
    ///
    /// # Errors
    /// [`QuicError::Socket`] with the address.
    pub(crate) fn new(config: RealmListener, number: usize) -> Result<Self, QuicError> {
        let (webrtc, webrtc_tcp) = bind_both(port_of(config.webrtc, number)?)?;
        let quic = quic::bind_udp(port_of(config.quic, number)?)?;
        let uplink = Uplink::of(&config);
        Ok(Self { config, uplink, webrtc, webrtc_tcp, quic })
    }

    /// The realm's line is one with that of other workers.
    pub(crate) fn share_uplink(&mut self, uplink: Option<Arc<Uplink>>) {
        self.uplink = uplink;
    }

    /// The UDP sockets, by protocol.
    pub(crate) const fn udp(&self) -> [(&'static str, &UdpSocket); 2] {
        [("webrtc", &self.webrtc), ("quic", &self.quic)]
    }

    pub(crate) fn addresses(&self) -> std::io::Result<(SocketAddr, SocketAddr)> {
        Ok((self.webrtc.local_addr()?, self.quic.local_addr()?))
    }

    fn advertised(&self) -> std::io::Result<Vec<IpAddr>> {
        let bound = self.webrtc.local_addr()?.ip();
        if !self.config.advertise.is_empty() {
            return Ok(self.config.advertise.clone());
        }
        if bound.is_unspecified() {
            return Err(std::io::Error::other("a listener on a wildcard address needs `advertise`"));
        }
        Ok(vec![bound])
    }
}

/// The address of a worker: each has the port after the one before.
fn port_of(first: SocketAddr, number: usize) -> Result<SocketAddr, QuicError> {
    if first.port() == 0 {
        return Ok(first);
    }
    let port = u16::try_from(number).ok().and_then(|n| first.port().checked_add(n));
    let above =
        || std::io::Error::other(format!("worker {number} would need a port above 65535: a lower one is right"));
    let port = port.ok_or_else(|| QuicError::Socket(first, above()))?;
    Ok(SocketAddr::new(first.ip(), port))
}

/// The same port by UDP and by TCP: a firewall then needs one rule. Where a free one is to be taken, one that is free for
/// both is looked for.
fn bind_both(address: SocketAddr) -> Result<(UdpSocket, std::net::TcpListener), QuicError> {
    const TRIES: usize = 16;
    let mut failed = None;
    for _ in 0..TRIES {
        let udp = quic::bind_udp(address)?;
        let same = udp.local_addr().map_err(|e| QuicError::Socket(address, e))?;
        match std::net::TcpListener::bind(same).and_then(|t| t.set_nonblocking(true).map(|()| t)) {
            Ok(tcp) => return Ok((udp, tcp)),
            Err(e) => failed = Some(e),
        }
        if address.port() != 0 {
            break;
        }
    }
    Err(QuicError::Socket(address, failed.unwrap_or_else(|| std::io::ErrorKind::AddrInUse.into())))
}

/// The asker's end of a worker.
#[derive(Clone)]
pub(crate) struct WorkerHandle {
    pub(crate) commands: mpsc::Sender<Command>,
}

/// What a worker starts with.
pub(crate) struct Setup {
    pub(crate) bound: Vec<Bound>,
    pub(crate) server: quinn::ServerConfig,
    pub(crate) limits: Limits,
    pub(crate) events: mpsc::Sender<RelayEvent>,
    /// The ways to the other workers.
    pub(crate) cross: Cross,
    /// How many workers there are.
    pub(crate) workers: usize,
    /// The moment that all workers count time from.
    pub(crate) origin: Instant,
}

/// Starts a worker on a thread of its own, pinned to `cpu` where one is given.
///
/// # Errors
/// Where the thread, its runtime or an endpoint cannot be made.
pub(crate) fn spawn(
    cpu: Option<usize>,
    setup: Setup,
    doors: Arc<Doors>,
    incoming: Incoming,
) -> std::io::Result<WorkerHandle> {
    let (commands, receiver) = mpsc::channel(COMMANDS);
    let name = format!("trocar-relay-{}", setup.cross.me);
    let (started, start) = std::sync::mpsc::sync_channel(1);
    std::thread::Builder::new().name(name).spawn(move || {
        if let Some(id) = cpu {
            core_affinity::set_for_current(core_affinity::CoreId { id });
        }
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(r) => r,
            Err(e) => return drop(started.send(Err(e))),
        };
        let set = LocalSet::new();
        set.block_on(&runtime, async move {
            match prepare(setup) {
                Ok((core, endpoints)) => {
                    endpoints.iter().for_each(|(endpoint, realm)| doors.add(Door::Media, realm, endpoint.clone()));
                    let _ = started.send(Ok(()));
                    run(core, endpoints, doors, receiver, incoming).await;
                }
                Err(e) => drop(started.send(Err(e))),
            }
        });
    })?;
    start.recv().map_err(|_| std::io::Error::other("the worker thread ended at its start"))??;
    Ok(WorkerHandle { commands })
}

type Prepared = (Rc<RefCell<Core>>, Vec<(quinn::Endpoint, RealmId)>);

fn prepare(setup: Setup) -> std::io::Result<Prepared> {
    let Setup { bound, server, limits, events, cross, workers, origin } = setup;
    let certificate = dtls_certificate().map_err(std::io::Error::other)?;
    let fingerprint = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &certificate.certificate).as_ref().to_vec();
    let dtls = dimpl::Config::builder()
        .use_server_cookie(false)
        .handshake_timeout(crate::webrtc::transport::HANDSHAKE_TIMEOUT)
        .build()
        .map_err(std::io::Error::other)?;
    let mut listeners = Vec::new();
    let mut endpoints = Vec::new();
    for b in bound {
        let advertised = b.advertised()?;
        let (webrtc, quic) = b.addresses()?;
        let host = advertised.first().copied().unwrap_or(quic.ip());
        listeners.push(Listener {
            realm: b.config.realm.clone(),
            webrtc: Rc::new(Socket::new(b.webrtc)?),
            candidates: candidates(&advertised, webrtc.port()),
            webrtc_tcp: Some(b.webrtc_tcp),
            quic_address: SocketAddr::new(host, quic.port()).to_string(),
            quic_alternates: advertised
                .iter()
                .skip(1)
                .map(|ip| SocketAddr::new(*ip, quic.port()).to_string())
                .collect(),
            server_name: b.config.server_name,
            uplink: b.uplink,
        });
        let runtime = Arc::new(quinn::TokioRuntime);
        let endpoint = quinn::Endpoint::new(quinn::EndpointConfig::default(), Some(server.clone()), b.quic, runtime)?;
        endpoints.push((endpoint, b.config.realm));
    }
    let core = Core {
        listeners,
        feeds: slab::Slab::new(),
        legs: slab::Slab::new(),
        feed_by_key: HashMap::new(),
        leg_by_id: HashMap::new(),
        peers: slab::Slab::new(),
        publications: HashMap::new(),
        peer_by_ufrag: HashMap::new(),
        peer_by_address: HashMap::new(),
        tcp_out: HashMap::new(),
        voices: std::collections::BTreeMap::new(),
        cascades: cascade::Cascades::default(),
        flows: HashMap::new(),
        // Flow 0 is given to nobody: foreign multiplexers take ids from 1 on.
        next_flow: 2 * (cross.me + workers.max(1)) as u64,
        flow_step: 2 * workers.max(1) as u64,
        connection_count: 0,
        granted_at: trocar_proto::units::Micros(0),
        dtls: Arc::new(dtls),
        certificate,
        fingerprint,
        batch: Batch::new(),
        touched: Touched::new(),
        scratch: Box::new([0; SCRATCH]),
        events,
        untold: std::collections::VecDeque::new(),
        switching: Vec::new(),
        counters: WorkerCounters::default(),
        limits,
        cross,
        origin,
        paced: Vec::with_capacity(limits.max_legs),
        paced_before: Vec::with_capacity(limits.max_legs),
        wake_at: None,
        woken: Rc::new(tokio::sync::Notify::new()),
    };
    Ok((Rc::new(RefCell::new(core)), endpoints))
}

/// UDP first: it is what media is for.
fn candidates(advertised: &[IpAddr], port: u16) -> Vec<Remote> {
    let at = |ip: &IpAddr| SocketAddr::new(*ip, port);
    let udp = advertised.iter().map(at).map(Remote::udp);
    udp.chain(advertised.iter().map(at).map(Remote::tcp)).collect()
}

/// The worker's loop. In this order: messages of other workers, commands, then what is due by the clock; sockets have tasks of their own on this
/// thread and get their turn in between.
async fn run(
    core: Rc<RefCell<Core>>,
    endpoints: Vec<(quinn::Endpoint, RealmId)>,
    doors: Arc<Doors>,
    mut commands: mpsc::Receiver<Command>,
    incoming: Incoming,
) {
    let Incoming { mut messages, crossings } = incoming;
    tokio::task::spawn_local(cross::read_crossings(Rc::clone(&core), crossings));
    let sockets: Vec<Rc<Socket>> = core.borrow().listeners.iter().map(|l| Rc::clone(&l.webrtc)).collect();
    for (listener, socket) in sockets.into_iter().enumerate() {
        let core = Rc::clone(&core);
        tokio::task::spawn_local(async move {
            if let Err(error) = peers::read_socket(core, listener, socket).await {
                tracing::error!(%error, listener, "the WebRTC socket cannot be read any more");
            }
        });
    }
    let passive: Vec<_> = core.borrow_mut().listeners.iter_mut().map(|l| l.webrtc_tcp.take()).collect();
    for (listener, socket) in passive.into_iter().enumerate().filter_map(|(i, s)| Some((i, s?))) {
        match tokio::net::TcpListener::from_std(socket) {
            Ok(socket) => drop(tokio::task::spawn_local(tcp::accept(Rc::clone(&core), listener, socket))),
            Err(error) => tracing::error!(%error, listener, "ICE-TCP is not served"),
        }
    }
    for (endpoint, realm) in &endpoints {
        tokio::task::spawn_local(roq::accept(Rc::clone(&core), endpoint.clone(), realm.clone(), Arc::clone(&doors)));
    }
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let woken = Rc::clone(&core.borrow().woken);
    loop {
        let due = core.borrow().wake_at;
        tokio::select! {
            biased;
            Some(message) = messages.recv() => core.borrow_mut().handle_message(message, Instant::now()),
            command = commands.recv() => match command {
                Some(Command::Shutdown(done)) => {
                    close(&endpoints).await;
                    let _ = done.send(());
                    return;
                }
                Some(Command::OpenCascade(asked, reply)) => {
                    let (grant, doors) = *asked;
                    let _ = reply.send(cascade::open(&core, grant, &doors, Instant::now()));
                }
                Some(c) => core.borrow_mut().handle_command(c, Instant::now()),
                None => return close(&endpoints).await,
            },
            _ = tick.tick() => core.borrow_mut().tick(Instant::now()),
            () = until(due) => core.borrow_mut().due(Instant::now()),
            // Somebody waits for an earlier moment than the one above.
            () = woken.notified() => {}
        }
    }
}

/// For ever, where nothing is due.
async fn until(due: Option<Instant>) {
    match due {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

async fn close(endpoints: &[(quinn::Endpoint, RealmId)]) {
    for (endpoint, _) in endpoints {
        endpoint.close(error_code::NO_ERROR.into(), b"the relay stops");
    }
    for (endpoint, _) in endpoints {
        let _ = tokio::time::timeout(Duration::from_millis(500), endpoint.wait_idle()).await;
    }
}

impl Core {
    /// Carries a command out. An asker that has gone away is not told.
    fn handle_command(&mut self, command: Command, now: Instant) {
        match command {
            Command::Stand(session, feeds, reply) => drop(reply.send(self.standing(&session, &feeds))),
            Command::OpenFeed(grant, reply) => drop(reply.send(self.open_feed(grant))),
            Command::CloseFeed(key, reply) => {
                self.close_feed(&key);
                let _ = reply.send(());
            }
            Command::OpenRoqLeg(grant, cnf, feeds, reply) => {
                self.admit_mirrors(feeds);
                let _ = reply.send(self.open_roq_leg(grant, cnf, now));
            }
            Command::OpenWebrtcLeg(grant, offer, feeds, reply) => {
                self.admit_mirrors(feeds);
                let _ = reply.send(self.open_webrtc_leg(grant, &offer, now));
            }
            Command::PatchWebrtcLeg(leg, fragment, reply) => {
                let _ = reply.send(self.patch_webrtc_leg(&leg, &fragment, now));
            }
            Command::OpenPublication(grant, offer, reply) => {
                let _ = reply.send(self.open_publication(grant, &offer, now));
            }
            Command::PatchPublication(publication, fragment, reply) => {
                let _ = reply.send(self.patch_publication(&publication, &fragment, now));
            }
            Command::ClosePublication(publication, reply) => {
                if let Some(peer) = self.publications.get(&publication).copied() {
                    self.drop_peer(peer);
                }
                let _ = reply.send(());
            }
            Command::OpenVoices(grant, offer, reply) => drop(reply.send(self.open_voices(grant, &offer, now))),
            Command::SwitchLeg(leg, feed, images, reply) => {
                let _ = reply.send(self.switch_leg(&leg, &feed, images, now));
            }
            Command::CloseLeg(leg, reply) => {
                self.close_leg(&leg);
                let _ = reply.send(());
            }
            Command::Snapshot(reply) => drop(reply.send(self.snapshot())),
            // Both are seen to by the worker's loop.
            Command::OpenCascade(_, reply) => drop(reply.send(Err(AdmitError::Unavailable))),
            Command::Shutdown(reply) => drop(reply.send(())),
        }
    }
}

#[cfg(test)]
mod tests;
