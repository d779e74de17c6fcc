//! The wiring of a worker: what its parts do is tested beside each; here, that packets, lines and the clock reach them.

mod admission;
mod allocations;
mod cross;
mod described;
mod layers;
mod paced;
mod pictures;
mod policed;
mod repaired;
mod sources;

use super::tcp::TcpOut;
use super::*;
use crate::quic::Identity;
use crate::srtp::{Profile, Srtp};
use aws_lc_rs::hmac;
use is::stun::{StunMessage, TransId};
use trocar_proto::media::ext::FrameMark;
use trocar_proto::media::feed::JOIN_FROM_CACHE_US;
use trocar_proto::media::ring::PacketInfo;
use trocar_proto::media::roq::FlowPrefix;
use trocar_proto::media::rtp::{HeaderFields, write_header};
use trocar_proto::session::admission::FeedOutline;
use trocar_proto::session::api::LegRequest;
use trocar_proto::session::feed::{FeedDescriptor, Purpose};
use trocar_proto::session::ids::{FeedId, ParticipantId, SessionId};
use trocar_proto::units::{Bitrate, FlowId, Micros, SeqNo, Ssrc};
use trocar_testpki::{Authority, Leaf};

/// Longest wait for something that has to come.
const SOON: Duration = Duration::from_secs(8);
/// VP8 (RFC 7741): the first packet of a picture that needs others, and of one that needs none, 320 pixels wide and 240 high.
const DELTA: [u8; 5] = [0x10, 0x11, 0, 0, 0];
const KEY: [u8; 11] = [0x10, 0x10, 2, 0, 0x9d, 1, 0x2a, 64, 1, 240, 0];

fn north() -> RealmId {
    RealmId::new("north").unwrap()
}

fn key(feed: &str) -> FeedKey {
    FeedKey { session: SessionId::new("s1").unwrap(), feed: FeedId::new(feed).unwrap() }
}

/// Certificates of realm `north`: the relay's, and a device's.
fn identities() -> [Identity; 2] {
    let ca = Authority::new();
    ["relay/relay-1", "device/or-1"].map(|name| {
        let own = ca.issue(&Leaf::device(format!("trocar://north/{name}")).at("localhost"));
        Identity { key: own.key(), chain: vec![own.der], trust: vec![ca.der()] }
    })
}

fn listener() -> RealmListener {
    let loopback = "127.0.0.1:0".parse().unwrap();
    let (realm, server_name) = (north(), "localhost".to_owned());
    RealmListener { realm, webrtc: loopback, quic: loopback, advertise: Vec::new(), server_name, uplink: None }
}

/// A picture of a foreign publisher.
pub(super) fn descriptor(max_bitrate: u64, budget_ms: u32) -> FeedDescriptor {
    serde_json::from_value(serde_json::json!({
        "feed": "scope", "source": "scope", "view": "overview", "kind": "video", "purpose": "scope", "codec": "VP8",
        "clock_rate": 90_000, "payload_type": 96, "max_bitrate": max_bitrate, "budget_ms": budget_ms,
        "transport": "webrtc",
    }))
    .unwrap()
}

/// A packet as a feed's ring tells of it.
pub(super) fn packet_info(seq: u64, timestamp: u32) -> PacketInfo {
    PacketInfo {
        seq: SeqNo(seq),
        timestamp,
        marker: false,
        payload_offset: 12,
        payload_len: 100,
        frame: FrameMark::default(),
        capture: None,
        arrived: Micros(0),
        generation: 0,
    }
}

/// A core whose sockets nobody serves: packets and time are handed to it.
struct World {
    core: Core,
    events: mpsc::Receiver<RelayEvent>,
    _endpoints: Vec<(quinn::Endpoint, RealmId)>,
    now: Instant,
    seq: u16,
    timestamp: u32,
}

impl World {
    fn new() -> Self {
        Self::with(connect(1).remove(0).0, Instant::now())
    }

