//! To the gates through the relay: rendezvous, tunnel, mutual TLS inside.

use super::link::{Answer, Dialer, GateLink, GateLinks, LINK_QUEUE, MOST_GATES};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{MissedTickBehavior, interval, sleep};
use trocar_control::channel::{self, Reader, SharedDedupe, Writer};
use trocar_control::transport::{Connect, ControlConnection, Event, Events, Tunnel};
use trocar_control::trust::{Identity, PeerIdentity, TrustList};
use trocar_proto::control::{Index, PartyKind};
use trocar_proto::handover::message::{FromGate, ToGate};
use trocar_proto::session::ids::SessionId;

/// How often the trust list is looked at while a gate is linked.
const TRUST_EVERY: Duration = Duration::from_millis(250);

/// First and longest pause between attempts at one gate.
const PAUSES: [Duration; 2] = [Duration::from_millis(250), Duration::from_secs(4)];
/// Gates that are remembered to be there; beyond the newest [`MOST_GATES`] they wait until one of those leaves.
const MOST_JOINED: usize = 16;

/// Where the rendezvous is, and who signaling is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControlConfig {
    /// The relay's control address.
    pub relay: SocketAddr,
    /// The relay's name as its certificate has it: a host name or an address as text.
    pub server_name: String,
    /// Certificate chain of role `signaling`, PEM.
    pub cert: PathBuf,
    /// Its key, PEM.
    pub key: PathBuf,
    /// Trust list for relay and gates: a PEM file; a `crl.pem` beside it counts.
    pub trust: PathBuf,
}

/// Dials by [`trocar_control`].
#[derive(Debug)]
pub(crate) struct RelayDialer {
    config: ControlConfig,
    identity: Arc<Identity>,
}

impl RelayDialer {
    /// Reads the certificate.
    ///
    /// # Errors
    /// Names the file that cannot be used.
    pub(crate) fn new(config: ControlConfig) -> Result<Self, String> {
        let identity = Identity::from_pem_files(&config.cert, &config.key).map_err(|e| e.to_string())?;
        let role = &identity.name().role;
        if role != "signaling" {
            return Err(format!("{}: role signaling is right, this is {role}", config.cert.display()));
        }
        TrustList::of_file(&config.trust).map_err(|e| e.to_string())?;
        Ok(Self { config, identity: Arc::new(identity) })
    }

    async fn find(&self, session: &SessionId) -> Result<GateLinks, String> {
        let trust = TrustList::of_file(&self.config.trust).map_err(|e| e.to_string())?;
        let to = Connect {
            relay: self.config.relay,
            local: None,
            server_name: self.config.server_name.clone(),
            session: session.clone(),
            kind: PartyKind::Signaling,
            token: None,
        };
        let (connection, events) =
            ControlConnection::connect(&to, &self.identity, &trust.current()).await.map_err(|e| e.to_string())?;
        let (found, links) = mpsc::channel(MOST_GATES);
        let (identity, trust) = (Arc::clone(&self.identity), self.config.trust.clone());
        let way = Way { session: session.clone(), connection, identity, trust, found };
        tokio::spawn(rendezvous(way, events));
        Ok(links)
    }
}

impl Dialer for RelayDialer {
    fn dial<'a>(&'a self, session: &'a SessionId) -> Answer<'a, Result<GateLinks, String>> {
        Box::pin(self.find(session))
    }
}

/// Keeps a channel to each of the newest gates that the relay names, until the relay is lost or nobody wants gates any more.
async fn rendezvous(way: Way, mut events: Events) {
    let way = Arc::new(way);
    let mut joined: Vec<Index> = Vec::new();
    // Ended with this task.
    let mut keepers = JoinSet::new();
    let mut kept: BTreeMap<Index, AbortHandle> = BTreeMap::new();
    loop {
        let event = tokio::select! {
            event = events.next() => event,
            () = way.found.closed() => break,
        };
        match event {
            Event::Joined { index, kind: PartyKind::Gate, .. } => {
                joined.retain(|each| *each != index);
                if joined.len() >= MOST_JOINED {
                    joined.remove(0);
                }
                joined.push(index);
            }
            Event::Left(index) => joined.retain(|each| *each != index),
            Event::Closed(_) => break,
            _ => {}
        }
        let wanted: Vec<Index> = joined.iter().rev().take(MOST_GATES).copied().collect();
        kept.retain(|index, keeper| {
            let stays = wanted.contains(index);
            if !stays {
                keeper.abort();
            }
            stays
        });
        for index in wanted.into_iter().rev() {
            kept.entry(index).or_insert_with(|| keepers.spawn(keep(Arc::clone(&way), index)));
        }
        while keepers.try_join_next().is_some() {}
    }
    way.connection.close();
}

