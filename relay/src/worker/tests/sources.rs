//! SSRCs that two streams have by chance: whatever others chose, streams are kept apart by flows, m-lines and layers, and what
//! leaves by one connection has SSRCs of ours.

use super::*;
use trocar_proto::media::rtcp::{Builder, ReportBlock};
use trocar_proto::session::api::FeedState;
use trocar_proto::session::event::LegState;

/// Another feed of the same publisher.
fn second_feed(w: &mut World) -> usize {
    let mut descriptor = descriptor(4_000_000, 200);
    descriptor.feed = FeedId::new("other").unwrap();
    let publisher = ParticipantId::new("p1").unwrap();
    let cnf = CertHash([1; 32]);
    let grant = FeedGrant { key: key("other"), realm: north(), publisher, cnf, descriptor, flows: None };
    w.core.open_feed(grant).unwrap();
    w.core.find_feed(&key("other")).unwrap()
}

#[tokio::test]
async fn two_feeds_whose_publishers_chose_one_ssrc_stay_two() {
    let mut w = World::new();
    let (first, second) = (w.feed("VP8", ""), second_feed(&mut w));
    // The same source and the same numbers on two flows, in turns.
    for seq in 100..110 {
        for (feed, payload) in [(first, &KEY[..]), (second, &DELTA[..])] {
            w.seq = seq;
            let packet = w.packet(5, true, payload);
            w.core.take_native(feed, w.now, &packet);
        }
        w.timestamp = w.timestamp.wrapping_add(3_000);
    }
    let lengths = |feed: usize| -> Vec<usize> {
        let ring = w.core.feeds[feed].feed.ring();
        (0..ring.head()).map(|i| usize::from(ring.get(i).unwrap().0.payload_len)).collect()
    };
    assert_eq!((lengths(first), lengths(second)), (vec![KEY.len(); 10], vec![DELTA.len(); 10]));
    for feed in [first, second] {
        let c = w.core.feeds[feed].feed.counters();
        assert_eq!((c.packets, c.duplicates, c.missing, c.refused), (10, 0, 0, 0));
        assert_eq!(w.core.feeds[feed].state, FeedState::Live);
    }
    // One says goodbye under the SSRC that both have: the other one lives.
    let bye = Builder::default().receiver_report(Ssrc(5), None).bye(&[Ssrc(5)]).finish();
    let at = w.core.micros(w.now);
    w.core.handle_publisher_rtcp(first, at, &bye);
    assert_eq!((w.core.feeds[first].state, w.core.feeds[second].state), (FeedState::Stalled, FeedState::Live));
}

#[tokio::test]
async fn a_viewer_that_reports_under_the_ssrc_of_what_it_views_is_heard_and_ends_nothing() {
    let mut w = World::new();
    let feed = w.feed("VP8", "");
    let leg = w.tcp_viewer("127.0.0.1:4000".parse().unwrap());
    w.picture(feed, &[&KEY]);
    let way = w.core.legs[leg].webrtc().unwrap();
    let (peer, ssrc, rtx) = (way.peer, way.ssrc, way.rtx_ssrc);
    let block = |fraction_lost| ReportBlock {
        ssrc,
        fraction_lost,
        cumulative_lost: 3,
        highest_seq: 0,
        jitter: 0,
        last_sr: 0,
        delay_since_sr: 0,
    };
    for (from, lost) in [(ssrc, 64), (rtx, 65), (Ssrc(5), 66)] {
        let said = Builder::default().receiver_report(from, Some(&block(lost))).bye(&[from]).finish();
        w.core.handle_peer_rtcp(peer, w.now, &said);
        assert_eq!(w.core.legs[leg].viewer.fraction_lost, lost, "{from:?}");
    }
    w.picture(feed, &[&DELTA]);
    let (leg, feed) = (&w.core.legs[leg], &w.core.feeds[feed]);
    assert_eq!((leg.sent.packets, feed.state), (2, FeedState::Live));
    assert_ne!(leg.state, LegState::Closed);
}

#[tokio::test]
async fn what_leaves_by_a_connection_has_a_key_stream_of_its_own_for_each_ssrc() {
    let mut w = World::new();
    w.feed("VP8", "");
    let leg = w.tcp_viewer("127.0.0.1:4000".parse().unwrap());
    let way = w.core.legs[leg].webrtc().unwrap();
    let streams = way.streams.as_ref().unwrap();
    assert_eq!((streams.media.ssrc(), streams.rtx.ssrc()), (way.ssrc, way.rtx_ssrc));
    let (peer, taken) = (way.peer, way.ssrc);
    let keys = w.core.peers[peer].keys.as_mut().unwrap();
    assert!(keys.send.claim(taken).is_err(), "the control: no second owner of an SSRC");
}
