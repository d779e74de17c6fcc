//! UDP sockets of the measurement: nothing is fragmented, each packet is stamped by the kernel when it comes, and its mark is read.

use super::clock::Clock;
use crate::measure::Stamp;
use anyhow::Context as _;
use nix::sys::socket::sockopt::{ReceiveTimestampns, UdpGroSegment};
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, sendmsg, setsockopt};
use socket2::{Domain, Protocol, SockRef, Socket as Socket2, Type};
use std::io::{IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::time::Duration;

/// Buffers in bytes; the kernel gives what it allows.
const BUFFER_BYTES: usize = 8 << 20;
/// How long a read waits: how soon a thread sees that it is to end.
const READ_WAIT: Duration = Duration::from_millis(20);
/// Room for the control messages that come with a packet.
const CONTROL_BYTES: usize = 256;

/// As the kernel aligns what it writes there.
#[repr(align(16))]
struct Control([u8; CONTROL_BYTES]);

/// A socket. Clones share it.
#[derive(Debug)]
pub struct Socket {
    inner: UdpSocket,
    clock: Clock,
    connected: bool,
}

/// What came.
#[derive(Debug, Clone, Copy)]
pub struct Came {
    /// Bytes.
    pub len: usize,
    /// Who sent it.
    pub from: SocketAddr,
    /// When the kernel had it.
    pub at: Stamp,
    /// DSCP × 4 + ECN.
    pub tos: u8,
}

/// Why nothing came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nothing {
    /// It was quiet.
    Quiet,
    /// The other machine said that nobody listens there.
    Refused,
    /// The socket does not work.
    Broken(nix::errno::Errno),
}

impl Socket {
    /// On an address of our own.
    ///
    /// # Errors
    /// Names the address.
    pub fn bind(local: SocketAddr, clock: Clock) -> anyhow::Result<Self> {
        Self::open(local, clock, false)
    }

    fn open(local: SocketAddr, clock: Clock, reuse: bool) -> anyhow::Result<Self> {
        let open = || {
            let socket = Socket2::new(Domain::for_address(local), Type::DGRAM, Some(Protocol::UDP))?;
            // What the kernel refuses (a limit) leaves the buffer as it is; what is lost then is counted as lost.
            let _ = socket.set_recv_buffer_size(BUFFER_BYTES);
            let _ = socket.set_send_buffer_size(BUFFER_BYTES);
            if local.is_ipv6() {
                socket.set_only_v6(false)?;
            }
            // Two sockets on one port, each connected to another one of the peer's, tell how a NAT maps.
            socket.set_reuse_address(reuse)?;
            socket.bind(&local.into())?;
            // Sets "don't fragment" and asks for marks, on each system as it is done there.
            quinn_udp::UdpSocketState::new((&socket).into())?;
            socket.set_nonblocking(false)?;
            socket.set_read_timeout(Some(READ_WAIT))?;
            std::io::Result::Ok(UdpSocket::from(socket))
        };
        let inner = open().with_context(|| format!("cannot open UDP {local}"))?;
        // Packets one by one, each with its own time.
        let _ = setsockopt(&inner, UdpGroSegment, &false);
        setsockopt(&inner, ReceiveTimestampns, &true).context("timestamps of the kernel")?;
        Ok(Self { inner, clock, connected: false })
    }

    /// On a free port of `from` (or of any address), towards `to` and nobody else.
    ///
    /// # Errors
    /// Names the address.
    pub fn connect(from: Option<IpAddr>, to: SocketAddr, clock: Clock) -> anyhow::Result<Self> {
        let any: IpAddr = if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let mut socket = Self::open(SocketAddr::new(from.unwrap_or(any), 0), clock, true)?;
        socket.inner.connect(to).with_context(|| format!("cannot reach {to}"))?;
        socket.connected = true;
        Ok(socket)
    }

    /// On the port of another socket of ours, which is connected elsewhere: what comes from `to` comes here.
    ///
    /// # Errors
    /// Names the address.
    pub fn twin(local: SocketAddr, to: SocketAddr, clock: Clock) -> anyhow::Result<Self> {
        let mut socket = Self::open(local, clock, true)?;
        socket.inner.connect(to).with_context(|| format!("cannot reach {to}"))?;
        socket.connected = true;
        Ok(socket)
    }

    /// The same socket again, for another thread.
    ///
    /// # Errors
    /// Where there are no descriptors left.
    pub fn another(&self) -> anyhow::Result<Self> {
        Ok(Self { inner: self.inner.try_clone()?, clock: self.clock, connected: self.connected })
    }

