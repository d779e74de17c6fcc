//! Simulcast, legs that go from layer to layer, and RTCP of publishers and viewers.

use super::*;
use crate::worker::state::Origin;
use trocar_proto::media::rtcp::{Builder, SenderReport};
use trocar_proto::session::api::FeedState;
use trocar_proto::session::event::LegState;

/// Where the viewer is.
const VIEWER: &str = "127.0.0.1:4000";
/// Layer ids of the offer, the largest first, with the names of their feeds.
const LAYERS: [(&str, &str); 3] = [("h", "scope"), ("m", "scope-half"), ("l", "scope-quarter")];

fn outline(feed: &str, view: &str) -> FeedOutline {
    FeedOutline {
        feed: FeedId::new(feed).unwrap(),
        source: "scope".to_owned(),
        view: view.to_owned(),
        purpose: Purpose::Scope,
        max_bitrate: Bitrate(4_000_000),
        budget_ms: 200,
        priority: 0,
        replay: false,
    }
}

/// A browser that publishes VP8, in so many layers; its answer and its peer.
fn publisher(w: &mut World, layers: usize) -> (String, usize) {
    let grant = PublicationGrant {
        publication: PublicationId::new("pub1").unwrap(),
        session: SessionId::new("s1").unwrap(),
        realm: north(),
        publisher: ParticipantId::new("p1").unwrap(),
        video: Some(outline("scope", "overview")),
        layers: LAYERS[1..layers].iter().map(|(_, feed)| outline(feed, feed)).collect(),
        audio: None,
    };
    let offer = include_str!("../../webrtc/sdp/offers/chromium-whip.sdp").replace('\n', "\r\n");
    let answer = w.core.open_publication(grant, &offer, w.now).unwrap();
    assert_eq!(answer.feeds.len(), layers);
    (answer.sdp, *w.core.publications.values().next().unwrap())
}

/// A picture of one packet of that source; the id of its layer goes with it where it is given.
fn send(w: &mut World, peer: usize, ssrc: u32, seq: u16, rid: Option<&str>, key: bool) {
    let mut packet = vec![0; 64];
    let timestamp = u32::from(seq) * 3_000 + ssrc * 77;
    let fields = HeaderFields { marker: true, payload_type: 96, seq, timestamp, ssrc: Ssrc(ssrc) };
    let elements: Vec<(u8, &[u8])> = rid.iter().map(|r| (10, r.as_bytes())).collect();
    let n = write_header(&mut packet, fields, &elements).unwrap();
    packet.truncate(n);
    packet.extend_from_slice(if key { &KEY } else { &DELTA });
    // What waits on the viewer's line is not what these tests are about.
    w.line(VIEWER.parse().unwrap());
    w.core.handle_media(peer, w.now, &packet);
    w.core.send_on(w.now);
}

fn index(w: &World, feed: &str) -> usize {
    w.core.find_feed(&super::key(feed)).unwrap()
}

fn packets(w: &World, feed: &str) -> u64 {
    w.core.feeds[index(w, feed)].feed.counters().packets
}

fn told<T>(w: &mut World, of: impl Fn(RelayEvent) -> Option<T>) -> Vec<T> {
    std::iter::from_fn(|| w.events.try_recv().ok()).filter_map(of).collect()
}

#[tokio::test]
async fn each_layer_of_an_offer_with_simulcast_is_a_feed_of_its_own() {
    let mut w = World::new();
    let (sdp, peer) = publisher(&mut w, 3);
    for line in ["a=rid:h recv", "a=rid:m recv", "a=rid:l recv", "a=simulcast:recv h;m;l", "b=TIAS:12000000"] {
        assert!(sdp.lines().any(|l| l == line), "{line} is not in {sdp}");
    }
    assert!(sdp.contains("rtp-stream-id") && sdp.contains("repaired-rtp-stream-id") && sdp.contains("sdes:mid"));
    for (n, (rid, _)) in LAYERS.iter().enumerate() {
        let ssrc = n as u32 + 1;
        send(&mut w, peer, ssrc, 10, Some(rid), true);
        send(&mut w, peer, ssrc, 11, None, false);
    }
    send(&mut w, peer, 99, 10, Some("x"), true);
    send(&mut w, peer, 98, 10, None, true);
    assert_eq!(LAYERS.map(|(_, feed)| packets(&w, feed)), [2, 2, 2]);
    assert_eq!(w.core.peers[peer].demux.unrouted(), 2);
    // Key frames are asked of each layer's own source.
    for (n, (_, feed)) in LAYERS.iter().enumerate() {
        let Origin::Webrtc { media, .. } = w.core.feeds[index(&w, feed)].origin else { panic!("from WebRTC") };
        assert_eq!(media, Some(Ssrc(n as u32 + 1)));
    }
    // All go together.
    w.core.drop_peer(peer);
    assert_eq!(w.core.feeds.len(), 0);
}