    /// One of several workers, which count time from `origin`.
    fn with(cross: Cross, origin: Instant) -> Self {
        let (told, events) = mpsc::channel(1_024);
        let [relay, _] = identities();
        let server = quic::server_config(relay).unwrap();
        let bound = vec![Bound::new(listener(), 0).unwrap()];
        let limits = Limits::default();
        let setup = Setup { bound, server, limits, events: told, cross, workers: 2, origin };
        let (core, endpoints) = prepare(setup).unwrap();
        let core = Rc::try_unwrap(core).ok().unwrap().into_inner();
        Self { core, events, _endpoints: endpoints, now: Instant::now(), seq: 100, timestamp: 0 }
    }

    fn advance(&mut self, ms: u64) {
        self.now += Duration::from_millis(ms);
    }

    /// A feed of a foreign publisher, without a connection.
    fn feed(&mut self, codec: &str, fmtp: &str) -> usize {
        self.feed_of(codec, fmtp, 4_000_000)
    }

    fn feed_of(&mut self, codec: &str, fmtp: &str, max_bitrate: u64) -> usize {
        let mut descriptor = descriptor(max_bitrate, 200);
        (descriptor.codec, descriptor.fmtp) = (codec.to_owned(), fmtp.to_owned());
        let publisher = ParticipantId::new("p1").unwrap();
        let grant =
            FeedGrant { key: key("scope"), realm: north(), publisher, cnf: CertHash([1; 32]), descriptor, flows: None };
        self.core.open_feed(grant).unwrap();
        self.core.find_feed(&key("scope")).unwrap()
    }

    /// A browser that views the feed over ICE-TCP and has its keys: its leg.
    fn tcp_viewer(&mut self, from: SocketAddr) -> usize {
        let leg = LegId::new("leg1").unwrap();
        let grant = LegGrant {
            leg: leg.clone(),
            feed: key("scope"),
            viewer: None,
            realm: north(),
            companion: None,
            roq: LegRequest::default(),
            flows: None,
        };
        let offer = include_str!("../webrtc/sdp/offers/chromium-whep.sdp").replace('\n', "\r\n");
        let answer = self.core.open_webrtc_leg(grant, &offer, self.now).unwrap().sdp;
        let of = |name: &str| answer.lines().find_map(|l| l.strip_prefix(name)).unwrap().trim().to_owned();
        let Some(state::Resource::Peer(peer)) = self.core.leg_by_id.get(&leg).copied() else { panic!("a peer") };
        let ours = (of("a=ice-ufrag:"), of("a=ice-pwd:"));
        let theirs = self.core.peers[peer].transport.remote_ufrag().unwrap().to_owned();
        self.line(from);
        let mut check = check(&ours, &theirs);
        let to = self.core.listeners[0].candidates[0].address;
        self.core.handle_datagram(0, Remote::tcp(from), to, self.now, &mut check);
        let srtp = Srtp::from_dtls(Profile::Aes128Gcm, &[7; 56], false).unwrap();
        self.core.connected(peer, srtp, self.now);
        self.core.peers[peer].legs[0]
    }

    /// A TCP connection from there, which nobody reads. It takes the place of the one before it.
    fn line(&mut self, from: SocketAddr) {
        self.core.tcp_out.insert((0, from), Rc::new(TcpOut::new()));
    }

    fn packet(&mut self, ssrc: u32, marker: bool, payload: &[u8]) -> Vec<u8> {
        let mut packet = vec![0; 12];
        let (seq, timestamp) = (self.seq, self.timestamp);
        write_header(&mut packet, HeaderFields { marker, payload_type: 96, seq, timestamp, ssrc: Ssrc(ssrc) }, &[])
            .unwrap();
        self.seq = self.seq.wrapping_add(1);
        packet.extend_from_slice(payload);
        packet
    }

    /// A picture in these packets comes now and is sent on.
    fn picture(&mut self, feed: usize, payloads: &[&[u8]]) {
        for (n, payload) in payloads.iter().enumerate() {
            let packet = self.packet(5, n + 1 == payloads.len(), payload);
            self.core.store(feed, self.now, &packet);
        }
        self.timestamp = self.timestamp.wrapping_add(3_000);
        self.core.send_on(self.now);
    }
}

