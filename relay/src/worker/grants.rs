//! What leaves by one QUIC connection was granted so much in all: where its rate controller starts. And the places of legs
//! on the realms' lines.

use super::state::{Core, Way};
use crate::quic;
use crate::uplink::Uplink;
use std::collections::BTreeMap;
use trocar_proto::media::rate::Demand;
use trocar_proto::session::admission::AdmitError;
use trocar_proto::session::feed::Purpose;
use trocar_proto::session::ids::LegId;
use trocar_proto::units::{Bitrate, Micros};

/// Connections are told again after this time: one that moved to another address begins anew. In microseconds.
const AGAIN_US: u64 = 1_000_000;

impl Core {
    /// Tells every connection that legs leave by what these were granted in all.
    pub(super) fn grant_lines(&mut self, at: Micros) {
        self.granted_at = at;
        let mut lines: BTreeMap<usize, (&quinn::Connection, u64)> = BTreeMap::new();
        for (_, leg) in &self.legs {
            let Way::Roq(way) = &leg.way else { continue };
            let rate = leg.feed.and_then(|f| self.feeds.get(f)).map_or(0, |f| f.descriptor.max_bitrate.0);
            for connection in way.connections() {
                let line = lines.entry(connection.stable_id()).or_insert((connection, 0));
                line.1 = line.1.saturating_add(rate);
            }
        }
        for (connection, rate) in lines.into_values().filter(|(_, rate)| *rate > 0) {
            quic::set_granted(connection, Bitrate(rate));
        }
    }

    /// Takes a leg's place on the realm's line, where that is counted; see [`crate::uplink::Uplink::admit`].
    pub(crate) fn admit_leg(&self, listener: usize, leg: &LegId, feeds: &[usize]) -> Result<(), AdmitError> {
        self.admit(listener, leg, self.demand_of(feeds).ok_or(AdmitError::NoSuchFeed)?)
    }

    /// What feeds that leave together take of a line, by the purpose of the first.
    fn demand_of(&self, feeds: &[usize]) -> Option<Demand> {
        let grants = feeds.iter().filter_map(|f| self.feeds.get(*f)).map(|f| f.descriptor.max_bitrate.0);
        let wanted = Bitrate(grants.fold(0, u64::saturating_add));
        let d = feeds.first().and_then(|f| self.feeds.get(*f)).map(|f| &f.descriptor)?;
        Some(Demand { purpose: d.purpose, priority: d.priority, wanted, floor: wanted })
    }

    /// A leg's place on the realm's line is to hold that feed too, which it goes on with soon.
    pub(super) fn raise_place(&self, index: usize, feed: usize) -> Result<(), AdmitError> {
        let Some((uplink, leg, demand)) = self.place_with(index, feed) else { return Ok(()) };
        uplink.keep(self.cross.me, |l| self.leg_by_id.contains_key(l));
        uplink.raise(leg, demand)
    }

    /// A leg takes no more of the realm's line than for the feed that it shows.
    pub(super) fn settle_place(&self, index: usize) {
        let feed = self.legs.get(index).and_then(|l| l.feed);
        if let Some((uplink, leg, demand)) = feed.and_then(|f| self.place_with(index, f)) {
            uplink.settle(leg, demand);
        }
    }

    /// The line of a WebRTC leg and what it takes of it with that feed, and with its sound as it is.
    fn place_with(&self, index: usize, feed: usize) -> Option<(&Uplink, &LegId, Demand)> {
        let leg = self.legs.get(index)?;
        let peer = self.peers.get(leg.webrtc()?.peer)?;
        let uplink = self.listeners.get(peer.listener)?.uplink.as_deref()?;
        let beside = peer.legs.iter().filter(|l| **l != index).filter_map(|l| self.legs.get(*l)?.feed);
        let feeds: Vec<usize> = std::iter::once(feed).chain(beside).collect();
        Some((uplink, &leg.id, self.demand_of(&feeds)?))
    }

    /// The same for so many places for voices.
    pub(crate) fn admit_voices(&self, listener: usize, leg: &LegId, rate: Bitrate) -> Result<(), AdmitError> {
        self.admit(listener, leg, Demand { purpose: Purpose::Voice, priority: 0, wanted: rate, floor: rate })
    }

    fn admit(&self, listener: usize, leg: &LegId, demand: Demand) -> Result<(), AdmitError> {
        let Some(uplink) = self.listeners.get(listener).and_then(|l| l.uplink.as_ref()) else { return Ok(()) };
        uplink.keep(self.cross.me, |l| self.leg_by_id.contains_key(l));
        uplink.admit(self.cross.me, leg, demand)
    }

    /// Gives back what ended legs had of the realms' lines, and closes legs that had to make room.
    pub(super) fn keep_uplinks(&mut self) {
        let mut shed = Vec::new();
        for uplink in self.listeners.iter().filter_map(|l| l.uplink.as_ref()) {
            shed.extend(uplink.keep(self.cross.me, |l| self.leg_by_id.contains_key(l)));
        }
        for leg in shed {
            tracing::warn!(%leg, "closed: a leg of a higher purpose needs its place on the realm's line");
            self.close_leg(&leg);
        }
    }

    /// Tells connections their grants, where that is due.
    pub(super) fn keep_grants(&mut self, at: Micros) {
        if at.since(self.granted_at) >= AGAIN_US {
            self.grant_lines(at);
        }
    }
}
