//! A peer connection of the `webrtc` crate: how it is made, and its events as a queue.

use super::requests;
use super::resource::{Endpoint, Resource};
use super::sockets::WideSockets;
use anyhow::{Context, bail};
use rtc::interceptor::{NackGeneratorBuilder, NackResponderBuilder};
use rtc::peer_connection::configuration::interceptor_registry::{
    configure_rtcp_reports, configure_simulcast_extension_headers, configure_twcc_receiver_only,
};
use rtc::peer_connection::configuration::media_engine::MediaEngine;
use rtc::rtp_transceiver::rtp_sender::{RTCPFeedback, RtpCodecKind};
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs as _};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::timeout;
use trocar_proto::session::api::IceServer;
use url::{Host, Url};
use webrtc::media_stream::track_local::TrackLocal;
use webrtc::media_stream::track_remote::TrackRemote;
use webrtc::peer_connection::{
    PeerConnection, PeerConnectionBuilder, PeerConnectionEventHandler, RTCConfigurationBuilder, RTCIceGatheringState,
    RTCIceServer, RTCPeerConnectionIceEvent, RTCPeerConnectionState, RTCSessionDescription, Registry,
    SettingEngineBuilder, Slot, SrtpProtectionProfile,
};
use webrtc::rtp_transceiver::{RTCRtpTransceiverDirection, RTCRtpTransceiverInit, RtpSender};

/// Events that wait to be read. Loss policy: the connection's own task waits; it makes a handful of them.
const EVENTS: usize = 64;
/// Candidates are gathered for this long at most, then what there is goes out.
const GATHER: Duration = Duration::from_secs(3);
/// Missing packets are asked for this often until they come. The crate's own 100 ms are longer than a frame can wait; much less
/// than a round trip would have each of them sent several times.
const ASK_EVERY: Duration = Duration::from_millis(40);
/// Packets among which missing ones are looked for: 200 ms at 20 Mbit/s. The crate does not see that a retransmission (RFC 4588) has filled
/// a hole, and asks for it until it is out of this window.
const ASK_WITHIN: u16 = 512;
/// A connection that is not there by then has failed.
const CONNECT: Duration = Duration::from_secs(15);

/// What happens to a connection.
pub(super) enum PeerEvent {
    /// It came about, broke or ended.
    State(RTCPeerConnectionState),
    /// A local candidate, as an SDP attribute's value.
    Candidate(String),
    /// There are no more candidates.
    Gathered,
}

/// Who reads a track. Called as soon as the other side's first packet is there, which may be while [`Peer::open`] still talks to the
/// server: the crate keeps 256 packets of a track for whoever reads it and drops what comes then, and a joiner is sent about as many
/// at once.
type Follow = Box<dyn Fn(Arc<dyn TrackRemote>) + Send + Sync>;

/// One connection. [`Peer::close`] it: dropping says nothing to the other side.
pub(super) struct Peer {
    connection: Arc<dyn PeerConnection>,
    events: mpsc::Receiver<PeerEvent>,
    /// The resource at the other side.
    pub(super) resource: Option<Resource>,
}

struct Handler {
    events: mpsc::Sender<PeerEvent>,
    follow: Follow,
}

impl Handler {
    async fn tell(&self, event: PeerEvent) {
        // Nobody reads any more where this fails: the connection is being closed.
        let _ = self.events.send(event).await;
    }
}

#[async_trait::async_trait]
impl PeerConnectionEventHandler for Handler {
    async fn on_ice_candidate(&self, event: RTCPeerConnectionIceEvent) {
        match event.candidate.to_json() {
            Ok(c) => self.tell(PeerEvent::Candidate(c.candidate)).await,
            Err(error) => tracing::debug!(%error, "a candidate that cannot be written"),
        }
    }

    async fn on_ice_gathering_state_change(&self, state: RTCIceGatheringState) {
        if state == RTCIceGatheringState::Complete {
            self.tell(PeerEvent::Gathered).await;
        }
    }

    async fn on_connection_state_change(&self, state: RTCPeerConnectionState) {
        self.tell(PeerEvent::State(state)).await;
    }

    async fn on_track(&self, track: Arc<dyn TrackRemote>) {
        (self.follow)(track);
    }
}

