//! The one road of a packet: read → feed → leg decision → send. No channel, lock, await or allocation of ours between a
//! packet's arrival and its SRTP departure (RoQ departures go through quinn, which copies and queues).

use super::egress::{Batch, Outlet};
use super::peer::{Peer, RECENT_REPEATS, Streams, WebrtcWay};
use super::state::{Core, FeedEntry, Flow, LegEntry, LegSent, Listener, Origin, RoqWay, Way};
use super::tcp::TcpOut;
use super::voices::SessionVoices;
use crate::quic;
use crate::webrtc::remote::Remote;
use bytes::{Bytes, BytesMut};
use futures_util::FutureExt as _;
use slab::Slab;
use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Instant;
use trocar_proto::media::bytes::put;
use trocar_proto::media::ext::playout_delay;
use trocar_proto::media::feed::Feed;
use trocar_proto::media::leg::Next;
use trocar_proto::media::ring::PacketInfo;
use trocar_proto::media::roq;
use trocar_proto::media::rtp::{FIXED_HEADER, Header, HeaderFields, write_header};
use trocar_proto::session::admission::RelayEvent;
use trocar_proto::session::api::FeedState;
use trocar_proto::session::feed::MediaKind;
use trocar_proto::session::ids::{CertHash, SessionId};
use trocar_proto::units::{FlowId, Micros, SeqNo};

