//! QUIC for media: TLS with client certificates, windows, and the rate controller's place (RFC 9000, RFC 9221).
//!
//! Used by the relay's listener and by our native clients, so that both ends have the same limits.

use quinn::congestion::{Controller, ControllerFactory};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{IdleTimeout, TransportConfig, VarInt};
use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
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
    let mut server = server_config_for(identity, roq::ALPN)?;
    server.transport_config(Arc::new(transport_config()));
    server.max_incoming(1_024);
    server.incoming_buffer_size_total(8 << 20);
    Ok(server)
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
    Ok(quinn::ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(config).map_err(tls)?)))
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
    let mut client = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(config).map_err(tls)?));
    client.transport_config(Arc::new(transport_config()));
    Ok(client)
}

/// Streams that one side may have open towards the other at a time: packets that fit no datagram, a stream per frame.
const MAX_STREAMS: u32 = 32;

/// Limits of a media connection.
#[must_use]
pub fn transport_config() -> TransportConfig {
    let mut t = TransportConfig::default();
    t.max_idle_timeout(IdleTimeout::try_from(IDLE_TIMEOUT).ok())
        .keep_alive_interval(Some(KEEP_ALIVE))
        .max_concurrent_bidi_streams(VarInt::from_u32(0))
        .max_concurrent_uni_streams(VarInt::from_u32(MAX_STREAMS))
        .receive_window(VarInt::from_u32(1 << 20))
        .stream_receive_window(VarInt::from_u32(1 << 18))
        .datagram_receive_buffer_size(Some(DATAGRAM_RECEIVE_BUFFER))
        .datagram_send_buffer_size(DATAGRAM_SEND_BUFFER)
        .congestion_controller_factory(Arc::new(SteadyWindow));
    t
}

/// The place of the media rate controller: a window that does not shrink with loss, so that random loss does not halve
/// the picture (Cubic would govern the datagrams otherwise). A sender is bounded by its encoder; policing at the
/// grant and reaction to queueing delay come with the media path.
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
    let s = socket2::SockRef::from(&socket);
    let _ = s.set_recv_buffer_size(SOCKET_BUFFER);
    let _ = s.set_send_buffer_size(SOCKET_BUFFER);
    // Linux reports twice what may be used.
    let got = s.recv_buffer_size().map_err(failed)? / 2;
    if got < SOCKET_BUFFER {
        tracing::warn!(
            %address, got, wanted = SOCKET_BUFFER,
            "socket receive buffer is smaller than wanted, bursts may be lost: sysctl -w net.core.rmem_max={SOCKET_BUFFER}"
        );
    }
    Ok(socket)
}