#[tokio::test]
async fn layers_that_nobody_granted_are_not_taken() {
    let mut w = World::new();
    let (sdp, peer) = publisher(&mut w, 2);
    assert!(sdp.lines().any(|l| l == "a=simulcast:recv h;m"), "{sdp}");
    send(&mut w, peer, 3, 10, Some("l"), true);
    assert_eq!(w.core.peers[peer].demux.unrouted(), 1);
}

#[tokio::test]
async fn what_is_missing_of_a_layer_is_asked_of_its_source() {
    let mut w = World::new();
    let (_, peer) = publisher(&mut w, 3);
    for seq in [10, 11, 14, 15] {
        send(&mut w, peer, 2, seq, Some("m"), false);
    }
    for seq in 10..16 {
        send(&mut w, peer, 1, seq, Some("h"), false);
    }
    w.advance(30);
    let at = w.core.micros(w.now);
    let missing = |w: &mut World, lane: usize| {
        let nack = w.core.peers[peer].tracks[lane].nack.as_mut().expect("the offer has generic NACK");
        nack.poll(at).map(<[u16]>::to_vec)
    };
    assert_eq!(missing(&mut w, 1), Some(vec![12, 13]));
    assert_eq!(missing(&mut w, 0), None);
}

#[tokio::test]
async fn a_leg_goes_to_another_layer_at_its_key_frame_and_carries_the_old_one_until_then() {
    let mut w = World::new();
    let (_, peer) = publisher(&mut w, 3);
    let leg = w.tcp_viewer(VIEWER.parse().unwrap());
    let id = w.core.legs[leg].id.clone();
    let both = |w: &mut World, seq: u16, keys: [bool; 2]| {
        w.advance(33);
        send(w, peer, 1, seq, Some("h"), keys[0]);
        send(w, peer, 2, seq, Some("m"), keys[1]);
    };
    both(&mut w, 10, [true, true]);
    for seq in 11..20 {
        both(&mut w, seq, [false, false]);
    }
    let sent = |w: &World| w.core.legs[leg].leg.counters().packets;
    assert_eq!((sent(&w), w.core.legs[leg].feed), (10, Some(index(&w, "scope"))));
    let before = w.core.legs[leg].leg.last_sent().unwrap();
    told(&mut w, |_| None::<()>);

    w.core.switch_leg(&id, &super::key("scope-half"), Vec::new(), w.now).unwrap();
    for seq in 20..25 {
        both(&mut w, seq, [false, false]);
    }
    assert_eq!((sent(&w), w.core.legs[leg].feed), (15, Some(index(&w, "scope"))), "the old layer goes on");
    assert_eq!(w.core.feeds[index(&w, "scope-half")].feed.counters().key_requests, 1, "the new one is asked");
    both(&mut w, 25, [false, true]);
    both(&mut w, 26, [false, false]);
    assert_eq!((sent(&w), w.core.legs[leg].feed), (18, Some(index(&w, "scope-half"))), "no picture is missing");
    let switched = told(&mut w, |e| match e {
        RelayEvent::Switched { leg, feed } => Some((leg, feed.feed.to_string())),
        _ => None,
    });
    assert_eq!(switched, [(id.clone(), "scope-half".to_owned())]);
    // Time goes on as the clock does: seven pictures of 33 ms, whatever the layers' own timestamps are.
    let after = w.core.legs[leg].leg.last_sent().unwrap();
    let ticks = after.0.wrapping_sub(before.0);
    assert!(ticks.abs_diff(7 * 2_970) < 300, "{ticks}");
    assert_eq!(w.core.feeds[index(&w, "scope")].legs, Vec::<usize>::new());

    // Back again; and a wish that is changed before it came true.
    w.core.switch_leg(&id, &super::key("scope-quarter"), Vec::new(), w.now).unwrap();
    w.core.switch_leg(&id, &super::key("scope"), Vec::new(), w.now).unwrap();
    send(&mut w, peer, 3, 1, Some("l"), true);
    assert_eq!(w.core.legs[leg].feed, Some(index(&w, "scope-half")), "the quarter is not waited for any more");
    both(&mut w, 27, [true, false]);
    assert_eq!(w.core.legs[leg].feed, Some(index(&w, "scope")));
    w.core.close_feed(&super::key("scope-quarter"));
    w.core.tick(w.now);
    assert!(w.core.switching.is_empty());
    assert_eq!(w.core.legs[leg].state, LegState::Connected);
}