    /// Its own address.
    ///
    /// # Errors
    /// What the system says.
    pub fn local(&self) -> anyhow::Result<SocketAddr> {
        Ok(self.inner.local_addr()?)
    }

    /// How much the kernel holds of what comes, in bytes.
    #[must_use]
    pub fn buffer_bytes(&self) -> usize {
        SockRef::from(&self.inner).recv_buffer_size().unwrap_or(0)
    }

    /// The next packet, waiting for it for a moment.
    ///
    /// # Errors
    /// That none came, and why.
    pub fn receive(&self, buffer: &mut [u8]) -> Result<Came, Nothing> {
        let mut control = Control([0; CONTROL_BYTES]);
        let mut parts = [IoSliceMut::new(buffer)];
        let flags = MsgFlags::empty();
        let message = recvmsg::<SockaddrStorage>(self.inner.as_raw_fd(), &mut parts, Some(&mut control.0), flags);
        let message = message.map_err(|e| match e {
            nix::errno::Errno::EAGAIN | nix::errno::Errno::EINTR => Nothing::Quiet,
            nix::errno::Errno::ECONNREFUSED => Nothing::Refused,
            other => Nothing::Broken(other),
        })?;
        let (mut at, mut tos) = (None, 0);
        for c in message.cmsgs().into_iter().flatten() {
            match c {
                ControlMessageOwned::ScmTimestampns(t) => {
                    at = Some(t.tv_sec() * 1_000_000 + t.tv_nsec() / 1_000);
                }
                ControlMessageOwned::Ipv4Tos(t) => tos = t,
                ControlMessageOwned::Ipv6TClass(t) => tos = t as u8,
                _ => {}
            }
        }
        let from = message.address.as_ref().and_then(socket_address).ok_or(Nothing::Quiet)?;
        let at = at.map_or_else(|| self.clock.now(), |wall| self.clock.of_kernel(wall));
        Ok(Came { len: message.bytes, from, at, tos })
    }

    /// Sends; `tos` other than 0 marks the packet. A packet that is too large for the way's first part is an error.
    ///
    /// # Errors
    /// What the system says.
    pub fn send(&self, bytes: &[u8], to: SocketAddr, tos: u8) -> std::io::Result<()> {
        if tos == 0 {
            let sent = if self.connected { self.inner.send(bytes) } else { self.inner.send_to(bytes, to) };
            return match sent {
                // It tells of an earlier packet: this one has not been sent yet.
                Err(e) if e.kind() == std::io::ErrorKind::ConnectionRefused => self.inner.send(bytes).map(drop),
                other => other.map(drop),
            };
        }
        let v4 = to.ip().to_canonical().is_ipv4();
        let class = i32::from(tos);
        let mark = if v4 { ControlMessage::Ipv4Tos(&tos) } else { ControlMessage::Ipv6TClass(&class) };
        let address = SockaddrStorage::from(to);
        let address = (!self.connected).then_some(&address);
        sendmsg(self.inner.as_raw_fd(), &[IoSlice::new(bytes)], &[mark], MsgFlags::empty(), address)?;
        Ok(())
    }
}

fn socket_address(storage: &SockaddrStorage) -> Option<SocketAddr> {
    if let Some(v4) = storage.as_sockaddr_in() {
        return Some(SocketAddrV4::from(*v4).into());
    }
    storage.as_sockaddr_in6().map(|v6| SocketAddrV6::from(*v6).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_comes_with_its_time_and_its_mark() {
        let clock = Clock::start();
        for local in ["127.0.0.1:0", "[::1]:0"] {
            let receiver = Socket::bind(local.parse().unwrap(), clock).unwrap();
            let to = receiver.local().unwrap();
            let sender = Socket::connect(None, to, clock).unwrap();
            for (tos, long) in [(0, 100), (0x8a, 1_400)] {
                let before = clock.now();
                sender.send(&vec![7; long], to, tos).unwrap();
                let came = receiver.receive(&mut [0; 2_000]).unwrap();
                assert_eq!((came.len, came.tos, came.from), (long, tos, sender.local().unwrap()));
                assert!((before - 2..=clock.now()).contains(&came.at), "{} {}", before, came.at);
            }
            assert_eq!(receiver.receive(&mut [0; 10]).unwrap_err(), Nothing::Quiet);
        }
    }
}
