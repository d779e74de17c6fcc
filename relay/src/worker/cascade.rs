//! Feeds whose publisher sends to another relay. This relay fetches one copy over a QUIC connection of its own, as a native
//! viewer does, and from there on it is a feed like any other: packets enter it bit for bit, requests and reports go back to
//! where they came from. With two relays upstream the copies are merged by number.
//!
//! A feed that nobody views for [`IDLE_US`] is fetched no more; signaling is told, and asks again when somebody comes. A lost
//! connection is made again for as long as somebody views.

use super::repair;
use super::state::{Core, Flow, Origin};
use crate::doors::{Door, Doors};
use crate::frames::read_datagrams;
use crate::quic;
use bytes::Bytes;
use rustls::pki_types::CertificateDer;
use std::cell::RefCell;
use std::collections::HashMap;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::AbortHandle;
use tokio::time::{interval, sleep, timeout};
use trocar_control::trust::cert_name;
use trocar_proto::media::ext::AUDIO_LEVEL_URI;
use trocar_proto::media::roq::{self, FlowPrefix, StreamReader, error_code};
use trocar_proto::media::rtcp::Builder;
use trocar_proto::session::admission::{AdmitError, FeedKey, FlowBinding, RelayEvent};
use trocar_proto::session::ids::CertHash;
use trocar_proto::session::remote::{CascadeGrant, MAX_UPSTREAM};
use trocar_proto::units::{FlowId, Micros, Ssrc};

/// A feed that nobody views is fetched no more after this long, in microseconds.
const IDLE_US: u64 = 10_000_000;
/// Longest wait for the other relay.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// First and longest pause between attempts.
const PAUSES: [Duration; 2] = [Duration::from_millis(50), Duration::from_millis(500)];
/// How often the other relay is told where the packets are to go, until they come.
const ASK_EVERY: Duration = Duration::from_millis(500);
/// Bytes taken from a stream at a time.
const STREAM_CHUNK: usize = 16 * 1_024;
/// A stream that brings nothing for this long is given up.
const STREAM_SILENCE: Duration = Duration::from_secs(2);
/// The owner of flows that no connection from outside may use: no certificate has this hash.
const NOBODY: CertHash = CertHash([0; 32]);

/// What a worker fetches from other relays, by feed.
#[derive(Default)]
pub(crate) struct Cascades {
    of: HashMap<usize, Cascade>,
    /// RTCP flow at the other relay, by connection.
    rtcp: HashMap<usize, FlowId>,
}

struct Cascade {
    key: FeedKey,
    flows: (FlowId, FlowId),
    /// Since when nobody views it.
    idle: Option<Micros>,
    /// From where, and the task that does it.
    fetching: Vec<(FlowBinding, AbortHandle)>,
}

impl Drop for Cascade {
    fn drop(&mut self) {
        self.fetching.iter().for_each(|(_, task)| task.abort());
    }
}

impl Cascades {
    /// The feed of that place is no more.
    pub(super) fn forget(&mut self, feed: usize) {
        self.of.remove(&feed);
    }

    /// Ends what is fetched from other places than these; which of them are left.
    fn keep(&mut self, feed: usize, places: &[FlowBinding]) -> Vec<FlowBinding> {
        let Some(cascade) = self.of.get_mut(&feed) else { return Vec::new() };
        cascade.fetching.retain(|(from, task)| {
            let stays = places.contains(from);
            if !stays {
                task.abort();
            }
            stays
        });
        cascade.fetching.iter().map(|(from, _)| from.clone()).collect()
    }

    /// The RTCP flow towards the other end of a connection, where that is a relay that a feed is fetched from.
    pub(super) fn rtcp_flow(&self, connection: &quinn::Connection) -> Option<FlowId> {
        self.rtcp.get(&connection.stable_id()).copied()
    }
}

