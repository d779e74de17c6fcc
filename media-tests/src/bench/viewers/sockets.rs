//! Viewers with a UDP socket each: one loop over all of them.

use super::super::floor::{FIXED, key_of, nonce_of};
use super::super::packet::Probe;
use super::super::peer::Peer;
use super::super::words::{Finished, Measured, Order, Reading, ViewerKind, ViewerSettings, Word, orders, say};
use super::ENOUGH;
use super::tally::{Delays, Tally, read_now};
use anyhow::Context as _;
use aws_lc_rs::aead::{Aad, LessSafeKey};
use quinn_udp::{RecvMeta, UdpSocketState};
use rustix::event::{Timespec, epoll};
use std::io::IoSliceMut;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;
use std::sync::mpsc::TryRecvError;
use std::time::{Duration, Instant};
use trocar_proto::media::rtp;
use trocar_relay::quic::bind_udp;

/// Handshakes, reports and orders are looked at this often.
const TICK: Duration = Duration::from_millis(10);
/// Reads of one socket before the others get their turn.
const READS: usize = 64;
/// Room for what one read gives: a coalesced datagram.
const BUFFER: usize = 65_536;

/// Opens packets of one viewer.
enum Opener {
    Webrtc(Box<Peer>),
    Sealed(Box<LessSafeKey>),
    Clear,
}

struct Viewer {
    socket: UdpSocket,
    gro: Option<UdpSocketState>,
    opener: Opener,
    tally: Tally,
}

struct Viewers {
    settings: ViewerSettings,
    epoll: OwnedFd,
    all: Vec<Viewer>,
    delays: Delays,
    /// How many are to get packets before that is said.
    awaited: Option<usize>,
}

pub(super) fn run(settings: &ViewerSettings) -> anyhow::Result<()> {
    let orders = orders();
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let mut viewers =
        Viewers { settings: settings.clone(), epoll, all: Vec::new(), delays: Delays::default(), awaited: None };
    let mut buffer = vec![0; BUFFER];
    let mut events = Vec::with_capacity(256);
    let mut ticked = Instant::now();
    let tick = Timespec::try_from(TICK)?;
    loop {
        events.clear();
        epoll::wait(&viewers.epoll, rustix::buffer::spare_capacity(&mut events), Some(&tick))?;
        for event in &events {
            let index = usize::try_from(event.data.u64())?;
            let Viewers { all, delays, .. } = &mut viewers;
            if let Some(viewer) = all.get_mut(index) {
                viewer.read(&mut buffer, delays);
            }
        }
        if ticked.elapsed() < TICK {
            continue;
        }
        ticked = Instant::now();
        viewers.tick(ticked)?;
        loop {
            match orders.try_recv() {
                Ok(order) => viewers.handle(order)?,
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => return Ok(()),
            }
        }
    }
}

impl Viewers {
    fn handle(&mut self, order: Order) -> anyhow::Result<()> {
        match order {
            Order::Open(count) => self.open(count)?,
            Order::Answer(sdp) => {
                let mut peers = self.all.iter_mut().filter_map(|v| match &mut v.opener {
                    Opener::Webrtc(peer) => Some(peer),
                    _ => None,
                });
                peers.find(|p| p.is_unanswered()).context("nobody waits for an answer")?.handle_answer(&sdp)?;
            }
            Order::Begin => {
                self.all.iter_mut().for_each(|v| v.tally.begin());
                self.delays.begin();
            }
            Order::End => {
                let mut all = Measured::default();
                self.all.iter().for_each(|v| v.tally.add_to(&mut all));
                self.delays.end(&mut all);
                say(&Word::Measured(all))?;
            }
            Order::Finish(made) => {
                let mut all = Finished::default();
                self.all.iter().for_each(|v| v.tally.finish(made, &mut all));
                all.protection = self.all.first().map(Viewer::protection).unwrap_or_default();
                say(&Word::Finished(all))?;
            }
            Order::Viewers(_) | Order::Offer(_) | Order::Stop => {}
        }
        Ok(())
    }

