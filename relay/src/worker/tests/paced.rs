//! When the packets of a WebRTC leg leave: at once on a short line, paced on a long one, faster than they came for a joiner, in
//! whole frames where the line is too slow; and nobody else notices.

use super::*;
use std::io::ErrorKind;
use std::net::UdpSocket;
use trocar_proto::media::ext::{PLAYOUT_DELAY_URI, element, transport_sequence};
use trocar_proto::media::rtp::Header;
use trocar_proto::media::twcc::Feedback;

/// A browser's end: the socket that its packets come to, and its keys.
struct Browser {
    leg: usize,
    peer: usize,
    socket: UdpSocket,
    srtp: Srtp,
    transport_cc: u8,
    /// Id of the playout delay, where it was agreed to.
    playout_delay: Option<u8>,
}

/// One packet as the browser sees it.
#[derive(Debug, Clone, Copy)]
struct Came {
    seq: u16,
    marker: bool,
    transport: Option<u16>,
    playout_delay: Option<[u8; 3]>,
}

impl Browser {
    fn join(w: &mut World, name: &str) -> Self {
        Self::join_with(w, name, include_str!("../../webrtc/sdp/offers/chromium-whep.sdp"))
    }

    fn join_with(w: &mut World, name: &str, offer: &str) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_nonblocking(true).unwrap();
        socket2::SockRef::from(&socket).set_recv_buffer_size(4 << 20).unwrap();
        let from = Remote::udp(socket.local_addr().unwrap());
        let leg = LegId::new(name).unwrap();
        let grant = grant_of(&leg);
        let offer = offer.replace('\n', "\r\n");
        let answer = w.core.open_webrtc_leg(grant, &offer, w.now).unwrap().sdp;
        let of = |name: &str| answer.lines().find_map(|l| l.strip_prefix(name)).unwrap().trim().to_owned();
        let Some(super::super::state::Resource::Peer(peer)) = w.core.leg_by_id.get(&leg).copied() else {
            unreachable!("a WebRTC leg is a peer");
        };
        let ours = (of("a=ice-ufrag:"), of("a=ice-pwd:"));
        let theirs = w.core.peers[peer].transport.remote_ufrag().unwrap().to_owned();
        let to = w.core.listeners[0].candidates[0].address;
        w.core.handle_datagram(0, from, to, w.now, &mut check(&ours, &theirs));
        let srtp = |client| Srtp::from_dtls(Profile::Aes128Gcm, &[7; 56], client).unwrap();
        w.core.connected(peer, srtp(false), w.now);
        let extension = |uri: &str| {
            let line = answer.lines().find_map(|l| l.strip_prefix("a=extmap:").filter(|l| l.contains(uri)))?;
            line.split(' ').next()?.parse::<u8>().ok()
        };
        let (transport_cc, playout_delay) = (extension("transport-wide-cc").unwrap(), extension(PLAYOUT_DELAY_URI));
        Self { leg: w.core.peers[peer].legs[0], peer, socket, srtp: srtp(true), transport_cc, playout_delay }
    }

    /// What has come since the last call: STUN and RTCP are passed over.
    fn came(&mut self) -> Vec<Came> {
        let mut out = Vec::new();
        let mut buffer = [0; 2_048];
        loop {
            let len = match self.socket.recv(&mut buffer) {
                Ok(len) => len,
                Err(e) if e.kind() == ErrorKind::WouldBlock => return out,
                Err(e) => panic!("{e}"),
            };
            let data = &mut buffer[..len];
            if !(128..=191).contains(&data[0]) || trocar_proto::media::rtp::is_rtcp(data) {
                continue;
            }
            let (len, _) = self.srtp.receive.open(data).unwrap();
            let packet = &data[..len];
            let h = Header::parse(packet).unwrap();
            let transport = transport_sequence(&h, packet, self.transport_cc);
            let delay = self.playout_delay.and_then(|id| element(&h, packet, id));
            let playout_delay = delay.map(|d| d.try_into().unwrap());
            out.push(Came { seq: h.seq, marker: h.marker, transport, playout_delay });
        }
    }
}

