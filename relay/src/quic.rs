//! QUIC for media: TLS with client certificates, windows, and the rate controller's place (RFC 9000, RFC 9221).
//!
//! Used by the relay's listener and by our native clients, so that both ends have the same limits.

mod line;
mod seat;
#[cfg(test)]
mod tests;

pub use line::{GRANT_UNKNOWN, LineControl, LineControlFactory, LineFigures, add_granted, line_figures, set_granted};
pub use seat::Seat;

use quinn::congestion::{Controller, ControllerFactory};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{AckFrequencyConfig, IdleTimeout, MtuDiscoveryConfig, TransportConfig, VarInt};
use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use std::any::Any;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};
use trocar_proto::media::roq;

/// A connection without a packet for this long is dead.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(3);
/// Keep-alive, well below [`IDLE_TIMEOUT`].
pub const KEEP_ALIVE: Duration = Duration::from_millis(750);
/// Bytes of datagrams that wait in a connection for the line. Loss policy: the leg leaves whole frames out.
pub const DATAGRAM_SEND_BUFFER: usize = 4 << 20;
/// Bytes of datagrams that came and have not been read. Loss policy: quinn drops the oldest.
pub const DATAGRAM_RECEIVE_BUFFER: usize = 8 << 20;
/// Socket buffers that are asked for, in bytes: 50 Mbit/s bursts overrun the kernel's default of 208 KiB.
pub const SOCKET_BUFFER: usize = 4 << 20;

/// What went wrong in setting up QUIC or TLS.
#[derive(Debug, thiserror::Error)]
pub enum QuicError {
    /// Certificate, key or trust list.
    #[error("TLS: {0}")]
    Tls(String),
    /// Socket.
    #[error("UDP socket {0}: {1}")]
    Socket(SocketAddr, std::io::Error),
}

/// Certificates of one side.
pub struct Identity {
    /// Own chain, leaf first.
    pub chain: Vec<CertificateDer<'static>>,
    /// Key of the leaf.
    pub key: PrivateKeyDer<'static>,
    /// Who is trusted on the other side.
    pub trust: Vec<CertificateDer<'static>>,
}

impl Identity {
    /// The same once more.
    #[must_use]
    pub fn duplicate(&self) -> Self {
        Self { chain: self.chain.clone(), key: self.key.clone_key(), trust: self.trust.clone() }
    }
}

fn roots(trust: &[CertificateDer<'static>]) -> Result<Arc<RootCertStore>, QuicError> {
    let mut store = RootCertStore::empty();
    for c in trust {
        store.add(c.clone()).map_err(|e| QuicError::Tls(format!("trust list: {e}")))?;
    }
    Ok(Arc::new(store))
}

fn tls(e: impl std::fmt::Display) -> QuicError {
    QuicError::Tls(e.to_string())
}

/// The relay's side: TLS 1.3, client certificate required, ALPN `roq-14`, no early data.
///
/// # Errors
/// [`QuicError::Tls`] where certificate, key or trust list cannot be used.
pub fn server_config(identity: Identity) -> Result<quinn::ServerConfig, QuicError> {
    Ok(media(server_config_for(identity, roq::ALPN)?))
}

/// The same with TLS that is ready.
pub(crate) fn server_config_of(tls: rustls::ServerConfig) -> Result<quinn::ServerConfig, QuicError> {
    Ok(media(with_tls(tls)?))
}

fn media(mut server: quinn::ServerConfig) -> quinn::ServerConfig {
    server.transport_config(Arc::new(transport_config()));
    server.max_incoming(1_024);
    server.incoming_buffer_size_total(8 << 20);
    server
}

/// TLS that is ready, with quinn's own transport settings.
pub(crate) fn with_tls(config: rustls::ServerConfig) -> Result<quinn::ServerConfig, QuicError> {
    Ok(quinn::ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(config).map_err(tls)?)))
}

/// The same TLS for another protocol, with quinn's own transport settings.
pub(crate) fn server_config_for(identity: Identity, alpn: &[u8]) -> Result<quinn::ServerConfig, QuicError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(roots(&identity.trust)?, Arc::clone(&provider))
        .build()
        .map_err(tls)?;
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(tls)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(identity.chain, identity.key)
        .map_err(tls)?;
    config.alpn_protocols = vec![alpn.to_vec()];
    config.max_early_data_size = 0;
    // Whoever resumed a session would not be held against the trust list of now.
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    with_tls(config)
}

/// A native client's side.
///
/// # Errors
/// [`QuicError::Tls`] where certificate, key or trust list cannot be used.
pub fn client_config(identity: Identity) -> Result<quinn::ClientConfig, QuicError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(tls)?
        .with_root_certificates(roots(&identity.trust)?)
        .with_client_auth_cert(identity.chain, identity.key)
        .map_err(tls)?;
    config.alpn_protocols = vec![roq::ALPN.to_vec()];
    client_config_of(config)
}

