//! An expert's end of a channel without a station behind it: says what the test wants, when it wants, as often as it wants.

use crate::stack::Stack;
use anyhow::{Context, bail};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;
use tokio::time::timeout;
use trocar_control::channel::{Channel, Reader, SharedDedupe, Writer, connect};
use trocar_control::seal::SealKeys;
use trocar_control::transport::{Connect, ControlConnection, Event, Events, Tunnel};
use trocar_control::trust::{Identity, Trust};
use trocar_proto::control::{Index, PartyKind};
use trocar_proto::handover::message::{Datagram, FromGate, ToGate, Token};
use trocar_proto::handover::types::{Epoch, Oid};
use trocar_proto::session::api::{JoinRequest, TokenGrant};

/// What is waited for comes within this.
const PATIENCE: Duration = Duration::from_secs(10);

/// A certificate, a token, and a channel to the gate.
pub struct Party {
    /// To the relay.
    pub connection: ControlConnection,
    /// What the relay says; kept, so that the connection is read.
    pub events: Events,
    /// The gate's number at the relay.
    pub gate: Index,
    /// What the gate says.
    pub reader: Reader<FromGate, Tunnel>,
    writer: Writer,
    keys: SealKeys,
    token: Token,
    next: u64,
}

/// Own certificate and whom one trusts, by the files of a theatre's state folder.
///
/// # Errors
/// Where they are not there.
pub fn credentials(stack: &Stack, name: &str) -> anyhow::Result<(Identity, Trust)> {
    let state: PathBuf = stack.dir.path().join("state");
    let me = Identity::from_pem_files(&state.join(format!("{name}.pem")), &state.join(format!("{name}.key")))?;
    let trust = Trust::from_pem(&std::fs::read(stack.text("/ca_file")?)?, None)?;
    Ok((me, trust))
}

/// A session token for an expert that is bound to this certificate.
///
/// # Errors
/// Where signaling refuses.
pub async fn expert_token(stack: &Stack, me: &Identity) -> anyhow::Result<String> {
    let link = stack.text("/tokens/expert")?;
    let join = JoinRequest {
        invitation: link,
        name: Some("Dr. X".into()),
        organisation: None,
        cnf: Some(me.hash()),
        break_glass: None,
        device: None,
    };
    let page = stack.text("/page")?;
    let answer = crate::http_client()?.post(format!("{page}v1/join")).json(&join).send().await?;
    let grant: TokenGrant = answer.error_for_status()?.json().await?;
    Ok(grant.token)
}

impl Party {
    /// Connects, finds the gate, opens a channel and says HELLO.
    ///
    /// # Errors
    /// What did not come about.
    pub async fn connect(stack: &Stack, relay: SocketAddr, name: &str) -> anyhow::Result<Self> {
        let (me, trust) = credentials(stack, name)?;
        let token = expert_token(stack, &me).await?;
        let to = Connect {
            relay,
            local: None,
            server_name: "localhost".to_owned(),
            session: stack.text("/session")?.parse()?,
            kind: PartyKind::Station,
            token: Some(token.clone()),
        };
        let (connection, mut events) = ControlConnection::connect(&to, &me, &trust).await?;
        let gate = timeout(PATIENCE, async {
            loop {
                match events.next().await {
                    Event::Joined { index, kind: PartyKind::Gate, .. } => return Ok(index),
                    Event::Closed(e) => bail!("closed: {e}"),
                    _ => {}
                }
            }
        });
        let gate = gate.await.context("no gate")??;
        let channel: Channel<Tunnel> = connect(connection.open_tunnel(gate).await?, &me, &trust, "gate").await?;
        let keys = channel.seal_keys()?;
        let (reader, writer) = channel.start::<FromGate>(SharedDedupe::default());
        let token = Token::new(token)?;
        let mut party = Self { connection, events, gate, reader, writer, keys, token, next: 0 };
        let hello = ToGate::Hello { capabilities: 0, binds: None, token: party.token.clone() };
        party.say(&hello)?;
        Ok(party)
    }

    /// Says it reliably.
    ///
    /// # Errors
    /// Where the channel is gone.
    pub fn say(&mut self, message: &ToGate) -> anyhow::Result<()> {
        self.next += 1;
        self.writer.send(self.next, message).map_err(Into::into)
    }

    /// "I have control", for that offer, whosever it is. Keys serve 256 offers of a channel; beyond that only the word goes out.
    ///
    /// # Errors
    /// As [`Self::say`].
    pub fn accept(&mut self, oid: Oid) -> anyhow::Result<()> {
        let _ = self.keys.accept(oid);
        let token = self.token.clone();
        self.say(&ToGate::Accept { oid, token })
    }

    /// From now on datagrams of this epoch can be sealed and opened.
    ///
    /// # Errors
    /// Where the keys cannot be had.
    pub fn granted(&mut self, epoch: Epoch) -> anyhow::Result<()> {
        self.keys.grant(epoch).map_err(Into::into)
    }

    /// The bytes that a relay would carry.
    ///
    /// # Errors
    /// Where no key is live for its binding.
    pub fn seal(&mut self, datagram: &Datagram) -> anyhow::Result<Vec<u8>> {
        self.keys.seal(datagram).map_err(Into::into)
    }

    /// Sends bytes to the gate; false where they were dropped here.
    #[must_use]
    pub fn throw(&self, sealed: &[u8]) -> bool {
        self.connection.send_datagram(self.gate, sealed)
    }

    /// The next datagram from the gate that opens.
    ///
    /// # Errors
    /// Where the connection is gone.
    pub async fn catch(&self) -> anyhow::Result<Datagram> {
        loop {
            let (_, bytes) = self.connection.datagram().await?;
            if let Ok(datagram) = self.keys.open(&bytes) {
                return Ok(datagram);
            }
        }
    }

    /// The next message that is like this; others are passed over.
    ///
    /// # Errors
    /// Where none comes in time.
    pub async fn until<T>(&mut self, what: &str, like: impl Fn(FromGate) -> Option<T>) -> anyhow::Result<T> {
        let found = timeout(PATIENCE, async {
            loop {
                let (_, message) = self.reader.next().await?;
                if let Some(found) = like(message) {
                    return Ok::<T, anyhow::Error>(found);
                }
            }
        });
        found.await.with_context(|| format!("no {what}"))?
    }
}
