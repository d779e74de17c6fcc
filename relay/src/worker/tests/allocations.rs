//! What a packet costs in memory on its way from one browser to others: nothing. Allocations are counted by thread, and only
//! within [`measure`], so that this test stands beside the others.

use super::*;
use crate::srtp::SendStream;
use crate::worker::state::Resource;
use allocation_counter::measure;
use std::net::UdpSocket;
use trocar_proto::units::SeqNo;

const VIEWERS: usize = 4;
/// Packets of a frame, as one read of the socket brings them.
const FRAME: usize = 12;
const SSRC: u32 = 0x1234;
/// Ids of the offer's extensions.
const TRANSPORT_CC: u8 = 3;
const MID: u8 = 4;

/// A browser that publishes and others that view, all over UDP on this machine.
struct Road {
    w: World,
    from: Remote,
    to: SocketAddr,
    payload_type: u8,
    stream: SendStream,
    viewers: Vec<UdpSocket>,
}

impl Road {
    fn new() -> Self {
        let mut w = World::new();
        let grant = serde_json::from_value(serde_json::json!({
            "publication": "pub1", "session": "s1", "realm": "north", "publisher": "p1", "audio": null,
            "video": { "feed": "scope", "source": "scope", "view": "overview", "purpose": "scope", "max_bitrate": 50_000_000,
                       "budget_ms": 200, "priority": 0, "replay": false },
        }));
        let layered = |l: &&str| l.starts_with("a=rid:") || l.starts_with("a=simulcast:");
        let lines = include_str!("../../webrtc/sdp/offers/chromium-whip.sdp").lines().filter(|l| !layered(l));
        let offer: String = lines.map(|l| format!("{l}\r\n")).collect();
        let answer = w.core.open_publication(grant.unwrap(), &offer, w.now).unwrap().sdp;
        let peer = *w.core.publications.values().next().unwrap();
        let payload_type = w.core.peers[peer].demux.lane(0).unwrap().payload_type;
        let from = Remote::udp("127.0.0.1:9".parse().unwrap());
        let mut srtp = w.keyed(peer, &answer, from);
        let stream = srtp.send.claim(Ssrc(SSRC)).unwrap();
        let to = w.core.listeners[0].candidates[0].address;
        let mut road = Self { w, from, to, payload_type, stream, viewers: Vec::new() };
        for n in 0..VIEWERS {
            road.view(&format!("leg{n}"));
        }
        road
    }

    fn view(&mut self, leg: &str) {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_nonblocking(true).unwrap();
        let all = serde_json::json!({ "leg": leg, "feed": key("scope"), "realm": "north", "companion": null });
        let offer = include_str!("../../webrtc/sdp/offers/chromium-whep.sdp").replace('\n', "\r\n");
        let grant = serde_json::from_value(all).unwrap();
        let answer = self.w.core.open_webrtc_leg(grant, &offer, self.w.now).unwrap().sdp;
        let Some(Resource::Peer(peer)) = self.w.core.leg_by_id.get(&LegId::new(leg).unwrap()).copied() else {
            unreachable!("it is a peer")
        };
        self.w.keyed(peer, &answer, Remote::udp(socket.local_addr().unwrap()));
        // A line of which nothing is known is paced; these are near.
        for leg in self.w.core.peers[peer].legs.clone() {
            self.w.core.legs[leg].viewer.round_trip_us = Some(300);
        }
        self.viewers.push(socket);
    }

    /// The datagrams of a frame, with the extensions that browsers send.
    fn frame(&mut self, key: bool) -> Vec<Vec<u8>> {
        let mut packets = Vec::new();
        for n in 0..FRAME {
            let (seq, timestamp) = (self.w.seq, self.w.timestamp);
            let fields = HeaderFields { marker: n + 1 == FRAME, payload_type: 96, seq, timestamp, ssrc: Ssrc(SSRC) };
            let mut packet = vec![0; 64];
            let header = write_header(&mut packet, fields, &[(TRANSPORT_CC, &seq.to_be_bytes()), (MID, b"1")]).unwrap();
            packet.truncate(header);
            packet.extend_from_slice(match (n, key) {
                (0, true) => &KEY,
                (0, false) => &DELTA,
                _ => &[0],
            });
            packet[1] = packet[1] & 0x80 | self.payload_type;
            packet.resize(1_100 + self.stream.overhead(), 7);
            self.stream.seal(SeqNo(u64::from(seq)), &mut packet, header).unwrap();
            packets.push(packet);
            self.w.seq = self.w.seq.checked_add(1).expect("fewer than 65,536 packets");
        }
        self.w.timestamp = self.w.timestamp.wrapping_add(1_500);
        packets
    }

