//! ICE-TCP (RFC 6544): where a hospital's network lets no UDP out, a peer connects to us by TCP and the same packets travel in
//! frames of RFC 4571, a length of two bytes before each. We are passive: we never connect.

use super::state::Core;
use super::stun;
use crate::webrtc::remote::Remote;
use bytes::{Buf as _, BytesMut};
use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

/// Bytes that wait for one connection at most. Loss policy: a packet that does not fit is dropped and counted, as a full
/// UDP socket would.
const MAX_WAITING: usize = 1 << 20;
/// Longest frame taken from a peer, in bytes: no WebRTC packet is longer than an Ethernet frame.
const MAX_FRAME: usize = 2_048;
/// Connections of one listener, and of one address, at most; further ones are closed at once.
const MAX_CONNECTIONS: usize = 256;
const MAX_PER_ADDRESS: usize = 16;
/// A connection whose first frame is no connectivity check of a known peer by then is closed.
const FIRST_FRAME: Duration = Duration::from_secs(5);
/// A connection by which nothing has come for this long is closed: a peer checks every few seconds.
const IDLE: Duration = Duration::from_secs(30);
/// A write that makes no progress for this long ends the connection.
const STALL: Duration = Duration::from_secs(5);
/// Wait after an error of the listener.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The sending end of one connection.
pub(crate) struct TcpOut {
    waiting: RefCell<BytesMut>,
    wake: Notify,
}

impl TcpOut {
    fn new() -> Self {
        Self { waiting: RefCell::new(BytesMut::new()), wake: Notify::new() }
    }

    /// Queues one packet; false where there is no room or it is too long for a frame.
    pub(crate) fn send(&self, packet: &[u8]) -> bool {
        let Ok(len) = u16::try_from(packet.len()) else { return false };
        let mut waiting = self.waiting.borrow_mut();
        if waiting.len() + packet.len() + 2 > MAX_WAITING {
            return false;
        }
        waiting.extend_from_slice(&len.to_be_bytes());
        waiting.extend_from_slice(packet);
        self.wake.notify_one();
        true
    }

    async fn next(&self) -> BytesMut {
        loop {
            {
                let mut waiting = self.waiting.borrow_mut();
                if !waiting.is_empty() {
                    return waiting.split();
                }
            }
            self.wake.notified().await;
        }
    }
}

/// Connections under way, by the address of the peer.
#[derive(Default)]
struct Counts(HashMap<IpAddr, usize>);

impl Counts {
    fn take(&mut self, ip: IpAddr) -> bool {
        let all: usize = self.0.values().sum();
        let mine = self.0.entry(ip).or_default();
        let free = all < MAX_CONNECTIONS && *mine < MAX_PER_ADDRESS;
        *mine += usize::from(free);
        free
    }

    fn give_back(&mut self, ip: IpAddr) {
        if let Some(n) = self.0.get_mut(&ip) {
            *n = n.saturating_sub(1);
            if *n == 0 {
                self.0.remove(&ip);
            }
        }
    }
}

