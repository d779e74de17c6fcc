//! Several workers: a feed on one, viewers on both.

mod relayed;

use super::*;
use crate::metrics::Snapshot;
use crate::worker::cross::{Message, RING_BYTES, connect_with};
use trocar_proto::session::event::LegState;

/// The worker that a feed lives on, and another one. Nothing passes between them but by [`Self::settle`] and [`Self::cross`].
struct Two {
    home: World,
    there: World,
    to_home: Incoming,
    to_there: Incoming,
    feed: usize,
}

impl Two {
    fn new(ring_bytes: usize) -> Self {
        let mut ends = connect_with(2, ring_bytes).into_iter();
        let origin = Instant::now();
        let mut end = || {
            let (cross, incoming) = ends.next().unwrap();
            (World::with(cross, origin), incoming)
        };
        let ((mut home, to_home), (mut there, to_there)) = (end(), end());
        there.now = home.now;
        let feed = home.feed("VP8", "");
        Self { home, there, to_home, to_there, feed }
    }

    /// A browser on the other worker, by a TCP line that nobody reads: its leg.
    fn viewer(&mut self) -> usize {
        let images = self.home.core.standing(&key("scope").session, &[key("scope")]).images;
        self.there.core.admit_mirrors(images);
        let leg = self.there.tcp_viewer("127.0.0.1:4000".parse().unwrap());
        self.settle();
        leg
    }

    /// What the two have said to each other is heard.
    fn settle(&mut self) {
        let now = self.home.now;
        loop {
            if let Ok(m) = self.to_home.messages.try_recv() {
                self.home.core.handle_message(m, now);
            } else if let Ok(m) = self.to_there.messages.try_recv() {
                self.there.core.handle_message(m, now);
            } else {
                return;
            }
        }
    }

    /// What is in the ring comes across and is sent.
    fn cross(&mut self) {
        while self.to_there.crossings.take(&mut self.there.core) {}
    }

    fn picture(&mut self, payloads: &[&[u8]]) {
        self.home.picture(self.feed, payloads);
    }

    fn advance(&mut self, ms: u64) {
        self.home.advance(ms);
        self.there.advance(ms);
    }

    fn tick(&mut self) {
        self.home.core.tick(self.home.now);
        self.there.core.tick(self.there.now);
        self.settle();
        self.cross();
    }

    fn mirror(&self) -> Option<usize> {
        self.there.core.find_feed(&key("scope")).ok()
    }

    fn dropped(&self) -> u64 {
        self.home.core.cross.roads().map(|(_, road)| road.counters.dropped).sum()
    }

    /// Packets whose delay is known, of the feed as it is shown.
    fn delays(&self) -> u64 {
        let all = Snapshot::merge(vec![self.home.core.snapshot(), self.there.core.snapshot()]);
        assert_eq!(all.feeds.len(), 1, "a feed and its mirror are one feed");
        all.feeds[0].delay.count()
    }
}

/// A picture's first packet with so many bytes after it.
fn large(first: &[u8]) -> Vec<u8> {
    let mut packet = first.to_vec();
    packet.resize(500, 7);
    packet
}

#[tokio::test]
async fn a_mirror_gets_what_a_joiner_gets_and_then_every_packet_as_it_came() {
    let mut two = Two::new(RING_BYTES);
    two.picture(&[&DELTA]);
    two.picture(&[&KEY, &DELTA]);
    let leg = two.viewer();
    two.picture(&[&DELTA]);
    two.cross();
    let mirror = &two.there.core.feeds[two.mirror().unwrap()];
    let (ours, theirs) = (two.home.core.feeds[two.feed].feed.ring(), mirror.feed.ring());
    assert_eq!((ours.head(), theirs.head()), (4, 3), "nothing from before the key frame");
    for index in 0..3 {
        let (a, b) = (ours.get(index + 1).unwrap(), theirs.get(index).unwrap());
        assert_eq!((a.1, a.0.arrived, a.0.frame), (b.1, b.0.arrived, b.0.frame));
    }
    assert_eq!(two.there.core.legs[leg].sent.packets, 3);
}