/// A leg's viewer gets a point of its time map at most this often, in microseconds.
const POINT_SPACING_US: u64 = 100_000;
/// Header of a packet with the playout-delay extension: fixed header, extension header, one element of three bytes.
const HEADER_WITH_PLAYOUT: usize = FIXED_HEADER + 8;

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

    /// Sends packets again that a browser lost, each at most once a round trip.
    pub(crate) fn repair(&mut self, index: usize, now: Instant, lost: impl Iterator<Item = u16>) {
        let at = self.micros(now);
        let Self { feeds, legs, peers, listeners, tcp_out, batch, .. } = self;
        let Some(LegEntry { leg, way: Way::Webrtc(way), sent, feed, viewer, .. }) = legs.get_mut(index) else { return };
        let Some(FeedEntry { feed, .. }) = feed.and_then(|f| feeds.get(f)) else { return };
        let Some(outlet) = (Ways { peers, listeners, tcp_out }).of(way.peer, now) else { return };
        let Some(payload_type) = way.rtx_payload_type else { return };
        let WebrtcWay { streams: Some(streams), recent_repeats, next_rtx, rtx_ssrc, repair, .. } = &mut **way else {
            return;
        };
        let spacing = viewer.round_trip_us.unwrap_or(10_000).clamp(5_000, 200_000);
        batch.clear();
        // A NACK packet names at most a few hundred numbers; more than a window's worth is not looked at.
        for seq in lost.take(RECENT_REPEATS) {
            let place = usize::from(seq) % RECENT_REPEATS;
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
                outlet,
                sent,
                &mut streams.rtx,
                Outgoing { header, number, info, packet, osn: Some(osn), playout: None },
            );
        }
        sent.note_repeats(batch.flush(outlet));
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
    outlet: Outlet<'_>,
    sent: &mut LegSent,
    stream: &mut crate::srtp::SendStream,
    o: Outgoing<'_>,
) {
    let start = usize::from(o.info.payload_offset);
    let payload = o.packet.get(start..start + usize::from(o.info.payload_len)).unwrap_or(&[]);
    let osn = o.osn.as_ref().map_or(&[] as &[u8], |b| b);
    let header_len = if o.playout.is_some() { HEADER_WITH_PLAYOUT } else { FIXED_HEADER };
    let len = header_len + osn.len() + payload.len() + stream.overhead();
    let repeat = o.osn.is_some();
    if !batch.has_room(len, outlet) {
        let flushed = batch.flush(outlet);
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

/// Where peers' packets leave by.
#[derive(Clone, Copy)]
pub(super) struct Ways<'a> {
    pub(super) peers: &'a Slab<Peer>,
    pub(super) listeners: &'a [Listener],
    pub(super) tcp_out: &'a HashMap<(usize, SocketAddr), Rc<TcpOut>>,
}

impl<'a> Ways<'a> {
    /// Where a peer's media goes now.
    pub(super) fn of(self, peer: usize, now: Instant) -> Option<Outlet<'a>> {
        let peer = self.peers.get(peer)?;
        self.to(peer.listener, peer.transport.egress(now)?)
    }

    /// The outlet that leads to an address.
    pub(super) fn to(self, listener: usize, remote: Remote) -> Option<Outlet<'a>> {
        if remote.tcp {
            self.tcp_out.get(&(listener, remote.address)).map(|out| Outlet::Tcp(out))
        } else {
            self.listeners.get(listener).map(|l| Outlet::Udp(&l.webrtc, remote.address))
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

/// Sends all that a leg returns; true where it waits for a key frame.
fn send_leg(leg: &mut LegEntry, feed: &Feed, ways: Ways<'_>, batch: &mut Batch, now: Instant) -> bool {
    match &mut leg.way {
        Way::Webrtc(way) => send_webrtc(&mut leg.leg, way, &mut leg.sent, feed, ways, batch, now),
        Way::Roq(way) => send_roq(&mut leg.leg, way, &mut leg.sent, feed),
    }
}

/// Sends all that a browser's leg returns; true where it waits for a key frame.
fn send_webrtc(
    leg: &mut trocar_proto::media::leg::Leg,
    way: &mut WebrtcWay,
    sent: &mut LegSent,
    feed: &Feed,
    ways: Ways<'_>,
    batch: &mut Batch,
    now: Instant,
) -> bool {
    let Some(outlet) = ways.of(way.peer, now) else {
        way.paused = true;
        return false;
    };
    if std::mem::take(&mut way.paused) {
        // Pictures from before the pause would only come late.
        leg.skip_to_now(feed);
    }
    let Some(Streams { media, .. }) = &mut way.streams else { return false };
    let has_room = outlet.has_room(now);
    let need_key = loop {
        match leg.poll(feed, has_room) {
            Next::Send { index, header, seq } => {
                let Some((info, packet)) = feed.ring().get(index) else { continue };
                // Key frames tell the browser to show pictures as soon as they are decoded.
                let playout = way.playout_delay_id.filter(|_| info.frame.marks.independent);
                let o = Outgoing { header, number: seq, info, packet, osn: None, playout };
                push_packet(batch, outlet, sent, media, o);
            }
            Next::Idle => break false,
            Next::NeedKeyFrame => break true,
        }
    };
    sent.note(batch.flush(outlet));
    need_key
}

/// Hands all that a native leg returns to QUIC, bit for bit; true where it waits for a key frame. What is too large for a
/// datagram of the path goes by a stream of its own.
fn send_roq(leg: &mut trocar_proto::media::leg::Leg, way: &mut RoqWay, sent: &mut LegSent, feed: &Feed) -> bool {
    let Some(connection) = &way.connection else { return false };
    let prefix = way.prefix.as_bytes();
    let waiting = quic::DATAGRAM_SEND_BUFFER.saturating_sub(connection.datagram_send_buffer_space());
    let mut space = way.max_queue.min(quic::DATAGRAM_SEND_BUFFER).saturating_sub(waiting);
    let largest = connection.max_datagram_size().unwrap_or(0);
    let mut large = Large::default();
    let need_key = loop {
        // A packet is at most one slot; quinn counts 32 bytes of its own with each.
        match leg.poll(feed, space > 2_048 + 40) {
            Next::Send { index, .. } => {
                let Some((_, packet)) = feed.ring().get(index) else { continue };
                let len = prefix.len() + packet.len();
                space = space.saturating_sub(len + 32);
                if len > largest {
                    large.push(prefix, packet);
                    continue;
                }
                let mut datagram = BytesMut::with_capacity(len);
                datagram.extend_from_slice(prefix);
                datagram.extend_from_slice(packet);
                match connection.send_datagram(datagram.freeze()) {
                    Ok(()) => sent.packets += 1,
                    Err(quinn::SendDatagramError::TooLarge) => sent.too_large += 1,
                    Err(_) => sent.dropped += 1,
                }
            }
            Next::Idle => break false,
            Next::NeedKeyFrame => break true,
        }
    };
    large.send(connection, sent);
    need_key
}

/// Packets of one turn that fit no datagram of the path.
#[derive(Default)]
struct Large {
    bytes: Vec<u8>,
    packets: u64,
}

impl Large {
    fn push(&mut self, prefix: &[u8], packet: &[u8]) {
        if self.bytes.is_empty() {
            self.bytes.extend_from_slice(prefix);
        }
        roq::put_on_stream(&mut self.bytes, packet);
        self.packets += 1;
    }

    /// Sends them by one stream. Loss policy: where no stream is free or its window is full they are dropped and counted;
    /// waiting would hold up every other leg.
    fn send(self, connection: &quinn::Connection, sent: &mut LegSent) {
        if self.packets == 0 {
            return;
        }
        let Some(Ok(mut stream)) = connection.open_uni().now_or_never() else {
            sent.dropped += self.packets;
            return;
        };
        if let Some(Ok(())) = stream.write_all(&self.bytes).now_or_never() {
            let _ = stream.finish();
            sent.packets += self.packets;
        } else {
            let _ = stream.reset(roq::error_code::INTERNAL_ERROR.into());
            sent.dropped += self.packets;
        }
    }
}
