//! One end of a WebRTC connection that does what it is told: it views, it publishes, and it sends whatever bytes a case needs from
//! the address that the relay has validated.

use crate::sink::dtls::{DtlsClient, Out, fingerprint};
use crate::sink::{agent, attribute, candidate, offer};
use anyhow::{Context as _, ensure};
use is::stun::{StunMessage, StunPacket};
use is::{IceAgent, IceCreds, Protocol};
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tokio::net::UdpSocket;
use trocar_proto::media::rtp;
use trocar_proto::units::{SeqNo, Ssrc};
use trocar_relay::srtp::{SendStream, Srtp};
use trocar_relay::webrtc::transport::dtls_certificate;

/// Room for what arrives while the end is elsewhere, in bytes.
const SOCKET_BUFFER: usize = 4 << 20;
/// From the keys to the first packet.
const FIRST_PACKET: Duration = Duration::from_secs(3);
/// From the answer to the keys.
const PATIENCE: Duration = Duration::from_secs(8);

/// What an end offers and who it is, before there is an answer.
pub(super) struct Draft {
    socket: UdpSocket,
    address: SocketAddr,
    local: IceCreds,
    certificate: dimpl::DtlsCertificate,
    /// The offer, to be changed at will before it is sent.
    pub(super) sdp: String,
}

impl Draft {
    /// Somebody who wants to view H.264.
    ///
    /// # Errors
    /// Where there is no socket or no key.
    pub(super) async fn viewer() -> anyhow::Result<Self> {
        let socket = UdpSocket::bind("127.0.0.1:0").await?;
        let _ = socket2::SockRef::from(&socket).set_recv_buffer_size(SOCKET_BUFFER);
        let certificate = dtls_certificate()?;
        let local = IceCreds::new();
        let sdp = offer(&local, &fingerprint(&certificate));
        Ok(Self { address: socket.local_addr()?, socket, local, certificate, sdp })
    }

    /// Somebody who wants to publish that codec (`H264`, `VP9`, …), with extensions and feedback as browsers offer them.
    ///
    /// # Errors
    /// As [`Self::viewer`].
    pub(super) async fn publisher(codec: &str) -> anyhow::Result<Self> {
        let mut draft = Self::viewer().await?;
        let fmtp = draft.sdp.lines().find(|l| l.starts_with("a=fmtp:96")).unwrap_or_default().to_owned();
        let more = "a=rtcp-fb:96 nack\r\na=rtcp-fb:96 nack pli\r\na=rtcp-fb:96 transport-cc\r\n\
                    a=extmap:1 urn:ietf:params:rtp-hdrext:sdes:mid\r\n\
                    a=extmap:3 http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01\r\n\
                    a=extmap:4 http://www.webrtc.org/experiments/rtp-hdrext/abs-capture-time\r\n\
                    a=extmap:6 https://aomediacodec.github.io/av1-rtp-spec/#dependency-descriptor-rtp-header-extension\r\n";
        draft.sdp =
            draft.sdp.replace("a=recvonly", "a=sendonly").replace("H264/90000", &format!("{codec}/90000")) + more;
        if codec != "H264" {
            draft.sdp = draft.sdp.replace(&format!("{fmtp}\r\n"), "");
        }
        Ok(draft)
    }

    /// With the answer, an end that can connect.
    ///
    /// # Errors
    /// Where the answer lacks something.
    pub(super) fn answered(self, answer: &str) -> anyhow::Result<Peer> {
        let (remote, now) = (candidate(answer, "udp")?, Instant::now());
        let ice = agent(self.local, (self.address, Protocol::Udp), remote, answer)?;
        let dtls = DtlsClient::new(self.certificate, now)?;
        let (socket, address) = (self.socket, self.address);
        Ok(Peer {
            socket,
            address,
            remote,
            ice,
            dtls,
            srtp: None,
            stun_out: 0,
            stun_in: 0,
            ufrag: attribute(answer, "ice-ufrag")?,
        })
    }
}

/// One end.
pub(super) struct Peer {
    pub(super) socket: UdpSocket,
    address: SocketAddr,
    /// The relay.
    pub(super) remote: SocketAddr,
    ice: IceAgent,
    dtls: DtlsClient,
    /// Keys, once there are any.
    pub(super) srtp: Option<Srtp>,
    /// Bytes of STUN sent and received.
    pub(super) stun_out: usize,
    pub(super) stun_in: usize,
    /// The relay's user fragment.
    pub(super) ufrag: String,
}

impl Peer {
    /// Runs until there are keys.
    ///
    /// # Errors
    /// Where there are none in time.
    pub(super) async fn connect(&mut self) -> anyhow::Result<()> {
        let until = Instant::now() + PATIENCE;
        while self.srtp.is_none() {
            ensure!(Instant::now() < until, "no keys in time");
            self.step(true, |_| ()).await?;
        }
        Ok(())
    }

