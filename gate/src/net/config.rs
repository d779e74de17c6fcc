//! What the gate's network side wants to know.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;
use trocar_control::token::IssuerKeyError;
use trocar_control::trust::{IdentityError, TrustError};
use trocar_proto::session::ids::SessionId;

/// Relays at most: two paths, and a change of either.
pub const MAX_RELAYS: usize = 4;

/// Relays, certificates, whose tokens count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetConfig {
    /// Control addresses of the relays; a connection to each is kept. At most [`MAX_RELAYS`].
    pub relays: Vec<RelayAddress>,
    /// Own certificate chain, PEM, leaf first: `trocar://REALM/gate/NAME`, for use as a client.
    pub certificate: PathBuf,
    /// Its key, PEM.
    pub key: PathBuf,
    /// Trust list: a directory with `ca.pem` and, where something was revoked, `crl.pem`.
    pub trust: PathBuf,
    /// Whose session tokens count: the name in claim `iss`.
    pub issuer: String,
    /// That issuer's Ed25519 public key: PEM, or one line of base64url.
    pub issuer_key: PathBuf,
    /// Which session this gate is for.
    pub session: SessionId,
}

/// Why the network side cannot start.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// Own certificate.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// Own certificate's role.
    #[error("{}: the certificate's role is {got}, it has to be gate", file.display())]
    Role {
        /// Which file.
        file: PathBuf,
        /// What it has.
        got: String,
    },
    /// Trust list.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// The issuer's key.
    #[error(transparent)]
    IssuerKey(#[from] IssuerKeyError),
    /// Number of relays.
    #[error("relays: {0} are given, 1 to {MAX_RELAYS} are right")]
    Relays(usize),
    /// A thread could not be started.
    #[error("cannot start a thread: {0}")]
    Thread(#[from] std::io::Error),
}

/// `HOST:PORT` of a relay's control listener, or `LOCAL_IP=HOST:PORT` to send from that address; the relay's certificate has to have that host name or address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelayAddress {
    /// Host name or address, without brackets.
    pub host: String,
    /// UDP port.
    pub port: u16,
    /// Own address to send from, where two networks lead to relays.
    pub local: Option<IpAddr>,
}

/// The text was no address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "a relay's control address is HOST:PORT or LOCAL_IP=HOST:PORT, e.g. relay.example:4434, [2001:db8::1]:4434 or 192.0.2.7=relay.example:4434"
)]
pub struct InvalidRelayAddress;

impl FromStr for RelayAddress {
    type Err = InvalidRelayAddress;
    fn from_str(s: &str) -> Result<Self, InvalidRelayAddress> {
        let (local, s) = s.split_once('=').map_or((None, s), |(local, s)| (Some(local), s));
        let local = local.map(|ip| ip.parse().map_err(|_| InvalidRelayAddress)).transpose()?;
        let (host, port) = s.rsplit_once(':').ok_or(InvalidRelayAddress)?;
        let port = port.parse().ok().filter(|p| *p != 0).ok_or(InvalidRelayAddress)?;
        let inner = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
        let is_right = match inner {
            Some(v6) => v6.parse::<std::net::Ipv6Addr>().is_ok(),
            None => !host.is_empty() && !host.contains([':', '/', '[', ']', ' ']),
        };
        if !is_right {
            return Err(InvalidRelayAddress);
        }
        Ok(Self { host: inner.unwrap_or(host).to_owned(), port, local })
    }
}

impl fmt::Display for RelayAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(local) = self.local {
            write!(f, "{local}=")?;
        }
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relays_address_is_host_and_port_and_nothing_else() {
        for good in [
            "relay.example:4434",
            "127.0.0.1:1",
            "[2001:db8::1]:4434",
            "192.0.2.7=relay.example:1",
            "2001:db8::2=[::1]:9",
        ] {
            assert_eq!(good.parse::<RelayAddress>().unwrap().to_string(), good);
        }
        for bad in [
            "",
            "relay",
            "relay:",
            "relay:0",
            "relay:70000",
            ":4434",
            "2001:db8::1:4434",
            "[x]:1",
            "a b:1",
            "=h:1",
            "eth0=h:1",
        ] {
            assert!(bad.parse::<RelayAddress>().is_err(), "{bad:?} was taken");
        }
    }
}