/// Fetches a feed. One that is fetched already is fetched from these places from now on; what goes on from one
/// of them goes on undisturbed.
pub(super) fn open(
    core: &Rc<RefCell<Core>>,
    grant: CascadeGrant,
    doors: &Arc<Doors>,
    now: Instant,
) -> Result<(), AdmitError> {
    let places = grant.upstream.clone();
    if places.is_empty() || places.len() > MAX_UPSTREAM {
        return Err(AdmitError::Full(format!(
            "a feed is fetched from 1 to {MAX_UPSTREAM} relays, not {}",
            places.len()
        )));
    }
    let index = core.borrow_mut().open_cascade(grant, now)?;
    let kept = core.borrow_mut().cascades.keep(index, &places);
    for from in places.into_iter().filter(|p| !kept.contains(p)) {
        // The flows there are bound to the certificate of now: a later one would be nobody's.
        let (config, doors) = (doors.fetching(), Arc::clone(doors));
        let fetch = Fetch { core: Rc::clone(core), index, from: from.clone(), config, doors };
        let task = tokio::task::spawn_local(fetch.run()).abort_handle();
        if let Some(cascade) = core.borrow_mut().cascades.of.get_mut(&index) {
            cascade.fetching.push((from, task));
        }
    }
    Ok(())
}

impl Core {
    pub(super) fn open_cascade(&mut self, grant: CascadeGrant, _now: Instant) -> Result<usize, AdmitError> {
        if let Some(index) = self.feed_by_key.get(&grant.key).copied() {
            let cascade = self.cascades.of.get_mut(&index).ok_or(AdmitError::FeedExists)?;
            cascade.idle = None;
            return Ok(index);
        }
        self.check_feed(&grant.key)?;
        let (rtp_flow, rtcp_flow) = self.new_flows();
        let origin = Origin::Roq { rtp_flow, rtcp_flow, paths: Box::default() };
        let level_id = grant.descriptor.extension_id(AUDIO_LEVEL_URI).unwrap_or(0);
        let key = grant.key.clone();
        let index = self.insert_feed(grant.key, grant.publisher, grant.descriptor, origin, None);
        if let Some(entry) = self.feeds.get_mut(index) {
            entry.level_id = level_id;
            entry.repair = Some(repair::of_cascade(&entry.descriptor));
        }
        self.flows.insert(rtp_flow, (NOBODY, Flow::FeedRtp(index)));
        self.flows.insert(rtcp_flow, (NOBODY, Flow::FeedRtcp(index)));
        let cascade = Cascade { key, flows: (rtp_flow, rtcp_flow), idle: None, fetching: Vec::new() };
        self.cascades.of.insert(index, cascade);
        Ok(index)
    }

    /// Ends what nobody views.
    pub(super) fn keep_cascades(&mut self, at: Micros) {
        let mut over = Vec::new();
        for (index, cascade) in &mut self.cascades.of {
            let viewed = self.feeds.get(*index).is_some_and(|f| {
                let heard = self.voices.get(&f.key.session).is_some_and(|v| v.has_voice(*index) && v.has_listeners());
                heard || !f.legs.is_empty() || !f.mirrors.is_empty()
            });
            let idle = *cascade.idle.get_or_insert(at);
            if viewed {
                cascade.idle = None;
            } else if at.since(idle) >= IDLE_US {
                over.push(cascade.key.clone());
            }
        }
        for key in over {
            tracing::info!(feed = %key.feed, session = %key.session, "nobody views it: it is fetched no more");
            self.close_feed(&key);
            self.tell(RelayEvent::CascadeClosed { key });
        }
    }

    /// Datagrams from the relay that a feed is fetched from: its flows are that relay's, ours are others.
    fn handle_fetched(&mut self, fetch: &Fetched, batch: &[Bytes], now: Instant) {
        for datagram in batch {
            match roq::split(datagram).and_then(|(flow, packet)| Some((fetch.here(flow)?, packet))) {
                Some((flow, packet)) => drop(self.handle_roq_packet(&fetch.connection, NOBODY, flow, packet, now)),
                None => self.counters.unknown_flow += 1,
            }
        }
        self.send_on(now);
    }

