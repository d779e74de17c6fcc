//! To the gate through the relay: rendezvous, tunnel, mutual TLS inside.

use super::link::{Answer, Dialer, GateLink, LINK_QUEUE};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};
use trocar_control::channel::{self, Reader, SharedDedupe, Writer};
use trocar_control::transport::{Connect, ControlConnection, Event, Events, Tunnel};
use trocar_control::trust::{Identity, PeerIdentity, TrustList};
use trocar_proto::control::{Index, PartyKind};
use trocar_proto::handover::message::{FromGate, ToGate};
use trocar_proto::session::ids::SessionId;

/// How often the trust list is looked at while a gate is linked.
const TRUST_EVERY: Duration = Duration::from_millis(250);

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
    identity: Identity,
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
        Ok(Self { config, identity })
    }

    async fn find(&self, session: &SessionId) -> Result<GateLink, String> {
        let trust = TrustList::of_file(&self.config.trust).map_err(|e| e.to_string())?;
        let to = Connect {
            relay: self.config.relay,
            server_name: self.config.server_name.clone(),
            session: session.clone(),
            kind: PartyKind::Signaling,
            token: None,
        };
        let (connection, mut events) =
            ControlConnection::connect(&to, &self.identity, &trust.current()).await.map_err(|e| e.to_string())?;
        let gate = first_gate(&mut events).await?;
        let tunnel = connection.open_tunnel(gate).await.map_err(|e| e.to_string())?;
        let channel = channel::connect(tunnel, &self.identity, &trust.current(), "gate").await;
        let channel = channel.map_err(|e| e.to_string())?;
        if channel.peer.name.realm != self.identity.name().realm {
            return Err(format!("the gate is of realm {}", channel.peer.name.realm));
        }
        let peer = channel.peer.clone();
        let (reader, writer) = channel.start::<FromGate>(SharedDedupe::default());
        let (to_gate, outgoing) = mpsc::channel(LINK_QUEUE);
        let (incoming, from_gate) = mpsc::channel(LINK_QUEUE);
        let line = Line { connection, events, gate, peer, trust, reader, writer };
        tokio::spawn(line.carry(outgoing, incoming));
        Ok(GateLink { to_gate, from_gate })
    }
}

impl Dialer for RelayDialer {
    fn dial<'a>(&'a self, session: &'a SessionId) -> Answer<'a, Result<GateLink, String>> {
        Box::pin(self.find(session))
    }
}

/// Waits for a gate. That it is one, the channel proves afterwards.
async fn first_gate(events: &mut Events) -> Result<Index, String> {
    loop {
        match events.next().await {
            Event::Joined { index, kind: PartyKind::Gate, .. } => return Ok(index),
            Event::Closed(why) => return Err(why.to_string()),
            _ => {}
        }
    }
}

/// One channel to a gate, while it lasts.
struct Line {
    connection: ControlConnection,
    events: Events,
    gate: Index,
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
                event = self.events.next() => match event {
                    Event::Left(index) if index == self.gate => break,
                    Event::Closed(_) => break,
                    _ => {}
                },
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
        self.connection.close();
    }
}
