//! The one road of a packet: read → feed → leg decision → send. No channel, lock, await or allocation of ours between a
//! packet's arrival and its SRTP departure (RoQ departures go through quinn, which copies and queues).

use super::egress::{Batch, Socket};
use super::state::{Core, FeedEntry, Flow, Keys, LegEntry, LegSent, Listener, RoqWay, Way, WebrtcWay};
use crate::quic;
use crate::srtp::TAG_LEN;
use bytes::{Bytes, BytesMut};
use std::time::Instant;
use trocar_proto::media::bytes::put;
use trocar_proto::media::ext::playout_delay;
use trocar_proto::media::feed::Feed;
use trocar_proto::media::leg::Next;
use trocar_proto::media::ring::PacketInfo;
use trocar_proto::media::roq;
use trocar_proto::media::rtp::{FIXED_HEADER, HeaderFields, write_header};
use trocar_proto::session::admission::RelayEvent;
use trocar_proto::session::api::FeedState;
use trocar_proto::session::ids::CertHash;
use trocar_proto::units::{Micros, SeqNo};

/// A leg's viewer gets a point of its time map at most this often, in microseconds.
const POINT_SPACING_US: u64 = 100_000;
/// Header of a packet with the playout-delay extension: fixed header, extension header, one element of three bytes.
const HEADER_WITH_PLAYOUT: usize = FIXED_HEADER + 8;

/// Most different feeds that one batch of datagrams can touch: each of them another one.
const MAX_TOUCHED: usize = super::roq::BATCH;

impl Core {
    /// A batch of datagrams of one QUIC connection. `now` was read once, when the batch was.
    pub(crate) fn handle_roq_batch(
        &mut self,
        connection: &quinn::Connection,
        cnf: CertHash,
        batch: &[Bytes],
        now: Instant,
    ) {
        let at = self.micros(now);
        let mut touched = [usize::MAX; MAX_TOUCHED];
        for datagram in batch {
            let found = roq::split(datagram).and_then(|(flow, packet)| Some((self.flows.get(&flow)?, packet)));
            match found {
                Some(((owner, Flow::FeedRtp(index)), packet)) if *owner == cnf => {
                    let index = *index;
                    self.store(index, connection, at, packet);
                    if let Some(slot) = touched.iter_mut().find(|t| **t == index || **t == usize::MAX) {
                        *slot = index;
                    }
                }
                Some(((owner, Flow::FeedRtcp(index)), packet)) if *owner == cnf => {
                    let index = *index;
                    self.handle_publisher_rtcp(index, at, packet);
                }
                Some(((owner, Flow::LegRtcp(index)), packet)) if *owner == cnf => {
                    let index = *index;
                    self.attach(index, connection, now);
                    self.handle_viewer_rtcp(index, now, packet);
                }
                _ => self.counters.unknown_flow += 1,
            }
        }
        for index in touched.into_iter().filter(|t| *t != usize::MAX) {
            self.fan_out(index, now);
        }
    }

    fn store(&mut self, index: usize, connection: &quinn::Connection, at: Micros, packet: &[u8]) {
        let Some(entry) = self.feeds.get_mut(index) else { return };
        if entry.publisher.as_ref().is_none_or(|c| c.stable_id() != connection.stable_id()) {
            entry.publisher = Some(connection.clone());
        }
        if let Err(refused) = entry.feed.handle_packet(at, packet) {
            tracing::debug!(feed = %entry.key.feed, %refused, "packet refused");
        } else if entry.state != FeedState::Live {
            self.set_feed_state(index, FeedState::Live);
        }
    }

