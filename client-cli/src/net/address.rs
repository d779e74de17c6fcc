//! `HOST:PORT`, as it is typed.

use anyhow::Context as _;
use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

/// A host by name or number, and a port. Looked up anew each time that it is connected to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Address {
    text: String,
    host: usize,
}

/// Why a text is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("HOST:PORT is right, 10.0.0.7:4435, gate.or1:4435 or [::1]:4435")]
pub(crate) struct InvalidAddress;

impl Address {
    /// The host without brackets, as TLS names it.
    pub(crate) fn host(&self) -> &str {
        self.text.get(..self.host).unwrap_or_default().trim_matches(['[', ']'])
    }

    /// Where it is now.
    ///
    /// # Errors
    /// Where the name leads nowhere.
    pub(crate) async fn resolve(&self) -> anyhow::Result<SocketAddr> {
        let mut all = tokio::net::lookup_host(&self.text).await.with_context(|| format!("{self}"))?;
        all.next().with_context(|| format!("{self} leads nowhere"))
    }
}

impl FromStr for Address {
    type Err = InvalidAddress;

    fn from_str(s: &str) -> Result<Self, InvalidAddress> {
        let (host, port) = s.rsplit_once(':').ok_or(InvalidAddress)?;
        let bracketed = host.starts_with('[') && host.ends_with(']');
        let fits = !host.is_empty() && (bracketed || !host.contains(':')) && !host.contains(['/', ' ', '@']);
        match port.parse::<u16>() {
            Ok(1..) if fits => Ok(Self { text: s.to_owned(), host: host.len() }),
            _ => Err(InvalidAddress),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_and_a_port_are_an_address_and_what_is_not_is_told_what_would_be() {
        let host = |s: &str| s.parse::<Address>().map(|a| a.host().to_owned());
        assert_eq!(host("10.0.0.7:4435").as_deref(), Ok("10.0.0.7"));
        assert_eq!(host("gate.or1:1").as_deref(), Ok("gate.or1"));
        assert_eq!(host("[::1]:4435").as_deref(), Ok("::1"));
        for bad in ["", "gate", ":4435", "gate:0", "gate:65536", "::1:4435", "https://gate:1", "a b:1"] {
            assert_eq!(host(bad), Err(InvalidAddress), "{bad}");
        }
    }
}
