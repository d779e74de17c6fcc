//! The WebRTC socket: which datagram belongs to whom (RFC 7983), and what came of a peer's handshake.

use super::egress::Socket;
use super::out::Ways;
use super::peer::{Keys, Role, Streams};
use super::state::{Core, Origin, Way};
use super::stun;
use crate::srtp::Srtp;
use crate::webrtc::remote::Remote;
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
use trocar_proto::session::admission::RelayEvent;
use trocar_proto::session::event::LegState;

/// Buffers of one read, each large enough for a coalesced datagram.
const READ_BUFFERS: usize = 8;
const READ_SIZE: usize = 65_536;
/// Wait after an error of the socket.
const READ_PAUSE: Duration = Duration::from_millis(1);
/// Reads, and datagrams, in a row before other work of the worker gets its turn. One read can bring hundreds of coalesced datagrams.
const READS_IN_A_ROW: usize = 8;
const DATAGRAMS_IN_A_ROW: usize = 256;

impl Core {
    /// One datagram, or one frame of a TCP connection. `to` is the address of ours that it came to.
    pub(crate) fn handle_datagram(
        &mut self,
        listener: usize,
        from: Remote,
        to: SocketAddr,
        now: Instant,
        data: &mut [u8],
    ) {
        match data.first() {
            Some(0..=1) => self.handle_stun(listener, from, to, now, data),
            Some(20..=63) => match self.peer_by_address.get(&(listener, from)).copied() {
                Some(index) => {
                    if let Some(peer) = self.peers.get_mut(index) {
                        peer.transport.handle_dtls(now, data);
                    }
                    self.drain_transport(index, now);
                }
                // Unknown sources are dropped before any cryptography.
                None => self.counters.unknown_source += 1,
            },
            Some(128..=191) => match self.peer_by_address.get(&(listener, from)).copied() {
                Some(index) => self.handle_srtp(index, from, now, data),
                None => self.counters.unknown_source += 1,
            },
            _ => self.counters.unknown_source += 1,
        }
    }

    fn handle_stun(&mut self, listener: usize, from: Remote, to: SocketAddr, now: Instant, data: &[u8]) {
        // Whose it is comes first: the library's parser is not run on what strangers send.
        let found = stun::local_ufrag(data).and_then(|u| self.peer_by_ufrag.get(&(listener, u.to_owned())).copied());
        let taken = found.filter(|index| {
            let Some(peer) = self.peers.get_mut(*index) else { return false };
            StunMessage::parse(data).is_ok_and(|message| peer.transport.handle_stun(now, from, to, message))
        });
        match taken {
            Some(index) => {
                self.claim_address(listener, from, index, now);
                self.drain_transport(index, now);
            }
            None => self.counters.stun_refused += 1,
        }
    }

    /// Packets from `from` belong to this peer from now on, unless another one still has consent there.
    fn claim_address(&mut self, listener: usize, from: Remote, index: usize, now: Instant) {
        let key = (listener, from);
        let held = self.peer_by_address.get(&key).copied().filter(|i| *i != index);
        if held.and_then(|i| self.peers.get(i)).is_some_and(|p| p.transport.egress(now) == Some(from)) {
            return;
        }
        self.peer_by_address.insert(key, index);
        if let Some(peer) = self.peers.get_mut(index)
            && !peer.addresses.contains(&from)
        {
            peer.addresses.push(from);
        }
    }

    fn handle_srtp(&mut self, index: usize, from: Remote, now: Instant, data: &mut [u8]) {
        let at = self.micros(now);
        let Some(peer) = self.peers.get_mut(index) else { return };
        let Some(keys) = &mut peer.keys else { return };
        if rtp::is_rtcp(data) {
            let Ok(len) = keys.receive.open_rtcp(data) else {
                self.counters.srtp_refused += 1;
                return;
            };
            peer.transport.handle_authentic(from);
            if !peer.rtcp.admit(at) {
                self.counters.rtcp_dropped += 1;
                return;
            }
            return self.handle_peer_rtcp(index, now, data.get(..len).unwrap_or(&[]));
        }
        // A viewer has no media to send; its RTP is refused like anything else that is not expected.
        let opened = if peer.tracks.is_empty() { None } else { keys.receive.open(data).ok() };
        let Some((len, _)) = opened else {
            self.counters.srtp_refused += 1;
            return;
        };
        peer.transport.handle_authentic(from);
        self.handle_media(index, now, data.get(..len).unwrap_or(&[]));
    }

