//! WebRTC legs: header rewritten, payload copied and sealed straight into the batch.

use super::flex::{Flex, Report};
use super::packet::{OVERHEAD, Outgoing, Takes, What, push, push_whole};
use super::{Fill, Turn, Ways, catches_up, fill, queue_limit_us};
use crate::srtp::SendStream;
use crate::worker::egress::{Batch, Outlet};
use crate::worker::peer::{Part, Streams, WebrtcWay};
use crate::worker::state::{Core, LegEntry, LegSent, Way, random_u32};
use trocar_proto::media::fec::flexfec::MAX_PACKET;
use trocar_proto::media::feed::Feed;
use trocar_proto::media::leg::{Leg, Next};
use trocar_proto::media::rate::Pacer;
use trocar_proto::units::Micros;

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

/// Sends all that a browser's leg returns and its line takes now; true where it waits for a key frame. A frame that has waited for
/// longer than its way leaves of the feed's budget is left out whole.
pub(super) fn send(
    what: Sending<'_>,
    way: &mut WebrtcWay,
    round_trip_us: Option<u64>,
    (feed, budget_us): (&Feed, u64),
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
    let WebrtcWay { streams, ext, mid, clock_offset, flex, part, renumber, pictures, .. } = way;
    let Some(Streams { media, fec, .. }) = streams else { return false };
    let Ok(mut line) = line.try_borrow_mut() else { return false };
    line.note_round_trip(*at, round_trip_us);
    let limit_us = queue_limit_us(budget_us, round_trip_us);
    let fill = fill(leg, feed, *at, limit_us);
    leg.leave_out_discardable(fill != Fill::Low);
    leg.leave_out_older(Micros(at.0.saturating_sub(limit_us)));
    if fill == Fill::Full {
        leg.give_up_frame();
    }
    let has_room = outlet.has_room(*now);
    // Sound does not wait behind pictures, and a TCP connection has a pace of its own.
    let paced = *part == Part::Primary && matches!(outlet, Outlet::Udp(..));
    let feed_count = leg.feed_count();
    let headers = What { ext: *ext, mid, clock_offset: *clock_offset, stored: feed.extensions(), feed_count };
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
                let (renumber, pictures) = (renumber.as_deref_mut(), pictures.as_mut());
                let takes = Takes { line: &mut line, now: *at, renumber, pictures };
                push(batch, outlet, sent, media, takes, &o, seen);
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
