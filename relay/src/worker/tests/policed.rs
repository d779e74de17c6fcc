//! A feed that sends far above its grant loses whole frames, is counted, and no other feed notices; and a realm's line has so
//! many places.

use super::*;
use std::collections::BTreeMap;
use trocar_proto::media::rtp::Header;

/// Two feeds of 4 Mbit/s: the first sends at so many times its grant, the second within its own; for four seconds of 50
/// frames a second in ten packets. Per feed: the packets of each frame that the feed took.
fn run(w: &mut World, times: usize) -> [Vec<usize>; 2] {
    let first = w.feed("H264", "packetization-mode=1");
    let mut other = w.core.feeds[first].descriptor.clone();
    other.feed = FeedId::new("other").unwrap();
    let publisher = ParticipantId::new("p1").unwrap();
    let grant = FeedGrant {
        key: key("other"),
        realm: north(),
        publisher,
        cnf: CertHash([1; 32]),
        descriptor: other,
        flows: None,
    };
    w.core.open_feed(grant).unwrap();
    let second = w.core.find_feed(&key("other")).unwrap();
    let taken = |w: &World, feed: usize| w.core.feeds[feed].feed.counters().packets;
    let mut frames = [Vec::new(), Vec::new()];
    let mut seq = BTreeMap::from([(first, 100_u16), (second, 100)]);
    for _ in 0..200 {
        for (place, feed, bytes) in [(0, first, 900 * times), (1, second, 900)] {
            let before = taken(w, feed);
            for n in 0..10 {
                w.seq = *seq.get(&feed).unwrap();
                let mut payload = vec![0x61; bytes];
                payload[1] = 0x88;
                let packet = w.packet(5 + feed as u32, n == 9, &payload);
                assert!(Header::parse(&packet).is_ok());
                w.core.store(feed, w.now, &packet);
                seq.insert(feed, w.seq);
            }
            frames[place].push((taken(w, feed) - before) as usize);
        }
        w.advance(20);
        w.timestamp = w.timestamp.wrapping_add(1_800);
    }
    let dropped = |feed: usize| w.core.feeds[feed].police.dropped();
    assert_eq!(dropped(second), 0);
    assert_eq!(dropped(first) > 0, times > 1);
    frames
}

#[tokio::test]
async fn who_sends_twice_its_grant_loses_whole_frames_and_another_feed_loses_nothing() {
    let mut w = World::new();
    let [greedy, modest] = run(&mut w, 2);
    // A new source's first packet waits for its second.
    assert!(modest[1..].iter().all(|n| *n == 10), "{modest:?}");
    let whole = greedy[1..].iter().filter(|n| **n == 10).count();
    assert_eq!(greedy[1..].iter().filter(|n| !matches!(**n, 0 | 10)).count(), 0, "a frame in parts: {greedy:?}");
    assert!((140..175).contains(&whole), "{whole} of 200 frames at twice the grant");
    let text = crate::metrics::Snapshot { feeds: w.core.snapshot().feeds, ..Default::default() }.render();
    let line = text.lines().find(|l| l.starts_with("trocar_feed_policed_packets_total") && l.contains("scope"));
    assert!(line.is_some_and(|l| !l.ends_with(" 0.0")), "{text}");
}

#[tokio::test]
async fn within_its_grant_nothing_is_dropped() {
    let mut w = World::new();
    let [a, b] = run(&mut w, 1);
    assert!(a[1..].iter().chain(&b[1..]).all(|n| *n == 10));
}

#[tokio::test]
async fn second_copies_are_no_part_of_the_grant() {
    let mut w = World::new();
    let feed = w.feed("H264", "packetization-mode=1");
    // The whole grant, by two connections: three times as much as is let through of what is no copy.
    let (mut payload, copies) = (vec![0x61; 988], 3);
    payload[1] = 0x88;
    for _ in 0..200 {
        for n in 0..10 {
            let packet = w.packet(5, n == 9, &payload);
            for _ in 0..copies {
                w.core.store(feed, w.now, &packet);
            }
        }
        w.advance(20);
        w.timestamp = w.timestamp.wrapping_add(1_800);
    }
    let entry = &w.core.feeds[feed];
    let c = entry.feed.counters();
    assert_eq!((entry.police.dropped(), c.packets), (0, 2_000));
    assert_eq!(c.duplicates, 2 * 2_000);
}

#[tokio::test]
async fn a_viewer_that_reports_without_end_is_heard_so_often_and_no_more_and_the_others_always() {
    use trocar_proto::media::rtcp::{Builder, ReportBlock};
    let mut w = World::new();
    w.feed("H264", "packetization-mode=1");
    let [greedy, modest] = ["leg1", "leg2"].map(|name| {
        let id = LegId::new(name).unwrap();
        w.core.open_roq_leg(grant_of(&id), CertHash([1; 32]), w.now).unwrap();
        w.core.legs.iter().find(|(_, l)| l.id == id).unwrap().0
    });
    let report = |lost| {
        let block = ReportBlock {
            ssrc: Ssrc(5),
            fraction_lost: lost,
            cumulative_lost: 0,
            highest_seq: 0,
            jitter: 0,
            last_sr: 0,
            delay_since_sr: 0,
        };
        Builder::default().receiver_report(Ssrc(1), Some(&block)).finish()
    };
    for second in 1..=3 {
        // A hundred thousand of one and two hundred of the other, evenly.
        for n in 0..200_u32 {
            for _ in 0..500 {
                w.core.handle_viewer_rtcp(greedy, w.now, &report(1));
            }
            w.core.handle_viewer_rtcp(modest, w.now, &report(u8::try_from(n).unwrap()));
            assert_eq!(u32::from(w.core.legs[modest].viewer.fraction_lost), n, "each of its reports counts");
            w.advance(5);
        }
        let heard = 100_000 * second - w.core.counters.rtcp_dropped;
        assert!((4_000 * second..=4_000 * second + 1_000).contains(&heard), "{heard} within {second} s");
    }
}

#[tokio::test]
async fn a_realms_line_has_places_for_what_it_takes() {
    let mut w = World::new();
    w.feed("H264", "packetization-mode=1");
    // 10 Mbit/s: two legs of 4.
    let listener = RealmListener { uplink: Some(Bitrate(10_000_000)), ..listener() };
    w.core.listeners[0].uplink = crate::uplink::Uplink::of(&listener);
    let mut open = |name: &str| {
        let grant = grant_of(&LegId::new(name).unwrap());
        w.core.open_roq_leg(grant, CertHash([1; 32]), w.now)
    };
    open("leg1").unwrap();
    open("leg2").unwrap();
    let refused = open("leg3").unwrap_err();
    assert!(matches!(&refused, AdmitError::Full(why) if why.contains("2.0 are left")), "{refused}");
    w.core.close_leg(&LegId::new("leg1").unwrap());
    let grant = grant_of(&LegId::new("leg3").unwrap());
    w.core.open_roq_leg(grant, CertHash([1; 32]), w.now).unwrap();
}

fn grant_of(leg: &LegId) -> LegGrant {
    let (roq, realm) = (LegRequest::default(), north());
    LegGrant { leg: leg.clone(), feed: key("scope"), viewer: None, realm, companion: None, roq, flows: None }
}
