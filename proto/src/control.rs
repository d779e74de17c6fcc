//! The control rendezvous at a relay, `trocar-control/1` (docs/CONTROL.md): what experts, gates and signaling say to the relay so that
//! it forwards opaque bytes between two of them. The relay learns who is there and nothing of what is said.
//!
//! One QUIC connection (TLS 1.3, client certificate) per party. The first bidirectional stream that the party opens is its
//! *rendezvous stream*: frames of a `u32` length and that many bytes of JSON, [`ToRelay`] one way and [`FromRelay`] the other. Every
//! further bidirectional stream is a *tunnel*: it begins with one such frame, [`TunnelTo`] from the party that opens it and
//! [`TunnelFrom`] to the one that it is for, and carries opaque bytes after that. QUIC datagrams carry a `u16` index and opaque bytes:
//! to the relay the index of the receiver, from the relay that of the sender.

use crate::session::ids::{CertHash, SessionId};
use serde::{Deserialize, Serialize};

/// ALPN of control connections.
pub const ALPN: &[u8] = b"trocar-control/1";
/// Longest JSON frame, in bytes.
pub const MAX_FRAME: usize = 16 << 10;
/// Parties of one session at most.
pub const MAX_PARTIES: usize = 32;
/// Tunnels that one party may have open at a time.
pub const MAX_TUNNELS: usize = 32;
/// Bytes of a datagram before its opaque part.
pub const DATAGRAM_HEADER: usize = 2;

/// The number of a party at one relay. It means nothing elsewhere and is not given to another party while the relay runs, until
/// all 65,535 were.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Index(pub u16);

/// What a party is, by the role in its certificate's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PartyKind {
    /// The arbiter beside the device: certificate role `gate`, no token.
    Gate,
    /// An expert's program: certificate role `station`, and a token that is bound to it.
    Station,
    /// Signaling, on behalf of browsers: certificate role `signaling`, no token.
    Signaling,
}

/// Party to relay, on the rendezvous stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum ToRelay {
    /// First frame, within 2 s.
    Connect {
        /// Which session.
        session: SessionId,
        /// What the party says it is; its certificate has to agree.
        kind: PartyKind,
        /// A station's session token.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        token: Option<String>,
    },
    /// A gate's copy of its STATUS for the relay's own mirror: the bytes of `FromGate::Status`, hexadecimal.
    Status {
        /// As encoded by `encode_from_gate`.
        bytes: String,
    },
}

/// Relay to party, on the rendezvous stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum FromRelay {
    /// The party is known from now on.
    Connected {
        /// Its own number.
        index: Index,
    },
    /// It is not, and the connection is closed after this.
    Refused {
        /// Why, and what would be right.
        reason: String,
    },
    /// Somebody is there: once for each party of the session, gates to all, the others to gates only.
    Joined {
        /// Its number.
        index: Index,
        /// What it is.
        kind: PartyKind,
        /// What the relay saw of its certificate. The relay may lie; the channel inside decides.
        certificate: CertHash,
    },
    /// That one is gone.
    Left {
        /// Its number.
        index: Index,
    },
    /// To a gate: answer this in the next STATUS copy, so that the relay knows how old its mirror is.
    Probe {
        /// Random.
        nonce: u64,
    },
}

/// First frame of a tunnel towards the relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TunnelTo {
    /// For whom.
    pub to: Index,
}

/// First frame of a tunnel from the relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TunnelFrom {
    /// By whom.
    pub from: Index,
}

/// A datagram's index and opaque part; nothing where it is too short.
#[must_use]
pub fn split_datagram(datagram: &[u8]) -> Option<(Index, &[u8])> {
    let (head, rest) = datagram.split_first_chunk::<DATAGRAM_HEADER>()?;
    Some((Index(u16::from_be_bytes(*head)), rest))
}

/// A datagram to or from that party.
#[must_use]
pub fn join_datagram(index: Index, opaque: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(DATAGRAM_HEADER + opaque.len());
    out.extend_from_slice(&index.0.to_be_bytes());
    out.extend_from_slice(opaque);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_datagram_comes_apart_as_it_was_put_together_and_a_short_one_does_not() {
        let whole = join_datagram(Index(0x1234), b"sealed");
        assert_eq!(whole, [0x12, 0x34, b's', b'e', b'a', b'l', b'e', b'd']);
        assert_eq!(split_datagram(&whole), Some((Index(0x1234), b"sealed".as_slice())));
        assert_eq!(split_datagram(&[1, 2]), Some((Index(0x0102), b"".as_slice())));
        assert_eq!(split_datagram(&[1]), None);
    }
}