    fn open(&mut self, count: usize) -> anyhow::Result<()> {
        let mut addresses = Vec::new();
        for _ in 0..count {
            let socket = bind_udp(SocketAddr::from(([127, 0, 0, 1], 0)))?;
            let address = socket.local_addr()?;
            addresses.push(address);
            let gro = match self.settings.reading {
                Reading::Plain => None,
                Reading::Gro => Some(UdpSocketState::new((&socket).into())?),
            };
            let index = self.all.len();
            let opener = match self.settings.kind {
                ViewerKind::Webrtc { cm } => {
                    let (peer, offer) = Peer::new(address, cm)?;
                    say(&Word::Offer(offer))?;
                    Opener::Webrtc(Box::new(peer))
                }
                ViewerKind::Sealed => Opener::Sealed(Box::new(key_of(index)?)),
                _ => Opener::Clear,
            };
            epoll::add(&self.epoll, &socket, epoll::EventData::new_u64(index as u64), epoll::EventFlags::IN)?;
            self.all.push(Viewer { socket, gro, opener, tally: Tally::default() });
        }
        if !matches!(self.settings.kind, ViewerKind::Webrtc { .. }) {
            say(&Word::Addresses(addresses))?;
        }
        self.awaited = Some(self.all.len());
        Ok(())
    }

    fn tick(&mut self, now: Instant) -> anyhow::Result<()> {
        for viewer in &mut self.all {
            if let Opener::Webrtc(peer) = &mut viewer.opener {
                peer.tick(now, &viewer.socket)?;
            }
        }
        if self.awaited.is_some_and(|n| n == self.all.iter().filter(|v| v.tally.packets() >= ENOUGH).count()) {
            self.awaited = None;
            say(&Word::Ready)?;
        }
        Ok(())
    }
}

impl Viewer {
    fn protection(&self) -> String {
        match &self.opener {
            Opener::Webrtc(peer) => peer.protection(),
            Opener::Sealed(_) => "AES-256-GCM".to_owned(),
            Opener::Clear => "none".to_owned(),
        }
    }

    /// Reads what is there, up to a bound.
    fn read(&mut self, buffer: &mut [u8], delays: &mut Delays) {
        for _ in 0..READS {
            let (from, len, stride) = match &self.gro {
                None => match self.socket.recv_from(buffer) {
                    Ok((len, from)) => (from, len, len),
                    Err(_) => return,
                },
                Some(state) => {
                    let mut meta = [RecvMeta::default()];
                    let mut slices = [IoSliceMut::new(buffer)];
                    let [m] = match state.recv((&self.socket).into(), &mut slices, &mut meta) {
                        Ok(_) => meta,
                        Err(_) => return,
                    };
                    (m.addr, m.len, m.stride)
                }
            };
            let read_ns = read_now();
            for datagram in buffer.get_mut(..len).unwrap_or(&mut []).chunks_mut(stride.max(1)) {
                self.handle(from, datagram, read_ns, delays);
            }
        }
    }

    fn handle(&mut self, from: SocketAddr, datagram: &mut [u8], read_ns: u64, delays: &mut Delays) {
        let is_media = datagram.first().is_some_and(|b| (128..192).contains(b)) && !rtp::is_rtcp(datagram);
        let len = datagram.len();
        match &mut self.opener {
            Opener::Webrtc(peer) if is_media && Peer::is_counted(datagram) => {
                self.tally.take(len, read_ns, delays, || peer.open(datagram));
            }
            // Repeats are no packets of the stream.
            Opener::Webrtc(_) if is_media => {}
            Opener::Webrtc(peer) => peer.handle_control(from, datagram, &self.socket),
            Opener::Sealed(key) => self.tally.take(len, read_ns, delays, || {
                let (header, sealed) = datagram.split_first_chunk_mut::<FIXED>()?;
                let plain = key.open_in_place(nonce_of(*header), Aad::from(&*header), sealed).ok()?;
                Probe::read(plain)
            }),
            Opener::Clear => self.tally.take(len, read_ns, delays, || Probe::read(datagram.get(FIXED..)?)),
        }
    }
}