fn grant_of(leg: &LegId) -> LegGrant {
    LegGrant {
        leg: leg.clone(),
        feed: key("scope"),
        realm: north(),
        companion: None,
        viewer: None,
        roq: Default::default(),
        flows: None,
    }
}

impl World {
    /// Time passes millisecond by millisecond, as the worker's timer would have it.
    fn pass(&mut self, ms: u64) {
        for _ in 0..ms {
            self.advance(1);
            if self.core.wake_at.is_some_and(|t| t <= self.now) {
                self.core.due(self.now);
            }
        }
    }

    /// A picture of so many packets of 1,100 bytes.
    fn large(&mut self, feed: usize, key: bool, packets: usize) {
        let first = if key { &KEY[..] } else { &DELTA[..] };
        let rest = vec![0; 1_100];
        let all: Vec<&[u8]> = std::iter::once(first).chain((1..packets).map(|_| &rest[..])).collect();
        // VP8's later packets of a picture do not begin a partition.
        self.picture(feed, &all);
    }

    fn far(&mut self, b: &Browser) {
        self.core.legs[b.leg].viewer.round_trip_us = Some(30_000);
    }

    fn near(&mut self, b: &Browser) {
        self.core.legs[b.leg].viewer.round_trip_us = Some(300);
    }
}

#[tokio::test]
async fn key_frames_say_that_pictures_are_to_be_shown_at_once_to_whoever_understands_that() {
    let mut w = World::new();
    let feed = w.feed("VP8", "");
    let offer = include_str!("../../webrtc/sdp/offers/chromium-whep.sdp");
    let without: String = offer.lines().filter(|l| !l.contains("playout-delay")).map(|l| format!("{l}\n")).collect();
    let mut knows = Browser::join(&mut w, "knows");
    let mut not = Browser::join_with(&mut w, "not", &without);
    assert!(knows.playout_delay.is_some() && not.playout_delay.is_none());
    w.large(feed, true, 2);
    w.large(feed, false, 2);
    w.pass(100);
    // Minimum and maximum of nothing at all, in each packet of the key frame, for any of them may be lost.
    let said = |b: &mut Browser| b.came().iter().map(|c| c.playout_delay).collect::<Vec<_>>();
    assert_eq!(said(&mut knows), [Some([0; 3]), Some([0; 3]), None, None]);
    not.playout_delay = knows.playout_delay;
    assert_eq!(said(&mut not), [None; 4], "the control: who did not ask for it is told nothing");
}

#[tokio::test]
async fn a_frame_leaves_at_once_on_a_short_line_and_spread_on_a_long_one() {
    let mut w = World::new();
    let feed = w.feed("VP8", "");
    let (mut near, mut far) = (Browser::join(&mut w, "near"), Browser::join(&mut w, "far"));
    w.near(&near);
    w.far(&far);
    w.large(feed, true, 2);
    w.pass(1_000);
    assert_eq!((near.came().len(), far.came().len()), (2, 2));
    // 110 kB: at twice the grant of 4 Mbit/s, less a burst of 20 kB, 90 ms.
    w.large(feed, false, 100);
    assert_eq!(near.came().len(), 100);
    let first = far.came().len();
    assert!((10..=20).contains(&first), "{first} in the burst");
    w.pass(45);
    let half = first + far.came().len();
    assert!((45..=65).contains(&half), "{half} after 45 ms");
    w.pass(60);
    let rest = far.came();
    assert_eq!(half + rest.len(), 100);
    assert!(rest.last().unwrap().marker && w.core.legs[far.leg].due.is_none());
    assert_eq!(w.core.legs[far.leg].leg.counters().shed, 0);
}

