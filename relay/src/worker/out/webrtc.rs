//! WebRTC legs: header rewritten, payload copied and sealed straight into the batch; repeats by RTX.

use super::flex::{Flex, Report};
use super::packet::{OVERHEAD, Outgoing, What, push, push_whole};
use super::{Fill, Turn, Ways, catches_up, fill};
use crate::srtp::SendStream;
use crate::worker::egress::{Batch, Outlet};
use crate::worker::peer::{Part, RECENT_REPEATS, Streams, WebrtcWay};
use crate::worker::state::{Core, FeedEntry, LegEntry, LegSent, Way, random_u32};
use std::time::Instant;
use trocar_proto::media::fec::flexfec::MAX_PACKET;
use trocar_proto::media::feed::Feed;
use trocar_proto::media::leg::{Leg, Next};
use trocar_proto::media::rate::Pacer;
use trocar_proto::media::rtp::HeaderFields;
use trocar_proto::media::twcc::Feedback;
use trocar_proto::units::{Micros, SeqNo};

impl Core {
    /// Sends packets again that a browser lost, each at most once a round trip.
    pub(crate) fn repair(&mut self, index: usize, now: Instant, lost: impl Iterator<Item = u16>) {
        let at = self.micros(now);
        let Self { feeds, legs, peers, listeners, tcp_out, batch, .. } = self;
        let Some(LegEntry { leg, way: Way::Webrtc(way), sent, feed, viewer, .. }) = legs.get_mut(index) else { return };
        let Some(FeedEntry { feed, .. }) = feed.and_then(|f| feeds.get(f)) else { return };
        let ways = Ways { peers, listeners, tcp_out };
        let (Some(outlet), Some(line)) = (ways.of(way.peer, now), ways.line(way.peer)) else { return };
        let Ok(mut line) = line.try_borrow_mut() else { return };
        let Some(payload_type) = way.rtx_payload_type else { return };
        let WebrtcWay { streams, recent_repeats, next_rtx, rtx_ssrc, repair, ext, mid, clock_offset, flex, .. } =
            &mut **way;
        let Some(streams) = streams else { return };
        let what = What { ext: *ext, mid, clock_offset: *clock_offset, stored: feed.extensions() };
        let spacing = viewer.round_trip_us.unwrap_or(10_000).clamp(5_000, 200_000);
        batch.clear();
        // A NACK packet names at most a few hundred numbers; more than a window's worth is not looked at.
        for seq in lost.take(RECENT_REPEATS) {
            let place = usize::from(seq) % RECENT_REPEATS;
            let Some(recent) = recent_repeats.get_mut(place) else { continue };
            if recent.0 == seq && recent.1 != Micros(0) && at.since(recent.1) < spacing {
                continue;
            }
            flex.iter_mut().for_each(|f| f.note_lost(seq));
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
            let osn = Some(seq.to_be_bytes());
            let o = Outgoing { header, number, info, packet, osn, what };
            // Repeats do not wait for the pace, what comes after them does.
            let _ = line.take(at, u32::from(info.payload_len) + OVERHEAD);
            push(batch, outlet, sent, &mut streams.rtx, (&mut line, at), &o, |_| {});
        }
        sent.note_repeats(batch.flush(outlet));
    }
}

impl Core {
    /// A viewer tells when packets of its connection came.
    pub(in crate::worker) fn handle_line_feedback(&mut self, peer: usize, at: Micros, feedback: &Feedback) {
        if let Some(peer) = self.peers.get_mut(peer) {
            peer.line.get_mut().handle_feedback(at, feedback);
        }
    }
}

