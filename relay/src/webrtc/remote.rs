//! Where a peer is: an address, reached by UDP or by a TCP connection that the peer opened (RFC 6544).

use std::fmt;
use std::net::SocketAddr;

/// A peer's address and how it is reached. The same address and port by UDP and by TCP are two places.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Remote {
    /// Its address, as our socket sees it.
    pub address: SocketAddr,
    /// By TCP, in frames of RFC 4571.
    pub tcp: bool,
}

impl Remote {
    /// By UDP.
    #[must_use]
    pub const fn udp(address: SocketAddr) -> Self {
        Self { address, tcp: false }
    }

    /// By TCP.
    #[must_use]
    pub const fn tcp(address: SocketAddr) -> Self {
        Self { address, tcp: true }
    }
}

impl fmt::Display for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, if self.tcp { "tcp" } else { "udp" })
    }
}
