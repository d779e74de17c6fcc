//! A way for a client that is not ours to the DTLS of the relay's media port. That port answers no address that ICE has not validated, so
//! the client is let in by HTTP and validated here, and its datagrams are handed on from here, both ways.

use super::{Viewer, agent, candidate, offer};
use crate::stack::{PATIENCE, Stack};
use anyhow::Context as _;
use is::stun::{StunMessage, StunPacket};
use is::{IceAgent, IceCreds, Protocol};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tokio::net::UdpSocket;

/// Between two looks at what ICE has to send.
const TICK: Duration = Duration::from_millis(20);

/// Where doors are opened.
pub struct Entrance {
    page: String,
    invitation: String,
}

/// An open door, for one client.
pub struct Door {
    ice: IceAgent,
    relay: SocketAddr,
    own: SocketAddr,
    outside: UdpSocket,
    inside: UdpSocket,
    client: Option<SocketAddr>,
}

impl Entrance {
    /// The one of a running system.
    ///
    /// # Errors
    /// Where its report lacks something.
    pub fn of(stack: &Stack) -> anyhow::Result<Self> {
        Ok(Self { page: stack.text("/page")?, invitation: stack.text("/tokens/local")? })
    }

    /// Publishes `feed` as the local team would, with a client whose certificate has that fingerprint (SHA-256, as SDP has it), and validates
    /// the address.
    ///
    /// # Errors
    /// Where the offer is refused or ICE finds no pair within [`PATIENCE`].
    pub async fn open(&self, feed: &str, fingerprint: &str) -> anyhow::Result<Door> {
        let creds = IceCreds::new();
        let sdp = offer(&creds, fingerprint).replace("a=recvonly", "a=sendonly");
        let somebody = Viewer::join(&self.page, &self.invitation).await?;
        let (answer, _) = somebody.offer(&format!("whip?feed={feed}"), sdp).await?;
        let (outside, inside) = (UdpSocket::bind("127.0.0.1:0").await?, UdpSocket::bind("127.0.0.1:0").await?);
        let (own, relay) = (outside.local_addr()?, candidate(&answer, "udp")?);
        let ice = agent(creds, (own, Protocol::Udp), relay, &answer)?;
        let mut door = Door { ice, relay, own, outside, inside, client: None };
        let found = async {
            while !door.ice.state().is_connected() {
                door.step().await?;
            }
            anyhow::Ok(())
        };
        tokio::time::timeout(PATIENCE, found).await.context("no pair in time")??;
        Ok(door)
    }
}

impl Door {
    /// Where the client has to connect to.
    ///
    /// # Errors
    /// Where the socket has no address.
    pub fn address(&self) -> anyhow::Result<SocketAddr> {
        Ok(self.inside.local_addr()?)
    }

    /// Hands on for as long as this is polled.
    ///
    /// # Errors
    /// Where a socket fails.
    pub async fn hand_on(mut self) -> anyhow::Result<Infallible> {
        loop {
            self.step().await?;
        }
    }

    async fn step(&mut self) -> anyhow::Result<()> {
        let now = Instant::now();
        self.ice.handle_timeout(now);
        while let Some(t) = self.ice.poll_transmit() {
            let bytes: Vec<u8> = t.contents.into();
            self.outside.send_to(&bytes, t.destination).await?;
        }
        while self.ice.poll_event().is_some() {}
        let (mut came, mut said) = ([0; 2_048], [0; 2_048]);
        tokio::select! {
            read = self.outside.recv_from(&mut came) => {
                let (length, source) = read?;
                self.hear(now, source, came.get(..length).unwrap_or_default()).await?;
            }
            read = self.inside.recv_from(&mut said) => {
                let (length, client) = read?;
                self.client = Some(client);
                self.outside.send_to(said.get(..length).unwrap_or_default(), self.relay).await?;
            }
            () = tokio::time::sleep(TICK) => {}
        }
        Ok(())
    }

    async fn hear(&mut self, now: Instant, source: SocketAddr, data: &[u8]) -> anyhow::Result<()> {
        match (data.first(), self.client) {
            (Some(0..=1), _) => {
                if let Ok(message) = StunMessage::parse(data) {
                    let (proto, destination) = (Protocol::Udp, self.own);
                    self.ice.handle_packet(now, StunPacket { proto, source, destination, message });
                }
            }
            // The first bytes of DTLS (RFC 7983).
            (Some(20..=63), Some(client)) => drop(self.inside.send_to(data, client).await?),
            _ => {}
        }
        Ok(())
    }
}