#[tokio::test]
async fn a_joiner_has_a_picture_at_once_and_the_present_one_after_as_long_again() {
    let mut w = World::new();
    let feed = w.feed("VP8", "");
    w.large(feed, true, 20);
    // A publisher that does not answer requests.
    w.core.feeds[feed].feed.handle_key_frame_request();
    let at = w.core.micros(w.now);
    assert!(w.core.feeds[feed].feed.poll_key_frame_request(at).is_some());
    for _ in 0..30 {
        w.pass(33);
        w.large(feed, false, 10);
    }
    // 320 packets in a second; the joiner gets 640 a second.
    let mut late = Browser::join(&mut w, "late");
    let at_once = late.came().len();
    assert!((10..40).contains(&at_once), "{at_once}");
    let mut came = at_once;
    for n in 0..30 {
        w.pass(33);
        w.large(feed, false, 10);
        came += late.came().len();
        let behind = w.core.legs[late.leg].leg.behind(&w.core.feeds[feed].feed);
        if n == 10 {
            assert!((100..260).contains(&behind), "{behind} behind after 0.36 s");
        }
    }
    w.pass(40);
    came += late.came().len();
    assert_eq!(came, 20 + 60 * 10);
    let leg = &w.core.legs[late.leg].leg;
    assert!(!leg.is_catching_up() && leg.counters().shed == 0);
}

#[tokio::test]
async fn a_line_that_is_too_slow_shows_fewer_pictures_and_slows_nobody() {
    let mut w = World::new();
    let feed = w.feed_of("VP8", "", 16_000_000);
    let (mut near, mut far) = (Browser::join(&mut w, "near"), Browser::join(&mut w, "far"));
    w.near(&near);
    w.far(&far);
    w.core.peers[far.peer].line = std::cell::RefCell::new(super::super::out::Line::new(Bitrate(4_000_000)));
    w.large(feed, true, 2);
    w.pass(33);
    assert_eq!((near.came().len(), far.came().len()), (2, 2));
    // 16 Mbit/s, of which a line of 4 Mbit/s is sent 8 at most.
    let mut whole = Vec::new();
    for n in 1..=60 {
        w.large(feed, n % 15 == 0, 60);
        assert_eq!(near.came().len(), 60, "at once");
        w.pass(33);
        whole.extend(far.came());
        let waited = w.core.legs[far.leg].leg.oldest_waiting(&w.core.feeds[feed].feed);
        let waited = waited.map_or(0, |t| w.core.micros(w.now).since(t));
        assert!(waited <= 240_000, "{waited} µs");
    }
    assert!((600..2_000).contains(&whole.len()), "{}", whole.len());
    assert!(w.core.legs[far.leg].leg.counters().shed > 1_000);
    assert_eq!(w.core.legs[near.leg].leg.counters().shed, 0);
    // What it left out closes up: no gap for the browser to wait for.
    assert!(whole.windows(2).all(|p| p[1].seq == p[0].seq.wrapping_add(1)));
}

#[tokio::test]
async fn packets_have_transport_wide_numbers_and_feedback_of_a_queue_lowers_the_rate() {
    let mut w = World::new();
    let feed = w.feed("VP8", "");
    let mut far = Browser::join(&mut w, "far");
    w.far(&far);
    let peer = far.peer;
    let target = |w: &World| w.core.peers[peer].line.borrow().figures().target.0;
    let before = target(&w);
    assert_eq!(before, 4_000_000, "what was granted");
    let mut next = None::<u16>;
    let mut delay = 0_i64;
    let mut count = 0;
    for n in 0..90_i64 {
        w.large(feed, n == 0, 13);
        w.pass(33);
        let came = far.came();
        for c in &came {
            let number = c.transport.unwrap();
            assert_eq!(next.map_or(number, |n| n.wrapping_add(1)), number);
            next = Some(number);
        }
        let (Some(first), true) = (came.first(), n > 20) else { continue };
        // Each frame comes 3 ms later than its pace: 93 % of the rate pass.
        delay += 3_000;
        let reference = (n * 33_000 + delay) / 64_000;
        let base = first.transport.unwrap();
        let ticks = ((n * 33_000 + delay) % 64_000 / 250) as i16;
        let arrivals = came.iter().enumerate().map(|(i, _)| Some(if i == 0 { ticks } else { 0 })).collect();
        let feedback = Feedback { base, reference: reference as u32, count, arrivals };
        count = count.wrapping_add(1);
        let at = w.core.micros(w.now);
        w.core.handle_line_feedback(far.peer, at, &feedback);
    }
    let after = target(&w);
    assert!(after < before, "{after} of {before}");
}

