//! Native legs: packets go to QUIC bit for bit, by datagram, or by a stream per frame where the viewer asked for that.

use super::{Turn, catches_up};
use crate::worker::native::{Handed, RoqWay, frame_name};
use crate::worker::repair;
use crate::worker::state::LegSent;
use trocar_proto::media::fec::send::RepairSender;
use trocar_proto::media::feed::Feed;
use trocar_proto::media::leg::{Leg, Next};
use trocar_proto::media::rate::Pacer;

/// What a leg sends from, and what it counts.
pub(super) struct Sending<'a> {
    pub(super) leg: &'a mut Leg,
    pub(super) sent: &'a mut LegSent,
    pub(super) catch_up: &'a mut Pacer,
    pub(super) repair: Option<&'a mut RepairSender>,
}

/// Hands all that a native leg returns to QUIC, bit for bit; true where it waits for a key frame. Loss policy: where no line of
/// the leg takes a frame, and where a frame came too late, the leg goes on at the next frame that needs no other.
pub(super) fn send(what: Sending<'_>, way: &mut RoqWay, feed: &Feed, turn: &mut Turn<'_>) -> bool {
    let Sending { leg, sent, catch_up, mut repair } = what;
    let Turn { now, at, again, .. } = turn;
    if way.paths() == 0 {
        return false;
    }
    if way.expire(*now) {
        leg.skip_to_now(feed);
    }
    way.note_offered(feed.counters().bytes);
    let need_key = loop {
        if let Err(when) = catches_up(leg, catch_up, feed, *at) {
            *again = Some(when);
            break false;
        }
        // While it waits for a key frame, what comes next is passed over and says nothing about room.
        let next = leg.next_len(feed).and_then(|_| leg.next_packet(feed)).map(frame_name);
        let catching_up = leg.is_catching_up();
        match leg.poll(feed, way.has_room(next, *at)) {
            Next::Send { index, .. } => {
                let Some((info, packet)) = feed.ring().get(index) else { continue };
                // What a joiner is sent of the past is not late for that.
                let arrived = if catching_up { *at } else { info.arrived };
                match way.send_packet(info, packet, (*now, *at), arrived) {
                    Handed::Sent => {
                        sent.packets += 1;
                        if let Some(repair) = &mut repair {
                            let ends = info.frame.marks.end || info.marker;
                            repair::note_sent(repair, way, packet, ends, *at);
                        }
                    }
                    Handed::Missed => sent.dropped += 1,
                    Handed::Refused => {
                        sent.dropped += 1;
                        leg.skip_to_now(feed);
                    }
                }
            }
            Next::Idle => break false,
            // One that there is no room for would be left out too, and the next may be asked for half a second later.
            Next::NeedKeyFrame => break way.has_room(None, *at),
        }
    };
    way.end_turn(*at);
    need_key
}