/// The same with TLS that is ready.
pub(crate) fn client_config_of(config: rustls::ClientConfig) -> Result<quinn::ClientConfig, QuicError> {
    let mut client = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(config).map_err(tls)?));
    client.transport_config(Arc::new(transport_config()));
    Ok(client)
}

/// Streams that one side may have open towards the other at a time: packets that fit no datagram, a stream per frame.
/// Sized for the frames in flight: a round trip of 150 ms and a budget of 200 ms hold 21 of a picture at 60 Hz, 18 of a sound
/// with a frame each 20 ms, and a connection carries several.
const MAX_STREAMS: u32 = 256;

/// Bytes of one stream that may be under way: a large key frame. What a connection may have under way in all is bounded by its
/// receive window, which is opened for what comes by it ([`crate::frames::receive_window`]).
const STREAM_WINDOW: u32 = 4 << 20;

/// A packet is lost when so many later ones are acknowledged, or by time (9/8 of a round trip, RFC 9002 section 6.1): few
/// packets out of order, as on radio lines, are none.
const PACKET_THRESHOLD: u32 = 32;
/// Of the other end, where it is quinn as well, an acknowledgement is asked for every so many packets and after this time:
/// fewer than by default at high rates, and sooner at low ones (the default is 25 ms, which hides the queueing delay).
const ACK_EVERY: u32 = 8;
const ACK_WITHIN: Duration = Duration::from_millis(5);

/// Bursts of loss of large packets look like a path that takes them no more; then the smallest size holds until the next search.
/// A lossy line makes that mistake often, and its packets of 1,200 bytes would go by streams for the default of a minute.
const MTU_SEARCH_AGAIN: Duration = Duration::from_secs(3);

fn mtu_discovery() -> MtuDiscoveryConfig {
    let mut m = MtuDiscoveryConfig::default();
    m.black_hole_cooldown(MTU_SEARCH_AGAIN);
    m
}

fn ack_frequency() -> AckFrequencyConfig {
    let mut a = AckFrequencyConfig::default();
    a.ack_eliciting_threshold(VarInt::from_u32(ACK_EVERY - 1))
        .max_ack_delay(Some(ACK_WITHIN))
        .reordering_threshold(VarInt::from_u32(PACKET_THRESHOLD / 2));
    a
}

/// Limits of a media connection.
#[must_use]
pub fn transport_config() -> TransportConfig {
    let mut t = TransportConfig::default();
    t.max_idle_timeout(IdleTimeout::try_from(IDLE_TIMEOUT).ok())
        .keep_alive_interval(Some(KEEP_ALIVE))
        .max_concurrent_bidi_streams(VarInt::from_u32(0))
        .max_concurrent_uni_streams(VarInt::from_u32(MAX_STREAMS))
        .receive_window(VarInt::from_u32(1 << 20))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW))
        .datagram_receive_buffer_size(Some(DATAGRAM_RECEIVE_BUFFER))
        .datagram_send_buffer_size(DATAGRAM_SEND_BUFFER)
        .ack_frequency_config(Some(ack_frequency()))
        .packet_threshold(PACKET_THRESHOLD)
        .mtu_discovery_config(Some(mtu_discovery()))
        .congestion_controller_factory(Arc::new(LineControlFactory));
    t
}

/// A window that never shrinks, for connections of small messages that are bounded elsewhere (control).
#[derive(Debug, Clone, Copy)]
pub struct SteadyWindow;

/// Bytes in flight at most: 400 Mbit/s over 150 ms.
const STEADY_WINDOW: u64 = 8 << 20;

impl ControllerFactory for SteadyWindow {
    fn build(self: Arc<Self>, _now: Instant, _current_mtu: u16) -> Box<dyn Controller> {
        Box::new(*self)
    }
}

impl Controller for SteadyWindow {
    fn on_congestion_event(&mut self, _now: Instant, _sent: Instant, _persistent: bool, _lost_bytes: u64) {}

    fn on_mtu_update(&mut self, _new_mtu: u16) {}

    fn window(&self) -> u64 {
        STEADY_WINDOW
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(*self)
    }

    fn initial_window(&self) -> u64 {
        STEADY_WINDOW
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

/// A UDP socket with large buffers, which are read back; too small ones are warned about with the exact setting.
///
/// # Errors
/// [`QuicError::Socket`] with the address.
pub fn bind_udp(address: SocketAddr) -> Result<UdpSocket, QuicError> {
    let failed = |e| QuicError::Socket(address, e);
    let socket = UdpSocket::bind(address).map_err(failed)?;
    socket.set_nonblocking(true).map_err(failed)?;
    crate::sockets::size_buffers(&socket, address, SOCKET_BUFFER).map_err(failed)?;
    Ok(socket)
}