impl Peer {
    /// A connection that will talk to a server beside `url`, with these codecs. `follow` begins to read a track and does not wait.
    pub(super) async fn new(
        url: &Url,
        mut codecs: MediaEngine,
        follow: impl Fn(Arc<dyn TrackRemote>) + Send + Sync + 'static,
    ) -> anyhow::Result<Self> {
        let (sender, events) = mpsc::channel(EVENTS);
        let handler = Handler { events: sender, follow: Box::new(follow) };
        let interceptors = interceptors(&mut codecs)?.with(requests::slot(), requests::Requests::default());
        // No counter mode with SHA-1: the relay takes AEAD alone (RFC 7714), and so should everybody.
        let profiles = vec![SrtpProtectionProfile::Srtp_Aead_Aes_256_Gcm, SrtpProtectionProfile::Srtp_Aead_Aes_128_Gcm];
        let settings =
            SettingEngineBuilder::new().with_srtp_protection_profiles(profiles).with_include_loopback_candidate(true);
        let connection = PeerConnectionBuilder::<SocketAddr>::new()
            .with_configuration(RTCConfigurationBuilder::new().build())
            .with_media_engine(codecs)
            .with_setting_engine(settings.build())
            .with_interceptor_registry(interceptors)
            .with_handler(Arc::new(handler))
            .with_runtime(WideSockets::shared())
            .with_udp_addrs(local_addresses(url).await)
            .build()
            .await
            .context("a WebRTC connection cannot be made")?;
        Ok(Self { connection: Arc::new(connection), events, resource: None })
    }

    /// Asks to receive one track of this kind.
    pub(super) async fn receive(&self, kind: RtpCodecKind) -> anyhow::Result<()> {
        let init = RTCRtpTransceiverInit {
            direction: RTCRtpTransceiverDirection::Recvonly,
            ..RTCRtpTransceiverInit::default()
        };
        self.connection.add_transceiver_from_kind(kind, Some(init)).await?;
        Ok(())
    }

    /// Offers to send this track.
    pub(super) async fn send(&self, track: Arc<dyn TrackLocal>) -> anyhow::Result<Arc<dyn RtpSender>> {
        let init = RTCRtpTransceiverInit {
            direction: RTCRtpTransceiverDirection::Sendonly,
            ..RTCRtpTransceiverInit::default()
        };
        let transceiver = self.connection.add_transceiver_from_track(track, Some(init)).await?;
        transceiver.sender().await?.context("a transceiver that sends nothing")
    }

    /// Makes the offer, POSTs it, takes the answer and PATCHes the candidates; returns when the connection stands. The
    /// offer goes out before candidates are gathered, so that the servers named in the answer are asked too.
    ///
    /// # Errors
    /// What the server answered, or that no connection came about.
    pub(super) async fn open(&mut self, endpoint: &Endpoint) -> anyhow::Result<()> {
        let offer = self.connection.create_offer(None).await.context("no offer")?;
        let (ufrag, password) = credentials(&offer.sdp);
        let resource = self.resource.insert(endpoint.offer(offer.sdp.clone()).await?);
        if !resource.ice_servers.is_empty() {
            let servers = resource.ice_servers.iter().map(ice_server).collect();
            self.connection.set_configuration(RTCConfigurationBuilder::new().with_ice_servers(servers).build()).await?;
        }
        let answer = with_formats(&resource.answer, &offer.sdp);
        let answer = RTCSessionDescription::answer(answer).context("the answer is not SDP")?;
        self.connection.set_local_description(offer).await?;
        self.connection.set_remote_description(answer).await.context("the answer cannot be used")?;
        let gathered = timeout(GATHER, self.gather()).await;
        let (candidates, rest) = gathered.unwrap_or_default();
        if let Some(resource) = &self.resource
            && !candidates.is_empty()
        {
            resource.trickle(fragment(&ufrag, &password, &candidates)).await;
        }
        match timeout(CONNECT, self.connected(rest)).await {
            Ok(result) => result,
            Err(_) => bail!("no connection within {} s: is UDP let through?", CONNECT.as_secs()),
        }
    }