#[tokio::test]
async fn a_leg_does_not_go_to_another_source_or_format_or_to_nothing() {
    let mut w = World::new();
    publisher(&mut w, 2);
    let leg = w.tcp_viewer(VIEWER.parse().unwrap());
    let id = w.core.legs[leg].id.clone();
    let mut refusal = |name: &str, change: &dyn Fn(&mut FeedDescriptor)| {
        let half = index(&w, "scope-half");
        let before = w.core.feeds[half].descriptor.clone();
        change(&mut w.core.feeds[half].descriptor);
        let refused = w.core.switch_leg(&id, &super::key(name), Vec::new(), w.now);
        w.core.feeds[half].descriptor = before;
        refused
    };
    assert_eq!(refusal("scope-half", &|_| ()), Ok(()), "the control");
    assert_eq!(refusal("none", &|_| ()), Err(AdmitError::NoSuchFeed));
    let is_refused = |r: Result<(), AdmitError>, word: &str| {
        assert!(matches!(&r, Err(AdmitError::NotAcceptable { detail, .. }) if detail.contains(word)), "{r:?}");
    };
    is_refused(refusal("scope-half", &|d| d.source = "room".to_owned()), "another view of its own source");
    is_refused(refusal("scope-half", &|d| d.codec = "H264".to_owned()), "was opened for VP8");
    let other = LegId::new("leg9").unwrap();
    assert_eq!(w.core.switch_leg(&other, &super::key("scope"), Vec::new(), w.now), Err(AdmitError::NoSuchLeg));
}

#[tokio::test]
async fn a_flood_of_requests_leaves_at_most_two_key_frames_a_second_to_the_publisher() {
    let mut w = World::new();
    let (_, peer) = publisher(&mut w, 3);
    let leg = w.tcp_viewer(VIEWER.parse().unwrap());
    let (viewer, media) = w.core.legs[leg].webrtc().map(|way| (way.peer, way.ssrc)).unwrap();
    for n in 0..10_000_u16 {
        w.advance(1);
        // Each request is answered at once, so that the next is a new one.
        send(&mut w, peer, 1, n, Some("h"), n % 10 == 0);
        let head = Builder::default().receiver_report(Ssrc(4), None).pli(Ssrc(4), media);
        w.core.handle_peer_rtcp(viewer, w.now, &head.fir(Ssrc(4), media, n as u8).finish());
    }
    let asked = w.core.feeds[index(&w, "scope")].feed.counters().key_requests;
    assert!((15..=21).contains(&asked), "{asked} in 10 s");
    assert_eq!(
        w.core.feeds[index(&w, "scope-half")].feed.counters().key_requests,
        0,
        "of the layer that is seen alone"
    );
}

#[tokio::test]
async fn a_fir_command_that_comes_again_is_one_command() {
    let mut w = World::new();
    let (_, peer) = publisher(&mut w, 1);
    let leg = w.tcp_viewer(VIEWER.parse().unwrap());
    let (viewer, media) = w.core.legs[leg].webrtc().map(|way| (way.peer, way.ssrc)).unwrap();
    let asked = |w: &mut World, seq: u16, number: u8| {
        w.advance(600);
        // A key frame takes back whatever was wanted.
        send(w, peer, 1, seq, Some("h"), true);
        let before = w.core.feeds[index(w, "scope")].feed.counters().key_requests;
        let fir = Builder::default().receiver_report(Ssrc(4), None).fir(Ssrc(4), media, number).finish();
        w.core.handle_peer_rtcp(viewer, w.now, &fir);
        w.core.feeds[index(w, "scope")].feed.counters().key_requests - before
    };
    assert_eq!([asked(&mut w, 1, 7), asked(&mut w, 2, 7), asked(&mut w, 3, 8)], [1, 0, 1]);
}

#[tokio::test]
async fn a_publishers_goodbye_stalls_its_layer_at_once_and_its_reports_tell_its_clock() {
    let mut w = World::new();
    let (_, peer) = publisher(&mut w, 2);
    let leg = w.tcp_viewer(VIEWER.parse().unwrap());
    send(&mut w, peer, 1, 1, Some("h"), true);
    send(&mut w, peer, 2, 1, Some("m"), true);
    let state = |w: &World, feed: &str| w.core.feeds[index(w, feed)].state;
    assert_eq!((state(&w, "scope"), state(&w, "scope-half")), (FeedState::Live, FeedState::Live));
    // Its clock is an hour behind.
    let ntp = super::super::state::wall_now().to_ntp() - (3_600 << 32);
    let sr = SenderReport { ssrc: Ssrc(1), ntp, rtp_time: 3_077, packets: 1, octets: 1 };
    w.core.handle_peer_rtcp(peer, w.now, &Builder::default().sender_report(&sr).finish());
    w.advance(1_100);
    w.core.tick(w.now);
    let offset = w.core.legs[leg].webrtc().unwrap().clock_offset.unwrap();
    assert_eq!((offset + (1 << 30)) >> 32, -3_600, "{offset}");
    send(&mut w, peer, 1, 2, None, false);
    send(&mut w, peer, 2, 2, None, false);
    w.core.handle_peer_rtcp(peer, w.now, &Builder::default().receiver_report(Ssrc(1), None).bye(&[Ssrc(1)]).finish());
    assert_eq!((state(&w, "scope"), state(&w, "scope-half")), (FeedState::Stalled, FeedState::Live));
    send(&mut w, peer, 1, 3, None, false);
    assert_eq!(state(&w, "scope"), FeedState::Live, "who sends again is there again");
}