    /// Packets of one stream from there. An error is the code to stop the stream with.
    fn handle_fetched_stream(&mut self, fetch: &Fetched, reader: &mut StreamReader, now: Instant) -> Result<(), u32> {
        let result = loop {
            match reader.poll_packet() {
                Ok(Some((flow, packet))) => match fetch.here(flow) {
                    Some(flow) => drop(self.handle_roq_packet(&fetch.connection, NOBODY, flow, packet, now)),
                    None => break Err(error_code::UNKNOWN_FLOW_ID),
                },
                Ok(None) => break Ok(()),
                Err(_) => break Err(error_code::PACKET_ERROR),
            }
        };
        self.send_on(now);
        result
    }
}

/// One place that a feed is fetched from.
struct Fetch {
    core: Rc<RefCell<Core>>,
    index: usize,
    from: FlowBinding,
    config: quinn::ClientConfig,
    doors: Arc<Doors>,
}

/// The same with a connection to there.
struct Fetched {
    connection: quinn::Connection,
    /// RTP and RTCP flow there.
    there: (FlowId, FlowId),
    /// The same here.
    here: (FlowId, FlowId),
}

impl Fetched {
    /// Our flow for one of theirs.
    fn here(&self, flow: FlowId) -> Option<FlowId> {
        match flow {
            f if f == self.there.0 => Some(self.here.0),
            f if f == self.there.1 => Some(self.here.1),
            _ => None,
        }
    }
}

/// A connection's place in the list of RTCP flows, for as long as it lasts.
struct Listed<'a> {
    core: &'a Rc<RefCell<Core>>,
    index: usize,
    id: usize,
}

impl<'a> Listed<'a> {
    fn new(fetch: &'a Fetch, connection: &quinn::Connection) -> Self {
        let id = connection.stable_id();
        fetch.core.borrow_mut().cascades.rtcp.insert(id, fetch.from.rtcp_flow_id);
        Self { core: &fetch.core, index: fetch.index, id }
    }
}

impl Drop for Listed<'_> {
    fn drop(&mut self) {
        // Tasks are dropped by themselves, never while the core is in use: they are spawned on the worker's own thread.
        if let Ok(mut core) = self.core.try_borrow_mut() {
            core.cascades.rtcp.remove(&self.id);
            if let Some(Origin::Roq { paths, .. }) = core.feeds.get_mut(self.index).map(|f| &mut f.origin) {
                paths.forget(self.id);
            }
        }
    }
}

impl Fetch {
    /// Connects, and connects again, until it is aborted.
    async fn run(self) {
        let [mut pause, longest] = PAUSES;
        let mut told = false;
        loop {
            match self.connect().await {
                Ok((endpoint, connection)) => {
                    tracing::info!(relay = self.from.relay, "fetching from another relay");
                    (pause, told) = (PAUSES[0], false);
                    self.read(connection).await;
                    tracing::warn!(relay = self.from.relay, "the connection to the other relay is lost");
                    drop(endpoint);
                }
                Err(error) if !told => {
                    tracing::warn!(relay = self.from.relay, error, "the other relay cannot be reached; trying on");
                    told = true;
                }
                Err(_) => {}
            }
            sleep(pause).await;
            pause = (pause * 2).min(longest);
        }
    }

