//! A WebRTC end without the socket: ICE, DTLS, SRTP, and a viewer's receiver report a second.

use super::dtls::{Client, Out};
use super::packet::{PAYLOAD_TYPE, Probe};
use crate::sink::dtls::fingerprint;
use crate::sink::{attribute, candidate, offer};
use is::stun::{StunMessage, StunPacket};
use is::{Candidate, IceAgent, IceCreds, Protocol};
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};
use trocar_proto::media::ext::{ABS_CAPTURE_TIME_URI, ExtensionIds};
use trocar_proto::media::rtcp::{Builder, Compound, ReportBlock, Rtcp, ntp_middle};
use trocar_proto::media::rtp::Header;
use trocar_proto::units::{SeqNo, Ssrc};
use trocar_relay::srtp::{Profile, SendStream, Srtp};
use trocar_relay::webrtc::transport::dtls_certificate;

/// Reports are this far apart.
const REPORTS: Duration = Duration::from_secs(1);

/// One end.
pub(super) struct Peer {
    address: SocketAddr,
    ice: IceAgent,
    dtls: Client,
    remote: Option<SocketAddr>,
    srtp: Option<(Profile, Srtp)>,
    last_sr: Option<(u32, Instant)>,
    reported: Instant,
    /// The stream's source, and the highest number that was opened.
    highest: Option<(Ssrc, SeqNo)>,
}

impl Peer {
    /// An end at that address, and its offer.
    pub(super) fn new(address: SocketAddr, cm: bool) -> anyhow::Result<(Self, String)> {
        let certificate = dtls_certificate()?;
        let local = IceCreds::new();
        // `active`, for an answerer that would rather be the client itself.
        let sdp = offer(&local, &fingerprint(&certificate)).replace("a=setup:actpass", "a=setup:active");
        let now = Instant::now();
        let mut ice = IceAgent::new(local);
        ice.set_controlling(true);
        ice.add_local_candidate(Candidate::host(address, Protocol::Udp)?);
        let dtls = Client::new(certificate, cm, now)?;
        let peer = Self { address, ice, dtls, remote: None, srtp: None, last_sr: None, reported: now, highest: None };
        Ok((peer, sdp))
    }

    /// A publisher's end at that address, and its offer.
    pub(super) fn publisher(address: SocketAddr) -> anyhow::Result<(Self, String)> {
        let (peer, sdp) = Self::new(address, false)?;
        let capture = ExtensionIds::OURS.abs_capture_time;
        let more =
            format!("a=rtcp-fb:96 nack\r\na=rtcp-fb:96 nack pli\r\na=extmap:{capture} {ABS_CAPTURE_TIME_URI}\r\n");
        Ok((peer, sdp.replace("a=recvonly", "a=sendonly") + &more))
    }

    /// Where packets go.
    pub(super) fn remote(&self) -> Option<SocketAddr> {
        self.remote
    }

    /// What a source's packets are sealed with, once there are keys.
    ///
    /// # Errors
    /// Where the source has its stream already.
    pub(super) fn stream(&mut self, source: Ssrc) -> anyhow::Result<Option<SendStream>> {
        let Some((_, srtp)) = &mut self.srtp else { return Ok(None) };
        Ok(Some(srtp.send.claim(source)?))
    }

    pub(super) const fn is_unanswered(&self) -> bool {
        self.remote.is_none()
    }

    pub(super) fn handle_answer(&mut self, answer: &str) -> anyhow::Result<()> {
        let value = |name: &str| attribute(answer, name);
        let remote = candidate(answer, "udp").or_else(|_| candidate(answer, "UDP"))?;
        self.ice.set_remote_credentials(IceCreds { ufrag: value("ice-ufrag")?, pass: value("ice-pwd")? });
        self.ice.add_remote_candidate(Candidate::host(remote, Protocol::Udp)?);
        self.remote = Some(remote);
        Ok(())
    }

    /// How packets are protected.
    pub(super) fn protection(&self) -> String {
        match self.srtp.as_ref().map(|(profile, _)| *profile) {
            Some(Profile::Aes256Gcm) => "AES-256-GCM",
            Some(Profile::Aes128Gcm) => "AES-128-GCM",
            Some(Profile::Aes128CmSha1) => "AES-CM",
            None => "no keys",
        }
        .to_owned()
    }