#[tokio::test]
async fn a_mirror_whose_beginning_was_not_heard_is_told_of_again_and_begins_once() {
    let mut two = Two::new(RING_BYTES);
    two.picture(&[&KEY]);
    two.advance(1_000);
    let images = two.home.core.standing(&key("scope").session, &[key("scope")]).images;
    two.there.core.admit_mirrors(images);
    let leg = two.there.tcp_viewer("127.0.0.1:4000".parse().unwrap());
    // What was said is lost.
    let mut lost = 0;
    while two.to_home.messages.try_recv().is_ok() {
        lost += 1;
    }
    assert!(lost > 0);
    let mirrors = |two: &Two| two.home.core.feeds[two.feed].mirrors.len();
    two.picture(&[&KEY]);
    two.cross();
    assert_eq!((mirrors(&two), two.there.core.legs[leg].sent.packets), (0, 0), "the control: nobody knows of it");
    two.tick();
    assert_eq!((mirrors(&two), two.there.core.legs[leg].sent.packets), (1, 1));
    // The same words again, and again by the clock.
    let place = two.home.core.feeds[two.feed].mirrors[0].place();
    for _ in 0..3 {
        let again = Message::Begin { key: key("scope"), to: 1, place };
        two.home.core.handle_message(again, two.home.now);
        two.advance(600);
        two.tick();
    }
    assert_eq!(mirrors(&two), 1);
    two.picture(&[&KEY]);
    two.cross();
    let mirror = two.mirror().unwrap();
    assert_eq!(two.there.core.feeds[mirror].feed.counters().duplicates, 0, "one copy of each");
}

#[tokio::test]
async fn a_key_frame_that_a_viewer_elsewhere_needs_is_asked_for_at_home() {
    let mut two = Two::new(RING_BYTES);
    two.picture(&[&KEY]);
    let leg = two.viewer();
    two.cross();
    let wanted = |two: &mut Two| {
        let at = two.home.core.micros(two.home.now);
        two.home.core.feeds[two.feed].feed.poll_key_frame_request(at).is_some()
    };
    assert!(!wanted(&mut two), "the viewer has one");
    two.advance(1_000);
    let at = two.there.core.micros(two.there.now);
    two.there.core.want_key_frame(leg, two.there.now, at);
    two.settle();
    assert!(wanted(&mut two));
}

#[tokio::test]
async fn a_joiner_elsewhere_finds_no_key_frame_and_one_is_asked_for_before_any_packet_crossed() {
    let mut two = Two::new(RING_BYTES);
    two.picture(&[&DELTA]);
    two.viewer();
    let at = two.home.core.micros(two.home.now);
    assert!(two.home.core.feeds[two.feed].feed.poll_key_frame_request(at).is_some());
}

#[tokio::test]
async fn a_full_ring_costs_the_other_worker_packets_that_are_counted_and_it_recovers_at_the_next_key_frame() {
    let mut two = Two::new(16 << 10);
    let leg = two.viewer();
    let (key_packet, delta) = (large(&KEY), large(&DELTA));
    let sent = |two: &Two| two.there.core.legs[leg].sent.packets;
    two.picture(&[&key_packet]);
    two.cross();
    assert_eq!((sent(&two), two.dropped()), (1, 0));
    // The other worker does not get its turn, and the home does not wait for it.
    for _ in 0..100 {
        two.picture(&[&delta]);
    }
    let fits = 100 - two.dropped();
    assert!((25..35).contains(&fits), "{fits} packets of about 530 bytes in 16 KiB");
    let missing = |two: &Two| two.there.core.feeds[two.mirror().unwrap()].feed.counters().missing;
    two.cross();
    assert_eq!((sent(&two), missing(&two)), (1 + fits, 0), "what was in the ring is whole");
    two.picture(&[&key_packet]);
    for _ in 0..10 {
        two.picture(&[&delta]);
    }
    two.cross();
    assert_eq!((sent(&two), missing(&two)), (1 + fits + 11, two.dropped()), "the gap is seen, and nothing after it");
    let at = two.there.core.micros(two.there.now);
    let (there, now) = (&mut two.there.core, two.there.now);
    assert!(there.feeds[there.find_feed(&key("scope")).unwrap()].feed.join_point(at, 1_000).is_some());
    there.tick(now);
}

