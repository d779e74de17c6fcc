//! The common way: a relay as `str0m`'s own examples write it. One thread, one UDP socket for all viewers, one `Rtc` each in
//! RTP mode (the payload is shared between them), one `send_to` per packet. Retransmission is on, as a relay of video needs it;
//! bandwidth estimation and statistics are off, as they are by default.

use super::packet::{CLOCK_RATE, HEADER, PACKET};
use super::words::{Order, Word, orders, say};
use anyhow::Context as _;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};
use str0m::change::SdpOffer;
use str0m::media::{Mid, Pt};
use str0m::net::{Protocol, Receive};
use str0m::rtp::{RtpWrite, Ssrc};
use str0m::{Candidate, Event, Input, Output, Rtc, RtcConfig};
use trocar_proto::media::rtp::Header;
use trocar_relay::quic::bind_udp;

/// Longest wait for a packet: new viewers are looked for as often.
const PATIENCE: Duration = Duration::from_millis(20);
/// Packets read in a row before other things get their turn.
const READS: usize = 64;

struct Viewer {
    rtc: Rtc,
    due: Instant,
    /// Where packets go, once media was negotiated.
    media: Option<(Mid, Pt, Ssrc)>,
    connected: bool,
}

/// Forwards until its standard input ends.
///
/// # Errors
/// Where a socket fails or an offer cannot be answered.
pub fn run() -> anyhow::Result<()> {
    str0m::crypto::from_feature_flags().install_process_default();
    let orders = orders();
    let ingress = bind_udp(SocketAddr::from(([127, 0, 0, 1], 0)))?;
    let socket = bind_udp(SocketAddr::from(([127, 0, 0, 1], 0)))?;
    say(&Word::Ingress(ingress.local_addr()?))?;
    let mut relay = Relay { local: socket.local_addr()?, socket, viewers: Vec::new(), next_seq: 0 };
    let mut buffer = vec![0; 2_000];
    loop {
        if !relay.take_orders(&orders)? {
            return Ok(());
        }
        relay.wait(&ingress)?;
        for _ in 0..READS {
            let Ok((len, from)) = relay.socket.recv_from(&mut buffer) else { break };
            relay.handle_datagram(from, buffer.get(..len).unwrap_or(&[]))?;
        }
        for _ in 0..READS {
            let Ok((len, _)) = ingress.recv_from(&mut buffer) else { break };
            if len == PACKET {
                relay.forward(buffer.get(..len).unwrap_or(&[]))?;
            }
        }
        relay.handle_timeouts()?;
    }
}

struct Relay {
    socket: UdpSocket,
    local: SocketAddr,
    viewers: Vec<Viewer>,
    next_seq: u64,
}

impl Relay {
    fn take_orders(&mut self, orders: &Receiver<Order>) -> anyhow::Result<bool> {
        loop {
            match orders.try_recv() {
                Ok(Order::Offer(sdp)) => {
                    let answer = self.admit(&sdp)?;
                    say(&Word::Answer(answer))?;
                }
                Ok(_) => {}
                Err(std::sync::mpsc::TryRecvError::Empty) => return Ok(true),
                Err(std::sync::mpsc::TryRecvError::Disconnected) => return Ok(false),
            }
        }
    }

    fn admit(&mut self, sdp: &str) -> anyhow::Result<String> {
        let now = Instant::now();
        let config = RtcConfig::new().set_rtp_mode(true).set_ice_lite(true).clear_codecs().enable_h264(true);
        let mut rtc = config.set_stats_interval(None).build(now);
        rtc.add_local_candidate(Candidate::host(self.local, "udp")?);
        let answer = rtc.sdp_api().accept_offer(SdpOffer::from_sdp_string(sdp)?)?;
        let mut viewer = Viewer { rtc, due: now, media: None, connected: false };
        viewer.drain(&self.socket)?;
        self.viewers.push(viewer);
        Ok(answer.to_sdp_string())
    }

    fn wait(&self, ingress: &UdpSocket) -> anyhow::Result<()> {
        let now = Instant::now();
        let due = self.viewers.iter().map(|v| v.due.saturating_duration_since(now)).min();
        let wait = due.unwrap_or(PATIENCE).min(PATIENCE);
        let mut fds = [PollFd::new(&self.socket, PollFlags::IN), PollFd::new(ingress, PollFlags::IN)];
        poll(&mut fds, Some(&Timespec::try_from(wait)?))?;
        Ok(())
    }

    fn handle_datagram(&mut self, source: SocketAddr, data: &[u8]) -> anyhow::Result<()> {
        let Ok(contents) = data.try_into() else { return Ok(()) };
        let receive = Receive { proto: Protocol::Udp, source, destination: self.local, contents };
        let input = Input::Receive(Instant::now(), receive);
        if let Some(viewer) = self.viewers.iter_mut().find(|v| v.rtc.accepts(&input)) {
            viewer.rtc.handle_input(input)?;
            viewer.drain(&self.socket)?;
        }
        Ok(())
    }

    fn forward(&mut self, packet: &[u8]) -> anyhow::Result<()> {
        let header = Header::parse(packet)?;
        let payload: Arc<[u8]> = packet.get(HEADER..).context("packet")?.into();
        let (seq, now) = (self.next_seq, Instant::now());
        self.next_seq += 1;
        for viewer in self.viewers.iter_mut().filter(|v| v.connected) {
            let Some((_, pt, ssrc)) = viewer.media else { continue };
            if let Some(stream) = viewer.rtc.direct_api().stream_tx(&ssrc) {
                let write = RtpWrite::new(pt, seq.into(), header.timestamp, now, Arc::clone(&payload));
                stream.write_rtp(write.marker(header.marker).nackable(true));
            }
            viewer.drain(&self.socket)?;
        }
        Ok(())
    }

    fn handle_timeouts(&mut self) -> anyhow::Result<()> {
        let now = Instant::now();
        for viewer in self.viewers.iter_mut().filter(|v| v.due <= now) {
            viewer.rtc.handle_input(Input::Timeout(now))?;
            viewer.drain(&self.socket)?;
        }
        Ok(())
    }
}

impl Viewer {
    /// Until it has nothing to say.
    fn drain(&mut self, socket: &UdpSocket) -> anyhow::Result<()> {
        loop {
            match self.rtc.poll_output()? {
                Output::Timeout(at) => {
                    self.due = at;
                    return Ok(());
                }
                // Loss policy: what the socket does not take is lost, and the viewers miss it.
                Output::Transmit(t) => drop(socket.send_to(&t.contents, t.destination)),
                Output::Event(Event::Connected) => self.connected = true,
                Output::Event(Event::MediaAdded(m)) => self.begin(m.mid)?,
                Output::Event(_) => {}
            }
        }
    }

    fn begin(&mut self, mid: Mid) -> anyhow::Result<()> {
        let rate = CLOCK_RATE;
        let media = self.rtc.media(mid).context("media")?;
        let pt = *media.remote_pts().first().with_context(|| format!("no payload type of {rate} Hz"))?;
        let mut api = self.rtc.direct_api();
        let ssrc = api.stream_tx_by_mid(mid, None).context("no stream to send")?.ssrc();
        self.media = Some((mid, pt, ssrc));
        Ok(())
    }
}
