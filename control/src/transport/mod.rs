//! One QUIC connection to the rendezvous of a relay (RFC 9000, RFC 9221; wire: [`trocar_proto::control`]).
//!
//! The relay may lie, delay and drop; everything from it is bounded and checked, and nothing that it says counts as more than a hint.
//! When the connection is lost it stays lost: connecting again is the caller's to decide.

mod quic;
mod rendezvous;

pub use quic::{IDLE_TIMEOUT, KEEP_ALIVE, Steady, limits};
pub use rendezvous::{read_frame, write_frame};

use crate::trust::{Identity, Trust, TrustError};
use bytes::Bytes;
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{Connection, Endpoint, RecvStream, SendStream, VarInt};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::Join;
use tokio::sync::mpsc;
use trocar_proto::control::{
    ALPN, FromRelay, Index, MAX_TUNNELS, PartyKind, ToRelay, TunnelTo, join_datagram, split_datagram,
};
use trocar_proto::handover::message::FromGate;
use trocar_proto::session::ids::{CertHash, SessionId};

/// Connecting, from the first packet to the relay's `Connected`, takes no longer.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The first frame of a tunnel is there by then, or the tunnel is dropped.
const TUNNEL_HEAD_TIMEOUT: Duration = Duration::from_secs(2);
/// Events that wait for the caller at most. Loss policy: none is left out; the connection waits, and idles out if nobody reads.
const EVENTS: usize = 256;
/// STATUS copies that wait at most. Loss policy: the newest is dropped, the next comes within a tenth of a second.
const STATUS_QUEUE: usize = 16;

/// A tunnel's two directions as one stream of opaque bytes.
pub type Tunnel = Join<RecvStream, SendStream>;

/// Whom to connect to, and as whom.
#[derive(Debug, Clone)]
pub struct Connect {
    /// The relay's control address.
    pub relay: SocketAddr,
    /// Own address to send from, where there are several ways out; otherwise the system chooses.
    pub local: Option<IpAddr>,
    /// Its name as its certificate has it: a host name or an address as text.
    pub server_name: String,
    /// Which session.
    pub session: SessionId,
    /// What one is; the certificate's role has to agree.
    pub kind: PartyKind,
    /// A station's session token.
    pub token: Option<String>,
}

/// Why there is no connection, or no more.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// Own certificate, trust list or host name.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// The local socket.
    #[error("UDP socket: {0}")]
    Socket(#[from] std::io::Error),
    /// Own address is of another family than the relay's.
    #[error("relay {relay}: {local} is an address of another family")]
    Family {
        /// Where to.
        relay: SocketAddr,
        /// Where from.
        local: IpAddr,
    },
    /// QUIC's set-up.
    #[error("relay {0}: {1}")]
    Setup(SocketAddr, String),
    /// The connection.
    #[error("relay: {0}")]
    Connection(#[from] quinn::ConnectionError),
    /// Not within [`CONNECT_TIMEOUT`].
    #[error("relay {0}: no answer within 5 s")]
    TimedOut(SocketAddr),
    /// The relay refused, with its words.
    #[error("the relay refuses: {0}")]
    Refused(String),
    /// A frame that is too long, or not what belongs there.
    #[error("the relay said what does not belong there: {0}")]
    Frame(String),
    /// A stream broke.
    #[error("stream: {0}")]
    Stream(String),
}

/// What happens at the relay.
#[derive(Debug)]
pub enum Event {
    /// Somebody is there.
    Joined {
        /// Its number.
        index: Index,
        /// What it is, as the relay says.
        kind: PartyKind,
        /// What the relay saw of its certificate.
        certificate: CertHash,
    },
    /// That one is gone.
    Left(Index),
    /// To be answered by [`ControlConnection::status`].
    Probe(u64),
    /// Somebody opened a tunnel.
    Tunnel {
        /// By whom, as the relay says.
        from: Index,
        /// Its bytes.
        tunnel: Tunnel,
    },
    /// The connection is gone; nothing comes after this.
    Closed(TransportError),
}

/// The connection; cloned freely. Closes when all clones are dropped.
#[derive(Debug, Clone)]
pub struct ControlConnection {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    connection: Connection,
    /// Drives the connection; has a socket of its own.
    _endpoint: Endpoint,
    index: Index,
    statuses: mpsc::Sender<ToRelay>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.connection.close(VarInt::from_u32(0), b"");
    }
}

/// What happens at the relay, in order.
#[derive(Debug)]
pub struct Events(mpsc::Receiver<Event>);

impl Events {
    /// The next one. Dropping the future loses nothing. After [`Event::Closed`] that again.
    pub async fn next(&mut self) -> Event {
        self.0.recv().await.unwrap_or_else(|| Event::Closed(TransportError::Stream("closed".to_owned())))
    }
}

impl ControlConnection {
    /// Connects and says who one is; comes back when the relay knows it. Has to be called within a tokio runtime.
    ///
    /// # Errors
    /// [`TransportError`] says what is wrong; a refusal has the relay's words.
    pub async fn connect(to: &Connect, me: &Identity, trust: &Trust) -> Result<(Self, Events), TransportError> {
        match tokio::time::timeout(CONNECT_TIMEOUT, establish(to, me, trust)).await {
            Ok(done) => done,
            Err(_) => Err(TransportError::TimedOut(to.relay)),
        }
    }

