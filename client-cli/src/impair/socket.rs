//! UDP sockets of the emulator: large buffers, sends that do not wait, and what the kernel dropped before it was read.

use anyhow::Context as _;
use socket2::{Domain, Protocol, Socket as Socket2, Type};
use std::io::{ErrorKind, Result};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::task::{Context, Poll};
use tokio::net::UdpSocket;

/// Receive buffer in bytes: at 400 Mbit/s about 40 ms, with what the kernel adds to a packet. It gives what it allows.
const BUFFER_BYTES: usize = 4 << 20;
/// Turns of the scheduler that a full send buffer is waited for.
const SEND_TRIES: u32 = 1_000;

/// A socket, twice: one for the runtime to wait on, one to send by, whose readiness nobody has to have seen before.
pub(super) struct Socket {
    read: UdpSocket,
    write: std::net::UdpSocket,
    pub(super) local: SocketAddr,
}

impl Socket {
    /// On an address of our own.
    pub(super) fn bind(local: SocketAddr) -> anyhow::Result<Self> {
        let open = || {
            let socket = Socket2::new(Domain::for_address(local), Type::DGRAM, Some(Protocol::UDP))?;
            socket.set_recv_buffer_size(BUFFER_BYTES)?;
            socket.set_send_buffer_size(BUFFER_BYTES)?;
            socket.set_nonblocking(true)?;
            socket.bind(&local.into())?;
            std::io::Result::Ok(std::net::UdpSocket::from(socket))
        };
        let write = open().with_context(|| format!("cannot open UDP {local}"))?;
        let read = UdpSocket::from_std(write.try_clone()?)?;
        Ok(Self { local: write.local_addr()?, read, write })
    }

    /// On a free port, towards `target` and nobody else.
    pub(super) fn connect(target: SocketAddr) -> anyhow::Result<Self> {
        let any = match target {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let mut socket = Self::bind(any)?;
        socket.write.connect(target).with_context(|| format!("cannot reach {target}"))?;
        socket.local = socket.write.local_addr()?;
        Ok(socket)
    }

    pub(super) fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.read.poll_recv_ready(cx).map(|_| ())
    }

    /// A packet and where it is from; `None` where nothing waits. Errors that earlier sends brought home are passed over.
    pub(super) fn receive(&self, buffer: &mut [u8]) -> Option<(usize, SocketAddr)> {
        loop {
            match self.read.try_recv_from(buffer) {
                Ok(received) => return Some(received),
                Err(e) if e.kind() == ErrorKind::WouldBlock => return None,
                Err(e) if e.kind() == ErrorKind::ConnectionRefused => {}
                Err(error) => {
                    tracing::warn!(%error, "cannot read");
                    return None;
                }
            }
        }
    }

    /// Sends to the connected target, or to `to`.
    pub(super) fn send(&self, bytes: &[u8], to: Option<SocketAddr>) -> Result<()> {
        let mut tries = 0;
        loop {
            let sent = to.map_or_else(|| self.write.send(bytes), |to| self.write.send_to(bytes, to));
            match sent {
                Ok(_) => return Ok(()),
                // A refusal tells of an earlier packet: this one has not been sent yet.
                Err(e) if e.kind() == ErrorKind::ConnectionRefused && tries == 0 => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock && tries < SEND_TRIES => std::thread::yield_now(),
                Err(e) => return Err(e),
            }
            tries += 1;
        }
    }

    /// Packets that the kernel dropped because we did not read in time: what no ledger of ours can know.
    pub(super) fn kernel_drops(&self) -> u64 {
        let port = format!(":{:04X}", self.local.port());
        let table = if self.local.is_ipv4() { "/proc/net/udp" } else { "/proc/net/udp6" };
        let text = std::fs::read_to_string(table).unwrap_or_default();
        let drops = |line: &str| {
            let ours = line.split_whitespace().nth(1)?.ends_with(&port);
            if ours { line.split_whitespace().last()?.parse::<u64>().ok() } else { None }
        };
        text.lines().skip(1).filter_map(drops).sum()
    }
}
