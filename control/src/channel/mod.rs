//! The channel: mutual TLS 1.3 (RFC 8446) inside a tunnel, opaque to the relay that carries it.
//!
//! The gate is TLS server, station and signaling are clients. Both verify the other's chain against their own trust list and want a
//! role in its name; nothing is resumed, nothing comes early. Inside are frames: a `u16` length and one reliable message.
//!
//! ```no_run
//! # async fn f(tunnel: trocar_control::transport::Tunnel, trust: &trocar_control::trust::Trust,
//! #     me: &trocar_control::trust::Identity) -> Result<(), Box<dyn std::error::Error>> {
//! use trocar_control::channel::{self, SharedDedupe};
//! use trocar_proto::handover::message::{FromGate, ToGate};
//! let channel = channel::connect(tunnel, me, trust, "gate").await?;
//! let mut keys = channel.seal_keys()?;
//! let (mut reader, writer) = channel.start::<FromGate>(SharedDedupe::default());
//! writer.send(1, &ToGate::Probe { nonce: trocar_proto::handover::types::Nonce(7) })?;
//! let (_id, _message) = reader.next().await?;
//! # Ok(()) }
//! ```

mod frames;

pub use frames::{Message, Reader, SharedDedupe, Writer};

use crate::seal::{EXPORTER_LABEL, End, SECRET_LEN, SealKeys};
use crate::trust::{Identity, PeerIdentity, Trust, TrustError};
use rustls::pki_types::{ServerName, UnixTime};
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};
use trocar_proto::handover::message::DecodeError;
use zeroize::Zeroizing;

/// ALPN of the channel.
pub const ALPN: &[u8] = b"trocar-handover/1";
/// Longest message in a frame, in bytes: a token of 4 KiB and what is around it.
pub const MAX_MESSAGE: usize = 6 << 10;
/// Reliable messages that wait for the line at most. Loss policy: none is left out; a channel that cannot keep up is closed.
pub const WRITER_QUEUE: usize = 64;
/// The TLS handshake is over by then, or the tunnel is given up.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Label of the exporter for the channel's public name, see [`Channel::tunnel`].
const TUNNEL_LABEL: &[u8] = b"EXPORTER-trocar-handover-1 tunnel";

/// Why there is no channel, or no more.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    /// Own certificate or trust list.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// The TLS handshake failed: the peer's certificate, ours at the peer, or the protocol.
    #[error("TLS handshake: {0}")]
    Handshake(io::Error),
    /// It took longer than [`HANDSHAKE_TIMEOUT`].
    #[error("TLS handshake not finished within 5 s")]
    TimedOut,
    /// The certificate has no name `trocar://REALM/ROLE/NAME`.
    #[error("the peer's certificate has no name trocar://REALM/ROLE/NAME")]
    NoName,
    /// The name has another role.
    #[error("the peer's certificate has the role {got}, wanted is {wanted}")]
    Role {
        /// What it has.
        got: String,
        /// What would be right.
        wanted: String,
    },
    /// The other end closed it, or it was closed here.
    #[error("closed")]
    Closed,
    /// The tunnel broke.
    #[error("tunnel: {0}")]
    Io(#[from] io::Error),
    /// A frame that is longer than any message.
    #[error("a frame of {0} bytes: no message has more than {MAX_MESSAGE}")]
    Frame(usize),
    /// A frame that is no message of this way.
    #[error("message: {0}")]
    Message(#[from] DecodeError),
    /// The queue is full: the peer or the relay does not read.
    #[error("{WRITER_QUEUE} messages wait already")]
    Full,
    /// The exporter gave nothing.
    #[error("TLS exporter: {0}")]
    Exporter(rustls::Error),
}

/// A channel after its handshake.
pub struct Channel<S> {
    /// Who is at the other end.
    pub peer: PeerIdentity,
    /// A name of this tunnel that only its two ends know: what [`ToGate::Hello`](trocar_proto::handover::message::ToGate::Hello)
    /// `binds` carries in a second tunnel of the same station. No key can be learned from it.
    pub tunnel: u128,
    stream: TlsStream<S>,
    end: End,
}

impl<S> std::fmt::Debug for Channel<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Channel").field("peer", &self.peer.name).finish_non_exhaustive()
    }
}

