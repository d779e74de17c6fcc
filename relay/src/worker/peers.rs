//! The WebRTC socket: which datagram belongs to whom (RFC 7983), and what came of a peer's handshake.

use super::egress::Socket;
use super::state::{Core, Keys, LegEntry, Way};
use super::stun;
use crate::srtp::Srtp;
use crate::webrtc::transport::TransportEvent;
use is::stun::StunMessage;
use quinn_udp::RecvMeta;
use std::cell::RefCell;
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::io::Interest;
use trocar_proto::media::rtp;
use trocar_proto::session::event::LegState;

/// Buffers of one read, each large enough for a coalesced datagram.
const READ_BUFFERS: usize = 8;
const READ_SIZE: usize = 65_536;
/// Wait after an error of the socket.
const READ_PAUSE: Duration = Duration::from_millis(1);
/// Reads in a row before other work of the worker gets its turn.
const READS_IN_A_ROW: usize = 8;

impl Core {
    /// One datagram. `to` is the address of ours that it came to.
    pub(crate) fn handle_datagram(
        &mut self,
        listener: usize,
        from: SocketAddr,
        to: SocketAddr,
        now: Instant,
        data: &mut [u8],
    ) {
        match data.first() {
            Some(0..=1) => self.handle_stun(listener, from, to, now, data),
            Some(20..=63) => match self.leg_by_address.get(&(listener, from)).copied() {
                Some(index) => {
                    if let Some(LegEntry { way: Way::Webrtc(w), .. }) = self.legs.get_mut(index) {
                        w.transport.handle_dtls(now, data);
                    }
                    self.drain_transport(index, now);
                }
                // Unknown sources are dropped before any cryptography.
                None => self.counters.unknown_source += 1,
            },
            Some(128..=191) => match self.leg_by_address.get(&(listener, from)).copied() {
                Some(index) => self.handle_srtp(index, from, now, data),
                None => self.counters.unknown_source += 1,
            },
            _ => self.counters.unknown_source += 1,
        }
    }

    fn handle_stun(&mut self, listener: usize, from: SocketAddr, to: SocketAddr, now: Instant, data: &[u8]) {
        // Whose it is comes first: the library's parser is not run on what strangers send.
        let found = stun::local_ufrag(data).and_then(|u| self.leg_by_ufrag.get(&(listener, u.to_owned())).copied());
        let taken = found.filter(|index| {
            let Some(LegEntry { way: Way::Webrtc(w), .. }) = self.legs.get_mut(*index) else { return false };
            StunMessage::parse(data).is_ok_and(|message| w.transport.handle_stun(now, from, to, message))
        });
        match taken {
            Some(index) => {
                self.claim_address(listener, from, index, now);
                self.drain_transport(index, now);
            }
            None => self.counters.stun_refused += 1,
        }
    }

    /// Packets from `from` belong to this leg from now on, unless another leg still has consent there.
    fn claim_address(&mut self, listener: usize, from: SocketAddr, index: usize, now: Instant) {
        let key = (listener, from);
        let held = self.leg_by_address.get(&key).copied().filter(|i| *i != index);
        let in_use = held.and_then(|i| self.legs.get(i)).is_some_and(|l| match &l.way {
            Way::Webrtc(w) => w.transport.egress(now) == Some(from),
            Way::Roq(_) => false,
        });
        if in_use {
            return;
        }
        self.leg_by_address.insert(key, index);
        if let Some(LegEntry { way: Way::Webrtc(w), .. }) = self.legs.get_mut(index)
            && !w.addresses.contains(&from)
        {
            w.addresses.push(from);
        }
    }

    fn handle_srtp(&mut self, index: usize, from: SocketAddr, now: Instant, data: &mut [u8]) {
        let Some(LegEntry { way: Way::Webrtc(w), .. }) = self.legs.get_mut(index) else { return };
        let Some(keys) = &mut w.keys else { return };
        // A viewer has no media to send; its RTP is refused like anything else that is not expected.
        let opened = if rtp::is_rtcp(data) { keys.receive.open_rtcp(data).ok() } else { None };
        match opened {
            Some(len) => {
                w.transport.handle_authentic(from);
                self.handle_viewer_rtcp(index, now, data.get(..len).unwrap_or(&[]));
            }
            None => self.counters.srtp_refused += 1,
        }
    }