#[tokio::test]
async fn a_mirror_that_catches_up_through_a_ring_that_is_too_small_for_it_loses_nothing() {
    let mut two = Two::new(16 << 10);
    let delta = large(&DELTA);
    two.picture(&[&large(&KEY)]);
    for _ in 0..100 {
        two.picture(&[&delta]);
    }
    two.viewer();
    for _ in 0..10 {
        two.cross();
        // Nothing comes in any more: the clock goes on with it.
        two.tick();
    }
    two.cross();
    assert_eq!(two.dropped(), 0);
    assert_eq!(two.there.core.feeds[two.mirror().unwrap()].feed.ring().head(), 101);
}

#[tokio::test]
async fn a_mirror_is_taken_down_with_its_last_leg_and_what_it_measured_stays() {
    let mut two = Two::new(RING_BYTES);
    let leg = two.viewer();
    two.picture(&[&KEY]);
    two.cross();
    let peer = two.there.core.legs[leg].webrtc().unwrap().peer;
    assert!(two.mirror().is_some());
    let delays = two.delays();
    assert_eq!(delays, 1);
    two.there.core.drop_peer(peer);
    two.picture(&[&DELTA]);
    two.tick();
    assert!(two.mirror().is_none() && two.home.core.feeds[two.feed].mirrors.is_empty());
    assert_eq!(two.delays(), delays);
    // The place is used again: what was on its way to the old mirror is not taken for the new one's.
    two.viewer();
    two.picture(&[&DELTA]);
    two.there.core.drop_peer(two.there.core.peers.iter().next().unwrap().0);
    two.there.core.tick(two.there.now);
    two.viewer();
    two.cross();
    let counters = two.there.core.feeds[two.mirror().unwrap()].feed.counters();
    // Key frame and two more, as they are at home; once.
    assert_eq!((counters.packets, counters.duplicates, counters.missing), (3, 0, 0));
}

#[tokio::test]
async fn a_feed_that_is_closed_closes_its_legs_everywhere() {
    let mut two = Two::new(RING_BYTES);
    two.viewer();
    two.home.core.close_feed(&key("scope"));
    two.settle();
    assert!(two.mirror().is_none() && two.there.core.legs.is_empty() && two.there.core.peers.is_empty());
    let closed = |e: RelayEvent| matches!(e, RelayEvent::Leg { state: LegState::Closed, .. });
    assert!(std::iter::from_fn(|| two.there.events.try_recv().ok()).any(closed));
}

#[tokio::test]
async fn a_mirror_of_a_feed_that_is_gone_before_it_is_known_at_home_is_closed() {
    let mut two = Two::new(RING_BYTES);
    let images = two.home.core.standing(&key("scope").session, &[key("scope")]).images;
    two.home.core.close_feed(&key("scope"));
    two.there.core.admit_mirrors(images);
    two.there.tcp_viewer("127.0.0.1:4000".parse().unwrap());
    two.settle();
    assert!(two.mirror().is_none() && two.there.core.legs.is_empty());
}

#[tokio::test]
async fn what_a_feed_turns_out_to_be_is_known_where_it_is_mirrored() {
    let mut two = Two::new(RING_BYTES);
    two.viewer();
    two.advance(10_000);
    two.picture(&[&KEY]);
    two.tick();
    let d = &two.there.core.feeds[two.mirror().unwrap()].descriptor;
    assert_eq!((d.width, d.height), (320, 240));
}
