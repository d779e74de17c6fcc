//! A way through a TURN server (RFC 8656): an allocation, a permission for the relay, and messages in indications.

use super::ice::{read, seal};
use super::wire::{Framing, Udp, Wire, tcp, tls};
use anyhow::{Context as _, bail};
use rtc_stun::attributes::{
    ATTR_DATA, ATTR_ERROR_CODE, ATTR_NONCE, ATTR_REALM, ATTR_REQUESTED_TRANSPORT, ATTR_USERNAME, ATTR_XOR_PEER_ADDRESS,
};
use rtc_stun::crypto::providers::AwsLcRsCrypto;
use rtc_stun::integrity::MessageIntegrity;
use rtc_stun::message::{
    CLASS_INDICATION, CLASS_REQUEST, CLASS_SUCCESS_RESPONSE, METHOD_ALLOCATE, METHOD_CREATE_PERMISSION, METHOD_DATA,
    METHOD_SEND, Message, MessageType, Method, TransactionId,
};
use rtc_stun::xoraddr::XorMappedAddress;
use rustls::pki_types::CertificateDer;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::time::{Duration, Instant};

/// An answer that takes longer is asked for again, so often.
const ANSWER_WITHIN: Duration = Duration::from_millis(500);
const TRIES: u32 = 6;
/// UDP (RFC 8656 section 18.8).
const UDP: [u8; 4] = [17, 0, 0, 0];

/// How a TURN server is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum By {
    Udp,
    Tcp,
    Tls,
}

/// A TURN server (RFC 7065).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Server {
    pub(super) by: By,
    host: String,
    pub(super) port: u16,
}

impl Server {
    /// None where the URI is of another kind.
    pub(super) fn read(uri: &str) -> Option<Self> {
        let (place, transport) = uri.split_once("?transport=").unwrap_or((uri, ""));
        let (scheme, place) = place.split_once(':')?;
        let by = match (scheme, transport) {
            ("turn", "" | "udp") => By::Udp,
            ("turn", "tcp") => By::Tcp,
            ("turns", "" | "tcp") => By::Tls,
            _ => return None,
        };
        let default = if by == By::Tls { 5_349 } else { 3_478 };
        let (host, port) = match place.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, port.parse().ok()?),
            _ => (place, default),
        };
        Some(Self { by, host: host.to_owned(), port })
    }

    fn connect(&self, trust: &[CertificateDer<'static>]) -> anyhow::Result<Box<dyn Wire>> {
        let host = self.host.trim_matches(['[', ']']);
        let found = (host, self.port).to_socket_addrs().with_context(|| format!("{host} has no address"))?.next();
        let to = found.with_context(|| format!("{host} has no address"))?;
        Ok(match self.by {
            By::Udp => Box::new(Udp::connect(to)?),
            By::Tcp => Box::new(tcp(to, Framing::Stun)?),
            By::Tls => Box::new(tls(to, host, trust)?),
        })
    }
}

impl std::fmt::Display for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// An allocation with a permission for one peer.
pub(super) struct Turn {
    wire: Box<dyn Wire>,
    peer: SocketAddr,
}

/// What the server wants with each request.
struct Credentials {
    user: String,
    realm: Vec<u8>,
    nonce: Vec<u8>,
    key: Vec<u8>,
}