    /// A frame comes, and goes out by all legs.
    fn take(&mut self, frame: &mut [Vec<u8>]) {
        for datagram in frame {
            self.w.core.handle_datagram(0, self.from, self.to, self.w.now, datagram);
        }
        self.w.core.send_on(self.w.now);
    }

    /// Packets of media that have come to each viewer since the last call.
    fn came(&self) -> Vec<usize> {
        let mut buffer = [0; 2_048];
        let mut of = |s: &UdpSocket| {
            let all = std::iter::from_fn(|| s.recv(&mut buffer).ok().map(|len| len > 1_000));
            all.filter(|is_media| *is_media).count()
        };
        self.viewers.iter().map(&mut of).collect()
    }

    /// What the legs say of themselves, where packets are missing.
    fn says(&self) -> String {
        let legs = self.w.core.legs.iter().map(|(_, l)| {
            let waits = l.due.map(|t| t.0.saturating_sub(self.w.core.micros(self.w.now).0));
            format!("{:?}, {:?}, {:?}, waits {waits:?} µs", l.state, l.leg.counters(), l.sent)
        });
        legs.collect::<Vec<_>>().join("\n")
    }

    /// The time between two frames; what is due by the clock is done.
    fn pass(&mut self) {
        self.w.advance(17);
        self.w.core.due(self.w.now);
        self.w.core.tick(self.w.now);
    }
}

impl World {
    /// Proves an address of a peer and gives it keys; answers with the other end's.
    fn keyed(&mut self, peer: usize, answer: &str, from: Remote) -> Srtp {
        let of = |name: &str| answer.lines().find_map(|l| l.strip_prefix(name)).unwrap().trim().to_owned();
        let ours = (of("a=ice-ufrag:"), of("a=ice-pwd:"));
        let theirs = self.core.peers[peer].transport.remote_ufrag().unwrap().to_owned();
        let to = self.core.listeners[0].candidates[0].address;
        self.core.handle_datagram(0, from, to, self.now, &mut check(&ours, &theirs));
        let srtp = |client| Srtp::from_dtls(Profile::Aes128Gcm, &[7; 56], client).unwrap();
        self.core.connected(peer, srtp(false), self.now);
        srtp(true)
    }
}

#[tokio::test]
async fn between_srtp_in_and_srtp_out_no_packet_allocates() {
    const FRAMES: usize = 150;
    let mut road = Road::new();
    // Until all that grows has grown: windows, lists, the kernel's own.
    for n in 0..100 {
        let mut frame = road.frame(n == 0);
        road.take(&mut frame);
        assert_eq!(road.came(), [FRAME; VIEWERS], "frame {n}:\n{}", road.says());
        road.pass();
    }
    let (c, feed) = (road.w.core.counters, road.w.core.find_feed(&key("scope")).unwrap());
    let taken = road.w.core.feeds[feed].feed.counters();
    assert_eq!((c.unknown_source, c.srtp_refused, taken.packets, taken.refused), (0, 0, 100 * FRAME as u64, 0));
    let mut allocated = 0;
    for _ in 0..FRAMES {
        let mut frame = road.frame(false);
        allocated += measure(|| road.take(&mut frame)).count_total;
        assert_eq!(
            road.came(),
            [FRAME; VIEWERS],
            "every packet left by every leg, within what was measured:\n{}",
            road.says()
        );
        road.pass();
    }
    assert_eq!(allocated, 0, "in {} packets in and {} out", FRAMES * FRAME, FRAMES * FRAME * VIEWERS);
    // The control: one allocation among them is seen.
    let mut frame = road.frame(false);
    let seen = measure(|| {
        road.take(&mut frame);
        std::hint::black_box(Box::new(1_u8));
    });
    assert_eq!(seen.count_total, 1);
}
