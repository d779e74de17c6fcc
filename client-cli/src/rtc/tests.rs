//! Publisher and a server of the same crate, over a real socket: what HTTP and media must do. The relay is the other server,
//! in the end-to-end tests.

use super::frames::{Assembler, Packet};
use super::light;
use super::peer::Peer;
use super::publish::{Line, Outgoing, Publication, TrackSpec, Wish};
use super::{Bearer, Endpoint};
use crate::stop::Stop;
use rtc::rtcp::payload_feedbacks::picture_loss_indication::PictureLossIndication;
use rtc::rtp_transceiver::rtp_sender::RtpCodecKind;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use trocar_proto::units::{Micros, WallMicros};
use webrtc::media_stream::track_local::TrackLocal as _;
use webrtc::media_stream::track_local::static_rtp::TrackLocalStaticRTP;
use webrtc::media_stream::track_remote::{TrackRemote, TrackRemoteEvent};
use webrtc::peer_connection::{
    PeerConnection, PeerConnectionBuilder, PeerConnectionEventHandler, RTCIceGatheringState, RTCPeerConnectionState,
    RTCSessionDescription,
};
use webrtc::rtp_transceiver::RtpSender;

const PATIENCE: Duration = Duration::from_secs(30);

/// What the server's connection says.
enum Event {
    Gathered,
    Connected,
    Track(Arc<dyn TrackRemote>),
}

struct Handler(mpsc::Sender<Event>);

#[async_trait::async_trait]
impl PeerConnectionEventHandler for Handler {
    async fn on_ice_gathering_state_change(&self, state: RTCIceGatheringState) {
        if state == RTCIceGatheringState::Complete {
            let _ = self.0.send(Event::Gathered).await;
        }
    }

    async fn on_connection_state_change(&self, state: RTCPeerConnectionState) {
        if state == RTCPeerConnectionState::Connected {
            let _ = self.0.send(Event::Connected).await;
        }
    }

    async fn on_track(&self, track: Arc<dyn TrackRemote>) {
        let _ = self.0.send(Event::Track(track)).await;
    }
}

/// A WHIP server for one publisher: answers with a Location, takes the PATCH, ends with the DELETE.
struct Server {
    listener: TcpListener,
    requests: Vec<String>,
}

/// Method and headers, and the body.
async fn request(socket: &mut TcpStream) -> (String, String) {
    let mut data = Vec::new();
    loop {
        let mut chunk = [0; 4_096];
        let n = socket.read(&mut chunk).await.unwrap();
        data.extend_from_slice(&chunk[..n]);
        let text = String::from_utf8_lossy(&data).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let head = head.to_ascii_lowercase();
        let length = head.lines().find_map(|l| l.strip_prefix("content-length: ")).map_or(0, |l| l.parse().unwrap());
        if body.len() >= length {
            return (head, body.to_owned());
        }
    }
}

async fn reply(socket: &mut TcpStream, status: &str, headers: &str, body: &str) {
    let text =
        format!("HTTP/1.1 {status}\r\n{headers}Connection: close\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    socket.write_all(text.as_bytes()).await.unwrap();
}

impl Server {
    async fn start() -> (Self, Endpoint) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/live/whip?feed=x", listener.local_addr().unwrap()).parse().unwrap();
        let endpoint = Endpoint::new(url, Bearer::Fixed("secret".to_owned()), &[]).unwrap();
        (Self { listener, requests: Vec::new() }, endpoint)
    }

    /// The next request; remembers its first line and what it authorised itself with.
    async fn next(&mut self) -> (TcpStream, String) {
        let (mut socket, _) = self.listener.accept().await.unwrap();
        let (head, body) = request(&mut socket).await;
        assert!(head.contains("authorization: bearer secret"), "{head}");
        self.requests.push(head.lines().next().unwrap().to_owned());
        (socket, body)
    }

    /// Answers an offer to send.
    async fn accept(&mut self) -> (Box<dyn PeerConnection>, mpsc::Receiver<Event>) {
        let (connection, events, _) = self.answer(None).await;
        (connection, events)
    }

    /// Answers an offer; one to receive with that track.
    async fn answer(
        &mut self,
        track: Option<Arc<TrackLocalStaticRTP>>,
    ) -> (Box<dyn PeerConnection>, mpsc::Receiver<Event>, Option<Arc<dyn RtpSender>>) {
        let (mut socket, offer) = self.next().await;
        let (sender, mut events) = mpsc::channel(64);
        let mut codecs = super::codec::all().unwrap();
        let interceptors = webrtc::peer_connection::register_default_interceptors(
            webrtc::peer_connection::Registry::new(),
            &mut codecs,
        );
        let connection = PeerConnectionBuilder::<&'static str>::new()
            .with_media_engine(codecs)
            .with_interceptor_registry(interceptors.unwrap())
            .with_handler(Arc::new(Handler(sender)))
            .with_udp_addrs(vec!["127.0.0.1:0"])
            .build()
            .await
            .unwrap();
        connection.set_remote_description(RTCSessionDescription::offer(offer).unwrap()).await.unwrap();
        let mut sender = None;
        if let Some(track) = track {
            sender = Some(connection.add_track(track).await.unwrap());
        }
        let answer = connection.create_answer(None).await.unwrap();
        connection.set_local_description(answer).await.unwrap();
        while !matches!(events.recv().await.unwrap(), Event::Gathered) {}
        let sdp = connection.local_description().await.unwrap().sdp;
        let headers = "Content-Type: application/sdp\r\nLocation: resource/1\r\nETag: \"e1\"\r\n";
        reply(&mut socket, "201 Created", headers, &sdp).await;
        (Box::new(connection), events, sender)
    }
}

