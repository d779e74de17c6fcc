//! Measuring the line to a relay: what `trocar link test` asks signaling for and gets, and what signaling says of it to a relay that runs
//! apart.

use super::ids::RealmId;
use core::net::SocketAddr;
use serde::{Deserialize, Serialize};

/// Body of `POST /v1/sessions/{session}/link-tests`; it may be left out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LinkTestRequest {
    /// Name of the relay, where relays run apart; the only one that answers measurements where left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(nullable = false))]
    pub relay: Option<String>,
}

/// Answer to `POST /v1/sessions/{session}/link-tests`: lets one measurement begin, within half a minute.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LinkTestGrant {
    /// Which relay it is of, where relays run apart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(nullable = false))]
    pub relay: Option<String>,
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

/// Why a relay lets no measurement begin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum LinkTestRefused {
    /// An expert operates, or a gate holds: a measurement fills the line.
    #[error(
        "{0}: a measurement fills the line. Measure before or after; link_test.while_operating in the relay's configuration allows it all the same"
    )]
    Operated(String),
    /// One runs.
    #[error("another measurement runs: a relay takes one at a time")]
    Busy,
    /// It answers none.
    #[error("the relay's configuration has no [link_test] enabled = true")]
    Unused,
    /// It cannot be had now.
    #[error("{0}")]
    Failed(String),
}

/// Command `begin-link-test`, answered by a [`LinkTestGrant`]: signaling asks a relay that runs apart to let one measurement in. It goes on only
/// while signaling says so again and again ([`LinkTestKeep`]).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LinkTestBegin {
    /// The realm of who measures: by whose listener it would come.
    pub realm: RealmId,
    /// What signaling knows of other relays.
    pub others: LinkTestKeep,
}

/// Command `keep-link-test`: whether what was let in may go on, as far as other relays are concerned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LinkTestKeep {
    /// A relay through which somebody operates, in words; none: nobody does.
    pub operated: Option<String>,
}
