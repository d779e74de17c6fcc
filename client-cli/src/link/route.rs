//! Where the other end is, and what lets us in there.

use std::net::{IpAddr, SocketAddr};

/// Whom to connect to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Route {
    pub(super) from: Option<IpAddr>,
    pub(super) to: SocketAddr,
}

/// What both ends have: a key, and the number of the grant that it belongs to, where a relay gave one.
#[derive(Debug, Clone, Default)]
pub(super) struct Secret {
    pub(super) key: Vec<u8>,
    pub(super) grant: Option<u32>,
}