/// Pictures of 60 packets on a line that sends one in 66 ms, while one comes every 33: how many packets of each came, and the
/// longest, in milliseconds, that one had waited when its first packet left.
fn pictures_that_leave(budget_ms: u32) -> (Vec<usize>, u64) {
    let mut w = World::new();
    let feed = w.feed_of("VP8", "", 16_000_000);
    w.core.feeds[feed].descriptor.budget_ms = budget_ms;
    let mut far = Browser::join(&mut w, "far");
    w.far(&far);
    w.core.peers[far.peer].line = std::cell::RefCell::new(super::super::out::Line::new(Bitrate(4_000_000)));
    w.large(feed, true, 2);
    w.pass(33);
    assert_eq!(far.came().len(), 2);
    let (mut pictures, mut packets, mut longest) = (Vec::new(), 0, 0);
    for n in 1..=60 {
        w.large(feed, n % 15 == 0, 60);
        for _ in 0..33 {
            w.pass(1);
            let arrived = w.core.legs[far.leg].leg.last_sent().unwrap().1;
            for came in far.came() {
                if packets == 0 {
                    longest = longest.max(w.core.micros(w.now).since(arrived) / 1_000);
                }
                packets += 1;
                if came.marker {
                    pictures.push(std::mem::take(&mut packets));
                }
            }
        }
    }
    (pictures, longest)
}

#[tokio::test]
async fn a_picture_that_waited_for_longer_than_its_budget_is_dropped_whole() {
    // 75 ms less half of the round trip of 30 ms.
    let (pictures, longest) = pictures_that_leave(75);
    assert!(pictures.len() >= 8 && pictures.iter().all(|p| *p == 60), "{pictures:?}");
    assert!((30..=62).contains(&longest), "{longest} ms");
    // The control: with a long budget they are sent that late.
    let (pictures, longest) = pictures_that_leave(250);
    assert!(longest > 100, "{longest} ms: {pictures:?}");
}

impl Browser {
    /// Tells the relay, by transport-wide feedback, which of the packets that it has sent have come.
    fn feed_back(&self, w: &mut World, base: u16, came: &[bool]) {
        let arrivals = came.iter().map(|c| c.then_some(1)).collect();
        let at = w.core.micros(w.now);
        w.core.handle_line_feedback(self.peer, at, &Feedback { base, reference: 0, count: 0, arrivals });
    }
}

#[tokio::test]
async fn what_is_lost_goes_again_twice_once_a_round_trip_and_also_where_only_the_feedback_tells() {
    let mut w = World::new();
    let feed = w.feed("VP8", "");
    let mut far = Browser::join(&mut w, "far");
    w.far(&far);
    w.large(feed, true, 8);
    w.pass(10);
    let came = far.came();
    let (numbers, base): (Vec<u16>, _) = (came.iter().map(|c| c.seq).collect(), came[0].transport.unwrap());
    assert_eq!(numbers.len(), 8);
    let leg = far.leg;
    let ask = |w: &mut World, n: usize| w.core.repair(leg, w.now, std::iter::once(numbers[n]));
    ask(&mut w, 1);
    assert_eq!(far.came().len(), 2);
    ask(&mut w, 1);
    assert_eq!(far.came().len(), 0, "within a round trip");
    // The feedback misses the same one, and another one that nobody asked for.
    far.feed_back(&mut w, base, &[true, false, true, false, true, true, true, true]);
    assert_eq!(far.came().len(), 2);
    ask(&mut w, 3);
    assert_eq!(far.came().len(), 0, "the question comes after the answer");
    w.pass(40);
    ask(&mut w, 3);
    assert_eq!(far.came().len(), 2, "asked again after a round trip");
    // The controls: all has come; what is older than the budget of 200 ms.
    far.feed_back(&mut w, base, &[true; 8]);
    w.pass(200);
    far.feed_back(&mut w, base, &[true, true, true, true, false, true, true, true]);
    assert_eq!(far.came().len(), 0);
}