/// An authentic connectivity check with USE-CANDIDATE.
fn check(ours: &(String, String), theirs: &str) -> Vec<u8> {
    let username = format!("{}:{theirs}", ours.0);
    let message = StunMessage::binding_request(&username, TransId::new(), true, 1, 0x6e00_01ff, true);
    let sign = |key: &[u8], parts: &[&[u8]]| {
        let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, key);
        hmac::sign(&key, &parts.concat()).as_ref().try_into().unwrap()
    };
    let mut bytes = vec![0; 600];
    let len = message.to_bytes(Some(ours.1.as_bytes()), &mut bytes, sign).unwrap();
    bytes.truncate(len);
    bytes
}

#[tokio::test]
async fn a_browser_whose_tcp_line_is_stuck_is_sent_nothing_more_until_a_key_frame_finds_room() {
    let mut w = World::new();
    let feed = w.feed("VP8", "");
    let from = "127.0.0.1:4000".parse().unwrap();
    let leg = w.tcp_viewer(from);
    let sent = |w: &World| w.core.legs[leg].sent.packets;
    w.picture(feed, &[&KEY]);
    w.advance(50);
    w.picture(feed, &[&DELTA]);
    assert_eq!(sent(&w), 2, "what waits is young");
    w.advance(250);
    for _ in 0..5 {
        w.picture(feed, &[&DELTA]);
    }
    w.picture(feed, &[&KEY]);
    assert_eq!(sent(&w), 2, "what waits is too old: frames are left out");
    assert!(w.core.legs[leg].leg.counters().shed >= 5);
    // The line is free again.
    w.line(from);
    w.picture(feed, &[&DELTA]);
    assert_eq!(sent(&w), 2, "a picture that needs one that was left out");
    w.picture(feed, &[&KEY]);
    assert_eq!(sent(&w), 3);
}

#[tokio::test]
async fn numbers_of_a_publishers_new_source_are_not_taken_for_lost_ones_of_the_old() {
    let mut w = World::new();
    let outline = FeedOutline {
        feed: FeedId::new("cam").unwrap(),
        source: "cam".to_owned(),
        view: "overview".to_owned(),
        purpose: Purpose::Scope,
        max_bitrate: Bitrate(4_000_000),
        budget_ms: 200,
        priority: 0,
        replay: false,
    };
    let grant = PublicationGrant {
        publication: PublicationId::new("pub1").unwrap(),
        session: SessionId::new("s1").unwrap(),
        realm: north(),
        publisher: ParticipantId::new("p1").unwrap(),
        video: Some(outline),
        layers: Vec::new(),
        audio: None,
    };
    let offer = include_str!("../webrtc/sdp/offers/aiortc-whip.sdp").replace('\n', "\r\n");
    w.core.open_publication(grant, &offer, w.now).unwrap();
    let peer = *w.core.publications.values().next().unwrap();
    let payload_type = w.core.peers[peer].demux.lane(0).unwrap().payload_type;
    let mut take = |ssrc: u32, numbers: std::ops::Range<u16>| {
        for seq in numbers {
            w.seq = seq;
            let mut packet = w.packet(ssrc, true, &DELTA);
            packet[1] = 0x80 | payload_type;
            w.core.handle_media(peer, w.now, &packet);
        }
        w.advance(20);
        let at = w.core.micros(w.now);
        let nack = w.core.peers[peer].tracks[0].nack.as_mut().expect("the offer has generic NACK");
        nack.poll(at).map(<[u16]>::to_vec)
    };
    assert_eq!(take(1, 1_000..1_010), None);
    assert_eq!(take(2, 1_500..1_510), None, "another source begins where it likes");
    assert_eq!(take(2, 1_512..1_516), Some(vec![1_510, 1_511]), "the control: the same source has left two out");
}