impl Core {
    /// A receiver report of a browser's leg: how much redundancy it gets from now on.
    pub(in crate::worker) fn plan_redundancy(&mut self, index: usize, at: Micros) {
        let Some(LegEntry { way: Way::Webrtc(way), sent, feed, viewer, .. }) = self.legs.get_mut(index) else { return };
        let Some(entry) = feed.and_then(|f| self.feeds.get(f)) else { return };
        let WebrtcWay { flex, fec, ssrc, ext, .. } = &mut **way;
        let Some(stream) = *fec else { return };
        let new = || {
            let first = u16::try_from(random_u32() & 0x7fff).unwrap_or(0);
            Box::new(Flex::new(*ssrc, stream, ext.transport_cc, first))
        };
        let d = &entry.descriptor;
        let frames = if d.fps > 0.0 { d.fps } else { 30.0 };
        let report = Report {
            fraction_lost: viewer.fraction_lost,
            packets_sent: sent.packets,
            round_trip_us: viewer.round_trip_us.unwrap_or(50_000),
            budget_us: u64::from(d.budget_ms) * 1_000,
            frame_packets: (d.max_bitrate.0 as f64 / 8.0 / frames / 1_100.0).ceil() as u32,
        };
        flex.get_or_insert_with(new).note_report(at, &report);
    }
}

/// What a leg sends from, and what it counts.
pub(super) struct Sending<'a> {
    pub(super) leg: &'a mut Leg,
    pub(super) sent: &'a mut LegSent,
    pub(super) catch_up: &'a mut Pacer,
}

/// Sends all that a browser's leg returns and its line takes now; true where it waits for a key frame.
pub(super) fn send(
    what: Sending<'_>,
    way: &mut WebrtcWay,
    round_trip_us: Option<u64>,
    feed: &Feed,
    ways: Ways<'_>,
    turn: &mut Turn<'_>,
) -> bool {
    let Sending { leg, sent, catch_up } = what;
    let Turn { now, at, batch, again } = turn;
    let (Some(outlet), Some(line)) = (ways.of(way.peer, *now), ways.line(way.peer)) else {
        way.paused = true;
        return false;
    };
    if std::mem::take(&mut way.paused) {
        // Pictures from before the pause would only come late.
        leg.skip_to_now(feed);
    }
    let WebrtcWay { streams, ext, mid, clock_offset, flex, part, .. } = way;
    let Some(Streams { media, fec, .. }) = streams else { return false };
    let Ok(mut line) = line.try_borrow_mut() else { return false };
    line.note_round_trip(*at, round_trip_us);
    let fill = fill(leg, feed, *at);
    leg.leave_out_discardable(fill == Fill::Half);
    let has_room = outlet.has_room(*now) && fill != Fill::Full;
    // Sound does not wait behind pictures, and a TCP connection has a pace of its own.
    let paced = *part == Part::Primary && matches!(outlet, Outlet::Udp(..));
    let headers = What { ext: *ext, mid, clock_offset: *clock_offset, stored: feed.extensions() };
    let need_key = loop {
        if has_room && let Some(len) = leg.next_len(feed) {
            let mut line_takes = || if paced { line.take(*at, len + OVERHEAD) } else { Ok(()) };
            if let Err(when) = catches_up(leg, catch_up, feed, *at).and_then(|()| line_takes()) {
                *again = Some(when);
                break false;
            }
        }
        match leg.poll(feed, has_room) {
            Next::Send { index, header, seq } => {
                let Some((info, packet)) = feed.ring().get(index) else { continue };
                let o = Outgoing { header, number: seq, info, packet, osn: None, what: headers };
                let seen = |plain: &[u8]| flex.iter_mut().for_each(|f| f.protect(plain));
                push(batch, outlet, sent, media, (&mut line, *at), &o, seen);
                if let (Some(flex), Some(stream)) = (flex.as_mut(), fec.as_mut()) {
                    send_redundancy(flex, stream, batch, outlet, sent);
                }
            }
            Next::Idle => break false,
            Next::NeedKeyFrame => break true,
        }
    };
    sent.note(batch.flush(outlet));
    need_key
}

/// Sends the repair packets of a block that is complete; nearly always there are none.
fn send_redundancy(
    flex: &mut Flex,
    stream: &mut SendStream,
    batch: &mut Batch,
    outlet: Outlet<'_>,
    sent: &mut LegSent,
) {
    let mut packet = [0; MAX_PACKET + 64];
    while let Some((len, number)) = flex.poll(&mut packet) {
        push_whole(batch, outlet, sent, stream, number, packet.get(..len).unwrap_or(&[]));
        sent.fec += 1;
    }
}
