//! The way to the gate: the relay's rendezvous, a tunnel, the channel in it. Lost, it is made anew, and the station is an observer again
//! (HO-T-010).

use super::acts::{News, Path};
use super::inbox::Inbox;
use crate::net::address::Address;
use crate::net::api::{Api, Refused};
use anyhow::{Context as _, bail};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use trocar_control::channel::{self, Channel, SharedDedupe};
use trocar_control::transport::{Connect, ControlConnection, Event, Events, Tunnel};
use trocar_control::trust::{Identity, TrustList};
use trocar_proto::control::{Index, PartyKind};
use trocar_proto::handover::message::FromGate;

/// First and longest wait before the gate is tried again.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));
/// After the first gate of a session others are waited for so long, where none was named.
const OTHERS: Duration = Duration::from_millis(200);
/// A connection that lasted for so long has proved itself.
const PROVED: Duration = Duration::from_secs(5);
/// Gates that are looked at in one session; more are left out.
const MAX_GATES: usize = 8;
/// A gate that is there says STATUS ten times a second.
const FIRST_WORD: Duration = Duration::from_secs(2);
const GATE: &str = "gate";

/// What is needed for it.
pub(super) struct Line {
    /// Place on the command line, from 0.
    pub(super) number: usize,
    /// Own address to send from.
    pub(super) local: Option<IpAddr>,
    pub(super) control: Address,
    /// Tunnels are opened one after the other, so that both ends know which one was first.
    pub(super) opening: Arc<tokio::sync::Mutex<()>>,
    pub(super) gate: Option<String>,
    pub(super) identity: Arc<Identity>,
    pub(super) trust: TrustList,
    pub(super) api: Api,
    pub(super) inbox: Inbox,
    /// The core has a channel, of whose end it has to be told.
    pub(super) is_open: bool,
}

/// A gate that was reached.
struct Reached {
    index: Index,
    channel: Channel<Tunnel>,
}

