//! QUIC for control: short time-outs, small buffers, a window that never holds a datagram back.

use quinn::congestion::{Controller, ControllerFactory};
use quinn::{Endpoint, IdleTimeout, TransportConfig, VarInt};
use std::any::Any;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};
use trocar_proto::control::MAX_TUNNELS;

/// A connection without a packet for this long is dead.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(2);
/// Keep-alive, well below [`IDLE_TIMEOUT`].
pub const KEEP_ALIVE: Duration = Duration::from_millis(500);
/// Bytes of datagrams that wait for the line. Loss policy: quinn drops the oldest; 16 KiB are 14 of the longest.
const DATAGRAM_SEND_BUFFER: usize = 16 << 10;
/// Bytes of datagrams that came and were not read. Loss policy: quinn drops the oldest. 50 ms of a full holder at 1 kHz.
const DATAGRAM_RECEIVE_BUFFER: usize = 64 << 10;
/// Bytes in flight at most: more than control ever has.
const WINDOW: u64 = 4 << 20;

/// Limits of a control connection, for both ends.
#[must_use]
pub fn limits() -> TransportConfig {
    let tunnels = u32::try_from(MAX_TUNNELS).unwrap_or(u32::MAX);
    let mut t = TransportConfig::default();
    t.max_idle_timeout(IdleTimeout::try_from(IDLE_TIMEOUT).ok())
        .keep_alive_interval(Some(KEEP_ALIVE))
        .max_concurrent_bidi_streams(VarInt::from_u32(tunnels + 1))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .stream_receive_window(VarInt::from_u32(64 << 10))
        .receive_window(VarInt::from_u32(1 << 20))
        .send_window(1 << 20)
        .datagram_receive_buffer_size(Some(DATAGRAM_RECEIVE_BUFFER))
        .datagram_send_buffer_size(DATAGRAM_SEND_BUFFER)
        .congestion_controller_factory(Arc::new(Steady));
    t
}

/// A window that does not shrink with loss. Control sends at most 1,000 datagrams a second, bounded at their source and policed at the
/// gate (HO-P-001); a congestion controller that held one back would only make it too old to count.
#[derive(Debug, Clone, Copy)]
pub struct Steady;

impl ControllerFactory for Steady {
    fn build(self: Arc<Self>, _now: Instant, _current_mtu: u16) -> Box<dyn Controller> {
        Box::new(*self)
    }
}

impl Controller for Steady {
    fn on_congestion_event(&mut self, _now: Instant, _sent: Instant, _persistent: bool, _lost_bytes: u64) {}

    fn on_mtu_update(&mut self, _new_mtu: u16) {}

    fn window(&self) -> u64 {
        WINDOW
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(*self)
    }

    fn initial_window(&self) -> u64 {
        WINDOW
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

/// An endpoint with a socket of its own, of the relay's address family, at that local address.
pub(super) fn client_endpoint(relay: SocketAddr, local: Option<IpAddr>) -> std::io::Result<Endpoint> {
    let any: IpAddr = if relay.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    Endpoint::client((local.unwrap_or(any), 0).into())
}