    /// On a socket of its own: what comes back has to reach this worker.
    async fn connect(&self) -> Result<(quinn::Endpoint, quinn::Connection), String> {
        // Addresses are told by relays as numbers; a name would be looked up on the media thread.
        let remote = self.from.relay.parse::<SocketAddr>().ok();
        let remote = match remote {
            Some(remote) => remote,
            None => {
                let name = self.from.relay.clone();
                let found = tokio::task::spawn_blocking(move || name.to_socket_addrs().ok()?.next()).await;
                found.ok().flatten().ok_or("its address leads nowhere")?
            }
        };
        let any: SocketAddr = if remote.is_ipv6() { ([0_u16; 8], 0).into() } else { ([0_u8; 4], 0).into() };
        let socket = quic::bind_udp(any).map_err(|e| e.to_string())?;
        let runtime = Arc::new(quinn::TokioRuntime);
        let endpoint = quinn::Endpoint::new(quinn::EndpointConfig::default(), None, socket, runtime);
        let endpoint = endpoint.map_err(|e| e.to_string())?;
        let connecting = endpoint.connect_with(self.config.clone(), remote, &self.from.server_name);
        let connecting = connecting.map_err(|e| e.to_string())?;
        match timeout(CONNECT_TIMEOUT, connecting).await {
            Ok(Ok(connection)) => match is_relay(&connection) {
                Ok(()) => Ok((endpoint, connection)),
                Err(error) => {
                    connection.close(error_code::NO_ERROR.into(), b"not a relay");
                    Err(error)
                }
            },
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!("no answer within {} s", CONNECT_TIMEOUT.as_secs())),
        }
    }

    async fn read(&self, connection: quinn::Connection) {
        let Some(here) = self.core.borrow().cascades.of.get(&self.index).map(|c| c.flows) else { return };
        let there = (self.from.rtp_flow_id, self.from.rtcp_flow_id);
        let fetched = Rc::new(Fetched { connection, there, here });
        let _guest = self.doors.enter(Door::Fetching, &fetched.connection);
        let _listed = Listed::new(self, &fetched.connection);
        let _streams =
            Aborting(tokio::task::spawn_local(streams(Rc::clone(&self.core), Rc::clone(&fetched))).abort_handle());
        let mut batch: Vec<Bytes> = Vec::with_capacity(super::roq::BATCH);
        let (mut ask, mut came) = (interval(ASK_EVERY), false);
        loop {
            tokio::select! {
                biased;
                read = read_datagrams(&fetched.connection, &mut batch, super::roq::BATCH) => if read.is_err() {
                    return;
                },
                // It may send to our former connection still: the newest report says where to.
                _ = ask.tick(), if !came => {
                    fetched.report();
                    continue;
                }
            }
            came = true;
            self.core.borrow_mut().handle_fetched(&fetched, &batch, Instant::now());
            batch.clear();
            // Datagrams that wait are ready at once: others get their turn.
            tokio::task::yield_now().await;
        }
    }
}

impl Fetched {
    /// An empty receiver report: where the packets are to go.
    fn report(&self) {
        let rtcp = Builder::default().receiver_report(Ssrc(super::state::random_u32()), None).finish();
        if let Some(prefix) = FlowPrefix::new(self.there.1) {
            let _ = self.connection.send_datagram([prefix.as_bytes(), &rtcp].concat().into());
        }
    }
}

/// Whether a relay is at the other end: a device's certificate may be of the same authority and host.
pub(super) fn is_relay(connection: &quinn::Connection) -> Result<(), String> {
    let chain = connection.peer_identity().and_then(|i| i.downcast::<Vec<CertificateDer<'static>>>().ok());
    match chain.as_ref().and_then(|c| c.first()).and_then(|leaf| cert_name(leaf)) {
        Some(name) if name.role == "relay" => Ok(()),
        Some(name) => Err(format!("{name} is no relay")),
        None => Err("its certificate has no name trocar://REALM/relay/NAME".to_owned()),
    }
}

struct Aborting(AbortHandle);

impl Drop for Aborting {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Takes the streams of a connection until it ends. QUIC bounds how many there are at a time.
async fn streams(core: Rc<RefCell<Core>>, fetched: Rc<Fetched>) {
    while let Ok(stream) = fetched.connection.accept_uni().await {
        tokio::task::spawn_local(read_stream(Rc::clone(&core), Rc::clone(&fetched), stream));
    }
}

async fn read_stream(core: Rc<RefCell<Core>>, fetched: Rc<Fetched>, mut stream: quinn::RecvStream) {
    let mut reader = StreamReader::default();
    while let Ok(Ok(Some(chunk))) = timeout(STREAM_SILENCE, stream.read_chunk(STREAM_CHUNK, true)).await {
        reader.handle_bytes(&chunk.bytes);
        if let Err(code) = core.borrow_mut().handle_fetched_stream(&fetched, &mut reader, Instant::now()) {
            let _ = stream.stop(code.into());
            return;
        }
        tokio::task::yield_now().await;
    }
}