impl Line {
    /// Keeps it until the task is aborted.
    pub(super) async fn keep(mut self) {
        let mut wait = BACKOFF.0;
        let mut said = None::<String>;
        loop {
            let began = Instant::now();
            let error = match self.once().await {
                Ok(never) => match never {},
                Err(error) => error,
            };
            let why = format!("{error:#}");
            // One line for each reason, not for each try.
            if std::mem::take(&mut self.is_open) || said.as_ref() != Some(&why) {
                tracing::warn!(path = self.number + 1, "no channel to the gate: {why}");
                self.gone(&why).await;
                said = Some(why);
            }
            if began.elapsed() > PROVED {
                (wait, said) = (BACKOFF.0, None);
            }
            if error.is::<trocar_control::transport::TransportError>() {
                self.look_after_token().await;
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(BACKOFF.1);
        }
    }

    /// Tells the core, which must hear it: the lane is emptied within milliseconds.
    async fn gone(&self, why: &str) {
        for _ in 0..100 {
            if self.inbox.news(News::Gone(self.number, why.to_owned())) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Joins anew where signaling has forgotten us, after its restart for example.
    async fn look_after_token(&self) {
        if let Err(error) = self.api.session().await
            && error.downcast_ref::<Refused>().is_some_and(|r| r.0.status == 401)
            && let Err(error) = self.api.rejoin().await
        {
            tracing::warn!(error = format!("{error:#}"), "not joined again");
        }
    }

    /// From nothing to the end of a channel.
    async fn once(&mut self) -> anyhow::Result<std::convert::Infallible> {
        if let Err(error) = self.trust.reload() {
            tracing::warn!(%error, "trust list");
        }
        let trust = self.trust.current();
        let grant = self.api.grant();
        let to = Connect {
            relay: self.control.resolve().await.with_context(|| self.control.to_string())?,
            local: self.local,
            server_name: self.control.host().to_owned(),
            session: grant.session,
            kind: PartyKind::Station,
            token: Some(grant.token),
        };
        let connected = ControlConnection::connect(&to, &self.identity, &trust).await;
        let (connection, mut events) = connected.with_context(|| self.control.to_string())?;
        let gates = self.gates(&mut events).await?;
        let opening = Arc::clone(&self.opening).lock_owned().await;
        let Reached { index, channel } = self.choose(&connection, gates).await?;
        let gate = channel.peer.name.name.clone();
        let (keys, tunnel, certificate) = (channel.seal_keys()?, channel.tunnel, channel.peer.certificate);
        let number = self.number;
        let (mut reader, writer) = channel.start::<FromGate>(SharedDedupe::default());
        let connected = connection.clone();
        let path =
            Path { number, certificate, tunnel, gate, connection: connected, index, writer: writer.clone(), keys };
        if !self.inbox.news(News::Opened(Box::new(path))) {
            bail!("the station is busy");
        }
        self.is_open = true;
        // Until the gate is heard by it, no other tunnel begins.
        let mut opening = Some(opening);
        let patience = tokio::time::sleep(FIRST_WORD);
        tokio::pin!(patience);
        let ended = loop {
            tokio::select! {
                biased;
                datagram = connection.datagram() => match datagram {
                    // Loss policy: what does not fit is as lost as any datagram, and takes nobody else's place.
                    Ok((from, sealed)) if from == index => self.inbox.datagram(number, sealed),
                    Ok(_) => {}
                    Err(error) => break error.into(),
                },
                message = reader.next() => match message {
                    Ok((id, message)) => {
                        opening = None;
                        if !self.inbox.news(News::Message(number, id, message)) {
                            break anyhow::anyhow!("the station is busy");
                        }
                    }
                    Err(error) => break anyhow::Error::from(error).context("the gate's channel"),
                },
                () = &mut patience, if opening.is_some() => break anyhow::anyhow!("the gate says nothing"),
                event = events.next() => match event {
                    Event::Left(left) if left == index => break anyhow::anyhow!("the gate left the session"),
                    Event::Closed(error) => break error.into(),
                    _ => {}
                },
            }
        };
        writer.close();
        connection.close();
        Err(ended)
    }

    /// Waits for gates.
    async fn gates(&self, events: &mut Events) -> anyhow::Result<Vec<Index>> {
        let mut gates: Vec<Index> = Vec::new();
        let mut deadline = None::<tokio::time::Instant>;
        loop {
            let settled = async {
                match deadline {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                event = events.next() => match event {
                    Event::Joined { index, kind: PartyKind::Gate, .. } if gates.len() < MAX_GATES => {
                        gates.push(index);
                        deadline.get_or_insert(tokio::time::Instant::now() + OTHERS);
                    }
                    Event::Left(gone) => gates.retain(|g| *g != gone),
                    Event::Closed(error) => return Err(error.into()),
                    _ => {}
                },
                () = settled => return Ok(gates),
            }
        }
    }

    /// Opens a channel to the one that is meant.
    async fn choose(&self, connection: &ControlConnection, gates: Vec<Index>) -> anyhow::Result<Reached> {
        let mut found = Vec::new();
        for index in gates {
            match self.reach(connection, index).await {
                Ok(reached) => found.push(reached),
                Err(error) => tracing::warn!(error = format!("{error:#}"), "a gate cannot be reached"),
            }
        }
        let there: Vec<_> = found.iter().map(|r| r.channel.peer.name.name.clone()).collect();
        let chosen = match &self.gate {
            Some(wanted) => found.into_iter().find(|r| r.channel.peer.name.name == *wanted),
            // The only one.
            None => found.pop().filter(|_| found.is_empty()),
        };
        chosen.with_context(|| self.not_found(&there))
    }

    fn not_found(&self, there: &[String]) -> String {
        let there = there.join(", ");
        match &self.gate {
            _ if there.is_empty() => "no gate of the session can be reached".to_owned(),
            Some(wanted) => format!("--gate {wanted}: not in the session; {there} is there"),
            None => format!("several gates are in the session: --gate with one of {there} is right"),
        }
    }

    async fn reach(&self, connection: &ControlConnection, index: Index) -> anyhow::Result<Reached> {
        let tunnel = connection.open_tunnel(index).await?;
        let channel = channel::connect(tunnel, &self.identity, &self.trust.current(), GATE).await?;
        Ok(Reached { index, channel })
    }
}
