//! What repair needs of the worker: a receiver for each line that can lose packets, and the clock.

use super::*;
use crate::worker::native::{RoqWay, RoqWayConfig};
use crate::worker::state::{LegEntry, Way};
use trocar_proto::media::fec::send::{FecStream, RepairSender};
use trocar_proto::media::fec::xr::LossRecorder;
use trocar_proto::media::leg::{Leg, Numbering};
use trocar_proto::session::remote::CascadeGrant;
use trocar_proto::units::Micros;

/// A sender that puts redundancy in: its line is too long for questions, and one packet of 50 is lost on it.
fn sender(w: &mut World, at: Micros) -> RepairSender {
    let stream = FecStream { ssrc: Ssrc(1), payload_type: 127, first_seq: 0 };
    let mut sender = RepairSender::new(Bitrate(4_000_000), 200_000, Some(stream));
    sender.set_round_trip(at, 190_000, 1_000);
    let (mut recorder, first) = (LossRecorder::default(), w.seq);
    for n in 0..1_000 {
        sender.handle_sent(at, &w.packet(5, true, &DELTA), true);
        if n % 50 != 7 {
            recorder.handle_packet(Ssrc(5), first.wrapping_add(n));
        }
    }
    let told = recorder.poll_report(Ssrc(2)).unwrap();
    sender.handle_rtcp(at, &told).for_each(drop);
    assert!(sender.plan().fec_percent > 0, "{:?}", sender.plan());
    assert_eq!(sender.next_wakeup(), None);
    sender
}

#[tokio::test]
async fn the_worker_wakes_for_redundancy_that_waits_for_small_frames() {
    let mut w = World::new();
    let index = w.feed("VP8", "");
    w.picture(index, &[&KEY]);
    let at = w.core.micros(w.now);
    let mut repair = sender(&mut w, at);
    let way = RoqWay::new(RoqWayConfig {
        cnf: CertHash([2; 32]),
        rtcp_flow: FlowId(9),
        prefix: FlowPrefix::new(FlowId(8)).unwrap(),
        rtcp_prefix: FlowPrefix::new(FlowId(9)).unwrap(),
        asked: LegRequest::default(),
        feed: descriptor(4_000_000, 200),
    });
    let leg = Leg::new(Numbering::Verbatim, &w.core.feeds[index].feed, at);
    let mut entry = LegEntry::new(LegId::new("leg1").unwrap(), Some(index), leg, Way::Roq(way), at);
    entry.repair = Some(Box::new(RepairSender::new(Bitrate(4_000_000), 200_000, None)));
    let leg = w.core.legs.insert(entry);
    w.core.feeds[index].legs.push(leg);
    w.core.wake_at = None;
    w.core.fan_out(index, w.now);
    assert_eq!(w.core.wake_at, None, "nothing waits");
    repair.handle_sent(at, &w.packet(5, true, &DELTA), true);
    w.core.legs[leg].repair = Some(Box::new(repair));
    w.core.fan_out(index, w.now);
    let due = w.core.wake_at.unwrap().duration_since(w.core.origin);
    assert_eq!(due, Duration::from_micros(at.0) + Duration::from_millis(4));
    w.core.due(w.core.origin + due);
    let repair = w.core.legs[leg].repair.as_ref().unwrap();
    assert!(repair.counters().fec.repairs > 0 && repair.next_wakeup().is_none());
}

#[tokio::test]
async fn what_is_lost_between_relays_is_asked_for_whatever_the_publisher_sends_by() {
    let mut w = World::new();
    let stray = w.feed("VP8", "");
    assert!(w.core.feeds[stray].repair.is_none(), "the control: of a publisher that does not send by datagrams");
    let mut descriptor = w.core.feeds[stray].descriptor.clone();
    descriptor.feed = FeedId::new("other").unwrap();
    let publisher = ParticipantId::new("p2").unwrap();
    let grant = CascadeGrant { key: key("other"), publisher, descriptor, upstream: Vec::new() };
    let feed = w.core.open_cascade(grant, w.now).unwrap();
    for seq in [100, 101, 103, 104, 105] {
        w.seq = seq;
        let packet = w.packet(5, true, &DELTA);
        w.core.take_native(feed, w.now, &packet);
    }
    w.advance(20);
    let at = w.core.micros(w.now);
    let repair = w.core.feeds[feed].repair.as_mut().unwrap();
    assert!(repair.poll_rtcp(at, Ssrc(1)).is_some());
    assert_eq!(repair.counters().nack.asked, 1);
}
