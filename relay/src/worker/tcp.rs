//! ICE-TCP (RFC 6544): where a hospital's network lets no UDP out, a peer connects to us by TCP and the same packets travel in
//! frames of RFC 4571, a length of two bytes before each. We are passive: we never connect.

use super::state::Core;
use super::stun;
use crate::webrtc::remote::Remote;
use bytes::{Buf as _, BytesMut};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

/// Bytes that wait for one connection at most. Loss policy: a packet that does not fit is dropped and counted, as a full
/// UDP socket would.
const MAX_WAITING: usize = 1 << 20;
/// A packet that has waited this long is thrown away: what is behind it is newer, and what is older than this helps nobody
/// who operates.
const MAX_AGE: Duration = Duration::from_millis(500);
/// A leg whose packets have waited this long leaves the next frames out up to a key frame, as a native leg does: a line that
/// is slower than its feed shows fewer pictures, not older and broken ones.
const MAX_WAIT: Duration = Duration::from_millis(200);
/// Bytes handed to the kernel in one go at about, and bytes that it may hold unsent: what is there cannot be thrown away.
const PORTION: usize = 64 << 10;
/// Longest frame taken from a peer, in bytes: no WebRTC packet is longer than an Ethernet frame.
const MAX_FRAME: usize = 2_048;
/// Connections of one listener that have not proved themselves by an authentic check, at most. Loss policy: the oldest is
/// closed, so that a flood of idle ones keeps nobody out.
const MAX_STRANGERS: usize = 256;
/// The same of one address (IPv6: one /64); further ones are closed at once. Proven ones are not counted: a hospital has
/// one address, and each peer is admitted by signaling and checks from [`MAX_ADDRESSES`] places at most.
///
/// [`MAX_ADDRESSES`]: crate::webrtc::transport::MAX_ADDRESSES
const MAX_STRANGERS_PER_ADDRESS: usize = 16;
/// A connection without an authentic check of a peer by then is closed.
const PROOF: Duration = Duration::from_secs(5);
/// A connection by which no frame has come for this long is closed: a peer checks every few seconds.
const IDLE: Duration = Duration::from_secs(30);
/// A write that makes no progress for this long ends the connection.
const STALL: Duration = Duration::from_secs(5);
/// Wait after an error of the listener.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The sending end of one connection.
pub(crate) struct TcpOut {
    waiting: RefCell<Waiting>,
    wake: Notify,
    closed: Cell<bool>,
}

/// Framed packets, with when each came and its length.
#[derive(Default)]
struct Waiting {
    bytes: BytesMut,
    packets: VecDeque<(Instant, usize)>,
}

impl Waiting {
    /// Whole packets of about [`PORTION`] bytes, after those that are too old were thrown away.
    fn portion(&mut self, now: Instant) -> BytesMut {
        let is_old = |at: &Instant| now.saturating_duration_since(*at) > MAX_AGE;
        while let Some((_, len)) = self.packets.pop_front_if(|(at, _)| is_old(at)) {
            self.bytes.advance(len);
        }
        let mut taken = 0;
        while let Some((_, len)) = self.packets.pop_front_if(|_| taken < PORTION) {
            taken += len;
        }
        self.bytes.split_to(taken)
    }
}

impl TcpOut {
    pub(super) fn new() -> Self {
        Self { waiting: RefCell::default(), wake: Notify::new(), closed: Cell::new(false) }
    }

    /// Queues one packet; false where there is no room or it is too long for a frame.
    pub(crate) fn send(&self, packet: &[u8]) -> bool {
        let Ok(len) = u16::try_from(packet.len()) else { return false };
        let mut waiting = self.waiting.borrow_mut();
        if waiting.bytes.len() + packet.len() + 2 > MAX_WAITING {
            return false;
        }
        waiting.bytes.extend_from_slice(&len.to_be_bytes());
        waiting.bytes.extend_from_slice(packet);
        waiting.packets.push_back((Instant::now(), packet.len() + 2));
        self.wake.notify_one();
        true
    }