/// Accepts connections of one realm's listener until the worker ends.
pub(crate) async fn accept(core: Rc<RefCell<Core>>, listener: usize, socket: TcpListener) {
    let counts = Rc::new(RefCell::new(Counts::default()));
    loop {
        match socket.accept().await {
            Ok((stream, from)) => {
                if !counts.borrow_mut().take(from.ip()) {
                    continue;
                }
                let (core, counts) = (Rc::clone(&core), Rc::clone(&counts));
                tokio::task::spawn_local(async move {
                    if let Err(error) = serve(&core, listener, stream, from).await {
                        tracing::debug!(%error, %from, "ICE-TCP connection ended");
                    }
                    core.borrow_mut().tcp_out.remove(&(listener, from));
                    counts.borrow_mut().give_back(from.ip());
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

async fn serve(core: &Rc<RefCell<Core>>, listener: usize, stream: TcpStream, from: SocketAddr) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let to = stream.local_addr()?;
    let (mut read, mut write) = stream.into_split();
    let mut buffer = BytesMut::with_capacity(2 * MAX_FRAME);
    let first = tokio::time::timeout(FIRST_FRAME, next_frame(&mut read, &mut buffer));
    let mut frame = first.await.map_err(|_| io::Error::other("no frame in time"))??;
    let known =
        stun::local_ufrag(&frame).is_some_and(|u| core.borrow().peer_by_ufrag.contains_key(&(listener, u.to_owned())));
    if !known {
        return Err(io::Error::other("the first frame is no connectivity check of a known peer"));
    }
    let out = Rc::new(TcpOut::new());
    core.borrow_mut().tcp_out.insert((listener, from), Rc::clone(&out));
    let writer = async {
        loop {
            let mut bytes = out.next().await;
            while bytes.has_remaining() {
                let written = tokio::time::timeout(STALL, write.write_buf(&mut bytes)).await;
                if written.map_err(|_| io::Error::other("the peer does not read"))?? == 0 {
                    return Err(io::Error::from(io::ErrorKind::WriteZero));
                }
            }
        }
    };
    let reader = async {
        loop {
            {
                let now = Instant::now();
                let mut core = core.borrow_mut();
                core.handle_datagram(listener, Remote::tcp(from), to, now, &mut frame);
                core.send_on(now);
            }
            let next = tokio::time::timeout(IDLE, next_frame(&mut read, &mut buffer)).await;
            frame = next.map_err(|_| io::Error::other("nothing came for 30 s"))??;
            // Frames that wait are ready at once: without this the clock and the other sockets would get no turn.
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        ended = writer => ended,
        ended = reader => ended,
    }
}

/// The next frame of a connection.
async fn next_frame(read: &mut tokio::net::tcp::OwnedReadHalf, buffer: &mut BytesMut) -> io::Result<BytesMut> {
    loop {
        if let Some([a, b]) = buffer.first_chunk::<2>() {
            let len = usize::from(u16::from_be_bytes([*a, *b]));
            if len == 0 || len > MAX_FRAME {
                return Err(io::Error::other(format!("a frame of {len} bytes; 1 to {MAX_FRAME} are right")));
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
    fn a_peer_that_does_not_read_costs_a_bounded_amount_and_packets_are_dropped_whole() {
        let out = TcpOut::new();
        let mut taken = 0;
        while out.send(&[7; 1_200]) {
            taken += 1;
        }
        assert_eq!(taken, MAX_WAITING / 1_202);
        assert_eq!(out.waiting.borrow().len(), taken * 1_202);
        assert!(!out.send(&vec![0; 70_000]), "longer than a frame's length can say");
    }

    #[test]
    fn one_address_cannot_take_all_connections() {
        let mut counts = Counts::default();
        let ip = |n: u8| IpAddr::from([127, 0, 0, n]);
        assert_eq!((0..100).filter(|_| counts.take(ip(1))).count(), MAX_PER_ADDRESS);
        assert!(counts.take(ip(2)));
        counts.give_back(ip(1));
        assert!(counts.take(ip(1)));
        let all = (3..=250).map(|n| (0..MAX_PER_ADDRESS).filter(|_| counts.take(ip(n))).count()).sum::<usize>();
        assert_eq!(all + MAX_PER_ADDRESS + 1, MAX_CONNECTIONS);
    }

    #[tokio::test]
    async fn frames_come_out_whole_and_a_length_out_of_bounds_ends_the_connection() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut read, _write) = listener.accept().await.unwrap().0.into_split();
        let mut buffer = BytesMut::new();
        client.write_all(&[0, 3, 1, 2]).await.unwrap();
        client.write_all(&[3, 0, 1, 9, 0, 0]).await.unwrap();
        assert_eq!(&next_frame(&mut read, &mut buffer).await.unwrap()[..], [1, 2, 3]);
        assert_eq!(&next_frame(&mut read, &mut buffer).await.unwrap()[..], [9]);
        assert!(next_frame(&mut read, &mut buffer).await.is_err(), "a length of zero");
    }
}