    /// Sends what a peer's transport has to say and acts on what happened.
    pub(crate) fn drain_transport(&mut self, index: usize, now: Instant) {
        loop {
            let Some(LegEntry { way: Way::Webrtc(w), .. }) = self.legs.get_mut(index) else { return };
            if let Some((to, datagram)) = w.transport.poll_transmit() {
                if let Some(l) = self.listeners.get(w.listener) {
                    // Loss policy: a handshake datagram that the socket does not take is lost; the peer asks again.
                    let _ = l.webrtc.send(to, &datagram);
                }
                continue;
            }
            match w.transport.poll_event() {
                Some(TransportEvent::Keys(profile, material)) => match Srtp::from_dtls(profile, &material, false) {
                    Ok(srtp) => self.connected(index, srtp, now),
                    Err(error) => tracing::warn!(%error, "keys of a peer cannot be used"),
                },
                Some(TransportEvent::Closed(reason)) => {
                    tracing::info!(leg = %self.legs.get(index).map_or("", |l| l.id.as_str()), %reason, "peer closed");
                    self.drop_leg(index);
                    return;
                }
                None => return,
            }
        }
    }

    fn connected(&mut self, index: usize, mut srtp: Srtp, now: Instant) {
        let at = self.micros(now);
        let Some(LegEntry { way: Way::Webrtc(w), leg, feed, .. }) = self.legs.get_mut(index) else { return };
        let (Ok(media), Ok(rtx)) = (srtp.send.claim(w.ssrc), srtp.send.claim(w.rtx_ssrc)) else { return };
        w.keys = Some(Keys { send: srtp.send, receive: srtp.receive, media, rtx });
        if let Some(f) = self.feeds.get(*feed) {
            leg.start(&f.feed, at);
        }
        self.set_leg_state(index, LegState::Connected);
        self.pump_leg(index, now);
    }
}

/// Reads a listener's WebRTC socket until the worker ends.
pub(crate) async fn read_socket(core: Rc<RefCell<Core>>, listener: usize, socket: Rc<Socket>) -> io::Result<()> {
    let ready = tokio::net::UdpSocket::from_std(socket.io.try_clone()?)?;
    let local = socket.io.local_addr()?;
    let mut bytes = vec![0_u8; READ_BUFFERS * READ_SIZE];
    let mut meta = [RecvMeta::default(); READ_BUFFERS];
    loop {
        ready.readable().await?;
        for _ in 0..READS_IN_A_ROW {
            let mut chunks = bytes.chunks_exact_mut(READ_SIZE);
            let mut slices: [IoSliceMut<'_>; READ_BUFFERS] =
                std::array::from_fn(|_| IoSliceMut::new(chunks.next().unwrap_or(&mut [])));
            match ready.try_io(Interest::READABLE, || socket.state.recv((&socket.io).into(), &mut slices, &mut meta)) {
                Ok(count) => {
                    let now = Instant::now();
                    let mut core = core.borrow_mut();
                    for (m, buffer) in meta.iter().zip(bytes.chunks_exact_mut(READ_SIZE)).take(count) {
                        let to = SocketAddr::new(m.dst_ip.unwrap_or(local.ip()), local.port());
                        let received = buffer.get_mut(..m.len).unwrap_or(&mut []);
                        for datagram in received.chunks_mut(m.stride.max(1)) {
                            core.handle_datagram(listener, m.addr, to, now, datagram);
                        }
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                // ICMP errors of peers that are gone come up here; they say nothing about the socket.
                // A pause keeps an error that stays from taking the thread.
                Err(error) => {
                    tracing::debug!(%error, "read of the WebRTC socket");
                    tokio::time::sleep(READ_PAUSE).await;
                    break;
                }
            }
        }
        tokio::task::yield_now().await;
    }
}