    /// Runs until ICE has a pair, without DTLS.
    ///
    /// # Errors
    /// Where there is none in time.
    pub(super) async fn validate(&mut self) -> anyhow::Result<()> {
        let until = Instant::now() + PATIENCE;
        while !self.ice.state().is_connected() {
            ensure!(Instant::now() < until, "no pair in time");
            self.step(false, |_| ()).await?;
        }
        Ok(())
    }

    /// Runs until the first media packet opened: who joins between two key frames waits for the next one, a second at most.
    ///
    /// # Errors
    /// Where none comes in time.
    pub(super) async fn begin(&mut self) -> anyhow::Result<()> {
        let (until, mut begun) = (Instant::now() + FIRST_PACKET, false);
        while !begun {
            ensure!(Instant::now() < until, "no media within {FIRST_PACKET:?} of the keys");
            self.step(true, |_| begun = true).await?;
        }
        Ok(())
    }

    /// Runs for so long; how many media packets opened.
    ///
    /// # Errors
    /// Where the socket fails.
    pub(super) async fn watch(&mut self, time: Duration) -> anyhow::Result<u64> {
        let until = Instant::now() + time;
        let mut count = 0;
        while Instant::now() < until {
            self.step(true, |_| count += 1).await?;
        }
        Ok(count)
    }

    /// Sends what is due, then reads what has come, for at most 20 ms; `media` is called with each packet that opened.
    ///
    /// # Errors
    /// Where the socket fails.
    pub(super) async fn step(&mut self, dtls: bool, mut media: impl FnMut(&[u8])) -> anyhow::Result<()> {
        let now = Instant::now();
        self.ice.handle_timeout(now);
        while let Some(t) = self.ice.poll_transmit() {
            let bytes: Vec<u8> = t.contents.into();
            self.stun_out += bytes.len();
            self.socket.send_to(&bytes, t.destination).await?;
        }
        while self.ice.poll_event().is_some() {}
        if dtls && self.srtp.is_none() && self.ice.state().is_connected() {
            self.drive_dtls(now).await?;
        }
        let mut buffer = [0; 2_048];
        let until = tokio::time::Instant::now() + Duration::from_millis(20);
        while let Ok(read) = tokio::time::timeout_at(until, self.socket.recv_from(&mut buffer)).await {
            let (len, from) = read?;
            let data = buffer.get_mut(..len).unwrap_or(&mut []);
            match data.first() {
                Some(0..=1) => {
                    self.stun_in += len;
                    if let Ok(message) = StunMessage::parse(data) {
                        let (proto, destination) = (Protocol::Udp, self.address);
                        self.ice.handle_packet(now, StunPacket { proto, source: from, destination, message });
                    }
                    break;
                }
                Some(20..=63) => {
                    self.dtls.handle_packet(now, data);
                    break;
                }
                Some(128..=191) if !rtp::is_rtcp(data) => {
                    if let Some(Ok((len, _))) = self.srtp.as_mut().map(|s| s.receive.open(data)) {
                        media(data.get(..len).unwrap_or(&[]));
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// These bytes, as they are.
    ///
    /// # Errors
    /// Where the socket fails.
    pub(super) async fn throw(&self, bytes: &[u8]) -> anyhow::Result<()> {
        self.socket.send_to(bytes, self.remote).await?;
        Ok(())
    }

    /// The right to send under that SSRC.
    ///
    /// # Errors
    /// Where there are no keys or it was claimed before.
    pub(super) fn claim(&mut self, ssrc: u32) -> anyhow::Result<SendStream> {
        Ok(self.srtp.as_mut().context("no keys")?.send.claim(Ssrc(ssrc))?)
    }

    /// An RTP packet, sealed. `header` is the length of what stays readable.
    ///
    /// # Errors
    /// Where it cannot be sealed.
    pub(super) async fn send(
        &self,
        stream: &mut SendStream,
        index: u64,
        packet: &[u8],
        header: usize,
    ) -> anyhow::Result<Vec<u8>> {
        let mut sealed = packet.to_vec();
        sealed.resize(packet.len() + stream.overhead(), 0);
        stream.seal(SeqNo(index), &mut sealed, header)?;
        self.throw(&sealed).await?;
        Ok(sealed)
    }

    /// An RTCP packet, sealed.
    ///
    /// # Errors
    /// Where there are no keys.
    pub(super) async fn send_rtcp(&mut self, mut packet: Vec<u8>) -> anyhow::Result<()> {
        self.srtp.as_mut().context("no keys")?.send.seal_rtcp(&mut packet)?;
        self.throw(&packet).await
    }

    async fn drive_dtls(&mut self, now: Instant) -> anyhow::Result<()> {
        for out in self.dtls.drive(now)? {
            match out {
                Out::Packet(p) => drop(self.socket.send_to(&p, self.remote).await?),
                Out::Keys(profile, material) => self.srtp = Some(Srtp::from_dtls(profile, &material, true)?),
            }
        }
        Ok(())
    }
}
