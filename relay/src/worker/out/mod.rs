//! How a leg's packets leave: sealed into the batch of a WebRTC peer, or handed to QUIC.

mod roq;
mod webrtc;

use super::egress::{Batch, Outlet};
use super::peer::Peer;
use super::state::{LegEntry, Listener, Way};
use super::tcp::TcpOut;
use crate::webrtc::remote::Remote;
use slab::Slab;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Instant;
use trocar_proto::media::feed::Feed;

/// Where peers' packets leave by.
#[derive(Clone, Copy)]
pub(in crate::worker) struct Ways<'a> {
    pub(in crate::worker) peers: &'a Slab<Peer>,
    pub(in crate::worker) listeners: &'a [Listener],
    pub(in crate::worker) tcp_out: &'a HashMap<(usize, SocketAddr), Rc<TcpOut>>,
}

impl<'a> Ways<'a> {
    /// Where a peer's media goes now.
    pub(in crate::worker) fn of(self, peer: usize, now: Instant) -> Option<Outlet<'a>> {
        let peer = self.peers.get(peer)?;
        self.to(peer.listener, peer.transport.egress(now)?)
    }

    /// The outlet that leads to an address.
    pub(in crate::worker) fn to(self, listener: usize, remote: Remote) -> Option<Outlet<'a>> {
        if remote.tcp {
            self.tcp_out.get(&(listener, remote.address)).map(|out| Outlet::Tcp(out))
        } else {
            self.listeners.get(listener).map(|l| Outlet::Udp(&l.webrtc, remote.address))
        }
    }
}

/// Sends all that a leg returns; true where it waits for a key frame.
pub(super) fn send_leg(leg: &mut LegEntry, feed: &Feed, ways: Ways<'_>, batch: &mut Batch, now: Instant) -> bool {
    match &mut leg.way {
        Way::Webrtc(way) => webrtc::send(&mut leg.leg, way, &mut leg.sent, feed, ways, batch, now),
        Way::Roq(way) => roq::send(&mut leg.leg, way, &mut leg.sent, feed),
    }
}