/// One gate: a channel, and when that ends another one, for as long as the relay says that the gate is there.
async fn keep(way: Arc<Way>, gate: Index) {
    let [mut pause, longest] = PAUSES;
    let mut told = String::new();
    loop {
        match way.line(gate).await {
            Ok((line, link, outgoing, incoming)) => {
                if way.found.send(link).await.is_err() {
                    return;
                }
                line.carry(outgoing, incoming).await;
                pause = PAUSES[0];
                told.clear();
            }
            Err(error) => {
                if error != told {
                    tracing::warn!(session = %way.session, gate = gate.0, error, "no channel to this gate");
                    told = error;
                }
                pause = (pause * 2).min(longest);
            }
        }
        sleep(pause).await;
    }
}

/// What the channels of one session share.
struct Way {
    session: SessionId,
    connection: ControlConnection,
    identity: Arc<Identity>,
    trust: PathBuf,
    found: mpsc::Sender<GateLink>,
}

type Carried = (Line, GateLink, mpsc::Receiver<ToGate>, mpsc::Sender<FromGate>);

impl Way {
    /// That it is a gate, the channel proves: the relay's word counts for nothing.
    async fn line(&self, gate: Index) -> Result<Carried, String> {
        let trust = TrustList::of_file(&self.trust).map_err(|e| e.to_string())?;
        let tunnel = self.connection.open_tunnel(gate).await.map_err(|e| e.to_string())?;
        let channel = channel::connect(tunnel, &self.identity, &trust.current(), "gate").await;
        let channel = channel.map_err(|e| e.to_string())?;
        if channel.peer.name.realm != self.identity.name().realm {
            return Err(format!("the gate is of realm {}", channel.peer.name.realm));
        }
        let peer = channel.peer.clone();
        tracing::info!(session = %self.session, gate = %peer.name, certificate = %peer.certificate, "channel to a gate");
        let (reader, writer) = channel.start::<FromGate>(SharedDedupe::default());
        let (to_gate, outgoing) = mpsc::channel(LINK_QUEUE);
        let (incoming, from_gate) = mpsc::channel(LINK_QUEUE);
        Ok((Line { peer, trust, reader, writer }, GateLink { to_gate, from_gate }, outgoing, incoming))
    }
}

/// One channel to a gate, while it lasts.
struct Line {
    peer: PeerIdentity,
    trust: TrustList,
    reader: Reader<FromGate, Tunnel>,
    writer: Writer,
}

impl Line {
    async fn carry(mut self, mut outgoing: mpsc::Receiver<ToGate>, incoming: mpsc::Sender<FromGate>) {
        let mut looks = interval(TRUST_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut id = 0;
        loop {
            tokio::select! {
                biased;
                message = outgoing.recv() => {
                    let Some(message) = message else { break };
                    id += 1;
                    if self.writer.send(id, &message).is_err() {
                        break;
                    }
                }
                message = self.reader.next() => {
                    let Ok((_, message)) = message else { break };
                    // Whoever reads here decides how fast the gate may speak; it waits in the tunnel.
                    if incoming.send(message).await.is_err() {
                        break;
                    }
                }
                _ = looks.tick() => {
                    // A list that cannot be read leaves the former one in force.
                    if self.trust.reload() == Ok(true)
                        && !self.trust.current().taken_back([&self.peer]).is_empty()
                    {
                        break;
                    }
                }
            }
        }
        self.writer.close();
    }
}