    /// Whether a packet is of the stream itself, and no repeat.
    pub(super) fn is_counted(datagram: &[u8]) -> bool {
        datagram.get(1).is_some_and(|b| b & 0x7f == PAYLOAD_TYPE)
    }

    /// Opens a media packet.
    pub(super) fn open(&mut self, datagram: &mut [u8]) -> Option<Probe> {
        let (len, index) = self.srtp.as_mut()?.1.receive.open(datagram).ok()?;
        let packet = datagram.get(..len)?;
        let header = Header::parse(packet).ok()?;
        self.highest = Some((header.ssrc, index));
        Probe::read(header.payload(packet))
    }

    /// Anything but media.
    pub(super) fn handle_control(&mut self, from: SocketAddr, data: &mut [u8], socket: &UdpSocket) {
        let now = Instant::now();
        match data.first() {
            Some(0..=1) => {
                if let Ok(message) = StunMessage::parse(data) {
                    let (proto, destination) = (Protocol::Udp, self.address);
                    self.ice.handle_packet(now, StunPacket { proto, source: from, destination, message });
                }
            }
            Some(20..=63) => self.dtls.handle_packet(now, data),
            Some(128..=191) => return self.handle_rtcp(now, data),
            _ => return,
        }
        // A handshake is under way: answer at once. What fails is tried again at the next tick.
        let _ = self.tick(now, socket);
    }

    fn handle_rtcp(&mut self, now: Instant, data: &mut [u8]) {
        let Some((_, srtp)) = &mut self.srtp else { return };
        let Ok(len) = srtp.receive.open_rtcp(data) else { return };
        for part in Compound::new(data.get(..len).unwrap_or(&[])) {
            if let Rtcp::SenderReport(sr, _) = part {
                self.last_sr = Some((ntp_middle(sr.ntp), now));
            }
        }
    }

    /// Sends what is due.
    pub(super) fn tick(&mut self, now: Instant, socket: &UdpSocket) -> anyhow::Result<()> {
        let Some(remote) = self.remote else { return Ok(()) };
        self.ice.handle_timeout(now);
        while let Some(t) = self.ice.poll_transmit() {
            let bytes: Vec<u8> = t.contents.into();
            socket.send_to(&bytes, t.destination)?;
        }
        while self.ice.poll_event().is_some() {}
        if self.srtp.is_none() && self.ice.state().is_connected() {
            self.drive_dtls(now, remote, socket)?;
        }
        if now.duration_since(self.reported) >= REPORTS {
            self.reported = now;
            self.report(now, remote, socket)?;
        }
        Ok(())
    }

    fn drive_dtls(&mut self, now: Instant, remote: SocketAddr, socket: &UdpSocket) -> anyhow::Result<()> {
        for out in self.dtls.drive(now)? {
            match out {
                Out::Packet(p) => {
                    socket.send_to(&p, remote)?;
                }
                Out::Keys(profile, material) => {
                    self.srtp = Some((profile, Srtp::from_dtls(profile, &material, true)?));
                }
            }
        }
        Ok(())
    }

    /// As a browser does: without it a sender knows no round trip.
    fn report(&mut self, now: Instant, remote: SocketAddr, socket: &UdpSocket) -> anyhow::Result<()> {
        let (Some((_, srtp)), Some((ssrc, highest))) = (&mut self.srtp, self.highest) else { return Ok(()) };
        let ticks = |t: Duration| u32::try_from(t.as_micros() * 65_536 / 1_000_000).unwrap_or(u32::MAX);
        let (last_sr, delay_since_sr) = self.last_sr.map_or((0, 0), |(sr, at)| (sr, ticks(now.duration_since(at))));
        let block = ReportBlock {
            ssrc,
            fraction_lost: 0,
            cumulative_lost: 0,
            highest_seq: (highest.0 & 0xffff_ffff) as u32,
            jitter: 0,
            last_sr,
            delay_since_sr,
        };
        let mut rtcp = Builder::default().receiver_report(Ssrc(1), Some(&block)).finish();
        srtp.send.seal_rtcp(&mut rtcp)?;
        socket.send_to(&rtcp, remote)?;
        Ok(())
    }
}
