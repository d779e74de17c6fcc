//! The batch that leaves a worker's socket: packets of one size for one address, sent as one `UDP_SEGMENT` datagram.

use super::tcp::TcpOut;
use quinn_udp::{Transmit, UdpSocketState};
use std::io;
use std::net::{SocketAddr, UdpSocket};

/// Packets in one batch at most. A send costs about as much as sealing five packets; from 16 to 32 the CPU per packet and the
/// time until the last viewer of a burst has its packet both fall, beyond that what the first packets wait weighs more.
pub(crate) const MAX_SEGMENTS: usize = 32;
/// Bytes in one batch at most, below the largest UDP payload.
const MAX_BYTES: usize = 64_000;

/// A UDP socket with the kernel's segmentation and coalescing.
pub(crate) struct Socket {
    pub(crate) io: UdpSocket,
    pub(crate) state: UdpSocketState,
}

impl Socket {
    pub(crate) fn new(io: UdpSocket) -> io::Result<Self> {
        let state = UdpSocketState::new((&io).into())?;
        Ok(Self { io, state })
    }

    /// How many packets one send may take now: one, where the kernel has turned segmentation down for a route.
    fn max_segments(&self) -> usize {
        self.state.max_gso_segments().clamp(1, MAX_SEGMENTS)
    }

    /// Sends one datagram. Loss policy where the socket is full: it is dropped, and the caller counts it.
    pub(crate) fn send(&self, to: SocketAddr, datagram: &[u8]) -> io::Result<()> {
        let t = Transmit { destination: to, ecn: None, contents: datagram, segment_size: None, src_ip: None };
        self.state.try_send((&self.io).into(), &t)
    }
}

/// Where one peer's packets leave by.
#[derive(Clone, Copy)]
pub(crate) enum Outlet<'a> {
    /// A UDP socket, to that address.
    Udp(&'a Socket, SocketAddr),
    /// A TCP connection that the peer opened.
    Tcp(&'a TcpOut),
}

impl Outlet<'_> {
    /// Sends one datagram. Loss policy where there is no room: it is dropped, and false says so.
    pub(crate) fn send(self, datagram: &[u8]) -> bool {
        match self {
            Self::Udp(socket, to) => socket.send(to, datagram).is_ok(),
            Self::Tcp(out) => out.send(datagram),
        }
    }

    /// Whether the next frame of a leg would leave soon.
    pub(crate) fn has_room(self, now: std::time::Instant) -> bool {
        match self {
            Self::Udp(..) => true,
            Self::Tcp(out) => out.has_room(now),
        }
    }

    fn max_segments(self) -> usize {
        match self {
            Self::Udp(socket, _) => socket.max_segments(),
            Self::Tcp(_) => MAX_SEGMENTS,
        }
    }
}

/// What a flush did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Flushed {
    /// Packets handed to the kernel.
    pub(crate) sent: u64,
    /// Packets that it did not take.
    pub(crate) dropped: u64,
}

/// One worker's batch. It is empty between legs.
pub(crate) struct Batch {
    bytes: Vec<u8>,
    used: usize,
    segment: usize,
    count: usize,
    /// Packets that one send to its address may take.
    limit: usize,
    /// A shorter packet was put last: GSO takes no other after it.
    closed: bool,
}

impl Batch {
    pub(crate) fn new() -> Self {
        Self { bytes: vec![0; MAX_BYTES], used: 0, segment: 0, count: 0, limit: 1, closed: false }
    }

    /// Whether a packet of that length can go into this batch.
    pub(crate) fn has_room(&mut self, len: usize, outlet: Outlet<'_>) -> bool {
        if self.count == 0 {
            self.limit = outlet.max_segments();
            return true;
        }
        !self.closed && len <= self.segment && self.count < self.limit && self.used + len <= MAX_BYTES
    }

    /// Room for a packet of that length; to be filled whole, or taken back with [`Self::retract`].
    pub(crate) fn push(&mut self, len: usize) -> Option<&mut [u8]> {
        let start = self.used;
        let room = self.bytes.get_mut(start..start + len)?;
        if self.count == 0 {
            self.segment = len;
        }
        self.closed = len < self.segment;
        self.count += 1;
        self.used += len;
        Some(room)
    }

    /// Takes the packet pushed last back.
    pub(crate) const fn retract(&mut self, len: usize) {
        self.used -= len;
        self.count -= 1;
        self.closed = false;
    }

    /// Sends what is there and empties the batch.
    pub(crate) fn flush(&mut self, outlet: Outlet<'_>) -> Flushed {
        if self.count == 0 {
            return Flushed::default();
        }
        let contents = self.bytes.get(..self.used).unwrap_or(&[]);
        let sent = match outlet {
            Outlet::Udp(socket, to) => self.flush_udp(contents, socket, to),
            Outlet::Tcp(out) => contents.chunks(self.segment.max(1)).filter(|p| out.send(p)).count() as u64,
        };
        let dropped = (self.count as u64).saturating_sub(sent);
        self.clear();
        Flushed { sent, dropped }
    }

    fn flush_udp(&self, contents: &[u8], socket: &Socket, to: SocketAddr) -> u64 {
        let segment_size = (self.count > 1).then_some(self.segment);
        let t = Transmit { destination: to, ecn: None, contents, segment_size, src_ip: None };
        match socket.state.try_send((&socket.io).into(), &t) {
            Ok(()) => self.count as u64,
            // The kernel or the route takes no segmentation: the same packets, one by one.
            Err(e) if e.kind() != io::ErrorKind::WouldBlock && self.count > 1 => {
                contents.chunks(self.segment.max(1)).filter(|p| socket.send(to, p).is_ok()).count() as u64
            }
            Err(_) => 0,
        }
    }

    /// Throws away what was not flushed; nothing, unless a leg was left in the middle.
    pub(crate) const fn clear(&mut self) {
        (self.used, self.count, self.closed) = (0, 0, false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_of_one_size_leave_together_and_arrive_apart() {
        let socket = Socket::new(UdpSocket::bind("127.0.0.1:0").unwrap()).unwrap();
        let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
        let to = peer.local_addr().unwrap();
        let outlet = Outlet::Udp(&socket, to);
        let mut b = Batch::new();
        for i in 0..5_u8 {
            assert!(b.has_room(100, outlet));
            b.push(100).unwrap().fill(i);
        }
        assert!(!b.has_room(101, outlet), "a longer packet does not fit a batch");
        b.push(40).unwrap().fill(9);
        assert!(!b.has_room(40, outlet), "a shorter packet is the last");
        assert_eq!(b.flush(outlet), Flushed { sent: 6, dropped: 0 });
        let mut buffer = [0; 200];
        for i in 0..5_u8 {
            assert_eq!((peer.recv(&mut buffer).unwrap(), buffer[0]), (100, i));
        }
        assert_eq!((peer.recv(&mut buffer).unwrap(), buffer[0]), (40, 9));
        assert_eq!(b.flush(outlet), Flushed::default());
    }
}