#[tokio::test]
async fn a_feed_without_key_frames_can_be_joined_at_a_refresh_once_its_key_frame_is_overdue() {
    const REFRESH: [&[u8]; 2] = [&[0x67, 0], &[0x41, 0x9a, 2]];
    let mut w = World::new();
    let feed = w.feed("H264", "packetization-mode=1;profile-level-id=42e02a");
    let joinable = |w: &World| w.core.feeds[feed].feed.join_point(w.core.micros(w.now), JOIN_FROM_CACHE_US).is_some();
    w.picture(feed, &REFRESH);
    let at = w.core.micros(w.now);
    w.core.feeds[feed].feed.handle_key_frame_request();
    assert!(w.core.feeds[feed].feed.poll_key_frame_request(at).is_some(), "the publisher is asked");
    w.advance(2_900);
    w.picture(feed, &REFRESH);
    assert!(!joinable(&w), "the publisher may yet send a key frame");
    w.advance(200);
    w.picture(feed, &REFRESH);
    assert!(joinable(&w));
}

#[tokio::test]
async fn viewers_are_told_of_a_new_picture_size_once_a_second_at_most_and_of_the_last_one_in_the_end() {
    let mut w = World::new();
    let feed = w.feed("VP8", "");
    w.advance(10_000);
    let told = |w: &mut World| {
        let sizes = |e| match e {
            RelayEvent::Descriptor { descriptor, .. } => Some((descriptor.width, descriptor.height)),
            _ => None,
        };
        std::iter::from_fn(|| w.events.try_recv().ok()).filter_map(sizes).collect::<Vec<_>>()
    };
    told(&mut w);
    // Three seconds of a publisher that changes its size with each picture.
    for n in 0..150_u8 {
        let mut picture = KEY;
        picture[7] = 100 + n % 100;
        w.picture(feed, &[&picture]);
        w.core.tick(w.now);
        w.advance(20);
    }
    let sizes = told(&mut w);
    assert!((3..=4).contains(&sizes.len()), "{sizes:?}");
    w.advance(1_000);
    w.core.tick(w.now);
    assert_eq!(told(&mut w), [(256 + 100 + 49, 240)], "the size that it came to rest at");
    w.advance(1_000);
    w.core.tick(w.now);
    assert_eq!(told(&mut w), [], "nothing is new");
}

#[tokio::test]
async fn a_stream_that_brings_nothing_is_given_up_and_one_that_brings_something_is_not() {
    let [relay, device] = identities();
    let config = crate::RelayConfig {
        listeners: vec![listener()],
        identity: relay,
        workers: 1,
        pin: None,
        limits: Limits::default(),
        control: None,
    };
    let (relay, _events) = crate::Relay::start(config).unwrap();
    let mut endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
    endpoint.set_default_client_config(quic::client_config(device).unwrap());
    let connection = endpoint.connect(relay.addresses()[0].quic, "localhost").unwrap().await.unwrap();
    let prefix = FlowPrefix::new(FlowId(0)).unwrap();
    let began = Instant::now();
    let (mut silent, mut busy) = (connection.open_uni().await.unwrap(), connection.open_uni().await.unwrap());
    for stream in [&mut silent, &mut busy] {
        // The announcement of a packet that is longer than what comes of it.
        stream.write_all(&[prefix.as_bytes(), &[0x44, 0x00]].concat()).await.unwrap();
    }
    let talk = async {
        loop {
            tokio::time::sleep(Duration::from_millis(500)).await;
            busy.write_all(&[0x80]).await.expect("a stream that brings something goes on");
        }
    };
    let given_up = tokio::select! {
        code = tokio::time::timeout(SOON, silent.stopped()) => code.expect("the relay gives it up").unwrap(),
        () = talk => unreachable!("it talks for ever"),
    };
    assert_eq!(given_up, Some(quinn::VarInt::from_u32(error_code::NO_ERROR)));
    assert!(began.elapsed() >= Duration::from_secs(2), "after {:?}", began.elapsed());
    tokio::time::timeout(Duration::from_millis(700), busy.stopped()).await.expect_err("the busy one is kept");
}
