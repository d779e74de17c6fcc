//! What the network side knows, behind one lock that is held for microseconds.
//!
//! A *station* here is one run of an expert's program: its first tunnel, and those that its HELLO binds to it. The keys of sealed
//! datagrams belong to the tunnel that carried the ACCEPT and stay when that tunnel is gone and another of the station is there.

use super::config::MAX_RELAYS;
use crate::core::{Event, Inbox, Lane, Who, now};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use trocar_control::channel::Writer;
use trocar_control::seal::SealKeys;
use trocar_control::token::TokenVerifier;
use trocar_control::transport::ControlConnection;
use trocar_control::trust::{Identity, PeerIdentity, Trust};
use trocar_proto::control::Index;
use trocar_proto::handover::gate::{Input, Peer};
use trocar_proto::handover::message::{Beacon, Datagram, Dedupe, FromGate};
use trocar_proto::handover::paths::{Copy, Paths, Protection};
use trocar_proto::handover::types::{Binding, ChannelId, ExpertId};

/// Channels at most, over all relays: as many as the gate's machine takes (HO-M-023).
pub const MAX_CHANNELS: usize = 16;
/// Of these for signaling alone, by which everybody in a browser is stopped and told: one, and its successor while the old one is not
/// known to be gone yet.
pub const FOR_SIGNALING: usize = 2;
/// Channels of one certificate at most: two paths and their successors.
pub const MAX_OF_ONE: usize = 4;
/// Peers whose revocation is looked for although they are gone.
const KNOWN: usize = 64;
/// Keys without a BEACON for this long are dropped. Until then what comes late is opened, so that it is refused by name and recorded.
const KEYS_IDLE: Duration = Duration::from_secs(10);
/// Sealed datagrams of one station that are looked at per second at most, twice what a holder may send (HO-P-001).
const RATE: u32 = 2_000;

/// What was dropped and refused since the start.
#[derive(Debug, Default)]
pub struct Counters {
    /// Datagrams that no key of the party opened: forged, changed, too late, of nobody.
    pub unopened: AtomicU64,
    /// Datagrams beyond what one station may send.
    pub flood: AtomicU64,
    /// What did not fit into the core's inbox.
    pub inbox_full: AtomicU64,
    /// Tunnels that became no channel: handshake, certificate, role, number.
    pub refused: AtomicU64,
    /// Channels that were closed because their messages did not fit.
    pub overflowed: AtomicU64,
    /// Tokens that did not verify.
    pub bad_tokens: AtomicU64,
    /// Datagrams that the line did not take.
    pub unsent: AtomicU64,
    /// Control connections that were made.
    pub connected: AtomicU64,
    /// By relay: datagrams that came by it first.
    pub first: [AtomicU64; MAX_RELAYS],
    /// By relay: datagrams that another path had brought before.
    pub copies: [AtomicU64; MAX_RELAYS],
    /// By relay: datagrams that only another path brought, of the stations that are there.
    pub lost: [AtomicU64; MAX_RELAYS],
}

/// Names of the counters of each path.
const BY_PATH: [[&str; 3]; MAX_RELAYS] = [
    ["net_path_1_first", "net_path_1_copies", "net_path_1_lost"],
    ["net_path_2_first", "net_path_2_copies", "net_path_2_lost"],
    ["net_path_3_first", "net_path_3_copies", "net_path_3_lost"],
    ["net_path_4_first", "net_path_4_copies", "net_path_4_lost"],
];

impl Counters {
    /// All, by name.
    #[must_use]
    pub fn all(&self) -> Vec<(&'static str, u64)> {
        let n = |c: &AtomicU64| c.load(Ordering::Relaxed);
        let mut all = vec![
            ("net_datagrams_unopened", n(&self.unopened)),
            ("net_datagrams_flood", n(&self.flood)),
            ("net_inbox_full", n(&self.inbox_full)),
            ("net_tunnels_refused", n(&self.refused)),
            ("net_channels_overflowed", n(&self.overflowed)),
            ("net_bad_tokens", n(&self.bad_tokens)),
            ("net_datagrams_unsent", n(&self.unsent)),
            ("net_connections", n(&self.connected)),
        ];
        let paths = BY_PATH.iter().zip(&self.first).zip(&self.copies).zip(&self.lost);
        for (((names, first), copies), lost) in paths {
            let figures = [n(first), n(copies), n(lost)];
            if figures != [0; 3] {
                all.extend(names.iter().copied().zip(figures));
            }
        }
        all
    }
}

pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// One tunnel.
struct Entry {
    relay: usize,
    party: Index,
    peer: Arc<PeerIdentity>,
    station: u32,
    tunnel: u128,
    /// Nothing when the tunnel is gone and only its keys are still in use.
    writer: Option<Writer>,
    keys: SealKeys,
    sealed: Option<Instant>,
}

/// What the tunnels of one station share.
#[derive(Default)]
struct Station {
    seen: Dedupe,
    next_id: u64,
    /// The newest message and by which tunnels it went: the same one by another tunnel has the same id (HO-C-006).
    last: Option<(u64, FromGate, Vec<ChannelId>)>,
    /// Datagrams in this second.
    second: Option<(Instant, u32)>,
    /// What came by which tunnel.
    paths: Paths,
}

impl Station {
    fn id_for(&mut self, channel: ChannelId, message: &FromGate) -> u64 {
        if let Some((id, last, by)) = &mut self.last
            && last == message
            && !by.contains(&channel)
        {
            by.push(channel);
            return *id;
        }
        self.next_id += 1;
        self.last = Some((self.next_id, message.clone(), vec![channel]));
        self.next_id
    }

    fn may_pass(&mut self, now: Instant) -> bool {
        match &mut self.second {
            Some((since, n)) if now.duration_since(*since) < Duration::from_secs(1) => {
                *n = n.saturating_add(1);
                *n <= RATE
            }
            second => {
                *second = Some((now, 1));
                true
            }
        }
    }
}

struct State {
    trust: Arc<Trust>,
    channels: BTreeMap<ChannelId, Entry>,
    stations: BTreeMap<u32, Station>,
    next: u32,
    relays: Vec<Option<ControlConnection>>,
    known: Vec<Arc<PeerIdentity>>,
    /// Channels whose end did not fit into the inbox yet.
    untold: Vec<ChannelId>,
    mirrored: u64,
    /// What the core was told of each expert's paths.
    protected: BTreeMap<ExpertId, Protection>,
}

/// What all tasks and the core share.
pub(super) struct Shared {
    pub(super) identity: Identity,
    pub(super) tokens: TokenVerifier,
    pub(super) inbox: Inbox,
    pub(super) counters: Arc<Counters>,
    state: Mutex<State>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("counters", &self.counters).finish_non_exhaustive()
    }
}

/// A tunnel whose handshake is done.
pub(super) struct Arrival {
    pub(super) relay: usize,
    pub(super) party: Index,
    pub(super) peer: Arc<PeerIdentity>,
    pub(super) tunnel: u128,
    pub(super) keys: SealKeys,
    pub(super) writer: Writer,
}

/// As signaling's certificates are called.
pub(super) const SIGNALING: &str = "signaling";

pub(super) fn who(peer: &PeerIdentity) -> Who {
    Who { expert: peer.expert(), certificate: peer.name.to_string(), person: None, role: None, grade: None }
}

