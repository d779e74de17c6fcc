//! The dependency descriptor on its way through a leg: frame numbers go on where the leg changes the layer, and a packet that goes
//! again has the number that it had.

use super::*;
use std::net::UdpSocket;
use trocar_proto::media::ext::{DEPENDENCY_DESCRIPTOR_URI, element};
use trocar_proto::media::rtp::{Header, is_rtcp};

/// Ids of the offers below.
const RID: u8 = 10;
const DESCRIPTOR: u8 = 12;
const AV1: u8 = 45;
/// A key frame of template 10, and what brings its templates: L1T2 with one chain, 1920 by 1080. Bytes 1 and 2 are the number.
const KEY_FRAME: [u8; 15] = [0xca, 0, 0, 0x81, 0x41, 0x1e, 0xac, 0x51, 0x41, 0x01, 0x0c, 0x1d, 0xfc, 0x10, 0xdc];
/// A whole frame of template 11, which needs the one before.
const NEXT_FRAME: [u8; 3] = [0xcb, 0, 0];

fn numbered(descriptor: &[u8], number: u16) -> Vec<u8> {
    let [high, low] = number.to_be_bytes();
    [&descriptor[..1], &[high, low], &descriptor[3..]].concat()
}

/// An offer that prefers AV1 and has the extension.
fn with_av1(offer: &str) -> String {
    let offer = offer.replace(" 45 46", "").replace("m=video 9 UDP/TLS/RTP/SAVPF", "m=video 9 UDP/TLS/RTP/SAVPF 45 46");
    let names = "a=extmap:11 urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id";
    let offer = offer.replace(names, &format!("{names}\na=extmap:{DESCRIPTOR} {DEPENDENCY_DESCRIPTOR_URI}"));
    offer.replace('\n', "\r\n")
}

/// A browser that publishes a large layer, `h`, and a small one, `m`: its peer.
fn publisher(w: &mut World) -> usize {
    publish(w, &with_av1(include_str!("../../webrtc/sdp/offers/chromium-whip.sdp")), "AV1")
}

/// The same with an offer that prefers that codec.
pub(super) fn publish(w: &mut World, offer: &str, codec: &str) -> usize {
    let outline = |feed: &str| {
        serde_json::json!({ "feed": feed, "source": "scope", "view": feed, "purpose": "scope", "max_bitrate": 4_000_000,
                            "budget_ms": 200, "priority": 0, "replay": false })
    };
    let grant = serde_json::json!({
        "publication": "pub1", "session": "s1", "realm": "north", "publisher": "p1", "audio": null,
        "video": outline("scope"), "layers": [outline("scope-half")],
    });
    let answer = w.core.open_publication(serde_json::from_value(grant).unwrap(), offer, w.now).unwrap();
    assert!(answer.feeds.iter().all(|f| f.codec == codec), "{:?}", answer.feeds);
    *w.core.publications.values().next().unwrap()
}

/// A frame of one packet, with a descriptor and that number.
fn send(w: &mut World, peer: usize, rid: &str, seq: u16, descriptor: &[u8], number: u16) {
    let mut packet = vec![0; 128];
    let ssrc = Ssrc(u32::from(rid.as_bytes()[0]));
    let fields = HeaderFields { marker: true, payload_type: AV1, seq, timestamp: u32::from(seq) * 3_000, ssrc };
    let elements: [(u8, &[u8]); 2] = [(RID, rid.as_bytes()), (DESCRIPTOR, &numbered(descriptor, number))];
    let n = write_header(&mut packet, fields, &elements).unwrap();
    packet.truncate(n);
    packet.extend_from_slice(&[0x10; 40]);
    w.advance(33);
    w.core.handle_media(peer, w.now, &packet);
    w.core.send_on(w.now);
}

pub(super) struct Viewer {
    pub(super) leg: usize,
    pub(super) id: LegId,
    socket: UdpSocket,
    srtp: Srtp,
    descriptor: Option<u8>,
}