fn spec() -> TrackSpec {
    TrackSpec {
        sound: false,
        codec: "H264".to_owned(),
        fmtp: "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e034".to_owned(),
        clock_rate: 90_000,
        channels: 0,
        payload_type: 102,
    }
}

fn frame(number: u16) -> Outgoing {
    let packet = |i: u16| {
        let mut p = vec![0x80, 96, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, if number == 0 { 0x65 } else { 0x41 }];
        p[1] |= if i == 2 { 0x80 } else { 0 };
        p[2..4].copy_from_slice(&(number * 3 + i).to_be_bytes());
        p[4..8].copy_from_slice(&(u32::from(number) * 3_000).to_be_bytes());
        p.extend_from_slice(&[i as u8; 900]);
        p.into()
    };
    Outgoing { packets: (0..3).map(packet).collect(), capture: WallMicros(1_790_000_000_000_000) }
}

/// Reads frames of a track until there are so many; and the source that they came from.
async fn frames(track: &dyn TrackRemote, wanted: u64) -> (Assembler, u32) {
    let mut source = 0;
    let mut assembler = Assembler::new("H264", 90_000);
    while assembler.counters().frames < wanted {
        let TrackRemoteEvent::OnRtpPacket(p) = track.poll().await.unwrap() else { continue };
        let packet = Packet {
            ssrc: p.header.ssrc,
            seq: p.header.sequence_number,
            timestamp: p.header.timestamp,
            marker: p.header.marker,
            payload: p.payload.to_vec(),
        };
        source = packet.ssrc;
        assembler.handle(Micros(0), packet);
    }
    (assembler, source)
}

async fn within<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work).await.expect("in time")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_whip_publisher_is_answered_sends_its_frames_hears_of_key_frames_and_deletes_its_resource() {
    let (mut server, endpoint) = Server::start().await;
    let (publication, inlets) = Publication::new(vec![spec()]);
    let (stop, asked) = Stop::by_hand();
    let (wishes, mut wished) = mpsc::channel(16);
    let publishing =
        tokio::spawn(async move { publication.publish(&endpoint, &stop, |w| wishes.try_send(w).unwrap()).await });
    let (connection, mut events) = within(server.accept()).await;
    let (mut socket, fragment) = within(server.next()).await;
    assert!(fragment.contains("a=candidate:") && fragment.contains("a=ice-ufrag:"), "{fragment}");
    reply(&mut socket, "204 No Content", "", "").await;
    assert!(matches!(within(wished.recv()).await, Some(Wish::Connected(_))));
    assert_eq!(within(wished.recv()).await, Some(Wish::KeyFrame(0)));

    let feeder = tokio::spawn(async move {
        let mut tick = tokio::time::interval(Duration::from_millis(5));
        for number in 0..2_000 {
            tick.tick().await;
            inlets[0].send(frame(number));
        }
    });
    let track = loop {
        if let Some(Event::Track(track)) = within(events.recv()).await {
            break track;
        }
    };
    let (got, media_ssrc) = within(frames(track.as_ref(), 60)).await;
    let counters = got.counters();
    assert_eq!((counters.frames_lost, counters.duplicates, counters.packets_missing), (0, 0, 0), "{counters:?}");

    track.write_rtcp(vec![Box::new(PictureLossIndication { sender_ssrc: 0, media_ssrc })]).await.unwrap();
    assert_eq!(within(wished.recv()).await, Some(Wish::KeyFrame(0)), "a picture loss is a wish for a key frame");

    asked.send_replace(true);
    let (mut socket, _) = within(server.next()).await;
    reply(&mut socket, "200 OK", "", "").await;
    within(publishing).await.unwrap().unwrap();
    feeder.abort();
    assert_eq!(
        server.requests,
        ["post /live/whip?feed=x http/1.1", "patch /live/resource/1 http/1.1", "delete /live/resource/1 http/1.1"]
    );
    connection.close().await.unwrap();
}