impl Turn {
    /// Allocates, and has the server let `peer` through.
    ///
    /// # Errors
    /// What the server says, or that it says nothing.
    pub(super) fn open(
        server: &Server,
        trust: &[CertificateDer<'static>],
        (user, password): (&str, &str),
        peer: SocketAddr,
    ) -> anyhow::Result<Self> {
        let mut wire = server.connect(trust)?;
        let refused = asked(wire.as_mut(), METHOD_ALLOCATE, |m| {
            m.add(ATTR_REQUESTED_TRANSPORT, &UDP);
            Ok(())
        })?;
        let (Ok(realm), Ok(nonce)) = (refused.get(ATTR_REALM), refused.get(ATTR_NONCE)) else {
            bail!("the TURN server asks for no password: {}", said(&refused));
        };
        let text = String::from_utf8_lossy(&realm).into_owned();
        let key =
            MessageIntegrity::long_term_integrity_key(user.to_owned(), text, password.to_owned(), &AwsLcRsCrypto)?;
        let credentials = Credentials { user: user.to_owned(), realm, nonce, key };
        let allocated = asked(wire.as_mut(), METHOD_ALLOCATE, |m| {
            m.add(ATTR_REQUESTED_TRANSPORT, &UDP);
            sign(m, &credentials)
        })?;
        if allocated.typ.class != CLASS_SUCCESS_RESPONSE {
            bail!("the TURN server gives no allocation: {}", said(&allocated));
        }
        let permitted = asked(wire.as_mut(), METHOD_CREATE_PERMISSION, |m| {
            add_peer(m, peer)?;
            sign(m, &credentials)
        })?;
        if permitted.typ.class != CLASS_SUCCESS_RESPONSE {
            bail!("the TURN server does not let {peer} through: {}", said(&permitted));
        }
        Ok(Self { wire, peer })
    }
}

impl Wire for Turn {
    fn send(&mut self, message: &[u8]) -> anyhow::Result<()> {
        let mut out = begun(METHOD_SEND, true)?;
        add_peer(&mut out, self.peer)?;
        out.add(ATTR_DATA, message);
        self.wire.send(&out.raw)
    }

    fn receive(&mut self, until: Instant) -> anyhow::Result<Option<Vec<u8>>> {
        while let Some(bytes) = self.wire.receive(until)? {
            let Some(message) = read(&bytes) else { continue };
            if message.typ == MessageType::new(METHOD_DATA, CLASS_INDICATION)
                && let Ok(data) = message.get(ATTR_DATA)
            {
                return Ok(Some(data));
            }
        }
        Ok(None)
    }
}

fn begun(method: Method, indication: bool) -> anyhow::Result<Message> {
    let mut message = Message::new();
    let class = if indication { CLASS_INDICATION } else { CLASS_REQUEST };
    message.build(&[Box::new(TransactionId::new()), Box::new(MessageType::new(method, class))])?;
    Ok(message)
}

fn add_peer(message: &mut Message, peer: SocketAddr) -> anyhow::Result<()> {
    let address = XorMappedAddress { ip: peer.ip(), port: peer.port() };
    Ok(address.add_to_as(message, ATTR_XOR_PEER_ADDRESS)?)
}

fn sign(message: &mut Message, c: &Credentials) -> anyhow::Result<()> {
    message.add(ATTR_USERNAME, c.user.as_bytes());
    message.add(ATTR_REALM, &c.realm);
    message.add(ATTR_NONCE, &c.nonce);
    seal(message, &c.key)
}

/// Asks until the answer comes.
fn asked(
    wire: &mut dyn Wire,
    method: Method,
    fill: impl Fn(&mut Message) -> anyhow::Result<()>,
) -> anyhow::Result<Message> {
    let mut request = begun(method, false)?;
    fill(&mut request)?;
    for _ in 0..TRIES {
        wire.send(&request.raw)?;
        let until = Instant::now() + ANSWER_WITHIN;
        while let Some(bytes) = wire.receive(until)? {
            if let Some(answer) = read(&bytes).filter(|a| a.transaction_id == request.transaction_id) {
                return Ok(answer);
            }
        }
    }
    bail!("the TURN server does not answer")
}

/// An error in words.
fn said(message: &Message) -> String {
    let Ok(value) = message.get(ATTR_ERROR_CODE) else { return format!("{}", message.typ) };
    let [_, _, class, number, reason @ ..] = value.as_slice() else { return format!("{}", message.typ) };
    format!("{}{number:02} {}", class & 7, String::from_utf8_lossy(reason))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uri_says_how_a_server_is_reached() {
        let read = |uri| Server::read(uri).map(|s| (s.by, s.to_string()));
        for (uri, by, place) in [
            ("turn:t.example", By::Udp, "t.example:3478"),
            ("turn:127.0.0.1:99?transport=udp", By::Udp, "127.0.0.1:99"),
            ("turn:t.example?transport=tcp", By::Tcp, "t.example:3478"),
            ("turns:t.example:443?transport=tcp", By::Tls, "t.example:443"),
            ("turns:[2001:db8::1]", By::Tls, "[2001:db8::1]:5349"),
        ] {
            assert_eq!(read(uri), Some((by, place.to_owned())), "{uri}");
        }
        for other in ["stun:t.example", "turns:t.example?transport=udp", "turn:t:x", "turn"] {
            assert_eq!(read(other), None, "{other}");
        }
    }
}
