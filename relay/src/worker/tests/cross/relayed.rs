//! The same with threads and sockets: a relay of two workers, a native publisher, native viewers and browsers on both.

use super::*;
use crate::webrtc::transport::dtls_certificate;
use trocar_control::trust::cert_hash;
use trocar_proto::media::ext::{ABS_CAPTURE_TIME_URI, FRAME_URI, FrameMark, FrameMarks};
use trocar_proto::media::roq;
use trocar_proto::media::rtcp::{Builder, Compound, Rtcp};
use trocar_proto::media::rtp::{Header, is_rtcp};
use trocar_proto::session::api::FeedState;
use trocar_proto::units::WallMicros;

const SSRC: Ssrc = Ssrc(77);
const PACKETS_A_FRAME: usize = 8;

/// A relay of two workers, and what a device needs to reach it.
struct House {
    relay: crate::Relay,
    events: mpsc::Receiver<RelayEvent>,
    client: quinn::ClientConfig,
    cnf: CertHash,
}

impl House {
    fn start() -> Self {
        Self::with(Limits::default())
    }

    fn with(limits: Limits) -> Self {
        let [identity, device] = identities();
        let cnf = cert_hash(&device.chain[0]);
        let config =
            crate::RelayConfig { listeners: vec![listener()], identity, workers: 2, pin: None, limits, control: None };
        let (relay, events) = crate::Relay::start(config).unwrap();
        Self { relay, events, client: quic::client_config(device).unwrap(), cnf }
    }

    async fn connect(&self, to: &str) -> quinn::Connection {
        let mut endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
        endpoint.set_default_client_config(self.client.clone());
        endpoint.connect(to.parse().unwrap(), "localhost").unwrap().await.unwrap()
    }

    /// Which worker has that port.
    fn worker_of(&self, port: u16) -> usize {
        let all = self.relay.addresses().iter();
        all.clone().find(|a| a.quic.port() == port || a.webrtc.port() == port).expect("a port of the relay").worker
    }

    async fn feed_is_live(&mut self) {
        let is_live = |e: &RelayEvent| matches!(e, RelayEvent::FeedState { state: FeedState::Live, .. });
        while !is_live(&tokio::time::timeout(SOON, self.events.recv()).await.unwrap().unwrap()) {}
    }

    /// Waits until a leg is in that state.
    async fn leg_is(&mut self, leg: &str, state: LegState) {
        let waits = async {
            while let Some(event) = self.events.recv().await {
                if matches!(&event, RelayEvent::Leg { leg: l, state: s } if l.as_str() == leg && *s == state) {
                    return;
                }
            }
            panic!("the relay is gone");
        };
        tokio::time::timeout(SOON, waits).await.unwrap_or_else(|_| panic!("{leg} is not {state:?}"));
    }

    /// What there is to say where a packet is not the one that was sent.
    async fn says(&self, frame: usize, worker: usize, came: Option<&[u8]>) -> String {
        let figures = self.relay.snapshot().await.unwrap().render();
        format!("frame {frame}, worker {worker}, {:?} bytes came\n{figures}", came.map(<[u8]>::len))
    }

    /// The next legs that are closed, in the order in which they are.
    async fn closed_legs(&mut self, count: usize) -> Vec<String> {
        let mut closed = Vec::new();
        while closed.len() < count {
            let event = tokio::time::timeout(SOON, self.events.recv()).await.unwrap().unwrap();
            if let RelayEvent::Leg { leg, state: LegState::Closed } = event {
                closed.push(leg.to_string());
            }
        }
        closed
    }

    async fn open_feed(&self) -> FlowBinding {
        self.open(key("scope")).await.unwrap()
    }