#[tokio::test]
async fn a_refused_offer_ends_with_the_words_of_the_problem_document_and_what_is_no_answer_is_named() {
    for (status, headers, body, expected) in [
        (
            "403 Forbidden",
            "Content-Type: application/problem+json\r\n",
            r#"{"type":"urn:trocar:problem:verb-missing","title":"Not allowed","status":403,"detail":"needs the verb publish"}"#,
            "needs the verb publish",
        ),
        ("200 OK", "", "v=0", "instead of 201"),
        ("201 Created", "Content-Type: text/html\r\nLocation: /x\r\n", "<html>", "not application/sdp"),
        ("201 Created", "Content-Type: application/sdp\r\n", "v=0", "no Location"),
    ] {
        let (mut server, endpoint) = Server::start().await;
        let (publication, _inlets) = Publication::new(vec![spec()]);
        let (stop, _asked) = Stop::by_hand();
        let publishing = tokio::spawn(async move { publication.publish(&endpoint, &stop, |_| ()).await });
        let (mut socket, offer) = within(server.next()).await;
        assert!(offer.contains("a=sendonly") && offer.contains("H264/90000"), "{offer}");
        reply(&mut socket, status, headers, body).await;
        let error = format!("{:#}", within(publishing).await.unwrap().unwrap_err());
        assert!(error.contains(expected), "{status}: {error}");
    }
}

/// Packets of a joiner's beginning: more than the 256 that the crate keeps of a track.
const BEGINNING: u16 = 600;

/// Answers a viewer, and sends it the beginning between its PATCH and the answer to that.
async fn serve_a_beginning(server: &mut Server) -> Box<dyn PeerConnection> {
    let track = Arc::new(TrackLocalStaticRTP::new(spec().track(0).unwrap()));
    let (connection, mut events, sender) = within(server.answer(Some(Arc::clone(&track)))).await;
    let (mut patch, _) = within(server.next()).await;
    while !matches!(within(events.recv()).await.unwrap(), Event::Connected) {}
    let line = Line::negotiated(&track, sender.unwrap().as_ref(), "H264").await.unwrap();
    let mut tick = tokio::time::interval(Duration::from_millis(2));
    for number in 0..BEGINNING {
        if number % 20 == 0 {
            tick.tick().await;
        }
        let mut packet = vec![0x80, 96, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0x41];
        packet[2..4].copy_from_slice(&number.to_be_bytes());
        packet.extend_from_slice(&[0; 60]);
        track.write_rtp(line.write(&packet.into(), WallMicros(1_790_000_000_000_000)).unwrap()).await.unwrap();
    }
    reply(&mut patch, "204 No Content", "", "").await;
    connection
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_comes_while_the_server_still_answers_is_read_and_none_of_it_is_lost() {
    let (mut server, endpoint) = Server::start().await;
    let opening = tokio::spawn(async move { light::Leg::open(&endpoint).await });
    let _connection = serve_a_beginning(&mut server).await;
    let mut leg = within(opening).await.unwrap().unwrap();
    let mut came = BTreeSet::new();
    while came.len() < usize::from(BEGINNING) {
        came.insert(within(leg.next()).await.expect("the connection stands").seq);
    }
    assert_eq!(came.last().copied(), Some(BEGINNING - 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_control_a_track_that_is_read_once_the_connection_stands_has_lost_packets() {
    let (mut server, endpoint) = Server::start().await;
    let (tell, mut tracks) = mpsc::channel(1);
    let keep = move |track| drop(tell.try_send(track));
    let mut peer = Peer::new(&endpoint.url, super::codec::all().unwrap(), keep).await.unwrap();
    peer.receive(RtpCodecKind::Video).await.unwrap();
    let opening = tokio::spawn(async move { peer.open(&endpoint).await.map(|()| peer) });
    let _connection = serve_a_beginning(&mut server).await;
    let peer = within(opening).await.unwrap().unwrap();
    let track = within(tracks.recv()).await.unwrap();
    // Not before the whole beginning has come to the crate.
    let mut tick = tokio::time::interval(Duration::from_millis(10));
    while peer.received().await < u64::from(BEGINNING) {
        within(tick.tick()).await;
    }
    let mut came = 0;
    // What the crate kept comes at once.
    while let Ok(Some(event)) = tokio::time::timeout(Duration::from_millis(500), track.poll()).await {
        came += usize::from(matches!(event, TrackRemoteEvent::OnRtpPacket(_)));
    }
    assert!(came > 0 && came < usize::from(BEGINNING), "{came}");
}
