//! Whom passkeys belong to: the name of this node (the RP ID of WebAuthn), and the one origin that they are used at. Both come from the
//! address that the node is known by.

use url::{Host, Url};
use webauthn_rs::{Webauthn, WebauthnBuilder};

/// What the authenticator says the passkey is for.
const SHOWN: &str = "Trocar";

/// Why passkeys cannot be used here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoPasskeys {
    /// A passkey belongs to a name.
    #[error(
        "passkeys belong to a host name and signaling.public_url is {0}, an address: https://NAME is right, such as \
         https://trocar.example.org"
    )]
    Address(String),
    /// Browsers give passkeys to pages under TLS alone.
    #[error("browsers use passkeys under https alone and signaling.public_url is {0}: https://NAME is right")]
    Plain(String),
    /// Nothing that a browser goes to.
    #[error("signaling.public_url is {0}: https://NAME[:PORT] is right, such as https://trocar.example.org")]
    Url(String),
    /// There are no accounts that they could be of.
    #[error("this node has no local accounts, and passkeys are theirs: a database and identity.local = true are right")]
    NoAccounts,
}

/// Name and origin.
pub(super) struct Relying {
    pub(super) webauthn: Webauthn,
    /// As browsers write it.
    pub(super) origin: String,
    /// The base of links to this node.
    pub(super) base: String,
}

impl Relying {
    /// Of the address that the node is known by. A loopback address goes by the name `localhost`, which browsers trust without TLS.
    pub(super) fn of(public_url: &str) -> Result<Self, NoPasskeys> {
        let bad = || NoPasskeys::Url(public_url.to_owned());
        let mut url = Url::parse(public_url).map_err(|_| bad())?;
        let is_loopback = match url.host() {
            Some(Host::Domain(name)) => name == "localhost",
            Some(Host::Ipv4(ip)) => ip.is_loopback(),
            Some(Host::Ipv6(ip)) => ip.is_loopback(),
            None => return Err(bad()),
        };
        if is_loopback {
            url.set_host(Some("localhost")).map_err(|_| bad())?;
        } else if !matches!(url.host(), Some(Host::Domain(_))) {
            return Err(NoPasskeys::Address(public_url.to_owned()));
        }
        match url.scheme() {
            "https" => {}
            "http" if is_loopback => {}
            "http" => return Err(NoPasskeys::Plain(public_url.to_owned())),
            _ => return Err(bad()),
        }
        let name = url.host_str().ok_or_else(bad)?.to_owned();
        let origin = url.origin().ascii_serialization();
        let at = Url::parse(&origin).map_err(|_| bad())?;
        let webauthn = WebauthnBuilder::new(&name, &at).and_then(|b| b.rp_name(SHOWN).timeout(super::TIMEOUT).build());
        let base = url.as_str().trim_end_matches('/').to_owned();
        Ok(Self { webauthn: webauthn.map_err(|_| bad())?, origin, base })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_passkey_belongs_to_the_name_that_the_node_is_known_by() {
        for (url, origin, base) in [
            ("https://Trocar.Example.org", "https://trocar.example.org", "https://trocar.example.org"),
            ("https://trocar.example.org:443/", "https://trocar.example.org", "https://trocar.example.org"),
            ("https://x.example:8443/t/", "https://x.example:8443", "https://x.example:8443/t"),
            ("http://127.0.0.1:8080", "http://localhost:8080", "http://localhost:8080"),
            ("http://[::1]:8080", "http://localhost:8080", "http://localhost:8080"),
            ("http://localhost:8080", "http://localhost:8080", "http://localhost:8080"),
        ] {
            let relying = Relying::of(url).unwrap();
            assert_eq!((relying.origin.as_str(), relying.base.as_str()), (origin, base), "{url}");
        }
    }

    #[test]
    fn an_address_and_a_page_without_tls_have_none_and_the_key_is_named() {
        let refused = |url: &str| Relying::of(url).err().unwrap();
        for url in ["https://192.0.2.1", "https://[2001:db8::1]:8443", "http://192.0.2.1"] {
            assert_eq!(refused(url), NoPasskeys::Address(url.to_owned()));
            let said = refused(url).to_string();
            assert!(said.contains("signaling.public_url") && said.contains("https://trocar.example.org"), "{said}");
        }
        assert_eq!(refused("http://trocar.lan"), NoPasskeys::Plain("http://trocar.lan".to_owned()));
        for url in ["", "trocar.example.org", "ftp://trocar.example.org"] {
            assert_eq!(refused(url), NoPasskeys::Url(url.to_owned()));
        }
    }
}
