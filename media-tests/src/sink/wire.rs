//! What a sink's packets travel by.

use is::Protocol;
use std::io;
use std::net::SocketAddr;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpStream, UdpSocket};

/// Room for what arrives while the sink is elsewhere, in bytes.
const SOCKET_BUFFER: usize = 4 << 20;

/// A UDP socket, or a TCP connection with frames of RFC 4571.
pub(super) enum Wire {
    Udp(UdpSocket),
    Tcp {
        stream: TcpStream,
        remote: SocketAddr,
        /// What has come and is no whole frame yet.
        pending: Vec<u8>,
    },
}

impl Wire {
    pub(super) async fn udp() -> io::Result<Self> {
        let socket = UdpSocket::bind("127.0.0.1:0").await?;
        let _ = socket2::SockRef::from(&socket).set_recv_buffer_size(SOCKET_BUFFER);
        Ok(Self::Udp(socket))
    }

    pub(super) async fn tcp(remote: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(remote).await?;
        stream.set_nodelay(true)?;
        Ok(Self::Tcp { stream, remote, pending: Vec::new() })
    }

    pub(super) const fn protocol(&self) -> Protocol {
        match self {
            Self::Udp(_) => Protocol::Udp,
            Self::Tcp { .. } => Protocol::Tcp,
        }
    }

    pub(super) fn address(&self) -> io::Result<SocketAddr> {
        match self {
            Self::Udp(socket) => socket.local_addr(),
            Self::Tcp { stream, .. } => stream.local_addr(),
        }
    }

    pub(super) async fn send_to(&mut self, packet: &[u8], to: SocketAddr) -> io::Result<()> {
        match self {
            Self::Udp(socket) => socket.send_to(packet, to).await.map(drop),
            Self::Tcp { stream, .. } => {
                let len = u16::try_from(packet.len()).map_err(io::Error::other)?;
                stream.write_all(&[&len.to_be_bytes(), packet].concat()).await
            }
        }
    }

    /// The next packet. Nothing is lost where the future is dropped before it is done.
    pub(super) async fn recv_from(&mut self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        let (stream, remote, pending) = match self {
            Self::Udp(socket) => return socket.recv_from(buffer).await,
            Self::Tcp { stream, remote, pending } => (stream, *remote, pending),
        };
        loop {
            if let Some(head) = pending.first_chunk::<2>() {
                let len = usize::from(u16::from_be_bytes(*head));
                if let Some(frame) = pending.get(2..2 + len) {
                    let room = buffer.get_mut(..len).ok_or_else(|| io::Error::other("frame too long"))?;
                    room.copy_from_slice(frame);
                    pending.drain(..2 + len);
                    return Ok((len, remote));
                }
            }
            stream.readable().await?;
            let mut chunk = [0; 16_384];
            match stream.try_read(&mut chunk) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(n) => pending.extend_from_slice(chunk.get(..n).unwrap_or(&[])),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) => return Err(e),
            }
        }
    }
}