    async fn open(&self, key: FeedKey) -> Result<FlowBinding, AdmitError> {
        let grant = serde_json::from_value(serde_json::json!({
            "key": key, "realm": "north", "publisher": "p1", "cnf": self.cnf,
            "descriptor": {
                "feed": key.feed, "source": "scope", "view": "overview", "kind": "video", "purpose": "scope", "codec": "VP8",
                "clock_rate": 90_000, "payload_type": 96, "max_bitrate": 20_000_000, "budget_ms": 200,
                "transport": { "roq": { "mode": "datagram" } },
                "header_extensions": { FRAME_URI: 1, ABS_CAPTURE_TIME_URI: 2 },
            },
        }));
        self.relay.open_feed(grant.unwrap()).await
    }

    fn worker_at(&self, binding: &FlowBinding) -> usize {
        self.worker_of(binding.relay.parse::<SocketAddr>().unwrap().port())
    }

    async fn native(&mut self, leg: &str) -> Native {
        let binding = self.relay.open_roq_leg(grant(leg), self.cnf).await.unwrap();
        let connection = self.connect(&binding.relay).await;
        self.leg_is(leg, LegState::Connected).await;
        let worker = self.worker_at(&binding);
        Native { connection, binding, worker }
    }
}

fn grant(leg: &str) -> LegGrant {
    let all = serde_json::json!({ "leg": leg, "feed": key("scope"), "realm": "north", "companion": null });
    serde_json::from_value(all).unwrap()
}

/// A publisher that keeps what it has sent.
struct Source {
    connection: quinn::Connection,
    binding: FlowBinding,
    frame: u32,
    seq: u16,
}

impl Source {
    async fn send_frame(&mut self, key: bool) -> Vec<Vec<u8>> {
        let prefix = FlowPrefix::new(self.binding.rtp_flow_id).unwrap();
        self.frame += 1;
        let mut sent = Vec::new();
        for n in 0..PACKETS_A_FRAME {
            let (first, last) = (n == 0, n + 1 == PACKETS_A_FRAME);
            let marks = FrameMarks { start: first, end: last, independent: key, discardable: false };
            let mark = FrameMark { frame_id: self.frame, marks }.to_bytes();
            let capture = WallMicros(1_000_000 + u64::from(self.frame) * 16_667).to_ntp().to_be_bytes();
            let (seq, timestamp) = (self.seq, self.frame.wrapping_mul(1_500));
            let fields = HeaderFields { marker: last, payload_type: 96, seq, timestamp, ssrc: SSRC };
            let mut packet = vec![0; 64];
            let len = write_header(&mut packet, fields, &[(1, &mark), (2, &capture)]).unwrap();
            packet.truncate(len);
            packet.extend((0..900_u32).map(|i| (i.wrapping_mul(31) ^ u32::from(seq)).to_be_bytes()[3]));
            self.seq = self.seq.wrapping_add(1);
            let datagram = [prefix.as_bytes(), &packet].concat();
            self.connection.send_datagram_wait(datagram.into()).await.unwrap();
            sent.push(packet);
        }
        sent
    }

    /// Waits until the relay asks for a key frame.
    async fn asked_for_key_frame(&self) {
        let asked = async {
            loop {
                let datagram = self.connection.read_datagram().await.unwrap();
                let Some((flow, rtcp)) = roq::split(&datagram) else { continue };
                let is_request = |p| matches!(p, Rtcp::KeyFrameRequest { media } if media == SSRC);
                if flow == self.binding.rtcp_flow_id && Compound::new(rtcp).any(is_request) {
                    return;
                }
            }
        };
        tokio::time::timeout(SOON, asked).await.expect("a key frame is asked for");
    }
}

/// A native viewer.
struct Native {
    connection: quinn::Connection,
    binding: FlowBinding,
    worker: usize,
}

impl Native {
    /// The next packet; none where it does not come.
    async fn next(&self) -> Option<Vec<u8>> {
        loop {
            let datagram = tokio::time::timeout(SOON, self.connection.read_datagram()).await.ok()?.ok()?;
            if let Some((flow, packet)) = roq::split(&datagram)
                && flow == self.binding.rtp_flow_id
            {
                return Some(packet.to_vec());
            }
        }
    }