    /// Whether another frame would leave soon. Where what waits is older than [`MAX_WAIT`], a leg leaves whole frames out.
    pub(crate) fn has_room(&self, now: Instant) -> bool {
        let waiting = self.waiting.borrow();
        waiting.packets.front().is_none_or(|(at, _)| now.saturating_duration_since(*at) < MAX_WAIT)
    }

    /// The peer is gone: what waits is still sent, then the connection ends.
    pub(crate) fn close(&self) {
        self.closed.set(true);
        self.wake.notify_one();
    }

    async fn next(&self) -> io::Result<BytesMut> {
        loop {
            let portion = self.waiting.borrow_mut().portion(Instant::now());
            if !portion.is_empty() {
                return Ok(portion);
            }
            if self.closed.get() {
                return Err(io::Error::other("the peer was dropped"));
            }
            self.wake.notified().await;
        }
    }
}

/// Connections that have not proved themselves, the oldest first.
#[derive(Default)]
struct Strangers {
    next: u64,
    waiting: VecDeque<(u64, IpAddr, Rc<Notify>)>,
}

impl Strangers {
    /// Takes a connection in; returns its number, and what tells it that it must go.
    fn take(&mut self, ip: IpAddr) -> Option<(u64, Rc<Notify>)> {
        let network = network(ip);
        if self.waiting.iter().filter(|(_, n, _)| *n == network).count() >= MAX_STRANGERS_PER_ADDRESS {
            return None;
        }
        if self.waiting.len() >= MAX_STRANGERS
            && let Some((_, _, oldest)) = self.waiting.pop_front()
        {
            oldest.notify_one();
        }
        let leave = Rc::new(Notify::new());
        self.next += 1;
        self.waiting.push_back((self.next, network, Rc::clone(&leave)));
        Some((self.next, leave))
    }

    /// The connection has proved itself, or is gone.
    fn forget(&mut self, number: u64) {
        self.waiting.retain(|(n, ..)| *n != number);
    }
}

/// What one owner has of the address space: a whole IPv4 address, or 64 bits of an IPv6 one.
fn network(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(a) => IpAddr::V6(Ipv6Addr::from_bits(a.to_bits() & !u128::from(u64::MAX))),
        v4 => v4,
    }
}