    /// One's own number at the relay.
    #[must_use]
    pub fn index(&self) -> Index {
        self.inner.index
    }

    /// Opens a tunnel to a party.
    ///
    /// # Errors
    /// [`TransportError`] where the connection is gone.
    pub async fn open_tunnel(&self, to: Index) -> Result<Tunnel, TransportError> {
        let (mut send, receive) = self.inner.connection.open_bi().await?;
        write_frame(&mut send, &TunnelTo { to }).await?;
        Ok(tokio::io::join(receive, send))
    }

    /// Hands a sealed datagram to the line, from any thread, without waiting; false where it was dropped. Where the line is slower, the
    /// oldest that waits is dropped: an old command is worth nothing.
    pub fn send_datagram(&self, to: Index, sealed: &[u8]) -> bool {
        self.inner.connection.send_datagram(Bytes::from(join_datagram(to, sealed))).is_ok()
    }

    /// The next datagram and from whom the relay says that it is; too short ones are skipped. Dropping the future loses nothing.
    ///
    /// # Errors
    /// [`TransportError::Connection`] where the connection is gone.
    pub async fn datagram(&self) -> Result<(Index, Bytes), TransportError> {
        loop {
            let whole = self.inner.connection.read_datagram().await?;
            if let Some((from, opaque)) = split_datagram(&whole) {
                let opaque = whole.slice_ref(opaque);
                return Ok((from, opaque));
            }
        }
    }

    /// A copy of the gate's STATUS for the relay's mirror; false where it was dropped.
    pub fn status(&self, id: u64, status: &FromGate) -> bool {
        let bytes = hex::encode(trocar_proto::handover::message::encode_from_gate(id, status));
        self.inner.statuses.try_send(ToRelay::Status { bytes }).is_ok()
    }

    /// Round-trip time to the relay as QUIC measures it.
    #[must_use]
    pub fn rtt(&self) -> Duration {
        self.inner.connection.rtt()
    }

    /// Closes it at once.
    pub fn close(&self) {
        self.inner.connection.close(VarInt::from_u32(0), b"");
    }
}

async fn establish(to: &Connect, me: &Identity, trust: &Trust) -> Result<(ControlConnection, Events), TransportError> {
    let setup = |why: String| TransportError::Setup(to.relay, why);
    let tls = QuicClientConfig::try_from(trust.host_client_config(me, ALPN)?).map_err(|e| setup(e.to_string()))?;
    let mut config = quinn::ClientConfig::new(Arc::new(tls));
    config.transport_config(Arc::new(limits()));
    if let Some(local) = to.local.filter(|l| l.is_ipv4() != to.relay.is_ipv4()) {
        return Err(TransportError::Family { relay: to.relay, local });
    }
    let endpoint = quic::client_endpoint(to.relay, to.local)?;
    let connecting = endpoint.connect_with(config, to.relay, &to.server_name).map_err(|e| setup(e.to_string()))?;
    let connection = connecting.await?;
    let (mut send, mut receive) = connection.open_bi().await?;
    let hello = ToRelay::Connect { session: to.session.clone(), kind: to.kind, token: to.token.clone() };
    write_frame(&mut send, &hello).await?;
    let index = match read_frame(&mut receive).await? {
        FromRelay::Connected { index } => index,
        FromRelay::Refused { reason } => return Err(TransportError::Refused(rendezvous::plain(&reason))),
        other => return Err(TransportError::Frame(format!("first frame: {other:?}"))),
    };
    let (events, received) = mpsc::channel(EVENTS);
    let (statuses, waiting) = mpsc::channel(STATUS_QUEUE);
    tokio::spawn(rendezvous::read_events(connection.clone(), receive, events.clone()));
    tokio::spawn(rendezvous::write_statuses(send, waiting));
    tokio::spawn(accept_tunnels(connection.clone(), events));
    let inner = Inner { connection, _endpoint: endpoint, index, statuses };
    Ok((ControlConnection { inner: Arc::new(inner) }, Events(received)))
}

/// Takes tunnels that others open. QUIC's own limit bounds how many there are at a time.
async fn accept_tunnels(connection: Connection, events: mpsc::Sender<Event>) {
    let heads = Arc::new(tokio::sync::Semaphore::new(MAX_TUNNELS));
    while let Ok((send, mut receive)) = connection.accept_bi().await {
        let Ok(permit) = Arc::clone(&heads).try_acquire_owned() else { continue };
        let events = events.clone();
        tokio::spawn(async move {
            let _permit = permit;
            let head = tokio::time::timeout(TUNNEL_HEAD_TIMEOUT, read_frame(&mut receive)).await;
            if let Ok(Ok(trocar_proto::control::TunnelFrom { from })) = head {
                let _ = events.send(Event::Tunnel { from, tunnel: tokio::io::join(receive, send) }).await;
            }
        });
    }
}