    /// Collects candidates until there are no more; and the events that are not about them.
    async fn gather(&mut self) -> (Vec<String>, Option<RTCPeerConnectionState>) {
        let (mut candidates, mut state) = (Vec::new(), None);
        while let Some(event) = self.events.recv().await {
            match event {
                PeerEvent::Candidate(c) => candidates.push(c),
                PeerEvent::Gathered => break,
                PeerEvent::State(s) => {
                    state = Some(s);
                    // It came about already: candidates are of no use.
                    if s == RTCPeerConnectionState::Connected {
                        break;
                    }
                }
            }
        }
        (candidates, state)
    }

    async fn connected(&mut self, before: Option<RTCPeerConnectionState>) -> anyhow::Result<()> {
        let mut state = before;
        loop {
            match state {
                Some(RTCPeerConnectionState::Connected) => return Ok(()),
                Some(s @ (RTCPeerConnectionState::Failed | RTCPeerConnectionState::Closed)) => {
                    bail!("the WebRTC connection did not come about: {s}")
                }
                _ => {}
            }
            state = match self.events.recv().await.context("the WebRTC connection ended")? {
                PeerEvent::State(s) => Some(s),
                PeerEvent::Candidate(_) | PeerEvent::Gathered => None,
            };
        }
    }

    /// What happens next; none when it is closed.
    pub(super) async fn next_event(&mut self) -> Option<PeerEvent> {
        self.events.recv().await
    }

    /// RTP packets that came, read or not.
    #[cfg(test)]
    pub(super) async fn received(&self) -> u64 {
        let report =
            self.connection.get_stats(std::time::Instant::now(), webrtc::peer_connection::StatsSelector::None).await;
        report.inbound_rtp_streams().map(|s| s.received_rtp_stream_stats.packets_received).sum()
    }

    /// DELETEs the resource and hangs up.
    pub(super) async fn close(mut self) {
        if let Some(resource) = self.resource.take() {
            resource.delete().await;
        }
        self.events.close();
        if let Err(error) = self.connection.close().await {
            tracing::debug!(%error, "the connection was not closed");
        }
    }
}

/// The crate's own interceptors, of which the one that asks for missing packets is quicker.
fn interceptors(codecs: &mut MediaEngine) -> anyhow::Result<Registry> {
    for parameter in ["", "pli"] {
        let nack = RTCPFeedback { typ: "nack".to_owned(), parameter: parameter.to_owned() };
        codecs.register_feedback(nack, RtpCodecKind::Video);
    }
    let generator = NackGeneratorBuilder::new().with_size(ASK_WITHIN).with_interval(ASK_EVERY).build();
    let registry = Registry::new()
        .with(Slot::NackResponder, NackResponderBuilder::new().build())
        .with(Slot::NackGenerator, generator);
    configure_simulcast_extension_headers(codecs)?;
    Ok(configure_rtcp_reports(configure_twcc_receiver_only(registry, codecs)?))
}

/// Where to listen: every interface, and loopback where the server is on this machine.
async fn local_addresses(url: &Url) -> Vec<SocketAddr> {
    let loopback = match url.host() {
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        Some(Host::Domain(name)) => {
            let name = (name.to_owned(), url.port_or_known_default().unwrap_or(443));
            let found = tokio::task::spawn_blocking(move || name.to_socket_addrs().map(Iterator::collect::<Vec<_>>));
            found.await.ok().and_then(Result::ok).unwrap_or_default().iter().any(|a| a.ip().is_loopback())
        }
        None => false,
    };
    let any = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    let wanted =
        if loopback { vec![IpAddr::V4(Ipv4Addr::LOCALHOST), any] } else { vec![any, Ipv6Addr::UNSPECIFIED.into()] };
    wanted.into_iter().map(|ip| (ip, 0).into()).collect()
}

fn ice_server(server: &IceServer) -> RTCIceServer {
    RTCIceServer {
        urls: server.urls.clone(),
        username: server.username.clone().unwrap_or_default(),
        credential: server.credential.clone().unwrap_or_default(),
    }
}

/// The answer, with the first offered format in each section that it rejects. A rejected section may name any format (RFC
/// 8829 section 5.3.1), and the crate takes only those that it knows.
fn with_formats(answer: &str, offer: &str) -> String {
    let mut offered = offer.split("\r\nm=").skip(1);
    let mut sections = answer.split("\r\nm=");
    let mut out = sections.next().unwrap_or_default().to_owned();
    for section in sections {
        let ours = offered.next();
        out.push_str("\r\nm=");
        let rejected = ours.and_then(|ours| rejection(section, ours));
        out.push_str(rejected.as_deref().unwrap_or(section));
    }
    out
}