    fn ask_for_key_frame(&self) {
        let prefix = FlowPrefix::new(self.binding.rtcp_flow_id).unwrap();
        let pli = Builder::default().receiver_report(Ssrc(5), None).pli(Ssrc(5), SSRC).finish();
        self.connection.send_datagram([prefix.as_bytes(), &pli].concat().into()).unwrap();
    }
}

/// A browser: a connectivity check, a DTLS handshake, and SRTP.
struct Browser {
    socket: tokio::net::UdpSocket,
    srtp: Srtp,
    worker: usize,
}

impl Browser {
    async fn join(house: &mut House, leg: &str) -> Self {
        let shown = dtls_certificate().unwrap();
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &shown.certificate);
        let hex: Vec<String> = digest.as_ref().iter().map(|b| format!("{b:02X}")).collect();
        let offer = include_str!("../../../webrtc/sdp/offers/chromium-whep.sdp");
        let with_ours = |l: &str| match l.strip_prefix("a=fingerprint:") {
            Some(_) => format!("a=fingerprint:sha-256 {}\r\n", hex.join(":")),
            None => format!("{l}\r\n"),
        };
        let theirs = offer.lines().find_map(|l| l.strip_prefix("a=ice-ufrag:")).unwrap().to_owned();
        let offer: String = offer.lines().map(with_ours).collect();
        let answer = house.relay.open_webrtc_leg(grant(leg), offer).await.unwrap().sdp;
        let of = |name: &str| answer.lines().find_map(|l| l.strip_prefix(name)).unwrap().trim().to_owned();
        let candidate = answer.lines().find(|l| l.starts_with("a=candidate:") && l.contains(" udp ")).unwrap();
        let [ip, port] = candidate.split(' ').collect::<Vec<_>>()[4..6] else { unreachable!("two of them") };
        let to = SocketAddr::new(ip.parse().unwrap(), port.parse().unwrap());
        let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
        socket.connect(to).await.unwrap();
        socket.send(&check(&(of("a=ice-ufrag:"), of("a=ice-pwd:")), &theirs)).await.unwrap();
        let srtp = tokio::time::timeout(SOON, handshake(&socket, shown)).await.expect("a DTLS handshake");
        house.leg_is(leg, LegState::Connected).await;
        Self { socket, srtp, worker: house.worker_of(to.port()) }
    }

    /// The next packet of video: its number, marker and payload; none where it does not come.
    async fn next(&mut self) -> Option<(u16, bool, Vec<u8>)> {
        let mut buffer = [0; 2_048];
        loop {
            let len = tokio::time::timeout(SOON, self.socket.recv(&mut buffer)).await.ok()?.ok()?;
            let data = &mut buffer[..len];
            if !(128..=191).contains(&data[0]) || is_rtcp(data) {
                continue;
            }
            let (len, _) = self.srtp.receive.open(data).expect("an authentic packet");
            let header = Header::parse(&data[..len]).unwrap();
            return Some((header.seq, header.marker, header.payload(&data[..len]).to_vec()));
        }
    }
}

