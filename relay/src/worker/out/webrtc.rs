//! WebRTC legs: header rewritten, payload copied and sealed straight into the batch; repeats by RTX.

use super::Ways;
use crate::worker::egress::{Batch, Outlet};
use crate::worker::peer::{RECENT_REPEATS, Streams, WebrtcWay};
use crate::worker::state::{Core, FeedEntry, LegEntry, LegSent, Way};
use std::time::Instant;
use trocar_proto::media::bytes::put;
use trocar_proto::media::ext::playout_delay;
use trocar_proto::media::feed::Feed;
use trocar_proto::media::leg::{Leg, Next};
use trocar_proto::media::ring::PacketInfo;
use trocar_proto::media::rtp::{FIXED_HEADER, HeaderFields, write_header};
use trocar_proto::units::{Micros, SeqNo};

/// Header of a packet with the playout-delay extension: fixed header, extension header, one element of three bytes.
const HEADER_WITH_PLAYOUT: usize = FIXED_HEADER + 8;

impl Core {
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

/// Sends all that a browser's leg returns; true where it waits for a key frame.
pub(super) fn send(
    leg: &mut Leg,
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
