//! The one road of a packet: read → feed → leg decision → send. No channel, lock, await or allocation of ours between a
//! packet's arrival and its SRTP departure (RoQ departures go through quinn, which copies and queues).

use super::out::{Ways, send_leg};
use super::state::{Core, FeedEntry, Flow, Origin, Way};
use super::voices::SessionVoices;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::time::Instant;
use trocar_proto::media::roq;
use trocar_proto::media::rtp::Header;
use trocar_proto::session::admission::RelayEvent;
use trocar_proto::session::api::FeedState;
use trocar_proto::session::feed::MediaKind;
use trocar_proto::session::ids::{CertHash, SessionId};
use trocar_proto::units::{FlowId, Micros};

/// A leg's viewer gets a point of its time map at most this often, in microseconds.
const POINT_SPACING_US: u64 = 100_000;

impl Core {
    /// A batch of datagrams of one QUIC connection. `now` was read once, when the batch was.
    pub(crate) fn handle_roq_batch(
        &mut self,
        connection: &quinn::Connection,
        cnf: CertHash,
        batch: &[Bytes],
        now: Instant,
    ) {
        for datagram in batch {
            if let Some((flow, packet)) = roq::split(datagram) {
                self.handle_roq_packet(connection, cnf, flow, packet, now);
            } else {
                self.counters.unknown_flow += 1;
            }
        }
        self.send_on(now);
    }

    /// One packet of a flow, by datagram or by stream; false where this connection may not use the flow. What it makes due
    /// is sent by [`Self::send_on`].
    pub(crate) fn handle_roq_packet(
        &mut self,
        connection: &quinn::Connection,
        cnf: CertHash,
        flow: FlowId,
        packet: &[u8],
        now: Instant,
    ) -> bool {
        let at = self.micros(now);
        match self.flows.get(&flow).filter(|(owner, _)| *owner == cnf).map(|(_, flow)| *flow) {
            Some(Flow::FeedRtp(index)) => {
                self.came_by(index, connection);
                self.store(index, now, packet);
            }
            Some(Flow::FeedRtcp(index)) => self.handle_publisher_rtcp(index, at, packet),
            Some(Flow::LegRtcp(index)) => {
                self.attach(index, connection, now);
                self.handle_viewer_rtcp(index, now, packet);
            }
            None => {
                self.counters.unknown_flow += 1;
                return false;
            }
        }
        true
    }

    /// Key-frame requests go to the connection that the newest packet came by.
    fn came_by(&mut self, index: usize, by: &quinn::Connection) {
        if let Some(FeedEntry { origin: Origin::Roq { connection, .. }, .. }) = self.feeds.get_mut(index)
            && connection.as_ref().is_none_or(|c| c.stable_id() != by.stable_id())
        {
            *connection = Some(by.clone());
        }
    }

    /// Gives a packet to its feed and notes that the feed has something to send on.
    pub(super) fn store(&mut self, index: usize, now: Instant, packet: &[u8]) {
        let at = self.micros(now);
        let Some(entry) = self.feeds.get_mut(index) else { return };
        let header = Header::parse(packet);
        // A publisher that has no key frames, only gradual refreshes, is joined at one of those after a while.
        let overdue = entry.feed.key_frame_overdue(at);
        if let Some(ingest) = &mut entry.ingest {
            ingest.take_refresh_as_entry(overdue);
        }
        let stored = match (&mut entry.ingest, &header) {
            (Some(ingest), Ok(header)) => match ingest.handle_packet(header, packet, self.scratch.as_mut_slice()) {
                Ok(len) => self.scratch.get(..len).unwrap_or(&[]),
                Err(error) => {
                    entry.feed.count_refused();
                    return tracing::debug!(feed = %entry.key.feed, %error, "packet refused");
                }
            },
            _ => packet,
        };
        if let Err(refused) = entry.feed.handle_packet(at, stored) {
            return tracing::debug!(feed = %entry.key.feed, %refused, "packet refused");
        }
        if let Ok(header) = &header {
            hear(&mut self.voices, entry, index, at, header, packet);
        }
        // A packet of nothing but padding shows nothing.
        if entry.state != FeedState::Live && entry.feed.last_arrival() == Some(at) {
            self.set_feed_state(index, FeedState::Live);
        }
        if !self.touched.note(index) {
            self.send_on(now);
            self.touched.note(index);
        }
    }