    /// Sends what a peer's transport has to say and acts on what happened.
    pub(crate) fn drain_transport(&mut self, index: usize, now: Instant) {
        loop {
            let Some(peer) = self.peers.get_mut(index) else { return };
            if let Some((to, datagram)) = peer.transport.poll_transmit() {
                let listener = peer.listener;
                let Self { peers, listeners, tcp_out, .. } = self;
                if let Some(outlet) = (Ways { peers, listeners, tcp_out }).to(listener, to) {
                    // Loss policy: a handshake datagram that the socket does not take is lost; the peer asks again.
                    outlet.send(&datagram);
                }
                continue;
            }
            match peer.transport.poll_event() {
                Some(TransportEvent::Keys(profile, material)) => match Srtp::from_dtls(profile, &material, false) {
                    Ok(srtp) => self.connected(index, srtp, now),
                    Err(error) => tracing::warn!(%error, "keys of a peer cannot be used"),
                },
                Some(TransportEvent::Closed(reason)) => {
                    tracing::info!(peer = ?peer.role, %reason, "peer closed");
                    return self.drop_peer(index);
                }
                None => return,
            }
        }
    }

    /// The handshake is complete: what leaves by the peer begins.
    pub(super) fn connected(&mut self, index: usize, mut srtp: Srtp, now: Instant) {
        let at = self.micros(now);
        let Some(peer) = self.peers.get_mut(index) else { return };
        let legs = peer.legs.clone();
        for id in &legs {
            let Some(leg) = self.legs.get_mut(*id) else { continue };
            let feed = leg.feed.and_then(|f| self.feeds.get(f));
            if let Way::Webrtc(w) = &mut leg.way {
                let (Ok(media), Ok(rtx)) = (srtp.send.claim(w.ssrc), srtp.send.claim(w.rtx_ssrc)) else { continue };
                let fec = w.fec.and_then(|f| srtp.send.claim(f.ssrc).ok());
                w.streams = Some(Streams { media, rtx, fec });
            }
            if let Some(f) = feed {
                leg.leg.start(&f.feed, at);
            }
        }
        peer.keys = Some(Keys { send: srtp.send, receive: srtp.receive });
        self.set_peer_state(index, LegState::Connected);
        for id in legs {
            self.pump_leg(id, now);
        }
    }

    /// Puts a peer and its legs into a state and says so.
    fn set_peer_state(&mut self, index: usize, state: LegState) {
        let Some(peer) = self.peers.get(index) else { return };
        for id in &peer.legs {
            if let Some(leg) = self.legs.get_mut(*id) {
                leg.state = state;
            }
        }
        let event = match &peer.role {
            Role::Viewer(leg) => RelayEvent::Leg { leg: leg.clone(), state },
            Role::Listener(l) => RelayEvent::Leg { leg: l.leg.clone(), state },
            Role::Publisher(publication) => RelayEvent::Publication { publication: publication.clone(), state },
        };
        self.tell(event);
    }

    /// Removes a peer with its legs, its feeds and everything that leads to them.
    pub(crate) fn drop_peer(&mut self, index: usize) {
        self.say_goodbye(index, Instant::now());
        self.set_peer_state(index, LegState::Closed);
        let Some(peer) = self.peers.try_remove(index) else { return };
        for id in &peer.legs {
            let leg = self.legs.try_remove(*id);
            if let Some(feed) = leg.and_then(|l| l.feed).and_then(|f| self.feeds.get_mut(f)) {
                feed.legs.retain(|l| l != id);
            }
        }
        for ufrag in peer.ufrags {
            self.peer_by_ufrag.remove(&(peer.listener, ufrag));
        }
        for a in peer.addresses {
            // Another peer may have proved itself at that address since.
            if self.peer_by_address.get(&(peer.listener, a)) == Some(&index) {
                self.peer_by_address.remove(&(peer.listener, a));
                if let Some(out) = self.tcp_out.get(&(peer.listener, a.address)).filter(|_| a.tcp) {
                    out.close();
                }
            }
        }
        match peer.role {
            Role::Viewer(leg) => drop(self.leg_by_id.remove(&leg)),
            Role::Listener(l) => {
                self.leg_by_id.remove(&l.leg);
                self.remove_listener(&l.session, index);
            }
            Role::Publisher(publication) => {
                self.publications.remove(&publication);
                let feeds = self.feeds.iter().map(|(_, f)| f);
                let mine = feeds.filter(|f| matches!(f.origin, Origin::Webrtc { peer, .. } if peer == index));
                let keys: Vec<_> = mine.map(|f| f.key.clone()).collect();
                for key in keys {
                    self.close_feed(&key);
                }
            }
        }
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
        let mut datagrams = 0;
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
                            core.handle_datagram(listener, Remote::udp(m.addr), to, now, datagram);
                            datagrams += 1;
                        }
                    }
                    core.send_on(now);
                    if datagrams >= DATAGRAMS_IN_A_ROW {
                        break;
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