    /// Lets every leg of a feed send what it returns.
    pub(crate) fn fan_out(&mut self, index: usize, now: Instant) {
        let at = self.micros(now);
        let Self { feeds, legs, listeners, batch, origin, .. } = self;
        let Some(FeedEntry { feed, legs: ids, delay, .. }) = feeds.get_mut(index) else { return };
        batch.clear();
        let mut need_key = false;
        for id in ids.iter() {
            let Some(leg) = legs.get_mut(*id) else { continue };
            let before = leg.sent.packets;
            let oldest = leg.leg.oldest_waiting(feed);
            need_key |= send_leg(leg, feed, listeners, batch, now);
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
        self.ask_key_frame(index, at);
    }

    /// Lets one leg catch up, after it joined or its transport came up.
    pub(crate) fn pump_leg(&mut self, index: usize, now: Instant) {
        let at = self.micros(now);
        let Self { feeds, legs, listeners, batch, .. } = self;
        let Some(leg) = legs.get_mut(index) else { return };
        let feed_index = leg.feed;
        let Some(FeedEntry { feed, .. }) = feeds.get_mut(feed_index) else { return };
        batch.clear();
        let need_key = send_leg(leg, feed, listeners, batch, now);
        if need_key {
            feed.handle_key_frame_request();
            self.ask_key_frame(feed_index, at);
        }
    }

    /// Tells viewers which moment a picture shows: the newest complete frame, for each leg that is due.
    fn points(&mut self, index: usize, now: Instant, at: Micros) {
        let Some(FeedEntry { feed, legs: ids, key, .. }) = self.feeds.get(index) else { return };
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

    /// Sends packets again that a browser lost, each at most once a round trip.
    pub(crate) fn repair(&mut self, index: usize, now: Instant, lost: impl Iterator<Item = u16>) {
        let at = self.micros(now);
        let Self { feeds, legs, listeners, batch, .. } = self;
        let Some(LegEntry { leg, way: Way::Webrtc(way), sent, feed, viewer, .. }) = legs.get_mut(index) else { return };
        let Some(FeedEntry { feed, .. }) = feeds.get(*feed) else { return };
        let Some(socket) = listeners.get(way.listener).map(|l| &l.webrtc) else { return };
        let (Some(payload_type), Some(to)) = (way.rtx_payload_type, way.transport.egress(now)) else { return };
        let WebrtcWay { keys: Some(keys), recent_repeats, next_rtx, rtx_ssrc, repair, .. } = &mut **way else { return };
        let spacing = viewer.round_trip_us.unwrap_or(10_000).clamp(5_000, 200_000);
        batch.clear();
        // A NACK packet names at most a few hundred numbers; more than a window's worth is not looked at.
        for seq in lost.take(super::state::RECENT_REPEATS) {
            let place = usize::from(seq) % super::state::RECENT_REPEATS;
            let Some(recent) = recent_repeats.get_mut(place) else { continue };
            if recent.0 == seq && recent.1 != Micros(0) && at.since(recent.1) < spacing {
                continue;
            }
            let Some((stored, header, _)) = leg.handle_nack(feed, seq) else { continue };
            let Some((info, packet)) = feed.ring().get(stored) else { continue };
            if !repair.take(at, packet.len() as u64) {
                sent.unrepaired += 1;
                continue;
            }
            *recent = (seq, at);
            let header = HeaderFields { payload_type, seq: next_rtx.low16(), ssrc: *rtx_ssrc, ..header };
            let number = *next_rtx;
            *next_rtx = SeqNo(number.0 + 1);
            // RFC 4588 section 4: the original sequence number goes before the payload.
            let osn = seq.to_be_bytes();
            push_packet(
                batch,
                socket,
                to,
                sent,
                &mut keys.rtx,
                Outgoing { header, number, info, packet, osn: Some(osn), playout: None },
            );
        }
        sent.note_repeats(batch.flush(socket, to));
    }
}

/// One packet on its way into the batch.
struct Outgoing<'a> {
    header: HeaderFields,
    number: SeqNo,
    info: &'a PacketInfo,
    packet: &'a [u8],
    osn: Option<[u8; 2]>,
    playout: Option<u8>,
}

fn push_packet(
    batch: &mut Batch,
    socket: &Socket,
    to: std::net::SocketAddr,
    sent: &mut LegSent,
    stream: &mut crate::srtp::SendStream,
    o: Outgoing<'_>,
) {
    let start = usize::from(o.info.payload_offset);
    let payload = o.packet.get(start..start + usize::from(o.info.payload_len)).unwrap_or(&[]);
    let osn = o.osn.as_ref().map_or(&[] as &[u8], |b| b);
    let header_len = if o.playout.is_some() { HEADER_WITH_PLAYOUT } else { FIXED_HEADER };
    let len = header_len + osn.len() + payload.len() + TAG_LEN;
    let repeat = o.osn.is_some();
    if !batch.has_room(len, socket) {
        let flushed = batch.flush(socket, to);
        if repeat { sent.note_repeats(flushed) } else { sent.note(flushed) }
    }
    let Some(room) = batch.push(len) else {
        sent.too_large += 1;
        return;
    };
    let no_delay = playout_delay(0, 0);
    let written = match o.playout {
        Some(id) => write_header(room, o.header, &[(id, &no_delay)]),
        None => write_header(room, o.header, &[]),
    };
    let copied = put(room, header_len, osn) && put(room, header_len + osn.len(), payload);
    if !(written.is_ok_and(|n| n == header_len) && copied && stream.seal(o.number, room, header_len).is_ok()) {
        batch.retract(len);
        sent.dropped += 1;
    }
}

/// Sends all that a leg returns; true where it waits for a key frame.
fn send_leg(leg: &mut LegEntry, feed: &Feed, listeners: &[Listener], batch: &mut Batch, now: Instant) -> bool {
    match &mut leg.way {
        Way::Webrtc(way) => {
            let socket = listeners.get(way.listener).map(|l| &l.webrtc);
            socket.is_some_and(|s| send_webrtc(&mut leg.leg, way, &mut leg.sent, feed, s, batch, now))
        }
        Way::Roq(way) => send_roq(&mut leg.leg, way, &mut leg.sent, feed),
    }
}

/// Sends all that a browser's leg returns; true where it waits for a key frame.
fn send_webrtc(
    leg: &mut trocar_proto::media::leg::Leg,
    way: &mut WebrtcWay,
    sent: &mut LegSent,
    feed: &Feed,
    socket: &Socket,
    batch: &mut Batch,
    now: Instant,
) -> bool {
    let Some(to) = way.transport.egress(now) else {
        way.paused = true;
        return false;
    };
    if std::mem::take(&mut way.paused) {
        // Pictures from before the pause would only come late.
        leg.skip_to_now(feed);
    }
    let Some(Keys { media, .. }) = &mut way.keys else { return false };
    let need_key = loop {
        match leg.poll(feed, true) {
            Next::Send { index, header, seq } => {
                let Some((info, packet)) = feed.ring().get(index) else { continue };
                // Key frames tell the browser to show pictures as soon as they are decoded.
                let playout = way.playout_delay_id.filter(|_| info.frame.marks.independent);
                let o = Outgoing { header, number: seq, info, packet, osn: None, playout };
                push_packet(batch, socket, to, sent, media, o);
            }
            Next::Idle => break false,
            Next::NeedKeyFrame => break true,
        }
    };
    sent.note(batch.flush(socket, to));
    need_key
}

/// Hands all that a native leg returns to QUIC, bit for bit; true where it waits for a key frame.
fn send_roq(leg: &mut trocar_proto::media::leg::Leg, way: &mut RoqWay, sent: &mut LegSent, feed: &Feed) -> bool {
    let Some(connection) = &way.connection else { return false };
    let prefix = way.prefix.as_bytes();
    let waiting = quic::DATAGRAM_SEND_BUFFER.saturating_sub(connection.datagram_send_buffer_space());
    let mut space = way.max_queue.min(quic::DATAGRAM_SEND_BUFFER).saturating_sub(waiting);
    loop {
        // A packet is at most one slot; quinn counts 32 bytes of its own with each.
        match leg.poll(feed, space > 2_048 + 40) {
            Next::Send { index, .. } => {
                let Some((_, packet)) = feed.ring().get(index) else { continue };
                let mut datagram = BytesMut::with_capacity(prefix.len() + packet.len());
                datagram.extend_from_slice(prefix);
                datagram.extend_from_slice(packet);
                space = space.saturating_sub(datagram.len() + 32);
                match connection.send_datagram(datagram.freeze()) {
                    Ok(()) => sent.packets += 1,
                    Err(quinn::SendDatagramError::TooLarge) => sent.too_large += 1,
                    Err(_) => sent.dropped += 1,
                }
            }
            Next::Idle => return false,
            Next::NeedKeyFrame => return true,
        }
    }
}
