//! How a leg's packets leave: sealed into the batch of a WebRTC peer, or handed to QUIC.

mod flex;
mod line;
mod packet;
mod repeats;
mod roq;
mod webrtc;

pub(in crate::worker) use flex::Flex;
pub(in crate::worker) use line::Line;

use super::egress::{Batch, Outlet};
use super::peer::Peer;
use super::state::{FeedEntry, LegEntry, Listener, Way};
use super::tcp::TcpOut;
use crate::webrtc::remote::Remote;
use slab::Slab;
use std::cell::RefCell;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Instant;
use trocar_proto::media::feed::Feed;
use trocar_proto::media::leg::Leg;
use trocar_proto::media::rate::Pacer;
use trocar_proto::units::Micros;

/// What a packet waits in a leg at most, in microseconds. Loss policy: a leg behind which more has waited leaves out whole
/// frames, from half of this on those that no other needs, then everything up to the next key frame. A browser's leg has less
/// where the feed's budget is shorter ([`queue_limit_us`]).
pub(in crate::worker) const MAX_QUEUE_US: u64 = 200_000;
/// However little a line leaves of the budget, a frame may wait so long: it is paced. Where the way alone takes the budget,
/// what can be had late is still shown, with its age.
const MIN_QUEUE_US: u64 = 20_000;

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

    /// What the peer's connection takes.
    fn line(self, peer: usize) -> Option<&'a RefCell<Line>> {
        self.peers.get(peer).map(|p| &p.line)
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

/// One leg's turn.
pub(in crate::worker) struct Turn<'a> {
    pub(in crate::worker) now: Instant,
    pub(in crate::worker) at: Micros,
    pub(in crate::worker) batch: &'a mut Batch,
    /// When the leg may go on that has not sent all.
    pub(in crate::worker) again: Option<Micros>,
}

/// The pace of a joiner: what came before it, faster than it came, and not all at once.
fn catches_up(leg: &Leg, pacer: &mut Pacer, feed: &Feed, at: Micros) -> Result<(), Micros> {
    match leg.next_len(feed) {
        Some(len) if leg.is_catching_up() => pacer.take(at, len, feed.catch_up_rate(at)),
        _ => Ok(()),
    }
}

/// How long a frame may wait in a browser's leg, in microseconds: what half a round trip leaves of the feed's budget. One that has
/// waited longer could only be shown too late.
fn queue_limit_us(budget_us: u64, round_trip_us: Option<u64>) -> u64 {
    budget_us.saturating_sub(round_trip_us.unwrap_or(0) / 2).clamp(MIN_QUEUE_US, MAX_QUEUE_US)
}

/// How much of its queue a leg has used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fill {
    Low,
    /// More than half of what a frame may wait.
    Half,
    /// More than any packet may wait.
    Full,
}

fn fill(leg: &Leg, feed: &Feed, at: Micros, limit_us: u64) -> Fill {
    let waited = leg.oldest_waiting(feed).map_or(0, |oldest| at.since(oldest));
    match waited {
        _ if leg.is_catching_up() => Fill::Low,
        w if w > MAX_QUEUE_US => Fill::Full,
        w if w > limit_us / 2 => Fill::Half,
        _ => Fill::Low,
    }
}

/// Sends all that a leg returns and its line takes now; true where it waits for a key frame.
pub(super) fn send_leg(leg: &mut LegEntry, of: &FeedEntry, ways: Ways<'_>, turn: &mut Turn<'_>) -> bool {
    let feed = &of.feed;
    match &mut leg.way {
        Way::Webrtc(way) => {
            let what = webrtc::Sending { leg: &mut leg.leg, sent: &mut leg.sent, catch_up: &mut leg.catch_up };
            let budget_us = u64::from(of.descriptor.budget_ms) * 1_000;
            webrtc::send(what, way, leg.viewer.round_trip_us, (feed, budget_us), ways, turn)
        }
        Way::Roq(way) => {
            let what = roq::Sending {
                leg: &mut leg.leg,
                sent: &mut leg.sent,
                catch_up: &mut leg.catch_up,
                repair: leg.repair.as_deref_mut(),
            };
            roq::send(what, way, feed, turn)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_may_wait_for_what_its_way_leaves_of_the_budget() {
        assert_eq!(queue_limit_us(100_000, None), 100_000);
        assert_eq!(queue_limit_us(100_000, Some(60_000)), 70_000);
        assert_eq!(queue_limit_us(500_000, Some(60_000)), MAX_QUEUE_US);
        assert_eq!(queue_limit_us(50_000, Some(300_000)), MIN_QUEUE_US, "the way alone takes the budget");
    }
}
