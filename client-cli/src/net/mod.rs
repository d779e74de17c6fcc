//! How a native client reaches signaling and relay.

pub(crate) mod address;
pub(crate) mod api;
pub(crate) mod events;
pub(crate) mod link;
pub(crate) mod path;
pub(crate) mod road;
pub(crate) mod roq;
pub(crate) mod tls;