/// A rejected section with the first format of ours; none where it is not rejected.
fn rejection(section: &str, ours: &str) -> Option<String> {
    let (line, rest) = section.split_once("\r\n").unwrap_or((section, ""));
    let [kind, "0", protocol, ..] = line.split(' ').collect::<Vec<_>>()[..] else { return None };
    let format = ours.lines().next()?.split(' ').nth(3)?;
    let map =
        ours.lines().find(|l| l.strip_prefix("a=rtpmap:").is_some_and(|m| m.starts_with(&format!("{format} "))))?;
    let rest: Vec<&str> = rest.lines().filter(|l| !l.starts_with("a=rtpmap:") && !l.starts_with("a=fmtp:")).collect();
    Some(format!("{kind} 0 {protocol} {format}\r\n{}\r\n{map}\r\n", rest.join("\r\n")))
}

/// `a=ice-ufrag` and `a=ice-pwd` of the first section that has them.
fn credentials(sdp: &str) -> (String, String) {
    let value = |name: &str| sdp.lines().find_map(|l| l.strip_prefix(name)).unwrap_or_default().trim().to_owned();
    (value("a=ice-ufrag:"), value("a=ice-pwd:"))
}

/// The candidates as an SDP fragment of the first, bundling section (RFC 8840 section 9, RFC 9725 section 4.3.1).
fn fragment(ufrag: &str, password: &str, candidates: &[String]) -> String {
    let mut out =
        format!("a=ice-ufrag:{ufrag}\r\na=ice-pwd:{password}\r\nm=audio 9 UDP/TLS/RTP/SAVPF 0\r\na=mid:0\r\n");
    for candidate in candidates {
        let value = candidate.trim_start_matches("candidate:");
        // Writing to a String cannot fail.
        let _ = write!(out, "a=candidate:{value}\r\n");
    }
    out.push_str("a=end-of-candidates\r\n");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fragment_has_the_credentials_of_the_offer_and_every_candidate_once() {
        let sdp = "v=0\r\nm=video 9 x\r\na=ice-ufrag:u1\r\na=ice-pwd:p1\r\nm=audio 9 x\r\na=ice-ufrag:u2\r\n";
        let (ufrag, password) = credentials(sdp);
        let candidates =
            ["candidate:1 1 udp 1 192.0.2.1 9 typ host".to_owned(), "2 1 udp 1 192.0.2.2 9 typ host".to_owned()];
        let text = fragment(&ufrag, &password, &candidates);
        let expected = [
            "a=ice-ufrag:u1",
            "a=ice-pwd:p1",
            "m=audio 9 UDP/TLS/RTP/SAVPF 0",
            "a=mid:0",
            "a=candidate:1 1 udp 1 192.0.2.1 9 typ host",
            "a=candidate:2 1 udp 1 192.0.2.2 9 typ host",
            "a=end-of-candidates",
        ];
        assert_eq!(text.lines().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_rejected_section_gets_a_format_that_was_offered_and_others_stay() {
        let offer =
            "v=0\r\nm=video 9 P 96 97\r\na=rtpmap:96 H264/90000\r\nm=audio 9 P 111\r\na=rtpmap:111 opus/48000/2\r\n";
        let answer = "v=0\r\nm=video 9 P 96\r\na=mid:0\r\nm=audio 0 P 0\r\na=mid:1\r\na=rtpmap:0 PCMU/8000\r\n";
        let expected =
            "v=0\r\nm=video 9 P 96\r\na=mid:0\r\nm=audio 0 P 111\r\na=mid:1\r\na=rtpmap:111 opus/48000/2\r\n";
        assert_eq!(with_formats(answer, offer), expected);
        assert_eq!(with_formats("v=0\r\nm=video 0", offer), "v=0\r\nm=video 0", "what is broken stays for the parser");
    }

    #[tokio::test]
    async fn loopback_is_listened_on_for_a_server_on_this_machine_alone() {
        let first = |url: &str| {
            let url: Url = url.parse().unwrap();
            async move { local_addresses(&url).await[0].ip().is_loopback() }
        };
        assert!(first("http://127.0.0.1:8000/x").await && first("http://[::1]/").await);
        assert!(!first("https://192.0.2.1/x").await);
    }
}
