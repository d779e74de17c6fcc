//! Measuring the line to a node: what `trocar link test` asks signaling for, and what it gets.

use core::net::SocketAddr;
use serde::{Deserialize, Serialize};

/// Answer to `POST /v1/sessions/{session}/link-tests`: lets one measurement begin, within half a minute.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LinkTestGrant {
    /// Where the responder is, UDP and TCP: the first is tried first.
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
    pub addresses: Vec<SocketAddr>,
    /// Where the relay's media takes QUIC.
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
    pub quic: Vec<SocketAddr>,
    /// Number of the grant: the upper half of what the client draws.
    pub grant: u32,
    /// The key of this measurement alone, 32 bytes in hexadecimal.
    pub key: String,
    /// Highest rate, Mbit/s of UDP payload.
    pub mbit_s_max: f64,
    /// Longest measurement, in seconds.
    pub seconds_max: f64,
}