/// Accepts connections of one realm's listener until the worker ends.
pub(crate) async fn accept(core: Rc<RefCell<Core>>, listener: usize, socket: TcpListener) {
    let strangers = Rc::new(RefCell::new(Strangers::default()));
    loop {
        match socket.accept().await {
            Ok((stream, from)) => {
                let Some((number, leave)) = strangers.borrow_mut().take(from.ip()) else { continue };
                let (core, strangers) = (Rc::clone(&core), Rc::clone(&strangers));
                tokio::task::spawn_local(async move {
                    let out = Rc::new(TcpOut::new());
                    let place = Place { core: &core, listener, from, out: &out };
                    let ended = place.serve(stream, &leave, || strangers.borrow_mut().forget(number)).await;
                    if let Err(error) = ended {
                        tracing::debug!(%error, %from, "ICE-TCP connection ended");
                    }
                    core.borrow_mut().forget_connection(listener, from, &out);
                    strangers.borrow_mut().forget(number);
                });
            }
            // Too many open files and the like: a pause, so that the error does not take the thread.
            Err(error) => {
                tracing::debug!(%error, "accept of the ICE-TCP listener");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

impl Core {
    /// A connection is gone. A newer one from the same address and port stays.
    fn forget_connection(&mut self, listener: usize, from: SocketAddr, out: &Rc<TcpOut>) {
        let key = (listener, from);
        if !self.tcp_out.get(&key).is_some_and(|o| Rc::ptr_eq(o, out)) {
            return;
        }
        self.tcp_out.remove(&key);
        let remote = Remote::tcp(from);
        if let Some(peer) = self.peer_by_address.remove(&(listener, remote)).and_then(|p| self.peers.get_mut(p)) {
            peer.addresses.retain(|a| *a != remote);
            peer.transport.forget(remote);
        }
    }
}

/// One connection.
struct Place<'a> {
    core: &'a Rc<RefCell<Core>>,
    listener: usize,
    from: SocketAddr,
    out: &'a Rc<TcpOut>,
}

impl Place<'_> {
    /// Runs the connection to its end; `proved` is called when a check was authentic.
    async fn serve(&self, stream: TcpStream, leave: &Notify, proved: impl FnOnce()) -> io::Result<()> {
        stream.set_nodelay(true)?;
        socket2::SockRef::from(&stream).set_tcp_notsent_lowat(u32::try_from(PORTION).unwrap_or(u32::MAX))?;
        let to = stream.local_addr()?;
        let (mut read, mut write) = stream.into_split();
        let mut buffer = BytesMut::with_capacity(2 * MAX_FRAME);
        let writer = async {
            loop {
                let mut bytes = self.out.next().await?;
                while bytes.has_remaining() {
                    let written = tokio::time::timeout(STALL, write.write_buf(&mut bytes)).await;
                    if written.map_err(|_| io::Error::other("the peer does not read"))?? == 0 {
                        return Err(io::Error::from(io::ErrorKind::WriteZero));
                    }
                }
            }
        };
        let reader = async {
            let proof = async {
                loop {
                    let frame = next_frame(&mut read, &mut buffer).await?;
                    if self.prove(to, frame)? {
                        return Ok::<(), io::Error>(());
                    }
                }
            };
            tokio::select! {
                done = tokio::time::timeout(PROOF, proof) => {
                    done.map_err(|_| io::Error::other("no authentic connectivity check in time"))??;
                }
                () = leave.notified() => return Err(io::Error::other("made room for a newer connection")),
            }
            proved();
            loop {
                let next = tokio::time::timeout(IDLE, next_frame(&mut read, &mut buffer)).await;
                self.handle(to, next.map_err(|_| io::Error::other("nothing came for 30 s"))??);
                // Frames that wait are ready at once: without this the clock and the other sockets would get no turn.
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            ended = writer => ended,
            ended = reader => ended,
        }
    }

    /// A frame of a connection that has proved nothing yet; true where it does.
    ///
    /// # Errors
    /// Where it is no connectivity check of a known peer.
    fn prove(&self, to: SocketAddr, frame: BytesMut) -> io::Result<bool> {
        let (listener, from) = (self.listener, self.from);
        let ufrag = stun::local_ufrag(&frame).map(|u| (listener, u.to_owned()));
        if !ufrag.is_some_and(|u| self.core.borrow().peer_by_ufrag.contains_key(&u)) {
            return Err(io::Error::other("the first frame is no connectivity check of a known peer"));
        }
        self.core.borrow_mut().tcp_out.insert((listener, from), Rc::clone(self.out));
        self.handle(to, frame);
        Ok(self.core.borrow().peer_by_address.contains_key(&(listener, Remote::tcp(from))))
    }

    fn handle(&self, to: SocketAddr, mut frame: BytesMut) {
        let now = Instant::now();
        let mut core = self.core.borrow_mut();
        core.handle_datagram(self.listener, Remote::tcp(self.from), to, now, &mut frame);
        core.send_on(now);
    }
}

/// The next frame of a connection.
async fn next_frame(read: &mut tokio::net::tcp::OwnedReadHalf, buffer: &mut BytesMut) -> io::Result<BytesMut> {
    loop {
        if let Some([a, b]) = buffer.first_chunk::<2>() {
            let len = usize::from(u16::from_be_bytes([*a, *b]));
            if len > MAX_FRAME {
                return Err(io::Error::other(format!("a frame of {len} bytes; up to {MAX_FRAME} are right")));
            }
            // A length of zero is a null packet (RFC 4571 section 2).
            if len == 0 {
                buffer.advance(2);
                continue;
            }
            if buffer.len() >= 2 + len {
                buffer.advance(2);
                return Ok(buffer.split_to(len));
            }
        }
        if read.read_buf(buffer).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leg_is_told_to_leave_frames_out_before_packets_are_thrown_away() {
        let out = TcpOut::new();
        let now = Instant::now();
        assert!(out.has_room(now));
        assert!(out.send(&[7; 1_200]));
        assert!(out.has_room(now));
        assert!(!out.has_room(now + MAX_WAIT + Duration::from_millis(50)));
        assert!(MAX_WAIT < MAX_AGE);
    }

    #[test]
    fn a_peer_that_does_not_read_costs_a_bounded_amount_and_packets_are_dropped_whole() {
        let out = TcpOut::new();
        let mut taken = 0;
        while out.send(&[7; 1_200]) {
            taken += 1;
        }
        assert_eq!(taken, MAX_WAITING / 1_202);
        assert_eq!(out.waiting.borrow().bytes.len(), taken * 1_202);
        assert!(!out.send(&vec![0; 70_000]), "longer than a frame's length can say");
        let portion = out.waiting.borrow_mut().portion(Instant::now());
        assert_eq!(portion.len(), PORTION.next_multiple_of(1_202), "whole packets");
    }

    #[test]
    fn a_packet_that_has_waited_too_long_is_thrown_away_and_the_next_begins_a_frame() {
        let out = TcpOut::new();
        let now = Instant::now();
        assert!(out.send(&[1; 10]));
        let mut waiting = out.waiting.borrow_mut();
        waiting.bytes.extend_from_slice(&[0, 1, 9]);
        waiting.packets.push_back((now + MAX_AGE, 3));
        assert_eq!(&waiting.portion(now + MAX_AGE + MAX_AGE)[..], [0, 1, 9]);
        assert!(waiting.bytes.is_empty() && waiting.packets.is_empty());
    }

    #[test]
    fn one_address_cannot_take_all_places_and_a_flood_from_many_only_drives_out_the_oldest() {
        let mut strangers = Strangers::default();
        let ip = |n: u8| IpAddr::from([127, 0, 0, n]);
        let (first, _) = strangers.take(ip(1)).unwrap();
        assert_eq!((0..100).filter(|_| strangers.take(ip(1)).is_some()).count(), MAX_STRANGERS_PER_ADDRESS - 1);
        strangers.forget(first);
        assert!(strangers.take(ip(1)).is_some(), "a place is free again");
        for n in 2..=250 {
            assert_eq!((0..100).filter(|_| strangers.take(ip(n)).is_some()).count(), MAX_STRANGERS_PER_ADDRESS);
        }
        assert_eq!(strangers.waiting.len(), MAX_STRANGERS);
        assert!(strangers.take(ip(1)).is_some(), "an honest one still gets in");
    }

    #[test]
    fn neighbours_in_one_ipv6_network_count_as_one_address() {
        let ip = |s: &str| network(s.parse().unwrap());
        assert_eq!(ip("2001:db8::1"), ip("2001:db8::ffff:1"));
        assert_ne!(ip("2001:db8::1"), ip("2001:db8:0:1::1"));
        assert_eq!(ip("::ffff:10.0.0.1"), ip("10.0.0.1"));
        assert_ne!(ip("10.0.0.1"), ip("10.0.0.2"));
    }

    #[tokio::test]
    async fn frames_come_out_whole_and_a_length_out_of_bounds_ends_the_connection() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut read, _write) = listener.accept().await.unwrap().0.into_split();
        let mut buffer = BytesMut::new();
        client.write_all(&[0, 3, 1, 2]).await.unwrap();
        client.write_all(&[3, 0, 0, 0, 1, 9, 8, 1]).await.unwrap();
        assert_eq!(&next_frame(&mut read, &mut buffer).await.unwrap()[..], [1, 2, 3]);
        assert_eq!(&next_frame(&mut read, &mut buffer).await.unwrap()[..], [9]);
        assert!(next_frame(&mut read, &mut buffer).await.is_err(), "2049 bytes");
    }
}