    /// Lets the legs of every feed send that got packets since the last call.
    pub(crate) fn send_on(&mut self, now: Instant) {
        for index in self.touched.take() {
            self.fan_out(index, now);
        }
    }

    /// Lets every leg of a feed send what it returns.
    pub(crate) fn fan_out(&mut self, index: usize, now: Instant) {
        let at = self.micros(now);
        let Self { feeds, legs, peers, listeners, tcp_out, batch, origin, .. } = self;
        let Some(FeedEntry { feed, legs: ids, delay, .. }) = feeds.get_mut(index) else { return };
        batch.clear();
        let mut need_key = false;
        for id in ids.iter() {
            let Some(leg) = legs.get_mut(*id) else { continue };
            let before = leg.sent.packets;
            let oldest = leg.leg.oldest_waiting(feed);
            need_key |= send_leg(leg, feed, Ways { peers, listeners, tcp_out }, batch, now);
            if let Some(arrived) = oldest {
                // All packets of a turn count with the wait of the one that waited longest.
                let spent = u64::try_from(origin.elapsed().as_micros()).unwrap_or(u64::MAX);
                delay.record(Micros(spent).since(arrived), leg.sent.packets - before);
            }
        }
        if need_key {
            feed.handle_key_frame_request();
        }
        self.points(index, now, at);
        self.ask_key_frame(index, now, at);
    }

    /// Lets one leg catch up, after it joined or its transport came up.
    pub(crate) fn pump_leg(&mut self, index: usize, now: Instant) {
        let at = self.micros(now);
        let Self { feeds, legs, peers, listeners, tcp_out, batch, .. } = self;
        let Some(leg) = legs.get_mut(index) else { return };
        let Some(feed_index) = leg.feed else { return };
        let Some(FeedEntry { feed, .. }) = feeds.get_mut(feed_index) else { return };
        batch.clear();
        let need_key = send_leg(leg, feed, Ways { peers, listeners, tcp_out }, batch, now);
        if need_key {
            feed.handle_key_frame_request();
            self.ask_key_frame(feed_index, now, at);
        }
    }

    /// Tells viewers which moment a picture shows: the newest complete frame, for each leg that is due.
    fn points(&mut self, index: usize, now: Instant, at: Micros) {
        let Some(FeedEntry { feed, legs: ids, key, descriptor, .. }) = self.feeds.get(index) else { return };
        if descriptor.kind != MediaKind::Video {
            return;
        }
        let ring = feed.ring();
        let Some((info, _)) = ring.head().checked_sub(1).and_then(|i| ring.get(i)) else { return };
        if !(info.frame.marks.end || info.marker) {
            return;
        }
        let mut due = Vec::new();
        for id in ids {
            let Some(leg) = self.legs.get_mut(*id) else { continue };
            if !matches!(leg.way, Way::Webrtc(_)) || at.since(leg.last_point) < POINT_SPACING_US {
                continue;
            }
            let Some(rtp) = leg.leg.timestamp_on_leg(info) else { continue };
            leg.last_point = at;
            due.push((leg.id.clone(), rtp));
        }
        if due.is_empty() {
            return;
        }
        let (capture, clock_rate, arrived, key) = (info.capture, feed.clock_rate(), info.arrived, key.clone());
        for (leg, rtp) in due {
            let received = self.wall_at(arrived, now);
            self.tell(RelayEvent::Capture { leg, feed: key.clone(), rtp, clock_rate, capture, received });
        }
    }
}

/// Notes how loud a voice is.
fn hear(
    voices: &mut BTreeMap<SessionId, SessionVoices>,
    entry: &FeedEntry,
    index: usize,
    at: Micros,
    header: &Header,
    packet: &[u8],
) {
    if entry.descriptor.kind != MediaKind::Audio {
        return;
    }
    let Some(voices) = voices.get_mut(&entry.key.session).filter(|v| v.has_voice(index)) else { return };
    let level = header.extensions(packet).find(|(id, _)| *id == entry.level_id && *id != 0);
    voices.hear(at, index, level.map(|(_, data)| data));
}