async fn handshake(socket: &tokio::net::UdpSocket, shown: dimpl::DtlsCertificate) -> Srtp {
    let config = dimpl::Config::builder().use_server_cookie(false).build().unwrap();
    let mut dtls = dimpl::Dtls::new_12(Arc::new(config), shown, Instant::now());
    dtls.set_active(true);
    dtls.handle_timeout(Instant::now()).unwrap();
    let (mut out, mut input) = (vec![0; 2_048], [0; 2_048]);
    let mut keys = None;
    loop {
        loop {
            match dtls.poll_output(&mut out) {
                dimpl::Output::Packet(p) => drop(socket.send(p).await.unwrap()),
                dimpl::Output::KeyingMaterial(m, _) => keys = Some(m.to_vec()),
                dimpl::Output::Timeout(_) => break,
                _ => {}
            }
        }
        if let Some(keys) = keys {
            return Srtp::from_dtls(Profile::Aes256Gcm, &keys, true).unwrap();
        }
        let len = socket.recv(&mut input).await.unwrap();
        if (20..=63).contains(&input[0]) {
            dtls.handle_packet(&input[..len]).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn viewers_on_both_workers_get_every_packet_bit_for_bit_and_ask_and_end_across() {
    const FRAMES: usize = 60;
    let mut house = House::start();
    let binding = house.open_feed().await;
    let connection = house.connect(&binding.relay).await;
    let mut source = Source { connection, binding, frame: 0, seq: 65_500 };
    // A leg goes to the first connection that shows its certificate: the publisher's must not come later than a viewer's.
    let before = source.send_frame(false).await.len();
    house.feed_is_live().await;
    let natives = [house.native("n1").await, house.native("n2").await];
    let mut browsers = [Browser::join(&mut house, "b1").await, Browser::join(&mut house, "b2").await];
    for workers in [natives.each_ref().map(|n| n.worker), browsers.each_ref().map(|b| b.worker)] {
        let mut workers = workers;
        workers.sort_unstable();
        assert_eq!(workers, [0, 1], "legs are spread");
    }
    let mut first = [None; 2];
    for n in 0..FRAMES {
        let sent = source.send_frame(n == 0).await;
        for packet in &sent {
            for viewer in &natives {
                let came = viewer.next().await;
                assert!(came.as_ref() == Some(packet), "{}", house.says(n, viewer.worker, came.as_deref()).await);
            }
            let header = Header::parse(packet).unwrap();
            for (viewer, first) in browsers.iter_mut().zip(&mut first) {
                let came = viewer.next().await;
                let Some((seq, marker, payload)) = came else { panic!("{}", house.says(n, viewer.worker, None).await) };
                let first = *first.get_or_insert(seq.wrapping_sub(header.seq));
                assert_eq!(seq.wrapping_sub(first), header.seq, "numbers without a gap");
                assert_eq!((marker, &payload[..]), (header.marker, header.payload(packet)));
            }
        }
    }
    // No viewer needs a key frame now: the one that is asked for is asked for by the viewer who does.
    let elsewhere = natives.iter().find(|n| n.worker == 1).unwrap();
    tokio::time::sleep(Duration::from_millis(600)).await;
    while futures_util::FutureExt::now_or_never(source.connection.read_datagram()).is_some() {}
    elsewhere.ask_for_key_frame();
    source.asked_for_key_frame().await;

    let text = house.relay.snapshot().await.unwrap().render();
    let count = |name: &str| text.lines().filter(|l| l.starts_with(name)).count();
    let all = (FRAMES * PACKETS_A_FRAME) as f64;
    let taken = before as f64 + all;
    assert!(text.contains(&format!("trocar_feed_packets_total{{session=\"s1\",feed=\"scope\"}} {taken:.1}")), "{text}");
    assert!(
        text.contains(&format!("trocar_feed_relay_delay_seconds_count{{session=\"s1\",feed=\"scope\"}} {}", all * 4.0)),
        "{text}"
    );
    assert_eq!((count("trocar_leg_packets_total{"), count("trocar_feed_packets_total{")), (4, 1), "{text}");
    assert!(text.contains(&format!("trocar_crossing_packets_total{{from=\"0\",to=\"1\"}} {all:.1}")), "{text}");
    assert!(
        text.contains("trocar_socket_kernel_drops_total{listener=\"north\",worker=\"1\",protocol=\"quic\"} 0.0"),
        "{text}"
    );

    house.relay.close_feed(key("scope")).await;
    let mut closed = house.closed_legs(4).await;
    closed.sort();
    assert_eq!(closed, ["b1", "b2", "n1", "n2"]);
    house.relay.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_belongs_to_a_session_lives_on_one_worker_sessions_are_spread_and_limits_are_for_all_workers_together() {
    let house = House::with(Limits { max_feeds: 4, max_legs: 3, ..Limits::default() });
    let of = |session: &str, feed: &str| FeedKey { session: SessionId::new(session).unwrap(), ..key(feed) };
    let mut workers = Vec::new();
    for at in [of("a", "scope"), of("b", "scope"), of("b", "room"), of("a", "room")] {
        workers.push(house.worker_at(&house.open(at).await.unwrap()));
    }
    assert_eq!(workers, [0, 1, 1, 0]);
    assert_eq!(house.open(of("c", "scope")).await.unwrap_err().to_string(), "the relay is full: 4 feeds are open");
    house.relay.close_feed(of("b", "room")).await;
    assert_eq!(house.open(of("a", "scope")).await, Err(AdmitError::FeedExists));
    house.open(of("b", "room")).await.unwrap();

    let leg = |name: &str| LegGrant { feed: of("b", "scope"), ..grant(name) };
    let mut placed = Vec::new();
    for name in ["n1", "n2", "n3"] {
        placed.push(house.relay.open_roq_leg(leg(name), house.cnf).await.unwrap());
    }
    // A mirror costs as much as a leg: it is worth it for the third.
    let workers: Vec<usize> = placed.iter().map(|b| house.worker_at(b)).collect();
    assert_eq!(workers, [1, 1, 0]);
    let flows: std::collections::BTreeSet<_> = placed.iter().map(|b| b.rtp_flow_id).collect();
    assert_eq!(flows.len(), 3, "no two workers give out the same flow");
    let full = house.relay.open_roq_leg(leg("n4"), house.cnf).await.unwrap_err();
    assert_eq!(full.to_string(), "the relay is full: 3 legs are open");
    for name in ["n1", "n2", "n3"] {
        house.relay.close_leg(LegId::new(name).unwrap()).await;
    }
    assert_eq!(
        house.relay.open_roq_leg(LegGrant { feed: of("c", "scope"), ..grant("n5") }, house.cnf).await,
        Err(AdmitError::NoSuchFeed)
    );
    house.relay.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leg_on_another_worker_is_found_by_its_name_and_its_refusals_name_what_the_home_knows() {
    let house = House::start();
    house.open_feed().await;
    house.open(key("room")).await.unwrap();
    let offer = include_str!("../../../webrtc/sdp/offers/chromium-whep.sdp").replace('\n', "\r\n");
    let mut there = None;
    for n in 0..8 {
        let name = format!("b{n}");
        let answer = house.relay.open_webrtc_leg(grant(&name), offer.clone()).await.unwrap();
        let candidate = answer.sdp.lines().find(|l| l.starts_with("a=candidate:")).unwrap().split(' ').nth(5).unwrap();
        if house.worker_of(candidate.parse().unwrap()) == 1 {
            there = Some(name);
        }
    }
    let leg = LegId::new(there.expect("one of eight legs")).unwrap();
    let restart =
        "a=ice-ufrag:abcd\r\na=ice-pwd:0123456789012345678901\r\nm=video 9 UDP/TLS/RTP/SAVPF 0\r\na=mid:0\r\n";
    assert!(house.relay.patch_webrtc_leg(leg.clone(), restart.to_owned()).await.unwrap().is_some());
    let nobody = LegId::new("nobody").unwrap();
    assert_eq!(house.relay.patch_webrtc_leg(nobody, restart.to_owned()).await, Err(AdmitError::NoSuchLeg));
    // Without VP8 nothing can be taken: the refusal is the home's, wherever the leg would have been.
    let wrong = offer.replace("VP8/90000", "VP7/90000");
    for n in 0..2 {
        let refused = house.relay.open_webrtc_leg(grant(&format!("w{n}")), wrong.clone()).await.unwrap_err();
        assert!(matches!(refused, AdmitError::NotAcceptable { .. }), "{refused:?}");
    }
    house.relay.shutdown().await;
}
