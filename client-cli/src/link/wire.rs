//! Ways that single messages go to a relay or a TURN server: UDP, and streams with a frame around each message.

use anyhow::{Context as _, bail};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long one read waits: how exactly a deadline is kept.
const READ_WAIT: Duration = Duration::from_millis(10);
/// A TCP connection that takes longer has failed.
pub(super) const CONNECT_WITHIN: Duration = Duration::from_secs(3);
/// Largest message; a stream that announces more is not what it should be.
const MESSAGE_MAX: usize = 4_096;

/// Sends messages and receives them.
pub(super) trait Wire: Send {
    /// Sends one.
    fn send(&mut self, message: &[u8]) -> anyhow::Result<()>;

    /// The next one; none where none comes until then.
    fn receive(&mut self, until: Instant) -> anyhow::Result<Option<Vec<u8>>>;
}

/// UDP.
pub(super) struct Udp(UdpSocket);

impl Udp {
    pub(super) fn connect(to: SocketAddr) -> anyhow::Result<Self> {
        let any: SocketAddr =
            if to.is_ipv4() { (Ipv4Addr::UNSPECIFIED, 0).into() } else { (Ipv6Addr::UNSPECIFIED, 0).into() };
        let socket = UdpSocket::bind(any)?;
        socket.connect(to).with_context(|| format!("cannot reach {to}"))?;
        socket.set_read_timeout(Some(READ_WAIT))?;
        Ok(Self(socket))
    }
}

impl Wire for Udp {
    fn send(&mut self, message: &[u8]) -> anyhow::Result<()> {
        self.0.send(message)?;
        Ok(())
    }

    fn receive(&mut self, until: Instant) -> anyhow::Result<Option<Vec<u8>>> {
        let mut buffer = [0; MESSAGE_MAX];
        while Instant::now() < until {
            match self.0.recv(&mut buffer) {
                Ok(n) => return Ok(buffer.get(..n).map(<[u8]>::to_vec)),
                Err(e) if is_quiet(&e) => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(None)
    }
}

/// Where one message ends and the next begins.
#[derive(Debug, Clone, Copy)]
pub(super) enum Framing {
    /// Two bytes of length before each (RFC 4571), as ICE over TCP has it (RFC 6544).
    Length,
    /// As STUN messages say themselves (RFC 8489 section 6.2.2).
    Stun,
}

/// A stream.
pub(super) struct Stream<S> {
    io: S,
    framing: Framing,
    came: Vec<u8>,
}

/// Connects by TCP.
///
/// # Errors
/// What the system says.
pub(super) fn tcp(to: SocketAddr, framing: Framing) -> anyhow::Result<Stream<TcpStream>> {
    Ok(Stream { io: connected(to)?, framing, came: Vec::new() })
}

/// Connects by TLS. Trusted are the machine's authorities and these.
///
/// # Errors
/// What the system or TLS says.
pub(super) fn tls(
    to: SocketAddr,
    name: &str,
    trust: &[CertificateDer<'static>],
) -> anyhow::Result<Stream<StreamOwned<ClientConnection, TcpStream>>> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = rustls_platform_verifier::Verifier::new_with_extra_roots(trust.to_vec(), Arc::clone(&provider))?;
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    let name = ServerName::try_from(name.trim_matches(['[', ']']).to_owned())?;
    let mut connection = ClientConnection::new(Arc::new(config), name)?;
    let mut socket = connected(to)?;
    let until = Instant::now() + CONNECT_WITHIN;
    while connection.is_handshaking() {
        match connection.complete_io(&mut socket) {
            Ok(_) => {}
            Err(e) if is_quiet(&e) && Instant::now() < until => {}
            Err(e) => return Err(anyhow::Error::new(e).context("no TLS")),
        }
    }
    Ok(Stream { io: StreamOwned::new(connection, socket), framing: Framing::Stun, came: Vec::new() })
}

fn connected(to: SocketAddr) -> anyhow::Result<TcpStream> {
    let socket = TcpStream::connect_timeout(&to, CONNECT_WITHIN).with_context(|| format!("no TCP to {to}"))?;
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(READ_WAIT))?;
    Ok(socket)
}

fn is_quiet(e: &std::io::Error) -> bool {
    matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}

impl<S> Stream<S> {
    /// The first whole message of what came.
    fn cut(&mut self) -> anyhow::Result<Option<Vec<u8>>> {
        let two = |at: usize| Some(usize::from(u16::from_be_bytes(*self.came.get(at..)?.first_chunk()?)));
        let (head, len) = match self.framing {
            Framing::Length => (2, two(0)),
            Framing::Stun => (0, two(2).map(|body| body + 20)),
        };
        let Some(len) = len else { return Ok(None) };
        if len > MESSAGE_MAX {
            bail!("a message of {len} bytes is announced: this is no STUN");
        }
        if self.came.len() < head + len {
            return Ok(None);
        }
        let rest = self.came.split_off(head + len);
        let message = std::mem::replace(&mut self.came, rest).split_off(head);
        Ok(Some(message))
    }
}

impl<S: Read + Write + Send> Wire for Stream<S> {
    fn send(&mut self, message: &[u8]) -> anyhow::Result<()> {
        if let Framing::Length = self.framing {
            let len = u16::try_from(message.len())?.to_be_bytes();
            self.io.write_all(&[&len[..], message].concat())?;
        } else {
            self.io.write_all(message)?;
        }
        Ok(self.io.flush()?)
    }

    fn receive(&mut self, until: Instant) -> anyhow::Result<Option<Vec<u8>>> {
        let mut buffer = [0; MESSAGE_MAX];
        loop {
            if let Some(message) = self.cut()? {
                return Ok(Some(message));
            }
            if Instant::now() >= until {
                return Ok(None);
            }
            match self.io.read(&mut buffer) {
                Ok(0) => bail!("the other end closed the connection"),
                Ok(n) => self.came.extend_from_slice(buffer.get(..n).unwrap_or_default()),
                Err(e) if is_quiet(&e) => {}
                Err(e) => return Err(e.into()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_cut_out_of_a_stream_wherever_it_was_torn() {
        let stun = [&[0, 1, 0, 4][..], &[7; 16], &[9; 4]].concat();
        for (framing, whole) in [
            (Framing::Length, [&[0, 3][..], b"abc", &[0, 2], b"de"].concat()),
            (Framing::Stun, [stun.clone(), stun.clone()].concat()),
        ] {
            let mut stream = Stream { io: (), framing, came: Vec::new() };
            let mut all = Vec::new();
            for byte in whole {
                stream.came.push(byte);
                all.extend(stream.cut().unwrap());
            }
            let want = if let Framing::Length = framing {
                vec![b"abc".to_vec(), b"de".to_vec()]
            } else {
                vec![stun.clone(), stun.clone()]
            };
            assert_eq!(all, want);
        }
        let mut stream = Stream { io: (), framing: Framing::Length, came: vec![0xff, 0xff] };
        assert!(stream.cut().unwrap_err().to_string().contains("no STUN"));
    }
}