/// The gate's side: TLS server. `roles` are those that may come.
///
/// # Errors
/// [`ChannelError`] says which check failed.
pub async fn accept<S>(stream: S, me: &Identity, trust: &Trust, roles: &[&str]) -> Result<Channel<S>, ChannelError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let since = UnixTime::now();
    let acceptor = TlsAcceptor::from(Arc::new(trust.server_config(me, ALPN)?));
    let stream = in_time(acceptor.accept(stream)).await?;
    Channel::of(TlsStream::Server(stream), since, roles, End::Gate)
}

/// The station's or signaling's side: TLS client. `role` is what the other end has to be: `gate`.
///
/// # Errors
/// [`ChannelError`] says which check failed. With TLS 1.3 a certificate that the gate refuses shows only at the first read.
pub async fn connect<S>(stream: S, me: &Identity, trust: &Trust, role: &str) -> Result<Channel<S>, ChannelError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let since = UnixTime::now();
    let connector = TlsConnector::from(Arc::new(trust.device_client_config(me, ALPN)?));
    // Devices have no host names; this one is never looked at, nor does the relay see who is meant (the extension is off).
    let nobody = ServerName::try_from("trocar.invalid").map_err(|e| ChannelError::Handshake(io::Error::other(e)))?;
    let stream = in_time(connector.connect(nobody, stream)).await?;
    Channel::of(TlsStream::Client(stream), since, &[role], End::Station)
}

async fn in_time<T>(handshake: impl Future<Output = io::Result<T>>) -> Result<T, ChannelError> {
    match tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake).await {
        Ok(done) => done.map_err(ChannelError::Handshake),
        Err(_) => Err(ChannelError::TimedOut),
    }
}

fn export<S, T: AsMut<[u8]>>(stream: &TlsStream<S>, out: T, label: &[u8]) -> Result<T, ChannelError> {
    let exported = match stream {
        TlsStream::Client(s) => s.get_ref().1.export_keying_material(out, label, None),
        TlsStream::Server(s) => s.get_ref().1.export_keying_material(out, label, None),
    };
    exported.map_err(ChannelError::Exporter)
}

impl<S: AsyncRead + AsyncWrite + Unpin> Channel<S> {
    fn of(stream: TlsStream<S>, since: UnixTime, roles: &[&str], end: End) -> Result<Self, ChannelError> {
        let (_, tls) = stream.get_ref();
        if tls.alpn_protocol() != Some(ALPN) {
            return Err(ChannelError::Handshake(io::Error::other("the peer does not speak trocar-handover/1")));
        }
        let chain = tls.peer_certificates().unwrap_or_default();
        let peer = PeerIdentity::of(chain, since).ok_or(ChannelError::NoName)?;
        if !roles.contains(&peer.name.role.as_str()) {
            return Err(ChannelError::Role { got: peer.name.role, wanted: roles.join(" or ") });
        }
        let name = export(&stream, [0; 16], TUNNEL_LABEL)?;
        Ok(Self { peer, tunnel: u128::from_be_bytes(name), stream, end })
    }

    /// The TLS stream itself, for whoever speaks something else in it.
    #[must_use]
    pub fn into_stream(self) -> TlsStream<S> {
        self.stream
    }

    /// The keys for sealed datagrams; each call gives the same ones with nothing live, so it is made once.
    ///
    /// # Errors
    /// [`ChannelError::Exporter`] where TLS gives no secret.
    pub fn seal_keys(&self) -> Result<SealKeys, ChannelError> {
        let secret = export(&self.stream, Zeroizing::new([0; SECRET_LEN]), EXPORTER_LABEL)?;
        Ok(SealKeys::new(secret, self.end))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> Channel<S> {
    /// Begins to carry messages; `I` is what comes in: [`ToGate`](trocar_proto::handover::message::ToGate) at the gate,
    /// [`FromGate`](trocar_proto::handover::message::FromGate) elsewhere. `seen` is shared by all tunnels of one sender. Has to be
    /// called within a tokio runtime, where a task writes.
    #[must_use]
    pub fn start<I: Message>(self, seen: SharedDedupe) -> (Reader<I, S>, Writer) {
        frames::start(self.stream, seen)
    }
}
