//! The one road of a packet: read → feed → leg decision → send. No channel, lock, await or allocation of ours between a
//! packet's arrival and its SRTP departure (RoQ departures go through quinn, which copies and queues).

use super::out::{Turn, Ways, send_leg};
use super::repair;
use super::state::{Core, FeedEntry, Flow, LegEntry, Way};
use super::voices::SessionVoices;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::time::Instant;
use trocar_proto::media::roq;
use trocar_proto::media::rtp::Header;
use trocar_proto::session::admission::RelayEvent;
use trocar_proto::session::api::FeedState;
use trocar_proto::session::feed::{FeedDescriptor, MediaKind, Purpose};
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
                if self.came_by(index, connection, at, packet) {
                    self.take_native(index, now, packet);
                }
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

    /// Gives a packet to its feed and notes that the feed has something to send on.
    pub(super) fn store(&mut self, index: usize, now: Instant, packet: &[u8]) {
        let at = self.micros(now);
        let Some(entry) = self.feeds.get_mut(index) else { return };
        let header = Header::parse(packet);
        if header.as_ref().is_ok_and(|h| entry.feed.refuse_copy(h) || !entry.is_granted(at, h, packet)) {
            return;
        }
        // A publisher that has no key frames, only gradual refreshes, is joined at one of those after a while.
        let overdue = entry.feed.key_frame_overdue(at);
        if let Some(ingest) = &mut entry.ingest {
            ingest.take_refresh_as_entry(overdue);
        }
        let taken = match (&mut entry.ingest, &header) {
            (Some(ingest), Ok(header)) => match ingest.handle_packet(header, packet, self.scratch.as_mut_slice()) {
                Ok(len) => entry.feed.handle_packet(at, self.scratch.get(..len).unwrap_or(&[])),
                Err(error) => {
                    entry.feed.count_refused();
                    return tracing::debug!(feed = %entry.key.feed, %error, "packet refused");
                }
            },
            (None, Ok(header)) => entry.feed.handle_parsed(at, header, packet),
            (_, Err(_)) => entry.feed.handle_packet(at, packet),
        };
        if let Err(refused) = taken {
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

    /// Lets the legs of every feed send that got packets since the last call: sound first, then the primary scope, then the
    /// rest.
    pub(crate) fn send_on(&mut self, now: Instant) {
        let touched = self.touched.take();
        // Other workers first: they go on with it while this one serves its own legs.
        touched.iter().for_each(|index| self.cross_over(index));
        self.cross.wake();
        for order in 0..=LAST_ORDER {
            for index in touched.iter() {
                if self.feeds.get(index).is_some_and(|f| order_of(&f.descriptor) == order) {
                    self.fan_out(index, now);
                }
            }
        }
    }

    /// Lets every leg of a feed send what it returns.
    pub(crate) fn fan_out(&mut self, index: usize, now: Instant) {
        self.complete_switches(index, now);
        let at = self.micros(now);
        let Self { feeds, legs, peers, listeners, tcp_out, batch, origin, paced, .. } = self;
        let Some(entry) = feeds.get_mut(index) else { return };
        let mut need_key = false;
        let mut next: Option<Micros> = None;
        for place in 0..entry.legs.len() {
            let Some(id) = entry.legs.get(place).copied() else { break };
            let Some(leg) = legs.get_mut(id) else { continue };
            // One that waits for its pace is not asked before its time.
            if leg.due.is_some_and(|t| t > at) {
                continue;
            }
            batch.clear();
            let mut turn = Turn { now, at, batch, again: None };
            need_key |= serve(leg, entry, Ways { peers, listeners, tcp_out }, &mut turn, *origin);
            next = note_due(leg, id, turn.again, paced).into_iter().chain(next).min();
        }
        if need_key {
            entry.feed.handle_key_frame_request();
        }
        if let Some(when) = next {
            self.wake_by(when);
        }
        if let Some(entry) = self.feeds.get_mut(index) {
            let ring = entry.feed.ring();
            let newest = ring.head().checked_sub(1);
            let ends = newest.and_then(|i| ring.get(i)).is_some_and(|(info, _)| info.frame.marks.end || info.marker);
            entry.frame_end = newest.filter(|_| ends).or(entry.frame_end);
        }
        self.ask_key_frame(index, now, at);
    }

    /// Lets one leg send, after it joined, its transport came up, or its time has come.
    pub(crate) fn pump_leg(&mut self, index: usize, now: Instant) {
        let at = self.micros(now);
        let Self { feeds, legs, peers, listeners, tcp_out, batch, origin, paced, .. } = self;
        let Some(leg) = legs.get_mut(index) else { return };
        let Some(feed_index) = leg.feed else { return };
        let Some(entry) = feeds.get_mut(feed_index) else { return };
        batch.clear();
        let mut turn = Turn { now, at, batch, again: None };
        let need_key = serve(leg, entry, Ways { peers, listeners, tcp_out }, &mut turn, *origin);
        if let Some(when) = note_due(leg, index, turn.again, paced) {
            self.wake_by(when);
        }
        if need_key {
            if let Some(entry) = self.feeds.get_mut(feed_index) {
                entry.feed.handle_key_frame_request();
            }
            self.ask_key_frame(feed_index, now, at);
        }
    }

    /// Legs whose time has come send on. Bounded by the number of legs: one that must wait again is due later.
    pub(super) fn pump_paced(&mut self, now: Instant, at: Micros) {
        std::mem::swap(&mut self.paced, &mut self.paced_before);
        for order in 0..=LAST_ORDER {
            for place in 0..self.paced_before.len() {
                let Some(index) = self.paced_before.get(place).copied() else { break };
                let Some(leg) = self.legs.get_mut(index).filter(|l| l.listed) else { continue };
                let of = leg.feed.and_then(|f| self.feeds.get(f)).map_or(LAST_ORDER, |f| order_of(&f.descriptor));
                if of != order {
                    continue;
                }
                match leg.due {
                    Some(when) if when > at => {
                        self.paced.push(index);
                        self.wake_by(when);
                    }
                    due => {
                        (leg.listed, leg.due) = (false, None);
                        if due.is_some() {
                            self.pump_leg(index, now);
                        }
                    }
                }
            }
        }
        self.paced_before.clear();
    }

    /// Tells viewers which moment a picture shows: the newest frame, for each leg that is due. By the clock, not on a packet's
    /// way: what is told is allocated.
    pub(super) fn points(&mut self, index: usize, now: Instant, at: Micros) {
        let Some(FeedEntry { feed, legs: ids, key, descriptor, frame_end, .. }) = self.feeds.get(index) else { return };
        if descriptor.kind != MediaKind::Video {
            return;
        }
        let Some((info, _)) = frame_end.and_then(|i| feed.ring().get(i)) else { return };
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

/// The order in which feeds get their turn: sound, the primary scope, other pictures, the room.
const LAST_ORDER: u8 = 3;

const fn order_of(feed: &FeedDescriptor) -> u8 {
    match (feed.kind, feed.purpose) {
        (MediaKind::Audio, _) | (_, Purpose::Voice) => 0,
        (_, Purpose::Scope) => 1,
        (_, Purpose::Secondary) => 2,
        (_, Purpose::Room) => LAST_ORDER,
    }
}

/// One leg's turn, with the delay that its packets have had; true where it waits for a key frame.
fn serve(leg: &mut LegEntry, entry: &mut FeedEntry, ways: Ways<'_>, turn: &mut Turn<'_>, origin: Instant) -> bool {
    let before = leg.sent.packets;
    // What a joiner is sent of the past says nothing about the relay's delay.
    let oldest = leg.leg.oldest_waiting(&entry.feed).filter(|_| !leg.leg.is_catching_up());
    let need_key = send_leg(leg, entry, ways, turn);
    if let Some(arrived) = oldest {
        // All packets of a turn count with the wait of the one that waited longest.
        let spent = u64::try_from(origin.elapsed().as_micros()).unwrap_or(u64::MAX);
        entry.delay.record(Micros(spent).since(arrived), leg.sent.packets - before);
    }
    need_key
}

/// Notes when a leg goes on, where it must wait for its pace. Returns when the worker is to look again, for that or for the
/// leg's redundancy.
fn note_due(leg: &mut LegEntry, index: usize, again: Option<Micros>, paced: &mut Vec<usize>) -> Option<Micros> {
    leg.due = again;
    if again.is_some() && !leg.listed {
        leg.listed = true;
        paced.push(index);
    }
    again.into_iter().chain(repair::next_wakeup(leg)).min()
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
