//! One relay: a control connection, kept for ever.

use super::channel;
use super::config::RelayAddress;
use super::state::{Shared, count};
use crate::core::Event as CoreEvent;
use crate::doors::{Doors, Place};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use trocar_control::transport::{Connect, ControlConnection, Event, Events, TransportError, Tunnel};
use trocar_proto::control::{Index, PartyKind};
use trocar_proto::session::ids::{CertHash, SessionId};

/// Between attempts: doubles from the first to the last.
const BACKOFF: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(1)];
/// Handshakes at a time per relay; a tunnel beyond it is dropped, so that one relay's flood leaves the others theirs.
const HANDSHAKES: usize = 8;
/// Of these for one party, as the relay knows it: a station that says nothing keeps nobody else out. As many besides, for parties that
/// the relay takes for signaling.
const HANDSHAKES_EACH: usize = 2;
/// Parties that are remembered; the relay lets in fewer.
const PARTIES: usize = 256;
/// Probes per second that are answered; a relay asks five times.
const PROBES_PER_SECOND: u32 = 20;

/// Connects, serves, connects again.
pub(super) async fn keep(shared: Arc<Shared>, number: usize, address: RelayAddress, session: SessionId) -> Infallible {
    let [first, most] = BACKOFF;
    let mut wait = first;
    let mut told = String::new();
    loop {
        match connect(&shared, &address, &session).await {
            Ok((connection, events)) => {
                tracing::info!(relay = %address, "control connection stands");
                count(&shared.counters.connected);
                wait = first;
                told.clear();
                shared.connection(number, Some(connection.clone()));
                let why = serve(&shared, number, &connection, events).await;
                shared.connection(number, None);
                tracing::warn!(relay = %address, %why, "control connection lost");
            }
            // The same trouble is told once, not each second.
            Err(e) if e.to_string() != told => {
                told = e.to_string();
                tracing::warn!(relay = %address, error = %told, "no control connection; trying again");
            }
            Err(_) => {}
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(most);
    }
}

async fn connect(
    shared: &Shared,
    address: &RelayAddress,
    session: &SessionId,
) -> Result<(ControlConnection, Events), TransportError> {
    let relay = resolve(address).await?;
    let to = Connect {
        relay,
        local: address.local,
        server_name: address.host.clone(),
        session: session.clone(),
        kind: PartyKind::Gate,
        token: None,
    };
    let trust = shared.trust();
    ControlConnection::connect(&to, &shared.identity, &trust).await
}

async fn resolve(address: &RelayAddress) -> io::Result<SocketAddr> {
    let found = tokio::net::lookup_host((address.host.as_str(), address.port)).await?.next();
    found.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("{address} has no address")))
}

/// Until the connection is lost.
async fn serve(
    shared: &Arc<Shared>,
    number: usize,
    connection: &ControlConnection,
    mut events: Events,
) -> TransportError {
    let mut lobby = Lobby::new();
    let mut probes = (Instant::now(), 0_u32);
    let reads = datagrams(shared, number, connection);
    tokio::pin!(reads);
    loop {
        let event = tokio::select! {
            lost = &mut reads => return lost,
            event = events.next() => event,
        };
        match event {
            Event::Tunnel { from, tunnel } => take(shared, number, from, tunnel, &lobby),
            Event::Probe(nonce) => {
                if probes.0.elapsed() >= Duration::from_secs(1) {
                    probes = (Instant::now(), 0);
                }
                probes.1 = probes.1.saturating_add(1);
                if probes.1 <= PROBES_PER_SECOND {
                    shared.tell(CoreEvent::MirrorProbe(nonce));
                }
            }
            Event::Closed(why) => return why,
            // Who is there shows in the channels; the relay's word for it decides whose handshakes share places, and nothing else.
            Event::Joined { index, kind, certificate } => lobby.joined(index, kind, certificate),
            Event::Left(index) => lobby.left(index),
        }
    }
}

async fn datagrams(shared: &Shared, number: usize, connection: &ControlConnection) -> TransportError {
    loop {
        match connection.datagram().await {
            Ok((from, sealed)) => shared.datagram(number, from, &sealed),
            Err(e) => return e,
        }
    }
}

/// Who the relay says is there, and whose handshakes are under way.
struct Lobby {
    parties: BTreeMap<Index, (PartyKind, CertHash)>,
    all: Doors<Party>,
    signaling: Doors<Party>,
}

/// A party by its certificate, or by its number where the relay did not tell that.
type Party = Result<CertHash, Index>;

impl Lobby {
    fn new() -> Self {
        let (all, signaling) = (Doors::new(HANDSHAKES, HANDSHAKES_EACH), Doors::new(HANDSHAKES_EACH, HANDSHAKES_EACH));
        Self { parties: BTreeMap::new(), all, signaling }
    }

    fn joined(&mut self, index: Index, kind: PartyKind, certificate: CertHash) {
        if self.parties.len() < PARTIES {
            self.parties.insert(index, (kind, certificate));
        }
    }

    fn left(&mut self, index: Index) {
        self.parties.remove(&index);
    }

    /// A place for a handshake.
    fn enter(&self, from: Index) -> Option<Place<Party>> {
        match self.parties.get(&from) {
            Some((PartyKind::Signaling, certificate)) => self.signaling.enter(Ok(*certificate)),
            Some((_, certificate)) => self.all.enter(Ok(*certificate)),
            None => self.all.enter(Err(from)),
        }
    }
}

fn take(shared: &Arc<Shared>, number: usize, from: Index, tunnel: Tunnel, lobby: &Lobby) {
    let Some(place) = lobby.enter(from) else {
        count(&shared.counters.refused);
        return;
    };
    let shared = Arc::clone(shared);
    tokio::spawn(async move {
        let made = channel::handshake(&shared, tunnel).await;
        drop(place);
        if let Some(made) = made {
            channel::run(shared, number, from, made).await;
        }
    });
}