impl Shared {
    pub(super) fn new(
        identity: Identity,
        trust: Arc<Trust>,
        tokens: TokenVerifier,
        inbox: Inbox,
        relays: usize,
    ) -> Self {
        let state = State {
            trust,
            channels: BTreeMap::new(),
            stations: BTreeMap::new(),
            next: 0,
            relays: vec![None; relays],
            known: Vec::new(),
            untold: Vec::new(),
            mirrored: 0,
            protected: BTreeMap::new(),
        };
        Self { identity, tokens, inbox, counters: Arc::default(), state: Mutex::new(state) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn trust(&self) -> Arc<Trust> {
        Arc::clone(&self.lock().trust)
    }

    /// The control connection of a relay, or that it is gone.
    pub(super) fn connection(&self, relay: usize, connection: Option<ControlConnection>) {
        if let Some(slot) = self.lock().relays.get_mut(relay) {
            *slot = connection;
        }
    }

    /// Takes in a channel and tells the core; nothing where it is one too many or was revoked meanwhile.
    pub(super) fn open(&self, arrival: Arrival) -> Option<ChannelId> {
        let mut state = self.lock_unless_taken_back(&arrival.peer)?;
        let Arrival { relay, party, peer, tunnel, keys, writer } = arrival;
        let live = state.channels.values().filter(|e| e.writer.is_some());
        let of_one = live.clone().filter(|e| e.peer.certificate == peer.certificate).count();
        // An end that the core was not told yet still counts there.
        let is_signaling = peer.name.role == SIGNALING;
        let stations = live.clone().filter(|e| e.peer.name.role != SIGNALING).count();
        let is_full = !is_signaling && stations >= MAX_CHANNELS - FOR_SIGNALING;
        if is_full || live.count() >= MAX_CHANNELS || of_one >= MAX_OF_ONE || !state.untold.is_empty() {
            return None;
        }
        let number = state.next.checked_add(1)?;
        state.next = number;
        let channel = ChannelId(number);
        let opened = if is_signaling { Peer::Signaling } else { Peer::Station(peer.expert()) };
        let told = self.tell(Event::Who(channel, who(&peer), is_signaling))
            && self.tell(Event::Input(Input::Opened { channel, peer: opened }));
        if !told {
            state.untold.push(channel);
            return None;
        }
        if state.known.iter().all(|k| k.certificate != peer.certificate) {
            if state.known.len() >= KNOWN {
                state.known.remove(0);
            }
            state.known.push(Arc::clone(&peer));
        }
        let mut station = Station::default();
        station.paths.opened(now(), channel.0);
        state.stations.insert(number, station);
        let entry = Entry { relay, party, peer, station: number, tunnel, writer: Some(writer), keys, sealed: None };
        state.channels.insert(channel, entry);
        Some(channel)
    }

    /// The handshake may have begun under an older list. Chains are verified without the lock, which the core waits for as well.
    fn lock_unless_taken_back(&self, peer: &PeerIdentity) -> Option<MutexGuard<'_, State>> {
        for _ in 0..3 {
            let trust = self.trust();
            if !trust.taken_back([peer]).is_empty() {
                return None;
            }
            let state = self.lock();
            if Arc::ptr_eq(&state.trust, &trust) {
                return Some(state);
            }
        }
        None
    }

    pub(super) fn tell(&self, event: Event) -> bool {
        let told = self.inbox.push(Lane::Network, event).is_ok();
        if !told {
            count(&self.counters.inbox_full);
        }
        told
    }

    /// The tunnel is gone: the core is told, if need be later. Its keys stay where the station has another tunnel.
    pub(super) fn gone(&self, channel: ChannelId) {
        let mut state = self.lock();
        let State { channels, stations, .. } = &mut *state;
        if let Some(entry) = channels.get_mut(&channel) {
            entry.writer.take().iter().for_each(Writer::close);
            if let Some(station) = stations.get_mut(&entry.station) {
                station.paths.gone(channel.0);
            }
        }
        state.forget_unused(Instant::now());
        if !self.tell(Event::Input(Input::Gone(channel))) {
            state.untold.push(channel);
        }
    }

    /// Whether a message did not come by another tunnel of the station before. A HELLO binds a second tunnel to the first one of the
    /// same certificate.
    pub(super) fn is_first(&self, channel: ChannelId, id: u64, binds: Option<u128>) -> bool {
        let mut state = self.lock();
        let State { channels, stations, .. } = &mut *state;
        let Some(certificate) = channels.get(&channel).map(|e| e.peer.certificate) else { return false };
        let first = binds.and_then(|wanted| {
            let mut all = channels.iter().filter(|(c, e)| **c != channel && e.writer.is_some() && e.tunnel == wanted);
            all.find(|(_, e)| e.peer.certificate == certificate).map(|(_, e)| e.station)
        });
        let Some(entry) = channels.get_mut(&channel) else { return false };
        if let Some(first) = first
            && entry.station != first
        {
            stations.remove(&entry.station);
            entry.station = first;
            if let Some(station) = stations.get_mut(&first) {
                station.paths.opened(now(), channel.0);
            }
        }
        let Some(station) = stations.get_mut(&entry.station) else { return false };
        station.paths.heard(now(), channel.0);
        station.seen.is_first(id)
    }

    /// The station's first tunnel that is still there: both ends take its keys for what an ACCEPT binds, whichever tunnel's copy
    /// came first.
    pub(super) fn first_of_station(&self, channel: ChannelId) -> ChannelId {
        let state = self.lock();
        let station = state.channels.get(&channel).map(|e| e.station);
        let mut all = state.channels.iter().filter(|(_, e)| Some(e.station) == station && e.writer.is_some());
        all.next().map_or(channel, |(first, _)| *first)
    }

    /// A sealed datagram of a party, as its relay says. The keys decide whose it is.
    pub(super) fn datagram(&self, relay: usize, party: Index, sealed: &[u8]) {
        let mut state = self.lock();
        let Some(input) = state.opened(relay, party, sealed, &self.counters) else { return };
        drop(state);
        self.tell(Event::Input(input));
    }

    /// Reliably by this channel. GRANT makes the epoch's keys live where the channel accepted the offer.
    pub(super) fn send(&self, channel: ChannelId, message: &FromGate) {
        let mut state = self.lock();
        let State { channels, stations, .. } = &mut *state;
        let Some(entry) = channels.get_mut(&channel) else { return };
        if let FromGate::Grant { holder, epoch, .. } = message
            && *holder == entry.peer.expert()
            && entry.keys.bindings().iter().any(|b| matches!(b, Binding::Offer(_)))
            && entry.keys.grant(*epoch).is_ok()
        {
            entry.sealed = Some(Instant::now());
        }
        let (Some(writer), Some(station)) = (&entry.writer, stations.get_mut(&entry.station)) else { return };
        let id = station.id_for(channel, message);
        if let Err(e) = writer.send(id, message) {
            tracing::warn!(channel = channel.0, error = %e, "channel closed: it takes no more messages");
            count(&self.counters.overflowed);
            writer.close(); // its reader ends and tells the core
        }
    }

    /// Seals once with this channel's keys; the same bytes go by every tunnel of the station (HO-C-008). The binding is the core's
    /// own, so this is also what makes keys live.
    pub(super) fn seal(&self, channel: ChannelId, beacon: &Beacon) {
        let mut state = self.lock();
        let State { channels, relays, .. } = &mut *state;
        let Some(entry) = channels.get_mut(&channel) else { return };
        let sealed = entry.keys.bind(beacon.binding).and_then(|()| entry.keys.seal(&Datagram::Beacon(*beacon)));
        let sealed = match sealed {
            Ok(sealed) => sealed,
            Err(e) => {
                tracing::debug!(channel = channel.0, error = %e, "a BEACON was not sealed");
                count(&self.counters.unsent);
                return;
            }
        };
        entry.sealed = Some(Instant::now());
        let station = entry.station;
        for path in channels.values().filter(|e| e.station == station && e.writer.is_some()) {
            let sent =
                relays.get(path.relay).and_then(Option::as_ref).is_some_and(|c| c.send_datagram(path.party, &sealed));
            if !sent {
                count(&self.counters.unsent);
            }
        }
    }

    /// Closes a channel, keys included: its reader ends and tells the core.
    pub(super) fn close(&self, channel: ChannelId) {
        if let Some(entry) = self.lock().channels.get_mut(&channel) {
            entry.keys.end_all();
            entry.writer.iter().for_each(Writer::close);
        }
    }

    pub(super) fn close_all(&self) {
        let mut state = self.lock();
        state.channels.values().filter_map(|e| e.writer.as_ref()).for_each(Writer::close);
        state.relays.iter_mut().filter_map(Option::take).for_each(|c| c.close());
    }

    /// To all relays.
    pub(super) fn mirror(&self, status: &FromGate) {
        let mut state = self.lock();
        self.look_at_paths(&mut state);
        state.mirrored += 1;
        let id = state.mirrored;
        for relay in state.relays.iter().flatten() {
            let _ = relay.status(id, status); // full: the next comes soon
        }
    }

    /// A new trust list is in force: whom it takes back is told to the core once, and thrown out.
    pub(super) fn trust_changed(&self, trust: Arc<Trust>) {
        let known = {
            let mut state = self.lock();
            state.trust = Arc::clone(&trust);
            state.known.clone()
        };
        for peer in trust.taken_back(known.iter().map(Arc::as_ref)) {
            tracing::warn!(peer = %peer.name, certificate = %peer.certificate, serial = %peer.serial,
                "certificate revoked: its channels are closed");
            // From the gate's own disk, and not to be lost in a flood from the network.
            self.inbox.input(Lane::Device, Input::Revoked(peer.expert()));
            let mut state = self.lock();
            state.known.retain(|k| k.certificate != peer.certificate);
            for entry in state.channels.values_mut().filter(|e| e.peer.certificate == peer.certificate) {
                entry.keys.end_all();
                entry.writer.iter().for_each(Writer::close);
            }
        }
    }

    /// Tells what could not be told, and drops keys that ended.
    pub(super) fn tidy(&self) {
        let mut state = self.lock();
        let untold = std::mem::take(&mut state.untold);
        state.untold = untold.into_iter().filter(|c| !self.tell(Event::Input(Input::Gone(*c)))).collect();
        state.forget_unused(Instant::now());
        self.look_at_paths(&mut state);
    }

    /// Tells the core of each expert whose protection changed (HO-C-010, HO-C-011).
    fn look_at_paths(&self, state: &mut State) {
        let State { channels, stations, protected, .. } = state;
        let at = now();
        let mut seen: BTreeMap<ExpertId, Protection> = BTreeMap::new();
        let mut lost = [0_u64; MAX_RELAYS];
        for (channel, entry) in channels.iter().filter(|(_, e)| e.peer.name.role != SIGNALING && e.writer.is_some()) {
            let Some(station) = stations.get_mut(&entry.station) else { continue };
            let protection = station.paths.protection(at);
            let most = seen.entry(entry.peer.expert()).or_default();
            *most = protection.max(*most);
            if let (Some(lost), Some(figures)) = (lost.get_mut(entry.relay), station.paths.figures(channel.0)) {
                *lost += figures.lost;
            }
        }
        self.counters.lost.iter().zip(lost).for_each(|(counter, n)| counter.store(n, Ordering::Relaxed));
        let gone: Vec<ExpertId> = protected.keys().filter(|e| !seen.contains_key(e)).copied().collect();
        seen.extend(gone.into_iter().map(|expert| (expert, Protection::Single)));
        for (expert, protection) in seen {
            let before = protected.get(&expert).copied().unwrap_or_default();
            if protection != before && self.tell(Event::Input(Input::Paths(expert, protection))) {
                match protection {
                    Protection::Single => protected.remove(&expert),
                    _ => protected.insert(expert, protection),
                };
            }
        }
    }
}

impl State {
    fn opened(&mut self, relay: usize, party: Index, sealed: &[u8], counters: &Counters) -> Option<Input> {
        let Self { channels, stations, .. } = self;
        let from = channels.iter().filter(|(_, e)| e.writer.is_some() && e.relay == relay && e.party == party);
        let from: Vec<(u32, ChannelId)> = from.map(|(c, e)| (e.station, *c)).collect();
        let found = channels.iter().find_map(|(c, e)| {
            let (_, path) = from.iter().find(|(station, _)| *station == e.station)?;
            let datagram = e.keys.open(sealed).ok()?;
            Some((*c, e.station, *path, datagram))
        });
        let Some((channel, station, path, datagram)) = found else {
            count(&counters.unopened);
            return None;
        };
        let station = stations.get_mut(&station)?;
        // HO-C-009: the first copy counts. What one path brings twice goes on, so that it is refused by name and recorded.
        if station.paths.datagram(now(), path.0, datagram.binding(), datagram.counter()) == Copy::Other {
            counters.copies.get(relay).into_iter().for_each(count);
            return None;
        }
        counters.first.get(relay).into_iter().for_each(count);
        if !station.may_pass(Instant::now()) {
            count(&counters.flood);
            return None;
        }
        match datagram {
            Datagram::Heartbeat(hb) => Some(Input::Heartbeat(channel, hb)),
            Datagram::Command(command) => Some(Input::Command(channel, command)),
            Datagram::Beacon(_) => None, // opens nowhere at the gate
        }
    }

    /// Keys that ended, tunnels that are gone and whose keys nobody can use any more.
    fn forget_unused(&mut self, now: Instant) {
        let Self { channels, stations, .. } = self;
        for entry in channels.values_mut() {
            if entry.sealed.is_some_and(|at| now.duration_since(at) >= KEYS_IDLE) {
                entry.keys.end_all();
                entry.sealed = None;
            }
        }
        let live: Vec<u32> = channels.values().filter(|e| e.writer.is_some()).map(|e| e.station).collect();
        channels.retain(|_, e| e.writer.is_some() || (live.contains(&e.station) && e.sealed.is_some()));
        stations.retain(|s, _| channels.values().any(|e| e.station == *s));
    }
}