impl Viewer {
    pub(super) fn join(w: &mut World, name: &str, feed: &str, offer: &str) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_nonblocking(true).unwrap();
        let id = LegId::new(name).unwrap();
        let grant = serde_json::json!({ "leg": name, "feed": key(feed), "realm": "north", "companion": null });
        let grant = serde_json::from_value(grant).unwrap();
        let answer = w.core.open_webrtc_leg(grant, offer, w.now).unwrap().sdp;
        let of = |name: &str| answer.lines().find_map(|l| l.strip_prefix(name)).unwrap().trim().to_owned();
        let Some(state::Resource::Peer(peer)) = w.core.leg_by_id.get(&id).copied() else { panic!("a peer") };
        let ours = (of("a=ice-ufrag:"), of("a=ice-pwd:"));
        let theirs = w.core.peers[peer].transport.remote_ufrag().unwrap().to_owned();
        let to = w.core.listeners[0].candidates[0].address;
        let from = Remote::udp(socket.local_addr().unwrap());
        w.core.handle_datagram(0, from, to, w.now, &mut check(&ours, &theirs));
        let srtp = |client| Srtp::from_dtls(Profile::Aes128Gcm, &[7; 56], client).unwrap();
        w.core.connected(peer, srtp(false), w.now);
        let agreed = answer.lines().find_map(|l| l.strip_prefix("a=extmap:").filter(|l| l.contains("dependency")));
        let descriptor = agreed.and_then(|l| l.split(' ').next()?.parse().ok());
        Self { leg: w.core.peers[peer].legs[0], id, socket, srtp: srtp(true), descriptor }
    }

    /// Sequence numbers and descriptors of what has come since the last call.
    fn came(&mut self) -> Vec<(u16, Vec<u8>)> {
        self.packets().into_iter().map(|(seq, descriptor, _)| (seq, descriptor)).collect()
    }

    /// Sequence numbers, descriptors and payloads of what has come since the last call.
    pub(super) fn packets(&mut self) -> Vec<(u16, Vec<u8>, Vec<u8>)> {
        let mut out = Vec::new();
        let mut buffer = [0; 2_048];
        while let Ok(len) = self.socket.recv(&mut buffer) {
            let data = &mut buffer[..len];
            if !(128..=191).contains(&data[0]) || is_rtcp(data) {
                continue;
            }
            let (len, _) = self.srtp.receive.open(data).unwrap();
            let packet = &data[..len];
            let h = Header::parse(packet).unwrap();
            let descriptor = element(&h, packet, self.descriptor.unwrap_or(0)).unwrap_or(&[]);
            out.push((h.seq, descriptor.to_vec(), h.payload(packet).to_vec()));
        }
        out
    }

    fn descriptors(&mut self) -> Vec<Vec<u8>> {
        self.came().into_iter().map(|(_, d)| d).collect()
    }
}

#[tokio::test]
async fn frame_numbers_go_on_over_a_change_of_layer_and_a_repeat_has_the_one_that_it_had() {
    let mut w = World::new();
    let peer = publisher(&mut w);
    let offer = with_av1(include_str!("../../webrtc/sdp/offers/chromium-whep.sdp"));
    let mut v = Viewer::join(&mut w, "leg1", "scope", &offer);
    let mut stays = Viewer::join(&mut w, "leg2", "scope-half", &offer);
    send(&mut w, peer, "h", 10, &KEY_FRAME, 65_534);
    send(&mut w, peer, "h", 11, &NEXT_FRAME, 65_535);
    assert_eq!(v.descriptors(), [numbered(&KEY_FRAME, 65_534), numbered(&NEXT_FRAME, 65_535)]);

    w.core.switch_leg(&v.id.clone(), &key("scope-half"), Vec::new(), w.now).unwrap();
    send(&mut w, peer, "m", 900, &KEY_FRAME, 500);
    send(&mut w, peer, "m", 901, &NEXT_FRAME, 501);
    let came = v.came();
    let golden: [&[u8]; 2] = [
        &[0xca, 0x00, 0x00, 0x81, 0x41, 0x1e, 0xac, 0x51, 0x41, 0x01, 0x0c, 0x1d, 0xfc, 0x10, 0xdc],
        &[0xcb, 0x00, 0x01],
    ];
    assert_eq!(came.iter().map(|(_, d)| d.as_slice()).collect::<Vec<_>>(), golden);
    // The control: who did not change has the publisher's numbers.
    assert_eq!(stays.descriptors(), [numbered(&KEY_FRAME, 500), numbered(&NEXT_FRAME, 501)]);

    w.advance(100);
    w.core.repair(v.leg, w.now, std::iter::once(came[0].0));
    assert_eq!(v.descriptors(), [golden[0].to_vec(), golden[0].to_vec()], "a repeat goes twice");
    send(&mut w, peer, "m", 902, &NEXT_FRAME, 502);
    assert_eq!(v.descriptors(), [vec![0xcb, 0x00, 0x02]]);
    w.core.switch_leg(&v.id.clone(), &key("scope"), Vec::new(), w.now).unwrap();
    send(&mut w, peer, "h", 12, &KEY_FRAME, 7);
    assert_eq!(v.descriptors(), [numbered(&KEY_FRAME, 3)]);
}

#[tokio::test]
async fn a_viewer_that_did_not_ask_for_it_gets_no_descriptor() {
    let mut w = World::new();
    let peer = publisher(&mut w);
    let offer = with_av1(include_str!("../../webrtc/sdp/offers/chromium-whep.sdp"));
    let line = format!("a=extmap:{DESCRIPTOR} {DEPENDENCY_DESCRIPTOR_URI}\r\n");
    assert!(offer.contains(&line));
    let mut v = Viewer::join(&mut w, "leg1", "scope", &offer.replace(&line, ""));
    v.descriptor = Some(DESCRIPTOR);
    send(&mut w, peer, "h", 10, &KEY_FRAME, 1);
    assert_eq!(v.descriptors(), [Vec::<u8>::new()]);
}
